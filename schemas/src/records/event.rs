//! Events of the routers: predictions, feedback and heartbeats (topic `events`, key = request id).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serin_sketches::hash::hash64;

use super::Arm;
use crate::ids::{EventTime, Generation, ModelName, RequestId, RolloutId, Version};

/// The writer of a record, and the record's number in that writer's sequence for one partition.
///
/// `seq` counts from 1 within (writer, incarnation, partition). A repeated number is a duplicate, and a gap is a loss.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Writer {
    /// Stable name of the writer, such as `router-0`.
    pub name: String,
    /// Start time of the writer's process in microseconds. Each restart is a new incarnation.
    pub incarnation: i64,
    /// Number of the record in this partition, from 1.
    pub seq: i64,
}

/// How the arm of a prediction was chosen. Only [`Assignment::Random`], [`Assignment::Sticky`] and
/// [`Assignment::External`] are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Assignment {
    /// At random, for each request.
    Random,
    /// By the salted hash of a key.
    Sticky,
    /// The caller requested this version.
    Pinned,
    /// A target of the rollout matched.
    Targeted,
    /// Stable answered because the canary failed.
    Fallback,
    /// The lease of the table had expired, so all calls went to stable.
    LeaseExpired,
    /// The local switch "all stable" was on.
    SwitchedOff,
    /// A foreign router assigned the call (`mode: observe`).
    External,
    /// A value that the assignment needed could not be read, so stable answered.
    Unreadable,
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
    /// Serin's router. The event counts the call.
    Router,
    /// A model server or a foreign log, through the intake. The event adds outputs to a routed call, or counts a call that no Serin
    /// router has seen.
    Intake,
}

/// The outcome of a call. Every call has exactly one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The answer was read and is good.
    Ok,
    /// Status 4xx: the version refused the request.
    Refused,
    /// Status 3xx.
    Redirected,
    /// Status 5xx, no answer, an incomplete answer, or an error inside an answer with a good status.
    Failed,
    /// Status 2xx with an answer that cannot be used: NaN, null, empty, out of range, or not matching its schema.
    Unusable,
    /// Status 2xx with an answer whose body was not read, because it is too large or has an unknown encoding.
    Unread,
    /// The caller cancelled the call before the answer was complete.
    Cancelled,
}

impl Outcome {
    /// All outcomes, in the order of the schema.
    pub const ALL: [Self; 7] =
        [Self::Ok, Self::Refused, Self::Redirected, Self::Failed, Self::Unusable, Self::Unread, Self::Cancelled];

    /// Name of the outcome on the wire, in metrics and in messages.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Refused => "refused",
            Self::Redirected => "redirected",
            Self::Failed => "failed",
            Self::Unusable => "unusable",
            Self::Unread => "unread",
            Self::Cancelled => "cancelled",
        }
    }

    /// The outcome of an event that does not contain one: an event of version 1, or one from a foreign writer.
    ///
    /// A status of 400 to 499 takes precedence over the error. Proxies write 499 when the caller has closed the connection. A router
    /// always has a status unless the call failed. A foreign writer may leave the status out.
    pub fn derived(origin: Origin, status: Option<i32>, error: Option<&str>, invalid_output: Option<&str>) -> Self {
        match (status, error) {
            (Some(499), _) | (_, Some("client_closed" | "cancelled")) => Self::Cancelled,
            (Some(500..), _) => Self::Failed,
            (Some(400..), _) => Self::Refused,
            (_, Some(_)) => Self::Failed,
            (None, None) if origin == Origin::Router => Self::Failed,
            (Some(300..), None) => Self::Redirected,
            (_, None) if invalid_output.is_some() => Self::Unusable,
            (_, None) => Self::Ok,
        }
    }
}

/// The rows of a call whose answer has several.
///
/// Rows of one call are not independent, so a call stays one observation. [`Prediction::outputs`] and [`Prediction::classes`] contain the
/// values of one row, and metrics that are means use the mean over the rows instead.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Batch {
    /// Number of rows, at least 2.
    pub rows: i32,
    /// The row, from 0, whose outputs and classes the prediction contains. It is drawn by the hash of the request id.
    pub row: i32,
    /// For each numeric output with several rows: the mean over the rows that were read.
    pub means: BTreeMap<String, f64>,
}

impl Batch {
    /// The row, from 0, that is drawn for a call with this many rows. Routers and the doors for labels use the same one: the label of
    /// this row belongs to the outputs in the event. Every row is drawn with the same probability.
    pub fn drawn(request_id: &str, rows: usize) -> usize {
        // A multiply-shift of the hash.
        ((u128::from(hash64(b"serin.row", request_id.as_bytes())) * rows as u128) >> 64) as usize
    }
}

