//! Law P1 by exact enumeration: over all outcomes of a window, the expectation of an e-value under its null is at most 1.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use proptest::prelude::*;
use serin_sketches::Rate;
use serin_statistics::bets::{fail_rate_bets, mean_bets, pass_rate_bets};
use serin_statistics::two_means::{Sums, lam_limit, ln_e_grid, ln_e_moments};
use serin_statistics::two_rates::{RateBet, ln_e};
use serin_statistics::{Line, PastMean, counts, one_rate};

const SLACK: f64 = 1.0 + 1e-9;

/// Probabilities of `0..=n` events.
fn binomial(n: u64, p: f64) -> Vec<f64> {
    let mut row = vec![1.0];
    for _ in 0..n {
        let mut next = vec![0.0; row.len() + 1];
        for (k, mass) in row.iter().enumerate() {
            next[k] += mass * (1.0 - p);
            next[k + 1] += mass * p;
        }
        row = next;
    }
    row
}

fn expectation(n_c: u64, n_s: u64, rates: RateBet, e: impl Fn(Rate, Rate) -> f64) -> f64 {
    let (canary, control) = (binomial(n_c, rates.a), binomial(n_s, rates.b));
    let mut sum = 0.0;
    for (k_c, p_c) in (0..).zip(&canary) {
        for (k_s, p_s) in (0..).zip(&control) {
            sum += p_c * p_s * e(Rate::new(n_c, k_c).unwrap(), Rate::new(n_s, k_s).unwrap()).exp();
        }
    }
    sum
}

/// All ways to put `n` observations on the points of `shares`, with their probabilities.
fn multinomial(n: u64, shares: &[f64]) -> Vec<(Vec<u64>, f64)> {
    let Some((&share, rest)) = shares.split_first() else {
        return if n == 0 { vec![(Vec::new(), 1.0)] } else { Vec::new() };
    };
    let mut all = Vec::new();
    let mut weight = 1.0;
    for count in 0..=n {
        for (mut tail, mass) in multinomial(n - count, rest) {
            tail.insert(0, count);
            all.push((tail, mass * weight));
        }
        weight *= share * (n - count) as f64 / (count + 1) as f64;
    }
    all
}

fn line() -> impl Strategy<Value = Line> {
    let sign = prop_oneof![Just(1.0), Just(-1.0)];
    prop_oneof![
        sign.clone().prop_map(|sign| Line { v: 1.0, c: 0.0, sign }),
        (sign.clone(), 0.0..0.1_f64).prop_map(|(sign, d)| Line { v: 1.0, c: sign * d, sign }),
        (sign, 0.0..0.5_f64).prop_map(|(sign, r)| Line { v: 1.0 + sign * r, c: 0.0, sign }),
    ]
}

