//! What a verdict does to a held rollout, and how a hold ends.
//!
//! Invariant: what [`RolloutState::after_hold`] returns is what happens, so that screens and the planner agree.

use serin_schemas::records::{Decision, EventKind, MetricResult, MetricVerdict, Phase, Reason, Role, Verdict};

use super::{
    HoldCause, ModelState, Outcome, RolloutState, Turn,
    verdict::{missing_for_promotion, why_held},
};
use serin_spec::{OnInconclusive, Otherwise};

/// What happens to a held rollout if the verdicts do not change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AfterHold {
    /// Nothing until verdicts arrive again. Then the rollout resumes by itself, or is held for what they report.
    Verdicts,
    /// After `holdMax` the rollout is rolled back on a finding.
    Finding,
    /// After `holdMax`, or after the time for an approval, the rollout is rolled back, without a finding.
    RolledBack,
    /// After `holdMax` the next step is taken.
    Promoted,
    /// After `holdMax`, or after the time for an approval, an event asks once for a decision by a person.
    Asked,
}

impl RolloutState {
    /// What happens to the rollout if the next verdicts equal this one; `None` if it is not held.
    pub fn after_hold(&self, verdict: &Verdict) -> Option<AfterHold> {
        let hold = self.hold.as_ref()?;
        Some(match (hold.cause, self.spec.decision.on_inconclusive) {
            (HoldCause::Stale, _) => AfterHold::Verdicts,
            (HoldCause::Approval, _) => match self.approval().map(|approval| approval.otherwise) {
                Some(Otherwise::Rollback) => AfterHold::RolledBack,
                Some(Otherwise::Hold) | None => AfterHold::Asked,
            },
            _ if !findings(verdict).is_empty() => AfterHold::Finding,
            (_, OnInconclusive::Rollback) => AfterHold::RolledBack,
            // Without sound evidence nothing is promoted.
            (HoldCause::Marginal, OnInconclusive::Promote) if verdict.decision != Decision::Hold => AfterHold::Promoted,
            (_, OnInconclusive::Promote | OnInconclusive::Hold) => AfterHold::Asked,
        })
    }
}

/// The evidence against the canary, worst first. A verdict that continues lists what is open as its reasons; those are not findings.
fn findings(verdict: &Verdict) -> Vec<Reason> {
    if verdict.decision == Decision::Hold && !verdict.reasons.is_empty() {
        return verdict.reasons.clone();
    }
    let failed = verdict.metrics.iter().filter(|metric| metric.result == MetricResult::Fail);
    let reason = |metric: &MetricVerdict| Reason {
        metric: metric.metric.clone(),
        segment: metric.segment.clone(),
        sentence: metric.sentence.clone(),
    };
    failed.filter(|metric| metric.role != Role::Watch).map(reason).collect()
}

impl ModelState {
    pub(super) fn judge_held(&mut self, rollout: &mut RolloutState, verdict: &Verdict, turn: &mut Turn<'_>) {
        let now = verdict.as_of;
        let Some(cause) = rollout.hold.as_ref().map(|hold| hold.cause) else { return };
        match (cause, verdict.decision) {
            (HoldCause::Marginal, Decision::Promote)
                if missing_for_promotion(rollout, verdict, now, turn).is_none() =>
            {
                self.take_step(rollout, verdict, turn);
            }
            (HoldCause::Stale | HoldCause::Approval, Decision::Hold) => {
                let sentence = why_held(rollout, verdict, turn);
                self.hold(rollout, HoldCause::Health, sentence, now, turn);
            }
            // It was approved during a freeze.
            (HoldCause::Approval, _) if rollout.approved.is_some() => self.take_step(rollout, verdict, turn),
            (HoldCause::Stale, _) => self.resume_step(rollout, "verdicts arrive again".to_owned(), now, turn),
            (HoldCause::Health, decision) if decision != Decision::Hold => {
                self.resume_step(rollout, "the evidence is sound again".to_owned(), now, turn);
            }
            (HoldCause::Health | HoldCause::Marginal | HoldCause::Approval, _) => self.wait(rollout, verdict, turn),
        }
    }

    /// After `hold_max`, does what `on_inconclusive` says; with a finding, rolls back on that finding.
    fn wait(&mut self, rollout: &mut RolloutState, verdict: &Verdict, turn: &mut Turn<'_>) {
        let (now, hold_max) = (verdict.as_of, rollout.hold_limit());
        let after = rollout.after_hold(verdict);
        let needs_approval = rollout.approval().is_some();
        let unapproved = rollout.hold.as_ref().is_some_and(|hold| hold.cause == HoldCause::Approval);
        let Some(hold) = rollout.hold.as_mut().filter(|hold| now.since(hold.since) >= hold_max.0) else { return };
        match after {
            Some(AfterHold::Finding) => self.end_on_finding(rollout, verdict, &format!("held for {hold_max}"), turn),
            Some(AfterHold::RolledBack) => {
                let why = if unapproved { "not approved within" } else { "inconclusive after a hold of" };
                let sentence = format!(
                    "{why} {hold_max}: back to {}. No finding against {}",
                    rollout.spec.stable.version.in_words(),
                    rollout.spec.canary.version.in_words()
                );
                self.end(rollout, Phase::RolledBack, Outcome::Inconclusive, Vec::new(), sentence, now, turn);
            }
            // Also without evidence, the step needs its approval.
            Some(AfterHold::Promoted) if needs_approval => {
                self.ask(rollout, &format!("inconclusive after a hold of {hold_max}"), now, turn);
            }
            Some(AfterHold::Promoted) if rollout.freeze.is_none() => {
                let why = format!(
                    " without a finding: inconclusive after a hold of {hold_max}, and onInconclusive is promote"
                );
                self.advance(rollout, &why, now, turn);
            }
            Some(AfterHold::Asked) if !hold.reported => {
                hold.reported = true;
                let sentence = if unapproved {
                    format!("not approved within {hold_max}: approve or reject it")
                } else {
                    format!("held for {hold_max} without a finding: promote, resume or abort it")
                };
                self.emit(Some(rollout), EventKind::Warned, sentence, now, turn);
            }
            Some(AfterHold::Promoted | AfterHold::Asked | AfterHold::Verdicts) | None => {}
        }
    }

    pub(super) fn end_on_finding(
        &mut self,
        rollout: &mut RolloutState,
        verdict: &Verdict,
        since: &str,
        turn: &mut Turn<'_>,
    ) {
        let reasons = findings(verdict);
        let worst = reasons.first().map_or("the evidence is against the canary", |reason| &reason.sentence);
        let sentence = format!("roll back: {since}, and the finding remains: {worst}");
        self.end(rollout, Phase::RolledBack, Outcome::Evidence, reasons, sentence, verdict.as_of, turn);
    }
}
