//! Table 8.1: what tests for one look do to a healthy canary when they are evaluated every minute (G4). Table 8.3: what
//! pooling does to them when the weight and the base rate change. Control is all of stable, margins are zero.

use serin_sketches::{Rate, Summary};
use serin_statistics::{Hypothesis, Stratum, rejects};

use super::draws::Dice;
use super::lab::Lab;
use super::naive;
use super::report::{Row, Unit, share};
use super::scenarios::{
    Control, Traffic, clicks, confidence, confidences, distribution, errors, latencies, latency, observe,
};

const LOOKS: u64 = 60;
/// Two-sided 5 %.
const Z_TWO_SIDED: f64 = 1.959_963_984_540_054;
/// One-sided 5 %.
const Z_ONE_SIDED: f64 = 1.644_853_626_951_472_7;

/// The procedures of a run: their names and the study's false alarms at 1, 5 and 10 %.
const PROCEDURES: [(&str, [f64; 3]); 12] = [
    ("error rate, cumulative z, two-sided", [0.32, 0.33, 0.33]),
    ("error rate, cumulative z, one-sided", [0.31, 0.29, 0.29]),
    ("error rate, z per window", [0.99, 0.98, 0.97]),
    ("confidence, cumulative Welch", [0.33, 0.33, 0.35]),
    ("confidence, cumulative Mann-Whitney", [0.33, 0.33, 0.36]),
    ("latency, cumulative Mann-Whitney", [0.35, 0.32, 0.33]),
    ("latency, cumulative KS", [0.28, 0.28, 0.29]),
    ("latency, KS per window", [0.88, 0.88, 0.89]),
    ("trigger KS p < 0.05 and D > 0.1, per window", [0.88, 0.006, 0.0]),
    ("trigger error > 2x stable and >= 2 %, per window", [1.0, 0.71, 0.11]),
    ("trigger p99 > 1.2x stable, per window", [0.95, 0.43, 0.07]),
    ("error rate, z, single look at the end", [0.054, 0.052, 0.051]),
];

/// The product's processes: their names and the study's false alarms at 5 %.
const PROCESSES: [(&str, [f64; 3]); 5] = [
    ("error rate, e-process (b2)", [0.011, 0.011, 0.010]),
    ("click rate, e-process (b2)", [0.011, 0.011, 0.010]),
    ("confidence, e-process (m2)", [0.015, 0.014, 0.015]),
    ("p99, e-process (q2)", [0.009, 0.011, 0.013]),
    ("distribution, e-process (d2)", [0.012, 0.012, 0.008]),
];

/// Both arms of one metric.
type Arms = (Summary, Summary);

#[derive(Default)]
struct Alarms {
    procedures: [bool; PROCEDURES.len()],
    /// The largest `ln E` of each process.
    processes: [f64; PROCESSES.len()],
}

fn rollout(canary: f64, run: u64) -> Alarms {
    let dice = &mut Dice::new(&format!("peeking at {canary}"), run);
    let traffic = Traffic { windows: 1, part: 1.0, canary, control: Control::Rest };
    let signals =
        [super::draws::Signal::Rate(0.01), super::draws::Signal::Rate(0.05), confidences(0.8), latencies(1.0)];
    let horizon = LOOKS as u32;
    let specs = [
        (0, errors(0.0, horizon)),
        (1, clicks(0.0, horizon)),
        (2, confidence(0.0, horizon)),
        (3, latency(0.99, 0.0, horizon)),
        (3, distribution(0.0, horizon)),
    ];
    let mut hypotheses = specs.map(|(signal, spec)| (signal, Hypothesis::new(spec).expect("the family is sound")));
    for (signal, hypothesis) in &mut hypotheses {
        let n = traffic.warmup(dice);
        hypothesis.observe_warmup(&signals[*signal].draw(dice, n)).expect("the kind is right");
    }
    let mut alarms = Alarms::default();
    let mut sums: Option<Vec<Arms>> = None;
    for look in 1..=LOOKS {
        let (n_c, n_s) = traffic.arms(dice, look);
        let window: Vec<Arms> = signals.iter().map(|signal| (signal.draw(dice, n_c), signal.draw(dice, n_s))).collect();
        for (signal, hypothesis) in &mut hypotheses {
            observe(hypothesis, look, &window[*signal].0, &window[*signal].1);
        }
        match &mut sums {
            None => sums = Some(window.clone()),
            Some(sums) => sums.iter_mut().zip(&window).for_each(|(sum, arms)| {
                sum.0.merge(&arms.0).expect("one kind");
                sum.1.merge(&arms.1).expect("one kind");
            }),
        }
        alarms.look(sums.as_deref().unwrap_or_default(), &window, look == LOOKS);
    }
    alarms.processes = hypotheses.each_ref().map(|(_, hypothesis)| hypothesis.max_ln_e_fail());
    alarms
}

