//! A finding must not rest on a handful of units (users, sessions).
//!
//! If a key assigns the arm, a client that knows some keys of the canary can send requests under those keys alone that fail
//! on both versions. Honest traffic also has such users. Tempering ([`crate::cluster`]) divides the evidence by how much
//! units differ, which stops one such user but not three. So there is an additional check next to the e-process: is there
//! still harm beyond the margin without the [`HANDFUL`] buckets of units, in each arm, that contribute most to the finding?
//!
//! The check can only remove a finding, so it does not increase any error rate. The buckets to leave out are chosen after
//! the fact, so the remainder is not a valid test: the z-score is a condition, never a finding.

use serde::{Deserialize, Serialize};

use crate::Line;
use crate::cluster::answers_per_unit;
use crate::numeric::sqrt;

/// Number of buckets of units that are left out of each arm.
pub const HANDFUL: usize = 5;
/// For a FAIL, the harm beyond the margin must be at least this many standard errors without a handful of units. The
/// evidence of a handful stays for a while, and the remainder is checked in every window. With 2 standard errors, one equal
/// version in ten is rolled back within an hour of such evidence at a margin of 0.
pub const FAIL_Z: f64 = 3.0;
/// For a PASS, the harm must be within the margin by at least this many standard errors without a handful of units.
pub const PASS_Z: f64 = 1.0;
/// Smallest effective number of units per arm for a PASS.
pub const MIN_UNITS: f64 = 30.0;

/// `(X, N)` of each bucket of units of an arm in a window: the sum of values and the number of answers.
pub type UnitSums = Vec<(f64, f64)>;

/// What each bucket of units has added to the difference of the arms, window by window.
///
/// Let `X_b, N_b` be the canary's sums of a window, `Y_b, M_b` control's, and `r = v Y / M` the canary's value on the line
/// through the origin. A bucket of the canary adds `X_b - N_b r`, and a bucket of control adds `v N/M (Y_b - M_b Y/M)`. This
/// is the first-order change of the sum over the canary's buckets when the bucket is removed. Windows are added. As in the
/// e-process, each is compared with control in the same window, so a drift in both arms cancels.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Influence {
    canary: Vec<f64>,
    control: Vec<f64>,
}

/// Number of answers of each bucket of units, in both arms.
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
    /// Adds a window. `v` is the slope of the line. `control` is `None` against a limit.
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

    /// Adds the sums of `other`.
    pub fn merge(&mut self, other: &Self) {
        add(&mut self.canary, other.canary.iter().copied());
        add(&mut self.control, other.control.iter().copied());
    }
}

impl Answers {
    /// Adds a window; see [`Influence::add`].
    pub fn add(&mut self, canary: &UnitSums, control: Option<&UnitSums>) {
        add(&mut self.canary, canary.iter().map(|(_, n)| *n));
        add(&mut self.control, control.into_iter().flatten().map(|(_, n)| *n).collect::<Vec<_>>().into_iter());
    }

    /// Adds the counts of `other`.
    pub fn merge(&mut self, other: &Self) {
        add(&mut self.canary, other.canary.iter().copied());
        add(&mut self.control, other.control.iter().copied());
    }

    /// Effective number of units: how many units with equal numbers of answers would vary over the buckets as much as these.
    /// The smaller one of both arms, or the canary's if only one arm is used. `None` without answers.
    pub fn units(&self, one_arm: bool) -> Option<f64> {
        let of = |answers: &[f64]| Some(answers.iter().sum::<f64>() / answers_per_unit(answers)?);
        let canary = of(&self.canary);
        if one_arm { canary } else { canary.zip(of(&self.control)).map(|(one, two)| one.min(two)) }
    }
}

/// The remaining difference without the buckets that contribute most.
struct Rest {
    harm: f64,
    variance: f64,
    /// Number of remaining buckets with answers, in the arm that has fewer.
    filled: usize,
}

