//! Exact draws of counts: binomials and multinomials from one seeded stream.
//!
//! Invariants: no raw events where counts suffice; `libm` only, so that a seed gives the same counts on every platform.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng as _, SeedableRng as _};
use serin_sketches::{CappedHist, LN_GAMMA, LinHist, LogHist, Rate, Summary};

/// Up to this number of trials, drawing them one by one is faster.
const FEW: u64 = 4;
/// Below this mean, a binomial is searched from zero instead of from its mode.
const SMALL_MEAN: f64 = 8.0;
/// Probabilities below this are lost in rounding.
const NEGLIGIBLE: f64 = 1e-18;

/// The cap of event counts.
pub(super) const MOST_EVENTS: f64 = 1e6;

/// A seeded random stream.
pub(super) struct Dice(ChaCha8Rng);

impl Dice {
    /// The stream for run number `run` of the scenario `name`.
    pub(super) fn new(name: &str, run: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(run);
        rng.set_stream(serin_sketches::hash::hash64(b"gates", name.as_bytes()));
        Self(rng)
    }

    /// 64 random bits.
    pub(super) fn bits(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// A uniform number in (0, 1).
    pub(super) fn unit(&mut self) -> f64 {
        ((self.bits() >> 11) as f64 + 0.5) / (1_u64 << 53) as f64
    }

    /// Number of events in `n` trials with probability `p`: inversion, searching outwards from zero or from the mode.
    pub(super) fn binomial(&mut self, n: u64, p: f64) -> u64 {
        if n == 0 || p <= 0.0 {
            return 0;
        }
        if n <= FEW {
            return (0..n).filter(|_| self.unit() < p).count() as u64;
        }
        if p > 0.5 {
            return n - self.binomial(n, 1.0 - p);
        }
        let (size, odds) = (n as f64, p / (1.0 - p));
        let start = if size * p < SMALL_MEAN { 0 } else { (((size + 1.0) * p) as u64).min(n) };
        let (mut low, mut high) = (start, start);
        let mut at_low = mass(start, n, p);
        let mut at_high = at_low;
        let mut left = self.unit() - at_low;
        while left > 0.0 && (at_low > NEGLIGIBLE || at_high > NEGLIGIBLE) {
            at_high *= (n - high) as f64 / (high + 1) as f64 * odds;
            high += u64::from(high < n);
            left -= at_high;
            if left <= 0.0 {
                return high;
            }
            at_low *= low as f64 / ((n - low + 1) as f64 * odds);
            low = low.saturating_sub(1);
            left -= at_low;
            if left <= 0.0 {
                return low;
            }
        }
        start
    }

    /// The outcome of `n` trials with probability `p`.
    pub(super) fn rate(&mut self, n: u64, p: f64) -> Rate {
        Rate::new(n, self.binomial(n, p)).expect("a binomial is at most n")
    }

    /// Poisson with mean `mean`: products of uniforms, in pieces of a small mean.
    pub(super) fn poisson(&mut self, mean: f64) -> u64 {
        let (mut left, mut count) = (mean, 0);
        while left > 0.0 {
            let least = libm::exp(-left.min(SMALL_MEAN));
            left -= SMALL_MEAN;
            let mut product = self.unit();
            while product > least {
                product *= self.unit();
                count += 1;
            }
        }
        count
    }

    /// A standard normal number.
    pub(super) fn normal(&mut self) -> f64 {
        libm::sqrt(-2.0 * libm::log(self.unit())) * libm::cos(core::f64::consts::TAU * self.unit())
    }

    /// Gamma with shape `a` and scale 1. Source: Marsaglia, Tsang, ACM TOMS 2000, with their boost for `a < 1`.
    fn gamma(&mut self, a: f64) -> f64 {
        if a < 1.0 {
            return self.gamma(a + 1.0) * libm::pow(self.unit(), 1.0 / a);
        }
        let d = a - 1.0 / 3.0;
        let c = 1.0 / libm::sqrt(9.0 * d);
        loop {
            let x = self.normal();
            let v = (1.0 + c * x).powi(3);
            if v > 0.0 && libm::log(self.unit()) < 0.5 * x * x + d - d * v + d * libm::log(v) {
                return d * v;
            }
        }
    }

    /// Beta with the given mean and `a + b = concentration`.
    pub(super) fn beta(&mut self, mean: f64, concentration: f64) -> f64 {
        let (x, y) = (self.gamma(mean * concentration), self.gamma((1.0 - mean) * concentration));
        x / (x + y)
    }
}

/// `P(Binomial(n, p) = k)`.
fn mass(k: u64, n: u64, p: f64) -> f64 {
    let (n, k) = (n as f64, k as f64);
    if k == 0.0 {
        return libm::exp(n * libm::log1p(-p));
    }
    let ways = libm::lgamma(n + 1.0) - libm::lgamma(k + 1.0) - libm::lgamma(n - k + 1.0);
    libm::exp(ways + k * libm::log(p) + (n - k) * libm::log1p(-p))
}

/// Distribution function of the standard normal.
pub(super) fn normal_cdf(z: f64) -> f64 {
    0.5 * libm::erfc(-z * core::f64::consts::FRAC_1_SQRT_2)
}

/// A discrete distribution: values with cumulative probabilities.
#[derive(Clone)]
pub(super) struct Shape {
    values: Vec<f64>,
    /// Cumulative probabilities from 0; one entry more than the values.
    cumulative: Vec<f64>,
}

impl Shape {
    fn new(cells: impl IntoIterator<Item = (f64, f64)>) -> Self {
        let (mut values, mut cumulative) = (Vec::new(), vec![0.0]);
        for (value, probability) in cells {
            values.push(value);
            cumulative.push(cumulative.last().copied().unwrap_or(0.0) + probability);
        }
        Self { values, cumulative }
    }

