//! What a hypothesis remembers, in the form that its measure needs: control's windows, or against a limit the canary's own
//! (after warm-up windows of stable). Each past is kept at two speeds; see [`Memory`].

use serde::{Deserialize, Serialize};
use serin_sketches::{LIN_CELLS, Pairs, Rate, Summary, ZERO_KEY, key_nearest_edge};

use super::classes::PastClasses;
use super::spec::Measure;
use super::view::View;
use crate::{FORGETTING, MIN_PAST, Memory, PastHist, PastMean, PastRate};

/// The past of a hypothesis; see the module documentation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Past {
    Rate(Memory<PastRate>),
    Mean(Memory<PastMean>),
    Hist(Memory<PastHist>),
    Classes(PastClasses),
    /// Events and exposure, which only the interval of the effect needs.
    Count(PastRate),
}

impl Past {
    pub(super) fn new(measure: Measure) -> Self {
        match measure {
            Measure::Rate | Measure::Disagreement => Self::Rate(Memory::default()),
            Measure::Mean { .. } | Measure::CappedMean { .. } | Measure::PairedDifference { .. } => {
                Self::Mean(Memory::default())
            }
            Measure::Quantile { .. } | Measure::Distribution | Measure::Counts { .. } => Self::Hist(Memory::default()),
            Measure::Classes => Self::Classes(PastClasses::default()),
            Measure::Count => Self::Count(PastRate::default()),
        }
    }

    /// What the measure reads from a summary. A summary of the wrong kind is treated as empty.
    pub(super) fn view<'a>(&self, measure: Measure, summary: &'a Summary) -> View<'a> {
        match (summary, measure) {
            (Summary::Rate(rate), _) => View::Rate(*rate),
            (Summary::Lin(hist), _) => {
                let cells = f64::from(LIN_CELLS);
                View::Grid(hist.iter().map(|(point, count)| (f64::from(point) / cells, count)).collect())
            }
            (Summary::Capped(hist), Measure::Counts { .. }) => {
                let most = hist.cap();
                View::Grid(hist.iter().map(|(x, count)| (x * most, count)).collect())
            }
            (Summary::Capped(hist), _) => View::Grid(hist.iter().collect()),
            (Summary::Log(hist), _) => View::Hist(hist),
            (Summary::Classes(counts), _) => {
                let shares = if let Self::Classes(past) = self { past.shares_in(counts) } else { Vec::new() };
                View::Classes(counts, shares)
            }
            (Summary::Events(events), _) => View::Events(*events),
            (Summary::Pairs(pairs), Measure::PairedDifference { .. }) => View::Grid(differences(pairs)),
            (Summary::Pairs(pairs), _) => View::Rate(Rate::new(pairs.n(), pairs.disagreements()).unwrap_or_default()),
            (Summary::Moments(_) | Summary::Buckets(_) | Summary::ByUnit(_), _) => View::Rate(Rate::default()),
        }
    }

    /// Adds one window with all its strata. An empty window leaves the past unchanged.
    pub(super) fn push<'a>(&mut self, window: impl Iterator<Item = &'a View<'a>>) {
        // Forgetting happens once per window, however many strata it has.
        for (index, view) in window.filter(|view| view.n() > 0).enumerate() {
            let forget = index == 0;
            match (&mut *self, view) {
                (Self::Rate(past), View::Rate(rate)) => past.each(forget, |past, phi| past.push(*rate, phi)),
                (Self::Count(past), View::Events(events)) => {
                    past.push_events(*events, if forget { FORGETTING } else { 1.0 });
                }
                (Self::Mean(past), View::Grid(grid)) => past.each(forget, |past, phi| past.push(grid, phi)),
                (Self::Hist(past), View::Hist(hist)) => past.each(forget, |past, phi| past.push(hist.iter(), phi)),
                (Self::Hist(past), View::Grid(numbers)) => {
                    let key = |x| key_nearest_edge(x).unwrap_or(ZERO_KEY);
                    past.each(forget, |past, phi| past.push(numbers.iter().map(|&(x, count)| (key(x), count)), phi));
                }
                (Self::Classes(past), View::Classes(counts, _)) => past.push(counts, forget),
                _ => {}
            }
        }
    }

    pub(super) fn n(&self) -> f64 {
        match self {
            Self::Rate(past) => past.slow().n(),
            Self::Mean(past) => past.slow().n(),
            Self::Hist(past) => past.slow().n(),
            Self::Classes(past) => past.n(),
            Self::Count(past) => past.n(),
        }
    }

    pub(super) fn suffices(&self) -> bool {
        self.n() >= MIN_PAST
    }
}

/// `(D + 1) / 2` of every pair with a difference `D`: for numbers from their histogram, for 0/1 outcomes from the discordant
/// counts. All other pairs are equal.
fn differences(pairs: &Pairs) -> Vec<(f64, u64)> {
    let cells = f64::from(LIN_CELLS);
    let mut grid: Vec<(f64, u64)> =
        pairs.halved().iter().map(|(point, count)| (f64::from(point) / cells, count)).collect();
    let different = pairs.only_canary() + pairs.only_control() + pairs.halved().total();
    grid.extend([(1.0, pairs.only_canary()), (0.0, pairs.only_control()), (0.5, pairs.n().saturating_sub(different))]);
    grid.retain(|&(_, count)| count > 0);
    grid
}
