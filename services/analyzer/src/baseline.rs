//! What warm-up saw of stable: whether a canary can be compared with its answers, and which metrics have a value at all. Values
//! in later windows are counted too, so that a value that has never arrived is known.
//!
//! Applies since rules version 2.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serin_schemas::{
    ids::Span,
    records::{Arm, ArmCounts, NoDataReason, Role, Seen},
};
use serin_spec::{MetricSource, MetricSpec, Policy, WhenMissing};

use crate::{coverage::BOTH_ARMS, plan::Plan, standing::Issue, window::Merged};

/// Largest share of warm-up's answers that may be bad.
const MOST_BAD: f64 = 0.5;
/// Once there are this many times the answers that warm-up needs, older answers fade, so that a past outage is not remembered for
/// as long as it lasted.
const FADES_AFTER: u64 = 2;
/// The least number of answers for [`FADES_AFTER`], where warm-up needs hardly any.
const FEWEST: u64 = 50;

/// The baseline of one rollout.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Baseline {
    /// Stable's answers in warm-up. Newer ones weigh more.
    answers: u64,
    failed: u64,
    refused: u64,
    redirected: u64,
    unusable: u64,
    /// By index of the metric: the answers that could carry its value, and those that did. A missing label that counts as 0 is not a value
    /// here.
    metrics: BTreeMap<usize, [u64; 2]>,
}

/// An arm's answers that values can be taken from.
fn answered(counts: &ArmCounts) -> u64 {
    counts.predictions.saturating_sub(counts.errors + counts.refused + counts.redirected).max(0) as u64
}

/// An arm's answers that warm-up learns from.
pub(crate) fn good(counts: &ArmCounts) -> u64 {
    answered(counts).saturating_sub(counts.invalid as u64)
}

impl Baseline {
    /// Takes stable's outcomes in a window of warm-up.
    pub(crate) fn learn(&mut self, plan: &Plan, counts: &ArmCounts) {
        let more = [counts.predictions, counts.errors, counts.refused, counts.redirected, counts.invalid];
        let sums = [&mut self.answers, &mut self.failed, &mut self.refused, &mut self.redirected, &mut self.unusable];
        let most = FADES_AFTER * plan.spec.warmup.min_events.max(FEWEST);
        let fades = sums[0].saturating_add(more[0] as u64) > most;
        for (sum, more) in sums.into_iter().zip(more) {
            *sum = sum.saturating_add(more as u64);
            if fades {
                *sum /= 2;
            }
        }
    }

    /// Takes the values that these arms' answers in a window of a stream carry.
    pub(crate) fn see(&mut self, plan: &Plan, stream: Span, window: &Merged, arms: &[Arm]) {
        for (index, metric) in plan.metrics.iter().enumerate() {
            if metric.maturity != stream || metric.paired {
                continue;
            }
            let sums = self.metrics.entry(index).or_default();
            for &arm in arms {
                let answers = window.arms.get(&arm).map_or(0, answered);
                let values = window.labelled(plan, arm, index);
                sums[0] = sums[0].saturating_add(answers);
                sums[1] = sums[1].saturating_add(values.min(answers));
            }
        }
    }

    /// The share of stable's calls that failed in warm-up.
    pub(crate) fn failed(&self) -> f64 {
        self.failed as f64 / self.answers.max(1) as f64
    }

    /// The share of stable's calls that were refused in warm-up.
    pub(crate) fn refused(&self) -> f64 {
        self.refused as f64 / self.answers.max(1) as f64
    }

    /// The share of all answers so far that carried a metric's value.
    pub(crate) fn share(&self, metric: usize) -> f64 {
        let [answers, values] = self.metrics.get(&metric).copied().unwrap_or_default();
        values as f64 / answers.max(1) as f64
    }

    /// The number of answers so far, if at least `least` could have got the label of a metric that counts a missing label as 0,
    /// and none did: then nothing shows that feedback uses this name, and every value is a 0 that stands for a missing label.
    pub(crate) fn never_labelled(&self, plan: &Plan, metric: usize, least: u64) -> Option<u64> {
        let spec = &plan.spec.metrics[metric];
        let fills = spec.source.needs_label() && spec.when_missing == WhenMissing::Zero;
        let [answers, values] = self.metrics.get(&metric).copied().filter(|_| fills)?;
        (values == 0 && answers >= least.max(1)).then_some(answers)
    }

    /// Starts the counts of metrics again whose missing labels count as 0. An older build counted these zeros as values.
    pub(crate) fn forget_zeros(&mut self, plan: &Plan) {
        self.metrics.retain(|&index, _| plan.spec.metrics[index].when_missing != WhenMissing::Zero);
    }

