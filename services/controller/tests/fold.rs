//! The controller's fold: the records and rows that it writes, and the records that it refuses.

#![expect(clippy::unwrap_used, reason = "a panic fails the test")]

mod support;

use std::sync::Arc;

use bytes::Bytes;
use serin_controller::{ControllerFactory, NewestTables, RoutingTopic};
use serin_rollout::planner::Settings;
use serin_schemas::{
    codec,
    ids::Generation,
    records::{Arm, Command, Control, Decision, EventKind, Reason, RolloutEvent, RouterStatus, RoutingTable, Segment},
};
use serin_stream::{
    driver::FoldDriver,
    fold::FoldFactory,
    log::Log,
    record::{Headers, Outgoing, Target},
    sim::SimLog,
};
use serin_topology::{Cleanup, TopicSpec};
use support::{apply, body, headers, outgoing, verdict};

fn harness() -> FoldDriver {
    FoldDriver::new(|| ControllerFactory::without_log().fold(0)).unwrap()
}

fn feed<R: codec::Record>(harness: &mut FoldDriver, topic: &str, record: &R) -> Vec<Outgoing> {
    let record = harness.record(topic, 0, 1_000, "flights", headers::<R>("id"), Some(body(record)));
    let applied = harness.apply(&record).unwrap();
    assert_eq!(applied.poison, None);
    assert_eq!(applied.commit_now, !harness.pending().is_empty());
    harness.commit().unwrap()
}

fn read<R: codec::Record>(out: &[Outgoing], topic: &str) -> Vec<R> {
    let of_topic = out.iter().filter(|record| record.topic == topic);
    of_topic.map(|record| codec::read(&record.headers, record.value.as_ref().unwrap()).unwrap()).collect()
}

