//! Answers that external systems report for an arm and that name another version than the arm's. They are left out, so an arm that has
//! only such answers seems silent.

use serin_schemas::records::{Arm, NoDataReason};
use serin_spec::Policy;

use crate::{rollout::Rollout, standing::Issue};

/// The answers of an arm that are left out, as a sentence; `None` if there are none.
fn left_out(rollout: &Rollout, arm: Arm) -> Option<String> {
    let checks = rollout.plan().is_external() && rollout.plan().rules.check_versions();
    let excluded = rollout.head().arms.get(&arm).filter(|_| checks)?.excluded;
    let (name, version) = match arm {
        Arm::Canary => ("the canary", &rollout.head().canary),
        arm => (arm.as_str(), &rollout.head().stable),
    };
    let version = version.in_words();
    let text = format!(
        "{excluded} answers reported for {name} are left out: they name another version than {version}, or were not assigned at random"
    );
    (excluded > 0).then_some(text)
}

/// The issues about answers that are left out, by arm.
pub(crate) fn foreign(rollout: &Rollout) -> Vec<Issue> {
    let of = |arm: Arm| {
        let issue = Issue::new(NoDataReason::ForeignVersion, Policy::Warn, left_out(rollout, arm)?);
        Some(issue.about(arm.as_str()))
    };
    [Arm::Canary, Arm::Control, Arm::Stable].into_iter().filter_map(of).collect()
}

/// The issues, where those about an arm without answers name the answers that are left out.
pub(crate) fn explained(mut issues: Vec<Issue>, rollout: &Rollout) -> Vec<Issue> {
    for issue in &mut issues {
        let arm = match issue.reason {
            NoDataReason::NoCanaryTraffic => Arm::Canary,
            NoDataReason::NoControlTraffic => Arm::Control,
            _ => continue,
        };
        if let Some(cause) = left_out(rollout, arm) {
            issue.sentence = format!("{}; {cause}", issue.sentence);
        }
    }
    issues
}