/// The remainder without the `left_out` buckets of each arm that contribute most to "on this side of `line`".
fn rest(influence: &Influence, answers: &Answers, line: Line, left_out: usize) -> Rest {
    let sign = line.sign;
    let canary = strongest_first(&answers.canary, &influence.canary, |added, n| sign * (added - n * line.c));
    // What a bucket of control adds to control's value reduces the difference.
    let control = strongest_first(&answers.control, &influence.control, |added, _| -sign * added);
    let share = |sums: &[(f64, f64)], taken: usize| {
        let n = |part: &[(f64, f64)]| part.iter().map(|one| one.1).sum::<f64>();
        1.0 - n(&sums[..taken]) / n(sums).max(f64::MIN_POSITIVE)
    };
    let (of_canary, of_control) = (left_out.min(canary.len()), left_out.min(control.len()));
    // The influence of a bucket of control grows as fewer buckets remain, and shrinks with the canary's answers.
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

/// Checks whether the claim "on this side of `line`" holds by `z` standard errors without a [`HANDFUL`] of buckets of units
/// of each arm. Returns `None` if it does. Otherwise returns the number of the canary's buckets on which the claim rests:
/// the smallest number without which nothing of it remains.
pub fn rests_on(influence: &Influence, answers: &Answers, line: Line, z: f64) -> Option<usize> {
    let Rest { harm, variance, filled } = rest(influence, answers, line, HANDFUL);
    // With fewer buckets the variance is meaningless. Without variance the sign of the harm decides.
    if filled >= HANDFUL && harm > 0.0 && harm >= z * sqrt(variance) {
        return None;
    }
    let canary = strongest_first(&answers.canary, &influence.canary, |added, n| line.sign * (added - n * line.c));
    let all: f64 = canary.iter().map(|one| one.0).sum();
    let left = canary.iter().scan(all, |left, one| Some(std::mem::replace(left, *left - one.0)));
    Some(left.take_while(|left| *left > 0.0).count())
}

/// Buckets with answers, as the addition and the number of answers of each, largest addition first.
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

    /// Three windows with 10 answers per bucket and arm. The first buckets of the canary (of control) have other values.
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
    fn harm_of_all_units_counts_and_that_of_five_does_not() {
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
    fn a_handful_of_control_does_not_decide_either() {
        // A few of control's units are far better and send a flood of answers, so the canary looks worse.
        let flood: UnitSums =
            (0..256).map(|b| if b < 3 { (0.0, 3000.0) } else { (1.0 + f64::from(b % 3), 10.0) }).collect();
        let canary: UnitSums = (0..256).map(|b| (1.0 + f64::from(b % 3), 10.0)).collect();
        let (mut influence, mut answers) = (Influence::default(), Answers::default());
        influence.add(1.0, &canary, Some(&flood));
        answers.add(&canary, Some(&flood));
        assert!(rest(&influence, &answers, LINE, 0).harm > 100.0);
        assert!(rests_on(&influence, &answers, LINE, FAIL_Z).is_some());
        // A few of control's units always fail; a worse canary must not pass because of them.
        let (influence, answers) = arms(&[], &[10.0; 5], (0.22, 0.2));
        assert!(rests_on(&influence, &answers, LINE.reversed(), PASS_Z).is_some());
    }

    #[test]
    fn drift_in_both_arms_cancels() {
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
    fn few_units_are_counted_and_support_no_finding() {
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
    fn against_a_limit_only_the_canary_counts() {
        let canary: UnitSums = (0..256).map(|b| (1.0 + f64::from(b % 3), 10.0)).collect();
        let (mut influence, mut answers) = (Influence::default(), Answers::default());
        influence.add(1.0, &canary, None);
        answers.add(&canary, None);
        assert_eq!(rests_on(&influence, &answers, Line { c: 0.1, ..LINE }, FAIL_Z), None);
        assert_eq!(rests_on(&influence, &answers, Line { c: 0.3, ..LINE }, FAIL_Z), Some(0));
        assert!(answers.units(true).is_some());
    }
}
