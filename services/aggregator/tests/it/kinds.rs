//! Every kind of metric, from events to summaries.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use serin_schemas::{
    event::EventRecord::{Feedback as F, Heartbeat as H, Prediction as P},
    ids::Span,
    records::{Arm, Assignment, Cell, Feedback, Heartbeat, Origin, Population, Prediction, Segment, WindowClosed},
};
use serin_sketches::{Summary, SummaryKind};

use crate::common::*;

#[expect(clippy::needless_pass_by_value, reason = "`json!` is written in place")]
fn metric(name: &str, kind: Value, source: Value, more: &[(&str, Value)]) -> Value {
    let mut metric = json!({"name": name, "kind": kind, "source": source});
    for (key, value) in more {
        metric[*key] = value.clone();
    }
    metric
}

fn summary(window: &WindowClosed, arm: Arm, metric: &str, segment: &Segment) -> Option<Summary> {
    let own = |cell: &&serin_schemas::records::Cell| {
        cell.arm == arm && cell.metric == metric && cell.segment == *segment && cell.summary[1] != 7
    };
    window.cells.iter().find(own).map(|cell| Summary::decode(&cell.summary).unwrap())
}

fn classes(window: &WindowClosed, arm: Arm, metric: &str) -> BTreeMap<String, u64> {
    match summary(window, arm, metric, &Segment::all()) {
        Some(Summary::Classes(counts)) => counts.iter().map(|(class, n)| (class.to_owned(), n)).collect(),
        other => panic!("{other:?}"),
    }
}

fn counts(counts: &[(&str, u64)]) -> BTreeMap<String, u64> {
    counts.iter().map(|(class, n)| ((*class).to_owned(), *n)).collect()
}

#[test]
fn classes_are_counted_by_name() {
    let margin = [("margin", json!({"absolute": 0.02}))];
    let spec = spec_with(
        &[
            metric("errors", json!("classes"), json!("error"), &margin),
            metric("invalid", json!("classes"), json!("invalid_output"), &margin),
            metric("statuses", json!("classes"), json!("status"), &margin),
            metric("labels", json!("classes"), json!({"class": {"output": "label"}}), &margin),
            metric("spam", json!("rate"), json!({"class": {"output": "label", "is": "spam"}}), &margin),
        ],
        |_| {},
    );
    let label = |class: &str| [("label".to_owned(), class.to_owned())].into();
    let good = |n, class: &str| Prediction { classes: label(class), ..prediction(n, Arm::Canary, 1.0) };
    let mut bench = Bench::new();
    bench.feed([
        baking(&spec),
        P(good(1, "spam")),
        P(good(2, "ham")),
        P(Prediction { invalid_output: Some("nan".into()), ..prediction(3, Arm::Canary, 1.0) }),
        P(Prediction { status: Some(503), ..prediction(4, Arm::Canary, 1.0) }),
        P(Prediction { status: None, error: Some("timeout".into()), ..prediction(5, Arm::Canary, 1.0) }),
        P(Prediction { status: None, ..prediction(6, Arm::Canary, 1.0) }),
        beat(6, 10.0),
    ]);
    let window = &bench.windows()[0];
    let errors = counts(&[("ok", 3), ("status_503", 1), ("timeout", 1), ("none", 1)]);
    assert_eq!(classes(window, Arm::Canary, "errors"), errors);
    assert_eq!(classes(window, Arm::Canary, "invalid"), counts(&[("nan", 1), ("ok", 5)]));
    assert_eq!(classes(window, Arm::Canary, "statuses"), counts(&[("200", 3), ("503", 1), ("none", 2)]));
    assert_eq!(classes(window, Arm::Canary, "labels"), counts(&[("ham", 1), ("spam", 1)]));
    assert_eq!(cell(window, Arm::Canary, "spam", &Segment::all()), (1, 2), "answers without the class are left out");
}

