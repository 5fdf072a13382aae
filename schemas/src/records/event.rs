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
    /// Something that decides was there and could not be read: stable answered.
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
    /// Serin's router: this event counts the call.
    Router,
    /// A model server or foreign log, through intake: adds outputs to a routed call, or counts a call that no
    /// Serin router saw.
    Intake,
}

/// What became of a call. Every call has exactly one outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The answer was understood as good.
    Ok,
    /// Status 4xx: the version refused the request.
    Refused,
    /// Status 3xx.
    Redirected,
    /// Status 5xx, no answer, an answer that broke off, or an error inside an answer whose status is good.
    Failed,
    /// Status 2xx with an answer that cannot be used: NaN, null, empty, out of range, not of its schema.
    Unusable,
    /// Status 2xx with an answer that was not looked into: too large, or in an encoding that is not known.
    Unread,
    /// The caller left before the answer was complete.
    Cancelled,
}

impl Outcome {
    /// All of them, in the order of the schema.
    pub const ALL: [Self; 7] =
        [Self::Ok, Self::Refused, Self::Redirected, Self::Failed, Self::Unusable, Self::Unread, Self::Cancelled];

    /// The name used on the wire, in metrics and in texts.
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

    /// The outcome of an event that does not state one: an event of version 1, or one that a foreign writer sent.
    ///
    /// A status of 400 to 499 says more than the error beside it. 499 is what proxies write when the caller has closed the
    /// connection. A router always has a status unless the call failed; a foreign writer may leave it out.
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
    /// The cause of [`Outcome::Failed`] and [`Outcome::Cancelled`]: `connect`, `timeout`, `truncated`, `status_503` ...; else
    /// `None`.
    pub error: Option<String>,
    /// The cause of [`Outcome::Unusable`] (`nan`, `null`, `empty`, `out_of_range`, `unparsable` ...); else `None`.
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
    /// What became of the call; `None`: derived from status, error and `invalid_output`, see [`Self::outcome`].
    #[serde(default)]
    pub outcome: Option<Outcome>,
    /// The cause of [`Outcome::Unread`] (`too_large`, `encoding`, `content_type` ...); else `None`.
    #[serde(default)]
    pub unread: Option<String>,
}

impl Prediction {
    /// What became of the call: as stated, else [derived](Outcome::derived).
    pub fn outcome(&self) -> Outcome {
        self.outcome.unwrap_or_else(|| {
            Outcome::derived(self.origin, self.status, self.error.as_deref(), self.invalid_output.as_deref())
        })
    }
}

/// Who put a label on the log, as the door checked it, and which models that writer may judge.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Credential {
    /// Name of the writer in the configuration of the door.
    pub writer: String,
    /// Patterns of the models that it may judge; `*` stands for any characters.
    pub models: Vec<String>,
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
    /// The door's stamp; `None`: the door asked for no credential.
    #[serde(default)]
    pub credential: Option<Credential>,
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
    /// What the writer's own clock showed when it sent this; `None` under a replay clock. Compared with the log's timestamp, it
    /// shows a clock that is off.
    #[serde(default)]
    pub sent_at: Option<EventTime>,
    /// True for a relay of what others write: its watermark follows their clocks, so it holds event time only while no router is
    /// heard.
    #[serde(default)]
    pub relay: bool,
}
