//! Checks whether a finding holds without a handful of units, from the sums of [`crate::handful`] for each part of a hypothesis.
//!
//! The sums are kept separate from the hypothesis, so that hypotheses whose arms are not assigned by a key do not change.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serin_sketches::{LogHist, Summary, UNIT_BUCKETS, UNIT_GROUPS};

use super::past::Past;
use super::spec::{Bound, Part};
use super::steps::{exceedances, is_below_all, not_above, shift};
use super::{Hypothesis, Stratum};
use crate::Line;
use crate::handful::{Answers, FAIL_Z, HANDFUL, Influence, MIN_UNITS, PASS_Z, UnitSums, rests_on};
use crate::numeric::ln;

/// Identifies the difference of the arms that an [`Influence`] is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
enum Reading {
    /// A part that is alone, or the second margin of two.
    Part(u8),
    /// The distribution function at a level, in thousandths.
    Level(u16),
    /// The share of a named class, or of all others.
    Class(Option<u16>),
    /// The share of a class that control does not have.
    New(String),
}

/// What units have added.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Sums {
    answers: Answers,
    influences: BTreeMap<Reading, Influence>,
}

/// What the units of both arms have added to a hypothesis; persist it with `serde`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct UnitEvidence {
    /// Sums of the current step, because PASS must be shown by the answers of the step.
    step: Sums,
    /// Sums since there has been evidence for FAIL (`E > 1`). A fault may come late, and the good windows before it are irrelevant to it.
    against: Sums,
    /// Whether there was evidence for FAIL as of the last window.
    any: bool,
}

/// Whether a finding rests on few units.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Robustness {
    /// Effective number of units, of the arm with fewer.
    pub units: Option<f64>,
    /// `None` if the finding holds without a handful of units. Otherwise the number of the canary's buckets of units on which it rests.
    pub rests_on: Option<usize>,
}

impl UnitEvidence {
    /// Starts a new step.
    pub fn next_step(&mut self) {
        self.step = Sums::default();
    }

    /// Effective number of units in the step, of the arm with fewer (of the canary if `one_arm`).
    fn number(&self, one_arm: bool) -> Option<f64> {
        self.step.answers.units(one_arm)
    }
}

impl Sums {
    fn merge(&mut self, other: &Self) {
        self.answers.merge(&other.answers);
        for (reading, influence) in &other.influences {
            self.influences.entry(reading.clone()).or_default().merge(influence);
        }
    }
}

