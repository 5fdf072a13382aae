//! Removes old records: those past their retention, those with a newer record of the same key, and the oldest ones
//! when the disk fills.

use std::{
    collections::HashMap,
    sync::{Arc, Weak},
    thread,
};

use bytes::Bytes;
use crossbeam_channel::{Receiver, RecvTimeoutError};
use serin_topology::Cleanup;

use super::{EmbeddedOptions, RocksStorage};
use crate::local::{
    Inner,
    storage::{Change, Place, Storage, StorageError, Stored},
    tail::Tail,
    topics::Topic,
};

/// A compacted partition is compacted after this many appended records, or after as many as it has live records,
/// whichever is larger. Compaction so costs a constant factor of appending.
const MIN_DIRTY: i64 = 10_000;
/// Number of records removed per write.
const REMOVE_BATCH: usize = 10_000;
/// The fraction of a partition that is removed when the log is too large: one tenth.
const EARLY_SHARE: i64 = 10;

/// Starts the keeper's thread. It ends with the log.
pub(super) fn start(
    log: &Arc<Inner<RocksStorage>>,
    options: EmbeddedOptions,
    gone: Receiver<()>,
) -> std::io::Result<()> {
    let log: Weak<_> = Arc::downgrade(log);
    let every = options.tidy_every;
    let mut keeper = Keeper::new(options);
    thread::Builder::new().name("serin-keeper".into()).spawn(move || {
        while gone.recv_timeout(every) == Err(RecvTimeoutError::Timeout)
            && let Some(log) = log.upgrade()
        {
            if let Err(error) = keeper.tidy(&log) {
                tracing::error!(%error, "old records could not be removed");
            }
        }
    })?;
    Ok(())
}

/// The keeper's state between passes.
pub(super) struct Keeper {
    options: EmbeddedOptions,
    /// For each compacted partition, its end and its number of live records at the last pass.
    compacted: HashMap<Place, (i64, i64)>,
}

impl Keeper {
    pub(super) fn new(options: EmbeddedOptions) -> Self {
        Self { options, compacted: HashMap::new() }
    }

    /// Makes one pass over all partitions.
    pub(super) fn tidy(&mut self, log: &Inner<RocksStorage>) -> Result<(), StorageError> {
        let now_ms = self.options.clock.now_ms();
        let too_large = log.storage.size()? > self.options.max_bytes;
        for topic in log.topics.all() {
            for (partition, tail) in topic.tails.iter().enumerate() {
                let place = topic.place(partition as i32);
                match topic.spec.cleanup {
                    Cleanup::Compact => self.compact(&log.storage, place, tail, now_ms)?,
                    Cleanup::Delete { retention_ms } => {
                        expire(&log.storage, place, tail, now_ms.saturating_sub(retention_ms), retention_ms >= 0)?;
                        if too_large {
                            drop_early(&log.storage, &topic, place, tail)?;
                        }
                    }
                }
            }
        }
        Ok(())
    }

    fn compact(&mut self, storage: &RocksStorage, place: Place, tail: &Tail, now_ms: i64) -> Result<(), StorageError> {
        let (seen, live) = self.compacted.get(&place).copied().unwrap_or((0, 0));
        let end = tail.end();
        if end - seen < live.max(MIN_DIRTY) {
            return Ok(());
        }
        let oldest_tombstone = now_ms - i64::try_from(self.options.tombstones_kept.as_millis()).unwrap_or(i64::MAX);
        let live = compact(storage, place, tail.start(), end, oldest_tombstone)?;
        self.compacted.insert(place, (end, live));
        Ok(())
    }
}

/// Removes all records before `end` that have a newer record of the same key, and tombstones older than
/// `oldest_tombstone`. Returns the number of records left.
fn compact(
    storage: &RocksStorage,
    place: Place,
    start: i64,
    end: i64,
    oldest_tombstone: i64,
) -> Result<i64, StorageError> {
    let mut newest: HashMap<Bytes, (i64, bool)> = HashMap::new();
    let mut gone = Vec::new();
    storage.read(place, start, end, &mut |offset, Stored { timestamp_ms, key, value, .. }| {
        let is_old_tombstone = value.is_none() && timestamp_ms < oldest_tombstone;
        // The key is copied: a slice would keep the whole record in memory.
        gone.extend(newest.insert(Bytes::copy_from_slice(&key), (offset, is_old_tombstone)).map(|(older, _)| older));
        true
    })?;
    let tombstones = newest.values().filter(|(_, is_old_tombstone)| *is_old_tombstone);
    gone.extend(tombstones.map(|(offset, _)| *offset));
    let live = newest.values().filter(|(_, is_old_tombstone)| !is_old_tombstone).count();
    for offsets in gone.chunks(REMOVE_BATCH) {
        let changes = offsets.iter().map(|offset| Change::Remove { place, offset: *offset });
        storage.write(changes.collect(), false)?;
    }
    Ok(live as i64)
}

/// Removes records older than `cutoff_ms` from the start.
fn expire(
    storage: &RocksStorage,
    place: Place,
    tail: &Tail,
    cutoff_ms: i64,
    expires: bool,
) -> Result<(), StorageError> {
    let (start, end) = (tail.start(), tail.end());
    if !expires || start == end {
        return Ok(());
    }
    let mut first_kept = end;
    storage.read(place, start, end, &mut |offset, record| {
        if record.timestamp_ms >= cutoff_ms {
            first_kept = offset;
        }
        record.timestamp_ms < cutoff_ms
    })?;
    trim(storage, place, tail, first_kept)
}

/// Removes a fraction of a partition from its start.
fn drop_early(storage: &RocksStorage, topic: &Topic, place: Place, tail: &Tail) -> Result<(), StorageError> {
    let start = tail.start() + (tail.end() - tail.start()) / EARLY_SHARE;
    if start > tail.start() {
        let (topic, partition) = (&topic.spec.name, place.partition);
        tracing::warn!(
            topic,
            partition,
            start,
            "the log is larger than its limit; removing the oldest records before their retention ends"
        );
        trim(storage, place, tail, start)?;
        storage.reclaim(place, start);
    }
    Ok(())
}

fn trim(storage: &RocksStorage, place: Place, tail: &Tail, start: i64) -> Result<(), StorageError> {
    if start <= tail.start() {
        return Ok(());
    }
    // Readers are notified before the records are removed, so a reader at such a position gets an error instead of a
    // gap.
    tail.trim(start);
    storage.write(vec![Change::Start { place, start }], false)
}
