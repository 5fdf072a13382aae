//! The traits of a kind, and the list of kinds.

use serin_sketches::Summary;
use serin_spec::{Direction, Margin, MetricKind, MetricSource};
#[cfg(feature = "statistics")]
use serin_statistics::{Measure, cluster::ClusterRatio, planning::Expected};

#[cfg(feature = "statistics")]
use crate::Law;
use crate::{
    Range, SourceType, capped_mean::CappedMean, classes::Classes, count::Count, disagreement::Disagreement,
    distribution::Distribution, mean::Mean, quantile::Quantile, rate::Rate, usual,
};

/// Why a kind refuses what a rollout file contains, and how to fix it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// What is wrong.
    pub message: String,
    /// How to fix it.
    pub fix: &'static str,
}

impl Refusal {
    pub(crate) fn new(message: impl Into<String>, fix: &'static str) -> Self {
        Self { message: message.into(), fix }
    }
}

/// What a kind of metric is. `by_value`: a count metric keeps the count of each answer (rules version 2 and later) instead of their sum.
pub trait Kind {
    /// An empty summary. For parameters that lint refuses, the summary accepts no values of the kind.
    fn empty(&self, by_value: bool) -> Summary;

    /// A value in the form that the summary takes; `None` if no summary of the kind can hold it. The value is always finite.
    fn scaled(&self, value: f64) -> Option<f64>;

    /// Whether values are classes instead of numbers.
    fn takes_classes(&self) -> bool {
        false
    }

    /// Whether a yes/no source gives its reason, such as `timeout`, instead of 1.
    fn uses_reason(&self) -> bool {
        self.takes_classes()
    }

    /// Whether the summary rounds values at random, using a number that depends only on the request.
    fn is_dithered(&self, _by_value: bool) -> bool {
        false
    }

    /// Whether the test compares sums, so that a sum per unit is enough. Ranks and classes need a summary per unit.
    fn is_sum(&self) -> bool {
        true
    }

    /// The position of a [scaled](Self::scaled) value relative to others, for sums per bucket of units.
    fn position(&self, scaled: f64, _by_value: bool) -> f64 {
        scaled
    }

    /// Whether the kind compares the two answers to a mirrored call. It then has no control, only a limit.
    fn is_paired(&self) -> bool {
        false
    }

    /// Whether the kind tests many parts simultaneously (levels or classes), in both directions. It fails if any part fails and
    /// passes only if all parts pass, and no single limit applies to all of them.
    fn has_many_parts(&self) -> bool {
        false
    }

    /// Whether the effect is a single difference of means to which every answer contributes, and which is asymptotically
    /// normal. Such kinds can pass at planned looks and can be compared within strata.
    fn is_one_mean(&self) -> bool {
        false
    }

    /// Whether a call with several rows counts with the mean over its rows. Other kinds take one row per call, because rows of one call
    /// are not independent.
    fn averages_rows(&self) -> bool {
        false
    }

    /// Whether the kind counts events, so that harm is a number of bad outcomes.
    fn counts_events(&self) -> bool {
        false
    }

    /// The range of the metric's value.
    fn range(&self) -> Range;

    /// Whether the metric's value is in the range of the single answers' values.
    fn is_of_values(&self) -> bool {
        false
    }

    /// Whether values below 0 are left out.
    fn is_positive(&self) -> bool {
        false
    }

    /// The range that values are clamped to, if the rollout file sets one.
    fn clamps_to(&self) -> Option<Range> {
        None
    }

    /// Whether harm can exceed the margin at all for values in `range`, which is the part of [`Self::range`] that the source can produce.
    fn can_fail(&self, range: Range, direction: Direction, margin: Margin) -> bool {
        range.can_fail(direction, margin)
    }

    /// Whether harm can exceed the margin while control's value is `control`. For a distribution or a mix of classes, this
    /// is true whenever harm can exceed the margin at all, because some level or class always can.
    fn can_fail_at(&self, direction: Direction, margin: Margin, control: f64) -> bool {
        if self.has_many_parts() {
            self.can_fail(self.range(), direction, margin)
        } else {
            self.range().can_fail_at(direction, margin, control)
        }
    }

    /// Why no harm can exceed the margin within `range`; used when [`Self::can_fail`] is false.
    fn why_it_cannot_fail(&self, Range { min, max }: Range) -> String {
        format!("no value from {min} to {max} is that much worse than another")
    }

    /// The margin to use when the rollout file sets none.
    fn default_margin(&self) -> Option<Margin> {
        None
    }

    /// Why the kind's own parameters are invalid, if they are.
    fn invalid_parameters(&self) -> Option<Refusal> {
        None
    }

    /// Why the kind cannot use the values of this source, if so.
    fn unsuitable_source(&self, source: &MetricSource, source_type: SourceType) -> Option<Refusal>;

    /// Why the kind has no test for this margin, if so.
    fn unsuitable_margin(&self, _direction: Direction, _margin: Margin) -> Option<Refusal> {
        None
    }

    /// The value to assume when nothing is known. `maturity`: how long to wait for labels, in seconds.
    fn default_value(&self, source: &MetricSource, maturity: f64) -> f64;

    /// Standard deviation of a single answer whose expected value is `value`; `None` for kinds that do not compare means.
    fn default_spread(&self, _value: f64) -> Option<f64> {
        None
    }

    /// Standard deviation of one answer's contribution to the comparison, and the margin on the same scale, when control's
    /// value is `value`. `None` for kinds that test many parts.
    fn default_resolution(&self, value: f64, _direction: Direction, margin: Margin) -> Option<(f64, f64)> {
        Some((self.default_spread(value)?, usual::allowed(value, margin)))
    }

