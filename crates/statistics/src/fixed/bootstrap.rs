//! The bootstrap from a histogram, for display: the count of each bin is resampled from a Poisson distribution.
//!
//! Source: the Poisson bootstrap (Chamandy et al., Google, 2012); `Poisson(h_i)` per bin is `Poisson(1)` per value.

use crate::laws::beta_quantile;
use crate::numeric::{exp, is_inner, ln, sqrt};

/// Default number of replicates.
pub const BOOTSTRAP_REPLICATES: u32 = 2_000;

/// Largest number of replicates.
pub const MAX_REPLICATES: u32 = 100_000;

/// Replicates of a statistic of one or more histograms (bins as `(value, count)`, in any order). The count of every bin
/// is replaced by an independent draw from `Poisson(count)`. Bins whose draw is 0 stay in. Replicates for which the
/// statistic is `None` or not finite are left out. At most [`MAX_REPLICATES`] are made.
///
/// Equal seeds give equal replicates; derive the seed from what identifies the figure (rollout, metric, window). Use this
/// for smooth statistics (means, ratios); for quantiles use [`quantile_levels`], which needs no draws. For display only.
pub fn bootstrap(
    arms: &[&[(f64, u64)]],
    replicates: u32,
    seed: u64,
    statistic: impl Fn(&[Vec<(f64, u64)>]) -> Option<f64>,
) -> Vec<f64> {
    let mut random = SplitMix(seed);
    let mut draw = |&(value, count): &(f64, u64)| (value, random.poisson(count as f64));
    (0..replicates.min(MAX_REPLICATES))
        .filter_map(|_| {
            let drawn: Vec<Vec<(f64, u64)>> = arms.iter().map(|bins| bins.iter().map(&mut draw).collect()).collect();
            statistic(&drawn).filter(|value| value.is_finite())
        })
        .collect()
}

/// The interval between the `(1 -+ confidence)/2` percentiles of replicates (nearest rank, outwards). `None` without
/// replicates or for a confidence outside (0, 1).
pub fn percentile_interval(replicates: &[f64], confidence: f64) -> Option<(f64, f64)> {
    if replicates.is_empty() || !is_inner(confidence) || replicates.iter().any(|value| value.is_nan()) {
        return None;
    }
    let mut sorted = replicates.to_vec();
    sorted.sort_by(f64::total_cmp);
    let last = sorted.len() - 1;
    let reach = (1.0 - confidence) / 2.0 * last as f64;
    Some((sorted[reach.floor() as usize], sorted[last - reach.floor() as usize]))
}

/// The levels between which the bootstrap distribution of the `level`-quantile of `n` values is: quantiles of
/// `Beta(n p, n (1-p) + 1)`. The histogram's quantiles at these levels are the bootstrap interval, without resampling.
/// `None` without values or for a level or confidence outside (0, 1).
pub fn quantile_levels(n: u64, level: f64, confidence: f64) -> Option<(f64, f64)> {
    if n == 0 || !is_inner(level) || !is_inner(confidence) {
        return None;
    }
    let (a, b, tail) = (n as f64 * level, n as f64 * (1.0 - level) + 1.0, (1.0 - confidence) / 2.0);
    Some((beta_quantile(tail, a, b), beta_quantile(1.0 - tail, a, b)))
}

/// `SplitMix64`, a small generator that does not depend on other crates, so that equal seeds always give equal
/// replicates. Source: Steele, Lea, Flood, OOPSLA 2014.
struct SplitMix(u64);

impl SplitMix {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Uniform in (0, 1).
    fn unit(&mut self) -> f64 {
        ((self.next() >> 11) as f64 + 0.5) / (1_u64 << 53) as f64
    }

    /// A Poisson draw: by multiplication for small means, otherwise by transformed rejection (`PTRS`, Hörmann 1993).
    fn poisson(&mut self, mean: f64) -> u64 {
        if mean < 10.0 {
            let floor = exp(-mean);
            let (mut count, mut product) = (0, self.unit());
            while product > floor {
                product *= self.unit();
                count += 1;
            }
            return count;
        }
        let b = 0.931 + 2.53 * sqrt(mean);
        let a = -0.059 + 0.024_83 * b;
        let scale = 1.1239 + 1.1328 / (b - 3.4);
        let quick = 0.9277 - 3.6224 / (b - 2.0);
        loop {
            let (u, v) = (self.unit() - 0.5, self.unit());
            let us = 0.5 - u.abs();
            let k = ((2.0 * a / us + b) * u + mean + 0.43).floor();
            if us >= 0.07 && v <= quick {
                return k as u64;
            }
            if k < 0.0 || (us < 0.013 && v > us) {
                continue;
            }
            let log_mass = k * ln(mean) - mean - statrs::function::gamma::ln_gamma(k + 1.0);
            if ln(v * scale / (a / (us * us) + b)) <= log_mass {
                return k as u64;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mean(bins: &[(f64, u64)]) -> Option<f64> {
        let n: u64 = bins.iter().map(|bin| bin.1).sum();
        (n > 0).then(|| bins.iter().map(|&(value, count)| value * count as f64).sum::<f64>() / n as f64)
    }

    #[test]
    fn draws_have_the_mean_and_variance_of_their_distribution() {
        let mut random = SplitMix(7);
        for lambda in [0.0, 0.3, 4.0, 9.9, 10.0, 60.0, 1e4, 1e9] {
            let draws: Vec<f64> = (0..20_000).map(|_| random.poisson(lambda) as f64).collect();
            let mean = draws.iter().sum::<f64>() / 20_000.0;
            let variance = draws.iter().map(|draw| (draw - mean) * (draw - mean)).sum::<f64>() / 20_000.0;
            let error = (lambda / 20_000.0_f64).sqrt();
            assert!((mean - lambda).abs() <= 4.0 * error, "{lambda}: {mean}");
            assert!((variance - lambda).abs() <= 0.06 * lambda, "{lambda}: {variance}");
        }
    }

    #[test]
    fn the_interval_is_as_wide_as_the_normal_one_and_repeats() {
        let bins: Vec<(f64, u64)> = (0..100).map(|i| (f64::from(i), 100)).collect();
        let run = |seed| bootstrap(&[&bins], 2_000, seed, |arms| mean(&arms[0]));
        let (low, high) = percentile_interval(&run(1), 0.95).unwrap();
        // sd 28.9, 10 000 values.
        assert!(((high - low) / (2.0 * 1.96 * 0.2887) - 1.0).abs() < 0.1, "{low} {high}");
        assert!(low < 49.5 && high > 49.5);
        assert_eq!(run(1), run(1));
        assert_ne!(run(1), run(2));
    }

    #[test]
    fn quantile_levels_surround_the_level() {
        let (low, high) = quantile_levels(10_000, 0.99, 0.95).unwrap();
        assert!(low > 0.987 && low < 0.99 && high > 0.99 && high < 0.9925, "{low} {high}");
    }

    #[test]
    fn invalid_input_has_no_interval() {
        assert!(bootstrap(&[&[(1.0, 0)]], 10, 1, |arms| mean(&arms[0])).is_empty());
        assert!(bootstrap(&[], 10, 1, |_| Some(f64::NAN)).is_empty());
        assert_eq!(percentile_interval(&[], 0.95), None);
        assert_eq!(percentile_interval(&[1.0, f64::NAN], 0.95), None);
        assert_eq!(percentile_interval(&[1.0], 1.0), None);
        assert_eq!(quantile_levels(0, 0.5, 0.95), None);
        assert_eq!(quantile_levels(5, f64::NAN, 0.95), None);
    }
}
