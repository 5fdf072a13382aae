//! Decisions on synthetic traffic, from partial windows to verdicts.

mod support;

use serin_schemas::records::{Decision, MetricResult, NoDataReason, Phase, Role, Segment};
use support::{HEALTHY, Version, World};

#[test]
fn warm_up_freezes_the_most_frequent_values_and_starts_the_canary() {
    let mut world = World::new(1);
    let frozen = world.bake();
    assert_eq!(frozen.segments["origin"], ["JFK", "LGA"]);
    assert!(frozen.warmup_events >= 3000);
    // The labels of stable mature a minute later, and the canary waits until then.
    assert!(world.verdicts.len() >= 7, "{}", world.verdicts.len());
    let waiting = &world.verdicts[3];
    assert_eq!(waiting.sentence, "warming up: waiting for the first matured labels of stable");
    assert_eq!((waiting.step, waiting.frozen.clone(), waiting.metrics.len()), (-1, None, 0));
}

#[test]
fn a_healthy_canary_climbs_the_ramp_and_never_fails() {
    let mut world = World::new(2);
    world.bake();
    assert_eq!(world.until(Decision::Promote, 1), Some(1), "{}", world.last().sentence);
    world.until(Decision::Rollback, 11);
    world.turn(Phase::Baking, 1, 2500, 7500);
    let promoted = world.until(Decision::Promote, 100);
    assert!(promoted.is_some(), "{:#?}", world.last());
    assert!(world.verdicts.iter().all(|verdict| verdict.decision != Decision::Rollback));
    let last = world.last();
    assert!(last.score_low >= 95.0 && last.health.is_empty(), "{last:#?}");
    assert_eq!(world.metric("error_rate", &Segment::all()).result, MetricResult::Pass);
}

fn until_rollback(canary: Version, seed: u64) -> World {
    let mut world = World::new(seed);
    world.canary = canary;
    world.bake();
    let found = world.until(Decision::Rollback, 120);
    assert!(found.is_some(), "{:#?}", world.last());
    world
}

#[test]
fn errors_roll_back_and_are_named() {
    let world = until_rollback(Version { error: 0.05, ..HEALTHY }, 3);
    let reason = &world.last().reasons[0];
    assert_eq!((reason.metric.as_str(), reason.segment.is_all()), ("error_rate", true));
    let metric = world.metric("error_rate", &Segment::all());
    assert_eq!(metric.result, MetricResult::Fail);
    assert!(metric.failed_at == metric.evidence_through && metric.p_fail <= 0.01 && metric.ln_e_fail > 4.6);
    assert!(metric.sentence.starts_with("the canary's error rate is "), "{}", metric.sentence);
    assert!(
        metric.sentence.ends_with("at least 1 point worse with 99 % confidence at every look"),
        "{}",
        metric.sentence
    );
}

#[test]
fn one_bad_segment_rolls_back_and_is_named() {
    let world = until_rollback(Version { error_lga: Some(0.06), ..HEALTHY }, 4);
    let reason = &world.last().reasons[0];
    assert_eq!((reason.metric.as_str(), reason.segment.to_string().as_str()), ("error_rate", "origin=LGA"));
    assert!(reason.sentence.starts_with("for origin=LGA, the canary's error rate is "), "{}", reason.sentence);
}

#[test]
fn a_slow_tail_rolls_back_and_is_named() {
    let world = until_rollback(Version { slow: 0.04, ..HEALTHY }, 5);
    assert_eq!(world.last().reasons[0].metric, "latency_p99");
    let sentence = &world.last().reasons[0].sentence;
    assert!(sentence.starts_with("the canary's p99 latency is ") && sentence.contains(" ms against "), "{sentence}");
}

#[test]
fn a_lower_score_fails_where_higher_is_better() {
    let world = until_rollback(Version { score: 0.5, ..HEALTHY }, 6);
    assert_eq!(world.last().reasons[0].metric, "score");
}

#[test]
fn wrong_answers_show_when_their_labels_mature() {
    let mut world = World::new(7);
    world.canary = Version { wrong: 0.45, ..HEALTHY };
    world.bake();
    for _ in 0..5 {
        world.window();
        assert_eq!(world.metric("wrong", &Segment::all()).no_data, Some(NoDataReason::LabelsPending));
    }
    assert!(world.until(Decision::Rollback, 60).is_some(), "{:#?}", world.last());
    assert_eq!(world.last().reasons[0].metric, "wrong");
    // Evidence on labels is a minute behind the rest.
    let behind = world.metric("error_rate", &Segment::all()).evidence_through.unwrap();
    assert_eq!(world.metric("wrong", &Segment::all()).evidence_through, Some(behind.minus(support::MATURITY)));
}

#[test]
fn a_watched_metric_never_decides() {
    let mut world = World::new(8);
    world.canary = Version { latency_ms: 23.5, ..HEALTHY };
    world.bake();
    world.until(Decision::Rollback, 60);
    let watched = world.metric("slow_watch", &Segment::all());
    assert_eq!((watched.result, watched.weight.to_bits()), (MetricResult::Fail, 0), "{watched:#?}");
    assert_ne!(world.last().decision, Decision::Rollback);
    assert!(world.last().reasons.iter().all(|reason| reason.metric != "slow_watch"));
}

