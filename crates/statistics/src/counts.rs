//! E-values for event counts and class counts: `p2` (Poisson), `c2` (classes), `srm` (traffic split).

use crate::numeric::{is_inner, ln, ln_1p, ln_sum_exp};

/// `p2`: `ln e` of one window against "the canary's rate per exposure is at most `null_ratio` times control's", betting
/// on `bet_ratio`. Given the total, `K_c ~ Binomial(K_c + K_s, R t_c / (R t_c + t_s))`, so a common intensity that varies
/// over time cancels. 0 if exposures or ratios are invalid. Source: Lindon, Malek, `NeurIPS` 2022 (arXiv 2011.03567).
pub fn poisson_ln_e(canary: (u64, f64), control: (u64, f64), null_ratio: f64, bet_ratio: f64) -> f64 {
    let share = |ratio: f64| ratio * canary.1 / (ratio * canary.1 + control.1);
    let (null, bet) = (share(null_ratio), share(bet_ratio));
    if !(canary.1 > 0.0 && control.1 > 0.0 && is_inner(null) && is_inner(bet)) {
        return 0.0;
    }
    canary.0 as f64 * ln(bet / null) + control.0 as f64 * ln((1.0 - bet) / (1.0 - null))
}

/// `p1`: `ln e` of one window of one arm against "at most `limit` events per exposure", betting on `bet`:
/// `k ln(bet/limit) - (bet - limit) t`, exact for Poisson counts. 0 if the exposure, limit or bet is invalid.
pub fn poisson_limit_ln_e(canary: (u64, f64), limit: f64, bet: f64) -> f64 {
    let positive = |x: f64| x > 0.0 && x.is_finite();
    if !(positive(canary.1) && positive(limit) && positive(bet)) {
        return 0.0;
    }
    canary.0 as f64 * ln(bet / limit) - (bet - limit) * canary.1
}

/// `c2` (homogeneity): `ln e` of one window against "both arms draw classes from the same distribution", betting on the
/// shares `bet_c`, `bet_s` chosen before the window: `sum_k [C_k ln(t_ck/t_0k) + S_k ln(t_sk/t_0k)]`,
/// `t_0 = (n_c t_c + n_s t_s)/n`. 0 if an arm is empty, lengths differ or a share is not positive.
pub fn classes_ln_e(canary: &[u64], control: &[u64], bet_c: &[f64], bet_s: &[f64]) -> f64 {
    let (n_c, n_s) = (canary.iter().sum::<u64>() as f64, control.iter().sum::<u64>() as f64);
    let len = canary.len();
    let positive = |bet: &[f64]| bet.len() == len && bet.iter().all(|&share| share > 0.0 && share <= 1.0);
    if n_c == 0.0 || n_s == 0.0 || control.len() != len || !positive(bet_c) || !positive(bet_s) {
        return 0.0;
    }
    let terms = canary.iter().zip(control).zip(bet_c.iter().zip(bet_s));
    terms.fold(0.0, |sum, ((&c, &s), (&t_c, &t_s))| {
        let t_0 = (n_c * t_c + n_s * t_s) / (n_c + n_s);
        let apart = (t_c - t_s) / ((n_c + n_s) * t_0);
        sum + c as f64 * ln_1p(n_s * apart) + s as f64 * ln_1p(-n_c * apart)
    })
}

/// Concentration of the prior around the configured weights in [`split_ln_e`].
pub const SPLIT_CONCENTRATION: f64 = 1000.0;

/// `srm`: `ln E` of the assignments of one step against the configured weights (any positive scale):
/// `lnGamma(A) - lnGamma(A+N) + sum_i [lnGamma(a_i+N_i) - lnGamma(a_i) - N_i ln rho_i]`, `a_i = concentration * rho_i`. The
/// counts are cumulative over the step, so this is the e-process itself. The rollout is held when it reaches `1/0.001`. 0 if
/// a weight is not positive or lengths differ.
pub fn split_ln_e(counts: &[u64], weights: &[f64], concentration: f64) -> f64 {
    let sum: f64 = weights.iter().sum();
    let positive = weights.iter().all(|&weight| weight > 0.0) && sum.is_finite() && concentration > 0.0;
    if counts.len() != weights.len() || counts.is_empty() || !positive {
        return 0.0;
    }
    let n = counts.iter().sum::<u64>() as f64;
    let start = libm::lgamma(concentration) - libm::lgamma(concentration + n);
    counts.iter().zip(weights).fold(start, |total, (&count, &weight)| {
        let (count, share) = (count as f64, weight / sum);
        let a = concentration * share;
        total + libm::lgamma(a + count) - libm::lgamma(a) - count * ln(share)
    })
}

