//! Records from the controller to the folds (`Control`) and to the routers (`RoutingTable`), and the routers' reports.

use serde::{Deserialize, Serialize};

use super::Arm;
use crate::ids::{EventTime, Generation, ModelName, RolloutId, Version};

/// Phase of a rollout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// The rollout waits for another rollout of the same model to end.
    Pending,
    /// Warm-up learns base rates and segments from stable traffic. The canary gets no calls.
    Warming,
    /// Traffic is mirrored to the canary.
    Shadowing,
    /// A step of the ramp is baking.
    Baking,
    /// The rollout waits at its weight for an operator or for data.
    Held,
    /// An operator paused the rollout.
    Paused,
    /// The canary is promoted, and the monitor compares it with the holdback.
    Promoted,
    /// The rollout has succeeded: the canary is the new stable.
    Completed,
    /// The rollout has been rolled back: all traffic is on stable.
    RolledBack,
    /// An operator ended the rollout.
    Aborted,
    /// A newer rollout of the same model ended this one.
    Superseded,
}

impl Phase {
    /// Name of the phase on the wire and in metrics.
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

/// Version of the rules under which this build starts rollouts. Rules define the meaning of counts and verdicts, and when a step is taken.
///
/// 1: the rules from before outcomes had names. 2: outcomes, see [`Outcome`](super::Outcome).
pub const RULES: i32 = 2;

/// Rules version of records that were written before rules had versions.
pub(super) fn first_rules() -> i32 {
    1
}

/// The state of one rollout, written to every partition of `events` and `windows` in the transaction that changes it.
///
/// Every event of a generation follows its `Control` in the partition, so a fold never needs a side table.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Control {
    /// The model of the rollout.
    pub model: ModelName,
    /// Id of the rollout.
    pub rollout: RolloutId,
    /// The generation that starts with this record.
    pub generation: Generation,
    /// Phase of the rollout from this record on.
    pub phase: Phase,
    /// Index of the current step, from 0; -1 before the first step.
    pub step: i32,
    /// The stable version.
    pub stable: Version,
    /// The canary version.
    pub canary: Version,
    /// Share of the canary, in 1/10000.
    pub canary_share: i32,
    /// Share of the control arm, in 1/10000.
    pub control_share: i32,
    /// Time of the controller's decision, in event time.
    pub decided_at: EventTime,
    /// The rollout spec, normalized, as JSON (`serin_spec::RolloutSpec`).
    pub spec: String,
    /// What warm-up froze, as JSON (`serin_spec::Frozen`); `None` while warming.
    pub frozen: Option<String>,
    /// Version of the rules under which the rollout started, see [`RULES`].
    #[serde(default = "first_rules")]
    pub rules: i32,
    /// `as_of` of the verdict that the operator had seen when they resumed the rollout. The reasons for which that verdict holds no
    /// longer hold it. `None` if no operator has resumed it.
    #[serde(default)]
    pub acknowledged: Option<EventTime>,
}

/// One entry of a routing table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// The version to call.
    pub version: Version,
    /// The arm of the version.
    pub arm: Arm,
    /// Share in 1/10000. The shares of stable, control and canary add up to 10000. The share of a shadow is its mirror share.
    pub share: i32,
    /// Base URL of the version's servers; `None` if the URL in the router's configuration is used.
    pub url: Option<String>,
}

/// How the traffic of one model is split (topic `routing`, compacted, key = model).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RoutingTable {
    /// The model whose calls the table splits.
    pub model: ModelName,
    /// Number of the table. Routers ignore older tables.
    pub generation: Generation,
    /// Number of the lease's renewal. It only grows within a generation.
    pub lease_seq: i64,
    /// Lease of the table in milliseconds. 0 means that the table does not expire, because it has no canary.
    pub lease_ms: i64,
    /// The rollout that the table belongs to, if any.
    pub rollout: Option<RolloutId>,
    /// Salt of the split. Each rollout has its own salt.
    pub salt: String,
    /// Sticky key as JSON (`serin_spec::StickyKey`); `None` if each request is assigned at random.
    pub sticky: Option<String>,
    /// Stable, control, canary and shadows. Stable is always there.
    pub routes: Vec<Route>,
    /// Names of the segment dimensions and where routers find them, as JSON (`Vec<serin_spec::SegmentSpec>`).
    pub segments: String,
    /// Output rules, as JSON (`Vec<serin_spec::OutputRule>`).
    pub outputs: String,
    /// Whether stable may answer a canary call that fails before the first byte.
    pub fallback: bool,
    /// Targets, mirrors, features, examples and the drain time, as JSON (`serin_spec::TrafficPolicy`). It can be empty.
    #[serde(default)]
    pub policy: String,
    /// Why the table was written, for display.
    pub reason: String,
    /// Time of the controller's decision, in event time.
    pub decided_at: EventTime,
}

