//! A reimplementation of Kayenta's judge for side-by-side comparison. Serin does not use it for any decision.
//!
//! Purpose: answer "what would Kayenta have reported?" on the same series, number for number and including quirks, so that a
//! team that migrates can compare verdicts and see where and why they differ.
//!
//! What it computes: per metric a fixed-sample Mann-Whitney interval for the shift between two time series, a tolerance of
//! 25 % of the *estimated shift*, an optional gate on a point estimate of the effect, and a weighted score of groups
//! (`NetflixACAJudge-v1.0`). Source: spinnaker/spinnaker at `8f1801da9ec2`, directory `kayenta/`, Apache-2.0. It was written
//! from scratch from a specification of Kayenta's behavior and checked against the cases that Kayenta's own tests assert.
//!
//! Quirks that are kept on purpose (and that Serin's own tests do not have):
//! - The tolerance is relative to the estimate, so it is not a margin of practical equivalence ([`classify()`]).
//! - The root search stops at an absolute 1e-4 in the metric's unit, so metrics in small units lose the interval ([`interval`]).
//! - Metrics with a negative mean practically never fail, because the mean ratio moves in the wrong direction.
//! - Missing data on both sides passes with the strategy [`NanStrategy::Replace`].
//! - A critical metric that ends in [`Label::Error`] is ignored, weights are not checked, and without any group the score is 0.
//!
//! One difference: if both sides are constant but different, Kayenta adds unseeded Gaussian noise. This crate has no random
//! source, so its noise is a fixed sequence. Compare only the classification in that case ([`Judged::noised`]).
//!
//! Invariant: an error of one metric gives the label [`Label::Error`], never a panic. As in Kayenta, an invalid
//! configuration is a [`ConfigError`] for the whole judgement.

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
pub use mann_whitney::{AllTied, ShiftInterval, ShiftRange, interval, normal_quantile, standardized};
pub use prepare::{
    Detector, NanStrategy, Summary, is_outlier, percentile, remove_nan, remove_outliers, replace_nan, summary,
};
pub use score::{GroupScore, Outcome, ScoreLabel, ScoreReport, Thresholds, passes_overall, score};

/// Share of the estimated shift that an interval must exceed.
pub const TOLERANCE: f64 = 0.25;
/// Confidence level of the interval for the shift.
pub const CONFIDENCE: f64 = 0.98;
/// A value is an outlier if it is outside the quartiles by more than this many interquartile ranges.
pub const OUTLIER_FACTOR: f64 = 3.0;
