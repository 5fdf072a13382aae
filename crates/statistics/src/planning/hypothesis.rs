//! A hypothesis in a plan: how many canary answers are needed to prove it.

use crate::bets::LAM_SHARE;
use crate::laws::{normal_isf, normal_sf};
use crate::numeric::{bisect, exp, is_inner, ln, sqrt};
use crate::planning::growth::{self, Growth};
use crate::planning::passage;
use crate::planning::sample_size::z_squared;
use crate::planning::{Spending, group_sequential_bounds};
use crate::two_means::lam_limit;
use crate::{Direction, Line, LooksPlan, Margin, SpecError};

/// The expected values of control, from its history or as a guess.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Expected {
    /// A share of answers (`b2`, `b1`; also classes and disagreement).
    Rate {
        /// Control's share, strictly between 0 and 1.
        control: f64,
    },
    /// A mean (`m2`, `m2w`, `m1`).
    Mean {
        /// Control's mean, in the metric's unit.
        control: f64,
        /// Standard deviation of one answer in both arms, above 0.
        sd: f64,
    },
    /// A quantile of a positive quantity (`q2`). Values are assumed to be log-normal near the quantile, and a regression is
    /// assumed to scale all of them.
    Quantile {
        /// Control's quantile, in the metric's unit, above 0.
        control: f64,
        /// The level of the quantile, such as 0.99.
        level: f64,
        /// Standard deviation of the logarithm of the values, above 0. [`log_sd`] computes it from two quantiles.
        log_sd: f64,
    },
    /// The whole distribution (`d2`). The canary's value is the largest difference between the distribution functions;
    /// control's value is 0.
    Distribution,
    /// Events per unit of exposure (`p2`). Numbers of answers are then units of the canary's exposure.
    Events {
        /// Control's events per unit, above 0.
        control: f64,
    },
}

/// Additional evidence, in nats, that the sequential FAIL test needs compared with a bet on the truth: for the mixture over bets and over
/// start windows, and for learning control's value. From simulation; section 7 of the statistical specification.
pub const FAIL_OVERHEAD: f64 = 1.5;

/// The same for PASS: it has no restarts, and lucky early crossings compensate for its mixture.
pub const PASS_OVERHEAD: f64 = 0.0;

/// Number of processes over which a distribution's evidence is averaged: 13 levels, two directions.
const LEVELS: f64 = 26.0;

/// A range without ends.
const ANY: (f64, f64) = (f64::NEG_INFINITY, f64::INFINITY);

/// Why a hypothesis cannot be planned.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum PlanError {
    /// A figure out of range.
    #[error("{what} {value} must be {must}")]
    Range {
        /// The name of the figure.
        what: &'static str,
        /// The value that was given.
        value: f64,
        /// The values that are allowed.
        must: &'static str,
    },
    /// A margin that is not valid.
    #[error(transparent)]
    Margin(#[from] SpecError),
    /// The measure has no test for this kind of margin.
    #[error("{0}")]
    Unsupported(&'static str),
}

/// A hypothesis with the expected values of control. Values of the canary are in the metric's unit (for
/// [`Expected::Distribution`]: the largest difference between the distribution functions).
///
/// Forecasts of the sequential tests use `E[n_c] ~ (ln(1/alpha) + overhead) / growth`, where growth is the expected `ln e`
/// per canary answer of a bet on the truth (for rates `KL` to the null's nearest point, for means half the squared distance
/// in standard errors). They are means; the 90 % quantile is about 1.7 times as large. Assumes independent answers and a
/// steady effect from the first window on. Source: section 7 of the statistical specification.
#[derive(Clone, Debug, PartialEq)]
pub struct Planned {
    expected: Expected,
    direction: Direction,
    /// Boundaries of FAIL. Harm must be beyond all of them.
    fail: Vec<Border>,
    /// Boundaries of PASS. Harm must be within one of them.
    pass: Vec<Border>,
    kappa: f64,
    parts: f64,
    /// Smallest and largest possible value.
    range: (f64, f64),
}

/// A line, and the reference value on it: control's own, or the limit.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Border {
    reference: f64,
    line: Line,
}

