//! Windows: which events they count, and when they are written.

use serin_aggregator::Config;
use serin_schemas::{
    event::EventRecord::{self, Control, Heartbeat, Prediction as P},
    ids::{EventTime, Generation, Span},
    records::{Arm, ArmDrops, Assignment, ClosedThrough, Origin, Phase, Prediction, Segment},
};

use crate::common::*;

#[test]
fn a_window_holds_both_arms_and_counts_stable() {
    let mut bench = Bench::new();
    let other = |n| Prediction {
        segments: [("origin".to_owned(), "EWR".to_owned())].into(),
        ..prediction(n, Arm::Canary, 4.0)
    };
    bench.feed([
        baking(&spec()),
        P(prediction(1, Arm::Canary, 1.0)),
        P(Prediction { status: Some(503), outputs: [].into(), ..prediction(2, Arm::Canary, 2.0) }),
        P(prediction(3, Arm::Control, 3.0)),
        P(prediction(4, Arm::Stable, 3.0)),
        P(Prediction { invalid_output: Some("nan".into()), ..other(5) }),
        P(Prediction { assignment: Assignment::Pinned, ..prediction(6, Arm::Canary, 3.0) }),
        P(Prediction { rollout: None, ..prediction(7, Arm::Stable, 3.0) }),
        P(Prediction { status: None, ..prediction(8, Arm::Control, 3.0) }),
        P(Prediction { error: Some("truncated".into()), ..prediction(9, Arm::Control, 3.0) }),
        P(Prediction { status: Some(404), error: Some("status_404".into()), ..prediction(10, Arm::Control, 10.0) }),
    ]);
    bench.feed([beat(10, 9.8)]);
    assert_eq!(bench.out().1.len(), 1, "the first promise reports the partition's progress");
    assert!(!bench.apply(&beat(10, 9.9)).commit_now);
    assert!(bench.apply(&beat(10, 10.0)).commit_now);
    let (windows, promises) = bench.out();
    assert_eq!(promises, [ClosedThrough::heard(0, 1, secs(10.0))]);
    let [window] = &windows[..] else { panic!("{windows:?}") };
    assert_eq!((window.end, window.length, window.maturity), (secs(10.0), Span::from_secs(10), Span(0)));
    assert_eq!((window.generation, window.rollout.as_str(), window.partition), (Generation(2), "rollout-1", 0));
    let canary = arm(window, Arm::Canary);
    assert_eq!((canary.predictions, canary.errors, canary.invalid, canary.excluded), (3, 1, 1, 1));
    let control = arm(window, Arm::Control);
    assert_eq!((control.predictions, control.errors), (3, 2));
    assert_eq!(arm(window, Arm::Stable).predictions, 1);

    let (all, lga) = (Segment::all(), Segment::of("origin", "LGA"));
    assert_eq!(cell(window, Arm::Canary, "error_rate", &all), (1, 3));
    assert_eq!(cell(window, Arm::Canary, "error_rate", &lga), (1, 2));
    assert_eq!(cell(window, Arm::Canary, "error_rate", &Segment::of("origin", "other")), (0, 1));
    assert_eq!(cell(window, Arm::Canary, "invalid_output", &all), (1, 3));
    assert_eq!(
        cell(window, Arm::Canary, "score", &all),
        (0, 1),
        "no value is read from the failed and the unusable answer"
    );
    assert_eq!(cell(window, Arm::Canary, "latency_p99", &all), (0, 3));
    assert_eq!(cell(window, Arm::Canary, "latency_p99", &lga), (0, 0), "latency is not judged by origin");
    assert!(window.cells.iter().all(|cell| cell.arm != Arm::Stable));
}

#[test]
fn warming_sketches_stable_and_keeps_a_bounded_number_of_values() {
    let mut bench = Bench::new();
    bench.feed([Control(control(1, Phase::Warming, -1, &spec()))]);
    bench.feed((1..=300).map(|n| {
        let segments = [("origin".to_owned(), format!("airport-{n}"))].into();
        P(Prediction { segments, generation: Generation(1), ..prediction(n, Arm::Stable, 1.0) })
    }));
    bench.harness.commit().unwrap();
    bench.harness.crash().unwrap();
    bench.feed([P(Prediction { generation: Generation(1), ..prediction(301, Arm::Stable, 1.0) }), beat(301, 10.0)]);
    let window = &bench.windows()[0];
    assert_eq!(cell(window, Arm::Stable, "score", &Segment::all()), (0, 301));
    assert_eq!(cell(window, Arm::Stable, "score", &Segment::of("origin", "airport-200")), (0, 1));
    assert_eq!(cell(window, Arm::Stable, "score", &Segment::of("origin", "other")), (0, 101));
    assert!(window.population.is_empty(), "the metric has the values");
}

