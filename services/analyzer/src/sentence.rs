//! Sentences about evidence, for the console, chat and on-call engineers.

use serin_kinds::{Kind as _, Unit};
pub(crate) use serin_kinds::{noun, significant};
use serin_schemas::{
    ids::EventTime,
    records::{Estimate, Harm, MetricResult, NoDataReason, Segment},
};
use serin_spec::{Direction, Limit, MetricKind, MetricSpec, RolloutSpec, units::Duration};
use serin_statistics::{ArmEstimate, Effect, PlannedLooks};

use crate::progress::Heard;

/// The writers that were not heard from and those whose clocks are off, if there are any.
pub(crate) fn unheard(heard: &Heard) -> Option<String> {
    let mut parts = Vec::new();
    if !heard.silent.is_empty() {
        let names = heard.silent.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
        parts.push(format!("not heard from: {names}; promotion waits, a rollback does not"));
    }
    for (writer, offset) in &heard.skewed {
        let way = if offset.0 < 0 { "behind" } else { "ahead of" };
        let seconds = significant(offset.as_secs_f64().abs(), 3);
        parts.push(format!("{writer}'s clock is {seconds} s {way} the log's, or its records take that long to arrive"));
    }
    (!parts.is_empty()).then(|| parts.join("; "))
}

fn unit(metric: &MetricSpec) -> Unit {
    Unit::of(&metric.kind, &metric.source)
}

fn confidence(alpha: f64) -> String {
    format!("{} % confidence", significant(100.0 * (1.0 - alpha), 4))
}

/// Builds the sentence for one metric in one segment.
#[derive(Clone, Copy)]
pub(crate) struct SentenceBuilder<'a> {
    pub(crate) spec: &'a RolloutSpec,
    pub(crate) metric: &'a MetricSpec,
    pub(crate) segment: &'a Segment,
    /// The part of the metric that the evidence is about, and whether only the canary has that part.
    pub(crate) culprit: Option<&'a (String, bool)>,
    /// Whether everything seen since the traffic changed is left out.
    pub(crate) settling: bool,
    /// The planned looks that decide a pass, if the step asks for them.
    pub(crate) looks: Option<&'a PlannedLooks>,
    /// The part of the answers that the metric sees, if that is not nearly all of them.
    pub(crate) part: Option<&'a str>,
    /// Why the metric is not judged, if there is more to say than its reason.
    pub(crate) why: Option<&'a str>,
    /// The windows in which the metric failed, if all windows together do not show the failure.
    pub(crate) late: Option<&'a Harm>,
    /// Whether the metric contributed most when all evidence together was enough.
    pub(crate) tipped: bool,
    /// The time of the verdict and the start of its step.
    pub(crate) times: Times,
}

/// The times that a sentence refers to.
#[derive(Clone, Copy)]
pub(crate) struct Times {
    pub(crate) as_of: EventTime,
    /// Start of the first window of the step.
    pub(crate) step_began: Option<EventTime>,
}

