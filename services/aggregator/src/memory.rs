//! Estimates the memory of the state. Bounds are in bytes and must have the same effect after a restart.
//!
//! An estimate depends only on the values, never on how full a table happens to be. `tests/memory` compares each
//! estimate with a counting allocator.

use std::hash::Hash;

use foldhash::HashMap;

/// The share of one entry in a table of `Arc<str>` to a box: 24 bytes and a control byte, at a load between 7/16 and 7/8.
pub(crate) const TABLE_ENTRY: usize = 40;

/// The share of one entry in an ordered set of a time and an `Arc<str>`: 24 bytes, in nodes that are at least half full.
pub(crate) const ORDERED_ENTRY: usize = 40;

/// Bytes of a shared text: two counters and the bytes of the text, rounded up to whole words.
pub(crate) const fn shared_text(text: &str) -> usize {
    16 + text.len().next_multiple_of(8)
}

/// The bound of one kind of state.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Room {
    /// Maximum number of bytes.
    pub(crate) bytes: usize,
    /// Maximum number of entries.
    pub(crate) entries: usize,
}

impl Room {
    /// Whether this usage exceeds the bound.
    pub(crate) fn is_short(self, bytes: usize, entries: usize) -> bool {
        bytes > self.bytes || entries > self.entries
    }

    /// Whether this usage leaves three quarters free.
    pub(crate) fn is_ample(self, bytes: usize, entries: usize) -> bool {
        bytes < self.bytes / 4 && entries < (self.entries / 4).max(1)
    }
}

/// A table of at most this capacity is not worth shrinking.
const SMALL_TABLE: usize = 1024;

/// Frees memory of a table that is less than 3/8 full. Called after each change.
///
/// A table with constant insertions and removals doubles when the tombstones of removed entries have used up its
/// slots, even at a constant number of entries. How often that happens depends on the hash seed of the process, so
/// without this function the load could fall to 7/32. The 1/4 of free slots that remain after shrinking keep the
/// number of reallocations small.
pub(crate) fn shrink<K: Eq + Hash, V>(table: &mut HashMap<K, V>) {
    if table.capacity() > SMALL_TABLE && table.len() < table.capacity() / 8 * 3 {
        table.shrink_to(table.len() / 3 * 4);
    }
}