#[test]
fn a_rollout_writes_its_table_its_controls_and_its_audit_in_one_commit() {
    let mut harness = harness();
    let out = feed(&mut harness, "commands", &apply("r1"));
    let topics: Vec<_> = out.iter().map(|record| (record.topic, record.target)).collect();
    assert_eq!(
        topics,
        [
            ("events", Target::EveryPartition),
            ("windows", Target::EveryPartition),
            ("routing", Target::ByKey),
            ("audit", Target::ByKey),
        ]
    );
    assert!(out.iter().all(|record| record.key == "flights"));
    assert_eq!(read::<Control>(&out, "events"), read::<Control>(&out, "windows"));

    let mut warm = verdict("r1", 1, 10, Decision::Promote);
    warm.frozen = Some(r#"{"segments":{},"warmupEvents":1000}"#.into());
    let out = feed(&mut harness, "verdicts", &warm);
    let table = &read::<RoutingTable>(&out, "routing")[0];
    assert_eq!((table.generation, table.routes.len()), (Generation(2), 3));

    // A crash between input and commit: the same verdict gives the same records again.
    harness.crash().unwrap();
    let rollback = verdict("r1", 2, 20, Decision::Rollback);
    let record = harness.record(
        "verdicts",
        0,
        1_000,
        "flights",
        headers::<serin_schemas::records::Verdict>("id"),
        Some(body(&rollback)),
    );
    harness.apply(&record).unwrap();
    let before: Vec<_> = harness.pending().to_vec();
    harness.crash().unwrap();
    harness.apply(&record).unwrap();
    assert_eq!(harness.pending(), before);
    let out = harness.commit().unwrap();
    assert_eq!(read::<RolloutEvent>(&out, "audit")[0].kind, EventKind::RolledBack);
}

#[test]
fn a_refusal_is_an_audit_event_and_nothing_else() {
    let mut harness = harness();
    feed(&mut harness, "commands", &apply("r1"));
    let out = feed(&mut harness, "commands", &apply("r2"));
    assert_eq!(out.len(), 1);
    let event = &read::<RolloutEvent>(&out, "audit")[0];
    assert_eq!((event.kind, event.cause.as_deref()), (EventKind::Refused, Some("apply-r2")));
    assert_eq!(event.rollout.as_ref().unwrap().as_str(), "r2");
}

#[test]
fn bad_records_are_dead_lettered_and_the_rollout_continues() {
    let mut harness = harness();
    feed(&mut harness, "commands", &apply("r1"));
    let command = headers::<serin_schemas::records::Command>("id");
    let typed = |name| [("ce_type", name)].into_iter().collect();
    let (newer, foreign) = (typed("dev.serin.command.v99"), typed("dev.serin.prediction.v1"));
    let good = body(&apply("r2"));
    for (headers, value, code) in [
        (command.clone(), Some(Bytes::from_static(b"\xff\xff\xff")), "garbage"),
        (command, None, "garbage"),
        (newer, Some(good.clone()), "unknown_schema_version"),
        (foreign, Some(good.clone()), "unknown_type"),
        (Headers::default(), Some(good), "unknown_type"),
    ] {
        let record = harness.record("commands", 0, 0, "flights", headers, value);
        assert_eq!(harness.apply(&record).unwrap().poison.unwrap().code.as_str(), code);
    }
    assert!(harness.commit().unwrap().is_empty());
    let mut warm = verdict("r1", 1, 10, Decision::Promote);
    warm.frozen = Some("not json".into());
    let out = feed(&mut harness, "verdicts", &warm);
    assert_eq!(read::<RolloutEvent>(&out, "audit")[0].kind, EventKind::Warned);
}

#[test]
fn ticks_renew_the_lease_and_states_survive() {
    let mut harness = harness();
    harness.tick(1_000).unwrap();
    feed(&mut harness, "commands", &apply("r1"));
    let mut warm = verdict("r1", 1, 10, Decision::Promote);
    warm.frozen = Some(r#"{"segments":{},"warmupEvents":1000}"#.into());
    feed(&mut harness, "verdicts", &warm);
    assert!(!harness.tick(10_999).unwrap());
    harness.crash().unwrap();
    assert!(harness.tick(11_000).unwrap());
    let out = harness.commit().unwrap();
    assert_eq!(out.len(), 1);
    assert_eq!(read::<RoutingTable>(&out, "routing")[0].lease_seq, 1);
}

#[test]
fn a_router_status_is_kept_without_an_event() {
    let mut harness = harness();
    let status = RouterStatus {
        router: "router-0".into(),
        incarnation: 1,
        at: serin_schemas::ids::EventTime::from_secs(5),
        applied: Vec::new(),
        shed: Vec::new(),
        undecided: Vec::new(),
        refused: Vec::new(),
        configured: None,
        leaving: false,
        seen_outputs: Vec::new(),
        seen_labels: Vec::new(),
    };
    assert!(feed(&mut harness, "router-status", &status).is_empty());
    assert!(harness.rows().contains_key(&b"routers"[..]));
    let out = feed(&mut harness, "commands", &apply("r1"));
    // The routers' clock is event time before the first verdict.
    assert_eq!(read::<Control>(&out, "events")[0].decided_at, status.at);
}

#[test]
fn a_routers_configuration_is_written_when_it_changes() {
    let known = |url: &str| serin_schemas::records::Configured {
        model: "flights".into(),
        version: "v1".into(),
        stable: true,
        url: url.to_owned(),
        grpc_url: None,
        path_version: None,
    };
    let status = |secs: i64, configured: Vec<serin_schemas::records::Configured>, leaving: bool| RouterStatus {
        router: "router-0".into(),
        incarnation: 1,
        at: serin_schemas::ids::EventTime::from_secs(secs),
        applied: Vec::new(),
        shed: Vec::new(),
        undecided: Vec::new(),
        refused: Vec::new(),
        configured: Some(configured),
        leaving,
        seen_outputs: Vec::new(),
        seen_labels: Vec::new(),
    };
    let key = &b"configured/router-0"[..];
    let mut harness = harness();
    for (secs, url) in [(1, "http://localhost:9001"), (2, "http://localhost:9001"), (3, "http://localhost:9009")] {
        feed(&mut harness, "router-status", &status(secs, vec![known(url)], false));
        let rows = harness.rows();
        assert!(String::from_utf8_lossy(&rows[key]).contains(url));
        assert!(!String::from_utf8_lossy(&rows[&b"routers"[..]]).contains("localhost"));
    }
    // It survives a restart: the file names another address for stable.
    harness.crash().unwrap();
    let out = feed(&mut harness, "commands", &apply("r1"));
    let refused = read::<RolloutEvent>(&out, "audit").remove(0);
    assert!(refused.sentence.contains("http://localhost:9009"), "{}", refused.sentence);
    feed(&mut harness, "router-status", &status(4, Vec::new(), true));
    assert!(!harness.rows().contains_key(key));
}

#[test]
fn a_lost_state_goes_back_to_stable_above_the_newest_table_on_the_log() {
    let log = SimLog::new();
    let topics = ["routing"].map(|name| TopicSpec {
        name: name.to_owned(),
        partitions: 1,
        replication: 1,
        cleanup: Cleanup::Compact,
        settings: Vec::new(),
    });
    log.create(&topics).unwrap();
    let mut old = harness();
    feed(&mut old, "commands", &apply("r1"));
    let mut warm = verdict("r1", 1, 10, Decision::Promote);
    warm.frozen = Some(r#"{"segments":{},"warmupEvents":1000}"#.into());
    let out = feed(&mut old, "verdicts", &warm);
    let table = read::<RoutingTable>(&out, "routing").remove(0);
    let mut writer = log.transactional("test").unwrap();
    let written = [1, 40]
        .map(|generation| outgoing("routing", &RoutingTable { generation: Generation(generation), ..table.clone() }));
    writer.commit(&written, &[], None).unwrap();

    let tables: Arc<dyn NewestTables> = Arc::new(RoutingTopic(Arc::new(log)));
    assert_eq!(tables.newest(0).unwrap().len(), 1);
    let factory = ControllerFactory::new(Settings::default(), tables);
    let mut fresh = FoldDriver::new(move || factory.fold(0)).unwrap();
    assert!(fresh.tick(1).unwrap());
    let out = fresh.commit().unwrap();
    let table = &read::<RoutingTable>(&out, "routing")[0];
    assert_eq!((table.generation, table.routes.len(), table.routes[0].arm), (Generation(41), 1, Arm::Stable));
    // The state knows the table now, so another start adds nothing.
    fresh.crash().unwrap();
    assert!(!fresh.tick(2).unwrap());
}

/// The largest spec that lint accepts, in the worst shapes: long lists in the table, long pointers, many values to freeze.
fn largest_spec() -> serin_spec::RolloutSpec {
    let mut spec = serin_rollout::parse_yaml(support::SPEC).unwrap();
    let dimension = |n: usize| serin_spec::SegmentSpec {
        rows: serin_spec::BatchRows::All,
        name: format!("d{n}"),
        source: serin_spec::SegmentSource::Header("x".to_owned()),
        top: 100,
    };
    spec.segments = (0..28).map(dimension).collect();
    spec.metrics[0].segments = spec.segments.iter().map(|segment| segment.name.clone()).collect();
    let rule = spec.outputs[0].clone();
    let mut n = 0;
    while serin_rollout::lint(&spec, None).iter().all(|problem| problem.severity != serin_spec::Severity::Error) {
        let source = serin_spec::OutputSource::Json(format!("/{}", "p".repeat(1000)));
        spec.outputs.push(serin_spec::OutputRule { name: format!("output-{n}"), source, ..rule.clone() });
        n += 1;
    }
    spec.outputs.pop();
    spec
}

#[test]
fn every_record_of_the_largest_rollout_fits_into_its_topic() {
    let spec = largest_spec();
    let text = serde_json::to_string(&spec).unwrap();
    assert!(text.len() > 200_000, "{} bytes", text.len());
    let mut harness = harness();
    let apply = Command { spec: Some(text), ..apply("r1") };
    let mut out = feed(&mut harness, "commands", &apply);
    // As many more rollouts as the queue takes.
    for n in 0..9 {
        let mut spec = spec.clone();
        spec.concurrency = serin_spec::Concurrency::Queue;
        let spec = Some(serde_json::to_string(&spec).unwrap());
        let queued = Command {
            id: format!("queued-{n}"),
            rollout: Some(format!("q{n}").as_str().into()),
            spec,
            ..apply.clone()
        };
        out.extend(feed(&mut harness, "commands", &queued));
    }
    // The most that warm-up may freeze.
    let value = |n: usize| format!("{n:03}{}", "\"".repeat(125));
    let values: Vec<String> = (0..100).map(value).collect();
    let segments = (0..28).map(|n| (format!("d{n}"), values.clone())).collect();
    let frozen = serin_spec::Frozen { segments, warmup_events: u64::MAX };
    let mut warm = verdict("r1", 1, 10, Decision::Promote);
    warm.frozen = Some(serde_json::to_string(&frozen).unwrap());
    out.extend(feed(&mut harness, "verdicts", &warm));
    let mut rollback = verdict("r1", 2, 20, Decision::Rollback);
    let reason = Reason { metric: "wrong".into(), segment: Segment::all(), sentence: "s".repeat(10_000) };
    rollback.reasons = vec![reason; 500];
    out.extend(feed(&mut harness, "verdicts", &rollback));
    let kinds: Vec<EventKind> = read::<RolloutEvent>(&out, "audit").iter().map(|event| event.kind).collect();
    assert!(kinds.contains(&EventKind::Advanced) && kinds.contains(&EventKind::RolledBack), "{kinds:?}");
    let topics = serin_topology::Topology::default().topics();
    for record in &out {
        let topic = topics.iter().find(|topic| topic.name == record.topic).unwrap();
        let limit = topic.settings.iter().find(|(name, _)| name == "max.message.bytes");
        // The default limit of a broker.
        let limit = limit.map_or(1_048_588, |(_, value)| value.parse().unwrap());
        assert!(record.size() + 2_000 < limit, "{} bytes on {}", record.size(), record.topic);
    }
    let rows = harness.rows();
    let largest = rows.values().map(Bytes::len).max().unwrap();
    assert!(largest > 2_000_000 && largest < 8 << 20, "the largest row has {largest} bytes");
}

#[test]
fn commands_with_long_texts_are_dead_lettered() {
    let mut harness = harness();
    let long = || "x".repeat(100_000);
    let good = apply("r1");
    for command in [
        Command { id: long(), ..good.clone() },
        Command { rollout: Some(long().as_str().into()), ..good.clone() },
        Command { actor: long(), ..good.clone() },
        Command { reason: long(), ..good.clone() },
        Command { model: long().as_str().into(), ..good.clone() },
    ] {
        let record = harness.record("commands", 0, 0, "flights", headers::<Command>("id"), Some(body(&command)));
        assert_eq!(harness.apply(&record).unwrap().poison.unwrap().code.as_str(), "too_long");
    }
    feed(&mut harness, "commands", &good);
}
