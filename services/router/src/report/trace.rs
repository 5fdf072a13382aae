//! The trace of a call: a span of the router, one of each call of a version, and one of its event.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use http::{HeaderMap, HeaderName, HeaderValue};
use serin_schemas::ids::{EventTime, ModelName};
use serin_stream::trace::{self, KeyValue, Span, SpanContext, SpanId, SpanKind, TraceId};

use crate::clock::TimeSource;

const TRACEPARENT: HeaderName = HeaderName::from_static(trace::TRACEPARENT);
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// A call that is traced. Its span is reported when the call is over.
pub(crate) struct CallTrace {
    context: SpanContext,
    /// The caller's span, unless the call began the trace.
    parent: SpanId,
    started_us: i64,
    clock: TimeSource,
    model: ModelName,
    prediction_id: String,
    failed: AtomicBool,
    /// Whether this is the caller's own call. Copies of a call belong to its trace, but do not prolong its span.
    is_own: bool,
}

impl CallTrace {
    /// The trace of a call that arrived at `started`, if the call is traced.
    pub(crate) fn of(
        headers: &HeaderMap,
        started: Option<EventTime>,
        clock: &TimeSource,
        model: &ModelName,
        prediction_id: &str,
    ) -> Option<Arc<Self>> {
        let started = started?;
        let (context, parent) = sampled(headers, trace::sample(), rand::random)?;
        Some(Arc::new(Self {
            context,
            parent,
            started_us: started.0,
            clock: clock.clone(),
            model: model.clone(),
            prediction_id: prediction_id.to_owned(),
            failed: AtomicBool::new(false),
            is_own: true,
        }))
    }

    /// The trace for a copy of the call.
    pub(crate) fn for_copy(&self) -> Self {
        Self {
            context: self.context.clone(),
            parent: self.parent,
            started_us: self.started_us,
            clock: self.clock.clone(),
            model: self.model.clone(),
            prediction_id: String::new(),
            failed: AtomicBool::new(false),
            is_own: false,
        }
    }

    /// Whether the call began the trace.
    fn is_root(&self) -> bool {
        self.parent == SpanId::INVALID
    }

    /// Time of the machine, in microseconds since the epoch.
    pub(super) fn now_us(&self) -> i64 {
        self.clock.wall().0
    }

    /// A new span of this trace.
    pub(crate) fn span(&self) -> SpanContext {
        trace::context(self.context.trace_id(), new_span())
    }

    /// The id of the call's own span.
    pub(crate) fn id(&self) -> SpanId {
        self.context.span_id()
    }

    /// Marks the call as failed, or as good again after a fallback.
    pub(super) fn note(&self, failed: bool) {
        self.failed.store(failed, Ordering::Relaxed);
    }

    /// Replaces the trace context in the headers for a version.
    pub(super) fn put(&self, span: &SpanContext, headers: &mut HeaderMap) {
        if let Ok(value) = HeaderValue::from_str(&trace::format(span)) {
            headers.insert(TRACEPARENT, value);
        }
        if self.is_root() {
            // It belongs to a context that was not valid.
            headers.remove(&TRACESTATE);
        }
    }
}

impl Drop for CallTrace {
    fn drop(&mut self) {
        if !self.is_own {
            return;
        }
        trace::export(Span {
            name: "predict",
            kind: SpanKind::Server,
            context: self.context.clone(),
            parent: self.parent,
            links: Vec::new(),
            start_us: self.started_us,
            end_us: self.now_us(),
            error: self.failed.load(Ordering::Relaxed).then(|| "the call failed".to_owned()),
            attributes: vec![
                KeyValue::new("serin.model", self.model.as_str().to_owned()),
                KeyValue::new("serin.prediction_id", std::mem::take(&mut self.prediction_id)),
            ],
        });
    }
}

/// The span of a call and its parent, if the call is traced: if its `traceparent` asks for it, or if it has none that is valid and is in
/// the sample. `draw` returns a random number from 0 to 1.
fn sampled(headers: &HeaderMap, sample: f64, draw: impl FnOnce() -> f64) -> Option<(SpanContext, SpanId)> {
    let mut given = headers.get_all(&TRACEPARENT).iter();
    let only = given.next().filter(|_| given.next().is_none());
    let caller = only.and_then(|value| value.to_str().ok()).and_then(trace::parse);
    let (trace, parent) = match caller {
        Some(caller) if caller.is_sampled() => (caller.trace_id(), caller.span_id()),
        None if draw() < sample => (TraceId::from(rand::random::<u128>().max(1)), SpanId::INVALID),
        _ => return None,
    };
    Some((trace::context(trace, new_span()), parent))
}

fn new_span() -> SpanId {
    SpanId::from(rand::random::<u64>().max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLED: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn of(given: &[&str], sample: f64, draw: f64) -> Option<(SpanContext, SpanId)> {
        let mut headers = HeaderMap::new();
        for text in given {
            headers.append(TRACEPARENT, HeaderValue::from_str(text).unwrap());
        }
        sampled(&headers, sample, || draw)
    }

    #[test]
    fn the_caller_decides_whether_its_trace_goes_on() {
        let (span, parent) = of(&[SAMPLED], 0.0, 0.5).unwrap();
        assert_eq!(span.trace_id().to_string(), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_eq!(parent.to_string(), "00f067aa0ba902b7");
        assert_ne!(span.span_id(), parent);
        assert_eq!(of(&[&SAMPLED.replace("-01", "-00")], 1.0, 0.0), None);
    }

    #[test]
    fn calls_without_a_valid_context_are_sampled() {
        for given in [&[][..], &["garbage"], &[SAMPLED, SAMPLED]] {
            assert_eq!(of(given, 0.1, 0.1), None, "{given:?}");
            let (span, parent) = of(given, 0.1, 0.09).unwrap();
            assert!(span.is_valid() && span.is_sampled() && parent == SpanId::INVALID, "{given:?}");
        }
    }
}
