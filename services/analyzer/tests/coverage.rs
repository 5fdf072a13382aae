//! Shares of answers that the comparison does not see: unread answers, answers without a metric's value, and cancelled calls.

mod support;

use serin_schemas::records::{Arm, Decision, MetricResult, NoDataReason, Phase, Segment};
use support::{SPEC, World};

/// The reasons and policies of the issues.
fn issues(world: &World) -> Vec<(NoDataReason, &str)> {
    world.last().health.iter().map(|issue| (issue.reason, issue.policy.as_str())).collect()
}

fn held(change: fn(&mut World)) -> World {
    let mut world = World::new(21);
    world.bake();
    change(&mut world);
    assert!(world.until(Decision::Hold, 30).is_some(), "{:#?}", world.last());
    world
}

#[test]
fn cancelled_calls_of_one_arm_hold_and_are_not_errors() {
    let world = held(|world| world.cancelled = [0.2, 0.0]);
    assert_eq!(issues(&world), [(NoDataReason::CancelledShareDiffers, "hold")]);
    let sentence = &world.last().sentence;
    assert!(sentence.starts_with("hold: callers cancelled ") && sentence.contains(" 0.0 % of control's"), "{sentence}");
    let canary = world.last().arms.iter().find(|arm| arm.arm == Arm::Canary).unwrap();
    assert!(canary.cancelled > 0 && canary.errors < canary.predictions / 20, "{canary:?}");
    // The same the other way round: it does not make the canary better.
    let world = held(|world| world.cancelled = [0.0, 0.2]);
    assert_eq!(issues(&world), [(NoDataReason::CancelledShareDiffers, "hold")]);
}

#[test]
fn answers_of_one_arm_that_go_unread_hold() {
    let world = held(|world| world.unread = [0.2, 0.0]);
    assert_eq!(issues(&world)[0], (NoDataReason::UnreadShareDiffers, "hold"));
    let metric = world.metric("score", &Segment::all());
    assert_eq!((metric.result, metric.no_data), (MetricResult::NoData, Some(NoDataReason::UnreadShareDiffers)));
}

#[test]
fn a_value_missing_more_often_in_one_arm_holds_and_only_its_metric_is_not_judged() {
    let world = held(|world| world.scoreless = [0.2, 0.0]);
    assert_eq!(issues(&world), [(NoDataReason::ValueShareDiffers, "hold")]);
    let sentence = &world.last().health[0].sentence;
    assert!(sentence.contains("of the canary's answers carry the value of score, 100.0 % of control's"), "{sentence}");
    let metric = world.metric("score", &Segment::all());
    assert_eq!((metric.result, metric.no_data), (MetricResult::NoData, Some(NoDataReason::ValueShareDiffers)));
    assert!(metric.sentence.contains("one arm's answers carry the value less often"), "{}", metric.sentence);
    assert_ne!(world.metric("error_rate", &Segment::all()).result, MetricResult::NoData);
}

#[test]
fn the_same_share_of_both_arms_is_not_a_difference() {
    for seed in 0..5 {
        let mut world = World::new(300 + seed);
        world.bake();
        (world.cancelled, world.unread, world.scoreless) = ([0.1; 2], [0.1; 2], [0.3; 2]);
        assert_eq!(world.until(Decision::Hold, 40), None, "{:#?}", world.last().health);
        let part = "; seen in ";
        let sentence = &world.metric("score", &Segment::all()).sentence;
        assert!(sentence.contains(part) && sentence.contains(" % of the canary's answers and 6"), "{sentence}");
        assert!(!world.metric("latency_p99", &Segment::all()).sentence.contains(part), "it sees all answers");
    }
}

#[test]
fn the_sentence_of_a_passed_step_reports_what_its_metrics_did_not_see() {
    let mut world = World::new(22);
    world.scoreless = [1.0; 2];
    world.bake();
    assert!(world.until(Decision::Promote, 20).is_some(), "{:#?}", world.last());
    let sentence = &world.last().sentence;
    assert!(
        sentence.contains("this step requires no more; score saw only 0.0 % of the canary's answers and 0.0 % of"),
        "{sentence}"
    );
    assert!(!sentence.contains("slow_watch"), "a watched metric decides nothing");
}

