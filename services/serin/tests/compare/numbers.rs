//! Numbers as files write them, and the bound that a line passes by.

use serde_json::Value;

use crate::{compare, folder};

/// The same in every format: JSON numbers keep all their digits, as fields of CSV do.
#[test]
fn large_whole_numbers_stay_different_in_every_format() {
    let label = |i: u32, base: u128| base + u128::from(i % 3);
    for base in [9_007_199_254_740_992_u128, 18_446_744_073_709_551_617, 1 << 100] {
        let of = |form: &dyn Fn(u32, u128, u128) -> String, shift: u32| -> String {
            (0..60).map(|i| form(i, label(i + shift, base), label(i, base))).collect::<Vec<_>>().join("\n")
        };
        let csv = |i: u32, found: u128, label: u128| format!("{i},{found}.0,{label}");
        let json = |i: u32, found: u128, label: u128| format!(r#"{{"id":{i},"prediction":{found},"label":{label}}}"#);
        let array = |shift| format!("[{}]", of(&json, shift).replace('\n', ","));
        let table = |shift| format!("id,prediction,label\n{}", of(&csv, shift));
        let (a, b) = (table(0), table(1));
        let folder = folder(&[
            ("a.csv", &a),
            ("b.csv", &b),
            ("a.jsonl", &of(&json, 0)),
            ("b.jsonl", &of(&json, 1)),
            ("b.json", &array(1)),
        ]);
        for (a, b) in [("a.csv", "b.csv"), ("a.jsonl", "b.jsonl"), ("a.csv", "b.jsonl"), ("a.jsonl", "b.json")] {
            let run = compare(folder.path(), &[a, b, "--label", "label", "--margin", "0.05"]);
            assert_eq!(run.status, 3, "{base} {a} {b}: {}{}", run.out, run.err);
            assert!(run.out.contains("B is wrong in 100.00 % of the pairs, A in 0.00 %"), "{}", run.out);
        }
    }
}

/// Numbers that cannot be judged are named with their line in every format.
#[test]
fn numbers_that_are_not_finite_are_reported() {
    let json = |odd: &str| -> String {
        let row = |i: u32| format!(r#"{{"id":{i},"prediction":{},"label":0.5}}"#, if i == 3 { odd } else { "0.25" });
        (0..40).map(row).collect::<Vec<_>>().join("\n")
    };
    let good = json("0.25");
    for (odd, wanted) in [
        ("1e400", "b.jsonl:4: the prediction \"1e400\" is not a finite number"),
        ("\"inf\"", "b.jsonl:4: the prediction \"inf\" is not a finite number"),
        ("NaN", "b.jsonl:4: the line is not JSON: "),
        ("NaN", "(JSON has no NaN or Infinity; write null for a missing value)"),
        (r#""\ud83d""#, "b.jsonl:4: `prediction` is not a valid text: half of a character"),
        ("null", "b.jsonl:4: no prediction: `prediction` is missing or empty"),
    ] {
        let folder = folder(&[("a.jsonl", &good), ("b.jsonl", &json(odd))]);
        let run = compare(folder.path(), &["a.jsonl", "b.jsonl", "--label", "label"]);
        assert!(run.status == 2 && run.err.contains(wanted), "{odd}: {}", run.err);
    }
}

/// A line passes by its one-sided bound. The two-sided interval of the table may reach beyond the margin.
#[test]
fn a_pass_names_the_bound_that_decides() {
    let rows = |wrong: u32| -> String {
        let row = |i: u32| format!("{i},{},1", u32::from(i >= wrong));
        format!("id,prediction,label\n{}", (0..1000).map(row).collect::<Vec<_>>().join("\n"))
    };
    let (a, b, worse) = (rows(0), rows(43), rows(46));
    let folder = folder(&[("a.csv", &a), ("b.csv", &b), ("worse.csv", &worse)]);
    let run = compare(folder.path(), &["a.csv", "b.csv", "--label", "label", "--margin", "0.055"]);
    assert_eq!(run.status, 0, "{}", run.out);
    assert!(run.out.contains("+3.21 .. +5.74 points"), "{}", run.out);
    assert!(run.out.contains("with 95 % confidence (one-sided bound: at most +5."), "{}", run.out);
    let json = |b: &str| {
        let run = compare(folder.path(), &["a.csv", b, "--label", "label", "--margin", "0.055", "--output", "json"]);
        let report: Value = serde_json::from_str(&run.out).unwrap();
        (report["lines"][0]["finding"].clone(), report["lines"][0]["high_one_sided"].as_f64().unwrap())
    };
    let ((passes, below), (open, above)) = (json("b.csv"), json("worse.csv"));
    assert_eq!((passes, open), ("pass".into(), "undecided".into()));
    assert!(below < 0.055 && above > 0.055, "{below} {above}");
}
