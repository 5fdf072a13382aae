//! One active rollout on one partition: where an event belongs, and its open windows.
//!
//! Invariants:
//! - An event is counted in exactly one window of each stream: its own while that is open, else (as late) the next one to close.
//! - What a window holds does not depend on the order of the events in it.

use std::collections::BTreeMap;

use serin_rollout::{Frozen, RolloutSpec};
use serin_schemas::{
    ids::{EventTime, Generation, ModelName, RolloutId, Span},
    records::{Arm, Control, Phase, Prediction},
};

use crate::{
    join::{Join, JoinKey, Joins, RowState},
    metrics::Tally,
    plan::{Measure, Plan, is_error},
    segments::Dictionary,
    window::{ArmWindow, Lens, Window, WindowKey, dither, place_of},
};

/// What of a generation's traffic is sketched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Nothing: the rollout waits.
    Off,
    /// The stable arm, all segment values there is room for.
    Warming,
    /// Canary, control and shadow, with the frozen segment values.
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
}

/// How far a partition has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Frontier {
    pub(crate) watermark: Option<EventTime>,
    /// Last `ClosedThrough` that was written.
    pub(crate) promised: Option<EventTime>,
}

impl Frontier {
    /// A window of a rollout with this grace is closed when its end and maturity are at or before this.
    pub(crate) fn closed_to(self, grace: Span) -> Option<EventTime> {
        self.watermark.max(self.promised).map(|mark| mark.minus(grace))
    }
}

/// Where an event belongs in its rollout.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) generation: Generation,
    mode: Mode,
    arm: Arm,
}

/// What a rollout works with besides itself.
pub(crate) struct Work<'a> {
    pub(crate) frontier: Frontier,
    pub(crate) joins: &'a mut Joins,
    pub(crate) tally: &'a mut Tally,
    pub(crate) scratch: &'a mut Scratch,
}

/// Buffers that are used again for each event.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    numbers: Vec<u16>,
    buffer: Vec<u8>,
}

/// How each generation's traffic is seen.
#[derive(Debug)]
pub(crate) struct Lenses {
    generations: BTreeMap<Generation, Mode>,
    pub(crate) warming: Lens,
    frozen: Option<Lens>,
}

impl Lenses {
    pub(crate) fn of(&self, generation: Generation) -> &Lens {
        match (self.generations.get(&generation), &self.frozen) {
            (Some(Mode::Compare), Some(frozen)) => frozen,
            _ => &self.warming,
        }
    }

    fn of_mut(&mut self, generation: Generation) -> &mut Lens {
        match (self.generations.get(&generation), &mut self.frozen) {
            (Some(Mode::Compare), Some(frozen)) => frozen,
            _ => &mut self.warming,
        }
    }
}

/// An active rollout.
#[derive(Debug)]
pub(crate) struct Rollout {
    /// Its number in row keys.
    pub(crate) number: u32,
    pub(crate) model: ModelName,
    pub(crate) id: RolloutId,
    pub(crate) plan: Plan,
    pub(crate) lenses: Lenses,
    pub(crate) windows: BTreeMap<WindowKey, Window>,
    /// Predictions that wait, by end of window and generation.
    pub(crate) waiting: BTreeMap<(EventTime, Generation), Vec<JoinKey>>,
    /// Keys of rows to remove.
    pub(crate) removed: Vec<Vec<u8>>,
}

/// Most generations of one rollout that are told apart; older ones count as unknown.
const MAX_GENERATIONS: usize = 1024;

impl Rollout {
    pub(crate) fn new(number: u32, control: &Control, spec: &RolloutSpec, values: usize) -> Self {
        let plan = Plan::new(spec);
        let warming = Lens::new(&plan, Dictionary::learning(plan.dimensions.len(), values));
        Self {
            number,
            model: control.model.clone(),
            id: control.rollout.clone(),
            plan,
            lenses: Lenses { generations: BTreeMap::new(), warming, frozen: None },
            windows: BTreeMap::new(),
            waiting: BTreeMap::new(),
            removed: Vec::new(),
        }
    }

    /// Begins a generation. Returns one that is too old to be kept.
    pub(crate) fn begin(&mut self, control: &Control, frozen: Option<&Frozen>) -> Option<Generation> {
        let Lenses { generations, frozen: lens, .. } = &mut self.lenses;
        if let Some(frozen) = frozen
            && lens.is_none()
        {
            *lens = Some(Lens::new(&self.plan, Dictionary::frozen(&self.plan.dimensions, frozen)));
        }
        generations.insert(control.generation, Mode::of(control));
        if generations.len() <= MAX_GENERATIONS {
            return None;
        }
        generations.pop_first().map(|(generation, _)| generation)
    }

