//! An in-memory Kafka for tests and simulation: transactions with epochs and a last stable offset, groups,
//! compaction, retention. [`SimLog::new`] creates an ordinary log. With its own clock and a [`World`] it is a
//! simulation: every step of every process may fail, and nothing depends on threads or the time of day.
//!
//! The conformance suite verifies that it behaves like Kafka and the embedded log. `broker.rs` documents what is
//! modeled.

mod broker;
mod network;
mod stores;
mod transaction;
mod writer;

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use serin_schemas::ids::NextOffset;
use serin_topology::TopicSpec;

pub(crate) use self::network::Process;
pub use self::{
    broker::Flaw,
    network::{Fate, Step, World},
    stores::{SimDisk, SimStores},
};
use self::{
    broker::{Broker, Owner},
    transaction::SimTransaction,
    writer::SimWriter,
};
use crate::{
    clock::{Clock, ManualClock, SystemClock},
    local::{
        Groups, Local, LocalMembership, LocalReader, LocalWriter, failed, lock,
        storage::{Place, StorageError, Stored},
        topics::Topics,
    },
    log::{Log, LogError, Membership, Polled, Reader, Start, Transactional, Writer},
    record::{Record, TopicPartition},
};

/// An in-memory log as seen by one process. Clones belong to the same process. The log is dropped with the last
/// clone.
#[derive(Clone)]
pub struct SimLog {
    cluster: Arc<Cluster>,
    process: Process,
}

/// The state shared by all processes.
struct Cluster {
    clock: Arc<dyn Clock>,
    /// Only set in a simulation, where waiting advances the clock.
    time: Option<Arc<ManualClock>>,
    topics: Topics,
    broker: Mutex<Broker>,
    next_topic: Mutex<u32>,
    groups: Arc<Groups>,
}

impl Default for SimLog {
    fn default() -> Self {
        Self::new()
    }
}

impl SimLog {
    /// Creates an empty log on the system clock without faults.
    pub fn new() -> Self {
        Self::over(Arc::new(SystemClock::default()), None, Flaw::None)
    }

    /// Creates an empty log in a simulation, where no call blocks and no threads run.
    pub fn simulated(clock: Arc<ManualClock>, flaw: Flaw) -> Self {
        Self::over(Arc::clone(&clock) as _, Some(clock), flaw)
    }

    fn over(clock: Arc<dyn Clock>, time: Option<Arc<ManualClock>>, flaw: Flaw) -> Self {
        let cluster = Cluster {
            clock,
            time,
            topics: Topics::new("", Vec::new(), &[], &[]),
            broker: Mutex::new(Broker::with(flaw)),
            next_topic: Mutex::default(),
            groups: Arc::default(),
        };
        Self { cluster: Arc::new(cluster), process: Process::undisturbed() }
    }

    /// The same log as seen by the process `name`, with faults decided by `world`.
    #[must_use]
    pub fn seen_by(&self, name: &str, world: Arc<dyn World>) -> Self {
        self.of(Process::new(name, world))
    }

    #[must_use]
    pub(crate) fn of(&self, process: Process) -> Self {
        Self { cluster: Arc::clone(&self.cluster), process }
    }

    /// Compacts topics: removes all records with a newer record of the same key, and tombstones older than a day.
    /// Kafka does this some time later; tests choose the moment.
    pub fn compact(&self) {
        self.cluster.change(Broker::compact);
    }

    /// Removes all records before `start`, like retention.
    pub fn trim(&self, at: &TopicPartition, start: NextOffset) -> Result<(), LogError> {
        let (place, _) = self.cluster.topics.tail(at)?;
        self.cluster.change(|broker, _| broker.trim(place, start.0));
        Ok(())
    }

    /// Deletes a topic with its records and the groups' positions in it.
    pub fn delete(&self, topic: &str) -> Result<(), LogError> {
        let name = self.full_name(topic);
        let id = self.cluster.topics.find(&name)?.id;
        self.cluster.topics.remove(&name);
        self.cluster.change(|broker, _| broker.delete(id));
        Ok(())
    }

