//! Estimates for people: both arms, their difference, its always-valid interval. None of it decides.

use serde::{Deserialize, Serialize};
use serin_sketches::{LogHist, Rate, Summary, lower_edge, upper_edge};

use super::past::Past;
use super::spec::{Against, HypothesisSpec, Measure};
use super::steps::grid;
use crate::PastMean;
use crate::interval::{Stratified, quantile_ranks, rate_interval};

/// One arm's estimate over all windows that entered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ArmEstimate {
    /// Number of observations.
    pub n: u64,
    /// Share, mean or quantile, in the metric's unit.
    pub value: Option<f64>,
}

/// The effect of the canary. Against a limit, the difference is from the limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Effect {
    /// The canary.
    pub canary: ArmEstimate,
    /// Control in the same windows.
    pub control: ArmEstimate,
    /// Canary less control, stratified by window for rates and means (so it may differ from the difference of the
    /// estimates); for a distribution the largest difference of the distribution functions, unsigned.
    pub difference: Option<f64>,
    /// Lower end of the interval. `None` while the data are too few for it.
    pub low: Option<f64>,
    /// Upper end of the interval.
    pub high: Option<f64>,
    /// Size of the margin at control's estimate, in the same unit; `None` against a limit.
    pub margin: Option<f64>,
}

/// Fewest answers per arm for a normal interval, and the factor on the squared skewness. Values here are 0/1 or lie in
/// [0, 1], so skewness is known from control and the usual floor of 1000 answers is not needed.
const MIN_NORMAL: f64 = 100.0;
const PER_SQUARED_SKEWNESS: f64 = 25.0;

/// Answers worth of control's past that the canary's variance starts from.
const PRIOR: f64 = 10.0;

/// Running totals of an arm.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Totals {
    Rate(Rate),
    Mean(PastMean, u64),
    Hist(LogHist),
}

impl Totals {
    fn new(measure: Measure) -> Self {
        match measure {
            Measure::Rate => Self::Rate(Rate::default()),
            Measure::Mean { .. } | Measure::CappedMean { .. } => Self::Mean(PastMean::default(), 0),
            Measure::Quantile { .. } | Measure::Distribution => Self::Hist(LogHist::new()),
        }
    }

    /// Adds a summary; one that would overflow 2^53 answers is left out of the display.
    fn push(&mut self, summary: &Summary) {
        match (self, summary) {
            (Self::Rate(total), Summary::Rate(rate)) => drop(total.merge(rate)),
            (Self::Mean(total, n), summary) => {
                total.push(&grid(summary), 1.0);
                *n = n.saturating_add(summary.n());
            }
            (Self::Hist(total), Summary::Log(hist)) => drop(total.merge(hist)),
            _ => {}
        }
    }

    fn n(&self) -> u64 {
        match self {
            Self::Rate(total) => total.n(),
            Self::Mean(_, n) => *n,
            Self::Hist(total) => total.total(),
        }
    }
}

/// What [`Effect`] is computed from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Totalled {
    canary: Totals,
    control: Totals,
    difference: Stratified,
    /// Squared skewness of control's answers before the latest window.
    squared_skewness: f64,
    /// Answers of (canary, control) in the first window: the scale of exact intervals.
    first: Option<(u64, u64)>,
}

impl Totalled {
    pub(super) fn new(measure: Measure) -> Self {
        Self {
            canary: Totals::new(measure),
            control: Totals::new(measure),
            difference: Stratified::default(),
            squared_skewness: 0.0,
            first: None,
        }
    }

    /// Adds one stratum. `past` holds earlier windows only.
    pub(super) fn push(&mut self, past: &Past, canary: &Summary, control: &Summary) {
        self.first.get_or_insert((canary.n(), control.n()));
        match (past, &self.canary, canary, control) {
            (Past::Rate(past), Totals::Rate(total), Summary::Rate(now_c), Summary::Rate(now_s)) => {
                let b = past.b_hat();
                let a = (total.k() as f64 + PRIOR * b) / (total.n() as f64 + PRIOR);
                self.squared_skewness = (1.0 - 2.0 * b) * (1.0 - 2.0 * b) / (b * (1.0 - b));
                if let Some((x, y)) = now_c.value().zip(now_s.value()) {
                    let variance = a * (1.0 - a) / now_c.n() as f64 + b * (1.0 - b) / now_s.n() as f64;
                    self.difference.push(x - y, variance);
                }
            }
            (Past::Mean(past), Totals::Mean(total, _), now_c, now_s) => {
                let control_variance = past.variance().max(1e-6);
                let weight = total.n() / (total.n() + PRIOR);
                let canary_variance = weight * total.variance() + (1.0 - weight) * control_variance;
                self.squared_skewness = past.squared_skewness();
                if let Some((x, y)) = mean(now_c).zip(mean(now_s)) {
                    let variance = canary_variance / now_c.n() as f64 + control_variance / now_s.n() as f64;
                    self.difference.push(x - y, variance);
                }
            }
            _ => {}
        }
        self.canary.push(canary);
        self.control.push(control);
    }

