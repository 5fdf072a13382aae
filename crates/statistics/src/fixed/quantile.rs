//! An interval for a quantile from ranks, without any assumption about the distribution.

use crate::laws::{binomial_cdf, binomial_quantile};
use crate::numeric::is_inner;

/// Ranks (1-based, in increasing order of value) of the interval `[X_(lower), X_(upper)]`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct QuantileRanks {
    /// Rank of the lower end; 0 means that there are too few values for a lower end.
    pub lower: u64,
    /// Rank of the upper end; `n + 1` means that there are too few values for an upper end.
    pub upper: u64,
    /// Probability that the interval contains the quantile, for a continuous quantity.
    pub coverage: f64,
}

/// Fixed-sample interval for the `level`-quantile of `n` values: `l = ppf(a/2)`, `u = ppf(1 - a/2) + 1` of
/// `Binomial(n, level)`; the coverage is `P(l <= K < u)`. `None` without values, or for a level or confidence outside
/// (0, 1). Source: David, Nagaraja, Order Statistics.
pub fn quantile_rank_interval(n: u64, level: f64, confidence: f64) -> Option<QuantileRanks> {
    if n == 0 || n == u64::MAX || !is_inner(level) || !is_inner(confidence) {
        return None;
    }
    let tail = (1.0 - confidence) / 2.0;
    let lower = binomial_quantile(tail, n, level)?;
    let last = binomial_quantile(1.0 - tail, n, level)?;
    let below = if lower == 0 { 0.0 } else { binomial_cdf(lower - 1, n, level) };
    Some(QuantileRanks { lower, upper: last + 1, coverage: binomial_cdf(last, n, level) - below })
}