#[test]
fn warming_counts_the_values_of_a_dimension_that_only_a_metric_of_pairs_names() {
    let differs = serde_json::json!({"name": "differs", "kind": "disagreement", "source": {"output": "score"},
        "limit": {"fail": 0.1}, "segments": ["origin"]});
    let spec = spec_with(&[], |spec| spec["metrics"] = serde_json::json!([differs]));
    let mut bench = Bench::new();
    bench.feed([Control(control(1, Phase::Warming, -1, &spec))]);
    let answer = |n| P(Prediction { generation: Generation(1), ..prediction(n, Arm::Stable, 1.0) });
    bench.feed([answer(1)]);
    bench.harness.commit().unwrap();
    bench.harness.crash().unwrap();
    bench.feed([answer(2), beat(2, 10.0)]);
    let window = bench.windows().remove(0);
    assert_eq!(window.population.len(), 1);
    assert_eq!((&window.population[0].segment, window.population[0].predictions), (&Segment::of("origin", "LGA"), 2));
}

/// The counts of a window that is open at a restart keep their values up to the new bound.
#[test]
fn another_bound_of_values_in_warm_up_stops_nothing() {
    let metric = |name: &str, segment: &str| {
        serde_json::json!({"name": name, "kind": "disagreement", "source": {"output": "score"},
            "limit": {"fail": 0.1}, "segments": [segment]})
    };
    let spec = spec_with(&[], |spec| {
        spec["segments"] = serde_json::json!([
            {"name": "origin", "source": {"input": "origin"}, "top": 2},
            {"name": "carrier", "source": {"input": "carrier"}, "top": 2}
        ]);
        spec["metrics"] = serde_json::json!([metric("differs", "origin"), metric("differs_too", "carrier")]);
    });
    let config = |max_warmup_values| Config { max_warmup_values, ..Config::default() };
    for (before, after, kept) in [(3, 5, 3), (5, 2, 2), (3, 3, 3), (1, 200, 1)] {
        let mut bench = Bench::with(config(before), 0, 1);
        bench.feed([Control(control(1, Phase::Warming, -1, &spec))]);
        bench.feed((1..=5).map(|n| {
            let segments = [("origin".to_owned(), format!("o{n}")), ("carrier".to_owned(), format!("c{n}"))].into();
            P(Prediction { segments, generation: Generation(1), ..prediction(n, Arm::Stable, 1.0) })
        }));
        bench.harness.commit().unwrap();
        let mut next = Bench::with(config(after), 0, 1);
        next.harness.reset(bench.harness.rows()).unwrap();
        next.feed([beat(5, 10.0)]);
        let window = next.windows().remove(0);
        for (dimension, letter) in [("origin", 'o'), ("carrier", 'c')] {
            let count = |value: &str| {
                let own = window.population.iter().filter(|own| own.segment == Segment::of(dimension, value));
                own.map(|own| own.predictions).sum::<i64>()
            };
            for n in 1..=5 {
                let expected = i64::from(n <= kept);
                assert_eq!(count(&format!("{letter}{n}")), expected, "{before} to {after}: {letter}{n}");
            }
            assert_eq!(count("other"), 5 - kept, "{before} to {after}");
        }
    }
}

#[test]
fn generations_have_their_own_windows() {
    let mut bench = Bench::new();
    let next = control(3, Phase::Baking, 1, &spec());
    bench.feed([
        baking(&spec()),
        P(prediction(1, Arm::Canary, 1.0)),
        Control(next),
        P(Prediction { generation: Generation(3), ..prediction(2, Arm::Canary, 2.0) }),
        P(prediction(3, Arm::Canary, 3.0)),
        P(Prediction { generation: Generation(4), ..prediction(4, Arm::Canary, 3.0) }),
        beat(4, 10.0),
    ]);
    let counts: Vec<(i64, i64)> =
        bench.windows().iter().map(|window| (window.generation.0, arm(window, Arm::Canary).predictions)).collect();
    assert_eq!(counts, [(2, 2), (3, 1)], "a generation without its Control record is not counted");
}

