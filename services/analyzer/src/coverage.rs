//! How much of the answers the comparison sees: the answers that the router did not read, those that carry a metric's value, and
//! the calls that their callers cancelled.
//!
//! Where the arms differ in one of these shares, a comparison of the rest is not fair. A metric that sees only a part of the answers
//! also reports that, whether the arms differ or not. Applies since rules version 2.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serin_kinds::Kind as _;
use serin_schemas::{
    ids::{EventTime, Span},
    records::{Arm, ArmCounts, NoDataReason, Role, Segment},
};
use serin_spec::{MetricKind, MetricSource, MetricSpec, Policy};

use crate::{
    arms::{ALPHA, Compared, ENOUGH, SHARE_MARGIN, percent},
    plan::Plan,
    share::{Counted, ShareTest},
    standing::Issue,
};

/// A metric reports how much it sees if it sees a smaller share of an arm's answers than this.
const NEARLY_ALL: f64 = 0.9;

/// If a metric sees a smaller share than this of both arms, no step waits for it: it may never see enough.
const HARDLY_ANY: f64 = 0.1;

/// Means both arms in an issue about answers without a value.
pub(crate) const BOTH_ARMS: &str = "all";

/// What one metric sees of both arms' answers, canary's first.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Seen {
    answers: [u64; 2],
    values: [u64; 2],
    /// For outputs: whether the share of answers that carry the value differs.
    share: Option<ShareTest>,
}

impl Seen {
    /// Share of each arm's answers.
    fn shares(&self) -> [Option<f64>; 2] {
        let share =
            |place: usize| (self.answers[place] > 0).then(|| self.values[place] as f64 / self.answers[place] as f64);
        [share(0), share(1)]
    }
}

/// The shares of one rollout, in the current step of each stream.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Coverage {
    unread: Option<ShareTest>,
    /// Calls that their callers cancelled before the head of the answer, as happens when a version hangs.
    hung: Option<ShareTest>,
    /// Calls that their callers cancelled after it. A caller that has seen the version can do so on purpose.
    left: Option<ShareTest>,
    /// What each metric sees, by the index of the metric.
    metrics: BTreeMap<usize, Seen>,
}

impl Coverage {
    /// Takes a window of a stream in which the arms are compared. `per_unit` is the number of answers that one unit brings, where
    /// units are assigned; the shares are then tested as if all answers of a unit were alike.
    pub(crate) fn observe(
        &mut self,
        plan: &Plan,
        stream: Span,
        end: EventTime,
        strata: &[Compared<'_>],
        per_unit: Option<f64>,
    ) {
        let settled: Vec<&Compared<'_>> = strata.iter().filter(|stratum| !stratum.settling).collect();
        if settled.is_empty() {
            return;
        }
        // The first windows of a step do not show yet how many answers a unit brings.
        let testable = per_unit.is_some() || !plan.is_sticky();
        let test = |share: &mut Option<ShareTest>, alpha: f64, count: &dyn Fn(&Compared<'_>, Arm) -> Counted| {
            if !testable {
                return;
            }
            let pair = |stratum: &&Compared<'_>| (count(stratum, stratum.trial), count(stratum, Arm::Control));
            let share = share.get_or_insert_with(|| ShareTest::new(SHARE_MARGIN, plan.horizon()));
            share.temper(per_unit);
            share.observe(end, alpha, &settled.iter().map(pair).collect::<Vec<_>>());
        };
        if stream.0 == 0 {
            test(&mut self.unread, ALPHA, &|stratum, arm| count(stratum, arm, answered, |counts| counts.unread));
            test(&mut self.hung, ALPHA, &|stratum, arm| {
                count(stratum, arm, all, |counts| counts.cancelled.saturating_sub(counts.left))
            });
            test(&mut self.left, ALPHA, &|stratum, arm| count(stratum, arm, all, |counts| counts.left));
        }
        // All of them together have the level of one test.
        let carried = plan.spec.metrics.iter().filter(|metric| is_carried(metric)).count();
        let alpha = ALPHA / carried.max(1) as f64;
        for (index, metric) in plan.spec.metrics.iter().enumerate() {
            if plan.metrics[index].maturity != stream || plan.metrics[index].paired {
                continue;
            }
            let seen = self.metrics.entry(index).or_default();
            let values = |stratum: &Compared<'_>, arm| {
                stratum.window.cells.get(&(arm, index, Segment::all())).map_or(0, serin_sketches::Summary::n)
            };
            for stratum in &settled {
                for (place, arm) in [stratum.trial, Arm::Control].into_iter().enumerate() {
                    let answers = stratum.window.predictions(arm);
                    seen.answers[place] = seen.answers[place].saturating_add(answers);
                    seen.values[place] = seen.values[place].saturating_add(values(stratum, arm).min(answers));
                }
            }
            if is_carried(metric) {
                test(&mut seen.share, alpha, &|stratum, arm| {
                    (count(stratum, arm, not_bad, |_| 0).0, values(stratum, arm))
                });
            }
        }
    }

