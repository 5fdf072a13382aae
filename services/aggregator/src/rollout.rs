//! One active rollout on one partition: assigns events to windows and keeps the open windows.
//!
//! Invariants:
//! - An event is counted in exactly one window of each stream: in its own window while that is open, otherwise (as late) in the
//!   next one to close.
//! - The contents of a window do not depend on the order of its events.

use std::{collections::BTreeMap, sync::Arc};

use serin_schemas::{
    ids::{EventTime, Generation, ModelName, RolloutId},
    records::{Arm, Assignment, Control, Outcome, Phase},
    view::PredictionView,
};
use serin_sketches::{bucket_of, hash::hash64};
use serin_spec::{Frozen, RolloutSpec, Rules};

use crate::{
    compiled::{CompiledSpec, Measure, Metric, Needed},
    counts::Counts,
    join::Join,
    joins::Joins,
    keys::{JoinKey, WindowKey, place_of},
    label::RowState,
    metrics::Tally,
    pairing::PairSide,
    segments::Dictionary,
    value::{NoSummary, class_hash},
    window::{ArmWindow, CellView, Subject, Window, dither},
};

/// Which part of a generation's traffic is sketched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Nothing is sketched: the rollout is pending.
    Off,
    /// The stable arm is sketched, with as many segment values as there is room for.
    Warming,
    /// Canary, control and shadow are sketched, with the frozen segment values.
    Compare,
}

impl Mode {
    fn of(control: &Control) -> Self {
        match control.phase {
            Phase::Pending => Self::Off,
            _ if control.frozen.is_some() => Self::Compare,
            _ => Self::Warming,
        }
    }

    fn sketches(self, arm: Arm) -> bool {
        match self {
            Self::Off => false,
            Self::Warming => arm == Arm::Stable,
            Self::Compare => arm != Arm::Stable,
        }
    }

    /// Whether an answer of this arm may be part of a pair: a mirror, or the live answer that was mirrored.
    fn pairs(self, arm: Arm) -> bool {
        self == Self::Compare && arm != Arm::Canary
    }
}

/// The progress of a partition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Frontier {
    pub(crate) watermark: Option<EventTime>,
    /// The watermark for models whose calls intake relays.
    pub(crate) relayed: Option<EventTime>,
    /// The last `ClosedThrough` that was written.
    pub(crate) promised: Option<EventTime>,
}

impl Frontier {
    /// A window of a rollout is closed when its end plus its maturity is at or before this time.
    pub(crate) fn closed_to(self, compiled: &CompiledSpec) -> Option<EventTime> {
        let mark = if compiled.external { self.relayed } else { self.watermark.max(self.promised) };
        mark.map(|mark| mark.minus(compiled.grace))
    }
}

/// Where an event belongs within its rollout.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) generation: Generation,
    arm: Arm,
    /// Whether the call was assigned at random and its version is that of its arm.
    compared: bool,
    /// Whether the values of the call are sketched.
    sketched: bool,
    /// Whether the call may be part of a pair.
    paired: bool,
}

impl Place {
    pub(crate) fn is_shadow(self) -> bool {
        self.arm == Arm::Shadow
    }
}

/// Everything that a rollout needs in addition to its own state.
pub(crate) struct Work<'a> {
    pub(crate) frontier: Frontier,
    pub(crate) joins: &'a mut Joins,
    pub(crate) tally: &'a mut Tally,
    pub(crate) scratch: &'a mut Scratch,
}

/// Buffers that are reused for each event.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    numbers: Vec<u16>,
    pub(crate) buffer: Vec<u8>,
}

/// The view of each generation's traffic.
#[derive(Debug)]
pub(crate) struct CellViews {
    generations: BTreeMap<Generation, Mode>,
    pub(crate) warming: CellView,
    frozen: Option<CellView>,
}

impl CellViews {
    pub(crate) fn of(&self, generation: Generation) -> &CellView {
        match (self.generations.get(&generation), &self.frozen) {
            (Some(Mode::Compare), Some(frozen)) => frozen,
            _ => &self.warming,
        }
    }

    fn of_mut(&mut self, generation: Generation) -> &mut CellView {
        match (self.generations.get(&generation), &mut self.frozen) {
            (Some(Mode::Compare), Some(frozen)) => frozen,
            _ => &mut self.warming,
        }
    }
}

