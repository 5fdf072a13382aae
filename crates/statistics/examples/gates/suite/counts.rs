//! Events per answer that come in bursts: equal versions are kept, worse ones are detected.

use serin_statistics::{Direction, Margin, Measure};

use super::draws::{MOST_EVENTS, Shape, Signal};
use super::lab::Lab;
use super::report::{Row, Unit, quantile, share};
use super::scenarios::{ALPHA_ROLLBACK, Control, OVERALL, Scenario, Until, against_control};

const H: u32 = 360;
const CANARY: f64 = 0.1;

/// How the events of an answer are distributed.
struct Law {
    name: &'static str,
    mean: f64,
    variance: f64,
    /// In addition, this share of the answers has this many events.
    rare: (f64, f64),
}

const NONE: (f64, f64) = (0.0, 0.0);
const LAWS: [Law; 5] = [
    Law { name: "mean 0.05, variance 0.1", mean: 0.05, variance: 0.1, rare: NONE },
    Law { name: "mean 0.5, variance 1", mean: 0.5, variance: 1.0, rare: NONE },
    Law { name: "mean 2, variance 18", mean: 2.0, variance: 18.0, rare: NONE },
    Law { name: "tokens: mean 200, sd 141", mean: 200.0, variance: 19_881.0, rare: NONE },
    Law { name: "mean 2, one answer in 2,000 brings 10,000", mean: 2.0, variance: 4.0, rare: (0.0005, 10_000.0) },
];

fn scenario(law: &Law, margin: f64, factor: f64, direction: Direction) -> Scenario {
    let signal = |factor: f64| {
        let shape = Shape::negative_binomial(law.mean * factor, law.variance * factor);
        Signal::Counts(shape.with_rare(law.rare.0, law.rare.1))
    };
    Scenario {
        name: law.name,
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

/// False rollbacks at a margin of 0, and how soon 1.5 times as many events (or a third fewer) are detected.
pub(super) fn rows(lab: Lab) -> Vec<Row> {
    let mut rows = Vec::new();
    for law in LAWS {
        let name = law.name;
        for direction in [Direction::LowerIsBetter, Direction::HigherIsBetter] {
            let equal = scenario(&law, 0.0, 1.0, direction);
            let words = format!("false rollbacks, events per answer, {name}, {direction:?}");
            // What one answer in 2,000 brings varies more from run to run.
            let full = if law.rare == NONE { 1000 } else { 4000 };
            let runs =
                lab.each(&words, lab.runs(full, 20), |run| equal.run(run, CANARY, Control::TenTimes, Until::Failed));
            let failed = share(runs.iter().map(|run| run.failed.is_some()));
            rows.push(Row::new("cnt", words, Unit::Share, failed).at_most(ALPHA_ROLLBACK));
        }
        let worse = Scenario { weight: OVERALL, ..scenario(&law, 0.1, 1.5, Direction::LowerIsBetter) };
        let words = format!("events per answer, {name}, 1.5 times as many: median");
        let runs = lab.each(&words, lab.runs(200, 10), |run| worse.run(run, CANARY, Control::TenTimes, Until::Failed));
        let times: Vec<f64> = runs.iter().map(|run| seconds(run.failed)).collect();
        rows.push(Row::new("cnt", words, Unit::Seconds, quantile(&times, 0.5)).at_most(600.0));
    }
    rows
}