#[test]
fn counts_are_whole_numbers_and_capped_means_stop_at_the_cap() {
    let output = |name: &str| json!({"output": name});
    let spec = spec_with(
        &[
            metric("tool_calls", json!("count"), output("calls"), &[("margin", json!({"relative": 0.1}))]),
            metric(
                "tokens",
                json!({"capped_mean": {"cap": 100.0}}),
                output("tokens"),
                &[("margin", json!({"relative": 0.1}))],
            ),
            metric(
                "purchases",
                json!("count"),
                json!({"feedback": "bought"}),
                &[("margin", json!({"relative": 0.1})), ("maturity", json!("20s")), ("whenMissing", json!("zero"))],
            ),
        ],
        |_| {},
    );
    let with = |n, calls: f64, tokens: f64| {
        P(Prediction {
            outputs: [("calls".to_owned(), calls), ("tokens".to_owned(), tokens)].into(),
            ..prediction(n, Arm::Canary, 1.0)
        })
    };
    let mut bench = Bench::new();
    bench.feed([
        baking(&spec),
        with(1, 3.0, 50.0),
        with(2, 0.0, 5000.0),
        with(3, 1.5, -1.0),
        with(4, -1.0, f64::INFINITY),
        with(5, 1e30, f64::NAN),
        F(feedback(1, 1, 0, "bought", 2.0)),
        F(feedback(1, 2, 1, "bought", 4.0)),
        beat(5, 10.0),
    ]);
    let windows = bench.windows();
    let Some(Summary::Capped(calls)) = summary(&windows[0], Arm::Canary, "tool_calls", &Segment::all()) else {
        panic!("{windows:?}")
    };
    // The number of each answer, to the width of a bin.
    let numbers: Vec<f64> = calls.iter().map(|(place, _)| (place * calls.cap()).round()).collect();
    assert_eq!((numbers, calls.total()), (vec![0.0, 3.0], 2), "fractions of an event are not counted");
    let Some(Summary::Capped(tokens)) = summary(&windows[0], Arm::Canary, "tokens", &Segment::all()) else {
        panic!("{windows:?}")
    };
    assert_eq!(tokens.total(), 2);
    let top: u64 = tokens.iter().filter(|(place, _)| *place >= 1.0).map(|(_, count)| count).sum();
    assert_eq!(top, 1);
    bench.feed([beat(5, 30.0)]);
    let windows = bench.windows();
    let Some(Summary::Capped(bought)) = summary(&windows[0], Arm::Canary, "purchases", &Segment::all()) else {
        panic!("{windows:?}")
    };
    let numbers: Vec<_> = bought.iter().map(|(place, count)| ((place * bought.cap()).round(), count)).collect();
    assert_eq!(numbers, [(0.0, 4), (4.0, 1)], "the later revision counts, and missing feedback counts as no purchase");
}

/// A version whose answers are far beyond the range must not look like one that answers less often.
#[test]
fn values_beyond_the_range_of_a_mean_count_as_its_limit() {
    let spec = spec_with(&[], |_| {});
    let with = |n, score: f64| {
        P(Prediction { outputs: [("score".to_owned(), score)].into(), ..prediction(n, Arm::Canary, 1.0) })
    };
    let mut bench = Bench::new();
    bench.feed([baking(&spec), with(1, -7.0), with(2, 0.5), with(3, 2.0), with(4, 1e12), with(5, f64::NAN)]);
    bench.feed([beat(5, 10.0)]);
    let Some(Summary::Lin(scores)) = summary(&bench.windows()[0], Arm::Canary, "score", &Segment::all()) else {
        panic!("a mean")
    };
    let cells = f64::from(serin_sketches::LIN_CELLS);
    let places: Vec<_> = scores.iter().map(|(point, count)| (f64::from(point) / cells * 2.0, count)).collect();
    assert_eq!(places, [(0.0, 1), (0.5, 1), (2.0, 2)], "NaN is not a value");
}

