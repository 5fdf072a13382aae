//! `m2`: one window's e-value for two means of values in [0, 1] against a linear null.
//!
//! From histograms on a grid (exact, the default):
//!
//! ```text
//! ln e = sum_i h_c[i] ln(1 + g lam (x_i - a0)) + sum_i h_s[i] ln(1 - g lam rho (x_i - b0)),  rho = v n_c / n_s
//! ```
//!
//! Here `a0 = v b0 + c`, and `b0` and `lam` are chosen before the window. The empirical-Bernstein form from moments alone
//! ([`ln_e_moments`]) is also exact, but needs more data. Sources: Waudby-Smith, Ramdas, JRSSB 2024 (arXiv 2010.09686) for
//! one sample; Fan, Grama, Liu 2015 for the moments form.

use crate::Line;
use crate::numeric::{is_inner, ln, ln_1p};

/// Grid values in [0, 1] with their counts.
pub type Grid = [(f64, u64)];

fn size(grid: &Grid) -> f64 {
    grid.iter().map(|&(_, count)| count).sum::<u64>() as f64
}

/// The largest `lam` for which all factors stay positive (exclusive), for bets at control's mean `b0`.
pub fn lam_limit(n_c: f64, n_s: f64, b0: f64, line: Line) -> f64 {
    let (a0, rho) = (line.at(b0), line.v * n_c / n_s);
    let (canary, control) = if line.sign > 0.0 { (a0, rho * (1.0 - b0)) } else { (1.0 - a0, rho * b0) };
    (1.0 / canary).min(1.0 / control)
}

/// Both arms of one window around the centers of its bets: computed once, then used for every bet.
pub struct TwoGrids {
    canary: Excesses,
    control: Excesses,
    b0: f64,
    line: Line,
}

impl TwoGrids {
    /// Prepares bets at control's mean `b0`. `None` (no evidence) if an arm is empty or a center is out of range.
    pub fn new(canary: &Grid, control: &Grid, b0: f64, line: Line) -> Option<Self> {
        let a0 = line.at(b0);
        let (canary, control) = (Excesses::around(canary, a0), Excesses::around(control, b0));
        let usable = is_inner(a0) && is_inner(b0) && line.v > 0.0 && canary.n > 0.0 && control.n > 0.0;
        usable.then_some(Self { canary, control, b0, line })
    }

    /// `ln e` for the bet `lam` against the null of the given sign; 0 (no evidence) if the bet is out of range.
    pub fn ln_e(&self, lam: f64, sign: f64) -> f64 {
        let (n_c, n_s) = (self.canary.n, self.control.n);
        if !(lam > 0.0 && lam < lam_limit(n_c, n_s, self.b0, Line { sign, ..self.line })) {
            return 0.0;
        }
        let up = sign * lam;
        let down = up * self.line.v * n_c / n_s;
        self.canary.ln_product(up) + self.control.ln_product(-down)
    }
}

/// `ln e` of one window from histograms, for one bet `lam` at control's mean `b0`. 0 (no evidence) if an arm is empty or the
/// bet is out of range.
pub fn ln_e_grid(canary: &Grid, control: &Grid, lam: f64, b0: f64, line: Line) -> f64 {
    TwoGrids::new(canary, control, b0, line).map_or(0.0, |grids| grids.ln_e(lam, line.sign))
}

/// Counts of at least this size are weighted with the logarithm of each factor, because the rounding error of a product,
/// times such a count, would be noticeable.
const LARGE_COUNT: u64 = 1 << 16;

/// Number of factors in a block: few enough that a lane cannot underflow, whatever the bet.
const BLOCK: usize = 32;
const LANES: usize = 8;

/// The values of one arm minus the center of the bets, sorted by the binary digits of their counts.
///
/// `prod f_i^h_i` is `prod_b (product of the f_i whose h_i has digit b)^(2^b)`, which needs no powers and no logarithm per
/// value. Each product uses fixed lanes, so that lanes are computed in parallel and in the same order on every platform.
pub(crate) struct Excesses {
    /// Per binary digit: `2^b` and the end of its values.
    digits: Vec<(u64, usize)>,
    values: Vec<f64>,
    n: f64,
}

impl Excesses {
    pub(crate) fn around(grid: &Grid, center: f64) -> Self {
        let used = grid.iter().fold(0, |used, &(_, count)| used | count);
        let total: u32 = grid.iter().map(|(_, count)| count.count_ones()).sum();
        // Every value is written, but kept only if its count has the digit, so there is no unpredictable branch. The last slot is spare.
        let (mut digits, mut excesses, mut end) = (Vec::new(), vec![0.0; total as usize + 1], 0);
        for digit in (0..u64::BITS).map(|b| 1 << b).filter(|digit| used & digit > 0) {
            for (x, count) in grid {
                excesses[end] = x - center;
                end += usize::from(count & digit > 0);
            }
            digits.push((digit, end));
        }
        Self { digits, values: excesses, n: size(grid) }
    }

