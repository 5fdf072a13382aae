//! The split into arms: the published vectors, targets, pins, sessions.

use std::{io::Write as _, process::Command};

use serde_json::Value;
use serin_schemas::records::{Assignment, RoutingTable};
use serin_sketches::hash::{bucket, hash64};

use crate::{
    harness::{Bench, config, table},
    upstreams::{Reply, Server},
};

const DOCS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs");

fn vectors() -> (String, Value) {
    let text = std::fs::read_to_string(format!("{DOCS}/split-vectors.json")).unwrap();
    let value = serde_json::from_str(&text).unwrap();
    (text, value)
}

async fn servers() -> (Server, Server) {
    (Server::start(Reply::probability("0.1")).await, Server::start(Reply::probability("0.9")).await)
}

#[test]
fn the_code_computes_the_published_vectors() {
    let (_, file) = vectors();
    let vectors = file["vectors"].as_array().unwrap();
    assert_eq!((file["format"].as_str(), vectors.len()), (Some("serin-split-vectors 1"), 44));
    for vector in vectors {
        let text = |name: &str| vector[name].as_str().unwrap();
        let hash = hash64(text("salt").as_bytes(), text("key").as_bytes());
        assert_eq!(format!("{hash:016x}"), text("hash"), "{vector}");
        assert_eq!(u64::from(bucket(hash)), vector["bucket"].as_u64().unwrap(), "{vector}");
    }
}

/// The Python code on the page, applied to the published file.
#[test]
fn the_python_code_of_the_page_computes_the_same() {
    let page = std::fs::read_to_string(format!("{DOCS}/split.md")).unwrap();
    let code = page.split("```python").nth(1).unwrap().split("```").next().unwrap();
    let check = r#"
import json, sys
file = json.load(sys.stdin)
for v in file["vectors"]:
    assert f"{split_hash(v['salt'], v['key']):016x}" == v["hash"], v
    assert bucket(v["salt"], v["key"]) == v["bucket"], v
    assert [arm(v["salt"], v["key"], s["canary"], s["control"]) for s in file["shares"]] == v["arms"], v
print(len(file["vectors"]))
"#;
    let mut python = Command::new("python3");
    python
        .args(["-c", &format!("{code}{check}")])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped());
    let mut python = python.spawn().expect("python3 is needed");
    python.stdin.take().unwrap().write_all(vectors().0.as_bytes()).unwrap();
    let out = python.wait_with_output().unwrap();
    assert_eq!((out.status.success(), String::from_utf8_lossy(&out.stdout).trim()), (true, "44"));
}

