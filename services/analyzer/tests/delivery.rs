//! Completeness, repetition and restarts: which records reach the evidence, and that the result is always the same.

#![expect(clippy::unwrap_used, reason = "a panic fails the test")]

mod support;

use bytes::Bytes;
use proptest::prelude::*;
use serin_analyzer::{AnalyzerFactory, Config};
use serin_schemas::{
    codec::encode,
    envelope::{self, Envelope},
    ids::{EventTime, Generation, Span},
    records::{Arm, ArmCounts, Cell, ClosedThrough, Decision, Phase, Population, Segment, UnitCounts, WindowClosed},
};
use serin_stream::{driver::FoldDriver, fold::FoldFactory, record::Record};
use support::{PARTITIONS, SPEC, WINDOW, World, harness};

#[test]
fn a_missing_partition_holds_everything_back() {
    let mut world = World::new(1);
    world.turn(Phase::Warming, -1, 0, 0);
    for part in world.draw() {
        world.send(&part);
    }
    world.close_one(0, world.now);
    world.close_one(2, world.now);
    assert!(world.verdicts.is_empty());
    world.close_one(1, world.now.minus(Span(1)));
    assert!(world.verdicts.is_empty());
    world.close_one(1, world.now);
    assert_eq!(world.verdicts.len(), 1);
    assert!(world.last().warmup_events.unwrap() > 1900);
    // There is no new verdict while no window's time has passed.
    world.close_one(1, world.now.plus(Span(1)));
    world.close(world.now);
    assert_eq!(world.verdicts.len(), 1);
}

#[test]
fn order_and_repetition_of_parts_do_not_matter() {
    let run = |shuffled: bool| {
        let mut world = World::new(2);
        world.bake();
        for _ in 0..8 {
            let mut parts = world.draw();
            if shuffled {
                parts.reverse();
                let again = parts[0].clone();
                world.send(&again);
            }
            for part in &parts {
                world.send(part);
            }
            if shuffled {
                world.send(&parts[1]);
            }
            world.close(world.now);
            if shuffled {
                // Too late: every partition has promised that no more parts would come.
                world.send(&parts[2]);
            }
        }
        world.verdicts
    };
    assert_eq!(run(false), run(true));
}

#[test]
fn windows_of_several_generations_are_strata_of_one_window() {
    let mut world = World::new(3);
    world.bake();
    world.window();
    world.window();
    let before = world.metric("error_rate", &Segment::all()).control.n;
    // Half of the next window under the old generation, half under the new one.
    let half = Span(0);
    world.traffic = 1000;
    let old = world.draw();
    world.now = world.now.minus(WINDOW).plus(half);
    world.turn(Phase::Baking, 1, 2500, 7500);
    let new = world.draw();
    for part in new.iter().chain(&old) {
        world.send(part);
    }
    world.close(world.now);
    let after = world.metric("error_rate", &Segment::all());
    let added = after.control.n - before;
    assert!((1100..1400).contains(&added), "{added}");
    assert_eq!(after.evidence_through, Some(world.now));
    assert_eq!(world.last().generation, world.control.generation);
}

#[test]
fn an_ended_rollout_leaves_no_rows() {
    let mut world = World::new(4);
    world.bake();
    for part in world.draw() {
        world.send(&part);
    }
    world.commit();
    assert!(world.harness.rows().len() > 10);
    let parts = world.draw();
    world.turn(Phase::RolledBack, 0, 0, 0);
    for part in parts {
        world.send(&part);
    }
    world.commit();
    let progress = world.harness.rows().keys().filter(|key| key[0] == b'p').count();
    assert_eq!((world.harness.rows().len(), progress), (PARTITIONS as usize, PARTITIONS as usize));
    let verdicts = world.verdicts.len();
    world.close(world.now);
    world.harness.crash().unwrap();
    world.close(world.now.plus(WINDOW));
    assert_eq!(world.verdicts.len(), verdicts);
}

#[test]
fn pending_windows_are_removed_when_they_are_judged() {
    let mut world = World::new(5);
    world.bake();
    let waiting = |world: &World| world.harness.rows().keys().filter(|key| key.contains(&b'z')).count();
    let parts = world.draw();
    for part in &parts {
        world.send(part);
    }
    world.commit();
    assert!(waiting(&world) >= parts.len());
    world.close(world.now);
    world.commit();
    assert_eq!(waiting(&world), 0);
}

