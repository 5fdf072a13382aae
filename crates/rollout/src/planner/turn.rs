//! Transitions. Each takes a new generation and emits its table, its control record and its audit event.

use serin_schemas::{
    ids::{EventTime, Generation, Span},
    records::{Arm, Control, EventKind, Phase, Reason, RolloutEvent, Route, RoutingTable},
};
use serin_sketches::hash::hash64;
use uuid::Builder;

use super::{
    Clock, Ended, Ending, Hold, HoldCause, ModelState, Outcome, Queued, RolloutState, StepIndex, Turn, Unconfirmed,
    WallMs,
    serving::{stable_of, startable},
    state::Lease,
};
use serin_spec::{Mode, RolloutSpec, Rules, Share, Step, VersionSpec};

/// Maximum number of ended rollouts of a model that are kept.
pub(super) const ENDED_KEPT: usize = 32;
/// If the routers' clock differs from the wall clock by more than this, the routers replay another time.
const REPLAYED: Span = Span(3_600_000_000);
/// Reasons of an ending that are kept, worst first, because rows of the controller are bounded. The verdict contains all of them.
const REASONS_KEPT: usize = 20;

impl ModelState {
    /// The event time for what no verdict caused: the last verdict's; without one, the routers' clock; without that, `asked_at`.
    pub(super) fn now(&self, turn: &Turn<'_>, asked_at: Option<EventTime>) -> EventTime {
        self.as_of.or_else(|| turn.router_clock()).or(asked_at).unwrap_or(turn.now_ms.as_event_time())
    }

    /// Starts the warm-up of a rollout.
    pub(super) fn start(&mut self, queued: Queued, now: EventTime, kind: EventKind, turn: &mut Turn<'_>) {
        // The routers may be ahead of the last verdict of the rollout before.
        let now = turn.router_clock().map_or(now, |clock| clock.max(now));
        let mut rollout = RolloutState::new(queued, now, turn.now_ms);
        rollout.freeze = turn.freeze_of(&self.model).cloned();
        let spec = &rollout.spec;
        let before = if rollout.acts() { "the first canary request" } else { "the comparison begins (observed only)" };
        let (stable, canary) = (spec.stable.version.in_words(), spec.canary.version.in_words());
        let sentence = format!(
            "{stable} -> {canary}: learning from at least {} answers of {stable} before {before}{}",
            spec.warmup.min_events,
            rollout.retry.as_ref().map_or_else(String::new, ToString::to_string)
        );
        self.transition(&mut rollout, kind, sentence, now, turn);
        self.active = Some(rollout);
    }

    /// Starts a step of the ramp.
    pub(super) fn bake(
        &mut self,
        rollout: &mut RolloutState,
        step: usize,
        why: &str,
        now: EventTime,
        turn: &mut Turn<'_>,
    ) {
        let planned = &rollout.spec.steps[step];
        let spec = &rollout.spec;
        let (stable, canary) = (spec.stable.version.in_words(), spec.canary.version.in_words());
        let sentence = if rollout.acts() {
            format!("step {} of {}: {planned} to {canary}{why}", step + 1, spec.steps.len())
        } else {
            format!("observed only, Serin moves no weights: {canary} is compared with {stable}{why}")
        };
        (rollout.canary_share, rollout.mirror_share) = (planned.weight, planned.mirror.unwrap_or_default());
        rollout.control_share = control_share(planned, rollout.spec.control_ratio);
        rollout.phase = rollout.step_phase();
        rollout.step = Some(StepIndex(step));
        rollout.hold = None;
        rollout.pause = None;
        rollout.approved = None;
        rollout.clock = Clock::started(now);
        rollout.answers_before = rollout.answers;
        self.transition(rollout, EventKind::Advanced, sentence, now, turn);
    }

    /// Goes to the next step, or promotes after the last.
    pub(super) fn advance(&mut self, rollout: &mut RolloutState, why: &str, now: EventTime, turn: &mut Turn<'_>) {
        let next = rollout.step.map_or(0, |step| step.0 + 1);
        if next < rollout.spec.steps.len() {
            self.bake(rollout, next, why, now, turn);
        } else {
            self.promote(rollout, why, now, turn);
        }
    }

