//! Log histogram of non-negative values (latency, length, amount), with bins that are 2 % wide and exact counts at every edge.
//!
//! Bin `key` holds the values in `(GAMMA^(key-1), GAMMA^key]`, with `key = ceil(ln x / ln GAMMA)`. Zero has its own lowest
//! bin, [`ZERO_KEY`]. `GAMMA = 1.01 / 0.99`, so a bin's mid value is within 1 % of all its values. Counts above an edge are
//! exact integers, which the exceedance test of quantiles needs. Source: Masson, Rim, Lee, "`DDSketch`", VLDB 2019
//! (relative-error bins), with fixed bins and the lowest bins collapsed.

use crate::bins::{Bins, CAP};
use crate::log_key::{GAMMA, LN_GAMMA, key_of_positive};
use crate::varint::{Reader, put_u64};
use crate::{DecodeError, InsertError, MAX_COUNT, MergeError};

/// The bin of the value zero, below all other bins.
pub const ZERO_KEY: i32 = i32::MIN;

/// Bound on the absolute key of any finite positive `f64`.
pub(crate) const KEY_LIMIT: i32 = 40_000;

/// Bin of a positive finite value. Zero gives [`ZERO_KEY`], anything else gives `None`.
#[inline]
pub fn key_of(value: f64) -> Option<i32> {
    if value > 0.0 && value.is_finite() {
        Some(key_of_positive(value))
    } else if value == 0.0 {
        Some(ZERO_KEY)
    } else {
        None
    }
}

/// Upper edge of a bin, in the unit of the values; zero for [`ZERO_KEY`].
pub fn upper_edge(key: i32) -> f64 {
    if key == ZERO_KEY { 0.0 } else { libm::exp(f64::from(key) * LN_GAMMA) }
}

/// Lower edge of a bin, in the unit of the values; zero for [`ZERO_KEY`].
pub fn lower_edge(key: i32) -> f64 {
    if key == ZERO_KEY { 0.0 } else { upper_edge(key - 1) }
}

/// The key whose upper edge is nearest to a positive value (in ratio). A limit on values is tested at this edge.
pub fn key_nearest_edge(value: f64) -> Option<i32> {
    if value > 0.0 && value.is_finite() { Some(libm::round(libm::log(value) / LN_GAMMA) as i32) } else { key_of(value) }
}

/// Mergeable histogram of non-negative values; see the module documentation.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(into = "Vec<u8>", try_from = "Vec<u8>")]
pub struct LogHist {
    zeros: u64,
    bins: Bins,
}

impl LogHist {
    /// Creates an empty histogram.
    pub fn new() -> Self {
        Self::default()
    }

    /// Bytes of heap memory.
    pub fn heap_bytes(&self) -> usize {
        self.bins.heap_bytes()
    }

    /// Adds one value. Allocates only when the span of bins grows.
    #[inline]
    pub fn insert(&mut self, value: f64) -> Result<(), InsertError> {
        if self.total() >= MAX_COUNT {
            return Err(InsertError::Full);
        }
        match key_of(value) {
            Some(ZERO_KEY) => self.zeros += 1,
            Some(key) => self.bins.add_one(key),
            None if value < 0.0 && value.is_finite() => return Err(InsertError::Negative),
            None => return Err(InsertError::NotFinite),
        }
        Ok(())
    }

    /// Number of values.
    pub fn total(&self) -> u64 {
        self.zeros + self.bins.total()
    }

    /// Exact number of values in bins above `key` (above zero for [`ZERO_KEY`]).
    pub fn count_above(&self, key: i32) -> u64 {
        self.bins.above(key)
    }

    /// Bins with values in increasing order, the bin of zero first.
    pub fn iter(&self) -> impl Iterator<Item = (i32, u64)> + '_ {
        std::iter::once((ZERO_KEY, self.zeros)).filter(|&(_, count)| count > 0).chain(self.bins.iter())
    }

    /// The bin that contains the value of rank `rank` (1-based, in increasing order).
    pub fn key_at_rank(&self, rank: u64) -> Option<i32> {
        let mut seen = 0;
        self.iter().find_map(|(key, count)| {
            seen += count;
            (rank >= 1 && seen >= rank).then_some(key)
        })
    }

    /// The `level`-quantile (0..=1) for display: the mid value of its bin, which is within 1 % of the value of that rank.
    pub fn quantile(&self, level: f64) -> Option<f64> {
        if !(0.0..=1.0).contains(&level) {
            return None;
        }
        let rank = (level * self.total() as f64).ceil().max(1.0) as u64;
        self.key_at_rank(rank).map(|key| 2.0 * upper_edge(key) / (1.0 + GAMMA))
    }

    /// Adds all values of `other`.
    pub fn merge(&mut self, other: &Self) -> Result<(), MergeError> {
        if self.total().checked_add(other.total()).is_none_or(|total| total > MAX_COUNT) {
            return Err(MergeError::Overflow);
        }
        self.bins.merge(&other.bins)?;
        self.zeros += other.zeros;
        Ok(())
    }

    pub(crate) fn encode_body(&self, out: &mut Vec<u8>) {
        put_u64(out, self.zeros);
        self.bins.encode(out);
    }

    pub(crate) fn decode_body(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let zeros = reader.count()?;
        let bins = Bins::decode(reader, -KEY_LIMIT - CAP, KEY_LIMIT)?;
        let hist = Self { zeros, bins };
        if hist.total() > MAX_COUNT {
            return Err(DecodeError::Malformed("a count exceeds 2^53"));
        }
        Ok(hist)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_follow_the_definition() {
        assert_eq!(key_of(1.0), Some(0));
        assert_eq!(key_of(1.01), Some(1));
        assert_eq!(key_of(0.0), Some(ZERO_KEY));
        assert_eq!(key_of(-0.0), Some(ZERO_KEY));
        assert_eq!(key_of(-1.0), None);
        assert_eq!(key_of(f64::NAN), None);
        assert_eq!(key_of(f64::INFINITY), None);
        for value in [f64::MIN_POSITIVE, 5e-324, 1e-9, 0.37, 12.5, 1e9, f64::MAX] {
            let key = key_of(value).unwrap();
            assert!(key.abs() < KEY_LIMIT);
            assert!(lower_edge(key) * 0.999_999 <= value && value <= upper_edge(key) * 1.000_001, "{value} in {key}");
        }
        assert_eq!(key_nearest_edge(upper_edge(77) * 1.004), Some(77));
    }

    #[test]
    fn refuses_what_is_not_an_amount() {
        let mut hist = LogHist::new();
        assert_eq!(hist.insert(-1e-300), Err(InsertError::Negative));
        assert_eq!(hist.insert(f64::NAN), Err(InsertError::NotFinite));
        assert_eq!(hist.insert(f64::NEG_INFINITY), Err(InsertError::NotFinite));
        assert_eq!(hist.total(), 0);
        assert_eq!(hist.quantile(0.5), None);
    }

    #[test]
    fn quantiles_are_within_one_percent() {
        let mut hist = LogHist::new();
        for value in 1..=10_000 {
            hist.insert(f64::from(value) * 0.1).unwrap();
        }
        for (level, exact) in [(0.01, 10.0), (0.5, 500.0), (0.95, 950.0), (0.99, 990.0), (1.0, 1000.0)] {
            let got = hist.quantile(level).unwrap();
            assert!((got / exact - 1.0).abs() < 0.0101, "{level}: {got}");
        }
        let key = hist.key_at_rank(9_900).unwrap();
        assert!(hist.count_above(key) <= 100 && hist.count_above(key - 1) > 100);
        assert_eq!(hist.quantile(1.5), None);
    }
}
