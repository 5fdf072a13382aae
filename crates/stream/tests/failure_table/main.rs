//! Every row of the failure table in docs/exactly-once.md: after the failure, either the outputs equal those of an
//! undisturbed run on the same inputs, each record exactly once, or the task stops with an error that explains the
//! cause.
#![cfg(feature = "conformance")]
#![expect(clippy::unwrap_used, reason = "a panic fails the test")]

mod rig;

use std::time::Duration;

use serin_schemas::ids::NextOffset;
use serin_stream::{
    checkpoint::{self, Checkpoint},
    conformance::{at, counting::expected, outgoing, read_all, write},
    log::Log as _,
    record::{Outgoing, Target},
    sim::{Fate, Step},
    task::TaskOptions,
};

use rig::{Rig, changelog, quick};

#[test]
fn a_crash_before_the_transaction_changes_nothing() {
    let mut rig = Rig::busy();
    let before = rig.outputs();
    rig.feed(5);
    rig.simulation.at_next(0, Step::Begin, Fate::Dies);
    rig.until_it_happened();
    assert_eq!(rig.outputs(), before);
    rig.ends_well();
}

#[test]
fn a_crash_within_the_transaction_is_never_seen() {
    for step in [Step::Begin, Step::Produce, Step::Positions, Step::Commit] {
        for fate in
            [Fate::Dies, Fate::DiesAfter].into_iter().filter(|fate| (step, *fate) != (Step::Commit, Fate::DiesAfter))
        {
            let mut rig = Rig::busy();
            let before = rig.outputs();
            rig.feed(5);
            rig.simulation.at_next(0, step, fate);
            rig.until_it_happened();
            assert_eq!(rig.outputs(), before, "{step:?} {fate:?}");
            rig.ends_well();
        }
    }
}

#[test]
fn a_commit_without_a_reply_is_settled_from_the_log() {
    // The commit happened, did not happen, or arrives when the next owner is there.
    for (fate, happened) in [(Fate::ReplyLost, true), (Fate::Lost, false), (Fate::Late(1), false)] {
        let mut rig = Rig::busy();
        let (before, rows) = (rig.outputs().len(), rig.rows(0));
        rig.feed(3);
        rig.simulation.at_next(0, Step::Commit, fate);
        rig.until_it_happened();
        assert_eq!(rig.outputs().len(), if happened { before + 3 } else { before }, "{fate:?}");
        assert!(rig.rows(0) >= rows, "{fate:?}: nothing is discarded");
        rig.ends_well();
    }
    // The commit arrives after the owner gave up and before it reopens.
    let mut rig = Rig::busy();
    rig.feed(3);
    rig.simulation.at_next(0, Step::Commit, Fate::Late(1000));
    rig.until_it_happened();
    rig.log().deliver_late();
    rig.ends_well();
}

#[test]
fn a_crash_between_commit_and_store_replays_one_commit() {
    for (step, fate) in
        [(Step::Commit, Fate::DiesAfter), (Step::WriteStore, Fate::Dies), (Step::WriteStore, Fate::DiesAfter)]
    {
        let mut rig = Rig::busy();
        rig.feed(3);
        let before = rig.outputs().len();
        rig.simulation.at_next(0, step, fate);
        rig.until_it_happened();
        assert_eq!(rig.outputs().len(), before + 3, "{step:?} {fate:?}: it is committed");
        rig.ends_well();
    }
}

#[test]
fn unflushed_rows_come_back_from_the_changelog() {
    let rig = Rig::busy();
    let rows = rig.simulation.disk(0).rows("counter", 0);
    rig.simulation.disk(0).crash(|_| 0);
    rig.simulation.crash(0);
    assert_ne!(rig.simulation.disk(0).rows("counter", 0), rows, "something was not flushed");
    rig.ends_well();
}

#[test]
fn a_torn_store_is_discarded() {
    let rig = Rig::busy();
    let rows = rig.rows(0);
    rig.simulation.crash(0);
    rig.simulation.disk(0).tear();
    rig.simulation.start(0);
    rig.simulation.settle("a new store", |_| rig.rows(0) >= rows).unwrap();
    rig.ends_well();
}

#[test]
fn a_store_that_fails_while_it_works_is_discarded() {
    let mut rig = Rig::busy();
    rig.simulation.disk(0).tear();
    rig.feed(3);
    rig.ends_well();
}

