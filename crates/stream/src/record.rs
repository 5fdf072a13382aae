//! Records as stages see them, independent of the log.

use std::sync::Arc;

use bytes::Bytes;
use serin_schemas::{
    codec::{self, EncodeError},
    envelope::{self, Envelope},
    ids::NextOffset,
};

pub use serin_schemas::headers::{Headers, Packing};

/// One partition of one topic. `topic` is the full name on the log, including the prefix.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TopicPartition {
    /// Full topic name.
    pub topic: Arc<str>,
    /// Partition, from 0.
    pub partition: i32,
}

impl TopicPartition {
    /// Creates the partition `partition` of `topic`.
    pub fn new(topic: &str, partition: i32) -> Self {
        Self { topic: topic.into(), partition }
    }
}

/// A record read from a log.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// The partition that the record was read from.
    pub at: TopicPartition,
    /// The record's offset in the partition.
    pub offset: i64,
    /// The append timestamp, in milliseconds since the epoch.
    pub timestamp_ms: i64,
    /// The key, which is empty if there is none.
    pub key: Bytes,
    /// The value; `None` is a tombstone.
    pub value: Option<Bytes>,
    /// The record's headers.
    pub headers: Headers,
}

impl Record {
    /// The value of the header `name`. Names are case-insensitive.
    pub fn header(&self, name: &str) -> Option<&[u8]> {
        self.headers.get(name)
    }

    /// The position after this record.
    pub fn next(&self) -> NextOffset {
        NextOffset(self.offset + 1)
    }
}

/// Which partition a record goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// The partition of its key: `murmur2(key) % partitions`, as Kafka's own clients compute it.
    ByKey,
    /// The given partition.
    Partition(i32),
    /// A copy to every partition of the topic.
    EveryPartition,
}

/// A record to write.
#[derive(Clone, Debug, PartialEq)]
pub struct Outgoing {
    /// The topic's name without the prefix, as in `serin_topology`.
    pub topic: &'static str,
    /// The target partitions.
    pub target: Target,
    /// The record's key.
    pub key: Bytes,
    /// The value; `None` is a tombstone.
    pub value: Option<Bytes>,
    /// The record's headers.
    pub headers: Headers,
    /// The append timestamp in milliseconds since the epoch. `None`: the time of the write.
    pub timestamp_ms: Option<i64>,
}

impl Outgoing {
    /// Creates a record of one of Serin's types, with the headers that describe it.
    pub fn record<R: codec::Record>(
        topic: &'static str,
        target: Target,
        key: impl Into<Bytes>,
        record: &R,
        envelope: &Envelope<'_>,
    ) -> Result<Self, EncodeError> {
        let (key, value) = (key.into(), Some(codec::encode(record)?.into()));
        Ok(Self { topic, target, key, value, headers: envelope::headers::<R>(envelope), timestamp_ms: None })
    }

    /// Bytes of key and value, which count against the bounds of queues.
    pub fn size(&self) -> usize {
        self.key.len() + self.value.as_ref().map_or(0, Bytes::len)
    }
}
