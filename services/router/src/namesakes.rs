//! Whether a newer process writes under this router's name.
//!
//! To the fold both are one writer, and the newer process replaces the older one for good: whatever the older one writes is refused.
//! So the older one has to end loudly. It learns of it from `router-status`, where each router reports itself.

use std::{sync::atomic::Ordering, time::Duration};

use serin_schemas::{codec, records::RouterStatus};
use serin_stream::{
    log::{Log, LogError, Reader, Start},
    record::{Record, TopicPartition},
};

use crate::state::{NAME_LOST, Shared};

/// Between two attempts to read the topic.
const RETRY: Duration = Duration::from_secs(30);

/// Reads what routers report of themselves; each reports to every partition, so one is enough.
#[derive(Default)]
pub(crate) struct Namesakes {
    reader: Option<Box<dyn Reader>>,
    /// Steady time before which the topic is not opened again.
    retry_at: Duration,
}

impl Namesakes {
    /// Looks at what was reported since the last look, without waiting. Routing does not depend on it: an error is a warning.
    pub(crate) fn look(&mut self, shared: &Shared, log: &dyn Log) {
        if shared.events.has_lost_name() || shared.leaving.load(Ordering::Relaxed) {
            return;
        }
        let now = shared.clock.source().steady();
        if self.reader.is_none() && now < self.retry_at {
            return;
        }
        match self.read(log) {
            Ok(reports) if reports.iter().any(|report| is_successor(report, shared)) => {
                if shared.events.lose_name() {
                    shared.metrics.name_lost();
                    let name = &shared.config().name;
                    tracing::error!(%name, "another process writes under this router's name; {NAME_LOST}");
                }
            }
            Ok(_) => {}
            Err(error) => {
                tracing::warn!(%error, "router-status cannot be read: another router with the same name would not be noticed");
                self.reader = None;
                self.retry_at = now + RETRY;
            }
        }
    }

    fn read(&mut self, log: &dyn Log) -> Result<Vec<Record>, LogError> {
        let reader = match &mut self.reader {
            Some(reader) => reader,
            empty => {
                let at = TopicPartition { topic: log.full_name("router-status"), partition: 0 };
                empty.insert(log.reader(&[(at, Start::End)])?)
            }
        };
        let mut records = Vec::new();
        reader.poll(1000, Duration::ZERO, &mut records)?;
        Ok(records)
    }
}

/// Whether a report is of a newer process with the same name.
fn is_successor(report: &Record, shared: &Shared) -> bool {
    let body = report.value.as_deref().unwrap_or_default();
    let Ok(status) = codec::read::<RouterStatus>(&report.headers, body) else { return false };
    status.router == shared.config().name && status.incarnation > shared.events.incarnation()
}
