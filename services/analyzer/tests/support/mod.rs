//! A small aggregator in memory: synthetic answers become partial windows, which the analyzer's fold judges.

#![allow(dead_code, reason = "each test file uses its own part")]
#![expect(clippy::unwrap_used, reason = "a panic fails the test")]

pub(crate) mod labels;
mod traffic;

use bytes::Bytes;
use serin_analyzer::{AnalyzerFactory, Config};
use serin_schemas::{
    codec::{Record as Schema, decode, encode},
    envelope::{self, Envelope},
    ids::{EventTime, Generation, Span},
    records::{ClosedThrough, Control, Decision, MetricVerdict, Phase, Segment, Verdict, WindowClosed},
};
use serin_spec::{Frozen, RolloutSpec};
use serin_stream::{
    driver::{Applied, FoldDriver},
    fold::FoldFactory,
    record::{Outgoing, Record},
};

pub(crate) const WINDOW: Span = Span(10_000_000);
pub(crate) const MATURITY: Span = Span(60_000_000);
pub(crate) const PARTITIONS: i32 = 3;
pub(crate) const START: EventTime = EventTime(1_700_000_000_000_000);

/// `SplitMix64` (Steele, Lea, Flood 2014).
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1_u64 << 53) as f64
    }

    pub(crate) fn chance(&mut self, p: f64) -> bool {
        self.unit() < p
    }

    /// Approximately normal: the sum of twelve uniforms.
    pub(crate) fn normal(&mut self) -> f64 {
        (0..12).map(|_| self.unit()).sum::<f64>() - 6.0
    }
}

/// What happens to the calls of an attacker.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Fate {
    /// They fail, after a long time.
    Fails,
    /// They are refused.
    Refused,
    /// The caller cancels them before the answer starts.
    Leaves,
    /// The caller cancels them in the middle of the answer.
    LeavesMidway,
    /// Their answers are not read.
    Unread,
    /// Their answers have no score.
    Scoreless,
}

/// How one version behaves.
#[derive(Clone, Copy)]
pub(crate) struct Version {
    pub(crate) error: f64,
    /// Error rate for `origin=LGA`, if it differs.
    pub(crate) error_lga: Option<f64>,
    pub(crate) latency_ms: f64,
    /// Share of answers that take three times as long.
    pub(crate) slow: f64,
    pub(crate) score: f64,
    pub(crate) wrong: f64,
}

pub(crate) const HEALTHY: Version =
    Version { error: 0.01, error_lga: None, latency_ms: 20.0, slow: 0.0, score: 0.6, wrong: 0.2 };

pub(crate) const SPEC: &str = r#"{
  "apiVersion": "serin.dev/v1", "kind": "Rollout", "model": "flights",
  "stable": {"version": "v1"}, "canary": {"version": "v2"},
  "window": "10s", "warmup": {"minEvents": 3000},
  "steps": [
    {"weight": "5%", "bake": {"min": "1m", "max": "10m"}, "require": "no_fail"},
    {"weight": "25%", "bake": {"min": "1m", "max": "20m"}, "require": "pass"}
  ],
  "segments": [{"name": "origin", "source": {"input": "origin"}, "top": 2}],
  "metrics": [
    {"name": "error_rate", "kind": "rate", "source": "error", "margin": {"absolute": 0.01}, "segments": ["origin"]},
    {"name": "latency_p99", "kind": {"quantile": {"level": 0.99}}, "source": "latency", "margin": {"relative": 0.2}},
    {"name": "score", "kind": {"mean": {"min": 0, "max": 1}}, "source": {"output": "probability"},
     "direction": "higher_is_better", "margin": {"relative": 0.05}, "role": "score"},
    {"name": "wrong", "kind": "rate", "source": {"wrong": {"output": "probability", "label": "late"}},
     "margin": {"absolute": 0.05}, "maturity": "60s", "segments": ["origin"]},
    {"name": "slow_watch", "kind": {"mean": {"min": 0, "max": 1000}}, "source": "latency",
     "margin": {"relative": 0.1}, "role": "watch"}
  ]
}"#;

pub(crate) fn spec() -> RolloutSpec {
    serde_json::from_str(SPEC).unwrap()
}

