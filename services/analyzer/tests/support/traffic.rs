//! The answers of a window, drawn one by one, and the partial windows made from them.

use std::collections::BTreeMap;

use serin_schemas::{
    ids::{EventTime, Span},
    records::{Arm, ArmCounts, Cell, Control, Population, Segment, UnitCounts, WindowClosed},
};
use serin_sketches::{Buckets, ByUnit, LinHist, LogHist, Rate, Summary, bucket_of, group_hash, hash::hash64};
use serin_spec::Frozen;

use super::{Dice, Fate, MATURITY, PARTITIONS, WINDOW, World};

type CellKey = (Arm, Segment, &'static str);

/// One partition's part of one stream's window.
#[derive(Default)]
struct Part {
    cells: BTreeMap<CellKey, Summary>,
    arms: BTreeMap<Arm, ArmCounts>,
    population: BTreeMap<(Arm, Segment), i64>,
    /// What users add: sums, and for ranks their summaries.
    units: BTreeMap<CellKey, Summary>,
    /// Counts of calls per bucket of users.
    by_unit: BTreeMap<(Arm, u8), ArmCounts>,
}

impl Part {
    fn rate(&mut self, key: CellKey, event: bool) {
        let cell = self.cells.entry(key).or_insert(Summary::Rate(Rate::default()));
        let Summary::Rate(rate) = cell else { panic!("a rate") };
        rate.insert(event).unwrap();
    }

    /// Counts a call of a user: one that its caller left (midway or before), or an answer (an error, refused, unread).
    fn count_unit(&mut self, arm: Arm, user: u64, left: Option<bool>, [error, refused, unread]: [bool; 3]) {
        let counts = self.by_unit.entry((arm, bucket_of(user))).or_insert_with(|| ArmCounts::none(arm));
        if let Some(midway) = left {
            counts.cancelled += 1;
            counts.left += i64::from(midway);
            return;
        }
        counts.predictions += 1;
        counts.errors += i64::from(error);
        counts.refused += i64::from(refused && !error);
        counts.unread += i64::from(unread);
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

impl World {
    /// Advances time and draws the partial windows of stream 0. Those of the labels are kept until they close.
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
        let own = (1 << 40..).filter(|&number| {
            let bucket = (hash(number) % 10_000) as i32;
            let Control { canary_share, control_share, .. } = self.control;
            if self.attacks_stable { bucket >= canary_share + control_share } else { bucket < canary_share }
        });
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
            units: part
                .by_unit
                .into_iter()
                .map(|((_, bucket), counts)| UnitCounts { bucket: bucket.into(), counts })
                .collect(),
        }
    }

    /// One answer. The calls of an attacker all have the same fate.
    fn answer(&mut self, fast: &mut [Part], slow: &mut [Part], attacker: Option<u64>) {
        let dice = &mut self.dice;
        let number = attacker.or_else(|| self.users.map(|users| dice.bits() % users));
        let user = number.map(|number| hash64(b"user", &number.to_le_bytes()));
        let bucket = user.map_or_else(|| (dice.unit() * 1e4) as i32, |user| (user % 10_000) as i32);
        let arm = arm_of(&self.control, bucket);
        let version = if arm == Arm::Canary { self.canary } else { self.stable };
        // With users, all answers of a user are lost or none.
        let lost = |dice: &mut Dice| match user {
            Some(user) => ((user >> 20) % 1000) as f64 / 1000.0 < self.leak,
            None => dice.chance(self.leak),
        };
        if arm == Arm::Canary && lost(dice) {
            return;
        }
        let origin = origin(dice.unit(), if arm == Arm::Canary { self.skew } else { 0.0 });
        let rate = version.error_lga.filter(|_| origin == "LGA").unwrap_or(version.error);
        let fate = attacker.map(|_| self.fate);
        let error = dice.chance(rate) || fate == Some(Fate::Fails);
        let slowed = if dice.chance(version.slow) { 3.0 } else { 1.0 };
        let patience = if fate == Some(Fate::Fails) { 50.0 } else { 1.0 };
        let latency = version.latency_ms * (0.25 * dice.normal()).exp() * slowed * patience;
        let score = version.score + 0.1 * dice.normal();
        let (hash, other_hash) = (dice.bits(), dice.bits());
        let share = self.labelled[usize::from(arm != Arm::Canary)];
        let labelled = match user.filter(|_| self.per_user.own_labels) {
            Some(user) => unit_of(user ^ 5) < share,
            None => dice.chance(share),
        };
        let wrong = dice.chance(version.wrong);
        let partition = (dice.bits() % PARTITIONS as u64) as usize;
        // With users, all calls of a user have the same fate.
        let mut falls = |shares: [f64; 2], salt: u64| {
            let share = shares[usize::from(arm != Arm::Canary)];
            let user = user.filter(|_| self.per_user.alike);
            share > 0.0 && user.map_or_else(|| dice.unit(), |user| unit_of(user ^ salt)) < share
        };
        let refused = falls(self.refused, 4) || fate == Some(Fate::Refused);
        let (left, unread, scoreless) = (falls(self.cancelled, 1), falls(self.unread, 2), falls(self.scoreless, 3));
        let left = left || matches!(fate, Some(Fate::Leaves | Fate::LeavesMidway));
        let midway = self.leave_midway || fate == Some(Fate::LeavesMidway);
        let (unread, scoreless) = (unread || fate == Some(Fate::Unread), scoreless || fate == Some(Fate::Scoreless));
        let by_unit = self.per_user.by_unit && self.control.rules > 1 && self.control.frozen.is_some();
        if let Some(user) = user.filter(|_| by_unit) {
            fast[partition].count_unit(arm, user, left.then_some(midway), [error, refused, unread]);
        }
        if left {
            fast[partition].counts(arm).cancelled += 1;
            fast[partition].counts(arm).left += i64::from(midway);
            if self.control.frozen.is_some() && arm != Arm::Stable {
                // The population does not depend on which callers waited for the answer.
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
        let loses = arm == Arm::Canary && self.nameless_canary > 0.0 && self.dice.chance(self.nameless_canary);
        let nameless = loses || number.is_some_and(|number| number < self.nameless);
        let segment = self.segment(origin);
        if !warming {
            *fast[partition].population.entry((arm, segment.clone())).or_default() += 1;
            if nameless {
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
            let unit = if nameless { 0 } else { user };
            let flag = |yes: bool| f64::from(u8::from(yes));
            for segment in if warming { vec![Segment::all()] } else { vec![Segment::all(), segment] } {
                fast.sum((arm, segment.clone(), "error_rate"), unit, flag(error));
                if labelled {
                    slow.sum((arm, segment, "wrong"), unit, flag(wrong));
                }
            }
            fast.of_unit((arm, Segment::all(), "latency_p99"), unit, latency);
            if !(unread || scoreless) {
                fast.sum((arm, Segment::all(), "score"), unit, score.clamp(0.0, 1.0));
            }
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
}

/// A number from 0 to 1 that is fixed for a user.
fn unit_of(user: u64) -> f64 {
    Dice(user).unit()
}

/// The arm of a bucket of the split.
fn arm_of(control: &Control, bucket: i32) -> Arm {
    match bucket {
        bucket if bucket < control.canary_share => Arm::Canary,
        bucket if bucket < control.canary_share + control.control_share => Arm::Control,
        _ => Arm::Stable,
    }
}

/// The origin of a request, with an additional share of `LGA`.
fn origin(unit: f64, skew: f64) -> &'static str {
    match unit {
        u if u < skew => "LGA",
        u if u < 0.4 => "JFK",
        u if u < 0.7 => "LGA",
        u if u < 0.9 => "EWR",
        _ => "BOS",
    }
}
