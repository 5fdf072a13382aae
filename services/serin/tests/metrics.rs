//! Metrics, health and logs of a running pipeline, and the secrets that they never contain.

#![expect(clippy::unwrap_used, reason = "a panic fails the test")]

mod support;
#[path = "support/world.rs"]
mod world;

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpListener,
    process::Stdio,
    sync::mpsc,
    thread,
};

use reqwest::Method;
use serde_json::Value;

use support::{PATIENCE, Pipeline, http, http_with, wait_until};
use world::{Behavior, MODEL, Traffic, User, borrowed, command, model_server, rollout, run, serin, wall};

fn scrape(pipeline: &Pipeline) -> String {
    http(Method::GET, &format!("{}/metrics", pipeline.telemetry("up")), None).unwrap().text
}

/// Sum of the values of a metric over all its series with these labels.
fn sum(text: &str, metric: &str, labels: &[String]) -> f64 {
    let named = text.lines().filter(|line| line.strip_prefix(metric).is_some_and(|rest| rest.starts_with('{')));
    let chosen = named.filter(|line| labels.iter().all(|label| line.contains(label)));
    chosen.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum()
}

fn series(pipeline: &Pipeline) -> BTreeSet<String> {
    let text = scrape(pipeline);
    let name = |line: &str| line.split(['{', ' ']).next().unwrap_or_default().to_owned();
    text.lines().filter(|line| !line.starts_with('#')).map(name).collect()
}

#[test]
fn every_metric_of_the_page_exists_after_some_traffic() {
    let (v1, v2) = (model_server(Behavior::Good), model_server(Behavior::Good));
    let pipeline = Pipeline::embedded(&borrowed(&wall(&[("v1", &v1), ("v2", &v2)]))).unwrap();
    let user = User(pipeline.api());
    let _traffic = Traffic::start(&pipeline.router(), 50);
    let id = user.apply(&rollout("v2", "1h"));
    user.wait_for_phase(&id, "baking");

    // Every answer is in both metrics of answers, with the labels of its route.
    for arm in ["stable", "control", "canary"] {
        let route = [("model", MODEL), ("arm", arm)];
        let route = route.map(|(label, value)| format!("{label}=\"{value}\""));
        let with = |class: &str| [route.as_slice(), &[format!("code_class=\"{class}\"")]].concat();
        wait_until(PATIENCE, || {
            let text = scrape(&pipeline);
            let answers = sum(&text, "serin_router_requests_total", &route);
            let good = sum(&text, "serin_router_requests_total", &with("2xx"));
            let timed = sum(&text, "serin_router_request_duration_seconds_count", &route);
            // Counts are exact.
            Ok(good > 0.0 && [answers, timed].map(f64::to_bits) == [good; 2].map(f64::to_bits))
        })
        .unwrap_or_else(|error| panic!("{error}: {arm}\n{}", scrape(&pipeline)));
    }
    // All our metrics have the prefix, and no suffix is repeated.
    for name in series(&pipeline) {
        // Prometheus' own names for metrics of every process.
        let common = name.starts_with("process_") || ["target_info", "otel_scope_info"].contains(&&*name);
        assert!(name.starts_with("serin_") || common, "{name}");
        assert!(!name.contains("_total_total") && !name.contains("_seconds_seconds"), "{name}");
    }
    wait_until(PATIENCE, || Ok(agrees_with_the_page(&scrape(&pipeline)).is_ok())).unwrap_or_else(|error| {
        panic!("{error}: {:?}\n{}", agrees_with_the_page(&scrape(&pipeline)), scrape(&pipeline))
    });
    let text = scrape(&pipeline);
    assert!(text.contains("\nserin_build_info{role=\"up\",rules=\"2\",version=\""), "{text}");
    for (url, text) in [
        (pipeline.telemetry("up") + "/healthz", "ok\n"),
        (pipeline.telemetry("up") + "/readyz", "ready\n"),
        (pipeline.api() + "/healthz", "ok\n"),
    ] {
        let answer = http(Method::GET, &url, None).unwrap();
        assert_eq!((answer.status, &*answer.text), (200, text), "{url}");
    }
}

/// A metric of docs/metrics.md: its type, and its labels with their values if the page lists them.
#[derive(Debug, Default)]
struct Described {
    kind: String,
    labels: BTreeMap<String, BTreeSet<String>>,
}

