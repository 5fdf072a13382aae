//! The log, as a trait: what a stage needs from Kafka and no more.
//!
//! Implementations: `crate::kafka`, `crate::embedded`, [`crate::sim`]; one conformance suite holds them to the same
//! behaviour (`crates/stream/src/conformance`).
//!
//! Every call blocks; callers run on threads of their own. Names of topics are given without the prefix; the log adds it.

use std::{sync::Arc, time::Duration};

use serin_schemas::ids::NextOffset;
use serin_topology::TopicSpec;

use crate::record::{Outgoing, Record, TopicPartition};

/// A log could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// A newer owner of the same transactional id exists: this one must stop.
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
    /// The position asked for is no longer, or not yet, on the log.
    #[error("{topic}[{partition}]: offset {wanted} is outside of {start}..{end}")]
    OutOfRange {
        /// Full topic name.
        topic: String,
        /// Partition.
        partition: i32,
        /// Offset asked for.
        wanted: i64,
        /// First offset there is.
        start: i64,
        /// Offset after the last.
        end: i64,
    },
    /// Anything else: the log is away, the disk is full, credentials are wrong.
    #[error("{doing}: {cause}")]
    Failed {
        /// What was being done, as a fragment: `reading the changelog`.
        doing: String,
        /// What the implementation said.
        cause: String,
    },
}

/// How a commit ended when it did not succeed. Both lead to re-opening the task.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// Nothing of it is on the log.
    #[error("the transaction was aborted: {0}")]
    Aborted(String),
    /// Only the log knows: re-open and look.
    #[error("the outcome of the commit is unknown: {0}")]
    Unknown(String),
    /// A newer owner exists.
    #[error("fenced by a newer owner")]
    Fenced,
    /// A record is not taken, however often it is sent: it is larger than its topic allows. Nothing of it is on the log.
    #[error("the log does not take what came of it: {0}")]
    Unwritable(String),
}

/// A plain write could not be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    /// The bounded queue is full: count it and go on.
    #[error("the write queue is full")]
    QueueFull,
    /// The record is larger than the log takes.
    #[error("the record is too large for the log")]
    TooLarge,
    /// The writer is closed or the topic is unknown.
    #[error("the writer cannot write there")]
    Closed,
}

/// Where reading starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// At the oldest record there is.
    Beginning,
    /// After the newest committed record.
    End,
    /// At this position; outside of the log it is [`LogError::OutOfRange`], never a silent reset.
    At(NextOffset),
}

/// A log: topics of partitions, read committed, written plainly or in transactions.
pub trait Log: Send + Sync + 'static {
    /// The full name of a topic: the prefix and `topic`.
    fn full_name(&self, topic: &str) -> Arc<str>;

    /// Creates topics that do not exist yet; those that do are left alone.
    fn create(&self, topics: &[TopicSpec]) -> Result<(), LogError>;

    /// What exists of the named topics (names without prefix); a missing one is left out.
    fn describe(&self, topics: &[&str]) -> Result<Vec<TopicSpec>, LogError>;

    /// Number of partitions of a topic, as it is now.
    fn partitions(&self, topic: &str) -> Result<i32, LogError>;

    /// First offset and the offset after the last committed record.
    fn bounds(&self, at: &TopicPartition) -> Result<(NextOffset, NextOffset), LogError>;

    /// How far a consumer group has read, as its transactions recorded it. For tools: no stage resumes from it.
    fn committed(&self, group: &str, at: &TopicPartition) -> Result<Option<NextOffset>, LogError>;

    /// A reader of committed records at the given places.
    fn reader(&self, from: &[(TopicPartition, Start)]) -> Result<Box<dyn Reader>, LogError>;

    /// Takes over a transactional id: the previous owner is fenced and its open transaction ended before this returns.
    fn transactional(&self, id: &str) -> Result<Box<dyn Transactional>, LogError>;

    /// A plain writer with a bounded queue that never blocks its caller.
    fn writer(&self, queue: usize) -> Result<Arc<dyn Writer>, LogError>;

    /// Joins a consumer group over the same-numbered partitions of `topics`.
    fn join(&self, group: &str, topics: &[&str]) -> Result<Box<dyn Membership>, LogError>;
}

/// What a poll brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Polled {
    /// Records were added; there may be more.
    Records,
    /// Nothing new: every assigned partition was read to its end (the last stable offset) at some moment of this poll.
    /// The first time after a record this comes at once; after that the poll waits.
    AtEnd,
    /// Nothing came in the time given, but the end was not confirmed.
    Nothing,
}

/// Reads committed records.
pub trait Reader: Send {
    /// Appends up to about `max` records to `into`, waiting up to `wait` for the first. Returns as soon as there are some:
    /// a record that is appended while this waits is returned at once, not at the end of `wait`.
    fn poll(&mut self, max: usize, wait: Duration, into: &mut Vec<Record>) -> Result<Polled, LogError>;

    /// Whether a partition has been read up to the end seen at the last poll.
    fn at_end(&self, at: &TopicPartition) -> bool;

    /// A handle that makes a waiting [`poll`](Self::poll) return at once from another thread.
    fn waker(&self) -> Arc<dyn Fn() + Send + Sync>;
}

/// Writes in transactions under one id.
pub trait Transactional: Send {
    /// Writes all records and the input positions atomically. After any error the value must be dropped.
    fn commit(
        &mut self,
        records: &[Outgoing],
        positions: &[(TopicPartition, NextOffset)],
        group: Option<&dyn Membership>,
    ) -> Result<Written, CommitError>;
}

/// What a commit wrote: for each partition, the position after the last record it got.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Written(pub Vec<(TopicPartition, NextOffset)>);

impl Written {
    /// The position after the last record in `at`, if it got one.
    pub fn after(&self, at: &TopicPartition) -> Option<NextOffset> {
        self.0.iter().find(|(place, _)| place == at).map(|(_, next)| *next)
    }
}

/// Writes plainly: idempotent, ordered per partition, queued.
pub trait Writer: Send + Sync {
    /// Queues a record without blocking. It may still be lost if the process dies.
    fn send(&self, record: Outgoing) -> Result<(), WriteError>;

    /// Waits until all that was queued before is on the log, or fails.
    fn flush(&self, deadline: Duration) -> Result<(), LogError>;

    /// Records whose writing failed after they were queued.
    fn failed(&self) -> u64;

    /// Bytes that are queued and neither on the log nor failed; 0 where a record is written as it is sent.
    fn waiting(&self) -> usize {
        0
    }
}

/// What happened to the assignment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Assignment {
    /// These partitions are ours now.
    Assigned(Vec<i32>),
    /// These are to be given up: commit, drop the tasks, then call [`Membership::release`].
    Revoked(Vec<i32>),
    /// These belong to somebody else already: drop the tasks without a commit.
    Lost(Vec<i32>),
}

/// Membership in a consumer group. It never delivers records: reading is the reader's.
pub trait Membership: Send + Sync {
    /// Waits up to `wait` for a change.
    fn poll(&self, wait: Duration) -> Result<Option<Assignment>, LogError>;

    /// Confirms that the tasks of revoked partitions have ended.
    fn release(&self, partitions: &[i32]);

    /// For implementations that must hand their group metadata to their own transactional writer.
    fn as_any(&self) -> &dyn std::any::Any;
}
