//! What the planner remembers per model and per rollout: JSON with a version number. A newer reader accepts older states.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};
use serin_schemas::{
    ids::{EventTime, Generation, ModelName, RolloutId, Span, Version},
    records::{Arm, Decision, NoDataReason, Phase, Reason, RoutingTable, Verdict},
};

use super::quantities::{StepIndex, WallMs, share_number, step_number};
use serin_spec::{
    Approval, Frozen, Mode, RolloutSpec, Rules, Share, Step, TrafficSource, VersionSpec, units::Duration,
};

/// Version of [`ModelState`] and [`RolloutState`] as JSON.
pub const STATE_VERSION: u32 = 1;

/// Everything that is known of one model. One row of the controller.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ModelState {
    /// [`STATE_VERSION`].
    pub version: u32,
    /// The model that this state belongs to.
    pub model: ModelName,
    /// Number of the newest routing table or control record. It only grows.
    pub generation: Generation,
    /// The version that served when the last rollout ended.
    pub serving: Option<VersionSpec>,
    /// The active rollout.
    pub active: Option<RolloutState>,
    /// Queued rollouts, oldest first. Bounded.
    pub queue: VecDeque<Queued>,
    /// Rollouts that have ended, newest last. Bounded.
    pub ended: VecDeque<Ended>,
    /// Ids of the commands that were handled, newest last. Bounded.
    pub commands: VecDeque<String>,
    /// The lease of the newest table.
    pub lease: Lease,
    /// The event time of the last verdict.
    pub as_of: Option<EventTime>,
    /// Number of audit events so far.
    pub events: u64,
    /// Time of the newest audit event.
    #[serde(default, rename = "toldAt", skip_serializing_if = "Option::is_none")]
    pub newest_event_at: Option<EventTime>,
    /// A routing table on the log that this state does not know: the state was lost, or is older than the log.
    pub unknown_table: Option<RoutingTable>,
    /// The rollout that was promoted last, as long as it was not undone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<Box<RolloutState>>,
    /// The newest rollback, until every router has applied it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unconfirmed: Option<Unconfirmed>,
}

/// A rollout in the queue of its model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Queued {
    /// The rollout's id.
    pub id: RolloutId,
    /// The rollout's spec, normalized.
    pub spec: RolloutSpec,
    /// The user or program that asked for it.
    pub actor: String,
    /// The ended rollout that it starts again, if it is a retry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<Retry>,
}

/// A rollout that has ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Ended {
    /// The rollout's id.
    pub id: RolloutId,
    /// How the rollout ended.
    pub ending: Ending,
    /// The number of the attempt: 1 unless it was a retry.
    #[serde(default = "first_attempt")]
    pub attempt: u32,
}

fn first_attempt() -> u32 {
    1
}

/// The ended rollout that a rollout starts again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Retry {
    /// The rollout of the attempt before.
    pub of: RolloutId,
    /// Number of this attempt, from 2.
    pub attempt: u32,
    /// How the attempt before ended, as a sentence.
    pub ended: String,
    /// Whether the evidence ended it.
    pub on_evidence: bool,
    /// Why it is tried again, in the words of the person who asked; may be empty if no evidence was against it.
    pub reason: String,
    /// The step with which it starts after warm-up.
    #[serde(with = "step_number")]
    pub from_step: Option<StepIndex>,
}

/// Weights that a person set in a rollout.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ByHand {
    /// The steps of the rollout file.
    pub planned: Vec<Step>,
    /// Each weight with its step and person, as clauses, oldest first.
    pub weights: Vec<String>,
}

/// A freeze: no steps are taken. A rollback ignores it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Freeze {
    /// The pattern of the models.
    pub models: String,
    /// The person or program that asked for it.
    pub by: String,
    /// The reason that they gave.
    pub reason: String,
    /// Time of the command, by the wall clock.
    pub since: EventTime,
    /// When it ends by itself, wall clock; `None`: when it is ended.
    pub until: Option<EventTime>,
}

