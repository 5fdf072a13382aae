//! A router is restarted under load without failed calls: a new process takes over from the old one, or systemd holds the sockets.

mod support;
#[path = "support/world.rs"]
mod world;

use std::{
    collections::BTreeMap,
    os::fd::OwnedFd,
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use serin_tests::kafka::{Broker, BrokerOptions, unique_prefix};
use support::{PATIENCE, Pipeline, SERIN, http, wait_until};
use world::{Behavior, MODEL, borrowed, infer, model_server, wall};

/// Calls and feedback, half of them over new connections and half over kept ones, with counts of their results.
struct Load {
    stop: Arc<AtomicBool>,
    seen: Arc<Mutex<BTreeMap<String, u64>>>,
    thread: Option<JoinHandle<()>>,
}

const PER_SECOND: u32 = 200;

impl Load {
    fn start(router: &str) -> Self {
        let (stop, seen) = (Arc::new(AtomicBool::new(false)), Arc::<Mutex<BTreeMap<_, _>>>::default());
        let (asked, counts, router) = (Arc::clone(&stop), Arc::clone(&seen), router.to_owned());
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async move {
                let client = |kept| {
                    // A connection that is idle for longer than `timeouts.lame_duck` is closed silently (docs/upgrade.md).
                    let builder = reqwest::Client::builder().pool_idle_timeout(Duration::from_secs(1));
                    let builder = builder.timeout(Duration::from_secs(30)).pool_max_idle_per_host(kept);
                    builder.build().expect("a client")
                };
                let clients = [client(0), client(64)];
                let mut pace = tokio::time::interval(Duration::from_secs(1) / PER_SECOND);
                let mut calls = tokio::task::JoinSet::new();
                let mut number = 0;
                while !asked.load(Ordering::Relaxed) {
                    pace.tick().await;
                    calls.spawn(call(clients[number % 2].clone(), router.clone(), Arc::clone(&counts)));
                    number += 1;
                    while calls.try_join_next().is_some() {}
                }
                while calls.join_next().await.is_some() {}
            });
        });
        Self { stop, seen, thread: Some(thread) }
    }

    fn seen(&self) -> BTreeMap<String, u64> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits for `calls` further good calls.
    fn more(&self, calls: u64) -> Result<()> {
        let good = || self.seen().get("call: 200").copied().unwrap_or(0);
        let before = good();
        wait_until(PATIENCE, || Ok(good() >= before + calls)).with_context(|| format!("{:?}", self.seen()))
    }

    /// Stops the load, and returns the counts of all results.
    fn finish(mut self) -> BTreeMap<String, u64> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().map(JoinHandle::join);
        self.seen()
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

async fn call(client: reqwest::Client, router: String, seen: Arc<Mutex<BTreeMap<String, u64>>>) {
    let note = |what: String| *seen.lock().unwrap_or_else(PoisonError::into_inner).entry(what).or_default() += 1;
    let sent = client.post(format!("{router}/v2/models/{MODEL}/infer")).body(infer().to_string()).send().await;
    let answer = match sent {
        Ok(answer) => answer,
        Err(error) => return note(format!("call: {error:?}")),
    };
    let status = answer.status().as_u16();
    let id = answer.headers().get("x-prediction-id").and_then(|id| id.to_str().ok()).unwrap_or_default().to_owned();
    if let Err(error) = answer.bytes().await {
        return note(format!("call: {error:?}"));
    }
    note(format!("call: {status}"));
    let feedback = json!({"prediction_id": id, "values": {"late": 0}});
    match client.post(format!("{router}/v1/feedback")).body(feedback.to_string()).send().await {
        Ok(answer) => note(format!("feedback: {}", answer.status().as_u16())),
        Err(error) => note(format!("feedback: {error:?}")),
    }
}

/// Checks that every call and every label was accepted, and returns their numbers.
fn all_good(seen: &BTreeMap<String, u64>) -> Result<(u64, u64)> {
    let of = |what: &str| seen.get(what).copied().unwrap_or(0);
    ensure!(seen.keys().all(|what| what == "call: 200" || what == "feedback: 202"), "{seen:#?}");
    Ok((of("call: 200"), of("feedback: 202")))
}

