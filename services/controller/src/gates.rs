//! The current verdict on a model as one answer for another tool: pass, fail or wait.
//!
//! Invariants:
//! - only evidence that is complete, current and about the version in question passes. A rollout that does not exist, waits, is held,
//!   paused or frozen, or whose verdicts have stopped, is answered with `wait`;
//! - only a finding or a person's decision against the version fails. What is not known does not fail either, because other tools roll
//!   back when an answer fails.

use serde::Serialize;
use serin_rollout::{
    RolloutState,
    planner::{StepIndex, missing_evidence, stale_limit_ms, without_order},
};
use serin_schemas::{
    ids::{EventTime, ModelName, RolloutId, Version},
    records::{Decision, Phase, Verdict},
};

/// What another tool may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Answer {
    /// Go on: the evidence is complete, or the version is promoted.
    Pass,
    /// Go back: the evidence, or a person, has decided against the version.
    Fail,
    /// Neither is known yet.
    Wait,
}

/// The answer about a model, and why.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Gate {
    /// Whether the answer is [`Answer::Pass`].
    pub(crate) ok: bool,
    pub(crate) answer: Answer,
    /// Stable word for the cause.
    pub(crate) code: &'static str,
    /// The cause in one sentence.
    pub(crate) reason: String,
    model: ModelName,
    /// The version on trial.
    version: Option<Version>,
    rollout: Option<RolloutId>,
    phase: Option<Phase>,
    /// Index of the step, from 0; -1 before the first one.
    step: i32,
    decision: Option<Decision>,
    /// Event time of the newest verdict.
    as_of: Option<EventTime>,
    score_low: Option<f64>,
    score_high: Option<f64>,
}

/// What is known of the rollout in question.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Known<'a> {
    pub(crate) state: &'a RolloutState,
    pub(crate) verdict: Option<&'a Verdict>,
    /// Time since the newest verdict was written, by the wall clock, in milliseconds.
    pub(crate) silent_ms: i64,
    /// The setting `stale_after`, in milliseconds.
    pub(crate) stale_ms: i64,
}

impl Gate {
    /// The answer without a rollout.
    pub(crate) fn without_rollout(model: &str) -> Self {
        Self {
            ok: false,
            answer: Answer::Wait,
            code: "no_rollout",
            reason: format!("there is no rollout of {model}: start one with mode: observe"),
            model: model.into(),
            version: None,
            rollout: None,
            phase: None,
            step: -1,
            decision: None,
            as_of: None,
            score_low: None,
            score_high: None,
        }
    }

    /// The answer about a rollout. `version`: the version that the other tool deploys, if it names one.
    pub(crate) fn of(known: Known<'_>, version: Option<&str>) -> Self {
        let Known { state, verdict, .. } = known;
        let (answer, code, reason) = decide(known, version);
        Self {
            ok: answer == Answer::Pass,
            answer,
            code,
            reason,
            model: state.spec.model.clone(),
            version: Some(state.spec.canary.version.clone()),
            rollout: Some(state.id.clone()),
            phase: Some(state.phase),
            step: StepIndex::number(state.step),
            decision: verdict.map(|verdict| verdict.decision),
            as_of: verdict.map(|verdict| verdict.as_of),
            score_low: verdict.map(|verdict| verdict.score_low),
            score_high: verdict.map(|verdict| verdict.score_high),
        }
    }
}

fn decide(known: Known<'_>, version: Option<&str>) -> (Answer, &'static str, String) {
    let Known { state, verdict, silent_ms, stale_ms } = known;
    let wait = |code, reason: String| (Answer::Wait, code, reason);
    let canary = &state.spec.canary.version;
    if let Some(version) = version.filter(|version| *version != canary.as_str()) {
        let reason = format!("the newest rollout of {} is about {canary}, not {version}", state.spec.model);
        return wait("other_version", reason);
    }
    let sentence = || state.ending.as_ref().map_or_else(|| state.sentence.clone(), |ending| ending.sentence.clone());
    if state.phase.is_final() {
        // The next version of the model may have no rollout yet.
        if version.is_none() {
            let reason =
                format!("the rollout of {canary} has ended ({}); name the version that it is about", sentence());
            return wait("version_needed", reason);
        }
        return match state.phase {
            Phase::Completed => (Answer::Pass, "promoted", sentence()),
            Phase::RolledBack => (Answer::Fail, "rolled_back", sentence()),
            Phase::Aborted if state.acts() => (Answer::Fail, "aborted", sentence()),
            _ => wait("ended", sentence()),
        };
    }
    if let Some(verdict) = verdict.filter(|verdict| verdict.decision == Decision::Rollback) {
        return (Answer::Fail, "failed", without_order(&verdict.sentence).to_owned());
    }
    match state.phase {
        Phase::Pending => return wait("pending", sentence()),
        Phase::Warming => return wait("warming", sentence()),
        Phase::Paused => return wait("paused", sentence()),
        Phase::Held => return wait("held", sentence()),
        _ => {}
    }
    if let Some(freeze) = &state.freeze {
        return wait("frozen", freeze.in_words());
    }
    if state.promoted {
        return (Answer::Pass, "promoted", sentence());
    }
    if state.acts() {
        let step = state.step.map_or(0, |step| step.0 + 1);
        let reason = format!("Serin moves the calls itself; step {step} of {}", state.spec.steps.len());
        return wait("baking", reason);
    }
    let Some(verdict) = verdict.filter(|verdict| verdict.generation == state.generation) else {
        return wait("no_verdict", "there is no verdict on this step yet".to_owned());
    };
    if silent_ms > stale_limit_ms(stale_ms, &state.spec) {
        return wait("stale", format!("no verdict for {} s", silent_ms / 1000));
    }
    if verdict.decision == Decision::Hold {
        return wait("unsound", without_order(&verdict.sentence).to_owned());
    }
    match missing_evidence(state, verdict, verdict.as_of) {
        Some(missing) => wait("undecided", missing),
        None => (Answer::Pass, "passed", verdict.sentence.clone()),
    }
}