#[test]
fn too_many_pending_windows_stop_the_task_and_name_the_partition() {
    let config = Config { max_pending_windows: 2 };
    let mut world = World::new(6);
    world.harness = FoldDriver::new(move || AnalyzerFactory::new(config.clone(), 1).fold(0)).unwrap();
    world.turn(Phase::Warming, -1, 0, 0);
    let part = world.draw().remove(0);
    world.close_one(1, world.now);
    let mut stopped = None;
    for ahead in 0..3 {
        let part = WindowClosed { end: part.end.plus(Span(WINDOW.0 * ahead)), ..part.clone() };
        let record = record_of(&mut world, &part);
        stopped = world.harness.apply(&record).err();
    }
    insta::assert_snapshot!(stopped.unwrap(), @"3 windows are waiting for partitions [0, 2] of `events`; check that their aggregators are running, or raise `analyzer.max_pending_windows`");
}

#[test]
fn models_of_other_partitions_are_left_alone() {
    let mut world = World::new(7);
    let own = serin_stream::partition_of(b"flights", 4);
    world.harness = FoldDriver::new(move || AnalyzerFactory::new(Config::default(), 4).fold((own + 1) % 4)).unwrap();
    world.turn(Phase::Warming, -1, 0, 0);
    for _ in 0..3 {
        world.window();
    }
    assert!(world.verdicts.is_empty());
    world.commit();
    assert_eq!(world.harness.rows().len(), PARTITIONS as usize);
}

#[test]
fn a_repeated_or_older_control_record_changes_nothing() {
    let mut world = World::new(8);
    world.bake();
    let older =
        serin_schemas::records::Control { generation: Generation(1), phase: Phase::Warming, ..world.control.clone() };
    world.send(&older);
    world.window();
    assert_eq!((world.last().step, world.last().decision), (0, Decision::Promote));
}

fn record_of(world: &mut World, part: &WindowClosed) -> Record {
    let envelope = Envelope { id: "1", source: "/test", subject: "", time: EventTime(0) };
    let body = Bytes::from(encode(part).unwrap());
    world.harness.record("windows", 0, 0, "flights", envelope::headers::<WindowClosed>(&envelope), Some(body))
}

fn code_of(world: &mut World, part: &WindowClosed) -> &'static str {
    let record = record_of(world, part);
    world.harness.apply(&record).unwrap().poison.unwrap().code.as_str()
}

#[test]
fn unreadable_or_senseless_windows_are_poison_and_change_nothing() {
    let mut world = World::new(9);
    world.bake();
    world.window();
    world.commit();
    let part = world.draw().remove(0);
    let rows = world.harness.rows();
    let cell = |summary: Vec<u8>, metric: &str| Cell {
        arm: Arm::Canary,
        segment: Segment::all(),
        metric: metric.to_owned(),
        summary,
    };
    let with = |cells: Vec<Cell>| WindowClosed { cells, ..part.clone() };
    let rate = serin_sketches::Summary::Rate(serin_sketches::Rate::default()).encode();
    assert_eq!(code_of(&mut world, &with(vec![cell(vec![1, 1, 5], "error_rate")])), "bad_summary");
    assert_eq!(code_of(&mut world, &with(vec![cell(vec![9], "error_rate")])), "bad_summary");
    // Five events in three trials.
    assert_eq!(code_of(&mut world, &with(vec![cell(vec![1, 1, 3, 5], "error_rate")])), "bad_summary");
    assert_eq!(code_of(&mut world, &with(vec![cell(rate.clone(), "latency_p99")])), "bad_summary");
    let twice = vec![cell(rate.clone(), "error_rate"), cell(rate.clone(), "error_rate")];
    assert_eq!(code_of(&mut world, &with(twice)), "bad_summary");
    assert_eq!(code_of(&mut world, &with(vec![cell(rate, "no_such_metric")])), "unknown_metric");
    // Sums per bucket of units are only valid where units are assigned.
    let sums = serin_sketches::Summary::Buckets(serin_sketches::Buckets::new()).encode();
    assert_eq!(code_of(&mut world, &with(vec![cell(sums, "error_rate")])), "bad_summary");
    let people = Population { arm: Arm::Canary, segment: Segment::of("origin", "LGA"), predictions: -1 };
    assert_eq!(code_of(&mut world, &WindowClosed { population: vec![people], ..part.clone() }), "bad_count");
    for (bucket, predictions) in [(-1, 1), (256, 1), (0, -1)] {
        let counts = ArmCounts { predictions, ..ArmCounts::none(Arm::Canary) };
        let units = vec![UnitCounts { bucket, counts }];
        assert_eq!(code_of(&mut world, &WindowClosed { units, ..part.clone() }), "bad_count");
    }
    let mut negative = part.clone();
    negative.arms[0].predictions = -1;
    assert_eq!(code_of(&mut world, &negative), "bad_count");
    let odd = WindowClosed { end: part.end.plus(Span(1)), ..part.clone() };
    assert_eq!(code_of(&mut world, &odd), "bad_window");
    let stream = WindowClosed { maturity: Span(5), ..part.clone() };
    assert_eq!(code_of(&mut world, &stream), "bad_window");
    let mut garbage = record_of(&mut world, &part);
    garbage.value = Some(Bytes::from_static(&[0xff; 7]));
    assert_eq!(world.harness.apply(&garbage).unwrap().poison.unwrap().code.as_str(), "garbage");
    garbage.value = None;
    assert!(world.harness.apply(&garbage).unwrap().poison.is_some());
    world.commit();
    assert_eq!(world.harness.rows(), rows);
    let far = ClosedThrough::heard(7, 3, EventTime(0));
    assert_eq!(world.send(&far).poison.unwrap().code.as_str(), "bad_closed_through");
}

