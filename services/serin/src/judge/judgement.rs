//! The result of a judge, and how both judges read a series.

use serde_json::Value;

/// What a judgement means for the canary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    Good,
    Open,
    Bad,
}

/// A judgement that can be printed.
pub(super) struct Judgement {
    pub(super) json: Value,
    pub(super) lines: Vec<String>,
    pub(super) meaning: Meaning,
}

/// The values of a series. `null` and `"NaN"` are missing values.
pub(super) fn series(value: &Value) -> Option<Vec<f64>> {
    let number = |value: &Value| match value {
        Value::Null => Some(f64::NAN),
        Value::String(text) if text == "NaN" => Some(f64::NAN),
        other => other.as_f64(),
    };
    value.as_array()?.iter().map(number).collect()
}
