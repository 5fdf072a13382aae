//! Paired tests: both versions answered the same requests (shadow traffic, or two files of predictions).
//!
//! Pairs contain much more information than two separate arms, because what is hard for both versions cancels. They need
//! summaries of the pairs: how often the answers differ, which version is wrong where they differ, and the differences of
//! numbers. The summaries of the single arms do not contain this.
//!
//! For one look (reports): [`Disagreement`] for the share of answers that differ (the binomial test, or Wilson's score for many
//! pairs), [`Discordant`] for 0/1 outcomes (`McNemar`'s exact test; with a margin an exact test, or Tango's score for many pairs),
//! [`Differences`] for numbers (the paired t test and its interval), [`p_within_bounded`] for numbers with a known range.
//!
//! Assumes that pairs are independent. Higher is worse: outcomes are errors, and differences are "canary minus control" of a
//! loss. For a gain, swap the arms.

use serin_sketches::{Pairs, Rate};

use crate::fixed;
use crate::laws::{normal_sf, t_isf, t_sf};
use crate::numeric::{exp, is_inner, ln_1p, odds, sqrt};

/// With fewer differing pairs than this, the normal approximation is not close enough.
const FEW: u64 = 30;
/// Probability that an exact test wrongly rules out a share.
const RULED_OUT: f64 = 1e-4;
/// Number of steps over the shares that are not ruled out.
const NUISANCE: u32 = 64;
/// Number of steps for the ends of an interval.
const COARSE: u32 = 16;
/// Number of bisections when searching an end of an interval.
const BISECTIONS: u32 = 40;
/// Pairs per squared skewness that a t test needs, as for planned looks.
const PER_SQUARED_SKEWNESS: f64 = 25.0;
/// The largest bet, as a share of the bet that can lose everything.
const MOST_BET: f64 = 0.75;

/// Counts of pairs whose 0/1 outcomes differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Discordant {
    /// Number of pairs.
    pub n: u64,
    /// Pairs in which the outcome is 1 for the canary only (`b`).
    pub only_canary: u64,
    /// Pairs in which the outcome is 1 for control only (`c`).
    pub only_control: u64,
}

impl Discordant {
    /// The counts of a summary.
    pub fn of(pairs: &Pairs) -> Self {
        Self { n: pairs.n(), only_canary: pairs.only_canary(), only_control: pairs.only_control() }
    }

    fn swapped(self) -> Self {
        Self { n: self.n, only_canary: self.only_control, only_control: self.only_canary }
    }

    /// `(b - c) / n`: by how much the canary's rate is higher. `None` without pairs or for inconsistent counts.
    pub fn difference(self) -> Option<f64> {
        let fits = self.only_canary.checked_add(self.only_control).is_some_and(|both| both <= self.n);
        (self.n > 0 && fits).then(|| (self.only_canary as f64 - self.only_control as f64) / self.n as f64)
    }

    /// One-sided p-value of "the canary's rate is higher": `McNemar`'s exact test, `P(Binomial(b + c, 1/2) >= b)`.
    pub fn p_higher(self) -> f64 {
        fixed::mcnemar(self.only_canary, self.only_control).map_or(1.0, |test| test.p_canary_worse)
    }

    /// Tango's score statistic of the difference of the rates against `delta`: `((b - c)/n - delta) / sd`. The variance is taken at the
    /// most likely rates whose difference is `delta`: `2 n p^2 - (b + c + (b - c - 2n) delta) p - c delta (1 - delta) = 0`. At
    /// `delta = 0` it is `McNemar`'s `(b - c)/sqrt(b + c)`. Source: Tango 1998.
    fn score(self, delta: f64) -> f64 {
        if delta < 0.0 {
            return -self.swapped().score(-delta);
        }
        let (n, b, c) = (self.n as f64, self.only_canary as f64, self.only_control as f64);
        let half = b + c + (b - c - 2.0 * n) * delta;
        let p = (half + sqrt(half * half + 8.0 * n * c * delta * (1.0 - delta))) / (4.0 * n);
        let variance = (2.0 * p + delta * (1.0 - delta)) / n;
        let distance = (b - c) / n - delta;
        if distance == 0.0 { 0.0 } else { distance / sqrt(variance) }
    }

