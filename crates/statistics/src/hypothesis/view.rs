//! What a measure reads from a summary, computed once per window; see `Past::view`.

use serin_sketches::{ClassCounts, Events, LogHist, Rate};

/// What a measure reads from a summary.
#[derive(Clone, Debug)]
pub(super) enum View<'a> {
    /// A share.
    Rate(Rate),
    /// Values in [0, 1] of a mean, or event counts, with how often each occurs.
    Grid(Vec<(f64, u64)>),
    /// Values.
    Hist(&'a LogHist),
    /// Classes, and the share of each named class; the last share is that of all others together. `None` if there is no exact count.
    Classes(&'a ClassCounts, Vec<Option<Rate>>),
    /// Events per exposure.
    Events(Events),
}

impl View<'_> {
    /// Number of observations.
    pub(super) fn n(&self) -> u64 {
        match self {
            Self::Rate(rate) => rate.n(),
            Self::Grid(grid) => grid.iter().map(|point| point.1).sum(),
            Self::Hist(hist) => hist.total(),
            Self::Classes(counts, _) => counts.total(),
            Self::Events(events) => events.exposure(),
        }
    }
}
