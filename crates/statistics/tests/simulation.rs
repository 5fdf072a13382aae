//! P7: seeded simulations of whole rollouts at 10 000 requests a minute. Counts are drawn, not events.
//!
//! The bounds are those of the specification's table 8.2 (medians within +20 %) and goals G1 to G5, in a short form.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng as _, SeedableRng as _};
use serin_sketches::{LinHist, LogHist, Rate, Summary};
use serin_statistics::{
    Against, Direction, Hypothesis, HypothesisSpec, Margin, Measure, Scope, Stratum, ln_weighted_average, rejects,
    rollback_weights,
};

const ALPHA: f64 = 0.01;
/// Budget of one of eight overall metrics beside segments.
const WEIGHT: f64 = 1.0 / 16.0;

struct Dice(ChaCha8Rng);

impl Dice {
    fn new(seed: u64) -> Self {
        Self(ChaCha8Rng::seed_from_u64(seed))
    }

    /// In (0, 1).
    fn unit(&mut self) -> f64 {
        ((self.0.next_u64() >> 11) as f64 + 0.5) / (1_u64 << 53) as f64
    }

    /// An exact binomial draw, skipping from event to event.
    fn rate(&mut self, n: u64, p: f64) -> Rate {
        let ln_miss = (-p).ln_1p();
        let (mut k, mut at) = (0, 0.0);
        loop {
            at += (self.unit().ln() / ln_miss).floor() + 1.0;
            if at > n as f64 {
                return Rate::new(n, k).unwrap();
            }
            k += 1;
        }
    }

    fn normal(&mut self) -> f64 {
        (-2.0 * self.unit().ln()).sqrt() * (std::f64::consts::TAU * self.unit()).cos()
    }

    fn latencies(&mut self, n: u64, factor: f64) -> Summary {
        let mut hist = LogHist::new();
        for _ in 0..n {
            hist.insert(factor * 50.0 * (0.5 * self.normal()).exp()).unwrap();
        }
        Summary::Log(hist)
    }

    /// Confidences in [0, 1] with the given mean and a standard deviation of about 0.12.
    fn scores(&mut self, n: u64, mean: f64) -> Summary {
        let mut hist = LinHist::new();
        for _ in 0..n {
            let value = (mean + 0.12 * self.normal()).clamp(2.0 * mean - 1.0, 1.0);
            hist.insert(value, self.0.next_u64()).unwrap();
        }
        Summary::Lin(hist)
    }
}

fn spec(measure: Measure, direction: Direction, margin: Margin, horizon: u32) -> HypothesisSpec {
    HypothesisSpec { measure, direction, against: Against::Control(margin), horizon, interval_alpha: 0.05 }
}

fn errors(margin: f64, horizon: u32) -> HypothesisSpec {
    spec(Measure::Rate, Direction::LowerIsBetter, Margin::absolute(margin), horizon)
}

/// Seconds to a rollback for each run (infinite if never within an hour), looking every 10 s.
fn seconds_to_fail(
    runs: u64,
    spec: HypothesisSpec,
    n: (u64, u64),
    mut draw: impl FnMut(&mut Dice, u64, u64, bool) -> Summary,
) -> Vec<f64> {
    let run = |seed| {
        let mut dice = Dice::new(seed);
        let mut hypothesis = Hypothesis::new(spec).unwrap();
        for _ in 0..6 {
            hypothesis.observe_warmup(&draw(&mut dice, 0, n.0 + n.1, true)).unwrap();
        }
        for window in 1..=360 {
            let canary = draw(&mut dice, window, n.0, false);
            let control = draw(&mut dice, window, n.1, true);
            let stratum = Stratum { canary: &canary, control: &control };
            hypothesis.observe(i64::try_from(window).unwrap(), &[stratum]).unwrap();
            if rejects(ln_weighted_average(&[(WEIGHT, hypothesis.ln_e_fail())]), ALPHA) {
                return 10.0 * window as f64;
            }
        }
        f64::INFINITY
    };
    let mut seconds: Vec<f64> = (0..runs).map(run).collect();
    seconds.sort_by(f64::total_cmp);
    seconds
}

