//! Weights that a person sets, and steps that wait for an approval.

use serin_spec::{Approval, Approver, Otherwise, Share, Step, units::Duration};

use super::*;

fn set_weight(world: &mut World, weight: i32, force: bool) -> Effects {
    world.command_by(Action::SetWeight, |command| (command.weight, command.force) = (Some(weight), force))
}

fn canary(effects: &Effects) -> i32 {
    effects.tables[0].routes.iter().filter(|route| route.arm == Arm::Canary).map(|route| route.share).sum()
}

fn steps(world: &World) -> Vec<String> {
    let active = world.state().active.as_ref().unwrap();
    active.spec.steps.iter().map(|step| step.weight.to_string()).collect()
}

#[test]
fn a_weight_set_by_hand_is_a_step_of_its_own_and_heavier_steps_follow() {
    let mut world = World::baking();
    let effects = set_weight(&mut world, 1_200, false);
    assert_eq!(effects.events[0].sentence, "step 2 of 3: 12% to v2, set by ada: because");
    assert_eq!((canary(&effects), effects.events[0].kind, effects.controls[0].step), (1_200, EventKind::Advanced, 1));
    assert_eq!(steps(&world), ["5%", "12%", "25%"]);
    // It bakes like the step of the file below it, and takes the step after it on evidence only.
    assert!(world.say(9 * MINUTE, Decision::Promote).is_silent());
    assert_eq!(canary(&world.say(10 * MINUTE, Decision::Promote)), 2_500);
    // Down again: what follows is heavier.
    let effects = set_weight(&mut world, 100, false);
    assert_eq!(
        (canary(&effects), effects.events[0].sentence.as_str()),
        (100, "step 4 of 6: 1% to v2, set by ada: because")
    );
    assert_eq!(steps(&world), ["5%", "12%", "25%", "1%", "5%", "25%"]);
    let promoted = world.command(Action::PromoteFull);
    assert_eq!(
        promoted.events[0].sentence,
        "v2 is the new stable, promoted in full by ada: because; set by hand: 12% in step 2 by ada, 1% in step 4 by ada"
    );
}

#[test]
fn a_weight_beyond_the_steps_needs_force_and_the_requirement_of_the_last_step() {
    let refusals = |world: &mut World, weight: i32| set_weight(world, weight, false).events[0].sentence.clone();
    let mut world = World::new();
    world.apply_spec("r1", &spec());
    assert!(refusals(&mut world, 100).contains("still warming up"));
    world.warm(0);
    assert!(refusals(&mut world, 6_000).contains("go up to 25%, not 60%"));
    assert!(refusals(&mut world, 500).contains("already has a weight of 5%"));
    for nonsense in [-1, 0, 10_000, 20_000] {
        assert!(refusals(&mut world, nonsense).contains("is not a weight of a step"), "{nonsense}");
    }
    let reason = world.command_by(Action::SetWeight, |command| {
        (command.weight, command.reason) = (Some(100), String::new());
    });
    assert!(reason.events[0].sentence.contains("needs a reason"));
    let effects = set_weight(&mut world, 6_000, true);
    assert_eq!(
        shares(&effects.tables[0]),
        [(Arm::Stable, "v1", 0), (Arm::Control, "v1", 4_000), (Arm::Canary, "v2", 6_000)]
    );
    let last = world.state().active.as_ref().unwrap().current_step().cloned().unwrap();
    assert_eq!((last.require, last.bake.min_events), (spec().normalized().steps[1].require, 100));
    // The last step of all: its evidence promotes.
    let mut verdict = world.verdict(2 * HOUR, Decision::Promote);
    verdict.arms = vec![canary_arm(100)];
    let promoted = world.send(verdict);
    assert_eq!(promoted.events[0].kind, EventKind::Completed);
    assert!(
        promoted.events[0].sentence.ends_with("set by hand: 60% in step 2 by ada"),
        "{}",
        promoted.events[0].sentence
    );
}

#[test]
fn a_paused_or_promoted_rollout_gets_no_weight_by_hand() {
    let mut world = World::baking();
    world.command(Action::Pause);
    assert!(set_weight(&mut world, 100, false).events[0].sentence.contains("paused by ada; resume it first"));
    let mut monitored = spec();
    monitored.promotion.monitor = Duration::from_secs(HOUR);
    let mut world = World::new();
    world.apply_spec("r1", &monitored.normalized());
    world.warm(0);
    world.command(Action::PromoteFull);
    assert!(set_weight(&mut world, 100, false).events[0].sentence.contains("to go back, use undo"));
}

