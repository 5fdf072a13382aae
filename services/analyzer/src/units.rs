//! On how many units (users, sessions) a finding rests, where a key assigns the arm.

use serde::{Deserialize, Serialize};
use serin_schemas::records::NoDataReason;
use serin_spec::Policy;
use serin_statistics::{Hypothesis, Standing, UnitEvidence, handful::MIN_UNITS};

use crate::{arms::percent, standing::Issue};

/// Largest share of an arm's answers that may name no unit. They count as one unit, whose part in any finding is then bounded.
const MOST_WITHOUT: f64 = 0.1;
/// Largest difference of that share between the arms: a version that loses the units of its failures hides them.
const MOST_APART: f64 = 0.01;
/// Standard errors by which the difference must be beyond it, at any look.
const CERTAIN: f64 = 5.0;
/// Fewest answers of an arm for any of it.
const ENOUGH: u64 = 7;

/// Units behind one hypothesis; a row of its own. With the first hypothesis of a rollout, how many answers of the step name one.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Units {
    /// What they add to it.
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

    /// A step begins.
    pub(crate) fn forget_counts(&mut self) {
        (self.answers, self.without) = ([0; 2], [0; 2]);
    }

    /// What is wrong with the units that answers name.
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
        let seen = format!("{} of canary's answers and {} of control's", percent(shares[0]), percent(shares[1]));
        let sentence = if too_many {
            format!(
                "{seen} name no unit (user, session), which `assignment.sticky` promises: send `unit` with each event"
            )
        } else {
            format!("{seen} name no unit (user, session); together they count as one")
        };
        Some(Issue::new(NoDataReason::FewUnits, policy, sentence).sized(shares[0].max(shares[1])))
    }
}

/// What a metric's evidence would say, and the units behind it.
pub(crate) struct Claim {
    /// Whether any window has entered.
    judged: bool,
    /// Effective number of units, of the arm with fewer.
    pub(crate) number: Option<f64>,
    /// What would be found, and the fewest units without which it does not stand.
    rests: Option<(Finding, usize)>,
}

#[derive(Clone, Copy, PartialEq)]
enum Finding {
    Fail,
    Pass,
}

/// The units behind a metric's test. `fails` and `passes`: whether its evidence is enough for either.
pub(crate) fn claim(test: &Hypothesis, units: &Units, fails: bool, passes: bool) -> Claim {
    let fail: Standing = test.fail_standing(&units.sums);
    let rests = if fails && test.ln_e_fail() > 0.0 {
        fail.rests_on.map(|rests| (Finding::Fail, rests))
    } else if passes {
        test.pass_standing(&units.sums).rests_on.map(|rests| (Finding::Pass, rests))
    } else {
        None
    };
    Claim { judged: test.windows() > 0, number: fail.units, rests }
}

impl Claim {
    /// Why the metric is not judged, if its units are too few for what its evidence says.
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
        // Nothing is known of them before the step's first window.
        let number = self.number.unwrap_or(0.0);
        let of = format!("of about {number:.0}");
        Some(match (finding, rests) {
            (Finding::Pass, _) if number < MIN_UNITS => {
                format!("its answers come from about {number:.0} users, and a pass needs {MIN_UNITS:.0}")
            }
            (Finding::Fail, 0) => format!("the difference rests on few users {of}"),
            (Finding::Fail, 1) => format!("the difference rests on 1 user {of}"),
            (Finding::Fail, _) => format!("the difference rests on {rests} users {of}"),
            (Finding::Pass, 0..2) => format!("that it is within the margin rests on few users {of}"),
            (Finding::Pass, _) => format!("that it is within the margin rests on {rests} users {of}"),
        })
    }
}
