//! Tests every kind of metric through the whole pipeline, from events to the decision, and recomputes the verdicts from the
//! recorded windows.

use std::collections::BTreeMap;

use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use serin_rollout::Outcome;
use serin_schemas::{
    codec,
    ids::{EventTime, Span},
    records::{Arm, Assignment, Feedback, Heartbeat, MetricResult, Origin, Prediction, Verdict, Writer},
};
use serin_stream::{
    fold::FoldFactory as _,
    record::{Record, TopicPartition},
};

use crate::{in_process::InProcess, replay::Verifier};

const SPEC: &str = "
apiVersion: serin.dev/v1
kind: Rollout
model: assistant
stable: {version: '1'}
canary: {version: '2'}
warmup: {minEvents: 3000}
steps:
  - {weight: 20%, bake: {min: 1m, max: 30m}, require: pass}
segments:
  - {name: site, source: {header: x-site}, top: 2}
outputs:
  - {name: score, source: {json: /score}, min: 0, max: 1}
  - {name: tokens, source: {json: /tokens}, min: 0}
  - {name: tool_calls, source: {json: /calls}, min: 0}
  - {name: topic, kind: class, source: {json: /topic}}
groups:
  - {name: cost}
metrics:
  - {name: error_rate, kind: rate, source: error, limit: {pass: 0.05, fail: 0.08}}
  - {name: error_types, kind: classes, source: error, margin: {absolute: 0.05}}
  - {name: statuses, kind: classes, source: status, margin: {absolute: 0.05}}
  - {name: invalid_output, kind: rate, source: invalid_output, margin: {absolute: 0.03}, segments: [site]}
  - {name: score, kind: {mean: {min: 0, max: 1}}, source: {output: score}, direction: higher_is_better, margin: {relative: 0.1}}
  - {name: tokens, kind: {capped_mean: {cap: 1000}}, source: {output: tokens}, margin: {relative: 0.2}, group: cost}
  - {name: tool_calls, kind: count, source: {output: tool_calls}, margin: {relative: 0.2}, group: cost}
  - {name: latency_p90, kind: {quantile: {level: 0.9}}, source: latency, margin: {relative: 0.3}}
  - {name: score_shape, kind: distribution, source: {output: score}, margin: {absolute: 0.15}, role: score}
  - {name: topics, kind: classes, source: {class: {output: topic}}, margin: {absolute: 0.05}}
  - {name: wrong_topic, kind: rate, source: {wrong_class: {output: topic, label: topic}}, maturity: 20s, margin: {absolute: 0.05}}
  - {name: copies, kind: count, source: {feedback: copied}, maturity: 20s, whenMissing: zero, direction: higher_is_better,
     margin: {relative: 0.3}}
  - {name: other_topic, kind: disagreement, source: {class: {output: topic}}, limit: {pass: 0.1, fail: 0.15}}
";

/// A rollout with random calls.
struct World {
    folds: InProcess,
    dice: ChaCha8Rng,
    /// The metric that the canary harms.
    harm: &'static str,
    now: EventTime,
    seq: i64,
    verdicts: Vec<Verdict>,
}

impl World {
    fn new(harm: &'static str) -> Self {
        let spec = serin_rollout::parse_yaml(SPEC).unwrap().normalized();
        let mut folds = InProcess::new(spec.model.clone(), serin_aggregator::Config::default()).unwrap();
        folds.apply(&spec).unwrap();
        let (dice, now) = (ChaCha8Rng::seed_from_u64(7), EventTime::from_secs(1_700_000_000));
        Self { folds, dice, harm, now, seq: 0, verdicts: Vec::new() }
    }

    fn writer(&mut self) -> Writer {
        self.seq += 1;
        Writer { name: "router".to_owned(), incarnation: 1, seq: self.seq }
    }

    fn chance(&mut self, p: f64) -> bool {
        self.dice.random::<f64>() < p
    }

