//! What one hypothesis is about, fixed before the rollout.

use serde::{Deserialize, Serialize};
use serin_sketches::{LN_GAMMA, SummaryKind, key_nearest_edge};

use crate::numeric::{is_inner, ln};
use crate::{Direction, Line, Margin, SpecError};

/// What is compared, and so which summary feeds it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Measure {
    /// A share of answers (`b2`, `b1`), from [`serin_sketches::Rate`].
    Rate,
    /// A mean of values in a known range (`m2`), from [`serin_sketches::LinHist`] scaled to it.
    Mean {
        /// Smallest value.
        min: f64,
        /// Largest value.
        max: f64,
    },
    /// A mean of non-negative values winsorised at a cap (`m2w`), from [`serin_sketches::CappedHist`].
    CappedMean {
        /// The cap, as given to `CappedHist::new`.
        cap: f64,
    },
    /// A quantile (`q2`), from [`serin_sketches::LogHist`].
    Quantile {
        /// Its level, such as 0.99.
        level: f64,
    },
    /// The whole distribution (`d2`), from [`serin_sketches::LogHist`]. The margin must be absolute: the largest
    /// difference of the two distribution functions that is acceptable, such as 0.1. The direction does not matter.
    Distribution,
}

impl Measure {
    /// The summary it needs.
    pub fn summary(self) -> SummaryKind {
        match self {
            Self::Rate => SummaryKind::Rate,
            Self::Mean { .. } => SummaryKind::Lin,
            Self::CappedMean { .. } => SummaryKind::Capped,
            Self::Quantile { .. } | Self::Distribution => SummaryKind::Log,
        }
    }
}

/// What the canary is held against.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Against {
    /// Control in the same windows, with a margin.
    Control(Margin),
    /// A fixed limit in the unit of the metric: for a rate or a quantile.
    Limit(f64),
}

/// One hypothesis: a metric in a segment.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct HypothesisSpec {
    /// What is compared.
    pub measure: Measure,
    /// Which way is worse.
    pub direction: Direction,
    /// What the canary is held against.
    pub against: Against,
    /// Planned number of windows of the whole rollout; spreads the restarts.
    pub horizon: u32,
    /// Error rate of the two-sided interval of the effect, such as 0.05.
    pub interval_alpha: f64,
}

/// Grid levels of `d2`.
const LEVELS: [f64; 13] = [0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98];

/// One e-process pair within a hypothesis.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Part {
    /// Rates or means on a scale of [0, 1], against this line.
    Line(Line),
    /// Exceedances: the canary beyond the shifted value against control beyond its quantile.
    Exceedance {
        /// Level of control's quantile.
        level: f64,
        /// The margin in the metric's unit.
        line: Line,
    },
    /// The distribution functions at one level, in one direction.
    Level {
        /// Level of control's quantile.
        level: f64,
        /// Line for the distribution functions there.
        line: Line,
    },
    /// One arm's rate against a limit.
    Limit {
        /// The limiting rate.
        p0: f64,
        /// Sign of harm in that rate.
        sign: f64,
        /// For quantiles: the bin above which an answer counts.
        key: Option<i32>,
    },
}

impl HypothesisSpec {
    /// The e-processes it consists of, or why it cannot be tested.
    pub(super) fn parts(&self) -> Result<Vec<Part>, SpecError> {
        if !is_inner(self.interval_alpha) {
            return Err(SpecError::Alpha(self.interval_alpha));
        }
        match self.measure {
            Measure::Quantile { level } if !is_inner(level) => return Err(SpecError::Level(level)),
            Measure::Mean { min, max } if !((max - min).is_finite() && max > min) => {
                return Err(SpecError::Range(min, max));
            }
            Measure::CappedMean { cap } if !(cap > 0.0 && cap.is_finite()) => return Err(SpecError::Range(0.0, cap)),
            _ => {}
        }
        match self.against {
            Against::Limit(limit) => self.limit_part(limit).map(|part| vec![part]),
            Against::Control(margin) => self.control_parts(margin),
        }
    }

    fn limit_part(&self, limit: f64) -> Result<Part, SpecError> {
        let sign = self.direction.sign();
        match self.measure {
            Measure::Rate if is_inner(limit) => Ok(Part::Limit { p0: limit, sign, key: None }),
            Measure::Quantile { level } if limit > 0.0 && limit.is_finite() => {
                Ok(Part::Limit { p0: 1.0 - level, sign, key: key_nearest_edge(limit) })
            }
            Measure::Mean { .. } | Measure::CappedMean { .. } => Err(SpecError::LimitOfMean),
            _ => Err(SpecError::Limit(limit)),
        }
    }

    fn control_parts(&self, margin: Margin) -> Result<Vec<Part>, SpecError> {
        margin.check(self.direction)?;
        let lines = margin.lines(self.direction);
        Ok(match self.measure {
            Measure::Rate => lines.into_iter().map(Part::Line).collect(),
            Measure::Mean { .. } | Measure::CappedMean { .. } => {
                let (low, width) = self.scale();
                let scaled = |line: Line| Line { c: (line.c + (line.v - 1.0) * low) / width, ..line };
                lines.into_iter().map(|line| Part::Line(scaled(line))).collect()
            }
            Measure::Quantile { level } => {
                let too_fine = |r: &f64| *r > 0.0 && (ln(1.0 + self.direction.sign() * r) / LN_GAMMA).abs() < 0.5;
                if let Some(r) = margin.relative.filter(too_fine) {
                    return Err(SpecError::Resolution(r));
                }
                lines.into_iter().map(|line| Part::Exceedance { level, line }).collect()
            }
            Measure::Distribution => {
                let tolerance = margin.absolute.unwrap_or(0.0);
                if margin.relative.is_some() || tolerance >= 1.0 {
                    return Err(SpecError::Margin(margin.relative.unwrap_or(tolerance)));
                }
                let both = [1.0, -1.0].map(|sign| Line { v: 1.0, c: sign * tolerance, sign });
                LEVELS.into_iter().flat_map(|level| both.map(|line| Part::Level { level, line })).collect()
            }
        })
    }

    /// Lowest value and width of the range that maps to [0, 1].
    pub(super) fn scale(&self) -> (f64, f64) {
        match self.measure {
            Measure::Mean { min, max } => (min, max - min),
            Measure::CappedMean { cap } => (0.0, serin_sketches::CappedHist::new(cap).map_or(cap, |hist| hist.cap())),
            _ => (0.0, 1.0),
        }
    }
}
