//! A running task: applies records and commits.

use serin_schemas::Code;
use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, TryLockError},
    time::Duration,
};

use serin_schemas::ids::NextOffset;

use super::{
    TaskError, TaskParts,
    failures::{DeadLettered, Place, RecordFailures},
    poison,
};
use crate::{
    checkpoint::{self, Checkpoint, StoredCheckpoint},
    fold::{Context, Fold, FoldError, Poison},
    log::{CommitError, LogError, Reader, Transactional},
    log_limit::LogLimit,
    metrics::TaskMetrics,
    record::{Headers, Outgoing, Record, Target, TopicPartition},
    rows::Overlay,
    task::state::panic_text,
    trace::{self, Tracer},
};

/// Longest wait for records when nothing else is due. It bounds how old the lag metric may get on a silent input.
const IDLE_WAIT: Duration = Duration::from_secs(1);

/// How long a due commit lets the commits of other tasks go first. All windows of a stage close at the same moment.
/// Four tasks that commit simultaneously wait in the same queues of the broker, and each is blocked for as long as all
/// of them together need.
const TURN_TIMEOUT: Duration = Duration::from_millis(100);

/// Pause between two checks whether it is this task's turn, when there is nothing else to do.
const TURN_LOOK: Duration = Duration::from_millis(1);

/// How long a step may wait for records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pace {
    /// Until something is due.
    Due,
    /// At most this long, for tests that drive the task.
    #[cfg(feature = "conformance")]
    AtMost(Duration),
}

/// One input of a task.
struct Input {
    name: &'static str,
    at: TopicPartition,
    next: Option<NextOffset>,
    /// The position of the last commit.
    committed: Option<NextOffset>,
}

/// An open task: it owns the transactional id, and its rows are at the end of the changelog.
pub(crate) struct OpenTask {
    parts: TaskParts,
    changelog: TopicPartition,
    fold: Box<dyn Fold>,
    /// Reports spans, in a process that traces.
    tracer: Option<Box<dyn Tracer>>,
    rows: Overlay,
    out: Vec<Outgoing>,
    /// Bytes of the pending outputs.
    out_bytes: usize,
    transaction: Box<dyn Transactional>,
    reader: Box<dyn Reader>,
    inputs: Vec<Input>,
    commit_seq: u64,
    /// Number of partitions of each input when the task was opened.
    partitions: i32,
    /// Time of the oldest uncommitted change.
    dirty_since: Option<Duration>,
    /// Since when a commit has been waiting for its turn.
    waits_since: Option<Duration>,
    next_tick: Option<Duration>,
    next_lag: Duration,
    breaker: poison::Breaker,
    batch: Vec<Record>,
    failures: RecordFailures,
    dead_letter_log: LogLimit,
    /// Number of records since the last commit, and how many of them were dead-lettered because they cannot be
    /// processed.
    applied: (usize, usize),
    last: Option<Place>,
}

impl OpenTask {
    pub(super) fn new(
        parts: &TaskParts,
        fold: Box<dyn Fold>,
        rows: Overlay,
        transaction: Box<dyn Transactional>,
        reader: Box<dyn Reader>,
        checkpoint: &Checkpoint,
        failures: &RecordFailures,
    ) -> Self {
        let inputs = parts.factory.inputs().iter();
        let inputs = inputs.map(|name| {
            let next = checkpoint.next(name);
            Input { name, at: parts.on(name), next, committed: next }
        });
        let now = parts.clock.elapsed();
        Self {
            changelog: parts.on(parts.changelog()),
            fold,
            tracer: trace::is_on().then(|| parts.factory.tracer(parts.partition)).flatten(),
            dirty_since: (!rows.is_clean()).then_some(now),
            waits_since: None,
            rows,
            out: Vec::new(),
            out_bytes: 0,
            transaction,
            reader,
            inputs: inputs.collect(),
            commit_seq: checkpoint.commit_seq,
            partitions: checkpoint.partitions,
            next_tick: parts.factory.tick_every().map(|_| now),
            next_lag: now,
            breaker: poison::Breaker::new(parts.options.poison),
            batch: Vec::new(),
            failures: failures.clone(),
            dead_letter_log: LogLimit::default(),
            applied: (0, 0),
            last: None,
            parts: parts.clone(),
        }
    }

    /// Makes a waiting [`step`](Self::step) return.
    pub(super) fn waker(&self) -> std::sync::Arc<dyn Fn() + Send + Sync> {
        self.reader.waker()
    }

    /// The number of the last commit.
    pub(crate) fn commit_seq(&self) -> u64 {
        self.commit_seq
    }

