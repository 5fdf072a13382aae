//! A rollout starts from the version that serves, or not at all.

use super::*;

/// The spec of a rollout between other versions.
fn between(stable: &str, canary: &str, concurrency: Concurrency) -> RolloutSpec {
    let mut spec = spec();
    spec.stable.version = stable.into();
    spec.canary.version = canary.into();
    spec.concurrency = concurrency;
    spec
}

#[test]
fn a_queued_rollout_does_not_undo_the_promotion_before_it() {
    let mut world = World::baking();
    world.apply_spec("r2", &between("v1", "v3", Concurrency::Queue));
    world.apply_spec("r3", &between("v2", "v3", Concurrency::Queue));
    world.command(Action::Promote);
    let effects = world.command(Action::PromoteFull);
    let told: Vec<_> =
        effects.events.iter().map(|event| (event.rollout.as_ref().unwrap().0.as_str(), event.kind)).collect();
    assert_eq!(told, [("r1", EventKind::Completed), ("r2", EventKind::Aborted), ("r3", EventKind::Started)]);
    assert_eq!(
        effects.events[1].sentence,
        "aborted when its turn came: v2 serves flights, not v1; set `stable.version` to v2, and to go back to v1 make it the \
         canary"
    );
    for table in &effects.tables {
        assert_eq!(shares(table), [(Arm::Stable, "v2", 10_000)]);
    }
    // After a rollback it is the other one that must not start.
    let mut world = World::baking();
    world.apply_spec("r2", &between("v2", "v3", Concurrency::Queue));
    let effects = world.say(HOUR, Decision::Rollback);
    assert_eq!((effects.tables.len(), effects.events[1].kind), (1, EventKind::Aborted));
    assert_eq!(world.state().active, None);
}

#[test]
fn a_wrong_stable_is_refused_because_it_would_move_traffic_without_a_ramp() {
    let mut world = World::baking();
    let refused = world.apply_spec("r2", &between("v2", "v3", Concurrency::Supersede));
    assert_eq!((refused.events[0].kind, refused.tables.len()), (EventKind::Refused, 0));
    assert!(
        refused.events[0].sentence.contains("rollout r1 would end to its stable"),
        "{}",
        refused.events[0].sentence
    );
    assert_eq!(world.phase(), Phase::Baking);

    world.command(Action::PromoteFull);
    let refused = world.apply_spec("r3", &spec());
    assert_eq!((refused.events[0].kind, refused.tables.len()), (EventKind::Refused, 0));
    assert!(refused.events[0].sentence.starts_with("apply refused: v2 serves flights, not v1; set "));
    // An observed one moves nothing: it is only told.
    let observed = RolloutSpec { mode: crate::Mode::Observe, ..spec() };
    let kinds: Vec<_> = world.apply_spec("r4", &observed).events.iter().map(|event| event.kind).collect();
    assert_eq!(kinds, [EventKind::Warned, EventKind::Started]);
    // The way back is a rollout like any other.
    let effects = world.apply_spec("r5", &between("v2", "v1", Concurrency::Supersede));
    assert_eq!(shares(&effects.tables[0]), [(Arm::Stable, "v2", 10_000)]);
}
