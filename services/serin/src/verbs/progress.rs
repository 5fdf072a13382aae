//! The progress of a rollout: the time spent, what the next step still needs, and when it can start at the earliest.

use std::collections::BTreeMap;

use serin_rollout::{
    RolloutState,
    planner::{AfterHold, HoldCause, StepIndex, without_order},
};
use serin_schemas::{
    ids::{EventTime, Span},
    records::{Arm, Decision, MetricVerdict, NoDataReason, Phase, Verdict},
};
use serin_spec::{RolloutSpec, units::Duration};

use super::remote::freeze_line;
use crate::{
    plan,
    time::{span, to_the_second},
};

/// Largest number of open checks that are listed.
const MOST_CHECKS: usize = 5;

/// The progress as lines. `started`: when the canary got its first call, if known.
pub(super) fn lines(state: &RolloutState, verdict: Option<&Verdict>, started: Option<EventTime>) -> Vec<String> {
    let mut lines = match state.phase {
        Phase::Warming => warming(state, verdict),
        Phase::Baking | Phase::Shadowing if state.acts() => baking(state, verdict),
        Phase::Baking | Phase::Shadowing => {
            let spent = time(spent(state, verdict));
            return vec![format!(
                "Observed:  for {spent}; no step is taken (mode: observe), verdicts are only reported"
            )];
        }
        Phase::Held => held(state, verdict),
        Phase::Paused => paused(state, verdict),
        Phase::Promoted => {
            let (monitor, spent) = (state.spec.promotion.monitor, spent(state, verdict));
            vec![format!("Monitor:   {} of {monitor}, {} left", time(spent), left(monitor, spent))]
        }
        _ => return Vec::new(),
    };
    lines.extend(proof(state, verdict, started));
    lines
}

/// What people did to the rollout: weights, a freeze, an earlier attempt, and the way back after a promotion.
pub(super) fn by_people(state: &RolloutState) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some(freeze) = &state.freeze {
        lines.push(format!("Frozen:    no steps are taken; {}", freeze_line(freeze)));
    }
    if let Some(by_hand) = &state.by_hand {
        lines.push(format!("By hand:   {}", by_hand.weights.join(", ")));
    }
    if let Some(approved) = &state.approved {
        lines.push(format!("Approval:  {approved}"));
    }
    if let Some(retry) = &state.retry {
        let reason = if retry.reason.is_empty() { String::new() } else { format!(" ({})", retry.reason) };
        lines.push(format!("Attempt:   {}{reason}, after rollout {}: {}", retry.attempt, retry.of, retry.ended));
    }
    if let Some(until) = state.undo_until {
        let (back, until) = (state.spec.stable.version.in_words(), to_the_second(until.as_event_time()));
        lines.push(format!("Way back:  serin undo {} goes back to {back}, until {until} UTC", state.spec.model));
    }
    lines
}

/// The time that the step has baked.
fn spent(state: &RolloutState, verdict: Option<&Verdict>) -> Span {
    verdict.map_or(state.clock.spent, |verdict| state.clock.spent(verdict.as_of))
}

fn time(time: Span) -> String {
    span(time.as_secs_f64())
}

fn remains(of: Duration, spent: Span) -> Span {
    Span(of.0.0.saturating_sub(spent.0).max(0))
}

fn left(of: Duration, spent: Span) -> String {
    time(remains(of, spent))
}

/// The time until `missing` more arrive, at the rate of `seen` in `within`; `None`: unknown.
fn at_this_rate(missing: u64, seen: u64, within: Span) -> Option<Span> {
    if missing == 0 {
        return Some(Span(0));
    }
    let per_second = seen as f64 / within.as_secs_f64();
    (per_second > 0.0 && per_second.is_finite()).then(|| Span((missing as f64 / per_second * 1e6) as i64))
}

/// Formats the earliest time: `in 5m 3s at the earliest, at 2026-11-21 11:51:50 UTC`.
fn at_the_earliest(after: Span, now: EventTime) -> String {
    format!("in {} at the earliest, at {} UTC", time(after), to_the_second(now.plus(after)))
}

