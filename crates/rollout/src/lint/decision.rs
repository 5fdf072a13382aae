//! Rules on error rates, scores and promotion.

use super::Found;
use crate::{RolloutSpec, Share};

pub(super) fn lint(spec: &RolloutSpec, found: &mut Found) {
    let decision = &spec.decision;
    for (path, rate) in
        [("decision.falseRollback", decision.false_rollback), ("decision.falsePromotion", decision.false_promotion)]
    {
        if !(rate > 0.0 && rate <= 0.5) {
            found.error(path, format!("{rate} is no error rate"), "use a number above 0, up to 0.5, such as 0.01");
        }
    }
    let (low, high) = (decision.rollback_score, decision.promote_score);
    if !(high > 0.0 && high <= 100.0) {
        found.error(
            "decision.promoteScore",
            format!("{high} is no score to reach"),
            "use a number up to 100, such as 95",
        );
    } else if !(low >= 0.0 && low < high) {
        let message = format!("a rollback score of {low} is not below the promote score of {high}");
        found.error("decision.rollbackScore", message, "set it below promoteScore, such as 60");
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
                "a monitor has nothing to compare with",
                "hold some traffic back, such as 5%",
            );
        }
        Some(share) if share >= Share(5_000) => {
            let message = format!("with {share} held back most traffic is not promoted");
            found.error("promotion.holdback", message, "hold less than half back, such as 5%");
        }
        _ => {}
    }
}
