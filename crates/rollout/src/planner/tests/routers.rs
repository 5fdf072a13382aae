//! Tables that routers cannot use.

use serin_schemas::records::TableRefused;

use super::*;

fn refused(generation: i64) -> Vec<TableRefused> {
    vec![TableRefused {
        model: "flights".into(),
        generation: Generation(generation),
        reason: "version \"v2\" has no URL".to_owned(),
    }]
}

fn applied(generation: i64) -> Vec<TableApplied> {
    vec![TableApplied { model: "flights".into(), generation: Generation(generation), lease_seq: 0, apply_us: 1 }]
}

#[test]
fn a_table_that_a_router_refuses_is_reported_once_and_no_step_is_taken() {
    let mut world = World::baking();
    let sentences = |effects: Effects| effects.events.into_iter().map(|event| event.sentence).collect::<Vec<_>>();
    let refuses =
        |world: &mut World| world.report(|status| (status.applied, status.refused) = (applied(1), refused(2)));
    assert_eq!(
        sentences(refuses(&mut world)),
        [
            "router router-0 cannot use the table of generation 2: version \"v2\" has no URL; the router keeps using generation 1, \
          without a canary"
        ]
    );
    assert_eq!(sentences(refuses(&mut world)), [""; 0], "once");
    assert!(world.say(HOUR, Decision::Promote).is_silent());
    let held = world.say(5 * HOUR, Decision::Promote);
    assert_eq!(held.events[0].kind, EventKind::Held);
    assert!(held.events[0].sentence.contains("router-0 cannot use generation 2"), "{}", held.events[0].sentence);
    let over = world.report(|status| status.applied = applied(3));
    assert_eq!(sentences(over), ["router router-0 can use the newest table again"]);
    let mut verdict = world.verdict(6 * HOUR, Decision::Promote);
    verdict.arms = vec![canary_arm(500)];
    assert_eq!(world.send(verdict).events[0].step, 1);
}

/// Callers are answered by the table before, so nothing is reported under this one. The sentence names the cause before its effect.
#[test]
fn a_hold_for_missing_answers_names_the_router_that_cannot_use_the_table() {
    use serin_schemas::records::{HealthIssue, NoDataReason};
    for (reason, refuses, named) in [
        (NoDataReason::NoControlTraffic, true, true),
        (NoDataReason::NoCanaryTraffic, true, true),
        (NoDataReason::NoControlTraffic, false, false),
        (NoDataReason::LateShareDiffers, true, false),
    ] {
        let mut world = World::baking();
        world.report(|status| {
            status.applied = applied(if refuses { 1 } else { 2 });
            status.refused = if refuses { refused(2) } else { Vec::new() };
        });
        let mut verdict = world.verdict(HOUR, Decision::Hold);
        let sentence = "no answers were reported".to_owned();
        verdict.health = vec![HealthIssue { reason, policy: "hold".to_owned(), sentence }];
        let held = world.send(verdict);
        let sentence = &held.events[0].sentence;
        assert_eq!(held.events[0].kind, EventKind::Held);
        assert_eq!(sentence.starts_with("router router-0 cannot use generation 2: "), named, "{sentence}");
        assert!(sentence.ends_with("no answers were reported"), "{sentence}");
    }
}

#[test]
fn a_router_that_does_not_serve_the_model_holds_nothing_up() {
    let mut world = World::baking();
    world.report(|status| status.applied = applied(2));
    world.report(|status| (status.router, status.refused) = ("router-1".to_owned(), refused(2)));
    assert_eq!(world.say(HOUR, Decision::Promote).events[0].step, 1);
}

/// A router that only forwards reports of external calls cannot compile a table without addresses, and carries none of the calls.
#[test]
fn with_external_traffic_only_actuators_must_apply_the_table() {
    let external = || {
        let mut spec = spec();
        spec.traffic = serin_spec::TrafficSource::External;
        (spec.stable.url, spec.canary.url) = (None, None);
        let mut world = World::new();
        world.apply_spec("r1", &spec);
        world.warm(0);
        world.report(|status| status.refused = refused(2));
        world
    };
    let mut world = external();
    let step = |effects: Effects| effects.events.first().map(|event| event.step);
    assert_eq!(step(world.say(HOUR, Decision::Promote)), Some(1));
    let mut world = external();
    world.report(|status| (status.router, status.applied) = ("actuator/gateway".to_owned(), applied(1)));
    assert!(world.say(HOUR, Decision::Promote).is_silent(), "it is behind");
    world.report(|status| (status.router, status.applied) = ("actuator/gateway".to_owned(), applied(2)));
    assert_eq!(step(world.say(HOUR + 60, Decision::Promote)), Some(1));
}
