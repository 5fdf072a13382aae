//! Windows match the events on the log exactly, whichever processes are killed, and the loss of a killed router is bounded.

mod support;

use std::{collections::BTreeSet, process::Command};

use anyhow::{Context as _, Result, ensure};
use reqwest::Method;
use serde_json::{Value, json};
use serin_tests::kafka::{Broker, BrokerOptions, unique_prefix};

use support::{Demo, PATIENCE, Pipeline, REPLAY, WALL, alone, http, http_with, oracle, wait_until};

/// Size of the router's event queue in these tests.
const QUEUE: u64 = 200;

/// Size of the router's event queue for a replay. It is larger than the number of events in flight between two clock updates, so that a
/// slow disk does not cause drops.
const REPLAY_QUEUE: u64 = 2000;

/// Maximum number of kills in one replay.
const MOST_KILLS: usize = 20;

/// Kills `up` repeatedly, each time some windows later. At most the queue of each killed router is lost, and the windows match the
/// remaining events.
#[test]
fn windows_equal_events_after_many_kills() -> Result<()> {
    let _alone = alone();
    let queue = format!("router.event_queue={REPLAY_QUEUE}");
    let mut pipeline = Pipeline::embedded(&[&REPLAY[..], &[&queue]].concat())?;
    let mut demo = Demo::start(&["--scenario", "aa", "--attach", &pipeline.doors()])?;
    let mut kills = 0;
    let mut planned = None;
    while kills < MOST_KILLS && demo.is_running()? {
        // Three windows of six hours later. The rollout is promoted after about thirty windows.
        let further = planned.map_or(0, |planned: i64| planned + 3 * 6 * 3600 * 1_000_000);
        let progress = |pipeline: &Pipeline| pipeline.ask("/v1/rollouts/flights/progress")?["planned_through"].as_i64();
        wait_until(PATIENCE, || {
            let now = progress(&pipeline).filter(|now| *now > further);
            planned = now.or(planned);
            Ok(now.is_some() || !demo.is_running()?)
        })?;
        let phase = pipeline.ask("/v1/rollouts/flights").map(|state| state["phase"].clone());
        if phase.is_some_and(|phase| phase == "warming" || phase == "baking") {
            pipeline.kill("up")?;
            pipeline.start("up")?;
            pipeline.ready()?;
            kills += 1;
        }
    }
    let summary = demo.finish(2 * PATIENCE)?;
    assert_ne!(summary["rollouts"][0]["outcome"], "rolled_back", "equal versions: {summary:#}");
    assert!(kills >= 5, "only {kills} kills");
    pipeline.stop_all()?;

    let (events, windows) = (pipeline.tail("events")?, pipeline.tail("windows")?);
    let report = oracle::compare(&events, &windows)?;
    assert_eq!(report.stale, 0, "a killed process wrote after its successor");
    assert_eq!(report.incarnations, kills + 1);
    let requests = summary["requests"].as_u64().context("requests")?;
    // A call whose answer was interrupted by a kill is retried with the same id: it may be two events, but is one request.
    let (lost, twice) = (requests - report.requests as u64, report.predictions - report.requests);
    println!("{kills} kills; {report:?}");
    println!(
        "client requests - events = {lost}, at most {REPLAY_QUEUE} for each kill; {twice} requests answered twice"
    );
    assert!(lost <= REPLAY_QUEUE * kills as u64, "{lost} lost");
    the_oracle_finds_errors(&events, &windows)
}

/// Checks the oracle itself: it finds every kind of error in changed windows.
fn the_oracle_finds_errors(events: &[Value], windows: &[Value]) -> Result<()> {
    let closed = |record: &Value| record["type"] == "window_closed";
    let busy =
        |record: &Value| closed(record) && record["value"]["cells"].as_array().is_some_and(|cells| cells.len() > 5);
    let place = windows.iter().position(busy).context("a window with cells")?;
    let change = |change: &dyn Fn(&mut Vec<Value>)| {
        let mut changed = windows.to_vec();
        change(&mut changed);
        oracle::compare(events, &changed).err().map(|error| error.to_string()).unwrap_or_default()
    };
    let doubled = change(&|windows| windows.push(windows[place].clone()));
    assert!(doubled.contains("twice"), "{doubled}");
    let missing = change(&|windows| drop(windows.remove(place)));
    assert!(missing.contains("is not on the log"), "{missing}");
    let recounted = change(&|windows| windows[place]["value"]["arms"][0]["predictions"] = json!(1_000_000));
    assert!(recounted.contains("counts"), "{recounted}");
    let swapped = change(&|windows| {
        // The summary of another cell, of the same kind and form.
        let cells = &mut windows[place]["value"]["cells"];
        let other = cells[0]["summary"].clone();
        let differs = cells.as_array().and_then(|cells| cells.iter().position(|cell| cell["summary"] != other));
        cells[differs.unwrap_or_default()]["summary"] = other;
    });
    assert!(swapped.contains("expected"), "{swapped}");
    let predictions: Vec<usize> = (0..events.len()).filter(|&at| events[at]["type"] == "prediction").collect();
    let mut fewer = events.to_vec();
    fewer.remove(predictions[predictions.len() / 2]);
    let unexplained = oracle::compare(&fewer, windows).err().map(|error| error.to_string()).unwrap_or_default();
    assert!(!unexplained.is_empty());
    Ok(())
}

