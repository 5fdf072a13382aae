//! Post-stratification (6.4a): two segments with different base rates, and arms with different mixes of them.

use serin_sketches::Summary;
use serin_statistics::{Hypothesis, HypothesisSpec, Stratum, StratumPasts, rejects};

use super::draws::{Dice, Signal};
use super::lab::Lab;
use super::report::{Row, Unit, quantile, share};
use super::scenarios::{ALPHA_ROLLBACK, Control, Traffic, confidence, confidences, errors};

const CANARY: f64 = 0.1;
const WINDOWS: u64 = 360;

struct Case {
    name: &'static str,
    spec: HypothesisSpec,
    /// Control's answers in both segments.
    control: [Signal; 2],
    /// The canary's answers when it is worse.
    worse: [Signal; 2],
}

fn cases() -> Vec<Case> {
    let horizon = u32::try_from(WINDOWS).expect("windows are few");
    let rate = Signal::Rate;
    vec![
        Case {
            name: "errors 0.5 % and 3 %, margin +0.2 pp",
            spec: errors(0.002, horizon),
            control: [rate(0.005), rate(0.03)],
            worse: [rate(0.01), rate(0.06)],
        },
        Case {
            name: "confidence 0.7 and 0.9, margin 1 %",
            spec: confidence(0.01, horizon),
            control: [confidences(0.7), confidences(0.9)],
            worse: [confidences(0.679), confidences(0.873)],
        },
    ]
}

/// Seconds until FAIL of one hypothesis, plain and stratified; infinite if not within the hour.
struct Run {
    plain: f64,
    stratified: f64,
}

fn sum(summaries: &[Summary; 2]) -> Summary {
    let mut sum = summaries[0].clone();
    sum.merge(&summaries[1]).expect("they are of one kind");
    sum
}

/// Simulates one hour. `mix` is the share of the second segment in the canary and in control.
fn run(case: &Case, canary: &[Signal; 2], mix: [f64; 2], seed: u64) -> Run {
    let dice = &mut Dice::new(&format!("strata: {} at {mix:?}", case.name), seed);
    let traffic = Traffic::fast(CANARY, Control::TenTimes);
    let draw = |dice: &mut Dice, signals: &[Signal; 2], n: u64, mix: f64| {
        let second = dice.binomial(n, mix);
        [signals[0].draw(dice, n - second), signals[1].draw(dice, second)]
    };
    let mut plain = Hypothesis::new(case.spec).expect("the hypothesis is sound");
    let (mut stratified, mut pasts) = (plain.clone(), StratumPasts::default());
    for _ in 0..6 {
        let n = traffic.warmup(dice);
        let summaries = draw(dice, &case.control, n, mix[1]);
        for hypothesis in [&mut plain, &mut stratified] {
            hypothesis.observe_warmup(&sum(&summaries)).expect("the kind is right");
        }
        for (place, summary) in summaries.iter().enumerate() {
            stratified.warm_up_stratum(place, summary, &mut pasts).expect("the kind is right");
        }
    }
    let mut run = Run { plain: f64::INFINITY, stratified: f64::INFINITY };
    for window in 1..=WINDOWS {
        let (n_c, n_s) = traffic.arms(dice, window);
        let canary = draw(dice, canary, n_c, mix[0]);
        let control = draw(dice, &case.control, n_s, mix[1]);
        let end = i64::try_from(window).expect("windows are few");
        let (all_canary, all_control) = (sum(&canary), sum(&control));
        plain.observe(end, &[Stratum { canary: &all_canary, control: &all_control }]).expect("in order");
        let strata: Vec<Stratum<'_>> =
            canary.iter().zip(&control).map(|(canary, control)| Stratum { canary, control }).collect();
        stratified.observe_by(end, &strata, &[0, 1], &mut pasts).expect("in order");
        let seconds = 10.0 * window as f64;
        for (found, hypothesis) in [(&mut run.plain, &plain), (&mut run.stratified, &stratified)] {
            if rejects(hypothesis.ln_e_fail(), ALPHA_ROLLBACK) {
                *found = found.min(seconds);
            }
        }
        if run.plain.is_finite() && run.stratified.is_finite() {
            break;
        }
    }
    run
}

/// The rows of this part; see the module documentation.
pub(super) fn rows(lab: Lab) -> Vec<Row> {
    let mut rows = Vec::new();
    for case in cases() {
        // The segment with more errors, or less confidence, is more frequent in the canary.
        let mix = if case.name.starts_with("errors") { [0.6, 0.4] } else { [0.4, 0.6] };
        let name = format!("no difference within segments, mix 60:40, {}", case.name);
        let runs = lab.each(&name, lab.runs(2000, 200), |seed| run(&case, &case.control, mix, seed));
        let found = |what: fn(&Run) -> f64| share(runs.iter().map(|run| what(run).is_finite()));
        let plain = Row::new("strata", format!("{name}: plain"), Unit::Share, found(|run| run.plain));
        rows.push(plain.at_least(0.5).note("the mix is mistaken for the version"));
        let stratified = Row::new("strata", format!("{name}: stratified"), Unit::Share, found(|run| run.stratified));
        rows.push(stratified.at_most(ALPHA_ROLLBACK));
        let name = format!("worse in both segments, equal mixes, {}", case.name);
        let runs = lab.each(&name, lab.runs(1000, 200), |seed| run(&case, &case.worse, [0.5, 0.5], seed));
        let seconds = |what: fn(&Run) -> f64| quantile(&runs.iter().map(what).collect::<Vec<_>>(), 0.5);
        let plain = seconds(|run| run.plain).0;
        let row =
            Row::new("strata", format!("{name}: stratified, median"), Unit::Seconds, seconds(|run| run.stratified));
        rows.push(row.at_most(1.2 * plain).note(format!("plain {plain:.0} s")));
    }
    rows
}
