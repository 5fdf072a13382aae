//! How fast evidence grows for one boundary and one true value of the canary.

use crate::Line;
use crate::bets::MEAN_EFFECTS;
use crate::numeric::{is_inner, ln, sqrt};
use crate::two_rates::{RateBet, project};

/// A boundary as a plan sees it: per canary answer, with `kappa` control answers each.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Growth {
    /// `g (mu_c - v mu_s - c)`: positive beyond the boundary (FAIL's side), negative within it (PASS's side).
    pub(super) harm: f64,
    /// Variance of the estimate of `harm` from one canary answer and `kappa` control answers.
    pub(super) variance: f64,
    /// Expected `ln e` per canary answer for a bet on the truth.
    pub(super) nats: f64,
}

/// `x ln(x/y) + (1-x) ln((1-x)/(1-y))`.
fn kl(x: f64, y: f64) -> f64 {
    let part = |x: f64, y: f64| if x > 0.0 { x * ln(x / y) } else { 0.0 };
    part(x, y) + part(1.0 - x, 1.0 - y)
}

/// Two rates: `KL(a||a0) + kappa KL(b||b0)`, where `(a0, b0)` is the projection on the line; `KL(a||v b + c)` if control is
/// known. If the line leaves (0, 1) at control's rate, no canary is beyond it, and control's answers show that.
pub(super) fn rates(a: f64, b: f64, line: Line, kappa: f64) -> Option<Growth> {
    let edge = line.at(b);
    if !(is_inner(a) && is_inner(b) && (is_inner(edge) || (kappa.is_finite() && line.inner(b).is_some()))) {
        return None;
    }
    let nats = if kappa.is_finite() {
        let null = project(1.0, kappa, RateBet { a, b }, line);
        null.map_or(0.0, |null| kl(a, null.a) + kappa * kl(b, null.b))
    } else {
        kl(a, edge)
    };
    let variance = a * (1.0 - a) + line.v * line.v * b * (1.0 - b) / kappa;
    Some(Growth { harm: line.sign * (a - edge), variance, nats })
}

/// Two means with equal standard deviations: the gain of a bet from the menu, `E ln(1 + lam X)` to second order around its
/// mean, `ln(1 + lam d) - lam^2 / (2 (1 + lam d)^2)`, where `d` is the harm in standard deviations, `lam = D / (1 + D^2)`
/// and `D = min(d, 0.64)`. A bet larger than `most` could lose everything on one answer.
pub(super) fn means(canary: f64, control: f64, sd: f64, line: Line, kappa: f64, most: f64) -> Growth {
    let variance = sd * sd * (1.0 + line.v * line.v / kappa);
    let harm = line.sign * (canary - line.at(control));
    let d = harm.abs() / sqrt(variance);
    let bet = d.min(MEAN_EFFECTS[MEAN_EFFECTS.len() - 1]);
    let lam = (bet / (1.0 + bet * bet)).min(most * sqrt(variance));
    let gain = 1.0 + lam * d;
    Growth { harm, variance, nats: ln(gain) - 0.5 * lam * lam / (gain * gain) }
}

/// Two event rates per exposure: given the total, the canary's events are binomial.
pub(super) fn events(canary: f64, control: f64, line: Line, kappa: f64) -> Option<Growth> {
    let edge = line.at(control);
    if !(canary > 0.0 && control > 0.0 && edge > 0.0) {
        return None;
    }
    let nats = if kappa.is_finite() {
        let total = canary + kappa * control;
        total * kl(canary / total, edge / (edge + kappa * control))
    } else {
        canary * ln(canary / edge) - canary + edge
    };
    let variance = canary + line.v * line.v * control / kappa;
    Some(Growth { harm: line.sign * (canary - edge), variance, nats })
}
