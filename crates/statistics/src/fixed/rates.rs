//! Tests of two rates, and intervals for rates.

use serin_sketches::Rate;

use super::Alternative;
use crate::laws::{beta_quantile, normal_isf};
use crate::numeric::{bisect, is_inner, ln, sqrt};

/// The null hypothesis about the two rates.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum RateNull {
    /// `p_c - p_s = d`, with `d` in (-1, 1).
    Difference(f64),
    /// `p_c / p_s = R`, with `R` above 0.
    Ratio(f64),
}

/// How the variance under the null is estimated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RateMethod {
    /// Score test: rates estimated under the null by maximum likelihood. Farrington, Manning, Stat. Med. 1990.
    FarringtonManning,
    /// The same times `N / (N - 1)`. Miettinen, Nurminen, Stat. Med. 1985.
    MiettinenNurminen,
    /// The pooled rate for both arms: the textbook z-test, for a difference.
    Pooled,
    /// Each arm's own rate (Wald). For a ratio, the logarithms are compared.
    Unpooled,
}

/// A z-score (positive if the canary's rate is larger than under the null) and its p-value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ZTest {
    /// The z-score.
    pub z: f64,
    /// The p-value.
    pub p: f64,
}

/// Tests two rates against a difference or ratio: `z = (p_c - v p_s - c) / sqrt(V)` with `(v, c) = (1, d)` or `(R, 0)`.
///
/// Score methods take `V = p~_c (1-p~_c) / n_c + v^2 p~_s (1-p~_s) / n_s` at the maximum of the likelihood on the line `p_c = v p_s + c`.
/// For non-inferiority where lower is better, use the margin as `d` and [`Alternative::Less`]. Assumes independent answers and one look.
/// `None` if an arm is empty, the null is invalid, the method does not support it, or the variance is 0.
pub fn two_rates(
    canary: Rate,
    control: Rate,
    null: RateNull,
    method: RateMethod,
    alternative: Alternative,
) -> Option<ZTest> {
    let (p_c, p_s) = (canary.value()?, control.value()?);
    let (n_c, n_s) = (canary.n() as f64, control.n() as f64);
    let (v, c) = match null {
        RateNull::Difference(d) if d.abs() < 1.0 => (1.0, d),
        RateNull::Ratio(ratio) if ratio > 0.0 && ratio.is_finite() => (ratio, 0.0),
        _ => return None,
    };
    let spread = |a: f64, b: f64| a * (1.0 - a) / n_c + v * v * b * (1.0 - b) / n_s;
    let (distance, variance) = match (method, null) {
        (RateMethod::FarringtonManning | RateMethod::MiettinenNurminen, _) => {
            let (a, b) = constrained(canary, control, v, c);
            let n = n_c + n_s;
            let factor = if method == RateMethod::MiettinenNurminen { n / (n - 1.0) } else { 1.0 };
            (p_c - v * p_s - c, spread(a, b) * factor)
        }
        (RateMethod::Pooled, RateNull::Difference(_)) => {
            let pooled = (canary.k() as f64 + control.k() as f64) / (n_c + n_s);
            (p_c - p_s - c, spread(pooled, pooled))
        }
        (RateMethod::Unpooled, RateNull::Difference(_)) => (p_c - p_s - c, spread(p_c, p_s)),
        (RateMethod::Unpooled, RateNull::Ratio(ratio)) => {
            (ln(p_c / p_s / ratio), (1.0 - p_c) / (n_c * p_c) + (1.0 - p_s) / (n_s * p_s))
        }
        (RateMethod::Pooled, RateNull::Ratio(_)) => return None,
    };
    let z = distance / sqrt(variance);
    (variance > 0.0 && z.is_finite()).then(|| ZTest { z, p: alternative.p_of_z(z) })
}

/// The maximum of the likelihood on the line `a = v b + c`, where its decreasing derivative in `b` is 0.
fn constrained(canary: Rate, control: Rate, v: f64, c: f64) -> (f64, f64) {
    let parts = |rate: Rate| (rate.k() as f64, (rate.n() - rate.k()) as f64);
    let ((k_c, rest_c), (k_s, rest_s)) = (parts(canary), parts(control));
    let low = (-c / v).max(0.0);
    let high = ((1.0 - c) / v).min(1.0);
    // A count of 0 does not contribute, even at an end of the range.
    let pull = |count: f64, share: f64| if count > 0.0 { count / share } else { 0.0 };
    let rising = |b: f64| {
        let a = v * b + c;
        v * (pull(k_c, a) - pull(rest_c, 1.0 - a)) + pull(k_s, b) - pull(rest_s, 1.0 - b) > 0.0
    };
    let b = bisect(low, high, rising);
    ((v * b + c).clamp(0.0, 1.0), b)
}

/// `z` of a two-sided interval with this confidence.
fn two_sided_z(confidence: f64) -> Option<f64> {
    is_inner(confidence).then(|| normal_isf((1.0 - confidence) / 2.0))
}

/// Wilson's score interval for one rate: `(p + z^2/2n +- z sqrt(p(1-p)/n + z^2/4n^2)) / (1 + z^2/n)`. `None` without
/// answers or for a confidence outside (0, 1). Source: Wilson, JASA 1927.
pub fn wilson(rate: Rate, confidence: f64) -> Option<(f64, f64)> {
    let (p, n, z) = (rate.value()?, rate.n() as f64, two_sided_z(confidence)?);
    let scale = 1.0 + z * z / n;
    let center = (p + z * z / (2.0 * n)) / scale;
    let radius = z * sqrt(p * (1.0 - p) / n + z * z / (4.0 * n * n)) / scale;
    Some(((center - radius).max(0.0), (center + radius).min(1.0)))
}

/// The exact Clopper-Pearson interval for one rate, from quantiles of the beta distribution; conservative. `None` without
/// answers or for a confidence outside (0, 1). Source: Biometrika 1934.
pub fn clopper_pearson(rate: Rate, confidence: f64) -> Option<(f64, f64)> {
    if rate.n() == 0 || !is_inner(confidence) {
        return None;
    }
    let (k, rest, tail) = (rate.k() as f64, (rate.n() - rate.k()) as f64, (1.0 - confidence) / 2.0);
    let low = if k > 0.0 { beta_quantile(tail, k, rest + 1.0) } else { 0.0 };
    // Computed from the other side, so that the upper tail stays accurate.
    let high = if rest > 0.0 { 1.0 - beta_quantile(tail, rest, k + 1.0) } else { 1.0 };
    Some((low, high))
}

/// Newcombe's interval for the difference `p_c - p_s`, from the two Wilson intervals (method 10 of the paper). `None` if
/// an arm is empty or the confidence is outside (0, 1). Source: Stat. Med. 1998.
pub fn newcombe(canary: Rate, control: Rate, confidence: f64) -> Option<(f64, f64)> {
    let (p_c, p_s) = (canary.value()?, control.value()?);
    let ((low_c, high_c), (low_s, high_s)) = (wilson(canary, confidence)?, wilson(control, confidence)?);
    let down = sqrt((p_c - low_c) * (p_c - low_c) + (high_s - p_s) * (high_s - p_s));
    let up = sqrt((high_c - p_c) * (high_c - p_c) + (p_s - low_s) * (p_s - low_s));
    Some((p_c - p_s - down, p_c - p_s + up))
}