    /// A mixture of log-normal distributions `(weight, median, sigma)`, in the bins of the log histogram.
    pub(super) fn log_normals(parts: &[(f64, f64, f64)]) -> Self {
        let ends = parts.iter().flat_map(|&(_, median, sigma)| [-6.0, 6.0].map(|z| libm::log(median) + z * sigma));
        let keys = ends.map(|end| libm::floor(end / LN_GAMMA) as i32);
        let (first, last) = keys.fold((i32::MAX, i32::MIN), |(low, high), key| (low.min(key), high.max(key)));
        let below = |key: i32| -> f64 {
            let at = f64::from(key) * LN_GAMMA;
            parts.iter().map(|&(weight, median, sigma)| weight * normal_cdf((at - libm::log(median)) / sigma)).sum()
        };
        let middle = |key: i32| libm::exp((f64::from(key) - 0.5) * LN_GAMMA);
        Self::new((first..=last).map(|key| (middle(key), below(key) - below(key - 1))))
    }

    /// A beta distribution with the given mean and `a + b = concentration`, on the grid of the linear histogram.
    pub(super) fn beta(mean: f64, concentration: f64) -> Self {
        let (a, b) = (mean * concentration, (1.0 - mean) * concentration);
        let cells = serin_sketches::LIN_CELLS;
        let inner = (1..cells).map(|i| f64::from(i) / f64::from(cells));
        Self::new(inner.map(|x| (x, libm::pow(x, a - 1.0) * libm::pow(1.0 - x, b - 1.0))))
    }

    /// Event counts: a negative binomial distribution with this mean and this (larger) variance, up to where the mass is negligible.
    pub(super) fn negative_binomial(mean: f64, variance: f64) -> Self {
        let p = mean / variance;
        let r = mean * p / (1.0 - p);
        let mut mass = libm::exp(r * libm::log(p));
        let most = mean + 60.0 * libm::sqrt(variance);
        Self::new((0..most as u32).map(|k| {
            let (value, own) = (f64::from(k), mass);
            mass *= (r + value) / (value + 1.0) * (1.0 - p);
            (value, own)
        }))
    }

    /// The same distribution, except that this share of the draws is `value`.
    pub(super) fn with_rare(self, share: f64, value: f64) -> Self {
        let own = self.cumulative.windows(2).map(|ends| (1.0 - share) * (ends[1] - ends[0]));
        let rare = (share > 0.0).then_some((value, share));
        Self::new(self.values.iter().copied().zip(own).chain(rare))
    }

    /// A multinomial of `n`, as `(value, count)`: halves are split by binomials, and empty halves are skipped.
    fn draw(&self, dice: &mut Dice, n: u64, take: &mut impl FnMut(f64, u64)) {
        self.split(dice, n, 0, self.values.len(), take);
    }