    /// Reads records from the inputs, applies them, and commits if a commit is due. Returns the number of records.
    pub(crate) fn step(&mut self, pace: Pace, metrics: &TaskMetrics) -> Result<usize, TaskError> {
        let wait = match pace {
            Pace::Due => self.longest_wait(),
            #[cfg(feature = "conformance")]
            Pace::AtMost(wait) => wait,
        };
        let mut batch = std::mem::take(&mut self.batch);
        self.reader.poll(self.parts.options.batch, wait, &mut batch).map_err(|error| match error {
            cause @ LogError::OutOfRange { .. } => TaskError::Gap { cause },
            other => TaskError::Log(other),
        })?;
        metrics.consumed(batch.len());
        for record in &batch {
            let asked = self.apply(record, metrics)?;
            if self.is_full() || self.failures.is_one_by_one() {
                self.commit(metrics)?;
            } else if asked || self.waits_since.is_some() {
                self.commit_in_turn(metrics)?;
            }
        }
        let count = batch.len();
        batch.clear();
        self.batch = batch;
        let now = self.parts.clock.elapsed();
        let asked = self.tick(now)?;
        let due = self.dirty_since.is_some_and(|since| now >= since + self.parts.options.commit_every);
        if asked || due || self.waits_since.is_some() {
            self.commit_in_turn(metrics)?;
        }
        self.look_at_inputs(now, metrics)?;
        Ok(count)
    }

    fn longest_wait(&self) -> Duration {
        if self.waits_since.is_some() {
            return TURN_LOOK;
        }
        let now = self.parts.clock.elapsed();
        let commit = self.dirty_since.map(|since| since + self.parts.options.commit_every);
        let due = [commit, self.next_tick].into_iter().flatten().min();
        due.map_or(IDLE_WAIT, |due| due.saturating_sub(now).min(IDLE_WAIT))
    }

    fn is_full(&self) -> bool {
        let options = &self.parts.options;
        self.rows.dirty_bytes() + self.fold.unsaved_bytes() >= options.max_dirty_bytes
            || self.out.len() >= options.max_outputs
            || self.out_bytes >= options.max_output_bytes
    }

    /// Adds the bytes of the outputs from `first` on.
    fn count_outputs(&mut self, first: usize) {
        self.out_bytes += self.out[first..].iter().map(Outgoing::size).sum::<usize>();
    }

    /// Applies one record. Returns whether the fold asks for a commit.
    fn apply(&mut self, record: &Record, metrics: &TaskMetrics) -> Result<bool, TaskError> {
        let stage = self.parts.factory.stage();
        let first = self.out.len();
        let place = Place { at: record.at.clone(), offset: record.offset };
        let dead_lettered = self.failures.dead_lettered(&place);
        let (applied, commit_now) = self.apply_to_fold(record, &place, dead_lettered.as_ref())?;
        if let Some(tracer) = self.tracer.as_mut().filter(|_| applied.is_ok()) {
            tracer.read(record);
        }
        self.applied = (self.applied.0 + 1, self.applied.1 + usize::from(dead_lettered.is_some()));
        self.last = Some(place);
        let is_bad_deploy = applied.as_ref().is_err_and(|poison| self.parts.factory.is_bad_deploy(poison.code));
        let too_many = self.breaker.note(is_bad_deploy);
        let mut failure = None;
        if let Err(poison) = applied {
            metrics.dead_letter(poison.code);
            let place = format!("{}[{}]", record.at.topic, record.at.partition);
            if let Some(count) = self.dead_letter_log.happened(1) {
                let (offset, code) = (record.offset, poison.code);
                tracing::warn!(stage, %place, offset, %code, why = poison.message, count, "records were dead-lettered");
            }
            let bare = dead_lettered.is_some_and(|dead_lettered| dead_lettered.bare);
            let letter = poison::dead_letter(stage, record, &poison, bare);
            let letter =
                letter.map_err(|error| TaskError::Fold { stage, cause: FoldError::State(error.to_string()) })?;
            self.out.push(letter);
            // Only a bad record can trip the breaker, not a good one among the last records.
            failure = too_many.filter(|_| is_bad_deploy).map(|bad| {
                let (last, code, message) = (self.parts.options.poison.last, poison.code, poison.message);
                TaskError::TooMuchPoison { bad, last, place, code, message }
            });
        }
        self.count_outputs(first);
        if let Some(input) = self.inputs.iter_mut().find(|input| input.at.topic == record.at.topic) {
            input.next = Some(record.next());
        }
        self.dirty_since.get_or_insert_with(|| self.parts.clock.elapsed());
        if let Some(failure) = failure {
            // The dead letters are committed, so a restarted task continues after them.
            self.commit(metrics)?;
            return Err(failure);
        }
        Ok(commit_now)
    }

