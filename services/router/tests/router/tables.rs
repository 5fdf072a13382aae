//! Tables: newer ones win, older ones are ignored, leases end, tables from disk are unconfirmed, garbage has no effect.

use std::time::Duration;

use http::{Method, StatusCode};
use serin_router::{Config, ModelConfig, TimeSource};
use serin_schemas::{headers::Headers, ids::EventTime, records::Assignment};

use crate::{
    harness::{Bench, config, eventually, put, put_raw, statuses, table},
    upstreams::{Reply, Server, unused_address},
};

async fn two() -> (Server, Server) {
    (Server::start(Reply::probability("0.1")).await, Server::start(Reply::probability("0.9")).await)
}

fn known(stable: &Server) -> Config {
    let mut config = config();
    let versions = [("v1".to_owned(), stable.url().as_str().into())].into();
    let model = ModelConfig {
        stable: "v1".into(),
        versions,
        versioned_paths: false,
        zones: [].into(),
        paths: vec![],
        segments: vec![],
        outputs: vec![],
    };
    config.models.insert("flights".into(), model);
    config
}

#[tokio::test(flavor = "multi_thread")]
async fn older_generations_and_garbage_are_ignored() {
    let (stable, canary) = two().await;
    let bench = Bench::start(config()).await;
    bench.route(&table(5, &stable.url(), &canary.url(), (0, 0))).await;
    put(&bench.log, &table(4, &stable.url(), &canary.url(), (10_000, 0)));
    put_raw(&bench.log, "flights", Some("\u{0}garbage".into()), Headers::default());
    let newer = [("ce_type", "dev.serin.routing_table.v99")].into_iter().collect();
    put_raw(&bench.log, "flights", Some("x".into()), newer);
    // A newer table, which is read after all of them.
    let mut other = table(1, &stable.url(), &canary.url(), (0, 0));
    other.model = "flights".into();
    other.generation.0 = 6;
    other.routes[0].share = 9_000;
    other.routes[2].share = 1_000;
    bench.route(&other).await;
    bench.route(&table(7, &stable.url(), &canary.url(), (0, 0))).await;
    let calls = canary.calls();
    for _ in 0..50 {
        assert_eq!(bench.infer(&[]).await.header("x-model-arm"), "stable");
    }
    assert_eq!(canary.calls(), calls);
    assert!(bench.predictions(50).await.iter().all(|found| found.generation.0 == 7));
}