/// One version's answer to one call.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Prediction {
    /// Id that joins the live call, its mirrors and its feedback.
    pub request_id: RequestId,
    /// The model that was called.
    pub model: ModelName,
    /// The version that answered.
    pub version: Version,
    /// The arm of the version.
    pub arm: Arm,
    /// How the arm was chosen.
    pub assignment: Assignment,
    /// Which side reported the prediction.
    pub origin: Origin,
    /// The rollout in force, if any.
    pub rollout: Option<RolloutId>,
    /// The routing table in force.
    pub generation: Generation,
    /// Event time: the time at which the answer was complete. A call that timed out is complete at its timeout.
    pub completed_at: EventTime,
    /// Time from the last byte of the request to the last byte of the answer, in microseconds.
    pub latency_us: Option<i64>,
    /// HTTP status of the answer; `None` if there was no answer.
    pub status: Option<i32>,
    /// The cause of [`Outcome::Failed`] and [`Outcome::Cancelled`]: `connect`, `timeout`, `truncated`, `status_503` ... `None` for
    /// other outcomes.
    pub error: Option<String>,
    /// The cause of [`Outcome::Unusable`]: `nan`, `null`, `empty`, `out_of_range`, `unparsable` ... `None` for other outcomes.
    pub invalid_output: Option<String>,
    /// Salted hash of the sticky key, if assignment was sticky.
    pub unit: Option<i64>,
    /// Numeric outputs by name.
    pub outputs: BTreeMap<String, f64>,
    /// Categorical outputs by name.
    pub classes: BTreeMap<String, String>,
    /// Value of each segment dimension.
    pub segments: BTreeMap<String, String>,
    /// The writer of the record.
    pub writer: Writer,
    /// The outcome of the call; `None` if it is derived from status, error and `invalid_output`, see [`Self::outcome`].
    #[serde(default)]
    pub outcome: Option<Outcome>,
    /// The cause of [`Outcome::Unread`]: `too_large`, `encoding`, `content_type` ... `None` for other outcomes.
    #[serde(default)]
    pub unread: Option<String>,
    /// The rows of the call, if its answer has several; `None` for one row, or if they are not known.
    #[serde(default)]
    pub batch: Option<Batch>,
}

impl Prediction {
    /// The outcome of the call: the one in the record or, if there is none, the [derived](Outcome::derived) one.
    pub fn outcome(&self) -> Outcome {
        self.outcome.unwrap_or_else(|| {
            Outcome::derived(self.origin, self.status, self.error.as_deref(), self.invalid_output.as_deref())
        })
    }
}

/// The writer of a label, as checked by the door, and the models that it may label.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Credential {
    /// Name of the writer in the configuration of the door.
    pub writer: String,
    /// Patterns of the models that the writer may label; `*` matches any characters.
    pub models: Vec<String>,
}

/// Feedback on a prediction: a label, a click or an amount. Its sender only needs the request id.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Feedback {
    /// Id of the prediction that the feedback is about.
    pub request_id: RequestId,
    /// Time at which the label was observed.
    pub observed_at: EventTime,
    /// Revision of the feedback. A higher revision replaces a lower one.
    pub revision: i64,
    /// Numeric labels by name. A yes/no label is 1 or 0.
    pub values: BTreeMap<String, f64>,
    /// Categorical labels by name.
    pub classes: BTreeMap<String, String>,
    /// The writer of the record.
    pub writer: Writer,
    /// The credential that the door checked; `None` if the door did not require one.
    #[serde(default)]
    pub credential: Option<Credential>,
}

impl Feedback {
    /// Whether it has no label. Doors do not write such feedback: it has the labels of a row that is not drawn.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty() && self.classes.is_empty()
    }
}

/// Number of events of one arm that a writer had to drop.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArmDrops {
    /// The model that was called.
    pub model: ModelName,
    /// The arm of the dropped events.
    pub arm: Arm,
    /// Events dropped since the start of this incarnation, over all partitions.
    pub dropped: i64,
}

/// A writer's low watermark, written to every partition of `events`: the writer will not write an older event to this partition.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Heartbeat {
    /// The writer. `seq` is the number of the last prediction or feedback that it wrote to this partition.
    pub writer: Writer,
    /// No later event of this writer in this partition has an earlier event time.
    pub low_watermark: EventTime,
    /// Events that the writer's bounded queue has dropped so far.
    pub drops: Vec<ArmDrops>,
    /// True on the last heartbeat of a writer that shuts down. From then on it does not hold the watermark back.
    pub leaving: bool,
    /// Time of the heartbeat by the writer's own clock; `None` under a replay clock. Comparing it with the log's timestamp reveals a
    /// wrong clock.
    #[serde(default)]
    pub sent_at: Option<EventTime>,
    /// True for a relay of external events. Its watermark follows the clocks of external systems, so it holds back the watermark
    /// only while no router sends heartbeats.
    #[serde(default)]
    pub relay: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A contract: doors and routers of different releases must draw the same row.
    #[test]
    fn the_drawn_row_of_a_call_never_changes() {
        let drawn = |rows| ["", "a", "0198f3c4-7b2a-7c6e-9d5f-3a1b2c4d5e6f"].map(|id| Batch::drawn(id, rows));
        assert_eq!((drawn(0), drawn(1)), ([0; 3], [0; 3]));
        assert_eq!(drawn(64), [34, 5, 44]);
    }
}
