//! The specification of a hypothesis, fixed before the rollout.

use serde::{Deserialize, Serialize};
use serin_sketches::{CappedHist, LN_GAMMA, SummaryKind, key_nearest_edge};

use crate::numeric::{is_inner, ln};
use crate::{Direction, Line, Margin, SpecError};

/// What is compared. It determines which kind of summary is needed.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Measure {
    /// A share of answers (`b2`, `b1`), from [`serin_sketches::Rate`].
    Rate,
    /// A mean of values in a known range (`m2`, `m1`), from [`serin_sketches::LinHist`] scaled to it.
    Mean {
        /// Smallest value.
        min: f64,
        /// Largest value.
        max: f64,
    },
    /// A mean of non-negative values winsorized at a cap (`m2w`), from [`serin_sketches::CappedHist`].
    CappedMean {
        /// The cap, as given to `CappedHist::new`.
        cap: f64,
    },
    /// A quantile (`q2`, `b1` on exceedances), from [`serin_sketches::LogHist`].
    Quantile {
        /// The level of the quantile, such as 0.99.
        level: f64,
    },
    /// The whole distribution (`d2`), from [`serin_sketches::LogHist`]. The margin must be absolute: the largest acceptable
    /// difference between the two distribution functions, such as 0.1. The direction is ignored.
    Distribution,
    /// The mix of classes (`c2`), from [`serin_sketches::ClassCounts`]. The margin must be absolute: the largest acceptable
    /// difference of a class's shares, such as 0.02. The direction is ignored.
    Classes,
    /// Events per exposure (`p2`), from [`serin_sketches::Events`]. The margin must be relative. Exact only if the counts of
    /// the arms are Poisson given a common course over time; use [`Self::Counts`] for all others.
    Count,
    /// The share of pairs of answers that differ (`b1`), from [`serin_sketches::Pairs`], against a limit.
    Disagreement,
    /// The mean difference of paired answers, canary minus control (`m1`), from [`serin_sketches::Pairs`]. With 0/1 outcomes
    /// and no margin this is `McNemar`'s test. The margin must be absolute.
    PairedDifference {
        /// The size of a summary difference of 1 in the metric's unit; 1 for 0/1 outcomes.
        width: f64,
    },
    /// Events per answer, whatever their distribution (`m2c`), from [`serin_sketches::CappedHist`] of the counts of single answers. The
    /// margin must be relative. Counts above a cap, which is derived from control's past, are replaced by the cap.
    Counts {
        /// The cap of the summary, as given to `CappedHist::new`. It must be larger than any plausible count.
        most: f64,
    },
}

impl Measure {
    /// The kind of summary that the measure needs.
    pub fn summary(self) -> SummaryKind {
        match self {
            Self::Rate => SummaryKind::Rate,
            Self::Mean { .. } => SummaryKind::Lin,
            Self::CappedMean { .. } | Self::Counts { .. } => SummaryKind::Capped,
            Self::Quantile { .. } | Self::Distribution => SummaryKind::Log,
            Self::Classes => SummaryKind::Classes,
            Self::Count => SummaryKind::Events,
            Self::Disagreement | Self::PairedDifference { .. } => SummaryKind::Pairs,
        }
    }

    /// Whether the measure is a mean of values on a grid instead of a rate.
    pub(super) fn is_mean(self) -> bool {
        matches!(
            self,
            Self::Mean { .. } | Self::CappedMean { .. } | Self::PairedDifference { .. } | Self::Counts { .. }
        )
    }

    /// The cap of its summary, if it has one.
    pub(super) fn cap(self) -> Option<f64> {
        match self {
            Self::CappedMean { cap } | Self::Counts { most: cap } => CappedHist::new(cap).map(|hist| hist.cap()),
            _ => None,
        }
    }

    /// Whether the measure has parts that may each differ (levels, classes). It fails if any part fails and passes if all parts pass.
    pub(super) fn has_many_parts(self) -> bool {
        matches!(self, Self::Distribution | Self::Classes)
    }
}

/// What the canary is compared with.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Against {
    /// Control in the same windows, with a margin.
    Control(Margin),
    /// Fixed limits in the metric's unit, for any measure with a single value. Control is ignored.
    Limit {
        /// PASS shows that the canary keeps this limit.
        pass: f64,
        /// FAIL shows that the canary breaks this limit. It must be at least as lax as `pass`.
        fail: f64,
    },
}