impl Planned {
    /// Plans a test against control with a margin; `kappa = n_s / n_c` is the number of control answers per canary answer.
    pub fn against_control(
        expected: Expected,
        direction: Direction,
        margin: Margin,
        kappa: f64,
    ) -> Result<Self, PlanError> {
        expected.check()?;
        margin.check(direction)?;
        if kappa.is_nan() || kappa <= 0.0 {
            return Err(range("the number of control answers per canary answer", kappa, "above 0"));
        }
        match expected {
            Expected::Events { .. } if margin.absolute.is_some() => {
                return Err(PlanError::Unsupported("a count of events takes a relative margin only"));
            }
            Expected::Distribution if margin.relative.is_some() => {
                return Err(PlanError::Unsupported("a distribution takes an absolute margin only"));
            }
            _ => {}
        }
        // A distribution is worse if it differs, in any direction.
        let direction = if expected == Expected::Distribution { Direction::LowerIsBetter } else { direction };
        let reference = expected.control();
        let borders: Vec<Border> = margin.lines(direction).into_iter().map(|line| Border { reference, line }).collect();
        Ok(Self {
            expected,
            direction,
            fail: borders.clone(),
            pass: borders,
            kappa,
            parts: if expected == Expected::Distribution { LEVELS } else { 1.0 },
            range: ANY,
        })
    }

    /// Plans a test of one arm against limits in the metric's unit: PASS proves better than `pass`, FAIL proves worse than
    /// `fail`. Control's expected value is used for a healthy canary.
    pub fn against_limit(expected: Expected, direction: Direction, pass: f64, fail: f64) -> Result<Self, PlanError> {
        expected.check()?;
        let border = |limit: f64| {
            let sensible = match expected {
                Expected::Rate { .. } => is_inner(limit),
                Expected::Mean { .. } => limit.is_finite(),
                Expected::Quantile { .. } | Expected::Events { .. } => limit > 0.0 && limit.is_finite(),
                Expected::Distribution => false,
            };
            let line = Line { v: 1.0, c: 0.0, sign: direction.sign() };
            sensible.then_some(vec![Border { reference: limit, line }]).ok_or(SpecError::Limit(limit))
        };
        let (fail, pass) = (border(fail)?, border(pass)?);
        Ok(Self { expected, direction, fail, pass, kappa: f64::INFINITY, parts: 1.0, range: ANY })
    }

    /// The same plan with evidence averaged over `parts` equal processes of which one sees the effect, so that FAIL needs
    /// `ln(parts)` more evidence. For class mixes (two per class). Less than 1 counts as 1.
    #[must_use]
    pub fn averaged_over(mut self, parts: u32) -> Self {
        self.parts = f64::from(parts.max(1));
        self
    }

    /// The same plan for the mean of values from `min` to `max` (either may be infinite). Nothing beyond the range can be
    /// shown, and bets stay small enough that no single value loses everything.
    #[must_use]
    pub fn within(mut self, min: f64, max: f64) -> Self {
        self.range = (min, max);
        self
    }

    /// The expected value of control and of a healthy canary.
    pub fn control(&self) -> f64 {
        self.expected.control()
    }

    /// The value of the canary beyond which FAIL can be proven: the laxer of two margins. `None` if no value can be that
    /// bad, because the margin extends beyond all possible rates.
    pub fn fail_border(&self) -> Option<f64> {
        let sign = self.direction.sign();
        let at = |border: &Border| border.line.at(border.reference);
        let worst = self.fail.iter().map(at).max_by(|a, b| (sign * a).total_cmp(&(sign * b)))?;
        let exists = worst > self.range.0 && worst < self.range.1 && self.expected.allows(worst);
        exists.then_some(worst)
    }

    /// Expected number of canary answers until FAIL if the canary's value is `canary`, tested at level `alpha` (the rollback budget times
    /// the weight of this hypothesis: `alpha_i = alpha_rb w_i`). `None` if that canary is not beyond the margin.
    pub fn n_to_fail(&self, canary: f64, alpha: f64) -> Option<f64> {
        let nats = self.fail_growths(canary)?.map(|growth| growth.nats).fold(f64::INFINITY, f64::min);
        answers(self.fail_nats(alpha)? / nats)
    }