fn sticky(generation: i64, servers: &(Server, Server), shares: (i32, i32), key: &str) -> RoutingTable {
    RoutingTable { sticky: Some(key.to_owned()), ..table(generation, &servers.0.url(), &servers.1.url(), shares) }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_router_gives_the_arms_of_the_vectors() {
    let servers = servers().await;
    let bench = Bench::start(config()).await;
    let (_, file) = vectors();
    for (place, shares) in file["shares"].as_array().unwrap().iter().enumerate() {
        let share = |name: &str| shares[name].as_i64().unwrap() as i32;
        let shares = (share("canary"), share("control"));
        let mut table = sticky(place as i64 + 1, &servers, shares, r#"{"json":"/user"}"#);
        // The salt of the harness is one of the salts in the file.
        assert_eq!(table.salt, "r1");
        table.segments = String::new();
        bench.route(&table).await;
        let vectors = file["vectors"].as_array().unwrap().iter();
        for vector in vectors.filter(|vector| vector["salt"] == "r1" && vector["key"] != "") {
            let body = serde_json::json!({"user": vector["key"]}).to_string();
            let got = bench.post("/v2/models/flights/infer", &[], body).await;
            assert_eq!(got.header("x-model-arm"), vector["arms"][place], "{vector}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn targets_precede_the_split_and_pins_precede_targets() {
    let servers = servers().await;
    let bench = Bench::start(config()).await;
    let mut split = table(1, &servers.0.url(), &servers.1.url(), (1, 10));
    split.policy = r#"{"targets":[{"name":"staff","when":{"header":"x-team"},"is":["ml"]},
        {"name":"bank","when":{"input":"origin"},"is":["SFO"],"arm":"stable"}]}"#
        .into();
    bench.route(&split).await;
    assert_eq!(bench.infer(&[("x-team", "ml")]).await.header("x-model-arm"), "canary");
    let pinned = bench.infer(&[("x-team", "ml"), ("x-model-version", "v1")]).await;
    assert_eq!(pinned.header("x-model-version"), "v1");
    let bank = r#"{"inputs":[{"name":"origin","data":["SFO"]}]}"#;
    assert_eq!(bench.post("/v2/models/flights/infer", &[], bank).await.header("x-model-arm"), "stable");
    let mut assignments: Vec<_> = bench.predictions(3).await.iter().map(|found| found.assignment).collect();
    assignments.sort_by_key(|assignment| format!("{assignment:?}"));
    assert_eq!(assignments, [Assignment::Pinned, Assignment::Targeted, Assignment::Targeted]);
    assert!(assignments.iter().all(|assignment| !assignment.is_compared()), "they were not chosen at random");

    // Before the ramp has started there is no canary for a target.
    split.generation.0 = 2;
    split.routes.retain(|route| route.arm == serin_schemas::records::Arm::Stable);
    split.routes[0].share = 10_000;
    bench.route(&split).await;
    assert_eq!(bench.infer(&[("x-team", "ml")]).await.header("x-model-version"), "v1");
}

#[tokio::test(flavor = "multi_thread")]
async fn asking_for_a_version_is_restricted_and_the_token_is_not_passed_on() {
    let servers = servers().await;
    for (allow, without, with) in [("always", 200, 200), ("token", 403, 200), ("never", 403, 403)] {
        let pin = serde_json::from_value(serde_json::json!({"allow": allow, "token": "s3cret"})).unwrap();
        let bench = Bench::start(serin_router::Config { pin, ..config() }).await;
        bench.route(&table(1, &servers.0.url(), &servers.1.url(), (0, 0))).await;
        let token = ("x-serin-pin-token", "s3cret");
        let asks = ("x-model-version", "v2");
        assert_eq!(bench.infer(&[asks]).await.status, without, "{allow}");
        assert_eq!(bench.infer(&[asks, ("x-serin-pin-token", "guess")]).await.status, without, "{allow}");
        assert_eq!(bench.infer(&[asks, token]).await.status, with, "{allow}");
        let by_path = bench.post("/v2/models/flights/versions/v2/infer", &[], r#"{"inputs":[]}"#).await;
        assert_eq!(by_path.status, without, "{allow}");
        assert_eq!(bench.infer(&[token]).await.status, 200, "{allow}: a call without a version needs no token");
    }
    let seen = [servers.0.seen(), servers.1.seen()].concat();
    assert!(!seen.is_empty() && seen.iter().all(|seen| !seen.headers.contains_key("x-serin-pin-token")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_and_a_sequence_stay_with_their_arm() {
    let servers = servers().await;
    let bench = Bench::start(config()).await;
    bench.route(&sticky(1, &servers, (5_000, 5_000), r#""session""#)).await;
    let first = bench.infer(&[("x-session-id", "s1")]).await.header("x-model-arm").to_owned();
    for _ in 0..20 {
        assert_eq!(bench.infer(&[("x-session-id", "s1")]).await.header("x-model-arm"), first);
    }
    bench.route(&sticky(2, &servers, (5_000, 5_000), r#""sequence""#)).await;
    let call = async |sequence: u32| {
        let body = format!(r#"{{"parameters":{{"sequence_id":{sequence}}},"inputs":[]}}"#);
        bench.post("/v2/models/flights/infer", &[], body).await.header("x-model-arm").to_owned()
    };
    let mut arms = std::collections::BTreeSet::new();
    for sequence in 1..=30 {
        let arm = call(sequence).await;
        assert_eq!(call(sequence).await, arm);
        arms.insert(arm);
    }
    assert_eq!(arms.len(), 2, "sequences are split");
}
