//! Turns evidence into a Verdict: what is known per metric and segment, what is wrong, and what to do.

use std::collections::BTreeMap;

use serin_schemas::{
    ids::Span,
    records::{
        Arm, ArmCounts, ArmSummary, Correction, Decision, Estimate, GroupVerdict, HealthIssue, MetricResult,
        MetricVerdict, NoDataReason, Reason, Role, Verdict,
    },
};
use serin_sketches::hash::hash64;
use serin_spec::{MetricSpec, Policy, Require};
use serin_statistics::{
    About, Against, ArmEstimate, Finding, Score, group_finding, ln_weighted_average, p_anytime, rejects, score,
    stable_is_out_of_date, weighted_holm_adjusted,
};

use crate::{
    arms::percent,
    baseline::{lacks, missing_policy},
    coverage::BOTH_ARMS,
    delays::{delay_issues, may_be_late},
    evidence::Evidence,
    foreign::{explained, foreign},
    head::Era,
    health::contradictions,
    plan::OTHER,
    progress::Heard,
    ranges,
    rollout::Rollout,
    sentence::{self, SentenceBuilder, Times},
    standing::Issue,
    units,
};

/// Part of the policy hash: rules that decide differently from the same evidence have another version.
fn policy(rules: i32) -> String {
    // Policies were numbered before rules were.
    format!("serin analyzer policy {}", rules.saturating_add(1))
}

/// The verdict that is due on a rollout. Records what is wrong with its evidence, and proposes to end warm-up.
pub(crate) fn due(rollout: &mut Rollout, heard: &Heard) -> Verdict {
    record_findings(rollout);
    propose(rollout);
    let verdict = of(rollout, heard);
    rollout.clear_lost();
    verdict
}

/// Records what is wrong with the evidence now, so that later issues can be recognized as new.
fn record_findings(rollout: &mut Rollout) {
    if rollout.plan().rules.need_data() {
        let issues = issues(rollout);
        rollout.note(&issues);
    }
}

/// Freezes the segments once warm-up has seen enough and no issue rules out a comparison with it.
fn propose(rollout: &mut Rollout) {
    let head = rollout.head();
    if head.frozen.is_some() || head.proposed.is_some() || !rollout.has_learned() {
        return;
    }
    let judged = |issue| rollout.guards().standing.judged(issue);
    let stops = rollout.plan().rules.need_data() && issues(rollout).into_iter().map(judged).any(|issue| issue.stops());
    if !stops {
        rollout.propose();
    }
}

/// The verdict on a rollout as of its head's `as_of`.
fn of(rollout: &Rollout, heard: &Heard) -> Verdict {
    let head = rollout.head();
    let (generation, era) = head.current();
    let warming_up = era.is_warm_up() || head.frozen.is_none();
    let judged = |issue: Issue| rollout.guards().standing.judged(issue);
    let missing_data = if warming_up { MissingData::new() } else { missing_data(rollout, era) };
    let missing_data: MissingData = missing_data.into_iter().map(|(metric, issue)| (metric, judged(issue))).collect();
    let health: Vec<Issue> = health(rollout, era, &missing_data).into_iter().map(judged).collect();
    let metrics = if warming_up { Vec::new() } else { metrics(rollout, era, &health, &missing_data) };
    let groups = groups(rollout, &metrics);
    let score = score_of(rollout, &metrics, &groups, &missing_data);
    let mut verdict = Verdict {
        id: id(rollout),
        model: head.model.clone(),
        rollout: head.rollout.clone(),
        generation,
        step: if warming_up { -1 } else { era.step },
        as_of: head.as_of,
        decision: Decision::Continue,
        reasons: Vec::new(),
        score_low: score.low,
        score_high: score.high,
        ln_e_rollback: ln_weighted_average(&rollout.counted()).max(f64::MIN),
        stable_is_out_of_date: is_stable_out_of_date(&metrics),
        metrics,
        groups,
        arms: arms(rollout),
        health: health.into_iter().map(HealthIssue::from).collect(),
        warmup_events: warming_up.then_some(head.warmup_events as i64),
        frozen: None,
        sentence: String::new(),
        build: crate::BUILD.to_owned(),
        seen: if warming_up && rollout.plan().rules.need_data() {
            rollout.guards().baseline.seen(rollout.plan())
        } else {
            Vec::new()
        },
        rules: head.judged.number(),
    };
    verdict.health.extend(sentence::unheard(heard).map(|sentence| HealthIssue {
        reason: NoDataReason::NotHeard,
        policy: "warn".to_owned(),
        sentence,
    }));
    if warming_up {
        warming(rollout, &mut verdict);
    } else {
        decide(rollout, era, heard, &missing_data, &mut verdict);
    }
    verdict
}

