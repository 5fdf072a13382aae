//! Consumer groups within one process: cooperative, sticky, revoke before assign.
//!
//! Invariant: a partition has at most one holder. It passes on only when its holder released it or left.

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
    /// Told to give up, not yet released.
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
        let member = group.join(events);
        LocalMembership { groups: Arc::clone(self), group: name.to_owned(), member, events: receiver }
    }

    fn with(&self, name: &str, change: impl FnOnce(&mut Group)) {
        if let Some(group) = lock(&self.groups).get_mut(name) {
            change(group);
        }
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

    fn release(&mut self, id: u64, partitions: &[i32]) {
        if let Some(member) = self.members.get_mut(&id) {
            self.free.extend(partitions.iter().copied().filter(|partition| member.revoking.remove(partition)));
        }
        self.balance();
    }

    /// Takes what is above each member's share, hands out what is free. Whoever has most keeps most.
    fn balance(&mut self) {
        let total = self.free.len() + self.members.values().map(|m| m.owned.len() + m.revoking.len()).sum::<usize>();
        let Some(base) = total.checked_div(self.members.len()) else { return };
        let mut order: Vec<(usize, u64)> = self.members.iter().map(|(id, m)| (m.owned.len(), *id)).collect();
        order.sort_by_key(|(owned, id)| (std::cmp::Reverse(*owned), *id));
        let extra = total % self.members.len();
        for (rank, (_, id)) in order.into_iter().enumerate() {
            let share = base + usize::from(rank < extra);
            let member = self.members.get_mut(&id).expect("it was listed above");
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
        // A member whose receiver is gone is about to leave.
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
    member: u64,
    events: Receiver<Assignment>,
}

impl LocalMembership {
    /// Name of the group.
    pub(crate) fn group(&self) -> &str {
        &self.group
    }
}

impl Membership for LocalMembership {
    fn poll(&self, wait: Duration) -> Result<Option<Assignment>, LogError> {
        match self.events.recv_timeout(wait) {
            Ok(assignment) => Ok(Some(assignment)),
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => Ok(None),
        }
    }

    fn release(&self, partitions: &[i32]) {
        self.groups.with(&self.group, |group| group.release(self.member, partitions));
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl Drop for LocalMembership {
    fn drop(&mut self) {
        self.groups.with(&self.group, |group| group.leave(self.member));
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
        /// Whatever joins, leaves and is slow to release: nobody holds the same partition twice, and all are held in the end.
        #[test]
        fn a_partition_has_one_holder(steps in prop::collection::vec((0_u8..3, 0_usize..4), 1..40)) {
            let groups = Arc::new(Groups::default());
            let mut members: Vec<(LocalMembership, BTreeSet<i32>)> = vec![(groups.join("g", 7), BTreeSet::new())];
            for (step, which) in steps {
                match step {
                    0 if members.len() < 5 => members.push((groups.join("g", 7), BTreeSet::new())),
                    1 if members.len() > 1 => drop(members.remove(which % members.len())),
                    _ => {
                        let at = which % members.len();
                        let (member, held) = &mut members[at];
                        apply(member, held);
                    }
                }
                let mut seen = BTreeSet::new();
                for partition in members.iter().flat_map(|(_, held)| held) {
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