impl Alarms {
    /// One look at the counts since the start and at those of the window.
    fn look(&mut self, sums: &[Arms], window: &[Arms], last: bool) {
        let z = |arms: &Arms| rates(arms).map_or(0.0, |(canary, control)| naive::two_rates(canary, control));
        let cells = |arms: &Arms| naive::cells(&arms.0, &arms.1);
        let (confidence, latency, now) = (cells(&sums[2]), cells(&sums[3]), cells(&window[3]));
        let (d, p) = naive::kolmogorov_smirnov(&now);
        let doubled = rates(&window[0]).is_some_and(|(canary, control)| {
            let (p_c, p_s) = (canary.value().unwrap_or(0.0), control.value().unwrap_or(0.0));
            p_c > 2.0 * p_s && p_c >= 0.02
        });
        let now = [
            z(&sums[0]).abs() > Z_TWO_SIDED,
            z(&sums[0]) > Z_ONE_SIDED,
            z(&window[0]).abs() > Z_TWO_SIDED,
            naive::welch(&confidence).abs() > Z_TWO_SIDED,
            naive::mann_whitney(&confidence).abs() > Z_TWO_SIDED,
            naive::mann_whitney(&latency).abs() > Z_TWO_SIDED,
            naive::kolmogorov_smirnov(&latency).1 < 0.05,
            p < 0.05,
            p < 0.05 && d > 0.1,
            doubled,
            p99(&window[3].0).zip(p99(&window[3].1)).is_some_and(|(canary, control)| canary > 1.2 * control),
            last && z(&sums[0]).abs() > Z_TWO_SIDED,
        ];
        self.procedures.iter_mut().zip(now).for_each(|(alarm, now)| *alarm |= now);
    }
}

fn rates(arms: &Arms) -> Option<(Rate, Rate)> {
    match arms {
        (Summary::Rate(canary), Summary::Rate(control)) => Some((*canary, *control)),
        _ => None,
    }
}

fn p99(summary: &Summary) -> Option<f64> {
    match summary {
        Summary::Log(hist) => hist.quantile(0.99),
        _ => None,
    }
}

/// Table 8.1.
pub(super) fn gates(lab: Lab) -> Vec<Row> {
    let mut rows = Vec::new();
    for (i, canary) in [0.01, 0.05, 0.1].into_iter().enumerate() {
        if lab.short && i < 2 {
            continue;
        }
        let at = format!("canary {} %", 100.0 * canary);
        let runs = lab.each(&format!("peeking, {at}"), lab.runs(1000, 40), |run| rollout(canary, run));
        let study = |figure: f64| format!("study {:.1} %", 100.0 * figure);
        for (j, (name, figures)) in PROCEDURES.iter().enumerate() {
            let figure = share(runs.iter().map(|run| run.procedures[j]));
            let row = Row::new("8.1", format!("{name}, {at}"), Unit::Share, figure).note(study(figures[i]));
            // The harness must reproduce the inflation of the simplest procedure.
            rows.push(if j == 0 { Row { gate: "G4".to_owned(), ..row.at_least(0.25) } } else { row });
        }
        for (j, (name, figures)) in PROCESSES.iter().enumerate() {
            for alpha in [0.05, 0.01] {
                let figure = share(runs.iter().map(|run| rejects(run.processes[j], alpha)));
                let name = format!("{name} at alpha {} %, {at}", 100.0 * alpha);
                let row = Row::new("8.1", name, Unit::Share, figure).at_most(alpha);
                rows.push(if alpha > 0.02 { row.note(study(figures[i])) } else { row });
            }
        }
    }
    rows
}

