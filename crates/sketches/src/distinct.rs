//! How many different things were seen (users, sessions): a `HyperLogLog` counter, **for display only**.
//!
//! 4096 registers keep, per slice of the hash, the longest run of leading zeros: the standard error is 1.6 %. That is too
//! coarse for a sample-ratio test (statistics, section 3.6: at 10^6 users the noise of a difference of two such counters
//! exceeds the binomial noise), so it is no [`crate::Summary`] and no test takes it.
//!
//! Merging takes the larger register, so it is exact in the sense of bytes: any order and partition gives the same ones.
//! Source: Flajolet, Fusy, Gandouet, Meunier, "`HyperLogLog`", 2007; the estimator is the one of Ertl, "New cardinality
//! estimation algorithms for `HyperLogLog` sketches", 2017, algorithm 6, which needs no tables of corrections.

use crate::varint::{Reader, put_u64};
use crate::{DecodeError, FORMAT_VERSION};

/// Second byte of encoded counters, beyond those of [`crate::SummaryKind`].
const TYPE: u8 = 64;
const INDEX_BITS: u32 = 12;
const REGISTERS: usize = 1 << INDEX_BITS;
/// Bits of the hash that are searched for a one.
const VALUE_BITS: u32 = 64 - INDEX_BITS;

/// Mergeable count of different keys; see the module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Distinct {
    /// Empty, or [`REGISTERS`] long with at least one non-zero.
    registers: Vec<u8>,
}

impl Distinct {
    /// A counter that has seen nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a key by its hash (see [`crate::hash`]). The same key counts once.
    pub fn insert(&mut self, hash: u64) {
        if self.registers.is_empty() {
            self.registers = vec![0; REGISTERS];
        }
        // The marker below the value bits bounds the run of zeros.
        let rank = (hash << INDEX_BITS | 1 << (INDEX_BITS - 1)).leading_zeros() + 1;
        let register = &mut self.registers[(hash >> VALUE_BITS) as usize];
        *register = (*register).max(rank as u8);
    }

    /// Estimated number of different keys, within 1.6 % (one standard error).
    pub fn estimate(&self) -> f64 {
        let mut with_rank = [0_u32; VALUE_BITS as usize + 2];
        for &register in &self.registers {
            with_rank[usize::from(register)] += 1;
        }
        if self.registers.is_empty() {
            return 0.0;
        }
        let m = REGISTERS as f64;
        let mut z = m * tau(1.0 - f64::from(with_rank[VALUE_BITS as usize + 1]) / m);
        for rank in (1..=VALUE_BITS as usize).rev() {
            z = 0.5 * (z + f64::from(with_rank[rank]));
        }
        z += m * sigma(f64::from(with_rank[0]) / m);
        m * m / (2.0 * std::f64::consts::LN_2 * z)
    }

    /// Adds all keys of `other`. Cannot fail.
    pub fn merge(&mut self, other: &Self) {
        if self.registers.is_empty() {
            self.registers.clone_from(&other.registers);
        }
        for (one, &two) in self.registers.iter_mut().zip(&other.registers) {
            *one = (*one).max(two);
        }
    }

    /// Its bytes: version, type, registers, where a zero is followed by the length of its run. At most 6 kB.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![FORMAT_VERSION, TYPE];
        for run in self.registers.chunk_by(|one, two| *one == 0 && *two == 0) {
            put_u64(&mut out, u64::from(run[0]));
            if run[0] == 0 {
                put_u64(&mut out, run.len() as u64);
            }
        }
        out
    }

    /// The counter whose bytes these are.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::open(bytes, TYPE)?;
        let mut registers = Vec::new();
        let mut after_run = false;
        while registers.len() < REGISTERS && !(registers.is_empty() && reader.finish().is_ok()) {
            let rank = reader.byte()?;
            if u32::from(rank) > VALUE_BITS + 1 {
                return Err(DecodeError::Malformed("a register is out of range"));
            }
            let run = if rank == 0 { reader.u64()? } else { 1 };
            if run == 0 || run > (REGISTERS - registers.len()) as u64 || (rank == 0 && after_run) {
                return Err(DecodeError::Malformed("a run of zeros is misplaced"));
            }
            registers.resize(registers.len() + run as usize, rank);
            after_run = rank == 0;
        }
        reader.finish()?;
        if !registers.is_empty() && registers.iter().all(|&rank| rank == 0) {
            return Err(DecodeError::Malformed("an empty counter has registers"));
        }
        Ok(Self { registers })
    }
}

/// `x + sum over k >= 1 of x^(2^k) 2^(k-1)`, infinite at 1: the weight of registers that are still zero.
fn sigma(mut x: f64) -> f64 {
    if x >= 1.0 {
        return f64::INFINITY;
    }
    let (mut y, mut z) = (1.0, x);
    loop {
        x *= x;
        let before = z;
        z += x * y;
        y += y;
        if z <= before {
            return z;
        }
    }
}

/// `(1 - x - sum over k >= 1 of (1 - x^(2^-k))^2 2^-k) / 3`: the weight of registers that are full.
fn tau(mut x: f64) -> f64 {
    if x <= 0.0 || x >= 1.0 {
        return 0.0;
    }
    let (mut y, mut z) = (1.0, 1.0 - x);
    loop {
        x = libm::sqrt(x);
        let before = z;
        y *= 0.5;
        z -= (1.0 - x) * (1.0 - x) * y;
        if z >= before {
            return z / 3.0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hash::Salt;

    fn of(range: std::ops::Range<u32>) -> Distinct {
        let salt = Salt::new(b"users");
        let mut counter = Distinct::new();
        for id in range {
            counter.insert(salt.hash(&id.to_le_bytes()));
        }
        counter
    }

    #[test]
    fn estimates_within_its_error() {
        assert!(Distinct::new().estimate().abs() < f64::EPSILON);
        for n in [1, 10, 1000, 20_000, 300_000] {
            let estimate = of(0..n).estimate();
            // Three standard errors; small counts are nearly exact.
            let error = (estimate / f64::from(n) - 1.0).abs();
            assert!(error < if n <= 10 { 0.002 } else { 0.049 }, "{n}: {estimate}");
        }
    }

    #[test]
    fn the_same_keys_count_once_however_they_are_split() {
        let whole = of(0..5000);
        let mut parts = of(2000..5000);
        parts.merge(&of(0..3000));
        parts.merge(&Distinct::new());
        assert_eq!(parts, whole);
        let mut empty = Distinct::new();
        empty.merge(&whole);
        assert_eq!(empty.encode(), whole.encode());
        assert!(whole.encode().len() <= 6146);
    }

    #[test]
    fn extreme_hashes_stay_in_range() {
        let mut counter = Distinct::new();
        for index in 0..REGISTERS as u64 {
            counter.insert(index << VALUE_BITS);
        }
        assert_eq!(counter.registers, vec![VALUE_BITS as u8 + 1; REGISTERS]);
        assert_eq!(Distinct::decode(&counter.encode()), Ok(counter.clone()));
        assert!(counter.estimate() > 1e18);
    }
}
