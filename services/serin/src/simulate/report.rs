//! The report on many runs.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use serin_schemas::ids::Span;

use super::run::{End, Experiment, Run};

/// Largest number of rows of the histogram.
const MOST_ROWS: f64 = 14.0;
/// Widths of its rows, in seconds.
const WIDTHS: [f64; 17] = [
    10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0, 900.0, 1800.0, 3600.0, 7200.0, 14_400.0, 21_600.0, 43_200.0, 86_400.0,
    172_800.0, 604_800.0,
];
/// `z_0.975`.
const Z: f64 = 1.96;

/// How the rollouts ended, and when.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Report {
    pub(crate) runs: usize,
    /// One report per end. Ends that did not happen are left out.
    pub(crate) ends: Vec<EndReport>,
    /// Seconds from the start of the first regression (or from the canary's first request) to a rollback on evidence.
    pub(super) rollback: Timed,
    /// Rollbacks on evidence before the start of the first regression. These are false alarms.
    pub(super) before_onset: usize,
    /// Causes of rollbacks, most frequent first.
    pub(super) tipped: Vec<Tip>,
    /// Hypotheses that failed, most frequent first, in seconds from the canary's first request.
    failed: Vec<Named>,
    /// Metrics that passed over all traffic, in seconds from the start of the step.
    pub(super) passed: Vec<Passed>,
    /// Requests that the canary served.
    pub(crate) canary_requests: Spread,
    /// By rate: events of the canary beyond those that stable would have had.
    pub(super) extra_events: BTreeMap<String, Spread>,
    pub(super) histogram: Vec<Row>,
}

/// The runs with one end.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct EndReport {
    pub(crate) end: &'static str,
    pub(super) runs: usize,
    pub(crate) share: f64,
    /// 95 % interval of the share (Wilson).
    pub(super) share_low: f64,
    pub(super) share_high: f64,
    /// Seconds from the canary's first request.
    pub(crate) seconds: Spread,
    /// The sentence of one of these runs.
    pub(crate) example: String,
}

/// Median, 10th and 90th percentile.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Spread {
    pub(super) p10: f64,
    pub(crate) median: f64,
    pub(super) p90: f64,
}

/// When an event happened, over all runs. A quantile is present if the event happened in at least that share of the runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(super) struct Timed {
    /// Share of the runs in which the event happened.
    pub(super) share: f64,
    pub(super) median_seconds: Option<f64>,
    pub(super) p90_seconds: Option<f64>,
}

/// A cause of rollbacks.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Tip {
    pub(super) metric: String,
    pub(super) segment: String,
    pub(super) runs: usize,
}

/// When a hypothesis failed.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Named {
    metric: String,
    segment: String,
    #[serde(flatten)]
    timed: Timed,
}

/// When a metric passed in a step.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Passed {
    /// Index of the step, from 0.
    pub(super) step: i32,
    pub(super) metric: String,
    #[serde(flatten)]
    pub(super) timed: Timed,
}

/// A row of the histogram of ends.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Row {
    pub(super) from_seconds: f64,
    pub(super) to_seconds: f64,
    /// Number of runs by end.
    pub(super) runs: BTreeMap<&'static str, usize>,
}

impl End {
    /// Every end, best first.
    pub(crate) const ALL: [Self; 5] = [Self::Promoted, Self::RolledBack, Self::Held, Self::NoData, Self::Unfinished];

    /// The name of the end in JSON.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Promoted => "promoted",
            Self::RolledBack => "rolled_back",
            Self::Held => "held",
            Self::NoData => "no_data",
            Self::Unfinished => "unfinished",
        }
    }
}

impl Report {
    /// The report on the runs of an experiment. `onset`: when the first regression starts.
    pub(crate) fn new(experiment: &Experiment, onset: Span, runs: &[Run]) -> Self {
        let onset = onset.as_secs_f64();
        let back = |run: &&Run| run.end == End::RolledBack;
        let rollback = runs.iter().filter(back).map(|run| run.seconds - onset).filter(|seconds| *seconds > 0.0);
        Self {
            runs: runs.len(),
            ends: End::ALL.into_iter().filter_map(|end| EndReport::new(end, runs)).collect(),
            rollback: Timed::new(rollback.collect(), runs.len()),
            before_onset: runs.iter().filter(back).filter(|run| run.seconds <= onset).count(),
            tipped: tipped(runs),
            failed: failed(runs),
            passed: passed(experiment, runs),
            canary_requests: Spread::new(runs.iter().map(|run| run.canary_requests as f64).collect()),
            extra_events: extra(experiment, runs),
            histogram: histogram(runs, experiment.spec.window.0.as_secs_f64()),
        }
    }

    /// The report on one end.
    pub(crate) fn end(&self, end: End) -> Option<&EndReport> {
        self.ends.iter().find(|report| report.end == end.name())
    }

    /// When a metric passed in a step.
    pub(super) fn passed_in(&self, step: i32, metric: &str) -> Timed {
        let found = self.passed.iter().find(|passed| passed.step == step && passed.metric == metric);
        found.map(|passed| passed.timed).unwrap_or_default()
    }
}

impl EndReport {
    fn new(end: End, runs: &[Run]) -> Option<Self> {
        let own: Vec<&Run> = runs.iter().filter(|run| run.end == end).collect();
        let example = own.first()?.sentence.clone();
        let (share, (share_low, share_high)) = (own.len() as f64 / runs.len() as f64, wilson(own.len(), runs.len()));
        let seconds = Spread::new(own.iter().map(|run| run.seconds).collect());
        Some(Self { end: end.name(), runs: own.len(), share, share_low, share_high, seconds, example })
    }
}

