//! The storage interface of a log in this process.

use bytes::Bytes;
use serin_topology::TopicSpec;

use crate::record::Headers;

/// A storage error, such as a full disk or a damaged file.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub struct StorageError(pub String);

/// One partition of one topic, by number. Topic numbers are never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Place {
    /// Number of the topic.
    pub topic: u32,
    /// Partition, from 0.
    pub partition: i32,
}

/// A record without its partition and offset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Timestamp in milliseconds since the Unix epoch.
    pub timestamp_ms: i64,
    /// The key, which may be empty.
    pub key: Bytes,
    /// The value; `None` is a tombstone.
    pub value: Option<Bytes>,
    /// The record's headers.
    pub headers: Headers,
}

impl Stored {
    /// Bytes of key, value and headers.
    pub fn size(&self) -> usize {
        self.key.len() + self.value.as_ref().map_or(0, Bytes::len) + self.headers.size()
    }
}

/// One change in the storage.
#[derive(Clone, Debug)]
pub enum Change {
    /// Creates a topic.
    Topic {
        /// The topic's number.
        id: u32,
        /// The topic's specification.
        spec: TopicSpec,
    },
    /// Sets a new owner of a transactional id.
    Epoch {
        /// The transactional id.
        id: String,
        /// The newest epoch of the id.
        epoch: i64,
    },
    /// Sets the position of a group.
    Position {
        /// The name of the consumer group.
        group: String,
        /// The partition.
        place: Place,
        /// The offset to continue from.
        next: i64,
    },
    /// Appends a record.
    Append {
        /// The partition.
        place: Place,
        /// The record's offset.
        offset: i64,
        /// The record to append.
        record: Stored,
    },
    /// Sets the end of a partition.
    End {
        /// The partition.
        place: Place,
        /// The offset of the next record.
        next: i64,
    },
    /// Removes all records before `start`.
    Start {
        /// The partition.
        place: Place,
        /// The first remaining offset.
        start: i64,
    },
    /// Removes one record, because a newer one has the same key.
    Remove {
        /// The partition.
        place: Place,
        /// The record's offset.
        offset: i64,
    },
}

/// The contents of a storage when it is opened, without the records.
#[derive(Debug, Default)]
pub struct Image {
    /// Topics with their numbers.
    pub topics: Vec<(u32, TopicSpec)>,
    /// Newest epoch of each transactional id.
    pub epochs: Vec<(String, i64)>,
    /// The first offset of each partition where it is not 0.
    pub starts: Vec<(Place, i64)>,
    /// The next offset of each partition where it is not 0.
    pub ends: Vec<(Place, i64)>,
}

/// Stores records and the log's metadata.
pub trait Storage: Send + Sync + 'static {
    /// Reads the metadata.
    fn load(&self) -> Result<Image, StorageError>;

    /// Makes all changes or none. If `durable` is set, they survive a crash of the process and the machine once this
    /// returns.
    fn write(&self, changes: Vec<Change>, durable: bool) -> Result<(), StorageError>;

    /// Passes the records of `from..until` to `sink` in order, until it returns false.
    fn read(
        &self,
        place: Place,
        from: i64,
        until: i64,
        sink: &mut dyn FnMut(i64, Stored) -> bool,
    ) -> Result<(), StorageError>;

    /// The committed position of a group.
    fn position(&self, group: &str, place: Place) -> Result<Option<i64>, StorageError>;
}
