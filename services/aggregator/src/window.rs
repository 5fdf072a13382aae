//! One open window: per arm the counts and a cell per metric and segment value.

use serde::{Deserialize, Serialize};
use serin_rollout::MetricKind;
use serin_schemas::{
    ids::{EventTime, Generation},
    records::{Arm, ArmCounts, Cell, Prediction, Segment},
};
use serin_sketches::{Summary, hash::Salt};

use crate::{
    plan::{Metric, Plan, insert, is_error},
    segments::Dictionary,
};

/// All arms, in the order in which they are kept and written.
pub(crate) const ARMS: [Arm; 4] = [Arm::Stable, Arm::Control, Arm::Canary, Arm::Shadow];

/// Place of an arm in [`ARMS`].
pub(crate) fn place_of(arm: Arm) -> usize {
    match arm {
        Arm::Stable => 0,
        Arm::Control => 1,
        Arm::Canary => 2,
        Arm::Shadow => 3,
    }
}

/// Names a window of a rollout. Ordered by stream, so that the windows due next stand first in each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct WindowKey {
    /// Index in [`Plan::streams`].
    pub(crate) stream: usize,
    pub(crate) end: EventTime,
    pub(crate) generation: Generation,
}

/// Counts of one arm, as in [`ArmCounts`]. Its stored form is version 1 of the counts row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Counts {
    pub(crate) predictions: i64,
    pub(crate) excluded: i64,
    pub(crate) errors: i64,
    pub(crate) invalid: i64,
    pub(crate) late: i64,
    pub(crate) lost: i64,
    pub(crate) labelled: i64,
}

impl Counts {
    /// Counts an answer that is in time.
    pub(crate) fn add(&mut self, prediction: &Prediction) {
        if !prediction.assignment.is_compared() {
            self.excluded += 1;
            return;
        }
        self.predictions += 1;
        self.errors += i64::from(is_error(prediction));
        self.invalid += i64::from(prediction.invalid_output.is_some());
    }

    pub(crate) fn of(self, arm: Arm) -> ArmCounts {
        let Self { predictions, excluded, errors, invalid, late, lost, labelled } = self;
        ArmCounts { arm, predictions, excluded, errors, invalid, late, lost, labelled }
    }
}

/// Where the cells of each metric lie: `all` first, then each dimension's values.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    metrics: Vec<Cells>,
    len: usize,
}

#[derive(Clone, Debug)]
struct Cells {
    first: usize,
    len: usize,
    /// Dimension and the place of its value 0, counted from `first`.
    dimensions: Vec<(usize, usize)>,
}

impl Layout {
    pub(crate) fn new(plan: &Plan, dictionary: &Dictionary) -> Self {
        let mut first = 0;
        let mut metrics = Vec::with_capacity(plan.metrics.len());
        for metric in &plan.metrics {
            let mut len = 1;
            let mut dimensions = Vec::with_capacity(metric.dimensions.len());
            for &dimension in &metric.dimensions {
                dimensions.push((dimension, len));
                len += dictionary.slots(dimension);
            }
            metrics.push(Cells { first, len, dimensions });
            first += len;
        }
        Self { metrics, len: first }
    }
}

/// One arm of a window.
#[derive(Clone, Debug, Default)]
pub(crate) struct ArmWindow {
    pub(crate) counts: Counts,
    /// By [`Layout`]; empty until the first value.
    cells: Vec<Option<Summary>>,
    /// Changed since it was last stored.
    pub(crate) dirty: bool,
    /// Has rows.
    pub(crate) stored: bool,
}

/// One open window.
#[derive(Clone, Debug, Default)]
pub(crate) struct Window {
    pub(crate) arms: [ArmWindow; 4],
}

