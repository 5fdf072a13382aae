//! What the planner remembers: per model, and per rollout. JSON with a version number; a newer reader takes older states.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};
use serin_schemas::{
    ids::{EventTime, Generation, ModelName, RolloutId, Span},
    records::{Arm, Decision, NoDataReason, Phase, Reason, RoutingTable, Verdict},
};

use serin_spec::{Frozen, Mode, RolloutSpec, Rules, Step, VersionSpec};

/// Version of [`ModelState`] and [`RolloutState`] as JSON.
pub const STATE_VERSION: u32 = 1;

/// Everything known of one model. One row of the controller.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ModelState {
    /// [`STATE_VERSION`].
    pub version: u32,
    /// The model.
    pub model: ModelName,
    /// Number of the newest routing table or control record. Only grows.
    pub generation: Generation,
    /// What served when the last rollout ended.
    pub serving: Option<VersionSpec>,
    /// The rollout under way.
    pub active: Option<RolloutState>,
    /// Rollouts that wait for it, oldest first. Bounded.
    pub queue: VecDeque<Queued>,
    /// Rollouts that have ended, newest last. Bounded.
    pub ended: VecDeque<Ended>,
    /// Commands that were done, newest last. Bounded.
    pub commands: VecDeque<String>,
    /// The lease of the newest table.
    pub lease: Lease,
    /// Event time as the last verdict told it.
    pub as_of: Option<EventTime>,
    /// Number of audit events so far.
    pub events: u64,
    /// Time of the newest audit event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub told_at: Option<EventTime>,
    /// A routing table on the log that this state does not know: the state was lost, or is older than the log.
    pub unknown_table: Option<RoutingTable>,
}

/// A rollout that waits for another one of its model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Queued {
    /// Its id.
    pub id: RolloutId,
    /// Its spec, normalised.
    pub spec: RolloutSpec,
    /// Who asked for it.
    pub actor: String,
}

/// A rollout that has ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Ended {
    /// Its id.
    pub id: RolloutId,
    /// How it ended.
    pub ending: Ending,
}

/// The lease of a routing table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Lease {
    /// Number of the renewal within the generation.
    pub seq: i64,
    /// When it was last renewed, wall clock.
    pub renewed_ms: i64,
    /// How long it was given for, in milliseconds; 0 = for ever.
    pub length_ms: i64,
}

/// The state of one rollout. The audit events carry it too.
#[expect(clippy::struct_excessive_bools, reason = "what has been said once, each on its own")]
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RolloutState {
    /// [`STATE_VERSION`].
    pub version: u32,
    /// Its id.
    pub id: RolloutId,
    /// The spec, normalised.
    pub spec: RolloutSpec,
    /// Where it stands.
    pub phase: Phase,
    /// Index of the step, from 0; -1 before the first.
    pub step: i32,
    /// The generation of its newest control record.
    pub generation: Generation,
    /// Share of the canary, in 1/10000.
    pub canary_share: i32,
    /// Share of the calls that the canary gets a copy of, in 1/10000.
    #[serde(default)]
    pub mirror_share: i32,
    /// Share of the control arm, in 1/10000.
    pub control_share: i32,
    /// When it was accepted (or left the queue), in event time.
    pub started_at: EventTime,
    /// Time spent in the step, or in the monitor.
    pub clock: Clock,
    /// Answers of the canary before the step began.
    pub answers_before: i64,
    /// Answers of the canary since the rollout's canary began.
    pub answers: i64,
    /// Why it is held.
    pub hold: Option<Hold>,
    /// Who paused it.
    pub pause: Option<Pause>,
    /// Whether the canary serves everything but the holdback.
    pub promoted: bool,
    /// What warm-up froze.
    pub frozen: Option<Frozen>,
    /// The newest verdict.
    pub verdict: Option<LastVerdict>,
    /// When the newest verdict came (before the first: when the rollout started), wall clock.
    pub verdict_ms: i64,
    /// Whether missing verdicts were reported.
    pub stale_told: bool,
    /// Whether it was told that warm-up waits for labels that do not come.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub labels_told: bool,
    /// What keeps warm-up from ending although it has seen enough, as it was last told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warm_up_waits: Option<NoDataReason>,
    /// Since when the analyzer has refused to judge it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<EventTime>,
    /// Whether names close to the ones that warm-up waits for were reported.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub names_told: bool,
    /// What an observed rollout was last told.
    pub told: Option<Decision>,
    /// Why it stands where it stands, for people.
    pub sentence: String,
    /// How it ended.
    pub ending: Option<Ending>,
    /// The rules under which its evidence began.
    #[serde(default)]
    pub rules: Rules,
    /// When its newest control record was written, wall clock.
    #[serde(default)]
    pub control_ms: i64,
    /// The newest verdict that somebody had seen who resumed: what it held for, holds no more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acknowledged: Option<EventTime>,
}

