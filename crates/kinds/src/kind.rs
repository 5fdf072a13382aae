//! The faces of a kind, and the list of kinds.

use serin_sketches::Summary;
use serin_spec::{Direction, Margin, MetricKind, MetricSource};
#[cfg(feature = "statistics")]
use serin_statistics::{Measure, cluster::ClusterRatio, planning::Expected};

#[cfg(feature = "statistics")]
use crate::Law;
use crate::{
    Gives, Range, capped_mean::CappedMean, classes::Classes, count::Count, disagreement::Disagreement,
    distribution::Distribution, mean::Mean, quantile::Quantile, rate::Rate, usual,
};

/// Why a kind cannot take what a file says, and the way out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub way_out: &'static str,
}

impl Refusal {
    pub(crate) fn new(message: impl Into<String>, way_out: &'static str) -> Self {
        Self { message: message.into(), way_out }
    }
}

/// What a kind is. `by_value`: a count keeps the number of each answer, as since rules 2, instead of their sum.
pub trait Kind {
    /// A summary without answers. Parameters that lint refuses give a summary that takes no value of the kind.
    fn empty(&self, by_value: bool) -> Summary;

    /// A number as its summary takes it; `None`: no summary of the kind can hold it. Infinite numbers never get here.
    fn scaled(&self, value: f64) -> Option<f64>;

    /// Whether its values are classes instead of numbers.
    fn takes_classes(&self) -> bool {
        false
    }

    /// Whether a source that is a yes or no says why: `timeout` instead of 1.
    fn asks_why(&self) -> bool {
        self.takes_classes()
    }

    /// Whether its summary rounds values at random, by a number that depends on the request alone.
    fn is_dithered(&self, _by_value: bool) -> bool {
        false
    }

    /// Whether a sum per unit says what it compares. Ranks and classes need the units' own summaries.
    fn is_sum(&self) -> bool {
        true
    }

    /// The place of a [scaled](Self::scaled) number among others, for sums per bucket of units.
    fn position(&self, scaled: f64, _by_value: bool) -> f64 {
        scaled
    }

    /// Whether it compares the two answers to a mirrored call, so that there is no control and only a limit.
    fn is_paired(&self) -> bool {
        false
    }

    /// Whether it looks at many values at once (levels, classes), in both directions: any of them fails, all must pass, and no one
    /// limit holds for them.
    fn has_many_parts(&self) -> bool {
        false
    }

    /// Whether the difference from control is one difference of means that is normal in the large, in which each answer counts: such
    /// kinds can pass at planned looks, and be compared within strata.
    fn is_one_mean(&self) -> bool {
        false
    }

    /// Whether its number counts events, so that harm is a number of bad outcomes.
    fn counts_events(&self) -> bool {
        false
    }

    /// Which values its number can have.
    fn range(&self) -> Range;

    /// Whether its number is one of the values, so that it lies where they do.
    fn is_of_values(&self) -> bool {
        false
    }

    /// Whether values below 0 are left out.
    fn is_positive(&self) -> bool {
        false
    }

    /// The range beyond which values count as its ends, if it is written in the file.
    fn clamps_to(&self) -> Option<Range> {
        None
    }

    /// Whether harm can exceed the margin at all, for values in `range`: the part of [`Self::range`] that the source can give.
    fn can_fail(&self, range: Range, direction: Direction, margin: Margin) -> bool {
        range.can_fail(direction, margin)
    }

    /// Whether harm can exceed the margin while control's number is `control`. Of distributions and mixes of classes some level or class
    /// always can, if any ever can.
    fn can_fail_at(&self, direction: Direction, margin: Margin, control: f64) -> bool {
        if self.has_many_parts() {
            self.can_fail(self.range(), direction, margin)
        } else {
            self.range().can_fail_at(direction, margin, control)
        }
    }

    /// Why no harm can exceed a margin within `range`, where [`Self::can_fail`] says so.
    fn why_never(&self, Range { min, max }: Range) -> String {
        format!("no value from {min} to {max} is that much worse than another")
    }

    /// What is acceptable when nothing is written.
    fn default_margin(&self) -> Option<Margin> {
        None
    }

    /// Why its own parameters make no sense.
    fn fault(&self) -> Option<Refusal> {
        None
    }

    /// Why it cannot take what a source gives.
    fn misfit(&self, source: &MetricSource, gives: Gives) -> Option<Refusal>;

    /// Why it has no test for a margin like this one.
    fn wrong_margin(&self, _direction: Direction, _margin: Margin) -> Option<Refusal> {
        None
    }

    /// Its number when nothing is said. `maturity`: seconds that labels are waited for.
    fn usual_value(&self, source: &MetricSource, maturity: f64) -> f64;

    /// Standard deviation of one answer whose expected value is `value`; `None` for kinds that compare no means.
    fn usual_spread(&self, _value: f64) -> Option<f64> {
        None
    }

    /// Standard deviation of what one answer adds to the comparison, and the margin on the same scale, if control's number is `value`.
    /// `None` for kinds that look at many values.
    fn usual_resolution(&self, value: f64, _direction: Direction, margin: Margin) -> Option<(f64, f64)> {
        Some((self.usual_spread(value)?, usual::allowed(value, margin)))
    }