    pub(super) fn effect(&self, spec: &HypothesisSpec) -> Effect {
        let (canary, control) = (estimate(&self.canary, spec), estimate(&self.control, spec));
        let mut effect = Effect { canary, control, ..Effect::default() };
        match spec.against {
            Against::Limit(limit) => {
                effect.difference = canary.value.map(|value| value - limit);
                let (low, high) = self.arm_interval(&self.canary, spec, spec.interval_alpha, true);
                effect.low = low.map(|low| low - limit);
                effect.high = high.map(|high| high - limit);
            }
            Against::Control(margin) => {
                effect.margin = match spec.measure {
                    Measure::Distribution => margin.absolute.or(Some(0.0)),
                    _ => control.value.map(|value| margin.at(value)),
                };
                self.against_control(spec, &mut effect);
            }
        }
        effect
    }

    fn against_control(&self, spec: &HypothesisSpec, effect: &mut Effect) {
        if let (Totals::Hist(canary), Totals::Hist(control)) = (&self.canary, &self.control) {
            if spec.measure == Measure::Distribution {
                effect.difference = largest_difference(canary, control);
                return;
            }
            effect.difference = effect.canary.value.zip(effect.control.value).map(|(x, y)| x - y);
            // Each arm's interval misses with half of alpha.
            let alpha = 0.5 * spec.interval_alpha;
            let (low_c, high_c) = self.arm_interval(&self.canary, spec, alpha, true);
            let (low_s, high_s) = self.arm_interval(&self.control, spec, alpha, false);
            effect.low = low_c.zip(high_s).map(|(low, high)| low - high);
            effect.high = high_c.zip(low_s).map(|(high, low)| high - low);
            return;
        }
        let (_, width) = spec.scale();
        effect.difference = self.difference.value().map(|value| value * width);
        let least = MIN_NORMAL.max(PER_SQUARED_SKEWNESS * self.squared_skewness);
        if self.canary.n().min(self.control.n()) as f64 >= least {
            let interval = self.difference.interval(spec.interval_alpha, spec.horizon);
            effect.low = interval.map(|(low, _)| low * width);
            effect.high = interval.map(|(_, high)| high * width);
        }
    }

    /// Exact interval of one arm's rate or quantile.
    fn arm_interval(
        &self,
        arm: &Totals,
        spec: &HypothesisSpec,
        alpha: f64,
        canary: bool,
    ) -> (Option<f64>, Option<f64>) {
        let Some(first) = self.first.map(|first| if canary { first.0 } else { first.1 }) else { return (None, None) };
        let t_opt = (0.5 * first as f64 * f64::from(spec.horizon.max(2))).max(1.0);
        match (arm, spec.measure) {
            (Totals::Rate(rate), _) => rate_interval(rate.k(), rate.n(), alpha, t_opt).unzip(),
            (Totals::Hist(hist), Measure::Quantile { level }) => {
                let (low, high) = quantile_ranks(hist.total(), level, alpha, t_opt);
                let low = low.and_then(|rank| hist.key_at_rank(rank)).map(lower_edge);
                let high = high.and_then(|rank| hist.key_at_rank(rank)).map(upper_edge);
                (low, high)
            }
            _ => (None, None),
        }
    }
}

fn estimate(arm: &Totals, spec: &HypothesisSpec) -> ArmEstimate {
    let (low, width) = spec.scale();
    let value = match (arm, spec.measure) {
        (Totals::Rate(rate), _) => rate.value(),
        (Totals::Mean(total, n), _) => (*n > 0).then(|| low + width * total.plain_mean()),
        (Totals::Hist(hist), Measure::Quantile { level }) => hist.quantile(level),
        (Totals::Hist(_), _) => None,
    };
    ArmEstimate { n: arm.n(), value }
}

fn mean(summary: &Summary) -> Option<f64> {
    let sum: f64 = grid(summary).iter().map(|&(x, count)| x * count as f64).sum();
    (summary.n() > 0).then(|| sum / summary.n() as f64)
}

/// Largest difference of the two distribution functions over all bin edges.
fn largest_difference(one: &LogHist, two: &LogHist) -> Option<f64> {
    if one.total() == 0 || two.total() == 0 {
        return None;
    }
    let above = |hist: &LogHist, key| hist.count_above(key) as f64 / hist.total() as f64;
    let keys = one.iter().chain(two.iter()).map(|(key, _)| key);
    Some(keys.map(|key| (above(one, key) - above(two, key)).abs()).fold(0.0, f64::max))
}
