//! Encodes segment values as small numbers. During warm-up new values are added on a first-come basis; once frozen,
//! the set is fixed.
//!
//! Number 0 is `other` in every dimension.

use foldhash::HashMap;
use serde::{Deserialize, Serialize};
use serin_schemas::{records::Segment, view::MapView};
use serin_spec::{Frozen, MAX_SEGMENT_VALUE_BYTES};

/// The value that represents all other values.
const OTHER: &str = "other";

/// Values of one dimension.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Values {
    /// Names in the order of their numbers, starting at 1.
    names: Vec<String>,
    #[serde(skip)]
    numbers: HashMap<String, u16>,
}

impl Values {
    fn push(&mut self, value: &str) -> u16 {
        self.names.push(value.to_owned());
        let number = self.names.len() as u16;
        self.numbers.insert(value.to_owned(), number);
        number
    }
}

/// The numbers of the values in every dimension of a rollout.
#[derive(Clone, Debug)]
pub(crate) struct Dictionary {
    dimensions: Vec<Values>,
    /// Maximum number of values per dimension.
    limit: usize,
    /// Whether new values are added.
    open: bool,
    /// Whether the dictionary has changed since it was last stored.
    pub(crate) dirty: bool,
}

impl Dictionary {
    /// Creates an empty dictionary that learns values.
    pub(crate) fn learning(dimensions: usize, limit: usize) -> Self {
        let limit = limit.min(usize::from(u16::MAX) - 1);
        Self { dimensions: vec![Values::default(); dimensions], limit, open: true, dirty: false }
    }

    /// Creates a fixed dictionary.
    pub(crate) fn frozen(names: &[String], frozen: &Frozen) -> Self {
        let mut dimensions = vec![Values::default(); names.len()];
        for (values, name) in dimensions.iter_mut().zip(names) {
            let listed = frozen.segments.get(name).into_iter().flatten().take(usize::from(u16::MAX) - 1);
            listed.filter(|value| *value != OTHER).for_each(|value| {
                values.push(value);
            });
        }
        let limit = dimensions.iter().map(|values| values.names.len()).max().unwrap_or(0);
        Self { dimensions, limit, open: false, dirty: false }
    }

    /// Whether it learns values.
    pub(crate) fn learns(&self) -> bool {
        self.open
    }

    /// Number of cells: one per value and one for `other`.
    pub(crate) fn slots(&self, dimension: usize) -> usize {
        1 + if self.open { self.limit } else { self.dimensions[dimension].names.len() }
    }

    /// The number of a value, or 0 if it counts as `other`.
    pub(crate) fn number(&mut self, dimension: usize, value: Option<&str>) -> u16 {
        let Some(value) = value else { return 0 };
        let values = &mut self.dimensions[dimension];
        if let Some(&number) = values.numbers.get(value) {
            return number;
        }
        let room = self.open && values.names.len() < self.limit;
        if !room || value.len() > MAX_SEGMENT_VALUE_BYTES || value == OTHER {
            return 0;
        }
        self.dirty = true;
        values.push(value)
    }

    /// The numbers of all dimensions. Returns how many values counted as `other`.
    pub(crate) fn numbers(&mut self, names: &[String], segments: MapView<'_, &str>, into: &mut Vec<u16>) -> u64 {
        into.clear();
        for (dimension, name) in names.iter().enumerate() {
            let number = self.number(dimension, segments.get(name));
            into.push(number);
        }
        into.iter().filter(|&&number| number == 0).count() as u64
    }

    /// The segment that belongs to a number.
    pub(crate) fn segment(&self, names: &[String], dimension: usize, number: usize) -> Segment {
        let value = number.checked_sub(1).and_then(|index| self.dimensions[dimension].names.get(index));
        Segment::of(names[dimension].as_str(), value.map_or(OTHER, String::as_str))
    }

    /// The learned names, for storage.
    pub(crate) fn names(&self) -> Vec<&[String]> {
        self.dimensions.iter().map(|values| values.names.as_slice()).collect()
    }

    /// Restores the stored names.
    pub(crate) fn restore(&mut self, stored: &[Vec<String>]) {
        for (values, names) in self.dimensions.iter_mut().zip(stored) {
            for name in names {
                values.push(name);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn learns_values_up_to_the_limit_and_then_counts_other() {
        let names = vec!["origin".to_owned()];
        let mut learning = Dictionary::learning(1, 2);
        let numbers: Vec<u16> =
            ["LGA", "JFK", "EWR", "LGA", "other"].iter().map(|value| learning.number(0, Some(value))).collect();
        assert_eq!(numbers, [1, 2, 0, 1, 0]);
        assert_eq!(learning.number(0, None), 0);
        assert_eq!(learning.number(0, Some(&"x".repeat(1000))), 0);
        assert_eq!(learning.segment(&names, 0, 2), Segment::of("origin", "JFK"));
        assert_eq!(learning.segment(&names, 0, 0), Segment::of("origin", "other"));
        assert_eq!(learning.slots(0), 3);
        let mut again = Dictionary::learning(1, 2);
        again.restore(&learning.names().iter().map(|names| names.to_vec()).collect::<Vec<_>>());
        assert_eq!(again.number(0, Some("JFK")), 2);
    }

    #[test]
    fn frozen_values_do_not_change() {
        let names = vec!["origin".to_owned(), "carrier".to_owned()];
        let values = vec!["LGA".to_owned(), "other".to_owned()];
        let frozen = Frozen { segments: [("origin".to_owned(), values)].into(), warmup_events: 1 };
        let mut dictionary = Dictionary::frozen(&names, &frozen);
        assert_eq!((dictionary.number(0, Some("LGA")), dictionary.number(0, Some("JFK"))), (1, 0));
        assert_eq!((dictionary.slots(0), dictionary.slots(1)), (2, 1));
        assert!(!dictionary.dirty);
    }
}
