//! Margins with an absolute and a relative part: harm must exceed both, so a canary that exceeds only one of them passes and
//! is not rolled back.

use serin_statistics::Direction::{self, HigherIsBetter, LowerIsBetter};
use serin_statistics::{Margin, Measure};

use super::draws::{Shape, Signal};
use super::lab::Lab;
use super::report::{Row, Unit, quantile, share};
use super::scenarios::{ALPHA_ROLLBACK, Control, OVERALL, Scenario, Until, against_control, confidences, latencies};

const H: u32 = 360;
const CANARY: f64 = 0.1;

/// What is compared, the two parts of its margin, and the signals of stable, a canary beyond one part, and a canary beyond both.
struct Case {
    name: &'static str,
    measure: Measure,
    direction: Direction,
    absolute: f64,
    relative: f64,
    signals: [Signal; 3],
}

fn cases() -> Vec<Case> {
    let (score, quantile) = (Measure::Mean { min: 0.0, max: 1.0 }, Measure::Quantile { level: 0.9 });
    let case = |name, measure, direction, (absolute, relative), signals| Case {
        name,
        measure,
        direction,
        absolute,
        relative,
        signals,
    };
    vec![
        case(
            "errors 1 % -> 1.5 %, margin 0.1 points and 100 %",
            Measure::Rate,
            LowerIsBetter,
            (0.001, 1.0),
            [0.01, 0.015, 0.05].map(Signal::Rate),
        ),
        case(
            "errors 10 % -> 12 %, margin 4 points and 1 %",
            Measure::Rate,
            LowerIsBetter,
            (0.04, 0.01),
            [0.1, 0.12, 0.25].map(Signal::Rate),
        ),
        case(
            "clicks 20 % -> 17 %, margin 1 point and 30 %",
            Measure::Rate,
            HigherIsBetter,
            (0.01, 0.3),
            [0.2, 0.17, 0.08].map(Signal::Rate),
        ),
        case(
            "confidence 0.8 -> 0.76, margin 0.01 and 10 %",
            score,
            HigherIsBetter,
            (0.01, 0.1),
            [0.8, 0.76, 0.6].map(confidences),
        ),
        case(
            "score 0.2 -> 0.22, margin 0.04 and 2 %",
            score,
            LowerIsBetter,
            (0.04, 0.02),
            [0.2, 0.22, 0.3].map(|mean| Signal::Lin(Shape::beta(mean, 100.0))),
        ),
        case("p90 +20 %, margin 5 ms and 40 %", quantile, LowerIsBetter, (5.0, 0.4), [1.0, 1.2, 2.0].map(latencies)),
    ]
}

/// False rollbacks and passes of canaries beyond only one part, and detection times of those beyond both.
pub(super) fn rows(lab: Lab) -> Vec<Row> {
    let mut rows = Vec::new();
    for Case { name, measure, direction, absolute, relative, signals: [healthy, within, beyond] } in cases() {
        let spec =
            against_control(measure, direction, Margin { absolute: Some(absolute), relative: Some(relative) }, H);
        let scenario = |canary: &Signal| Scenario {
            name,
            spec,
            weight: OVERALL,
            part: 1.0,
            healthy: healthy.clone(),
            canary: canary.clone(),
            onset: 0,
        };
        let (within, beyond) = (scenario(&within), scenario(&beyond));
        // The whole budget, which gives the highest possible rate of false rollbacks.
        let within = Scenario { weight: 1.0, ..within };
        let play = |scenario: &Scenario, words: &str, runs: u64, until: Until| {
            lab.each(words, runs, |run| scenario.run(run, CANARY, Control::TenTimes, until))
        };
        let words = format!("false rollbacks, beyond one part of the margin: {name}");
        let runs = play(&within, &words, lab.runs(500, 10), Until::Failed);
        let failed = share(runs.iter().map(|run| run.failed.is_some()));
        rows.push(Row::new("both", words, Unit::Share, failed).at_most(ALPHA_ROLLBACK));
        let passed = share(runs.iter().map(|run| run.passed.is_some()));
        let words = format!("passes within the hour, beyond one part of the margin: {name}");
        rows.push(Row::new("both", words, Unit::Share, passed).at_least(0.8));
        let words = format!("beyond both parts of the margin: {name}, median");
        let runs = play(&beyond, &words, lab.runs(100, 10), Until::Failed);
        let times: Vec<f64> =
            runs.iter().map(|run| run.failed.map_or(f64::INFINITY, |window| 10.0 * window as f64)).collect();
        rows.push(Row::new("both", words, Unit::Seconds, quantile(&times, 0.5)).at_most(600.0));
    }
    rows
}
