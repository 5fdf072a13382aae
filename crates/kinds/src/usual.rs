//! What a metric is expected to show where nothing is known of it: the one table of `lint --traffic`, `plan` and `simulate`.
//!
//! A rate is Bernoulli. A mean is a beta law over its range, with `a + b = 10`. Quantiles, distributions (their number is the median) and
//! capped means (the mean before the cap) are log-normal: the logarithm has a standard deviation of 0.5. Events per answer are Poisson.

use std::f64::consts::SQRT_2;

use statrs::function::erf::erfc_inv;

use crate::{Direction, Margin, MetricKind, MetricSource};

/// `a + b` of the beta law of a mean.
pub const CONCENTRATION: f64 = 10.0;
/// Standard deviation of the logarithm of a positive quantity.
pub const SIGMA: f64 = 0.5;
/// Number of classes of a mix.
pub const CLASS_COUNT: usize = 5;

impl MetricKind {
    /// Its number when nothing is said: 1 % of the calls fail, are refused or cancelled, 0.1 % of the answers are unusable, 5 % for any
    /// other rate, the middle of a range, a tenth of a cap, a tenth of the maturity (in seconds) for the delay of labels, 100 for
    /// latencies, a fifth for the first of five classes, one event in ten answers, 2 % of answers that differ.
    pub fn usual_value(&self, source: &MetricSource, maturity: f64) -> f64 {
        match (self, source) {
            (Self::Rate, MetricSource::Failed | MetricSource::Refused | MetricSource::Cancelled) => 0.01,
            (Self::Rate, MetricSource::Unusable) => 0.001,
            (Self::Rate, _) => 0.05,
            (Self::Mean { min, max }, _) => f64::midpoint(*min, *max),
            (Self::CappedMean { cap }, _) => cap / 10.0,
            (Self::Quantile { .. } | Self::Distribution, MetricSource::LabelDelay(_)) => maturity / 10.0,
            (Self::Quantile { .. } | Self::Distribution, _) => 100.0,
            (Self::Classes, _) => 1.0 / CLASS_COUNT as f64,
            (Self::Count, _) => 0.1,
            (Self::Disagreement, _) => 0.02,
        }
    }

    /// Standard deviation of one answer whose expected value is `value`; `None` for kinds that compare no means.
    pub fn usual_spread(&self, value: f64) -> Option<f64> {
        match *self {
            Self::Rate => Some(libm::sqrt(value * (1.0 - value))),
            Self::Mean { min, max } => {
                let mean = (value - min) / (max - min);
                Some((max - min) * libm::sqrt(mean * (1.0 - mean) / (CONCENTRATION + 1.0)))
            }
            Self::CappedMean { .. } => Some(value * libm::sqrt(libm::expm1(SIGMA * SIGMA))),
            Self::Count => Some(libm::sqrt(value)),
            Self::Quantile { .. } | Self::Distribution | Self::Classes | Self::Disagreement => None,
        }
    }

    /// Standard deviation of what one answer adds to the comparison, and the margin on the same scale, if control's number is `value`.
    /// A quantile is compared by the share of answers beyond it. `None` for kinds that look at many values.
    pub fn usual_resolution(&self, value: f64, direction: Direction, margin: Margin) -> Option<(f64, f64)> {
        let allowed = margin.absolute.unwrap_or(0.0).max(margin.relative.unwrap_or(0.0) * value.abs());
        let Self::Quantile { level } = *self else { return Some((self.usual_spread(value)?, allowed)) };
        let sign = if direction == Direction::LowerIsBetter { 1.0 } else { -1.0 };
        let moved = (1.0 + sign * allowed / value).max(f64::MIN_POSITIVE);
        let beyond = normal_above(SQRT_2 * erfc_inv(2.0 * (1.0 - level)) + libm::log(moved) / SIGMA);
        let at = 1.0 - level;
        Some((libm::sqrt(at * level), (at - beyond).abs()))
    }
}

/// `P(Z > z)`.
fn normal_above(z: f64) -> f64 {
    0.5 * libm::erfc(z / SQRT_2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantile_is_resolved_by_the_share_beyond_it() {
        let margin = |relative| Margin { absolute: None, relative: Some(relative) };
        let of = |relative, direction| {
            MetricKind::Quantile { level: 0.99 }
                .usual_resolution(250.0, direction, margin(relative))
                .unwrap_or_default()
        };
        let (spread, lower) = of(0.2, Direction::LowerIsBetter);
        assert!((spread * spread - 0.0099).abs() < 1e-12);
        // ln 1.2 / 0.5 scores beyond 2.326: 0.36 % of the answers are there instead of 1 %.
        assert!((lower - (0.01 - 0.003_61)).abs() < 1e-4, "{lower}");
        assert!(of(0.2, Direction::HigherIsBetter).1 > lower);
        assert!(of(0.0, Direction::LowerIsBetter).1.abs() < 1e-12);
    }

    #[test]
    fn spreads_are_those_of_the_laws() {
        let spread = |kind: MetricKind, value| kind.usual_spread(value).unwrap_or(f64::NAN);
        let mean = spread(MetricKind::Mean { min: 0.0, max: 10.0 }, 8.0);
        assert!((mean - 10.0 * (0.16_f64 / 11.0).sqrt()).abs() < 1e-12);
        assert!((spread(MetricKind::Count, 0.25) - 0.5).abs() < 1e-12);
        assert_eq!(MetricKind::Classes.usual_spread(0.2), None);
    }
}
