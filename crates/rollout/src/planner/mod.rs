//! The planner: a pure state machine from verdicts, commands, router reports and ticks to routing tables, controls and
//! audit events.
//!
//! Bake, hold and monitor run in **event time**, as verdicts tell it. The wall clock is used for leases, for noticing
//! that verdicts stopped coming, and for routers that went away.
//!
//! Invariants (property tests below): generations of a model strictly grow; a rollback can happen in any phase and its table has no
//! canary; weights only go up the ramp or to nothing; the same inputs give the same outputs whether or not the state
//! was written and read in between; no input panics.

mod command;
mod state;
mod tick;
mod turn;
mod verdict;

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use serin_schemas::{
    ids::{EventTime, Generation, ModelName},
    records::{Arm, Command, Control, RolloutEvent, RouterStatus, RoutingTable, Shed, Verdict},
};

pub use state::{
    Clock, Ended, Ending, Hold, HoldCause, LastVerdict, Lease, ModelState, Outcome, Pause, Queued, RolloutState,
    RouterSeen, STATE_VERSION, StateError,
};

/// What the planner reacts to.
#[derive(Clone, Debug, PartialEq)]
pub enum Input {
    /// The analyzer found something.
    Verdict(Box<Verdict>),
    /// Somebody wants something.
    Command(Box<Command>),
    /// A router tells what it uses.
    RouterStatus(Box<RouterStatus>),
    /// Time has passed.
    Tick,
}

/// Spans of wall-clock time that the planner works with, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// How long a table with a canary in it holds without renewal.
    pub lease_ms: i64,
    /// How often it is renewed.
    pub renew_ms: i64,
    /// Without a verdict for this long (or three windows, if that is longer) a rollout is held and its lease not renewed.
    pub stale_ms: i64,
    /// A router that has not reported for this long no longer holds up a step.
    pub router_ms: i64,
}

impl Default for Settings {
    fn default() -> Self {
        Self { lease_ms: 60_000, renew_ms: 10_000, stale_ms: 30_000, router_ms: 30_000 }
    }
}

/// What is to be written, in this order, in one transaction with the changed states.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Effects {
    /// Routing tables, oldest first.
    pub tables: Vec<RoutingTable>,
    /// Control records, oldest first.
    pub controls: Vec<Control>,
    /// Audit events, oldest first.
    pub events: Vec<RolloutEvent>,
    /// Models whose state has changed.
    pub changed: BTreeSet<ModelName>,
    /// Whether the routers have changed.
    pub routers_changed: bool,
}

impl Effects {
    /// Whether anything is to be written to a topic.
    pub fn is_silent(&self) -> bool {
        self.tables.is_empty() && self.controls.is_empty() && self.events.is_empty()
    }
}

/// The rollouts of the models of one partition.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Planner {
    settings: Settings,
    models: BTreeMap<ModelName, ModelState>,
    routers: BTreeMap<String, RouterSeen>,
}

impl Planner {
    /// A planner without any model.
    pub fn new(settings: Settings) -> Self {
        Self { settings, ..Self::default() }
    }

    /// Takes over the state of a model.
    pub fn restore(&mut self, state: ModelState) {
        self.models.insert(state.model.clone(), state);
    }

    /// Takes over what is known of the routers.
    pub fn restore_routers(&mut self, routers: BTreeMap<String, RouterSeen>) {
        self.routers = routers;
    }

    /// Compares with the newest routing table on the log. When the state does not know it, the next generation is higher
    /// than the table's, and the next tick writes a table again: the active rollout's, or all stable if there is none
    /// and the table has a canary in it.
    pub fn adopt(&mut self, table: RoutingTable) {
        let state = self.models.entry(table.model.clone()).or_insert_with(|| ModelState::new(table.model.clone()));
        if table.generation <= state.generation {
            return;
        }
        state.generation = table.generation;
        let has_canary =
            table.routes.iter().any(|route| matches!(route.arm, Arm::Canary | Arm::Shadow) && route.share > 0);
        if state.active.is_some() || has_canary {
            state.unknown_table = Some(table);
        }
    }

    /// Applies one input. `now_ms` is the wall clock.
    pub fn apply(&mut self, input: Input, now_ms: i64) -> Effects {
        let mut effects = Effects::default();
        match input {
            Input::Verdict(verdict) => self.on_verdict(&verdict, now_ms, &mut effects),
            Input::Command(command) => self.on_command(&command, now_ms, &mut effects),
            Input::RouterStatus(status) => self.on_status(&status, now_ms, &mut effects),
            Input::Tick => self.on_tick(now_ms, &mut effects),
        }
        effects
    }