    fn split(&self, dice: &mut Dice, n: u64, from: usize, to: usize, take: &mut impl FnMut(f64, u64)) {
        if n == 0 {
            return;
        }
        if to - from == 1 {
            take(self.values[from], n);
            return;
        }
        let (middle, cumulative) = (usize::midpoint(from, to), &self.cumulative);
        let whole = cumulative[to] - cumulative[from];
        let share = if whole > 0.0 { (cumulative[middle] - cumulative[from]) / whole } else { 0.0 };
        let left = dice.binomial(n, share);
        self.split(dice, left, from, middle, take);
        self.split(dice, n - left, middle, to, take);
    }
}

/// The distribution of one arm's answers, from which the summaries of windows are drawn.
#[derive(Clone)]
pub(super) enum Signal {
    /// A share of answers.
    Rate(f64),
    /// Non-negative values in a log histogram.
    Log(Shape),
    /// Values in [0, 1] in a linear histogram.
    Lin(Shape),
    /// Counts of events per answer.
    Counts(Shape),
    /// Revenue per visitor, winsorized at a cap: buyers have a log-normal amount (median 1), all others 0.
    Revenue {
        /// Share of buyers.
        buyers: f64,
        /// Sigma of the logarithm of the amount.
        sigma: f64,
        /// The declared cap.
        cap: f64,
    },
    /// A share of the answers that meet a condition.
    Filtered {
        /// Share of the answers that meet it.
        counted: f64,
        /// The share among these.
        share: f64,
    },
    /// Calls with rows that are correlated within a call: each call has its own share, from a beta distribution.
    Batches {
        /// Number of rows of a call.
        rows: u64,
        /// The mean share.
        share: f64,
        /// `a + b` of the beta distribution. The correlation of two rows of a call is 1 / (1 + concentration).
        concentration: f64,
        /// What a call counts as.
        counted: Rows,
    },
}

/// What a call with several rows counts as.
#[derive(Clone, Copy, Debug)]
pub(super) enum Rows {
    /// One answer: the mean of its rows.
    Mean,
    /// One answer: a drawn row.
    Drawn,
    /// As many answers as rows, which is wrong.
    Each,
}

impl Signal {
    /// The summary of `n` answers.
    pub(super) fn draw(&self, dice: &mut Dice, n: u64) -> Summary {
        match self {
            Self::Rate(p) => Summary::Rate(dice.rate(n, *p)),
            Self::Log(shape) => {
                let mut hist = LogHist::new();
                shape.draw(dice, n, &mut |value, count| {
                    (0..count).for_each(|_| hist.insert(value).expect("a value is positive"));
                });
                Summary::Log(hist)
            }
            Self::Lin(shape) => {
                let mut hist = LinHist::new();
                shape.draw(dice, n, &mut |value, count| {
                    (0..count).for_each(|_| hist.insert(value, 0).expect("a grid point is in range"));
                });
                Summary::Lin(hist)
            }
            Self::Counts(shape) => {
                let mut hist = CappedHist::new(MOST_EVENTS).expect("a cap is positive");
                let mut numbers = Vec::new();
                shape.draw(dice, n, &mut |value, count| numbers.push((value, count)));
                for (value, count) in numbers {
                    (0..count).for_each(|_| hist.insert(value, dice.bits()).expect("a number is not negative"));
                }
                Summary::Capped(hist)
            }
            Self::Revenue { cap, .. } => {
                let amounts = self.amounts(dice, n);
                Self::winsorized(dice, &amounts, *cap)
            }
            Self::Filtered { counted, share } => {
                let counted = dice.binomial(n, *counted);
                Summary::Rate(dice.rate(counted, *share))
            }
            Self::Batches { rows, share, concentration, counted } => {
                let (mut means, mut drawn, mut each) = (LinHist::new(), 0, 0);
                for _ in 0..n {
                    let own = dice.beta(*share, *concentration);
                    let yes = dice.binomial(*rows, own);
                    let mean = yes as f64 / *rows as f64;
                    means.insert(mean, dice.bits()).expect("a mean of shares is in range");
                    drawn += u64::from(dice.unit() < mean);
                    each += yes;
                }
                let rate = |n, k| Summary::Rate(Rate::new(n, k).expect("counts are at most n"));
                match counted {
                    Rows::Mean => Summary::Lin(means),
                    Rows::Drawn => rate(n, drawn),
                    Rows::Each => rate(n * rows, each),
                }
            }
        }
    }

    /// The raw amounts of `n` visitors; empty for other signals.
    pub(super) fn amounts(&self, dice: &mut Dice, n: u64) -> Vec<f64> {
        let Self::Revenue { buyers, sigma, .. } = self else { return Vec::new() };
        let paying = dice.binomial(n, *buyers);
        let mut amounts: Vec<f64> = (0..paying).map(|_| libm::exp(sigma * dice.normal())).collect();
        amounts.resize(n as usize, 0.0);
        amounts
    }

