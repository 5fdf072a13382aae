//! One call: from a request to the answer of a version.

use std::{borrow::Cow, mem, pin::pin, sync::Arc};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, Uri, request::Parts};
use serde_json::Value;
use serin_schemas::{
    ids::{EventTime, RequestId, Version},
    records::Assignment,
};
use serin_spec::StickyKey;

use crate::{
    answer::{self, Refusal},
    body::{AnswerBody, Arriving, BodyError, CallerBody, Hold, Listening, RequestBody, Taken, Taking},
    config::{Config, MayPin, Pinning, span},
    exchange::Cutter,
    guard::{Called, Guard, Said, is_last_resort},
    mirror::{self, Pair},
    outcome,
    protocol::{
        Scan, Target, Unread, Wire, asks_first, grpc, openai,
        reader::{self, Reader},
        scan::Asks,
    },
    request::Seen,
    serve::{Cors, Peer, Worker},
    split::{self, Choice, Wanted},
    state::Shared,
    table::{Route, Shadow, Table},
    undecided::{self, Needed},
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
/// How long a replayed call took, in microseconds, as its server says.
pub(crate) const REPLAYED_LATENCY: HeaderName = HeaderName::from_static("x-serin-latency-us");

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
    body: CallerBody,
) -> Result<Response<AnswerBody>, Refusal> {
    let Parts { method, uri, mut headers, .. } = parts;
    let shared = &worker.shared;
    let (config, paths) = (shared.config(), shared.paths.load_full());
    let target = Target::parse(uri.path(), &headers, &paths);
    let mut body = Arriving::new(body, shared.held.clone());
    // What few calls need is in boxes: a call is moved about while it is made, and should be small.
    let in_header = target.wire != Wire::Grpc && headers.contains_key(&MODEL);
    let kept = if in_header { None } else { openai::response(uri.path()) }.and_then(|id| shared.responses.find(id));
    let asks_body = target.wire == Wire::Grpc || method == Method::POST && !in_header && kept.is_none();
    let (body_model, named) = if target.model_in_body && asks_body {
        Box::pin(in_body(worker, &config, &headers, target.wire, &mut body)).await?
    } else {
        (None, None)
    };
    // Not only ASCII: a name that is there and is not known is refused, not passed over.
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
    // What a version keeps, it alone can give, as long as it is there.
    let keeper = kept.map(|kept| kept.version.0).filter(|version| table.find(version).is_some());
    let pin = pin.or(keeper);
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

/// What a body says about its model, if that is where its protocol has it.
async fn in_body(
    worker: &Worker,
    config: &Config,
    headers: &HeaderMap,
    wire: Wire,
    body: &mut Arriving,
) -> Result<(Option<String>, Option<grpc::Named>), Refusal> {
    if wire == Wire::Grpc {
        let (most, patience) = (config.limits.keep_body.max(MODEL_WITHIN), span(config.timeouts.request));
        let mut named = body.look(most, patience, grpc::named).await?;
        if named.is_none() && body.head().first() == Some(&1) {
            named = match in_compressed(config, headers, body).await? {
                Err(why) if !headers.contains_key(&MODEL) => return Err(Refusal::Unread(why)),
                found => found.unwrap_or_default(),
            };
        }
        return Ok((named.as_ref().map(|named| named.model.clone()), named));
    }
    // All of it: of two names the servers take the last one.
    let how = hold(config, headers);
    if !body.hold(how, u64::MAX).await? {
        body.throw_away(how).await;
        return Err(Refusal::Unread(Unread::TooLarge));
    }
    let found = scan(worker, headers, body, &openai::MODEL, config.limits.body).await.map_err(Refusal::Unread)?;
    match found.as_ref().and_then(|body| body.get("model")) {
        Some(Value::String(model)) => Ok((Some(model.clone()), None)),
        None | Some(Value::Null) => Ok((None, None)),
        Some(_) => Err(Refusal::Unread(Unread::NotScalar)),
    }
}

/// What a first message of gRPC says about its model that is compressed.
async fn in_compressed(
    config: &Config,
    headers: &HeaderMap,
    body: &mut Arriving,
) -> Result<Result<Option<grpc::Named>, Unread>, Refusal> {
    let Some(length) = grpc::first_message(body.head()) else { return Ok(Ok(None)) };
    if !body.hold(hold(config, headers), length as u64).await? {
        return Ok(Err(Unread::TooLarge));
    }
    Ok(reader::decompress(headers, body.head()).map(|plain| match grpc::named(&plain) {
        Scan::Found(named) => Some(named.in_compressed(plain.into())),
        Scan::More | Scan::Missing => None,
    }))
}

/// How a body is held until something is decided from it.
fn hold(config: &Config, headers: &HeaderMap) -> Hold {
    let timeouts = &config.timeouts;
    Hold {
        limit: config.limits.body,
        pause: span(timeouts.request),
        all: span(timeouts.upload),
        asks_first: asks_first(headers),
    }
}

/// Bodies from here on are read one at a time, and in parts.
const LARGE: usize = 256 << 10;

/// Reads of a held body what is asked for.
async fn scan(
    worker: &Worker,
    headers: &HeaderMap,
    body: &mut Arriving,
    asks: &Asks,
    most: u64,
) -> Result<Option<Value>, Unread> {
    let mut reader = Reader::new(headers, asks, most);
    let alone = reader.is_costly() || body.len() > LARGE;
    let _alone = if alone { Some(worker.reading.lock().await) } else { None };
    let mut read = 0;
    for piece in body.pieces() {
        for part in piece.chunks(LARGE) {
            if !reader.push(part) {
                return reader.end();
            }
            read += part.len();
            if alone && read >= LARGE {
                // Other calls of this thread go on meanwhile.
                read = 0;
                tokio::task::yield_now().await;
            }
        }
    }
    reader.end()
}

/// Whether the caller may ask for a version.
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
        let wanted = self.table.record.fallback || !self.table.shadows.is_empty();
        let mut body = body;
        let read = if self.table.asks.is_empty() { Ok(None) } else { Box::pin(self.read(&mut body)).await? };
        let taken = self.take(body, wanted).await?;
        // Only now: a caller who is slow to send must not take the place of one who is not.
        let slot = Arc::new(arrival.enter().ok_or(Refusal::Overloaded)?);
        let seen = Seen { headers: &self.headers, body: read.as_ref().map(Option::as_ref).map_err(|why| *why) };
        let (segments, unread) = seen.segments(&self.table.segments);
        let (choice, chain) = self.choose(seen, unread)?;
        let called = Arc::new(Called {
            request_id: self.id.clone(),
            arrived,
            stated,
            segments,
            features: seen.features(&self.table.policy.features, arrived),
            chain,
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
        let is_model =
            self.target.is_model() && self.pin.is_none() && matches!(self.method, Method::GET | Method::HEAD);
        match answered {
            // Servers need not know the model under the name that callers have for it, or this path at all.
            Ok(response) if is_model && matches!(response.status().as_u16(), 404 | 405 | 501) => {
                Ok(answer::json(StatusCode::OK, &answer::model(self.table.record.model.as_str())))
            }
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

    /// Reads what rules ask for of the body, which is held meanwhile.
    async fn read(&self, body: &mut Arriving) -> Result<Result<Option<Value>, Unread>, Refusal> {
        let hold = hold(&self.config, &self.headers);
        if self.target.wire != Wire::Grpc {
            if !body.hold(hold, u64::MAX).await? {
                return Ok(Err(Unread::TooLarge));
            }
            return Ok(scan(self.worker, &self.headers, body, &self.table.asks, self.config.limits.body).await);
        }
        // Of a gRPC stream, the first message decides.
        let length = |head: &[u8]| grpc::first_message(head).map_or(Scan::More, Scan::Found);
        let Some(length) = body.look(grpc::PREFIX, hold.pause, length).await? else { return Ok(Ok(None)) };
        if !body.hold(hold, length as u64).await? {
            return Ok(Err(Unread::TooLarge));
        }
        let _alone = if length > LARGE { Some(self.worker.reading.lock().await) } else { None };
        Ok(reader::message(&self.headers, body.head()))
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

    /// Chooses the version; with it comes the key of the chain of responses that the call belongs to. `segment` says why the value of a
    /// segment could not be read.
    fn choose(&self, seen: Seen<'_>, segment: Option<Unread>) -> Result<(Choice, Option<Arc<str>>), Refusal> {
        let table = &self.table;
        let chance = self.chance();
        let key = || match &table.sticky {
            Some(StickyKey::Session) if self.target.is_response() => self.chain(seen, chance),
            Some(key) => Ok(Key { text: seen.sticky_key(key)?.map(Arc::from), ..Key::default() }),
            None => Ok(Key::default()),
        };
        let (target, key, undecided) = match seen.target(&table.policy.targets) {
            Err(why) => (None, Key::default(), Some((Needed::Target, why))),
            Ok(Some(target)) => (Some(target.arm), key().unwrap_or_default(), None),
            Ok(None) => match (key(), segment) {
                (Err(why), _) => (None, Key::default(), Some((Needed::Sticky, why))),
                (Ok(key), Some(why)) => (None, key, Some((Needed::Segment, why))),
                (Ok(key), None) => (None, key, None),
            },
        };
        let wanted = Wanted {
            pin: self.pin.as_deref(),
            unreadable: undecided.is_some(),
            target,
            key: key.text.as_deref(),
            keeper: key.keeper.as_ref().map(Version::as_str),
            chance,
            all_stable: self.shared.switch.is_on(),
            expired: table.lease.expired(self.shared.clock.source().steady()),
        };
        let choice = split::choose(table, &wanted).map_err(|version| self.unknown(&version.0))?;
        let undecided = undecided.filter(|_| choice.assignment == Assignment::Unreadable);
        let absent = table.sticky.is_some() && choice.assignment == Assignment::Random;
        table.undecided.count(undecided, absent);
        let model = table.record.model.as_str();
        if let Some((needed, why)) = undecided {
            self.shared.metrics.undecided(model, needed.as_str(), why.as_str());
        } else if absent {
            self.shared.metrics.undecided(model, Needed::Sticky.as_str(), undecided::ABSENT);
        }
        let chain = key.text.filter(|_| key.is_chain);
        Ok((choice, chain))
    }

    /// The key of a call of `/v1/responses`: that of its session, else that of its chain. A chain begins with a key of its own.
    fn chain(&self, seen: Seen<'_>, chance: u64) -> Result<Key, Unread> {
        let session = seen.sticky_key(&StickyKey::Session)?;
        let previous = seen.previous()?;
        let model = self.table.record.model.as_str();
        let kept = previous.as_deref().and_then(|id| self.shared.responses.find(id));
        let kept = kept.filter(|kept| &*kept.model == model);
        let text: Arc<str> = match (session, &kept, previous) {
            (Some(session), _, _) => session.into(),
            (None, Some(kept), _) => Arc::clone(&kept.chain),
            (None, None, Some(_)) => return Err(Unread::UnknownResponse),
            (None, None, None) => format!("{chance:016x}").into(),
        };
        Ok(Key { text: Some(text), keeper: kept.map(|kept| kept.version), is_chain: true })
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
                        BodyError::Slow | BodyError::Broken | BodyError::NoRoom => guard.fail(cause),
                    }
                    return Err(fault.into());
                }
                guard.fail(cause);
                return Ok(Attempt::Failed(Failed::Cause(cause)));
            }
        };
        guard.head(response.status(), response.headers());
        if spare && response.status().is_server_error() {
            guard.complete(response.headers(), Said::Unread(outcome::Unread::NotAsked));
            return Ok(Attempt::Failed(Failed::Status(response.status())));
        }
        self.receive(response, guard, route, cutter).await
    }
}

/// What a call is split by.
#[derive(Default)]
struct Key {
    text: Option<Arc<str>>,
    /// The version that keeps what the call goes on from.
    keeper: Option<Version>,
    /// Whether its answer is one of a chain.
    is_chain: bool,
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
