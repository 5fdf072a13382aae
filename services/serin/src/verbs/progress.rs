//! How far a rollout is on its way: what the step has had, what it has left, and what is missing for the next one.

use std::fmt::Write as _;

use serin_rollout::{RolloutState, WayOut, units::Duration};
use serin_schemas::{
    ids::{EventTime, Span},
    records::{Arm, Decision, Phase, Verdict},
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
    let (Some(hold), Some(verdict)) = (&state.hold, verdict) else { return Vec::new() };
    let decision = &state.spec.decision;
    let since = verdict.as_of.since(hold.since);
    let then = match decision.on_inconclusive {
        WayOut::Rollback => "it is rolled back",
        WayOut::Promote => "it is promoted if the evidence is sound",
        WayOut::Hold => "somebody is asked again",
    };
    vec![format!("Held:      for {}; in {} {then} (decision.holdMax)", time(since), left(decision.hold_max, since))]
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
    let proof = plan::proof(&state.spec, per_second)?;
    Some(format!("Proof:     at {} requests/s {proof}", crate::evidence::short(per_second)))
}
