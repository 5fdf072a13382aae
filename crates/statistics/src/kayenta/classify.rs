//! One metric's verdict.

use super::effect::{cles, mean_ratio};
use super::mann_whitney::{AllTied, ShiftInterval, interval, normal_quantile};
use super::prepare::{NanStrategy, mean};
use super::{CONFIDENCE, TOLERANCE};

/// Which change is a failure.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Direction {
    /// Only a rise.
    Increase,
    /// Only a drop.
    Decrease,
    /// Both.
    #[default]
    Either,
}

impl Direction {
    /// Unknown words mean [`Self::Either`].
    pub fn parse(word: &str) -> Self {
        match word {
            "increase" => Self::Increase,
            "decrease" => Self::Decrease,
            _ => Self::Either,
        }
    }
}

/// The verdict on a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Label {
    /// Nothing found.
    Pass,
    /// The canary is higher than it may be.
    High,
    /// The canary is lower than it may be.
    Low,
    /// A side has no values.
    Nodata,
    /// A side has no values, and the metric must have some.
    NodataFailMetric,
    /// It could not be computed.
    Error,
}

impl Label {
    /// Kayenta's word for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pass => "Pass",
            Self::High => "High",
            Self::Low => "Low",
            Self::Nodata => "Nodata",
            Self::NodataFailMetric => "NodataFailMetric",
            Self::Error => "Error",
        }
    }
}

/// The effect size that the gates look at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Measure {
    /// Ratio of the means.
    #[default]
    MeanRatio,
    /// Common language effect size.
    Cles,
}

impl Measure {
    /// Any other word than `cles` means the ratio of the means.
    pub fn parse(word: &str) -> Self {
        if word == "cles" { Self::Cles } else { Self::MeanRatio }
    }

    /// The value of "no effect", default of every gate.
    pub fn neutral(self) -> f64 {
        match self {
            Self::MeanRatio => 1.0,
            Self::Cles => 0.5,
        }
    }
}

/// Effect sizes from which on a change counts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Gates {
    /// A rise below it passes.
    pub increase: f64,
    /// A drop above it passes.
    pub decrease: f64,
}

/// How a metric is judged.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MetricRule {
    /// Which change is a failure.
    pub direction: Direction,
    /// What an empty side means (the values themselves are prepared before).
    pub nan: NanStrategy,
    /// A failure makes the whole score 0.
    pub critical: bool,
    /// An empty side fails the metric (if it is not critical).
    pub must_have_data: bool,
    /// Share of the estimated shift that the interval must clear.
    pub tolerance: f64,
    /// Confidence level of the interval.
    pub confidence: f64,
    /// The effect size of both gates.
    pub measure: Measure,
    /// From which effect on a change fails.
    pub allowed: Gates,
    /// From which effect on a failure of a critical metric is critical.
    pub critical_at: Gates,
}

impl Default for MetricRule {
    fn default() -> Self {
        let neutral = Gates { increase: 1.0, decrease: 1.0 };
        Self {
            direction: Direction::Either,
            nan: NanStrategy::Remove,
            critical: false,
            must_have_data: false,
            tolerance: TOLERANCE,
            confidence: CONFIDENCE,
            measure: Measure::MeanRatio,
            allowed: neutral,
            critical_at: neutral,
        }
    }
}

/// What came out of one metric.
#[derive(Clone, Debug, PartialEq)]
pub struct Judged {
    /// The verdict.
    pub label: Label,
    /// Whether it makes the whole score 0 (unless it passed).
    pub critical: bool,
    /// Ratio of the means, reported as `ratio`; NaN if a mean is 0, 1 where nothing was compared.
    pub deviation: f64,
    /// The interval for the shift, where one was computed.
    pub shift: Option<ShiftInterval>,
    /// Both sides are constant but different: noise was added, so numbers differ from run to run in Kayenta.
    pub noised: bool,
    /// Why, where Kayenta gives a reason.
    pub reason: Option<String>,
}

impl Judged {
    fn plain(label: Label, deviation: f64) -> Self {
        Self { label, critical: false, deviation, shift: None, noised: false, reason: None }
    }
}

/// An empty side: `deviation` is what a plain `Nodata` reports (the two classifiers differ there).
fn without_data(rule: &MetricRule, deviation: f64) -> Judged {
    let reason = Some("a side has no values".to_owned());
    match (rule.nan, rule.must_have_data && !rule.critical) {
        (NanStrategy::Replace, _) => Judged::plain(Label::Pass, 1.0),
        (NanStrategy::Remove, true) => Judged { reason, ..Judged::plain(Label::NodataFailMetric, 1.0) },
        (NanStrategy::Remove, false) => {
            Judged { reason, critical: rule.critical, ..Judged::plain(Label::Nodata, deviation) }
        }
    }
}

