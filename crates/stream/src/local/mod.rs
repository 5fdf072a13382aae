//! A log within this process, independent of its storage; `crate::embedded` stores records on disk. [`crate::sim`]
//! shares its names, readers, non-transactional writers and groups.
//!
//! Appending is group commit without a dedicated thread: the caller that gets the ledger writes everything that is
//! queued in one storage write, publishes it to the readers and answers the other callers.
//!
//! Invariants: readers see a record only after it is stored. A transaction is one write, so open or aborted
//! transactions do not exist. Offsets of a partition only grow.

mod group;
mod ledger;
mod reader;
pub mod storage;
pub(crate) mod tail;
pub(crate) mod topics;
pub(crate) mod transaction;
mod writer;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use crossbeam_channel::{Sender, bounded};
use serin_schemas::ids::NextOffset;
use serin_topology::{APPEND_TIME, TopicSpec};

pub(crate) use self::{group::Groups, reader::LocalReader, writer::LocalWriter};
use self::{
    ledger::{Ends, Ledger, Staged, Submission, SubmitError},
    storage::{Change, Image, Place, Storage, StorageError, Stored},
    topics::Topics,
    transaction::LocalTransaction,
};
use crate::{
    clock::{Clock, ForwardClock},
    log::{Log, LogError, Membership, Reader, Start, Transactional, Writer},
    record::TopicPartition,
};

pub use self::group::LocalMembership;

/// Maximum total size of the records that one poll returns, plus at most one record, for every log. It bounds the
/// memory of a reader that catches up.
pub(crate) const MAX_POLL_BYTES: usize = 8 << 20;

/// Options of a log in this process.
#[derive(Clone, Debug)]
pub struct LocalOptions {
    /// Prefix of every topic name.
    pub prefix: String,
    /// How long a non-transactional writer lingers to batch records.
    pub linger: Duration,
}

impl Default for LocalOptions {
    fn default() -> Self {
        Self { prefix: String::new(), linger: Duration::from_millis(1) }
    }
}

/// A log within this process. Clones share the same log.
#[derive(Debug)]
pub struct LocalLog<S: Storage>(Arc<Inner<S>>);

impl<S: Storage> Clone for LocalLog<S> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

/// A submission with the channel for its result.
type Queued = (Submission, Sender<Result<Ends, SubmitError>>);

pub(crate) struct Inner<S> {
    options: LocalOptions,
    clock: Arc<dyn Clock>,
    pub(crate) storage: S,
    pub(crate) topics: Topics,
    groups: Arc<Groups>,
    /// Submissions that wait to be written. The caller that holds the ledger takes all of them.
    queue: Mutex<Vec<Queued>>,
    ledger: Mutex<Ledger>,
}

impl<S> std::fmt::Debug for Inner<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inner").field("options", &self.options).finish_non_exhaustive()
    }
}

/// Locks a mutex even after another thread panicked. Each change of the guarded data is a single step, so the data is
/// consistent.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Creates a [`LogError::Failed`] from the failed action and its cause.
pub(crate) fn failed(doing: &str, cause: &dyn std::fmt::Display) -> LogError {
    LogError::Failed { doing: doing.to_owned(), cause: cause.to_string() }
}

/// Whether a topic's timestamps are append times, which never go back.
pub(crate) fn has_append_time(spec: &TopicSpec) -> bool {
    spec.settings.iter().any(|(name, value)| name == APPEND_TIME.0 && value == APPEND_TIME.1)
}

/// The newest timestamp of each partition with append time.
fn newest_stamps(storage: &impl Storage, image: &Image) -> Result<HashMap<Place, i64>, StorageError> {
    let ends: HashMap<Place, i64> = image.ends.iter().copied().collect();
    let mut newest = HashMap::new();
    for (id, spec) in image.topics.iter().filter(|(_, spec)| has_append_time(spec)) {
        for place in (0..spec.partitions).map(|partition| Place { topic: *id, partition }) {
            let stamp = newest.entry(place).or_insert(i64::MIN);
            if let Some(&end) = ends.get(&place) {
                storage.read(place, end.saturating_sub(1).max(0), end, &mut |_, record| {
                    *stamp = record.timestamp_ms;
                    true
                })?;
            }
        }
    }
    Ok(newest)
}

