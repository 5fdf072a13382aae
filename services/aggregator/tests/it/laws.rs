//! Laws: restarts, the order within a window, and partitioning have no effect, and no event is lost.

use std::collections::BTreeMap;

use proptest::{prelude::*, sample::Index};
use serin_aggregator::Config;
use serin_schemas::{
    event::EventRecord::{self, Control, Feedback as F, Prediction as P},
    ids::{EventTime, Generation},
    records::{Arm, ArmCounts, Assignment, Feedback, Phase, Prediction, Segment, WindowClosed, Writer},
};
use serin_sketches::Summary;

use crate::common::*;

/// An event before it gets its place in a writer's sequence.
#[derive(Clone, Debug)]
enum Step {
    Predict { id: u8, arm: usize, at: u8, score: Option<u8>, origin: u8, assignment: u8, intake: bool },
    Label { id: u8, revision: i64, value: bool, click: bool },
    Beat { advance: u8 },
    Repeat { back: u8 },
    Generation,
    EndAndBegin,
}

fn step() -> impl Strategy<Value = Step> {
    let predict = (0..60_u8, 0..4_usize, 0..40_u8, any::<Option<u8>>(), 0..6_u8, 0..8_u8, prop::bool::weighted(0.2));
    let predict = predict.prop_map(|(id, arm, at, score, origin, assignment, intake)| Step::Predict {
        id,
        arm,
        at,
        score,
        origin,
        assignment,
        intake,
    });
    let label = (0..60_u8, 0..3_i64, any::<bool>(), any::<bool>());
    let label = label.prop_map(|(id, revision, value, click)| Step::Label { id, revision, value, click });
    prop_oneof![
        12 => predict,
        8 => label,
        3 => (0..25_u8).prop_map(|advance| Step::Beat { advance }),
        2 => (1..6_u8).prop_map(|back| Step::Repeat { back }),
        1 => Just(Step::Generation),
        1 => Just(Step::EndAndBegin),
    ]
}

/// Label metrics, classes, and metrics of both answers to mirrored calls.
fn more_metrics() -> Vec<serde_json::Value> {
    let classes = serde_json::json!({"name": "errors", "kind": "classes", "source": "error", "margin": {"absolute": 0.1},
        "segments": ["origin"]});
    let pairs = serde_json::json!({"name": "differs", "kind": "disagreement", "source": {"output": "score"},
        "limit": {"fail": 0.1}, "segments": ["origin"]});
    let delay = serde_json::json!({"name": "delay", "kind": "distribution", "source": {"label_delay": "late"},
        "maturity": "60s", "segments": ["origin"]});
    vec![wrong_metric(), click_metric(), classes, pairs, delay]
}