/// An active rollout.
#[derive(Debug)]
pub(crate) struct ActiveRollout {
    /// The rollout's number in row keys.
    pub(crate) number: u32,
    pub(crate) model: ModelName,
    pub(crate) id: RolloutId,
    pub(crate) compiled: CompiledSpec,
    pub(crate) views: CellViews,
    pub(crate) windows: BTreeMap<WindowKey, Window>,
    /// Keys of rows to remove.
    pub(crate) removed: Vec<Vec<u8>>,
}

/// Maximum number of generations of one rollout that are distinguished. Older ones count as unknown.
const MAX_GENERATIONS: usize = 1024;

impl ActiveRollout {
    pub(crate) fn new(number: u32, control: &Control, spec: &RolloutSpec, values: usize) -> Self {
        let compiled = CompiledSpec::new(spec, Rules::numbered(control.rules).folded());
        let warming = CellView::warming(&compiled, Dictionary::learning(compiled.dimensions.len(), values));
        Self {
            number,
            model: control.model.clone(),
            id: control.rollout.clone(),
            compiled,
            views: CellViews { generations: BTreeMap::new(), warming, frozen: None },
            windows: BTreeMap::new(),
            removed: Vec::new(),
        }
    }

    /// Starts a generation. Returns a generation that is too old to be kept, if any.
    pub(crate) fn begin(&mut self, control: &Control, frozen: Option<&Frozen>) -> Option<Generation> {
        let CellViews { generations, frozen: view, .. } = &mut self.views;
        if let Some(frozen) = frozen
            && view.is_none()
        {
            *view = Some(CellView::compared(&self.compiled, Dictionary::frozen(&self.compiled.dimensions, frozen)));
        }
        generations.insert(control.generation, Mode::of(control));
        if generations.len() <= MAX_GENERATIONS {
            return None;
        }
        generations.pop_first().map(|(generation, _)| generation)
    }

    /// Where a prediction belongs. `None`: it does not belong to this rollout.
    pub(crate) fn locate(&self, prediction: &PredictionView<'_>) -> Option<Place> {
        if prediction.rollout.is_some_and(|rollout| rollout != self.id.as_str()) {
            return None;
        }
        let known =
            self.views.generations.get_key_value(&prediction.generation).filter(|_| prediction.rollout.is_some());
        let newest = || self.views.generations.last_key_value().filter(|_| self.compiled.external);
        let (&generation, &mode) = known.or_else(newest)?;
        let arm = if self.compiled.external { self.external_arm(prediction, mode) } else { prediction.arm };
        if arm == Arm::Shadow && prediction.version != self.compiled.canary.as_str() {
            // Mirrors to other versions are not part of the comparison.
            return None;
        }
        let compared = prediction.assignment.is_compared() && !self.is_foreign(prediction, arm);
        let sketched = compared && mode.sketches(arm);
        let paired = compared && !self.compiled.paired.is_empty() && mode.pairs(arm);
        (mode != Mode::Off).then_some(Place { generation, arm, compared, sketched, paired })
    }

    /// The arm of an answer whose traffic was split by another system: the named arm, otherwise derived from the
    /// version. The stable arm of that system is the control that the canary is compared with.
    fn external_arm(&self, prediction: &PredictionView<'_>, mode: Mode) -> Arm {
        match prediction.arm {
            Arm::Stable if prediction.version == self.compiled.canary.as_str() => Arm::Canary,
            Arm::Stable if mode == Mode::Compare && prediction.version == self.compiled.stable.as_str() => Arm::Control,
            Arm::Control if mode == Mode::Warming => Arm::Stable,
            arm => arm,
        }
    }

    /// Whether another system reports an answer whose version is not that of its arm. Such an answer is not evidence
    /// about either version.
    fn is_foreign(&self, prediction: &PredictionView<'_>, arm: Arm) -> bool {
        let own = if matches!(arm, Arm::Canary | Arm::Shadow) { &self.compiled.canary } else { &self.compiled.stable };
        self.compiled.external && self.compiled.rules.check_versions() && prediction.version != own.as_str()
    }

