//! Whether calls follow a decision: a table counts once routers use it.

use std::time::Instant;

use serin_rollout::{RolloutState, planner::Applied};
use serin_schemas::{
    ids::Generation,
    records::{Action, RolloutEvent},
};
use serin_spec::{Mode, TrafficSource};

use super::state::ApiState;
use crate::view::{Live, Reporters, View};

/// Whether an action is done only when routers use its table. A pause, a resume, a freeze or a mark moves no calls.
pub(super) fn moves_calls(action: Action) -> bool {
    !matches!(action, Action::Pause | Action::Resume | Action::Freeze | Action::Unfreeze | Action::Mark)
}

impl ApiState {
    /// Which routers use a generation of a rollout's table; `None` while the rollout waits for another one.
    pub(super) fn applied(&self, view: &View, rollout: &RolloutState, generation: Generation) -> Option<Applied> {
        if generation == Generation(0) {
            return None;
        }
        let not = |waits_for: String| Applied { generation, waits_for, ..Applied::default() };
        if rollout.spec.mode == Mode::Observe {
            return Some(not("the rollout is only observed (mode: observe), so no calls move".to_owned()));
        }
        let external = rollout.spec.traffic == TrafficSource::External;
        let reporters = if external { Reporters::Actuators } else { Reporters::Routers };
        let ttl_ms = self.config().settings().router_ms;
        let live = Live { now_ms: self.now_ms(), ttl_ms };
        let applied = view.applied(&rollout.spec.model, generation, reporters, live);
        if external && applied.routers.is_empty() && !applied.refused {
            return Some(not(format!(
                "calls are split elsewhere (traffic: external), and no actuator reports that it has applied generation {generation}"
            )));
        }
        Some(applied)
    }

    /// The same after an action: waits until the table is in use, or cannot be soon, and at most until `deadline`.
    pub(super) async fn applied_by(&self, event: &RolloutEvent, deadline: Instant) -> Option<Applied> {
        let id = event.rollout.as_ref()?;
        let of = |view: &View| {
            // An observed rollout has no table.
            let state = view.rollout(id.as_str())?.state.clone().filter(|state| state.spec.mode == Mode::Act)?;
            self.applied(view, &state, event.generation.min(state.generation))
        };
        let settled = |view: &View| of(view).is_none_or(|applied| applied.done || !applied.soon);
        let view = self.wait_until(deadline.saturating_duration_since(Instant::now()), settled).await;
        of(&view)
    }
}
