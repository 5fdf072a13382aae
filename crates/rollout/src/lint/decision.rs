//! Rules on error rates, scores, the ceiling and promotion.

use super::Found;
use serin_spec::{RolloutSpec, Share};

/// Fewer answers than this do not show anything.
const FEW_ANSWERS: u64 = 7;
/// Largest `minAnswers`. To wait for more answers, use `bake.minEvents`.
const MOST_ANSWERS: u64 = 1_000_000;

pub(super) fn lint(spec: &RolloutSpec, found: &mut Found) {
    let decision = &spec.decision;
    for (path, rate) in
        [("decision.falseRollback", decision.false_rollback), ("decision.falsePromotion", decision.false_promotion)]
    {
        if !(rate > 0.0 && rate <= 0.5) {
            found.error(
                path,
                format!("{rate} is not a valid error rate"),
                "use a number above 0, up to 0.5, such as 0.01",
            );
        }
    }
    let (low, high) = (decision.rollback_score, decision.promote_score);
    if !(high > 0.0 && high <= 100.0) {
        found.error(
            "decision.promoteScore",
            format!("{high} is not a valid score"),
            "use a number above 0, up to 100, such as 95",
        );
    } else if !(low >= 0.0 && low < high) {
        let message = format!("a rollback score of {low} is not below the promote score of {high}");
        found.error("decision.rollbackScore", message, "set it below promoteScore, such as 60");
    }
    if decision.min_answers > MOST_ANSWERS {
        let message = format!("no check would count before {} answers of each arm", decision.min_answers);
        found.error("decision.minAnswers", message, "use a few dozen; 30 is the default");
    } else if decision.min_answers < FEW_ANSWERS {
        let message = format!("a check with only {} answers counts as not failed", decision.min_answers);
        found.warn("decision.minAnswers", message, "use a few dozen; 30 is the default");
    }
    let ceiling = decision.ceiling;
    if !(ceiling.times.is_finite() && ceiling.times >= 1.0) {
        let message = format!("stable itself would exceed a ceiling of {} times its share in warm-up", ceiling.times);
        found.error("decision.ceiling.times", message, "use a number of at least 1; 10 is the default");
    }
    if ceiling.at_least >= Share::ALL {
        let message = "no share is above 100%, so the rollout would go on while every call fails";
        found.error("decision.ceiling.atLeast", message, "use less than 100%; 20% is the default");
    }
    let promotion = &spec.promotion;
    match promotion.holdback {
        Some(_) if promotion.monitor.is_zero() => {
            found.warn(
                "promotion.holdback",
                "without a monitor nothing is held back",
                "set promotion.monitor, such as 24h",
            );
        }
        Some(Share(0)) => {
            found.error(
                "promotion.holdback",
                "the monitor has nothing to compare with",
                "hold some traffic back, such as 5%",
            );
        }
        Some(share) if share >= Share(5_000) => {
            let message = format!("with {share} held back, half or more of the traffic is not promoted");
            found.error("promotion.holdback", message, "hold back less than half, such as 5%");
        }
        _ => {}
    }
}
