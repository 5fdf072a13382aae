//! Transactions: atomic, with one owner per id.

use super::{Bench, DELETE, Outcome, at, outgoing, read_all, read_count, read_to_end, topic, until, values, write};
use crate::{
    log::{Assignment, CommitError, Membership, Start},
    record::Target,
};

/// All records of a commit are visible after it, in every partition. The commit returns the positions that it wrote
/// to.
pub fn a_commit_is_atomic(bench: &mut impl Bench) -> Outcome {
    let log = bench.log();
    log.create(&[topic("a", 2, DELETE), topic("b", 1, DELETE)])?;
    let mut owner = log.transactional("owner")?;
    for round in ["1", "2", "3"] {
        let records = [
            outgoing("a", Target::EveryPartition, "k", round),
            outgoing("b", Target::ByKey, "k", round),
            outgoing("b", Target::ByKey, "k", round),
        ];
        let written = owner.commit(&records, &[], None)?;
        for (topic, partition) in [("a", 0), ("a", 1), ("b", 0)] {
            let records = read_all(log.as_ref(), topic, partition)?;
            assert_eq!(records.last().and_then(|record| record.value.as_deref()), Some(round.as_bytes()));
            let place = at(log.as_ref(), topic, partition);
            assert_eq!(written.after(&place), records.last().map(crate::record::Record::next));
            // A reader continues after the commit.
            let next = written.after(&place).ok_or("no position")?;
            let mut reader = log.reader(&[(place, Start::At(next))])?;
            assert!(read_to_end(reader.as_mut())?.is_empty());
        }
    }
    assert_eq!(values(&read_all(log.as_ref(), "b", 0)?), ["1", "1", "2", "2", "3", "3"]);
    Ok(())
}

/// The committed positions of a group move together with the transaction.
pub fn positions_move_with_it(bench: &mut impl Bench) -> Outcome {
    let log = bench.log();
    log.create(&[topic("in", 1, DELETE), topic("out", 1, DELETE)])?;
    write(log.as_ref(), (0..3).map(|n| outgoing("in", Target::ByKey, "k", &n.to_string())))?;
    let member = log.join("g", &["in"])?;
    until("an assignment", || matches!(poll(member.as_ref()), Some(Assignment::Assigned(_))))?;
    let place = at(log.as_ref(), "in", 0);
    assert_eq!(log.committed("g", &place)?, None);
    let next = read_all(log.as_ref(), "in", 0)?[1].next();
    let mut owner = log.transactional("owner")?;
    owner.commit(&[outgoing("out", Target::ByKey, "k", "v")], &[(place.clone(), next)], Some(member.as_ref()))?;
    assert_eq!(log.committed("g", &place)?, Some(next));
    Ok(())
}

fn poll(member: &dyn Membership) -> Option<Assignment> {
    member.poll(std::time::Duration::from_millis(100)).ok().flatten()
}

/// Taking over an id fences the previous owner: its commits fail and write nothing.
pub fn a_newer_owner_fences(bench: &mut impl Bench) -> Outcome {
    let log = bench.log();
    log.create(&[topic("t", 1, DELETE)])?;
    let mut first = log.transactional("owner")?;
    first.commit(&[outgoing("t", Target::ByKey, "k", "1")], &[], None)?;
    let mut second = log.transactional("owner")?;
    let fenced = first.commit(&[outgoing("t", Target::ByKey, "k", "zombie")], &[], None);
    assert!(matches!(fenced, Err(CommitError::Fenced)), "{fenced:?}");
    second.commit(&[outgoing("t", Target::ByKey, "k", "2")], &[], None)?;
    let mut other = log.transactional("another")?;
    other.commit(&[outgoing("t", Target::ByKey, "k", "3")], &[], None)?;
    assert_eq!(values(&read_all(log.as_ref(), "t", 0)?), ["1", "2", "3"]);
    Ok(())
}

/// No record of a failed transaction is visible.
pub fn aborted_transactions_are_invisible(bench: &mut impl Bench) -> Outcome {
    let log = bench.log();
    log.create(&[topic("t", 1, DELETE)])?;
    let mut owner = log.transactional("owner")?;
    let records = [outgoing("t", Target::ByKey, "k", "half"), outgoing("nowhere", Target::ByKey, "k", "v")];
    let aborted = owner.commit(&records, &[], None);
    assert!(matches!(aborted, Err(CommitError::Aborted(_))), "{aborted:?}");
    drop(owner);
    log.transactional("owner")?.commit(&[outgoing("t", Target::ByKey, "k", "whole")], &[], None)?;
    assert_eq!(values(&read_all(log.as_ref(), "t", 0)?), ["whole"]);
    Ok(())
}

/// An open transaction holds back the records after it. Taking over its id aborts it, and none of its records become
/// visible.
pub fn open_transactions_are_invisible(bench: &mut impl Bench) -> Outcome {
    let log = bench.log();
    log.create(&[topic("t", 1, DELETE)])?;
    write(log.as_ref(), [outgoing("t", Target::ByKey, "k", "before")])?;
    let open = bench.open_transaction("owner", "t", "open");
    write(log.as_ref(), [outgoing("t", Target::ByKey, "k", "after")])?;
    let mut reader = log.reader(&[(at(log.as_ref(), "t", 0), Start::Beginning)])?;
    if open.is_some() {
        assert_eq!(values(&read_to_end(reader.as_mut())?), ["before"]);
        let _next_owner = log.transactional("owner")?;
        assert_eq!(values(&read_count(reader.as_mut(), 1)?), ["after"]);
    } else {
        assert_eq!(values(&read_to_end(reader.as_mut())?), ["before", "after"]);
    }
    Ok(())
}
