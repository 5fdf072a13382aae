//! Opens a task: takes over its id, restores the rows from the changelog, and starts reading at the checkpoint.

use std::time::Duration;

use serin_schemas::ids::NextOffset;

use super::{OpenTask, RecordFailures, TaskError, TaskParts, TaskState};
use crate::{
    checkpoint::{self, Checkpoint, FormatError, StoredCheckpoint},
    log::{LogError, Polled, Reader, Start},
    metrics::TaskMetrics,
    record::{Record, TopicPartition},
    rows::Overlay,
    store::{Changes, Store},
};

/// Changelog records per write to the store: large enough that the cost of a write is negligible.
const RESTORE_BATCH: usize = 5000;
/// Longest wait of one poll during a restore.
const RESTORE_WAIT: Duration = Duration::from_millis(200);
/// A restore without progress for this long is aborted and started again.
const RESTORE_TIMEOUT: Duration = Duration::from_mins(1);

/// Observes an opening task and decides whether it should continue.
pub(crate) trait Watch {
    /// Called when the task enters a state.
    fn entered(&self, state: TaskState);

    /// Whether the task was asked to stop.
    fn stopping(&self) -> bool;
}

/// What to do with the local rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum State {
    /// Use them.
    #[default]
    Kept,
    /// Discard them, because the store has failed.
    Discarded,
}

impl OpenTask {
    /// Opens the task. Each step is safe to repeat:
    ///
    /// - R0 open the store;
    /// - R1 take over the transactional id, which fences the previous owner and ends its transaction;
    /// - R2 read the local checkpoint, and check whether it is usable;
    /// - R3 read the changelog from there to its end;
    /// - R4 use the newest checkpoint, which is the one that was committed last, whatever the previous owner believed;
    /// - R5 read the inputs from there.
    pub(crate) fn open(
        parts: &TaskParts,
        metrics: &TaskMetrics,
        watch: &dyn Watch,
        state: State,
        failures: &RecordFailures,
    ) -> Result<Self, TaskError> {
        let mut store = parts.stores.open(parts.factory.stage(), parts.partition)?;
        if state == State::Discarded {
            store.clear()?;
        }
        // This comes first: it ends the previous owner's transaction, so the end of the changelog does not move
        // afterwards.
        let transaction = parts.log.transactional(&parts.transactional_id())?;
        watch.entered(TaskState::Restoring);
        let stored = restore(parts, metrics, watch, store.as_mut())?;
        let checkpoint = match stored.checkpoint {
            Some(checkpoint) => checkpoint,
            None => first_checkpoint(parts)?,
        };
        let checkpoint = check_inputs(parts, checkpoint)?;
        let reader = read_inputs(parts, &checkpoint)?;
        let mut rows = Overlay::new(store);
        let mut fold = parts.factory.fold(parts.partition);
        fold.open(&mut rows).map_err(|cause| TaskError::of_fold(parts.factory.stage(), cause))?;
        Ok(Self::new(parts, fold, rows, transaction, reader, &checkpoint, failures))
    }
}

/// The start of a task that has never committed. Fails if its group has committed positions.
fn first_checkpoint(parts: &TaskParts) -> Result<Checkpoint, TaskError> {
    for input in parts.factory.inputs().iter().filter(|_| parts.membership.is_some()) {
        if let Some(next) = parts.log.committed(parts.factory.stage(), &parts.on(input))? {
            let evidence =
                format!("the changelog is empty, but the consumer group has committed offset {} of {input}", next.0);
            return Err(other_changelog(&parts.on(parts.changelog()), evidence));
        }
    }
    Ok(Checkpoint::default())
}

/// Compares the number of partitions with the checkpoint's. Gives an input without a position its current start:
/// records that arrive now must not be lost silently if they expire before the first commit.
fn check_inputs(parts: &TaskParts, mut checkpoint: Checkpoint) -> Result<Checkpoint, TaskError> {
    let before = checkpoint.partitions;
    for &input in parts.factory.inputs() {
        let found = parts.log.partitions(input)?;
        if before != 0 && found != before {
            return Err(TaskError::OtherPartitions { topic: parts.log.full_name(input).to_string(), found, before });
        }
        checkpoint.partitions = found;
        if checkpoint.next(input).is_none() {
            let (start, _) = parts.log.bounds(&parts.on(input))?;
            checkpoint.inputs.push((input.to_owned(), start));
        }
    }
    Ok(checkpoint)
}

fn read_inputs(parts: &TaskParts, checkpoint: &Checkpoint) -> Result<Box<dyn Reader>, TaskError> {
    let start = |input: &str| checkpoint.next(input).map_or(Start::Beginning, Start::At);
    let from: Vec<_> = parts.factory.inputs().iter().map(|input| (parts.on(input), start(input))).collect();
    parts.log.reader(&from).map_err(|error| match error {
        cause @ LogError::OutOfRange { .. } => TaskError::Gap { cause },
        other => TaskError::Log(other),
    })
}

