//! Labels of the canary that are merely later than control's. A label that has not arrived is missing or counts as 0, so slow labels
//! look like a worse version. A metric on the delay of the same label shows the difference, and takes precedence.
//!
//! Applies since rules version 2.

use serin_kinds::Kind as _;
use serin_schemas::records::NoDataReason;
use serin_spec::{MetricKind, Policy};
use serin_statistics::{ln_weighted_average, rejects};

use crate::{arms::ALPHA, evidence::Evidence, rollout::Rollout, sentence::noun, standing::Issue};

/// Level at which a delay is suspected: enough to doubt the labels, but not enough to hold a rollout.
const SUSPICION: f64 = 0.05;
/// Chance that equal delays look as different as those that raise a doubt.
const CHANCE: f64 = 0.0005;
/// With fewer labels of the canary, nothing is known of their delay: even labels that all arrive late may do so by chance.
const FEW_LABELS: u64 = 4;

/// The delay metrics that show, or suggest, that the canary's labels arrive later, by their hypothesis over all traffic.
fn slower_labels(rollout: &Rollout, level: f64) -> Vec<usize> {
    let metrics = rollout.plan().spec.metrics.iter().enumerate().filter(|(_, metric)| metric.source.is_delay());
    let overall = metrics.filter_map(|(metric, _)| rollout.plan().overall(metric));
    let slower = |index: &usize| {
        let Some(evidence) = rollout.evidence().get(*index) else { return false };
        let found = evidence.failed_at.is_some() || rejects(evidence.test.max_ln_e_fail(), level);
        // A distribution is tested in both directions. Labels that arrive earlier do not explain missing ones.
        let kind = &rollout.plan().spec.metrics[rollout.plan().hypotheses[*index].metric].kind;
        let later = || {
            let difference = evidence.test.effect().difference;
            evidence.test.excess().zip(difference).is_none_or(|(later, apart)| later >= apart)
        };
        found && (!kind.has_many_parts() || later())
    };
    overall.filter(slower).collect()
}

fn label_of(rollout: &Rollout, hypothesis: usize) -> Option<&str> {
    rollout.plan().spec.metrics[rollout.plan().hypotheses[hypothesis].metric].source.label()
}

/// The issues about labels that arrive later. They come first among the issues of the evidence.
pub(crate) fn delay_issues(rollout: &Rollout) -> Vec<Issue> {
    if !rollout.plan().rules.need_data() {
        return Vec::new();
    }
    let issue = |index: usize| {
        let place = rollout.plan().hypotheses[index].metric;
        let metric = &rollout.plan().spec.metrics[place];
        let text = format!(
            "{}: the canary's {} is beyond its margin: its labels arrive later than control's, so they do not count against it; find \
             out why, or give them a longer maturity",
            metric.name,
            noun(metric)
        );
        let later = rollout.evidence()[index].test.effect().difference.unwrap_or_default();
        Issue::new(NoDataReason::LabelDelay, rollout.plan().spec.no_data.label_delay, text).of(place).sized(later)
    };
    slower_labels(rollout, ALPHA).into_iter().map(issue).collect()
}

/// Why the evidence against the canary does not count: all of it rests on labels that may merely arrive later. `None` if that is
/// not the case, or if the file says to ignore it.
pub(crate) fn may_be_late(rollout: &Rollout) -> Option<Issue> {
    let policy = rollout.plan().spec.no_data.label_delay;
    if !rollout.plan().rules.need_data() || policy != Policy::Hold {
        return None;
    }
    let mut slower = slower_labels(rollout, SUSPICION);
    slower.extend(visibly_slower(rollout));
    let unknown = unknown_delays(rollout);
    let labels: Vec<&str> = slower.iter().chain(&unknown).filter_map(|&index| label_of(rollout, index)).collect();
    let label = *labels.first()?;
    let doubtful = |index: usize| label_of(rollout, index).is_some_and(|label| labels.contains(&label));
    let sure =
        |index: usize| rollout.evidence()[index].failed_at.is_some() && rollout.plan().hypotheses[index].weight > 0.0;
    if (0..rollout.evidence().len()).any(|index| !doubtful(index) && sure(index)) {
        return None;
    }
    let rest: Vec<(f64, f64)> = rollout
        .counted()
        .into_iter()
        .enumerate()
        .map(|(index, (weight, ln_e))| (weight, if doubtful(index) { ln_e.min(0.0) } else { ln_e }))
        .collect();
    let decided = rejects(ln_weighted_average(&rest), rollout.plan().spec.decision.false_rollback);
    (!decided).then(|| {
        let what = match unknown.first().filter(|_| slower.is_empty()) {
            None => format!("the canary's label {label} arrives later than control's"),
            Some(&index) => {
                let (canary, control) = (rollout.evidence()[index].test.effect().canary.n, control_labels(rollout, index));
                format!(
                    "the canary's label {label} arrived in time {canary} times (control's {control} times), too rarely to know \
                     whether it is merely later"
                )
            }
        };
        let text = format!(
            "{what}, and all evidence against the canary rests on that label: find out why, or give it a longer maturity"
        );
        Issue::new(NoDataReason::LabelDelay, policy, text).about(failures_with(rollout, label))
    })
}