    /// Where a prediction belongs; `None`: not to this rollout.
    pub(crate) fn locate(&self, prediction: &Prediction) -> Option<Place> {
        if prediction.rollout.as_ref().is_some_and(|rollout| *rollout != self.id) {
            return None;
        }
        let known =
            self.lenses.generations.get_key_value(&prediction.generation).filter(|_| prediction.rollout.is_some());
        let newest = || self.lenses.generations.last_key_value().filter(|_| self.plan.external);
        let (&generation, &mode) = known.or_else(newest)?;
        let arm = if self.plan.external { self.external_arm(prediction, mode) } else { prediction.arm };
        (mode != Mode::Off).then_some(Place { generation, mode, arm })
    }

    /// The arm of an answer that somebody else's router split: as named, else by version. Their stable is what the canary is
    /// compared with.
    fn external_arm(&self, prediction: &Prediction, mode: Mode) -> Arm {
        match prediction.arm {
            Arm::Stable if prediction.version == self.plan.canary => Arm::Canary,
            Arm::Stable if mode == Mode::Compare && prediction.version == self.plan.stable => Arm::Control,
            Arm::Control if mode == Mode::Warming => Arm::Stable,
            arm => arm,
        }
    }

    fn is_closed(&self, stream: usize, end: EventTime, frontier: Frontier) -> bool {
        frontier.closed_to(self.plan.grace).is_some_and(|to| end.plus(self.plan.streams[stream]) <= to)
    }

    /// The arm of the next window of a stream to close.
    fn next_to_close(
        &mut self,
        stream: usize,
        generation: Generation,
        arm: Arm,
        frontier: Frontier,
    ) -> Option<&mut ArmWindow> {
        let to = frontier.closed_to(self.plan.grace)?;
        let end = to.minus(self.plan.streams[stream]).window_end(self.plan.window);
        let window = self.windows.entry(WindowKey { stream, end, generation }).or_default();
        let window = &mut window.arms[place_of(arm)];
        window.dirty = true;
        Some(window)
    }

    /// Counts lost events into the next window of the newest generation to close.
    pub(crate) fn lose(&mut self, arm: Arm, count: i64, frontier: Frontier) {
        let newest = self.lenses.generations.last_key_value().map(|(generation, _)| *generation);
        if count > 0
            && let Some(generation) = newest
            && let Some(window) = self.next_to_close(0, generation, arm, frontier)
        {
            window.counts.lost += count;
        }
    }

    /// Counts a prediction.
    pub(crate) fn prediction(&mut self, prediction: &Prediction, place: Place, work: &mut Work<'_>) {
        let id = prediction.request_id.as_str();
        let shadow = place.arm == Arm::Shadow;
        if self.plan.external && work.joins.get(id, shadow).is_some() {
            // The first report of a call counts; a further one may still bring outputs.
            work.tally.duplicate += 1;
            self.fill(prediction, shadow, work);
            return;
        }
        let end = prediction.completed_at.window_end(self.plan.window);
        let sketched = place.mode.sketches(place.arm) && prediction.assignment.is_compared();
        let missing = self.count(prediction, place, end, sketched, work);
        let waits = self.count_streams(prediction, place, end, sketched, work.frontier);
        let open = !self.is_closed(0, end, work.frontier);
        if !sketched || !(waits || open && (missing != 0 || self.plan.external)) {
            return;
        }
        if !work.joins.admits(id) {
            work.tally.sampled_out += 1;
        } else if work.joins.get(id, shadow).is_none() {
            let outputs = self.plan.outputs.iter();
            let outputs = outputs.map(|name| prediction.outputs.get(name).copied().unwrap_or(f64::NAN)).collect();
            let join = Join {
                rollout: self.number,
                generation: place.generation,
                arm: place_of(place.arm) as u8,
                end,
                error: is_error(prediction),
                invalid: prediction.invalid_output.is_some(),
                numbers: work.scratch.numbers.as_slice().into(),
                missing,
                outputs,
                labels: vec![None; self.plan.labels.len()].into(),
                row: RowState::default(),
            };
            let key = JoinKey { id: id.into(), shadow };
            self.waiting.entry((end, place.generation)).or_default().push(key.clone());
            work.joins.insert(key, join, work.tally);
        }
    }