    /// Like [`Self::n_to_fail`], but the number of answers by which this share of such canaries has failed. The mean is near
    /// a share of 0.6.
    pub fn n_to_fail_in(&self, share: f64, canary: f64, alpha: f64) -> Option<f64> {
        Some(self.n_to_fail(canary, alpha)? * passage::multiple_for(share, self.fail_nats(alpha)?)?)
    }

    /// Share of regressed canaries that have failed by `multiple` times the answers of [`Self::n_to_fail`]. 0 for an invalid level.
    pub fn share_failed(&self, multiple: f64, alpha: f64) -> f64 {
        self.fail_nats(alpha).map_or(0.0, |nats| passage::share_by(multiple, nats))
    }

    /// Evidence that FAIL needs.
    fn fail_nats(&self, alpha: f64) -> Option<f64> {
        Some(evidence(alpha)? + FAIL_OVERHEAD + ln(self.parts))
    }

    /// Expected number of canary answers until PASS at level `alpha` if the canary's value is `canary` ([`Self::control`]
    /// for a healthy one). `None` if that canary is not within the margin, or if the margin is 0.
    pub fn n_to_pass(&self, canary: f64, alpha: f64) -> Option<f64> {
        let nats = self.pass_growths(canary)?.map(|growth| growth.nats).fold(0.0, f64::max);
        answers(self.pass_nats(alpha)? / nats)
    }

    /// Like [`Self::n_to_pass`], but the number of answers by which this share of such canaries has passed. The mean is near
    /// a share of 0.6.
    pub fn n_to_pass_in(&self, share: f64, canary: f64, alpha: f64) -> Option<f64> {
        Some(self.n_to_pass(canary, alpha)? * passage::multiple_for(share, self.pass_nats(alpha)?)?)
    }

    /// Share of canaries with this value that have passed by `n_c` answers. 0 if none is expected to pass.
    pub fn share_passed(&self, canary: f64, alpha: f64, n_c: f64) -> f64 {
        let reached = self.n_to_pass(canary, alpha).zip(self.pass_nats(alpha));
        reached.map_or(0.0, |(mean, nats)| passage::share_by(n_c / mean, nats))
    }

    /// Evidence that PASS needs.
    fn pass_nats(&self, alpha: f64) -> Option<f64> {
        let alternatives = if self.expected == Expected::Distribution { 1.0 } else { self.pass.len() as f64 };
        Some(evidence(alpha)? + PASS_OVERHEAD + ln(alternatives))
    }

    /// The value of the canary nearest to the margin that is expected to FAIL within `n_c` canary answers, in the metric's
    /// unit. The effect is its difference from [`Self::control`]. `None` if there is no such value.
    pub fn detectable(&self, n_c: f64, alpha: f64) -> Option<f64> {
        self.search(|canary| self.n_to_fail(canary, alpha).is_some_and(|n| n <= n_c))
    }

    /// Canary answers of a fixed-horizon z-test (one look) with this power to FAIL, for comparison with [`Self::n_to_fail`].
    pub fn fixed_n_to_fail(&self, canary: f64, alpha: f64, power: f64) -> Option<f64> {
        let z2 = z_squared(alpha, power, 1)?;
        answers(self.fail_growths(canary)?.map(|growth| growth.fixed(z2)).fold(0.0, f64::max))
    }

    /// Canary answers of a fixed-horizon z-test (one look) with this power to PASS, for comparison with [`Self::n_to_pass`].
    pub fn fixed_n_to_pass(&self, canary: f64, alpha: f64, power: f64) -> Option<f64> {
        let z2 = z_squared(alpha, power, 1)?;
        answers(self.pass_growths(canary)?.map(|growth| growth.fixed(z2)).fold(f64::INFINITY, f64::min))
    }

