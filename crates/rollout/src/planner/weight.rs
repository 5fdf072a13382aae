//! A weight that a person sets: it becomes a step of its own, so that its evidence starts over.
//!
//! Invariant: a weight set by hand never makes a check count as passed. Its step requires what the planned step at or below that weight
//! requires, and the last step requires what the last planned step requires.

use serin_schemas::{ids::EventTime, records::Command};

use super::{
    ByHand, ModelState, RolloutState, Turn,
    command::{Refusal, moves_weights, stopped},
};
use serin_spec::{Share, Step};

/// Maximum number of steps of a rollout. Each weight set by hand adds one.
const STEPS_MAX: usize = 100;

impl RolloutState {
    /// The weights that a person set, as a clause; empty if there are none.
    pub(super) fn set_by_hand(&self) -> String {
        self.by_hand
            .as_ref()
            .map_or_else(String::new, |by_hand| format!("; set by hand: {}", by_hand.weights.join(", ")))
    }
}

impl ModelState {
    /// Gives the canary another weight, in a new step. Heavier steps of the file follow it.
    pub(super) fn on_set_weight(
        &mut self,
        rollout: &mut RolloutState,
        command: &Command,
        now: EventTime,
        turn: &mut Turn<'_>,
    ) -> Result<(), Refusal> {
        moves_weights(rollout)?;
        let weight = Share(command.weight.ok_or("the command has no weight")?);
        let Some(step) = rollout.step.filter(|_| !rollout.promoted) else {
            return Err(if rollout.promoted {
                "the rollout is promoted and monitored; to go back, use undo".to_owned()
            } else {
                "the rollout is still warming up, so the canary has no weight yet; wait for the first step".to_owned()
            });
        };
        if let Some(pause) = &rollout.pause {
            return Err(format!("the rollout is paused by {}; resume it first", pause.by));
        }
        if command.reason.is_empty() {
            return Err("a weight that is set by hand needs a reason".to_owned());
        }
        if !(1..Share::ALL.0).contains(&weight.0) {
            return Err(format!(
                "{weight} is not a weight of a step; to end the rollout use abort, to give the canary all calls promote with `full`"
            ));
        }
        let planned = rollout.by_hand.as_ref().map_or(&rollout.spec.steps, |by_hand| &by_hand.planned).clone();
        let most = planned.iter().map(|step| step.weight).max().unwrap_or_default();
        if weight > most && !command.force {
            return Err(format!(
                "the steps of the file go up to {most}, not {weight}; use at most {most}, or force it"
            ));
        }
        if let Some(freeze) = rollout.freeze.as_ref().filter(|_| weight > rollout.canary_share) {
            return Err(format!("{} allows no larger weight; a smaller one is possible", freeze.in_words()));
        }
        if rollout.stale_reported && weight > rollout.canary_share {
            return Err("no verdicts arrive, so a larger weight is not known to be safe: check that the aggregator and the analyzer are \
                        running; a smaller weight is possible"
                .to_owned());
        }
        if weight == rollout.canary_share {
            return Err(format!("the canary already has a weight of {weight}"));
        }
        let next = step.0 + 1;
        let mut steps: Vec<Step> = rollout.spec.steps.iter().take(next).cloned().collect();
        let is_weight = |step: &&Step| step.mirror.is_none();
        let like = planned.iter().rev().filter(is_weight).find(|step| step.weight <= weight);
        let like = like.or_else(|| planned.iter().find(is_weight)).or_else(|| planned.last());
        let like = like.ok_or("the rollout has no steps")?;
        let share = rollout.canary_share;
        let mut between =
            planned.iter().filter(is_weight).filter(|step| step.weight > share && step.weight < like.weight);
        let current = rollout.approval().is_some() && like.weight > share;
        if (current || between.any(|step| step.approve.is_some())) && weight > share && !command.force {
            return Err(format!(
                "{weight} would skip an approval that the file asks for; approve that step when it waits, set a smaller weight, or force it"
            ));
        }
        steps.push(Step { weight, mirror: None, ..like.clone() });
        steps.extend(planned.iter().filter(is_weight).filter(|step| step.weight > weight).cloned());
        if steps.len() > STEPS_MAX {
            return Err(format!("the rollout already has {next} steps, and {STEPS_MAX} are allowed"));
        }
        rollout.spec.steps = steps;
        let by_hand = rollout.by_hand.get_or_insert_with(|| ByHand { planned, weights: Vec::new() });
        by_hand.weights.push(format!("{weight} in step {} by {}", next + 1, command.actor));
        self.bake(rollout, next, &format!(", {}", stopped("set", command)), now, turn);
        Ok(())
    }
}
