//! Label metrics: late feedback joined by request id.

use serin_aggregator::Config;
use serin_schemas::{
    event::EventRecord::{Feedback as F, Prediction as P},
    ids::Span,
    records::{Arm, Assignment, Feedback, Prediction, Segment, WindowClosed},
};

use crate::common::*;

fn of(windows: &[WindowClosed], maturity: Span) -> Vec<&WindowClosed> {
    windows.iter().filter(|window| window.maturity == maturity).collect()
}

#[test]
fn labels_join_by_request_id_within_their_maturity() {
    let spec = spec_with(&[wrong_metric()], |_| {});
    let mut bench = Bench::new();
    let off =
        |n, score: f64, arm| P(Prediction { outputs: [("score".to_owned(), score)].into(), ..prediction(n, arm, 1.0) });
    bench.feed([
        baking(&spec),
        off(1, 0.9, Arm::Canary),
        off(2, 0.9, Arm::Canary),
        off(3, 0.1, Arm::Control),
        off(4, 0.1, Arm::Control),
        off(5, 0.1, Arm::Stable),
        P(Prediction { assignment: Assignment::Fallback, ..prediction(6, Arm::Canary, 1.0) }),
        beat(6, 10.0),
        F(feedback(1, 1, 0, "late", 0.0)),
        F(feedback(2, 2, 0, "late", 1.0)),
        F(feedback(3, 3, 0, "late", 0.0)),
        F(feedback(5, 4, 0, "late", 0.0)),
        beat(6, 69.0),
    ]);
    let windows = bench.windows();
    assert_eq!(of(&windows, minute()).len(), 0);
    bench.feed([beat(6, 70.0)]);
    let (windows, promises) = bench.out();
    let [window] = of(&windows, minute())[..] else { panic!("{windows:?}") };
    assert_eq!(window.end, secs(10.0));
    assert_eq!(promises.last().unwrap().through, secs(70.0));
    let (canary, control) = (arm(window, Arm::Canary), arm(window, Arm::Control));
    assert_eq!((canary.predictions, canary.labelled, canary.excluded), (2, 2, 1));
    assert_eq!((control.predictions, control.labelled), (2, 1));
    assert_eq!(cell(window, Arm::Canary, "wrong", &Segment::all()), (1, 2));
    assert_eq!(cell(window, Arm::Canary, "wrong", &Segment::of("origin", "LGA")), (1, 2));
    assert_eq!(cell(window, Arm::Control, "wrong", &Segment::all()), (0, 1), "a missing label is not counted");
    // A label that arrives after the heartbeat that closed its maturity is permanently too late.
    bench.feed([F(feedback(4, 5, 0, "late", 1.0)), beat(6, 200.0)]);
    assert_eq!(bench.windows(), []);
    assert!(bench.harness.rows().keys().all(|key| key[0] != 10), "nothing is waiting any more");
}

#[test]
fn labels_of_calls_that_stable_answered_are_no_evidence_about_the_canary() {
    let clicked = serde_json::json!({"name": "clicked", "kind": "rate", "source": {"feedback": "click"},
        "margin": {"absolute": 0.1}, "direction": "higher_is_better", "maturity": "60s"});
    let spec = spec_with(&[clicked], |_| {});
    let mut bench = Bench::new();
    let failed = |n| Prediction {
        status: None,
        error: Some("connect".into()),
        outputs: [].into(),
        ..prediction(n, Arm::Canary, 1.0)
    };
    bench.feed([
        baking(&spec),
        P(failed(1)),
        P(Prediction {
            request_id: "request-1".into(),
            assignment: Assignment::Fallback,
            ..prediction(2, Arm::Stable, 1.5)
        }),
        P(prediction(3, Arm::Canary, 2.0)),
        beat(3, 10.0),
        F(feedback(1, 1, 0, "click", 1.0)),
        F(feedback(3, 2, 0, "click", 0.0)),
        beat(3, 80.0),
    ]);
    let (windows, _) = bench.out();
    let [window] = of(&windows, minute())[..] else { panic!("{windows:?}") };
    assert_eq!(cell(window, Arm::Canary, "clicked", &Segment::all()), (0, 1), "the click was for stable's answer");
    let [counted] = of(&windows, serin_schemas::ids::Span(0))[..] else { panic!("{windows:?}") };
    assert_eq!(arm(counted, Arm::Canary).errors, 1, "the failure is the canary's");
}