    /// Whether the test against `delta` is exact. At 0 it is always exact (`McNemar`). Otherwise it is exact if too few
    /// pairs differ, or would differ at `delta`, for the normal approximation.
    pub fn is_exact(self, delta: f64) -> bool {
        let expected = self.n as f64 * delta.abs();
        delta == 0.0 || (self.only_canary + self.only_control < FEW && expected < 2.0 * FEW as f64)
    }

    /// One-sided p-value of "the canary's rate is higher by more than `margin`": exact if [`Self::is_exact`], otherwise Tango's.
    pub fn p_beyond(self, margin: f64) -> f64 {
        self.swapped().p_within(-margin)
    }

    /// One-sided p-value of "the canary's rate is higher by less than `margin`": exact if [`Self::is_exact`], otherwise Tango's.
    pub fn p_within(self, margin: f64) -> f64 {
        if margin == 0.0 {
            self.swapped().p_higher()
        } else if self.is_exact(margin) {
            self.exact(margin, NUISANCE)
        } else {
            normal_sf(-self.score(margin))
        }
    }

    /// The exact p-value of "the canary's rate is higher by less than `delta`": the probability of counts whose score is as
    /// low or lower, at the worst share `q` of pairs in which only control has the outcome, `P(canary only) = q + delta`.
    /// Shares that the counts rule out with a confidence of 1 - [`RULED_OUT`] are skipped, and that error rate is added.
    /// Sources: Hsueh, Liu, Chen, Biometrics 2001 (the score statistic, unconditional); Berger, Boos, JASA 1994.
    fn exact(self, delta: f64, steps: u32) -> f64 {
        let (n, seen) = (self.n, self.score(delta));
        if !seen.is_finite() {
            return 1.0;
        }
        let (least, most) = ((-delta).max(0.0), f64::midpoint(1.0, -delta).min(1.0));
        let control = Rate::new(n, self.only_control).and_then(|rate| fixed::clopper_pearson(rate, 1.0 - RULED_OUT));
        let (low, high) = control.unwrap_or((0.0, 1.0));
        let (low, high) = (low.clamp(least, most), high.clamp(least, most));
        // Counts beyond these have a negligible probability.
        let reach = |share: f64| (n as f64 * share + 8.0 * sqrt(n as f64 * share) + 20.0).min(n as f64) as u64;
        let (rows, columns) = (reach(high), reach((high + delta).max(0.0)));
        // For each count of control: how many counts of the canary have a score that is as low. The number only grows.
        let mut below = Vec::with_capacity(rows as usize + 1);
        let mut end = 0;
        for only_control in 0..=rows {
            let fits = |only_canary| Self { n, only_canary, only_control }.score(delta) <= seen + 1e-9;
            while end <= columns.min(n - only_control) && fits(end) {
                end += 1;
            }
            below.push(end);
        }
        let chance = |q: f64| {
            let q = q.min(1.0 - 1e-12);
            let rest = ((q + delta).max(0.0) / (1.0 - q)).min(1.0);
            let (mut own, mut sum) = (exp(n as f64 * ln_1p(-q)), 0.0);
            for (c, &end) in (0..).zip(&below) {
                sum += own * binomial_below(end, n - c, rest);
                own *= (n - c) as f64 / (c + 1) as f64 * odds(q);
            }
            sum
        };
        let worst = (0..=steps).map(|i| chance(low + (high - low) * f64::from(i) / f64::from(steps)));
        (worst.fold(0.0, f64::max) + RULED_OUT).min(1.0)
    }

    /// Two-sided interval of the difference of the rates at level `1 - alpha`, by inverting the test. `None` without pairs
    /// or for an invalid alpha.
    pub fn interval(self, alpha: f64) -> Option<(f64, f64)> {
        let difference = self.difference()?;
        if !is_inner(alpha) {
            return None;
        }
        // Uses this test at 0 as well, so that the interval has no gap there.
        let p_within = |counts: Self, delta: f64| {
            let exact = delta != 0.0 && counts.is_exact(delta);
            if exact { counts.exact(delta, COARSE) } else { normal_sf(-counts.score(delta)) }
        };
        // The nearest value that the test rules out; `sign` -1 searches below.
        let end = |counts: Self, sign: f64| {
            let (mut inside, mut outside) = (sign * difference, 1.0);
            for _ in 0..BISECTIONS {
                let middle = f64::midpoint(inside, outside);
                let stays = p_within(counts, middle) >= alpha / 2.0;
                *(if stays { &mut inside } else { &mut outside }) = middle;
            }
            sign * f64::midpoint(inside, outside)
        };
        Some((end(self.swapped(), -1.0), end(self, 1.0)))
    }
}

