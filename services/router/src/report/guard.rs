//! One event per call and version, whatever happens: the guard is dropped in the end, and reports if nobody did before. It also
//! holds the call's place at its server, tells how the server did, and gives examples their answer.

use std::{
    borrow::Cow,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use serin_schemas::{
    ids::{EventTime, RolloutId},
    records::{Arm, Assignment, Origin, Outcome, Prediction, Writer},
};

use crate::{
    body::request::{BodyError, Upload},
    config::Report,
    content::{
        examples::Answered,
        messages::Messages,
        outcome::{self, Content},
        outputs::{self, Outputs},
    },
    events::About,
    log::status,
    protocol::{
        Wire,
        decoder::{DecodeError, Decoder},
        grpc,
        headers::REPLAYED_LATENCY,
        written::Written,
    },
    report::{called::Called, example::Example, listening::Said},
    state::{Shared, responses},
    tables::{route::Route, split::Choice, table::Table},
    upstream::{
        cause::Cause,
        flights::Flight,
        servers::{Place, Server, Standing, is_way},
    },
};

/// Reports one call of one version, once.
#[expect(clippy::struct_excessive_bools, reason = "they are independent facts of a call, not states of one machine")]
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
    /// The status of a gRPC call, once it has come.
    grpc: Option<u16>,
    /// Whether the caller let the answer wait: a server may give up for that alone.
    held_up: bool,
    /// Whether there is something left to report.
    open: bool,
    /// Whether an event is written.
    told: bool,
    started: Instant,
    /// How long the call took on the clock of a replay.
    replayed: Option<Duration>,
    upload: Option<Arc<Upload>>,
    /// Length of the answer so far.
    bytes: u64,
    /// Listens for the id of a response.
    chain: Option<Box<responses::Listener>>,
    place: Option<Place>,
    /// Whether this version's servers are called whatever happens.
    last_resort: bool,
    examples: Vec<Arc<Example>>,
    _flight: Flight,
}

/// How a call ended.
#[derive(Debug, PartialEq)]
struct Ended {
    outcome: Outcome,
    /// Why, for those outcomes that have a cause.
    cause: Option<Cow<'static, str>>,
}

impl Ended {
    fn new(outcome: Outcome, cause: impl Into<Cow<'static, str>>) -> Self {
        Self { outcome, cause: Some(cause.into()) }
    }

    fn without_cause(outcome: Outcome) -> Self {
        Self { outcome, cause: None }
    }

    fn cause_of(&self, outcome: Outcome) -> Option<String> {
        self.cause.as_deref().filter(|_| self.outcome == outcome).map(str::to_owned)
    }
}

