//! Estimates for reports: both arms, their difference and its always-valid interval. They do not decide anything.

use serde::{Deserialize, Serialize};
use serin_sketches::{ClassCounts, Events, LogHist, Rate, lower_edge, upper_edge};

use super::Views;
use super::counts::Caps;
use super::past::Past;
use super::spec::{Against, HypothesisSpec, Measure};
use super::steps::exceedances;
use super::view::View;
use crate::PastMean;
use crate::interval::{Stratified, ecdf_radius, quantile_levels, rate_interval_of};
use crate::two_means::Grid;

/// One arm's estimate over all windows that entered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ArmEstimate {
    /// Number of observations.
    pub n: u64,
    /// Share, mean or quantile, in the metric's unit.
    pub value: Option<f64>,
}

/// The effect of the canary. Against a limit, the difference is taken from the limit that fails. For a mix of classes, the
/// effect is about the class with the most evidence (`Hypothesis::culprit`) or, if there is none, the class whose share differs most.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Effect {
    /// The canary's estimate.
    pub canary: ArmEstimate,
    /// Control's estimate in the same windows.
    pub control: ArmEstimate,
    /// Canary minus control. For rates and means it is stratified by window, so it may not equal the difference of the
    /// estimates. For a distribution it is the largest difference between the distribution functions, unsigned.
    pub difference: Option<f64>,
    /// Lower end of the interval, which holds at every look. `None` while there are too few answers.
    pub low: Option<f64>,
    /// Upper end of the interval.
    pub high: Option<f64>,
    /// For a capped mean: the share of the canary's values at the cap, whose true size the mean ignores. For event counts:
    /// the share above the cap of their window.
    pub at_cap: Option<f64>,
    /// Whether the canary is better than control, ignoring the margin: the interval excludes zero on the good side (for a
    /// quantile, the interval of the difference in exceedances of control's quantile). Always false against a limit or for a
    /// metric without a direction. Wrong with probability at most half of the interval's error rate over the whole rollout.
    pub better: bool,
    /// The margin at control's estimate, in the metric's unit; `None` against a limit.
    pub margin: Option<f64>,
}

/// Smallest number of answers per arm for a normal interval, and the factor on the squared skewness. Values are 0/1 or in
/// [0, 1], so the skewness is known from control and the usual minimum of 1000 answers is not needed.
const MIN_NORMAL: f64 = 100.0;
const PER_SQUARED_SKEWNESS: f64 = 25.0;

/// Weight of control's past, in answers, in the initial variance of the canary.
const PRIOR: f64 = 10.0;

/// Number of classes over which the error rate of a class's interval is spread: the most that are ever tested separately.
const CLASSES: f64 = 49.0;

/// Running totals of an arm.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Totals {
    Rate(Rate),
    Mean(PastMean, u64),
    Hist(LogHist),
    Classes(ClassCounts),
    Count(Events),
}

impl Totals {
    fn new(measure: Measure) -> Self {
        match measure {
            Measure::Rate | Measure::Disagreement => Self::Rate(Rate::default()),
            Measure::Mean { .. }
            | Measure::CappedMean { .. }
            | Measure::PairedDifference { .. }
            | Measure::Counts { .. } => Self::Mean(PastMean::default(), 0),
            Measure::Quantile { .. } | Measure::Distribution => Self::Hist(LogHist::new()),
            Measure::Classes => Self::Classes(ClassCounts::default()),
            Measure::Count => Self::Count(Events::default()),
        }
    }

    /// Adds a window. A window that would exceed 2^53 answers is left out of the display.
    fn push(&mut self, window: &View<'_>) {
        match (self, window) {
            (Self::Rate(total), View::Rate(rate)) => drop(total.merge(rate)),
            (Self::Count(total), View::Events(events)) => drop(total.merge(events)),
            (Self::Mean(total, n), View::Grid(grid)) => {
                total.push(grid, 1.0);
                *n = n.saturating_add(window.n());
            }
            (Self::Hist(total), View::Hist(hist)) => drop(total.merge(hist)),
            (Self::Classes(total), View::Classes(counts, _)) => drop(total.merge(counts)),
            _ => {}
        }
    }

