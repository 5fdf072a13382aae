//! A group-sequential test for PASS: a fixed number of looks up to a fixed number of answers.
//!
//! If the horizon is fixed and the effect is small, it needs fewer answers than the e-process, which allows unlimited looks.
//! The costs: it is asymptotic (sums of many answers are assumed to be normal), there is no result between looks, and the
//! test ends with the last look.
//!
//! - Null: harm is at least the margin, in every window. The statistic is the sum over windows and generations of
//!   `w g (mean_c - v mean_s - c)`, `w = n_c n_s / (n_c + n_s)`. These weights depend only on counts, so a drift of both
//!   arms causes no bias.
//! - For the canary's answers, its variance uses the larger one of the canary's own variance and the variance that control
//!   shows (for rates: at the margin). So a canary with a lucky low variance does not make its own test easier.
//! - A look is made when the number of the canary's answers has passed the next planned fraction. It spends the error rate that `O'Brien`
//!   and Fleming's function allows at the measured fraction. Its bound uses the variances measured at all looks.
//!
//! Sources: section 7 of the statistical specification; Lan, `DeMets`, Biometrika 1983.

use serde::{Deserialize, Serialize};

use super::Stratum;
use super::past::Past;
use super::spec::{HypothesisSpec, Measure, Part};
use super::view::View;
use crate::numeric::{is_inner, sqrt};
use crate::planning::{Spending, next_bound};
use crate::{Line, PastMean, SpecError};

/// Largest number of looks. More looks gain nothing, and the cost of a bound grows with their number.
pub const MOST_LOOKS: u32 = 10;

/// Smallest number of the canary's answers at a look, and the factor on the squared skewness of an answer. With these, the
/// normal approximation is close enough at the levels that looks spend. 0/1 answers at 1 % need 2,500.
const MIN_ANSWERS: f64 = 100.0;
const PER_SQUARED_SKEWNESS: f64 = 25.0;

/// Why a group-sequential test cannot be planned.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum LooksError {
    /// No looks, or too many.
    #[error("the number of looks {0} must be between 1 and {MOST_LOOKS}")]
    Looks(u32),
    /// Fewer planned answers than looks.
    #[error("{answers} planned answers are too few for {looks} looks")]
    Answers {
        /// Planned answers.
        answers: u64,
        /// Planned looks.
        looks: u32,
    },
    /// An error rate outside (0, 1).
    #[error("alpha {0} must be between 0 and 1")]
    Alpha(f64),
    /// The effect is not a single, asymptotically normal difference.
    #[error(
        "planned looks need a rate, a mean or a capped mean against control, with an absolute or a relative margin"
    )]
    Unsupported,
    /// The hypothesis itself is invalid.
    #[error(transparent)]
    Spec(#[from] SpecError),
}

/// The plan, which is fixed before the first window.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct LooksPlan {
    /// Number of looks.
    pub looks: u32,
    /// Answers of the canary at the last look.
    pub answers: u64,
    /// Probability that a canary exactly at the margin passes.
    pub alpha: f64,
}

/// A look that was made.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct Look {
    /// Variance of the sum at the look.
    variance: f64,
    /// Bound on the z-score of the look.
    bound: f64,
    /// The error rate spent up to and including the look.
    spent: f64,
    /// Answers of the canary.
    answers: u64,
}

/// A group-sequential test for PASS; see the module documentation. Give it the same windows as the hypothesis.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PlannedLooks {
    plan: LooksPlan,
    measure: Measure,
    line: Line,
    /// Answers of the canary.
    answers: u64,
    /// The statistic. Harm beyond the margin is positive.
    harm: f64,
    /// Part of the variance from the canary, measured on its own answers.
    own: f64,
    /// Part of the variance from the canary, estimated from control's answers.
    borrowed: f64,
    /// Part of the variance from control.
    control: f64,
    /// Control's answers.
    past: PastMean,
    taken: Vec<Look>,
    passed: bool,
    /// Whether PASS may rest on the end of the metric's range; see [`Self::without_ends`].
    #[serde(skip, default = "super::yes")]
    ends: bool,
}

impl PlannedLooks {
    /// Smallest number of the canary's answers for a look at a rate near this small value, whose squared skewness is about
    /// one divided by the rate.
    pub fn least_answers_of_rate(rate: f64) -> u64 {
        (PER_SQUARED_SKEWNESS / rate).ceil() as u64
    }

    /// Creates a test without answers.
    pub fn new(spec: &HypothesisSpec, plan: LooksPlan) -> Result<Self, LooksError> {
        if !(1..=MOST_LOOKS).contains(&plan.looks) {
            return Err(LooksError::Looks(plan.looks));
        }
        if plan.answers < u64::from(plan.looks) {
            return Err(LooksError::Answers { answers: plan.answers, looks: plan.looks });
        }
        if !is_inner(plan.alpha) {
            return Err(LooksError::Alpha(plan.alpha));
        }
        let normal = matches!(spec.measure, Measure::Rate | Measure::Mean { .. } | Measure::CappedMean { .. });
        let parts = spec.parts()?;
        let line = match parts.as_slice() {
            [Part::Line(line)] if normal => *line,
            _ => return Err(LooksError::Unsupported),
        };
        Ok(Self {
            plan,
            measure: spec.measure,
            line,
            answers: 0,
            harm: 0.0,
            own: 0.0,
            borrowed: 0.0,
            control: 0.0,
            past: PastMean::default(),
            taken: Vec::new(),
            passed: false,
            ends: true,
        })
    }

    /// See [`super::Hypothesis::without_ends`].
    pub fn without_ends(&mut self) {
        self.ends = false;
    }

