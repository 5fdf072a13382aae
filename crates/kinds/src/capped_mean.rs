//! `capped_mean`: the mean of a non-negative quantity without a known upper end (test `m2w`). Values before capping are
//! assumed to be log-normal. The metric's value is the mean after capping, so it is below the cap.

use serin_sketches::{CappedHist, Rate, Summary};
use serin_spec::{Direction, Margin, MetricSource};
#[cfg(feature = "statistics")]
use serin_statistics::{Measure, planning::Expected};

use crate::{Kind, Range, Refusal, SourceType, significant, usual};
#[cfg(feature = "statistics")]
use crate::{Law, Tested, law};

pub(crate) struct CappedMean {
    pub(crate) cap: f64,
}

impl CappedMean {
    /// The value as which larger ones count: the edge of a bin that is nearest to the cap.
    fn effective(&self) -> f64 {
        CappedHist::new(self.cap).map_or(self.cap, |hist| hist.cap())
    }

    /// Mean and standard deviation after capping of values whose logarithm has this mean.
    fn after_capping(&self, mu: f64) -> (f64, f64) {
        let (cap, variance) = (self.effective(), usual::SIGMA * usual::SIGMA);
        let below = |shift: f64| {
            0.5 * libm::erfc((mu + shift * variance - libm::log(cap)) / (usual::SIGMA * std::f64::consts::SQRT_2))
        };
        let above = 1.0 - below(0.0);
        let mean = libm::exp(mu + 0.5 * variance) * below(1.0) + cap * above;
        let square = libm::exp(2.0 * (mu + variance)) * below(2.0) + cap * cap * above;
        (mean, libm::sqrt((square - mean * mean).max(0.0)))
    }

    /// The mean of the logarithm of values whose mean after capping is `value`.
    fn mu(&self, value: f64) -> f64 {
        let (mut low, mut high) = (libm::log(value) - 1.0, libm::log(self.effective()) + 40.0 * usual::SIGMA);
        for _ in 0..100 {
            let middle = f64::midpoint(low, high);
            if self.after_capping(middle).0 < value { low = middle } else { high = middle }
        }
        f64::midpoint(low, high)
    }
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

    /// A file that counts on values beyond its own cap is a mistake, so the range ends there even if values count a little further.
    fn range(&self) -> Range {
        Range { min: 0.0, max: self.effective().min(self.cap) }
    }

    fn can_fail_at(&self, direction: Direction, margin: Margin, control: f64) -> bool {
        self.planned_range().can_fail_at(direction, margin, control)
    }

    fn planned_range(&self) -> Range {
        Range { min: 0.0, max: self.effective() }
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
        Some(self.after_capping(self.mu(value)).1)
    }

    fn impossible(&self, value: f64) -> Option<String> {
        let fits = value > 0.0 && value < self.effective();
        let cap = significant(self.effective(), 4);
        (!fits).then(|| {
            format!("{value} is not a mean of values that count as at most {cap}: it must be above 0 and below {cap}")
        })
    }

    /// A mean at the cap is not possible; a mean close to it is close enough.
    fn plannable(&self, value: f64) -> Option<f64> {
        Some(value.min((1.0 - usual::RAREST) * self.effective()))
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
        law::log_normal(0.5, libm::exp(self.mu(value)), None)
    }
}