impl Spread {
    fn new(mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        let at = |level: f64| quantile(&values, values.len(), level).unwrap_or_default();
        Self { p10: at(0.1), median: at(0.5), p90: at(0.9) }
    }
}

impl Timed {
    fn new(mut seconds: Vec<f64>, runs: usize) -> Self {
        seconds.sort_by(f64::total_cmp);
        let at = |level| quantile(&seconds, runs, level);
        Self { share: seconds.len() as f64 / runs.max(1) as f64, median_seconds: at(0.5), p90_seconds: at(0.9) }
    }
}

/// The value of rank `ceil(level * of)`, if there are that many values.
fn quantile(sorted: &[f64], of: usize, level: f64) -> Option<f64> {
    let rank = (level * of as f64).ceil().max(1.0) as usize;
    sorted.get(rank - 1).copied()
}

/// The 95 % interval of a share (Wilson 1927).
fn wilson(count: usize, of: usize) -> (f64, f64) {
    let (n, p) = (of as f64, count as f64 / of as f64);
    let middle = (p + Z * Z / (2.0 * n)) / (1.0 + Z * Z / n);
    let half = Z / (1.0 + Z * Z / n) * (p * (1.0 - p) / n + Z * Z / (4.0 * n * n)).sqrt();
    ((middle - half).max(0.0), (middle + half).min(1.0))
}

fn tipped(runs: &[Run]) -> Vec<Tip> {
    let mut counts: BTreeMap<(&str, String), usize> = BTreeMap::new();
    for (metric, segment) in runs.iter().filter_map(|run| run.tipped.as_ref()) {
        *counts.entry((metric, segment.to_string())).or_default() += 1;
    }
    let tip = |((metric, segment), runs): ((&str, String), usize)| Tip { metric: metric.to_owned(), segment, runs };
    let mut tips: Vec<Tip> = counts.into_iter().map(tip).collect();
    tips.sort_by_key(|tip| std::cmp::Reverse(tip.runs));
    tips
}

fn failed(runs: &[Run]) -> Vec<Named> {
    let keys: BTreeSet<_> = runs.iter().flat_map(|run| run.failed.keys()).collect();
    let named = |key: &(String, serin_schemas::records::Segment)| {
        let seconds = runs.iter().filter_map(|run| run.failed.get(key).copied()).collect();
        Named { metric: key.0.clone(), segment: key.1.to_string(), timed: Timed::new(seconds, runs.len()) }
    };
    let mut all: Vec<Named> = keys.into_iter().map(named).collect();
    all.sort_by(|a, b| b.timed.share.total_cmp(&a.timed.share));
    all
}

/// When metrics passed, ordered by step and by the spec's metrics.
fn passed(experiment: &Experiment, runs: &[Run]) -> Vec<Passed> {
    let steps: BTreeSet<i32> = runs.iter().flat_map(|run| run.passed.keys().map(|(step, _)| *step)).collect();
    let metrics = || experiment.spec.metrics.iter().map(|metric| metric.name.clone());
    let all = steps.into_iter().flat_map(|step| metrics().map(move |metric| (step, metric)));
    let timed = |key: (i32, String)| {
        let seconds: Vec<f64> = runs.iter().filter_map(|run| run.passed.get(&key).copied()).collect();
        let reached = runs.iter().filter(|run| run.step >= key.0).count();
        (!seconds.is_empty()).then(|| Passed { step: key.0, metric: key.1, timed: Timed::new(seconds, reached) })
    };
    all.filter_map(timed).collect()
}

fn extra(experiment: &Experiment, runs: &[Run]) -> BTreeMap<String, Spread> {
    let metrics: BTreeSet<usize> = runs.iter().flat_map(|run| run.extra.keys().copied()).collect();
    let spread = |metric: usize| {
        let values = runs.iter().filter_map(|run| run.extra.get(&metric).copied()).collect();
        (experiment.spec.metrics[metric].name.clone(), Spread::new(values))
    };
    metrics.into_iter().map(spread).collect()
}

fn histogram(runs: &[Run], window: f64) -> Vec<Row> {
    let longest = runs.iter().map(|run| run.seconds).fold(0.0, f64::max);
    let fits = |width: &f64| *width >= window && longest <= width * MOST_ROWS;
    let width = WIDTHS.into_iter().find(fits).unwrap_or_else(|| (longest / MOST_ROWS).max(window).max(1.0));
    // A run that ends on an edge belongs to the row before it.
    let row_of = |run: &Run| ((run.seconds / width).ceil().max(1.0) - 1.0) as usize;
    let rows = runs.iter().map(row_of).max().map_or(0, |last| last + 1);
    let mut histogram: Vec<Row> = (0..rows)
        .map(|row| Row {
            from_seconds: row as f64 * width,
            to_seconds: (row + 1) as f64 * width,
            runs: BTreeMap::new(),
        })
        .collect();
    for run in runs {
        *histogram[row_of(run)].runs.entry(run.end.name()).or_default() += 1;
    }
    histogram
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_count_the_runs_without_the_event() {
        let timed = Timed::new(vec![30.0, 10.0, 20.0], 5);
        assert_eq!(timed, Timed { share: 0.6, median_seconds: Some(30.0), p90_seconds: None });
        assert_eq!(Timed::new(vec![], 5).median_seconds, None);
        assert_eq!(Spread::new((1..=10).map(f64::from).collect()), Spread { p10: 1.0, median: 5.0, p90: 9.0 });
    }

    #[test]
    fn intervals_of_shares_are_correct_even_for_none() {
        let (low, high) = wilson(0, 2000);
        assert!(low < 1e-12 && (0.0019..0.002).contains(&high), "{high}");
        let (low, high) = wilson(1000, 2000);
        assert!((low - 0.478).abs() < 1e-3 && (high - 0.522).abs() < 1e-3);
    }
}
