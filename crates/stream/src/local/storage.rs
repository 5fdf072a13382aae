//! What a log in this process asks of the place that keeps its records.

use bytes::Bytes;
use serin_topology::TopicSpec;

use crate::record::Headers;

/// The storage failed: the disk is full, a file is damaged.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub struct StorageError(pub String);

/// One partition of one topic, by number. A topic's number is given once and never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Place {
    /// Number of the topic.
    pub topic: u32,
    /// Partition, from 0.
    pub partition: i32,
}

/// A record without its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Timestamp in milliseconds since the Unix epoch.
    pub timestamp_ms: i64,
    /// The key; may be empty.
    pub key: Bytes,
    /// The value; `None` is a tombstone.
    pub value: Option<Bytes>,
    /// The headers.
    pub headers: Headers,
}

impl Stored {
    /// Bytes of key, value and headers.
    pub fn size(&self) -> usize {
        self.key.len() + self.value.as_ref().map_or(0, Bytes::len) + self.headers.size()
    }
}

/// One change of what is stored.
#[derive(Clone, Debug)]
pub enum Change {
    /// A topic exists from now on.
    Topic {
        /// Its number.
        id: u32,
        /// What it is.
        spec: TopicSpec,
    },
    /// A transactional id has a new owner.
    Epoch {
        /// The id.
        id: String,
        /// Its newest epoch.
        epoch: i64,
    },
    /// A group has read up to here.
    Position {
        /// The group.
        group: String,
        /// Where.
        place: Place,
        /// The offset to go on from.
        next: i64,
    },
    /// A record is appended.
    Append {
        /// Where.
        place: Place,
        /// Its offset.
        offset: i64,
        /// The record.
        record: Stored,
    },
    /// The offset that the next record of a partition gets.
    End {
        /// Where.
        place: Place,
        /// That offset.
        next: i64,
    },
    /// Everything before `start` is gone.
    Start {
        /// Where.
        place: Place,
        /// The first offset that is left.
        start: i64,
    },
    /// One record is gone: a newer one has its key.
    Remove {
        /// Where.
        place: Place,
        /// Its offset.
        offset: i64,
    },
}

/// What a storage holds when it is opened, without the records.
#[derive(Debug, Default)]
pub struct Image {
    /// Topics with their numbers.
    pub topics: Vec<(u32, TopicSpec)>,
    /// Newest epoch of each transactional id.
    pub epochs: Vec<(String, i64)>,
    /// First offset of a partition, where it is not 0.
    pub starts: Vec<(Place, i64)>,
    /// Next offset of a partition, where it is not 0.
    pub ends: Vec<(Place, i64)>,
}

/// Keeps records and the log's own bookkeeping.
pub trait Storage: Send + Sync + 'static {
    /// What is there.
    fn load(&self) -> Result<Image, StorageError>;

    /// Makes all changes, or none. With `durable`, they survive the death of process and machine once this returns.
    fn write(&self, changes: Vec<Change>, durable: bool) -> Result<(), StorageError>;

    /// Shows the records of `from..until` in order, until `sink` returns false.
    fn read(
        &self,
        place: Place,
        from: i64,
        until: i64,
        sink: &mut dyn FnMut(i64, Stored) -> bool,
    ) -> Result<(), StorageError>;

    /// The position of a group.
    fn position(&self, group: &str, place: Place) -> Result<Option<i64>, StorageError>;
}
