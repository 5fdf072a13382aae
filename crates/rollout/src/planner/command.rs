//! What commands do. A command that cannot be done has no effect, and an event reports why.

use serin_schemas::{
    ids::{EventTime, RolloutId},
    records::{Action, Command, EventKind, NoDataReason, Phase, RolloutEvent},
};

use super::{
    Clock, Effects, HeldFor, HoldCause, ModelState, Outcome, Pause, Planner, Queued, RolloutState, StepIndex, Turn,
    WallMs,
    serving::{stable_of, startable},
    turn::{event_id, push_bounded},
};
use crate::lint::lint;
use serin_spec::{Concurrency, Mode, RolloutSpec, Severity};

/// Maximum number of ids of commands that are kept per model.
const COMMANDS_KEPT: usize = 256;
/// Maximum number of queued rollouts per model.
const QUEUE_MAX: usize = 8;

/// Why a command cannot be done, as a sentence for people.
pub(super) type Refusal = String;

/// Whether a command is about a pattern of models, and so for every partition.
fn is_about_pattern(action: Action) -> bool {
    matches!(action, Action::Freeze | Action::Unfreeze)
}

impl Planner {
    pub(super) fn on_command(&mut self, command: &Command, now_ms: WallMs, effects: &mut Effects) {
        if is_about_pattern(command.action) {
            self.on_freeze(command, now_ms, effects);
            return;
        }
        if matches!(command.action, Action::Apply | Action::Retry) {
            let model = &command.model;
            self.models.entry(model.clone()).or_insert_with(|| ModelState::new(model.clone()));
        }
        let turn = Turn::new(self.settings, &self.routers, &self.freezes, now_ms, effects);
        let (actor, cause, asked_at) = (command.actor.clone(), Some(command.id.clone()), Some(command.at));
        let mut turn = Turn { actor, cause, asked_at, ..turn };
        if command.action == Action::StopAll {
            for state in self.models.values_mut() {
                state.on_command(command, &mut turn);
            }
        } else if let Some(state) = self.models.get_mut(&command.model) {
            state.on_command(command, &mut turn);
        } else {
            turn.effects.events.push(refused_without_state(command, now_ms));
        }
    }
}

impl ModelState {
    fn on_command(&mut self, command: &Command, turn: &mut Turn<'_>) {
        if self.commands.contains(&command.id) {
            return;
        }
        push_bounded(&mut self.commands, command.id.clone(), COMMANDS_KEPT);
        turn.effects.changed.insert(self.model.clone());
        let now = self.now(turn, Some(command.at));
        let done = match command.action {
            Action::Apply => self.on_apply(command, now, turn),
            Action::Retry => self.on_retry(command, now, turn),
            Action::Undo => self.on_undo(command, now, turn),
            Action::Mark => self.on_mark(command, now, turn),
            Action::StopAll => {
                self.on_stop(command, now, turn);
                Ok(())
            }
            _ => self.on_active(command, now, turn),
        };
        if let Err(refusal) = done {
            let rollout = self.active.take();
            let sentence = format!("{} refused: {refusal}", verb(command.action));
            self.emit(rollout.as_ref(), EventKind::Refused, sentence, now, turn);
            // The refused command may be about another rollout than the active one.
            if let (Some(event), Some(meant)) = (turn.effects.events.last_mut(), &command.rollout)
                && event.rollout.as_ref() != Some(meant)
            {
                event.rollout = Some(meant.clone());
                event.state = None;
            }
            self.active = rollout;
        }
    }

    fn on_apply(&mut self, command: &Command, now: EventTime, turn: &mut Turn<'_>) -> Result<(), Refusal> {
        let id = command.rollout.clone().ok_or("the command has no rollout id")?;
        let spec = self.read_spec(command)?;
        self.accept(Queued { id, spec, actor: command.actor.clone(), retry: None }, now, turn)
    }

