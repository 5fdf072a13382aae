//! What verdicts do.

use serin_schemas::{
    ids::{EventTime, Span},
    records::{Arm, Decision, EventKind, HealthIssue, NoDataReason, Phase, Verdict},
};

use super::{
    HoldCause, ModelState, Outcome, RolloutState, Turn,
    near::{suggestions, without_values},
};
use serin_spec::{Frozen, MetricSpec, Rules, units::Duration};

/// How long after the first labels were due an event reports that none has arrived.
const LABELS_LATE: Span = Span(10 * 60 * 1_000_000);

impl ModelState {
    pub(super) fn on_verdict(&mut self, verdict: &Verdict, turn: &mut Turn<'_>) {
        let Some(mut rollout) = self.active.take_if(|rollout| rollout.id == verdict.rollout) else { return };
        let seen = rollout.verdict.as_ref().is_some_and(|last| verdict.as_of <= last.as_of);
        if seen || verdict.generation > rollout.generation {
            self.active = Some(rollout);
            return;
        }
        turn.effects.changed.insert(self.model.clone());
        let restarted = evidence_restarted(&rollout, verdict);
        let was_refused = rollout.refused.is_some();
        rollout.keep(verdict, turn.now_ms);
        self.as_of = Some(verdict.as_of);
        if was_refused && rollout.refused.is_none() && rollout.phase == Phase::Warming {
            rollout.sentence.clone_from(&verdict.sentence);
            self.emit(Some(&rollout), EventKind::Resumed, verdict.sentence.clone(), verdict.as_of, turn);
        }
        if rollout.acts() && verdict.decision == Decision::Rollback {
            // Evidence from before the newest generation counts as well.
            self.roll_back(&mut rollout, verdict, turn);
        } else if let Some((rules, why)) = restarted {
            self.start_over(&mut rollout, rules, &why, verdict.as_of, turn);
        } else if rollout.phase == Phase::Warming && verdict.refuses() {
            self.refuse(&mut rollout, was_refused, verdict, turn);
        } else if !rollout.acts() {
            self.observe(&mut rollout, verdict, turn);
        } else if verdict.generation == rollout.generation {
            match rollout.phase {
                Phase::Warming => self.warm(&mut rollout, verdict, turn),
                Phase::Baking | Phase::Shadowing => self.judge(&mut rollout, verdict, turn),
                Phase::Held => self.judge_held(&mut rollout, verdict, turn),
                Phase::Promoted => self.monitor(&mut rollout, verdict, turn),
                _ => {}
            }
        }
        self.settle(rollout, turn);
    }

    fn roll_back(&mut self, rollout: &mut RolloutState, verdict: &Verdict, turn: &mut Turn<'_>) {
        let outcome = if verdict.reasons.is_empty() { Outcome::NoData } else { Outcome::Evidence };
        let reasons = verdict.reasons.clone();
        self.end(rollout, Phase::RolledBack, outcome, reasons, verdict.sentence.clone(), verdict.as_of, turn);
    }

    /// Handles warm-up of a rollout that the analyzer cannot judge. This is reported once. Another release of the analyzer may be able to
    /// judge it, so the rollout ends only after `hold_max`.
    fn refuse(&mut self, rollout: &mut RolloutState, was_refused: bool, verdict: &Verdict, turn: &mut Turn<'_>) {
        let (now, hold_max) = (verdict.as_of, rollout.spec.decision.hold_max);
        let why = without_order(&verdict.sentence);
        if !was_refused {
            rollout.sentence = format!("the canary gets no traffic: {why}");
            let sentence = rollout.sentence.clone();
            self.emit(Some(rollout), EventKind::Warned, sentence, now, turn);
        } else if rollout.refused.is_some_and(|since| now.since(since) >= hold_max.0) {
            let sentence = format!("ended after {hold_max}: {why}");
            self.end(rollout, Phase::RolledBack, Outcome::NoData, Vec::new(), sentence, now, turn);
        }
    }

    fn warm(&mut self, rollout: &mut RolloutState, verdict: &Verdict, turn: &mut Turn<'_>) {
        self.report_warm_up_waits(rollout, verdict, turn);
        let Some(text) = &verdict.frozen else {
            self.warn_about_labels(rollout, verdict, turn);
            return;
        };
        match serde_json::from_str::<Frozen>(text) {
            // The analyzer repeats what it has frozen until a step starts.
            Ok(_) if rollout.freeze.is_some() => {}
            Ok(frozen) => {
                let why =
                    format!(" after {} answers of {}", frozen.warmup_events, rollout.spec.stable.version.in_words());
                rollout.frozen = Some(frozen);
                let cannot = |issue: &&HealthIssue| issue.reason == NoDataReason::CannotFail;
                for issue in verdict.health.iter().filter(cannot) {
                    self.emit(Some(rollout), EventKind::Warned, issue.sentence.clone(), verdict.as_of, turn);
                }
                let first = rollout.first_step();
                self.bake(rollout, first, &why, verdict.as_of, turn);
            }
            Err(cause) => {
                let sentence = format!("verdict {} has an unreadable `frozen`: {cause}; still warming up", verdict.id);
                self.emit(Some(rollout), EventKind::Warned, sentence, verdict.as_of, turn);
            }
        }
    }

