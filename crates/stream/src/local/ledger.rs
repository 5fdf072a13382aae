//! Who may write, and which offset a record gets. Pure: storage and readers are served by the caller.

use std::collections::{BTreeMap, HashMap};

use super::storage::{Change, Place, StorageError, Stored};

/// Records to append in one piece, with who appends them.
#[derive(Debug)]
pub(crate) struct Submission {
    /// Transactional id and epoch; `None` for a plain write.
    pub(crate) owner: Option<(String, i64)>,
    /// The records with their places, in order.
    pub(crate) records: Vec<(Place, Stored)>,
    /// Positions of a group that move with them.
    pub(crate) positions: Vec<(String, Place, i64)>,
}

/// Why a submission was not taken.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum SubmitError {
    /// A newer owner of the id exists.
    #[error("fenced by a newer owner")]
    Fenced,
    /// The storage failed; what it kept is unknown.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// Offsets after the last record that was written to each place.
pub(crate) type Ends = BTreeMap<Place, i64>;

/// The bookkeeping of a log. What is here is on the storage too.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    /// Next offset of each partition.
    pub(crate) next: HashMap<Place, i64>,
    /// Newest epoch of each transactional id.
    pub(crate) epochs: HashMap<String, i64>,
    /// Number of the next topic.
    pub(crate) next_topic: u32,
    /// Newest timestamp of each partition whose timestamps are those of appending.
    pub(crate) newest: HashMap<Place, i64>,
}

/// Changes that belong in one write, and the offsets they use.
#[derive(Debug, Default)]
pub(crate) struct Staged {
    pub(crate) changes: Vec<Change>,
    pub(crate) ends: Ends,
    /// Newest timestamps, as in the [ledger](Ledger::newest).
    newest: BTreeMap<Place, i64>,
}

impl Ledger {
    /// Adds a submission to what will be written.
    pub(crate) fn stage(&self, what: Submission, staged: &mut Staged) -> Result<Ends, SubmitError> {
        if let Some((id, epoch)) = &what.owner
            && self.epochs.get(id) != Some(epoch)
        {
            return Err(SubmitError::Fenced);
        }
        let mut written = Ends::new();
        for (place, mut record) in what.records {
            if let Some(&known) = self.newest.get(&place) {
                // It was stamped before it got its place among the others.
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

    /// The staged changes were written.
    pub(crate) fn written(&mut self, staged: &Staged) {
        self.next.extend(&staged.ends);
        self.newest.extend(&staged.newest);
    }

    /// The epoch that a new owner of `id` gets.
    pub(crate) fn next_epoch(&self, id: &str) -> i64 {
        self.epochs.get(id).map_or(0, |epoch| epoch + 1)
    }
}
