//! The non-transactional writer of a simulation. A record is on the log when it is sent, unless the network fails.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use super::{
    Cluster,
    network::{Process, Step},
};
use crate::{
    local::{Local as _, failed},
    log::{LogError, WriteError, Writer},
    record::Outgoing,
};

pub(super) struct SimWriter {
    cluster: Arc<Cluster>,
    process: Process,
    failed: AtomicU64,
    /// Failures that a flush has reported.
    reported: AtomicU64,
}

impl SimWriter {
    pub(super) fn new(cluster: Arc<Cluster>, process: Process) -> Self {
        Self { cluster, process, failed: AtomicU64::new(0), reported: AtomicU64::new(0) }
    }
}

impl Writer for SimWriter {
    fn send(&self, record: Outgoing) -> Result<(), WriteError> {
        let mut placed = Vec::new();
        let resolved = self.cluster.topics.resolve(&record, self.cluster.now_ms(), &mut placed);
        resolved.map_err(|_| WriteError::Closed)?;
        let fate = self.process.at(Step::Write);
        if fate.is_done() {
            self.cluster.append(placed).map_err(|_| WriteError::Closed)?;
        }
        if !fate.is_heard() {
            self.failed.fetch_add(1, Ordering::AcqRel);
        }
        Ok(())
    }

    fn flush(&self, _: std::time::Duration) -> Result<(), LogError> {
        let lost = self.failed();
        match lost - self.reported.swap(lost, Ordering::AcqRel) {
            0 => Ok(()),
            new => Err(failed("flushing a writer", &format!("{new} records could not be written"))),
        }
    }

    fn failed(&self) -> u64 {
        self.failed.load(Ordering::Acquire)
    }
}
