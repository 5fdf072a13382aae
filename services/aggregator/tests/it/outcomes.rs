//! How each outcome of a call is counted, and that rollouts that started under older rules are still counted by
//! these.

use serde_json::json;
use serin_schemas::{
    event::EventRecord::{Control, Feedback, Prediction as P},
    ids::Span,
    records::{Arm, ArmCounts, Assignment, Origin, Outcome, Phase, Prediction, Segment, WindowClosed},
};
use serin_sketches::Summary;
use serin_spec::RolloutSpec;

use crate::common::*;

fn spec() -> RolloutSpec {
    let margin = json!({"absolute": 0.01});
    let more = [
        json!({"name": "refused", "kind": "rate", "source": "refused", "margin": margin}),
        json!({"name": "cancelled", "kind": "rate", "source": "cancelled", "margin": margin, "role": "watch"}),
        json!({"name": "outcomes", "kind": "classes", "source": "outcome", "margin": margin, "role": "watch"}),
        json!({"name": "refusals", "kind": "classes", "source": "refused", "margin": margin, "role": "watch"}),
        click_metric(),
    ];
    spec_with(&more, |_| {})
}

/// One answer of each outcome, as stated by a router.
fn one_of_each() -> Vec<Prediction> {
    let answer = |seq, outcome| Prediction { outcome: Some(outcome), ..prediction(seq, Arm::Canary, 1.0) };
    let error = |text: &str| Some(text.to_owned());
    vec![
        answer(1, Outcome::Ok),
        Prediction { status: Some(422), ..answer(2, Outcome::Refused) },
        Prediction { status: Some(302), ..answer(3, Outcome::Redirected) },
        Prediction { error: error("error_message"), ..answer(4, Outcome::Failed) },
        Prediction { invalid_output: error("nan"), ..answer(5, Outcome::Unusable) },
        Prediction { unread: error("too_large"), ..answer(6, Outcome::Unread) },
        Prediction { error: error("client_closed"), ..answer(7, Outcome::Cancelled) },
    ]
}

/// The answers of a router of the previous version: without a stated outcome, and only those whose outcome can be
/// derived.
fn as_version_1(answers: Vec<Prediction>) -> Vec<Prediction> {
    let is_derivable = |one: &Prediction| one.outcome != Some(Outcome::Unread);
    answers.into_iter().filter(is_derivable).map(|one| Prediction { outcome: None, ..one }).collect()
}

fn windows(rules: i32, answers: &[Prediction]) -> Vec<WindowClosed> {
    let mut bench = Bench::new();
    bench.feed([Control(serin_schemas::records::Control { rules, ..control(2, Phase::Baking, 0, &spec()) })]);
    bench.feed(answers.iter().cloned().map(P));
    bench.feed((1..8).map(|call| Feedback(feedback(call, 100 + call, 0, "click", 1.0))));
    bench.feed([beat(20, 31.0)]);
    bench.windows()
}

/// The two counts of a metric in the cell of the canary over all traffic: events, and answers.
fn of(window: &WindowClosed, metric: &str) -> (u64, u64) {
    cell(window, Arm::Canary, metric, &Segment::all())
}

fn classes(window: &WindowClosed, metric: &str) -> Vec<(String, u64)> {
    let found = window.cells.iter().find(|cell| cell.metric == metric).unwrap();
    let Summary::Classes(counts) = Summary::decode(&found.summary).unwrap() else { panic!("classes") };
    let mut classes: Vec<_> = counts.iter().map(|(name, count)| (name.to_owned(), count)).collect();
    classes.sort();
    classes
}

#[test]
fn every_call_has_one_outcome_and_counts_once() {
    let windows = windows(2, &one_of_each());
    let counts = arm(&windows[0], Arm::Canary);
    let expected = ArmCounts {
        predictions: 6,
        errors: 1,
        invalid: 1,
        refused: 1,
        redirected: 1,
        unread: 1,
        cancelled: 1,
        left: 1,
        ..ArmCounts::none(Arm::Canary)
    };
    assert_eq!(counts, expected);
    let window = &windows[0];
    assert_eq!([of(window, "error_rate"), of(window, "refused")], [(1, 6), (2, 6)]);
    assert_eq!(of(window, "invalid_output"), (1, 5), "an unread answer counts for neither");
    assert_eq!([of(window, "cancelled").0, of(window, "cancelled").1], [1, 7]);
    assert_eq!(of(window, "latency_p99"), (0, 6), "the wait of a caller that left is not a latency");
    assert_eq!(of(window, "score"), (0, 2), "values are read only from answers that are not known to be bad");
    let all: u64 = classes(window, "outcomes").iter().map(|(_, count)| count).sum();
    assert_eq!((classes(window, "outcomes").len(), all), (7, 7));
    let refusals = classes(window, "refusals");
    assert_eq!(refusals, [("ok".to_owned(), 4), ("status_302".to_owned(), 1), ("status_422".to_owned(), 1)]);
    // A call whose caller left has no label.
    let labels = windows.iter().find(|window| window.maturity == Span::from_secs(20)).unwrap();
    let counts = arm(labels, Arm::Canary);
    assert_eq!((counts.predictions, counts.labelled, of(labels, "click")), (6, 6, (6, 6)));
}

