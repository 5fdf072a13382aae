//! `b2`: one window's e-value for two rates against a linear null.
//!
//! A bet point `(a*, b*)` outside the null is compared with its KL projection `(a0, b0)` on the line `a = v b + c`, weighted
//! by the two sample sizes:
//!
//! ```text
//! minimize n_c KL(a*||a) + n_s KL(b*||b)  s.t. a = v b + c
//! ln e = k_c ln(a*/a0) + (n_c-k_c) ln((1-a*)/(1-a0)) + k_s ln(b*/b0) + (n_s-k_s) ln((1-b*)/(1-b0))
//! ```
//!
//! `E[e] <= 1` holds exactly for any sizes and any rates inside the null, provided the bet is chosen before the window.
//! Source: Turner, Ly, Grünwald, JSPI 2024 (arXiv 2106.02693); the linear margin: arXiv 2203.09785.

use serin_sketches::Rate;

use crate::Line;
use crate::numeric::{is_inner, ln_1p};

/// A pair of rates (canary, control) to bet on; both strictly between 0 and 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RateBet {
    /// The canary's rate.
    pub a: f64,
    /// Control's rate.
    pub b: f64,
}

/// Relative step at which the root of the projection counts as found.
const TOLERANCE: f64 = 1e-14;

/// The KL projection of a bet on the line, weighted by the sample sizes. `None` if the bet is on the line, the line has no
/// inner point, or an argument is out of range.
pub fn project(n_c: f64, n_s: f64, bet: RateBet, line: Line) -> Option<RateBet> {
    let Line { v, c, .. } = line;
    if !(is_inner(bet.a) && is_inner(bet.b) && v > 0.0 && c.is_finite() && n_c > 0.0 && n_s > 0.0) {
        return None;
    }
    // The root is between b* and the b at which the line reaches a*, and where a and b are valid rates.
    let at_a = (bet.a - c) / v;
    let mut low = bet.b.min(at_a).max(0.0).max(-c / v);
    let mut high = bet.b.max(at_a).min(1.0).min((1.0 - c) / v);
    // NaN also returns here.
    if !matches!(low.partial_cmp(&high), Some(std::cmp::Ordering::Less)) {
        return None;
    }
    let slope = |b: f64| {
        let a = line.at(b);
        let (va, vb) = (a * (1.0 - a), b * (1.0 - b));
        let (da, db) = (a - bet.a, b - bet.b);
        let value = n_c * v * da / va + n_s * db / vb;
        // Derivative of (x - x*)/(x(1-x)), which is positive for every x* in (0, 1).
        let d = |x: f64, dx: f64, var: f64| (var - dx * (1.0 - 2.0 * x)) / (var * var);
        (value, n_c * v * v * d(a, da, va) + n_s * d(b, db, vb))
    };
    let mut b = (n_c * at_a.clamp(low, high) + n_s * bet.b.clamp(low, high)) / (n_c + n_s);
    for _ in 0..100 {
        let (value, derivative) = slope(b);
        if value == 0.0 {
            break;
        }
        if value > 0.0 {
            high = b;
        } else {
            low = b;
        }
        let newton = b - value / derivative;
        let inside = newton > low && newton < high;
        if (newton - b).abs() <= TOLERANCE * b {
            // The step is below rounding error; bisecting would not improve the result.
            b = if inside { newton } else { b };
            break;
        }
        b = if inside { newton } else { 0.5 * (low + high) };
    }
    let a = line.at(b);
    (is_inner(a) && is_inner(b)).then_some(RateBet { a, b })
}

/// `ln e` of one window for one bet. 0 (no evidence) if an arm is empty, the bet satisfies the null, or no bet is possible.
pub fn ln_e(canary: Rate, control: Rate, bet: RateBet, line: Line) -> f64 {
    if canary.n() == 0 || control.n() == 0 || line.holds(bet.a, bet.b) {
        return 0.0;
    }
    let Some(null) = project(canary.n() as f64, control.n() as f64, bet, line) else { return 0.0 };
    ln_likelihood_ratio(canary, bet.a, null.a) + ln_likelihood_ratio(control, bet.b, null.b)
}

/// `k ln(p1/p0) + (n-k) ln((1-p1)/(1-p0))`.
pub(crate) fn ln_likelihood_ratio(rate: Rate, p1: f64, p0: f64) -> f64 {
    let (k, rest) = (rate.k() as f64, (rate.n() - rate.k()) as f64);
    k * ln_1p((p1 - p0) / p0) + rest * ln_1p((p0 - p1) / (1.0 - p0))
}

#[cfg(test)]
#[expect(clippy::float_cmp, reason = "no evidence is exactly zero")]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn invalid_input_adds_no_evidence() {
        let line = Line { v: 1.0, c: 0.0, sign: 1.0 };
        let bet = RateBet { a: 0.2, b: 0.1 };
        let some = Rate::new(10, 5).unwrap();
        let none = Rate::default();
        assert_eq!(ln_e(none, some, bet, line), 0.0);
        assert_eq!(ln_e(some, none, bet, line), 0.0);
        assert_eq!(ln_e(some, some, RateBet { a: 0.1, b: 0.1 }, line), 0.0);
        for bad in [f64::NAN, 0.0, 1.0, -1.0, f64::INFINITY] {
            assert_eq!(ln_e(some, some, RateBet { a: bad, b: 0.1 }, line), 0.0);
            assert_eq!(ln_e(some, some, RateBet { a: 0.2, b: bad }, line), 0.0);
        }
        for (v, c) in [(f64::NAN, 0.0), (1.0, f64::NAN), (0.0, 0.1), (1.0, -2.0), (1.0, 5.0), (-1.0, 0.5)] {
            assert_eq!(ln_e(some, some, bet, Line { v, c, sign: 1.0 }), 0.0);
        }
    }

    proptest! {
        #[test]
        fn the_projection_is_the_minimum(
            a in 0.001..0.999_f64, b in 0.001..0.999_f64, v in 0.5..1.5_f64, c in -0.2..0.2_f64,
            n_c in 1.0..1e6_f64, n_s in 1.0..1e6_f64,
        ) {
            let line = Line { v, c, sign: 1.0 };
            let bet = RateBet { a, b };
            let kl = |x: f64, y: f64| -> f64 { x * (x / y).ln() + (1.0 - x) * ((1.0 - x) / (1.0 - y)).ln() };
            let cost = |b0: f64| n_c * kl(a, line.at(b0)) + n_s * kl(b, b0);
            if let Some(null) = project(n_c, n_s, bet, line) {
                let best = cost(null.b);
                for step in [1e-3, 1e-2, 0.1] {
                    for near in [null.b * (1.0 - step), null.b * (1.0 + step)] {
                        if is_inner(near) && is_inner(line.at(near)) {
                            prop_assert!(cost(near) >= best - 1e-9 * best.abs());
                        }
                    }
                }
            }
        }
    }
}
