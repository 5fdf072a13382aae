//! Paired tests: both versions answered the same requests (shadow traffic, or two files of predictions).
//!
//! Pairs tell much more than two separate arms: what is hard for both versions cancels. They need summaries of the pair (how
//! often the answers differ, who is wrong where they differ, the differences of numbers); the arms' own summaries cannot
//! give these.
//!
//! **At every look** (e-values per window, one per bet; average over the bets and multiply over windows with
//! [`crate::Mixture`]): [`ln_e_disagreement`], [`ln_e_mcnemar`], [`ln_e_mean`].
//!
//! **For one look** (reports): [`Disagreement`] for the share of answers that differ (Wilson's score),
//! [`Discordant`] for 0/1 outcomes (`McNemar`'s exact test, Tango's score test around a margin), [`Differences`] for numbers
//! (the paired t test and its interval).
//!
//! Assumes that pairs are independent. Worse is higher: outcomes are errors, differences are "canary minus control" of a
//! loss; for a gain swap the arms.

use serin_sketches::{Pairs, Rate};

use crate::bets::{MEAN_EFFECTS, ODDS_MULTIPLIERS};
use crate::laws::{normal_sf, t_isf, t_sf};
use crate::numeric::{bisect, is_inner, odds, sqrt};
use crate::two_means::Grid;
use crate::{PastMean, fixed, one_mean, one_rate};

/// Bets on the canary's share of the discordant pairs.
pub const THETAS: [f64; 5] = [0.52, 0.55, 0.6, 0.7, 0.8];

/// `ln e` per bet of one window against "at most a share `limit` of the answers differ"; `None` unless `0 < limit < 1`.
/// The bets are multiples of the limit's odds: `odds(d1) = odds(limit) m`.
pub fn ln_e_disagreement(pairs: &Pairs, limit: f64) -> Option<[f64; 9]> {
    if !is_inner(limit) {
        return None;
    }
    let answers = Rate::new(pairs.n(), pairs.disagreements())?;
    Some(ODDS_MULTIPLIERS.map(|m| {
        let o = odds(limit) * m;
        one_rate::ln_e(answers, o / (1.0 + o), limit)
    }))
}

/// `ln e` per bet of one window against "the canary is not wrong more often than control": `b` pairs in which only the
/// canary is wrong, `c` in which only control is: `b ln(2 th) + c ln(2 (1 - th))`. Swap `b` and `c` for the other side.
pub fn ln_e_mcnemar(b: u64, c: u64) -> [f64; 5] {
    THETAS.map(|theta| one_rate::ln_e_paired(b, c, theta))
}

/// `ln e` per bet of one window against "the mean difference is at most `margin`" (`sign` +1), or at least (-1), by betting
/// on `(D + 1)/2` in [0, 1]: `sum_i h[i] ln(1 + sign lam (x_i - (margin + 1)/2))`.
///
/// The bets, `lam = min(Delta / (sd^2 + Delta^2), 0.9 limit)` with `Delta = D sd`, need the *past* of the differences.
/// `None` unless `-1 < margin < 1`.
pub fn ln_e_mean(halved: &Grid, past: &PastMean, margin: f64, sign: f64) -> Option<[f64; 6]> {
    let center = f64::midpoint(margin, 1.0);
    if !is_inner(center) {
        return None;
    }
    let (sd, limit) = (past.sd().max(1e-3), one_mean::lam_limit(center, sign));
    Some(MEAN_EFFECTS.map(|effect| {
        let lam = (effect / (sd * (1.0 + effect * effect))).min(0.9 * limit);
        one_mean::ln_e(halved, lam, center, sign)
    }))
}

