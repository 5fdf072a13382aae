//! Reads the outputs of a model server's answer: the Open Inference Protocol V2, `KServe`'s V1, and Seldon's own protocol.

use std::collections::BTreeMap;

use serde_json::Value;
use serin_schemas::{
    foreign::{LONGEST_TEXT, MOST_VALUES, json},
    records::Batch,
};

use crate::rules::number;

/// What an answer contains.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Payload {
    /// The numbers of the drawn row, by output.
    pub(crate) outputs: BTreeMap<String, f64>,
    /// The strings of the drawn row, by output.
    pub(crate) classes: BTreeMap<String, String>,
    /// The rows, if there are several.
    pub(crate) batch: Option<Batch>,
    /// Why the answer cannot be used: `unparsable`, `empty`, `null` or `nan`.
    pub(crate) invalid: Option<&'static str>,
    /// Why the answer was not read: `content_type`.
    pub(crate) unread: Option<&'static str>,
}

/// A body as JSON. `None` if its content type says that it is something else, such as binary tensors.
pub(crate) fn parse(body: &[u8], content_type: &str) -> Option<Result<Value, &'static str>> {
    let kind = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let may_be_json = kind.is_empty() || kind.contains("json") || kind.starts_with("text/");
    let looks_like_json = matches!(body.trim_ascii_start().first(), Some(b'{' | b'['));
    if body.trim_ascii().is_empty() {
        return Some(Err("empty"));
    }
    (may_be_json || looks_like_json).then(|| json::parse(body).map_err(|_| "unparsable"))
}

/// The outputs of an answer to the call with this id.
pub(crate) fn read(answer: Option<&Result<Value, &'static str>>, request_id: &str) -> Payload {
    match answer {
        None => Payload { unread: Some("content_type"), ..Payload::default() },
        Some(Err(why)) => Payload { invalid: Some(why), ..Payload::default() },
        Some(Ok(answer)) => {
            let columns = columns(answer);
            let rows = columns.iter().map(|(_, values)| values.len()).max().unwrap_or(0);
            let mut payload = Payload { invalid: columns.is_empty().then_some("empty"), ..Payload::default() };
            let drawn = Batch::drawn(request_id, rows);
            let mut means = BTreeMap::new();
            for (name, values) in columns.into_iter().take(MOST_VALUES) {
                payload.add(&name, &values, if values.len() == rows { drawn } else { 0 });
                let numbers: Vec<f64> = values.iter().filter_map(|value| number(value)).collect();
                if values.len() > 1 && values.len() == rows && !numbers.is_empty() {
                    means.insert(name, numbers.iter().sum::<f64>() / numbers.len() as f64);
                }
            }
            if rows > 1 {
                let of = |rows: usize| i32::try_from(rows).unwrap_or(i32::MAX);
                payload.batch = Some(Batch { rows: of(rows), row: of(drawn), means });
            }
            payload
        }
    }
}

impl Payload {
    fn add(&mut self, name: &str, values: &[&Value], row: usize) {
        if name.is_empty() || name.len() > LONGEST_TEXT {
            return;
        }
        match values.get(row) {
            Some(Value::Null) => self.invalid = self.invalid.or(Some("null")),
            Some(value @ (Value::Number(_) | Value::Bool(_))) => {
                if let Some(number) = number(value) {
                    self.outputs.insert(name.to_owned(), number);
                }
            }
            Some(Value::String(text)) if matches!(text.as_str(), "NaN" | "Infinity" | "-Infinity") => {
                self.invalid = self.invalid.or(Some("nan"));
            }
            Some(Value::String(text)) if text.len() <= LONGEST_TEXT => {
                self.classes.insert(name.to_owned(), text.clone());
            }
            // A long text or a nested value is not an output. A list without values is one that found nothing.
            None | Some(_) => {}
        }
    }
}

/// The values of each output, by row.
fn columns(answer: &Value) -> Vec<(String, Vec<&Value>)> {
    let seldon = answer.get("data").filter(|data| data.is_object());
    match (answer.get("outputs"), answer.get("predictions"), seldon) {
        (Some(Value::Array(tensors)), ..) => tensors.iter().filter_map(tensor).collect(),
        // `TensorFlow` Serving's column format.
        (Some(Value::Object(columns)), ..) => {
            columns.iter().map(|(name, column)| (name.clone(), rows_of(column))).collect()
        }
        (_, Some(Value::Array(rows)), _) => predictions(rows),
        (.., Some(data)) => message(data),
        _ => match (answer.get("jsonData"), answer.get("strData")) {
            (Some(value), _) if is_hollow(value) => Vec::new(),
            (Some(Value::Object(fields)), _) => {
                fields.iter().map(|(name, value)| (name.clone(), vec![first(value)])).collect()
            }
            (Some(value), _) | (None, Some(value)) => vec![("output".to_owned(), vec![first(value)])],
            (None, None) => Vec::new(),
        },
    }
}

