//! Guarantees of the decision with the real binary: they hold for every kind that lint accepts.

#![expect(clippy::unwrap_used, reason = "a panic fails the test")]

use std::process::Command;

/// Runs a verb on a rollout file, and returns the exit status and the output.
fn serin(verb: &[&str], file: &str) -> (Option<i32>, String) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rollout.yaml");
    std::fs::write(&path, file).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_serin"));
    let output = command.arg(verb[0]).arg("-f").arg(&path).args(&verb[1..]).output().unwrap();
    let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap()).concat();
    (output.status.code(), text)
}

const ROLLOUT: &str = r#"
apiVersion: serin.dev/v1
kind: Rollout
model: fraud
stable: {version: "1", url: "http://127.0.0.1:9001"}
canary: {version: "2", url: "http://127.0.0.1:9002"}
steps:
  - {weight: 5%, bake: {min: 10s, max: 2h}}
  - {weight: 50%, bake: {min: 10s, max: 2h}, require: pass}
segments:
  - {name: country, source: {header: x-country}}
outputs:
  - {name: score, source: {tensor: score}, min: 0, max: 1}
metrics:
  - {name: m, kind: {mean: {min: 0, max: 1}}, source: {output: score},
     direction: higher_is_better, margin: {absolute: 0.02}}
"#;

#[test]
fn a_gate_that_cannot_fail_is_promoted_with_a_note() {
    // A mean fraud score of 1 % cannot fall by two points.
    let world = ["--traffic", "200/s", "--base", "m=0.01"];
    let note = "the margin of m reaches beyond its range: while stable is at 0.01, no canary can fail it";
    let simulate = [&["simulate"][..], &world, &["--runs", "20", "--until", "2h", "--output", "json"]].concat();
    let (status, text) = serin(&simulate, ROLLOUT);
    let report: serde_json::Value = serde_json::from_str(&text).unwrap();
    let case = &report["cases"][0];
    assert_eq!((status, &case["notes"][0]), (Some(0), &serde_json::json!(note)), "{text}");
    let ends = case["report"]["ends"].as_array().unwrap();
    assert_eq!((ends.len(), &ends[0]["end"], &ends[0]["runs"]), (1, &"promoted".into(), &20.into()), "{text}");
    let (_, planned) = serin(&[&["plan"][..], &world].concat(), ROLLOUT);
    assert!(planned.contains("a canary equal to stable: promoted after"), "{planned}");
    assert!(planned.contains(note), "{planned}");
    // There is no note if the gate can fail.
    let (_, planned) = serin(&["plan", "--traffic", "200/s", "--base", "m=0.5"], ROLLOUT);
    assert!(!planned.contains("no canary can fail it"), "{planned}");
}

#[test]
fn a_gate_that_can_never_fail_is_refused() {
    let mean = "kind: {mean: {min: 0, max: 1}}";
    for (from, to, words) in [
        (mean, "kind: {mean: {min: 5, max: 10}}", "this check can never fail"),
        ("absolute: 0.02", "absolute: 1", "this check can never fail"),
        ("absolute: 0.02", "relative: 20", "this check can never fail"),
        (mean, "kind: {quantile: {level: 0.99}}, margin: {absolute: 1e12}", "this check can never fail"),
        ("9002", "9001", "no check can fail"),
        ("x-country", "x country", "cannot be the name of a header"),
        ("model: fraud", "model: fraud\nassignment: {sticky: {header: \"x user\"}}", "cannot be the name of a header"),
    ] {
        let mut file = ROLLOUT.replacen(from, to, 1);
        if to.contains("1e12") {
            file = file.replacen("direction: higher_is_better, margin: {absolute: 0.02}", "role: gate", 1);
        }
        let (status, text) = serin(&["lint"], &file);
        assert!(status == Some(1) && text.contains("error") && text.contains(words), "{to}: {text}");
    }
    assert_eq!(serin(&["lint"], ROLLOUT).0, Some(0));
}
