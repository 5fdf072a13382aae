//! One rollout: it takes windows, keeps the evidence, and reports when a verdict is due, after a window's time has passed everywhere.

mod latch;
mod stored;

use serin_schemas::Code;
use std::collections::{BTreeMap, BTreeSet};

use serin_schemas::{
    ids::{EventTime, Span},
    records::{Arm, ArmCounts, Control, Phase, Segment, WindowClosed},
};
use serin_sketches::{Buckets, Summary};
use serin_spec::{Frozen, MetricKind, MetricSource, MetricSpec, RolloutSpec, Rules};
use serin_statistics::cluster::answers_per_unit;
use serin_stream::fold::{FoldError, Poison};

use crate::{
    arms::Compared,
    baseline::good,
    clusters::{Cluster, Clusters},
    coverage::Coverage,
    evidence::{Evidence, pairs, units},
    head::{Era, Guards, Head},
    health::Health,
    plan::{Plan, is_external},
    progress::Progress,
    standing::Issue,
    warmup::{WarmUp, by_hypothesis},
    window::{CellKey, Merged, Part, WindowKey, add_counts},
};

/// Why a readable window was refused. It is counted and not dead-lettered, because replays after a crash repeat windows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// This partition's part has already arrived.
    Repeated,
    /// All partitions had promised that no more parts would come.
    Late,
    /// No Control record has announced its generation.
    UnknownGeneration,
    /// The window was counted under other rules than the evidence.
    OtherRules,
}

impl Refusal {
    pub(crate) const ALL: [Self; 4] = [Self::Repeated, Self::Late, Self::UnknownGeneration, Self::OtherRules];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Repeated => "repeated",
            Self::Late => "late",
            Self::UnknownGeneration => "unknown_generation",
            Self::OtherRules => "other_rules",
        }
    }
}

/// One rollout's state.
pub(crate) struct Rollout {
    head: Head,
    guards: Guards,
    plan: Plan,
    /// Parallel to `plan.hypotheses`.
    evidence: Vec<Evidence>,
    clusters: Clusters,
    warm: WarmUp,
    pending: BTreeMap<WindowKey, Merged>,
    /// Hypotheses whose row is out of date.
    dirty: BTreeSet<usize>,
    /// Whether the head's row is out of date.
    changed: bool,
}

/// A window that was judged, and the partitions whose parts it had.
type Done = (WindowKey, BTreeSet<i32>);

fn bad_control(control: &Control, what: &str, cause: &dyn std::fmt::Display) -> Poison {
    let message = format!("Control of rollout {}, generation {}: {what}: {cause}", control.rollout, control.generation);
    Poison { code: Code::BadControl, message }
}

impl Rollout {
    /// Starts a rollout with its first Control record. `progress` is what all partitions have promised so far.
    pub(crate) fn begin(control: &Control, progress: &Progress) -> Result<Self, Poison> {
        let spec: RolloutSpec =
            serde_json::from_str(&control.spec).map_err(|error| bad_control(control, "the spec", &error))?;
        if spec.window.0.0 <= 0 {
            return Err(bad_control(control, "the spec", &"a window must be longer than 0"));
        }
        // Before any window has closed there is no event time; a command's wall clock is not one.
        let watermark = progress.mark(is_external(&spec));
        let through = watermark.map_or(EventTime(i64::MIN), |mark| mark.minus(spec.grace.0));
        let head = Head {
            model: control.model.clone(),
            rollout: control.rollout.clone(),
            stable: control.stable.clone(),
            canary: control.canary.clone(),
            spec: control.spec.clone(),
            frozen: None,
            proposed: None,
            eras: BTreeMap::new(),
            through,
            as_of: floor(through, spec.window.0),
            warmup_events: 0,
            warmup_labels: false,
            steps: BTreeMap::new(),
            step_canary: 0,
            arms: BTreeMap::new(),
            health: Health::default(),
            crossed: None,
            groups: Vec::new(),
            began: BTreeMap::new(),
            rules: control.rules,
            coverage: Coverage::default(),
            judged: Rules::numbered(control.rules).folded(),
        };
        let mut rollout = Self::restore(head)?;
        rollout.changed = true;
        rollout.check(control)?;
        rollout.control(control)?;
        Ok(rollout)
    }

    /// The state that its Control records and its windows have led to.
    pub(crate) fn head(&self) -> &Head {
        &self.head
    }

