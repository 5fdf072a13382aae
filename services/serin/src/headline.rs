//! The state of a rollout in one sentence, and its ramp in one line.

use serin_rollout::{
    Outcome, RolloutState,
    planner::{Applied, HoldCause, StepIndex},
};
use serin_schemas::records::Phase;

use crate::terminal::Tone;

/// The state of a rollout in one sentence, and whether it is good. It does not claim that calls moved before routers report it.
pub(crate) fn headline(state: &RolloutState, applied: Option<&Applied>) -> (Tone, String) {
    let (stable, canary) = (state.spec.stable.version.in_words(), state.spec.canary.version.in_words());
    let model = &state.spec.model;
    let done = applied.is_none_or(|applied| applied.done);
    let back = match (state.acts(), done) {
        (false, _) => "it was only observed, so no calls were moved".to_owned(),
        (true, true) => format!("all calls go to {stable}"),
        (true, false) => format!("all calls go back to {stable}, but not every router does this yet"),
    };
    let (tone, text) = match state.phase {
        Phase::Pending => (Tone::Plain, format!("{canary} waits for another rollout to end")),
        Phase::Warming if state.acts() => (Tone::Plain, format!("warming up: {canary} gets no calls yet")),
        Phase::Warming => (Tone::Plain, format!("warming up, observed only: {canary} is not compared yet")),
        Phase::Baking if !state.acts() => (Tone::Plain, format!("observed only: {canary} is compared with {stable}")),
        Phase::Baking => (Tone::Plain, format!("{canary} gets {} of the calls, {}", state.canary_share, step(state))),
        Phase::Shadowing => {
            (Tone::Plain, format!("{canary} gets a copy of {} of the calls, {}", state.mirror_share, step(state)))
        }
        Phase::Held if waits_for_approval(state) => {
            (Tone::Open, format!("WAITS FOR AN APPROVAL with {canary} at {}, {}", at(state), step(state)))
        }
        Phase::Held => (Tone::Open, format!("HELD with {canary} at {}, {}", at(state), step(state))),
        Phase::Paused => {
            let by = state.pause.as_ref().map_or("unknown", |pause| pause.by.as_str());
            (Tone::Open, format!("PAUSED by {by} with {canary} at {}, {}", at(state), step(state)))
        }
        Phase::Promoted => {
            (Tone::Good, format!("PROMOTED: {canary} serves {} and is still monitored", state.canary_share))
        }
        Phase::Completed if done => (Tone::Good, format!("PROMOTED: {canary} serves all calls")),
        Phase::Completed => {
            (Tone::Open, format!("PROMOTED: {canary} is the new stable, but not every router uses it yet"))
        }
        Phase::RolledBack => {
            let why = match state.ending.as_ref().map(|ending| ending.outcome) {
                Some(Outcome::NoData) => " because it could not be judged",
                Some(Outcome::Inconclusive) => " because time ran out, without a finding against it",
                _ => "",
            };
            (Tone::Bad, format!("ROLLED BACK: {canary}{why}; {back}"))
        }
        Phase::Aborted => (Tone::Bad, format!("ABORTED: {canary}; {back}")),
        Phase::Superseded => (Tone::Bad, format!("SUPERSEDED: {canary} by a newer rollout")),
    };
    (tone, format!("{model}: {text}"))
}

/// All steps of the ramp with their marks: done, current, to come, or never reached.
pub(crate) fn ramp(state: &RolloutState) -> String {
    let ended_badly = state.phase.is_final() && !state.is_promoted();
    let steps = state.spec.steps.iter().enumerate().map(|(index, step)| {
        let index = Some(StepIndex(index));
        match index {
            // A manual promotion skips steps.
            _ if state.is_promoted() && index > state.step => format!("- {step}"),
            _ if index < state.step || state.is_promoted() => format!("✔ {step}"),
            _ if ended_badly && index == state.step => format!("✘ {step} {}", phase(state)),
            _ if ended_badly => format!("- {step}"),
            _ if index == state.step && matches!(state.phase, Phase::Held | Phase::Paused) => {
                format!("● {step} {}", phase(state))
            }
            _ if index == state.step => format!("● {step}"),
            _ => format!("○ {step}"),
        }
    });
    let last = if state.is_promoted() {
        '✔'
    } else if ended_badly {
        '-'
    } else {
        '○'
    };
    steps.chain([format!("{last} 100%")]).collect::<Vec<_>>().join("  ")
}

/// The tone of a phase in a table.
pub(crate) fn tone(phase: Phase) -> Tone {
    match phase {
        Phase::Promoted | Phase::Completed => Tone::Good,
        Phase::RolledBack | Phase::Aborted | Phase::Superseded => Tone::Bad,
        Phase::Held | Phase::Paused => Tone::Open,
        _ => Tone::Plain,
    }
}

/// The phase as text.
pub(crate) fn phase(state: &RolloutState) -> String {
    let name = serde_json::to_value(state.phase).ok().and_then(|name| name.as_str().map(str::to_owned));
    name.unwrap_or_default().replace('_', " ")
}

fn waits_for_approval(state: &RolloutState) -> bool {
    state.hold.as_ref().is_some_and(|hold| hold.cause == HoldCause::Approval) && state.approved.is_none()
}

/// `step 1 of 3`.
fn step(state: &RolloutState) -> String {
    match state.step {
        None => "before the first step".to_owned(),
        Some(StepIndex(step)) => format!("step {} of {}", step + 1, state.spec.steps.len()),
    }
}

/// The canary's share of the calls, or of the copies, while the rollout is held or paused.
fn at(state: &RolloutState) -> String {
    if state.mirror_share.is_none() {
        state.canary_share.to_string()
    } else {
        format!("a copy of {}", state.mirror_share)
    }
}
