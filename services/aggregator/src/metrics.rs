//! What the aggregator counts about itself.
//!
//! Folds count into a plain tally; it goes to OpenTelemetry when the work has been committed, so the hot path pays for an
//! addition and nothing is counted twice after a crash.

use std::sync::LazyLock;

use opentelemetry::{KeyValue, global, metrics::Counter};
use serin_stream::{
    gauge::{PresentGauge, Series},
    seldom::Seldom,
};

/// Events read from `events`, by outcome: `counted`, `late`, `duplicate`, `untracked` (no rollout wants it), `filled` (a model
/// server's event added to a routed call), `old_incarnation`.
pub const EVENTS_CONSUMED: &str = "serin_events_consumed_total";
/// Answers that came after their window had closed.
pub const LATE_EVENTS: &str = "serin_late_events_total";
/// Records whose sequence number or request id was seen before.
pub const DUPLICATE_EVENTS: &str = "serin_duplicate_events_total";
/// Events known to be lost, by cause: `gap` (missing sequence numbers), `dropped` (as a writer says).
pub const LOST_EVENTS: &str = "serin_lost_events_total";
/// Feedback, by outcome: `joined`, `early` (before its prediction), `revised`, `repeated`, `older_revision`, `unknown` (its
/// prediction never came, or its maturity was over), `not_needed` (no rollout reads it), `sampled_out`, `not_allowed` (its writer may
/// not judge the model), `no_room` (given up early: what waits for its prediction has reached its bound).
pub const LABEL_JOIN: &str = "serin_label_join_total";
/// Feedback with a label that contradicts an earlier one of the same prediction, name and revision; the earlier one counts.
pub const CONTRADICTING: &str = "serin_label_contradictions_total";
/// Segment values that counted as `other`.
pub const SEGMENT_OVERFLOW: &str = "serin_segment_overflow_total";
/// Values that no summary can hold (NaN, infinite, a negative quantity).
pub const UNUSABLE_VALUES: &str = "serin_unusable_values_total";
/// Windows, by outcome: `closed`, `ended` (closed early because the rollout ended), `dropped` (labels of an ended rollout).
pub const WINDOWS: &str = "serin_windows_total";
/// Heartbeats of writers whose clock is off by more than `max_skew`.
pub const SKEWED_HEARTBEATS: &str = "serin_skewed_heartbeats_total";
/// 1 while event time goes on without a router that is not heard, else absent: labels `partition` and `writer`.
pub const SILENT_WRITERS: &str = "serin_writer_silent";
/// How far a writer's clock is off the log's, in seconds, negative when it is behind; absent while it is right: labels `partition` and
/// `writer`.
pub const CLOCK_OFFSET: &str = "serin_writer_clock_offset_seconds";
/// Control records that were ignored because a newer generation is known.
pub const STALE_CONTROLS: &str = "serin_stale_controls_total";
/// Event time of the partition's watermark, in seconds since the Unix epoch.
pub const WATERMARK: &str = "serin_watermark_timestamp_seconds";
/// Counts since the last commit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) counted: u64,
    pub(crate) late: u64,
    pub(crate) duplicate: u64,
    pub(crate) untracked: u64,
    pub(crate) filled: u64,
    pub(crate) old_incarnation: u64,
    pub(crate) lost_gap: u64,
    pub(crate) lost_dropped: u64,
    pub(crate) joined: u64,
    pub(crate) early: u64,
    pub(crate) revised: u64,
    pub(crate) repeated: u64,
    pub(crate) contradicting: u64,
    pub(crate) older_revision: u64,
    pub(crate) unknown: u64,
    pub(crate) not_needed: u64,
    pub(crate) no_room: u64,
    pub(crate) sampled_out: u64,
    pub(crate) not_allowed: u64,
    pub(crate) segment_overflow: u64,
    pub(crate) unusable: u64,
    pub(crate) windows_closed: u64,
    pub(crate) windows_ended: u64,
    pub(crate) windows_dropped: u64,
    pub(crate) skewed: u64,
    pub(crate) stale_controls: u64,
}

static CONTRADICTED: Seldom = Seldom::new();

struct Instruments {
    consumed: Counter<u64>,
    late: Counter<u64>,
    duplicate: Counter<u64>,
    lost: Counter<u64>,
    labels: Counter<u64>,
    contradicting: Counter<u64>,
    overflow: Counter<u64>,
    unusable: Counter<u64>,
    windows: Counter<u64>,
    skewed: Counter<u64>,
    stale_controls: Counter<u64>,
    watermark: PresentGauge,
    silent: PresentGauge,
    offset: PresentGauge,
}

