//! Answers that are not independent (sticky users, retries), and design effects from hash-bucket sums.
//!
//! Per arm, 256 hash buckets of the unit id hold the sums `X_b` (of the metric) and `N_b` (of answers). Units in
//! different buckets are independent, so the variance between buckets shows how many independent answers an answer is
//! worth. Source: the delta method for ratios (Deng, Knoblich, Lu, KDD 2018).

use crate::numeric::is_inner;

/// A ratio of sums over clusters, with its variance.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ClusterRatio {
    /// `R = sum X / sum N`, in the metric's unit.
    pub ratio: f64,
    /// `B/(B-1) sum (X_b - R N_b)^2 / (sum N)^2`.
    pub variance: f64,
    /// Number of answers, `sum N`.
    pub n: f64,
}

impl ClusterRatio {
    /// Computes the ratio from `(X_b, N_b)` per cluster (or bucket). `B` is the number of clusters, so leave out buckets
    /// that contain no unit. `None` for fewer than two clusters with answers, or for sums that no answers can have.
    pub fn new(buckets: impl IntoIterator<Item = (f64, f64)> + Clone) -> Option<Self> {
        let (mut sum, mut n, mut count, mut filled) = (0.0, 0.0, 0.0, 0_u32);
        for (x, size) in buckets.clone() {
            if !(x.is_finite() && size >= 0.0 && size.is_finite()) {
                return None;
            }
            sum += x;
            n += size;
            count += 1.0;
            filled += u32::from(size > 0.0);
        }
        if filled < 2 {
            return None;
        }
        let ratio = sum / n;
        let squares: f64 = buckets.into_iter().map(|(x, size)| (x - ratio * size) * (x - ratio * size)).sum();
        let variance = count / (count - 1.0) * squares / (n * n);
        (ratio.is_finite() && variance.is_finite()).then_some(Self { ratio, variance, n })
    }

    /// The design effect of a rate: its variance divided by the variance for the same number of independent 0/1 answers,
    /// `Var / (R (1-R) / N)`. `None` if the ratio is 0 or 1, or is not a share.
    pub fn design_effect_of_rate(&self) -> Option<f64> {
        is_inner(self.ratio).then(|| self.variance / (self.ratio * (1.0 - self.ratio) / self.n))
    }

    /// The design effect of a mean of values whose variance over single answers is `variance`: `Var / (s^2 / N)`. `None`
    /// if the values do not vary.
    pub fn design_effect_of_mean(&self, variance: f64) -> Option<f64> {
        let effect = self.variance / (variance / self.n);
        (variance > 0.0 && effect.is_finite()).then_some(effect)
    }
}

/// `phi = max(1, deff_c, deff_s)`, by which every `ln e` is divided so that clustered answers are not counted twice. An
/// unknown design effect of an arm counts as 1.
pub fn tempering(canary: Option<f64>, control: Option<f64>) -> f64 {
    [canary, control].into_iter().flatten().filter(|effect| effect.is_finite()).fold(1.0, f64::max)
}

/// The divisor for the evidence of the next window ([`crate::Hypothesis::temper`]), `phi^2`, where `phi` is the design
/// effect of the sums so far.
///
/// `N` answers count as `N / phi`. Returning units make `phi = 1 + c N` grow, so one more answer adds `d(N / phi)/dN = 1 / phi^2`.
/// Dividing each window by its own `phi` would give the early windows too much weight: the measured false-alarm rate is then 1.1 % at a
/// nominal 1 % (ICC 0.05), and 0.3 % with `phi^2`. If `phi` does not grow, the divisor is conservative.
pub fn tempering_of_next_window(phi: f64) -> f64 {
    phi * phi
}

/// How many answers count as one when units are split instead of answers: `sum m^2 / sum m` over the units' numbers of answers `m`, at
/// least 1. It is computed from the totals `N_b` of hash buckets of units, with both arms together, so that the split does not affect it:
/// `B/(B-1) sum (N_b - N/B)^2 / N`. `None` for fewer than two buckets or without answers.
///
/// If `N` answers are split by unit, the number in an arm varies as if `N` divided by this value were split independently.
pub fn answers_per_unit(buckets: &[f64]) -> Option<f64> {
    let (count, n) = (buckets.len() as f64, buckets.iter().sum::<f64>());
    let squares: f64 = buckets.iter().map(|size| (size - n / count) * (size - n / count)).sum();
    let effect = count / (count - 1.0) * squares / n;
    (count >= 2.0 && n > 0.0 && effect.is_finite()).then(|| effect.max(1.0))
}

/// Sums for CUPED of a metric `y` and of a covariate `x` that was known before the exposure. Sums of arms and windows can be added.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct CovariateSums {
    /// Number of units.
    pub n: f64,
    /// `sum x`.
    pub sx: f64,
    /// `sum y`.
    pub sy: f64,
    /// `sum x^2`.
    pub sxx: f64,
    /// `sum x y`.
    pub sxy: f64,
    /// `sum y^2`.
    pub syy: f64,
}

