//! `disagreement`: the share of mirrored calls whose two answers differ (test `pair`), against a limit. Answers are assumed
//! to differ at random.

use serin_sketches::{Pairs, Summary};
use serin_spec::MetricSource;
#[cfg(feature = "statistics")]
use serin_statistics::{Measure, cluster::ClusterRatio, planning::Expected};

use crate::{Kind, Range, Refusal, SourceType, usual};
#[cfg(feature = "statistics")]
use crate::{Law, Tested};

pub(crate) struct Disagreement;

impl Kind for Disagreement {
    fn empty(&self, _by_value: bool) -> Summary {
        Summary::Pairs(Pairs::new())
    }

    /// A single answer cannot be compared.
    fn scaled(&self, _value: f64) -> Option<f64> {
        None
    }

    fn uses_reason(&self) -> bool {
        true
    }

    fn is_dithered(&self, _by_value: bool) -> bool {
        true
    }

    fn is_paired(&self) -> bool {
        true
    }

    fn range(&self) -> Range {
        Range::SHARES
    }

    fn unsuitable_source(&self, source: &MetricSource, source_type: SourceType) -> Option<Refusal> {
        let late = source.needs_label() && !matches!(source_type, SourceType::Reason | SourceType::Class);
        late.then(|| {
            Refusal::new(
                "the two answers to a call are compared as soon as they arrive, without waiting for a label",
                "compare an output, class, status or latency",
            )
        })
    }

    fn default_value(&self, _source: &MetricSource, _maturity: f64) -> f64 {
        0.02
    }

    fn impossible(&self, value: f64) -> Option<String> {
        usual::not_a_share(value)
    }

    fn is_share(&self) -> bool {
        true
    }

    fn noun(&self) -> String {
        "disagreement on".to_owned()
    }
}

#[cfg(feature = "statistics")]
impl Tested for Disagreement {
    fn measure(&self, _by_value: bool) -> Measure {
        Measure::Disagreement
    }

    fn design_effect(&self, units: &ClusterRatio, _variance: Option<f64>) -> Option<f64> {
        units.design_effect_of_rate()
    }

    fn expected(&self, value: f64) -> Expected {
        usual::expected_share(value)
    }

    fn law(&self, _base: f64, value: f64, _tail: Option<f64>) -> Law {
        Law::Values { values: vec![0.0, 1.0], weights: vec![1.0 - value, value] }
    }
}
