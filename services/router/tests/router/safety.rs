//! Failing arms and rollbacks: fallback, ejection, draining, limits, a clean exit.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use http::{Method, StatusCode};
use http_body_util::BodyExt as _;
use serin_router::Config;
use serin_schemas::records::{Arm, Assignment};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::{
    harness::{Bench, Events, config, eventually, statuses, table},
    upstreams::{Reply, Server, streaming, unused_address},
};

#[tokio::test(flavor = "multi_thread")]
async fn a_failing_canary_is_shed_counted_and_reported_immediately() {
    let stable = Server::start(Reply::probability("0.1")).await;
    let bench = Bench::start(config()).await;
    let mut split = table(1, &stable.url(), &format!("http://{}", unused_address().await), (10_000, 0));
    split.fallback = true;
    bench.route(&split).await;
    for _ in 0..20 {
        let got = bench.infer(&[]).await;
        assert_eq!((got.status, got.header("x-model-version")), (StatusCode::OK, "v1"), "stable answers instead");
    }
    let found = bench.predictions(40).await;
    let of = |arm, error: &str| {
        found.iter().filter(|found| found.arm == arm && found.error.as_deref().unwrap_or("") == error).count()
    };
    assert_eq!(
        (of(Arm::Canary, "connect"), of(Arm::Canary, "shed")),
        (5, 15),
        "every call of its share counts as its failure"
    );
    assert_eq!(of(Arm::Stable, ""), 20);
    let stable_answers = found.iter().filter(|found| found.arm == Arm::Stable);
    assert!(
        stable_answers.into_iter().all(|found| found.assignment == Assignment::Fallback),
        "excluded from the comparison"
    );
    let shed = statuses(&bench.log).into_iter().flat_map(|(_, status)| status.shed).next().unwrap();
    assert_eq!((shed.model.as_str(), shed.version.as_str()), ("flights", "v2"));
    assert_eq!(shed.cause, "5 calls in a row failed, the last one: connect");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shed_canary_is_probed_and_called_again() {
    let (stable, canary) = (Server::start(Reply::probability("0.1")).await, unused_address().await);
    let bench = Bench::start(config()).await;
    bench.route(&table(1, &stable.url(), &format!("http://{canary}"), (10_000, 0))).await;
    for _ in 0..6 {
        bench.infer(&[]).await;
    }
    let shed = bench.infer(&[]).await;
    assert_eq!((shed.status, &shed.json()["cause"]), (StatusCode::SERVICE_UNAVAILABLE, &"shed".into()));
    let listener = tokio::net::TcpListener::bind(canary).await.unwrap();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let mut request = [0; 4096];
                while stream.read(&mut request).await.is_ok_and(|read| read > 0) {
                    let body = r#"{"outputs":[{"name":"p","shape":[1],"datatype":"FP64","data":[0.9]}]}"#;
                    let answer = format!(
                        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
                        body.len()
                    );
                    let _ = stream.write_all(answer.as_bytes()).await;
                }
            });
        }
    });
    eventually("the canary answers again", async || (bench.infer(&[]).await.status == StatusCode::OK).then_some(()))
        .await;
    eventually("its return is reported", async || {
        statuses(&bench.log).last().filter(|(_, status)| status.shed.is_empty()).map(|_| ())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_failing_server_of_several_is_ejected() {
    let (good, stable) =
        (Server::start(Reply::probability("0.9")).await, Server::start(Reply::probability("0.1")).await);
    let bench = Bench::start(config()).await;
    let urls = format!("http://{}, {}", unused_address().await, good.url());
    bench.route(&table(1, &stable.url(), &urls, (10_000, 0))).await;
    let mut failed = 0;
    for _ in 0..60 {
        failed += usize::from(bench.infer(&[]).await.status != StatusCode::OK);
    }
    assert!((5..20).contains(&failed), "five failures in a row, and occasional probes: {failed}");
    let found = bench.predictions(60).await;
    let from = good.address.to_string();
    let good = found.iter().filter(|found| found.error.is_none());
    assert!(good.into_iter().all(|found| found.classes["response.instance"] == from), "the event names the server");
}

#[tokio::test(flavor = "multi_thread")]
async fn stable_is_called_whatever_happens() {
    let bench = Bench::start(config()).await;
    let dead = format!("http://{}", unused_address().await);
    bench.route(&table(1, &dead, &dead, (0, 0))).await;
    for _ in 0..12 {
        assert_eq!(bench.infer(&[]).await.json()["cause"], "connect");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_number_of_calls_per_server_is_limited() {
    let slow = Reply { delay: Duration::from_millis(250), ..Reply::probability("0.9") };
    let (stable, canary) = (Server::start(Reply::probability("0.1")).await, Server::start(slow).await);
    let mut config = config();
    config.limits.per_server = 2;
    let bench = Arc::new(Bench::start(config).await);
    bench.route(&table(1, &stable.url(), &canary.url(), (10_000, 0))).await;
    let calls = (0..6).map(|_| {
        let bench = Arc::clone(&bench);
        tokio::spawn(async move { bench.infer(&[]).await.status })
    });
    let mut statuses = Vec::new();
    for call in calls.collect::<Vec<_>>() {
        statuses.push(call.await.unwrap());
    }
    let full = statuses.iter().filter(|status| **status == StatusCode::SERVICE_UNAVAILABLE).count();
    assert!((1..=4).contains(&full), "{statuses:?}");
    let found = bench.predictions(6).await;
    assert_eq!(found.iter().filter(|found| found.error.as_deref() == Some("full")).count(), full);
}

/// A caller that sends requests until it is stopped, and counts the calls that failed.
async fn hammer(to: SocketAddr, stop: Arc<AtomicBool>, failed: Arc<AtomicUsize>) {
    let client = hyper_util::client::legacy::Client::builder(hyper_util::rt::TokioExecutor::new()).build_http();
    while !stop.load(Ordering::Relaxed) {
        let request = http::Request::post(format!("http://{to}/v2/models/flights/infer"));
        let body = http_body_util::Full::<bytes::Bytes>::from(r#"{"inputs":[]}"#);
        let whole = match client.request(request.body(body).unwrap()).await {
            Ok(response) => response.status() == StatusCode::OK && response.into_body().collect().await.is_ok(),
            Err(_) => false,
        };
        failed.fetch_add(usize::from(!whole), Ordering::Relaxed);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_rollback_is_applied_no_call_reaches_the_canary_and_calls_in_flight_finish() {
    let slow = |text| Reply { delay: Duration::from_millis(20), ..Reply::probability(text) };
    let (stable, canary) = (Server::start(slow("0.1")).await, Server::start(slow("0.9")).await);
    let bench = Bench::start(config()).await;
    bench.route(&table(1, &stable.url(), &canary.url(), (5_000, 5_000))).await;
    let (stop, failed) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let callers: Vec<_> = (0..16)
        .map(|_| tokio::spawn(hammer(bench.router.data_addr(), Arc::clone(&stop), Arc::clone(&failed))))
        .collect();
    for round in 0..4 {
        let before = canary.calls();
        eventually("the canary is called", async || (canary.calls() > before + 50).then_some(())).await;
        let mut back = table(2 * round + 2, &stable.url(), &stable.url(), (0, 0));
        back.routes.truncate(1);
        bench.route(&back).await;
        // The router reports that it has applied the table: all later calls go to stable. Calls that were assigned to the canary before may
        // still be on their way to it, and end normally.
        let settled = eventually("calls in flight end", async || {
            let calls = canary.calls();
            let found = Events::read(&bench.log).predictions();
            (found.iter().filter(|found| found.arm == Arm::Canary).count() == calls).then_some(calls)
        })
        .await;
        let stables = stable.calls();
        eventually("stable continues", async || (stable.calls() > stables + 100).then_some(())).await;
        assert_eq!(canary.calls(), settled, "round {round}");
        let late =
            Events::read(&bench.log).predictions().into_iter().filter(|found| found.generation.0 == 2 * round + 2);
        assert!(late.into_iter().all(|found| found.arm == Arm::Stable), "no call of the new table goes to the canary");
        bench.route(&table(2 * round + 3, &stable.url(), &canary.url(), (5_000, 5_000))).await;
    }
    stop.store(true, Ordering::Relaxed);
    for caller in callers {
        caller.await.unwrap();
    }
    assert_eq!(failed.load(Ordering::Relaxed), 0, "calls in flight finish");
    let errors = Events::read(&bench.log).predictions().into_iter().filter_map(|found| found.error);
    assert_eq!(errors.collect::<Vec<_>>(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_of_a_rolled_back_version_is_cut_after_the_time_to_drain() {
    let stable = Server::start(Reply::probability("0.1")).await;
    let (canary, pieces) = streaming().await;
    let mut config = config();
    config.timeouts.idle = serin_spec::units::Duration::from_secs(60);
    let bench = Bench::start(config).await;
    let mut split = table(1, &stable.url(), &format!("http://{canary}"), (10_000, 0));
    split.policy = r#"{"drain":"300ms"}"#.into();
    bench.route(&split).await;
    let uri = format!("http://{}/v2/models/flights/generate_stream", bench.router.data_addr());
    let request = http::Request::post(uri).body(http_body_util::Full::from("{}")).unwrap();
    let response = bench.client.request(request).await.unwrap();
    let mut body = response.into_body();
    pieces.send("data: one\n\n".into()).unwrap();
    assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "data: one\n\n");

    let mut back = table(2, &stable.url(), &stable.url(), (0, 0));
    back.routes.truncate(1);
    bench.route(&back).await;
    pieces.send("data: two\n\n".into()).unwrap();
    assert_eq!(
        body.frame().await.unwrap().unwrap().into_data().unwrap(),
        "data: two\n\n",
        "it may continue for the drain timeout"
    );
    assert!(body.frame().await.unwrap().is_err(), "then the caller sees that it was cut");
    let found = bench.predictions(1).await;
    assert_eq!((found[0].error.as_deref(), found[0].arm), (Some("cut"), Arm::Canary));
    assert_eq!(bench.infer(&[]).await.status, StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_waits_for_a_rolled_back_version_is_cut_too() {
    let slow = Reply { delay: Duration::from_secs(20), ..Reply::probability("0.9") };
    let (stable, canary) = (Server::start(Reply::probability("0.1")).await, Server::start(slow).await);
    let mut config = config();
    config.timeouts.first_byte = serin_spec::units::Duration::from_secs(60);
    let bench = Arc::new(Bench::start(config).await);
    let mut split = table(1, &stable.url(), &canary.url(), (10_000, 0));
    split.policy = r#"{"drain":"100ms"}"#.into();
    bench.route(&split).await;
    let call = tokio::spawn({
        let bench = Arc::clone(&bench);
        async move { bench.infer(&[]).await }
    });
    eventually("the canary has the call", async || (canary.calls() == 1).then_some(())).await;
    let mut back = table(2, &stable.url(), &stable.url(), (0, 0));
    back.routes.truncate(1);
    bench.route(&back).await;
    let got = call.await.unwrap();
    assert_eq!((got.status, &got.json()["cause"]), (StatusCode::BAD_GATEWAY, &"cut".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn callers_that_keep_their_connections_see_no_failure_when_a_router_shuts_down() {
    let stable = Server::start(Reply::probability("0.1")).await;
    let mut config = config();
    config.timeouts.lame_duck = serin_spec::units::Duration::from_secs(5);
    let bench = Bench::start(config).await;
    bench.route(&table(1, &stable.url(), &stable.url(), (0, 0))).await;
    let address = bench.router.data_addr();
    // Each caller keeps one connection and uses it until an answer announces that it is the last one.
    let callers: Vec<_> = (0..16)
        .map(|_| {
            tokio::spawn(async move {
                let mut stream = TcpStream::connect(address).await.unwrap();
                let request = "POST /v2/models/flights/infer HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n{}";
                for calls in 1.. {
                    stream.write_all(request.as_bytes()).await.unwrap();
                    let mut answer = Vec::new();
                    while !answer.ends_with(b"]}]}") {
                        let read = stream.read_buf(&mut answer).await.unwrap();
                        assert!(read > 0, "call {calls} was not answered: {}", String::from_utf8_lossy(&answer));
                    }
                    if String::from_utf8_lossy(&answer).contains("connection: close") {
                        return calls;
                    }
                }
                0
            })
        })
        .collect();
    eventually("they are busy", async || (stable.calls() > 200).then_some(())).await;
    let started = Instant::now();
    bench.router.shutdown(Duration::from_secs(20)).await;
    for caller in callers {
        assert!(caller.await.unwrap() > 1);
    }
    assert!(started.elapsed() < Duration::from_secs(5), "it does not wait when no callers are connected");
}

/// hyper closes a connection without any received bytes as soon as it is shut down.
#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_has_just_connected_is_answered_by_a_router_that_shuts_down() {
    let stable = Server::start(Reply::probability("0.1")).await;
    let mut config = config();
    config.timeouts.lame_duck = serin_spec::units::Duration::from_secs(0);
    let bench = Bench::start(config).await;
    bench.route(&table(1, &stable.url(), &stable.url(), (0, 0))).await;
    let address = bench.router.data_addr();
    let request = "POST /v2/models/flights/infer HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n{}";
    let mut silent = TcpStream::connect(address).await.unwrap();
    let mut kept = TcpStream::connect(address).await.unwrap();
    kept.write_all(request.as_bytes()).await.unwrap();
    let mut first = Vec::new();
    while !first.ends_with(b"]}]}") {
        assert!(kept.read_buf(&mut first).await.unwrap() > 0);
    }
    kept.write_all(&request.as_bytes()[..20]).await.unwrap();
    let leaving = tokio::spawn(bench.router.shutdown(Duration::from_secs(20)));
    eventually("it accepts no more", async || TcpStream::connect(address).await.is_err().then_some(())).await;
    silent.write_all(request.as_bytes()).await.unwrap();
    kept.write_all(&request.as_bytes()[20..]).await.unwrap();
    for mut caller in [silent, kept] {
        let mut answer = Vec::new();
        caller.read_to_end(&mut answer).await.unwrap();
        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("connection: close"), "{answer}");
    }
    leaving.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn readiness_lists_details() {
    let stable = Server::start(Reply::probability("0.1")).await;
    let bench = Bench::start(config()).await;
    bench.route(&table(1, &stable.url(), &format!("http://{}", unused_address().await), (10_000, 0))).await;
    let readyz = async || String::from_utf8(bench.admin(Method::GET, "/readyz", "").await.body.to_vec()).unwrap();
    assert!(readyz().await.starts_with("ready\n+ routing log: read to its end\n"), "{}", readyz().await);
    for _ in 0..5 {
        bench.infer(&[]).await;
    }
    assert!(
        readyz().await.contains("\n- flights: v2 is not called for a while: 5 calls in a row"),
        "{}",
        readyz().await
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_configuration_is_reloaded_while_calls_continue() {
    let (old, new) = (Server::start(Reply::probability("0.1")).await, Server::start(Reply::probability("0.2")).await);
    let folder = tempfile::tempdir().unwrap();
    let with = |url: &str, more: serde_json::Value| {
        let mut config = Config { data_dir: folder.path().to_owned(), ..config() };
        let model = serde_json::json!({"stable": "v1", "versions": {"v1": url}});
        config.models.insert("flights".into(), serde_json::from_value(model).unwrap());
        let mut whole = serde_json::to_value(&config).unwrap();
        whole["admin_token"] = "".into();
        for (key, value) in more.as_object().unwrap() {
            whole[key.as_str()] = value.clone();
        }
        serde_json::from_value::<Config>(whole).unwrap()
    };
    let bench = Bench::start(with(&old.url(), serde_json::json!({}))).await;
    assert!(bench.infer(&[]).await.body.ends_with(b"[0.1]}]}"));
    bench.router.reload(with(&new.url(), serde_json::json!({"ejection": {"failures": 9}}))).unwrap();
    assert!(bench.infer(&[]).await.body.ends_with(b"[0.2]}]}"));

    let moved =
        bench.router.reload(with(&old.url(), serde_json::json!({"name": "other", "event_queue": 7}))).unwrap_err();
    assert_eq!(moved.0, ["event_queue: needs a restart", "name: needs a restart"]);
    let broken = bench.router.reload(with("ftp://x", serde_json::json!({}))).unwrap_err();
    assert!(broken.0[0].starts_with("models.flights.versions.v1: "), "{broken}");
    assert!(bench.infer(&[]).await.body.ends_with(b"[0.2]}]}"), "nothing has changed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_affects_no_call_and_is_reported() {
    let (stable, canary) =
        (Server::start(Reply::probability("0.1")).await, Server::start(Reply::probability("0.9")).await);
    let folder = tempfile::tempdir().unwrap();
    // Writes to these files fail as on a full disk.
    for name in ["tables.new", "switch.new"] {
        std::os::unix::fs::symlink("/dev/full", folder.path().join(name)).unwrap();
    }
    let bench = Bench::start(Config { data_dir: folder.path().to_owned(), ..config() }).await;
    bench.route(&table(1, &stable.url(), &canary.url(), (10_000, 0))).await;
    for _ in 0..20 {
        assert_eq!(bench.infer(&[]).await.header("x-model-arm"), "canary");
    }
    let answer = bench.admin(Method::POST, "/switch/all-stable", r#"{"on":true}"#).await.json();
    assert_eq!((&answer["all_stable"], &answer["kept"]), (&true.into(), &false.into()));
    assert!(answer["warning"].as_str().unwrap().contains("No space left on device"), "{answer}");
    assert_eq!(bench.infer(&[]).await.header("x-model-arm"), "stable", "the switch works anyway");
    bench.router.shutdown(Duration::from_secs(5)).await;
    assert!(!folder.path().join("tables").exists(), "no incomplete file is left");
}
