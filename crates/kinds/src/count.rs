//! `count`: events per answer, where one answer can have several (test `m2c`; `p2` under rules version 1). Counts are assumed to be Poisson.

use serin_sketches::{Events, Summary};
use serin_spec::{Direction, Margin, MetricSource};
#[cfg(feature = "statistics")]
use serin_statistics::{Measure, cluster::ClusterRatio, planning::Expected};

use crate::{Kind, Range, Refusal, SourceType, capped_mean::capped, usual};
#[cfg(feature = "statistics")]
use crate::{Law, Tested, law};

/// An answer with more events than this counts as this many.
pub const MOST_EVENTS: f64 = 1e6;

/// An answer with more events than this is treated as a mistake and left out.
const MISTAKEN: f64 = 1e9;

/// Most events per answer that can be simulated: beyond it, `exp(-mean)` is 0.
const MOST_SIMULATED: f64 = 500.0;

pub(crate) struct Count;

impl Kind for Count {
    fn empty(&self, by_value: bool) -> Summary {
        if by_value { capped(MOST_EVENTS) } else { Summary::Events(Events::default()) }
    }

    /// Events are whole numbers. A bound far above any real count keeps a single bad value from filling the sums.
    fn scaled(&self, value: f64) -> Option<f64> {
        ((0.0..=MISTAKEN).contains(&value) && value.fract() == 0.0).then_some(value)
    }

    fn is_dithered(&self, by_value: bool) -> bool {
        by_value
    }

    fn position(&self, scaled: f64, by_value: bool) -> f64 {
        if by_value { scaled.min(MOST_EVENTS) } else { scaled }
    }

    fn counts_events(&self) -> bool {
        true
    }

    fn range(&self) -> Range {
        Range { min: 0.0, max: MOST_EVENTS }
    }

    fn is_of_values(&self) -> bool {
        true
    }

    fn is_positive(&self) -> bool {
        true
    }

    fn unsuitable_source(&self, _source: &MetricSource, source_type: SourceType) -> Option<Refusal> {
        match source_type {
            SourceType::YesNo | SourceType::Reason => {
                Some(Refusal::new("the source is a yes/no value, which counts at most once per answer", "use `rate`"))
            }
            SourceType::Quantity => {
                Some(Refusal::new("the source is a quantity, not a number of events", "use `mean`"))
            }
            SourceType::Class => Some(Refusal::class()),
            SourceType::Number => None,
        }
    }

    fn unsuitable_margin(&self, _direction: Direction, margin: Margin) -> Option<Refusal> {
        let ratio = || Refusal::new("counts are compared by their ratio", "use `relative`, such as 0.1");
        margin.absolute.is_some().then(ratio)
    }

    /// One event in ten answers.
    fn default_value(&self, _source: &MetricSource, _maturity: f64) -> f64 {
        0.1
    }

    fn default_spread(&self, value: f64) -> Option<f64> {
        Some(libm::sqrt(value))
    }

    fn impossible(&self, value: f64) -> Option<String> {
        (!(0.0..=MOST_SIMULATED).contains(&value))
            .then(|| format!("{value} is not a valid number of events per answer"))
    }

    /// The cap of a count is not known before control's counts are.
    fn planned_range(&self) -> Range {
        Range::POSITIVE
    }

    fn noun(&self) -> String {
        "number of".to_owned()
    }
}

#[cfg(feature = "statistics")]
impl Tested for Count {
    fn measure(&self, by_value: bool) -> Measure {
        if by_value { Measure::Counts { most: MOST_EVENTS } } else { Measure::Count }
    }

    /// Under rules version 1 the single counts are not known. Independent events were assumed to be Poisson, so their variance was their mean.
    fn design_effect(&self, units: &ClusterRatio, variance: Option<f64>) -> Option<f64> {
        let of_numbers = variance.map(|variance| variance * MOST_EVENTS * MOST_EVENTS);
        units.design_effect_of_mean(of_numbers.unwrap_or(units.ratio))
    }

    fn expected(&self, value: f64) -> Expected {
        let control = value.max(usual::RAREST);
        Expected::Mean { control, sd: self.default_spread(control).unwrap_or_default() }
    }

    fn law(&self, _base: f64, value: f64, _tail: Option<f64>) -> Law {
        law::poisson(value)
    }
}
