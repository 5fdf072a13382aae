//! Intervals for reports that hold at every look. They never decide; e-processes do.
//!
//! [`Stratified`] pools the difference of two arms over windows with a normal mixture (asymptotic). [`quantile_ranks`] and
//! [`rate_interval`] use the exact sub-Bernoulli (beta-binomial) mixture. Sources: Howard, Ramdas, `McAuliffe`, Sekhon,
//! `AoS` 2021 (arXiv 1810.08240); Howard, Ramdas, Bernoulli 2022 (1906.09712).

use serde::{Deserialize, Serialize};

use crate::laws::beta_cdf;
use crate::numeric::{bisect, is_inner, ln, ln_1p, ln_beta, ln_scaled_normal_cdf, sqrt};

/// The scale `r` of the mixture that is tightest at variance (information) `v_opt`.
pub fn mixture_scale(v_opt: f64, alpha_opt: f64, one_sided: bool) -> f64 {
    let l = -ln(if one_sided { 2.0 * alpha_opt } else { alpha_opt });
    v_opt / (2.0 * l + ln_1p(2.0 * l))
}

/// `ln E` of the normal mixture for a sum `s` with variance `v`. One-sided, `E` grows only with positive `s`.
pub fn normal_mixture_ln_e(s: f64, v: f64, r: f64, one_sided: bool) -> f64 {
    let spread = 0.5 * ln(r / (v + r));
    if one_sided { spread + ln(2.0) + ln_scaled_normal_cdf(s / sqrt(v + r)) } else { spread + s * s / (2.0 * (v + r)) }
}

/// The boundary of the sum beyond which `ln E >= ln(1/alpha)`.
pub fn normal_mixture_bound(v: f64, alpha: f64, r: f64, one_sided: bool) -> f64 {
    if one_sided {
        let outside = normal_mixture_bound(v, alpha / 2.0, r, false) + sqrt(v + r);
        bisect(0.0, outside, |s| normal_mixture_ln_e(s, v, r, true) < -ln(alpha))
    } else {
        sqrt((v + r) * (ln_1p(v / r) - 2.0 * ln(alpha)))
    }
}

/// A difference of means, stratified by window and weighted by information (the inverse of the variance).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Stratified {
    weighted: f64,
    information: f64,
    first: Option<f64>,
}

impl Stratified {
    /// Adds the difference of one window and its variance. The variance must come from earlier windows.
    pub fn push(&mut self, difference: f64, variance: f64) {
        if difference.is_finite() && variance > 0.0 && variance.is_finite() {
            self.weighted += difference / variance;
            self.information += 1.0 / variance;
            self.first.get_or_insert(1.0 / variance);
        }
    }

    /// The pooled difference.
    pub fn value(&self) -> Option<f64> {
        (self.information > 0.0).then(|| self.weighted / self.information)
    }

    /// Two-sided interval at level `1 - alpha`, tightest after half of `horizon` windows that resemble the first one.
    pub fn interval(&self, alpha: f64, horizon: u32) -> Option<(f64, f64)> {
        let (value, first) = (self.value()?, self.first?);
        let r = mixture_scale(first * 0.5 * f64::from(horizon.max(2)), alpha, false);
        let radius = normal_mixture_bound(self.information, alpha, r, false) / self.information;
        radius.is_finite().then_some((value - radius, value + radius))
    }
}

/// Parameters of the sub-Bernoulli mixture. Increments are in `[-g, h]`.
#[derive(Clone, Copy, Debug)]
struct BetaBinomial {
    g: f64,
    h: f64,
    r: f64,
    one_sided: bool,
}

impl BetaBinomial {
    fn new(g: f64, h: f64, v_opt: f64, alpha_opt: f64, one_sided: bool) -> Self {
        let r = mixture_scale(v_opt, alpha_opt, one_sided) - g * h;
        Self { g, h, r: r.max(1e-3 * g * h), one_sided }
    }

