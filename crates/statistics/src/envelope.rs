//! Bands around a whole distribution function that hold at every look, for display.
//!
//! Source: Howard, Ramdas, Bernoulli 2022 (arXiv 1906.09712), theorems 2 and 3; constants as in their `confseq`.

use crate::laws::zeta;
use crate::numeric::{bisect, exp, expit, is_inner, ln, logit, sqrt};

/// Radius of a band around the empirical distribution function of `t` values. With probability `1 - alpha` the band holds at
/// all values and at all looks from `t_min` on: `A sqrt((ln(1 + ln(t/t_min)) + C) / t)`. `C` is the smallest with
/// `4 exp(-g C) (1 + 1/((g-1) ln eta)) <= alpha`, `g = (2/eta) (A - sqrt(2 (eta-1)/C))^2`, for some `eta`.
///
/// `a` (typically 0.85) must be above `1/sqrt(2)`; a smaller value is tighter late. `None` before `t_min` or for arguments out of range.
/// The band is about twice as wide as that of Dvoretzky, Kiefer and Wolfowitz, which holds at a single look.
pub fn dkw_lil_radius(t: f64, alpha: f64, t_min: f64, a: f64) -> Option<f64> {
    let sensible = t_min >= 1.0 && t >= t_min && t.is_finite() && is_inner(alpha);
    if !(sensible && a > std::f64::consts::FRAC_1_SQRT_2 && a < 100.0) {
        return None;
    }
    let mut enough = 1.0;
    while smallest_error(enough, a) > alpha {
        enough *= 2.0;
        if enough > 1e9 {
            return None;
        }
    }
    let c = bisect(enough, 0.0, |c| smallest_error(c, a) <= alpha);
    Some(a * sqrt((ln(1.0 + ln(t / t_min)) + c) / t))
}

/// The crossing probability for `C`, minimized over `eta` by golden-section search.
fn smallest_error(c: f64, a: f64) -> f64 {
    let error = |eta: f64| {
        let root = a - sqrt(2.0 * (eta - 1.0) / c);
        let g = 2.0 / eta * root * root;
        if g <= 1.0 { f64::INFINITY } else { 4.0 * exp(-g * c) * (1.0 + 1.0 / ((g - 1.0) * ln(eta))) }
    };
    let (mut low, mut high) = (1.0, bisect(1.0, 2.0 * a * a, |eta| sqrt(eta / 2.0) + sqrt(2.0 * (eta - 1.0) / c) < a));
    let share = 0.5 * (sqrt(5.0) - 1.0);
    for _ in 0..120 {
        let (left, right) = (high - share * (high - low), low + share * (high - low));
        if error(left) <= error(right) {
            high = right;
        } else {
            low = left;
        }
    }
    error(0.5 * (low + high))
}

/// Shape of the double stitching bound: how finely it covers quantiles and time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Stitching {
    /// Number of values at which it is tightest, at least 1.
    pub t_opt: f64,
    /// Fineness of the grid of quantiles, above 0; typically 0.5.
    pub delta: f64,
    /// How the error rate is spread over epochs, above 1; typically 1.4.
    pub s: f64,
    /// Spacing of the epochs, above 1; typically 2.
    pub eta: f64,
}

/// Upper bound on `t (F_t(Q(p)) - p)`, the surplus of values at the `p`-quantile, at all quantiles and all looks simultaneously
/// with probability `1 - alpha`. It is tighter than [`dkw_lil_radius`] in the tails. `None` for arguments out of range.
pub fn double_stitching_bound(p: f64, t: f64, alpha: f64, shape: Stitching) -> Option<f64> {
    let Stitching { t_opt, delta, s, eta } = shape;
    let finite = [t, t_opt, delta, s, eta].into_iter().all(f64::is_finite);
    if !(finite && is_inner(p) && is_inner(alpha) && t > 0.0 && t_opt >= 1.0 && delta > 0.0 && s > 1.0 && eta > 1.0) {
        return None;
    }
    let t = t.max(t_opt);
    let r = if p >= 0.5 { p } else { expit(logit(p) + 2.0 * delta * sqrt(t_opt * eta / t)).min(0.5) };
    let variance = r * (1.0 - r);
    let epoch = sqrt(t / t_opt) * logit(p).abs() / (2.0 * delta) + 1.0;
    let (zeta, ln_eta) = (zeta(s), ln(eta));
    let l = s * ln(ln(eta * t / t_opt)) + s * ln(epoch) + ln(2.0 * zeta * (2.0 * zeta + 1.0) / alpha) - s * ln(ln_eta);
    let root = sqrt(sqrt(eta));
    let (k1, k2) = ((root + 1.0 / root) / std::f64::consts::SQRT_2, 0.5 * (sqrt(eta) + 1.0));
    let skewed = k2 * (1.0 - 2.0 * p) / 3.0 * l;
    let bound = delta * sqrt(eta * t * variance / t_opt) + sqrt(k1 * k1 * variance * t * l + skewed * skewed) + skewed;
    bound.is_finite().then_some(bound)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn invalid_input_has_no_band() {
        let shape = Stitching { t_opt: 500.0, delta: 0.5, s: 1.4, eta: 2.0 };
        for bad in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            assert_eq!(dkw_lil_radius(bad, 0.05, 10.0, 0.85), None);
            assert_eq!(dkw_lil_radius(100.0, bad, 10.0, 0.85), None);
            assert_eq!(dkw_lil_radius(100.0, 0.05, bad, 0.85), None);
            assert_eq!(dkw_lil_radius(100.0, 0.05, 10.0, bad), None);
            assert_eq!(double_stitching_bound(bad, 100.0, 0.05, shape), None);
            assert_eq!(double_stitching_bound(0.5, bad, 0.05, shape), None);
            assert_eq!(double_stitching_bound(0.5, 100.0, bad, shape), None);
            for shape in [
                Stitching { t_opt: bad, ..shape },
                Stitching { delta: bad, ..shape },
                Stitching { s: bad, ..shape },
                Stitching { eta: bad, ..shape },
            ] {
                assert_eq!(double_stitching_bound(0.5, 100.0, 0.05, shape), None);
            }
        }
        assert_eq!(dkw_lil_radius(5.0, 0.05, 10.0, 0.85), None);
    }

    #[test]
    fn more_values_narrow_the_band() {
        let radius = |t| dkw_lil_radius(t, 0.05, 10.0, 0.85);
        assert!(radius(1e4) < radius(1e3) && radius(1e6) < radius(1e4));
        assert!(dkw_lil_radius(1e3, 1e-6, 10.0, 0.71) > radius(1e3));
    }
}
