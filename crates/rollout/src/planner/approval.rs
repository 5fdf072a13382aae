//! Steps that need an approval: how it is asked for, given and refused.
//!
//! Invariant: a rollback never waits for an approval. An approved step still waits for the end of a freeze.

use serin_schemas::{
    ids::EventTime,
    records::{Command, Decision, EventKind, Phase, Verdict},
};

use super::{
    HoldCause, ModelState, Outcome, RolloutState, Turn,
    command::{Refusal, stopped, word},
    verdict::without_order,
};

impl ModelState {
    /// Takes the step that a verdict allows, unless it needs an approval or the model is frozen.
    pub(super) fn take_step(&mut self, rollout: &mut RolloutState, verdict: &Verdict, turn: &mut Turn<'_>) {
        let now = verdict.as_of;
        if rollout.approval().is_some() && rollout.approved.is_none() {
            self.ask(rollout, &verdict.sentence, now, turn);
        } else if rollout.freeze.is_none() {
            let approved = rollout
                .approved
                .as_ref()
                .map_or_else(String::new, |approved| format!(", {approved}{}", although(verdict.decision)));
            self.advance(rollout, &format!("{approved}: {}", without_order(&verdict.sentence)), now, turn);
        }
    }

    /// Asks for the approval of the current step.
    pub(super) fn ask(&mut self, rollout: &mut RolloutState, why: &str, now: EventTime, turn: &mut Turn<'_>) {
        self.hold(rollout, HoldCause::Approval, format!("waits for an approval: {why}"), now, turn);
    }

    /// Takes the step that waits for an approval.
    pub(super) fn on_approve(
        &mut self,
        rollout: &mut RolloutState,
        command: &Command,
        now: EventTime,
        turn: &mut Turn<'_>,
    ) -> Result<(), Refusal> {
        waits_for_approval(rollout)?;
        if rollout.stale_reported {
            return Err(
                "no verdicts arrive, so the step that was asked about is not known to be sound any more: check that \
                        the aggregator and the analyzer are running, then approve it"
                    .to_owned(),
            );
        }
        let approved = stopped("approved", command);
        if let Some(freeze) = &rollout.freeze {
            let sentence = format!("{approved}; the step is taken when {} ends", freeze.in_words());
            rollout.approved = Some(approved);
            self.transition(rollout, EventKind::Resumed, sentence, now, turn);
        } else {
            let although = rollout.verdict.as_ref().map_or("", |verdict| although(verdict.decision));
            self.advance(rollout, &format!(", {approved}{although}"), now, turn);
        }
        Ok(())
    }

    /// Ends the rollout that waits for an approval.
    pub(super) fn on_reject(
        &mut self,
        rollout: &mut RolloutState,
        command: &Command,
        now: EventTime,
        turn: &mut Turn<'_>,
    ) -> Result<(), Refusal> {
        waits_for_approval(rollout)?;
        let sentence = stopped("rejected", command);
        self.end(rollout, Phase::Aborted, Outcome::Aborted, Vec::new(), sentence, now, turn);
        Ok(())
    }
}

/// Names that a step is taken without all of its evidence, as the newest verdict has it when the step is taken.
fn although(decision: Decision) -> &'static str {
    if decision == Decision::Promote { "" } else { ", although not every check has passed" }
}

fn waits_for_approval(rollout: &RolloutState) -> Result<(), Refusal> {
    match (&rollout.hold, &rollout.pause) {
        (Some(hold), None) if hold.cause == HoldCause::Approval => Ok(()),
        (_, Some(pause)) => Err(format!("the rollout is paused by {}; resume it first", pause.by)),
        _ => Err(format!(
            "the rollout is {} and waits for no approval; to take the next step without evidence, use promote; to end it, \
             use abort",
            word(rollout.phase)
        )),
    }
}
