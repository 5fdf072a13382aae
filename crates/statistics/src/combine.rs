//! Combining many hypotheses into one rollback decision: budget weights, the weighted average, attribution.

use crate::numeric::{ln, ln_or_zero, ln_sum_exp};

/// The scope of a hypothesis, which determines its share of the rollback budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// An overall metric or a trigger.
    Overall,
    /// A metric in one segment.
    Segment,
}

/// Weights of the rollback budget, fixed before the rollout. Overall metrics and triggers get one half, segments get the other half, and
/// each half is divided in proportion to the given shares (equal by default, double for a hard gate). If one scope is absent, the other
/// gets everything. Shares that are not positive numbers get nothing. The weights sum to 1, or to 0 if there is no positive share.
pub fn rollback_weights(hypotheses: &[(Scope, f64)]) -> Vec<f64> {
    let usable = |share: f64| if share > 0.0 && share.is_finite() { share } else { 0.0 };
    let sum = |scope| -> f64 { hypotheses.iter().filter(|h| h.0 == scope).map(|h| usable(h.1)).sum() };
    let (overall, segments) = (sum(Scope::Overall), sum(Scope::Segment));
    let part = if overall > 0.0 && segments > 0.0 { 0.5 } else { 1.0 };
    let weight = |&(scope, share): &(Scope, f64)| {
        let total = if scope == Scope::Overall { overall } else { segments };
        if usable(share) > 0.0 { part * share / total } else { 0.0 }
    };
    hypotheses.iter().map(weight).collect()
}

/// `ln sum_i w_i E_i` over `(w_i, ln E_i)`: an e-process under any dependence. Use current values, because averages of
/// running maxima are not valid. Weights must sum to at most 1.
pub fn ln_weighted_average(hypotheses: &[(f64, f64)]) -> f64 {
    ln_sum_exp(hypotheses.iter().map(|&(weight, ln_e)| ln_or_zero(weight) + ln_e))
}

/// `ln E` of a group of metrics from its members' `(weight, ln E)`: their average, with weights on any scale. It is an e-process if the
/// members are. Members whose weight is not a positive number are ignored; 0 (no evidence) if no member remains.
pub fn group_ln_e(members: &[(f64, f64)]) -> f64 {
    let usable = |weight: f64| weight > 0.0 && weight.is_finite();
    let total: f64 = members.iter().map(|member| member.0).filter(|&weight| usable(weight)).sum();
    if !usable(total) {
        return 0.0;
    }
    let members = members.iter().filter(|member| usable(member.0));
    ln_sum_exp(members.map(|&(weight, ln_e)| ln(weight / total) + ln_e))
}

/// Whether to report "stable is out of date": at least two metrics are better (`Effect::better`), and at least half of the judged ones.
///
/// Each `better` is wrong with probability at most `alpha / 2` over the whole rollout, where `alpha` is the error rate of its interval.
/// If the canary is better in none of `m` metrics, the expected number of wrong ones is at most `m alpha / 2`. By Markov's inequality the
/// report is then wrong with probability at most `alpha`, whatever the dependence between metrics.
pub fn stable_is_out_of_date(better: usize, judged: usize) -> bool {
    better >= 2 && 2 * better >= judged
}

/// Whether an e-value rejects its null at level `alpha`: `E >= 1/alpha`.
pub fn rejects(ln_e: f64, alpha: f64) -> bool {
    ln_e >= -ln(alpha)
}

/// Weighted Holm on anytime p-values `(w_i, p_i)`: which hypotheses are rejected. The set only grows over time, and the
/// probability that it ever contains a true null is at most `alpha`. A hypothesis of weight 0 is never rejected.
pub fn weighted_holm(hypotheses: &[(f64, f64)], alpha: f64) -> Vec<bool> {
    let adjusted = weighted_holm_adjusted(hypotheses);
    hypotheses.iter().zip(adjusted).map(|(&(weight, _), p)| weight > 0.0 && p <= alpha).collect()
}

