//! Probability laws for reports and planning: `statrs` where it has them, the missing ones beside it.
//!
//! Purpose: tail probabilities and quantiles that keep their relative accuracy far out, for fixed-horizon tests, sample
//! sizes and intervals. Nothing sequential may use this module: `statrs` does not promise equal bits on every platform.
//!
//! Invariants: arguments out of range give NaN (or an end of the range, where a limit exists), never a panic.

use statrs::function::erf;

use crate::numeric::is_inner;

/// `P(Z <= x)` for a standard normal `Z`.
pub fn normal_cdf(x: f64) -> f64 {
    0.5 * erf::erfc(-x * std::f64::consts::FRAC_1_SQRT_2)
}

/// `P(Z > x)` for a standard normal `Z`, accurate in the tail.
pub fn normal_sf(x: f64) -> f64 {
    normal_cdf(-x)
}

/// The `x` with `P(Z > x) = p`; NaN unless `0 < p < 1`.
pub fn normal_isf(p: f64) -> f64 {
    if is_inner(p) { std::f64::consts::SQRT_2 * erf::erfc_inv(2.0 * p) } else { f64::NAN }
}
