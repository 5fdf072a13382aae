//! Counts per class (predicted label, error type, status), with a cap on the number of classes.
//!
//! Beyond [`MAX_CLASSES`] different classes, those with the largest hash are counted as `other`. A class that is evicted in
//! a part is also evicted in every merge that contains the part, because the smaller hashes of the part are there too. So
//! the result does not depend on the order of merging. Keeping the most frequent classes would depend on it.

use std::collections::BTreeMap;

use crate::hash::Salt;
use crate::varint::{Reader, put_u64};
use crate::{DecodeError, InsertError, MAX_COUNT, MergeError};

/// Largest number of classes counted by name.
pub const MAX_CLASSES: usize = 128;
/// Longest class name in bytes; a longer one counts as `other`.
pub const MAX_CLASS_BYTES: usize = 128;

/// Mergeable counts per class; see the module documentation.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(into = "Vec<u8>", try_from = "Vec<u8>")]
pub struct ClassCounts {
    /// Ordered by hash, then by name. The first classes in this order are kept.
    classes: BTreeMap<(u64, String), u64>,
    other: u64,
    total: u64,
}

fn rank(class: &str) -> u64 {
    Salt::new(b"serin.class").hash(class.as_bytes())
}

impl ClassCounts {
    /// Adds one observation of `class`.
    pub fn insert(&mut self, class: &str) -> Result<(), InsertError> {
        if self.total >= MAX_COUNT {
            return Err(InsertError::Full);
        }
        self.add((rank(class), class), 1);
        Ok(())
    }

    /// Adds `count` observations of `class`.
    pub fn insert_many(&mut self, class: &str, count: u64) -> Result<(), InsertError> {
        if self.total.saturating_add(count) > MAX_COUNT {
            return Err(InsertError::Full);
        }
        if count > 0 {
            self.add((rank(class), class), count);
        }
        Ok(())
    }

    /// Estimated bytes of heap memory.
    pub fn heap_bytes(&self) -> usize {
        // A key, a count, and a share of a tree node that is at least half full.
        self.classes.keys().map(|(_, class)| class.len() + 64).sum()
    }

    /// Number of observations.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// Number of observations of classes that are not counted by name.
    pub fn other(&self) -> u64 {
        self.other
    }