impl SentenceBuilder<'_> {
    /// Returns the sentence that explains the result of a metric.
    pub(crate) fn sentence(&self, (result, why): (MetricResult, Option<NoDataReason>), effect: &Effect) -> String {
        let why = why.map(|why| self.why.unwrap_or(no_data(why)));
        let against = result == MetricResult::Fail || (self.tipped && result != MetricResult::NoData);
        let late = self.late.filter(|_| against);
        let Some(facts) = self.facts(effect) else {
            let undecided = if self.settling {
                "the first windows of a step are left out while the canary settles"
            } else {
                "there is not enough evidence yet"
            };
            let why = why.unwrap_or(undecided);
            let part = self.seen();
            return format!("{}the canary's {} is not judged: {why}{part}", self.place(), noun(self.metric));
        };
        let facts = late.and_then(|harm| self.late_facts(effect, harm)).unwrap_or(facts);
        let words = match self.metric.limit.and_then(Limit::both) {
            _ if against && result != MetricResult::Fail => format!(
                "the largest contribution to the evidence that some check is beyond its margin, with {} at every look",
                confidence(self.spec.decision.false_rollback)
            ),
            Some(limits) => self.against_limits(result, limits),
            None => self.against_control(result, effect),
        };
        let rest = match result {
            MetricResult::NoData => format!("not judged now: {}", why.unwrap_or("no data")),
            MetricResult::Fail => late.map_or(String::new(), |harm| self.at_some_time(harm)) + &words,
            _ => words,
        };
        let within = self.metric.stratify_by.as_ref().filter(|_| self.segment.is_all());
        let within = within.map_or_else(String::new, |dimension| format!(", compared within each {dimension}"));
        let better = effect.better && matches!(result, MetricResult::Pass | MetricResult::Undecided);
        let better = if better { ": it is better" } else { "" };
        format!("{facts}{within}, {rest}{better}{}", self.seen())
    }

    fn seen(&self) -> String {
        self.part.map_or_else(String::new, |part| format!("; seen in {part}"))
    }

    fn place(&self) -> String {
        if self.segment.is_all() { String::new() } else { format!("for {}, ", self.segment) }
    }

    /// What the windows of a failure show, compared with all windows.
    fn late_facts(&self, effect: &Effect, harm: &Harm) -> Option<String> {
        let estimate = |estimate: &Estimate| ArmEstimate { n: estimate.n as u64, value: estimate.value };
        let (canary, control) = (estimate(&harm.canary), estimate(&harm.control));
        let (subject, now) = self.parts(&Effect { canary, control, difference: harm.difference, ..*effect })?;
        let (_, all) = self.parts(effect)?;
        let length = Duration(harm.through.since(harm.from));
        let when = if harm.through == self.times.as_of {
            format!("in the last {length}")
        } else {
            format!("in the {length} to {}", harm.through.to_rfc3339().unwrap_or_default())
        };
        let since = Duration(self.times.as_of.since(harm.since));
        Some(format!("{subject} is {now} {when} ({all} in the {since} since the canary began)"))
    }

    /// A failure is a claim about some windows, not about all of them.
    fn at_some_time(&self, harm: &Harm) -> String {
        let in_step = self.times.step_began.is_some_and(|began| began <= harm.from);
        format!("at some time {} ", if in_step { "in this step" } else { "since the canary began" })
    }

    /// What was seen in both arms, as a clause.
    fn facts(&self, effect: &Effect) -> Option<String> {
        let (subject, seen) = self.parts(effect)?;
        Some(format!("{subject} is {seen}"))
    }

    /// The subject of the sentence, and what was seen of it.
    fn parts(&self, effect: &Effect) -> Option<(String, String)> {
        let (unit, mut noun) = (unit(self.metric), noun(self.metric));
        let mixed = self.metric.kind == MetricKind::Classes && self.culprit.is_none();
        if mixed || self.metric.kind == MetricKind::Distribution {
            let apart = Unit::Percent.distance(effect.difference?);
            let most = self.culprit.map_or(String::new(), |(level, _)| format!(", most so near {level}"));
            let subject = format!("{}the canary's {noun}", self.place());
            return Some((subject, format!("up to {apart} away from control's{most}")));
        }
        if let (MetricKind::Classes, Some((class, is_new))) = (&self.metric.kind, self.culprit) {
            noun = format!("{noun}: {class}{}", if *is_new { " (never seen in control)" } else { "" });
        }
        let canary = unit.value(effect.canary.value?);
        let control = effect.control.value.map(|value| unit.value(value));
        let own = format!("{}the canary's {noun}", self.place());
        Some(match (&self.metric.kind, self.metric.limit, control) {
            (MetricKind::Disagreement, ..) => {
                (format!("{}{noun}", self.place()), format!("{canary} of mirrored calls"))
            }
            (_, Some(_), control) => {
                let reference = control.map_or(String::new(), |control| format!(" (control's {control})"));
                (own, format!("{canary}{reference}"))
            }
            (_, None, control) => (own, format!("{canary} against {}", control?)),
        })
    }

    fn against_control(&self, result: MetricResult, effect: &Effect) -> String {
        let margin = effect.margin.unwrap_or(0.0);
        let both_ways = self.metric.kind.has_many_parts();
        let unit = Unit::of_difference(&self.metric.kind, &self.metric.source);
        let worse = if both_ways { "away" } else { "worse" };
        let tolerance = unit.distance(margin);
        if let (MetricResult::Undecided, Some(looks)) = (result, self.looks) {
            return match (looks.is_over(), looks.taken()) {
                (true, _) => format!("not shown to be within {tolerance}, and the planned looks are over"),
                (false, 0) => format!("not yet known to be within {tolerance}: no planned look was made yet"),
                (false, _) => format!("not known to be within {tolerance} at look {}", of_planned(looks)),
            };
        }
        match result {
            MetricResult::Fail => {
                let sure = confidence(self.spec.decision.false_rollback);
                if self.culprit.is_some_and(|(_, is_new)| *is_new) {
                    // A class that control does not have has no margin.
                    return format!("more than zero with {sure} at every look");
                }
                let how = if margin > 0.0 { format!("at least {tolerance} {worse}") } else { worse.to_owned() };
                format!("{how} with {sure} at every look")
            }
            MetricResult::Pass => {
                let sure = confidence(self.spec.decision.false_promotion);
                let look = self.looks.map_or(String::new(), |looks| format!(" at look {}", of_planned(looks)));
                format!("at most {tolerance} {worse} with {sure}{look}")
            }
            _ if margin > 0.0 => format!("not yet known to be within or beyond {tolerance}"),
            _ => format!("not known to be {worse}"),
        }
    }

    fn against_limits(&self, result: MetricResult, (pass, fail): (f64, f64)) -> String {
        let unit = unit(self.metric);
        let lower = self.metric.direction == Direction::LowerIsBetter;
        let (good, bad) = if lower { ("below", "above") } else { ("above", "below") };
        let (pass, fail) = (unit.value(pass), unit.value(fail));
        let decision = &self.spec.decision;
        match result {
            MetricResult::Fail => {
                format!("{bad} the limit of {fail} with {} at every look", confidence(decision.false_rollback))
            }
            MetricResult::Pass => {
                format!("{good} the limit of {pass} with {}", confidence(decision.false_promotion))
            }
            _ if pass == fail => format!("not yet known to be {good} or {bad} the limit of {pass}"),
            _ => format!("not yet known to be {good} {pass} or {bad} {fail}"),
        }
    }
}

