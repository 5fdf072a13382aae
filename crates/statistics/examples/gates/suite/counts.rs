//! Events per answer that come in bursts: equal versions stay, worse ones are found.

use serin_statistics::{Direction, Margin, Measure};

use super::draws::{MOST_EVENTS, Shape, Signal};
use super::lab::Lab;
use super::report::{Row, Unit, quantile, share};
use super::scenarios::{ALPHA_ROLLBACK, Control, OVERALL, Scenario, Until, against_control};

const H: u32 = 360;
const CANARY: f64 = 0.1;

/// Mean and variance of the events of an answer, in words and as numbers.
const LAWS: [(&str, f64, f64); 4] = [
    ("mean 0.05, variance 0.1", 0.05, 0.1),
    ("mean 0.5, variance 1", 0.5, 1.0),
    ("mean 2, variance 18", 2.0, 18.0),
    ("tokens: mean 200, sd 141", 200.0, 19_881.0),
];

fn scenario(name: &'static str, margin: f64, law: (f64, f64), factor: f64, direction: Direction) -> Scenario {
    let signal = |factor: f64| Signal::Counts(Shape::negative_binomial(law.0 * factor, law.1 * factor));
    Scenario {
        name,
        spec: against_control(Measure::Counts { most: MOST_EVENTS }, direction, Margin::relative(margin), H),
        weight: 1.0,
        part: 1.0,
        healthy: signal(1.0),
        canary: signal(factor),
        onset: 0,
    }
}

fn seconds(window: Option<u64>) -> f64 {
    window.map_or(f64::INFINITY, |window| 10.0 * window as f64)
}

/// False rollbacks at a margin of 0, and how soon half as many events more (or a third fewer) are found.
pub(super) fn rows(lab: Lab) -> Vec<Row> {
    let mut rows = Vec::new();
    for (name, mean, variance) in LAWS {
        let law = (mean, variance);
        for direction in [Direction::LowerIsBetter, Direction::HigherIsBetter] {
            let equal = scenario(name, 0.0, law, 1.0, direction);
            let words = format!("false rollbacks, events per answer, {name}, {direction:?}");
            let runs =
                lab.each(&words, lab.runs(1000, 20), |run| equal.run(run, CANARY, Control::TenTimes, Until::Failed));
            let failed = share(runs.iter().map(|run| run.failed.is_some()));
            rows.push(Row::new("cnt", words, Unit::Share, failed).at_most(ALPHA_ROLLBACK));
        }
        let worse = Scenario { weight: OVERALL, ..scenario(name, 0.1, law, 1.5, Direction::LowerIsBetter) };
        let words = format!("events per answer, {name}, half as many more: median");
        let runs = lab.each(&words, lab.runs(200, 10), |run| worse.run(run, CANARY, Control::TenTimes, Until::Failed));
        let times: Vec<f64> = runs.iter().map(|run| seconds(run.failed)).collect();
        rows.push(Row::new("cnt", words, Unit::Seconds, quantile(&times, 0.5)).at_most(600.0));
    }
    rows
}
