//! G1: a whole rollout of a healthy canary with 8 metrics overall and in 10 segments, 60 looks, margins of zero.
//!
//! Procedures that are known to be wrong judge the same rollouts, to show that the harness can detect errors.

use serin_sketches::{Rate, Summary};
use serin_statistics::bets::fail_rate_bets;
use serin_statistics::{
    Hypothesis, HypothesisSpec, Line, Scope, Stratum, ln_weighted_average, rejects, rollback_weights, two_rates,
};

use super::draws::{Dice, Signal};
use super::lab::Lab;
use super::naive;
use super::report::{Row, Unit, share};
use super::scenarios::{
    ALPHA_ROLLBACK, Control, Traffic, clicks, confidence, confidences, distribution, errors, latencies, latency,
};

/// Number of looks, one per minute.
const LOOKS: u32 = 60;
/// Warm-up windows.
const WARMUP: u32 = 3;
const SEGMENTS: usize = 10;
/// Number of rollouts that the wrong procedures judge too: enough for figures near one.
const WRONG_RUNS: u64 = 200;
/// The bound of G1.
const MOST: f64 = 0.005;

/// One metric: its hypothesis and the answers of both arms in each window, warm-up included.
struct Metric {
    spec: HypothesisSpec,
    windows: Vec<Signal>,
}

/// A setting: the canary's share per window, and whether the base rate drifts in both arms.
pub(super) struct Setting {
    name: &'static str,
    /// The canary's share in the four quarters of the rollout.
    ramp: [f64; 4],
    drifts: bool,
}

const SETTINGS: [Setting; 3] = [
    Setting { name: "canary 1 %", ramp: [0.01; 4], drifts: false },
    Setting { name: "canary 5 %", ramp: [0.05; 4], drifts: false },
    Setting { name: "ramp 1-5-10-25 %, base rates drift sixfold", ramp: [0.01, 0.05, 0.1, 0.25], drifts: true },
];

fn metrics(drifts: bool) -> Vec<Metric> {
    // 0 at the start, 1 at the end.
    let progress = |window: u32| {
        if drifts { f64::from(window.saturating_sub(WARMUP)) / f64::from(LOOKS - 1) } else { 0.0 }
    };
    let over = |signal: &dyn Fn(f64) -> Signal| (0..WARMUP + LOOKS).map(|window| signal(progress(window))).collect();
    let rate = |base: f64| over(&|t| Signal::Rate(base * (1.0 + 5.0 * t)));
    let slower = over(&|t| latencies(1.0 + 0.5 * t));
    let metric = |spec, windows| Metric { spec, windows };
    vec![
        metric(errors(0.0, LOOKS), rate(0.005)),
        metric(errors(0.0, LOOKS), rate(0.002)),
        metric(errors(0.0, LOOKS), rate(0.02)),
        metric(clicks(0.0, LOOKS), rate(0.05)),
        metric(latency(0.5, 0.0, LOOKS), slower.clone()),
        metric(latency(0.99, 0.0, LOOKS), slower),
        metric(confidence(0.0, LOOKS), over(&|t| confidences(0.8 - 0.1 * t))),
        metric(distribution(0.0, LOOKS), over(&|t| latencies(1.0 - 0.3 * t))),
    ]
}

/// Which procedures rolled the healthy canary back.
#[derive(Clone, Copy, Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "four independent judges of one rollout")]
struct Rollback {
    /// The product's rule.
    ours: bool,
    /// Any of the tests for one look, at 5 %.
    naive: bool,
    /// The same tests, at 5 % divided by the number of hypotheses.
    bonferroni: bool,
    /// The product's rule on counts pooled over windows, which is deliberately broken.
    pooled: bool,
}

/// The counts of both arms since the start.
struct Pooled {
    canary: Summary,
    control: Summary,
}

impl Pooled {
    fn merge(&mut self, canary: &Summary, control: &Summary) {
        self.canary.merge(canary).expect("one kind");
        self.control.merge(control).expect("one kind");
    }

    fn p(&self, spec: &HypothesisSpec) -> f64 {
        use serin_statistics::Measure;
        let cells = || naive::cells(&self.canary, &self.control);
        match (&self.canary, &self.control, &spec.measure) {
            (Summary::Rate(canary), Summary::Rate(control), _) => naive::two_sided(naive::two_rates(*canary, *control)),
            (_, _, Measure::Mean { .. }) => naive::two_sided(naive::welch(&cells())),
            (_, _, Measure::Quantile { .. }) => naive::two_sided(naive::mann_whitney(&cells())),
            _ => naive::kolmogorov_smirnov(&cells()).1,
        }
    }

    /// The e-value of the pooled counts treated as one window, with bets from the warm-up.
    fn ln_e(&self, b_hat: f64, line: Line) -> f64 {
        let (Summary::Rate(canary), Summary::Rate(control)) = (&self.canary, &self.control) else { return 0.0 };
        let Some(bets) = fail_rate_bets(b_hat, line) else { return 0.0 };
        let each = bets.map(|bet| (1.0 / bets.len() as f64, two_rates::ln_e(*canary, *control, bet, line)));
        ln_weighted_average(&each)
    }
}

