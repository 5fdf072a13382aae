//! The Kolmogorov-Smirnov test of two distributions, from values or from aligned bins.

use super::{Alternative, mann_whitney::aligned};
use crate::laws::kolmogorov_sf;
use crate::numeric::{exp, sqrt};

/// How the p-value is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KsLaw {
    /// Counts lattice paths; exact without ties, conservative with ties.
    Exact,
    /// The limiting distribution: `Q_K(sqrt(n m/(n+m)) D)` two-sided, `exp(-2 n m/(n+m) D^2)` one-sided.
    Limit,
    /// Exact if there are no ties and the sizes are feasible ([`ks_exact_is_feasible`]), otherwise the limit.
    Auto,
}

/// The result of the test.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ks {
    /// Largest difference between the distribution functions, in the direction of the alternative.
    pub d: f64,
    /// The p-value.
    pub p: f64,
}

/// Largest number of steps of the path count, whose cost is `n_c n_s`.
const MAX_PATHS: u64 = 10_000_000;

/// Largest `n_c n_s` for which [`KsLaw::Auto`] is exact.
const AUTO_PATHS: u64 = 10_000;

/// Whether the exact computation is affordable for these sizes.
pub fn ks_exact_is_feasible(n_c: u64, n_s: u64) -> bool {
    n_c > 0 && n_s > 0 && n_c.checked_mul(n_s).is_some_and(|pairs| pairs <= MAX_PATHS)
}

/// Kolmogorov-Smirnov test on values. [`Alternative::Greater`]: `D = sup (F_c - F_s)`, so the canary's values are
/// *smaller*; [`Alternative::Less`]: `sup (F_s - F_c)`. `None` for an empty arm, a value that is not a number, or an
/// exact test of too many values. Source: Smirnov 1939; path counting as in Hodges, Ark. Mat. 1958.
pub fn ks(canary: &[f64], control: &[f64], alternative: Alternative, law: KsLaw) -> Option<Ks> {
    let (x, y) = aligned(canary, control)?;
    test(&x, &y, alternative, law)
}

/// Kolmogorov-Smirnov test on aligned bins (in increasing order of value), using the limiting distribution. `D` is at
/// most that of the values, so `p` is conservative. `None` for bins that do not align or an empty arm.
pub fn ks_binned(canary: &[u64], control: &[u64], alternative: Alternative) -> Option<Ks> {
    test(canary, control, alternative, KsLaw::Limit)
}

fn test(x: &[u64], y: &[u64], alternative: Alternative, law: KsLaw) -> Option<Ks> {
    let total = |counts: &[u64]| counts.iter().try_fold(0_u64, |sum, &count| sum.checked_add(count));
    let (n_x, n_y) = (total(x)?, total(y)?);
    if x.len() != y.len() || n_x == 0 || n_y == 0 {
        return None;
    }
    let d = largest_gap(x, y, (n_x, n_y), alternative);
    let scale = n_x as f64 * n_y as f64;
    let size = d as f64 / scale;
    let ties = x.iter().zip(y).any(|(&x, &y)| x.saturating_add(y) > 1);
    let exact = match law {
        KsLaw::Exact => true,
        KsLaw::Limit => false,
        KsLaw::Auto => !ties && scale <= AUTO_PATHS as f64,
    };
    let p = if exact {
        if !ks_exact_is_feasible(n_x, n_y) {
            return None;
        }
        paths_outside(n_x as usize, n_y as usize, d, alternative)
    } else {
        let effective = scale / (n_x as f64 + n_y as f64);
        match alternative {
            Alternative::TwoSided => kolmogorov_sf(sqrt(effective) * size),
            _ => exp(-2.0 * effective * size * size),
        }
    };
    Some(Ks { d: size, p: p.min(1.0) })
}

/// `D n_x n_y`, exactly.
fn largest_gap(x: &[u64], y: &[u64], (n_x, n_y): (u64, u64), alternative: Alternative) -> i128 {
    let (mut below_x, mut below_y, mut largest) = (0_i128, 0_i128, 0);
    for (&x, &y) in x.iter().zip(y) {
        below_x += i128::from(x);
        below_y += i128::from(y);
        // Counts near 2^64 would overflow; the result saturates, because no real data has such counts.
        let gap = below_x.saturating_mul(i128::from(n_y)).saturating_sub(below_y.saturating_mul(i128::from(n_x)));
        largest = largest.max(directed(gap, alternative));
    }
    largest
}

fn directed(gap: i128, alternative: Alternative) -> i128 {
    match alternative {
        Alternative::TwoSided => gap.abs(),
        Alternative::Greater => gap,
        Alternative::Less => -gap,
    }
}

/// Probability that a random order of the values reaches a gap of `d` or more. The last of `i + j` values is the canary's
/// with probability `i / (i + j)`. All terms are positive, so small p-values stay accurate.
fn paths_outside(n_x: usize, n_y: usize, d: i128, alternative: Alternative) -> f64 {
    let mut row = vec![0.0_f64; n_y + 1];
    for i in 0..=n_x {
        for j in 0..=n_y {
            let gap = (i * n_y) as i128 - (j * n_x) as i128;
            row[j] = if directed(gap, alternative) >= d {
                1.0
            } else {
                let share = if i + j > 0 { i as f64 / (i + j) as f64 } else { 0.0 };
                let left = if j > 0 { row[j - 1] } else { 0.0 };
                share * row[j] + (1.0 - share) * left
            };
        }
    }
    row[n_y]
}