/// Where a key assigns the arm, calls are also counted per bucket of their unit, so that the analyzer sees whether a few keys make them.
#[test]
fn calls_are_counted_per_unit() {
    let sticky = spec_with(&[], |spec| spec["assignment"] = json!({"sticky": {"header": "x-user"}}));
    let play = |spec: &RolloutSpec, step: i32, crash: bool| {
        let mut bench = Bench::new();
        bench.feed([Control(control(2, if step < 0 { Phase::Warming } else { Phase::Baking }, step, spec))]);
        for (user, call) in one_of_each().into_iter().enumerate() {
            // The first six calls are of one user.
            let unit = i64::try_from(user / 6).ok();
            bench.feed([P(Prediction { unit, ..call })]);
        }
        let other = Prediction { unit: Some(7), ..prediction(8, Arm::Stable, 1.0) };
        let nameless = Prediction { unit: None, ..prediction(9, Arm::Control, 1.0) };
        let pinned = Prediction { assignment: Assignment::Pinned, unit: Some(9), ..prediction(10, Arm::Canary, 1.0) };
        bench.feed([P(other), P(nameless), P(pinned)]);
        if crash {
            bench.harness.commit().unwrap();
            assert_eq!(bench.harness.rows().keys().filter(|key| key[0] == 11).count(), 3);
            bench.harness.crash().unwrap();
        }
        bench.feed([beat(20, 31.0)]);
        let windows = bench.windows();
        assert!(bench.harness.rows().keys().all(|key| key[0] != 11), "the rows are removed with the window");
        windows
    };
    let windows = play(&sticky, 0, false);
    let of = |arm| windows[0].units.iter().filter(move |unit| unit.counts.arm == arm);
    let canary: Vec<_> = of(Arm::Canary).collect();
    let first = ArmCounts {
        predictions: 6,
        errors: 1,
        invalid: 1,
        refused: 1,
        redirected: 1,
        unread: 1,
        ..ArmCounts::none(Arm::Canary)
    };
    let second = ArmCounts { cancelled: 1, left: 1, ..ArmCounts::none(Arm::Canary) };
    assert!(canary.len() == 2 && canary[0].bucket < canary[1].bucket, "{canary:?}");
    for wanted in [first, second] {
        assert!(canary.iter().any(|unit| unit.counts == wanted), "{canary:?}");
    }
    assert!(canary.iter().all(|unit| (0..256).contains(&unit.bucket)));
    assert_eq!(of(Arm::Stable).map(|unit| unit.counts.predictions).collect::<Vec<_>>(), [1]);
    assert_eq!(of(Arm::Control).count(), 1, "a call without a key is its own unit");
    assert_eq!(play(&sticky, 0, true), windows);
    // In warm-up nothing is compared, and without a key every call is assigned on its own.
    for windows in [play(&sticky, -1, false), play(&spec(), 0, false)] {
        assert!(windows.iter().all(|window| window.units.is_empty()));
    }
    // Rollouts that started under older rules are counted by these.
    let mut bench = Bench::new();
    let old = serin_schemas::records::Control { rules: 1, ..control(2, Phase::Baking, 0, &sticky) };
    bench.feed([Control(old), P(Prediction { unit: Some(1), ..prediction(1, Arm::Canary, 1.0) }), beat(20, 31.0)]);
    assert!(bench.windows().iter().all(|window| window.units.is_empty()));
}

#[test]
fn outcomes_that_a_router_does_not_state_are_derived() {
    let stated: Vec<Prediction> =
        one_of_each().into_iter().filter(|one| one.outcome != Some(Outcome::Unread)).collect();
    assert_eq!(windows(2, &as_version_1(one_of_each())), windows(2, &stated));
    let alone = |change: fn(Prediction) -> Prediction| {
        arm(&windows(2, &[change(prediction(1, Arm::Canary, 1.0))])[0], Arm::Canary)
    };
    let none = ArmCounts::none(Arm::Canary);
    let one = ArmCounts { predictions: 1, ..none };
    let silent = alone(|one| Prediction { status: None, ..one });
    assert_eq!(silent, ArmCounts { errors: 1, ..one }, "without a status the router got no answer");
    let slow = alone(|one| Prediction { status: Some(504), invalid_output: Some("empty".into()), ..one });
    assert_eq!(slow, ArmCounts { errors: 1, ..one });
    let wrong = alone(|one| Prediction { status: Some(404), error: Some("status_404".into()), ..one });
    assert_eq!(wrong, ArmCounts { refused: 1, ..one });
    // A pinned call is not compared, whatever its outcome.
    let pinned = alone(|one| Prediction { assignment: Assignment::Pinned, error: Some("client_closed".into()), ..one });
    assert_eq!(pinned, ArmCounts { excluded: 1, ..none });
}

