//! How often something happened per exposure: `k` events in an integer amount of exposure.

use crate::varint::{Reader, put_u64};
use crate::{DecodeError, InsertError, MAX_COUNT, MergeError};

/// Events and exposure, each at most 2^53. Unlike [`crate::Rate`], one unit of exposure may contain many events.
///
/// Exposure is an integer (answers, items, milliseconds), because sums of fractions would depend on the order of merging.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(into = "Vec<u8>", try_from = "Vec<u8>")]
pub struct Events {
    k: u64,
    exposure: u64,
}

impl Events {
    /// `k` events in `exposure`; `None` if one exceeds [`MAX_COUNT`].
    pub fn new(k: u64, exposure: u64) -> Option<Self> {
        (k <= MAX_COUNT && exposure <= MAX_COUNT).then_some(Self { k, exposure })
    }

    /// Adds `k` events in `exposure`. For example, an answer with three tool calls is `insert(3, 1)`.
    pub fn insert(&mut self, k: u64, exposure: u64) -> Result<(), InsertError> {
        let sum = Self::new(self.k.saturating_add(k), self.exposure.saturating_add(exposure));
        *self = sum.ok_or(InsertError::Full)?;
        Ok(())
    }

    /// Number of events.
    pub fn k(self) -> u64 {
        self.k
    }

    /// Exposure in the metric's unit of exposure.
    pub fn exposure(self) -> u64 {
        self.exposure
    }

    /// Events per unit of exposure; `None` without exposure.
    pub fn value(self) -> Option<f64> {
        (self.exposure > 0).then(|| self.k as f64 / self.exposure as f64)
    }

    /// Adds the events and exposure of `other`.
    pub fn merge(&mut self, other: &Self) -> Result<(), MergeError> {
        self.insert(other.k, other.exposure).map_err(|_| MergeError::Overflow)
    }

    pub(crate) fn encode_body(self, out: &mut Vec<u8>) {
        put_u64(out, self.k);
        put_u64(out, self.exposure);
    }

    pub(crate) fn decode_body(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self { k: reader.count()?, exposure: reader.count()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_are_exact_and_bounded() {
        let mut events = Events::default();
        assert_eq!(events.value(), None);
        events.insert(3, 1).unwrap();
        events.insert(0, 2).unwrap();
        assert_eq!((events.k(), events.exposure(), events.value()), (3, 3, Some(1.0)));
        assert_eq!(events.insert(u64::MAX, 1), Err(InsertError::Full));
        assert_eq!(events.insert(0, MAX_COUNT), Err(InsertError::Full));
        assert_eq!((events.k(), events.exposure()), (3, 3));
        assert_eq!(Events::new(0, MAX_COUNT + 1), None);
    }
}
