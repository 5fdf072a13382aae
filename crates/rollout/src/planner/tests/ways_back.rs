//! The ways back: undo, another attempt, and the confirmation of a rollback.

use serin_schemas::records::Configured;

use super::*;

fn promoted() -> World {
    let mut world = World::baking();
    world.command(Action::PromoteFull);
    assert_eq!(world.state().serving.as_ref().unwrap().version, Version::from("v2"));
    world
}

#[test]
fn an_undo_goes_back_to_the_version_before_without_steps() {
    let mut world = promoted();
    let effects = world.command(Action::Undo);
    assert_eq!(shares(&effects.tables[0]), [(Arm::Stable, "v1", 10_000)]);
    assert_eq!((effects.tables[0].lease_ms, &effects.tables[0].rollout), (0, &None));
    assert_eq!(effects.events[0].sentence, "undone by ada: because: v1 serves again");
    assert_eq!((effects.events[0].kind, effects.events[0].phase), (EventKind::Aborted, Phase::Aborted));
    assert_eq!(world.state().serving.as_ref().unwrap().version, Version::from("v1"));
    assert_eq!(world.state().ended[0].ending.outcome, Outcome::Aborted);
    // Once: there is nothing before it.
    assert!(world.command(Action::Undo).events[0].sentence.contains("no promotion of flights can be undone"));
    // The next rollout starts from the version that serves again.
    assert_eq!(world.apply_spec("r2", &spec()).events[0].kind, EventKind::Started);
}

#[test]
fn an_undo_of_a_running_rollout_ends_it_and_a_second_one_goes_further_back() {
    let mut world = promoted();
    let mut next = spec();
    next.stable = next.canary.clone();
    next.canary.version = "v3".into();
    next.canary.url = Some("http://localhost:9003".to_owned());
    world.apply_spec("r2", &next);
    let wrong = world.command_with(Action::Undo, Some("r1"), None);
    assert!(wrong.events[0].sentence.contains("rollout r2 of flights has not ended"), "{}", wrong.events[0].sentence);
    world.warm(2 * HOUR);
    let effects = world.command(Action::Undo);
    assert_eq!(
        (effects.events[0].sentence.as_str(), shares(&effects.tables[0])),
        ("undone by ada: because", vec![(Arm::Stable, "v2", 10_000)])
    );
    assert!(world.command_with(Action::Undo, Some("r2"), None).events[0].sentence.contains("which is r1"));
    assert_eq!(shares(&world.command_with(Action::Undo, Some("r1"), None).tables[0]), [(Arm::Stable, "v1", 10_000)]);
}

#[test]
fn an_undo_is_refused_with_the_reason() {
    let mut world = promoted();
    world.tick(24 * 3_600_000);
    let late = world.command(Action::Undo);
    assert!(late.events[0].sentence.contains("v1 was kept for 1d after the promotion"), "{}", late.events[0].sentence);
    assert!(late.tables.is_empty());

    // No router knows where the version before is served.
    let configured = |version: &str| {
        let (url, grpc_url, path_version) = (format!("http://{version}"), None, None);
        Configured { model: "flights".into(), version: version.into(), stable: false, url, grpc_url, path_version }
    };
    let mut bare = spec();
    (bare.stable.url, bare.canary.url) = (None, None);
    let mut world = World::new();
    world.report(|status| status.configured = Some(vec![configured("v1"), configured("v2")]));
    assert_eq!(world.apply_spec("r1", &bare).events[0].kind, EventKind::Started);
    world.warm(0);
    world.command(Action::PromoteFull);
    world.report(|status| status.configured = Some(vec![configured("v2")]));
    let gone = world.command(Action::Undo);
    assert!(gone.events[0].sentence.contains("no router knows where v1 is served"), "{}", gone.events[0].sentence);
    world.report(|status| status.configured = Some(vec![configured("v1"), configured("v2")]));
    assert_eq!(world.command(Action::Undo).events[0].kind, EventKind::Aborted);
}

fn retry(world: &mut World, id: &str, of: &str, reason: &str, from_step: Option<i32>) -> Effects {
    let text = Some(serde_json::to_string(&spec()).unwrap());
    world.command_by(Action::Retry, |command| {
        (command.rollout, command.spec, command.retries) = (Some(id.into()), text, Some(of.into()));
        (command.reason, command.from_step) = (reason.to_owned(), from_step);
    })
}

