//! One event per call and version, whatever happens: the guard is dropped in the end, and reports if nobody did before.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use serin_schemas::{
    ids::{EventTime, RequestId},
    records::{Origin, Prediction, Writer},
};

use crate::{
    body::Upload,
    events::About,
    llm::Reply,
    outputs,
    protocol::{decode::Encoding, grpc},
    split::Choice,
    state::{Shared, Slot},
    table::Table,
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
    /// Holds the call's place among those in flight.
    pub(crate) _slot: Arc<Slot>,
}

/// Reports one call of one version, once.
pub(crate) struct Guard {
    shared: Arc<Shared>,
    table: Arc<Table>,
    called: Called,
    /// Taken when it is reported.
    prediction: Option<Prediction>,
    /// Unique id of the event: a fallback's differs from that of the failure it covers.
    event_id: String,
    started: Instant,
    upload: Option<Arc<Upload>>,
    headers: HeaderMap,
    reply: Option<Reply>,
}

impl Guard {
    /// A guard for a call that is about to be made.
    pub(crate) fn new(
        shared: &Arc<Shared>,
        table: &Arc<Table>,
        called: &Called,
        choice: &Choice,
        event_id: String,
    ) -> Self {
        let prediction = Prediction {
            request_id: called.request_id.clone(),
            model: table.record.model.clone(),
            version: choice.route.version.clone(),
            arm: choice.route.arm,
            assignment: choice.assignment,
            origin: Origin::Router,
            rollout: table.record.rollout.clone(),
            generation: table.record.generation,
            completed_at: EventTime(0),
            latency_us: None,
            status: None,
            error: None,
            invalid_output: None,
            unit: choice.unit,
            outputs: BTreeMap::new(),
            classes: BTreeMap::new(),
            segments: called.segments.clone(),
            writer: Writer::default(),
        };
        Self {
            shared: Arc::clone(shared),
            table: Arc::clone(table),
            called: called.clone(),
            prediction: Some(prediction),
            event_id,
            started: Instant::now(),
            upload: None,
            headers: HeaderMap::new(),
            reply: None,
        }
    }

    /// The request's body is streamed: its end is where the latency begins.
    pub(crate) fn follow(&mut self, upload: Arc<Upload>) {
        self.upload = Some(upload);
    }

    /// The head of the answer has come.
    pub(crate) fn head(&mut self, status: StatusCode, headers: &HeaderMap) {
        if let Some(prediction) = &mut self.prediction {
            prediction.status = Some(i32::from(status.as_u16()));
        }
        if !self.table.outputs.is_empty() || self.called.request.is_some() {
            self.headers = headers.clone();
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
        if let Some(prediction) = &mut self.prediction {
            let status = grpc::http_status(code);
            prediction.status = Some(i32::from(status));
            prediction.error = (status >= 500).then(|| format!("grpc_{}", grpc::name(code)));
        }
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
    pub(crate) fn complete(&mut self, body: Option<&[u8]>) {
        let Some(mut prediction) = self.prediction.take() else { return };
        let status = prediction.status.unwrap_or_default();
        if status >= 500 {
            prediction.error.get_or_insert_with(|| format!("status_{status}"));
        } else if (200..300).contains(&status) {
            if self.reply.is_none() && self.called.request.is_some() {
                let answer = body.and_then(|body| Encoding::of(&self.headers)?.read(body));
                self.reply = answer.as_ref().map(Reply::of_json);
            }
            let found = outputs::read(&self.table.outputs, &self.headers, body);
            prediction.outputs = found.numbers;
            prediction.classes = found.classes;
            prediction.invalid_output = found.invalid.map(str::to_owned);
            if let Some(Err(broken)) = self.reply.as_ref().map(Reply::check) {
                prediction.error = Some(broken.as_str().to_owned());
            }
        }
        self.report(prediction);
    }

    /// There is no whole answer.
    pub(crate) fn fail(&mut self, cause: Cause) {
        let Some(mut prediction) = self.prediction.take() else { return };
        prediction.error = Some(cause.as_str().to_owned());
        self.report(prediction);
    }

    /// The call was not made after all, through no fault of the version: nothing is reported.
    pub(crate) fn abandon(&mut self) {
        self.prediction = None;
    }

    fn report(&self, mut prediction: Prediction) {
        let took = self.elapsed();
        prediction.latency_us = Some(crate::clock::micros(took));
        if let Some(reply) = &self.reply {
            reply.outputs(
                self.request(),
                |name, number| {
                    prediction.outputs.insert(name.to_owned(), number);
                },
                |name, class| {
                    prediction.classes.insert(name.to_owned(), class.to_owned());
                },
            );
            self.shared.metrics.heard(&prediction, reply);
        }
        self.shared.metrics.answered(&prediction, took);
        let about =
            About { id: &self.event_id, subject: self.table.record.model.as_str(), arrived: self.called.arrived };
        self.shared.events.prediction(prediction, self.called.stated, &about);
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.fail(Cause::ClientClosed);
    }
}
