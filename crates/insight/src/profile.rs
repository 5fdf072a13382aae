//! Profiles: what each arm's values looked like, per metric, from the records of `windows`.
//!
//! A window keeps a summary of each metric, not of each value. So an output, a feature or the latency has a profile if a metric reads
//! it; the others are listed in [`Profiles::not_profiled`] with what to add to the rollout file.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serin_kinds::Unit;
use serin_schemas::{
    ids::{EventTime, ModelName, RolloutId, Version},
    records::{Arm, ArmCounts, Segment, WindowClosed},
};
use serin_sketches::{GAMMA, LIN_CELLS, Summary, lower_edge, upper_edge};
use serin_spec::{Filter, MetricKind, MetricSource, OutputKind, RolloutSpec};

use crate::cells::Cells;

/// Name of the format, with its version.
pub const FORMAT: &str = "serin.profile/v1";

/// Most profiles in one answer.
pub const MOST_PROFILES: usize = 500;

/// Most distributions in one answer.
pub const MOST_DISTRIBUTIONS: usize = 20_000;

/// Levels of the quantiles in a profile.
const LEVELS: [(&str, f64); 9] = [
    ("0", 0.0),
    ("0.01", 0.01),
    ("0.05", 0.05),
    ("0.25", 0.25),
    ("0.5", 0.5),
    ("0.75", 0.75),
    ("0.95", 0.95),
    ("0.99", 0.99),
    ("1", 1.0),
];

/// What a client asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// Only windows that start at this time or later.
    pub from: Option<EventTime>,
    /// Only windows that end at this time or earlier.
    pub to: Option<EventTime>,
    /// One profile per window, instead of one over all windows.
    pub per_window: bool,
    /// Distributions per segment value too.
    pub segments: bool,
}

/// The profiles of a rollout.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Profiles {
    /// [`FORMAT`].
    pub format: String,
    /// The model.
    pub model: ModelName,
    /// The rollout.
    pub rollout: RolloutId,
    /// One entry per arm, or per window and arm, in the order of time.
    pub profiles: Vec<Profile>,
    /// Outputs, features and latency without a profile.
    pub not_profiled: Vec<NotProfiled>,
    /// Number of summaries that are not included, because they cannot be read, or because the answer would be too large.
    pub left_out: u64,
}

/// The values of one arm.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Profile {
    /// The arm.
    pub arm: Arm,
    /// Version of the arm.
    pub version: Version,
    /// Start of the first window, in microseconds since 1970.
    pub from: EventTime,
    /// End of the last window, in microseconds since 1970.
    pub to: EventTime,
    /// Number of windows with events of the arm.
    pub windows: u64,
    /// Counts of calls.
    pub calls: Calls,
    /// The distribution of each metric's values.
    pub metrics: Vec<MetricProfile>,
}

/// Calls of one arm.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Calls {
    /// Answers that are compared.
    pub compared: i64,
    /// Answers that are left out of the comparison.
    pub excluded: i64,
    /// Compared answers with outcome `failed`.
    pub failed: i64,
    /// Compared answers with outcome `refused`.
    pub refused: i64,
    /// Compared answers with outcome `redirected`.
    pub redirected: i64,
    /// Compared answers with outcome `unusable`.
    pub unusable: i64,
    /// Compared answers with outcome `unread`. Their outputs are in no distribution.
    pub unread: i64,
    /// Calls that their caller cancelled. They are not compared.
    pub cancelled: i64,
    /// Events that arrived after their window had closed. They are in no distribution.
    pub late: i64,
    /// Events that were lost. They are in no distribution.
    pub lost: i64,
}

