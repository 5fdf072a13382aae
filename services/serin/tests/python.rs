//! A foreign client in Python reports predictions that a foreign router assigned, and reads the verdicts.

#![expect(clippy::unwrap_used, reason = "a panic fails the test")]

mod support;
#[path = "support/world.rs"]
mod world;

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::{Mutex, PoisonError},
};

use serde_json::{Value, json};
use serin_tests::kafka::{Broker, unique_prefix};
use sha2::{Digest as _, Sha256};

use support::Pipeline;
use world::{User, run};

const REPOSITORY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

/// The files of the client, sorted.
fn sources() -> Vec<PathBuf> {
    let folder = Path::new(REPOSITORY).join("clients/python");
    let package = std::fs::read_dir(folder.join("serin_client")).unwrap().map(|file| file.unwrap().path());
    let mut files: Vec<PathBuf> = package.filter(|file| file.is_file()).collect();
    files.extend([folder.join("pyproject.toml"), folder.join("README.md")]);
    files.sort();
    files
}

/// A Python environment with the client installed, kept in the user's cache for each version of the client.
fn python() -> PathBuf {
    // The tests of this file run in parallel, and one of them creates the environment.
    static MADE: Mutex<()> = Mutex::new(());
    let _alone = MADE.lock().unwrap_or_else(PoisonError::into_inner);
    let home = || PathBuf::from(std::env::var_os("HOME").expect("HOME is set")).join(".cache");
    let cache = std::env::var_os("XDG_CACHE_HOME").map_or_else(home, PathBuf::from).join("serin");
    let mut hash = Sha256::new();
    for file in sources() {
        hash.update(std::fs::read(&file).unwrap());
    }
    let mut name = [0; 8];
    name.copy_from_slice(&hash.finalize()[..8]);
    let venv = cache.join(format!("python-{:016x}", u64::from_be_bytes(name)));
    let (python, done) = (venv.join("bin/python"), venv.join("installed"));
    if done.exists() {
        return python;
    }
    // Remove the incomplete environment of an interrupted run.
    drop(std::fs::remove_dir_all(&venv));
    std::fs::create_dir_all(&cache).unwrap();
    let made = run(Command::new("python3").args(["-m", "venv"]).arg(&venv));
    assert_eq!(made.code, 0, "python3 with venv is needed (apt-get install python3-venv): {made:?}");
    // Build from a copy, because setuptools leaves files in the source directory.
    let copy = tempfile::tempdir().unwrap();
    let root = Path::new(REPOSITORY).join("clients/python");
    for file in sources() {
        let target = copy.path().join(file.strip_prefix(&root).unwrap());
        std::fs::create_dir_all(target.parent().unwrap()).unwrap();
        std::fs::copy(&file, target).unwrap();
    }
    // The emitter also accepts numbers of numpy.
    let installed = run(Command::new(&python).args(["-m", "pip", "install", "--quiet", "numpy"]).arg(copy.path()));
    assert_eq!(installed.code, 0, "{installed:?}");
    std::fs::write(done, "").unwrap();
    python
}

#[test]
fn the_client_has_the_current_schema_of_verdicts() {
    let read = |path: &str| std::fs::read_to_string(Path::new(REPOSITORY).join(path)).unwrap();
    assert!(
        read("schemas/avro/verdict.v5.avsc") == read("clients/python/serin_client/verdict.avsc"),
        "copy schemas/avro/verdict.v5.avsc to clients/python/serin_client/verdict.avsc"
    );
}

#[test]
fn the_emitter_never_blocks_counts_dropped_events_and_checks_its_arguments() {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/emitter_checks.py");
    let output = run(Command::new(python()).arg(script)).expect(0);
    assert_eq!(output.out, "ok\n");
}

#[test]
fn a_python_program_emits_events_and_reads_the_verdict() {
    let python = python();
    let broker = Broker::shared().unwrap();
    let prefix = unique_prefix("python");
    let settings = ["topology.partitions=2", "router.heartbeat_every=100ms", "aggregator.intake.idle_after=2s"];
    let pipeline = Pipeline::kafka(broker.bootstrap(), &prefix, &settings).unwrap();
    let user = User(pipeline.api());
    user.apply(
        "apiVersion: serin.dev/v1
kind: Rollout
model: reviews
mode: observe
traffic: external
stable: {version: '1'}
canary: {version: '2'}
window: 1s
warmup: {minEvents: 50}
steps: [{weight: 50%, bake: {min: 1h, max: 2h}}]
outputs: [{name: score, source: {tensor: score}, min: 0, max: 1}]
segments: [{name: lang, source: {event: lang}}]
metrics:
  - name: wrong_rate
    kind: rate
    source: {wrong: {output: score, label: spam}}
    margin: {absolute: 0.2}
    segments: [lang]
    maturity: 1s
  - {name: latency_p50, kind: {quantile: {level: 0.5}}, source: latency, margin: {relative: 0.5}}
",
    );
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/foreign_client.py");
    let output = run(Command::new(python).arg(script).args([broker.bootstrap(), &prefix, &pipeline.api()])).expect(0);
    let verdict: Value = output.json();

    assert_eq!((&verdict["model"], &verdict["step"]), (&json!("reviews"), &json!(0)));
    let find = |metric: &str, segment: &str| {
        let metrics = verdict["metrics"].as_array().unwrap();
        let is_it = |found: &&Value| found["metric"] == metric && found["segment"]["value"] == segment;
        metrics.iter().find(is_it).unwrap_or_else(|| panic!("no {metric} {segment} in {verdict:#}"))
    };
    for segment in ["", "de"] {
        let wrong = find("wrong_rate", segment);
        let number = |path: &str| wrong.pointer(path).and_then(Value::as_f64).unwrap();
        let (canary, control, effect) = (number("/canary/value"), number("/control/value"), number("/effect"));
        assert_eq!((number("/canary/n"), canary), (200.0, 0.15), "{wrong:#}");
        // 20 of 200 were wrong, and none of the last answers of the warm-up, which are compared too.
        assert!(number("/control/n") >= 200.0 && (control * number("/control/n") - 20.0).abs() < 1e-6, "{wrong:#}");
        // The effect is weighted by window. The interval may need more windows than this test has.
        assert!((0.0..0.12).contains(&effect), "{wrong:#}");
        let interval = (wrong["effect_low"].as_f64(), wrong["effect_high"].as_f64());
        assert!(
            matches!(interval, (Some(low), Some(high)) if low < effect && effect < high) || interval == (None, None)
        );
        assert_ne!(wrong["result"], "fail", "{wrong:#}");
    }
    // The buckets of the summary are a few percent wide.
    let latency = find("latency_p50", "");
    assert!((latency["canary"]["value"].as_f64().unwrap() / 12.5 - 1.0).abs() < 0.05, "{latency:#}");
    let arms: Vec<_> =
        verdict["arms"].as_array().unwrap().iter().map(|arm| (&arm["arm"], &arm["predictions"])).collect();
    assert!(arms.contains(&(&json!("canary"), &json!(200))), "{arms:?}");
    // In observe mode no traffic is moved.
    let routing = pipeline.ask("/v1/routing").unwrap();
    assert!(routing.as_array().unwrap().iter().all(|table| table["model"] != "reviews"), "{routing:#}");
    // There are no dead letters.
    assert_eq!(pipeline.tail("dead-letters").unwrap(), Vec::<Value>::new());
}
