//! Reads committed records from explicit offsets.
//!
//! A reader polls without blocking and waits on a channel that is fed by librdkafka's "queue is not empty" callback,
//! so a new record is seen at once, and any thread can wake the reader. In case such a callback is lost (rust-rdkafka
//! #665), it polls again after [`SLICE`].
//!
//! Only librdkafka's end-of-partition event shows that a partition was read to its end: transaction markers and
//! compaction leave gaps, so comparing offsets is not enough. The event contains no topic, so a consumer never has
//! two topics with the same partition number.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::{BufMut as _, BytesMut};
use crossbeam_channel::Receiver;
use rdkafka::{
    Message, Offset, TopicPartitionList,
    config::FromClientConfigAndContext,
    consumer::{BaseConsumer, Consumer},
    error::{KafkaError, RDKafkaErrorCode},
    message::{BorrowedMessage, Headers as _},
};

use super::{
    client::{config_error, drop_aside},
    consumer::LogConsumerContext,
    options::KafkaOptions,
    topics::Topics,
};
use crate::{
    local::{MAX_POLL_BYTES, failed, tail::Wake},
    log::{LogError, Polled, Reader, Start},
    record::{Packing, Record, TopicPartition},
};

/// Records share chunks of this size, so that not each of them is an allocation. A part of a record keeps its whole
/// chunk alive.
const CHUNK: usize = 16 << 10;

/// Typical size of the headers of an event, with some reserve.
const USUAL_HEADERS: usize = 512;

/// Longest wait between two polls.
const SLICE: Duration = Duration::from_millis(50);

pub(super) struct KafkaReader {
    topics: Arc<Topics>,
    parts: Vec<Part>,
    wake: Arc<Wake>,
    woken: Receiver<()>,
    /// The part to start with at the next poll, so that none starves.
    first: usize,
    /// Whether [`Polled::AtEnd`] was returned since the last record.
    reported: bool,
}

/// One consumer.
struct Part {
    consumer: BaseConsumer<LogConsumerContext>,
    /// Sources by partition number.
    sources: HashMap<i32, Source>,
    /// Buffer for the next records.
    chunk: BytesMut,
}

struct Source {
    at: TopicPartition,
    /// The offset after the last record, or the start offset before the first record.
    next: i64,
    at_end: bool,
}

impl KafkaReader {
    pub(super) fn open(
        options: &KafkaOptions,
        topics: &Arc<Topics>,
        from: &[(TopicPartition, Start)],
    ) -> Result<Self, LogError> {
        let mut groups: Vec<HashMap<i32, Source>> = Vec::new();
        for (at, start) in from {
            let source = source(topics, at, *start)?;
            match groups.iter_mut().find(|group| !group.contains_key(&at.partition)) {
                Some(group) => {
                    group.insert(at.partition, source);
                }
                None => groups.push(HashMap::from([(at.partition, source)])),
            }
        }
        let (wake, woken) = Wake::new();
        let parts: Result<Vec<_>, LogError> =
            groups.into_iter().map(|sources| Part::open(options, sources, &wake)).collect();
        Ok(Self { topics: Arc::clone(topics), parts: parts?, wake, woken, first: 0, reported: false })
    }

    fn read(&mut self, max: usize, into: &mut Vec<Record>) -> Result<(), LogError> {
        let until = into.len() + max;
        let mut bytes = 0;
        let count = self.parts.len();
        for turn in 0..count {
            self.parts[(self.first + turn) % count].read(until, &mut bytes, into, &self.topics)?;
        }
        self.first = (self.first + 1) % count.max(1);
        Ok(())
    }

    fn all_at_end(&self) -> bool {
        self.parts.iter().flat_map(|part| part.sources.values()).all(|source| source.at_end)
    }
}

/// Determines and checks the start offset. librdkafka would find an invalid offset later and could not report the
/// valid range.
fn source(topics: &Topics, at: &TopicPartition, start: Start) -> Result<Source, LogError> {
    let (first, end) = topics.bounds(at)?;
    let next = match start {
        Start::Beginning => first,
        Start::End => end,
        Start::At(next) if (first..=end).contains(&next) => next,
        Start::At(next) => return Err(out_of_range(at, next.0, first.0, end.0)),
    };
    Ok(Source { at: at.clone(), next: next.0, at_end: false })
}

fn out_of_range(at: &TopicPartition, wanted: i64, start: i64, end: i64) -> LogError {
    LogError::OutOfRange { topic: at.topic.to_string(), partition: at.partition, wanted, start, end }
}

impl Part {
    fn open(options: &KafkaOptions, sources: HashMap<i32, Source>, wake: &Arc<Wake>) -> Result<Self, LogError> {
        let doing = "opening a reader";
        let config = config(options);
        let consumer = BaseConsumer::from_config_and_context(&config, LogConsumerContext::default());
        let mut consumer = consumer.map_err(|error| config_error(doing, &error))?;
        let wake = Arc::clone(wake);
        consumer.set_nonempty_callback(move || wake.notify());
        let mut assignment = TopicPartitionList::new();
        for source in sources.values() {
            let added =
                assignment.add_partition_offset(&source.at.topic, source.at.partition, Offset::Offset(source.next));
            added.map_err(|error| failed(doing, &error))?;
        }
        consumer.assign(&assignment).map_err(|error| failed(doing, &error))?;
        Ok(Self { consumer, sources, chunk: BytesMut::new() })
    }

