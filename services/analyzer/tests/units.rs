//! Where a key assigns the arm, no verdict rests on a handful of users, or on answers without a user.

mod support;

use serin_schemas::records::{Decision, MetricResult, NoDataReason, Segment};
use support::{SPEC, World};

fn sticky(more: &str) -> String {
    let with = format!("{more} \"assignment\": {{\"sticky\": {{\"header\": \"x-user\"}}}}, \"window\"");
    SPEC.replacen("\"window\"", &with, 1)
}

/// A world with sticky users in its first step.
fn world(seed: u64, users: u64, more: &str) -> World {
    let mut world = World::with_spec(seed, &sticky(more));
    (world.users, world.traffic) = (Some(users), 1500);
    world.bake();
    world
}

#[test]
fn three_users_who_fail_on_purpose_decide_nothing() {
    for seed in 0..5 {
        let mut world = world(seed, 2000, "");
        world.attack = (3, 20);
        for _ in 0..6 {
            world.window();
            assert_ne!(world.last().decision, Decision::Rollback, "{}", world.last().sentence);
            world.attack = (0, 0);
        }
        let found = world.metric("error_rate", &Segment::all());
        assert!(found.p_fail < 0.01, "the e-process alone would decide: {found:#?}");
        assert_eq!((found.result, found.no_data), (MetricResult::NoData, Some(NoDataReason::FewUnits)));
        assert!(found.sentence.contains("the difference rests on "), "{}", found.sentence);
        assert!(world.last().sentence.contains("users of about "), "{}", world.last().sentence);
        assert_eq!(world.last().decision, Decision::Continue, "no step is taken past it");
        // They decide nothing in their segments or by their latency either.
        assert!(world.last().metrics.iter().all(|metric| metric.result != MetricResult::Fail));
    }
}

#[test]
fn a_fault_that_all_users_see_is_rolled_back_as_fast_as_usual() {
    let mut windows = Vec::new();
    for seed in 0..5 {
        let mut world = world(10 + seed, 2000, "");
        world.canary.error = 0.2;
        windows.push(world.until(Decision::Rollback, 20).unwrap());
        let found = world.metric("error_rate", &Segment::all());
        assert_eq!(found.result, MetricResult::Fail);
        assert!(found.units.is_some_and(|units| (20.0..400.0).contains(&units)), "{:?}", found.units);
    }
    assert!(windows.iter().all(|windows| *windows <= 3), "{windows:?}");
}

#[test]
fn slow_answers_of_all_users_fail_but_those_of_three_do_not() {
    let mut all = world(20, 2000, "");
    all.canary.latency_ms = 60.0;
    assert!(all.until(Decision::Rollback, 20).is_some());
    assert_eq!(all.metric("latency_p99", &Segment::all()).result, MetricResult::Fail);
    let mut few = world(21, 2000, "");
    few.attack = (3, 5);
    assert_eq!(few.until(Decision::Rollback, 12), None);
    assert_ne!(few.metric("latency_p99", &Segment::all()).result, MetricResult::Fail);
}

#[test]
fn a_rollout_under_older_rules_continues_under_them() {
    let mut world = World::with_spec(30, &sticky(""));
    (world.users, world.traffic, world.control.rules) = (Some(2000), 1500, 1);
    world.bake();
    world.attack = (3, 20);
    assert!(world.until(Decision::Rollback, 12).is_some());
}

#[test]
fn a_few_users_are_not_enough_for_a_pass() {
    let mut world = world(40, 100, "");
    world.turn(serin_schemas::records::Phase::Baking, 1, 1000, 9000);
    for _ in 0..40 {
        world.window();
        let found = world.metric("error_rate", &Segment::all());
        assert_ne!(found.result, MetricResult::Pass, "{:?} users", found.units);
    }
    let found = world.metric("error_rate", &Segment::all());
    assert_eq!(found.no_data, Some(NoDataReason::FewUnits), "{found:#?}");
    assert!(found.sentence.contains("and a pass needs 30"), "{}", found.sentence);
}

/// The margin is wide and all their answers are alike, so the answers alone would be enough.
#[test]
fn twenty_users_are_not_enough_for_a_pass_no_matter_how_many_answers_they_give() {
    let wide = sticky("").replacen("{\"absolute\": 0.01}", "{\"absolute\": 0.1}", 1);
    let (mut passed, mut refused) = (0, 0);
    for (seed, users, step) in [(41, 200, 1000), (42, 200, 1000), (43, 1000, 1000)] {
        let mut world = World::with_spec(seed, &wide);
        (world.users, world.traffic) = (Some(users), 1500);
        world.bake();
        world.turn(serin_schemas::records::Phase::Baking, 1, step, 9000);
        (0..30).for_each(|_| world.window());
        let found = world.metric("error_rate", &Segment::all());
        if users < 300 {
            assert!(found.units.is_some_and(|units| units < 30.0), "{found:#?}");
            assert_eq!((found.result, found.no_data), (MetricResult::NoData, Some(NoDataReason::FewUnits)));
            assert!(found.sentence.contains("and a pass needs 30"), "{}", found.sentence);
            refused += 1;
        } else {
            passed += usize::from(found.result == MetricResult::Pass);
        }
    }
    assert_eq!((refused, passed), (2, 1));
}