#[test]
fn late_events_are_counted_in_the_next_window() {
    let mut bench = Bench::new();
    bench.feed([
        baking(&spec()),
        P(prediction(1, Arm::Canary, 1.0)),
        beat(1, 20.0),
        P(prediction(2, Arm::Canary, 5.0)),
    ]);
    assert_eq!(bench.windows().len(), 1);
    bench.feed([beat(2, 30.0)]);
    let windows = bench.windows();
    assert_eq!((windows[0].end, arm(&windows[0], Arm::Canary).late), (secs(30.0), 1));
    assert_eq!(arm(&windows[0], Arm::Canary).predictions, 0);
}

#[test]
fn duplicates_count_once_and_losses_are_known() {
    let mut bench = Bench::new();
    let drops = vec![
        ArmDrops { model: "flights".into(), arm: Arm::Canary, dropped: 7 },
        ArmDrops { model: "another".into(), arm: Arm::Canary, dropped: 9 },
    ];
    let last = match beat(5, 10.0) {
        Heartbeat(beat) => serin_schemas::records::Heartbeat { drops, ..beat },
        _ => unreachable!(),
    };
    bench.feed([
        baking(&spec()),
        beat(0, 0.0),
        P(prediction(1, Arm::Canary, 1.0)),
        P(prediction(1, Arm::Canary, 1.0)),
        P(prediction(3, Arm::Canary, 1.0)),
        P(prediction(2, Arm::Canary, 1.0)),
        P(prediction(3, Arm::Canary, 1.0)),
        Heartbeat(last),
        beat(5, 20.0),
    ]);
    let windows = bench.windows();
    assert_eq!(arm(&windows[0], Arm::Canary).predictions, 3);
    assert_eq!((arm(&windows[1], Arm::Canary).lost, arm(&windows[1], Arm::Stable).lost), (7, 2));
}

#[test]
fn only_one_partition_counts_a_writers_drops() {
    let drops = vec![ArmDrops { model: "flights".into(), arm: Arm::Canary, dropped: 7 }];
    let lost: i64 = (0..4)
        .map(|partition| {
            let mut bench = Bench::with(serin_aggregator::Config::default(), partition, 4);
            let Heartbeat(first) = beat(0, 10.0) else { unreachable!() };
            let first = serin_schemas::records::Heartbeat { drops: drops.clone(), ..first };
            bench.feed([baking(&spec()), Heartbeat(first), beat(0, 20.0)]);
            bench.windows().iter().map(|window| arm(window, Arm::Canary).lost).sum::<i64>()
        })
        .sum();
    assert_eq!(lost, 7);
}

#[test]
fn grace_waits_and_promises_follow_it() {
    let mut bench = Bench::new();
    let spec = spec_with(&[], |spec| spec["grace"] = "5s".into());
    bench.feed([baking(&spec), P(prediction(1, Arm::Canary, 1.0)), beat(1, 14.0), P(prediction(2, Arm::Canary, 9.0))]);
    let (windows, promises) = bench.out();
    assert_eq!((windows.len(), promises.len()), (0, 1), "the first promise reports the partition's progress");
    bench.feed([beat(2, 15.0)]);
    let (windows, promises) = bench.out();
    assert_eq!(arm(&windows[0], Arm::Canary).predictions, 2);
    assert_eq!(promises[0].through, secs(15.0), "the analyzer applies each rollout's grace");
}

#[test]
fn a_rollouts_grace_delays_no_other_rollout() {
    let mut bench = Bench::new();
    let slow = spec_with(&[], |spec| {
        spec["model"] = "fraud".into();
        spec["grace"] = "1m".into();
    });
    let theirs = serin_schemas::records::Control {
        model: "fraud".into(),
        rollout: "rollout-2".into(),
        ..control(2, Phase::Baking, 0, &slow)
    };
    let fraud =
        Prediction { model: "fraud".into(), rollout: Some("rollout-2".into()), ..prediction(2, Arm::Canary, 1.0) };
    bench.feed([baking(&spec()), Control(theirs), P(prediction(1, Arm::Canary, 1.0)), P(fraud), beat(2, 10.0)]);
    let (windows, promises) = bench.out();
    assert_eq!(windows.iter().map(|window| window.rollout.as_str()).collect::<Vec<_>>(), ["rollout-1"]);
    assert_eq!(promises.last().unwrap().through, secs(10.0));
    bench.feed([beat(2, 69.0)]);
    assert!(bench.windows().is_empty());
    bench.feed([beat(2, 70.0)]);
    let (windows, promises) = bench.out();
    assert_eq!((windows[0].rollout.as_str(), windows[0].end), ("rollout-2", secs(10.0)));
    assert_eq!(arm(&windows[0], Arm::Canary).predictions, 1);
    assert_eq!(promises.last().unwrap().through, secs(70.0));
}

