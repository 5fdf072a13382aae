//! `mean`: the mean of a quantity with a known range (test `m2`). Values are assumed to follow a beta distribution over the
//! range, with `a + b = 10`.

use serin_sketches::{LinHist, Summary};
use serin_spec::MetricSource;
#[cfg(feature = "statistics")]
use serin_statistics::{Measure, planning::Expected};

use crate::{Kind, Range, Refusal, SourceType, usual};
#[cfg(feature = "statistics")]
use crate::{Law, Tested, law};

/// `a + b` of the beta distribution.
const CONCENTRATION: f64 = 10.0;

pub(crate) struct Mean {
    pub(crate) min: f64,
    pub(crate) max: f64,
}

impl Mean {
    fn place(&self, value: f64) -> f64 {
        (value - self.min) / (self.max - self.min)
    }
}

impl Kind for Mean {
    fn empty(&self, _by_value: bool) -> Summary {
        Summary::Lin(LinHist::new())
    }

    /// The value scaled to `[0, 1]` and clamped.
    fn scaled(&self, value: f64) -> Option<f64> {
        (self.max > self.min).then(|| self.place(value).clamp(0.0, 1.0))
    }

    fn is_dithered(&self, _by_value: bool) -> bool {
        true
    }

    fn is_one_mean(&self) -> bool {
        true
    }

    fn averages_rows(&self) -> bool {
        true
    }

    fn range(&self) -> Range {
        Range { min: self.min, max: self.max }
    }

    fn is_of_values(&self) -> bool {
        true
    }

    fn clamps_to(&self) -> Option<Range> {
        Some(self.range())
    }

    fn invalid_parameters(&self) -> Option<Refusal> {
        let Self { min, max } = *self;
        let fits = (max - min).is_finite() && min < max;
        (!fits).then(|| Refusal::new(format!("no value is in the range {min} to {max}"), "set min below max"))
    }

    fn unsuitable_source(&self, _source: &MetricSource, source_type: SourceType) -> Option<Refusal> {
        (source_type == SourceType::Class).then(Refusal::class)
    }

    /// The middle of the range.
    fn default_value(&self, _source: &MetricSource, _maturity: f64) -> f64 {
        f64::midpoint(self.min, self.max)
    }

    fn default_spread(&self, value: f64) -> Option<f64> {
        let mean = self.place(value);
        Some((self.max - self.min) * libm::sqrt(mean * (1.0 - mean) / (CONCENTRATION + 1.0)))
    }

    fn impossible(&self, value: f64) -> Option<String> {
        let Self { min, max } = *self;
        (!(value > min && value < max))
            .then(|| format!("{value} is not a mean of values from {min} to {max}: it must be between them"))
    }

    /// A mean at the very end of the range is not possible; a mean close to the end is close enough.
    fn plannable(&self, value: f64) -> Option<f64> {
        let edge = usual::RAREST * (self.max - self.min);
        Some(value.clamp(self.min + edge, self.max - edge))
    }

    fn noun(&self) -> String {
        "mean".to_owned()
    }
}

#[cfg(feature = "statistics")]
impl Tested for Mean {
    fn measure(&self, _by_value: bool) -> Measure {
        Measure::Mean { min: self.min, max: self.max }
    }

    fn expected(&self, value: f64) -> Expected {
        Expected::Mean { control: value, sd: self.default_spread(value).unwrap_or_default() }
    }

    fn law(&self, _base: f64, value: f64, _tail: Option<f64>) -> Law {
        law::beta(self.place(value), CONCENTRATION)
    }
}
