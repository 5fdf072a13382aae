//! The list of topics: what each topic contains, which roles write and read it, its key and its retention.

use std::fmt;

use serin_schemas::{
    codec::Record,
    records::{
        Capture, ClosedThrough, Command, Control, DeadLetter, Delivery, DeliveryResult, Feedback, Heartbeat,
        Prediction, RolloutEvent, RouterStatus, RoutingTable, Verdict, WindowClosed,
    },
};

use crate::Cleanup;

/// Where others write predictions. Intake relays them into `events`.
pub const PREDICTIONS: &str = "predictions";
/// Where others write feedback. Intake relays it into `events`.
pub const FEEDBACK: &str = "feedback";
/// Predictions, feedback, heartbeats and control records: the aggregator's input.
pub const EVENTS: &str = "events";
/// Windows that the aggregator has closed.
pub const WINDOWS: &str = "windows";
/// Verdicts of the analyzer.
pub const VERDICTS: &str = "verdicts";
/// Routing tables, which define how traffic is split.
pub const ROUTING: &str = "routing";
/// The tables that routers have applied.
pub const ROUTER_STATUS: &str = "router-status";
/// Commands from people and systems.
pub const COMMANDS: &str = "commands";
/// What happened in each rollout.
pub const AUDIT: &str = "audit";
/// Examples of the answers of two versions to the same call.
pub const CAPTURES: &str = "captures";
/// What the connector tells its destinations, and what became of it.
pub const DELIVERIES: &str = "deliveries";
/// Records that could not be processed.
pub const DEAD_LETTERS: &str = "dead-letters";

/// The stages that keep state and therefore have a changelog. The intake relay keeps its sequence numbers.
pub const CHANGELOG_STAGES: [&str; 5] = ["aggregator", "analyzer", "connector", "controller", "intake"];

/// The changelog topic of a stage.
pub fn changelog(stage: &str) -> String {
    format!("{stage}-changelog")
}

/// A reader or writer of topics. Access rights are granted per role.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    /// The HTTP data plane.
    Router,
    /// The fold over `events`.
    Aggregator,
    /// The relay of records that others write. It runs inside the aggregator's process.
    Intake,
    /// The fold over `windows`.
    Analyzer,
    /// The planner, the API and the webhooks.
    Controller,
    /// The outbox: it tells destinations about events of rollouts.
    Connector,
    /// Model servers, applications and other external producers.
    Others,
    /// People and tools that watch or send commands: the CLI, the console, actuators.
    Operators,
}

impl Role {
    /// Every role, in the order of the documentation.
    pub const ALL: [Self; 8] = [
        Self::Router,
        Self::Intake,
        Self::Aggregator,
        Self::Analyzer,
        Self::Controller,
        Self::Connector,
        Self::Others,
        Self::Operators,
    ];

    /// The role's name as it is printed.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Router => "router",
            Self::Aggregator => "aggregator",
            Self::Intake => "intake",
            Self::Analyzer => "analyzer",
            Self::Controller => "controller",
            Self::Connector => "connector",
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

/// One topic of the catalog. Changelogs are not part of the catalog; they are derived from [`CHANGELOG_STAGES`].
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// Name without the prefix.
    pub name: &'static str,
    /// What the records are keyed by.
    pub key: &'static str,
    /// Names of the records in it.
    pub records: &'static [&'static str],
    /// How old records are removed.
    pub cleanup: Cleanup,
    /// Whether records can be larger than Kafka's default limit of 1 MiB.
    pub large: bool,
    /// The roles that write the topic.
    pub writers: &'static [Role],
    /// The roles that read the topic.
    pub readers: &'static [Role],
}

const fn days(days: i64) -> Cleanup {
    Cleanup::Delete { retention_ms: days * 24 * 60 * 60 * 1000 }
}

/// Every topic except the changelogs, in the order of the data flow.
pub const CATALOG: [Entry; 12] = [
    Entry {
        name: PREDICTIONS,
        key: "any",
        // Routers and the intake write halves of calls of payload loggers. They are JSON.
        records: &[Prediction::NAME, "half"],
        cleanup: days(7),
        large: false,
        writers: &[Role::Router, Role::Intake, Role::Others],
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
        // Long enough for a weekend outage and for replaying a week.
        cleanup: days(7),
        large: false,
        writers: &[Role::Router, Role::Intake, Role::Controller],
        // The controller's API searches contrasts in it.
        readers: &[Role::Aggregator, Role::Controller],
    },
    Entry {
        name: WINDOWS,
        key: "model; closed_through and control go to every partition",
        records: &[WindowClosed::NAME, ClosedThrough::NAME, Control::NAME],
        // `serin replay` recomputes verdicts from here.
        cleanup: days(90),
        large: true,
        writers: &[Role::Aggregator, Role::Controller],
        // The controller's API computes profiles from it.
        readers: &[Role::Analyzer, Role::Controller],
    },
    Entry {
        name: VERDICTS,
        key: "model",
        records: &[Verdict::NAME],
        // Auditors ask a year later why a version went live.
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
        readers: &[Role::Connector, Role::Operators],
    },
    Entry {
        name: DELIVERIES,
        key: "model",
        records: &[Delivery::NAME, DeliveryResult::NAME],
        // Long enough to see after a weekend what was sent. The connector's own state is in its changelog.
        cleanup: days(7),
        large: false,
        writers: &[Role::Connector],
        readers: &[Role::Operators],
    },
    Entry {
        name: CAPTURES,
        key: "model",
        records: &[Capture::NAME],
        // Request and response bodies can be private, so they are kept only for as long as someone may investigate a
        // rollout.
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
        writers: &[Role::Intake, Role::Aggregator, Role::Analyzer, Role::Controller, Role::Connector],
        readers: &[Role::Operators],
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_role_reads_what_the_connector_writes() {
        let written: Vec<_> = CATALOG.iter().filter(|entry| entry.writers.contains(&Role::Connector)).collect();
        assert_eq!(written.len(), 2);
        assert!(written.iter().all(|entry| entry.readers == [Role::Operators]));
    }
}
