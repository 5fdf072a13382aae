//! The evidence on one metric in one segment: the statistics' hypothesis and what the analyzer notes beside it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serin_rollout::{Direction, Limit, Margin, MetricKind, MetricSpec};
use serin_schemas::ids::EventTime;
use serin_sketches::{Buckets, CappedHist, ClassCounts, Events, LinHist, LogHist, Pairs, Rate, Summary};
use serin_statistics::{
    Against, Hypothesis, HypothesisSpec, LooksError, LooksPlan, Measure, ObserveError, PlannedLooks, SpecError,
    Stratum, StratumPasts, cluster::tempering_of_next_window,
};

use crate::{head::Era, latest::Latest, plan::Plan, units::Units};

/// Evidence on one hypothesis; a row of its own.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Evidence {
    /// The e-processes and estimates.
    pub(crate) test: Hypothesis,
    /// Observations of the canary in compared windows, whether or not they could enter.
    pub(crate) canary_seen: u64,
    /// The same of control.
    pub(crate) control_seen: u64,
    /// End of the window in which it failed.
    pub(crate) failed_at: Option<EventTime>,
    /// End of the last window with observations of both arms.
    pub(crate) through: Option<EventTime>,
    /// Where units are assigned: how many answers counted as one in the last window.
    pub(crate) design_effect: Option<f64>,
    /// What decides PASS in a step that asks for planned looks; a row of its own, so that without it nothing changes.
    #[serde(skip)]
    pub(crate) looks: Option<Looks>,
    /// Control's past per value, where the metric is stratified; a row of its own, too.
    #[serde(skip)]
    pub(crate) pasts: StratumPasts,
    /// What units have added, where a key assigns the arm; a row of its own, too.
    #[serde(skip)]
    pub(crate) units: Units,
    /// Its latest windows; rows of their own, too.
    #[serde(skip)]
    pub(crate) latest: Latest,
}

/// Planned looks and the step that they are for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Looks {
    pub(crate) step: i32,
    pub(crate) test: PlannedLooks,
}

/// Both arms of one generation in a window, or of one segment value in it.
pub(crate) struct Pair {
    /// The generation's step.
    pub(crate) step: i32,
    /// The value's place among the strata; `None`: all answers together.
    pub(crate) place: Option<usize>,
    pub(crate) canary: Summary,
    pub(crate) control: Summary,
}

impl Pair {
    fn stratum(&self) -> Stratum<'_> {
        Stratum { canary: &self.canary, control: &self.control }
    }
}

impl Evidence {
    /// No evidence yet on a metric.
    pub(crate) fn new(metric: &MetricSpec, horizon: u32, interval_alpha: f64) -> Result<Self, SpecError> {
        let spec = HypothesisSpec {
            measure: measure(&metric.kind),
            direction: direction(metric.direction),
            against: against(metric),
            horizon,
            interval_alpha,
        };
        let test = Hypothesis::new(spec)?;
        Ok(Self {
            test,
            canary_seen: 0,
            control_seen: 0,
            failed_at: None,
            through: None,
            design_effect: None,
            looks: None,
            pasts: StratumPasts::default(),
            units: Units::default(),
            latest: Latest::default(),
        })
    }

    /// Begins planned looks for a step.
    pub(crate) fn plan_looks(&mut self, step: i32, plan: LooksPlan) -> Result<(), LooksError> {
        self.looks = Some(Looks { step, test: PlannedLooks::new(self.test.spec(), plan)? });
        Ok(())
    }

    /// Whether control is not looked at.
    pub(crate) fn is_one_arm(&self) -> bool {
        matches!(self.test.spec().against, Against::Limit { .. })
    }

    /// Lets the next windows count for less: so many answers are as good as one. `None`: nothing is known of units yet.
    pub(crate) fn temper(&mut self, design_effect: Option<f64>) {
        self.design_effect = design_effect;
        self.test.temper(tempering_of_next_window(design_effect.unwrap_or(1.0)));
    }

    /// Takes what units add to a window that was observed.
    pub(crate) fn observe_units(&mut self, pairs: &[[Summary; 2]], by_group: bool) {
        let strata: Vec<Stratum<'_>> = pairs.iter().map(|[canary, control]| Stratum { canary, control }).collect();
        self.test.observe_units(&strata, by_group, &mut self.units.sums);
    }