    /// What can keep it from taking a step.
    pub(crate) fn guards(&self) -> &Guards {
        &self.guards
    }

    /// What is tested.
    pub(crate) fn plan(&self) -> &Plan {
        &self.plan
    }

    /// The evidence of each hypothesis, in the order of the plan. Empty until warm-up has ended.
    pub(crate) fn evidence(&self) -> &[Evidence] {
        &self.evidence
    }

    /// The summaries of warm-up.
    pub(crate) fn warm(&self) -> &WarmUp {
        &self.warm
    }

    /// The number of windows that wait for parts of other partitions.
    pub(crate) fn pending(&self) -> usize {
        self.pending.len()
    }

    /// Records the issues of the evidence as of its last verdict, so that later ones are recognized as new.
    pub(crate) fn note(&mut self, issues: &[Issue]) {
        let Self { head: Head { coverage, as_of, .. }, plan, guards, .. } = self;
        let one_arm = |metric: usize| plan.metrics.get(metric).is_some_and(|metric| metric.one_arm);
        let is_over = |metric: usize| {
            let [canary, control] = coverage.values(metric);
            canary > 0 && (control > 0 || one_arm(metric))
        };
        guards.standing.note(*as_of, issues, is_over);
    }

    /// Proposes to end warm-up with the segments that it saw.
    pub(crate) fn propose(&mut self) {
        let frozen = self.warm.freeze(&self.plan, self.head.warmup_events);
        self.head.proposed = Some(serde_json::to_string(&frozen).expect("maps with text keys are JSON"));
    }

    /// Forgets the losses of calls that a verdict has reported.
    pub(crate) fn clear_lost(&mut self) {
        self.head.health.clear_lost();
    }

    /// Whether the rollout was judged under other rules than this build uses for it.
    pub(crate) fn is_of_other_rules(&self) -> bool {
        self.head.judged != Rules::numbered(self.head.rules).folded()
    }

    /// The same rollout without evidence, under the rules of this build. Its generations keep their meaning.
    pub(crate) fn start_over(self) -> Result<Self, Poison> {
        let old = self.head;
        let (generation, era) = old.current();
        let control = Control {
            model: old.model.clone(),
            rollout: old.rollout.clone(),
            generation,
            phase: era.phase,
            step: era.step,
            stable: old.stable.clone(),
            canary: old.canary.clone(),
            canary_share: era.shares.canary,
            control_share: era.shares.control,
            decided_at: old.through,
            spec: old.spec.clone(),
            frozen: old.frozen.clone(),
            rules: old.rules,
            acknowledged: None,
        };
        let mut again = Self::begin(&control, &Progress::default())?;
        (again.head.eras, again.head.through, again.head.as_of) = (old.eras, old.through, old.as_of);
        Ok(again)
    }

    /// A rollout from its head. Rows of hypotheses, warm-up and windows follow.
    pub(crate) fn restore(head: Head) -> Result<Self, Poison> {
        let bad = |error: serde_json::Error| Poison { code: Code::BadControl, message: error.to_string() };
        let mut plan = Plan::new(serde_json::from_str(&head.spec).map_err(bad)?, head.judged);
        if let Some(frozen) = &head.frozen {
            plan.freeze(&serde_json::from_str(frozen).map_err(bad)?);
        }
        Ok(Self {
            head,
            guards: Guards::default(),
            plan,
            evidence: Vec::new(),
            clusters: Clusters::default(),
            warm: WarmUp::default(),
            pending: BTreeMap::new(),
            dirty: BTreeSet::new(),
            changed: false,
        })
    }

    /// Fails if a metric cannot be tested as specified.
    fn check(&self, control: &Control) -> Result<(), Poison> {
        for (index, metric) in self.plan.spec.metrics.iter().enumerate() {
            let what = || format!("metric {:?}", metric.name);
            let alpha = self.plan.spec.decision.false_promotion;
            let evidence = Evidence::new(metric, self.plan.rules, self.plan.horizon(), alpha);
            let mut evidence = evidence.map_err(|error| bad_control(control, &what(), &error))?;
            if let Some((step, plan)) = self.plan.looks(index) {
                evidence.plan_looks(step, plan).map_err(|error| bad_control(control, &what(), &error))?;
            }
        }
        Ok(())
    }

