//! The distribution of the time until there is enough evidence, around its mean.
//!
//! The logarithm of an e-process that bets on the truth is, over many answers, a Brownian motion with drift `g` and variance
//! `2 g` per answer. Its first passage through `nats` is inverse Gaussian with mean `m = nats / g` and shape `nats m / 2`.
//! So its distribution in multiples of the mean depends only on `nats`. Source: Chhikara and Folks (1989), The Inverse
//! Gaussian Distribution, section 2; the variance `2 g` is that of a Gaussian likelihood ratio.

use crate::numeric::{bisect, exp, is_inner, normal_sf, sqrt};

/// Share of processes that have gathered `nats` (above 0) by `multiple` times the mean number of answers.
pub(super) fn share_by(multiple: f64, nats: f64) -> f64 {
    if multiple.is_nan() || multiple <= 0.0 {
        return 0.0;
    }
    let spread = sqrt(nats / (2.0 * multiple));
    let above = normal_sf(spread * (1.0 - multiple));
    let reflected = exp(nats) * normal_sf(spread * (1.0 + multiple));
    (above + reflected).clamp(0.0, 1.0)
}

/// The multiple of the mean number of answers by which this share of processes has gathered `nats`. `None` unless the share
/// is strictly between 0 and 1.
pub(super) fn multiple_for(share: f64, nats: f64) -> Option<f64> {
    const MOST: f64 = 1e3;
    (is_inner(share) && share_by(MOST, nats) >= share).then(|| bisect(MOST, 0.0, |m| share_by(m, nats) >= share))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_distribution_is_inverse_gaussian() {
        // scipy.stats.invgauss.cdf(multiple, mu=1/shape, scale=shape), where shape = nats / 2.
        for (multiple, nats, expected) in
            [(1.0, 6.0, 0.607_313_2), (1.7, 6.0, 0.891_329_0), (0.5, 6.0, 0.158_457_4), (2.0, 3.0, 0.900_910_5)]
        {
            let share = share_by(multiple, nats);
            assert!((share - expected).abs() < 1e-6, "{multiple} {nats}: {share}");
        }
        assert!([0.0, f64::NAN].iter().all(|&multiple| share_by(multiple, 5.0) <= 0.0));
        assert!(share_by(1e6, 5.0) > 1.0 - 1e-9);
    }

    #[test]
    fn the_multiple_is_its_inverse() {
        for share in [0.01, 0.5, 0.9, 0.99] {
            let multiple = multiple_for(share, 6.1).unwrap();
            assert!((share_by(multiple, 6.1) - share).abs() < 1e-6, "{share}: {multiple}");
        }
        assert_eq!([multiple_for(0.0, 6.1), multiple_for(1.0, 6.1)], [None; 2]);
    }
}