/// The answers of a single user are not independent of each other.
#[test]
fn a_canary_of_one_user_is_not_judged() {
    let hash = |number: u64| serin_sketches::hash::hash64(b"user", &number.to_le_bytes()) % 10_000;
    // As many users as it takes for the canary to have exactly one of them.
    let users = (10..1000).find(|users| (0..*users).filter(|number| hash(*number) < 500).count() == 1).unwrap();
    let mut world = world(44, users, "");
    for _ in 0..6 {
        world.window();
        let found = world.metric("error_rate", &Segment::all());
        assert_eq!((found.result, found.no_data), (MetricResult::NoData, Some(NoDataReason::FewUnits)));
        assert!(found.sentence.contains("name no more than one user"), "{}", found.sentence);
    }
}

/// Ranks, classes and segments are known per group of users and not per bucket. The number of users is about the same.
#[test]
fn groups_of_users_count_as_many_users_as_buckets_do() {
    let mut world = world(45, 2000, "");
    (0..4).for_each(|_| world.window());
    let units = |metric: &str, segment: Segment| world.metric(metric, &segment).units.unwrap();
    let by_bucket = units("error_rate", Segment::all());
    let by_group = [units("latency_p99", Segment::all()), units("error_rate", Segment::of("origin", "JFK"))];
    for found in by_group {
        assert!((0.5 * by_bucket..2.0 * by_bucket).contains(&found), "{found} of {by_bucket}");
    }
}

const EXTERNAL: &str = r#""traffic": "external", "mode": "observe","#;

#[test]
fn events_that_name_no_unit_are_not_judged() {
    let mut world = World::with_spec(50, &sticky(EXTERNAL));
    (world.users, world.traffic, world.nameless) = (Some(2000), 1500, u64::MAX);
    world.bake();
    world.canary.error = 0.3;
    for _ in 0..6 {
        world.window();
        assert_eq!(world.last().decision, Decision::Hold, "{}", world.last().sentence);
        let found = world.metric("error_rate", &Segment::all());
        assert_eq!((found.result, found.no_data), (MetricResult::NoData, Some(NoDataReason::FewUnits)));
        assert_eq!(found.design_effect, None);
    }
    let issue = &world.last().health[0];
    assert_eq!((issue.reason, issue.policy.as_str()), (NoDataReason::FewUnits, "hold"));
    assert!(issue.sentence.contains("100.0 % of the canary's answers"), "{}", issue.sentence);
}

#[test]
fn a_small_share_without_unit_is_shown_and_counts_as_one_user() {
    let mut world = World::with_spec(51, &sticky(EXTERNAL));
    (world.users, world.traffic, world.nameless) = (Some(2000), 1500, 60);
    world.bake();
    for _ in 0..4 {
        world.window();
        assert_ne!(world.last().decision, Decision::Hold, "{}", world.last().sentence);
    }
    let issue = &world.last().health[0];
    assert_eq!((issue.reason, issue.policy.as_str()), (NoDataReason::FewUnits, "warn"));
    assert!(issue.sentence.ends_with("together they count as one unit"), "{}", issue.sentence);
    world.nameless = 1000;
    assert!(world.until(Decision::Hold, 6).is_some());
}

/// A version that loses the users of some answers may lose those of its failures. Both shares are small, but they differ.
#[test]
fn a_canary_that_loses_more_users_than_control_holds() {
    let mut world = World::with_spec(52, &sticky(EXTERNAL));
    (world.users, world.traffic) = (Some(2000), 1500);
    world.bake();
    world.turn(serin_schemas::records::Phase::Baking, 0, 2000, 8000);
    world.nameless_canary = 0.07;
    assert!(world.until(Decision::Hold, 20).is_some(), "{}", world.last().sentence);
    let issue = &world.last().health[0];
    assert_eq!(issue.reason, NoDataReason::FewUnits);
    assert!(
        issue.sentence.contains("% of the canary's answers and 0.0 % of control's name no unit"),
        "{}",
        issue.sentence
    );
}

#[test]
fn what_units_have_added_survives_a_restart() {
    let mut world = world(60, 2000, "");
    world.attack = (3, 20);
    for _ in 0..4 {
        world.window();
        world.commit();
        world.harness.crash().unwrap();
        assert_ne!(world.last().decision, Decision::Rollback, "{}", world.last().sentence);
    }
    assert_eq!(world.metric("error_rate", &Segment::all()).no_data, Some(NoDataReason::FewUnits));
}

/// Users who label at all label everything, so the share of labelled answers differs between the arms as their users do.
#[test]
fn users_who_label_all_or_nothing_are_not_a_difference_between_the_arms() {
    let missing = |world: &World| world.last().health.iter().any(|issue| issue.reason == NoDataReason::LabelsMissing);
    for seed in 70..74 {
        let mut world = world(seed, 600, "");
        (world.per_user.own_labels, world.labelled) = (true, [0.5, 0.5]);
        for _ in 0..40 {
            world.window();
            assert!(!missing(&world), "{seed}: {}", world.last().sentence);
        }
    }
    // It is a difference when thousands of users label the canary's answers less often.
    let mut world = world(78, 20_000, "");
    (world.per_user.own_labels, world.labelled) = (true, [0.2, 0.9]);
    assert!(world.until(Decision::Hold, 40).is_some(), "{}", world.last().sentence);
    assert!(missing(&world), "{}", world.last().sentence);
}
