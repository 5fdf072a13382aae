//! `distribution`: the whole distribution of a positive quantity (test `d2`). What is compared is the largest difference of the
//! distribution functions. Values are taken as log-normal, and a person's number is their median.

use std::f64::consts::SQRT_2;

use serin_sketches::{LogHist, Summary, log_position};
use serin_spec::{Direction, Margin, MetricSource};
#[cfg(feature = "statistics")]
use serin_statistics::{Measure, planning::Expected};

use crate::{Gives, Kind, Range, Refusal, usual};
#[cfg(feature = "statistics")]
use crate::{Law, Tested, law};

/// Largest difference of two distribution functions that the test looks for: no level of it can show a larger one.
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

    fn why_never(&self, _range: Range) -> String {
        "no level that is looked at shows so large a difference".to_owned()
    }

    fn default_margin(&self) -> Option<Margin> {
        Some(Margin { absolute: Some(0.1), relative: None })
    }

    fn misfit(&self, _source: &MetricSource, gives: Gives) -> Option<Refusal> {
        usual::no_quantity(gives)
    }

    fn wrong_margin(&self, _direction: Direction, margin: Margin) -> Option<Refusal> {
        margin.relative.is_some().then(|| {
            Refusal::new("a difference of distribution functions is a share already", "use `absolute`, such as 0.1")
        })
    }

    fn usual_value(&self, source: &MetricSource, maturity: f64) -> f64 {
        usual::positive(source, maturity)
    }

    fn impossible(&self, value: f64) -> Option<String> {
        usual::not_positive(value)
    }

    /// What is measured is no median.
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
