//! Checks which owner may write, and assigns offsets. It is pure: the caller handles the storage and the readers.

use std::collections::{BTreeMap, HashMap};

use super::storage::{Change, Place, StorageError, Stored};

/// Records that are appended atomically, with their owner.
#[derive(Debug)]
pub(super) struct Submission {
    /// Transactional id and epoch; `None` for a plain write.
    pub(super) owner: Option<(String, i64)>,
    /// The records with their partitions, in order.
    pub(super) records: Vec<(Place, Stored)>,
    /// Positions of a group that are committed with the records.
    pub(super) positions: Vec<(String, Place, i64)>,
}

/// The reason why a submission was rejected.
#[derive(Clone, Debug, thiserror::Error)]
pub(super) enum SubmitError {
    /// A newer owner of the id exists.
    #[error("fenced by a newer owner")]
    Fenced,
    /// The storage failed. It is unknown what was stored.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// The offset after the last record written to each partition.
pub(super) type Ends = BTreeMap<Place, i64>;

/// The metadata of a log, which is also in the storage.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    /// Next offset of each partition.
    pub(super) next: HashMap<Place, i64>,
    /// Newest epoch of each transactional id.
    pub(super) epochs: HashMap<String, i64>,
    /// Number of the next topic.
    pub(super) next_topic: u32,
    /// Newest timestamp of each partition with append time.
    pub(super) newest: HashMap<Place, i64>,
}

/// Changes for one atomic write, and the offsets that they use.
#[derive(Debug, Default)]
pub(super) struct Staged {
    pub(super) changes: Vec<Change>,
    pub(super) ends: Ends,
    /// Newest timestamps, as in the [ledger](Ledger::newest).
    newest: BTreeMap<Place, i64>,
}

impl Ledger {
    /// Adds a submission to the staged write.
    pub(super) fn stage(&self, what: Submission, staged: &mut Staged) -> Result<Ends, SubmitError> {
        if let Some((id, epoch)) = &what.owner
            && self.epochs.get(id) != Some(epoch)
        {
            return Err(SubmitError::Fenced);
        }
        let mut written = Ends::new();
        for (place, mut record) in what.records {
            if let Some(&known) = self.newest.get(&place) {
                // The record was stamped before its position among the others was known.
                let newest = staged.newest.entry(place).or_insert(known);
                record.timestamp_ms = record.timestamp_ms.max(*newest);
                *newest = record.timestamp_ms;
            }
            let next = staged.ends.entry(place).or_insert_with(|| self.next.get(&place).copied().unwrap_or(0));
            staged.changes.push(Change::Append { place, offset: *next, record });
            *next += 1;
            written.insert(place, *next);
        }
        let positions = what.positions.into_iter();
        staged.changes.extend(positions.map(|(group, place, next)| Change::Position { group, place, next }));
        Ok(written)
    }

    /// Applies the staged changes after they were written.
    pub(super) fn written(&mut self, staged: &Staged) {
        self.next.extend(&staged.ends);
        self.newest.extend(&staged.newest);
    }

    /// The epoch of the next owner of `id`.
    pub(super) fn next_epoch(&self, id: &str) -> i64 {
        self.epochs.get(id).map_or(0, |epoch| epoch + 1)
    }
}
