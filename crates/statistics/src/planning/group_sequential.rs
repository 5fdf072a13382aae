//! Group-sequential bounds by alpha spending (Lan and `DeMets`).
//!
//! This is the classical way to look more than once: a fixed number of planned looks, with a bound on the z-score at each. It needs fewer
//! answers than e-processes if the horizon is fixed and effects are small, but it cannot be extended past the last look.
//!
//! [`group_sequential_bounds`] is for reports. [`next_bound`] decides in [`crate::PlannedLooks`], so this module uses only `libm`.

use crate::numeric::{bisect, exp, is_inner, ln, normal_isf, normal_sf, sqrt};

/// How the error rate is spent as information accumulates, `t` in (0, 1].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spending {
    /// `2 - 2 Phi(z_{alpha/2} / sqrt t)`: little at first, nearly all at the end.
    ObrienFleming,
    /// `alpha ln(1 + (e-1) t)`: nearly evenly.
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

/// Largest number of looks. The cost grows with its square.
pub const MAX_LOOKS: u32 = 400;

/// Why no bounds can be computed.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
pub enum GroupSequentialError {
    /// No looks, or too many.
    #[error("the number of looks {0} must be between 1 and {MAX_LOOKS}")]
    Looks(u32),
    /// An error rate outside (0, 1).
    #[error("alpha {0} must be between 0 and 1")]
    Alpha(f64),
}

/// Points of the integration grid per standard deviation of one look's increment, in tables.
const POINTS: f64 = 16.0;
/// The same for looks at measured information, relative to the smaller one of two increments. The error of a bound is below 1e-4.
const POINTS_AS_MEASURED: f64 = 8.0;
/// Smallest increment of the information at a look, as a share of the total, so that the grid can resolve it.
const SMALLEST_INCREMENT: f64 = 1.0 / 400.0;
/// The density is negligible beyond this many standard deviations.
const REACH: f64 = 8.5;
/// The normal tail underflows beyond this many standard deviations.
const FARTHEST: f64 = 37.0;

/// Bounds on the z-score at `looks` equally spaced looks: reject at the first look `k` with `z_k >= bound_k` (or
/// `|z_k| >= bound_k` if not `one_sided`; then each side spends `alpha/2` and the sides are symmetric).
///
/// Computed by the recursion of Armitage, `McPherson` and Rowe: the density of the running sum on "not yet rejected" is
/// convolved with the increment of one look by Simpson's rule. The error is below 1e-5. Assumes normal scores with
/// independent increments. Sources: Lan, `DeMets`, Biometrika 1983; Armitage, `McPherson`, Rowe, JRSS A 1969.
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
    // The running sum in units of one look's increment, so its variance is k at look k.
    let mut alive = Alive::start();
    let mut spent = 0.0;
    let mut bounds = Vec::new();
    for look in 1..=looks {
        let sd = sqrt(f64::from(look));
        let now = spending.spent(per_side, f64::from(look) / f64::from(looks));
        let bound = alive.bound(1.0, sd, now - spent);
        spent = now;
        let low = if one_sided { -REACH * sd } else { -bound };
        alive = alive.advance(1.0, low.max(-REACH * sd), bound.min(REACH * sd), 1.0 / POINTS);
        bounds.push(bound / sd);
    }
    Ok(bounds)
}

/// The one-sided bound on the z-score of the next look. `taken` contains the information (such as the inverse variance of
/// the estimate) and the bound of each earlier look. The bound spends `spend` of the error rate at `information`. Looks may
/// be spaced arbitrarily, as long as their spacing does not depend on the outcomes.
///
/// `None` if there is nothing to spend, or if too little information was added since the last look (less than a 400th of the total).
pub fn next_bound(taken: &[(f64, f64)], information: f64, spend: f64) -> Option<f64> {
    let ends = || taken.iter().map(|look| look.0).chain([information]);
    let sds: Vec<f64> = [0.0].into_iter().chain(ends()).zip(ends()).map(|(before, at)| sqrt(at - before)).collect();
    let last = sds.last().copied().unwrap_or_default();
    let enough = information.is_finite() && last * last >= SMALLEST_INCREMENT * information && last > 0.0;
    if !(enough && spend > 0.0 && sds.iter().all(|&sd| sd > 0.0)) {
        return None;
    }
    let mut alive = Alive::start();
    for (&(at, bound), increments) in taken.iter().zip(sds.windows(2)) {
        let sd = sqrt(at);
        let high = (bound * sd).clamp(-REACH * sd, REACH * sd);
        let step = increments[0].min(increments[1]) / POINTS_AS_MEASURED;
        alive = alive.advance(increments[0], -REACH * sd, high, step);
    }
    let sd = sqrt(information);
    Some(alive.bound(last, sd, spend) / sd)
}

/// Density of the running sum among paths not yet rejected, times Simpson's weights, on an even grid.
struct Alive {
    low: f64,
    step: f64,
    weighted: Vec<f64>,
}

