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
use serin_sketches::{Buckets, Summary};
use serin_spec::{MetricKind, MetricSource, MetricSpec, Policy};

use crate::{
    arms::{ALPHA, Compared, ENOUGH, SHARE_MARGIN, percent},
    plan::Plan,
    share::{Counted, Difference, ShareTest, ShareUnits},
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
        let test = |share: &mut Option<ShareTest>, alpha: f64, counting: &dyn Counting| {
            if !testable {
                return;
            }
            let share = share.get_or_insert_with(|| ShareTest::new(SHARE_MARGIN, plan.horizon()));
            share.temper(per_unit);
            let arms = settled.iter().map(|stratum| (*stratum, [stratum.trial, Arm::Control]));
            let strata = arms.clone().map(|(stratum, [canary, control])| {
                (counting.count(stratum, canary), counting.count(stratum, control))
            });
            let units = arms.filter(|(stratum, _)| !stratum.window.by_unit.is_empty());
            let units = units.map(|(stratum, arms)| arms.map(|arm| Summary::Buckets(counting.by_unit(stratum, arm))));
            share.observe(end, alpha, &strata.collect::<Vec<_>>(), &units.collect::<Vec<_>>());
        };
        if stream.0 == 0 {
            test(&mut self.unread, ALPHA, &Calls { all: answered, events: |counts| counts.unread });
            test(&mut self.hung, ALPHA, &Calls { all, events: hung });
            test(&mut self.left, ALPHA, &Calls { all, events: |counts| counts.left });
        }
        // All of them together have the level of one test.
        let carried = plan.spec.metrics.iter().filter(|metric| is_carried(metric)).count();
        let alpha = ALPHA / carried.max(1) as f64;
        for (index, metric) in plan.spec.metrics.iter().enumerate() {
            if plan.metrics[index].maturity != stream || plan.metrics[index].paired {
                continue;
            }
            let seen = self.metrics.entry(index).or_default();
            let values = Values { metric: index };
            for stratum in &settled {
                for (place, arm) in [stratum.trial, Arm::Control].into_iter().enumerate() {
                    let answers = stratum.window.predictions(arm);
                    seen.answers[place] = seen.answers[place].saturating_add(answers);
                    seen.values[place] = seen.values[place].saturating_add(values.of(stratum, arm).min(answers));
                }
            }
            if is_carried(metric) {
                test(&mut seen.share, alpha, &values);
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

    /// What units have added to each test, for their row.
    pub(crate) fn units(&mut self) -> BTreeMap<usize, ShareUnits> {
        self.tests().map(|(place, test)| (place, test.units.clone())).collect()
    }

    /// Takes back the contents of that row.
    pub(crate) fn restore_units(&mut self, mut units: BTreeMap<usize, ShareUnits>) {
        self.tests().for_each(|(place, test)| test.units = units.remove(&place).unwrap_or_default());
    }

    /// Every test with its place in the row.
    fn tests(&mut self) -> impl Iterator<Item = (usize, &mut ShareTest)> {
        let calls = [&mut self.unread, &mut self.hung, &mut self.left];
        let of_calls = calls.into_iter().enumerate().filter_map(|(place, test)| Some((place, test.as_mut()?)));
        let of_metrics = self.metrics.iter_mut().filter_map(|(metric, seen)| Some((3 + metric, seen.share.as_mut()?)));
        of_calls.chain(of_metrics)
    }

    /// The issues about shares that differ, in a fixed order.
    pub(crate) fn issues(&self, plan: &Plan) -> Vec<Issue> {
        let policies = &plan.spec.no_data;
        let mut issues = Vec::new();
        let difference = |test: &Option<ShareTest>| test.as_ref().and_then(ShareTest::difference);
        if let Some(Difference { canary, control, rests_on }) = difference(&self.unread) {
            let text = format!(
                "the router did not read {} of the canary's answers and {} of control's, so their contents are unknown",
                percent(canary),
                percent(control)
            );
            let issue = Issue::new(NoDataReason::UnreadShareDiffers, policies.unread_share, text);
            issues.push(issue.sized(canary - control).resting_on(rests_on));
        }
        if let Some(Difference { canary, control, rests_on }) = difference(&self.hung) {
            let text = format!(
                "callers cancelled {} of the canary's calls before the answer started and {} of control's: check whether \
                 they wait longer for it",
                percent(canary),
                percent(control)
            );
            let issue = Issue::new(NoDataReason::CancelledShareDiffers, policies.cancelled_share, text);
            issues.push(issue.sized(canary - control).resting_on(rests_on));
        }
        // A caller that has seen the version can cancel on purpose, so this decides nothing.
        if let Some(Difference { canary, control, .. }) = difference(&self.left) {
            let text = format!(
                "callers cancelled {} of the canary's calls in the middle of the answer and {} of control's: check whether it stalls",
                percent(canary),
                percent(control)
            );
            issues.push(Issue::new(NoDataReason::CancelledShareDiffers, Policy::Warn, text).about("left"));
        }
        for (&index, seen) in &self.metrics {
            let Some(Difference { canary, control, rests_on }) = difference(&seen.share) else { continue };
            let metric = &plan.spec.metrics[index];
            let text = format!(
                "{} of the canary's answers carry the value of {}, {} of control's",
                percent(canary),
                metric.name,
                percent(control)
            );
            let policy = if metric.role == Role::Watch { Policy::Warn } else { policies.value_share };
            let issue = Issue::new(NoDataReason::ValueShareDiffers, policy, text);
            issues.push(issue.of(index).sized(canary - control).resting_on(rests_on));
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

/// Calls that were cancelled before the head of the answer.
fn hung(counts: &ArmCounts) -> i64 {
    counts.cancelled.saturating_sub(counts.left)
}

/// How the events of a share are counted in an arm of a window.
trait Counting {
    /// Trials and events.
    fn count(&self, stratum: &Compared<'_>, arm: Arm) -> Counted;

    /// The same per bucket of units, where they are known.
    fn by_unit(&self, stratum: &Compared<'_>, arm: Arm) -> Buckets;
}

/// The calls with one outcome among others.
struct Calls {
    all: fn(&ArmCounts) -> i64,
    events: fn(&ArmCounts) -> i64,
}

impl Calls {
    fn of(&self, counts: &ArmCounts) -> Counted {
        ((self.all)(counts).max(0) as u64, (self.events)(counts).max(0) as u64)
    }
}

impl Counting for Calls {
    fn count(&self, stratum: &Compared<'_>, arm: Arm) -> Counted {
        stratum.window.arms.get(&arm).map_or((0, 0), |counts| self.of(counts))
    }

    fn by_unit(&self, stratum: &Compared<'_>, arm: Arm) -> Buckets {
        sums(stratum.window.units_of(arm).map(|(bucket, counts)| (bucket, self.of(counts))))
    }
}

/// The answers that carry the value of a metric.
struct Values {
    metric: usize,
}

impl Values {
    fn of(&self, stratum: &Compared<'_>, arm: Arm) -> u64 {
        stratum.window.cells.get(&(arm, self.metric, Segment::all())).map_or(0, Summary::n)
    }
}

impl Counting for Values {
    fn count(&self, stratum: &Compared<'_>, arm: Arm) -> Counted {
        let answers = stratum.window.arms.get(&arm).map_or(0, |counts| not_bad(counts).max(0) as u64);
        (answers, self.of(stratum, arm))
    }

    fn by_unit(&self, stratum: &Compared<'_>, arm: Arm) -> Buckets {
        let values = stratum.window.buckets.get(&(arm, self.metric));
        let values: Vec<u64> = values.into_iter().flat_map(Buckets::iter).map(|(_, n)| n).collect();
        sums(stratum.window.units_of(arm).map(|(bucket, counts)| {
            let seen = values.get(usize::from(bucket)).copied().unwrap_or(0);
            (bucket, (not_bad(counts).max(0) as u64, seen))
        }))
    }
}

/// Trials and events per bucket of units as sums.
fn sums(counted: impl Iterator<Item = (u8, Counted)>) -> Buckets {
    let mut sums = Buckets::new();
    for (bucket, (n, k)) in counted.filter(|(_, (n, _))| *n > 0) {
        // Counts are at most 2^53, so at worst a sum is left out.
        let _ = sums.insert(u64::from(bucket) << 56, k.min(n) as f64, n);
    }
    sums
}
