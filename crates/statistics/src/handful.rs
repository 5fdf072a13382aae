//! A finding must not rest on a handful of units (users, sessions).
//!
//! Where a key assigns the arm, whoever knows some keys of the canary can send what fails on both versions under these alone, and
//! honest traffic has such users too. Tempering ([`crate::cluster`]) divides the evidence by how much units differ, which stops one
//! such user, not three. So beside the e-process a plain question is asked: does the harm beyond the margin still stand without
//! the [`HANDFUL`] buckets of units, in each arm, that speak most for the finding?
//!
//! The answer can only take a finding away, so no error rate grows by it. What is left out is chosen after the fact, which is
//! why the rest is no test of its own: the z score here is a condition and never a finding.

use serde::{Deserialize, Serialize};

use crate::Line;
use crate::cluster::answers_per_unit;
use crate::numeric::sqrt;

/// Buckets of units that are left out of each arm.
pub const HANDFUL: usize = 5;
/// Standard errors by which the harm beyond the margin must stand without a handful for a FAIL. Evidence that a handful brought stays
/// for a while, and the rest is looked at in every window: at 2, one equal version in ten is rolled back within an hour of such
/// evidence at a margin of 0.
pub const FAIL_Z: f64 = 3.0;
/// Standard errors by which the harm must stay within the margin without a handful for a PASS.
pub const PASS_Z: f64 = 1.0;
/// Fewest units per arm, in effective number, for a PASS.
pub const MIN_UNITS: f64 = 30.0;

/// `(X, N)` of each bucket of units of an arm in a window: sum of the values, number of answers.
pub type UnitSums = Vec<(f64, f64)>;

/// What each bucket of units has added to the difference of the arms, window by window.
///
/// With the canary's sums `X_b, N_b` of a window and control's `Y_b, M_b`, and `r = v Y / M` the canary's value on the line
/// through the origin, a canary's bucket adds `X_b - N_b r` and a control's `v N/M (Y_b - M_b Y/M)`: what the sum over the
/// canary's buckets moves by, to first order, when it is taken out. Windows add, each held against control in the same
/// window, as in the e-process: a drift that both arms see cancels.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Influence {
    canary: Vec<f64>,
    control: Vec<f64>,
}

/// Numbers of answers of each bucket of units, in both arms.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Answers {
    canary: Vec<f64>,
    control: Vec<f64>,
}

fn add(sums: &mut Vec<f64>, more: impl ExactSizeIterator<Item = f64>) {
    sums.resize(sums.len().max(more.len()), 0.0);
    for (sum, more) in sums.iter_mut().zip(more) {
        *sum += more;
    }
}

fn total(sums: &UnitSums) -> (f64, f64) {
    sums.iter().fold((0.0, 0.0), |sum, one| (sum.0 + one.0, sum.1 + one.1))
}

impl Influence {
    /// Adds a window. `v` is the slope of the line. Against a limit there is no control: `None`.
    pub fn add(&mut self, v: f64, canary: &UnitSums, control: Option<&UnitSums>) {
        let Some(control) = control else {
            add(&mut self.canary, canary.iter().map(|(x, _)| *x));
            return;
        };
        let ((_, n), (y, m)) = (total(canary), total(control));
        if n <= 0.0 || m <= 0.0 {
            return;
        }
        let mean = y / m;
        add(&mut self.canary, canary.iter().map(|(x, n)| x - n * v * mean));
        add(&mut self.control, control.iter().map(|(y, own)| v * n / m * (y - own * mean)));
    }

    /// Adds another one.
    pub fn merge(&mut self, other: &Self) {
        add(&mut self.canary, other.canary.iter().copied());
        add(&mut self.control, other.control.iter().copied());
    }
}

impl Answers {
    /// Adds a window, see [`Influence::add`].
    pub fn add(&mut self, canary: &UnitSums, control: Option<&UnitSums>) {
        add(&mut self.canary, canary.iter().map(|(_, n)| *n));
        add(&mut self.control, control.into_iter().flatten().map(|(_, n)| *n).collect::<Vec<_>>().into_iter());
    }

    /// Adds another one.
    pub fn merge(&mut self, other: &Self) {
        add(&mut self.canary, other.canary.iter().copied());
        add(&mut self.control, other.control.iter().copied());
    }