    /// Gives the canary all calls, except the holdback if it is monitored.
    pub(super) fn promote(&mut self, rollout: &mut RolloutState, why: &str, now: EventTime, turn: &mut Turn<'_>) {
        let why = &format!("{why}{}", rollout.set_by_hand());
        let holdback = rollout.spec.promotion.holdback.unwrap_or_default();
        // Nothing can be compared without what warm-up froze.
        if rollout.spec.promotion.monitor.is_zero() || holdback.is_none() || rollout.frozen.is_none() {
            self.complete(rollout, why, now, turn);
            return;
        }
        rollout.phase = Phase::Promoted;
        rollout.promoted = true;
        rollout.hold = None;
        rollout.pause = None;
        rollout.clock = Clock::started(now);
        rollout.canary_share = Share(Share::ALL.0 - holdback.0);
        rollout.mirror_share = Share::default();
        rollout.control_share = holdback;
        let sentence = format!(
            "{} serves {}{why}; monitored for {}",
            rollout.spec.canary.version.in_words(),
            rollout.canary_share,
            rollout.spec.promotion.monitor
        );
        self.transition(rollout, EventKind::Promoted, sentence, now, turn);
    }

    /// Ends a rollout with its canary as the new stable.
    pub(super) fn complete(&mut self, rollout: &mut RolloutState, why: &str, now: EventTime, turn: &mut Turn<'_>) {
        let sentence = format!("{} is the new stable{why}", rollout.spec.canary.version.in_words());
        self.end(rollout, Phase::Completed, Outcome::Promoted, Vec::new(), sentence, now, turn);
    }

    /// Ends a rollout. Its canary serves if it completed, otherwise its stable. This takes effect immediately.
    #[expect(clippy::too_many_arguments, reason = "each is one fact of the ending; a struct would have one user")]
    pub(super) fn end(
        &mut self,
        rollout: &mut RolloutState,
        phase: Phase,
        outcome: Outcome,
        mut reasons: Vec<Reason>,
        sentence: String,
        now: EventTime,
        turn: &mut Turn<'_>,
    ) {
        reasons.truncate(REASONS_KEPT);
        let kind = match phase {
            Phase::Completed => EventKind::Completed,
            Phase::Aborted => EventKind::Aborted,
            Phase::Superseded => EventKind::Superseded,
            _ => EventKind::RolledBack,
        };
        let was_leased = rollout.is_leased();
        rollout.phase = phase;
        rollout.hold = None;
        rollout.pause = None;
        rollout.freeze = None;
        rollout.clock.stop(now);
        rollout.canary_share = if phase == Phase::Completed { Share::ALL } else { Share::default() };
        (rollout.mirror_share, rollout.control_share) = (Share::default(), Share::default());
        let actor = turn.actor.clone();
        rollout.ending = Some(Ending { outcome, reasons, sentence: sentence.clone(), at: now, actor });
        if phase == Phase::Completed && rollout.acts() {
            let keeps = rollout.spec.promotion.keeps_previous().0.0 / 1000;
            rollout.undo_until = Some(WallMs(turn.now_ms.0.saturating_add(keeps)));
        }
        self.transition(rollout, kind, sentence, now, turn);
        if was_leased && phase != Phase::Completed {
            self.unconfirmed = Some(Unconfirmed::of(rollout, &rollout.spec.canary.version, turn.now_ms));
        }
    }

    /// Holds a rollout at its weight.
    pub(super) fn hold(
        &mut self,
        rollout: &mut RolloutState,
        cause: HoldCause,
        sentence: String,
        now: EventTime,
        turn: &mut Turn<'_>,
    ) {
        rollout.phase = Phase::Held;
        rollout.approved = None;
        rollout.clock.stop(now);
        rollout.hold = Some(Hold { cause, since: now, reported: false });
        self.transition(rollout, EventKind::Held, sentence, now, turn);
    }