fn other_changelog(changelog: &TopicPartition, evidence: String) -> TaskError {
    TaskError::OtherChangelog { topic: changelog.topic.to_string(), partition: changelog.partition, evidence }
}

/// Brings the store to the end of the changelog.
fn restore(
    parts: &TaskParts,
    metrics: &TaskMetrics,
    watch: &dyn Watch,
    store: &mut dyn Store,
) -> Result<StoredCheckpoint, TaskError> {
    let changelog = parts.on(parts.changelog());
    let mut stored = usable(parts, &changelog, store)?;
    let mut reader = parts.log.reader(&[(changelog.clone(), Start::At(stored.changelog_next))])?;
    let mut records = Vec::new();
    let mut progress = parts.clock.elapsed();
    loop {
        if watch.stopping() {
            return Err(TaskError::Stopped);
        }
        let polled = reader.poll(RESTORE_BATCH, RESTORE_WAIT, &mut records)?;
        if !records.is_empty() {
            metrics.restored(records.len());
            progress = parts.clock.elapsed();
            replay(parts, &changelog, &mut records, &mut stored, store)?;
        }
        if polled == Polled::AtEnd || reader.at_end(&changelog) {
            return Ok(stored);
        }
        if parts.clock.elapsed().saturating_sub(progress) > RESTORE_TIMEOUT {
            let (doing, cause) = (format!("restoring from {}", changelog.topic), "no answer from the log".to_owned());
            return Err(LogError::Failed { doing, cause }.into());
        }
    }
}

/// The usable contents of the store. Clears the store if they are not usable.
fn usable(parts: &TaskParts, changelog: &TopicPartition, store: &mut dyn Store) -> Result<StoredCheckpoint, TaskError> {
    // Asks the cluster, so a deleted topic is noticed here.
    parts.log.partitions(parts.changelog())?;
    let (start, end) = parts.log.bounds(changelog)?;
    let stored = match store.get(checkpoint::KEY)?.map(|bytes| StoredCheckpoint::decode(&bytes)) {
        Some(Err(cause @ FormatError::Unknown(_))) => return Err(unreadable("the state store", cause)),
        Some(Ok(stored)) => Some(stored),
        // A damaged cache is discarded, because the changelog contains everything.
        Some(Err(FormatError::Damaged)) | None => None,
    };
    if let Some(stored) = stored {
        if stored.changelog_next > end {
            let evidence = format!("it ends at {}, but was read up to {} before", end.0, stored.changelog_next.0);
            return Err(other_changelog(changelog, evidence));
        }
        if stored.changelog_next >= start && is_fresh(parts, &stored) {
            return Ok(stored);
        }
    }
    store.clear()?;
    Ok(StoredCheckpoint { changelog_next: start, checkpoint: None })
}

/// Whether the changelog still contains every tombstone that the store has not seen.
fn is_fresh(parts: &TaskParts, stored: &StoredCheckpoint) -> bool {
    let age = |checkpoint: &Checkpoint| parts.clock.now_ms().saturating_sub(checkpoint.written_at_ms);
    let kept = i64::try_from(parts.options.tombstones_kept.as_millis()).unwrap_or(i64::MAX);
    stored.checkpoint.as_ref().is_some_and(|checkpoint| age(checkpoint) < kept)
}

fn replay(
    parts: &TaskParts,
    changelog: &TopicPartition,
    records: &mut Vec<Record>,
    stored: &mut StoredCheckpoint,
    store: &mut dyn Store,
) -> Result<(), TaskError> {
    let mut changes: Changes = Vec::with_capacity(records.len() + 1);
    for record in records.drain(..) {
        stored.changelog_next = NextOffset(record.offset + 1);
        if record.key == checkpoint::KEY {
            let place = || format!("{}[{}]@{}", changelog.topic, parts.partition, record.offset);
            let bytes = record.value.as_deref().unwrap_or_default();
            let next = Checkpoint::decode(bytes).map_err(|cause| unreadable(&place(), cause))?;
            let seen = stored.checkpoint.as_ref().map_or(0, |checkpoint| checkpoint.commit_seq);
            if next.commit_seq <= seen {
                let evidence = format!("commit {} follows commit {seen} at {}", next.commit_seq, place());
                return Err(other_changelog(changelog, evidence));
            }
            stored.checkpoint = Some(next);
        } else {
            changes.push((record.key, record.value));
        }
    }
    changes.push((checkpoint::KEY.into(), Some(stored.encode())));
    Ok(store.write(changes)?)
}

fn unreadable(place: &str, cause: FormatError) -> TaskError {
    TaskError::Format { place: place.to_owned(), cause }
}