    /// Whether the rollout continues after another Control record: it has not ended, and the rules are the same. A record that is not
    /// newer is a repetition.
    pub(crate) fn continues_with(&self, control: &Control) -> bool {
        let repeated = control.generation <= self.head.current().0;
        let same_rules = Rules::numbered(control.rules).folded() == self.head.judged;
        !control.phase.is_final() && (repeated || same_rules)
    }

    /// Takes another Control record. A record that is not newer is a repetition.
    pub(crate) fn control(&mut self, control: &Control) -> Result<(), Poison> {
        if self.head.eras.last_key_value().is_some_and(|(&newest, _)| control.generation <= newest) {
            return Ok(());
        }
        if let (None, Some(text)) = (&self.head.frozen, &control.frozen) {
            let frozen = serde_json::from_str(text).map_err(|error| bad_control(control, "frozen", &error))?;
            self.freeze(&frozen, control)?;
            self.head.frozen = Some(text.clone());
        }
        self.take_steps(control)?;
        let era = Era::of(control);
        let waits = |phase| matches!(phase, Phase::Held | Phase::Paused);
        if !waits(era.phase) && self.head.eras.last_key_value().is_some_and(|(_, last)| waits(last.phase)) {
            self.head.health.resume();
            self.head.coverage.resume();
        }
        if !era.is_warm_up() {
            self.head.health.begin(era.shares, control.decided_at, self.plan.spec.window.0);
        }
        self.guards.standing.acknowledge(control.acknowledged);
        self.head.eras.insert(control.generation, era);
        self.changed = true;
        Ok(())
    }

    /// Takes over the steps of a newer Control record. A weight that a person sets is a step of its own; the steps before it stay.
    fn take_steps(&mut self, control: &Control) -> Result<(), Poison> {
        if control.spec == self.head.spec {
            return Ok(());
        }
        let spec: RolloutSpec =
            serde_json::from_str(&control.spec).map_err(|error| bad_control(control, "the spec", &error))?;
        if spec.steps != self.plan.spec.steps {
            self.plan.spec.steps = spec.steps;
            self.head.spec.clone_from(&control.spec);
        }
        Ok(())
    }

    fn freeze(&mut self, frozen: &Frozen, control: &Control) -> Result<(), Poison> {
        self.plan.freeze(frozen);
        let alpha = self.plan.spec.decision.false_promotion;
        let new = |hypothesis: &crate::plan::HypothesisPlan| {
            let metric = &self.plan.spec.metrics[hypothesis.metric];
            Evidence::new(metric, self.plan.rules, self.plan.horizon(), alpha)
        };
        let evidence: Result<Vec<_>, _> = self.plan.hypotheses.iter().map(new).collect();
        self.evidence = evidence.map_err(|error| bad_control(control, "the spec", &error))?;
        self.dirty.extend(0..self.evidence.len());
        let learned = self.warm.hand_over(&self.plan);
        self.learn(&learned).map_err(|error| bad_control(control, "warm-up", &error))
    }

    fn learn(&mut self, learned: &BTreeMap<usize, Summary>) -> Result<(), FoldError> {
        let bad = |error| FoldError::State(format!("warm-up of rollout {}: {error}", self.head.rollout));
        for (&index, summary) in learned {
            let evidence = &mut self.evidence[index];
            evidence.test.observe_warmup(summary).map_err(bad)?;
            for (place, stratum) in self.plan.strata(index).into_iter().enumerate() {
                if let Some(summary) = learned.get(&stratum) {
                    evidence.test.warm_up_stratum(place, summary, &mut evidence.pasts).map_err(bad)?;
                }
            }
            self.dirty.insert(index);
        }
        Ok(())
    }

    /// Takes one partition's part of a window.
    pub(crate) fn take(&mut self, window: WindowClosed) -> Result<Result<WindowKey, Refusal>, Poison> {
        if Rules::numbered(window.rules) != self.plan.rules {
            return Ok(Err(Refusal::OtherRules));
        }
        let part = Part::parse(window, &self.plan)?;
        let key = part.key;
        if !self.head.eras.contains_key(&key.generation) {
            return Ok(Err(Refusal::UnknownGeneration));
        }
        if key.closes <= self.head.through {
            return Ok(Err(Refusal::Late));
        }
        let merged = self.pending.entry(key).or_default();
        if merged.parts.contains(&part.partition) {
            return Ok(Err(Refusal::Repeated));
        }
        let added = merged.add(part);
        if merged.parts.is_empty() {
            self.pending.remove(&key);
        }
        added.map(|()| Ok(key))
    }

