//! What people ask for, and a second rollout beside the first.

use super::*;

#[test]
fn pause_stops_the_clock_but_not_the_safety() {
    let mut world = World::baking();
    world.say(5 * MINUTE, Decision::Continue);
    let effects = world.command(Action::Pause);
    assert_eq!((effects.events[0].kind, effects.events[0].canary_share), (EventKind::Paused, 500));
    assert_eq!(world.command(Action::Pause).events[0].kind, EventKind::Refused);
    assert!(world.say(10 * HOUR, Decision::Promote).is_silent());
    assert_eq!(world.command(Action::Resume).events[0].kind, EventKind::Resumed);
    assert!(world.say(10 * HOUR + 4 * MINUTE, Decision::Promote).is_silent());
    assert_eq!(world.say(10 * HOUR + 5 * MINUTE, Decision::Promote).events[0].step, 1);
    world.command(Action::Pause);
    assert_eq!(world.say(11 * HOUR, Decision::Rollback).events[0].kind, EventKind::RolledBack);
}

#[test]
fn people_promote_abort_and_stop() {
    let mut world = World::new();
    world.apply_spec("r1", &spec());
    let refused = world.command(Action::Promote);
    assert_eq!(refused.events[0].kind, EventKind::Refused);
    assert!(refused.events[0].sentence.contains("still warming up"), "{}", refused.events[0].sentence);
    world.warm(0);
    assert_eq!(world.command(Action::Promote).events[0].step, 1);
    let effects = world.command(Action::PromoteFull);
    assert_eq!(effects.events[0].kind, EventKind::Completed);
    assert_eq!(effects.events[0].sentence, "v2 is the new stable, promoted in full by ada: because");

    let mut world = World::baking();
    assert_eq!(world.command_with(Action::Abort, Some("other"), None).events[0].kind, EventKind::Refused);
    let effects = world.command_with(Action::Abort, Some("r1"), None);
    assert_eq!((effects.events[0].kind, shares(&effects.tables[0]).len()), (EventKind::Aborted, 1));
    assert_eq!(world.command(Action::Abort).events[0].sentence, "abort refused: flights has no active rollout");

    let mut world = World::baking();
    let effects = world.command(Action::StopAll);
    assert_eq!(effects.events[0].kind, EventKind::Aborted);
    assert_eq!(effects.tables[0].routes.len(), 1);
}

#[test]
fn a_command_is_done_once() {
    let mut world = World::baking();
    world.command(Action::Pause);
    world.commands -= 1;
    assert_eq!(world.command(Action::Pause), Effects::default());
}

#[test]
fn a_second_rollout_is_refused_waits_or_supersedes() {
    let mut world = World::baking();
    let refused = world.apply_spec("r2", &spec());
    assert_eq!(refused.events[0].kind, EventKind::Refused);
    assert!(refused.events[0].sentence.contains("rollout r1 of flights is baking"), "{}", refused.events[0].sentence);

    let mut queued = spec();
    queued.concurrency = Concurrency::Queue;
    let effects = world.apply_spec("r2", &queued);
    assert_eq!((effects.events[0].phase, effects.tables.len()), (Phase::Pending, 0));
    let effects = world.say(HOUR, Decision::Rollback);
    let kinds: Vec<_> = effects.events.iter().map(|event| event.kind).collect();
    assert_eq!(kinds, [EventKind::RolledBack, EventKind::Started]);
    assert_eq!(effects.controls.iter().map(|control| control.generation.0).collect::<Vec<_>>(), [3, 4]);

    let mut newer = spec();
    newer.concurrency = Concurrency::Supersede;
    let effects = world.apply_spec("r3", &newer);
    let kinds: Vec<_> = effects.events.iter().map(|event| event.kind).collect();
    assert_eq!(kinds, [EventKind::Superseded, EventKind::Started]);
    assert_eq!(world.state().active.as_ref().unwrap().id, RolloutId::from("r3"));
}
