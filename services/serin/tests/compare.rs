//! `serin compare`: verdicts and exit status, bad rows by file and line, both formats.

#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

struct Run {
    status: i32,
    out: String,
    err: String,
}

/// Runs `serin compare` in `folder`, where the files are.
fn compare(folder: &Path, arguments: &[&str]) -> Run {
    let output =
        Command::new(env!("CARGO_BIN_EXE_serin")).arg("compare").args(arguments).current_dir(folder).output().unwrap();
    let text = |bytes: &[u8]| {
        let text = String::from_utf8(bytes.to_vec()).unwrap();
        text.lines().map(str::trim_end).collect::<Vec<_>>().join("\n")
    };
    Run { status: output.status.code().unwrap(), out: text(&output.stdout), err: text(&output.stderr) }
}

/// Writes one file per `(name, content)`.
fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, content) in files {
        std::fs::write(folder.path().join(name), content).unwrap();
    }
    folder
}

/// 900 inputs in three segments. A is wrong in every fifth; B in every fifth too, but at JFK in 40 % more.
fn classes() -> (String, String) {
    let (mut a, mut b) = ("id,prediction,late,origin\n".to_owned(), "id,prediction\n".to_owned());
    for i in 0..900_u32 {
        let (origin, label) = (["EWR", "JFK", "LGA"][i as usize % 3], if i % 4 == 0 { "yes" } else { "no" });
        let flip = |wrong: bool| if wrong == (label == "no") { "yes" } else { "no" };
        let (wrong_a, more) = (i / 3 % 5 == 0, origin == "JFK" && i / 3 % 5 < 3);
        writeln!(a, "{i},{},{label},{origin}", flip(wrong_a)).unwrap();
        writeln!(b, "{i},{}", flip(wrong_a || more)).unwrap();
    }
    (a, b)
}

#[test]
fn a_broken_segment_is_named() {
    let (a, b) = classes();
    let folder = folder(&[("a.csv", &a), ("b.csv", &b)]);
    let arguments = ["a.csv", "b.csv", "--label", "late", "--margin", "0.05", "--segment", "origin"];
    let run = compare(folder.path(), &arguments);
    assert_eq!(run.status, 3, "{}", run.err);
    insta::assert_snapshot!("a_broken_segment", run.out);
    let json = compare(folder.path(), &[&arguments[..], &["--output", "json"]].concat());
    let report: Value = serde_json::from_str(&json.out).unwrap();
    assert_eq!((json.status, &report["finding"], &report["pairs"]), (3, &"fail".into(), &900.into()));
    let failed = |line: &&Value| line["finding"] == "fail";
    let lines = report["lines"].as_array().unwrap();
    let named: Vec<&str> = lines.iter().filter(failed).map(|line| line["segment"].as_str().unwrap()).collect();
    assert!(named.contains(&"origin=JFK") && !named.contains(&"origin=EWR"), "{named:?}");
    // The other way round, B is the better one.
    let run = compare(folder.path(), &["b.csv", "a.csv", "--label", "late"]);
    assert_eq!(run.status, 0, "{}", run.out);
    assert!(run.out.contains("B is better, with 95 % confidence"), "{}", run.out);
}

#[test]
fn numbers_in_json_lines_are_compared_too() {
    let line = |i: u32, value: f64| format!("{{\"id\": {i}, \"score\": {value}, \"y\": {}}}\n", f64::from(i % 7) / 7.0);
    let noise = |i: u32| f64::from(i * 37 % 101) / 1010.0 - 0.05;
    let file = |shift: f64| (0..400).map(|i| line(i, f64::from(i % 7) / 7.0 + noise(i) + shift)).collect::<String>();
    let folder = folder(&[("a.jsonl", &file(0.0)), ("b.jsonl", &file(0.001)), ("c.jsonl", &file(0.2))]);
    let judge =
        |b: &str, more: &[&str]| compare(folder.path(), &[&["a.jsonl", b, "--prediction", "score"], more].concat());
    let close = judge("b.jsonl", &["--margin", "0.01", "--tolerance", "0.01", "--max-differ", "0.05"]);
    assert_eq!(close.status, 0, "{}{}", close.out, close.err);
    insta::assert_snapshot!("numbers_that_hardly_differ", close.out);
    let labelled = judge("c.jsonl", &["--label", "y", "--margin", "0.01"]);
    assert_eq!(labelled.status, 3, "{}{}", labelled.out, labelled.err);
    insta::assert_snapshot!("numbers_with_labels", labelled.out);
    // Nothing to judge by is no pass.
    let shown = judge("c.jsonl", &[]);
    assert_eq!(shown.status, 1);
    assert!(shown.out.ends_with("give --label, or a --margin for the mean, or --max-differ"), "{}", shown.out);
}