/// Another value without a later revision is ignored, and the next window of the prediction's arm counts it.
#[test]
fn labels_that_contradict_an_earlier_one_are_counted_per_arm() {
    let spec = spec_with(&[wrong_metric()], |_| {});
    let mut bench = Bench::new();
    let label = |request, seq, value| F(feedback(request, seq, 0, "late", value));
    bench.feed([
        baking(&spec),
        beat(0, 0.5),
        P(prediction(1, Arm::Canary, 1.0)),
        P(prediction(2, Arm::Control, 1.0)),
        label(1, 1, 1.0),
        label(1, 2, 0.0),
        // The value that counts, sent again.
        label(1, 3, 1.0),
        label(1, 4, 0.0),
        F(feedback(1, 5, 1, "late", 0.0)),
        label(2, 6, 0.0),
        // Labels that contradict each other before their prediction arrives, also after a restart.
        label(3, 7, 1.0),
        label(3, 8, 0.0),
    ]);
    bench.harness.commit().unwrap();
    bench.harness.reset(bench.harness.rows()).unwrap();
    bench.feed([P(prediction(3, Arm::Control, 1.0)), beat(3, 100.0)]);
    let windows = bench.windows();
    let sum = |of: Arm| {
        let arms = windows.iter().flat_map(|window| &window.arms);
        arms.filter(|counts| counts.arm == of).map(|counts| counts.contradicting).sum::<i64>()
    };
    assert_eq!([Arm::Canary, Arm::Control, Arm::Stable].map(sum), [2, 1, 0]);
    assert_eq!(cell(windows.last().unwrap(), Arm::Canary, "wrong", &Segment::all()), (1, 1), "the revision counts");
}

#[test]
fn a_later_revision_replaces_an_earlier_one_and_repetitions_count_once() {
    let spec = spec_with(&[wrong_metric()], |_| {});
    let mut bench = Bench::new();
    bench.feed([
        baking(&spec),
        P(prediction(1, Arm::Canary, 1.0)),
        F(feedback(1, 1, 1, "late", 1.0)),
        F(feedback(1, 2, 1, "late", 1.0)),
        F(feedback(1, 3, 0, "late", 0.0)),
        P(prediction(2, Arm::Canary, 1.0)),
        F(feedback(2, 4, 0, "late", 1.0)),
        F(feedback(2, 5, 3, "late", 0.0)),
        beat(2, 70.0),
    ]);
    let windows = bench.windows();
    let window = of(&windows, minute())[0];
    assert_eq!(cell(window, Arm::Canary, "wrong", &Segment::all()), (1, 2));
    assert_eq!(arm(window, Arm::Canary).labelled, 2);
}

#[test]
fn feedback_may_arrive_before_its_prediction() {
    let spec = spec_with(&[wrong_metric()], |_| {});
    let mut bench = Bench::new();
    bench.feed([
        baking(&spec),
        F(feedback(1, 1, 2, "late", 0.0)),
        F(feedback(1, 2, 1, "late", 1.0)),
        F(feedback(7, 3, 1, "late", 1.0)),
    ]);
    bench.harness.commit().unwrap();
    bench.harness.crash().unwrap();
    assert_eq!(bench.harness.rows().keys().filter(|key| key[0] == 9).count(), 2);
    bench.feed([P(prediction(1, Arm::Canary, 1.0)), beat(1, 61.0), beat(1, 70.0)]);
    let windows = bench.windows();
    assert_eq!(cell(of(&windows, minute())[0], Arm::Canary, "wrong", &Segment::all()), (1, 1));
    // Feedback for an unknown id expires after the maturity.
    assert_eq!(bench.harness.rows().keys().filter(|key| key[0] == 9).count(), 0);
}

