//! Where a task keeps its committed rows. A cache: the changelog is the truth, so losing a store costs time, not data.
//!
//! Invariant: nothing is written here before the transaction that contains it has committed.

mod memory;
#[cfg(feature = "store")]
mod rocks;
#[cfg(any(feature = "embedded", feature = "store"))]
mod rocks_error;

use std::sync::Arc;

use bytes::Bytes;

pub use self::memory::{MemoryStore, MemoryStores};
#[cfg(feature = "store")]
pub use self::rocks::{RocksLimits, RocksStores};
#[cfg(any(feature = "embedded", feature = "store"))]
pub(crate) use self::rocks_error::in_use_or;
#[cfg(feature = "store")]
pub(crate) use self::rocks_error::is_in_use;

/// A store failed: the disk is full, a file is damaged.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{doing}: {cause}")]
pub struct StoreError {
    /// What was being done, as a fragment: `reading a row`.
    pub doing: &'static str,
    /// What the implementation said.
    pub cause: String,
}

/// New values of rows; `None` removes one.
pub type Changes = Vec<(Bytes, Option<Bytes>)>;

/// The rows of one task.
pub trait Store: Send {
    /// The row at `key`.
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError>;

    /// Hands over each row whose key starts with `prefix`, in key order, until `row` returns false.
    fn visit(&self, prefix: &[u8], row: &mut dyn FnMut(Bytes, Bytes) -> bool) -> Result<(), StoreError>;

    /// All rows whose key starts with `prefix`, in key order.
    fn scan(&self, prefix: &[u8]) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
        let mut rows = Vec::new();
        self.visit(prefix, &mut |key, value| {
            rows.push((key, value));
            true
        })?;
        Ok(rows)
    }

    /// Makes all changes, or none. They may be lost when the process dies: then all later ones are lost too.
    fn write(&mut self, changes: Changes) -> Result<(), StoreError>;

    /// Removes all rows.
    fn clear(&mut self) -> Result<(), StoreError>;

    /// Makes what was written survive the process.
    fn flush(&mut self) -> Result<(), StoreError>;
}

/// Opens the stores of a process.
pub trait Stores: Send + Sync + 'static {
    /// The store of one task: the same rows each time, as far as they survived.
    fn open(&self, stage: &str, partition: i32) -> Result<Box<dyn Store>, StoreError>;
}

impl<T: Stores> Stores for Arc<T> {
    fn open(&self, stage: &str, partition: i32) -> Result<Box<dyn Store>, StoreError> {
        T::open(self, stage, partition)
    }
}