/// A pair of rates inside the null: on the line, or away from it by `depth`.
fn inside(line: Line, b: f64, depth: f64) -> RateBet {
    RateBet { a: (line.at(b) - line.sign * depth).clamp(0.0, 1.0), b }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    #[test]
    fn two_rates_any_bet(
        line in line(), n_c in 1..=8_u64, n_s in 1..=40_u64, b in 0.001..0.8_f64, depth in prop_oneof![Just(0.0), 0.0..0.2_f64],
        bet_a in 0.001..0.999_f64, bet_b in 0.001..0.999_f64,
    ) {
        let truth = inside(line, b, depth);
        prop_assume!(line.holds(truth.a, truth.b));
        let bet = RateBet { a: bet_a, b: bet_b };
        let e = expectation(n_c, n_s, truth, |c, s| ln_e(c, s, bet, line));
        prop_assert!(e <= SLACK, "E[e] = {e}");
    }

    #[test]
    fn two_rates_the_menus(
        line in line(), n_c in 1..=8_u64, n_s in 1..=40_u64, b in 0.001..0.8_f64, b_hat in 0.001..0.9_f64,
    ) {
        let fail = fail_rate_bets(b_hat, line).into_iter().flatten().map(|bet| (bet, line));
        let pass = pass_rate_bets(b_hat, b_hat, line).into_iter().flatten().map(|bet| (bet, line.reversed()));
        let truth = RateBet { a: line.at(b), b };
        prop_assume!((0.0..=1.0).contains(&truth.a));
        for (bet, line) in fail.chain(pass) {
            let e = expectation(n_c, n_s, truth, |c, s| ln_e(c, s, bet, line));
            prop_assert!(e <= SLACK, "{bet:?}: E[e] = {e}");
        }
    }

    #[test]
    fn one_rate_any_bet(n in 1..=40_u64, p0 in 0.001..0.999_f64, m in 0.1..10.0_f64, inside in 0.0..1.0_f64) {
        let odds = p0 / (1.0 - p0) * m;
        let p1 = odds / (1.0 + odds);
        let truth = if p1 > p0 { p0 * inside } else { p0 + (1.0 - p0) * inside };
        for p in [p0, truth] {
            let e: f64 = (0..).zip(binomial(n, p)).map(|(k, mass)| mass * one_rate::ln_e(Rate::new(n, k).unwrap(), p1, p0).exp()).sum();
            prop_assert!(e <= SLACK, "E[e] = {e}");
        }
    }

    #[test]
    fn two_means_and_moments(
        line in line(), n_c in 1..=3_u64, n_s in 1..=6_u64, raw_c in prop::collection::vec(0.01..1.0_f64, 5),
        raw_s in prop::collection::vec(0.01..1.0_f64, 5), b0 in 0.01..0.99_f64, share in 0.0..1.0_f64, centers in (0.0..1.0_f64, 0.0..1.0_f64),
    ) {
        let points = [0.0, 0.25, 0.5, 0.75, 1.0];
        let normed = |raw: &[f64]| -> Vec<f64> { raw.iter().map(|x| x / raw.iter().sum::<f64>()).collect() };
        let mean = |shares: &[f64]| -> f64 { shares.iter().zip(points).map(|(share, x)| share * x).sum() };
        let (shares_c, shares_s) = (normed(&raw_c), normed(&raw_s));
        // The null is whichever side of the line the true means are on.
        let line = if line.holds(mean(&shares_c), mean(&shares_s)) { line } else { line.reversed() };
        let lam = share * lam_limit(n_c as f64, n_s as f64, b0, line);
        let grid = |counts: &[u64]| -> Vec<(f64, u64)> { points.into_iter().zip(counts.iter().copied()).collect() };
        let sums = |counts: &[u64]| Sums {
            n: counts.iter().sum::<u64>() as f64,
            s1: counts.iter().zip(points).map(|(&n, x)| n as f64 * x).sum(),
            s2: counts.iter().zip(points).map(|(&n, x)| n as f64 * x * x).sum(),
        };
        let mut past = PastMean::default();
        past.push(&grid(&[3, 1, 2, 5, 4]), 0.98);
        let menu = mean_bets(&past, n_c as f64, n_s as f64, line);
        let (mut grid_e, mut moments_e, mut menu_e) = (0.0, 0.0, [0.0; 6]);
        for (c, p_c) in multinomial(n_c, &shares_c) {
            for (s, p_s) in multinomial(n_s, &shares_s) {
                grid_e += p_c * p_s * ln_e_grid(&grid(&c), &grid(&s), lam, b0, line).exp();
                moments_e += p_c * p_s * ln_e_moments(sums(&c), sums(&s), centers, share, line).exp();
                if let Some((b0, lams)) = menu {
                    for (e, lam) in menu_e.iter_mut().zip(lams) {
                        *e += p_c * p_s * ln_e_grid(&grid(&c), &grid(&s), lam, b0, line).exp();
                    }
                }
            }
        }
        prop_assert!(grid_e <= SLACK && moments_e <= SLACK, "E[e] = {grid_e}, {moments_e}");
        prop_assert!(menu_e.iter().all(|&e| e <= SLACK), "E[e] = {menu_e:?}");
    }

    #[test]
    fn poisson_and_classes(
        total in 0..=40_u64, exposures in (0.1..10.0_f64, 0.1..10.0_f64), ratio in 0.5..2.0_f64, bet in 1.01..5.0_f64,
        raw in prop::collection::vec(0.01..1.0_f64, 9), n_c in 1..=4_u64, n_s in 1..=8_u64,
    ) {
        let share = ratio * exposures.0 / (ratio * exposures.0 + exposures.1);
        let e: f64 = (0..).zip(binomial(total, share)).map(|(k, mass)| {
            mass * counts::poisson_ln_e((k, exposures.0), (total - k, exposures.1), ratio, ratio * bet).exp()
        }).sum();
        prop_assert!(e <= SLACK, "E[e] = {e}");

        let normed = |raw: &[f64]| -> Vec<f64> { raw.iter().map(|x| x / raw.iter().sum::<f64>()).collect() };
        let (truth, bet_c, bet_s) = (normed(&raw[..3]), normed(&raw[3..6]), normed(&raw[6..]));
        let mut e = 0.0;
        for (c, p_c) in multinomial(n_c, &truth) {
            for (s, p_s) in multinomial(n_s, &truth) {
                e += p_c * p_s * counts::classes_ln_e(&c, &s, &bet_c, &bet_s).exp();
            }
        }
        prop_assert!(e <= SLACK, "E[e] = {e}");
    }
}
