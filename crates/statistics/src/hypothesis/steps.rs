//! Converts one stratum of a window to `ln e` per bet, for FAIL and for PASS.

use serin_sketches::{Events, LN_GAMMA, LogHist, Rate, ZERO_KEY, key_nearest_edge, upper_edge};

use super::counts::{Caps, MIDDLE, place};
use super::past::Past;
use super::spec::{Bound, Part, ROOM};
use super::view::View;
use crate::bets::{
    MEAN_EFFECTS, ODDS_MULTIPLIERS, PASS_KAPPAS, fail_rate_bets, limit_mean_bets, limit_rate_bets, mean_bets,
    pass_rate_bets,
};
use crate::counts::{poisson_limit_ln_e, poisson_ln_e};
use crate::numeric::{exp, is_inner, ln};
use crate::two_means::{Grid, TwoGrids};
use crate::{Line, PastHist, PastMean, one_mean, one_rate, two_rates};

/// `ln e` per bet; empty (no evidence) if nothing can be bet.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Steps {
    pub(super) fail: Vec<f64>,
    pub(super) pass: Vec<f64>,
    /// Whether the canary could break the margin at all here. For example, a share of 1 % cannot fall by 2 points.
    pub(super) room: bool,
}

impl Steps {
    fn of(fail: impl IntoIterator<Item = f64>, pass: impl IntoIterator<Item = f64>) -> Self {
        Self { fail: fail.into_iter().collect(), pass: pass.into_iter().collect(), room: true }
    }

    /// Strata of one window are independent, so their e-values are multiplied.
    pub(super) fn add(&mut self, other: &Self) {
        add(&mut self.fail, &other.fail);
        add(&mut self.pass, &other.pass);
        self.room |= other.room;
    }

    /// Concatenates the bets of both. Each list is first padded with no evidence to half of the `menu`.
    fn concat(mut self, mut other: Self, menu: (usize, usize)) -> Self {
        for steps in [&mut self, &mut other] {
            steps.fail.resize(menu.0 / 2, 0.0);
            steps.pass.resize(menu.1 / 2, 0.0);
        }
        self.fail.append(&mut other.fail);
        self.pass.append(&mut other.pass);
        Self { room: self.room || other.room, ..self }
    }

    /// Divides all evidence by the design effect.
    pub(super) fn temper(&mut self, phi: f64) {
        for step in self.fail.iter_mut().chain(&mut self.pass) {
            *step /= phi;
        }
    }
}

fn add(sum: &mut Vec<f64>, more: &[f64]) {
    sum.resize(sum.len().max(more.len()), 0.0);
    for (sum, more) in sum.iter_mut().zip(more) {
        *sum += more;
    }
}

/// Number of bets of a part, for (FAIL, PASS).
pub(super) fn menu(part: Part, mean: bool) -> (usize, usize) {
    match part {
        Part::Line(_) | Part::Limit { .. } if mean => (MEAN_EFFECTS.len(), MEAN_EFFECTS.len()),
        Part::Limit { .. } => (ODDS_MULTIPLIERS.len(), ODDS_MULTIPLIERS.len()),
        Part::Exceedance { .. } => (2 * ODDS_MULTIPLIERS.len(), 2 * PASS_KAPPAS.len()),
        _ => (ODDS_MULTIPLIERS.len(), PASS_KAPPAS.len()),
    }
}