    /// Canary answers at the planned look at which a canary with this value has passed with probability one half. `None` if
    /// no look reaches that probability.
    pub fn n_to_pass_by_looks(&self, canary: f64, plan: LooksPlan) -> Option<f64> {
        let bounds = group_sequential_bounds(plan.looks, plan.alpha, Spending::ObrienFleming, true).ok()?;
        let looks = (1..=plan.looks).map(|look| plan.answers as f64 * f64::from(look) / f64::from(plan.looks));
        let even = |bound: f64| self.fixed_n_to_pass(canary, normal_sf(bound), 0.5);
        looks
            .zip(bounds)
            .find(|&(answers, bound)| even(bound).is_some_and(|needed| needed <= answers))
            .map(|look| look.0)
    }

    /// Share of canaries with this value that have passed at the last planned look.
    pub fn share_passed_by_looks(&self, canary: f64, plan: LooksPlan) -> f64 {
        let bounds = group_sequential_bounds(plan.looks, plan.alpha, Spending::ObrienFleming, true);
        let last = bounds.ok().and_then(|bounds| bounds.last().copied());
        let even = |bound: f64| self.fixed_n_to_pass(canary, normal_sf(bound), 0.5);
        // The number of answers for a power grows as (bound + z of the power)^2.
        let power = last.and_then(|bound| Some(normal_sf(bound - bound * sqrt(plan.answers as f64 / even(bound)?))));
        power.unwrap_or(0.0)
    }

    /// Harm per request of a canary with this value, for [`crate::planning::Canary::at_risk`]: how much worse it is than control.
    pub fn harm(&self, canary: f64) -> f64 {
        self.direction.sign() * (canary - self.control())
    }

    /// All boundaries, if the canary is beyond every one of them.
    fn fail_growths(&self, canary: f64) -> Option<impl Iterator<Item = Growth>> {
        let all: Option<Vec<Growth>> = self.fail.iter().map(|border| self.growth(canary, *border)).collect();
        all.filter(|all| all.iter().all(|growth| growth.harm > 0.0)).map(Vec::into_iter)
    }

    /// The boundaries that the canary is within.
    fn pass_growths(&self, canary: f64) -> Option<impl Iterator<Item = Growth>> {
        let all: Vec<Growth> = self.pass.iter().filter_map(|border| self.growth(canary, *border)).collect();
        all.iter().any(|growth| growth.harm < 0.0).then(|| all.into_iter().filter(|growth| growth.harm < 0.0))
    }

    fn growth(&self, canary: f64, Border { reference, line }: Border) -> Option<Growth> {
        match self.expected {
            Expected::Rate { .. } => growth::rates(canary, reference, line, self.kappa),
            Expected::Mean { sd, .. } => {
                let most = self.largest_bet(canary, reference, line);
                canary.is_finite().then(|| growth::means(canary, reference, sd, line, self.kappa, most))
            }
            Expected::Quantile { level, log_sd, .. } => {
                let threshold = line.at(reference);
                // All values are above a threshold that does not exist.
                let beyond = if threshold > 0.0 { ln(threshold / canary) / log_sd } else { -8.0 };
                let exceeds = normal_sf(-normal_isf(level) + beyond).min(1.0 - 1e-12);
                let even = Line { v: 1.0, c: 0.0, sign: line.sign };
                (canary > 0.0).then(|| growth::rates(exceeds, 1.0 - level, even, self.kappa)).flatten()
            }
            // The difference is hardest to detect where both functions are near one half.
            Expected::Distribution => growth::rates(0.5 + 0.5 * canary, 0.5 - 0.5 * canary, line, self.kappa),
            Expected::Events { .. } => growth::events(canary, reference, line, self.kappa),
        }
    }

    /// Largest bet for a mean's margin, per unit of the metric: against the null if the canary is beyond the line, for it if
    /// the canary is within.
    fn largest_bet(&self, canary: f64, control: f64, line: Line) -> f64 {
        let (min, width) = (self.range.0, self.range.1 - self.range.0);
        if !(width > 0.0 && width.is_finite() && self.kappa.is_finite()) {
            return f64::INFINITY;
        }
        let scaled = Line { c: (line.c + (line.v - 1.0) * min) / width, ..line };
        let beyond = line.sign * (canary - line.at(control)) > 0.0;
        let scaled = if beyond { scaled } else { scaled.reversed() };
        let center = scaled.inner((control - min) / width);
        center.map_or(f64::INFINITY, |b0| LAM_SHARE * lam_limit(1.0, self.kappa, b0, scaled) / width)
    }

