//! Group-sequential bounds by alpha spending (Lan and `DeMets`).
//!
//! The classical way of looking more than once: a fixed number of planned looks, bounds on the z-score at each. They
//! win over e-processes when the horizon is fixed and effects are small; they cannot be extended past the last look.
//! For reports.

use crate::laws::{normal_isf, normal_sf};
use crate::numeric::{bisect, exp, is_inner, ln, sqrt};

/// How the error rate is spent over the information gathered, `t` in (0, 1].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spending {
    /// `2 - 2 Phi(z_{alpha/2} / sqrt t)`: little at first, nearly all at the end.
    ObrienFleming,
    /// `alpha ln(1 + (e-1) t)`: evenly.
    Pocock,
}

impl Spending {
    /// Error rate spent up to information `t`.
    pub fn spent(self, alpha: f64, t: f64) -> f64 {
        match self {
            Self::ObrienFleming => 2.0 * normal_sf(normal_isf(alpha / 2.0) / sqrt(t)),
            Self::Pocock => alpha * ln(1.0 + (std::f64::consts::E - 1.0) * t),
        }
    }
}

/// Largest number of looks: the cost grows with its square.
pub const MAX_LOOKS: u32 = 400;

/// Why there are no bounds.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
pub enum GroupSequentialError {
    /// No looks, or too many.
    #[error("the number of looks {0} must be between 1 and {MAX_LOOKS}")]
    Looks(u32),
    /// An error rate outside (0, 1).
    #[error("alpha {0} must be between 0 and 1")]
    Alpha(f64),
}

/// Points of the integration grid per standard deviation of one look's increment.
const POINTS: f64 = 16.0;
/// Beyond this many standard deviations there is nothing to integrate.
const REACH: f64 = 8.5;
/// Beyond this many the normal tail is no number.
const FARTHEST: f64 = 37.0;

/// Bounds on the z-score at `looks` equally spaced looks: reject at the first look `k` with `z_k >= bound_k`
/// (or `|z_k| >= bound_k` if not `one_sided`; then each side spends `alpha/2` and the sides are symmetric).
///
/// Computed by the recursion of Armitage, `McPherson` and Rowe: the density of the running sum on "not yet rejected",
/// convolved with one look's increment, by Simpson's rule. Error below 1e-5. Assumes normal scores with independent
/// increments. Sources: Lan, `DeMets`, Biometrika 1983; Armitage, `McPherson`, Rowe, JRSS A 1969.
pub fn group_sequential_bounds(
    looks: u32,
    alpha: f64,
    spending: Spending,
    one_sided: bool,
) -> Result<Vec<f64>, GroupSequentialError> {
    if looks == 0 || looks > MAX_LOOKS {
        return Err(GroupSequentialError::Looks(looks));
    }
    if !is_inner(alpha) {
        return Err(GroupSequentialError::Alpha(alpha));
    }
    let per_side = if one_sided { alpha } else { alpha / 2.0 };
    // The running sum in units of one look's increment: variance k at look k.
    let mut alive = Alive { low: 0.0, step: 0.0, weighted: vec![1.0] };
    let mut spent = 0.0;
    let mut bounds = Vec::new();
    for look in 1..=looks {
        let sd = sqrt(f64::from(look));
        let now = spending.spent(per_side, f64::from(look) / f64::from(looks));
        let bound = bisect(FARTHEST * sd, -REACH * sd, |bound| alive.exceeds(bound) < now - spent);
        spent = now;
        let low = if one_sided { -REACH * sd } else { -bound };
        alive = alive.advance(low.max(-REACH * sd), bound.min(REACH * sd));
        bounds.push(bound / sd);
    }
    Ok(bounds)
}

/// Density of the running sum among paths not yet rejected, times Simpson's weights, on an even grid.
struct Alive {
    low: f64,
    step: f64,
    weighted: Vec<f64>,
}

