//! Checks the files for Prometheus and Grafana with a real Prometheus: the rules, the alert on a first rollback, `/metrics`, and that
//! every query of the dashboards returns data. Every alert has a runbook.

#![expect(clippy::unwrap_used, reason = "a panic fails the test")]

mod support;
#[path = "support/world.rs"]
mod world;

use std::{
    collections::BTreeSet,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use reqwest::Method;
use serde_json::Value;
use tempfile::TempDir;

use support::{PATIENCE, Pipeline, free_port, http, wait_until};
use world::{Behavior, MODEL, Traffic, User, borrowed, model_server, rollout, run, wall};

const INSTALL: &str = "prometheus and promtool are installed by scripts/install-build-deps.sh --test";

fn deploy() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy")
}

fn promtool(arguments: &[&str]) -> String {
    let output = run(Command::new("promtool").args(arguments).current_dir(deploy().join("prometheus")));
    assert_eq!(output.code, 0, "{INSTALL}: {output:?}");
    output.out
}

#[test]
fn the_rules_are_valid_and_pass_their_tests() {
    promtool(&["check", "rules", "rules.yml"]);
    promtool(&["check", "config", "prometheus.yml"]);
    promtool(&["test", "rules", "rules_test.yml"]);
}

/// A Prometheus that scrapes one process every second.
struct Prometheus {
    child: Child,
    url: String,
    _folder: TempDir,
}

