//! The planner: a pure state machine that turns verdicts, commands, router reports and ticks into routing tables, control records
//! and audit events.
//!
//! Bake, hold, approval and monitor run in **event time**, which verdicts carry. The wall clock is used for leases, for the ends that
//! people set (of a freeze, of the time in which a promotion can be undone), to notice that verdicts stopped, and to notice that
//! routers went away.
//!
//! Invariants (property tests below): generations of a model strictly grow. A rollback can happen in any phase, and its table has no
//! canary; neither a freeze nor an approval delays it. Weights only go up the ramp or to zero, unless a person sets one. Only a promotion
//! or an undo changes the serving version, so every way back leads to the table from before the rollout. The same inputs give the same outputs whether or not the state was written and read in between. No input
//! panics.

mod approval;
mod command;
mod confirm;
mod freeze;
mod held;
mod mark;
mod near;
mod quantities;
mod retry;
mod routers;
mod serving;
mod state;
mod tick;
mod turn;
mod undo;
mod verdict;
mod weight;

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use serin_schemas::{
    ids::{EventTime, Generation, ModelName, Span},
    pattern,
    records::{Arm, Command, Configured, Control, RolloutEvent, RouterStatus, RoutingTable, Verdict},
};

use serin_spec::TrafficSource;

pub use held::AfterHold;
pub use quantities::{StepIndex, WallMs};
pub use routers::{ACTUATOR, Applied, RouterSeen, applied};
pub use state::{
    ByHand, Clock, Ended, Ending, Freeze, HeldFor, Hold, HoldCause, LastVerdict, Lease, ModelState, Outcome, Pause,
    Queued, Retry, RolloutState, STATE_VERSION, StateError, Unconfirmed,
};
pub use tick::stale_limit_ms;
pub use verdict::{missing_evidence, without_order};

/// What the planner reacts to.
#[derive(Clone, Debug, PartialEq)]
pub enum Input {
    /// The analyzer wrote a verdict.
    Verdict(Box<Verdict>),
    /// A person or a program sent a command.
    Command(Box<Command>),
    /// A router reported the tables that it uses.
    RouterStatus(Box<RouterStatus>),
    /// Time has passed.
    Tick,
}

/// Spans of wall-clock time that the planner works with, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// How long a table with a canary is valid without renewal.
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

