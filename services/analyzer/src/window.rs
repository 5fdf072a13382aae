//! Partial windows: each partition of `events` writes its part, and the parts merge exactly, in any order.

use serin_schemas::Code;
use std::collections::{BTreeMap, BTreeSet};

use serin_schemas::{
    ids::{EventTime, Generation, Span},
    records::{Arm, ArmCounts, Segment, UnitCounts, WindowClosed},
};
use serin_sketches::{Buckets, MAX_COUNT, Summary};
use serin_stream::fold::Poison;

use crate::plan::Plan;

/// Identifies a window of one rollout. The order is that of the evidence: by closing time, then by maturity and generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct WindowKey {
    /// End plus maturity: the time after which nothing more can enter.
    pub(crate) closes: EventTime,
    /// The window's stream.
    pub(crate) maturity: Span,
    /// The window's stratum.
    pub(crate) generation: Generation,
}

impl WindowKey {
    pub(crate) fn of(window: &WindowClosed) -> Self {
        Self { closes: window.end.plus(window.maturity), maturity: window.maturity, generation: window.generation }
    }

    /// End of the window.
    pub(crate) fn end(&self) -> EventTime {
        self.closes.minus(self.maturity)
    }
}

/// What a summary is about: the arm, the metric's index in the spec, and the segment.
pub(crate) type CellKey = (Arm, usize, Segment);

/// One partition's part of a window, after all checks.
pub(crate) struct Part {
    pub(crate) key: WindowKey,
    pub(crate) partition: i32,
    cells: Vec<(CellKey, Summary)>,
    buckets: Vec<((Arm, usize), Buckets)>,
    units: Vec<(CellKey, Summary)>,
    arms: Vec<ArmCounts>,
    population: Vec<((Arm, Segment), u64)>,
    by_unit: Vec<((Arm, u8), ArmCounts)>,
}

fn poison(code: Code, message: String) -> Poison {
    Poison { code, message }
}

impl Part {
    /// Checks a record against the plan of its rollout.
    pub(crate) fn parse(window: WindowClosed, plan: &Plan) -> Result<Self, Poison> {
        let place = format!("window of rollout {} ending at {} us", window.rollout, window.end);
        if window.length != plan.spec.window.0 || window.end.0.rem_euclid(window.length.0.max(1)) != 0 {
            let length = plan.spec.window;
            return Err(poison(
                Code::BadWindow,
                format!("{place}: the spec's windows have length {length} and aligned ends"),
            ));
        }
        if !plan.has_stream(window.maturity) {
            return Err(poison(
                Code::BadWindow,
                format!("{place}: no metric of the spec has maturity {}", window.maturity),
            ));
        }
        let key = WindowKey::of(&window);
        let (mut cells, mut buckets, mut units) = (Vec::new(), Vec::new(), Vec::new());
        for cell in window.cells {
            let name = &cell.metric;
            let Some(metric) = plan.metric_index(name) else {
                return Err(poison(Code::UnknownMetric, format!("{place}: the spec has no metric {name:?}")));
            };
            let own = &plan.metrics[metric];
            if own.maturity != key.maturity {
                return Err(poison(Code::BadWindow, format!("{place}: metric {name:?} has another maturity")));
            }
            let bad = |cause: String| poison(Code::BadSummary, format!("{place}, metric {name:?}: {cause}"));
            match Summary::decode(&cell.summary).map_err(|error| bad(error.to_string()))? {
                Summary::Buckets(sums) if plan.is_sticky() && cell.segment.is_all() => {
                    buckets.push(((cell.arm, metric), sums));
                }
                summary @ (Summary::Buckets(_) | Summary::ByUnit(_)) if plan.is_sticky() => {
                    units.push(((cell.arm, metric, cell.segment), summary));
                }
                summary => {
                    let (expected, found) = (own.empty.kind(), summary.kind());
                    if expected != found {
                        return Err(bad(format!("a {found}, not a {expected}")));
                    }
                    if cap(&own.empty) != cap(&summary) {
                        return Err(bad("the cap of the summary differs from the spec's".to_owned()));
                    }
                    cells.push(((cell.arm, metric, cell.segment), summary));
                }
            }
        }
        for arm in &window.arms {
            if counts(arm).any(|count| !in_range(count)) {
                return Err(poison(
                    Code::BadCount,
                    format!("{place}: a count of arm {} is out of range", arm.arm.as_str()),
                ));
            }
        }
        if let Some(bad) = window.population.iter().find(|population| !in_range(population.predictions)) {
            return Err(poison(Code::BadCount, format!("{place}: the count of {} is out of range", bad.segment)));
        }
        let population = window.population.into_iter();
        let population = population.map(|own| ((own.arm, own.segment), own.predictions as u64)).collect();
        let mut by_unit = Vec::new();
        for UnitCounts { bucket, counts: own } in window.units {
            let bucket = u8::try_from(bucket).ok().filter(|_| counts(&own).all(in_range));
            let Some(bucket) = bucket else {
                return Err(poison(
                    Code::BadCount,
                    format!("{place}: a count per unit of arm {} is out of range", own.arm.as_str()),
                ));
            };
            if plan.guarded {
                by_unit.push(((own.arm, bucket), own));
            }
        }
        Ok(Self { key, partition: window.partition, cells, buckets, units, arms: window.arms, population, by_unit })
    }
}