#[test]
fn each_maturity_has_its_own_stream() {
    let spec = spec_with(&[wrong_metric(), click_metric()], |_| {});
    let twenty = Span::from_secs(20);
    let mut bench = Bench::new();
    bench.feed([
        baking(&spec),
        P(prediction(1, Arm::Canary, 1.0)),
        P(prediction(2, Arm::Canary, 1.0)),
        F(feedback(1, 1, 0, "click", 1.0)),
        beat(2, 30.0),
        F(feedback(2, 2, 0, "click", 1.0)),
        F(feedback(2, 3, 0, "late", 1.0)),
        beat(2, 70.0),
    ]);
    let windows = bench.windows();
    let click = of(&windows, twenty)[0];
    assert_eq!(cell(click, Arm::Canary, "click", &Segment::all()), (1, 2), "a missing click counts as 0");
    assert_eq!(arm(click, Arm::Canary).labelled, 1);
    assert_eq!(cell(of(&windows, minute())[0], Arm::Canary, "wrong", &Segment::all()), (0, 1));
    let order: Vec<i64> = windows.iter().map(|window| window.maturity.0 / 1_000_000).collect();
    assert_eq!(order, [0, 20, 60]);
}

#[test]
fn an_answer_late_for_its_window_may_be_in_time_for_its_labels() {
    let spec = spec_with(&[wrong_metric()], |_| {});
    let mut bench = Bench::new();
    bench.feed([baking(&spec), beat(0, 10.0), P(prediction(1, Arm::Canary, 1.0)), beat(1, 70.0)]);
    let windows = bench.windows();
    let late: Vec<(i64, i64, i64)> = windows
        .iter()
        .map(|window| (window.end.0 / 1_000_000, arm(window, Arm::Canary).late, arm(window, Arm::Canary).predictions))
        .collect();
    assert_eq!(late, [(20, 1, 0), (10, 0, 1)]);
}

#[test]
fn outputs_of_a_model_server_reach_label_metrics() {
    let spec = spec_with(&[wrong_metric()], |_| {});
    let report = Prediction {
        origin: serin_schemas::records::Origin::Intake,
        outputs: [("score".to_owned(), 0.9)].into(),
        writer: writer("intake-0", 1),
        ..prediction(1, Arm::Canary, 1.0)
    };
    let mut bench = Bench::new();
    bench.feed([
        baking(&spec),
        P(Prediction { outputs: [].into(), ..prediction(1, Arm::Canary, 1.0) }),
        F(feedback(1, 1, 0, "late", 0.0)),
        beat(1, 10.0),
        P(report),
        beat(1, 70.0),
    ]);
    let windows = bench.windows();
    assert_eq!(cell(of(&windows, Span(0))[0], Arm::Canary, "score", &Segment::all()), (0, 0), "its window had closed");
    assert_eq!(cell(of(&windows, minute())[0], Arm::Canary, "wrong", &Segment::all()), (1, 1));
}

#[test]
fn beyond_the_bound_both_arms_are_sampled_alike() {
    let spec = spec_with(&[wrong_metric()], |_| {});
    let mut bench = Bench::with(Config { max_join_rows: Some(1000), ..Config::default() }, 0, 1);
    bench.feed([baking(&spec)]);
    for n in 1..=8000 {
        let arm = if n % 2 == 0 { Arm::Canary } else { Arm::Control };
        bench.feed([P(prediction(n, arm, 1.0)), F(feedback(n, n, 0, "late", f64::from(u8::from(n % 8 < 2))))]);
        if n == 4000 {
            bench.harness.commit().unwrap();
            bench.harness.crash().unwrap();
        }
    }
    bench.harness.commit().unwrap();
    let rows = bench.harness.rows();
    let bytes: usize = rows.iter().filter(|(key, _)| matches!(key[0], 9 | 10)).map(|(_, value)| value.len()).sum();
    assert!(bytes < 200_000, "{bytes} bytes of rows");
    bench.feed([beat(8000, 70.0)]);
    let windows = bench.windows();
    assert_eq!(arm(of(&windows, Span(0))[0], Arm::Canary).predictions, 4000, "counts are not sampled");
    let label = of(&windows, minute())[0];
    let (canary, control) = (arm(label, Arm::Canary), arm(label, Arm::Control));
    let kept = canary.predictions + control.predictions;
    assert!((400..=1000).contains(&kept), "{kept}");
    // Binomial: 5 standard deviations of the difference.
    assert!((canary.predictions - control.predictions).abs() < 5 * 32, "{canary:?} {control:?}");
    assert_eq!(canary.labelled, canary.predictions);
}

