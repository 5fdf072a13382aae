//! How far each partition of `events` has been closed.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serin_schemas::{ids::EventTime, records::ClosedThrough};

/// What one partition has promised.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Promise {
    /// A window of maturity `m` of a rollout with grace `g` has been written when `end + m + g` is at or before `through`.
    pub(crate) through: EventTime,
    /// How many partitions it knew of.
    pub(crate) partitions: i32,
}

/// The promises of all partitions. Time moves when the slowest of them moves; one not heard of yet holds it back.
#[derive(Clone, Debug, Default)]
pub(crate) struct Progress {
    promises: BTreeMap<i32, Promise>,
}

impl Progress {
    /// Takes back what a row held.
    pub(crate) fn restore(&mut self, partition: i32, promise: Promise) {
        self.promises.insert(partition, promise);
    }

    /// Notes a promise and returns it if it says something new. A promise never goes back: a re-opened aggregator repeats
    /// itself.
    pub(crate) fn note(&mut self, closed: &ClosedThrough) -> Option<Promise> {
        let known = self.promises.get(&closed.partition);
        let promise = Promise {
            through: known.map_or(closed.through, |known| known.through.max(closed.through)),
            partitions: known.map_or(closed.partitions, |known| known.partitions.max(closed.partitions)),
        };
        if known == Some(&promise) {
            return None;
        }
        self.promises.insert(closed.partition, promise);
        Some(promise)
    }

    /// The watermark that all partitions have passed; `None` while one has not been heard of.
    pub(crate) fn through(&self) -> Option<EventTime> {
        let partitions = self.promises.values().map(|promise| promise.partitions).max()?;
        let known = self.promises.range(0..partitions);
        (known.clone().count() == partitions as usize).then(|| known.map(|(_, promise)| promise.through).min())?
    }

    /// The partitions that hold time back: those not heard of, else the slowest.
    pub(crate) fn blocking(&self) -> Vec<i32> {
        let partitions = self.promises.values().map(|promise| promise.partitions).max().unwrap_or(0);
        let unknown: Vec<i32> = (0..partitions).filter(|partition| !self.promises.contains_key(partition)).collect();
        if !unknown.is_empty() {
            return unknown;
        }
        let slowest = self.through();
        self.promises
            .iter()
            .filter(|(_, promise)| Some(promise.through) == slowest)
            .map(|(&partition, _)| partition)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn closed(partition: i32, through: i64) -> ClosedThrough {
        ClosedThrough::heard(partition, 3, EventTime(through))
    }

    #[test]
    fn the_slowest_and_the_unknown_hold_time_back() {
        let mut progress = Progress::default();
        assert_eq!(progress.through(), None);
        progress.note(&closed(0, 50));
        progress.note(&closed(2, 70));
        assert_eq!((progress.through(), progress.blocking()), (None, vec![1]));
        progress.note(&closed(1, 60));
        assert_eq!((progress.through(), progress.blocking()), (Some(EventTime(50)), vec![0]));
    }

    #[test]
    fn a_promise_never_goes_back() {
        let mut progress = Progress::default();
        assert!(progress.note(&closed(0, 50)).is_some());
        assert_eq!(progress.note(&closed(0, 40)), None);
        assert_eq!(progress.note(&closed(0, 50)), None);
        assert!(progress.note(&closed(0, 51)).is_some());
    }
}
