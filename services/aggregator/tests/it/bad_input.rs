//! Bad input is dead-lettered with its code, and the fold continues.

use bytes::Bytes;
use serin_schemas::{
    event::EventRecord::{Control, Feedback as F, Heartbeat, Prediction as P},
    headers::Headers,
    records::{Arm, Feedback, Origin, Phase, Prediction},
};

use crate::common::*;

#[test]
fn unreadable_records_are_poison() {
    let mut bench = Bench::new();
    let (headers, body) = wire(&P(prediction(1, Arm::Canary, 1.0)));
    let code = |applied: serin_stream::driver::Applied| applied.poison.map(|poison| poison.code.as_str());
    assert_eq!(code(bench.raw(headers.clone(), None)), Some("empty"));
    assert_eq!(code(bench.raw(headers.clone(), Some(Bytes::from_static(b"\xff\xfe garbage")))), Some("garbage"));
    assert_eq!(code(bench.raw(Headers::default(), Some(body.clone()))), Some("unknown_type"));
    let newer = [("ce_type", "dev.serin.prediction.v99")].into_iter().collect();
    assert_eq!(code(bench.raw(newer, Some(body.clone()))), Some("unknown_schema_version"));
    assert_eq!(code(bench.raw(headers.clone(), Some(Bytes::from(vec![0; 10_000_000])))), Some("too_large"));
    assert_eq!(code(bench.raw(headers, Some(body))), None);
}

#[test]
fn invalid_records_are_poison_and_change_nothing() {
    let mut bench = Bench::new();
    bench.feed([baking(&spec()), beat(0, 0.0)]);
    let good = || prediction(1, Arm::Canary, 1.0);
    let cases = [
        ("negative_latency", P(Prediction { latency_us: Some(-1), ..good() })),
        ("missing_id", P(Prediction { request_id: "".into(), ..good() })),
        ("far_future", P(Prediction { completed_at: secs(611.0), ..good() })),
        ("bad_sequence", P(Prediction { writer: writer("router-0", 0), ..good() })),
        ("far_future", F(Feedback { observed_at: secs(1e9), ..feedback(1, 1, 0, "late", 1.0) })),
        (
            "too_many_values",
            F(Feedback { values: (0..65).map(|n| (n.to_string(), 1.0)).collect(), ..feedback(1, 1, 0, "late", 1.0) }),
        ),
        (
            "bad_control",
            Control(serin_schemas::records::Control { spec: "{}".into(), ..control(9, Phase::Baking, 0, &spec()) }),
        ),
    ];
    for (code, event) in cases {
        assert_eq!(bench.code(&event), Some(code));
    }
    bench.feed([P(good()), beat(1, 10.0)]);
    assert_eq!(arm(&bench.windows()[0], Arm::Canary).predictions, 1);
}

#[test]
fn nan_is_counted_as_invalid_output() {
    let mut bench = Bench::new();
    let nan = [("score".to_owned(), f64::NAN)].into();
    bench.feed([
        baking(&spec()),
        P(Prediction { outputs: nan, invalid_output: Some("nan".into()), ..prediction(1, Arm::Canary, 1.0) }),
        beat(1, 10.0),
    ]);
    let window = &bench.windows()[0];
    let all = serin_schemas::records::Segment::all();
    assert_eq!(cell(window, Arm::Canary, "score", &all), (0, 0));
    assert_eq!(cell(window, Arm::Canary, "invalid_output", &all), (1, 1));
}

