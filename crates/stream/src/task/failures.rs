//! Records that can never be processed: the log rejects the output of such a record (it is too large), or the fold
//! panics on it. Repeating the record cannot help, so it is dead-lettered and the task continues after it.
//!
//! If several records share a commit, it is unknown which one failed. The task then reopens and commits these records
//! one by one, and the record that fails alone is dead-lettered. If [`MAX_IN_A_ROW`] records fail one after the
//! other, the records are not the cause: the task stops and reports its position.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use crate::{fold::Poison, local::lock, record::TopicPartition};

/// From this number of consecutive failures on, records are not their cause.
const MAX_IN_A_ROW: usize = 20;

/// The position of a record.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Place {
    /// Topic and partition.
    pub at: TopicPartition,
    /// Offset.
    pub offset: i64,
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}[{}]@{}", self.at.topic, self.at.partition, self.offset)
    }
}

/// The failed records of a task. It outlives the attempts of the task. Clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct RecordFailures(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    dead_lettered: HashMap<Place, DeadLettered>,
    /// Number of records that are still committed one by one.
    one_by_one: usize,
    in_a_row: usize,
}

/// A record that is dead-lettered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct DeadLettered {
    pub(super) poison: Poison,
    /// Whether even its dead letter was rejected. The letter is then written without the record's bytes.
    pub(super) bare: bool,
}

/// What to do after a failed commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Handled {
    /// Reopen: the next attempt can succeed.
    Reopen,
    /// Give up: no attempt can succeed.
    GiveUp,
}

impl RecordFailures {
    /// Whether each record is currently committed on its own.
    pub(super) fn is_one_by_one(&self) -> bool {
        lock(&self.0).one_by_one > 0
    }

    /// The reason why a record is dead-lettered, if it is.
    pub(super) fn dead_lettered(&self, place: &Place) -> Option<DeadLettered> {
        let inner = lock(&self.0);
        // The map is almost always empty; avoid hashing then.
        if inner.dead_lettered.is_empty() { None } else { inner.dead_lettered.get(place).cloned() }
    }

    /// Handles output that could not be committed. `alone` is the record at fault, if it is known.
    pub(crate) fn failed(&self, alone: Option<&Place>, records: usize, poison: &Poison) -> Handled {
        let mut inner = lock(&self.0);
        match alone {
            Some(place) => {
                let bare = inner.dead_lettered.contains_key(place);
                inner.dead_lettered.insert(place.clone(), DeadLettered { poison: poison.clone(), bare });
                inner.in_a_row += 1;
            }
            // No record can be dead-lettered: the fold itself is the cause.
            None if records == 0 => inner.in_a_row += 1,
            None => inner.one_by_one = records,
        }
        if inner.in_a_row > MAX_IN_A_ROW { Handled::GiveUp } else { Handled::Reopen }
    }

    /// Handles a commit of `records` records, the last one at `place`. `well` means that none of them was
    /// dead-lettered.
    pub(super) fn committed(&self, records: usize, place: Option<&Place>, well: bool) {
        let mut inner = lock(&self.0);
        inner.one_by_one = inner.one_by_one.saturating_sub(records);
        if well && records > 0 {
            inner.in_a_row = 0;
        }
        if let Some(place) = place
            && !inner.dead_lettered.is_empty()
        {
            inner
                .dead_lettered
                .retain(|dead_lettered, _| dead_lettered.at != place.at || dead_lettered.offset > place.offset);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(offset: i64) -> Place {
        Place { at: TopicPartition::new("in", 0), offset }
    }

    fn poison() -> Poison {
        Poison { code: serin_schemas::Code::Unwritable, message: "too large".into() }
    }

    #[test]
    fn a_record_that_fails_alone_is_dead_lettered_and_later_forgotten() {
        let failures = RecordFailures::default();
        assert_eq!(failures.failed(None, 3, &poison()), Handled::Reopen);
        assert!(failures.is_one_by_one());
        failures.committed(1, Some(&place(7)), true);
        assert_eq!(failures.failed(Some(&place(8)), 1, &poison()), Handled::Reopen);
        assert_eq!(failures.dead_lettered(&place(8)), Some(DeadLettered { poison: poison(), bare: false }));
        assert_eq!(failures.dead_lettered(&place(9)), None);
        failures.failed(Some(&place(8)), 1, &poison());
        assert!(failures.dead_lettered(&place(8)).unwrap().bare, "its dead letter was rejected too");
        failures.committed(2, Some(&place(9)), true);
        assert!(!failures.is_one_by_one());
        assert_eq!(failures.dead_lettered(&place(8)), None);
    }

    #[test]
    fn too_many_failures_in_a_row_give_up() {
        let failures = RecordFailures::default();
        for offset in 0..MAX_IN_A_ROW as i64 {
            assert_eq!(failures.failed(Some(&place(offset)), 1, &poison()), Handled::Reopen);
            failures.committed(1, Some(&place(offset)), false);
        }
        assert_eq!(failures.failed(Some(&place(99)), 1, &poison()), Handled::GiveUp);
        failures.committed(1, Some(&place(99)), true);
        assert_eq!(failures.failed(Some(&place(100)), 1, &poison()), Handled::Reopen);
    }

    #[test]
    fn failures_without_a_record_give_up_after_a_while() {
        let failures = RecordFailures::default();
        let handled: Vec<Handled> = (0..=MAX_IN_A_ROW).map(|_| failures.failed(None, 0, &poison())).collect();
        assert_eq!(handled.iter().filter(|handled| **handled == Handled::GiveUp).count(), 1);
    }
}