    /// The answers and values that each metric has seen.
    pub(crate) fn seen(&self, plan: &Plan) -> Vec<Seen> {
        let known = plan.spec.metrics.iter().enumerate().filter(|(index, _)| !plan.metrics[*index].paired);
        let seen = known.map(|(index, metric)| {
            let [answers, values] = self.metrics.get(&index).copied().unwrap_or_default();
            Seen { metric: metric.name.clone(), answers: answers as i64, values: values as i64 }
        });
        seen.collect()
    }

    /// Whether a gate that could hold warm-up has no value so far, and too few answers have had the time to get a label for an
    /// [issue](Self::issues). Labels arrive later than the answers that end warm-up. A metric of which no window has matured is not
    /// waited for: its labels may take days, and the steps wait for them.
    pub(crate) fn waits_for_labels(&self, plan: &Plan) -> bool {
        let enough = plan.spec.warmup.min_events.max(1);
        self.metrics.iter().any(|(&index, &[answers, values])| {
            let metric = &plan.spec.metrics[index];
            let can_hold = matches!(missing_policy(plan, metric), Policy::Hold | Policy::Rollback);
            metric.needs_label() && can_hold && !plan.metrics[index].one_arm && values == 0 && answers < enough
        })
    }

    /// The issues that make warm-up unfit for a comparison.
    pub(crate) fn issues(&self, plan: &Plan) -> Vec<Issue> {
        let policies = &plan.spec.no_data;
        let enough = plan.spec.warmup.min_events.max(1);
        let mut issues = Vec::new();
        let others = [
            (self.failed, "failed"),
            (self.refused, "refused"),
            (self.redirected, "redirected"),
            (self.unusable, "unusable"),
        ];
        let bad: u64 = others.iter().map(|(count, _)| count).sum();
        let is_enough = self.answers >= enough.min(plan.spec.decision.min_answers.max(1));
        if is_enough && bad as f64 > MOST_BAD * self.answers as f64 {
            let parts = others.iter().filter(|(count, _)| *count > 0).map(|(count, name)| format!("{count} {name}"));
            let text = format!(
                "{bad} of the last {} answers of stable are bad ({}): there is nothing to compare a canary with",
                self.answers,
                parts.collect::<Vec<_>>().join(", ")
            );
            issues.push(Issue::new(NoDataReason::NoBaseline, policies.baseline, text));
        }
        // A missing output also causes missing values of metrics that need its label, so it comes first.
        let labels = |(index, _): &(&usize, &[u64; 2])| plan.spec.metrics[**index].needs_label();
        let (later, first): (Vec<_>, Vec<_>) = self.metrics.iter().partition(labels);
        for (&index, &[answers, values]) in first.into_iter().chain(later) {
            if values > 0 || answers < enough {
                continue;
            }
            let metric = &plan.spec.metrics[index];
            // A metric with a limit can be judged by the canary's values alone. For `unusable`, a missing value is not a wrong name: the
            // router did not read the answers.
            let only_warns = plan.metrics[index].one_arm || metric.source == MetricSource::Unusable;
            let policy = if only_warns { Policy::Warn } else { missing_policy(plan, metric) };
            let text = format!("{} has no data: none of {answers} answers of stable {}", metric.name, lacks(metric));
            issues.push(Issue::new(NoDataReason::ValueMissing, policy, text).of(index).about(BOTH_ARMS));
        }
        issues
    }
}

/// What to do about a metric without data. A metric that decides nothing does not hold anything up.
pub(crate) fn missing_policy(plan: &Plan, metric: &MetricSpec) -> Policy {
    let policies = &plan.spec.no_data;
    match metric.role {
        Role::Gate if metric.needs_label() => policies.labels_missing,
        Role::Gate => policies.value_missing,
        Role::Score | Role::Watch => Policy::Warn,
    }
}

/// What answers without a metric's value lack: `carried the output "score"`.
pub(crate) fn lacks(metric: &MetricSpec) -> String {
    if !metric.filters.is_empty() {
        return "met all conditions of `where` and had the value; check that the conditions use names and values that occur".to_owned();
    }
    match &metric.source {
        MetricSource::Wrong { output, label, .. }
        | MetricSource::WrongClass { output, label }
        | MetricSource::LogLoss { output, label }
        | MetricSource::SquaredError { output, label }
        | MetricSource::AbsoluteError { output, label }
        | MetricSource::Ranking { output, label, .. } => format!(
            "had the output {output:?} and, within {}, the label {label:?}; check that `outputs` and feedback use these names",
            metric.maturity
        ),
        source if source.needs_label() => {
            let label = source.label().unwrap_or_default();
            let maturity = metric.maturity;
            format!(
                "got the label {label:?} within {maturity}; check that feedback uses this name and the prediction ids"
            )
        }
        MetricSource::Output(name) | MetricSource::Class { output: name, .. } => {
            format!("carried the output {name:?}; check that `outputs` finds it under the name that the servers use")
        }
        MetricSource::Latency => "had a latency".to_owned(),
        _ => "carried its value".to_owned(),
    }
}
