//! The variance of single observations, with which the design effect of clustered units compares the variance of bucket sums.
//!
//! A design effect is the variance of an arm's mean over hash buckets of units ([`crate::Buckets`]), divided by the variance
//! for the same number of independent observations. Both need one number per observation, the same on both sides. 0/1
//! outcomes, values of means and numbers of events are used as they are. A positive quantity is represented by its logarithm
//! ([`log_position`]), because quantiles depend on ranks and one huge value must not hide the rest. A class is represented
//! by a fixed pseudo-random number ([`class_position`]), so that a preference of some units for any class changes the sums.

use crate::hash::Salt;
use crate::{LIN_CELLS, Summary, lower_edge, upper_edge};

/// Position of a positive quantity: `ln(1 + value)`.
pub fn log_position(value: f64) -> f64 {
    libm::log1p(value.max(0.0))
}

/// Position of a class: a number in [0, 1) that depends only on the name of the class.
pub fn class_position(class: &str) -> f64 {
    (Salt::new(b"serin.class.position").hash(class.as_bytes()) >> 11) as f64 / (1_u64 << 53) as f64
}

/// Number, sum and sum of squares of the positions of observations.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Scatter {
    /// Number of observations.
    pub n: f64,
    /// Sum of the positions.
    pub sum: f64,
    /// Sum of the squared positions.
    pub squares: f64,
}

impl Scatter {
    /// The moments of the observations in a summary. For a log histogram they are accurate to the width of a bin.
    /// [`crate::Events`] and pairs do not keep single observations, so they give no moments.
    pub fn of(summary: &Summary) -> Self {
        let mut scatter = Self::default();
        match summary {
            Summary::Rate(rate) => {
                let (n, k) = (rate.n() as f64, rate.k() as f64);
                scatter = Self { n, sum: k, squares: k };
            }
            Summary::Lin(hist) => {
                hist.iter().for_each(|(point, count)| scatter.add(f64::from(point) / f64::from(LIN_CELLS), count));
            }
            Summary::Capped(hist) => hist.iter().for_each(|(place, count)| scatter.add(place, count)),
            Summary::Log(hist) => hist.iter().for_each(|(key, count)| {
                scatter.add(log_position(f64::midpoint(lower_edge(key), upper_edge(key))), count);
            }),
            Summary::Classes(counts) => {
                counts.iter().for_each(|(class, count)| scatter.add(class_position(class), count));
                scatter.add(0.5, counts.other());
            }
            Summary::Moments(_) | Summary::Buckets(_) | Summary::Events(_) | Summary::Pairs(_) | Summary::ByUnit(_) => {
            }
        }
        scatter
    }

    fn add(&mut self, place: f64, count: u64) {
        let count = count as f64;
        self.n += count;
        self.sum += count * place;
        self.squares += count * place * place;
    }

    /// Adds the moments of `other`.
    pub fn merge(&mut self, other: Self) {
        self.n += other.n;
        self.sum += other.sum;
        self.squares += other.squares;
    }

    /// Variance of a single observation; `None` without observations.
    pub fn variance(self) -> Option<f64> {
        let mean = self.sum / self.n;
        (self.n > 0.0).then(|| (self.squares / self.n - mean * mean).max(0.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ClassCounts, Events, LinHist, LogHist, Rate};

    #[test]
    fn each_kind_gives_the_variance_of_its_observations() {
        let near = |summary: &Summary, want: f64, within: f64| {
            let found = Scatter::of(summary).variance().unwrap_or(f64::NAN);
            assert!((found - want).abs() <= within * want, "{found} {want}");
        };
        near(&Summary::Rate(Rate::new(10, 3).unwrap_or_default()), 0.21, 1e-12);
        let mut lin = LinHist::new();
        let mut log = LogHist::new();
        let mut classes = ClassCounts::default();
        for value in 0..1000_u32 {
            lin.insert(f64::from(value) / 1000.0, u64::from(value) << 54).unwrap_or_default();
            log.insert(f64::from(value % 2) * 99.0 + 1.0).unwrap_or_default();
            classes.insert(if value % 2 == 0 { "a" } else { "b" }).unwrap_or_default();
        }
        near(&Summary::Lin(lin), 1.0 / 12.0, 0.01);
        let apart = log_position(100.0) - log_position(1.0);
        near(&Summary::Log(log), apart * apart / 4.0, 0.02);
        let apart = class_position("a") - class_position("b");
        near(&Summary::Classes(classes), apart * apart / 4.0, 1e-9);
        assert_eq!(Scatter::of(&Summary::Events(Events::default())).variance(), None);
    }

    #[test]
    fn sums_add() {
        let rate = |n, k| Scatter::of(&Summary::Rate(Rate::new(n, k).unwrap_or_default()));
        let mut sum = rate(10, 3);
        sum.merge(rate(30, 4));
        assert_eq!(sum, rate(40, 7));
    }
}