#[test]
fn a_retry_keeps_the_finding_in_sight_and_needs_a_reason_after_it() {
    let mut world = World::baking();
    assert!(retry(&mut world, "r2", "r1", "", None).events[0].sentence.contains("has not ended"));
    let mut verdict = world.verdict(HOUR, Decision::Rollback);
    verdict.reasons = vec![Reason { metric: "wrong".into(), segment: Segment::all(), sentence: "worse".into() }];
    verdict.sentence = "roll back: wrong is worse".to_owned();
    world.send(verdict);
    let refused = retry(&mut world, "r2", "r1", "", None);
    assert_eq!(
        refused.events[0].sentence,
        "retry refused: the evidence ended rollout r1: roll back: wrong is worse; give a reason why another attempt may end differently"
    );
    let started = retry(&mut world, "r2", "r1", "the labels were wrong", Some(1));
    assert_eq!(
        started.events[0].sentence,
        "v1 -> v2: learning from at least 1000 answers of v1 before the first canary request; attempt 2 after rollout r1, from step \
         2 (the labels were wrong), which ended: roll back: wrong is worse"
    );
    let begun = world.warm(2 * HOUR);
    assert_eq!((begun.events[0].step, begun.events[0].canary_share), (1, 2_500));
    let known = world.state().active.as_ref().unwrap().retry.clone().unwrap();
    assert_eq!((known.attempt, known.on_evidence, known.ended.as_str()), (2, true, "roll back: wrong is worse"));
    world.command(Action::Abort);
    retry(&mut world, "r3", "r2", "", None);
    assert_eq!(world.state().active.as_ref().unwrap().attempt(), 3);
    assert_eq!(world.warm(3 * HOUR).events[0].step, 0);
}

#[test]
fn a_retry_of_something_else_is_refused() {
    let mut world = promoted();
    let sentence = |effects: Effects| effects.events[0].sentence.clone();
    assert!(sentence(retry(&mut world, "r2", "r1", "why", None)).contains("was promoted"));
    assert!(sentence(retry(&mut world, "r2", "r0", "why", None)).contains("not one of the last that ended"));
    world.command(Action::Undo);
    assert!(sentence(retry(&mut world, "r2", "r1", "why", Some(2))).contains("there is no step 3"));
    assert_eq!(retry(&mut world, "r2", "r1", "why", None).events[0].kind, EventKind::Started);
}

fn uses(world: &mut World, router: &str, generation: i64, apply_us: i64) -> Effects {
    world.report(|status| {
        status.router = router.to_owned();
        let model = "flights".into();
        status.applied = vec![TableApplied { model, generation: Generation(generation), lease_seq: 0, apply_us }];
    })
}

#[test]
fn a_rollback_is_confirmed_when_every_router_has_reported_it() {
    let mut world = World::baking();
    for router in ["router-0", "router-1"] {
        uses(&mut world, router, 2, 900);
    }
    let rolled_back = world.say(HOUR, Decision::Rollback);
    let generation = rolled_back.tables[0].generation.0;
    assert!(uses(&mut world, "router-0", generation, 21_000).events.is_empty());
    let confirmed = uses(&mut world, "router-1", generation, 4_000);
    let event = &confirmed.events[0];
    assert_eq!(
        (event.kind, event.phase, event.rollout.clone()),
        (EventKind::Confirmed, Phase::RolledBack, Some("r1".into()))
    );
    assert_eq!(
        event.sentence,
        "rollback confirmed: no calls go to v2 at router-0, router-1; the slowest of them used the table 21ms after it was on the log"
    );
    assert_eq!(confirmed.confirmed, [serin_schemas::ids::Span(21_000)]);
    assert!(uses(&mut world, "router-0", generation, 21_000).events.is_empty(), "once");
}

#[test]
fn a_router_that_is_cut_off_delays_the_confirmation_until_its_lease_has_ended() {
    let mut world = World::baking();
    for router in ["router-0", "router-1"] {
        uses(&mut world, router, 2, 900);
    }
    let generation = world.command(Action::Undo).tables[0].generation.0;
    uses(&mut world, "router-0", generation, 5_000);
    // It no longer counts as live, but its lease of the table with the canary may still run.
    world.tick(45_000);
    assert!(uses(&mut world, "router-0", generation, 5_000).events.is_empty());
    world.tick(15_000);
    let confirmed = [uses(&mut world, "router-0", generation, 5_000).events, world.tick(2).events].concat();
    assert_eq!(confirmed.iter().map(|event| event.kind).collect::<Vec<_>>(), [EventKind::Confirmed]);
}

#[test]
fn what_sent_no_calls_to_the_canary_is_not_confirmed() {
    let mut world = World::new();
    world.apply_spec("r1", &spec());
    let generation = world.command(Action::Abort).tables[0].generation.0;
    assert!(uses(&mut world, "router-0", generation, 5_000).events.is_empty());
    // An undo of a promotion takes calls from the version that served.
    let mut world = promoted();
    let generation = world.command(Action::Undo).tables[0].generation.0;
    assert!(uses(&mut world, "router-0", generation, 5_000).events[0].sentence.contains("no calls go to v2"));
}