    fn answer(&mut self, request: i64, arm: Arm, version: &str) -> Prediction {
        let trial = matches!(arm, Arm::Canary | Arm::Shadow);
        let harms = |metric: &str| trial && self.harm == metric;
        let (rate, kinds, status) = (harms("error_rate"), harms("error_types"), harms("statuses"));
        let (invalid, score, shape) = (harms("invalid_output"), harms("score"), harms("score_shape"));
        let (tokens, calls, latency) = (harms("tokens"), harms("tool_calls"), harms("latency_p90"));
        let (topics, other) = (harms("topics"), harms("other_topic"));
        let mut error = self.chance(if rate { 0.2 } else { 0.02 }).then(|| "timeout".to_owned());
        if kinds && self.chance(0.02) {
            error = Some("gpu_lost".to_owned());
        }
        let redirected = status && self.chance(0.02);
        let spread: f64 = (0..4).map(|_| self.dice.random::<f64>()).sum::<f64>() / 4.0;
        let spread = if shape && self.chance(0.5) { if self.chance(0.5) { 0.05 } else { 0.95 } } else { spread };
        let longer = -(1.0 - self.dice.random::<f64>()).ln();
        let topic = if topics && self.chance(0.3) {
            "refusal"
        } else {
            ["billing", "travel", "code"][usize::try_from(request % 3).unwrap()]
        };
        // Both versions usually give the same answer to one call.
        let topic = if arm == Arm::Shadow && self.chance(if other { 0.4 } else { 0.03 }) { "other" } else { topic };
        let table = self.folds.table().unwrap();
        let (model, rollout, generation) = (table.model.clone(), table.rollout.clone(), table.generation);
        let outputs = [
            ("score".to_owned(), if score { 0.6 * spread } else { spread }),
            ("tokens".to_owned(), 200.0 * longer * if tokens { 2.0 } else { 1.0 }),
            ("tool_calls".to_owned(), f64::from(u8::from(self.chance(0.5))) * if calls { 2.0 } else { 1.0 }),
        ];
        Prediction {
            request_id: request.to_string().into(),
            model,
            version: version.into(),
            arm,
            assignment: Assignment::Random,
            origin: Origin::Router,
            rollout,
            generation,
            completed_at: self.now,
            latency_us: Some((50_000.0 * (1.0 + longer) * if latency { 2.0 } else { 1.0 }) as i64),
            status: if error.is_some() { None } else { Some(if redirected { 418 } else { 200 }) },
            error,
            invalid_output: self.chance(if invalid { 0.15 } else { 0.01 }).then(|| "nan".to_owned()),
            outcome: None,
            unread: None,
            batch: None,
            unit: None,
            outputs: outputs.into(),
            classes: [("topic".to_owned(), topic.to_owned())].into(),
            segments: [("site".to_owned(), ["eu", "us", "jp"][self.dice.random_range(0..3)].to_owned())].into(),
            writer: self.writer(),
        }
    }

    /// A call: the live answer, for some calls a mirrored one, and the feedback.
    fn call(&mut self, request: i64) {
        self.now = self.now.plus(Span(10_000));
        let bucket = self.dice.random_range(0..10_000);
        let mut low = 0;
        let routes: Vec<_> = self.folds.table().unwrap().routes.clone();
        let route = routes.iter().rev().find(|route| {
            low += route.share;
            bucket < low
        });
        let (arm, version) = route.map(|route| (route.arm, route.version.clone())).unwrap();
        let live = self.answer(request, arm, version.as_str());
        self.folds.event(&request.to_string(), &live).unwrap();
        if arm == Arm::Control && request % 4 == 0 {
            let mirrored = self.answer(request, Arm::Shadow, "2");
            self.folds.event(&request.to_string(), &mirrored).unwrap();
        }
        let wrong = if arm == Arm::Canary && self.harm == "wrong_topic" { 0.4 } else { 0.1 };
        let truth = if self.chance(wrong) { "something else".to_owned() } else { live.classes["topic"].clone() };
        let copied = if arm == Arm::Canary && self.harm == "copies" { 0.2 } else { 0.6 };
        let values = self.chance(copied).then(|| ("copied".to_owned(), 2.0)).into_iter().collect();
        let feedback = Feedback {
            request_id: request.to_string().into(),
            observed_at: self.now,
            revision: 0,
            values,
            classes: [("topic".to_owned(), truth)].into(),
            writer: self.writer(),
            credential: None,
        };
        self.folds.event(&request.to_string(), &feedback).unwrap();
    }

