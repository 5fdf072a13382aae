//! A report in the style of the common fixed-sample analyzer: shifted Mann-Whitney non-inferiority, Cohen's d, a score of 95 / 60.
//!
//! Purpose: many home-grown canary checks work like this, so teams ask what such a check would have reported. The report
//! is for one look at raw values and is not a gate. At a second look its error rates no longer hold: looked at every
//! minute for an hour, such a test fails a third of all healthy canaries at least once. It also ignores segments and
//! drift. Serin decides by the e-processes of [`crate::Hypothesis`].
//!
//! Per metric, with `g = +1` where lower is better (else -1), values `x` of the canary and `y` of control, and the margin
//! `d` in the metric's unit (a relative margin is relative to control's mean):
//!
//! - The canary is shifted by the margin to its advantage, `x - g d`, and compared with `y` by a one-sided Mann-Whitney
//!   test (normal approximation, corrected for ties and continuity).
//! - [`Finding::Pass`] if the shifted canary is better with `p <= alpha`, which shows that it is worse by less than the
//!   margin. [`Finding::Fail`] if it is worse with `p <= alpha`. Otherwise [`Finding::Undecided`].
//! - Cohen's d, signed so that positive is worse, gives the size of the difference.
//!
//! The score is `100 x` the weighted mean of 1 (pass), 0.5 (undecided) and 0 (fail). At 95 or more the report promotes,
//! at 60 or less it rolls back, otherwise it holds.
//!
//! **Refused on 0/1 data** ([`Refusal::TwoValues`]): the test compares ranks, and with two values nearly all pairs are
//! tied. Any shift, however small, breaks all of these ties in the canary's favor, so that a canary with 40 % errors
//! against 1 % passes every time. Rates need a test of proportions ([`crate::two_rates`]).
//!
//! Sources: Mann, Whitney 1947; Cohen 1988. Assumes independent values.

use crate::kayenta::{cohen_d, rank_sum, summary};
use crate::numeric::{exp, ln_normal_cdf, sqrt};
use crate::{Direction, Finding, Margin, SpecError};

/// The canary is promoted at this score or above.
pub const PROMOTE_AT: f64 = 95.0;
/// The canary is rolled back at this score or below.
pub const ROLLBACK_AT: f64 = 60.0;

/// One metric with the values of both arms.
#[derive(Clone, Copy, Debug)]
pub struct Metric<'a> {
    /// The metric's name.
    pub name: &'a str,
    /// The metric's weight in the score, above 0. Only the proportions matter.
    pub weight: f64,
    /// Which direction is worse.
    pub direction: Direction,
    /// How much worse than control is acceptable.
    pub margin: Margin,
    /// Control's values.
    pub control: &'a [f64],
    /// The canary's values.
    pub canary: &'a [f64],
}

/// Why a metric cannot be judged by this report.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Refusal {
    /// An arm without values.
    #[error("metric {0}: the {1} has no values")]
    Empty(String, &'static str),
    /// A value that is infinite or not a number.
    #[error("metric {0}: the {1} contains {2}, which is not a finite number; leave such values out")]
    NotFinite(String, &'static str, f64),
    /// Both arms together have no more than two different values.
    #[error(
        "metric {0}: both arms together contain only {1} different value(s), such as 0/1 outcomes; shifting them by a margin breaks their ties, so that any canary would pass. Use a test of proportions (a metric of the kind `rate`)"
    )]
    TwoValues(String, usize),
    /// A weight that is not positive.
    #[error("metric {0}: the weight {1} must be a number above 0")]
    Weight(String, f64),
    /// A margin that is out of range.
    #[error("metric {0}: {1}")]
    Margin(String, SpecError),
    /// An error rate outside of (0, 0.5).
    #[error("alpha {0} must be between 0 and 0.5")]
    Alpha(f64),
    /// There are no metrics.
    #[error("there is no metric to judge")]
    NoMetric,
}

/// The result for one metric.
#[derive(Clone, Debug, PartialEq)]
pub struct MetricReport {
    /// The metric's name.
    pub name: String,
    /// Control's mean.
    pub control_mean: f64,
    /// The canary's mean.
    pub canary_mean: f64,
    /// The margin in the metric's unit.
    pub margin: f64,
    /// Mann-Whitney's U of the shifted canary: the number of pairs in which it is larger, with ties counted half.
    pub u: f64,
    /// Probability of a shifted canary this good or better if it were worse by the margin. A small value shows non-inferiority.
    pub p_within: f64,
    /// Probability of a shifted canary this bad or worse if it were worse by no more than the margin. A small value shows harm.
    pub p_beyond: f64,
    /// Difference of the means in pooled standard deviations, not shifted by the margin; positive is worse.
    pub cohen_d: f64,
    /// The finding at the report's alpha.
    pub finding: Finding,
}

/// The decision that the report would make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// The score is at least [`PROMOTE_AT`].
    Promote,
    /// The score is between the two thresholds.
    Hold,
    /// The score is at most [`ROLLBACK_AT`].
    Rollback,
}

/// The whole report.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// The results per metric, in the given order.
    pub metrics: Vec<MetricReport>,
    /// The score, from 0 to 100.
    pub score: f64,
    /// The decision, from the score.
    pub decision: Decision,
}