/// `P(Binomial(n, p) < end)`, for `n p` of at most a few hundred.
fn binomial_below(end: u64, n: u64, p: f64) -> f64 {
    if end > n {
        return 1.0;
    }
    if p >= 1.0 {
        return 0.0;
    }
    let (mut term, mut sum) = (exp(n as f64 * ln_1p(-p)), 0.0);
    for k in 0..end {
        sum += term;
        term *= (n - k) as f64 / (k + 1) as f64 * odds(p);
    }
    sum.min(1.0)
}

/// How often the answers of pairs differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Disagreement {
    /// Number of pairs.
    pub n: u64,
    /// Pairs whose answers differ; at most `n`.
    pub differ: u64,
}

impl Disagreement {
    /// Share of the pairs that differ; `None` without pairs.
    pub fn share(self) -> Option<f64> {
        (self.n > 0 && self.differ <= self.n).then(|| self.differ as f64 / self.n as f64)
    }

    /// The score statistic against a share of `limit`: `(k/n - limit) / sqrt(limit (1 - limit) / n)`. 0 where it is not defined.
    fn score(self, limit: f64) -> f64 {
        let Some(share) = self.share().filter(|_| is_inner(limit)) else { return 0.0 };
        (share - limit) / sqrt(limit * (1.0 - limit) / self.n as f64)
    }

    /// Whether the counts are too small for the normal approximation, so that the binomial distribution is used.
    pub fn is_exact(self) -> bool {
        self.differ.min(self.n.saturating_sub(self.differ)) < FEW
    }

    /// One-sided p-value of "more than a share `limit` differs": the binomial test if [`Self::is_exact`], otherwise the
    /// score test. At a limit of 0 a single differing pair proves it; at 1 nothing can.
    pub fn p_beyond(self, limit: f64) -> f64 {
        if limit <= 0.0 && self.differ > 0 {
            return 0.0;
        }
        let exact = || fixed::binomial_test(self.differ, self.n, limit, fixed::Alternative::Greater).unwrap_or(1.0);
        if self.is_exact() { exact() } else { normal_sf(self.score(limit)) }
    }

    /// One-sided p-value of "less than a share `limit` differs".
    pub fn p_within(self, limit: f64) -> f64 {
        let exact = || fixed::binomial_test(self.differ, self.n, limit, fixed::Alternative::Less).unwrap_or(1.0);
        if self.is_exact() { exact() } else { normal_sf(-self.score(limit)) }
    }

    /// Two-sided interval of the share at level `1 - alpha`, by inverting the test: Clopper-Pearson if [`Self::is_exact`],
    /// otherwise Wilson.
    pub fn interval(self, alpha: f64) -> Option<(f64, f64)> {
        let rate = Rate::new(self.n, self.differ)?;
        let interval = if self.is_exact() { fixed::clopper_pearson } else { fixed::wilson };
        let (low, high) = interval(rate, 1.0 - alpha)?;
        // At the ends the formula gives 0 and 1 only up to rounding.
        Some((if self.differ == 0 { 0.0 } else { low }, if self.differ == self.n { 1.0 } else { high }))
    }
}

/// Moments of the differences of numbers, canary minus control.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Differences {
    /// Number of pairs.
    pub n: u64,
    /// Mean difference.
    pub mean: f64,
    /// Sample standard deviation of the differences.
    pub sd: f64,
    /// Skewness of the differences: the mean cube of the standardized differences. 0 if they do not vary.
    pub skewness: f64,
}

