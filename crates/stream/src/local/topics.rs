//! Names, numbers and tails of the topics of a local log.

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock},
};

use serin_schemas::ids::NextOffset;
use serin_topology::TopicSpec;

use super::{
    ledger::Ends,
    storage::{Place, Stored},
    tail::Tail,
};
use crate::{
    log::LogError,
    partition::partition_of,
    record::{Outgoing, Target, TopicPartition},
};

/// The record size limit of a topic without the setting: the default of an Apache Kafka broker (`message.max.bytes`).
const MAX_RECORD_BYTES: usize = 1_048_588;

/// One topic.
#[derive(Debug)]
pub(crate) struct Topic {
    pub(crate) id: u32,
    pub(crate) spec: TopicSpec,
    pub(crate) tails: Vec<Arc<Tail>>,
    /// The topic's record size limit.
    max_record_bytes: usize,
}

/// The reason why a record cannot be placed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PlaceError {
    #[error(transparent)]
    Unknown(#[from] LogError),
    #[error("a record of {size} bytes exceeds the limit of {limit} bytes of topic {topic} (`max.message.bytes`)")]
    TooLarge { topic: &'static str, size: usize, limit: usize },
}

impl Topic {
    fn new(id: u32, spec: TopicSpec, tails: Vec<Arc<Tail>>) -> Self {
        let limit = spec.settings.iter().find(|(name, _)| name == "max.message.bytes");
        let max_record_bytes = limit.and_then(|(_, value)| value.parse().ok()).unwrap_or(MAX_RECORD_BYTES);
        Self { id, spec, tails, max_record_bytes }
    }

    pub(crate) fn place(&self, partition: i32) -> Place {
        Place { topic: self.id, partition }
    }
}

/// All topics. They are read concurrently and changed when a topic is created.
#[derive(Debug)]
pub(crate) struct Topics {
    prefix: String,
    by_name: RwLock<HashMap<Arc<str>, Arc<Topic>>>,
    by_id: RwLock<HashMap<u32, Arc<Topic>>>,
}

impl Topics {
    pub(crate) fn new(
        prefix: &str,
        topics: Vec<(u32, TopicSpec)>,
        starts: &[(Place, i64)],
        ends: &[(Place, i64)],
    ) -> Self {
        let all = Self { prefix: prefix.to_owned(), by_name: RwLock::default(), by_id: RwLock::default() };
        let (starts, ends): (HashMap<_, _>, HashMap<_, _>) =
            (starts.iter().copied().collect(), ends.iter().copied().collect());
        let at = |map: &HashMap<Place, i64>, place| map.get(&place).copied().unwrap_or(0);
        for (id, spec) in topics {
            let places = (0..spec.partitions).map(|partition| Place { topic: id, partition });
            let tails = places.map(|place| Arc::new(Tail::new(at(&starts, place), at(&ends, place)))).collect();
            all.insert(Topic::new(id, spec, tails));
        }
        all
    }

    /// Adds an empty topic.
    pub(crate) fn add(&self, id: u32, spec: TopicSpec) {
        let tails = (0..spec.partitions).map(|_| Arc::default()).collect();
        self.insert(Topic::new(id, spec, tails));
    }

    /// Removes a topic. Its readers continue without records.
    pub(crate) fn remove(&self, name: &str) {
        let removed = self.by_name.write().unwrap_or_else(PoisonError::into_inner).remove(name);
        if let Some(topic) = removed {
            self.by_id.write().unwrap_or_else(PoisonError::into_inner).remove(&topic.id);
        }
    }

    /// Adds partitions to a topic.
    pub(crate) fn grow(&self, name: &str, partitions: i32) -> Result<(), LogError> {
        let topic = self.find(name)?;
        let mut tails = topic.tails.clone();
        tails.resize_with(usize::try_from(partitions).unwrap_or(0).max(tails.len()), Arc::default);
        let spec = TopicSpec { partitions: tails.len() as i32, ..topic.spec.clone() };
        self.insert(Topic::new(topic.id, spec, tails));
        Ok(())
    }

    fn insert(&self, topic: Topic) {
        let topic = Arc::new(topic);
        let name = self.full_name(&topic.spec.name);
        self.by_name.write().unwrap_or_else(PoisonError::into_inner).insert(name, Arc::clone(&topic));
        self.by_id.write().unwrap_or_else(PoisonError::into_inner).insert(topic.id, topic);
    }

    pub(crate) fn full_name(&self, topic: &str) -> Arc<str> {
        if self.prefix.is_empty() { topic.into() } else { format!("{}{topic}", self.prefix).into() }
    }

    /// The topic with this full name.
    pub(crate) fn find(&self, name: &str) -> Result<Arc<Topic>, LogError> {
        let found = self.by_name.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned();
        found.ok_or_else(|| LogError::UnknownTopic { topic: name.to_owned() })
    }

    #[cfg(feature = "embedded")]
    pub(crate) fn all(&self) -> Vec<Arc<Topic>> {
        self.by_id.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    pub(crate) fn tail(&self, at: &TopicPartition) -> Result<(Place, Arc<Tail>), LogError> {
        let topic = self.find(&at.topic)?;
        let tail = usize::try_from(at.partition).ok().and_then(|index| topic.tails.get(index));
        let tail = tail.ok_or_else(|| LogError::UnknownTopic { topic: format!("{}[{}]", at.topic, at.partition) })?;
        Ok((topic.place(at.partition), Arc::clone(tail)))
    }

    /// Makes the records before `end` visible to readers.
    pub(super) fn publish(&self, place: Place, end: i64) {
        let topics = self.by_id.read().unwrap_or_else(PoisonError::into_inner);
        let tail = topics.get(&place.topic).and_then(|topic| topic.tails.get(place.partition as usize));
        if let Some(tail) = tail {
            tail.publish(end);
        }
    }

    /// Makes the records of `start..end` visible to readers.
    pub(crate) fn show(&self, place: Place, start: i64, end: i64) {
        if let Some(tail) = self.tail_of(place) {
            if tail.start() != start {
                tail.trim(start);
            }
            if tail.end() != end {
                tail.publish(end);
            }
        }
    }

    /// Makes the records before `end` visible to readers, if they are not visible yet.
    #[cfg(feature = "embedded")]
    pub(crate) fn publish_if_new(&self, place: Place, end: i64) {
        if self.tail_of(place).is_some_and(|tail| tail.end() < end) {
            self.publish(place, end);
        }
    }

    /// Hides the records before `start`.
    pub(crate) fn trim(&self, place: Place, start: i64) {
        if let Some(tail) = self.tail_of(place) {
            tail.trim(start);
        }
    }

    fn tail_of(&self, place: Place) -> Option<Arc<Tail>> {
        let topics = self.by_id.read().unwrap_or_else(PoisonError::into_inner);
        topics.get(&place.topic)?.tails.get(place.partition as usize).cloned()
    }

    /// Converts partitions to their names.
    pub(crate) fn named(&self, ends: &Ends) -> Vec<(TopicPartition, NextOffset)> {
        let topics = self.by_id.read().unwrap_or_else(PoisonError::into_inner);
        let name = |place: &Place| {
            let topic = topics.get(&place.topic)?;
            Some(TopicPartition { topic: self.full_name(&topic.spec.name), partition: place.partition })
        };
        ends.iter().filter_map(|(place, next)| Some((name(place)?, NextOffset(*next)))).collect()
    }

    /// Adds the partitions of a record to `into`, with what to store there.
    pub(crate) fn resolve(
        &self,
        record: &Outgoing,
        now_ms: i64,
        into: &mut Vec<(Place, Stored)>,
    ) -> Result<(), PlaceError> {
        let topic = self.find(&self.full_name(record.topic))?;
        let partitions = topic.spec.partitions;
        let stored = Stored {
            timestamp_ms: record.timestamp_ms.unwrap_or(now_ms),
            key: record.key.clone(),
            value: record.value.clone(),
            headers: record.headers.clone(),
        };
        let (size, limit) = (stored.size(), topic.max_record_bytes);
        if size > limit {
            return Err(PlaceError::TooLarge { topic: record.topic, size, limit });
        }
        match record.target {
            Target::EveryPartition => {
                into.extend((0..partitions).map(|partition| (topic.place(partition), stored.clone())));
            }
            Target::ByKey => into.push((topic.place(partition_of(&record.key, partitions)), stored)),
            Target::Partition(partition) if (0..partitions).contains(&partition) => {
                into.push((topic.place(partition), stored));
            }
            Target::Partition(partition) => {
                let topic = format!("{}[{partition}]", record.topic);
                return Err(LogError::UnknownTopic { topic }.into());
            }
        }
        Ok(())
    }
}
