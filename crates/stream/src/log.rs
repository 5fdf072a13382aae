//! The log as a trait, with only those features of Kafka that a stage needs.
//!
//! Implementations: `crate::kafka`, `crate::embedded`, [`crate::sim`]. One conformance suite
//! (`crates/stream/src/conformance`) verifies that they behave the same.
//!
//! Every call blocks, so callers run on their own threads. Topic names are passed without the prefix; the log adds
//! it.

use std::{sync::Arc, time::Duration};

use serin_schemas::ids::NextOffset;
use serin_topology::TopicSpec;

use crate::record::{Outgoing, Record, TopicPartition};

/// An error of a log.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// A newer owner of the same transactional id exists, so this one must stop.
    #[error("fenced: a newer owner of {id:?} has taken over")]
    Fenced {
        /// The transactional id.
        id: String,
    },
    /// The topic does not exist.
    #[error("topic {topic:?} does not exist; create it with `serin topology ensure`")]
    UnknownTopic {
        /// Full topic name.
        topic: String,
    },
    /// The requested position is no longer, or not yet, on the log.
    #[error("{topic}[{partition}]: offset {wanted} is outside of {start}..{end}")]
    OutOfRange {
        /// Full topic name.
        topic: String,
        /// Partition.
        partition: i32,
        /// Requested offset.
        wanted: i64,
        /// First available offset.
        start: i64,
        /// Offset after the last.
        end: i64,
    },
    /// Any other error: the log is unreachable, the disk is full, credentials are wrong.
    #[error("{doing}: {cause}")]
    Failed {
        /// The action that failed, as a fragment such as `reading the changelog`.
        doing: String,
        /// The cause reported by the implementation.
        cause: String,
    },
}

/// The reason why a commit did not succeed. After any of them the task reopens.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// No record of the transaction is on the log.
    #[error("the transaction was aborted: {0}")]
    Aborted(String),
    /// Only the log knows the outcome: the task must reopen and check.
    #[error("the outcome of the commit is unknown: {0}")]
    Unknown(String),
    /// A newer owner exists.
    #[error("fenced by a newer owner")]
    Fenced,
    /// A record can never be written, because it is larger than its topic allows. No record of the transaction is on
    /// the log.
    #[error("the log rejected a record of the transaction: {0}")]
    Unwritable(String),
}

/// The reason why a non-transactional write was rejected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    /// The bounded queue is full. The caller should count the record and continue.
    #[error("the write queue is full")]
    QueueFull,
    /// The record is larger than the log accepts.
    #[error("the record is too large for the log")]
    TooLarge,
    /// The writer is closed or the topic is unknown.
    #[error("the writer is closed, or the topic or partition does not exist")]
    Closed,
}

/// Where reading starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// At the oldest available record.
    Beginning,
    /// After the newest committed record.
    End,
    /// At this position. A position outside of the log is [`LogError::OutOfRange`], never a silent reset.
    At(NextOffset),
}

/// A log: topics with partitions. Reads return committed records; writes are transactional or non-transactional.
pub trait Log: Send + Sync + 'static {
    /// The full name of a topic: the prefix and `topic`.
    fn full_name(&self, topic: &str) -> Arc<str>;

    /// Creates topics that do not exist yet. Existing topics are not changed.
    fn create(&self, topics: &[TopicSpec]) -> Result<(), LogError>;

    /// Describes the named topics (names without prefix) that exist.
    fn describe(&self, topics: &[&str]) -> Result<Vec<TopicSpec>, LogError>;

    /// The current number of partitions of a topic.
    fn partitions(&self, topic: &str) -> Result<i32, LogError>;

    /// The first offset, and the offset after the last committed record.
    fn bounds(&self, at: &TopicPartition) -> Result<(NextOffset, NextOffset), LogError>;

    /// The committed position of a consumer group, as recorded by its transactions. It is meant for tools: no stage
    /// resumes from it.
    fn committed(&self, group: &str, at: &TopicPartition) -> Result<Option<NextOffset>, LogError>;

    /// Creates a reader of committed records that starts at the given positions.
    fn reader(&self, from: &[(TopicPartition, Start)]) -> Result<Box<dyn Reader>, LogError>;

    /// Takes over a transactional id. The previous owner is fenced and its open transaction has ended before this
    /// returns.
    fn transactional(&self, id: &str) -> Result<Box<dyn Transactional>, LogError>;

    /// Creates a non-transactional writer with a bounded queue that never blocks its caller.
    fn writer(&self, queue: usize) -> Result<Arc<dyn Writer>, LogError>;

    /// Joins a consumer group over the same-numbered partitions of `topics`.
    fn join(&self, group: &str, topics: &[&str]) -> Result<Box<dyn Membership>, LogError>;
}

