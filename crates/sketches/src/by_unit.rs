//! A summary per group of units (users, sessions). It shows what a finding on a quantile, a distribution or a mix of classes
//! looks like without some of the units.
//!
//! [`crate::Buckets`] keeps sums, which contain no ranks and no classes. So the metric's own kind of summary is kept for
//! each of [`UNIT_GROUPS`] groups of units. The upper bits of the unit's hash select the group; each group covers eight
//! buckets of [`crate::Buckets`].

use std::collections::BTreeMap;

use crate::varint::{Reader, put_u64};
use crate::{DecodeError, MAX_COUNT, MergeError, Summary, SummaryKind, UNIT_BUCKETS};

/// Number of groups.
pub const UNIT_GROUPS: usize = 32;

/// The group of a unit, from the unit's hash.
pub fn unit_group(unit: u64) -> usize {
    (unit >> 59) as usize
}

/// A hash in the first bucket of the unit's group. [`crate::Buckets`] that are filled with such hashes use at most
/// [`UNIT_GROUPS`] buckets.
pub fn group_hash(unit: u64) -> u64 {
    ((unit_group(unit) * UNIT_BUCKETS / UNIT_GROUPS) as u64) << 56
}

/// One summary per group of units, all of the same kind; see the module documentation. Groups without observations are absent.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(into = "Vec<u8>", try_from = "Vec<u8>")]
pub struct ByUnit {
    groups: BTreeMap<u8, Summary>,
}

impl ByUnit {
    /// Creates a summary without observations.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds to the summary of the unit's group, which `empty` creates if it is absent. Nested per-unit summaries are not added.
    pub fn add(&mut self, unit: u64, empty: impl FnOnce() -> Summary, insert: impl FnOnce(&mut Summary)) {
        let group = unit_group(unit) as u8;
        let summary = self.groups.entry(group).or_insert_with(empty);
        insert(summary);
        let kept = summary.n() > 0 && may_be_inside(summary.kind());
        if !(kept && self.n() <= MAX_COUNT) {
            self.groups.remove(&group);
        }
    }

    /// Estimated bytes of heap memory: the nodes of a tree map are at least half full.
    pub fn heap_bytes(&self) -> usize {
        let entry = size_of::<(u8, Summary)>();
        self.groups.values().map(|summary| entry * 3 / 2 + summary.heap_bytes()).sum()
    }

    /// Number of observations.
    pub fn n(&self) -> u64 {
        self.groups.values().map(Summary::n).fold(0, u64::saturating_add)
    }

    /// The summaries of groups with observations, in group order.
    pub fn iter(&self) -> impl Iterator<Item = (usize, &Summary)> {
        self.groups.iter().map(|(&group, summary)| (usize::from(group), summary))
    }

    /// Adds all observations of `other`. On an error `self` is unchanged.
    pub fn merge(&mut self, other: &Self) -> Result<(), MergeError> {
        let mut sum = self.clone();
        for (group, summary) in &other.groups {
            match sum.groups.get_mut(group) {
                Some(known) => known.merge(summary)?,
                None => drop(sum.groups.insert(*group, summary.clone())),
            }
        }
        if sum.n() > MAX_COUNT {
            return Err(MergeError::Overflow);
        }
        *self = sum;
        Ok(())
    }

    /// Appends the number of groups, then the index, length and bytes of each group.
    pub(crate) fn encode_body(&self, out: &mut Vec<u8>) {
        put_u64(out, self.groups.len() as u64);
        for (group, summary) in &self.groups {
            let bytes = summary.encode();
            out.push(*group);
            put_u64(out, bytes.len() as u64);
            out.extend(bytes);
        }
    }

    pub(crate) fn decode_body(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let (len, mut by_unit, mut least) = (reader.u64()?, Self::new(), 0);
        if len > UNIT_GROUPS as u64 {
            return Err(DecodeError::Malformed("too many groups of units"));
        }
        for _ in 0..len {
            let group = reader.byte()?;
            if group < least || usize::from(group) >= UNIT_GROUPS {
                return Err(DecodeError::Malformed("a group of units is misplaced"));
            }
            least = group + 1;
            let bytes = reader.u64()?;
            let bytes = reader.bytes(usize::try_from(bytes).map_err(|_| DecodeError::Truncated)?)?;
            // Nesting is limited to one level: the type is checked before the body is decoded.
            if bytes.get(1).is_some_and(|&kind| !may_be_inside_byte(kind)) {
                return Err(DecodeError::Malformed("a summary per unit within a summary per unit"));
            }
            let summary = Summary::decode(bytes)?;
            let first = by_unit.groups.values().next().map(Summary::kind);
            if summary.n() == 0 || first.is_some_and(|first| first != summary.kind()) {
                return Err(DecodeError::Malformed("a group of units is empty, or of another kind"));
            }
            by_unit.groups.insert(group, summary);
        }
        if by_unit.n() > MAX_COUNT {
            return Err(DecodeError::Malformed("a count exceeds 2^53"));
        }
        Ok(by_unit)
    }
}

fn may_be_inside(kind: SummaryKind) -> bool {
    may_be_inside_byte(kind as u8)
}

fn may_be_inside_byte(kind: u8) -> bool {
    kind != SummaryKind::Buckets as u8 && kind != SummaryKind::ByUnit as u8
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Buckets, Rate};

    fn rate(n: u64) -> Summary {
        Summary::Rate(Rate::new(n, n).unwrap_or_default())
    }

    #[test]
    fn a_unit_is_always_in_the_same_group_and_bucket() {
        let mut by_unit = ByUnit::new();
        for unit in [7 << 59, (7 << 59) + 99, u64::MAX] {
            by_unit.add(unit, || rate(0), |summary| *summary = rate(summary.n() + 1));
        }
        let found: Vec<_> = by_unit.iter().map(|(group, summary)| (group, summary.n())).collect();
        assert_eq!(found, [(7, 2), (31, 1)]);
        let mut buckets = Buckets::new();
        for unit in [7 << 59, (7 << 59) + (5 << 56), u64::MAX] {
            buckets.insert(group_hash(unit), 1.0, 1).unwrap_or_default();
        }
        let filled: Vec<_> = buckets.iter().enumerate().filter(|(_, (_, n))| *n > 0).collect();
        assert_eq!(filled, [(56, (2.0, 2)), (248, (1.0, 1))]);
    }

    #[test]
    fn it_is_never_deep_and_never_overflows() {
        let mut by_unit = ByUnit::new();
        by_unit.add(0, || Summary::ByUnit(ByUnit::new()), |_| {});
        by_unit.add(0, || Summary::Buckets(Buckets::new()), |_| {});
        by_unit.add(0, || rate(0), |_| {});
        assert_eq!(by_unit, ByUnit::new());
        by_unit.add(0, || rate(MAX_COUNT), |_| {});
        by_unit.add(u64::MAX, || rate(1), |_| {});
        assert_eq!(by_unit.n(), MAX_COUNT);
        let before = by_unit.clone();
        let mut more = ByUnit::new();
        more.add(u64::MAX, || rate(1), |_| {});
        assert_eq!(by_unit.merge(&more), Err(MergeError::Overflow));
        assert_eq!(by_unit, before);
        let nested = [1, 10, 1, 0, 3, 1, 10, 0];
        let error = Summary::decode(&nested).unwrap_err();
        assert_eq!(error, DecodeError::Malformed("a summary per unit within a summary per unit"));
    }
}