    /// The value nearest to the border for which `seen` holds. It must also hold further out.
    fn search(&self, seen: impl Fn(f64) -> bool) -> Option<f64> {
        let border = self.fail_border()?;
        let extreme = self.expected.extreme(border, self.direction).clamp(self.range.0, self.range.1);
        seen(extreme).then(|| bisect(extreme, border, seen))
    }
}

/// Returns the number of canary answers if it is positive and finite.
fn answers(n_c: f64) -> Option<f64> {
    (n_c > 0.0 && n_c.is_finite()).then_some(n_c)
}

impl Expected {
    fn control(self) -> f64 {
        match self {
            Self::Rate { control }
            | Self::Mean { control, .. }
            | Self::Quantile { control, .. }
            | Self::Events { control } => control,
            Self::Distribution => 0.0,
        }
    }

    fn check(self) -> Result<(), PlanError> {
        let positive = |what, value: f64| {
            if value > 0.0 && value.is_finite() { Ok(()) } else { Err(range(what, value, "above 0 and finite")) }
        };
        match self {
            Self::Rate { control } if !is_inner(control) => {
                Err(range("control's rate", control, "between 0 and 1, ends excluded"))
            }
            Self::Mean { control, sd } => {
                if !control.is_finite() {
                    return Err(range("control's mean", control, "finite"));
                }
                positive("the standard deviation", sd)
            }
            Self::Quantile { control, level, log_sd } => {
                if !is_inner(level) {
                    return Err(SpecError::Level(level).into());
                }
                positive("control's quantile", control)?;
                positive("the standard deviation of the logarithm", log_sd)
            }
            Self::Events { control } => positive("control's events per unit of exposure", control),
            Self::Rate { .. } | Self::Distribution => Ok(()),
        }
    }

    /// Whether a canary can have this value.
    fn allows(self, value: f64) -> bool {
        match self {
            Self::Rate { .. } => is_inner(value),
            Self::Mean { .. } => value.is_finite(),
            Self::Quantile { .. } | Self::Events { .. } => value > 0.0 && value.is_finite(),
            Self::Distribution => (0.0..1.0).contains(&value),
        }
    }

    /// The worst value that is searched.
    fn extreme(self, border: f64, direction: Direction) -> f64 {
        let up = direction == Direction::LowerIsBetter;
        match self {
            Self::Rate { .. } | Self::Distribution => {
                if up {
                    1.0 - 1e-12
                } else {
                    1e-12
                }
            }
            Self::Mean { sd, .. } => border + direction.sign() * 1e3 * sd,
            // Further out the share beyond the border would round to 1.
            Self::Quantile { log_sd, .. } => border * exp((direction.sign() * 5.0 * log_sd).clamp(-300.0, 300.0)),
            Self::Events { .. } => {
                if up {
                    border * 1e6
                } else {
                    border * 1e-12
                }
            }
        }
    }
}

impl Growth {
    /// Canary answers of a z-test; `z2 = (z_alpha + z_power)^2`.
    fn fixed(self, z2: f64) -> f64 {
        z2 * self.variance / (self.harm * self.harm)
    }
}

/// Standard deviation of the logarithm of log-normal values from two quantiles `(level, value)`, such as p50 and p99:
/// `ln(y2 / y1) / (z_{p2} - z_{p1})`. `None` unless the levels are in (0, 1), the values are above 0, and both increase.
pub fn log_sd((low_level, low): (f64, f64), (high_level, high): (f64, f64)) -> Option<f64> {
    let log_sd = ln(high / low) / (normal_isf(low_level) - normal_isf(high_level));
    (low > 0.0 && high_level > low_level && log_sd > 0.0 && log_sd.is_finite()).then_some(log_sd)
}

fn evidence(alpha: f64) -> Option<f64> {
    is_inner(alpha).then(|| -ln(alpha))
}

fn range(what: &'static str, value: f64, must: &'static str) -> PlanError {
    PlanError::Range { what, value, must }
}
