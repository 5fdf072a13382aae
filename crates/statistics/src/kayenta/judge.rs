//! A whole judgement: prepares and classifies every metric, then computes one score.

use super::classify::{Gates, Judged, MetricRule, classify};
use super::prepare::{Detector, NanStrategy, Summary, remove_outliers, summary};
use super::score::{GroupScore, Outcome, ScoreLabel, Thresholds, score};
use super::{CONFIDENCE, TOLERANCE};
use super::{Direction, Measure};

/// Kayenta's settings for one metric (`analysisConfigurations.canary`).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MetricConfig {
    /// Which change is a failure.
    pub direction: Direction,
    /// How to treat missing values.
    pub nan: NanStrategy,
    /// Whether a failure makes the whole score 0.
    pub critical: bool,
    /// Whether an empty side fails the metric.
    pub must_have_data: bool,
    /// Whether the metric is reported but not counted.
    pub muted: bool,
    /// The factor for removing outliers; `None` keeps them.
    pub remove_outliers: Option<f64>,
    /// The effect size that the gates use.
    pub measure: Measure,
    /// An increase below this effect passes; `None` means the value for no effect.
    pub allowed_increase: Option<f64>,
    /// A decrease above this effect passes; `None` means the value for no effect.
    pub allowed_decrease: Option<f64>,
    /// At this effect or above, a failing increase of a critical metric is critical.
    pub critical_increase: Option<f64>,
    /// At this effect or below, a failing decrease of a critical metric is critical.
    pub critical_decrease: Option<f64>,
}

impl MetricConfig {
    /// The rule that the judge applies. Tolerance and confidence level are constants, regardless of the configuration.
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

/// A metric's pair of series.
#[derive(Clone, Debug, PartialEq)]
pub struct MetricPair {
    /// The metric's name; several pairs may share it.
    pub name: String,
    /// The groups in which the metric counts.
    pub groups: Vec<String>,
    /// The metric's settings.
    pub config: MetricConfig,
    /// The baseline's points; NaN means missing.
    pub control: Vec<f64>,
    /// The canary's points; NaN means missing.
    pub experiment: Vec<f64>,
}

/// Why the judgement could not be made at all.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ConfigError {
    /// The outlier factor is not valid.
    #[error("metric {metric}: the outlier factor {factor} must be above 0")]
    OutlierFactor {
        /// The name of the metric.
        metric: String,
        /// The factor that was given.
        factor: f64,
    },
}

/// The result line of one metric.
#[derive(Clone, Debug, PartialEq)]
pub struct JudgedMetric {
    /// The name of the metric.
    pub name: String,
    /// The verdict.
    pub judged: Judged,
    /// Whether the metric is reported but not counted.
    pub muted: bool,
    /// Statistics of the baseline after preparation.
    pub control: Summary,
    /// Statistics of the canary after preparation.
    pub experiment: Summary,
}

/// The result of a judgement.
#[derive(Clone, Debug, PartialEq)]
pub struct Judgement {
    /// The summary score.
    pub score: f64,
    /// The label of the score.
    pub label: ScoreLabel,
    /// Why the score is 0 regardless of the groups, if it is.
    pub reason: Option<String>,
    /// The scores per group.
    pub groups: Vec<GroupScore>,
    /// The results per pair, in the given order.
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

/// Kayenta's judgement of these pairs with the configured weights per group. As in Kayenta, the weights are not checked.
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
