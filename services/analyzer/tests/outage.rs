//! Stable itself fails. Two versions that both fail are equal, but that is not a reason to give the canary more calls.

mod support;

use serin_schemas::records::{Decision, MetricResult, NoDataReason, Phase, Segment};
use support::{HEALTHY, SPEC, Version, World};

fn failing(error: f64) -> Version {
    Version { error, ..HEALTHY }
}

fn with(more: &str) -> String {
    SPEC.replacen("\"window\"", &format!("{more}, \"window\""), 1)
}

fn both_fail(world: &mut World, error: f64) {
    (world.stable, world.canary) = (failing(error), failing(error));
}

#[test]
fn an_outage_of_both_versions_holds_and_passes_nothing() {
    // The same for a step that requires no failure and for one that requires a pass.
    for step in [0, 1] {
        let mut world = World::new(40);
        world.bake();
        world.until(Decision::Rollback, 6);
        if step == 1 {
            world.turn(Phase::Baking, 1, 2500, 7500);
            world.window();
        }
        both_fail(&mut world, 0.6);
        for _ in 0..60 {
            world.window();
            let verdict = world.last();
            assert_eq!(verdict.decision, Decision::Hold, "{}", verdict.sentence);
            let issue = &verdict.health[0];
            assert_eq!((issue.reason, issue.policy.as_str()), (NoDataReason::Outage, "hold"));
            assert!(
                issue.sentence.starts_with("stable is failing too, so the canary is not the cause: in the last 10s "),
                "{}",
                issue.sentence
            );
            let metric = world.metric("error_rate", &Segment::all());
            assert_eq!((metric.result, metric.no_data), (MetricResult::NoData, Some(NoDataReason::Outage)));
        }
        // The hold ends with the outage.
        both_fail(&mut world, 0.01);
        world.window();
        assert!(world.last().health.is_empty(), "{:?}", world.last().health);
        assert_ne!(world.last().decision, Decision::Hold);
    }
}

/// Windows without calls count as time too.
#[test]
fn the_time_in_the_sentence_starts_with_the_calls() {
    let mut world = World::new(47);
    world.bake();
    world.window();
    both_fail(&mut world, 0.6);
    world.window();
    world.traffic = 0;
    for _ in 0..5 {
        world.window();
    }
    let issue = &world.last().health[0];
    assert_eq!(issue.reason, NoDataReason::Outage, "{:?}", world.last().health);
    let seconds = 6 * support::WINDOW.0 / 1_000_000;
    let words = format!("in the last {} ", serin_spec::units::Duration::from_secs(seconds));
    assert!(issue.sentence.contains(&words), "{words}: {}", issue.sentence);
}

#[test]
fn a_canary_that_fails_alone_is_rolled_back_at_once() {
    let mut world = World::new(41);
    world.bake();
    world.until(Decision::Rollback, 3);
    world.canary = failing(0.6);
    assert_eq!(world.until(Decision::Rollback, 3), Some(1), "{}", world.last().sentence);
    assert_eq!(world.last().reasons[0].metric, "error_rate");
    assert!(!world.last().sentence.contains("the canary is not the cause"), "{}", world.last().sentence);
}

/// A gate as wide as the range finds nothing, but the step is not taken.
#[test]
fn a_canary_above_the_ceiling_takes_no_step_whatever_its_gates_allow() {
    let wide = SPEC.replacen(
        r#""source": "error", "margin": {"absolute": 0.01}"#,
        r#""source": "error", "margin": {"absolute": 0.9}"#,
        1,
    );
    assert_ne!(wide, SPEC);
    let mut world = World::with_spec(49, &wide);
    world.bake();
    world.canary = failing(0.6);
    for _ in 0..30 {
        world.window();
        let verdict = world.last();
        assert_eq!(verdict.decision, Decision::Hold, "{}", verdict.sentence);
        let issue = verdict.health.iter().find(|issue| issue.reason == NoDataReason::Outage).unwrap();
        assert!(issue.sentence.starts_with("too many of the canary's calls fail: "), "{}", issue.sentence);
        // Stable is fine, so the canary is still compared with it.
        let metric = world.metric("latency_p99", &Segment::all());
        assert_ne!(metric.no_data, Some(NoDataReason::Outage), "{}", metric.sentence);
    }
    world.canary = HEALTHY;
    assert!(world.until(Decision::Promote, 20).is_some(), "{}", world.last().sentence);
}

#[test]
fn an_outage_of_stable_alone_holds_too() {
    let mut world = World::new(42);
    world.bake();
    world.stable = failing(0.6);
    world.window();
    assert_eq!(world.last().decision, Decision::Hold);
    let sentence = &world.last().sentence;
    assert!(sentence.starts_with("hold: stable is failing, so the canary is not the cause: "), "{sentence}");
}

#[test]
fn refused_calls_have_the_same_ceiling() {
    let mut world = World::new(43);
    world.bake();
    world.refused = [0.5, 0.5];
    world.window();
    assert_eq!(world.last().decision, Decision::Hold);
    assert!(world.last().sentence.contains(" of stable's calls were refused and "), "{}", world.last().sentence);
}

#[test]
fn the_ceiling_is_ten_times_what_warm_up_saw_and_at_least_a_fifth() {
    // Error rate in warm-up, error rate in the outage, whether it is above the ceiling.
    let cases = [
        (0.0, 0.08, false),
        (0.0, 0.35, true),
        (0.04, 0.25, false),
        (0.04, 0.6, true),
        (0.3, 0.45, false),
        (0.3, 0.85, true),
    ];
    for (before, then, above) in cases {
        let mut world = World::new(44);
        both_fail(&mut world, before);
        world.bake();
        both_fail(&mut world, then);
        let held = world.until(Decision::Hold, 5).is_some();
        assert_eq!(held, above, "{before} {then}: {}", world.last().sentence);
    }
}

#[test]
fn the_file_may_set_another_ceiling_and_another_response() {
    let lax = with(r#""decision": {"ceiling": {"times": 100, "atLeast": "70%"}}"#);
    let warn = with(r#""noData": {"outage": "warn"}"#);
    for (spec, issues) in [(lax, 0), (warn, 1)] {
        let mut world = World::with_spec(45, &spec);
        world.bake();
        both_fail(&mut world, 0.45);
        assert_eq!(world.until(Decision::Hold, 5), None);
        assert_eq!(world.last().health.len(), issues, "{:?}", world.last().health);
    }
}

#[test]
fn external_traffic_has_the_same_ceiling() {
    let mut world = World::with_spec(46, &with(r#""traffic": "external""#));
    world.bake();
    both_fail(&mut world, 0.6);
    world.window();
    assert_eq!(world.last().health[0].reason, NoDataReason::Outage);
}

#[test]
fn an_outage_is_known_after_a_restart() {
    let play = |restart: bool| {
        let mut world = World::new(47);
        // So few calls that one window does not show it.
        world.traffic = 200;
        world.bake();
        both_fail(&mut world, 0.6);
        world.window();
        if restart {
            let rows = world.harness.rows();
            world.harness.reset(rows).unwrap();
        }
        world.window();
        world.last().clone()
    };
    let verdict = play(true);
    assert_eq!(verdict.decision, Decision::Hold);
    assert_eq!(verdict, play(false));
}

#[test]
fn rollouts_under_older_rules_continue_under_them() {
    let mut world = World::new(48);
    world.control.rules = 1;
    world.bake();
    both_fail(&mut world, 0.6);
    assert_eq!(world.until(Decision::Hold, 5), None);
}
