//! Seeded random numbers, the same on every run.

use rand::{Rng as _, RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

/// Above this variance, a count is drawn from the rounded normal distribution: its skewness is then below 1/50.
const NORMAL_FROM: f64 = 2500.0;

/// A source of random numbers.
pub(super) struct Dice(ChaCha8Rng);

impl Dice {
    /// The random numbers of one run.
    pub(crate) fn of(seed: u64, run: u32) -> Self {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        random.set_stream(u64::from(run));
        Self(random)
    }

    /// 64 random bits.
    pub(crate) fn bits(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// A uniform number in (0, 1].
    fn unit(&mut self) -> f64 {
        1.0 - self.0.random::<f64>()
    }

    fn normal(&mut self) -> f64 {
        (-2.0 * self.unit().ln()).sqrt() * (std::f64::consts::TAU * self.unit()).cos()
    }

    /// A Poisson count.
    pub(super) fn poisson(&mut self, mean: f64) -> u64 {
        if mean > NORMAL_FROM {
            return (mean + mean.sqrt() * self.normal()).round().max(0.0) as u64;
        }
        let (mut count, mut at) = (0, -self.unit().ln());
        while at < mean {
            count += 1;
            at -= self.unit().ln();
        }
        count
    }

    /// A binomial count: successes of probability `p` in `n` trials.
    pub(crate) fn binomial(&mut self, n: u64, p: f64) -> u64 {
        if p > 0.5 {
            return n - self.binomial(n, 1.0 - p);
        }
        let mean = n as f64 * p;
        if n == 0 || p.is_nan() || p <= 0.0 {
            return 0;
        }
        let variance = mean * (1.0 - p);
        if variance > NORMAL_FROM {
            return ((mean + variance.sqrt() * self.normal()).round().max(0.0) as u64).min(n);
        }
        // The gaps between successes are geometric.
        let ln_miss = (-p).ln_1p();
        let (mut count, mut at) = (0, 0.0);
        loop {
            at += (self.unit().ln() / ln_miss).floor() + 1.0;
            if at > n as f64 {
                return count;
            }
            count += 1;
        }
    }

    /// A multinomial count: `n` trials among cases of these shares, which add up to 1.
    pub(super) fn split(&mut self, n: u64, shares: impl Iterator<Item = f64>) -> Vec<u64> {
        let (mut left, mut rest) = (n, 1.0);
        shares
            .map(|share| {
                let p = if rest > share { share / rest } else { 1.0 };
                let count = self.binomial(left, p);
                left -= count;
                rest -= share;
                count
            })
            .collect()
    }

    /// A random case of a table.
    pub(super) fn case(&mut self, table: &Table) -> usize {
        let bits = self.bits();
        // The upper half chooses the column, the lower half between its two cases.
        let column = (((bits >> 32) * table.columns.len() as u64) >> 32) as usize;
        let (keep, other) = table.columns[column];
        let coin = (bits & 0xffff_ffff) as f64 / 4_294_967_296.0;
        if coin < keep { column } else { other as usize }
    }
}

/// Cases with probabilities, drawn in constant time (the alias method: Walker 1977, Vose 1991).
#[derive(Clone, Debug)]
pub(crate) struct Table {
    /// For each column, the probability of its own case, and the other case.
    columns: Vec<(f64, u32)>,
}

impl Table {
    /// A table of cases with these weights; not all may be 0.
    pub(crate) fn new(weights: &[f64]) -> Self {
        let total: f64 = weights.iter().sum();
        let mut scaled: Vec<f64> = weights.iter().map(|weight| weight / total * weights.len() as f64).collect();
        let mut columns: Vec<(f64, u32)> = (0..weights.len()).map(|case| (1.0, case as u32)).collect();
        let (mut small, mut large): (Vec<usize>, Vec<usize>) = (0..weights.len()).partition(|&case| scaled[case] < 1.0);
        while let (Some(poor), Some(&rich)) = (small.pop(), large.last()) {
            columns[poor] = (scaled[poor], rich as u32);
            scaled[rich] -= 1.0 - scaled[poor];
            if scaled[rich] < 1.0 {
                large.pop();
                small.push(rich);
            }
        }
        Self { columns }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Mean and variance of many draws.
    fn moments(draws: u32, mut draw: impl FnMut() -> f64) -> (f64, f64) {
        let values: Vec<f64> = (0..draws).map(|_| draw()).collect();
        let mean = values.iter().sum::<f64>() / f64::from(draws);
        (mean, values.iter().map(|value| (value - mean) * (value - mean)).sum::<f64>() / f64::from(draws))
    }

    #[test]
    fn counts_have_the_right_mean_and_variance() {
        let mut dice = Dice::of(1, 0);
        for (n, p) in [(40, 0.02), (1000, 0.3), (1000, 0.97), (100_000, 0.2), (5, 1.0), (5, 0.0)] {
            let (mean, variance) = moments(20_000, || dice.binomial(n, p) as f64);
            let (wanted, spread) = (n as f64 * p, n as f64 * p * (1.0 - p));
            assert!((mean - wanted).abs() <= 5.0 * (spread / 20_000.0).sqrt(), "{n} {p}: {mean}");
            assert!((variance - spread).abs() <= 0.06 * spread, "{n} {p}: {variance}");
        }
        for wanted in [0.3, 30.0, 5000.0] {
            let (mean, variance) = moments(20_000, || dice.poisson(wanted) as f64);
            assert!((mean / wanted - 1.0).abs() < 5.0 / (20_000.0 * wanted).sqrt(), "{wanted}: {mean}");
            assert!((variance / wanted - 1.0).abs() < 0.06, "{wanted}: {variance}");
        }
    }

    #[test]
    fn tables_and_splits_keep_their_shares() {
        let mut dice = Dice::of(2, 0);
        let weights = [0.0, 5.0, 1.0, 3.0, 1.0];
        let table = Table::new(&weights);
        let mut seen = [0_u32; 5];
        for _ in 0..100_000 {
            seen[dice.case(&table)] += 1;
        }
        for (count, weight) in seen.iter().zip(weights) {
            assert!((f64::from(*count) - 10_000.0 * weight).abs() < 600.0, "{seen:?}");
        }
        assert_eq!(seen[0], 0);
        let parts = dice.split(100_000, [0.5, 0.2, 0.3].into_iter());
        assert_eq!(parts.iter().sum::<u64>(), 100_000);
        assert!(parts[1].abs_diff(20_000) < 700, "{parts:?}");
    }

    #[test]
    fn runs_differ_and_repeat() {
        let bits = |seed, run| Dice::of(seed, run).bits();
        assert_eq!(bits(1, 7), bits(1, 7));
        assert_ne!(bits(1, 7), bits(1, 8));
        assert_ne!(bits(1, 7), bits(2, 7));
    }
}
