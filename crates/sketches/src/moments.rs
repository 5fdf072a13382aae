//! Number, sum and sum of squares in integers, so that merging does not round.

use crate::varint::{Reader, put_i128, put_u64, put_u128};
use crate::{DecodeError, InsertError, MAX_COUNT, MergeError};

/// Values are kept in millionths: `1.0` is 1 000 000 units.
pub const UNITS_PER_ONE: f64 = 1e6;

/// Largest magnitude of a value: 2^53 units, up to which every unit is exact in `f64`.
const MAX_UNITS: f64 = 9_007_199_254_740_992.0;

/// Moments of values rounded to 1e-6; sums are exact.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(into = "Vec<u8>", try_from = "Vec<u8>")]
pub struct Moments {
    n: u64,
    s1: i128,
    s2: u128,
}

impl Moments {
    /// Adds one value of magnitude at most 9.007e9.
    pub fn insert(&mut self, value: f64) -> Result<(), InsertError> {
        let units = libm::rint(value * UNITS_PER_ONE);
        if !value.is_finite() {
            return Err(InsertError::NotFinite);
        }
        if units.abs() > MAX_UNITS {
            return Err(InsertError::OutOfRange);
        }
        let units = units as i64;
        let square = u128::from(units.unsigned_abs()).pow(2);
        let one = Self { n: 1, s1: i128::from(units), s2: square };
        self.merge(&one).map_err(|_| InsertError::Full)
    }

    /// Number of values.
    pub fn n(self) -> u64 {
        self.n
    }

    /// Sum of the values.
    pub fn sum(self) -> f64 {
        self.s1 as f64 / UNITS_PER_ONE
    }

    /// Sum of the squared values.
    pub fn sum_of_squares(self) -> f64 {
        self.s2 as f64 / (UNITS_PER_ONE * UNITS_PER_ONE)
    }

    /// Mean; `None` without values.
    pub fn mean(self) -> Option<f64> {
        (self.n > 0).then(|| self.sum() / self.n as f64)
    }

    /// Adds the values of `other`.
    pub fn merge(&mut self, other: &Self) -> Result<(), MergeError> {
        let n = self.n.checked_add(other.n).filter(|&n| n <= MAX_COUNT);
        let sums = n.zip(self.s1.checked_add(other.s1)).zip(self.s2.checked_add(other.s2));
        let ((n, s1), s2) = sums.ok_or(MergeError::Overflow)?;
        *self = Self { n, s1, s2 };
        Ok(())
    }

    /// Whether the sum of squares is consistent with all values in [-1, 1].
    pub(crate) fn within_one(self) -> bool {
        self.s2 <= u128::from(self.n) * (UNITS_PER_ONE * UNITS_PER_ONE) as u128
    }

    pub(crate) fn encode_body(self, out: &mut Vec<u8>) {
        put_u64(out, self.n);
        put_i128(out, self.s1);
        put_u128(out, self.s2);
    }

    pub(crate) fn decode_body(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let moments = Self { n: reader.count()?, s1: reader.i128()?, s2: reader.u128()? };
        // `|s1| <= s2` holds for integers. Without values both are zero.
        if moments.s1.unsigned_abs() > moments.s2 || (moments.n == 0 && moments.s2 > 0) {
            return Err(DecodeError::Malformed("sums contradict each other"));
        }
        Ok(moments)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_are_exact_and_bounded() {
        let mut moments = Moments::default();
        for value in [0.1, 0.2, -0.3, 1e9, -1e9] {
            moments.insert(value).unwrap();
        }
        assert_eq!((moments.n(), moments.sum()), (5, 0.0));
        assert_eq!(moments.insert(1e10), Err(InsertError::OutOfRange));
        assert_eq!(moments.insert(f64::INFINITY), Err(InsertError::NotFinite));
        assert_eq!(moments.n(), 5);
    }
}
