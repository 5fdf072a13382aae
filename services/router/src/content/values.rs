//! Scalars in untrusted JSON bodies and headers. Pure, and bounded in memory.

use std::borrow::Cow;

use http::HeaderMap;
use serde_json::Value;

/// Maximum length of a class, segment value or key in bytes.
pub(crate) const LONGEST: usize = 128;

/// The first scalar of nested arrays; an empty array is returned as it is.
pub(crate) fn first(mut value: &Value) -> &Value {
    while let Value::Array(items) = value {
        match items.first() {
            Some(item) => value = item,
            None => return value,
        }
    }
    value
}

pub(crate) fn number(value: &Value) -> Result<f64, &'static str> {
    let number = match value {
        Value::Number(number) => number.as_f64().ok_or("unparsable")?,
        Value::Bool(yes) => f64::from(u8::from(*yes)),
        Value::String(text) => text.trim().parse::<f64>().map_err(|_| "unparsable")?,
        _ => return Err("unparsable"),
    };
    if number.is_finite() { Ok(number) } else { Err("nan") }
}

/// A scalar as text, truncated to [`LONGEST`].
pub(super) fn scalar_text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(cut(text).to_owned()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(yes) => Some(yes.to_string()),
        _ => None,
    }
}

/// A string truncated to [`LONGEST`] bytes at a character boundary.
pub(super) fn cut(text: &str) -> &str {
    if text.len() <= LONGEST {
        return text;
    }
    let end = (0..=LONGEST).rev().find(|&end| text.is_char_boundary(end)).unwrap_or(0);
    &text[..end]
}

/// A named tensor.
pub(crate) fn tensor<'a>(body: &'a Value, list: &str, name: &str) -> Option<&'a Value> {
    let tensors = body.get(list)?.as_array()?;
    tensors.iter().find(|tensor| tensor.get("name").and_then(Value::as_str) == Some(name))
}

/// The first value of a named tensor; an empty tensor is an empty array.
pub(crate) fn first_of_tensor(body: &Value, list: &str, name: &str) -> Option<Value> {
    Some(first(tensor(body, list, name)?.get("data")?).clone())
}

pub(super) fn header_text<'a>(headers: &'a HeaderMap, name: &str) -> Option<Cow<'a, str>> {
    headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()))
}