/// How 0/1 outcomes of pairs differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Discordant {
    /// Number of pairs.
    pub n: u64,
    /// Pairs in which the outcome is 1 for the canary only (`b`).
    pub only_canary: u64,
    /// Pairs in which it is 1 for control only (`c`).
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

    /// `(b - c) / n`: by how much the canary's rate is higher. `None` without pairs or where the counts do not fit.
    pub fn difference(self) -> Option<f64> {
        let fits = self.only_canary.checked_add(self.only_control).is_some_and(|both| both <= self.n);
        (self.n > 0 && fits).then(|| (self.only_canary as f64 - self.only_control as f64) / self.n as f64)
    }

    /// One-sided p-value of "the canary's rate is higher": `McNemar`'s exact test, `P(Binomial(b + c, 1/2) >= b)`.
    pub fn p_higher(self) -> f64 {
        fixed::mcnemar(self.only_canary, self.only_control).map_or(1.0, |test| test.p_canary_worse)
    }

    /// Tango's score statistic of the difference of the rates against `delta`: `((b - c)/n - delta) / sd`, the variance at
    /// the likeliest rates whose difference is `delta`: `2 n p^2 - (b + c + (b - c - 2n) delta) p - c delta (1 - delta) = 0`.
    /// At `delta = 0` it is `McNemar`'s `(b - c)/sqrt(b + c)`. Source: Tango 1998.
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

    /// One-sided p-value of "the canary's rate is higher by more than `margin`" (exact at a margin of 0).
    pub fn p_beyond(self, margin: f64) -> f64 {
        if margin == 0.0 { self.p_higher() } else { normal_sf(self.score(margin)) }
    }

    /// One-sided p-value of "the canary's rate is higher by less than `margin`" (exact at 0: "its rate is lower").
    pub fn p_within(self, margin: f64) -> f64 {
        if margin == 0.0 { self.swapped().p_higher() } else { normal_sf(-self.score(margin)) }
    }

    /// Two-sided interval of the difference of the rates at level `1 - alpha`, by inverting Tango's test. `None` without
    /// pairs or for an impossible alpha.
    pub fn interval(self, alpha: f64) -> Option<(f64, f64)> {
        let difference = self.difference()?;
        if !is_inner(alpha) {
            return None;
        }
        let within = |delta: f64| normal_sf(self.score(delta).abs()) >= alpha / 2.0;
        Some((bisect(difference, -1.0, within), bisect(difference, 1.0, within)))
    }
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

    /// The score statistic against a share of `limit`: `(k/n - limit) / sqrt(limit (1 - limit) / n)`. 0 where there is none.
    fn score(self, limit: f64) -> f64 {
        let Some(share) = self.share().filter(|_| is_inner(limit)) else { return 0.0 };
        (share - limit) / sqrt(limit * (1.0 - limit) / self.n as f64)
    }

    /// One-sided p-value of "more than a share `limit` differs": the score test.
    pub fn p_beyond(self, limit: f64) -> f64 {
        normal_sf(self.score(limit))
    }

    /// One-sided p-value of "less than a share `limit` differs".
    pub fn p_within(self, limit: f64) -> f64 {
        normal_sf(-self.score(limit))
    }

    /// Two-sided interval of the share at level `1 - alpha`: Wilson's, which inverts the score test.
    pub fn interval(self, alpha: f64) -> Option<(f64, f64)> {
        let (low, high) = fixed::wilson(Rate::new(self.n, self.differ)?, 1.0 - alpha)?;
        // At the ends the formula gives 0 and 1 only up to rounding.
        Some((if self.differ == 0 { 0.0 } else { low }, if self.differ == self.n { 1.0 } else { high }))
    }
}

/// Differences of numbers, canary minus control, by their moments.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Differences {
    /// Number of pairs.
    pub n: u64,
    /// Mean difference.
    pub mean: f64,
    /// Sample standard deviation of the differences.
    pub sd: f64,
}

impl Differences {
    /// The moments of these differences, in two passes. `None` with fewer than two, or if one is not finite.
    pub fn of(differences: &[f64]) -> Option<Self> {
        let n = differences.len() as f64;
        let mean = differences.iter().sum::<f64>() / n;
        let squares: f64 = differences.iter().map(|difference| (difference - mean) * (difference - mean)).sum();
        let sd = sqrt(squares / (n - 1.0));
        (differences.len() >= 2 && sd.is_finite()).then_some(Self { n: differences.len() as u64, mean, sd })
    }

    /// The moments of a summary's differences. `None` with fewer than two.
    pub fn of_pairs(pairs: &Pairs) -> Option<Self> {
        let (n, moments) = (pairs.differences().n(), pairs.differences());
        let mean = moments.mean()?;
        let squares = (moments.sum_of_squares() - n as f64 * mean * mean).max(0.0);
        (n >= 2).then(|| Self { n, mean, sd: sqrt(squares / (n as f64 - 1.0)) })
    }

    fn standard_error(self) -> f64 {
        self.sd / sqrt(self.n as f64)
    }

    /// `P(T <= t)` of the paired t statistic against a mean difference of `margin`, for `side` +1; `P(T >= t)` for -1.
    /// Without any spread it is certain: 0, 1, or 1 at the margin itself.
    fn tail(self, margin: f64, side: f64) -> f64 {
        let distance = side * (self.mean - margin);
        if self.sd == 0.0 {
            return if distance < 0.0 { 0.0 } else { 1.0 };
        }
        let p = t_sf(-distance / self.standard_error(), self.n as f64 - 1.0);
        if p.is_nan() { 1.0 } else { p }
    }

    /// One-sided p-value of "the mean difference is above `margin`": the paired t test. 1 where it cannot be told.
    pub fn p_beyond(self, margin: f64) -> f64 {
        self.tail(margin, -1.0)
    }

    /// One-sided p-value of "the mean difference is below `margin`".
    pub fn p_within(self, margin: f64) -> f64 {
        self.tail(margin, 1.0)
    }

