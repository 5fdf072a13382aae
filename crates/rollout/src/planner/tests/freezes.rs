//! Freezes: no steps are taken, and rollbacks ignore them.

use serin_schemas::records::RolloutEvent;

use super::*;

fn freeze(world: &mut World, models: &str, until: Option<i64>) -> Effects {
    world.command_by(Action::Freeze, |command| {
        (command.model, command.until) = (models.into(), until.map(|ms| WallMs(ms).as_event_time()));
    })
}

fn unfreeze(world: &mut World, models: &str) -> Effects {
    world.command_by(Action::Unfreeze, |command| command.model = models.into())
}

fn kinds(effects: &Effects) -> Vec<(&str, EventKind)> {
    effects.events.iter().map(|event| (event.model.as_str(), event.kind)).collect()
}

#[test]
fn a_frozen_model_takes_no_step_of_any_kind_and_can_be_rolled_back() {
    let mut world = World::new();
    world.apply_spec("r1", &spec());
    let effects = freeze(&mut world, "fl*", None);
    assert_eq!(kinds(&effects), [("fl*", EventKind::Frozen), ("flights", EventKind::Frozen)]);
    assert_eq!(effects.events[0].sentence, "no steps of fl*: frozen by ada: because");
    assert_eq!(effects.events[1].sentence, "no steps are taken: the freeze of fl* by ada (because)");
    assert!(effects.freezes_changed && effects.tables.is_empty());
    assert!(world.warm(0).is_silent(), "the first step waits too");
    unfreeze(&mut world, "fl*");
    world.warm(10);
    freeze(&mut world, "flights", None);
    assert!(world.say(HOUR, Decision::Promote).is_silent());
    for refused in [world.command(Action::Promote), world.command(Action::PromoteFull)] {
        assert!(refused.events[0].sentence.contains("unfreeze it first"), "{}", refused.events[0].sentence);
    }
    let up = world.command_by(Action::SetWeight, |command| command.weight = Some(900));
    assert!(up.events[0].sentence.contains("allows no larger weight"), "{}", up.events[0].sentence);
    let down = world.command_by(Action::SetWeight, |command| command.weight = Some(100));
    assert_eq!(down.events[0].canary_share, 100);
    let effects = world.say(2 * HOUR, Decision::Rollback);
    assert_eq!((effects.events[0].kind, effects.tables[0].routes.len()), (EventKind::RolledBack, 1));
}

#[test]
fn a_step_that_waited_for_the_end_of_a_freeze_is_taken_with_the_next_verdict() {
    let mut world = World::baking();
    let until = world.wall_ms + 5_000;
    freeze(&mut world, "*", Some(until));
    assert!(world.say(HOUR, Decision::Promote).is_silent());
    assert!(world.tick(4_999).events.is_empty());
    let ended = world.tick(1);
    assert_eq!(kinds(&ended), [("*", EventKind::Unfrozen), ("flights", EventKind::Unfrozen)]);
    assert!(world.planner.freezes().is_empty());
    assert_eq!(world.say(HOUR + 10, Decision::Promote).events[0].step, 1);
}

#[test]
fn a_hold_does_not_end_by_the_evidence_or_as_inconclusive_because_of_a_freeze() {
    let mut world = World::baking();
    world.say(4 * HOUR, Decision::Continue);
    assert_eq!(world.phase(), Phase::Held);
    freeze(&mut world, "flights", None);
    // The evidence is complete now: only the freeze is missing.
    assert!(world.say(40 * HOUR, Decision::Promote).is_silent());
    assert_eq!(world.phase(), Phase::Held);
    unfreeze(&mut world, "flights");
    assert_eq!(world.say(41 * HOUR, Decision::Promote).events[0].step, 1);
}

#[test]
fn a_monitored_promotion_keeps_its_holdback_until_the_freeze_ends() {
    let mut monitored = spec();
    monitored.promotion.monitor = serin_spec::units::Duration::from_secs(HOUR);
    let mut world = World::new();
    world.apply_spec("r1", &monitored.normalized());
    world.warm(0);
    world.command(Action::PromoteFull);
    freeze(&mut world, "flights", None);
    assert!(world.say(2 * HOUR, Decision::Promote).is_silent());
    unfreeze(&mut world, "flights");
    assert_eq!(world.say(3 * HOUR, Decision::Promote).events[0].kind, EventKind::Completed);
}

#[test]
fn bad_freezes_are_refused_and_a_new_rollout_shows_the_freeze() {
    let sentence = |effects: Effects| {
        let [RolloutEvent { kind: EventKind::Refused, sentence, .. }] = &effects.events[..] else {
            panic!("{effects:?}")
        };
        sentence.clone()
    };
    let mut world = World::new();
    assert!(sentence(unfreeze(&mut world, "x")).contains("nothing is frozen"));
    let past = world.wall_ms;
    assert!(sentence(freeze(&mut world, "flights", Some(past))).contains("in the past"));
    let effects = world.command_by(Action::Freeze, |command| command.reason = String::new());
    assert!(sentence(effects).contains("needs a reason"));
    freeze(&mut world, "flights", None);
    assert!(sentence(unfreeze(&mut world, "f*")).contains("frozen: flights"));
    world.apply_spec("r1", &spec());
    assert!(world.state().active.as_ref().unwrap().freeze.is_some());
    // Another model is not frozen.
    freeze(&mut world, "other", None);
    unfreeze(&mut world, "flights");
    assert!(world.state().active.as_ref().unwrap().freeze.is_none());
}
