//! Summaries of every kind from the same values.

use serin_sketches::hash::{bucket, hash64};
use serin_sketches::{
    Buckets, ByUnit, CappedHist, ClassCounts, Digest, Events, LinHist, LogHist, Moments, Pair, Pairs, Rate, Summary,
};

pub(crate) const NAMES: [&str; 10] =
    ["rate", "log_hist", "lin_hist", "capped_hist", "class_counts", "moments", "buckets", "events", "pairs", "by_unit"];
pub(crate) const KINDS: usize = NAMES.len();

pub(crate) fn empty(kind: usize) -> Summary {
    match kind {
        0 => Summary::Rate(Rate::default()),
        1 => Summary::Log(LogHist::new()),
        2 => Summary::Lin(LinHist::new()),
        3 => Summary::Capped(CappedHist::new(50.0).unwrap()),
        4 => Summary::Classes(ClassCounts::default()),
        5 => Summary::Moments(Moments::default()),
        6 => Summary::Buckets(Buckets::new()),
        7 => Summary::Events(Events::default()),
        8 => Summary::Pairs(Pairs::new()),
        _ => Summary::ByUnit(ByUnit::new()),
    }
}

/// Adds one observation derived from `value` (any non-negative number).
fn insert(summary: &mut Summary, value: f64) {
    let hash = hash64(b"test", &value.to_le_bytes());
    let share = value / (1.0 + value);
    match summary {
        Summary::Rate(rate) => rate.insert(value > 1.0).unwrap(),
        Summary::Log(hist) => hist.insert(value).unwrap(),
        Summary::Lin(hist) => hist.insert(share, hash).unwrap(),
        Summary::Capped(hist) => hist.insert(value, hash).unwrap(),
        Summary::Classes(counts) => counts.insert(&format!("c{}", bucket(hash) / 10)).unwrap(),
        Summary::Moments(moments) => moments.insert(value.min(1e9)).unwrap(),
        Summary::Buckets(buckets) => buckets.insert(hash, share - 0.25, 1).unwrap(),
        Summary::Events(events) => events.insert(hash % 4, 1).unwrap(),
        Summary::Pairs(pairs) => pairs.insert(pair(hash, share)).unwrap(),
        Summary::ByUnit(by_unit) => {
            by_unit.add(hash, || empty(1), |summary| insert(summary, value));
        }
    }
}

fn pair(hash: u64, share: f64) -> Pair {
    match hash % 3 {
        0 => Pair::Binary { canary: share > 0.5, control: hash & 8 > 0 },
        1 => Pair::Same(share > 0.5),
        _ => Pair::Number { differs: share > 0.5, difference: 1.0 - 2.0 * share, hash },
    }
}

pub(crate) fn filled(kind: usize, values: &[f64]) -> Summary {
    let mut summary = empty(kind);
    for &value in values {
        insert(&mut summary, value);
    }
    summary
}

pub(crate) fn digest(values: &[f64]) -> Digest {
    let mut digest = Digest::new();
    digest.insert(values).unwrap();
    digest
}
