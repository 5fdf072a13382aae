//! G6: users that send many requests. Tempering with the design effect of hash buckets keeps false alarms below the nominal rate.

use serin_sketches::{Buckets, Rate, Summary};
use serin_statistics::Hypothesis;
use serin_statistics::cluster::{ClusterRatio, tempering, tempering_of_next_window};

use super::corrections::{Evidence, LOOKS, rows};
use super::draws::Dice;
use super::lab::Lab;
use super::report::Row;
use super::scenarios::{errors, observe};

/// Users per minute, and requests per user and minute.
const USERS: u64 = 5000;
const REQUESTS_PER_MINUTE: u64 = 2;
/// Rate of the outcome in the population, and correlation between the requests of one user.
const RATE: f64 = 0.05;
const ICC: f64 = 0.05;

/// Sticky users, each with a different rate.
pub(super) fn gates(lab: Lab) -> Vec<Row> {
    let runs = lab.each("clustered users", lab.runs(2000, 100), |run| users("clustered users", ICC, run));
    let notes = [("study 11 %", "study 1.3 %"), ("study 5.3 %", "study 0.3 %")];
    rows("G6", &format!("users with {} requests/h, ICC {ICC}", 60 * REQUESTS_PER_MINUTE), notes, &runs)
}

/// One user: the hash of the id, and the user's rate.
type User = (u64, f64);

fn users(name: &str, icc: f64, run: u64) -> Evidence {
    let dice = &mut Dice::new(name, run);
    // A beta distribution gives this correlation between two requests of one user.
    let concentration = 1.0 / icc - 1.0;
    let mut arm = |n: u64| -> Vec<User> { (0..n).map(|_| (dice.bits(), dice.beta(RATE, concentration))).collect() };
    let (canary, control) = (arm(USERS / 10), arm(USERS - USERS / 10));
    let new = || Hypothesis::new(errors(0.0, LOOKS)).expect("the hypothesis is sound");
    let (mut on, mut off) = (new(), new());
    let mut sums = (Buckets::new(), Buckets::new());
    for window in 0..=u64::from(LOOKS) {
        let (c, s) = (requests(dice, &canary), requests(dice, &control));
        let (rate_c, rate_s) = (Summary::Rate(c.0), Summary::Rate(s.0));
        if window == 0 {
            // Warm-up saw users that are not, or not only, those of the rollout's control.
            let warm = Summary::Rate(dice.rate(USERS * REQUESTS_PER_MINUTE, RATE));
            on.observe_warmup(&warm).expect("the kind is right");
            off.observe_warmup(&warm).expect("the kind is right");
            continue;
        }
        let phi = tempering(design_effect(&sums.0), design_effect(&sums.1));
        on.temper(tempering_of_next_window(phi));
        observe(&mut on, window, &rate_c, &rate_s);
        observe(&mut off, window, &rate_c, &rate_s);
        sums.0.merge(&c.1).expect("sums are small");
        sums.1.merge(&s.1).expect("sums are small");
    }
    Evidence { on: on.max_ln_e_fail(), off: off.max_ln_e_fail() }
}

fn requests(dice: &mut Dice, users: &[User]) -> (Rate, Buckets) {
    let (mut hits, mut buckets) = (0, Buckets::new());
    for &(unit, rate) in users {
        let k = dice.binomial(REQUESTS_PER_MINUTE, rate);
        buckets.insert(unit, k as f64, REQUESTS_PER_MINUTE).expect("counts are small");
        hits += k;
    }
    (Rate::new(buckets.n(), hits).expect("hits are requests"), buckets)
}

/// The design effect of the answers so far, computed like in the product.
fn design_effect(buckets: &Buckets) -> Option<f64> {
    let used: Vec<(f64, f64)> = buckets.iter().map(|(x, n)| (x, n as f64)).filter(|&(_, n)| n > 0.0).collect();
    ClusterRatio::new(used)?.design_effect_of_rate()
}
