//! Reading requests for decisions, independent of their size, compression and content type; and the effect of unreadable requests.

use std::{collections::BTreeSet, io::Write as _};

use bytes::Bytes;
use http::{Request, StatusCode};
use serde_json::json;
use serin_router::{Config, ModelConfig};
use serin_schemas::records::{Arm, Assignment, RoutingTable};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::{
    harness::{Bench, Got, config, eventually, statuses, table},
    upstreams::{Reply, Server},
};

const INFER: &str = "/v2/models/flights/infer";
const FORM: &str = "application/x-www-form-urlencoded";

/// Header names and values.
type Headers<'a> = &'a [(&'a str, &'a str)];

pub(crate) async fn servers() -> (Server, Server) {
    (Server::start(Reply::probability("0.1")).await, Server::start(Reply::probability("0.9")).await)
}

/// A table with two equal halves that is split by this key, without any other rules.
fn sticky(servers: &(Server, Server), key: &str) -> RoutingTable {
    let mut table = table(1, &servers.0.url(), &servers.1.url(), (5_000, 5_000));
    table.sticky = Some(key.to_owned());
    table.segments = String::new();
    table
}

pub(crate) fn gzip(body: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(body).unwrap();
    encoder.finish().unwrap()
}

pub(crate) fn deflate(body: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(body).unwrap();
    encoder.finish().unwrap()
}

pub(crate) fn zstd(body: &[u8]) -> Vec<u8> {
    ruzstd::encoding::compress_to_vec(body, ruzstd::encoding::CompressionLevel::Fastest)
}

