//! The logs of the benchmark: their topics, their backlogs, and their output.

use std::{
    collections::BTreeMap,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use serin_schemas::{
    event::WindowRecord,
    ids::EventTime,
    records::{Arm, WindowClosed},
};
use serin_sketches::Summary;
use serin_stream::{
    log::{Log, Polled, Start, WriteError, Writer},
    record::{Outgoing, Record, TopicPartition},
};
use serin_topology::{Cleanup, TopicSpec, Topology};

use crate::load::{Load, MATURITY_US, Mix, WINDOW_US};

/// Topic to which Kafka Streams writes its windows.
const STREAMS_WINDOWS: &str = "streams-windows";
/// Maximum number of records that wait in the writer.
const QUEUE: usize = 200_000;
const PATIENCE: Duration = Duration::from_mins(2);

/// Creates all topics.
pub(crate) fn create(log: &dyn Log, partitions: i32) -> anyhow::Result<()> {
    let mut topics = Topology { partitions, ..Topology::default() }.topics();
    let cleanup = Cleanup::Delete { retention_ms: 86_400_000 };
    topics.push(TopicSpec { name: STREAMS_WINDOWS.into(), partitions, replication: 1, cleanup, settings: Vec::new() });
    Ok(log.create(&topics)?)
}

/// The start of event time.
pub(crate) fn start() -> EventTime {
    EventTime(1_760_000_000_000_000 / WINDOW_US * WINDOW_US)
}

/// Sends a record. When the queue is full, waits until there is room.
pub(crate) fn send(writer: &dyn Writer, record: &Outgoing) -> anyhow::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match writer.send(record.clone()) {
            Ok(()) => return Ok(()),
            Err(WriteError::QueueFull) if Instant::now() < deadline => thread::sleep(Duration::from_millis(1)),
            Err(error) => bail!("the workload cannot be written: {error}"),
        }
    }
}

/// Creates the topics and writes a backlog of `predictions`; returns its number of records.
pub(crate) fn fill(log: &Arc<dyn Log>, mix: &Mix, partitions: i32, predictions: usize) -> anyhow::Result<u64> {
    create(log.as_ref(), partitions)?;
    let writer = log.writer(QUEUE)?;
    let mut load = Load::new(mix.clone(), partitions, start());
    load.make(predictions, &mut |record| send(writer.as_ref(), &record))?;
    load.end(&mut |record| send(writer.as_ref(), &record))?;
    writer.flush(PATIENCE)?;
    ensure!(writer.failed() == 0, "records of the workload were lost");
    Ok(load.made())
}

/// Mean bytes of the records of `events`: values, and values with keys and headers.
pub(crate) fn size(log: &dyn Log) -> anyhow::Result<(f64, f64)> {
    let (mut values, mut all, mut count) = (0, 0, 0);
    let mut reader = log.reader(&[(place(log, serin_topology::EVENTS, 0), Start::Beginning)])?;
    let mut records = Vec::new();
    reader.poll(5000, PATIENCE, &mut records)?;
    for record in &records {
        let value = record.value.as_ref().map_or(0, bytes::Bytes::len);
        values += value;
        all += value + record.key.len();
        all += record.headers.size();
        count += 1;
    }
    Ok((f64::from(values as u32) / f64::from(count), f64::from(all as u32) / f64::from(count)))
}

fn place(log: &dyn Log, topic: &str, partition: i32) -> TopicPartition {
    TopicPartition { topic: log.full_name(topic), partition }
}

/// All records of a topic.
fn read_all(log: &dyn Log, topic: &str) -> anyhow::Result<Vec<Record>> {
    let from: Vec<_> =
        (0..log.partitions(topic)?).map(|partition| (place(log, topic, partition), Start::Beginning)).collect();
    let mut reader = log.reader(&from)?;
    let mut records = Vec::new();
    while reader.poll(10_000, Duration::from_secs(10), &mut records)? == Polled::Records {}
    Ok(records)
}

/// The content of the windows of all partitions: counts and summaries by stream, end of window, arm, metric and segment. The
/// counts of an arm are predictions, errors, invalid, labelled.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Results {
    counts: BTreeMap<(bool, i64, String), [i64; 4]>,
    cells: BTreeMap<(bool, i64, String, String, String), Summary>,
}

