//! What transactions and plain writers share: records in librdkafka's form, and the count of what is under way.

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

use super::client::Complaints;
use crate::{
    local::lock,
    partition::partition_of,
    record::{Outgoing, Target, TopicPartition},
};

/// Largest message that a client takes: the largest record of Serin (8 MiB) with key and headers. What a topic takes is the
/// broker's business (`max.message.bytes`).
pub(super) const MAX_MESSAGE_BYTES: &str = "9437184";

/// How long one look for events lasts. For its last millisecond `rust-rdkafka` spins (a wait is rounded down to whole
/// milliseconds), so its own `ThreadedProducer`, with 100 ms, takes a hundredth of a processor for each idle producer; and there
/// is one for each partition of a stage.
const LOOK: Duration = Duration::from_millis(500);

/// A producer with a thread for its events. The last copy waits for the thread when it is dropped: at most [`LOOK`].
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
        let thread = thread.map_err(|error| KafkaError::ClientCreation(format!("no thread can be had: {error}")))?;
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
            tracing::error!("a thread for deliveries panicked");
        }
    }
}

/// Counts what was sent and not yet acknowledged, in rounds: a flush ends a round and waits for it.
#[derive(Debug, Default)]
pub(super) struct Deliveries {
    pub(super) complaints: Complaints,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    round: usize,
    /// Unacknowledged records by round.
    pending: BTreeMap<usize, u64>,
    /// Bytes of their keys and values.
    bytes: usize,
    /// Topic, partition and position after the last acknowledged record: a handful. Only kept for transactions.
    ends: Option<Vec<(String, i32, i64)>>,
    failed: u64,
    error: Option<KafkaError>,
}

impl Deliveries {
    /// Counts, and notes where records went.
    pub(super) fn with_ends() -> Self {
        let state = State { ends: Some(Vec::new()), ..State::default() };
        Self { state: Mutex::new(state), ..Self::default() }
    }

    /// A record of so many bytes is about to be sent; the answer goes with it.
    pub(super) fn sending(&self, bytes: usize) -> usize {
        let mut state = lock(&self.state);
        state.bytes += bytes;
        let round = state.round;
        *state.pending.entry(round).or_default() += 1;
        round
    }

    /// A record was not even queued.
    pub(super) fn done(&self, round: usize, bytes: usize) {
        self.settle(&mut lock(&self.state), round, bytes);
    }

    /// One record less is under way.
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

    /// Ends the round and waits for all records of it and of those before. False: not in time.
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

    /// Bytes of keys and values that are under way.
    pub(super) fn waiting(&self) -> usize {
        lock(&self.state).bytes
    }

    /// Records that were not written.
    pub(super) fn failed(&self) -> u64 {
        lock(&self.state).failed
    }

    /// The last reason for a record not being written, once.
    pub(super) fn take_error(&self) -> Option<KafkaError> {
        lock(&self.state).error.take()
    }

    /// Positions after the acknowledged records, since the last call.
    pub(super) fn take_ends(&self) -> Vec<(TopicPartition, NextOffset)> {
        let ends = lock(&self.state).ends.as_mut().map(std::mem::take).unwrap_or_default();
        ends.into_iter()
            .map(|(topic, partition, next)| (TopicPartition::new(&topic, partition), NextOffset(next)))
            .collect()
    }

    /// A record was acknowledged or refused.
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
        self.complaints.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.complaints.error(error, reason);
    }
}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, round: usize) {
        self.note(result, round);
    }
}

/// The partitions that a record goes to. `None`: there is no such partition.
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

/// A moment, for retries.
pub(super) const MOMENT: Duration = Duration::from_millis(1);
