//! Both answers to one mirrored call: the live one and the shadow's, of the same request.
//!
//! A pair belongs to the window of the answer that was complete first; the other one may take one window more (the stream of
//! these metrics settles that much later). So the order of events changes nothing, and a pair counts once.

use serde::{Deserialize, Serialize};
use serin_sketches::Pair;
use serin_spec::{MetricSource, MetricSpec, RolloutSpec};

use crate::value::{Value, class_hash};

/// One answer of a pair, as it waits for the other.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum Half {
    Number(f64),
    /// The hash of the class.
    Class(u64),
    Flag(bool),
}

/// When two answers agree.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pairing {
    /// Numbers agree up to this difference.
    tolerance: f64,
    /// Largest difference that the output's declared range allows; without one, differences are not summed up.
    width: Option<f64>,
    /// The number is a yes or no.
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

    /// What one answer says; `None`: nothing that can be compared.
    pub(crate) fn half(&self, value: &Value<'_>) -> Option<Half> {
        match value {
            Value::Number(value) if self.flag => Some(Half::Flag(*value >= 0.5)),
            Value::Number(value) => value.is_finite().then_some(Half::Number(*value)),
            Value::Class(class) => Some(Half::Class(class_hash(class))),
        }
    }

    /// What both say. `hash` is the request's, for dithering.
    pub(crate) fn pair(&self, shadow: Half, live: Half, hash: u64) -> Option<Pair> {
        Some(match (shadow, live) {
            (Half::Flag(canary), Half::Flag(control)) => Pair::Binary { canary, control },
            (Half::Class(canary), Half::Class(control)) => Pair::Same(canary == control),
            (Half::Number(canary), Half::Number(control)) => {
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
        let number = |value: f64| plain.half(&Value::Number(value));
        assert_eq!(number(f64::NAN), None);
        let same = |one: f64, two: f64| plain.pair(number(one)?, number(two)?, 1);
        assert_eq!((same(0.5, 0.59), same(0.5, 0.61)), (Some(Pair::Same(true)), Some(Pair::Same(false))));
        let class = |name: &'static str| plain.half(&Value::Class(name.into()));
        let same = |one, two| plain.pair(class(one)?, class(two)?, 1);
        assert_eq!((same("a", "a"), same("a", "b")), (Some(Pair::Same(true)), Some(Pair::Same(false))));
        assert_eq!(plain.pair(Half::Number(1.0), Half::Class(1), 1), None);
        let ranged = Pairing { width: Some(2.0), ..plain };
        let want = Pair::Number { differs: true, difference: -0.25, hash: 7 };
        assert_eq!(ranged.pair(Half::Number(0.5), Half::Number(1.0), 7), Some(want));
        let flag = Pairing { flag: true, ..plain };
        assert_eq!(flag.half(&Value::Number(1.0)), Some(Half::Flag(true)));
    }
}