impl Alive {
    fn points(&self) -> impl Iterator<Item = (f64, f64)> + '_ {
        let at = |i: usize| self.low + i as f64 * self.step;
        self.weighted.iter().enumerate().map(move |(i, &weight)| (at(i), weight))
    }

    /// `P(not rejected before, next sum > bound)`.
    fn exceeds(&self, bound: f64) -> f64 {
        self.points().map(|(u, weight)| weight * normal_sf(bound - u)).sum()
    }

    /// The density after one more increment, kept on `low..high`.
    fn advance(&self, low: f64, high: f64) -> Self {
        let intervals = 2 * ((high - low) * POINTS / 2.0).ceil().max(1.0) as usize;
        let step = (high - low) / intervals as f64;
        let scale = 1.0 / sqrt(2.0 * std::f64::consts::PI);
        let density = |x: f64| -> f64 {
            let near = self.near(x);
            near.map(|(u, weight)| weight * scale * exp(-0.5 * (x - u) * (x - u))).sum()
        };
        let simpson = |i: usize| match i {
            i if i == 0 || i == intervals => step / 3.0,
            i if i % 2 == 1 => 4.0 * step / 3.0,
            _ => 2.0 * step / 3.0,
        };
        let weighted = (0..=intervals).map(|i| simpson(i) * density(low + i as f64 * step)).collect();
        Self { low, step, weighted }
    }

    /// The points within reach of one increment.
    fn near(&self, x: f64) -> impl Iterator<Item = (f64, f64)> + '_ {
        let index = |at: f64| if self.step > 0.0 { ((at - self.low) / self.step).max(0.0) as usize } else { 0 };
        let (from, to) = (index(x - REACH), index(x + REACH) + 1);
        self.points().take(to.saturating_add(1)).skip(from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(got: &[f64], expected: &[f64], tolerance: f64) {
        assert_eq!(got.len(), expected.len());
        for (got, expected) in got.iter().zip(expected) {
            assert!((got - expected).abs() <= tolerance, "{got} {expected}");
        }
    }

    #[test]
    fn five_looks_match_the_published_table() {
        // Lan-DeMets, two-sided 0.05, O'Brien-Fleming: Jennison, Turnbull 2000; R's ldbounds.
        let bounds = group_sequential_bounds(5, 0.05, Spending::ObrienFleming, false).unwrap();
        close(&bounds, &[4.877, 3.357, 2.680, 2.290, 2.031], 6e-4);
        let bounds = group_sequential_bounds(5, 0.05, Spending::Pocock, false).unwrap();
        close(&bounds, &[2.438, 2.427, 2.410, 2.397, 2.386], 6e-4);
    }

    #[test]
    fn one_look_is_the_plain_test() {
        for spending in [Spending::ObrienFleming, Spending::Pocock] {
            close(&group_sequential_bounds(1, 0.05, spending, true).unwrap(), &[1.644_853_626_951], 1e-9);
            close(&group_sequential_bounds(1, 0.05, spending, false).unwrap(), &[1.959_963_984_540], 1e-9);
        }
    }

    #[test]
    fn nonsense_is_named() {
        let of = |looks, alpha| group_sequential_bounds(looks, alpha, Spending::Pocock, true);
        assert_eq!(of(0, 0.05), Err(GroupSequentialError::Looks(0)));
        assert_eq!(of(MAX_LOOKS + 1, 0.05), Err(GroupSequentialError::Looks(MAX_LOOKS + 1)));
        assert_eq!(of(3, 0.0), Err(GroupSequentialError::Alpha(0.0)));
        assert!(of(3, f64::NAN).is_err());
        // The first of ten looks may spend 2.4e-25 of 0.001.
        let strict = group_sequential_bounds(10, 0.001, Spending::ObrienFleming, true).unwrap();
        assert!((strict[0] - 10.338).abs() < 1e-2 && (strict[9] - 3.146_96).abs() < 1e-3, "{strict:?}");
        let tiny = of(60, 1e-12).unwrap();
        assert!(tiny.iter().all(|bound| bound.is_finite() && *bound > 6.0));
    }
}