/// The sample ratio per segment value: `[canary, control]` assignments of one step for each value of a segment, against
/// the configured weights of the arms. Returns the `ln` of the average of [`split_ln_e`] over all values, which is an
/// e-process, and the index of the value that contributes most to it, if any does. The list of values must not depend on
/// the counts; values without assignments have `E = 1`.
///
/// If every value splits as configured, both arms have the same mix of values. To test whether the mixes differ by more
/// than a margin, whatever the weights, use a hypothesis on [`crate::Measure::Classes`] with the values as classes.
pub fn splits_ln_e(values: &[[u64; 2]], weights: [f64; 2], concentration: f64) -> (f64, Option<usize>) {
    let ln_e: Vec<f64> = values.iter().map(|counts| split_ln_e(counts, &weights, concentration)).collect();
    let worst = (0..ln_e.len()).filter(|&i| ln_e[i] > 0.0).max_by(|&i, &j| ln_e[i].total_cmp(&ln_e[j]));
    let average = if ln_e.is_empty() { 0.0 } else { ln_sum_exp(ln_e.iter().copied()) - ln(ln_e.len() as f64) };
    (average, worst)
}

#[cfg(test)]
#[expect(clippy::float_cmp, reason = "no evidence is exactly zero")]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_split_is_seen_and_a_right_one_is_not() {
        assert!(split_ln_e(&[9_000, 91_000], &[0.1, 0.9], SPLIT_CONCENTRATION) > 6.9);
        assert!(split_ln_e(&[10_000, 90_000], &[0.1, 0.9], SPLIT_CONCENTRATION) < 0.0);
        assert_eq!(split_ln_e(&[0, 0], &[0.1, 0.9], SPLIT_CONCENTRATION), 0.0);
        assert_eq!(split_ln_e(&[1, 2], &[0.0, 1.0], SPLIT_CONCENTRATION), 0.0);
        assert_eq!(split_ln_e(&[1, 2], &[f64::NAN, 1.0], SPLIT_CONCENTRATION), 0.0);
    }

    #[test]
    fn one_value_with_a_wrong_split_is_named() {
        let right = [10_000, 90_000];
        let (ln_e, worst) = splits_ln_e(&[right, [900, 9_100], right, [0, 0]], [0.1, 0.9], SPLIT_CONCENTRATION);
        assert!(ln_e < 6.9 && worst == Some(1), "{ln_e}");
        let (ln_e, worst) = splits_ln_e(&[right, [8_000, 92_000], right, [0, 0]], [0.1, 0.9], SPLIT_CONCENTRATION);
        assert!(ln_e > 100.0 && worst == Some(1), "{ln_e}");
        assert_eq!(splits_ln_e(&[right; 3], [0.1, 0.9], SPLIT_CONCENTRATION).1, None);
        assert_eq!(splits_ln_e(&[], [0.1, 0.9], SPLIT_CONCENTRATION), (0.0, None));
        assert_eq!(splits_ln_e(&[right], [f64::NAN, 0.9], SPLIT_CONCENTRATION).0, 0.0);
    }

    #[test]
    fn invalid_input_adds_no_evidence() {
        assert_eq!(poisson_ln_e((5, 0.0), (5, 1.0), 1.0, 2.0), 0.0);
        assert_eq!(poisson_ln_e((5, f64::NAN), (5, 1.0), 1.0, 2.0), 0.0);
        assert_eq!(poisson_limit_ln_e((5, 0.0), 1.0, 2.0), 0.0);
        assert_eq!(poisson_limit_ln_e((5, 1.0), 1.0, f64::NAN), 0.0);
        assert!(poisson_limit_ln_e((20, 10.0), 1.0, 2.0) > 3.0 && poisson_limit_ln_e((10, 10.0), 1.0, 2.0) < 0.0);
        assert_eq!(classes_ln_e(&[1], &[1, 2], &[1.0], &[1.0]), 0.0);
        assert_eq!(classes_ln_e(&[1, 1], &[1, 2], &[0.0, 1.0], &[0.5, 0.5]), 0.0);
    }
}