fn warming(state: &RolloutState, verdict: Option<&Verdict>) -> Vec<String> {
    let wanted = state.spec.warmup.min_events;
    let seen = verdict.and_then(|verdict| verdict.warmup_events).unwrap_or(0).max(0) as u64;
    let since = verdict.map_or(Span(0), |verdict| Span(verdict.as_of.since(state.started_at).0.max(0)));
    let stable = state.spec.stable.version.in_words();
    let mut lines = vec![format!("Warm-up:   {seen} of {wanted} good answers of {stable} in {}", time(since))];
    let labels = || state.spec.metrics.iter().flat_map(|metric| metric.labels().map(|label| (label, metric.maturity)));
    let first = labels().min_by_key(|(_, maturity)| maturity.0);
    if let Some((_, maturity)) = first {
        let mut names: Vec<&str> = labels().map(|(name, _)| name).collect();
        names.sort_unstable();
        names.dedup();
        lines.push(format!(
            "Labels:    waiting for the first labels ({}), {maturity} after their answers",
            names.join(", ")
        ));
    }
    let next = if state.acts() {
        state.spec.steps.first().map_or_else(String::new, |step| format!("the first step, {step}, starts"))
    } else {
        "the comparison starts".to_owned()
    };
    let labelled = first.map_or(Span(0), |(_, maturity)| remains(maturity, since));
    lines.push(match (at_this_rate(wanted.saturating_sub(seen), seen, since), verdict) {
        (Some(answered), Some(verdict)) => {
            format!("Next:      {next} {}", at_the_earliest(answered.max(labelled), verdict.as_of))
        }
        _ => format!("Next:      {next} when {stable} has answered; the canary gets no calls before"),
    });
    let unseen = verdict.into_iter().flat_map(|verdict| &verdict.seen).filter(|seen| seen.values < seen.answers);
    for seen in unseen {
        let mark = if seen.values == 0 { "!" } else { " " };
        lines.push(format!("  {mark} {}: {} of {} answers had a value", seen.metric, seen.values, seen.answers));
    }
    if verdict.is_some_and(|verdict| verdict.seen.iter().any(|seen| seen.values == 0 && seen.answers > 0)) {
        lines.push("    (to see the names in answers and feedback: serin tail events --limit 5)".to_owned());
    }
    lines
}

fn baked(state: &RolloutState, spent: Span) -> Option<String> {
    let bake = &state.current_step()?.bake;
    Some(format!("Baked:     {}, at least {}, at most {} (then it is held)", time(spent), bake.min, bake.max))
}

fn baking(state: &RolloutState, verdict: Option<&Verdict>) -> Vec<String> {
    let missing = Missing::of(state, verdict);
    let mut lines: Vec<String> = baked(state, spent(state, verdict)).into_iter().collect();
    let next = match state.spec.steps.get(state.step.map_or(0, |step| step.0 + 1)) {
        Some(step) => format!("{step} to {}", state.spec.canary.version.in_words()),
        None => "the promotion".to_owned(),
    };
    lines.push(match (missing.earliest, verdict, missing.parts.is_empty() && missing.checks.is_empty()) {
        (Some(Span(0)), _, true) => format!("Next:      {next}, with the next verdict"),
        (Some(Span(0)), _, false) => format!("Next:      {next}, as soon as nothing is missing"),
        (Some(after), Some(verdict), _) => format!("Next:      {next}, {}", at_the_earliest(after, verdict.as_of)),
        (Some(after), None, _) => format!("Next:      {next}, in {} at the earliest", time(after)),
        (None, ..) => format!("Next:      {next}, not before the canary has answers in this step"),
    });
    let checks = missing.checks.len();
    let counted = (checks > 0).then(|| if checks == 1 { "1 check".to_owned() } else { format!("{checks} checks") });
    let parts: Vec<String> = missing.parts.into_iter().chain(counted).collect();
    if !parts.is_empty() {
        lines.push(format!("Missing:   {}", parts.join("; ")));
    }
    lines.extend(missing.checks.iter().take(MOST_CHECKS).map(|check| format!("  - {check}")));
    if checks > MOST_CHECKS {
        lines.push(format!("  - and {} more: serin explain {}", checks - MOST_CHECKS, state.spec.model));
    }
    lines
}

/// What the next step waits for.
#[derive(Debug, Default)]
pub(super) struct Missing {
    /// Missing time and answers, one clause each.
    pub(super) parts: Vec<String>,
    /// Open checks, each with what it still needs.
    checks: Vec<String>,
    /// The earliest time until the step can start; `None`: unknown.
    earliest: Option<Span>,
}