/// Sends a call with exactly these headers.
pub(crate) async fn plain(bench: &Bench, path: &str, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Got {
    let request = headers.iter().fold(Request::post(path), |request, (name, value)| request.header(*name, *value));
    bench.send(bench.router.data_addr(), request, body).await
}

/// A user always gets the same arm, independent of the form of the requests.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_read_in_every_form_of_the_body() {
    let servers = servers().await;
    let bench = Bench::start(config()).await;
    bench.route(&sticky(&servers, r#"{"json":"/user"}"#)).await;
    let mut arms = BTreeSet::new();
    let mut calls = 0;
    for user in 0..12 {
        let small = json!({"user": format!("u{user}"), "inputs": []}).to_string();
        let first = json!({"a": 1, "user": format!("u{user}"), "pad": "x".repeat(80_000)}).to_string();
        let last = format!(r#"{{"user":"x","pad":"{}","user":"u{user}"}}"#, "y".repeat(300_000));
        let marked = [b"\xef\xbb\xbf", small.as_bytes()].concat();
        let json = ("content-type", "application/json");
        let forms: [(Headers<'_>, Vec<u8>); 11] = [
            (&[json], small.clone().into_bytes()),
            (&[("content-type", FORM)], small.clone().into_bytes()),
            (&[("content-type", "text/plain; charset=utf-8")], small.clone().into_bytes()),
            (&[], small.clone().into_bytes()),
            (&[json], marked),
            (&[json], first.clone().into_bytes()),
            (&[("content-type", FORM)], last.clone().into_bytes()),
            (&[json, ("content-encoding", "gzip")], gzip(last.as_bytes())),
            (&[json, ("content-encoding", "deflate")], deflate(small.as_bytes())),
            (&[json, ("content-encoding", "zstd")], zstd(first.as_bytes())),
            (&[("content-encoding", "identity")], first.into_bytes()),
        ];
        let mut found = BTreeSet::new();
        for (headers, body) in forms {
            let got = plain(&bench, INFER, headers, body.clone()).await;
            assert_eq!(got.status, StatusCode::OK, "{headers:?}");
            found.insert(got.header("x-model-arm").to_owned());
            calls += 1;
            let seen = [servers.0.seen(), servers.1.seen()].concat();
            assert!(seen.iter().any(|seen| seen.body == body), "the server gets the caller's bytes: {headers:?}");
        }
        assert_eq!(found.len(), 1, "user {user}: {found:?}");
        arms.extend(found);
    }
    assert_eq!(arms.len(), 2, "users are split");
    let predictions = bench.predictions(calls).await;
    assert!(predictions.iter().all(|found| found.assignment == Assignment::Sticky && found.unit.is_some()));
}

#[tokio::test(flavor = "multi_thread")]
async fn unreadable_requests_go_to_stable_and_are_reported() {
    let servers = servers().await;
    let bench = Bench::start(config()).await;
    bench.route(&sticky(&servers, r#"{"json":"/user"}"#)).await;
    let json = ("content-type", "application/json");
    let deep = format!(r#"{{"x":{}{},"user":"u"}}"#, "[".repeat(2000), "]".repeat(2000));
    let long = format!(r#"{{"user":"{}"}}"#, "u".repeat(70_000));
    let forms: [(Headers<'_>, &[u8]); 6] = [
        (&[json], br#"{"user":"u","inputs":["#),
        (&[json, ("content-encoding", "lzma")], b"{}"),
        (&[json, ("content-encoding", "gzip")], b"{}"),
        (&[json], deep.as_bytes()),
        (&[json], long.as_bytes()),
        (&[("content-type", FORM)], br#"{"user":{"id":7}}"#),
    ];
    for (headers, body) in forms {
        for _ in 0..4 {
            let got = plain(&bench, INFER, headers, body.to_vec()).await;
            assert_eq!((got.status, got.header("x-model-version")), (StatusCode::OK, "v1"), "{headers:?}");
        }
    }
    let predictions = bench.predictions(24).await;
    let unreadable = |found: &serin_schemas::records::Prediction| {
        (found.assignment, found.arm, found.unit) == (Assignment::Unreadable, Arm::Stable, None)
    };
    assert!(predictions.iter().all(unreadable), "{predictions:#?}");
    // Requests without a key are split at random, as documented. Their share is reported too.
    for body in ["{}", "", "user=u1&x=2", r#"{"user":null}"#] {
        assert_eq!(plain(&bench, INFER, &[("content-type", FORM)], body).await.status, StatusCode::OK);
    }
    let reported = eventually("the status reports them", async || {
        let all = statuses(&bench.log).into_iter().map(|(_, status)| status.undecided);
        let mut reported = all.map(|all| {
            all.into_iter().map(|entry| (entry.needed, entry.reason, entry.calls, entry.of)).collect::<Vec<_>>()
        });
        reported.find(|entries| entries.iter().any(|entry| entry.1 == "absent" && entry.2 == 4))
    })
    .await;
    let reported: Vec<_> =
        reported.iter().map(|(needed, reason, calls, of)| (needed.as_str(), reason.as_str(), *calls, *of)).collect();
    let expected = [
        ("sticky", "absent", 4, 28),
        ("sticky", "encoding", 8, 28),
        ("sticky", "not_a_scalar", 4, 28),
        ("sticky", "not_json", 4, 28),
        ("sticky", "too_deep", 4, 28),
        ("sticky", "too_long", 4, 28),
    ];
    assert_eq!(reported, expected);
}

/// A tenant that must stay on stable never gets the canary, and calls with an unknown segment are excluded from the comparison.
#[tokio::test(flavor = "multi_thread")]
async fn requests_with_unreadable_targets_or_segments_go_to_stable() {
    let servers = servers().await;
    let bench = Bench::start(config()).await;
    let mut table = table(1, &servers.0.url(), &servers.1.url(), (10_000, 0));
    table.segments = String::new();
    table.policy = r#"{"targets":[{"name":"bank","when":{"json":"/tenant"},"is":["bank"],"arm":"stable"}]}"#.into();
    bench.route(&table).await;
    let large = json!({"pad": "x".repeat(100_000), "tenant": "bank"}).to_string();
    let got = plain(&bench, INFER, &[("content-type", FORM)], large.clone()).await;
    assert_eq!(got.header("x-model-arm"), "stable");
    let got = bench.post(INFER, &[("content-encoding", "gzip")], gzip(large.as_bytes())).await;
    assert_eq!(got.header("x-model-arm"), "stable");
    assert_eq!(bench.post(INFER, &[], large[..50_000].to_owned()).await.header("x-model-arm"), "stable", "cut");
    assert_eq!(bench.post(INFER, &[], r#"{"tenant":"other"}"#).await.header("x-model-arm"), "canary");
    table.generation.0 = 2;
    table.policy = String::new();
    table.segments = r#"[{"name":"tier","source":{"parameter":"tier"}}]"#.into();
    bench.route(&table).await;
    let large = json!({"pad": "x".repeat(100_000), "parameters": {"tier": "gold"}}).to_string();
    assert_eq!(bench.post(INFER, &[("x-prediction-id", "large")], large).await.header("x-model-arm"), "canary");
    assert_eq!(bench.post(INFER, &[], r#"{"parameters":"#).await.header("x-model-arm"), "stable");
    let predictions = bench.predictions(6).await;
    let large = predictions.iter().find(|found| found.request_id.as_str() == "large").unwrap();
    assert_eq!(large.segments["tier"], "gold");
    let unreadable = predictions.iter().filter(|found| found.assignment == Assignment::Unreadable);
    assert_eq!(unreadable.count(), 2);
}

pub(crate) fn chat(server: &Server) -> Config {
    let mut config = config();
    let model: ModelConfig = serde_json::from_value(json!({"stable": "v1", "versions": {"v1": server.url()}})).unwrap();
    for name in ["chat", "org/model"] {
        config.models.insert(name.into(), model.clone());
    }
    config
}

/// The model's name is found after a prompt of any length, in chunks of any size.
#[tokio::test(flavor = "multi_thread")]
async fn the_model_is_read_after_a_long_prompt() {
    let server = Server::start(Reply::ok("{}")).await;
    let bench = Bench::start(chat(&server)).await;
    let path = "/v1/chat/completions";
    let body = json!({"messages": [{"role": "user", "content": "x".repeat(300_000)}], "model": "chat"}).to_string();
    assert_eq!(bench.post(path, &[], body.clone()).await.status, StatusCode::OK);
    let got = bench.post(path, &[("content-encoding", "gzip")], gzip(body.as_bytes())).await;
    assert_eq!(got.status, StatusCode::OK);
    // In chunks of 1400 bytes, with a length and chunked.
    for chunked in [false, true] {
        let mut request = format!("POST {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n").into_bytes();
        if chunked {
            request.extend_from_slice(b"transfer-encoding: chunked\r\n\r\n");
        } else {
            request.extend_from_slice(format!("content-length: {}\r\n\r\n", body.len()).as_bytes());
        }
        let mut stream = tokio::net::TcpStream::connect(bench.router.data_addr()).await.unwrap();
        stream.set_nodelay(true).unwrap();
        stream.write_all(&request).await.unwrap();
        for piece in body.as_bytes().chunks(1400) {
            let framed = [format!("{:x}\r\n", piece.len()).as_bytes(), piece, b"\r\n"].concat();
            stream.write_all(if chunked { &framed } else { piece }).await.unwrap();
        }
        if chunked {
            stream.write_all(b"0\r\n\r\n").await.unwrap();
        }
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        assert!(answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
    }
    let seen = server.seen();
    assert!(seen.iter().filter(|seen| seen.body == body).count() == 3 && seen.len() == 4, "{}", seen.len());
    // If a body has two names the last one counts, as for servers.
    assert_eq!(bench.post(path, &[], r#"{"model":"missing","model":"chat"}"#).await.status, StatusCode::OK);
    let refusals = [
        (r#"{"model":"chat","model":"missing"}"#, &[][..], 404, "unknown_model"),
        (r#"{"model":{}}"#, &[], 400, "unread_model"),
        (r#"{"model":"chat""#, &[], 400, "unread_model"),
        (r#"{"messages":[]}"#, &[], 404, "no_model"),
        ("{}", &[("content-encoding", "lzma")], 415, "unread_model"),
    ];
    for (body, headers, status, code) in refusals {
        let got = bench.post(path, headers, body).await;
        assert_eq!((got.status.as_u16(), got.json()["error"]["code"].as_str()), (status, Some(code)), "{body}");
    }
}

/// Held bodies share one budget. If it is used up, the router reports that, and never that the request names no model.
#[tokio::test(flavor = "multi_thread")]
async fn held_bodies_share_one_budget() {
    let server = Server::start(Reply::ok("{}")).await;
    let mut config = chat(&server);
    config.limits.held = 1 << 20;
    config.timeouts.request = serin_spec::units::Duration::parse("400ms").unwrap();
    let bench = Bench::start(config).await;
    let path = "/v1/chat/completions";
    let head = |size: usize| format!("POST {path} HTTP/1.1\r\nhost: a\r\ncontent-length: {size}\r\n\r\n");
    let body = json!({"messages": "x".repeat(600_000), "model": "chat"}).to_string();
    // A body that never ends takes more than half.
    let mut slow = tokio::net::TcpStream::connect(bench.router.data_addr()).await.unwrap();
    slow.write_all(head(900_000).as_bytes()).await.unwrap();
    slow.write_all(&body.as_bytes()[..600_000]).await.unwrap();
    let mut message = String::new();
    for _ in 0..20 {
        let got = bench.post(path, &[], body.clone()).await;
        let retry = got.header("retry-after").to_owned();
        match got.status.as_u16() {
            200 => {}
            503 => {
                assert_eq!((retry.as_str(), got.json()["error"]["code"].as_str()), ("1", Some("no_room")));
                message = got.json()["error"]["message"].as_str().unwrap().to_owned();
                break;
            }
            other => panic!("{other}: {got:?}"),
        }
    }
    drop(slow);
    assert!(message.is_empty() || message.contains("limits.held"), "{message}");
    // The budget is released.
    eventually("there is room again", async || {
        (bench.post(path, &[], body.clone()).await.status == StatusCode::OK).then_some(())
    })
    .await;
    // A body that exceeds the whole budget is refused with the fix.
    let large = json!({"messages": "x".repeat(2 << 20), "model": "chat"}).to_string();
    let got = bench.post(path, &[], large.clone()).await;
    assert_eq!(
        (got.status, got.json()["error"]["code"].as_str()),
        (StatusCode::PAYLOAD_TOO_LARGE, Some("unread_model"))
    );
    let got = bench.post(path, &[("x-serin-model", "chat")], large).await;
    assert_eq!(got.status, StatusCode::OK, "with the header the body is not held");
}

/// An OpenAI-compatible server that stores its responses, as vLLM does.
async fn keeper(name: &str) -> (Server, String) {
    let id = format!("resp_{name}");
    (Server::start(Reply::ok(format!(r#"{{"id":"{id}","object":"response","status":"completed"}}"#))).await, id)
}

/// Each turn of a chain names another id and stays with the version that created it, also when the ramp grows.
#[tokio::test(flavor = "multi_thread")]
async fn a_chain_of_responses_stays_with_its_version() {
    let ((one, id_one), (two, id_two)) = tokio::join!(keeper("one"), keeper("two"));
    let bench = Bench::start(config()).await;
    let mut table = sticky(&(one.clone(), two.clone()), r#""session""#);
    bench.route(&table).await;
    let path = "/v1/responses";
    let call = async |previous: Option<&str>| {
        let body = json!({"model": "flights", "input": "hi", "previous_response_id": previous}).to_string();
        bench.post(path, &[], body).await
    };
    let mut versions = BTreeSet::new();
    for _ in 0..40 {
        let first = call(None).await;
        let version = first.header("x-model-version").to_owned();
        let id = first.json()["id"].as_str().unwrap().to_owned();
        for _ in 0..3 {
            let next = call(Some(&id)).await;
            assert_eq!((next.status, next.header("x-model-version")), (StatusCode::OK, version.as_str()));
        }
        versions.insert(version);
    }
    assert_eq!(versions.len(), 2, "chains are split");
    let unknown = call(Some("resp_of_another_router")).await;
    assert_eq!(unknown.header("x-model-version"), "v1");
    let predictions = bench.predictions(161).await;
    let count = |assignment| predictions.iter().filter(|found| found.assignment == assignment).count();
    assert_eq!((count(Assignment::Sticky), count(Assignment::Unreadable)), (160, 1));
    let units: BTreeSet<_> = predictions.iter().map(|found| found.unit).collect();
    assert!(units.len() >= 3, "each chain has its own unit");

    // Requests for a stored response go to its version.
    let get = Request::get(format!("{path}/{id_two}"));
    assert_eq!(bench.send(bench.router.data_addr(), get, "").await.header("x-model-version"), "v2");
    let cancel = Request::post(format!("{path}/{id_one}/cancel"));
    assert_eq!(bench.send(bench.router.data_addr(), cancel, "").await.header("x-model-version"), "v1");

    // The ramp has grown: chains on stable stay there and are no longer compared.
    table.generation.0 = 2;
    (table.routes[1].share, table.routes[2].share) = (0, 10_000);
    bench.route(&table).await;
    assert_eq!(call(Some(&id_one)).await.header("x-model-version"), "v1");
    assert_eq!(call(Some(&id_two)).await.header("x-model-version"), "v2");
    let predictions = bench.predictions(163).await;
    assert_eq!(predictions.iter().filter(|found| found.assignment == Assignment::Targeted).count(), 1);
}

/// Without sticky sessions too, only the version that keeps a response gets the call that continues it.
#[tokio::test(flavor = "multi_thread")]
async fn without_sessions_a_chain_stays_with_its_version_and_is_not_compared() {
    let ((one, id_one), (two, id_two)) = tokio::join!(keeper("one"), keeper("two"));
    let bench = Bench::start(config()).await;
    let mut table = sticky(&(one, two), r#""session""#);
    table.sticky = None;
    bench.route(&table).await;
    let call = async |path: &str, previous: Option<&str>| {
        let body = json!({"model": "flights", "input": "hi", "previous_response_id": previous}).to_string();
        bench.post(path, &[], body).await.header("x-model-version").to_owned()
    };
    let mut versions = BTreeSet::new();
    for _ in 0..40 {
        versions.insert(call("/v1/responses", None).await);
    }
    assert_eq!(versions.len(), 2, "first turns are split");
    for _ in 0..5 {
        for path in ["/v1/responses", "/openai/v1/responses", "/openai/deployments/flights/responses"] {
            assert_eq!((call(path, Some(&id_one)).await, call(path, Some(&id_two)).await), ("v1".into(), "v2".into()));
        }
    }
    assert_eq!(call("/v1/responses", Some("resp_of_another_router")).await, "v1");
    let predictions = bench.predictions(71).await;
    let count = |assignment| predictions.iter().filter(|found| found.assignment == assignment).count();
    assert_eq!((count(Assignment::Random), count(Assignment::Targeted), count(Assignment::Unreadable)), (40, 30, 1));
    for (path, version) in [
        (format!("/v1/responses/{}", id_two.replace('_', "%5F")), "v2"),
        (format!("/openai/deployments/flights/responses/{id_two}"), "v2"),
        (format!("/v1/responses/{id_one}"), "v1"),
    ] {
        let got = bench.send(bench.router.data_addr(), Request::get(&path), "").await;
        assert_eq!(got.header("x-model-version"), version, "{path}");
    }
}

/// Behind several routers, one router knows the previous response, and all of them hash the key alike.
#[tokio::test(flavor = "multi_thread")]
async fn a_sticky_user_keeps_the_version_where_the_previous_response_is_not_known() {
    let ((one, _), (two, _)) = tokio::join!(keeper("one"), keeper("two"));
    let bench = Bench::start(config()).await;
    bench.route(&sticky(&(one, two), r#"{"header":"x-user"}"#)).await;
    let call = async |user: &str, previous: Option<&str>| {
        let body = json!({"model": "flights", "input": "hi", "previous_response_id": previous}).to_string();
        bench.post("/v1/responses", &[("x-user", user)], body).await.header("x-model-version").to_owned()
    };
    let mut versions = BTreeSet::new();
    for n in 0..40 {
        let user = format!("user-{n}");
        let first = call(&user, None).await;
        assert_eq!(call(&user, Some("resp_of_another_router")).await, first, "{user}");
        versions.insert(first);
    }
    assert_eq!(versions.len(), 2, "users are split");
    let predictions = bench.predictions(80).await;
    assert!(predictions.iter().all(|found| found.assignment == Assignment::Sticky), "{predictions:?}");
}
