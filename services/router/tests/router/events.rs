//! The order of events and heartbeats, and the effect of a full queue or a lost log.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use http::{Method, StatusCode};
use serin_router::{Config, Report, TimeSource};
use serin_schemas::{
    event::EventRecord,
    ids::{EventTime, Generation},
    records::{Arm, RoutingTable},
};

use crate::{
    harness::{Bench, Events, config, eventually, replay, statuses, table},
    upstreams::{Reply, Server},
};

/// Checks the guarantees of every partition; returns the number of predictions.
pub(crate) fn check_promises(events: &Events) -> usize {
    let mut count = 0;
    for partition in &events.0 {
        let mut floor = EventTime(i64::MIN);
        let mut last: BTreeMap<i64, i64> = BTreeMap::new();
        for event in partition {
            let next = |writer: &serin_schemas::records::Writer, last: &mut BTreeMap<i64, i64>| {
                let seq = last.entry(writer.incarnation).or_default();
                *seq += 1;
                assert_eq!(writer.seq, *seq, "numbers are consecutive in the order of the log");
            };
            match event {
                EventRecord::Prediction(found) => {
                    assert!(found.completed_at >= floor, "{} after {floor}", found.completed_at);
                    next(&found.writer, &mut last);
                    count += 1;
                }
                EventRecord::Feedback(found) => next(&found.writer, &mut last),
                EventRecord::Heartbeat(found) => {
                    assert!(found.low_watermark >= floor, "a watermark never goes back");
                    floor = found.low_watermark;
                    let seq = last.get(&found.writer.incarnation).copied().unwrap_or_default();
                    assert_eq!(found.writer.seq, seq, "a heartbeat contains the last number");
                }
                EventRecord::Control(_) => panic!("routers write no control records"),
            }
        }
    }
    count
}