    fn n(&self) -> u64 {
        match self {
            Self::Rate(total) => total.n(),
            Self::Mean(_, n) => *n,
            Self::Hist(total) => total.total(),
            Self::Classes(total) => total.total(),
            Self::Count(total) => total.exposure(),
        }
    }
}

/// Totals of one arm.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Arm {
    totals: Totals,
    /// Number of answers, each divided by the design effect of its window: the effective sample size.
    worth: f64,
    /// Answers of the first window, which set the scale of exact intervals.
    first: f64,
    /// For a mean, the number of values at the upper end of the range; for event counts, the number above the cap.
    at_cap: u64,
}

impl Arm {
    fn new(measure: Measure) -> Self {
        Self { totals: Totals::new(measure), worth: 0.0, first: 0.0, at_cap: 0 }
    }

    fn push(&mut self, window: &View<'_>, phi: f64) {
        if let View::Grid(grid) = window {
            self.at_cap += grid.iter().filter(|point| point.0 >= 1.0).map(|point| point.1).sum::<u64>();
        }
        self.add(window, phi);
    }

    fn add(&mut self, window: &View<'_>, phi: f64) {
        let n = window.n() as f64;
        self.totals.push(window);
        self.worth += n / phi;
        if self.first == 0.0 {
            self.first = n;
        }
    }
}

/// The totals from which [`Effect`] is computed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Totalled {
    canary: Arm,
    control: Arm,
    /// Difference of the arms on the scale [0, 1]; against a limit, the canary's own mean.
    difference: Stratified,
    /// Squared skewness of the answers before the latest window.
    squared_skewness: f64,
}

impl Totalled {
    pub(super) fn new(measure: Measure) -> Self {
        Self {
            canary: Arm::new(measure),
            control: Arm::new(measure),
            difference: Stratified::default(),
            squared_skewness: 0.0,
        }
    }

    /// Adds one stratum. `past` must contain earlier windows only. The design effect `phi` widens the variance.
    pub(super) fn push(&mut self, spec: &HypothesisSpec, past: &Past, (now_c, now_s): &Views<'_>, phi: f64) {
        let (n_c, n_s) = (now_c.n() as f64, now_s.n() as f64);
        if let Some(caps) = Caps::of(spec, past) {
            self.push_counts(spec, &caps, (now_c, now_s), phi);
            return;
        }
        match (past, &self.canary.totals, now_c, now_s) {
            (Past::Rate(past), Totals::Rate(total), View::Rate(now_c), View::Rate(now_s)) => {
                let b = past.current().b_hat();
                let a = (total.k() as f64 + PRIOR * b) / (total.n() as f64 + PRIOR);
                self.squared_skewness = squared_skewness(b);
                if let Some((x, y)) = now_c.value().zip(now_s.value()) {
                    self.difference.push(x - y, phi * (a * (1.0 - a) / n_c + b * (1.0 - b) / n_s));
                }
            }
            (Past::Count(past), Totals::Count(total), View::Events(now_c), View::Events(now_s)) => {
                let b = past.b_hat();
                let a = (total.k() as f64 + PRIOR * b) / (total.exposure() as f64 + PRIOR);
                self.squared_skewness = 1.0 / b;
                if spec.one_arm() {
                    self.difference.push(now_c.value().unwrap_or(0.0), phi * a / n_c);
                } else if let Some((x, y)) = now_c.value().zip(now_s.value()) {
                    self.difference.push(x - y, phi * (a / n_c + b / n_s));
                }
            }
            (Past::Mean(past), Totals::Mean(total, _), View::Grid(now_c), View::Grid(now_s)) => {
                let past = past.current();
                let past_variance = past.variance().max(1e-6);
                let weight = total.n() / (total.n() + PRIOR);
                let canary_variance = weight * total.variance() + (1.0 - weight) * past_variance;
                self.squared_skewness = past.squared_skewness();
                if spec.one_arm() {
                    if let Some(x) = mean(now_c) {
                        self.difference.push(x, phi * canary_variance / n_c);
                    }
                } else if let Some((x, y)) = mean(now_c).zip(mean(now_s)) {
                    self.difference.push(x - y, phi * (canary_variance / n_c + past_variance / n_s));
                }
            }
            (Past::Hist(past), _, View::Hist(now_c), View::Hist(now_s)) => {
                // Exceedances of control's quantile, for `better`.
                if let Measure::Quantile { level } = spec.measure
                    && let Some(key) = past.current(level).key_at(level)
                    && let Some((x, y)) = exceedances(now_c, key).value().zip(exceedances(now_s, key).value())
                {
                    let b = past.current(level).tail(key);
                    self.squared_skewness = squared_skewness(b);
                    self.difference.push(x - y, phi * b * (1.0 - b) * (1.0 / n_c + 1.0 / n_s));
                }
            }
            _ => {}
        }
        self.canary.push(now_c, phi);
        self.control.push(now_s, phi);
    }