impl<S: Storage> LocalLog<S> {
    /// Opens the log in `storage`.
    pub fn over(storage: S, options: LocalOptions, clock: Arc<dyn Clock>) -> Result<Self, LogError> {
        let image = storage.load().map_err(|error| failed("opening the log", &error))?;
        let newest = newest_stamps(&storage, &image).map_err(|error| failed("opening the log", &error))?;
        let clock = Arc::new(ForwardClock::new(clock));
        let ledger = Ledger {
            next: image.ends.iter().copied().collect(),
            epochs: image.epochs.into_iter().collect(),
            next_topic: image.topics.iter().map(|(id, _)| id + 1).max().unwrap_or(0),
            newest,
        };
        let topics = Topics::new(&options.prefix, image.topics, &image.starts, &image.ends);
        Ok(Self(Arc::new(Inner {
            options,
            clock,
            storage,
            topics,
            groups: Arc::default(),
            queue: Mutex::default(),
            ledger: Mutex::new(ledger),
        })))
    }

    pub(crate) fn inner(&self) -> &Arc<Inner<S>> {
        &self.0
    }
}

/// The parts of a local log that readers and non-transactional writers need.
pub(crate) trait Local: Send + Sync + 'static {
    /// Topic names and visible bounds.
    fn topics(&self) -> &Topics;

    /// The time of the next append, in milliseconds since the epoch.
    fn now_ms(&self) -> i64;

    /// How long a non-transactional writer lingers to batch records.
    fn linger(&self) -> Duration;

    /// Appends records without a transaction, atomically.
    fn append(&self, records: Vec<(Place, Stored)>) -> Result<(), StorageError>;

    /// Passes the committed records of `from..until` to `sink` in order, until it returns false.
    fn read(
        &self,
        place: Place,
        from: i64,
        until: i64,
        sink: &mut dyn FnMut(i64, Stored) -> bool,
    ) -> Result<(), StorageError>;
}

impl<S: Storage> Local for Inner<S> {
    fn topics(&self) -> &Topics {
        &self.topics
    }

    fn now_ms(&self) -> i64 {
        self.clock.now_ms()
    }

    fn linger(&self) -> Duration {
        self.options.linger
    }

    fn append(&self, records: Vec<(Place, Stored)>) -> Result<(), StorageError> {
        match self.submit(Submission { owner: None, records, positions: Vec::new() }) {
            Ok(_) => Ok(()),
            Err(SubmitError::Storage(error)) => Err(error),
            Err(error @ SubmitError::Fenced) => Err(StorageError(error.to_string())),
        }
    }

    fn read(
        &self,
        place: Place,
        from: i64,
        until: i64,
        sink: &mut dyn FnMut(i64, Stored) -> bool,
    ) -> Result<(), StorageError> {
        self.storage.read(place, from, until, sink)
    }
}

impl<S: Storage> Inner<S> {
    /// Appends a submission atomically, together with all other queued submissions.
    fn submit(&self, what: Submission) -> Result<Ends, SubmitError> {
        let (reply, answer) = bounded(1);
        lock(&self.queue).push((what, reply));
        self.lead(&mut lock(&self.ledger));
        answer.recv().expect("the caller that took the submission from the queue answers before it releases the ledger")
    }

    /// Writes all queued submissions.
    fn lead(&self, ledger: &mut Ledger) {
        let queued = std::mem::take(&mut *lock(&self.queue));
        if queued.is_empty() {
            return;
        }
        let mut staged = Staged::default();
        let mut replies = Vec::with_capacity(queued.len());
        for (submission, reply) in queued {
            replies.push((ledger.stage(submission, &mut staged), reply));
        }
        let written = self.write(ledger, staged);
        for (result, reply) in replies {
            let answer = result.and_then(|ends| written.clone().map(|()| ends));
            // The submitter always waits for its answer.
            let _ = reply.send(answer);
        }
    }

