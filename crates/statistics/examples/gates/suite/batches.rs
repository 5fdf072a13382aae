//! Calls with correlated rows, and metrics with conditions: equal versions are kept.

use serin_statistics::{Direction, Margin, Measure};

use super::draws::{Rows, Signal};
use super::lab::Lab;
use super::report::{Row, Unit, share};
use super::scenarios::{ALPHA_ROLLBACK, Control, Scenario, Until, against_control};

const H: u32 = 360;
const CANARY: f64 = 0.1;
const ROWS: u64 = 64;
/// Two rows of a call have a correlation of one half.
const CONCENTRATION: f64 = 1.0;

fn scenario(name: &'static str, measure: Measure, healthy: Signal, canary: Signal) -> Scenario {
    let spec = against_control(measure, Direction::LowerIsBetter, Margin::absolute(0.0), H);
    Scenario { name, spec, weight: 1.0, part: 1.0, healthy, canary, onset: 0 }
}

fn batches(counted: Rows) -> Signal {
    Signal::Batches { rows: ROWS, share: 0.2, concentration: CONCENTRATION, counted }
}

/// Share of equal canaries that are rolled back.
fn failed(lab: Lab, scenario: &Scenario, runs: u64) -> Row {
    let words = format!("false rollbacks, {}", scenario.name);
    let runs = lab.each(&words, runs, |run| scenario.run(run, CANARY, Control::TenTimes, Until::Failed));
    Row::new("rows", words, Unit::Share, share(runs.iter().map(|run| run.failed.is_some())))
}

/// False rollbacks at a margin of 0.
pub(super) fn rows(lab: Lab) -> Vec<Row> {
    let of = |name, measure, counted| scenario(name, measure, batches(counted), batches(counted));
    let mean = of("64 correlated rows, their mean", Measure::Mean { min: 0.0, max: 1.0 }, Rows::Mean);
    let drawn = of("64 correlated rows, a drawn one", Measure::Rate, Rows::Drawn);
    let each = of("64 correlated rows as 64 answers", Measure::Rate, Rows::Each);
    let filtered = |counted| Signal::Filtered { counted, share: 0.3 };
    let same = scenario("a condition that 2 % meet", Measure::Rate, filtered(0.02), filtered(0.02));
    let other = scenario("a condition that 30 % meet, 20 % of the canary", Measure::Rate, filtered(0.3), filtered(0.2));
    vec![
        failed(lab, &mean, lab.runs(200, 4)).at_most(ALPHA_ROLLBACK),
        failed(lab, &drawn, lab.runs(200, 4)).at_most(ALPHA_ROLLBACK),
        failed(lab, &each, lab.runs(100, 4)).at_least(0.25),
        failed(lab, &same, lab.runs(1000, 100)).at_most(ALPHA_ROLLBACK),
        failed(lab, &other, lab.runs(1000, 100)).at_most(ALPHA_ROLLBACK),
    ]
}