impl Missing {
    /// What the current step still needs.
    pub(super) fn of(state: &RolloutState, verdict: Option<&Verdict>) -> Self {
        let mut missing = Self { earliest: Some(Span(0)), ..Self::default() };
        let running = matches!(state.phase, Phase::Baking | Phase::Shadowing) && state.acts();
        let Some(step) = state.current_step().filter(|_| running) else { return missing };
        let spent = spent(state, verdict);
        if spent < step.bake.min.0 {
            missing.parts.push(format!("{} of bake.min", left(step.bake.min, spent)));
            missing.waits(Some(remains(step.bake.min, spent)));
        }
        let Some(verdict) = verdict.filter(|verdict| StepIndex::of_number(verdict.step) == state.step) else {
            missing.parts.push("the first verdict of this step".to_owned());
            return missing;
        };
        let canary = verdict.arms.iter().find(|arm| arm.arm == Arm::Canary).map_or(0, |arm| arm.predictions);
        let answers = canary.saturating_sub(state.answers_before).max(0) as u64;
        if answers < step.bake.min_events {
            let (open, of) = (step.bake.min_events - answers, step.bake.min_events);
            missing.parts.push(format!("{open} of {of} answers of the canary (bake.minEvents)"));
            missing.waits(at_this_rate(open, answers, spent));
        }
        if verdict.decision != Decision::Promote {
            missing.take_checks(state, verdict, spent);
        }
        missing
    }

    fn waits(&mut self, after: Option<Span>) {
        self.earliest = self.earliest.zip(after).map(|(one, other)| one.max(other));
    }

    fn take_checks(&mut self, state: &RolloutState, verdict: &Verdict, spent: Span) {
        if verdict.reasons.is_empty() {
            self.parts.push(without_order(&verdict.sentence).to_owned());
        }
        for reason in &verdict.reasons {
            let found = verdict.metrics.iter().find(|one| one.metric == reason.metric && one.segment == reason.segment);
            let place = if reason.segment.is_all() { String::new() } else { format!(" in {}", reason.segment) };
            let labels = found.and_then(|metric| labels(state, metric, spent));
            if let Some((_, due)) = &labels {
                self.waits(Some(*due));
            }
            let labels = labels.map_or_else(String::new, |(text, _)| text);
            self.checks.push(format!("{}{place}: {}{labels}", reason.metric, reason.sentence));
        }
    }
}

/// The label that a check waits for, and when the first labels of this step are due.
fn labels(state: &RolloutState, metric: &MetricVerdict, spent: Span) -> Option<(String, Span)> {
    let spec = state.spec.metrics.iter().find(|known| known.name == metric.metric)?;
    let label = spec.labels().next()?;
    let waits = matches!(
        metric.no_data,
        Some(NoDataReason::LabelsPending | NoDataReason::LabelsMissing | NoDataReason::FewAnswers)
    );
    let due = remains(spec.maturity, spent);
    let when =
        if due.0 > 0 { format!("the first of this step are due in {}", time(due)) } else { "they are due".to_owned() };
    waits.then(|| (format!(" (label {label}: {when})"), due))
}

fn held(state: &RolloutState, verdict: Option<&Verdict>) -> Vec<String> {
    let Some(hold) = &state.hold else { return Vec::new() };
    let limit = state.hold_limit();
    let model = &state.spec.model;
    let since = verdict.map_or(Span(0), |verdict| Span(verdict.as_of.since(hold.since).0.max(0)));
    let after = verdict.and_then(|verdict| state.after_hold(verdict));
    let mut lines = vec![match (hold.cause, after) {
        (HoldCause::Stale, _) | (_, None) => format!(
            "Held:      no verdict since {} UTC; it continues by itself when verdicts arrive again. Until then its lease is not \
             renewed; when the lease expires, routers send every call to {}",
            to_the_second(hold.since),
            state.spec.stable.version.in_words()
        ),
        (cause, Some(after)) => {
            let continues = match cause {
                HoldCause::Health => "when the evidence is sound again",
                HoldCause::Marginal => "when there is enough evidence",
                HoldCause::Stale => "when verdicts arrive again",
                HoldCause::Approval => "when the freeze ends",
            };
            let setting = if cause == HoldCause::Approval { "approve.within" } else { "decision.holdMax" };
            let then = match after {
                AfterHold::Finding => "it is rolled back because of the finding",
                AfterHold::RolledBack if cause == HoldCause::Approval => "it is rolled back without a finding",
                AfterHold::RolledBack => "it is rolled back as inconclusive",
                AfterHold::Promoted => "it goes to the next step",
                AfterHold::Asked => "it waits for an operator",
                AfterHold::Verdicts => "it waits for verdicts",
            };
            let when = match after {
                AfterHold::Asked if since.0 >= limit.0.0 => "it waits for an operator".to_owned(),
                _ => format!("in {} {then} ({setting})", left(limit, since)),
            };
            if cause != HoldCause::Approval {
                format!("Held:      for {}; it continues by itself {continues}; {when}", time(since))
            } else if state.approved.is_some() {
                "Approval:  given; the step is taken when the freeze ends".to_owned()
            } else {
                format!("Approval:  asked {} ago; {when}", time(since))
            }
        }
    }];
    lines.extend(baked(state, spent(state, verdict)));
    lines.push(if hold.cause == HoldCause::Approval {
        format!("You can:   serin approve {model}, serin reject {model}")
    } else {
        format!("You can:   serin abort {model}, serin promote {model}, serin resume {model}")
    });
    lines
}

