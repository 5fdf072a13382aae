//! `m1`: one arm's mean of values in [0, 1] against a fixed limit, by betting.
//!
//! ```text
//! ln e = sum_i h[i] ln(1 + g lam (x_i - limit)),  0 < lam < 1 / limit (g = +1) or 1 / (1 - limit) (g = -1)
//! ```
//!
//! `E[e] <= 1` holds exactly if the mean keeps the limit (`g (mu - limit) <= 0`), for any distribution on [0, 1] and any number of
//! values, provided `lam` is chosen before the window. Source: Waudby-Smith, Ramdas, JRSSB 2024 (arXiv 2010.09686).

use crate::numeric::is_inner;
use crate::two_means::{Excesses, Grid};

/// The largest `lam` for which all factors stay positive (exclusive).
pub fn lam_limit(limit: f64, sign: f64) -> f64 {
    if sign > 0.0 { 1.0 / limit } else { 1.0 / (1.0 - limit) }
}

/// `ln e` of one window for one bet. 0 (no evidence) without values or for a bet out of range.
pub fn ln_e(canary: &Grid, lam: f64, limit: f64, sign: f64) -> f64 {
    let [ln_e] = ln_e_each(canary, [lam], limit, sign);
    ln_e
}

/// [`ln_e`] for several bets.
pub(crate) fn ln_e_each<const N: usize>(canary: &Grid, lams: [f64; N], limit: f64, sign: f64) -> [f64; N] {
    if !is_inner(limit) {
        return [0.0; N];
    }
    let excesses = Excesses::around(canary, limit);
    lams.map(|lam| if lam > 0.0 && lam < lam_limit(limit, sign) { excesses.ln_product(sign * lam) } else { 0.0 })
}

#[cfg(test)]
#[expect(clippy::float_cmp, reason = "no evidence is exactly zero")]
mod tests {
    use super::*;

    #[test]
    fn grows_beyond_the_limit_and_ignores_invalid_input() {
        let low = [(0.5, 50), (0.7, 50)];
        assert!(ln_e(&low, 1.0, 0.65, -1.0) > 4.0 && ln_e(&low, 1.0, 0.65, 1.0) < -4.0);
        assert!(ln_e(&low, 1.0, 0.55, 1.0) > 4.0);
        assert_eq!(ln_e(&[], 1.0, 0.65, 1.0), 0.0);
        for (lam, limit) in [(f64::NAN, 0.5), (0.0, 0.5), (2.0, 0.5), (1.0, 0.0), (1.0, 1.0), (1.0, f64::NAN)] {
            assert_eq!(ln_e(&low, lam, limit, 1.0), 0.0);
        }
    }
}
