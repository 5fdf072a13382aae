//! Counts of events per answer: the test is exact for any distribution, and still powerful.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use serin_sketches::hash::hash64;
use serin_sketches::{CappedHist, Events, Summary};
use serin_statistics::{Against, Direction, Effect, Hypothesis, HypothesisSpec, Margin, Measure, Stratum};

const MOST: f64 = 1e6;

fn spec(measure: Measure, direction: Direction, margin: f64) -> HypothesisSpec {
    let against = Against::Control(Margin::relative(margin));
    HypothesisSpec { measure, direction, against, horizon: 60, interval_alpha: 0.05 }
}

/// A uniform number in (0, 1).
fn unit(seed: &str, index: u64) -> f64 {
    ((hash64(seed.as_bytes(), &index.to_le_bytes()) >> 11) as f64 + 0.5) / 2f64.powi(53)
}

/// The event counts of `n` answers: `bursts` bursts per answer, each with a geometric number of events.
fn numbers(seed: &str, n: u64, bursts: u64, more: f64) -> Vec<f64> {
    let burst = |index: u64| (unit(seed, index).ln() / more.ln()).floor();
    (0..n).map(|answer| (0..bursts).map(|burst_of| burst(answer * bursts + burst_of)).sum()).collect()
}

fn by_value(numbers: &[f64]) -> Summary {
    let mut hist = CappedHist::new(MOST).unwrap();
    for (index, number) in (0..).zip(numbers) {
        hist.insert(*number, hash64(b"dither", &u64::to_le_bytes(index))).unwrap();
    }
    Summary::Capped(hist)
}

fn by_sum(numbers: &[f64]) -> Summary {
    Summary::Events(Events::new(numbers.iter().sum::<f64>() as u64, numbers.len() as u64).unwrap())
}

/// The averages of `E` of FAIL and of PASS after one window of equal versions, over many such windows, with their standard errors.
fn averages(spec: HypothesisSpec, summary: fn(&[f64]) -> Summary) -> [(f64, f64); 2] {
    let mut start = Hypothesis::new(spec).unwrap();
    // Mean 2, variance 4: two bursts of mean 1.
    start.observe_warmup(&summary(&numbers("warm-up", 3000, 2, 0.5))).unwrap();
    let runs = 2000;
    let mut sums = [(0.0, 0.0); 2];
    for run in 0..runs {
        let mut hypothesis = start.clone();
        let canary = summary(&numbers(&format!("canary {run}"), 67, 2, 0.5));
        let control = summary(&numbers(&format!("control {run}"), 600, 2, 0.5));
        hypothesis.observe(1, &[Stratum { canary: &canary, control: &control }]).unwrap();
        for (sum, ln_e) in sums.iter_mut().zip([hypothesis.ln_e_fail(), hypothesis.ln_e_pass()]) {
            *sum = (sum.0 + ln_e.exp(), sum.1 + (2.0 * ln_e).exp());
        }
    }
    let n = f64::from(runs);
    sums.map(|(sum, squares)| (sum / n, ((squares / n - (sum / n) * (sum / n)) / n).sqrt()))
}

#[test]
fn bursts_are_no_evidence() {
    for direction in [Direction::LowerIsBetter, Direction::HigherIsBetter] {
        // The result if the sums were single, independent events.
        let [(sums, _), _] = averages(spec(Measure::Count, direction, 0.0), by_sum);
        assert!(sums > 1.5, "{direction:?}: {sums}");
        for (mean, error) in averages(spec(Measure::Counts { most: MOST }, direction, 0.0), by_value) {
            assert!(mean <= 1.0 + 3.0 * error && error < 0.1, "{direction:?}: {mean} {error}");
        }
    }
}

