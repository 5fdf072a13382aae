//! The simulated scenarios: traffic, healthy and broken canaries, and the rollout of a single hypothesis.

use serin_sketches::Summary;
use serin_statistics::{
    Against, Direction, Hypothesis, HypothesisSpec, Margin, Measure, Stratum, ln_weighted_average, rejects,
};

use super::draws::{Dice, Shape, Signal};

/// False-rollback probability of a whole rollout.
pub(super) const ALPHA_ROLLBACK: f64 = 0.01;
/// False-promotion probability of a metric.
pub(super) const ALPHA_PROMOTION: f64 = 0.05;
/// Budget share of one of eight overall metrics when there are segments.
pub(super) const OVERALL: f64 = 1.0 / 16.0;
/// Budget share of one of eight metrics in one of ten segments.
pub(super) const SEGMENT: f64 = 1.0 / 160.0;
/// All requests of a minute.
pub(super) const PER_MINUTE: u64 = 10_000;

/// Which of stable's answers are control.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Control {
    /// All of stable, as in the study from which the table of medians comes.
    Rest,
    /// Ten times the canary's share, or as much as there is: the product's default.
    TenTimes,
}

impl Control {
    /// Control's share of all requests.
    pub(super) fn share(self, canary: f64) -> f64 {
        match self {
            Self::Rest => 1.0 - canary,
            Self::TenTimes => (10.0 * canary).min(1.0 - canary),
        }
    }
}

/// How many answers each arm gets in a window.
#[derive(Clone, Copy, Debug)]
pub(super) struct Traffic {
    /// Windows per minute.
    pub(super) windows: u64,
    /// Share of all requests that is evaluated (a segment's share, or 1).
    pub(super) part: f64,
    /// Share that the canary gets.
    pub(super) canary: f64,
    /// Which answers are control.
    pub(super) control: Control,
}

impl Traffic {
    /// Overall traffic in windows of 10 s.
    pub(super) fn fast(canary: f64, control: Control) -> Self {
        Self { windows: 6, part: 1.0, canary, control }
    }

    /// Answers of canary and control in window `window` (1, 2, ...). Each request is assigned at random.
    pub(super) fn arms(&self, dice: &mut Dice, window: u64) -> (u64, u64) {
        let requests = PER_MINUTE * window / self.windows - PER_MINUTE * (window - 1) / self.windows;
        let (p_c, p_s) = (self.part * self.canary, self.part * self.control.share(self.canary));
        let canary = dice.binomial(requests, p_c);
        (canary, dice.binomial(requests - canary, p_s / (1.0 - p_c)))
    }

    /// Control's answers in a warm-up window.
    pub(super) fn warmup(&self, dice: &mut Dice) -> u64 {
        dice.binomial(PER_MINUTE / self.windows, self.part * self.control.share(self.canary))
    }
}

/// A hypothesis with the signals of its arms.
#[derive(Clone)]
pub(super) struct Scenario {
    /// The name, as in the reference data.
    pub(super) name: &'static str,
    /// The hypothesis.
    pub(super) spec: HypothesisSpec,
    /// The hypothesis's share of the false-rollback budget.
    pub(super) weight: f64,
    /// Share of the traffic that it sees.
    pub(super) part: f64,
    /// Control's answers, and the canary's before the onset.
    pub(super) healthy: Signal,
    /// The canary's answers.
    pub(super) canary: Signal,
    /// Windows before the canary breaks.
    pub(super) onset: u64,
}

/// The result of a run, in windows; `None` if it did not happen.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Outcome {
    /// The window of the rollback, counted from the onset.
    pub(super) failed: Option<u64>,
    /// The window of the first PASS.
    pub(super) passed: Option<u64>,
}

/// When a run may end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Until {
    /// At the rollback.
    Failed,
    /// At the first PASS.
    Passed,
}

impl Scenario {
    fn new(name: &'static str, spec: HypothesisSpec, healthy: Signal, canary: Signal) -> Self {
        Self { name, spec, weight: OVERALL, part: 1.0, healthy, canary, onset: 0 }
    }

