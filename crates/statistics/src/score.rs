//! The score as an interval: its value if all undecided metrics failed, and if they passed.

use serde::{Deserialize, Serialize};

/// The finding about one judged metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Finding {
    /// The metric is shown to be within the margin.
    Pass,
    /// The metric is shown to be beyond the margin.
    Fail,
    /// Neither is shown. A metric without data is undecided.
    Undecided,
}

/// `low = 100 x weight of passes`, `high = 100 x (1 - weight of failures)`, with weights scaled to sum to 1.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Score {
    /// The pessimistic score: undecided counts as failed.
    pub low: f64,
    /// The optimistic score: undecided counts as passed.
    pub high: f64,
}

/// The score of `(weight, finding)` pairs. If nothing is judged, it is 0 to 100.
pub fn score(metrics: &[(f64, Finding)]) -> Score {
    let usable = |weight: f64| if weight > 0.0 && weight.is_finite() { weight } else { 0.0 };
    let total: f64 = metrics.iter().map(|m| usable(m.0)).sum();
    if total <= 0.0 {
        return Score { low: 0.0, high: 100.0 };
    }
    let share =
        |finding| -> f64 { metrics.iter().filter(|m| m.1 == finding).map(|m| usable(m.0)).sum::<f64>() / total };
    Score { low: 100.0 * share(Finding::Pass), high: 100.0 * (1.0 - share(Finding::Fail)) }
}

/// The finding about a group of metrics: FAIL if the group's evidence ([`crate::group_ln_e`]) proves harm, PASS if the group
/// has members and all of them pass.
pub fn group_finding(failed: bool, members: &[Finding]) -> Finding {
    if failed {
        Finding::Fail
    } else if !members.is_empty() && members.iter().all(|&member| member == Finding::Pass) {
        Finding::Pass
    } else {
        Finding::Undecided
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_pass_together_and_fail_by_their_evidence() {
        use Finding::{Fail, Pass, Undecided};
        assert_eq!(group_finding(false, &[Pass, Pass]), Pass);
        assert_eq!(group_finding(false, &[Pass, Undecided]), Undecided);
        assert_eq!(group_finding(false, &[Pass, Fail]), Undecided);
        assert_eq!(group_finding(true, &[Pass, Pass]), Fail);
        assert_eq!(group_finding(false, &[]), Undecided);
    }

    #[test]
    fn undecided_widens_it() {
        use Finding::{Fail, Pass, Undecided};
        assert_eq!(score(&[(2.0, Pass), (1.0, Fail), (1.0, Undecided)]), Score { low: 50.0, high: 75.0 });
        assert_eq!(score(&[(1.0, Pass), (3.0, Pass)]), Score { low: 100.0, high: 100.0 });
        assert_eq!(score(&[]), Score { low: 0.0, high: 100.0 });
        assert_eq!(score(&[(f64::NAN, Fail), (1.0, Undecided)]), Score { low: 0.0, high: 100.0 });
    }
}
