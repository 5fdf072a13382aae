//! A rollout starts from the version that serves, or not at all.

use super::*;

/// The spec of a rollout between these versions.
fn between(stable: &str, canary: &str, concurrency: Concurrency) -> RolloutSpec {
    let mut spec = spec();
    spec.stable.version = stable.into();
    spec.canary.version = canary.into();
    let url = |version: &str| Some(format!("http://localhost:900{}", &version[1..]));
    (spec.stable.url, spec.canary.url) = (url(stable), url(canary));
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
    let events: Vec<_> =
        effects.events.iter().map(|event| (event.rollout.as_ref().unwrap().0.as_str(), event.kind)).collect();
    assert_eq!(events, [("r1", EventKind::Completed), ("r2", EventKind::Aborted), ("r3", EventKind::Started)]);
    assert_eq!(
        effects.events[1].sentence,
        "aborted when its turn came: v2 serves flights, not v1; set `stable.version` to v2; to go back to v1, make it the \
         canary"
    );
    for table in &effects.tables {
        assert_eq!(shares(table), [(Arm::Stable, "v2", 10_000)]);
    }
    // After a rollback, the other one must not start.
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
        refused.events[0].sentence.contains("rollout r1 would end with its stable version"),
        "{}",
        refused.events[0].sentence
    );
    assert_eq!(world.phase(), Phase::Baking);

    world.command(Action::PromoteFull);
    let refused = world.apply_spec("r3", &spec());
    assert_eq!((refused.events[0].kind, refused.tables.len()), (EventKind::Refused, 0));
    assert!(refused.events[0].sentence.starts_with("apply refused: v2 serves flights, not v1; set "));
    // An observed one moves nothing, so this is only a warning.
    let observed = RolloutSpec { mode: serin_spec::Mode::Observe, ..spec() };
    let kinds: Vec<_> = world.apply_spec("r4", &observed).events.iter().map(|event| event.kind).collect();
    assert_eq!(kinds, [EventKind::Warned, EventKind::Started]);
    // The way back is a rollout like any other one.
    let effects = world.apply_spec("r5", &between("v2", "v1", Concurrency::Supersede));
    assert_eq!(shares(&effects.tables[0]), [(Arm::Stable, "v2", 10_000)]);
}

/// A spec whose stable is v2, with these parts of its servers.
fn from_v2(url: Option<&str>, grpc_url: Option<&str>, path_version: Option<&str>) -> RolloutSpec {
    let mut spec = between("v2", "v3", Concurrency::Reject);
    spec.stable.url = url.map(str::to_owned);
    spec.stable.grpc_url = grpc_url.map(str::to_owned);
    spec.stable.path_version = path_version.map(str::to_owned);
    spec
}

/// v2 was promoted, and serves at :9002.
fn promoted() -> World {
    let mut world = World::new();
    let mut first = spec();
    first.canary.path_version = Some("2".into());
    world.apply_spec("r1", &first);
    world.command(Action::PromoteFull);
    world
}

fn sentence(effects: &Effects) -> &str {
    &effects.events[0].sentence
}

#[test]
fn another_address_of_the_serving_version_is_refused_because_it_would_move_every_call() {
    let moves = [
        (Some("http://localhost:9009"), None, None, "`url` http://localhost:9002, not http://localhost:9009"),
        (Some("https://localhost:9002"), None, None, "`url`"),
        (Some("http://localhost:9002/v2"), None, None, "`url`"),
        (Some("http://localhost:9002,http://localhost:9009"), None, None, "`url`"),
        (None, Some("http://localhost:9009"), None, "`grpcUrl` http://localhost:9002, not http://localhost:9009"),
        (None, None, Some("7"), "`pathVersion` 2, not 7"),
    ];
    for (url, grpc_url, path_version, words) in moves {
        let mut world = promoted();
        let refused = world.apply_spec("r2", &from_v2(url, grpc_url, path_version));
        assert_eq!((refused.events[0].kind, refused.tables.len()), (EventKind::Refused, 0), "{words}");
        let text = sentence(&refused);
        assert!(text.contains(words) && text.contains("make it the canary"), "{text}");
        assert_eq!(world.state().active, None);
        // An observed rollout moves nothing, so it may start with a warning.
        let observed = RolloutSpec { mode: serin_spec::Mode::Observe, ..from_v2(url, grpc_url, path_version) };
        let kinds: Vec<_> = world.apply_spec("r3", &observed).events.iter().map(|event| event.kind).collect();
        assert_eq!(kinds, [EventKind::Warned, EventKind::Started]);
    }
}

