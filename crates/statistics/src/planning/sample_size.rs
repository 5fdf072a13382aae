//! Classical sample sizes for unequal arms, for comparison with the sequential ones.

use crate::laws::normal_isf;
use crate::numeric::is_inner;

/// `(z_{1-alpha/sides} + z_{power})^2`; `None` for levels outside (0, 1) or a power below the level.
pub(super) fn z_squared(alpha: f64, power: f64, sides: u8) -> Option<f64> {
    if !(is_inner(alpha) && is_inner(power) && matches!(sides, 1 | 2)) {
        return None;
    }
    let z = normal_isf(alpha / f64::from(sides)) + normal_isf(1.0 - power);
    (z > 0.0).then_some(z * z)
}

/// Canary answers that a fixed-horizon z-test of two means needs: `n_c = ((z_alpha + z_power) / d)^2 s^2 (1 + 1/kappa)`;
/// control needs `kappa` times as many.
///
/// `sd` and `distance` are in the metric's unit; `distance = |true effect - margin|`; `kappa = n_s / n_c` (infinite if
/// control is known); `sides` is 1 or 2. Assumes independent answers, equal variances and one look at the end. `None` for
/// invalid input. Source: textbook; checked against statsmodels' `NormalIndPower`.
pub fn n_for_mean(alpha: f64, power: f64, sd: f64, distance: f64, kappa: f64, sides: u8) -> Option<f64> {
    let n = z_squared(alpha, power, sides)? * (sd / distance) * (sd / distance) * (1.0 + 1.0 / kappa);
    (sd > 0.0 && distance > 0.0 && kappa > 0.0 && n.is_finite()).then_some(n)
}

/// The factor for looking at every window instead of once, at alpha 5 % and 80 % power: section 7 of the statistical specification.
const EVERY_WINDOW: f64 = 1.72;

/// Canary answers needed to show a difference of means with 80 % power at 5 %, looking at every window. Arguments as in [`n_for_mean`].
pub fn n_for_every_window(sd: f64, distance: f64, kappa: f64) -> Option<f64> {
    n_for_mean(0.05, 0.8, sd, distance, kappa, 1).map(|n| EVERY_WINDOW * n)
}

/// Canary answers that a fixed-horizon, one-sided, unpooled z-test of two rates needs:
/// `n_c = (z_alpha + z_power)^2 [p_c (1-p_c) + v^2 p_s (1-p_s) / kappa] / distance^2`.
///
/// For non-inferiority with an absolute margin, `v = 1` and `distance = margin - g (p_c - p_s)` with `g = +1` where lower is
/// better. `kappa = n_s / n_c`. `None` for invalid input, and if the distance is not positive, because no sample is then
/// large enough. Source: textbook (unpooled Wald).
pub fn n_for_rates(alpha: f64, power: f64, (p_c, p_s): (f64, f64), v: f64, distance: f64, kappa: f64) -> Option<f64> {
    let share = |p: f64| (0.0..=1.0).contains(&p);
    let variance = p_c * (1.0 - p_c) + v * v * p_s * (1.0 - p_s) / kappa;
    let n = z_squared(alpha, power, 1)? * variance / (distance * distance);
    (share(p_c) && share(p_s) && v > 0.0 && distance > 0.0 && kappa > 0.0 && n.is_finite()).then_some(n)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn invalid_input_has_no_sample_size() {
        for bad in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            assert_eq!(n_for_mean(bad, 0.8, 1.0, 1.0, 1.0, 1), None);
            assert_eq!(n_for_mean(0.05, bad, 1.0, 1.0, 1.0, 1), None);
            assert_eq!(n_for_mean(0.05, 0.8, bad, 1.0, 1.0, 1), None);
            assert_eq!(n_for_rates(0.05, 0.8, (0.1, 0.1), bad, 0.1, 1.0), None);
        }
        for bad in [0.0, -1.0, f64::NAN] {
            assert_eq!(n_for_mean(0.05, 0.8, 1.0, bad, 1.0, 1), None);
            assert_eq!(n_for_mean(0.05, 0.8, 1.0, 1.0, bad, 1), None);
            assert_eq!(n_for_rates(0.05, 0.8, (0.1, 0.1), 1.0, bad, 1.0), None);
        }
        assert_eq!(n_for_mean(0.05, 0.8, 1.0, 1.0, 1.0, 3), None);
        assert_eq!(n_for_mean(0.05, 0.01, 1.0, 1.0, 1.0, 1), None);
        assert_eq!(n_for_rates(0.05, 0.8, (1.1, 0.1), 1.0, 0.1, 1.0), None);
        assert_eq!(n_for_mean(0.05, 0.8, 1e300, 1e-300, 1.0, 1), None);
    }
}