    /// Resumes a held or paused step.
    pub(super) fn resume_step(
        &mut self,
        rollout: &mut RolloutState,
        sentence: String,
        now: EventTime,
        turn: &mut Turn<'_>,
    ) {
        rollout.phase = rollout.step_phase();
        rollout.hold = None;
        rollout.pause = None;
        rollout.clock.start(now);
        self.transition(rollout, EventKind::Resumed, sentence, now, turn);
    }

    /// Puts a rollout back after its turn. If it has ended, starts the next one in the queue.
    pub(super) fn settle(&mut self, rollout: RolloutState, turn: &mut Turn<'_>) {
        let Some(ending) = rollout.ending.clone() else {
            self.active = Some(rollout);
            return;
        };
        let now = ending.at;
        if rollout.acts() {
            let RolloutState { spec, phase, .. } = &rollout;
            self.serving = Some(if *phase == Phase::Completed { &spec.canary } else { &spec.stable }.clone());
        }
        push_bounded(&mut self.ended, Ended { id: rollout.id.clone(), ending, attempt: rollout.attempt() }, ENDED_KEPT);
        if rollout.undo_until.is_some() {
            // What an undo does not need is left out, because rows are bounded.
            self.previous = Some(Box::new(RolloutState { frozen: None, verdict: None, ..rollout }));
        }
        while let Some(next) = self.queue.pop_front() {
            match self.spec_to_start(&next.spec, turn) {
                Ok(spec) => {
                    self.start(Queued { spec, ..next }, now, EventKind::Started, turn);
                    return;
                }
                Err(why) => self.drop_queued(next, format!("aborted when its turn came: {why}"), now, turn),
            }
        }
    }

    /// The spec of a rollout that starts now, completed with the serving version, or why it must not start. An observed rollout moves no
    /// calls.
    pub(super) fn spec_to_start(&self, spec: &RolloutSpec, turn: &Turn<'_>) -> Result<RolloutSpec, String> {
        if spec.mode == Mode::Observe {
            return Ok(spec.clone());
        }
        let stable = stable_of(spec, self.serving.as_ref(), turn)?;
        startable(RolloutSpec { stable, ..spec.clone() }, turn)
    }

    /// Reports that a queued rollout will not start.
    pub(super) fn drop_queued(&mut self, queued: Queued, sentence: String, now: EventTime, turn: &mut Turn<'_>) {
        let mut waiting = RolloutState::new(queued, now, turn.now_ms);
        waiting.phase = Phase::Aborted;
        waiting.sentence.clone_from(&sentence);
        let ending = Ending {
            outcome: Outcome::Aborted,
            reasons: Vec::new(),
            sentence: sentence.clone(),
            at: now,
            actor: turn.actor.clone(),
        };
        waiting.ending = Some(ending.clone());
        push_bounded(&mut self.ended, Ended { id: waiting.id.clone(), ending, attempt: waiting.attempt() }, ENDED_KEPT);
        self.emit(Some(&waiting), EventKind::Aborted, sentence, now, turn);
    }

    /// Takes the next generation, and emits its records.
    pub(super) fn transition(
        &mut self,
        rollout: &mut RolloutState,
        kind: EventKind,
        sentence: String,
        now: EventTime,
        turn: &mut Turn<'_>,
    ) {
        self.write_table(rollout, sentence, now, turn);
        self.write_control(rollout, now, turn);
        let sentence = rollout.sentence.clone();
        self.emit(Some(rollout), kind, sentence, now, turn);
    }

    /// Takes the next generation, and emits its table.
    pub(super) fn write_table(
        &mut self,
        rollout: &mut RolloutState,
        sentence: String,
        now: EventTime,
        turn: &mut Turn<'_>,
    ) {
        self.generation = Generation(self.generation.0.saturating_add(1));
        self.unknown_table = None;
        rollout.generation = self.generation;
        rollout.sentence = sentence;
        if rollout.acts() {
            self.lease = self.next_lease(rollout, turn);
            let table = self.table(rollout, now);
            turn.effects.tables.push(table);
        }
    }

