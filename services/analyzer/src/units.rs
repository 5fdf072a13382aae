//! On how many units (users, sessions) a finding rests, where a key assigns the arm.

use serin_statistics::{
    Standing,
    handful::{HANDFUL, MIN_UNITS},
};

use crate::evidence::Evidence;

/// What a metric's evidence would say, and the units behind it.
pub(crate) struct Claim {
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

/// The units behind a metric's evidence. `fails` and `passes`: whether it is enough for either.
pub(crate) fn claim(evidence: &Evidence, fails: bool, passes: bool) -> Claim {
    let fail: Standing = evidence.test.fail_standing(&evidence.units);
    let rests = if fails {
        fail.rests_on.map(|rests| (Finding::Fail, rests))
    } else if passes {
        evidence.test.pass_standing(&evidence.units).rests_on.map(|rests| (Finding::Pass, rests))
    } else {
        None
    };
    Claim { number: fail.units, rests }
}

impl Claim {
    /// Why the metric is not judged, if its units are too few for what its evidence says.
    pub(crate) fn few(&self) -> Option<String> {
        let Some(number) = self.number.filter(|number| *number >= 2.0) else {
            let none = "its answers name no more than one user, and answers of one user are no independent evidence";
            return Some(none.to_owned());
        };
        let (finding, rests) = self.rests?;
        let of = format!("of about {number:.0}");
        Some(match (finding, rests) {
            (Finding::Pass, _) if number < MIN_UNITS => {
                format!("its answers come from about {number:.0} users, and a pass needs {MIN_UNITS:.0}")
            }
            (Finding::Fail, 0) => format!("the difference is no larger than users {of} differ among themselves"),
            (Finding::Fail, 1) => format!("the difference rests on 1 user {of}"),
            (Finding::Fail, _) => format!("the difference rests on {rests} users {of}"),
            (Finding::Pass, _) => {
                format!("that it is within the margin rests on {} users {of}", rests.clamp(2, HANDFUL))
            }
        })
    }
}