/// The name and the rows of a tensor. Its first dimension is its rows, if the data fits its shape.
fn tensor(tensor: &Value) -> Option<(String, Vec<&Value>)> {
    let name = tensor.get("name")?.as_str()?;
    let data = tensor.get("data")?.as_array()?;
    let shape = tensor.get("shape").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let rows = shape.first().and_then(side);
    if data.is_empty() && shape.iter().all(|length| side(length) != Some(0)) {
        // Its shape says that it has values.
        return Some((name.to_owned(), vec![&Value::Null]));
    }
    let stride = rows.filter(|rows| *rows > 0 && data.len().is_multiple_of(*rows)).map(|rows| data.len() / rows);
    let values: Vec<&Value> = match stride {
        Some(stride) if stride > 0 => data.iter().step_by(stride).map(first).collect(),
        _ => data.first().map(first).into_iter().collect(),
    };
    Some((name.to_owned(), values))
}

/// The rows of V1: scalars are the output `prediction`, members of objects are outputs.
fn predictions(rows: &[Value]) -> Vec<(String, Vec<&Value>)> {
    if rows.iter().all(is_hollow) {
        return Vec::new();
    }
    let Some(Value::Object(members)) = rows.first() else {
        return vec![("prediction".to_owned(), rows.iter().map(first).collect())];
    };
    let column = |name: &String| rows.iter().map(|row| row.get(name).map_or(&Value::Null, first)).collect();
    members.keys().map(|name| (name.clone(), column(name))).collect()
}

/// The columns of Seldon's `data`: `names` with `ndarray` or `tensor`.
fn message(data: &Value) -> Vec<(String, Vec<&Value>)> {
    let names: Vec<&str> =
        data.get("names").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect();
    let flat: Vec<&Value>;
    let (rows, width): (Vec<Vec<&Value>>, usize) = if let Some(Value::Array(rows)) = data.get("ndarray") {
        let rows: Vec<Vec<&Value>> = rows
            .iter()
            .map(|row| match row {
                Value::Array(items) => items.iter().map(first).collect(),
                scalar => vec![scalar],
            })
            .collect();
        let width = rows.first().map_or(0, Vec::len);
        (rows, width)
    } else {
        let tensor = data.get("tensor");
        flat = tensor.and_then(|tensor| tensor.get("values")?.as_array()).into_iter().flatten().collect();
        let shape = tensor.and_then(|tensor| tensor.get("shape")?.as_array());
        let width = match shape.map(Vec::as_slice) {
            Some([_, columns, ..]) => side(columns).unwrap_or(1),
            _ => 1,
        };
        (flat.chunks(width.max(1)).map(<[&Value]>::to_vec).collect(), width.max(1))
    };
    if rows.is_empty() {
        return Vec::new();
    }
    let name = |column: usize| match names.get(column) {
        Some(name) => (*name).to_owned(),
        None if width == 1 => "output".to_owned(),
        None => format!("output_{column}"),
    };
    let column = |column: usize| rows.iter().map(|row| row.get(column).copied().unwrap_or(&Value::Null)).collect();
    (0..width.min(MOST_VALUES)).map(|index| (name(index), column(index))).collect()
}

fn rows_of(column: &Value) -> Vec<&Value> {
    match column {
        Value::Array(rows) => rows.iter().map(first).collect(),
        scalar => vec![scalar],
    }
}

/// A side of a shape, in every spelling of a whole number: `2`, `2.0`, `"2"`.
fn side(side: &Value) -> Option<usize> {
    let whole = number(side).filter(|side| side.fract() == 0.0 && (0.0..1e15).contains(side))?;
    usize::try_from(whole as u64).ok()
}

/// Whether a list or an object contains nothing.
fn is_hollow(value: &Value) -> bool {
    match value {
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        _ => false,
    }
}