/// Converts steps into the records that two routers and an intake would write.
fn play(steps: &[Step], external: bool) -> Vec<EventRecord> {
    const ARMS: [Arm; 4] = [Arm::Stable, Arm::Control, Arm::Canary, Arm::Shadow];
    let spec = spec_with(&more_metrics(), |spec| {
        spec["assignment"] = serde_json::json!({"sticky": {"header": "x-user"}});
        if external {
            spec["traffic"] = "external".into();
        }
    });
    let mut seqs = BTreeMap::<&str, i64>::new();
    let mut next = |name: &'static str| {
        let seq = seqs.entry(name).or_default();
        *seq += 1;
        Writer { name: name.to_owned(), incarnation: 1, seq: *seq }
    };
    let (mut generation, mut rollout, mut low) = (1, 1, 0_i64);
    let begin = |generation, rollout: i32, phase, step| {
        let rollout = format!("rollout-{rollout}").into();
        Control(serin_schemas::records::Control { rollout, ..control(generation, phase, step, &spec) })
    };
    let mut out = vec![begin(1, 1, Phase::Warming, -1)];
    for step in steps {
        match step.clone() {
            Step::Predict { id, arm, at, score, origin, assignment, intake } => {
                let writer = next(if intake { "intake-0" } else { "router-0" });
                out.push(P(Prediction {
                    request_id: format!("request-{id}").into(),
                    rollout: (!intake).then(|| format!("rollout-{rollout}").into()),
                    generation: Generation(generation),
                    origin: if intake {
                        serin_schemas::records::Origin::Intake
                    } else {
                        serin_schemas::records::Origin::Router
                    },
                    assignment: if assignment == 0 { Assignment::Pinned } else { Assignment::Random },
                    completed_at: EventTime((low + i64::from(at)) * 1_000_000 - 10_000_000),
                    outputs: score.map(|score| ("score".to_owned(), f64::from(score) / 100.0)).into_iter().collect(),
                    segments: [(
                        "origin".to_owned(),
                        ["LGA", "JFK", "EWR", "PHL", "BOS", "SFO"][usize::from(origin)].to_owned(),
                    )]
                    .into(),
                    version: if arm > 1 { "v2".into() } else { "v1".into() },
                    unit: (id % 3 > 0).then_some(i64::from(id / 3)),
                    writer,
                    ..prediction(1, ARMS[arm], 0.0)
                }));
            }
            Step::Label { id, revision, value, click } => {
                let writer = next("router-1");
                let label = if click { "click" } else { "late" };
                let feedback = feedback(i64::from(id), 1, revision, label, f64::from(u8::from(value)));
                out.push(F(Feedback { writer, observed_at: EventTime(low * 1_000_000), ..feedback }));
            }
            Step::Beat { advance } => {
                low += i64::from(advance);
                out.push(beat(0, low as f64));
            }
            Step::Repeat { back } => {
                let again = out.len().checked_sub(usize::from(back)).and_then(|at| out.get(at));
                out.extend(again.filter(|event| matches!(event, P(_) | F(_))).cloned());
            }
            Step::Generation => {
                generation += 1;
                out.push(begin(generation, rollout, Phase::Baking, 0));
            }
            Step::EndAndBegin => {
                generation += 1;
                out.push(begin(generation, rollout, Phase::RolledBack, 0));
                generation += 1;
                rollout += 1;
                out.push(begin(generation, rollout, Phase::Warming, -1));
            }
        }
    }
    out.push(beat(0, low as f64 + 100.0));
    out.push(beat(0, low as f64 + 200.0));
    out
}