#[test]
fn p_never_grows_and_failures_stay() {
    let mut world = World::new(9);
    world.canary = Version { error: 0.025, ..HEALTHY };
    world.bake();
    world.until(Decision::Rollback, 200);
    // The canary recovers, but what has failed stays failed.
    world.canary = HEALTHY;
    for _ in 0..30 {
        world.window();
    }
    let decided: Vec<_> = world.verdicts.iter().filter(|verdict| !verdict.metrics.is_empty()).collect();
    for pair in decided.windows(2) {
        for (before, after) in pair[0].metrics.iter().zip(&pair[1].metrics) {
            assert!(after.p_fail <= before.p_fail, "{} {}", before.metric, before.segment);
            assert!(before.failed_at.is_none() || before.failed_at == after.failed_at);
        }
    }
    assert_eq!(world.last().decision, Decision::Rollback);
}

#[test]
fn each_step_must_show_a_pass_again() {
    let mut world = World::new(10);
    world.bake();
    world.until(Decision::Rollback, 40);
    let before = world.metric("error_rate", &Segment::all()).ln_e_pass;
    assert!(before > 3.0, "{before}");
    world.turn(Phase::Baking, 1, 2500, 7500);
    // The verdict at the change is about the new step, of which nothing is known yet.
    world.close(world.now.plus(support::WINDOW));
    world.now = world.now.plus(support::WINDOW);
    assert_eq!((world.last().step, world.last().decision), (1, Decision::Continue));
    assert_eq!(world.metric("error_rate", &Segment::all()).ln_e_pass.to_bits(), 0);
    assert_eq!(world.last().sentence, "keep baking: no window of this step has answers of the canary yet");
    world.window();
    assert!(world.metric("error_rate", &Segment::all()).ln_e_pass < before);
}

/// A weight that a person sets is a step that the first Control record does not have.
#[test]
fn a_step_that_is_added_later_has_its_own_requirement_and_its_own_evidence() {
    let mut world = World::new(10);
    world.bake();
    world.until(Decision::Rollback, 40);
    let before = world.metric("error_rate", &Segment::all()).ln_e_pass;
    let mut spec = support::spec();
    spec.steps.insert(1, spec.steps[0].clone());
    world.control.spec = serde_json::to_string(&spec).unwrap();
    world.turn(Phase::Baking, 1, 1000, 9000);
    world.window();
    // The second step of the first record requires a pass; the added one does not.
    assert_eq!((world.last().step, world.last().decision), (1, Decision::Promote), "{}", world.last().sentence);
    assert!(world.metric("error_rate", &Segment::all()).ln_e_pass < before);
    world.turn(Phase::Baking, 2, 2500, 7500);
    world.window();
    assert_eq!((world.last().step, world.last().decision), (2, Decision::Continue), "{}", world.last().sentence);
}

#[test]
fn no_fail_is_enough_if_the_step_requires_no_more() {
    let mut world = World::new(11);
    world.bake();
    world.window();
    assert_eq!(world.last().decision, Decision::Promote);
    assert_eq!(
        world.last().sentence,
        "nothing has failed in 6 checks; this step requires no more; not judged: wrong (its labels have not matured yet)"
    );
    let weights: f64 = world.last().metrics.iter().map(|metric| metric.weight).sum();
    assert!((weights - 1.0).abs() < 1e-12);
    let overall: f64 = world.last().metrics.iter().filter(|m| m.segment.is_all()).map(|m| m.weight).sum();
    assert!((overall - 0.5).abs() < 1e-12);
}

#[test]
fn a_step_that_requires_segments_waits_for_each_of_them() {
    let both = |require: &str| {
        let mut world = World::with_spec(14, &support::SPEC.replace("\"require\": \"pass\"", require));
        world.bake();
        world.until(Decision::Rollback, 6);
        world.turn(Phase::Baking, 1, 2500, 7500);
        world.until(Decision::Promote, 200).expect("a healthy canary passes in the end");
        let open = world
            .last()
            .metrics
            .iter()
            .filter(|metric| metric.role == Role::Gate && metric.result != MetricResult::Pass)
            .count();
        (world.verdicts.len(), open, world.last().sentence.clone())
    };
    let (overall, open, _) = both("\"require\": \"pass\"");
    assert!(open > 0, "the segments should need longer than all traffic");
    let (segments, open, sentence) = both("\"require\": \"pass_in_segments\"");
    assert!(segments > overall, "{segments} against {overall}");
    assert_eq!(open, 0, "{sentence}");
    assert!(sentence.contains(" gates pass, in 6 segments too, score "), "{sentence}");
}

#[test]
fn a_hold_keeps_the_evidence_of_the_step() {
    let mut world = World::new(12);
    world.bake();
    world.until(Decision::Rollback, 20);
    let before = world.metric("error_rate", &Segment::all()).clone();
    assert!(before.ln_e_pass > 1.0);
    world.turn(Phase::Held, 0, 500, 5000);
    world.window();
    world.turn(Phase::Baking, 0, 500, 5000);
    world.window();
    let after = world.metric("error_rate", &Segment::all());
    assert!(after.ln_e_pass > 1.0 && after.canary.n > before.canary.n);
    assert_eq!(world.last().arms[0].predictions, after.canary.n);
}

#[test]
fn verdicts_have_different_ids() {
    let mut world = World::new(13);
    world.bake();
    world.until(Decision::Rollback, 5);
    let mut ids: Vec<_> = world.verdicts.iter().map(|verdict| verdict.id.clone()).collect();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), world.verdicts.len());
    assert!(ids.iter().all(|id| id.len() == 16));
}