/// The cap of a histogram that has one, as bits. Caps are log edges, so equal caps have equal bits.
fn cap(summary: &Summary) -> Option<u64> {
    if let Summary::Capped(hist) = summary { Some(hist.cap().to_bits()) } else { None }
}

fn in_range(count: i64) -> bool {
    (0..=MAX_COUNT as i64).contains(&count)
}

fn counts(arm: &ArmCounts) -> impl Iterator<Item = i64> {
    let ArmCounts { predictions, excluded, errors, invalid, late, lost, labelled, .. } = *arm;
    let ArmCounts { refused, redirected, unread, cancelled, left, contradicting, .. } = *arm;
    let outcomes = [predictions, excluded, errors, invalid, refused, redirected, unread, cancelled, left];
    outcomes.into_iter().chain([late, lost, labelled, contradicting])
}

/// Adds the counts of the same arm. Sums saturate.
pub(crate) fn add_counts(sum: &mut ArmCounts, more: &ArmCounts) {
    sum.predictions = sum.predictions.saturating_add(more.predictions);
    sum.excluded = sum.excluded.saturating_add(more.excluded);
    sum.errors = sum.errors.saturating_add(more.errors);
    sum.invalid = sum.invalid.saturating_add(more.invalid);
    sum.late = sum.late.saturating_add(more.late);
    sum.lost = sum.lost.saturating_add(more.lost);
    sum.labelled = sum.labelled.saturating_add(more.labelled);
    sum.refused = sum.refused.saturating_add(more.refused);
    sum.redirected = sum.redirected.saturating_add(more.redirected);
    sum.unread = sum.unread.saturating_add(more.unread);
    sum.cancelled = sum.cancelled.saturating_add(more.cancelled);
    sum.left = sum.left.saturating_add(more.left);
    sum.contradicting = sum.contradicting.saturating_add(more.contradicting);
}

/// A window, merged from the parts that have arrived.
#[derive(Debug, Default)]
pub(crate) struct Merged {
    /// Partitions whose part has arrived.
    pub(crate) parts: BTreeSet<i32>,
    /// The summaries of the parts.
    pub(crate) cells: BTreeMap<CellKey, Summary>,
    /// The sums per bucket of units, over all traffic.
    pub(crate) buckets: BTreeMap<(Arm, usize), Buckets>,
    /// What units add in segments, and to ranks and classes over all traffic.
    pub(crate) units: BTreeMap<CellKey, Summary>,
    /// Compared answers by segment value; in windows of labels, answers whose label arrived, see [`Merged::labelled`].
    pub(crate) population: BTreeMap<(Arm, Segment), u64>,
    /// The counts of the arms.
    pub(crate) arms: BTreeMap<Arm, ArmCounts>,
    /// The same per bucket of units, where a key assigns the arm. Empty in windows of older builds.
    pub(crate) by_unit: BTreeMap<(Arm, u8), ArmCounts>,
}

