//! Every record that Serin writes to a topic, as Rust types.
//!
//! Names and order of the fields are the wire contract and equal those in the Avro schemas in `schemas/avro/`. A new field gets a
//! default there and here. The name of a removed field stays reserved.

mod capture;
mod control;
mod delivery;
mod event;
#[cfg(feature = "next-schema")]
mod next;
mod rollout;
mod verdict;
mod window;

pub use capture::{Capture, CapturedAnswer};
pub use control::{
    Configured, Control, Phase, RULES, Route, RouterStatus, RoutingTable, SeenOutputs, Shed, TableApplied,
    TableRefused, Undecided,
};
pub use delivery::{Delivery, DeliveryOutcome, DeliveryResult};
pub use event::{ArmDrops, Assignment, Batch, Credential, Feedback, Heartbeat, Origin, Outcome, Prediction, Writer};
pub use rollout::{Action, Command, DeadLetter, EventKind, RolloutEvent};
pub use verdict::{
    ArmSummary, Correction, Decision, Estimate, GroupVerdict, Harm, HealthIssue, MetricResult, MetricVerdict,
    NoDataReason, Reason, Role, Seen, Verdict,
};
pub use window::{ArmCounts, Cell, ClockOffset, ClosedThrough, Population, UnitCounts, WindowClosed};

use std::sync::LazyLock;

use serde::{Deserialize, Serialize};

use crate::codec::{Codec, Record};

/// Defines the name of every record and its schema files for all versions that can be read. The last version is written.
macro_rules! records {
    ($($(#[$condition:meta])* $record:ident = $name:literal { $($version:literal),+ })+) => {
        $($(#[$condition])* impl Record for $record {
            const NAME: &'static str = $name;
            const VERSION: u32 = last(&[$($version),+]);

            fn codec() -> &'static Codec {
                static CODEC: LazyLock<Codec> = LazyLock::new(|| {
                    Codec::new($name, &[$((
                        $version,
                        include_str!(concat!("../../avro/", $name, ".v", $version, ".avsc")),
                    )),+])
                });
                &CODEC
            }
        })+

        /// Calls `visitor` with every record type, for tables, tools and tests.
        pub fn visit_all(visitor: &mut impl RecordVisitor) {
            $($(#[$condition])* visitor.visit::<$record>();)+
        }
    };
}

const fn last(versions: &[u32]) -> u32 {
    versions[versions.len() - 1]
}

/// An operation on every record type, for [`visit_all`].
pub trait RecordVisitor {
    /// Called once for each record.
    fn visit<R: Record + std::fmt::Debug + PartialEq>(&mut self);
}

records! {
    Prediction = "prediction" { 1, 2, 3 }
    Feedback = "feedback" { 1, 2 }
    Heartbeat = "heartbeat" { 1, 2 }
    Control = "control" { 1, 2 }
    #[cfg(not(feature = "next-schema"))]
    WindowClosed = "window_closed" { 1, 2, 3, 4, 5 }
    ClosedThrough = "closed_through" { 1, 2 }
    Verdict = "verdict" { 1, 2, 3, 4, 5 }
    RoutingTable = "routing_table" { 1, 2 }
    RouterStatus = "router_status" { 1, 2, 3, 4 }
    Command = "command" { 1, 2, 3 }
    RolloutEvent = "rollout_event" { 1, 2, 3 }
    DeadLetter = "dead_letter" { 1 }
    Capture = "capture" { 1 }
    Delivery = "delivery" { 1 }
    DeliveryResult = "delivery_result" { 1 }
}

/// Role of a version in a rollout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Arm {
    /// The rest of stable's traffic. Its answers are counted but not summarized.
    Stable,
    /// Stable's answers that are sampled in the same way as the canary's, and that the canary is compared with.
    Control,
    /// The version under test.
    Canary,
    /// A version that answers mirrored calls. Callers do not see its answers.
    Shadow,
}

impl Arm {
    /// Name of the arm on the wire, in metrics and in messages.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stable => "stable",
            Self::Control => "control",
            Self::Canary => "canary",
            Self::Shadow => "shadow",
        }
    }
}

/// One value of a segment dimension, or all traffic.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Segment {
    /// Name of the dimension, such as `origin`; empty for the segment of all traffic.
    pub dimension: String,
    /// Value of the dimension, such as `LGA`, or `other`; empty for the segment of all traffic.
    pub value: String,
}

impl Segment {
    /// The segment of all traffic.
    pub fn all() -> Self {
        Self::default()
    }

    /// The segment of one value of a dimension.
    pub fn of(dimension: impl Into<String>, value: impl Into<String>) -> Self {
        Self { dimension: dimension.into(), value: value.into() }
    }

    /// In `WindowClosed::population`: the answers without a unit although arms are assigned by unit. No dimension has an empty name.
    pub fn no_unit() -> Self {
        Self::of("", "no_unit")
    }

    /// In `WindowClosed::population`: the answers that got the label of a metric which counts a missing label as 0.
    pub fn with_label(metric: &str) -> Self {
        Self::of("", format!("label of {metric}"))
    }

    /// Whether this is the segment of all traffic.
    pub fn is_all(&self) -> bool {
        self.dimension.is_empty()
    }
}

impl std::fmt::Display for Segment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.is_all() { f.write_str("all") } else { write!(f, "{}={}", self.dimension, self.value) }
    }
}
