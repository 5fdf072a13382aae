//! How far a rollout is on its way: what the step has had, what it has left, and what is missing for the next one.

use std::{collections::BTreeMap, fmt::Write as _};

use serin_rollout::{
    RolloutSpec, RolloutState,
    planner::{AfterHold, HoldCause},
    units::Duration,
};
use serin_schemas::{
    ids::{EventTime, Span},
    records::{Arm, Decision, MetricVerdict, Phase, Verdict},
};

use crate::{plan, time::span};

/// A moment, with seconds where windows are shorter than a minute.
pub(super) fn moment(at: EventTime, window: Duration) -> String {
    if window < Duration::from_secs(60) { crate::time::to_the_second(at) } else { crate::time::date(at) }
}

/// What is said of it, a line each. `began`: when the canary got its first call, as far as is known.
pub(super) fn lines(state: &RolloutState, verdict: Option<&Verdict>, began: Option<EventTime>) -> Vec<String> {
    let mut lines = match state.phase {
        Phase::Warming => warming(state, verdict),
        Phase::Baking | Phase::Shadowing => baking(state, verdict),
        Phase::Held => held(state, verdict),
        Phase::Promoted => {
            let (monitor, spent) = (state.spec.promotion.monitor, spent(state, verdict));
            vec![format!("Monitor:   {} of {monitor}, {} left", time(spent), left(monitor, spent))]
        }
        _ => return Vec::new(),
    };
    lines.extend(proof(state, verdict, began));
    lines
}

/// Time that the step has baked for.
fn spent(state: &RolloutState, verdict: Option<&Verdict>) -> Span {
    verdict.map_or(state.clock.spent, |verdict| state.clock.spent(verdict.as_of))
}

fn time(time: Span) -> String {
    span(time.as_secs_f64())
}

fn left(of: Duration, spent: Span) -> String {
    time(Span(of.0.0.saturating_sub(spent.0).max(0)))
}

fn warming(state: &RolloutState, verdict: Option<&Verdict>) -> Vec<String> {
    let wanted = state.spec.warmup.min_events;
    let seen = verdict.and_then(|verdict| verdict.warmup_events).unwrap_or(0).max(0) as u64;
    let since = verdict.map_or(0.0, |verdict| verdict.as_of.since(state.started_at).as_secs_f64()).max(0.0);
    let mut line =
        format!("Warm-up:   {seen} of {wanted} good answers of {} in {}", state.spec.stable.version, span(since));
    if seen < wanted && seen > 0 && since > 0.0 {
        let _ = write!(line, "; at this rate {} more", span((wanted - seen) as f64 / seen as f64 * since));
    } else if seen < wanted {
        line.push_str("; the canary gets nothing before");
    }
    let labels = state.spec.metrics.iter().filter(|metric| metric.source.needs_label());
    if let Some(maturity) = labels.map(|metric| metric.maturity).min_by_key(|maturity| maturity.0) {
        let _ = write!(line, "; it also waits for the first labels, {maturity} after their answers");
    }
    let mut lines = vec![line];
    let unseen = verdict.into_iter().flat_map(|verdict| &verdict.seen).filter(|seen| seen.values < seen.answers);
    for seen in unseen {
        let mark = if seen.values == 0 { "!" } else { " " };
        lines.push(format!("  {mark} {}: {} of {} answers carried a value", seen.metric, seen.values, seen.answers));
    }
    if verdict.is_some_and(|verdict| verdict.seen.iter().any(|seen| seen.values == 0 && seen.answers > 0)) {
        lines.push("    (the names that answers and feedback carry: serin tail events --limit 5)".to_owned());
    }
    lines
}

fn baking(state: &RolloutState, verdict: Option<&Verdict>) -> Vec<String> {
    let Some(step) = state.current_step() else { return Vec::new() };
    let spent = spent(state, verdict);
    let mut lines = vec![format!(
        "Baked:     {} of at least {} and at most {}; the next step comes in {} at the earliest",
        time(spent),
        step.bake.min,
        step.bake.max,
        left(step.bake.min, spent)
    )];
    let missing = missing(state, verdict);
    if !missing.is_empty() {
        lines.push(format!("Missing:   {}", missing.join("; ")));
    }
    lines
}

