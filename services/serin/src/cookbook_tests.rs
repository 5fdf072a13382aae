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

/// Time between two payments.
const BETWEEN: Span = Span(300_000);
/// How long after a payment its label arrives.
const LABEL_AFTER: Span = Span(3 * 3_600_000_000);

/// A payment service in which one country in three has a broken canary, if any.
struct Payments {
    folds: InProcess,
    dice: ChaCha8Rng,
    now: EventTime,
    seq: i64,
    /// Share of the frauds that the canary blocks in Germany, and share of the good payments that it blocks anywhere.
    canary: (f64, f64),
    labels: VecDeque<(EventTime, i64, f64)>,
}

impl Payments {
    fn new(canary: (f64, f64)) -> Self {
        let spec = serin_rollout::parse_yaml(FRAUD).unwrap().normalized();
        let mut folds = InProcess::new(spec.model.clone(), serin_aggregator::Config::default()).unwrap();
        folds.apply(&spec).unwrap();
        let now = EventTime::from_secs(1_700_000_000);
        Self { folds, dice: ChaCha8Rng::seed_from_u64(11), now, seq: 0, canary, labels: VecDeque::new() }
    }

    fn writer(&mut self) -> Writer {
        self.seq += 1;
        Writer { name: "router".to_owned(), incarnation: 1, seq: self.seq }
    }

    fn pay(&mut self, id: i64) {
        self.now = self.now.plus(BETWEEN);
        let bucket = self.dice.random_range(0..10_000);
        let table = self.folds.table().unwrap();
        let (rollout, generation) = (table.rollout.clone(), table.generation);
        let mut low = 0;
        let route = table.routes.iter().rev().find(|route| {
            low += route.share;
            bucket < low
        });
        let (arm, version) = route.map(|route| (route.arm, route.version.clone())).unwrap();
        let country = ["DE", "FR", "PL"][self.dice.random_range(0..3)];
        let fraud = self.dice.random::<f64>() < 0.1;
        let (recall, false_positives) = match arm {
            Arm::Canary if country == "DE" => self.canary,
            Arm::Canary => (0.8, self.canary.1),
            _ => (0.8, 0.01),
        };
        let blocked = self.dice.random::<f64>() < if fraud { recall } else { false_positives };
        let score = if blocked { 0.9 } else { 0.05 };
        let prediction = Prediction {
            request_id: id.to_string().into(),
            model: "fraud".into(),
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
            outputs: [("score".to_owned(), score)].into(),
            classes: [("decision".to_owned(), if blocked { "block" } else { "pass" }.to_owned())].into(),
            segments: [("country".to_owned(), country.to_owned())].into(),
            writer: self.writer(),
        };
        self.folds.event(&id.to_string(), &prediction).unwrap();
        self.labels.push_back((self.now.plus(LABEL_AFTER), id, f64::from(u8::from(fraud))));
        while let Some((at, id, fraud)) = self.labels.front().copied().filter(|(at, ..)| *at <= self.now) {
            self.labels.pop_front();
            let feedback = Feedback {
                request_id: id.to_string().into(),
                observed_at: at,
                revision: 0,
                values: [("fraud".to_owned(), fraud)].into(),
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
                self.pay(id);
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

#[test]
fn a_fraud_model_that_is_as_good_is_promoted() {
    assert_eq!(Payments::new((0.8, 0.01)).play(), (Outcome::Promoted, Vec::new()));
}

#[test]
fn recall_that_falls_in_one_country_rolls_back_and_is_named() {
    let (outcome, reasons) = Payments::new((0.3, 0.01)).play();
    assert_eq!(outcome, Outcome::Evidence);
    assert!(reasons.contains(&("recall".to_owned(), Segment::of("country", "DE"))), "{reasons:?}");
}

#[test]
fn good_payments_that_are_blocked_roll_back() {
    let (outcome, reasons) = Payments::new((0.8, 0.06)).play();
    assert_eq!(outcome, Outcome::Evidence);
    assert!(reasons.iter().all(|(metric, _)| metric == "false_positive_rate"), "{reasons:?}");
}