    /// Starts a rollout, or queues it behind the active one.
    pub(super) fn accept(&mut self, queued: Queued, now: EventTime, turn: &mut Turn<'_>) -> Result<(), Refusal> {
        if self.knows(&queued.id) {
            return Err(format!("rollout {} already exists; apply it under a new id", queued.id));
        }
        let spec = self.checked_at_once(queued.spec, turn)?;
        self.warn_about_stable(&spec, now, turn);
        let (concurrency, queued) = (spec.concurrency, Queued { spec, ..queued });
        let Some(mut active) = self.active.take() else {
            self.start(queued, now, EventKind::Started, turn);
            return Ok(());
        };
        match concurrency {
            Concurrency::Supersede => {
                let sentence = format!("superseded by rollout {}", queued.id);
                // The rest of the queue is older and stays behind the new one.
                self.queue.push_front(queued);
                self.end(&mut active, Phase::Superseded, Outcome::Superseded, Vec::new(), sentence, now, turn);
                self.settle(active, turn);
            }
            Concurrency::Queue if self.queue.len() < QUEUE_MAX => {
                let mut waiting = RolloutState::new(queued.clone(), now, turn.now_ms);
                waiting.phase = Phase::Pending;
                // It may wait longer than the active rollout lasts, so the sentence names no rollout.
                waiting.sentence = format!("waiting until the rollouts of {} before it have ended", self.model);
                let sentence = waiting.sentence.clone();
                self.queue.push_back(queued);
                self.active = Some(active);
                self.emit(Some(&waiting), EventKind::Started, sentence, now, turn);
            }
            Concurrency::Queue | Concurrency::Reject => {
                let running = format!("rollout {} of {} is {}", active.id, self.model, word(active.phase));
                let full = concurrency == Concurrency::Queue;
                self.active = Some(active);
                let fix = if full {
                    format!("and {QUEUE_MAX} more are already waiting; abort one of them")
                } else {
                    "abort it first, or set `concurrency: queue` or `supersede`".to_owned()
                };
                return Err(format!("{running}; {fix}"));
            }
        }
        Ok(())
    }

    pub(super) fn read_spec(&self, command: &Command) -> Result<RolloutSpec, Refusal> {
        let text = command.spec.as_deref().ok_or("the command has no spec")?;
        let spec: RolloutSpec =
            serde_json::from_str(text).map_err(|cause| format!("the spec cannot be read: {cause}"))?;
        if spec.model != self.model {
            return Err(format!("the spec is for model {}, the command for {}", spec.model, self.model));
        }
        let errors: Vec<String> = lint(&spec, None)
            .into_iter()
            .filter(|problem| problem.severity == Severity::Error)
            .map(|problem| format!("{}: {}", problem.path, problem.message))
            .collect();
        if errors.is_empty() { Ok(spec.normalized()) } else { Err(errors.join("; ")) }
    }

    fn knows(&self, id: &RolloutId) -> bool {
        self.active.as_ref().is_some_and(|active| active.id == *id)
            || self.queue.iter().any(|queued| queued.id == *id)
            || self.ended.iter().any(|ended| ended.id == *id)
    }

    /// Completes a spec that would start now with the serving version, or returns why it must not start. A queued spec is checked later.
    fn checked_at_once(&self, spec: RolloutSpec, turn: &Turn<'_>) -> Result<RolloutSpec, Refusal> {
        match (&self.active, spec.concurrency) {
            // A superseded rollout ends with its stable version serving.
            (Some(active), Concurrency::Supersede) if active.acts() && spec.mode == Mode::Act => {
                let stable = stable_of(&spec, Some(&active.spec.stable), turn).map_err(|why| {
                    format!("rollout {} would end with its stable version, and then {why}", active.id)
                })?;
                let spec = RolloutSpec { stable, ..spec };
                startable(spec, turn)
            }
            (None, _) | (Some(_), Concurrency::Supersede) => self.spec_to_start(&spec, turn),
            (Some(_), Concurrency::Queue | Concurrency::Reject) => Ok(spec),
        }
    }

    /// Warns if the stable version in the file of an observed rollout does not serve. The rollout may still start: it moves no calls.
    fn warn_about_stable(&mut self, spec: &RolloutSpec, now: EventTime, turn: &mut Turn<'_>) {
        if self.active.is_some() || spec.mode == Mode::Act {
            return;
        }
        if let Err(why) = stable_of(spec, self.serving.as_ref(), turn) {
            let sentence =
                format!("the rollout is only observed, but its file does not name the serving version: {why}");
            self.emit(None, EventKind::Warned, sentence, now, turn);
        }
    }

    /// Sends all calls to stable at once, and drops the queue.
    fn on_stop(&mut self, command: &Command, now: EventTime, turn: &mut Turn<'_>) {
        for queued in std::mem::take(&mut self.queue) {
            self.drop_queued(queued, stopped("aborted in the queue", command), now, turn);
        }
        if let Some(mut rollout) = self.active.take() {
            let sentence = stopped("stopped", command);
            self.end(&mut rollout, Phase::Aborted, Outcome::Aborted, Vec::new(), sentence, now, turn);
            self.settle(rollout, turn);
        }
    }

