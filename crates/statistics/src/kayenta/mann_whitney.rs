//! The interval for the shift between two samples: the normal-approximation branch of R's Wilcoxon test, with continuity
//! correction and with R's default root tolerance.

use super::brent::root;
use super::prepare::{largest, smallest};
use crate::{laws::normal_isf, numeric::sqrt};

/// All observations are tied, so the statistic has no variance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no confidence interval: all observations are tied")]
pub struct AllTied;

/// The `p` quantile of the standard normal distribution; infinite at 0 and 1, NaN outside [0, 1].
pub fn normal_quantile(p: f64) -> f64 {
    if !(0.0..=1.0).contains(&p) {
        f64::NAN
    } else if p > 0.5 {
        -normal_quantile(1.0 - p)
    } else if p == 0.0 {
        f64::NEG_INFINITY
    } else {
        -normal_isf(p)
    }
}

/// The rank sum of `x` among `x` and `y` together, with ties averaged (NaN ranks highest), and `sum(t^3 - t)` over the sizes
/// `t` of the groups of tied values.
pub(crate) fn rank_sum(x: impl ExactSizeIterator<Item = f64>, y: &[f64]) -> (f64, f64) {
    let number = |value: f64| if value.is_nan() { f64::INFINITY } else { value };
    let mut all: Vec<(f64, bool)> = x.map(|value| (number(value), true)).collect();
    all.extend(y.iter().map(|&value| (number(value), false)));
    all.sort_unstable_by(|a, b| a.0.total_cmp(&b.0));
    let (mut sum, mut ties, mut before) = (0.0, 0.0, 0_usize);
    for group in all.chunk_by(|a, b| a.0.to_bits() == b.0.to_bits()) {
        let t = group.len() as f64;
        let rank = before as f64 + f64::midpoint(t, 1.0);
        sum += rank * group.iter().filter(|(_, from_x)| *from_x).count() as f64;
        ties += t * t * t - t;
        before += group.len();
    }
    (sum, ties)
}

/// `W(mu, z)`: the standardized Mann-Whitney statistic of `x - mu` against `y`, minus `z`.
///
/// With `d = R - m(m+1)/2 - mn/2`, `R` the rank sum of `x - mu`, and `s^2 = mn/12 (N + 1 - sum(t^3 - t)/(N(N-1)))`:
/// `(d - sign(d)/2) / s - z`.
pub fn standardized(mu: f64, z: f64, x: &[f64], y: &[f64]) -> Result<f64, AllTied> {
    let (m, n) = (x.len() as f64, y.len() as f64);
    let (ranks, ties) = rank_sum(x.iter().map(|value| value - mu), y);
    let d = ranks - m * (m + 1.0) / 2.0 - m * n / 2.0;
    let correction = if d == 0.0 { 0.0 } else { 0.5 * d.signum() };
    let s = sqrt(m * n / 12.0 * ((m + n + 1.0) - ties / ((m + n) * (m + n - 1.0))));
    if s > 0.0 { Ok((d - correction) / s - z) } else { Err(AllTied) }
}

/// The range of the root search: from `min x - max y` to `max x - min y`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ShiftRange {
    /// No shift below this value changes the ranks.
    pub low: f64,
    /// No shift above this value changes the ranks.
    pub high: f64,
}

impl ShiftRange {
    /// The range for these samples; NaN if one is empty.
    pub fn of(x: &[f64], y: &[f64]) -> Self {
        Self { low: smallest(x) - largest(y), high: largest(x) - smallest(y) }
    }
}

/// The shift of `x` above `y`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ShiftInterval {
    /// Lower confidence limit. It may be above `high`, because the search stops at an absolute 1e-4.
    pub low: f64,
    /// Upper confidence limit.
    pub high: f64,
    /// The shift at which the statistic is 0.
    pub estimate: f64,
}

/// The root of `W(mu, z)` in `range`. With `ends`, returns an end of the range if the statistic cannot reach `z`.
fn shift_at(z: f64, range: ShiftRange, ends: bool, x: &[f64], y: &[f64]) -> Result<f64, AllTied> {
    let (at_low, at_high) = (standardized(range.low, z, x, y)?, standardized(range.high, z, x, y)?);
    if ends && at_low <= 0.0 {
        return Ok(range.low);
    }
    if ends && at_high >= 0.0 {
        return Ok(range.high);
    }
    let tied = std::cell::Cell::new(false);
    let found = root((range.low, at_low), (range.high, at_high), |mu| {
        standardized(mu, z, x, y).unwrap_or_else(|AllTied| {
            tied.set(true);
            0.0
        })
    });
    if tied.get() { Err(AllTied) } else { Ok(found) }
}

/// The confidence interval and the estimate of the shift of `x` (the canary) above `y` (the baseline). Both must not be
/// empty. As in Kayenta, the interval is two-sided and for one look.
pub fn interval(x: &[f64], y: &[f64], confidence: f64) -> Result<ShiftInterval, AllTied> {
    let range = ShiftRange::of(x, y);
    let quantile = normal_quantile((1.0 - confidence) / 2.0);
    Ok(ShiftInterval {
        low: shift_at(-quantile, range, true, x, y)?,
        high: shift_at(quantile, range, true, x, y)?,
        estimate: shift_at(0.0, range, false, x, y)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn normal_quantiles_match_reference_values() {
        // mpmath, 30 digits.
        for (p, expected) in [
            (0.01, -2.326_347_874_040_841),
            (0.025, -1.959_963_984_540_054_2),
            (0.3, -0.524_400_512_708_040_8),
            (1e-12, -7.034_483_825_301_131),
        ] {
            assert!((normal_quantile(p) - expected).abs() < 1e-13, "{p}: {}", normal_quantile(p));
            assert!((normal_quantile(1.0 - p) + expected).abs() < 1e-4);
        }
        assert!(
            normal_quantile(0.5).abs() < 1e-15 && normal_quantile(1.5).is_nan() && normal_quantile(f64::NAN).is_nan()
        );
        assert!(normal_quantile(0.0) < -1e300 && normal_quantile(1.0) > 1e300);
    }

    #[test]
    fn tied_samples_have_no_interval() {
        assert_eq!(interval(&[1.0, 1.0], &[1.0, 1.0, 1.0], 0.98), Err(AllTied));
        assert_eq!(standardized(0.0, 0.0, &[2.0], &[2.0]), Err(AllTied));
        assert_eq!(interval(&[], &[], 0.98), Err(AllTied));
    }

    #[test]
    fn ties_share_ranks() {
        let (sum, ties) = rank_sum([1.0, 2.0, 2.0].into_iter(), &[2.0, 3.0]);
        assert_eq!((sum, ties), (1.0 + 3.0 + 3.0, 24.0));
        let (sum, ties) = rank_sum([-0.0, f64::NAN].into_iter(), &[0.0]);
        assert_eq!((sum, ties), (4.0, 0.0));
    }
}