/// Observes windows of 100 answers of the canary and 1,000 of control.
fn play(spec: HypothesisSpec, windows: i64, draw: impl Fn(&str, u64, bool) -> Vec<f64>) -> Hypothesis {
    let mut hypothesis = Hypothesis::new(spec).unwrap();
    hypothesis.observe_warmup(&by_value(&draw("warm-up", 3000, false))).unwrap();
    for window in 0..windows {
        let canary = by_value(&draw(&format!("canary {window}"), 100, true));
        let control = by_value(&draw(&format!("control {window}"), 1000, false));
        hypothesis.observe(window, &[Stratum { canary: &canary, control: &control }]).unwrap();
    }
    hypothesis
}

#[test]
fn distributions_of_all_sizes_pass_and_fail() {
    // One event in fifty answers; a few per answer; hundreds of tokens per answer.
    for (bursts, more, worse) in [(1, 0.02, 0.06), (2, 0.5, 0.6), (2, 0.99, 0.993)] {
        for (direction, canary) in [(Direction::LowerIsBetter, worse), (Direction::HigherIsBetter, 0.5 * more)] {
            let of = |margin: f64| spec(Measure::Counts { most: MOST }, direction, margin);
            let harmed =
                play(of(0.1), 60, |seed, n, is_canary| numbers(seed, n, bursts, if is_canary { canary } else { more }));
            assert!(harmed.ln_e_fail() > 5.0, "{more} {direction:?}: {}", harmed.ln_e_fail());
            assert!(harmed.ln_e_pass() < 0.0, "{more} {direction:?}: {}", harmed.ln_e_pass());
            let equal = play(of(0.9), 60, |seed, n, _| numbers(seed, n, bursts, more));
            assert!(equal.ln_e_fail() < 2.0, "{more} {direction:?}: {}", equal.ln_e_fail());
            assert!(equal.ln_e_pass() > 3.0, "{more} {direction:?}: {}", equal.ln_e_pass());
        }
    }
}

#[test]
fn values_above_the_cap_are_reported_and_bounded() {
    let spec = spec(Measure::Counts { most: MOST }, Direction::LowerIsBetter, 0.1);
    let wild = |seed: &str, n, is_canary| {
        let mut all = numbers(seed, n, 2, 0.5);
        if is_canary {
            (0..4).for_each(|answer| all[answer] = 1e9);
        }
        all
    };
    let wild = play(spec, 40, wild);
    let Effect { at_cap, canary, control, low, high, .. } = wild.effect();
    assert!((0.03..0.06).contains(&at_cap.unwrap()), "{at_cap:?}");
    assert!(canary.value.unwrap() < 5.0 && (1.9..2.1).contains(&control.value.unwrap()), "{canary:?} {control:?}");
    assert!(low.zip(high).is_some_and(|(low, high)| low < high && high < 3.0), "{low:?} {high:?}");
    // Still, 4 % of the answers have more events than any of control's.
    assert!(wild.ln_e_fail() > 5.0, "{}", wild.ln_e_fail());
    let effect = play(spec, 40, |seed, n, _| numbers(seed, n, 2, 0.5)).effect();
    assert!(effect.low.unwrap() < 0.0 && effect.high.unwrap() > 0.0 && effect.at_cap.unwrap() < 0.005, "{effect:?}");
    assert_eq!((effect.canary.n, effect.control.n), (4_000, 40_000));
}

#[test]
fn a_limit_holds_for_bursts_too() {
    let against = |pass, fail| HypothesisSpec {
        against: Against::Limit { pass, fail },
        ..spec(Measure::Counts { most: MOST }, Direction::LowerIsBetter, 0.0)
    };
    let played = |pass, fail| play(against(pass, fail), 60, |seed, n, _| numbers(seed, n, 2, 0.5));
    let (kept, broken) = (played(2.4, 2.6), played(1.5, 1.7));
    assert!(kept.ln_e_pass() > 3.0 && kept.ln_e_fail() < 1.0, "{} {}", kept.ln_e_pass(), kept.ln_e_fail());
    assert!(broken.ln_e_fail() > 5.0 && broken.ln_e_pass() < 0.0, "{} {}", broken.ln_e_fail(), broken.ln_e_pass());
    assert!(Hypothesis::new(against(MOST, 2.0 * MOST)).is_err());
}
