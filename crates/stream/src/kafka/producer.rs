//! Shared parts of transactions and non-transactional writers: conversion of records to librdkafka messages, and tracking of
//! deliveries in flight.

use std::{
    collections::BTreeMap,
    ops::{Deref, Range},
    sync::{
        Arc, Condvar, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use bytes::Bytes;
use rdkafka::{
    ClientConfig, ClientContext, Message,
    config::{FromClientConfigAndContext as _, RDKafkaLogLevel},
    error::KafkaError,
    message::{Header, OwnedHeaders},
    producer::{BaseProducer, BaseRecord, DeliveryResult, ProducerContext},
};
use serin_schemas::ids::NextOffset;

use super::client::ErrorLog;
use crate::{
    local::lock,
    partition::partition_of,
    record::{Outgoing, Target, TopicPartition},
};

/// Largest message that a client accepts: Serin's largest record (8 MiB) with its key and headers. The broker
/// enforces the limit of each topic (`max.message.bytes`).
pub(super) const MAX_MESSAGE_BYTES: &str = "9437184";

/// Duration of one poll for events. `rust-rdkafka` spins during the last millisecond of a poll (it rounds a wait down
/// to whole milliseconds). Its own `ThreadedProducer` polls for 100 ms and so uses one percent of a CPU for each idle
/// producer, and there is one producer for each partition of a stage.
const LOOK: Duration = Duration::from_millis(500);

/// A producer with a thread for its events. Dropping the last copy waits for the thread, for at most [`LOOK`].
#[derive(Clone)]
pub(super) struct Producer(Arc<Running>);

struct Running {
    producer: Arc<BaseProducer<Deliveries>>,
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Producer {
    pub(super) fn open(config: &ClientConfig, deliveries: Deliveries) -> Result<Self, KafkaError> {
        let producer = Arc::new(BaseProducer::from_config_and_context(config, deliveries)?);
        let ended = Arc::new(AtomicBool::new(false));
        let (polled, asked) = (Arc::clone(&producer), Arc::clone(&ended));
        let look = move || {
            while !asked.load(Ordering::Acquire) {
                polled.poll(LOOK);
            }
        };
        let thread = thread::Builder::new().name("serin-deliver".into()).spawn(look);
        let thread =
            thread.map_err(|error| KafkaError::ClientCreation(format!("the thread could not be started: {error}")))?;
        Ok(Self(Arc::new(Running { producer, ended, thread: Some(thread) })))
    }
}

impl Deref for Producer {
    type Target = BaseProducer<Deliveries>;

    fn deref(&self) -> &Self::Target {
        &self.0.producer
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the delivery thread of a producer panicked");
        }
    }
}

/// Counts records that were sent and not yet acknowledged, in rounds. A flush ends a round and waits for it.
#[derive(Debug, Default)]
pub(super) struct Deliveries {
    pub(super) errors: ErrorLog,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    round: usize,
    /// Number of unacknowledged records by round.
    pending: BTreeMap<usize, u64>,
    /// Bytes of the keys and values of these records.
    bytes: usize,
    /// Topic, partition and position after the last acknowledged record: a handful of entries. Only tracked for
    /// transactions.
    ends: Option<Vec<(String, i32, i64)>>,
    failed: u64,
    error: Option<KafkaError>,
}

impl Deliveries {
    /// Creates a counter that also tracks the positions of the records.
    pub(super) fn with_ends() -> Self {
        let state = State { ends: Some(Vec::new()), ..State::default() };
        Self { state: Mutex::new(state), ..Self::default() }
    }

    /// Counts a record of `bytes` bytes before it is sent. The returned round must be passed on with the record.
    pub(super) fn sending(&self, bytes: usize) -> usize {
        let mut state = lock(&self.state);
        state.bytes += bytes;
        let round = state.round;
        *state.pending.entry(round).or_default() += 1;
        round
    }

    /// Counts a record that could not be queued.
    pub(super) fn done(&self, round: usize, bytes: usize) {
        self.settle(&mut lock(&self.state), round, bytes);
    }

    /// Removes one record from those in flight.
    fn settle(&self, state: &mut State, round: usize, bytes: usize) {
        state.bytes = state.bytes.saturating_sub(bytes);
        if let Some(count) = state.pending.get_mut(&round) {
            *count -= 1;
            if *count == 0 {
                state.pending.remove(&round);
                self.changed.notify_all();
            }
        }
    }

    /// Ends the round, and waits for all records of this and earlier rounds. Returns false on a timeout.
    pub(super) fn wait(&self, deadline: Instant) -> bool {
        let mut state = lock(&self.state);
        let round = state.round;
        state.round += 1;
        while state.pending.range(..=round).next().is_some() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }

    /// Bytes of the keys and values in flight.
    pub(super) fn waiting(&self) -> usize {
        lock(&self.state).bytes
    }

    /// Number of records that could not be written.
    pub(super) fn failed(&self) -> u64 {
        lock(&self.state).failed
    }

    /// Takes the last error of a record that could not be written.
    pub(super) fn take_error(&self) -> Option<KafkaError> {
        lock(&self.state).error.take()
    }

    /// Takes the positions after the records acknowledged since the last call.
    pub(super) fn take_ends(&self) -> Vec<(TopicPartition, NextOffset)> {
        let ends = lock(&self.state).ends.as_mut().map(std::mem::take).unwrap_or_default();
        ends.into_iter()
            .map(|(topic, partition, next)| (TopicPartition::new(&topic, partition), NextOffset(next)))
            .collect()
    }

    /// Handles the acknowledgement or rejection of a record.
    fn note(&self, result: &DeliveryResult<'_>, round: usize) {
        let mut state = lock(&self.state);
        match result {
            Ok(message) => {
                if let Some(ends) = &mut state.ends {
                    note_end(ends, message.topic(), message.partition(), message.offset() + 1);
                }
            }
            Err((error, _)) => {
                state.failed += 1;
                state.error = Some(error.clone());
            }
        }
        let (Ok(message) | Err((_, message))) = result;
        let bytes = message.key().map_or(0, <[u8]>::len) + message.payload().map_or(0, <[u8]>::len);
        self.settle(&mut state, round, bytes);
    }
}

fn note_end(ends: &mut Vec<(String, i32, i64)>, topic: &str, partition: i32, next: i64) {
    match ends.iter_mut().find(|(known, number, _)| *number == partition && known == topic) {
        Some((_, _, end)) => *end = (*end).max(next),
        None => ends.push((topic.to_owned(), partition, next)),
    }
}

impl ClientContext for Deliveries {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.errors.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.errors.error(error, reason);
    }
}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, round: usize) {
        self.note(result, round);
    }
}