/// A mean after CUPED removed the variance that the covariate explains.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cuped {
    /// `theta = (Sxy - Sx Sy/n) / (Sxx - Sx^2/n)`.
    pub theta: f64,
    /// `ybar - theta (xbar - covariate_mean)`.
    pub adjusted_mean: f64,
    /// `1 - rho^2`: the share of the variance that remains.
    pub variance_ratio: f64,
    /// Variance of the adjusted mean.
    pub adjusted_var_of_mean: f64,
}

/// CUPED: the mean of `y - theta (x - covariate_mean)`, where `covariate_mean` is the covariate's mean over both arms (or
/// a reference). For tests, take `theta` from *earlier* windows. `None` for fewer than two units or a quantity that does
/// not vary. Source: Deng et al., WSDM 2013.
pub fn cuped(sums: CovariateSums, covariate_mean: f64) -> Option<Cuped> {
    let CovariateSums { n, sx, sy, sxx, sxy, syy } = sums;
    let (vx, vy, cov) = (sxx - sx * sx / n, syy - sy * sy / n, sxy - sx * sy / n);
    let theta = cov / vx;
    let variance_ratio = (1.0 - cov * cov / (vx * vy)).max(0.0);
    let adjusted_mean = sy / n - theta * (sx / n - covariate_mean);
    let adjusted_var_of_mean = variance_ratio * vy / (n - 1.0) / n;
    let sensible = n >= 2.0 && vx > 0.0 && vy > 0.0 && variance_ratio <= 1.0;
    let finite = adjusted_mean.is_finite() && adjusted_var_of_mean.is_finite();
    (sensible && finite).then_some(Cuped { theta, adjusted_mean, variance_ratio, adjusted_var_of_mean })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn independent_answers_have_no_design_effect_and_duplicates_have_two() {
        // 400 users with one answer each, a quarter of them bad. Then every answer occurs twice.
        let once = |i: u32| (f64::from(u8::from(i.is_multiple_of(4))), 1.0);
        let single = ClusterRatio::new((0..400).map(once)).and_then(|ratio| ratio.design_effect_of_rate());
        let doubled = (0..400).map(once).map(|(x, n)| (2.0 * x, 2.0 * n));
        let double = ClusterRatio::new(doubled).and_then(|ratio| ratio.design_effect_of_rate());
        assert!(single.is_some_and(|effect| (effect - 400.0 / 399.0).abs() < 1e-9), "{single:?}");
        assert!(double.is_some_and(|effect| (effect - 800.0 / 399.0).abs() < 1e-9), "{double:?}");
        assert!((tempering(double, single) - 800.0 / 399.0).abs() < 1e-9);
    }

    #[test]
    fn answers_per_unit_are_counted_from_buckets_and_invalid_input_has_none() {
        // 20,000 units of 8 answers each, distributed by their hash.
        let mut buckets = [0.0; 256];
        for unit in 0..20_000_u64 {
            buckets[(mix(unit) >> 56) as usize] += 8.0;
        }
        let effect = answers_per_unit(&buckets);
        assert!(effect.is_some_and(|effect| (6.0..10.0).contains(&effect)), "{effect:?}");
        assert_eq!(answers_per_unit(&[3.0; 256]), Some(1.0));
        for invalid in [&[][..], &[5.0], &[0.0, 0.0], &[f64::NAN, 1.0], &[f64::INFINITY, 1.0]] {
            assert_eq!(answers_per_unit(invalid), None, "{invalid:?}");
        }
    }

    fn mix(unit: u64) -> u64 {
        serin_sketches::hash::hash64(b"unit", &unit.to_le_bytes())
    }

    #[test]
    fn invalid_input_has_no_ratio() {
        assert_eq!(ClusterRatio::new([]), None);
        assert_eq!(ClusterRatio::new([(1.0, 1.0)]), None);
        assert_eq!(ClusterRatio::new([(0.0, 0.0), (0.0, 0.0)]), None);
        assert_eq!(ClusterRatio::new([(f64::NAN, 1.0), (0.0, 1.0)]), None);
        assert_eq!(ClusterRatio::new([(1.0, -1.0), (0.0, 1.0)]), None);
        let never = ClusterRatio::new([(0.0, 1.0), (0.0, 1.0)]);
        assert_eq!(never.and_then(|ratio| ratio.design_effect_of_rate()), None);
        assert_eq!(never.and_then(|ratio| ratio.design_effect_of_mean(0.0)), None);
        assert!((tempering(None, Some(f64::NAN)) - 1.0).abs() < 1e-15);
        assert_eq!(cuped(CovariateSums::default(), 0.0), None);
        assert_eq!(cuped(CovariateSums { n: f64::NAN, ..CovariateSums::default() }, 0.0), None);
    }
}