impl From<Content> for Ended {
    fn from(content: Content) -> Self {
        match content {
            Content::Good => Self::without_cause(Outcome::Ok),
            Content::Unread(why) => Self::new(Outcome::Unread, why.as_str()),
            Content::Unusable(cause) => Self::new(Outcome::Unusable, cause),
            Content::Failed(cause) => Self::new(Outcome::Failed, cause),
        }
    }
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
            grpc: None,
            held_up: false,
            open: true,
            told: shared.config().report == Report::All || rollout.is_some(),
            rollout,
            started: Instant::now(),
            replayed: None,
            upload: None,
            bytes: 0,
            chain: None,
            place: None,
            last_resort: is_last_resort(table, &choice.route),
            examples: Vec::new(),
            shared: Arc::clone(shared),
            table: Arc::clone(table),
            _flight: flight,
        }
    }

    /// The call's answer is compared with another in these examples.
    pub(crate) fn compare(&mut self, examples: Vec<Arc<Example>>) {
        self.examples = examples;
    }

    /// Whether the answer's body is needed for an example.
    fn is_compared(&self) -> bool {
        !self.examples.is_empty()
    }

    /// Whether anybody wants to know what the answer says.
    pub(crate) fn is_told(&self) -> bool {
        self.told || self.is_compared()
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
        self.replayed = if self.shared.clock.is_replay() { replayed(headers) } else { None };
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
        self.grpc = Some(code);
        self.status = Some(i32::from(grpc::http_status(code)));
    }

    /// The caller let the answer wait.
    pub(crate) fn held_up(&mut self) {
        self.held_up = true;
    }

    /// What was known of the call when its version was chosen.
    pub(crate) fn called(&self) -> &Called {
        &self.called
    }

    /// Body of the request, if it was kept and the answer is held against it.
    fn request(&self) -> Option<&[u8]> {
        self.called.request.as_deref()
    }

    /// Time since the end of the request.
    pub(crate) fn elapsed(&self) -> Duration {
        self.upload.as_ref().and_then(|upload| upload.ended()).unwrap_or(self.started).elapsed()
    }

    /// The answer is complete, and this is what it said.
    pub(crate) fn complete(&mut self, headers: &HeaderMap, said: Said) {
        if !std::mem::take(&mut self.open) {
            return;
        }
        if let Some(mut chain) = self.chain.take() {
            chain.end();
        }
        let (ended, outputs, body) = match self.by_status() {
            Some(ended) => {
                let body = if let Said::Whole(body) = said { self.plain(headers, body).ok() } else { None };
                (ended, Outputs::default(), body)
            }
            None => self.judge(headers, said),
        };
        self.report(&ended, outputs, body.as_deref());
    }

    /// How the call ended, if its status alone says so.
    fn by_status(&self) -> Option<Ended> {
        let status = self.status.unwrap_or_default();
        let ended = match (self.grpc, outcome::of_status(status)) {
            // A caller's time runs out at the server at the same moment: it passes the time on.
            (Some(1 | 4), _) if self.is_overdue() => Ended::new(Outcome::Cancelled, Cause::Deadline.as_str()),
            // The caller would not have heard of it: this is the server's doing.
            (Some(1), _) => Ended::new(Outcome::Failed, "grpc_cancelled"),
            (Some(0) | None, None) if self.called.wire != Wire::Grpc || self.grpc.is_some() => return None,
            // gRPC without a status was cut.
            (None, None) => Ended::new(Outcome::Failed, Cause::Truncated.as_str()),
            (Some(code), Some(Outcome::Failed)) => Ended::new(Outcome::Failed, format!("grpc_{}", grpc::name(code))),
            (None, Some(Outcome::Failed)) => Ended::new(Outcome::Failed, format!("status_{status}")),
            (_, Some(outcome)) => Ended::without_cause(outcome),
            (Some(_), None) => return None,
        };
        let is_callers = matches!(ended.outcome, Outcome::Failed | Outcome::Refused) && self.upload_fault().is_some();
        Some(if is_callers { Ended::new(Outcome::Cancelled, Cause::ClientClosed.as_str()) } else { ended })
    }

    /// Why the caller's request did not come to its end, if it did not.
    fn upload_fault(&self) -> Option<BodyError> {
        self.upload.as_ref().and_then(|upload| upload.fault())
    }

    /// Whether this is a stream to whose messages there has been no answer at all.
    fn is_asked(&self) -> bool {
        self.called.streams && self.bytes == 0
    }

    /// Whether the time is over that the caller has set. Timers may be a little early.
    fn is_overdue(&self) -> bool {
        const EARLY: Duration = Duration::from_millis(2);
        self.called.patience.is_some_and(|patience| self.started.elapsed() + EARLY >= patience)
    }

    /// Whether the caller may still send more of its request.
    fn is_uploading(&self) -> bool {
        self.upload.as_ref().is_some_and(|upload| upload.ended().is_none())
    }

    /// Looks into an answer with a 2xx status. The outcome, the outputs, and the body if it was kept.
    fn judge(&self, headers: &HeaderMap, said: Said) -> (Ended, Outputs, Option<Bytes>) {
        let rules = &self.table.outputs;
        let (outputs, body) = match said {
            Said::Unread(why) => (outputs::of_headers(rules, headers, Content::Unread(why)), None),
            Said::Events(reply, fault) => {
                let content = match fault {
                    // What was not heard may have been the end.
                    Some(DecodeError::TooLarge) => reply.error().unwrap_or(DecodeError::TooLarge.into()),
                    Some(fault) if !reply.is_whole() => reply.content().or_worse(fault.into()),
                    _ => reply.content(),
                };
                let found = outputs::of_headers(rules, headers, content);
                (Outputs { reply: Some(*reply), ..found }, None)
            }
            Said::Messages(heard) => (outputs::of_messages(rules, headers, &heard), None),
            Said::Whole(body) => match self.plain(headers, body) {
                Ok(body) => (self.read(headers, &body), Some(body)),
                Err(error) => (outputs::of_headers(rules, headers, error.into()), None),
            },
        };
        (outputs.content.into(), outputs, body)
    }

    /// Longest body that is read.
    fn keep(&self) -> usize {
        self.shared.config().limits.keep_body
    }

    /// A body that is not compressed any more.
    fn plain(&self, headers: &HeaderMap, body: Bytes) -> Result<Bytes, DecodeError> {
        match Decoder::of(headers, self.keep() as u64)? {
            Some(decoder) if !body.is_empty() => decoder.whole(&body).map(Bytes::from),
            _ => Ok(body),
        }
    }

    fn read(&self, headers: &HeaderMap, body: &[u8]) -> Outputs {
        let rules = &self.table.outputs;
        let written = Written::of(headers);
        if written == Written::Grpc {
            let mut messages = Messages::new(self.called.streams, grpc::encoding(headers), self.keep());
            messages.feed(body);
            return outputs::of_messages(rules, headers, &messages.into_heard());
        }
        let empty_on_purpose = matches!(self.status, Some(202 | 204 | 205));
        outputs::read(rules, headers, body, written, self.called.promise, !empty_on_purpose)
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
        self.end(cause, Outputs::default());
    }

    /// The answer broke off after it had said this.
    pub(crate) fn break_off(&mut self, cause: Cause, headers: &HeaderMap, said: Said) {
        // Who hears of an error, or of the end, often leaves at once.
        let (error, is_whole) = match &said {
            Said::Events(reply, _) => (reply.error(), reply.is_whole()),
            Said::Messages(heard) => (Some(heard.content).filter(|it| matches!(it, Content::Failed(_))), false),
            Said::Whole(_) | Said::Unread(_) => (None, false),
        };
        let is_over = error.is_some() || is_whole && cause == Cause::ClientClosed;
        if is_over && self.status.is_some_and(|status| outcome::of_status(status).is_none()) {
            if std::mem::take(&mut self.open) {
                let (mut ended, outputs, body) = self.judge(headers, said);
                if let Some(error) = error {
                    ended = error.into();
                }
                self.report(&ended, outputs, body.as_deref());
            }
            return;
        }
        let reply = if let Said::Events(reply, _) = said { Some(*reply) } else { None };
        self.end(cause, Outputs { reply, ..Outputs::default() });
    }

    fn end(&mut self, cause: Cause, outputs: Outputs) {
        if !std::mem::take(&mut self.open) {
            return;
        }
        let cause = match (cause, self.upload_fault()) {
            (Cause::ClientClosed, _) if self.shared.leaving.load(Ordering::Relaxed) => Cause::Stopped,
            // Both wait for each other, and it is the server's turn.
            (Cause::Truncated | Cause::Reset | Cause::Timeout, Some(BodyError::Slow)) if self.is_asked() => {
                Cause::Timeout
            }
            // A server that gets half a request, or cannot get rid of its answer, breaks off too.
            (Cause::Truncated | Cause::Reset | Cause::Timeout, Some(BodyError::Slow)) => Cause::ClientSlow,
            (Cause::Truncated | Cause::Reset | Cause::Timeout, Some(_)) => Cause::ClientClosed,
            (Cause::Truncated, None) if self.held_up => Cause::ClientSlow,
            // The server has answered what it was asked so far, and the caller asks for no more.
            (Cause::Timeout, None) if self.called.streams && !self.is_asked() && self.is_uploading() => {
                Cause::ClientSlow
            }
            (cause, _) => cause,
        };
        if cause.is_way() {
            self.server_did(Some(cause.as_str().to_owned()));
        }
        let outcome = if cause.is_cancelled() { Outcome::Cancelled } else { Outcome::Failed };
        self.report(&Ended::new(outcome, cause.as_str()), outputs, None);
    }

    /// The call was not made after all, through no fault of the version: nothing is reported.
    pub(crate) fn abandon(&mut self) {
        self.open = false;
    }

    fn report(&self, ended: &Ended, outputs: Outputs, body: Option<&[u8]>) {
        let took = self.replayed.unwrap_or_else(|| self.elapsed());
        self.shared.metrics.answered(&self.route, self.assignment, ended.outcome, self.status, took);
        if let Some(cause) = &ended.cause {
            self.shared.metrics.not_ok(&self.route, ended.outcome, cause);
        }
        if let Some(reply) = &outputs.reply {
            self.shared.metrics.heard(&self.route, reply);
        }
        if !outputs.names.is_empty() {
            self.table.names.note(outputs.names.iter().map(String::as_str));
        }
        if !self.is_told() {
            return;
        }
        let prediction = self.prediction(ended, outputs, took);
        for example in &self.examples {
            let body = body.map(<[u8]>::to_vec);
            example.put(Answered { prediction: prediction.clone(), body, bytes: self.bytes });
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
    fn prediction(&self, ended: &Ended, found: Outputs, took: Duration) -> Prediction {
        let has_content = self.status.is_some_and(|status| outcome::of_status(status).is_none());
        let bytes =
            (has_content && !matches!(ended.outcome, Outcome::Failed | Outcome::Cancelled)).then_some(self.bytes);
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
            outcome: Some(ended.outcome),
            error: ended.cause_of(Outcome::Failed).or_else(|| ended.cause_of(Outcome::Cancelled)),
            invalid_output: ended.cause_of(Outcome::Unusable),
            unread: ended.cause_of(Outcome::Unread),
            unit: self.unit,
            outputs: self.called.features.numbers.clone(),
            classes: self.called.features.classes.clone(),
            segments: self.called.segments.clone(),
            writer: Writer::default(),
        };
        let (numbers, classes) = (&mut prediction.outputs, &mut prediction.classes);
        numbers.extend(found.numbers);
        classes.extend(found.classes);
        numbers.extend(bytes.map(|bytes| ("response.bytes".to_owned(), bytes as f64)));
        numbers.extend(found.missing_share.map(|share| ("response.missing".to_owned(), share)));
        if let Some(reply) = &found.reply {
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

/// How long a replayed call took, if its server says so.
fn replayed(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(&REPLAYED_LATENCY)?.to_str().ok()?;
    text.trim().parse().ok().map(Duration::from_micros)
}

#[cfg(test)]
pub(crate) mod tests {
    use std::collections::BTreeMap;

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
            outcome: Some(Outcome::Ok),
            error: None,
            invalid_output: None,
            unread: None,
            unit: None,
            outputs: BTreeMap::new(),
            classes: BTreeMap::new(),
            segments: BTreeMap::new(),
            writer: Writer::default(),
        }
    }
}
