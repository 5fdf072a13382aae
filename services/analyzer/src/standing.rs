//! What holds a rollout, and which of it an operator has acknowledged by resuming.
//!
//! A finding on the evidence lasts for the step or longer, so a resumed rollout would at once be held again for the same finding.
//! The operator who resumes has seen the verdict, so its findings hold no longer and become warnings. A new finding holds, and so
//! does a known one that is worse, or that returns after it was over. None of this is a pass: a check without data stays without
//! data. A state that ends by itself, like an outage, cannot be acknowledged.
//!
//! Applies since rules version 2.

use serde::{Deserialize, Serialize};
use serin_schemas::{
    ids::EventTime,
    records::{HealthIssue, NoDataReason},
};
use serin_spec::Policy;

/// A finding that has grown by this factor is worse than the one that was acknowledged.
const WORSE: f64 = 1.5;
/// Maximum number of findings of one rollout that are kept. Any further finding cannot be acknowledged, so it holds.
const MOST: usize = 256;

/// An issue with the evidence.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Issue {
    pub(crate) reason: NoDataReason,
    pub(crate) policy: Policy,
    pub(crate) sentence: String,
    /// The metric that the issue is about, if it is about one.
    metric: Option<u32>,
    /// Distinguishes the issue from others of the same reason and metric.
    about: String,
    /// How bad it is, if that can grow.
    size: f64,
}

impl Issue {
    pub(crate) fn new(reason: NoDataReason, policy: Policy, sentence: String) -> Self {
        Self { reason, policy, sentence, metric: None, about: String::new(), size: 0.0 }
    }

    /// Sets the metric, by its index in the spec.
    pub(crate) fn of(self, metric: usize) -> Self {
        Self { metric: u32::try_from(metric).ok(), ..self }
    }

    /// Sets what distinguishes the issue from others of its reason.
    pub(crate) fn about(self, about: impl Into<String>) -> Self {
        Self { about: about.into(), ..self }
    }

    /// Sets the size.
    pub(crate) fn sized(self, size: f64) -> Self {
        Self { size: size.abs(), ..self }
    }

    /// Where a key assigns the arm, a finding that rests on a few users is reported and stops nothing.
    pub(crate) fn resting_on(self, users: Option<usize>) -> Self {
        let (Some(users), true) = (users, self.stops()) else { return self };
        let users = match users {
            0 => "few users".to_owned(),
            1 => "1 user".to_owned(),
            _ => format!("{users} users"),
        };
        let sentence = format!("{}; this rests on {users}, so it does not hold the rollout", self.sentence);
        Self { policy: Policy::Warn, sentence, ..self }
    }

    /// Whether the finding holds or ends the rollout.
    pub(crate) fn stops(&self) -> bool {
        matches!(self.policy, Policy::Hold | Policy::Rollback)
    }
}

impl From<Issue> for HealthIssue {
    fn from(issue: Issue) -> Self {
        Self { reason: issue.reason, policy: issue.policy.name().to_owned(), sentence: issue.sentence }
    }
}

/// A finding that holds, or would hold if it had not been acknowledged.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Found {
    reason: NoDataReason,
    metric: Option<u32>,
    about: String,
    /// The first verdict that reported it, or that reported it as worse.
    since: EventTime,
    /// The size of the finding at that time.
    size: f64,
}

impl Found {
    fn is(&self, issue: &Issue) -> bool {
        (self.reason, self.metric) == (issue.reason, issue.metric) && self.about == issue.about
    }
}

/// The findings that hold one rollout.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Standing {
    found: Vec<Found>,
    /// The newest verdict that an operator had seen when resuming.
    acknowledged: Option<EventTime>,
}

impl Standing {
    /// Takes the acknowledgment of the verdict as of this time.
    pub(crate) fn acknowledge(&mut self, as_of: Option<EventTime>) {
        self.acknowledged = self.acknowledged.max(as_of);
    }

    /// Records the issues of a verdict as of `now`. `is_over` returns whether a metric that had no values has some now.
    pub(crate) fn note(&mut self, now: EventTime, issues: &[Issue], is_over: impl Fn(usize) -> bool) {
        self.found.retain(|found| {
            issues.iter().any(|issue| found.is(issue))
                || match (found.reason, found.metric) {
                    // Values are counted from scratch in each step, so for a while nothing is known.
                    (NoDataReason::ValueMissing, Some(metric)) => !is_over(metric as usize),
                    (NoDataReason::LabelsMissing | NoDataReason::NoBaseline, _) => false,
                    _ => true,
                }
        });
        for issue in issues.iter().filter(|issue| issue.policy == Policy::Hold && issue.reason.is_finding()) {
            if let Some(found) = self.found.iter_mut().find(|found| found.is(issue)) {
                if issue.size > WORSE * found.size {
                    (found.since, found.size) = (now, issue.size);
                }
            } else if self.found.len() < MOST {
                let Issue { reason, metric, about, size, .. } = issue.clone();
                self.found.push(Found { reason, metric, about, since: now, size });
            }
        }
    }

