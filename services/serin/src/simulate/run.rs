//! Simulates one rollout: random windows go to the analyzer's fold, its verdicts go to the planner, and the planner's routing
//! table splits the next window. The clock is virtual.

use std::collections::BTreeMap;

use serin_kinds::{Kind as _, Metric as _};
use serin_rollout::{
    Outcome, RolloutState,
    planner::{HoldCause, StepIndex},
};
use serin_schemas::{
    ids::{EventTime, Span},
    records::{
        Arm, ArmCounts, Cell, ClosedThrough, MetricResult, Phase, Population, RoutingTable, Segment, Verdict,
        WindowClosed,
    },
};
use serin_sketches::Summary;
use serin_spec::{MetricKind, MetricSource, RolloutSpec};

use super::{dice::Dice, world::World};
use crate::in_process::{InProcess, ROLLOUT};

/// Number of windows after which a run fails, because warm-up never ends.
const MOST_WINDOWS: u64 = 1_000_000;
/// How many times the answers that warm-up needs may arrive before a held warm-up ends the run.
const WARM_UPS: u64 = 10;
/// Start of virtual time.
const START: EventTime = EventTime(1_700_000_000_000_000);

/// The rollout that is simulated many times.
pub(crate) struct Experiment {
    /// The normalized spec of the rollout.
    pub(crate) spec: RolloutSpec,
    /// The simulated traffic.
    pub(crate) world: World,
    /// Seed of all random numbers.
    pub(crate) seed: u64,
    /// Longest time of a run, from the canary's first request.
    pub(crate) limit: Span,
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum End {
    /// The canary became stable.
    Promoted,
    /// The canary was rolled back on evidence.
    RolledBack,
    /// The rollout was held: there was not enough evidence by `bake.max`, or it was unsound.
    Held,
    /// The canary was rolled back because of missing data.
    NoData,
    /// The rollout was still baking at the time limit.
    Unfinished,
}

/// One run.
#[derive(Clone, Debug)]
pub(crate) struct Run {
    pub(crate) end: End,
    /// Seconds from the canary's first request to the end.
    pub(crate) seconds: f64,
    /// The step in which it ended, from 0.
    pub(super) step: i32,
    /// The metric and segment that caused a rollback.
    pub(super) tipped: Option<(String, Segment)>,
    /// The cause of the end, in one sentence.
    pub(crate) sentence: String,
    /// Requests that the canary served.
    pub(crate) canary_requests: u64,
    /// By index of a rate: events of the canary beyond those that stable would have had.
    pub(super) extra: BTreeMap<usize, f64>,
    /// Seconds from the start of a step until a metric passed over all traffic, by step and metric.
    pub(super) passed: BTreeMap<(i32, String), f64>,
    /// Seconds from the canary's first request until a hypothesis failed, by metric and segment.
    pub(super) failed: BTreeMap<(String, Segment), f64>,
}

impl Experiment {
    /// Plays one run.
    pub(crate) fn play(&self, number: u32) -> anyhow::Result<Run> {
        let mut player = Player::new(self, number)?;
        for _ in 0..MOST_WINDOWS {
            if let Some(run) = player.window()? {
                return Ok(run);
            }
        }
        anyhow::bail!("no end after {MOST_WINDOWS} windows: is the traffic enough for warm-up?")
    }
}

/// A run in progress.
struct Player<'a> {
    experiment: &'a Experiment,
    dice: Dice,
    /// Random numbers for populations, separate so that they do not change the counts.
    population_dice: Dice,
    pipeline: InProcess,
    /// End of the last window.
    now: EventTime,
    /// Start of the first window with canary traffic.
    first: Option<EventTime>,
    /// The step, and the start of its first window.
    step: (i32, EventTime),
    /// Windows of labels, by the time at which they close.
    labels: BTreeMap<EventTime, Vec<WindowClosed>>,
    /// Metrics by maturity. Each maturity is a stream of windows.
    streams: BTreeMap<Span, Vec<usize>>,
    canary_requests: u64,
    /// Requests before the canary's first one.
    warm_up_requests: u64,
    extra: BTreeMap<usize, f64>,
    passed: BTreeMap<(i32, String), f64>,
    failed: BTreeMap<(String, Segment), f64>,
}