    /// Starts the comparison of shares from scratch, as each step of a stream does.
    pub(crate) fn restart(&mut self, plan: &Plan, stream: Span) {
        if stream.0 == 0 {
            (self.unread, self.hung, self.left) = (None, None, None);
        }
        self.metrics.retain(|&metric, _| plan.metrics.get(metric).is_some_and(|metric| metric.maturity != stream));
    }

    /// Clears the comparisons of shares when a rollout is resumed, because the operator has seen which shares differed.
    pub(crate) fn resume(&mut self) {
        (self.unread, self.hung, self.left) = (None, None, None);
        self.metrics.values_mut().for_each(|seen| seen.share = None);
    }

    /// Whether the arms differ in how many of their answers carry a metric's value.
    pub(crate) fn differs(&self, metric: usize) -> bool {
        self.metrics.get(&metric).and_then(|seen| seen.share.as_ref()?.differ()).is_some()
    }

    /// The part of the answers that a metric sees, if that is not nearly all: `51 % of the canary's answers and 100 % of control's`.
    pub(crate) fn part_of(&self, plan: &Plan, metric: usize) -> Option<String> {
        let spec = &plan.spec.metrics[metric];
        if !sees_answers(&spec.kind, &spec.source) || !spec.filters.is_empty() {
            return None;
        }
        let [canary, control] = self.metrics.get(&metric)?.shares();
        let shares = [canary, control.filter(|_| !plan.metrics[metric].one_arm)];
        if shares.iter().flatten().all(|share| *share >= NEARLY_ALL) {
            return None;
        }
        let of = |(share, arm): (Option<f64>, &str)| Some(format!("{} of {arm}", percent(share?)));
        let parts: Vec<String> = shares.into_iter().zip(["the canary's answers", "control's"]).filter_map(of).collect();
        Some(parts.join(" and "))
    }

    /// How many answers of canary and control carried a metric's value in this step.
    pub(crate) fn values(&self, metric: usize) -> [u64; 2] {
        self.metrics.get(&metric).map(|seen| seen.values).unwrap_or_default()
    }

    /// The answers of this step of which none carried a metric's value although some should, as in `1200 answers of the canary`, and
    /// their arm: `canary`, `control` or [`BOTH_ARMS`]. `share` is the share of all answers so far that carried the value.
    pub(crate) fn blank(&self, plan: &Plan, metric: usize, share: f64) -> Option<(String, &'static str)> {
        let Seen { answers, values, .. } = self.metrics.get(&metric)?;
        let least = plan.spec.decision.min_answers.max(1);
        // A value that has never come may never come. A rare value is missing only when enough of them were due.
        let is_blank = |place: usize| {
            let due = share <= 0.0 || answers[place] as f64 * share >= ENOUGH;
            answers[place] >= least && values[place] == 0 && due
        };
        let arms = if plan.metrics[metric].one_arm { 1 } else { 2 };
        let of = |place: usize| format!("{} answers of {}", answers[place], ["the canary", "control"][place]);
        let blank: Vec<usize> = (0..arms).filter(|&place| is_blank(place)).collect();
        let whose = match blank.as_slice() {
            [] => return None,
            [0] => "canary",
            [_] => "control",
            _ => BOTH_ARMS,
        };
        Some((blank.into_iter().map(of).collect::<Vec<_>>().join(" and "), whose))
    }

