//! `capped_mean`: the mean of a non-negative quantity without a known upper end (test `m2w`). Values before capping are
//! assumed to be log-normal.

use serin_sketches::{CappedHist, Rate, Summary};
use serin_spec::MetricSource;
#[cfg(feature = "statistics")]
use serin_statistics::{Measure, planning::Expected};

use crate::{Kind, Range, Refusal, SourceType, usual};
#[cfg(feature = "statistics")]
use crate::{Law, Tested, law};

pub(crate) struct CappedMean {
    pub(crate) cap: f64,
}

/// A summary of values up to a cap. For an invalid cap, which lint refuses, it is an empty `Rate`: values do not match its type, so
/// none is added.
pub(crate) fn capped(cap: f64) -> Summary {
    CappedHist::new(cap).map_or_else(|| Summary::Rate(Rate::default()), Summary::Capped)
}

impl Kind for CappedMean {
    fn empty(&self, _by_value: bool) -> Summary {
        capped(self.cap)
    }

    fn scaled(&self, value: f64) -> Option<f64> {
        (value >= 0.0).then_some(value)
    }

    fn is_dithered(&self, _by_value: bool) -> bool {
        true
    }

    fn position(&self, scaled: f64, _by_value: bool) -> f64 {
        scaled.min(self.cap) / self.cap
    }

    fn is_one_mean(&self) -> bool {
        true
    }

    fn averages_rows(&self) -> bool {
        true
    }

    /// The effective cap is the edge of a bin.
    fn range(&self) -> Range {
        Range { min: 0.0, max: CappedHist::new(self.cap).map_or(self.cap, |hist| hist.cap().min(self.cap)) }
    }

    fn is_of_values(&self) -> bool {
        true
    }

    fn is_positive(&self) -> bool {
        true
    }

    fn invalid_parameters(&self) -> Option<Refusal> {
        let fits = CappedHist::new(self.cap).is_some_and(|hist| hist.cap().is_finite());
        let message = || format!("{} is not a valid cap", self.cap);
        (!fits).then(|| Refusal::new(message(), "use a number above 0 that few values exceed"))
    }

    fn unsuitable_source(&self, _source: &MetricSource, source_type: SourceType) -> Option<Refusal> {
        match source_type {
            SourceType::YesNo | SourceType::Reason => Some(Refusal::new("a yes/no value needs no cap", "use `rate`")),
            SourceType::Class => Some(Refusal::class()),
            SourceType::Quantity | SourceType::Number => None,
        }
    }

    /// A tenth of the cap.
    fn default_value(&self, _source: &MetricSource, _maturity: f64) -> f64 {
        self.cap / 10.0
    }

    fn default_spread(&self, value: f64) -> Option<f64> {
        Some(value * libm::sqrt(libm::expm1(usual::SIGMA * usual::SIGMA)))
    }

    fn impossible(&self, value: f64) -> Option<String> {
        usual::not_positive(value)
    }

    fn noun(&self) -> String {
        "capped mean".to_owned()
    }
}

#[cfg(feature = "statistics")]
impl Tested for CappedMean {
    fn measure(&self, _by_value: bool) -> Measure {
        Measure::CappedMean { cap: self.cap }
    }

    fn expected(&self, value: f64) -> Expected {
        Expected::Mean { control: value, sd: self.default_spread(value).unwrap_or_default() }
    }

    fn law(&self, _base: f64, value: f64, _tail: Option<f64>) -> Law {
        law::log_normal(0.5, value * (-0.5 * usual::SIGMA * usual::SIGMA).exp(), None)
    }
}
