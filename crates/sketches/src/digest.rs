//! A t-digest, **for display only**: quantiles as the dashboards of other tools show them.
//!
//! It must never feed a p-value, an e-value or a gate. A t-digest has no error guarantee (p99.9 of Pareto data is up to 43 % off after
//! one merge of a hundred digests, 82 % off when they are merged in a chain). Its result depends on the order and the batches of merging,
//! and it has no exact count above a threshold, which every exceedance test needs. [`crate::LogHist`] has none of these problems. So a
//! digest is not a [`crate::Summary`], and no code that decides accepts one (statistics, 0.4 and section 9).
//!
//! Only this module uses the crate `tdigest` (Dunning, "The t-digest", 2021).

use tdigest::{Centroid, TDigest};

use crate::varint::{Reader, put_u64};
use crate::{DecodeError, FORMAT_VERSION, InsertError, MAX_COUNT, MergeError};

/// Second byte of encoded digests. It differs from every [`crate::SummaryKind`].
const TYPE: u8 = 65;
/// Largest number of centroids.
const SIZE: usize = 200;

/// Approximate quantiles of finite values; see the module documentation.
#[derive(Clone, Debug)]
pub struct Digest(TDigest);

impl Default for Digest {
    fn default() -> Self {
        Self(TDigest::new_with_size(SIZE))
    }
}

impl Digest {
    /// Creates a digest without values.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a batch of values, or none of them if one is not finite. Fewer, larger batches give a better digest.
    pub fn insert(&mut self, values: &[f64]) -> Result<(), InsertError> {
        if !values.iter().all(|value| value.is_finite()) {
            return Err(InsertError::NotFinite);
        }
        if self.total().saturating_add(values.len() as u64) > MAX_COUNT {
            return Err(InsertError::Full);
        }
        self.0 = self.0.merge_unsorted(values.to_vec());
        Ok(())
    }

    /// Number of values.
    pub fn total(&self) -> u64 {
        self.0.count() as u64
    }

    /// Estimated `level`-quantile (0..=1); `None` without values.
    pub fn quantile(&self, level: f64) -> Option<f64> {
        let known = (0.0..=1.0).contains(&level) && !self.0.is_empty();
        known.then(|| self.0.estimate_quantile(level)).flatten()
    }

    /// Adds all values of `other`. **Not exact:** a different order gives a different digest.
    pub fn merge(&mut self, other: &Self) -> Result<(), MergeError> {
        if self.total() + other.total() > MAX_COUNT {
            return Err(MergeError::Overflow);
        }
        self.0 = TDigest::merge_digests(vec![std::mem::take(&mut self.0), other.0.clone()]);
        Ok(())
    }

    /// Encodes the digest: version, type, number of centroids, minimum and maximum, then mean and weight of each centroid.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![FORMAT_VERSION, TYPE];
        put_u64(&mut out, self.0.centroids().len() as u64);
        for end in [self.0.min(), self.0.max()].into_iter().flatten() {
            out.extend_from_slice(&end.to_le_bytes());
        }
        for centroid in self.0.centroids() {
            out.extend_from_slice(&centroid.mean().to_le_bytes());
            put_u64(&mut out, centroid.weight() as u64);
        }
        out
    }

    /// Decodes a digest.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::open(bytes, TYPE)?;
        let len = reader.u64()?;
        if len > SIZE as u64 {
            return Err(DecodeError::Malformed("too many centroids"));
        }
        if len == 0 {
            reader.finish()?;
            return Ok(Self::default());
        }
        let (min, max) = (reader.finite()?, reader.finite()?);
        let mut centroids: Vec<Centroid> = Vec::with_capacity(len as usize);
        let mut total = 0;
        let mut sum = 0.0;
        for _ in 0..len {
            let (mean, weight) = (reader.finite()?, reader.count()?);
            let centroid = Centroid::new(mean, weight as f64);
            total += weight;
            sum += mean * weight as f64;
            let ordered = centroids.last().is_none_or(|last| *last <= centroid);
            if weight == 0 || total > MAX_COUNT || !ordered || !(min..=max).contains(&mean) {
                return Err(DecodeError::Malformed("a centroid is empty, out of order or out of range"));
            }
            centroids.push(centroid);
        }
        reader.finish()?;
        Ok(Self(TDigest::new(centroids, sum, total as f64, Some(max), Some(min), SIZE)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(range: std::ops::Range<i32>) -> Digest {
        let mut digest = Digest::new();
        let values: Vec<f64> = range.map(f64::from).collect();
        for batch in values.chunks(500) {
            digest.insert(batch).unwrap();
        }
        digest
    }

    #[test]
    fn shows_quantiles() {
        let mut digest = filled(0..6000);
        digest.merge(&filled(6000..10_000)).unwrap();
        assert_eq!(digest.total(), 10_000);
        for level in [0.01, 0.5, 0.99] {
            assert!((digest.quantile(level).unwrap() - 1e4 * level).abs() < 60.0, "{level}");
        }
        assert_eq!((digest.quantile(0.0), digest.quantile(1.0)), (Some(0.0), Some(9999.0)));
        assert_eq!((digest.quantile(1.5), digest.quantile(f64::NAN)), (None, None));
        assert_eq!(Digest::new().quantile(0.5), None);
    }

    #[test]
    fn bytes_round_trip_and_stay_small() {
        for digest in [Digest::new(), filled(-3..4), filled(0..20_000)] {
            let bytes = digest.encode();
            assert!(bytes.len() < 200 * 10 + 24, "{}", bytes.len());
            let again = Digest::decode(&bytes).unwrap();
            assert_eq!(again.encode(), bytes);
            assert_eq!(again.quantile(0.9), digest.quantile(0.9));
            for len in 0..bytes.len() {
                assert!(Digest::decode(&bytes[..len]).is_err());
            }
        }
    }

    #[test]
    fn refuses_what_is_not_a_number() {
        let mut digest = filled(0..10);
        let before = digest.encode();
        for value in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            assert_eq!(digest.insert(&[1.0, value]), Err(InsertError::NotFinite));
        }
        assert_eq!(digest.encode(), before);
        digest.insert(&[f64::MAX, f64::MIN, 1e-300]).unwrap();
        assert!(Digest::decode(&digest.encode()).is_ok());
    }
}
