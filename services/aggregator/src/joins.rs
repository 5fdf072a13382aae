//! Predictions that wait for labels, outputs, or the other answer to a mirrored call, bounded in bytes.
//!
//! Beyond the bound, the fraction of request ids whose predictions are kept is halved by a hash of the request id.
//! The hash does not depend on arm or outcome, so both arms are sampled alike. The fraction doubles again when there
//! is room. The bound depends only on the waiting predictions, so a restart has no effect. Early feedback has its
//! own bound (`early.rs`), so labels for unknown ids never displace predictions.

use std::{collections::BTreeMap, sync::Arc};

use foldhash::{HashMap, HashMapExt as _};
use serin_sketches::hash::Salt;
use serin_stream::fold::{FoldError, Rows};

use crate::{
    early::Early,
    join::Join,
    journal::Journal,
    keys::{Group, JoinKey},
    memory::{self, Room},
    metrics::Tally,
    rows::{self, Key, Table},
};

/// Estimated bytes of a window with waiting predictions, here and in the journal.
const WINDOW: usize = 256;

/// The fraction of the bound for predictions. The rest is for early feedback.
const SHARE: (usize, usize) = (3, 4);

/// All predictions that wait on a partition.
#[derive(Debug)]
pub(crate) struct Joins {
    /// Predictions of live answers and of mirrors.
    rows: [HashMap<Arc<str>, Box<Join>>; 2],
    /// Keys of the waiting predictions, by window.
    windows: BTreeMap<Group, Vec<JoinKey>>,
    bytes: usize,
    room: Room,
    /// Feedback and outputs that arrived before their prediction.
    pub(crate) early: Early,
    /// Ids whose hash is at most this value are kept.
    pub(crate) keep: u64,
    salt: Salt,
    /// Predictions that have changed.
    dirty: Vec<JoinKey>,
    /// Predictions that no longer wait, and the windows whose rows contain them.
    gone: Vec<(Group, JoinKey)>,
    journal: Journal,
    /// Approximate bytes of the rows that the next commit writes.
    unsaved: usize,
}

impl Joins {
    /// Creates a table with at most `bytes` of memory and at most `entries` of each kind.
    pub(crate) fn new(bytes: usize, entries: usize) -> Self {
        let predictions = bytes / SHARE.1 * SHARE.0;
        let entries = entries.max(1);
        Self {
            rows: [HashMap::new(), HashMap::new()],
            windows: BTreeMap::new(),
            bytes: 0,
            room: Room { bytes: predictions, entries },
            early: Early::new(Room { bytes: bytes - predictions, entries }),
            keep: u64::MAX,
            salt: Salt::new(b"serin.join"),
            dirty: Vec::new(),
            gone: Vec::new(),
            journal: Journal::default(),
            unsaved: 0,
        }
    }

    /// Number of waiting predictions.
    fn len(&self) -> usize {
        self.rows[0].len() + self.rows[1].len()
    }

    /// Estimated bytes of memory of the waiting predictions.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Approximate bytes of the rows that the next commit writes.
    pub(crate) fn unsaved(&self) -> usize {
        self.unsaved + self.early.unsaved()
    }

    /// Whether this id is in the current sample.
    pub(crate) fn admits(&self, id: &str) -> bool {
        self.keep == u64::MAX || self.salt.hash(id.as_bytes()) <= self.keep
    }

    pub(crate) fn get(&self, id: &str, shadow: bool) -> Option<&Join> {
        self.rows[usize::from(shadow)].get(id).map(Box::as_ref)
    }

    /// A prediction to change. The change must not alter its memory size.
    pub(crate) fn get_mut(&mut self, id: &str, shadow: bool) -> Option<&mut Join> {
        let join = self.rows[usize::from(shadow)].get_mut(id)?;
        if !join.row.dirty {
            join.row.dirty = true;
            self.unsaved += join.cost();
            self.dirty.push(JoinKey { id: Arc::clone(&join.id), shadow });
        }
        Some(join)
    }

    /// Keys of the predictions that wait in a window.
    pub(crate) fn waiting(&self, group: Group) -> &[JoinKey] {
        self.windows.get(&group).map(Vec::as_slice).unwrap_or_default()
    }

    /// Adds a prediction. Its key must not exist yet.
    pub(crate) fn insert(&mut self, key: JoinKey, mut join: Join, tally: &mut Tally) {
        join.row.dirty = true;
        self.unsaved += join.cost();
        self.dirty.push(key.clone());
        self.journal.joined(join.group());
        self.hold(key, join);
        self.make_room(tally);
    }

    /// Adds a prediction to the tables.
    fn hold(&mut self, key: JoinKey, mut join: Join) {
        let window = self.windows.entry(join.group()).or_insert_with(|| {
            self.bytes += WINDOW;
            Vec::new()
        });
        join.place = window.len();
        window.push(key.clone());
        self.bytes += join.cost();
        let table = &mut self.rows[usize::from(key.shadow)];
        table.insert(key.id, Box::new(join));
        memory::shrink(table);
    }

    /// Removes a prediction from the tables.
    fn release(&mut self, key: &JoinKey) -> Option<Box<Join>> {
        let join = self.rows[usize::from(key.shadow)].remove(&key.id)?;
        self.bytes -= join.cost();
        let group = join.group();
        if let Some(window) = self.windows.get_mut(&group) {
            window.swap_remove(join.place);
            if let Some(moved) = window.get(join.place) {
                let table = &mut self.rows[usize::from(moved.shadow)];
                table.entry(Arc::clone(&moved.id)).and_modify(|moved| moved.place = join.place);
            }
            if window.is_empty() {
                self.windows.remove(&group);
                self.bytes -= WINDOW;
            }
        }
        Some(join)
    }

