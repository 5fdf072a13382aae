//! Reference vectors: `data/stats_cases.json`, computed with independent implementations (mpmath, scipy, confseq). All kinds
//! must pass, and the runner must be able to fail.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

#[path = "../examples/vectors/runner/mod.rs"]
mod runner;

use serde_json::{Value, json};

const PUBLIC: &str = include_str!("data/stats_cases.json");
const VARIANTS: &str = include_str!("data/stats_variants.json");

#[test]
fn every_public_vector_passes() {
    let report = runner::check_file(PUBLIC).unwrap();
    assert_eq!(report.failed(), 0, "{report}");
    assert_eq!(report.passed, 45);
    assert_eq!(report.kinds.len(), 38);
    assert!(report.kinds.iter().map(String::as_str).eq(runner::kind_names()));
}

#[test]
fn other_options_of_the_kinds_pass_too() {
    let report = runner::check_file(VARIANTS).unwrap();
    assert_eq!(report.failed(), 0, "{report}");
}

#[test]
fn every_number_counts() {
    // If an expected number is moved beyond its tolerance, the case must fail.
    let file: Value = serde_json::from_str(PUBLIC).unwrap();
    for case in file["cases"].as_array().unwrap() {
        for key in case["expected"].as_object().unwrap().keys() {
            let mut wrong = case.clone();
            spoil(&mut wrong["expected"][key]);
            let report = runner::check_file(&json!({"cases": [wrong]}).to_string()).unwrap();
            assert_eq!(report.failed(), 1, "{} {key}", case["id"]);
            assert!(report.to_string().contains(key.as_str()), "{report}");
        }
    }
}

fn spoil(value: &mut Value) {
    match value {
        Value::Array(items) => spoil(items.last_mut().unwrap()),
        Value::Bool(flag) => *flag = !*flag,
        other => *other = json!(other.as_f64().unwrap() * 1.001 + 1e-6),
    }
}

#[test]
fn invalid_vectors_are_named() {
    let case = |case: Value| runner::check_file(&json!({"cases": [case]}).to_string()).unwrap().to_string();
    assert_eq!(
        case(json!({"id": "a-1", "kind": "magic", "input": {}, "expected": {}, "rtol": 0, "atol": 0})),
        "a-1: unknown kind `magic`\n0 passed, 1 failed"
    );
    assert_eq!(case(json!({})), "case 0: `kind` must be given\n0 passed, 1 failed");
    let mcnemar = |input: Value| {
        case(json!({"id": "m", "kind": "mcnemar_exact", "input": input, "expected": {"p": 1}, "rtol": 0, "atol": 0}))
    };
    assert!(mcnemar(json!({"b": 1})).starts_with("m: `c` must be given"));
    assert!(mcnemar(json!({"b": -1, "c": 2})).starts_with("m: `b` must be a whole number of at least 0"));
    assert!(mcnemar(json!({"b": 0, "c": 0})).starts_with("m: the input has no result"));
    assert!(mcnemar(json!({"b": 1, "c": 2})).starts_with("m: p: got null, expected 1"));
    for text in ["", "[]", "{}", "{\"cases\": 1}", "{\"cases\": []}", "{\"cases\": [1]}"] {
        assert!(runner::check_file(text).is_err(), "{text}");
    }
}
