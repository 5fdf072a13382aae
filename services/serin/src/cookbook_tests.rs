//! The examples of docs/cookbook.md, played through the whole pipeline: calls in, labels hours later, the decision out.

use std::collections::VecDeque;

use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use serin_rollout::Outcome;
use serin_schemas::{
    ids::{EventTime, Span},
    records::{Arm, Assignment, Feedback, Heartbeat, Origin, Prediction, Segment, Writer},
};

use crate::in_process::InProcess;

const FRAUD: &str = include_str!("../../../examples/fraud.yaml");
const RANKING: &str = include_str!("../../../examples/ranking.yaml");

/// Time between two calls.
const BETWEEN: Span = Span(300_000);
/// How long after a call its label arrives.
const LABEL_AFTER: Span = Span(3 * 3_600_000_000);

/// What a model answers to one call, and the label that follows.
struct Answer {
    /// Name and value of the segment.
    segment: (&'static str, &'static str),
    outputs: Vec<(&'static str, f64)>,
    classes: Vec<(&'static str, String)>,
    label: (String, f64),
}

/// A service whose calls are answered by one of two versions.
struct Service<A> {
    folds: InProcess,
    dice: ChaCha8Rng,
    now: EventTime,
    seq: i64,
    /// What the version of an arm answers.
    answer: A,
    labels: VecDeque<(EventTime, i64, (String, f64))>,
}

impl<A: FnMut(&mut ChaCha8Rng, Arm) -> Answer> Service<A> {
    fn new(rollout: &str, answer: A) -> Self {
        let spec = serin_rollout::parse_yaml(rollout).unwrap().normalized();
        let mut folds = InProcess::new(spec.model.clone(), serin_aggregator::Config::default()).unwrap();
        folds.apply(&spec).unwrap();
        let now = EventTime::from_secs(1_700_000_000);
        Self { folds, dice: ChaCha8Rng::seed_from_u64(11), now, seq: 0, answer, labels: VecDeque::new() }
    }

    fn writer(&mut self) -> Writer {
        self.seq += 1;
        Writer { name: "router".to_owned(), incarnation: 1, seq: self.seq }
    }

    fn call(&mut self, id: i64) {
        self.now = self.now.plus(BETWEEN);
        let bucket = self.dice.random_range(0..10_000);
        let table = self.folds.table().unwrap();
        let (model, rollout, generation) = (table.model.clone(), table.rollout.clone(), table.generation);
        let mut low = 0;
        let route = table.routes.iter().rev().find(|route| {
            low += route.share;
            bucket < low
        });
        let (arm, version) = route.map(|route| (route.arm, route.version.clone())).unwrap();
        let Answer { segment: (dimension, value), outputs, classes, label } = (self.answer)(&mut self.dice, arm);
        let prediction = Prediction {
            request_id: id.to_string().into(),
            model,
            version,
            arm,
            assignment: Assignment::Random,
            origin: Origin::Router,
            rollout,
            generation,
            completed_at: self.now,
            latency_us: Some(5_000),
            status: Some(200),
            error: None,
            invalid_output: None,
            outcome: None,
            unread: None,
            batch: None,
            unit: None,
            outputs: outputs.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
            classes: classes.into_iter().map(|(name, class)| (name.to_owned(), class)).collect(),
            segments: [(dimension.to_owned(), value.to_owned())].into(),
            writer: self.writer(),
        };
        self.folds.event(&id.to_string(), &prediction).unwrap();
        self.labels.push_back((self.now.plus(LABEL_AFTER), id, label));
        while let Some((at, id, label)) = self.labels.pop_front_if(|(at, ..)| *at <= self.now) {
            let feedback = Feedback {
                request_id: id.to_string().into(),
                observed_at: at,
                revision: 0,
                values: [label].into(),
                classes: [].into(),
                writer: self.writer(),
                credential: None,
            };
            self.folds.event(&id.to_string(), &feedback).unwrap();
        }
    }

    /// Plays to the end of the rollout. Returns how it ended, and the metrics and segments that failed.
    fn play(mut self) -> (Outcome, Vec<(String, Segment)>) {
        let mut id = 0;
        loop {
            for _ in 0..500 {
                id += 1;
                self.call(id);
            }
            let heartbeat = Heartbeat {
                writer: Writer { name: "router".to_owned(), incarnation: 1, seq: self.seq },
                low_watermark: self.now,
                drops: vec![],
                leaving: false,
                sent_at: None,
                relay: false,
            };
            self.folds.event("", &heartbeat).unwrap();
            self.folds.run_until_quiet().unwrap();
            self.folds.take_verdicts();
            if let Some(ending) = &self.folds.state().unwrap().ending {
                let reasons = ending.reasons.iter();
                return (
                    ending.outcome,
                    reasons.map(|reason| (reason.metric.clone(), reason.segment.clone())).collect(),
                );
            }
            assert!(id < 1_000_000, "the rollout does not end: {:?}", self.folds.state().unwrap().sentence);
        }
    }
}

/// A payment service. `canary` is the share of the frauds that the canary blocks in Germany, and the share of the good payments that it
/// blocks anywhere.
fn payments(canary: (f64, f64)) -> (Outcome, Vec<(String, Segment)>) {
    let pay = move |dice: &mut ChaCha8Rng, arm| {
        let country = ["DE", "FR", "PL"][dice.random_range(0..3)];
        let fraud = dice.random::<f64>() < 0.1;
        let (recall, false_positives) = match arm {
            Arm::Canary if country == "DE" => canary,
            Arm::Canary => (0.8, canary.1),
            _ => (0.8, 0.01),
        };
        let blocked = dice.random::<f64>() < if fraud { recall } else { false_positives };
        Answer {
            segment: ("country", country),
            outputs: vec![("score", if blocked { 0.9 } else { 0.05 })],
            classes: vec![("decision", if blocked { "block" } else { "pass" }.to_owned())],
            label: ("fraud".to_owned(), f64::from(u8::from(fraud))),
        }
    };
    Service::new(FRAUD, pay).play()
}

#[test]
fn a_fraud_model_that_is_as_good_is_promoted() {
    assert_eq!(payments((0.8, 0.01)), (Outcome::Promoted, Vec::new()));
}

#[test]
fn recall_that_falls_in_one_country_rolls_back_and_is_named() {
    let (outcome, reasons) = payments((0.3, 0.01));
    assert_eq!(outcome, Outcome::Evidence);
    assert!(reasons.contains(&("recall".to_owned(), Segment::of("country", "DE"))), "{reasons:?}");
}

#[test]
fn good_payments_that_are_blocked_roll_back() {
    let (outcome, reasons) = payments((0.8, 0.06));
    assert_eq!(outcome, Outcome::Evidence);
    assert!(reasons.iter().all(|(metric, _)| metric == "false_positive_rate"), "{reasons:?}");
}

/// A recommendation service. With `broken`, the canary puts the item that a guest books anywhere if the city is Rome.
fn recommendations(broken: bool) -> (Outcome, Vec<(String, Segment)>) {
    let recommend = move |dice: &mut ChaCha8Rng, arm| {
        let city = ["Oslo", "Paris", "Rome"][dice.random_range(0..3)];
        let booked = match dice.random_range(0..10) {
            _ if broken && arm == Arm::Canary && city == "Rome" => dice.random_range(0..10),
            0..5 => 0,
            5..8 => 1,
            _ => dice.random_range(2..10),
        };
        let ids: Vec<String> = (0..10).map(|place| format!("hotel-{place}")).collect();
        Answer {
            segment: ("city", city),
            outputs: vec![],
            classes: vec![("hotels", ids.join("\n"))],
            label: (format!("booked/hotel-{booked}"), 1.0),
        }
    };
    Service::new(RANKING, recommend).play()
}

#[test]
fn a_ranking_that_is_as_good_is_promoted() {
    assert_eq!(recommendations(false), (Outcome::Promoted, Vec::new()));
}

#[test]
fn a_ranking_that_is_worse_in_one_city_rolls_back_and_is_named() {
    let (outcome, reasons) = recommendations(true);
    assert_eq!(outcome, Outcome::Evidence);
    assert!(reasons.contains(&("ndcg_at_10".to_owned(), Segment::of("city", "Rome"))), "{reasons:?}");
}
