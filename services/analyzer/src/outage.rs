//! Whether stable itself is failing, or whether the share of failed calls of either arm is above the ceiling
//! (`decision.ceiling`), so that no step is taken.
//! Two versions that both fail are equal, and an equal canary passes, but that is not a reason to send it more calls.
//!
//! Applies since rules version 2.
//!
//! Where a key assigns the arm, a few users who only make calls that fail must not hold a rollout. So a share that is above the ceiling
//! must also be above it without the [`HANDFUL`] buckets of units that contribute most. Windows of older builds have no counts per unit and
//! are judged without this condition.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};
use serin_schemas::{
    ids::EventTime,
    records::{Arm, ArmCounts, NoDataReason},
};
use serin_spec::units::Duration;
use serin_statistics::handful::HANDFUL;

use crate::{
    arms::{Compared, percent},
    baseline::Baseline,
    plan::Plan,
    standing::Issue,
};

/// Number of windows that are kept.
const WINDOWS: usize = 30;
/// Once an arm has this many answers, older windows are not used: a share must describe the present.
const PLENTY: u64 = 50;
/// An arm with fewer answers than this is not judged.
const ENOUGH: u64 = 10;

/// Calls of one version in a window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Calls {
    answers: u64,
    failed: u64,
    refused: u64,
}

impl Calls {
    fn of(counts: &ArmCounts) -> Self {
        let ArmCounts { predictions, errors, refused, .. } = *counts;
        Self { answers: predictions as u64, failed: errors as u64, refused: refused as u64 }
    }

    fn add(&mut self, other: Self) {
        self.answers = self.answers.saturating_add(other.answers);
        self.failed = self.failed.saturating_add(other.failed);
        self.refused = self.refused.saturating_add(other.refused);
    }
}

/// One window.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct Window {
    end: EventTime,
    canary: Calls,
    /// Control's calls and the calls outside the comparison.
    stable: Calls,
}

/// Selects the calls with one outcome.
type Count = fn(&Calls) -> u64;

/// Calls of one version per bucket of units, in each of its newest windows. `None`: the window was not counted by unit.
type ByUnit = VecDeque<Option<BTreeMap<u8, Calls>>>;

/// The calls of both versions per bucket of units, as far back as their shares reach. They are stored in a separate row.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct OutageUnits {
    canary: ByUnit,
    stable: ByUnit,
}

/// The latest windows of one rollout.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Outage {
    latest: VecDeque<Window>,
    #[serde(skip)]
    pub(crate) units: OutageUnits,
}

/// A share of one version's calls that is above the ceiling.
#[derive(Clone, Copy)]
struct Finding {
    what: &'static str,
    ceiling: f64,
    /// The number of users on which it rests, if it does not hold without a few of them.
    rests_on: Option<usize>,
}