/// What is to be written, in this order and in one transaction with the changed states.
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
    /// Routers whose own configurations have changed, or that are gone.
    pub configured_changed: BTreeSet<String>,
    /// Whether the freezes have changed.
    pub freezes_changed: bool,
    /// For each confirmed rollback, the time that the slowest router took to apply it.
    pub confirmed: Vec<Span>,
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
    /// By the pattern of their models.
    freezes: BTreeMap<String, Freeze>,
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

    /// Takes over what is known of the routers, except their own configurations.
    pub fn restore_routers(&mut self, routers: BTreeMap<String, RouterSeen>) {
        self.routers = routers;
    }

    /// Takes over the freezes.
    pub fn restore_freezes(&mut self, freezes: BTreeMap<String, Freeze>) {
        self.freezes = freezes;
    }

    /// The freezes, by the pattern of their models.
    pub fn freezes(&self) -> &BTreeMap<String, Freeze> {
        &self.freezes
    }

    /// Takes over what a router's own configuration contains.
    pub fn restore_configured(&mut self, router: &str, configured: Vec<Configured>) {
        if let Some(router) = self.routers.get_mut(router) {
            router.configured = Some(configured);
        }
    }

    /// Compares the state with the newest routing table on the log. If the state does not know that table, the next generation is
    /// higher than the table's, and the next tick writes a table again: the active rollout's, or all stable if there is none
    /// and the table has a canary in it.
    pub fn adopt(&mut self, table: RoutingTable) {
        let state = self.models.entry(table.model.clone()).or_insert_with(|| ModelState::new(table.model.clone()));
        if table.generation <= state.generation {
            return;
        }
        state.generation = table.generation;
        if state.serving.is_none() && state.active.is_none() {
            state.serving = serving::base_of(&table);
        }
        let has_canary =
            table.routes.iter().any(|route| matches!(route.arm, Arm::Canary | Arm::Shadow) && route.share > 0);
        if state.active.is_some() || has_canary {
            state.unknown_table = Some(table);
        }
    }

    /// Applies one input. `now_ms` is the wall clock.
    pub fn apply(&mut self, input: Input, now_ms: WallMs) -> Effects {
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

    fn on_status(&mut self, status: &RouterStatus, now_ms: WallMs, effects: &mut Effects) {
        effects.routers_changed = true;
        if status.leaving {
            self.forget(&status.router, effects);
            return;
        }
        let before = self.routers.get(&status.router).cloned().unwrap_or_default();
        let seen = RouterSeen::of(status, now_ms);
        if before.configured != seen.configured {
            effects.configured_changed.insert(status.router.clone());
        }
        if !self.routers.contains_key(&status.router) && self.routers.len() >= routers::MOST {
            let oldest = self.routers.iter().min_by_key(|(_, router)| router.seen_ms).map(|(name, _)| name.clone());
            if let Some(name) = oldest {
                self.forget(&name, effects);
            }
        }
        self.report_changes(&status.router, &before, &seen, now_ms, effects);
        self.routers.insert(status.router.clone(), seen);
        let mut turn = Turn::new(self.settings, &self.routers, &self.freezes, now_ms, effects);
        for table in &status.applied {
            if let Some(state) = self.models.get_mut(&table.model) {
                state.on_applied(table, &mut turn);
            }
        }
    }

    fn forget(&mut self, router: &str, effects: &mut Effects) {
        if self.routers.remove(router).is_some_and(|router| router.configured.is_some()) {
            effects.configured_changed.insert(router.to_owned());
        }
    }

    /// Reports at once that a router cannot use a table or has stopped calling a version, and when that is over.
    fn report_changes(
        &mut self,
        router: &str,
        before: &RouterSeen,
        now: &RouterSeen,
        now_ms: WallMs,
        effects: &mut Effects,
    ) {
        let started =
            now.shed.iter().filter(|(model, shed)| before.shed.get(*model).is_none_or(|old| old.since != shed.since));
        let started = started.map(|(model, shed)| {
            let version = shed.version.in_words();
            (model, format!("router {router} has stopped calling {version} for a while: {}", shed.cause))
        });
        let over = before.shed.iter().filter(|(model, _)| !now.shed.contains_key(*model));
        let over =
            over.map(|(model, shed)| (model, format!("router {router} calls {} again", shed.version.in_words())));
        let refused = now.refused.iter().filter(|(model, table)| before.refused.get(*model) != Some(table));
        let refused = refused.map(|(model, table)| {
            let which = match table.generation {
                Generation(0) => "the newest table".to_owned(),
                generation => format!("the table of generation {generation}"),
            };
            let in_use = match now.applied.get(model) {
                // A table that cannot be read does not revoke the one before.
                Some(older) if table.generation == Generation(0) => {
                    format!("the router keeps using generation {older}")
                }
                Some(older) => format!("the router keeps using generation {older}, without a canary"),
                None => "the router has no earlier table".to_owned(),
            };
            (model, format!("router {router} cannot use {which}: {}; {in_use}", table.reason))
        });
        let usable = before.refused.keys().filter(|model| !now.refused.contains_key(*model));
        let usable = usable.map(|model| (model, format!("router {router} can use the newest table again")));
        for (model, sentence) in started.chain(over).chain(refused).chain(usable) {
            let Some(state) = self.models.get_mut(model) else { continue };
            let turn = Turn::new(self.settings, &self.routers, &self.freezes, now_ms, effects);
            state.warn(sentence, &mut Turn { actor: router.to_owned(), ..turn });
        }
    }

    fn on_verdict(&mut self, verdict: &Verdict, now_ms: WallMs, effects: &mut Effects) {
        let Some(state) = self.models.get_mut(&verdict.model) else { return };
        let turn = Turn::new(self.settings, &self.routers, &self.freezes, now_ms, effects);
        let (actor, cause) = ("analyzer".to_owned(), Some(verdict.id.clone()));
        state.on_verdict(verdict, &mut Turn { actor, cause, ..turn });
    }

    fn on_tick(&mut self, now_ms: WallMs, effects: &mut Effects) {
        // A router that has been gone for long is forgotten, so that the map stays bounded.
        let keep = self.settings.router_ms.saturating_mul(10);
        let gone = self.routers.iter().filter(|(_, router)| now_ms.since(router.seen_ms) > keep);
        let gone: Vec<String> = gone.map(|(name, _)| name.clone()).collect();
        effects.routers_changed = !gone.is_empty();
        for name in &gone {
            self.forget(name, effects);
        }
        self.end_freezes(now_ms, effects);
        let mut turn = Turn::new(self.settings, &self.routers, &self.freezes, now_ms, effects);
        for state in self.models.values_mut() {
            state.on_tick(&mut turn);
        }
    }
}

