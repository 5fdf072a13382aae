//! Rows as bytes: the next build must read what an older one wrote.

use std::collections::BTreeMap;

use bytes::Bytes;
use serin_schemas::{
    event::EventRecord::{Control, Feedback as F, Prediction as P},
    ids::Generation,
    records::{Arm, ArmDrops, Heartbeat, Phase, Prediction, RULES},
};

use crate::common::*;

/// First byte of the rows that this build writes.
const GOLDEN_FORMAT: u8 = 6;
/// One line per row: key, space, value, in hex.
const GOLDEN: &str = include_str!("rows.v6.hex");

/// The spec is a string so that the rows do not change when specs get new members.
const SPEC: &str = r#"{"apiVersion":"serin.dev/v1","kind":"Rollout","model":"flights","stable":{"version":"v1"},
"canary":{"version":"v2"},"steps":[{"weight":"5%"}],"segments":[{"name":"origin","source":{"header":"x-origin"}}],
"metrics":[{"name":"score","kind":{"mean":{"min":0,"max":2}},"source":{"output":"score"},"margin":{"absolute":0.1},
"segments":["origin"]},{"name":"wrong","kind":"rate","source":{"wrong":{"output":"score","label":"late"}},
"margin":{"absolute":0.05},"maturity":"60s","segments":["origin"]},{"name":"differs","kind":"disagreement",
"source":{"output":"score"},"limit":{"fail":0.1}},{"name":"class","kind":"rate","source":{"wrong_class":{"output":"kind",
"label":"truth"}},"margin":{"absolute":0.05},"maturity":"60s"}],"assignment":{"sticky":{"header":"x-user"}}}"#;

/// A bench with rows in every table.
fn bench() -> Bench {
    bench_under(RULES)
}

/// A bench with rows in every table, for a rollout that started under these rules.
fn bench_under(rules: i32) -> Bench {
    let control = |generation, phase, step| {
        Control(serin_schemas::records::Control {
            spec: SPEC.into(),
            rules,
            ..control(generation, phase, step, &spec())
        })
    };
    let drops = vec![ArmDrops { model: "flights".into(), arm: Arm::Canary, dropped: 7 }];
    let first = Heartbeat {
        writer: writer("router-0", 0),
        low_watermark: secs(0.5),
        drops,
        leaving: false,
        sent_at: None,
        relay: false,
    };
    let mut bench = Bench::new();
    bench.feed([
        control(1, Phase::Warming, -1),
        P(Prediction { generation: Generation(1), ..prediction(1, Arm::Stable, 1.0) }),
        control(2, Phase::Baking, 0),
        serin_schemas::event::EventRecord::Heartbeat(first),
        P(Prediction {
            unit: Some(5),
            classes: [("kind".to_owned(), "cat".to_owned())].into(),
            ..prediction(2, Arm::Canary, 1.0)
        }),
        P(Prediction { outputs: [].into(), status: None, ..prediction(4, Arm::Control, 12.0) }),
        P(Prediction { request_id: "request-4".into(), version: "v2".into(), ..prediction(5, Arm::Shadow, 12.0) }),
        F(feedback(2, 1, 3, "late", 1.0)),
        F(feedback(99, 2, 0, "late", 0.0)),
    ]);
    bench.harness.commit().unwrap();
    bench
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}

fn bytes(hex: &str) -> Bytes {
    (0..hex.len() / 2).map(|at| u8::from_str_radix(&hex[at * 2..at * 2 + 2], 16).unwrap()).collect()
}

fn read(golden: &str) -> BTreeMap<Bytes, Bytes> {
    golden.lines().map(|line| line.split_once(' ').map(|(key, value)| (bytes(key), bytes(value))).unwrap()).collect()
}

#[test]
fn the_bytes_of_rows_do_not_change() {
    let rows = bench().harness.rows();
    let tables: std::collections::BTreeSet<u8> = rows.keys().map(|key| key[0]).collect();
    // Table 8 belongs to format 2.
    assert_eq!(tables, (1..=11).filter(|&table| table != 8).collect());
    let found: String = rows.iter().map(|(key, value)| hex(key) + " " + &hex(value) + "\n").collect();
    if found != GOLDEN {
        let at = std::env::temp_dir().join("rows.v6.hex");
        std::fs::write(&at, &found).unwrap();
        panic!("the rows have changed; give them a new format number, or compare with {}", at.display());
    }
}

