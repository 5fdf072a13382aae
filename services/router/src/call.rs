//! One call: from a request to the answer of a version.

use std::{net::SocketAddr, sync::Arc};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Version, header, request::Parts,
};
use http_body::Body as _;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use serde_json::Value;
use serin_schemas::{
    ids::{EventTime, RequestId},
    records::Assignment,
};

use crate::{
    answer::{self, Refusal},
    body::{self, AnswerBody, RequestBody, Taken, Taking, Upload},
    config::span,
    guard::{Called, Guard},
    outputs,
    path::Target,
    split::{self, Choice, Wanted},
    state::Shared,
    table::{Route, Table},
    upstream::{self, Cause},
};

/// Names the model where the path does not.
pub(crate) const MODEL: HeaderName = HeaderName::from_static("x-serin-model");
/// Asks for a version; tells which one answered.
pub(crate) const VERSION: HeaderName = HeaderName::from_static("x-model-version");
/// Tells which arm answered.
pub(crate) const ARM: HeaderName = HeaderName::from_static("x-model-arm");
/// The id that joins feedback.
pub(crate) const PREDICTION_ID: HeaderName = HeaderName::from_static("x-prediction-id");
/// Event time of a replayed request.
pub(crate) const EVENT_TIME: HeaderName = HeaderName::from_static("x-serin-event-time");
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// Longest prediction id that is taken from a caller.
pub(crate) const LONGEST_ID: usize = 128;

/// A request that is on its way to a model.
struct Call<'a> {
    shared: &'a Arc<Shared>,
    table: Arc<Table>,
    method: Method,
    target: Target<'a>,
    query: Option<&'a str>,
    headers: HeaderMap,
    pin: Option<String>,
    id: RequestId,
}

/// Answers a request that is not for the router itself.
pub(crate) async fn call(
    shared: &Arc<Shared>,
    peer: SocketAddr,
    parts: Parts,
    body: Incoming,
) -> Result<Response<AnswerBody>, Refusal> {
    let target = Target::parse(parts.uri.path());
    let text = |name: &HeaderName| parts.headers.get(name).and_then(|value| value.to_str().ok());
    let model = target.model.or_else(|| text(&MODEL)).ok_or(Refusal::NoModel)?;
    let table = shared.table(model).ok_or_else(|| Refusal::UnknownModel(model.to_owned()))?;
    let infers = parts.method == Method::POST && (target.infers || target.model.is_none());
    let pin = target.version.or_else(|| text(&VERSION)).map(str::to_owned);
    let id = prediction_id(&parts.headers)?;
    let stated = stated_time(shared, &parts.headers)?;
    let mut call = Call {
        shared,
        table,
        method: parts.method.clone(),
        target,
        query: parts.uri.query(),
        headers: parts.headers.clone(),
        pin,
        id,
    };
    if infers {
        let arrived = stated.or_else(|| shared.clock.now()).ok_or(Refusal::NoClock)?;
        call.infer(peer, body, arrived, stated).await
    } else {
        call.pass(peer, body).await
    }
}

/// The prediction id: the caller's own if it sends one, else a new one.
fn prediction_id(headers: &HeaderMap) -> Result<RequestId, Refusal> {
    let Some(value) = headers.get(&PREDICTION_ID) else {
        return Ok(RequestId(uuid::Uuid::now_v7().to_string()));
    };
    let usable = |id: &&str| !id.is_empty() && id.len() <= LONGEST_ID && id.bytes().all(|byte| byte.is_ascii_graphic());
    value.to_str().ok().filter(usable).map(RequestId::from).ok_or(Refusal::BadId)
}

/// The event time that a replay states; other clocks ignore it.
fn stated_time(shared: &Shared, headers: &HeaderMap) -> Result<Option<EventTime>, Refusal> {
    let Some(value) = headers.get(&EVENT_TIME).filter(|_| shared.clock.is_replay()) else { return Ok(None) };
    let micros = value.to_str().ok().and_then(|text| text.trim().parse().ok()).ok_or(Refusal::BadTime)?;
    Ok(Some(EventTime(micros)))
}