/// The steps of one part. `past` must contain earlier windows only. `ends`: PASS may rest on the end of the range.
pub(super) fn steps(part: Part, past: &Past, canary: &View<'_>, control: &View<'_>, ends: bool) -> Steps {
    match (part, past, canary, control) {
        (Part::Line(line), Past::Rate(past), View::Rate(canary), View::Rate(control)) => {
            let b_hat = past.current().b_hat();
            rate_steps(*canary, *control, b_hat, b_hat, line, ends)
        }
        (Part::Line(line), Past::Mean(past), View::Grid(canary), View::Grid(control)) => {
            mean_steps(canary, control, past.current(), line, ends)
        }
        (Part::Line(line), Past::Hist(past), View::Grid(canary), View::Grid(control)) => {
            // Margins of event counts are relative, so the line is the same on any scale.
            let caps = Caps::around(past.current(MIDDLE), |mean| place(part, mean));
            mean_steps(&caps.scaled(canary), &caps.scaled(control), &caps.past, line, ends)
        }
        (Part::Exceedance { level, line }, Past::Hist(past), View::Hist(canary), View::Hist(control)) => {
            // Half of the bets are at the quantile of each memory, because calm windows contain no information beyond the
            // quantile of a burst.
            let (slow, fast) = (past.slow(), past.fast_or_slow());
            let at_slow = exceedance_steps(slow, level, line, canary, control, ends);
            let at_fast = if slow.key_at(level) == fast.key_at(level) {
                at_slow.clone()
            } else {
                exceedance_steps(fast, level, line, canary, control, ends)
            };
            at_slow.concat(at_fast, menu(part, false))
        }
        (Part::Level { level, line }, Past::Hist(past), View::Hist(canary), View::Hist(control)) => {
            let past = past.current(level);
            let Some(key) = past.key_at(level) else { return Steps::default() };
            let b_hat = 1.0 - past.tail(key);
            if !ROOM.contains(&line.at(b_hat)) {
                return Steps::default();
            }
            rate_steps(not_above(canary, key), not_above(control, key), b_hat, b_hat, line, false)
        }
        (Part::Share { class, line }, Past::Classes(past), View::Classes(_, canary), View::Classes(_, control)) => {
            let b_hat = past.share(class);
            let seen = |shares: &[Option<Rate>]| *class.map_or(shares.last(), |class| shares.get(class))?;
            let rates = seen(canary).zip(seen(control));
            let steps = rates.map(|(canary, control)| rate_steps(canary, control, b_hat, b_hat, line, false));
            Steps { room: is_inner(line.at(b_hat)), ..steps.unwrap_or_default() }
        }
        (Part::Ratio { ratio, sign }, _, View::Events(canary), View::Events(control)) => {
            let step = |bet| poisson_ln_e(exposed(*canary), exposed(*control), ratio, bet);
            let fail = ODDS_MULTIPLIERS.map(|m| step(if sign > 0.0 { ratio * m } else { ratio / m }));
            // From the margin (0) to equal rates (1) and beyond, in logarithms.
            let pass = PASS_KAPPAS.map(|kappa| step(ratio * exp(-kappa * ln(ratio))));
            Steps::of(fail, pass)
        }
        (Part::Limit { fail, pass, sign }, Past::Mean(past), View::Grid(canary), _) => {
            limit_mean_steps(canary, past.current(), (fail.at, pass.at), sign)
        }
        (Part::Limit { fail, pass, sign }, Past::Hist(past), View::Grid(canary), _) => {
            let caps = Caps::around(past.current(MIDDLE), |mean| place(part, mean));
            limit_mean_steps(&caps.scaled(canary), &caps.past, (fail.at / caps.cap, pass.at / caps.cap), sign)
        }
        (Part::Limit { fail, pass, sign }, _, canary, _) => {
            let side = |bound: Bound, sign: f64| match (canary, bound.key) {
                (View::Hist(hist), Some(key)) => limit_steps(exceedances(hist, key), bound.at, sign),
                (View::Events(events), _) => ODDS_MULTIPLIERS.map(|m| {
                    let bet = if sign > 0.0 { bound.at * m } else { bound.at / m };
                    poisson_limit_ln_e(exposed(*events), bound.at, bet)
                }),
                (View::Rate(rate), _) => limit_steps(*rate, bound.at, sign),
                _ => [0.0; ODDS_MULTIPLIERS.len()],
            };
            Steps::of(side(fail, sign), side(pass, -sign))
        }
        _ => Steps::default(),
    }
}

