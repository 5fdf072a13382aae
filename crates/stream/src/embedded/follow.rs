//! Follows a log that another process writes.

use std::{
    sync::{Arc, Weak},
    thread,
    time::Duration,
};

use crossbeam_channel::{Receiver, RecvTimeoutError};

use super::RocksStorage;
use crate::local::{
    Inner,
    storage::{Storage as _, StorageError},
};

/// How often the writer's files are looked at.
const LOOK: Duration = Duration::from_millis(50);

/// Starts the thread that follows. It ends with the log.
pub(super) fn start(log: &Arc<Inner<RocksStorage>>, gone: Receiver<()>) -> std::io::Result<()> {
    let log: Weak<_> = Arc::downgrade(log);
    thread::Builder::new().name("serin-follow".into()).spawn(move || {
        while gone.recv_timeout(LOOK) == Err(RecvTimeoutError::Timeout)
            && let Some(log) = log.upgrade()
        {
            if let Err(error) = catch_up(&log) {
                tracing::warn!(%error, "the log cannot be followed for the moment");
            }
        }
    })?;
    Ok(())
}

/// Shows readers what was written since the last look. Between two looks the storage does not change, so the bounds that are
/// shown belong to the records that can be read.
fn catch_up(log: &Inner<RocksStorage>) -> Result<(), StorageError> {
    log.storage.catch_up()?;
    let image = log.storage.load()?;
    for (id, spec) in image.topics {
        if log.topics.find(&log.topics.full_name(&spec.name)).is_err() {
            log.topics.add(id, spec);
        }
    }
    for (place, start) in image.starts {
        log.topics.trim(place, start);
    }
    for (place, end) in image.ends {
        log.topics.publish_if_new(place, end);
    }
    Ok(())
}
