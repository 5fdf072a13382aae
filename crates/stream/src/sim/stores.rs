//! Local stores of a simulation, which behave like `RocksDB` without a write-ahead log. Batches that were not flushed
//! when the process died are lost from some batch on. A torn store returns errors until it is cleared, and a lost
//! store is empty.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use bytes::Bytes;

use super::network::{Process, Step};
use crate::{
    local::lock,
    store::{Changes, Store, StoreError, Stores},
};

type Rows = BTreeMap<Bytes, Bytes>;

/// The disk of one machine, which outlives processes. Clones represent the same disk.
#[derive(Clone, Debug, Default)]
pub struct SimDisk(Arc<Mutex<BTreeMap<(String, i32), StoreState>>>);

/// The state of one store.
#[derive(Debug, Default)]
struct StoreState {
    /// Rows that survive a crash.
    flushed: Rows,
    /// Batches that may be lost in a crash.
    batches: Vec<Changes>,
    torn: bool,
}

impl StoreState {
    fn rows(&self) -> Rows {
        let mut rows = self.flushed.clone();
        self.batches.iter().for_each(|batch| apply(&mut rows, batch));
        rows
    }
}

fn apply(rows: &mut Rows, changes: &Changes) {
    for (key, value) in changes {
        match value {
            Some(value) => rows.insert(key.clone(), value.clone()),
            None => rows.remove(key),
        };
    }
}

impl SimDisk {
    /// Creates an empty disk.
    pub fn new() -> Self {
        Self::default()
    }

    /// Simulates a process crash. For each store, `keep` returns how many of its unflushed batches had reached the
    /// disk.
    pub fn crash(&self, mut keep: impl FnMut(usize) -> usize) {
        for kept in lock(&self.0).values_mut() {
            let survive = keep(kept.batches.len()).min(kept.batches.len());
            kept.batches.truncate(survive);
            kept.flush();
        }
    }

    /// Replaces the disk with an empty one.
    pub fn lose(&self) {
        lock(&self.0).clear();
    }

    /// Damages all stores.
    pub fn tear(&self) {
        lock(&self.0).values_mut().for_each(|kept| kept.torn = true);
    }

    /// The rows of one store.
    pub fn rows(&self, stage: &str, partition: i32) -> BTreeMap<Bytes, Bytes> {
        lock(&self.0).get(&(stage.to_owned(), partition)).map(StoreState::rows).unwrap_or_default()
    }

    /// Writes rows into a store, for tests of state that other versions left behind.
    pub fn put(&self, stage: &str, partition: i32, changes: &Changes) {
        apply(&mut lock(&self.0).entry((stage.to_owned(), partition)).or_default().flushed, changes);
    }
}

impl StoreState {
    fn flush(&mut self) {
        for batch in std::mem::take(&mut self.batches) {
            apply(&mut self.flushed, &batch);
        }
    }
}

/// The stores of a process on a disk.
#[derive(Clone)]
pub struct SimStores {
    disk: SimDisk,
    process: Process,
}

impl SimStores {
    /// Creates stores without faults.
    pub fn new(disk: &SimDisk) -> Self {
        Self { disk: disk.clone(), process: Process::undisturbed() }
    }

    /// Creates the stores of `process`.
    #[cfg(feature = "conformance")]
    pub(crate) fn of(disk: &SimDisk, process: Process) -> Self {
        Self { disk: disk.clone(), process }
    }
}

impl Stores for SimStores {
    fn open(&self, stage: &str, partition: i32) -> Result<Box<dyn Store>, StoreError> {
        let fate = self.process.at(Step::OpenStore);
        if !fate.is_heard() {
            return Err(StoreError { doing: "opening a store", cause: fate.reason().into() });
        }
        let key = (stage.to_owned(), partition);
        lock(&self.disk.0).entry(key.clone()).or_default();
        Ok(Box::new(SimStore { disk: self.disk.clone(), process: self.process.clone(), key }))
    }
}

struct SimStore {
    disk: SimDisk,
    process: Process,
    key: (String, i32),
}

impl SimStore {
    fn with<T>(&self, doing: &'static str, act: impl FnOnce(&mut StoreState) -> T) -> Result<T, StoreError> {
        let mut disk = lock(&self.disk.0);
        let kept = disk.entry(self.key.clone()).or_default();
        if kept.torn {
            return Err(StoreError { doing, cause: "a file is damaged".into() });
        }
        Ok(act(kept))
    }
}

impl Store for SimStore {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        if key == crate::checkpoint::KEY && !self.process.at(Step::ReadStore).is_heard() {
            return Err(StoreError { doing: "reading a row", cause: "the disk failed".into() });
        }
        self.with("reading a row", |kept| {
            let newest = kept.batches.iter().rev().find_map(|batch| {
                let change = batch.iter().rev().find(|(changed, _)| changed == key);
                change.map(|(_, value)| value.clone())
            });
            newest.unwrap_or_else(|| kept.flushed.get(key).cloned())
        })
    }

    fn visit(&self, prefix: &[u8], row: &mut dyn FnMut(Bytes, Bytes) -> bool) -> Result<(), StoreError> {
        let rows: Vec<(Bytes, Bytes)> = self.with("reading rows", |kept| {
            kept.rows().into_iter().filter(|(key, _)| key.starts_with(prefix)).collect()
        })?;
        rows.into_iter().all(|(key, value)| row(key, value));
        Ok(())
    }

    fn write(&mut self, changes: Changes) -> Result<(), StoreError> {
        let fate = self.process.at(Step::WriteStore);
        if fate.is_done() {
            self.with("writing rows", |kept| {
                kept.batches.push(changes);
                // A number of batches triggers a flush.
                if kept.batches.len() > 8 {
                    kept.flush();
                }
            })?;
        }
        if fate.is_heard() { Ok(()) } else { Err(StoreError { doing: "writing rows", cause: fate.reason().into() }) }
    }

    fn clear(&mut self) -> Result<(), StoreError> {
        if self.process.is_dead() {
            return Err(StoreError { doing: "dropping rows", cause: "the process is dead".into() });
        }
        lock(&self.disk.0).insert(self.key.clone(), StoreState::default());
        Ok(())
    }

    fn flush(&mut self) -> Result<(), StoreError> {
        self.with("flushing rows", StoreState::flush)
    }
}
