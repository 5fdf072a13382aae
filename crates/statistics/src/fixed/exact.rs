//! Exact tests on counts, all based on the binomial distribution.

use super::Alternative;
use crate::laws::{binomial_at_least, binomial_cdf, binomial_pmf};
use crate::numeric::is_inner;

/// Exact test of "`k` of `n` with probability `p`". Two-sided: the probability of all outcomes that are no more likely
/// than `k` (with a relative slack of 1e-7 for rounding, as in scipy). `None` for `k > n` or `p` outside (0, 1).
pub fn binomial_test(k: u64, n: u64, p: f64, alternative: Alternative) -> Option<f64> {
    if k > n || !is_inner(p) {
        return None;
    }
    Some(match alternative {
        Alternative::Less => binomial_cdf(k, n, p),
        Alternative::Greater => binomial_at_least(k, n, p),
        Alternative::TwoSided => two_sided(k, n, p),
    })
}

fn two_sided(k: u64, n: u64, p: f64) -> f64 {
    let likely = binomial_pmf(k, n, p) * (1.0 + 1e-7);
    let unlikely = |i: u64| binomial_pmf(i, n, p) <= likely;
    let mean = p * n as f64;
    let total = if (k as f64) < mean {
        // Above the mean the probability only falls. This finds the first outcome that is no more likely than `k`.
        let first = partition(mean.ceil() as u64, n + 1, |i| i > n || unlikely(i));
        binomial_cdf(k, n, p) + binomial_at_least(first, n, p)
    } else if k as f64 > mean {
        let above = partition(0, mean.floor() as u64 + 1, |i| !unlikely(i));
        binomial_at_least(k, n, p) + if above == 0 { 0.0 } else { binomial_cdf(above - 1, n, p) }
    } else {
        1.0
    };
    total.min(1.0)
}

/// The first `i` in `low..high` for which `holds` is true, or `high` if there is none; `holds` changes from false to true at most once.
fn partition(mut low: u64, mut high: u64, holds: impl Fn(u64) -> bool) -> u64 {
    while low < high {
        let middle = low + (high - low) / 2;
        if holds(middle) {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    low
}

/// `McNemar`'s exact test of paired labels.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct McNemar {
    /// P-value of the null "both versions are wrong equally often".
    pub p_two_sided: f64,
    /// A small value shows that the canary is wrong more often.
    pub p_canary_worse: f64,
}

/// `McNemar`'s exact test. Of the pairs in which exactly one version is wrong, `b` are the canary's and `c` control's; under the null
/// `b ~ Binomial(b + c, 1/2)`. `None` without such pairs, or if `b + c` exceeds `u64`. Source: `McNemar` 1947, exact form.
pub fn mcnemar(b: u64, c: u64) -> Option<McNemar> {
    let n = b.checked_add(c).filter(|&n| n > 0)?;
    Some(McNemar {
        p_two_sided: binomial_test(b, n, 0.5, Alternative::TwoSided)?,
        p_canary_worse: binomial_test(b, n, 0.5, Alternative::Greater)?,
    })
}

/// Exact test of "the canary's rate of events per exposure is `ratio` times control's", from `(events, exposure)` per arm. Given the
/// total, the canary's events are binomial with `p = R t_c / (R t_c + t_s)`. Exposures can be in any common unit. Assumes Poisson counts.
/// `None` for exposures or a ratio that are not positive. Source: Przyborowski, Wilenski, Biometrika 1940.
pub fn poisson_ratio(canary: (u64, f64), control: (u64, f64), ratio: f64, alternative: Alternative) -> Option<f64> {
    let p = ratio * canary.1 / (ratio * canary.1 + control.1);
    let n = canary.0.checked_add(control.0)?;
    let positive = canary.1 > 0.0 && control.1 > 0.0 && ratio > 0.0;
    if positive { binomial_test(canary.0, n, p, alternative) } else { None }
}