/// The partitions that a record is written to. `None`: the partition does not exist.
pub(super) fn targets(record: &Outgoing, partitions: i32) -> Option<Range<i32>> {
    let one = |partition| partition..partition + 1;
    match record.target {
        Target::ByKey => Some(one(partition_of(&record.key, partitions))),
        Target::Partition(partition) => (0..partitions).contains(&partition).then(|| one(partition)),
        Target::EveryPartition => Some(0..partitions),
    }
}

/// Queues one copy of a record.
pub(super) fn send(producer: &Producer, topic: &str, partition: i32, record: &Outgoing) -> Result<(), KafkaError> {
    use rdkafka::producer::Producer as _;
    let deliveries: Arc<Deliveries> = Arc::clone(producer.client().context());
    let bytes = record.key.len() + record.value.as_ref().map_or(0, Bytes::len);
    let round = deliveries.sending(bytes);
    let mut message: BaseRecord<'_, [u8], [u8], usize> =
        BaseRecord::with_opaque_to(topic, round).partition(partition).key(record.key.as_ref());
    if !record.headers.is_empty() {
        let headers = OwnedHeaders::new_with_capacity(record.headers.len());
        let insert = |headers: OwnedHeaders, (key, value)| headers.insert(Header { key, value: Some(value) });
        message = message.headers(record.headers.iter().fold(headers, insert));
    }
    if let Some(value) = &record.value {
        message = message.payload(value.as_ref());
    }
    if let Some(timestamp_ms) = record.timestamp_ms {
        message = message.timestamp(timestamp_ms);
    }
    producer.send(message).map_err(|(error, _)| {
        deliveries.done(round, bytes);
        error
    })
}

/// Pause before a retry.
pub(super) const RETRY_PAUSE: Duration = Duration::from_millis(1);
