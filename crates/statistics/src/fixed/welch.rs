//! Welch's test of two means, as a non-inferiority test.

use crate::laws::{t_isf, t_sf};
use crate::numeric::{is_inner, sqrt};
use crate::{Direction, Margin};

/// Moments of one arm: `n`, the mean, and the sum of squared distances from it, in the metric's unit.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Sample {
    n: f64,
    mean: f64,
    m2: f64,
}

impl Sample {
    /// Creates a sample from a mean and a standard deviation (with `n - 1`). `None` unless both are finite and `sd >= 0`.
    pub fn new(n: u64, mean: f64, sd: f64) -> Option<Self> {
        let m2 = sd * sd * (n as f64 - 1.0).max(0.0);
        (mean.is_finite() && sd >= 0.0 && m2.is_finite()).then_some(Self { n: n as f64, mean, m2 })
    }

    /// Both samples combined, by the formula of Chan, Golub and `LeVeque` (1979), which loses no digits.
    #[must_use]
    pub fn merge(self, other: Self) -> Self {
        let n = self.n + other.n;
        if n <= 0.0 {
            return self;
        }
        let gap = other.mean - self.mean;
        let m2 = self.m2 + other.m2 + gap * gap * self.n * other.n / n;
        Self { n, mean: self.mean + gap * other.n / n, m2 }
    }

    /// Number of values.
    pub fn n(self) -> f64 {
        self.n
    }

    /// Mean.
    pub fn mean(self) -> f64 {
        self.mean
    }

    /// Variance with `n - 1`; `None` for fewer than two values.
    pub fn variance(self) -> Option<f64> {
        (self.n >= 2.0).then(|| self.m2 / (self.n - 1.0))
    }
}

/// Welch's test of "the canary is worse than control by the margin or more".
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NonInferiority {
    /// `(g (m_c - v m_s) - d) / se`: negative within the margin.
    pub t: f64,
    /// Satterthwaite's degrees of freedom.
    pub df: f64,
    /// `P(T <= t)`: a small value shows that the canary is not worse by the margin.
    pub p_non_inferiority: f64,
    /// `P(T >= t)`: a small value shows that the canary is worse by the margin.
    pub p_inferiority: f64,
    /// One-sided upper bound of the harm beyond the margin, in the metric's unit; below 0 the canary is non-inferior.
    pub harm_beyond_margin_upper: f64,
}

/// Welch's non-inferiority test with an absolute margin `d` and a relative one `v = 1 + g r` (with both, they add up):
/// `t = (g (m_c - v m_s) - d) / sqrt(s_c^2/n_c + v^2 s_s^2/n_s)`.
///
/// `confidence` applies to the one-sided bound. Assumes independent answers, means that are approximately normal, and one
/// look. `None` for fewer than two values in an arm, values that do not vary at all, or a margin or confidence out of
/// range. Source: Welch, Biometrika 1947.
pub fn welch_non_inferiority(
    canary: Sample,
    control: Sample,
    direction: Direction,
    margin: Margin,
    confidence: f64,
) -> Option<NonInferiority> {
    margin.check(direction).ok()?;
    if !is_inner(confidence) {
        return None;
    }
    let g = direction.sign();
    let (v, d) = (1.0 + g * margin.relative.unwrap_or(0.0), margin.absolute.unwrap_or(0.0));
    let (part_c, part_s) = (canary.variance()? / canary.n, v * v * control.variance()? / control.n);
    let variance = part_c + part_s;
    let df = variance * variance / (part_c * part_c / (canary.n - 1.0) + part_s * part_s / (control.n - 1.0));
    let harm = g * (canary.mean - v * control.mean) - d;
    let se = sqrt(variance);
    let t = harm / se;
    (t.is_finite() && df > 0.0).then(|| NonInferiority {
        t,
        df,
        p_non_inferiority: t_sf(-t, df),
        p_inferiority: t_sf(t, df),
        harm_beyond_margin_upper: harm + t_isf(1.0 - confidence, df) * se,
    })
}