impl Merged {
    /// Adds a part completely, or not at all.
    pub(crate) fn add(&mut self, part: Part) -> Result<(), Poison> {
        let fits = |(key, summary): &(CellKey, Summary)| {
            let sums = |one: u64, two: u64| one.checked_add(two).is_some_and(|sum| sum <= MAX_COUNT);
            match (self.cells.get(key), summary) {
                (Some(Summary::Events(known)), Summary::Events(more)) => {
                    sums(known.k(), more.k()) && sums(known.exposure(), more.exposure())
                }
                (known, summary) => sums(known.map_or(0, Summary::n), summary.n()),
            }
        };
        if !part.cells.iter().all(fits) || has_duplicates(&part.cells) {
            return Err(poison(Code::BadSummary, "a cell occurs twice, or its counts exceed 2^53".to_owned()));
        }
        for (key, summary) in part.cells {
            match self.cells.get_mut(&key) {
                // The checks above ensure that kinds and caps agree and that the sum fits.
                Some(sum) => sum.merge(&summary).expect("kind and size were checked"),
                None => drop(self.cells.insert(key, summary)),
            }
        }
        for (key, sums) in part.buckets {
            // Sums that would overflow are left out: only the design effect lacks them.
            let _ = self.buckets.entry(key).or_default().merge(&sums);
        }
        for (key, more) in part.units {
            match self.units.get_mut(&key) {
                // Sums that would overflow are left out.
                Some(sums) => drop(sums.merge(&more)),
                None => drop(self.units.insert(key, more)),
            }
        }
        for (key, predictions) in part.population {
            let known = self.population.entry(key).or_default();
            *known = known.saturating_add(predictions);
        }
        for arm in &part.arms {
            add_counts(self.arms.entry(arm.arm).or_insert_with(|| ArmCounts::none(arm.arm)), arm);
        }
        for ((arm, bucket), more) in &part.by_unit {
            add_counts(self.by_unit.entry((*arm, *bucket)).or_insert_with(|| ArmCounts::none(*arm)), more);
        }
        self.parts.insert(part.partition);
        Ok(())
    }

    /// The counts of an arm per bucket of units.
    pub(crate) fn units_of(&self, arm: Arm) -> impl Iterator<Item = (u8, &ArmCounts)> {
        self.by_unit.range((arm, 0)..=(arm, u8::MAX)).map(|((_, bucket), counts)| (*bucket, counts))
    }

    /// Calls of an arm that were assigned at random: those that enter the comparison, and those that their callers cancelled.
    pub(crate) fn calls(&self, arm: Arm) -> u64 {
        self.arms.get(&arm).map_or(0, |counts| counts.predictions.saturating_add(counts.cancelled) as u64)
    }

    /// Answers of an arm that have a value of a metric. A value that stands for a missing label does not count. Windows of older
    /// builds do not tell them apart, so there every value counts.
    pub(crate) fn labelled(&self, plan: &Plan, arm: Arm, metric: usize) -> u64 {
        let values = self.cells.get(&(arm, metric, Segment::all())).map_or(0, Summary::n);
        let label = Segment::with_label(&plan.spec.metrics[metric].name);
        self.population.get(&(arm, label)).map_or(values, |&labelled| values.min(labelled))
    }

    /// Answers of an arm that enter the comparison.
    pub(crate) fn predictions(&self, arm: Arm) -> u64 {
        self.arms.get(&arm).map_or(0, |counts| counts.predictions as u64)
    }
}

fn has_duplicates(cells: &[(CellKey, Summary)]) -> bool {
    let keys: BTreeSet<&CellKey> = cells.iter().map(|(key, _)| key).collect();
    keys.len() < cells.len()
}
