//! Names of routers: default names, and the loss of a name; and clocks that are off.

use std::time::Duration;

use http::{Method, StatusCode};
use serin_router::{Config, TimeSource};
use serin_schemas::{ids::EventTime, records::Heartbeat};

use crate::harness::{Bench, Events, config, eventually, log};

fn beats(bench: &Bench) -> Vec<Heartbeat> {
    Events::read(&bench.log).heartbeats()
}

#[tokio::test(flavor = "multi_thread")]
async fn two_routers_without_a_name_are_two_writers() {
    let unnamed = || Config { name: String::new(), ..config() };
    let first = Bench::start(unnamed()).await;
    let second = Bench::on(first.log.clone(), unnamed()).await;
    eventually("both write", async || {
        let names: std::collections::BTreeSet<String> =
            beats(&first).into_iter().map(|beat| beat.writer.name).collect();
        (names.len() == 2).then_some(())
    })
    .await;
    assert_eq!((first.router.ready(), second.router.ready()), (Ok(()), Ok(())));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_router_without_a_name_keeps_its_name_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let unnamed = Config { name: String::new(), data_dir: folder.path().to_owned(), ..config() };
    let log = log();
    for count in 1..=3 {
        let bench = Bench::on(log.clone(), unnamed.clone()).await;
        bench.router.reload(unnamed.clone()).unwrap();
        eventually("each process writes under the same name", async || {
            let beats = beats(&bench);
            let processes: std::collections::BTreeSet<i64> = beats.iter().map(|beat| beat.writer.incarnation).collect();
            let names: std::collections::BTreeSet<&str> = beats.iter().map(|beat| beat.writer.name.as_str()).collect();
            assert!(names.len() <= 1, "{names:?}");
            (processes.len() == count).then_some(())
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_router_that_lost_its_name_is_not_ready_gives_the_reason_and_no_longer_reports() {
    let older = Bench::start(config()).await;
    let newer = Bench::on(older.log.clone(), config()).await;
    let why = eventually("the older one notices", async || older.router.ready().err()).await;
    assert!(why.contains("another process writes under the router's name, \"router-0\""), "{why}");
    assert!(why.contains("`router.name`"), "{why}");
    assert_eq!(newer.router.ready(), Ok(()));
    let readyz = older.admin(Method::GET, "/readyz", "").await;
    assert_eq!(readyz.status, StatusCode::SERVICE_UNAVAILABLE);
    // It still serves callers until an operator removes it, but no longer writes records that would be refused.
    let own = |beat: &Heartbeat, newest: i64| beat.writer.incarnation < newest;
    let count = |newest| beats(&newer).iter().filter(|beat| own(beat, newest)).count();
    let newest = beats(&newer).iter().map(|beat| beat.writer.incarnation).max().unwrap();
    let before = count(newest);
    let all = beats(&newer).len();
    eventually("the newer one continues", async || (beats(&newer).len() > all + 30).then_some(())).await;
    // One round of heartbeats may have been in progress.
    assert!(count(newest) <= before + crate::harness::PARTITIONS as usize);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_router_whose_clock_is_off_reports_it_and_stays_ready() {
    let machine = TimeSource::system();
    for (off_s, way) in [(-300, "behind"), (300, "ahead of")] {
        let time = TimeSource::manual(EventTime(machine.wall().0 + off_s * 1_000_000));
        let bench = Bench::with(log(), config(), time.clone()).await;
        let line = eventually("its clock is reported", async || {
            // The clock must advance so that the router reports.
            time.advance(Duration::from_millis(20));
            let ready = bench.admin(Method::GET, "/readyz", "").await;
            assert_eq!(ready.status, StatusCode::OK);
            let text = String::from_utf8_lossy(&ready.body).into_owned();
            text.lines().find(|line| line.starts_with("- clock: ")).map(str::to_owned)
        })
        .await;
        assert!(line.contains(way) && line.contains("the log's"), "{line}");
    }
    let right = Bench::start(config()).await;
    eventually("it has reported some times", async || (crate::harness::statuses(&right.log).len() > 12).then_some(()))
        .await;
    let text = right.admin(Method::GET, "/readyz", "").await;
    assert!(!String::from_utf8_lossy(&text.body).contains("clock: "));
}
