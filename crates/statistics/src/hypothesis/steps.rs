//! One stratum of a window, turned into `ln e` per bet, for FAIL and for PASS.

use serin_sketches::{LN_GAMMA, LogHist, Rate, Summary, ZERO_KEY, key_nearest_edge, upper_edge};

use super::past::Past;
use super::spec::Part;
use crate::bets::{ODDS_MULTIPLIERS, PASS_KAPPAS, fail_rate_bets, mean_bets, pass_rate_bets};
use crate::numeric::{is_inner, ln, odds};
use crate::two_means::{Grid, ln_e_grid};
use crate::{Line, one_rate, two_rates};

/// `ln e` per bet; empty where nothing can be bet (no evidence).
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Steps {
    pub(super) fail: Vec<f64>,
    pub(super) pass: Vec<f64>,
}

impl Steps {
    /// Strata of one window are independent: their e-values multiply.
    pub(super) fn add(&mut self, other: &Self) {
        add(&mut self.fail, &other.fail);
        add(&mut self.pass, &other.pass);
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
        Part::Line(_) if mean => (crate::bets::MEAN_EFFECTS.len(), crate::bets::MEAN_EFFECTS.len()),
        _ => (ODDS_MULTIPLIERS.len(), PASS_KAPPAS.len()),
    }
}

/// The steps of one part. `past` holds earlier windows only.
pub(super) fn steps(part: Part, past: &Past, canary: &Summary, control: &Summary) -> Steps {
    match (part, past, canary, control) {
        (Part::Line(line), Past::Rate(past), Summary::Rate(canary), Summary::Rate(control)) => {
            rate_steps(*canary, *control, past.b_hat(), past.b_hat(), line)
        }
        (Part::Line(line), Past::Mean(past), canary, control) => {
            let (canary, control) = (grid(canary), grid(control));
            mean_steps(&canary, &control, past, line)
        }
        (Part::Exceedance { level, line }, Past::Hist(past), Summary::Log(canary), Summary::Log(control)) => {
            let Some((key, shifted)) = past.key_at(level).and_then(|key| Some((key, shift(key, line)?))) else {
                return Steps::default();
            };
            let boundary = Line { v: 1.0, c: 0.0, sign: line.sign };
            let (b_hat, healthy) = (past.tail(key), past.tail(shifted));
            rate_steps(exceedances(canary, shifted), exceedances(control, key), b_hat, healthy, boundary)
        }
        (Part::Level { level, line }, Past::Hist(past), Summary::Log(canary), Summary::Log(control)) => {
            let Some(key) = past.key_at(level) else { return Steps::default() };
            let b_hat = 1.0 - past.tail(key);
            if !(0.005..=0.995).contains(&line.at(b_hat)) || !is_inner(b_hat) {
                return Steps::default();
            }
            rate_steps(not_above(canary, key), not_above(control, key), b_hat, b_hat, line)
        }
        (Part::Limit { p0, sign, key }, past, canary, _) => {
            let rate = match (canary, key) {
                (Summary::Rate(rate), None) => *rate,
                (Summary::Log(hist), Some(key)) => exceedances(hist, key),
                _ => return Steps::default(),
            };
            limit_steps(rate, p0, sign, past.healthy_rate(key))
        }
        _ => Steps::default(),
    }
}

fn rate_steps(canary: Rate, control: Rate, b_hat: f64, healthy: f64, line: Line) -> Steps {
    let step = |bet, line| two_rates::ln_e(canary, control, bet, line);
    let fail = fail_rate_bets(b_hat, line).map(|bets| bets.map(|bet| step(bet, line)).to_vec());
    let pass = pass_rate_bets(b_hat, healthy, line).map(|bets| bets.map(|bet| step(bet, line.reversed())).to_vec());
    Steps { fail: fail.unwrap_or_default(), pass: pass.unwrap_or_default() }
}

fn mean_steps(canary: &Grid, control: &Grid, past: &crate::PastMean, line: Line) -> Steps {
    let size = |grid: &Grid| grid.iter().map(|&(_, count)| count).sum::<u64>() as f64;
    let (n_c, n_s) = (size(canary), size(control));
    let side = |line: Line| {
        let bets = mean_bets(past, n_c, n_s, line);
        bets.map(|(b0, lams)| lams.map(|lam| ln_e_grid(canary, control, lam, b0, line)).to_vec()).unwrap_or_default()
    };
    if n_c == 0.0 || n_s == 0.0 {
        return Steps::default();
    }
    Steps { fail: side(line), pass: side(line.reversed()) }
}

fn limit_steps(rate: Rate, p0: f64, sign: f64, healthy: Option<f64>) -> Steps {
    let fail = ODDS_MULTIPLIERS.map(|m| {
        let o = if sign > 0.0 { odds(p0) * m } else { odds(p0) / m };
        one_rate::ln_e(rate, o / (1.0 + o), p0)
    });
    // PASS bets on what control shows, if that keeps the limit; the line has slope 1 through (p0, p0).
    let keeps = healthy.filter(|&healthy| sign * (p0 - healthy) > 0.0);
    let bets = keeps.and_then(|healthy| pass_rate_bets(p0, healthy, Line { v: 1.0, c: 0.0, sign }));
    let pass = bets.map(|bets| bets.map(|bet| one_rate::ln_e(rate, bet.a, p0)).to_vec());
    Steps { fail: fail.to_vec(), pass: pass.unwrap_or_default() }
}

/// The canary's bin for control's bin `key` at the margin: `GAMMA^m y` nearest to `(1+r) y`, or the edge nearest `y + d`.
fn shift(key: i32, line: Line) -> Option<i32> {
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

fn not_above(hist: &LogHist, key: i32) -> Rate {
    Rate::new(hist.total(), hist.total() - hist.count_above(key)).unwrap_or_default()
}

/// Values in [0, 1] of a histogram of means; empty for any other summary.
pub(super) fn grid(summary: &Summary) -> Vec<(f64, u64)> {
    match summary {
        Summary::Lin(hist) => {
            let cells = f64::from(serin_sketches::LIN_CELLS);
            hist.iter().map(|(point, count)| (f64::from(point) / cells, count)).collect()
        }
        Summary::Capped(hist) => hist.iter().collect(),
        _ => Vec::new(),
    }
}
