//! What state costs in memory, by estimate: bounds are in bytes, and decide the same after a restart.
//!
//! An estimate depends on the values alone, never on how full a table happens to be. `tests/memory` holds each against a
//! counting allocator.

use std::hash::Hash;

use foldhash::HashMap;

/// The share of one entry in a table of `Arc<str>` to a box: 24 bytes and a control byte, at a load between 7/16 and 7/8.
pub(crate) const TABLE_ENTRY: usize = 40;

/// The share of one entry in an ordered set of a time and an `Arc<str>`: 24 bytes, in nodes that are at least half full.
pub(crate) const ORDERED_ENTRY: usize = 40;

/// A shared text: two counters and its bytes, whole words.
pub(crate) const fn shared_text(text: &str) -> usize {
    16 + text.len().next_multiple_of(8)
}

/// A bound of one kind of state.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Room {
    /// Most bytes.
    pub(crate) bytes: usize,
    /// Most entries.
    pub(crate) entries: usize,
}

impl Room {
    /// Whether so much is too much.
    pub(crate) fn is_short(self, bytes: usize, entries: usize) -> bool {
        bytes > self.bytes || entries > self.entries
    }

    /// Whether so much leaves three quarters free.
    pub(crate) fn is_ample(self, bytes: usize, entries: usize) -> bool {
        bytes < self.bytes / 4 && entries < (self.entries / 4).max(1)
    }
}

/// A table this small is not worth the move.
const SMALL_TABLE: usize = 1024;

/// Gives memory of a table back when most of it is empty.
pub(crate) fn shrink<K: Eq + Hash, V>(table: &mut HashMap<K, V>) {
    if table.capacity() > SMALL_TABLE && table.len() < table.capacity() / 8 {
        table.shrink_to(table.len() * 2);
    }
}