#[test]
fn a_control_record_that_cannot_be_used_is_poison() {
    let mut world = World::new(10);
    for (spec, want) in [
        ("{", "the spec: EOF while parsing"),
        (&support::SPEC.replace("\"absolute\": 0.01", "\"absolute\": -1"), "metric \"error_rate\": the margin -1"),
        (&support::SPEC.replace("\"10s\"", "\"0\""), "a window must be longer than 0"),
    ] {
        for (phase, step) in [(Phase::Warming, -1), (Phase::Baking, 0)] {
            world.control.spec = spec.to_owned();
            (world.control.phase, world.control.step) = (phase, step);
            let control = world.control.clone();
            let poison = world.send(&control).poison.unwrap();
            assert_eq!(poison.code.as_str(), "bad_control");
            assert!(poison.message.contains(want), "{}", poison.message);
            // A verdict is written, so that the controller does not wait forever.
            world.commit();
            let verdicts = std::mem::take(&mut world.verdicts);
            let decided: Vec<_> = verdicts.iter().map(|verdict| (verdict.decision, verdict.refuses())).collect();
            assert_eq!(decided, [(Decision::Hold, true)]);
            assert!(verdicts[0].sentence.contains(want), "{}", verdicts[0].sentence);
            assert_eq!((verdicts[0].generation, verdicts[0].step), (control.generation, step));
        }
    }
}

/// A rollout with an error in one segment and a window left out in each step, as the records of its partition.
fn tape() -> Vec<Record> {
    let mut world = World::with_spec(11, &SPEC.replacen("\"window\"", "\"settle\": 1, \"window\"", 1));
    world.traffic = 400;
    world.canary.error_lga = Some(0.2);
    world.bake();
    for _ in 0..4 {
        world.window();
    }
    world.turn(Phase::Baking, 1, 2500, 7500);
    for _ in 0..6 {
        world.window();
    }
    world.tape
}

/// Feeds the tape, with a commit after each record in `commits` and a crash before each record in `crashes`. After
/// a crash, reading continues from the last commit, as in a task.
fn replay(tape: &[Record], commits: &[usize], crashes: &[usize]) -> (Vec<Bytes>, Vec<(Bytes, Bytes)>) {
    let mut harness = harness();
    let mut out = Vec::new();
    let mut crashes = crashes.to_vec();
    let (mut at, mut committed) = (0, 0);
    while at < tape.len() {
        if let Some(found) = crashes.iter().position(|&crash| crash == at) {
            crashes.remove(found);
            harness.crash().unwrap();
            at = committed;
            continue;
        }
        harness.apply(&tape[at]).unwrap();
        at += 1;
        if commits.contains(&at) {
            out.extend(harness.commit().unwrap());
            committed = at;
        }
    }
    out.extend(harness.commit().unwrap());
    let bytes = out.into_iter().map(|record| record.value.unwrap()).collect();
    (bytes, harness.rows().into_iter().collect())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn commits_and_crashes_change_no_byte(
        commits in prop::collection::vec(0_usize..200, 0..60),
        crashes in prop::collection::vec(0_usize..200, 0..8),
    ) {
        let tape = tape();
        let all: Vec<usize> = (0..=tape.len()).collect();
        let (verdicts, rows) = replay(&tape, &all, &[]);
        prop_assert!(verdicts.len() > 15);
        let (other_verdicts, other_rows) = replay(&tape, &commits, &crashes);
        prop_assert_eq!(verdicts, other_verdicts);
        prop_assert_eq!(rows, other_rows);
    }
}

#[test]
fn a_window_is_complete_after_its_rollouts_own_grace() {
    let graced = SPEC.replacen("\"window\"", "\"grace\": \"30s\", \"window\"", 1);
    for (spec, grace) in [(SPEC, 0), (graced.as_str(), 30)] {
        let mut world = World::with_spec(1, spec);
        world.turn(Phase::Warming, -1, 0, 0);
        for part in world.draw() {
            world.send(&part);
        }
        let complete = world.now.plus(Span::from_secs(grace));
        world.close(EventTime(complete.0 - 1));
        assert!(world.verdicts.is_empty());
        world.close(complete);
        assert_eq!(world.last().as_of, world.now);
    }
}