    /// Reports once what keeps warm-up from ending, and once that it is over. A verdict does not end a rollout that is only observed.
    fn report_warm_up_waits(&mut self, rollout: &mut RolloutState, verdict: &Verdict, turn: &mut Turn<'_>) {
        let (policy, sentence) = match verdict.decision {
            Decision::Hold => ("hold", verdict.sentence.clone()),
            Decision::Rollback => ("rollback", format!("observed only, would {}", verdict.sentence)),
            Decision::Continue | Decision::Promote => ("", verdict.sentence.clone()),
        };
        let cause = verdict.health.iter().find(|issue| issue.policy == policy).map(|issue| issue.reason);
        let lacks = without_values(verdict);
        let names = if cause.is_some() { suggestions(&rollout.spec, lacks, turn) } else { String::new() };
        // A router may have reported the names a moment later.
        let is_news = cause != rollout.warm_up_waits || !names.is_empty() && !rollout.names_reported;
        if !is_news {
            return;
        }
        (rollout.warm_up_waits, rollout.names_reported) = (cause, !names.is_empty());
        let sentence = sentence + &names;
        rollout.sentence.clone_from(&sentence);
        let kind = if cause.is_some() { EventKind::Warned } else { EventKind::Resumed };
        self.emit(Some(rollout), kind, sentence, verdict.as_of, turn);
    }

    /// Reports once that warm-up waits for its first labels long after they were due: they may never arrive.
    fn warn_about_labels(&mut self, rollout: &mut RolloutState, verdict: &Verdict, turn: &mut Turn<'_>) {
        let spec = &rollout.spec;
        let labels: Vec<_> = spec.metrics.iter().filter(|metric| metric.needs_label()).collect();
        let Some(maturity) = labels.iter().map(|metric| metric.maturity).min_by_key(|maturity| maturity.0) else {
            return;
        };
        let enough = verdict.warmup_events.is_some_and(|seen| seen >= spec.warmup.min_events as i64);
        let due = rollout.started_at.plus(maturity.0).plus(LABELS_LATE);
        if rollout.labels_reported || !enough || verdict.as_of < due {
            return;
        }
        rollout.labels_reported = true;
        let metrics: Vec<&str> = labels.iter().map(|metric| metric.name.as_str()).take(5).collect();
        let sentence = format!(
            "warm-up has seen {} answers of {} and waits for the first labels of {}: none has arrived, although the first were due \
             {maturity} after their answers. Send labels with the prediction ids, or abort the rollout and remove these metrics{}",
            verdict.warmup_events.unwrap_or_default(),
            spec.stable.version.in_words(),
            metrics.join(", "),
            suggestions(spec, MetricSpec::needs_label, turn),
        );
        self.emit(Some(rollout), EventKind::Warned, sentence, verdict.as_of, turn);
    }

    /// Handles a verdict on an observed rollout, which moves no weights: it warms up, then only reports.
    fn observe(&mut self, rollout: &mut RolloutState, verdict: &Verdict, turn: &mut Turn<'_>) {
        if rollout.phase == Phase::Warming {
            if verdict.generation == rollout.generation {
                self.warm(rollout, verdict, turn);
            }
            return;
        }
        if rollout.reported == Some(verdict.decision) {
            return;
        }
        rollout.reported = Some(verdict.decision);
        let would = match verdict.decision {
            Decision::Promote => "would go to the next step",
            Decision::Rollback => "would roll back",
            Decision::Hold => "would hold",
            Decision::Continue => "would keep baking",
        };
        let sentence = format!("observed only, {would}: {}", without_order(&verdict.sentence));
        self.emit(Some(rollout), EventKind::Warned, sentence, verdict.as_of, turn);
    }

    fn judge(&mut self, rollout: &mut RolloutState, verdict: &Verdict, turn: &mut Turn<'_>) {
        let now = verdict.as_of;
        if verdict.decision == Decision::Hold {
            let sentence =
                why_held(rollout, verdict, turn) + &suggestions(&rollout.spec, without_values(verdict), turn);
            self.hold(rollout, HoldCause::Health, sentence, now, turn);
            return;
        }
        let Some(step) = rollout.current_step() else { return };
        let (spent, max) = (rollout.clock.spent(now), step.bake.max);
        let asks_if_marginal = step.approve.is_some_and(|approval| approval.marginal);
        match missing_for_promotion(rollout, verdict, now, turn) {
            None => self.take_step(rollout, verdict, turn),
            Some(missing) if spent >= max.0 => {
                let sentence = format!("marginal after {}: {missing}", Duration(spent));
                if asks_if_marginal {
                    self.ask(rollout, &sentence, now, turn);
                } else {
                    self.hold(rollout, HoldCause::Marginal, sentence, now, turn);
                }
            }
            Some(_) => {}
        }
    }