/// Every issue of the evidence, whether it was acknowledged or not.
fn issues(rollout: &Rollout) -> Vec<Issue> {
    let era = rollout.head().current().1;
    if era.is_warm_up() || rollout.head().frozen.is_none() {
        return health(rollout, era, &MissingData::new());
    }
    let mut issues = health(rollout, era, &missing_data(rollout, era));
    issues.extend(may_be_late(rollout));
    issues
}

/// The issues of the evidence, in the order in which they are reported.
fn health(rollout: &Rollout, era: Era, missing_data: &MissingData) -> Vec<Issue> {
    let (plan, head, guards) = (rollout.plan(), rollout.head(), rollout.guards());
    if era.is_warm_up() || head.frozen.is_none() {
        let needed = plan.rules.need_data() && head.frozen.is_none();
        let mut health = if needed { guards.baseline.issues(plan) } else { Vec::new() };
        if needed && rollout.has_learned() {
            health.extend(ranges::issues(plan, rollout.warm()));
        }
        health.extend(foreign(rollout));
        return health;
    }
    let outage = guards.outage.issue(plan, &guards.baseline, head.as_of);
    let of_stable = guards.outage.is_of_stable(plan, &guards.baseline);
    // A failing stable makes every other issue doubtful, so it comes first. A canary that fails alone comes last: its metrics show it.
    let (first, last) = if of_stable { (outage, None) } else { (None, outage) };
    let mut health: Vec<Issue> = first.into_iter().collect();
    health.extend(delay_issues(rollout));
    health.extend(missing_data.values().cloned());
    health.extend(explained(head.health.issues(plan, era.step, era.shares, head.as_of), rollout));
    health.extend(head.coverage.issues(plan));
    health.extend(rollout.evidence().first().filter(|_| plan.guarded).and_then(|first| first.units.issue()));
    health.extend(foreign(rollout).into_iter().chain(contradictions(plan, &head.arms)).chain(last));
    health
}

fn id(rollout: &Rollout) -> String {
    let head = rollout.head();
    let policy = hash64(
        policy(head.rules).as_bytes(),
        [head.spec.as_str(), head.frozen.as_deref().unwrap_or("")].join("\0").as_bytes(),
    );
    let place = format!("{}\0{}\0{policy:016x}", head.rollout, head.as_of);
    format!("{:016x}", hash64(b"verdict", place.as_bytes()))
}

/// The issue of each metric without data in this step, by the metric's index.
type MissingData = BTreeMap<usize, Issue>;

/// Finds the metrics without data in this step. While stable itself fails, no values can be expected, so none is listed.
fn missing_data(rollout: &Rollout, era: Era) -> MissingData {
    let (plan, head, guards) = (rollout.plan(), rollout.head(), rollout.guards());
    if !plan.rules.need_data() || guards.outage.is_of_stable(plan, &guards.baseline) {
        return MissingData::new();
    }
    let of = |(index, metric): (usize, &MetricSpec)| {
        let policy = missing_policy(plan, metric);
        if plan.metrics[index].paired {
            let stream = plan.metrics[index].maturity;
            let due = head.steps.get(&stream) == Some(&era.step) && head.step_canary >= plan.spec.decision.min_answers;
            let seen = plan.overall(index).is_none_or(|overall| rollout.evidence()[overall].canary_seen > 0);
            let text = format!("{} has no data: no mirrored call had both answers", metric.name);
            let issue = Issue::new(NoDataReason::NoShadowTraffic, policy, text).of(index);
            return (due && !seen).then_some((index, issue));
        }
        if head.coverage.is_hardly_read(plan, index) {
            return None;
        }
        if let Some(answers) = guards.baseline.never_labelled(plan, index, plan.spec.decision.min_answers) {
            let text = format!("{} has no data: none of {answers} answers so far {}", metric.name, lacks(metric));
            return Some((index, Issue::new(NoDataReason::ValueMissing, policy, text).of(index).about(BOTH_ARMS)));
        }
        let (answers, whose) = head.coverage.blank(plan, index, guards.baseline.share(index))?;
        let text = format!("{} has no data: none of {answers} in this step {}", metric.name, lacks(metric));
        Some((index, Issue::new(NoDataReason::ValueMissing, policy, text).of(index).about(whose)))
    };
    plan.spec.metrics.iter().enumerate().filter_map(of).collect()
}

