//! The only source of randomness in a simulation.

use std::ops::Range;

use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

/// A seeded random generator: the same seed produces the same sequence.
#[derive(Debug)]
pub struct Dice(ChaCha8Rng);

impl Dice {
    /// Creates a generator from a seed.
    pub fn new(seed: u64) -> Self {
        Self(ChaCha8Rng::seed_from_u64(seed))
    }

    /// A number in the range.
    pub fn range(&mut self, range: Range<usize>) -> usize {
        self.0.random_range(range)
    }

    /// Returns true with a probability of `rate` in a thousand.
    pub fn per_mille(&mut self, rate: u32) -> bool {
        self.0.random_range(0..1000) < rate
    }

    /// One of the given values.
    ///
    /// # Panics
    /// If `of` is empty.
    pub fn one_of<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.range(0..of.len())]
    }
}