impl Results {
    fn count(&mut self, labels: bool, end: i64, arm: &str, values: [i64; 4]) {
        let sums = self.counts.entry((labels, end, arm.to_owned())).or_default();
        for (sum, value) in sums.iter_mut().zip(values) {
            *sum += value;
        }
    }

    fn cell(&mut self, key: (bool, i64, String, String, String), summary: &[u8]) -> anyhow::Result<()> {
        let summary = Summary::decode(summary).map_err(|error| anyhow::anyhow!("{key:?}: {error}"))?;
        match self.cells.entry(key) {
            std::collections::btree_map::Entry::Vacant(cell) => {
                cell.insert(summary);
            }
            std::collections::btree_map::Entry::Occupied(mut cell) => cell.get_mut().merge(&summary)?,
        }
        Ok(())
    }

    /// Reads the output of Serin.
    pub(crate) fn of_serin(log: &dyn Log) -> anyhow::Result<Self> {
        let mut results = Self::default();
        for record in read_all(log, serin_topology::WINDOWS)? {
            let value = record.value.as_ref().context("a window without a value")?;
            if let WindowRecord::WindowClosed(window) = WindowRecord::decode(&record.headers, value)? {
                results.window(&window)?;
            }
        }
        Ok(results)
    }

    fn window(&mut self, window: &WindowClosed) -> anyhow::Result<()> {
        let (labels, end) = (window.maturity.0 == MATURITY_US, window.end.0);
        for arm in &window.arms {
            let values = [arm.predictions, arm.errors, arm.invalid, arm.labelled];
            self.count(labels, end, name(arm.arm), values);
        }
        for cell in &window.cells {
            let segment = cell.segment.value.clone();
            self.cell((labels, end, name(cell.arm).into(), cell.metric.clone(), segment), &cell.summary)?;
        }
        Ok(())
    }

    /// Reads the output of Kafka Streams. Keys are `end|stream|arm|metric|segment`, without a metric for the counts.
    pub(crate) fn of_streams(log: &dyn Log) -> anyhow::Result<Self> {
        let mut results = Self::default();
        for record in read_all(log, STREAMS_WINDOWS)? {
            let key = std::str::from_utf8(&record.key)?;
            let value = record.value.as_deref().context("a window without a value")?;
            let [end, stream, arm, metric, segment] = key.split('|').collect::<Vec<_>>()[..] else {
                bail!("a key of Kafka Streams: {key:?}");
            };
            let (labels, end) = (stream == "1", end.parse()?);
            if metric.is_empty() {
                let mut values = [0; 4];
                let mut rest = value.get(2..).context("counts are cut off")?;
                for count in &mut values {
                    *count = varint(&mut rest).context("counts are cut off")?;
                }
                results.count(labels, end, arm, values);
            } else {
                results.cell((labels, end, arm.into(), metric.into(), segment.into()), value)?;
            }
        }
        Ok(results)
    }

    /// Compares two outputs and returns how many counts and summaries are equal.
    pub(crate) fn expect_equal(&self, other: &Self) -> anyhow::Result<(usize, usize)> {
        for (key, counts) in &self.counts {
            ensure!(
                other.counts.get(key) == Some(counts),
                "{key:?}: {counts:?} here, {:?} there",
                other.counts.get(key)
            );
        }
        for (key, cell) in &self.cells {
            ensure!(other.cells.get(key) == Some(cell), "{key:?}: {cell:?} here, {:?} there", other.cells.get(key));
        }
        let (counts, cells) = (other.counts.len(), other.cells.len());
        ensure!(
            counts == self.counts.len() && cells == self.cells.len(),
            "the other output has windows that are missing here"
        );
        Ok((counts, cells))
    }
}

fn name(arm: Arm) -> &'static str {
    match arm {
        Arm::Stable => "stable",
        Arm::Control => "control",
        Arm::Canary => "canary",
        Arm::Shadow => "shadow",
    }
}

fn varint(bytes: &mut &[u8]) -> Option<i64> {
    let mut value = 0;
    for shift in (0..63).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= i64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}
