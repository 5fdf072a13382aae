//! How one version's answers are distributed, metric by metric, as far as the metric's own number says.
//!
//! The laws are those of `serin_kinds`; values are drawn from tables. The answers of mirrored calls differ at random.

use serin_kinds::{CLASS_COUNT, Kind as _, Tested as _};
use serin_sketches::{Pair, Summary};
use serin_spec::{MetricSpec, Rules};

use super::dice::{Dice, Table};

/// Classes of a mix; the first is the one whose share changes.
const CLASSES: [&str; CLASS_COUNT] = ["class-1", "class-2", "class-3", "class-4", "class-5"];

/// How answers are distributed.
#[derive(Clone, Debug)]
pub(crate) enum Law {
    /// Something is true for this share of the answers.
    Rate(f64),
    /// Values with probabilities, as a summary takes them.
    Values(Vec<f64>, Table),
}

/// Why a metric's number cannot be what was asked for; `None`: it can.
pub(crate) fn impossible(metric: &MetricSpec, value: f64) -> Option<String> {
    let (delay, maturity) = (metric.source.is_delay(), metric.maturity);
    if delay && value > maturity.0.as_secs_f64() {
        return Some(format!(
            "{value} is later than labels are waited for ({maturity}): the delay of labels is a plain number of seconds"
        ));
    }
    metric.kind.impossible(value)
}

/// The law under which the metric's number is `value`. `tail`: only this share of the answers is slower than under `base`.
pub(crate) fn law(metric: &MetricSpec, base: f64, value: f64, tail: Option<f64>) -> Law {
    match metric.kind.law(base, value, tail) {
        serin_kinds::Law::Rate(rate) => Law::Rate(rate),
        serin_kinds::Law::Values { values, weights } => Law::Values(values, Table::new(&weights)),
    }
}

/// An empty summary for a metric.
pub(crate) fn empty(metric: &MetricSpec) -> Summary {
    metric.kind.empty(Rules::CURRENT.count_by_value())
}

/// Adds one value to the summary that counts it. Values of a law fit their summary, and counts stay far below 2^53.
pub(crate) fn insert(into: &mut Summary, value: f64, dice: &mut Dice) {
    let _ = match into {
        Summary::Lin(hist) => hist.insert(value, dice.bits()),
        Summary::Log(hist) => hist.insert(value),
        Summary::Capped(hist) => hist.insert(value, dice.bits()),
        Summary::Classes(counts) => counts.insert(CLASSES.get(value as usize).copied().unwrap_or_default()),
        Summary::Pairs(pairs) => pairs.insert(Pair::Same(value == 0.0)),
        _ => Ok(()),
    };
}
