//! Rules of a rollout, and when its evidence starts over.

use super::*;
use serin_spec::Rules;

/// A rollout under other rules than this build's, restored from a stored state.
fn of_rules(number: i32) -> World {
    let mut world = World::baking();
    let mut verdict = world.verdict(60, Decision::Continue);
    verdict.arms = vec![canary_arm(500)];
    world.send(verdict);
    let mut state = world.state().clone();
    state.active.as_mut().unwrap().rules = Rules::numbered(number);
    let state = ModelState::from_json(&state.to_json()).unwrap();
    world.planner.restore(state);
    world
}

fn active(world: &World) -> &RolloutState {
    world.state().active.as_ref().unwrap()
}

#[test]
fn a_rollout_starts_under_the_rules_of_the_build_and_keeps_rules_that_the_build_knows() {
    let mut world = World::new();
    let effects = world.apply_spec("r1", &spec());
    assert_eq!(effects.controls[0].rules, Rules::CURRENT.number());

    let mut world = of_rules(Rules::OLDEST.number());
    assert!(world.tick(1).is_silent());
    let mut verdict = world.verdict(600, Decision::Promote);
    verdict.rules = Rules::OLDEST.number();
    verdict.arms = vec![canary_arm(900)];
    let effects = world.send(verdict);
    assert_eq!((effects.controls[0].step, effects.controls[0].rules), (1, Rules::OLDEST.number()));
}

#[test]
fn a_state_without_rules_is_of_the_first_rules() {
    let world = World::baking();
    let mut stored: serde_json::Value = serde_json::from_slice(&world.state().to_json()).unwrap();
    for added in ["rules", "controlMs"] {
        assert!(stored["active"].as_object_mut().unwrap().remove(added).is_some());
    }
    let read = ModelState::from_json(stored.to_string().as_bytes()).unwrap();
    assert_eq!(read.active.unwrap().rules, Rules::FIRST);
}

#[test]
fn under_unknown_rules_the_evidence_starts_over_at_the_same_weight() {
    let mut world = of_rules(Rules::CURRENT.number() + 7);
    let before = active(&world).clone();
    let effects = world.tick(1);
    let sentence = &effects.events[0].sentence;
    assert!(
        sentence.starts_with("the evidence starts over, at the same weight: it started under rules 9"),
        "{sentence}"
    );
    assert_eq!(effects.events[0].kind, EventKind::Warned);
    let control = &effects.controls[0];
    assert_eq!(control.rules, Rules::CURRENT.number());
    assert_eq!((control.phase, control.canary_share), (before.phase, before.canary_share.0));
    assert!(control.generation > before.generation && control.frozen.is_some());
    let after = active(&world);
    assert_eq!((after.answers, after.answers_before, after.rules), (0, 0, Rules::CURRENT));
    // This happens once.
    assert!(world.tick(1).is_silent());
    // Earlier evidence does not count for the step.
    let mut old = world.verdict(65, Decision::Promote);
    old.generation = before.generation;
    old.arms = vec![canary_arm(5_000)];
    world.send(old);
    assert_eq!(active(&world).answers, 0);
}

#[test]
fn every_phase_starts_over_without_ending() {
    for phase in [Phase::Warming, Phase::Held, Phase::Paused, Phase::Promoted, Phase::Shadowing, Phase::Baking] {
        let mut world = of_rules(Rules::CURRENT.number() + 1);
        let mut state = world.state().clone();
        let rollout = state.active.as_mut().unwrap();
        rollout.phase = phase;
        rollout.promoted = phase == Phase::Promoted;
        rollout.frozen = rollout.frozen.take().filter(|_| phase != Phase::Warming);
        rollout.hold = (phase == Phase::Held).then(|| Hold {
            cause: HoldCause::Marginal,
            since: EventTime::from_secs(0),
            reported: true,
        });
        world.planner.restore(state);
        let effects = world.tick(1);
        assert_eq!((effects.controls[0].phase, effects.controls[0].rules), (phase, Rules::CURRENT.number()));
        assert_eq!(active(&world).phase, phase);
        assert!(active(&world).hold.as_ref().is_none_or(|hold| !hold.reported && hold.since > EventTime::from_secs(0)));
    }
}

#[test]
fn an_analyzer_with_other_rules_is_followed_and_reported_once() {
    let mut world = World::baking();
    let mut verdict = world.verdict(60, Decision::Promote);
    verdict.rules = Rules::OLDEST.number();
    let effects = world.send(verdict);
    assert!(effects.events[0].sentence.contains("judges it under rules 1"), "{}", effects.events[0].sentence);
    assert_eq!((effects.controls[0].step, effects.controls[0].rules), (0, Rules::OLDEST.number()));
    let mut verdict = world.verdict(70, Decision::Continue);
    verdict.rules = Rules::OLDEST.number();
    assert!(world.send(verdict).is_silent());
    // A finding counts under any rules.
    let mut verdict = world.verdict(80, Decision::Rollback);
    verdict.rules = Rules::CURRENT.number();
    assert_eq!(world.send(verdict).events[0].kind, EventKind::RolledBack);
}

#[test]
fn an_analyzer_that_lost_its_evidence_is_noticed() {
    let mut world = World::baking();
    let send = |world: &mut World, secs, answers| {
        let mut verdict = world.verdict(secs, Decision::Promote);
        verdict.arms = vec![canary_arm(answers)];
        world.send(verdict)
    };
    send(&mut world, 10, 400);
    let effects = send(&mut world, 600, 30);
    assert!(effects.events[0].sentence.contains("has 30 answers of the canary, and had 400 before"), "{effects:?}");
    assert_eq!(active(&world).step, Some(StepIndex(0)));
    assert!(send(&mut world, 610, 60).is_silent());
}

#[test]
fn the_control_record_is_repeated_while_no_verdict_arrives() {
    let mut world = World::baking();
    let held = world.tick(31_000);
    assert_eq!(held.controls.len(), 1, "the record of the hold itself");
    let generation = held.controls[0].generation;
    assert!(world.tick(20_000).controls.is_empty());
    let again = world.tick(20_000);
    assert_eq!((again.controls.len(), again.controls[0].generation), (1, generation));
    assert!(again.events.is_empty() && again.tables.is_empty());
    // Verdicts arrive again, so nothing is repeated.
    let resumed = world.say(100, Decision::Continue);
    assert_eq!(resumed.events[0].kind, EventKind::Resumed);
    assert!(world.tick(1_000).controls.is_empty());
}
