//! Compares every p-value and interval of `serin compare` with scipy and statsmodels, for generated files.

#![expect(clippy::unwrap_used, reason = "a panic fails the test")]

use std::{
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use serde_json::{Value, json};

/// A Python with scipy and statsmodels, kept in the user's cache.
fn python() -> PathBuf {
    let home = || PathBuf::from(std::env::var_os("HOME").expect("HOME is set")).join(".cache");
    let cache = std::env::var_os("XDG_CACHE_HOME").map_or_else(home, PathBuf::from).join("serin");
    let venv = cache.join("python-references-1");
    let (python, done) = (venv.join("bin/python"), venv.join("installed"));
    if done.exists() {
        return python;
    }
    // Remove the incomplete environment of an interrupted run.
    drop(std::fs::remove_dir_all(&venv));
    std::fs::create_dir_all(&cache).unwrap();
    let run = |command: &mut Command| {
        let output = command.output().unwrap();
        assert!(output.status.success(), "python3 with venv is needed (apt-get install python3-venv): {output:?}");
    };
    run(Command::new("python3").args(["-m", "venv"]).arg(&venv));
    run(Command::new(&python).args(["-m", "pip", "install", "--quiet", "scipy", "statsmodels"]));
    std::fs::write(done, "").unwrap();
    python
}

/// The `i`-th pseudorandom number of a stream, from 0 to 1.
fn scattered(stream: u64, i: u64) -> f64 {
    let mut x = (i + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ (stream + 1).wrapping_mul(0xD1B5_4A32_D192_ED03);
    x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    ((x ^ (x >> 31)) >> 11) as f64 / 9_007_199_254_740_992.0
}

/// Compares two files with rows of `(prediction of A, prediction of B, label)`, and returns the lines of the report.
fn compare(rows: &[(String, String, String)], more: &[&str]) -> Vec<Value> {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, of: fn(&(String, String, String)) -> &String| {
        let line = |(id, row)| format!("{id},{},{}\n", of(row), row.2);
        let text: Vec<String> = rows.iter().enumerate().map(line).collect();
        std::fs::write(folder.path().join(name), "id,prediction,label\n".to_owned() + &text.concat()).unwrap();
    };
    file("a.csv", |row| &row.0);
    file("b.csv", |row| &row.1);
    let output = Command::new(env!("CARGO_BIN_EXE_serin"))
        .args(["compare", "a.csv", "b.csv", "--output", "json"])
        .args(more)
        .current_dir(folder.path())
        .output()
        .unwrap();
    let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"));
    report["lines"].as_array().unwrap().clone()
}

fn line<'a>(lines: &'a [Value], metric: &str) -> &'a Value {
    lines.iter().find(|line| line["metric"] == metric).unwrap_or_else(|| panic!("no {metric}: {lines:#?}"))
}

/// Rows of classes: A is wrong in the share `only_a` of the rows, and B in the share `only_b` of other rows.
fn classes(stream: u64, n: u64, only_a: f64, only_b: f64) -> Vec<(String, String, String)> {
    let row = |i| {
        let (label, chance) = (if scattered(stream, i) < 0.5 { "yes" } else { "no" }, scattered(stream + 100, i));
        let wrong = if label == "yes" { "no" } else { "yes" };
        let a = if chance < only_a { wrong } else { label };
        let b = if (only_a..only_a + only_b).contains(&chance) { wrong } else { label };
        (a.to_owned(), b.to_owned(), label.to_owned())
    };
    (0..n).map(row).collect()
}

/// Rows of amounts that both predict, B with another spread.
fn amounts(stream: u64, n: u64, spread: f64) -> Vec<(String, String, String)> {
    let row = |i| {
        let label = 100.0 * scattered(stream, i);
        let noise = |of: u64, spread: f64| spread * (scattered(stream + of, i) + scattered(stream + of + 1, i) - 1.0);
        ((label + noise(10, 1.0)).to_string(), (label + noise(20, spread)).to_string(), label.to_string())
    };
    (0..n).map(row).collect()
}