/// Adjusted p-values of the weighted Holm procedure. A hypothesis is rejected at level `alpha` exactly if its adjusted
/// p-value is at most `alpha`.
pub fn weighted_holm_adjusted(hypotheses: &[(f64, f64)]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..hypotheses.len()).filter(|&i| hypotheses[i].0 > 0.0).collect();
    let ratio = |i: usize| hypotheses[i].1 / hypotheses[i].0;
    // Ties keep the given order.
    order.sort_by(|&i, &j| ratio(i).total_cmp(&ratio(j)));
    let mut left: f64 = order.iter().map(|&i| hypotheses[i].0).sum();
    let mut adjusted = vec![1.0; hypotheses.len()];
    let mut floor: f64 = 0.0;
    for i in order {
        floor = floor.max((ratio(i) * left).min(1.0));
        adjusted[i] = if floor.is_nan() { 1.0 } else { floor };
        left = (left - hypotheses[i].0).max(0.0);
    }
    adjusted
}

/// Adjusted p-values of Benjamini and Hochberg, for the display of lists only (they need positive dependence).
pub fn bh_adjusted(p: &[f64]) -> Vec<f64> {
    bh_scaled(p, 1.0)
}

fn bh_scaled(p: &[f64], factor: f64) -> Vec<f64> {
    let mut order: Vec<usize> = (0..p.len()).collect();
    order.sort_by(|&i, &j| p[i].total_cmp(&p[j]));
    let mut adjusted = vec![1.0; p.len()];
    let mut ceiling: f64 = 1.0;
    for (rank, &i) in order.iter().enumerate().rev() {
        ceiling = ceiling.min(factor * p[i] * p.len() as f64 / (rank + 1) as f64);
        adjusted[i] = ceiling;
    }
    adjusted
}

/// Adjusted p-values of Benjamini and Yekutieli: those of [`bh_adjusted`] times `1 + 1/2 + ... + 1/n`, valid under any dependence.
pub fn by_adjusted(p: &[f64]) -> Vec<f64> {
    let harmonic: f64 = (1..=p.len()).map(|k| 1.0 / k as f64).sum();
    bh_scaled(p, harmonic)
}

/// e-BH on current e-values: rejects the `k` largest with `E_(k) >= K / (alpha k)`, with a false discovery rate of at
/// most `alpha` at any stopping time. Used for lists of suspects. Source: Wang, Ramdas, JRSSB 2022 (arXiv 2009.02824).
pub fn e_bh(ln_e: &[f64], alpha: f64) -> Vec<bool> {
    let mut order: Vec<usize> = (0..ln_e.len()).collect();
    order.sort_by(|&i, &j| ln_e[j].total_cmp(&ln_e[i]));
    let enough = |k: usize| ln_e[order[k - 1]] >= ln(ln_e.len() as f64 / (alpha * k as f64)) - 1e-12;
    let count = (1..=order.len()).rev().find(|&k| enough(k)).unwrap_or(0);
    let mut rejected = vec![false; ln_e.len()];
    for &i in &order[..count] {
        rejected[i] = true;
    }
    rejected
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_budget_is_split_in_halves() {
        use Scope::{Overall, Segment};
        let weights =
            rollback_weights(&[(Overall, 2.0), (Overall, 1.0), (Overall, 1.0), (Segment, 1.0), (Segment, 1.0)]);
        assert_eq!(weights, [0.25, 0.125, 0.125, 0.25, 0.25]);
        assert_eq!(rollback_weights(&[(Overall, 1.0), (Overall, 1.0)]), [0.5, 0.5]);
        assert_eq!(rollback_weights(&[(Segment, 1.0), (Overall, f64::NAN)]), [1.0, 0.0]);
        assert!(rollback_weights(&[]).is_empty());
    }

    #[test]
    fn one_strong_hypothesis_is_enough() {
        let ln_e = ln_weighted_average(&[(0.01, 20.0), (0.5, -50.0), (0.49, 0.0), (0.0, 1e6)]);
        assert!(rejects(ln_e, 0.01) && ln_e < 20.0);
        assert!(!rejects(ln_weighted_average(&[]), 0.01));
    }

    #[test]
    fn holm_gives_the_weight_of_the_rejected_to_the_others() {
        // Plain Holm with two hypotheses: 0.02 <= 0.05/2, then 0.04 <= 0.05.
        assert_eq!(weighted_holm(&[(0.5, 0.04), (0.5, 0.02)], 0.05), [true, true]);
        assert_eq!(weighted_holm(&[(0.5, 0.04), (0.5, 0.03)], 0.05), [false, false]);
        assert_eq!(weighted_holm(&[(0.9, 0.04), (0.1, 0.2), (0.0, 0.0)], 0.05), [true, false, false]);
        assert_eq!(weighted_holm(&[(1.0, f64::NAN)], 0.05), [false]);
    }
}
