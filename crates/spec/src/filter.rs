//! Filters: which answers a metric counts.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A condition on one answer, such as `{label: fraud, is: true}` or `{output: score, above: 0.5}`. It names one of `output`,
/// `label` and `segment`, and what the value must be.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Filter {
    /// Output or feature of the answer: a number or a class.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<String>,
    /// Label from feedback: a number or a class. The metric waits for it, so it needs a `maturity`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// Segment dimension of the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub segment: Option<String>,
    /// The value is this one. `true` means a number from 0.5 on, `false` one below 0.5; a string is a class or a segment value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub is: Option<FilterValue>,
    /// The number is this one or higher.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub above: Option<f64>,
    /// The number is lower than this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub below: Option<f64>,
}

/// The value that a filter asks for: yes/no, a number, or a class.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum FilterValue {
    /// Yes: 0.5 or higher. No: lower.
    Truth(bool),
    /// Exactly this number.
    Number(f64),
    /// The class or segment value of this name.
    Text(String),
}

/// What a filter reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FilterSubject<'a> {
    /// An output or feature.
    Output(&'a str),
    /// A label from feedback.
    Label(&'a str),
    /// A segment dimension.
    Segment(&'a str),
}

/// What a filter requires of the value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum FilterTest<'a> {
    /// A class or segment value.
    Class(&'a str),
    /// A number `x` with `at_least <= x < below`.
    Range {
        /// Lowest number that fits.
        at_least: f64,
        /// The first number that is too high.
        below: f64,
    },
    /// This number.
    Number(f64),
}

impl Filter {
    /// What it reads; `None` where it names none or several of output, label and segment.
    pub fn subject(&self) -> Option<FilterSubject<'_>> {
        match (self.output.as_deref(), self.label.as_deref(), self.segment.as_deref()) {
            (Some(name), None, None) => Some(FilterSubject::Output(name)),
            (None, Some(name), None) => Some(FilterSubject::Label(name)),
            (None, None, Some(name)) => Some(FilterSubject::Segment(name)),
            _ => None,
        }
    }

    /// What it requires; `None` where it has no test, or both `is` and a bound.
    pub fn test(&self) -> Option<FilterTest<'_>> {
        const HALF: f64 = 0.5;
        match (&self.is, self.above, self.below) {
            (Some(FilterValue::Truth(true)), None, None) => {
                Some(FilterTest::Range { at_least: HALF, below: f64::INFINITY })
            }
            (Some(FilterValue::Truth(false)), None, None) => {
                Some(FilterTest::Range { at_least: f64::NEG_INFINITY, below: HALF })
            }
            (Some(FilterValue::Number(number)), None, None) => Some(FilterTest::Number(*number)),
            (Some(FilterValue::Text(text)), None, None) => Some(FilterTest::Class(text)),
            (None, None, None) | (Some(_), ..) => None,
            (None, above, below) => Some(FilterTest::Range {
                at_least: above.unwrap_or(f64::NEG_INFINITY),
                below: below.unwrap_or(f64::INFINITY),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(text: &str) -> Filter {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn a_filter_reads_one_thing_and_tests_it() {
        let range = |at_least, below| Some(FilterTest::Range { at_least, below });
        let recall = filter(r#"{"label": "fraud", "is": true}"#);
        assert_eq!((recall.subject(), recall.test()), (Some(FilterSubject::Label("fraud")), range(0.5, f64::INFINITY)));
        assert_eq!(filter(r#"{"label": "fraud", "is": false}"#).test(), range(f64::NEG_INFINITY, 0.5));
        assert_eq!(filter(r#"{"output": "score", "above": 0.2, "below": 0.4}"#).test(), range(0.2, 0.4));
        assert_eq!(filter(r#"{"segment": "country", "is": "DE"}"#).test(), Some(FilterTest::Class("DE")));
        assert_eq!(filter(r#"{"label": "grade", "is": 3}"#).test(), Some(FilterTest::Number(3.0)));
    }

    #[test]
    fn what_is_not_one_condition_has_no_subject_or_no_test() {
        for text in [r#"{"is": true}"#, r#"{"output": "a", "label": "b", "is": true}"#] {
            assert_eq!(filter(text).subject(), None, "{text}");
        }
        for text in [r#"{"output": "a"}"#, r#"{"output": "a", "is": 1, "above": 0}"#] {
            assert_eq!(filter(text).test(), None, "{text}");
        }
    }
}
