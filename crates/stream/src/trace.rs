//! Traces: spans about sampled calls, and about the windows, verdicts and routing changes that follow from them.
//!
//! A call is one trace. The router adds the trace's context to the headers of the call's event. Windows and verdicts are about many
//! calls, so they are traces of their own, and a call's trace links to them.
//!
//! Invariants:
//! - until [`start`] is called, nothing is kept or reported;
//! - folds do not know about traces: a [`Tracer`] sees the records that a task reads, and those that a commit wrote;
//! - the ids of windows and verdicts are derived from their rollout and time. So each process can link to them, and a record that is
//!   written again after a crash has the same ids.

use std::sync::OnceLock;

use bytes::Bytes;
pub use opentelemetry::{
    KeyValue,
    trace::{SpanContext, SpanId, SpanKind, TraceFlags, TraceId, TraceState},
};
use serin_schemas::{
    codec,
    envelope::record_type,
    headers::Headers,
    ids::{EventTime, RolloutId},
};
use sha2::{Digest as _, Sha256};

use crate::record::{Outgoing, Record};

/// The header that contains the trace context, in requests and in records (W3C Trace Context).
pub const TRACEPARENT: &str = "traceparent";

/// A span that has ended. Times are microseconds since the epoch.
#[derive(Clone, Debug, PartialEq)]
pub struct Span {
    /// What was done, such as `window`.
    pub name: &'static str,
    /// Its role in an exchange of messages.
    pub kind: SpanKind,
    /// Its trace and its own id.
    pub context: SpanContext,
    /// Id of the parent; [`SpanId::INVALID`] for the first span of a trace.
    pub parent: SpanId,
    /// Spans of other traces that it is about.
    pub links: Vec<SpanContext>,
    /// Start.
    pub start_us: i64,
    /// End.
    pub end_us: i64,
    /// Why it failed, if it did.
    pub error: Option<String>,
    /// Details.
    pub attributes: Vec<KeyValue>,
}

/// Receives the spans of this process.
pub type Export = Box<dyn Fn(Span) + Send + Sync>;

/// How calls are traced.
struct Tracing {
    sample: f64,
    export: Export,
}

static TRACING: OnceLock<Tracing> = OnceLock::new();

/// Starts tracing in this process. `sample` is the share of calls without a trace context that are traced, from 0 to 1. Only the first
/// call has an effect.
pub fn start(sample: f64, export: Export) {
    let _ = TRACING.set(Tracing { sample, export });
}

/// Whether this process traces.
pub fn is_on() -> bool {
    TRACING.get().is_some()
}

/// The share of calls without a trace context that are traced. 0 if this process does not trace.
pub fn sample() -> f64 {
    TRACING.get().map_or(0.0, |tracing| tracing.sample)
}

/// Reports a span.
pub fn export(span: Span) {
    if let Some(tracing) = TRACING.get() {
        (tracing.export)(span);
    }
}

/// The context of a span.
pub fn context(trace: TraceId, span: SpanId) -> SpanContext {
    SpanContext::new(trace, span, TraceFlags::SAMPLED, true, TraceState::NONE)
}

/// Reads a `traceparent`. `None` if it is invalid, which starts a new trace.
pub fn parse(text: &str) -> Option<SpanContext> {
    let mut parts = text.trim().splitn(5, '-');
    let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let is_hex = |part: &str, length| {
        part.len() == length && part.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b'a'..=b'f'))
    };
    let fits = is_hex(version, 2) && is_hex(trace, 32) && is_hex(span, 16) && is_hex(flags, 2);
    // Later versions may have more parts.
    if !fits || version == "ff" || version == "00" && parts.next().is_some() {
        return None;
    }
    let flags = TraceFlags::new(u8::from_str_radix(flags, 16).ok()?);
    let (trace, span) = (TraceId::from_hex(trace).ok()?, SpanId::from_hex(span).ok()?);
    Some(SpanContext::new(trace, span, flags, true, TraceState::NONE)).filter(SpanContext::is_valid)
}

/// The `traceparent` of a sampled span.
pub fn format(context: &SpanContext) -> String {
    format!("00-{}-{}-01", context.trace_id(), context.span_id())
}

