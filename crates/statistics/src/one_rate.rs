//! `b1`: one arm's rate against a fixed limit.

use serin_sketches::Rate;

use crate::numeric::is_inner;
use crate::two_rates::ln_likelihood_ratio;

/// `ln e` of one window against "the rate is at most `p0`" ("at least" for a bet `p1 < p0`):
/// `k ln(p1/p0) + (n-k) ln((1-p1)/(1-p0))`. 0 if a rate is not strictly between 0 and 1.
pub fn ln_e(canary: Rate, p1: f64, p0: f64) -> f64 {
    if is_inner(p1) && is_inner(p0) { ln_likelihood_ratio(canary, p1, p0) } else { 0.0 }
}

#[cfg(test)]
#[expect(clippy::float_cmp, reason = "no evidence is exactly zero")]
mod tests {
    use super::*;

    #[test]
    fn grows_with_the_rate_and_ignores_invalid_input() {
        let bad = ln_e(Rate::new(100, 20).unwrap(), 0.2, 0.05);
        let good = ln_e(Rate::new(100, 5).unwrap(), 0.2, 0.05);
        assert!(bad > 10.0 && good < 0.0);
        assert_eq!(ln_e(Rate::new(100, 20).unwrap(), f64::NAN, 0.05), 0.0);
        assert_eq!(ln_e(Rate::default(), 0.2, 0.05), 0.0);
    }
}
