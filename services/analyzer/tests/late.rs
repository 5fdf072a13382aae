//! A canary that turns bad late is explained by the windows in which it was bad, because the whole rollout hardly shows it.

#![expect(clippy::unwrap_used, reason = "a panic fails the test")]
#![allow(dead_code, reason = "it uses its part of the lab")]

#[path = "kinds/lab.rs"]
mod lab;
mod support;

use serin_schemas::records::{Decision, MetricResult, Phase, Segment, Verdict};

use lab::{Draw, Lab, capped, classes, events, lin, log, pairs, rate};
use support::{HEALTHY, Version, World};

/// A hundred good windows, then bad ones until the rollback.
fn turns_bad(metric: &str, mirror: bool, draw: Draw) -> (Verdict, Lab) {
    let mut lab = Lab::new(60, metric, "", draw);
    lab.mirror = mirror;
    lab.bake();
    for _ in 0..100 {
        lab.window();
        assert_ne!(lab.world.last().decision, Decision::Rollback, "{}", lab.world.last().sentence);
    }
    lab.harm = 1.0;
    for _ in 0..30 {
        lab.window();
        if lab.world.last().decision == Decision::Rollback {
            return (lab.world.last().clone(), lab);
        }
    }
    panic!("never rolled back: {}", lab.world.last().sentence)
}

#[test]
fn the_sentence_of_every_kind_shows_the_last_windows() {
    let kinds: [(&str, bool, Draw); 8] = [
        (r#""kind": "rate", "source": "error", "margin": {"absolute": 0.01}"#, false, |dice, _, n, harm| {
            rate(dice, n, 0.001 + 0.4 * harm)
        }),
        (r#""kind": "rate", "source": "error", "limit": {"fail": 0.02}"#, false, |dice, _, n, harm| {
            rate(dice, n, 0.001 + 0.4 * harm)
        }),
        (
            r#""kind": {"mean": {"min": 0, "max": 1}}, "source": {"output": "p"}, "direction": "higher_is_better", "margin": {"absolute": 0.02}"#,
            false,
            |dice, _, n, harm| lin(dice, n, 0.6 - 0.4 * harm),
        ),
        (
            r#""kind": {"capped_mean": {"cap": 400}}, "source": {"output": "t"}, "margin": {"relative": 0.1}"#,
            false,
            |dice, _, n, harm| capped(dice, n, 1.0 + harm),
        ),
        (
            r#""kind": {"quantile": {"level": 0.5}}, "source": "latency", "margin": {"relative": 0.2}"#,
            false,
            |dice, _, n, harm| log(dice, n, 50.0 * (1.0 + 2.0 * harm)),
        ),
        (r#""kind": "distribution", "source": {"output": "p"}"#, false, |dice, _, n, harm| {
            log(dice, n, 1.0 + 2.0 * harm)
        }),
        (r#""kind": "classes", "source": "failed", "margin": {"absolute": 0.05}"#, false, |dice, _, n, harm| {
            classes(dice, n, 0.02 + 0.6 * harm, 0.0)
        }),
        (r#""kind": "disagreement", "source": {"output": "p"}, "limit": {"fail": 0.05}"#, true, |dice, _, n, harm| {
            pairs(dice, n, 0.01 + 0.6 * harm)
        }),
    ];
    for (kind, mirror, draw) in kinds {
        let (verdict, lab) = turns_bad(&format!("{{\"name\": \"m\", {kind}}}"), mirror, draw);
        let metric = &verdict.metrics[0];
        let harm = metric.harm.clone().unwrap_or_else(|| panic!("{kind}: {metric:#?}"));
        let sentence = &verdict.reasons[0].sentence;
        assert_eq!(metric.result, MetricResult::Fail, "{kind}: {sentence}");
        // The start of the harm is found within a window or two.
        let windows = harm.through.since(harm.from).as_secs_f64() / 10.0;
        assert!((1.0..=3.0).contains(&windows), "{kind}: {windows} {sentence}");
        // For metrics that mature later, the time is absolute.
        let when = sentence.contains(" in the last ") || (mirror && sentence.contains("Z ("));
        assert!(when && sentence.contains(" since the canary began)"), "{kind}: {sentence}");
        assert!(sentence.contains("at some time in this step "), "{kind}: {sentence}");
        drop(lab);
    }
}

#[test]
fn the_sentence_of_a_count_shows_the_last_windows() {
    let metric = r#"{"name": "m", "kind": "count", "source": {"output": "n"}, "margin": {"relative": 0.3}}"#;
    let (verdict, _) = turns_bad(metric, false, |dice, _, n, harm| events(dice, n, 0.2 + 0.8 * harm, 1));
    assert!(verdict.reasons[0].sentence.contains(" in the last "), "{}", verdict.reasons[0].sentence);
}

#[test]
fn a_failure_that_the_whole_rollout_shows_needs_no_windows() {
    let mut world = World::new(61);
    world.canary = Version { error: 0.2, ..HEALTHY };
    world.bake();
    assert!(world.until(Decision::Rollback, 5).is_some());
    let sentence = &world.last().reasons[0].sentence;
    assert!(!sentence.contains("in the last") && !sentence.contains("at some time"), "{sentence}");
}

#[test]
fn the_windows_of_a_failure_stay_and_a_restart_does_not_change_them() {
    let play = |restart: bool| {
        let mut world = World::new(62);
        world.bake();
        for _ in 0..60 {
            world.window();
        }
        // Monitoring of a promoted version that turns bad and recovers.
        world.turn(Phase::Promoted, 1, 9500, 500);
        world.window();
        if restart {
            let rows = world.harness.rows();
            world.harness.reset(rows).unwrap();
        }
        world.canary = Version { error: 0.5, ..HEALTHY };
        assert!(world.until(Decision::Rollback, 5).is_some());
        let harm = world.metric("error_rate", &Segment::all()).harm.clone();
        if restart {
            let rows = world.harness.rows();
            world.harness.reset(rows).unwrap();
        }
        world.canary = HEALTHY;
        for _ in 0..70 {
            world.window();
        }
        assert_eq!(world.metric("error_rate", &Segment::all()).harm, harm);
        world.last().clone()
    };
    let verdict = play(false);
    assert_eq!(play(true), verdict);
    let sentence = &verdict.reasons[0].sentence;
    assert!(sentence.contains(" % against ") && sentence.contains("Z ("), "{sentence}");
}

#[test]
fn a_segment_is_explained_in_the_same_way() {
    let mut world = World::new(63);
    world.bake();
    for _ in 0..100 {
        world.window();
    }
    world.canary = Version { error_lga: Some(0.5), ..HEALTHY };
    let lga = Segment::of("origin", "LGA");
    let failed = (0..10).any(|_| {
        world.window();
        world.metric("error_rate", &lga).failed_at.is_some()
    });
    let sentence = &world.metric("error_rate", &lga).sentence;
    assert!(failed && sentence.starts_with("for origin=LGA, the canary's error rate is "), "{sentence}");
    assert!(sentence.contains(" in the last "), "{sentence}");
}
