//! Transactions under one id.
//!
//! Traps that this is built around (`rust-rdkafka`, `librdkafka`): a commit with deliveries outstanding costs 100 ms flat, so
//! they are waited for first; after a timeout the outcome is unknown and the producer must go (no KIP-890); a zombie's calls
//! fail with a fatal error; handing over the positions can wait for ever when the group's coordinator moves, whatever timeout it
//! is given (librdkafka #5456, #5511).

use std::{
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use crossbeam_channel::bounded;
use rdkafka::{
    Offset, TopicPartitionList,
    consumer::ConsumerGroupMetadata,
    error::{KafkaError, RDKafkaErrorCode},
    producer::Producer as _,
};
use serin_schemas::ids::NextOffset;

use super::{
    client::{code, config_error, drop_aside},
    membership::KafkaMembership,
    options::KafkaOptions,
    producer::{Deliveries, MAX_MESSAGE_BYTES, MOMENT, Producer, send, targets},
    topics::Topics,
};
use crate::{
    log::{CommitError, LogError, Membership, Transactional, Written},
    record::{Outgoing, TopicPartition},
};

/// How long a transaction may stay open; then the broker aborts it. Also bounds how long a dead owner holds back readers.
const TRANSACTION: Duration = Duration::from_secs(30);
/// How long taking over may take: the broker may have to end the predecessor's transaction first.
const TAKE_OVER: Duration = Duration::from_secs(40);
/// Between two looks whether librdkafka has let go of the last acknowledgement: it takes microseconds.
const HANDOVER: Duration = Duration::from_micros(50);
/// How long the group may take to accept the positions. When its coordinator moves it needs some seconds.
const POSITIONS: Duration = Duration::from_secs(10);
/// How long an abort is waited for. Without it the broker does it after [`TRANSACTION`].
const ABORT: Duration = Duration::from_secs(5);

/// A copy of a record: full topic name, partition.
type Placed<'a> = (Arc<str>, i32, &'a Outgoing);

pub(super) struct KafkaTransaction {
    topics: Arc<Topics>,
    /// `None` only while it is dropped.
    producer: Option<Producer>,
}

impl KafkaTransaction {
    pub(super) fn open(options: &KafkaOptions, topics: &Arc<Topics>, id: &str) -> Result<Self, LogError> {
        let doing = "taking over a transactional id";
        let mut config = options.client();
        config.set("transactional.id", format!("{}{id}", options.prefix));
        config.set("transaction.timeout.ms", TRANSACTION.as_millis().to_string());
        config.set("message.timeout.ms", TRANSACTION.as_millis().to_string());
        config.set("message.max.bytes", MAX_MESSAGE_BYTES);
        // A commit sends everything at once: there is no more to wait for.
        config.set("linger.ms", "0");
        let preferred = [
            ("compression.type", "lz4"),
            // Default 100 ms. A broker that is still ending the transaction before says "again"; it needs a few milliseconds.
            ("retry.backoff.ms", "5"),
        ];
        for (name, value) in preferred {
            if !options.properties.contains_key(name) {
                config.set(name, value);
            }
        }
        let producer = Producer::open(&config, Deliveries::with_ends());
        let producer = producer.map_err(|error| config_error(doing, &error))?;
        let transaction = Self { topics: Arc::clone(topics), producer: Some(producer) };
        let taken = transaction.producer().init_transactions(TAKE_OVER);
        taken.map_err(|error| transaction.producer().client().context().complaints.explain(doing, &error))?;
        Ok(transaction)
    }

    fn producer(&self) -> &Producer {
        self.producer.as_ref().expect("it is there until the drop")
    }

    fn deliveries(&self) -> &Deliveries {
        self.producer().client().context()
    }