#[test]
fn too_few_pairs_are_no_verdict() {
    let folder = folder(&[("a.csv", "id,prediction\n1,0.5\n2,0.25\n"), ("b.csv", "id,prediction\n1,0.9\n2,0.8\n")]);
    let run = compare(folder.path(), &["a.csv", "b.csv", "--margin", "0.01"]);
    assert_eq!(run.status, 1, "{}", run.err);
    assert!(run.out.contains("too few pairs to judge a mean (30 are needed)"), "{}", run.out);
}

#[test]
fn bad_rows_are_told_all_at_once() {
    let folder = folder(&[
        ("a.csv", "id,prediction,late\n1,0.5,1\n2,fast,0\n3,,1\n,0.5,1\n4,0.5\n5,NaN,0\n6,0.1,0\n7,0.2,0\n"),
        (
            "b.jsonl",
            "{\"id\": 1, \"prediction\": 0.4, \"late\": 0}\n{\"id\": 2, \"prediction\": [1]}\nnonsense\n\n7\n{\"id\": 5, \"prediction\": 0.1}\n{\"id\": 6, \"prediction\": 0.3, \"late\": \"often\"}\n",
        ),
    ]);
    let run = compare(folder.path(), &["a.csv", "b.jsonl", "--label", "late"]);
    assert_eq!((run.status, run.out.as_str()), (2, ""));
    insta::assert_snapshot!("bad_rows", run.err);
}

#[test]
fn what_cannot_be_used_is_named() {
    let folder = folder(&[("a.csv", "id,prediction\n1,x\n1,y\n2,x\n"), ("b.csv", "id,prediction\n3,x\n")]);
    let told = |arguments: &[&str]| {
        let run = compare(folder.path(), arguments);
        assert_eq!((run.status, run.out.as_str()), (2, ""), "{}", run.err);
        run.err
    };
    for (arguments, expected) in [
        (&["a.csv", "b.csv"][..], "no id of a.csv is in b.csv: is `--id` the column that names the input?"),
        (&["a.csv", "c.csv"], "c.csv cannot be read: No such file"),
        (&["a.csv", "a.csv", "--id", "key"], "a.csv:1: there is no column `key` (--id); there are: id, prediction"),
        (&["a.csv", "a.csv", "--segment", "origin"], "a.csv:1: there is no column `origin` (--segment)"),
        (&["a.csv", "a.csv", "--label", "late"], "a.csv:1: no row has a label in `late` (--label)"),
        (&["a.csv", "a.csv", "--margin=-1"], "--margin -1: must be a number of at least 0"),
        (&["a.csv", "a.csv", "--alpha", "0.5"], "--alpha 0.5: must be between 0 and 0.5"),
        (&["a.csv", "a.csv", "--max-differ", "5"], "--max-differ 5: must be a share between 0 and 1, such as 0.05"),
    ] {
        let text = told(arguments);
        assert!(text.contains(expected), "{expected}:\n{text}");
    }
    let run = compare(folder.path(), &["a.csv", "a.csv", "--max-differ", "0.9"]);
    assert!(run.out.contains("2 pairs, 1 repeated rows in A (the first counts), 1 repeated rows in B"), "{}", run.out);
}

#[test]
fn the_help_teaches() {
    let help = compare(Path::new("."), &["--help"]);
    assert_eq!(help.status, 0);
    insta::assert_snapshot!("help", help.out);
}