    /// Commands about a rollout that is active or queued.
    fn on_active(&mut self, command: &Command, now: EventTime, turn: &mut Turn<'_>) -> Result<(), Refusal> {
        if let Some(meant) = &command.rollout
            && let Some(place) = self.queue.iter().position(|queued| queued.id == *meant)
        {
            if command.action != Action::Abort {
                return Err(format!("rollout {meant} is waiting for another one; it can only be aborted"));
            }
            if let Some(queued) = self.queue.remove(place) {
                self.drop_queued(queued, stopped("aborted in the queue", command), now, turn);
            }
            return Ok(());
        }
        let Some(active) = &self.active else { return Err(format!("{} has no active rollout", self.model)) };
        if let Some(meant) = command.rollout.as_ref().filter(|meant| **meant != active.id) {
            return Err(format!("rollout {meant} is not the active one, which is {}", active.id));
        }
        let Some(mut rollout) = self.active.take() else { return Ok(()) };
        let done = match command.action {
            Action::Promote => self.on_promote(&mut rollout, command, now, turn),
            Action::PromoteFull => self.on_promote_full(&mut rollout, command, now, turn),
            Action::Pause => self.on_pause(&mut rollout, command, now, turn),
            Action::Resume => self.on_resume(&mut rollout, command, now, turn),
            Action::SetWeight => self.on_set_weight(&mut rollout, command, now, turn),
            Action::Approve => self.on_approve(&mut rollout, command, now, turn),
            Action::Reject => self.on_reject(&mut rollout, command, now, turn),
            // The others are not about an active rollout.
            _ => {
                let sentence = stopped("aborted", command);
                self.end(&mut rollout, Phase::Aborted, Outcome::Aborted, Vec::new(), sentence, now, turn);
                Ok(())
            }
        };
        self.settle(rollout, turn);
        done
    }

    fn on_promote(
        &mut self,
        rollout: &mut RolloutState,
        command: &Command,
        now: EventTime,
        turn: &mut Turn<'_>,
    ) -> Result<(), Refusal> {
        moves_weights(rollout)?;
        not_frozen(rollout)?;
        let why = format!(", {}", stopped("promoted", command));
        if rollout.promoted {
            self.complete(rollout, &why, now, turn);
        } else if rollout.frozen.is_some() {
            self.advance(rollout, &why, now, turn);
        } else {
            return Err(
                "the rollout is still warming up and nothing has been compared yet; wait, or promote it with `full`"
                    .to_owned(),
            );
        }
        Ok(())
    }

    fn on_promote_full(
        &mut self,
        rollout: &mut RolloutState,
        command: &Command,
        now: EventTime,
        turn: &mut Turn<'_>,
    ) -> Result<(), Refusal> {
        moves_weights(rollout)?;
        not_frozen(rollout)?;
        let why = format!(", {}", stopped("promoted in full", command));
        if rollout.promoted {
            self.complete(rollout, &why, now, turn);
        } else {
            self.promote(rollout, &why, now, turn);
        }
        Ok(())
    }

    fn on_pause(
        &mut self,
        rollout: &mut RolloutState,
        command: &Command,
        now: EventTime,
        turn: &mut Turn<'_>,
    ) -> Result<(), Refusal> {
        if let Some(pause) = &rollout.pause {
            return Err(format!("{} has already paused it", pause.by));
        }
        rollout.pause = Some(Pause { by: command.actor.clone(), from: rollout.phase, since: now });
        rollout.phase = Phase::Paused;
        rollout.clock.stop(now);
        self.transition(rollout, EventKind::Paused, stopped("paused", command), now, turn);
        Ok(())
    }

    fn on_resume(
        &mut self,
        rollout: &mut RolloutState,
        command: &Command,
        now: EventTime,
        turn: &mut Turn<'_>,
    ) -> Result<(), Refusal> {
        let sentence = stopped("resumed", command);
        if let Some(pause) = rollout.pause.take() {
            if matches!(pause.from, Phase::Baking | Phase::Shadowing | Phase::Promoted) {
                let seen = acknowledge(rollout);
                self.resume_step(rollout, sentence + &seen, now, turn);
                return Ok(());
            }
            if let Some(hold) = rollout.hold.as_mut() {
                hold.since = hold.since.plus(now.since(pause.since));
            }
            rollout.phase = pause.from;
            self.transition(rollout, EventKind::Resumed, sentence, now, turn);
            return Ok(());
        }
        match rollout.hold.as_ref().map(|hold| hold.cause) {
            Some(HoldCause::Marginal) => {
                rollout.clock = Clock::default();
                let seen = acknowledge(rollout);
                self.resume_step(rollout, format!("{sentence}; the step bakes again from its start{seen}"), now, turn);
                Ok(())
            }
            Some(HoldCause::Health) => {
                let seen = acknowledge(rollout);
                self.resume_step(rollout, sentence + &seen, now, turn);
                Ok(())
            }
            Some(HoldCause::Stale) => Err(
                "no verdicts arrive: check that the aggregator and the analyzer are running, then it resumes by itself"
                    .to_owned(),
            ),
            Some(HoldCause::Approval) => {
                Err("the step waits for an approval; approve it, or reject it to end the rollout".to_owned())
            }
            // A warm-up is not held, but the issue that it waits for can be acknowledged in the same way.
            None if rollout.warm_up_waits.is_some_and(NoDataReason::is_finding) => {
                let seen = acknowledge(rollout);
                rollout.warm_up_waits = None;
                self.transition(rollout, EventKind::Resumed, sentence + &seen, now, turn);
                Ok(())
            }
            None => Err(format!("the rollout is neither paused nor held but {}", word(rollout.phase))),
        }
    }
}