#[test]
fn the_same_servers_may_be_written_differently_or_left_out() {
    for (url, path_version) in
        [(None, None), (Some("http://localhost:9002"), Some("2")), (Some("HTTP://LOCALHOST:9002/"), None)]
    {
        let mut world = promoted();
        let started = world.apply_spec("r2", &from_v2(url, None, path_version));
        assert_eq!(started.events[0].kind, EventKind::Started, "{}", sentence(&started));
        let table = &started.tables[0];
        assert!(serin_spec::address::same_servers(table.routes[0].url.as_deref().unwrap(), "http://localhost:9002"));
        let policy: serin_spec::TrafficPolicy = serde_json::from_str(&table.policy).unwrap();
        assert_eq!(policy.servers[0].path_version.as_deref(), Some("2"));
    }
}

/// A canary at stable's own servers, which the file does not name.
#[test]
fn a_canary_at_the_servers_of_stable_is_refused() {
    let canary_at = |url: Option<&str>, path_version: Option<&str>| {
        let mut spec = from_v2(None, None, None);
        spec.canary.url = url.map(str::to_owned);
        spec.canary.path_version = path_version.map(str::to_owned);
        spec
    };
    let refused = promoted().apply_spec("r2", &canary_at(Some("http://LOCALHOST:9002/"), Some("2")));
    assert_eq!((refused.events[0].kind, refused.tables.len()), (EventKind::Refused, 0));
    assert!(sentence(&refused).starts_with("apply refused: no check can fail: "), "{}", sentence(&refused));
    // Another path makes the versions different, and so do other servers.
    for (url, path_version) in [("http://localhost:9002", Some("3")), ("http://localhost:9003", Some("2"))] {
        let started = promoted().apply_spec("r2", &canary_at(Some(url), path_version));
        assert_eq!(started.events[0].kind, EventKind::Started, "{}", sentence(&started));
    }
    // One that is only observed moves nothing.
    let observed = canary_at(Some("http://localhost:9002"), Some("2"));
    let observed = RolloutSpec { mode: serin_spec::Mode::Observe, ..observed };
    assert_eq!(promoted().apply_spec("r2", &observed).events.last().unwrap().kind, EventKind::Started);
    // The same for a queued rollout, and for one that supersedes.
    let mut world = World::baking();
    let mut queued = canary_at(Some("http://localhost:9002"), None);
    queued.concurrency = Concurrency::Queue;
    world.apply_spec("r2", &queued);
    assert!(world.command(Action::PromoteFull).events[1].sentence.contains("no check can fail"));
    let mut world = World::baking();
    let mut newer = spec();
    (newer.concurrency, newer.stable.url) = (Concurrency::Supersede, None);
    newer.canary =
        serin_spec::VersionSpec { version: "v3".into(), url: Some("http://localhost:9001".into()), ..newer.canary };
    assert!(sentence(&world.apply_spec("r2", &newer)).contains("no check can fail"));
}

#[test]
fn a_new_address_is_rolled_out_like_a_new_version_and_the_way_back_is_the_old_one() {
    let mut world = promoted();
    let mut moving = from_v2(None, None, None);
    moving.canary.version = "v2-new-host".into();
    moving.canary.url = Some("http://localhost:9009".into());
    world.apply_spec("r2", &moving);
    world.warm(0);
    let aborted = world.command(Action::Abort);
    assert_eq!(aborted.tables[0].routes[0].url.as_deref(), Some("http://localhost:9002"));
    world.apply_spec("r3", &moving);
    let effects = world.command(Action::PromoteFull);
    assert_eq!(effects.tables[0].routes[0].url.as_deref(), Some("http://localhost:9009"));
}

