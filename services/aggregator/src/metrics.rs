//! Metrics of the aggregator.
//!
//! Folds count into a plain tally, which is published to OpenTelemetry after the commit. The hot path only pays for
//! an addition, and nothing is counted twice after a crash.

use std::sync::LazyLock;

use opentelemetry::{KeyValue, global, metrics::Counter};
use serin_stream::{
    gauge::{PresentGauge, Series},
    log_limit::LogLimit,
};

/// Events read from `events`, by outcome: `counted`, `late`, `duplicate`, `untracked` (no rollout tracks the call),
/// `filled` (a model server's event added values to a routed call), `old_incarnation`.
pub const EVENTS_CONSUMED: &str = "serin_events_consumed_total";
/// Answers that arrived after their window had closed.
pub const LATE_EVENTS: &str = "serin_late_events_total";
/// Records whose sequence number or request id was already seen.
pub const DUPLICATE_EVENTS: &str = "serin_duplicate_events_total";
/// Events known to be lost, by cause: `gap` (missing sequence numbers), `dropped` (reported by a writer).
pub const LOST_EVENTS: &str = "serin_lost_events_total";
/// Feedback, by outcome: `joined`, `early` (before its prediction), `revised`, `repeated`, `older_revision`,
/// `unknown` (its prediction never arrived, or its maturity was over), `not_needed` (no rollout reads it),
/// `sampled_out`, `not_allowed` (its writer may not judge the model), `no_room` (dropped early because the early
/// feedback has reached its bound).
pub const LABEL_JOIN: &str = "serin_label_join_total";
/// Feedback with a label that contradicts an earlier one of the same prediction, name and revision. The earlier one
/// counts.
pub const CONTRADICTING: &str = "serin_label_contradictions_total";
/// Segment values that counted as `other`.
pub const SEGMENT_OVERFLOW: &str = "serin_segment_overflow_total";
/// Values that no summary can hold (NaN, infinite, a negative quantity).
pub const UNUSABLE_VALUES: &str = "serin_unusable_values_total";
/// Windows, by outcome: `closed`, `ended` (closed early because the rollout ended), `dropped` (labels of an ended rollout).
pub const WINDOWS: &str = "serin_windows_total";
/// Heartbeats of writers whose clock differs by more than `max_skew`.
pub const SKEWED_HEARTBEATS: &str = "serin_skewed_heartbeats_total";
/// 1 while event time advances without a silent router, otherwise absent. Labels: `partition` and `writer`.
pub const SILENT_WRITERS: &str = "serin_writer_silent";
/// Offset of a writer's clock from the log's, in seconds; negative when the writer is behind. Absent while the clock
/// is within tolerance. Labels: `partition` and `writer`.
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

static CONTRADICTED: LogLimit = LogLimit::new();

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
        late: counter(LATE_EVENTS, "Answers that arrived after their window had closed"),
        duplicate: counter(DUPLICATE_EVENTS, "Records whose sequence number or request id was already seen"),
        lost: counter(LOST_EVENTS, "Events known to be lost, by cause"),
        labels: counter(LABEL_JOIN, "Feedback, by outcome"),
        contradicting: counter(CONTRADICTING, "Feedback that contradicts an earlier label of the same prediction"),
        overflow: counter(SEGMENT_OVERFLOW, "Segment values that were counted as other"),
        unusable: counter(UNUSABLE_VALUES, "Values that no summary can hold"),
        windows: counter(WINDOWS, "Windows, by outcome"),
        skewed: counter(SKEWED_HEARTBEATS, "Heartbeats of writers whose clock is off by more than max_skew"),
        stale_controls: counter(
            STALE_CONTROLS,
            "Control records that were ignored because a newer generation is known",
        ),
        silent: PresentGauge::new(
            SILENT_WRITERS,
            "1 while event time advances without a silent writer, otherwise absent",
        ),
        offset: PresentGauge::new(
            CLOCK_OFFSET,
            "Offset of a writer's clock from the log's in seconds; negative when it is behind",
        ),
        watermark: PresentGauge::new(
            WATERMARK,
            "Event time of the partition's watermark, in seconds since the Unix epoch",
        ),
    }
});

impl Tally {
    /// Publishes the counts to OpenTelemetry and resets them.
    pub(crate) fn publish(&mut self) {
        let tally = std::mem::take(self);
        let instruments = &*INSTRUMENTS;
        // Zeros are published too: all series exist after the first call, so the first event of a kind shows as an
        // increase from 0.
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
                "feedback contradicts an earlier label of the same prediction and is ignored; to correct a label, send it \
                 with a larger `revision`"
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

/// Exports the watermark of a partition of `events`.
pub(crate) fn watermark(partition: i32, seconds: f64) -> Series {
    INSTRUMENTS.watermark.hold(vec![KeyValue::new("partition", i64::from(partition))], seconds)
}

/// Exports that a writer is silent on a partition of `events`.
pub(crate) fn silent(partition: i32, writer: &str) -> Series {
    INSTRUMENTS.silent.hold(labels(partition, writer), 1.0)
}

/// Exports the offset of a writer's clock, as observed on a partition of `events`.
pub(crate) fn clock_offset(partition: i32, writer: &str, seconds: f64) -> Series {
    INSTRUMENTS.offset.hold(labels(partition, writer), seconds)
}

/// Labels of a writer. Writers are routers and relays, and their number is bounded by the fold.
fn labels(partition: i32, writer: &str) -> Vec<KeyValue> {
    vec![KeyValue::new("partition", i64::from(partition)), KeyValue::new("writer", writer.to_owned())]
}