    /// Effective number of units: that of as many units with equally many answers each as scatter over the buckets like these. Of
    /// both arms the smaller; of the canary alone where control is not looked at. `None` without answers.
    pub fn units(&self, one_arm: bool) -> Option<f64> {
        let of = |answers: &[f64]| Some(answers.iter().sum::<f64>() / answers_per_unit(answers)?);
        let canary = of(&self.canary);
        if one_arm { canary } else { canary.zip(of(&self.control)).map(|(one, two)| one.min(two)) }
    }
}

/// What is left of a difference without its strongest buckets.
struct Rest {
    harm: f64,
    variance: f64,
    /// Fewest buckets with answers that an arm has left.
    filled: usize,
}

/// Without the `left_out` buckets of each arm that speak most for "on this side of `line`".
fn rest(influence: &Influence, answers: &Answers, line: Line, left_out: usize) -> Rest {
    let sign = line.sign;
    let canary = strongest_first(&answers.canary, &influence.canary, |added, n| sign * (added - n * line.c));
    // What control's bucket adds to its own value, it takes from the difference.
    let control = strongest_first(&answers.control, &influence.control, |added, _| -sign * added);
    let share = |sums: &[(f64, f64)], taken: usize| {
        let n = |part: &[(f64, f64)]| part.iter().map(|one| one.1).sum::<f64>();
        1.0 - n(&sums[..taken]) / n(sums).max(f64::MIN_POSITIVE)
    };
    let (of_canary, of_control) = (left_out.min(canary.len()), left_out.min(control.len()));
    // What a control's bucket moves grows as fewer are left, and shrinks with the canary's answers.
    let scale = if control.is_empty() { 0.0 } else { share(&canary, of_canary) / share(&control, of_control) };
    let moved: f64 = control[..of_control].iter().map(|one| -one.0).sum();
    let (canary, control_rest) = (&canary[of_canary..], &control[of_control..]);
    let (harm, n) = canary.iter().fold((0.0, 0.0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
    let each = harm / n;
    let inflated = |count: usize| count as f64 / (count as f64 - 1.0);
    let of_canary: f64 = canary.iter().map(|(harm, n)| (harm - n * each) * (harm - n * each)).sum();
    let of_control: f64 = control_rest.iter().map(|(moved, _)| moved * moved).sum();
    let control_variance = if control_rest.is_empty() { 0.0 } else { inflated(control_rest.len()) * of_control };
    Rest {
        harm: harm + if control.is_empty() { 0.0 } else { moved * scale },
        variance: inflated(canary.len()) * of_canary + control_variance * scale * scale,
        filled: if control.is_empty() { canary.len() } else { canary.len().min(control_rest.len()) },
    }
}

/// `None`: the claim "on this side of `line`" stands by `z` standard errors without a [`HANDFUL`] of buckets of units of each arm.
/// Else on how many of the canary's buckets it rests: the fewest without which nothing of it is left.
pub fn rests_on(influence: &Influence, answers: &Answers, line: Line, z: f64) -> Option<usize> {
    let Rest { harm, variance, filled } = rest(influence, answers, line, HANDFUL);
    // With fewer, the scatter says nothing. Without scatter the sign of the harm decides.
    if filled >= HANDFUL && harm > 0.0 && harm >= z * sqrt(variance) {
        return None;
    }
    let canary = strongest_first(&answers.canary, &influence.canary, |added, n| line.sign * (added - n * line.c));
    let all: f64 = canary.iter().map(|one| one.0).sum();
    let left = canary.iter().scan(all, |left, one| Some(std::mem::replace(left, *left - one.0)));
    Some(left.take_while(|left| *left > 0.0).count())
}

/// Buckets with answers: what each adds, and its answers; the largest addition first.
fn strongest_first(answers: &[f64], added: &[f64], of: impl Fn(f64, f64) -> f64) -> Vec<(f64, f64)> {
    let added = added.iter().copied().chain(std::iter::repeat(0.0));
    let filled = answers.iter().copied().zip(added).filter(|(n, _)| *n > 0.0);
    let mut buckets: Vec<(f64, f64)> = filled.map(|(n, added)| (of(added, n), n)).collect();
    buckets.sort_by(|one, two| two.0.total_cmp(&one.0));
    buckets
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: Line = Line { v: 1.0, c: 0.0, sign: 1.0 };

    /// Both arms with so many answers per bucket; the first of the canary's (of control's) buckets have other values.
    fn arms(canary: &[f64], control: &[f64], values: (f64, f64)) -> (Influence, Answers) {
        let of = |first: &[f64], value: f64| -> UnitSums {
            (0..256)
                .map(|b| (first.get(b).copied().unwrap_or(value * 10.0 + f64::from(u8::from(b % 3 == 0))), 10.0))
                .collect()
        };
        let (canary, control) = (of(canary, values.0), of(control, values.1));
        let (mut influence, mut answers) = (Influence::default(), Answers::default());
        for _ in 0..3 {
            influence.add(1.0, &canary, Some(&control));
            answers.add(&canary, Some(&control));
        }
        (influence, answers)
    }

    #[test]
    fn harm_of_all_stands_and_that_of_five_does_not() {
        let (influence, answers) = arms(&[], &[], (0.2, 0.1));
        assert_eq!(rests_on(&influence, &answers, LINE, FAIL_Z), None);
        assert_eq!(rests_on(&influence, &answers, Line { c: 0.2, ..LINE }, FAIL_Z), Some(0));
        assert_eq!(rests_on(&influence, &answers, LINE.reversed(), PASS_Z), Some(0));
        for bad in [1, 3, 5] {
            let (influence, answers) = arms(&vec![10.0; bad], &[], (0.1, 0.1));
            let found = rests_on(&influence, &answers, LINE, FAIL_Z).unwrap_or(usize::MAX);
            assert!((bad..=bad + 3).contains(&found), "{bad}: {found:?}");
        }
        let (influence, answers) = arms(&[10.0; 20], &[], (0.1, 0.1));
        assert_eq!(rests_on(&influence, &answers, LINE, FAIL_Z), None);
    }

    #[test]
    fn a_handful_of_control_decides_as_little() {
        // Control's few are far better, with a flood of answers: canary seems worse.
        let flood: UnitSums =
            (0..256).map(|b| if b < 3 { (0.0, 3000.0) } else { (1.0 + f64::from(b % 3), 10.0) }).collect();
        let canary: UnitSums = (0..256).map(|b| (1.0 + f64::from(b % 3), 10.0)).collect();
        let (mut influence, mut answers) = (Influence::default(), Answers::default());
        influence.add(1.0, &canary, Some(&flood));
        answers.add(&canary, Some(&flood));
        assert!(rest(&influence, &answers, LINE, 0).harm > 100.0);
        assert!(rests_on(&influence, &answers, LINE, FAIL_Z).is_some());
        // Control's few fail always: a canary that is worse must not pass by it.
        let (influence, answers) = arms(&[], &[10.0; 5], (0.22, 0.2));
        assert!(rests_on(&influence, &answers, LINE.reversed(), PASS_Z).is_some());
    }

    #[test]
    fn drift_that_both_arms_see_cancels() {
        let (mut influence, mut answers) = (Influence::default(), Answers::default());
        for (rate, share) in [(0.0, 1.0), (0.5, 10.0), (1.0, 3.0)] {
            let canary: UnitSums = (0..256).map(|_| (rate * 10.0, 10.0)).collect();
            let control: UnitSums = (0..256).map(|_| (rate * 10.0 * share, 10.0 * share)).collect();
            influence.add(1.0, &canary, Some(&control));
            answers.add(&canary, Some(&control));
        }
        assert!(rest(&influence, &answers, LINE, 0).harm.abs() < 1e-9);
    }

    #[test]
    fn few_units_are_counted_and_nothing_stands_by_them() {
        let few =
            |users: usize| -> UnitSums { (0..256).map(|b| if b < users { (5.0, 10.0) } else { (0.0, 0.0) }).collect() };
        let many: UnitSums = (0..256).map(|_| (1.0, 10.0)).collect();
        for users in [0, 1, 3, 9] {
            let (mut influence, mut answers) = (Influence::default(), Answers::default());
            influence.add(1.0, &few(users), Some(&many));
            answers.add(&few(users), Some(&many));
            assert!(rests_on(&influence, &answers, LINE, FAIL_Z).is_some(), "{users}");
            let units = answers.units(false);
            assert!(units.is_none_or(|units| (units - users as f64).abs() < 0.5), "{users}: {units:?}");
        }
        assert_eq!(Answers::default().units(true), None);
    }

    #[test]
    fn against_a_limit_the_canary_alone_counts() {
        let canary: UnitSums = (0..256).map(|b| (1.0 + f64::from(b % 3), 10.0)).collect();
        let (mut influence, mut answers) = (Influence::default(), Answers::default());
        influence.add(1.0, &canary, None);
        answers.add(&canary, None);
        assert_eq!(rests_on(&influence, &answers, Line { c: 0.1, ..LINE }, FAIL_Z), None);
        assert_eq!(rests_on(&influence, &answers, Line { c: 0.3, ..LINE }, FAIL_Z), Some(0));
        assert!(answers.units(true).is_some());
    }
}
