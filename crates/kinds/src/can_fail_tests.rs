//! "No canary can fail it" and the test of the metric agree: the worst possible canary fails exactly where a canary can.

use serde_json::{Value, json};
use serin_sketches::{Rate, Summary};
use serin_spec::{MetricKind, MetricSpec};
use serin_statistics::{Hypothesis, Stratum, rejects};

use crate::{Kind as _, Metric as _};

/// Answers with this value, or with values around it for a quantile; of a rate, this share of them is bad.
fn answers(kind: &MetricKind, value: f64) -> Summary {
    const ANSWERS: u64 = 4000;
    let mut summary = kind.empty(true);
    for number in 0..ANSWERS {
        // Spread evenly, as for the dither of many different ids.
        let hash = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        match &mut summary {
            Summary::Rate(rate) => *rate = Rate::new(ANSWERS, (value * ANSWERS as f64) as u64).unwrap_or_default(),
            Summary::Lin(hist) => hist.insert(kind.scaled(value).unwrap_or_default(), hash).unwrap_or_default(),
            // A quantile needs values on both sides of it.
            Summary::Log(hist) => {
                hist.insert(value * (0.8 + 0.4 * number as f64 / ANSWERS as f64)).unwrap_or_default();
            }
            Summary::Capped(hist) => hist.insert(value, hash).unwrap_or_default(),
            other => panic!("{}", other.kind()),
        }
    }
    summary
}

/// Whether the worst canary fails, and whether the metric says that no canary can.
fn of(kind: &Value, direction: &str, margin: &Value, stable: f64, worst: f64) -> (bool, bool) {
    let metric = json!({"name": "m", "kind": kind, "source": "failed", "direction": direction, "margin": margin});
    let metric: MetricSpec = serde_json::from_value(metric).unwrap_or_else(|error| panic!("{error}"));
    let mut test = Hypothesis::new(metric.hypothesis(true, 1000, 0.05)).unwrap_or_else(|error| panic!("{error}"));
    let (control, canary) = (answers(&metric.kind, stable), answers(&metric.kind, worst));
    test.observe_warmup(&control).unwrap_or_else(|error| panic!("{error}"));
    for window in 1..=100 {
        let strata = [Stratum { canary: &canary, control: &control }];
        test.observe(window, &strata).unwrap_or_else(|error| panic!("{error}"));
    }
    let seen = test.effect_of(&control, &control).control.value.unwrap_or(f64::NAN);
    (rejects(test.ln_e_fail(), 0.01), metric.cannot_fail_at(seen).is_some())
}

#[test]
fn the_worst_canary_fails_where_a_canary_can_fail() {
    let (lower, higher) = ("lower_is_better", "higher_is_better");
    let absolute = |part: f64| json!({"absolute": part});
    let relative = |part: f64| json!({"relative": part});
    let both = |one: f64, other: f64| json!({"absolute": one, "relative": other});
    let mean = json!({"mean": {"min": 0, "max": 10}});
    let (capped, p50) = (json!({"capped_mean": {"cap": 500}}), json!({"quantile": {"level": 0.5}}));
    for (kind, direction, margin, stable, worst, can) in [
        (json!("rate"), lower, absolute(0.02), 0.0, 1.0, true),
        (json!("rate"), lower, absolute(0.02), 0.9, 1.0, true),
        (json!("rate"), lower, absolute(0.02), 0.99, 1.0, false),
        (json!("rate"), lower, absolute(0.02), 1.0, 1.0, false),
        (json!("rate"), lower, relative(0.5), 0.8, 1.0, false),
        (json!("rate"), lower, relative(0.5), 0.5, 1.0, true),
        (json!("rate"), lower, both(0.02, 0.5), 0.8, 1.0, false),
        (json!("rate"), higher, absolute(0.02), 0.0, 0.0, false),
        (json!("rate"), higher, absolute(0.02), 0.01, 0.0, false),
        (json!("rate"), higher, absolute(0.02), 0.1, 0.0, true),
        (json!("rate"), higher, both(0.2, 0.5), 0.3, 0.0, true),
        (mean.clone(), lower, absolute(0.5), 9.0, 10.0, true),
        (mean.clone(), lower, absolute(0.5), 9.7, 10.0, false),
        (mean.clone(), lower, absolute(0.5), 10.0, 10.0, false),
        (mean.clone(), higher, absolute(0.5), 0.0, 0.0, false),
        (mean.clone(), higher, relative(0.5), 1.0, 0.0, true),
        (mean, higher, both(2.0, 0.5), 1.0, 0.0, false),
        // Values count up to the edge of the bin that is nearest to the cap.
        (capped.clone(), lower, absolute(1.0), 450.0, 1e9, true),
        (capped.clone(), lower, absolute(1.0), 499.5, 1e9, true),
        (capped.clone(), lower, absolute(1.0), 500.0, 1e9, true),
        (capped.clone(), lower, absolute(1.0), 1000.0, 1e9, false),
        (capped.clone(), lower, relative(0.5), 400.0, 1e9, false),
        (capped.clone(), higher, absolute(20.0), 10.0, 0.0, false),
        (capped, higher, absolute(20.0), 50.0, 0.0, true),
        (p50.clone(), lower, absolute(1e6), 100.0, 1e9, true),
        (p50.clone(), higher, absolute(50.0), 100.0, 0.0, true),
        (p50.clone(), higher, absolute(110.0), 100.0, 0.0, false),
        (p50.clone(), higher, absolute(150.0), 100.0, 0.0, false),
        (p50, higher, relative(0.5), 100.0, 0.0, true),
        (json!("count"), lower, relative(0.5), 3.0, 1e6, true),
        (json!("count"), lower, relative(0.5), 0.0, 1e6, true),
        (json!("count"), higher, relative(0.5), 3.0, 0.0, true),
    ] {
        let (fails, cannot) = of(&kind, direction, &margin, stable, worst);
        assert_eq!((fails, !cannot), (can, can), "{kind} {direction} {margin} {stable}");
    }
}
