//! A model of a Kafka cluster as a state machine: partitions, transactions, positions of groups. It has no clock, no
//! names and no randomness.
//!
//! It models offsets with a gap for each end of a transaction, epochs, the last stable offset, aborted records that
//! keep their offsets, repeated batches, transaction timeouts, compaction and retention. It does not model replicas
//! and leaders (the cluster is one machine that never loses data), quotas, and several requests in flight for one
//! producer.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serin_topology::{Cleanup, TopicSpec};

use crate::local::{
    has_append_time,
    storage::{Place, Stored},
};

/// How long a transaction may stay open, the same as in `crate::kafka`.
const TRANSACTION_MS: i64 = 30_000;
/// How long a tombstone stays: Kafka's `delete.retention.ms`.
const TOMBSTONES_KEPT_MS: i64 = 24 * 3600 * 1000;

/// The sender of a request: a transactional id and the epoch of its owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Owner {
    pub(super) id: String,
    pub(super) epoch: i64,
}

/// A request of a transactional producer.
#[derive(Clone, Debug)]
pub(super) enum Request {
    /// Opens a transaction.
    Begin,
    /// Adds records to one partition. A repeated batch is acknowledged but not added again.
    Produce { batch: u64, place: Place, records: Vec<Stored> },
    /// Sets positions of a group when the transaction commits.
    Positions { group: String, positions: Vec<(Place, i64)> },
    /// Commits or aborts the transaction.
    End { commit: bool },
}

/// The reason why a request was denied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Denied {
    /// A newer owner of the id exists, or the transaction timed out.
    Fenced,
    /// There is no open transaction; it has already ended.
    NotOpen,
}

/// A deliberate defect of the cluster. A simulation that does not detect these defects proves nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Flaw {
    /// No defect.
    #[default]
    None,
    /// Old owners of a transactional id can still write.
    ServesZombies,
    /// Readers see uncommitted records.
    ShowsUncommitted,
    /// A repeated batch is added again.
    AddsRepeated,
    /// Taking over does not fence: two owners share one epoch.
    NoTakeOver,
}

#[derive(Debug, Default)]
pub(super) struct Broker {
    partitions: BTreeMap<Place, Partition>,
    owners: BTreeMap<String, State>,
    positions: BTreeMap<(String, Place), i64>,
    compacted: BTreeSet<u32>,
    /// Topics with append time.
    stamped: BTreeSet<u32>,
    /// Delayed requests, with the number of other requests that arrive before them.
    late: Vec<(u32, Owner, Request)>,
    flaw: Flaw,
}

/// The state of one transactional id.
#[derive(Debug, Default)]
struct State {
    epoch: i64,
    open: Option<Transaction>,
}

#[derive(Debug)]
struct Transaction {
    since_ms: i64,
    /// End offset of each batch, to answer repeated batches.
    batches: HashMap<u64, i64>,
    written: Vec<(Place, i64)>,
    positions: Vec<(String, Place, i64)>,
}

#[derive(Debug, Default)]
struct Partition {
    start: i64,
    end: i64,
    /// Newest timestamp.
    newest_ms: i64,
    records: BTreeMap<i64, (Stored, Visible)>,
    /// First offset of each open transaction, by id and epoch.
    open: BTreeMap<(String, i64), i64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Visible {
    Yes,
    NotYet,
    Never,
}

impl Partition {
    fn stable_end(&self) -> i64 {
        self.open.values().copied().min().unwrap_or(self.end)
    }

    /// With `stamped`, timestamps never go back.
    fn append(&mut self, records: Vec<Stored>, visible: Visible, stamped: bool) -> std::ops::Range<i64> {
        let first = self.end;
        for mut record in records {
            if stamped {
                record.timestamp_ms = record.timestamp_ms.max(self.newest_ms);
                self.newest_ms = record.timestamp_ms;
            }
            self.records.insert(self.end, (record, visible));
            self.end += 1;
        }
        first..self.end
    }