impl<'a> Player<'a> {
    fn new(experiment: &'a Experiment, number: u32) -> anyhow::Result<Self> {
        let spec = &experiment.spec;
        let mut pipeline = InProcess::new(spec.model.clone(), serin_aggregator::Config::default())?;
        // Requests are drawn independently, so each is a separate unit.
        let mut drawn = spec.clone();
        drawn.assignment.sticky = None;
        // Approvals are given at once: what people would answer, and when, is not simulated.
        drawn.steps.iter_mut().for_each(|step| step.approve = None);
        pipeline.apply(&drawn)?;
        let mut streams = BTreeMap::from([(Span::default(), Vec::new())]);
        for (index, metric) in spec.metrics.iter().enumerate() {
            streams.entry(metric.settles_after(spec.window).0).or_insert_with(Vec::new).push(index);
        }
        let now = START.window_end(spec.window.0);
        Ok(Self {
            experiment,
            dice: Dice::of(experiment.seed, number),
            population_dice: Dice::of(!experiment.seed, number),
            pipeline,
            now,
            first: None,
            step: (-1, now),
            labels: BTreeMap::new(),
            streams,
            canary_requests: 0,
            warm_up_requests: 0,
            extra: BTreeMap::new(),
            passed: BTreeMap::new(),
            failed: BTreeMap::new(),
        })
    }

    /// Plays one window. Returns the run if it ended.
    fn window(&mut self) -> anyhow::Result<Option<Run>> {
        let end = self.now.plus(self.experiment.spec.window.0);
        self.draw(end)?;
        let due = self.labels.range(..=end).map(|(closes, _)| *closes).collect::<Vec<_>>();
        for window in due.iter().flat_map(|closes| self.labels.remove(closes).unwrap_or_default()) {
            self.pipeline.window(&window)?;
        }
        self.pipeline.window(&ClosedThrough::heard(0, 1, end))?;
        self.pipeline.run_until_quiet()?;
        self.now = end;
        for verdict in self.pipeline.take_verdicts() {
            self.note(&verdict);
        }
        let Some(state) = self.pipeline.state() else { return Ok(None) };
        let step = StepIndex::number(state.step);
        if step != self.step.0 {
            self.step = (step, end);
        }
        // A warm-up that has seen many times the answers that it needs is held, and stays so.
        let needed = self.experiment.spec.warmup.min_events.max(1).saturating_mul(WARM_UPS);
        let longest = self.streams.keys().next_back().copied().unwrap_or_default();
        let waited = end.since(START).0 > longest.0.saturating_mul(2);
        let stuck = self.first.is_none() && waited && self.warm_up_requests > needed;
        let over = stuck || self.first.is_some_and(|first| end.since(first) >= self.experiment.limit);
        Ok(ending(state, over).map(|(end, sentence)| self.ended(end, sentence)))
    }

