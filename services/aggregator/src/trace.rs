//! The spans of windows, and of the traced calls in them.
//!
//! A window is a part of its verdict's trace. Each traced call in the window gets a span in its own trace, which links to the window.
//! Calls are kept in memory until their window closes, and are not traced further after a restart.

use std::collections::VecDeque;

use serin_schemas::{
    ids::{EventTime, RolloutId},
    records::{Prediction, WindowClosed},
};
use serin_stream::{
    record::{Outgoing, Record},
    trace::{self, KeyValue, Span, SpanContext, SpanKind},
};

/// Traced calls that wait for their window. The oldest ones are dropped first.
const CALLS: usize = 1000;
/// Links of one span, as the defaults of OpenTelemetry limit them.
const LINKS: usize = 128;

/// A traced call that was counted.
struct Counted {
    context: SpanContext,
    rollout: RolloutId,
    completed_at: EventTime,
    /// When its event arrived on the log, in microseconds since the epoch.
    written_us: i64,
}

/// The spans of one partition.
#[derive(Default)]
pub(crate) struct Tracer {
    calls: VecDeque<Counted>,
}

impl trace::Tracer for Tracer {
    fn read(&mut self, record: &Record) {
        let Some(context) = trace::of_record(&record.headers) else { return };
        let Some(call) = trace::decode::<Prediction>(&record.headers, record.value.as_ref()) else { return };
        let Some(rollout) = call.rollout else { return };
        if self.calls.len() == CALLS {
            self.calls.pop_front();
        }
        let written_us = record.timestamp_ms.saturating_mul(1000);
        self.calls.push_back(Counted { context, rollout, completed_at: call.completed_at, written_us });
    }

    fn written(&mut self, record: &Outgoing, now_us: i64) -> Vec<Span> {
        let Some(window) = trace::decode::<WindowClosed>(&record.headers, record.value.as_ref()) else {
            return Vec::new();
        };
        let as_of = EventTime(window.end.0.saturating_add(window.maturity.0));
        let verdict = trace::verdict(&window.rollout, as_of);
        let number = format!("{}-{}", window.partition, window.maturity.0);
        let context = trace::part(&verdict, "window", &number);
        let from = EventTime(window.end.0.saturating_sub(window.length.0));
        let mut spans = Vec::new();
        let mut links = Vec::new();
        if window.maturity.0 == 0 {
            self.calls.retain(|call| {
                let is_in = call.rollout == window.rollout && (from..window.end).contains(&call.completed_at);
                if is_in {
                    if links.len() < LINKS {
                        links.push(call.context.clone());
                    }
                    spans.push(call.span(&context, now_us));
                }
                !is_in
            });
        }
        let calls: i64 = window.arms.iter().map(|arm| arm.predictions + arm.excluded).sum();
        spans.push(Span {
            name: "window",
            kind: SpanKind::Consumer,
            context,
            parent: verdict.span_id(),
            links,
            start_us: from.0,
            end_us: now_us,
            error: None,
            attributes: vec![
                KeyValue::new("serin.model", window.model.as_str().to_owned()),
                KeyValue::new("serin.rollout", window.rollout.as_str().to_owned()),
                KeyValue::new("serin.partition", i64::from(window.partition)),
                KeyValue::new("serin.calls", calls),
            ],
        });
        spans
    }
}

