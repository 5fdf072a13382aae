//! How a hold ends, for each of its causes: `after_hold` must predict it.

use serin_schemas::records::{Correction, Estimate, HealthIssue, MetricResult, MetricVerdict, NoDataReason, Role};

use super::*;
use crate::planner::AfterHold;
use serin_spec::OnInconclusive;

/// A metric that has failed.
fn failed() -> MetricVerdict {
    let nothing = || Estimate { n: 0, value: None };
    MetricVerdict {
        metric: "latency_p99".to_owned(),
        segment: Segment::all(),
        role: Role::Gate,
        result: MetricResult::Fail,
        no_data: None,
        canary: nothing(),
        control: nothing(),
        effect: None,
        effect_low: None,
        effect_high: None,
        margin: None,
        limit_pass: None,
        limit_fail: None,
        better: false,
        at_cap: None,
        culprit: None,
        culprit_is_new: false,
        design_effect: None,
        units: None,
        ln_e_fail: 9.0,
        ln_e_pass: 0.0,
        p_anytime: 0.0,
        correction: Correction::WeightedHolm,
        p_fail: 0.0,
        weight: 0.5,
        failed_at: None,
        evidence_through: None,
        harm: None,
        sentence: "the canary's p99 latency is worse".to_owned(),
    }
}

/// A rollout that is held for this cause.
fn held(cause: HoldCause, on_inconclusive: OnInconclusive) -> World {
    let mut spec = spec();
    spec.decision.on_inconclusive = on_inconclusive;
    let mut world = World::new();
    world.apply_spec("r1", &spec);
    world.warm(0);
    match cause {
        HoldCause::Health => drop(world.say(MINUTE, Decision::Hold)),
        HoldCause::Marginal => drop(world.say(5 * HOUR, Decision::Continue)),
        HoldCause::Stale => drop(world.tick(3_600_000)),
        HoldCause::Approval => panic!("steps.rs has the tests of approvals"),
    }
    assert_eq!(world.state().active.as_ref().unwrap().hold.as_ref().map(|hold| hold.cause), Some(cause));
    world
}

fn verdict(world: &World, secs: i64, decision: Decision, finding: bool) -> Verdict {
    let mut verdict = world.verdict(secs, decision);
    if finding && decision == Decision::Hold {
        let sentence = "clicks fell".to_owned();
        verdict.reasons = vec![Reason { metric: "clicks".to_owned(), segment: Segment::all(), sentence }];
    } else if finding {
        verdict.metrics = vec![failed()];
    }
    if decision == Decision::Hold {
        let sentence = "labels are late".to_owned();
        verdict.health = vec![HealthIssue { reason: NoDataReason::LabelDelay, policy: "hold".to_owned(), sentence }];
    }
    verdict
}

#[test]
fn after_hold_predicts_what_happens() {
    let responses = [OnInconclusive::Rollback, OnInconclusive::Promote, OnInconclusive::Hold];
    let mut seen = std::collections::BTreeSet::new();
    for (cause, decision) in [
        (HoldCause::Health, Decision::Hold),
        (HoldCause::Marginal, Decision::Continue),
        (HoldCause::Marginal, Decision::Hold),
    ] {
        for (on_inconclusive, finding) in responses.into_iter().flat_map(|one| [(one, false), (one, true)]) {
            let what = format!("{cause:?} {decision:?} {on_inconclusive:?} {finding}");
            let mut world = held(cause, on_inconclusive);
            let first = verdict(&world, 6 * HOUR, decision, finding);
            let promised = world.state().active.as_ref().unwrap().after_hold(&first).unwrap();
            seen.insert(format!("{promised:?}"));
            assert!(world.send(first).is_silent(), "{what}");
            let last = verdict(&world, 30 * HOUR, decision, finding);
            let effects = world.send(last);
            let event = effects.events.first().map(|event| (event.kind, event.sentence.as_str()));
            let (kind, sentence) = event.unwrap_or_else(|| panic!("{what}: nothing happens"));
            let ending = world.state().ended.back().map(|ended| ended.ending.outcome);
            match promised {
                AfterHold::Finding => {
                    assert_eq!((kind, ending), (EventKind::RolledBack, Some(Outcome::Evidence)), "{what}");
                    assert!(sentence.contains("the finding remains"), "{what}: {sentence}");
                }
                AfterHold::RolledBack => {
                    assert_eq!((kind, ending), (EventKind::RolledBack, Some(Outcome::Inconclusive)), "{what}");
                    assert!(sentence.contains("No finding against"), "{what}: {sentence}");
                }
                AfterHold::Promoted => assert_eq!((kind, ending), (EventKind::Advanced, None), "{what}"),
                AfterHold::Asked => {
                    assert_eq!((kind, ending), (EventKind::Warned, None), "{what}");
                    assert!(sentence.contains("without a finding"), "{what}: {sentence}");
                    let again = verdict(&world, 60 * HOUR, decision, finding);
                    assert!(world.send(again).is_silent(), "{what}");
                }
                AfterHold::Verdicts => panic!("{what}: verdicts have arrived"),
            }
            assert!(!finding || promised == AfterHold::Finding, "{what}: {promised:?}");
        }
    }
    assert_eq!(seen.len(), 4, "{seen:?}");
}

/// Nothing is rolled back for missing verdicts, no matter how long none arrives.
#[test]
fn a_hold_without_verdicts_ends_with_the_next_one() {
    for (decision, phase) in [(Decision::Continue, Phase::Baking), (Decision::Hold, Phase::Held)] {
        let mut world = held(HoldCause::Stale, OnInconclusive::Rollback);
        let next = verdict(&world, 90 * HOUR, decision, false);
        assert_eq!(world.state().active.as_ref().unwrap().after_hold(&next), Some(AfterHold::Verdicts));
        for _ in 0..5 {
            assert!(world.tick(48 * 3_600_000).events.is_empty());
        }
        world.send(next);
        assert_eq!(world.phase(), phase);
        let hold = world.state().active.as_ref().unwrap().hold.clone();
        assert_eq!(hold.map(|hold| hold.cause), (phase == Phase::Held).then_some(HoldCause::Health));
    }
}
