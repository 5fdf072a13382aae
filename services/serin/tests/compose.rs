//! Checks that `docker-compose.yml` is valid, and that the binary has every command and environment variable in it.

#![expect(clippy::unwrap_used, reason = "a panic fails the test")]

mod support;

use std::{
    collections::BTreeMap,
    fs::File,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use reqwest::Method;
use serde_json::Value;
use serin_tests::kafka::{Broker, BrokerOptions};

use support::{PATIENCE, SERIN, free_port, http, wait_until};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The compose file as `docker-compose config` resolves it, as JSON.
fn resolved() -> Value {
    let output = Command::new("docker-compose")
        .args(["-f", "docker-compose.yml", "config"])
        .env("SERIN_OPERATOR_TOKEN", "a-long-random-text")
        .env("SERIN_WRITER_TOKEN", "another-long-random-text")
        .current_dir(root())
        .output()
        .expect("docker-compose is installed by scripts/install-build-deps.sh --test");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    // Debian's docker-compose depends on the YAML library for the system's Python.
    let mut python = Command::new("/usr/bin/python3")
        .args(["-c", "import json, sys, yaml; json.dump(yaml.safe_load(sys.stdin), sys.stdout)"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    python.stdin.take().unwrap().write_all(&output.stdout).unwrap();
    let json = python.wait_with_output().unwrap();
    assert!(json.status.success());
    serde_json::from_slice(&json.stdout).unwrap()
}

fn strings(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().filter_map(|item| item.as_str().map(str::to_owned)).collect()
}

fn environment(service: &Value) -> BTreeMap<String, String> {
    let all = service["environment"].as_object().unwrap().iter();
    all.map(|(key, value)| (key.clone(), value.as_str().unwrap_or_default().to_owned())).collect()
}

/// The roles of the file as processes, with its commands and settings except addresses, directories and the number of brokers.
struct Up<'a> {
    compose: &'a Value,
    brokers: String,
    folder: &'a Path,
    running: Vec<(String, u16, Child)>,
}

impl<'a> Up<'a> {
    /// `up`: creates the topics, starts every role, and waits until all are ready.
    fn start(compose: &'a Value, brokers: &str, folder: &'a Path) -> Self {
        let mut up = Self { compose, brokers: brokers.to_owned(), folder, running: Vec::new() };
        let ensured = up.command("topology", 0).output().unwrap();
        assert!(ensured.status.success(), "{}", String::from_utf8_lossy(&ensured.stderr));
        for role in ["controller", "analyzer", "aggregator", "router"] {
            let port = free_port().unwrap();
            let log = File::create(up.log(role)).unwrap();
            let child = up.command(role, port).stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
            up.running.push((role.to_owned(), port, child));
        }
        up.check_ready();
        up
    }

    fn log(&self, role: &str) -> PathBuf {
        self.folder.join(format!("{role}.log"))
    }

    fn command(&self, service: &str, telemetry: u16) -> Command {
        let service_in_file = &self.compose["services"][service];
        let mut environment = environment(service_in_file);
        let data = self.folder.join(service).display().to_string();
        let local = |port: u16| format!("127.0.0.1:{port}");
        for (key, value) in [
            ("SERIN__LOG__KAFKA__BROKERS", self.brokers.clone()),
            ("SERIN__TOPOLOGY__REPLICATION", "1".to_owned()),
            ("SERIN__DATA_DIR", data),
            ("SERIN__TELEMETRY__LISTEN", local(telemetry)),
            ("SERIN__ROUTER__LISTEN", local(free_port().unwrap())),
            ("SERIN__ROUTER__ADMIN_LISTEN", local(free_port().unwrap())),
            ("SERIN__CONTROLLER__LISTEN", local(free_port().unwrap())),
        ] {
            environment.insert(key.to_owned(), value);
        }
        let mut command = Command::new(SERIN);
        command.args(strings(&service_in_file["command"])).envs(environment).stdin(Stdio::null());
        command.current_dir(self.folder);
        command
    }

    fn check_ready(&mut self) {
        let folder = self.folder;
        for (role, port, child) in &mut self.running {
            let url = format!("http://127.0.0.1:{port}/readyz");
            let ready = wait_until(PATIENCE, || {
                anyhow::ensure!(child.try_wait()?.is_none(), "the process has ended");
                Ok(http(Method::GET, &url, None).is_ok_and(|answer| answer.text == "ready\n"))
            });
            let log = || std::fs::read_to_string(folder.join(format!("{role}.log"))).unwrap_or_default();
            assert!(ready.is_ok(), "{role}: {ready:?}\n{}", log());
        }
    }

    /// `down`: sends SIGTERM to every role, and waits for their exit.
    fn down(mut self) {
        for (_, _, child) in &mut self.running {
            let asked = Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap();
            assert!(asked.success());
        }
        for (role, _, child) in &mut self.running {
            let ended = wait_until(PATIENCE, || Ok(child.try_wait()?.is_some()));
            assert!(ended.is_ok(), "{role} does not end");
        }
    }
}

impl Drop for Up<'_> {
    fn drop(&mut self) {
        for (_, _, child) in &mut self.running {
            child.kill().ok();
            child.wait().ok();
        }
    }
}

/// Named volumes of a service, with the directory that each is mounted at.
fn volumes(service: &Value) -> Vec<(String, String)> {
    let text = |volume: &Value| match volume {
        Value::Object(long) => {
            format!("{}:{}", long["source"].as_str().unwrap_or("."), long["target"].as_str().unwrap())
        }
        short => short.as_str().unwrap_or_default().to_owned(),
    };
    let all: Vec<String> = service["volumes"].as_array().into_iter().flatten().map(text).collect();
    let mounts = all.iter().filter_map(|volume| volume.split_once(':'));
    let named = mounts.filter(|(name, _)| !name.starts_with(['.', '/']));
    named.map(|(name, path)| (name.to_owned(), path.split(':').next().unwrap_or_default().to_owned())).collect()
}

#[test]
fn brokers_and_stateful_roles_have_their_own_volumes() {
    let compose = resolved();
    let declared = compose["volumes"].as_object().unwrap();
    let mut names = Vec::new();
    for (name, service) in compose["services"].as_object().unwrap() {
        let kept = match &**name {
            broker if broker.starts_with("kafka-") => service["environment"]["KAFKA_LOG_DIRS"].as_str().unwrap(),
            "aggregator" | "analyzer" | "controller" => service["environment"]["SERIN__DATA_DIR"].as_str().unwrap(),
            _ => continue,
        };
        let volumes = volumes(service);
        let holds = volumes.iter().find(|(_, path)| Path::new(kept).starts_with(path));
        let (volume, _) = holds.unwrap_or_else(|| panic!("{name}: {kept} is not on one of {volumes:?}"));
        assert!(declared.keys().any(|key| key.ends_with(volume.as_str())), "{name}: {volume} is not declared");
        names.push(volume.clone());
    }
    assert_eq!(names.len(), 6, "three brokers and three roles with state");
    names.sort();
    names.dedup();
    assert_eq!(names.len(), 6, "a volume is shared");
}

/// Brokers and roles keep their data over `down` and `up`.
#[test]
fn every_role_continues_after_down_and_up() {
    let compose = resolved();
    let mut broker = Broker::start(BrokerOptions::default()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let brokers = broker.bootstrap().to_owned();
    for _ in 0..2 {
        Up::start(&compose, &brokers, folder.path()).down();
        broker.shut_down(PATIENCE).unwrap();
        broker.start_again().unwrap();
    }
    Up::start(&compose, &brokers, folder.path()).check_ready();
}

#[test]
fn the_binary_has_every_command_and_setting_of_the_file() {
    let compose = resolved();
    let mut checked = 0;
    for (name, service) in compose["services"].as_object().unwrap() {
        if service["image"] != "serin:local" {
            continue;
        }
        checked += 1;
        let command = strings(&service["command"]);
        let help = Command::new(SERIN).args(&command).arg("--help").output().unwrap();
        assert!(help.status.success(), "{name}: serin {command:?} is not a command");

        let environment = environment(service);
        assert!(environment.contains_key("SERIN__LOG__KIND"), "{name}");
        let dump = Command::new(SERIN).args(["up", "--dump-config"]).envs(&environment).output().unwrap();
        assert!(dump.status.success(), "{name}: {}", String::from_utf8_lossy(&dump.stderr));
        let settings: Value = serde_json::from_slice(&dump.stdout).unwrap();
        assert_eq!(settings["log"]["kafka"]["brokers"], environment["SERIN__LOG__KAFKA__BROKERS"], "{name}");
        assert_eq!(settings["topology"]["replication"], 3, "{name}");
        if name == "router" {
            assert_eq!(settings["writers"][0]["name"], "apps", "{settings:#}");
        }
    }
    assert_eq!(checked, 5, "topology and the four roles");
}

#[test]
fn an_unknown_variable_is_refused() {
    let dump = Command::new(SERIN).args(["up", "--dump-config"]).env("SERIN__ROUTER__NONSENSE", "1").output().unwrap();
    assert_eq!(dump.status.code(), Some(64));
    assert!(String::from_utf8_lossy(&dump.stderr).contains("nonsense"));
}

#[test]
fn three_brokers_form_one_quorum() {
    let compose = resolved();
    let brokers: Vec<&Value> = compose["services"]
        .as_object()
        .unwrap()
        .iter()
        .filter(|(name, _)| name.starts_with("kafka-"))
        .map(|(_, s)| s)
        .collect();
    assert_eq!(brokers.len(), 3);
    let distinct = |key: &str| {
        let mut values: Vec<_> = brokers.iter().map(|broker| broker["environment"][key].to_string()).collect();
        values.sort();
        values.dedup();
        values.len()
    };
    assert_eq!(distinct("KAFKA_NODE_ID"), 3);
    assert_eq!(distinct("KAFKA_CONTROLLER_QUORUM_VOTERS"), 1);
    assert_eq!(distinct("CLUSTER_ID"), 1);
}
