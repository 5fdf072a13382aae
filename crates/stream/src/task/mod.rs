//! One task: a fold on one partition, from opening to close, on a thread of its own.
//!
//! `Opening -> Restoring -> Running -> Draining -> Closed`. Crash-only: any error that may pass drops everything and goes
//! back to `Opening` after a pause, through the same code as a restart. Errors that a repetition cannot heal (a fold that
//! cannot read its state, a hole in the input, another number of partitions, a changelog that is gone or another one, a
//! checkpoint of another format, too many unusable records) end in `Failed` and wait for a person.
//!
//! Invariant: rows, outputs and positions change together, in one transaction of the log. The store gets the rows only
//! after it, so it never knows more than the log.

mod care;
mod open;
mod poison;
mod retry;
mod run;
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
pub(crate) use self::{
    care::Care,
    open::State,
    retry::{Next, Retry},
    run::{OpenTask, Pace},
};
pub use self::{
    care::Place,
    poison::PoisonLimit,
    thread::{TaskHandle, TaskState, TaskStatus},
};

/// When a task commits, waits and gives up.
#[derive(Clone, Debug)]
pub struct TaskOptions {
    /// Longest time between a change and its commit, but for a tenth of a second in which other tasks commit.
    pub commit_every: Duration,
    /// Commit when the changed rows reach this many bytes, those that the fold has not written yet included.
    pub max_dirty_bytes: usize,
    /// Commit when the output records that wait reach this many bytes.
    pub max_output_bytes: usize,
    /// Commit when this many output records wait.
    pub max_outputs: usize,
    /// Most records taken from the log at once.
    pub batch: usize,
    /// How many unusable records are too many.
    pub poison: PoisonLimit,
    /// First pause before an attempt to re-open; doubles with each failure in a row.
    pub min_backoff: Duration,
    /// Longest pause before an attempt to re-open.
    pub max_backoff: Duration,
    /// Pause after being fenced: long enough for the group to tell whether the partition is still ours.
    pub fenced_backoff: Duration,
    /// A store whose checkpoint is older than this is restored from the beginning: the changelog may have dropped
    /// tombstones that it never saw. At most `delete.retention.ms` of the changelog.
    pub tombstones_kept: Duration,
    /// How often the distance to the end of the inputs is measured, and the number of their partitions looked at.
    pub lag_every: Duration,
    /// A topic that is missing for longer than this is gone: clusters may forget one for a moment while they restart.
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
            // Kafka's default for `delete.retention.ms` is 24 h; half of it leaves room for clocks and late cleaning.
            tombstones_kept: Duration::from_hours(12),
            lag_every: Duration::from_secs(10),
            missing_topic: Duration::from_mins(1),
        }
    }
}

/// Everything a task is made of.
#[derive(Clone)]
pub struct TaskParts {
    /// The partition.
    pub partition: i32,
    /// Where input, output and changelog are.
    pub log: Arc<dyn Log>,
    /// Where committed rows are cached.
    pub stores: Arc<dyn Stores>,
    /// Makes the fold.
    pub factory: Arc<dyn FoldFactory>,
    /// The group whose positions the commits move.
    pub membership: Option<Arc<dyn Membership>>,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// When it commits, waits and gives up.
    pub options: TaskOptions,
    /// Shared by the tasks of a stage in this process: they commit one after the other.
    pub turns: Arc<Mutex<()>>,
}

impl TaskParts {
    /// The changelog's topic, without prefix.
    fn changelog(&self) -> &'static str {
        changelog_of(self.factory.stage())
    }

    fn on(&self, topic: &str) -> TopicPartition {
        TopicPartition { topic: self.log.full_name(topic), partition: self.partition }
    }

    /// One owner per stage and partition: taking over this id fences the one before.
    fn transactional_id(&self) -> String {
        format!("{}-{}", self.factory.stage(), self.partition)
    }
}