impl Against {
    /// The same limit for PASS and FAIL.
    pub fn limit(limit: f64) -> Self {
        Self::Limit { pass: limit, fail: limit }
    }
}

/// The specification of one hypothesis: a metric in a segment.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct HypothesisSpec {
    /// What is compared.
    pub measure: Measure,
    /// Which direction is worse.
    pub direction: Direction,
    /// What the canary is compared with.
    pub against: Against,
    /// Planned number of windows of the whole rollout, over which restarts are spread.
    pub horizon: u32,
    /// Error rate of the two-sided interval of the effect, such as 0.05.
    pub interval_alpha: f64,
}

/// Grid levels of `d2`.
const LEVELS: [f64; 13] = [0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98];

/// Allowed limits on events per exposure. With these and the largest counts, all computations stay finite.
const COUNT_LIMITS: std::ops::RangeInclusive<f64> = 1e-15..=1e15;

/// Range in which the line of a distribution function must be to be tested.
pub(super) const ROOM: std::ops::RangeInclusive<f64> = 0.005..=0.995;

/// A limit in the form in which it is tested.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Bound {
    /// The limiting rate, the limiting mean on a scale of [0, 1], or the limiting number of events per exposure.
    pub(super) at: f64,
    /// For quantiles: answers above this bin count.
    pub(super) key: Option<i32>,
}

/// One pair of e-processes within a hypothesis.
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
        /// Line for the distribution functions at that level.
        line: Line,
    },
    /// The share of one class, in one direction.
    Share {
        /// Index of the named class; `None` for all other classes together.
        class: Option<usize>,
        /// Line for the shares.
        line: Line,
    },
    /// Events per exposure: canary against control.
    Ratio {
        /// The largest (or smallest) acceptable ratio.
        ratio: f64,
        /// Sign of harm.
        sign: f64,
    },
    /// One arm's rate, mean or events per exposure against limits. Pairs count as one arm.
    Limit {
        /// For FAIL.
        fail: Bound,
        /// For PASS.
        pass: Bound,
        /// Sign of harm of that rate or mean.
        sign: f64,
    },
}

impl HypothesisSpec {
    /// The e-processes of the hypothesis at the start, or why it cannot be tested.
    pub(super) fn parts(&self) -> Result<Vec<Part>, SpecError> {
        if !is_inner(self.interval_alpha) {
            return Err(SpecError::Alpha(self.interval_alpha));
        }
        match self.measure {
            Measure::Quantile { level } if !is_inner(level) => return Err(SpecError::Level(level)),
            Measure::Mean { min, max } if !((max - min).is_finite() && max > min) => {
                return Err(SpecError::Range(min, max));
            }
            Measure::CappedMean { cap } | Measure::Counts { most: cap } if CappedHist::new(cap).is_none() => {
                return Err(SpecError::Range(0.0, cap));
            }
            Measure::PairedDifference { width } if !(width > 0.0 && (2.0 * width).is_finite()) => {
                return Err(SpecError::Range(0.0, width));
            }
            _ => {}
        }
        match self.against {
            Against::Limit { pass, fail } => self.limit_part(pass, fail).map(|part| vec![part]),
            Against::Control(margin) => self.control_parts(margin),
        }
    }

    fn limit_part(&self, pass: f64, fail: f64) -> Result<Part, SpecError> {
        let sign = self.direction.sign();
        let (pass_at, fail_at) = (self.bound(pass)?, self.bound(fail)?);
        if sign * (fail - pass) < 0.0 {
            return Err(SpecError::Limits { pass, fail });
        }
        Ok(Part::Limit { fail: fail_at, pass: pass_at, sign })
    }