impl Differences {
    /// The moments of these differences, in two passes. `None` with fewer than two, or if one is not finite.
    pub fn of(differences: &[f64]) -> Option<Self> {
        let n = differences.len() as f64;
        // Scaled by the largest difference, so that squares and cubes are finite.
        let unit = differences.iter().fold(0.0, |largest: f64, difference| largest.max(difference.abs()));
        let unit = if unit > 0.0 { unit } else { 1.0 };
        let mean = differences.iter().map(|difference| difference / unit).sum::<f64>() / n;
        let power = |k: i32| -> f64 { differences.iter().map(|difference| (difference / unit - mean).powi(k)).sum() };
        let sd = sqrt(power(2) / (n - 1.0));
        // Variation from rounding alone does not count.
        let sd = if sd > 1e-15 { sd } else { 0.0 };
        let skewness = if sd > 0.0 { power(3) / n / (sd * sd * sd) } else { 0.0 };
        let finite = differences.iter().all(|difference| difference.is_finite());
        (differences.len() >= 2 && finite).then_some(Self {
            n: differences.len() as u64,
            mean: mean * unit,
            sd: sd * unit,
            skewness,
        })
    }

    /// Pairs that the t test needs: 25 times the squared skewness, as for planned looks. With fewer pairs the mean of such skewed
    /// differences is not close to normal, and the test passes (or fails, depending on the side of the long tail) too easily.
    pub fn pairs_needed(self) -> u64 {
        (PER_SQUARED_SKEWNESS * self.skewness * self.skewness).ceil() as u64
    }

    fn standard_error(self) -> f64 {
        self.sd / sqrt(self.n as f64)
    }

    /// `P(T <= t)` of the paired t statistic against a mean difference of `margin`, for `side` +1; `P(T >= t)` for -1. If
    /// the differences do not vary, it is 0 or 1, and 1 at the margin itself.
    fn tail(self, margin: f64, side: f64) -> f64 {
        let distance = side * (self.mean - margin);
        if self.sd == 0.0 {
            return if distance < 0.0 { 0.0 } else { 1.0 };
        }
        let p = t_sf(-distance / self.standard_error(), self.n as f64 - 1.0);
        if p.is_nan() { 1.0 } else { p }
    }

    /// One-sided p-value of "the mean difference is above `margin`": the paired t test. 1 if it is not defined.
    pub fn p_beyond(self, margin: f64) -> f64 {
        self.tail(margin, -1.0)
    }

    /// One-sided p-value of "the mean difference is below `margin`".
    pub fn p_within(self, margin: f64) -> f64 {
        self.tail(margin, 1.0)
    }

    /// Two-sided t interval of the mean difference at level `1 - alpha`; `None` for an invalid alpha.
    pub fn interval(self, alpha: f64) -> Option<(f64, f64)> {
        if !is_inner(alpha) {
            return None;
        }
        let reach = t_isf(alpha / 2.0, self.n as f64 - 1.0) * self.standard_error();
        Some((self.mean - reach, self.mean + reach))
    }
}

