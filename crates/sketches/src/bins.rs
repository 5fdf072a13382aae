//! Dense counts over consecutive integer keys. Every histogram is built on them.
//!
//! At most [`CAP`] keys are kept. When the span grows beyond that, the lowest keys fold into the lowest key that is kept.
//! The kept span depends only on the largest key ever seen, so the result does not depend on the order of inserts and
//! merges. The first and the last count are never zero, so equal contents are equal values and equal bytes.

use crate::varint::{Reader, put_i128, put_u64};
use crate::{DecodeError, MAX_COUNT, MergeError};

/// Largest number of keys kept: 2048 log bins of 2 % span a factor of 6e17.
pub(crate) const CAP: i32 = 2048;

/// Dense counts; see the module documentation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Bins {
    first: i32,
    counts: Vec<u64>,
    total: u64,
}

impl Bins {
    #[inline]
    pub(crate) fn total(&self) -> u64 {
        self.total
    }

    /// Bytes of heap memory.
    pub(crate) fn heap_bytes(&self) -> usize {
        size_of_val(self.counts.as_slice())
    }

    /// Smallest and largest key with a count.
    pub(crate) fn span(&self) -> Option<(i32, i32)> {
        let len = i32::try_from(self.counts.len()).ok().filter(|&len| len > 0)?;
        Some((self.first, self.first + len - 1))
    }

    /// Keys in increasing order with their non-zero counts.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (i32, u64)> + '_ {
        (self.first..).zip(self.counts.iter().copied()).filter(|&(_, count)| count > 0)
    }

    /// Number of observations with a key above `key`.
    pub(crate) fn above(&self, key: i32) -> u64 {
        let skip = i64::from(key) + 1 - i64::from(self.first);
        let skip = usize::try_from(skip.max(0)).unwrap_or(usize::MAX);
        self.counts.iter().skip(skip).sum()
    }

    /// Adds one observation. The caller must check that the summary is not full.
    #[inline]
    pub(crate) fn add_one(&mut self, key: i32) {
        let index = i64::from(key) - i64::from(self.first);
        let known = usize::try_from(index).ok().filter(|&index| index < self.counts.len());
        let slot = known.unwrap_or_else(|| self.grow(key));
        self.counts[slot] += 1;
        self.total += 1;
    }

    /// Adds all counts of `other`; the sum must stay within [`MAX_COUNT`].
    pub(crate) fn merge(&mut self, other: &Self) -> Result<(), MergeError> {
        let Some((low, high)) = other.span() else { return Ok(()) };
        let total = self.total.checked_add(other.total).filter(|&total| total <= MAX_COUNT);
        let total = total.ok_or(MergeError::Overflow)?;
        self.grow(high);
        self.grow(low);
        for (key, &count) in (other.first..).zip(&other.counts) {
            self.counts[(key.max(self.first) - self.first) as usize] += count;
        }
        self.total = total;
        Ok(())
    }

    /// Makes room for `key` and returns its slot (the lowest one, if the key is below the kept span).
    #[cold]
    fn grow(&mut self, key: i32) -> usize {
        let Some((first, last)) = self.span() else {
            self.first = key;
            self.counts.push(0);
            return 0;
        };
        if key > last {
            self.collapse_below(key - (CAP - 1));
            self.counts.resize((key - self.first + 1) as usize, 0);
        } else if key < first {
            let lowest = key.max(last - (CAP - 1));
            self.counts.splice(0..0, std::iter::repeat_n(0, (first - lowest) as usize));
            self.first = lowest;
        }
        (key.max(self.first) - self.first) as usize
    }

    fn collapse_below(&mut self, lowest: i32) {
        if self.first >= lowest {
            return;
        }
        let fold = self.counts.len().min((lowest - self.first) as usize);
        let folded: u64 = self.counts.drain(..fold).sum();
        self.first = lowest;
        match self.counts.first_mut() {
            Some(count) => *count += folded,
            None => self.counts.push(folded),
        }
    }

    /// Appends the first key (zigzag), the number of keys and the counts. A zero count is followed by the length of its run.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        put_i128(out, i128::from(self.first));
        put_u64(out, self.counts.len() as u64);
        let mut counts = self.counts.iter().peekable();
        while let Some(&count) = counts.next() {
            put_u64(out, count);
            if count == 0 {
                let mut run = 1;
                while counts.next_if(|&&next| next == 0).is_some() {
                    run += 1;
                }
                put_u64(out, run);
            }
        }
    }

    /// Decodes exactly what [`Self::encode`] writes, and requires all keys to be in `lo..=hi`.
    pub(crate) fn decode(reader: &mut Reader<'_>, lo: i32, hi: i32) -> Result<Self, DecodeError> {
        let first = reader.i32_in(lo, hi)?;
        let len = reader.u64()?;
        if len > CAP as u64 || (len > 0 && i64::from(first) + len as i64 - 1 > i64::from(hi)) {
            return Err(DecodeError::Malformed("too many bins"));
        }
        if len == 0 && first != 0 {
            return Err(DecodeError::Malformed("an empty histogram has a first key"));
        }
        let len = len as usize;
        let mut bins = Self { first, counts: Vec::new(), total: 0 };
        while bins.counts.len() < len {
            let count = reader.count()?;
            let run = if count == 0 { reader.u64()? } else { 1 };
            // A run of zeros is between two counts: it never starts or ends the bins and never follows another run.
            let after_count = bins.counts.last().is_some_and(|&count| count > 0);
            if run == 0 || run > (len - bins.counts.len()) as u64 || (count == 0 && !after_count) {
                return Err(DecodeError::Malformed("a run of zeros is misplaced"));
            }
            bins.counts.resize(bins.counts.len() + run as usize, count);
            bins.total += count;
            if bins.total > MAX_COUNT {
                return Err(DecodeError::Malformed("a count exceeds 2^53"));
            }
        }
        if bins.counts.last() == Some(&0) {
            return Err(DecodeError::Malformed("a run of zeros is misplaced"));
        }
        Ok(bins)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bins(keys: &[i32]) -> Bins {
        let mut bins = Bins::default();
        for &key in keys {
            bins.add_one(key);
        }
        bins
    }

    #[test]
    fn collapses_the_lowest_whatever_the_order() {
        let keys = [0, 5000, 2, -7000, 3000, 5000, 2953, 2952, 4000];
        let mut sorted = keys;
        sorted.sort_unstable();
        let mut reversed = sorted;
        reversed.reverse();
        assert_eq!(bins(&keys), bins(&sorted));
        assert_eq!(bins(&keys), bins(&reversed));
        assert_eq!(bins(&keys).span(), Some((5000 - CAP + 1, 5000)));
        assert_eq!(bins(&keys).iter().next(), Some((2953, 5)));
        let mut parts = bins(&keys[..4]);
        parts.merge(&bins(&keys[4..])).unwrap();
        assert_eq!(parts, bins(&keys));
    }

    #[test]
    fn counts_above_a_key() {
        let bins = bins(&[1, 1, 2, 9]);
        assert_eq!([bins.above(i32::MIN), bins.above(0), bins.above(1), bins.above(8), bins.above(9)], [4, 4, 2, 1, 0]);
        assert_eq!(bins.above(i32::MAX), 0);
    }
}
