//! `count`: events per answer, where an answer can bring several (test `m2c`; under rules 1 `p2`). They are taken as Poisson.

use serin_sketches::{Events, Summary};
use serin_spec::{Direction, Margin, MetricSource};
#[cfg(feature = "statistics")]
use serin_statistics::{Measure, cluster::ClusterRatio, planning::Expected};

use crate::{Gives, Kind, Range, Refusal, capped_mean::capped, usual};
#[cfg(feature = "statistics")]
use crate::{Law, Tested, law};

/// More events than this in one answer count as this many.
pub const MOST_EVENTS: f64 = 1e6;

/// More events in one answer are a mistake, and left out.
const MISTAKEN: f64 = 1e9;

/// Most events per answer that are simulated: beyond, `exp(-mean)` is 0.
const MOST_SIMULATED: f64 = 500.0;

pub(crate) struct Count;

impl Kind for Count {
    fn empty(&self, by_value: bool) -> Summary {
        if by_value { capped(MOST_EVENTS) } else { Summary::Events(Events::default()) }
    }

    /// Events come whole; a bound far above any real count keeps one bad value from filling the sums.
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

    fn misfit(&self, _source: &MetricSource, gives: Gives) -> Option<Refusal> {
        match gives {
            Gives::YesNo | Gives::Reason => {
                Some(Refusal::new("a yes or no happens at most once per answer", "use `rate`"))
            }
            Gives::Quantity => Some(Refusal::new("its source is a quantity, not a number of events", "use `mean`")),
            Gives::Class => Some(Refusal::class()),
            Gives::Number => None,
        }
    }

    fn wrong_margin(&self, _direction: Direction, margin: Margin) -> Option<Refusal> {
        let ratio = || Refusal::new("counts are compared by their ratio", "use `relative`, such as 0.1");
        margin.absolute.is_some().then(ratio)
    }

    /// One event in ten answers.
    fn usual_value(&self, _source: &MetricSource, _maturity: f64) -> f64 {
        0.1
    }

    fn usual_spread(&self, value: f64) -> Option<f64> {
        Some(libm::sqrt(value))
    }

    fn impossible(&self, value: f64) -> Option<String> {
        (!(0.0..=MOST_SIMULATED).contains(&value))
            .then(|| format!("{value} is not a valid number of events per answer"))
    }

    /// The cap of a count is not known before control's numbers are.
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

    /// Under rules 1 single numbers are not known: independent events were taken as Poisson, with their mean as variance.
    fn design_effect(&self, units: &ClusterRatio, variance: Option<f64>) -> Option<f64> {
        let of_numbers = variance.map(|variance| variance * MOST_EVENTS * MOST_EVENTS);
        units.design_effect_of_mean(of_numbers.unwrap_or(units.ratio))
    }

    fn expected(&self, value: f64) -> Expected {
        let control = value.max(usual::RAREST);
        Expected::Mean { control, sd: self.usual_spread(control).unwrap_or_default() }
    }

    fn law(&self, _base: f64, value: f64, _tail: Option<f64>) -> Law {
        law::poisson(value)
    }
}
