//! A rollout whose windows are drawn as summaries.

use serin_kinds::Metric as _;
use serin_schemas::{
    ids::Span,
    records::{Arm, ArmCounts, Cell, MetricResult, MetricVerdict, Phase, Population, Segment, WindowClosed},
};
use serin_sketches::{
    Buckets, CappedHist, ClassCounts, LinHist, LogHist, Pair, Pairs, Rate, Summary, hash::hash64, log_position,
};
use serin_spec::RolloutSpec;

use crate::support::{self, Dice, WINDOW, World};

/// Draws a summary. `harm` is how the version on trial behaves, from 0 (like control) to 1.
pub(crate) type Draw = fn(&mut Dice, metric: &str, n: u64, harm: f64) -> Summary;

/// An arm's data of a metric: its summary, and what its units add.
pub(crate) type People = fn(metric: &str, arm: Arm, seed: u64) -> (Summary, Vec<Summary>);

/// A rollout with any metrics, whose windows are drawn as summaries.
pub(crate) struct Lab {
    pub(crate) world: World,
    spec: RolloutSpec,
    draw: Draw,
    pub(crate) harm: f64,
    /// The canary's answers per window. Control has ten times as many.
    pub(crate) n: u64,
    /// Answers by segment value: canary, control.
    pub(crate) population: Vec<(&'static str, i64, i64)>,
    pub(crate) mirror: bool,
    /// Used instead of `draw`: the same users in every window, with this seed.
    pub(crate) people: Option<(People, u64)>,
    /// Windows of metrics that mature later.
    pub(crate) later: Vec<WindowClosed>,
}

impl Lab {
    pub(crate) fn new(seed: u64, metrics: &str, more: &str, draw: Draw) -> Self {
        let text = format!(
            r#"{{"apiVersion": "serin.dev/v1", "kind": "Rollout", "model": "flights",
            "stable": {{"version": "v1"}}, "canary": {{"version": "v2"}}, "window": "10s",
            "warmup": {{"minEvents": 3000}}, "steps": [
                {{"weight": "5%", "bake": {{"min": "1m", "max": "20m"}}, "require": "pass"}},
                {{"weight": "25%", "bake": {{"min": "1m", "max": "20m"}}, "require": "pass"}}],
            {more} "metrics": [{metrics}]}}"#
        );
        let spec = serde_json::from_str(&text).unwrap();
        let mut world = World::with_spec(seed, &text);
        world.commit_each = false;
        let population = Vec::new();
        Self { world, spec, draw, harm: 0.0, n: 500, population, mirror: false, people: None, later: Vec::new() }
    }

    /// Warms up on stable and starts the ramp.
    pub(crate) fn bake(&mut self) {
        self.world.turn(Phase::Warming, -1, 0, 0);
        while self.world.verdicts.last().is_none_or(|verdict| verdict.frozen.is_none()) {
            assert!(self.world.now.since(support::START) < Span::from_secs(300), "warm-up never ends");
            self.window();
        }
        let frozen = self.world.last().frozen.clone();
        self.world.control.frozen = frozen;
        self.step(0);
    }

    pub(crate) fn step(&mut self, step: i32) {
        if self.mirror {
            self.world.turn(Phase::Shadowing, step, 0, 10_000);
        } else {
            self.world.turn(Phase::Baking, step, 500, 5000);
        }
    }

    /// One window of traffic and its verdict.
    pub(crate) fn window(&mut self) {
        self.world.now = self.world.now.plus(WINDOW);
        let now = self.world.now;
        let warming = self.world.control.frozen.is_none();
        let trial = if self.mirror { Arm::Shadow } else { Arm::Canary };
        let arms = if warming { vec![(Arm::Stable, 11)] } else { vec![(trial, 1), (Arm::Control, 10)] };
        let mut streams: std::collections::BTreeMap<Span, (Vec<Cell>, Vec<ArmCounts>)> =
            std::collections::BTreeMap::default();
        streams.entry(Span(0)).or_default();
        for metric in &self.spec.metrics {
            let settles = metric.settles_after(self.spec.window).0;
            let (cells, _) = streams.entry(settles).or_default();
            for &(arm, times) in &arms {
                let paired = metric.kind == serin_spec::MetricKind::Disagreement;
                if paired && arm != Arm::Shadow {
                    continue;
                }
                let cell_of = |segment: Segment, summary: &Summary| Cell {
                    arm,
                    segment,
                    metric: metric.name.clone(),
                    summary: summary.encode(),
                };
                if let Some((people, seed)) = self.people {
                    let (summary, units) = people(&metric.name, arm, seed);
                    cells.push(cell_of(Segment::all(), &summary));
                    let sticky = self.spec.assignment.sticky.is_some();
                    cells.extend(units.iter().filter(|_| sticky).map(|units| cell_of(Segment::all(), units)));
                    continue;
                }
                let harm = if arm == trial { self.harm } else { 0.0 };
                let segments = metric
                    .segments
                    .iter()
                    .flat_map(|dimension| ["a", "b"].map(|value| Segment::of(dimension.as_str(), value)));
                for segment in std::iter::once(Segment::all()).chain(segments) {
                    let n = if segment.is_all() { self.n * times } else { self.n * times / 2 };
                    let summary = (self.draw)(&mut self.world.dice, &metric.name, n, harm);
                    if segment.is_all() && self.spec.assignment.sticky.is_some() {
                        cells.push(cell_of(segment.clone(), &buckets(&mut self.world.dice, &summary)));
                    }
                    cells.push(cell_of(segment, &summary));
                }
            }
        }
        for (settles, (cells, _)) in streams {
            let counts = |&(arm, times): &(Arm, u64)| ArmCounts {
                predictions: (self.n * times) as i64,
                labelled: if settles.0 > 0 { (self.n * times) as i64 } else { 0 },
                ..ArmCounts::none(arm)
            };
            let people = self.population.iter().flat_map(|&(value, canary, control)| {
                [(trial, canary), (Arm::Control, control)].map(|(arm, predictions)| Population {
                    arm,
                    segment: Segment::of("site", value),
                    predictions,
                })
            });
            self.later.push(WindowClosed {
                model: self.world.control.model.clone(),
                rollout: self.world.control.rollout.clone(),
                generation: self.world.control.generation,
                partition: 0,
                end: now,
                length: WINDOW,
                maturity: settles,
                cells,
                arms: arms.iter().map(counts).collect(),
                population: if settles.0 == 0 && !warming { people.collect() } else { Vec::new() },
                rules: serin_schemas::records::RULES,
                units: Vec::new(),
            });
        }
        let (due, later): (Vec<_>, Vec<_>) =
            self.later.drain(..).partition(|window| window.end.plus(window.maturity) <= now);
        self.later = later;
        for window in due {
            assert_eq!(self.world.send(&window).poison, None);
        }
        self.world.close(now);
        self.world.commit();
    }

    /// Runs until the metric has this result, for at most `most` windows.
    pub(crate) fn until(&mut self, metric: &str, result: MetricResult, most: usize) -> &MetricVerdict {
        for _ in 0..most {
            self.window();
            if self.of(metric).result == result {
                return self.of(metric);
            }
        }
        panic!("never {result:?}: {:#?}", self.of(metric))
    }

    pub(crate) fn of(&self, metric: &str) -> &MetricVerdict {
        self.world.metric(metric, &Segment::all())
    }
}