fn warming(rollout: &Rollout, verdict: &mut Verdict) {
    let (seen, wanted) = (rollout.head().warmup_events, rollout.plan().spec.warmup.min_events);
    verdict.frozen.clone_from(&rollout.head().proposed);
    verdict.ln_e_rollback = 0.0;
    let issue = |policy: &str| verdict.health.iter().find(|issue| issue.policy == policy);
    if let Some(issue) = issue("rollback").filter(|_| verdict.frozen.is_none()) {
        verdict.decision = Decision::Rollback;
        verdict.sentence = format!("end the rollout, as the spec asks when there is no data: {}", issue.sentence);
    } else if let Some(issue) = issue("hold").filter(|_| verdict.frozen.is_none()) {
        verdict.decision = Decision::Hold;
        verdict.sentence = format!("warm-up continues and the canary gets no traffic: {}", issue.sentence);
    } else if verdict.frozen.is_some() {
        verdict.decision = Decision::Promote;
        verdict.sentence = format!("warm-up saw {seen} answers of stable: the canary may start");
    } else if seen < wanted {
        verdict.sentence = format!("warming up: {seen} of {wanted} good answers of stable");
    } else {
        verdict.sentence = String::from("warming up: waiting for the first matured labels of stable");
    }
}

fn arms(rollout: &Rollout) -> Vec<ArmSummary> {
    let head = rollout.head();
    let summary = |arm| {
        let counts = head.arms.get(&arm).cloned().unwrap_or_else(|| ArmCounts::none(arm));
        ArmSummary {
            arm,
            version: if arm == Arm::Canary { head.canary.clone() } else { head.stable.clone() },
            predictions: counts.predictions,
            excluded: counts.excluded,
            errors: counts.errors,
            invalid: counts.invalid,
            late: counts.late,
            lost: counts.lost,
            refused: counts.refused,
            redirected: counts.redirected,
            unread: counts.unread,
            cancelled: counts.cancelled,
            left: counts.left,
        }
    };
    [Arm::Canary, Arm::Control, Arm::Stable].into_iter().map(summary).collect()
}

/// Whether the canary is better in enough metrics that stable counts as out of date.
fn is_stable_out_of_date(metrics: &[MetricVerdict]) -> bool {
    let judged = |metric: &&MetricVerdict| {
        metric.segment.is_all() && metric.role != Role::Watch && metric.result != MetricResult::NoData
    };
    let better = metrics.iter().filter(judged).filter(|metric| metric.better).count();
    stable_is_out_of_date(better, metrics.iter().filter(judged).count())
}

