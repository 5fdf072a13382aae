//! Whether the evidence itself can be trusted: traffic in both arms, the configured split, and no events lost, late or unlabelled
//! on one side only.
//!
//! Small numbers are not a finding. An arm counts as silent only when at least [`ENOUGH`] answers were due, and differences are
//! tested with e-processes at level [`ALPHA`], so that a look at every window does not use the level up.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serin_kinds::significant;
use serin_schemas::{
    ids::{EventTime, Span},
    records::{Arm, ArmCounts, NoDataReason},
};
use serin_sketches::Buckets;
use serin_spec::{MetricSpec, Mode, NoDataPolicies, Policy, TrafficSource, WhenMissing};
use serin_statistics::{
    cluster::answers_per_unit,
    counts::{SPLIT_CONCENTRATION, split_ln_e},
    rejects,
};

use crate::{
    arms::{ALPHA, Compared, ENOUGH, SHARE_MARGIN, Shares, percent},
    plan::Plan,
    population::{Mixes, Splits},
    share::{Counted, ShareTest},
    standing::Issue,
    window::Merged,
};

/// The split between canary and control within a step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Split {
    step: i32,
    /// `None` for units once the sums of the step can no longer be compared with one split.
    shares: Option<Shares>,
    canary: u64,
    control: u64,
    broken_at: Option<EventTime>,
}

impl Default for Split {
    fn default() -> Self {
        Self { step: -1, shares: None, canary: 0, control: 0, broken_at: None }
    }
}

impl Split {
    /// Takes the totals of the step's units so far, where a key assigns the arm.
    fn units(&mut self, step: i32, shares: Shares, (canary, control): (&Buckets, &Buckets), end: EventTime) {
        if self.step != step {
            *self = Self { step, shares: Some(shares), ..Self::default() };
        }
        let silent = shares.is_silent(canary.n().saturating_sub(self.canary), control.n().saturating_sub(self.control));
        (self.canary, self.control) = (canary.n(), control.n());
        if silent || self.shares != Some(shares) {
            // The sums can no longer be separated: silence is reported as silence, and other shares are another split.
            self.shares = None;
            return;
        }
        let totals: Vec<f64> = canary.iter().zip(control.iter()).map(|(one, two)| (one.1 + two.1) as f64).collect();
        let Some(per_unit) = answers_per_unit(&totals) else { return };
        let worth = [self.canary, self.control].map(|count| (count as f64 / per_unit) as u64);
        let weights = [f64::from(shares.canary), f64::from(shares.control)];
        if self.broken_at.is_none() && rejects(split_ln_e(&worth, &weights, SPLIT_CONCENTRATION), ALPHA) {
            self.broken_at = Some(end);
        }
    }

    fn add(&mut self, step: i32, shares: Shares, window: &Merged, end: EventTime) {
        if self.step != step || self.shares != Some(shares) {
            *self = Self { step, shares: Some(shares), ..Self::default() };
        }
        let (canary, control) = (window.calls(Arm::Canary), window.calls(Arm::Control));
        if shares.is_silent(canary, control) {
            // No evidence enters from such a window: silence is reported as silence.
            return;
        }
        self.canary += canary;
        self.control += control;
        let weights = [f64::from(shares.canary), f64::from(shares.control)];
        let ln_e = split_ln_e(&[self.canary, self.control], &weights, SPLIT_CONCENTRATION);
        if self.broken_at.is_none() && rejects(ln_e, ALPHA) {
            self.broken_at = Some(end);
        }
    }
}

/// Since when an arm has had no answers, and how many it should have had.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Silence {
    since: EventTime,
    /// Answers of all arms since then.
    all: u64,
    /// The answers that the arm should have had.
    due: f64,
}

