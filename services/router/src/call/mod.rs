//! One call: from a request to the answer of a version.
//!
//! In the order in which a request passes through them: this file finds the model, the table and the version that the request asks for
//! (`read` finds those that are in its body), `choose` decides which version answers, `mirror` sends copies to shadows, `exchange` calls
//! the version, and `answer` writes the answer. `request` is the request itself, `worker` the thread that serves it. The report of a call
//! is in [`report`](crate::report).

pub(crate) mod answer;
mod choose;
pub(crate) mod cors;
mod exchange;
mod mirror;
mod read;
mod request;
pub(crate) mod worker;

use std::{borrow::Cow, mem, sync::Arc};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, Method, Response, StatusCode, request::Parts};
use serin_schemas::{
    ids::{EventTime, RequestId},
    records::Assignment,
};
use serin_stream::trace;

use crate::{
    body::request::{Arriving, CallerBody, RequestBody, Taken},
    call::{
        cors::Cors,
        exchange::{Attempt, Event},
        read::{ReadBody, in_body},
        request::Call,
        worker::{Peer, Worker},
    },
    config::{MayPin, Pinning},
    content::request::Seen,
    protocol::{
        Target, Wire, grpc,
        headers::{EVENT_TIME, LONGEST_ID, MODEL, PIN_TOKEN, PREDICTION_ID, VERSION},
        openai,
        refusal::Refusal,
    },
    report::{called::Called, listening::Recorder, passing::AnswerBody, trace::CallTrace},
    state::Shared,
    tables::{
        split::{self, Choice},
        table::Shadow,
    },
    upstream::cause::Failed,
};

/// Answers a request that is not for the router itself.
pub(crate) async fn call(
    worker: &Arc<Worker>,
    peer: &Peer,
    parts: Parts,
    body: CallerBody,
) -> Result<Response<AnswerBody>, Refusal> {
    let Parts { method, uri, mut headers, .. } = parts;
    let shared = &worker.shared;
    let (config, paths) = (shared.config(), shared.paths.load_full());
    let target = Target::parse(uri.path(), &headers, &paths);
    let mut body = Arriving::new(body, shared.held.clone());
    // Data that few calls need is boxed: a call is moved several times while it is built and should be small.
    let in_header = target.wire != Wire::Grpc && headers.contains_key(&MODEL);
    let kept = if in_header { None } else { openai::response(uri.path()) }.and_then(|id| shared.responses.find(&id));
    let asks_body = target.wire == Wire::Grpc || method == Method::POST && !in_header && kept.is_none();
    let (body_model, named) = if target.model_in_body && asks_body {
        Box::pin(in_body(worker, &config, &headers, target.wire, &mut body)).await?
    } else {
        (None, None)
    };
    // Also non-ASCII values: a name that is present but unknown must be refused, not ignored.
    let text = |name: &HeaderName| headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()));
    let in_path = |target: &Target<'_>| matches!(target.wire, Wire::V1 | Wire::V2) && target.model.is_some();
    let mut target = target;
    let mut model = if in_path(&target) { target.model.clone() } else { None };
    if let Some(name) = model.as_deref()
        && shared.table(name).is_none()
        && let Some(found) = target.with_known(uri.path(), |name| shared.table(name).is_some())
    {
        target = found;
        model = target.model.clone();
    }
    let model = model.or_else(|| text(&MODEL)).or(body_model.map(Cow::Owned)).or_else(|| target.model.clone());
    if model.is_none() && target.model_in_body && Cors::is_preflight(&method, &headers) {
        return Ok(Cors::preflight(&config.cors, &headers));
    }
    let model = model.or_else(|| kept.as_ref().map(|kept| Cow::Borrowed(&*kept.model)));
    let model = model.ok_or_else(|| match method {
        Method::POST => Refusal::NoModel(target.wire),
        _ if target.predicts_only() => Refusal::Method,
        _ => Refusal::NoModel(target.wire),
    })?;
    let table = shared.table(&model).ok_or_else(|| Refusal::UnknownModel(model.clone().into_owned()))?;
    let infers = method == Method::POST && target.infers && kept.is_none();
    let in_message = named.as_ref().and_then(|named| named.version.as_deref().map(Cow::Borrowed));
    let pin = target.version.clone().or_else(|| text(&VERSION)).or(in_message).map(Cow::into_owned);
    if pin.is_some() {
        may_pin(&config.pin, &headers)?;
    }
    // Only the version that keeps a response can return it, as long as the version exists.
    let kept = kept.filter(|kept| *kept.model == *table.record.model.as_str());
    let keeper = kept.map(|kept| kept.version.0).filter(|version| table.find(version).is_some());
    let pin = pin.or(keeper);
    let id = prediction_id(shared, &headers)?;
    let stated = stated_time(shared, &headers)?;
    if let Some(authority) = uri.authority()
        && let Ok(host) = authority.as_str().parse()
    {
        // HTTP/2 has the authority instead of a `host` header.
        headers.entry(http::header::HOST).or_insert(host);
    }
    let mut call = Call {
        worker,
        shared,
        config,
        table,
        peer,
        method,
        uri: &uri,
        target,
        headers,
        named,
        pin,
        id,
        prediction_id: None,
        request_id: None,
    };
    if infers {
        let arrived = stated.or_else(|| shared.clock.now()).ok_or(Refusal::NoClock)?;
        call.infer(body, arrived, stated).await
    } else {
        Box::pin(call.pass(body)).await
    }
}