#[expect(clippy::float_cmp, reason = "Kayenta compares for exact equality")]
fn same_values(x: &[f64], y: &[f64]) -> bool {
    let sorted = |values: &[f64]| {
        let mut values = values.to_vec();
        values.sort_by(f64::total_cmp);
        values
    };
    x.len() == y.len() && sorted(x).iter().zip(sorted(y)).all(|(a, b)| *a == b)
}

#[expect(clippy::float_cmp, reason = "Kayenta compares for exact equality")]
fn constant(values: &[f64]) -> Option<f64> {
    let first = *values.first()?;
    values.iter().all(|&value| value == first).then_some(first)
}

/// `v` with noise of standard deviation `v x 1e-5`, one value per place: the quantiles of the golden-ratio sequence, which
/// is spread evenly over (0, 1) and never repeats.
fn with_noise(value: f64, length: usize, phase: f64) -> Vec<f64> {
    const STEP: f64 = 0.618_033_988_749_894_9;
    (0..length)
        .map(|i| {
            let u = phase + (i + 1) as f64 * STEP;
            value + normal_quantile(u - libm::floor(u)) * value * 1e-5
        })
        .collect()
}

/// Kayenta's verdict on one metric by the interval for the shift; the sides are prepared already
/// ([`NanStrategy::apply`], [`super::remove_outliers`]).
pub fn classify(control: &[f64], experiment: &[f64], rule: &MetricRule) -> Judged {
    if control.is_empty() || experiment.is_empty() {
        return without_data(rule, 1.0);
    }
    if same_values(control, experiment) {
        return Judged { reason: Some("both sides are identical".to_owned()), ..Judged::plain(Label::Pass, 1.0) };
    }
    match (constant(control), constant(experiment)) {
        (Some(y), Some(x)) if y - x == 0.0 => Judged::plain(Label::Pass, 1.0),
        (Some(y), Some(x)) => {
            let (y, x) = (with_noise(y, control.len(), 0.0), with_noise(x, experiment.len(), 0.25));
            Judged { noised: true, ..compare(&y, &x, rule) }
        }
        _ => compare(control, experiment, rule),
    }
}

fn compare(control: &[f64], experiment: &[f64], rule: &MetricRule) -> Judged {
    let Some(shift) = shift(control, experiment, rule.confidence) else {
        let reason =
            Some("the comparison failed: all observations are tied, or the confidence level is none".to_owned());
        return Judged { reason, ..Judged::plain(Label::Error, f64::NAN) };
    };
    let deviation = mean_ratio(control, experiment);
    let effect = match rule.measure {
        Measure::MeanRatio => deviation,
        Measure::Cles => cles(control, experiment),
    };
    let bound = rule.tolerance * shift.estimate.abs();
    let rises = |gate: f64| effect.is_nan() || effect >= gate;
    let drops = |gate: f64| effect.is_nan() || effect <= gate;
    let (label, critical) =
        if rule.direction != Direction::Decrease && shift.low > bound && rises(rule.allowed.increase) {
            (Label::High, rises(rule.critical_at.increase))
        } else if rule.direction != Direction::Increase && shift.high < -bound && drops(rule.allowed.decrease) {
            (Label::Low, drops(rule.critical_at.decrease))
        } else {
            (Label::Pass, false)
        };
    let reason = (label != Label::Pass).then(|| format!("classified as {}", label.name()));
    Judged { label, critical: critical && rule.critical, deviation, shift: Some(shift), noised: false, reason }
}

fn shift(control: &[f64], experiment: &[f64], confidence: f64) -> Option<ShiftInterval> {
    let known = (0.0..=1.0).contains(&((1.0 - confidence) / 2.0));
    known.then(|| interval(experiment, control, confidence)).and_then(|found: Result<_, AllTied>| found.ok())
}

/// Kayenta's benchmark classifier: whichever mean is larger, without any test.
pub fn classify_by_mean(control: &[f64], experiment: &[f64], rule: &MetricRule) -> Judged {
    if control.is_empty() || experiment.is_empty() {
        return without_data(rule, 0.0);
    }
    let (y, x) = (mean(control), mean(experiment));
    let label = if rule.direction != Direction::Decrease && x > y {
        Label::High
    } else if rule.direction != Direction::Increase && x < y {
        Label::Low
    } else {
        return Judged::plain(Label::Pass, 1.0);
    };
    let reason = Some(format!("classified as {} by the means", label.name()));
    Judged { critical: rule.critical, reason, ..Judged::plain(label, x / y) }
}
