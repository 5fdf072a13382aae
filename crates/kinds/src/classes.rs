//! `classes`: the mix of classes (test `c2`). A mix is assumed to have five classes, and a planned value is the share of the first.

use serin_sketches::{ClassCounts, Summary};
use serin_spec::{Direction, Margin, MetricSource};
#[cfg(feature = "statistics")]
use serin_statistics::{Measure, planning::Expected};

use crate::{Kind, Range, Refusal, SourceType, usual};
#[cfg(feature = "statistics")]
use crate::{Law, Tested};

/// Number of classes assumed for a mix when nothing is known about it.
pub const CLASS_COUNT: usize = 5;

pub(crate) struct Classes;

impl Kind for Classes {
    fn empty(&self, _by_value: bool) -> Summary {
        Summary::Classes(ClassCounts::default())
    }

    fn scaled(&self, _value: f64) -> Option<f64> {
        None
    }

    fn takes_classes(&self) -> bool {
        true
    }

    fn is_sum(&self) -> bool {
        false
    }

    fn has_many_parts(&self) -> bool {
        true
    }

    fn range(&self) -> Range {
        Range::SHARES
    }

    fn can_fail(&self, _range: Range, _direction: Direction, margin: Margin) -> bool {
        margin.absolute.unwrap_or(0.0) < 1.0
    }

    fn default_margin(&self) -> Option<Margin> {
        Some(Margin { absolute: Some(0.02), relative: None })
    }

    fn unsuitable_source(&self, _source: &MetricSource, source_type: SourceType) -> Option<Refusal> {
        match source_type {
            SourceType::YesNo => Some(Refusal::new("a yes/no value has no classes", "use `rate`")),
            SourceType::Quantity | SourceType::Number => Some(Refusal::new(
                "the source is a number, not a class",
                "use `distribution`, or a source such as `class: {output}`",
            )),
            SourceType::Reason | SourceType::Class => None,
        }
    }

    fn unsuitable_margin(&self, _direction: Direction, margin: Margin) -> Option<Refusal> {
        let points = || Refusal::new("a change of a share is given in points", "use `absolute`, such as 0.02");
        margin.relative.is_some().then(points)
    }

    fn default_value(&self, _source: &MetricSource, _maturity: f64) -> f64 {
        1.0 / CLASS_COUNT as f64
    }

    fn impossible(&self, value: f64) -> Option<String> {
        usual::not_a_share(value)
    }

    /// Each class is tested in both directions.
    fn planned_parts(&self) -> Option<u32> {
        Some(2 * CLASS_COUNT as u32)
    }

    fn is_share(&self) -> bool {
        true
    }

    fn noun(&self) -> String {
        "mix of".to_owned()
    }
}

#[cfg(feature = "statistics")]
impl Tested for Classes {
    fn measure(&self, _by_value: bool) -> Measure {
        Measure::Classes
    }

    fn expected(&self, value: f64) -> Expected {
        usual::expected_share(value)
    }

    fn law(&self, _base: f64, value: f64, _tail: Option<f64>) -> Law {
        let rest = (1.0 - value) / (CLASS_COUNT - 1) as f64;
        Law::Values {
            values: (0..CLASS_COUNT).map(|class| class as f64).collect(),
            weights: (0..CLASS_COUNT).map(|class| if class == 0 { value } else { rest }).collect(),
        }
    }
}