/// Refuses a request for a version that the caller may not ask for.
fn may_pin(pinning: &Pinning, headers: &HeaderMap) -> Result<(), Refusal> {
    let given =
        headers.get(&PIN_TOKEN).and_then(|given| std::str::from_utf8(given.as_bytes()).ok()).unwrap_or_default();
    match pinning.allow {
        MayPin::Always => Ok(()),
        MayPin::Token if pinning.token.is(given) => Ok(()),
        MayPin::Token => Err(Refusal::MayNotPin(true)),
        MayPin::Never => Err(Refusal::MayNotPin(false)),
    }
}

/// The prediction id: the caller's own if it sends one, otherwise a new one.
fn prediction_id(shared: &Shared, headers: &HeaderMap) -> Result<RequestId, Refusal> {
    let Some(value) = headers.get(&PREDICTION_ID) else {
        return Ok(RequestId(shared.events.new_id()));
    };
    let usable = |id: &&str| !id.is_empty() && id.len() <= LONGEST_ID && id.bytes().all(|byte| byte.is_ascii_graphic());
    value.to_str().ok().filter(usable).map(RequestId::from).ok_or(Refusal::BadId)
}

/// The event time that a replay states. It is ignored unless the clock is a replay clock.
fn stated_time(shared: &Shared, headers: &HeaderMap) -> Result<Option<EventTime>, Refusal> {
    let Some(value) = headers.get(&EVENT_TIME).filter(|_| shared.clock.is_replay()) else { return Ok(None) };
    let micros = value.to_str().ok().and_then(|text| text.trim().parse().ok()).ok_or(Refusal::BadTime)?;
    Ok(Some(EventTime(micros)))
}