    /// Adds event counts; counts above the cap are replaced by the cap.
    fn push_counts(&mut self, spec: &HypothesisSpec, caps: &Caps, (now_c, now_s): (&View<'_>, &View<'_>), phi: f64) {
        let past_variance = caps.past.variance().max(1e-6) * caps.cap * caps.cap;
        if let Totals::Mean(total, _) = &self.canary.totals {
            let weight = total.n() / (total.n() + PRIOR);
            let canary_variance = weight * total.spread() + (1.0 - weight) * past_variance;
            let (of_canary, of_control) = (canary_variance / now_c.n() as f64, past_variance / now_s.n() as f64);
            self.squared_skewness = caps.past.squared_skewness();
            let (x, y) = (mean(&caps.capped(now_c).0), mean(&caps.capped(now_s).0));
            match (x, y) {
                (Some(x), _) if spec.one_arm() => self.difference.push(x, phi * of_canary),
                (Some(x), Some(y)) => self.difference.push(x - y, phi * (of_canary + of_control)),
                _ => {}
            }
        }
        for (arm, now) in [(&mut self.canary, now_c), (&mut self.control, now_s)] {
            let (capped, above) = caps.capped(now);
            arm.at_cap += above;
            arm.add(&View::Grid(capped), phi);
        }
    }

    /// Estimates and effect. For a mix of classes the effect is that of the share of `culprit`.
    pub(super) fn effect(&self, spec: &HypothesisSpec, culprit: Option<&str>) -> Effect {
        let (canary, control) = (estimate(&self.canary, spec), estimate(&self.control, spec));
        let mut effect = Effect { canary, control, ..Effect::default() };
        if let Measure::CappedMean { .. } | Measure::Counts { .. } = spec.measure {
            effect.at_cap = (canary.n > 0).then(|| self.canary.at_cap as f64 / canary.n as f64);
        }
        match spec.against {
            Against::Limit { fail, .. } => {
                effect.difference = canary.value.map(|value| value - fail);
                let (low, high) = match spec.measure {
                    Measure::Count => self.mean_interval(spec),
                    measure if measure.is_mean() => self.mean_interval(spec),
                    _ => arm_interval(&self.canary, spec, spec.interval_alpha, t_opt(&self.canary, spec)),
                };
                effect.low = low.map(|low| low - fail);
                effect.high = high.map(|high| high - fail);
            }
            Against::Control(margin) if spec.one_arm() => {
                effect.margin = margin.absolute.or(Some(0.0));
                effect.difference = canary.value;
                (effect.low, effect.high) = self.mean_interval(spec);
                let interval = effect.low.zip(effect.high);
                effect.better = interval.is_some_and(|interval| is_better(spec, interval));
            }
            Against::Control(margin) => {
                effect.margin = match spec.measure {
                    Measure::Distribution | Measure::Classes => margin.absolute.or(Some(0.0)),
                    _ => control.value.map(|value| margin.at(value)),
                };
                self.against_control(spec, culprit, &mut effect);
            }
        }
        effect
    }