    /// A hold for missing verdicts must not extend the lease that they would have renewed.
    fn next_lease(&self, rollout: &RolloutState, turn: &Turn<'_>) -> Lease {
        let stale = rollout.hold.as_ref().is_some_and(|hold| hold.cause == HoldCause::Stale);
        let length_ms = match (rollout.is_leased(), stale) {
            (false, _) => 0,
            (true, false) => turn.settings.lease_ms,
            (true, true) => {
                let used = turn.now_ms.since(self.lease.renewed_ms);
                self.lease.length_ms.saturating_sub(used).clamp(1, turn.settings.lease_ms.max(1))
            }
        };
        Lease { seq: 0, renewed_ms: turn.now_ms, length_ms }
    }

    /// Emits an audit event for something that has no effect.
    pub(super) fn warn(&mut self, sentence: String, turn: &mut Turn<'_>) {
        let now = self.now(turn, None);
        let rollout = self.active.take();
        self.emit(rollout.as_ref(), EventKind::Warned, sentence, now, turn);
        self.active = rollout;
    }

    /// Emits an audit event.
    pub(super) fn emit(
        &mut self,
        rollout: Option<&RolloutState>,
        kind: EventKind,
        sentence: String,
        now: EventTime,
        turn: &mut Turn<'_>,
    ) {
        self.events += 1;
        let at = self.stamp(now, turn);
        turn.effects.changed.insert(self.model.clone());
        turn.effects.events.push(RolloutEvent {
            id: event_id(&format!("{} {} {}", self.model, self.events, self.generation)),
            model: self.model.clone(),
            rollout: rollout.map(|rollout| rollout.id.clone()),
            kind,
            phase: rollout.map_or(Phase::Pending, |rollout| rollout.phase),
            step: StepIndex::number(rollout.and_then(|rollout| rollout.step)),
            canary_share: rollout.filter(|rollout| rollout.acts()).map_or(0, |rollout| rollout.canary_share.0),
            generation: self.generation,
            at,
            recorded_at: turn.now_ms.as_event_time(),
            actor: turn.actor.clone(),
            sentence,
            cause: turn.cause.clone(),
            state: rollout.map(to_json),
            was_good: None,
        });
    }

    /// The time of an audit event. A person's action has the wall-clock time at which it was asked for, or the routers' clock where they
    /// replay another time. Every other event has the event time `now`. No event is earlier than the one before it.
    fn stamp(&mut self, now: EventTime, turn: &Turn<'_>) -> EventTime {
        let at = match (turn.asked_at, turn.router_clock()) {
            (Some(asked), Some(clock)) if asked.since(clock).0.abs() > REPLAYED.0 => now.max(clock),
            (Some(asked), _) => asked.min(turn.now_ms.as_event_time()),
            (None, _) => now,
        };
        let at = self.newest_event_at.map_or(at, |before| before.max(at));
        self.newest_event_at = Some(at);
        at
    }

    /// The routing table of a rollout in its current state.
    pub(super) fn table(&self, rollout: &RolloutState, now: EventTime) -> RoutingTable {
        let spec = &rollout.spec;
        let over = rollout.phase.is_final();
        let canary = if over { Share::default() } else { rollout.canary_share };
        let base = if rollout.phase == Phase::Completed { &spec.canary } else { &spec.stable };
        let mut routes = vec![route(base, Arm::Stable, Share(Share::ALL.0 - canary.0 - rollout.control_share.0))];
        if !over && !rollout.control_share.is_none() {
            routes.push(route(&spec.stable, Arm::Control, rollout.control_share));
        }
        if !canary.is_none() {
            routes.push(route(&spec.canary, Arm::Canary, canary));
        }
        if !over && !rollout.mirror_share.is_none() {
            routes.push(route(&spec.canary, Arm::Shadow, rollout.mirror_share));
        }
        // Additional shadows have the lease of the canary: a table without a lease would mirror forever.
        if rollout.is_leased() {
            routes.extend(spec.shadows.iter().map(|shadow| Route {
                version: shadow.version.clone(),
                arm: Arm::Shadow,
                share: shadow.share.0,
                url: shadow.url.clone(),
            }));
        }
        RoutingTable {
            model: self.model.clone(),
            generation: self.generation,
            lease_seq: self.lease.seq,
            lease_ms: self.lease.length_ms,
            rollout: (!over).then(|| rollout.id.clone()),
            salt: rollout.id.0.clone(),
            sticky: spec.assignment.sticky.as_ref().map(to_json),
            routes,
            segments: to_json(&spec.segments),
            outputs: to_json(&spec.outputs),
            fallback: spec.fallback,
            policy: to_json(&spec.traffic_policy()),
            reason: rollout.sentence.clone(),
            decided_at: now,
        }
    }

