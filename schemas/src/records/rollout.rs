//! Requests to the controller (`commands`), their results (`audit`), and records that could not be used (`dead-letters`).

use serde::{Deserialize, Serialize};

use super::Phase;
use crate::ids::{EventTime, Generation, ModelName, RolloutId};

/// What a command requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Start a rollout from a spec.
    Apply,
    /// Go to the next step.
    Promote,
    /// Promote the canary fully, without further steps.
    PromoteFull,
    /// Pause the rollout at its current weight.
    Pause,
    /// Resume a paused rollout.
    Resume,
    /// End the rollout and send all traffic to stable.
    Abort,
    /// Send the traffic of every model to stable, at once.
    StopAll,
    /// Give the canary another weight, in a new step.
    SetWeight,
    /// Take the step that waits for an approval.
    Approve,
    /// Refuse the approval that a step waits for, and end the rollout.
    Reject,
    /// Take no steps of the models that match a pattern.
    Freeze,
    /// End a freeze.
    Unfreeze,
    /// Go back to the version that served before.
    Undo,
    /// Start an ended rollout again.
    Retry,
    /// Record how an ended rollout is judged afterwards.
    Mark,
}

/// A request to the controller (topic `commands`, key = model).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Command {
    /// `UUIDv7` of the command. A command with the same id is executed once.
    pub id: String,
    /// What the command requests.
    pub action: Action,
    /// The model of the rollout. For `freeze` and `unfreeze`, a [pattern](crate::pattern) of models.
    pub model: ModelName,
    /// The rollout to start (`apply`, `retry`) or to change; `None` for the model's active rollout.
    pub rollout: Option<RolloutId>,
    /// The rollout spec as JSON, for `apply` and `retry`.
    pub spec: Option<String>,
    /// Sender of the command: a user, `mlflow`, `cli`.
    pub actor: String,
    /// Reason that the sender gave.
    pub reason: String,
    /// Time of the command, by the wall clock.
    pub at: EventTime,
    /// The canary's share in 1/10000, for `set_weight`.
    #[serde(default)]
    pub weight: Option<i32>,
    /// Whether `set_weight` may go beyond the steps of the ramp.
    #[serde(default)]
    pub force: bool,
    /// End of the freeze, by the wall clock; `None` if it lasts until it is ended.
    #[serde(default)]
    pub until: Option<EventTime>,
    /// The ended rollout that `retry` starts again.
    #[serde(default)]
    pub retries: Option<RolloutId>,
    /// Index of the step with which `retry` starts after warm-up, from 0; `None` for the first.
    #[serde(default)]
    pub from_step: Option<i32>,
    /// Whether the version was good, as judged afterwards, for `mark`.
    #[serde(default)]
    pub was_good: Option<bool>,
}

impl Command {
    /// A command without a rollout, a spec, a reason or options.
    pub fn new(id: String, action: Action, model: ModelName, actor: String, at: EventTime) -> Self {
        Self {
            id,
            action,
            model,
            rollout: None,
            spec: None,
            actor,
            reason: String::new(),
            at,
            weight: None,
            force: false,
            until: None,
            retries: None,
            from_step: None,
            was_good: None,
        }
    }
}

/// Kind of an event of a rollout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EventKind {
    /// A rollout was accepted.
    Started,
    /// A command was refused.
    Refused,
    /// The phase or the step changed.
    Advanced,
    /// The rollout was held.
    Held,
    /// The rollout continues.
    Resumed,
    /// An operator paused the rollout.
    Paused,
    /// The canary was promoted.
    Promoted,
    /// The rollout succeeded.
    Completed,
    /// The rollout was rolled back to stable.
    RolledBack,
    /// An operator ended the rollout.
    Aborted,
    /// A newer rollout ended this one.
    Superseded,
    /// A warning that did not change the rollout.
    Warned,
    /// Every router has applied a rollback.
    Confirmed,
    /// No steps are taken of the models that match a pattern.
    Frozen,
    /// Steps are taken again.
    Unfrozen,
    /// A person recorded how the version is judged afterwards.
    Marked,
}

impl EventKind {
    /// All kinds, in the order of the schema.
    pub const ALL: [Self; 16] = [
        Self::Started,
        Self::Refused,
        Self::Advanced,
        Self::Held,
        Self::Resumed,
        Self::Paused,
        Self::Promoted,
        Self::Completed,
        Self::RolledBack,
        Self::Aborted,
        Self::Superseded,
        Self::Warned,
        Self::Confirmed,
        Self::Frozen,
        Self::Unfrozen,
        Self::Marked,
    ];

    /// Name of the kind on the wire and in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Started => "started",
            Self::Refused => "refused",
            Self::Advanced => "advanced",
            Self::Held => "held",
            Self::Resumed => "resumed",
            Self::Paused => "paused",
            Self::Promoted => "promoted",
            Self::Completed => "completed",
            Self::RolledBack => "rolled_back",
            Self::Aborted => "aborted",
            Self::Superseded => "superseded",
            Self::Warned => "warned",
            Self::Confirmed => "confirmed",
            Self::Frozen => "frozen",
            Self::Unfrozen => "unfrozen",
            Self::Marked => "marked",
        }
    }
}

/// An event of a rollout (topic `audit`, key = model).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RolloutEvent {
    /// `UUIDv7`, or a hash of the cause, so that the same cause has the same id.
    pub id: String,
    /// The model of the rollout. For a freeze, the [pattern](crate::pattern) of models.
    pub model: ModelName,
    /// The rollout; `None` for a refused command without one, and for a freeze.
    pub rollout: Option<RolloutId>,
    /// Kind of the event.
    pub kind: EventKind,
    /// Phase after the event.
    pub phase: Phase,
    /// Step after the event; -1 before the first step.
    pub step: i32,
    /// Share of the canary after the event, in 1/10000.
    pub canary_share: i32,
    /// Generation after the event.
    pub generation: Generation,
    /// Event time of the event.
    pub at: EventTime,
    /// Wall clock time of the event.
    pub recorded_at: EventTime,
    /// Cause of the event: `analyzer`, or the name of a user.
    pub actor: String,
    /// One plain sentence with the evidence.
    pub sentence: String,
    /// Id of the verdict or command that caused the event.
    pub cause: Option<String>,
    /// The whole state of the rollout after the event, as JSON (`serin_rollout::RolloutState`). For the start of a freeze, the freeze as
    /// JSON (`serin_rollout::planner::Freeze`).
    pub state: Option<String>,
    /// Whether the version was good, as judged afterwards, for `marked`.
    #[serde(default)]
    pub was_good: Option<bool>,
}

/// A record that could not be used (topic `dead-letters`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadLetter {
    /// The stage that could not use the record.
    pub stage: String,
    /// Topic of the original record.
    pub topic: String,
    /// Partition of the original record.
    pub partition: i32,
    /// Offset of the original record.
    pub offset: i64,
    /// Stable code: `garbage`, `unknown_schema_version`, `far_future`, `negative_latency`, `too_large` ...
    pub code: String,
    /// What is wrong with the record, for display.
    pub message: String,
    /// The original key.
    #[serde(with = "crate::codec::avro_bytes")]
    pub key: Vec<u8>,
    /// The original value, truncated at 1 MiB.
    #[serde(with = "crate::codec::avro_bytes")]
    pub value: Vec<u8>,
}
