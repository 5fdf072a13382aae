//! Sums per hash bucket of the unit (user, session), from which the variance of clustered observations is computed.
//!
//! With a sticky split the requests of one user are not independent. Sums per unit would need a row per unit. 256 buckets of
//! units are also independent, and their number does not grow. With `B = 256`, the sums `X_b` and `N_b` give the ratio
//! `R = sum X / sum N` and its variance `B/(B-1) sum (X_b - R N_b)^2 / (sum N)^2` (Deng, Knoblich, Lu, "Applying the delta
//! method in metric analytics", KDD 2018). `serin-statistics` computes both.
//!
//! `X` is kept in millionths as an integer, so merging is exact. A summary takes at most 4 kB of memory and about 4 kB when encoded.

use crate::varint::{Reader, put_i128, put_u64};
use crate::{DecodeError, InsertError, MAX_COUNT, MergeError, UNITS_PER_ONE};

/// Number of buckets.
pub const UNIT_BUCKETS: usize = 256;

/// The bucket of a unit, from the unit's hash: the upper 8 bits.
pub fn bucket_of(unit: u64) -> u8 {
    (unit >> 56) as u8
}

/// One bucket: `x` in millionths, `n` observations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Cell {
    n: u64,
    x: i64,
}

/// Sums of a value and of its number of observations per hash bucket of the unit; see the module documentation.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(into = "Vec<u8>", try_from = "Vec<u8>")]
pub struct Buckets {
    /// Either empty, or [`UNIT_BUCKETS`] long with at least one observation.
    cells: Vec<Cell>,
    n: u64,
}

impl Buckets {
    /// Creates buckets without observations.
    pub fn new() -> Self {
        Self::default()
    }

    /// Bytes of heap memory.
    pub fn heap_bytes(&self) -> usize {
        size_of_val(self.cells.as_slice())
    }

    /// Adds `n` observations (requests, exposures) of one unit whose values sum to `x`. A value is a 0/1 outcome, a value
    /// scaled into [0, 1] as for [`crate::LinHist`], or a number of events. `x` is rounded to a millionth.
    ///
    /// `unit` is a hash of the unit's id with a dedicated salt (see [`crate::hash`]). Returns an error if `x` is not finite,
    /// `n` is zero, or a sum would leave its range: 2^53 observations in total, 2^53 millionths (9e9) of `x` per bucket.
    pub fn insert(&mut self, unit: u64, x: f64, n: u64) -> Result<(), InsertError> {
        if !x.is_finite() {
            return Err(InsertError::NotFinite);
        }
        let x = libm::rint(x * UNITS_PER_ONE);
        if n == 0 || x.abs() > MAX_COUNT as f64 {
            return Err(InsertError::OutOfRange);
        }
        let index = usize::from(bucket_of(unit));
        let old = self.cells.get(index).copied().unwrap_or_default();
        let sum = add(old, Cell { n, x: x as i64 }).ok_or(InsertError::Full)?;
        self.n = self.n.checked_add(n).filter(|&n| n <= MAX_COUNT).ok_or(InsertError::Full)?;
        if self.cells.is_empty() {
            self.cells = vec![Cell::default(); UNIT_BUCKETS];
        }
        self.cells[index] = sum;
        Ok(())
    }

    /// Number of observations.
    pub fn n(&self) -> u64 {
        self.n
    }

