//! Two-sided test of a share in both arms: late events, answers with a label, or answers that carry a value.

use serde::{Deserialize, Serialize};
use serin_schemas::ids::EventTime;
use serin_sketches::{Rate, Summary};
use serin_statistics::{
    Against, Direction, Hypothesis, HypothesisSpec, Margin, Measure, Stratum, cluster::tempering_of_next_window,
    ln_weighted_average, rejects,
};

use crate::arms::ALPHA;

/// `(trials, events)` of one arm.
pub(crate) type Counted = (u64, u64);

/// Whether a share differs between the arms by more than a margin, in either direction.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct ShareTest {
    higher: Hypothesis,
    lower: Hypothesis,
    differs: bool,
}

impl ShareTest {
    /// A test without evidence. A difference of shares up to `margin` is not a finding.
    pub(crate) fn new(margin: f64, horizon: u32) -> Self {
        let side = |direction| {
            let spec = HypothesisSpec {
                measure: Measure::Rate,
                direction,
                against: Against::Control(Margin::absolute(margin)),
                horizon,
                interval_alpha: ALPHA,
            };
            Hypothesis::new(spec).expect("a rate with a positive margin is always testable")
        };
        Self { higher: side(Direction::LowerIsBetter), lower: side(Direction::HigherIsBetter), differs: false }
    }

    /// Lets the next windows count for less where one unit brings this many answers, as if all of them were alike.
    pub(crate) fn temper(&mut self, per_unit: Option<f64>) {
        let tempering = per_unit.map_or(1.0, tempering_of_next_window);
        self.higher.temper(tempering);
        self.lower.temper(tempering);
    }

    /// Takes a window: canary's and control's counts per generation. Windows come in order; an older one is left out. `alpha` is
    /// the chance of a false alarm over all windows.
    pub(crate) fn observe(&mut self, end: EventTime, alpha: f64, strata: &[(Counted, Counted)]) {
        let rate = |(n, k): Counted| Summary::Rate(Rate::new(n, k.min(n)).unwrap_or_default());
        let strata: Vec<(Summary, Summary)> = strata.iter().map(|&(c, s)| (rate(c), rate(s))).collect();
        let strata: Vec<Stratum<'_>> = strata.iter().map(|(canary, control)| Stratum { canary, control }).collect();
        for side in [&mut self.higher, &mut self.lower] {
            // The only possible error is a window out of order, and windows are taken in order.
            if side.observe(end.0, &strata).is_err() {
                return;
            }
        }
        let ln_e = ln_weighted_average(&[(0.5, self.higher.ln_e_fail()), (0.5, self.lower.ln_e_fail())]);
        self.differs |= rejects(ln_e, alpha);
    }

    /// The shares of canary and control.
    pub(crate) fn shares(&self) -> Option<(f64, f64)> {
        let effect = self.higher.effect();
        effect.canary.value.zip(effect.control.value)
    }

    /// The shares of canary and control, once they are known to differ.
    pub(crate) fn differ(&self) -> Option<(f64, f64)> {
        self.differs.then(|| self.shares())?
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_shares_are_not_reported_and_different_ones_are() {
        let (mut equal, mut different) = (ShareTest::new(0.01, 100), ShareTest::new(0.01, 100));
        for window in 1..=50 {
            equal.observe(EventTime(window), ALPHA, &[((100, 2), (1000, 20))]);
            different.observe(EventTime(window), ALPHA, &[((100, 0), (1000, 100))]);
        }
        assert_eq!(equal.differ(), None);
        let (canary, control) = different.differ().unwrap();
        assert!(canary == 0.0 && (control - 0.1).abs() < 1e-12);
    }
}
