//! What people and systems ask for (`commands`), what became of it (`audit`), and what could not be read (`dead-letters`).

use serde::{Deserialize, Serialize};

use super::Phase;
use crate::ids::{EventTime, Generation, ModelName, RolloutId};

/// What somebody wants done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Start a rollout from a spec.
    Apply,
    /// Go to the next step, or with `full` to the end.
    Promote,
    /// Promote fully, at once.
    PromoteFull,
    /// Stop the clock at the present weight.
    Pause,
    /// Let the clock run again.
    Resume,
    /// End it: all traffic to stable.
    Abort,
    /// Every model to stable, now.
    StopAll,
}

/// A request to the controller (topic `commands`, key = model).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Command {
    /// `UUIDv7`; the same id is done once.
    pub id: String,
    /// What to do.
    pub action: Action,
    /// The model it is about.
    pub model: ModelName,
    /// The rollout to start (`apply`) or the one meant; `None`: the model's active one.
    pub rollout: Option<RolloutId>,
    /// The rollout spec as JSON, for `apply`.
    pub spec: Option<String>,
    /// Who asks: a user, `mlflow`, `cli`.
    pub actor: String,
    /// Why, in their words.
    pub reason: String,
    /// When it was asked, wall clock.
    pub at: EventTime,
}

/// What kind of thing happened to a rollout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EventKind {
    /// A rollout was accepted.
    Started,
    /// A command could not be done.
    Refused,
    /// The phase or the step changed.
    Advanced,
    /// It waits.
    Held,
    /// It goes on.
    Resumed,
    /// A person paused it.
    Paused,
    /// The canary serves everything.
    Promoted,
    /// Ended well.
    Completed,
    /// Back to stable.
    RolledBack,
    /// Ended by a person.
    Aborted,
    /// Ended by a newer rollout.
    Superseded,
    /// Something to look at that changed nothing.
    Warned,
}

impl EventKind {
    /// All of them, in the order of the schema.
    pub const ALL: [Self; 12] = [
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
    ];

    /// The name used on the wire and in metrics.
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
        }
    }
}

/// Something that happened to a rollout (topic `audit`, key = model).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RolloutEvent {
    /// `UUIDv7` or a hash of the cause: the same cause has the same id.
    pub id: String,
    /// The model.
    pub model: ModelName,
    /// The rollout; `None` for a refused command without one.
    pub rollout: Option<RolloutId>,
    /// What happened.
    pub kind: EventKind,
    /// Phase after it.
    pub phase: Phase,
    /// Step after it; -1 before the first.
    pub step: i32,
    /// Share of the canary after it, in 1/10000.
    pub canary_share: i32,
    /// Generation after it.
    pub generation: Generation,
    /// Event time of it.
    pub at: EventTime,
    /// Wall clock of it.
    pub recorded_at: EventTime,
    /// Who or what caused it: `analyzer`, a user's name.
    pub actor: String,
    /// One plain sentence with the evidence.
    pub sentence: String,
    /// Id of the verdict or command behind it.
    pub cause: Option<String>,
    /// The rollout's whole state after it, as JSON (`serin_rollout::RolloutState`).
    pub state: Option<String>,
}

/// A record that could not be used (topic `dead-letters`): nothing is lost, nothing crashes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadLetter {
    /// The stage that could not use it.
    pub stage: String,
    /// Where it came from.
    pub topic: String,
    /// Partition it came from.
    pub partition: i32,
    /// Offset it has there.
    pub offset: i64,
    /// Stable code: `garbage`, `unknown_schema_version`, `far_future`, `negative_latency`, `too_large` ...
    pub code: String,
    /// What is wrong, for people.
    pub message: String,
    /// The original key.
    #[serde(with = "crate::codec::avro_bytes")]
    pub key: Vec<u8>,
    /// The original value, cut at 1 MiB.
    #[serde(with = "crate::codec::avro_bytes")]
    pub value: Vec<u8>,
}
