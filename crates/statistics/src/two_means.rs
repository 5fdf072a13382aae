//! `m2`: one window's e-value for two means of values in [0, 1] against a linear null.
//!
//! From histograms on a grid (exact, the default):
//!
//! ```text
//! ln e = sum_i h_c[i] ln(1 + g lam (x_i - a0)) + sum_i h_s[i] ln(1 - g lam rho (x_i - b0)),  rho = v n_c / n_s
//! ```
//!
//! with `a0 = v b0 + c` and `b0`, `lam` chosen before the window. From moments alone, the empirical-Bernstein form
//! ([`ln_e_moments`]) is exact too, but needs more data.
//! Sources: Waudby-Smith, Ramdas, JRSSB 2024 (arXiv 2010.09686) for one sample; Fan, Grama, Liu 2015 for the moments form.

use crate::Line;
use crate::numeric::{ln, ln_1p};

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

/// `ln e` of one window from histograms, for one bet `lam` at control's mean `b0`. 0 (no evidence) if an arm is empty or
/// the bet is out of range.
pub fn ln_e_grid(canary: &Grid, control: &Grid, lam: f64, b0: f64, line: Line) -> f64 {
    let (n_c, n_s) = (size(canary), size(control));
    let a0 = line.at(b0);
    let inside = |p: f64| p > 0.0 && p < 1.0;
    if n_c == 0.0 || n_s == 0.0 || !inside(a0) || !inside(b0) || line.v <= 0.0 {
        return 0.0;
    }
    if !(lam > 0.0 && lam < lam_limit(n_c, n_s, b0, line)) {
        return 0.0;
    }
    let up = line.sign * lam;
    let down = up * line.v * n_c / n_s;
    ln_product(canary, up, a0) + ln_product(control, -down, b0)
}

/// Largest count whose factors are multiplied out.
const SMALL_COUNT: u64 = 15;

/// `x^n` for `n` of at most 15, without a branch: the points of a grid are then computed side by side.
fn small_power(x: f64, n: u64) -> f64 {
    let (x2, bit) = (x * x, |mask: u64, power: f64| if n & mask == 0 { 1.0 } else { power });
    let (x4, x8) = (x2 * x2, x2 * x2 * x2 * x2);
    bit(1, x) * bit(2, x2) * (bit(4, x4) * bit(8, x8))
}

/// `sum_i h[i] ln(1 + slope (x_i - center))`, all factors positive. Logarithms are dear: the factors of sparse grid points
/// are multiplied first, and one logarithm is taken of their product before it leaves the safe range.
pub(crate) fn ln_product(grid: &Grid, slope: f64, center: f64) -> f64 {
    let (mut sum, mut product) = (0.0, 1.0_f64);
    for &(x, count) in grid {
        let excess = slope * (x - center);
        let factor = 1.0 + excess;
        if count > SMALL_COUNT || !(1e-6..1e6).contains(&factor) {
            sum += count as f64 * ln_1p(excess);
            continue;
        }
        product *= small_power(factor, count);
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

/// `ln e` of one window from moments: `g lam (S1_c - rho S1_s - n_c c) - psi(lam) Q_c - psi(lam rho) Q_s` with
/// `psi(l) = -ln(1-l) - l` and squares `Q` around the centres `(x_c, x_s)`, chosen before the window. 0 if out of range.
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
        for slope in [0.9, -0.9, 1e-3, 900.0] {
            let grid: Vec<(f64, u64)> = (0..513_u32).map(|i| (f64::from(i) / 512.0, 7 * u64::from(i) % 23)).collect();
            let center = if slope > 1.0 { 1e-9 } else { 0.4 };
            let plain: f64 = grid.iter().map(|&(x, n)| n as f64 * (1.0 + slope * (x - center)).ln()).sum();
            let got = ln_product(&grid, slope, center);
            assert!((got - plain).abs() <= 1e-10 * plain.abs().max(1.0), "{slope}: {got} {plain}");
        }
    }

    #[test]
    fn nonsense_is_no_evidence() {
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
