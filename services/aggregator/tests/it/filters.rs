//! Conditions of a metric: only answers that meet all of them count, and what cannot be decided does not.

use proptest::prelude::*;
use serde_json::{Value, json};
use serin_schemas::{
    event::EventRecord::{Feedback as F, Prediction as P},
    ids::Span,
    records::{Arm, Feedback, Origin, Prediction, Segment, WindowClosed},
};

use crate::common::*;

fn metric(name: &str, source: &Value, filters: &Value) -> Value {
    let text = format!("{source}{filters}");
    let label = text.contains("label") || text.contains("feedback");
    json!({"name": name, "kind": "rate", "source": source, "where": filters, "margin": {"absolute": 0.1},
           "maturity": if label { "60s" } else { "0s" }, "segments": ["origin"]})
}

fn decided(is: &str) -> Value {
    json!({"class": {"output": "decision", "is": is}})
}

/// An answer with a score and a decision.
fn answer(n: i64, score: f64, decision: &str, origin: &str) -> Prediction {
    Prediction {
        outputs: [("score".to_owned(), score)].into(),
        classes: [("decision".to_owned(), decision.to_owned())].into(),
        segments: [("origin".to_owned(), origin.to_owned())].into(),
        ..prediction(n, Arm::Canary, 1.0)
    }
}

fn of(windows: &[WindowClosed], maturity: Span) -> &WindowClosed {
    windows.iter().find(|window| window.maturity == maturity).unwrap()
}

#[test]
fn recall_precision_and_false_positive_rate_are_rates_with_conditions() {
    let metrics = [
        metric("recall", &decided("block"), &json!([{"label": "fraud", "is": true}])),
        metric("false_positives", &decided("block"), &json!([{"label": "fraud", "is": false}])),
        metric("precision", &json!({"feedback": "fraud"}), &json!([{"output": "decision", "is": "block"}])),
        metric("above", &json!({"feedback": "fraud"}), &json!([{"output": "score", "above": 0.5, "below": 0.9}])),
        metric("blocked_lga", &decided("block"), &json!([{"segment": "origin", "is": "LGA"}])),
        metric("by_reason", &decided("block"), &json!([{"label": "reason", "is": "card"}])),
        metric("failed_fraud", &json!("failed"), &json!([{"label": "fraud", "is": true}])),
    ];
    let spec = spec_with(&metrics, |_| {});
    let mut bench = Bench::new();
    let reason = |n: i64, reason: &str| Feedback {
        values: [].into(),
        classes: [("reason".to_owned(), reason.to_owned())].into(),
        ..feedback(n, 100 + n, 0, "reason", 0.0)
    };
    let failed = Prediction { status: Some(503), outputs: [].into(), classes: [].into(), ..answer(6, 0.0, "", "LGA") };
    bench.feed([
        baking(&spec),
        P(answer(1, 0.9, "block", "LGA")),
        P(answer(2, 0.6, "block", "JFK")),
        P(answer(3, 0.4, "pass", "LGA")),
        P(answer(4, 0.5, "pass", "JFK")),
        P(answer(5, 0.8, "block", "JFK")),
        P(failed),
        F(feedback(1, 1, 0, "fraud", 1.0)),
        F(feedback(2, 2, 0, "fraud", 1.0)),
        // A revision turns the answer from a fraud into none.
        F(feedback(2, 3, 1, "fraud", 0.0)),
        F(feedback(3, 4, 0, "fraud", 1.0)),
        F(feedback(4, 5, 0, "fraud", 0.0)),
        F(feedback(6, 6, 0, "fraud", 1.0)),
        F(reason(1, "card")),
        F(reason(3, "card")),
        F(reason(4, "name")),
        beat(6, 10.0),
    ]);
    // Conditions hold after a restart too.
    bench.harness.commit().unwrap();
    bench.harness.crash().unwrap();
    let mut windows = Vec::new();
    bench.feed([beat(6, 70.0)]);
    windows.extend(bench.windows());
    let labels = of(&windows, minute());
    let rate = |name: &str| cell(labels, Arm::Canary, name, &Segment::all());
    // Of the frauds 1 and 3, one was blocked; call 6 failed and has no decision. Answer 5 never got a label.
    assert_eq!(rate("recall"), (1, 2));
    assert_eq!(rate("false_positives"), (1, 2));
    // Of the blocked answers 1, 2 and 5, two have a label, and one is a fraud.
    assert_eq!(rate("precision"), (1, 2));
    // From 0.5 to below 0.9: answers 2, 4, and 5, which has no label.
    assert_eq!(rate("above"), (0, 2));
    assert_eq!(rate("by_reason"), (1, 2));
    // Frauds 1, 3 and 6, of which one failed.
    assert_eq!(rate("failed_fraud"), (1, 3));
    assert_eq!(cell(labels, Arm::Canary, "recall", &Segment::of("origin", "LGA")), (1, 2));
    assert_eq!(arm(labels, Arm::Canary).labelled, 5);
}

#[test]
fn a_condition_without_a_label_is_decided_at_once() {
    let lga = metric("blocked_lga", &decided("block"), &json!([{"segment": "origin", "is": "LGA"}]));
    let high = metric("high_blocked", &decided("block"), &json!([{"output": "score", "above": 0.5}]));
    let slow = json!({"name": "lga_latency", "kind": {"quantile": {"level": 0.5}}, "source": "latency",
        "where": [{"segment": "origin", "is": "LGA"}, {"output": "decision", "is": "pass"}], "margin": {"relative": 0.2}});
    let spec = spec_with(&[lga, high, slow], |_| {});
    let mut bench = Bench::new();
    let no_score = Prediction { outputs: [].into(), ..answer(4, 0.0, "block", "EWR") };
    bench.feed([
        baking(&spec),
        P(answer(1, 0.9, "block", "LGA")),
        P(answer(2, 0.2, "pass", "LGA")),
        P(answer(3, 0.7, "pass", "JFK")),
        P(no_score),
        beat(4, 10.0),
    ]);
    let windows = bench.windows();
    let now = of(&windows, Span(0));
    let rate = |name: &str| cell(now, Arm::Canary, name, &Segment::all());
    assert_eq!(rate("blocked_lga"), (1, 2));
    assert_eq!(rate("high_blocked"), (1, 2), "an answer without a score is not above 0.5 and not below");
    assert_eq!(rate("lga_latency"), (0, 1));
}

