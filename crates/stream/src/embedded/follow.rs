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

/// How often the writer's files are checked.
const LOOK: Duration = Duration::from_millis(50);

/// Starts the thread that follows the log. It ends with the log.
pub(super) fn start(log: &Arc<Inner<RocksStorage>>, gone: Receiver<()>) -> std::io::Result<()> {
    let log: Weak<_> = Arc::downgrade(log);
    thread::Builder::new().name("serin-follow".into()).spawn(move || {
        while gone.recv_timeout(LOOK) == Err(RecvTimeoutError::Timeout)
            && let Some(log) = log.upgrade()
        {
            if let Err(error) = catch_up(&log) {
                tracing::warn!(%error, "following the log failed; will retry");
            }
        }
    })?;
    Ok(())
}

/// Makes the records visible that were written since the last check. The storage does not change between two checks,
/// so the published bounds match the records that can be read.
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
