//! The delay of labels that arrive within the maturity.

use serde_json::{Value, json};
use serin_schemas::{
    event::EventRecord::{self, Feedback as F, Prediction as P},
    ids::EventTime,
    records::{Arm, Feedback, Origin, Prediction, Segment, WindowClosed},
};
use serin_sketches::{LogHist, Summary};

use crate::common::*;

/// `delay`: the delay of label `name`, for labels that arrive within 60 s.
fn delay_of(name: &str) -> Value {
    json!({"name": "delay", "kind": "distribution", "source": {"label_delay": name}, "maturity": "60s",
           "segments": ["origin"], "role": "watch"})
}

/// Label `late` of a request, observed `seconds` after the start.
fn at(request: i64, seq: i64, revision: i64, seconds: f64) -> EventRecord {
    F(Feedback { observed_at: secs(seconds), ..feedback(request, seq, revision, "late", 1.0) })
}

/// The delays in seconds of an arm's answers in the only label window, as a histogram.
#[track_caller]
fn delays(windows: &[WindowClosed], arm: Arm, segment: &Segment) -> LogHist {
    let [window] = windows.iter().filter(|window| window.maturity == minute()).collect::<Vec<_>>()[..] else {
        panic!("{windows:?}")
    };
    let own = |cell: &&serin_schemas::records::Cell| {
        (cell.arm, cell.metric.as_str(), &cell.segment) == (arm, "delay", segment)
    };
    match window.cells.iter().find(own).map(|cell| Summary::decode(&cell.summary).unwrap()) {
        Some(Summary::Log(hist)) => hist,
        None => LogHist::new(),
        Some(other) => panic!("{other:?}"),
    }
}

fn hist(seconds: &[f64]) -> LogHist {
    let mut hist = LogHist::new();
    for &delay in seconds {
        hist.insert(delay).unwrap();
    }
    hist
}

#[test]
fn delays_of_timely_labels_are_counted_by_arm_and_segment() {
    let spec = spec_with(&[wrong_metric(), delay_of("late")], |_| {});
    let mut bench = Bench::new();
    bench.feed([
        baking(&spec),
        P(prediction(1, Arm::Canary, 1.0)),
        P(prediction(2, Arm::Canary, 2.0)),
        P(prediction(3, Arm::Control, 2.5)),
        P(Prediction {
            segments: [("origin".to_owned(), "JFK".to_owned())].into(),
            ..prediction(4, Arm::Control, 3.0)
        }),
        P(prediction(5, Arm::Control, 3.0)),
        P(prediction(6, Arm::Stable, 3.0)),
        at(1, 1, 0, 31.0),
        at(2, 2, 0, 42.0),
        at(3, 3, 0, 12.5),
        at(4, 4, 0, 33.25),
        at(6, 5, 0, 8.0),
        beat(6, 70.0),
        // Too late: the window has closed.
        at(5, 6, 0, 69.0),
        beat(6, 200.0),
    ]);
    let windows = bench.windows();
    assert_eq!(delays(&windows, Arm::Canary, &Segment::all()), hist(&[30.0, 40.0]));
    assert_eq!(delays(&windows, Arm::Control, &Segment::all()), hist(&[10.0, 30.25]));
    assert_eq!(delays(&windows, Arm::Control, &Segment::of("origin", "JFK")), hist(&[30.25]));
    assert_eq!(delays(&windows, Arm::Stable, &Segment::all()), hist(&[]), "stable is only counted");
    let window = windows.iter().find(|window| window.maturity == minute()).unwrap();
    // The late label is missing in the share of labelled answers.
    assert_eq!((arm(window, Arm::Control).predictions, arm(window, Arm::Control).labelled), (3, 2));
    assert_eq!(
        cell(window, Arm::Canary, "wrong", &Segment::all()),
        (0, 2),
        "the value of the label is judged as before"
    );
}

#[test]
fn the_delay_is_that_of_the_newest_revision_in_any_order() {
    let spec = spec_with(&[wrong_metric(), delay_of("late")], |_| {});
    let events = [at(1, 1, 0, 11.0), at(1, 2, 2, 41.0), at(1, 3, 1, 21.0)];
    for order in [[0, 1, 2], [2, 1, 0], [1, 0, 2]] {
        // Labels before, around and after the prediction. A crash loses nothing.
        for before in 0..=3 {
            let mut bench = Bench::new();
            bench.feed([baking(&spec)]);
            for (place, &event) in order.iter().enumerate() {
                if place == before {
                    bench.feed([P(prediction(1, Arm::Canary, 1.0))]);
                }
                let EventRecord::Feedback(feedback) = events[event].clone() else { panic!() };
                bench.feed([F(Feedback { writer: writer("router-1", place as i64 + 1), ..feedback })]);
                bench.harness.commit().unwrap();
                bench.harness.crash().unwrap();
            }
            if before == 3 {
                bench.feed([P(prediction(1, Arm::Canary, 1.0))]);
            }
            bench.feed([beat(1, 70.0)]);
            assert_eq!(delays(&bench.windows(), Arm::Canary, &Segment::all()), hist(&[40.0]), "{order:?} {before}");
        }
    }
}

#[test]
fn class_labels_have_a_delay_and_a_clock_behind_makes_it_zero() {
    let spec = spec_with(&[delay_of("truth")], |_| {});
    let named = |request, seq, seconds| {
        F(Feedback {
            observed_at: EventTime((seconds * 1e6) as i64),
            values: [].into(),
            classes: [("truth".to_owned(), "cat".to_owned())].into(),
            ..feedback(request, seq, 0, "", 0.0)
        })
    };
    let mut bench = Bench::new();
    bench.feed([
        baking(&spec),
        P(prediction(1, Arm::Canary, 1.0)),
        P(prediction(2, Arm::Canary, 5.0)),
        named(1, 1, 8.5),
        named(2, 2, 4.0),
        beat(2, 70.0),
    ]);
    let windows = bench.windows();
    assert_eq!(delays(&windows, Arm::Canary, &Segment::all()), hist(&[7.5, 0.0]));
}

#[test]
fn labels_are_no_evidence_about_a_mirror() {
    let spec = spec_with(&[wrong_metric(), delay_of("late")], |_| {});
    let mirror = Prediction { request_id: "request-1".into(), version: "v2".into(), ..prediction(2, Arm::Shadow, 1.0) };
    let mut bench = Bench::new();
    bench.feed([baking(&spec), P(prediction(1, Arm::Control, 1.0)), P(mirror), at(1, 1, 0, 21.0), beat(2, 70.0)]);
    let windows = bench.windows();
    assert_eq!(delays(&windows, Arm::Control, &Segment::all()), hist(&[20.0]));
    assert_eq!(delays(&windows, Arm::Shadow, &Segment::all()), hist(&[]));
}

#[test]
fn no_event_can_set_a_pseudo_label() {
    let spec = spec_with(&[wrong_metric(), delay_of("late")], |_| {});
    let mut bench = Bench::new();
    let forged = Prediction { outputs: [("\0answered".to_owned(), 0.0)].into(), ..prediction(1, Arm::Canary, 1.0) };
    let time = Feedback { values: [("late\0time".to_owned(), 0.0)].into(), ..feedback(1, 1, 9, "", 0.0) };
    let report =
        Prediction { origin: Origin::Intake, writer: writer("intake-0", 1), ..prediction(1, Arm::Canary, 9.0) };
    bench.feed([baking(&spec), P(forged), F(time), P(report), at(1, 2, 0, 6.0), beat(1, 70.0)]);
    assert_eq!(delays(&bench.windows(), Arm::Canary, &Segment::all()), hist(&[5.0]));
}
