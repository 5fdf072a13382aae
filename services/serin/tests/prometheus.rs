//! Checks the files for Prometheus with a real Prometheus: the rules, the alert on a first rollback, `/metrics`, and the queries of the
//! dashboards.

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
fn the_rules_are_valid_and_a_first_rollback_fires() {
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
        let result = answer["data"]["result"].as_array().unwrap();
        assert!(result.len() <= 1, "{query}: {answer:#}");
        result.first()?["value"][1].as_str()?.parse().ok()
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

    // Gauges of the current state: the canary is no longer in the table, and there is no step.
    prometheus.wait_for(&format!("sum(serin_routing_weight_ratio{{{model}}})"), |value| value == Some(1.0));
    prometheus.wait_for(&format!("serin_routing_weight_ratio{{{model},version=\"v2\"}}"), |value| value.is_none());
    prometheus.wait_for(&format!("serin_rollout_step{{{model}}}"), |value| value.is_none());
    prometheus.wait_for("serin_telemetry_overflowing_metrics", |value| value == Some(0.0));

    // Prometheus can answer every query of the dashboards.
    for query in queries() {
        let url = reqwest::Url::parse_with_params(&format!("{}/api/v1/query", prometheus.url), [("query", &query)]);
        let answer: Value = http(Method::GET, url.unwrap().as_str(), None).unwrap().json().unwrap();
        assert_eq!(answer["status"], "success", "{query}: {answer:#}");
    }
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
}

/// The queries of all dashboards, with values for their variables.
fn queries() -> Vec<String> {
    fn expressions(value: &Value, found: &mut Vec<String>) {
        if let Some(expression) = value["expr"].as_str() {
            found.push(expression.replace("$model", MODEL).replace("$__rate_interval", "1m"));
        }
        let inner = value.as_object().into_iter().flat_map(|object| object.values());
        inner.chain(value.as_array().into_iter().flatten()).for_each(|value| expressions(value, found));
    }
    let mut found = Vec::new();
    for file in std::fs::read_dir(deploy().join("grafana/dashboards")).unwrap() {
        let text = std::fs::read_to_string(file.unwrap().path()).unwrap();
        expressions(&serde_json::from_str(&text).unwrap(), &mut found);
    }
    assert!(found.len() > 15, "{found:?}");
    found
}
