//! The simulated traffic: its rate, its segments, and the answers of both versions.
//!
//! Metrics are drawn independently of each other, and so are segment dimensions. The counts of each arm are drawn per window, not
//! per request.

use std::collections::BTreeMap;

use serin_kinds::{Kind as _, Metric as _};
use serin_schemas::{ids::Span, records::Segment};
use serin_sketches::{Rate, Summary};
use serin_spec::{MetricKind, MetricSpec, RolloutSpec, units::Duration};

use super::{
    dice::{Dice, Table},
    law::{self, Law},
    regression::Regression,
};

/// The segment value for all values that are not judged separately.
const OTHER: &str = "other";

/// What to simulate, in the units of the user.
#[derive(Clone, Debug, Default)]
pub(crate) struct Setup {
    /// Requests per second, all arms together.
    pub(crate) per_second: f64,
    /// Stable's values by metric, if they are not the defaults.
    pub(crate) base: BTreeMap<String, f64>,
    /// Share of the answers that a metric with conditions counts.
    pub(crate) counted: BTreeMap<String, f64>,
    /// Shares of segment values by dimension, if they are not equal.
    pub(crate) shares: BTreeMap<String, Vec<(String, f64)>>,
    /// Regressions of the canary.
    pub(crate) regressions: Vec<Regression>,
    /// Rates that drift in both arms over the planned ramp, or jump at a given time (`at`).
    pub(crate) drifts: Vec<Regression>,
}

impl Setup {
    /// The setup with the names of the metrics in a normalized spec.
    #[must_use]
    pub(crate) fn of(&self, spec: &RolloutSpec) -> Self {
        let mut setup = self.clone();
        for change in setup.regressions.iter_mut().chain(&mut setup.drifts) {
            change.metric = spec.metric_name(&change.metric).to_owned();
        }
        let named = |(name, number): (&String, &f64)| (spec.metric_name(name).to_owned(), *number);
        setup.base = self.base.iter().map(named).collect();
        setup.counted = self.counted.iter().map(named).collect();
        setup
    }
}

/// The setup cannot be simulated.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct SetupError(String);

/// The simulated traffic of one setup.
pub(crate) struct World {
    per_second: f64,
    /// One behavior per metric of the spec, in the same order.
    metrics: Vec<Behavior>,
    dimensions: BTreeMap<String, Dimension>,
}

/// A segment dimension: its values, their shares, and a table to draw a value.
struct Dimension {
    values: Vec<String>,
    shares: Vec<f64>,
    table: Table,
}

/// The behavior of one metric in both arms.
struct Behavior {
    spec: MetricSpec,
    /// Share of the answers that it counts.
    counted: f64,
    stable: Law,
    /// The canary's laws, ordered by start time. The first one starts at 0.
    canary: Vec<Era>,
    /// The dimension whose values have different laws for the canary.
    split: Option<String>,
    drift: Option<Drift>,
}

/// The canary's laws from a point in time: the general law, and those of single values of the split dimension.
struct Era {
    from: Span,
    everywhere: Law,
    apart: BTreeMap<usize, Law>,
}

/// A rate that changes in both arms, gradually over the ramp or at once.
#[derive(Clone, Copy)]
struct Drift {
    from: f64,
    to: f64,
    over: Span,
    /// When the rate jumps, if it does not drift.
    at: Option<Span>,
}

impl World {
    /// The simulated traffic for a normalized spec.
    pub(crate) fn new(spec: &RolloutSpec, setup: &Setup) -> Result<Self, SetupError> {
        let known = |name: &str| spec.metrics.iter().any(|metric| metric.name == name);
        let named = setup.regressions.iter().chain(&setup.drifts).map(|change| &change.metric);
        if let Some(unknown) = named.chain(setup.base.keys()).chain(setup.counted.keys()).find(|name| !known(name)) {
            let names: Vec<&str> = spec.metrics.iter().map(|metric| metric.name.as_str()).collect();
            return Err(SetupError(format!("the rollout has no metric {unknown:?}; it has {}", names.join(", "))));
        }
        let dimensions = dimensions(spec, setup)?;
        let over: i64 = spec.steps.iter().map(|step| step.bake.min.0.0).sum();
        let behavior = |metric: &MetricSpec| Behavior::new(metric, setup, &dimensions, Span(over.max(1)));
        let metrics = spec.metrics.iter().map(behavior).collect::<Result<_, _>>()?;
        Ok(Self { per_second: setup.per_second, metrics, dimensions })
    }

