//! What earlier windows show about control, exponentially forgotten: the base of every bet.
//!
//! Only warm-up windows and windows before the current one enter, so that bets are *predictable*. Whatever they show, the
//! tests stay valid; they only lose power if the past is a poor guide.

use serde::{Deserialize, Serialize};
use serin_sketches::{Events, Rate, ZERO_KEY, upper_edge};

use crate::numeric::sqrt;
use crate::two_means::Grid;

/// Share of the past that is kept with each new window.
pub const FORGETTING: f64 = 0.98;
/// Share of the past that the fast memory keeps; see [`crate::Memory`].
pub const FAST_FORGETTING: f64 = 0.7;

/// Control's past rate: `K <- phi K + k`, `N <- phi N + n`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PastRate {
    k: f64,
    n: f64,
}

impl PastRate {
    /// Creates a past from forgotten counts.
    pub(crate) fn of(k: f64, n: f64) -> Self {
        Self { k, n }
    }

    /// Adds a window.
    pub fn push(&mut self, window: Rate, phi: f64) {
        self.k = phi * self.k + window.k() as f64;
        self.n = phi * self.n + window.n() as f64;
    }

    /// Adds a window of events per exposure.
    pub(crate) fn push_events(&mut self, window: Events, phi: f64) {
        self.k = phi * self.k + window.k() as f64;
        self.n = phi * self.n + window.exposure() as f64;
    }

    /// Forgotten number of trials (or exposure).
    pub fn n(&self) -> f64 {
        self.n
    }

    /// `(K + 0.5) / (N + 1)`: strictly between 0 and 1.
    pub fn b_hat(&self) -> f64 {
        (self.k + 0.5) / (self.n + 1.0)
    }
}

/// Control's past moments of values in [0, 1].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PastMean {
    n: f64,
    s1: f64,
    s2: f64,
    s3: f64,
}

impl PastMean {
    /// Adds a window.
    pub fn push(&mut self, window: &Grid, phi: f64) {
        let mut add = [0.0; 4];
        for &(x, count) in window {
            let mut term = count as f64;
            for sum in &mut add {
                *sum += term;
                term *= x;
            }
        }
        self.n = phi * self.n + add[0];
        self.s1 = phi * self.s1 + add[1];
        self.s2 = phi * self.s2 + add[2];
        self.s3 = phi * self.s3 + add[3];
    }

    /// Forgotten number of values.
    pub fn n(&self) -> f64 {
        self.n
    }

    /// `(S1 + 0.5) / (N + 1)`: strictly between 0 and 1.
    pub fn mean(&self) -> f64 {
        (self.s1 + 0.5) / (self.n + 1.0)
    }

    /// `S1 / N`, or 0 without values; for display.
    pub fn plain_mean(&self) -> f64 {
        if self.n > 0.0 { self.s1 / self.n } else { 0.0 }
    }

    /// Creates a past from sums of powers 0 to 3.
    fn of([n, s1, s2, s3]: [f64; 4]) -> Self {
        Self { n, s1, s2, s3 }
    }

    /// Variance around the mean, for values on any scale; 0 without values.
    pub(crate) fn spread(&self) -> f64 {
        if self.n <= 0.0 {
            return 0.0;
        }
        let mean = self.s1 / self.n;
        (self.s2 / self.n - mean * mean).max(0.0)
    }

    /// Variance around the mean; 1/4, the largest possible, without values.
    pub fn variance(&self) -> f64 {
        if self.n <= 0.0 {
            return 0.25;
        }
        let mean = self.s1 / self.n;
        (self.s2 / self.n - mean * mean).clamp(0.0, 0.25)
    }

    /// Square of the skewness; 0 if all values are equal.
    pub fn squared_skewness(&self) -> f64 {
        let variance = self.variance();
        if variance <= 1e-12 {
            return 0.0;
        }
        let mean = self.s1 / self.n;
        let third = self.s3 / self.n - 3.0 * mean * self.s2 / self.n + 2.0 * mean * mean * mean;
        third * third / (variance * variance * variance)
    }

    /// Standard deviation.
    pub fn sd(&self) -> f64 {
        sqrt(self.variance())
    }
}

/// Largest number of bins that are kept. The lowest bins fold into the lowest one that is kept.
const MAX_BINS: usize = 4096;

/// Control's past histogram over integer keys (log bins or linear grid points), with fractional weights.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(from = "StoredHist")]
pub struct PastHist {
    zeros: f64,
    first: i32,
    weights: Vec<f64>,
    /// Total weight from each bin upwards: computed once per window, used for every level.
    #[serde(skip)]
    from: Vec<f64>,
}

/// The persisted part of a [`PastHist`].
#[derive(Deserialize)]
struct StoredHist {
    zeros: f64,
    first: i32,
    weights: Vec<f64>,
}

impl From<StoredHist> for PastHist {
    fn from(StoredHist { zeros, first, weights }: StoredHist) -> Self {
        let mut hist = Self { zeros, first, weights, from: Vec::new() };
        hist.sum_up();
        hist
    }
}

