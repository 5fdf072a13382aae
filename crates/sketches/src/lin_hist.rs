//! Dithered linear histogram of values in [0, 1] (confidence, score, probability).
//!
//! There are `LIN_CELLS + 1` grid points `i / LIN_CELLS`. A value between two points goes to the upper one with a
//! probability equal to its distance from the lower one in cells. A hash of the request decides, so that a replay gives the
//! same result. The dithered value has **the same mean** as the value, so tests of means on the grid have no rounding bias.
//! Its variance is larger by at most `1 / (4 LIN_CELLS^2)`.

use crate::bins::Bins;
use crate::varint::Reader;
use crate::{DecodeError, InsertError, MAX_COUNT, MergeError};

/// Number of cells between grid points.
pub const LIN_CELLS: i32 = 512;

/// `hash` as a number in [0, 1): its upper 53 bits.
#[inline]
pub(crate) fn unit_interval(hash: u64) -> f64 {
    (hash >> 11) as f64 / (1_u64 << 53) as f64
}

/// Mergeable histogram of values in [0, 1]; see the module documentation.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(into = "Vec<u8>", try_from = "Vec<u8>")]
pub struct LinHist {
    bins: Bins,
}

impl LinHist {
    /// Creates an empty histogram.
    pub fn new() -> Self {
        Self::default()
    }

    /// Bytes of heap memory.
    pub fn heap_bytes(&self) -> usize {
        self.bins.heap_bytes()
    }

    /// Adds a value that is already scaled into [0, 1]. `hash` must be a hash of the request that is independent of the
    /// value and of the traffic split (use a dedicated salt, see [`crate::hash`]).
    #[inline]
    pub fn insert(&mut self, value: f64, hash: u64) -> Result<(), InsertError> {
        if !value.is_finite() {
            return Err(InsertError::NotFinite);
        }
        if !(0.0..=1.0).contains(&value) {
            return Err(InsertError::OutOfRange);
        }
        if self.total() >= MAX_COUNT {
            return Err(InsertError::Full);
        }
        // Scaling by a power of two is exact, so the fraction is the exact distance to the lower point.
        let scaled = value * f64::from(LIN_CELLS);
        let lower = scaled as i32;
        let up = unit_interval(hash) < scaled - f64::from(lower);
        self.bins.add_one(lower + i32::from(up));
        Ok(())
    }

    /// Number of values.
    pub fn total(&self) -> u64 {
        self.bins.total()
    }

    /// Grid points (0 ..= [`LIN_CELLS`]) with values, in increasing order.
    pub fn iter(&self) -> impl Iterator<Item = (i32, u64)> + '_ {
        self.bins.iter()
    }

    /// Number of values at grid points above `point`.
    pub fn count_above(&self, point: i32) -> u64 {
        self.bins.above(point)
    }

    /// Mean of the dithered values in [0, 1].
    pub fn mean(&self) -> Option<f64> {
        let sum: f64 = self.iter().map(|(point, count)| f64::from(point) * count as f64).sum();
        (self.total() > 0).then(|| sum / (f64::from(LIN_CELLS) * self.total() as f64))
    }

    /// Adds all values of `other`.
    pub fn merge(&mut self, other: &Self) -> Result<(), MergeError> {
        self.bins.merge(&other.bins)
    }

    pub(crate) fn encode_body(&self, out: &mut Vec<u8>) {
        self.bins.encode(out);
    }

    pub(crate) fn decode_body(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self { bins: Bins::decode(reader, 0, LIN_CELLS)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hash::Salt;

    #[test]
    fn dithering_keeps_the_mean() {
        let salt = Salt::new(b"dither");
        let mut hist = LinHist::new();
        let mut sum = 0.0;
        for id in 0..50_000_u32 {
            let value = f64::from(id % 997) / 997.0;
            sum += value;
            hist.insert(value, salt.hash(&id.to_le_bytes())).unwrap();
        }
        // Standard error of the dither alone: 1/512 * sqrt(1/6) / sqrt(50 000) = 3.6e-6.
        assert!((hist.mean().unwrap() - sum / 50_000.0).abs() < 1.5e-5);
    }

    #[test]
    fn grid_points_stay_where_they_are() {
        let mut hist = LinHist::new();
        for hash in [0, 1 << 63, u64::MAX] {
            hist.insert(0.0, hash).unwrap();
            hist.insert(0.5, hash).unwrap();
            hist.insert(1.0, hash).unwrap();
        }
        assert_eq!(hist.iter().collect::<Vec<_>>(), [(0, 3), (256, 3), (512, 3)]);
        assert_eq!(hist.insert(1.000_001, 0), Err(InsertError::OutOfRange));
        assert_eq!(hist.insert(-0.1, 0), Err(InsertError::OutOfRange));
        assert_eq!(hist.insert(f64::NAN, 0), Err(InsertError::NotFinite));
    }
}
