//! Rankings and the relevance of their items, which feedback has as one number per item: `relevance/item-7`.
//!
//! A waiting prediction keeps the hashes of the first items of its ranking among its numbers, and the relevance of each item in slots
//! among its labels. So items have revisions and rights like any other label.

use serin_spec::RankingMeasure;

use crate::{
    label::{Label, LabelUpdate, apply_label},
    value::class_hash,
};

/// Number of items of one answer whose relevance is kept. Further items are ignored, those without relevance first.
pub(crate) const ITEMS: usize = 32;

/// Bits of a slot that contain the relevance; the others contain the hash of the item.
const GAIN_BITS: u32 = 16;
const GAIN_MASK: u64 = (1 << GAIN_BITS) - 1;
/// Relevance is kept in steps of a 256th.
const GAIN_UNIT: f64 = 256.0;

/// The hash of an item, as a whole number that a float represents exactly.
fn item_hash(id: &str) -> u64 {
    class_hash(id) >> GAIN_BITS
}

/// The number that stands for the item at a place of a ranking; NaN if the ranking is shorter.
pub(crate) fn item(ranking: Option<&str>, place: usize) -> f64 {
    ranking.and_then(|ids| ids.split('\n').nth(place)).map_or(f64::NAN, |id| item_hash(id) as f64)
}

/// The item of a label such as `relevance/item-7`.
pub(crate) fn item_of<'a>(name: &'a str, label: &str) -> Option<&'a str> {
    name.strip_prefix(label)?.strip_prefix('/').filter(|item| !item.is_empty())
}

/// Names of the slots of a label. They are internal to the aggregator.
pub(crate) fn slot(label: &str, place: usize) -> String {
    format!("{label}\0item{place}")
}

/// A label whose items have slots.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ItemLabel {
    pub(crate) label: String,
    /// The place of the first of [`ITEMS`] slots.
    pub(crate) first: usize,
}

/// Stores the relevance of items in the slots of their label.
pub(crate) fn place_items(
    known: &[ItemLabel],
    slots: &mut [Option<Label<u64>>],
    labels: &[(&str, Label)],
) -> Vec<LabelUpdate> {
    let mut updates = Vec::new();
    for label in known {
        let Some(slots) = slots.get_mut(label.first..label.first + ITEMS) else { continue };
        for (name, found) in labels {
            let Some(item) = item_of(name, &label.label) else { continue };
            let hash = item_hash(item);
            let gain = (found.value.clamp(0.0, 255.0) * GAIN_UNIT) as u64;
            let of_item = |slot: &Option<Label<u64>>| slot.is_some_and(|slot| slot.value >> GAIN_BITS == hash);
            let free = || slots.iter().position(Option::is_none);
            // An item without relevance has no effect, so one with relevance may take its slot.
            let least = || slots.iter().position(|slot| slot.is_some_and(|slot| slot.value & GAIN_MASK == 0));
            let place = slots.iter().position(of_item).or_else(free).or_else(|| least().filter(|_| gain > 0));
            let Some(place) = place else { continue };
            let value = hash << GAIN_BITS | gain;
            if slots[place].is_some() && !of_item(&slots[place]) {
                slots[place] = None;
            }
            updates.push(apply_label(&mut slots[place], Label { revision: found.revision, value }));
        }
    }
    updates
}

/// What is measured of a ranking, with the place of its first item among the numbers of a waiting prediction.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Ranked {
    pub(crate) measure: RankingMeasure,
    pub(crate) at: usize,
}