impl Counted {
    /// The span of the call in its own trace: from the log to the end of its window.
    fn span(&self, window: &SpanContext, now_us: i64) -> Span {
        Span {
            name: "count in window",
            kind: SpanKind::Consumer,
            // An event is counted once, so its own span identifies this one.
            context: trace::part(&self.context, "counted", &self.context.span_id().to_string()),
            parent: self.context.span_id(),
            links: vec![window.clone()],
            start_us: self.written_us,
            end_us: now_us,
            error: None,
            attributes: vec![KeyValue::new("serin.rollout", self.rollout.as_str().to_owned())],
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use bytes::Bytes;
    use serin_schemas::{
        codec,
        envelope::{Envelope, traced_headers},
        headers::Headers,
        ids::{Generation, Span as TimeSpan},
        records::{Arm, Assignment, Origin, Writer},
    };
    use serin_stream::{
        record::{Target, TopicPartition},
        trace::Tracer as _,
    };
    use serin_topology::{EVENTS, WINDOWS};

    use super::*;

    fn envelope() -> Envelope<'static> {
        Envelope { id: "1", source: "/a", subject: "m", time: EventTime(0) }
    }

    /// The event of a traced call that was complete at second `at`.
    fn event(rollout: &str, at: i64, span: u64) -> Record {
        let call = Prediction {
            request_id: "r".into(),
            model: "m".into(),
            version: "v1".into(),
            arm: Arm::Canary,
            assignment: Assignment::Random,
            origin: Origin::Router,
            rollout: Some(RolloutId::from(rollout)),
            generation: Generation(1),
            completed_at: EventTime::from_secs(at),
            latency_us: None,
            status: Some(200),
            outcome: None,
            error: None,
            invalid_output: None,
            unread: None,
            batch: None,
            unit: None,
            outputs: BTreeMap::default(),
            classes: BTreeMap::default(),
            segments: BTreeMap::default(),
            writer: Writer::default(),
        };
        let context = trace::context(1_u128.into(), span.into());
        Record {
            at: TopicPartition::new(EVENTS, 0),
            offset: 0,
            timestamp_ms: at * 1000,
            key: Bytes::new(),
            value: Some(codec::encode(&call).unwrap().into()),
            headers: traced_headers::<Prediction>(&envelope(), Some(&trace::format(&context))),
        }
    }

    /// The window `[0, 10)` of a rollout.
    fn window(rollout: &str, maturity: i64) -> Outgoing {
        let window = WindowClosed {
            model: "m".into(),
            rollout: RolloutId::from(rollout),
            generation: Generation(1),
            partition: 0,
            end: EventTime::from_secs(10),
            length: TimeSpan(10_000_000),
            maturity: TimeSpan(maturity),
            cells: Vec::new(),
            arms: Vec::new(),
            population: Vec::new(),
            rules: 2,
            units: Vec::new(),
        };
        Outgoing::record(WINDOWS, Target::ByKey, "m", &window, &envelope()).unwrap()
    }

    #[test]
    fn calls_are_linked_to_the_window_that_they_are_in() {
        let mut tracer = Tracer::default();
        for (rollout, at, span) in [("r", 0, 1), ("r", 9, 2), ("r", 10, 3), ("other", 5, 4)] {
            tracer.read(&event(rollout, at, span));
        }
        assert!(tracer.written(&window("r", 60_000_000), 0).len() == 1, "calls belong to the window of their answers");
        let spans = tracer.written(&window("r", 0), 20_000_000);
        let [first, second, closed] = &spans[..] else { panic!("{spans:#?}") };
        assert_eq!((closed.name, closed.links.len(), closed.start_us, closed.end_us), ("window", 2, 0, 20_000_000));
        for (counted, parent) in [(first, 1_u64), (second, 2)] {
            assert_eq!((counted.name, &counted.links[..]), ("count in window", &[closed.context.clone()][..]));
            assert_eq!((counted.parent, counted.context.trace_id()), (parent.into(), 1_u128.into()));
        }
        assert_eq!(closed.parent, trace::verdict(&RolloutId::from("r"), EventTime::from_secs(10)).span_id());
        // Each call is linked once.
        assert_eq!(tracer.written(&window("r", 0), 0).len(), 1);
    }

    #[test]
    fn waiting_calls_and_links_are_bounded() {
        let mut tracer = Tracer::default();
        for span in 1..=CALLS as u64 + 10 {
            tracer.read(&event("r", 5, span));
        }
        assert_eq!(tracer.calls.len(), CALLS);
        let spans = tracer.written(&window("r", 0), 0);
        assert_eq!((spans.len(), spans.last().unwrap().links.len()), (CALLS + 1, LINKS));
    }

    #[test]
    fn other_records_have_no_spans() {
        let mut tracer = Tracer::default();
        let traced = event("r", 5, 1);
        tracer.read(&Record { headers: Headers::default(), ..traced.clone() });
        tracer.read(&Record { value: None, ..traced.clone() });
        tracer.read(&Record { value: Some(Bytes::from_static(b"garbage")), ..traced });
        assert!(tracer.calls.is_empty());
        let not_a_window = Outgoing { value: None, ..window("r", 0) };
        assert!(tracer.written(&not_a_window, 0).is_empty());
    }
}
