//! A stage's logic, as a trait: a pure function of its input and its state.
//!
//! A fold knows no clock, disk or network. It is driven by [`crate::task`]: records in order, then
//! [`Fold::before_commit`], then the task commits what was put into the [`Context`] in one transaction. After a crash a new
//! value is opened from the rows of the last commit, so whatever must survive has to be a row by then.

use bytes::Bytes;
use serin_schemas::Code;

use crate::{
    log::LogError,
    record::{Outgoing, Record},
    store::StoreError,
};

/// A record that a fold cannot use. It goes to `dead-letters`, in the same transaction, and the task goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Poison {
    /// Stable code, such as `garbage`.
    pub code: Code,
    /// What is wrong, for people.
    pub message: String,
}

impl Poison {
    /// A record that cannot be used under this code, and why.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}

/// A fold cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum FoldError {
    /// Its own state cannot be read or used: the task stops with this.
    #[error("{0}")]
    State(String),
    /// The store of the rows failed: the task opens again and restores them from the changelog.
    #[error("the state store failed while {0}")]
    Store(#[from] StoreError),
    /// What comes of this record cannot be written, and never will be: it is put aside as a dead letter, and the task opens again
    /// without it.
    #[error("{0}")]
    Unwritable(String),
    /// The log that it asked for something failed: the task opens again.
    #[error(transparent)]
    Log(#[from] LogError),
}

/// The rows of a task: what was committed, overlaid with what this batch changed.
pub trait Rows {
    /// The row at `key`.
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, FoldError>;

    /// Hands over each row whose key starts with `prefix`, in key order, until `row` returns false. Only one row is held at a
    /// time, so that a large table can be read within a bound.
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

    /// Sets a row. It goes to the changelog with the next commit.
    fn put(&mut self, key: &[u8], value: Bytes);

    /// Removes a row; a tombstone goes to the changelog.
    fn delete(&mut self, key: &[u8]);
}

/// What a fold may touch while it applies a record.
pub struct Context<'a> {
    /// The state.
    pub rows: &'a mut dyn Rows,
    /// Records to write with the next commit, in order.
    pub out: &'a mut Vec<Outgoing>,
    /// Set it to ask for a commit right after this record: something waits for the output. While another task of the stage
    /// commits, this one goes on for a moment.
    pub commit_now: bool,
}

/// The logic of one stage on one partition.
pub trait Fold: Send {
    /// Reads what it needs from the rows. Called once, before anything else.
    fn open(&mut self, rows: &mut dyn Rows) -> Result<(), FoldError>;

    /// Applies one record. [`Ok(Err(poison))`](Poison): the record is unusable and nothing was changed.
    fn apply(&mut self, record: &Record, context: &mut Context<'_>) -> Result<Result<(), Poison>, FoldError>;

    /// Time has passed: `now_ms` is the wall clock. Only the controller uses it; deterministic folds leave it empty.
    fn tick(&mut self, now_ms: i64, context: &mut Context<'_>) -> Result<(), FoldError> {
        let _ = (now_ms, context);
        Ok(())
    }

    /// Writes what it kept in memory into the rows. Called before each commit; what is committed must not depend on
    /// how often this is called.
    fn before_commit(&mut self, context: &mut Context<'_>) -> Result<(), FoldError> {
        let _ = context;
        Ok(())
    }

    /// About how many bytes of rows [`Self::before_commit`] will write. The task commits before rows and this pass
    /// [`TaskOptions::max_dirty_bytes`](crate::task::TaskOptions::max_dirty_bytes).
    fn unsaved_bytes(&self) -> usize {
        0
    }

    /// Bytes of memory by what they are for, by estimate: shown as a metric every few seconds.
    fn memory(&self) -> Vec<(&'static str, usize)> {
        Vec::new()
    }

    /// The commit succeeded: what waits for it outside may go on.
    fn committed(&mut self) {}
}

/// Makes the fold of one partition.
pub trait FoldFactory: Send + Sync + 'static {
    /// The stage's name: prefix of its changelog topic, its group and its transactional ids.
    fn stage(&self) -> &'static str;

    /// Input topics, without prefix; a task reads the same-numbered partition of each.
    fn inputs(&self) -> &'static [&'static str];

    /// Those of the inputs whose timestamps must be the log's own: the fold measures time by them.
    fn append_times(&self) -> &'static [&'static str] {
        &[]
    }

    /// How often [`Fold::tick`] is called, if at all.
    fn tick_every(&self) -> Option<std::time::Duration> {
        None
    }

    /// Whether an unusable record with this [code](Poison::code) speaks for a bad deploy: too many of them stop the task.
    ///
    /// By default what no writer of Serin's can cause by its values: bytes, types and versions that cannot be read. A stage
    /// that reads what strangers write counts nothing: their mistakes must not stop it.
    fn is_bad_deploy(&self, code: Code) -> bool {
        matches!(code, Code::Garbage | Code::UnknownSchemaVersion | Code::UnknownType)
    }

    /// A new fold for `partition`.
    fn fold(&self, partition: i32) -> Box<dyn Fold>;
}