impl PastHist {
    /// Adds a window.
    pub fn push(&mut self, window: impl IntoIterator<Item = (i32, u64)>, phi: f64) {
        self.zeros *= phi;
        for weight in &mut self.weights {
            *weight *= phi;
        }
        for (key, count) in window {
            if key == ZERO_KEY {
                self.zeros += count as f64;
            } else {
                *self.slot(key) += count as f64;
            }
        }
        self.fold();
        self.sum_up();
    }

    /// Sums from the top, so that the small weights of a tail are added before the large ones.
    fn sum_up(&mut self) {
        let mut sum = 0.0;
        self.from.clear();
        self.from.extend(self.weights.iter().rev().map(|weight| {
            sum += weight;
            sum
        }));
        self.from.reverse();
    }

    /// Forgotten number of values.
    pub fn n(&self) -> f64 {
        self.zeros + self.from.first().copied().unwrap_or(0.0)
    }

    /// The smallest bin at which the cumulative weight is at least `level` of the total; `None` without values.
    pub fn key_at(&self, level: f64) -> Option<i32> {
        let (n, target) = (self.n(), level * self.n());
        if self.weights.is_empty() || (self.zeros > 0.0 && self.zeros >= target) {
            return (self.zeros > 0.0).then_some(ZERO_KEY);
        }
        // `from[i]` is the weight above bin `i - 1`.
        let start = self.from[1..].partition_point(|above| n - above < target);
        let found = (start..self.weights.len()).find(|&at| self.weights[at] > 0.0);
        // Rounding may leave the sum slightly below the target for a level near 1.
        let found = found.or_else(|| self.weights.iter().rposition(|&weight| weight > 0.0));
        found.map(|at| self.first + at as i32)
    }

    /// Weight above a bin.
    pub fn above(&self, key: i32) -> f64 {
        let skip = i64::from(key) + 1 - i64::from(self.first);
        let skip = usize::try_from(skip.max(0)).unwrap_or(usize::MAX);
        self.from.get(skip).copied().unwrap_or(0.0)
    }

    /// `(weight above key + 0.5) / (N + 1)`: the past rate of exceedance, strictly between 0 and 1.
    pub fn tail(&self, key: i32) -> f64 {
        (self.above(key) + 0.5) / (self.n() + 1.0)
    }

    /// Moments of `min(x, cap) / cap`, taking each value as the upper edge of its bin.
    pub(crate) fn capped(&self, cap: f64) -> PastMean {
        let mut sums = [self.zeros, 0.0, 0.0, 0.0];
        for (key, &weight) in (self.first..).zip(&self.weights).filter(|(_, weight)| **weight > 0.0) {
            let (x, mut term) = ((upper_edge(key) / cap).min(1.0), weight);
            for sum in &mut sums {
                *sum += term;
                term *= x;
            }
        }
        PastMean::of(sums)
    }

    /// `(N + 0.5) / (N + 1)`: the past rate of an event that occurs with every value, strictly between 0 and 1.
    pub(crate) fn share_of_all(&self) -> f64 {
        (self.n() + 0.5) / (self.n() + 1.0)
    }

    fn slot(&mut self, key: i32) -> &mut f64 {
        if self.weights.is_empty() {
            self.first = key;
        }
        if key < self.first {
            self.weights.splice(0..0, std::iter::repeat_n(0.0, (self.first - key) as usize));
            self.first = key;
        }
        let index = (key - self.first) as usize;
        if index >= self.weights.len() {
            self.weights.resize(index + 1, 0.0);
        }
        &mut self.weights[index]
    }

    fn fold(&mut self) {
        let excess = self.weights.len().saturating_sub(MAX_BINS);
        if excess > 0 {
            let folded: f64 = self.weights.drain(..excess).sum();
            self.first += excess as i32;
            self.weights[0] += folded;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serin_sketches::{LogHist, key_of};

    fn hist(values: &[f64]) -> LogHist {
        let mut hist = LogHist::new();
        for &value in values {
            hist.insert(value).unwrap();
        }
        hist
    }

    #[test]
    fn without_forgetting_it_is_the_histogram() {
        let mut past = PastHist::default();
        assert_eq!(past.key_at(0.5), None);
        past.push(hist(&[5.0, 1.0, 0.0]).iter(), 1.0);
        past.push(hist(&[100.0, 0.01]).iter(), 1.0);
        assert_eq!(past.n().to_bits(), 5.0_f64.to_bits());
        assert_eq!(past.key_at(0.0), Some(ZERO_KEY));
        assert_eq!(past.key_at(0.5), key_of(1.0));
        assert_eq!(past.key_at(1.0), key_of(100.0));
        assert_eq!(past.above(ZERO_KEY).to_bits(), 4.0_f64.to_bits());
        assert_eq!(past.above(key_of(1.0).unwrap()).to_bits(), 2.0_f64.to_bits());
        assert!(past.tail(i32::MAX) > 0.0);
    }

    #[test]
    fn absurd_spans_stay_bounded() {
        let mut past = PastHist::default();
        for value in [1e-300, 1.0, 1e300, 5e-324, f64::MAX] {
            past.push(hist(&[value]).iter(), 0.98);
        }
        assert!(past.weights.len() <= MAX_BINS);
        assert!(upper_edge(past.key_at(0.99).unwrap()) > 1e299);
    }
}