#[test]
fn a_full_disk_delays_only() {
    let mut rig = Rig::busy();
    rig.feed(5);
    for _ in 0..5 {
        rig.simulation.at_next(0, Step::WriteStore, Fate::Refused);
    }
    rig.until_it_happened();
    rig.ends_well();
}

#[test]
fn a_lost_disk_is_restored_from_the_changelog() {
    let rig = Rig::busy();
    rig.simulation.crash(0);
    rig.simulation.disk(0).lose();
    rig.log().compact();
    rig.ends_well();
}

#[test]
fn a_killed_owner_is_followed_by_another() {
    let mut rig = Rig::busy();
    rig.feed(10);
    rig.simulation.turns(0, 2);
    rig.simulation.crash(0);
    let before = rig.outputs().len();
    rig.simulation.turns(1, 50);
    assert_eq!(rig.outputs().len(), before, "its session has not timed out");
    rig.simulation.expel(0);
    rig.settle();
    assert_eq!(rig.outputs(), expected(&rig.fed));
    rig.ends_well();
}

#[test]
fn a_zombie_is_fenced_wherever_it_slept() {
    for step in [Step::Fetch, Step::Begin, Step::Produce, Step::Positions, Step::Commit, Step::WriteStore] {
        let mut rig = Rig::busy();
        rig.feed(6);
        rig.simulation.meanwhile(0, step, |simulation| {
            simulation.expel(0);
            simulation.turns(1, 100);
        });
        rig.until_it_happened();
        assert_eq!(rig.outputs(), expected(&rig.fed), "{step:?}: the other owner has processed everything");
        // The zombie wakes up and continues where it was paused.
        rig.simulation.turns(0, 20);
        assert_eq!(rig.outputs(), expected(&rig.fed), "{step:?}");
        rig.ends_well();
    }
}

#[test]
fn a_zombie_that_slept_while_opening_is_fenced_too() {
    for step in [Step::OpenStore, Step::TakeOver, Step::ReadStore, Step::Ask, Step::Assign, Step::Fetch] {
        let mut rig = Rig::busy();
        rig.simulation.crash(0);
        rig.feed(6);
        rig.simulation.meanwhile(0, step, |simulation| {
            simulation.expel(0);
            simulation.turns(1, 100);
        });
        rig.simulation.start(0);
        rig.until_it_happened();
        rig.ends_well();
    }
}

#[test]
fn a_moved_leader_aborts_and_delays_only() {
    for step in [Step::TakeOver, Step::Assign, Step::Begin, Step::Produce, Step::Positions, Step::Commit] {
        let mut rig = Rig::busy();
        rig.feed(5);
        if [Step::TakeOver, Step::Assign].contains(&step) {
            rig.simulation.crash(0);
            rig.simulation.start(0);
        }
        rig.simulation.at_next(0, step, Fate::Refused);
        rig.until_it_happened();
        rig.ends_well();
    }
}

#[test]
fn repeated_requests_count_once() {
    for step in [Step::TakeOver, Step::Begin, Step::Produce, Step::Positions, Step::Commit] {
        let mut rig = Rig::busy();
        rig.feed(5);
        if step == Step::TakeOver {
            rig.simulation.crash(0);
            rig.simulation.start(0);
        }
        rig.simulation.at_next(0, step, Fate::Doubled);
        rig.until_it_happened();
        rig.ends_well();
    }
}

#[test]
fn a_cut_network_delays_only() {
    for step in [Step::Fetch, Step::Begin, Step::Produce, Step::Positions, Step::Commit] {
        let mut rig = Rig::busy();
        rig.feed(5);
        rig.simulation.meanwhile(0, step, |simulation| simulation.cut(0, true));
        rig.until_it_happened();
        let before = rig.outputs();
        rig.simulation.turns(0, 50);
        assert_eq!(rig.outputs(), before, "{step:?}");
        rig.simulation.cut(0, false);
        rig.ends_well();
    }
}

#[test]
fn a_cut_longer_than_the_transaction_timeout_aborts() {
    let mut rig = Rig::busy();
    let before = rig.outputs();
    rig.feed(5);
    // The broker aborts the transaction meanwhile and reports to the owner that it is fenced. The owner reopens,
    // because it still owns the partition.
    rig.simulation.meanwhile(0, Step::Commit, |simulation| simulation.pass(Duration::from_secs(31)));
    rig.until_it_happened();
    assert_eq!(rig.outputs(), before);
    rig.ends_well();
}

