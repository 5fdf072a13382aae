//! Distributions that simulated values follow, as tables of a few thousand cells.

use serin_statistics::laws::{normal_isf, normal_sf};

use crate::usual::SIGMA;

/// Number of cells in a table of values.
const CELLS: usize = 4096;
/// The table of normal scores is truncated at plus and minus this z-score.
const REACH: f64 = 5.0;

/// How answers are distributed.
#[derive(Clone, Debug)]
pub enum Law {
    /// The condition is true for this share of the answers.
    Rate(f64),
    /// Values in the form that a summary takes, with weights on any scale. For a mix of classes the values are class indices
    /// from 0. For pairs, 1 is a disagreement.
    Values {
        /// The possible values.
        values: Vec<f64>,
        /// One weight per value.
        weights: Vec<f64>,
    },
}

/// A Poisson distribution of events per answer.
pub(crate) fn poisson(mean: f64) -> Law {
    let most = (mean + 12.0 * mean.sqrt() + 12.0).ceil() as usize;
    let mut weight = (-mean).exp();
    let weights: Vec<f64> = (1..=most)
        .map(|next| {
            let own = weight;
            weight *= mean / next as f64;
            own
        })
        .collect();
    Law::Values { values: (0..most).map(|events| events as f64).collect(), weights }
}

/// A beta distribution with this mean and this `a + b`.
pub(crate) fn beta(mean: f64, concentration: f64) -> Law {
    let (a, b) = (concentration * mean, concentration * (1.0 - mean));
    let values: Vec<f64> = (0..CELLS).map(|cell| (cell as f64 + 0.5) / CELLS as f64).collect();
    let ln: Vec<f64> = values.iter().map(|x| (a - 1.0) * x.ln() + (b - 1.0) * (1.0 - x).ln()).collect();
    let largest = ln.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let weights: Vec<f64> = ln.iter().map(|ln| (ln - largest).exp()).collect();
    // With a mean near 0 or 1, most of the weight is in the first or last cell, so the mean of the cells is off. Rescaling the values
    // corrects it.
    let seen = values.iter().zip(&weights).map(|(x, weight)| x * weight).sum::<f64>() / weights.iter().sum::<f64>();
    let right = |x: f64| if mean > 0.5 { 1.0 - (1.0 - x) * (1.0 - mean) / (1.0 - seen) } else { x * mean / seen };
    let values = values.iter().map(|x| right(*x).clamp(0.0, 1.0)).collect();
    Law::Values { values, weights }
}

/// A log-normal distribution whose `level`-quantile is `at`. `slow`: the share of answers that are slow, and how many times
/// longer they take.
pub(crate) fn log_normal(level: f64, at: f64, slow: Option<(f64, f64)>) -> Law {
    let z_level = normal_isf(1.0 - level);
    let width = 2.0 * REACH / CELLS as f64;
    let scores: Vec<f64> = (0..CELLS).map(|cell| (cell as f64 + 0.5) * width - REACH).collect();
    let quick = scores.iter().map(|z| at * (SIGMA * (z - z_level)).exp());
    let weights = scores.iter().map(|z| (-0.5 * z * z).exp());
    let Some((share, factor)) = slow else {
        return Law::Values { values: quick.collect(), weights: weights.collect() };
    };
    let values = quick.clone().chain(quick.map(|value| value * factor)).collect();
    let weights = weights.clone().map(|w| w * (1.0 - share)).chain(weights.map(|w| w * share)).collect();
    Law::Values { values, weights }
}

/// How many times longer a slow share must take for the quantile to grow by `growth`.
pub(crate) fn slow_factor(level: f64, growth: f64, share: f64) -> f64 {
    let score = normal_isf(1.0 - level) + growth.ln() / SIGMA;
    let above = |factor: f64| {
        let slow = normal_sf(score - factor.ln() / SIGMA);
        (1.0 - share) * normal_sf(score) + share * slow
    };
    let (mut low, mut high) = (1.0, 1e6);
    for _ in 0..200 {
        let middle = f64::midpoint(low, high);
        if above(middle) < 1.0 - level { low = middle } else { high = middle }
    }
    f64::midpoint(low, high)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cells(law: &Law) -> Vec<(f64, f64)> {
        let Law::Values { values, weights } = law else { panic!("values") };
        let all: f64 = weights.iter().sum();
        let mut cells: Vec<(f64, f64)> =
            values.iter().copied().zip(weights.iter().map(|weight| weight / all)).collect();
        cells.sort_by(|a, b| a.0.total_cmp(&b.0));
        cells
    }

    fn quantile(law: &Law, level: f64) -> f64 {
        let mut below = 0.0;
        let cells = cells(law);
        let reaches = |&(value, share): &(f64, f64)| {
            below += share;
            (below >= level).then_some(value)
        };
        cells.iter().find_map(reaches).unwrap_or(f64::NAN)
    }

    #[test]
    fn a_mean_is_the_requested_one() {
        for mean in [0.05, 0.5, 0.8, 0.97] {
            let seen: f64 = cells(&beta(mean, 10.0)).iter().map(|(value, share)| value * share).sum();
            assert!((seen - mean).abs() < 1e-3, "{mean}: {seen}");
        }
        let seen: f64 = cells(&poisson(0.3)).iter().map(|(value, share)| value * share).sum();
        assert!((seen - 0.3).abs() < 1e-6, "{seen}");
    }

    #[test]
    fn a_quantile_is_the_requested_one_by_scaling_and_by_a_slow_path() {
        let p99 = |law: &Law| quantile(law, 0.99);
        assert!((p99(&log_normal(0.99, 100.0, None)) / 100.0 - 1.0).abs() < 0.02);
        let factor = slow_factor(0.99, 1.5, 0.03);
        assert!((p99(&log_normal(0.99, 100.0, Some((0.03, factor)))) / 150.0 - 1.0).abs() < 0.02, "{factor}");
    }
}