/// What is known of each hypothesis, in the order of the plan.
fn metrics(rollout: &Rollout, era: Era, health: &[Issue], missing_data: &MissingData) -> Vec<MetricVerdict> {
    let p = weighted_holm_adjusted(&rollout.weighted(|evidence| p_anytime(evidence.test.max_ln_e_fail())));
    let plans = rollout.plan().hypotheses.iter().zip(rollout.evidence()).zip(p).enumerate();
    plans
        .map(|(index, ((plan, evidence), p_fail))| {
            let spec = &rollout.plan().spec;
            let metric = &spec.metrics[plan.metric];
            // Until a stream has reached the step, it shows nothing about the step.
            let stream = rollout.plan().stream_of(index);
            let reached = rollout.head().steps.get(&stream) == Some(&era.step);
            let settling = rollout.is_settling(stream);
            let holds = reached || rollout.plan().metrics[plan.metric].paired;
            let ln_e_pass = if holds { evidence.test.ln_e_pass() } else { 0.0 };
            // A metric passes either by its looks or by its e-process: using both would spend the error rate twice.
            let looks = evidence.looks.as_ref().filter(|looks| looks.step == era.step).map(|looks| &looks.test);
            let passes = match looks {
                Some(looks) => looks.passed(),
                None => rejects(ln_e_pass, spec.decision.false_promotion),
            };
            let p_anytime = p_anytime(evidence.test.max_ln_e_fail());
            let (correction, p_fail) =
                if plan.weight > 0.0 { (Correction::WeightedHolm, p_fail) } else { (Correction::None, p_anytime) };
            let units = rollout
                .plan()
                .guarded
                .then(|| units::claim(&evidence.test, &evidence.units, p_fail <= spec.decision.false_rollback, passes));
            let few = units.as_ref().and_then(units::Claim::few);
            let short = short_of(rollout, era, index);
            let passes = passes && short.is_none();
            let (result, no_data) =
                result(rollout, index, (passes, few.is_some(), short.is_some()), (health, missing_data));
            let why = match no_data {
                Some(NoDataReason::FewAnswers) => short,
                Some(NoDataReason::FewUnits) => few,
                _ => None,
            };
            let mut effect = evidence.test.effect();
            if rollout.plan().rules.need_data() {
                evidence.test.bound_early(&mut effect);
                // The result itself also bounds the effect.
                match result {
                    MetricResult::Pass => evidence.test.bound_by_pass(&mut effect),
                    MetricResult::Fail => evidence.test.bound_by_fail(&mut effect),
                    MetricResult::Undecided | MetricResult::NoData => {}
                }
            }
            let (limit_pass, limit_fail) = match evidence.test.spec().against {
                Against::Limit { pass, fail } => (Some(pass), Some(fail)),
                Against::Control(_) => (None, None),
            };
            let culprit = culprit(evidence);
            // A class that control never had has no margin: any share of it is beyond the margin.
            let hidden = evidence.test.beyond(&effect).is_some_and(|by| by <= 0.0);
            let late = evidence.latest.harm().filter(|_| hidden && !culprit.as_ref().is_some_and(|(_, new)| *new));
            let part = rollout.head().coverage.part_of(rollout.plan(), plan.metric).filter(|_| plan.segment.is_all());
            MetricVerdict {
                metric: metric.name.clone(),
                segment: plan.segment.clone(),
                role: metric.role,
                result,
                no_data,
                canary: estimate(effect.canary),
                control: estimate(effect.control),
                effect: effect.difference,
                effect_low: effect.low,
                effect_high: effect.high,
                margin: effect.margin,
                limit_pass,
                limit_fail,
                better: effect.better,
                at_cap: effect.at_cap,
                culprit_is_new: culprit.as_ref().is_some_and(|(_, new)| *new),
                design_effect: evidence.design_effect,
                units: units.and_then(|units| units.number),
                ln_e_fail: evidence.test.ln_e_fail(),
                ln_e_pass,
                p_anytime,
                correction,
                p_fail,
                weight: plan.weight,
                failed_at: evidence.failed_at,
                evidence_through: evidence.through,
                harm: evidence.latest.harm().cloned(),
                sentence: SentenceBuilder {
                    spec,
                    metric,
                    segment: &plan.segment,
                    culprit: culprit.as_ref(),
                    settling,
                    looks,
                    part: part.as_deref(),
                    why: why.as_deref(),
                    late,
                    tipped: rollout.head().crossed.is_some_and(|crossing| crossing.largest as usize == index),
                    times: Times { as_of: rollout.head().as_of, step_began: rollout.guards().step_began },
                }
                .sentence((result, no_data), &effect),
                culprit: culprit.map(|(name, _)| name),
            }
        })
        .collect()
}

/// The part of a metric that the evidence is about, and whether that is a class that only the canary has.
fn culprit(evidence: &Evidence) -> Option<(String, bool)> {
    match evidence.test.worst_part()?.about {
        About::Class(class) => Some((class.to_owned(), false)),
        About::NewClass(class) => Some((class.to_owned(), true)),
        About::Level { level, .. } => Some((format!("p{}", sentence::significant(100.0 * level, 4)), false)),
        About::Whole | About::OtherClasses => None,
    }
}

/// What is known of each group of metrics.
fn groups(rollout: &Rollout, metrics: &[MetricVerdict]) -> Vec<GroupVerdict> {
    if metrics.is_empty() {
        return Vec::new();
    }
    let groups = rollout.plan().groups.iter().enumerate();
    groups
        .map(|(place, plan)| {
            let failed_at = rollout.head().groups.get(place).and_then(|state| state.failed_at);
            let members = plan.members.iter().filter_map(|&(metric, _)| metrics.get(rollout.plan().overall(metric)?));
            let members: Vec<Finding> = members.map(|member| finding(member.result)).collect();
            let (weight, ln_e_fail) = rollout.group_evidence(place);
            let result = match group_finding(failed_at.is_some(), &members) {
                Finding::Pass => MetricResult::Pass,
                Finding::Fail => MetricResult::Fail,
                Finding::Undecided => MetricResult::Undecided,
            };
            GroupVerdict {
                group: plan.name.clone(),
                result,
                score_weight: plan.score_weight,
                weight,
                ln_e_fail,
                failed_at,
            }
        })
        .collect()
}

fn finding(result: MetricResult) -> Finding {
    match result {
        MetricResult::Pass => Finding::Pass,
        MetricResult::Fail => Finding::Fail,
        MetricResult::Undecided | MetricResult::NoData => Finding::Undecided,
    }
}

fn estimate(arm: ArmEstimate) -> Estimate {
    Estimate { n: i64::try_from(arm.n).unwrap_or(i64::MAX), value: arm.value }
}

