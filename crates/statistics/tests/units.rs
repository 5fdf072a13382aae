//! The sample ratio if users are split instead of requests: bucket sums instead of a row per user.

mod dice;

use dice::Dice;
use serin_statistics::cluster::answers_per_unit;
use serin_statistics::counts::{SPLIT_CONCENTRATION, split_ln_e};
use serin_statistics::rejects;

const ALPHA: f64 = 0.001;
const WINDOWS: usize = 30;

/// Users that arrive and stay, with log-normally distributed numbers of requests in every window. Returns whether the split
/// is found broken in any window, and the same if each request counts as one unit.
fn run(seed: u64, users: usize, spread: f64, canary: f64, configured: f64) -> (bool, bool) {
    let mut dice = Dice::new(seed);
    let users: Vec<(usize, usize, bool, f64)> = (0..users)
        .map(|_| {
            let (start, bucket) = ((dice.unit() * WINDOWS as f64) as usize, (dice.unit() * 256.0) as usize);
            (start, bucket, dice.unit() < canary, 0.5 * (spread * dice.normal() - 0.5 * spread * spread).exp())
        })
        .collect();
    let (mut sums, mut arms) = ([0.0; 256], [0_u64; 2]);
    let (mut by_unit, mut by_request) = (false, false);
    for window in 0..WINDOWS {
        for &(start, bucket, is_canary, each) in users.iter().filter(|user| user.0 <= window) {
            // The mean rounded down, or one more at random.
            let requests = each.floor() + f64::from(u8::from(dice.unit() < each.fract()));
            // One in two users is active in a window.
            if start == window || dice.unit() < 0.5 {
                sums[bucket] += requests;
                arms[usize::from(!is_canary)] += requests as u64;
            }
        }
        let weights = [configured, 1.0 - configured];
        let per_unit = answers_per_unit(&sums).unwrap_or(1.0);
        let worth = arms.map(|count| (count as f64 / per_unit) as u64);
        by_unit |= rejects(split_ln_e(&worth, &weights, SPLIT_CONCENTRATION), ALPHA);
        by_request |= rejects(split_ln_e(&arms, &weights, SPLIT_CONCENTRATION), ALPHA);
    }
    (by_unit, by_request)
}

#[test]
fn a_correct_split_of_users_is_never_held_however_unequal_they_are() {
    for (users, spread, share) in [(2000, 1.5, 1.0 / 11.0), (2000, 2.5, 1.0 / 11.0), (2000, 1.5, 0.5), (200, 1.0, 0.01)]
    {
        let runs: Vec<(bool, bool)> = (0..200).map(|seed| run(seed, users, spread, share, share)).collect();
        assert_eq!(runs.iter().filter(|run| run.0).count(), 0, "{users} {spread} {share}");
        // Counting requests would hold many of them, so the test can detect the difference.
        if spread > 1.0 {
            assert!(runs.iter().filter(|run| run.1).count() > 20, "{users} {spread} {share}");
        }
    }
}

#[test]
fn a_wrong_split_of_users_is_found() {
    let found =
        |canary: f64, configured: f64| (0..20).filter(|&seed| run(seed, 20_000, 0.5, canary, configured).0).count();
    assert_eq!(found(0.4, 0.5), 20);
    assert_eq!(found(0.06, 1.0 / 11.0), 20);
}
