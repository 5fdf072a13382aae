//! `quantile`: a quantile of a positive quantity (test `q2`), with a resolution of 2 %. Values are assumed to be log-normal.

use std::f64::consts::SQRT_2;

use serin_sketches::{LN_GAMMA, LogHist, Summary, log_position};
use serin_spec::{Direction, Margin, MetricSource};
#[cfg(feature = "statistics")]
use serin_statistics::{Measure, planning::Expected};
use statrs::function::erf::erfc_inv;

use crate::{Kind, Range, Refusal, SourceType, significant, usual};
#[cfg(feature = "statistics")]
use crate::{Law, Tested, law};

pub(crate) struct Quantile {
    pub(crate) level: f64,
}

impl Kind for Quantile {
    fn empty(&self, _by_value: bool) -> Summary {
        Summary::Log(LogHist::new())
    }

    fn scaled(&self, value: f64) -> Option<f64> {
        (value >= 0.0).then_some(value)
    }

    fn is_sum(&self) -> bool {
        false
    }

    fn position(&self, scaled: f64, _by_value: bool) -> f64 {
        log_position(scaled)
    }

    fn range(&self) -> Range {
        Range::POSITIVE
    }

    fn is_of_values(&self) -> bool {
        true
    }

    fn is_positive(&self) -> bool {
        true
    }

    fn invalid_parameters(&self) -> Option<Refusal> {
        let fits = self.level > 0.0 && self.level < 1.0;
        let message = || format!("{} is not a quantile level", self.level);
        (!fits).then(|| Refusal::new(message(), "use a number between 0 and 1, such as 0.99"))
    }

    fn unsuitable_source(&self, _source: &MetricSource, source_type: SourceType) -> Option<Refusal> {
        usual::not_a_quantity(source_type)
    }

    /// A relative margin must not be finer than the bins, which are 2 % wide.
    fn unsuitable_margin(&self, direction: Direction, margin: Margin) -> Option<Refusal> {
        let sign = if direction == Direction::LowerIsBetter { 1.0 } else { -1.0 };
        let fine = |relative: f64| relative > 0.0 && (libm::log1p(sign * relative) / LN_GAMMA).abs() < 0.5;
        margin.relative.is_some_and(fine).then(|| {
            Refusal::new("the relative margin is finer than the resolution of quantiles", "use at least 0.011, or 0")
        })
    }

    fn default_value(&self, source: &MetricSource, maturity: f64) -> f64 {
        usual::positive(source, maturity)
    }

    /// Quantiles are compared by the share of answers beyond them.
    fn default_resolution(&self, value: f64, direction: Direction, margin: Margin) -> Option<(f64, f64)> {
        let sign = if direction == Direction::LowerIsBetter { 1.0 } else { -1.0 };
        let moved = (1.0 + sign * usual::allowed(value, margin) / value).max(f64::MIN_POSITIVE);
        let score = SQRT_2 * erfc_inv(2.0 * (1.0 - self.level));
        let beyond = normal_above(score + libm::log(moved) / usual::SIGMA);
        let at = 1.0 - self.level;
        Some((libm::sqrt(at * self.level), (at - beyond).abs()))
    }

    fn impossible(&self, value: f64) -> Option<String> {
        usual::not_positive(value)
    }

    /// A slow share can move the quantile only if it is larger than the share of answers above the quantile.
    fn check_tail(&self, share: f64) -> Result<(), String> {
        let level = self.level;
        if share > 1.0 - level {
            return Ok(());
        }
        Err(format!("a tail of {share} cannot move the {level}-quantile; it must hold more than {:.4}", 1.0 - level))
    }

    fn noun(&self) -> String {
        format!("p{}", significant(100.0 * self.level, 4))
    }
}

/// `P(Z > z)`.
fn normal_above(z: f64) -> f64 {
    0.5 * libm::erfc(z / SQRT_2)
}

#[cfg(feature = "statistics")]
impl Tested for Quantile {
    fn measure(&self, _by_value: bool) -> Measure {
        Measure::Quantile { level: self.level }
    }

    fn expected(&self, value: f64) -> Expected {
        Expected::Quantile { control: value, level: self.level, log_sd: usual::SIGMA }
    }

    fn law(&self, base: f64, value: f64, tail: Option<f64>) -> Law {
        let slow = tail.map(|share| (share, law::slow_factor(self.level, value / base, share)));
        law::log_normal(self.level, if slow.is_some() { base } else { value }, slow)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_resolution_follows_from_the_share_beyond_the_quantile() {
        let margin = |relative| Margin { absolute: None, relative: Some(relative) };
        let of = |relative, direction| {
            Quantile { level: 0.99 }.default_resolution(250.0, direction, margin(relative)).unwrap_or_default()
        };
        let (spread, lower) = of(0.2, Direction::LowerIsBetter);
        assert!((spread * spread - 0.0099).abs() < 1e-12);
        // ln 1.2 / 0.5 scores beyond 2.326: 0.36 % of the answers are there instead of 1 %.
        assert!((lower - (0.01 - 0.003_61)).abs() < 1e-4, "{lower}");
        assert!(of(0.2, Direction::HigherIsBetter).1 > lower);
        assert!(of(0.0, Direction::LowerIsBetter).1.abs() < 1e-12);
    }

    #[test]
    fn a_tail_must_hold_more_than_what_lies_above() {
        let check = |share| Quantile { level: 0.99 }.check_tail(share).is_ok();
        assert!(check(0.03) && !check(0.005));
    }
}
