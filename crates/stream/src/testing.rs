//! Test doubles: a log that forwards to another one, and a log and stores that fail on request, as in a crash or with a
//! network error at each step of a commit.

use std::{
    any::Any,
    collections::VecDeque,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use serin_schemas::ids::NextOffset;
use serin_topology::TopicSpec;

use crate::{
    local::{failed, lock},
    log::{Assignment, CommitError, Log, LogError, Membership, Reader, Start, Transactional, Writer, Written},
    record::{Outgoing, TopicPartition},
    store::{Changes, Store, StoreError, Stores},
};

/// A log that forwards to another one, except for overridden methods.
pub trait Forward: Send + Sync + 'static {
    /// The other log.
    fn inner(&self) -> &dyn Log;

    /// See [`Log::partitions`].
    fn partitions(&self, topic: &str) -> Result<i32, LogError> {
        self.inner().partitions(topic)
    }

    /// See [`Log::reader`].
    fn reader(&self, from: &[(TopicPartition, Start)]) -> Result<Box<dyn Reader>, LogError> {
        self.inner().reader(from)
    }

    /// See [`Log::transactional`].
    fn transactional(&self, id: &str) -> Result<Box<dyn Transactional>, LogError> {
        self.inner().transactional(id)
    }

    /// See [`Log::writer`].
    fn writer(&self, queue: usize) -> Result<Arc<dyn Writer>, LogError> {
        self.inner().writer(queue)
    }

    /// See [`Log::join`].
    fn join(&self, group: &str, topics: &[&str]) -> Result<Box<dyn Membership>, LogError> {
        self.inner().join(group, topics)
    }
}

impl<F: Forward> Log for F {
    fn full_name(&self, topic: &str) -> Arc<str> {
        self.inner().full_name(topic)
    }

    fn create(&self, topics: &[TopicSpec]) -> Result<(), LogError> {
        self.inner().create(topics)
    }

    fn describe(&self, topics: &[&str]) -> Result<Vec<TopicSpec>, LogError> {
        self.inner().describe(topics)
    }

    fn partitions(&self, topic: &str) -> Result<i32, LogError> {
        Forward::partitions(self, topic)
    }

    fn bounds(&self, at: &TopicPartition) -> Result<(NextOffset, NextOffset), LogError> {
        self.inner().bounds(at)
    }

    fn committed(&self, group: &str, at: &TopicPartition) -> Result<Option<NextOffset>, LogError> {
        self.inner().committed(group, at)
    }

    fn reader(&self, from: &[(TopicPartition, Start)]) -> Result<Box<dyn Reader>, LogError> {
        Forward::reader(self, from)
    }

    fn transactional(&self, id: &str) -> Result<Box<dyn Transactional>, LogError> {
        Forward::transactional(self, id)
    }

    fn writer(&self, queue: usize) -> Result<Arc<dyn Writer>, LogError> {
        Forward::writer(self, queue)
    }

    fn join(&self, group: &str, topics: &[&str]) -> Result<Box<dyn Membership>, LogError> {
        Forward::join(self, group, topics)
    }
}

/// A fault of the next commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The process dies before the transaction begins, or the transaction is aborted. Nothing is written.
    BeforeBegin,
    /// The process or the network dies after the records were produced and before the commit. No record becomes
    /// visible.
    AfterProduce,
    /// The transaction is committed, but the response is lost.
    ReplyLost,
    /// The process dies after the commit and before the rows are in the store.
    BeforeStore,
    /// The process dies after the commit and before the rows are in the store, and the store is lost.
    StoreLost,
}

/// The scheduled faults. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Faults(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    commits: VecDeque<Fault>,
    writes: VecDeque<Fault>,
    membership: Group,
}

/// What a group member receives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Group {
    /// The changes of the assignment.
    #[default]
    Heard,
    /// An error that it was expelled, once; then [`Group::Silent`].
    Expelled,
    /// No changes.
    Silent,
}

impl Faults {
    /// Schedules `fault` for the next commit.
    pub fn add(&self, fault: Fault) {
        let mut state = lock(&self.0);
        match fault {
            Fault::BeforeStore | Fault::StoreLost => state.writes.push_back(fault),
            _ => state.commits.push_back(fault),
        }
    }

    /// Sets what members receive from now on.
    pub fn set_group(&self, group: Group) {
        lock(&self.0).membership = group;
    }