    /// Requests of a window, all arms together.
    pub(super) fn requests(&self, window: Span, dice: &mut Dice) -> u64 {
        dice.poisson(self.per_second * window.as_secs_f64())
    }

    /// Stable's rate of a metric at `at`, if it is a rate.
    pub(super) fn stable_rate(&self, metric: usize, at: Span) -> Option<f64> {
        self.metrics.get(metric)?.stable_rate(at)
    }

    /// The summaries of `n` answers for one metric, over all traffic and in each segment of the metric. `at` is the time since
    /// the canary's first request.
    pub(super) fn draw(
        &self,
        metric: usize,
        canary: bool,
        at: Span,
        n: u64,
        dice: &mut Dice,
    ) -> Vec<(Segment, Summary)> {
        let Some(behavior) = self.metrics.get(metric) else { return Vec::new() };
        let n = if behavior.counted < 1.0 { dice.binomial(n, behavior.counted) } else { n };
        let mut cells = Cells::new(&behavior.spec, behavior.split.as_deref(), &self.dimensions);
        #[expect(clippy::single_match_else, reason = "two cases side by side")]
        match behavior.stable_rate(at) {
            Some(rate) => {
                let rates = |value| if canary { behavior.canary_rate(at, value) } else { rate };
                cells.draw_rates(n, rates, dice);
            }
            None => {
                let laws = |value| if canary { behavior.canary_law(at, value) } else { &behavior.stable };
                cells.draw_values(n, laws, dice);
            }
        }
        cells.full()
    }

    /// How `n` answers are divided among the values of each dimension. Values that `is_judged` does not accept count as `other`.
    pub(super) fn population(
        &self,
        n: u64,
        is_judged: impl Fn(&Segment) -> bool,
        dice: &mut Dice,
    ) -> Vec<(Segment, u64)> {
        let mut counts: BTreeMap<Segment, u64> = BTreeMap::new();
        for (name, dimension) in &self.dimensions {
            let drawn = dice.split(n, dimension.shares.iter().copied());
            for (value, count) in dimension.values.iter().zip(drawn).filter(|(_, count)| *count > 0) {
                let own = Segment::of(name.as_str(), value.as_str());
                let segment = if is_judged(&own) { own } else { Segment::of(name.as_str(), OTHER) };
                *counts.entry(segment).or_default() += count;
            }
        }
        counts.into_iter().collect()
    }
}