impl Alive {
    /// The state before the first look, with the running sum at 0.
    fn start() -> Self {
        Self { low: 0.0, step: 0.0, weighted: vec![1.0] }
    }

    fn points(&self) -> impl Iterator<Item = (f64, f64)> + '_ {
        let at = |i: usize| self.low + i as f64 * self.step;
        self.weighted.iter().enumerate().map(move |(i, &weight)| (at(i), weight))
    }

    /// The bound that the next running sum exceeds with probability `spend`. Its increment has the standard deviation
    /// `increment`, the whole sum `sd`.
    fn bound(&self, increment: f64, sd: f64, spend: f64) -> f64 {
        bisect(FARTHEST * sd, -REACH * sd, |bound| self.exceeds(increment, bound) < spend)
    }

    /// `P(not rejected before, next sum > bound)`.
    fn exceeds(&self, increment: f64, bound: f64) -> f64 {
        self.points().map(|(u, weight)| weight * normal_sf((bound - u) / increment)).sum()
    }

    /// The density after one more increment, restricted to `low..high`, on a grid with steps of at most `step`.
    fn advance(&self, increment: f64, low: f64, high: f64, step: f64) -> Self {
        let intervals = 2 * ((high - low) / (2.0 * step)).ceil().max(1.0) as usize;
        let step = (high - low) / intervals as f64;
        let scale = 1.0 / (sqrt(2.0 * std::f64::consts::PI) * increment);
        let density = |x: f64| -> f64 {
            let near = self.near(x, REACH * increment);
            let at = |u: f64| (x - u) / increment;
            near.map(|(u, weight)| weight * scale * exp(-0.5 * at(u) * at(u))).sum()
        };
        let simpson = |i: usize| match i {
            i if i == 0 || i == intervals => step / 3.0,
            i if i % 2 == 1 => 4.0 * step / 3.0,
            _ => 2.0 * step / 3.0,
        };
        let weighted = (0..=intervals).map(|i| simpson(i) * density(low + i as f64 * step)).collect();
        Self { low, step, weighted }
    }

    /// The points within `reach` of `x`.
    fn near(&self, x: f64, reach: f64) -> impl Iterator<Item = (f64, f64)> + '_ {
        let index = |at: f64| if self.step > 0.0 { ((at - self.low) / self.step).max(0.0) as usize } else { 0 };
        let (from, to) = (index(x - reach), index(x + reach) + 1);
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
    fn bounds_at_measured_information_match_the_table() {
        let table = group_sequential_bounds(8, 0.05, Spending::ObrienFleming, true).unwrap();
        let spent = |look: f64| Spending::ObrienFleming.spent(0.05, look / 8.0);
        let mut taken = Vec::new();
        for (look, bound) in (1..=8).zip(table) {
            let look = f64::from(look);
            let spend = spent(look) - if look > 1.0 { spent(look - 1.0) } else { 0.0 };
            // The unit of information does not matter.
            let next = next_bound(&taken, 31.0 * look, spend).unwrap();
            assert!((next - bound).abs() < 1e-4, "{look}: {next} {bound}");
            taken.push((31.0 * look, next));
        }
    }

    #[test]
    fn uneven_looks_spend_the_given_error_rate() {
        // Two looks at 0.25 and 1: P(cross first) = a, P(cross second, not first) = b by a fine sum over the first score.
        let (a, b) = (0.01, 0.04);
        let first = next_bound(&[], 0.25, a).unwrap();
        assert!((normal_sf(first) - a).abs() < 1e-9);
        let second = next_bound(&[(0.25, first)], 1.0, b).unwrap();
        let step = 1e-3;
        let density = |z: f64| exp(-0.5 * z * z) / sqrt(2.0 * std::f64::consts::PI);
        let tail = |z: f64| normal_sf((second - 0.5 * z) / sqrt(0.75));
        let at = |i: i32| first - (f64::from(i) + 0.5) * step;
        let crossed: f64 = (0..12_000).map(|i| density(at(i)) * tail(at(i)) * step).sum();
        assert!((crossed - b).abs() < 1e-5, "{crossed}");
        // A first look at almost no information has no effect.
        let tiny = next_bound(&[(1e-9, 8.0), (0.25, first)], 1.0, b).unwrap();
        assert!((tiny - second).abs() < 1e-4, "{tiny} {second}");
        let same = next_bound(&[(1.0, 2.0)], 1.0, 0.01);
        for nothing in
            [same, next_bound(&[(1.0, 2.0)], 1.002, 0.01), next_bound(&[], 1.0, 0.0), next_bound(&[], f64::NAN, 0.01)]
        {
            assert_eq!(nothing, None);
        }
    }

    #[test]
    fn one_look_is_the_plain_test() {
        for spending in [Spending::ObrienFleming, Spending::Pocock] {
            close(&group_sequential_bounds(1, 0.05, spending, true).unwrap(), &[1.644_853_626_951], 1e-9);
            close(&group_sequential_bounds(1, 0.05, spending, false).unwrap(), &[1.959_963_984_540], 1e-9);
        }
    }

    #[test]
    fn invalid_arguments_are_named() {
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