impl Call<'_> {
    /// A prediction: split, called, reported.
    async fn infer(
        &mut self,
        peer: SocketAddr,
        body: Incoming,
        arrived: EventTime,
        stated: Option<EventTime>,
    ) -> Result<Response<AnswerBody>, Refusal> {
        let slot = Arc::new(self.shared.slot(arrived).ok_or(Refusal::Overloaded)?);
        let wanted = self.table.reads_request || self.table.record.fallback;
        let taken = self.take(body, wanted).await?;
        let json = taken.kept.as_ref().filter(|_| self.table.reads_request).and_then(|kept| outputs::parse(kept));
        let choice = self.choose(json.as_ref())?;
        let segments = outputs::segments(&self.table.segments, &self.headers, json.as_ref());
        let called = Called { request_id: self.id.clone(), arrived, stated, segments, _slot: slot };
        self.prepare(peer);
        let spare = taken.kept.clone().filter(|_| split::may_fall_back(&self.table, &choice));
        let id = self.id.0.clone();
        let failed = match self.attempt(&called, &choice, taken, id, spare.is_some()).await? {
            Attempt::Answered(answer) => return Ok(answer),
            Attempt::Failed(cause) => cause,
        };
        let Some(kept) = spare else {
            return Ok(answer::upstream_failed(&self.table, &choice.route, &self.id, failed));
        };
        tracing::debug!(model = %self.table.record.model, version = %choice.route.version, ?failed, "fallback to stable");
        self.fall_back(&called, kept).await
    }

    /// Stable answers in the canary's place.
    async fn fall_back(&self, called: &Called, kept: Bytes) -> Result<Response<AnswerBody>, Refusal> {
        let choice = Choice { route: self.table.stable.clone(), assignment: Assignment::Fallback, unit: None };
        let taken = Taken { body: RequestBody::Kept(Some(kept)), kept: None, upload: None };
        let id = format!("{}.fallback", self.id);
        match self.attempt(called, &choice, taken, id, false).await? {
            Attempt::Answered(answer) => Ok(answer),
            Attempt::Failed(failed) => Ok(answer::upstream_failed(&self.table, &choice.route, &self.id, failed)),
        }
    }

    /// Anything else about a model: to stable, or the version asked for; nothing is reported.
    async fn pass(&mut self, peer: SocketAddr, body: Incoming) -> Result<Response<AnswerBody>, Refusal> {
        let route = match &self.pin {
            Some(pin) => self.table.find(pin).ok_or_else(|| self.unknown(pin))?.clone(),
            None => self.table.stable.clone(),
        };
        let taken = self.take(body, false).await?;
        self.prepare(peer);
        let upload = taken.upload.clone();
        match self.send(&route, taken.body, upload.as_deref()).await {
            Ok(response) => {
                let (head, incoming) = response.into_parts();
                let body = AnswerBody::passing(incoming, None, false, 0, span(self.shared.config.timeouts.idle));
                Ok(self.finish(head, &route, body))
            }
            Err(_) if upload.as_ref().is_some_and(|upload| upload.too_large()) => Err(Refusal::TooLarge),
            Err(cause) => Ok(answer::upstream_failed(&self.table, &route, &self.id, Failed::Cause(cause))),
        }
    }

    async fn take(&self, body: Incoming, wanted: bool) -> Result<Taken, Refusal> {
        let config = &self.shared.config;
        let taking = Taking {
            limit: config.limits.body,
            keep: config.limits.keep_body,
            wanted,
            pause: span(config.timeouts.request),
            asks_first: self.headers.contains_key(header::EXPECT),
        };
        body::take(body, taking).await.map_err(Refusal::from)
    }

    fn choose(&self, json: Option<&Value>) -> Result<Choice, Refusal> {
        let sticky = self.table.sticky.as_ref();
        let key = sticky.and_then(|key| outputs::sticky_key(key, &self.headers, json));
        let wanted = Wanted {
            pin: self.pin.as_deref(),
            key: key.as_deref(),
            chance: self.chance(),
            all_stable: self.shared.switch.is_on(),
            expired: self.table.lease.expired(self.shared.clock.source().steady()),
        };
        split::choose(&self.table, &wanted).map_err(|version| self.unknown(&version.0))
    }

    fn chance(&self) -> u64 {
        match self.shared.config.random_seed {
            Some(seed) => serin_sketches::hash::hash64(&seed.to_be_bytes(), self.id.as_str().as_bytes()),
            None => (self.shared.chance)(),
        }
    }

    fn unknown(&self, version: &str) -> Refusal {
        Refusal::UnknownVersion {
            model: self.table.record.model.0.clone(),
            version: version.to_owned(),
            known: self.table.versions().join(", "),
        }
    }

    /// The request's headers as an upstream gets them.
    fn prepare(&mut self, peer: SocketAddr) {
        let headers = &mut self.headers;
        upstream::strip_hop_by_hop(headers);
        for name in [MODEL, VERSION, EVENT_TIME] {
            headers.remove(name);
        }
        if let Some(host) = headers.remove(header::HOST) {
            headers.entry(FORWARDED_HOST).or_insert(host);
        }
        let forwarded = match headers.get(&FORWARDED_FOR).and_then(|value| value.to_str().ok()) {
            Some(before) => format!("{before}, {}", peer.ip()),
            None => peer.ip().to_string(),
        };
        if let Ok(value) = HeaderValue::from_str(&forwarded) {
            headers.insert(FORWARDED_FOR, value);
        }
        if let Ok(value) = HeaderValue::from_str(self.id.as_str()) {
            headers.entry(REQUEST_ID).or_insert_with(|| value.clone());
            headers.insert(PREDICTION_ID, value);
        }
        if self.table.reads_answer() {
            // Output rules read plain JSON only.
            headers.remove(header::ACCEPT_ENCODING);
        }
    }

    /// Calls one version and reports it.
    async fn attempt(
        &self,
        called: &Called,
        choice: &Choice,
        taken: Taken,
        event_id: String,
        spare: bool,
    ) -> Result<Attempt, Refusal> {
        let mut guard = Guard::new(self.shared, &self.table, called, choice, event_id);
        if let Some(upload) = &taken.upload {
            guard.follow(Arc::clone(upload));
        }
        let response = match self.send(&choice.route, taken.body, taken.upload.as_deref()).await {
            Ok(response) => response,
            Err(_) if taken.upload.as_ref().is_some_and(|upload| upload.too_large()) => {
                guard.abandon();
                return Err(Refusal::TooLarge);
            }
            Err(cause) => {
                guard.fail(cause);
                return Ok(Attempt::Failed(Failed::Cause(cause)));
            }
        };
        guard.head(response.status(), response.headers());
        if spare && response.status().is_server_error() {
            guard.complete(None);
            return Ok(Attempt::Failed(Failed::Status(response.status())));
        }
        self.receive(response, guard, &choice.route).await
    }

    /// The answer: whole if it is small, else passing through.
    async fn receive(&self, response: Response<Incoming>, mut guard: Guard, route: &Route) -> Result<Attempt, Refusal> {
        let (head, mut incoming) = response.into_parts();
        let keep = self.shared.config.limits.keep_body;
        let pause = span(self.shared.config.timeouts.idle);
        let readable = outputs::readable(&head.headers);
        let Some(size) = incoming.size_hint().exact().filter(|&size| size <= keep as u64) else {
            let wanted = readable && self.table.reads_answer();
            let body = AnswerBody::passing(incoming, Some(guard), wanted, keep, pause);
            return Ok(Attempt::Answered(self.finish(head, route, body)));
        };
        let mut whole = Whole::default();
        while whole.len < size {
            let cause = match tokio::time::timeout(pause, incoming.frame()).await {
                Ok(Some(Ok(frame))) => {
                    whole.push(frame.into_data().unwrap_or_default());
                    continue;
                }
                Ok(None) => break,
                Ok(Some(Err(_))) => Cause::Truncated,
                Err(_) => Cause::Timeout,
            };
            guard.fail(cause);
            return Ok(Attempt::Failed(Failed::Cause(cause)));
        }
        let whole = whole.join();
        guard.complete(readable.then_some(&whole));
        Ok(Attempt::Answered(self.finish(head, route, AnswerBody::whole(whole))))
    }

    /// Sends the request to a version and waits for the head of its answer.
    async fn send(
        &self,
        route: &Route,
        body: RequestBody,
        upload: Option<&Upload>,
    ) -> Result<Response<Incoming>, Cause> {
        let version = Some(route.version.as_str()).filter(|_| self.table.versioned_paths);
        let uri = route.base.join(&self.target.upstream(version, self.query)).map_err(|_| Cause::Connect)?;
        let mut request = Request::new(body);
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = uri;
        *request.version_mut() = Version::HTTP_11;
        *request.headers_mut() = self.headers.clone();
        if let Ok(version) = HeaderValue::from_str(route.version.as_str()) {
            request.headers_mut().insert(VERSION, version);
        }
        let patience = span(self.shared.config.timeouts.first_byte);
        let mut response = self.shared.upstreams.request(request);
        loop {
            match tokio::time::timeout(patience, &mut response).await {
                Ok(Ok(response)) => return Ok(response),
                Ok(Err(_)) if upload.is_some_and(Upload::failed) => return Err(Cause::ClientClosed),
                Ok(Err(error)) => return Err(Cause::of(&error)),
                // The caller still sends, within its own limits of time.
                Err(_) if upload.is_some_and(|upload| upload.ended().is_none()) => {}
                Err(_) => return Err(Cause::Timeout),
            }
        }
    }

    /// The answer's head as the caller gets it.
    fn finish(&self, mut head: http::response::Parts, route: &Route, body: AnswerBody) -> Response<AnswerBody> {
        upstream::strip_hop_by_hop(&mut head.headers);
        head.version = Version::HTTP_11;
        head.extensions.clear();
        let mut response = Response::from_parts(head, body);
        answer::mark(response.headers_mut(), route, &self.id);
        response
    }
}

/// How a call of a version ended.
enum Attempt {
    Answered(Response<AnswerBody>),
    Failed(Failed),
}

/// Why a call of a version failed before its first byte was passed on.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Failed {
    Cause(Cause),
    Status(StatusCode),
}

/// Pieces of a body; a single one is not copied.
#[derive(Default)]
struct Whole {
    pieces: Vec<Bytes>,
    len: u64,
}

impl Whole {
    fn push(&mut self, piece: Bytes) {
        self.len += piece.len() as u64;
        self.pieces.push(piece);
    }

    fn join(mut self) -> Bytes {
        match self.pieces.len() {
            0 => Bytes::new(),
            1 => self.pieces.remove(0),
            _ => self.pieces.concat().into(),
        }
    }
}