/// Draws rates: the canary's from `onset` on, control's otherwise.
fn rate_change(p_c: f64, p_s: f64, onset: u64) -> impl FnMut(&mut Dice, u64, u64, bool) -> Summary {
    move |dice, window, n, control| {
        let p = if control || window <= onset { p_s } else { p_c };
        Summary::Rate(dice.rate(n, p))
    }
}

fn median(sorted: &[f64]) -> f64 {
    sorted[sorted.len() / 2]
}

#[test]
fn a_healthy_canary_is_not_rolled_back() {
    // G1 and G4: 8 error-like metrics, overall and in 10 segments, margin 0, 60 looks of a minute, 5 % against 50 %.
    let base = [0.002, 0.005, 0.005, 0.01, 0.01, 0.01, 0.02, 0.02];
    let mut scopes = vec![(Scope::Overall, 1.0); 8];
    scopes.extend([(Scope::Segment, 1.0); 80]);
    let weights = rollback_weights(&scopes);
    let (mut rolled_back, mut naive) = (0, 0);
    for seed in 0..500 {
        let mut dice = Dice::new(seed);
        let mut hypotheses: Vec<Hypothesis> =
            scopes.iter().map(|_| Hypothesis::new(errors(0.0, 60)).unwrap()).collect();
        let mut pooled = (Rate::default(), Rate::default());
        let (mut bad, mut naive_bad) = (false, false);
        for window in 0..63 {
            for (metric, &p) in base.iter().enumerate() {
                let mut overall = (Rate::default(), Rate::default());
                let observe = |hypothesis: &mut Hypothesis, arms: (Rate, Rate)| {
                    let (canary, control) = (Summary::Rate(arms.0), Summary::Rate(arms.1));
                    if window < 3 {
                        hypothesis.observe_warmup(&control).unwrap();
                    } else {
                        hypothesis.observe(window, &[Stratum { canary: &canary, control: &control }]).unwrap();
                    }
                };
                for segment in 0..10 {
                    let arms = (dice.rate(50, p), dice.rate(500, p));
                    overall.0.merge(&arms.0).unwrap();
                    overall.1.merge(&arms.1).unwrap();
                    observe(&mut hypotheses[8 + 10 * metric + segment], arms);
                }
                observe(&mut hypotheses[metric], overall);
                if metric == 5 && window >= 3 {
                    pooled.0.merge(&overall.0).unwrap();
                    pooled.1.merge(&overall.1).unwrap();
                }
            }
            let evidence: Vec<(f64, f64)> =
                weights.iter().zip(&hypotheses).map(|(&weight, hypothesis)| (weight, hypothesis.ln_e_fail())).collect();
            bad |= rejects(ln_weighted_average(&evidence), ALPHA);
            naive_bad |= window >= 3 && z(pooled.0, pooled.1).abs() > 1.96;
        }
        rolled_back += u32::from(bad);
        naive += u32::from(naive_bad);
    }
    println!("false rollbacks {rolled_back} of 500; naive peeking at one metric {naive} of 500");
    assert!(rolled_back <= 2, "{rolled_back} of 500");
    assert!(naive >= 125, "the harness must show the inflation of naive peeking: {naive} of 500");
}

/// The pooled two-proportion z.
fn z(canary: Rate, control: Rate) -> f64 {
    let (n_c, n_s) = (canary.n() as f64, control.n() as f64);
    let pooled = (canary.k() + control.k()) as f64 / (n_c + n_s);
    (canary.value().unwrap() - control.value().unwrap()) / (pooled * (1.0 - pooled) * (1.0 / n_c + 1.0 / n_s)).sqrt()
}