    /// `ln M` at sum `s` and variance process `v`; `s` in `[-v/h, v/g]`. One-sided, the mixture covers only positive drifts,
    /// so its beta functions are incomplete, up to `h/(g+h)`.
    fn ln_e(self, s: f64, v: f64) -> f64 {
        let Self { g, h, r, .. } = self;
        let (over_g, over_h) = (g * (g + h), h * (g + h));
        v / (g * h) * ln(g + h) - (v + h * s) / over_h * ln(g) - (v - g * s) / over_g * ln(h)
            + ln_beta((r + v - g * s) / over_g, (r + v + h * s) / over_h)
            - ln_beta(r / over_g, r / over_h)
            + if self.one_sided { self.ln_share((r + v - g * s) / over_g, (r + v + h * s) / over_h) } else { 0.0 }
    }

    /// `ln I_x(a, b)` minus its value at the start, for `x = h/(g+h)`.
    fn ln_share(self, a: f64, b: f64) -> f64 {
        let Self { g, h, r, .. } = self;
        let x = h / (g + h);
        ln(beta_cdf(x, a, b) / beta_cdf(x, r / (g * (g + h)), r / (h * (g + h))))
    }

    fn bound(self, v: f64, alpha: f64) -> f64 {
        let most = v / self.g;
        if self.ln_e(most, v) < -ln(alpha) {
            return most;
        }
        bisect(0.0, most, |s| self.ln_e(s, v) < -ln(alpha))
    }
}

/// Upper boundary of a sum of increments in `[-g, h]` with variance process `v`, tightest at `v_opt` for `alpha_opt`. `one_sided`: uses
/// the mixture over positive drifts only, so that no error rate is spent on sums below 0. 0 if a parameter is out of range.
pub fn beta_binomial_bound(
    v: f64,
    alpha: f64,
    (v_opt, alpha_opt): (f64, f64),
    (g, h): (f64, f64),
    one_sided: bool,
) -> f64 {
    let most = if one_sided { 0.5 } else { 1.0 };
    let sensible = v > 0.0 && v_opt > 0.0 && g > 0.0 && h > 0.0 && is_inner(alpha) && alpha_opt > 0.0;
    if !(sensible && alpha_opt < most) {
        return 0.0;
    }
    BetaBinomial::new(g, h, v_opt, alpha_opt, one_sided).bound(v, alpha)
}

/// Interval for one rate that holds at every look, tightest after `t_opt` trials; `None` without trials.
pub fn rate_interval(k: u64, n: u64, alpha: f64, t_opt: f64) -> Option<(f64, f64)> {
    rate_interval_tuned(k, n, alpha, (t_opt, alpha))
}

/// Like [`rate_interval`], but tightest after `t_opt` trials for an interval of level `1 - alpha_opt` instead of `1 - alpha`.
pub fn rate_interval_tuned(k: u64, n: u64, alpha: f64, (t_opt, alpha_opt): (f64, f64)) -> Option<(f64, f64)> {
    if k > n { None } else { rate_interval_at(k as f64 / n as f64, n as f64, alpha, (t_opt, alpha_opt)) }
}

/// [`rate_interval`] for a share observed in trials that are worth `n` independent ones.
pub(crate) fn rate_interval_of(value: f64, n: f64, alpha: f64, t_opt: f64) -> Option<(f64, f64)> {
    rate_interval_at(value, n, alpha, (t_opt, alpha))
}

fn rate_interval_at(value: f64, n: f64, alpha: f64, (t_opt, alpha_opt): (f64, f64)) -> Option<(f64, f64)> {
    let sensible = (0.0..=1.0).contains(&value) && is_inner(alpha) && t_opt > 0.0 && t_opt.is_finite();
    if !(n > 0.0 && sensible && is_inner(alpha_opt)) {
        return None;
    }
    let holds = |p: f64| {
        let variance = p * (1.0 - p);
        let mixture = BetaBinomial::new(p, 1.0 - p, variance * t_opt, alpha_opt, false);
        mixture.ln_e((value - p) * n, variance * n) < -ln(alpha)
    };
    let low = if value > 0.0 { bisect(value, 0.0, |p| p > 0.0 && (p >= value || holds(p))) } else { 0.0 };
    let high = if value < 1.0 { bisect(value, 1.0, |p| p < 1.0 && (p <= value || holds(p))) } else { 1.0 };
    Some((low, high))
}