/// What the next step waits for.
pub(super) fn missing(state: &RolloutState, verdict: Option<&Verdict>) -> Vec<String> {
    let mut missing = Vec::new();
    let Some(step) = state.current_step().filter(|_| matches!(state.phase, Phase::Baking | Phase::Shadowing)) else {
        return missing;
    };
    let spent = spent(state, verdict);
    if spent < step.bake.min.0 {
        missing.push(format!("{} of bake.min", left(step.bake.min, spent)));
    }
    let Some(verdict) = verdict.filter(|verdict| verdict.step == state.step) else {
        missing.push("the first verdict of this step".to_owned());
        return missing;
    };
    let canary = verdict.arms.iter().find(|arm| arm.arm == Arm::Canary).map_or(0, |arm| arm.predictions);
    let answers = canary.saturating_sub(state.answers_before).max(0) as u64;
    if answers < step.bake.min_events {
        missing.push(format!("{} answers of the canary (bake.minEvents)", step.bake.min_events - answers));
    }
    if verdict.decision != Decision::Promote {
        let open: Vec<String> = verdict
            .reasons
            .iter()
            .map(|reason| {
                let place = if reason.segment.is_all() { String::new() } else { format!(" in {}", reason.segment) };
                format!("{}{place}", reason.metric)
            })
            .collect();
        missing.push(match open.as_slice() {
            [] => verdict.sentence.strip_prefix("keep baking: ").unwrap_or(&verdict.sentence).to_owned(),
            open => format!("{} to be shown: {}", counted(open.len(), "check"), open.join(", ")),
        });
    }
    missing
}

fn counted(count: usize, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}

fn held(state: &RolloutState, verdict: Option<&Verdict>) -> Vec<String> {
    let Some(hold) = &state.hold else { return Vec::new() };
    if hold.cause == HoldCause::Stale {
        let since = moment(hold.since, state.spec.window);
        let stable = &state.spec.stable.version;
        return vec![format!(
            "Held:      no verdict since {since} UTC; it goes on by itself when verdicts come again. Until then its lease is not \
             renewed, and at the lease's end routers send every call to {stable}"
        )];
    }
    let Some((verdict, after)) = verdict.and_then(|verdict| Some((verdict, state.after_hold(verdict)?))) else {
        return Vec::new();
    };
    let (hold_max, since) = (state.spec.decision.hold_max, verdict.as_of.since(hold.since));
    let then = match after {
        AfterHold::Finding => "it is rolled back on what was found",
        AfterHold::RolledBack => "it is rolled back as inconclusive",
        AfterHold::Promoted => "it is promoted",
        AfterHold::Asked => "it waits for a person",
        AfterHold::Verdicts => "it waits for verdicts",
    };
    let when = match after {
        AfterHold::Asked if since >= hold_max.0 => "it waits for a person: promote, resume or abort it".to_owned(),
        _ => format!("in {} {then} (decision.holdMax)", left(hold_max, since)),
    };
    let unless = match hold.cause {
        HoldCause::Health => "once the evidence can be trusted it goes on by itself",
        HoldCause::Marginal => "once all is shown the next step is taken by itself",
        HoldCause::Stale => "once verdicts come it goes on by itself",
    };
    vec![format!("Held:      for {}; {when}; {unless}", time(since))]
}

/// How long a proof takes with the traffic that is there, where a step asks for one.
fn proof(state: &RolloutState, verdict: Option<&Verdict>, began: Option<EventTime>) -> Option<String> {
    if state.promoted {
        return None;
    }
    let verdict = verdict?;
    let (answers, since) = match verdict.warmup_events {
        Some(seen) => (seen, state.started_at),
        None => (verdict.arms.iter().map(|arm| arm.predictions).sum(), began?),
    };
    let seconds = verdict.as_of.since(since).as_secs_f64();
    if answers <= 0 || seconds <= 0.0 {
        return None;
    }
    let per_second = answers as f64 / seconds;
    let measured = measured(&state.spec, verdict);
    let proof = plan::proof(&state.spec, per_second, &measured)?;
    let provided = plan::under_limits(&state.spec, &measured).map_or_else(String::new, |limits| format!(", {limits}"));
    Some(format!("Proof:     at {} requests/s {proof}{provided}", crate::evidence::short(per_second)))
}