fn check(metric: &Metric<'_>) -> Result<(), Refusal> {
    let name = || metric.name.to_owned();
    if !(metric.weight > 0.0 && metric.weight.is_finite()) {
        return Err(Refusal::Weight(name(), metric.weight));
    }
    metric.margin.check(metric.direction).map_err(|error| Refusal::Margin(name(), error))?;
    for (arm, values) in [("control", metric.control), ("canary", metric.canary)] {
        if values.is_empty() {
            return Err(Refusal::Empty(name(), arm));
        }
        if let Some(value) = values.iter().find(|value| !value.is_finite()) {
            return Err(Refusal::NotFinite(name(), arm, *value));
        }
    }
    // Adding `0.0` turns both zeros into the same value.
    let mut distinct: Vec<u64> =
        metric.control.iter().chain(metric.canary).map(|value| (value + 0.0).to_bits()).collect();
    distinct.sort_unstable();
    distinct.dedup();
    if distinct.len() <= 2 { Err(Refusal::TwoValues(name(), distinct.len())) } else { Ok(()) }
}

/// U and the one-sided p-values "x is smaller" and "x is larger" of the Mann-Whitney test of `x` against `y`. Both
/// p-values are 1 if all values are tied.
fn mann_whitney(x: &[f64], y: &[f64]) -> (f64, f64, f64) {
    let (m, n) = (x.len() as f64, y.len() as f64);
    let (ranks, ties) = rank_sum(x.iter().copied(), y);
    let u = ranks - m * (m + 1.0) / 2.0;
    let sd = sqrt(m * n / 12.0 * ((m + n + 1.0) - ties / ((m + n) * (m + n - 1.0))));
    let tail = |u: f64| if sd > 0.0 { exp(ln_normal_cdf(-(u - m * n / 2.0 - 0.5) / sd)).min(1.0) } else { 1.0 };
    (u, tail(m * n - u), tail(u))
}

/// The report on one metric without the check for 0/1 data; see [`Refusal::TwoValues`] for why it is invalid there.
fn judge_unchecked(metric: &Metric<'_>, alpha: f64) -> MetricReport {
    let sign = metric.direction.sign();
    let (control, canary) = (summary(metric.control), summary(metric.canary));
    let margin = metric.margin.at(control.mean);
    let shifted: Vec<f64> = metric.canary.iter().map(|value| value - sign * margin).collect();
    let (u, p_smaller, p_larger) = mann_whitney(&shifted, metric.control);
    let (p_within, p_beyond) = if sign > 0.0 { (p_smaller, p_larger) } else { (p_larger, p_smaller) };
    let finding = match (p_beyond <= alpha, p_within <= alpha) {
        (true, _) => Finding::Fail,
        (false, true) => Finding::Pass,
        (false, false) => Finding::Undecided,
    };
    let harm = sign * (canary.mean - control.mean);
    let size = cohen_d(metric.control, metric.canary);
    MetricReport {
        name: metric.name.to_owned(),
        control_mean: control.mean,
        canary_mean: canary.mean,
        margin,
        u,
        p_within,
        p_beyond,
        cohen_d: if harm < 0.0 { -size } else { size },
        finding,
    }
}

/// The report on all metrics at error rate `alpha` per test. Returns an error for the first metric that cannot be judged this way.
pub fn report(metrics: &[Metric<'_>], alpha: f64) -> Result<Report, Refusal> {
    if !(alpha > 0.0 && alpha < 0.5) {
        return Err(Refusal::Alpha(alpha));
    }
    metrics.iter().try_for_each(check)?;
    let total: f64 = metrics.iter().map(|metric| metric.weight).sum();
    if total <= 0.0 {
        return Err(Refusal::NoMetric);
    }
    let reports: Vec<MetricReport> = metrics.iter().map(|metric| judge_unchecked(metric, alpha)).collect();
    let worth = |finding| match finding {
        Finding::Pass => 1.0,
        Finding::Undecided => 0.5,
        Finding::Fail => 0.0,
    };
    let parts = metrics.iter().zip(&reports).map(|(metric, report)| metric.weight * worth(report.finding));
    let score = 100.0 * parts.sum::<f64>() / total;
    let decision = if score >= PROMOTE_AT {
        Decision::Promote
    } else if score <= ROLLBACK_AT {
        Decision::Rollback
    } else {
        Decision::Hold
    };
    Ok(Report { metrics: reports, score, decision })
}

#[cfg(test)]
mod tests {
    use rand_chacha::ChaCha8Rng;
    use rand_chacha::rand_core::{Rng as _, SeedableRng as _};

    use super::*;

    fn outcomes(n: usize, rate: f64, random: &mut ChaCha8Rng) -> Vec<f64> {
        let unit = |random: &mut ChaCha8Rng| (random.next_u64() >> 11) as f64 / 9_007_199_254_740_992.0;
        (0..n).map(|_| if unit(random) < rate { 1.0 } else { 0.0 }).collect()
    }

    /// Shows why 0/1 data is refused: without the refusal, 40 % errors against 1 % pass 200 times in 200.
    #[test]
    fn a_shift_lets_any_error_rate_pass() {
        let mut random = ChaCha8Rng::seed_from_u64(7);
        let mut passed = 0;
        for _ in 0..200 {
            let (control, canary) = (outcomes(2000, 0.01, &mut random), outcomes(2000, 0.4, &mut random));
            let metric = Metric {
                name: "errors",
                weight: 1.0,
                direction: Direction::LowerIsBetter,
                margin: Margin::absolute(0.002),
                control: &control,
                canary: &canary,
            };
            passed += u32::from(judge_unchecked(&metric, 0.05).finding == Finding::Pass);
            assert_eq!(report(&[metric], 0.05), Err(Refusal::TwoValues("errors".to_owned(), 2)));
        }
        assert_eq!(passed, 200);
    }
}