fn paused(state: &RolloutState, verdict: Option<&Verdict>) -> Vec<String> {
    let mut lines =
        vec!["Paused:    the step's clock is stopped; evidence against the canary still rolls it back".to_owned()];
    lines.extend(baked(state, spent(state, verdict)));
    lines.push(format!("You can:   serin resume {0}, serin promote {0}, serin abort {0}", state.spec.model));
    lines
}

/// How long a proof takes with the measured traffic, if a step requires one.
fn proof(state: &RolloutState, verdict: Option<&Verdict>, started: Option<EventTime>) -> Option<String> {
    if state.promoted {
        return None;
    }
    let verdict = verdict?;
    let (answers, since) = match verdict.warmup_events {
        Some(seen) => (seen, state.started_at),
        None => (verdict.arms.iter().map(|arm| arm.predictions).sum(), started?),
    };
    let seconds = verdict.as_of.since(since).as_secs_f64();
    if answers <= 0 || seconds <= 0.0 {
        return None;
    }
    let per_second = answers as f64 / seconds;
    let measured = measured(&state.spec, verdict);
    let proof = plan::proof(&state.spec, per_second, &measured)?;
    let provided = plan::under_limits(&state.spec, &measured).map_or_else(String::new, |limits| format!(", {limits}"));
    Some(format!("Proof:     at {} requests/s {proof}{provided}", serin_kinds::significant(per_second, 3)))
}

/// The measured value of each metric over all traffic, if there are enough answers: control's value, or the canary's if the metric
/// has a limit.
fn measured(spec: &RolloutSpec, verdict: &Verdict) -> BTreeMap<String, f64> {
    let least = spec.decision.min_answers.max(1);
    let overall = verdict.metrics.iter().filter(|metric| metric.segment.is_all());
    let value = |metric: &MetricVerdict| {
        let estimate = if metric.limit_pass.is_some() { &metric.canary } else { &metric.control };
        let value = estimate.value.filter(|_| estimate.n.max(0).unsigned_abs() >= least)?;
        Some((metric.metric.clone(), value))
    };
    overall.filter_map(value).collect()
}

#[cfg(test)]
mod tests {
    use serin_rollout::{
        Input, Planner,
        planner::{Settings, WallMs},
    };
    use serin_schemas::records::{Action, Command, HealthIssue, NoDataReason};
    use serin_spec::RolloutSpec;

    use super::*;

    const SPEC: &str = "{apiVersion: serin.dev/v1, kind: Rollout, model: m, stable: {version: '1', url: 'http://a'}, \
                        canary: {version: '2', url: 'http://b'}, steps: [{weight: 50%, bake: {min: 10m, max: 2h}}], \
                        metrics: [{name: failed, kind: rate, source: failed, margin: {absolute: 0.01}}]}";

    fn verdict(state: &RolloutState, secs: i64, decision: Decision) -> Verdict {
        let text = include_str!("../../../../schemas/tests/golden/verdict.v4.json");
        let mut verdict: Verdict = serde_json::from_str(text).unwrap();
        (verdict.model, verdict.rollout) = (state.spec.model.clone(), state.id.clone());
        (verdict.generation, verdict.step) = (state.generation, StepIndex::number(state.step));
        (verdict.as_of, verdict.decision, verdict.rules) = (EventTime::from_secs(secs), decision, 2);
        (verdict.reasons, verdict.metrics, verdict.health, verdict.arms) = (vec![], vec![], vec![], vec![]);
        (verdict.frozen, verdict.warmup_events) = (None, None);
        if decision == Decision::Hold {
            let sentence = "labels are late".to_owned();
            let reason = NoDataReason::LabelDelay;
            verdict.health = vec![HealthIssue { reason, policy: "hold".to_owned(), sentence }];
        }
        verdict
    }

