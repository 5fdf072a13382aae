//! The Mann-Whitney rank test, from values or from aligned bins.

use super::Alternative;
use crate::laws::normal_sf;
use crate::numeric::sqrt;

/// Largest `n_c n_s` for the exact test.
pub const MAX_EXACT_PAIRS: u64 = 10_000;

/// How the p-value is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RankLaw {
    /// The exact distribution of `U` without ties, by counting. With ties `U` is rounded down; use the normal approximation then.
    Exact,
    /// The normal approximation with the variance corrected for ties.
    Normal {
        /// Whether to move the statistic by 1/2 towards the null.
        continuity: bool,
    },
    /// Exact if there are no ties and an arm has at most 8 values, otherwise normal.
    Auto {
        /// Whether to move the statistic of the normal approximation by 1/2 towards the null.
        continuity: bool,
    },
}

/// The result of the test.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MannWhitney {
    /// Number of pairs in which the canary's value is larger; ties count half.
    pub u: f64,
    /// The p-value; 1 if all values are equal.
    pub p: f64,
    /// `U / (n_c n_s)`: the probability that a value of the canary is larger (ties count half).
    pub superiority: f64,
}

/// Mann-Whitney test on values. [`Alternative::Greater`]: the canary's values are larger. `None` for an empty arm, a value that is not a
/// number, or an exact test of more than [`MAX_EXACT_PAIRS`] pairs. Source: Mann, Whitney, Ann. Math. Stat. 1947.
pub fn mann_whitney(canary: &[f64], control: &[f64], alternative: Alternative, law: RankLaw) -> Option<MannWhitney> {
    let (x, y) = aligned(canary, control)?;
    test(&x, &y, alternative, law)
}

/// Mann-Whitney test on aligned bins (in increasing order of value): the exact tie-corrected test of the binned quantity, using the
/// normal approximation. `U = sum_i h_c[i] (below_s[i] + h_s[i]/2)`, `Var = n_c n_s / 12 [(N+1) - sum (t^3 - t) / (N (N-1))]`,
/// `t = h_c + h_s`. `None` for bins that do not align or an empty arm.
pub fn mann_whitney_binned(
    canary: &[u64],
    control: &[u64],
    alternative: Alternative,
    continuity: bool,
) -> Option<MannWhitney> {
    test(canary, control, alternative, RankLaw::Normal { continuity })
}

/// Both samples as counts over their distinct values, in increasing order.
pub(super) fn aligned(x: &[f64], y: &[f64]) -> Option<(Vec<u64>, Vec<u64>)> {
    let mut all: Vec<(f64, bool)> = x.iter().map(|&x| (x, true)).chain(y.iter().map(|&y| (y, false))).collect();
    if all.iter().any(|(value, _)| value.is_nan()) {
        return None;
    }
    all.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (mut counts_x, mut counts_y): (Vec<u64>, Vec<u64>) = (Vec::new(), Vec::new());
    let mut last = None;
    for (value, is_x) in all {
        // Compares by order instead of by bits, so that 0 and -0 are one value.
        if last.is_none_or(|last| last < value) {
            counts_x.push(0);
            counts_y.push(0);
        }
        last = Some(value);
        let counts = if is_x { &mut counts_x } else { &mut counts_y };
        if let Some(count) = counts.last_mut() {
            *count += 1;
        }
    }
    Some((counts_x, counts_y))
}

fn test(x: &[u64], y: &[u64], alternative: Alternative, law: RankLaw) -> Option<MannWhitney> {
    let total = |counts: &[u64]| counts.iter().try_fold(0_u64, |sum, &count| sum.checked_add(count));
    let (whole_x, whole_y) = (total(x)?, total(y)?);
    if x.len() != y.len() || whole_x == 0 || whole_y == 0 {
        return None;
    }
    let (n_x, n_y) = (whole_x as f64, whole_y as f64);
    let (mut u, mut below, mut ties) = (0.0, 0.0, 0.0);
    for (&x, &y) in x.iter().zip(y) {
        let (x, y) = (x as f64, y as f64);
        u += x * (below + 0.5 * y);
        below += y;
        let t = x + y;
        ties += t * (t * t - 1.0);
    }
    let superiority = u / (n_x * n_y);
    let pairs = whole_x.checked_mul(whole_y);
    let exact = match law {
        RankLaw::Exact => true,
        RankLaw::Normal { .. } => false,
        RankLaw::Auto { .. } => {
            ties == 0.0 && whole_x.min(whole_y) <= 8 && pairs.is_some_and(|pairs| pairs <= MAX_EXACT_PAIRS)
        }
    };
    if exact {
        pairs.filter(|&pairs| pairs <= MAX_EXACT_PAIRS)?;
        let p = exact_p(u, whole_x as usize, whole_y as usize, alternative);
        return Some(MannWhitney { u, p, superiority });
    }
    let n = n_x + n_y;
    let variance = n_x * n_y / 12.0 * (n + 1.0 - ties / (n * (n - 1.0)));
    let mean = 0.5 * n_x * n_y;
    let distance = match alternative {
        Alternative::Greater => u - mean,
        Alternative::Less => mean - u,
        Alternative::TwoSided => (u - mean).abs(),
    };
    let moved = !matches!(law, RankLaw::Normal { continuity: false } | RankLaw::Auto { continuity: false });
    let correction = if moved { 0.5 } else { 0.0 };
    let one = if variance > 0.0 { normal_sf((distance - correction) / sqrt(variance)) } else { 1.0 };
    let p = if alternative == Alternative::TwoSided { (2.0 * one).min(1.0) } else { one };
    Some(MannWhitney { u, p, superiority })
}

fn exact_p(u: f64, n_x: usize, n_y: usize, alternative: Alternative) -> f64 {
    let law = law_of_u(n_x, n_y);
    let other = (n_x * n_y) as f64 - u;
    let at_least = |u: f64| -> f64 { law.iter().skip(u as usize).sum() };
    match alternative {
        Alternative::Greater => at_least(u),
        Alternative::Less => at_least(other),
        Alternative::TwoSided => 2.0 * at_least(u.max(other)),
    }
    .min(1.0)
}

/// `P(U = u)` for all `u`. The largest of `i + j` values is the canary's with probability `i / (i + j)`, and is then larger than all `j`.
fn law_of_u(n_x: usize, n_y: usize) -> Vec<f64> {
    let mut rows: Vec<Vec<f64>> = vec![vec![1.0]; n_y + 1];
    for i in 1..=n_x {
        let mut previous: Vec<f64> = Vec::new();
        for (j, row) in rows.iter_mut().enumerate() {
            let mut next = vec![0.0; i * j + 1];
            let share = i as f64 / (i + j) as f64;
            for (u, p) in row.iter().enumerate() {
                next[u + j] += share * p;
            }
            for (u, p) in previous.iter().enumerate() {
                next[u] += (1.0 - share) * p;
            }
            previous.clone_from(&next);
            *row = next;
        }
    }
    rows.pop().unwrap_or_default()
}
