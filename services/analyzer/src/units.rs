//! The number of units (users, sessions) that a finding rests on, where a key assigns the arm.

use serde::{Deserialize, Serialize};
use serin_schemas::records::NoDataReason;
use serin_spec::Policy;
use serin_statistics::{Hypothesis, Robustness, UnitEvidence, handful::MIN_UNITS};

use crate::{arms::percent, standing::Issue};

/// Largest share of an arm's answers that may name no unit. They count as one unit, which bounds their part in any finding.
const MOST_WITHOUT: f64 = 0.1;
/// Largest difference of that share between the arms. A version that loses the units of its failures would hide them.
const MOST_APART: f64 = 0.01;
/// Number of standard errors by which the difference must exceed [`MOST_APART`], at any look.
const CERTAIN: f64 = 5.0;
/// Fewest answers of an arm for any of these checks.
const ENOUGH: u64 = 7;

/// Units behind one hypothesis, in a separate row. That of a rollout's first hypothesis also counts the step's answers that name a unit.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Units {
    /// What the units add to the hypothesis.
    pub(crate) sums: UnitEvidence,
    /// Compared answers of canary and control in the step.
    answers: [u64; 2],
    /// Those of them that name no unit.
    without: [u64; 2],
}

impl Units {
    /// Counts a window: answers of canary and control, and how many of them name no unit.
    pub(crate) fn count(&mut self, canary: (u64, u64), control: (u64, u64)) {
        for (place, (answers, without)) in [canary, control].into_iter().enumerate() {
            self.answers[place] = self.answers[place].saturating_add(answers);
            self.without[place] = self.without[place].saturating_add(without.min(answers));
        }
    }

    /// Resets the counts, because a step starts.
    pub(crate) fn forget_counts(&mut self) {
        (self.answers, self.without) = ([0; 2], [0; 2]);
    }

    /// The issue with the units that answers name, if there is one.
    pub(crate) fn issue(&self) -> Option<Issue> {
        if self.answers.iter().any(|answers| *answers < ENOUGH) || self.without == [0; 2] {
            return None;
        }
        let n = self.answers.map(|answers| answers as f64);
        let shares = [0, 1].map(|place| self.without[place] as f64 / n[place]);
        let all = (self.without[0] + self.without[1]) as f64 / (n[0] + n[1]);
        let error = libm::sqrt(all * (1.0 - all) * (1.0 / n[0] + 1.0 / n[1]));
        let apart = (shares[0] - shares[1]).abs() > MOST_APART + CERTAIN * error;
        let too_many = apart || shares.iter().any(|share| *share > MOST_WITHOUT);
        let policy = if too_many { Policy::Hold } else { Policy::Warn };
        let seen = format!("{} of the canary's answers and {} of control's", percent(shares[0]), percent(shares[1]));
        let sentence = if too_many {
            format!(
                "{seen} name no unit (user, session), although `assignment.sticky` needs one: send `unit` with each event"
            )
        } else {
            format!("{seen} name no unit (user, session); together they count as one unit")
        };
        Some(Issue::new(NoDataReason::FewUnits, policy, sentence).sized(shares[0].max(shares[1])))
    }
}

/// What a metric's evidence would show, and the units behind it.
pub(crate) struct Claim {
    /// Whether any window has entered.
    judged: bool,
    /// Effective number of units, in the arm with fewer.
    pub(crate) number: Option<f64>,
    /// What would be found, and the fewest units without which it would not be.
    rests: Option<(Finding, usize)>,
}

#[derive(Clone, Copy, PartialEq)]
enum Finding {
    Fail,
    Pass,
}

/// The units behind a metric's test. `fails` and `passes` are whether its evidence is enough for either.
pub(crate) fn claim(test: &Hypothesis, units: &Units, fails: bool, passes: bool) -> Claim {
    let fail: Robustness = test.fail_robustness(&units.sums);
    let rests = if fails && test.ln_e_fail() > 0.0 {
        fail.rests_on.map(|rests| (Finding::Fail, rests))
    } else if passes {
        test.pass_robustness(&units.sums).rests_on.map(|rests| (Finding::Pass, rests))
    } else {
        None
    };
    Claim { judged: test.windows() > 0, number: fail.units, rests }
}

impl Claim {
    /// Why the metric is not judged, if its units are too few for what its evidence shows.
    pub(crate) fn few(&self) -> Option<String> {
        if !self.judged {
            return None;
        }
        if self.number.is_some_and(|number| number < 2.0) {
            return Some(
                "its answers name no more than one user, so none of them is independent of the others".to_owned(),
            );
        }
        let (finding, rests) = self.rests?;
        // The number is unknown before the step's first window.
        let number = self.number.unwrap_or(0.0);
        let of = format!("of about {number:.0}");
        Some(match (finding, rests) {
            (Finding::Pass, _) if number < MIN_UNITS => {
                format!("its answers come from about {number:.0} users, and a pass needs {MIN_UNITS:.0}")
            }
            (Finding::Fail, 0) => format!("the difference rests on few users {of}"),
            (Finding::Fail, 1) => format!("the difference rests on 1 user {of}"),
            (Finding::Fail, _) => format!("the difference rests on {rests} users {of}"),
            (Finding::Pass, 0..2) => format!("a pass would rest on few users {of}"),
            (Finding::Pass, _) => format!("a pass would rest on {rests} users {of}"),
        })
    }
}
