//! One task: a fold on one partition, from opening to close, on its own thread.
//!
//! `Opening -> Restoring -> Running -> Draining -> Closed`. Tasks are crash-only: any transient error drops
//! everything and goes back to `Opening` after a pause, through the same code as a restart. Errors that a retry
//! cannot fix (a fold that cannot read its state, a gap in the input, a different number of partitions, a changelog
//! that was deleted or replaced, a checkpoint of another format, too many unusable records) end in `Failed` and wait
//! for an operator.
//!
//! Invariant: rows, outputs and positions change together, in one transaction of the log. The store is updated only
//! after that, so it is never ahead of the log.

mod failures;
mod open;
mod poison;
mod retry;
mod run;
mod state;
mod thread;

use serin_schemas::Code;
use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use crate::{
    checkpoint::FormatError,
    clock::Clock,
    fold::{FoldError, FoldFactory, Poison},
    log::{CommitError, Log, LogError, Membership},
    record::TopicPartition,
    store::{StoreError, Stores},
};

#[cfg(feature = "conformance")]
pub(crate) use self::open::Watch;
pub use self::{
    failures::Place,
    poison::PoisonLimit,
    state::TaskState,
    thread::{TaskHandle, TaskStatus},
};
pub(crate) use self::{
    failures::RecordFailures,
    open::State,
    retry::{Next, Retry},
    run::{OpenTask, Pace},
};

/// When a task commits, waits and gives up.
#[derive(Clone, Debug)]
pub struct TaskOptions {
    /// Longest time between a change and its commit, plus at most a tenth of a second in which other tasks commit.
    pub commit_every: Duration,
    /// Commit when the changed rows reach this many bytes, including those that the fold has not written yet.
    pub max_dirty_bytes: usize,
    /// Commit when the pending output records reach this many bytes.
    pub max_output_bytes: usize,
    /// Commit when this many output records are pending.
    pub max_outputs: usize,
    /// Maximum number of records read from the log in one poll.
    pub batch: usize,
    /// When to stop because of too many unusable records.
    pub poison: PoisonLimit,
    /// First pause before reopening. It doubles with each consecutive failure.
    pub min_backoff: Duration,
    /// Longest pause before reopening.
    pub max_backoff: Duration,
    /// Pause after being fenced. It is long enough for the group to report whether the partition is still assigned.
    pub fenced_backoff: Duration,
    /// A store whose checkpoint is older than this is restored from scratch, because the changelog may have dropped
    /// tombstones that the store has not seen. At most `delete.retention.ms` of the changelog.
    pub tombstones_kept: Duration,
    /// How often the lag is measured and the number of input partitions is checked.
    pub lag_every: Duration,
    /// A topic that is missing for longer than this counts as deleted. A restarting cluster may not know a topic for
    /// a moment.
    pub missing_topic: Duration,
}

impl Default for TaskOptions {
    fn default() -> Self {
        Self {
            commit_every: Duration::from_secs(1),
            max_dirty_bytes: 8 << 20,
            max_output_bytes: 8 << 20,
            max_outputs: 10_000,
            batch: 1000,
            poison: PoisonLimit::default(),
            min_backoff: Duration::from_millis(100),
            max_backoff: Duration::from_secs(10),
            fenced_backoff: Duration::from_secs(5),
            // Kafka's default of `delete.retention.ms` is 24 h. Half of it leaves room for clock differences and late
            // cleaning.
            tombstones_kept: Duration::from_hours(12),
            lag_every: Duration::from_secs(10),
            missing_topic: Duration::from_mins(1),
        }
    }
}

/// The components of a task.
#[derive(Clone)]
pub struct TaskParts {
    /// The partition of every input that this task reads.
    pub partition: i32,
    /// The log with input, output and changelog.
    pub log: Arc<dyn Log>,
    /// The stores that cache committed rows.
    pub stores: Arc<dyn Stores>,
    /// Creates the fold.
    pub factory: Arc<dyn FoldFactory>,
    /// The group whose positions the commits update.
    pub membership: Option<Arc<dyn Membership>>,
    /// The clock that schedules commits and ticks.
    pub clock: Arc<dyn Clock>,
    /// The options of the task.
    pub options: TaskOptions,
    /// Shared by the tasks of a stage in this process, so that they commit one after the other.
    pub turns: Arc<Mutex<()>>,
}

impl TaskParts {
    /// The changelog topic, without prefix.
    fn changelog(&self) -> &'static str {
        changelog_of(self.factory.stage())
    }

    fn on(&self, topic: &str) -> TopicPartition {
        TopicPartition { topic: self.log.full_name(topic), partition: self.partition }
    }

    /// The transactional id. There is one per stage and partition, so taking it over fences the previous owner.
    fn transactional_id(&self) -> String {
        format!("{}-{}", self.factory.stage(), self.partition)
    }
}