#[test]
fn a_stale_generation_commits_nothing() {
    let mut rig = Rig::busy();
    let before = rig.outputs();
    rig.feed(5);
    rig.simulation.meanwhile(0, Step::Produce, |simulation| simulation.expel(0));
    rig.until_it_happened();
    assert_eq!(rig.outputs(), before);
    rig.ends_well();
}

#[test]
fn poison_is_dead_lettered_in_the_same_transaction() {
    let mut rig = Rig::busy();
    rig.feed_values(["v", "!", "v", "!", "v"]);
    rig.simulation.at_next(0, Step::Commit, Fate::ReplyLost);
    rig.until_it_happened();
    rig.ends_well();
}

#[test]
fn records_that_the_log_rejects_are_dead_lettered() {
    // Between good records, with faults in between and two failing records in a row.
    let mut rig = Rig::busy();
    rig.feed_values(["v", "huge", "v", "huge row", "panic", "v"]);
    rig.simulation.at_next(0, Step::Commit, Fate::ReplyLost);
    rig.until_it_happened();
    rig.feed_values(["v", "huge", "v"]);
    rig.ends_well();
}

#[test]
fn a_task_that_cannot_write_stops_and_reports_its_position() {
    let mut rig = Rig::busy();
    rig.feed_values(vec!["huge"; 40]);
    rig.simulation.settle("a failure", |simulation| !simulation.failures().is_empty()).unwrap();
    let failures = rig.simulation.failures();
    let parts = ["counter-0: in[0]@40: ", "the log rejected a record of the transaction", "max.message.bytes"];
    assert!(parts.iter().all(|part| failures[0].contains(part)), "{failures:?}");
    assert_eq!(read_all(rig.log(), "dead-letters", 0).unwrap().len(), 20);
}

#[test]
fn too_much_poison_stops_the_task() {
    let mut rig = Rig::busy();
    rig.feed_values(vec!["!"; 600]);
    // Earlier dead letters do not count against the limit.
    let parts = ["501 of the last 1000 records of in[0]", "garbage: a bang", "fix the writer"];
    rig.stops(&parts);
}

#[test]
fn a_rebalance_during_a_restore_is_clean() {
    let mut rig = Rig::busy();
    rig.feed(6);
    // The second machine takes over and, while it restores, loses the partition to the first one again.
    rig.simulation.crash(0);
    rig.simulation.expel(0);
    rig.simulation.start(0);
    rig.simulation.meanwhile(1, Step::Fetch, |simulation| {
        simulation.expel(1);
        simulation.turns(0, 100);
    });
    rig.simulation.turns(1, 20);
    rig.ends_well();
}

#[test]
fn a_partition_passes_on_and_back_without_a_crash() {
    let mut rig = Rig::busy();
    for machine in [0, 1, 0] {
        rig.feed(4);
        rig.simulation.stop(machine);
        rig.settle();
        assert_eq!(rig.outputs(), expected(&rig.fed));
        rig.simulation.start(machine);
    }
    rig.ends_well();
}

#[test]
fn a_store_that_missed_a_tombstone_is_discarded() {
    let mut rig = Rig::busy();
    rig.simulation.stop(0);
    rig.feed_values(["forget"; 5]);
    rig.settle();
    // The other machine's tombstones are no longer on the changelog when the first one returns with its store.
    rig.simulation.pass(Duration::from_hours(48));
    rig.log().compact();
    rig.simulation.start(0);
    rig.simulation.stop(1);
    rig.feed(5);
    rig.settle();
    assert_eq!(rig.outputs(), expected(&rig.fed));
    rig.simulation.start(1);
    rig.ends_well();
}

#[test]
fn a_gap_in_the_input_stops_the_task() {
    let mut rig = Rig::busy();
    rig.simulation.stop(0);
    rig.simulation.stop(1);
    rig.feed(10);
    rig.log().trim(&at(rig.log(), "in", 0), NextOffset(25)).unwrap();
    rig.simulation.start(0);
    rig.stops(&["in[0]: offset 20 is outside of 25..30", "The number of missing records is unknown", "consumer group"]);
}

#[test]
fn a_gap_that_opens_while_it_reads_stops_the_task() {
    let mut rig = Rig::busy();
    rig.simulation.pause(0, true);
    rig.feed(10);
    rig.log().trim(&at(rig.log(), "in", 0), NextOffset(25)).unwrap();
    rig.simulation.pause(0, false);
    rig.stops(&["in[0]: offset 20 is outside of 25..30"]);
}