/// The distribution of one metric's values in one arm.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MetricProfile {
    /// Name of the metric.
    pub metric: String,
    /// What the metric measures.
    pub source: MetricSource,
    /// Kind of the metric.
    pub kind: MetricKind,
    /// The filters of the metric: only answers that pass all of them have a value.
    #[serde(default, rename = "where", skip_serializing_if = "Vec::is_empty")]
    pub filters: Vec<Filter>,
    /// Unit of the values: `ms`, `s`, `share`, or none if it is not known.
    pub unit: Option<String>,
    /// The segment; `None` for all traffic.
    pub segment: Option<Segment>,
    /// Number of values.
    pub count: u64,
    /// The values.
    pub distribution: Distribution,
}

/// A distribution. Its type depends on what a window keeps for the kind of the metric.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Distribution {
    /// Kind `rate`: how many of the values are 1.
    Share {
        /// Number of values that are 1.
        events: u64,
        /// The share of them.
        share: Option<f64>,
    },
    /// Kinds `quantile` and `distribution`: exact counts in bins that are 2 % wide.
    Histogram {
        /// Bins with values, in increasing order. A bin contains values above `from` up to `to`; zero has its own bin.
        bins: Vec<Bin>,
        /// Quantiles by level. Each is within 1 % of the value of that rank.
        quantiles: BTreeMap<String, f64>,
        /// Mean, within 1 %.
        mean: Option<f64>,
    },
    /// Kinds `mean`, `capped_mean` and `count`: counts at fixed points. A value between two points is counted at one of them, drawn so
    /// that the mean is exact on average.
    Points {
        /// Points with values, in increasing order.
        points: Vec<Point>,
        /// Quantiles by level. Each is within one step of the points.
        quantiles: BTreeMap<String, f64>,
        /// Mean of the values, clamped or capped as the kind does.
        mean: Option<f64>,
        /// The cap. The last point also counts all values above it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        cap: Option<f64>,
    },
    /// Kind `classes`: counts by class.
    Classes {
        /// Counts by class, at most 128 classes.
        classes: BTreeMap<String, u64>,
        /// Values of all other classes.
        other: u64,
    },
    /// Kind `count` under rules 1: the sum of the events only.
    Events {
        /// Number of events.
        events: u64,
        /// Events per answer.
        per_answer: Option<f64>,
    },
    /// Kind `disagreement`: pairs of answers to the same call.
    Pairs {
        /// Pairs whose answers differ.
        differ: u64,
        /// The share of them.
        share: Option<f64>,
    },
    /// Exact moments.
    Moments {
        /// Mean.
        mean: Option<f64>,
        /// Variance.
        variance: Option<f64>,
    },
}

/// A bin of a histogram.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Bin {
    /// Lower edge.
    pub from: f64,
    /// Upper edge.
    pub to: f64,
    /// Number of values.
    pub count: u64,
}

/// A point with values.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// The value.
    pub value: f64,
    /// Number of values that are counted at this point.
    pub count: u64,
}

/// A value that no metric reads, so that no window has its distribution.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotProfiled {
    /// Name of the output or feature, or `latency`.
    pub name: String,
    /// A metric that would give it a profile, as a line of the rollout file.
    pub add: String,
}

/// Merges windows into profiles.
#[derive(Debug)]
pub struct Profiler<'a> {
    spec: &'a RolloutSpec,
    rollout: &'a RolloutId,
    asked: Asked,
    found: BTreeMap<(EventTime, Arm), Merged>,
    kept: usize,
    left_out: u64,
}

#[derive(Debug, Default)]
struct Merged {
    from: Option<EventTime>,
    to: Option<EventTime>,
    ends: BTreeSet<EventTime>,
    calls: Calls,
    cells: Cells,
}

impl<'a> Profiler<'a> {
    /// Starts the profiles of a rollout.
    pub fn new(spec: &'a RolloutSpec, rollout: &'a RolloutId, asked: Asked) -> Self {
        Self { spec, rollout, asked, found: BTreeMap::new(), kept: 0, left_out: 0 }
    }

