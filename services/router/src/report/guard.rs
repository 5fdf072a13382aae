//! Reports exactly one event per call and version: the guard reports when it is dropped, unless the call was reported before. It also holds
//! the call's slot at its server, reports the server's success or failure, and passes answers to examples.

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
use serin_stream::trace::{self, KeyValue, Span, SpanContext, SpanKind};

use crate::{
    body::request::{BodyError, Upload},
    config::Report,
    content::{
        examples::Answered,
        messages::Messages,
        outcome::{self, Content},
        outputs::{self, Outputs},
        rows::Sample,
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
    report::{called::Called, example::Example, listening::Received},
    state::{Shared, responses},
    tables::{route::Route, split::Choice, table::Table},
    upstream::{
        cause::Cause,
        flights::Flight,
        servers::{Availability, Place, Server, is_gateway_error},
    },
};

/// Reports one call of one version exactly once.
#[expect(clippy::struct_excessive_bools, reason = "they are independent facts of a call, not states of one machine")]
pub(crate) struct Guard {
    shared: Arc<Shared>,
    table: Arc<Table>,
    route: Arc<Route>,
    assignment: Assignment,
    unit: Option<i64>,
    called: Arc<Called>,
    /// Distinguishes its event from that of the call itself: a fallback's event differs from that of the failure it covers.
    suffix: String,
    rollout: Option<RolloutId>,
    status: Option<i32>,
    /// The status of a gRPC call, once it has arrived.
    grpc: Option<u16>,
    /// Whether the caller delayed reading the answer: a server may abort for that reason.
    held_up: bool,
    /// Whether the call has not been reported yet.
    open: bool,
    /// Whether an event is written.
    reported: bool,
    started: Instant,
    /// Duration of the call on the clock of a replay.
    replayed: Option<Duration>,
    upload: Option<Arc<Upload>>,
    /// Number of bytes of the answer so far.
    bytes: u64,
    /// Searches the answer for the id of a response.
    chain: Option<Box<responses::Listener>>,
    place: Option<Place>,
    /// Whether this version's servers are called even if all of them failed.
    last_resort: bool,
    examples: Vec<Arc<Example>>,
    /// The span of this call of the version, if the call is traced. Boxed, because few calls are.
    span: Option<Box<SpanContext>>,
    _flight: Flight,
}

/// How a call ended.
#[derive(Debug, PartialEq)]
struct Ended {
    outcome: Outcome,
    /// The cause, for outcomes that have one.
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
            reported: shared.config().report == Report::All || rollout.is_some(),
            rollout,
            started: Instant::now(),
            replayed: None,
            upload: None,
            bytes: 0,
            chain: None,
            place: None,
            last_resort: is_last_resort(table, &choice.route),
            examples: Vec::new(),
            span: called.trace.as_ref().map(|trace| Box::new(trace.span())),
            shared: Arc::clone(shared),
            table: Arc::clone(table),
            _flight: flight,
        }
    }

    /// Sets the examples in which the call's answer is compared with another one.
    pub(crate) fn compare(&mut self, examples: Vec<Arc<Example>>) {
        self.examples = examples;
    }

    /// Adds the context of this call's span to the headers for the version, if the call is traced.
    pub(crate) fn put_trace(&self, headers: &mut HeaderMap) {
        if let (Some(trace), Some(span)) = (&self.called.trace, &self.span) {
            trace.put(span, headers);
        }
    }

    /// Whether the answer's body is needed for an example.
    fn is_compared(&self) -> bool {
        !self.examples.is_empty()
    }

    /// Whether the content of the answer is needed.
    pub(crate) fn is_read(&self) -> bool {
        self.reported || self.is_compared()
    }

    /// Removes the rollout from the report, because the version that answers is not on trial.
    pub(crate) fn detach(&mut self) {
        self.rollout = None;
    }

    /// Sets the server that is called.
    pub(crate) fn at(&mut self, place: Place) -> &Server {
        self.place.insert(place).server()
    }

    /// Counts a received chunk of the answer.
    pub(crate) fn passed(&mut self, piece: &[u8]) {
        self.bytes += piece.len() as u64;
        if let Some(chain) = &mut self.chain {
            chain.push(piece);
        }
    }

    /// Sets the upload of a streamed request, so that the latency starts at its end.
    pub(crate) fn follow(&mut self, upload: Arc<Upload>) {
        self.upload = Some(upload);
    }

    /// Records the head of the answer.
    pub(crate) fn head(&mut self, status: StatusCode, headers: &HeaderMap) {
        self.status = Some(i32::from(status.as_u16()));
        self.replayed = if self.shared.clock.is_replay() { replayed(headers) } else { None };
        self.report_server(is_gateway_error(status).then(|| format!("status_{}", status.as_u16())));
        if self.called.is_kept && status.is_success() && self.route.arm != Arm::Shadow {
            let (model, version) = (self.table.record.model.as_str().into(), self.route.version.clone());
            let kept = responses::Kept { model, version, chain: self.called.chain.clone() };
            self.chain = responses::Listener::new(&self.shared.responses, kept, headers).map(Box::new);
        }
        // A headers-only gRPC answer has its status here instead of in trailers.
        if grpc::is(headers)
            && let Some(code) = grpc::status(headers)
        {
            self.grpc_status(code);
        }
    }

    /// Records the status of a gRPC call, which follows the answer; the HTTP status is not meaningful.
    pub(crate) fn grpc_status(&mut self, code: u16) {
        self.grpc = Some(code);
        self.status = Some(i32::from(grpc::http_status(code)));
    }

    /// Records that the caller delayed reading the answer.
    pub(super) fn held_up(&mut self) {
        self.held_up = true;
    }

    /// The data of the call at the time when its version was chosen.
    pub(crate) fn called(&self) -> &Called {
        &self.called
    }

    /// Body of the request, if it was kept and the answer is compared with it.
    fn request(&self) -> Option<&[u8]> {
        self.called.request.as_deref()
    }

    /// Time since the end of the request.
    pub(crate) fn elapsed(&self) -> Duration {
        self.upload.as_ref().and_then(|upload| upload.ended()).unwrap_or(self.started).elapsed()
    }

    /// Reports the call with its complete answer.
    pub(crate) fn complete(&mut self, headers: &HeaderMap, received: Received) {
        if !std::mem::take(&mut self.open) {
            return;
        }
        if let Some(mut chain) = self.chain.take() {
            chain.end();
        }
        let (ended, outputs, body) = match self.by_status() {
            Some(ended) => {
                let body = if let Received::Whole(body) = received { self.plain(headers, body).ok() } else { None };
                (ended, Outputs::default(), body)
            }
            None => self.judge(headers, received),
        };
        self.report(&ended, outputs, body.as_deref());
    }

    /// The outcome of the call, if its status alone determines it.
    fn by_status(&self) -> Option<Ended> {
        let status = self.status.unwrap_or_default();
        let ended = match (self.grpc, outcome::of_status(status)) {
            // The caller's timeout expires at the server at the same moment, because it is passed on.
            (Some(1 | 4), _) if self.is_overdue() => Ended::new(Outcome::Cancelled, Cause::Deadline.as_str()),
            // The caller would not have received this status, so the server caused it.
            (Some(1), _) => Ended::new(Outcome::Failed, "grpc_cancelled"),
            (Some(0) | None, None) if self.called.wire != Wire::Grpc || self.grpc.is_some() => return None,
            // A gRPC answer without a status was cut.
            (None, None) => Ended::new(Outcome::Failed, Cause::Truncated.as_str()),
            (Some(code), Some(Outcome::Failed)) => Ended::new(Outcome::Failed, format!("grpc_{}", grpc::name(code))),
            (None, Some(Outcome::Failed)) => Ended::new(Outcome::Failed, format!("status_{status}")),
            (_, Some(outcome)) => Ended::without_cause(outcome),
            (Some(_), None) => return None,
        };
        let is_callers = matches!(ended.outcome, Outcome::Failed | Outcome::Refused) && self.upload_fault().is_some();
        Some(if is_callers { Ended::new(Outcome::Cancelled, Cause::ClientClosed.as_str()) } else { ended })
    }

    /// Why the caller's request was not complete, if it was not.
    fn upload_fault(&self) -> Option<BodyError> {
        self.upload.as_ref().and_then(|upload| upload.fault())
    }

    /// Whether this is a stream whose messages have not been answered at all.
    fn is_asked(&self) -> bool {
        self.called.streams && self.bytes == 0
    }

    /// Whether the caller's timeout has expired. Timers may fire slightly early.
    fn is_overdue(&self) -> bool {
        const EARLY: Duration = Duration::from_millis(2);
        self.called.patience.is_some_and(|patience| self.started.elapsed() + EARLY >= patience)
    }

    /// Whether the caller may still send more of its request.
    fn is_uploading(&self) -> bool {
        self.upload.as_ref().is_some_and(|upload| upload.ended().is_none())
    }

    /// Reads an answer with a 2xx status. Returns the outcome, the outputs, and the body if it was kept.
    fn judge(&self, headers: &HeaderMap, received: Received) -> (Ended, Outputs, Option<Bytes>) {
        let rules = &self.table.outputs;
        let (outputs, body) = match received {
            Received::Unread(why) => (outputs::of_headers(rules, headers, Content::Unread(why)), None),
            Received::Events(reply, fault) => {
                let content = match fault {
                    // The part that was not read may have contained the end.
                    Some(DecodeError::TooLarge) => reply.error().unwrap_or(DecodeError::TooLarge.into()),
                    Some(fault) if !reply.is_whole() => reply.content().or_worse(fault.into()),
                    _ => reply.content(),
                };
                (outputs::of_events(rules, headers, *reply, content), None)
            }
            Received::Messages(messages) => (outputs::of_messages(rules, headers, &messages, self.sample()), None),
            Received::Whole(body) => match self.plain(headers, body) {
                Ok(body) => (self.read(headers, &body), Some(body)),
                Err(error) => (outputs::of_headers(rules, headers, error.into()), None),
            },
        };
        (outputs.content.into(), outputs, body)
    }

    /// Maximum size of a body that is read.
    fn keep(&self) -> usize {
        self.shared.config().limits.keep_body
    }

    /// The rows of the answer that are read.
    fn sample(&self) -> Sample<'_> {
        Sample::of(self.called.request_id.as_str(), self.shared.config().limits.rows)
    }

    /// The decompressed body.
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
            return outputs::of_messages(rules, headers, &messages.finish(), self.sample());
        }
        let empty_on_purpose = matches!(self.status, Some(202 | 204 | 205));
        outputs::read(rules, headers, body, written, self.called.promise, !empty_on_purpose, self.sample())
    }

    /// Adds the server's name and zone to the event, if they are known.
    fn name_server(&self, prediction: &mut Prediction) {
        let Some(place) = &self.place else { return };
        if place.is_one_of_several() {
            prediction.classes.insert("response.instance".to_owned(), place.server().name().to_owned());
        }
        if let Some(zone) = self.table.zones.get(place.server().name()) {
            prediction.classes.insert("response.zone".to_owned(), zone.clone());
        }
    }

    /// Reports the server's success, or the failure `wrong` of the connection to it.
    fn report_server(&self, wrong: Option<String>) {
        let Some(place) = &self.place else { return };
        let availability = match wrong {
            None => place.succeeded(),
            Some(why) => place.failed(&why, &self.shared.server_rules(self.last_resort), self.shared.clock.source()),
        };
        if availability != Availability::Unchanged {
            status::availability_changed(&self.shared, self.table.record.model.as_str(), availability);
        }
    }

    /// Reports the call as failed or cancelled, without a complete answer.
    pub(crate) fn fail(&mut self, cause: Cause) {
        self.end(cause, Outputs::default());
    }

    /// Reports a call whose answer ended early. If the content already contains an error or its own end, this content decides the outcome.
    pub(super) fn break_off(&mut self, cause: Cause, headers: &HeaderMap, received: Received) {
        // Callers often disconnect as soon as they receive an error or the end.
        let (error, is_whole) = match &received {
            Received::Events(reply, _) => (reply.error(), reply.is_whole()),
            Received::Messages(messages) => {
                (Some(messages.content).filter(|it| matches!(it, Content::Failed(_))), false)
            }
            Received::Whole(_) | Received::Unread(_) => (None, false),
        };
        let is_over = error.is_some() || is_whole && cause == Cause::ClientClosed;
        if is_over && self.status.is_some_and(|status| outcome::of_status(status).is_none()) {
            if std::mem::take(&mut self.open) {
                let (mut ended, outputs, body) = self.judge(headers, received);
                if let Some(error) = error {
                    ended = error.into();
                }
                self.report(&ended, outputs, body.as_deref());
            }
            return;
        }
        let reply = if let Received::Events(reply, _) = received { Some(*reply) } else { None };
        self.end(cause, Outputs { reply, ..Outputs::default() });
    }

    fn end(&mut self, cause: Cause, outputs: Outputs) {
        if !std::mem::take(&mut self.open) {
            return;
        }
        let cause = match (cause, self.upload_fault()) {
            (Cause::ClientClosed, _) if self.shared.leaving.load(Ordering::Relaxed) => Cause::Stopped,
            // Both sides wait for each other, and the server has to answer first.
            (Cause::Truncated | Cause::Reset | Cause::Timeout, Some(BodyError::Slow)) if self.is_asked() => {
                Cause::Timeout
            }
            // A server that receives an incomplete request, or cannot send its answer, also aborts.
            (Cause::Truncated | Cause::Reset | Cause::Timeout, Some(BodyError::Slow)) => Cause::ClientSlow,
            (Cause::Truncated | Cause::Reset | Cause::Timeout, Some(_)) => Cause::ClientClosed,
            (Cause::Truncated, None) if self.held_up => Cause::ClientSlow,
            // The server has answered all messages so far, and the caller sends no more.
            (Cause::Timeout, None) if self.called.streams && !self.is_asked() && self.is_uploading() => {
                Cause::ClientSlow
            }
            (cause, _) => cause,
        };
        if cause.is_connection_failure() {
            self.report_server(Some(cause.as_str().to_owned()));
        }
        let outcome = if cause.is_cancelled() { Outcome::Cancelled } else { Outcome::Failed };
        self.report(&Ended::new(outcome, cause.as_str()), outputs, None);
    }

    /// Discards the report of a call that was not made for a reason outside the version.
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
            self.shared.metrics.language_model_answer(&self.route, reply);
        }
        if !outputs.names.is_empty() {
            self.table.names.note(outputs.names.iter().map(String::as_str));
        }
        let event = self.trace(ended);
        if !self.is_read() {
            return;
        }
        let prediction = self.prediction(ended, outputs, took);
        for example in &self.examples {
            let body = body.map(<[u8]>::to_vec);
            example.put(Answered { prediction: prediction.clone(), body, bytes: self.bytes });
        }
        if self.reported {
            let request_id = self.called.request_id.as_str();
            let id: Cow<'_, str> =
                if self.suffix.is_empty() { request_id.into() } else { format!("{request_id}{}", self.suffix).into() };
            let about = About { id: &id, subject: self.table.record.model.as_str(), arrived: self.called.arrived };
            self.shared.events.prediction(prediction, self.called.stated, &about, event.as_ref());
        }
    }

    /// Reports the spans of this call of the version and of its event, if the call is traced. Returns the context for the event.
    fn trace(&self, ended: &Ended) -> Option<SpanContext> {
        let (trace, context) = (self.called.trace.as_ref()?, self.span.as_deref()?.clone());
        let (end_us, parent) = (trace.now_us(), context.span_id());
        let error = (ended.outcome == Outcome::Failed)
            .then(|| ended.cause.as_deref().unwrap_or(ended.outcome.as_str()).to_owned());
        if self.route.arm != Arm::Shadow {
            trace.note(error.is_some());
        }
        let mut attributes = vec![
            KeyValue::new("serin.version", self.route.version.to_string()),
            KeyValue::new("serin.arm", self.route.arm.as_str()),
            KeyValue::new("serin.outcome", ended.outcome.as_str()),
        ];
        attributes.extend(self.rollout.as_ref().map(|id| KeyValue::new("serin.rollout", id.as_str().to_owned())));
        attributes.extend(self.status.map(|status| KeyValue::new("http.response.status_code", i64::from(status))));
        attributes
            .extend(self.place.as_ref().map(|place| KeyValue::new("server.address", place.server().name().to_owned())));
        let started_us = end_us - crate::clock::micros(self.started.elapsed());
        let called = Span {
            name: "call version",
            kind: SpanKind::Client,
            context,
            parent: trace.id(),
            links: Vec::new(),
            start_us: started_us,
            end_us,
            error,
            attributes,
        };
        trace::export(called);
        let event = self.reported.then(|| trace.span())?;
        trace::export(Span {
            name: "send event",
            kind: SpanKind::Producer,
            context: event.clone(),
            parent,
            links: Vec::new(),
            start_us: end_us,
            end_us,
            error: None,
            attributes: vec![KeyValue::new("messaging.system", "kafka")],
        });
        Some(event)
    }

    /// The event, without its completion time and writer.
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
            // The latency of a call that was not sent is meaningless.
            latency_us: self.place.as_ref().map(|_| crate::clock::micros(took)),
            status: self.status,
            outcome: Some(ended.outcome),
            error: ended.cause_of(Outcome::Failed).or_else(|| ended.cause_of(Outcome::Cancelled)),
            invalid_output: ended.cause_of(Outcome::Unusable),
            unread: ended.cause_of(Outcome::Unread),
            batch: found.batch,
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

/// Whether a version is called even if all its servers failed: this holds for stable, because there is no alternative.
pub(crate) fn is_last_resort(table: &Table, route: &Route) -> bool {
    route.version == table.stable.version
}

/// Duration of a replayed call, if its server reports it.
fn replayed(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(&REPLAYED_LATENCY)?.to_str().ok()?;
    text.trim().parse().ok().map(Duration::from_micros)
}

#[cfg(test)]
pub(crate) mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use serin_schemas::ids::Generation;

    /// A prediction with default content.
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
            batch: None,
            unit: None,
            outputs: BTreeMap::new(),
            classes: BTreeMap::new(),
            segments: BTreeMap::new(),
            writer: Writer::default(),
        }
    }
}
