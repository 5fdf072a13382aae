//! Stores for the committed rows of tasks. A store is a cache: the changelog is the source of truth, so losing a
//! store costs time but no data.
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
use self::rocks_error::is_in_use;

/// A store error, such as a full disk or a damaged file.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{doing}: {cause}")]
pub struct StoreError {
    /// The action that failed, as a fragment such as `reading a row`.
    pub doing: &'static str,
    /// The cause reported by the implementation.
    pub cause: String,
}

/// New values of rows. `None` removes a row.
pub type Changes = Vec<(Bytes, Option<Bytes>)>;

/// The rows of one task.
pub trait Store: Send {
    /// The row at `key`.
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError>;

    /// Passes each row whose key starts with `prefix` to `row`, in key order, until it returns false.
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

    /// Makes all changes or none. If the process dies, they may be lost; in that case all later changes are lost too.
    fn write(&mut self, changes: Changes) -> Result<(), StoreError>;

    /// Removes all rows.
    fn clear(&mut self) -> Result<(), StoreError>;

    /// Makes all written rows survive the process.
    fn flush(&mut self) -> Result<(), StoreError>;
}

/// Opens the stores of a process.
pub trait Stores: Send + Sync + 'static {
    /// Opens the store of one task. It contains the same rows each time, as far as they have survived.
    fn open(&self, stage: &str, partition: i32) -> Result<Box<dyn Store>, StoreError>;
}

impl<T: Stores> Stores for Arc<T> {
    fn open(&self, stage: &str, partition: i32) -> Result<Box<dyn Store>, StoreError> {
        T::open(self, stage, partition)
    }
}
