//! Single declared segments, from the records of `windows`.

use std::collections::BTreeMap;

use serin_kinds::Unit;
use serin_schemas::{
    ids::RolloutId,
    records::{Arm, Segment, WindowClosed},
};
use serin_sketches::{LogHist, Scatter, Summary, key_nearest_edge};
use serin_spec::{Direction, MetricKind, MetricSpec, RolloutSpec};

use super::{Arms, Candidate, ReadFrom, Scale};
use crate::cells::Cells;

/// Most summaries that are kept.
const MOST_SUMMARIES: usize = 20_000;

/// Merges the windows of a rollout.
#[derive(Debug)]
pub struct Windows<'a> {
    spec: &'a RolloutSpec,
    rollout: &'a RolloutId,
    cells: Cells,
}

impl<'a> Windows<'a> {
    /// Starts the search of a rollout.
    pub fn new(spec: &'a RolloutSpec, rollout: &'a RolloutId) -> Self {
        Self { spec, rollout, cells: Cells::default() }
    }

    /// Adds a window. Windows of other rollouts are skipped.
    pub fn add(&mut self, window: &WindowClosed) {
        if window.rollout == *self.rollout {
            let room = MOST_SUMMARIES.saturating_sub(self.cells.summaries.len());
            self.cells.add(&window.cells, self.spec, true, room);
        }
    }

    /// For each metric on a quantile: the control arm's quantile over all traffic. A contrast compares the shares of answers above it.
    pub fn thresholds(&self) -> BTreeMap<String, f64> {
        let metrics = self.spec.metrics.iter().enumerate();
        let found = metrics.filter_map(|(index, metric)| {
            let MetricKind::Quantile { level } = metric.kind else { return None };
            let Summary::Log(hist) = self.cells.summaries.get(&(Arm::Control, index, Segment::all()))? else {
                return None;
            };
            Some((metric.name.clone(), hist.quantile(level)?))
        });
        found.collect()
    }

    /// The metrics whose windows have segments, with the names of the dimensions.
    pub fn dimensions(&self) -> Vec<(String, String)> {
        let mut found: Vec<(String, String)> = self
            .cells
            .summaries
            .keys()
            .filter(|(_, _, segment)| !segment.is_all())
            .map(|(_, metric, segment)| (self.spec.metrics[*metric].name.clone(), segment.dimension.clone()))
            .collect();
        found.dedup();
        found.sort();
        found.dedup();
        found
    }

    /// One candidate per metric and segment value. `design_effect` gives the number of answers of a metric that count as one.
    pub fn candidates(&self, design_effect: impl Fn(&str) -> f64) -> Vec<Candidate> {
        let thresholds = self.thresholds();
        let mut sums: BTreeMap<(usize, &Segment), Arms> = BTreeMap::new();
        for ((arm, metric, segment), summary) in &self.cells.summaries {
            let threshold = thresholds.get(&self.spec.metrics[*metric].name).copied();
            let Some(scatter) = scatter(summary, threshold) else { continue };
            let arms = sums.entry((*metric, segment)).or_default();
            match arm {
                Arm::Canary => arms.canary = scatter,
                Arm::Control => arms.control = scatter,
                Arm::Stable | Arm::Shadow => {}
            }
        }
        let all = Segment::all();
        let mut candidates = Vec::new();
        for ((metric, segment), inside) in sums.iter().filter(|((_, segment), _)| !segment.is_all()) {
            let Some(whole) = sums.get(&(*metric, &all)) else { continue };
            let metric = &self.spec.metrics[*metric];
            let threshold = thresholds.get(&metric.name).copied();
            let Some(scale) = Scale::of(metric, threshold) else { continue };
            candidates.push(Candidate {
                metric: metric.name.clone(),
                measure: threshold.map(|threshold| above(metric, threshold)),
                place: vec![(*segment).clone()],
                from: ReadFrom::Windows,
                scale,
                higher_is_worse: metric.direction == Direction::LowerIsBetter,
                design_effect: design_effect(&metric.name),
                inside: *inside,
                outside: whole.without(*inside),
            });
        }
        candidates
    }
}

/// What a share above a quantile is called.
pub(super) fn above(metric: &MetricSpec, threshold: f64) -> String {
    format!("share above {}", Unit::of(&metric.kind, &metric.source).value(threshold))
}

fn scatter(summary: &Summary, threshold: Option<f64>) -> Option<Scatter> {
    match (summary, threshold) {
        (Summary::Log(hist), Some(threshold)) => Some(beyond(hist, threshold)),
        (Summary::Rate(_) | Summary::Lin(_) | Summary::Capped(_) | Summary::Log(_), _) => Some(Scatter::of(summary)),
        _ => None,
    }
}

/// How many values are in bins above the threshold.
fn beyond(hist: &LogHist, threshold: f64) -> Scatter {
    let above = key_nearest_edge(threshold).map_or(0, |key| hist.count_above(key)) as f64;
    Scatter { n: hist.total() as f64, sum: above, squares: above }
}
