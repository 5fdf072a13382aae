//! Every topic of Serin with its key, partitions and policy, as code.
//!
//! [`Topology::topics`] says what there should be, [`check()`] compares it with what there is, [`markdown`] prints both for
//! people (`docs/topics.md`). Nothing here talks to a cluster: the binary creates what is missing and describes what exists.
//!
//! Invariants: every topic has the same number of partitions, so that the same-numbered partitions of topics keyed by the same
//! thing belong to one task; a stage's changelog has a partition per partition of its input.

mod catalog;
mod check;
mod docs;
mod topics;

pub use catalog::{
    AUDIT, CAPTURES, CATALOG, CHANGELOG_STAGES, COMMANDS, DEAD_LETTERS, EVENTS, Entry, FEEDBACK, PREDICTIONS,
    ROUTER_STATUS, ROUTING, Role, VERDICTS, WINDOWS, changelog,
};
pub use check::{Difference, What, check};
pub use docs::markdown;
pub use topics::{APPEND_TIME, Topology, TopologyError};

/// What happens to old records of a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cleanup {
    /// Deleted after the retention time.
    Delete {
        /// Retention in milliseconds.
        retention_ms: i64,
    },
    /// Only the newest record of each key is kept.
    Compact,
}

/// One topic as it should be. Names carry no prefix here.
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
