//! What happens when the evidence itself cannot be trusted.

mod support;

use serin_schemas::{
    ids::{EventTime, Span},
    records::{Arm, ClosedThrough, Decision, MetricResult, NoDataReason, Phase, Segment},
};
use support::{SPEC, World};

fn with(policy: &str) -> String {
    SPEC.replacen("\"window\"", &format!("\"noData\": {policy}, \"window\""), 1)
}

#[test]
fn a_wrong_split_holds_and_judges_nothing() {
    let mut world = World::new(1);
    world.bake();
    world.leak = 0.5;
    assert!(world.until(Decision::Hold, 30).is_some(), "{:#?}", world.last());
    let issue = &world.last().health[0];
    assert_eq!((issue.reason, issue.policy.as_str()), (NoDataReason::SampleRatio, "hold"));
    assert!(issue.sentence.contains("not the configured 9.091 %"), "{}", issue.sentence);
    let metric = world.metric("error_rate", &Segment::all());
    assert_eq!((metric.result, metric.no_data), (MetricResult::NoData, Some(NoDataReason::SampleRatio)));
    assert_eq!(world.last().score_low.to_bits(), 0);
    // The issue stays for the step, and the next step counts from scratch.
    world.leak = 0.0;
    world.window();
    assert_eq!(world.last().decision, Decision::Hold);
    world.turn(Phase::Baking, 1, 2500, 7500);
    world.window();
    assert_eq!(world.last().decision, Decision::Continue);
}

#[test]
fn a_right_split_is_never_held() {
    for seed in 0..5 {
        let mut world = World::new(100 + seed);
        world.bake();
        assert_eq!(world.until(Decision::Hold, 40), None, "{:#?}", world.last().health);
    }
}

