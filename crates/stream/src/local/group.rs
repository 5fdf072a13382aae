//! Consumer groups within one process: cooperative, sticky, revoke before assign.
//!
//! Invariant: a partition has at most one owner. It moves only after its owner has released it, left, or was
//! expelled.

use std::{
    any::Any,
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, Mutex},
    time::Duration,
};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, unbounded};

use super::lock;
use crate::log::{Assignment, LogError, Membership};

/// All groups of a log.
#[derive(Debug, Default)]
pub(crate) struct Groups {
    groups: Mutex<HashMap<String, Group>>,
}

/// One group.
#[derive(Debug, Default)]
struct Group {
    free: BTreeSet<i32>,
    members: BTreeMap<u64, Member>,
    next_member: u64,
}

#[derive(Debug)]
struct Member {
    owned: BTreeSet<i32>,
    /// Partitions that were revoked and are not yet released.
    revoking: BTreeSet<i32>,
    events: Sender<Assignment>,
}

impl Groups {
    /// Adds a member to `name` over `partitions` partitions.
    pub(crate) fn join(self: &Arc<Self>, name: &str, partitions: i32) -> LocalMembership {
        let (events, receiver) = unbounded();
        let mut groups = lock(&self.groups);
        let group = groups
            .entry(name.to_owned())
            .or_insert_with(|| Group { free: (0..partitions).collect(), ..Group::default() });
        let session = Session { member: group.join(events), events: receiver };
        LocalMembership { groups: Arc::clone(self), group: name.to_owned(), session: Mutex::new(session) }
    }

    fn with<T>(&self, name: &str, look: impl FnOnce(&mut Group) -> T) -> Option<T> {
        lock(&self.groups).get_mut(name).map(look)
    }
}

impl Group {
    fn join(&mut self, events: Sender<Assignment>) -> u64 {
        let id = self.next_member;
        self.next_member += 1;
        self.members.insert(id, Member { owned: BTreeSet::new(), revoking: BTreeSet::new(), events });
        self.balance();
        id
    }

    fn leave(&mut self, id: u64) {
        if let Some(member) = self.members.remove(&id) {
            self.free.extend(member.owned);
            self.free.extend(member.revoking);
        }
        self.balance();
    }

    /// Removes a member whose session has timed out, and frees its partitions.
    fn expel(&mut self, id: u64) {
        if let Some(member) = self.members.remove(&id) {
            let lost: BTreeSet<i32> = member.owned.union(&member.revoking).copied().collect();
            // The member gets this event if it is still alive.
            let _ = member.events.send(Assignment::Lost(lost.iter().copied().collect()));
            self.free.extend(lost);
        }
        self.balance();
    }

    /// Assigns a member's partitions to it again.
    fn resume(&mut self, id: u64, events: Sender<Assignment>) {
        if let Some(member) = self.members.get_mut(&id) {
            member.owned.append(&mut member.revoking);
            let _ = events.send(Assignment::Assigned(member.owned.iter().copied().collect()));
            member.events = events;
        }
        self.balance();
    }

    fn release(&mut self, id: u64, partitions: &[i32]) {
        if let Some(member) = self.members.get_mut(&id) {
            self.free.extend(partitions.iter().copied().filter(|partition| member.revoking.remove(partition)));
        }
        self.balance();
    }

    /// Revokes partitions above each member's share and assigns free ones. Members with more partitions keep more.
    fn balance(&mut self) {
        let total = self.free.len() + self.members.values().map(|m| m.owned.len() + m.revoking.len()).sum::<usize>();
        let Some(base) = total.checked_div(self.members.len()) else { return };
        let mut order: Vec<(usize, u64)> = self.members.iter().map(|(id, m)| (m.owned.len(), *id)).collect();
        order.sort_by_key(|(owned, id)| (std::cmp::Reverse(*owned), *id));
        let extra = total % self.members.len();
        for (rank, (_, id)) in order.into_iter().enumerate() {
            let share = base + usize::from(rank < extra);
            let member = self.members.get_mut(&id).expect("the member was listed above");
            member.shrink_to(share);
            member.grow_to(share, &mut self.free);
        }
    }
}

impl Member {
    fn shrink_to(&mut self, share: usize) {
        let surplus: Vec<i32> = self.owned.iter().copied().skip(share).collect();
        if surplus.is_empty() {
            return;
        }
        self.owned.retain(|partition| !surplus.contains(partition));
        self.revoking.extend(&surplus);
        // A member without a receiver is about to leave.
        let _ = self.events.send(Assignment::Revoked(surplus));
    }

