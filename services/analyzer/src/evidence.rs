//! The evidence on one metric in one segment: the statistics' hypothesis and what the analyzer notes beside it.

use serde::{Deserialize, Serialize};
use serin_rollout::{Direction, Margin, MetricKind, MetricSpec};
use serin_schemas::ids::EventTime;
use serin_sketches::{LinHist, LogHist, Rate, Summary, SummaryKind};
use serin_statistics::{Against, Hypothesis, HypothesisSpec, Measure, ObserveError, SpecError, Stratum};

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
}

impl Evidence {
    /// No evidence yet on a metric.
    pub(crate) fn new(metric: &MetricSpec, horizon: u32, interval_alpha: f64) -> Result<Self, SpecError> {
        let spec = HypothesisSpec {
            measure: measure(&metric.kind)?,
            direction: direction(metric.direction),
            against: Against::Control(margin(metric.margin_or_default())),
            horizon,
            interval_alpha,
        };
        let test = Hypothesis::new(spec)?;
        Ok(Self { test, canary_seen: 0, control_seen: 0, failed_at: None, through: None })
    }

    /// Takes one window: canary and control per generation.
    pub(crate) fn observe(&mut self, end: EventTime, strata: &[(Summary, Summary)]) -> Result<(), ObserveError> {
        let before = self.test.windows();
        let borrowed: Vec<Stratum<'_>> = strata.iter().map(|(canary, control)| Stratum { canary, control }).collect();
        self.test.observe(end.0, &borrowed)?;
        for (canary, control) in strata {
            self.canary_seen = self.canary_seen.saturating_add(canary.n());
            self.control_seen = self.control_seen.saturating_add(control.n());
        }
        if self.test.windows() > before {
            self.through = Some(end);
        }
        Ok(())
    }
}

/// A summary without observations.
pub(crate) fn empty(kind: SummaryKind) -> Summary {
    match kind {
        SummaryKind::Lin => Summary::Lin(LinHist::new()),
        SummaryKind::Log => Summary::Log(LogHist::new()),
        // The plan knows these three kinds only (`window::summary_kind`).
        _ => Summary::Rate(Rate::default()),
    }
}

fn measure(kind: &MetricKind) -> Result<Measure, SpecError> {
    Ok(match *kind {
        MetricKind::Rate => Measure::Rate,
        MetricKind::Mean { min, max } => Measure::Mean { min, max },
        MetricKind::CappedMean { cap } => Measure::CappedMean { cap },
        MetricKind::Quantile { level } => Measure::Quantile { level },
        MetricKind::Distribution => Measure::Distribution,
        MetricKind::Classes => Measure::Classes,
        MetricKind::Count => Measure::Count,
        MetricKind::Disagreement => Measure::Disagreement,
    })
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