    /// Why its number cannot be what a person asks to simulate or plan; `None`: it can.
    fn impossible(&self, value: f64) -> Option<String>;

    /// Why not only a share of the answers can be worse, the tail; `Ok`: it can.
    fn check_tail(&self, _share: f64) -> Result<(), String> {
        Err("only a quantile has a tail".to_owned())
    }

    /// A number that was measured, as it can be planned with; `None`: it cannot.
    fn plannable(&self, value: f64) -> Option<f64> {
        Some(value)
    }

    /// Range that a plan is made within.
    fn planned_range(&self) -> Range {
        self.range()
    }

    /// Over how many parts a plan averages the evidence, where it is known before control's values are.
    fn planned_parts(&self) -> Option<u32> {
        None
    }

    /// A person's number as the formulas take it, where stable's number is `stable`.
    fn planned_as(&self, _stable: f64, value: f64) -> f64 {
        value
    }

    /// The reverse of [`Self::planned_as`].
    fn shown(&self, _stable: f64, planned: f64) -> f64 {
        planned
    }

    /// Whether its values are shares.
    fn is_share(&self) -> bool {
        false
    }

    /// Whether the canary's difference from control is one of shares, whatever the values are.
    fn differs_by_shares(&self) -> bool {
        self.is_share()
    }

    /// What it is called before the word for what is measured: `p99`, `rate of`.
    fn noun(&self) -> String;
}

/// What judges a kind, and what its values are taken to be where they are forecast.
#[cfg(feature = "statistics")]
pub trait Tested: Kind {
    /// What its hypothesis compares.
    fn measure(&self, by_value: bool) -> Measure;

    /// How many answers are worth one independent one, where one unit brings many. `variance`: of single answers' positions, if it is
    /// known.
    fn design_effect(&self, units: &ClusterRatio, variance: Option<f64>) -> Option<f64> {
        units.design_effect_of_mean(variance?)
    }

    /// What control is expected to show whose number is `value`.
    fn expected(&self, value: f64) -> Expected;

    /// The law under which its number is `value`. `tail`: only this share of the answers is worse than under `base`.
    fn law(&self, base: f64, value: f64, tail: Option<f64>) -> Law;
}

/// The list of kinds: asks the kind's own file.
macro_rules! ask {
    ($kind:expr, $own:ident => $answer:expr) => {
        match *$kind {
            MetricKind::Rate => {
                let $own = Rate;
                $answer
            }
            MetricKind::Mean { min, max } => {
                let $own = Mean { min, max };
                $answer
            }
            MetricKind::CappedMean { cap } => {
                let $own = CappedMean { cap };
                $answer
            }
            MetricKind::Quantile { level } => {
                let $own = Quantile { level };
                $answer
            }
            MetricKind::Distribution => {
                let $own = Distribution;
                $answer
            }
            MetricKind::Classes => {
                let $own = Classes;
                $answer
            }
            MetricKind::Count => {
                let $own = Count;
                $answer
            }
            MetricKind::Disagreement => {
                let $own = Disagreement;
                $answer
            }
        }
    };
}

/// Forwards each face to the kind's own file.
macro_rules! faces {
    ($($face:ident($($argument:ident: $type:ty),*) -> $answer:ty;)*) => {
        $(fn $face(&self, $($argument: $type),*) -> $answer {
            ask!(self, own => own.$face($($argument),*))
        })*
    };
}

impl Kind for MetricKind {
    faces! {
        empty(by_value: bool) -> Summary;
        scaled(value: f64) -> Option<f64>;
        takes_classes() -> bool;
        asks_why() -> bool;
        is_dithered(by_value: bool) -> bool;
        is_sum() -> bool;
        position(scaled: f64, by_value: bool) -> f64;
        is_paired() -> bool;
        has_many_parts() -> bool;
        is_one_mean() -> bool;
        counts_events() -> bool;
        range() -> Range;
        is_of_values() -> bool;
        is_positive() -> bool;
        clamps_to() -> Option<Range>;
        can_fail(range: Range, direction: Direction, margin: Margin) -> bool;
        can_fail_at(direction: Direction, margin: Margin, control: f64) -> bool;
        why_never(range: Range) -> String;
        default_margin() -> Option<Margin>;
        fault() -> Option<Refusal>;
        misfit(source: &MetricSource, gives: Gives) -> Option<Refusal>;
        wrong_margin(direction: Direction, margin: Margin) -> Option<Refusal>;
        usual_value(source: &MetricSource, maturity: f64) -> f64;
        usual_spread(value: f64) -> Option<f64>;
        usual_resolution(value: f64, direction: Direction, margin: Margin) -> Option<(f64, f64)>;
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
    faces! {
        measure(by_value: bool) -> Measure;
        design_effect(units: &ClusterRatio, variance: Option<f64>) -> Option<f64>;
        expected(value: f64) -> Expected;
        law(base: f64, value: f64, tail: Option<f64>) -> Law;
    }
}