    /// Draws the answers of a window. Values that are known at once go to the analyzer, labels wait.
    fn draw(&mut self, end: EventTime) -> anyhow::Result<()> {
        let Experiment { spec, world, .. } = self.experiment;
        let table = self.pipeline.table()?;
        let generation = table.generation;
        let shares = [share(table, Arm::Canary), share(table, Arm::Control)];
        let mirrored = share(table, Arm::Shadow);
        if shares[0] > 0.0 || mirrored > 0.0 {
            self.first.get_or_insert(self.now);
        }
        let at = self.first.map_or(Span(0), |first| self.now.since(first));
        let requests = world.requests(spec.window.0, &mut self.dice);
        if self.first.is_none() {
            self.warm_up_requests = self.warm_up_requests.saturating_add(requests);
        }
        let split = self.dice.split(requests, shares.into_iter().chain([1.0 - shares[0] - shares[1]]));
        let mut arms: Vec<(Arm, u64)> = [Arm::Canary, Arm::Control, Arm::Stable].into_iter().zip(split).collect();
        if mirrored > 0.0 {
            arms.push((Arm::Shadow, self.dice.split(requests, [mirrored, 1.0 - mirrored].into_iter())[0]));
        }
        self.canary_requests += arms[0].1;
        let compares = self.pipeline.state().is_some_and(|state| state.frozen.is_some());
        let sketched: Vec<(Arm, u64)> =
            arms.iter().copied().filter(|(arm, _)| (*arm == Arm::Stable) != compares).collect();
        let population = if compares { self.population(&sketched) } else { Vec::new() };
        let Self { streams, dice, extra, .. } = self;
        let mut windows = Vec::new();
        let mut outcomes = Outcomes::new();
        for (&maturity, metrics) in streams.iter() {
            let mut cells = Vec::new();
            for &(arm, n) in &sketched {
                for &metric in metrics {
                    // Only mirrored calls have two answers.
                    if spec.metrics[metric].kind.is_paired() && arm != Arm::Shadow {
                        continue;
                    }
                    let drawn = world.draw(metric, matches!(arm, Arm::Canary | Arm::Shadow), at, n, dice);
                    if let (Arm::Canary, Some((_, Summary::Rate(rate))), Some(base)) =
                        (arm, drawn.first(), world.stable_rate(metric, at))
                    {
                        *extra.entry(metric).or_default() += rate.k() as f64 - rate.n() as f64 * base;
                    }
                    if let Some((_, Summary::Rate(rate))) = drawn.first() {
                        outcomes.insert((arm, metric), rate.k());
                    }
                    let cell = |(segment, summary): (Segment, Summary)| Cell {
                        arm,
                        segment,
                        metric: spec.metrics[metric].name.clone(),
                        summary: summary.encode(),
                    };
                    cells.extend(drawn.into_iter().map(cell));
                }
            }
            let counts = arms.iter().filter(|(_, n)| *n > 0).map(|&(arm, n)| {
                let bad = |metric| {
                    let drawn = outcomes.get(&(arm, metric)).copied();
                    // Answers that are not compared are not drawn. Their expected number is used.
                    drawn.unwrap_or_else(|| {
                        (world.stable_rate(metric, at).unwrap_or_default() * n as f64).round() as u64
                    })
                };
                counts(spec, arm, n, maturity, bad)
            });
            windows.push(WindowClosed {
                model: spec.model.clone(),
                rollout: ROLLOUT.into(),
                generation,
                partition: 0,
                end,
                length: spec.window.0,
                maturity,
                cells,
                arms: counts.collect(),
                population: if maturity == Span(0) { population.clone() } else { Vec::new() },
                rules: serin_schemas::records::RULES,
                units: Vec::new(),
                #[cfg(feature = "next-schema")]
                closed_by: None,
            });
        }
        for window in windows {
            if window.maturity == Span(0) {
                self.pipeline.window(&window)?;
            } else {
                self.labels.entry(end.plus(window.maturity)).or_default().push(window);
            }
        }
        Ok(())
    }

    /// The number of answers of each arm by segment value.
    fn population(&mut self, arms: &[(Arm, u64)]) -> Vec<Population> {
        let frozen = self.pipeline.state().and_then(|state| state.frozen.as_ref());
        let is_judged = |segment: &Segment| {
            let values = frozen.and_then(|frozen| frozen.segments.get(&segment.dimension));
            values.is_some_and(|values| values.contains(&segment.value))
        };
        let (world, population_dice) = (&self.experiment.world, &mut self.population_dice);
        let mut all = Vec::new();
        for &(arm, n) in arms {
            let drawn = world.population(n, is_judged, population_dice).into_iter();
            all.extend(drawn.map(|(segment, count)| Population { arm, segment, predictions: count as i64 }));
        }
        all
    }