#[test]
fn classes_are_compared_with_the_class_in_feedback() {
    let more = [("margin", json!({"absolute": 0.02})), ("maturity", json!("60s")), ("segments", json!(["origin"]))];
    let source = json!({"wrong_class": {"output": "label", "label": "truth"}});
    let spec = spec_with(&[metric("wrong_class", json!("rate"), source, &more)], |_| {});
    let answer = |n, arm, class: Option<&str>| {
        P(Prediction {
            classes: class.map(|class| ("label".to_owned(), class.to_owned())).into_iter().collect(),
            ..prediction(n, arm, 1.0)
        })
    };
    let truth = |request, seq, revision, class: &str| {
        F(Feedback {
            values: [].into(),
            classes: [("truth".to_owned(), class.to_owned())].into(),
            ..feedback(request, seq, revision, "", 0.0)
        })
    };
    let report = Prediction {
        origin: Origin::Intake,
        rollout: None,
        classes: [("label".to_owned(), "cat".to_owned())].into(),
        writer: writer("intake-0", 1),
        ..prediction(4, Arm::Canary, 1.0)
    };
    let mut bench = Bench::new();
    bench.feed([
        baking(&spec),
        truth(1, 1, 0, "cat"),
        answer(1, Arm::Canary, Some("cat")),
        answer(2, Arm::Canary, Some("dog")),
        truth(2, 2, 0, "dog"),
        truth(2, 3, 1, "cat"),
        answer(3, Arm::Canary, Some("dog")),
        answer(4, Arm::Canary, None),
        P(report),
        truth(4, 4, 0, "dog"),
        answer(5, Arm::Canary, None),
        truth(5, 5, 0, "dog"),
        answer(6, Arm::Control, Some("dog")),
        truth(6, 6, 0, "dog"),
        beat(6, 10.0),
    ]);
    bench.harness.commit().unwrap();
    bench.harness.crash().unwrap();
    bench.feed([H(other(1, 100.0)), beat(6, 70.0)]);
    let windows: Vec<_> = bench.windows().into_iter().filter(|window| window.maturity == minute()).collect();
    let lga = Segment::of("origin", "LGA");
    for segment in [Segment::all(), lga] {
        assert_eq!(cell(&windows[0], Arm::Canary, "wrong_class", &segment), (2, 3));
        assert_eq!(cell(&windows[0], Arm::Control, "wrong_class", &segment), (0, 1));
    }
    assert_eq!(arm(&windows[0], Arm::Canary).labelled, 4);
}

/// A heartbeat of the intake.
fn other(seq: i64, low: f64) -> Heartbeat {
    let H(beat) = beat(seq, low) else { unreachable!() };
    Heartbeat { writer: writer("intake-0", seq), ..beat }
}

fn disagreements() -> serin_spec::RolloutSpec {
    let limit = ("limit", json!({"fail": 0.1}));
    let segments = ("segments", json!(["origin"]));
    spec_with(
        &[
            metric(
                "differs",
                json!("disagreement"),
                json!({"output": "score"}),
                &[limit.clone(), segments, ("tolerance", json!(0.1))],
            ),
            metric(
                "other_class",
                json!("disagreement"),
                json!({"class": {"output": "label"}}),
                std::slice::from_ref(&limit),
            ),
            metric("other_status", json!("disagreement"), json!("status"), &[limit]),
        ],
        |spec| spec["outputs"] = json!([{"name": "score", "source": {"tensor": "score"}, "min": 0.0, "max": 2.0}]),
    )
}

/// An answer to call `call` with a score and a class.
fn answer(seq: i64, call: i64, arm: Arm, at: f64, score: f64, class: &str) -> Prediction {
    Prediction {
        request_id: format!("call-{call}").into(),
        version: if arm == Arm::Shadow { "v2".into() } else { "v1".into() },
        outputs: [("score".to_owned(), score)].into(),
        classes: [("label".to_owned(), class.to_owned())].into(),
        ..prediction(seq, arm, at)
    }
}

