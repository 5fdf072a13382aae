//! Calls with several rows: a call counts once, with the mean of its rows or with one of them.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use serin_schemas::{
    event::EventRecord::{Feedback as F, Prediction as P},
    records::{Arm, Batch, Prediction, Segment},
};

use serin_sketches::Summary;

use crate::common::*;

fn batch(mean: f64) -> Batch {
    Batch { rows: 64, row: 7, means: [("score".to_owned(), mean)].into() }
}

fn metric(name: &str, kind: &Value) -> Value {
    json!({"name": name, "kind": kind, "source": {"output": "score"}, "margin": {"absolute": 0.1}})
}

/// The encoded summaries of the canary after one call.
fn folded(score: f64, batch: Option<Batch>) -> BTreeMap<String, Vec<u8>> {
    let spec = spec_with(
        &[
            metric("p50", &json!({"quantile": {"level": 0.5}})),
            metric("whole", &json!("distribution")),
            metric("capped", &json!({"capped_mean": {"cap": 10.0}})),
            metric("flag", &json!("rate")),
        ],
        |_| {},
    );
    let outputs = [("score".to_owned(), score)].into();
    let mut bench = Bench::new();
    bench.feed([baking(&spec), P(Prediction { outputs, batch, ..prediction(1, Arm::Canary, 1.0) }), beat(1, 10.0)]);
    let window = bench.windows().remove(0);
    assert_eq!(arm(&window, Arm::Canary).predictions, 1, "calls are counted");
    let cells = window.cells.into_iter().filter(|cell| cell.arm == Arm::Canary && cell.segment == Segment::all());
    cells.map(|cell| (cell.metric, cell.summary)).collect()
}

#[test]
fn means_take_the_mean_of_the_rows_and_all_else_takes_one_row() {
    let (row, mean) = (folded(0.75, None), folded(0.25, None));
    let found = folded(0.75, Some(batch(0.25)));
    for (name, summary) in &found {
        let expected = if matches!(name.as_str(), "score" | "capped") { &mean } else { &row };
        assert_eq!(summary, &expected[name], "{name}");
    }
    for name in ["score", "capped", "p50", "whole", "flag", "error_rate", "latency_p99"] {
        assert!(found.contains_key(name), "{name}");
    }
    assert!(["score", "capped", "p50", "whole", "flag"].iter().all(|name| row[*name] != mean[*name]));
    let of_other_output = Batch { rows: 2, row: 0, means: [("other".to_owned(), 0.5)].into() };
    assert_eq!(folded(0.75, Some(of_other_output)), row, "an output with one value per call");
}

#[test]
fn a_label_is_compared_with_the_drawn_row() {
    let spec = spec_with(&[wrong_metric()], |_| {});
    let answer = |seq, score: f64, mean| {
        let outputs = [("score".to_owned(), score)].into();
        P(Prediction { outputs, batch: Some(batch(mean)), ..prediction(seq, Arm::Canary, 1.0) })
    };
    let mut bench = Bench::new();
    bench.feed([
        baking(&spec),
        answer(1, 0.9, 0.1),
        answer(2, 0.1, 0.9),
        F(feedback(1, 1, 0, "late", 1.0)),
        F(feedback(2, 2, 0, "late", 1.0)),
        beat(2, 10.0),
    ]);
    bench.harness.commit().unwrap();
    bench.harness.crash().unwrap();
    bench.feed([beat(2, 70.0)]);
    let windows = bench.windows();
    let window = windows.iter().find(|window| window.maturity == minute()).unwrap();
    assert_eq!(cell(window, Arm::Canary, "wrong", &Segment::all()), (1, 2));
}

#[test]
fn in_a_segment_a_mean_takes_the_row_whose_segment_it_is() {
    let mut bench = Bench::new();
    let outputs = [("score".to_owned(), 0.75)].into();
    let call = |seq, outputs| Prediction { outputs, batch: Some(batch(0.25)), ..prediction(seq, Arm::Canary, 1.0) };
    bench.feed([baking(&spec()), P(call(1, outputs)), P(call(2, [].into())), beat(2, 10.0)]);
    let window = bench.windows().remove(0);
    let sum = |segment: &Segment| {
        let own = |cell: &&serin_schemas::records::Cell| {
            cell.arm == Arm::Canary && cell.metric == "score" && cell.segment == *segment
        };
        let summary = Summary::decode(&window.cells.iter().find(own).unwrap().summary).unwrap();
        let Summary::Lin(hist) = &summary else { panic!("{summary:?}") };
        // The range of the metric is 0 to 2.
        (summary.n(), 2.0 * hist.mean().unwrap())
    };
    let (n, mean) = sum(&Segment::all());
    assert_eq!(n, 2, "a call whose drawn row has no value has the mean of the others");
    assert!((mean - 0.25).abs() < 0.02, "{mean}");
    let (n, mean) = sum(&Segment::of("origin", "LGA"));
    assert_eq!(n, 1, "only the row whose segment is known");
    assert!((mean - 0.75).abs() < 0.02, "{mean}");
}