fn dimensions(spec: &RolloutSpec, setup: &Setup) -> Result<BTreeMap<String, Dimension>, SetupError> {
    let names: Vec<&str> = spec.segments.iter().map(|segment| segment.name.as_str()).collect();
    let used = setup.regressions.iter().filter_map(|change| change.segment.as_ref()).map(|(dimension, _)| dimension);
    if let Some(unknown) = used.chain(setup.shares.keys()).find(|name| !names.contains(&name.as_str())) {
        let there = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
        return Err(SetupError(format!("the rollout has no segment dimension {unknown:?}; it has {there}")));
    }
    let dimension = |segment: &serin_spec::SegmentSpec| {
        let name = &segment.name;
        let given = setup.shares.get(name).map_or(&[][..], Vec::as_slice);
        let mut values: Vec<(String, f64)> = given.to_vec();
        let taken: f64 = given.iter().map(|(_, share)| share).sum();
        if taken > 1.0 + 1e-9 || given.iter().any(|(_, share)| *share < 0.0) {
            return Err(SetupError(format!("the shares of {name} add up to {:.1} %", 100.0 * taken)));
        }
        let regressed = setup.regressions.iter().filter_map(|change| change.segment.as_ref());
        let mut rest: Vec<String> = Vec::new();
        for (_, value) in regressed.filter(|(dimension, _)| dimension == name) {
            if !rest.contains(value) && !given.iter().any(|(known, _)| known == value) {
                rest.push(value.clone());
            }
        }
        let wanted = segment.top.saturating_sub(values.len()).max(1);
        let free = |number: &usize| !given.iter().any(|(known, _)| *known == format!("{name}-{number}"));
        rest.extend(
            (1..).filter(free).map(|number| format!("{name}-{number}")).take(wanted.saturating_sub(rest.len())),
        );
        let left = (1.0 - taken).max(0.0);
        let each = left / rest.len().max(1) as f64;
        if left > 1e-9 {
            values.extend(rest.into_iter().map(|value| (value, each)));
        } else if let Some(value) = rest.iter().find(|value| !value.starts_with(&format!("{name}-"))) {
            return Err(SetupError(format!(
                "{name}={value} has no traffic: the shares of {name} leave nothing for it"
            )));
        }
        let (values, shares): (Vec<String>, Vec<f64>) = values.into_iter().unzip();
        let table = Table::new(&shares);
        Ok((name.clone(), Dimension { values, shares, table }))
    };
    spec.segments.iter().map(dimension).collect()
}

impl Behavior {
    fn new(
        spec: &MetricSpec,
        setup: &Setup,
        dimensions: &BTreeMap<String, Dimension>,
        ramp: Span,
    ) -> Result<Self, SetupError> {
        let name = &spec.name;
        let changes: Vec<&Regression> = setup.regressions.iter().filter(|change| change.metric == *name).collect();
        let drift = setup.drifts.iter().find(|drift| drift.metric == *name);
        let bad = |what: String| SetupError(format!("{name}: {what}"));
        let mut bases = changes.iter().copied().chain(drift).filter_map(|change| change.change.from());
        let given_base = bases.next().or(setup.base.get(name).copied());
        if let Some(other) = bases.chain(setup.base.get(name).copied()).find(|base| Some(*base) != given_base) {
            let given_base = given_base.unwrap_or_default();
            return Err(bad(format!("stable's value is given as both {given_base} and {other}")));
        }
        let base = given_base.unwrap_or_else(|| spec.default_value());
        let targets = changes.iter().copied().chain(drift).map(|change| change.change.to(base));
        if let Some(what) = std::iter::once(base).chain(targets).find_map(|value| law::impossible(spec, value)) {
            return Err(bad(what));
        }
        if drift.is_some() && (spec.kind != MetricKind::Rate || !changes.is_empty()) {
            return Err(bad("only a rate without a regression can drift".to_owned()));
        }
        for change in &changes {
            check_tail(spec, base, change).map_err(bad)?;
        }
        let mut splits = changes.iter().filter_map(|change| change.segment.as_ref()).map(|(dimension, _)| dimension);
        let split = splits.next().cloned();
        if let Some(other) = splits.find(|other| Some(*other) != split.as_ref()) {
            return Err(bad(format!(
                "it regresses in {} and in {other}; only one dimension is possible",
                split.unwrap_or_default()
            )));
        }
        let drift = drift.map(|drift| Drift {
            from: base,
            to: drift.change.to(base),
            over: ramp,
            at: Some(drift.at.0).filter(|_| !drift.at.is_zero()),
        });
        let stable = law::law(spec, base, base, None);
        let canary = eras(spec, base, &changes, split.as_ref().and_then(|name| dimensions.get(name)));
        let counted = counted(spec, &setup.counted).map_err(SetupError)?;
        Ok(Self { spec: spec.clone(), counted, stable, canary, split, drift })
    }

    fn stable_rate(&self, at: Span) -> Option<f64> {
        let Law::Rate(base) = self.stable else { return None };
        Some(self.drift.map_or(base, |drift| {
            if let Some(jump) = drift.at {
                return if at < jump { drift.from } else { drift.to };
            }
            let part = (at.0 as f64 / drift.over.0 as f64).clamp(0.0, 1.0);
            drift.from + part * (drift.to - drift.from)
        }))
    }

