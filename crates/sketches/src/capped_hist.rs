//! Dithered log histogram of non-negative values winsorized at a cap (revenue, length), for means of values without an upper bound.
//!
//! Grid points are 0 and the log edges `GAMMA^key` for `key` in `cap_key - 1023 ..= cap_key`. A value between two points is
//! dithered as in [`crate::LinHist`], so the grid has exactly the mean of the winsorized value `min(x, cap)`. The cap is
//! declared before the rollout (for example stable's p99.9 of the previous day).

use crate::bins::Bins;
use crate::lin_hist::unit_interval;
use crate::log_hist::KEY_LIMIT;
use crate::varint::{Reader, put_i128, put_u64};
use crate::{DecodeError, InsertError, MAX_COUNT, MergeError, key_nearest_edge, key_of, upper_edge};

/// Number of log grid points up to the cap. They reach down to 1.3e-9 of the cap.
const POINTS: i32 = 1024;

/// Mergeable histogram of winsorized values; see the module documentation.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(into = "Vec<u8>", try_from = "Vec<u8>")]
pub struct CappedHist {
    cap_key: i32,
    zeros: u64,
    bins: Bins,
}

impl CappedHist {
    /// Creates an empty histogram whose cap is the log edge nearest to `cap`; `None` unless `cap` is positive and finite.
    pub fn new(cap: f64) -> Option<Self> {
        let cap_key = key_nearest_edge(cap).filter(|_| cap > 0.0)?;
        Some(Self { cap_key, zeros: 0, bins: Bins::default() })
    }

    /// Bytes of heap memory.
    pub fn heap_bytes(&self) -> usize {
        self.bins.heap_bytes()
    }

    /// The effective cap, in the unit of the values.
    pub fn cap(&self) -> f64 {
        upper_edge(self.cap_key)
    }

    /// Adds one value; for `hash` see [`crate::LinHist::insert`].
    pub fn insert(&mut self, value: f64, hash: u64) -> Result<(), InsertError> {
        let Some(key) = key_of(value) else {
            return Err(if value < 0.0 && value.is_finite() { InsertError::Negative } else { InsertError::NotFinite });
        };
        if self.total() >= MAX_COUNT {
            return Err(InsertError::Full);
        }
        let floor_key = self.cap_key - (POINTS - 1);
        let key = key.clamp(floor_key, self.cap_key);
        let upper = upper_edge(key);
        let lower = if key == floor_key { 0.0 } else { upper_edge(key - 1) };
        let up = unit_interval(hash) < (value - lower) / (upper - lower);
        match (up, key == floor_key) {
            (true, _) => self.bins.add_one(key),
            (false, true) => self.zeros += 1,
            (false, false) => self.bins.add_one(key - 1),
        }
        Ok(())
    }

    /// Number of values.
    pub fn total(&self) -> u64 {
        self.zeros + self.bins.total()
    }

    /// Grid values as fractions of the cap, in increasing order, with their counts.
    pub fn iter(&self) -> impl Iterator<Item = (f64, u64)> + '_ {
        let points = self.bins.iter().map(|(key, count)| (upper_edge(key - self.cap_key), count));
        std::iter::once((0.0, self.zeros)).filter(|&(_, count)| count > 0).chain(points)
    }

    /// Adds all values of `other`, which must have the same cap.
    pub fn merge(&mut self, other: &Self) -> Result<(), MergeError> {
        if self.cap_key != other.cap_key {
            return Err(MergeError::Cap { expected: self.cap_key, found: other.cap_key });
        }
        if self.total().checked_add(other.total()).is_none_or(|total| total > MAX_COUNT) {
            return Err(MergeError::Overflow);
        }
        self.bins.merge(&other.bins)?;
        self.zeros += other.zeros;
        Ok(())
    }

    pub(crate) fn encode_body(&self, out: &mut Vec<u8>) {
        put_i128(out, i128::from(self.cap_key));
        put_u64(out, self.zeros);
        self.bins.encode(out);
    }

    pub(crate) fn decode_body(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let cap_key = reader.i32_in(-KEY_LIMIT, KEY_LIMIT)?;
        let zeros = reader.count()?;
        let bins = Bins::decode(reader, -2 * KEY_LIMIT, KEY_LIMIT)?;
        let inside = bins.span().is_none_or(|(low, high)| low > cap_key - POINTS && high <= cap_key);
        let hist = Self { cap_key, zeros, bins };
        if !inside || hist.total() > MAX_COUNT {
            return Err(DecodeError::Malformed("a bin is outside the cap or a count exceeds 2^53"));
        }
        Ok(hist)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hash::Salt;

    #[test]
    fn keeps_the_mean_of_the_winsorized_values() {
        let salt = Salt::new(b"dither");
        let mut hist = CappedHist::new(40.0).unwrap();
        let cap = hist.cap();
        let mut sum = 0.0;
        for id in 0..100_000_u32 {
            let value = f64::from(id % 1009) * 0.06;
            sum += value.min(cap);
            hist.insert(value, salt.hash(&id.to_le_bytes())).unwrap();
        }
        let mean: f64 = hist.iter().map(|(value, count)| value * cap * count as f64).sum::<f64>() / 100_000.0;
        assert!((mean / (sum / 100_000.0) - 1.0).abs() < 1e-4, "{mean}");
        assert_eq!(hist.insert(1e300, 0), Ok(()));
        assert_eq!(hist.insert(1e-300, 0), Ok(()));
        assert!(hist.iter().all(|(value, _)| (0.0..=1.0).contains(&value)));
    }

    #[test]
    fn caps_must_agree_and_make_sense() {
        assert!(CappedHist::new(0.0).is_none());
        assert!(CappedHist::new(f64::NAN).is_none());
        let mut one = CappedHist::new(10.0).unwrap();
        let other = CappedHist::new(20.0).unwrap();
        assert!(matches!(one.merge(&other), Err(MergeError::Cap { .. })));
        assert_eq!(one.insert(-1.0, 0), Err(InsertError::Negative));
    }
}