    /// Adds a window. Windows of other rollouts, and those that are not wholly in the range of time, are skipped.
    pub fn add(&mut self, window: &WindowClosed) {
        let start = window.end.minus(window.length);
        let early = self.asked.from.is_some_and(|from| start < from);
        let late = self.asked.to.is_some_and(|to| window.end > to);
        if window.rollout != *self.rollout || early || late {
            return;
        }
        let key = if self.asked.per_window { window.end } else { EventTime(0) };
        let arms: BTreeSet<Arm> =
            window.arms.iter().map(|counts| counts.arm).chain(window.cells.iter().map(|cell| cell.arm)).collect();
        for arm in arms {
            if !self.found.contains_key(&(key, arm)) && self.found.len() >= MOST_PROFILES {
                self.left_out += window.cells.iter().filter(|cell| cell.arm == arm).count() as u64;
                continue;
            }
            let merged = self.found.entry((key, arm)).or_default();
            merged.from = Some(merged.from.map_or(start, |from| from.min(start)));
            merged.to = Some(merged.to.map_or(window.end, |to| to.max(window.end)));
            merged.ends.insert(window.end);
            // Windows of labels repeat the calls of the windows without labels.
            if window.maturity.0 == 0 {
                window.arms.iter().filter(|counts| counts.arm == arm).for_each(|counts| merged.calls.add(counts));
            }
            let cells: Vec<_> = window.cells.iter().filter(|cell| cell.arm == arm).cloned().collect();
            let room = MOST_DISTRIBUTIONS.saturating_sub(self.kept);
            self.kept += merged.cells.add(&cells, self.spec, self.asked.segments, room);
        }
    }

    /// The profiles.
    pub fn finish(self) -> Profiles {
        let mut left_out = self.left_out;
        let mut profiles = Vec::with_capacity(self.found.len());
        for ((_, arm), merged) in self.found {
            left_out += merged.cells.left_out;
            let metrics = merged.cells.summaries.iter().map(|((_, metric, segment), summary)| {
                let metric = &self.spec.metrics[*metric];
                MetricProfile {
                    metric: metric.name.clone(),
                    source: metric.source.clone(),
                    kind: metric.kind.clone(),
                    filters: metric.filters.clone(),
                    unit: unit(Unit::of(&metric.kind, &metric.source)),
                    segment: (!segment.is_all()).then(|| segment.clone()),
                    count: summary.n(),
                    distribution: distribution(summary, &metric.kind),
                }
            });
            profiles.push(Profile {
                arm,
                version: version_of(self.spec, arm),
                from: merged.from.unwrap_or_default(),
                to: merged.to.unwrap_or_default(),
                windows: merged.ends.len() as u64,
                calls: merged.calls,
                metrics: metrics.collect(),
            });
        }
        Profiles {
            format: FORMAT.to_owned(),
            model: self.spec.model.clone(),
            rollout: self.rollout.clone(),
            profiles,
            not_profiled: not_profiled(self.spec),
            left_out,
        }
    }
}

impl Calls {
    fn add(&mut self, counts: &ArmCounts) {
        let sums = [
            (&mut self.compared, counts.predictions),
            (&mut self.excluded, counts.excluded),
            (&mut self.failed, counts.errors),
            (&mut self.refused, counts.refused),
            (&mut self.redirected, counts.redirected),
            (&mut self.unusable, counts.invalid),
            (&mut self.unread, counts.unread),
            (&mut self.cancelled, counts.cancelled),
            (&mut self.late, counts.late),
            (&mut self.lost, counts.lost),
        ];
        for (sum, more) in sums {
            *sum = sum.saturating_add(more);
        }
    }
}

/// The version that an arm's answers come from. Windows only summarize mirrored answers of the canary's version.
fn version_of(spec: &RolloutSpec, arm: Arm) -> Version {
    match arm {
        Arm::Stable | Arm::Control => spec.stable.version.clone(),
        Arm::Canary | Arm::Shadow => spec.canary.version.clone(),
    }
}

fn unit(unit: Unit) -> Option<String> {
    let name = match unit {
        Unit::Percent => "share",
        Unit::Milliseconds => "ms",
        Unit::Seconds => "s",
        Unit::Plain => return None,
    };
    Some(name.to_owned())
}

