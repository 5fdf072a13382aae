//! How an ended rollout is judged afterwards, by a person who knows more than the rollout did.
//!
//! Invariant: a mark is an event only. It changes neither the state of a rollout nor the traffic.

use serin_schemas::{
    ids::EventTime,
    records::{Command, EventKind, Phase},
};

use super::{
    ModelState, Outcome, Turn,
    command::{Refusal, stopped},
};

impl ModelState {
    /// Records whether the version of an ended rollout was good.
    pub(super) fn on_mark(&mut self, command: &Command, now: EventTime, turn: &mut Turn<'_>) -> Result<(), Refusal> {
        let was_good = command.was_good.ok_or("the command does not say whether the version was good")?;
        let of = command.rollout.clone().ok_or("the command names no rollout to mark")?;
        let has_not_ended = self.active.as_ref().is_some_and(|active| active.id == of)
            || self.queue.iter().any(|queued| queued.id == of);
        if has_not_ended {
            return Err(format!("rollout {of} has not ended; mark it when it has"));
        }
        let ended = self.ended.iter().find(|ended| ended.id == of);
        let ended = ended.ok_or_else(|| {
            format!(
                "rollout {of} is not one of the last {} rollouts of {} that ended",
                super::turn::ENDED_KEPT,
                self.model
            )
        })?;
        if command.reason.is_empty() {
            return Err("a mark needs a reason".to_owned());
        }
        let phase = match ended.ending.outcome {
            Outcome::Promoted => Phase::Completed,
            Outcome::Evidence | Outcome::NoData | Outcome::Inconclusive => Phase::RolledBack,
            Outcome::Aborted => Phase::Aborted,
            Outcome::Superseded => Phase::Superseded,
        };
        let sentence = stopped(if was_good { "marked as good" } else { "marked as bad" }, command);
        self.emit(None, EventKind::Marked, sentence, now, turn);
        if let Some(event) = turn.effects.events.last_mut() {
            (event.rollout, event.phase, event.was_good) = (Some(of), phase, Some(was_good));
        }
        Ok(())
    }
}