    /// Plays the rollout to its end.
    fn play(mut self) -> Self {
        let mut request = 0;
        while self.folds.state().unwrap().ending.is_none() {
            for _ in 0..1000 {
                request += 1;
                self.call(request);
            }
            let writer = Writer { name: "router".to_owned(), incarnation: 1, seq: self.seq };
            let heartbeat = Heartbeat {
                writer,
                low_watermark: self.now,
                drops: vec![],
                leaving: false,
                sent_at: None,
                relay: false,
            };
            self.folds.event("", &heartbeat).unwrap();
            self.folds.run_until_quiet().unwrap();
            self.verdicts.extend(self.folds.take_verdicts());
            assert!(request < 200_000, "it never ends: {:#?}", self.verdicts.last());
        }
        self
    }

    fn outcome(&self) -> Outcome {
        self.folds.state().unwrap().ending.as_ref().unwrap().outcome
    }
}

/// Recomputes the verdicts from the log.
fn verify(world: &World) {
    let analyzer = serin_analyzer::AnalyzerFactory::new(serin_analyzer::Config::default(), 1);
    let mut verifier = Verifier::new(0, analyzer.fold(0)).unwrap();
    let record = |(offset, outgoing): (i64, &serin_stream::record::Outgoing)| Record {
        at: TopicPartition::new(outgoing.topic, 0),
        offset,
        timestamp_ms: 0,
        key: outgoing.key.clone(),
        value: outgoing.value.clone(),
        headers: outgoing.headers.clone(),
    };
    let of = |topic| (0..).zip(world.folds.tape.iter().filter(move |out| out.topic == topic)).map(record);
    for verdict in of(serin_topology::VERDICTS) {
        verifier.recorded(&verdict).unwrap();
    }
    for window in of(serin_topology::WINDOWS) {
        verifier.window(&window).unwrap();
    }
    let found = verifier.finish();
    assert!(found.holds() && found.equal as usize == world.verdicts.len(), "{found:?}");
}

#[test]
fn an_equal_version_passes_every_kind_of_metric() {
    let world = World::new("").play();
    assert_eq!(world.outcome(), Outcome::Promoted);
    let last = world.verdicts.iter().rev().find(|verdict| !verdict.metrics.is_empty()).unwrap();
    for metric in last.metrics.iter().filter(|metric| metric.segment.is_all()) {
        assert_eq!(metric.result, MetricResult::Pass, "{metric:#?}");
        assert!(metric.canary.n > 100 && !metric.sentence.is_empty(), "{metric:#?}");
    }
    assert_eq!((last.groups[0].result, last.groups[0].group.as_str()), (MetricResult::Pass, "cost"));
    // A verdict can be encoded and decoded without loss.
    let body = codec::encode(last).unwrap();
    assert_eq!(codec::decode::<Verdict>(<Verdict as codec::Record>::VERSION, &body).unwrap(), *last);
    verify(&world);
}

#[test]
fn harm_of_every_kind_rolls_back_and_is_named() {
    let harms = [
        "error_rate",
        "error_types",
        "statuses",
        "invalid_output",
        "score",
        "tokens",
        "tool_calls",
        "latency_p90",
        "score_shape",
        "topics",
        "wrong_topic",
        "copies",
        "other_topic",
    ];
    let mut sentences = BTreeMap::new();
    for harm in harms {
        let world = World::new(harm).play();
        assert_eq!(world.outcome(), Outcome::Evidence, "{harm}: {:#?}", world.verdicts.last());
        let ending = world.folds.state().unwrap().ending.clone().unwrap();
        let own = ending.reasons.iter().find(|reason| reason.metric == harm);
        let own = own.unwrap_or_else(|| panic!("{harm} is not among {:#?}", ending.reasons));
        sentences.insert(harm, own.sentence.clone());
        verify(&world);
    }
    for (harm, new) in [("error_types", "gpu_lost"), ("statuses", "418"), ("topics", "refusal")] {
        let sentence = &sentences[harm];
        assert!(sentence.contains(&format!(": {new} (never seen in control)")), "{harm}: {sentence}");
    }
}