#[test]
fn without_a_rollout_nothing_is_written() {
    let mut bench = Bench::new();
    bench.feed([P(prediction(1, Arm::Stable, 1.0)), beat(1, 100.0)]);
    assert_eq!(bench.out(), (Vec::new(), Vec::new()));
}

#[test]
fn an_ended_rollout_writes_what_is_open_and_leaves_no_rows() {
    let mut bench = Bench::new();
    let spec = spec_with(&[wrong_metric()], |_| {});
    bench.feed([baking(&spec), beat(0, 0.0), P(prediction(1, Arm::Canary, 1.0)), P(prediction(2, Arm::Control, 1.0))]);
    bench.harness.commit().unwrap();
    let tables = |bench: &Bench| -> Vec<u8> {
        let mut tables: Vec<u8> = bench.harness.rows().keys().map(|key| key[0]).collect();
        tables.dedup();
        tables
    };
    assert_eq!(tables(&bench), [1, 2, 3, 4, 6, 7, 10]);
    bench.feed([ended(3)]);
    let windows = bench.windows();
    assert_eq!(windows.len(), 1);
    assert_eq!(arm(&windows[0], Arm::Canary).predictions, 1);
    assert_eq!(tables(&bench), [1, 2, 4], "state, the model's generation and writers stay");
    // Older and repeated Control records have no effect. A new rollout starts.
    bench.feed([baking(&spec), ended(3), P(prediction(3, Arm::Canary, 2.0)), beat(3, 10.0)]);
    assert_eq!(bench.out(), (Vec::new(), Vec::new()));
    let next = serin_schemas::records::Control { rollout: "rollout-2".into(), ..control(4, Phase::Baking, 0, &spec) };
    let mine =
        Prediction { rollout: Some("rollout-2".into()), generation: Generation(4), ..prediction(4, Arm::Canary, 11.0) };
    bench.feed([Control(next), P(mine), beat(4, 20.0)]);
    assert_eq!(bench.windows()[0].rollout.as_str(), "rollout-2");
}

#[test]
fn a_new_rollout_ends_the_old_one() {
    let mut bench = Bench::new();
    let next =
        serin_schemas::records::Control { rollout: "rollout-2".into(), ..control(3, Phase::Warming, -1, &spec()) };
    bench.feed([baking(&spec()), P(prediction(1, Arm::Canary, 1.0)), Control(next)]);
    assert_eq!(bench.windows()[0].rollout.as_str(), "rollout-1");
}

#[test]
fn an_event_of_a_model_server_adds_outputs_and_is_never_counted() {
    let report = |n, seq, score: f64| {
        let writer = writer("intake-0", seq);
        P(Prediction {
            origin: Origin::Intake,
            outputs: [("score".to_owned(), score)].into(),
            rollout: None,
            generation: Generation(0),
            arm: Arm::Stable,
            writer,
            ..prediction(n, Arm::Canary, 1.0)
        })
    };
    let bare = |n| P(Prediction { outputs: [].into(), ..prediction(n, Arm::Canary, 1.0) });
    let mut bench = Bench::new();
    bench.feed([
        baking(&spec()),
        bare(1),
        report(1, 1, 0.5),
        report(1, 2, 0.5),
        report(2, 3, 0.5),
        bare(2),
        P(prediction(3, Arm::Canary, 1.0)),
        report(3, 4, 0.1),
        bare(4),
        report(9, 5, 0.5),
        beat(4, 10.0),
        report(4, 6, 0.5),
        beat(4, 20.0),
    ]);
    let windows = bench.windows();
    assert_eq!(windows.len(), 1);
    assert_eq!(arm(&windows[0], Arm::Canary).predictions, 4);
    assert_eq!(cell(&windows[0], Arm::Canary, "score", &Segment::all()), (0, 3));
    assert_eq!(cell(&windows[0], Arm::Canary, "score", &Segment::of("origin", "LGA")), (0, 3));
}

