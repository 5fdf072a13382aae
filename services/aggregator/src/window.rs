//! One open window: per arm the counts, and a cell per metric and segment value.

use std::collections::BTreeMap;

use serin_kinds::Kind as _;
use serin_schemas::records::{Arm, Cell, Population, Segment};
use serin_sketches::{Buckets, ByUnit, Pair, Pairs, Summary, group_hash, hash::Salt};

use crate::{
    compiled::{CompiledSpec, Metric, insert},
    counts::Counts,
    keys::WindowKey,
    segments::Dictionary,
    value::Observed,
};

/// The positions of each metric's cells: `all` first, then each dimension's values, then the bucket sums if units are
/// assigned, then the sums per unit for each of the first ones. Also the positions of the answer counts per value of
/// each dimension.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    metrics: Vec<Cells>,
    len: usize,
    /// Per dimension, the position of its value 0 and the number of values.
    populations: Vec<(usize, usize)>,
    /// The position of the count of answers without a unit, if the external splitter should have named one.
    no_unit: Option<usize>,
    /// Whether answers are counted by their segment values.
    counts_segments: bool,
}

#[derive(Clone, Debug)]
struct Cells {
    first: usize,
    len: usize,
    /// Each dimension with the position of its value 0, relative to `first`.
    dimensions: Vec<(usize, usize)>,
    /// The position of the bucket sums, relative to `first`.
    buckets: Option<usize>,
    /// The position of the sums per unit for `all`, relative to `first`. Those of the segment values follow in their
    /// order. Where sums suffice, the bucket sums cover `all`.
    units: Option<usize>,
}

impl Cells {
    /// The positions of a request's segment values, relative to `first`.
    fn values(&self, numbers: &[u16]) -> impl Iterator<Item = usize> {
        self.dimensions.iter().map(|(dimension, place)| place + usize::from(numbers[*dimension]))
    }
}

impl Layout {
    /// `compared`: whether the arms are compared with each other, which requires sums per unit.
    fn new(compiled: &CompiledSpec, dictionary: &Dictionary, compared: bool) -> Self {
        let mut first = 0;
        let mut metrics = Vec::with_capacity(compiled.metrics.len());
        for metric in &compiled.metrics {
            let mut len = 1;
            let mut dimensions = Vec::with_capacity(metric.dimensions.len());
            for &dimension in &metric.dimensions {
                dimensions.push((dimension, len));
                len += dictionary.slots(dimension);
            }
            let values = len;
            let buckets = (compiled.sticky && metric.pairing.is_none() || compiled.guarded).then_some(len);
            len += usize::from(buckets.is_some());
            let units = (compiled.guarded && compared).then_some(len);
            len += if units.is_some() { values } else { 0 };
            metrics.push(Cells { first, len, dimensions, buckets, units });
            first += len;
        }
        let slots = (0..compiled.dimensions.len()).map(|dimension| dictionary.slots(dimension));
        let populations: Vec<(usize, usize)> =
            slots.scan(0, |first, len| Some((std::mem::replace(first, *first + len), len))).collect();
        let values = populations.last().map_or(0, |(first, len)| first + len);
        let no_unit = (compiled.guarded && compiled.external && compared).then_some(values);
        let counts_segments = compared || !compiled.learns_from_metrics();
        Self { metrics, len: first, populations, no_unit, counts_segments }
    }

    /// Number of populations.
    fn populations(&self) -> usize {
        let values = self.populations.last().map_or(0, |(first, len)| first + len);
        self.no_unit.map_or(values, |place| place + 1)
    }
}

