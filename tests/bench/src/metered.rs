//! Wrappers that measure a stage from outside: they time its log and its fold without changing them.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use serin_schemas::ids::NextOffset;
use serin_stream::{
    fold::{Context, Fold, FoldError, FoldFactory, Poison, Rows},
    log::{CommitError, Log, LogError, Membership, Polled, Reader, Start, Transactional, Written},
    record::{Outgoing, Record, TopicPartition},
    testing::Forward,
};

/// Records between two updates of the shared counters of all tasks.
const STEP: u64 = 256;

/// Measurements of the folds of all tasks.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    /// Records applied, counted in steps of [`STEP`].
    pub(crate) applied: AtomicU64,
    /// Records applied and committed.
    pub(crate) committed: AtomicU64,
    /// Records that the transactions wrote.
    pub(crate) written: AtomicU64,
    pub(crate) written_bytes: AtomicU64,
    /// Unusable records.
    pub(crate) poison: AtomicU64,
    notes: Mutex<Notes>,
}

/// Measurements of rare events.
#[derive(Debug, Default)]
pub(crate) struct Notes {
    /// The commits of all tasks.
    pub(crate) commits: Vec<Commit>,
    /// Partitions in the order in which their tasks first committed records.
    pub(crate) first_commits: Vec<i32>,
    /// Changelog records and bytes read to restore, and the time until the fold was open, by task.
    pub(crate) restored: Vec<(u64, u64, Duration)>,
}

/// How long a commit blocked its task, by phase, in milliseconds.
#[derive(Clone, Copy, Debug, serde::Serialize, serde::Deserialize)]
pub(crate) struct Commit {
    /// Collecting and encoding what changed.
    pub(crate) rows: f64,
    /// The transaction on the log.
    pub(crate) transaction: f64,
    /// The local store and everything else.
    pub(crate) store: f64,
}

impl Commit {
    pub(crate) fn whole(&self) -> f64 {
        self.rows + self.transaction + self.store
    }
}

impl Meter {
    pub(crate) fn notes(&self) -> MutexGuard<'_, Notes> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A factory that measures its folds.
pub(crate) struct MeteredFactory<F> {
    pub(crate) inner: F,
    pub(crate) meter: Arc<Meter>,
}

impl<F: FoldFactory> FoldFactory for MeteredFactory<F> {
    fn stage(&self) -> &'static str {
        self.inner.stage()
    }

    fn inputs(&self) -> &'static [&'static str] {
        self.inner.inputs()
    }

    fn fold(&self, partition: i32) -> Box<dyn Fold> {
        Box::new(MeteredFold {
            inner: self.inner.fold(partition),
            meter: Arc::clone(&self.meter),
            partition,
            applied: 0,
            started: None,
            any: false,
        })
    }
}

struct MeteredFold {
    inner: Box<dyn Fold>,
    meter: Arc<Meter>,
    partition: i32,
    applied: u64,
    started: Option<Instant>,
    any: bool,
}

impl Fold for MeteredFold {
    fn open(&mut self, rows: &mut dyn Rows) -> Result<(), FoldError> {
        self.inner.open(rows)?;
        RESTORE.with_borrow_mut(|restore| {
            if let Some((started, records, bytes)) = restore.take() {
                self.meter.notes().restored.push((records, bytes, started.elapsed()));
            }
        });
        Ok(())
    }

    fn apply(&mut self, record: &Record, context: &mut Context<'_>) -> Result<Result<(), Poison>, FoldError> {
        self.applied += 1;
        if self.applied.is_multiple_of(STEP) {
            self.meter.applied.fetch_add(STEP, Ordering::Relaxed);
        }
        let applied = self.inner.apply(record, context)?;
        if applied.is_err() {
            self.meter.poison.fetch_add(1, Ordering::Relaxed);
        }
        Ok(applied)
    }

