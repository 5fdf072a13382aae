//! Rows in memory, for tests and for stages whose state is small enough to restore at each start.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex},
};

use bytes::Bytes;

use super::{Changes, Store, StoreError, Stores};
use crate::local::lock;

/// Rows in a map. Clones share the rows.
#[derive(Clone, Debug, Default)]
pub struct MemoryStore(Arc<Mutex<BTreeMap<Bytes, Bytes>>>);

impl MemoryStore {
    /// A copy of all rows.
    pub fn rows(&self) -> BTreeMap<Bytes, Bytes> {
        lock(&self.0).clone()
    }
}

impl Store for MemoryStore {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        Ok(lock(&self.0).get(key).cloned())
    }

    fn visit(&self, prefix: &[u8], row: &mut dyn FnMut(Bytes, Bytes) -> bool) -> Result<(), StoreError> {
        let rows = lock(&self.0);
        let from = rows.range::<[u8], _>((std::ops::Bound::Included(prefix), std::ops::Bound::Unbounded));
        let mut within = from.take_while(|(key, _)| key.starts_with(prefix));
        within.all(|(key, value)| row(key.clone(), value.clone()));
        Ok(())
    }

    fn write(&mut self, changes: Changes) -> Result<(), StoreError> {
        let mut rows = lock(&self.0);
        for (key, value) in changes {
            match value {
                Some(value) => rows.insert(key, value),
                None => rows.remove(&key),
            };
        }
        Ok(())
    }

    fn clear(&mut self) -> Result<(), StoreError> {
        lock(&self.0).clear();
        Ok(())
    }

    fn flush(&mut self) -> Result<(), StoreError> {
        Ok(())
    }
}

/// In-memory stores that outlive their tasks but not the process.
#[derive(Debug, Default)]
pub struct MemoryStores(Mutex<HashMap<(String, i32), MemoryStore>>);

impl MemoryStores {
    /// The store of one task.
    pub fn store(&self, stage: &str, partition: i32) -> MemoryStore {
        lock(&self.0).entry((stage.to_owned(), partition)).or_default().clone()
    }
}

impl Stores for MemoryStores {
    fn open(&self, stage: &str, partition: i32) -> Result<Box<dyn Store>, StoreError> {
        Ok(Box::new(self.store(stage, partition)))
    }
}