/// Users with ten answers each, all of them alike.
fn buckets(dice: &mut Dice, summary: &Summary) -> Summary {
    let mut sums = Buckets::new();
    match summary {
        Summary::Rate(rate) => {
            for user in 0..rate.n() / 10 {
                let bad = user < rate.k() / 10;
                sums.insert(hash64(b"user", &(dice.bits() ^ user).to_le_bytes()), if bad { 10.0 } else { 0.0 }, 10)
                    .unwrap();
            }
        }
        _ => sums.insert(dice.bits(), log_position(1.0), 1).unwrap(),
    }
    Summary::Buckets(sums)
}

pub(crate) fn rate(dice: &mut Dice, n: u64, p: f64) -> Summary {
    let k = (0..n).filter(|_| dice.chance(p)).count() as u64;
    Summary::Rate(Rate::new(n, k).unwrap())
}

pub(crate) fn log(dice: &mut Dice, n: u64, scale: f64) -> Summary {
    let mut hist = LogHist::new();
    (0..n).for_each(|_| hist.insert(scale * (0.3 * dice.normal()).exp()).unwrap());
    Summary::Log(hist)
}

pub(crate) fn lin(dice: &mut Dice, n: u64, mean: f64) -> Summary {
    let mut hist = LinHist::new();
    for _ in 0..n {
        let (value, hash) = ((mean + 0.1 * dice.normal()).clamp(0.0, 1.0), dice.bits());
        hist.insert(value, hash).unwrap();
    }
    Summary::Lin(hist)
}

pub(crate) fn capped(dice: &mut Dice, n: u64, scale: f64) -> Summary {
    let mut hist = CappedHist::new(400.0).unwrap();
    for _ in 0..n {
        let (value, hash) = (100.0 * scale * (0.8 * dice.normal()).exp(), dice.bits());
        hist.insert(value, hash).unwrap();
    }
    Summary::Capped(hist)
}

pub(crate) fn classes(dice: &mut Dice, n: u64, timeouts: f64, fresh: f64) -> Summary {
    let mut counts = ClassCounts::default();
    for _ in 0..n {
        let class = match dice.unit() {
            u if u < fresh => "gpu_lost",
            u if u < fresh + timeouts => "timeout",
            _ => "ok",
        };
        counts.insert(class).unwrap();
    }
    Summary::Classes(counts)
}

/// Numbers of events with this mean. Events come in bursts of `burst`.
pub(crate) fn events(dice: &mut Dice, n: u64, mean: f64, burst: u32) -> Summary {
    let mut hist = CappedHist::new(serin_kinds::MOST_EVENTS).unwrap();
    for _ in 0..n {
        let bursts = (0..4).filter(|_| dice.chance(mean / f64::from(4 * burst))).count();
        hist.insert(bursts as f64 * f64::from(burst), dice.bits()).unwrap();
    }
    Summary::Capped(hist)
}

pub(crate) fn pairs(dice: &mut Dice, n: u64, differ: f64) -> Summary {
    let mut pairs = Pairs::new();
    (0..n).for_each(|_| pairs.insert(Pair::Same(!dice.chance(differ))).unwrap());
    Summary::Pairs(pairs)
}
