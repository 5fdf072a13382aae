//! A new attempt of a rollout that has ended.
//!
//! Invariant: how the attempt before ended stays in the state and in the first sentence of the new one.

use std::fmt;

use serin_schemas::{ids::EventTime, records::Command};

use super::{ModelState, Outcome, Queued, Retry, RolloutState, StepIndex, Turn, command::Refusal};

impl ModelState {
    /// Starts an ended rollout again, with the spec of the command.
    pub(super) fn on_retry(&mut self, command: &Command, now: EventTime, turn: &mut Turn<'_>) -> Result<(), Refusal> {
        let of = command.retries.clone().ok_or("the command names no rollout to retry")?;
        let has_not_ended = self.active.as_ref().is_some_and(|active| active.id == of)
            || self.queue.iter().any(|queued| queued.id == of);
        if has_not_ended {
            return Err(format!("rollout {of} has not ended; abort it first"));
        }
        let ended = self.ended.iter().find(|ended| ended.id == of);
        let ended = ended.ok_or_else(|| format!("rollout {of} is not one of the last that ended; apply its file"))?;
        if ended.ending.outcome == Outcome::Promoted {
            return Err(format!("rollout {of} was promoted; to go back to the version before, use undo"));
        }
        let on_evidence = ended.ending.outcome == Outcome::Evidence;
        if on_evidence && command.reason.is_empty() {
            return Err(format!(
                "the evidence ended rollout {of}: {}; give a reason why another attempt may end differently",
                ended.ending.sentence
            ));
        }
        let retry = Retry {
            of,
            attempt: ended.attempt.saturating_add(1),
            ended: ended.ending.sentence.clone(),
            on_evidence,
            reason: command.reason.clone(),
            from_step: command.from_step.and_then(StepIndex::of_number),
        };
        let spec = self.read_spec(command)?;
        if let Some(step) = retry.from_step.filter(|step| step.0 >= spec.steps.len()) {
            return Err(format!("there is no step {}; the rollout has {}", step.0 + 1, spec.steps.len()));
        }
        let id = command.rollout.clone().ok_or("the command has no rollout id")?;
        self.accept(Queued { id, spec, actor: command.actor.clone(), retry: Some(retry) }, now, turn)
    }
}

impl RolloutState {
    /// The index of the step that follows warm-up.
    pub(super) fn first_step(&self) -> usize {
        let from = self.retry.as_ref().and_then(|retry| retry.from_step);
        from.map_or(0, |step| step.0.min(self.spec.steps.len().saturating_sub(1)))
    }
}

/// The attempt before, as a clause.
impl fmt::Display for Retry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "; attempt {} after rollout {}", self.attempt, self.of)?;
        if let Some(step) = self.from_step.filter(|step| step.0 > 0) {
            write!(f, ", from step {}", step.0 + 1)?;
        }
        if !self.reason.is_empty() {
            write!(f, " ({})", self.reason)?;
        }
        write!(f, ", which ended: {}", self.ended)
    }
}