#[test]
fn an_external_writer_need_not_report_a_status() {
    let mut bench = Bench::new();
    let external = spec_with(&[], |spec| spec["traffic"] = json!("external"));
    bench.feed([baking(&external)]);
    let foreign =
        |seq| Prediction { status: None, origin: Origin::Intake, rollout: None, ..prediction(seq, Arm::Canary, 1.0) };
    bench.feed([
        P(foreign(1)),
        P(Prediction { error: Some("oom".into()), ..foreign(2) }),
        P(Prediction { invalid_output: Some("nan".into()), ..foreign(3) }),
        P(Prediction { status: Some(400), ..foreign(4) }),
    ]);
    bench.feed([beat(10, 10.0)]);
    let counts = arm(&bench.windows()[0], Arm::Canary);
    assert_eq!((counts.predictions, counts.errors, counts.invalid, counts.refused), (4, 1, 1, 1));
}

/// Another system may report an arm and a version that do not match. It is unknown which of the two is right, so the
/// answer is not evidence about either.
#[test]
fn an_answer_whose_version_does_not_match_its_arm_is_no_evidence() {
    let windows = |rules: i32| {
        let mut bench = Bench::new();
        let external = spec_with(&[], |spec| spec["traffic"] = json!("external"));
        bench.feed([Control(serin_schemas::records::Control { rules, ..control(2, Phase::Baking, 0, &external) })]);
        let from = |seq, arm, version: &str| Prediction {
            version: version.into(),
            origin: Origin::Intake,
            rollout: None,
            ..prediction(seq, arm, 1.0)
        };
        let failed = |one| Prediction { error: Some("oom".into()), ..one };
        bench.feed([
            P(from(1, Arm::Canary, "v2")),
            // Stable's failures under the canary's arm and the other way round, and a third version.
            P(failed(from(2, Arm::Canary, "v1"))),
            P(from(3, Arm::Control, "v1")),
            P(failed(from(4, Arm::Control, "v2"))),
            P(failed(from(5, Arm::Canary, "v3"))),
            P(failed(from(6, Arm::Control, "v3"))),
        ]);
        bench.feed([beat(10, 10.0)]);
        let window = bench.windows().swap_remove(0);
        [Arm::Canary, Arm::Control].map(|arm| {
            let counts = self::arm(&window, arm);
            (counts.predictions, counts.errors, counts.excluded, cell(&window, arm, "error_rate", &Segment::all()))
        })
    };
    assert_eq!(windows(2), [(1, 0, 2, (0, 1)), (1, 0, 2, (0, 1))]);
    assert_eq!(windows(1), [(3, 2, 0, (2, 3)), (3, 2, 0, (2, 3))], "under rules 1 only the arm counted");
}

#[test]
fn a_rollout_of_the_first_rules_counts_as_it_did() {
    let windows = windows(1, &one_of_each());
    let counts = arm(&windows[0], Arm::Canary);
    let expected = ArmCounts { predictions: 7, errors: 2, invalid: 1, ..ArmCounts::none(Arm::Canary) };
    assert_eq!(counts, expected, "a caller that left counts as an error, and refusals are not counted");
    let window = &windows[0];
    assert_eq!([of(window, "error_rate"), of(window, "invalid_output")], [(2, 7), (1, 7)]);
    assert_eq!([of(window, "latency_p99"), of(window, "score")], [(0, 7), (0, 7)]);
    let labels = windows.iter().find(|window| window.maturity == Span::from_secs(20)).unwrap();
    assert_eq!(arm(labels, Arm::Canary).predictions, 7);
}

#[test]
fn reports_of_a_model_server_do_not_revive_bad_answers() {
    let mut bench = Bench::new();
    bench.feed([baking(&spec())]);
    let bare = |one: Prediction| Prediction { outputs: [].into(), ..one };
    let answers = one_of_each().into_iter().map(bare);
    bench.feed(answers.map(P));
    let report = |call: i64| Prediction {
        request_id: format!("request-{call}").into(),
        status: None,
        latency_us: None,
        origin: Origin::Intake,
        rollout: None,
        ..prediction(20 + call, Arm::Stable, 1.0)
    };
    bench.feed((1..8).map(|call| P(report(call))));
    bench.feed([beat(40, 10.0)]);
    let windows = bench.windows();
    // Refused, failed, unusable and cancelled answers are not compared, whatever their model server reports.
    assert_eq!(of(&windows[0], "score"), (0, 2));
}
