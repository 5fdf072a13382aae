//! Every topic of Serin with its key, partitions and policy, as code.
//!
//! [`Topology::topics`] returns the topics that should exist, [`check()`] compares them with the topics that do
//! exist, and [`markdown`] prints the catalog for `docs/topics.md`. Nothing in this crate talks to a cluster: the
//! binary creates missing topics and describes existing ones.
//!
//! Invariants: every topic has the same number of partitions, so same-numbered partitions of topics with the same key
//! belong to one task. A stage's changelog has one partition for each partition of its input.

mod catalog;
mod check;
mod docs;
mod topics;

pub use catalog::{
    AUDIT, CAPTURES, CATALOG, CHANGELOG_STAGES, COMMANDS, DEAD_LETTERS, DELIVERIES, EVENTS, Entry, FEEDBACK,
    PREDICTIONS, ROUTER_STATUS, ROUTING, Role, VERDICTS, WINDOWS, changelog,
};
pub use check::{Difference, What, check};
pub use docs::markdown;
pub use topics::{APPEND_TIME, Topology, TopologyError};

/// How old records of a topic are removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cleanup {
    /// Records are deleted after the retention time.
    Delete {
        /// Retention in milliseconds.
        retention_ms: i64,
    },
    /// Only the newest record of each key is kept.
    Compact,
}

/// The specification of one topic. Names do not include the prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicSpec {
    /// Name without the prefix.
    pub name: String,
    /// Number of partitions.
    pub partitions: i32,
    /// Replicas of each partition.
    pub replication: i32,
    /// What happens to old records.
    pub cleanup: Cleanup,
    /// Further settings by their Kafka names, such as `min.insync.replicas`.
    pub settings: Vec<(String, String)>,
}