    /// Whether the issue was acknowledged.
    fn is_acknowledged(&self, issue: &Issue) -> bool {
        let found = self.found.iter().find(|found| found.is(issue));
        found.is_some_and(|found| self.acknowledged.is_some_and(|seen| found.since <= seen))
    }

    /// The issue with its effective policy: an acknowledged issue only warns.
    pub(crate) fn judged(&self, mut issue: Issue) -> Issue {
        if issue.policy == Policy::Hold && self.is_acknowledged(&issue) {
            issue.policy = Policy::Warn;
            issue.sentence.push_str(" (acknowledged by resume)");
        }
        issue
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn issue(about: &str, size: f64) -> Issue {
        let issue = Issue::new(NoDataReason::ValueShareDiffers, Policy::Hold, "it differs".to_owned());
        issue.of(1).about(about).sized(size)
    }

    fn holds(standing: &Standing, issue: &Issue) -> bool {
        standing.judged(issue.clone()).stops()
    }

    #[test]
    fn acknowledged_findings_hold_no_more_but_new_or_worse_ones_do() {
        let mut standing = Standing::default();
        let never = |_: usize| false;
        let seen = issue("a", 0.1);
        standing.note(EventTime(10), std::slice::from_ref(&seen), never);
        assert!(holds(&standing, &seen));
        standing.acknowledge(Some(EventTime(10)));
        // A finding after the verdict that was acknowledged.
        standing.note(EventTime(20), &[seen.clone(), issue("b", 0.1)], never);
        assert!(!holds(&standing, &seen) && holds(&standing, &issue("b", 0.1)));
        assert!(!holds(&standing, &issue("a", 0.15)));
        let judged = standing.judged(seen.clone());
        assert_eq!((judged.policy, judged.sentence.as_str()), (Policy::Warn, "it differs (acknowledged by resume)"));
        let worse = issue("a", 0.16);
        standing.note(EventTime(30), std::slice::from_ref(&worse), never);
        assert!(holds(&standing, &worse));
        // An older time revokes nothing and adds nothing.
        standing.acknowledge(Some(EventTime(5)));
        standing.acknowledge(None);
        assert!(holds(&standing, &worse) && standing.acknowledged == Some(EventTime(10)));
        standing.acknowledge(Some(EventTime(30)));
        assert!(!holds(&standing, &worse));
    }

    #[test]
    fn a_finding_that_was_over_and_returns_is_new() {
        for reason in [NoDataReason::ValueMissing, NoDataReason::LabelsMissing, NoDataReason::NoBaseline] {
            let issue = Issue::new(reason, Policy::Hold, "x".to_owned()).of(0);
            let mut standing = Standing::default();
            standing.note(EventTime(10), std::slice::from_ref(&issue), |_| false);
            standing.acknowledge(Some(EventTime(10)));
            standing.note(EventTime(20), &[], |_| true);
            standing.note(EventTime(30), std::slice::from_ref(&issue), |_| false);
            assert!(holds(&standing, &issue), "{reason:?}");
        }
        // A step starts, and nothing is known of it yet.
        let issue = Issue::new(NoDataReason::ValueMissing, Policy::Hold, "x".to_owned()).of(0);
        let mut standing = Standing::default();
        standing.note(EventTime(10), std::slice::from_ref(&issue), |_| false);
        standing.acknowledge(Some(EventTime(10)));
        standing.note(EventTime(20), &[], |_| false);
        assert!(!holds(&standing, &issue));
    }

    #[test]
    fn a_state_that_ends_by_itself_and_a_rollback_cannot_be_acknowledged() {
        for (reason, policy) in [
            (NoDataReason::Outage, Policy::Hold),
            (NoDataReason::NoCanaryTraffic, Policy::Hold),
            (NoDataReason::EventsLost, Policy::Hold),
            (NoDataReason::ValueMissing, Policy::Rollback),
        ] {
            let issue = Issue::new(reason, policy, "x".to_owned());
            let mut standing = Standing::default();
            standing.note(EventTime(10), std::slice::from_ref(&issue), |_| false);
            standing.acknowledge(Some(EventTime(10)));
            assert!(holds(&standing, &issue), "{reason:?}");
        }
    }
}
