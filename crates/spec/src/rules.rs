//! The rules of a rollout: what its records mean, and how they become evidence and decisions.
//!
//! A new release may interpret the same records differently: a count changes its meaning, a gate is added, a promotion waits for
//! more. Such a change must not affect a running rollout in the middle of its evidence. So every rollout keeps the version of the
//! rules under which it started, each of its Control records contains that version, and every fold checks [`Rules`] wherever two
//! versions differ.
//!
//! **This module is the only definition of what a version changed.** A change of meaning adds a method to [`Rules`] (and a version,
//! in a separate release). Both behaviors stay in the code until the older version is no longer supported.
//!
//! Invariant: a build supports its own version and the one before it. A rollout with any other version is never stopped. Its
//! evidence starts over under the build's own rules, at its current weight, and its audit records this.

use serde::{Deserialize, Serialize};
use serin_schemas::records::RULES;

/// Version of the rules of a rollout.
///
/// | version | rules |
/// |---|---|
/// | 1 | An answer is good, an `error` or unusable (`invalid_output`). Errors caused by callers count as errors. Promotion waits for the watermark. |
/// | 2 | An answer has one outcome of seven. Gates on `failed`, on refused and redirected answers, and on `unusable`. A finding that rests on a few users is held back. Counts are judged by the number of events of each answer. A margin that reaches beyond a metric's range can pass. Promotion waits for every writer. A gate without data holds the rollout, and no step is taken while stable fails. An answer that another system reports counts for the arm whose version it names. |
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(from = "i32", into = "i32")]
pub struct Rules(i32);

impl Rules {
    /// The rules from before rules had versions.
    pub const FIRST: Self = Self(1);
    /// The rules of this build, under which new rollouts start.
    pub const CURRENT: Self = Self(RULES);
    /// The oldest rules that this build supports.
    pub const OLDEST: Self = Self(if RULES > 1 { RULES - 1 } else { 1 });

    /// The rules with this version, supported or not. A version below 1 means the first rules, because older builds did not write
    /// the field.
    pub const fn numbered(number: i32) -> Self {
        Self(if number < 1 { 1 } else { number })
    }

    /// The version of the rules.
    pub const fn number(self) -> i32 {
        self.0
    }

    /// Whether this build supports these rules.
    pub fn is_known(self) -> bool {
        (Self::OLDEST..=Self::CURRENT).contains(&self)
    }

    /// The rules under which this build folds such a rollout: the same rules if it supports them, otherwise its own.
    #[must_use]
    pub fn folded(self) -> Self {
        if self.is_known() { self } else { Self::CURRENT }
    }

    /// Whether answers are counted by outcome, with the built-in gates on outcomes.
    pub fn count_outcomes(self) -> bool {
        self.0 >= 2
    }

    /// Whether a finding must also hold without the users that contribute most to it.
    pub fn guard_units(self) -> bool {
        self.0 >= 2
    }

    /// Whether counts are judged by the number of events of each answer, not by their sum.
    pub fn count_by_value(self) -> bool {
        self.0 >= 2
    }

    /// Whether a check can pass at the end of a metric's range if the margin reaches beyond it.
    pub fn pass_at_ends(self) -> bool {
        self.0 >= 2
    }

    /// Whether missing evidence stops a rollout: a gate without data, a check on few answers, a warm-up with mostly broken answers,
    /// or a stable version that fails itself.
    pub fn need_data(self) -> bool {
        self.0 >= 2
    }

    /// Whether an answer that another system reports counts for an arm only if it names the arm's version.
    pub fn check_versions(self) -> bool {
        self.0 >= 2
    }
}

impl From<i32> for Rules {
    fn from(number: i32) -> Self {
        Self::numbered(number)
    }
}

impl From<Rules> for i32 {
    fn from(rules: Rules) -> Self {
        rules.0
    }
}

/// A record without a number was written under the first rules.
impl Default for Rules {
    fn default() -> Self {
        Self::FIRST
    }
}

impl std::fmt::Display for Rules {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_build_supports_its_own_rules_and_the_previous_ones() {
        let known: Vec<i32> = (1..RULES + 3).filter(|&number| Rules::numbered(number).is_known()).collect();
        assert_eq!(known, [RULES - 1, RULES]);
        assert_eq!(Rules::numbered(RULES - 1).folded(), Rules::OLDEST);
        for unknown in [RULES + 1, i32::MAX] {
            assert_eq!(Rules::numbered(unknown).folded(), Rules::CURRENT, "{unknown}");
        }
        for absent in [i32::MIN, -1, 0] {
            assert_eq!(Rules::numbered(absent), Rules::FIRST, "{absent}");
        }
    }

    #[test]
    fn the_first_rules_keep_the_old_behavior() {
        let flags = |rules: Rules| {
            let judged = [rules.count_outcomes(), rules.count_by_value(), rules.pass_at_ends(), rules.need_data()];
            let believed = [rules.guard_units(), rules.check_versions()];
            (judged, believed)
        };
        assert_eq!(flags(Rules::default()), ([false; 4], [false; 2]));
        assert_eq!(flags(Rules::CURRENT), ([true; 4], [true; 2]));
    }
}