    /// Gives an effect without an interval a wider one, for readers who look before there are enough answers or any events.
    /// It uses the exact intervals of both arms, which hold from the first answer on.
    pub(super) fn bound_early(&self, spec: &HypothesisSpec, effect: &mut Effect) {
        if effect.low.is_some() || effect.high.is_some() {
            return;
        }
        let distance = |arm: &Arm| {
            let radius = ecdf_radius(arm.worth, 0.5 * spec.interval_alpha);
            radius.or_else(|| (arm.worth > 0.0).then_some(1.0))
        };
        let from = match spec.against {
            Against::Limit { fail, .. } => fail,
            Against::Control(_) => 0.0,
        };
        let alone = |arm, alpha| arm_interval(arm, spec, alpha, EARLY);
        (effect.low, effect.high) = if spec.measure == Measure::Distribution {
            let bounds = effect.difference.zip(distance(&self.canary).zip(distance(&self.control)));
            bounds.map(|(d, (one, two))| ((d - one - two).max(0.0), (d + one + two).min(1.0))).unzip()
        } else if spec.one_arm() {
            let (low, high) = alone(&self.canary, spec.interval_alpha);
            (low.map(|low| low - from), high.map(|high| high - from))
        } else {
            let alpha = 0.5 * spec.interval_alpha;
            let ((low_c, high_c), (low_s, high_s)) = (alone(&self.canary, alpha), alone(&self.control, alpha));
            (low_c.zip(high_s).map(|(low, high)| low - high), high_c.zip(low_s).map(|(high, low)| high - low))
        };
    }

    /// The class, among those of the canary that `among` selects, whose share exceeds control's most. Ties go to the first
    /// class in the fixed order of the counts. `None` for other measures.
    pub(super) fn most_risen(&self, among: impl Fn(&str) -> bool) -> Option<&str> {
        let (Totals::Classes(canary), Totals::Classes(control)) = (&self.canary.totals, &self.control.totals) else {
            return None;
        };
        let rise = |class| share(canary, class).zip(share(control, class)).map(|(x, y)| x - y);
        let classes = canary.iter().map(|(class, _)| class).filter(|class| among(class));
        let rises = classes.filter_map(|class| Some((class, rise(class)?)));
        rises.reduce(|best, next| if next.1 > best.1 { next } else { best }).map(|(class, _)| class)
    }

    /// For histograms: the largest difference, over all thresholds, between the share of the canary's values above the
    /// threshold and control's share.
    pub(super) fn excess(&self) -> Option<f64> {
        match (&self.canary.totals, &self.control.totals) {
            (Totals::Hist(canary), Totals::Hist(control)) => largest_excess(canary, control),
            _ => None,
        }
    }

    fn against_control(&self, spec: &HypothesisSpec, culprit: Option<&str>, effect: &mut Effect) {
        let stratified = self.stratified(spec);
        match (&self.canary.totals, &self.control.totals) {
            (Totals::Hist(canary), Totals::Hist(control)) if spec.measure == Measure::Distribution => {
                effect.difference = largest_difference(canary, control);
                let radius = |arm: &Arm| ecdf_radius(arm.worth, 0.5 * spec.interval_alpha);
                if let Some((d, (one, two))) = effect.difference.zip(radius(&self.canary).zip(radius(&self.control))) {
                    effect.low = Some((d - one - two).max(0.0));
                    effect.high = Some((d + one + two).min(1.0));
                }
            }
            (Totals::Classes(canary), Totals::Classes(control)) => {
                if let Some(class) = culprit.or_else(|| most_different(canary, control)) {
                    effect.canary.value = share(canary, class);
                    effect.control.value = share(control, class);
                }
                self.two_intervals(spec, 0.5 * spec.interval_alpha / CLASSES, effect);
            }
            (Totals::Hist(_), _) => {
                self.two_intervals(spec, 0.5 * spec.interval_alpha, effect);
                effect.better = stratified.is_some_and(|interval| is_better(spec, interval));
            }
            _ => {
                let (_, width) = spec.scale();
                effect.difference = self.difference.value().map(|value| value * width);
                effect.low = stratified.map(|(low, _)| low * width);
                effect.high = stratified.map(|(_, high)| high * width);
                effect.better = stratified.is_some_and(|interval| is_better(spec, interval));
            }
        }
    }

