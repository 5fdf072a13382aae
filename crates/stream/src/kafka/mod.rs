//! The log on Apache Kafka.
//!
//! Clients: one for metadata (topics, offsets), one consumer per reader (assigned manually, read committed), one
//! producer per transactional id, one producer per non-transactional writer, and one paused consumer per group membership. No
//! client is shared between threads that block on it.

mod client;
mod consumer;
mod membership;
mod options;
mod producer;
mod reader;
mod topics;
mod transaction;
mod writer;

use std::sync::Arc;

use rdkafka::{
    TopicPartitionList,
    config::FromClientConfigAndContext,
    consumer::{BaseConsumer, Consumer},
};
use serin_schemas::ids::NextOffset;
use serin_topology::TopicSpec;

use self::{
    client::{REQUEST, config_error},
    consumer::LogConsumerContext,
    reader::KafkaReader,
    topics::Topics,
    transaction::KafkaTransaction,
    writer::KafkaWriter,
};
pub use self::{
    membership::KafkaMembership,
    options::{KafkaOptions, Protocol, Security},
};
use crate::{
    local::failed,
    log::{Log, LogError, Membership, Reader, Start, Transactional, Writer},
    record::TopicPartition,
};

/// A Kafka cluster as a log. Clones share the metadata client.
#[derive(Clone)]
pub struct KafkaLog {
    options: KafkaOptions,
    topics: Arc<Topics>,
}

impl KafkaLog {
    /// Connects to the cluster. Fails if the options are invalid or no broker answers.
    pub fn connect(options: &KafkaOptions) -> Result<Self, LogError> {
        options.check()?;
        Ok(Self { options: options.clone(), topics: Topics::connect(options)? })
    }
}

impl Log for KafkaLog {
    fn full_name(&self, topic: &str) -> Arc<str> {
        self.topics.full_name(topic)
    }

    fn create(&self, topics: &[TopicSpec]) -> Result<(), LogError> {
        self.topics.create(topics)
    }

    fn describe(&self, topics: &[&str]) -> Result<Vec<TopicSpec>, LogError> {
        self.topics.describe(topics)
    }

    fn partitions(&self, topic: &str) -> Result<i32, LogError> {
        self.topics.ask(&self.full_name(topic))
    }

    fn bounds(&self, at: &TopicPartition) -> Result<(NextOffset, NextOffset), LogError> {
        self.topics.bounds(at)
    }

    fn committed(&self, group: &str, at: &TopicPartition) -> Result<Option<NextOffset>, LogError> {
        let doing = "reading a group's committed position";
        let mut config = self.options.client();
        config.set("group.id", format!("{}{group}", self.options.prefix));
        config.set("isolation.level", "read_committed");
        let consumer = BaseConsumer::from_config_and_context(&config, LogConsumerContext::default());
        let consumer = consumer.map_err(|error| config_error(doing, &error))?;
        let mut list = TopicPartitionList::new();
        list.add_partition(&at.topic, at.partition);
        let committed = consumer.committed_offsets(list, REQUEST);
        let committed = committed.map_err(|error| consumer.context().errors.explain(doing, &error))?;
        let position = committed.find_partition(&at.topic, at.partition).map(|element| element.offset());
        match position {
            Some(rdkafka::Offset::Offset(next)) => Ok(Some(NextOffset(next))),
            Some(rdkafka::Offset::Invalid) | None => Ok(None),
            Some(other) => Err(failed(doing, &format!("an unexpected answer: {other:?}"))),
        }
    }

    fn reader(&self, from: &[(TopicPartition, Start)]) -> Result<Box<dyn Reader>, LogError> {
        Ok(Box::new(KafkaReader::open(&self.options, &self.topics, from)?))
    }

    fn transactional(&self, id: &str) -> Result<Box<dyn Transactional>, LogError> {
        Ok(Box::new(KafkaTransaction::open(&self.options, &self.topics, id)?))
    }

    fn writer(&self, queue: usize) -> Result<Arc<dyn Writer>, LogError> {
        Ok(Arc::new(KafkaWriter::open(&self.options, &self.topics, queue)?))
    }

    fn join(&self, group: &str, topics: &[&str]) -> Result<Box<dyn Membership>, LogError> {
        for topic in topics {
            self.partitions(topic)?;
        }
        let Some(first) = topics.first() else { return Err(failed("joining a group", &"no topics were given")) };
        Ok(Box::new(KafkaMembership::join(&self.options, group, &self.full_name(first))?))
    }
}