/// Name of a stage's changelog: `<stage>-changelog`.
///
/// Records name their topic by a static text. There are a handful of stages, so one leaked name for each is bounded.
pub fn changelog_of(stage: &'static str) -> &'static str {
    use std::{
        collections::HashMap,
        sync::{Mutex, OnceLock},
    };
    static NAMES: OnceLock<Mutex<HashMap<&'static str, &'static str>>> = OnceLock::new();
    let mut names = crate::local::lock(NAMES.get_or_init(Mutex::default));
    names.entry(stage).or_insert_with(|| Box::leak(format!("{stage}-changelog").into_boxed_str()))
}

/// Why a task stopped working.
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
    /// The fold cannot go on.
    #[error("the {stage} cannot use its state: {cause}")]
    Fold {
        /// The stage.
        stage: &'static str,
        /// What it said.
        cause: FoldError,
    },
    /// The checkpoint cannot be read.
    #[error("{place}: {cause}")]
    Format {
        /// Where it is.
        place: String,
        /// What is wrong with it.
        cause: FormatError,
    },
    /// The input does not reach back to where the task stands, or forward to it.
    #[error(
        "{cause}: the input no longer holds what comes next. What is missing cannot be counted; \
         to go on without it, delete the changelog, the consumer group and the state of this stage"
    )]
    Hole {
        /// The position and the bounds.
        cause: LogError,
    },
    /// The inputs have another number of partitions than before: keys are elsewhere now, and their rows are not.
    #[error(
        "{topic} has {found} partitions, the state was made with {before}: keys go to other partitions now, and their state \
         stays behind. Give the topic {before} partitions again; or, to begin anew without the state, create the topics anew \
         and delete the consumer group and the state directory"
    )]
    OtherPartitions {
        /// Full name of the input.
        topic: String,
        /// How many it has.
        found: i32,
        /// How many it had.
        before: i32,
    },
    /// A topic has been missing for too long.
    #[error("{cause}, although this stage works on it: it was deleted. Restore it, then start this stage again")]
    TopicGone {
        /// Which one.
        cause: LogError,
    },
    /// The changelog is not the one that was written before: it ends earlier, is empty, or tells another story.
    #[error(
        "{topic}[{partition}] is not the changelog that this stage wrote: {evidence}. It was deleted or restored from a \
         backup. Restore it; or, to begin anew knowing that outputs repeat, delete the consumer group and the state directory"
    )]
    OtherChangelog {
        /// Full name of the changelog.
        topic: String,
        /// Partition.
        partition: i32,
        /// What shows it.
        evidence: String,
    },
    /// Too many unusable records.
    #[error(
        "{bad} of the last {last} records of {place} were unusable (the newest: {code}: {message}). This looks like a bad deploy, \
         not like bad data, so nothing more is put aside; fix the writer or upgrade this stage, then start it again"
    )]
    TooMuchPoison {
        /// Unusable records.
        bad: usize,
        /// Among this many.
        last: usize,
        /// Topic and partition.
        place: String,
        /// Code of the newest.
        code: Code,
        /// What is wrong with the newest.
        message: String,
    },
    /// What came of some records cannot be committed, for the records' own sake.
    #[error("{}: {}{}", where_it_stands(next.as_ref()), .poison.message, if alone.is_some() { "; it is put aside" } else { "" })]
    Unfit {
        /// The record whose fault it is, if that is known.
        alone: Option<Place>,
        /// How many records there were.
        records: usize,
        /// The first record that is not committed.
        next: Option<Place>,
        /// Why.
        poison: Poison,
    },
    /// The fold panicked: a bug.
    #[error("a bug: the task panicked: {0}")]
    Panicked(String),
    /// Asked to stop.
    #[error("stopped")]
    Stopped,
}

fn where_it_stands(next: Option<&Place>) -> String {
    next.map_or_else(|| "between two records".to_owned(), Place::to_string)
}

impl TaskError {
    /// Why a fold stopped: a log or a store that it needs may be back the next time.
    fn of_fold(stage: &'static str, cause: FoldError) -> Self {
        match cause {
            FoldError::Store(error) => Self::Store(error),
            FoldError::Log(error) => Self::Log(error),
            // While a record is applied, this is handled there.
            FoldError::State(_) | FoldError::Unwritable(_) => Self::Fold { stage, cause },
        }
    }

    /// Whether opening again cannot help.
    fn is_final(&self) -> bool {
        match self {
            Self::Log(_) | Self::Commit(_) | Self::Store(_) | Self::Unfit { .. } => false,
            Self::Fold { .. }
            | Self::Format { .. }
            | Self::Hole { .. }
            | Self::OtherPartitions { .. }
            | Self::TopicGone { .. }
            | Self::OtherChangelog { .. }
            | Self::TooMuchPoison { .. }
            | Self::Panicked(_)
            | Self::Stopped => true,
        }
    }
}