/// How many of the planned looks were made, as in `2 of 5`.
fn of_planned(looks: &PlannedLooks) -> String {
    format!("{} of {}", looks.taken(), looks.plan().looks)
}

/// Why a metric is not judged.
pub(crate) fn no_data(reason: NoDataReason) -> &'static str {
    match reason {
        NoDataReason::NoCanaryTraffic => "there are no answers of the canary",
        NoDataReason::NoControlTraffic => "there are no answers of the control arm",
        NoDataReason::LabelsPending => "its labels have not matured yet",
        NoDataReason::LabelsMissing => "its labels are due and have not arrived",
        NoDataReason::ValueMissing => "no answer carried the value",
        NoDataReason::EventsLost => "writers lost events",
        NoDataReason::LateShareDiffers => "one arm's events come late more often than the other's",
        NoDataReason::SampleRatio => "the arms do not have the configured shares",
        NoDataReason::SegmentMix => "the arms see different populations",
        NoDataReason::NoShadowTraffic => "no mirrored call has both answers",
        NoDataReason::UnreadShareDiffers => "one arm's answers go unread more often than the other's",
        NoDataReason::ValueShareDiffers => "one arm's answers carry the value less often than the other's",
        NoDataReason::CancelledShareDiffers => "callers cancel calls of one arm more often than of the other",
        NoDataReason::FewUnits => "too many answers name no user, so it is unknown which of them belong together",
        NoDataReason::NotHeard => "a writer has not reported for this time",
        NoDataReason::FewAnswers => "too few answers for a check to count",
        NoDataReason::NoBaseline => "most answers of warm-up are bad",
        NoDataReason::Outage => "stable itself is failing",
        NoDataReason::LabelDelay => "one arm's labels come later than the other's",
        NoDataReason::ForeignVersion => "events of its arms name another version",
        NoDataReason::LabelContradictions => "labels of the same prediction contradict each other",
        NoDataReason::CannotFail => "no canary can fail it with stable's current values",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn confidences_are_short() {
        assert_eq!(confidence(0.01), "99 % confidence");
        assert_eq!(confidence(0.001), "99.9 % confidence");
    }
}
