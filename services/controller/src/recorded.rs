//! Reads the newest records of a topic on request, bounded in records and time.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use serde::Serialize;
use serin_schemas::ids::NextOffset;
use serin_stream::{
    log::{Log, LogError, Polled, Start},
    partition_of,
    record::{Record, TopicPartition},
};

/// Maximum number of records per poll.
const BATCH: usize = 500;
/// Longest wait for one batch.
const WAIT: Duration = Duration::from_secs(2);

/// How much is read for one request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bound {
    /// Newest records of each partition that are read.
    pub(crate) records: i64,
    /// Time after which reading ends.
    pub(crate) time: Duration,
}

/// What was read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Read {
    /// The topic.
    topic: &'static str,
    /// Number of records, of all models.
    records: u64,
    /// Whether everything that the topic holds was read.
    pub(crate) complete: bool,
    /// What was not read, and why.
    pub(crate) note: Option<String>,
}

impl Read {
    /// A topic that could not be read.
    pub(crate) fn failed(topic: &'static str, error: &LogError) -> Self {
        Self { topic, records: 0, complete: false, note: Some(format!("{topic} could not be read: {error}")) }
    }
}

/// The partition of a topic that has the records of this key.
pub(crate) fn partition_with(log: &dyn Log, topic: &str, key: &str) -> Result<i32, LogError> {
    Ok(partition_of(key.as_bytes(), log.partitions(topic)?))
}

/// Calls `each` with the newest records of these partitions, in the order of the log. This blocks.
pub(crate) fn newest(
    log: &Arc<dyn Log>,
    topic: &'static str,
    partitions: impl IntoIterator<Item = i32>,
    bound: Bound,
    mut each: impl FnMut(&Record),
) -> Result<Read, LogError> {
    let until = Instant::now() + bound.time;
    let (mut places, mut notes) = (Vec::new(), Vec::new());
    // The end of each partition when reading starts: records that arrive meanwhile are not read.
    let mut ends = BTreeMap::new();
    for partition in partitions {
        let place = TopicPartition { topic: log.full_name(topic), partition };
        let (first, next) = log.bounds(&place)?;
        let from = first.0.max(next.0 - bound.records);
        if from > first.0 {
            notes.push(format!("the newest {} records of {topic}[{partition}] only", bound.records));
        }
        if from < next.0 {
            ends.insert(place.clone(), next);
            places.push((place, Start::At(NextOffset(from))));
        }
    }
    let mut read = Read { topic, records: 0, complete: false, note: None };
    let mut reader = if places.is_empty() { None } else { Some(log.reader(&places)?) };
    let mut records = Vec::new();
    while let Some(reader) = reader.as_mut().filter(|_| !ends.is_empty()) {
        let polled = reader.poll(BATCH, WAIT, &mut records)?;
        for record in records.drain(..) {
            let Some(end) = ends.get(&record.at).copied() else { continue };
            if record.next() >= end {
                ends.remove(&record.at);
            }
            if record.next() <= end {
                read.records += 1;
                each(&record);
            }
        }
        if polled == Polled::AtEnd {
            break;
        }
        ends.retain(|place, _| !reader.at_end(place));
        if !ends.is_empty() && (polled == Polled::Nothing || Instant::now() > until) {
            notes.push(format!("{topic} only as far as it could be read within {} s", bound.time.as_secs()));
            break;
        }
    }
    read.complete = notes.is_empty();
    read.note = (!notes.is_empty()).then(|| format!("read: {}", notes.join(", ")));
    Ok(read)
}