/// The words in backticks.
fn quoted(text: &str) -> impl Iterator<Item = String> {
    text.split('`').skip(1).step_by(2).map(str::to_owned)
}

/// The metrics of the page. A metric that several parts export has the labels of all of them.
fn on_the_page() -> BTreeMap<String, Described> {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/metrics.md")).unwrap();
    let rows = page.lines().map(|line| line.split(" | ").collect::<Vec<_>>());
    let (mut metrics, mut shared) = (BTreeMap::<String, Described>::new(), BTreeMap::new());
    for row in rows {
        match row[..] {
            [label, words] if label.starts_with("| `") && words.starts_with('`') => {
                shared.insert(quoted(label).next().unwrap(), quoted(words).collect());
            }
            [name, kind, _, labels, _] if name.starts_with("| `") => {
                let described = metrics.entry(quoted(name).next().unwrap()).or_default();
                kind.clone_into(&mut described.kind);
                for label in labels.split("; ").filter(|label| !label.is_empty()) {
                    let (name, words) = label.split_once("`: ").unwrap_or((label, ""));
                    let name = quoted(name).next().unwrap();
                    let of_all: Option<&BTreeSet<String>> = shared.get(&name).filter(|_| label.ends_with('`'));
                    let words = quoted(words).chain(of_all.filter(|_| words.is_empty()).into_iter().flatten().cloned());
                    described.labels.entry(name).or_default().extend(words);
                }
            }
            _ => {}
        }
    }
    metrics
}

/// Metrics that appear only when something goes wrong, when a rollout requests it, for a language model, or with a connector.
const OCCASIONAL: [&str; 17] = [
    "serin_certificate_expiry_timestamp_seconds",
    "serin_deliveries_total",
    "serin_deliveries_waiting",
    "serin_destination_breaker_open",
    "serin_rollback_seconds",
    "serin_rollout_waiting",
    "serin_router_cut_total",
    "serin_router_examples_total",
    "serin_router_failures_total",
    "serin_router_mirrored_total",
    "serin_router_output_tokens",
    "serin_router_time_per_output_chunk_seconds",
    "serin_router_time_to_first_chunk_seconds",
    "serin_router_undecided_total",
    "serin_stream_dead_letter_codes_total",
    "serin_writer_clock_offset_seconds",
    "serin_writer_silent",
];

/// Returns an error unless the page has every series of the scrape with its type, labels and values, and the scrape has every
/// metric of the page except the occasional ones.
fn agrees_with_the_page(text: &str) -> Result<(), String> {
    let page = on_the_page();
    let mut missing: BTreeSet<&str> = page.keys().map(String::as_str).collect();
    missing.retain(|name| !OCCASIONAL.contains(name));
    for line in text.lines() {
        if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
            let described = page.get(name).map(|described| &*described.kind);
            if described != Some(kind) && name != "target_info" {
                return Err(format!("docs/metrics.md has {described:?} for {name}, a {kind}"));
            }
        }
        if line.starts_with('#') {
            continue;
        }
        // Gauges of the Prometheus library have no labels.
        let (series, labels) = line.split_once('{').or(line.split_once(' ')).ok_or_else(|| line.to_owned())?;
        let stem = |end: &str| series.strip_suffix(end).filter(|name| page.contains_key(*name));
        let name = ["_bucket", "_sum", "_count"].into_iter().find_map(stem).unwrap_or(series);
        missing.remove(name);
        if name == "target_info" {
            continue;
        }
        for label in labels.rsplit_once('}').into_iter().flat_map(|(labels, _)| labels.split(',')) {
            let (label, value) = label.split_once('=').ok_or_else(|| format!("{line}: {label}"))?;
            if label.starts_with("otel_scope_") || label == "le" {
                continue;
            }
            let values = page.get(name).and_then(|described| described.labels.get(label));
            let values = values.ok_or_else(|| format!("docs/metrics.md: no {label} of {name}"))?;
            if !values.is_empty() && !values.contains(value.trim_matches('"')) {
                return Err(format!("docs/metrics.md: no {label}={value} of {name}"));
            }
        }
    }
    if missing.is_empty() { Ok(()) } else { Err(format!("docs/metrics.md: no scrape has {missing:?}")) }
}