fn rollout(setting: &Setting, metrics: &[Metric], run: u64) -> Rollback {
    let dice = &mut Dice::new(setting.name, run);
    let mut scopes = vec![(Scope::Overall, 1.0); metrics.len()];
    scopes.extend(vec![(Scope::Segment, 1.0); metrics.len() * SEGMENTS]);
    let weights = rollback_weights(&scopes);
    // A metric's overall hypothesis is `m`, its segments are `len + SEGMENTS m ..`.
    let specs = || {
        let segments = metrics.iter().flat_map(|metric| std::iter::repeat_n(&metric.spec, SEGMENTS));
        metrics.iter().map(|metric| &metric.spec).chain(segments)
    };
    let mut hypotheses: Vec<Hypothesis> =
        specs().map(|spec| Hypothesis::new(*spec).expect("the family is sound")).collect();
    let mut pooled: Vec<Option<Pooled>> = specs().map(|_| None).collect();
    let mut warm = vec![Rate::default(); metrics.len()];
    let mut rollback = Rollback::default();
    for window in 0..WARMUP + LOOKS {
        let canary = setting.ramp[(window.saturating_sub(WARMUP) / 15) as usize];
        let traffic = Traffic { windows: 1, part: 1.0 / SEGMENTS as f64, canary, control: Control::TenTimes };
        let sizes: Vec<(u64, u64)> = (0..SEGMENTS).map(|_| traffic.arms(dice, 1)).collect();
        for (m, metric) in metrics.iter().enumerate() {
            let signal = &metric.windows[window as usize];
            let mut overall: Option<Pooled> = None;
            for (segment, &(n_c, n_s)) in sizes.iter().enumerate() {
                let arms = Pooled { canary: signal.draw(dice, n_c), control: signal.draw(dice, n_s) };
                take(&mut hypotheses[metrics.len() + SEGMENTS * m + segment], window, &arms);
                if window >= WARMUP {
                    add(&mut pooled[metrics.len() + SEGMENTS * m + segment], &arms);
                }
                add(&mut overall, &arms);
            }
            let overall = overall.expect("there are segments");
            take(&mut hypotheses[m], window, &overall);
            match overall.control {
                _ if window >= WARMUP => add(&mut pooled[m], &overall),
                Summary::Rate(rate) => warm[m].merge(&rate).expect("counts are small"),
                _ => {}
            }
        }
        let evidence: Vec<(f64, f64)> = weights.iter().zip(&hypotheses).map(|(&w, h)| (w, h.ln_e_fail())).collect();
        rollback.ours |= rejects(ln_weighted_average(&evidence), ALPHA_ROLLBACK);
        if window >= WARMUP && run < WRONG_RUNS {
            rollback.look(metrics, &pooled, &warm, &weights);
        }
    }
    rollback
}

impl Rollback {
    /// One look of the wrong procedures.
    fn look(&mut self, metrics: &[Metric], pooled: &[Option<Pooled>], warm: &[Rate], weights: &[f64]) {
        let metric = |i: usize| if i < metrics.len() { i } else { (i - metrics.len()) / SEGMENTS };
        let mut evidence = Vec::new();
        for (i, arms) in pooled.iter().enumerate().filter_map(|(i, arms)| Some((i, arms.as_ref()?))) {
            let spec = &metrics[metric(i)].spec;
            if !self.bonferroni {
                let p = arms.p(spec);
                self.naive |= p <= 0.05;
                self.bonferroni |= p <= 0.05 / pooled.len() as f64;
            }
            let b_hat = (warm[metric(i)].k() as f64 + 0.5) / (warm[metric(i)].n() as f64 + 1.0);
            let line = Line { v: 1.0, c: 0.0, sign: spec.direction.sign() };
            evidence.push((weights[i], arms.ln_e(b_hat, line)));
        }
        self.pooled |= rejects(ln_weighted_average(&evidence), ALPHA_ROLLBACK);
    }
}

fn take(hypothesis: &mut Hypothesis, window: u32, arms: &Pooled) {
    let taken = if window < WARMUP {
        hypothesis.observe_warmup(&arms.control)
    } else {
        hypothesis.observe(i64::from(window), &[Stratum { canary: &arms.canary, control: &arms.control }])
    };
    taken.expect("the window is in order");
}

fn add(sum: &mut Option<Pooled>, arms: &Pooled) {
    match sum {
        Some(sum) => sum.merge(&arms.canary, &arms.control),
        None => *sum = Some(Pooled { canary: arms.canary.clone(), control: arms.control.clone() }),
    }
}

/// G1 for each setting, together with the wrong procedures on the same rollouts.
pub(super) fn gates(lab: Lab) -> Vec<Row> {
    let mut rows = Vec::new();
    for setting in SETTINGS {
        let metrics = metrics(setting.drifts);
        let name = format!("false rollbacks, 88 hypotheses x 60 looks, {}", setting.name);
        let runs = lab.each(&name, lab.runs(2000, 20), |run| rollout(&setting, &metrics, run));
        let ours = share(runs.iter().map(|run| run.ours));
        rows.push(Row::new("G1", name, Unit::Share, ours).at_most(MOST));
        let row = |gate: &str, what: String, hit: fn(&Rollback) -> bool| {
            Row::new(gate, what, Unit::Share, share(runs.iter().take(WRONG_RUNS as usize).map(hit)))
        };
        let naive = format!("naive tests at 5 % peeking at the same 88, {}", setting.name);
        rows.push(row("G4", naive, |run| run.naive).at_least(0.25));
        rows.push(row("8.1", format!("the same, Bonferroni over the 88, {}", setting.name), |run| run.bonferroni));
        let pooled = format!("self-check: our rule on pooled counts, {}", setting.name);
        let pooled = row("check", pooled, |run| run.pooled);
        // If the ramp coincides with the drift, pooling must break the bound. Otherwise the harness could not detect a broken process.
        rows.push(if setting.drifts { pooled.at_least(0.5).note("must miss the bound of G1") } else { pooled });
    }
    rows
}