/// The result of a poll.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Polled {
    /// Records were added; there may be more.
    Records,
    /// No new records: every assigned partition was read to its end (the last stable offset) at some moment of this
    /// poll. The first such poll after a record returns at once; later polls wait.
    AtEnd,
    /// No records arrived before the timeout, but the end was not confirmed.
    Nothing,
}

/// Reads committed records.
pub trait Reader: Send {
    /// Appends up to about `max` records to `into`, waiting up to `wait` for the first one. Returns as soon as there
    /// are records: a record that is appended during the wait is returned at once, not at the end of `wait`.
    fn poll(&mut self, max: usize, wait: Duration, into: &mut Vec<Record>) -> Result<Polled, LogError>;

    /// Whether a partition has been read up to the end seen at the last poll.
    fn at_end(&self, at: &TopicPartition) -> bool;

    /// A handle that makes a waiting [`poll`](Self::poll) return at once from another thread.
    fn waker(&self) -> Arc<dyn Fn() + Send + Sync>;
}

/// Writes in transactions under one id.
pub trait Transactional: Send {
    /// Writes all records and the input positions atomically. After an error the value must be dropped.
    fn commit(
        &mut self,
        records: &[Outgoing],
        positions: &[(TopicPartition, NextOffset)],
        group: Option<&dyn Membership>,
    ) -> Result<Written, CommitError>;
}

/// The result of a commit: the position after the last written record of each partition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Written(pub Vec<(TopicPartition, NextOffset)>);

impl Written {
    /// The position after the last record written to `at`, if there is one.
    pub fn after(&self, at: &TopicPartition) -> Option<NextOffset> {
        self.0.iter().find(|(place, _)| place == at).map(|(_, next)| *next)
    }
}

/// Writes without transactions: idempotent, ordered per partition, queued.
pub trait Writer: Send + Sync {
    /// Queues a record without blocking. A queued record may still be lost if the process dies.
    fn send(&self, record: Outgoing) -> Result<(), WriteError>;

    /// Waits until all records queued before are on the log or have failed.
    fn flush(&self, deadline: Duration) -> Result<(), LogError>;

    /// Number of records that failed after they were queued.
    fn failed(&self) -> u64;

    /// Bytes that are queued and neither on the log nor failed. Always 0 where records are written synchronously.
    fn waiting(&self) -> usize {
        0
    }
}

/// A change of the assignment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Assignment {
    /// These partitions are now assigned to this member.
    Assigned(Vec<i32>),
    /// These partitions are being revoked: commit, drop the tasks, then call [`Membership::release`].
    Revoked(Vec<i32>),
    /// These partitions are already assigned to another member: drop the tasks without a commit.
    Lost(Vec<i32>),
}

/// Membership in a consumer group. It never delivers records; readers do.
pub trait Membership: Send + Sync {
    /// Waits up to `wait` for a change of the assignment.
    fn poll(&self, wait: Duration) -> Result<Option<Assignment>, LogError>;

    /// Confirms that the tasks of revoked partitions have ended.
    fn release(&self, partitions: &[i32]);

    /// For implementations that pass their group metadata to their own transactional writer.
    fn as_any(&self) -> &dyn std::any::Any;
}
