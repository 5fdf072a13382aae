//! Records that cannot be worked off for their own sake: what came of one is not taken by the log (too large), or the fold
//! panics at it. To repeat it helps nobody, so it becomes a dead letter and the task goes on behind it.
//!
//! Which record it was is not known when several share a commit. The task then opens again and commits these one by one, and
//! the one that fails alone is put aside. When [`MOST_IN_A_ROW`] fail one after the other, it is not the records' fault: the
//! task stops and says where.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use crate::{fold::Poison, local::lock, record::TopicPartition};

/// So many records in a row that cannot be worked off are no accident.
const MOST_IN_A_ROW: usize = 20;

/// Where a record is.
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

/// What a task knows of such records; outlives the attempts of the task. Clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Care(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    aside: HashMap<Place, Aside>,
    /// How many records are still committed one by one.
    one_by_one: usize,
    in_a_row: usize,
}

/// A record that is put aside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Aside {
    pub(crate) poison: Poison,
    /// Not even its dead letter was taken: the letter goes without the record's bytes.
    pub(crate) bare: bool,
}

/// What becomes of a failed commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Handled {
    /// The next attempt does better.
    OpenAgain,
    /// It does not.
    GiveUp,
}

impl Care {
    /// Whether each record has a commit of its own now.
    pub(crate) fn is_one_by_one(&self) -> bool {
        lock(&self.0).one_by_one > 0
    }

    /// Why a record is put aside, if it is.
    pub(crate) fn aside(&self, place: &Place) -> Option<Aside> {
        let inner = lock(&self.0);
        // Empty almost always: nothing is hashed then.
        if inner.aside.is_empty() { None } else { inner.aside.get(place).cloned() }
    }

    /// What came of these records could not be committed; `alone`: it is this one's fault.
    pub(crate) fn failed(&self, alone: Option<&Place>, records: usize, poison: &Poison) -> Handled {
        let mut inner = lock(&self.0);
        match alone {
            Some(place) => {
                let bare = inner.aside.contains_key(place);
                inner.aside.insert(place.clone(), Aside { poison: poison.clone(), bare });
                inner.in_a_row += 1;
            }
            // Nothing that could be put aside: the fold's own doing.
            None if records == 0 => inner.in_a_row += 1,
            None => inner.one_by_one = records,
        }
        if inner.in_a_row > MOST_IN_A_ROW { Handled::GiveUp } else { Handled::OpenAgain }
    }

    /// These many records are committed, the last one at `place`; `well`: none of them was put aside.
    pub(crate) fn committed(&self, records: usize, place: Option<&Place>, well: bool) {
        let mut inner = lock(&self.0);
        inner.one_by_one = inner.one_by_one.saturating_sub(records);
        if well && records > 0 {
            inner.in_a_row = 0;
        }
        if let Some(place) = place
            && !inner.aside.is_empty()
        {
            inner.aside.retain(|aside, _| aside.at != place.at || aside.offset > place.offset);
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
    fn a_record_that_fails_alone_is_put_aside_and_forgotten_when_it_is_behind() {
        let care = Care::default();
        assert_eq!(care.failed(None, 3, &poison()), Handled::OpenAgain);
        assert!(care.is_one_by_one());
        care.committed(1, Some(&place(7)), true);
        assert_eq!(care.failed(Some(&place(8)), 1, &poison()), Handled::OpenAgain);
        assert_eq!(care.aside(&place(8)), Some(Aside { poison: poison(), bare: false }));
        assert_eq!(care.aside(&place(9)), None);
        care.failed(Some(&place(8)), 1, &poison());
        assert!(care.aside(&place(8)).unwrap().bare, "its letter was not taken either");
        care.committed(2, Some(&place(9)), true);
        assert!(!care.is_one_by_one());
        assert_eq!(care.aside(&place(8)), None);
    }

    #[test]
    fn many_in_a_row_are_no_accident() {
        let care = Care::default();
        for offset in 0..MOST_IN_A_ROW as i64 {
            assert_eq!(care.failed(Some(&place(offset)), 1, &poison()), Handled::OpenAgain);
            care.committed(1, Some(&place(offset)), false);
        }
        assert_eq!(care.failed(Some(&place(99)), 1, &poison()), Handled::GiveUp);
        care.committed(1, Some(&place(99)), true);
        assert_eq!(care.failed(Some(&place(100)), 1, &poison()), Handled::OpenAgain);
    }

    #[test]
    fn what_no_record_causes_is_given_up_after_a_while() {
        let care = Care::default();
        let handled: Vec<Handled> = (0..=MOST_IN_A_ROW).map(|_| care.failed(None, 0, &poison())).collect();
        assert_eq!(handled.iter().filter(|handled| **handled == Handled::GiveUp).count(), 1);
    }
}