/// The label and the metrics that have failed: another failed metric makes another finding.
fn failures_with(rollout: &Rollout, label: &str) -> String {
    let failed = |(index, evidence): (usize, &Evidence)| {
        let metric = rollout.plan().hypotheses[index].metric;
        evidence.failed_at.is_some().then(|| rollout.plan().spec.metrics[metric].name.as_str())
    };
    let mut about: Vec<&str> = rollout.evidence().iter().enumerate().filter_map(failed).collect();
    about.dedup();
    about.insert(0, label);
    about.extend(rollout.head().crossed.map(|_| "together"));
    about.join(" ")
}

/// Delay metrics without enough labels of the canary to know its delay, although control's is known. If hardly any label arrives before
/// the maturity, all of them may be late.
fn unknown_delays(rollout: &Rollout) -> Vec<usize> {
    let metrics = rollout.plan().spec.metrics.iter().enumerate().filter(|(_, metric)| metric.source.is_delay());
    let overall = metrics.filter_map(|(metric, _)| rollout.plan().overall(metric));
    let unknown = |index: &usize| {
        let Some(effect) = rollout.evidence().get(*index).map(|evidence| evidence.test.effect()) else { return false };
        effect.canary.n < FEW_LABELS && control_labels(rollout, *index) >= FEW_LABELS
    };
    overall.filter(unknown).collect()
}

/// Control's labels in time. The estimates lack windows without any label of the canary, so the labels of the step count too.
fn control_labels(rollout: &Rollout, index: usize) -> u64 {
    let [_, in_step] = rollout.head().coverage.values(rollout.plan().hypotheses[index].metric);
    rollout.evidence()[index].test.effect().control.n.max(in_step)
}

/// Delay metrics whose estimates differ by more than half of their margin and beyond chance: by the one-sided test of Kolmogorov and
/// Smirnov or, for a quantile, by the interval of the effect. This is valid at one look only, and it only raises a doubt.
fn visibly_slower(rollout: &Rollout) -> Vec<usize> {
    let metrics = rollout.plan().spec.metrics.iter().enumerate().filter(|(_, metric)| metric.source.is_delay());
    let overall = metrics.filter_map(|(metric, _)| rollout.plan().overall(metric));
    let slower = |index: &usize| {
        let Some(test) = rollout.evidence().get(*index).map(|evidence| &evidence.test) else { return false };
        let effect = test.effect();
        let kind = &rollout.plan().spec.metrics[rollout.plan().hypotheses[*index].metric].kind;
        let half = 0.5 * effect.margin.unwrap_or(0.0);
        let (n_c, n_s) = (effect.canary.n, effect.control.n);
        let is_no_chance = test.excess().is_some_and(|later| n_c >= FEW_LABELS && chance(later, n_c, n_s) < CHANCE);
        if let (MetricKind::Distribution, Some(later)) = (kind, test.excess()) {
            return later > half && is_no_chance;
        }
        let bounded = effect.low.is_some_and(|low| low > 0.0);
        (bounded || is_no_chance) && effect.difference.is_some_and(|later| later > half)
    };
    overall.filter(slower).collect()
}

/// Chance that the distribution functions of two equal samples are this far apart in one direction. If so few values of the canary are
/// on the other side that none is expected there, it is the chance that all are beyond the same quantile of control (the exact law of
/// Smirnov for one sample); otherwise Massart's bound.
fn chance(later: f64, canary: u64, control: u64) -> f64 {
    let (n_c, n_s) = (canary as f64, control as f64);
    let n = n_c * n_s / (n_c + n_s);
    // Control's own quantile is known only to one of its values.
    let beyond = (1.0 - later).max(0.0) + 1.0 / (n_s + 1.0);
    if n * beyond < 1.0 { libm::pow(beyond, n) } else { libm::exp(-2.0 * n * later * later) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_labels_that_are_all_late_are_not_late_by_chance() {
        // 4 labels beyond all but 3.5 % of control's.
        assert!(chance(0.965, 4, 1000) < 1e-5);
        // Of 7 values, the canary's two are the largest by chance once in 21 times.
        assert!(chance(1.0, 2, 5) > 1.0 / 21.0);
        assert!(chance(0.5, 4, 1000) > 0.1 && chance(0.0, 4, 1000) > 0.99);
        // With many labels: 1.95 of Kolmogorov's units.
        let units = |times: f64| times * libm::sqrt(1.0 / 1000.0 + 1.0 / 4000.0);
        assert!(chance(units(2.0), 1000, 4000) < CHANCE && chance(units(1.9), 1000, 4000) > CHANCE);
    }
}