impl Outage {
    /// Takes a window of stream 0 in which the arms are compared.
    pub(crate) fn observe(&mut self, end: EventTime, strata: &[Compared<'_>]) {
        let (mut canary, mut stable) = (Calls::default(), Calls::default());
        for stratum in strata {
            let of = |arm: Arm| {
                let counts = stratum.window.arms.get(&arm);
                counts.map_or(Calls::default(), Calls::of)
            };
            canary.add(of(stratum.trial));
            stable.add(of(Arm::Control));
            stable.add(of(Arm::Stable));
        }
        if canary.answers + stable.answers == 0 {
            return;
        }
        if self.latest.len() >= WINDOWS {
            self.latest.pop_front();
        }
        self.latest.push_back(Window { end, canary, stable });
        let (by_canary, by_stable) = (
            by_unit(strata, canary, |stratum| vec![stratum.trial]),
            by_unit(strata, stable, |_| vec![Arm::Control, Arm::Stable]),
        );
        for (side, counted) in [(CANARY, by_canary), (STABLE, by_stable)] {
            let needed = self.newest(side).1;
            let units = (side.units_mut)(&mut self.units);
            units.push_back(counted);
            units.drain(..units.len().saturating_sub(needed));
        }
    }

    /// The newest calls of a version, and how many windows they are from.
    fn newest(&self, side: Side) -> (Calls, usize) {
        let mut sum = Calls::default();
        let mut windows = 0;
        for window in self.latest.iter().rev() {
            sum.add((side.calls)(window));
            windows += 1;
            if sum.answers >= PLENTY {
                break;
            }
        }
        (sum, windows)
    }

    /// The share of a version's newest calls that is above the ceiling. One that does not rest on a few users comes first.
    fn over(&self, plan: &Plan, baseline: &Baseline, side: Side) -> Option<Finding> {
        let (calls, windows) = self.newest(side);
        if calls.answers < ENOUGH {
            return None;
        }
        let by_unit = self.by_unit(side, windows);
        let kinds: [(_, Count, _); 2] = [
            ("failed", |calls| calls.failed, baseline.failed()),
            ("were refused", |calls| calls.refused, baseline.refused()),
        ];
        let found = kinds.into_iter().filter_map(|(what, count, before)| {
            let ceiling = plan.spec.decision.ceiling.over(before);
            let beyond = |calls: &Calls| count(calls) as f64 - ceiling * calls.answers as f64;
            let rests_on = by_unit.as_ref().and_then(|units| rests_on(units.values().map(beyond).collect()));
            (beyond(&calls) > 0.0).then_some(Finding { what, ceiling, rests_on })
        });
        found.min_by_key(|finding| finding.rests_on.is_some())
    }

    /// The calls of a version per bucket of units in this many of the newest windows, if all of them were counted by unit.
    fn by_unit(&self, side: Side, windows: usize) -> Option<BTreeMap<u8, Calls>> {
        let units = (side.units)(&self.units);
        let mut sum: BTreeMap<u8, Calls> = BTreeMap::new();
        for window in units.range(units.len().checked_sub(windows)?..) {
            for (bucket, calls) in window.as_ref()? {
                sum.entry(*bucket).or_default().add(*calls);
            }
        }
        Some(sum)
    }

    /// Whether stable is above the ceiling. Then a comparison with it shows nothing.
    pub(crate) fn is_of_stable(&self, plan: &Plan, baseline: &Baseline) -> bool {
        self.over(plan, baseline, STABLE).is_some_and(|finding| finding.rests_on.is_none())
    }

    /// The calls of a version in this many of the newest windows.
    fn last(&self, windows: usize, side: Side) -> Calls {
        let mut sum = Calls::default();
        self.latest.iter().rev().take(windows).for_each(|window| sum.add((side.calls)(window)));
        sum
    }

    /// The issue, if there is one.
    pub(crate) fn issue(&self, plan: &Plan, baseline: &Baseline, as_of: EventTime) -> Option<Issue> {
        let found = [STABLE, CANARY].into_iter().filter_map(|side| Some((side, self.over(plan, baseline, side)?)));
        let (side, finding) = found.min_by_key(|(_, finding)| finding.rests_on.is_some())?;
        let of_stable = side.name == STABLE.name;
        // Both shares are of the same windows: a canary with few calls reaches further back, to before the outage.
        let windows = self.newest(side).1;
        let [canary, stable] = [self.last(windows, CANARY), self.last(windows, STABLE)].map(|calls| {
            let count = if finding.what == "failed" { calls.failed } else { calls.refused };
            count as f64 / calls.answers.max(1) as f64
        });
        // Windows without calls are not kept, so the number of windows is not a measure of time.
        let from = self
            .latest
            .iter()
            .rev()
            .nth(windows.checked_sub(1)?)
            .or(self.latest.front())?
            .end
            .minus(plan.spec.window.0);
        let last = Duration(as_of.since(from));
        let limit = if finding.rests_on.is_some() { "the ceiling is" } else { "no step is taken above" };
        let seen = format!(
            "in the last {last} {} of stable's calls {} and {} of the canary's; {limit} {}",
            percent(stable),
            finding.what,
            percent(canary),
            percent(finding.ceiling),
        );
        let text = match finding.rests_on {
            None if of_stable && canary > finding.ceiling => {
                format!("stable is failing too, so the canary is not the cause: {seen}")
            }
            None if of_stable => format!("stable is failing, so the canary is not the cause: {seen}"),
            _ => format!("too many of {}'s calls fail: {seen}", side.name),
        };
        Some(Issue::new(NoDataReason::Outage, plan.spec.no_data.outage, text).resting_on(finding.rests_on))
    }
}

/// The version whose calls are judged.
#[derive(Clone, Copy)]
struct Side {
    name: &'static str,
    calls: fn(&Window) -> Calls,
    units: fn(&OutageUnits) -> &ByUnit,
    units_mut: fn(&mut OutageUnits) -> &mut ByUnit,
}

const CANARY: Side = Side {
    name: "the canary",
    calls: |window| window.canary,
    units: |units| &units.canary,
    units_mut: |units| &mut units.canary,
};
const STABLE: Side = Side {
    name: "stable",
    calls: |window| window.stable,
    units: |units| &units.stable,
    units_mut: |units| &mut units.stable,
};

/// The calls of some arms per bucket of units. `None` if they were not counted by unit.
fn by_unit(
    strata: &[Compared<'_>],
    calls: Calls,
    arms: impl Fn(&Compared<'_>) -> Vec<Arm>,
) -> Option<BTreeMap<u8, Calls>> {
    let mut sum: BTreeMap<u8, Calls> = BTreeMap::new();
    for stratum in strata {
        for (bucket, counts) in arms(stratum).into_iter().flat_map(|arm| stratum.window.units_of(arm)) {
            sum.entry(bucket).or_default().add(Calls::of(counts));
        }
    }
    (calls.answers == 0 || !sum.is_empty()).then_some(sum)
}

/// The number of units on which a finding rests: the fewest without which nothing of it remains. `None` if it holds without a
/// [`HANDFUL`] of them, or if there are no others. `beyond` is what each unit adds to it.
fn rests_on(mut beyond: Vec<f64>) -> Option<usize> {
    beyond.sort_by(|one, two| two.total_cmp(one));
    let others = beyond.get(HANDFUL..).filter(|others| !others.is_empty())?;
    if others.iter().sum::<f64>() > 0.0 {
        return None;
    }
    let all: f64 = beyond.iter().sum();
    let left = beyond.iter().scan(all, |left, one| Some(std::mem::replace(left, *left - one)));
    Some(left.take_while(|left| *left > 0.0).count())
}
