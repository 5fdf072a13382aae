//! What happens at the routers: predictions, feedback, heartbeats (topic `events`, key = request id).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Arm;
use crate::ids::{EventTime, Generation, ModelName, RequestId, RolloutId, Version};

/// Who wrote a record, and its place in that writer's sequence for one partition.
///
/// `seq` counts from 1 within (writer, incarnation, partition): a repeated number is a duplicate, a gap is a loss.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Writer {
    /// Stable name of the writer, such as `router-0`.
    pub name: String,
    /// Start time of the writer's process in microseconds; a restart is a new incarnation.
    pub incarnation: i64,
    /// Number of the record in this partition, from 1.
    pub seq: i64,
}

/// How the arm of a prediction was chosen. Only [`Assignment::Random`], [`Assignment::Sticky`] and
/// [`Assignment::External`] enter a comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Assignment {
    /// By chance, per request.
    Random,
    /// By the salted hash of a key.
    Sticky,
    /// The caller asked for this version.
    Pinned,
    /// A targeting rule sent it.
    Targeted,
    /// Stable answered because the canary could not.
    Fallback,
    /// The table had no lease: all went to stable.
    LeaseExpired,
    /// The local switch "all stable" was on.
    SwitchedOff,
    /// Somebody else's router chose (`mode: observe`).
    External,
}

impl Assignment {
    /// Whether an answer assigned this way may be compared between the arms.
    pub fn is_compared(self) -> bool {
        matches!(self, Self::Random | Self::Sticky | Self::External)
    }
}

/// Which side reported a prediction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// Serin's router: this event counts the call.
    Router,
    /// A model server or foreign log, through intake: adds outputs to a routed call, or counts a call that no
    /// Serin router saw.
    Intake,
}

/// One answer of one version to one call.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Prediction {
    /// Joins the live call, its mirrors and its feedback.
    pub request_id: RequestId,
    /// The model that was asked.
    pub model: ModelName,
    /// The version that answered.
    pub version: Version,
    /// The part it played.
    pub arm: Arm,
    /// How the arm was chosen.
    pub assignment: Assignment,
    /// Who reported it.
    pub origin: Origin,
    /// The rollout in force, if any.
    pub rollout: Option<RolloutId>,
    /// The routing table in force.
    pub generation: Generation,
    /// Event time: when the answer was complete (a timeout completes at the timeout).
    pub completed_at: EventTime,
    /// Time from the last byte of the request to the last byte of the answer, in microseconds.
    pub latency_us: Option<i64>,
    /// HTTP status of the answer; `None` when none came.
    pub status: Option<i32>,
    /// Why there is no good answer: `connect`, `timeout`, `truncated`, `status_503` ...; `None` when there is one.
    pub error: Option<String>,
    /// Why nobody can use the answer (`nan`, `null`, `empty`, `out_of_range`, `unparsable`); `None` when one can.
    pub invalid_output: Option<String>,
    /// Salted hash of the sticky key, if assignment was sticky.
    pub unit: Option<i64>,
    /// Numeric outputs by name.
    pub outputs: BTreeMap<String, f64>,
    /// Categorical outputs by name.
    pub classes: BTreeMap<String, String>,
    /// Value of each segment dimension.
    pub segments: BTreeMap<String, String>,
    /// Who wrote it.
    pub writer: Writer,
}

/// What a prediction led to: a label, a click, an amount. Its sender needs to know only the request id.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Feedback {
    /// The prediction it speaks of.
    pub request_id: RequestId,
    /// When the truth was observed.
    pub observed_at: EventTime,
    /// A later revision replaces an earlier one.
    pub revision: i64,
    /// Numeric truths by name; a yes/no label is 1 or 0.
    pub values: BTreeMap<String, f64>,
    /// Categorical truths by name.
    pub classes: BTreeMap<String, String>,
    /// Who wrote it.
    pub writer: Writer,
}

/// Events of one arm that a writer had to drop.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArmDrops {
    /// The model.
    pub model: ModelName,
    /// The arm.
    pub arm: Arm,
    /// Events dropped since this incarnation began, over all partitions.
    pub dropped: i64,
}

/// A writer's promise, written to every partition of `events`: nothing older than `low_watermark` will follow here.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Heartbeat {
    /// The writer; `seq` is the number of the last prediction or feedback it wrote to this partition.
    pub writer: Writer,
    /// No later event of this writer in this partition has an earlier event time.
    pub low_watermark: EventTime,
    /// What the writer's bounded queue had to drop so far.
    pub drops: Vec<ArmDrops>,
    /// True on the last heartbeat of a writer that shuts down: it no longer holds the watermark back.
    pub leaving: bool,
}