/// A rollback that is decided, while routers apply it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Unconfirmed {
    /// The rollout.
    pub rollout: RolloutId,
    /// The version that gets no more calls.
    pub version: Version,
    /// The rollout's last phase.
    pub phase: Phase,
    /// The rollout's last step.
    #[serde(with = "step_number")]
    pub step: Option<StepIndex>,
    /// Whose reports count.
    pub traffic: TrafficSource,
    /// The generation of the table without the version.
    pub generation: Generation,
    /// When it was decided, wall clock.
    pub decided_ms: WallMs,
    /// The longest time that a router took from the table's arrival on the log until it used the table, in microseconds.
    pub slowest_us: Option<i64>,
}

/// The lease of a routing table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Lease {
    /// Number of the renewal within the generation.
    pub seq: i64,
    /// When the lease was last renewed, wall clock.
    pub renewed_ms: WallMs,
    /// How long the lease is valid, in milliseconds; 0 means forever.
    pub length_ms: i64,
}

/// The state of one rollout. The audit events contain it too.
#[expect(
    clippy::struct_excessive_bools,
    reason = "each one means that something was reported, independently of the rest"
)]
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RolloutState {
    /// [`STATE_VERSION`].
    pub version: u32,
    /// The rollout's id.
    pub id: RolloutId,
    /// The rollout's spec, normalized.
    pub spec: RolloutSpec,
    /// The rollout's phase.
    pub phase: Phase,
    /// The step of the ramp; `None` before the first step.
    #[serde(with = "step_number")]
    pub step: Option<StepIndex>,
    /// The generation of its newest control record.
    pub generation: Generation,
    /// Share of calls that go to the canary.
    #[serde(with = "share_number")]
    pub canary_share: Share,
    /// Share of calls that are copied to the canary.
    #[serde(default, with = "share_number")]
    pub mirror_share: Share,
    /// Share of calls that go to the control arm.
    #[serde(with = "share_number")]
    pub control_share: Share,
    /// When the rollout was accepted (or left the queue), in event time.
    pub started_at: EventTime,
    /// Time spent in the step or in monitoring.
    pub clock: Clock,
    /// Answers of the canary before the step began.
    pub answers_before: i64,
    /// Answers of the canary since the canary started.
    pub answers: i64,
    /// Why the rollout is held, if it is.
    pub hold: Option<Hold>,
    /// The pause, if the rollout is paused.
    pub pause: Option<Pause>,
    /// Whether the canary serves everything except the holdback.
    pub promoted: bool,
    /// What warm-up froze.
    pub frozen: Option<Frozen>,
    /// The newest verdict.
    pub verdict: Option<LastVerdict>,
    /// When the newest verdict arrived (before the first one: when the rollout started), wall clock.
    pub verdict_ms: WallMs,
    /// Whether missing verdicts were reported.
    #[serde(rename = "staleTold")]
    pub stale_reported: bool,
    /// Whether it was reported that warm-up waits for labels that do not arrive.
    #[serde(default, rename = "labelsTold", skip_serializing_if = "std::ops::Not::not")]
    pub labels_reported: bool,
    /// The issue that keeps warm-up from ending although it has seen enough, as last reported.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warm_up_waits: Option<NoDataReason>,
    /// Since when the analyzer has refused to judge it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<EventTime>,
    /// Whether names similar to the ones that warm-up waits for were reported.
    #[serde(default, rename = "namesTold", skip_serializing_if = "std::ops::Not::not")]
    pub names_reported: bool,
    /// The decision that was last reported of a rollout that is observed or monitored.
    #[serde(rename = "told")]
    pub reported: Option<Decision>,
    /// Why the rollout is in its phase, as a sentence for people.
    pub sentence: String,
    /// How the rollout ended.
    pub ending: Option<Ending>,
    /// The rules under which its evidence started.
    #[serde(default)]
    pub rules: Rules,
    /// When its newest control record was written, wall clock.
    #[serde(default)]
    pub control_ms: WallMs,
    /// The newest verdict that an operator had seen when resuming. The issues that it held for hold no more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acknowledged: Option<EventTime>,
    /// The weights that a person set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by_hand: Option<ByHand>,
    /// The approval of the step, as a clause with the person and the reason.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approved: Option<String>,
    /// The freeze that keeps it from taking steps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub freeze: Option<Freeze>,
    /// The attempt before, if this is a retry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<Retry>,
    /// Until when it may be undone, wall clock. Set when it is promoted for good.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub undo_until: Option<WallMs>,
}