    fn is_closed(&self, stream: usize, end: EventTime, frontier: Frontier) -> bool {
        frontier.closed_to(&self.compiled).is_some_and(|to| end.plus(self.compiled.streams[stream]) <= to)
    }

    /// The arm's part of the next window of a stream to close.
    fn next_to_close(
        &mut self,
        stream: usize,
        generation: Generation,
        arm: Arm,
        frontier: Frontier,
    ) -> Option<&mut ArmWindow> {
        let to = frontier.closed_to(&self.compiled)?;
        let end = to.minus(self.compiled.streams[stream]).window_end(self.compiled.window);
        let window = self.windows.entry(WindowKey { stream, end, generation }).or_default();
        let window = &mut window.arms[place_of(arm)];
        window.dirty = true;
        Some(window)
    }

    /// Counts lost events in the next window to close of the newest generation.
    pub(crate) fn lose(&mut self, arm: Arm, count: i64, frontier: Frontier) {
        self.count_next(arm, count, frontier, |counts| &mut counts.lost);
    }

    /// Counts labels that contradict earlier ones in the next window to close of the newest generation.
    pub(crate) fn contradict(&mut self, arm: Arm, count: i64, frontier: Frontier) {
        self.count_next(arm, count, frontier, |counts| &mut counts.contradicting);
    }

    fn count_next(&mut self, arm: Arm, count: i64, frontier: Frontier, of: impl Fn(&mut Counts) -> &mut i64) {
        let newest = self.views.generations.last_key_value().map(|(generation, _)| *generation);
        if count > 0
            && let Some(generation) = newest
            && let Some(window) = self.next_to_close(0, generation, arm, frontier)
        {
            *of(&mut window.counts) += count;
        }
    }

    /// Counts a prediction.
    pub(crate) fn prediction(&mut self, prediction: &PredictionView<'_>, place: Place, work: &mut Work<'_>) {
        let id = prediction.request_id;
        let shadow = place.arm == Arm::Shadow;
        if self.compiled.external && work.joins.get(id, shadow).is_some() {
            // The first report of a call counts; a later one may still add outputs.
            work.tally.duplicate += 1;
            self.fill(prediction, shadow, work);
            return;
        }
        if prediction.assignment == Assignment::Fallback {
            // The caller saw stable's answer, so its label is not evidence about the canary. The canary's failure is
            // counted.
            work.joins.remove(&JoinKey { id: id.into(), shadow: false });
        }
        let end = prediction.completed_at.window_end(self.compiled.window);
        let missing = self.count(prediction, place, end, work);
        let cancelled = self.compiled.rules.count_outcomes() && prediction.outcome() == Outcome::Cancelled;
        if cancelled && place.compared {
            // Neither a label nor a mirror is evidence about an answer that its caller did not wait for.
            return;
        }
        let waits = self.count_streams(place, end, work.frontier);
        let open = !self.is_closed(0, end, work.frontier);
        if !(waits || place.sketched && open && (missing != 0 || self.compiled.external)) {
            return;
        }
        if !work.joins.admits(id) {
            work.tally.sampled_out += 1;
        } else if work.joins.get(id, shadow).is_none() {
            let key = JoinKey { id: id.into(), shadow };
            let mut counted = Counts::default();
            counted.add(prediction, place.compared, self.compiled.rules.count_outcomes());
            let mut join = Join {
                id: Arc::clone(&key.id),
                rollout: self.number,
                generation: place.generation,
                arm: place_of(place.arm) as u8,
                end,
                error: counted.errors > 0,
                invalid: counted.invalid > 0,
                sketched: place.sketched,
                unit: self.unit_of(prediction),
                numbers: work.scratch.numbers.as_slice().into(),
                missing,
                outputs: vec![f64::NAN; self.compiled.outputs.len()].into(),
                classes: vec![None; self.compiled.classes.len()].into(),
                labels: vec![None; self.compiled.labels.len()].into(),
                truths: vec![None; self.compiled.truths.len()].into(),
                sides: vec![None; if place.paired { self.compiled.paired.len() } else { 0 }].into(),
                place: 0,
                row: RowState::default(),
            };
            self.learn(&mut join, prediction);
            if let Some(other) = work.joins.get(id, !shadow).filter(|other| other.rollout == self.number) {
                // Labels that the other answer to the call has already received.
                join.labels.clone_from(&other.labels);
                join.truths.clone_from(&other.truths);
            }
            work.joins.insert(key, join, work.tally);
        }
    }

