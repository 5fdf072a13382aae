//! Pairs the answers to one mirrored call: the live answer and the shadow's answer to the same request.
//!
//! A pair belongs to the window of the answer that completed first. The other answer may arrive up to one window
//! later; the stream of these metrics settles that much later. So the order of events does not matter, and each pair
//! counts once.

use serde::{Deserialize, Serialize};
use serin_sketches::Pair;
use serin_spec::{MetricSource, MetricSpec, RolloutSpec};

use crate::value::{Value, class_hash};

/// One answer of a pair, stored while it waits for the other.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum PairSide {
    Number(f64),
    /// The hash of the class.
    Class(u64),
    Flag(bool),
}

/// Decides whether two answers agree.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pairing {
    /// Numbers agree if they differ by at most this much.
    tolerance: f64,
    /// Largest difference that the output's declared range allows. Without a range, differences are not summed up.
    width: Option<f64>,
    /// Whether the number is a yes/no value.
    flag: bool,
}

impl Pairing {
    pub(crate) fn new(metric: &MetricSpec, spec: &RolloutSpec) -> Self {
        let width = match &metric.source {
            MetricSource::Output(name) => {
                let rule = spec.outputs.iter().find(|rule| rule.name == *name);
                rule.and_then(|rule| Some(rule.max? - rule.min?)).filter(|width| *width > 0.0 && width.is_finite())
            }
            _ => None,
        };
        let flag = matches!(metric.source, MetricSource::Class { is: Some(_), .. });
        Self { tolerance: metric.tolerance.unwrap_or(0.0), width, flag }
    }

    /// The value of one answer. `None`: it cannot be compared.
    pub(crate) fn side(&self, value: &Value<'_>) -> Option<PairSide> {
        match value {
            Value::Number(value) if self.flag => Some(PairSide::Flag(*value >= 0.5)),
            Value::Number(value) => value.is_finite().then_some(PairSide::Number(*value)),
            Value::Class(class) => Some(PairSide::Class(class_hash(class))),
        }
    }

    /// Compares both answers. `hash` is the hash of the request, used for dithering.
    pub(crate) fn pair(&self, shadow: PairSide, live: PairSide, hash: u64) -> Option<Pair> {
        Some(match (shadow, live) {
            (PairSide::Flag(canary), PairSide::Flag(control)) => Pair::Binary { canary, control },
            (PairSide::Class(canary), PairSide::Class(control)) => Pair::Same(canary == control),
            (PairSide::Number(canary), PairSide::Number(control)) => {
                let differs = (canary - control).abs() > self.tolerance;
                match self.width {
                    Some(width) => {
                        Pair::Number { differs, difference: ((canary - control) / width).clamp(-1.0, 1.0), hash }
                    }
                    None => Pair::Same(!differs),
                }
            }
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_agree_within_the_tolerance_and_classes_by_name() {
        let plain = Pairing { tolerance: 0.1, width: None, flag: false };
        let number = |value: f64| plain.side(&Value::Number(value));
        assert_eq!(number(f64::NAN), None);
        let same = |one: f64, two: f64| plain.pair(number(one)?, number(two)?, 1);
        assert_eq!((same(0.5, 0.59), same(0.5, 0.61)), (Some(Pair::Same(true)), Some(Pair::Same(false))));
        let class = |name: &'static str| plain.side(&Value::Class(name.into()));
        let same = |one, two| plain.pair(class(one)?, class(two)?, 1);
        assert_eq!((same("a", "a"), same("a", "b")), (Some(Pair::Same(true)), Some(Pair::Same(false))));
        assert_eq!(plain.pair(PairSide::Number(1.0), PairSide::Class(1), 1), None);
        let ranged = Pairing { width: Some(2.0), ..plain };
        let want = Pair::Number { differs: true, difference: -0.25, hash: 7 };
        assert_eq!(ranged.pair(PairSide::Number(0.5), PairSide::Number(1.0), 7), Some(want));
        let flag = Pairing { flag: true, ..plain };
        assert_eq!(flag.side(&Value::Number(1.0)), Some(PairSide::Flag(true)));
    }
}