    /// Takes the `watermark` that all partitions have passed, and judges the windows that are complete, after the rollout's own grace.
    /// Also returns whether a verdict is due, because a window's time has passed.
    pub(crate) fn advance(&mut self, watermark: EventTime) -> Result<(Vec<Done>, bool), FoldError> {
        let through = watermark.minus(self.plan.spec.grace.0);
        if through <= self.head.through {
            return Ok((Vec::new(), false));
        }
        self.head.through = through;
        self.changed = true;
        let mut done = Vec::new();
        while let Some((&first, _)) = self.pending.first_key_value() {
            if first.closes > through {
                break;
            }
            let mut strata = Vec::new();
            while let Some(entry) = self.pending.first_entry() {
                if (entry.key().closes, entry.key().maturity) != (first.closes, first.maturity) {
                    break;
                }
                strata.push(entry.remove_entry());
            }
            self.judge(first.maturity, first.end(), &mut strata)?;
            done.extend(strata.into_iter().map(|(key, merged)| (key, merged.parts)));
        }
        let as_of = floor(through, self.plan.spec.window.0);
        let phase = self.head.current().1.phase;
        if as_of <= self.head.as_of || matches!(phase, Phase::Pending) || phase.is_final() {
            return Ok((done, false));
        }
        let first =
            std::mem::replace(&mut self.head.as_of, as_of) == floor(EventTime(i64::MIN), self.plan.spec.window.0);
        if first && done.is_empty() {
            return Ok((done, false));
        }
        Ok((done, true))
    }

    /// Whether warm-up has seen as much as the spec asks for.
    pub(crate) fn has_learned(&self) -> bool {
        let enough = self.head.warmup_events >= self.plan.spec.warmup.min_events;
        let waits = self.plan.rules.need_data() && self.guards.baseline.waits_for_labels(&self.plan);
        enough && !waits && (self.head.warmup_labels || !self.plan.needs_labels())
    }

    /// Takes one complete window of one stream, with all its generations, and empties their cells.
    fn judge(&mut self, stream: Span, end: EventTime, strata: &mut [(WindowKey, Merged)]) -> Result<(), FoldError> {
        let eras = self.eras(stream, end, strata);
        let compared: Vec<Compared<'_>> = strata
            .iter()
            .zip(&eras)
            .filter(|(_, (era, _))| !era.is_warm_up())
            .map(|((_, window), &(era, settling))| {
                let Era { step, shares, .. } = era;
                Compared { step, shares, trial: era.trial(), settling, window }
            })
            .collect();
        let judged = !compared.is_empty() && !self.evidence.is_empty();
        if judged {
            self.enter_step(stream, end, compared.iter().map(|stratum| stratum.step).max().unwrap_or(-1));
            if stream.0 == 0 {
                self.count(&compared);
            }
        }
        self.watch(stream, end, strata, &compared);
        if judged && stream.0 == 0 && self.plan.guarded {
            self.count_units_named(&compared);
        }
        let mut compared = Vec::new();
        for ((_, window), (era, settling)) in strata.iter_mut().zip(eras) {
            if era.is_warm_up() {
                self.warm_up(stream, window)?;
            } else {
                let (mut cells, mut buckets) = (std::mem::take(&mut window.cells), std::mem::take(&mut window.buckets));
                let mut units = std::mem::take(&mut window.units);
                for ((arm, metric), sums) in
                    buckets.iter().filter(|((_, metric), _)| !self.plan.metrics[*metric].by_unit)
                {
                    units.insert((*arm, *metric, Segment::all()), Summary::Buckets(sums.clone()));
                }
                if settling {
                    // Limits apply while the canary settles too.
                    cells.retain(|(_, metric, _), _| self.plan.metrics[*metric].one_arm);
                    units.retain(|(_, metric, _), _| self.plan.metrics[*metric].one_arm);
                    buckets.clear();
                }
                compared.push((era, Merged { cells, buckets, units, ..Merged::default() }));
            }
        }
        if judged {
            self.compare(stream, end, compared)?;
            self.latch(end);
        }
        Ok(())
    }

