//! One call: from a request to the answer of a version.

use std::{mem, pin::pin, sync::Arc};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, Uri, request::Parts};
use hyper::body::Incoming;
use serde_json::Value;
use serin_schemas::{
    ids::{EventTime, RequestId},
    records::Assignment,
};
use subtle::ConstantTimeEq as _;

use crate::{
    answer::{self, Refusal},
    body::{AnswerBody, Arriving, BodyError, Listening, RequestBody, Taken, Taking},
    config::{Config, MayPin, Pinning, span},
    exchange::Cutter,
    guard::{Called, Guard, Said, is_last_resort},
    mirror::{self, Pair},
    outcome::Unread,
    protocol::{Target, Wire, asks_first, decode::Encoding, grpc, openai},
    request::Seen,
    serve::{Peer, Worker},
    split::{self, Choice, Wanted},
    state::Shared,
    table::{Route, Shadow, Table},
    upstream::Cause,
};

/// Names the model where the path does not.
pub(crate) const MODEL: HeaderName = HeaderName::from_static("x-serin-model");
/// Asks for a version; tells which one answered.
pub(crate) const VERSION: HeaderName = HeaderName::from_static("x-model-version");
/// Shows that the caller may ask for a version.
pub(crate) const PIN_TOKEN: HeaderName = HeaderName::from_static("x-serin-pin-token");
/// Tells which arm answered.
pub(crate) const ARM: HeaderName = HeaderName::from_static("x-model-arm");
/// The id that joins feedback.
pub(crate) const PREDICTION_ID: HeaderName = HeaderName::from_static("x-prediction-id");
/// Event time of a replayed request.
pub(crate) const EVENT_TIME: HeaderName = HeaderName::from_static("x-serin-event-time");

/// The caller's own id of the request.
pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Longest prediction id that is taken from a caller.
pub(crate) const LONGEST_ID: usize = 128;

/// The model's name must stand within so many bytes of a body that names it, or within what is kept of bodies.
const MODEL_WITHIN: usize = 16 << 10;

/// A request that is on its way to a model.
pub(crate) struct Call<'a> {
    pub(crate) worker: &'a Arc<Worker>,
    pub(crate) shared: &'a Arc<Shared>,
    /// The configuration as it was when the call began.
    pub(crate) config: Arc<Config>,
    pub(crate) table: Arc<Table>,
    pub(crate) peer: &'a Peer,
    pub(crate) method: Method,
    pub(crate) uri: &'a Uri,
    pub(crate) target: Target<'a>,
    /// The caller's; from [`prepare`](Self::prepare) on as an upstream gets them, and gone with the last attempt.
    pub(crate) headers: HeaderMap,
    /// What the first message of a gRPC request says about its model.
    pub(crate) named: Option<grpc::Named>,
    pub(crate) pin: Option<String>,
    pub(crate) id: RequestId,
    /// The same as headers have it, once they are [prepared](Self::prepare).
    pub(crate) prediction_id: Option<HeaderValue>,
    /// The caller's own id of the request, or the prediction id.
    pub(crate) request_id: Option<HeaderValue>,
}