#[test]
fn an_input_without_a_record_yet_has_a_position_too() {
    let mut rig = Rig::reading(&["in", "more"], quick());
    rig.feed(5);
    rig.settle();
    rig.simulation.stop(0);
    rig.simulation.stop(1);
    // Records that arrive while no machine runs expire before they are read.
    write(rig.log(), (0..10).map(|_| outgoing("more", Target::ByKey, "k", "v"))).unwrap();
    rig.log().trim(&at(rig.log(), "more", 0), NextOffset(5)).unwrap();
    rig.simulation.start(0);
    rig.stops(&["more[0]: offset 0 is outside of 5..10"]);
}

#[test]
fn another_number_of_partitions_stops_the_task() {
    // While the task runs.
    let rig = Rig::busy();
    rig.log().grow("in", 2).unwrap();
    rig.stops(&["in has 2 partitions, but the state was built with 1", "Restore the topic with 1 partitions"]);
    // While no task runs. The changelog has grown too, so only the keys reveal the change.
    let rig = Rig::busy();
    rig.simulation.stop(0);
    rig.simulation.stop(1);
    rig.log().grow("in", 2).unwrap();
    rig.log().grow("counter-changelog", 2).unwrap();
    rig.simulation.start(0);
    rig.simulation.settle("a failure", |simulation| !simulation.failures().is_empty()).unwrap();
    let failures = rig.simulation.failures();
    assert!(failures[0].contains("in has 2 partitions"), "{failures:?}");
}

#[test]
fn a_deleted_changelog_stops_the_task() {
    let rig = Rig::busy();
    rig.simulation.stop(0);
    rig.simulation.stop(1);
    rig.log().delete("counter-changelog").unwrap();
    rig.simulation.start(0);
    rig.stops(&["counter-changelog", "does not exist", "it was deleted"]);
}

#[test]
fn a_recreated_changelog_stops_the_task() {
    let away = || {
        let rig = Rig::busy();
        rig.simulation.stop(0);
        rig.simulation.stop(1);
        rig.log().delete("counter-changelog").unwrap();
        rig.log().create(&[changelog()]).unwrap();
        rig
    };
    // The local rows are ahead of the changelog.
    let rig = away();
    rig.simulation.start(0);
    rig.stops(&["counter-changelog[0] is not the changelog", "it ends at 0, but was read up to"]);
    // There are no local rows, but the group has committed positions.
    let rig = away();
    rig.simulation.disk(0).lose();
    rig.simulation.start(0);
    rig.stops(&["the changelog is empty, but the consumer group has committed offset 20 of in"]);
    // The changelog is longer than before, but contains other commits.
    let rig = away();
    let first = Checkpoint { commit_seq: 1, partitions: 1, ..Checkpoint::default() };
    let key = std::str::from_utf8(checkpoint::KEY).unwrap();
    let record = || Outgoing { value: Some(first.encode()), ..outgoing("counter-changelog", Target::ByKey, key, "") };
    write(rig.log(), (0..1000).map(|_| record())).unwrap();
    rig.simulation.start(0);
    rig.stops(&["commit 1 follows commit"]);
}

#[test]
fn a_checkpoint_of_another_format_is_refused() {
    // In the store.
    let rig = Rig::busy();
    rig.simulation.crash(0);
    let newer = bytes::Bytes::from_static(b"\x09a newer format");
    rig.simulation.disk(0).put("counter", 0, &vec![(checkpoint::KEY.into(), Some(newer.clone()))]);
    rig.simulation.start(0);
    rig.stops(&["the state store: the checkpoint has format 9"]);
    // In the changelog.
    let rig = Rig::busy();
    rig.simulation.crash(0);
    let key = std::str::from_utf8(checkpoint::KEY).unwrap();
    write(rig.log(), [Outgoing { value: Some(newer), ..outgoing("counter-changelog", Target::ByKey, key, "") }])
        .unwrap();
    rig.simulation.start(0);
    rig.stops(&["counter-changelog[0]@", "the checkpoint has format 9"]);
}

#[test]
fn uncommitted_state_is_bounded() {
    let long = Duration::from_hours(10);
    for options in [
        TaskOptions { max_dirty_bytes: 40, ..TaskOptions::default() },
        TaskOptions { max_outputs: 5, ..TaskOptions::default() },
    ] {
        let mut rig = Rig::with(TaskOptions { commit_every: long, ..options });
        rig.feed(103);
        rig.simulation.turns(0, 60);
        let found = rig.outputs().len();
        assert!((95..=103).contains(&found), "{found} are committed, long before the commit interval");
    }
}
