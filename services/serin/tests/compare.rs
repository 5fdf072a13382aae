//! `serin compare`: verdicts, exit status, bad rows by file and line, and both formats.

#![expect(clippy::unwrap_used, reason = "a panic fails the test")]

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

struct Run {
    status: i32,
    out: String,
    err: String,
}

/// Runs `serin compare` in the directory of the files.
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

/// 900 inputs in three segments. A is wrong in every fifth, and so is B, but at JFK B is wrong in 40 % more.
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
    // With swapped files, B is better.
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
    // Without anything to judge, the result is not a pass.
    let shown = judge("c.jsonl", &[]);
    assert_eq!(shown.status, 1);
    assert!(shown.out.ends_with("pass --label, --margin for the mean, or --max-differ"), "{}", shown.out);
}

#[test]
fn too_few_pairs_give_no_verdict() {
    let folder = folder(&[("a.csv", "id,prediction\n1,0.5\n2,0.25\n"), ("b.csv", "id,prediction\n1,0.9\n2,0.8\n")]);
    let run = compare(folder.path(), &["a.csv", "b.csv", "--margin", "0.01"]);
    assert_eq!(run.status, 1, "{}", run.err);
    assert!(run.out.contains("too few pairs to judge a mean (300 are needed)"), "{}", run.out);
}