    /// The state of each model.
    pub fn models(&self) -> impl Iterator<Item = &ModelState> {
        self.models.values()
    }

    /// The state of one model.
    pub fn model(&self, model: &ModelName) -> Option<&ModelState> {
        self.models.get(model)
    }

    /// What is known of the routers.
    pub fn routers(&self) -> &BTreeMap<String, RouterSeen> {
        &self.routers
    }

    fn on_status(&mut self, status: &RouterStatus, now_ms: i64, effects: &mut Effects) {
        effects.routers_changed = true;
        if status.leaving {
            self.routers.remove(&status.router);
            return;
        }
        let before = self.routers.get(&status.router).cloned().unwrap_or_default();
        let applied = status.applied.iter().map(|table| (table.model.clone(), table.generation)).collect();
        let shed = status.shed.iter().map(|shed| (shed.model.clone(), shed.clone())).collect();
        let seen = RouterSeen { at: status.at, seen_ms: now_ms, applied, shed };
        self.tell_shed(&status.router, &before.shed, &seen.shed, now_ms, effects);
        self.routers.insert(status.router.clone(), seen);
    }

    /// Tells at once that a router calls a version no more, or again.
    fn tell_shed(
        &mut self,
        router: &str,
        before: &BTreeMap<ModelName, Shed>,
        now: &BTreeMap<ModelName, Shed>,
        now_ms: i64,
        effects: &mut Effects,
    ) {
        let begun = now.iter().filter(|(model, shed)| before.get(*model).is_none_or(|old| old.since != shed.since));
        let begun = begun.map(|(model, shed)| {
            (model, format!("router {router} does not call {} for a while: {}", shed.version, shed.cause))
        });
        let over = before.iter().filter(|(model, _)| !now.contains_key(*model));
        let over = over.map(|(model, shed)| (model, format!("router {router} calls {} again", shed.version)));
        for (model, sentence) in begun.chain(over) {
            let Some(state) = self.models.get_mut(model) else { continue };
            let mut turn = Turn {
                now_ms,
                settings: self.settings,
                routers: &self.routers,
                effects,
                actor: router.to_owned(),
                cause: None,
            };
            state.warn(sentence, &mut turn);
        }
    }

    fn on_verdict(&mut self, verdict: &Verdict, now_ms: i64, effects: &mut Effects) {
        let Some(state) = self.models.get_mut(&verdict.model) else { return };
        let mut turn = Turn {
            now_ms,
            settings: self.settings,
            routers: &self.routers,
            effects,
            actor: "analyzer".to_owned(),
            cause: Some(verdict.id.clone()),
        };
        state.on_verdict(verdict, &mut turn);
    }

    fn on_tick(&mut self, now_ms: i64, effects: &mut Effects) {
        // A router that is long gone is forgotten, so that the map stays bounded.
        let keep = self.settings.router_ms.saturating_mul(10);
        let before = self.routers.len();
        self.routers.retain(|_, router| now_ms.saturating_sub(router.seen_ms) <= keep);
        effects.routers_changed = self.routers.len() != before;
        for state in self.models.values_mut() {
            let mut turn = Turn {
                now_ms,
                settings: self.settings,
                routers: &self.routers,
                effects,
                actor: "controller".to_owned(),
                cause: None,
            };
            state.on_tick(&mut turn);
        }
    }
}

/// What one input's handling needs besides the state.
struct Turn<'a> {
    now_ms: i64,
    settings: Settings,
    routers: &'a BTreeMap<String, RouterSeen>,
    effects: &'a mut Effects,
    actor: String,
    cause: Option<String>,
}

impl Turn<'_> {
    /// Routers that reported of late.
    fn live(&self) -> impl Iterator<Item = (&String, &RouterSeen)> {
        self.routers.iter().filter(|(_, router)| self.now_ms.saturating_sub(router.seen_ms) <= self.settings.router_ms)
    }

    /// A live router that serves the model and has not applied this generation yet.
    fn unconfirmed(&self, model: &ModelName, generation: Generation) -> Option<&str> {
        self.live()
            .find(|(_, router)| router.applied.get(model).is_some_and(|applied| *applied < generation))
            .map(|(name, _)| name.as_str())
    }

    /// The routers' clock: the earliest of the live ones.
    fn router_clock(&self) -> Option<EventTime> {
        self.live().map(|(_, router)| router.at).min()
    }
}
