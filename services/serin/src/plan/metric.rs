//! One metric as planned: what it is expected to show, and what would be a regression.

use serin_kinds::{CLASS_COUNT, Range, SIGMA};
use serin_schemas::records::Role;
use serin_spec::{Direction, MetricKind, MetricSpec};
use serin_statistics::{
    Margin,
    planning::{Expected, PlanError, Planned},
};

use super::Request;
use crate::simulate;

/// The smallest share, or number of events per answer, that is planned with.
const RAREST: f64 = 1e-6;

/// A metric with its figures.
pub(super) struct Metric<'a> {
    pub(super) spec: &'a MetricSpec,
    /// Stable's expected value, as a person says it.
    pub(super) stable: f64,
    /// Level of its FAIL test: its share of the rollback budget.
    pub(super) alpha: f64,
    /// The canary's value, if it regresses.
    pub(super) regressed: f64,
    /// Seconds until its labels are there.
    pub(super) maturity: f64,
    /// Seconds at the begin of a step that are left out of it.
    pub(super) settle: f64,
}

impl<'a> Metric<'a> {
    /// The figures of a metric. `weight`: its share of the rollback budget.
    pub(super) fn new(request: &Request, spec: &'a MetricSpec, weight: f64) -> anyhow::Result<Self> {
        let own = request.regressions.iter().find(|regression| regression.metric == spec.name);
        let from = own.and_then(|regression| regression.change.from());
        let told = from.or(request.base.get(&spec.name).copied());
        let stable = told.unwrap_or_else(|| spec.usual_value());
        let check = |value: f64| match simulate::impossible(spec, value) {
            Some(why) => Err(anyhow::anyhow!("{}: {why}", spec.name)),
            None => Ok(()),
        };
        check(stable)?;
        let budget = request.spec.decision.false_rollback;
        // What is only watched has no share of the budget and is held against its own e-value.
        let alpha = if spec.role == Role::Watch { budget } else { budget * weight };
        let maturity = spec.settles_after(request.spec.window).0.as_secs_f64();
        // Limits hold while the canary settles, too.
        let settle = if spec.limit.is_some() { 0.0 } else { request.spec.settles_for().0.as_secs_f64() };
        let mut metric = Self { spec, stable, alpha, regressed: stable, maturity, settle };
        metric.regressed = match own {
            Some(regression) => regression.change.to(stable),
            None => metric.usual_regression().map_err(|error| anyhow::anyhow!("{}: {error}", spec.name))?,
        };
        check(metric.regressed)?;
        Ok(metric)
    }

    /// A value that was measured, as it can be planned with; `None`: it cannot.
    pub(super) fn plannable(spec: &MetricSpec, value: f64) -> Option<f64> {
        let value = match spec.kind {
            // No value has a mean at the very end of its range; one close to it is as good.
            MetricKind::Mean { min, max } => {
                let edge = RAREST * (max - min);
                value.clamp(min + edge, max - edge)
            }
            // The number of a distribution here is its median.
            MetricKind::Distribution => return None,
            _ => value,
        };
        (value.is_finite() && simulate::impossible(spec, value).is_none()).then_some(value)
    }

    /// Twice as much harm as is acceptable; where nothing is, half as much again.
    fn usual_regression(&self) -> anyhow::Result<f64> {
        let worse = if self.spec.direction == Direction::HigherIsBetter { 0.5 } else { 1.5 };
        let planned = self.planned(1.0)?;
        let border = planned.fail_border().map(|border| self.shown(border));
        let harm = border.map_or(0.0, |border| border - self.stable);
        let twice = if harm == 0.0 { self.stable * worse } else { self.stable + 2.0 * harm };
        let fits = simulate::impossible(self.spec, twice).is_none();
        Ok(if fits { twice } else { f64::midpoint(border.unwrap_or(self.stable), self.extreme()) })
    }

    fn extreme(&self) -> f64 {
        match (&self.spec.kind, self.spec.direction) {
            (MetricKind::Mean { max, .. }, Direction::LowerIsBetter) => *max,
            (MetricKind::Mean { min, .. }, Direction::HigherIsBetter) => *min,
            (_, Direction::LowerIsBetter) => 1.0,
            (_, Direction::HigherIsBetter) => 0.0,
        }
    }

    /// The hypothesis with `kappa` control answers per canary answer.
    pub(super) fn planned(&self, kappa: f64) -> Result<Planned, PlanError> {
        let direction = match self.spec.direction {
            Direction::LowerIsBetter => serin_statistics::Direction::LowerIsBetter,
            Direction::HigherIsBetter => serin_statistics::Direction::HigherIsBetter,
        };
        let expected = self.expected();
        if let Some((pass, fail)) = self.spec.limit.and_then(serin_spec::Limit::both) {
            return Planned::against_limit(expected, direction, pass, fail);
        }
        let margin = self.spec.margin_or_default();
        let margin = Margin { absolute: margin.absolute, relative: margin.relative };
        let planned = Planned::against_control(expected, direction, margin, kappa)?;
        // The cap of a count is not known before control's numbers are.
        let range = if self.spec.kind == MetricKind::Count { Range::POSITIVE } else { self.spec.kind.range() };
        let planned = planned.within(range.min, range.max);
        // Each class in both directions.
        Ok(if self.spec.kind == MetricKind::Classes { planned.averaged_over(2 * CLASS_COUNT as u32) } else { planned })
    }

    /// What stable is expected to show: the laws of the simulator.
    fn expected(&self) -> Expected {
        // The formulas need some of both; what never or always happens is planned as what hardly ever, or nearly always, does.
        let control = match self.spec.kind {
            MetricKind::Rate | MetricKind::Classes | MetricKind::Disagreement => {
                self.stable.clamp(RAREST, 1.0 - RAREST)
            }
            MetricKind::Count => self.stable.max(RAREST),
            _ => self.stable,
        };
        match self.spec.kind {
            MetricKind::Rate | MetricKind::Classes | MetricKind::Disagreement => Expected::Rate { control },
            MetricKind::Mean { .. } | MetricKind::CappedMean { .. } | MetricKind::Count => {
                Expected::Mean { control, sd: self.spec.kind.usual_spread(control).unwrap_or_default() }
            }
            MetricKind::Quantile { level } => Expected::Quantile { control, level, log_sd: SIGMA },
            MetricKind::Distribution => Expected::Distribution,
        }
    }

    /// A person's value as the planner takes it: for a distribution, whose number here is the median, the largest difference of
    /// the two distribution functions.
    pub(super) fn seen_as(&self, value: f64) -> f64 {
        if self.spec.kind == MetricKind::Distribution {
            libm::erf((value / self.stable).ln().abs() / (2.0 * SIGMA * std::f64::consts::SQRT_2))
        } else {
            value
        }
    }

    /// The planner's value as a person reads it: the reverse of [`Self::seen_as`].
    pub(super) fn shown(&self, value: f64) -> f64 {
        if self.spec.kind != MetricKind::Distribution {
            return value;
        }
        let (mut low, mut high) = (self.stable, self.stable * 1e4);
        for _ in 0..100 {
            let middle = f64::midpoint(low, high);
            if self.seen_as(middle) < value { low = middle } else { high = middle }
        }
        f64::midpoint(low, high)
    }

    /// Seconds from an answer at the begin of a step until it is judged by the first that counts.
    pub(super) fn wait(&self) -> f64 {
        self.settle + self.maturity
    }

    /// Whether its number counts events, so that harm is a number of bad outcomes.
    pub(super) fn counts_events(&self) -> bool {
        matches!(self.spec.kind, MetricKind::Rate | MetricKind::Count)
    }
}
