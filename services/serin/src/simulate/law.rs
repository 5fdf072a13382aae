//! The distribution of one version's answers for each metric, given the value of the metric.
//!
//! The laws are those of `serin_kinds`. Values are drawn from tables. The answers of mirrored calls differ at random.

use serin_kinds::{CLASS_COUNT, Kind as _, Tested as _};
use serin_sketches::{Pair, Summary};
use serin_spec::{MetricSpec, Rules};

use super::dice::{Dice, Table};

/// Classes of a mix. The share of the first one changes.
const CLASSES: [&str; CLASS_COUNT] = ["class-1", "class-2", "class-3", "class-4", "class-5"];

/// The distribution of answers.
#[derive(Clone, Debug)]
pub(super) enum Law {
    /// The rate is true for this share of the answers.
    Rate(f64),
    /// Values with probabilities, in the unit of a summary.
    Values(Vec<f64>, Table),
}

/// Why a metric cannot have a value; `None`: it can.
pub(crate) fn impossible(metric: &MetricSpec, value: f64) -> Option<String> {
    let (delay, maturity) = (metric.source.is_delay(), metric.maturity);
    if delay && value > maturity.0.as_secs_f64() {
        return Some(format!(
            "{value} is longer than the maturity ({maturity}): write the delay of labels as a plain number of seconds"
        ));
    }
    metric.kind.impossible(value)
}

/// The law with which the metric has the value `value`. `tail`: only this share of the answers is slower than under `base`.
pub(super) fn law(metric: &MetricSpec, base: f64, value: f64, tail: Option<f64>) -> Law {
    match metric.kind.law(base, value, tail) {
        serin_kinds::Law::Rate(rate) => Law::Rate(rate),
        serin_kinds::Law::Values { values, weights } => Law::Values(values, Table::new(&weights)),
    }
}

/// An empty summary for a metric.
pub(crate) fn empty(metric: &MetricSpec) -> Summary {
    metric.kind.empty(Rules::CURRENT.count_by_value())
}

/// Adds one value to a summary. Values of a law fit their summary, and counts stay far below 2^53.
pub(super) fn insert(into: &mut Summary, value: f64, dice: &mut Dice) {
    let _ = match into {
        Summary::Lin(hist) => hist.insert(value, dice.bits()),
        Summary::Log(hist) => hist.insert(value),
        Summary::Capped(hist) => hist.insert(value, dice.bits()),
        Summary::Classes(counts) => counts.insert(CLASSES.get(value as usize).copied().unwrap_or_default()),
        Summary::Pairs(pairs) => pairs.insert(Pair::Same(value == 0.0)),
        _ => Ok(()),
    };
}