    /// Simulates one rollout of an hour and evaluates each window.
    pub(super) fn run(&self, run: u64, canary: f64, control: Control, until: Until) -> Outcome {
        let dice = &mut Dice::new(&format!("{} at {canary} {control:?}", self.name), run);
        let traffic = Traffic { part: self.part, ..Traffic::fast(canary, control) };
        let mut hypothesis = Hypothesis::new(self.spec).expect("the scenario is sound");
        for _ in 0..traffic.windows {
            let n = traffic.warmup(dice);
            hypothesis.observe_warmup(&self.healthy.draw(dice, n)).expect("the kind is right");
        }
        let mut outcome = Outcome::default();
        for window in 1..=60 * traffic.windows {
            let (n_c, n_s) = traffic.arms(dice, window);
            let sent = if window > self.onset { &self.canary } else { &self.healthy };
            observe(&mut hypothesis, window, &sent.draw(dice, n_c), &self.healthy.draw(dice, n_s));
            if rejects(ln_weighted_average(&[(self.weight, hypothesis.ln_e_fail())]), ALPHA_ROLLBACK) {
                outcome.failed = outcome.failed.or(window.checked_sub(self.onset));
            }
            if rejects(hypothesis.ln_e_pass(), ALPHA_PROMOTION) {
                outcome.passed = outcome.passed.or(Some(window));
            }
            let ends = match until {
                Until::Failed => outcome.failed,
                Until::Passed => outcome.passed,
            };
            if ends.is_some() {
                break;
            }
        }
        outcome
    }
}

/// Adds one window.
pub(super) fn observe(hypothesis: &mut Hypothesis, window: u64, canary: &Summary, control: &Summary) {
    let end = i64::try_from(window).expect("windows are few");
    hypothesis.observe(end, &[Stratum { canary, control }]).expect("the window is in order");
}

/// A hypothesis against control, for a rollout of `horizon` windows.
pub(super) fn against_control(measure: Measure, direction: Direction, margin: Margin, horizon: u32) -> HypothesisSpec {
    HypothesisSpec { measure, direction, against: Against::Control(margin), horizon, interval_alpha: 0.05 }
}

/// Error rate with an absolute margin.
pub(super) fn errors(margin: f64, horizon: u32) -> HypothesisSpec {
    against_control(Measure::Rate, Direction::LowerIsBetter, Margin::absolute(margin), horizon)
}

/// Click rate, higher is better, with a relative margin.
pub(super) fn clicks(margin: f64, horizon: u32) -> HypothesisSpec {
    against_control(Measure::Rate, Direction::HigherIsBetter, Margin::relative(margin), horizon)
}

/// A quantile of latency with a relative margin.
pub(super) fn latency(level: f64, margin: f64, horizon: u32) -> HypothesisSpec {
    against_control(Measure::Quantile { level }, Direction::LowerIsBetter, Margin::relative(margin), horizon)
}

/// Mean confidence, higher is better, with a relative margin.
pub(super) fn confidence(margin: f64, horizon: u32) -> HypothesisSpec {
    let measure = Measure::Mean { min: 0.0, max: 1.0 };
    against_control(measure, Direction::HigherIsBetter, Margin::relative(margin), horizon)
}

/// A distribution that may differ by `tolerance` anywhere.
pub(super) fn distribution(tolerance: f64, horizon: u32) -> HypothesisSpec {
    against_control(Measure::Distribution, Direction::LowerIsBetter, Margin::absolute(tolerance), horizon)
}

/// Latencies: log-normal with median 50 ms and sigma 0.5, times a factor.
pub(super) fn latencies(factor: f64) -> Signal {
    Signal::Log(Shape::log_normals(&[(1.0, 50.0 * factor, 0.5)]))
}

/// Confidences: a beta distribution with a standard deviation of about 0.12.
pub(super) fn confidences(mean: f64) -> Signal {
    Signal::Lin(Shape::beta(mean, 10.0))
}

/// Scores whose distribution function differs from that of `scores(0.0)` by at most `d`: shifted log-normals.
pub(super) fn scores(d: f64) -> Signal {
    // For a shift of `z` standard deviations the largest difference is `2 Phi(z/2) - 1`.
    let (mut low, mut high) = (0.0, 8.0);
    for _ in 0..60 {
        let middle = 0.5 * (low + high);
        let difference = 2.0 * super::draws::normal_cdf(0.5 * middle) - 1.0;
        if difference < d { low = middle } else { high = middle }
    }
    Signal::Log(Shape::log_normals(&[(1.0, libm::exp(0.5 * low), 0.5)]))
}