/// What a verdict has seen of each metric over all traffic, where that is more than a handful of answers: control's value, or the
/// canary's where it is held against a limit.
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
    use serin_rollout::{Input, Planner, RolloutSpec, planner::Settings};
    use serin_schemas::records::{Action, Command, HealthIssue, NoDataReason};

    use super::*;

    const SPEC: &str = "{apiVersion: serin.dev/v1, kind: Rollout, model: m, stable: {version: '1', url: 'http://a'}, \
                        canary: {version: '2', url: 'http://b'}, steps: [{weight: 50%, bake: {min: 10m, max: 2h}}], \
                        metrics: [{name: failed, kind: rate, source: failed, margin: {absolute: 0.01}}]}";

    fn verdict(state: &RolloutState, secs: i64, decision: Decision) -> Verdict {
        let text = include_str!("../../../../schemas/tests/golden/verdict.v4.json");
        let mut verdict: Verdict = serde_json::from_str(text).unwrap();
        (verdict.model, verdict.rollout) = (state.spec.model.clone(), state.id.clone());
        (verdict.generation, verdict.step) = (state.generation, state.step);
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

    /// What is said of a rollout whose step began at 0, after verdicts at these times, and then none for an hour.
    fn held(way_out: &str, verdicts: &[(i64, Decision)], silent: bool) -> String {
        let mut spec: RolloutSpec = serin_rollout::parse_yaml(SPEC).unwrap();
        spec.decision.on_inconclusive = serde_json::from_str(&format!("{way_out:?}")).unwrap();
        let mut planner = Planner::new(Settings::default());
        let command = Command {
            id: "c".to_owned(),
            action: Action::Apply,
            model: spec.model.clone(),
            rollout: Some("r".into()),
            spec: Some(serde_json::to_string(&spec).unwrap()),
            actor: "ada".to_owned(),
            reason: String::new(),
            at: EventTime(0),
        };
        planner.apply(Input::Command(Box::new(command)), 0);
        let state = |planner: &Planner| planner.model(&spec.model).unwrap().active.clone().unwrap();
        let mut warm = verdict(&state(&planner), 0, Decision::Promote);
        warm.frozen = Some("{\"segments\":{},\"warmupEvents\":1000}".to_owned());
        planner.apply(Input::Verdict(Box::new(warm)), 0);
        let mut last = None;
        for &(secs, decision) in verdicts {
            last = Some(verdict(&state(&planner), secs, decision));
            planner.apply(Input::Verdict(Box::new(last.clone().unwrap())), 0);
        }
        if silent {
            planner.apply(Input::Tick, 3_600_000);
        }
        let state = state(&planner);
        assert_eq!(state.phase, Phase::Held);
        super::held(&state, last.as_ref()).join("\n")
    }

    /// The planner's own table test shows that what [`RolloutState::after_hold`] says is what happens.
    #[test]
    fn what_a_hold_leads_to_is_said_for_each_cause() {
        let (hour, day) = (3600, 86_400);
        let unsound = [(60, Decision::Hold), (hour, Decision::Hold)];
        let marginal = [(3 * hour, Decision::Continue), (4 * hour, Decision::Continue)];
        for (way_out, verdicts, said) in [
            ("rollback", unsound, "in 23h 1m it is rolled back as inconclusive (decision.holdMax); once the evidence"),
            ("promote", unsound, "it waits for a person (decision.holdMax)"),
            ("hold", unsound, "it waits for a person (decision.holdMax)"),
            ("rollback", marginal, "in 23h 0m it is rolled back as inconclusive (decision.holdMax); once all is shown"),
            ("promote", marginal, "in 23h 0m it is promoted (decision.holdMax)"),
            ("hold", marginal, "it waits for a person (decision.holdMax)"),
            ("hold", [(60, Decision::Hold), (2 * day, Decision::Hold)], "; it waits for a person: promote, resume or abort"),
        ] {
            let line = held(way_out, &verdicts, false);
            assert!(line.contains(said), "{way_out}: {line}");
        }
        let line = held("rollback", &[(60, Decision::Continue)], true);
        assert!(line.contains("no verdict since 1970-01-01 00:01") && line.contains("it goes on by itself"), "{line}");
        assert!(!line.contains("rolled back") && line.contains("send every call to 1"), "{line}");
    }

    #[test]
    fn what_was_measured_is_controls_value_or_the_canarys_under_a_limit() {
        let mut spec: RolloutSpec = serin_rollout::parse_yaml(SPEC).unwrap();
        spec.decision.min_answers = 50;
        let text = include_str!("../../../../schemas/tests/golden/verdict.v4.json");
        let mut verdict: Verdict = serde_json::from_str(text).unwrap();
        let one = verdict.metrics[0].clone();
        let with = |name: &str, limit: Option<f64>, n: i64| {
            let mut metric = one.clone();
            (metric.metric, metric.segment, metric.limit_pass) =
                (name.to_owned(), serin_schemas::records::Segment::all(), limit);
            (metric.canary.n, metric.canary.value, metric.control.n, metric.control.value) = (n, Some(1.0), n, Some(2.0));
            metric
        };
        verdict.metrics = vec![with("a", None, 50), with("b", Some(3.0), 50), with("c", None, 49)];
        let measured = measured(&spec, &verdict);
        assert_eq!(measured.into_iter().collect::<Vec<_>>(), [("a".to_owned(), 2.0), ("b".to_owned(), 1.0)]);
    }
}
