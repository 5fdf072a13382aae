//! Compares forecasts with simulated rollouts: the analyzer's fold and the planner on random traffic.
//!
//! Times must agree within [`FACTOR`] and two windows, shares within [`POINTS`]. Seeds are fixed.

use std::collections::BTreeMap;

use super::{Request, course::Forecast, forecast};
use crate::{
    parallel,
    simulate::{Experiment, Report, Setup, World},
};

/// Largest factor between a forecast time and the median of the runs.
const FACTOR: f64 = 1.5;
/// Largest difference between a forecast share and the share of the runs.
const POINTS: f64 = 0.15;
const RUNS: u32 = 120;

struct Both {
    planned: Forecast,
    played: Report,
    window: f64,
}

/// Plans a rollout and plays it. `regression` empty: a canary equal to stable.
fn both(text: &str, per_second: f64, base: &[(&str, f64)], regression: &str) -> Both {
    let spec = serin_rollout::parse_yaml(text).unwrap().normalized();
    let base: BTreeMap<String, f64> = base.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect();
    let regressions = || if regression.is_empty() { vec![] } else { vec![regression.parse().unwrap()] };
    let request = Request {
        spec: spec.clone(),
        per_second,
        base: base.clone(),
        counted: BTreeMap::new(),
        regressions: regressions(),
        react_seconds: 0.0,
    };
    let planned = forecast(&request).unwrap();
    let setup = Setup { per_second, base, regressions: regressions(), ..Setup::default() }.of(&spec);
    let bakes: i64 = spec.steps.iter().map(|step| step.bake.max.0.0).sum();
    let limit = serin_schemas::ids::Span(bakes);
    let window = spec.window.0.as_secs_f64();
    let world = World::new(&spec, &setup).unwrap();
    let experiment = Experiment { spec, world, seed: 7, limit };
    let runs = parallel::run("rollouts", RUNS, parallel::cores(), |number| experiment.play(number)).unwrap();
    Both { planned, played: Report::new(&experiment, serin_schemas::ids::Span(0), &runs), window }
}

impl Both {
    fn share(&self, end: &str) -> f64 {
        self.played.ends.iter().find(|report| report.end == end).map_or(0.0, |report| report.share)
    }

    /// Median of the seconds from the canary's first request to this end.
    fn median(&self, end: &str) -> f64 {
        self.played.ends.iter().find(|report| report.end == end).map_or(f64::NAN, |report| report.seconds.median)
    }

    #[track_caller]
    fn agrees(&self, planned: f64, played: f64) {
        let least = planned.min(played).max(0.0);
        let off = (planned - played).abs();
        assert!(off <= (FACTOR - 1.0) * least + 2.0 * self.window, "{planned} is planned, {played} was played");
    }

    #[track_caller]
    fn is_healthy_as_planned(&self) {
        let healthy = &self.planned.healthy;
        let promoted = self.share("promoted");
        assert!((healthy.share - promoted).abs() <= POINTS, "{} is planned, {promoted} was played", healthy.share);
        assert_eq!(healthy.end == "promoted", promoted > 0.5, "{healthy:?}, {promoted}");
        if promoted > 0.5 {
            self.agrees(healthy.seconds, self.median("promoted"));
        }
    }

    #[track_caller]
    fn is_caught_as_planned(&self) {
        let course = &self.planned.regressions[0].course;
        let caught = self.share("rolled_back");
        assert!((course.share - caught).abs() <= POINTS, "{} is planned, {caught} was played", course.share);
        assert_eq!(course.end == "rolled_back", caught > 0.5, "{course:?}, {caught}");
        if caught > 0.5 {
            self.agrees(course.seconds, self.median("rolled_back"));
            self.agrees(course.canary_requests, self.played.canary_requests.median);
        }
    }
}

/// Labels come after the ramp has reached half of the traffic.
const LATE_LABELS: &str = "
apiVersion: serin.dev/v1
kind: Rollout
model: flights
stable: {version: v1}
canary: {version: v2}
window: 1m
steps:
  - {weight: 1%, bake: {min: 10m, max: 2h}}
  - {weight: 10%, bake: {min: 30m, max: 6h, minEvents: 1000}}
  - {weight: 50%, bake: {min: 1h, max: 3d}, require: pass}
outputs: [{name: late, source: {tensor: probability}, min: 0, max: 1}]
metrics:
  - name: wrong
    kind: rate
    source: {wrong: {output: late, label: late, threshold: 0.5}}
    margin: {absolute: 0.02}
    maturity: 12h
";

#[test]
fn labels_that_come_after_the_ramp_are_in_the_forecast() {
    let late = both(LATE_LABELS, 10.0, &[("wrong", 0.05)], "wrong 5%->9%");
    late.is_caught_as_planned();
    let course = &late.planned.regressions[0].course;
    assert!(course.seconds > 12.0 * 3600.0 && course.step == 2, "{course:?}");
    assert!(
        late.planned.advice.iter().any(|line| line.starts_with("wrong: its labels take 12h")),
        "{:#?}",
        late.planned.advice
    );
    // A step with a low weight that lasts as long as the labels detects it there.
    let patient = LATE_LABELS.replace("{min: 30m, max: 6h, minEvents: 1000}", "{min: 14h, max: 20h}");
    let patient = both(&patient, 10.0, &[("wrong", 0.05)], "wrong 5%->9%");
    patient.is_caught_as_planned();
    assert_eq!(patient.planned.regressions[0].course.step, 1);
    assert!(!patient.planned.advice.iter().any(|line| line.starts_with("wrong: its labels take")));
}

/// Gates with margins that the traffic can barely resolve.
const AT_THE_MARGIN: &str = "
apiVersion: serin.dev/v1
kind: Rollout
model: shop
stable: {version: v1}
canary: {version: v2}
window: 30s
steps:
  - {weight: 10%, bake: {min: 5m, max: 30m}}
  - {weight: 50%, bake: {min: 10m, max: 40m}, require: pass}
outputs: [{name: score, source: {tensor: score}, min: 0, max: 1}]
metrics:
  - {name: failed, kind: rate, source: failed, margin: {absolute: 0.002}}
  - {name: clicked, kind: rate, source: {feedback: click}, direction: higher_is_better, margin: {relative: 0.05}, maturity: 1m}
  - {name: latency_p99, kind: {quantile: {level: 0.99}}, source: latency, margin: {relative: 0.1}}
  - {name: score, kind: {mean: {min: 0, max: 1}}, source: {output: score}, margin: {absolute: 0.01}}
";

#[test]
fn the_share_of_healthy_canaries_that_is_promoted_is_in_the_forecast() {
    for per_second in [40.0, 80.0, 160.0, 400.0] {
        both(AT_THE_MARGIN, per_second, &[], "").is_healthy_as_planned();
    }
}

#[test]
fn the_share_of_regressions_that_is_caught_is_in_the_forecast() {
    for (per_second, regression) in [
        (160.0, "failed 1%->1.6%"),
        (160.0, "clicked 5%->4.2%"),
        (160.0, "latency_p99 x1.3"),
        (40.0, "score 0.5->0.53"),
        (40.0, "failed 1%->1.3%"),
    ] {
        both(AT_THE_MARGIN, per_second, &[], regression).is_caught_as_planned();
    }
}
