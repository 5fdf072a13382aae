//! `distribution`: the whole distribution of a positive quantity (test `d2`). The test compares the largest difference
//! between the distribution functions. Values are assumed to be log-normal, and a planned value is their median.

use std::f64::consts::SQRT_2;

use serin_sketches::{LogHist, Summary, log_position};
use serin_spec::{Direction, Margin, MetricSource};
#[cfg(feature = "statistics")]
use serin_statistics::{Measure, planning::Expected};

use crate::{Kind, Range, Refusal, SourceType, usual};
#[cfg(feature = "statistics")]
use crate::{Law, Tested, law};

/// Largest difference between two distribution functions that the test can show: none of its levels can show a larger one.
const MOST_APART: f64 = 0.975;

pub(crate) struct Distribution;

impl Kind for Distribution {
    fn empty(&self, _by_value: bool) -> Summary {
        Summary::Log(LogHist::new())
    }

    fn scaled(&self, value: f64) -> Option<f64> {
        (value >= 0.0).then_some(value)
    }

    fn is_sum(&self) -> bool {
        false
    }

    fn position(&self, scaled: f64, _by_value: bool) -> f64 {
        log_position(scaled)
    }

    fn has_many_parts(&self) -> bool {
        true
    }

    fn range(&self) -> Range {
        Range::SHARES
    }

    fn is_positive(&self) -> bool {
        true
    }

    fn can_fail(&self, _range: Range, _direction: Direction, margin: Margin) -> bool {
        margin.absolute.unwrap_or(0.0) < MOST_APART
    }

    fn why_it_cannot_fail(&self, _range: Range) -> String {
        "no level that the test checks can show a difference that large".to_owned()
    }

    fn default_margin(&self) -> Option<Margin> {
        Some(Margin { absolute: Some(0.1), relative: None })
    }

    fn unsuitable_source(&self, _source: &MetricSource, source_type: SourceType) -> Option<Refusal> {
        usual::not_a_quantity(source_type)
    }

    fn unsuitable_margin(&self, _direction: Direction, margin: Margin) -> Option<Refusal> {
        margin.relative.is_some().then(|| {
            Refusal::new("a difference of distribution functions is already a share", "use `absolute`, such as 0.1")
        })
    }

    fn default_value(&self, source: &MetricSource, maturity: f64) -> f64 {
        usual::positive(source, maturity)
    }

    fn impossible(&self, value: f64) -> Option<String> {
        usual::not_positive(value)
    }

    /// The measured value is not a median.
    fn plannable(&self, _value: f64) -> Option<f64> {
        None
    }

    fn planned_as(&self, stable: f64, value: f64) -> f64 {
        libm::erf((value / stable).ln().abs() / (2.0 * usual::SIGMA * SQRT_2))
    }

    fn shown(&self, stable: f64, planned: f64) -> f64 {
        let (mut low, mut high) = (stable, stable * 1e4);
        for _ in 0..100 {
            let middle = f64::midpoint(low, high);
            if self.planned_as(stable, middle) < planned { low = middle } else { high = middle }
        }
        f64::midpoint(low, high)
    }

    fn differs_by_shares(&self) -> bool {
        true
    }

    fn noun(&self) -> String {
        "distribution of".to_owned()
    }
}

#[cfg(feature = "statistics")]
impl Tested for Distribution {
    fn measure(&self, _by_value: bool) -> Measure {
        Measure::Distribution
    }

    fn expected(&self, _value: f64) -> Expected {
        Expected::Distribution
    }

    fn law(&self, _base: f64, value: f64, _tail: Option<f64>) -> Law {
        law::log_normal(0.5, value, None)
    }
}
