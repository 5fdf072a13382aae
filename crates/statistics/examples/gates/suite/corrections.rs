//! G6: amounts with heavy tails. With the correction, false alarms stay below the nominal rate. Without it they must not, or
//! the scenario would prove nothing.

use serin_statistics::interval::{mixture_scale, normal_mixture_ln_e};
use serin_statistics::{Direction, Hypothesis, Margin, Measure, rejects};

use super::draws::{Dice, Signal};
use super::lab::Lab;
use super::report::{Row, Unit, share};
use super::scenarios::{Control, Traffic, against_control, observe};

/// Number of looks, one per minute.
pub(super) const LOOKS: u32 = 60;

/// The largest `ln E` of a run.
pub(super) struct Evidence {
    /// With the correction.
    pub(super) on: f64,
    /// Without it.
    pub(super) off: f64,
}

/// Two levels, each corrected and not corrected; each note is for (not corrected, corrected).
pub(super) fn rows(gate: &str, name: &str, notes: [(&str, &str); 2], runs: &[Evidence]) -> Vec<Row> {
    let mut rows = Vec::new();
    for (alpha, (off_note, on_note)) in [0.05, 0.01].into_iter().zip(notes) {
        let figure = |hit: &dyn Fn(&Evidence) -> bool| share(runs.iter().map(hit));
        let named = |what: &str| format!("{name}, {what}, alpha {} %", 100.0 * alpha);
        let on = Row::new(gate, named("corrected"), Unit::Share, figure(&|run| rejects(run.on, alpha)));
        let off = Row::new(gate, named("not corrected"), Unit::Share, figure(&|run| rejects(run.off, alpha)));
        rows.push(on.at_most(alpha).note(on_note));
        rows.push(off.at_least(alpha).note(off_note));
    }
    rows
}

/// Revenue per visitor: most pay nothing, a few pay much. The incorrect method is a normal mixture on the raw amounts.
pub(super) fn heavy_tails(lab: Lab) -> Vec<Row> {
    let mut all = Vec::new();
    for (canary, notes) in
        [(0.01, [("study 53 %", "study 2.7 %"), ("", "")]), (0.1, [("study 24 %", "study 2.3 %"), ("", "")])]
    {
        let name = format!("revenue, 5 % buyers x lognormal(1.5), {} visitors a window", 10_000.0 * canary);
        let runs = lab.each(&name, lab.runs(2000, 200), |run| revenue(canary, run));
        all.extend(rows("G6", &name, notes, &runs));
    }
    all
}

/// The cap: p99.9 of the amounts, zeros included. 2 % of the buyers pay more: `exp(1.5 * 2.0537)`.
const CAP: f64 = 21.78;

fn revenue(canary: f64, run: u64) -> Evidence {
    let dice = &mut Dice::new(&format!("revenue at {canary}"), run);
    let signal = Signal::Revenue { buyers: 0.05, sigma: 1.5, cap: CAP };
    let spec =
        against_control(Measure::CappedMean { cap: CAP }, Direction::HigherIsBetter, Margin::absolute(0.0), LOOKS);
    let mut hypothesis = Hypothesis::new(spec).expect("the hypothesis is sound");
    let traffic = Traffic { windows: 1, part: 1.0, canary, control: Control::TenTimes };
    let n = traffic.warmup(dice);
    hypothesis.observe_warmup(&signal.draw(dice, n)).expect("the kind is right");
    let mut raw = Raw::default();
    for window in 1..=u64::from(LOOKS) {
        let (n_c, n_s) = traffic.arms(dice, window);
        let (canary, control) = (signal.amounts(dice, n_c), signal.amounts(dice, n_s));
        raw.look(&canary, &control);
        let (canary, control) = (Signal::winsorized(dice, &canary, CAP), Signal::winsorized(dice, &control, CAP));
        observe(&mut hypothesis, window, &canary, &control);
    }
    Evidence { on: hypothesis.max_ln_e_fail(), off: raw.max_ln_e }
}

/// The one-sided normal mixture for "the canary's mean is lower", on sums of raw amounts since the start.
#[derive(Default)]
struct Raw {
    canary: [f64; 3],
    control: [f64; 3],
    max_ln_e: f64,
}

impl Raw {
    fn look(&mut self, canary: &[f64], control: &[f64]) {
        for (sums, amounts) in [(&mut self.canary, canary), (&mut self.control, control)] {
            sums[0] += amounts.len() as f64;
            sums[1] += amounts.iter().sum::<f64>();
            sums[2] += amounts.iter().map(|x| x * x).sum::<f64>();
        }
        let moments = |sums: &[f64; 3]| {
            let mean = sums[1] / sums[0];
            (mean, (sums[2] / sums[0] - mean * mean) / sums[0])
        };
        let ((mean_c, variance_c), (mean_s, variance_s)) = (moments(&self.canary), moments(&self.control));
        let information = 1.0 / (variance_c + variance_s);
        // Tightest in the middle of the rollout.
        let windows = self.canary[0] / canary.len() as f64;
        let r = mixture_scale(information / windows * 0.5 * f64::from(LOOKS), 0.05, true);
        let ln_e = normal_mixture_ln_e(information * (mean_s - mean_c), information, r, true);
        self.max_ln_e = if ln_e.is_finite() { self.max_ln_e.max(ln_e) } else { self.max_ln_e };
    }
}
