//! A burst of load in both arms must not delay PASS for long: bets switch to the fast memory (`Memory`).
//!
//! The burst is in windows 3 to 5. A traffic step starts with window 6, so PASS must be shown from calm windows alone.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod dice;

use dice::Dice;
use serin_sketches::{LN_GAMMA, LogHist, Rate, Summary};
use serin_statistics::bets::pass_rate_bets;
use serin_statistics::{
    Against, Direction, FORGETTING, Hypothesis, HypothesisSpec, Line, Margin, Measure, Mixture, PastHist, Starts,
    Stratum, rejects, two_rates,
};

const LEVEL: f64 = 0.99;
const MARGIN: f64 = 0.2;

fn latencies(dice: &mut Dice, n: usize, factor: f64) -> LogHist {
    let mut hist = LogHist::new();
    for _ in 0..n {
        hist.insert(factor * 50.0 * (0.5 * dice.normal()).exp()).unwrap();
    }
    hist
}

/// PASS of `q2` with the slow memory alone, implemented separately for comparison.
struct SlowOnly {
    past: PastHist,
    pass: Mixture,
    window: u64,
}

impl SlowOnly {
    fn observe(&mut self, canary: &LogHist, control: &LogHist) {
        let key = self.past.key_at(LEVEL).unwrap();
        let shifted = key + ((1.0 + MARGIN).ln() / LN_GAMMA).round() as i32;
        let line = Line { v: 1.0, c: 0.0, sign: 1.0 };
        let rate = |hist: &LogHist, key| Rate::new(hist.total(), hist.count_above(key)).unwrap();
        let bets = pass_rate_bets(self.past.tail(key), self.past.tail(shifted), line).unwrap();
        let (c, s) = (rate(canary, shifted), rate(control, key));
        self.window += 1;
        let steps = bets.map(|bet| two_rates::ln_e(c, s, bet, line.reversed()));
        self.pass.update(Starts::First.gamma(self.window), &steps);
        self.past.push(control.iter(), FORGETTING);
    }
}

/// Median number of windows from the step to PASS (with both memories, with the slow one alone). In the windows selected by
/// `bursts`, answers are `burst` times as slow.
fn medians(burst: f64, bursts: impl Fn(usize) -> bool) -> (usize, usize) {
    let measure = Measure::Quantile { level: LEVEL };
    let against = Against::Control(Margin::relative(MARGIN));
    let spec =
        HypothesisSpec { measure, direction: Direction::LowerIsBetter, against, horizon: 360, interval_alpha: 0.05 };
    let run = |seed| {
        let mut dice = Dice::new(seed);
        let mut both = Hypothesis::new(spec).unwrap();
        let mut slow = SlowOnly { past: PastHist::default(), pass: Mixture::new(4), window: 0 };
        for _ in 0..6 {
            let control = latencies(&mut dice, 1500, 1.0);
            slow.past.push(control.iter(), FORGETTING);
            both.observe_warmup(&Summary::Log(control)).unwrap();
        }
        let (mut passed, mut slow_passed) = (None, None);
        for window in 1..=200_usize {
            if window == 6 {
                both.reset_pass();
                (slow.pass, slow.window) = (Mixture::new(4), 0);
                (passed, slow_passed) = (None, None);
            }
            let factor = if bursts(window) { burst } else { 1.0 };
            let (canary, control) = (latencies(&mut dice, 167, factor), latencies(&mut dice, 1500, factor));
            slow.observe(&canary, &control);
            let (canary, control) = (Summary::Log(canary), Summary::Log(control));
            let stratum = Stratum { canary: &canary, control: &control };
            both.observe(i64::try_from(window).unwrap(), &[stratum]).unwrap();
            if window > 5 && rejects(both.ln_e_pass(), 0.05) {
                passed.get_or_insert(window - 5);
            }
            if window > 5 && rejects(slow.pass.ln_e(), 0.05) {
                slow_passed.get_or_insert(window - 5);
            }
            if passed.is_some() && slow_passed.is_some() {
                break;
            }
        }
        (passed.unwrap_or(200), slow_passed.unwrap_or(200))
    };
    let (mut both, mut slow): (Vec<usize>, Vec<usize>) = (0..25).map(run).unzip();
    both.sort_unstable();
    slow.sort_unstable();
    (both[12], slow[12])
}

#[test]
fn calm_windows_count_again_soon_after_a_burst() {
    let (both, slow) = medians(3.0, |window| (3..=5).contains(&window));
    println!("PASS after a burst: {both} windows; with the slow memory alone: {slow} windows");
    assert!(both <= 40, "{both}");
    assert!(slow >= 2 * both, "{slow} {both}");
}

#[test]
fn without_a_burst_nothing_is_lost() {
    let (both, slow) = medians(1.0, |_| false);
    println!("PASS without a burst: {both} windows; with the slow memory alone: {slow} windows");
    assert!(both as f64 <= 1.05 * slow as f64, "{both} {slow}");
}

#[test]
fn bursts_that_return_do_not_stop_a_pass() {
    let (both, slow) = medians(3.0, |window| window % 4 == 0);
    println!("PASS with a burst in every fourth window: {both} windows; with the slow memory alone: {slow} windows");
    assert!(both <= 20 && both <= slow, "{both} {slow}");
}