/// Checks that a task that opens with these rows writes the same windows as one without a restart. `counts_units`: whether rows contain
/// the counts per bucket of units.
fn continues_from(golden: &str, rules: i32, counts_units: bool) {
    let mut restored = Bench::new();
    restored.harness.reset(read(golden)).unwrap();
    // Restored rows are written again.
    restored.harness.commit().unwrap();
    restored.harness.reset(restored.harness.rows()).unwrap();
    let mut original = bench_under(rules);
    for bench in [&mut restored, &mut original] {
        bench.feed([P(prediction(99, Arm::Canary, 3.0)), beat(99, 100.0)]);
    }
    let (mut windows, mut expected) = (restored.windows(), original.windows());
    if !counts_units {
        windows.iter_mut().chain(&mut expected).for_each(|window| window.units.clear());
    }
    // Rows of older formats belong to the first rules and keep them.
    for window in &mut expected {
        window.rules = rules;
    }
    assert_eq!(windows, expected);
    assert_eq!(windows.iter().filter(|window| window.maturity == minute()).count(), 3);
}

#[test]
fn rows_of_format_6_are_read() {
    continues_from(GOLDEN, RULES, true);
}

/// Format 5 did not count calls per bucket of units.
#[test]
fn rows_of_format_5_are_read() {
    continues_from(include_str!("rows.v5.hex"), RULES, false);
}

#[test]
fn rows_of_format_4_are_read() {
    continues_from(include_str!("rows.v4.hex"), RULES, false);
}

#[test]
fn rows_of_format_3_are_read() {
    continues_from(include_str!("rows.v3.hex"), 1, false);
}

#[test]
fn rows_of_format_2_are_read_and_rewritten() {
    continues_from(include_str!("rows.v2.hex"), 1, false);
}

/// Rows are a cache: with rows of an unknown format, the fold starts over instead of stopping.
#[test]
fn rows_of_an_unknown_format_are_discarded() {
    let newer = |(key, value): (Bytes, Bytes)| (key, Bytes::from([&[99], &value[1..]].concat()));
    for rows in [read(include_str!("rows.v1.hex")), read(GOLDEN).into_iter().map(newer).collect()] {
        let mut bench = Bench::new();
        bench.harness.reset(rows).unwrap();
        bench.harness.commit().unwrap();
        assert!(bench.harness.rows().values().all(|value| value[0] == GOLDEN_FORMAT));
        // The controller repeats the Control record of a rollout without verdicts.
        bench.feed([Control(control(2, Phase::Baking, 0, &spec())), P(prediction(1, Arm::Canary, 1.0)), beat(1, 10.0)]);
        assert_eq!(bench.windows().len(), 1);
    }
}

/// Rows that were folded under other rules are not mixed with new events.
#[test]
fn rows_of_other_rules_start_over() {
    let bench = || {
        let mut bench = Bench::new();
        bench.feed([
            baking(&spec_with(&[wrong_metric()], |_| {})),
            P(prediction(1, Arm::Canary, 1.0)),
            P(prediction(2, Arm::Control, 1.0)),
            beat(2, 2.0),
        ]);
        bench.harness.commit().unwrap();
        bench.out();
        bench
    };
    let mut bench = bench();
    let mut rows = bench.harness.rows();
    let (key, value) =
        rows.iter().find(|(key, _)| key[0] == 3).map(|(key, value)| (key.clone(), value.clone())).unwrap();
    // The last byte is the version of the rules under which the row was folded; `postcard` encodes 2 as 4.
    assert_eq!(value.last(), Some(&4));
    rows.insert(key, Bytes::from([&value[..value.len() - 1], &[18]].concat()));
    bench.harness.reset(rows).unwrap();
    bench.harness.commit().unwrap();
    let kept: std::collections::BTreeSet<u8> = bench.harness.rows().keys().map(|key| key[0]).collect();
    assert_eq!(kept, [1, 2, 3, 4].into(), "no counts, cells or joins");
    bench.feed([P(prediction(3, Arm::Canary, 3.0)), beat(3, 10.0)]);
    let windows = bench.windows();
    let [window] = &windows[..] else { panic!("{windows:?}") };
    assert_eq!((arm(window, Arm::Canary).predictions, window.rules), (1, RULES));
}

