//! The log in memory: for tests and simulation. Same behaviour as the others, no durability.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex},
};

use crate::{
    clock::{Clock, SystemClock},
    local::{
        LocalLog, LocalOptions, lock,
        storage::{Change, Image, Place, Storage, StorageError, Stored},
    },
};

/// How long a tombstone stays: Kafka's `delete.retention.ms`.
const TOMBSTONES_KEPT_MS: i64 = 24 * 3600 * 1000;

/// A log in memory. Clones are the same log; it is gone with the last of them.
pub type MemoryLog = LocalLog<MemoryStorage>;

impl MemoryLog {
    /// An empty log without a prefix, on the machine's clock.
    pub fn new() -> Self {
        Self::with(LocalOptions::default(), Arc::new(SystemClock::default()))
    }

    /// An empty log. It always leaves gaps after transactions, so that nobody relies on offsets without holes.
    ///
    /// # Panics
    /// Never: an empty storage always opens.
    pub fn with(options: LocalOptions, clock: Arc<dyn Clock>) -> Self {
        let options = LocalOptions { markers: true, ..options };
        Self::over(MemoryStorage::default(), options, clock).expect("an empty storage always opens")
    }

    /// Removes all records for whose key there is a newer one, and tombstones older than a day by the log's clock, in topics
    /// that are compacted. Kafka does it some time later; here tests choose the moment.
    pub fn compact(&self) {
        let oldest_tombstone = self.inner().clock.now_ms().saturating_sub(TOMBSTONES_KEPT_MS);
        self.inner().alone(|_| lock(&self.inner().storage.0).compact(oldest_tombstone));
    }
}

impl Default for MemoryLog {
    fn default() -> Self {
        Self::new()
    }
}

/// Keeps records in maps.
#[derive(Debug, Default)]
pub struct MemoryStorage(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    records: HashMap<Place, BTreeMap<i64, Stored>>,
    positions: HashMap<(String, Place), i64>,
    compacted: Vec<u32>,
}

impl State {
    fn apply(&mut self, change: Change) {
        match change {
            Change::Append { place, offset, record } => {
                self.records.entry(place).or_default().insert(offset, record);
            }
            Change::Position { group, place, next } => {
                self.positions.insert((group, place), next);
            }
            Change::Remove { place, offset } => {
                self.records.entry(place).or_default().remove(&offset);
            }
            Change::Start { place, start } => {
                self.records.entry(place).or_default().retain(|offset, _| *offset >= start);
            }
            Change::Topic { id, spec } if spec.cleanup == serin_topology::Cleanup::Compact => self.compacted.push(id),
            // The log itself holds these while it lives.
            Change::Topic { .. } | Change::Epoch { .. } | Change::End { .. } => {}
        }
    }

    fn compact(&mut self, oldest_tombstone: i64) {
        for (place, records) in &mut self.records {
            if !self.compacted.contains(&place.topic) {
                continue;
            }
            let newest: HashMap<_, i64> =
                records.iter().map(|(offset, record)| (record.key.clone(), *offset)).collect();
            records.retain(|offset, record| {
                let is_kept = record.value.is_some() || record.timestamp_ms >= oldest_tombstone;
                is_kept && newest.get(&record.key) == Some(offset)
            });
        }
    }
}

impl Storage for MemoryStorage {
    fn load(&self) -> Result<Image, StorageError> {
        Ok(Image::default())
    }

    fn write(&self, changes: Vec<Change>, _durable: bool) -> Result<(), StorageError> {
        let mut state = lock(&self.0);
        for change in changes {
            state.apply(change);
        }
        Ok(())
    }

    fn read(
        &self,
        place: Place,
        from: i64,
        until: i64,
        sink: &mut dyn FnMut(i64, Stored) -> bool,
    ) -> Result<(), StorageError> {
        let state = lock(&self.0);
        let Some(records) = state.records.get(&place) else { return Ok(()) };
        for (offset, record) in records.range(from..until) {
            if !sink(*offset, record.clone()) {
                break;
            }
        }
        Ok(())
    }

    fn position(&self, group: &str, place: Place) -> Result<Option<i64>, StorageError> {
        Ok(lock(&self.0).positions.get(&(group.to_owned(), place)).copied())
    }
}