    fn before_commit(&mut self, context: &mut Context<'_>) -> Result<(), FoldError> {
        self.started = Some(Instant::now());
        self.inner.before_commit(context)
    }

    fn committed(&mut self) {
        self.inner.committed();
        let mut notes = self.meter.notes();
        if let Some((started, (called, returned))) = self.started.take().zip(TRANSACTION.take()) {
            let ms = |from: Instant, to: Instant| (to - from).as_secs_f64() * 1e3;
            let (rows, transaction) = (ms(started, called), ms(called, returned));
            notes.commits.push(Commit { rows, transaction, store: ms(returned, Instant::now()) });
        }
        if !std::mem::replace(&mut self.any, true) {
            notes.first_commits.push(self.partition);
        }
        self.meter.committed.fetch_add(std::mem::take(&mut self.applied), Ordering::Relaxed);
    }
}

std::thread_local! {
    /// The restore of this thread's task: its start, records, bytes.
    static RESTORE: std::cell::RefCell<Option<(Instant, u64, u64)>> = const { std::cell::RefCell::new(None) };
    /// Start and end of the last transaction of this thread's task.
    static TRANSACTION: std::cell::Cell<Option<(Instant, Instant)>> = const { std::cell::Cell::new(None) };
}

/// A log that measures its transactions and restores.
pub(crate) struct MeteredLog {
    pub(crate) inner: Arc<dyn Log>,
    pub(crate) meter: Arc<Meter>,
}

impl Forward for MeteredLog {
    fn inner(&self) -> &dyn Log {
        &*self.inner
    }

    fn reader(&self, from: &[(TopicPartition, Start)]) -> Result<Box<dyn Reader>, LogError> {
        if from.iter().any(|(at, _)| at.topic.ends_with("-changelog")) {
            RESTORE.set(Some((Instant::now(), 0, 0)));
            return Ok(Box::new(RestoreReader(self.inner.reader(from)?)));
        }
        self.inner.reader(from)
    }

    fn transactional(&self, id: &str) -> Result<Box<dyn Transactional>, LogError> {
        Ok(Box::new(MeteredTransaction { inner: self.inner.transactional(id)?, meter: Arc::clone(&self.meter) }))
    }
}

struct RestoreReader(Box<dyn Reader>);

impl Reader for RestoreReader {
    fn poll(&mut self, max: usize, wait: Duration, into: &mut Vec<Record>) -> Result<Polled, LogError> {
        let before = into.len();
        let polled = self.0.poll(max, wait, into)?;
        RESTORE.with_borrow_mut(|restore| {
            if let Some((_, records, bytes)) = restore {
                *records += (into.len() - before) as u64;
                let size = |record: &Record| record.key.len() + record.value.as_ref().map_or(0, bytes::Bytes::len);
                *bytes += into[before..].iter().map(size).sum::<usize>() as u64;
            }
        });
        Ok(polled)
    }

    fn at_end(&self, at: &TopicPartition) -> bool {
        self.0.at_end(at)
    }

    fn waker(&self) -> Arc<dyn Fn() + Send + Sync> {
        self.0.waker()
    }
}

struct MeteredTransaction {
    inner: Box<dyn Transactional>,
    meter: Arc<Meter>,
}

impl Transactional for MeteredTransaction {
    fn commit(
        &mut self,
        records: &[Outgoing],
        positions: &[(TopicPartition, NextOffset)],
        group: Option<&dyn Membership>,
    ) -> Result<Written, CommitError> {
        let size = |record: &Outgoing| record.key.len() + record.value.as_ref().map_or(0, bytes::Bytes::len);
        self.meter.written.fetch_add(records.len() as u64, Ordering::Relaxed);
        self.meter.written_bytes.fetch_add(records.iter().map(size).sum::<usize>() as u64, Ordering::Relaxed);
        let called = Instant::now();
        let written = self.inner.commit(records, positions, group);
        TRANSACTION.set(Some((called, Instant::now())));
        written
    }
}