/// The regressions of the table of medians, in its order.
pub(super) fn regressions() -> Vec<Scenario> {
    const H: u32 = 360;
    let rate = Signal::Rate;
    let new = Scenario::new;
    // A slow path of 3 % of the answers that moves p99 to 1.5 times its value: 3 % at a median of 3.725 times.
    let tail = Signal::Log(Shape::log_normals(&[(0.97, 50.0, 0.5), (0.03, 186.25, 0.5)]));
    let confident = |mean| (confidences(0.8), confidences(mean));
    let (mean, less) = confident(0.76);
    let (_, little_less) = confident(0.784);
    let segment = Scenario {
        weight: SEGMENT,
        part: 0.1,
        ..new("segment of 10 %: error 1 % -> 3 %", errors(0.002, H), rate(0.01), rate(0.03))
    };
    let late =
        Scenario { onset: 180, ..new("error 1 % -> 2 % at minute 30", errors(0.002, H), rate(0.01), rate(0.02)) };
    vec![
        new("error 1 % -> 20 %", errors(0.002, H), rate(0.01), rate(0.2)),
        new("error 1 % -> 2 %", errors(0.002, H), rate(0.01), rate(0.02)),
        new("error 1 % -> 2 %, margin 0", errors(0.0, H), rate(0.01), rate(0.02)),
        new("p99 x1.5, all scaled", latency(0.99, 0.2, H), latencies(1.0), latencies(1.5)),
        new("p99 x1.5, tail only", latency(0.99, 0.2, H), latencies(1.0), tail),
        new("confidence -5 %", confidence(0.01, H), mean.clone(), less),
        new("confidence -2 %", confidence(0.01, H), mean, little_less),
        new("score shift D = 0.2", distribution(0.1, H), scores(0.0), scores(0.2)),
        new("CTR 5 % -> 4 %", clicks(0.01, H), rate(0.05), rate(0.04)),
        new("CTR 5 % -> 4.5 %", clicks(0.01, H), rate(0.05), rate(0.045)),
        new("CTR 5 % -> 4.9 %, margin 0", clicks(0.0, H), rate(0.05), rate(0.049)),
        segment,
        new("the same seen overall only, margin 0", errors(0.0, H), rate(0.01), rate(0.012)),
        late,
    ]
}

/// Healthy canaries that should pass, as in the second table.
pub(super) fn healthy() -> Vec<Scenario> {
    const H: u32 = 360;
    let same = |name, spec, signal: Signal| Scenario::new(name, spec, signal.clone(), signal);
    vec![
        same("error 1 %, margin +0.5 pp", errors(0.005, H), Signal::Rate(0.01)),
        same("error 1 %, margin +0.2 pp", errors(0.002, H), Signal::Rate(0.01)),
        same("p99, margin +20 %", latency(0.99, 0.2, H), latencies(1.0)),
        same("confidence, margin 1 %", confidence(0.01, H), confidences(0.8)),
        same("CTR 5 %, margin 5 %", clicks(0.05, H), Signal::Rate(0.05)),
    ]
}

/// Canaries exactly at the margin, where PASS would be wrong.
pub(super) fn at_the_margin() -> Vec<Scenario> {
    const H: u32 = 360;
    // The effective quantile margin: nine bins.
    let nine_bins = libm::exp(9.0 * serin_sketches::LN_GAMMA);
    let new = Scenario::new;
    vec![
        new("error 1.2 %, margin +0.2 pp", errors(0.002, H), Signal::Rate(0.01), Signal::Rate(0.012)),
        new("CTR 4.75 %, margin 5 %", clicks(0.05, H), Signal::Rate(0.05), Signal::Rate(0.0475)),
        new("p99 x1.2, margin +20 %", latency(0.99, 0.2, H), latencies(1.0), latencies(nine_bins)),
        new("confidence 0.792, margin 1 %", confidence(0.01, H), confidences(0.8), confidences(0.792)),
        new("score D = 0.1, margin 0.1", distribution(0.1, H), scores(0.0), scores(0.1)),
    ]
}