    fn canary_law(&self, at: Span, value: Option<usize>) -> &Law {
        let Some(era) = self.canary.iter().rev().find(|era| era.from <= at).or(self.canary.first()) else {
            return &self.stable;
        };
        value.and_then(|value| era.apart.get(&value)).unwrap_or(&era.everywhere)
    }

    fn canary_rate(&self, at: Span, value: Option<usize>) -> f64 {
        match self.canary_law(at, value) {
            Law::Rate(rate) if self.drift.is_none() => *rate,
            _ => self.stable_rate(at).unwrap_or_default(),
        }
    }
}

/// The share of the answers that a metric counts, of those that a person has named.
///
/// # Errors
/// A sentence: a metric with conditions for which no share is named, or what is not a share.
pub(crate) fn counted(spec: &MetricSpec, named: &BTreeMap<String, f64>) -> Result<f64, String> {
    let name = &spec.name;
    match named.get(name) {
        Some(share) if *share > 0.0 && *share <= 1.0 => Ok(*share),
        Some(share) => Err(format!("{name}: {share} is not a share of the answers; use a number above 0, up to 100%")),
        None if spec.filters.is_empty() => Ok(1.0),
        None => Err(format!(
            "{name} counts only answers that meet its conditions: say which share they are, such as --counted {name}=2%"
        )),
    }
}

fn check_tail(spec: &MetricSpec, base: f64, change: &Regression) -> Result<(), String> {
    let Some(share) = change.tail else { return Ok(()) };
    spec.kind.check_tail(share)?;
    if change.change.to(base) < base { Err("a tail can only become slower".to_owned()) } else { Ok(()) }
}

/// The canary's laws over time. Each change applies from its start; a later change replaces an earlier one of the same segment.
fn eras(spec: &MetricSpec, base: f64, changes: &[&Regression], split: Option<&Dimension>) -> Vec<Era> {
    let mut starts: Vec<Duration> = changes.iter().map(|change| change.at).chain([Duration::default()]).collect();
    starts.sort();
    starts.dedup();
    let era = |from: Duration| {
        let (mut everywhere, mut apart) = (law::law(spec, base, base, None), BTreeMap::new());
        for change in changes.iter().filter(|change| change.at <= from) {
            let law = law::law(spec, base, change.change.to(base), change.tail);
            let place = change.segment.as_ref().and_then(|(_, value)| split?.values.iter().position(|v| v == value));
            match place {
                Some(place) => drop(apart.insert(place, law)),
                None => everywhere = law,
            }
        }
        Era { from: from.0, everywhere, apart }
    };
    starts.into_iter().map(era).collect()
}

/// The summaries of one metric in one arm and window, while they are drawn.
#[expect(clippy::struct_field_names, reason = "cells are what it collects")]
struct Cells<'a> {
    all: Summary,
    /// The dimension that is drawn first. Laws may differ by its values.
    lead: Option<(&'a str, &'a Dimension)>,
    /// Whether the metric is judged in the values of the first dimension (`lead`).
    lead_judged: bool,
    /// Other dimensions in which the metric is judged.
    others: Vec<(&'a str, &'a Dimension)>,
    /// Summaries by judged dimension, parallel to its values.
    cells: BTreeMap<&'a str, Vec<Summary>>,
}

impl<'a> Cells<'a> {
    fn new(spec: &'a MetricSpec, split: Option<&'a str>, dimensions: &'a BTreeMap<String, Dimension>) -> Self {
        let judged: Vec<&str> = spec.segments.iter().map(String::as_str).collect();
        let lead = split.or(judged.first().copied()).and_then(|name| Some((name, dimensions.get(name)?)));
        let lead_judged = lead.is_some_and(|(name, _)| judged.contains(&name));
        let rest = judged.iter().filter(|name| lead.is_none_or(|(lead, _)| lead != **name));
        let others: Vec<(&str, &Dimension)> = rest.filter_map(|&name| Some((name, dimensions.get(name)?))).collect();
        let own = lead.filter(|_| lead_judged);
        let cells =
            own.iter().chain(&others).map(|(name, dimension)| (*name, vec![law::empty(spec); dimension.values.len()]));
        let cells = cells.collect();
        Self { all: law::empty(spec), lead, lead_judged, others, cells }
    }

