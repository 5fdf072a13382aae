//! What routers report about a rollout: whether they use its table, and calls that they could not assign.

use serin_rollout::{RolloutState, planner::Applied};
use serin_schemas::{
    ids::{ModelName, Version},
    records::{RouterStatus, Undecided},
};

/// Reports of routers about a rollout.
pub(super) struct Reported {
    /// The routers that use its table.
    pub(super) applied: Option<Applied>,
    /// The calls that they could not assign as the rollout requires, by router.
    pub(super) undecided: Vec<(String, Undecided)>,
    /// Why they cannot use its table or a newer one, one sentence each.
    pub(super) refused: Vec<String>,
}

/// Why routers cannot use the rollout's table or a newer one.
pub(super) fn refused(routers: &[RouterStatus], state: &RolloutState) -> Vec<String> {
    let of = |router: &RouterStatus| {
        let reported = router.refused.iter().filter(|reported| reported.model == state.spec.model);
        let reported =
            reported.filter(|reported| reported.generation >= state.generation || reported.generation.0 == 0);
        reported
            .map(|reported| format!("router {} cannot use the newest table: {}", router.router, reported.reason))
            .collect::<Vec<_>>()
    };
    routers.iter().flat_map(of).collect()
}

/// The calls of a model that routers could not assign as its rollout requires, by router.
pub(super) fn undecided(routers: &[RouterStatus], model: &ModelName) -> Vec<(String, Undecided)> {
    let of = |router: &RouterStatus| {
        let reported = router.undecided.iter().filter(|reported| reported.model == *model);
        reported.map(|reported| (router.router.clone(), reported.clone())).collect::<Vec<_>>()
    };
    routers.iter().flat_map(of).collect()
}

/// A sentence about the calls that a router could not assign as required.
pub(super) fn undecided_sentence(router: &str, reported: &Undecided, stable: &Version) -> String {
    let Undecided { needed, reason, calls, of, .. } = reported;
    let share = 100.0 * *calls as f64 / (*of).max(1) as f64;
    let what = match needed.as_str() {
        "sticky" => "the sticky key",
        "target" => "the value that a target matches",
        _ => "the value of a segment",
    };
    if reason == "absent" {
        return format!(
            "  router {router}: {calls} of {of} calls ({share:.1} %) have no sticky key; they are split at random"
        );
    }
    format!(
        "  ! router {router}: {what} could not be read in {calls} of {of} calls ({share:.1} %, {reason}); they went to {} and are not compared",
        stable.in_words()
    )
}

/// Why routers cannot use the newest table, unless `applied` contains it already.
pub(super) fn refusals(reported: &Reported) -> impl Iterator<Item = &String> {
    reported.refused.iter().filter(|_| reported.applied.as_ref().is_none_or(|applied| !applied.refused))
}