    /// Counts a prediction in the stream of what is known at once, and sketches its values. Returns which are missing.
    fn count(
        &mut self,
        prediction: &Prediction,
        place: Place,
        end: EventTime,
        sketched: bool,
        work: &mut Work<'_>,
    ) -> u64 {
        if sketched {
            let lens = self.lenses.of_mut(place.generation);
            let numbers = &mut work.scratch.numbers;
            work.tally.segment_overflow +=
                lens.dictionary.numbers(&self.plan.dimensions, &prediction.segments, numbers);
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
        let window = &mut self.windows.entry(key).or_default().arms[place_of(place.arm)];
        window.counts.add(prediction);
        window.dirty = true;
        if !sketched {
            return 0;
        }
        let lens = self.lenses.of(place.generation);
        let mut missing = 0;
        for (index, metric) in self.plan.metrics.iter().enumerate() {
            match metric.value(prediction).map(|value| metric.scaled(value)) {
                Some(Some(value)) => {
                    let dither = dither(prediction.request_id.as_str(), metric, &mut work.scratch.buffer);
                    window.add(&lens.layout, (index, metric), &work.scratch.numbers, value, dither);
                }
                Some(None) => work.tally.unusable += 1,
                None => {
                    let bit = self.plan.fillable.iter().position(|&fillable| fillable == index);
                    missing |= bit.map_or(0, |bit| 1 << bit);
                }
            }
        }
        missing
    }

    /// Counts a prediction in the streams of labels. Returns whether any of them waits for it.
    fn count_streams(
        &mut self,
        prediction: &Prediction,
        place: Place,
        end: EventTime,
        sketched: bool,
        frontier: Frontier,
    ) -> bool {
        let mut waits = false;
        for stream in 1..self.plan.streams.len() {
            if self.is_closed(stream, end, frontier) {
                if let Some(window) = self.next_to_close(stream, place.generation, place.arm, frontier) {
                    window.counts.late += 1;
                }
                continue;
            }
            let key = WindowKey { stream, end, generation: place.generation };
            if !prediction.assignment.is_compared() {
                let window = &mut self.windows.entry(key).or_default().arms[place_of(place.arm)];
                window.counts.excluded += 1;
                window.dirty = true;
            } else if sketched {
                // The window exists from its first prediction on, so that its close finds what waits.
                self.windows.entry(key).or_default();
                waits = true;
            }
        }
        waits
    }

    /// Adds outputs that a model server reports to the prediction that waits under its id. False: none waits.
    pub(crate) fn fill(&mut self, report: &Prediction, shadow: bool, work: &mut Work<'_>) -> bool {
        let id = report.request_id.as_str();
        let Some(join) = work.joins.get_mut(id, shadow).filter(|join| join.rollout == self.number) else {
            return false;
        };
        for (name, value) in self.plan.outputs.iter().zip(&mut join.outputs) {
            if value.is_nan() {
                *value = report.outputs.get(name).copied().unwrap_or(f64::NAN);
            }
        }
        let open = work.frontier.closed_to(self.plan.grace).is_none_or(|to| join.end > to);
        let key = WindowKey { stream: 0, end: join.end, generation: join.generation };
        let lens = self.lenses.of(join.generation);
        for (bit, &index) in self.plan.fillable.iter().enumerate() {
            let metric = &self.plan.metrics[index];
            let Some(value) = metric.value(report).filter(|_| join.missing & (1 << bit) != 0) else { continue };
            join.missing &= !(1 << bit);
            match metric.scaled(value) {
                Some(value) if open => {
                    let dither = dither(id, metric, &mut work.scratch.buffer);
                    let window = &mut self.windows.entry(key).or_default().arms[usize::from(join.arm)];
                    window.add(&lens.layout, (index, metric), &join.numbers, value, dither);
                }
                Some(_) => {}
                None => work.tally.unusable += 1,
            }
        }
        true
    }

    /// Whether a model server's own event can bring anything that is not known from the router.
    pub(crate) fn wants_outputs(&self) -> bool {
        !self.plan.fillable.is_empty() || !self.plan.outputs.is_empty()
    }

    /// Computes a stream's metrics of what waits in a window.
    pub(crate) fn mature(&mut self, key: &WindowKey, window: &mut Window, work: &mut Work<'_>) {
        let Some(waiting) = self.waiting.get_mut(&(key.end, key.generation)) else { return };
        waiting.sort_unstable();
        waiting.dedup();
        let lens = self.lenses.of(key.generation);
        for wait in waiting.iter() {
            let join = work
                .joins
                .get(&wait.id, wait.shadow)
                .filter(|join| join.rollout == self.number && join.end == key.end && join.generation == key.generation);
            let Some(join) = join else { continue };
            let arm = &mut window.arms[usize::from(join.arm)];
            arm.counts.predictions += 1;
            arm.counts.errors += i64::from(join.error);
            arm.counts.invalid += i64::from(join.invalid);
            let mut labelled = false;
            for (index, metric) in self.plan.metrics.iter().enumerate().filter(|(_, m)| m.stream == key.stream) {
                let Measure::Label(measure) = &metric.measure else { continue };
                let label = join.labels[measure.label].map(|label| label.value);
                labelled |= label.is_some();
                // Nobody saw the answer of a mirror: what people did says nothing about it.
                if wait.shadow && measure.output.is_none() {
                    continue;
                }
                let Some(value) = measure.value(&join.outputs, label) else { continue };
                if let Some(value) = metric.scaled(value) {
                    let dither = dither(&wait.id, metric, &mut work.scratch.buffer);
                    arm.add(&lens.layout, (index, metric), &join.numbers, value, dither);
                } else {
                    work.tally.unusable += 1;
                }
            }
            arm.counts.labelled += i64::from(labelled);
        }
    }
}
