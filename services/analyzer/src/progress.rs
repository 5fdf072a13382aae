//! How far each partition of `events` has been closed, and how far all writers were heard.
//!
//! Windows close when all writers that report in time have passed them: a finding against the canary does not wait for the others. A silent
//! writer may still have events for or against the canary, so a promotion waits for [`Progress::heard`].

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serin_schemas::{
    ids::{EventTime, Span},
    records::{ClockOffset, ClosedThrough},
};

/// What one partition has promised.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Promise {
    /// A window of maturity `m` of a rollout with grace `g` has been written when `end + m + g` is at or before `through`.
    pub(crate) through: EventTime,
    /// Number of partitions according to the writer of the promise.
    pub(crate) partitions: i32,
}

/// The parts of a partition's last promise that differ between writers or models. Its stored form is version 1 of the row.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Unheard {
    /// How far all writers were heard; `None` if as far as the promise goes.
    through: Option<EventTime>,
    /// How far the promise goes for models whose calls are reported from outside; `None` if as for all models.
    relayed: Option<EventTime>,
    silent: Vec<String>,
    skewed: Vec<ClockOffset>,
}

/// How far all writers were heard on all partitions, and which were not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Heard {
    /// The watermark that all writers have passed, on all partitions.
    pub(crate) through: Option<EventTime>,
    /// Writers that are silent.
    pub(crate) silent: BTreeSet<String>,
    /// Writers whose clocks are off, with the largest offset on any partition.
    pub(crate) skewed: BTreeMap<String, Span>,
}

/// The promises of all partitions. Time advances with the slowest of them; a partition that has not reported yet holds it back.
#[derive(Clone, Debug, Default)]
pub(crate) struct Progress {
    promises: BTreeMap<i32, Promise>,
    /// The partitions on which some writer was not heard.
    unheard: BTreeMap<i32, Unheard>,
}

impl Progress {
    /// Restores the promise of a partition from its row.
    pub(crate) fn restore(&mut self, partition: i32, promise: Promise) {
        self.promises.insert(partition, promise);
    }

    /// Restores the silent and skewed writers of a partition from their row.
    pub(crate) fn restore_unheard(&mut self, partition: i32, unheard: Unheard) {
        self.unheard.insert(partition, unheard);
    }

    /// The writers that were not heard on a partition, if there are any.
    pub(crate) fn unheard(&self, partition: i32) -> Option<&Unheard> {
        self.unheard.get(&partition)
    }

    /// Records a promise, and returns it if it is new. An older promise is ignored, because an aggregator that opens again repeats its
    /// promises.
    pub(crate) fn note(&mut self, closed: &ClosedThrough) -> Option<Promise> {
        let known = self.promises.get(&closed.partition);
        let promise = Promise {
            through: known.map_or(closed.through, |known| known.through.max(closed.through)),
            partitions: known.map_or(closed.partitions, |known| known.partitions.max(closed.partitions)),
        };
        if known == Some(&promise) {
            return None;
        }
        let is_newest = closed.through == promise.through;
        self.promises.insert(closed.partition, promise);
        if is_newest {
            let ClosedThrough { heard_through: through, relayed_through: relayed, silent, skewed, .. } = closed.clone();
            let unheard = Unheard { through, relayed, silent, skewed };
            if unheard == Unheard::default() {
                self.unheard.remove(&closed.partition);
            } else {
                self.unheard.insert(closed.partition, unheard);
            }
        }
        Some(promise)
    }

    /// The watermark that all partitions have passed, for all models or for those whose calls are reported from outside.
    pub(crate) fn mark(&self, external: bool) -> Option<EventTime> {
        let through = self.through()?;
        let behind = |(partition, unheard): (&i32, &Unheard)| {
            unheard.relayed.or_else(|| self.promises.get(partition).map(|promise| promise.through))
        };
        let relayed = self.unheard.iter().filter(|_| external).filter_map(behind).min();
        Some(relayed.map_or(through, |relayed| relayed.min(through)))
    }

    /// How far all writers were heard.
    pub(crate) fn heard(&self) -> Heard {
        let mut heard = Heard { through: self.through(), ..Heard::default() };
        for (partition, unheard) in &self.unheard {
            if let Some((heard_through, known)) = heard.through.as_mut().zip(self.promises.get(partition)) {
                *heard_through = unheard.through.unwrap_or(known.through).min(*heard_through);
            }
            heard.silent.extend(unheard.silent.iter().cloned());
            for ClockOffset { writer, offset } in &unheard.skewed {
                let known = heard.skewed.entry(writer.clone()).or_insert(*offset);
                if offset.0.saturating_abs() > known.0.saturating_abs() {
                    *known = *offset;
                }
            }
        }
        heard
    }

    /// The watermark that all partitions have passed; `None` while one has not reported yet.
    pub(crate) fn through(&self) -> Option<EventTime> {
        let partitions = self.promises.values().map(|promise| promise.partitions).max()?;
        let known = self.promises.range(0..partitions);
        (known.clone().count() == partitions as usize).then(|| known.map(|(_, promise)| promise.through).min())?
    }

    /// The partitions that hold time back: those that have not reported yet; if all have, the slowest ones.
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
    fn the_slowest_and_the_unknown_partitions_hold_time_back() {
        let mut progress = Progress::default();
        assert_eq!(progress.through(), None);
        progress.note(&closed(0, 50));
        progress.note(&closed(2, 70));
        assert_eq!((progress.through(), progress.blocking()), (None, vec![1]));
        progress.note(&closed(1, 60));
        assert_eq!((progress.through(), progress.blocking()), (Some(EventTime(50)), vec![0]));
    }

    #[test]
    fn all_writers_are_heard_as_far_as_on_the_slowest_partition() {
        let mut progress = Progress::default();
        let off = |offset| vec![ClockOffset { writer: "c".into(), offset: Span(offset) }];
        progress.note(&closed(0, 50));
        progress.note(&ClosedThrough {
            heard_through: Some(EventTime(30)),
            silent: vec!["b".into()],
            skewed: off(-9),
            ..closed(1, 60)
        });
        assert_eq!(progress.heard().through, None);
        progress.note(&ClosedThrough { skewed: off(-7), ..closed(2, 70) });
        let heard = progress.heard();
        assert_eq!(heard.through, Some(EventTime(30)));
        assert_eq!(heard.silent, ["b".to_owned()].into());
        assert_eq!(heard.skewed, [("c".to_owned(), Span(-9))].into());
        // The repeated promises of an aggregator that opens again have no effect.
        progress.note(&closed(1, 55));
        assert_eq!(progress.heard(), heard);
        progress.note(&closed(1, 61));
        assert_eq!(progress.heard().through, Some(EventTime(50)));
        assert_eq!(progress.heard().silent, BTreeSet::new());
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
