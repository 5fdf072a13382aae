//! Counts of events per answer (`m2c`): tests of their mean, whatever their distribution.
//!
//! A count of events has no upper end, and nothing can be guaranteed about a raw mean without one. So counts above a cap are replaced by
//! the cap, and the test is about the mean of the capped counts, as for a capped mean (`m2w`). The cap need not be configured: it is the
//! value that all but a thousandth of control's answers before the window did not exceed. It is therefore *predictable*, and the e-values
//! of windows can be multiplied although each window has its own cap. Two versions with the same distribution of events have the same
//! capped mean. So the false-rollback probability of equal versions holds for every distribution: single events, bursts, tokens.

use super::past::Past;
use super::spec::{HypothesisSpec, Measure, Part};
use super::view::View;
use crate::{PastHist, PastMean};

/// The cap is this quantile of control's counts.
const LEVEL: f64 = 0.999;
/// Smallest cap. If hardly any answer has an event, two events in one answer still count as two.
const LEAST: f64 = 2.0;
/// The margin or limit is at most this share of the cap, so that there is room for harm below the cap.
const ROOM: f64 = 0.5;
/// Level at which control's slow and fast memory are compared.
pub(super) const MIDDLE: f64 = 0.5;

/// How the event counts of one window are capped and scaled.
#[derive(Clone, Debug)]
pub(super) struct Caps {
    /// The cap, in events.
    pub(super) cap: f64,
    /// Control's past, scaled so that the cap is 1.
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

    /// `tested`: the position of the margin or limit when control's mean is the given number of events.
    pub(super) fn around(past: &PastHist, tested: impl Fn(f64) -> f64) -> Self {
        let seen = past.key_at(LEVEL).map_or(0.0, serin_sketches::upper_edge).max(LEAST);
        let mean = past.capped(seen).plain_mean() * seen;
        let cap = seen.max(tested(mean) / ROOM);
        Self { cap, past: past.capped(cap) }
    }

    /// Counts scaled so that the cap is 1.
    pub(super) fn scaled(&self, numbers: &[(f64, u64)]) -> Vec<(f64, u64)> {
        numbers.iter().map(|&(x, count)| ((x / self.cap).min(1.0), count)).collect()
    }

    /// Counts in events, with those above the cap replaced by the cap, and the number of counts above it.
    pub(super) fn capped(&self, numbers: &View<'_>) -> (Vec<(f64, u64)>, u64) {
        let View::Grid(numbers) = numbers else { return (Vec::new(), 0) };
        // The cap is the edge of a bin, and so are the counts, up to rounding of the last digit or two.
        let above = numbers.iter().filter(|(x, _)| *x > self.cap * (1.0 + 1e-9)).map(|(_, count)| count).sum();
        (numbers.iter().map(|&(x, count)| (x.min(self.cap), count)).collect(), above)
    }
}

/// The value at which a part is tested, in events.
pub(super) fn place(part: Part, mean: f64) -> f64 {
    match part {
        Part::Line(line) => line.at(mean),
        Part::Limit { fail, pass, .. } => fail.at.max(pass.at),
        _ => 0.0,
    }
}
