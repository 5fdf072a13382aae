//! Windows merged into one summary per arm, metric and segment.

use std::collections::BTreeMap;

use serin_schemas::records::{Arm, Cell, Segment};
use serin_sketches::Summary;
use serin_spec::RolloutSpec;

/// Which summary: the arm, the index of the metric in the spec, and the segment.
type CellKey = (Arm, usize, Segment);

/// Merged summaries. Sums per unit only measure how units cluster, so they are not kept.
#[derive(Debug, Default)]
pub(crate) struct Cells {
    pub(crate) summaries: BTreeMap<CellKey, Summary>,
    /// Cells that were left out: summaries that cannot be read or merged, or cells beyond the limit.
    pub(crate) left_out: u64,
}

impl Cells {
    /// Adds the cells of a window, and returns how many new summaries are kept. At most `room` new ones are.
    pub(crate) fn add(&mut self, cells: &[Cell], spec: &RolloutSpec, in_segments: bool, room: usize) -> usize {
        let before = self.summaries.len();
        for cell in cells.iter().filter(|cell| in_segments || cell.segment.is_all()) {
            let Some(metric) = spec.metrics.iter().position(|metric| metric.name == cell.metric) else {
                self.left_out += 1;
                continue;
            };
            let summary = match Summary::decode(&cell.summary) {
                Ok(Summary::Buckets(_) | Summary::ByUnit(_)) => continue,
                Ok(summary) => summary,
                Err(_) => {
                    self.left_out += 1;
                    continue;
                }
            };
            let key = (cell.arm, metric, cell.segment.clone());
            let added = self.summaries.len() - before;
            match self.summaries.get_mut(&key) {
                Some(sum) => self.left_out += u64::from(sum.merge(&summary).is_err()),
                None if added < room => drop(self.summaries.insert(key, summary)),
                None => self.left_out += 1,
            }
        }
        self.summaries.len() - before
    }
}
