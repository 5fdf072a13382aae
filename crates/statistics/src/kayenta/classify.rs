//! The verdict on one metric.

use super::effect::{cles, mean_ratio};
use super::mann_whitney::{AllTied, ShiftInterval, interval, normal_quantile};
use super::prepare::{NanStrategy, mean};
use super::{CONFIDENCE, TOLERANCE};

/// Which change is a failure.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Direction {
    /// Only an increase.
    Increase,
    /// Only a decrease.
    Decrease,
    /// Either change.
    #[default]
    Either,
}

impl Direction {
    /// Parses Kayenta's word. Unknown words mean [`Self::Either`].
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
    /// No failure was found.
    Pass,
    /// The canary is higher than allowed.
    High,
    /// The canary is lower than allowed.
    Low,
    /// A side has no values.
    Nodata,
    /// A side has no values, and the metric requires data.
    NodataFailMetric,
    /// The verdict could not be computed.
    Error,
}

impl Label {
    /// Kayenta's name for the label.
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

/// The effect size that the gates use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Measure {
    /// Ratio of the means.
    #[default]
    MeanRatio,
    /// Common language effect size.
    Cles,
}

impl Measure {
    /// Parses Kayenta's word. Any word except `cles` means the ratio of the means.
    pub fn parse(word: &str) -> Self {
        if word == "cles" { Self::Cles } else { Self::MeanRatio }
    }

    /// The value that means "no effect", which is the default of every gate.
    pub fn neutral(self) -> f64 {
        match self {
            Self::MeanRatio => 1.0,
            Self::Cles => 0.5,
        }
    }
}

/// Effect sizes beyond which a change counts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Gates {
    /// An increase below this value passes.
    pub increase: f64,
    /// A decrease above this value passes.
    pub decrease: f64,
}

/// How a metric is judged.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MetricRule {
    /// Which change is a failure.
    pub direction: Direction,
    /// How to treat missing values. The values themselves are prepared before this rule is applied.
    pub nan: NanStrategy,
    /// Whether a failure makes the whole score 0.
    pub critical: bool,
    /// Whether an empty side fails the metric, if the metric is not critical.
    pub must_have_data: bool,
    /// Share of the estimated shift that the interval must exceed.
    pub tolerance: f64,
    /// Confidence level of the interval.
    pub confidence: f64,
    /// The effect size that both gates use.
    pub measure: Measure,
    /// Effects at which a change fails.
    pub allowed: Gates,
    /// Effects at which a failure of a critical metric is critical.
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

/// The result for one metric.
#[derive(Clone, Debug, PartialEq)]
pub struct Judged {
    /// The judge's verdict on the metric.
    pub label: Label,
    /// Whether the metric makes the whole score 0 unless it passed.
    pub critical: bool,
    /// Ratio of the means, reported as `ratio`; NaN if a mean is 0, 1 if nothing was compared.
    pub deviation: f64,
    /// The interval for the shift, if one was computed.
    pub shift: Option<ShiftInterval>,
    /// Whether both sides are constant but different. Noise was then added, so in Kayenta the numbers differ from run to run.
    pub noised: bool,
    /// The reason, where Kayenta gives one.
    pub reason: Option<String>,
}

impl Judged {
    fn plain(label: Label, deviation: f64) -> Self {
        Self { label, critical: false, deviation, shift: None, noised: false, reason: None }
    }
}

/// The result for an empty side. `deviation` is what a plain `Nodata` reports; the two classifiers differ in it.
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

/// `v` with noise of standard deviation `v x 1e-5`, one value per position: the quantiles of the golden-ratio sequence,
/// which covers (0, 1) evenly and never repeats.
fn with_noise(value: f64, length: usize, phase: f64) -> Vec<f64> {
    const STEP: f64 = 0.618_033_988_749_894_9;
    (0..length)
        .map(|i| {
            let u = phase + (i + 1) as f64 * STEP;
            value + normal_quantile(u - libm::floor(u)) * value * 1e-5
        })
        .collect()
}

/// Kayenta's verdict on one metric from the interval for the shift. Both sides must already be prepared
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
            Some("the comparison failed: all observations are tied, or the confidence level is not valid".to_owned());
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

/// Kayenta's benchmark classifier, which compares the means without any test.
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