impl Silence {
    fn add(&mut self, arm: Arm, end: EventTime, strata: &[Compared<'_>]) {
        if strata.iter().any(|stratum| stratum.window.calls(arm) > 0) {
            *self = Self { since: end.max(self.since), all: 0, due: 0.0 };
            return;
        }
        for stratum in strata {
            let all = all_answers(stratum.window);
            self.all += all;
            self.due += all as f64 * f64::from(stratum.shares.of(arm)) / 1e4;
        }
    }
}

/// Labels of one stream.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Labels {
    /// Answers in all windows, and those of them with a label.
    answers: u64,
    labelled: u64,
    /// Answers since the last window with a label. Where no metric waits for labels, the canary's answers do not count here.
    unlabelled: u64,
    share: Option<ShareTest>,
}

/// The health of one rollout's evidence.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Health {
    split: Split,
    splits: Splits,
    mixes: Mixes,
    silence: BTreeMap<Arm, Silence>,
    late: Option<ShareTest>,
    labels: BTreeMap<Span, Labels>,
    /// Events lost per arm since the last verdict.
    lost: BTreeMap<Arm, i64>,
    first: Option<EventTime>,
    answers: u64,
}

const COMPARED: [Arm; 2] = [Arm::Canary, Arm::Control];
/// Arms whose losses are reported. The arm of missing sequence numbers is unknown; they are counted under stable.
const LOSING: [Arm; 3] = [Arm::Canary, Arm::Control, Arm::Stable];

impl Health {
    /// Takes any window of stream 0, in any phase, to learn how much traffic the model has.
    pub(crate) fn traffic(&mut self, end: EventTime, window: &Merged) {
        self.first.get_or_insert(end);
        self.answers += all_answers(window);
    }