impl Hypothesis {
    /// Takes a window that was observed: per stratum the canary's and control's sums per unit ([`serin_sketches::Buckets`]
    /// or [`serin_sketches::ByUnit`]). With `groups`, the sums are per group of units instead of per bucket.
    pub fn observe_units(&self, strata: &[Stratum<'_>], groups: bool, units: &mut UnitEvidence) {
        let (one_arm, mut window) = (self.spec.one_arm(), Sums::default());
        for stratum in strata.iter().filter(|one| one.canary.n() > 0 && (one_arm || one.control.n() > 0)) {
            let control = (!one_arm).then_some(stratum.control);
            let whole = |summary| sums(summary, groups, &Read::Value);
            window.answers.add(&whole(stratum.canary), control.map(whole).as_ref());
            for (reading, v, reads) in self.readings() {
                let canary = sums(stratum.canary, groups, &reads.0);
                let control = control.map(|control| sums(control, groups, &reads.1));
                window.influences.entry(reading).or_default().add(v, &canary, control.as_ref());
            }
        }
        if !units.any {
            units.against = Sums::default();
        }
        units.any = self.ln_e_fail() > 0.0;
        units.against.merge(&window);
        units.step.merge(&window);
    }

    /// Returns whether a FAIL of the e-process holds without a handful of units. The remaining units must show harm beyond the margin (beyond
    /// both if there are two). For a distribution or a mix of classes, the check is about the part with the most evidence.
    pub fn fail_robustness(&self, units: &UnitEvidence) -> Robustness {
        let lines =
            if self.spec.measure.has_many_parts() { self.most().into_iter().collect() } else { self.lines(false) };
        let (Sums { answers, influences }, none) = (&units.against, Influence::default());
        let rests = lines
            .iter()
            .map(|(reading, line)| rests_on(influences.get(reading).unwrap_or(&none), answers, *line, FAIL_Z));
        Robustness { units: units.number(self.spec.one_arm()), rests_on: least(rests) }
    }

    /// Returns whether a PASS of the e-process holds without a handful of units and rests on enough units. For a distribution or a
    /// mix of classes only the number of units is checked.
    pub fn pass_robustness(&self, units: &UnitEvidence) -> Robustness {
        let Sums { answers, influences } = &units.step;
        let lines = if self.spec.measure.has_many_parts() { Vec::new() } else { self.lines(true) };
        let none = Influence::default();
        let rests = lines.iter().map(|(reading, line)| {
            rests_on(influences.get(reading).unwrap_or(&none), answers, line.reversed(), PASS_Z)
        });
        // With both margins, PASS only needs to be within one of them.
        let rests = if rests.clone().any(|rest| rest.is_none()) { None } else { least(rests) };
        let units = units.number(self.spec.one_arm());
        let enough = units.is_some_and(|units| units >= MIN_UNITS);
        Robustness { units, rests_on: if enough { rests } else { rests.or(Some(HANDFUL)) } }
    }

    /// Readings with their lines, for a measure with a single value.
    fn lines(&self, pass: bool) -> Vec<(Reading, Line)> {
        let line = |part: Part| match part {
            Part::Exceedance { line, .. } => Line { v: 1.0, c: 0.0, ..line },
            Part::Ratio { ratio, sign } => Line { v: ratio, c: 0.0, sign },
            Part::Limit { fail: fails, pass: passes, sign } => {
                Line { v: 1.0, c: if pass { passes.at } else { fails.at }, sign }
            }
            Part::Line(line) | Part::Level { line, .. } | Part::Share { line, .. } => line,
        };
        // FAIL and PASS of a quantile's limits count answers beyond different values.
        let second = |part: Part| matches!(part, Part::Limit { .. }) && pass;
        let index = |at: usize, part| Reading::Part((2 * at) as u8 + u8::from(second(part)));
        self.pairs.iter().enumerate().map(|(at, pair)| (index(at, pair.part), line(pair.part))).collect()
    }

    /// The part that adds most to the evidence for FAIL.
    fn most(&self) -> Option<(Reading, Line)> {
        let budget = if matches!(self.past, Past::Classes(_)) { 0.5 } else { 1.0 };
        let each = ln(budget / self.pairs.len().max(1) as f64);
        let tested = self.pairs.iter().filter_map(|pair| {
            let (reading, line) = match pair.part {
                Part::Level { level, line } => (Reading::Level(thousandths(level)), line),
                Part::Share { class, line } => (Reading::Class(class.map(|class| class as u16)), line),
                _ => return None,
            };
            Some((each + pair.fail.ln_e(), reading, line))
        });
        let new = self.newcomers.parts().map(|(class, weight, ln_e)| {
            (ln(0.5 * weight) + ln_e, Reading::New(class.to_owned()), Line { v: 1.0, c: 0.0, sign: 1.0 })
        });
        let most = tested.chain(new).max_by(|one, two| one.0.total_cmp(&two.0))?;
        Some((most.1, most.2))
    }

    /// What each part reads: the slope, and how the canary's and control's answers count.
    fn readings(&self) -> Vec<(Reading, f64, (Read, Read))> {
        let mut readings = Vec::new();
        for (at, pair) in self.pairs.iter().enumerate() {
            let at = (2 * at) as u8;
            match (pair.part, &self.past) {
                (Part::Line(line), _) => readings.push((Reading::Part(at), line.v, (Read::Value, Read::Value))),
                (Part::Ratio { ratio, .. }, _) => {
                    readings.push((Reading::Part(at), ratio, (Read::Value, Read::Value)));
                }
                (Part::Exceedance { level, line }, Past::Hist(past)) => {
                    if let Some(key) = past.current(level).key_at(level) {
                        let shifted = shift(key, line).map(Read::Above);
                        let canary = shifted.or_else(|| is_below_all(key, line).then_some(Read::All));
                        let reads = canary.map(|canary| (canary, Read::Above(key)));
                        readings.extend(reads.map(|reads| (Reading::Part(at), 1.0, reads)));
                    }
                }
                (Part::Level { level, .. }, Past::Hist(past)) => {
                    if let Some(key) = past.current(level).key_at(level) {
                        let reads = (Read::NotAbove(key), Read::NotAbove(key));
                        readings.push((Reading::Level(thousandths(level)), 1.0, reads));
                    }
                }
                (Part::Share { class, .. }, Past::Classes(past)) => {
                    let read = match class {
                        Some(class) => Read::Class(past.named(class).unwrap_or_default().to_owned()),
                        None => Read::Others(past.all_named().to_vec()),
                    };
                    let reading = Reading::Class(class.map(|class| class as u16));
                    readings.push((reading, 1.0, (read.clone(), read)));
                }
                (Part::Limit { fail, pass, .. }, _) => {
                    let read = |bound: Bound| bound.key.map_or(Read::Value, Read::Above);
                    readings.push((Reading::Part(at), 1.0, (read(fail), Read::Value)));
                    readings.push((Reading::Part(at + 1), 1.0, (read(pass), Read::Value)));
                }
                _ => {}
            }
        }
        let new = self.newcomers.parts().map(|(class, ..)| {
            let read = Read::Class(class.to_owned());
            (Reading::New(class.to_owned()), 1.0, (read.clone(), read))
        });
        readings.extend(new);
        // Both directions have the same reading.
        readings.sort_by(|one, two| one.0.cmp(&two.0));
        readings.dedup_by(|one, two| one.0 == two.0);
        readings
    }
}

fn thousandths(level: f64) -> u16 {
    libm::rint(1000.0 * level) as u16
}

/// The smallest number of buckets that any claim rests on; `None` if all claims hold.
fn least(rests: impl Iterator<Item = Option<usize>>) -> Option<usize> {
    let mut any = false;
    let found = rests.inspect(|_| any = true).flatten().min();
    // Without any reading no claim holds.
    if any { found } else { Some(0) }
}

/// Which answers count.
#[derive(Clone, Debug, PartialEq)]
enum Read {
    Value,
    /// Every answer counts.
    All,
    Above(i32),
    NotAbove(i32),
    Class(String),
    Others(Vec<String>),
}

/// `(X, N)` of each bucket or group of units.
fn sums(summary: &Summary, groups: bool, read: &Read) -> UnitSums {
    let mut sums = vec![(0.0, 0.0); if groups { UNIT_GROUPS } else { UNIT_BUCKETS }];
    match summary {
        Summary::Buckets(buckets) => {
            for (index, (x, n)) in buckets.iter().enumerate() {
                let sum = &mut sums[if groups { index * UNIT_GROUPS / UNIT_BUCKETS } else { index }];
                *sum = (sum.0 + x, sum.1 + n as f64);
            }
        }
        Summary::ByUnit(by_unit) => {
            for (group, summary) in by_unit.iter() {
                sums[group] = read.of(summary);
            }
        }
        _ => {}
    }
    sums
}

impl Read {
    fn of(&self, summary: &Summary) -> (f64, f64) {
        let count = |of: &dyn Fn(&LogHist) -> f64| if let Summary::Log(hist) = summary { of(hist) } else { 0.0 };
        let x = match (self, summary) {
            (Self::All, _) => summary.n() as f64,
            (Self::Above(key), _) => count(&|hist| exceedances(hist, *key).k() as f64),
            (Self::NotAbove(key), _) => count(&|hist| not_above(hist, *key).k() as f64),
            (Self::Class(class), Summary::Classes(counts)) => counts.exact_count(class).unwrap_or(0) as f64,
            (Self::Others(named), Summary::Classes(counts)) => {
                let named: u64 = named.iter().filter_map(|class| counts.exact_count(class)).sum();
                counts.total().saturating_sub(named) as f64
            }
            _ => 0.0,
        };
        (x, summary.n() as f64)
    }
}
