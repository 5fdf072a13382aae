//! Elementary functions from `libm`, so that results are bit-identical on every platform, and log-domain sums.

pub(crate) use libm::{exp, log as ln, log1p as ln_1p, sqrt};

/// Represents `ln 0` in persisted state. It is finite, so that every codec can carry it, and adding real evidence does not change it.
pub(crate) const LN_ZERO: f64 = -1e30;

/// `ln(e^a + e^b)` without overflow.
pub(crate) fn ln_add_exp(a: f64, b: f64) -> f64 {
    let (high, low) = if a >= b { (a, b) } else { (b, a) };
    if low <= LN_ZERO { high } else { high + ln_1p(exp(low - high)) }
}

/// `ln sum e^x` in the given order; [`LN_ZERO`] without terms.
pub(crate) fn ln_sum_exp(terms: impl Iterator<Item = f64> + Clone) -> f64 {
    let largest = terms.clone().fold(LN_ZERO, f64::max);
    if largest <= LN_ZERO {
        return LN_ZERO;
    }
    largest + ln(terms.map(|term| exp(term - largest)).sum())
}

/// `ln x` that maps zero (and less) to [`LN_ZERO`].
pub(crate) fn ln_or_zero(x: f64) -> f64 {
    if x > 0.0 { ln(x) } else { LN_ZERO }
}

pub(crate) fn odds(p: f64) -> f64 {
    p / (1.0 - p)
}

pub(crate) fn logit(p: f64) -> f64 {
    ln(p) - ln_1p(-p)
}

pub(crate) fn expit(x: f64) -> f64 {
    if x >= 0.0 {
        1.0 / (1.0 + exp(-x))
    } else {
        let e = exp(x);
        e / (1.0 + e)
    }
}

/// Whether `p` is a number strictly between 0 and 1.
pub(crate) fn is_inner(p: f64) -> bool {
    p > 0.0 && p < 1.0
}

/// Logarithm of the standard normal distribution function; asymptotic series below -30, where the tail underflows.
pub(crate) fn ln_normal_cdf(x: f64) -> f64 {
    if x > -30.0 { ln(0.5 * libm::erfc(-x * std::f64::consts::FRAC_1_SQRT_2)) } else { ln_scaled_tail(x) - 0.5 * x * x }
}

/// `P(Z > x)` of the standard normal distribution; relative error about 1e-15 down to where it underflows (x of about 38).
pub(crate) fn normal_sf(x: f64) -> f64 {
    0.5 * libm::erfc(x * std::f64::consts::FRAC_1_SQRT_2)
}

/// The `x` with `P(Z > x) = p`, for `p` strictly between 0 and 1.
pub(crate) fn normal_isf(p: f64) -> f64 {
    bisect(-39.0, 39.0, |x| normal_sf(x) > p)
}

/// `x^2/2 + ln Phi(x)`, which stays small where both parts are large and cancel.
pub(crate) fn ln_scaled_normal_cdf(x: f64) -> f64 {
    if x > -30.0 { ln_normal_cdf(x) + 0.5 * x * x } else { ln_scaled_tail(x) }
}

fn ln_scaled_tail(x: f64) -> f64 {
    let y = 1.0 / (x * x);
    let series = 1.0 - y * (1.0 - 3.0 * y * (1.0 - 5.0 * y));
    ln(series) - ln(-x) - 0.5 * ln(2.0 * std::f64::consts::PI)
}

/// `ln B(a, b)`, the complete beta function.
pub(crate) fn ln_beta(a: f64, b: f64) -> f64 {
    libm::lgamma(a) + libm::lgamma(b) - libm::lgamma(a + b)
}

/// Bisects `inside .. outside` for the point at which `holds` changes from true (at `inside`) to false.
pub(crate) fn bisect(mut inside: f64, mut outside: f64, holds: impl Fn(f64) -> bool) -> f64 {
    for _ in 0..200 {
        let middle = 0.5 * (inside + outside);
        if middle.to_bits() == inside.to_bits() || middle.to_bits() == outside.to_bits() {
            break;
        }
        if holds(middle) {
            inside = middle;
        } else {
            outside = middle;
        }
    }
    0.5 * (inside + outside)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_sums_hold_at_the_ends() {
        assert!((ln_add_exp(0.0, 0.0) - std::f64::consts::LN_2).abs() < 1e-15);
        assert_eq!(ln_add_exp(LN_ZERO, 3.0).to_bits(), 3.0_f64.to_bits());
        assert!((ln_sum_exp([1e5, 1e5 - 1.0].into_iter()) - (1e5 + 0.313_261_687_518_222_8)).abs() < 1e-9);
    }

    #[test]
    fn normal_tails_match_reference_values() {
        // mpmath, 30 digits.
        for (x, tail) in [
            (0.0, 0.5),
            (1.959_963_984_540_054, 0.025),
            (-1.0, 0.841_344_746_068_542_9),
            (10.0, 7.619_853_024_160_527e-24),
        ] {
            assert!((normal_sf(x) / tail - 1.0).abs() < 1e-14, "{x}");
            assert!((normal_isf(tail) - x).abs() < 1e-13, "{x}");
        }
    }

    #[test]
    fn ln_normal_cdf_matches_reference_values() {
        // mpmath, 30 digits.
        for (x, expected) in [
            (0.0, -std::f64::consts::LN_2),
            (-8.0, -35.013_437_159_914_496),
            (-29.0, -424.787_419_909_730_16),
            (-31.0, -484.853_963_627_178_6),
            (5.0, -2.866_516_129_637_633e-7),
        ] {
            assert!((ln_normal_cdf(x) / expected - 1.0).abs() < 1e-8, "{x}: {} {expected}", ln_normal_cdf(x));
            assert!((ln_scaled_normal_cdf(x) - 0.5 * x * x - expected).abs() < 1e-5 * expected.abs());
        }
        // mpmath: ln Phi(-1e6) is -5e11.
        assert!((ln_scaled_normal_cdf(-1e6) + 14.734_449_091_169_944).abs() < 1e-12);
    }
}
