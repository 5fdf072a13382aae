//! What the controller tells the folds (`Control`) and the routers (`RoutingTable`), and what routers answer.

use serde::{Deserialize, Serialize};

use super::Arm;
use crate::ids::{EventTime, Generation, ModelName, RolloutId, Version};

/// Where a rollout stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Waits for another rollout of the same model to end.
    Pending,
    /// Learns base rates and segments from stable traffic; the canary gets nothing.
    Warming,
    /// Mirrors traffic to the canary.
    Shadowing,
    /// Bakes one step of the ramp.
    Baking,
    /// Waits at its weight for a person or for data.
    Held,
    /// A person stopped the clock.
    Paused,
    /// The canary serves everything; the monitor still compares it with the holdback.
    Promoted,
    /// Ended well: the canary is the new stable.
    Completed,
    /// Ended: all traffic is back on stable.
    RolledBack,
    /// Ended by a person.
    Aborted,
    /// Ended by a newer rollout of the same model.
    Superseded,
}

impl Phase {
    /// The name used on the wire and in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Warming => "warming",
            Self::Shadowing => "shadowing",
            Self::Baking => "baking",
            Self::Held => "held",
            Self::Paused => "paused",
            Self::Promoted => "promoted",
            Self::Completed => "completed",
            Self::RolledBack => "rolled_back",
            Self::Aborted => "aborted",
            Self::Superseded => "superseded",
        }
    }

    /// Whether the rollout is over.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Completed | Self::RolledBack | Self::Aborted | Self::Superseded)
    }
}

/// Number of the rules under which this build begins rollouts: what counts and verdicts mean, and when a step is taken.
///
/// 1: the rules before outcomes had names. 2: outcomes, see [`Outcome`](super::Outcome).
pub const RULES: i32 = 2;

/// Number of the rules of records that were written before rules had numbers.
pub(super) fn first_rules() -> i32 {
    1
}

/// The state of one rollout, written to every partition of `events` and `windows` in the transaction that changes it.
///
/// Every event of a generation follows its `Control` in the partition, so a fold never reads a side table.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Control {
    /// The model.
    pub model: ModelName,
    /// The rollout.
    pub rollout: RolloutId,
    /// The generation that begins with this record.
    pub generation: Generation,
    /// Phase from here on.
    pub phase: Phase,
    /// Index of the step being baked, from 0; -1 before the first.
    pub step: i32,
    /// The version that serves when nothing else does.
    pub stable: Version,
    /// The version on trial.
    pub canary: Version,
    /// Share of the canary, in 1/10000.
    pub canary_share: i32,
    /// Share of the control arm, in 1/10000.
    pub control_share: i32,
    /// When the controller decided, in event time.
    pub decided_at: EventTime,
    /// The rollout spec, normalised, as JSON (`serin_spec::RolloutSpec`).
    pub spec: String,
    /// What warm-up froze, as JSON (`serin_spec::Frozen`); `None` while warming.
    pub frozen: Option<String>,
    /// Number of the rules under which the rollout began, see [`RULES`].
    #[serde(default = "first_rules")]
    pub rules: i32,
    /// A person who resumed had seen the verdict as of this time: what it holds for, holds no more. `None`: nobody has.
    #[serde(default)]
    pub acknowledged: Option<EventTime>,
}

/// One entry of a routing table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// The version to call.
    pub version: Version,
    /// The part it plays.
    pub arm: Arm,
    /// Share in 1/10000. The shares of stable, control and canary add up to 10000; a shadow's is its mirror share.
    pub share: i32,
    /// Base URL of the version's servers; `None`: the router's configuration knows it.
    pub url: Option<String>,
}