    /// Takes one window: canary and control per generation.
    pub(crate) fn observe(&mut self, end: EventTime, pairs: &[Pair]) -> Result<(), ObserveError> {
        let before = self.test.windows();
        let strata: Vec<Stratum<'_>> = pairs.iter().map(Pair::stratum).collect();
        match pairs.iter().map(|pair| pair.place).collect::<Option<Vec<usize>>>() {
            Some(places) => self.test.observe_by(end.0, &strata, &places, &mut self.pasts)?,
            None => self.test.observe(end.0, &strata)?,
        }
        if let Some(looks) = &mut self.looks {
            let of_step = pairs.iter().filter(|pair| pair.step == looks.step);
            looks.test.observe(&of_step.map(Pair::stratum).collect::<Vec<_>>());
        }
        for Pair { canary, control, .. } in pairs {
            self.canary_seen = self.canary_seen.saturating_add(canary.n());
            self.control_seen = self.control_seen.saturating_add(control.n());
        }
        if self.test.windows() > before {
            self.through = Some(end);
        }
        Ok(())
    }
}

/// What a hypothesis compares in a window: its own summaries, which nobody else needs, or those of its strata. A hypothesis over
/// all traffic comes before those of single values.
pub(crate) fn pairs(
    plan: &Plan,
    index: usize,
    by_index: &mut [[BTreeMap<usize, Summary>; 2]],
    eras: &[Era],
) -> Vec<Pair> {
    let empty = &plan.metrics[plan.hypotheses[index].metric].empty;
    let strata = plan.strata(index);
    let mut pairs = Vec::new();
    for (arms, era) in by_index.iter_mut().zip(eras) {
        let mut add = |place, arms: [Option<Summary>; 2]| {
            if arms.iter().any(Option::is_some) {
                let [canary, control] = arms.map(|arm| arm.unwrap_or_else(|| empty.clone()));
                pairs.push(Pair { step: era.step, place, canary, control });
            }
        };
        if strata.is_empty() {
            add(None, arms.each_mut().map(|arm| arm.remove(&index)));
        }
        for (place, stratum) in strata.iter().enumerate() {
            add(Some(place), arms.each_ref().map(|arm| arm.get(stratum).cloned()));
        }
    }
    pairs
}

/// What units add to a hypothesis in a window, canary and control per generation, or per stratum.
pub(crate) fn units(plan: &Plan, index: usize, by_index: &[[BTreeMap<usize, Summary>; 2]]) -> Vec<[Summary; 2]> {
    let strata = plan.strata(index);
    let places = if strata.is_empty() { vec![index] } else { strata };
    let sums = |arm: &BTreeMap<usize, Summary>, place: &usize| {
        arm.get(place).cloned().unwrap_or_else(|| Summary::Buckets(Buckets::new()))
    };
    let of_era = |arms: &[BTreeMap<usize, Summary>; 2]| -> Vec<[Summary; 2]> {
        places.iter().map(|place| arms.each_ref().map(|arm| sums(arm, place))).collect()
    };
    by_index.iter().flat_map(of_era).collect()
}

/// A summary of a metric without observations.
pub(crate) fn empty(kind: &MetricKind) -> Summary {
    match kind {
        MetricKind::Rate => Summary::Rate(Rate::default()),
        MetricKind::Mean { .. } => Summary::Lin(LinHist::new()),
        // A cap that makes no sense has no hypothesis (`Evidence::new`).
        MetricKind::CappedMean { cap } => {
            CappedHist::new(*cap).map_or_else(|| Summary::Rate(Rate::default()), Summary::Capped)
        }
        MetricKind::Quantile { .. } | MetricKind::Distribution => Summary::Log(LogHist::new()),
        MetricKind::Classes => Summary::Classes(ClassCounts::default()),
        MetricKind::Count => Summary::Events(Events::default()),
        MetricKind::Disagreement => Summary::Pairs(Pairs::new()),
    }
}

fn against(metric: &MetricSpec) -> Against {
    match metric.limit.and_then(Limit::both) {
        Some((pass, fail)) => Against::Limit { pass, fail },
        None => Against::Control(margin(metric.margin_or_default())),
    }
}

fn measure(kind: &MetricKind) -> Measure {
    match *kind {
        MetricKind::Rate => Measure::Rate,
        MetricKind::Mean { min, max } => Measure::Mean { min, max },
        MetricKind::CappedMean { cap } => Measure::CappedMean { cap },
        MetricKind::Quantile { level } => Measure::Quantile { level },
        MetricKind::Distribution => Measure::Distribution,
        MetricKind::Classes => Measure::Classes,
        MetricKind::Count => Measure::Count,
        MetricKind::Disagreement => Measure::Disagreement,
    }
}

fn direction(direction: Direction) -> serin_statistics::Direction {
    match direction {
        Direction::LowerIsBetter => serin_statistics::Direction::LowerIsBetter,
        Direction::HigherIsBetter => serin_statistics::Direction::HigherIsBetter,
    }
}

fn margin(margin: Margin) -> serin_statistics::Margin {
    serin_statistics::Margin { absolute: margin.absolute, relative: margin.relative }
}