/// The first scalar of nested lists; an empty list is returned as it is.
fn first(mut value: &Value) -> &Value {
    while let Value::Array(items) = value {
        match items.first() {
            Some(item) => value = item,
            None => return value,
        }
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(body: &str) -> Payload {
        read(parse(body.as_bytes(), "application/json").as_ref(), "call-1")
    }

    #[test]
    fn outputs_of_every_protocol() {
        let number = |body: &str, name: &str| of(body).outputs.get(name).copied();
        let v2 = r#"{"model_name":"m","outputs":[{"name":"score","shape":[1,1],"datatype":"FP64","data":[0.5]}]}"#;
        assert_eq!(number(v2, "score"), Some(0.5));
        assert_eq!(number(r#"{"predictions":[0.5]}"#, "prediction"), Some(0.5));
        assert_eq!(number(r#"{"predictions":[{"score":0.5,"label":"a"}]}"#, "score"), Some(0.5));
        assert_eq!(number(r#"{"outputs":{"score":[[0.5]]}}"#, "score"), Some(0.5));
        assert_eq!(number(r#"{"data":{"names":["p0","p1"],"ndarray":[[0.4,0.6]]}}"#, "p1"), Some(0.6));
        assert_eq!(number(r#"{"data":{"tensor":{"shape":[1,2],"values":[0.4,0.6]}}}"#, "output_1"), Some(0.6));
        assert_eq!(number(r#"{"jsonData":{"score":1}}"#, "score"), Some(1.0));
        assert_eq!(of(r#"{"strData":"fraud"}"#).classes["output"], "fraud");
        assert_eq!(of(r#"{"predictions":["fraud"]}"#).classes["prediction"], "fraud");
    }

    #[test]
    fn rows_have_means_and_the_drawn_row() {
        let data: Vec<usize> = (0..64).collect();
        let drawn = Batch::drawn("call-1", 64);
        for body in [
            format!(r#"{{"outputs":[{{"name":"p","shape":[64],"data":{data:?}}}]}}"#),
            format!(r#"{{"outputs":{{"p":{data:?}}}}}"#),
            format!(r#"{{"data":{{"names":["p"],"tensor":{{"shape":[64,1],"values":{data:?}}}}}}}"#),
        ] {
            let payload = of(&body);
            assert_eq!(payload.outputs.get("p"), Some(&(drawn as f64)), "{body}");
            let batch = payload.batch.unwrap_or_else(|| panic!("{body}"));
            assert_eq!((batch.rows, batch.row, batch.means.get("p")), (64, drawn as i32, Some(&31.5)));
        }
    }

    #[test]
    fn answers_that_cannot_be_used_or_read() {
        for (body, why) in [
            ("", "empty"),
            ("  ", "empty"),
            ("{", "unparsable"),
            ("\u{fffd}", "unparsable"),
            ("{}", "empty"),
            ("7", "empty"),
            (r#"{"outputs":[]}"#, "empty"),
            (r#"{"predictions":[null]}"#, "null"),
            (r#"{"predictions":[NaN]}"#, "null"),
            (r#"{"outputs":[{"name":"p","shape":[1],"data":["NaN"]}]}"#, "nan"),
            (r#"{"predictions":[[]]}"#, "empty"),
            (r#"{"predictions":[[],{}]}"#, "empty"),
            (r#"{"predictions":[{"score":null}]}"#, "null"),
            (r#"{"outputs":{}}"#, "empty"),
            (r#"{"outputs":[{"name":"p","shape":[1],"data":[]}]}"#, "null"),
            (r#"{"data":{"ndarray":[]}}"#, "empty"),
            (r#"{"data":{"tensor":{"shape":[0,2],"values":[]}}}"#, "empty"),
            (r#"{"jsonData":[]}"#, "empty"),
        ] {
            assert_eq!(of(body).invalid, Some(why), "{body}");
        }
        let binary = parse(b"\x01\x02", "application/octet-stream");
        assert_eq!(read(binary.as_ref(), "a").unread, Some("content_type"));
        let many: Vec<String> = (0..1000).map(|n| format!(r#""o{n}":1"#)).collect();
        assert_eq!(of(&format!(r#"{{"predictions":[{{{}}}]}}"#, many.join(","))).outputs.len(), MOST_VALUES);
        // A shape that does not fit is read as one row.
        let unfit = of(r#"{"outputs":[{"name":"p","shape":[7],"data":[1,2]}]}"#);
        assert_eq!(unfit.outputs.get("p"), Some(&1.0));
    }

    #[test]
    fn a_detector_may_find_nothing() {
        for body in [
            r#"{"outputs":[{"name":"boxes","shape":[0,4],"data":[]}]}"#,
            r#"{"outputs":[{"name":"boxes","shape":[2,0],"data":[[],[]]}]}"#,
            r#"{"outputs":[{"name":"boxes","shape":["0",4],"data":[]}]}"#,
            r#"{"outputs":{"boxes":[]}}"#,
            r#"{"predictions":[{"boxes":[],"scores":[]}]}"#,
            r#"{"jsonData":{"boxes":[]}}"#,
        ] {
            assert_eq!(of(body), Payload { batch: of(body).batch, ..Payload::default() }, "{body}");
        }
        let both =
            of(r#"{"outputs":[{"name":"boxes","shape":[0,4],"data":[]},{"name":"n","shape":[1.0],"data":[0]}]}"#);
        assert_eq!((both.outputs.get("n"), both.invalid, both.batch), (Some(&0.0), None, None));
    }
}
