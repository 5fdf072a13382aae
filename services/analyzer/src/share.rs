//! Two-sided test of a share in both arms: late events, answers with a label, or answers that carry a value.
//!
//! Where a key assigns the arm and the window contains counts per bucket of units, a difference is a finding only if it also holds
//! without a handful of units, as a failure of a metric does ([`serin_statistics::handful`]).

use serde::{Deserialize, Serialize};
use serin_schemas::ids::EventTime;
use serin_sketches::{Rate, Summary};
use serin_statistics::{
    Against, Direction, Hypothesis, HypothesisSpec, Margin, Measure, Stratum, UnitEvidence,
    cluster::tempering_of_next_window, ln_weighted_average, rejects,
};

use crate::arms::ALPHA;

/// `(trials, events)` of one arm.
pub(crate) type Counted = (u64, u64);

/// A share that differs between the arms.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Difference {
    /// The canary's share.
    pub(crate) canary: f64,
    /// Control's share.
    pub(crate) control: f64,
    /// The number of users on which the difference rests, if it does not hold without a few of them.
    pub(crate) rests_on: Option<usize>,
}

/// What units have added to a test. It is stored in a separate row.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct ShareUnits {
    higher: UnitEvidence,
    lower: UnitEvidence,
    /// Whether any window was counted by unit.
    known: bool,
    /// The number of users on which the evidence rests, if it would otherwise be a finding.
    rests_on: Option<usize>,
}

impl ShareUnits {
    /// Takes a window: the sums per bucket of canary and control in each stratum. Returns on how many users the evidence for a
    /// difference rests, if it does not hold without a few of them.
    fn observe(&mut self, higher: &Hypothesis, lower: &Hypothesis, strata: &[[Summary; 2]]) -> Option<usize> {
        self.known |= !strata.is_empty();
        if !self.known {
            return None;
        }
        let strata: Vec<Stratum<'_>> = strata.iter().map(|[canary, control]| Stratum { canary, control }).collect();
        for (side, units) in [(higher, &mut self.higher), (lower, &mut self.lower)] {
            side.observe_units(&strata, false, units);
            // Only evidence for a difference is used.
            units.next_step();
        }
        let (side, units) =
            if higher.ln_e_fail() >= lower.ln_e_fail() { (higher, &self.higher) } else { (lower, &self.lower) };
        side.fail_robustness(units).rests_on
    }
}

/// Whether a share differs between the arms by more than a margin, in either direction.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct ShareTest {
    higher: Hypothesis,
    lower: Hypothesis,
    differs: bool,
    #[serde(skip)]
    pub(crate) units: ShareUnits,
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
        let (higher, lower) = (side(Direction::LowerIsBetter), side(Direction::HigherIsBetter));
        Self { higher, lower, differs: false, units: ShareUnits::default() }
    }

    /// Lets the next windows count for less where one unit brings this many answers, as if all of them were alike.
    pub(crate) fn temper(&mut self, per_unit: Option<f64>) {
        let tempering = per_unit.map_or(1.0, tempering_of_next_window);
        self.higher.temper(tempering);
        self.lower.temper(tempering);
    }

    /// Takes a window: canary's and control's counts per generation. Windows come in order; an older one is left out. `alpha` is
    /// the chance of a false alarm over all windows. `units` has the same counts as sums per bucket of units, if they are known.
    pub(crate) fn observe(
        &mut self,
        end: EventTime,
        alpha: f64,
        strata: &[(Counted, Counted)],
        units: &[[Summary; 2]],
    ) {
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
        let found = rejects(ln_e, alpha);
        let rests_on = self.units.observe(&self.higher, &self.lower, units);
        self.units.rests_on = rests_on.filter(|_| found && !self.differs);
        self.differs |= found && rests_on.is_none();
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

    /// The difference, once it is known, and also while it rests on a few users.
    pub(crate) fn difference(&self) -> Option<Difference> {
        let rests_on = self.units.rests_on.filter(|_| !self.differs);
        let (canary, control) = self.shares().filter(|_| self.differs || rests_on.is_some())?;
        Some(Difference { canary, control, rests_on })
    }
}

#[cfg(test)]
mod tests {
    use serin_sketches::Buckets;

    use super::*;

    #[test]
    fn equal_shares_are_not_reported_and_different_ones_are() {
        let (mut equal, mut different) = (ShareTest::new(0.01, 100), ShareTest::new(0.01, 100));
        for window in 1..=50 {
            equal.observe(EventTime(window), ALPHA, &[((100, 2), (1000, 20))], &[]);
            different.observe(EventTime(window), ALPHA, &[((100, 0), (1000, 100))], &[]);
        }
        assert_eq!(equal.differ(), None);
        let (canary, control) = different.differ().unwrap();
        assert!(canary == 0.0 && (control - 0.1).abs() < 1e-12);
    }

    /// 20 units of the canary and 100 of control in a window, with 10 calls each. `events` returns those of a unit.
    fn window(events: impl Fn(u64) -> u64) -> ((Counted, Counted), [Summary; 2]) {
        let mut sums = [Buckets::new(), Buckets::new()];
        let (mut canary, mut control) = ((0, 0), (0, 0));
        for unit in 0..20 {
            sums[0].insert(unit << 56, events(unit) as f64, 10).unwrap();
            canary = (canary.0 + 10, canary.1 + events(unit));
        }
        for unit in 20..120 {
            sums[1].insert(unit << 56, (unit % 2) as f64, 10).unwrap();
            control = (control.0 + 10, control.1 + unit % 2);
        }
        ((canary, control), sums.map(Summary::Buckets))
    }

    /// What the test knows after 30 windows; the last one also after a restart.
    fn known(events: impl Fn(u64) -> u64, by_unit: bool) -> Option<Difference> {
        let mut test = ShareTest::new(0.01, 100);
        for end in 1..=30 {
            let (counts, sums) = window(&events);
            test.observe(EventTime(end), ALPHA, &[counts], if by_unit { std::slice::from_ref(&sums) } else { &[] });
        }
        test.difference()
    }

    #[test]
    fn a_difference_of_a_few_units_is_not_a_finding() {
        // One unit makes all of its calls leave; the others are like control.
        let one = |unit: u64| if unit == 3 { 10 } else { unit % 2 };
        let five = |unit: u64| if unit < 5 { 10 } else { unit % 2 };
        for (events, units) in [(&one as &dyn Fn(u64) -> u64, 1..=3), (&five, 5..=6)] {
            assert_eq!(known(events, false).unwrap().rests_on, None, "without counts per unit it is a finding");
            let found = known(events, true).unwrap().rests_on.unwrap();
            assert!(units.contains(&found), "{found}");
        }
        // All units, or enough of them, are a finding; equal ones are not.
        assert_eq!(known(|unit| 3 + unit % 2, true).unwrap().rests_on, None);
        assert_eq!(known(|unit| if unit < 15 { 10 } else { 0 }, true).unwrap().rests_on, None);
        assert_eq!(known(|unit| unit % 2, true), None);
    }
}