/// One-sided p-value of "the mean of these differences is below `margin`", for differences that are known to be between `-reach` and
/// `reach`. It is exact for any distribution and any number of independent pairs, but has less power than a t test.
///
/// The bet on each pair depends on the pairs before it and multiplies the wealth by `1 - lam (x - m)`, where `x` and `m` are
/// the difference and the margin on a scale of 0 to 1. Under the null the wealth exceeds `1/p` with probability at most `p`.
/// 1 if there is nothing to bet on. Source: Waudby-Smith, Ramdas, JRSSB 2024 (arXiv 2010.09686).
pub fn p_within_bounded(differences: impl IntoIterator<Item = f64>, reach: f64, margin: f64) -> f64 {
    let scaled = |value: f64| f64::midpoint(value / reach, 1.0);
    let m = scaled(margin);
    if !is_inner(m) {
        return 1.0;
    }
    let (mut wealth, mut most) = (0.0_f64, 0.0_f64);
    // Starts as if one pair had been observed at the middle, with a spread of half the range.
    let (mut count, mut sum, mut squares) = (1.0, 0.5, 0.25);
    for difference in differences {
        let x = scaled(difference).clamp(0.0, 1.0);
        let (mean, variance): (f64, f64) = (sum / count, squares / count);
        let gap = m - mean;
        let lam = (gap / (variance + gap * gap)).clamp(0.0, MOST_BET / (1.0 - m));
        wealth += ln_1p(-lam * (x - m));
        most = most.max(wealth);
        (count, sum, squares) = (count + 1.0, sum + x, squares + (x - mean) * (x - mean));
    }
    exp(-most)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(actual: f64, expected: f64) {
        assert!((actual - expected).abs() <= 1e-9 * expected.abs().max(1e-3), "{actual}, expected {expected}");
    }

    #[test]
    fn fixed_sample_reports_match_reference_values() {
        // scipy.stats.binomtest(10, 14, alternative="greater"), ttest_1samp; Tango's by a numeric likelihood (scipy).
        let few = Discordant { n: 50, only_canary: 10, only_control: 4 };
        close(few.p_higher(), 0.089_782_714_843_75);
        close(few.p_beyond(0.0), 0.089_782_714_843_75);
        close(few.difference().unwrap(), 0.12);
        let pairs = Discordant { n: 500, only_canary: 100, only_control: 40 };
        for (delta, beyond) in [
            (0.02, 9.801_791_173_200_515e-6),
            (0.1, 0.192_275_582_243_917_5),
            (0.2, 0.999_645_916_435_549_5),
            (-0.05, 1.592_376_852_259_927_2e-12),
        ] {
            close(pairs.p_beyond(delta), beyond);
        }
        close(pairs.p_within(0.2), 0.000_354_083_564_450_569_77);
        let (low, high) = pairs.interval(0.05).unwrap();
        close(low, 0.074_869_805_356_346_24);
        close(high, 0.165_717_664_319_856_16);
        // scipy.stats.binomtest(140, 500).proportion_ci(method="wilson"), norm.sf; with few pairs "exact" and the binomial test.
        let differ = Disagreement { n: 500, differ: 140 };
        close(differ.p_beyond(0.2), 3.872_108_215_522_035e-6);
        let (low, high) = differ.interval(0.05).unwrap();
        close(low, 0.242_436_043_041_275_45);
        close(high, 0.320_918_666_761_807_5);
        let differ = Disagreement { n: 50, differ: 14 };
        close(differ.p_beyond(0.2), 0.110_586_507_715_119_16);
        close(differ.p_within(0.4), 0.053_955_034_878_514_33);
        let (low, high) = differ.interval(0.05).unwrap();
        close(low, 0.162_310_600_707_175_2);
        close(high, 0.424_905_356_710_168_57);
        let differences = Differences::of(&[0.1, -0.2, 0.35, 0.05, 0.6, -0.1, 0.25, 0.15]).unwrap();
        close(differences.mean, 0.15);
        close(differences.sd, 0.253_546_276_418_555);
        close(differences.skewness, 0.310_594_188_612_729_7);
        assert_eq!(differences.pairs_needed(), 3);
        close(differences.p_beyond(0.05), 0.150_721_351_894_191_3);
        close(differences.p_within(0.3), 0.069_089_975_486_553_59);
        let (low, high) = differences.interval(0.05).unwrap();
        close(low, -0.061_969_991_687_221_84);
        close(high, 0.361_969_991_687_221_8);
    }

    /// The exact test, compared with scipy over every table of counts, and what a normal approximation would let pass.
    #[test]
    fn a_handful_of_pairs_is_tested_exactly() {
        for ((n, only_canary, only_control, margin), within) in [
            ((3, 0, 0, 0.5), 0.1251),
            ((25, 1, 1, 0.1), 0.105_354_299_694_501_05),
            ((50, 4, 10, -0.02), 0.126_532_599_789_118_32),
        ] {
            let pairs = Discordant { n, only_canary, only_control };
            close(pairs.p_within(margin), within);
            close(pairs.swapped().p_beyond(-margin), within);
        }
        assert!(Discordant { n: 3, only_canary: 0, only_control: 0 }.p_within(0.5) > 0.05);
        assert!(Disagreement { n: 3, differ: 0 }.p_within(0.5) > 0.05);
        // At the margin at most 5 % of the samples pass, computed from the distribution of the counts.
        let (n, margin) = (25_u64, 0.1);
        for q in [0.0, 0.02, 0.1, 0.3] {
            let mut passes = 0.0;
            for only_control in 0..=n {
                for only_canary in 0..=n - only_control {
                    let ways = choose(n, only_control) * choose(n - only_control, only_canary);
                    let chance = ways
                        * libm::pow(q, only_control as f64)
                        * libm::pow(q + margin, only_canary as f64)
                        * libm::pow(1.0 - 2.0 * q - margin, (n - only_control - only_canary) as f64);
                    let pairs = Discordant { n, only_canary, only_control };
                    passes += if pairs.p_within(margin) <= 0.05 { chance } else { 0.0 };
                }
            }
            assert!(passes <= 0.05, "{q}: {passes}");
        }
        let large = Disagreement { n: 1_000_000, differ: 0 };
        assert!(large.p_within(1e-5) < 1e-4 && large.p_beyond(0.0) > 0.999, "{large:?}");
        assert_eq!(
            (Disagreement { n: 9, differ: 1 }.p_beyond(0.0), Disagreement { n: 9, differ: 0 }.p_within(0.0)),
            (0.0, 1.0)
        );
        let (low, high) = Discordant { n: 16_000, only_canary: 3, only_control: 5 }.interval(0.05).unwrap();
        assert!(low < -2.0 / 16_000.0 && high > -2.0 / 16_000.0 && high - low < 0.002, "{low} {high}");
    }

    fn choose(n: u64, k: u64) -> f64 {
        (0..k).fold(1.0, |c, i| c * (n - i) as f64 / (i + 1) as f64)
    }

    #[test]
    fn a_bounded_mean_needs_no_normal_distribution() {
        // One gross error in a hundred, exactly at the margin: a t test passes two thirds of the samples of 30.
        let mut bits = 1_u64;
        let mut random = || {
            bits = bits.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (bits >> 11) as f64 / 9_007_199_254_740_992.0
        };
        for n in [30, 100, 1000] {
            let passes = (0..1000).filter(|_| {
                let drawn: Vec<f64> = (0..n).map(|_| if random() < 0.01 { 1.0 } else { 0.0 }).collect();
                p_within_bounded(drawn, 1.0, 0.01) <= 0.05
            });
            assert!(passes.count() <= 60, "{n}");
        }
        // Differences well within the margin are shown to be within it.
        assert!(p_within_bounded((0..200).map(|i| f64::from(i % 2) * 0.02 - 0.01), 1.0, 0.1) < 1e-3);
        assert_eq!(p_within_bounded([0.0; 9], 1.0, 1.0).to_bits(), 1.0_f64.to_bits());
        assert_eq!(p_within_bounded([], 1.0, 0.1).to_bits(), 1.0_f64.to_bits());
    }

    #[test]
    fn numbers_near_the_end_of_the_float_range_are_finite() {
        let differences: Vec<f64> = (0..60).map(|i| f64::from(i % 3) * 1e300).collect();
        let found = Differences::of(&differences).unwrap();
        assert!((found.mean / 1e300 - 1.0).abs() < 1e-12 && (found.sd / 1e300 - 0.823).abs() < 0.001, "{found:?}");
        assert_eq!(Differences::of(&[1.0, f64::INFINITY]), None);
    }

    #[test]
    fn exact_equality_cannot_be_proven_and_invalid_input_gives_no_finding() {
        let pairs = Discordant { n: 100, only_canary: 0, only_control: 0 };
        assert_eq!(Disagreement { n: 0, differ: 0 }.interval(0.05), None);
        assert!(pairs.p_higher() > 0.999 && pairs.p_within(0.0) > 0.999 && pairs.p_within(0.1) < 0.01);
        let (low, high) = pairs.interval(0.05).unwrap();
        assert!((-0.04..-0.03).contains(&low) && (0.03..0.04).contains(&high), "{low} {high}");
        assert_eq!(Discordant { n: 0, ..pairs }.interval(0.05), None);
        assert_eq!(Discordant { n: 3, only_canary: 2, only_control: 2 }.difference(), None);
        assert_eq!(Differences::of(&[1.0]), None);
        assert_eq!(Differences::of(&[1.0, f64::NAN]), None);
        let same = Differences::of(&[0.25; 40]).unwrap();
        assert_eq!((same.p_beyond(0.2), same.p_beyond(0.3), same.p_within(0.3)), (0.0, 1.0, 0.0));
        assert_eq!(same.interval(0.05), Some((0.25, 0.25)));
    }
}