    /// `(X_b, N_b)` of every bucket in bucket order: [`UNIT_BUCKETS`] pairs, with zeros for buckets without a unit.
    pub fn iter(&self) -> impl Iterator<Item = (f64, u64)> + '_ {
        let cells = (0..UNIT_BUCKETS).map(|index| self.cells.get(index).copied().unwrap_or_default());
        cells.map(|cell| (cell.x as f64 / UNITS_PER_ONE, cell.n))
    }

    /// Adds all sums of `other`.
    pub fn merge(&mut self, other: &Self) -> Result<(), MergeError> {
        if self.cells.is_empty() {
            self.clone_from(other);
            return Ok(());
        }
        let n = self.n.checked_add(other.n).filter(|&n| n <= MAX_COUNT).ok_or(MergeError::Overflow)?;
        let sums = self.cells.iter().zip(&other.cells).map(|(&one, &two)| add(one, two));
        let sums: Vec<Cell> = sums.collect::<Option<_>>().ok_or(MergeError::Overflow)?;
        if !other.cells.is_empty() {
            self.cells = sums;
        }
        self.n = n;
        Ok(())
    }

    /// Appends `n` and `x` per bucket. A zero `n` starts a run of buckets without a unit and is followed by the length of the run.
    pub(crate) fn encode_body(&self, out: &mut Vec<u8>) {
        let mut run = 0;
        for index in 0..UNIT_BUCKETS {
            let cell = self.cells.get(index).copied().unwrap_or_default();
            if cell.n == 0 {
                run += 1;
                continue;
            }
            put_run(out, std::mem::take(&mut run));
            put_u64(out, cell.n);
            put_i128(out, i128::from(cell.x));
        }
        put_run(out, run);
    }

    pub(crate) fn decode_body(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let mut buckets = Self { cells: Vec::with_capacity(UNIT_BUCKETS), n: 0 };
        let mut after_run = false;
        while buckets.cells.len() < UNIT_BUCKETS {
            let n = reader.count()?;
            if n == 0 {
                let run = reader.u64()?;
                if run == 0 || run > (UNIT_BUCKETS - buckets.cells.len()) as u64 || after_run {
                    return Err(DecodeError::Malformed("a run of empty buckets is misplaced"));
                }
                buckets.cells.resize(buckets.cells.len() + run as usize, Cell::default());
            } else {
                let x = i64::try_from(reader.i128()?).ok().filter(|x| x.unsigned_abs() <= MAX_COUNT);
                let x = x.ok_or(DecodeError::Malformed("a bucket's sum exceeds 2^53"))?;
                buckets.cells.push(Cell { n, x });
                buckets.n += n;
            }
            after_run = n == 0;
        }
        if buckets.n > MAX_COUNT {
            return Err(DecodeError::Malformed("a count exceeds 2^53"));
        }
        if buckets.n == 0 {
            buckets.cells = Vec::new();
        }
        Ok(buckets)
    }
}

fn put_run(out: &mut Vec<u8>, run: u64) {
    if run > 0 {
        put_u64(out, 0);
        put_u64(out, run);
    }
}

/// The sum of two cells; `None` if it leaves the range of exact integers.
fn add(one: Cell, two: Cell) -> Option<Cell> {
    let n = one.n.checked_add(two.n).filter(|&n| n <= MAX_COUNT)?;
    let x = one.x.checked_add(two.x).filter(|x| x.unsigned_abs() <= MAX_COUNT)?;
    Some(Cell { n, x })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hash::hash64;

    #[test]
    fn sums_per_bucket_of_the_unit() {
        let mut buckets = Buckets::new();
        let unit = (7 << 56) + 12_345;
        buckets.insert(unit, 1.0, 1).unwrap();
        buckets.insert(unit + 99, 0.25, 3).unwrap();
        buckets.insert(u64::MAX, -0.5, 1).unwrap();
        let found: Vec<_> = buckets.iter().enumerate().filter(|(_, (_, n))| *n > 0).collect();
        assert_eq!(found, [(7, (1.25, 4)), (255, (-0.5, 1))]);
        assert_eq!((buckets.n(), buckets.iter().count()), (5, UNIT_BUCKETS));
    }

    #[test]
    fn refuses_what_would_not_be_exact() {
        let mut buckets = Buckets::new();
        assert_eq!(buckets.insert(0, f64::NAN, 1), Err(InsertError::NotFinite));
        assert_eq!(buckets.insert(0, f64::NEG_INFINITY, 1), Err(InsertError::NotFinite));
        assert_eq!(buckets.insert(0, 1.0, 0), Err(InsertError::OutOfRange));
        assert_eq!(buckets.insert(0, 1e10, 1), Err(InsertError::OutOfRange));
        assert_eq!(buckets.insert(0, 0.0, MAX_COUNT + 1), Err(InsertError::Full));
        assert_eq!(buckets, Buckets::new());
        buckets.insert(0, 9e9, MAX_COUNT - 1).unwrap();
        let before = buckets.clone();
        assert_eq!(buckets.insert(0, 9e9, 1), Err(InsertError::Full));
        assert_eq!(buckets.insert(1 << 60, 0.0, 2), Err(InsertError::Full));
        assert_eq!(buckets.merge(&before), Err(MergeError::Overflow));
        assert_eq!(buckets, before);
    }

    #[test]
    fn the_worst_case_stays_small() {
        let mut buckets = Buckets::new();
        for unit in 0..UNIT_BUCKETS as u64 {
            buckets.insert(unit << 56, -9e9, MAX_COUNT >> 8).unwrap();
        }
        let mut bytes = Vec::new();
        buckets.encode_body(&mut bytes);
        assert!(bytes.len() <= 4096, "{}", bytes.len());
        for unit in 0..10_000_u64 {
            let hash = hash64(b"unit", &unit.to_le_bytes());
            let _ = buckets.insert(hash, 0.5, 1);
        }
        assert_eq!(buckets.iter().filter(|(_, n)| *n > 0).count(), UNIT_BUCKETS);
    }
}