    fn compact(&mut self, oldest_tombstone_ms: i64) {
        let end = self.stable_end();
        let visible = |record: &(Stored, Visible)| record.1 == Visible::Yes;
        let stable = self.records.range(..end).filter(|(_, record)| visible(record));
        let newest: HashMap<_, i64> = stable.map(|(offset, (record, _))| (record.key.clone(), *offset)).collect();
        self.records.retain(|offset, record| {
            let is_kept = record.0.value.is_some() || record.0.timestamp_ms >= oldest_tombstone_ms;
            *offset >= end || (visible(record) && is_kept && newest.get(&record.0.key) == Some(offset))
        });
    }
}

impl Broker {
    /// Creates a cluster with a defect.
    pub(super) fn with(flaw: Flaw) -> Self {
        Self { flaw, ..Self::default() }
    }

    /// Creates the partitions of a new topic.
    pub(super) fn created(&mut self, topic: u32, partitions: i32, spec: &TopicSpec) {
        for partition in 0..partitions {
            self.partitions.entry(Place { topic, partition }).or_default();
        }
        if spec.cleanup == Cleanup::Compact {
            self.compacted.insert(topic);
        }
        if has_append_time(spec) {
            self.stamped.insert(topic);
        }
    }

    /// First offset and last stable offset of each partition.
    pub(super) fn bounds(&self) -> impl Iterator<Item = (Place, i64, i64)> {
        let shows_all = self.flaw == Flaw::ShowsUncommitted;
        self.partitions.iter().map(move |(place, partition)| {
            (*place, partition.start, if shows_all { partition.end } else { partition.stable_end() })
        })
    }

    /// Adds a record without a transaction.
    pub(super) fn append(&mut self, place: Place, record: Stored) {
        let stamped = self.stamped.contains(&place.topic);
        self.partitions.entry(place).or_default().append(vec![record], Visible::Yes, stamped);
    }

    /// Gives `id` a new owner and aborts the previous owner's transaction.
    pub(super) fn take_over(&mut self, id: &str) -> i64 {
        let epoch = self.owners.entry(id.to_owned()).or_default().epoch;
        if self.flaw == Flaw::NoTakeOver {
            return epoch;
        }
        self.end(&Owner { id: id.to_owned(), epoch }, false);
        self.owners.entry(id.to_owned()).or_default().epoch = epoch + 1;
        epoch + 1
    }

    /// Handles one request after the delayed requests that are due.
    pub(super) fn serve(&mut self, owner: &Owner, request: &Request, now_ms: i64) -> Result<Option<i64>, Denied> {
        self.deliver_late(1, now_ms);
        self.apply(owner, request, now_ms)
    }

    /// Delays a request until `after` other requests have arrived.
    pub(super) fn delay(&mut self, after: u32, owner: &Owner, request: &Request) {
        self.late.push((after, owner.clone(), request.clone()));
    }

    /// Advances delayed requests by `steps` and handles those that are due.
    pub(super) fn deliver_late(&mut self, steps: u32, now_ms: i64) {
        for (left, ..) in &mut self.late {
            *left = left.saturating_sub(steps);
        }
        let (arrived, rest) = std::mem::take(&mut self.late).into_iter().partition(|(left, ..)| *left == 0);
        self.late = rest;
        for (_, owner, request) in arrived {
            // The sender no longer waits for the response.
            let _ = self.apply(&owner, &request, now_ms);
        }
    }

    fn apply(&mut self, owner: &Owner, request: &Request, now_ms: i64) -> Result<Option<i64>, Denied> {
        let state = self.owners.get_mut(&owner.id).ok_or(Denied::Fenced)?;
        if state.epoch != owner.epoch && self.flaw != Flaw::ServesZombies {
            return Err(Denied::Fenced);
        }
        match request {
            Request::Begin => {
                let (batches, written, positions) = (HashMap::new(), Vec::new(), Vec::new());
                state.open.get_or_insert(Transaction { since_ms: now_ms, batches, written, positions });
                Ok(None)
            }
            Request::Produce { batch, place, records } => {
                let open = state.open.as_mut().ok_or(Denied::NotOpen)?;
                let repeated = open.batches.get(batch).copied().filter(|_| self.flaw != Flaw::AddsRepeated);
                if repeated.is_some() {
                    return Ok(repeated);
                }
                let partition = self.partitions.entry(*place).or_default();
                let offsets = partition.append(records.clone(), Visible::NotYet, self.stamped.contains(&place.topic));
                partition.open.entry((owner.id.clone(), owner.epoch)).or_insert(offsets.start);
                open.batches.insert(*batch, offsets.end);
                open.written.extend(offsets.clone().map(|offset| (*place, offset)));
                Ok(Some(offsets.end))
            }
            Request::Positions { group, positions } => {
                let open = state.open.as_mut().ok_or(Denied::NotOpen)?;
                open.positions.extend(positions.iter().map(|(place, next)| (group.clone(), *place, *next)));
                Ok(None)
            }
            Request::End { commit } => {
                self.end(owner, *commit);
                Ok(None)
            }
        }
    }