/// What the handling of one input needs in addition to the state.
struct Turn<'a> {
    now_ms: WallMs,
    settings: Settings,
    routers: &'a BTreeMap<String, RouterSeen>,
    freezes: &'a BTreeMap<String, Freeze>,
    effects: &'a mut Effects,
    actor: String,
    cause: Option<String>,
    /// The wall-clock time at which a person asked for it.
    asked_at: Option<EventTime>,
}

impl<'a> Turn<'a> {
    /// A turn of the controller itself, without a cause.
    fn new(
        settings: Settings,
        routers: &'a BTreeMap<String, RouterSeen>,
        freezes: &'a BTreeMap<String, Freeze>,
        now_ms: WallMs,
        effects: &'a mut Effects,
    ) -> Self {
        let actor = "controller".to_owned();
        Self { now_ms, settings, routers, freezes, effects, actor, cause: None, asked_at: None }
    }
}

impl Turn<'_> {
    /// The freeze of a model, if there is one.
    fn freeze_of(&self, model: &ModelName) -> Option<&Freeze> {
        self.freezes.values().find(|freeze| pattern::matches(&freeze.models, model.as_str()))
    }

    /// Routers that have reported recently.
    fn live(&self) -> impl Iterator<Item = (&String, &RouterSeen)> {
        self.routers.iter().filter(|(_, router)| self.now_ms.since(router.seen_ms) <= self.settings.router_ms)
    }

    /// What the configurations of live routers contain about a model's versions.
    fn configured<'b>(&'b self, model: &'b ModelName) -> impl Iterator<Item = (&'b str, &'b Configured)> {
        self.live().flat_map(move |(name, router)| router.configured(model).map(move |known| (name.as_str(), known)))
    }

    /// Why this generation of a model's table is not known to be in use, as a clause. `None` if it is in use, or if no router reports on
    /// the model. With external traffic only actuators count: a router that only forwards reports has no addresses.
    fn unapplied(&self, model: &ModelName, generation: Generation, traffic: TrafficSource) -> Option<String> {
        let counts = move |name: &str| traffic == TrafficSource::Router || name.starts_with(ACTUATOR);
        let live = || self.live().map(|(name, router)| (name.as_str(), router)).filter(move |(name, _)| counts(name));
        let known = live().any(|(_, router)| router.applied.contains_key(model) || router.refused.contains_key(model));
        let applied = applied(model, generation, live().collect::<Vec<_>>().into_iter());
        (known && !applied.done).then_some(applied.waits_for)
    }

    /// The routers' clock: the earliest of the live ones.
    fn router_clock(&self) -> Option<EventTime> {
        self.live().map(|(_, router)| router.at).min()
    }
}
