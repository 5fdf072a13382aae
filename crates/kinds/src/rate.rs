//! `rate`: the share of answers for which a condition is true (test `b2`). Values are assumed to be Bernoulli.

use serin_sketches::Summary;
use serin_spec::MetricSource;
#[cfg(feature = "statistics")]
use serin_statistics::{Measure, cluster::ClusterRatio, planning::Expected};

use crate::{Kind, Range, Refusal, SourceType, usual};
#[cfg(feature = "statistics")]
use crate::{Law, Tested};

pub(crate) struct Rate;

impl Kind for Rate {
    fn empty(&self, _by_value: bool) -> Summary {
        Summary::Rate(serin_sketches::Rate::default())
    }

    fn scaled(&self, value: f64) -> Option<f64> {
        Some(value)
    }

    fn position(&self, scaled: f64, _by_value: bool) -> f64 {
        f64::from(u8::from(scaled >= 0.5))
    }

    fn is_one_mean(&self) -> bool {
        true
    }

    fn counts_events(&self) -> bool {
        true
    }

    fn range(&self) -> Range {
        Range::SHARES
    }

    fn unsuitable_source(&self, _source: &MetricSource, source_type: SourceType) -> Option<Refusal> {
        match source_type {
            SourceType::Quantity => Some(Refusal::new(
                "the source is a quantity, not a yes/no value",
                "use `mean: {min, max}` or `quantile: {level}`",
            )),
            SourceType::Class => Some(Refusal::class()),
            SourceType::YesNo | SourceType::Reason | SourceType::Number => None,
        }
    }

    /// 1 % of calls fail, are refused or are cancelled; 0.1 % of answers are unusable; 5 % for any other source.
    fn default_value(&self, source: &MetricSource, _maturity: f64) -> f64 {
        match source {
            MetricSource::Failed | MetricSource::Refused | MetricSource::Cancelled => 0.01,
            MetricSource::Unusable => 0.001,
            _ => 0.05,
        }
    }

    fn default_spread(&self, value: f64) -> Option<f64> {
        Some(libm::sqrt(value * (1.0 - value)))
    }

    fn impossible(&self, value: f64) -> Option<String> {
        usual::not_a_share(value)
    }

    fn is_share(&self) -> bool {
        true
    }

    fn noun(&self) -> String {
        "rate of".to_owned()
    }
}

#[cfg(feature = "statistics")]
impl Tested for Rate {
    fn measure(&self, _by_value: bool) -> Measure {
        Measure::Rate
    }

    fn design_effect(&self, units: &ClusterRatio, _variance: Option<f64>) -> Option<f64> {
        units.design_effect_of_rate()
    }

    fn expected(&self, value: f64) -> Expected {
        usual::expected_share(value)
    }

    fn law(&self, _base: f64, value: f64, _tail: Option<f64>) -> Law {
        Law::Rate(value)
    }
}
