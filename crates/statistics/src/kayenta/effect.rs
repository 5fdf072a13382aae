//! Effect sizes as Kayenta computes them: point estimates without uncertainty.

use super::mann_whitney::rank_sum;
use super::prepare::{mean, summary};
use crate::numeric::sqrt;

/// Mean of the canary divided by the mean of the baseline; NaN if either is exactly 0 (or a side is empty).
pub fn mean_ratio(control: &[f64], experiment: &[f64]) -> f64 {
    let (below, above) = (mean(control), mean(experiment));
    if below == 0.0 || above == 0.0 { f64::NAN } else { above / below }
}

/// Common language effect size: the probability that a canary value exceeds a baseline value, with ties counted half:
/// `(2 R - m(m+1)) / (2 m n)`, where `R` is the rank sum of the `m` canary values (Vargha, Delaney 2000). NaN if a side is empty.
pub fn cles(control: &[f64], experiment: &[f64]) -> f64 {
    let (m, n) = (experiment.len() as f64, control.len() as f64);
    let (ranks, _) = rank_sum(experiment.iter().copied(), control);
    (2.0 * ranks - m * (m + 1.0)) / (2.0 * m * n)
}

/// Cohen's d: the distance between the means in pooled sample standard deviations, without sign. NaN or infinite if both
/// sides are constant.
pub fn cohen_d(control: &[f64], experiment: &[f64]) -> f64 {
    let (y, x) = (summary(control), summary(experiment));
    let (m, n) = (x.count as f64, y.count as f64);
    let pooled = sqrt(((m - 1.0) * x.std * x.std + (n - 1.0) * y.std * y.std) / (m + n - 2.0));
    (x.mean - y.mean).abs() / pooled
}
