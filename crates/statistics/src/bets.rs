//! The fixed menus of bets. Every process averages over its whole menu; no bet is picked after the fact.

use crate::numeric::{expit, is_inner, logit, odds};
use crate::two_means::lam_limit;
use crate::two_rates::RateBet;
use crate::{Line, past::PastMean};

/// FAIL bets for rates: multiples of the odds on the line.
pub const ODDS_MULTIPLIERS: [f64; 9] = [1.05, 1.1, 1.2, 1.35, 1.6, 2.0, 3.0, 5.0, 10.0];

/// PASS bets for rates: positions between the line (0) and the healthy rate (1), and beyond, in logits.
pub const PASS_KAPPAS: [f64; 4] = [0.5, 1.0, 1.5, 2.0];

/// Bets for means: differences in standard deviations.
pub const MEAN_EFFECTS: [f64; 6] = [0.02, 0.04, 0.08, 0.16, 0.32, 0.64];

/// Bets on a class that is new to the canary: multiples of the share that it had when it appeared.
pub const NEWCOMER_MULTIPLIERS: [f64; 4] = [0.25, 0.5, 1.0, 2.0];

/// Largest bet on means, as a share of the positivity limit.
pub(crate) const LAM_SHARE: f64 = 0.9;

/// Smallest standard deviation that bets on means assume, on the scale [0, 1].
const MIN_SD: f64 = 1e-3;

/// FAIL bets at control's past rate `b_hat`: `odds(a*) = odds(v b_hat + c) m^g`. `None` if the line leaves (0, 1).
pub fn fail_rate_bets(b_hat: f64, line: Line) -> Option<[RateBet; 9]> {
    bettable(b_hat, line).then(|| ODDS_MULTIPLIERS.map(|m| fail_bet(b_hat, line, m)))
}

/// A FAIL bet for a given multiplier. `None` if the line leaves (0, 1) or the multiplier is not above 0.
pub fn fail_rate_bet(b_hat: f64, line: Line, multiplier: f64) -> Option<RateBet> {
    let sensible = bettable(b_hat, line) && multiplier > 0.0 && multiplier.is_finite();
    sensible.then(|| fail_bet(b_hat, line, multiplier))
}

fn bettable(b_hat: f64, line: Line) -> bool {
    is_inner(line.at(b_hat)) && is_inner(b_hat)
}

fn fail_bet(b_hat: f64, line: Line, multiplier: f64) -> RateBet {
    let edge = odds(line.at(b_hat));
    let o = if line.sign > 0.0 { edge * multiplier } else { edge / multiplier };
    RateBet { a: o / (1.0 + o), b: b_hat }
}

/// PASS bets, from the line at control's past rate towards the rate of a healthy canary. If the line leaves (0, 1) there,
/// no canary is that bad, and all bets are on the two rates as they are: their gains show that control's rate is one at
/// which the margin extends beyond the range. `None` if a rate leaves (0, 1) or no pair of rates is on the line.
pub fn pass_rate_bets(b_hat: f64, healthy: f64, line: Line) -> Option<[RateBet; 4]> {
    line.inner(b_hat).filter(|_| is_inner(healthy))?;
    let beyond = !bettable(b_hat, line);
    Some(PASS_KAPPAS.map(
        |kappa| {
            if beyond { RateBet { a: healthy, b: b_hat } } else { pass_bet(b_hat, healthy, line, kappa) }
        },
    ))
}

/// A PASS bet for a given `kappa`. `None` if a rate leaves (0, 1) or `kappa` is not finite.
pub fn pass_rate_bet(b_hat: f64, healthy: f64, line: Line, kappa: f64) -> Option<RateBet> {
    let sensible = bettable(b_hat, line) && is_inner(healthy) && kappa.is_finite();
    sensible.then(|| pass_bet(b_hat, healthy, line, kappa))
}

fn pass_bet(b_hat: f64, healthy: f64, line: Line, kappa: f64) -> RateBet {
    let (from, to) = (logit(line.at(b_hat)), logit(healthy));
    RateBet { a: expit(from + kappa * (to - from)), b: b_hat }
}

/// Bets on means: `lam = min(Delta / (sigma^2 + Delta^2), 0.9 limit)`, `Delta = D sigma`. Returns `(b0, lams)`. The bets
/// are centered at control's past mean. If the margin extends beyond the range there, they are centered at the nearest
/// mean of control at which it does not.
pub fn mean_bets(past: &PastMean, n_c: f64, n_s: f64, line: Line) -> Option<(f64, [f64; 6])> {
    let b0 = line.inner(past.mean())?;
    Some((b0, lams(past.sd(), lam_limit(n_c, n_s, b0, line))))
}

/// One arm's rate against a limit: `odds(p1) = odds(limit) m^sign`. `sign` is the sign of harm for FAIL, and the opposite sign for PASS.
pub fn limit_rate_bets(limit: f64, sign: f64) -> [f64; 9] {
    ODDS_MULTIPLIERS.map(|m| {
        let o = if sign > 0.0 { odds(limit) * m } else { odds(limit) / m };
        o / (1.0 + o)
    })
}

/// One arm's mean against a limit: like [`mean_bets`], with the standard deviation of the arm's own past.
pub fn limit_mean_bets(sd: f64, limit: f64, sign: f64) -> [f64; 6] {
    lams(sd, crate::one_mean::lam_limit(limit, sign))
}

fn lams(sd: f64, limit: f64) -> [f64; 6] {
    let sd = sd.max(MIN_SD);
    MEAN_EFFECTS.map(|effect| (effect / (sd * (1.0 + effect * effect))).min(LAM_SHARE * limit))
}

/// Bets on a class that control did not have: around the canary's past share of the class, with control at its own past share.
pub fn newcomer_bets(canary: f64, control: f64) -> [RateBet; 4] {
    NEWCOMER_MULTIPLIERS.map(|m| RateBet { a: (m * canary).min(0.99), b: control })
}