#[test]
fn a_rollout_that_was_queued_or_supersedes_starts_from_the_servers_that_serve_then() {
    let mut world = World::baking();
    let queued = RolloutSpec { concurrency: Concurrency::Queue, ..from_v2(Some("http://localhost:9009"), None, None) };
    world.apply_spec("r2", &queued);
    let effects = world.command(Action::PromoteFull);
    assert_eq!(effects.events[1].kind, EventKind::Aborted);
    assert!(effects.events[1].sentence.starts_with("aborted when its turn came: v2 serves flights with `url`"));
    assert_eq!(effects.tables.len(), 1);

    let mut world = World::baking();
    let mut newer = spec();
    (newer.concurrency, newer.stable.url) = (Concurrency::Supersede, Some("http://localhost:9009".into()));
    let refused = world.apply_spec("r2", &newer);
    assert_eq!((refused.events[0].kind, world.phase()), (EventKind::Refused, Phase::Baking));
    newer.stable.url = None;
    let effects = world.apply_spec("r3", &newer);
    for table in &effects.tables {
        assert_eq!(table.routes[0].url.as_deref(), Some("http://localhost:9001"));
    }
}

#[test]
fn before_the_first_rollout_the_configuration_of_routers_decides_what_serves() {
    let with = |version: &str, url: &str, stable: bool| serin_schemas::records::Configured {
        model: "flights".into(),
        version: version.into(),
        stable,
        url: url.to_owned(),
        grpc_url: None,
        path_version: None,
    };
    let world = || {
        let mut world = World::new();
        let known = vec![with("v1", "http://localhost:9001", true), with("v2", "http://localhost:9002", false)];
        world.report(|status| status.configured = Some(known));
        world
    };
    let mut file = spec();
    file.stable.url = Some("http://localhost:9009".into());
    let refused = world().apply_spec("r1", &file);
    assert_eq!(refused.events[0].kind, EventKind::Refused);
    assert!(
        sentence(&refused).contains("`url` http://localhost:9001, not http://localhost:9009"),
        "{}",
        sentence(&refused)
    );
    let refused = world().apply_spec("r1", &between("v2", "v1", Concurrency::Reject));
    assert!(sentence(&refused).starts_with("apply refused: v1 serves flights, not v2"), "{}", sentence(&refused));
    for url in [None, Some("http://localhost:9001/")] {
        (file.stable.url, file.canary.url) = (url.map(str::to_owned), None);
        let started = world().apply_spec("r1", &file);
        assert_eq!(started.events[0].kind, EventKind::Started, "{}", sentence(&started));
    }
    // No router knows where v3 is.
    let mut nowhere = between("v1", "v3", Concurrency::Reject);
    nowhere.canary.url = None;
    let refused = world().apply_spec("r1", &nowhere);
    assert!(sentence(&refused).contains("no router knows where v3 is served"), "{}", sentence(&refused));
    // An older router does not report its configuration, so the table is tried.
    let mut older = World::new();
    older.report(|_| ());
    assert_eq!(older.apply_spec("r1", &nowhere).events[0].kind, EventKind::Started);
}

#[test]
fn a_controller_that_lost_its_state_learns_from_the_log_what_serves() {
    let mut world = promoted();
    let table = world.apply_spec("r2", &from_v2(None, None, None)).tables.remove(0);
    let mut fresh = World::new();
    fresh.planner.adopt(table);
    let moved = from_v2(Some("http://localhost:9009"), None, None);
    assert_eq!(fresh.apply_spec("r3", &moved).events[0].kind, EventKind::Refused);
    assert_eq!(fresh.apply_spec("r4", &between("v1", "v3", Concurrency::Reject)).events[0].kind, EventKind::Refused);
    let effects = fresh.apply_spec("r5", &from_v2(None, None, None));
    assert_eq!(effects.tables[0].routes[0].url.as_deref(), Some("http://localhost:9002"));
    assert!(effects.tables[0].policy.contains(r#""pathVersion":"2""#));
}