#[test]
fn bad_rows_are_reported_all_at_once() {
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
fn invalid_files_and_arguments_are_reported() {
    let folder = folder(&[
        ("a.csv", "id,prediction\n1,x\n1,x\n2,x\n"),
        ("b.csv", "id,prediction\n3,x\n"),
        ("twice.csv", "id,prediction,prediction\n1,x,y\n"),
        ("contradiction.csv", "id,prediction\n1,x\n2,x\n1,y\n"),
        ("half.csv", "id,prediction\n1,x\n"),
        ("words.csv", "id,prediction\n1,yes\n2,no\n"),
        ("numbers.csv", "id,prediction,late\n1,0,no\n2,1,yes\n"),
        ("names.csv", "id,prediction,late\n1,0,0\n2,1,1\n"),
        ("amounts.csv", &amounts(40)),
        ("huge.csv", "id,prediction\n1,1e300\n2,0.5\n"),
        ("lake.csv", "PAR1\x15\x04\x15"),
        ("zipped.csv", "PK\x03\x04"),
        ("twice.jsonl", "{\"id\": 1, \"prediction\": 1, \"prediction\": 0}\n[1]\n"),
        ("array.json", "[{\"id\": 1, \"prediction\": 0.5}, 7]"),
    ]);
    let error_of = |arguments: &[&str]| {
        let run = compare(folder.path(), arguments);
        assert_eq!((run.status, run.out.as_str()), (2, ""), "{}", run.err);
        run.err
    };
    for (arguments, expected) in [
        (
            &["a.csv", "b.csv"][..],
            "no id of a.csv is in b.csv; check that `--id` is the column with the id of the input",
        ),
        (&["a.csv", "c.csv"], "c.csv cannot be read: No such file"),
        (
            &["a.csv", "a.csv", "--id", "key"],
            "a.csv:1: there is no column `key` (--id); the columns are: id, prediction",
        ),
        (&["a.csv", "a.csv", "--segment", "origin"], "a.csv:1: there is no column `origin` (--segment)"),
        (&["a.csv", "a.csv", "--label", "late"], "a.csv:1: no row has a label in `late` (--label)"),
        (&["a.csv", "a.csv", "--margin=-1"], "--margin -1: must be a number of at least 0"),
        (&["a.csv", "a.csv", "--alpha", "0.5"], "--alpha 0.5: must be between 0 and 0.5"),
        (&["a.csv", "a.csv", "--max-differ", "5"], "--max-differ 5: must be a share between 0 and 1, such as 0.05"),
        (&["a.csv", "a.csv", "--margin", "-1"], "--margin -1: must be a number of at least 0"),
        (&["a.csv", "a.csv", "--max-missing", "-1"], "--max-missing -1: must be a share between 0 and 1"),
        (&["twice.csv", "a.csv"], "twice.csv:1: there is more than one column `prediction` (--prediction)"),
        (&["contradiction.csv", "a.csv"], "contradiction.csv:4: the id 1 is predicted \"y\", but \"x\" in line 2"),
        (&["a.csv", "half.csv"], "half.csv lacks 1 of the 2 ids of a.csv (50.0 %): inputs without both answers"),
        (&["half.csv", "a.csv"], "half.csv lacks 1 of the 2 ids of a.csv (50.0 %)"),
        (
            &["numbers.csv", "numbers.csv", "--label", "late"],
            "the labels (`late`) have no value in common: 0, 1 against no, yes",
        ),
        (
            &["names.csv", "words.csv", "--label", "late"],
            "the predictions of words.csv and the labels (`late`) have no value in",
        ),
        (&["a.csv", "words.csv"], "the predictions of a.csv and the predictions of words.csv have no value in common"),
        (
            &["names.csv", "names.csv", "--label", "late", "--margin", "5"],
            "an error rate is between 0 and 1, so every B",
        ),
        (&["words.csv", "words.csv", "--margin", "0.1"], "--margin: these are classes, and without labels"),
        (&["amounts.csv", "amounts.csv", "--label", "true"], "whole numbers (40 different ones): pass `--kind class`"),
        (&["amounts.csv", "amounts.csv", "--margin", "1"], "whole numbers (40 different ones): pass `--kind class`"),
        (&["huge.csv", "huge.csv", "--margin", "1"], "huge.csv:2: 1e300 is too large to be judged"),
        (&["lake.csv", "a.csv"], "lake.csv:1: this is Parquet; write it as CSV or as JSON lines"),
        (&["zipped.csv", "a.csv"], "zipped.csv:1: this is a ZIP archive, or an Excel file; write it"),
        (&["twice.jsonl", "a.csv"], "twice.jsonl:1: this is not a row: `prediction` appears twice"),
        (&["twice.jsonl", "a.csv"], "twice.jsonl:2: this is not a row: invalid type: sequence, expected a JSON object"),
        (
            &["array.json", "a.csv"],
            "array.json:1: the file starts like a JSON array of rows, but is not one: invalid type: integer",
        ),
    ] {
        let text = error_of(arguments);
        assert!(text.contains(expected), "{expected}:\n{text}");
    }
    let run = compare(folder.path(), &["a.csv", "half.csv", "--max-missing", "0.5", "--max-differ", "0"]);
    assert!(run.status == 0 && run.out.contains("\n1 pairs, 1 ids only in A"), "{}", run.out);
    let run = compare(folder.path(), &["a.csv", "a.csv", "--max-differ", "0.9"]);
    assert!(run.out.contains("2 pairs, 1 repeated rows in A (the first counts), 1 repeated rows in B"), "{}", run.out);
}

/// `n` whole numbers that may be amounts or names, each with itself as label.
fn amounts(n: u32) -> String {
    (0..n).fold("id,prediction,true\n".to_owned(), |text, i| text + &format!("{i},{i},{i}\n"))
}

/// Deterministic pseudorandom numbers from 0 to 1.
fn scattered(i: u32) -> f64 {
    let mut x = (u64::from(i) + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    f64::from((x >> 40) as u32) / f64::from(1_u32 << 24)
}

/// Rows of `id,prediction,label`.
fn rows(n: u32, prediction: impl Fn(u32) -> f64, label: impl Fn(u32) -> f64) -> String {
    (0..n).fold("id,prediction,label\n".to_owned(), |text, i| text + &format!("{i},{},{}\n", prediction(i), label(i)))
}

#[test]
fn a_constant_does_not_beat_an_honest_forecast() {
    // A is a calibrated forecast from 0 to 0.6, and B is always 0.
    let honest = |i: u32| 0.6 * scattered(i);
    let label = |i: u32| f64::from(scattered(i.wrapping_add(77_777)) < honest(i));
    let folder = folder(&[("a.csv", &rows(4000, honest, label)), ("b.csv", &rows(4000, |_| 0.0, label))]);
    let judge = |more: &[&str]| compare(folder.path(), &[&["a.csv", "b.csv", "--label", "label"], more].concat());
    let run = judge(&[]);
    assert_eq!(run.status, 3, "{}", run.out);
    assert!(
        run.out.contains("note: labels are 0 or 1 and predictions are between: judged by the squared error"),
        "{}",
        run.out
    );
    assert!(
        run.out.contains("B's Brier score is") && run.out.contains("B is worse, with 95 % confidence"),
        "{}",
        run.out
    );
    // The improper score is used on request, with a note.
    let run = judge(&["--loss", "absolute"]);
    assert!(run.out.contains("note: the absolute error of a probability is not a proper score"), "{}", run.out);
    // `True` and `False` are read as 1 and 0.
    let worded = rows(4000, honest, label).replace(",1\n", ",True\n").replace(",0\n", ",False\n");
    std::fs::write(folder.path().join("a.csv"), worded).unwrap();
    assert_eq!(judge(&[]).status, 3);
}

#[test]
fn classes_that_are_written_as_numbers_are_classes() {
    // Ten classes, each in 10 % of the rows. Both files are wrong in 10 %: A by one class number, B by five.
    let wrong = |by: u32| move |i: u32| f64::from(if i / 10 % 10 == 3 { (i + by) % 10 } else { i % 10 });
    let label = |i: u32| f64::from(i % 10);
    let folder = folder(&[("a.csv", &rows(1000, wrong(1), label)), ("b.csv", &rows(1000, wrong(5), label))]);
    let judge = |more: &[&str]| compare(folder.path(), &[&["a.csv", "b.csv", "--label", "label"], more].concat());
    let run = judge(&["--margin", "0.02"]);
    assert_eq!(run.status, 0, "{}", run.out);
    assert!(
        run.out.contains("note: predictions and labels have 10 distinct whole numbers, read as classes; see --kind"),
        "{}",
        run.out
    );
    assert!(run.out.contains("B is wrong in 10.00 % of the pairs, A in 10.00 %"), "{}", run.out);
    assert_eq!(judge(&["--kind", "number"]).status, 3);
}

#[test]
fn a_mean_is_judged_only_where_its_test_holds() {
    // B equals A except for one large error in a hundred rows: it is worse by 1 on average, just below the margin.
    let label = |i: u32| 10.0 * scattered(i);
    let gross = |n: u32| move |i: u32| label(i) + if i % 100 == 99 && i < n { 100.0 } else { 0.0 };
    for (n, needed) in [(30, "300"), (99, "300"), (300, "2402"), (1000, "2418")] {
        let folder = folder(&[("a.csv", &rows(n, label, label)), ("b.csv", &rows(n, gross(n), label))]);
        let run = compare(folder.path(), &["a.csv", "b.csv", "--label", "label", "--margin", "1.1"]);
        assert_eq!(run.status, 1, "{n}: {}", run.out);
        assert!(
            run.out.contains("too few pairs") && run.out.contains(&format!("({needed} are needed)")),
            "{n}: {}",
            run.out
        );
    }
    // With enough pairs the mean is judged, with a note on the assumptions.
    let folder = folder(&[("a.csv", &rows(20_000, label, label)), ("b.csv", &rows(20_000, gross(20_000), label))]);
    let run = compare(folder.path(), &["a.csv", "b.csv", "--label", "label", "--margin", "2"]);
    assert_eq!(run.status, 0, "{}", run.out);
    assert!(run.out.contains("note: the paired t test assumes that pairs are independent"), "{}", run.out);
    // Probabilities have a range, so a few skewed pairs can be judged by betting.
    let label = |i: u32| f64::from(i % 2);
    let near = |i: u32| (label(i) - 0.1).abs();
    let rare = |i: u32| if i % 100 == 99 { 1.0 - near(i) } else { near(i) };
    let folder = self::folder(&[("a.csv", &rows(200, near, label)), ("b.csv", &rows(200, rare, label))]);
    let judge = |margin: &str| {
        let run =
            compare(folder.path(), &["a.csv", "b.csv", "--label", "label", "--margin", margin, "--output", "json"]);
        let report: Value = serde_json::from_str(&run.out).unwrap();
        (run.status, report["lines"][0]["test"].as_str().unwrap().to_owned())
    };
    let bets = "betting on values from 0 to 1".to_owned();
    assert_eq!((judge("0.01"), judge("0.1")), ((1, bets.clone()), (0, bets)));
}

#[test]
fn a_handful_of_pairs_proves_nothing() {
    let three = "id,prediction,late\n1,x,x\n2,y,y\n3,x,x\n";
    let folder = folder(&[("a.csv", three)]);
    for (more, status) in [
        (&["--label", "late", "--margin", "0.5"][..], 1),
        (&["--max-differ", "0.5"], 1),
        (&["--max-differ", "0"], 0),
        (&["--label", "late"], 1),
    ] {
        let run = compare(folder.path(), &[&["a.csv", "a.csv"], more].concat());
        assert_eq!(run.status, status, "{more:?}: {}", run.out);
    }
    // A file compared with itself is not judged at a margin of 0, for classes and for numbers.
    let numbers = rows(400, scattered, scattered);
    let folder = self::folder(&[("a.csv", &numbers)]);
    for more in [&["--label", "label"][..], &["--margin", "0"]] {
        let run = compare(folder.path(), &[&["a.csv", "a.csv"], more].concat());
        assert_eq!(run.status, 1, "{more:?}: {}", run.out);
    }
}

#[test]
fn files_of_other_formats_are_read() {
    let csv = rows(300, scattered, scattered);
    let semicolons = csv.replace(',', ";").replace('.', ",");
    let array: Vec<Value> =
        (0..300).map(|i| serde_json::json!({"id": i, "prediction": scattered(i), "label": scattered(i)})).collect();
    let array = serde_json::to_string_pretty(&array).unwrap();
    let marked = format!("\u{feff}{csv}");
    let folder = folder(&[
        ("a.csv", &csv),
        ("semicolons.csv", &semicolons),
        ("tabs.tsv", &csv.replace(',', "\t")),
        ("array.json", &array),
        ("marked.csv", &marked),
    ]);
    for other in ["semicolons.csv", "tabs.tsv", "array.json", "marked.csv"] {
        let run =
            compare(folder.path(), &["a.csv", other, "--max-differ", "0", "--label", "label", "--margin", "0.01"]);
        assert_eq!(run.status, 0, "{other}: {}{}", run.out, run.err);
        assert_eq!(run.out.contains(&format!("note: {other}: ")), other != "marked.csv", "{}", run.out);
    }
}

#[test]
fn the_help_is_pinned() {
    let help = compare(Path::new("."), &["--help"]);
    assert_eq!(help.status, 0);
    insta::assert_snapshot!("help", help.out);
}

/// Rows with a prediction and a label that are computed from the number of the row.
fn labeled(count: u32, prediction: impl Fn(u32) -> String, label: impl Fn(u32) -> String) -> String {
    (0..count).fold("id,prediction,label\n".to_owned(), |mut all, i| {
        writeln!(all, "{i},{},{}", prediction(i), label(i)).unwrap();
        all
    })
}

/// How a class is written.
type Written = fn(u32) -> String;
/// The text of a row in one column.
type BoxedColumn = Box<dyn Fn(u32) -> String>;

/// A is right in all rows but one of fifty, and B is wrong in two of five. A writes its classes in another way.
#[test]
fn another_notation_is_not_taken_for_errors() {
    let truth = |i: u32| i * 7 % 5 % 2;
    let good = move |i: u32| if i.is_multiple_of(50) { 1 - truth(i) } else { truth(i) };
    let bad = move |i: u32| if i % 5 < 2 { 1 - truth(i) } else { truth(i) };
    let b = labeled(400, |i| bad(i).to_string(), |i| truth(i).to_string());
    let others: [(&str, Written); 4] = [
        ("-1 for 0", |class| (2 * i64::from(class) - 1).to_string()),
        ("1 for 0", |class| (class + 1).to_string()),
        ("no for 0", |class| if class == 1 { "1".to_owned() } else { "no".to_owned() }),
        ("0 for 1", |class| (1 - class).to_string()),
    ];
    for (named, other) in others {
        let a = labeled(400, |i| other(good(i)), |i| truth(i).to_string());
        let folder = folder(&[("a.csv", &a), ("b.csv", &b)]);
        let run =
            compare(folder.path(), &["a.csv", "b.csv", "--label", "label", "--margin", "0.02", "--kind", "class"]);
        assert_eq!(run.status, 2, "{named}: {}", run.out);
        assert!(run.err.contains("in another way than the labels") && run.err.contains(named), "{named}: {}", run.err);
    }
    // The same notation is judged, and B that confuses its classes is worse.
    let a = labeled(400, |i| good(i).to_string(), |i| truth(i).to_string());
    let swapped = labeled(400, |i| (1 - good(i)).to_string(), |i| truth(i).to_string());
    for b in [&b, &swapped] {
        let folder = folder(&[("a.csv", &a), ("b.csv", b)]);
        let run = compare(folder.path(), &["a.csv", "b.csv", "--label", "label", "--margin", "0.02"]);
        assert_eq!(run.status, 3, "{}", run.err);
    }
}

#[test]
fn words_for_a_missing_label_are_not_a_class() {
    let truth = |i: u32| if i.is_multiple_of(3) { "yes" } else { "no" };
    for word in ["nan", "NaN", "NA", "None", "null", "unknown", "<NA>", ""] {
        let label = |i: u32| (if i.is_multiple_of(10) { truth(i) } else { word }).to_owned();
        let a = labeled(1_000, |i| truth(i).to_owned(), label);
        let b = labeled(1_000, |i| (if i % 20 == 0 { "maybe" } else { truth(i) }).to_owned(), label);
        let folder = folder(&[("a.csv", &a), ("b.csv", &b)]);
        let run = compare(folder.path(), &["a.csv", "b.csv", "--label", "label", "--margin", "0.05"]);
        assert_eq!(run.status, 3, "{word}: {}{}", run.out, run.err);
        assert!(word.is_empty() || run.out.contains("read as missing"), "{word}: {}", run.out);
    }
    // A class may have such a name.
    let a = labeled(
        200,
        |i| (if i % 2 == 0 { "none" } else { "some" }).to_owned(),
        |i| (if i % 2 == 0 { "none" } else { "some" }).to_owned(),
    );
    let run = compare(folder(&[("a.csv", &a)]).path(), &["a.csv", "a.csv", "--label", "label", "--margin", "0.05"]);
    assert_eq!((run.status, run.out.contains("read as missing")), (0, false), "{}", run.out);
    // Another word for it is refused instead.
    let missing =
        labeled(400, |i| truth(i).to_owned(), |i| (if i.is_multiple_of(10) { truth(i) } else { "to do" }).to_owned());
    let run =
        compare(folder(&[("a.csv", &missing)]).path(), &["a.csv", "a.csv", "--label", "label", "--margin", "0.05"]);
    assert!(
        run.status == 2 && run.err.contains("\"to do\"") && run.err.contains("no prediction has it"),
        "{}",
        run.err
    );
}

#[test]
fn large_whole_numbers_stay_different_classes() {
    let class = |i: u32| format!("12345678901234567{:02}", i % 100);
    let (a, b) = (labeled(500, class, class), labeled(500, |i| class(i * 7 + 3), class));
    for more in [&["--kind", "class"][..], &["--kind", "class", "--margin", "0.02"]] {
        let folder = folder(&[("a.csv", &a), ("b.csv", &b)]);
        let run = compare(folder.path(), &[&["a.csv", "b.csv", "--label", "label"], more].concat());
        assert_eq!(run.status, 3, "{}{}", run.out, run.err);
    }
}

/// A constant 0 has a smaller absolute error than a calibrated forecast of a rare event.
#[test]
fn odd_labels_do_not_replace_the_proper_score() {
    let forecast = |i: u32| format!("0.{}", 1 + i % 4);
    let event = |i: u32| i * 37 % 100 < 10 * (1 + i % 4);
    let plain = move |i: u32| u32::from(event(i)).to_string();
    let b = labeled(4_000, |_| "0.0".to_owned(), plain);
    let refused: [(&str, BoxedColumn); 3] = [
        ("2", Box::new(move |i| if i == 17 { "2".to_owned() } else { plain(i) })),
        ("-1 and 1", Box::new(move |i| (if event(i) { "1" } else { "-1" }).to_owned())),
        ("1 and 2", Box::new(move |i| (if event(i) { "2" } else { "1" }).to_owned())),
    ];
    for (named, label) in refused {
        let a = labeled(4_000, forecast, label);
        let b = b.replace(",label", ",other");
        let folder = folder(&[("a.csv", &a), ("b.csv", &b)]);
        let run = compare(folder.path(), &["a.csv", "b.csv", "--label", "label", "--margin", "0.01"]);
        assert!(run.status == 2 && run.err.contains(named), "{named}: {}{}", run.out, run.err);
    }
    let soft: [BoxedColumn; 2] = [
        Box::new(move |i| if i == 17 { "0.5".to_owned() } else { plain(i) }),
        Box::new(move |i| (if event(i) { "0.99" } else { "0.01" }).to_owned()),
    ];
    for label in soft {
        let a = labeled(4_000, forecast, label);
        let b = b.replace(",label", ",other");
        let folder = folder(&[("a.csv", &a), ("b.csv", &b)]);
        let run = compare(folder.path(), &["a.csv", "b.csv", "--label", "label", "--margin", "0.01"]);
        assert_eq!(run.status, 3, "{}{}", run.out, run.err);
        assert!(run.out.contains("squared error"), "{}", run.out);
    }
}

#[test]
fn a_margin_that_every_b_meets_is_refused() {
    let truth = |i: u32| (i % 2).to_string();
    let a = labeled(400, |i| (if i % 50 == 0 { i + 1 } else { i } % 2).to_string(), truth);
    let folder = folder(&[("a.csv", &a)]);
    for (margin, status) in [("0.99", 2), ("0.98", 2), ("0.9", 0)] {
        let run = compare(folder.path(), &["a.csv", "a.csv", "--label", "label", "--margin", margin]);
        assert_eq!(run.status, status, "{margin}: {}{}", run.out, run.err);
    }
}