/// Why a metric over all traffic does not count yet in this step, if it has seen too few answers of an arm.
fn short_of(rollout: &Rollout, era: Era, index: usize) -> Option<String> {
    let (hypothesis, evidence) = (&rollout.plan().hypotheses[index], &rollout.evidence()[index]);
    let least = rollout.plan().spec.decision.min_answers;
    let stream = rollout.plan().stream_of(index);
    let reached = rollout.head().steps.get(&stream) == Some(&era.step) && !rollout.is_settling(stream);
    if !rollout.plan().rules.need_data() || !hypothesis.segment.is_all() || !reached {
        return None;
    }
    let metric = &rollout.plan().metrics[hypothesis.metric];
    let one_arm = metric.paired || metric.one_arm;
    let [canary, control] = if metric.paired {
        // What mirrored calls have shown still holds in steps without mirrored calls.
        [evidence.canary_seen; 2]
    } else {
        rollout.head().coverage.values(hypothesis.metric)
    };
    if canary >= least && (one_arm || control >= least) {
        return None;
    }
    let what = if rollout.plan().spec.metrics[hypothesis.metric].needs_label() { "labels" } else { "answers" };
    Some(if one_arm {
        format!("it has {canary} {what} of the canary, and a check needs at least {least}")
    } else {
        format!(
            "in this step it has {canary} {what} of the canary and {control} of control, and a check needs at least {least} of each"
        )
    })
}

fn result(
    rollout: &Rollout,
    index: usize,
    (passes, few, short): (bool, bool, bool),
    (health, missing_data): (&[Issue], &MissingData),
) -> (MetricResult, Option<NoDataReason>) {
    let evidence = &rollout.evidence()[index];
    if evidence.failed_at.is_some() {
        return (MetricResult::Fail, None);
    }
    let metric = rollout.plan().hypotheses[index].metric;
    let labels = rollout.plan().spec.metrics[metric].needs_label();
    let concerns = |issue: &&Issue| {
        issue.stops()
            && match issue.reason {
                // These concern one metric each.
                NoDataReason::ValueMissing | NoDataReason::NoShadowTraffic => false,
                NoDataReason::Outage => {
                    rollout.guards().outage.is_of_stable(rollout.plan(), &rollout.guards().baseline)
                }
                NoDataReason::LabelsMissing => labels,
                NoDataReason::LabelDelay => labels && !rollout.plan().spec.metrics[metric].source.is_delay(),
                NoDataReason::ValueShareDiffers => rollout.head().coverage.differs(metric),
                _ => true,
            }
    };
    if let Some(issue) = health.iter().find(concerns) {
        return (MetricResult::NoData, Some(issue.reason));
    }
    if let Some(issue) = missing_data.get(&metric) {
        return (MetricResult::NoData, Some(issue.reason));
    }
    if let Some(reason) = missing(rollout, index) {
        return (MetricResult::NoData, Some(reason));
    }
    if few {
        return (MetricResult::NoData, Some(NoDataReason::FewUnits));
    }
    if short {
        return (MetricResult::NoData, Some(NoDataReason::FewAnswers));
    }
    if passes {
        return (MetricResult::Pass, None);
    }
    (MetricResult::Undecided, None)
}

/// Why there is nothing to judge a metric by, if there is nothing.
fn missing(rollout: &Rollout, index: usize) -> Option<NoDataReason> {
    let (plan, evidence) = (&rollout.plan().hypotheses[index], &rollout.evidence()[index]);
    if evidence.canary_seen > 0 && (evidence.is_one_arm() || evidence.control_seen > 0) {
        return None;
    }
    if rollout.plan().metrics[plan.metric].paired {
        return Some(NoDataReason::NoShadowTraffic);
    }
    let stream = rollout.plan().stream_of(index);
    if stream.0 > 0 && !rollout.head().steps.contains_key(&stream) {
        return Some(NoDataReason::LabelsPending);
    }
    if rollout.is_settling(stream) {
        // Nothing is missing: there are answers, and they are left out.
        return None;
    }
    let (arm, none) = if evidence.canary_seen == 0 {
        (Arm::Canary, NoDataReason::NoCanaryTraffic)
    } else {
        (Arm::Control, NoDataReason::NoControlTraffic)
    };
    let answered = rollout.head().arms.get(&arm).is_some_and(|counts| counts.predictions > 0);
    // A segment may simply be rare. A metric that no answer has carried at all is a different problem.
    let seen = |evidence: &crate::evidence::Evidence| {
        if arm == Arm::Canary { evidence.canary_seen > 0 } else { evidence.control_seen > 0 }
    };
    let overall = rollout.plan().overall(plan.metric);
    if !answered || overall.is_some_and(|overall| seen(&rollout.evidence()[overall])) {
        return Some(none);
    }
    Some(if stream.0 > 0 { NoDataReason::LabelsMissing } else { NoDataReason::ValueMissing })
}

