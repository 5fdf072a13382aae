//! The syntax of a regression: `error_rate 1%->2%`, `latency_p99 x1.5 tail 3%`, `error_rate 1%->3% at 30m in origin=LGA`.
//!
//! ```text
//! METRIC FROM->TO | METRIC TO | METRIC xFACTOR   then any of   at SPAN   in DIMENSION=VALUE   tail SHARE
//! ```
//!
//! A `=` after the metric is read as a space: `--base` and the output of `serin plan` write `failed=2%`.

use std::fmt::Write as _;

use serin_kinds::{Unit, significant};
use serin_spec::{RolloutSpec, units::Duration};

/// One change of the canary's behavior. Stable does not change.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Regression {
    /// Name of the metric that changes.
    pub(crate) metric: String,
    /// The old and the new value.
    pub(crate) change: Change,
    /// When the regression starts, counted from the canary's first request.
    pub(crate) at: Duration,
    /// The only segment with the regression: dimension and value.
    pub(super) segment: Option<(String, String)>,
    /// For a quantile: only this share of the answers becomes slower, so that the quantile has the given value.
    pub(crate) tail: Option<f64>,
}

/// The change of a metric's value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Change {
    /// Stable's value, and the canary's.
    FromTo(f64, f64),
    /// The canary's value. Stable's does not change.
    To(f64),
    /// The canary's value as a multiple of stable's.
    Factor(f64),
}

impl Change {
    /// Stable's value, if it is given.
    pub(crate) fn from(self) -> Option<f64> {
        match self {
            Self::FromTo(from, _) => Some(from),
            Self::To(_) | Self::Factor(_) => None,
        }
    }

    /// The canary's value if stable's is `base`.
    pub(crate) fn to(self, base: f64) -> f64 {
        match self {
            Self::FromTo(_, to) | Self::To(to) => to,
            Self::Factor(factor) => base * factor,
        }
    }
}

/// An invalid regression: the part that is wrong, and what to write.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("regression {text:?}: {what}\nexamples: 'failed 1%->2%', 'failed 1%->3% at 30m in origin=LGA'")]
pub(crate) struct RegressionError {
    text: String,
    what: String,
}

impl std::str::FromStr for Regression {
    type Err = RegressionError;

    fn from_str(text: &str) -> Result<Self, RegressionError> {
        parse(text).map_err(|what| RegressionError { text: text.to_owned(), what })
    }
}

impl Regression {
    /// The regression as a user writes it, with the units of its metric: `failed 1%->2.5% at 30m`.
    pub(crate) fn text(&self, spec: &RolloutSpec) -> String {
        let metric = spec.metrics.iter().find(|metric| metric.name == self.metric);
        // The built-in gates are rates, and a file need not contain them.
        let built_in = match self.metric.as_str() {
            "failed" | "refused" | "unusable" => Unit::Percent,
            _ => Unit::Plain,
        };
        let unit = metric.map_or(built_in, |metric| Unit::of(&metric.kind, &metric.source));
        let value = |value: f64| match unit {
            Unit::Percent => format!("{}%", significant(100.0 * value, 4)),
            Unit::Milliseconds => format!("{}ms", significant(value, 4)),
            Unit::Seconds | Unit::Plain => significant(value, 4),
        };
        let mut text = match self.change {
            Change::FromTo(from, to) => format!("{} {}->{}", self.metric, value(from), value(to)),
            Change::To(to) => format!("{} {}", self.metric, value(to)),
            Change::Factor(factor) => format!("{} x{}", self.metric, significant(factor, 4)),
        };
        if !self.at.is_zero() {
            let _ = write!(text, " at {}", self.at);
        }
        if let Some((dimension, value)) = &self.segment {
            let _ = write!(text, " in {dimension}={value}");
        }
        if let Some(tail) = self.tail {
            let _ = write!(text, " tail {}%", significant(100.0 * tail, 4));
        }
        text
    }
}

fn parse(text: &str) -> Result<Regression, String> {
    let spaced = with_space(text).replace('→', "->").replace("->", " -> ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut words = words.as_slice();
    let metric = next(&mut words).ok_or("the text is empty; write for example 'failed 1%->2%'")?;
    let first = next(&mut words)
        .ok_or_else(|| format!("the change after {metric:?} is missing; write for example 1%->2%, 2% or x1.5"))?;
    #[expect(clippy::single_match_else, reason = "two cases side by side")]
    let change = match first.strip_prefix('x') {
        Some(factor) => Change::Factor(self::factor(first, factor)?),
        None => {
            let value = number(first)?;
            match words.first() {
                Some(&"->") => {
                    next(&mut words);
                    let to = next(&mut words)
                        .ok_or_else(|| format!("the canary's value after \"{first} ->\" is missing"))?;
                    Change::FromTo(value, number(to)?)
                }
                None | Some(&("at" | "in" | "tail")) => Change::To(value),
                Some(word) => return Err(format!("after {first:?}, write -> and the canary's value, not {word:?}")),
            }
        }
    };
    let mut regression =
        Regression { metric: metric.to_owned(), change, at: Duration::default(), segment: None, tail: None };
    while let Some(word) = next(&mut words) {
        let value = next(&mut words).ok_or_else(|| format!("the value after {word:?} is missing"));
        match word {
            "at" => regression.at = Duration::parse(value?)?,
            "in" => regression.segment = Some(segment(value?)?),
            "tail" => regression.tail = Some(tail(value?)?),
            _ => {
                return Err(format!("{word:?} is unknown here; write `at 30m`, `in dimension=value` or `tail 3%`"));
            }
        }
    }
    Ok(regression)
}

/// The text with the `=` after the metric replaced by a space.
fn with_space(text: &str) -> String {
    match text.split_once('=') {
        Some((metric, rest)) if metric.split_whitespace().count() == 1 => format!("{metric} {rest}"),
        _ => text.to_owned(),
    }
}

fn next<'a>(words: &mut &[&'a str]) -> Option<&'a str> {
    let (first, rest) = words.split_first()?;
    *words = rest;
    Some(first)
}