    fn grow_to(&mut self, share: usize, free: &mut BTreeSet<i32>) {
        let mut gained = Vec::new();
        while self.owned.len() < share
            && let Some(partition) = free.pop_first()
        {
            self.owned.insert(partition);
            gained.push(partition);
        }
        if !gained.is_empty() {
            let _ = self.events.send(Assignment::Assigned(gained));
        }
    }
}

/// A member of a group in this process. Dropping it leaves the group.
#[derive(Debug)]
pub struct LocalMembership {
    groups: Arc<Groups>,
    group: String,
    session: Mutex<Session>,
}

/// The state of a member until it is expelled.
#[derive(Clone, Debug)]
struct Session {
    member: u64,
    events: Receiver<Assignment>,
}

impl LocalMembership {
    /// The name of the group.
    pub(crate) fn group(&self) -> &str {
        &self.group
    }

    /// Whether the group still knows the member. Positions of an expelled member are rejected.
    pub(crate) fn is_known(&self) -> bool {
        let member = self.session().member;
        self.groups.with(&self.group, |group| group.members.contains_key(&member)).unwrap_or(false)
    }

    /// Expels the member, as after a session timeout. Its next poll reports that all partitions are lost, and it
    /// joins again.
    pub(crate) fn expel(&self) {
        let member = self.session().member;
        self.groups.with(&self.group, |group| group.expel(member));
    }

    /// Lets another process take the place of this member.
    pub(crate) fn resume(&self) {
        let (events, receiver) = unbounded();
        let member = self.session().member;
        self.groups.with(&self.group, |group| group.resume(member, events));
        if self.is_known() {
            lock(&self.session).events = receiver;
        }
    }

    fn session(&self) -> Session {
        lock(&self.session).clone()
    }

    fn rejoin(&self) {
        let (events, receiver) = unbounded();
        if let Some(member) = self.groups.with(&self.group, |group| group.join(events)) {
            *lock(&self.session) = Session { member, events: receiver };
        }
    }
}

impl Membership for LocalMembership {
    fn poll(&self, wait: Duration) -> Result<Option<Assignment>, LogError> {
        match self.session().events.recv_timeout(wait) {
            Ok(lost @ Assignment::Lost(_)) => {
                self.rejoin();
                Ok(Some(lost))
            }
            Ok(assignment) => Ok(Some(assignment)),
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => Ok(None),
        }
    }

    fn release(&self, partitions: &[i32]) {
        let member = self.session().member;
        self.groups.with(&self.group, |group| group.release(member, partitions));
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl Drop for LocalMembership {
    fn drop(&mut self) {
        let member = self.session().member;
        self.groups.with(&self.group, |group| group.leave(member));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn apply(member: &LocalMembership, held: &mut BTreeSet<i32>) {
        while let Some(assignment) = member.poll(Duration::ZERO).unwrap() {
            match assignment {
                Assignment::Assigned(partitions) => held.extend(partitions),
                Assignment::Revoked(partitions) | Assignment::Lost(partitions) => {
                    held.retain(|partition| !partitions.contains(partition));
                    member.release(&partitions);
                }
            }
        }
    }

    proptest! {
        /// Whichever members join, leave, are expelled and are slow to release: no two members that the group knows
        /// hold the same partition, and all partitions are held in the end.
        #[test]
        fn a_partition_has_one_holder(steps in prop::collection::vec((0_u8..4, 0_usize..4), 1..40)) {
            let groups = Arc::new(Groups::default());
            let mut members: Vec<(LocalMembership, BTreeSet<i32>)> = vec![(groups.join("g", 7), BTreeSet::new())];
            for (step, which) in steps {
                match step {
                    0 if members.len() < 5 => members.push((groups.join("g", 7), BTreeSet::new())),
                    1 if members.len() > 1 => drop(members.remove(which % members.len())),
                    3 => members[which % members.len()].0.expel(),
                    _ => {
                        let at = which % members.len();
                        let (member, held) = &mut members[at];
                        apply(member, held);
                    }
                }
                let mut seen = BTreeSet::new();
                for partition in members.iter().filter(|(member, _)| member.is_known()).flat_map(|(_, held)| held) {
                    prop_assert!(seen.insert(*partition), "two hold {partition}");
                }
            }
            for _ in 0..members.len() * 2 {
                for (member, held) in &mut members {
                    apply(member, held);
                }
            }
            let total: usize = members.iter().map(|(_, held)| held.len()).sum();
            prop_assert_eq!(total, 7);
            let most = members.iter().map(|(_, held)| held.len()).max().unwrap();
            prop_assert_eq!(most, 7_usize.div_ceil(members.len()));
        }
    }
}
