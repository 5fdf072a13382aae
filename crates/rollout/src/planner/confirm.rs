//! The confirmation of a rollback: every router has reported that it uses the table without the canary.
//!
//! Invariant: a rollback is not confirmed while a router may still send calls to the canary: one that reports an older table, or one that
//! stopped reporting less than a lease ago.

use serin_schemas::{
    ids::{Generation, ModelName, Span, Version},
    records::{EventKind, TableApplied},
};

use super::{ACTUATOR, ModelState, RolloutState, Turn, Unconfirmed, WallMs, applied};
use serin_spec::{TrafficSource, units::Duration};

/// Maximum number of routers that a sentence lists.
const LISTED: usize = 5;

impl Unconfirmed {
    /// The end of a rollout, whose `version` gets no more calls from its newest table on.
    pub(super) fn of(rollout: &RolloutState, version: &Version, now_ms: WallMs) -> Self {
        Self {
            rollout: rollout.id.clone(),
            version: version.clone(),
            phase: rollout.phase,
            step: rollout.step,
            traffic: rollout.spec.traffic,
            generation: rollout.generation,
            decided_ms: now_ms,
            slowest_us: None,
        }
    }
}

impl ModelState {
    /// Handles the report of a table that a router uses.
    pub(super) fn on_applied(&mut self, table: &TableApplied, turn: &mut Turn<'_>) {
        let Some(waiting) = &mut self.unconfirmed else { return };
        if table.generation == waiting.generation && table.apply_us >= 0 {
            waiting.slowest_us = waiting.slowest_us.max(Some(table.apply_us));
            turn.effects.changed.insert(self.model.clone());
        }
        self.confirm(turn);
    }

    /// Reports a rollback that every router has applied.
    pub(super) fn confirm(&mut self, turn: &mut Turn<'_>) {
        let Some(waiting) = &self.unconfirmed else { return };
        let Some(routers) = turn.without_canary(&self.model, waiting) else { return };
        let Some(waiting) = self.unconfirmed.take() else { return };
        let more = routers.len().saturating_sub(LISTED);
        let rest = if more > 0 { format!(" and {more} more") } else { String::new() };
        let names = routers.iter().take(LISTED).map(String::as_str).collect::<Vec<_>>().join(", ");
        let took = waiting.slowest_us.map_or_else(String::new, |us| {
            // A span has no smaller unit.
            let span = Duration(Span((us + 999) / 1000 * 1000));
            format!("; the slowest of them used the table {span} after it was on the log")
        });
        let version = waiting.version.in_words();
        let sentence = format!("rollback confirmed: no calls go to {version} at {names}{rest}{took}");
        turn.effects.confirmed.extend(waiting.slowest_us.map(Span));
        let now = self.now(turn, None);
        self.emit(None, EventKind::Confirmed, sentence, now, turn);
        if let Some(event) = turn.effects.events.last_mut() {
            event.rollout = Some(waiting.rollout);
            event.phase = waiting.phase;
            event.step = super::StepIndex::number(waiting.step);
        }
    }
}

impl Turn<'_> {
    /// The routers that use the table without the canary; `None` while another one may still use an older table.
    fn without_canary(&self, model: &ModelName, waiting: &Unconfirmed) -> Option<Vec<String>> {
        let counts = |name: &str| waiting.traffic == TrafficSource::Router || name.starts_with(ACTUATOR);
        let live = self.live().map(|(name, router)| (name.as_str(), router)).filter(|(name, _)| counts(name));
        let applied = applied(model, waiting.generation, live);
        if !applied.done {
            return None;
        }
        // The lease of the table before ends at a router that is cut off, and the router then sends all calls to stable.
        let is_older = |generation: &Generation| *generation < waiting.generation;
        let leased = self.now_ms.since(waiting.decided_ms) <= self.settings.lease_ms;
        let silent =
            self.routers.iter().any(|(name, router)| counts(name) && router.applied.get(model).is_some_and(is_older));
        (!(silent && leased)).then_some(applied.routers)
    }
}