    fn write(&self, ledger: &mut Ledger, mut staged: Staged) -> Result<(), SubmitError> {
        staged.changes.extend(staged.ends.iter().map(|(place, next)| Change::End { place: *place, next: *next }));
        if staged.changes.is_empty() {
            return Ok(());
        }
        self.storage.write(std::mem::take(&mut staged.changes), true)?;
        ledger.written(&staged);
        for (place, end) in &staged.ends {
            self.topics.publish(*place, *end);
        }
        Ok(())
    }

    /// Runs `change` while no append is running.
    fn exclusive<T>(&self, change: impl FnOnce(&mut Ledger) -> T) -> T {
        change(&mut lock(&self.ledger))
    }
}

impl<S: Storage> Log for LocalLog<S> {
    fn full_name(&self, topic: &str) -> Arc<str> {
        self.0.topics.full_name(topic)
    }

    fn create(&self, topics: &[TopicSpec]) -> Result<(), LogError> {
        self.0.exclusive(|ledger| {
            for spec in topics {
                if self.0.topics.find(&self.full_name(&spec.name)).is_ok() {
                    continue;
                }
                let id = ledger.next_topic;
                if has_append_time(spec) {
                    let places = (0..spec.partitions).map(|partition| Place { topic: id, partition });
                    ledger.newest.extend(places.map(|place| (place, i64::MIN)));
                }
                let change = Change::Topic { id, spec: spec.clone() };
                self.0.storage.write(vec![change], true).map_err(|error| failed("creating a topic", &error))?;
                ledger.next_topic += 1;
                self.0.topics.add(id, spec.clone());
            }
            Ok(())
        })
    }

    fn describe(&self, topics: &[&str]) -> Result<Vec<TopicSpec>, LogError> {
        let found = topics.iter().filter_map(|topic| self.0.topics.find(&self.full_name(topic)).ok());
        Ok(found.map(|topic| topic.spec.clone()).collect())
    }

    fn partitions(&self, topic: &str) -> Result<i32, LogError> {
        Ok(self.0.topics.find(&self.full_name(topic))?.spec.partitions)
    }

    fn bounds(&self, at: &TopicPartition) -> Result<(NextOffset, NextOffset), LogError> {
        let (_, tail) = self.0.topics.tail(at)?;
        Ok((NextOffset(tail.start()), NextOffset(tail.end())))
    }

    fn committed(&self, group: &str, at: &TopicPartition) -> Result<Option<NextOffset>, LogError> {
        let (place, _) = self.0.topics.tail(at)?;
        let position = self.0.storage.position(&self.0.topics.full_name(group), place);
        position
            .map(|next| next.map(NextOffset))
            .map_err(|error| failed("reading a group's committed position", &error))
    }

    fn reader(&self, from: &[(TopicPartition, Start)]) -> Result<Box<dyn Reader>, LogError> {
        Ok(Box::new(LocalReader::new(Arc::clone(&self.0), from)?))
    }

    fn transactional(&self, id: &str) -> Result<Box<dyn Transactional>, LogError> {
        let epoch = self.0.exclusive(|ledger| {
            let epoch = ledger.next_epoch(id);
            let change = Change::Epoch { id: id.to_owned(), epoch };
            self.0
                .storage
                .write(vec![change], true)
                .map_err(|error| failed("taking over a transactional id", &error))?;
            ledger.epochs.insert(id.to_owned(), epoch);
            Ok(epoch)
        })?;
        Ok(Box::new(LocalTransaction::new(Arc::clone(&self.0), id, epoch)))
    }

    fn writer(&self, queue: usize) -> Result<Arc<dyn Writer>, LogError> {
        Ok(Arc::new(LocalWriter::start(Arc::clone(&self.0), queue)?))
    }

    fn join(&self, group: &str, topics: &[&str]) -> Result<Box<dyn Membership>, LogError> {
        let counts: Result<Vec<i32>, LogError> = topics.iter().map(|topic| self.partitions(topic)).collect();
        let partitions = counts?.into_iter().max().unwrap_or(0);
        Ok(Box::new(self.0.groups.join(&self.full_name(group), partitions)))
    }
}