    /// Two-sided t interval of the mean difference at level `1 - alpha`; `None` for an impossible alpha.
    pub fn interval(self, alpha: f64) -> Option<(f64, f64)> {
        if !is_inner(alpha) {
            return None;
        }
        let reach = t_isf(alpha / 2.0, self.n as f64 - 1.0) * self.standard_error();
        Some((self.mean - reach, self.mean + reach))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::numeric::{exp, ln};

    fn close(actual: f64, expected: f64) {
        assert!((actual - expected).abs() <= 1e-9 * expected.abs().max(1e-3), "{actual}, expected {expected}");
    }

    #[test]
    fn fixed_sample_reports_match_reference_values() {
        // scipy.stats.binomtest(10, 14, alternative="greater"), ttest_1samp; Tango's by a numeric likelihood (scipy).
        let pairs = Discordant { n: 50, only_canary: 10, only_control: 4 };
        close(pairs.p_higher(), 0.089_782_714_843_75);
        close(pairs.p_beyond(0.0), 0.089_782_714_843_75);
        close(pairs.difference().unwrap(), 0.12);
        for (delta, beyond) in [
            (0.02, 0.088_493_597_541_215_05),
            (0.1, 0.391_668_459_428_889_4),
            (0.2, 0.857_886_715_896_087_4),
            (-0.05, 0.013_765_946_937_814_827),
        ] {
            close(pairs.p_beyond(delta), beyond);
        }
        close(pairs.p_within(0.2), 0.142_113_284_103_912_6);
        let (low, high) = pairs.interval(0.05).unwrap();
        close(low, -0.029_219_460_502_595_836);
        close(high, 0.270_366_931_524_439_8);
        // scipy.stats.binomtest(14, 50).proportion_ci(method="wilson"), norm.sf.
        let differ = Disagreement { n: 50, differ: 14 };
        close(differ.p_beyond(0.2), 0.078_649_603_525_142_51);
        let (low, high) = differ.interval(0.05).unwrap();
        close(low, 0.174_741_706_659_112_3);
        close(high, 0.416_651_236_956_956_3);
        let differences = Differences::of(&[0.1, -0.2, 0.35, 0.05, 0.6, -0.1, 0.25, 0.15]).unwrap();
        close(differences.mean, 0.15);
        close(differences.sd, 0.253_546_276_418_555);
        close(differences.p_beyond(0.05), 0.150_721_351_894_191_3);
        close(differences.p_within(0.3), 0.069_089_975_486_553_59);
        let (low, high) = differences.interval(0.05).unwrap();
        close(low, -0.061_969_991_687_221_84);
        close(high, 0.361_969_991_687_221_8);
    }

    #[test]
    fn nothing_can_prove_equality_exactly_and_nonsense_is_no_finding() {
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
        assert_eq!(ln_e_disagreement(&Pairs::new(), 1.0), None);
        assert_eq!(ln_e_mean(&[], &PastMean::default(), f64::NAN, 1.0), None);
    }

    #[test]
    fn the_pairs_e_values_have_mean_one_or_less_under_the_null() {
        // Every outcome of small windows, enumerated.
        let choose = |n: u64, k: u64| (0..k).fold(1.0, |c, i| c * (n - i) as f64 / (i + 1) as f64);
        for m in 0..=12_u64 {
            // At the boundary of the null a discordant pair is the canary's with chance 1/2.
            let mut mean = [0.0; 5];
            for b in 0..=m {
                let chance = choose(m, b) * exp(-(m as f64) * ln(2.0));
                for (sum, ln_e) in mean.iter_mut().zip(ln_e_mcnemar(b, m - b)) {
                    *sum += chance * exp(ln_e);
                }
            }
            assert!(mean.iter().all(|mean| (mean - 1.0).abs() < 1e-12), "{mean:?}");
        }
        // Differences of -1, 0 and 1 with mean `margin`; any bets.
        let past = PastMean::default();
        for margin in [-0.5, 0.0, 0.1] {
            let (up, down) = (f64::midpoint(0.6, margin), f64::midpoint(0.6, -margin));
            for sign in [1.0, -1.0] {
                let mut mean = [0.0; 6];
                for (k, j) in (0..=6_u64).flat_map(|k| (0..=6 - k).map(move |j| (k, j))) {
                    let chance = choose(6, k) * choose(6 - k, j) * libm::pow(up, k as f64) * libm::pow(down, j as f64);
                    let chance = chance * libm::pow(1.0 - up - down, (6 - k - j) as f64);
                    let window = [(0.0, j), (0.5, 6 - k - j), (1.0, k)];
                    for (sum, ln_e) in mean.iter_mut().zip(ln_e_mean(&window, &past, margin, sign).unwrap()) {
                        *sum += chance * exp(ln_e);
                    }
                }
                assert!(mean.iter().all(|mean| (mean - 1.0).abs() < 1e-9), "{margin} {sign}: {mean:?}");
            }
        }
    }
}
