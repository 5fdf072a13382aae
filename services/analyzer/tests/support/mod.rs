//! A small aggregator in memory: synthetic answers become partial windows, and the analyzer's fold judges them.

#![allow(dead_code, reason = "each test file uses its own part")]
#![expect(clippy::unwrap_used, reason = "a test may stop here")]

use std::collections::BTreeMap;

use bytes::Bytes;
use serin_analyzer::{AnalyzerFactory, Config};
use serin_rollout::{Frozen, RolloutSpec};
use serin_schemas::{
    codec::{Record as Schema, decode, encode},
    envelope::{self, Envelope},
    ids::{EventTime, Generation, Span},
    records::{
        Arm, ArmCounts, Cell, ClosedThrough, Control, Decision, MetricVerdict, Phase, Population, Segment, Verdict,
        WindowClosed,
    },
};
use serin_sketches::{Buckets, ByUnit, LinHist, LogHist, Rate, Summary, group_hash, hash::hash64};
use serin_stream::{
    fold::FoldFactory,
    record::{Outgoing, Record},
    testing::{Applied, FoldHarness},
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

    /// About normal: the sum of twelve uniforms.
    pub(crate) fn normal(&mut self) -> f64 {
        (0..12).map(|_| self.unit()).sum::<f64>() - 6.0
    }
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

pub(crate) fn harness() -> FoldHarness {
    FoldHarness::new(|| AnalyzerFactory::new(Config::default(), 1).fold(0)).unwrap()
}

type CellKey = (Arm, Segment, &'static str);

/// One partition's part of one stream's window in the making.
#[derive(Default)]
struct Part {
    cells: BTreeMap<CellKey, Summary>,
    arms: BTreeMap<Arm, ArmCounts>,
    population: BTreeMap<(Arm, Segment), i64>,
    /// What users add: sums, and of ranks their own summaries.
    units: BTreeMap<CellKey, Summary>,
}

impl Part {
    fn rate(&mut self, key: CellKey, event: bool) {
        let cell = self.cells.entry(key).or_insert(Summary::Rate(Rate::default()));
        let Summary::Rate(rate) = cell else { panic!("a rate") };
        rate.insert(event).unwrap();
    }

    fn sum(&mut self, key: CellKey, unit: u64, value: f64) {
        let unit = if key.1.is_all() { unit } else { group_hash(unit) };
        let cell = self.units.entry(key).or_insert_with(|| Summary::Buckets(Buckets::new()));
        let Summary::Buckets(sums) = cell else { panic!("sums") };
        sums.insert(unit, value, 1).unwrap();
    }

    fn of_unit(&mut self, key: CellKey, unit: u64, value: f64) {
        let cell = self.units.entry(key).or_insert_with(|| Summary::ByUnit(ByUnit::new()));
        let Summary::ByUnit(by_unit) = cell else { panic!("summaries of units") };
        by_unit.add(
            unit,
            || Summary::Log(LogHist::new()),
            |summary| {
                let Summary::Log(hist) = summary else { panic!("log") };
                hist.insert(value).unwrap();
            },
        );
    }

    fn log(&mut self, key: CellKey, value: f64) {
        let Summary::Log(hist) = self.cells.entry(key).or_insert(Summary::Log(LogHist::new())) else { panic!("log") };
        hist.insert(value).unwrap();
    }

    fn lin(&mut self, key: CellKey, value: f64, hash: u64) {
        let Summary::Lin(hist) = self.cells.entry(key).or_insert(Summary::Lin(LinHist::new())) else { panic!("lin") };
        hist.insert(value.clamp(0.0, 1.0), hash).unwrap();
    }

    fn counts(&mut self, arm: Arm) -> &mut ArmCounts {
        self.arms.entry(arm).or_insert_with(|| ArmCounts::none(arm))
    }
}

/// A rollout with its traffic: writes the records of `windows` and reads the verdicts.
pub(crate) struct World {
    pub(crate) harness: FoldHarness,
    pub(crate) dice: Dice,
    pub(crate) stable: Version,
    pub(crate) canary: Version,
    /// Answers per window.
    pub(crate) traffic: u64,
    pub(crate) spec: String,
    pub(crate) rollout: String,
    pub(crate) control: Control,
    /// End of the last window.
    pub(crate) now: EventTime,
    /// Label windows that wait: (when they close, parts).
    labels: Vec<(EventTime, Vec<WindowClosed>)>,
    /// Everything that was fed, for replays.
    pub(crate) tape: Vec<Record>,
    pub(crate) verdicts: Vec<Verdict>,
    pub(crate) commit_each: bool,
    /// Share of answers that get a label: canary, others.
    pub(crate) labelled: [f64; 2],
    /// Share of calls that the caller leaves: canary, others. So the next two.
    pub(crate) cancelled: [f64; 2],
    /// Share of calls that are refused: canary, others.
    pub(crate) refused: [f64; 2],
    /// Share of answers that are not looked into.
    pub(crate) unread: [f64; 2],
    /// Share of answers without a score.
    pub(crate) scoreless: [f64; 2],
    /// Share of canary answers that are lost before the count.
    pub(crate) leak: f64,
    /// Late events per arm (canary, control) in each window.
    pub(crate) late: [i64; 2],
    /// Where a key assigns the arm: how many users there are.
    pub(crate) users: Option<u64>,
    /// Share of all canary answers that come from `LGA` instead of `JFK`.
    pub(crate) skew: f64,
    /// So many users of the canary send so many calls each in every window that fail, slowly, on both versions.
    pub(crate) attack: (u64, u64),
    /// Somebody else splits the traffic: answers of users whose number is below this name no unit.
    pub(crate) nameless: u64,
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
            cancelled: [0.0; 2],
            refused: [0.0; 2],
            unread: [0.0; 2],
            scoreless: [0.0; 2],
            leak: 0.0,
            late: [0, 0],
            users: None,
            skew: 0.0,
            attack: (0, 0),
            nameless: 0,
        }
    }

    pub(crate) fn send<R: Schema>(&mut self, value: &R) -> Applied {
        let envelope = Envelope { id: "1", source: "/test", subject: "", time: EventTime(0) };
        let body = Bytes::from(encode(value).unwrap());
        let record = self.harness.record("windows", 0, 0, "flights", envelope::headers::<R>(&envelope), Some(body));
        self.feed(record)
    }

    pub(crate) fn feed(&mut self, record: Record) -> Applied {
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

    /// Writes the present control record as a new generation.
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

    /// Runs whole windows until the decision comes or `most` windows have passed.
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

    /// Moves time and draws the partial windows of stream 0; those of the labels are kept until they close.
    pub(crate) fn draw(&mut self) -> Vec<WindowClosed> {
        self.now = self.now.plus(WINDOW);
        let n = PARTITIONS as usize;
        let mut fast: Vec<Part> = (0..n).map(|_| Part::default()).collect();
        let mut slow: Vec<Part> = (0..n).map(|_| Part::default()).collect();
        for _ in 0..self.traffic {
            self.answer(&mut fast, &mut slow, None);
        }
        let (attackers, calls) = self.attack;
        let hash = |number: u64| hash64(b"user", &number.to_le_bytes());
        let own = (1 << 40..).filter(|&number| hash(number) % 10_000 < self.control.canary_share.max(0) as u64);
        let own: Vec<u64> = if calls > 0 { own.take(attackers as usize).collect() } else { Vec::new() };
        for number in own.into_iter().flat_map(|number| (0..calls).map(move |_| number)) {
            self.answer(&mut fast, &mut slow, Some(number));
        }
        for (arm, late) in [(Arm::Canary, self.late[0]), (Arm::Control, self.late[1])] {
            if late > 0 {
                fast[0].counts(arm).late = late;
            }
        }
        let end = self.now;
        let closes = end.plus(MATURITY);
        let slow = slow.into_iter().enumerate().map(|(p, part)| self.closed(p, end, MATURITY, part)).collect();
        self.labels.push((closes, slow));
        let mut parts: Vec<_> =
            fast.into_iter().enumerate().map(|(p, part)| self.closed(p, end, Span(0), part)).collect();
        while self.labels.first().is_some_and(|(closes, _)| *closes <= end) {
            parts.extend(self.labels.remove(0).1);
        }
        parts
    }

    fn closed(&self, partition: usize, end: EventTime, maturity: Span, part: Part) -> WindowClosed {
        let cell = |((arm, segment, metric), summary): (CellKey, Summary)| Cell {
            arm,
            segment,
            metric: metric.to_owned(),
            summary: summary.encode(),
        };
        let population =
            |((arm, segment), predictions): ((Arm, Segment), i64)| Population { arm, segment, predictions };
        WindowClosed {
            model: self.control.model.clone(),
            rollout: self.control.rollout.clone(),
            generation: self.control.generation,
            partition: partition as i32,
            end,
            length: WINDOW,
            maturity,
            cells: part.cells.into_iter().chain(part.units).map(cell).collect(),
            arms: part.arms.into_values().collect(),
            population: part.population.into_iter().map(population).collect(),
            rules: self.control.rules,
        }
    }

    /// One answer; that of an attacker fails.
    fn answer(&mut self, fast: &mut [Part], slow: &mut [Part], attacker: Option<u64>) {
        let dice = &mut self.dice;
        let number = attacker.or_else(|| self.users.map(|users| dice.bits() % users));
        let user = number.map(|number| hash64(b"user", &number.to_le_bytes()));
        let bucket = user.map_or_else(|| (dice.unit() * 1e4) as i32, |user| (user % 10_000) as i32);
        let (canary, control) = (self.control.canary_share, self.control.control_share);
        let arm = match bucket {
            bucket if bucket < canary => Arm::Canary,
            bucket if bucket < canary + control => Arm::Control,
            _ => Arm::Stable,
        };
        let version = if arm == Arm::Canary { self.canary } else { self.stable };
        // What is lost is lost for a user as a whole, where there are users.
        let lost = |dice: &mut Dice| match user {
            Some(user) => ((user >> 20) % 1000) as f64 / 1000.0 < self.leak,
            None => dice.chance(self.leak),
        };
        if arm == Arm::Canary && lost(dice) {
            return;
        }
        let origin = match dice.unit() {
            u if arm == Arm::Canary && u < self.skew => "LGA",
            u if u < 0.4 => "JFK",
            u if u < 0.7 => "LGA",
            u if u < 0.9 => "EWR",
            _ => "BOS",
        };
        let rate = version.error_lga.filter(|_| origin == "LGA").unwrap_or(version.error);
        let error = dice.chance(rate) || attacker.is_some();
        let slowed = if dice.chance(version.slow) { 3.0 } else { 1.0 };
        let patience = if attacker.is_some() { 50.0 } else { 1.0 };
        let latency = version.latency_ms * (0.25 * dice.normal()).exp() * slowed * patience;
        let score = version.score + 0.1 * dice.normal();
        let (hash, other_hash) = (dice.bits(), dice.bits());
        let labelled = dice.chance(self.labelled[usize::from(arm != Arm::Canary)]);
        let wrong = dice.chance(version.wrong);
        let partition = (dice.bits() % PARTITIONS as u64) as usize;
        // All of a user's calls go the same way, where there are users.
        let mut falls = |shares: [f64; 2], salt: u64| {
            let share = shares[usize::from(arm != Arm::Canary)];
            share > 0.0 && user.map_or_else(|| dice.unit(), |user| unit_of(user ^ salt)) < share
        };
        let refused = falls(self.refused, 4);
        let (left, unread, scoreless) = (falls(self.cancelled, 1), falls(self.unread, 2), falls(self.scoreless, 3));
        if left {
            fast[partition].counts(arm).cancelled += 1;
            if self.control.frozen.is_some() && arm != Arm::Stable {
                // Who was served does not depend on who waited for the answer.
                *fast[partition].population.entry((arm, self.segment(origin))).or_default() += 1;
            }
            return;
        }
        fast[partition].counts(arm).unread += i64::from(unread);
        fast[partition].counts(arm).refused += i64::from(refused && !error);
        for parts in [&mut *fast, &mut *slow] {
            let counts = parts[partition].counts(arm);
            counts.predictions += 1;
            counts.errors += i64::from(error);
        }
        slow[partition].counts(arm).labelled += i64::from(labelled);
        let warming = self.control.frozen.is_none();
        if warming != (arm == Arm::Stable) {
            return;
        }
        let segment = self.segment(origin);
        if !warming {
            *fast[partition].population.entry((arm, segment.clone())).or_default() += 1;
            if number.is_some_and(|number| number < self.nameless) {
                *fast[partition].population.entry((arm, Segment::no_unit())).or_default() += 1;
            }
        }
        let (fast, slow) = (&mut fast[partition], &mut slow[partition]);
        for segment in [Segment::all(), segment.clone()] {
            fast.rate((arm, segment.clone(), "error_rate"), error);
            if labelled {
                slow.rate((arm, segment, "wrong"), wrong);
            }
        }
        if let Some(user) = user {
            let unit = if number.is_some_and(|number| number < self.nameless) { 0 } else { user };
            let flag = |yes: bool| f64::from(u8::from(yes));
            for segment in if warming { vec![Segment::all()] } else { vec![Segment::all(), segment] } {
                fast.sum((arm, segment.clone(), "error_rate"), unit, flag(error));
                if labelled {
                    slow.sum((arm, segment, "wrong"), unit, flag(wrong));
                }
            }
            fast.of_unit((arm, Segment::all(), "latency_p99"), unit, latency);
            fast.sum((arm, Segment::all(), "score"), unit, score.clamp(0.0, 1.0));
            fast.sum((arm, Segment::all(), "slow_watch"), unit, (latency / 1000.0).clamp(0.0, 1.0));
        }
        fast.log((arm, Segment::all(), "latency_p99"), latency);
        if !(unread || scoreless) {
            fast.lin((arm, Segment::all(), "score"), score, hash);
        }
        fast.lin((arm, Segment::all(), "slow_watch"), latency / 1000.0, other_hash);
    }

    fn segment(&self, origin: &str) -> Segment {
        let frozen: Option<Frozen> = self.control.frozen.as_deref().map(|text| serde_json::from_str(text).unwrap());
        let known = frozen.is_none_or(|frozen| frozen.segments["origin"].iter().any(|value| value == origin));
        Segment::of("origin", if known { origin } else { "other" })
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

/// A number from 0 to 1 that belongs to a user.
fn unit_of(user: u64) -> f64 {
    Dice(user).unit()
}

pub(crate) fn verdict(out: &Outgoing) -> Verdict {
    assert_eq!(out.topic, "verdicts");
    decode(<Verdict as Schema>::VERSION, out.value.as_ref().unwrap()).unwrap()
}