    /// Records values of an event that are not known yet and that labels or the other answer will need.
    fn learn(&self, join: &mut Join, prediction: &PredictionView<'_>) {
        // The items of a ranking come from one report: those of another report may be in another order.
        let has_ranking = |label: &str| {
            let first = self.compiled.outputs.iter().position(|needed| needed.is_first_item_of(label));
            first.is_some_and(|first| !join.outputs[first].is_nan())
        };
        let known: Vec<&str> =
            self.compiled.outputs.iter().filter_map(Needed::ranking).filter(|name| has_ranking(name)).collect();
        for (needed, value) in self.compiled.outputs.iter().zip(&mut join.outputs) {
            if value.is_nan() && needed.ranking().is_none_or(|ranking| !known.contains(&ranking)) {
                *value = needed.of(prediction);
            }
        }
        for (name, class) in self.compiled.classes.iter().zip(&mut join.classes) {
            *class = class.or_else(|| prediction.classes.get(name).map(class_hash));
        }
        for (&index, side) in self.compiled.paired.iter().zip(&mut join.sides) {
            if side.is_none() {
                *side = self.side(index, prediction);
            }
        }
    }

    fn side(&self, metric: usize, prediction: &PredictionView<'_>) -> Option<PairSide> {
        let metric = &self.compiled.metrics[metric];
        metric.pairing.as_ref()?.side(&metric.value(prediction)?)
    }

    /// Counts a prediction in the stream of immediate metrics and sketches its values. Returns the metrics whose
    /// values are missing.
    fn count(&mut self, prediction: &PredictionView<'_>, place: Place, end: EventTime, work: &mut Work<'_>) -> u64 {
        let sketched = place.sketched;
        if sketched || place.paired {
            let view = self.views.of_mut(place.generation);
            let numbers = &mut work.scratch.numbers;
            let others = view.dictionary.numbers(&self.compiled.dimensions, prediction.segments, numbers);
            work.tally.segment_overflow += if sketched { others } else { 0 };
        }
        if self.is_closed(0, end, work.frontier) {
            work.tally.late += 1;
            if let Some(window) = self.next_to_close(0, place.generation, place.arm, work.frontier) {
                window.counts.late += 1;
            }
            return 0;
        }
        work.tally.counted += 1;
        let key = WindowKey { stream: 0, end, generation: place.generation };
        let unit = self.unit_of(prediction);
        let is_comparing = self.views.generations.get(&place.generation) == Some(&Mode::Compare);
        let by_unit = place.compared && self.compiled.guarded && is_comparing;
        let window = &mut self.windows.entry(key).or_default().arms[place_of(place.arm)];
        window.counts.add(prediction, place.compared, self.compiled.rules.count_outcomes());
        if let Some(unit) = unit.filter(|_| by_unit) {
            let counts = window.units.entry(bucket_of(unit)).or_default();
            counts.add(prediction, true, self.compiled.rules.count_outcomes());
        }
        window.dirty = true;
        if !sketched {
            return 0;
        }
        let view = self.views.of(place.generation);
        window.count_population(&view.layout, &work.scratch.numbers, prediction.unit.is_some());
        let Scratch { numbers, buffer } = &mut *work.scratch;
        let subject = Subject { numbers, unit };
        let mut missing = 0;
        let outcome = self.compiled.rules.count_outcomes().then(|| prediction.outcome());
        let has_part =
            |metric: &Metric| metric.pairing.is_none() && outcome.is_none_or(|outcome| metric.takes(outcome));
        for (index, metric) in self.compiled.metrics.iter().enumerate().filter(|(_, metric)| has_part(metric)) {
            let counts = self.compiled.counts(metric, prediction);
            match metric.observed(prediction).filter(|_| counts.is_some()) {
                Some(_) if counts == Some(false) => {}
                Some(Ok(observed)) => {
                    let dither = dither(prediction.request_id, metric, buffer);
                    window.add(&view.layout, (index, metric), subject, &observed, dither);
                }
                Some(Err(NoSummary)) => work.tally.unusable += 1,
                None => {
                    let bit = self.compiled.fillable.iter().position(|&fillable| fillable == index);
                    missing |= bit.map_or(0, |bit| 1 << bit);
                }
            }
        }
        missing
    }

