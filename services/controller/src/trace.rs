//! The spans of what verdicts cause: steps, holds, rollbacks and promotions, with the routing that they lead to.

use std::collections::BTreeMap;

use bytes::Bytes;
use serin_schemas::{
    codec::Record as _,
    envelope::{self, record_type},
    ids::EventTime,
    records::{RolloutEvent, Verdict},
};
use serin_stream::{
    record::{Outgoing, Record},
    trace::{self, KeyValue, Span, SpanKind},
};

/// Models whose newest verdict is kept. Beyond this, the verdicts of all models are forgotten, and their next events have no span.
const MODELS: usize = 10_000;

/// The newest verdict of a model: its id and time.
type Newest = (String, EventTime);

/// The spans of one partition.
#[derive(Default)]
pub(crate) struct Tracer {
    newest: BTreeMap<Bytes, Newest>,
}

impl trace::Tracer for Tracer {
    fn read(&mut self, record: &Record) {
        let is_verdict = record_type(&record.headers).is_ok_and(|(name, _)| name == Verdict::NAME);
        let received = envelope::read(&record.headers);
        if let (true, Some(id), Some(as_of)) = (is_verdict, received.id, received.time) {
            if self.newest.len() == MODELS && !self.newest.contains_key(&record.key) {
                self.newest.clear();
            }
            self.newest.insert(record.key.clone(), (id.to_owned(), as_of));
        }
    }

    fn written(&mut self, record: &Outgoing, now_us: i64) -> Vec<Span> {
        let Some(event) = trace::decode::<RolloutEvent>(&record.headers, record.value.as_ref()) else {
            return Vec::new();
        };
        let (Some(rollout), Some((verdict, as_of))) = (&event.rollout, self.newest.get(&record.key)) else {
            return Vec::new();
        };
        if event.cause.as_ref() != Some(verdict) {
            return Vec::new();
        }
        let verdict = trace::verdict(rollout, *as_of);
        vec![Span {
            name: event.kind.as_str(),
            kind: SpanKind::Internal,
            context: trace::part(&verdict, "event", &event.id),
            parent: verdict.span_id(),
            links: Vec::new(),
            start_us: event.recorded_at.0,
            end_us: now_us,
            error: None,
            attributes: vec![
                KeyValue::new("serin.model", event.model.as_str().to_owned()),
                KeyValue::new("serin.rollout", rollout.as_str().to_owned()),
                KeyValue::new("serin.step", i64::from(event.step)),
                KeyValue::new("serin.generation", event.generation.0),
                KeyValue::new("serin.canary_share", f64::from(event.canary_share) / 10_000.0),
                KeyValue::new("serin.sentence", event.sentence),
            ],
        }]
    }
}