#[test]
fn external_traffic_counts_itself_and_the_first_report_wins() {
    let external = |n: i64, seq, version: &str, at| {
        let writer = writer("intake-0", seq);
        P(Prediction {
            origin: Origin::Intake,
            version: version.into(),
            arm: Arm::Stable,
            assignment: Assignment::External,
            rollout: None,
            generation: Generation(0),
            status: None,
            writer,
            ..prediction(n, Arm::Canary, at)
        })
    };
    let beat = |low: f64| match beat(0, low) {
        Heartbeat(beat) => Heartbeat(serin_schemas::records::Heartbeat { writer: writer("intake-0", 4), ..beat }),
        other => other,
    };
    let spec = spec_with(&[], |spec| spec["traffic"] = "external".into());
    let mut bench = Bench::new();
    bench.feed([
        baking(&spec),
        external(1, 1, "v2", 1.0),
        external(1, 2, "v2", 1.0),
        external(2, 3, "v1", 1.0),
        external(3, 4, "v7", 1.0),
        beat(10.0),
    ]);
    let windows = bench.windows();
    let window = &windows[0];
    let counted = |of| (arm(window, of).predictions, arm(window, of).excluded);
    // A third version belongs to neither arm and is excluded.
    assert_eq!((counted(Arm::Canary), counted(Arm::Control), counted(Arm::Stable)), ((1, 0), (1, 0), (0, 1)));
}

#[test]
fn an_external_answer_counts_only_if_its_version_matches_its_arm() {
    let counts = |rules: i32| {
        let reported = |n: i64, arm, version: &str| {
            P(Prediction {
                origin: Origin::Intake,
                version: version.into(),
                arm,
                assignment: Assignment::External,
                rollout: None,
                generation: Generation(0),
                ..prediction(n, Arm::Canary, 1.0)
            })
        };
        let spec = spec_with(&[], |spec| spec["traffic"] = "external".into());
        let mut bench = Bench::new();
        let control = match baking(&spec) {
            EventRecord::Control(control) => serin_schemas::records::Control { rules, ..control },
            other => panic!("{other:?}"),
        };
        bench.feed([
            EventRecord::Control(control),
            reported(1, Arm::Canary, "v2"),
            reported(2, Arm::Control, "v1"),
            // Each of these reports an arm with the version of another arm, or a third version.
            reported(3, Arm::Canary, "v1"),
            reported(4, Arm::Control, "v2"),
            reported(5, Arm::Canary, "v7"),
            reported(6, Arm::Control, "v7"),
            beat(6, 10.0),
        ]);
        let windows = bench.windows();
        let counted = |of| (arm(&windows[0], of).predictions, arm(&windows[0], of).excluded);
        (counted(Arm::Canary), counted(Arm::Control))
    };
    assert_eq!(counts(serin_schemas::records::RULES), ((1, 2), (1, 2)));
    assert_eq!(counts(1), ((3, 0), (3, 0)));
}

#[test]
fn two_models_do_not_affect_each_other() {
    let mut bench = Bench::new();
    let theirs = |n| P(Prediction { model: "fraud".into(), ..prediction(n, Arm::Canary, 1.0) });
    bench.feed([baking(&spec()), theirs(1), P(prediction(2, Arm::Canary, 1.0)), beat(2, 10.0)]);
    let windows = bench.windows();
    assert_eq!((windows.len(), arm(&windows[0], Arm::Canary).predictions), (1, 1));
}

#[test]
fn promises_are_written_only_at_window_ends() {
    let mut bench = Bench::new();
    let spec = spec_with(&[wrong_metric(), click_metric()], |_| {});
    bench.feed([baking(&spec)]);
    bench.feed((0..=1000).map(|tenth| beat(0, f64::from(tenth) / 10.0)));
    let through: Vec<EventTime> = bench.out().1.iter().map(|promise| promise.through).collect();
    assert_eq!(through, (0..=10).map(|n| secs(f64::from(n) * 10.0)).collect::<Vec<_>>());
}

#[test]
fn a_writer_that_joins_does_not_reopen_closed_windows() {
    let mut bench = Bench::new();
    let second = |seq, at| {
        let writer = writer("router-9", seq);
        EventRecord::Prediction(Prediction { writer, ..prediction(100 + seq, Arm::Canary, at) })
    };
    bench.feed([baking(&spec()), P(prediction(1, Arm::Canary, 1.0)), beat(1, 10.0), second(1, 2.0), second(2, 12.0)]);
    bench.feed([beat(1, 20.0)]);
    let windows = bench.windows();
    let counts: Vec<(i64, i64)> =
        windows.iter().map(|window| (arm(window, Arm::Canary).predictions, arm(window, Arm::Canary).late)).collect();
    assert_eq!(counts, [(1, 0), (1, 1)]);
}