#[test]
fn a_router_is_replaced_twice_under_load_and_no_call_fails() -> Result<()> {
    let broker = Broker::start(BrokerOptions::default())?;
    let good = model_server(Behavior::Good);
    let settings = wall(&[("v1", &good), ("v2", &good)]);
    let mut pipeline = Pipeline::kafka(broker.bootstrap(), &unique_prefix("replace"), &borrowed(&settings))?;
    let user = world::User(pipeline.api());
    user.apply(&world::rollout("v2", "2h"));
    let load = Load::start(&pipeline.router());
    load.more(100)?;
    for _ in 0..2 {
        pipeline.replace("router")?;
        load.more(400)?;
    }
    let (calls, labels) = all_good(&load.finish())?;
    ensure!(calls == labels && calls > 900, "{calls} calls, {labels} labels");
    // A router writes all its events to the log before it exits.
    pipeline.stop_all()?;
    let letters = pipeline.tail("dead-letters")?;
    ensure!(letters.is_empty(), "{} dead letters, such as {:#}", letters.len(), letters[0]);
    let events = pipeline.tail("events")?;
    let count = |kind: &str| events.iter().filter(|event| event["type"] == kind).count() as u64;
    assert_eq!((count("prediction"), count("feedback")), (calls, labels));
    let writers: std::collections::BTreeSet<&str> =
        events.iter().filter_map(|event| event["value"]["writer"]["name"].as_str()).collect();
    assert_eq!(writers.len(), 3, "{writers:?}");
    Ok(())
}

#[test]
fn a_second_router_without_replace_is_refused_and_one_that_is_alone_starts() -> Result<()> {
    let broker = Broker::start(BrokerOptions::default())?;
    let settings = wall(&[("v1", &model_server(Behavior::Good))]);
    let prefix = unique_prefix("alone");
    let mut pipeline = Pipeline::kafka_roles(broker.bootstrap(), &prefix, &borrowed(&settings), &["router"])?;
    let second = Command::new(SERIN).arg("router").args(pipeline.arguments("router")).stdin(Stdio::null()).output()?;
    let errors = String::from_utf8_lossy(&second.stderr).into_owned();
    ensure!(!second.status.success() && errors.contains("cannot be bound") && errors.contains("--replace"), "{errors}");
    // Without a process to replace, the router starts as usual, even if a killed process has left its socket file.
    pipeline.kill("router")?;
    pipeline.start_with("router", &["--replace"])?;
    pipeline.ready()?;
    Ok(())
}

/// The standard library only passes the first three descriptors to a child. A shell moves the socket to the descriptor that systemd uses.
const ACTIVATED: &str = "LISTEN_FDS=1 LISTEN_PID=$$ exec \"$0\" \"$@\" 3<&0 </dev/null";

/// Starts a process as systemd does, with bound sockets.
fn activated(pipeline: &Pipeline, sockets: &[std::net::TcpListener]) -> Result<Child> {
    let [socket] = sockets else { anyhow::bail!("one socket") };
    let arguments = pipeline.arguments("up");
    let socket = OwnedFd::from(socket.try_clone()?);
    let mut command = Command::new("sh");
    command.args(["-c", ACTIVATED, SERIN, "up"]).args(arguments).stdin(Stdio::from(socket));
    command.args(["--set", "telemetry.listen=127.0.0.1:0"]);
    Ok(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?)
}

#[test]
fn on_sockets_of_systemd_a_restart_refuses_no_connection() -> Result<()> {
    let good = model_server(Behavior::Good);
    let settings = wall(&[("v1", &good)]);
    let pipeline = Pipeline::idle(&borrowed(&settings))?;
    let address = pipeline.router().replace("http://", "");
    let sockets = [std::net::TcpListener::bind(&address)?];
    let ready = || {
        wait_until(PATIENCE, || {
            Ok(http(reqwest::Method::GET, &format!("{}/readyz", pipeline.admin()), None)
                .is_ok_and(|got| got.status == 200))
        })
    };
    let mut child = activated(&pipeline, &sockets)?;
    ready()?;
    let load = Load::start(&pipeline.router());
    load.more(100)?;
    for _ in 0..2 {
        ensure!(Command::new("kill").args(["-TERM", &child.id().to_string()]).status()?.success());
        ensure!(child.wait()?.success());
        child = activated(&pipeline, &sockets)?;
        ready()?;
        load.more(400)?;
    }
    let seen = load.finish();
    child.kill()?;
    child.wait()?;
    let (calls, labels) = all_good(&seen)?;
    ensure!(calls == labels && calls > 900, "{calls} calls, {labels} labels");
    Ok(())
}

#[test]
fn a_socket_without_a_matching_setting_is_refused() -> Result<()> {
    let pipeline = Pipeline::idle(&[])?;
    let socket = std::net::TcpListener::bind("127.0.0.1:0")?;
    let address = socket.local_addr()?;
    let mut command = Command::new("sh");
    command
        .args(["-c", ACTIVATED, SERIN, "up"])
        .args(pipeline.arguments("up"))
        .stdin(Stdio::from(OwnedFd::from(socket)));
    let output = command.args(["--set", "telemetry.listen=127.0.0.1:0"]).output()?;
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(
        !output.status.success()
            && errors.contains(&address.to_string())
            && errors.contains("matches no configured address"),
        "{errors}"
    );
    Ok(())
}