/// Answers a request that is not for the router itself.
pub(crate) async fn call(
    worker: &Arc<Worker>,
    peer: &Peer,
    parts: Parts,
    body: Incoming,
) -> Result<Response<AnswerBody>, Refusal> {
    let Parts { method, uri, mut headers, .. } = parts;
    let shared = &worker.shared;
    let (config, paths) = (shared.config(), shared.paths.load_full());
    let target = Target::parse(uri.path(), &headers, &paths);
    let mut body = Arriving::new(body);
    // What few calls need is in boxes: a call is moved about while it is made, and should be small.
    let (body_model, named) =
        if target.model_in_body { Box::pin(in_body(&config, &target, &mut body)).await? } else { (None, None) };
    let text = |name: &HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    let model = match target.wire {
        Wire::V1 | Wire::V2 => target.model,
        Wire::OpenAi | Wire::Grpc | Wire::Plain => text(&MODEL).or(body_model.as_deref()).or(target.model),
    };
    let model = model.ok_or(Refusal::NoModel(target.wire))?;
    let table = shared.table(model).ok_or_else(|| Refusal::UnknownModel(model.to_owned()))?;
    let infers = method == Method::POST && target.infers;
    let in_message = named.as_ref().and_then(|named| named.version.as_deref());
    let pin = target.version.or_else(|| text(&VERSION)).or(in_message).map(str::to_owned);
    if pin.is_some() {
        may_pin(&config.pin, &headers)?;
    }
    let id = prediction_id(shared, &headers)?;
    let stated = stated_time(shared, &headers)?;
    if let Some(authority) = uri.authority()
        && let Ok(host) = authority.as_str().parse()
    {
        // HTTP/2 has no such header.
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

/// What the beginning of a body says about its model, if that is where its protocol has it.
async fn in_body(
    config: &Config,
    target: &Target<'_>,
    body: &mut Arriving,
) -> Result<(Option<String>, Option<grpc::Named>), Refusal> {
    let (most, patience) = (config.limits.keep_body.max(MODEL_WITHIN), span(config.timeouts.request));
    if target.wire == Wire::Grpc {
        let named = body.look(most, patience, grpc::named).await?;
        return Ok((named.as_ref().map(|named| named.model.clone()), named));
    }
    Ok((body.look(most, patience, openai::model).await?, None))
}

/// Whether the caller may ask for a version.
fn may_pin(pinning: &Pinning, headers: &HeaderMap) -> Result<(), Refusal> {
    let given = headers.get(&PIN_TOKEN).map_or(b"".as_slice(), HeaderValue::as_bytes);
    match pinning.allow {
        MayPin::Always => Ok(()),
        MayPin::Token if pinning.token.as_bytes().ct_eq(given).into() => Ok(()),
        MayPin::Token => Err(Refusal::MayNotPin(true)),
        MayPin::Never => Err(Refusal::MayNotPin(false)),
    }
}

/// The prediction id: the caller's own if it sends one, else a new one.
fn prediction_id(shared: &Shared, headers: &HeaderMap) -> Result<RequestId, Refusal> {
    let Some(value) = headers.get(&PREDICTION_ID) else {
        return Ok(RequestId(shared.events.new_id()));
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
        body: Arriving,
        arrived: EventTime,
        stated: Option<EventTime>,
    ) -> Result<Response<AnswerBody>, Refusal> {
        let arrival = self.shared.arrive(arrived);
        let wanted = self.table.reads_request || self.table.record.fallback || !self.table.shadows.is_empty();
        let mut body = body;
        let reads_ahead = self.table.reads_request && self.target.wire == Wire::Grpc;
        let json = if reads_ahead { Box::pin(self.read(&mut body)).await? } else { None };
        let taken = self.take(body, wanted).await?;
        // Only now: a caller who is slow to send must not take the place of one who is not.
        let slot = Arc::new(arrival.enter().ok_or(Refusal::Overloaded)?);
        let json = json.or_else(|| self.read_kept(taken.kept.as_ref()?));
        let seen = Seen { headers: &self.headers, body: json.as_ref() };
        let choice = self.choose(seen)?;
        let called = Arc::new(Called {
            request_id: self.id.clone(),
            arrived,
            stated,
            segments: seen.segments(&self.table.segments),
            features: seen.features(&self.table.policy.features, arrived),
            wire: self.target.wire,
            promise: self.target.promise(),
            streams: self.target.both_stream,
            patience: grpc::timeout(&self.headers),
            request: taken.kept.clone().filter(|_| self.target.may_chat()),
            _slot: slot,
        });
        self.prepare();
        let copy = |shadow: &Shadow, body| self.outgoing(&shadow.route, body, self.headers.clone());
        let pairs = mirror::send(self.worker, &self.table, &called, &choice, taken.kept.as_ref(), copy);
        let spare = taken.kept.clone().filter(|_| split::may_fall_back(&self.table, &choice));
        let event = Event { suffix: String::new(), pairs };
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

    /// Stable answers in the canary's place.
    async fn fall_back(&mut self, called: &Arc<Called>, kept: Bytes) -> Result<Response<AnswerBody>, Refusal> {
        let choice = Choice { route: Arc::clone(&self.table.stable), assignment: Assignment::Fallback, unit: None };
        let taken = Taken { body: RequestBody::Kept(Some(kept)), kept: None, upload: None };
        let event = Event { suffix: ".fallback".to_owned(), pairs: Vec::new() };
        match self.attempt(called, &choice, taken, event, false).await? {
            Attempt::Answered(answer) => Ok(answer),
            Attempt::Failed(failed) => Ok(self.failed(&choice.route, failed)),
        }
    }

    /// Anything else about a model: to stable, or the version asked for; nothing is reported.
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
        match answered {
            Ok(response) => {
                let (head, incoming) = response.into_parts();
                let body =
                    AnswerBody::passing(incoming, None, (Listening::default(), HeaderMap::new()), self.pause(), None);
                Ok(self.finish(head, &route, body))
            }
            Err(cause) => match upload.and_then(|upload| upload.fault()) {
                Some(fault) => Err(fault.into()),
                None => Ok(self.failed(&route, Failed::Cause(cause))),
            },
        }
    }

    /// Reads what can only be read before the body is taken: the first message of a gRPC stream, for segments and keys.
    async fn read(&self, body: &mut Arriving) -> Result<Option<Value>, Refusal> {
        let (most, patience) = (self.config.limits.keep_body, span(self.config.timeouts.request));
        let whole = body.look(most, patience, grpc::whole_message).await?;
        Ok(whole.and_then(|()| Encoding::Grpc.read(body.head())))
    }

    /// Reads a body that was kept.
    fn read_kept(&self, kept: &Bytes) -> Option<Value> {
        if !self.table.reads_request || self.target.wire == Wire::Grpc {
            return None;
        }
        Encoding::of(&self.headers)?.read(kept)
    }

    async fn take(&self, body: Arriving, wanted: bool) -> Result<Taken, Refusal> {
        let (limits, timeouts) = (&self.config.limits, &self.config.timeouts);
        let streams = self.target.both_stream;
        let taking = Taking {
            limit: if streams { u64::MAX } else { limits.body },
            keep: limits.keep_body,
            wanted: wanted && !streams,
            whole: span(timeouts.request),
            pause: if streams { span(timeouts.stream) } else { span(timeouts.request) },
            upload: (!streams).then(|| span(timeouts.upload)),
            asks_first: asks_first(&self.headers),
        };
        body.take(taking).await.map_err(Refusal::from)
    }

    /// The answer when a version gave none.
    fn failed(&self, route: &Route, failed: Failed) -> Response<AnswerBody> {
        answer::upstream_failed(self.target.wire, &self.table, route, &self.id, failed, &self.config.answers)
    }

    fn choose(&self, seen: Seen<'_>) -> Result<Choice, Refusal> {
        let key = self.table.sticky.as_ref().and_then(|key| seen.sticky_key(key));
        let wanted = Wanted {
            pin: self.pin.as_deref(),
            target: seen.target(&self.table.policy.targets).map(|target| target.arm),
            key: key.as_deref(),
            chance: self.chance(),
            all_stable: self.shared.switch.is_on(),
            expired: self.table.lease.expired(self.shared.clock.source().steady()),
        };
        split::choose(&self.table, &wanted).map_err(|version| self.unknown(&version.0))
    }

    fn chance(&self) -> u64 {
        match self.config.random_seed {
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

    /// Calls one version and reports it.
    async fn attempt(
        &mut self,
        called: &Arc<Called>,
        choice: &Choice,
        taken: Taken,
        event: Event,
        spare: bool,
    ) -> Result<Attempt, Refusal> {
        let route = &*choice.route;
        // Without a bound there is always room.
        let flight = route.flights.enter(usize::MAX).ok_or(Refusal::Overloaded)?;
        let mut cutter = Cutter::of(route, &flight);
        let mut guard = Guard::new(self.shared, &self.table, called, choice, event.suffix, flight);
        guard.pair(event.pairs);
        let rules = self.shared.server_rules(is_last_resort(&self.table, route));
        let place = match route.servers.pick(&rules, self.shared.clock.source()) {
            Ok(place) => place,
            Err(cause) => {
                guard.fail(cause);
                return Ok(Attempt::Failed(Failed::Cause(cause)));
            }
        };
        if let Some(upload) = &taken.upload {
            guard.follow(Arc::clone(upload));
        }
        let headers = if spare { self.headers.clone() } else { mem::take(&mut self.headers) };
        let outgoing = self.outgoing(route, taken.body, headers);
        let sent = {
            let sent = pin!(self.send(outgoing, &guard.at(place).base, taken.upload.as_deref()));
            cutter.unless(sent).await
        };
        let response = match sent {
            Ok(response) => response,
            Err(cause) => {
                if let Some(fault) = taken.upload.and_then(|upload| upload.fault()) {
                    match fault {
                        // The router turned the call away: it is not one of the version.
                        BodyError::TooLarge => guard.abandon(),
                        BodyError::Slow | BodyError::Broken => guard.fail(cause),
                    }
                    return Err(fault.into());
                }
                guard.fail(cause);
                return Ok(Attempt::Failed(Failed::Cause(cause)));
            }
        };
        guard.head(response.status(), response.headers());
        if spare && response.status().is_server_error() {
            guard.complete(response.headers(), Said::Unread(Unread::NotAsked));
            return Ok(Attempt::Failed(Failed::Status(response.status())));
        }
        self.receive(response, guard, route, cutter).await
    }
}

/// The event of a call: what makes its id unique behind that of the call, and the pairs that its answer is a half of.
struct Event {
    suffix: String,
    pairs: Vec<Arc<Pair>>,
}

/// How a call of a version ended.
pub(crate) enum Attempt {
    Answered(Response<AnswerBody>),
    Failed(Failed),
}

/// Why a call of a version failed before its first byte was passed on.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Failed {
    Cause(Cause),
    Status(StatusCode),
}
