//! A whole judgement: every metric prepared and classified, then one score.

use super::classify::{Gates, Judged, MetricRule, classify};
use super::prepare::{Detector, NanStrategy, Summary, remove_outliers, summary};
use super::score::{GroupScore, Outcome, ScoreLabel, Thresholds, score};
use super::{CONFIDENCE, TOLERANCE};
use super::{Direction, Measure};

/// Kayenta's settings of one metric (`analysisConfigurations.canary`).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MetricConfig {
    /// Which change is a failure.
    pub direction: Direction,
    /// What becomes of missing values.
    pub nan: NanStrategy,
    /// A failure makes the whole score 0.
    pub critical: bool,
    /// An empty side fails the metric.
    pub must_have_data: bool,
    /// Reported, but not counted.
    pub muted: bool,
    /// The factor with which outliers are removed; `None` keeps them.
    pub remove_outliers: Option<f64>,
    /// The effect size of the gates.
    pub measure: Measure,
    /// A rise below this effect passes; `None`: no effect.
    pub allowed_increase: Option<f64>,
    /// A drop above this effect passes.
    pub allowed_decrease: Option<f64>,
    /// From this effect on, a failing rise of a critical metric is critical.
    pub critical_increase: Option<f64>,
    /// From this effect on, a failing drop of a critical metric is critical.
    pub critical_decrease: Option<f64>,
}

impl MetricConfig {
    /// The rule that the judge applies: tolerance and confidence level are constants, whatever was configured.
    pub fn rule(&self) -> MetricRule {
        let neutral = self.measure.neutral();
        let gates = |increase: Option<f64>, decrease: Option<f64>| Gates {
            increase: increase.unwrap_or(neutral),
            decrease: decrease.unwrap_or(neutral),
        };
        MetricRule {
            direction: self.direction,
            nan: self.nan,
            critical: self.critical,
            must_have_data: self.must_have_data,
            tolerance: TOLERANCE,
            confidence: CONFIDENCE,
            measure: self.measure,
            allowed: gates(self.allowed_increase, self.allowed_decrease),
            critical_at: gates(self.critical_increase, self.critical_decrease),
        }
    }
}

/// One pair of series.
#[derive(Clone, Debug, PartialEq)]
pub struct MetricPair {
    /// The metric's name; several pairs may share it.
    pub name: String,
    /// The groups it counts in.
    pub groups: Vec<String>,
    /// Its settings.
    pub config: MetricConfig,
    /// The baseline's points; NaN is missing.
    pub control: Vec<f64>,
    /// The canary's points; NaN is missing.
    pub experiment: Vec<f64>,
}

/// Why nothing was judged at all.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ConfigError {
    /// The factor for outliers.
    #[error("metric {metric}: the outlier factor {factor} must be above 0")]
    OutlierFactor {
        /// The metric.
        metric: String,
        /// What was given.
        factor: f64,
    },
}

/// One metric's line of the result.
#[derive(Clone, Debug, PartialEq)]
pub struct JudgedMetric {
    /// The metric.
    pub name: String,
    /// The verdict.
    pub judged: Judged,
    /// Reported, but not counted.
    pub muted: bool,
    /// The baseline, as it was judged.
    pub control: Summary,
    /// The canary, as it was judged.
    pub experiment: Summary,
}

/// The result of a judgement.
#[derive(Clone, Debug, PartialEq)]
pub struct Judgement {
    /// The summary score.
    pub score: f64,
    /// Its word.
    pub label: ScoreLabel,
    /// Why the score is 0 whatever the groups say.
    pub reason: Option<String>,
    /// Per group.
    pub groups: Vec<GroupScore>,
    /// Per pair, in the order given.
    pub metrics: Vec<JudgedMetric>,
}

fn prepare(values: &[f64], config: &MetricConfig) -> Vec<f64> {
    let values = config.nan.apply(values);
    match config.remove_outliers {
        None => values,
        Some(factor) => remove_outliers(&values, Detector::Iqr { factor, reduce_sensitivity: true }),
    }
}

fn judge_metric(pair: &MetricPair) -> Result<JudgedMetric, ConfigError> {
    if let Some(factor) = pair.config.remove_outliers.filter(|factor| factor.is_nan() || *factor <= 0.0) {
        return Err(ConfigError::OutlierFactor { metric: pair.name.clone(), factor });
    }
    let (control, experiment) = (prepare(&pair.control, &pair.config), prepare(&pair.experiment, &pair.config));
    Ok(JudgedMetric {
        name: pair.name.clone(),
        judged: classify(&control, &experiment, &pair.config.rule()),
        muted: pair.config.muted,
        control: summary(&control),
        experiment: summary(&experiment),
    })
}

/// What Kayenta's judge says of these pairs, with the configured weights per group (not checked, as there).
pub fn judge(
    pairs: &[MetricPair],
    weights: &[(String, f64)],
    thresholds: Thresholds,
) -> Result<Judgement, ConfigError> {
    let metrics = pairs.iter().map(judge_metric).collect::<Result<Vec<_>, _>>()?;
    let outcomes: Vec<Outcome> = pairs
        .iter()
        .zip(&metrics)
        .filter(|(_, metric)| !metric.muted)
        .map(|(pair, metric)| Outcome {
            label: metric.judged.label,
            critical: metric.judged.critical,
            groups: pair.groups.clone(),
        })
        .collect();
    let scores = score(&outcomes, weights);
    Ok(Judgement {
        score: scores.summary,
        label: thresholds.label(scores.summary),
        reason: scores.reason,
        groups: scores.groups,
        metrics,
    })
}
