//! Compares the expected values of a case with the computed ones, key by key.

use serde_json::{Map, Value};

/// Relative tolerance if the file specifies none.
const RELATIVE: f64 = 1e-9;
/// Absolute tolerance for numbers near 0 if the file specifies none.
const NEAR_ZERO: f64 = 1e-12;

/// Parses a number in the form that the files use: also `"NaN"` and numbers in quotes.
pub(crate) fn as_number(value: &Value) -> Option<f64> {
    value.as_f64().or_else(|| value.as_str().and_then(|text| text.parse().ok()))
}

/// A number as JSON for the comparison. Numbers that JSON cannot represent become text.
pub(crate) fn number(value: f64) -> Value {
    serde_json::Number::from_f64(value).map_or_else(|| Value::String(value.to_string()), Value::Number)
}

/// The absolute tolerances of a case: one number, or one per key.
#[derive(Clone, Copy)]
pub(crate) struct Tolerance<'a>(pub(crate) &'a Value);

impl Tolerance<'_> {
    fn of(self, key: &str, expected: f64) -> f64 {
        let given = as_number(self.0).or_else(|| self.0.get(key).and_then(as_number));
        given.unwrap_or(NEAR_ZERO).max(RELATIVE * expected.abs())
    }
}

fn numbers_agree(expected: f64, actual: f64, tolerance: f64) -> bool {
    if expected.is_finite() && actual.is_finite() {
        (expected - actual).abs() <= tolerance
    } else {
        expected.is_nan() && actual.is_nan() || expected.to_bits() == actual.to_bits()
    }
}

/// The differences between `expected` and `actual`, each with its path. Only keys of `expected` are compared. If `actual` is
/// null, Kayenta's own number is random or does not exist, and any number is accepted.
pub(crate) fn differences(
    path: &str,
    key: &str,
    expected: &Value,
    actual: &Value,
    tolerance: Tolerance<'_>,
) -> Vec<String> {
    match (expected, actual) {
        (Value::Object(expected), Value::Object(actual)) => objects(path, expected, actual, tolerance),
        (Value::Array(wanted), Value::Array(got)) if wanted.len() == got.len() => (0..)
            .zip(wanted.iter().zip(got))
            .flat_map(|(i, (wanted, got))| differences(&format!("{path}[{i}]"), key, wanted, got, tolerance))
            .collect(),
        _ => match (as_number(expected), as_number(actual)) {
            (Some(_), _) if actual.is_null() => Vec::new(),
            (Some(wanted), Some(got)) if numbers_agree(wanted, got, tolerance.of(key, wanted)) => Vec::new(),
            (None, None) if expected == actual => Vec::new(),
            _ => vec![format!("{path}: expected {expected}, got {actual}")],
        },
    }
}

fn objects(
    path: &str,
    expected: &Map<String, Value>,
    actual: &Map<String, Value>,
    tolerance: Tolerance<'_>,
) -> Vec<String> {
    let missing = |key: &String| vec![format!("{path}.{key}: not computed")];
    expected
        .iter()
        .flat_map(|(key, wanted)| {
            actual
                .get(key)
                .map_or_else(|| missing(key), |got| differences(&format!("{path}.{key}"), key, wanted, got, tolerance))
        })
        .collect()
}
