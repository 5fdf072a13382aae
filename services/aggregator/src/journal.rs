//! Rows of the waiting predictions, written in chunks.
//!
//! With one row per prediction, each prediction would write a changelog record when it arrives, another when its
//! label arrives, and a tombstone when its window closes, with all tombstones of a window in one commit. Instead, the
//! predictions of a window share rows: a commit appends chunks with the changed predictions, a later entry replaces
//! an earlier one, and closing the window removes its few chunks.
//!
//! Bounded: a window is rewritten when its chunks contain many more entries than it has waiting predictions.

use std::{collections::BTreeMap, ops::Range};

use bytes::Bytes;
use serin_schemas::ids::{EventTime, Generation};
use serin_stream::fold::{FoldError, Rows};

use crate::{
    join::Join,
    keys::{Group, JoinKey},
    rows::{self, Key, Parts, Table},
};

/// A chunk with at least this many bytes is full.
const CHUNK_BYTES: usize = 64 << 10;
/// This many outdated entries alone do not cause a window to be rewritten.
const SLACK: usize = 1024;

/// The chunks of a window.
#[derive(Clone, Debug, Default)]
struct Chunks {
    /// Numbers of the window's rows.
    rows: Range<u32>,
    /// Number of entries in the rows.
    entries: usize,
    /// Number of waiting predictions.
    waiting: usize,
    /// The chunk that is being written.
    open: Vec<u8>,
}

impl Chunks {
    fn finish(&mut self, group: Group, to: &mut dyn Rows) {
        if !self.open.is_empty() {
            to.put(&rows::chunk(&group, self.rows.end), Bytes::from(std::mem::take(&mut self.open)));
            self.rows.end += 1;
        }
    }
}

/// The rows of all windows.
#[derive(Debug, Default)]
pub(crate) struct Journal {
    windows: BTreeMap<Group, Chunks>,
    /// Windows with an open chunk.
    touched: Vec<Group>,
    /// Keys of rows to remove.
    removed: Vec<Vec<u8>>,
}

impl Journal {
    /// Counts one more waiting prediction.
    pub(crate) fn joined(&mut self, group: Group) {
        self.windows.entry(group).or_default().waiting += 1;
    }

    /// Counts one waiting prediction less.
    pub(crate) fn left(&mut self, group: Group) {
        if let Some(chunks) = self.windows.get_mut(&group) {
            chunks.waiting = chunks.waiting.saturating_sub(1);
        }
    }

    /// Marks the rows of a closed window for removal in the next commit.
    pub(crate) fn close(&mut self, group: Group) {
        if let Some(chunks) = self.windows.remove(&group) {
            self.removed.extend(chunks.rows.map(|number| rows::chunk(&group, number)));
        }
    }

    /// Removes the rows of windows that have closed.
    pub(crate) fn forget(&mut self, to: &mut dyn Rows) {
        for key in self.removed.drain(..) {
            to.delete(&key);
        }
    }

    /// Appends the state of a prediction to the rows of its window. `None`: it no longer waits.
    pub(crate) fn append(
        &mut self,
        group: Group,
        id: &str,
        shadow: bool,
        join: Option<&Join>,
        to: &mut dyn Rows,
    ) -> Result<(), FoldError> {
        // A closed window has no rows any more.
        let Some(chunks) = self.windows.get_mut(&group) else { return Ok(()) };
        if chunks.open.is_empty() {
            chunks.open.push(rows::FORMAT);
            self.touched.push(group);
        }
        chunks.open = rows::append(&(shadow, id, join), std::mem::take(&mut chunks.open))?;
        chunks.entries += 1;
        if chunks.open.len() >= CHUNK_BYTES {
            chunks.finish(group, to);
        }
        Ok(())
    }

    /// Completes the open chunks. Returns the windows that have no waiting prediction or many outdated entries.
    pub(crate) fn finish(&mut self, to: &mut dyn Rows) -> Vec<Group> {
        let mut touched = std::mem::take(&mut self.touched);
        touched.retain(|group| {
            let Some(chunks) = self.windows.get_mut(group) else { return false };
            chunks.finish(*group, to);
            chunks.waiting == 0 || chunks.entries > 2 * chunks.waiting + SLACK
        });
        touched.sort_unstable();
        touched.dedup();
        touched
    }

    /// Removes the rows of a window. The caller then appends everything that waits in it again.
    pub(crate) fn clear(&mut self, group: Group, to: &mut dyn Rows) {
        let Some(chunks) = self.windows.get_mut(&group) else { return };
        let end = chunks.rows.end;
        for number in std::mem::replace(&mut chunks.rows, end..end) {
            to.delete(&rows::chunk(&group, number));
        }
        chunks.entries = 0;
    }

    /// The windows that have rows or will have them with the next commit.
    pub(crate) fn windows(&self) -> impl Iterator<Item = &Group> {
        self.windows.keys()
    }

    /// Reads all rows and passes on the waiting predictions, one window after the other.
    pub(crate) fn restore(
        &mut self,
        from: &dyn Rows,
        waits: &mut dyn FnMut(&mut Self, JoinKey, Join),
    ) -> Result<(), FoldError> {
        let mut window: Option<Group> = None;
        let mut waiting: BTreeMap<JoinKey, Join> = BTreeMap::new();
        let mut finished = |journal: &mut Self, group: Option<Group>, waiting: &mut BTreeMap<JoinKey, Join>| {
            if let Some(group) = group {
                journal.windows.entry(group).or_default().waiting = waiting.len();
            }
            for (key, join) in std::mem::take(waiting) {
                waits(journal, key, join);
            }
        };
        rows::each(from, Key::new(Table::Waiting), |key, value| {
            let mut parts = Parts::of(&key);
            let rollout = parts.u32()?;
            let group = Group { rollout, end: EventTime(parts.i64()?), generation: Generation(parts.i64()?) };
            let number = parts.u32()?;
            if window != Some(group) {
                finished(self, window, &mut waiting);
                window = Some(group);
            }
            let chunks = self.windows.entry(group).or_default();
            if chunks.rows.is_empty() {
                chunks.rows.start = number;
            }
            chunks.rows.end = number + 1;
            let mut rest = rows::body(&value)?;
            while !rest.is_empty() {
                let ((shadow, id, join), after): ((bool, &str, Option<Join>), _) = rows::take(rest)?;
                rest = after;
                chunks.entries += 1;
                let key = JoinKey { id: id.into(), shadow };
                match join {
                    Some(join) => waiting.insert(key, join),
                    None => waiting.remove(&key),
                };
            }
            Ok(())
        })?;
        finished(self, window, &mut waiting);
        Ok(())
    }
}
