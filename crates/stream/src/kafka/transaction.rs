//! Transactions under one id.
//!
//! Known problems of `rust-rdkafka` and `librdkafka` that this code works around:
//!
//! - A commit with outstanding deliveries takes at least 100 ms, so the deliveries are awaited first.
//! - After a timeout the outcome is unknown and the producer must be dropped (no KIP-890).
//! - Calls of a fenced producer fail with a fatal error.
//! - Sending the positions can block forever when the group's coordinator moves, whatever timeout is set (librdkafka #5456,
//!   #5511).

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
    producer::{Deliveries, MAX_MESSAGE_BYTES, Producer, RETRY_PAUSE, send, targets},
    topics::Topics,
};
use crate::{
    log::{CommitError, LogError, Membership, Transactional, Written},
    record::{Outgoing, TopicPartition},
};

/// How long a transaction may stay open before the broker aborts it. This also bounds how long a dead owner holds
/// back readers.
const TRANSACTION: Duration = Duration::from_secs(30);
/// How long taking over an id may take. The broker may have to end the predecessor's transaction first.
const TAKE_OVER: Duration = Duration::from_secs(40);
/// Pause between two checks whether librdkafka has released the last acknowledgement, which takes microseconds.
const HANDOVER: Duration = Duration::from_micros(50);
/// How long the group may take to accept the positions. When its coordinator moves, it needs some seconds.
const POSITIONS: Duration = Duration::from_secs(10);
/// Timeout of an abort. Without it the broker aborts the transaction after [`TRANSACTION`].
const ABORT: Duration = Duration::from_secs(5);

/// A copy of a record with its full topic name and partition.
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
        // A commit sends all its records together, so lingering would only add latency.
        config.set("linger.ms", "0");
        let preferred = [
            ("compression.type", "lz4"),
            // The default is 100 ms. A broker that is still ending the previous transaction asks for a retry and
            // needs a few milliseconds.
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
        taken.map_err(|error| transaction.producer().client().context().errors.explain(doing, &error))?;
        Ok(transaction)
    }

    fn producer(&self) -> &Producer {
        self.producer.as_ref().expect("the producer exists until the drop")
    }

    fn deliveries(&self) -> &Deliveries {
        self.producer().client().context()
    }

    /// Resolves all copies with their full names. Sends nothing yet.
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

    /// Performs all steps before the commit. If a step fails, no record becomes visible.
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
        // librdkafka still holds the last acknowledgement for a moment. A commit during that time sleeps for 100 ms.
        while producer.in_flight_count() > 0 && Instant::now() < deadline {
            thread::sleep(HANDOVER);
        }
        match self.deliveries().take_error() {
            Some(error) => Err(error),
            None if in_time => Ok(()),
            None => Err(KafkaError::Flush(RDKafkaErrorCode::OperationTimedOut)),
        }
    }

    /// Sends the positions on a separate thread, because the call may never return. Such a call keeps its producer,
    /// which is fenced when the next owner takes over.
    fn send_positions(&self, offsets: TopicPartitionList, metadata: ConsumerGroupMetadata) -> Result<(), KafkaError> {
        let failed = KafkaError::ConsumerCommit;
        let producer = self.producer().clone();
        let (send, received) = bounded(1);
        let started = thread::Builder::new().name("serin-positions".into()).spawn(move || {
            // After a timeout there is no receiver.
            let _ = send.send(producer.send_offsets_to_transaction(&offsets, &metadata, POSITIONS));
        });
        started.map_err(|_| failed(RDKafkaErrorCode::CriticalSystemResource))?;
        received.recv_timeout(2 * POSITIONS).unwrap_or_else(|_| Err(failed(RDKafkaErrorCode::OperationTimedOut)))
    }

    /// Queues a record. Retries while the queue is full.
    fn send(&self, topic: &str, partition: i32, record: &Outgoing, deadline: Instant) -> Result<(), KafkaError> {
        loop {
            match send(self.producer(), topic, partition, record) {
                Err(KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull)) if Instant::now() < deadline => {
                    thread::sleep(RETRY_PAUSE);
                }
                result => return result,
            }
        }
    }

    /// Classifies an error. With `committing` the commit was already requested, so it may have happened.
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
            tracing::debug!(%error, "the abort was not confirmed; the broker will abort the transaction");
        }
        if unwritable { CommitError::Unwritable(text) } else { CommitError::Aborted(text) }
    }
}

/// Whether the broker or the client will never accept such a record.
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
