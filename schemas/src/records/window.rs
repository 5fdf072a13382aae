//! Windows that the aggregator closed (topic `windows`, key = model).

use serde::{Deserialize, Serialize};

use super::{Arm, Segment};
use crate::ids::{EventTime, Generation, ModelName, RolloutId, Span};

/// The summary of one metric in one arm and segment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Cell {
    /// The arm whose answers are summarized.
    pub arm: Arm,
    /// The segment whose answers are summarized.
    pub segment: Segment,
    /// Name of the metric in the spec.
    pub metric: String,
    /// Bytes of a `serin_sketches::Summary`.
    #[serde(with = "crate::codec::avro_bytes")]
    pub summary: Vec<u8>,
}

/// Counts of one arm in one window.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArmCounts {
    /// The arm whose answers are counted.
    pub arm: Arm,
    /// Number of answers that are compared.
    pub predictions: i64,
    /// Number of answers that are left out of the comparison (pinned, fallback, lease expired ...).
    pub excluded: i64,
    /// Number of answers among `predictions` with outcome `failed` (rules version 1: any error).
    pub errors: i64,
    /// Number of answers among `predictions` with outcome `unusable`.
    pub invalid: i64,
    /// Number of events that arrived after their window had closed.
    pub late: i64,
    /// Number of events that a writer dropped, according to its heartbeats.
    pub lost: i64,
    /// Number of predictions whose label arrived in time (label streams only).
    pub labelled: i64,
    /// Number of answers among `predictions` with outcome `refused`.
    #[serde(default)]
    pub refused: i64,
    /// Number of answers among `predictions` with outcome `redirected`.
    #[serde(default)]
    pub redirected: i64,
    /// Number of answers among `predictions` with outcome `unread`.
    #[serde(default)]
    pub unread: i64,
    /// Number of calls with outcome `cancelled`. They are not among `predictions`.
    #[serde(default)]
    pub cancelled: i64,
    /// Number of `cancelled` calls that were cancelled after the head of the answer had reached the caller, which could then know the
    /// version.
    #[serde(default)]
    pub left: i64,
    /// Number of labels that contradict an earlier label of the same prediction, name and revision. The earlier label counts. They are
    /// counted when they arrive, in windows of maturity 0.
    #[serde(default)]
    pub contradicting: i64,
}

impl ArmCounts {
    /// Counts of an arm without events.
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
            contradicting: 0,
        }
    }
}

/// Number of an arm's compared answers with one segment value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Population {
    /// The arm whose answers are counted.
    pub arm: Arm,
    /// The value of a dimension, or `other`.
    pub segment: Segment,
    /// Number of answers that are compared.
    pub predictions: i64,
}

/// Counts of the calls of one bucket of units (users, sessions) in one arm. They show whether a finding about calls rests on a few units.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnitCounts {
    /// The bucket, from 0 to 255: the upper 8 bits of the hash of the unit, as in `serin_sketches::Buckets`.
    pub bucket: i32,
    /// Counts by outcome. Only compared calls are counted, and neither late nor lost events.
    pub counts: ArmCounts,
}

/// One partition's part of one window of one rollout and generation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WindowClosed {
    /// The model of the rollout.
    pub model: ModelName,
    /// Id of the rollout.
    pub rollout: RolloutId,
    /// The generation of the window's events.
    pub generation: Generation,
    /// Partition of `events` that the window was folded from.
    pub partition: i32,
    /// End of the window, which covers `[end - length, end)`.
    pub end: EventTime,
    /// Length of the window.
    pub length: Span,
    /// Maturity of the metrics in the window: 0 for values that are known at completion, otherwise the wait for labels. Each maturity
    /// is a stream of windows with its own progress.
    pub maturity: Span,
    /// One entry per arm, metric and segment that had data.
    pub cells: Vec<Cell>,
    /// One entry per arm that had events.
    pub arms: Vec<ArmCounts>,
    /// In windows of maturity 0, one entry per arm and frozen segment value that had answers. In windows of labels, one entry per arm and
    /// metric that counts a missing label as 0: the answers whose label did arrive.
    #[serde(default)]
    pub population: Vec<Population>,
    /// Version of the rules under which the window was counted, see [`RULES`](super::RULES).
    #[serde(default = "super::control::first_rules")]
    pub rules: i32,
    /// One entry per arm and bucket of units with calls. Only where a key assigns the arm, in windows of maturity 0 that are compared.
    #[serde(default)]
    pub units: Vec<UnitCounts>,
    /// What closed the window: the additional field of the test's version 6.
    #[cfg(feature = "next-schema")]
    #[serde(default)]
    pub closed_by: Option<String>,
}

/// How far a partition has closed its windows: it has written every window with `end + m + g` at or before `through`, where `m` is the
/// window's maturity and `g` the grace of its rollout.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClosedThrough {
    /// Partition of `events`.
    pub partition: i32,
    /// Number of partitions of `events`. A window is complete when all of them have passed it.
    pub partitions: i32,
    /// The watermark of the partition.
    pub through: EventTime,
    /// The watermark for rollouts of models whose calls external systems report (`traffic: external`); `None` if it equals
    /// [`through`](Self::through).
    #[serde(default)]
    pub relayed_through: Option<EventTime>,
    /// The lowest watermark of all writers that have neither left nor been silent for `writer_ttl`; `None` if it equals
    /// [`through`](Self::through).
    #[serde(default)]
    pub heard_through: Option<EventTime>,
    /// Writers that sent no heartbeat in time. Event time no longer waits for them.
    #[serde(default)]
    pub silent: Vec<String>,
    /// Writers whose clocks are off by more than the tolerance. They do not hold back the watermark.
    #[serde(default)]
    pub skewed: Vec<ClockOffset>,
}

impl ClosedThrough {
    /// Creates the record for a partition with neither silent writers nor writers with wrong clocks.
    pub fn heard(partition: i32, partitions: i32, through: EventTime) -> Self {
        let (relayed_through, heard_through) = (None, None);
        Self { partition, partitions, through, relayed_through, heard_through, silent: Vec::new(), skewed: Vec::new() }
    }
}

/// A writer with a wrong clock.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ClockOffset {
    /// Name of the writer.
    pub writer: String,
    /// The writer's clock minus the log's clock; negative if the writer's clock is behind.
    pub offset: Span,
}