    /// Applies a record to the fold. Returns its result, and whether it asks for a commit. A dead-lettered record is
    /// not passed to the fold.
    fn apply_to_fold(
        &mut self,
        record: &Record,
        place: &Place,
        dead_lettered: Option<&DeadLettered>,
    ) -> Result<(Result<(), Poison>, bool), TaskError> {
        if let Some(dead_lettered) = dead_lettered {
            return Ok((Err(dead_lettered.poison.clone()), false));
        }
        let mut context = Context { rows: &mut self.rows, out: &mut self.out, commit_now: false };
        let applied = catch_unwind(AssertUnwindSafe(|| self.fold.apply(record, &mut context)));
        let poison = match applied {
            Ok(Ok(applied)) => return Ok((applied, context.commit_now)),
            Ok(Err(FoldError::Unwritable(message))) => Poison { code: Code::Unwritable, message },
            Ok(Err(cause)) => return Err(TaskError::of_fold(self.parts.factory.stage(), cause)),
            Err(panic) => {
                let message = format!("bug: the fold panicked: {}", panic_text(panic.as_ref()));
                Poison { code: Code::Panicked, message }
            }
        };
        // The fold may be in an inconsistent state, so the task reopens without this record.
        Err(TaskError::Unfit { alone: Some(place.clone()), records: 1, next: Some(place.clone()), poison })
    }

    /// The position of the last commit in each input, in a readable form.
    pub(super) fn position(&self) -> String {
        let inputs = self.inputs.iter().filter_map(|input| {
            let committed = input.committed?;
            Some(Place { at: input.at.clone(), offset: committed.0 }.to_string())
        });
        inputs.collect::<Vec<_>>().join(", ")
    }

    /// Whether there is nothing to read and nothing to commit.
    pub(super) fn is_idle(&self) -> bool {
        self.dirty_since.is_none() && self.inputs.iter().all(|input| self.reader.at_end(&input.at))
    }

    fn tick(&mut self, now: Duration) -> Result<bool, TaskError> {
        let (Some(due), Some(every)) = (self.next_tick, self.parts.factory.tick_every()) else { return Ok(false) };
        if now < due {
            return Ok(false);
        }
        self.next_tick = Some(now + every);
        let now_ms = self.parts.clock.now_ms();
        let mut context = Context { rows: &mut self.rows, out: &mut self.out, commit_now: false };
        let stage = self.parts.factory.stage();
        self.fold.tick(now_ms, &mut context).map_err(|cause| TaskError::of_fold(stage, cause))?;
        let commit_now = context.commit_now;
        if commit_now || !self.out.is_empty() || !self.rows.is_clean() {
            self.dirty_since.get_or_insert(now);
        }
        Ok(commit_now)
    }

    /// Commits, unless another task of the stage is committing. In that case the task continues and tries again, but
    /// not for long.
    fn commit_in_turn(&mut self, metrics: &TaskMetrics) -> Result<(), TaskError> {
        let turns = Arc::clone(&self.parts.turns);
        // A task that panicked during its turn has given it up.
        let turn = turns.try_lock();
        if matches!(turn, Err(TryLockError::WouldBlock)) {
            let now = self.parts.clock.elapsed();
            let since = *self.waits_since.get_or_insert(now);
            if now < since + TURN_TIMEOUT {
                return Ok(());
            }
        }
        self.commit(metrics)
    }

