//! A step whose rates and means pass at planned looks.

mod support;

use serin_schemas::records::{Decision, MetricResult, Phase, Segment, Verdict};
use support::{HEALTHY, SPEC, Version, World};

/// [`SPEC`] with four looks up to 6,000 answers in its last step. About 500 answers come in a window.
fn spec() -> String {
    let looks = "\"require\": \"pass\", \"groupSequential\": {\"answers\": 6000, \"looks\": 4}";
    SPEC.replacen("\"require\": \"pass\"", looks, 1)
}

fn in_last_step(seed: u64, spec: &str, canary: Version) -> World {
    let mut world = World::with_spec(seed, spec);
    world.canary = canary;
    world.bake();
    world.window();
    world.turn(Phase::Baking, 1, 2500, 7500);
    world
}

fn of(world: &World, metric: &str) -> (MetricResult, String) {
    let found = world.metric(metric, &Segment::all());
    (found.result, found.sentence.clone())
}

/// Errors exactly at the margin of one point.
const AT_MARGIN: Version = Version { error: 0.02, ..HEALTHY };

#[test]
fn a_metric_passes_only_at_a_look() {
    let mut world = in_last_step(1, &spec(), HEALTHY);
    let mut results = Vec::new();
    for _ in 0..8 {
        world.window();
        results.push(of(&world, "error_rate").0 == MetricResult::Pass);
    }
    // The looks are at 1,500, 3,000 and 4,500 answers, at about windows 4, 7 and 10.
    let first = results.iter().position(|passed| *passed).unwrap();
    assert!((2..8).contains(&first), "{results:?}");
    assert!(results[first..].iter().all(|passed| *passed), "what has passed stays: {results:?}");
    let (_, sentence) = of(&world, "error_rate");
    assert!(sentence.contains("at most 1 point worse with 95 % confidence at look "), "{sentence}");
    assert!(sentence.ends_with(" of 4"), "{sentence}");
}

#[test]
fn before_the_first_look_nothing_is_known_although_the_e_process_has_passed() {
    let far = spec().replacen("6000", "60000", 1);
    let mut world = in_last_step(2, &far, HEALTHY);
    for _ in 0..16 {
        world.window();
    }
    let score = world.metric("score", &Segment::all());
    assert!(score.ln_e_pass > 3.0, "{}", score.ln_e_pass);
    assert_eq!(score.result, MetricResult::Undecided);
    assert!(score.sentence.ends_with("no planned look was made yet"), "{}", score.sentence);
    // A metric without planned looks passes as usual.
    assert_eq!(of(&world, "wrong").0, MetricResult::Pass);
    assert_eq!(world.last().decision, Decision::Continue);
}

#[test]
fn no_pass_is_possible_after_the_last_look() {
    let mut world = in_last_step(3, &spec(), AT_MARGIN);
    for _ in 0..14 {
        world.window();
    }
    let (result, sentence) = of(&world, "error_rate");
    assert_eq!(result, MetricResult::Undecided);
    assert!(sentence.ends_with("not shown to be within 1 point, and the planned looks are over"), "{sentence}");
    // Not even a canary that was repaired passes, because the horizon is fixed. The e-process would pass it.
    world.canary = HEALTHY;
    world.canary.error = 0.0;
    for _ in 0..20 {
        world.window();
    }
    let metric = world.metric("error_rate", &Segment::all());
    assert!(metric.ln_e_pass > 3.0 && metric.result == MetricResult::Undecided, "{}", metric.sentence);
}

#[test]
fn a_failure_is_found_as_usual() {
    let run = |spec: &str| {
        let mut world = in_last_step(4, spec, HEALTHY);
        world.window();
        world.canary.error = 0.2;
        world.until(Decision::Rollback, 30)
    };
    let found = run(&spec());
    assert!(found.is_some());
    assert_eq!(found, run(SPEC));
}

#[test]
fn a_restart_between_looks_changes_no_byte() {
    let run = |crash: bool| {
        let mut world = in_last_step(5, &spec(), HEALTHY);
        for _ in 0..9 {
            world.window();
            if crash {
                world.harness.crash().unwrap();
            }
        }
        world.verdicts
    };
    let verdicts: Vec<Verdict> = run(false);
    assert_eq!(verdicts, run(true));
}

#[test]
fn rows_of_looks_exist_only_in_their_step() {
    let steps = "\"require\": \"pass\", \"groupSequential\": {\"answers\": 6000}},
    {\"weight\": \"30%\", \"bake\": {\"min\": \"1m\", \"max\": \"20m\"}, \"require\": \"no_fail\"}";
    let longer = SPEC.replacen("\"require\": \"pass\"}", steps, 1);
    let mut world = World::with_spec(6, &longer);
    let rows = |world: &mut World| {
        world.commit();
        let kinds = world.harness.rows().into_keys().filter_map(|key| {
            let end = key.iter().position(|&byte| byte == 0)?;
            key.get(end + 1).copied()
        });
        kinds.filter(|&kind| kind == b'l').count()
    };
    world.bake();
    world.window();
    assert_eq!(rows(&mut world), 0);
    world.turn(Phase::Baking, 1, 2500, 7500);
    world.window();
    // error_rate, score, slow_watch; latency_p99 is a quantile, wrong has labels that may be missing.
    assert_eq!(rows(&mut world), 3);
    world.turn(Phase::Baking, 2, 3000, 7000);
    world.window();
    assert_eq!(rows(&mut world), 0);
    // A pass is shown again, by e-processes.
    assert!(world.until(Decision::Promote, 3).is_some());
}

#[test]
fn looks_that_cannot_be_planned_are_a_bad_control() {
    let spec = spec().replacen("\"looks\": 4", "\"looks\": 11", 1);
    let mut world = World::with_spec(7, &spec);
    let applied = world.send(&world.control.clone());
    let poison = applied.poison.unwrap();
    assert!(poison.message.contains("the number of looks 11 must be between 1 and 10"), "{}", poison.message);
}
