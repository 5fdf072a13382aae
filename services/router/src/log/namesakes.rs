//! What a router learns from the reports of routers on `router-status`: whether a newer process writes under its name, and whether its
//! clock is off.
//!
//! To the fold both are one writer, and the newer process replaces the older one for good: whatever the older one writes is refused.
//! So the older one has to end loudly.
//!
//! A router reads its own reports back, too. They carry its clock, and the log's timestamp beside it shows how far that is off; what a
//! report takes to the log only makes it look behind.

use std::{sync::atomic::Ordering, time::Duration};

use serin_schemas::{codec, records::RouterStatus};
use serin_stream::{
    log::{Log, LogError, Reader, Start},
    record::{Record, TopicPartition},
};
use serin_topology::ROUTER_STATUS;

use crate::state::{NAME_LOST, Shared};

/// Between two attempts to read the topic.
const RETRY: Duration = Duration::from_secs(30);

/// Reads what routers report of themselves; each reports to every partition, so one is enough.
#[derive(Default)]
pub(crate) struct Namesakes {
    reader: Option<Box<dyn Reader>>,
    /// Steady time before which the topic is not opened again.
    retry_at: Duration,
    /// Reports in a row whose time was not the log's.
    astray: u32,
}

/// A clock that is further off the log's than this, in milliseconds, is reported: the aggregator does not wait for it either.
const CLOCK_TOLERANCE_MS: i64 = 2000;
/// One report may have waited in a queue; so many in a row speak for the clock.
const REPORTS: u32 = 2;

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
            Ok(reports) => {
                let own = reports.iter().filter_map(|report| Some((report.timestamp_ms, namesake(report, shared)?)));
                for (stamp_ms, status) in own {
                    self.take(stamp_ms, &status, shared);
                }
            }
            Err(error) => {
                tracing::warn!(%error, "router-status cannot be read: another router with the same name would not be noticed");
                self.reader = None;
                self.retry_at = now + RETRY;
            }
        }
    }

    /// Takes a report under this router's name.
    fn take(&mut self, stamp_ms: i64, status: &RouterStatus, shared: &Shared) {
        if status.incarnation > shared.events.incarnation() && shared.events.lose_name() {
            shared.metrics.name_lost();
            let name = shared.events.name();
            tracing::error!(%name, "another process writes under this router's name; {NAME_LOST}");
        }
        if status.incarnation != shared.events.incarnation() || shared.clock.is_replay() {
            return;
        }
        let off_ms = status.at.0 / 1000 - stamp_ms;
        self.astray = if off_ms.abs() > CLOCK_TOLERANCE_MS { self.astray + 1 } else { 0 };
        let off_ms = if self.astray >= REPORTS { off_ms } else { 0 };
        let before = shared.clock_off_ms.swap(off_ms, Ordering::Relaxed);
        shared.metrics.clock_off(off_ms);
        if off_ms != 0 && before == 0 {
            tracing::error!(
                off_ms,
                "this machine's clock is off the log's: the router does not hold event time, and its events may be \
                late; set the clock right"
            );
        } else if off_ms == 0 && before != 0 {
            tracing::info!("this machine's clock agrees with the log's again");
        }
    }

    fn read(&mut self, log: &dyn Log) -> Result<Vec<Record>, LogError> {
        let reader = match &mut self.reader {
            Some(reader) => reader,
            empty => {
                let at = TopicPartition { topic: log.full_name(ROUTER_STATUS), partition: 0 };
                empty.insert(log.reader(&[(at, Start::End)])?)
            }
        };
        let mut records = Vec::new();
        reader.poll(1000, Duration::ZERO, &mut records)?;
        Ok(records)
    }
}

/// A report under this router's name.
fn namesake(report: &Record, shared: &Shared) -> Option<RouterStatus> {
    let body = report.value.as_deref().unwrap_or_default();
    let status = codec::read::<RouterStatus>(&report.headers, body).ok()?;
    (status.router == shared.events.name()).then_some(status)
}