/// The distribution in a summary, in the unit of the values.
fn distribution(summary: &Summary, kind: &MetricKind) -> Distribution {
    match summary {
        Summary::Rate(rate) => Distribution::Share { events: rate.k(), share: rate.value() },
        Summary::Log(hist) => {
            let middle = |key| 2.0 * upper_edge(key) / (1.0 + GAMMA);
            let sum: f64 = hist.iter().map(|(key, count)| middle(key) * count as f64).sum();
            Distribution::Histogram {
                bins: hist
                    .iter()
                    .map(|(key, count)| Bin { from: lower_edge(key), to: upper_edge(key), count })
                    .collect(),
                quantiles: quantiles(|level| hist.quantile(level)),
                mean: (hist.total() > 0).then(|| sum / hist.total() as f64),
            }
        }
        Summary::Lin(hist) => {
            let (min, max) = if let MetricKind::Mean { min, max } = *kind { (min, max) } else { (0.0, 1.0) };
            let value = |point: i32| min + (max - min) * f64::from(point) / f64::from(LIN_CELLS);
            points(hist.iter().map(|(point, count)| Point { value: value(point), count }).collect(), None)
        }
        Summary::Capped(hist) => {
            let cap = hist.cap();
            points(hist.iter().map(|(place, count)| Point { value: place * cap, count }).collect(), Some(cap))
        }
        Summary::Classes(counts) => Distribution::Classes {
            classes: counts.iter().map(|(class, count)| (class.to_owned(), count)).collect(),
            other: counts.other(),
        },
        Summary::Events(events) => Distribution::Events { events: events.k(), per_answer: events.value() },
        Summary::Pairs(pairs) => Distribution::Pairs {
            differ: pairs.disagreements(),
            share: (pairs.n() > 0).then(|| pairs.disagreements() as f64 / pairs.n() as f64),
        },
        Summary::Moments(moments) => {
            let variance = |mean: f64| (moments.sum_of_squares() / moments.n() as f64 - mean * mean).max(0.0);
            Distribution::Moments { mean: moments.mean(), variance: moments.mean().map(variance) }
        }
        // Sums per unit are not kept, see `Cells`.
        Summary::Buckets(_) | Summary::ByUnit(_) => Distribution::Moments { mean: None, variance: None },
    }
}

fn points(points: Vec<Point>, cap: Option<f64>) -> Distribution {
    let total: u64 = points.iter().map(|point| point.count).sum();
    let sum: f64 = points.iter().map(|point| point.value * point.count as f64).sum();
    let at = |level: f64| {
        let rank = (level * total as f64).ceil().max(1.0) as u64;
        let mut seen = 0;
        points.iter().find_map(|point| {
            seen += point.count;
            (seen >= rank).then_some(point.value)
        })
    };
    Distribution::Points { quantiles: quantiles(at), mean: (total > 0).then(|| sum / total as f64), points, cap }
}

fn quantiles(at: impl Fn(f64) -> Option<f64>) -> BTreeMap<String, f64> {
    LEVELS.into_iter().filter_map(|(name, level)| Some((name.to_owned(), at(level)?))).collect()
}

