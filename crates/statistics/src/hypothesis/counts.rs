//! Numbers of events per answer (`m2c`): their mean, whatever their law.
//!
//! A number of events has no upper end, and of a raw mean without one nothing is sure. So numbers above a cap count as the cap, and what
//! is tested is the mean of these, as for a capped mean (`m2w`). Nobody has to name the cap: it is what all but a thousandth of
//! control's answers before the window stayed below, so it is *predictable*, and the windows' e-values multiply although each has a
//! cap of its own. Two versions whose answers bring events by the same law have the same capped mean, so the false-rollback
//! probability of equal versions holds for every law: single events, bursts, tokens.

use super::past::Past;
use super::spec::{HypothesisSpec, Measure, Part};
use super::view::View;
use crate::{PastHist, PastMean};

/// Level of control's numbers that is the cap.
const LEVEL: f64 = 0.999;
/// Smallest cap: where hardly an answer brings an event, two in one answer are still seen.
const LEAST: f64 = 2.0;
/// The margin or limit lies at most at this share of the cap, so that harm has room below it.
const ROOM: f64 = 0.5;
/// Level at which control's two memories are compared.
pub(super) const MIDDLE: f64 = 0.5;

/// How numbers of events of one window are seen.
#[derive(Clone, Debug)]
pub(super) struct Caps {
    /// The cap, in events.
    pub(super) cap: f64,
    /// Control's past on the scale [0, 1] of it.
    pub(super) past: PastMean,
}

impl Caps {
    /// The cap of the next window; `None` for other measures.
    pub(super) fn of(spec: &HypothesisSpec, past: &Past) -> Option<Self> {
        let Past::Hist(past) = past else { return None };
        let Measure::Counts { .. } = spec.measure else { return None };
        let past = past.current(MIDDLE);
        let parts = spec.parts().unwrap_or_default();
        let tested = |mean: f64| parts.iter().map(|part| place(*part, mean)).fold(0.0, f64::max);
        Some(Self::around(past, tested))
    }

    /// `tested`: where the margin or limit lies if control's mean is so many events.
    pub(super) fn around(past: &PastHist, tested: impl Fn(f64) -> f64) -> Self {
        let seen = past.key_at(LEVEL).map_or(0.0, serin_sketches::upper_edge).max(LEAST);
        let mean = past.capped(seen).plain_mean() * seen;
        let cap = seen.max(tested(mean) / ROOM);
        Self { cap, past: past.capped(cap) }
    }

    /// Numbers on the scale [0, 1] of the cap.
    pub(super) fn scaled(&self, numbers: &[(f64, u64)]) -> Vec<(f64, u64)> {
        numbers.iter().map(|&(x, count)| ((x / self.cap).min(1.0), count)).collect()
    }

    /// Numbers in events, those above the cap as the cap, and how many those are.
    pub(super) fn capped(&self, numbers: &View<'_>) -> (Vec<(f64, u64)>, u64) {
        let View::Grid(numbers) = numbers else { return (Vec::new(), 0) };
        // The cap is the edge of a bin, and so are the numbers, to the last digit or two.
        let above = numbers.iter().filter(|(x, _)| *x > self.cap * (1.0 + 1e-9)).map(|(_, count)| count).sum();
        (numbers.iter().map(|&(x, count)| (x.min(self.cap), count)).collect(), above)
    }
}

/// Where a part is tested, in events.
pub(super) fn place(part: Part, mean: f64) -> f64 {
    match part {
        Part::Line(line) => line.at(mean),
        Part::Limit { fail, pass, .. } => fail.at.max(pass.at),
        _ => 0.0,
    }
}