/// One arm of a window.
#[derive(Clone, Debug, Default)]
pub(crate) struct ArmWindow {
    pub(crate) counts: Counts,
    /// Compared answers per value of each dimension, by [`Layout`]. Empty until the first answer.
    pub(crate) population: Vec<u64>,
    /// Answers whose label arrived, by the index of each metric that counts a missing label as 0. Counted when the window matures, so
    /// it is not stored.
    pub(crate) labelled: BTreeMap<usize, i64>,
    /// Compared calls by the bucket of their unit, if a key assigns the arm. At most [`UNIT_BUCKETS`](serin_sketches::UNIT_BUCKETS) entries.
    pub(crate) units: BTreeMap<u8, Counts>,
    /// Cells by [`Layout`]. Empty until the first value.
    cells: Vec<Option<Summary>>,
    /// Whether the window has changed since it was last stored.
    pub(crate) dirty: bool,
    /// Whether the window has stored rows.
    pub(crate) stored: bool,
    /// Metrics whose cells do not fit into one row, with the number of further rows.
    pub(crate) more_rows: BTreeMap<usize, u8>,
}

/// One open window.
#[derive(Clone, Debug, Default)]
pub(crate) struct Window {
    pub(crate) arms: [ArmWindow; 4],
}

/// The dither for values of means. It depends only on the request and the metric.
pub(crate) fn dither(request_id: &str, metric: &Metric, buffer: &mut Vec<u8>) -> u64 {
    if !metric.kind.is_dithered(metric.by_value) {
        return 0;
    }
    buffer.clear();
    buffer.extend_from_slice(request_id.as_bytes());
    buffer.extend_from_slice(metric.name.as_bytes());
    Salt::new(b"dither").hash(buffer)
}

/// The request that a value belongs to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Subject<'a> {
    /// Numbers of the request's segment values.
    pub(crate) numbers: &'a [u16],
    /// Hash of the request's unit, if units are assigned.
    pub(crate) unit: Option<u64>,
}

impl Window {
    /// Estimated bytes of memory.
    pub(crate) fn bytes(&self) -> usize {
        let of = |arm: &ArmWindow| {
            let summaries: usize = arm.cells.iter().flatten().map(Summary::heap_bytes).sum();
            let units = arm.units.len() * size_of::<(u8, Counts)>() * 3 / 2;
            size_of_val(arm.population.as_slice()) + size_of_val(arm.cells.as_slice()) + summaries + units
        };
        size_of::<(WindowKey, Self)>() * 3 / 2 + self.arms.iter().map(of).sum::<usize>()
    }
}

impl ArmWindow {
    /// Adds a value of a metric to the cell for all traffic and to the cells of its segments.
    pub(crate) fn add(
        &mut self,
        layout: &Layout,
        metric: (usize, &Metric),
        subject: Subject<'_>,
        observed: &Observed<'_>,
        dither: u64,
    ) {
        let (index, metric) = metric;
        let (value, in_segments) = (&observed.whole, observed.in_segments());
        let empty = || metric.empty();
        self.put(layout, index, empty, |summary| insert(summary, value, dither));
        if let Some(value) = in_segments {
            self.put_in_segments(layout, index, subject.numbers, empty, |summary| insert(summary, value, dither));
        }
        if metric.is_sum() {
            self.add_sum(
                layout,
                index,
                subject,
                metric.position(value),
                in_segments.map(|value| metric.position(value)),
            );
            return;
        }
        let cells = &layout.metrics[index];
        if let (Some(place), Some(unit)) = (cells.buckets, subject.unit) {
            self.add_to_buckets(cells.first + place, unit, metric.position(value));
        }
        if let (Some(place), Some(unit)) = (cells.units, subject.unit) {
            for at in std::iter::once(0).chain(cells.values(subject.numbers)) {
                let cell = &mut self.cells[cells.first + place + at];
                if let Summary::ByUnit(by_unit) = cell.get_or_insert_with(|| Summary::ByUnit(ByUnit::new())) {
                    by_unit.add(unit, empty, |summary| insert(summary, value, dither));
                }
            }
        }
    }

    /// Adds the two answers to one mirrored call.
    pub(crate) fn add_pair(&mut self, layout: &Layout, index: usize, subject: Subject<'_>, pair: Pair) {
        let empty = || Summary::Pairs(Pairs::new());
        let insert = |summary: &mut Summary| {
            if let Summary::Pairs(pairs) = summary {
                // A full summary (2^53 pairs) ignores further pairs.
                let _ = pairs.insert(pair);
            }
        };
        self.put(layout, index, empty, insert);
        self.put_in_segments(layout, index, subject.numbers, empty, insert);
        let differs = f64::from(u8::from(pair.differs()));
        self.add_sum(layout, index, subject, differs, Some(differs));
    }