    /// Classes counted by name, in a fixed but arbitrary order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, u64)> + '_ {
        self.classes.iter().map(|((_, class), &count)| (class.as_str(), count))
    }

    /// Count of one class; zero if it is not counted by name.
    pub fn count(&self, class: &str) -> u64 {
        self.find(rank(class), class).unwrap_or(0)
    }

    /// Looks up a class without copying its name.
    fn find(&self, rank: u64, class: &str) -> Option<u64> {
        let mut same_rank = self.classes.range((rank, String::new())..).take_while(|((found, _), _)| *found == rank);
        same_rank.find(|((_, name), _)| name == class).map(|(_, &count)| count)
    }

    /// Exact count of one class; `None` if some of its observations may be in [`Self::other`]. Comparisons of two arms by
    /// class must use this count. Otherwise a class that was evicted in only one arm looks like a difference.
    pub fn exact_count(&self, class: &str) -> Option<u64> {
        let rank = rank(class);
        let kept = |((last, name), _): (&(u64, String), &u64)| (rank, class) <= (*last, name.as_str());
        let exact = self.other == 0
            || class.len() <= MAX_CLASS_BYTES
                && (self.classes.len() < MAX_CLASSES || self.classes.last_key_value().is_some_and(kept));
        exact.then(|| self.find(rank, class).unwrap_or(0))
    }

    /// Adds all observations of `other`.
    pub fn merge(&mut self, other: &Self) -> Result<(), MergeError> {
        if self.total.saturating_add(other.total) > MAX_COUNT {
            return Err(MergeError::Overflow);
        }
        for ((rank, class), &count) in &other.classes {
            self.add((*rank, class), count);
        }
        self.other += other.other;
        self.total += other.other;
        Ok(())
    }

    fn add(&mut self, (rank, class): (u64, &str), count: u64) {
        self.total += count;
        if class.len() > MAX_CLASS_BYTES {
            self.other += count;
            return;
        }
        let mut same_rank =
            self.classes.range_mut((rank, String::new())..).take_while(|((found, _), _)| *found == rank);
        if let Some((_, known)) = same_rank.find(|((_, name), _)| name == class) {
            *known += count;
            return;
        }
        self.classes.insert((rank, class.to_owned()), count);
        if self.classes.len() > MAX_CLASSES
            && let Some((_, evicted)) = self.classes.pop_last()
        {
            self.other += evicted;
        }
    }

    pub(crate) fn encode_body(&self, out: &mut Vec<u8>) {
        put_u64(out, self.other);
        put_u64(out, self.classes.len() as u64);
        for ((_, class), &count) in &self.classes {
            put_u64(out, class.len() as u64);
            out.extend_from_slice(class.as_bytes());
            put_u64(out, count);
        }
    }

    pub(crate) fn decode_body(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let other = reader.count()?;
        let len = reader.u64()?;
        if len > MAX_CLASSES as u64 {
            return Err(DecodeError::Malformed("too many classes"));
        }
        let mut counts = Self { classes: BTreeMap::new(), other, total: other };
        for _ in 0..len {
            let size = reader.u64()?;
            if size > MAX_CLASS_BYTES as u64 {
                return Err(DecodeError::Malformed("a class name is too long"));
            }
            let class = std::str::from_utf8(reader.bytes(size as usize)?);
            let class = class.map_err(|_| DecodeError::Malformed("a class name is not UTF-8"))?;
            let key = (rank(class), class.to_owned());
            if counts.classes.last_key_value().is_some_and(|(last, _)| *last >= key) {
                return Err(DecodeError::Malformed("classes are out of order"));
            }
            let count = reader.count()?;
            counts.total += count;
            if count == 0 || counts.total > MAX_COUNT {
                return Err(DecodeError::Malformed("a class count is zero or exceeds 2^53"));
            }
            counts.classes.insert(key, count);
        }
        Ok(counts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_million_classes_stay_bounded() {
        let mut counts = ClassCounts::default();
        for class in 0..1_000_000 {
            counts.insert(&format!("class-{class}")).unwrap();
        }
        counts.insert(&"x".repeat(1000)).unwrap();
        assert_eq!(counts.iter().count(), MAX_CLASSES);
        assert_eq!(counts.other(), 1_000_001 - MAX_CLASSES as u64);
        assert_eq!(counts.total(), 1_000_001);
        let mut bytes = Vec::new();
        counts.encode_body(&mut bytes);
        assert!(bytes.len() < 4096);
    }

    #[test]
    fn overflowing_caps_merge_in_any_order_to_the_same() {
        let part = |start: u32, step: u32| {
            let mut counts = ClassCounts::default();
            for class in (start..4000).step_by(step as usize) {
                for _ in 0..=class % 3 {
                    counts.insert(&format!("class-{class}")).unwrap();
                }
            }
            counts
        };
        let whole = part(0, 1);
        let parts: Vec<ClassCounts> = (0..8).map(|start| part(start, 8)).collect();
        assert!(parts.iter().all(|part| part.other() > 0));
        for shift in 0..8 {
            let mut line = ClassCounts::default();
            for at in 0..8 {
                line.merge(&parts[(at * 3 + shift) % 8]).unwrap();
            }
            assert_eq!(line, whole);
        }
        let mut tree = parts;
        while let (Some(mut one), Some(two)) = (tree.pop(), tree.pop()) {
            one.merge(&two).unwrap();
            tree.insert(0, one.clone());
            if tree.len() == 1 {
                assert_eq!(one, whole);
                break;
            }
        }
    }

    #[test]
    fn reports_which_counts_are_exact() {
        let mut counts = ClassCounts::default();
        for class in 0..50 {
            counts.insert(&format!("class-{class}")).unwrap();
        }
        assert_eq!((counts.exact_count("class-7"), counts.exact_count("unseen")), (Some(1), Some(0)));
        assert_eq!(counts.exact_count(&"x".repeat(200)), Some(0));
        counts.insert(&"x".repeat(200)).unwrap();
        assert_eq!((counts.exact_count(&"x".repeat(200)), counts.exact_count("unseen")), (None, Some(0)));
        for class in 50..1000 {
            counts.insert(&format!("class-{class}")).unwrap();
        }
        let exact = (0..1000).filter_map(|class| counts.exact_count(&format!("class-{class}")));
        assert_eq!(exact.collect::<Vec<_>>(), vec![1; MAX_CLASSES]);
    }
}
