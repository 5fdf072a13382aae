//! The built-in gates: how much a third gate slows down the other two, and what it detects. Both versions refuse callers' mistakes.

use serin_statistics::{Hypothesis, Scope, ln_weighted_average, rejects, rollback_weights};

use super::draws::{Dice, Signal};
use super::lab::Lab;
use super::report::{Row, Unit, quantile, share};
use super::scenarios::{ALPHA_PROMOTION, ALPHA_ROLLBACK, Control, Traffic, errors, observe};

/// Windows in an hour.
const WINDOWS: u64 = 360;
/// Share of the canary.
const CANARY: f64 = 0.1;
/// For a canary that refuses half of its calls: largest median time until rollback, in seconds.
const AT_ONCE: f64 = 10.0;
/// Largest delay, in windows, that a third gate may add to the detection by the others.
const MOST_DELAY: f64 = 3.0;

/// A built-in gate: its margin, and the share of calls with its outcome.
struct Gate {
    margin: f64,
    control: f64,
    canary: f64,
}

const FAILED: Gate = Gate { margin: 0.01, control: 0.01, canary: 0.01 };
const REFUSED: Gate = Gate { margin: 0.01, control: 0.02, canary: 0.02 };
const UNUSABLE: Gate = Gate { margin: 0.005, control: 0.001, canary: 0.001 };

/// Seconds until the rollback and until all gates pass; infinite if not within an hour.
fn rollout(name: &str, run: u64, gates: &[Gate]) -> (f64, f64) {
    let dice = &mut Dice::new(name, run);
    let traffic = Traffic::fast(CANARY, Control::TenTimes);
    let weights = rollback_weights(&vec![(Scope::Overall, 1.0); gates.len()]);
    let new = |gate: &Gate| Hypothesis::new(errors(gate.margin, WINDOWS as u32)).expect("the gates are sound");
    let mut hypotheses: Vec<Hypothesis> = gates.iter().map(new).collect();
    for _ in 0..traffic.windows {
        for (gate, hypothesis) in gates.iter().zip(&mut hypotheses) {
            let n = traffic.warmup(dice);
            hypothesis.observe_warmup(&Signal::Rate(gate.control).draw(dice, n)).expect("the kind is right");
        }
    }
    let (mut failed, mut passed) = (f64::INFINITY, f64::INFINITY);
    for window in 1..=WINDOWS {
        let (n_c, n_s) = traffic.arms(dice, window);
        for (gate, hypothesis) in gates.iter().zip(&mut hypotheses) {
            let canary = Signal::Rate(gate.canary).draw(dice, n_c);
            observe(hypothesis, window, &canary, &Signal::Rate(gate.control).draw(dice, n_s));
        }
        let evidence: Vec<(f64, f64)> = weights.iter().zip(&hypotheses).map(|(&w, h)| (w, h.ln_e_fail())).collect();
        if rejects(ln_weighted_average(&evidence), ALPHA_ROLLBACK) {
            failed = 10.0 * window as f64;
            break;
        }
        if passed.is_infinite() && hypotheses.iter().all(|hypothesis| rejects(hypothesis.ln_e_pass(), ALPHA_PROMOTION))
        {
            passed = 10.0 * window as f64;
        }
    }
    (failed, passed)
}

/// False rollbacks by the three gates, times until a rollback with two and with three gates, and the time until all pass.
pub(super) fn rows(lab: Lab) -> Vec<Row> {
    let mut rows = Vec::new();
    let play =
        |name: &str, full: u64, gates: &[Gate]| lab.each(name, lab.runs(full, 50), |run| rollout(name, run, gates));
    for mistakes in [0.0, 0.02, 0.3] {
        let name = format!("false rollbacks by the three built-in gates, callers' mistakes {:.0} %", 100.0 * mistakes);
        let refused = Gate { control: mistakes, canary: mistakes, ..REFUSED };
        let runs = play(&name, 2000, &[FAILED, refused, UNUSABLE]);
        rows.push(Row::new("out", &name, Unit::Share, share(runs.iter().map(|run| run.0.is_finite()))).at_most(0.01));
        let passed: Vec<f64> = runs.iter().map(|run| run.1).collect();
        let name = format!("until all three pass, callers' mistakes {:.0} %", 100.0 * mistakes);
        rows.push(Row::new("out", name, Unit::Seconds, quantile(&passed, 0.5)));
    }
    let regressions = [
        ("failed 1 % -> 3 %", Gate { canary: 0.03, ..FAILED }, REFUSED),
        ("failed 1 % -> 5 %", Gate { canary: 0.05, ..FAILED }, REFUSED),
        ("refused 2 % -> 4 %", FAILED, Gate { canary: 0.04, ..REFUSED }),
        ("refused 2 % -> 7 %", FAILED, Gate { canary: 0.07, ..REFUSED }),
        ("refused 2 % -> 50 %", FAILED, Gate { canary: 0.5, ..REFUSED }),
    ];
    for (regression, failed, refused) in regressions {
        let median = |name: &str, gates: &[Gate]| {
            let times: Vec<f64> = play(name, 500, gates).iter().map(|run| run.0).collect();
            (quantile(&times, 0.5), quantile(&times, 0.9).0)
        };
        let name = format!("{regression}, until the rollback by three gates");
        let before = (failed.canary > failed.control).then(|| {
            let failed = Gate { ..failed };
            median(&format!("{regression}, two gates"), &[failed, UNUSABLE]).0.0
        });
        let (three, late) = median(&name, &[failed, refused, UNUSABLE]);
        let row = Row::new("out", name, Unit::Seconds, three).note(format!("90 % {late:.0} s"));
        rows.push(match before {
            Some(two) => {
                row.at_most(two + 10.0 * MOST_DELAY).note(format!("90 % {late:.0} s; by two gates {two:.0} s"))
            }
            None if regression.ends_with("50 %") => row.at_most(AT_ONCE),
            None => row,
        });
    }
    rows
}
