//! A metric that is compared within each value of a segment.

mod support;

use serin_schemas::records::{Decision, MetricResult, NoDataReason, Segment, Verdict};
use support::{HEALTHY, SPEC, Version, World};

/// [`SPEC`] without a hold for the mix, which these tests vary; the error rate is stratified or not.
fn spec(stratified: bool) -> String {
    let warns = "\"noData\": {\"segmentMix\": \"warn\", \"sampleRatio\": \"warn\"}, \"window\"";
    let spec = SPEC.replacen("\"window\"", warns, 1);
    let by = "\"margin\": {\"absolute\": 0.01}, \"stratifyBy\": \"origin\", \"segments\"";
    if stratified { spec.replacen("\"margin\": {\"absolute\": 0.01}, \"segments\"", by, 1) } else { spec }
}

/// Both versions fail more at one airport.
const UNEVEN: Version = Version { error_lga: Some(0.15), ..HEALTHY };

fn world(seed: u64, stratified: bool, skew: f64) -> World {
    let mut world = World::with_spec(seed, &spec(stratified));
    (world.stable, world.canary) = (UNEVEN, UNEVEN);
    world.skew = skew;
    world.bake();
    world
}

#[test]
fn another_mix_looks_like_a_worse_version_unless_it_is_stratified() {
    // 50 % of the canary's answers come from LGA, 30 % of control's.
    let mut plain = world(1, false, 0.2);
    assert!(plain.until(Decision::Rollback, 60).is_some());
    assert_eq!(plain.last().reasons[0].metric, "error_rate");
    for seed in 1..6 {
        let mut stratified = world(seed, true, 0.2);
        assert_eq!(stratified.until(Decision::Rollback, 60), None, "{seed}");
        let metric = stratified.metric("error_rate", &Segment::all());
        let effect = metric.effect.unwrap();
        assert!(effect.abs() < 0.01, "{effect}");
        let pooled = metric.canary.value.unwrap() - metric.control.value.unwrap();
        assert!(pooled > 0.015, "{pooled}");
        assert!(metric.sentence.contains(", compared within each origin, "), "{}", metric.sentence);
        let own = stratified.metric("error_rate", &Segment::of("origin", "LGA"));
        assert!(!own.sentence.contains("compared within"), "{}", own.sentence);
    }
}

#[test]
fn a_canary_that_is_worse_everywhere_is_found_and_a_healthy_one_passes() {
    let run = |stratified: bool| {
        let mut world = world(2, stratified, 0.0);
        world.canary = Version { error: 0.04, error_lga: Some(0.25), ..UNEVEN };
        world.until(Decision::Rollback, 60).unwrap()
    };
    let (plain, stratified) = (run(false), run(true));
    assert!(stratified <= plain + 1, "{stratified} {plain}");
    let mut healthy = world(3, true, 0.0);
    healthy.canary = Version { error: 0.0, error_lga: Some(0.1), ..UNEVEN };
    for _ in 0..60 {
        healthy.window();
    }
    let metric = healthy.metric("error_rate", &Segment::all());
    assert_eq!(metric.result, MetricResult::Pass, "{}", metric.sentence);
    assert!(
        metric.sentence.ends_with("at most 1 point worse with 95 % confidence: it is better"),
        "{}",
        metric.sentence
    );
}

#[test]
fn a_restart_changes_no_byte() {
    let run = |crash: bool| {
        let mut world = world(4, true, 0.2);
        for _ in 0..6 {
            world.window();
            if crash {
                world.harness.crash().unwrap();
            }
        }
        world.verdicts
    };
    let verdicts: Vec<Verdict> = run(false);
    assert!(verdicts.last().unwrap().metrics[0].ln_e_fail.abs() > 1e-6);
    assert_eq!(verdicts, run(true));
}

#[test]
fn strata_have_their_own_row() {
    let rows = |stratified| {
        let mut world = world(5, stratified, 0.0);
        world.window();
        world.commit();
        let kinds = world.harness.rows().into_keys().filter_map(|key| {
            let end = key.iter().position(|&byte| byte == 0)?;
            key.get(end + 1).copied()
        });
        kinds.filter(|&kind| kind == b's').count()
    };
    assert_eq!((rows(false), rows(true)), (0, 1));
}

/// The mix within `other` can differ too, and a comparison within values does not protect against that.
#[test]
fn other_has_no_weight_once_the_arms_are_known_to_serve_different_populations() {
    let mut world = World::with_spec(8, &spec(true).replacen("\"top\": 2", "\"top\": 1", 1));
    (world.stable, world.canary) = (UNEVEN, UNEVEN);
    world.skew = 0.4;
    world.bake();
    for _ in 0..70 {
        world.window();
    }
    let mixed = world.last().health.iter().any(|issue| issue.reason == NoDataReason::SegmentMix);
    let other = world.metric("error_rate", &Segment::of("origin", "other"));
    assert!(mixed && other.ln_e_fail > 10.0, "{other:#?}");
    assert_eq!(other.failed_at, None);
    assert!(world.last().reasons.iter().all(|reason| reason.segment != other.segment));
}
