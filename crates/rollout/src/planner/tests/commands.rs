//! Commands of people, and a second rollout of the same model.

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
fn a_second_rollout_is_refused_queued_or_supersedes() {
    let mut world = World::baking();
    let refused = world.apply_spec("r2", &spec());
    assert_eq!(refused.events[0].kind, EventKind::Refused);
    assert!(refused.events[0].sentence.contains("rollout r1 of flights is baking"), "{}", refused.events[0].sentence);

    let mut queued = spec();
    queued.concurrency = Concurrency::Queue;
    let effects = world.apply_spec("r2", &queued);
    assert_eq!((effects.events[0].phase, effects.tables.len()), (Phase::Pending, 0));
    // It may wait for other rollouts after this one, so it names none.
    assert_eq!(effects.events[0].sentence, "waiting until the rollouts of flights before it have ended");
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

#[test]
fn a_rollout_that_leaves_the_queue_has_an_ending_and_a_sentence() {
    let mut world = World::baking();
    let mut queued = spec();
    queued.concurrency = Concurrency::Queue;
    world.apply_spec("r2", &queued);
    let ending = |effects: &Effects| -> (EventKind, RolloutState) {
        let event = effects.events.iter().find(|event| event.rollout == Some(RolloutId::from("r2"))).unwrap();
        (event.kind, serde_json::from_str(event.state.as_ref().unwrap()).unwrap())
    };
    let (kind, state) = ending(&world.command_with(Action::Abort, Some("r2"), None));
    let sentence = "aborted in the queue by ada: because";
    assert_eq!((kind, state.phase, state.sentence.as_str()), (EventKind::Aborted, Phase::Aborted, sentence));
    let ended = state.ending.unwrap();
    assert_eq!((ended.outcome, ended.sentence.as_str(), ended.actor.as_str()), (Outcome::Aborted, sentence, "ada"));
    // Its id cannot be used again.
    assert_eq!(world.apply_spec("r2", &queued).events[0].kind, EventKind::Refused);

    let mut world = World::baking();
    world.apply_spec("r2", &queued);
    assert!(ending(&world.command(Action::StopAll)).1.ending.is_some());
    // When its turn comes, it must not start.
    let mut world = World::baking();
    world.apply_spec("r2", &queued);
    let (_, state) = ending(&world.command(Action::PromoteFull));
    assert!(state.ending.unwrap().sentence.starts_with("aborted when its turn came"));
}

#[test]
fn an_action_has_the_time_at_which_it_was_requested_and_events_are_in_order() {
    let at = |effects: &Effects| effects.events.last().unwrap().at;
    let mut world = World::baking();
    world.wall_ms = 50_000 * 1000;
    world.say(5 * MINUTE, Decision::Continue);
    world.asked_at = EventTime::from_secs(40_000);
    assert_eq!(at(&world.command(Action::Pause)), EventTime::from_secs(40_000), "not of the last verdict");
    // The state's own clocks are event time.
    assert_eq!(world.state().active.as_ref().unwrap().pause.as_ref().unwrap().since, EventTime::from_secs(5 * MINUTE));
    world.asked_at = EventTime::from_secs(39_000);
    assert_eq!(at(&world.command(Action::Resume)), EventTime::from_secs(40_000), "times are ordered");
    let late = world.say(10 * HOUR, Decision::Rollback);
    assert_eq!(
        at(&late),
        EventTime::from_secs(40_000),
        "a verdict has the time of its windows, but not before the last event"
    );
    world.asked_at = EventTime::from_secs(1 << 40);
    let ahead = world.apply_spec("r2", &spec());
    assert_eq!(at(&ahead), EventTime::from_secs(50_000), "a request cannot come from the future");
}

#[test]
fn during_a_replay_actions_have_the_time_of_the_replay() {
    let mut world = World::baking();
    world.wall_ms = 1_800_000_000 * 1000;
    world.asked_at = EventTime::from_secs(1_800_000_000);
    world.report(|status| status.at = EventTime::from_secs(700));
    let effects = world.command(Action::Pause);
    assert_eq!(effects.events[0].at, EventTime::from_secs(700));
    assert_eq!(effects.events[0].recorded_at, EventTime::from_secs(1_800_000_000));
}

/// A mark is about a rollout that has ended, needs a reason, and is an event only.
#[test]
fn an_ended_rollout_is_marked_without_any_other_effect() {
    let mut world = World::baking();
    let mark = |world: &mut World, rollout: Option<&str>, was_good: Option<bool>, reason: &str| {
        let rollout = rollout.map(RolloutId::from);
        world.command_by(Action::Mark, |command| {
            (command.rollout, command.was_good, command.reason) = (rollout, was_good, reason.to_owned());
        })
    };
    let refused = mark(&mut world, Some("r1"), Some(true), "why");
    assert_eq!(refused.events[0].sentence, "mark refused: rollout r1 has not ended; mark it when it has");
    world.say(MINUTE, Decision::Rollback);
    for (rollout, was_good, reason, expected) in [
        (Some("r1"), None, "why", "does not say whether the version was good"),
        (None, Some(true), "why", "names no rollout"),
        (Some("r1"), Some(true), "", "a mark needs a reason"),
        (Some("r9"), Some(true), "why", "rollout r9 is not one of the last 32 rollouts of flights that ended"),
    ] {
        let effects = mark(&mut world, rollout, was_good, reason);
        let sentence = &effects.events[0].sentence;
        assert!(effects.events[0].kind == EventKind::Refused && sentence.contains(expected), "{sentence}");
    }
    let before = world.state().clone();
    let effects = mark(&mut world, Some("r1"), Some(true), "wrong labels");
    let [event] = &effects.events[..] else { panic!("{effects:?}") };
    assert_eq!((event.kind, event.phase, event.was_good), (EventKind::Marked, Phase::RolledBack, Some(true)));
    assert_eq!(event.rollout.as_ref().map(RolloutId::as_str), Some("r1"));
    assert_eq!((event.sentence.as_str(), &event.state), ("marked as good by ada: wrong labels", &None));
    assert!(effects.tables.is_empty() && effects.controls.is_empty());
    let after = world.state();
    assert_eq!((&after.active, &after.ended, &after.serving), (&before.active, &before.ended, &before.serving));
}