#[test]
fn every_figure_matches_scipy_and_statsmodels() {
    let (mut cases, mut found) = (Vec::new(), Vec::new());
    let mut note = |case: Value, line: &Value| {
        cases.push(case);
        found.push(line.clone());
    };
    let designs = [
        (40, 0.05, 0.05),
        (50, 0.1, 0.02),
        (25, 0.0, 0.04),
        (2000, 0.05, 0.08),
        (2000, 0.1, 0.1),
        (5000, 0.002, 0.001),
    ];
    for (stream, (n, only_a, only_b)) in (0..).zip(designs) {
        let rows = classes(stream, n, only_a, only_b);
        let count = |of: fn(&(String, String, String)) -> bool| rows.iter().filter(|row| of(row)).count();
        let (a, b) = (count(|row| row.0 != row.2), count(|row| row.1 != row.2));
        for margin in ["0", "0.01", "0.05"] {
            let lines = compare(&rows, &["--label", "label", "--margin", margin, "--max-differ", "0.15"]);
            let (margin, alpha): (f64, _) = (margin.parse().unwrap(), 0.05);
            let case =
                json!({"kind": "error rate", "n": n, "only_a": a, "only_b": b, "margin": margin, "alpha": alpha});
            note(case, line(&lines, "error rate"));
            let case = json!({"kind": "differs", "n": n, "differ": a + b, "limit": 0.15, "alpha": alpha});
            note(case, line(&lines, "share that differs"));
        }
    }
    for (stream, (n, spread)) in (50..).zip([(300, 1.0), (1000, 1.2), (4000, 1.05)]) {
        let rows = amounts(stream, n, spread);
        let numbers = |of: fn(f64, f64, f64) -> f64| -> Vec<f64> {
            let number = |text: &String| text.parse::<f64>().unwrap();
            rows.iter().map(|(a, b, label)| of(number(a), number(b), number(label))).collect()
        };
        let lines = compare(&rows, &["--label", "label", "--margin", "0.05"]);
        let differences = numbers(|a, b, label| (b - label).abs() - (a - label).abs());
        let case =
            json!({"kind": "mean", "differences": differences, "margin": 0.05, "both_ways": false, "alpha": 0.05});
        note(case, line(&lines, "absolute error"));
        let lines = compare(&rows, &["--label", "label", "--margin", "0.02", "--loss", "squared", "--alpha", "0.01"]);
        let differences = numbers(|a, b, label| (b - label) * (b - label) - (a - label) * (a - label));
        let case =
            json!({"kind": "mean", "differences": differences, "margin": 0.02, "both_ways": false, "alpha": 0.01});
        note(case, line(&lines, "squared error"));
        let lines = compare(&rows, &["--margin", "0.03"]);
        let case = json!({"kind": "mean", "differences": numbers(|a, b, _| b - a), "margin": 0.03, "both_ways": true, "alpha": 0.05});
        note(case, line(&lines, "mean prediction"));
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/comparison/references.py");
    let mut child = Command::new(python()).arg(script).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(json!(cases).to_string().as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    let references: Vec<Vec<Option<f64>>> = serde_json::from_slice(&output.stdout).unwrap();
    for ((case, line), expected) in cases.iter().zip(&found).zip(references) {
        for (name, expected) in ["p_beyond", "p_within", "low", "high"].into_iter().zip(expected) {
            let Some(expected) = expected else { continue };
            let seen = line[name].as_f64().unwrap_or_else(|| panic!("{name}: {line:#}"));
            let close = (seen - expected).abs() <= 1e-5 + 1e-4 * expected.abs();
            assert!(close, "{name} is {seen}, expected {expected}: {line:#}\n{}", case["kind"]);
        }
    }
    assert!(found.iter().any(|line| line["test"] == "score test, exact"), "{found:#?}");
    assert!(found.iter().any(|line| line["test"] == "score test (Tango)"), "{found:#?}");
}