/// The steps for exceedances beyond the quantile of one memory.
fn exceedance_steps(past: &PastHist, level: f64, line: Line, canary: &LogHist, control: &LogHist, ends: bool) -> Steps {
    let Some(key) = past.key_at(level) else { return Steps::default() };
    let boundary = Line { v: 1.0, c: 0.0, sign: line.sign };
    let b_hat = past.tail(key);
    let (above, healthy) = match shift(key, line) {
        Some(shifted) => (exceedances(canary, shifted), past.tail(shifted)),
        None if ends && is_below_all(key, line) => {
            (Rate::new(canary.total(), canary.total()).unwrap_or_default(), past.share_of_all())
        }
        None => return Steps::default(),
    };
    rate_steps(above, exceedances(control, key), b_hat, healthy, boundary, ends)
}

/// Whether the canary's value at the margin is below every possible value.
pub(super) fn is_below_all(key: i32, line: Line) -> bool {
    line.at(upper_edge(key)) < 0.0
}

fn rate_steps(canary: Rate, control: Rate, b_hat: f64, healthy: f64, line: Line, ends: bool) -> Steps {
    let step = |bet, line| two_rates::ln_e(canary, control, bet, line);
    let fail = fail_rate_bets(b_hat, line).map(|bets| bets.map(|bet| step(bet, line)));
    let pass = pass_rate_bets(b_hat, healthy, line).filter(|_| ends || is_inner(line.at(b_hat)));
    let pass = pass.map(|bets| bets.map(|bet| step(bet, line.reversed())));
    Steps::of(fail.into_iter().flatten(), pass.into_iter().flatten())
}

fn mean_steps(canary: &Grid, control: &Grid, past: &PastMean, line: Line, ends: bool) -> Steps {
    let size = |grid: &Grid| grid.iter().map(|&(_, count)| count).sum::<u64>() as f64;
    let (n_c, n_s) = (size(canary), size(control));
    // The centers are the same for both directions.
    let center = line.inner(past.mean());
    let Some(grids) = center.and_then(|b0| TwoGrids::new(canary, control, b0, line)) else { return Steps::default() };
    let side = |line: Line| {
        let bets = mean_bets(past, n_c, n_s, line);
        bets.map(|(_, lams)| lams.map(|lam| grids.ln_e(lam, line.sign))).into_iter().flatten()
    };
    // If the margin extends beyond the range, nothing can be worse.
    let within = is_inner(line.at(past.mean()));
    let fail = within.then(|| side(line)).into_iter().flatten();
    let pass = (within || ends).then(|| side(line.reversed())).into_iter().flatten();
    Steps::of(fail, pass)
}

/// The steps of one arm's mean against limits for (FAIL, PASS).
fn limit_mean_steps(canary: &Grid, past: &PastMean, (fail, pass): (f64, f64), sign: f64) -> Steps {
    let sd = if past.n() >= crate::MIN_PAST { past.sd() } else { PastMean::default().sd() };
    let side = |limit: f64, sign: f64| one_mean::ln_e_each(canary, limit_mean_bets(sd, limit, sign), limit, sign);
    Steps::of(side(fail, sign), side(pass, -sign))
}

fn limit_steps(rate: Rate, limit: f64, sign: f64) -> [f64; ODDS_MULTIPLIERS.len()] {
    limit_rate_bets(limit, sign).map(|bet| one_rate::ln_e(rate, bet, limit))
}

/// The canary's bin for control's bin `key` at the margin: `GAMMA^m y` nearest to `(1+r) y`, or the edge nearest to `y + d`.
pub(super) fn shift(key: i32, line: Line) -> Option<i32> {
    if line.c != 0.0 {
        return key_nearest_edge(upper_edge(key) + line.c).filter(|&key| key != ZERO_KEY);
    }
    if key == ZERO_KEY {
        return Some(key);
    }
    Some(key + libm::round(ln(line.v) / LN_GAMMA) as i32)
}

pub(super) fn exceedances(hist: &LogHist, key: i32) -> Rate {
    Rate::new(hist.total(), hist.count_above(key)).unwrap_or_default()
}

pub(super) fn not_above(hist: &LogHist, key: i32) -> Rate {
    Rate::new(hist.total(), hist.total() - hist.count_above(key)).unwrap_or_default()
}

fn exposed(events: Events) -> (u64, f64) {
    (events.k(), events.exposure() as f64)
}