/// What is kept of the newest verdict.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LastVerdict {
    /// The verdict's id.
    pub id: String,
    /// The event time that the verdict is about.
    pub as_of: EventTime,
    /// The verdict's decision.
    pub decision: Decision,
    /// The issues that the verdict holds for. Bounded.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub holds: Vec<HeldFor>,
}

/// An issue that a verdict holds for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HeldFor {
    /// The issue as a sentence.
    pub sentence: String,
    /// Whether a resume acknowledges it. If not, it holds as long as it lasts.
    pub can_be_acknowledged: bool,
}

impl HeldFor {
    /// Maximum number of issues of a verdict that are kept.
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
    /// How the rollout ended.
    pub outcome: Outcome,
    /// The evidence that decided, worst first. Empty unless the evidence ended the rollout.
    pub reasons: Vec<Reason>,
    /// The outcome in one sentence.
    pub sentence: String,
    /// When the rollout ended, in event time.
    pub at: EventTime,
    /// The person or program that ended the rollout.
    pub actor: String,
}

/// The outcome of a rollout. Only [`Outcome::Evidence`] is a finding against the canary.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The canary is the new stable.
    Promoted,
    /// Rolled back: the evidence is against the canary.
    Evidence,
    /// Rolled back: it could not be judged, and the policy says to roll back then.
    NoData,
    /// Rolled back: time ran out before there was enough evidence. No finding against the canary.
    Inconclusive,
    /// A person aborted it.
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
    /// Since when, in event time. A pause moves it forward.
    pub since: EventTime,
    /// Whether it was reported that `holdMax` has passed.
    #[serde(rename = "told")]
    pub reported: bool,
}

/// The kind of cause of a hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HoldCause {
    /// The evidence itself is unsound, according to the analyzer.
    Health,
    /// `bake.max` has passed and there is not enough evidence.
    Marginal,
    /// No verdicts arrive.
    Stale,
    /// The step waits for an approval.
    Approval,
}

/// A pause of a rollout.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Pause {
    /// The person or program that paused it.
    pub by: String,
    /// The phase to return to.
    pub from: Phase,
    /// When the rollout was paused, in event time.
    pub since: EventTime,
}

/// A clock of event time that can be stopped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Clock {
    /// Time that the clock had run before it was last started.
    pub spent: Span,
    /// Since when the clock has been running, if it is.
    pub since: Option<EventTime>,
}

impl Clock {
    /// A clock that starts at `now`.
    pub fn started(now: EventTime) -> Self {
        Self { spent: Span(0), since: Some(now) }
    }

    /// Time that the clock has run until `now`.
    pub fn spent(&self, now: EventTime) -> Span {
        let running = self.since.map_or(0, |since| now.since(since).0.max(0));
        Span(self.spent.0.saturating_add(running))
    }

    /// Stops the clock.
    pub fn stop(&mut self, now: EventTime) {
        *self = Self { spent: self.spent(now), since: None };
    }

    /// Starts the clock, if it is not running.
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
            newest_event_at: None,
            unknown_table: None,
            previous: None,
            unconfirmed: None,
        }
    }

    /// Reads a row of the controller.
    ///
    /// # Errors
    /// The bytes are not such a row, or a newer version of Serin wrote them.
    pub fn from_json(bytes: &[u8]) -> Result<Self, StateError> {
        let state: Self = serde_json::from_slice(bytes).map_err(|cause| StateError::Unreadable(cause.to_string()))?;
        if state.version > STATE_VERSION { Err(StateError::TooNew(state.version)) } else { Ok(state) }
    }

    /// The row of the controller.
    #[expect(clippy::missing_panics_doc, reason = "it cannot panic: all keys of its maps are text")]
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("all keys of its maps are text")
    }
}