/// Dithers values of means: a number that depends on the request and the metric alone.
pub(crate) fn dither(request_id: &str, metric: &Metric, buffer: &mut Vec<u8>) -> u64 {
    if !matches!(metric.kind, MetricKind::Mean { .. } | MetricKind::CappedMean { .. }) {
        return 0;
    }
    buffer.clear();
    buffer.extend_from_slice(request_id.as_bytes());
    buffer.extend_from_slice(metric.name.as_bytes());
    Salt::new(b"dither").hash(buffer)
}

impl ArmWindow {
    /// Adds one value of a metric to its cell for all traffic and to those of its segments. `numbers` are the numbers of the
    /// request's segment values.
    pub(crate) fn add(&mut self, layout: &Layout, metric: (usize, &Metric), numbers: &[u16], value: f64, dither: u64) {
        if self.cells.is_empty() {
            self.cells.resize(layout.len, None);
        }
        let (index, metric) = metric;
        let cells = &layout.metrics[index];
        let mut put = |at: usize| insert(self.cells[at].get_or_insert_with(|| metric.empty()), value, dither);
        put(cells.first);
        for (dimension, place) in &cells.dimensions {
            put(cells.first + place + usize::from(numbers[*dimension]));
        }
        self.dirty = true;
    }

    /// The cells of one metric as places, counted from its first, and bytes.
    pub(crate) fn encoded(&self, layout: &Layout, metric: usize) -> Vec<(u32, Vec<u8>)> {
        let cells = &layout.metrics[metric];
        let own = self.cells.get(cells.first..cells.first + cells.len).unwrap_or_default();
        (0..).zip(own).filter_map(|(place, summary)| Some((place, summary.as_ref()?.encode()))).collect()
    }

    /// Whether a metric has any cell.
    pub(crate) fn has_cells(&self, layout: &Layout, metric: usize) -> bool {
        self.cells.get(layout.metrics[metric].first).is_some_and(Option::is_some)
    }

    /// Puts stored cells back. A place outside of the layout is an error.
    pub(crate) fn restore(
        &mut self,
        layout: &Layout,
        metric: usize,
        stored: Vec<(u32, Vec<u8>)>,
    ) -> Result<(), String> {
        if self.cells.is_empty() {
            self.cells.resize(layout.len, None);
        }
        let cells = layout.metrics.get(metric).ok_or("a metric that the spec does not have")?;
        for (place, bytes) in stored {
            let place = place as usize;
            if place >= cells.len {
                return Err(format!("cell {place} of {}", cells.len));
            }
            let summary = Summary::decode(&bytes).map_err(|error| error.to_string())?;
            self.cells[cells.first + place] = Some(summary);
        }
        Ok(())
    }

    /// The cells of the metrics of one stream, as they are written to `windows`.
    pub(crate) fn cells(&self, arm: Arm, lens: &Lens, plan: &Plan, stream: usize, into: &mut Vec<Cell>) {
        for (index, metric) in plan.metrics.iter().enumerate().filter(|(_, metric)| metric.stream == stream) {
            for (place, summary) in self.encoded(&lens.layout, index) {
                let segment = lens.segment(plan, index, place as usize);
                into.push(Cell { arm, segment, metric: metric.name.clone(), summary });
            }
        }
    }
}

/// How a mode of a rollout sees traffic: which values it tells apart, and where their cells lie.
#[derive(Clone, Debug)]
pub(crate) struct Lens {
    pub(crate) dictionary: Dictionary,
    pub(crate) layout: Layout,
}

impl Lens {
    pub(crate) fn new(plan: &Plan, dictionary: Dictionary) -> Self {
        Self { layout: Layout::new(plan, &dictionary), dictionary }
    }

    fn segment(&self, plan: &Plan, metric: usize, place: usize) -> Segment {
        let dimensions = &self.layout.metrics[metric].dimensions;
        match dimensions.iter().rev().find(|(_, first)| place >= *first) {
            None => Segment::all(),
            Some((dimension, first)) => self.dictionary.segment(&plan.dimensions, *dimension, place - first),
        }
    }
}