#[test]
fn labels_that_are_not_numbers_are_ignored() {
    let spec = spec_with(&[wrong_metric()], |_| {});
    let mut bench = Bench::new();
    let nan = Feedback { values: [("late".to_owned(), f64::NAN)].into(), ..feedback(1, 1, 5, "late", 0.0) };
    bench.feed([
        baking(&spec),
        P(prediction(1, Arm::Canary, 1.0)),
        F(nan),
        P(Prediction { outputs: [("score".to_owned(), f64::NAN)].into(), ..prediction(2, Arm::Canary, 1.0) }),
        F(feedback(1, 2, 0, "late", 0.0)),
        F(feedback(2, 3, 0, "late", 0.0)),
        beat(2, 70.0),
    ]);
    let windows = bench.windows();
    assert_eq!(cell(of(&windows, Span(0))[0], Arm::Canary, "score", &Segment::all()), (0, 1));
    assert_eq!(cell(of(&windows, minute())[0], Arm::Canary, "wrong", &Segment::all()), (1, 1));
}

#[test]
fn feedback_for_unknown_calls_is_bounded_and_displaces_no_label() {
    let spec = spec_with(&[wrong_metric()], |_| {});
    let mut bench = Bench::with(Config { max_join_rows: Some(100), ..Config::default() }, 0, 1);
    bench.feed([baking(&spec)]);
    bench.feed((1..=90).map(|n| P(prediction(n, Arm::Canary, 1.0))));
    bench.feed((1..=5000).map(|n| F(feedback(100_000 + n, n, 0, "late", 1.0))));
    bench.feed((1..=90).map(|n| F(feedback(n, 5000 + n, 0, "late", 1.0))));
    bench.harness.commit().unwrap();
    assert_eq!(bench.harness.rows().keys().filter(|key| key[0] == 9).count(), 100);
    bench.feed([beat(90, 70.0)]);
    let windows = bench.windows();
    assert_eq!(arm(of(&windows, minute())[0], Arm::Canary).labelled, 90);
}

#[test]
fn revisions_do_not_fill_the_rows() {
    let mut bench = Bench::new();
    bench.feed([baking(&spec_with(&[wrong_metric()], |_| {})), P(prediction(1, Arm::Canary, 1.0))]);
    let waiting = |bench: &Bench| -> usize {
        bench.harness.rows().iter().filter(|(key, _)| key[0] == 10).map(|(_, value)| value.len()).sum()
    };
    bench.harness.commit().unwrap();
    let (one, mut most) = (waiting(&bench), 0);
    for revision in 0..3000 {
        bench.feed([F(feedback(1, revision + 1, revision, "late", (revision % 2) as f64))]);
        bench.harness.commit().unwrap();
        most = most.max(waiting(&bench));
    }
    assert!(most < 1400 * one, "{most} bytes of rows for one prediction of {one}");
    bench.harness.reset(bench.harness.rows()).unwrap();
    bench.feed([beat(1, 200.0)]);
    let windows = bench.windows();
    let [window] = of(&windows, minute())[..] else { panic!("{windows:?}") };
    assert_eq!(cell(window, Arm::Canary, "wrong", &Segment::all()), (0, 1), "the last revision counts");
}

/// A label that counts as 0 when it is missing: the window contains how many labels did arrive, also when none did.
#[test]
fn labels_that_arrived_are_counted_apart_from_zeros() {
    let labelled = |label: &str| {
        let spec = spec_with(&[click_metric()], |_| {});
        let mut bench = Bench::new();
        bench.feed([
            baking(&spec),
            P(prediction(1, Arm::Canary, 1.0)),
            P(prediction(2, Arm::Canary, 1.0)),
            P(prediction(3, Arm::Control, 1.0)),
            F(feedback(1, 1, 0, label, 1.0)),
            beat(4, 90.0),
        ]);
        let windows = bench.windows();
        let window = of(&windows, Span::from_secs(20))[0].clone();
        assert_eq!(cell(&window, Arm::Canary, "click", &Segment::all()).1, 2);
        let counted = window.population.into_iter().filter(|own| own.segment == Segment::with_label("click"));
        counted.map(|own| (own.arm, own.predictions)).collect::<Vec<_>>()
    };
    let sorted = |mut counts: Vec<(Arm, i64)>| {
        counts.sort_unstable();
        counts
    };
    assert_eq!(sorted(labelled("click")), [(Arm::Control, 0), (Arm::Canary, 1)]);
    assert_eq!(sorted(labelled("clik")), [(Arm::Control, 0), (Arm::Canary, 0)]);
}
