//! Forecasts and simulations agree for margins that exceed the range of a metric.

use std::collections::BTreeMap;

use serin_schemas::ids::Span;

use super::{Request, forecast, text::lines};
use crate::simulate::{Experiment, Run, Setup, World};
use crate::terminal::of_width;

/// A rollout like the README's, with one metric.
fn text(metric: &str) -> String {
    format!(
        "
apiVersion: serin.dev/v1
kind: Rollout
model: fraud
stable: {{version: '1', url: 'http://127.0.0.1:9001'}}
canary: {{version: '2', url: 'http://127.0.0.1:9002'}}
steps:
  - {{weight: 50%, bake: {{min: 10s, max: 2h}}, require: pass}}
outputs:
  - {{name: score, source: {{tensor: score}}}}
metrics:
  - {{name: m, {metric}}}
"
    )
}

/// Plans the rollout, and plays it ten times.
fn both(metric: &str, stable: f64) -> (super::course::Forecast, Vec<Run>, Vec<String>) {
    let spec = serin_rollout::parse_yaml(&text(metric)).unwrap().normalized();
    let base = BTreeMap::from([("m".to_owned(), stable)]);
    let setup = Setup { per_second: 200.0, base: base.clone(), ..Setup::default() };
    let world = World::new(&spec, &setup).unwrap();
    let request = Request {
        spec: spec.clone(),
        per_second: 200.0,
        base,
        counted: BTreeMap::new(),
        regressions: vec![],
        react_seconds: 0.0,
    };
    let planned = forecast(&request).unwrap();
    let text_lines = lines(&request.spec, &planned, of_width(None));
    let experiment = Experiment { spec, world, seed: 1, limit: Span::from_secs(2 * 3600) };
    (planned, (0..10).map(|number| experiment.play(number).unwrap()).collect(), text_lines)
}

#[test]
fn a_margin_beyond_the_range_is_forecast_as_simulated() {
    let mean = "kind: {mean: {min: 0, max: 1}}, source: {output: score}";
    for (metric, stable) in [
        // The README's example, with a mean fraud score of 1 %.
        (format!("{mean}, direction: higher_is_better, margin: {{absolute: 0.02}}"), 0.01),
        (format!("{mean}, margin: {{absolute: 0.02}}"), 0.99),
        (format!("{mean}, margin: {{relative: 0.1}}"), 0.95),
        ("kind: rate, source: cancelled, direction: higher_is_better, margin: {absolute: 0.02}".to_owned(), 0.01),
        ("kind: rate, source: cancelled, margin: {absolute: 0.05}".to_owned(), 0.97),
        ("kind: rate, source: cancelled, margin: {relative: 0.2}".to_owned(), 0.9),
        ("kind: {capped_mean: {cap: 40}}, source: {output: score}, direction: higher_is_better, margin: {absolute: 2}".to_owned(), 1.0),
        ("kind: {quantile: {level: 0.5}}, source: latency, direction: higher_is_better, margin: {absolute: 150}".to_owned(), 100.0),
    ] {
        let (planned, runs, text_lines) = both(&metric, stable);
        assert_eq!(planned.healthy.end, "promoted", "{metric}");
        let held = runs.iter().find(|run| run.end.name() != "promoted");
        assert!(held.is_none(), "{metric}: {held:?}");
        let mut seconds: Vec<f64> = runs.iter().map(|run| run.seconds).collect();
        seconds.sort_by(f64::total_cmp);
        // Within a factor of 1.5 and two windows.
        let (planned, median) = (planned.healthy.seconds, seconds[5]);
        assert!(median <= 1.5 * planned + 20.0 && planned <= 1.5 * median + 20.0, "{metric}: {planned} {median}");
        assert!(text_lines.iter().any(|line| line.contains("no canary can fail it")), "{metric}: {text_lines:#?}");
    }
    let (_, _, text_lines) = both(&format!("{mean}, direction: higher_is_better, margin: {{absolute: 0.02}}"), 0.5);
    assert!(!text_lines.iter().any(|line| line.contains("no canary can fail it")), "{text_lines:#?}");
}

