//! One metric in a forecast: its expected values, and its regression.

use serin_kinds::{Kind as _, Metric as _, Range, Tested as _};
use serin_schemas::records::Role;
use serin_spec::{Direction, MetricSpec};
use serin_statistics::planning::{PlanError, Planned};

use super::request::Request;
use crate::simulate;

/// A metric with the figures of its forecast.
pub(super) struct Metric<'a> {
    pub(super) spec: &'a MetricSpec,
    /// Stable's expected value, in the unit that users write.
    pub(super) stable: f64,
    /// Level of its test for `fail`: its share of the rollback budget.
    pub(super) alpha: f64,
    /// The canary's value, if it regresses.
    pub(super) regressed: f64,
    /// Share of the answers that the metric counts.
    pub(super) counted: f64,
    /// Seconds until its labels have arrived.
    pub(super) maturity: f64,
    /// Seconds at the start of a step that are left out.
    pub(super) settle: f64,
}

impl<'a> Metric<'a> {
    /// The figures of a metric. `weight`: its share of the rollback budget.
    pub(super) fn new(request: &Request, spec: &'a MetricSpec, weight: f64) -> anyhow::Result<Self> {
        let own = request.regressions.iter().find(|regression| regression.metric == spec.name);
        let from = own.and_then(|regression| regression.change.from());
        let given = from.or(request.base.get(&spec.name).copied());
        let stable = given.unwrap_or_else(|| spec.default_value());
        let check = |value: f64| match simulate::impossible(spec, value) {
            Some(why) => Err(anyhow::anyhow!("{}: {why}", spec.name)),
            None => Ok(()),
        };
        check(stable)?;
        let budget = request.spec.decision.false_rollback;
        // A watched metric has no share of the budget and is compared with its own e-value.
        let alpha = if spec.role == Role::Watch { budget } else { budget * weight };
        let maturity = spec.settles_after(request.spec.window).0.as_secs_f64();
        // Limits also apply while the canary settles.
        let settle = if spec.limit.is_some() { 0.0 } else { request.spec.settles_for().0.as_secs_f64() };
        let counted = simulate::counted(spec, &request.counted).map_err(anyhow::Error::msg)?;
        let mut metric = Self { spec, stable, alpha, regressed: stable, counted, maturity, settle };
        metric.regressed = match own {
            Some(regression) => regression.change.to(stable),
            None => metric.usual_regression().map_err(|error| anyhow::anyhow!("{}: {error}", spec.name))?,
        };
        check(metric.regressed)?;
        Ok(metric)
    }

    /// A measured value in the form that forecasts use; `None`: it cannot be used.
    pub(super) fn plannable(spec: &MetricSpec, value: f64) -> Option<f64> {
        let value = spec.kind.plannable(value)?;
        (value.is_finite() && simulate::impossible(spec, value).is_none()).then_some(value)
    }

    /// Twice the acceptable harm. If none is acceptable, a change by half.
    fn usual_regression(&self) -> anyhow::Result<f64> {
        let worse = if self.spec.direction == Direction::HigherIsBetter { 0.5 } else { 1.5 };
        let planned = self.planned(1.0)?;
        let border = planned.fail_border().map(|border| self.shown(border));
        let harm = border.map_or(0.0, |border| border - self.stable);
        let twice = if harm == 0.0 { self.stable * worse } else { self.stable + 2.0 * harm };
        let fits = simulate::impossible(self.spec, twice).is_none();
        let border = border.unwrap_or(self.stable);
        let halfway = f64::midpoint(border, self.extreme());
        let possible = if fits { twice } else { halfway };
        Ok(if simulate::impossible(self.spec, possible).is_none() { possible } else { border })
    }

    fn extreme(&self) -> f64 {
        let Range { min, max } = self.spec.kind.planned_range();
        if self.spec.direction == Direction::LowerIsBetter { max } else { min }
    }

    /// The hypothesis with `kappa` control answers per canary answer.
    pub(super) fn planned(&self, kappa: f64) -> Result<Planned, PlanError> {
        let (kind, direction) = (&self.spec.kind, serin_kinds::direction(self.spec.direction));
        // Stable's expected distribution is that of the simulator.
        let expected = kind.expected(self.stable);
        if let Some((pass, fail)) = self.spec.limit.and_then(serin_spec::Limit::both) {
            return Planned::against_limit(expected, direction, pass, fail);
        }
        let margin = serin_kinds::margin(self.spec.margin_or_default());
        let Range { min, max } = kind.planned_range();
        let planned = Planned::against_control(expected, direction, margin, kappa)?.within(min, max);
        Ok(match kind.planned_parts() {
            Some(parts) => planned.averaged_over(parts),
            None => planned,
        })
    }

    /// A user's value in the planner's unit. For a distribution, users write the median; the planner uses the largest difference
    /// of the two distribution functions.
    pub(super) fn seen_as(&self, value: f64) -> f64 {
        self.spec.kind.planned_as(self.stable, value)
    }

    /// The planner's value in the user's unit: the reverse of [`Self::seen_as`].
    pub(super) fn shown(&self, value: f64) -> f64 {
        self.spec.kind.shown(self.stable, value)
    }

    /// Seconds from the start of a step until the first answer that counts is judged.
    pub(super) fn wait(&self) -> f64 {
        self.settle + self.maturity
    }

    /// Whether the metric counts events, so that harm is a number of bad outcomes.
    pub(super) fn counts_events(&self) -> bool {
        self.spec.kind.counts_events()
    }
}
