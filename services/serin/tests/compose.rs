//! `docker-compose.yml` is valid, and every command and environment variable in it is one that the binary really has.

#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::{
    collections::BTreeMap,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use serde_json::Value;

const SERIN: &str = env!("CARGO_BIN_EXE_serin");

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
    // Debian's docker-compose brings the YAML library of the system's Python.
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

#[test]
fn every_serin_service_has_a_command_and_settings_that_the_binary_knows() {
    let compose = resolved();
    let mut checked = 0;
    for (name, service) in compose["services"].as_object().unwrap() {
        if service["image"] != "serin:local" {
            continue;
        }
        checked += 1;
        let command = strings(&service["command"]);
        let help = Command::new(SERIN).args(&command).arg("--help").output().unwrap();
        assert!(help.status.success(), "{name}: serin {command:?} is no command");

        let environment: BTreeMap<String, String> = service["environment"]
            .as_object()
            .unwrap()
            .iter()
            .map(|(key, value)| (key.clone(), value.as_str().unwrap_or_default().to_owned()))
            .collect();
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
fn a_variable_that_does_not_exist_is_refused() {
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