/// The context in a record's headers, if its trace is sampled.
pub fn of_record(headers: &Headers) -> Option<SpanContext> {
    let text = std::str::from_utf8(headers.get(TRACEPARENT)?).ok()?;
    parse(text).filter(SpanContext::is_sampled)
}

/// The span of the verdict on a rollout at the time `as_of`.
pub fn verdict(rollout: &RolloutId, as_of: EventTime) -> SpanContext {
    let (trace, span) = derive(&["serin verdict", rollout.as_str(), &as_of.0.to_string()]);
    context(trace, span)
}

/// The span of a part of a verdict: one partition's window, or a change that the verdict caused.
pub fn part(verdict: &SpanContext, name: &str, number: &str) -> SpanContext {
    let trace = verdict.trace_id();
    context(trace, derive(&["serin part", &trace.to_string(), name, number]).1)
}

fn derive(parts: &[&str]) -> (TraceId, SpanId) {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part.as_bytes());
        hash.update([0]);
    }
    let bytes: [u8; 32] = hash.finalize().into();
    let (trace, rest) = bytes.split_first_chunk::<16>().expect("a digest has 32 bytes");
    let (span, _) = rest.split_first_chunk::<8>().expect("16 bytes are left");
    (TraceId::from_bytes(*trace), SpanId::from_bytes(*span))
}

/// What a stage reports about its records. It belongs to one task, and its memory is lost when the task reopens.
pub trait Tracer: Send {
    /// A record was read.
    fn read(&mut self, record: &Record) {
        let _ = record;
    }

    /// A commit wrote `record`. `now_us` is the time after the commit, in microseconds since the epoch.
    fn written(&mut self, record: &Outgoing, now_us: i64) -> Vec<Span>;
}

/// The record `R` in these headers and this value, if it is one.
pub fn decode<R: codec::Record>(headers: &Headers, value: Option<&Bytes>) -> Option<R> {
    let (name, version) = record_type(headers).ok()?;
    if name != R::NAME {
        return None;
    }
    codec::decode(version, value?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const VALID: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_context_is_read_as_the_standard_defines_it() {
        let read = parse(VALID).unwrap();
        assert!(read.is_sampled());
        assert_eq!(format(&read), VALID);
        let not_sampled = parse(&VALID.replace("-01", "-00")).unwrap();
        assert!(!not_sampled.is_sampled());
        // A later version may have more flags and parts.
        for later in [VALID.replacen("00", "cc", 1), format!("{}-what-the-future", VALID.replacen("00", "cc", 1))] {
            assert_eq!(parse(&later).map(|read| read.trace_id()), Some(read.trace_id()), "{later}");
        }
        for bad in [
            "",
            "00",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e473-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-1",
            "00-4bf92f3577b34da6a3ce929d0e0e473\u{e9}-00f067aa0ba902b7-01",
        ] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn ids_of_verdicts_and_their_parts_are_stable_and_differ() {
        let of = |rollout: &str, secs| verdict(&RolloutId::from(rollout), EventTime::from_secs(secs));
        let one = of("r1", 10);
        assert_eq!(one, of("r1", 10));
        assert_eq!(one.trace_id().to_string(), "738bc3a955d07a182628edde404ba1f4");
        assert_ne!(one.trace_id(), of("r1", 20).trace_id());
        assert_ne!(one.trace_id(), of("r2", 10).trace_id());
        let parts = ["0-0", "1-0", "0-60"].map(|number| part(&one, "window", number));
        assert!(parts.iter().all(|part| part.trace_id() == one.trace_id() && part.span_id() != one.span_id()));
        assert!(parts[0] != parts[1] && parts[0] != parts[2]);
    }

    #[test]
    fn without_a_receiver_nothing_is_traced() {
        assert!(!is_on());
        assert!(sample() <= 0.0);
    }

    #[test]
    fn only_sampled_contexts_of_records_count() {
        let with = |text: &str| -> Headers { [(TRACEPARENT, text)].into_iter().collect() };
        assert_eq!(of_record(&with(VALID)), parse(VALID));
        assert_eq!(of_record(&with(&VALID.replace("-01", "-00"))), None);
        assert_eq!(of_record(&with("garbage")), None);
        assert_eq!(of_record(&Headers::default()), None);
    }
}
