//! Windows that are left out in both arms after a change of traffic.

mod support;

use serin_schemas::records::{Arm, Decision, MetricResult, NoDataReason, Phase, Segment, Verdict};
use support::{HEALTHY, SPEC, Version, World};

/// [`SPEC`] that leaves out this many windows.
fn settles(windows: u32) -> String {
    SPEC.replacen("\"window\"", &format!("\"settle\": {windows}, \"window\""), 1)
}

fn n(world: &World, metric: &str) -> i64 {
    world.metric(metric, &Segment::all()).canary.n
}

/// A canary that has just started: its first answers are slow and wrong.
const COLD: Version = Version { error: 0.5, latency_ms: 400.0, score: 0.1, ..HEALTHY };

#[test]
fn the_first_windows_of_each_step_enter_neither_arm() {
    let mut world = World::with_spec(1, &settles(2));
    world.bake();
    for _ in 0..2 {
        world.window();
        assert_eq!(
            world.last().sentence,
            "keep baking: the first 20s of the step are left out of the comparison while the canary settles"
        );
        let metric = world.metric("error_rate", &Segment::all());
        assert_eq!((metric.canary.n, metric.control.n), (0, 0));
        assert_eq!((metric.result, metric.no_data, metric.evidence_through), (MetricResult::Undecided, None, None));
        assert_eq!(
            metric.sentence,
            "the canary's error rate is not judged: the first windows of a step are left out while the canary settles"
        );
        // Their answers are counted anyway.
        assert!(world.last().arms[0].predictions > 50, "{:?}", world.last().arms);
    }
    world.window();
    let first = n(&world, "error_rate");
    assert!((50..150).contains(&first), "{first}: one window");
    assert_eq!(world.last().decision, Decision::Promote);
    world.turn(Phase::Baking, 1, 2500, 7500);
    for _ in 0..2 {
        world.window();
        assert_eq!(n(&world, "error_rate"), first);
        assert_eq!(world.last().decision, Decision::Continue);
        assert_eq!(world.metric("error_rate", &Segment::all()).ln_e_pass.to_bits(), 0, "a pass must be shown again");
    }
    world.window();
    assert!(n(&world, "error_rate") > first + 300);
}

#[test]
fn windows_of_labels_are_left_out_when_they_mature() {
    let mut world = World::with_spec(2, &settles(2));
    world.bake();
    let mut seen = Vec::new();
    for _ in 0..10 {
        world.window();
        let wrong = world.metric("wrong", &Segment::all());
        seen.push((wrong.canary.n > 0, wrong.no_data));
    }
    let pending = (false, Some(NoDataReason::LabelsPending));
    let want = [vec![pending; 6], vec![(false, None); 2], vec![(true, None); 2]].concat();
    assert_eq!(seen, want);
}

#[test]
fn a_cold_start_rolls_back_unless_it_is_left_out() {
    let run = |windows| {
        let mut world = World::with_spec(3, &settles(windows));
        world.canary = COLD;
        world.bake();
        world.window();
        world.window();
        world.canary = HEALTHY;
        world.until(Decision::Rollback, 30)
    };
    assert_eq!((run(0), run(2)), (Some(1), None));
}

#[test]
fn limits_apply_while_the_canary_settles() {
    let limit = settles(30).replacen(
        "{\"name\": \"latency_p99\"",
        "{\"name\": \"error_ceiling\", \"kind\": \"rate\", \"source\": \"error\", \"limit\": {\"fail\": 0.1}},
         {\"name\": \"latency_p99\"",
        1,
    );
    let mut world = World::with_spec(4, &limit);
    world.bake();
    // The generator has no second metric on errors, so its cells are copied under the new name.
    let mut found = None;
    for window in 1..=10 {
        world.canary = COLD;
        for mut part in world.draw() {
            let own = part.cells.iter().filter(|cell| cell.metric == "error_rate" && cell.segment.is_all()).cloned();
            let copies: Vec<_> = own.collect();
            part.cells.extend(copies.into_iter().map(|mut cell| {
                "error_ceiling".clone_into(&mut cell.metric);
                cell
            }));
            assert_eq!(world.send(&part).poison, None);
        }
        world.close(world.now);
        if world.last().decision == Decision::Rollback {
            found = Some(window);
            break;
        }
    }
    assert!(found.is_some_and(|window| window <= 3), "{found:?}: {}", world.last().sentence);
    assert_eq!(world.last().reasons[0].metric, "error_ceiling");
    assert_eq!(n(&world, "error_rate"), 0, "a metric without a limit waits");
}

#[test]
fn differences_between_the_arms_are_not_a_finding_while_the_canary_settles() {
    let run = |windows| {
        let mut world = World::with_spec(5, &settles(windows));
        world.bake();
        (world.leak, world.late) = (0.5, [400, 0]);
        (0..6).find(|_| {
            world.window();
            world.last().decision == Decision::Hold
        })
    };
    assert!(run(0).is_some());
    assert_eq!(run(6), None);
}

#[test]
fn an_arm_without_answers_is_reported_while_it_settles() {
    let mut world = World::with_spec(6, &settles(20));
    world.bake();
    world.window();
    world.leak = 1.0;
    assert!(world.until(Decision::Hold, 4).is_some(), "{}", world.last().sentence);
    assert_eq!(world.last().health[0].reason, NoDataReason::NoCanaryTraffic);
}

#[test]
fn only_a_change_of_traffic_leaves_windows_out() {
    let mut world = World::with_spec(7, &settles(2));
    world.bake();
    // The canary has no answers yet, so the windows to leave out have not started.
    world.leak = 1.0;
    world.window();
    world.leak = 0.0;
    world.window();
    world.window();
    assert_eq!(n(&world, "error_rate"), 0);
    world.turn(Phase::Held, 0, 500, 5000);
    world.window();
    let first = n(&world, "error_rate");
    assert!(first > 50, "a hold changes no traffic");
    world.turn(Phase::Baking, 0, 500, 5000);
    world.window();
    assert!(n(&world, "error_rate") > first);
    // Promoted: another split within the last step, compared after two of its windows.
    world.turn(Phase::Promoted, 0, 9500, 500);
    let before = n(&world, "error_rate");
    world.window();
    world.window();
    assert_eq!(n(&world, "error_rate"), before);
    world.window();
    assert!(n(&world, "error_rate") > before + 1000);
}

#[test]
fn in_a_window_with_both_only_the_new_traffic_is_left_out() {
    let mut world = World::with_spec(8, &settles(1));
    world.traffic = 1000;
    world.bake();
    world.window();
    world.window();
    let before = n(&world, "error_rate");
    let old = world.draw();
    world.now = world.now.minus(support::WINDOW);
    world.turn(Phase::Baking, 1, 2500, 7500);
    let new = world.draw();
    for part in new.iter().chain(&old) {
        assert_eq!(world.send(part).poison, None);
    }
    world.close(world.now);
    let added = n(&world, "error_rate") - before;
    let of_old: i64 =
        old.iter().flat_map(|part| &part.arms).filter(|a| a.arm == Arm::Canary).map(|a| a.predictions).sum();
    assert_eq!(added, of_old);
}

#[test]
fn a_restart_while_it_settles_changes_no_byte() {
    let run = |crash: bool| {
        let mut world = World::with_spec(9, &settles(3));
        world.bake();
        for _ in 0..6 {
            world.window();
            if crash {
                world.harness.crash().unwrap();
            }
        }
        world.verdicts
    };
    let verdicts: Vec<Verdict> = run(false);
    assert!(verdicts.last().unwrap().metrics[0].canary.n > 0);
    assert_eq!(verdicts, run(true));
}