#[test]
fn a_wrong_split_of_users_holds_too() {
    let sticky = SPEC.replacen("\"window\"", r#""assignment": {"sticky": {"header": "x-user"}}, "window""#, 1);
    let hold = |leak: f64, seed: u64| {
        let mut world = World::with_spec(seed, &sticky);
        world.users = Some(3000);
        world.bake();
        world.leak = leak;
        world.until(Decision::Hold, 40).map(|_| world)
    };
    for seed in 0..5 {
        assert!(hold(0.0, 200 + seed).is_none());
    }
    let world = hold(0.6, 1).unwrap();
    let issue = &world.last().health[0];
    assert_eq!((issue.reason, issue.policy.as_str()), (NoDataReason::SampleRatio, "hold"));
    assert!(issue.sentence.contains("not the configured 9.091 %"), "{}", issue.sentence);
}

#[test]
fn a_silent_canary_holds_until_it_answers_again() {
    let mut world = World::new(2);
    world.bake();
    world.window();
    world.leak = 1.0;
    let silent = world.until(Decision::Hold, 5);
    assert_eq!(silent, Some(2), "{:#?}", world.last().health);
    let issue = &world.last().health[0];
    assert_eq!(issue.reason, NoDataReason::NoCanaryTraffic);
    assert!(issue.sentence.starts_with("the canary had no answers for 20s while about "), "{}", issue.sentence);
}

#[test]
fn a_canary_that_never_answers_is_no_data() {
    let mut world = World::new(3);
    world.bake();
    world.leak = 1.0;
    world.window();
    let metric = world.metric("error_rate", &Segment::all());
    assert_eq!((metric.result, metric.no_data), (MetricResult::NoData, Some(NoDataReason::NoCanaryTraffic)));
    assert_eq!(metric.sentence, "the canary's error rate is not judged: there are no answers of the canary");
    assert_eq!(world.last().decision, Decision::Continue);
    assert!(world.until(Decision::Hold, 5).is_some());
}

#[test]
fn the_policy_may_be_to_roll_back_without_blame() {
    let mut world = World::with_spec(4, &with(r#"{"noTraffic": "rollback", "sampleRatio": "warn"}"#));
    world.bake();
    world.leak = 1.0;
    assert!(world.until(Decision::Rollback, 5).is_some());
    assert!(world.last().reasons.is_empty());
    assert!(world.last().sentence.starts_with("roll back, as the spec asks when there is no data: the canary had no"));
    assert!(world.last().metrics.iter().all(|metric| metric.result != MetricResult::Fail));
}

#[test]
fn a_pause_of_all_traffic_is_reported() {
    let mut world = World::new(5);
    world.bake();
    world.window();
    world.traffic = 0;
    assert_eq!(world.until(Decision::Hold, 5), Some(2));
    assert!(
        world.last().sentence.contains("no answers of either version were reported for 20s"),
        "{}",
        world.last().sentence
    );
    world.traffic = 2000;
    world.window();
    assert_ne!(world.last().decision, Decision::Hold);
}

#[test]
fn late_events_of_one_arm_only_hold() {
    let mut world = World::new(6);
    world.bake();
    world.late = [20, 0];
    assert!(world.until(Decision::Hold, 60).is_some());
    assert_eq!(world.last().health[0].reason, NoDataReason::LateShareDiffers);
    let mut world = World::new(7);
    world.bake();
    // The same share of both arms is not a difference.
    world.late = [20, 200];
    assert_eq!(world.until(Decision::Hold, 60), None);
}

#[test]
fn late_shares_are_compared_from_scratch_in_each_step_and_after_a_resume() {
    let mut world = World::new(6);
    world.bake();
    world.late = [20, 0];
    assert!(world.until(Decision::Hold, 60).is_some());
    world.late = [0, 0];
    world.turn(Phase::Held, 0, 500, 5000);
    world.window();
    assert_eq!(world.last().decision, Decision::Hold, "it stays until it is resumed");
    world.turn(Phase::Baking, 0, 500, 5000);
    assert_eq!(world.until(Decision::Hold, 10), None);
    world.late = [20, 0];
    assert!(world.until(Decision::Hold, 60).is_some(), "the next episode is found");
    world.late = [0, 0];
    world.turn(Phase::Baking, 1, 2500, 7500);
    assert_eq!(world.until(Decision::Hold, 10), None);
}

#[test]
fn losses_of_an_unknown_arm_are_reported() {
    let mut world = World::new(10);
    world.bake();
    let mut parts = world.draw();
    for part in &mut parts {
        part.arms.iter_mut().filter(|counts| counts.arm == Arm::Stable).for_each(|counts| counts.lost = 3);
    }
    for part in &parts {
        world.send(part);
    }
    world.close(world.now);
    let issue = &world.last().health[0];
    assert_eq!(issue.reason, NoDataReason::EventsLost);
    assert_eq!(issue.sentence, "9 events of stable, or of an unknown arm, were lost since the last verdict");
    world.window();
    assert!(world.last().health.is_empty());
}

#[test]
fn labels_that_contradict_earlier_ones_warn() {
    let mut world = World::new(10);
    world.bake();
    let mut parts = world.draw();
    for part in parts.iter_mut().filter(|part| part.maturity.0 == 0) {
        for counts in &mut part.arms {
            counts.contradicting = if counts.arm == Arm::Canary { 2 } else { 1 };
        }
    }
    for part in &parts {
        world.send(part);
    }
    world.close(world.now);
    world.window();
    let [issue] = &world.last().health[..] else { panic!("{:?}", world.last().health) };
    assert_eq!((issue.reason, issue.policy.as_str()), (NoDataReason::LabelContradictions, "warn"));
    assert_eq!(
        issue.sentence,
        "6 labels of the canary and 3 of control name another value than an earlier label of the same prediction, and are ignored; \
         to correct a label, send it with a higher `revision`"
    );
    // Nothing is left out of the comparison for this reason.
    assert!(world.last().metrics.iter().all(|metric| metric.no_data != Some(NoDataReason::LabelContradictions)));
    // A negative count is refused.
    for part in &mut parts {
        part.arms.iter_mut().for_each(|counts| counts.contradicting = -1);
    }
    assert!(world.send(&parts[0]).poison.is_some());
}

#[test]
fn labels_that_arrive_for_one_arm_only_hold_the_label_metrics() {
    let mut world = World::new(8);
    world.labelled = [0.5, 0.95];
    world.bake();
    assert!(world.until(Decision::Hold, 60).is_some());
    assert_eq!(world.last().health[0].reason, NoDataReason::LabelsMissing);
    assert_eq!(world.metric("wrong", &Segment::all()).no_data, Some(NoDataReason::LabelsMissing));
    assert_ne!(world.metric("error_rate", &Segment::all()).result, MetricResult::NoData);
}

#[test]
fn labels_that_stop_hold() {
    let mut world = World::new(9);
    world.bake();
    for _ in 0..8 {
        world.window();
    }
    world.labelled = [0.0, 0.0];
    let stopped = world.until(Decision::Hold, 12);
    // They are missing from the time at which they should have matured.
    assert!(stopped.is_some_and(|windows| windows >= 6), "{stopped:?}");
    assert!(world.last().sentence.contains("have matured without any label"), "{}", world.last().sentence);
}

#[test]
fn lost_events_are_reported_once() {
    let mut world = World::new(10);
    world.bake();
    let mut parts = world.draw();
    parts[0].arms.last_mut().unwrap().lost = 7;
    for part in &parts {
        world.send(part);
    }
    world.close(world.now);
    let issue = &world.last().health[0];
    assert_eq!((issue.reason, issue.policy.as_str()), (NoDataReason::EventsLost, "warn"));
    assert_ne!(world.last().decision, Decision::Hold);
    world.window();
    assert!(world.last().health.is_empty());
}

#[test]
fn an_observed_rollout_is_not_compared_with_the_shares_of_the_spec() {
    let mut world = World::with_spec(11, &SPEC.replacen("\"window\"", "\"mode\": \"observe\", \"window\"", 1));
    world.bake();
    world.window();
    // An external splitter may use any shares.
    world.leak = 0.7;
    assert_eq!(world.until(Decision::Hold, 20), None);
    world.leak = 1.0;
    assert_eq!(world.until(Decision::Hold, 5), None);
}

#[test]
fn a_sticky_split_is_not_tested_per_request() {
    let sticky = r#""assignment": {"sticky": {"header": "x-user"}}, "window""#;
    let mut world = World::with_spec(12, &SPEC.replacen("\"window\"", sticky, 1));
    world.bake();
    world.leak = 0.5;
    assert_eq!(world.until(Decision::Hold, 20), None);
}

#[test]
fn a_promotion_waits_for_an_unheard_writer_and_a_rollback_does_not() {
    let mut world = World::new(80);
    world.bake();
    for _ in 0..5 {
        world.window_without("router-b");
        let verdict = world.last();
        assert_eq!(verdict.decision, Decision::Continue, "{}", verdict.sentence);
        assert!(verdict.sentence.contains("; not promoted yet: "), "{}", verdict.sentence);
        let issue = verdict.health.iter().find(|issue| issue.reason == NoDataReason::NotHeard);
        let issue = issue.map(|issue| (issue.policy.as_str(), issue.sentence.contains("router-b")));
        assert_eq!(issue, Some(("warn", true)), "{:?}", verdict.health);
    }
    world.window();
    assert_eq!(world.last().decision, Decision::Promote, "{}", world.last().sentence);
    world.canary.error = 0.6;
    world.window_without("router-b");
    assert_eq!(world.last().decision, Decision::Rollback, "{}", world.last().sentence);
}

/// A window may still change until all writers have passed its end by the grace.
#[test]
fn a_writer_must_be_heard_past_the_grace() {
    for (short, promotes) in [(0, true), (1, false)] {
        let mut world = World::with_spec(80, &SPEC.replacen("\"window\"", "\"grace\": \"20s\", \"window\"", 1));
        world.turn(Phase::Warming, -1, 0, 0);
        let frozen = (0..30).find_map(|_| {
            world.window();
            world.verdicts.last().and_then(|verdict| verdict.frozen.clone())
        });
        world.control.frozen = frozen;
        world.turn(Phase::Baking, 0, 500, 5000);
        for _ in 0..5 {
            world.window();
        }
        assert_eq!(world.last().decision, Decision::Promote, "{}", world.last().sentence);
        for part in world.draw() {
            assert_eq!(world.send(&part).poison, None);
        }
        for partition in 0..support::PARTITIONS {
            let heard = ClosedThrough::heard(partition, support::PARTITIONS, world.now);
            let heard_through = Some(EventTime(world.now.0 - short));
            let silent = vec!["router-b".to_owned()];
            assert_eq!(world.send(&ClosedThrough { heard_through, silent, ..heard }).poison, None);
        }
        let verdict = world.last();
        assert_eq!(verdict.as_of, world.now.minus(Span::from_secs(20)));
        assert_eq!(verdict.decision == Decision::Promote, promotes, "{short}: {}", verdict.sentence);
    }
}

/// The same share of both arms is not a difference, but the remaining events may not be representative.
#[test]
fn a_promotion_waits_where_much_of_either_arm_came_late() {
    for (late, promotes) in [([20, 200], false), ([20, 0], false), ([0, 200], false), ([3, 30], true)] {
        let mut world = World::new(81);
        world.bake();
        world.late = late;
        // The first window only shows how much comes late.
        (0..3).for_each(|_| world.window());
        let verdict = world.last();
        assert_eq!(verdict.decision == Decision::Promote, promotes, "{late:?}: {}", verdict.sentence);
        let reported = verdict.sentence.contains("came after their window had closed (the limit is 5.0 %)");
        assert!(promotes || reported || verdict.decision == Decision::Hold, "{late:?}: {}", verdict.sentence);
    }
}
