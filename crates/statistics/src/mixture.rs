//! Combines windows into an e-process: products per bet, mixed over bets and over start windows.
//!
//! A regression may start late. Per bet, `A_t = (A_{t-1} + gamma_t) e_t` with `A_0 = 0` and
//! `E_t = mean_j A_{j,t} + (1 - sum_{u<=t} gamma_u)`. This is a mixture of processes that start at every window, so it is an
//! e-process. By Ville's inequality `P(E_t >= 1/alpha at any t | null) <= alpha`, whatever the number of looks.

use serde::{Deserialize, Serialize};

use crate::numeric::{LN_ZERO, exp, ln, ln_add_exp, ln_or_zero, ln_sum_exp};

/// The prior over start windows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Starts {
    /// All weight on the first window, which gives the plain product (PASS).
    First,
    /// 0.5 on the first window, 0.4 spread over the others up to `horizon`, 0.1 on all later windows (FAIL).
    Restarts {
        /// Planned number of windows of the whole rollout; fixed before the first window.
        horizon: u32,
    },
}

impl Starts {
    /// `gamma_t` for window number `t`, counted from 1. The sum over all windows is at most 1.
    pub fn gamma(self, t: u64) -> f64 {
        match self {
            Self::First => f64::from(u8::from(t == 1)),
            Self::Restarts { horizon } => {
                let horizon = u64::from(horizon.max(2));
                if t <= 1 {
                    0.5
                } else if t <= horizon {
                    0.4 / (horizon - 1) as f64
                } else {
                    let k = (t - horizon) as f64;
                    0.1 / (k * (k + 1.0))
                }
            }
        }
    }
}

/// The state of one e-process. All numbers are finite, so that any codec can carry them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Mixture {
    ln_a: Vec<f64>,
    spent: f64,
    max_ln_e: f64,
}

impl Mixture {
    /// Creates a process over `bets` bets, at `E = 1`.
    pub fn new(bets: usize) -> Self {
        Self { ln_a: vec![LN_ZERO; bets.max(1)], spent: 0.0, max_ln_e: 0.0 }
    }

    /// Multiplies in one window, given its `ln e` per bet (missing or NaN entries count as 0) and its `gamma`.
    pub fn update(&mut self, gamma: f64, ln_e: &[f64]) {
        let ln_gamma = ln_or_zero(gamma);
        for (j, ln_a) in self.ln_a.iter_mut().enumerate() {
            let step = ln_e.get(j).copied().filter(|step| !step.is_nan()).unwrap_or(0.0);
            *ln_a = (ln_add_exp(*ln_a, ln_gamma) + step).max(LN_ZERO);
        }
        self.spent += gamma;
        self.max_ln_e = self.max_ln_e.max(self.ln_e());
    }

    /// `ln E` now.
    pub fn ln_e(&self) -> f64 {
        let mean = ln_sum_exp(self.ln_a.iter().copied()) - ln(self.ln_a.len() as f64);
        ln_add_exp(mean, ln_or_zero(1.0 - self.spent))
    }

    /// The largest `ln E` so far, at least 0.
    pub fn max_ln_e(&self) -> f64 {
        self.max_ln_e
    }

    /// Resets the process to `E = 1` and forgets everything.
    pub fn reset(&mut self) {
        *self = Self::new(self.ln_a.len());
    }
}

/// `min(1, 1 / max_t E_t)`: the anytime-valid p-value.
pub fn p_anytime(max_ln_e: f64) -> f64 {
    if max_ln_e > 0.0 { exp(-max_ln_e) } else { 1.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gammas_sum_to_one() {
        for horizon in [0, 1, 2, 60, 360] {
            let starts = Starts::Restarts { horizon };
            let sum: f64 = (1..200_000).map(|t| starts.gamma(t)).sum();
            assert!(sum <= 1.0 + 1e-9 && sum > 0.999, "{horizon}: {sum}");
        }
        assert_eq!((1..9).map(|t| Starts::First.gamma(t)).sum::<f64>().to_bits(), 1.0_f64.to_bits());
    }

    #[test]
    fn one_start_is_the_plain_product() {
        // Law P5.
        let steps = [0.3, -1.2, 4.0, 0.0];
        let mut process = Mixture::new(1);
        let mut product = 0.0;
        for (t, step) in (1..).zip(steps) {
            process.update(Starts::First.gamma(t), &[step]);
            product += step;
            assert_eq!(process.ln_e().to_bits(), f64::to_bits(product));
        }
        assert!((process.max_ln_e() - 3.1).abs() < 1e-12);
        process.reset();
        assert_eq!(process, Mixture::new(1));
        assert_eq!(process.ln_e().to_bits(), 0.0_f64.to_bits());
    }

    #[test]
    fn extremes_stay_finite() {
        let mut process = Mixture::new(2);
        for step in [f64::NEG_INFINITY, f64::NAN, -1e300, 1e5, -1e5] {
            process.update(0.1, &[step, 0.0]);
            assert!(process.ln_e().is_finite());
        }
        assert!((p_anytime(-3.0) - 1.0).abs() < 1e-15);
    }
}