impl Call<'_> {
    /// Handles a prediction: it is split, sent and reported.
    async fn infer(
        &mut self,
        body: Arriving,
        arrived: EventTime,
        stated: Option<EventTime>,
    ) -> Result<Response<AnswerBody>, Refusal> {
        let arrival = self.shared.arrive(arrived);
        let clock = self.shared.clock.source();
        let traced_since = trace::is_on().then(|| clock.wall());
        let wanted = self.table.record.fallback || !self.table.shadows.is_empty();
        let mut body = body;
        let read =
            if self.asks().is_empty() { Ok(ReadBody::default()) } else { Box::pin(self.read(&mut body)).await? };
        let taken = self.take(body, wanted).await?;
        // Only now, so that a caller that sends slowly does not take a slot from a caller that does not.
        let slot = Arc::new(arrival.enter().ok_or(Refusal::Overloaded)?);
        let seen = Seen {
            headers: &self.headers,
            body: read.as_ref().map(|read| read.found.as_ref()).map_err(|why| *why),
            row: read.as_ref().ok().and_then(|read| read.row.as_ref()),
            promise: self.target.promise(),
        };
        let (segments, unread) = seen.segments(&self.table.segments);
        let (choice, chain) = self.choose(seen, unread)?;
        let called = Arc::new(Called {
            request_id: self.id.clone(),
            arrived,
            stated,
            segments,
            features: seen.features(&self.table.policy.features, arrived),
            is_kept: self.target.is_response(),
            chain,
            wire: self.target.wire,
            promise: self.target.promise(),
            streams: self.target.both_stream,
            patience: grpc::timeout(&self.headers),
            trace: CallTrace::of(&self.headers, traced_since, clock, &self.table.record.model, self.id.as_str()),
            request: taken.kept.as_ref().filter(|_| self.target.may_chat()).and_then(|body| self.plain(body)),
            _slot: slot,
        });
        self.prepare();
        let copy = |shadow: &Shadow, body| self.outgoing(&shadow.route, body, self.headers.clone());
        let examples = mirror::send(self.worker, &self.table, &called, &choice, taken.kept.as_ref(), copy);
        let spare = taken.kept.clone().filter(|_| split::may_fall_back(&self.table, &choice));
        let event = Event { suffix: String::new(), examples };
        let failed = match self.attempt(&called, &choice, taken, event, spare.is_some()).await? {
            Attempt::Answered(answer) => return Ok(answer),
            Attempt::Failed(cause) => cause,
        };
        let Some(kept) = spare else {
            return Ok(self.failed(&choice.route, failed));
        };
        tracing::debug!(model = %self.table.record.model, version = %choice.route.version, ?failed, "fallback to stable");
        Box::pin(self.fall_back(&called, kept)).await
    }

    /// Calls stable after the canary failed.
    async fn fall_back(&mut self, called: &Arc<Called>, kept: Bytes) -> Result<Response<AnswerBody>, Refusal> {
        let choice = Choice { route: Arc::clone(&self.table.stable), assignment: Assignment::Fallback, unit: None };
        let taken = Taken { body: RequestBody::Kept(Some(kept)), kept: None, upload: None };
        let event = Event { suffix: ".fallback".to_owned(), examples: Vec::new() };
        match self.attempt(called, &choice, taken, event, false).await? {
            Attempt::Answered(answer) => Ok(answer),
            Attempt::Failed(failed) => Ok(self.failed(&choice.route, failed)),
        }
    }

    /// Handles any other request about a model: it goes to stable or to the version asked for, and is not reported.
    async fn pass(&mut self, body: Arriving) -> Result<Response<AnswerBody>, Refusal> {
        let route = match &self.pin {
            Some(pin) => self.table.find(pin).ok_or_else(|| self.unknown(pin))?.clone(),
            None => self.table.stable.clone(),
        };
        let taken = self.take(body, false).await?;
        self.prepare();
        let upload = taken.upload.clone();
        let place = route.servers.pick(&self.shared.server_rules(true), self.shared.clock.source());
        let answered = match &place {
            Ok(place) => {
                let headers = mem::take(&mut self.headers);
                let outgoing = self.outgoing(&route, taken.body, headers);
                self.send(outgoing, &place.server().base, upload.as_deref()).await
            }
            Err(cause) => Err(*cause),
        };
        let is_model =
            self.target.is_model() && self.pin.is_none() && matches!(self.method, Method::GET | Method::HEAD);
        match answered {
            // Servers may know the model under a different name, or not support this path at all.
            Ok(response) if is_model && matches!(response.status().as_u16(), 404 | 405 | 501) => {
                Ok(answer::json(StatusCode::OK, &answer::model(self.table.record.model.as_str())))
            }
            Ok(response) => {
                let (head, incoming) = response.into_parts();
                let body =
                    AnswerBody::passing(incoming, None, (Recorder::default(), HeaderMap::new()), self.pause(), None);
                Ok(self.finish(head, &route, body))
            }
            Err(cause) => match upload.and_then(|upload| upload.fault()) {
                Some(fault) => Err(fault.into()),
                None => Ok(self.failed(&route, Failed::Cause(cause))),
            },
        }
    }
}