    /// The eras of a window's generations, and whether the window is left out because of the change of traffic at the start of their
    /// run.
    fn eras(&mut self, stream: Span, end: EventTime, strata: &[(WindowKey, Merged)]) -> Vec<(Era, bool)> {
        let (head, settles) = (&mut self.head, self.plan.spec.settles_for().0);
        let eras = strata.iter().map(|(key, window)| {
            let (era, generation) = (head.eras[&key.generation], key.generation);
            if settles.0 == 0 || era.is_warm_up() {
                return (era, false);
            }
            if stream.0 == 0 && window.predictions(era.trial()) > 0 {
                head.had_answers(generation, end);
            }
            // Streams of labels reach a window after stream 0.
            (era, head.compared_from(generation, settles).is_none_or(|from| end < from))
        });
        eras.collect()
    }

    /// Whether everything that a stream has shown of the current traffic is still left out.
    pub(crate) fn is_settling(&self, stream: Span) -> bool {
        let from = self.head.compared_from(self.head.current().0, self.plan.spec.settles_for().0);
        from.is_some_and(|from| self.head.through.minus(stream) < from)
    }

    fn watch(&mut self, stream: Span, end: EventTime, strata: &[(WindowKey, Merged)], compared: &[Compared<'_>]) {
        let per_unit = self.answers_per_unit();
        if self.head.rules > 1 {
            self.head.coverage.observe(&self.plan, stream, end, compared, per_unit);
        }
        self.guard(stream, end, strata, compared);
        let health = &mut self.head.health;
        if stream.0 > 0 {
            health.labelled(&self.plan, stream, end, strata.iter().map(|(_, window)| window), compared, per_unit);
            return;
        }
        for (_, window) in strata {
            health.traffic(end, window);
        }
        if !compared.is_empty() {
            health.compared(&self.plan, end, compared);
        }
    }

    /// Updates what can keep a rollout from taking a step. Applies since rules version 2.
    fn guard(&mut self, stream: Span, end: EventTime, strata: &[(WindowKey, Merged)], compared: &[Compared<'_>]) {
        if !self.plan.rules.need_data() {
            return;
        }
        let Guards { baseline, outage, .. } = &mut self.guards;
        for (key, window) in strata {
            let era = self.head.eras[&key.generation];
            if era.is_warm_up() {
                baseline.see(&self.plan, stream, window, &[Arm::Stable]);
                if let Some(counts) = window.arms.get(&Arm::Stable).filter(|_| stream.0 == 0) {
                    baseline.learn(&self.plan, counts);
                }
            } else {
                baseline.see(&self.plan, stream, window, &[era.trial(), Arm::Control]);
            }
        }
        if stream.0 == 0 && !compared.is_empty() {
            outage.observe(end, compared);
        }
    }

    fn warm_up(&mut self, stream: Span, window: &Merged) -> Result<(), FoldError> {
        if stream.0 == 0 {
            let counts = window.arms.get(&Arm::Stable);
            // A call that fails is not learned from.
            let teaches = counts.map_or(0, good);
            let all = window.predictions(Arm::Stable);
            self.head.warmup_events += if self.plan.rules.need_data() { teaches } else { all };
        }
        let stable = window.cells.iter().filter(|((arm, _, _), _)| *arm == Arm::Stable);
        let cells: Vec<_> = stable.map(|((_, metric, segment), summary)| (*metric, segment, summary)).collect();
        for (&(_, metric), buckets) in window.buckets.iter().filter(|((arm, _), _)| *arm == Arm::Stable) {
            let summary = window.cells.get(&(Arm::Stable, metric, Segment::all()));
            self.clusters.get_mut(metric).add(Arm::Stable, buckets, summary);
        }
        let labelled = |metric: usize| self.plan.spec.metrics[metric].needs_label();
        self.head.warmup_labels |= cells.iter().any(|(metric, _, summary)| labelled(*metric) && summary.n() > 0);
        if self.evidence.is_empty() {
            for (metric, segment, summary) in cells {
                self.warm.add(metric, segment.clone(), summary);
            }
            // Entries without a dimension are other counts, such as those of labels.
            let of_stable =
                |((arm, segment), _): &(&(Arm, Segment), &u64)| *arm == Arm::Stable && !segment.dimension.is_empty();
            for ((_, segment), &answers) in window.population.iter().filter(of_stable) {
                self.warm.add_population(&self.plan, segment, answers);
            }
            return Ok(());
        }
        let cells = cells.into_iter().map(|(metric, segment, summary)| (metric, segment.clone(), summary.clone()));
        self.learn(&by_hypothesis(&self.plan, cells))
    }

    /// Resets what each step must show again: passes and the comparison of shares, per stream from the first window of the step on.
    fn enter_step(&mut self, stream: Span, end: EventTime, step: i32) {
        if self.head.steps.get(&stream).is_some_and(|&known| step <= known) {
            return;
        }
        self.head.steps.insert(stream, step);
        self.head.health.restart(stream);
        self.head.coverage.restart(&self.plan, stream);
        if stream.0 == 0 {
            self.guards.step_began = Some(end.minus(self.plan.spec.window.0));
            self.head.step_canary = 0;
            if let Some(first) = self.evidence.first_mut() {
                first.units.forget_counts();
                self.dirty.insert(0);
            }
        }
        for index in (0..self.evidence.len()).filter(|&index| self.plan.stream_of(index) == stream) {
            let metric = self.plan.hypotheses[index].metric;
            self.clusters.forget(metric);
            // What mirrored calls have shown still holds in steps without mirrored calls.
            if !self.plan.metrics[metric].paired {
                self.evidence[index].test.reset_pass();
                self.evidence[index].units.sums.next_step();
                self.evidence[index].looks = None;
                if let Some((_, plan)) = self.plan.looks_of(index).filter(|looks| looks.0 == step) {
                    // The plan was checked when the rollout started.
                    let _ = self.evidence[index].plan_looks(step, plan);
                }
                self.dirty.insert(index);
            }
        }
    }

    fn count(&mut self, compared: &[Compared<'_>]) {
        for stratum in compared {
            for (&arm, counts) in &stratum.window.arms {
                let arm = if arm == stratum.trial { Arm::Canary } else { arm };
                add_counts(self.head.arms.entry(arm).or_insert_with(|| ArmCounts::none(arm)), counts);
            }
            if self.head.steps.get(&Span::default()) == Some(&stratum.step) && !stratum.settling {
                self.head.step_canary += stratum.window.predictions(stratum.trial);
            }
        }
    }

    fn compare(&mut self, stream: Span, end: EventTime, strata: Vec<(Era, Merged)>) -> Result<(), FoldError> {
        let eras: Vec<Era> = strata.iter().map(|(era, _)| *era).collect();
        let (mut sums, mut units_by_index) = (Vec::new(), Vec::new());
        let mut by_index: Vec<[BTreeMap<usize, Summary>; 2]> = Vec::new();
        for (era, window) in strata {
            by_index.push(self.by_arm(era, window.cells));
            units_by_index.push(if self.plan.guarded { self.by_arm(era, window.units) } else { Default::default() });
            sums.push(window.buckets);
        }
        self.temper(stream);
        if let Some(newest) = eras.last().filter(|_| self.plan.is_sticky()) {
            // The part of a window that belongs to the step before shows nothing of this step's units.
            for ((arms, sums), era) in by_index.iter().zip(&sums).zip(&eras).filter(|(_, era)| era.step == newest.step)
            {
                self.learn_clusters(stream, *era, arms, sums);
            }
            if stream.0 == 0 {
                self.count_units(*newest, end);
            }
        }
        for index in (0..self.evidence.len()).filter(|&index| self.plan.stream_of(index) == stream) {
            let pairs = pairs(&self.plan, index, &mut by_index, &eras);
            if !pairs.is_empty() {
                let observed = self.evidence[index].observe(end, &pairs);
                observed.map_err(|error| FoldError::State(format!("rollout {}: {error}", self.head.rollout)))?;
                if self.plan.rules.need_data() {
                    self.evidence[index].latest.take(end, &pairs);
                }
                if self.plan.guarded {
                    let units = units(&self.plan, index, &units_by_index);
                    self.evidence[index].observe_units(&units, self.plan.by_group(index));
                }
                self.dirty.insert(index);
            }
        }
        Ok(())
    }

    /// Canary's and control's cells of one generation, by hypothesis. The cells of the version on trial count as the canary's.
    fn by_arm(&self, era: Era, cells: BTreeMap<CellKey, Summary>) -> [BTreeMap<usize, Summary>; 2] {
        let mut arms = [Vec::new(), Vec::new()];
        for ((arm, metric, segment), summary) in cells {
            if arm == self.trial(era, metric) {
                arms[0].push((metric, segment, summary));
            } else if arm == Arm::Control {
                arms[1].push((metric, segment, summary));
            }
        }
        arms.map(|cells| by_hypothesis(&self.plan, cells.into_iter()))
    }

    /// The arm with the answers of the version on trial.
    fn trial(&self, era: Era, metric: usize) -> Arm {
        if self.plan.metrics[metric].paired { Arm::Shadow } else { era.trial() }
    }

    /// Counts the step's answers that name no unit although a key assigns the arm. The first hypothesis keeps the counts.
    fn count_units_named(&mut self, compared: &[Compared<'_>]) {
        let step = self.head.steps.get(&Span::default());
        let Some(first) = self.evidence.first_mut() else { return };
        for stratum in compared.iter().filter(|stratum| Some(&stratum.step) == step) {
            let count = |arm| {
                let without = stratum.window.population.get(&(arm, Segment::no_unit())).copied();
                (stratum.window.predictions(arm), without.unwrap_or(0))
            };
            first.units.count(count(stratum.trial), count(Arm::Control));
            self.dirty.insert(0);
        }
    }

    /// Where units are assigned, weighs this window by what the earlier windows of the step show.
    fn temper(&mut self, stream: Span) {
        if !self.plan.is_sticky() {
            return;
        }
        for index in (0..self.evidence.len()).filter(|&index| self.plan.stream_of(index) == stream) {
            let metric = self.plan.hypotheses[index].metric;
            if self.plan.guarded || !self.plan.metrics[metric].paired {
                let kind = &self.plan.spec.metrics[metric].kind;
                let cluster = self.clusters.get(metric);
                let known = !self.plan.guarded || cluster.is_some_and(Cluster::has_units);
                let effect = cluster.map_or(1.0, |cluster| cluster.design_effect(kind));
                self.evidence[index].temper(known.then_some(effect));
            }
        }
    }

    /// Where units are assigned, takes what one stratum of the window shows of them, for the next window.
    fn learn_clusters(
        &mut self,
        stream: Span,
        era: Era,
        arms: &[BTreeMap<usize, Summary>; 2],
        sums: &BTreeMap<(Arm, usize), Buckets>,
    ) {
        for (&(arm, metric), buckets) in
            sums.iter().filter(|((_, metric), _)| self.plan.metrics[*metric].maturity == stream)
        {
            let (place, arm) = match arm {
                Arm::Canary => (0, Arm::Canary),
                Arm::Control => (1, Arm::Control),
                Arm::Shadow if self.plan.guarded && self.trial(era, metric) == Arm::Shadow => (0, Arm::Canary),
                Arm::Stable | Arm::Shadow => continue,
            };
            let summary = self.plan.overall(metric).and_then(|overall| arms[place].get(&overall));
            self.clusters.get_mut(metric).add(arm, buckets, summary);
        }
    }

    /// Where units are assigned, compares what they have brought in the step with the configured split.
    fn count_units(&mut self, era: Era, end: EventTime) {
        if let Some(sums) = unit_sums(&self.plan, &self.clusters) {
            self.head.health.units(&self.plan, era.step, era.shares, sums, end);
        }
    }

    /// Where units are assigned, the number of answers per unit, as far as the step's windows show it.
    fn answers_per_unit(&self) -> Option<f64> {
        let (canary, control) = unit_sums(&self.plan, &self.clusters).filter(|_| self.plan.is_sticky())?;
        let totals: Vec<f64> = canary.iter().zip(control.iter()).map(|(one, two)| (one.1 + two.1) as f64).collect();
        answers_per_unit(&totals)
    }
}

/// The sums per bucket of units of canary and control in the step, from the metric that counts every answer.
fn unit_sums<'a>(plan: &Plan, clusters: &'a Clusters) -> Option<(&'a Buckets, &'a Buckets)> {
    let counts_all = |metric: &MetricSpec| {
        metric.kind == MetricKind::Rate && metric.source == MetricSource::Failed && metric.filters.is_empty()
    };
    let metric = plan.spec.metrics.iter().position(counts_all)?;
    clusters.get(metric).map(Cluster::arms)
}

/// The last window end at or before `time`.
fn floor(time: EventTime, window: Span) -> EventTime {
    let length = window.0.max(1);
    EventTime(time.0.div_euclid(length).saturating_mul(length))
}