    fn read(
        &mut self,
        until: usize,
        bytes: &mut usize,
        into: &mut Vec<Record>,
        topics: &Topics,
    ) -> Result<(), LogError> {
        while into.len() < until && *bytes < MAX_POLL_BYTES {
            match self.consumer.poll(Duration::ZERO) {
                None => break,
                Some(Ok(message)) => {
                    if let Some(source) = self.sources.get_mut(&message.partition()) {
                        source.next = message.offset() + 1;
                        source.at_end = false;
                        *bytes += message.key_len() + message.payload_len();
                        into.push(record(&source.at, &message, &mut self.chunk));
                    }
                }
                Some(Err(KafkaError::PartitionEOF(partition))) => {
                    if let Some(source) = self.sources.get_mut(&partition) {
                        source.at_end = true;
                    }
                }
                Some(Err(error)) => self.judge(&error, topics)?,
            }
        }
        Ok(())
    }

    /// Returns errors that librdkafka does not recover from. It retries after all others.
    fn judge(&self, error: &KafkaError, topics: &Topics) -> Result<(), LogError> {
        use RDKafkaErrorCode as Code;
        let doing = "reading";
        match error {
            KafkaError::MessageConsumption(Code::AutoOffsetReset | Code::OffsetOutOfRange) => {
                for source in self.sources.values() {
                    let (start, end) = topics.bounds(&source.at)?;
                    if !(start.0..=end.0).contains(&source.next) {
                        return Err(out_of_range(&source.at, source.next, start.0, end.0));
                    }
                }
                Err(failed(doing, error))
            }
            KafkaError::MessageConsumptionFatal(_)
            | KafkaError::MessageConsumption(
                Code::UnknownTopic
                | Code::UnknownTopicOrPartition
                | Code::UnknownPartition
                | Code::TopicAuthorizationFailed
                | Code::GroupAuthorizationFailed
                | Code::Authentication,
            ) => Err(self.consumer.context().errors.explain(doing, error)),
            other => {
                tracing::debug!(error = %other, "ignoring an error of a reader");
                Ok(())
            }
        }
    }
}

fn config(options: &KafkaOptions) -> rdkafka::ClientConfig {
    let mut config = options.client();
    let settings = [
        // A group id is required to create a consumer. The reader never subscribes and never commits.
        ("group.id", format!("{}serin-reader", options.prefix)),
        ("enable.auto.commit", "false".into()),
        ("enable.auto.offset.store", "false".into()),
        ("enable.partition.eof", "true".into()),
        ("isolation.level", "read_committed".into()),
        // A position outside of the log is an error, never a reset.
        ("auto.offset.reset", "error".into()),
    ];
    for (name, value) in settings {
        config.set(name, value);
    }
    let preferred = [
        // The broker answers as soon as there is a byte, otherwise after this wait. Only then is the end known.
        ("fetch.min.bytes", "1"),
        ("fetch.wait.max.ms", "100"),
        // The default is 1 s: how long a full queue stops fetching.
        ("fetch.queue.backoff.ms", "10"),
        ("fetch.error.backoff.ms", "100"),
        // The defaults are 64 MiB and 100000 for each consumer, and a process has a dozen consumers.
        ("queued.max.messages.kbytes", "16384"),
        ("queued.min.messages", "5000"),
    ];
    for (name, value) in preferred {
        if !options.properties.contains_key(name) {
            config.set(name, value);
        }
    }
    config
}

/// Copies a message into the chunk. Reads each header only once.
fn record(at: &TopicPartition, message: &BorrowedMessage<'_>, chunk: &mut BytesMut) -> Record {
    let (key, value) = (message.key().unwrap_or_default(), message.payload());
    let body = value.unwrap_or_default();
    // Reserve space for typical headers too, so that no half-packed record is moved to the next chunk.
    let room = key.len() + body.len() + USUAL_HEADERS;
    if chunk.capacity() < room {
        *chunk = BytesMut::with_capacity(room.max(CHUNK));
    }
    chunk.put_slice(key);
    chunk.put_slice(body);
    let mut packing = Packing::behind(chunk);
    for header in message.headers().iter().flat_map(|headers| headers.iter()) {
        packing.push(header.key, header.value.unwrap_or_default());
    }
    let (mut before, headers) = packing.finish();
    let key = before.split_to(key.len());
    let value = value.map(|_| before);
    Record {
        at: at.clone(),
        offset: message.offset(),
        timestamp_ms: message.timestamp().to_millis().unwrap_or(0),
        key,
        value,
        headers,
    }
}

impl Reader for KafkaReader {
    fn poll(&mut self, max: usize, wait: Duration, into: &mut Vec<Record>) -> Result<Polled, LogError> {
        let deadline = Instant::now() + wait;
        let before = into.len();
        loop {
            self.read(max, into)?;
            if into.len() > before {
                self.reported = false;
                return Ok(Polled::Records);
            }
            let at_end = self.all_at_end();
            if at_end && !std::mem::replace(&mut self.reported, true) {
                return Ok(Polled::AtEnd);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || self.wake.interrupted() {
                return Ok(if at_end { Polled::AtEnd } else { Polled::Nothing });
            }
            // The loop polls again after a wake-up and after a timeout.
            let _ = self.woken.recv_timeout(left.min(SLICE));
        }
    }

    fn at_end(&self, at: &TopicPartition) -> bool {
        self.parts.iter().flat_map(|part| part.sources.values()).any(|source| source.at == *at && source.at_end)
    }

    fn waker(&self) -> Arc<dyn Fn() + Send + Sync> {
        let wake = Arc::clone(&self.wake);
        Arc::new(move || wake.interrupt())
    }
}

impl Drop for KafkaReader {
    fn drop(&mut self) {
        drop_aside(std::mem::take(&mut self.parts));
    }
}