    pub(crate) fn remove(&mut self, key: &JoinKey) {
        let Some(join) = self.release(key) else { return };
        self.journal.left(join.group());
        if join.row.stored {
            self.unsaved += key.id.len();
            self.gone.push((join.group(), key.clone()));
        }
    }

    /// Removes the predictions of a closed window and their rows.
    pub(crate) fn close(&mut self, group: Group) {
        if let Some(waiting) = self.windows.remove(&group) {
            self.bytes -= WINDOW;
            for key in waiting {
                let join = self.rows[usize::from(key.shadow)].remove(&key.id);
                self.bytes -= join.map_or(0, |join| join.cost());
            }
        }
        self.journal.close(group);
    }

    /// Removes the predictions in all windows of a rollout and their rows.
    pub(crate) fn end(&mut self, rollout: u32) {
        let of_rollout = |group: &&Group| group.rollout == rollout;
        let mut groups: Vec<Group> = self.windows.keys().filter(of_rollout).copied().collect();
        groups.extend(self.journal.windows().filter(of_rollout));
        for group in groups {
            self.close(group);
        }
    }

    /// Halves the sample until the bound holds.
    fn make_room(&mut self, tally: &mut Tally) {
        while self.room.is_short(self.bytes, self.len()) && self.keep > 0 {
            self.keep /= 2;
            let (salt, keep) = (self.salt, self.keep);
            let out = |id: &Arc<str>| salt.hash(id.as_bytes()) > keep;
            for shadow in [false, true] {
                let gone: Vec<Arc<str>> = self.rows[usize::from(shadow)].keys().filter(|id| out(id)).cloned().collect();
                tally.sampled_out += gone.len() as u64;
                for id in gone {
                    self.remove(&JoinKey { id, shadow });
                }
            }
            // Free the memory of the removed predictions.
            self.rows.iter_mut().for_each(HashMap::shrink_to_fit);
            self.windows.values_mut().for_each(Vec::shrink_to_fit);
        }
    }

    /// Doubles the sample when there is plenty of room. Called when windows close.
    pub(crate) fn relax(&mut self) {
        if self.keep < u64::MAX && self.room.is_ample(self.bytes, self.len()) {
            self.keep = self.keep.saturating_mul(2).saturating_add(1);
        }
        self.rows.iter_mut().for_each(memory::shrink);
    }

    /// Writes what changed since the last call.
    pub(crate) fn store(&mut self, to: &mut dyn Rows) -> Result<(), FoldError> {
        self.unsaved = 0;
        self.early.store(to)?;
        self.store_predictions(to)
    }

    /// Writes the changed predictions into the rows of their windows.
    fn store_predictions(&mut self, to: &mut dyn Rows) -> Result<(), FoldError> {
        let Self { rows, windows, journal, dirty, gone, .. } = self;
        journal.forget(to);
        for (group, JoinKey { id, shadow }) in std::mem::take(gone) {
            journal.append(group, &id, shadow, None, to)?;
        }
        for JoinKey { id, shadow } in std::mem::take(dirty) {
            let Some(join) = rows[usize::from(shadow)].get_mut(&id) else { continue };
            if std::mem::take(&mut join.row.dirty) {
                join.row.stored = true;
                journal.append(join.group(), &id, shadow, Some(&**join), to)?;
            }
        }
        for group in journal.finish(to) {
            journal.clear(group, to);
            for JoinKey { id, shadow } in windows.get(&group).into_iter().flatten() {
                let join = rows[usize::from(*shadow)].get(id);
                journal.append(group, id, *shadow, join.map(Box::as_ref), to)?;
            }
        }
        journal.finish(to);
        Ok(())
    }

    /// Restores stored predictions, as far as there is room. Returns the windows in which predictions wait.
    pub(crate) fn restore(&mut self, from: &mut dyn Rows, tally: &mut Tally) -> Result<Vec<Group>, FoldError> {
        self.early.restore(from, tally)?;
        let mut journal = std::mem::take(&mut self.journal);
        let restored = journal.restore(from, &mut |journal, key, mut join| {
            join.id = Arc::clone(&key.id);
            join.row.stored = true;
            // The journal is needed to remove predictions that do not fit.
            std::mem::swap(&mut self.journal, journal);
            self.hold(key, join);
            self.make_room(tally);
            std::mem::swap(&mut self.journal, journal);
        });
        self.journal = journal;
        restored?;
        self.restore_format_2(from, tally)?;
        Ok(self.windows.keys().copied().collect())
    }

    /// Restores rows of format 2, which had one row per prediction. The next commit writes them into chunks.
    fn restore_format_2(&mut self, from: &mut dyn Rows, tally: &mut Tally) -> Result<(), FoldError> {
        let mut read = Vec::new();
        rows::each(from, Key::new(Table::Join), |row, value| {
            let mut parts = rows::Parts::of(&row);
            let shadow = parts.byte()? != 0;
            let key = JoinKey { id: parts.text()?.into(), shadow };
            let join = Join { id: Arc::clone(&key.id), ..rows::decode(&value)? };
            read.push(row);
            if self.admits(&key.id) {
                self.insert(key, join, tally);
            }
            Ok(())
        })?;
        for row in &read {
            from.delete(row);
        }
        Ok(())
    }
}