async fn calls(bench: &Arc<Bench>, count: usize, workers: usize) {
    let mut tasks = Vec::new();
    for _ in 0..workers {
        let bench = Arc::clone(bench);
        tasks.push(tokio::spawn(async move {
            for _ in 0..count / workers {
                assert_eq!(bench.infer(&[]).await.status, StatusCode::OK);
            }
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_event_follows_a_heartbeat_that_excludes_it() {
    let server = Server::start(Reply::probability("0.5")).await;
    let mut config = config();
    config.heartbeat_every = serin_spec::units::Duration::parse("1ms").unwrap();
    let bench = Arc::new(Bench::start(config).await);
    bench.route(&table(1, &server.url(), &server.url(), (1000, 9000))).await;
    calls(&bench, 2000, 8).await;
    bench.predictions(2000).await;
    let events = Events::read(&bench.log);
    assert_eq!(check_promises(&events), 2000);
    assert!(events.heartbeats().len() > 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn guarantees_hold_with_a_wall_clock_that_does_not_advance() {
    let server = Server::start(Reply::probability("0.5")).await;
    // A clock that does not move: every heartbeat and every event has the same time.
    let time = TimeSource::manual(EventTime::from_secs(1_700_000_000));
    let bench = Arc::new(Bench::with(crate::harness::log(), config(), time).await);
    bench.route(&table(1, &server.url(), &server.url(), (0, 0))).await;
    calls(&bench, 50, 2).await;
    bench.predictions(50).await;
    assert_eq!(check_promises(&Events::read(&bench.log)), 50);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_clock_moves_when_everything_before_it_is_on_the_log() {
    let server = Server::start(Reply { delay: Duration::from_millis(30), ..Reply::probability("0.5") }).await;
    let bench = Arc::new(Bench::start(replay()).await);
    bench.route(&table(1, &server.url(), &server.url(), (0, 0))).await;
    let unset = bench.infer(&[]).await;
    assert_eq!(unset.status, StatusCode::SERVICE_UNAVAILABLE, "the replay clock is not set");
    let hour = 3_600_000_000_i64;
    let mut sent = 0;
    for window in 1..=4_i64 {
        let mut tasks = Vec::new();
        for n in 0..20_i64 {
            let bench = Arc::clone(&bench);
            let at = ((window - 1) * hour + n * 60_000_000).to_string();
            tasks.push(tokio::spawn(async move { bench.infer(&[("x-serin-event-time", &at)]).await }));
            sent += 1;
        }
        // The clock is set while all of them are in flight, so it must wait.
        eventually("all are in flight", async || (server.calls() == sent).then_some(())).await;
        let end = window * hour;
        let set = bench.admin(Method::PUT, "/replay/clock", &format!(r#"{{"now_us":{end}}}"#)).await;
        assert_eq!((set.status, set.json()["settled"].clone()), (StatusCode::OK, true.into()));
        let events = Events::read(&bench.log);
        assert_eq!(check_promises(&events), sent);
        assert_eq!(events.heartbeats().len(), 3 * window as usize, "one per partition, on the log before the answer");
        assert!(events.heartbeats().iter().rev().take(1).all(|beat| beat.low_watermark == EventTime(end)));
        for task in tasks {
            assert_eq!(task.await.unwrap().status, StatusCode::OK);
        }
    }
    let predictions = Events::read(&bench.log).predictions();
    assert!(predictions.iter().all(|found| found.completed_at.0 % 60_000_000 == 0), "stated times are kept exactly");
    eventually("the status reports the new time", async || {
        statuses(&bench.log).iter().any(|(_, status)| status.at == EventTime(4 * hour)).then_some(())
    })
    .await;
    let back = bench.admin(Method::PUT, "/replay/clock", r#"{"now_us":7}"#).await;
    assert_eq!(back.status, StatusCode::CONFLICT);
    assert!(back.json()["error"].as_str().unwrap().contains("cannot go back"));
    // The same time again is allowed, so that a failed request can be repeated.
    assert_eq!(
        bench.admin(Method::PUT, "/replay/clock", &format!(r#"{{"now_us":{}}}"#, 4 * hour)).await.status,
        StatusCode::OK
    );
    // A call with a stated time in the past gets the time of the clock.
    bench.infer(&[("x-serin-event-time", "7")]).await;
    bench.predictions(sent + 1).await;
    check_promises(&Events::read(&bench.log));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wall_clock_router_ignores_stated_times() {
    let server = Server::start(Reply::probability("0.5")).await;
    let bench = Bench::start(config()).await;
    bench.route(&table(1, &server.url(), &server.url(), (0, 0))).await;
    bench.infer(&[("x-serin-event-time", "7")]).await;
    assert!(bench.predictions(1).await[0].completed_at > EventTime::from_secs(1_600_000_000));
    assert_eq!(bench.admin(Method::PUT, "/replay/clock", r#"{"now_us":7}"#).await.status, StatusCode::NOT_FOUND);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_latency_stated_by_a_server_is_used_only_with_a_replay_clock() {
    let latency = async |config: Config, stated: &str| {
        let server = Server::start(Reply::probability("0.5").with("x-serin-latency-us", stated)).await;
        let bench = Bench::start(config).await;
        bench.route(&table(1, &server.url(), &server.url(), (0, 0))).await;
        bench.infer(&[("x-serin-event-time", "60000000")]).await;
        bench.predictions(1).await[0].latency_us.unwrap()
    };
    let hour = 3_600_000_000;
    assert_eq!(latency(replay(), "3600000000").await, hour);
    assert!(latency(config(), "3600000000").await < hour, "a wall-clock router measures");
    for no_time in ["-1", "soon", "1.5"] {
        assert!(latency(replay(), no_time).await < hour, "{no_time}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_seeded_split_depends_only_on_the_prediction_id() {
    let server = Server::start(Reply::probability("0.5")).await;
    let mut arms = Vec::new();
    for _ in 0..2 {
        let mut config = replay();
        config.random_seed = Some(7);
        let bench = Bench::start(config).await;
        bench.route(&table(1, &server.url(), &server.url(), (5000, 0))).await;
        let mut run = Vec::new();
        for n in 0..100 {
            let id = format!("id-{n}");
            let got = bench.infer(&[("x-prediction-id", &id), ("x-serin-event-time", "1")]).await;
            run.push(got.header("x-model-arm").to_owned());
        }
        arms.push(run);
    }
    assert_eq!(arms[0], arms[1]);
    let canary = arms[0].iter().filter(|arm| *arm == "canary").count();
    assert!((25..=75).contains(&canary), "{canary}");
}

#[tokio::test(flavor = "multi_thread")]
async fn shutdown_lets_requests_finish_and_writes_leaving_records() {
    let server = Server::start(Reply { delay: Duration::from_millis(200), ..Reply::probability("0.5") }).await;
    let bench = Bench::start(config()).await;
    bench.route(&table(1, &server.url(), &server.url(), (0, 0))).await;
    let uri = format!("http://{}/v2/models/flights/infer", bench.router.data_addr());
    let request = http::Request::post(uri).body(http_body_util::Full::from("{}")).unwrap();
    let flying = tokio::spawn(bench.client.request(request));
    eventually("it is in flight", async || (server.calls() == 1).then_some(())).await;
    let (log, readiness) = (bench.log.clone(), bench.router.readiness());
    bench.router.shutdown(Duration::from_secs(10)).await;
    assert_eq!(readiness(), Err("the router is shutting down".to_owned()));
    let answer = flying.await.unwrap().unwrap();
    assert_eq!((answer.status(), &answer.headers()["connection"]), (StatusCode::OK, &"close".parse().unwrap()));
    // No wait is needed: when shutdown returns, everything is on the log.
    let events = Events::read(&log);
    assert_eq!(check_promises(&events), 1);
    for partition in &events.0 {
        let Some(EventRecord::Heartbeat(last)) = partition.last() else { panic!("the last record is a heartbeat") };
        assert!(last.leaving);
    }
    assert_eq!(events.predictions()[0].arm, Arm::Stable);
    let leaving = statuses(&log).iter().filter(|(_, status)| status.leaving).count();
    assert_eq!(leaving, 3, "one status per partition");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_outlasts_the_shutdown_is_cut_and_has_one_event() {
    let hanging = crate::upstreams::raw(b"", true).await;
    let mut config = config();
    config.timeouts.first_byte = serin_spec::units::Duration::from_secs(600);
    let bench = Bench::start(config).await;
    let url = format!("http://{hanging}");
    bench.route(&table(1, &url, &url, (0, 0))).await;
    let uri = format!("http://{}/v2/models/flights/infer", bench.router.data_addr());
    let cut = http::Request::post(uri).body(http_body_util::Full::from("{}")).unwrap();
    let flying = tokio::spawn(bench.client.request(cut));
    eventually("it is in flight", async || {
        let tables = bench.admin(Method::GET, "/tables", "").await;
        (tables.json()["in_flight"] == 1).then_some(())
    })
    .await;
    let log = bench.log.clone();
    bench.router.shutdown(Duration::from_millis(100)).await;
    assert!(flying.await.unwrap().is_err());
    let events = Events::read(&log);
    assert_eq!(check_promises(&events), 1);
    assert_eq!(events.predictions()[0].error.as_deref(), Some("stopped"));
    for partition in &events.0 {
        assert!(matches!(partition.last(), Some(EventRecord::Heartbeat(last)) if last.leaving));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn models_without_a_rollout_are_reported_unless_configured_otherwise() {
    let server = Server::start(Reply::probability("0.1")).await;
    for (report, without) in [(Report::Rollouts, 0), (Report::All, 2)] {
        let bench = Bench::start(Config { report, ..config() }).await;
        let rollout = table(2, &server.url(), &server.url(), (0, 0));
        bench.route(&RoutingTable { generation: Generation(1), rollout: None, ..rollout.clone() }).await;
        for _ in 0..2 {
            assert_eq!(bench.infer(&[]).await.status, StatusCode::OK);
        }
        bench.route(&rollout).await;
        let got = bench.infer(&[]).await;
        let found = bench.predictions(without + 1).await;
        let last = found.iter().filter(|found| found.request_id.as_str() == got.header("x-prediction-id"));
        assert_eq!(last.count(), 1, "{report:?}: {found:#?}");
    }
}