    fn monitor(&mut self, rollout: &mut RolloutState, verdict: &Verdict, turn: &mut Turn<'_>) {
        let now = verdict.as_of;
        let monitor = rollout.spec.promotion.monitor;
        if rollout.reported != Some(verdict.decision) {
            rollout.reported = Some(verdict.decision);
            if verdict.decision == Decision::Hold {
                self.emit(Some(rollout), EventKind::Warned, health_sentence(verdict), now, turn);
            }
        }
        // Monitoring does not end while the canary cannot be judged, but it does not wait without a limit either.
        let unsound = verdict.decision == Decision::Hold && rollout.rules.need_data();
        let spent = rollout.clock.spent(now);
        if rollout.freeze.is_some() {
            // The holdback stays until the freeze ends.
        } else if spent >= monitor.0 && !unsound {
            self.complete(rollout, &format!(" after {monitor} of monitoring"), now, turn);
        } else if spent.0 >= monitor.0.0.saturating_add(rollout.spec.decision.hold_max.0.0)
            && verdict.reasons.is_empty()
        {
            let why =
                format!(" after {}, although it could not be judged: {}", Duration(spent), health_sentence(verdict));
            self.complete(rollout, &why, now, turn);
        } else if unsound && spent.0 >= monitor.0.0.saturating_add(rollout.spec.decision.hold_max.0.0) {
            self.end_on_finding(rollout, verdict, &format!("monitored for {}", Duration(spent)), turn);
        }
    }
}

/// If the analyzer has restarted the rollout's evidence since the last verdict: under which rules, and why.
fn evidence_restarted(rollout: &RolloutState, verdict: &Verdict) -> Option<(Rules, String)> {
    if verdict.generation != rollout.generation {
        return None;
    }
    let (judged, own) = (Rules::numbered(verdict.rules), rollout.rules);
    if judged != own && judged.is_known() {
        return Some((
            judged,
            format!("it started under rules {own}, and the analyzer judges it under rules {judged}"),
        ));
    }
    let canary = verdict.arms.iter().find(|arm| arm.arm == Arm::Canary)?.predictions;
    let lost = canary < rollout.answers;
    lost.then(|| (own, format!("the analyzer has {canary} answers of the canary, and had {} before", rollout.answers)))
}

/// What keeps a step from being promoted, as a clause; `None` if nothing does.
pub(super) fn missing_for_promotion(
    rollout: &RolloutState,
    verdict: &Verdict,
    now: EventTime,
    turn: &Turn<'_>,
) -> Option<String> {
    let step = rollout.current_step()?;
    missing_evidence(rollout, verdict, now).or_else(|| {
        let missing = turn.unapplied(&verdict.model, rollout.generation, rollout.spec.traffic)?;
        Some(format!("{missing} ({step})"))
    })
}

/// What the evidence for a step still lacks at `now`, as a clause; `None` if it is complete. It is complete too while there is no step.
pub fn missing_evidence(rollout: &RolloutState, verdict: &Verdict, now: EventTime) -> Option<String> {
    let step = rollout.current_step()?;
    if verdict.decision != Decision::Promote {
        // Without the order, because a held rollout does not keep baking.
        return Some(without_order(&verdict.sentence).to_owned());
    }
    // A marginal step has used its time, and its clock is stopped.
    let held = rollout.hold.is_some();
    if !held && rollout.clock.spent(now) < step.bake.min.0 {
        return Some(format!("the step has not baked for {}", step.bake.min));
    }
    // The verdict may be newer than the state.
    let canary = verdict.arms.iter().find(|arm| arm.arm == Arm::Canary).map_or(0, |arm| arm.predictions);
    let counted = if verdict.generation == rollout.generation { rollout.answers.max(canary) } else { rollout.answers };
    let answers = counted - rollout.answers_before;
    if answers < step.bake.min_events as i64 {
        return Some(format!("{answers} answers of the canary, but {} are needed", step.bake.min_events));
    }
    None
}

/// Why a rollout is held for its health. If answers are missing because routers do not use the table, that comes first: callers still
/// get answers, from the table before.
pub(super) fn why_held(rollout: &RolloutState, verdict: &Verdict, turn: &Turn<'_>) -> String {
    let sentence = health_sentence(verdict);
    let silent =
        |issue: &HealthIssue| matches!(issue.reason, NoDataReason::NoCanaryTraffic | NoDataReason::NoControlTraffic);
    if !verdict.health.iter().any(silent) {
        return sentence;
    }
    match turn.unapplied(&verdict.model, rollout.generation, rollout.spec.traffic) {
        Some(waits_for) => format!("{waits_for}; {sentence}"),
        None => sentence,
    }
}

fn health_sentence(verdict: &Verdict) -> String {
    let mut issues: Vec<&str> =
        verdict.health.iter().filter(|issue| issue.policy == "hold").map(|issue| issue.sentence.as_str()).collect();
    issues.dedup();
    if issues.is_empty() { verdict.sentence.clone() } else { issues.join("; ") }
}

/// A verdict's sentence without its order: a held rollout does not keep baking, and an observed rollout does not roll back.
pub fn without_order(sentence: &str) -> &str {
    ["keep baking: ", "roll back: ", "hold: "].iter().find_map(|order| sentence.strip_prefix(order)).unwrap_or(sentence)
}
