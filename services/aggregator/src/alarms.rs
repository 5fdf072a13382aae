//! Says who is not heard and whose clock is off: in the log when it begins and ends, and as metrics.

use std::collections::{BTreeMap, BTreeSet};

use serin_schemas::ids::Span;
use serin_stream::gauge::Series;

use crate::{metrics, writers::Writers};

/// What was said last, of one partition.
#[derive(Debug, Default)]
pub(crate) struct Alarms {
    silent: BTreeMap<String, Series>,
    skewed: BTreeMap<String, Series>,
}

impl Alarms {
    /// Says what has changed. Called after each commit.
    pub(crate) fn sound(&mut self, partition: i32, writers: &Writers) {
        let silent: BTreeSet<String> = writers.silent().into_iter().collect();
        for writer in silent.iter().filter(|writer| !self.silent.contains_key(*writer)) {
            tracing::warn!(%writer, partition, "a router is not heard: event time goes on without it, and promotion waits for it");
        }
        for writer in self.silent.keys().filter(|writer| !silent.contains(*writer)) {
            tracing::info!(%writer, partition, "a router is no longer waited for: it is heard again, has left or is given up");
        }
        let skewed: BTreeMap<String, Span> = writers.skewed().into_iter().map(|off| (off.writer, off.offset)).collect();
        for (writer, offset) in skewed.iter().filter(|(writer, _)| !self.skewed.contains_key(*writer)) {
            let seconds = offset.as_secs_f64();
            tracing::error!(%writer, partition, seconds, "the clock of a writer is off the log's, or its records take that long: \
                it does not hold event time, and what it sends may be late; set its clock right");
        }
        for writer in self.skewed.keys().filter(|writer| !skewed.contains_key(*writer)) {
            tracing::info!(%writer, partition, "the clock of a writer agrees with the log's again");
        }
        self.silent.retain(|writer, _| silent.contains(writer));
        for writer in silent {
            self.silent.entry(writer).or_insert_with_key(|writer| metrics::silent(partition, writer));
        }
        self.skewed.retain(|writer, _| skewed.contains_key(writer));
        for (writer, offset) in skewed {
            let seconds = offset.as_secs_f64();
            let new = |writer: &String| metrics::clock_offset(partition, writer, seconds);
            self.skewed.entry(writer).or_insert_with_key(new).set(seconds);
        }
    }
}
