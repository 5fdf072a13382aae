//! Groups: each partition has exactly one owner, and partitions move only after they were released.

use std::{collections::BTreeSet, time::Duration};

use super::{Bench, CASE_TIMEOUT, DELETE, Outcome, topic};
use crate::log::{Assignment, Log, Membership};

const PARTITIONS: i32 = 4;

/// A member and the partitions that it holds.
struct Holder {
    member: Box<dyn Membership>,
    held: BTreeSet<i32>,
}

impl Holder {
    fn join(log: &dyn Log) -> Result<Self, Box<dyn std::error::Error>> {
        Ok(Self { member: log.join("g", &["a", "b"])?, held: BTreeSet::new() })
    }

    /// Applies the next assignment change of the group.
    fn follow(&mut self) -> Outcome {
        match self.member.poll(Duration::from_millis(20))? {
            Some(Assignment::Assigned(partitions)) => self.held.extend(partitions),
            Some(Assignment::Revoked(partitions)) => {
                assert!(partitions.iter().all(|partition| self.held.contains(partition)), "revoked, but not held");
                // The partitions are given up before they are released.
                self.held.retain(|partition| !partitions.contains(partition));
                self.member.release(&partitions);
            }
            Some(Assignment::Lost(partitions)) => {
                self.held.retain(|partition| !partitions.contains(partition));
                self.member.release(&partitions);
            }
            None => {}
        }
        Ok(())
    }
}

/// Follows the group until the members hold the given numbers of partitions. No partition may have two owners.
fn settle(holders: &mut [&mut Holder], counts: &[usize]) -> Outcome {
    let deadline = std::time::Instant::now() + CASE_TIMEOUT;
    loop {
        for holder in holders.iter_mut() {
            holder.follow()?;
        }
        let mut seen = BTreeSet::new();
        for partition in holders.iter().flat_map(|holder| &holder.held) {
            assert!(seen.insert(*partition), "two members hold {partition}");
        }
        let held: Vec<usize> = holders.iter().map(|holder| holder.held.len()).collect();
        if held == counts {
            return Ok(());
        }
        if std::time::Instant::now() > deadline {
            return Err(format!("the members hold {held:?} partitions instead of {counts:?}").into());
        }
    }
}

/// A single member gets all partitions.
pub fn one_member_gets_all(bench: &mut impl Bench) -> Outcome {
    let log = bench.log();
    log.create(&[topic("a", PARTITIONS, DELETE), topic("b", PARTITIONS, DELETE)])?;
    let mut alone = Holder::join(log.as_ref())?;
    settle(&mut [&mut alone], &[4])?;
    assert_eq!(alone.held, (0..PARTITIONS).collect());
    Ok(())
}

/// A second member gets its share only after the first has released it. Partitions that do not move are not
/// interrupted.
pub fn revoked_before_assigned(bench: &mut impl Bench) -> Outcome {
    let log = bench.log();
    log.create(&[topic("a", PARTITIONS, DELETE), topic("b", PARTITIONS, DELETE)])?;
    let mut first = Holder::join(log.as_ref())?;
    settle(&mut [&mut first], &[4])?;
    let mut second = Holder::join(log.as_ref())?;
    settle(&mut [&mut first, &mut second], &[2, 2])?;
    Ok(())
}

/// When a member leaves, the others get its partitions.
pub fn partitions_of_a_leaver_are_reassigned(bench: &mut impl Bench) -> Outcome {
    let log = bench.log();
    log.create(&[topic("a", PARTITIONS, DELETE), topic("b", PARTITIONS, DELETE)])?;
    let mut first = Holder::join(log.as_ref())?;
    settle(&mut [&mut first], &[4])?;
    let mut second = Holder::join(log.as_ref())?;
    settle(&mut [&mut first, &mut second], &[2, 2])?;
    let kept = second.held.clone();
    drop(first);
    settle(&mut [&mut second], &[4])?;
    assert!(second.held.is_superset(&kept));
    Ok(())
}