/// How the traffic of one model is split (topic `routing`, compacted, key = model).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RoutingTable {
    /// The model.
    pub model: ModelName,
    /// Number of this table; a router ignores anything older.
    pub generation: Generation,
    /// Renewal of the lease of the same generation; only grows within it.
    pub lease_seq: i64,
    /// How long the table holds without renewal, in milliseconds; 0 = for ever (no canary in it).
    pub lease_ms: i64,
    /// The rollout it belongs to, if any.
    pub rollout: Option<RolloutId>,
    /// Salt of the split; another one for each rollout.
    pub salt: String,
    /// Sticky key as JSON (`serin_spec::StickyKey`); `None`: by chance per request.
    pub sticky: Option<String>,
    /// Stable, control, canary and shadows. Stable is always there.
    pub routes: Vec<Route>,
    /// Names of the segment dimensions and where routers find them, as JSON (`Vec<serin_spec::SegmentSpec>`).
    pub segments: String,
    /// Output rules, as JSON (`Vec<serin_spec::OutputRule>`).
    pub outputs: String,
    /// Whether a failed canary call may be answered by stable before the first byte.
    pub fallback: bool,
    /// Targets, mirrors, features, examples and the time to drain, as JSON (`serin_spec::TrafficPolicy`); empty: none.
    #[serde(default)]
    pub policy: String,
    /// Why it was written, for people.
    pub reason: String,
    /// When it was decided, in event time.
    pub decided_at: EventTime,
}

/// A routing table that a router uses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableApplied {
    /// The model.
    pub model: ModelName,
    /// Its generation.
    pub generation: Generation,
    /// Its lease renewal.
    pub lease_seq: i64,
    /// Microseconds between the record's arrival on the log and its use, as the router saw it.
    pub apply_us: i64,
}

/// A version whose servers a router does not call for a while, because they failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shed {
    /// The model.
    pub model: ModelName,
    /// The version.
    pub version: Version,
    /// When the router stopped calling it.
    pub since: EventTime,
    /// Why, for people.
    pub cause: String,
}

/// Calls of a model that a router could not decide as its rollout asks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Undecided {
    /// The model.
    pub model: ModelName,
    /// What the decision needed: `sticky`, `target` or `segment`.
    pub needed: String,
    /// Why it could not be read, such as `too_large`: these calls went to stable and enter no comparison. `absent`: the request has no
    /// sticky key, and was split by chance.
    pub reason: String,
    /// How many calls.
    pub calls: i64,
    /// Of how many calls of the model since its rollout began at this router.
    pub of: i64,
}

/// A routing table that a router cannot use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableRefused {
    /// The model.
    pub model: ModelName,
    /// Its generation; 0: the record could not be read, so it is not known.
    pub generation: Generation,
    /// Why, for people.
    pub reason: String,
}

/// What a router's own configuration says of a version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Configured {
    /// The model.
    pub model: ModelName,
    /// The version.
    pub version: Version,
    /// Whether it serves the model while there is no routing table.
    pub stable: bool,
    /// Base URLs of its servers, with commas between them.
    pub url: String,
    /// Base URL for gRPC; `None`: `url`.
    #[serde(default)]
    pub grpc_url: Option<String>,
    /// The servers' own name for the version; `None`: they want none.
    #[serde(default)]
    pub path_version: Option<String>,
}

/// A router's report of what it applied (topic `router-status`).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RouterStatus {
    /// Name of the router.
    pub router: String,
    /// Its incarnation.
    pub incarnation: i64,
    /// The router's clock.
    pub at: EventTime,
    /// All tables in use of the models of this partition.
    pub applied: Vec<TableApplied>,
    /// Versions that get no calls now.
    #[serde(default)]
    pub shed: Vec<Shed>,
    /// Calls that were not decided as their rollout asks.
    #[serde(default)]
    pub undecided: Vec<Undecided>,
    /// Newest tables that it cannot use, of the models of this partition. It goes on with the tables before them.
    #[serde(default)]
    pub refused: Vec<TableRefused>,
    /// What its own configuration says of the models of this partition; `None`: an older router did not say.
    #[serde(default)]
    pub configured: Option<Vec<Configured>>,
    /// True on a clean shutdown.
    pub leaving: bool,
    /// What answers carry where an output rule found nothing.
    #[serde(default)]
    pub seen_outputs: Vec<SeenOutputs>,
    /// Names of the labels in feedback that came over HTTP; 32 at most.
    #[serde(default)]
    pub seen_labels: Vec<String>,
}

/// Names of outputs in answers of a model in which an output rule found nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeenOutputs {
    /// The model.
    pub model: ModelName,
    /// Names of tensors, or JSON pointers; 32 at most.
    pub names: Vec<String>,
}