/// The operator who resumes has seen what the last verdict holds for. Returns two clauses: the issues that this acknowledges, and those
/// that hold the rollout again as long as they last.
fn acknowledge(rollout: &mut RolloutState) -> String {
    let Some(verdict) = rollout.verdict.as_ref().filter(|verdict| !verdict.holds.is_empty()) else {
        return String::new();
    };
    let (seen, stays): (Vec<&HeldFor>, Vec<&HeldFor>) = verdict.holds.iter().partition(|held| held.can_be_acknowledged);
    let sentences = |held: &[&HeldFor]| held.iter().map(|held| held.sentence.as_str()).collect::<Vec<_>>().join("; ");
    let mut clauses = Vec::new();
    if !seen.is_empty() {
        clauses.push(format!("; acknowledged, so that only a new or worse issue holds it again: {}", sentences(&seen)));
        rollout.acknowledged = Some(verdict.as_of);
    }
    if !stays.is_empty() {
        clauses.push(format!("; it is held again while this lasts: {}", sentences(&stays)));
    }
    clauses.concat()
}

/// A rollout that is only observed cannot promote anything.
pub(super) fn moves_weights(rollout: &RolloutState) -> Result<(), Refusal> {
    if rollout.acts() {
        return Ok(());
    }
    Err(format!(
        "the rollout is only observed (mode: observe), so Serin sends no calls to {}; change the split where it is made, or abort the rollout and \
         apply the file with `mode: act`",
        rollout.spec.canary.version.in_words()
    ))
}

/// A frozen model takes no steps, also not by hand.
fn not_frozen(rollout: &RolloutState) -> Result<(), Refusal> {
    let frozen = |freeze: &super::Freeze| format!("no steps are taken during {}; unfreeze it first", freeze.in_words());
    rollout.freeze.as_ref().map_or(Ok(()), |freeze| Err(frozen(freeze)))
}

fn refused_without_state(command: &Command, now_ms: WallMs) -> RolloutEvent {
    RolloutEvent {
        id: event_id(&format!("{} {}", command.model, command.id)),
        model: command.model.clone(),
        rollout: command.rollout.clone(),
        kind: EventKind::Refused,
        phase: Phase::Pending,
        step: StepIndex::number(None),
        canary_share: 0,
        generation: serin_schemas::ids::Generation(0),
        at: command.at,
        recorded_at: now_ms.as_event_time(),
        actor: command.actor.clone(),
        sentence: format!("{} refused: model {} has never had a rollout", verb(command.action), command.model),
        cause: Some(command.id.clone()),
        state: None,
        was_good: None,
    }
}

pub(super) fn stopped(done: &str, command: &Command) -> String {
    if command.reason.is_empty() {
        format!("{done} by {}", command.actor)
    } else {
        format!("{done} by {}: {}", command.actor, command.reason)
    }
}

pub(super) fn verb(action: Action) -> &'static str {
    match action {
        Action::Apply => "apply",
        Action::Promote | Action::PromoteFull => "promote",
        Action::Pause => "pause",
        Action::Resume => "resume",
        Action::Abort => "abort",
        Action::StopAll => "stop all",
        Action::SetWeight => "set-weight",
        Action::Approve => "approve",
        Action::Reject => "reject",
        Action::Freeze => "freeze",
        Action::Unfreeze => "unfreeze",
        Action::Undo => "undo",
        Action::Retry => "retry",
        Action::Mark => "mark",
    }
}

pub(super) fn word(phase: Phase) -> &'static str {
    match phase {
        Phase::Pending => "pending",
        Phase::Warming => "warming up",
        Phase::Shadowing => "shadowing",
        Phase::Baking => "baking",
        Phase::Held => "held",
        Phase::Paused => "paused",
        Phase::Promoted => "promoted and monitored",
        Phase::Completed => "completed",
        Phase::RolledBack => "rolled back",
        Phase::Aborted => "aborted",
        Phase::Superseded => "superseded",
    }
}