/// A Control record with other rules restarts the rollout under them.
#[test]
fn a_rollout_under_other_rules_starts_over() {
    let under = |generation, rules| {
        Control(serin_schemas::records::Control { rules, ..control(generation, Phase::Baking, 0, &spec()) })
    };
    let mut bench = Bench::new();
    bench.feed([under(2, 1), P(prediction(1, Arm::Canary, 1.0)), under(3, 2)]);
    let windows = bench.windows();
    assert_eq!(
        windows.iter().map(|window| window.rules).collect::<Vec<_>>(),
        [1],
        "open windows are written as they are"
    );
    bench.feed([
        P(Prediction { generation: Generation(3), ..prediction(2, Arm::Canary, 2.0) }),
        // Rules that this build does not know are folded under its own rules.
        under(4, 77),
        P(Prediction { generation: Generation(4), ..prediction(3, Arm::Canary, 3.0) }),
        beat(3, 10.0),
    ]);
    let windows = bench.windows();
    assert!(windows.iter().all(|window| window.rules == RULES), "{windows:?}");
    assert_eq!(windows.iter().map(|window| arm(window, Arm::Canary).predictions).sum::<i64>(), 2);
}

#[test]
fn a_truncated_chunk_stops_the_task_with_a_clear_error() {
    for (key, value) in read(GOLDEN).into_iter().filter(|(key, _)| key[0] == 10) {
        // Truncated within the first entry and within the last. The log's checksums protect the boundaries between
        // entries.
        for length in [2, value.len() / 3, value.len() - 1] {
            let mut rows = read(GOLDEN);
            rows.insert(key.clone(), value.slice(..length));
            let text = Bench::new().harness.reset(rows).unwrap_err().to_string();
            assert!(text.starts_with("a row of the aggregator is unreadable"), "{length} bytes: {text}");
        }
    }
}

/// The summaries of one metric can be larger than a changelog record. They are split, restored after a restart, and
/// removed with their window.
#[test]
fn cells_that_do_not_fit_into_a_row_are_split() {
    let spec = spec_with(&[], |spec| {
        spec["segments"] =
            (0..40).map(|n| serde_json::json!({"name": format!("d{n}"), "source": {"header": "x"}})).collect();
        spec["metrics"] = serde_json::json!([{"name": "size", "kind": {"quantile": {"level": 0.5}}, "source": {"output": "size"},
            "margin": {"relative": 0.2}, "segments": (0..40).map(|n| format!("d{n}")).collect::<Vec<_>>()}]);
    });
    let fill = |bench: &mut Bench| {
        bench.feed([Control(control(1, Phase::Warming, -1, &spec))]);
        for n in 0..6000 {
            let outputs = [("size".to_owned(), 1.03_f64.powi((n % 1500) as i32))].into();
            let segments = (0..40).map(|d| (format!("d{d}"), format!("value-{}", n / 1500))).collect();
            let generation = Generation(1);
            bench.feed([P(Prediction { outputs, segments, generation, ..prediction(n + 1, Arm::Stable, 1.0) })]);
        }
    };
    let mut whole = Bench::new();
    fill(&mut whole);
    whole.feed([beat(6000, 100.0)]);
    let expected = whole.windows();
    let mut cut = Bench::new();
    fill(&mut cut);
    cut.harness.commit().unwrap();
    let rows = cut.harness.rows();
    let cells = rows.iter().filter(|(key, _)| key[0] == 7);
    assert!(cells.clone().count() > 1, "the cells fit into one row");
    assert!(cells.clone().all(|(_, value)| value.len() < 300 << 10));
    cut.harness.crash().unwrap();
    cut.feed([beat(6000, 100.0)]);
    assert_eq!(cut.windows(), expected);
    assert!(cut.harness.rows().keys().all(|key| key[0] != 7), "the rows are removed with the window");
}
