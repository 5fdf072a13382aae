//! What other tools do at every look: tests for one look, on counts pooled since the start. Only for comparison.

use serin_sketches::{Rate, Summary};

use super::draws::normal_cdf;

/// `(key, canary's count, control's count)` per cell, in increasing order.
pub(super) type Cells = Vec<(i32, f64, f64)>;

/// The cells of both arms; empty for rates.
pub(super) fn cells(canary: &Summary, control: &Summary) -> Cells {
    let one = |summary: &Summary| -> Vec<(i32, u64)> {
        match summary {
            Summary::Log(hist) => hist.iter().collect(),
            Summary::Lin(hist) => hist.iter().collect(),
            _ => Vec::new(),
        }
    };
    let (canary, control) = (one(canary), one(control));
    let (mut i, mut j) = (0, 0);
    let mut cells = Vec::with_capacity(canary.len().max(control.len()));
    while i < canary.len() || j < control.len() {
        let key = |side: &[(i32, u64)], at: usize| side.get(at).map_or(i32::MAX, |cell| cell.0);
        let next = key(&canary, i).min(key(&control, j));
        let take = |side: &[(i32, u64)], at: &mut usize| {
            let found = side.get(*at).filter(|cell| cell.0 == next);
            *at += usize::from(found.is_some());
            found.map_or(0.0, |cell| cell.1 as f64)
        };
        cells.push((next, take(&canary, &mut i), take(&control, &mut j)));
    }
    cells
}

fn sizes(cells: &Cells) -> (f64, f64) {
    cells.iter().fold((0.0, 0.0), |(n_c, n_s), cell| (n_c + cell.1, n_s + cell.2))
}

/// Pooled two-proportion z of canary minus control; 0 if it is not defined.
pub(super) fn two_rates(canary: Rate, control: Rate) -> f64 {
    let (n_c, n_s) = (canary.n() as f64, control.n() as f64);
    let pooled = (canary.k() + control.k()) as f64 / (n_c + n_s);
    let difference = canary.k() as f64 / n_c - control.k() as f64 / n_s;
    or_zero(difference / libm::sqrt(pooled * (1.0 - pooled) * (1.0 / n_c + 1.0 / n_s)))
}

/// Welch's statistic for the means of the keys, as z.
pub(super) fn welch(cells: &Cells) -> f64 {
    let (n_c, n_s) = sizes(cells);
    let (mut sums_c, mut sums_s) = ((0.0, 0.0), (0.0, 0.0));
    for &(key, c, s) in cells {
        let x = f64::from(key);
        sums_c = (sums_c.0 + c * x, sums_c.1 + c * x * x);
        sums_s = (sums_s.0 + s * x, sums_s.1 + s * x * x);
    }
    let moments = |n: f64, (s1, s2): (f64, f64)| (s1 / n, (s2 - s1 * s1 / n) / (n - 1.0) / n);
    let ((m_c, v_c), (m_s, v_s)) = (moments(n_c, sums_c), moments(n_s, sums_s));
    or_zero((m_c - m_s) / libm::sqrt(v_c + v_s))
}

/// Tie-corrected Mann-Whitney z.
pub(super) fn mann_whitney(cells: &Cells) -> f64 {
    let (n_c, n_s) = sizes(cells);
    let n = n_c + n_s;
    let (mut u, mut below, mut ties) = (0.0, 0.0, 0.0);
    for &(_, c, s) in cells {
        u += c * (below + 0.5 * s);
        below += s;
        let t = c + s;
        ties += t * t * t - t;
    }
    let variance = n_c * n_s / 12.0 * ((n + 1.0) - ties / (n * (n - 1.0)));
    or_zero((u - 0.5 * n_c * n_s) / libm::sqrt(variance))
}

/// Kolmogorov-Smirnov: `(D, p)`, with the limiting distribution.
pub(super) fn kolmogorov_smirnov(cells: &Cells) -> (f64, f64) {
    let (n_c, n_s) = sizes(cells);
    if n_c == 0.0 || n_s == 0.0 {
        return (0.0, 1.0);
    }
    let (mut c_below, mut s_below, mut d) = (0.0, 0.0, 0.0_f64);
    for &(_, c, s) in cells {
        c_below += c;
        s_below += s;
        d = d.max((c_below / n_c - s_below / n_s).abs());
    }
    let x = d * libm::sqrt(n_c * n_s / (n_c + n_s));
    let term = |j: f64| libm::exp(-2.0 * j * j * x * x);
    let p = if x < 0.3 {
        1.0
    } else {
        (1..=50).map(f64::from).map(|j| if j % 2.0 == 0.0 { -term(j) } else { term(j) }).sum::<f64>() * 2.0
    };
    (d, p.clamp(0.0, 1.0))
}

/// Two-sided p-value of a z.
pub(super) fn two_sided(z: f64) -> f64 {
    2.0 * normal_cdf(-z.abs())
}

fn or_zero(z: f64) -> f64 {
    if z.is_finite() { z } else { 0.0 }
}