/// Series of a metric, without the labels of the exporter.
fn shown(text: &str, metric: &str) -> BTreeSet<String> {
    let named = text.lines().filter(|line| line.strip_prefix(metric).is_some_and(|rest| rest.starts_with('{')));
    named.map(|line| line.replace("otel_scope_name=\"serin\",", "").replace(",otel_scope_name=\"serin\"", "")).collect()
}

/// The weights of `/v1/routing`, formatted as in `/metrics`.
fn weights(pipeline: &Pipeline) -> BTreeSet<String> {
    let tables = pipeline.ask("/v1/routing").unwrap();
    let routes = tables.as_array().unwrap().iter().flat_map(|table| {
        let model = table["model"].as_str().unwrap();
        table["routes"].as_array().unwrap().iter().map(move |route| {
            let share = route["share"].as_f64().unwrap() / 1e4;
            format!(
                "serin_routing_weight_ratio{{arm={},model=\"{model}\",version={}}} {share}",
                route["arm"], route["version"]
            )
        })
    });
    routes.collect()
}

#[test]
fn gauges_show_the_current_state_and_counters_start_at_0() {
    let (v1, v2) = (model_server(Behavior::Good), model_server(Behavior::Fails));
    let versions = wall(&[("v1", &v1), ("v2", &v2), ("v3", &v1)]);
    let mut pipeline = Pipeline::embedded(&borrowed(&versions)).unwrap();
    let user = User(pipeline.api());
    let phase = |phase: &str| BTreeSet::from([format!("serin_rollout_phase{{model=\"{MODEL}\",phase=\"{phase}\"}} 1")]);
    let current = |pipeline: &Pipeline, expected: &str, step: Option<i32>| {
        let step = step.map(|step| format!("serin_rollout_step{{model=\"{MODEL}\"}} {step}"));
        let step: BTreeSet<String> = step.into_iter().collect();
        let mut text = String::new();
        wait_until(PATIENCE, || {
            text = scrape(pipeline);
            let as_routed = shown(&text, "serin_routing_weight_ratio") == weights(pipeline);
            let rollout = (shown(&text, "serin_rollout_phase"), shown(&text, "serin_rollout_step"));
            Ok(as_routed && rollout == (phase(expected), step.clone()))
        })
        .unwrap_or_else(|error| panic!("{error}: {expected}, {:#?}, {text}", weights(pipeline)));
        text
    };
    let one = user.apply(&rollout("v2", "1h"));
    let text = current(&pipeline, "warming", Some(-1));
    // The series of every kind exists before its first event.
    for (metric, label, kinds) in [
        ("serin_rollout_events_total", "kind", 12),
        ("serin_verdicts_total", "decision", 4),
        ("serin_events_consumed_total", "outcome", 6),
        ("serin_label_join_total", "outcome", 10),
        ("serin_windows_total", "outcome", 3),
        ("serin_analyzer_windows_refused_total", "reason", 5),
        ("serin_router_tables_total", "outcome", 6),
        ("serin_router_intake_total", "outcome", 8),
        ("serin_stream_dead_letters_total", "stage", 4),
    ] {
        let series = shown(&text, metric);
        assert!(series.len() >= kinds && series.iter().all(|line| line.contains(label)), "{metric}: {series:#?}");
    }
    let _traffic = Traffic::start(&pipeline.router(), 50);
    user.wait_for_phase(&one, "rolled_back");
    let text = current(&pipeline, "rolled_back", None);
    // Metrics that appear only when something goes wrong are documented as well.
    let found = agrees_with_the_page(&text);
    assert!(found.as_ref().err().is_none_or(|error| error.contains("no scrape has")), "{found:?}");
    for metric in ["serin_rollback_seconds", "serin_router_failures_total"] {
        assert!(text.contains(&format!("\n# TYPE {metric} ")), "{metric}: {text}");
    }
    assert!(!text.contains("version=\"v2\""), "{text}");
    assert_eq!(shown(&text, "serin_verdict_effect"), BTreeSet::new(), "{text}");
    let kind = |kind: &str| [format!("kind=\"{kind}\"")];
    assert_eq!(sum(&text, "serin_rollout_events_total", &kind("rolled_back")).to_bits(), 1.0_f64.to_bits());
    // The next rollout, and a restart while it is running.
    let two = user.apply(&rollout("v3", "1h"));
    user.wait_for_phase(&two, "baking");
    current(&pipeline, "baking", Some(0));
    pipeline.kill("up").unwrap();
    pipeline.start("up").unwrap();
    pipeline.ready().unwrap();
    let text = current(&pipeline, "baking", Some(0));
    assert_eq!(sum(&text, "serin_rollout_events_total", &kind("rolled_back")).to_bits(), 0.0_f64.to_bits());
    user.run(&["abort", &two]).expect(0);
    current(&pipeline, "aborted", None);
}

