//! Margins that extend beyond the end of a metric's range: an equal canary passes, and a canary at the end passes only if
//! that is not harm.

use serin_statistics::Direction::{HigherIsBetter, LowerIsBetter};
use serin_statistics::{Direction, Margin, Measure};

use super::draws::{Shape, Signal};
use super::lab::Lab;
use super::report::{Row, Unit, share};
use super::scenarios::{ALPHA_PROMOTION, ALPHA_ROLLBACK, Control, OVERALL, Scenario, Until, against_control};

const H: u32 = 360;
const CANARY: f64 = 0.1;
/// An equal canary must pass within this many windows: ten minutes.
const SOON: u64 = 60;

fn scenario(
    name: &'static str,
    (measure, direction, margin): (Measure, Direction, Margin),
    healthy: Signal,
    canary: Signal,
) -> Scenario {
    let spec = against_control(measure, direction, margin, H);
    Scenario { name, spec, weight: OVERALL, part: 1.0, healthy, canary, onset: 0 }
}

/// Shares of canaries that pass.
pub(super) fn rows(lab: Lab) -> Vec<Row> {
    let mut rows = Vec::new();
    let (rate, score) = (Measure::Rate, Measure::Mean { min: 0.0, max: 1.0 });
    let scores = |mean: f64| Signal::Lin(Shape::beta(mean, 100.0));
    let latency = || Signal::Log(Shape::log_normals(&[(1.0, 50.0, 0.5)]));
    let points = Margin::absolute;
    let at_once = || Signal::Log(Shape::log_normals(&[(1.0, 0.5, 0.5)]));
    // The last signal is that of a canary at the bad end of the range, the worst possible one.
    for (name, test, signal, worst) in [
        ("clicks 1 %, margin 2 points", (rate, HigherIsBetter, points(0.02)), Signal::Rate(0.01), Signal::Rate(0.0)),
        ("no clicks, margin 2 points", (rate, HigherIsBetter, points(0.02)), Signal::Rate(0.0), Signal::Rate(0.0)),
        ("errors 97 %, margin 5 points", (rate, LowerIsBetter, points(0.05)), Signal::Rate(0.97), Signal::Rate(1.0)),
        (
            "errors 90 %, margin 20 %",
            (rate, LowerIsBetter, Margin::relative(0.2)),
            Signal::Rate(0.9),
            Signal::Rate(1.0),
        ),
        ("score 0.02, margin 0.03", (score, HigherIsBetter, points(0.03)), scores(0.02), scores(0.001)),
        ("score 0.98, margin 0.03", (score, LowerIsBetter, points(0.03)), scores(0.98), scores(0.999)),
        (
            "p50 50 ms, margin 60 ms",
            (Measure::Quantile { level: 0.5 }, HigherIsBetter, points(60.0)),
            latency(),
            at_once(),
        ),
    ] {
        let worst = Scenario { weight: 1.0, ..scenario(name, test, signal.clone(), worst) };
        let words = format!("false rollbacks at the end of the range: {name}");
        let runs = lab.each(&words, lab.runs(500, 10), |run| worst.run(run, CANARY, Control::TenTimes, Until::Failed));
        let failed = share(runs.iter().map(|run| run.failed.is_some()));
        rows.push(Row::new("end", words, Unit::Share, failed).at_most(ALPHA_ROLLBACK));
        let equal = scenario(name, test, signal.clone(), signal);
        let words = format!("equal canaries that pass within 10 min: {name}");
        let runs = lab.each(&words, lab.runs(500, 20), |run| equal.run(run, CANARY, Control::TenTimes, Until::Passed));
        let passed = share(runs.iter().map(|run| run.passed.is_some_and(|window| window <= SOON)));
        rows.push(Row::new("end", words, Unit::Share, passed).at_least(0.99));
    }
    // The margin ends exactly at the end of the range, and the canary is there.
    for (name, test, healthy, canary) in [
        (
            "clicks 2 % -> 0, margin 2 points",
            (rate, HigherIsBetter, points(0.02)),
            Signal::Rate(0.02),
            Signal::Rate(0.0),
        ),
        (
            "errors 95 % -> 100 %, margin 5 points",
            (rate, LowerIsBetter, points(0.05)),
            Signal::Rate(0.95),
            Signal::Rate(1.0),
        ),
        (
            "errors 80 % -> 100 %, margin 25 %",
            (rate, LowerIsBetter, Margin::relative(0.25)),
            Signal::Rate(0.8),
            Signal::Rate(1.0),
        ),
    ] {
        let worst = scenario(name, test, healthy, canary);
        let words = format!("false PASS at a margin that ends at the end of the range: {name}");
        let runs = lab.each(&words, lab.runs(500, 20), |run| worst.run(run, CANARY, Control::TenTimes, Until::Passed));
        let passed = share(runs.iter().map(|run| run.passed.is_some()));
        rows.push(Row::new("end", words, Unit::Share, passed).at_most(ALPHA_PROMOTION));
    }
    rows
}