fn pairs(window: &WindowClosed, metric: &str, segment: &Segment) -> Option<(u64, u64)> {
    match summary(window, Arm::Shadow, metric, segment) {
        Some(Summary::Pairs(pairs)) => Some((pairs.disagreements(), pairs.n())),
        None => None,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_mirror_is_paired_with_the_live_answer_to_the_same_call() {
    let mut bench = Bench::new();
    bench.feed([
        baking(&disagreements()),
        // Equal within the tolerance but with different classes; the mirror arrives first.
        P(answer(1, 1, Arm::Shadow, 1.0, 0.5, "cat")),
        P(answer(2, 1, Arm::Control, 2.0, 0.55, "dog")),
        // Different scores. Stable's answers count as well as control's.
        P(answer(3, 2, Arm::Stable, 3.0, 0.5, "dog")),
        P(answer(4, 2, Arm::Shadow, 4.0, 0.9, "dog")),
        // One answer of each without its counterpart.
        P(answer(5, 3, Arm::Shadow, 4.0, 0.9, "dog")),
        P(answer(6, 4, Arm::Stable, 4.0, 0.9, "dog")),
        // The canary's own answers are not compared with a mirror of it.
        P(answer(7, 5, Arm::Canary, 4.0, 0.1, "dog")),
        P(answer(8, 5, Arm::Shadow, 4.0, 0.9, "dog")),
        // A mirror to a version that is not part of the comparison.
        P(answer(9, 6, Arm::Stable, 4.0, 0.1, "dog")),
        P(Prediction { version: "v3".into(), ..answer(10, 6, Arm::Shadow, 4.0, 0.9, "dog") }),
        // The mirror is slow and arrives in the next window.
        P(answer(11, 7, Arm::Control, 9.0, 0.5, "dog")),
        beat(11, 10.0),
        P(Prediction { status: Some(503), ..answer(12, 7, Arm::Shadow, 12.0, 0.5, "dog") }),
        // A pinned mirror does not count.
        P(answer(13, 8, Arm::Control, 12.0, 0.5, "dog")),
        P(Prediction { assignment: Assignment::Pinned, ..answer(14, 8, Arm::Shadow, 12.0, 0.5, "dog") }),
        beat(14, 19.0),
    ]);
    let at_once = bench.windows();
    assert!(at_once.iter().all(|window| window.maturity == Span(0)), "{at_once:?}");
    assert_eq!(arm(&at_once[0], Arm::Shadow).predictions, 4, "the other shadow version is not counted");
    assert!(summary(&at_once[0], Arm::Shadow, "error_rate", &Segment::all()).is_some());
    bench.harness.crash().unwrap();
    bench.feed([beat(14, 20.0), beat(14, 40.0)]);
    let later: Vec<_> = bench.windows().into_iter().filter(|window| window.maturity == Span::from_secs(10)).collect();
    let first = &later[0];
    assert_eq!((first.end, later.len()), (secs(10.0), 2));
    assert_eq!(pairs(first, "differs", &Segment::all()), Some((1, 3)));
    assert_eq!(pairs(first, "differs", &Segment::of("origin", "LGA")), Some((1, 3)));
    assert_eq!(pairs(first, "other_class", &Segment::all()), Some((1, 3)));
    assert_eq!(pairs(first, "other_status", &Segment::all()), Some((1, 3)));
    assert_eq!(pairs(&later[1], "differs", &Segment::all()), None);
    let Some(Summary::Pairs(scores)) = summary(first, Arm::Shadow, "differs", &Segment::all()) else { panic!() };
    // Differences in units of the output's range: -0.05, 0.4 and 0 of 2.
    assert!((scores.differences().sum() - 0.175).abs() < 1e-6, "{:?}", scores.differences());
    assert!(first.cells.iter().all(|cell| cell.arm == Arm::Shadow), "{:?}", first.cells);
    assert!(bench.harness.rows().keys().all(|key| key[0] != 10), "nothing is waiting any more");
}

#[test]
fn reports_of_a_model_server_about_a_mirror_belong_to_the_mirror() {
    let report = |n, shadow, score: f64| Prediction {
        origin: Origin::Intake,
        rollout: None,
        writer: writer("intake-0", n),
        ..answer(n, 1, if shadow { Arm::Shadow } else { Arm::Stable }, 1.0, score, "dog")
    };
    let bare = |seq, arm| Prediction { outputs: [].into(), classes: [].into(), ..answer(seq, 1, arm, 1.0, 0.0, "") };
    for early in [false, true] {
        let mut bench = Bench::new();
        bench.feed([baking(&disagreements())]);
        let reports = [P(report(1, true, 0.9)), P(report(2, false, 0.1))];
        let calls = [P(bare(1, Arm::Stable)), P(bare(2, Arm::Shadow))];
        let (first, second) = if early { (reports, calls) } else { (calls, reports) };
        bench.feed(first.into_iter().chain(second));
        bench.feed([H(other(2, 100.0)), beat(2, 40.0)]);
        let windows = bench.windows();
        let paired = windows.iter().find(|window| window.maturity == Span::from_secs(10)).unwrap();
        assert_eq!(pairs(paired, "differs", &Segment::all()), Some((1, 1)), "early: {early}");
        assert_eq!(pairs(paired, "other_class", &Segment::all()), Some((0, 1)), "early: {early}");
    }
}

#[test]
fn assigned_units_have_sums_per_bucket() {
    let sticky = |spec: &mut Value| spec["assignment"] = json!({"sticky": {"header": "x-user"}});
    let spec = spec_with(&[wrong_metric()], sticky);
    let user = |n, user: i64, score: f64| {
        P(Prediction {
            assignment: Assignment::Sticky,
            unit: Some(user),
            outputs: [("score".to_owned(), score)].into(),
            ..prediction(n, Arm::Canary, 1.0)
        })
    };
    let mut bench = Bench::new();
    bench.feed([baking(&spec), user(1, 7, 0.5), user(2, 7, 1.5), user(3, 8, 1.0)]);
    bench.feed([P(prediction(4, Arm::Canary, 1.0)), F(feedback(1, 1, 0, "late", 1.0)), beat(4, 10.0)]);
    bench.harness.crash().unwrap();
    bench.feed([baking(&spec), user(1, 7, 0.5), user(2, 7, 1.5), user(3, 8, 1.0)]);
    bench.feed([P(prediction(4, Arm::Canary, 1.0)), F(feedback(1, 1, 0, "late", 1.0))]);
    bench.harness.commit().unwrap();
    bench.harness.crash().unwrap();
    bench.feed([beat(4, 10.0), beat(4, 70.0)]);
    let windows = bench.windows();
    let sums = |window: &WindowClosed, metric: &str| {
        let of_units = |cell: &&Cell| cell.metric == metric && cell.summary[1] == 7 && cell.segment.is_all();
        let cells: Vec<_> = window.cells.iter().filter(of_units).collect();
        assert_eq!(cells.len(), 1, "{cells:?}");
        let Summary::Buckets(buckets) = Summary::decode(&cells[0].summary).unwrap() else { panic!() };
        let mut filled: Vec<(f64, u64)> = buckets.iter().filter(|(_, n)| *n > 0).collect();
        filled.sort_by_key(|(_, n)| std::cmp::Reverse(*n));
        filled
    };
    // Scores are between 0 and 2. A request that was split at random is its own unit.
    assert_eq!(sums(&windows[0], "score"), [(1.0, 2), (0.4, 1), (0.5, 1)]);
    assert_eq!(sums(&windows[0], "error_rate"), [(0.0, 2), (0.0, 1), (0.0, 1)]);
    // Each segment has sums by group of units. For latencies each group has its own summary.
    let of_units = |metric: &str, segment: Segment| {
        let own = windows[0].cells.iter().filter(|cell| cell.metric == metric && cell.segment == segment);
        own.map(|cell| Summary::decode(&cell.summary).unwrap()).find_map(|summary| match summary {
            Summary::Buckets(_) | Summary::ByUnit(_) => Some((summary.kind(), summary.n())),
            _ => None,
        })
    };
    assert_eq!(of_units("error_rate", Segment::of("origin", "LGA")), Some((SummaryKind::Buckets, 4)));
    assert_eq!(of_units("latency_p99", Segment::all()), Some((SummaryKind::Buckets, 4)));
    let by_unit = windows[0].cells.iter().find(|cell| cell.metric == "latency_p99" && cell.summary[1] == 10);
    assert_eq!(by_unit.map(|cell| Summary::decode(&cell.summary).unwrap().n()), Some(4));
    assert_eq!(cell(&windows[0], Arm::Canary, "error_rate", &Segment::of("origin", "LGA")), (0, 4));
    let labels = windows.iter().find(|window| window.maturity == minute()).unwrap();
    // A score of 0.5 means yes, and so does the label.
    assert_eq!(sums(labels, "wrong"), [(0.0, 1)]);
}

#[test]
fn compared_answers_are_counted_by_segment_value() {
    let at = |n, arm, origin: &str| {
        P(Prediction { segments: [("origin".to_owned(), origin.to_owned())].into(), ..prediction(n, arm, 1.0) })
    };
    let mut bench = Bench::new();
    bench.feed([
        baking(&spec()),
        at(1, Arm::Canary, "LGA"),
        at(2, Arm::Canary, "BOS"),
        at(3, Arm::Control, "LGA"),
        at(4, Arm::Control, "LGA"),
        at(5, Arm::Stable, "LGA"),
        P(Prediction { assignment: Assignment::Pinned, ..prediction(6, Arm::Canary, 1.0) }),
    ]);
    bench.harness.commit().unwrap();
    bench.harness.crash().unwrap();
    bench.feed([beat(6, 10.0)]);
    let of = |arm, value: &str, predictions| Population { arm, segment: Segment::of("origin", value), predictions };
    let found = bench.windows().remove(0).population;
    assert_eq!(found, [of(Arm::Control, "LGA", 2), of(Arm::Canary, "other", 1), of(Arm::Canary, "LGA", 1)]);
}