    fn note(&mut self, verdict: &Verdict) {
        let Some(first) = self.first else { return };
        for metric in &verdict.metrics {
            if metric.failed_at.is_some() {
                let key = (metric.metric.clone(), metric.segment.clone());
                self.failed.entry(key).or_insert_with(|| self.now.since(first).as_secs_f64());
            } else if metric.segment.is_all() && metric.result == MetricResult::Pass && verdict.step == self.step.0 {
                let key = (verdict.step, metric.metric.clone());
                self.passed.entry(key).or_insert_with(|| self.now.since(self.step.1).as_secs_f64());
            }
        }
    }

    fn ended(&mut self, end: End, sentence: String) -> Run {
        let state = self.pipeline.state();
        let reason = state.and_then(|state| state.ending.as_ref()).and_then(|ending| ending.reasons.first());
        Run {
            end,
            seconds: self.first.map_or(0.0, |first| self.now.since(first).as_secs_f64()),
            step: StepIndex::number(state.and_then(|state| state.step)),
            tipped: reason.filter(|_| end == End::RolledBack).map(|tip| (tip.metric.clone(), tip.segment.clone())),
            sentence,
            canary_requests: self.canary_requests,
            extra: std::mem::take(&mut self.extra),
            passed: std::mem::take(&mut self.passed),
            failed: std::mem::take(&mut self.failed),
        }
    }
}

/// How a run has ended, if it has. A hold ends the run, because an operator's decision cannot be simulated.
fn ending(state: &RolloutState, over: bool) -> Option<(End, String)> {
    if let Some(ending) = &state.ending {
        let end = match ending.outcome {
            Outcome::Promoted => End::Promoted,
            Outcome::Evidence => End::RolledBack,
            Outcome::NoData => End::NoData,
            Outcome::Inconclusive | Outcome::Aborted | Outcome::Superseded => End::Held,
        };
        return Some((end, ending.sentence.clone()));
    }
    if state.phase == Phase::Held {
        // Unsound evidence may become sound again, or be enough for a rollback, until the time limit. Marginal evidence waits for an
        // operator.
        let may_go_on = state.hold.as_ref().is_some_and(|hold| hold.cause == HoldCause::Health);
        return (over || !may_go_on).then(|| (End::Held, state.sentence.clone()));
    }
    // Warm-up waits for stable's answers to become good, or for values that do not come.
    let end = if state.phase == Phase::Warming { End::Held } else { End::Unfinished };
    over.then(|| (end, state.sentence.clone()))
}

fn share(table: &RoutingTable, arm: Arm) -> f64 {
    table.routes.iter().filter(|route| route.arm == arm).map(|route| f64::from(route.share) / 1e4).sum()
}

/// Number of answers for which a rate was true, by arm and metric.
type Outcomes = BTreeMap<(Arm, usize), u64>;

/// The counts of an arm. Every answer is in time, every label arrives, and outcomes follow the metrics on them. Metrics are drawn
/// independently, so a call may have more than one bad outcome; their sum is limited to the number of calls.
fn counts(spec: &RolloutSpec, arm: Arm, n: u64, maturity: Span, bad: impl Fn(usize) -> u64) -> ArmCounts {
    let mut left = n;
    let mut of = |source: MetricSource| {
        let is_rate = |metric: &&serin_spec::MetricSpec| metric.source == source && metric.kind == MetricKind::Rate;
        let metric = spec.metrics.iter().position(|metric| is_rate(&metric));
        let count = metric.map_or(0, &bad).min(left);
        left -= count;
        count as i64
    };
    let (errors, refused, invalid) = (of(MetricSource::Failed), of(MetricSource::Refused), of(MetricSource::Unusable));
    let labelled = if maturity.0 > 0 { n as i64 } else { 0 };
    ArmCounts { predictions: n as i64, labelled, errors, refused, invalid, ..ArmCounts::none(arm) }
}