/// Starts a collector that receives one body after another.
fn collector() -> (String, mpsc::Receiver<(String, Vec<u8>)>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/v1/metrics", listener.local_addr().unwrap());
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let sender = sender.clone();
            thread::spawn(move || {
                let mut reader = BufReader::new(stream.try_clone().unwrap());
                loop {
                    let (mut head, mut length) = (String::new(), 0);
                    loop {
                        let start = head.len();
                        if reader.read_line(&mut head).unwrap_or(0) == 0 {
                            return;
                        }
                        let line = head[start..].trim().to_ascii_lowercase();
                        if let Some(value) = line.strip_prefix("content-length:") {
                            length = value.trim().parse().unwrap();
                        }
                        if line.is_empty() {
                            break;
                        }
                    }
                    let mut body = vec![0; length];
                    reader.read_exact(&mut body).unwrap();
                    stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").unwrap();
                    if sender.send((head, body)).is_err() {
                        return;
                    }
                }
            });
        }
    });
    (url, receiver)
}

const SECRETS: [&str; 5] = [
    "token-of-ops-0123456789",
    "token-unknown-01234567",
    "secret-of-mlflow-012345",
    "token-of-admin-0123456",
    "password-of-kafka-0123",
];

fn with_secrets(data: &str) -> Vec<String> {
    let [ops, _, mlflow, admin, kafka] = SECRETS;
    let mut settings = vec![
        format!("data_dir={data}"),
        "controller.tokens.ops.role=operator".to_owned(),
        format!("controller.tokens.ops.token={ops}"),
        format!("controller.mlflow.secret={mlflow}"),
        format!("router.admin_token={admin}"),
        format!("log.kafka.security.password={kafka}"),
        format!("log.kafka.properties.ssl.keystore.password={kafka}"),
        "telemetry.log_format=json".to_owned(),
        "telemetry.log_level=debug".to_owned(),
    ];
    let listeners = ["router.listen", "router.admin_listen", "controller.listen", "telemetry.listen"];
    settings.extend(listeners.map(|name| format!("{name}=127.0.0.1:0")));
    settings
}

fn arguments(settings: &[String]) -> Vec<&str> {
    settings.iter().flat_map(|setting| ["--set", setting.as_str()]).collect()
}

#[track_caller]
fn no_secret_in(text: &str) {
    for secret in SECRETS {
        assert!(!text.contains(secret), "{secret} is in:\n{text}");
    }
}