    /// `sum_i h[i] ln(1 + slope (x_i - center))`, all factors positive.
    pub(crate) fn ln_product(&self, slope: f64) -> f64 {
        let (mut sum, mut start) = (0.0, 0);
        for &(digit, end) in &self.digits {
            let excesses = &self.values[start..end];
            start = end;
            let ln_factors = if digit < LARGE_COUNT { ln_product(excesses, slope) } else { ln_sum(excesses, slope) };
            sum += digit as f64 * ln_factors;
        }
        sum
    }
}

fn ln_sum(excesses: &[f64], slope: f64) -> f64 {
    excesses.iter().map(|excess| ln_1p(slope * excess)).sum()
}

/// `ln prod (1 + slope excess)`. A logarithm is taken each time before the product leaves the safe range.
fn ln_product(excesses: &[f64], slope: f64) -> f64 {
    let (mut sum, mut product) = (0.0, 1.0);
    for block in excesses.chunks(BLOCK) {
        let mut lanes = [1.0; LANES];
        let (rows, rest) = block.as_chunks::<LANES>();
        for row in rows {
            for (lane, excess) in lanes.iter_mut().zip(row) {
                *lane *= 1.0 + slope * excess;
            }
        }
        for (lane, excess) in lanes.iter_mut().zip(rest) {
            *lane *= 1.0 + slope * excess;
        }
        let factor: f64 = lanes.iter().product();
        if !(1e-100..1e100).contains(&factor) {
            sum += ln_sum(block, slope);
            continue;
        }
        product *= factor;
        if !(1e-150..1e150).contains(&product) {
            sum += ln(product);
            product = 1.0;
        }
    }
    sum + ln(product)
}

/// Number, sum and sum of squares of values in [0, 1].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sums {
    /// Number of values.
    pub n: f64,
    /// Sum.
    pub s1: f64,
    /// Sum of squares.
    pub s2: f64,
}

impl Sums {
    fn squares_around(self, center: f64) -> f64 {
        self.s2 - 2.0 * center * self.s1 + self.n * center * center
    }
}

/// `ln e` of one window from moments: `g lam (S1_c - rho S1_s - n_c c) - psi(lam) Q_c - psi(lam rho) Q_s` with `psi(l) = -ln(1-l) - l`
/// and squares `Q` around the centers `(x_c, x_s)`, which are chosen before the window. 0 for arguments out of range.
pub fn ln_e_moments(canary: Sums, control: Sums, centers: (f64, f64), lam: f64, line: Line) -> f64 {
    if !(canary.n > 0.0 && control.n > 0.0) {
        return 0.0;
    }
    let rho = line.v * canary.n / control.n;
    if !((0.0..1.0).contains(&lam) && (0.0..1.0).contains(&(lam * rho))) {
        return 0.0;
    }
    let psi = |l: f64| -ln_1p(-l) - l;
    let drift = line.sign * lam * (canary.s1 - rho * control.s1 - canary.n * line.c);
    let (q_c, q_s) = (canary.squares_around(centers.0), control.squares_around(centers.1));
    let ln_e = drift - psi(lam) * q_c - psi(lam * rho) * q_s;
    if ln_e.is_finite() { ln_e } else { 0.0 }
}

#[cfg(test)]
#[expect(clippy::float_cmp, reason = "no evidence is exactly zero")]
mod tests {
    use super::*;

    #[test]
    fn products_equal_sums_of_logarithms() {
        for scale in [1, 23, 1 << 20, 1 << 40] {
            for (slope, center) in [(0.9, 0.4), (-0.9, 0.4), (1e-3, 0.4), (900.0, 1e-9), (1e12, 1e-13), (1e-9, 0.4)] {
                let count = |i: u32| scale * (7 * u64::from(i) % 23) + u64::from(i % 3);
                let grid: Vec<(f64, u64)> = (0..513).map(|i| (f64::from(i) / 512.0, count(i))).collect();
                let plain: f64 = grid.iter().map(|&(x, n)| n as f64 * ln_1p(slope * (x - center))).sum();
                let got = Excesses::around(&grid, center).ln_product(slope);
                assert!((got - plain).abs() <= 1e-10 * plain.abs().max(1.0), "{scale} {slope}: {got} {plain}");
            }
        }
    }

    #[test]
    fn invalid_input_adds_no_evidence() {
        let line = Line { v: 1.0, c: 0.0, sign: 1.0 };
        let some = [(0.0, 5), (1.0, 5)];
        assert_eq!(ln_e_grid(&[], &some, 0.1, 0.5, line), 0.0);
        assert_eq!(ln_e_grid(&some, &[], 0.1, 0.5, line), 0.0);
        for lam in [f64::NAN, 0.0, -0.1, 2.0, f64::INFINITY] {
            assert_eq!(ln_e_grid(&some, &some, lam, 0.5, line), 0.0);
        }
        for b0 in [f64::NAN, 0.0, 1.0, 7.0] {
            assert_eq!(ln_e_grid(&some, &some, 0.1, b0, line), 0.0);
        }
        let sums = Sums { n: 10.0, s1: f64::NAN, s2: 3.0 };
        assert_eq!(ln_e_moments(sums, sums, (0.5, 0.5), 0.1, line), 0.0);
        assert_eq!(ln_e_moments(Sums { n: 0.0, s1: 0.0, s2: 0.0 }, sums, (0.5, 0.5), 0.1, line), 0.0);
    }
}
