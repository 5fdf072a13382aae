//! What a measure reads from a summary, computed once per window.

use serin_sketches::{ClassCounts, Events, LIN_CELLS, LogHist, Pairs, Rate, Summary};

use super::past::Past;
use super::spec::Measure;

/// See the module.
#[derive(Clone, Debug)]
pub(super) enum View<'a> {
    /// A share.
    Rate(Rate),
    /// Values in [0, 1] of a mean, or numbers of events, with their counts.
    Grid(Vec<(f64, u64)>),
    /// Values.
    Hist(&'a LogHist),
    /// Classes, and the share of each named one; the last share is that of all others together. `None` where the counts
    /// cannot tell.
    Classes(&'a ClassCounts, Vec<Option<Rate>>),
    /// Events per exposure.
    Events(Events),
}

impl<'a> View<'a> {
    /// The summary's kind must be the measure's; another one is seen as empty.
    pub(super) fn of(measure: Measure, past: &Past, summary: &'a Summary) -> Self {
        match (summary, measure) {
            (Summary::Rate(rate), _) => Self::Rate(*rate),
            (Summary::Lin(hist), _) => {
                let cells = f64::from(LIN_CELLS);
                Self::Grid(hist.iter().map(|(point, count)| (f64::from(point) / cells, count)).collect())
            }
            (Summary::Capped(hist), Measure::Counts { .. }) => {
                let most = hist.cap();
                Self::Grid(hist.iter().map(|(x, count)| (x * most, count)).collect())
            }
            (Summary::Capped(hist), _) => Self::Grid(hist.iter().collect()),
            (Summary::Log(hist), _) => Self::Hist(hist),
            (Summary::Classes(counts), _) => {
                let shares = if let Past::Classes(past) = past { past.shares_in(counts) } else { Vec::new() };
                Self::Classes(counts, shares)
            }
            (Summary::Events(events), _) => Self::Events(*events),
            (Summary::Pairs(pairs), Measure::PairedDifference { .. }) => Self::Grid(differences(pairs)),
            (Summary::Pairs(pairs), _) => Self::Rate(Rate::new(pairs.n(), pairs.disagreements()).unwrap_or_default()),
            (Summary::Moments(_) | Summary::Buckets(_) | Summary::ByUnit(_), _) => Self::Rate(Rate::default()),
        }
    }

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

/// `(D + 1) / 2` of every pair with a difference `D`: of numbers from their histogram, of 0/1 outcomes from the discordant
/// counts; all other pairs are equal.
fn differences(pairs: &Pairs) -> Vec<(f64, u64)> {
    let cells = f64::from(LIN_CELLS);
    let mut grid: Vec<(f64, u64)> =
        pairs.halved().iter().map(|(point, count)| (f64::from(point) / cells, count)).collect();
    let different = pairs.only_canary() + pairs.only_control() + pairs.halved().total();
    grid.extend([(1.0, pairs.only_canary()), (0.0, pairs.only_control()), (0.5, pairs.n().saturating_sub(different))]);
    grid.retain(|&(_, count)| count > 0);
    grid
}
