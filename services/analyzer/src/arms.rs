//! Both arms of a window: how many answers each should have, and how far their shares may differ. Modules like `health` report issues.

use serde::{Deserialize, Serialize};
use serin_kinds::Unit;
use serin_schemas::records::Arm;
use serin_sketches::Summary;
use serin_statistics::Stratum;

use crate::window::Merged;

/// Chance of a false alarm of each check over a whole step (statistics.md 3.6).
pub(crate) const ALPHA: f64 = 0.001;
/// An arm that was due this many answers and had none is silent: by chance that happens less than once in a thousand times
/// (Poisson, `exp(-7) = 0.0009`).
pub(crate) const ENOUGH: f64 = 7.0;
/// Differences of late or labelled shares up to this are not findings.
pub(crate) const SHARE_MARGIN: f64 = 0.01;

/// The traffic that a generation should have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Shares {
    /// Canary's share in 1/10000.
    pub(crate) canary: i32,
    /// Control's share in 1/10000.
    pub(crate) control: i32,
}

impl Shares {
    /// Whether one arm has no answers although the other arm has enough to expect some.
    pub(crate) fn is_silent(self, canary: u64, control: u64) -> bool {
        let all = (canary + control) as f64 / f64::from(self.canary + self.control).max(1.0);
        let due = |count: u64, share: i32| count == 0 && all * f64::from(share) >= ENOUGH;
        due(canary, self.canary) || due(control, self.control)
    }

    pub(crate) fn of(self, arm: Arm) -> i32 {
        if arm == Arm::Canary { self.canary } else { self.control }
    }
}

/// One generation's part of a window in which the arms are compared.
#[derive(Clone, Copy)]
pub(crate) struct Compared<'a> {
    pub(crate) step: i32,
    pub(crate) shares: Shares,
    /// The arm of the version on trial.
    pub(crate) trial: Arm,
    /// Whether the window is left out after a change of traffic, so that the arms are not compared.
    pub(crate) settling: bool,
    pub(crate) window: &'a Merged,
}

/// Both arms of one generation in a window, or of one segment value in it.
pub(crate) struct BothArms {
    /// The generation's step.
    pub(crate) step: i32,
    /// Index of the value among the strata; `None` for all answers together.
    pub(crate) place: Option<usize>,
    pub(crate) canary: Summary,
    pub(crate) control: Summary,
}

impl BothArms {
    /// The pair as the statistics take it.
    pub(crate) fn stratum(&self) -> Stratum<'_> {
        Stratum { canary: &self.canary, control: &self.control }
    }
}

/// Formats a share for people.
pub(crate) fn percent(share: f64) -> String {
    Unit::Percent.value(share)
}