    /// Ends the open transaction of `owner`, if there is one. A repeated end has no effect.
    fn end(&mut self, owner: &Owner, commit: bool) {
        let Some(open) = self.owners.get_mut(&owner.id).and_then(|state| state.open.take()) else { return };
        let visible = if commit { Visible::Yes } else { Visible::Never };
        let mut places = BTreeSet::new();
        for (place, offset) in open.written {
            if let Some(partition) = self.partitions.get_mut(&place) {
                if let Some(record) = partition.records.get_mut(&offset) {
                    record.1 = visible;
                }
                places.insert(place);
            }
        }
        for place in places {
            if let Some(partition) = self.partitions.get_mut(&place) {
                // The commit or abort marker.
                partition.end += 1;
                partition.open.retain(|(id, _), _| *id != owner.id);
            }
        }
        if commit {
            self.positions.extend(open.positions.into_iter().map(|(group, place, next)| ((group, place), next)));
        }
    }

    /// Aborts transactions that have been open for too long and fences their owners.
    pub(super) fn expire(&mut self, now_ms: i64) {
        let too_old = |state: &State| state.open.as_ref().is_some_and(|open| now_ms - open.since_ms > TRANSACTION_MS);
        let ids: Vec<String> =
            self.owners.iter().filter(|(_, state)| too_old(state)).map(|(id, _)| id.clone()).collect();
        for id in ids {
            let epoch = self.owners.get(&id).map_or(0, |state| state.epoch);
            self.end(&Owner { id: id.clone(), epoch }, false);
            self.owners.entry(id).or_default().epoch += 1;
        }
    }

    /// The committed position of a group.
    pub(super) fn position(&self, group: &str, place: Place) -> Option<i64> {
        self.positions.get(&(group.to_owned(), place)).copied()
    }

    /// Passes committed records to `sink` in order until it returns false. Returns false if the partition does not
    /// exist.
    pub(super) fn read(
        &self,
        place: Place,
        range: std::ops::Range<i64>,
        sink: &mut dyn FnMut(i64, Stored) -> bool,
    ) -> bool {
        let Some(partition) = self.partitions.get(&place) else { return false };
        let shows_all = self.flaw == Flaw::ShowsUncommitted;
        for (offset, (record, visible)) in partition.records.range(range) {
            if (shows_all || *visible == Visible::Yes) && !sink(*offset, record.clone()) {
                break;
            }
        }
        true
    }

    /// Removes a topic.
    pub(super) fn delete(&mut self, topic: u32) {
        self.partitions.retain(|place, _| place.topic != topic);
        self.positions.retain(|(_, place), _| place.topic != topic);
    }

    /// Compacts topics: removes records with a newer record of the same key, and old tombstones.
    pub(super) fn compact(&mut self, now_ms: i64) {
        for (place, partition) in &mut self.partitions {
            if self.compacted.contains(&place.topic) {
                partition.compact(now_ms.saturating_sub(TOMBSTONES_KEPT_MS));
            }
        }
    }

    /// Removes all records before `start`.
    pub(super) fn trim(&mut self, place: Place, start: i64) {
        if let Some(partition) = self.partitions.get_mut(&place) {
            partition.start = start.clamp(partition.start, partition.stable_end());
            let first = partition.start;
            partition.records.retain(|offset, _| *offset >= first);
        }
    }
}