    /// Difference of two estimates. The interval of each arm has the error rate `alpha`.
    fn two_intervals(&self, spec: &HypothesisSpec, alpha: f64, effect: &mut Effect) {
        effect.difference = effect.canary.value.zip(effect.control.value).map(|(x, y)| x - y);
        let ends = |arm: &Arm, estimate: ArmEstimate| match (&arm.totals, estimate.value) {
            (Totals::Classes(_), Some(value)) => rate_interval_of(value, arm.worth, alpha, t_opt(arm, spec)).unzip(),
            (Totals::Classes(_), None) => (None, None),
            _ => arm_interval(arm, spec, alpha, t_opt(arm, spec)),
        };
        let (low_c, high_c) = ends(&self.canary, effect.canary);
        let (low_s, high_s) = ends(&self.control, effect.control);
        effect.low = low_c.zip(high_s).map(|(low, high)| low - high);
        effect.high = high_c.zip(low_s).map(|(high, low)| high - low);
    }

    /// The stratified normal interval on the scale [0, 1], once there are enough answers for it.
    fn stratified(&self, spec: &HypothesisSpec) -> Option<(f64, f64)> {
        let worth = if spec.one_arm() { self.canary.worth } else { self.canary.worth.min(self.control.worth) };
        let enough = worth >= MIN_NORMAL.max(PER_SQUARED_SKEWNESS * self.squared_skewness);
        enough.then(|| self.difference.interval(spec.interval_alpha, spec.horizon))?
    }

    /// Interval of the canary's mean in the metric's unit.
    fn mean_interval(&self, spec: &HypothesisSpec) -> (Option<f64>, Option<f64>) {
        let (low, width) = spec.scale();
        self.stratified(spec).map(|ends| (low + width * ends.0, low + width * ends.1)).unzip()
    }
}

/// Whether an interval of the difference excludes zero on the good side.
fn is_better(spec: &HypothesisSpec, (low, high): (f64, f64)) -> bool {
    if spec.direction.sign() > 0.0 { high < 0.0 } else { low > 0.0 }
}

/// Squared skewness of a 0/1 variable with rate `p`.
fn squared_skewness(p: f64) -> f64 {
    (1.0 - 2.0 * p) * (1.0 - 2.0 * p) / (p * (1.0 - p))
}

fn t_opt(arm: &Arm, spec: &HypothesisSpec) -> f64 {
    (0.5 * arm.first * f64::from(spec.horizon.max(2))).max(1.0)
}

/// Trials that represent one unit of exposure when events are rare among them, so that their number is nearly Poisson.
const TRIALS: f64 = 1e4;

/// Number of answers at which an interval for the first look is tightest.
const EARLY: f64 = 300.0;