    /// Writes the control record of the newest generation, for the first time or as a repetition.
    pub(super) fn write_control(&self, rollout: &mut RolloutState, now: EventTime, turn: &mut Turn<'_>) {
        rollout.control_ms = turn.now_ms;
        turn.effects.changed.insert(self.model.clone());
        turn.effects.controls.push(self.control(rollout, now));
    }

    /// Restarts the evidence under `rules`. Weight and phase stay; the step's clock, its answers and a hold start from zero.
    pub(super) fn start_over(
        &mut self,
        rollout: &mut RolloutState,
        rules: Rules,
        why: &str,
        now: EventTime,
        turn: &mut Turn<'_>,
    ) {
        rollout.rules = rules;
        rollout.clock = if rollout.clock.since.is_some() { Clock::started(now) } else { Clock::default() };
        (rollout.answers, rollout.answers_before) = (0, 0);
        (rollout.reported, rollout.acknowledged) = (None, None);
        if let Some(hold) = &mut rollout.hold {
            (hold.since, hold.reported) = (now, false);
        }
        let sentence = format!("the evidence starts over, at the same weight: {why}");
        self.transition(rollout, EventKind::Warned, sentence, now, turn);
    }

    fn control(&self, rollout: &RolloutState, now: EventTime) -> Control {
        Control {
            model: self.model.clone(),
            rollout: rollout.id.clone(),
            generation: self.generation,
            phase: rollout.phase,
            step: StepIndex::number(rollout.step),
            stable: rollout.spec.stable.version.clone(),
            canary: rollout.spec.canary.version.clone(),
            canary_share: rollout.canary_share.0,
            control_share: rollout.control_share.0,
            decided_at: now,
            spec: to_json(&rollout.spec),
            frozen: rollout.frozen.as_ref().map(to_json),
            rules: rollout.rules.number(),
            acknowledged: rollout.acknowledged,
        }
    }
}

/// The control arm's share: `ratio` times the canary's, or all that is left. Every live answer is compared with mirrored calls.
fn control_share(step: &Step, ratio: f64) -> Share {
    if step.mirror.is_some() {
        return Share::ALL;
    }
    let wanted = (f64::from(step.weight.0) * ratio).round();
    Share(wanted.clamp(0.0, f64::from(Share::ALL.0 - step.weight.0)) as i32)
}

fn route(version: &VersionSpec, arm: Arm, share: Share) -> Route {
    Route { version: version.version.clone(), arm, share: share.0, url: version.url.clone() }
}

pub(super) fn to_json<T: serde::Serialize>(value: &T) -> String {
    serde_json::to_string(value).expect("all keys of its maps are text")
}

pub(super) fn push_bounded<T>(list: &mut std::collections::VecDeque<T>, item: T, bound: usize) {
    if list.len() >= bound {
        list.pop_front();
    }
    list.push_back(item);
}

/// A `UUIDv8` from a hash of the cause, so that the same cause has the same id.
pub(super) fn event_id(cause: &str) -> String {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&hash64(b"serin audit high", cause.as_bytes()).to_be_bytes());
    bytes[8..].copy_from_slice(&hash64(b"serin audit low", cause.as_bytes()).to_be_bytes());
    Builder::from_custom_bytes(bytes).into_uuid().to_string()
}