/// A rollout whose first step needs an approval.
fn approving(otherwise: Otherwise, marginal: bool) -> World {
    let mut spec = spec();
    let within = Duration::from_secs(4 * HOUR);
    spec.steps[0].approve = Some(Approval { by: Approver::Operator, within, otherwise, marginal });
    let mut world = World::new();
    world.apply_spec("r1", &spec);
    world.warm(0);
    world
}

fn asked(world: &mut World) {
    let effects = world.say(10 * MINUTE, Decision::Promote);
    assert_eq!((effects.events[0].kind, canary(&effects)), (EventKind::Held, 500));
    assert!(effects.events[0].sentence.starts_with("waits for an approval: "), "{}", effects.events[0].sentence);
}

#[test]
fn a_step_waits_for_its_approval_and_the_next_one_does_not() {
    let mut world = approving(Otherwise::Hold, false);
    let early = world.command(Action::Approve);
    assert!(early.events[0].sentence.contains("waits for no approval"), "{}", early.events[0].sentence);
    asked(&mut world);
    assert!(world.say(HOUR, Decision::Promote).is_silent());
    assert!(world.command(Action::Resume).events[0].sentence.contains("approve it, or reject it"));
    let effects = world.command(Action::Approve);
    assert_eq!(effects.events[0].sentence, "step 2 of 2: 25% to v2, approved by ada: because");
    let mut verdict = world.verdict(3 * HOUR, Decision::Promote);
    verdict.arms = vec![canary_arm(500)];
    assert_eq!(world.send(verdict).events[0].kind, EventKind::Completed);
}

#[test]
fn a_weight_set_by_hand_does_not_skip_an_approval() {
    let mut world = approving(Otherwise::Hold, false);
    for _ in 0..2 {
        let refused = set_weight(&mut world, 2_500, false);
        assert!(refused.events[0].sentence.contains("25% would skip an approval"), "{}", refused.events[0].sentence);
        world.say(10 * MINUTE, Decision::Promote);
    }
    // The step of the file below the weight needs the approval, so the new one needs it too. A smaller weight skips nothing.
    for weight in [1_000, 100] {
        let effects = set_weight(&mut world, weight, false);
        assert_eq!(canary(&effects), weight);
        assert!(world.state().active.as_ref().unwrap().approval().is_some(), "{weight}");
    }
    assert_eq!(canary(&set_weight(&mut world, 2_500, true)), 2_500);
    // Nor the approval of a step between.
    let mut file = spec();
    let step = |weight| Step { weight: Share(weight), ..file.steps[0].clone() };
    let mut between = step(1_000);
    between.approve = Some(Approval {
        by: Approver::Operator,
        within: Duration::from_secs(HOUR),
        otherwise: Otherwise::Hold,
        marginal: false,
    });
    file.steps = vec![step(500), between, step(2_500)];
    let mut world = World::new();
    world.apply_spec("r1", &file);
    world.warm(0);
    assert!(set_weight(&mut world, 2_500, false).events[0].sentence.contains("would skip an approval"));
    assert_eq!(canary(&set_weight(&mut world, 1_000, false)), 1_000);
}

#[test]
fn without_verdicts_only_a_smaller_weight_is_possible() {
    let mut world = World::baking();
    world.tick(24 * 3_600_000);
    assert!(set_weight(&mut world, 1_200, false).events[0].sentence.contains("no verdicts arrive"));
    assert_eq!(canary(&set_weight(&mut world, 100, false)), 100);
}

#[test]
fn a_rejected_step_ends_the_rollout() {
    let mut world = approving(Otherwise::Hold, false);
    asked(&mut world);
    let effects = world.command(Action::Reject);
    assert_eq!((effects.events[0].kind, canary(&effects)), (EventKind::Aborted, 0));
    assert_eq!(effects.events[0].sentence, "rejected by ada: because");
}

