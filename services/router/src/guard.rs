//! One event per call and version, whatever happens: the guard is dropped in the end, and reports if nobody did before. It also
//! holds the call's place at its server, tells how the server did, and gives pairs of answers their half.

use std::{
    borrow::Cow,
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use serin_schemas::{
    ids::{EventTime, RequestId, RolloutId},
    records::{Arm, Assignment, Origin, Prediction, Writer},
};

use crate::{
    body::Upload,
    config::Report,
    events::About,
    examples::Answered,
    flights::Flight,
    llm::Reply,
    mirror::Pair,
    outputs::{self, Outputs, Promised},
    protocol::{decode::Encoding, grpc},
    request::Features,
    responses,
    servers::{Place, Server, Standing, is_way},
    split::Choice,
    state::{Shared, Slot},
    status,
    table::{Route, Table},
    upstream::Cause,
};

/// What is known of a call when its version is chosen.
#[derive(Clone)]
pub(crate) struct Called {
    pub(crate) request_id: RequestId,
    /// Event time of the arrival.
    pub(crate) arrived: EventTime,
    /// Event time that a replay stated.
    pub(crate) stated: Option<EventTime>,
    /// Values of the segment dimensions.
    pub(crate) segments: BTreeMap<String, String>,
    /// Body of the request, if it was kept and the answer is held against it.
    pub(crate) request: Option<Bytes>,
    /// What was read from the request besides.
    pub(crate) features: Features,
    /// The list that the protocol promises of an answer.
    pub(crate) promised: Option<&'static str>,
    /// The key of the chain of responses that the call belongs to.
    pub(crate) chain: Option<Arc<str>>,
    /// Holds the call's place among those in flight.
    pub(crate) _slot: Arc<Slot>,
}

/// Reports one call of one version, once.
pub(crate) struct Guard {
    shared: Arc<Shared>,
    table: Arc<Table>,
    route: Arc<Route>,
    assignment: Assignment,
    unit: Option<i64>,
    called: Arc<Called>,
    /// What tells its event from that of the call itself: a fallback's differs from that of the failure it covers.
    suffix: String,
    rollout: Option<RolloutId>,
    status: Option<i32>,
    error: Option<String>,
    /// Whether there is something left to report.
    open: bool,
    /// Whether an event is written.
    told: bool,
    started: Instant,
    upload: Option<Arc<Upload>>,
    reply: Option<Reply>,
    /// Length of the answer so far.
    bytes: u64,
    /// Listens for the id of a response.
    chain: Option<Box<responses::Listener>>,
    place: Option<Place>,
    /// Whether this version's servers are called whatever happens.
    last_resort: bool,
    pairs: Vec<Arc<Pair>>,
    _flight: Flight,
}

/// What an answer's body is read for.
#[derive(Debug, Default)]
struct Found {
    outputs: Outputs,
    bytes: Option<u64>,
}

impl Guard {
    /// A guard for a call that is about to be made.
    pub(crate) fn new(
        shared: &Arc<Shared>,
        table: &Arc<Table>,
        called: &Arc<Called>,
        choice: &Choice,
        suffix: String,
        flight: Flight,
    ) -> Self {
        let rollout = table.record.rollout.clone();
        Self {
            route: Arc::clone(&choice.route),
            assignment: choice.assignment,
            unit: choice.unit,
            called: Arc::clone(called),
            suffix,
            status: None,
            error: None,
            open: true,
            told: shared.config().report == Report::All || rollout.is_some(),
            rollout,
            started: Instant::now(),
            upload: None,
            reply: None,
            bytes: 0,
            chain: None,
            place: None,
            last_resort: is_last_resort(table, &choice.route),
            pairs: Vec::new(),
            shared: Arc::clone(shared),
            table: Arc::clone(table),
            _flight: flight,
        }
    }

    /// The call's answer is one half of these pairs.
    pub(crate) fn pair(&mut self, pairs: Vec<Arc<Pair>>) {
        self.pairs = pairs;
    }

    /// Whether somebody waits for the answer's body as one half of a pair.
    pub(crate) fn is_paired(&self) -> bool {
        !self.pairs.is_empty()
    }

    /// Whether anybody wants to know what the answer says.
    pub(crate) fn is_told(&self) -> bool {
        self.told || self.is_paired()
    }

    /// It belongs to no rollout: a version that is only told of.
    pub(crate) fn detach(&mut self) {
        self.rollout = None;
    }

    /// The server that is called.
    pub(crate) fn at(&mut self, place: Place) -> &Server {
        self.place.insert(place).server()
    }

    /// A piece of the answer has come.
    pub(crate) fn passed(&mut self, piece: &[u8]) {
        self.bytes += piece.len() as u64;
        if let Some(chain) = &mut self.chain {
            chain.push(piece);
        }
    }

    /// The request's body is streamed: its end is where the latency begins.
    pub(crate) fn follow(&mut self, upload: Arc<Upload>) {
        self.upload = Some(upload);
    }

    /// The head of the answer has come.
    pub(crate) fn head(&mut self, status: StatusCode, headers: &HeaderMap) {
        self.status = Some(i32::from(status.as_u16()));
        self.server_did(is_way(status).then(|| format!("status_{}", status.as_u16())));
        if let Some(chain) = self.called.chain.as_ref().filter(|_| status.is_success() && self.route.arm != Arm::Shadow)
        {
            let (model, version) = (self.table.record.model.as_str().into(), self.route.version.clone());
            let kept = responses::Kept { model, version, chain: Arc::clone(chain) };
            self.chain = responses::Listener::new(&self.shared.responses, kept, headers).map(Box::new);
        }
        // An answer that is nothing but a status has it here, not behind its body.
        if grpc::is(headers)
            && let Some(code) = grpc::status(headers)
        {
            self.grpc_status(code);
        }
    }

    /// gRPC tells how a call ended behind the answer; HTTP's status says nothing.
    pub(crate) fn grpc_status(&mut self, code: u16) {
        let status = grpc::http_status(code);
        self.status = Some(i32::from(status));
        self.error = (status >= 500).then(|| format!("grpc_{}", grpc::name(code)));
    }

    /// What a language model's answer was like.
    pub(crate) fn heard(&mut self, reply: Reply) {
        self.reply = Some(reply);
    }

    /// Body of the request, if it was kept and the answer is held against it.
    pub(crate) fn request(&self) -> Option<&[u8]> {
        self.called.request.as_deref()
    }

    /// Time since the end of the request.
    pub(crate) fn elapsed(&self) -> Duration {
        self.upload.as_ref().and_then(|upload| upload.ended()).unwrap_or(self.started).elapsed()
    }

    /// The answer is complete. `body` is what was kept of it: all or nothing.
    pub(crate) fn complete(&mut self, headers: &HeaderMap, body: Option<&[u8]>) {
        if !std::mem::take(&mut self.open) {
            return;
        }
        if let Some(mut chain) = self.chain.take() {
            chain.end();
        }
        let status = self.status.unwrap_or_default();
        let mut found = Found::default();
        if status >= 500 {
            self.error.get_or_insert_with(|| format!("status_{status}"));
        } else if (200..300).contains(&status) {
            let encoding = Encoding::of(headers);
            if self.reply.is_none() && self.called.request.is_some() {
                let answer = body.and_then(|body| encoding?.read(body));
                self.reply = answer.as_ref().map(Reply::of_json);
            }
            if self.is_told() {
                let json = outputs::says_json(encoding, headers);
                let promised = Promised { json, list: self.called.promised.filter(|_| json) };
                let outputs = outputs::read(&self.table.outputs, headers, body, encoding, promised);
                found = Found { outputs, bytes: Some(self.bytes) };
            }
            if let Some(Err(broken)) = self.reply.as_ref().map(Reply::check) {
                self.error = Some(broken.as_str().to_owned());
            }
        }
        self.report(found, body);
    }

    /// Where the answer came from, when that says more than its version.
    fn name_server(&self, prediction: &mut Prediction) {
        let Some(place) = &self.place else { return };
        if place.is_one_of_several() {
            prediction.classes.insert("response.instance".to_owned(), place.server().name().to_owned());
        }
        if let Some(zone) = self.table.zones.get(place.server().name()) {
            prediction.classes.insert("response.zone".to_owned(), zone.clone());
        }
    }

    /// Tells how the server did; `wrong` says why the way to it failed.
    fn server_did(&self, wrong: Option<String>) {
        let Some(place) = &self.place else { return };
        let standing = match wrong {
            None => place.succeeded(),
            Some(why) => place.failed(&why, &self.shared.server_rules(self.last_resort), self.shared.clock.source()),
        };
        if standing != Standing::Same {
            status::standing_changed(&self.shared, self.table.record.model.as_str(), standing);
        }
    }

    /// There is no whole answer.
    pub(crate) fn fail(&mut self, cause: Cause) {
        if !std::mem::take(&mut self.open) {
            return;
        }
        self.error = Some(cause.as_str().to_owned());
        if cause.is_way() {
            self.server_did(Some(cause.as_str().to_owned()));
        }
        self.report(Found::default(), None);
    }

    /// The call was not made after all, through no fault of the version: nothing is reported.
    pub(crate) fn abandon(&mut self) {
        self.open = false;
    }

    fn report(&self, found: Found, body: Option<&[u8]>) {
        let took = self.elapsed();
        self.shared.metrics.answered(&self.route, self.assignment, self.status, took);
        if let Some(error) = &self.error {
            self.shared.metrics.failed(&self.route, error);
        }
        if let Some(reply) = &self.reply {
            self.shared.metrics.heard(&self.route, reply);
        }
        if !self.is_told() {
            return;
        }
        let prediction = self.prediction(found, took);
        for pair in &self.pairs {
            let body = body.map(<[u8]>::to_vec);
            pair.put(Answered { prediction: prediction.clone(), body, bytes: self.bytes });
        }
        if self.told {
            let request_id = self.called.request_id.as_str();
            let id: Cow<'_, str> =
                if self.suffix.is_empty() { request_id.into() } else { format!("{request_id}{}", self.suffix).into() };
            let about = About { id: &id, subject: self.table.record.model.as_str(), arrived: self.called.arrived };
            self.shared.events.prediction(prediction, self.called.stated, &about);
        }
    }

    /// The event, but for when it is complete and who writes it.
    fn prediction(&self, found: Found, took: Duration) -> Prediction {
        let mut prediction = Prediction {
            request_id: self.called.request_id.clone(),
            model: self.table.record.model.clone(),
            version: self.route.version.clone(),
            arm: self.route.arm,
            assignment: self.assignment,
            origin: Origin::Router,
            rollout: self.rollout.clone(),
            generation: self.table.record.generation,
            completed_at: EventTime(0),
            // What was not called took no time that says anything.
            latency_us: self.place.as_ref().map(|_| crate::clock::micros(took)),
            status: self.status,
            error: self.error.clone(),
            invalid_output: found.outputs.invalid.map(str::to_owned),
            outcome: None,
            unread: None,
            unit: self.unit,
            outputs: self.called.features.numbers.clone(),
            classes: self.called.features.classes.clone(),
            segments: self.called.segments.clone(),
            writer: Writer::default(),
        };
        let (numbers, classes) = (&mut prediction.outputs, &mut prediction.classes);
        numbers.extend(found.outputs.numbers);
        classes.extend(found.outputs.classes);
        numbers.extend(found.bytes.map(|bytes| ("response.bytes".to_owned(), bytes as f64)));
        numbers.extend(found.outputs.missing_share.map(|share| ("response.missing".to_owned(), share)));
        if let Some(reply) = &self.reply {
            reply.outputs(
                self.request(),
                |name, number| numbers.extend([(name.to_owned(), number)]),
                |name, class| classes.extend([(name.to_owned(), class.to_owned())]),
            );
        }
        self.name_server(&mut prediction);
        prediction
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.fail(Cause::ClientClosed);
    }
}

/// Whether a version is called even when all its servers failed: stable is, for there is nobody else.
pub(crate) fn is_last_resort(table: &Table, route: &Route) -> bool {
    route.version == table.stable.version
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use serin_schemas::ids::Generation;

    /// An answer that says nothing yet.
    pub(crate) fn prediction() -> Prediction {
        Prediction {
            request_id: "r".into(),
            model: "flights".into(),
            version: "v1".into(),
            arm: Arm::Control,
            assignment: Assignment::Random,
            origin: Origin::Router,
            rollout: None,
            generation: Generation(1),
            completed_at: EventTime(0),
            latency_us: Some(1),
            status: Some(200),
            error: None,
            invalid_output: None,
            outcome: None,
            unread: None,
            unit: None,
            outputs: BTreeMap::new(),
            classes: BTreeMap::new(),
            segments: BTreeMap::new(),
            writer: Writer::default(),
        }
    }
}
