//! Reports silent writers and skewed clocks: in the log when the condition starts and ends, and as metrics.

use std::collections::{BTreeMap, BTreeSet};

use serin_schemas::ids::Span;
use serin_stream::gauge::Series;

use crate::{metrics, writers::Writers};

/// The conditions of one partition that are currently reported.
#[derive(Debug, Default)]
pub(crate) struct Alarms {
    silent: BTreeMap<String, Series>,
    skewed: BTreeMap<String, Series>,
}

impl Alarms {
    /// Reports what has changed. Called after each commit.
    pub(crate) fn report(&mut self, partition: i32, writers: &Writers) {
        let silent: BTreeSet<String> = writers.silent().into_iter().collect();
        for writer in silent.iter().filter(|writer| !self.silent.contains_key(*writer)) {
            tracing::warn!(
                %writer,
                partition,
                "a router is silent: the watermark advances without it, and promotion waits for it"
            );
        }
        for writer in self.silent.keys().filter(|writer| !silent.contains(*writer)) {
            tracing::info!(
                %writer,
                partition,
                "promotion no longer waits for a router: it is heard again, has left or was given up"
            );
        }
        let skewed: BTreeMap<String, Span> = writers.skewed().into_iter().map(|off| (off.writer, off.offset)).collect();
        for (writer, offset) in skewed.iter().filter(|(writer, _)| !self.skewed.contains_key(*writer)) {
            let seconds = offset.as_secs_f64();
            tracing::error!(
                %writer,
                partition,
                seconds,
                "a writer's clock differs from the append timestamps, or its records take that long to arrive: \
                 it no longer holds back the watermark, and its records may be late; check its clock synchronization"
            );
        }
        for writer in self.skewed.keys().filter(|writer| !skewed.contains_key(*writer)) {
            tracing::info!(%writer, partition, "a writer's clock agrees with the append timestamps again");
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
