//! What the aggregator closed (topic `windows`, key = model).

use serde::{Deserialize, Serialize};

use super::{Arm, Segment};
use crate::ids::{EventTime, Generation, ModelName, RolloutId, Span};

/// The summary of one metric in one arm and segment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Cell {
    /// The arm.
    pub arm: Arm,
    /// The segment.
    pub segment: Segment,
    /// Name of the metric in the spec.
    pub metric: String,
    /// Bytes of a `serin_sketches::Summary`.
    #[serde(with = "crate::codec::avro_bytes")]
    pub summary: Vec<u8>,
}

/// Plain counts of one arm in one window.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArmCounts {
    /// The arm.
    pub arm: Arm,
    /// Answers that enter the comparison.
    pub predictions: i64,
    /// Answers left out of it (pinned, fallback, lease expired ...).
    pub excluded: i64,
    /// Outcome `failed` among `predictions` (rules 1: any error).
    pub errors: i64,
    /// Outcome `unusable` among `predictions`.
    pub invalid: i64,
    /// Events that came after their window had closed.
    pub late: i64,
    /// Events that a writer dropped, as its heartbeats say.
    pub lost: i64,
    /// Predictions whose label had come in time (label streams only).
    pub labelled: i64,
    /// Outcome `refused` among `predictions`.
    #[serde(default)]
    pub refused: i64,
    /// Outcome `redirected` among `predictions`.
    #[serde(default)]
    pub redirected: i64,
    /// Outcome `unread` among `predictions`.
    #[serde(default)]
    pub unread: i64,
    /// Outcome `cancelled`: the caller left. Not among `predictions`.
    #[serde(default)]
    pub cancelled: i64,
    /// Of `cancelled`: the caller left after the head of the answer had reached it, so it could know the version.
    #[serde(default)]
    pub left: i64,
}

impl ArmCounts {
    /// Counts of an arm that has had nothing.
    pub fn none(arm: Arm) -> Self {
        Self {
            arm,
            predictions: 0,
            excluded: 0,
            errors: 0,
            invalid: 0,
            late: 0,
            lost: 0,
            labelled: 0,
            refused: 0,
            redirected: 0,
            unread: 0,
            cancelled: 0,
            left: 0,
        }
    }
}

/// How many of an arm's compared answers had one segment value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Population {
    /// The arm.
    pub arm: Arm,
    /// The value of a dimension, or `other`.
    pub segment: Segment,
    /// Answers that enter the comparison.
    pub predictions: i64,
}

/// One partition's part of one window of one rollout and generation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WindowClosed {
    /// The model.
    pub model: ModelName,
    /// The rollout.
    pub rollout: RolloutId,
    /// The generation whose events these are.
    pub generation: Generation,
    /// Partition of `events` it was folded from.
    pub partition: i32,
    /// End of the window; it covers `[end - length, end)`.
    pub end: EventTime,
    /// Length of the window.
    pub length: Span,
    /// Maturity of the metrics inside: 0 for what is known at completion, else the wait for labels. Each maturity is a
    /// stream of windows with its own progress.
    pub maturity: Span,
    /// One entry per arm, metric and segment that had data.
    pub cells: Vec<Cell>,
    /// One entry per arm that had events.
    pub arms: Vec<ArmCounts>,
    /// One entry per arm and frozen segment value that had answers; windows of maturity 0 only.
    #[serde(default)]
    pub population: Vec<Population>,
    /// Number of the rules under which it was counted, see [`RULES`](super::RULES).
    #[serde(default = "super::control::first_rules")]
    pub rules: i32,
    /// What closed it: the field of a made-up version 4.
    #[cfg(feature = "next-schema")]
    #[serde(default)]
    pub closed_by: Option<String>,
}

/// A partition's promise: a window of maturity `m` of a rollout with grace `g` has been written when `end + m + g` is at or
/// before `through`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClosedThrough {
    /// Partition of `events`.
    pub partition: i32,
    /// How many partitions `events` has: a window is complete when all have passed it.
    pub partitions: i32,
    /// The watermark.
    pub through: EventTime,
    /// The same for rollouts of models whose calls others report (`traffic: external`); `None`: that is [`through`](Self::through).
    #[serde(default)]
    pub relayed_through: Option<EventTime>,
    /// The lowest watermark of all writers that have neither left nor been silent for `writer_ttl`; `None`: that is
    /// [`through`](Self::through).
    #[serde(default)]
    pub heard_through: Option<EventTime>,
    /// Writers that were not heard in time: event time went on without them.
    #[serde(default)]
    pub silent: Vec<String>,
    /// Writers whose clocks are off by more than what is tolerated; they do not hold event time.
    #[serde(default)]
    pub skewed: Vec<ClockOffset>,
}

impl ClosedThrough {
    /// A promise of a partition whose writers are all heard and whose clocks agree with the log's.
    pub fn heard(partition: i32, partitions: i32, through: EventTime) -> Self {
        let (relayed_through, heard_through) = (None, None);
        Self { partition, partitions, through, relayed_through, heard_through, silent: Vec::new(), skewed: Vec::new() }
    }
}

/// A writer whose clock is off.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ClockOffset {
    /// Name of the writer.
    pub writer: String,
    /// Its clock less the log's: negative when it is behind.
    pub offset: Span,
}
