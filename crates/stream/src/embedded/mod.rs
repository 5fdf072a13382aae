//! The log on one `RocksDB` within this process: the default of `serin up`, so a laptop needs no broker.
//!
//! A commit is one write with a synced write-ahead log: what was acknowledged survives `kill -9` and loss of power, and
//! nothing of a transaction is there unless all of it is. One process at a time has the directory.
//!
//! Old records go as a topic says: after its retention time, or when a newer record has their key. A bound on the size of
//! the whole log drops the oldest of what may be deleted.

mod codec;
mod follow;
mod keeper;
mod storage;

use std::{path::Path, sync::Arc, time::Duration};

use crossbeam_channel::bounded;

pub use self::storage::RocksStorage;
use crate::{
    clock::{Clock, SystemClock},
    local::{LocalLog, LocalOptions, failed},
    log::LogError,
};

/// A log on `RocksDB` in this process. Clones are the same log; the directory is free again once all of them, and their
/// readers and writers, are gone.
pub type EmbeddedLog = LocalLog<RocksStorage>;

/// How an embedded log behaves.
#[derive(Clone)]
pub struct EmbeddedOptions {
    /// Stands before every topic name.
    pub prefix: String,
    /// How long a plain writer waits for company before it writes: each write waits for the disk.
    pub linger: Duration,
    /// Size of the records on disk, in bytes, from which the oldest are dropped early.
    pub max_bytes: u64,
    /// Files that are kept open.
    pub max_open_files: i32,
    /// How long a tombstone stays in a compacted topic.
    pub tombstones_kept: Duration,
    /// How often old records are looked for.
    pub tidy_every: Duration,
    /// The clock, for the timestamps of records and their age.
    pub clock: Arc<dyn Clock>,
}

impl Default for EmbeddedOptions {
    fn default() -> Self {
        Self {
            prefix: String::new(),
            linger: Duration::from_millis(1),
            max_bytes: 10 << 30,
            max_open_files: 512,
            // As Kafka's `delete.retention.ms`.
            tombstones_kept: Duration::from_hours(24),
            tidy_every: Duration::from_secs(5),
            clock: Arc::new(SystemClock::default()),
        }
    }
}

impl EmbeddedLog {
    /// Opens the log in `folder`, which is created if need be.
    pub fn open(folder: &Path, options: EmbeddedOptions) -> Result<Self, LogError> {
        let (alive, gone) = bounded(0);
        let storage = RocksStorage::open(folder, options.max_open_files, alive)?;
        let local = LocalOptions { prefix: options.prefix.clone(), linger: options.linger };
        let log = Self::over(storage, local, Arc::clone(&options.clock))?;
        keeper::start(log.inner(), options, gone).map_err(|error| failed("starting the log's keeper", &error))?;
        Ok(log)
    }

    /// Follows the log in `folder` while another process has it: reads only, a moment behind. `scratch` is an empty folder that
    /// lives as long as the log.
    pub fn follow(folder: &Path, scratch: &Path, options: &EmbeddedOptions) -> Result<Self, LogError> {
        let (alive, gone) = bounded(0);
        let storage = RocksStorage::follow(folder, scratch, alive)?;
        let local = LocalOptions { prefix: options.prefix.clone(), linger: options.linger };
        let log = Self::over(storage, local, Arc::clone(&options.clock))?;
        follow::start(log.inner(), gone).map_err(|error| failed("following the log", &error))?;
        Ok(log)
    }

    /// Looks for old records now. It happens by itself every [`EmbeddedOptions::tidy_every`]; tests choose the moment.
    pub fn tidy(&self, options: &EmbeddedOptions) -> Result<(), LogError> {
        let mut keeper = keeper::Keeper::new(options.clone());
        keeper.tidy(self.inner()).map_err(|error| failed("removing old records", &error))
    }
}
