//! Freezes: while a model is frozen, its rollouts take no steps. Every fold keeps all freezes, because a pattern may match models of
//! any partition.
//!
//! Invariant: a freeze never delays a rollback.

use serin_schemas::{
    ids::ModelName,
    records::{Action, Command, EventKind, Phase, RolloutEvent},
};

use super::{
    Effects, Freeze, ModelState, Planner, StepIndex, Turn, WallMs,
    command::{Refusal, stopped, verb},
    turn::{event_id, to_json},
};

/// Maximum number of freezes at the same time.
const FREEZES_MAX: usize = 100;
/// Maximum number of patterns that an error lists.
const LISTED: usize = 5;

impl Freeze {
    /// The freeze in words: `the freeze of flights* by ada (holidays), until ...`.
    pub fn in_words(&self) -> String {
        format!("the freeze of {} by {} ({})", self.models, self.by, self.reason)
    }

    fn is_over(&self, now_ms: WallMs) -> bool {
        self.until.is_some_and(|until| until <= now_ms.as_event_time())
    }
}

impl Planner {
    /// Starts or ends a freeze. The event about it has the pattern as its model, and every partition writes the same one.
    pub(super) fn on_freeze(&mut self, command: &Command, now_ms: WallMs, effects: &mut Effects) {
        let done = if command.action == Action::Freeze { self.freeze(command, now_ms) } else { self.unfreeze(command) };
        let (kind, sentence) = match done {
            Ok(sentence) if command.action == Action::Freeze => (EventKind::Frozen, sentence),
            Ok(sentence) => (EventKind::Unfrozen, sentence),
            Err(why) => (EventKind::Refused, format!("{} refused: {why}", verb(command.action))),
        };
        let event = event_of(&command.model, kind, sentence, now_ms);
        effects.events.push(RolloutEvent {
            id: event_id(&format!("{} {}", command.model, command.id)),
            at: command.at,
            actor: command.actor.clone(),
            cause: Some(command.id.clone()),
            state: (kind == EventKind::Frozen).then(|| self.freezes.get(command.model.as_str()).map(to_json)).flatten(),
            ..event
        });
        if kind != EventKind::Refused {
            effects.freezes_changed = true;
            let turn = Turn::new(self.settings, &self.routers, &self.freezes, now_ms, effects);
            let (actor, cause, asked_at) = (command.actor.clone(), Some(command.id.clone()), Some(command.at));
            let mut turn = Turn { actor, cause, asked_at, ..turn };
            self.models.values_mut().for_each(|state| state.on_freezes(&mut turn));
        }
    }

    fn freeze(&mut self, command: &Command, now_ms: WallMs) -> Result<String, Refusal> {
        let models = command.model.as_str().to_owned();
        let freeze = Freeze {
            models: models.clone(),
            by: command.actor.clone(),
            reason: command.reason.clone(),
            since: command.at,
            until: command.until,
        };
        if freeze.reason.is_empty() {
            return Err("a freeze needs a reason".to_owned());
        }
        if freeze.is_over(now_ms) {
            return Err("the end of the freeze is in the past".to_owned());
        }
        if self.freezes.len() >= FREEZES_MAX && !self.freezes.contains_key(&models) {
            return Err(format!("there are already {FREEZES_MAX} freezes; end one of them"));
        }
        self.freezes.insert(models.clone(), freeze);
        Ok(format!("no steps of {models}: {}", stopped("frozen", command)))
    }

    fn unfreeze(&mut self, command: &Command) -> Result<String, Refusal> {
        let models = command.model.as_str();
        if self.freezes.remove(models).is_none() {
            let known: Vec<&str> = self.freezes.keys().map(String::as_str).take(LISTED).collect();
            let known =
                if known.is_empty() { "nothing is frozen".to_owned() } else { format!("frozen: {}", known.join(", ")) };
            return Err(format!("there is no freeze of {models:?}; {known}"));
        }
        Ok(format!("{models} may take steps again: {}", stopped("unfrozen", command)))
    }

    /// Ends the freezes whose time is over.
    pub(super) fn end_freezes(&mut self, now_ms: WallMs, effects: &mut Effects) {
        let over: Vec<Freeze> = self.freezes.values().filter(|freeze| freeze.is_over(now_ms)).cloned().collect();
        if over.is_empty() {
            return;
        }
        effects.freezes_changed = true;
        for freeze in over {
            self.freezes.remove(&freeze.models);
            let model = ModelName::from(freeze.models.as_str());
            let sentence = format!("{} has ended, as planned", freeze.in_words());
            let id = event_id(&format!("{} {} end", freeze.models, freeze.since));
            effects.events.push(RolloutEvent { id, ..event_of(&model, EventKind::Unfrozen, sentence, now_ms) });
        }
        let mut turn = Turn::new(self.settings, &self.routers, &self.freezes, now_ms, effects);
        self.models.values_mut().for_each(|state| state.on_freezes(&mut turn));
    }
}

impl ModelState {
    /// Shows in the active rollout whether its model is frozen.
    fn on_freezes(&mut self, turn: &mut Turn<'_>) {
        let freeze = turn.freeze_of(&self.model).cloned();
        let Some(mut rollout) = self.active.take_if(|rollout| rollout.freeze != freeze) else { return };
        let (kind, sentence) = match &freeze {
            Some(freeze) => (EventKind::Frozen, format!("no steps are taken: {}", freeze.in_words())),
            None => (EventKind::Unfrozen, "steps are taken again: the freeze has ended".to_owned()),
        };
        rollout.freeze = freeze;
        let now = self.now(turn, turn.asked_at);
        self.emit(Some(&rollout), kind, sentence, now, turn);
        self.active = Some(rollout);
    }
}

fn event_of(models: &ModelName, kind: EventKind, sentence: String, now_ms: WallMs) -> RolloutEvent {
    RolloutEvent {
        id: String::new(),
        model: models.clone(),
        rollout: None,
        kind,
        phase: Phase::Pending,
        step: StepIndex::number(None),
        canary_share: 0,
        generation: serin_schemas::ids::Generation(0),
        at: now_ms.as_event_time(),
        recorded_at: now_ms.as_event_time(),
        actor: "controller".to_owned(),
        sentence,
        cause: None,
        state: None,
        was_good: None,
    }
}