/// Warm-up is held while half or more of stable's answers are bad. A run ends then, instead of waiting without limit.
#[test]
fn a_warm_up_that_cannot_end_is_a_hold() {
    let rate = "kind: rate, source: cancelled, margin: {absolute: 0.05}";
    let spec = serin_rollout::parse_yaml(&text(rate)).unwrap().normalized();
    for (metric, bad) in [("failed", 0.6), ("failed", 1.0), ("refused", 1.0), ("unusable", 0.99)] {
        let base = BTreeMap::from([(metric.to_owned(), bad), ("m".to_owned(), 0.01)]);
        let world = World::new(&spec, &Setup { per_second: 200.0, base, ..Setup::default() }).unwrap();
        let experiment = Experiment { spec: spec.clone(), world, seed: 1, limit: Span::from_secs(3600) };
        let run = experiment.play(0).unwrap();
        assert_eq!((run.end.name(), run.canary_requests), ("held", 0), "{metric} {bad}: {}", run.sentence);
    }
}

/// Values at an end of their range are planned consistently: nothing is said to fail where no canary can.
#[test]
fn values_at_the_ends_of_the_range_are_planned_or_refused() {
    let plan = |metric: &str, stable: f64| {
        let spec = serin_rollout::parse_yaml(&text(metric)).unwrap().normalized();
        let request = Request {
            spec,
            per_second: 200.0,
            base: BTreeMap::from([("m".to_owned(), stable)]),
            counted: BTreeMap::new(),
            regressions: vec![],
            react_seconds: 0.0,
        };
        forecast(&request).map(|planned| {
            let of_metric = planned.regressions.iter().find(|regressed| regressed.metric == "m");
            let regressed = of_metric.map(|regressed| regressed.canary);
            (regressed, lines(&request.spec, &planned, of_width(None)).join("\n"))
        })
    };
    let capped = "kind: {capped_mean: {cap: 500}}, source: {output: score}, margin: {absolute: 1}";
    for stable in [0.0, 503.0, 600.0] {
        let error = plan(capped, stable).unwrap_err().to_string();
        assert!(error.contains("count as at most 502.8: it must be above 0 and below 502.8"), "{stable}: {error}");
    }
    for stable in [50.0, 450.0, 498.0, 500.5] {
        let (regressed, text) = plan(capped, stable).unwrap();
        assert!(regressed.unwrap() > stable + 1.0 && regressed.unwrap() < 505.0, "{stable}: {regressed:?}");
        assert!(!text.contains("no canary can fail it"), "{text}");
    }
    let clicks = "kind: rate, source: cancelled, direction: higher_is_better, margin: {absolute: 0.02}";
    for (metric, stable, can_fail) in [
        (clicks, 0.0, false),
        (clicks, 0.01, false),
        (clicks, 1.0, true),
        ("kind: rate, source: cancelled, margin: {absolute: 0.02}", 1.0, false),
        ("kind: rate, source: cancelled, margin: {absolute: 0.02}", 0.0, true),
        (
            "kind: {quantile: {level: 0.5}}, source: latency, direction: higher_is_better, margin: {absolute: 150}",
            100.0,
            false,
        ),
    ] {
        let (regressed, text) = plan(metric, stable).unwrap();
        assert_eq!(
            (regressed.is_some(), !text.contains("no canary can fail it")),
            (can_fail, can_fail),
            "{metric} {stable}: {text}"
        );
        assert!(!text.contains("no value of it can be detected"), "{text}");
    }
    let (_, text) = plan("kind: count, source: {output: score}, margin: {relative: 0.1}", 0.0).unwrap();
    assert!(text.contains("m: stable is at 0 and the margin is only relative, so it accepts no difference"), "{text}");
}