#[test]
fn a_ramp_with_a_drifting_base_rate_is_no_regression() {
    // 8.3: weights 1-5-10-25 %, base rate 0.5 -> 3 % in both arms; pooled counts would be wrong every time.
    let (mut crossed, mut pooled_crossed) = (0, 0);
    for seed in 0..1000 {
        let mut dice = Dice::new(seed);
        let mut hypothesis = Hypothesis::new(errors(0.0, 60)).unwrap();
        hypothesis.observe_warmup(&Summary::Rate(dice.rate(10_000, 0.005))).unwrap();
        let mut pooled = (Rate::default(), Rate::default());
        for window in 0..60_u32 {
            let n_c = [100, 500, 1000, 2500][window as usize / 15];
            let p = 0.005 + 0.025 * f64::from(window) / 59.0;
            let arms = (dice.rate(n_c, p), dice.rate(10_000 - n_c, p));
            pooled.0.merge(&arms.0).unwrap();
            pooled.1.merge(&arms.1).unwrap();
            let (canary, control) = (Summary::Rate(arms.0), Summary::Rate(arms.1));
            hypothesis.observe(i64::from(window), &[Stratum { canary: &canary, control: &control }]).unwrap();
        }
        crossed += u32::from(rejects(hypothesis.max_ln_e_fail(), 0.05));
        pooled_crossed += u32::from(z(pooled.0, pooled.1) > 1.645);
    }
    println!("ramp with drift: {crossed} of 1000 at 5 %; pooled z, one look: {pooled_crossed} of 1000");
    assert!(crossed <= 50, "{crossed} of 1000");
    assert!(pooled_crossed > 990, "{pooled_crossed} of 1000");
}

#[test]
fn regressions_are_found_in_time() {
    // G2 and G5. (weight %, canary rate, onset window, seconds of table 8.2)
    let table = [((167, 1500), 0.02, 0, 280.0), ((83, 1584), 0.02, 0, 520.0), ((167, 1500), 0.2, 0, 10.0)];
    for (n, p_c, onset, expected) in table {
        let seconds = seconds_to_fail(300, errors(0.002, 360), n, rate_change(p_c, 0.01, onset));
        println!("error 1 % -> {p_c} at {n:?}: median {} s, 90 % {} s", median(&seconds), seconds[270]);
        assert!(median(&seconds) <= 1.2 * expected, "{p_c} at {n:?}: {}", median(&seconds));
    }
    let late = seconds_to_fail(300, errors(0.002, 360), (167, 1500), rate_change(0.02, 0.01, 180));
    println!("from minute 30: median {} s after onset", median(&late) - 1800.0);
    assert!(median(&late) - 1800.0 <= 460.0, "{}", median(&late));
}

#[test]
fn slow_tails_and_unsure_answers_are_found_in_time() {
    let p99 = spec(Measure::Quantile { level: 0.99 }, Direction::LowerIsBetter, Margin::relative(0.2), 360);
    let slow = seconds_to_fail(100, p99, (167, 1500), |dice, _, n, control| {
        dice.latencies(n, if control { 1.0 } else { 1.5 })
    });
    println!("p99 x1.5: median {} s", median(&slow));
    assert!(median(&slow) <= 72.0, "{}", median(&slow));
    let mean = Measure::Mean { min: 0.0, max: 1.0 };
    let confidence = spec(mean, Direction::HigherIsBetter, Margin::relative(0.01), 360);
    let unsure = seconds_to_fail(100, confidence, (167, 1500), |dice, _, n, control| {
        dice.scores(n, if control { 0.8 } else { 0.76 })
    });
    println!("confidence 0.80 -> 0.76: median {} s", median(&unsure));
    assert!(median(&unsure) <= 24.0, "{}", median(&unsure));
}

#[test]
fn a_canary_at_the_margin_seldom_passes_and_a_healthy_one_does() {
    // G3: error rate exactly at the margin, looking at PASS every 10 s for an hour.
    let passed = |p_c: f64, margin: f64, runs: u64| {
        let run = |seed| {
            let mut dice = Dice::new(seed);
            let mut hypothesis = Hypothesis::new(errors(margin, 360)).unwrap();
            hypothesis.observe_warmup(&Summary::Rate(dice.rate(10_000, 0.01))).unwrap();
            (0..360).any(|window| {
                let (canary, control) = (Summary::Rate(dice.rate(167, p_c)), Summary::Rate(dice.rate(1500, 0.01)));
                hypothesis.observe(window, &[Stratum { canary: &canary, control: &control }]).unwrap();
                rejects(hypothesis.ln_e_pass(), 0.05)
            })
        };
        (0..runs).filter(|&seed| run(seed)).count()
    };
    let (at_margin, healthy) = (passed(0.012, 0.002, 400), passed(0.01, 0.005, 100));
    println!("passed at the margin: {at_margin} of 400; healthy, margin +0.5 pp: {healthy} of 100");
    assert!(at_margin <= 20, "{at_margin} of 400");
    assert!(healthy >= 95, "{healthy} of 100");
}
