//! The span of each verdict. It is the first span of the trace to which the verdict's windows and its consequences belong.

use serin_schemas::{
    ids::{EventTime, RolloutId},
    records::{Decision, Verdict},
};
use serin_stream::{
    record::Outgoing,
    trace::{self, KeyValue, Span, SpanId, SpanKind},
};

/// The trace id of a verdict for a log line, in a process that traces.
pub(crate) fn id_for_logs(rollout: &RolloutId, as_of: EventTime) -> Option<String> {
    trace::is_on().then(|| trace::verdict(rollout, as_of).trace_id().to_string())
}

/// Reports the verdicts that are written.
pub(crate) struct Tracer;

impl trace::Tracer for Tracer {
    fn written(&mut self, record: &Outgoing, now_us: i64) -> Vec<Span> {
        let Some(verdict) = trace::decode::<Verdict>(&record.headers, record.value.as_ref()) else { return Vec::new() };
        let decision = match verdict.decision {
            Decision::Promote => "promote",
            Decision::Rollback => "rollback",
            Decision::Continue => "continue",
            Decision::Hold => "hold",
        };
        vec![Span {
            name: "verdict",
            kind: SpanKind::Internal,
            context: trace::verdict(&verdict.rollout, verdict.as_of),
            parent: SpanId::INVALID,
            links: Vec::new(),
            start_us: verdict.as_of.0,
            end_us: now_us,
            error: None,
            attributes: vec![
                KeyValue::new("serin.model", verdict.model.as_str().to_owned()),
                KeyValue::new("serin.rollout", verdict.rollout.as_str().to_owned()),
                KeyValue::new("serin.verdict", verdict.id),
                KeyValue::new("serin.step", i64::from(verdict.step)),
                KeyValue::new("serin.decision", decision),
                KeyValue::new("serin.sentence", verdict.sentence),
            ],
        }]
    }
}
