//! A rollout in a few lines, for lists and for the event stream.

use serde::Serialize;
use serin_rollout::{
    Outcome, RolloutState,
    planner::{Applied, HoldCause, StepIndex},
};
use serin_schemas::{
    ids::{EventTime, Generation, ModelName, RolloutId, Version},
    records::{Decision, EventKind, MetricResult, Phase, Verdict},
};
use serin_spec::Mode;

use super::state::ApiState;
use crate::{
    verbs::Headline,
    view::{RolloutView, View},
};

/// What a rollout needs from a person.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Needs {
    /// The evidence does not suffice, or the rollout asks for a person: a person decides.
    Decision,
    /// The evidence itself has a problem.
    Evidence,
    /// It is paused.
    Resume,
}

impl Needs {
    fn of(state: &RolloutState) -> Option<Self> {
        let is_unsound =
            state.hold.as_ref().is_none_or(|hold| matches!(hold.cause, HoldCause::Health | HoldCause::Stale));
        match state.phase {
            Phase::Paused => Some(Self::Resume),
            Phase::Held if is_unsound => Some(Self::Evidence),
            Phase::Held => Some(Self::Decision),
            _ => None,
        }
    }
}

/// A rollout in a few lines.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Summary {
    pub(super) id: RolloutId,
    model: ModelName,
    stable: Version,
    canary: Version,
    mode: Mode,
    phase: Phase,
    /// Index of the step; -1 before the first one.
    step: i32,
    steps: usize,
    canary_share: i32,
    mirror_share: i32,
    control_share: i32,
    generation: Generation,
    promoted: bool,
    started_at: EventTime,
    ended_at: Option<EventTime>,
    recorded_at: Option<EventTime>,
    started_by: Option<String>,
    hold: Option<Held>,
    paused_by: Option<String>,
    headline: Headline,
    sentence: String,
    outcome: Option<Outcome>,
    /// Number of the newest event.
    events: usize,
    newest_event: Option<NewestEvent>,
    verdict: Option<NewestVerdict>,
    needs: Option<Needs>,
    /// Whether routers use the rollout's table, or none has to.
    #[serde(skip)]
    pub(super) is_settled: bool,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
struct Held {
    cause: HoldCause,
    since: EventTime,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
struct NewestEvent {
    kind: EventKind,
    sentence: String,
    actor: String,
    recorded_at: EventTime,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
struct NewestVerdict {
    id: String,
    as_of: EventTime,
    recorded_at: Option<EventTime>,
    decision: Decision,
    /// Metrics that have failed, each once.
    failed: Vec<String>,
    /// Number of issues with the evidence.
    issues: usize,
}

impl NewestVerdict {
    fn of(rollout: &RolloutView, verdict: &Verdict) -> Self {
        let failed = verdict.metrics.iter().filter(|metric| metric.result == MetricResult::Fail);
        let mut failed: Vec<String> = failed.map(|metric| metric.metric.clone()).collect();
        failed.sort();
        failed.dedup();
        Self {
            id: verdict.id.clone(),
            as_of: verdict.as_of,
            recorded_at: rollout.series.newest().map(|point| point.recorded_at()),
            decision: verdict.decision,
            failed,
            issues: verdict.health.len(),
        }
    }
}

impl ApiState {
    /// The summary of a rollout; `None` while its state is not known.
    pub(super) fn summary(&self, view: &View, rollout: &RolloutView) -> Option<Summary> {
        let state = rollout.state.as_deref()?;
        let applied = self.applied(view, state, state.generation);
        let newest = rollout.events.back();
        let first = rollout.events.front().filter(|event| event.kind == EventKind::Started);
        Some(Summary {
            id: state.id.clone(),
            model: state.spec.model.clone(),
            stable: state.spec.stable.version.clone(),
            canary: state.spec.canary.version.clone(),
            mode: state.spec.mode,
            phase: state.phase,
            step: StepIndex::number(state.step),
            steps: state.spec.steps.len(),
            canary_share: state.canary_share.0,
            mirror_share: state.mirror_share.0,
            control_share: state.control_share.0,
            generation: state.generation,
            promoted: state.promoted,
            started_at: state.started_at,
            ended_at: state.ending.as_ref().map(|ending| ending.at),
            recorded_at: newest.map(|event| event.recorded_at),
            started_by: first.map(|event| event.actor.clone()),
            hold: state.hold.as_ref().map(|hold| Held { cause: hold.cause, since: hold.since }),
            paused_by: state.pause.as_ref().map(|pause| pause.by.clone()),
            headline: (self.verbs().headline)(state, applied.as_ref()),
            sentence: state.sentence.clone(),
            outcome: state.ending.as_ref().map(|ending| ending.outcome),
            events: rollout.after(usize::MAX).1,
            newest_event: newest.map(|event| NewestEvent {
                kind: event.kind,
                sentence: event.sentence.clone(),
                actor: event.actor.clone(),
                recorded_at: event.recorded_at,
            }),
            verdict: rollout.verdict.as_deref().map(|verdict| NewestVerdict::of(rollout, verdict)),
            needs: Needs::of(state),
            is_settled: is_settled(state, applied.as_ref()),
        })
    }
}

/// Whether reports of routers can no longer change what is said about a rollout.
fn is_settled(state: &RolloutState, applied: Option<&Applied>) -> bool {
    state.spec.mode == Mode::Observe || applied.is_none_or(|applied| applied.done)
}