    /// Takes one complete window with one stratum per generation, and makes a look if one is due. After the last look it does nothing.
    pub fn observe(&mut self, strata: &[Stratum<'_>]) {
        if self.is_over() {
            return;
        }
        for stratum in strata {
            let nothing = Past::new(self.measure);
            let view = |summary| Grid::of(&nothing.view(self.measure, summary));
            self.add(&view(stratum.canary), &view(stratum.control));
        }
        self.look();
    }

    /// Whether harm beyond the margin is excluded. Once true, it stays true.
    pub fn passed(&self) -> bool {
        self.passed
    }

    /// Number of looks that were made.
    pub fn taken(&self) -> u32 {
        self.taken.len() as u32
    }

    /// Returns the plan of the looks.
    pub fn plan(&self) -> LooksPlan {
        self.plan
    }

    /// Whether the test has ended: it has passed, or the planned number of answers is reached.
    pub fn is_over(&self) -> bool {
        self.passed || self.answers >= self.plan.answers
    }

    /// Adds one stratum. A variance needs two answers of each arm; whether they exist does not depend on their values.
    fn add(&mut self, canary: &Grid, control: &Grid) {
        let (n_c, n_s) = (canary.n as f64, control.n as f64);
        if canary.n < 2 || control.n < 2 {
            return;
        }
        let weight = n_c * n_s / (n_c + n_s);
        // If the margin extends beyond the range, the control of the null that is nearest is the one whose margin ends at
        // the end of the range.
        let end = if self.ends { self.end(control.mean) } else { None };
        let of_control = end.map_or(control.variance, |b| control.variance.max(b * (1.0 - b)));
        let at_margin = self.line.at(control.mean).clamp(0.0, 1.0);
        let borrowed = if self.measure == Measure::Rate { at_margin * (1.0 - at_margin) } else { control.variance };
        self.answers = self.answers.saturating_add(canary.n);
        self.harm += weight * self.line.sign * (canary.mean - self.line.at(control.mean));
        self.own += weight * weight * canary.variance / n_c;
        self.borrowed += weight * weight * borrowed / n_c;
        self.control += weight * weight * self.line.v * self.line.v * of_control / n_s;
        self.past.push(&control.points, 1.0);
    }

    fn look(&mut self) {
        if !(self.is_due() && self.is_nearly_normal()) {
            return;
        }
        let fraction = (self.answers as f64 / self.plan.answers as f64).min(1.0);
        let now = Spending::ObrienFleming.spent(self.plan.alpha, fraction);
        let spent = self.taken.last().map_or(0.0, |look| look.spent);
        let variance = self.own.max(self.borrowed) + self.control;
        let taken: Vec<(f64, f64)> = self.taken.iter().map(|look| (look.variance, look.bound)).collect();
        let Some(bound) = next_bound(&taken, variance, now - spent) else { return };
        self.passed = -self.harm / sqrt(variance) >= bound;
        self.taken.push(Look { variance, bound, spent: now, answers: self.answers });
    }

    /// Whether the next planned fraction is reached. Looks keep at least half of the planned distance from each other, even
    /// if one window brings more answers than that.
    fn is_due(&self) -> bool {
        let looks = f64::from(self.plan.looks);
        let place = |answers: u64| looks * answers as f64 / self.plan.answers as f64;
        let last = self.taken.last().map_or(0.0, |look| place(look.answers));
        let (next, now) = ((last + 0.5).ceil().min(looks), place(self.answers));
        now >= looks || (now >= next && now <= looks - 0.5)
    }

    /// Control's mean at which the margin ends exactly at the end of the range, if the margin extends beyond the range at this mean.
    fn end(&self, mean: f64) -> Option<f64> {
        let at = self.line.at(mean);
        let end = if at <= 0.0 {
            -self.line.c / self.line.v
        } else if at >= 1.0 {
            (1.0 - self.line.c) / self.line.v
        } else {
            return None;
        };
        is_inner(end).then_some(end)
    }

    fn is_nearly_normal(&self) -> bool {
        let mean = self.past.plain_mean();
        let end = if self.ends { self.end(mean) } else { None };
        let skewness = if let Some(b) = end {
            (1.0 - 2.0 * b) * (1.0 - 2.0 * b) / (b * (1.0 - b))
        } else if self.measure == Measure::Rate {
            let p = self.line.at(mean);
            if !is_inner(p) {
                return false;
            }
            (1.0 - 2.0 * p) * (1.0 - 2.0 * p) / (p * (1.0 - p))
        } else {
            self.past.squared_skewness()
        };
        self.answers as f64 >= MIN_ANSWERS.max(PER_SQUARED_SKEWNESS * skewness)
    }
}

/// One arm of a stratum, with values on a scale of [0, 1].
struct Grid {
    points: Vec<(f64, u64)>,
    n: u64,
    mean: f64,
    /// Unbiased variance of one answer; 0 for fewer than two answers.
    variance: f64,
}

impl Grid {
    fn of(view: &View<'_>) -> Self {
        let points = match view {
            View::Rate(rate) => vec![(0.0, rate.n() - rate.k()), (1.0, rate.k())],
            View::Grid(grid) => grid.clone(),
            _ => Vec::new(),
        };
        let n: u64 = points.iter().map(|point| point.1).sum();
        let size = n as f64;
        let mean = points.iter().map(|&(x, count)| x * count as f64).sum::<f64>() / size.max(1.0);
        let squares: f64 = points.iter().map(|&(x, count)| (x - mean) * (x - mean) * count as f64).sum();
        Self { points, n, mean, variance: squares / (size - 1.0).max(1.0) }
    }
}