/// The score over groups, and over metrics that decide on their own. Such a metric fails with any of its segments.
fn score_of(
    rollout: &Rollout,
    metrics: &[MetricVerdict],
    groups: &[GroupVerdict],
    missing_data: &MissingData,
) -> Score {
    let spec = rollout.plan().spec.metrics.iter().enumerate();
    let judged = spec.filter(|&(index, metric)| metric.role != Role::Watch && !rollout.plan().is_grouped(index));
    let judged = judged.filter(|(_, metric)| {
        !metrics.iter().any(|verdict| verdict.metric == metric.name && is_left_out(rollout, missing_data, verdict))
    });
    let findings: Vec<(f64, Finding)> = judged
        .map(|(_, metric)| {
            let own = || metrics.iter().filter(|verdict| verdict.metric == metric.name);
            let overall = own().find(|verdict| verdict.segment.is_all()).map(|verdict| verdict.result);
            let finding = if own().any(|verdict| verdict.result == MetricResult::Fail) {
                Finding::Fail
            } else if overall == Some(MetricResult::Pass) {
                Finding::Pass
            } else {
                Finding::Undecided
            };
            (metric.score_weight, finding)
        })
        .chain(groups.iter().map(|group| (group.score_weight, finding(group.result))))
        .collect();
    let Score { low, high } = score(&findings);
    // The sum of no floats is -0.
    Score { low: low + 0.0, high }
}

fn decide(rollout: &Rollout, era: Era, heard: &Heard, missing_data: &MissingData, verdict: &mut Verdict) {
    let score = verdict.score_high <= rollout.plan().spec.decision.rollback_score;
    let against_it = rollout.head().crossed.is_some() || score;
    let late = if against_it { may_be_late(rollout) } else { None };
    let late = late.map(|late| rollout.guards().standing.judged(late));
    // A result that may rest on late labels and was acknowledged is not a finding. No step is taken past it: its checks have failed.
    let against_it = against_it && late.as_ref().is_none_or(Issue::stops);
    if let Some(late) = late.as_ref().filter(|late| !late.stops()) {
        verdict.health.insert(0, late.clone().into());
    }
    let issue = |policy: &str| {
        let issue = verdict.health.iter().find(|issue| issue.policy == policy);
        issue.map(|issue| issue.sentence.clone())
    };
    let (decision, reasons, sentence) = if let Some(late) = late.filter(Issue::stops) {
        let reasons = against(rollout, &verdict.metrics);
        let sentence = format!("hold: {}", late.sentence);
        if !verdict.health.iter().any(|issue| issue.reason == NoDataReason::LabelDelay && issue.policy == "hold") {
            verdict.health.insert(0, late.into());
        }
        (Decision::Hold, reasons, sentence)
    } else if against_it {
        let reasons = against(rollout, &verdict.metrics);
        let worst = reasons.first().map_or("the evidence is against the canary", |reason| reason.sentence.as_str());
        let sentence = format!("roll back: {worst}");
        (Decision::Rollback, reasons, sentence)
    } else if let Some(issue) = issue("rollback") {
        // This is not a finding against the version, so there are no reasons. The cause is in `health`.
        (Decision::Rollback, Vec::new(), format!("roll back, as the spec asks when there is no data: {issue}"))
    } else if let Some(issue) = issue("hold") {
        (Decision::Hold, Vec::new(), format!("hold: {issue}"))
    } else {
        match blocking(rollout, era, missing_data, verdict) {
            None => {
                let sentence = enough(rollout, era, missing_data, verdict)
                    + &partly_seen(rollout)
                    + &not_judged(verdict)
                    + &out_of_date(verdict);
                match not_heard(rollout, heard) {
                    None => (Decision::Promote, Vec::new(), sentence),
                    Some(waits) => (Decision::Continue, Vec::new(), format!("{sentence}; not promoted yet: {waits}")),
                }
            }
            Some((open, sentence)) => (Decision::Continue, open, format!("keep baking: {sentence}")),
        }
    };
    (verdict.decision, verdict.reasons, verdict.sentence) = (decision, reasons, sentence);
}