fn config() -> Config {
    Config { max_join_rows: Some(12), max_warmup_values: 3, ..Config::default() }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn restarts_change_nothing(
        steps in prop::collection::vec(step(), 1..250),
        cuts in prop::collection::vec((any::<Index>(), any::<bool>()), 0..12),
        external: bool,
    ) {
        let events = play(&steps, external);
        let mut whole = Bench::with(config(), 0, 1);
        whole.feed(events.clone());
        let expected = whole.harness.commit().unwrap();

        let mut cut = Bench::with(config(), 0, 1);
        let mut found = Vec::new();
        let mut cuts: Vec<(usize, bool)> = cuts.iter().map(|(at, crash)| (at.index(events.len()), *crash)).collect();
        cuts.sort_unstable();
        let mut from = 0;
        for (at, crash) in cuts {
            cut.feed(events[from..at].iter().cloned());
            found.extend(cut.harness.commit().unwrap());
            if crash {
                // Records applied after the commit are lost in the crash and leave no trace.
                cut.feed(events[at..(at + 5).min(events.len())].iter().cloned());
            }
            cut.harness.crash().unwrap();
            from = at;
        }
        cut.feed(events[from..].iter().cloned());
        found.extend(cut.harness.commit().unwrap());
        prop_assert_eq!(&expected, &found);
        prop_assert_eq!(whole.harness.rows(), cut.harness.rows());
    }

    #[test]
    fn every_event_is_counted_once(steps in prop::collection::vec(step(), 1..250)) {
        // Without an end of the rollout and without intake, every event is in exactly one window: counted, excluded
        // or late.
        let steps: Vec<Step> = steps.into_iter().filter(|step| !matches!(step, Step::EndAndBegin | Step::Predict { intake: true, .. })).collect();
        let events = play(&steps, false);
        let mut bench = Bench::with(config(), 0, 1);
        bench.feed(events.clone());
        let windows = bench.windows();
        let counted: i64 = windows
            .iter()
            .filter(|window| window.maturity.0 == 0)
            .flat_map(|window| &window.arms)
            .map(|arm| arm.predictions + arm.excluded + arm.late)
            .sum();
        let mut seqs: Vec<i64> = events.iter().filter_map(|event| match event {
            P(prediction) => Some(prediction.writer.seq),
            _ => None,
        }).collect();
        seqs.sort_unstable();
        seqs.dedup();
        prop_assert_eq!(counted, seqs.len() as i64);
        let lost: i64 = windows.iter().flat_map(|window| &window.arms).map(|arm| arm.lost).sum();
        prop_assert_eq!(lost, 0);
    }

    #[test]
    fn partitions_and_order_change_nothing(
        seeds in prop::collection::vec((any::<u8>(), 0..4_usize, 0..40_u8, 0..4_u8), 1..120),
        order in prop::collection::vec(any::<u32>(), 120),
    ) {
        const ARMS: [Arm; 4] = [Arm::Stable, Arm::Control, Arm::Canary, Arm::Shadow];
        let spec = spec_with(&more_metrics(), |spec| spec["assignment"] = serde_json::json!({"sticky": {"header": "x"}}));
        let mut predictions: Vec<Prediction> = seeds
            .iter()
            .enumerate()
            .map(|(n, (score, arm, at, origin))| Prediction {
                // A mirror belongs to the call two before it.
                request_id: format!("request-{}", if *arm == 3 { n as i64 - 1 } else { n as i64 + 1 }).into(),
                version: if *arm > 1 { "v2".into() } else { "v1".into() },
                unit: Some(i64::from(*score) / 10),
                outputs: [("score".to_owned(), f64::from(*score) / 100.0)].into(),
                segments: [("origin".to_owned(), ["LGA", "JFK", "EWR", "BOS"][usize::from(*origin)].to_owned())].into(),
                ..prediction(n as i64 + 1, ARMS[*arm], f64::from(*at))
            })
            .collect();
        let run = |predictions: &[Prediction], partitions: usize| {
            let mut benches: Vec<Bench> =
                (0..partitions).map(|n| Bench::with(Config::default(), n as i32, partitions as i32)).collect();
            let mut seqs = vec![0; partitions];
            for bench in &mut benches {
                bench.feed([baking(&spec)]);
            }
            for prediction in predictions {
                let label = prediction.writer.seq;
                // All events of one request are in one partition.
                let at = prediction.request_id.as_str().bytes().map(usize::from).sum::<usize>() % partitions;
                seqs[at] += 1;
                let event = P(Prediction { writer: writer("router-0", seqs[at]), ..prediction.clone() });
                let feedback = feedback(label, seqs[at], 0, "late", f64::from(u8::from(label % 3 == 0)));
                let feedback = (prediction.arm != Arm::Shadow).then_some(F(feedback));
                benches[at].feed([event].into_iter().chain(feedback));
            }
            let mut closed = Vec::new();
            for (bench, seq) in benches.iter_mut().zip(seqs) {
                bench.feed([beat(seq, 200.0)]);
                closed.extend(bench.windows());
            }
            merged(&closed)
        };
        let one = run(&predictions, 1);
        let mut keyed: Vec<(u32, Prediction)> = order.into_iter().zip(predictions.drain(..)).collect();
        keyed.sort_by_key(|(key, _)| *key);
        let shuffled: Vec<Prediction> = keyed.into_iter().map(|(_, prediction)| prediction).collect();
        prop_assert_eq!(&one, &run(&shuffled, 1));
        prop_assert_eq!(&one, &run(&shuffled, 3));
    }
}

type Merged =
    (BTreeMap<(EventTime, i64, String, String, Segment, u8), Summary>, BTreeMap<(EventTime, i64, String), ArmCounts>);

/// Merges all windows of all partitions like the analyzer.
fn merged(windows: &[WindowClosed]) -> Merged {
    let (mut cells, mut arms): Merged = Default::default();
    for window in windows {
        for cell in &window.cells {
            let summary = Summary::decode(&cell.summary).unwrap();
            let key = (
                window.end,
                window.maturity.0,
                cell.arm.as_str().to_owned(),
                cell.metric.clone(),
                cell.segment.clone(),
                summary.kind() as u8,
            );
            cells.entry(key).and_modify(|sum| sum.merge(&summary).unwrap()).or_insert(summary);
        }
        for counts in &window.arms {
            let key = (window.end, window.maturity.0, counts.arm.as_str().to_owned());
            let sum = arms.entry(key).or_insert(ArmCounts { predictions: 0, errors: 0, labelled: 0, ..counts.clone() });
            sum.predictions += counts.predictions;
            sum.errors += counts.errors;
            sum.labelled += counts.labelled;
        }
    }
    (cells, arms)
}