    /// Adds partitions to a topic.
    pub fn grow(&self, topic: &str, partitions: i32) -> Result<(), LogError> {
        let name = self.full_name(topic);
        self.cluster.topics.grow(&name, partitions)?;
        let topic = self.cluster.topics.find(&name)?;
        self.cluster.change(|broker, _| broker.created(topic.id, partitions, &topic.spec));
        Ok(())
    }

    /// Lets a member's session time out. Its partitions are reassigned at once.
    pub fn expel(&self, member: &dyn Membership) {
        if let Some(member) = member.as_any().downcast_ref::<LocalMembership>() {
            member.expel();
        }
    }

    /// Lets the next process with the same name take over a membership, as in static membership. Its partitions are
    /// assigned again.
    pub fn resume(&self, member: &dyn Membership) {
        if let Some(member) = member.as_any().downcast_ref::<LocalMembership>() {
            member.resume();
        }
    }

    /// Delivers all delayed requests.
    pub fn deliver_late(&self) {
        self.cluster.change(|broker, now_ms| broker.deliver_late(u32::MAX, now_ms));
    }

    /// Simulates a request to the log that only reads.
    fn ask(&self, step: Step, doing: &str) -> Result<(), LogError> {
        let fate = self.process.at(step);
        if fate.is_heard() { Ok(()) } else { Err(failed(doing, &fate.reason())) }
    }
}

impl Cluster {
    /// Changes the broker's state and publishes the visible bounds to readers.
    fn change<T>(&self, change: impl FnOnce(&mut Broker, i64) -> T) -> T {
        let mut broker = lock(&self.broker);
        let now_ms = self.clock.now_ms();
        broker.expire(now_ms);
        let changed = change(&mut broker, now_ms);
        for (place, start, end) in broker.bounds() {
            self.topics.show(place, start, end);
        }
        changed
    }
}

impl Local for Cluster {
    fn topics(&self) -> &Topics {
        &self.topics
    }

    fn now_ms(&self) -> i64 {
        self.clock.now_ms()
    }

    fn linger(&self) -> Duration {
        Duration::from_millis(1)
    }

    fn append(&self, records: Vec<(Place, Stored)>) -> Result<(), StorageError> {
        self.change(|broker, _| records.into_iter().for_each(|(place, record)| broker.append(place, record)));
        Ok(())
    }

    fn read(
        &self,
        place: Place,
        from: i64,
        until: i64,
        sink: &mut dyn FnMut(i64, Stored) -> bool,
    ) -> Result<(), StorageError> {
        if lock(&self.broker).read(place, from..until, sink) {
            return Ok(());
        }
        Err(StorageError("the partition does not exist".into()))
    }
}

impl Log for SimLog {
    fn full_name(&self, topic: &str) -> Arc<str> {
        self.cluster.topics.full_name(topic)
    }

    fn create(&self, topics: &[TopicSpec]) -> Result<(), LogError> {
        let mut next = lock(&self.cluster.next_topic);
        for spec in topics {
            if self.cluster.topics.find(&self.full_name(&spec.name)).is_ok() {
                continue;
            }
            self.cluster.topics.add(*next, spec.clone());
            self.cluster.change(|broker, _| broker.created(*next, spec.partitions, spec));
            *next += 1;
        }
        Ok(())
    }

    fn describe(&self, topics: &[&str]) -> Result<Vec<TopicSpec>, LogError> {
        self.ask(Step::Ask, "describing topics")?;
        let found = topics.iter().filter_map(|topic| self.cluster.topics.find(&self.full_name(topic)).ok());
        Ok(found.map(|topic| topic.spec.clone()).collect())
    }

    fn partitions(&self, topic: &str) -> Result<i32, LogError> {
        self.ask(Step::Ask, "reading the metadata of a topic")?;
        Ok(self.cluster.topics.find(&self.full_name(topic))?.spec.partitions)
    }