    /// Counts a prediction in the streams of delayed metrics. Returns whether any of them waits for it.
    fn count_streams(&mut self, place: Place, end: EventTime, frontier: Frontier) -> bool {
        let mut waits = false;
        for stream in 1..self.compiled.streams.len() {
            let pairs = self.compiled.paired.iter().any(|&metric| self.compiled.metrics[metric].stream == stream);
            let labels = self.compiled.metrics.iter().any(|metric| metric.stream == stream && metric.pairing.is_none());
            if self.is_closed(stream, end, frontier) {
                if let Some(window) = self.next_to_close(stream, place.generation, place.arm, frontier) {
                    window.counts.late += 1;
                }
                continue;
            }
            let key = WindowKey { stream, end, generation: place.generation };
            if !place.compared {
                let window = &mut self.windows.entry(key).or_default().arms[place_of(place.arm)];
                window.counts.excluded += 1;
                window.dirty = true;
            } else if place.sketched && labels || place.paired && pairs {
                // Create the window with its first prediction, so that closing it finds the waiting predictions.
                self.windows.entry(key).or_default();
                waits = true;
            }
        }
        waits
    }

    /// Adds outputs that a model server reports to the prediction that waits under its id. Returns false if none
    /// waits.
    pub(crate) fn fill(&mut self, report: &PredictionView<'_>, shadow: bool, work: &mut Work<'_>) -> bool {
        let id = report.request_id;
        let Some(join) = work.joins.get_mut(id, shadow).filter(|join| join.rollout == self.number) else {
            return false;
        };
        self.learn(join, report);
        let open = work.frontier.closed_to(&self.compiled).is_none_or(|to| join.end > to);
        let key = WindowKey { stream: 0, end: join.end, generation: join.generation };
        let view = self.views.of(join.generation);
        for (bit, &index) in self.compiled.fillable.iter().enumerate() {
            let metric = &self.compiled.metrics[index];
            let Some(observed) = metric.observed(report).filter(|_| join.missing & (1 << bit) != 0) else { continue };
            join.missing &= !(1 << bit);
            if !metric.counts(join) {
                continue;
            }
            match observed {
                Ok(observed) if open => {
                    let dither = dither(id, metric, &mut work.scratch.buffer);
                    let window = &mut self.windows.entry(key).or_default().arms[usize::from(join.arm)];
                    let subject = Subject { numbers: &join.numbers, unit: join.unit };
                    window.add(&view.layout, (index, metric), subject, &observed, dither);
                }
                Ok(_) => {}
                Err(NoSummary) => work.tally.unusable += 1,
            }
        }
        true
    }

    /// Estimated bytes of memory of the open windows.
    pub(crate) fn windows_bytes(&self) -> usize {
        self.windows.values().map(Window::bytes).sum()
    }

    /// Hash of the assigned unit. It differs from the hash of the split, so that buckets do not correlate with the
    /// arms. A request without a key that was split at random is its own unit. Where another system split the traffic
    /// and names no unit, it is unknown which answers belong together, so all of them count as one unit.
    fn unit_of(&self, prediction: &PredictionView<'_>) -> Option<u64> {
        match prediction.unit {
            Some(unit) => Some(hash64(b"serin.unit", &unit.to_le_bytes())),
            None if !self.compiled.guarded => None,
            None if prediction.assignment == Assignment::Random => {
                Some(hash64(b"serin.unit.request", prediction.request_id.as_bytes()))
            }
            None => Some(hash64(b"serin.unit.unknown", &[])),
        }
    }

    /// Whether a model server's own event can add values that the router's event does not have.
    pub(crate) fn wants_outputs(&self) -> bool {
        let compiled = &self.compiled;
        let answers =
            |&metric: &usize| matches!(compiled.metrics[metric].measure, Measure::Output(_) | Measure::Class { .. });
        !compiled.fillable.is_empty()
            || compiled.outputs.iter().any(|needed| !matches!(needed, Needed::Answered | Needed::InSegment { .. }))
            || !compiled.classes.is_empty()
            || compiled.paired.iter().any(answers)
    }
}