/// Names the deciding metrics that saw only a part of the answers.
fn partly_seen(rollout: &Rollout) -> String {
    let metrics = rollout.plan().spec.metrics.iter().enumerate().filter(|(_, metric)| metric.role != Role::Watch);
    let partly = metrics.filter_map(|(index, metric)| {
        let part = rollout.head().coverage.part_of(rollout.plan(), index)?;
        Some(format!("; {} saw only {part}", metric.name))
    });
    partly.collect()
}

/// Largest share of an arm's answers in a step that may have come late when the step is promoted.
const MOST_LATE: f64 = 0.05;

/// Why a step with complete evidence is not promoted yet: a writer may still have events. A rollback never waits for that.
fn not_heard(rollout: &Rollout, heard: &Heard) -> Option<String> {
    let passed = heard.through.map(|through| through.minus(rollout.plan().spec.grace.0));
    if passed.is_some_and(|passed| passed < rollout.head().as_of) {
        return Some(waits_for(heard));
    }
    // Rules 1 looked only at the difference between the arms.
    let (canary, control) = rollout.head().health.late_shares().filter(|_| rollout.head().rules > 1)?;
    let (name, share) = if control > canary { ("control", control) } else { ("the canary", canary) };
    (share > MOST_LATE).then(|| {
        format!(
            "{} of {name}'s answers in this step came after their window had closed (the limit is {}); {}",
            percent(share),
            percent(MOST_LATE),
            waits_for(heard)
        )
    })
}

fn waits_for(heard: &Heard) -> String {
    sentence::unheard(heard).unwrap_or_else(|| "their writers send them too late".to_owned())
}

/// The clause for a canary that is better in many metrics.
fn out_of_date(verdict: &Verdict) -> String {
    if !verdict.stable_is_out_of_date {
        return String::new();
    }
    let judged = |metric: &&MetricVerdict| metric.segment.is_all() && metric.role != Role::Watch;
    let better = verdict.metrics.iter().filter(judged).filter(|metric| metric.better);
    let names: Vec<&str> = better.map(|metric| metric.metric.as_str()).collect();
    format!("; stable is out of date: the canary is better in {}", names.join(", "))
}

fn reason(verdict: &MetricVerdict) -> Reason {
    let MetricVerdict { metric, segment, sentence, .. } = verdict;
    Reason { metric: metric.clone(), segment: segment.clone(), sentence: sentence.clone() }
}

/// The evidence against the canary, worst first: the failed hypotheses by their largest e-value; if none failed alone, the one
/// that contributed most when the average crossed.
fn against(rollout: &Rollout, metrics: &[MetricVerdict]) -> Vec<Reason> {
    let largest = |index: usize| rollout.evidence()[index].test.max_ln_e_fail();
    let failed = |index: &usize| metrics[*index].failed_at.is_some() && metrics[*index].weight > 0.0;
    let mut failed: Vec<usize> = (0..metrics.len()).filter(failed).collect();
    failed.sort_by(|&one, &two| largest(two).total_cmp(&largest(one)));
    if failed.is_empty() {
        failed.extend(rollout.head().crossed.map(|crossing| crossing.largest as usize));
    }
    failed.into_iter().filter_map(|index| metrics.get(index)).map(reason).collect()
}

/// What the step still lacks before the next one, and the first of it as a sentence.
fn blocking(
    rollout: &Rollout,
    era: Era,
    missing_data: &MissingData,
    verdict: &Verdict,
) -> Option<(Vec<Reason>, String)> {
    let in_step = rollout.head().steps.get(&Span::default()) == Some(&era.step) && rollout.head().step_canary > 0;
    if !in_step {
        let sentence = if rollout.is_settling(Span::default()) {
            let settles = rollout.plan().spec.settles_for();
            format!("the first {settles} of the step are left out of the comparison while the canary settles")
        } else {
            "no window of this step has answers of the canary yet".to_owned()
        };
        return Some((Vec::new(), sentence));
    }
    let judged = || {
        let metrics = verdict.metrics.iter().filter(|metric| metric.role != Role::Watch);
        metrics.filter(|metric| !is_left_out(rollout, missing_data, metric))
    };
    let require = rollout.plan().require(era.step);
    let open = |metric: &&MetricVerdict| metric.result != MetricResult::Pass && is_required(require, metric);
    // A difference that rests on few units is not a failure, but no step is taken past it.
    let alpha = rollout.plan().spec.decision.false_rollback;
    let waits = |metric: &MetricVerdict| metric.no_data == Some(NoDataReason::FewUnits) && metric.p_fail <= alpha;
    let stops = |metric: &&MetricVerdict| {
        metric.result == MetricResult::Fail || waits(metric) || is_unseen(rollout, missing_data, metric)
    };
    let mut missing: Vec<Reason> = judged().filter(stops).map(reason).collect();
    if require != Require::NoFail {
        let unknown = |metric: &&MetricVerdict| open(metric) && !stops(metric);
        missing.extend(judged().filter(unknown).filter(|metric| metric.role == Role::Gate).map(reason));
        if missing.is_empty() && verdict.score_low < rollout.plan().spec.decision.promote_score {
            missing.extend(judged().filter(open).map(reason));
        }
    }
    let first = missing.first()?.sentence.clone();
    Some((missing, first))
}