/// What is kept of the newest verdict.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LastVerdict {
    /// Its id.
    pub id: String,
    /// Event time it speaks of.
    pub as_of: EventTime,
    /// What it said.
    pub decision: Decision,
    /// What it holds for. Bounded.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub holds: Vec<HeldFor>,
}

/// Something that a verdict holds for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HeldFor {
    /// What it is, in a sentence.
    pub sentence: String,
    /// Whether whoever resumes acknowledges it. Otherwise it holds for as long as it is so.
    pub can_be_acknowledged: bool,
}

impl HeldFor {
    /// What a verdict holds for that are kept.
    const KEPT: usize = 8;

    fn all(verdict: &Verdict) -> Vec<Self> {
        let holds = verdict.health.iter().filter(|issue| issue.policy == "hold");
        let held = holds
            .map(|issue| Self { sentence: issue.sentence.clone(), can_be_acknowledged: issue.reason.is_finding() });
        let mut all: Vec<Self> = held.take(Self::KEPT).collect();
        all.dedup();
        all
    }
}

/// How a rollout ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Ending {
    /// In one word.
    pub outcome: Outcome,
    /// What tipped it, worst first. Empty unless the evidence did.
    pub reasons: Vec<Reason>,
    /// In one sentence.
    pub sentence: String,
    /// When, in event time.
    pub at: EventTime,
    /// Who or what ended it.
    pub actor: String,
}

/// How a rollout ended, in one word. Only [`Outcome::Evidence`] is a finding against the canary.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The canary is the new stable.
    Promoted,
    /// Rolled back: the evidence is against the canary.
    Evidence,
    /// Rolled back: it could not be judged, and the policy says to roll back then.
    NoData,
    /// Rolled back: time ran out before the evidence was enough. No finding against the canary.
    Inconclusive,
    /// A person ended it.
    Aborted,
    /// A newer rollout of the model ended it.
    Superseded,
}

/// Why a rollout is held.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Hold {
    /// The kind of cause.
    pub cause: HoldCause,
    /// Since when, in event time. A pause moves it on.
    pub since: EventTime,
    /// Whether it was told that `holdMax` is over.
    pub told: bool,
}

/// The kind of cause of a hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HoldCause {
    /// The evidence itself is unsound, as the analyzer says.
    Health,
    /// `bake.max` is over and the evidence is not enough.
    Marginal,
    /// No verdicts come.
    Stale,
}

/// Who paused a rollout, and where it was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Pause {
    /// Who.
    pub by: String,
    /// The phase to return to.
    pub from: Phase,
    /// When, in event time.
    pub since: EventTime,
}

/// A clock of event time that can be stopped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Clock {
    /// Time before it was last started.
    pub spent: Span,
    /// Since when it runs.
    pub since: Option<EventTime>,
}

impl Clock {
    /// A clock that starts at `now`.
    pub fn started(now: EventTime) -> Self {
        Self { spent: Span(0), since: Some(now) }
    }

    /// Time it has run until `now`.
    pub fn spent(&self, now: EventTime) -> Span {
        let running = self.since.map_or(0, |since| now.since(since).0.max(0));
        Span(self.spent.0.saturating_add(running))
    }

    /// Stops it.
    pub fn stop(&mut self, now: EventTime) {
        *self = Self { spent: self.spent(now), since: None };
    }

    /// Lets it run (again).
    pub fn start(&mut self, now: EventTime) {
        self.since.get_or_insert(now);
    }
}