#[test]
fn each_share_has_its_own_policy() {
    let spec = SPEC.replacen(
        "\"window\"",
        r#""noData": {"cancelledShare": "warn", "unreadShare": "warn", "valueShare": "rollback"}, "window""#,
        1,
    );
    let mut world = World::with_spec(23, &spec);
    world.bake();
    world.cancelled = [0.2, 0.0];
    assert_eq!(world.until(Decision::Hold, 20), None);
    assert_eq!(issues(&world), [(NoDataReason::CancelledShareDiffers, "warn")]);
    world.scoreless = [0.5, 0.0];
    assert!(world.until(Decision::Rollback, 20).is_some(), "{:#?}", world.last());
    assert!(world.last().reasons.is_empty(), "it is not a finding against the version");
    // For a watched metric it is only a warning.
    let watched = SPEC.replacen("\"role\": \"score\"", "\"role\": \"watch\"", 1);
    let mut world = World::with_spec(24, &watched);
    world.bake();
    world.scoreless = [0.5, 0.0];
    assert_eq!(world.until(Decision::Hold, 20), None);
    assert_eq!(issues(&world), [(NoDataReason::ValueShareDiffers, "warn")]);
}

/// A caller that has seen which version answers can cancel on purpose, so this is reported and does not hold the rollout.
#[test]
fn calls_cancelled_in_the_middle_of_an_answer_are_reported_and_do_not_hold() {
    let mut world = World::new(26);
    world.bake();
    (world.leave_midway, world.cancelled) = (true, [0.2, 0.0]);
    assert_eq!(world.until(Decision::Hold, 20), None);
    assert_eq!(issues(&world), [(NoDataReason::CancelledShareDiffers, "warn")]);
    let sentence = &world.last().health[0].sentence;
    assert!(sentence.contains("in the middle of the answer"), "{sentence}");
}

#[test]
fn shares_are_compared_from_scratch_in_each_step_and_after_a_resume() {
    let mut world = held(|world| world.cancelled = [0.2, 0.0]);
    world.cancelled = [0.0; 2];
    world.window();
    assert_eq!(world.last().decision, Decision::Hold, "it stays until it is resumed");
    world.turn(Phase::Held, 0, 500, 5000);
    world.turn(Phase::Baking, 0, 500, 5000);
    assert_eq!(world.until(Decision::Hold, 10), None);
    world.cancelled = [0.2, 0.0];
    assert!(world.until(Decision::Hold, 30).is_some(), "the next episode is found");
    world.cancelled = [0.0; 2];
    world.turn(Phase::Baking, 1, 2500, 7500);
    assert_eq!(world.until(Decision::Hold, 10), None);
}

/// Each of the shares is compared from scratch in each step and after a resume.
#[test]
fn every_share_is_compared_from_scratch() {
    let changes: [fn(&mut World, f64); 4] = [
        |world, share| world.cancelled = [share, 0.0],
        |world, share| (world.leave_midway, world.cancelled) = (true, [share, 0.0]),
        |world, share| world.unread = [share, 0.0],
        |world, share| world.scoreless = [share, 0.0],
    ];
    for (place, change) in changes.into_iter().enumerate() {
        for resumed in [false, true] {
            let mut world = World::new(27);
            world.bake();
            change(&mut world, 0.3);
            (0..20).for_each(|_| world.window());
            assert!(!world.last().health.is_empty(), "{place}: it is never found");
            change(&mut world, 0.0);
            world.window();
            assert!(!world.last().health.is_empty(), "{place}: it stays for the step");
            if resumed {
                world.turn(Phase::Held, 0, 500, 5000);
                world.turn(Phase::Baking, 0, 500, 5000);
            } else {
                world.turn(Phase::Baking, 1, 2500, 7500);
            }
            world.window();
            world.window();
            assert!(world.last().health.is_empty(), "{place} {resumed}: {:?}", world.last().health);
        }
    }
}

#[test]
fn users_who_always_cancel_do_not_cause_a_finding() {
    let sticky = SPEC.replacen("\"window\"", r#""assignment": {"sticky": {"header": "x-user"}}, "window""#, 1);
    for seed in 0..10 {
        let mut world = World::with_spec(400 + seed, &sticky);
        world.users = Some(400);
        world.bake();
        (world.cancelled, world.scoreless) = ([0.2; 2], [0.2; 2]);
        let held = world.until(Decision::Hold, 40);
        assert_eq!(held, None, "seed {seed}: {:#?}", world.last().health);
    }
    // An arm without any values is still found.
    let mut world = World::with_spec(410, &sticky);
    world.users = Some(3000);
    world.bake();
    world.scoreless = [1.0, 0.0];
    assert!(world.until(Decision::Hold, 40).is_some(), "{:#?}", world.last().health);
}

#[test]
fn a_rollout_under_the_first_rules_continues_under_them() {
    let mut world = World::new(25);
    world.control.rules = 1;
    world.bake();
    (world.unread, world.scoreless) = ([0.5, 0.0], [0.5, 0.0]);
    assert_eq!(world.until(Decision::Hold, 20), None);
    assert!(world.last().health.is_empty());
    assert!(!world.last().sentence.contains("saw only"));
    assert_eq!(world.last().rules, 1);
}
