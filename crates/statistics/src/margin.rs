//! Direction, margin, and the line between "within" and "beyond" the margin.
//!
//! With `g = +1` where lower is better and `g = -1` where higher is better, the canary's harm is `g (mu_c - mu_s)`. A margin
//! is the line `mu_c = v mu_s + c`: `(v, c) = (1, g d)` for an absolute margin `d`, `(1 + g r, 0)` for a relative margin
//! `r`. With both, harm must exceed both: there are two lines, and FAIL uses the smaller evidence, PASS the average.

use serde::{Deserialize, Serialize};

use crate::numeric::is_inner;

/// Which direction is worse.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// A higher value is worse (errors, latency): `g = +1`.
    LowerIsBetter,
    /// A lower value is worse (clicks, confidence): `g = -1`.
    HigherIsBetter,
}

impl Direction {
    /// `g`: the sign of harm.
    pub fn sign(self) -> f64 {
        match self {
            Self::LowerIsBetter => 1.0,
            Self::HigherIsBetter => -1.0,
        }
    }
}

/// How much worse than control is acceptable. With neither value the margin is zero. With both, harm must exceed both.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Margin {
    /// The absolute margin in the metric's unit, at least 0.
    pub absolute: Option<f64>,
    /// The relative margin as a share of control's value, at least 0 (and below 1 where higher is better).
    pub relative: Option<f64>,
}

/// A linear null: `sign (mu_c - v mu_s - c) <= 0`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Line {
    /// Slope, above 0.
    pub v: f64,
    /// Intercept.
    pub c: f64,
    /// +1 if values above the line are outside the null; -1 if values below it are.
    pub sign: f64,
}

impl Line {
    /// The canary's value on the line at control's value `b`.
    pub fn at(self, b: f64) -> f64 {
        self.v * b + self.c
    }

    /// The null on the other side of the line.
    #[must_use]
    pub fn reversed(self) -> Self {
        Self { sign: -self.sign, ..self }
    }

    /// Control's value at the point of the line that is nearest to control's value `b` and at which the values of both arms exist, on the
    /// scale [0, 1]. It is `b` itself if the line is within (0, 1) there. If the margin extends beyond the end of the range, the worst
    /// possible value is the end, and the point is half as far from the end as `b` is. `None` if no pair of values is on the line.
    pub fn inner(self, b: f64) -> Option<f64> {
        if is_inner(self.at(b)) && is_inner(b) {
            return Some(b);
        }
        let ends = [-self.c / self.v, (1.0 - self.c) / self.v];
        let (low, high) = (ends[0].max(0.0), ends[1].min(1.0));
        if !(self.v > 0.0 && low < high && is_inner(b)) {
            return None;
        }
        let half = 0.5 * (high - low);
        let inner = if b <= low { low + half.min(0.5 * b / self.v) } else { high - half.min(0.5 * (1.0 - b) / self.v) };
        (is_inner(inner) && is_inner(self.at(inner))).then_some(inner)
    }

    /// Whether the pair of means satisfies the null.
    pub fn holds(self, a: f64, b: f64) -> bool {
        self.sign * (a - self.at(b)) <= 0.0
    }
}

/// Why a hypothesis cannot be tested as specified.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum SpecError {
    /// A margin that is negative or not a number.
    #[error("the margin {0} must be a number of at least 0")]
    Margin(f64),
    /// A margin that is too large to be expressed in widths of the metric's range.
    #[error("the margin {margin} is too large for a range of width {width}")]
    BeyondRange {
        /// The margin.
        margin: f64,
        /// Width of the range that maps to [0, 1].
        width: f64,
    },
    /// A relative margin that allows every value.
    #[error("the relative margin {0} must be below 1 where higher is better")]
    Relative(f64),
    /// A quantile margin finer than the histogram's bins.
    #[error(
        "the relative margin {0} of a quantile is finer than the histogram (bins of 2 %): use at least 0.011, or 0"
    )]
    Resolution(f64),
    /// A quantile level outside (0, 1).
    #[error("the quantile level {0} must be between 0 and 1")]
    Level(f64),
    /// A range that is empty or not finite.
    #[error("the range from {0} to {1} must be finite and not empty")]
    Range(f64, f64),
    /// A limit that every value keeps or every value breaks.
    #[error("the limit {0} is not valid for this measure")]
    Limit(f64),
    /// A FAIL limit that is stricter than the PASS limit.
    #[error("the fail limit {fail} is stricter than the pass limit {pass}; make it equal or laxer")]
    Limits {
        /// The PASS limit.
        pass: f64,
        /// The FAIL limit.
        fail: f64,
    },
    /// Disagreement is a property of both versions together.
    #[error("the share of pairs that disagree is compared with a limit, not with control")]
    NeedsLimit,
    /// A distribution or a mix of classes has no single value for a limit.
    #[error("a distribution or a mix of classes is compared with control, not with a limit")]
    LimitOfMany,
    /// An error rate of an interval outside (0, 1).
    #[error("the interval's alpha {0} must be between 0 and 1")]
    Alpha(f64),
}

