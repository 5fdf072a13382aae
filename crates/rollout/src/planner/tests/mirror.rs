//! Ramps that start with a mirror.

use super::*;

fn mirrored() -> RolloutSpec {
    let mut spec = spec();
    let mirror = serin_spec::Step {
        weight: serin_spec::Share(0),
        mirror: Some(serin_spec::Share(2_000)),
        ..spec.steps[0].clone()
    };
    spec.steps.insert(0, mirror);
    spec.shadows = vec![
        serde_json::from_value(serde_json::json!({"version": "v3", "url": "http://localhost:9003", "share": "1%"}))
            .unwrap(),
    ];
    spec
}

#[test]
fn a_ramp_starts_with_a_mirror_and_continues_with_weights() {
    let mut world = World::new();
    let warming = world.apply_spec("r1", &mirrored()).tables.remove(0);
    assert_eq!(shares(&warming), [(Arm::Stable, "v1", 10_000)]);
    let effects = world.warm(0);
    assert_eq!(world.phase(), Phase::Shadowing);
    let table = &effects.tables[0];
    let mirror =
        [(Arm::Stable, "v1", 0), (Arm::Control, "v1", 10_000), (Arm::Shadow, "v2", 2_000), (Arm::Shadow, "v3", 100)];
    assert_eq!(shares(table), mirror);
    assert!(table.lease_ms > 0, "a mirror has a lease too");
    assert_eq!(effects.events[0].sentence, "step 1 of 3: mirror 20% to v2 after 1200 answers of v1");
    let policy: serin_spec::TrafficPolicy = serde_json::from_str(&table.policy).unwrap();
    assert_eq!((policy.shadows.len(), policy.drain), (1, serin_spec::units::Duration::from_secs(30)));

    let effects = world.say(HOUR, Decision::Promote);
    assert_eq!(world.phase(), Phase::Baking);
    let weights =
        [(Arm::Stable, "v1", 4_500), (Arm::Control, "v1", 5_000), (Arm::Canary, "v2", 500), (Arm::Shadow, "v3", 100)];
    assert_eq!(shares(&effects.tables[0]), weights);
}

#[test]
fn a_mirror_is_renewed_held_resumed_and_rolled_back_like_any_step() {
    let mut world = World::new();
    world.apply_spec("r1", &mirrored());
    world.warm(0);
    assert_eq!(world.tick(10_000).tables[0].lease_seq, 1);
    world.command(Action::Pause);
    world.command(Action::Resume);
    assert_eq!(world.phase(), Phase::Shadowing);
    assert_eq!(world.tick(30_001).events[0].kind, EventKind::Held, "no verdicts");
    assert_eq!(world.say(HOUR, Decision::Continue).events[0].kind, EventKind::Resumed);
    assert_eq!(world.phase(), Phase::Shadowing);
    let effects = world.say(2 * HOUR, Decision::Rollback);
    assert_eq!(shares(&effects.tables[0]), [(Arm::Stable, "v1", 10_000)]);
    assert_eq!(effects.tables[0].lease_ms, 0);
}