    /// The lines about a held rollout whose step started at 0, after verdicts at these times and, if `silent`, an hour without one.
    fn held(on_inconclusive: &str, verdicts: &[(i64, Decision)], silent: bool) -> String {
        let mut spec: RolloutSpec = serin_rollout::parse_yaml(SPEC).unwrap();
        spec.decision.on_inconclusive = serde_json::from_str(&format!("{on_inconclusive:?}")).unwrap();
        let mut planner = Planner::new(Settings::default());
        let command = Command {
            rollout: Some("r".into()),
            spec: Some(serde_json::to_string(&spec).unwrap()),
            ..Command::new("c".to_owned(), Action::Apply, spec.model.clone(), "ada".to_owned(), EventTime(0))
        };
        planner.apply(Input::Command(Box::new(command)), WallMs(0));
        let state = |planner: &Planner| planner.model(&spec.model).unwrap().active.clone().unwrap();
        let mut warm = verdict(&state(&planner), 0, Decision::Promote);
        warm.frozen = Some("{\"segments\":{},\"warmupEvents\":1000}".to_owned());
        planner.apply(Input::Verdict(Box::new(warm)), WallMs(0));
        let mut last = None;
        for &(secs, decision) in verdicts {
            last = Some(verdict(&state(&planner), secs, decision));
            planner.apply(Input::Verdict(Box::new(last.clone().unwrap())), WallMs(0));
        }
        if silent {
            planner.apply(Input::Tick, WallMs(3_600_000));
        }
        let state = state(&planner);
        assert_eq!(state.phase, Phase::Held);
        super::held(&state, last.as_ref()).join("\n")
    }

    /// The planner's own tests check that [`RolloutState::after_hold`] is what happens.
    #[test]
    fn the_next_step_after_a_hold_is_shown_for_each_cause() {
        let (hour, day) = (3600, 86_400);
        let unsound = [(60, Decision::Hold), (hour, Decision::Hold)];
        let marginal = [(3 * hour, Decision::Continue), (4 * hour, Decision::Continue)];
        for (on_inconclusive, verdicts, expected) in [
            (
                "rollback",
                unsound,
                "when the evidence is sound again; in 23h 1m it is rolled back as inconclusive (decision.holdMax)",
            ),
            ("promote", unsound, "it waits for an operator (decision.holdMax)"),
            ("hold", unsound, "it waits for an operator (decision.holdMax)"),
            (
                "rollback",
                marginal,
                "when there is enough evidence; in 23h 0m it is rolled back as inconclusive (decision.holdMax)",
            ),
            ("promote", marginal, "in 23h 0m it goes to the next step (decision.holdMax)"),
            ("hold", marginal, "it waits for an operator (decision.holdMax)"),
            ("hold", [(60, Decision::Hold), (2 * day, Decision::Hold)], "; it waits for an operator\n"),
        ] {
            let line = held(on_inconclusive, &verdicts, false);
            assert!(line.contains(expected), "{on_inconclusive}: {line}");
        }
        let line = held("rollback", &[(60, Decision::Continue)], true);
        assert!(
            line.contains("no verdict since 1970-01-01 00:01") && line.contains("it continues by itself"),
            "{line}"
        );
        assert!(!line.contains("rolled back") && line.contains("send every call to version 1"), "{line}");
    }

    #[test]
    fn measured_values_are_controls_or_the_canarys_under_a_limit() {
        let mut spec: RolloutSpec = serin_rollout::parse_yaml(SPEC).unwrap();
        spec.decision.min_answers = 50;
        let text = include_str!("../../../../schemas/tests/golden/verdict.v4.json");
        let mut verdict: Verdict = serde_json::from_str(text).unwrap();
        let one = verdict.metrics[0].clone();
        let with = |name: &str, limit: Option<f64>, n: i64| {
            let mut metric = one.clone();
            (metric.metric, metric.segment, metric.limit_pass) =
                (name.to_owned(), serin_schemas::records::Segment::all(), limit);
            (metric.canary.n, metric.canary.value, metric.control.n, metric.control.value) =
                (n, Some(1.0), n, Some(2.0));
            metric
        };
        verdict.metrics = vec![with("a", None, 50), with("b", Some(3.0), 50), with("c", None, 49)];
        let measured = measured(&spec, &verdict);
        assert_eq!(measured.into_iter().collect::<Vec<_>>(), [("a".to_owned(), 2.0), ("b".to_owned(), 1.0)]);
    }
}