    /// Adds to the sums of the unit: by its bucket for all traffic, and by its group in each segment.
    fn add_sum(&mut self, layout: &Layout, index: usize, subject: Subject<'_>, x: f64, in_segments: Option<f64>) {
        let (cells, Some(unit)) = (&layout.metrics[index], subject.unit) else { return };
        if let Some(place) = cells.buckets {
            self.add_to_buckets(cells.first + place, unit, x);
        }
        if let (Some(place), Some(x)) = (cells.units, in_segments) {
            for at in cells.values(subject.numbers) {
                self.add_to_buckets(cells.first + place + at, group_hash(unit), x);
            }
        }
    }

    fn add_to_buckets(&mut self, place: usize, unit: u64, x: f64) {
        if let Summary::Buckets(sums) = self.cells[place].get_or_insert_with(|| Summary::Buckets(Buckets::new())) {
            // An error (full or not representable) only affects the sums per unit.
            let _ = sums.insert(unit, x, 1);
        }
    }

    /// Adds to the cell for all traffic.
    fn put(&mut self, layout: &Layout, index: usize, empty: impl Fn() -> Summary, insert: impl FnOnce(&mut Summary)) {
        if self.cells.is_empty() {
            self.cells.resize(layout.len, None);
        }
        insert(self.cells[layout.metrics[index].first].get_or_insert_with(empty));
        self.dirty = true;
    }

    /// Adds to the cells of a request's segments, after [`put`](Self::put).
    fn put_in_segments(
        &mut self,
        layout: &Layout,
        index: usize,
        numbers: &[u16],
        empty: impl Fn() -> Summary,
        insert: impl Fn(&mut Summary),
    ) {
        let cells = &layout.metrics[index];
        for place in cells.values(numbers) {
            insert(self.cells[cells.first + place].get_or_insert_with(&empty));
        }
    }

    /// Counts a compared answer by its segment values, and counts whether it names its unit.
    pub(crate) fn count_population(&mut self, layout: &Layout, numbers: &[u16], names_unit: bool) {
        if !layout.counts_segments {
            return;
        }
        if self.population.is_empty() {
            self.population.resize(layout.populations(), 0);
        }
        if let Some(place) = layout.no_unit.filter(|_| !names_unit) {
            self.population[place] += 1;
        }
        for ((first, _), number) in layout.populations.iter().zip(numbers) {
            self.population[first + usize::from(*number)] += 1;
        }
    }

    /// Adds the number of compared answers per value of each dimension, and of answers with each label that may be missing, to `into`, in
    /// the form written to `windows`.
    pub(crate) fn populations(&self, arm: Arm, view: &CellView, compiled: &CompiledSpec, into: &mut Vec<Population>) {
        for (dimension, &(first, len)) in view.layout.populations.iter().enumerate() {
            let own = self.population.get(first..first + len).unwrap_or_default();
            for (number, &predictions) in own.iter().enumerate().filter(|(_, count)| **count > 0) {
                let segment = view.dictionary.segment(&compiled.dimensions, dimension, number);
                into.push(Population { arm, segment, predictions: predictions as i64 });
            }
        }
        let no_unit = view.layout.no_unit.and_then(|place| self.population.get(place)).filter(|count| **count > 0);
        into.extend(no_unit.map(|&count| Population { arm, segment: Segment::no_unit(), predictions: count as i64 }));
        let labelled = self.labelled.iter().map(|(&metric, &predictions)| {
            let segment = Segment::with_label(&compiled.metrics[metric].name);
            Population { arm, segment, predictions }
        });
        into.extend(labelled);
    }

