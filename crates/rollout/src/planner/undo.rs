//! The way back from a promotion: the version that served before serves again, without steps.
//!
//! Invariant: an undo never starts a rollout, and it is refused when the previous version is not known to be reachable.

use serin_schemas::{
    ids::EventTime,
    records::{Command, EventKind, Phase},
};

use super::{
    Ending, ModelState, Outcome, Turn, Unconfirmed,
    command::{Refusal, stopped},
    serving::unreachable,
};

impl ModelState {
    /// Ends the active rollout or, without one, goes back to the version that served before the last promotion.
    pub(super) fn on_undo(&mut self, command: &Command, now: EventTime, turn: &mut Turn<'_>) -> Result<(), Refusal> {
        let meant = command.rollout.as_ref();
        if let Some(mut rollout) = self.active.take() {
            if let Some(meant) = meant.filter(|meant| **meant != rollout.id) {
                let why =
                    format!("rollout {} of {} has not ended; undo or abort it before {meant}", rollout.id, self.model);
                self.active = Some(rollout);
                return Err(why);
            }
            let sentence = stopped("undone", command);
            self.end(&mut rollout, Phase::Aborted, Outcome::Aborted, Vec::new(), sentence, now, turn);
            self.settle(rollout, turn);
            return Ok(());
        }
        let Some(mut rollout) = self.previous.take() else {
            return Err(format!(
                "no promotion of {} can be undone; to go back to an earlier version, apply a file with it as canary",
                self.model
            ));
        };
        if let Err(why) = self.may_be_undone(&rollout, command, turn) {
            self.previous = Some(rollout);
            return Err(why);
        }
        let (back, from) = (rollout.spec.stable.clone(), rollout.spec.canary.version.clone());
        let sentence = format!("{}: {} serves again", stopped("undone", command), back.version.in_words());
        let actor = turn.actor.clone();
        let ending =
            Ending { outcome: Outcome::Aborted, reasons: Vec::new(), sentence: sentence.clone(), at: now, actor };
        if let Some(ended) = self.ended.iter_mut().find(|ended| ended.id == rollout.id) {
            ended.ending = ending.clone();
        }
        rollout.phase = Phase::Aborted;
        rollout.ending = Some(ending);
        rollout.undo_until = None;
        rollout.canary_share = serin_spec::Share::default();
        self.serving = Some(back);
        // The folds have forgotten the rollout, so only routers need to know.
        self.write_table(&mut rollout, sentence.clone(), now, turn);
        self.emit(Some(&rollout), EventKind::Aborted, sentence, now, turn);
        self.unconfirmed = Some(Unconfirmed::of(&rollout, &from, turn.now_ms));
        Ok(())
    }

    fn may_be_undone(&self, rollout: &super::RolloutState, command: &Command, turn: &Turn<'_>) -> Result<(), Refusal> {
        if let Some(meant) = command.rollout.as_ref().filter(|meant| **meant != rollout.id) {
            return Err(format!(
                "rollout {meant} is not the last promotion of {}, which is {}",
                self.model, rollout.id
            ));
        }
        let back = &rollout.spec.stable.version;
        if rollout.undo_until.is_none_or(|until| until <= turn.now_ms) {
            return Err(format!(
                "{} was kept for {} after the promotion (promotion.keepPrevious), and that time is over; to go back to it, apply a \
                 file with it as canary",
                back.in_words(),
                rollout.spec.promotion.keeps_previous()
            ));
        }
        unreachable(&rollout.spec, &rollout.spec.stable, turn).map_or(Ok(()), Err)
    }
}