    /// Commits outputs, rows and positions in one transaction, then writes the rows to the store.
    ///
    /// S0 is the work of the fold so far. S1 to S4 are one call of the log: begin, write, update the group's
    /// positions, commit. S5 is the store, and S6 clears the committed changes. Nothing uncommitted is ever written
    /// to the store.
    pub(crate) fn commit(&mut self, metrics: &TaskMetrics) -> Result<(), TaskError> {
        let stage = self.parts.factory.stage();
        let fold_error = |cause| TaskError::of_fold(stage, cause);
        let started = self.parts.clock.elapsed();
        self.waits_since = None;
        if self.dirty_since.is_none() {
            return Ok(());
        }
        let mut context = Context { rows: &mut self.rows, out: &mut self.out, commit_now: false };
        self.fold.before_commit(&mut context).map_err(fold_error)?;
        let mut changes = self.rows.changes().map_err(fold_error)?;
        let checkpoint = self.checkpoint();
        let mut records = std::mem::take(&mut self.out);
        self.out_bytes = 0;
        let outputs = records.len();
        let changelog = changes.iter().map(|(key, value)| self.to_changelog(key.clone(), value.clone()));
        records.extend(changelog);
        records.push(self.to_changelog(checkpoint::KEY.into(), Some(checkpoint.encode())));
        let written = self.transaction.commit(&records, &self.positions(), self.parts.membership.as_deref());
        let written = written.map_err(|error| self.commit_failed(error))?;
        let changelog_next = written.after(&self.changelog).expect("the checkpoint was written to the changelog");
        let stored = StoredCheckpoint { changelog_next, checkpoint: Some(checkpoint) };
        changes.push((checkpoint::KEY.into(), Some(stored.encode())));
        self.rows.store().write(changes)?;
        self.rows.committed();
        self.commit_seq += 1;
        self.dirty_since = None;
        let (applied, dead_lettered) = std::mem::take(&mut self.applied);
        self.failures.committed(applied, self.last.as_ref(), dead_lettered == 0);
        self.inputs.iter_mut().for_each(|input| input.committed = input.next);
        self.fold.committed();
        if let Some(tracer) = &mut self.tracer {
            let now_us = self.parts.clock.now_ms().saturating_mul(1000);
            let spans = records[..outputs].iter().flat_map(|record| tracer.written(record, now_us));
            spans.for_each(trace::export);
        }
        metrics.committed(self.parts.clock.elapsed().saturating_sub(started));
        Ok(())
    }

    /// Converts the error of a failed commit to the error that ends the task. An unwritable output becomes `Unfit`, which names a
    /// record only if that record was committed on its own. Any other error is passed on.
    fn commit_failed(&self, error: CommitError) -> TaskError {
        let CommitError::Unwritable(_) = &error else { return error.into() };
        let (records, _) = self.applied;
        let alone = self.last.clone().filter(|_| records == 1 && self.failures.is_one_by_one());
        let committed = |input: &Input| Some(Place { at: input.at.clone(), offset: input.committed?.0 });
        let next = alone.clone().or_else(|| self.inputs.iter().find_map(committed));
        TaskError::Unfit { alone, records, next, poison: Poison { code: Code::Unwritable, message: error.to_string() } }
    }

    /// Commits remaining changes and flushes the store, so that the next owner on this machine restores nothing.
    pub(crate) fn close(mut self, metrics: &TaskMetrics) -> Result<(), TaskError> {
        self.commit(metrics)?;
        Ok(self.rows.store().flush()?)
    }

    fn checkpoint(&self) -> Checkpoint {
        let inputs = self.inputs.iter().filter_map(|input| Some((input.name.to_owned(), input.next?)));
        Checkpoint {
            commit_seq: self.commit_seq + 1,
            written_at_ms: self.parts.clock.now_ms(),
            partitions: self.partitions,
            inputs: inputs.collect(),
        }
    }

    fn positions(&self) -> Vec<(TopicPartition, NextOffset)> {
        self.inputs.iter().filter_map(|input| Some((input.at.clone(), input.next?))).collect()
    }

    fn to_changelog(&self, key: bytes::Bytes, value: Option<bytes::Bytes>) -> Outgoing {
        Outgoing {
            topic: self.parts.changelog(),
            target: Target::Partition(self.parts.partition),
            key,
            value,
            headers: Headers::default(),
            timestamp_ms: None,
        }
    }

    /// Measures the lag, and stops the task if the number of partitions of an input has changed.
    fn look_at_inputs(&mut self, now: Duration, metrics: &TaskMetrics) -> Result<(), TaskError> {
        if now < self.next_lag {
            return Ok(());
        }
        self.next_lag = now + self.parts.options.lag_every;
        let (rows, outputs) = (self.rows.dirty_bytes() + self.fold.unsaved_bytes(), self.out_bytes);
        metrics.memory(&[("uncommitted_rows", rows), ("uncommitted_outputs", outputs)]);
        metrics.memory(&self.fold.memory());
        for input in &self.inputs {
            // If the log does not respond, the reader reports it.
            let Ok((start, end)) = self.parts.log.bounds(&input.at) else { continue };
            let at_end = self.reader.at_end(&input.at);
            metrics.lag(input.name, if at_end { 0 } else { end.0 - input.next.unwrap_or(start).0 });
            if let Ok(found) = self.parts.log.partitions(input.name)
                && found != self.partitions
            {
                let (topic, before) = (input.at.topic.to_string(), self.partitions);
                return Err(TaskError::OtherPartitions { topic, found, before });
            }
        }
        Ok(())
    }
}
