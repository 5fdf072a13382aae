//! Says who is not heard and whose clock is off: in the log when it begins and ends, and as metrics.

use std::collections::{BTreeMap, BTreeSet};

use serin_schemas::ids::Span;

use crate::{metrics, writers::Writers};

/// What was said last, of one partition.
#[derive(Debug, Default)]
pub(crate) struct Alarms {
    silent: BTreeSet<String>,
    skewed: BTreeMap<String, Span>,
}

impl Alarms {
    /// Says what has changed. Called after each commit.
    pub(crate) fn sound(&mut self, partition: i32, writers: &Writers) {
        let silent: BTreeSet<String> = writers.silent().into_iter().collect();
        for writer in silent.difference(&self.silent) {
            tracing::warn!(%writer, partition, "a router is not heard: event time goes on without it, and promotion waits for it");
            metrics::silent(partition, writer, true);
        }
        for writer in self.silent.difference(&silent) {
            tracing::info!(%writer, partition, "a router is no longer waited for: it is heard again, has left or is given up");
            metrics::silent(partition, writer, false);
        }
        let skewed: BTreeMap<String, Span> = writers.skewed().into_iter().map(|off| (off.writer, off.offset)).collect();
        for (writer, offset) in &skewed {
            let seconds = offset.as_secs_f64();
            if !self.skewed.contains_key(writer) {
                tracing::error!(%writer, partition, seconds, "the clock of a writer is off the log's, or its records take that long: \
                    it does not hold event time, and what it sends may be late; set its clock right");
            }
            metrics::clock_offset(partition, writer, seconds);
        }
        for writer in self.skewed.keys().filter(|writer| !skewed.contains_key(*writer)) {
            tracing::info!(%writer, partition, "the clock of a writer agrees with the log's again");
            metrics::clock_offset(partition, writer, 0.0);
        }
        (self.silent, self.skewed) = (silent, skewed);
    }
}