/// Exact interval of one arm, tightest after `t_opt` answers: of its rate, quantile, number of events or mean. Means of
/// bounded values are sub-Bernoulli like a rate.
fn arm_interval(arm: &Arm, spec: &HypothesisSpec, alpha: f64, t_opt: f64) -> (Option<f64>, Option<f64>) {
    match (&arm.totals, spec.measure) {
        (Totals::Count(events), _) => {
            let share = events.value().map(|value| value / TRIALS).filter(|share| *share <= 1.0);
            let of = |share| rate_interval_of(share, arm.worth * TRIALS, alpha, t_opt * TRIALS);
            share.and_then(of).map(|(low, high)| (low * TRIALS, high * TRIALS)).unzip()
        }
        (Totals::Mean(total, n), measure) if !matches!(measure, Measure::Counts { .. }) => {
            let (low, width) = spec.scale();
            let mean = (*n > 0).then(|| total.plain_mean().clamp(0.0, 1.0));
            let interval = mean.and_then(|mean| rate_interval_of(mean, arm.worth, alpha, t_opt));
            interval.map(|ends| (low + width * ends.0, low + width * ends.1)).unzip()
        }
        (Totals::Rate(rate), _) => {
            let interval = rate.value().and_then(|value| rate_interval_of(value, arm.worth, alpha, t_opt));
            interval.unzip()
        }
        (Totals::Hist(hist), Measure::Quantile { level }) => {
            let n = hist.total() as f64;
            let (low, high) = quantile_levels(arm.worth, level, alpha, t_opt).unzip();
            let low = low.map(|low| low * n).filter(|&rank| rank >= 1.0).map(|rank| rank.floor() as u64);
            let high = high.map(|high| high * n).filter(|&rank| rank < n).map(|rank| rank.floor() as u64 + 1);
            let low = low.and_then(|rank| hist.key_at_rank(rank)).map(lower_edge);
            let high = high.and_then(|rank| hist.key_at_rank(rank)).map(upper_edge);
            (low, high)
        }
        _ => (None, None),
    }
}

fn estimate(arm: &Arm, spec: &HypothesisSpec) -> ArmEstimate {
    let (low, width) = spec.scale();
    let value = match (&arm.totals, spec.measure) {
        (Totals::Rate(rate), _) => rate.value(),
        (Totals::Count(events), _) => events.value(),
        (Totals::Mean(total, n), _) => (*n > 0).then(|| low + width * total.plain_mean()),
        (Totals::Hist(hist), Measure::Quantile { level }) => hist.quantile(level),
        (Totals::Hist(_) | Totals::Classes(_), _) => None,
    };
    ArmEstimate { n: arm.totals.n(), value }
}

fn mean(grid: &Grid) -> Option<f64> {
    let (n, sum) = grid.iter().fold((0, 0.0), |(n, sum), &(x, count)| (n + count, sum + x * count as f64));
    (n > 0).then(|| sum / n as f64)
}

fn share(counts: &ClassCounts, class: &str) -> Option<f64> {
    (counts.total() > 0).then(|| counts.count(class) as f64 / counts.total() as f64)
}

/// The class whose shares differ most. Ties go to the first class in the fixed order of the counts.
fn most_different<'a>(canary: &'a ClassCounts, control: &'a ClassCounts) -> Option<&'a str> {
    let classes = canary.iter().chain(control.iter()).map(|(class, _)| class);
    let gap = |class| share(canary, class).zip(share(control, class)).map(|(x, y)| (x - y).abs());
    let gaps = classes.filter_map(|class| Some((class, gap(class)?)));
    gaps.reduce(|best, next| if next.1 > best.1 { next } else { best }).map(|(class, _)| class)
}

/// Largest difference between the two distribution functions over all bin edges.
fn largest_difference(one: &LogHist, two: &LogHist) -> Option<f64> {
    Some(largest_excess(one, two)?.max(largest_excess(two, one)?))
}

/// The largest difference, over all bin edges, between the share of values above the edge in `one` and in `two`; at least 0.
fn largest_excess(one: &LogHist, two: &LogHist) -> Option<f64> {
    if one.total() == 0 || two.total() == 0 {
        return None;
    }
    let above = |hist: &LogHist, key| hist.count_above(key) as f64 / hist.total() as f64;
    let keys = one.iter().chain(two.iter()).map(|(key, _)| key);
    Some(keys.map(|key| above(one, key) - above(two, key)).fold(0.0, f64::max))
}
