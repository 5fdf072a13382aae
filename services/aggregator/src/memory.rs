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

/// Gives memory of a table back when it is less than 3/8 full. Called after each change.
///
/// A table that entries come to and leave doubles when the marks of removed entries have used up its places, even at a
/// constant number of entries. How often that happens depends on the hash seed of the process, so without this the load
/// could fall to 7/32. The rest of 1/4 free places after the move keeps the number of moves small.
pub(crate) fn shrink<K: Eq + Hash, V>(table: &mut HashMap<K, V>) {
    if table.capacity() > SMALL_TABLE && table.len() < table.capacity() / 8 * 3 {
        table.shrink_to(table.len() / 3 * 4);
    }
}
