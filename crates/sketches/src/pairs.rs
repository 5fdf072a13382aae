//! What both versions answered to the same requests (shadow traffic, or two files of predictions).
//!
//! The two marginal summaries do not contain how often the answers differ, so the pairs themselves are summarized: how many differ, in
//! which direction 0/1 outcomes differ (the discordant counts of `McNemar`'s test), and the differences of numbers. Differences are kept
//! both as exact moments (for reports) and as a dithered histogram of `(D + 1) / 2` (for betting on their mean).

use crate::varint::{Reader, put_u64};
use crate::{DecodeError, InsertError, LinHist, MAX_COUNT, MergeError, Moments};

/// The answers of both versions to one request.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Pair {
    /// A 0/1 outcome of each version: the predicted class, or whether the answer was wrong according to the label.
    Binary {
        /// The canary's outcome.
        canary: bool,
        /// Control's outcome.
        control: bool,
    },
    /// Whether the answers are equal, for answers that are only compared for equality (classes, strings).
    Same(bool),
    /// The answers are numbers.
    Number {
        /// Whether the two answers differ by more than the tolerance of the metric.
        differs: bool,
        /// Canary minus control, scaled into [-1, 1].
        difference: f64,
        /// Hash of the request, as for [`LinHist::insert`].
        hash: u64,
    },
}

impl Pair {
    /// Whether the answers differ.
    pub fn differs(self) -> bool {
        match self {
            Self::Binary { canary, control } => canary != control,
            Self::Same(same) => !same,
            Self::Number { differs, .. } => differs,
        }
    }
}

/// Mergeable summary of pairs; see the module documentation.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(into = "Vec<u8>", try_from = "Vec<u8>")]
pub struct Pairs {
    n: u64,
    disagreements: u64,
    only_canary: u64,
    only_control: u64,
    moments: Moments,
    histogram: LinHist,
}

impl Pairs {
    /// Creates a summary without pairs.
    pub fn new() -> Self {
        Self::default()
    }

    /// Bytes of heap memory.
    pub fn heap_bytes(&self) -> usize {
        self.histogram.heap_bytes()
    }

    /// Adds one pair. Returns an error if the difference is not a number in [-1, 1], or if there are 2^53 pairs already.
    pub fn insert(&mut self, pair: Pair) -> Result<(), InsertError> {
        if self.n >= MAX_COUNT {
            return Err(InsertError::Full);
        }
        match pair {
            Pair::Binary { canary, control } => {
                self.only_canary += u64::from(canary && !control);
                self.only_control += u64::from(control && !canary);
            }
            Pair::Same(_) => {}
            Pair::Number { difference, hash, .. } => {
                // The histogram also checks the value. The moments accept every value that it accepts.
                self.histogram.insert(f64::midpoint(difference, 1.0), hash)?;
                self.moments.insert(difference)?;
            }
        }
        self.n += 1;
        self.disagreements += u64::from(pair.differs());
        Ok(())
    }

    /// Number of pairs.
    pub fn n(&self) -> u64 {
        self.n
    }

    /// Number of pairs whose answers differ.
    pub fn disagreements(&self) -> u64 {
        self.disagreements
    }

    /// 0/1 outcomes that are 1 for the canary only (`b` of `McNemar`'s test).
    pub fn only_canary(&self) -> u64 {
        self.only_canary
    }

    /// 0/1 outcomes that are 1 for the control only (`c` of `McNemar`'s test).
    pub fn only_control(&self) -> u64 {
        self.only_control
    }

    /// Exact moments of the differences (canary minus control, in [-1, 1]).
    pub fn differences(&self) -> Moments {
        self.moments
    }

    /// Dithered histogram of `(D + 1) / 2`. A mean of 1/2 means that there is no difference.
    pub fn halved(&self) -> &LinHist {
        &self.histogram
    }

    /// Adds all pairs of `other`.
    pub fn merge(&mut self, other: &Self) -> Result<(), MergeError> {
        // The other counts are at most `n`. The moments also fit: they sum at most 2^53 values in [-1, 1].
        let n = self.n.checked_add(other.n).filter(|&n| n <= MAX_COUNT).ok_or(MergeError::Overflow)?;
        self.histogram.merge(&other.histogram)?;
        self.moments.merge(&other.moments)?;
        self.n = n;
        self.disagreements += other.disagreements;
        self.only_canary += other.only_canary;
        self.only_control += other.only_control;
        Ok(())
    }

    pub(crate) fn encode_body(&self, out: &mut Vec<u8>) {
        for count in [self.n, self.disagreements, self.only_canary, self.only_control] {
            put_u64(out, count);
        }
        self.moments.encode_body(out);
        self.histogram.encode_body(out);
    }

    pub(crate) fn decode_body(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let pairs = Self {
            n: reader.count()?,
            disagreements: reader.count()?,
            only_canary: reader.count()?,
            only_control: reader.count()?,
            moments: Moments::decode_body(reader)?,
            histogram: LinHist::decode_body(reader)?,
        };
        let numbers = pairs.histogram.total();
        let discordant = pairs.only_canary + pairs.only_control;
        if pairs.disagreements > pairs.n || discordant > pairs.disagreements || discordant + numbers > pairs.n {
            return Err(DecodeError::Malformed("the counts of pairs contradict each other"));
        }
        // Differences are in [-1, 1].
        if pairs.moments.n() != numbers || !pairs.moments.within_one() {
            return Err(DecodeError::Malformed("the differences contradict their histogram"));
        }
        Ok(pairs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_each_kind_of_pair() {
        let mut pairs = Pairs::new();
        for (canary, control) in [(true, false), (true, false), (false, true), (true, true)] {
            pairs.insert(Pair::Binary { canary, control }).unwrap();
        }
        pairs.insert(Pair::Same(true)).unwrap();
        pairs.insert(Pair::Same(false)).unwrap();
        pairs.insert(Pair::Number { differs: false, difference: 0.0, hash: 1 }).unwrap();
        pairs.insert(Pair::Number { differs: true, difference: -0.5, hash: 2 }).unwrap();
        assert_eq!((pairs.n(), pairs.disagreements()), (8, 5));
        assert_eq!((pairs.only_canary(), pairs.only_control()), (2, 1));
        assert_eq!((pairs.differences().n(), pairs.differences().sum()), (2, -0.5));
        assert_eq!(pairs.halved().mean(), Some(0.375));
    }

    #[test]
    fn refuses_differences_out_of_range() {
        let mut pairs = Pairs::new();
        for (difference, error) in [
            (f64::NAN, InsertError::NotFinite),
            (f64::INFINITY, InsertError::NotFinite),
            (1.001, InsertError::OutOfRange),
            (-1.001, InsertError::OutOfRange),
            (f64::MAX, InsertError::OutOfRange),
        ] {
            assert_eq!(pairs.insert(Pair::Number { differs: true, difference, hash: 0 }), Err(error));
        }
        assert_eq!(pairs, Pairs::new());
    }
}