/// Ranks (1-based) of the values between which the `level`-quantile is, at every look with confidence `1 - alpha`:
/// `[Q(p - u/n), Q(p + u/n)]`. An end is `None` if there are too few values to bound it.
pub fn quantile_ranks(n: u64, level: f64, alpha: f64, t_opt: f64) -> (Option<u64>, Option<u64>) {
    let size = n as f64;
    let (low, high) = quantile_levels(size, level, alpha, t_opt).unzip();
    let low = low.map(|low| low * size).filter(|&low| low >= 1.0).map(|low| low.floor() as u64);
    let high = high.map(|high| high * size).filter(|&high| high < size).map(|high| (high.floor() as u64 + 1).min(n));
    (low, high)
}

/// Levels of the sample quantiles between which the `level`-quantile is, for a sample that is worth `n` independent values.
/// The levels may be outside [0, 1].
pub(crate) fn quantile_levels(n: f64, level: f64, alpha: f64, t_opt: f64) -> Option<(f64, f64)> {
    if !(n > 0.0 && is_inner(level) && is_inner(alpha) && t_opt > 0.0 && t_opt.is_finite()) {
        return None;
    }
    let (g, h) = (level, 1.0 - level);
    let (v, v_opt) = (n * g * h, t_opt * g * h);
    let low = level - beta_binomial_bound(v, alpha, (v_opt, alpha), (h, g), false) / n;
    let high = level + beta_binomial_bound(v, alpha, (v_opt, alpha), (g, h), false) / n;
    Some((low, high))
}

/// Smallest number of values for [`ecdf_radius`].
const MIN_ECDF: f64 = 100.0;

/// Largest distance between a sample's distribution function and the true one, at every look from 100 values on with
/// confidence `1 - alpha`: `0.85 sqrt((ln(1 + ln(n/100)) + 0.8 ln(1612/alpha)) / n)`. `None` with fewer values.
/// Source: Howard, Ramdas, Bernoulli 2022, equation with explicit constants.
pub fn ecdf_radius(n: f64, alpha: f64) -> Option<f64> {
    let radius = || 0.85 * sqrt((ln_1p(ln(n / MIN_ECDF)) + 0.8 * ln(1612.0 / alpha)) / n);
    (n >= MIN_ECDF && n.is_finite() && is_inner(alpha)).then(radius)
}

#[cfg(test)]
#[expect(clippy::float_cmp, reason = "no evidence is exactly zero")]
mod tests {
    use super::*;

    #[test]
    fn the_stratified_interval_narrows_around_the_effect() {
        let mut effect = Stratified::default();
        assert_eq!(effect.interval(0.05, 60), None);
        effect.push(f64::NAN, 1.0);
        effect.push(1.0, 0.0);
        assert_eq!(effect.value(), None);
        for _ in 0..30 {
            effect.push(0.01, 1e-5);
        }
        let (low, high) = effect.interval(0.05, 60).unwrap();
        assert!(low > 0.007 && high < 0.013 && low < 0.01 && high > 0.01, "{low} {high}");
    }

    #[test]
    fn rates_at_the_ends_keep_their_end() {
        let (low, high) = rate_interval(0, 100, 0.05, 100.0).unwrap();
        assert!(low == 0.0 && high > 0.03 && high < 0.12, "{high}");
        let (low, high) = rate_interval(100, 100, 0.05, 100.0).unwrap();
        assert!(high == 1.0 && low < 0.97 && low > 0.88, "{low}");
        assert_eq!(rate_interval(0, 0, 0.05, 100.0), None);
        assert_eq!(rate_interval(5, 4, 0.05, 100.0), None);
    }

    #[test]
    fn ranks_surround_the_quantile() {
        let (low, high) = quantile_ranks(10_000, 0.5, 0.05, 10_000.0);
        assert!((4_700..5_000).contains(&low.unwrap()) && (5_001..5_300).contains(&high.unwrap()), "{low:?} {high:?}");
        let (low, high) = quantile_ranks(100, 0.99, 0.05, 1_000.0);
        assert!(low.is_some_and(|rank| rank < 99) && high.is_none(), "{low:?} {high:?}");
        assert_eq!(quantile_ranks(0, 0.5, 0.05, 100.0), (None, None));
        assert_eq!(quantile_ranks(10, f64::NAN, 0.05, 100.0), (None, None));
    }
}