/// A routing table that a router uses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableApplied {
    /// The model whose table is used.
    pub model: ModelName,
    /// Generation of the table.
    pub generation: Generation,
    /// Number of the lease's renewal.
    pub lease_seq: i64,
    /// Microseconds from the record's arrival on the log until the router used it, measured by the router.
    pub apply_us: i64,
}

/// A version that a router temporarily does not call, because its servers failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shed {
    /// The model of the version.
    pub model: ModelName,
    /// The version that is not called.
    pub version: Version,
    /// Time at which the router stopped calling the version.
    pub since: EventTime,
    /// Why the router stopped, for display.
    pub cause: String,
}

/// Calls of a model that a router could not assign as its rollout specifies.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Undecided {
    /// The model that was called.
    pub model: ModelName,
    /// The value that the assignment needed: `sticky`, `target` or `segment`.
    pub needed: String,
    /// Why the value could not be read, such as `too_large`. These calls went to stable and are not compared. `absent` means that the
    /// request has no sticky key and was assigned at random.
    pub reason: String,
    /// Number of such calls.
    pub calls: i64,
    /// Number of all calls of the model since its rollout started at this router.
    pub of: i64,
}

/// A routing table that a router cannot use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableRefused {
    /// The model whose table cannot be used.
    pub model: ModelName,
    /// Generation of the table; 0 if it is unknown because the record could not be read.
    pub generation: Generation,
    /// Why the router cannot use the table, for display.
    pub reason: String,
}

/// A version in a router's own configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Configured {
    /// The model of the version.
    pub model: ModelName,
    /// The version in the configuration.
    pub version: Version,
    /// Whether the version serves the model while there is no routing table.
    pub stable: bool,
    /// Base URLs of the version's servers, separated by commas.
    pub url: String,
    /// Base URL for gRPC; `None` if it is `url`.
    #[serde(default)]
    pub grpc_url: Option<String>,
    /// The servers' own name for the version; `None` if they do not expect one.
    #[serde(default)]
    pub path_version: Option<String>,
}

/// A router's status report (topic `router-status`).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RouterStatus {
    /// Name of the router.
    pub router: String,
    /// Incarnation of the router.
    pub incarnation: i64,
    /// Time of the report by the router's clock.
    pub at: EventTime,
    /// All tables in use for the models of this partition.
    pub applied: Vec<TableApplied>,
    /// Versions that currently get no calls.
    #[serde(default)]
    pub shed: Vec<Shed>,
    /// Calls that could not be assigned as their rollout specifies.
    #[serde(default)]
    pub undecided: Vec<Undecided>,
    /// The newest tables of this partition's models that the router cannot use. It continues with the previous tables.
    #[serde(default)]
    pub refused: Vec<TableRefused>,
    /// Versions of this partition's models in the router's own configuration; `None` if an older router does not report them.
    #[serde(default)]
    pub configured: Option<Vec<Configured>>,
    /// True on a clean shutdown.
    pub leaving: bool,
    /// Names of outputs in answers in which an output rule found nothing.
    #[serde(default)]
    pub seen_outputs: Vec<SeenOutputs>,
    /// Names of the labels in feedback that arrived over HTTP; at most 32.
    #[serde(default)]
    pub seen_labels: Vec<String>,
}

/// Names of outputs in answers of a model in which an output rule found nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeenOutputs {
    /// The model that answered.
    pub model: ModelName,
    /// Names of tensors, or JSON pointers; at most 32.
    pub names: Vec<String>,
}