    /// The histogram of amounts, winsorized at `cap`.
    pub(super) fn winsorized(dice: &mut Dice, amounts: &[f64], cap: f64) -> Summary {
        let mut hist = CappedHist::new(cap).expect("a cap is positive");
        for &amount in amounts {
            hist.insert(amount, dice.bits()).expect("an amount is not negative");
        }
        Summary::Capped(hist)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pearson's statistic of `counts` against `expected`, with cells below 5 pooled, and its degrees of freedom.
    fn chi_square(counts: &[f64], expected: &[f64]) -> (f64, f64) {
        let (mut sum, mut cells, mut rest) = (0.0, -1.0, (0.0, 0.0));
        for (&count, &expected) in counts.iter().zip(expected) {
            rest = (rest.0 + count, rest.1 + expected);
            if rest.1 >= 5.0 {
                sum += (rest.0 - rest.1) * (rest.0 - rest.1) / rest.1;
                cells += 1.0;
                rest = (0.0, 0.0);
            }
        }
        (sum, cells)
    }

    /// Four standard deviations above the mean of a chi-square.
    fn limit(freedom: f64) -> f64 {
        freedom + 4.0 * (2.0 * freedom).sqrt()
    }

    #[test]
    fn binomials_follow_their_distribution() {
        let mut dice = Dice::new("binomials", 0);
        let draws = 20_000;
        for (n, p) in
            [(3, 0.3), (40, 0.01), (167, 0.05), (167, 0.97), (1500, 0.01), (9500, 0.05), (1000, 0.5), (7, 0.999_999_9)]
        {
            let mut counts = vec![0.0; n as usize + 1];
            (0..draws).for_each(|_| counts[dice.binomial(n, p) as usize] += 1.0);
            let expected: Vec<f64> = (0..=n).map(|k| f64::from(draws) * mass(k, n, p)).collect();
            assert!((expected.iter().sum::<f64>() / f64::from(draws) - 1.0).abs() < 1e-9);
            let (statistic, freedom) = chi_square(&counts, &expected);
            assert!(statistic <= limit(freedom).max(1e-9), "n {n}, p {p}: {statistic} with {freedom}");
        }
        assert_eq!((dice.binomial(5, 0.0), dice.binomial(5, 1.0), dice.binomial(0, 0.5)), (0, 5, 0));
        assert_eq!((dice.binomial(500, 0.0), dice.binomial(500, 1.0)), (0, 500));
    }

    #[test]
    fn poisson_counts_have_their_mean_and_variance() {
        let mut dice = Dice::new("poisson", 0);
        for mean in [0.2, 3.0, 8.0, 30.0] {
            let draws: Vec<f64> = (0..20_000).map(|_| dice.poisson(mean) as f64).collect();
            let found = draws.iter().sum::<f64>() / 20_000.0;
            let variance = draws.iter().map(|x| (x - found) * (x - found)).sum::<f64>() / 20_000.0;
            assert!((found / mean - 1.0).abs() < 0.06 && (variance / mean - 1.0).abs() < 0.06, "{found} {variance}");
        }
        assert_eq!(dice.poisson(0.0), 0);
    }

    #[test]
    fn bursts_have_their_mean_and_variance() {
        for (mean, variance) in [(0.5, 1.0), (2.0, 18.0), (200.0, 19_881.0)] {
            let Shape { values, cumulative } = Shape::negative_binomial(mean, variance);
            let mass = |k: usize| cumulative[k + 1] - cumulative[k];
            let sum = |power: i32| (0..values.len()).map(|k| mass(k) * values[k].powi(power)).sum::<f64>();
            assert!((sum(0) - 1.0).abs() < 1e-9 && (sum(1) / mean - 1.0).abs() < 1e-6, "{mean}");
            assert!(((sum(2) - sum(1) * sum(1)) / variance - 1.0).abs() < 1e-6, "{mean} {variance}");
        }
    }

    #[test]
    fn multinomials_follow_their_shape() {
        let mut dice = Dice::new("multinomials", 0);
        let shape = Shape::beta(0.8, 10.0);
        let mut counts = vec![0.0; shape.values.len()];
        let cells = f64::from(serin_sketches::LIN_CELLS);
        for n in [10, 170, 20_000] {
            shape.draw(&mut dice, n, &mut |value, count| counts[(value * cells) as usize - 1] += count as f64);
        }
        let whole = shape.cumulative[shape.values.len()];
        let expected: Vec<f64> =
            shape.cumulative.windows(2).map(|ends| 20_180.0 * (ends[1] - ends[0]) / whole).collect();
        let (statistic, freedom) = chi_square(&counts, &expected);
        assert!(statistic <= limit(freedom), "{statistic} with {freedom}");
        let mean: f64 = shape.values.iter().zip(&expected).map(|(value, expected)| value * expected / 20_180.0).sum();
        assert!((mean - 0.8).abs() < 1e-4, "{mean}");
    }

    #[test]
    fn users_differ_as_specified() {
        let mut dice = Dice::new("users", 0);
        let draws: Vec<f64> = (0..20_000).map(|_| dice.beta(0.05, 19.0)).collect();
        let mean = draws.iter().sum::<f64>() / 20_000.0;
        let variance = draws.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / 20_000.0;
        // Var = mean (1 - mean) / (concentration + 1).
        assert!((mean - 0.05).abs() < 0.0015 && (variance / (0.0475 / 20.0) - 1.0).abs() < 0.08, "{mean} {variance}");
    }
}
