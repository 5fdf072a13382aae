//! One event per call and version, whatever happens: the guard is dropped in the end, and reports if nobody did before. It also
//! holds the call's place at its server, tells how the server did, and gives pairs of answers their half.

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
    examples::Answered,
    flights::Flight,
    llm::Reply,
    mirror::Pair,
    outputs::{self, Promised},
    protocol::{decode::Encoding, grpc},
    request::Features,
    servers::{Place, Standing, is_way},
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
    /// Whether the answer says that it is JSON.
    json: bool,
    /// Length of the answer so far.
    bytes: u64,
    place: Option<Place>,
    /// Whether this version's servers are called whatever happens.
    last_resort: bool,
    pairs: Vec<Arc<Pair>>,
    _flight: Flight,
}

impl Guard {
    /// A guard for a call that is about to be made.
    pub(crate) fn new(
        shared: &Arc<Shared>,
        table: &Arc<Table>,
        called: &Called,
        choice: &Choice,
        event_id: String,
        flight: Flight,
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
            outputs: called.features.numbers.clone(),
            classes: called.features.classes.clone(),
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
            json: false,
            bytes: 0,
            place: None,
            last_resort: is_last_resort(table, &choice.route),
            pairs: Vec::new(),
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

    /// It belongs to no rollout: a version that is only told of.
    pub(crate) fn detach(&mut self) {
        if let Some(prediction) = &mut self.prediction {
            prediction.rollout = None;
        }
    }

    /// The server that is called.
    pub(crate) fn at(&mut self, place: Place) {
        self.place = Some(place);
    }

    /// So many bytes of the answer have come.
    pub(crate) fn passed(&mut self, bytes: usize) {
        self.bytes += bytes as u64;
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
        self.headers = headers.clone();
        self.json = outputs::says_json(headers);
        self.server_did(is_way(status).then(|| format!("status_{}", status.as_u16())));
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
            let promised = Promised { json: self.json, list: self.called.promised.filter(|_| self.json) };
            let found = outputs::read(&self.table.outputs, &self.headers, body, promised);
            prediction.outputs.extend(found.numbers);
            prediction.classes.extend(found.classes);
            prediction.invalid_output = found.invalid.map(str::to_owned);
            prediction.outputs.insert("response.bytes".to_owned(), self.bytes as f64);
            prediction.outputs.extend(found.missing_share.map(|share| ("response.missing".to_owned(), share)));
            if let Some(Err(broken)) = self.reply.as_ref().map(Reply::check) {
                prediction.error = Some(broken.as_str().to_owned());
            }
        }
        self.name_server(&mut prediction);
        self.report(prediction, body);
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
        let Some(mut prediction) = self.prediction.take() else { return };
        prediction.error = Some(cause.as_str().to_owned());
        if cause.is_way() {
            self.server_did(Some(cause.as_str().to_owned()));
        }
        self.name_server(&mut prediction);
        self.report(prediction, None);
    }

    /// The call was not made after all, through no fault of the version: nothing is reported.
    pub(crate) fn abandon(&mut self) {
        self.prediction = None;
    }

    fn report(&self, mut prediction: Prediction, body: Option<&[u8]>) {
        let took = self.elapsed();
        // What was not called took no time that says anything.
        prediction.latency_us = self.place.as_ref().map(|_| crate::clock::micros(took));
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
        for pair in &self.pairs {
            let body = body.map(<[u8]>::to_vec);
            pair.put(Answered { prediction: prediction.clone(), body, bytes: self.bytes });
        }
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

/// Whether a version is called even when all its servers failed: stable is, for there is nobody else.
pub(crate) fn is_last_resort(table: &Table, route: &Route) -> bool {
    route.version == table.stable.version
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use serin_schemas::{
        ids::Generation,
        records::{Arm, Assignment},
    };

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
            unit: None,
            outputs: BTreeMap::new(),
            classes: BTreeMap::new(),
            segments: BTreeMap::new(),
            writer: Writer::default(),
        }
    }
}