#[test]
fn an_approval_has_a_time_by_the_clock_of_the_log() {
    let end = 10 * MINUTE + 4 * HOUR;
    let mut world = approving(Otherwise::Hold, false);
    asked(&mut world);
    assert!(world.say(end - 1, Decision::Promote).is_silent());
    let reported = world.say(end, Decision::Promote);
    assert_eq!(reported.events[0].sentence, "not approved within 4h: approve or reject it");
    assert!(world.say(end + HOUR, Decision::Promote).is_silent(), "once");
    assert_eq!(world.command(Action::Approve).events[0].step, 1);

    let mut world = approving(Otherwise::Rollback, false);
    asked(&mut world);
    let effects = world.say(end, Decision::Promote);
    assert_eq!((effects.events[0].kind, canary(&effects)), (EventKind::RolledBack, 0));
    assert_eq!(effects.events[0].sentence, "not approved within 4h: back to v1. No finding against v2");
    assert_eq!(world.state().ended[0].ending.outcome, Outcome::Inconclusive);
}

#[test]
fn nothing_against_the_canary_waits_for_an_approval() {
    let mut world = approving(Otherwise::Hold, false);
    asked(&mut world);
    let effects = world.say(HOUR, Decision::Rollback);
    assert_eq!((effects.events[0].kind, canary(&effects)), (EventKind::RolledBack, 0));
    // Evidence that is not sound any more is asked about again when it is.
    let mut world = approving(Otherwise::Hold, false);
    asked(&mut world);
    world.say(HOUR, Decision::Hold);
    assert!(world.command(Action::Approve).events[0].sentence.contains("waits for no approval"));
    assert_eq!(world.say(2 * HOUR, Decision::Promote).events[0].kind, EventKind::Resumed);
    let again = world.say(3 * HOUR, Decision::Promote);
    assert!(again.events[0].sentence.starts_with("waits for an approval"), "{}", again.events[0].sentence);
    // Without verdicts, what was asked about is not known to be sound.
    world.tick(24 * 3_600_000);
    assert!(world.command(Action::Approve).events[0].sentence.contains("no verdicts arrive"));
}

#[test]
fn an_approval_during_a_freeze_takes_the_step_when_the_freeze_ends() {
    // The clause is about the evidence when the step is taken, not when it was approved.
    for (marginal, asked, decision) in [
        (false, Decision::Promote, Decision::Promote),
        (true, Decision::Continue, Decision::Continue),
        (false, Decision::Promote, Decision::Continue),
        (true, Decision::Continue, Decision::Promote),
    ] {
        let mut world = approving(Otherwise::Rollback, marginal);
        world.command(Action::Freeze);
        let effects = world.say(4 * HOUR, asked);
        assert!(effects.events[0].sentence.starts_with("waits for an approval: "), "{}", effects.events[0].sentence);
        let approved = world.command(Action::Approve);
        assert!(
            approved.events[0].sentence.contains("the step is taken when the freeze of flights by ada"),
            "{approved:?}"
        );
        assert!(world.say(20 * HOUR, asked).is_silent(), "its time does not run out");
        world.command(Action::Unfreeze);
        let effects = world.say(21 * HOUR, decision);
        assert!(
            effects.events[0].step == 1 && effects.events[0].sentence.contains(", approved by ada: because"),
            "{effects:?}"
        );
        let clause = ", although not every check has passed";
        assert_eq!(effects.events[0].sentence.contains(clause), decision == Decision::Continue, "{effects:?}");
    }
}

#[test]
fn a_marginal_step_asks_if_the_file_says_so() {
    let mut world = approving(Otherwise::Hold, true);
    let asked = world.say(4 * HOUR, Decision::Continue);
    assert!(
        asked.events[0].sentence.starts_with("waits for an approval: marginal after 4h: "),
        "{}",
        asked.events[0].sentence
    );
    let effects = world.command(Action::Approve);
    assert_eq!(
        effects.events[0].sentence,
        "step 2 of 2: 25% to v2, approved by ada: because, although not every check has passed"
    );
    // Neither does `onInconclusive: promote` pass an approval by.
    let mut world = approving(Otherwise::Hold, false);
    assert!(world.say(4 * HOUR, Decision::Continue).events[0].sentence.starts_with("marginal after 4h"));
    world.planner.models.values_mut().for_each(|state| {
        state.active.as_mut().unwrap().spec.decision.on_inconclusive = serin_spec::OnInconclusive::Promote;
    });
    let asked = world.say(30 * HOUR, Decision::Continue);
    assert_eq!(asked.events[0].sentence, "waits for an approval: inconclusive after a hold of 1d");
    assert_eq!(world.state().active.as_ref().unwrap().canary_share, Share(500));
}
