//! The rules of a rollout: what its records mean, and how evidence and decisions are made of them.
//!
//! A new release may read the same records in another way: a count changes its meaning, a gate is added, a promotion waits for
//! more. A rollout that runs must not see such a change in the middle of its evidence. So every rollout keeps the number of the
//! rules under which it began, each of its Control records carries that number, and every fold asks [`Rules`] wherever two
//! numbers differ.
//!
//! **This is the one place that says what a number changed.** Whoever changes a meaning adds a question to [`Rules`] (and, in a
//! release of its own, a number), and both answers stay in the code until the older number is no longer known.
//!
//! Invariant: a build knows its own number and the one before it. A rollout of any other number is never stopped: its evidence
//! starts over under the build's own rules, at the weight that it has, and its audit says so.

use serde::{Deserialize, Serialize};
use serin_schemas::records::RULES;

/// Number of the rules of a rollout.
///
/// | number | what it is |
/// |---|---|
/// | 1 | An answer is good, an `error` or unusable (`invalid_output`). What a caller brings about counts as an error. Promotion waits for the watermark. |
/// | 2 | An answer has one outcome of seven. Gates on `failed`, on refused and redirected answers, and on `unusable`. What a few users bring about is held back. Counts are judged by the number of each answer. A margin that reaches beyond a metric's range can pass. Promotion waits for every writer. A gate without data holds, and no step is taken while stable fails. Foreign answers count for the arm whose version they name. |
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(from = "i32", into = "i32")]
pub struct Rules(i32);

impl Rules {
    /// The rules before any had a number.
    pub const FIRST: Self = Self(1);
    /// The rules of this build: what a rollout begins under.
    pub const CURRENT: Self = Self(RULES);
    /// The oldest rules that this build knows.
    pub const OLDEST: Self = Self(if RULES > 1 { RULES - 1 } else { 1 });

    /// The rules with this number, known or not. A number below 1 stands for the first: that is what a field that older builds
    /// did not write is read as.
    pub const fn numbered(number: i32) -> Self {
        Self(if number < 1 { 1 } else { number })
    }

    /// Their number.
    pub const fn number(self) -> i32 {
        self.0
    }

    /// Whether this build can go on under these rules.
    pub fn is_known(self) -> bool {
        (Self::OLDEST..=Self::CURRENT).contains(&self)
    }

    /// The rules under which this build folds a rollout of these: the same if it knows them, else its own.
    #[must_use]
    pub fn folded(self) -> Self {
        if self.is_known() { self } else { Self::CURRENT }
    }

    /// Whether answers are counted by their outcome, with the built-in gates that belong to it.
    pub fn count_outcomes(self) -> bool {
        self.0 >= 2
    }

    /// Whether a finding must hold without the users who speak most for it.
    pub fn guard_units(self) -> bool {
        self.0 >= 2
    }

    /// Whether counts are judged by the number of events of each answer, not by their sum.
    pub fn count_by_value(self) -> bool {
        self.0 >= 2
    }

    /// Whether a pass may rest on the end of a metric's range, where the margin reaches beyond it.
    pub fn pass_at_ends(self) -> bool {
        self.0 >= 2
    }

    /// Whether what was not seen stops a rollout: a gate without data, a check on few answers, a warm-up of broken answers, a
    /// stable that fails itself.
    pub fn need_data(self) -> bool {
        self.0 >= 2
    }

    /// Whether an answer that others report counts for an arm only if it names the arm's version.
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

/// A record that does not say was written under the first.
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
    fn a_build_knows_its_own_rules_and_those_before() {
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
    fn the_first_rules_are_as_before() {
        let questions = |rules: Rules| {
            let judged = [rules.count_outcomes(), rules.count_by_value(), rules.pass_at_ends(), rules.need_data()];
            let believed = [rules.guard_units(), rules.check_versions()];
            (judged, believed)
        };
        assert_eq!(questions(Rules::default()), ([false; 4], [false; 2]));
        assert_eq!(questions(Rules::CURRENT), ([true; 4], [true; 2]));
    }
}