    /// All copies with full names; nothing is sent yet.
    fn resolve<'a>(&self, records: &'a [Outgoing]) -> Result<Vec<Placed<'a>>, CommitError> {
        let mut resolved = Vec::with_capacity(records.len());
        for record in records {
            let topic = self.topics.full_name(record.topic);
            let count = self.topics.count(&topic).map_err(|error| CommitError::Aborted(error.to_string()))?;
            let partitions = targets(record, count);
            let missing = || CommitError::Aborted(format!("{topic} has no partition {:?}", record.target));
            for partition in partitions.ok_or_else(missing)? {
                resolved.push((Arc::clone(&topic), partition, record));
            }
        }
        Ok(resolved)
    }

    /// Everything up to the commit. Whatever fails here: nothing of it will be visible.
    fn produce(
        &self,
        records: &[Placed<'_>],
        positions: &[(TopicPartition, NextOffset)],
        group: Option<&KafkaMembership>,
        deadline: Instant,
    ) -> Result<(), KafkaError> {
        let producer = self.producer();
        producer.begin_transaction()?;
        for (topic, partition, record) in records {
            self.send(topic, *partition, record, deadline)?;
        }
        if let Some(metadata) = group.and_then(KafkaMembership::metadata)
            && !positions.is_empty()
        {
            let mut offsets = TopicPartitionList::new();
            for (at, next) in positions {
                offsets.add_partition_offset(&at.topic, at.partition, Offset::Offset(next.0))?;
            }
            self.send_positions(offsets, metadata)?;
        }
        let in_time = self.deliveries().wait(deadline);
        // The last acknowledgement is still in librdkafka's hands for a moment; a commit that finds it there sleeps 100 ms.
        while producer.in_flight_count() > 0 && Instant::now() < deadline {
            thread::sleep(HANDOVER);
        }
        match self.deliveries().take_error() {
            Some(error) => Err(error),
            None if in_time => Ok(()),
            None => Err(KafkaError::Flush(RDKafkaErrorCode::OperationTimedOut)),
        }
    }

    /// Hands the positions over on a thread of its own: who waits here must not wait for ever. A call that never returns keeps its
    /// producer, which is fenced when the next one takes over.
    fn send_positions(&self, offsets: TopicPartitionList, metadata: ConsumerGroupMetadata) -> Result<(), KafkaError> {
        let failed = KafkaError::ConsumerCommit;
        let producer = self.producer().clone();
        let (tell, told) = bounded(1);
        let started = thread::Builder::new().name("serin-positions".into()).spawn(move || {
            // Nobody waits for an answer that comes too late.
            let _ = tell.send(producer.send_offsets_to_transaction(&offsets, &metadata, POSITIONS));
        });
        started.map_err(|_| failed(RDKafkaErrorCode::CriticalSystemResource))?;
        told.recv_timeout(2 * POSITIONS).unwrap_or_else(|_| Err(failed(RDKafkaErrorCode::OperationTimedOut)))
    }

    /// Queues a record; a full queue empties by itself.
    fn send(&self, topic: &str, partition: i32, record: &Outgoing, deadline: Instant) -> Result<(), KafkaError> {
        loop {
            match send(self.producer(), topic, partition, record) {
                Err(KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull)) if Instant::now() < deadline => {
                    thread::sleep(MOMENT);
                }
                result => return result,
            }
        }
    }

    /// What an error means. `committing`: the commit had been asked for, so it may have happened.
    fn judge(&self, error: &KafkaError, committing: bool) -> CommitError {
        let fatal = self.producer().client().fatal_error();
        let codes = [code(error), fatal.as_ref().map(|(code, _)| *code)];
        if codes.into_iter().flatten().any(is_fenced) {
            return CommitError::Fenced;
        }
        let unwritable = codes.into_iter().flatten().any(is_unwritable);
        let text = fatal.map_or_else(|| error.to_string(), |(_, reason)| format!("{error}: {reason}"));
        let requires_abort = matches!(error, KafkaError::Transaction(error) if error.txn_requires_abort());
        if committing && !requires_abort {
            return CommitError::Unknown(text);
        }
        if let Err(error) = self.producer().abort_transaction(ABORT) {
            tracing::debug!(%error, "the abort was not confirmed; the broker does it");
        }
        if unwritable { CommitError::Unwritable(text) } else { CommitError::Aborted(text) }
    }
}

/// Whether the broker, or the client for it, takes such a record never.
fn is_unwritable(code: RDKafkaErrorCode) -> bool {
    use RDKafkaErrorCode as Code;
    matches!(code, Code::MessageSizeTooLarge | Code::MessageBatchTooLarge | Code::InvalidRecord)
}

fn is_fenced(code: RDKafkaErrorCode) -> bool {
    use RDKafkaErrorCode as Code;
    matches!(code, Code::Fenced | Code::ProducerFenced | Code::InvalidProducerEpoch)
}

impl Transactional for KafkaTransaction {
    fn commit(
        &mut self,
        records: &[Outgoing],
        positions: &[(TopicPartition, NextOffset)],
        group: Option<&dyn Membership>,
    ) -> Result<Written, CommitError> {
        let resolved = self.resolve(records)?;
        let group = group.and_then(|group| group.as_any().downcast_ref::<KafkaMembership>());
        let deadline = Instant::now() + TRANSACTION;
        self.produce(&resolved, positions, group, deadline).map_err(|error| self.judge(&error, false))?;
        self.producer().commit_transaction(TRANSACTION).map_err(|error| self.judge(&error, true))?;
        Ok(Written(self.deliveries().take_ends()))
    }
}

impl Drop for KafkaTransaction {
    fn drop(&mut self) {
        drop_aside(self.producer.take());
    }
}