/// Table 8.3: weights 1-5-10-25 %, base rate 0.5 -> 3 % in both arms.
pub(super) fn drift(lab: Lab) -> Vec<Row> {
    let runs = lab.each("ramp with drift", lab.runs(5000, 500), ramp);
    let row = |name: &str, hit: fn(&Ramp) -> bool| {
        Row::new("8.3", format!("ramp with drift: {name}"), Unit::Share, share(runs.iter().map(hit)))
    };
    vec![
        row("pooled z, one look at the end", |run| run.pooled).at_least(0.99).note("study 100 %; pooling is wrong"),
        row("stratified z, one look at the end", |run| run.stratified).note("study 4.7 %"),
        row("stratified z, peeking", |run| run.peeking).at_least(0.25).note("study 34 %; peeking is wrong"),
        row("e-process at alpha 5 %", |run| rejects(run.ln_e, 0.05)).at_most(0.05).note("study 1.6 %"),
        row("e-process at alpha 1 %", |run| rejects(run.ln_e, 0.01)).at_most(0.01).note("study 0.2 %"),
    ]
}

struct Ramp {
    pooled: bool,
    stratified: bool,
    peeking: bool,
    ln_e: f64,
}

fn ramp(run: u64) -> Ramp {
    let dice = &mut Dice::new("ramp with drift", run);
    let mut hypothesis = Hypothesis::new(errors(0.0, LOOKS as u32)).expect("the hypothesis is sound");
    hypothesis.observe_warmup(&Summary::Rate(dice.rate(10_000, 0.005))).expect("the kind is right");
    let mut pooled = (Rate::default(), Rate::default());
    let (mut weighted, mut information, mut peeking) = (0.0, 0.0, false);
    for window in 0..LOOKS {
        let canary = [0.01, 0.05, 0.1, 0.25][window as usize / 15];
        let traffic = Traffic { windows: 1, part: 1.0, canary, control: Control::Rest };
        let (n_c, n_s) = traffic.arms(dice, window + 1);
        let p = 0.005 + 0.025 * window as f64 / (LOOKS - 1) as f64;
        let (canary, control) = (dice.rate(n_c, p), dice.rate(n_s, p));
        pooled.0.merge(&canary).expect("counts are small");
        pooled.1.merge(&control).expect("counts are small");
        let both = (canary.k() + control.k()) as f64 / (n_c + n_s) as f64;
        let variance = both * (1.0 - both) * (1.0 / n_c as f64 + 1.0 / n_s as f64);
        let difference = canary.value().unwrap_or(0.0) - control.value().unwrap_or(0.0);
        weighted += difference / variance;
        information += 1.0 / variance;
        peeking |= weighted / f64::sqrt(information) > Z_ONE_SIDED;
        let (canary, control) = (Summary::Rate(canary), Summary::Rate(control));
        let stratum = Stratum { canary: &canary, control: &control };
        hypothesis.observe(window as i64, &[stratum]).expect("the window is in order");
    }
    Ramp {
        pooled: naive::two_rates(pooled.0, pooled.1) > Z_ONE_SIDED,
        stratified: weighted / f64::sqrt(information) > Z_ONE_SIDED,
        peeking,
        ln_e: hypothesis.max_ln_e_fail(),
    }
}
