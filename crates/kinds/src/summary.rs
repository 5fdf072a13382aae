//! What a window keeps of the answers for each kind.

use serin_sketches::{CappedHist, ClassCounts, Events, LinHist, LogHist, Pairs, Rate, Summary};

use crate::MetricKind;

/// More events than this in one answer count as this many.
pub const MOST_EVENTS: f64 = 1e6;

impl MetricKind {
    /// A summary without answers. `by_value`: a count keeps the number of each answer, as since rules 2, rather than their sum.
    ///
    /// A cap that is none, which lint refuses, gives a summary that takes no value of the kind.
    pub fn empty(&self, by_value: bool) -> Summary {
        match *self {
            Self::Rate => Summary::Rate(Rate::default()),
            Self::Mean { .. } => Summary::Lin(LinHist::new()),
            Self::CappedMean { cap } => capped(cap),
            Self::Quantile { .. } | Self::Distribution => Summary::Log(LogHist::new()),
            Self::Classes => Summary::Classes(ClassCounts::default()),
            Self::Count if by_value => capped(MOST_EVENTS),
            Self::Count => Summary::Events(Events::default()),
            Self::Disagreement => Summary::Pairs(Pairs::new()),
        }
    }
}

fn capped(cap: f64) -> Summary {
    CappedHist::new(cap).map_or_else(|| Summary::Rate(Rate::default()), Summary::Capped)
}