    fn bounds(&self, at: &TopicPartition) -> Result<(NextOffset, NextOffset), LogError> {
        self.ask(Step::Ask, "reading offsets")?;
        let (_, tail) = self.cluster.topics.tail(at)?;
        Ok((NextOffset(tail.start()), NextOffset(tail.end())))
    }

    fn committed(&self, group: &str, at: &TopicPartition) -> Result<Option<NextOffset>, LogError> {
        self.ask(Step::Ask, "reading a group's committed position")?;
        let (place, _) = self.cluster.topics.tail(at)?;
        Ok(lock(&self.cluster.broker).position(group, place).map(NextOffset))
    }

    fn reader(&self, from: &[(TopicPartition, Start)]) -> Result<Box<dyn Reader>, LogError> {
        self.ask(Step::Assign, "opening a reader")?;
        let inner = LocalReader::new(Arc::clone(&self.cluster), from)?;
        let (cluster, process) = (Arc::clone(&self.cluster), self.process.clone());
        Ok(Box::new(SimReader { inner, cluster, process, at_end_reported: false }))
    }

    fn transactional(&self, id: &str) -> Result<Box<dyn Transactional>, LogError> {
        let fate = self.process.at(Step::TakeOver);
        let epoch = fate.is_done().then(|| self.cluster.change(|broker, _| broker.take_over(id)));
        if let Some(epoch) = epoch.filter(|_| fate.is_heard()) {
            let owner = Owner { id: id.to_owned(), epoch };
            return Ok(Box::new(SimTransaction::new(Arc::clone(&self.cluster), self.process.clone(), owner)));
        }
        Err(failed("taking over a transactional id", &fate.reason()))
    }

    fn writer(&self, queue: usize) -> Result<Arc<dyn Writer>, LogError> {
        if self.cluster.time.is_some() {
            return Ok(Arc::new(SimWriter::new(Arc::clone(&self.cluster), self.process.clone())));
        }
        Ok(Arc::new(LocalWriter::start(Arc::clone(&self.cluster), queue)?))
    }

    fn join(&self, group: &str, topics: &[&str]) -> Result<Box<dyn Membership>, LogError> {
        let counts: Result<Vec<i32>, LogError> = topics.iter().map(|topic| self.partitions(topic)).collect();
        let partitions = counts?.into_iter().max().unwrap_or(0);
        Ok(Box::new(self.cluster.groups.join(group, partitions)))
    }
}

/// A reader of one process.
struct SimReader {
    inner: LocalReader<Cluster>,
    cluster: Arc<Cluster>,
    process: Process,
    /// Whether the end was reported since the last record. If so, the next poll waits.
    at_end_reported: bool,
}

impl Reader for SimReader {
    fn poll(&mut self, max: usize, wait: Duration, into: &mut Vec<Record>) -> Result<Polled, LogError> {
        match self.process.at(Step::Fetch) {
            fate if fate.is_heard() => {}
            Fate::Refused | Fate::Dies | Fate::DiesAfter => return Err(failed("reading", &"no broker answers")),
            // Kafka clients keep retrying.
            _ => {
                self.pass(wait);
                return Ok(Polled::Nothing);
            }
        }
        if self.cluster.time.is_none() {
            return self.inner.poll(max, wait, into);
        }
        let polled = self.inner.poll(max, Duration::ZERO, into)?;
        if std::mem::replace(&mut self.at_end_reported, polled == Polled::AtEnd) && self.at_end_reported {
            self.pass(wait);
        }
        Ok(polled)
    }

    fn at_end(&self, at: &TopicPartition) -> bool {
        self.inner.at_end(at)
    }

    fn waker(&self) -> Arc<dyn Fn() + Send + Sync> {
        self.inner.waker()
    }
}

impl SimReader {
    /// In a simulation, waiting advances the clock.
    fn pass(&self, wait: Duration) {
        if let Some(time) = &self.cluster.time {
            time.advance(wait);
        }
    }
}
