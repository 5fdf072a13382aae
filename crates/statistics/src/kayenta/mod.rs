//! Kayenta's judge, rebuilt for comparison side by side. Nothing in Serin decides by it.
//!
//! Purpose: answer "what would Kayenta have said?" on the same series, number for number, quirks included, so that a team
//! that moves over can compare verdicts and see where and why they differ.
//!
//! What it is: per metric a fixed-sample Mann-Whitney interval for the shift between two time series, a tolerance of 25 % of
//! the *estimated shift*, an optional gate on a point estimate of the effect, and a weighted score of groups
//! (`NetflixACAJudge-v1.0`). Source: spinnaker/spinnaker at `8f1801da9ec2`, directory `kayenta/`, Apache-2.0; written
//! anew from a specification of its behaviour and checked against the cases its own tests assert.
//!
//! Quirks that are kept on purpose (and that Serin's own tests do not have):
//! - the tolerance is relative to the estimate, so it is no margin of practical equivalence ([`classify()`]);
//! - the root search stops at an absolute 1e-4 in the metric's unit, so small units lose the interval ([`interval`]);
//! - metrics with a negative mean practically never fail: the mean ratio moves the wrong way;
//! - missing data on both sides passes with the strategy [`NanStrategy::Replace`];
//! - a critical metric that ends in [`Label::Error`] is ignored, weights are not checked, no group at all scores 0.
//!
//! One difference: where both sides are constant but different, Kayenta adds unseeded Gaussian noise. This crate knows no
//! random source, so the noise is one fixed sequence; compare only the classification there ([`Judged::noised`]).
//!
//! Invariant: errors of one metric are the label [`Label::Error`], never a panic; a broken configuration is a
//! [`ConfigError`] for the whole judgement, as in Kayenta.

mod brent;
mod classify;
mod effect;
mod judge;
mod mann_whitney;
mod prepare;
mod score;

pub use classify::{Direction, Gates, Judged, Label, Measure, MetricRule, classify, classify_by_mean};
pub use effect::{cles, cohen_d, mean_ratio};
pub use judge::{ConfigError, JudgedMetric, Judgement, MetricConfig, MetricPair, judge};
pub(crate) use mann_whitney::rank_sum;
pub use mann_whitney::{AllTied, ShiftInterval, ShiftRange, interval, normal_quantile, standardised};
pub use prepare::{
    Detector, NanStrategy, Summary, is_outlier, percentile, remove_nan, remove_outliers, replace_nan, summary,
};
pub use score::{GroupScore, Outcome, ScoreLabel, ScoreReport, Thresholds, passes_overall, score};

/// Share of the estimated shift that an interval must clear.
pub const TOLERANCE: f64 = 0.25;
/// Confidence level of the interval for the shift.
pub const CONFIDENCE: f64 = 0.98;
/// Factor of the interquartile range beyond which a value is an outlier.
pub const OUTLIER_FACTOR: f64 = 3.0;