/// The outputs and features that no metric reads alone, and the latency if no metric reads it.
fn not_profiled(spec: &RolloutSpec) -> Vec<NotProfiled> {
    let is_read = |name: &str| {
        let whole = spec.metrics.iter().filter(|metric| metric.filters.is_empty());
        whole.map(|metric| &metric.source).any(|source| match source {
            MetricSource::Output(output) | MetricSource::Class { output, is: None } => output == name,
            _ => false,
        })
    };
    let add = |name: &str, kind: OutputKind, range: Option<(f64, f64)>| {
        let (what, source) = match (kind, range) {
            (OutputKind::Class | OutputKind::Ranking, _) => {
                ("classes".to_owned(), format!("{{class: {{output: {name}}}}}"))
            }
            (OutputKind::Number, Some((min, max))) => {
                (format!("{{mean: {{min: {min}, max: {max}}}}}"), format!("{{output: {name}}}"))
            }
            (OutputKind::Number, None) => ("distribution".to_owned(), format!("{{output: {name}}}")),
        };
        format!("- {{name: {name}_profile, kind: {what}, source: {source}, role: watch}}")
    };
    let mut missing = Vec::new();
    // A ranking has no distribution.
    let rules = spec.outputs.iter().filter(|rule| rule.kind != OutputKind::Ranking);
    for rule in rules.filter(|rule| !is_read(&rule.name)) {
        missing.push(NotProfiled { name: rule.name.clone(), add: add(&rule.name, rule.kind, rule.min.zip(rule.max)) });
    }
    for feature in spec.features.iter().filter(|feature| !is_read(&feature.name)) {
        missing.push(NotProfiled { name: feature.name.clone(), add: add(&feature.name, feature.kind, None) });
    }
    if !spec.metrics.iter().any(|metric| metric.source == MetricSource::Latency && metric.filters.is_empty()) {
        let add = "- {name: latency_profile, kind: distribution, source: latency, role: watch}".to_owned();
        missing.push(NotProfiled { name: "latency".to_owned(), add });
    }
    missing
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use serin_schemas::records::Cell;
    use serin_sketches::{CappedHist, LinHist, LogHist, Rate};

    use super::*;

    fn spec() -> RolloutSpec {
        serde_json::from_value(json!({
            "apiVersion": "serin.dev/v1", "kind": "Rollout", "model": "m",
            "stable": {"version": "v1"}, "canary": {"version": "v2"},
            "steps": [{"weight": "10%", "bake": {"min": "1m", "max": "1h"}}],
            "outputs": [
                {"name": "score", "source": {"tensor": "score"}, "min": 0, "max": 1},
                {"name": "label", "source": {"tensor": "label"}, "kind": "class"},
                {"name": "tokens", "source": {"tensor": "tokens"}},
            ],
            "metrics": [
                {"name": "failed", "kind": "rate", "source": "failed"},
                {"name": "latency_p99", "kind": {"quantile": {"level": 0.99}}, "source": "latency"},
                {"name": "score", "kind": {"mean": {"min": -1.0, "max": 3.0}}, "source": {"output": "score"}},
                {"name": "amount", "kind": {"capped_mean": {"cap": 100.0}}, "source": {"output": "tokens"}},
            ],
        }))
        .unwrap()
    }

    fn window(end: i64, maturity: i64, arm: &str, cells: &[(&str, Segment, Summary)]) -> WindowClosed {
        let cells: Vec<_> = cells
            .iter()
            .map(|(metric, segment, summary)| Cell {
                arm: if arm == "canary" { Arm::Canary } else { Arm::Control },
                segment: segment.clone(),
                metric: (*metric).to_owned(),
                summary: summary.encode(),
            })
            .collect();
        let counts = json!({
            "arm": arm, "predictions": 10, "excluded": 1, "errors": 2, "invalid": 0, "late": 0, "lost": 0, "labelled": 0
        });
        let mut window: WindowClosed = serde_json::from_value(json!({
            "model": "m", "rollout": "r", "generation": 1, "partition": 0, "end": end, "length": 10, "maturity": maturity,
            "cells": [], "arms": [counts],
        }))
        .unwrap();
        window.cells = cells;
        window
    }

    fn latency(values: &[f64]) -> Summary {
        let mut hist = LogHist::new();
        for value in values {
            hist.insert(*value).unwrap();
        }
        Summary::Log(hist)
    }

    #[test]
    fn windows_merge_over_a_range_or_stay_apart() {
        let (spec, rollout) = (spec(), RolloutId::from("r"));
        let of = |asked: Asked| {
            let mut profiler = Profiler::new(&spec, &rollout, asked);
            for end in [10, 20, 30] {
                let rate = Summary::Rate(Rate::new(10, 2).unwrap());
                let cells =
                    [("failed", Segment::all(), rate), ("latency_p99", Segment::of("zone", "a"), latency(&[5.0]))];
                profiler.add(&window(end, 0, "canary", &cells));
                // The calls of a window of labels are those of the window without labels.
                profiler.add(&window(end, 60, "canary", &[]));
            }
            profiler.finish()
        };
        let whole = of(Asked::default());
        let [profile] = whole.profiles.as_slice() else { panic!("{whole:?}") };
        assert_eq!((profile.version.as_str(), profile.windows, profile.calls.compared), ("v2", 3, 30));
        assert_eq!((profile.from, profile.to, profile.metrics.len()), (EventTime(0), EventTime(30), 1));
        assert_eq!(profile.metrics[0].distribution, Distribution::Share { events: 6, share: Some(0.2) });
        let some = of(Asked { from: Some(EventTime(5)), to: Some(EventTime(25)), segments: true, per_window: true });
        let [profile] = some.profiles.as_slice() else { panic!("{some:?}") };
        assert_eq!((profile.from, profile.to, profile.metrics.len()), (EventTime(10), EventTime(20), 2));
        assert_eq!(profile.metrics[1].segment, Some(Segment::of("zone", "a")));
        assert_eq!(of(Asked { per_window: true, ..Asked::default() }).profiles.len(), 3);
    }

    #[test]
    fn each_kind_has_its_distribution_in_its_unit() {
        let Distribution::Histogram { bins, quantiles, mean } =
            distribution(&latency(&[0.0, 10.0, 10.0, 20.0]), &MetricKind::Quantile { level: 0.99 })
        else {
            panic!("a log histogram has bins")
        };
        assert_eq!(bins.iter().map(|bin| bin.count).collect::<Vec<_>>(), [1, 2, 1]);
        assert!(bins[1].from < 10.0 && 10.0 <= bins[1].to, "{bins:?}");
        assert!((quantiles["0.5"] / 10.0 - 1.0).abs() < 0.01 && quantiles["0"] == 0.0, "{quantiles:?}");
        assert!((mean.unwrap() / 10.0 - 1.0).abs() < 0.01, "{mean:?}");
        let mut hist = LinHist::new();
        for value in [0.0, 0.5, 0.5, 1.0] {
            hist.insert(value, 0).unwrap();
        }
        let Distribution::Points { points, quantiles, mean, .. } =
            distribution(&Summary::Lin(hist), &MetricKind::Mean { min: -1.0, max: 3.0 })
        else {
            panic!("a linear histogram has points")
        };
        assert_eq!(points.iter().map(|point| point.value).collect::<Vec<_>>(), [-1.0, 1.0, 3.0]);
        assert_eq!((quantiles["0.5"], mean), (1.0, Some(1.0)));
        let mut hist = CappedHist::new(100.0).unwrap();
        hist.insert(1e9, 0).unwrap();
        let Distribution::Points { points, cap, .. } =
            distribution(&Summary::Capped(hist), &MetricKind::CappedMean { cap: 100.0 })
        else {
            panic!("a capped histogram has points")
        };
        assert_eq!(Some(points[0].value), cap);
    }

    #[test]
    fn values_that_no_metric_reads_are_named_with_the_line_to_add() {
        let mut spec = spec();
        let of = |spec: &RolloutSpec| -> Vec<(String, String)> {
            not_profiled(spec).into_iter().map(|missing| (missing.name, missing.add)).collect()
        };
        let line = "- {name: label_profile, kind: classes, source: {class: {output: label}}, role: watch}".to_owned();
        assert_eq!(of(&spec), [("label".to_owned(), line)]);
        spec.metrics.truncate(1);
        let names: Vec<String> = of(&spec).into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["score", "label", "tokens", "latency"]);
        assert!(of(&spec)[0].1.contains("kind: {mean: {min: 0, max: 1}}"), "{:?}", of(&spec));
    }
}