    /// Whether all scheduled faults have happened.
    pub fn are_over(&self) -> bool {
        let state = lock(&self.0);
        state.commits.is_empty() && state.writes.is_empty()
    }

    fn commit(&self) -> Option<Fault> {
        lock(&self.0).commits.pop_front()
    }

    fn write(&self) -> Option<Fault> {
        lock(&self.0).writes.pop_front()
    }
}

/// A log whose commits fail on request.
#[derive(Clone)]
pub struct FaultyLog {
    log: Arc<dyn Log>,
    faults: Faults,
}

impl FaultyLog {
    /// Adds `faults` to `log`.
    pub fn new(log: Arc<dyn Log>, faults: Faults) -> Self {
        Self { log, faults }
    }
}

impl Forward for FaultyLog {
    fn inner(&self) -> &dyn Log {
        &*self.log
    }

    fn transactional(&self, id: &str) -> Result<Box<dyn Transactional>, LogError> {
        let inner = self.log.transactional(id)?;
        Ok(Box::new(FaultyTransactional { inner, faults: self.faults.clone() }))
    }

    fn join(&self, group: &str, topics: &[&str]) -> Result<Box<dyn Membership>, LogError> {
        let inner = self.log.join(group, topics)?;
        Ok(Box::new(FaultyMembership { inner, faults: self.faults.clone() }))
    }
}

struct FaultyMembership {
    inner: Box<dyn Membership>,
    faults: Faults,
}

impl Membership for FaultyMembership {
    fn poll(&self, wait: Duration) -> Result<Option<Assignment>, LogError> {
        let group = {
            let mut state = lock(&self.faults.0);
            let group = state.membership;
            if group == Group::Expelled {
                state.membership = Group::Silent;
            }
            group
        };
        match group {
            Group::Heard => self.inner.poll(wait),
            Group::Expelled => Err(failed("polling the group membership", &"an injected fault")),
            Group::Silent => Ok(None),
        }
    }

    fn release(&self, partitions: &[i32]) {
        self.inner.release(partitions);
    }

    fn as_any(&self) -> &dyn Any {
        self.inner.as_any()
    }
}

struct FaultyTransactional {
    inner: Box<dyn Transactional>,
    faults: Faults,
}

impl Transactional for FaultyTransactional {
    fn commit(
        &mut self,
        records: &[Outgoing],
        positions: &[(TopicPartition, NextOffset)],
        group: Option<&dyn Membership>,
    ) -> Result<Written, CommitError> {
        match self.faults.commit() {
            Some(Fault::BeforeBegin) => Err(CommitError::Aborted("an injected fault".into())),
            Some(Fault::AfterProduce) => Err(CommitError::Unknown("an injected fault; nothing was written".into())),
            Some(Fault::ReplyLost) => {
                self.inner.commit(records, positions, group)?;
                Err(CommitError::Unknown("an injected fault; everything was written".into()))
            }
            _ => self.inner.commit(records, positions, group),
        }
    }
}

/// Stores whose writes fail on request.
pub struct FaultyStores {
    stores: Arc<dyn Stores>,
    faults: Faults,
}

impl FaultyStores {
    /// Adds `faults` to `stores`.
    pub fn new(stores: Arc<dyn Stores>, faults: Faults) -> Self {
        Self { stores, faults }
    }
}

impl Stores for FaultyStores {
    fn open(&self, stage: &str, partition: i32) -> Result<Box<dyn Store>, StoreError> {
        let inner = self.stores.open(stage, partition)?;
        Ok(Box::new(FaultyStore { inner, faults: self.faults.clone() }))
    }
}

struct FaultyStore {
    inner: Box<dyn Store>,
    faults: Faults,
}

impl Store for FaultyStore {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        self.inner.get(key)
    }

    fn visit(&self, prefix: &[u8], row: &mut dyn FnMut(Bytes, Bytes) -> bool) -> Result<(), StoreError> {
        self.inner.visit(prefix, row)
    }

    fn write(&mut self, changes: Changes) -> Result<(), StoreError> {
        let Some(fault) = self.faults.write() else { return self.inner.write(changes) };
        if fault == Fault::StoreLost {
            self.inner.clear()?;
        }
        Err(StoreError { doing: "writing rows", cause: "an injected fault".into() })
    }

    fn clear(&mut self) -> Result<(), StoreError> {
        self.inner.clear()
    }

    fn flush(&mut self) -> Result<(), StoreError> {
        self.inner.flush()
    }
}