    fn draw_rates(&mut self, n: u64, rate: impl Fn(Option<usize>) -> f64, dice: &mut Dice) {
        let summary = |n, k| Summary::Rate(Rate::new(n, k).unwrap_or_default());
        let mut events = 0;
        if let Some((name, dimension)) = self.lead {
            for (value, count) in dice.split(n, dimension.shares.iter().copied()).into_iter().enumerate() {
                let k = dice.binomial(count, rate(Some(value)));
                events += k;
                if let Some(cells) = self.cells.get_mut(name) {
                    cells[value] = summary(count, k);
                }
            }
        } else {
            events = dice.binomial(n, rate(None));
        }
        self.all = summary(n, events);
        for (name, dimension) in &self.others {
            let yes = dice.split(events, dimension.shares.iter().copied());
            let no = dice.split(n - events, dimension.shares.iter().copied());
            let counts = yes.into_iter().zip(no).map(|(yes, no)| summary(yes + no, yes));
            self.cells.insert(*name, counts.collect());
        }
    }

    fn draw_values<'l>(&mut self, n: u64, law: impl Fn(Option<usize>) -> &'l Law, dice: &mut Dice) {
        for _ in 0..n {
            let lead = self.lead.map(|(_, dimension)| dice.case(&dimension.table));
            let Law::Values(values, table) = law(lead) else { return };
            let value = values[dice.case(table)];
            law::insert(&mut self.all, value, dice);
            if let (true, Some((name, _)), Some(lead)) = (self.lead_judged, self.lead, lead)
                && let Some(cells) = self.cells.get_mut(name)
            {
                law::insert(&mut cells[lead], value, dice);
            }
            for (name, dimension) in &self.others {
                let place = dice.case(&dimension.table);
                if let Some(cells) = self.cells.get_mut(name) {
                    law::insert(&mut cells[place], value, dice);
                }
            }
        }
    }

    /// The summaries that have data.
    fn full(self) -> Vec<(Segment, Summary)> {
        let Self { all, lead, others, mut cells, .. } = self;
        let mut found = vec![(Segment::all(), all)];
        for (name, dimension) in lead.into_iter().chain(others) {
            let own = cells.remove(name).unwrap_or_default();
            let named = dimension.values.iter().zip(own);
            found.extend(named.map(|(value, summary)| (Segment::of(name, value.as_str()), summary)));
        }
        found.retain(|(_, summary)| summary.n() > 0);
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec() -> RolloutSpec {
        serin_rollout::parse_yaml(include_str!("testing.yaml")).unwrap().normalized()
    }

    fn setup(regressions: &[&str]) -> Setup {
        let regressions = regressions.iter().map(|text| text.parse().unwrap()).collect();
        Setup { per_second: 100.0, regressions, ..Setup::default() }
    }

    fn refused(setup: &Setup) -> String {
        World::new(&spec(), setup).map(|_| ()).unwrap_err().to_string()
    }

    #[test]
    fn impossible_setups_are_refused() {
        let mut errors: Vec<String> = [
            &["mood x2"][..],
            &["error_rate 1%->200%"],
            &["score 0.8->1.2"],
            &["error_rate x2 in planet=mars"],
            &["error_rate x2 tail 3%"],
            &["latency_p99 x1.5 tail 0.5%"],
            &["latency_p99 x0.5 tail 3%"],
            &["error_rate 1%->2%", "error_rate 2%->3%"],
            &["error_rate x2 in origin=LGA", "error_rate x2 in device=phone"],
        ]
        .iter()
        .map(|regressions| refused(&setup(regressions)))
        .collect();
        let drift = |text: &str| Setup { drifts: vec![text.parse().unwrap()], ..setup(&[]) };
        errors.push(refused(&drift("score 0.5->0.6")));
        let shares = vec![("LGA".to_owned(), 0.7), ("JFK".to_owned(), 0.6)];
        errors.push(refused(&Setup { shares: [("origin".to_owned(), shares)].into(), ..setup(&[]) }));
        insta::assert_snapshot!(errors.join("\n"));
    }

    /// Rate of a cell over many windows.
    fn rate_of(world: &World, metric: &str, segment: &Segment, canary: bool, at: i64) -> f64 {
        let metric = world.metrics.iter().position(|behavior| behavior.spec.name == metric).unwrap();
        let mut dice = Dice::of(1, 0);
        let mut sum = Rate::default();
        for _ in 0..200 {
            let cells = world.draw(metric, canary, Span::from_secs(at), 1000, &mut dice);
            let Some((_, Summary::Rate(rate))) = cells.iter().find(|(cell, _)| cell == segment) else { continue };
            sum.merge(rate).unwrap();
        }
        sum.value().unwrap()
    }

    #[test]
    fn a_regression_has_its_segment_and_start() {
        let world = World::new(&spec(), &setup(&["error_rate 1%->10% in origin=LGA at 30m"])).unwrap();
        let rate = |segment: &Segment, canary, at| rate_of(&world, "error_rate", segment, canary, at);
        let lga = Segment::of("origin", "LGA");
        assert!((rate(&lga, true, 1800) - 0.1).abs() < 0.01);
        assert!((rate(&lga, true, 1799) - 0.01).abs() < 0.003);
        assert!((rate(&lga, false, 1800) - 0.01).abs() < 0.003);
        // Two values of equal share.
        assert!((rate(&Segment::all(), true, 1800) - 0.055).abs() < 0.005);
        assert!((rate(&Segment::of("device", "device-1"), true, 1800) - 0.055).abs() < 0.005);
        assert!((rate(&Segment::of("origin", "origin-1"), true, 1800) - 0.01).abs() < 0.003);
    }

    #[test]
    fn a_drift_moves_both_arms() {
        let world =
            World::new(&spec(), &Setup { drifts: vec!["error_rate 1%->5%".parse().unwrap()], ..setup(&[]) }).unwrap();
        for canary in [true, false] {
            let at = |at| rate_of(&world, "error_rate", &Segment::all(), canary, at);
            assert!((at(0) - 0.01).abs() < 0.002 && (at(600) - 0.03).abs() < 0.003 && (at(9999) - 0.05).abs() < 0.004);
        }
    }

    #[test]
    fn a_population_adds_up_in_every_dimension() {
        let world = World::new(&spec(), &setup(&[])).unwrap();
        let drawn = world.population(1000, |segment| segment.value == "origin-1", &mut Dice::of(3, 0));
        for dimension in world.dimensions.keys() {
            let own = drawn.iter().filter(|(segment, _)| segment.dimension == *dimension);
            assert_eq!(own.map(|(_, count)| count).sum::<u64>(), 1000, "{dimension}");
        }
        let values: Vec<&str> = drawn.iter().map(|(segment, _)| segment.value.as_str()).collect();
        assert_eq!(values, ["other", "origin-1", "other"]);
    }

    #[test]
    fn cells_add_up_to_all_traffic() {
        let world = World::new(&spec(), &setup(&[])).unwrap();
        let mut dice = Dice::of(3, 0);
        for metric in 0..world.metrics.len() {
            let cells = world.draw(metric, true, Span(0), 500, &mut dice);
            assert_eq!((&cells[0].0, cells[0].1.n()), (&Segment::all(), 500));
            for dimension in &world.metrics[metric].spec.segments {
                let own = cells.iter().filter(|(segment, _)| segment.dimension == *dimension);
                assert_eq!(own.map(|(_, summary)| summary.n()).sum::<u64>(), 500, "{dimension}");
            }
        }
        assert!(world.draw(0, true, Span(0), 0, &mut dice).is_empty());
    }
}