/// A finite number: `1%`, `0.8`, `250ms`, `1.2s` (seconds become milliseconds, the unit of latencies).
pub(crate) fn number(text: &str) -> Result<f64, String> {
    let units = [("%", 0.01), ("ms", 1.0), ("s", 1000.0)];
    let split = units.iter().find_map(|(unit, factor)| text.strip_suffix(unit).map(|number| (number, *factor)));
    let (digits, factor) = split.unwrap_or((text, 1.0));
    let number: Option<f64> = digits.parse().ok().filter(|number: &f64| number.is_finite());
    // `10 * 0.01` is not 0.1. A division gives the nearest number.
    let scaled = number.map(|number| if factor < 1.0 { number / 100.0 } else { number * factor });
    scaled.ok_or_else(|| format!("{text:?} is not a number; write for example 1%, 0.8 or 250ms"))
}

fn factor(word: &str, digits: &str) -> Result<f64, String> {
    let factor: Option<f64> = digits.parse().ok().filter(|factor: &f64| factor.is_finite() && *factor >= 0.0);
    factor.ok_or_else(|| format!("{word:?} is not a factor; write for example x1.5"))
}

fn segment(word: &str) -> Result<(String, String), String> {
    match word.split_once('=') {
        Some((dimension, value)) if !dimension.is_empty() && !value.is_empty() => {
            Ok((dimension.to_owned(), value.to_owned()))
        }
        _ => Err(format!("{word:?} is not a segment; write dimension=value, such as origin=LGA")),
    }
}

fn tail(word: &str) -> Result<f64, String> {
    let share = number(word)?;
    if share > 0.0 && share < 1.0 {
        Ok(share)
    } else {
        Err(format!("{word:?} is not a share of the answers; write for example `tail 3%`"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Regression {
        text.parse().unwrap()
    }

    #[test]
    fn every_form_is_read() {
        for text in ["error_rate 1%->2%", "error_rate 1% -> 2%", "error_rate 0.01 → 0.02"] {
            let regression = read(text);
            assert_eq!((regression.metric.as_str(), regression.change), ("error_rate", Change::FromTo(0.01, 0.02)));
            assert_eq!((regression.at, regression.segment, regression.tail), (Duration::default(), None, None));
        }
        let all = read("latency_p99 x1.5 tail 3% in origin=LGA at 1h30m");
        assert_eq!(all.change, Change::Factor(1.5));
        assert_eq!(all.at, Duration::from_secs(5400));
        assert_eq!(all.segment, Some(("origin".to_owned(), "LGA".to_owned())));
        assert_eq!(all.tail, Some(0.03));
        for text in ["wrong=5%->9%", "wrong = 5% -> 9%", "wrong= 5%→9%"] {
            assert_eq!(read(text).change, Change::FromTo(0.05, 0.09), "{text}");
            assert_eq!(read(text).metric, "wrong");
        }
        for text in ["wrong=9%", "wrong 9%", "wrong = 9%"] {
            assert_eq!((read(text).metric.as_str(), read(text).change), ("wrong", Change::To(0.09)), "{text}");
        }
        assert_eq!(read("wrong=x2 in origin=LGA").segment, Some(("origin".to_owned(), "LGA".to_owned())));
        assert_eq!(read("latency_p99 0.2s->300ms").change, Change::FromTo(200.0, 300.0));
    }

    #[test]
    fn a_formatted_regression_can_be_parsed() {
        let spec = "
apiVersion: serin.dev/v1
kind: Rollout
model: m
stable: {version: '1'}
canary: {version: '2'}
metrics:
  - {name: wrong, kind: rate, source: error}
  - {name: slow, kind: {quantile: {level: 0.9}}, source: latency}
  - {name: score, kind: {mean: {min: 0, max: 1}}, source: {output: score}}
  - {name: delay, kind: distribution, source: {label_delay: click}, maturity: 1h}
";
        let spec = serin_rollout::parse_yaml(spec).unwrap();
        for text in [
            "wrong 1%->2.5%",
            "wrong 0.05%->7%",
            "failed 1%->2.5%",
            "wrong x1.5 at 1h30m in origin=LGA tail 3%",
            "slow 250ms->300ms",
            "slow 1200ms at 30m",
            "score 0.5->0.4995 in d=v",
            "delay 20->100",
            "unknown 0.1->0.2",
        ] {
            assert_eq!(read(text).text(&spec), text);
        }
        assert_eq!(read("wrong 0.07->0.1").text(&spec), "wrong 7%->10%");
    }

    #[test]
    fn the_bad_part_is_named() {
        let errors: Vec<String> = [
            "",
            "error_rate",
            "error_rate 1% 2%",
            "error_rate 1%->",
            "error_rate one->2%",
            "error_rate x-1",
            "error_rate 1%->2% at noon",
            "error_rate 1%->2% at",
            "error_rate 1%->2% in LGA",
            "error_rate 1%->2% because",
            "error_rate 1%->2% because why",
            "latency x2 tail 300%",
        ]
        .iter()
        .map(|text| text.parse::<Regression>().unwrap_err().to_string())
        .collect();
        insta::assert_snapshot!(errors.join("\n"));
    }
}
