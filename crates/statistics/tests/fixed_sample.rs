//! The fixed-sample report against scipy (`data/fixed_sample.py`), its laws, and its refusals.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use serde_json::Value;
use serin_statistics::fixed_sample::{Decision, Metric, Refusal, report};
use serin_statistics::{Direction, Finding, Margin};

const CASES: &str = include_str!("data/fixed_sample_cases.json");

fn values(list: &Value) -> Vec<f64> {
    list.as_array().unwrap().iter().map(|value| value.as_f64().unwrap()).collect()
}

fn close(actual: f64, expected: &Value, what: &str) {
    let expected = expected.as_f64().unwrap();
    assert!((actual - expected).abs() <= 1e-9 * expected.abs() + 1e-15, "{what}: {actual}, expected {expected}");
}

#[test]
fn agrees_with_scipy() {
    let file: Value = serde_json::from_str(CASES).unwrap();
    let cases = file["cases"].as_array().unwrap();
    assert!(cases.len() >= 10);
    for case in cases {
        let name = case["name"].as_str().unwrap();
        let metrics = case["metrics"].as_array().unwrap();
        let data: Vec<_> = metrics.iter().map(|m| (values(&m["control"]), values(&m["canary"]))).collect();
        let inputs: Vec<Metric<'_>> = metrics
            .iter()
            .zip(&data)
            .map(|(metric, (control, canary))| Metric {
                name,
                weight: metric["weight"].as_f64().unwrap(),
                direction: serde_json::from_value(metric["direction"].clone()).unwrap(),
                margin: Margin { absolute: metric["absolute"].as_f64(), relative: metric["relative"].as_f64() },
                control,
                canary,
            })
            .collect();
        let report = report(&inputs, case["alpha"].as_f64().unwrap()).unwrap();
        let expected = &case["expected"];
        close(report.score, &expected["score"], name);
        let decision = match report.decision {
            Decision::Promote => "promote",
            Decision::Hold => "hold",
            Decision::Rollback => "rollback",
        };
        assert_eq!(expected["decision"], decision, "{name}");
        for (metric, expected) in report.metrics.iter().zip(expected["metrics"].as_array().unwrap()) {
            close(metric.margin, &expected["margin"], name);
            close(metric.u, &expected["u"], name);
            close(metric.p_within, &expected["p_within"], name);
            close(metric.p_beyond, &expected["p_beyond"], name);
            close(metric.cohen_d, &expected["cohen_d"], name);
            assert_eq!(serde_json::to_value(metric.finding).unwrap(), expected["finding"], "{name}");
        }
    }
}

fn metric<'a>(control: &'a [f64], canary: &'a [f64]) -> Metric<'a> {
    let (direction, margin) = (Direction::LowerIsBetter, Margin::absolute(0.5));
    Metric { name: "m", weight: 1.0, direction, margin, control, canary }
}

#[test]
fn flipping_sign_and_direction_changes_nothing() {
    let control: Vec<f64> = (0..40).map(|i| f64::from(i * 7 % 23)).collect();
    let canary: Vec<f64> = (0..30).map(|i| f64::from(i * 5 % 29)).collect();
    let flip = |values: &[f64]| values.iter().map(|value| -value).collect::<Vec<f64>>();
    let (flipped_control, flipped_canary) = (flip(&control), flip(&canary));
    let up = report(&[metric(&control, &canary)], 0.05).unwrap();
    let flipped = Metric { direction: Direction::HigherIsBetter, ..metric(&flipped_control, &flipped_canary) };
    let down = report(&[flipped], 0.05).unwrap();
    let (up, down) = (&up.metrics[0], &down.metrics[0]);
    assert!((up.p_within - down.p_within).abs() < 1e-12 && (up.p_beyond - down.p_beyond).abs() < 1e-12);
    assert!((up.cohen_d - down.cohen_d).abs() < 1e-12 && up.finding == down.finding);
}

#[test]
fn what_cannot_be_judged_is_refused_with_a_reason() {
    let good = [1.0, 2.0, 3.0, 4.0];
    let refusal = |metrics: &[Metric<'_>]| report(metrics, 0.05).unwrap_err();
    assert_eq!(refusal(&[metric(&[], &good)]), Refusal::Empty("m".to_owned(), "control"));
    assert!(matches!(refusal(&[metric(&good, &[1.0, f64::NAN])]), Refusal::NotFinite(..)));
    assert_eq!(refusal(&[metric(&[0.0, 1.0], &[-0.0, 1.0])]), Refusal::TwoValues("m".to_owned(), 2));
    assert_eq!(refusal(&[metric(&[5.0], &[5.0, 5.0])]), Refusal::TwoValues("m".to_owned(), 1));
    assert_eq!(refusal(&[Metric { weight: 0.0, ..metric(&good, &good) }]), Refusal::Weight("m".to_owned(), 0.0));
    assert!(matches!(
        refusal(&[Metric { margin: Margin::absolute(-1.0), ..metric(&good, &good) }]),
        Refusal::Margin(..)
    ));
    assert_eq!(refusal(&[]), Refusal::NoMetric);
    assert_eq!(report(&[metric(&good, &good)], 0.5), Err(Refusal::Alpha(0.5)));
    let message = refusal(&[metric(&[0.0, 1.0], &[0.0, 1.0])]).to_string();
    assert!(message.contains("0/1 outcomes") && message.contains("test of proportions"), "{message}");
    // One refused metric refuses the whole report: a metric that was not judged never counts as passed.
    assert!(report(&[metric(&good, &good), metric(&[0.0, 1.0], &[0.0, 1.0])], 0.05).is_err());
    assert_eq!(report(&[metric(&good, &good)], 0.05).unwrap().metrics[0].finding, Finding::Undecided);
}