    /// Why the metric cannot have this value in a plan or simulation; `None` if it can.
    fn impossible(&self, value: f64) -> Option<String>;

    /// Why it is not possible that only a share of the answers (the tail) is worse; `Ok` if it is possible.
    fn check_tail(&self, _share: f64) -> Result<(), String> {
        Err("only a quantile has a tail".to_owned())
    }

    /// A measured value adjusted so that it can be planned with; `None` if it cannot be.
    fn plannable(&self, value: f64) -> Option<f64> {
        Some(value)
    }

    /// The range that plans use.
    fn planned_range(&self) -> Range {
        self.range()
    }

    /// Over how many parts a plan averages the evidence, if that is known before control's values are.
    fn planned_parts(&self) -> Option<u32> {
        None
    }

    /// The user's value as the formulas take it, when stable's value is `stable`.
    fn planned_as(&self, _stable: f64, value: f64) -> f64 {
        value
    }

    /// The inverse of [`Self::planned_as`].
    fn shown(&self, _stable: f64, planned: f64) -> f64 {
        planned
    }

    /// Whether values are shares.
    fn is_share(&self) -> bool {
        false
    }

    /// Whether the difference between canary and control is a difference of shares, whatever the values are.
    fn differs_by_shares(&self) -> bool {
        self.is_share()
    }

    /// The name of the kind, which precedes the name of what is measured: `p99`, `rate of`.
    fn noun(&self) -> String;
}

/// How a kind is judged, and which distribution its values are assumed to follow in forecasts.
#[cfg(feature = "statistics")]
pub trait Tested: Kind {
    /// What the hypothesis compares.
    fn measure(&self, by_value: bool) -> Measure;

    /// The design effect: how many answers are worth one independent answer when one unit sends many. `variance`: the
    /// variance of single answers' positions, if it is known.
    fn design_effect(&self, units: &ClusterRatio, variance: Option<f64>) -> Option<f64> {
        units.design_effect_of_mean(variance?)
    }

    /// What to expect of control when its value is `value`.
    fn expected(&self, value: f64) -> Expected;

    /// The distribution under which the metric's value is `value`. `tail`: only this share of the answers is worse than under `base`.
    fn law(&self, base: f64, value: f64, tail: Option<f64>) -> Law;
}

/// The list of kinds. Evaluates an expression with the type that implements the kind.
macro_rules! dispatch {
    ($kind:expr, $kind_type:ident => $answer:expr) => {
        match *$kind {
            MetricKind::Rate => {
                let $kind_type = Rate;
                $answer
            }
            MetricKind::Mean { min, max } => {
                let $kind_type = Mean { min, max };
                $answer
            }
            MetricKind::CappedMean { cap } => {
                let $kind_type = CappedMean { cap };
                $answer
            }
            MetricKind::Quantile { level } => {
                let $kind_type = Quantile { level };
                $answer
            }
            MetricKind::Distribution => {
                let $kind_type = Distribution;
                $answer
            }
            MetricKind::Classes => {
                let $kind_type = Classes;
                $answer
            }
            MetricKind::Count => {
                let $kind_type = Count;
                $answer
            }
            MetricKind::Disagreement => {
                let $kind_type = Disagreement;
                $answer
            }
        }
    };
}

/// Forwards each method to the type that implements the kind.
macro_rules! forward {
    ($($method:ident($($argument:ident: $type:ty),*) -> $answer:ty;)*) => {
        $(fn $method(&self, $($argument: $type),*) -> $answer {
            dispatch!(self, kind => kind.$method($($argument),*))
        })*
    };
}

impl Kind for MetricKind {
    forward! {
        empty(by_value: bool) -> Summary;
        scaled(value: f64) -> Option<f64>;
        takes_classes() -> bool;
        uses_reason() -> bool;
        is_dithered(by_value: bool) -> bool;
        is_sum() -> bool;
        position(scaled: f64, by_value: bool) -> f64;
        is_paired() -> bool;
        has_many_parts() -> bool;
        is_one_mean() -> bool;
        averages_rows() -> bool;
        counts_events() -> bool;
        range() -> Range;
        is_of_values() -> bool;
        is_positive() -> bool;
        clamps_to() -> Option<Range>;
        can_fail(range: Range, direction: Direction, margin: Margin) -> bool;
        can_fail_at(direction: Direction, margin: Margin, control: f64) -> bool;
        why_it_cannot_fail(range: Range) -> String;
        default_margin() -> Option<Margin>;
        invalid_parameters() -> Option<Refusal>;
        unsuitable_source(source: &MetricSource, source_type: SourceType) -> Option<Refusal>;
        unsuitable_margin(direction: Direction, margin: Margin) -> Option<Refusal>;
        default_value(source: &MetricSource, maturity: f64) -> f64;
        default_spread(value: f64) -> Option<f64>;
        default_resolution(value: f64, direction: Direction, margin: Margin) -> Option<(f64, f64)>;
        impossible(value: f64) -> Option<String>;
        check_tail(share: f64) -> Result<(), String>;
        plannable(value: f64) -> Option<f64>;
        planned_range() -> Range;
        planned_parts() -> Option<u32>;
        planned_as(stable: f64, value: f64) -> f64;
        shown(stable: f64, planned: f64) -> f64;
        is_share() -> bool;
        differs_by_shares() -> bool;
        noun() -> String;
    }
}

#[cfg(feature = "statistics")]
impl Tested for MetricKind {
    forward! {
        measure(by_value: bool) -> Measure;
        design_effect(units: &ClusterRatio, variance: Option<f64>) -> Option<f64>;
        expected(value: f64) -> Expected;
        law(base: f64, value: f64, tail: Option<f64>) -> Law;
    }
}
