//! Checks the reports of routers on `router-status`: whether a newer process writes under this router's name, and whether this router's
//! clock is off.
//!
//! The fold treats both processes as one writer, and the newer process replaces the older one permanently: records of the older one are
//! refused. The older process therefore has to report an error.
//!
//! A router also reads its own reports. They contain its clock, and the difference to the log's timestamp is the offset of its clock; the
//! delay of a report only makes the clock appear behind.

use std::{sync::atomic::Ordering, time::Duration};

use serin_schemas::{codec, records::RouterStatus};
use serin_stream::{
    log::{Log, LogError, Reader, Start},
    record::{Record, TopicPartition},
};
use serin_topology::ROUTER_STATUS;

use crate::state::{NAME_LOST, Shared};

/// Delay between two attempts to read the topic.
const RETRY: Duration = Duration::from_secs(30);

/// Reads the status reports of routers. Each router reports to every partition, so one partition is enough.
#[derive(Default)]
pub(super) struct Namesakes {
    reader: Option<Box<dyn Reader>>,
    /// Steady time before which the topic is not opened again.
    retry_at: Duration,
    /// Number of consecutive reports whose time differed from the log's.
    off_reports: u32,
}

/// Tolerated difference to the log's clock in milliseconds. Larger differences are reported; the aggregator does not wait for such a router
/// either.
const CLOCK_TOLERANCE_MS: i64 = 2000;
/// Number of consecutive reports that show an offset before it is reported. A single report may have been delayed in a queue.
const REPORTS: u32 = 2;

impl Namesakes {
    /// Checks the reports since the last call without blocking. Routing does not depend on it, so errors are only logged.
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

    /// Processes a report under this router's name.
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
        self.off_reports = if off_ms.abs() > CLOCK_TOLERANCE_MS { self.off_reports + 1 } else { 0 };
        let off_ms = if self.off_reports >= REPORTS { off_ms } else { 0 };
        let before = shared.clock_off_ms.swap(off_ms, Ordering::Relaxed);
        shared.metrics.clock_off(off_ms);
        if off_ms != 0 && before == 0 {
            tracing::error!(
                off_ms,
                "this machine's clock differs from the append timestamps: the aggregator does not wait for this router's event time, and \
                its events may be late; correct the clock"
            );
        } else if off_ms == 0 && before != 0 {
            tracing::info!("this machine's clock agrees with the append timestamps again");
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

/// The status in a report under this router's name.
fn namesake(report: &Record, shared: &Shared) -> Option<RouterStatus> {
    let body = report.value.as_deref().unwrap_or_default();
    let status = codec::read::<RouterStatus>(&report.headers, body).ok()?;
    (status.router == shared.events.name()).then_some(status)
}