impl Margin {
    /// An absolute margin.
    pub fn absolute(d: f64) -> Self {
        Self { absolute: Some(d), relative: None }
    }

    /// A relative margin.
    pub fn relative(r: f64) -> Self {
        Self { absolute: None, relative: Some(r) }
    }

    /// Checks the ranges of both parts.
    pub fn check(self, direction: Direction) -> Result<(), SpecError> {
        for part in [self.absolute, self.relative].into_iter().flatten() {
            if !(part >= 0.0 && part.is_finite()) {
                return Err(SpecError::Margin(part));
            }
        }
        match (direction, self.relative) {
            (Direction::HigherIsBetter, Some(r)) if r >= 1.0 => Err(SpecError::Relative(r)),
            _ => Ok(()),
        }
    }

    /// The FAIL nulls "not worse than the margin" in the metric's unit: one line, or two if both parts are set.
    pub fn lines(self, direction: Direction) -> Vec<Line> {
        let sign = direction.sign();
        let absolute = self.absolute.or(if self.relative.is_none() { Some(0.0) } else { None });
        let absolute = absolute.map(|d| Line { v: 1.0, c: sign * d, sign });
        let relative = self.relative.map(|r| Line { v: 1.0 + sign * r, c: 0.0, sign });
        absolute.into_iter().chain(relative).collect()
    }

    /// The margin in the metric's unit when control's value is `control`.
    pub fn at(self, control: f64) -> f64 {
        let relative = self.relative.unwrap_or(0.0) * control.abs();
        self.absolute.unwrap_or(0.0).max(relative)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_follow_the_direction() {
        let both = Margin { absolute: Some(0.01), relative: Some(0.2) };
        let lines = both.lines(Direction::HigherIsBetter);
        assert_eq!(lines[0], Line { v: 1.0, c: -0.01, sign: -1.0 });
        assert_eq!(lines[1], Line { v: 0.8, c: 0.0, sign: -1.0 });
        assert_eq!(Margin::default().lines(Direction::LowerIsBetter), [Line { v: 1.0, c: 0.0, sign: 1.0 }]);
        assert!((both.at(0.1) - 0.02).abs() < 1e-15);
    }

    #[test]
    fn the_nearest_point_of_a_line_is_one_that_exists() {
        let near = |line: Line, b: f64, want: f64| {
            let found = line.inner(b).unwrap();
            assert!((found - want).abs() < 1e-12, "{line:?} at {b}: {found}");
        };
        let lower = Line { v: 1.0, c: -0.02, sign: -1.0 };
        near(lower, 0.5, 0.5);
        near(lower, 0.01, 0.025);
        near(lower.reversed(), 0.02, 0.03);
        near(Line { v: 1.0, c: 0.1, sign: 1.0 }, 0.96, 0.88);
        near(Line { v: 1.25, c: 0.0, sign: 1.0 }, 0.9, 0.76);
        // Hardly anything is left of the line, so this is its middle.
        near(Line { v: 1.0, c: -0.99, sign: -1.0 }, 0.5, 0.995);
        for (line, b) in [(Line { v: 1.0, c: -1.0, sign: -1.0 }, 0.5), (lower, 0.0), (lower, f64::NAN)] {
            assert_eq!(line.inner(b), None);
        }
        assert_eq!(Line { v: 1.0, c: f64::NAN, sign: 1.0 }.inner(0.5), None);
    }

    #[test]
    fn invalid_margins_are_named() {
        assert_eq!(Margin::absolute(-1.0).check(Direction::LowerIsBetter), Err(SpecError::Margin(-1.0)));
        assert!(Margin::relative(f64::NAN).check(Direction::LowerIsBetter).is_err());
        assert_eq!(Margin::relative(1.0).check(Direction::HigherIsBetter), Err(SpecError::Relative(1.0)));
        assert_eq!(Margin::relative(1.0).check(Direction::LowerIsBetter), Ok(()));
    }
}