/// The newest record is reported as unreadable until a readable one follows.
#[tokio::test(flavor = "multi_thread")]
async fn an_unreadable_record_is_reported_until_a_readable_one_follows() {
    let (stable, canary) = two().await;
    let bench = Bench::start(config()).await;
    let good = table(5, &stable.url(), &canary.url(), (10_000, 0));
    bench.route(&good).await;
    let refused = || {
        // The newest status of each partition.
        let newest: std::collections::BTreeMap<i32, _> = statuses(&bench.log).into_iter().collect();
        newest.into_values().flat_map(|status| status.refused).map(|table| table.generation.0).collect::<Vec<_>>()
    };
    let older = table(4, &stable.url(), &canary.url(), (0, 0));
    let newer = table(6, &stable.url(), &canary.url(), (10_000, 0));
    for next in [&good, &older, &newer] {
        put_raw(&bench.log, "flights", Some("\u{0}garbage".into()), Headers::default());
        eventually("it is reported", async || (refused() == [0]).then_some(())).await;
        // It does not affect the table before it.
        assert_eq!(bench.infer(&[]).await.header("x-model-arm"), "canary");
        put(&bench.log, next);
        eventually("it is no longer reported", async || refused().is_empty().then_some(())).await;
    }
    assert_eq!(bench.infer(&[]).await.header("x-model-arm"), "canary");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_unusable_table_ends_the_canary() {
    let (stable, canary) = two().await;
    let bench = Bench::start(config()).await;
    bench.route(&table(1, &stable.url(), &canary.url(), (10_000, 0))).await;
    assert_eq!(bench.infer(&[]).await.header("x-model-arm"), "canary");
    let mut broken = table(2, &stable.url(), &canary.url(), (5_000, 0));
    broken.routes[0].share = 1;
    put(&bench.log, &broken);
    eventually("all calls go to stable", async || {
        (bench.infer(&[]).await.header("x-model-arm") == "stable").then_some(())
    })
    .await;
    bench.route(&table(3, &stable.url(), &canary.url(), (10_000, 0))).await;
    assert_eq!(bench.infer(&[]).await.header("x-model-arm"), "canary");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_ends_unless_it_is_renewed() {
    let (stable, canary) = two().await;
    let time = TimeSource::manual(EventTime::from_secs(1_700_000_000));
    let bench = Bench::with(crate::harness::log(), config(), time).await;
    let mut split = table(1, &stable.url(), &canary.url(), (10_000, 0));
    split.lease_ms = 60_000;
    bench.route(&split).await;
    let arm = async || bench.infer(&[]).await.header("x-model-arm").to_owned();
    bench.time.advance(Duration::from_secs(59));
    assert_eq!(arm().await, "canary");
    split.lease_seq = 1;
    bench.route(&split).await;
    bench.time.advance(Duration::from_secs(59));
    assert_eq!(arm().await, "canary");
    bench.time.advance(Duration::from_secs(1));
    assert_eq!(arm().await, "stable");
    // A renewal brings the canary back.
    split.lease_seq = 2;
    bench.route(&split).await;
    assert_eq!(arm().await, "canary");
    let assignments: Vec<_> = bench.predictions(4).await.iter().map(|found| found.assignment).collect();
    assert_eq!(assignments.iter().filter(|&&found| found == Assignment::LeaseExpired).count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_from_disk_is_stable_until_the_log_confirms_it() {
    let (stable, canary) = two().await;
    let folder = tempfile::tempdir().unwrap();
    let with_folder = || Config { data_dir: folder.path().to_owned(), ..config() };
    let split = table(3, &stable.url(), &canary.url(), (10_000, 0));
    let log = crate::harness::log();
    let first = Bench::on(log.clone(), with_folder()).await;
    first.route(&split).await;
    eventually("the table is on disk", async || {
        std::fs::read(folder.path().join("tables")).ok().filter(|file| file.len() > 50)
    })
    .await;
    first.router.shutdown(Duration::from_secs(5)).await;

    // On a log without the table it stays unconfirmed: all calls go to stable.
    let lost = Bench::on(crate::harness::log(), with_folder()).await;
    assert_eq!(lost.infer(&[]).await.header("x-model-arm"), "stable");
    assert_eq!(lost.predictions(1).await[0].assignment, Assignment::LeaseExpired);
    assert!(statuses(&lost.log).iter().all(|(_, status)| status.applied.is_empty()), "it is not reported as applied");
    lost.router.shutdown(Duration::from_secs(5)).await;

    // The log that contains the table confirms it.
    let again = Bench::on(log, with_folder()).await;
    assert_eq!(again.infer(&[]).await.header("x-model-arm"), "canary");
    again.router.shutdown(Duration::from_secs(5)).await;

    // A new log is right, even if its generations are smaller.
    let fresh = crate::harness::log();
    put(&fresh, &table(1, &stable.url(), &canary.url(), (10_000, 0)));
    let renewed = Bench::on(fresh, with_folder()).await;
    assert_eq!(renewed.infer(&[]).await.header("x-model-arm"), "canary");
    renewed.router.shutdown(Duration::from_secs(5)).await;

    // A corrupt file is ignored.
    std::fs::write(folder.path().join("tables"), "serin-tables 1 0000000000000000\n[]").unwrap();
    let corrupt = Bench::on(crate::harness::log(), with_folder()).await;
    assert_eq!(corrupt.infer(&[]).await.status, StatusCode::NOT_FOUND);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_table_the_configuration_serves_and_a_tombstone_brings_it_back() {
    let (stable, canary) = two().await;
    let bench = Bench::start(known(&stable)).await;
    assert_eq!(bench.infer(&[]).await.header("x-model-version"), "v1");
    let mut split = table(1, &stable.url(), &canary.url(), (10_000, 0));
    // The table has no URL of v1; the configuration does.
    split.routes[0].url = None;
    split.routes[1].url = None;
    bench.route(&split).await;
    assert_eq!(bench.infer(&[]).await.header("x-model-version"), "v2");
    put_raw(&bench.log, "flights", None, Headers::default());
    eventually("the tombstone is applied", async || {
        (bench.infer(&[]).await.header("x-model-version") == "v1").then_some(())
    })
    .await;
    eventually("calls without a table are reported", async || {
        let found = crate::harness::Events::read(&bench.log).predictions();
        found.iter().any(|found| found.generation.0 == 0 && found.rollout.is_none()).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn applied_tables_are_reported_fast() {
    let (stable, canary) = two().await;
    let bench = Bench::start(config()).await;
    for generation in 1..=20 {
        bench.route(&table(generation, &stable.url(), &canary.url(), (100, 1000))).await;
    }
    let partition = serin_stream::partition_of(b"flights", crate::harness::PARTITIONS);
    let last = eventually("generation 20 is reported", async || {
        let (at, status) = statuses(&bench.log)
            .into_iter()
            .find(|(_, status)| status.applied.iter().any(|applied| applied.generation.0 == 20))?;
        (at == partition).then_some(status)
    })
    .await;
    assert_eq!((last.router.as_str(), last.applied.len(), last.leaving), ("router-0", 1, false));
    // Every partition gets reports of this router, independent of its models.
    eventually("all partitions have a report", async || {
        let reported: std::collections::BTreeSet<i32> = statuses(&bench.log).iter().map(|(at, _)| *at).collect();
        (reported.len() == crate::harness::PARTITIONS as usize).then_some(())
    })
    .await;
    let applied = statuses(&bench.log).into_iter().flat_map(|(_, status)| status.applied);
    let best = applied.map(|applied| applied.apply_us).min().unwrap();
    // A loaded machine may delay any of them, so only the fastest one is checked.
    assert!(best < 10_000, "none of 20 tables was applied within 10 ms; best: {best} us");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_switch_works_without_the_log_and_survives_a_restart() {
    let (stable, canary) = two().await;
    let folder = tempfile::tempdir().unwrap();
    let with_folder = || Config { data_dir: folder.path().to_owned(), ..config() };
    let log = crate::harness::log();
    let bench = Bench::on(log.clone(), with_folder()).await;
    bench.route(&table(1, &stable.url(), &canary.url(), (10_000, 0))).await;
    assert_eq!(bench.infer(&[]).await.header("x-model-arm"), "canary");
    let set = bench.admin(Method::POST, "/switch/all-stable", r#"{"on":true}"#).await;
    assert_eq!((set.status, set.json()["kept"].clone()), (StatusCode::OK, true.into()));
    assert_eq!(bench.infer(&[]).await.header("x-model-arm"), "stable");
    assert_eq!(bench.infer(&[("x-model-version", "v2")]).await.header("x-model-arm"), "stable");
    bench.router.shutdown(Duration::from_secs(5)).await;
    let again = Bench::on(log, with_folder()).await;
    assert_eq!(again.infer(&[]).await.header("x-model-arm"), "stable");
    assert_eq!(
        again.predictions(4).await.iter().filter(|found| found.assignment == Assignment::SwitchedOff).count(),
        3
    );
    let wrong = again.admin(Method::POST, "/switch/all-stable", "off").await;
    assert_eq!(wrong.status, StatusCode::BAD_REQUEST);
    assert!(wrong.json()["error"].as_str().unwrap().ends_with(r#"send for example {"on": true}"#));
    again.admin(Method::POST, "/switch/all-stable", r#"{"on":false}"#).await;
    assert_eq!(again.infer(&[]).await.header("x-model-arm"), "canary");
}

#[tokio::test(flavor = "multi_thread")]
async fn admin_changes_need_the_token_and_health_does_not() {
    let mut config = known(&Server::start(Reply::ok("{}")).await);
    config.admin_token = serin_access::Secret::new("secret");
    let bench = Bench::start(config).await;
    for (method, path) in
        [(Method::GET, "/tables"), (Method::POST, "/switch/all-stable"), (Method::PUT, "/replay/clock")]
    {
        assert_eq!(bench.admin(method, path, "{}").await.status, StatusCode::UNAUTHORIZED, "{path}");
    }
    assert_eq!(bench.admin(Method::GET, "/healthz", "").await.status, StatusCode::OK);
    assert_eq!(bench.admin(Method::GET, "/readyz", "").await.status, StatusCode::OK);
    let request = http::Request::get("/tables").header("authorization", "Bearer secret");
    assert_eq!(bench.send(bench.router.admin_addr(), request, "").await.status, StatusCode::OK);
    assert_eq!(unused_address().await.ip(), bench.router.admin_addr().ip());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unusable_table_is_reported_everywhere_and_compiled_again_with_another_configuration() {
    let (stable, canary) = two().await;
    let folder = tempfile::tempdir().unwrap();
    let mut config = Config { data_dir: folder.path().to_owned(), ..known(&stable) };
    let bench = Bench::start(config.clone()).await;
    let status_with = async |what: &str, good: &dyn Fn(&serin_schemas::records::RouterStatus) -> bool| {
        let at = async || statuses(&bench.log).into_iter().map(|(_, status)| status).rev().find(|status| good(status));
        eventually(what, at).await
    };
    // The configuration is reported before any table.
    let status = status_with("its configuration", &|status| status.configured.iter().flatten().next().is_some()).await;
    let own = &status.configured.unwrap()[0];
    assert_eq!((own.version.as_str(), own.stable, own.url.as_str()), ("v1", true, stable.url().as_str()));

    let (good, bad) = (stable.url(), format!("{},b:2", canary.url()));
    let mut nowhere = table(2, &good, &bad, (5_000, 0));
    for (url, reason) in [(Some(bad), "the scheme must be http, https or h2c"), (None, "version \"v2\" has no URL")] {
        nowhere.generation.0 += 1;
        nowhere.routes[2].url = url;
        put(&bench.log, &nowhere);
        let generation = nowhere.generation;
        let is_it = move |status: &serin_schemas::records::RouterStatus| {
            status.refused.iter().any(|table| table.generation == generation && table.reason.contains(reason))
        };
        let status = status_with("the refusal", &is_it).await;
        assert!(status.applied.is_empty(), "{status:?}");
        let ready = bench.admin(Method::GET, "/readyz", "").await;
        let line = String::from_utf8_lossy(&ready.body).into_owned();
        assert!(line.starts_with("ready\n") && line.contains("- flights: the table of generation"), "{line}");
        assert!(line.contains("all calls follow the configuration"), "{line}");
        let tables = bench.admin(Method::GET, "/tables", "").await.json();
        assert!(tables["refused"][0]["reason"].as_str().unwrap().contains(reason), "{tables}");
        assert_eq!(bench.infer(&[]).await.status, StatusCode::OK);
    }
    // An operator adds the missing servers to the configuration.
    let versions = &mut config.models.get_mut("flights").unwrap().versions;
    versions.insert("v2".to_owned(), canary.url().as_str().into());
    bench.router.reload(config).unwrap();
    let generation = nowhere.generation;
    let is_it = move |status: &serin_schemas::records::RouterStatus| {
        status.refused.is_empty() && status.applied.iter().any(|table| table.generation == generation)
    };
    status_with("its use", &is_it).await;
}