/// Name of a stage's changelog: `<stage>-changelog`.
///
/// Records refer to topics by static names. There are only a few stages, so one leaked name for each is bounded.
pub fn changelog_of(stage: &'static str) -> &'static str {
    use std::{
        collections::HashMap,
        sync::{Mutex, OnceLock},
    };
    static NAMES: OnceLock<Mutex<HashMap<&'static str, &'static str>>> = OnceLock::new();
    let mut names = crate::local::lock(NAMES.get_or_init(Mutex::default));
    names.entry(stage).or_insert_with(|| Box::leak(format!("{stage}-changelog").into_boxed_str()))
}

/// The reason why a task stopped.
#[derive(Debug, thiserror::Error)]
pub enum TaskError {
    /// The log could not be used.
    #[error(transparent)]
    Log(#[from] LogError),
    /// A commit did not succeed.
    #[error(transparent)]
    Commit(#[from] CommitError),
    /// The store could not be used.
    #[error("the state store failed while {0}")]
    Store(#[from] StoreError),
    /// The fold cannot continue.
    #[error("the {stage} cannot use its state: {cause}")]
    Fold {
        /// The stage whose fold failed.
        stage: &'static str,
        /// The error of the fold.
        cause: FoldError,
    },
    /// The checkpoint cannot be read.
    #[error("{place}: {cause}")]
    Format {
        /// The location of the checkpoint.
        place: String,
        /// The problem with the checkpoint.
        cause: FormatError,
    },
    /// The input no longer contains the task's position, or does not reach it.
    #[error(
        "{cause}: the input does not contain the next record. The number of missing records is unknown; \
         to continue without them, delete the changelog, the consumer group and the state of this stage"
    )]
    Gap {
        /// The error with the position and the bounds.
        cause: LogError,
    },
    /// The inputs have a different number of partitions than before, so keys map to other partitions than their rows.
    #[error(
        "{topic} has {found} partitions, but the state was built with {before}: keys now map to other \
         partitions than their state. Restore the topic with {before} partitions; or, to start without state, recreate \
         the topics and delete the consumer group and the state directory"
    )]
    OtherPartitions {
        /// Full name of the input.
        topic: String,
        /// The current number of partitions.
        found: i32,
        /// The previous number of partitions.
        before: i32,
    },
    /// A topic has been missing for too long.
    #[error("{cause}; it was deleted while this stage was using it. Restore it, then start this stage again")]
    TopicGone {
        /// The error that names the topic.
        cause: LogError,
    },
    /// The changelog is not the one that this stage wrote: it ends earlier, is empty, or contains other commits.
    #[error(
        "{topic}[{partition}] is not the changelog that this stage wrote: {evidence}. It was deleted or restored \
         from a backup. Restore it; or, to start from scratch with repeated outputs, delete the consumer group and the \
         state directory"
    )]
    OtherChangelog {
        /// Full name of the changelog.
        topic: String,
        /// Partition.
        partition: i32,
        /// What shows that it is a different changelog.
        evidence: String,
    },
    /// Too many unusable records.
    #[error(
        "{bad} of the last {last} records of {place} were unusable (the newest: {code}: {message}). This looks \
         like a bad deploy, not like bad data, so no further records are dead-lettered; fix the writer or upgrade this \
         stage, then start it again"
    )]
    TooMuchPoison {
        /// Number of unusable records.
        bad: usize,
        /// Number of records examined.
        last: usize,
        /// Topic and partition.
        place: String,
        /// Code of the newest unusable record.
        code: Code,
        /// Error of the newest unusable record.
        message: String,
    },
    /// The output of some records can never be committed.
    #[error("{}: {}{}", position_text(next.as_ref()), .poison.message, if alone.is_some() { "; the record is dead-lettered" } else { "" })]
    Unfit {
        /// The record at fault, if it is known.
        alone: Option<Place>,
        /// Number of records in the commit.
        records: usize,
        /// The first record that is not committed.
        next: Option<Place>,
        /// Why the record is dead-lettered.
        poison: Poison,
    },
    /// The fold panicked: a bug.
    #[error("bug: the task panicked: {0}")]
    Panicked(String),
    /// The task was asked to stop.
    #[error("stopped")]
    Stopped,
}

fn position_text(next: Option<&Place>) -> String {
    next.map_or_else(|| "between two records".to_owned(), Place::to_string)
}

impl TaskError {
    /// Converts a fold's error. A log or store that the fold needs may recover.
    fn of_fold(stage: &'static str, cause: FoldError) -> Self {
        match cause {
            FoldError::Store(error) => Self::Store(error),
            FoldError::Log(error) => Self::Log(error),
            // While a record is applied, the caller handles these errors.
            FoldError::State(_) | FoldError::Unwritable(_) => Self::Fold { stage, cause },
        }
    }

    /// Whether reopening cannot help.
    fn is_final(&self) -> bool {
        match self {
            Self::Log(_) | Self::Commit(_) | Self::Store(_) | Self::Unfit { .. } => false,
            Self::Fold { .. }
            | Self::Format { .. }
            | Self::Gap { .. }
            | Self::OtherPartitions { .. }
            | Self::TopicGone { .. }
            | Self::OtherChangelog { .. }
            | Self::TooMuchPoison { .. }
            | Self::Panicked(_)
            | Self::Stopped => true,
        }
    }
}
