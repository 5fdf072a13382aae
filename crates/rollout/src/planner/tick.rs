//! What happens as wall-clock time passes: leases are renewed, and missing verdicts are noticed.

use serin_schemas::records::{Arm, EventKind, Phase, RoutingTable};

use super::{HoldCause, ModelState, Outcome, RolloutState, Turn, state::Lease};
use serin_spec::{Policy, RolloutSpec, Rules, Share};

impl ModelState {
    pub(super) fn on_tick(&mut self, turn: &mut Turn<'_>) {
        self.confirm(turn);
        let Some(mut rollout) = self.active.take() else {
            if let Some(table) = self.unknown_table.take() {
                self.back_to_stable(table, turn);
            }
            return;
        };
        if self.unknown_table.is_some() {
            let now = self.now(turn, None);
            let sentence = format!("{}; written again: the log had a newer table than the state", rollout.sentence);
            self.transition(&mut rollout, EventKind::Warned, sentence, now, turn);
        }
        if !rollout.rules.is_known() {
            let (now, own) = (self.now(turn, None), Rules::CURRENT);
            let why = format!("it started under rules {}, and this Serin continues under rules {own}", rollout.rules);
            self.start_over(&mut rollout, own, &why, now, turn);
        }
        let limit = stale_limit_ms(turn.settings.stale_ms, &rollout.spec);
        let silent_ms = turn.now_ms.since(rollout.verdict_ms);
        let stale = silent_ms > limit;
        if stale {
            self.on_stale(&mut rollout, silent_ms, turn);
            self.repeat_control(&mut rollout, limit, turn);
        }
        let renewable = !stale || matches!(rollout.spec.no_data.stale, Policy::Warn | Policy::Proceed);
        let due = turn.now_ms.since(self.lease.renewed_ms) >= turn.settings.renew_ms;
        if rollout.is_leased() && renewable && due {
            self.renew(&rollout, turn);
        }
        self.settle(rollout, turn);
    }

    fn renew(&mut self, rollout: &RolloutState, turn: &mut Turn<'_>) {
        let length_ms = turn.settings.lease_ms;
        self.lease = Lease { seq: self.lease.seq.saturating_add(1), renewed_ms: turn.now_ms, length_ms };
        let now = self.now(turn, None);
        turn.effects.tables.push(self.table(rollout, now));
        turn.effects.changed.insert(self.model.clone());
    }

    /// Writes the Control record again while no verdict arrives, because an aggregator or analyzer that could not read the record, or
    /// lost its state, does not know the rollout. Services that know the rollout recognize the repetition.
    fn repeat_control(&self, rollout: &mut RolloutState, every_ms: i64, turn: &mut Turn<'_>) {
        if !rollout.phase.is_final() && turn.now_ms.since(rollout.control_ms) > every_ms {
            let now = self.now(turn, None);
            self.write_control(rollout, now, turn);
        }
    }

    fn on_stale(&mut self, rollout: &mut RolloutState, silent_ms: i64, turn: &mut Turn<'_>) {
        if rollout.stale_reported {
            return;
        }
        rollout.stale_reported = true;
        turn.effects.changed.insert(self.model.clone());
        let now = self.now(turn, None);
        let sentence = format!("no verdict for {} s: check that the aggregator and the analyzer run", silent_ms / 1000);
        let policy = rollout.spec.no_data.stale;
        match (rollout.phase, policy) {
            (Phase::Baking | Phase::Shadowing, Policy::Hold) if rollout.acts() => {
                self.hold(rollout, HoldCause::Stale, sentence, now, turn);
            }
            (Phase::Baking | Phase::Shadowing | Phase::Held | Phase::Promoted, Policy::Rollback) if rollout.acts() => {
                self.end(rollout, Phase::RolledBack, Outcome::NoData, Vec::new(), sentence, now, turn);
            }
            // The last verdict has already reported why no other one arrives.
            _ if rollout.refused.is_some() => {}
            _ => self.emit(Some(rollout), EventKind::Warned, sentence, now, turn),
        }
    }

    /// Sends all calls to stable after the state was lost with a canary in the table, because nothing watches that canary.
    fn back_to_stable(&mut self, mut table: RoutingTable, turn: &mut Turn<'_>) {
        let now = self.now(turn, Some(table.decided_at));
        self.generation.0 = self.generation.0.saturating_add(1);
        self.lease = Lease { seq: 0, renewed_ms: turn.now_ms, length_ms: 0 };
        table.generation = self.generation;
        table.lease_seq = 0;
        table.lease_ms = 0;
        table.rollout = None;
        table.decided_at = now;
        "the controller has lost this rollout's state: all calls go to stable".clone_into(&mut table.reason);
        table.routes.retain(|route| route.arm == Arm::Stable);
        for route in &mut table.routes {
            route.share = Share::ALL.0;
        }
        let sentence = table.reason.clone();
        turn.effects.tables.push(table);
        self.emit(None, EventKind::Warned, sentence, now, turn);
    }
}

/// How long verdicts may be missing, in milliseconds: `stale_ms`, or three windows and the grace if that is longer, because verdicts
/// cannot arrive more often than windows close.
pub fn stale_limit_ms(stale_ms: i64, spec: &RolloutSpec) -> i64 {
    stale_ms.max(spec.window.0.0.saturating_mul(3).saturating_add(spec.grace.0.0) / 1000)
}