#[test]
fn metrics_are_exported_over_otlp_and_json_logs_contain_no_secret() {
    let folder = tempfile::tempdir().unwrap();
    let (url, collected) = collector();
    let mut settings = with_secrets(&folder.path().display().to_string());
    settings.push(format!("telemetry.otlp={url}"));
    let mut child = command(&["up"])
        .args(arguments(&settings))
        .env("OTEL_METRIC_EXPORT_INTERVAL", "200")
        .env("OTEL_SERVICE_NAME", "canaries-of-payments")
        .env("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=staging,service.version=as-configured")
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let stderr = BufReader::new(child.stderr.take().unwrap());
    let (lines, log) = mpsc::channel();
    let reader = thread::spawn(move || stderr.lines().map_while(Result::ok).try_for_each(|line| lines.send(line)));

    // The log contains all listening addresses.
    let (mut logged, mut addresses) = (Vec::new(), BTreeMap::new());
    while !addresses.contains_key("metrics and health") {
        let line = log.recv_timeout(PATIENCE).unwrap_or_else(|error| panic!("{error}: {logged:#?}"));
        let json: Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
        if let Some(address) = json["fields"]["address"].as_str() {
            addresses.insert(json["fields"]["message"].as_str().unwrap().to_owned(), format!("http://{address}"));
        }
        logged.push(line);
    }
    // Right and wrong tokens over HTTP.
    let api = User(addresses["controller: API"].clone());
    api.run(&["list", "--token", SECRETS[0]]).expect(0);
    no_secret_in(&api.run(&["list", "--token", SECRETS[1]]).expect(2).err);
    let switch = format!("{}/switch/all-stable", addresses["router: admin"]);
    for (token, status) in [(SECRETS[1], 401), (SECRETS[3], 200)] {
        let headers = [("authorization", &*format!("Bearer {token}"))];
        let answer = http_with(Method::POST, &switch, &headers, Some(br#"{"on": false}"#.to_vec())).unwrap();
        assert_eq!(answer.status, status, "{answer:?}");
    }
    drop(http(Method::POST, &format!("{}/v2/models/{MODEL}/infer", addresses["router: model traffic"]), None));

    // OTLP: protobuf with our names, more than once.
    let mut complete = 0;
    while complete < 2 {
        let (head, body) = collected.recv_timeout(PATIENCE).unwrap();
        assert!(head.starts_with("POST /v1/metrics HTTP/1.1") && head.contains("application/x-protobuf"), "{head}");
        let text = String::from_utf8_lossy(&body).into_owned();
        for expected in ["serin_build_info", "canaries-of-payments", "staging", "as-configured", "service.instance.id"]
        {
            assert!(text.contains(expected), "{expected}: {text}");
        }
        assert!(!text.contains("serin-up"), "{text}");
        no_secret_in(&text);
        // The first exports may happen before the stages have started.
        complete += u32::from(text.contains("serin_stream_"));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    drop(reader.join());
    logged.extend(log.try_iter());
    assert!(logged.len() > 5, "{logged:?}");
    for line in logged {
        let json: Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
        assert!(json["level"].is_string() && json["timestamp"].is_string(), "{line}");
        no_secret_in(&line);
    }
}

#[test]
fn the_configuration_is_shown_without_secrets() {
    let settings = with_secrets("data");
    let shown = run(command(&["up", "--dump-config"]).args(arguments(&settings))).expect(0);
    no_secret_in(&shown.out);
    no_secret_in(&shown.err);
    let shown = shown.json();
    assert_eq!(shown["controller"]["tokens"]["ops"]["role"], "operator");
    assert_eq!(shown["telemetry"]["log_format"], "json");
    // The output can be used as a file after secrets are added. With the masked secrets it is refused.
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("serin.yaml");
    std::fs::write(&file, shown.to_string()).unwrap();
    let masked = run(command(&["up", "--dump-config", "--config"]).arg(&file));
    assert!(masked.code == 64 && masked.err.contains("shorter than 16 characters"), "{masked:?}");
    std::fs::write(&file, shown.to_string().replace("(hidden)", "as-long-as-a-secret-is")).unwrap();
    let again = run(command(&["up", "--dump-config", "--config"]).arg(&file)).expect(0).json();
    assert_eq!(again, shown);
}

#[test]
fn errors_do_not_repeat_secrets() {
    let secret = SECRETS[0];
    for wrong in [
        format!("controller.tokens.ops={secret}"),
        format!("controller.mlflow={secret}"),
        format!("controller.tokens.ops.tokken={secret}"),
        format!("log.kafka.security={secret}"),
    ] {
        let failed = serin(&["up", "--set", &wrong]).expect(64);
        no_secret_in(&failed.err);
        assert!(failed.err.contains("the configuration cannot be used"), "{failed:?}");
    }
    // A token that is too short is refused at the start.
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().display().to_string();
    let failed = run(command(&["up"]).args(arguments(&with_secrets(&data))).args([
        "--set",
        "controller.tokens.x.role=viewer",
        "--set",
        "controller.tokens.x.token=short-secret",
    ]));
    assert_eq!(failed.code, 64, "{failed:?}");
    assert!(
        failed.err.contains("tokens.x.token: shorter than 16 characters") && !failed.err.contains("short-secret"),
        "{failed:?}"
    );
    no_secret_in(&failed.err);
}
