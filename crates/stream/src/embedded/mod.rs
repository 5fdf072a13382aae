//! A log in one `RocksDB` within this process. It is the default of `serin up`, so a laptop needs no broker.
//!
//! A commit is one write with a synced write-ahead log: acknowledged records survive `kill -9` and a power loss, and
//! a transaction is either complete or absent. Only one process at a time can open the directory.
//!
//! Old records are removed according to the topic's policy: after the retention time, or when a newer record has the
//! same key. If the whole log exceeds its size limit, the oldest deletable records are removed early.

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

/// A log on `RocksDB` in this process. Clones share the same log. The directory is unlocked once all clones and their
/// readers and writers are dropped.
pub type EmbeddedLog = LocalLog<RocksStorage>;

/// Options of an embedded log.
#[derive(Clone)]
pub struct EmbeddedOptions {
    /// Prefix of every topic name.
    pub prefix: String,
    /// How long a non-transactional writer lingers to batch records, because each write waits for the disk.
    pub linger: Duration,
    /// Size of the records on disk, in bytes, above which the oldest are removed early.
    pub max_bytes: u64,
    /// Maximum number of open files.
    pub max_open_files: i32,
    /// How long a tombstone stays in a compacted topic.
    pub tombstones_kept: Duration,
    /// How often old records are removed.
    pub tidy_every: Duration,
    /// The clock for the timestamps and ages of records.
    pub clock: Arc<dyn Clock>,
}

impl Default for EmbeddedOptions {
    fn default() -> Self {
        Self {
            prefix: String::new(),
            linger: Duration::from_millis(1),
            max_bytes: 10 << 30,
            max_open_files: 512,
            // The same as Kafka's `delete.retention.ms`.
            tombstones_kept: Duration::from_hours(24),
            tidy_every: Duration::from_secs(5),
            clock: Arc::new(SystemClock::default()),
        }
    }
}

impl EmbeddedLog {
    /// Opens the log in `folder`, which is created if it does not exist.
    pub fn open(folder: &Path, options: EmbeddedOptions) -> Result<Self, LogError> {
        let (alive, gone) = bounded(0);
        let storage = RocksStorage::open(folder, options.max_open_files, alive)?;
        let local = LocalOptions { prefix: options.prefix.clone(), linger: options.linger };
        let log = Self::over(storage, local, Arc::clone(&options.clock))?;
        keeper::start(log.inner(), options, gone).map_err(|error| failed("starting the log's keeper", &error))?;
        Ok(log)
    }

    /// Follows the log in `folder` while another process writes it. The log is read-only and slightly behind.
    /// `scratch` is an empty directory that must live as long as the log.
    pub fn follow(folder: &Path, scratch: &Path, options: &EmbeddedOptions) -> Result<Self, LogError> {
        let (alive, gone) = bounded(0);
        let storage = RocksStorage::follow(folder, scratch, alive)?;
        let local = LocalOptions { prefix: options.prefix.clone(), linger: options.linger };
        let log = Self::over(storage, local, Arc::clone(&options.clock))?;
        follow::start(log.inner(), gone).map_err(|error| failed("following the log", &error))?;
        Ok(log)
    }

    /// Removes old records now. This happens automatically every [`EmbeddedOptions::tidy_every`]; tests choose the
    /// moment.
    pub fn tidy(&self, options: &EmbeddedOptions) -> Result<(), LogError> {
        let mut keeper = keeper::Keeper::new(options.clone());
        keeper.tidy(self.inner()).map_err(|error| failed("removing old records", &error))
    }
}