    /// Takes a window of stream 0 in which the arms are compared, as its strata by generation.
    pub(crate) fn compared(&mut self, plan: &Plan, end: EventTime, strata: &[Compared<'_>]) {
        let settled = settled(strata);
        for stratum in &settled {
            let Compared { step, shares, window, .. } = *stratum;
            if split_is_ours(plan) && !plan.is_sticky() && shares.canary > 0 && shares.control > 0 {
                self.split.add(step, shares, window, end);
                self.splits.add(plan, end, stratum);
            }
        }
        // Sticky units come with many requests each, so their mixes differ by chance.
        if !plan.is_sticky() && !settled.is_empty() {
            self.mixes.observe(plan, end, &settled);
        }
        for arm in COMPARED {
            if let Some(silence) = self.silence.get_mut(&arm) {
                silence.add(arm, end, strata);
            }
        }
        for arm in LOSING {
            let lost = |stratum: &Compared<'_>| stratum.window.arms.get(&arm).map_or(0, |counts| counts.lost);
            let sum = self.lost.entry(arm).or_default();
            *sum = strata.iter().map(lost).fold(*sum, i64::saturating_add);
        }
        let late = |window: &Merged, arm| {
            let counts = window.arms.get(&arm);
            let late = counts.map_or(0, |counts| counts.late as u64);
            (window.calls(arm).saturating_add(late), late)
        };
        if !settled.is_empty() {
            let test = self.late.get_or_insert_with(|| ShareTest::new(SHARE_MARGIN, plan.horizon()));
            test.observe(end, ALPHA, &both(&settled, late));
        }
    }

    /// Takes the sums of a step's units after a window of stream 0, where a key assigns the arm.
    pub(crate) fn units(&mut self, plan: &Plan, step: i32, shares: Shares, sums: (&Buckets, &Buckets), end: EventTime) {
        if split_is_ours(plan) && shares.canary > 0 && shares.control > 0 {
            self.split.units(step, shares, sums, end);
        }
    }

    /// Takes a window of a label stream: all its answers, and the strata in which both arms are on. `per_unit` is the number of answers
    /// that one unit brings, where units are assigned and as far as it is known: some users label everything, others nothing.
    pub(crate) fn labelled<'a>(
        &mut self,
        plan: &Plan,
        stream: Span,
        end: EventTime,
        all: impl Iterator<Item = &'a Merged>,
        strata: &[Compared<'_>],
        per_unit: Option<f64>,
    ) {
        let labels = self.labels.entry(stream).or_default();
        let waits = waits_for_truth(plan, stream);
        let mut came = false;
        for counts in all.flat_map(|window| window.arms.values()).filter(|counts| counts.arm != Arm::Shadow) {
            came |= counts.labelled > 0;
            // Where a missing label counts as 0, the canary may well bring fewer: only stable's answers show how many are due.
            if waits || counts.arm != Arm::Canary {
                labels.answers += counts.predictions as u64;
                labels.labelled += counts.labelled as u64;
                labels.unlabelled += counts.predictions as u64;
            }
        }
        if came {
            labels.unlabelled = 0;
        }
        let settled = settled(strata);
        // The first windows of a step do not show yet how many answers a unit brings.
        let testable = !plan.guarded || per_unit.is_some();
        if waits && !settled.is_empty() && testable {
            let count = |window: &Merged, arm| {
                window.arms.get(&arm).map_or((0, 0), |c| (c.predictions as u64, c.labelled.min(c.predictions) as u64))
            };
            let test = labels.share.get_or_insert_with(|| ShareTest::new(SHARE_MARGIN, plan.horizon()));
            if plan.guarded {
                test.temper(per_unit);
            }
            test.observe(end, ALPHA, &both(&settled, count));
        }
    }

    /// Starts a generation at `at`. Answers of its arms are expected from the next whole window on.
    pub(crate) fn begin(&mut self, shares: Shares, at: EventTime, window: Span) {
        for arm in COMPARED {
            if shares.of(arm) <= 0 {
                self.silence.remove(&arm);
            } else {
                let fresh = Silence { since: at.window_end(window), all: 0, due: 0.0 };
                self.silence.entry(arm).or_insert(fresh);
            }
        }
    }

    /// Starts the comparison of shares from scratch. This happens in each step of a stream, as for the split.
    pub(crate) fn restart(&mut self, stream: Span) {
        if stream.0 == 0 {
            self.late = None;
            self.mixes = Mixes::default();
        } else if let Some(labels) = self.labels.get_mut(&stream) {
            labels.share = None;
        }
    }

    /// Clears the comparisons of shares when a rollout is resumed, because the operator has seen which shares differed.
    pub(crate) fn resume(&mut self) {
        self.late = None;
        self.mixes = Mixes::default();
        self.labels.values_mut().for_each(|labels| labels.share = None);
    }

    /// Clears the lost events once a verdict has reported them.
    pub(crate) fn clear_lost(&mut self) {
        self.lost.clear();
    }

    /// The dimensions in which a value is known to have different shares in the two arms of this step.
    pub(crate) fn mixed(&self) -> impl Iterator<Item = &str> {
        self.mixes.different().map(|(dimension, ..)| dimension)
    }

    /// The shares of canary's and control's events in this step that came late.
    pub(crate) fn late_shares(&self) -> Option<(f64, f64)> {
        self.late.as_ref().and_then(ShareTest::shares)
    }

    /// The issues as of a point of event time, in a fixed order.
    pub(crate) fn issues(&self, plan: &Plan, step: i32, shares: Shares, as_of: EventTime) -> Vec<Issue> {
        let policies = &plan.spec.no_data;
        let mut issues = Vec::new();
        for arm in COMPARED {
            issues.extend(self.silence_of(arm, shares, as_of, plan).map(|text| silent(arm, policies, text)));
        }
        // When neither arm had any answers, that is one issue.
        issues.dedup_by(|one, two| plan.rules.need_data() && one.sentence == two.sentence);
        if let Some(at) = self.split.broken_at.filter(|_| self.split.step == step) {
            issues.push(self.split_issue(at, policies));
        } else if let Some((at, segment, counts)) = self.splits.broken(step) {
            let text = split_text(shares, counts, at, &format!(" for {segment}"));
            let issue = Issue::new(NoDataReason::SampleRatio, policies.sample_ratio, text);
            issues.push(issue.about(segment.to_string()).sized(off_split(shares, counts)));
        }
        for (dimension, value, canary, control) in self.mixes.different() {
            let text = format!(
                "{dimension}={value} is {} of the canary's answers and {} of control's: the arms see different populations",
                percent(canary),
                percent(control)
            );
            let issue = Issue::new(NoDataReason::SegmentMix, policies.segment_mix, text);
            issues.push(issue.about(format!("{dimension}={value}")).sized(canary - control));
        }
        for (arm, &lost) in self.lost.iter().filter(|&(_, &lost)| lost > 0) {
            let text = if *arm == Arm::Stable {
                format!("{lost} events of stable, or of an unknown arm, were lost since the last verdict")
            } else {
                format!("{lost} events of {} were lost by their writers since the last verdict", name(*arm))
            };
            issues.push(Issue::new(NoDataReason::EventsLost, policies.events_lost, text));
        }
        if let Some((canary, control)) = self.late.as_ref().and_then(ShareTest::differ) {
            let text =
                format!("{} of the canary's events came late, {} of control's", percent(canary), percent(control));
            issues.push(Issue::new(NoDataReason::LateShareDiffers, policies.late_share, text).sized(canary - control));
        }
        for (&stream, labels) in &self.labels {
            issues.extend(labels.issue(plan, stream));
        }
        issues
    }

    /// Why an arm counts as silent. In `observe` mode Serin does not control the shares, so no answers are due.
    fn silence_of(&self, arm: Arm, shares: Shares, as_of: EventTime, plan: &Plan) -> Option<String> {
        let window = plan.spec.window.0;
        if plan.spec.mode == Mode::Observe {
            return None;
        }
        let silence = self.silence.get(&arm)?;
        let gap = as_of.since(silence.since);
        if gap <= window {
            return None;
        }
        if silence.all > 0 {
            let text =
                format!("{} had no answers for {} while about {:.0} were due", name(arm), span(gap), silence.due);
            return (silence.due >= ENOUGH).then_some(text);
        }
        // No arm had any answers: judge by the traffic before.
        let windows = |span: Span| span.0 as f64 / window.0.max(1) as f64;
        let known = windows(silence.since.since(self.first?)) + 1.0;
        let due = self.answers as f64 / known.max(1.0) * windows(gap) * f64::from(shares.of(arm)) / 1e4;
        (due >= ENOUGH).then(|| format!("no answers of either version were reported for {}", span(gap)))
    }

    fn split_issue(&self, at: EventTime, policies: &NoDataPolicies) -> Issue {
        let Split { canary, control, shares, .. } = &self.split;
        let shares = shares.unwrap_or(Shares { canary: 0, control: 0 });
        let text = split_text(shares, [*canary, *control], at, "");
        let issue = Issue::new(NoDataReason::SampleRatio, policies.sample_ratio, text);
        issue.sized(off_split(shares, [*canary, *control]))
    }
}

/// The canary's configured share of the compared answers, and its actual share.
fn split_shares(shares: Shares, [canary, control]: [u64; 2]) -> (f64, f64) {
    let wanted = f64::from(shares.canary) / f64::from((shares.canary + shares.control).max(1));
    (wanted, canary as f64 / (canary + control).max(1) as f64)
}

fn off_split(shares: Shares, counts: [u64; 2]) -> f64 {
    let (wanted, seen) = split_shares(shares, counts);
    seen - wanted
}

fn split_text(shares: Shares, [canary, control]: [u64; 2], at: EventTime, place: &str) -> String {
    let (wanted, seen) = split_shares(shares, [canary, control]);
    format!(
        "the canary has {} of the compared answers{place} ({canary} against {control}), not the configured {}; certain since {}",
        exactly(seen),
        exactly(wanted),
        at.to_rfc3339().unwrap_or_default(),
    )
}

impl Labels {
    fn issue(&self, plan: &Plan, stream: Span) -> Option<Issue> {
        let waits = waits_for_truth(plan, stream);
        if !waits && !fills_with_zero(plan, stream) {
            return None;
        }
        let due = self.unlabelled as f64 * self.labelled as f64 / self.answers.max(1) as f64;
        let issue = |text| {
            Issue::new(NoDataReason::LabelsMissing, plan.spec.no_data.labels_missing, text)
                .about(span(stream).to_string())
        };
        // The gap is looked at after each label. Where labels are rare there are many such looks, and the bound grows so that
        // all of them together have a chance below 0.2 % (the sum of `e^-7 / k^2` over all labels k).
        let looks = if waits { 0.0 } else { 2.0 * (self.labelled.max(1) as f64).ln() };
        if due >= ENOUGH + looks {
            let text =
                format!("{} answers have matured without any label; about {due:.0} labels were due", self.unlabelled);
            return Some(issue(text));
        }
        let (canary, control) = self.share.as_ref().filter(|_| waits).and_then(ShareTest::differ)?;
        let text =
            format!("{} of the canary's answers got a label, {} of control's", percent(canary), percent(control));
        Some(issue(text).sized(canary - control))
    }
}

/// Labels that were sent again with another value. The first value counts, so a correction without a revision is lost.
pub(crate) fn contradictions(plan: &Plan, arms: &BTreeMap<Arm, ArmCounts>) -> Option<Issue> {
    let of = |arm| arms.get(&arm).filter(|_| plan.rules.need_data()).map_or(0, |counts| counts.contradicting);
    let (canary, control) = (of(Arm::Canary), of(Arm::Control));
    let text = format!(
        "{canary} labels of the canary and {control} of control name another value than an earlier label of the same prediction, and are \
         ignored; to correct a label, send it with a higher `revision`"
    );
    (canary > 0 || control > 0).then(|| Issue::new(NoDataReason::LabelContradictions, Policy::Warn, text))
}

/// Whether some metric of the stream leaves out answers without a label. Delays do not count: the absence of their label may
/// mean something to the metric that judges it.
fn waits_for_truth(plan: &Plan, stream: Span) -> bool {
    let metrics = plan.spec.metrics.iter().zip(&plan.metrics);
    metrics.into_iter().any(|(spec, metric)| {
        let judges = spec.needs_label() && !spec.source.is_delay();
        // A condition on a label that did not come cannot be decided, whatever a missing label of the source means.
        let waits = spec.when_missing == WhenMissing::Exclude || !spec.filters.is_empty();
        metric.maturity == stream && judges && waits
    })
}

/// Whether some metric of the stream counts a missing label as 0, so that it passes when feedback stops.
fn fills_with_zero(plan: &Plan, stream: Span) -> bool {
    let mut metrics = plan.spec.metrics.iter().zip(&plan.metrics);
    let fills = |spec: &MetricSpec| spec.source.needs_label() && spec.when_missing == WhenMissing::Zero;
    plan.rules.need_data() && metrics.any(|(spec, metric)| metric.maturity == stream && fills(spec))
}

/// Whether Serin itself makes the split, so that it can be tested.
fn split_is_ours(plan: &Plan) -> bool {
    plan.spec.traffic == TrafficSource::Router && plan.spec.mode == Mode::Act
}

/// The strata in which the arms are compared.
fn settled<'a>(strata: &[Compared<'a>]) -> Vec<Compared<'a>> {
    strata.iter().filter(|stratum| !stratum.settling).copied().collect()
}

fn both(strata: &[Compared<'_>], count: impl Fn(&Merged, Arm) -> Counted) -> Vec<(Counted, Counted)> {
    let pair = |stratum: &Compared<'_>| (count(stratum.window, Arm::Canary), count(stratum.window, Arm::Control));
    strata.iter().map(pair).collect()
}

fn all_answers(window: &Merged) -> u64 {
    [Arm::Stable, Arm::Control, Arm::Canary].into_iter().map(|arm| window.calls(arm)).sum()
}

fn silent(arm: Arm, policies: &NoDataPolicies, sentence: String) -> Issue {
    let reason = if arm == Arm::Canary { NoDataReason::NoCanaryTraffic } else { NoDataReason::NoControlTraffic };
    Issue::new(reason, policies.no_traffic, sentence)
}

fn name(arm: Arm) -> &'static str {
    if arm == Arm::Canary { "the canary" } else { "the control arm" }
}

/// A share with enough digits to differ from the configured one: with many answers, a small difference is certain.
fn exactly(share: f64) -> String {
    format!("{} %", significant(100.0 * share, 4))
}

fn span(span: Span) -> serin_spec::units::Duration {
    serin_spec::units::Duration(span)
}
