//! How often something happened: `k` of `n`.

use crate::varint::{Reader, put_u64};
use crate::{DecodeError, InsertError, MAX_COUNT, MergeError};

/// Events among trials, `k <= n <= 2^53`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(into = "(u64, u64)", try_from = "(u64, u64)")]
pub struct Rate {
    n: u64,
    k: u64,
}

impl Rate {
    /// `k` events in `n` trials; `None` if `k > n` or `n` exceeds [`MAX_COUNT`].
    pub fn new(n: u64, k: u64) -> Option<Self> {
        (k <= n && n <= MAX_COUNT).then_some(Self { n, k })
    }

    /// Adds one trial.
    pub fn insert(&mut self, event: bool) -> Result<(), InsertError> {
        if self.n >= MAX_COUNT {
            return Err(InsertError::Full);
        }
        self.n += 1;
        self.k += u64::from(event);
        Ok(())
    }

    /// Number of trials.
    pub fn n(self) -> u64 {
        self.n
    }

    /// Number of events.
    pub fn k(self) -> u64 {
        self.k
    }

    /// `k / n`; `None` without trials.
    pub fn value(self) -> Option<f64> {
        (self.n > 0).then(|| self.k as f64 / self.n as f64)
    }

    /// Adds the trials of `other`.
    pub fn merge(&mut self, other: &Self) -> Result<(), MergeError> {
        *self = Self::new(self.n.saturating_add(other.n), self.k + other.k).ok_or(MergeError::Overflow)?;
        Ok(())
    }

    pub(crate) fn encode_body(self, out: &mut Vec<u8>) {
        put_u64(out, self.n);
        put_u64(out, self.k);
    }

    pub(crate) fn decode_body(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let (n, k) = (reader.count()?, reader.count()?);
        Self::new(n, k).ok_or(DecodeError::Malformed("more events than trials"))
    }
}

impl From<Rate> for (u64, u64) {
    fn from(rate: Rate) -> Self {
        (rate.n, rate.k)
    }
}

impl TryFrom<(u64, u64)> for Rate {
    type Error = DecodeError;

    fn try_from((n, k): (u64, u64)) -> Result<Self, DecodeError> {
        Self::new(n, k).ok_or(DecodeError::Malformed("more events than trials"))
    }
}
