//! A stage's logic as a trait: a pure function of its input and its state.
//!
//! A fold has no access to a clock, disk or network. [`crate::task`] drives it: it applies records in order, calls
//! [`Fold::before_commit`], and commits the contents of the [`Context`] in one transaction. After a crash a new fold
//! is opened from the rows of the last commit, so everything that must survive has to be in rows by then.

use bytes::Bytes;
use serin_schemas::Code;

use crate::{
    log::LogError,
    record::{Outgoing, Record},
    store::StoreError,
    trace::Tracer,
};

/// A record that a fold cannot use. It is dead-lettered in the same transaction, and the task continues.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Poison {
    /// Stable code, such as `garbage`.
    pub code: Code,
    /// What is wrong, in a readable form.
    pub message: String,
}

impl Poison {
    /// Creates the error for an unusable record, with its code and reason.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}

/// An error after which a fold cannot continue.
#[derive(Debug, thiserror::Error)]
pub enum FoldError {
    /// The fold's state cannot be read or used. The task stops with this error.
    #[error("{0}")]
    State(String),
    /// The store of the rows failed. The task reopens and restores the rows from the changelog.
    #[error("the state store failed while {0}")]
    Store(#[from] StoreError),
    /// The output of this record can never be written. The record is dead-lettered, and the task reopens without it.
    #[error("{0}")]
    Unwritable(String),
    /// The log failed. The task reopens.
    #[error(transparent)]
    Log(#[from] LogError),
}

/// The rows of a task: the committed rows, overlaid with the changes of the current batch.
pub trait Rows {
    /// The row at `key`.
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, FoldError>;

    /// Passes each row whose key starts with `prefix` to `row`, in key order, until it returns false. Only one row is
    /// in memory at a time, so that a large table can be read with bounded memory.
    fn visit(&self, prefix: &[u8], row: &mut dyn FnMut(Bytes, Bytes) -> bool) -> Result<(), FoldError>;

    /// All rows whose key starts with `prefix`, in key order.
    fn scan(&self, prefix: &[u8]) -> Result<Vec<(Bytes, Bytes)>, FoldError> {
        let mut rows = Vec::new();
        self.visit(prefix, &mut |key, value| {
            rows.push((key, value));
            true
        })?;
        Ok(rows)
    }

    /// Sets a row. The next commit writes it to the changelog.
    fn put(&mut self, key: &[u8], value: Bytes);

    /// Removes a row. The next commit writes a tombstone to the changelog.
    fn delete(&mut self, key: &[u8]);
}

/// What a fold can access while it applies a record.
pub struct Context<'a> {
    /// The rows of the fold, which are its state.
    pub rows: &'a mut dyn Rows,
    /// Records to write with the next commit, in order.
    pub out: &'a mut Vec<Outgoing>,
    /// Set this to ask for a commit right after this record, because something waits for the output. While another
    /// task of the stage commits, this task keeps processing records for a short time.
    pub commit_now: bool,
}

/// The logic of one stage on one partition.
pub trait Fold: Send {
    /// Loads its state from the rows. Called once, before anything else.
    fn open(&mut self, rows: &mut dyn Rows) -> Result<(), FoldError>;

    /// Applies one record. [`Ok(Err(poison))`](Poison) means that the record is unusable and nothing was changed.
    fn apply(&mut self, record: &Record, context: &mut Context<'_>) -> Result<Result<(), Poison>, FoldError>;

    /// Handles the passing of time. `now_ms` is the wall clock. Deterministic folds do not implement this.
    fn tick(&mut self, now_ms: i64, context: &mut Context<'_>) -> Result<(), FoldError> {
        let _ = (now_ms, context);
        Ok(())
    }

    /// Writes in-memory state into the rows. Called before each commit. The committed result must not depend on how
    /// often this is called.
    fn before_commit(&mut self, context: &mut Context<'_>) -> Result<(), FoldError> {
        let _ = context;
        Ok(())
    }

    /// Approximate bytes of rows that [`Self::before_commit`] will write. The task commits before these and the
    /// changed rows together exceed [`TaskOptions::max_dirty_bytes`](crate::task::TaskOptions::max_dirty_bytes).
    fn unsaved_bytes(&self) -> usize {
        0
    }

    /// Estimated bytes of memory by purpose, exported as a metric every few seconds.
    fn memory(&self) -> Vec<(&'static str, usize)> {
        Vec::new()
    }

    /// Called after a successful commit: work that waits for the commit may continue.
    fn committed(&mut self) {}
}

/// Creates the fold of each partition.
pub trait FoldFactory: Send + Sync + 'static {
    /// The stage's name. It is the prefix of the changelog topic, the group and the transactional ids.
    fn stage(&self) -> &'static str;

    /// Input topics, without prefix. A task reads the same-numbered partition of each.
    fn inputs(&self) -> &'static [&'static str];

    /// The inputs whose timestamps must be the log's append time, because the fold measures time by them.
    fn append_times(&self) -> &'static [&'static str] {
        &[]
    }

    /// How often [`Fold::tick`] is called, if at all.
    fn tick_every(&self) -> Option<std::time::Duration> {
        None
    }

    /// Whether an unusable record with this [code](Poison::code) indicates a bad deploy. Too many of these stop the
    /// task.
    ///
    /// The default covers what the values of a Serin writer cannot cause: bytes, types and versions that cannot be
    /// read. A stage that reads the records of external producers returns false, because their mistakes must not stop
    /// it.
    fn is_bad_deploy(&self, code: Code) -> bool {
        matches!(code, Code::Garbage | Code::UnknownSchemaVersion | Code::UnknownType)
    }

    /// Creates the fold of `partition`.
    fn fold(&self, partition: i32) -> Box<dyn Fold>;

    /// Creates what reports the spans of `partition`, if the stage reports any. It is called only in a process that traces.
    fn tracer(&self, partition: i32) -> Option<Box<dyn Tracer>> {
        let _ = partition;
        None
    }
}