impl Ranked {
    /// The value of a ranking with the relevance of its items. `None`: there is no ranking, or nothing that it could have put first.
    pub(crate) fn value(self, ranking: &[f64], slots: &[Option<Label<u64>>]) -> Option<f64> {
        let items = &ranking[..ranking.len().min(self.at)];
        if items.iter().all(|item| item.is_nan()) {
            return None;
        }
        let gain_of = |slot: &Label<u64>| (slot.value & GAIN_MASK) as f64 / GAIN_UNIT;
        let known = || slots.iter().flatten();
        // An item that occurs twice counts once, at its better place.
        let hash = |place: usize| Some(items[place]).filter(|item| !item.is_nan()).map(|item| item as u64);
        let gain = |place: usize| {
            let hash = hash(place).filter(|own| !(0..place).any(|other| hash(other) == Some(*own)));
            hash.and_then(|hash| known().find(|slot| slot.value >> GAIN_BITS == hash)).map_or(0.0, gain_of)
        };
        let first = (0..items.len()).find(|place| gain(*place) > 0.0);
        match self.measure {
            RankingMeasure::Hit => Some(f64::from(u8::from(first.is_some()))),
            RankingMeasure::ReciprocalRank => Some(first.map_or(0.0, |place| 1.0 / (place + 1) as f64)),
            RankingMeasure::Ndcg => {
                let discounted = |gains: &mut dyn Iterator<Item = f64>| -> f64 {
                    gains.take(self.at).zip(2_u32..).map(|(gain, place)| gain / f64::from(place).log2()).sum()
                };
                let mut best: Vec<f64> = known().map(gain_of).collect();
                best.sort_by(|one, two| two.total_cmp(one));
                let best = discounted(&mut best.into_iter());
                let own = discounted(&mut (0..items.len()).map(gain));
                (best > 0.0).then(|| (own / best).min(1.0))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranked(measure: RankingMeasure, at: usize, ids: &str, labels: &[(&str, f64)]) -> Option<f64> {
        let ranking: Vec<f64> = (0..at).map(|place| item(Some(ids).filter(|ids| !ids.is_empty()), place)).collect();
        let known = [ItemLabel { label: "rel".to_owned(), first: 1 }];
        let mut slots = vec![None; ITEMS + 1];
        let labels: Vec<_> = labels.iter().map(|(name, value)| (*name, Label { revision: 0, value: *value })).collect();
        place_items(&known, &mut slots, &labels);
        Ranked { measure, at }.value(&ranking, &slots[1..])
    }

    #[test]
    fn measures_of_a_ranking() {
        let ids = "a\nb\nc\nd";
        let clicked = [("rel/c", 1.0), ("rel/z", 1.0)];
        let ndcg = |at, labels: &[(&str, f64)]| ranked(RankingMeasure::Ndcg, at, ids, labels);
        // 1/log2(4) of 1/log2(2) + 1/log2(3).
        assert!((ndcg(3, &clicked).unwrap() - 0.5 / (1.0 + 1.0 / 3_f64.log2())).abs() < 1e-12);
        assert_eq!(ndcg(2, &clicked), Some(0.0));
        assert_eq!(ndcg(1, &[("rel/a", 3.0), ("rel/b", 2.0)]), Some(1.0), "the best order");
        // As scikit-learn's ndcg_score([[3, 2, 3, 0]], [[4, 3, 2, 1]]).
        let graded = ndcg(4, &[("rel/a", 3.0), ("rel/b", 2.0), ("rel/c", 3.0), ("rel/d", 0.0)]).unwrap();
        let (own, best) = (3.0 + 2.0 / 3_f64.log2() + 1.5, 3.0 + 3.0 / 3_f64.log2() + 1.0);
        assert!((graded - own / best).abs() < 1e-12 && graded < 1.0, "{graded}");
        let rank = |at, labels: &[(&str, f64)]| ranked(RankingMeasure::ReciprocalRank, at, ids, labels);
        assert_eq!((rank(4, &clicked), rank(2, &clicked)), (Some(1.0 / 3.0), Some(0.0)));
        let hit = |at, labels: &[(&str, f64)]| ranked(RankingMeasure::Hit, at, ids, labels);
        assert_eq!((hit(3, &clicked), hit(2, &clicked), hit(9, &[("rel/d", 1.0)])), (Some(1.0), Some(0.0), Some(1.0)));
    }

    #[test]
    fn what_cannot_be_ranked_does_not_count() {
        let all = [RankingMeasure::Ndcg, RankingMeasure::ReciprocalRank, RankingMeasure::Hit];
        for measure in all {
            assert_eq!(ranked(measure, 3, "", &[("rel/a", 1.0)]), None, "no ranking");
            assert!(ranked(measure, 3, "b\na\na", &[("rel/a", 1.0)]).unwrap() <= 1.0, "an item that occurs twice");
        }
        let nothing = |measure| ranked(measure, 3, "a\nb", &[("rel/a", 0.0), ("rel/", 1.0), ("other/a", 1.0)]);
        assert_eq!(all.map(nothing), [None, Some(0.0), Some(0.0)], "no relevant item");
    }

    #[test]
    fn items_have_revisions_and_a_bound() {
        let known = [ItemLabel { label: "rel".to_owned(), first: 0 }];
        let mut slots = vec![None; ITEMS];
        let mut send = |item: &str, revision, value| {
            let name = format!("rel/{item}");
            place_items(&known, &mut slots, &[(&name, Label { revision, value })])
        };
        assert_eq!(send("a", 0, 1.0), [LabelUpdate::First]);
        assert_eq!(send("a", 0, 1.0), [LabelUpdate::Repeated]);
        assert_eq!(send("a", 0, 2.0), [LabelUpdate::Contradicts]);
        assert_eq!(send("a", 1, 2.0), [LabelUpdate::Revised]);
        for n in 1..ITEMS {
            assert_eq!(send(&n.to_string(), 0, 1.0), [LabelUpdate::First]);
        }
        assert_eq!(send("one more", 0, 1.0), []);
        assert_eq!(send("a", 2, 1.0), [LabelUpdate::Revised]);
        // An item without relevance has no effect, so one with relevance takes its slot.
        assert_eq!(send("1", 1, 0.0), [LabelUpdate::Revised]);
        assert_eq!(send("irrelevant", 0, 0.0), []);
        assert_eq!(send("one more", 0, 1.0), [LabelUpdate::First]);
        assert_eq!(send("another", 0, 1.0), []);
    }
}