    fn bound(&self, limit: f64) -> Result<Bound, SpecError> {
        match self.measure {
            Measure::Rate | Measure::Disagreement if is_inner(limit) => Ok(Bound { at: limit, key: None }),
            Measure::Count if COUNT_LIMITS.contains(&limit) => Ok(Bound { at: limit, key: None }),
            Measure::Counts { most } if limit > 0.0 && limit < most => {
                Ok(Bound { at: limit.max(*COUNT_LIMITS.start()), key: None })
            }
            Measure::Mean { .. } | Measure::CappedMean { .. } | Measure::PairedDifference { .. } => {
                let (low, width) = self.scale();
                let at = (limit - low) / width;
                if is_inner(at) { Ok(Bound { at, key: None }) } else { Err(SpecError::Limit(limit)) }
            }
            Measure::Quantile { level } if limit > 0.0 && limit.is_finite() => {
                Ok(Bound { at: 1.0 - level, key: key_nearest_edge(limit) })
            }
            Measure::Distribution | Measure::Classes => Err(SpecError::LimitOfMany),
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
                let scaled = |line: Line| {
                    let c = (line.c + (line.v - 1.0) * low) / width;
                    let beyond = || SpecError::BeyondRange { margin: margin.at(low), width };
                    if c.is_finite() { Ok(Part::Line(Line { c, ..line })) } else { Err(beyond()) }
                };
                lines.into_iter().map(scaled).collect::<Result<_, _>>()?
            }
            Measure::Quantile { level } => {
                let too_fine = |r: &f64| *r > 0.0 && (ln(1.0 + self.direction.sign() * r) / LN_GAMMA).abs() < 0.5;
                if let Some(r) = margin.relative.filter(too_fine) {
                    return Err(SpecError::Resolution(r));
                }
                lines.into_iter().map(|line| Part::Exceedance { level, line }).collect()
            }
            Measure::Distribution => {
                let both = tolerance_lines(margin)?;
                let parts = LEVELS.into_iter().flat_map(|level| both.map(|line| (level, line)));
                let testable = parts.filter(|(level, line)| ROOM.contains(&line.at(*level)));
                testable.map(|(level, line)| Part::Level { level, line }).collect()
            }
            // Its parts are the classes of control, which are not known yet.
            Measure::Classes => tolerance_lines(margin).map(|_| Vec::new())?,
            Measure::Count => {
                if let Some(absolute) = margin.absolute {
                    return Err(SpecError::Margin(absolute));
                }
                let sign = self.direction.sign();
                vec![Part::Ratio { ratio: 1.0 + sign * margin.relative.unwrap_or(0.0), sign }]
            }
            Measure::Counts { .. } => {
                if let Some(absolute) = margin.absolute {
                    return Err(SpecError::Margin(absolute));
                }
                lines.into_iter().map(Part::Line).collect()
            }
            Measure::PairedDifference { .. } => {
                if let Some(relative) = margin.relative {
                    return Err(SpecError::Margin(relative));
                }
                let limit = self.direction.sign() * margin.absolute.unwrap_or(0.0);
                vec![self.limit_part(limit, limit)?]
            }
            Measure::Disagreement => return Err(SpecError::NeedsLimit),
        })
    }

    /// The parts of a mix of classes: each named class and the rest, in both directions.
    pub(super) fn class_parts(&self, named: usize) -> Vec<Part> {
        let Against::Control(margin) = self.against else { return Vec::new() };
        let Ok(both) = tolerance_lines(margin) else { return Vec::new() };
        let classes = (0..named).map(Some).chain([None]);
        classes.flat_map(|class| both.map(|line| Part::Share { class, line })).collect()
    }

    /// Start and width of the range that is mapped to [0, 1]. Event counts are not scaled.
    pub(super) fn scale(&self) -> (f64, f64) {
        match self.measure {
            Measure::Mean { min, max } => (min, max - min),
            Measure::CappedMean { cap } => (0.0, CappedHist::new(cap).map_or(cap, |hist| hist.cap())),
            Measure::PairedDifference { width } => (-width, 2.0 * width),
            _ => (0.0, 1.0),
        }
    }

    /// Whether control's summary is ignored.
    pub(super) fn one_arm(&self) -> bool {
        matches!(self.against, Against::Limit { .. }) || matches!(self.measure, Measure::PairedDifference { .. })
    }
}

/// Both directions of "differs by more than the margin". The margin must be absolute.
fn tolerance_lines(margin: Margin) -> Result<[Line; 2], SpecError> {
    let tolerance = margin.absolute.unwrap_or(0.0);
    if margin.relative.is_some() || tolerance >= 1.0 {
        return Err(SpecError::Margin(margin.relative.unwrap_or(tolerance)));
    }
    Ok([1.0, -1.0].map(|sign| Line { v: 1.0, c: sign * tolerance, sign }))
}
