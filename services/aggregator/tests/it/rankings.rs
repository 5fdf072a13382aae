//! Rankings and the relevance of their items.

use serde_json::{Value, json};
use serin_schemas::{
    event::EventRecord::{Feedback as F, Prediction as P},
    records::{Arm, Feedback, Prediction, Segment},
};
use serin_sketches::Summary;

use crate::common::*;

fn metric(name: &str, kind: &Value, measure: &str, at: usize, missing: &str) -> Value {
    json!({"name": name, "kind": kind, "direction": "higher_is_better", "margin": {"absolute": 0.05}, "maturity": "60s",
           "whenMissing": missing, "segments": ["origin"],
           "source": {"ranking": {"output": "items", "label": "booked", "measure": measure, "at": at}}})
}

fn ranked_spec() -> serin_spec::RolloutSpec {
    let mean = json!({"mean": {"min": 0.0, "max": 1.0}});
    spec_with(
        &[
            metric("ndcg", &mean, "ndcg", 10, "exclude"),
            metric("mrr", &mean, "reciprocal_rank", 2, "exclude"),
            metric("hits", &json!("rate"), "hit", 2, "exclude"),
            metric("hits_or_none", &json!("rate"), "hit", 2, "zero"),
            wrong_metric(),
        ],
        |_| {},
    )
}

fn answer(seq: i64, ids: &str) -> serin_schemas::event::EventRecord {
    let classes = [("items".to_owned(), ids.to_owned())].into();
    P(Prediction { classes, ..prediction(seq, Arm::Canary, 1.0) })
}

fn relevance(request: i64, seq: i64, revision: i64, items: &[(&str, f64)]) -> serin_schemas::event::EventRecord {
    let values = items.iter().map(|(item, value)| (format!("booked/{item}"), *value)).collect();
    F(Feedback { values, ..feedback(request, seq, revision, "x", 0.0) })
}

/// Number and mean of the values of a mean.
fn mean(window: &serin_schemas::records::WindowClosed, metric: &str) -> (u64, f64) {
    let own = |cell: &&serin_schemas::records::Cell| {
        cell.arm == Arm::Canary && cell.metric == metric && cell.segment == Segment::all()
    };
    match Summary::decode(&window.cells.iter().find(own).unwrap().summary).unwrap() {
        Summary::Lin(hist) => (hist.total(), hist.mean().unwrap()),
        other => panic!("{other:?}"),
    }
}

#[test]
fn rankings_are_judged_by_the_relevance_of_their_items() {
    let mut bench = Bench::new();
    bench.feed([
        baking(&ranked_spec()),
        answer(1, "a\nb\nc"),
        answer(2, "b\na\nc"),
        // The feedback of the third answer arrives before it.
        relevance(3, 1, 0, &[("c", 1.0)]),
        answer(3, "a\nb\nc"),
        answer(4, "a\nb\nc"),
        P(prediction(5, Arm::Canary, 1.0)),
        relevance(1, 2, 0, &[("a", 1.0)]),
        relevance(2, 3, 0, &[("b", 0.0), ("z", 0.0)]),
        relevance(2, 4, 1, &[("a", 1.0)]),
        relevance(5, 5, 0, &[("a", 1.0)]),
        beat(5, 10.0),
    ]);
    bench.harness.commit().unwrap();
    bench.harness.crash().unwrap();
    bench.feed([beat(5, 70.0)]);
    let windows = bench.windows();
    let window = windows.iter().find(|window| window.maturity == minute()).unwrap();
    // The ranks of the relevant items are 1, 2 and 3. The fourth answer has no label and the fifth no ranking.
    let (n, ndcg) = mean(window, "ndcg");
    assert!(n == 3 && (ndcg - (1.0 + 0.6309 + 0.5) / 3.0).abs() < 0.02, "{n} {ndcg}");
    let (n, mrr) = mean(window, "mrr");
    assert!(n == 3 && (mrr - 0.5).abs() < 0.02, "{n} {mrr}");
    assert_eq!(cell(window, Arm::Canary, "hits", &Segment::all()), (2, 3));
    assert_eq!(cell(window, Arm::Canary, "hits", &Segment::of("origin", "LGA")), (2, 3));
    assert_eq!(cell(window, Arm::Canary, "hits_or_none", &Segment::all()), (2, 4));
}
