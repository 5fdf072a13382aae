//! Whether stable itself is failing, or whether the share of failed calls of either arm is above the ceiling
//! (`decision.ceiling`), so that no step is taken.
//! Two versions that both fail are equal, and an equal canary passes, but that is not a reason to send it more calls.
//!
//! Applies since rules version 2.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};
use serin_schemas::{
    ids::EventTime,
    records::{Arm, NoDataReason},
};
use serin_spec::units::Duration;

use crate::{
    arms::{Compared, percent},
    baseline::Baseline,
    plan::Plan,
    standing::Issue,
};

/// Windows that are kept.
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

/// The latest windows of one rollout.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Outage {
    latest: VecDeque<Window>,
}

/// A share of one version's calls that is above the ceiling.
#[derive(Clone, Copy)]
struct Finding {
    what: &'static str,
    ceiling: f64,
}

impl Outage {
    /// Takes a window of stream 0 in which the arms are compared.
    pub(crate) fn observe(&mut self, end: EventTime, strata: &[Compared<'_>]) {
        let (mut canary, mut stable) = (Calls::default(), Calls::default());
        for stratum in strata {
            let of = |arm: Arm| {
                let counts = stratum.window.arms.get(&arm);
                counts.map_or(Calls::default(), |counts| Calls {
                    answers: counts.predictions as u64,
                    failed: counts.errors as u64,
                    refused: counts.refused as u64,
                })
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
    }

    /// The newest calls of a version, and how many windows they are from.
    fn newest(&self, of: fn(&Window) -> Calls) -> (Calls, usize) {
        let mut sum = Calls::default();
        let mut windows = 0;
        for window in self.latest.iter().rev() {
            sum.add(of(window));
            windows += 1;
            if sum.answers >= PLENTY {
                break;
            }
        }
        (sum, windows)
    }

    fn over(plan: &Plan, baseline: &Baseline, calls: Calls) -> Option<Finding> {
        if calls.answers < ENOUGH {
            return None;
        }
        let kinds = [("failed", calls.failed, baseline.failed()), ("were refused", calls.refused, baseline.refused())];
        kinds.into_iter().find_map(|(what, count, before)| {
            let ceiling = plan.spec.decision.ceiling.over(before);
            (count as f64 > ceiling * calls.answers as f64).then_some(Finding { what, ceiling })
        })
    }

    /// Whether stable is above the ceiling. Then a comparison with it shows nothing.
    pub(crate) fn is_of_stable(&self, plan: &Plan, baseline: &Baseline) -> bool {
        Self::over(plan, baseline, self.newest(|window| window.stable).0).is_some()
    }

    /// The calls of a version in this many of the newest windows.
    fn last(&self, windows: usize, of: fn(&Window) -> Calls) -> Calls {
        let mut sum = Calls::default();
        self.latest.iter().rev().take(windows).for_each(|window| sum.add(of(window)));
        sum
    }

    /// The issue, if there is one.
    pub(crate) fn issue(&self, plan: &Plan, baseline: &Baseline, as_of: EventTime) -> Option<Issue> {
        let ((canary, one), (stable, two)) = (self.newest(|window| window.canary), self.newest(|window| window.stable));
        let of_stable = Self::over(plan, baseline, stable);
        let finding = of_stable.or_else(|| Self::over(plan, baseline, canary))?;
        // Both shares are of the same windows: a canary with few calls reaches further back, to before the outage.
        let windows = if of_stable.is_some() { two } else { one };
        let [canary, stable] = [self.last(windows, |window| window.canary), self.last(windows, |window| window.stable)]
            .map(|calls| {
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
        let seen = format!(
            "in the last {last} {} of stable's calls {} and {} of the canary's; no step is taken above {}",
            percent(stable),
            finding.what,
            percent(canary),
            percent(finding.ceiling),
        );
        let text = match of_stable {
            Some(_) if canary > finding.ceiling => {
                format!("stable is failing too, so the canary is not the cause: {seen}")
            }
            Some(_) => format!("stable is failing, so the canary is not the cause: {seen}"),
            None => format!("too many of the canary's calls fail: {seen}"),
        };
        Some(Issue::new(NoDataReason::Outage, plan.spec.no_data.outage, text))
    }
}
