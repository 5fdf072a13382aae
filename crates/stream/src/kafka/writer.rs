//! The non-transactional writer: idempotent, ordered per partition, with a bounded queue that never blocks.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use rdkafka::{
    error::{KafkaError, RDKafkaErrorCode},
    producer::Producer as _,
};

use super::{
    client::config_error,
    options::KafkaOptions,
    producer::{Deliveries, MAX_MESSAGE_BYTES, Producer, send, targets},
    topics::Topics,
};
use crate::{
    local::{failed, lock},
    log::{LogError, WriteError, Writer},
    record::Outgoing,
};

/// How long a dropped writer keeps writing its queued records.
const DRAIN: Duration = Duration::from_secs(5);

pub(super) struct KafkaWriter {
    topics: Arc<Topics>,
    /// Full name and number of partitions of each topic written so far: a handful of entries, each read only once.
    written: Mutex<Vec<(&'static str, Arc<str>, i32)>>,
    /// `None` only while it is dropped.
    producer: Option<Producer>,
    /// Failures that a flush has reported.
    reported: AtomicU64,
}

impl KafkaWriter {
    pub(super) fn open(options: &KafkaOptions, topics: &Arc<Topics>, queue: usize) -> Result<Self, LogError> {
        let mut config = options.client();
        config.set("enable.idempotence", "true");
        config.set("message.max.bytes", MAX_MESSAGE_BYTES);
        config.set("queue.buffering.max.messages", queue.max(1).to_string());
        let preferred = [
            // The queue is bounded in memory here, and in records by the caller.
            ("queue.buffering.max.kbytes", "65536"),
            // A short linger: the default of 5 ms would delay decisions noticeably.
            ("linger.ms", "1"),
            ("compression.type", "lz4"),
        ];
        for (name, value) in preferred {
            if !options.properties.contains_key(name) {
                config.set(name, value);
            }
        }
        let producer = Producer::open(&config, Deliveries::default());
        let producer = producer.map_err(|error| config_error("opening a writer", &error))?;
        let (topics, written) = (Arc::clone(topics), Mutex::default());
        Ok(Self { topics, written, producer: Some(producer), reported: AtomicU64::new(0) })
    }

    fn producer(&self) -> &Producer {
        self.producer.as_ref().expect("the producer exists until the drop")
    }

    /// Full name and number of partitions of a topic, if they are already known.
    fn known(&self, topic: &'static str) -> Option<(Arc<str>, i32)> {
        let mut written = lock(&self.written);
        if let Some((_, name, count)) = written.iter().find(|(known, ..)| *known == topic) {
            return Some((Arc::clone(name), *count));
        }
        let name = self.topics.full_name(topic);
        let count = self.topics.known(&name)?;
        written.push((topic, Arc::clone(&name), count));
        Some((name, count))
    }

    fn deliveries(&self) -> &Deliveries {
        self.producer().client().context()
    }
}

impl Writer for KafkaWriter {
    fn send(&self, record: Outgoing) -> Result<(), WriteError> {
        let (topic, count) = self.known(record.topic).ok_or(WriteError::Closed)?;
        for partition in targets(&record, count).ok_or(WriteError::Closed)? {
            send(self.producer(), &topic, partition, &record).map_err(|error| match error {
                KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull) => WriteError::QueueFull,
                KafkaError::MessageProduction(RDKafkaErrorCode::MessageSizeTooLarge) => WriteError::TooLarge,
                other => {
                    tracing::debug!(error = %other, %topic, "a writer rejected a record");
                    WriteError::Closed
                }
            })?;
        }
        Ok(())
    }

    fn flush(&self, deadline: Duration) -> Result<(), LogError> {
        let doing = "flushing a writer";
        if !self.deliveries().wait(Instant::now() + deadline) {
            return Err(failed(doing, &"not done before the deadline"));
        }
        let lost = self.deliveries().failed();
        match lost.saturating_sub(self.reported.swap(lost, Ordering::AcqRel)) {
            0 => Ok(()),
            new => {
                let cause = self.deliveries().take_error().map_or_else(String::new, |error| format!(": {error}"));
                Err(failed(doing, &format!("{new} records could not be written{cause}")))
            }
        }
    }

    fn failed(&self) -> u64 {
        self.deliveries().failed()
    }

    fn waiting(&self) -> usize {
        self.deliveries().waiting()
    }
}

impl Drop for KafkaWriter {
    fn drop(&mut self) {
        let Some(producer) = self.producer.take() else { return };
        // If the thread cannot be started, the closure and the producer are dropped here.
        let _ = thread::Builder::new().name("serin-close".into()).spawn(move || {
            producer.client().context().wait(Instant::now() + DRAIN);
        });
    }
}