impl Prometheus {
    fn start(telemetry: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let rules = deploy().join("prometheus/rules.yml").canonicalize().unwrap();
        let target = telemetry.trim_start_matches("http://");
        let config = format!(
            "global: {{scrape_interval: 1s, evaluation_interval: 1s}}\nrule_files: ['{}']\n\
             scrape_configs: [{{job_name: serin, static_configs: [{{targets: ['{target}']}}]}}]\n",
            rules.display()
        );
        let file = folder.path().join("prometheus.yml");
        std::fs::write(&file, config).unwrap();
        let at = format!("127.0.0.1:{}", free_port().unwrap());
        let child = Command::new("prometheus")
            .arg(format!("--config.file={}", file.display()))
            .arg(format!("--storage.tsdb.path={}", folder.path().join("data").display()))
            .arg(format!("--web.listen-address={at}"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect(INSTALL);
        let started = Self { child, url: format!("http://{at}"), _folder: folder };
        let ready = format!("{}/-/ready", started.url);
        wait_until(PATIENCE, || Ok(http(Method::GET, &ready, None).is_ok_and(|answer| answer.status == 200))).unwrap();
        started
    }

    /// The value of a query with at most one sample.
    fn value(&self, query: &str) -> Option<f64> {
        let url = reqwest::Url::parse_with_params(&format!("{}/api/v1/query", self.url), [("query", query)]).unwrap();
        let answer: Value = http(Method::GET, url.as_str(), None).ok()?.json().unwrap();
        assert_eq!(answer["status"], "success", "{query}: {answer:#}");
        if answer["data"]["resultType"] == "scalar" {
            return answer["data"]["result"][1].as_str()?.parse().ok();
        }
        let result = answer["data"]["result"].as_array().unwrap();
        assert!(result.len() <= 1, "{query}: {answer:#}");
        result.first()?["value"][1].as_str()?.parse().ok()
    }

    /// Whether a query had a result with a number at any time since `start`, in seconds since the Unix epoch.
    fn had_data(&self, query: &str, start: f64) -> bool {
        let now = self.value("time()").unwrap();
        let parameters = [("query", query), ("start", &start.to_string()), ("end", &now.to_string()), ("step", "1")];
        let url = reqwest::Url::parse_with_params(&format!("{}/api/v1/query_range", self.url), parameters).unwrap();
        let answer: Value = http(Method::GET, url.as_str(), None).unwrap().json().unwrap();
        assert_eq!(answer["status"], "success", "{query}: {answer:#}");
        let series = answer["data"]["result"].as_array().unwrap().iter();
        let values = series.flat_map(|series| series["values"].as_array().unwrap());
        values.map(|value| value[1].as_str().unwrap()).any(|value| value != "NaN")
    }

    fn wait_for(&self, query: &str, expected: impl Fn(Option<f64>) -> bool) {
        let mut last = None;
        wait_until(PATIENCE, || {
            last = self.value(query);
            Ok(expected(last))
        })
        .unwrap_or_else(|error| panic!("{error}: {query} is {last:?}"));
    }

    fn firing(&self) -> BTreeSet<String> {
        let answer: Value = http(Method::GET, &format!("{}/api/v1/alerts", self.url), None).unwrap().json().unwrap();
        let alerts = answer["data"]["alerts"].as_array().unwrap();
        let firing = alerts.iter().filter(|alert| alert["state"] == "firing");
        firing.map(|alert| format!("{} {}", alert["labels"]["alertname"], alert["labels"]["model"])).collect()
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

#[test]
fn a_real_prometheus_sees_the_first_rollback() {
    let (v1, v2) = (model_server(Behavior::Good), model_server(Behavior::Fails));
    let pipeline = Pipeline::embedded(&borrowed(&wall(&[("v1", &v1), ("v2", &v2)]))).unwrap();
    let prometheus = Prometheus::start(&pipeline.telemetry("up"));
    let user = User(pipeline.api());
    let id = user.apply(&rollout("v2", "1h"));

    let started = prometheus.value("time()").unwrap();

    // All counters exist at 0 before their first event.
    let model = format!("model=\"{MODEL}\"");
    prometheus.wait_for(&format!("serin_rollout_phase{{{model},phase=\"warming\"}}"), |value| value == Some(1.0));
    let rolled_back = format!("serin_rollout_events_total{{{model},kind=\"rolled_back\"}}");
    prometheus.wait_for(&rolled_back, |value| value == Some(0.0));
    prometheus.wait_for(&format!("serin_verdicts_total{{{model},decision=\"rollback\"}}"), |value| value == Some(0.0));
    assert_eq!(prometheus.firing(), BTreeSet::new());

    let _traffic = Traffic::start(&pipeline.router(), 50);
    user.wait_for_phase(&id, "rolled_back");
    wait_until(PATIENCE, || Ok(prometheus.firing().len() == 1)).unwrap();
    assert_eq!(prometheus.firing(), [format!("\"SerinRolledBack\" \"{MODEL}\"")].into());
    prometheus.wait_for(&format!("increase({rolled_back}[1m])"), |value| value > Some(0.0));
    let decided = format!("increase(serin_verdicts_total{{{model},decision=\"rollback\"}}[1m])");
    prometheus.wait_for(&decided, |value| value > Some(0.0));

    // Each part of the rollback was measured, and none was slow.
    for phase in ["decided", "applied", "drained"] {
        prometheus.wait_for(&format!("serin_rollback_seconds_count{{phase=\"{phase}\"}}"), |value| value == Some(1.0));
    }
    prometheus.wait_for("sum(instance_phase:serin_slow_rollbacks:total)", |value| value == Some(0.0));

    // Gauges of the current state: the canary is no longer in the table, and there is no step.
    prometheus.wait_for(&format!("sum(serin_routing_weight_ratio{{{model}}})"), |value| value == Some(1.0));
    prometheus.wait_for(&format!("serin_routing_weight_ratio{{{model},version=\"v2\"}}"), |value| value.is_none());
    prometheus.wait_for(&format!("serin_rollout_step{{{model}}}"), |value| value.is_none());
    prometheus.wait_for("serin_telemetry_overflowing_metrics", |value| value == Some(0.0));

    // Prometheus' own linter accepts `/metrics`.
    let text = http(Method::GET, &format!("{}/metrics", pipeline.telemetry("up")), None).unwrap().text;
    let mut lint =
        Command::new("promtool").args(["check", "metrics"]).stdin(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let lint = lint.as_mut().expect(INSTALL);
    lint.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let mut problems = String::new();
    std::io::Read::read_to_string(lint.stderr.as_mut().unwrap(), &mut problems).unwrap();
    assert!(lint.wait().unwrap().success(), "{problems}");

    // The alert resolves when the next rollout starts.
    let next = user.apply(&rollout("v1b", "1h").replace("{version: v1b}", &format!("{{version: v1b, url: '{v1}'}}")));
    user.wait_for_phase(&next, "baking");
    wait_until(PATIENCE, || Ok(prometheus.firing().is_empty())).unwrap();

    // A reason for waiting is shown as long as it lasts.
    let paused = format!("serin_rollout_waiting{{{model},reason=\"paused\"}}");
    user.run(&["pause", MODEL]).expect(0);
    prometheus.wait_for(&paused, |value| value == Some(1.0));
    user.run(&["resume", MODEL]).expect(0);
    prometheus.wait_for(&paused, |value| value.is_none());

    // During this test, every query of the dashboards had data, except those that need other events.
    let expected = queries().into_iter().filter(|query| !EMPTY.iter().any(|(metric, _)| query.contains(metric)));
    let mut missing: Vec<String> = expected.collect();
    wait_until(PATIENCE, || {
        missing.retain(|query| !prometheus.had_data(query, started));
        Ok(missing.is_empty())
    })
    .unwrap_or_else(|error| panic!("{error}: no data: {missing:#?}"));
}

/// Metrics of dashboards that have no series, or only zeros, in the test of the dashboards, and why.
const EMPTY: [(&str, &str); 10] = [
    ("serin_certificate_expiry_timestamp_seconds", "no port has a certificate"),
    ("serin_router_examples_total", "the rollout captures no examples"),
    ("serin_router_mirrored_total", "there are no shadows"),
    ("serin_router_output_tokens", "the model is not a language model"),
    ("serin_router_time_per_output_chunk_seconds", "the model is not a language model"),
    ("serin_router_time_to_first_chunk_seconds", "the model is not a language model"),
    ("serin_router_undecided_total", "the rollout has no sticky key, targets or segments"),
    ("serin_stream_dead_letter_codes_total", "all records can be used"),
    ("serin_writer_clock_offset_seconds", "all clocks are right"),
    ("serin_writer_silent", "all writers are heard"),
];

/// The panels of all dashboards, without rows.
fn panels() -> Vec<Value> {
    let mut panels = Vec::new();
    for file in std::fs::read_dir(deploy().join("grafana/dashboards")).unwrap() {
        let text = std::fs::read_to_string(file.unwrap().path()).unwrap();
        let board: Value = serde_json::from_str(&text).unwrap();
        panels.extend(board["panels"].as_array().unwrap().iter().filter(|panel| panel["type"] != "row").cloned());
    }
    assert!(panels.len() > 50, "{}", panels.len());
    panels
}

/// The queries of all dashboards, with values for their variables.
fn queries() -> BTreeSet<String> {
    let queries = panels().into_iter().flat_map(|panel| panel["targets"].as_array().unwrap().clone());
    queries
        .map(|query| query["expr"].as_str().unwrap().replace("$model", MODEL).replace("$__rate_interval", "1m"))
        .collect()
}

fn read(path: &str) -> String {
    let path = deploy().join("..").join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// What follows `key` on the lines of a YAML file that start with it.
fn values<'t>(text: &'t str, key: &'t str) -> impl Iterator<Item = &'t str> {
    text.lines()
        .filter_map(move |line| line.trim_start().strip_prefix(key))
        .map(|value| value.trim_matches([' ', '\'']))
}

#[test]
fn every_alert_has_a_runbook_and_tests() {
    let rules = read("deploy/prometheus/rules.yml");
    let alerts: BTreeSet<&str> = values(&rules, "- alert:").collect();
    assert!(alerts.len() > 20, "{alerts:?}");
    let links: BTreeSet<String> = values(&rules, "runbook_url:").map(str::to_owned).collect();
    assert_eq!(links, alerts.iter().map(|alert| format!("docs/runbooks/{alert}.md")).collect());
    let count = |key| values(&rules, key).count();
    assert_eq!(count("- alert:"), count("runbook_url:"));
    assert_eq!(count("- alert:"), count("summary:"));

    let folder = std::fs::read_dir(deploy().join("../docs/runbooks")).unwrap();
    let mut pages: BTreeSet<String> = folder.map(|page| page.unwrap().file_name().into_string().unwrap()).collect();
    assert!(pages.remove("README.md"));
    assert_eq!(pages, alerts.iter().map(|alert| format!("{alert}.md")).collect());
    let (index, tests) = (read("docs/runbooks/README.md"), read("deploy/prometheus/rules_test.yml"));
    for alert in alerts {
        assert!(index.contains(&format!("[{alert}]({alert}.md)")), "{alert} is not in the index");
        let page = read(&format!("docs/runbooks/{alert}.md"));
        let headings: Vec<&str> = page.lines().filter(|line| line.starts_with('#')).collect();
        let expected = ["## Meaning", "## First command", "## What to look at", "## When to escalate"];
        assert_eq!(headings, [&[&*format!("# {alert}")], &expected[..]].concat(), "{alert}");
        assert!(tests.contains(&format!("alertname: {alert}\n")), "no test in which {alert} fires");
        assert!(
            tests.contains(&format!("alertname: {alert}, exp_alerts: []")),
            "no test in which {alert} does not fire"
        );
    }
}

/// The metrics that an expression or another text names. A name with a colon is that of a recording rule.
fn metrics_in(text: &str) -> BTreeSet<&str> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == ':'));
    words.filter(|word| word.contains(':') || word.starts_with("serin_") || word.starts_with("process_")).collect()
}

#[test]
fn rules_and_dashboards_use_metrics_that_exist() {
    let (rules, page) = (read("deploy/prometheus/rules.yml"), read("docs/metrics.md"));
    let mut known: BTreeSet<String> = values(&rules, "- record:").map(str::to_owned).collect();
    for row in page.lines().filter_map(|line| line.strip_prefix("| `")) {
        let name = row.split('`').next().unwrap();
        known.insert(name.to_owned());
        if row.contains("| histogram |") {
            known.extend(["_bucket", "_sum", "_count"].map(|end| name.to_owned() + end));
        }
    }
    // Expressions of several lines are indented; all other lines of the file have a key.
    let keys =
        ["- ", "#", "groups:", "rules:", "for:", "labels:", "severity:", "annotations:", "summary:", "description:"];
    let in_rules = rules.lines().filter(|line| !keys.iter().any(|key| line.trim_start().starts_with(key)));
    let in_rules: Vec<&str> = in_rules.filter(|line| !line.trim_start().starts_with("runbook_url:")).collect();
    let used: Vec<String> = queries().into_iter().chain(in_rules.into_iter().map(str::to_owned)).collect();
    let used: BTreeSet<&str> = used.iter().flat_map(|text| metrics_in(text)).filter(|name| *name != "expr:").collect();
    assert!(used.len() > 60, "{used:?}");
    let unknown: Vec<_> = used.into_iter().filter(|name| !known.contains(*name)).collect();
    assert!(unknown.is_empty(), "not in docs/metrics.md: {unknown:?}");
}

#[test]
fn every_panel_has_a_unit_a_legend_and_a_description() {
    let current = run(Command::new("python3").args(["grafana/dashboards.py", "--check"]).current_dir(deploy()));
    assert_eq!(current.code, 0, "{current:?}");
    for panel in panels() {
        let title = panel["title"].as_str().unwrap();
        assert!(panel["description"].as_str().unwrap().len() > 10, "{title}");
        assert!(!panel["fieldConfig"]["defaults"]["unit"].as_str().unwrap().is_empty(), "{title}");
        for query in panel["targets"].as_array().unwrap() {
            assert!(!query["legendFormat"].as_str().unwrap().is_empty(), "{title}");
        }
    }
    for (metric, _) in EMPTY {
        assert!(queries().iter().any(|query| query.contains(metric)), "no panel shows {metric}");
    }
}
