//! Metrics of the aggregator.
//!
//! Folds count into a plain tally, which is published to OpenTelemetry after the commit. The hot path only pays for
//! an addition, and nothing is counted twice after a crash.

use std::sync::LazyLock;

use opentelemetry::{KeyValue, metrics::Counter};
use serin_stream::{
    declare_metrics,
    gauge::{PresentGauge, Series},
    log_limit::LogLimit,
    metric::{Label, PARTITION, bounded, words},
};

/// Label of a writer. Writers are routers and relays, and the fold bounds their number.
const WRITER: Label = bounded("writer", "writers that the partition remembers, at most `aggregator.max_writers`");

declare_metrics! {
    pub METRICS {
        /// Events read from `events`. `untracked`: no rollout tracks the call. `filled`: a model server's event added values to a
        /// routed call. `old_incarnation`: the event is from a process that a newer one with the same name has replaced.
        EVENTS_CONSUMED = Counter "serin_events_consumed_total" in "{event}"
            [words("outcome", &["counted", "late", "duplicate", "untracked", "filled", "old_incarnation"])];
        /// Answers that arrived after their window had closed.
        LATE_EVENTS = Counter "serin_late_events_total" in "{event}" [];
        /// Records whose sequence number or request id was already seen.
        DUPLICATE_EVENTS = Counter "serin_duplicate_events_total" in "{event}" [];
        /// Events known to be lost. `gap`: sequence numbers are missing. `dropped`: a writer reports that it dropped them.
        LOST_EVENTS = Counter "serin_lost_events_total" in "{event}" [words("cause", &["gap", "dropped"])];
        /// Feedback. `early`: before its prediction. `unknown`: its prediction never arrived, or its maturity was over.
        /// `not_needed`: no rollout reads it. `not_allowed`: its writer may not judge the model. `no_room`: dropped early, because
        /// the early feedback has reached its bound.
        LABEL_JOIN = Counter "serin_label_join_total" in "{feedback}" [words("outcome", &[
            "joined", "early", "revised", "repeated", "older_revision", "unknown", "not_needed", "sampled_out", "not_allowed",
            "no_room",
        ])];
        /// Feedback whose label contradicts an earlier label of the same prediction, name and revision. The earlier label counts.
        CONTRADICTING = Counter "serin_label_contradictions_total" in "{feedback}" [];
        /// Segment values that were counted as `other`.
        SEGMENT_OVERFLOW = Counter "serin_segment_overflow_total" in "{value}" [];
        /// Values that no summary can hold: NaN, infinite, or a negative quantity.
        UNUSABLE_VALUES = Counter "serin_unusable_values_total" in "{value}" [];
        /// Windows. `ended`: closed early because the rollout ended. `dropped`: labels of a rollout that had ended.
        WINDOWS = Counter "serin_windows_total" in "{window}" [words("outcome", &["closed", "ended", "dropped"])];
        /// Heartbeats of writers whose clock differs by more than `max_skew`.
        SKEWED_HEARTBEATS = Counter "serin_skewed_heartbeats_total" in "{heartbeat}" [];
        /// 1 while event time advances without a silent router, otherwise absent.
        SILENT_WRITERS = Gauge "serin_writer_silent" in "1" [PARTITION, WRITER];
        /// Offset of a writer's clock from the log's clock, negative when the writer is behind. Absent while the clock is within
        /// tolerance.
        CLOCK_OFFSET = Gauge "serin_writer_clock_offset_seconds" in "s" [PARTITION, WRITER];
        /// Control records that were ignored because a newer generation is known.
        STALE_CONTROLS = Counter "serin_stale_controls_total" in "{record}" [];
        /// Event time of the partition's watermark, in seconds since the Unix epoch.
        WATERMARK = Gauge "serin_watermark_timestamp_seconds" in "s" [PARTITION];
    }
}

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

static INSTRUMENTS: LazyLock<Instruments> = LazyLock::new(|| Instruments {
    consumed: EVENTS_CONSUMED.counter(),
    late: LATE_EVENTS.counter(),
    duplicate: DUPLICATE_EVENTS.counter(),
    lost: LOST_EVENTS.counter(),
    labels: LABEL_JOIN.counter(),
    contradicting: CONTRADICTING.counter(),
    overflow: SEGMENT_OVERFLOW.counter(),
    unusable: UNUSABLE_VALUES.counter(),
    windows: WINDOWS.counter(),
    skewed: SKEWED_HEARTBEATS.counter(),
    stale_controls: STALE_CONTROLS.counter(),
    silent: PresentGauge::new(&SILENT_WRITERS),
    offset: PresentGauge::new(&CLOCK_OFFSET),
    watermark: PresentGauge::new(&WATERMARK),
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

fn labels(partition: i32, writer: &str) -> Vec<KeyValue> {
    vec![KeyValue::new("partition", i64::from(partition)), KeyValue::new("writer", writer.to_owned())]
}