    /// Restores stored numbers. A different number of values is an error, except in warm-up, where it changes with
    /// `max_warmup_values`. Values beyond the new bound count as `other`.
    pub(crate) fn restore_population(&mut self, view: &CellView, stored: Vec<u64>) -> Result<(), String> {
        let len = view.layout.populations();
        if stored.is_empty() || stored.len() == len {
            self.population = stored;
            return Ok(());
        }
        let dimensions = &view.layout.populations;
        if !view.dictionary.learns() || dimensions.is_empty() || !stored.len().is_multiple_of(dimensions.len()) {
            return Err(format!("the window has {} segment values instead of {len}", stored.len()));
        }
        self.population = vec![0; len];
        for (own, &(first, slots)) in stored.chunks(stored.len() / dimensions.len()).zip(dimensions) {
            for (number, count) in own.iter().enumerate() {
                self.population[first + if number < slots { number } else { 0 }] += count;
            }
        }
        Ok(())
    }

    /// The cells of one metric as positions, relative to its first cell, and bytes.
    pub(crate) fn encoded(&self, layout: &Layout, metric: usize) -> Vec<(u32, Vec<u8>)> {
        let cells = &layout.metrics[metric];
        let own = self.cells.get(cells.first..cells.first + cells.len).unwrap_or_default();
        (0..).zip(own).filter_map(|(place, summary)| Some((place, summary.as_ref()?.encode()))).collect()
    }

    /// Whether a metric has any cell.
    pub(crate) fn has_cells(&self, layout: &Layout, metric: usize) -> bool {
        self.cells.get(layout.metrics[metric].first).is_some_and(Option::is_some)
    }

    /// Restores stored cells. A position outside of the layout is an error.
    pub(crate) fn restore(
        &mut self,
        layout: &Layout,
        metric: usize,
        stored: Vec<(u32, Vec<u8>)>,
    ) -> Result<(), String> {
        if self.cells.is_empty() {
            self.cells.resize(layout.len, None);
        }
        let cells = layout.metrics.get(metric).ok_or("it contains a metric that the spec does not have")?;
        for (place, bytes) in stored {
            let place = place as usize;
            if place >= cells.len {
                return Err(format!("it contains cell {place}, but the metric has {} cells", cells.len));
            }
            let summary = Summary::decode(&bytes).map_err(|error| error.to_string())?;
            self.cells[cells.first + place] = Some(summary);
        }
        Ok(())
    }

    /// Adds the cells of one stream's metrics, in the form written to `windows`.
    pub(crate) fn cells(
        &self,
        arm: Arm,
        view: &CellView,
        compiled: &CompiledSpec,
        stream: usize,
        into: &mut Vec<Cell>,
    ) {
        for (index, metric) in compiled.metrics.iter().enumerate().filter(|(_, metric)| metric.stream == stream) {
            for (place, summary) in self.encoded(&view.layout, index) {
                let segment = view.segment(compiled, index, place as usize);
                into.push(Cell { arm, segment, metric: metric.name.clone(), summary });
            }
        }
    }
}

/// How traffic is split into cells in one mode of a rollout: the segment values, and the positions of their cells.
#[derive(Clone, Debug)]
pub(crate) struct CellView {
    pub(crate) dictionary: Dictionary,
    pub(crate) layout: Layout,
}

impl CellView {
    /// Creates the view for warm-up, with the values learned so far.
    pub(crate) fn warming(compiled: &CompiledSpec, dictionary: Dictionary) -> Self {
        Self { layout: Layout::new(compiled, &dictionary, false), dictionary }
    }

    /// Creates the view for the comparison, with the frozen values.
    pub(crate) fn compared(compiled: &CompiledSpec, dictionary: Dictionary) -> Self {
        Self { layout: Layout::new(compiled, &dictionary, true), dictionary }
    }

    fn segment(&self, compiled: &CompiledSpec, metric: usize, place: usize) -> Segment {
        let cells = &self.layout.metrics[metric];
        let place = cells.units.filter(|units| place >= *units).map_or(place, |units| place - units);
        let dimensions = cells.dimensions.iter().filter(|_| cells.buckets != Some(place));
        match dimensions.rev().find(|(_, first)| place >= *first) {
            None => Segment::all(),
            Some((dimension, first)) => self.dictionary.segment(&compiled.dimensions, *dimension, place - first),
        }
    }
}