impl ModelState {
    /// A model without any rollout yet.
    pub fn new(model: ModelName) -> Self {
        Self {
            version: STATE_VERSION,
            model,
            generation: Generation(0),
            serving: None,
            active: None,
            queue: VecDeque::new(),
            ended: VecDeque::new(),
            commands: VecDeque::new(),
            lease: Lease::default(),
            as_of: None,
            events: 0,
            told_at: None,
            unknown_table: None,
        }
    }

    /// Reads a row of the controller.
    ///
    /// # Errors
    /// It is no such row, or a newer version of Serin wrote it.
    pub fn from_json(bytes: &[u8]) -> Result<Self, StateError> {
        let state: Self = serde_json::from_slice(bytes).map_err(|cause| StateError::Unreadable(cause.to_string()))?;
        if state.version > STATE_VERSION { Err(StateError::TooNew(state.version)) } else { Ok(state) }
    }

    /// The row of the controller.
    #[expect(clippy::missing_panics_doc, reason = "it cannot: all keys of its maps are text")]
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("all keys of its maps are text")
    }
}

/// A row of the controller cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StateError {
    /// A newer version of Serin wrote it.
    #[error("the state has version {0}, this Serin reads up to {STATE_VERSION}; run the newer Serin again")]
    TooNew(u32),
    /// It is no state.
    #[error("the state of a model cannot be read: {0}")]
    Unreadable(String),
}

impl RolloutState {
    pub(super) fn new(queued: Queued, now: EventTime, now_ms: i64) -> Self {
        Self {
            version: STATE_VERSION,
            id: queued.id,
            spec: queued.spec,
            phase: Phase::Warming,
            step: -1,
            generation: Generation(0),
            canary_share: 0,
            mirror_share: 0,
            control_share: 0,
            started_at: now,
            clock: Clock::default(),
            answers_before: 0,
            answers: 0,
            hold: None,
            pause: None,
            promoted: false,
            frozen: None,
            verdict: None,
            verdict_ms: now_ms,
            stale_told: false,
            labels_told: false,
            warm_up_waits: None,
            refused: None,
            names_told: false,
            told: None,
            sentence: String::new(),
            ending: None,
            rules: Rules::CURRENT,
            control_ms: now_ms,
            acknowledged: None,
        }
    }

    /// The step of the ramp that it is in.
    pub fn current_step(&self) -> Option<&Step> {
        usize::try_from(self.step).ok().and_then(|step| self.spec.steps.get(step))
    }

    /// Whether the canary serves everything, but for a holdback: it is promoted, or has ended so.
    pub fn is_promoted(&self) -> bool {
        self.promoted || self.ending.as_ref().is_some_and(|ending| ending.outcome == Outcome::Promoted)
    }

    /// Whether verdicts move its traffic.
    pub fn acts(&self) -> bool {
        self.spec.mode == Mode::Act
    }

    /// Whether its routing table sends anything to the canary, copies of calls among it, and so has a lease.
    pub fn is_leased(&self) -> bool {
        self.acts() && (self.canary_share > 0 || self.mirror_share > 0) && !self.phase.is_final()
    }

    /// The phase of its step while it bakes.
    pub(super) fn step_phase(&self) -> Phase {
        if self.promoted {
            Phase::Promoted
        } else if self.mirror_share > 0 {
            Phase::Shadowing
        } else {
            Phase::Baking
        }
    }

    /// Keeps what a verdict says. Answers are counted since the evidence began: a verdict on an older generation may be of the
    /// evidence before.
    pub(super) fn keep(&mut self, verdict: &Verdict, now_ms: i64) {
        self.verdict = Some(LastVerdict {
            id: verdict.id.clone(),
            as_of: verdict.as_of,
            decision: verdict.decision,
            holds: HeldFor::all(verdict),
        });
        self.verdict_ms = now_ms;
        self.stale_told = false;
        self.refused = verdict.refuses().then_some(self.refused.unwrap_or(verdict.as_of));
        if let Some(arm) = verdict.arms.iter().find(|arm| arm.arm == Arm::Canary)
            && verdict.generation == self.generation
        {
            self.answers = self.answers.max(arm.predictions);
        }
    }
}