/// A row of the controller that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StateError {
    /// A newer version of Serin wrote it.
    #[error(
        "the state has version {0}, but this Serin reads versions up to {STATE_VERSION}; run the newer Serin again"
    )]
    TooNew(u32),
    /// The bytes are not a state.
    #[error("the state of a model cannot be read: {0}")]
    Unreadable(String),
}

impl RolloutState {
    pub(super) fn new(queued: Queued, now: EventTime, now_ms: WallMs) -> Self {
        Self {
            version: STATE_VERSION,
            id: queued.id,
            spec: queued.spec,
            phase: Phase::Warming,
            step: None,
            generation: Generation(0),
            canary_share: Share::default(),
            mirror_share: Share::default(),
            control_share: Share::default(),
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
            stale_reported: false,
            labels_reported: false,
            warm_up_waits: None,
            refused: None,
            names_reported: false,
            reported: None,
            sentence: String::new(),
            ending: None,
            rules: Rules::CURRENT,
            control_ms: now_ms,
            acknowledged: None,
            by_hand: None,
            approved: None,
            freeze: None,
            retry: queued.retry,
            undo_until: None,
        }
    }

    /// The step of the ramp that the rollout is in.
    pub fn current_step(&self) -> Option<&Step> {
        self.step.and_then(|step| self.spec.steps.get(step.0))
    }

    /// The spec as the rollout file has it: without steps for weights that a person set.
    pub fn file(&self) -> RolloutSpec {
        let mut spec = self.spec.clone();
        if let Some(by_hand) = &self.by_hand {
            spec.steps.clone_from(&by_hand.planned);
        }
        spec
    }

    /// The approval that the current step needs before the next one.
    pub fn approval(&self) -> Option<Approval> {
        self.current_step().and_then(|step| step.approve).filter(|_| !self.promoted)
    }

    /// The number of the attempt: 1 unless it is a retry.
    pub fn attempt(&self) -> u32 {
        self.retry.as_ref().map_or(1, |retry| retry.attempt)
    }

    /// How long it is held before what its file says about a hold applies.
    pub fn hold_limit(&self) -> Duration {
        let waits = self.hold.as_ref().is_some_and(|hold| hold.cause == HoldCause::Approval);
        let within = self.approval().filter(|_| waits).map(|approval| approval.within);
        within.unwrap_or(self.spec.decision.hold_max)
    }

    /// Whether the canary serves everything except a holdback: it is promoted, or has ended as promoted.
    pub fn is_promoted(&self) -> bool {
        self.promoted || self.ending.as_ref().is_some_and(|ending| ending.outcome == Outcome::Promoted)
    }

    /// Whether verdicts move the rollout's traffic.
    pub fn acts(&self) -> bool {
        self.spec.mode == Mode::Act
    }

    /// Whether its routing table sends calls or copies of calls to the canary, and so has a lease.
    pub fn is_leased(&self) -> bool {
        self.acts() && !(self.canary_share.is_none() && self.mirror_share.is_none()) && !self.phase.is_final()
    }

    /// The phase of the current step while it bakes.
    pub(super) fn step_phase(&self) -> Phase {
        if self.promoted {
            Phase::Promoted
        } else if !self.mirror_share.is_none() {
            Phase::Shadowing
        } else {
            Phase::Baking
        }
    }

    /// Keeps the newest verdict. Answers are counted since the evidence started, so a verdict on an older generation, which may rest on
    /// earlier evidence, does not change their number.
    pub(super) fn keep(&mut self, verdict: &Verdict, now_ms: WallMs) {
        self.verdict = Some(LastVerdict {
            id: verdict.id.clone(),
            as_of: verdict.as_of,
            decision: verdict.decision,
            holds: HeldFor::all(verdict),
        });
        self.verdict_ms = now_ms;
        self.stale_reported = false;
        self.refused = verdict.refuses().then_some(self.refused.unwrap_or(verdict.as_of));
        if let Some(arm) = verdict.arms.iter().find(|arm| arm.arm == Arm::Canary)
            && verdict.generation == self.generation
        {
            self.answers = self.answers.max(arm.predictions);
        }
    }
}
