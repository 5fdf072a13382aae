//! The fields of a captured request, as values of dimensions.

use std::collections::BTreeMap;

use serde_json::Value;

/// What the router writes instead of a value that must not be kept.
const REDACTED: &str = "[redacted]";

/// Deepest nesting that is searched for fields.
const DEPTH: usize = 4;

/// Most fields of one request.
const MOST_FIELDS: usize = 64;

/// Longest value of a dimension, in bytes.
const MOST_BYTES: usize = 64;

/// Integers up to this magnitude are values of their own; other numbers are grouped into ranges.
const SMALL: f64 = 20.0;

/// The fields of a request body with one value each: `None` if the body is not whole JSON. Input tensors have their names, other fields
/// their path. The first item of a list counts. Redacted values are left out.
pub(crate) fn of_request(body: &str) -> Option<BTreeMap<String, String>> {
    let body: Value = serde_json::from_str(body).ok()?;
    let mut fields = BTreeMap::new();
    if let Some(inputs) = body["inputs"].as_array() {
        for input in inputs {
            if let Some(name) = input["name"].as_str() {
                walk(first(&input["data"]), name, 0, &mut fields);
            }
        }
        walk(&body["parameters"], "parameters", 1, &mut fields);
    } else {
        walk(&body, "", 0, &mut fields);
    }
    Some(fields)
}

/// The innermost first item of nested lists.
fn first(mut value: &Value) -> &Value {
    while let Some(item) = value.as_array().and_then(|items| items.first()) {
        value = item;
    }
    value
}

fn walk(value: &Value, path: &str, depth: usize, into: &mut BTreeMap<String, String>) {
    if depth > DEPTH || into.len() >= MOST_FIELDS {
        return;
    }
    match value {
        Value::Object(fields) => {
            for (name, field) in fields {
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                walk(field, &path, depth + 1, into);
            }
        }
        Value::Array(_) => {
            let item = first(value);
            if !item.is_array() {
                walk(item, path, depth + 1, into);
            }
        }
        _ => {
            if let Some(text) = text_of(value) {
                into.insert(path.to_owned(), text);
            }
        }
    }
}

fn text_of(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => (text != REDACTED && text.len() <= MOST_BYTES).then(|| text.clone()),
        Value::Bool(flag) => Some(flag.to_string()),
        Value::Number(number) => number.as_f64().and_then(range),
        _ => None,
    }
}

/// A number as the value of a dimension: itself, or a range of the series 1, 2, 5, 10 ... with its lower end included.
pub(crate) fn range(number: f64) -> Option<String> {
    if !number.is_finite() {
        return None;
    }
    if number.fract() == 0.0 && number.abs() <= SMALL {
        return Some(format!("{}", number + 0.0));
    }
    let size = number.abs();
    let decade = libm::floor(libm::log10(size)) as i32;
    let power = libm::pow(10.0, f64::from(decade));
    let (low, high) = match size / power {
        lead if lead < 2.0 => (power, 2.0 * power),
        lead if lead < 5.0 => (2.0 * power, 5.0 * power),
        _ => (5.0 * power, 10.0 * power),
    };
    let text = |edge: f64| serin_kinds::significant(edge, 2);
    Some(if number > 0.0 {
        format!("{}..{}", text(low), text(high))
    } else {
        format!("-{}..-{}", text(high), text(low))
    })
}

/// The text of one field of a request as the router reads it: `Ok(None)` if the request does not have it, an error if that is not known.
pub(crate) fn read(body: &str, at: &Place<'_>) -> Result<Option<String>, Unknown> {
    let body: Value = serde_json::from_str(body).map_err(|_| Unknown)?;
    let found = match at {
        Place::Pointer(pointer) => body.pointer(pointer).cloned(),
        Place::Input(name) => {
            let inputs = body["inputs"].as_array();
            let input = inputs.and_then(|inputs| inputs.iter().find(|input| input["name"] == **name));
            input.map(|input| first(&input["data"]).clone())
        }
        Place::Parameter(name) => body["parameters"].get(*name).cloned(),
    };
    match found {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) if text == REDACTED => Err(Unknown),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(value) => Ok(Some(value.to_string())),
    }
}

/// Where a value is in a request body.
pub(crate) enum Place<'a> {
    /// A JSON pointer.
    Pointer(&'a str),
    /// An input tensor.
    Input(&'a str),
    /// A parameter.
    Parameter(&'a str),
}

/// A value that was redacted or cut off.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Unknown;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tensors_have_their_names_and_other_fields_their_path() {
        let body = r#"{"inputs":[{"name":"origin","data":[["LGA"]]},{"name":"card","data":"[redacted]"},{"name":"amount","data":[230.5, 7]}],
            "parameters":{"tier":"gold"}}"#;
        let fields = of_request(body).unwrap();
        let pairs: Vec<_> = fields.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        assert_eq!(pairs, [("amount", "200..500"), ("origin", "LGA"), ("parameters.tier", "gold")]);
        let fields = of_request(r#"{"instances":[{"user":{"plan":"free"},"hour":7,"vip":true}]}"#).unwrap();
        let pairs: Vec<_> = fields.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        assert_eq!(pairs, [("instances.hour", "7"), ("instances.user.plan", "free"), ("instances.vip", "true")]);
        assert_eq!(of_request(r#"{"inputs":[{"name":"ori…"#), None);
        let deep = "[".repeat(10) + "1" + &"]".repeat(10);
        assert_eq!(of_request(&deep).unwrap().len(), 1);
    }

    #[test]
    fn numbers_are_grouped_into_ranges() {
        let texts = [0.0, -0.0, 7.0, 21.0, 0.5, 0.034, -230.0, 1e300].map(|number| range(number).unwrap());
        assert_eq!(texts, ["0", "0", "7", "20..50", "0.5..1", "0.02..0.05", "-500..-200", "1.0e300..2.0e300"]);
        assert_eq!([f64::NAN, f64::INFINITY].map(range), [None, None]);
    }

    #[test]
    fn a_redacted_value_is_not_known() {
        let body = r#"{"inputs":[{"name":"origin","data":["LGA"]},{"name":"card","data":"[redacted]"}],"a":{"b":3}}"#;
        assert_eq!(read(body, &Place::Input("origin")), Ok(Some("LGA".to_owned())));
        assert_eq!(read(body, &Place::Input("card")), Err(Unknown));
        assert_eq!(read(body, &Place::Pointer("/a/b")), Ok(Some("3".to_owned())));
        assert_eq!(read(body, &Place::Parameter("x")), Ok(None));
        assert_eq!(read("{", &Place::Parameter("x")), Err(Unknown));
    }
}
