//! The list of topics: who writes and reads what, under which key, for how long.

use std::fmt;

use serin_schemas::{
    codec::Record,
    records::{
        Capture, ClosedThrough, Command, Control, DeadLetter, Feedback, Heartbeat, Prediction, RolloutEvent,
        RouterStatus, RoutingTable, Verdict, WindowClosed,
    },
};

use crate::Cleanup;

/// The public way in for predictions.
pub const PREDICTIONS: &str = "predictions";
/// The public way in for feedback.
pub const FEEDBACK: &str = "feedback";
/// All that happens at the routers.
pub const EVENTS: &str = "events";
/// What the aggregator closed.
pub const WINDOWS: &str = "windows";
/// What the analyzer found.
pub const VERDICTS: &str = "verdicts";
/// How traffic is split.
pub const ROUTING: &str = "routing";
/// What routers applied.
pub const ROUTER_STATUS: &str = "router-status";
/// What people and systems ask for.
pub const COMMANDS: &str = "commands";
/// What became of it.
pub const AUDIT: &str = "audit";
/// Examples of what two versions answered to the same call.
pub const CAPTURES: &str = "captures";
/// What could not be used.
pub const DEAD_LETTERS: &str = "dead-letters";

/// The stages that keep state, and so have a changelog. The intake relay keeps its sequence numbers.
pub const CHANGELOG_STAGES: [&str; 4] = ["aggregator", "analyzer", "controller", "intake"];

/// The changelog topic of a stage.
pub fn changelog(stage: &str) -> String {
    format!("{stage}-changelog")
}

/// Who touches a topic; the unit of access rights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    /// The HTTP data plane.
    Router,
    /// The fold over `events`.
    Aggregator,
    /// The relay of what others write; runs inside the aggregator's process.
    Intake,
    /// The fold over `windows`.
    Analyzer,
    /// The planner, the API and the webhooks.
    Controller,
    /// Model servers, applications, foreign logs.
    Others,
    /// People and tools that look or ask: the CLI, the console, notifiers, actuators.
    Operators,
}

impl Role {
    /// Every role, in the order of the documentation.
    pub const ALL: [Self; 7] =
        [Self::Router, Self::Intake, Self::Aggregator, Self::Analyzer, Self::Controller, Self::Others, Self::Operators];

    /// Name in texts.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Router => "router",
            Self::Aggregator => "aggregator",
            Self::Intake => "intake",
            Self::Analyzer => "analyzer",
            Self::Controller => "controller",
            Self::Others => "others",
            Self::Operators => "operators",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One topic of the catalog. Changelogs are not in it: they follow from [`CHANGELOG_STAGES`].
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// Name without the prefix.
    pub name: &'static str,
    /// What the key is.
    pub key: &'static str,
    /// Names of the records in it.
    pub records: &'static [&'static str],
    /// What happens to old records.
    pub cleanup: Cleanup,
    /// Whether records can be larger than Kafka's default limit of 1 MiB.
    pub large: bool,
    /// Who writes it.
    pub writers: &'static [Role],
    /// Who reads it.
    pub readers: &'static [Role],
}

const fn days(days: i64) -> Cleanup {
    Cleanup::Delete { retention_ms: days * 24 * 60 * 60 * 1000 }
}

/// Every topic but the changelogs, along the flow of data.
pub const CATALOG: [Entry; 11] = [
    Entry {
        name: PREDICTIONS,
        key: "any",
        records: &[Prediction::NAME],
        cleanup: days(7),
        large: false,
        writers: &[Role::Others],
        readers: &[Role::Intake],
    },
    Entry {
        name: FEEDBACK,
        key: "any",
        records: &[Feedback::NAME],
        cleanup: days(7),
        large: false,
        writers: &[Role::Others],
        readers: &[Role::Intake],
    },
    Entry {
        name: EVENTS,
        key: "request id; heartbeats and control go to every partition",
        records: &[Prediction::NAME, Feedback::NAME, Heartbeat::NAME, Control::NAME],
        // Long enough to be down over a weekend and to replay a week.
        cleanup: days(7),
        large: false,
        writers: &[Role::Router, Role::Intake, Role::Controller],
        readers: &[Role::Aggregator],
    },
    Entry {
        name: WINDOWS,
        key: "model; closed_through and control go to every partition",
        records: &[WindowClosed::NAME, ClosedThrough::NAME, Control::NAME],
        // `serin replay` recomputes verdicts from here.
        cleanup: days(90),
        large: true,
        writers: &[Role::Aggregator, Role::Controller],
        readers: &[Role::Analyzer],
    },
    Entry {
        name: VERDICTS,
        key: "model",
        records: &[Verdict::NAME],
        // Why a version went live is asked a year later.
        cleanup: days(400),
        large: true,
        writers: &[Role::Analyzer],
        readers: &[Role::Controller, Role::Operators],
    },
    Entry {
        name: ROUTING,
        key: "model",
        records: &[RoutingTable::NAME],
        cleanup: Cleanup::Compact,
        large: false,
        writers: &[Role::Controller],
        readers: &[Role::Router, Role::Controller, Role::Operators],
    },
    Entry {
        name: ROUTER_STATUS,
        key: "none; the partition is that of the model",
        records: &[RouterStatus::NAME],
        cleanup: days(1),
        large: false,
        writers: &[Role::Router],
        readers: &[Role::Router, Role::Controller],
    },
    Entry {
        name: COMMANDS,
        key: "model",
        records: &[Command::NAME],
        cleanup: days(7),
        large: false,
        writers: &[Role::Controller, Role::Operators],
        readers: &[Role::Controller],
    },
    Entry {
        name: AUDIT,
        key: "model",
        records: &[RolloutEvent::NAME],
        cleanup: days(400),
        large: true,
        writers: &[Role::Controller],
        readers: &[Role::Operators],
    },
    Entry {
        name: CAPTURES,
        key: "model",
        records: &[Capture::NAME],
        // Bodies of calls can be private: they are kept for as long as somebody looks into a rollout, not longer.
        cleanup: days(2),
        large: false,
        writers: &[Role::Router],
        readers: &[Role::Controller, Role::Operators],
    },
    Entry {
        name: DEAD_LETTERS,
        key: "source: topic and partition",
        records: &[DeadLetter::NAME],
        cleanup: days(14),
        large: true,
        writers: &[Role::Intake, Role::Aggregator, Role::Analyzer, Role::Controller],
        readers: &[Role::Operators],
    },
];