pub(crate) fn harness() -> FoldDriver {
    FoldDriver::new(|| AnalyzerFactory::new(Config::default(), 1).fold(0)).unwrap()
}

/// What all calls of a user have in common.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PerUser {
    /// Each user labels either all answers or none.
    pub(crate) own_labels: bool,
    /// All calls of a user have the same fate.
    pub(crate) alike: bool,
    /// Windows contain the counts per bucket of units.
    pub(crate) by_unit: bool,
}

/// A rollout with its traffic: writes the records of `windows` and reads the verdicts.
pub(crate) struct World {
    pub(crate) harness: FoldDriver,
    pub(crate) dice: Dice,
    pub(crate) stable: Version,
    pub(crate) canary: Version,
    /// Answers per window.
    pub(crate) traffic: u64,
    spec: String,
    rollout: String,
    pub(crate) control: Control,
    /// End of the last window.
    pub(crate) now: EventTime,
    /// Label windows that are still open: (when they close, parts).
    labels: Vec<(EventTime, Vec<WindowClosed>)>,
    /// Everything that was fed, for replays.
    pub(crate) tape: Vec<Record>,
    pub(crate) verdicts: Vec<Verdict>,
    pub(crate) commit_each: bool,
    /// Share of answers that get a label: canary, others.
    pub(crate) labelled: [f64; 2],
    /// What all calls of a user have in common.
    pub(crate) per_user: PerUser,
    /// Share of calls that their callers cancel: canary, others.
    pub(crate) cancelled: [f64; 2],
    /// Whether callers cancel in the middle of the answer.
    pub(crate) leave_midway: bool,
    /// Share of calls that are refused: canary, others.
    pub(crate) refused: [f64; 2],
    /// Share of answers that are not read: canary, others.
    pub(crate) unread: [f64; 2],
    /// Share of answers without a score: canary, others.
    pub(crate) scoreless: [f64; 2],
    /// Share of canary answers that are lost before they are counted.
    pub(crate) leak: f64,
    /// Late events per arm (canary, control) in each window.
    pub(crate) late: [i64; 2],
    /// The number of users, where a key assigns the arm.
    pub(crate) users: Option<u64>,
    /// Share of all canary answers that come from `LGA` instead of `JFK`.
    pub(crate) skew: f64,
    /// Number of users of one arm who make calls of which all have the same fate on both versions, and their calls per window.
    pub(crate) attack: (u64, u64),
    /// The fate of these calls.
    pub(crate) fate: Fate,
    /// Whether the users are those of stable instead of the canary.
    pub(crate) attacks_stable: bool,
    /// With external traffic: answers of users whose number is below this name no unit.
    pub(crate) nameless: u64,
    /// Share of the canary's answers that name no unit.
    pub(crate) nameless_canary: f64,
}

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        Self::with_spec(seed, SPEC)
    }

    pub(crate) fn with_spec(seed: u64, spec: &str) -> Self {
        let control = Control {
            model: "flights".into(),
            rollout: "0198-r1".into(),
            generation: Generation(1),
            phase: Phase::Warming,
            step: -1,
            stable: "v1".into(),
            canary: "v2".into(),
            canary_share: 0,
            control_share: 0,
            decided_at: START,
            spec: spec.to_owned(),
            frozen: None,
            rules: serin_schemas::records::RULES,
            acknowledged: None,
        };
        Self {
            harness: harness(),
            dice: Dice(seed),
            stable: HEALTHY,
            canary: HEALTHY,
            traffic: 2000,
            spec: spec.to_owned(),
            rollout: "0198-r1".to_owned(),
            control,
            now: START,
            labels: Vec::new(),
            tape: Vec::new(),
            verdicts: Vec::new(),
            commit_each: true,
            labelled: [0.95, 0.95],
            per_user: PerUser { own_labels: false, alike: true, by_unit: true },
            cancelled: [0.0; 2],
            leave_midway: false,
            refused: [0.0; 2],
            unread: [0.0; 2],
            scoreless: [0.0; 2],
            leak: 0.0,
            late: [0, 0],
            users: None,
            skew: 0.0,
            attack: (0, 0),
            fate: Fate::Fails,
            attacks_stable: false,
            nameless: 0,
            nameless_canary: 0.0,
        }
    }

    pub(crate) fn send<R: Schema>(&mut self, value: &R) -> Applied {
        let envelope = Envelope { id: "1", source: "/test", subject: "", time: EventTime(0) };
        let body = Bytes::from(encode(value).unwrap());
        let record = self.harness.record("windows", 0, 0, "flights", envelope::headers::<R>(&envelope), Some(body));
        self.feed(record)
    }

    fn feed(&mut self, record: Record) -> Applied {
        let applied = self.harness.apply(&record).unwrap();
        self.tape.push(record);
        if applied.commit_now && self.commit_each {
            self.commit();
        }
        applied
    }

    pub(crate) fn commit(&mut self) {
        let out = self.harness.commit().unwrap();
        self.verdicts.extend(out.iter().map(verdict));
    }

    /// Writes the current control record as a new generation.
    pub(crate) fn turn(&mut self, phase: Phase, step: i32, canary: i32, control: i32) {
        self.control = Control {
            generation: if self.tape.is_empty() { Generation(1) } else { self.control.generation.next() },
            phase,
            step,
            canary_share: canary,
            control_share: control,
            decided_at: self.now,
            ..self.control.clone()
        };
        let record = self.control.clone();
        assert_eq!(self.send(&record).poison, None);
    }

    /// Starts, warms up and freezes; the canary is at step 0 with 5 % against 50 % of control.
    pub(crate) fn bake(&mut self) -> Frozen {
        self.turn(Phase::Warming, -1, 0, 0);
        let frozen = loop {
            self.window();
            let verdict = self.last();
            if let Some(frozen) = verdict.frozen.clone() {
                assert_eq!((verdict.decision, verdict.step), (Decision::Promote, -1));
                break frozen;
            }
            assert_eq!(verdict.decision, Decision::Continue);
            assert!(self.now.since(START) < Span::from_secs(600), "warm-up never ends");
        };
        self.control.frozen = Some(frozen.clone());
        self.turn(Phase::Baking, 0, 500, 5000);
        serde_json::from_str(&frozen).unwrap()
    }

    pub(crate) fn last(&self) -> &Verdict {
        self.verdicts.last().unwrap()
    }

    pub(crate) fn metric(&self, metric: &str, segment: &Segment) -> &MetricVerdict {
        let found = self.last().metrics.iter().find(|m| m.metric == metric && &m.segment == segment);
        found.unwrap()
    }

    /// Runs whole windows until the decision is made or `most` windows have passed.
    pub(crate) fn until(&mut self, decision: Decision, most: usize) -> Option<usize> {
        (1..=most).find(|_| {
            self.window();
            self.last().decision == decision
        })
    }

    /// One window of traffic, written by all partitions.
    pub(crate) fn window(&mut self) {
        let parts = self.draw();
        for part in parts {
            assert_eq!(self.send(&part).poison, None);
        }
        self.close(self.now);
    }

    /// One window of traffic that a writer has not reported on.
    pub(crate) fn window_without(&mut self, writer: &str) {
        for part in self.draw() {
            assert_eq!(self.send(&part).poison, None);
        }
        for partition in 0..PARTITIONS {
            let heard = ClosedThrough::heard(partition, PARTITIONS, self.now);
            let (heard_through, silent) = (Some(self.now.minus(WINDOW)), vec![writer.to_owned()]);
            assert_eq!(self.send(&ClosedThrough { heard_through, silent, ..heard }).poison, None);
        }
    }

    /// All partitions promise `through`.
    pub(crate) fn close(&mut self, through: EventTime) {
        for partition in 0..PARTITIONS {
            self.close_one(partition, through);
        }
    }

    pub(crate) fn close_one(&mut self, partition: i32, through: EventTime) {
        let closed = ClosedThrough::heard(partition, PARTITIONS, through);
        assert_eq!(self.send(&closed).poison, None);
    }
}

fn verdict(out: &Outgoing) -> Verdict {
    assert_eq!(out.topic, "verdicts");
    decode(<Verdict as Schema>::VERSION, out.value.as_ref().unwrap()).unwrap()
}