#[test]
fn a_replaced_process_is_refused_and_a_dead_router_can_return() {
    let mut bench = Bench::new();
    let of = |incarnation, seq| serin_schemas::records::Writer { incarnation, ..writer("router-7", seq) };
    let low = |at| match beat(0, at) {
        Heartbeat(beat) => beat,
        _ => unreachable!(),
    };
    bench.feed([
        baking(&spec()),
        P(Prediction { writer: of(5, 1), ..prediction(1, Arm::Canary, 1.0) }),
        P(Prediction { writer: of(6, 1), ..prediction(2, Arm::Canary, 1.0) }),
    ]);
    let old = P(Prediction { writer: of(5, 2), ..prediction(3, Arm::Canary, 1.0) });
    assert_eq!(bench.code(&old), Some("old_incarnation"));
    // Its heartbeats are ignored and do not hold the watermark back.
    bench.feed([
        Heartbeat(serin_schemas::records::Heartbeat { writer: of(5, 9), ..low(-500.0) }),
        Heartbeat(serin_schemas::records::Heartbeat { writer: of(6, 1), ..low(1.0) }),
    ]);
    bench.feed((1..=60).map(|at| beat(0, f64::from(at))));
    assert_eq!(bench.windows().len(), 1, "router-7 has expired after 30 s");
    // It returns: late for closed windows, in time for the others.
    bench.feed([
        Heartbeat(serin_schemas::records::Heartbeat { writer: of(6, 1), ..low(55.0) }),
        P(Prediction { writer: of(6, 2), ..prediction(4, Arm::Canary, 5.0) }),
        P(Prediction { writer: of(6, 3), ..prediction(5, Arm::Canary, 65.0) }),
        Heartbeat(serin_schemas::records::Heartbeat { writer: of(6, 3), ..low(70.0) }),
        beat(0, 70.0),
    ]);
    let windows = bench.windows();
    let canary = arm(&windows[0], Arm::Canary);
    assert_eq!((windows[0].end, canary.late, canary.predictions), (secs(70.0), 1, 1));
}

#[test]
fn only_values_that_a_rollout_reads_wait_under_an_id() {
    let class = serde_json::json!({"name": "class", "kind": "rate", "source": {"wrong_class": {"output": "kind", "label": "truth"}},
        "margin": {"absolute": 0.05}, "maturity": "60s"});
    let mut bench = Bench::new();
    bench.feed([baking(&spec_with(&[class], |_| {})), beat(0, 0.0)]);
    let report = |seq, outputs: Vec<String>, class: &str| {
        P(Prediction {
            origin: Origin::Intake,
            outputs: outputs.into_iter().map(|name| (name, 1.0)).collect(),
            classes: [(if class.is_empty() { "other" } else { "kind" }.to_owned(), class.to_owned())].into(),
            writer: writer("intake-0", seq),
            ..prediction(1, Arm::Canary, 1.0)
        })
    };
    let waiting = |bench: &mut Bench| -> usize {
        bench.harness.commit().unwrap();
        bench.harness.rows().iter().filter(|(key, _)| key[0] == 9).map(|(_, value)| value.len()).sum()
    };
    let names = |from: i32, to: i32| (from..to).map(|n| format!("name-{n}")).collect::<Vec<_>>();
    assert_eq!(bench.code(&report(1, names(0, 64), "")), None);
    assert_eq!(waiting(&mut bench), 0, "no rollout reads any of these values");
    assert_eq!(bench.code(&report(2, vec!["score".into()], "good")), None);
    let one = waiting(&mut bench);
    assert!(one > 0);
    assert_eq!(bench.code(&report(3, names(0, 64), "good")), None);
    assert_eq!(bench.code(&report(4, vec![], &"x".repeat(257))), Some("class_too_long"));
    let label = |seq, name: &str| F(Feedback { writer: writer("intake-0", seq), ..feedback(1, 1, 0, name, 1.0) });
    for n in 0..100 {
        assert_eq!(bench.code(&label(5 + n, &format!("label-{n}{}", "x".repeat(n as usize * 5)))), None);
    }
    assert_eq!(waiting(&mut bench), one, "unread values take no space");
    let bare = Prediction { outputs: [].into(), ..prediction(1, Arm::Canary, 1.0) };
    let Heartbeat(other) = beat(1, 10.0) else { unreachable!() };
    let other = serin_schemas::records::Heartbeat { writer: writer("intake-0", 104), ..other };
    bench.feed([P(bare), Heartbeat(other), beat(1, 10.0)]);
    let score = cell(&bench.windows()[0], Arm::Canary, "score", &serin_schemas::records::Segment::all());
    assert_eq!(score, (0, 1), "the kept values are used");
}

#[test]
fn ids_that_are_too_long_are_dead_lettered() {
    let mut bench = Bench::new();
    bench.feed([baking(&spec())]);
    let id = |bytes: usize| "i".repeat(bytes);
    for (bytes, code) in [(256, None), (257, Some("id_too_long")), (1 << 20, Some("id_too_long"))] {
        let prediction = Prediction { request_id: id(bytes).into(), ..prediction(bytes as i64, Arm::Canary, 1.0) };
        assert_eq!(bench.code(&P(prediction)), code);
        let feedback = Feedback { request_id: id(bytes).into(), ..feedback(1, bytes as i64, 0, "late", 1.0) };
        assert_eq!(bench.code(&F(feedback)), code);
    }
}