#[test]
fn outputs_of_a_model_server_decide_conditions_too() {
    let high = metric("high_blocked", &decided("block"), &json!([{"output": "score", "above": 0.5}]));
    let recall = metric("recall", &decided("block"), &json!([{"label": "fraud", "is": true}]));
    let spec = spec_with(&[high, recall], |_| {});
    let report = |n: i64, decision: &str| Prediction {
        origin: Origin::Intake,
        outputs: [].into(),
        writer: writer("intake-0", n),
        ..answer(n, 0.0, decision, "LGA")
    };
    let routed = |n: i64, score: f64| Prediction { classes: [].into(), ..answer(n, score, "", "LGA") };
    let mut bench = Bench::new();
    bench.feed([
        baking(&spec),
        P(routed(1, 0.9)),
        P(routed(2, 0.1)),
        // One report comes before its call, two after.
        P(report(3, "block")),
        P(routed(3, 0.8)),
        P(report(1, "pass")),
        P(report(2, "block")),
        F(feedback(1, 1, 0, "fraud", 1.0)),
        F(feedback(2, 2, 0, "fraud", 1.0)),
        F(feedback(3, 3, 0, "fraud", 0.0)),
        beat(3, 70.0),
    ]);
    let windows = bench.windows();
    assert_eq!(cell(of(&windows, Span(0)), Arm::Canary, "high_blocked", &Segment::all()), (1, 2));
    assert_eq!(cell(of(&windows, minute()), Arm::Canary, "recall", &Segment::all()), (1, 2));
}

#[test]
fn log_loss_is_that_of_the_probability_of_what_happened() {
    let loss = json!({"name": "loss", "kind": {"mean": {"min": 0.0, "max": 5.0}},
        "source": {"log_loss": {"output": "score", "label": "fraud"}}, "margin": {"absolute": 0.1}, "maturity": "60s"});
    let spec = spec_with(&[loss], |_| {});
    let mut bench = Bench::new();
    bench.feed([
        baking(&spec),
        P(answer(1, 0.25, "", "LGA")),
        P(answer(2, 0.25, "", "LGA")),
        P(answer(3, 1.5, "", "LGA")),
        F(feedback(1, 1, 0, "fraud", 1.0)),
        F(feedback(2, 2, 0, "fraud", 0.0)),
        F(feedback(3, 3, 0, "fraud", 1.0)),
        beat(3, 70.0),
    ]);
    let windows = bench.windows();
    let found = of(&windows, minute()).cells.iter().find(|cell| cell.metric == "loss").unwrap();
    let summary = serin_sketches::Summary::decode(&found.summary).unwrap();
    assert_eq!(summary.n(), 2, "1.5 is not a probability");
    let serin_sketches::Summary::Lin(hist) = summary else { panic!("{summary:?}") };
    // -ln 0.25 and -ln 0.75, each as a part of 5, in a histogram of 1/512.
    let mean = (0.25_f64.ln() + 0.75_f64.ln()) / -2.0 / 5.0;
    assert!((hist.mean().unwrap() - mean).abs() < 2.0 / 512.0, "{:?} {mean}", hist.mean());
}

proptest! {
    /// Whatever comes in whatever order, a filtered rate counts exactly the answers whose conditions all hold.
    #[test]
    fn a_filtered_rate_counts_what_a_plain_count_finds(
        answers in proptest::collection::vec((0..5_u8, proptest::bool::ANY, proptest::option::of(0..3_u8), 0..3_u8), 1..40),
        labels_first: bool,
    ) {
        let filters = json!([
            {"label": "fraud", "is": true}, {"output": "score", "above": 0.5}, {"segment": "origin", "is": "LGA"}
        ]);
        let spec = spec_with(&[metric("filtered", &decided("block"), &filters)], |_| {});
        let mut bench = Bench::new();
        bench.feed([baking(&spec)]);
        let mut expected = (0, 0);
        let (mut calls, mut labels) = (Vec::new(), Vec::new());
        for (n, (score, block, fraud, origin)) in (1..).zip(&answers) {
            let score = f64::from(*score) / 4.0;
            let origin = ["LGA", "JFK", "EWR"][usize::from(*origin)];
            calls.push(P(answer(n, score, if *block { "block" } else { "pass" }, origin)));
            if let Some(fraud) = fraud {
                let fraud = f64::from(*fraud) / 2.0;
                labels.push(F(feedback(n, n, 0, "fraud", fraud)));
                if fraud >= 0.5 && score >= 0.5 && origin == "LGA" {
                    expected = (expected.0 + u64::from(*block), expected.1 + 1);
                }
            }
        }
        let order = if labels_first { [labels, calls] } else { [calls, labels] };
        bench.feed(order.into_iter().flatten());
        bench.feed([beat(answers.len() as i64, 70.0)]);
        let windows = bench.windows();
        let found = cell(of(&windows, minute()), Arm::Canary, "filtered", &Segment::all());
        prop_assert_eq!(found, expected);
    }
}