/// Whether a gate has seen too little for any step, so that it has neither passed nor failed. Labels are exempt, because they may
/// come after the ramp; a step that requires a pass waits for them.
fn is_unseen(rollout: &Rollout, missing_data: &MissingData, metric: &MetricVerdict) -> bool {
    let Some(index) = rollout.plan().metric_index(&metric.metric) else { return false };
    let unseen = matches!(
        metric.no_data,
        Some(
            NoDataReason::FewAnswers
                | NoDataReason::ValueMissing
                | NoDataReason::NoShadowTraffic
                | NoDataReason::NoCanaryTraffic
                | NoDataReason::NoControlTraffic
        )
    );
    let gate = metric.role == Role::Gate && metric.segment.is_all();
    let label = rollout.plan().spec.metrics[index].needs_label();
    rollout.plan().rules.need_data() && gate && unseen && !label && !missing_data.contains_key(&index)
}

/// Whether no step waits for a metric: the router reads hardly any answers, or the file says to proceed without its data.
fn is_left_out(rollout: &Rollout, missing_data: &MissingData, metric: &MetricVerdict) -> bool {
    let index = rollout.plan().metric_index(&metric.metric);
    let proceeds =
        index.and_then(|index| missing_data.get(&index)).is_some_and(|issue| issue.policy == Policy::Proceed);
    proceeds || is_hardly_read(rollout, metric)
}

/// Whether a metric has no finding and the router reads hardly any of the answers.
fn is_hardly_read(rollout: &Rollout, metric: &MetricVerdict) -> bool {
    let index = rollout.plan().metric_index(&metric.metric);
    metric.result != MetricResult::Fail
        && index.is_some_and(|index| rollout.head().coverage.is_hardly_read(rollout.plan(), index))
}

/// Whether a step that requires passes also requires one of this metric in this segment.
fn is_required(require: Require, metric: &MetricVerdict) -> bool {
    let empty_rest = metric.segment.value == OTHER && metric.result == MetricResult::NoData;
    metric.segment.is_all() || (require == Require::PassInSegments && metric.role == Role::Gate && !empty_rest)
}

fn enough(rollout: &Rollout, era: Era, missing_data: &MissingData, verdict: &Verdict) -> String {
    let require = rollout.plan().require(era.step);
    if require != Require::NoFail {
        let gates = || {
            let gates = verdict.metrics.iter().filter(|metric| metric.role == Role::Gate);
            gates.filter(|metric| !is_left_out(rollout, missing_data, metric))
        };
        let segments = gates().filter(|metric| !metric.segment.is_all() && is_required(require, metric)).count();
        let in_segments = if segments > 0 { format!(", in {segments} segments too") } else { String::new() };
        return format!(
            "the step's evidence is complete: all {} gates pass{in_segments}, score {:.0} to {:.0}",
            gates().filter(|metric| metric.segment.is_all()).count(),
            verdict.score_low,
            verdict.score_high
        );
    }
    let checks = verdict.metrics.iter().filter(|metric| metric.weight > 0.0 && metric.result != MetricResult::NoData);
    let last = usize::try_from(era.step).is_ok_and(|step| step + 1 >= rollout.plan().spec.steps.len());
    let more = if last {
        "the last step requires no more (`require: no_fail`), so nothing had to be shown"
    } else {
        "this step requires no more"
    };
    format!("nothing has failed in {} checks; {more}", checks.count())
}

/// Names the deciding metrics that were not judged, because they have not passed.
fn not_judged(verdict: &Verdict) -> String {
    let metrics = verdict.metrics.iter().filter(|metric| metric.role != Role::Watch && metric.segment.is_all());
    let open = metrics.filter_map(|metric| {
        let why = metric.no_data.filter(|_| metric.result == MetricResult::NoData)?;
        Some(format!("{} ({})", metric.metric, sentence::no_data(why)))
    });
    let open: Vec<String> = open.collect();
    if open.is_empty() { String::new() } else { format!("; not judged: {}", open.join(", ")) }
}
