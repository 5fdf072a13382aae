//! Prediction ids of the demo: `UUIDv7` from event time and a seed. The same seed gives the same ids.

use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use uuid::Builder;

/// A source of prediction ids.
pub(super) struct PredictionIds {
    random: ChaCha8Rng,
}

impl PredictionIds {
    /// Ids of this seed and rollout. They do not depend on the number of calls of earlier rollouts.
    pub(crate) fn new(seed: u64, rollout: u64) -> Self {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        random.set_stream(rollout);
        Self { random }
    }

    /// The next id, of a call at `secs` (Unix seconds).
    pub(super) fn next(&mut self, secs: i64) -> String {
        let mut bytes = [0; 10];
        self.random.fill(&mut bytes);
        let millis = u64::try_from(secs).unwrap_or_default().saturating_mul(1000);
        Builder::from_unix_timestamp_millis(millis, &bytes).into_uuid().to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_unique_ids_again() {
        let take = |seed, rollout| {
            let mut ids = PredictionIds::new(seed, rollout);
            (0..100).map(|at| ids.next(at)).collect::<Vec<_>>()
        };
        assert_eq!(take(1, 0), take(1, 0));
        assert_ne!(take(1, 0), take(2, 0));
        assert_ne!(take(1, 0), take(1, 1));
        let mut unique = take(1, 0);
        unique.sort();
        unique.dedup();
        assert_eq!(unique.len(), 100);
    }
}