static INSTRUMENTS: LazyLock<Instruments> = LazyLock::new(|| {
    let meter = global::meter("serin");
    let counter = |name: &'static str, about: &'static str| meter.u64_counter(name).with_description(about).build();
    Instruments {
        consumed: counter(EVENTS_CONSUMED, "Events read, by outcome"),
        late: counter(LATE_EVENTS, "Answers that came after their window had closed"),
        duplicate: counter(DUPLICATE_EVENTS, "Records seen before"),
        lost: counter(LOST_EVENTS, "Events known to be lost, by cause"),
        labels: counter(LABEL_JOIN, "Feedback, by outcome"),
        contradicting: counter(CONTRADICTING, "Feedback that contradicts an earlier one"),
        overflow: counter(SEGMENT_OVERFLOW, "Segment values that counted as other"),
        unusable: counter(UNUSABLE_VALUES, "Values that no summary can hold"),
        windows: counter(WINDOWS, "Windows, by outcome"),
        skewed: counter(SKEWED_HEARTBEATS, "Heartbeats of writers whose clock is wrong"),
        stale_controls: counter(STALE_CONTROLS, "Control records older than what is known"),
        silent: PresentGauge::new(SILENT_WRITERS, "Whether a writer is not heard"),
        offset: PresentGauge::new(CLOCK_OFFSET, "A writer's clock less the log's"),
        watermark: PresentGauge::new(WATERMARK, "Event time of the watermark"),
    }
});

impl Tally {
    /// Hands the counts to OpenTelemetry and begins anew.
    pub(crate) fn publish(&mut self) {
        let tally = std::mem::take(self);
        let instruments = &*INSTRUMENTS;
        // Zeros too: with its first publishing everything is there, so that the first of a kind shows as an increase from 0.
        let plain = |counter: &Counter<u64>, count: u64| counter.add(count, &[]);
        let each = |counter: &Counter<u64>, key: &'static str, counts: &[(&'static str, u64)]| {
            for (value, count) in counts {
                counter.add(*count, &[KeyValue::new(key, *value)]);
            }
        };
        let outcomes = [
            ("counted", tally.counted),
            ("late", tally.late),
            ("duplicate", tally.duplicate),
            ("untracked", tally.untracked),
            ("filled", tally.filled),
            ("old_incarnation", tally.old_incarnation),
        ];
        each(&instruments.consumed, "outcome", &outcomes);
        plain(&instruments.late, tally.late);
        plain(&instruments.duplicate, tally.duplicate);
        each(&instruments.lost, "cause", &[("gap", tally.lost_gap), ("dropped", tally.lost_dropped)]);
        let labels = [
            ("joined", tally.joined),
            ("early", tally.early),
            ("revised", tally.revised),
            ("repeated", tally.repeated),
            ("older_revision", tally.older_revision),
            ("unknown", tally.unknown),
            ("not_needed", tally.not_needed),
            ("sampled_out", tally.sampled_out),
            ("no_room", tally.no_room),
            ("not_allowed", tally.not_allowed),
        ];
        each(&instruments.labels, "outcome", &labels);
        plain(&instruments.contradicting, tally.contradicting);
        if tally.contradicting > 0
            && let Some(count) = CONTRADICTED.happened(tally.contradicting)
        {
            tracing::warn!(
                count,
                "feedback contradicts an earlier label of the same prediction, and is left: to correct a label, send it with a \
                 larger `revision`"
            );
        }
        plain(&instruments.overflow, tally.segment_overflow);
        plain(&instruments.unusable, tally.unusable);
        let windows =
            [("closed", tally.windows_closed), ("ended", tally.windows_ended), ("dropped", tally.windows_dropped)];
        each(&instruments.windows, "outcome", &windows);
        plain(&instruments.skewed, tally.skewed);
        plain(&instruments.stale_controls, tally.stale_controls);
    }
}

/// Shows how far event time has come on a partition of `events`.
pub(crate) fn watermark(partition: i32, seconds: f64) -> Series {
    INSTRUMENTS.watermark.hold(vec![KeyValue::new("partition", i64::from(partition))], seconds)
}

/// Shows that a writer is not heard on a partition of `events`.
pub(crate) fn silent(partition: i32, writer: &str) -> Series {
    INSTRUMENTS.silent.hold(labels(partition, writer), 1.0)
}

/// Shows how far a writer's clock is off, as a partition of `events` sees it.
pub(crate) fn clock_offset(partition: i32, writer: &str, seconds: f64) -> Series {
    INSTRUMENTS.offset.hold(labels(partition, writer), seconds)
}

/// Writers are routers and relays of ours, as many as the fold remembers.
fn labels(partition: i32, writer: &str) -> Vec<KeyValue> {
    vec![KeyValue::new("partition", i64::from(partition)), KeyValue::new("writer", writer.to_owned())]
}