    /// Whether the metric is about answers that the router read, and it read hardly any of either arm. This gate exists without being
    /// named in the file, so a step does not wait for it; the verdict still reports that it was not judged.
    pub(crate) fn is_hardly_read(&self, plan: &Plan, metric: usize) -> bool {
        let shares = self.metrics.get(&metric).map(Seen::shares).unwrap_or_default();
        let hardly = |share: &Option<f64>| share.is_some_and(|share| share < HARDLY_ANY);
        plan.spec.metrics[metric].source == MetricSource::Unusable && shares.iter().all(hardly)
    }

    /// The issues about shares that differ, in a fixed order.
    pub(crate) fn issues(&self, plan: &Plan) -> Vec<Issue> {
        let policies = &plan.spec.no_data;
        let mut issues = Vec::new();
        if let Some((canary, control)) = self.unread.as_ref().and_then(ShareTest::differ) {
            let text = format!(
                "the router did not read {} of the canary's answers and {} of control's, so their contents are unknown",
                percent(canary),
                percent(control)
            );
            issues.push(
                Issue::new(NoDataReason::UnreadShareDiffers, policies.unread_share, text).sized(canary - control),
            );
        }
        if let Some((canary, control)) = self.hung.as_ref().and_then(ShareTest::differ) {
            let text = format!(
                "callers cancelled {} of the canary's calls before the answer started and {} of control's: check whether \
                 they wait longer for it",
                percent(canary),
                percent(control)
            );
            let issue = Issue::new(NoDataReason::CancelledShareDiffers, policies.cancelled_share, text);
            issues.push(issue.sized(canary - control));
        }
        // A caller that has seen the version can cancel on purpose, so this decides nothing.
        if let Some((canary, control)) = self.left.as_ref().and_then(ShareTest::differ) {
            let text = format!(
                "callers cancelled {} of the canary's calls in the middle of the answer and {} of control's: check whether it stalls",
                percent(canary),
                percent(control)
            );
            issues.push(Issue::new(NoDataReason::CancelledShareDiffers, Policy::Warn, text).about("left"));
        }
        for (&index, seen) in &self.metrics {
            let Some((canary, control)) = seen.share.as_ref().and_then(ShareTest::differ) else { continue };
            let metric = &plan.spec.metrics[index];
            let text = format!(
                "{} of the canary's answers carry the value of {}, {} of control's",
                percent(canary),
                metric.name,
                percent(control)
            );
            let policy = if metric.role == Role::Watch { Policy::Warn } else { policies.value_share };
            let issue = Issue::new(NoDataReason::ValueShareDiffers, policy, text);
            issues.push(issue.of(index).sized(canary - control));
        }
        issues
    }
}

/// Whether a metric has at most one value per answer, so that answers without one are worth reporting.
fn sees_answers(kind: &MetricKind, source: &MetricSource) -> bool {
    !kind.is_paired() && !matches!(source, MetricSource::Outcome | MetricSource::Cancelled)
}

/// Whether each answer itself carries the value. Labels have their own check. Metrics with conditions are not checked: the versions
/// may well differ in how many answers meet a condition on an output.
fn is_carried(metric: &MetricSpec) -> bool {
    metric.filters.is_empty() && matches!(metric.source, MetricSource::Output(_) | MetricSource::Class { .. })
}

/// Calls of all outcomes.
fn all(counts: &ArmCounts) -> i64 {
    counts.predictions.saturating_add(counts.cancelled)
}

/// Calls that got an answer with a good status.
fn answered(counts: &ArmCounts) -> i64 {
    counts.predictions - counts.errors - counts.refused - counts.redirected
}

/// Answers that values are taken from. Answers that are known to be bad have their own gates.
fn not_bad(counts: &ArmCounts) -> i64 {
    answered(counts) - counts.invalid
}

fn count(stratum: &Compared<'_>, arm: Arm, of: fn(&ArmCounts) -> i64, events: fn(&ArmCounts) -> i64) -> Counted {
    stratum.window.arms.get(&arm).map_or((0, 0), |counts| (of(counts).max(0) as u64, events(counts) as u64))
}
