//! Two memories of control: a slow one, which is precise while nothing changes, and a fast one for use after a change.
//!
//! After a burst of load the slow memory contains the burst's values for many windows, and bets based on them gain nothing
//! from calm windows. So if the fast memory contradicts the slow one by more than chance explains, bets use the fast one.
//! The choice uses only earlier windows, so bets stay predictable and the tests stay valid.

use serde::{Deserialize, Serialize};

use crate::numeric::ln_1p;
use crate::{FAST_FORGETTING, FORGETTING, PastHist, PastMean, PastRate};

/// Smallest forgotten number of control's answers before any bet is made. With fewer answers the base rate is a guess, and a
/// bad guess costs a process evidence that it does not regain. Windows before that only inform the past.
pub const MIN_PAST: f64 = 30.0;

/// `n KL(fast || slow)` beyond which the slow memory is out of date, in nats. By chance this happens about once in 500 windows
/// (`2 n KL` is about chi-squared with one degree of freedom; the forgotten `n` understates the fast memory's precision).
const OUT_OF_DATE: f64 = 3.0;

/// The same past at two speeds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Memory<P> {
    slow: P,
    fast: P,
}

impl<P> Memory<P> {
    /// Creates a memory from both pasts.
    pub(crate) fn of(slow: P, fast: P) -> Self {
        Self { slow, fast }
    }

    /// Adds data to both with `add(past, phi)`. `phi` is 1 unless this is the first data of a new window.
    pub fn each(&mut self, new_window: bool, mut add: impl FnMut(&mut P, f64)) {
        add(&mut self.slow, if new_window { FORGETTING } else { 1.0 });
        add(&mut self.fast, if new_window { FAST_FORGETTING } else { 1.0 });
    }

    /// The slow memory.
    pub fn slow(&self) -> &P {
        &self.slow
    }

    /// The fast memory.
    pub fn fast(&self) -> &P {
        &self.fast
    }

    fn pick(&self, out_of_date: bool) -> &P {
        if out_of_date { &self.fast } else { &self.slow }
    }
}

impl Memory<PastRate> {
    /// The past on which bets rest.
    pub fn current(&self) -> &PastRate {
        self.pick(contradicts(self.fast.n(), self.fast.b_hat(), self.slow.b_hat()))
    }
}

impl Memory<PastMean> {
    /// The past on which bets rest.
    pub fn current(&self) -> &PastMean {
        let shift = self.fast.mean() - self.slow.mean();
        let variance = self.slow.variance().max(self.fast.variance()).max(1e-6);
        self.pick(0.5 * self.fast.n() * shift * shift / variance > OUT_OF_DATE)
    }
}

impl Memory<PastHist> {
    /// The fast memory, once it contains enough values to locate a quantile; before that, the slow one.
    pub(crate) fn fast_or_slow(&self) -> &PastHist {
        self.pick(self.fast.n() >= MIN_PAST)
    }

    /// The past on which bets about the `level`-quantile rest. The memories are compared by their tails beyond the slow one's quantile.
    pub fn current(&self, level: f64) -> &PastHist {
        let out_of_date = |key| contradicts(self.fast.n(), self.fast.tail(key), self.slow.tail(key));
        self.pick(self.slow.key_at(level).is_some_and(out_of_date))
    }
}

/// Whether a rate of `q` in `n` trials contradicts the rate `p`. Both must be strictly between 0 and 1.
fn contradicts(n: f64, q: f64, p: f64) -> bool {
    // q ln(q/p) + (1-q) ln((1-q)/(1-p))
    n * (q * ln_1p((q - p) / p) + (1.0 - q) * ln_1p((p - q) / (1.0 - p))) > OUT_OF_DATE
}

#[cfg(test)]
mod tests {
    use super::*;
    use serin_sketches::Rate;

    #[test]
    fn the_fast_memory_serves_while_the_slow_one_is_out_of_date() {
        let mut memory = Memory::<PastRate>::default();
        let push = |memory: &mut Memory<PastRate>, k| {
            memory.each(true, |past, phi| past.push(Rate::new(1000, k).unwrap(), phi));
        };
        for _ in 0..20 {
            push(&mut memory, 10);
            assert_eq!(memory.current(), memory.slow());
        }
        for _ in 0..3 {
            push(&mut memory, 300);
        }
        assert!(memory.slow().b_hat() < 0.06 && memory.current().b_hat() > 0.15);
        for _ in 0..20 {
            push(&mut memory, 10);
        }
        assert!(memory.slow().b_hat() > 0.025 && memory.current().b_hat() < 0.011);
    }

    #[test]
    fn noise_does_not_switch() {
        let mut memory = Memory::<PastRate>::default();
        for k in [10, 14, 7, 12, 6, 11, 15, 9, 8, 13, 10] {
            memory.each(true, |past, phi| past.push(Rate::new(1000, k).unwrap(), phi));
            assert_eq!(memory.current(), memory.slow());
        }
    }
}
