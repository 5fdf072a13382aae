//! Compares computed values with expected ones.

use std::fmt;

use serde_json::Value;

/// A difference or error in a case.
#[derive(Debug)]
pub(super) enum Miss {
    /// A value differs.
    Value {
        /// The path within `expected`, such as `ci[0]`.
        key: String,
        /// The computed value; `null` if there is none.
        got: Value,
        /// The expected value.
        expected: Value,
    },
    /// The case could not be computed.
    Error(String),
}

impl fmt::Display for Miss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Value { key, got, expected } => write!(f, "{key}: got {got}, expected {expected}"),
            Self::Error(error) => f.write_str(error),
        }
    }
}

/// Compares every number that has a fraction in either by `|got - expected| <= atol + rtol |expected|`. Whole numbers,
/// booleans and everything else must be equal. Every expected key must be computed; additional keys are allowed.
pub(super) fn compare(got: &Value, expected: &Value, rtol: f64, atol: f64) -> Vec<Miss> {
    let mut misses = Vec::new();
    if expected.as_object().is_none_or(serde_json::Map::is_empty) {
        misses.push(Miss::Error("`expected` must be an object with at least one key".to_owned()));
    }
    walk("", got, expected, (rtol, atol), &mut misses);
    misses
}

fn walk(key: &str, got: &Value, expected: &Value, tolerance: (f64, f64), misses: &mut Vec<Miss>) {
    let same = match (got, expected) {
        (Value::Object(got), Value::Object(expected)) => {
            for (name, expected) in expected {
                let key = if key.is_empty() { name.clone() } else { format!("{key}.{name}") };
                walk(&key, got.get(name).unwrap_or(&Value::Null), expected, tolerance, misses);
            }
            true
        }
        (Value::Array(got), Value::Array(expected)) if got.len() == expected.len() => {
            for (index, (got, expected)) in got.iter().zip(expected).enumerate() {
                walk(&format!("{key}[{index}]"), got, expected, tolerance, misses);
            }
            true
        }
        // Counts are exact. A figure that happens to be whole is still compared with a tolerance.
        (Value::Number(whole), Value::Number(expected)) if whole.is_u64() || whole.is_i64() => {
            whole.as_f64().is_some_and(|got| expected.as_f64().is_some_and(|expected| got.total_cmp(&expected).is_eq()))
        }
        (Value::Number(got), Value::Number(expected)) => match (got.as_f64(), expected.as_f64()) {
            (Some(got), Some(expected)) => (got - expected).abs() <= tolerance.1 + tolerance.0 * expected.abs(),
            _ => false,
        },
        _ => got == expected,
    };
    if !same {
        misses.push(Miss::Value { key: key.to_owned(), got: got.clone(), expected: expected.clone() });
    }
}