/// Starts a model server that answers immediately, on its own thread, and returns its address.
fn model_server() -> Result<String> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    listener.set_nonblocking(true)?;
    let url = format!("http://{}", listener.local_addr()?);
    std::thread::spawn(move || -> Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let app = axum::Router::new().fallback(|| async { axum::Json(json!({"outputs": []})) });
        runtime.block_on(async { Ok(axum::serve(tokio::net::TcpListener::from_std(listener)?, app).await?) })
    });
    Ok(url)
}

/// Sends `signal` to the test's own broker.
fn signal(broker: &Broker, signal: &str) -> Result<()> {
    let pid = broker.pid().context("the test's own broker is running")?.to_string();
    ensure!(Command::new("kill").args([signal, &pid]).status()?.success(), "kill {signal} {pid}");
    Ok(())
}

/// Sends calls with these numbers in their prediction ids, and checks that each is answered.
fn call(pipeline: &Pipeline, calls: std::ops::Range<u64>) -> Result<()> {
    let url = format!("{}/v2/models/m/infer", pipeline.router());
    for number in calls {
        let id = format!("call-{number}");
        let answer = http_with(Method::POST, &url, &[("x-prediction-id", &id)], Some(b"{}".to_vec()))?;
        ensure!(answer.status == 200, "call {number}: {answer:?}");
    }
    Ok(())
}

/// Ids of the calls with an event on the log.
fn on_the_log(pipeline: &Pipeline) -> Result<BTreeSet<String>> {
    let events = pipeline.tail("events")?;
    let predictions = events.iter().filter(|event| event["type"] == "prediction");
    Ok(predictions.filter_map(|event| event["value"]["request_id"].as_str().map(str::to_owned)).collect())
}

fn dropped(pipeline: &Pipeline) -> Result<u64> {
    let metrics = http(Method::GET, &format!("{}/metrics", pipeline.telemetry("router")), None)?.text;
    let lines = metrics.lines().filter(|line| line.starts_with("serin_router_events_dropped_total{"));
    lines.map(|line| Ok(line.rsplit(' ').next().context("a value")?.parse::<f64>()? as u64)).sum()
}

/// A broker is stopped, so that events queue up in the router. Then the router is killed. Calls are still answered, events that did not
/// fit into the queue are counted, and at most the events in the queue are lost without being counted.
#[test]
fn a_killed_router_loses_at_most_its_queue() -> Result<()> {
    let _alone = alone();
    let broker = Broker::start(BrokerOptions::default())?;
    let settings = [
        format!("router.event_queue={QUEUE}"),
        "router.models.m.stable=v1".to_owned(),
        format!("router.models.m.versions.v1={}", model_server()?),
    ];
    let settings: Vec<&str> = WALL.into_iter().chain(settings.iter().map(String::as_str)).collect();
    let mut pipeline = Pipeline::kafka_roles(broker.bootstrap(), &unique_prefix("queue"), &settings, &["router"])?;
    call(&pipeline, 0..100)?;
    wait_until(PATIENCE, || Ok(on_the_log(&pipeline)?.len() == 100)).context("the first hundred calls")?;

    signal(&broker, "-STOP")?;
    call(&pipeline, 100..100 + 2 * QUEUE)?;
    let counted = dropped(&pipeline)?;
    pipeline.kill("router")?;
    signal(&broker, "-CONT")?;
    pipeline.start("router")?;
    pipeline.ready()?;
    let (before, all) = (100 + 2 * QUEUE, 150 + 2 * QUEUE);
    call(&pipeline, before..all)?;
    let last = |ids: &BTreeSet<String>| (before..all).all(|number| ids.contains(&format!("call-{number}")));
    let mut there = BTreeSet::new();
    wait_until(PATIENCE, || {
        there = on_the_log(&pipeline)?;
        Ok(last(&there))
    })
    .context("the calls after the restart")?;

    let lost = all - there.len() as u64;
    println!(
        "client requests {all} - events {} = {lost}: {counted} dropped and counted, the rest was in the queue",
        there.len()
    );
    assert!((0..100).all(|number| there.contains(&format!("call-{number}"))), "an event has vanished from the log");
    assert!(lost <= counted + QUEUE, "{lost} lost, {counted} of them counted");
    assert!(counted > 0 && lost > 0, "the broker was stopped, but {counted} dropped, {lost} lost");
    Ok(())
}
