//! Converts tensors in other encodings to JSON, so that one set of rules reads all encodings.
//!
//! The binary tensor extension has raw values after the JSON part; gRPC has typed lists or raw values. Both become `{"inputs": [{"name",
//! "datatype", "shape", "data"}]}`. Values that cannot be read are omitted, so rules do not find them.

use std::ops::Range;

use serde_json::{Map, Value, json};

use crate::protocol::{
    Unread,
    asks::Asks,
    grpc::{FieldValue, PREFIX, field, first_message, put_varint, read_varint},
    rows::{self, Start},
};

/// Converts a body of the binary tensor extension, whose first `json` bytes are JSON.
pub(super) fn of_binary(body: &[u8], json: usize, parse: impl Fn(&[u8]) -> Option<Value>) -> Option<Value> {
    let (head, mut rest) = body.split_at_checked(json)?;
    let mut value = parse(head)?;
    for list in ["inputs", "outputs"] {
        let Some(Value::Array(tensors)) = value.get_mut(list) else { continue };
        for tensor in tensors {
            // An output that a request asks for has no data.
            let Some(size) = tensor.pointer("/parameters/binary_data_size").and_then(Value::as_u64) else { continue };
            let (raw, left) = rest.split_at_checked(usize::try_from(size).ok()?)?;
            rest = left;
            put_raw(tensor, raw);
        }
    }
    Some(value)
}

/// Maximum number of tensors of a request that are read.
const MOST_TENSORS: usize = 4096;
/// Maximum number of bytes read of the values of one tensor. Rules ask for the first values.
const TENSOR_BYTES: usize = 4 << 10;
/// Longest text of a tensor that is read.
const TEXT_BYTES: usize = 64 << 10;
/// Maximum number of bytes that are read in total.
const MOST_BYTES: usize = 1 << 20;

/// Converts the first message of a request with only the first values of its tensors, whatever its size.
pub(super) fn first_values_of_grpc(body: &[u8]) -> Result<Option<Value>, Unread> {
    let whole = first_message(body).and_then(|end| body.get(PREFIX..end)).filter(|_| body[0] == 0);
    let message = whole.ok_or(Unread::NotJson)?;
    let (mut at, mut tensors, mut lean) = (0, 0, Vec::new());
    while at < message.len() {
        let found = field(message, at).ok_or(Unread::NotJson)?;
        tensors += usize::from(found.number == 5 || found.number == 7);
        if tensors > MOST_TENSORS || lean.len() > MOST_BYTES {
            return Err(Unread::TooLong);
        }
        match (found.number, found.value) {
            (5, FieldValue::Bytes(tensor)) if tensor.len() > TENSOR_BYTES => {
                put_bytes(5, &lean_tensor(tensor).ok_or(Unread::NotJson)?, &mut lean);
            }
            (7, FieldValue::Bytes(raw)) => put_bytes(7, &raw[..raw.len().min(first_values(raw))], &mut lean),
            _ if found.end - at > MOST_BYTES => return Err(Unread::TooLong),
            _ => lean.extend_from_slice(&message[at..found.end]),
        }
        at = found.end;
    }
    infer_message(&lean).map(Some).ok_or(Unread::NotJson)
}

/// The drawn row of the first message of a request: its requested tensors, each with the first values of this row. `None`: no requested
/// tensor has several rows, or the message cannot be read.
pub(super) fn row_of_grpc(body: &[u8], asks: &Asks, request_id: &str) -> Option<Value> {
    let message = body.get(PREFIX..first_message(body)?)?;
    let (mut at, mut tensors, mut raw) = (0, Vec::new(), Vec::new());
    while at < message.len() {
        let found = field(message, at)?;
        at = found.end;
        match (found.number, found.value) {
            (5, FieldValue::Bytes(bytes)) => tensors.push(bytes),
            (7, FieldValue::Bytes(bytes)) => raw.push(bytes),
            _ => {}
        }
    }
    let (mut any, mut inputs) = (false, Vec::with_capacity(tensors.len()));
    for (index, bytes) in tensors.iter().enumerate() {
        let (mut tensor, contents) = head_of_tensor(bytes)?;
        let name = tensor.get("name").and_then(Value::as_str);
        let rows = rows::of_tensor(&tensor).filter(|_| asks.wants_tensor("inputs", index, name)).unwrap_or_default();
        let raw = raw.get(index).filter(|_| raw.len() == tensors.len());
        let row = match raw {
            Some(raw) => raw_of_row(&tensor, raw, rows, request_id),
            None => contents.and_then(|contents| contents_of_row(contents, rows, request_id)),
        };
        any |= row.is_some();
        if let Some(row) = row {
            tensor["data"] = Value::Array(row);
        }
        inputs.push(tensor);
    }
    any.then(|| json!({ "inputs": inputs }))
}

/// A tensor without its values, and its typed values.
fn head_of_tensor(bytes: &[u8]) -> Option<(Value, Option<&[u8]>)> {
    let (mut at, mut head, mut contents) = (0, Vec::new(), None);
    while at < bytes.len() {
        let found = field(bytes, at)?;
        match (found.number, found.value) {
            (5, FieldValue::Bytes(found)) => contents = Some(found),
            _ => head.extend_from_slice(&bytes[at..found.end]),
        }
        at = found.end;
    }
    Some((tensor(&head)?, contents))
}

/// Maximum number of values of a row that are read.
const ROW_VALUES: usize = TENSOR_BYTES / 8;

/// The first of these places.
fn first_of(row: Start) -> Range<usize> {
    let row = row.range();
    row.start..row.end.min(row.start + ROW_VALUES)
}

/// The drawn row of raw values; `None` if they do not have several rows.
fn raw_of_row(tensor: &Value, raw: &[u8], rows: usize, request_id: &str) -> Option<Vec<Value>> {
    let datatype = tensor.get("datatype").and_then(Value::as_str).unwrap_or_default();
    if datatype == "BYTES" {
        return texts_of_row(raw, rows, request_id);
    }
    let row = Start::drawn(request_id, rows, raw.len())?.range();
    match raw_values(datatype, &raw[row.start..row.end.min(row.start + TENSOR_BYTES)])? {
        Value::Array(values) => Some(values),
        _ => None,
    }
}

/// The drawn row of raw strings; `None` if they do not have several rows.
pub(super) fn texts_of_row(raw: &[u8], rows: usize, request_id: &str) -> Option<Vec<Value>> {
    let row = first_of(Start::drawn(request_id, rows, each_text(raw).count())?);
    Some(each_text(raw).skip(row.start).take(row.len()).map(text).collect())
}

/// The drawn row of typed values; `None` if they do not have several rows.
fn contents_of_row(contents: &[u8], rows: usize, request_id: &str) -> Option<Vec<Value>> {
    let row = first_of(Start::drawn(request_id, rows, count(contents)?)?);
    let (mut at, mut place, mut values) = (0, 0, Vec::new());
    while at < contents.len() && place < row.end {
        let found = field(contents, at)?;
        let packed = match (found.number, found.value) {
            (1..=5, FieldValue::Bytes(packed)) => packed,
            (6 | 7, FieldValue::Bytes(packed)) => {
                // Values of one size: only those of the row are read.
                let size = if found.number == 6 { 4 } else { 8 };
                let (len, skip) = (packed.len() / size, row.start.saturating_sub(place));
                let part = packed.get(skip.min(len) * size..(row.end - place).min(len) * size)?;
                let mut field = Vec::new();
                put_bytes(found.number, part, &mut field);
                self::contents(&field, &mut values)?;
                place += len;
                at = found.end;
                continue;
            }
            _ => {
                if row.contains(&place) {
                    self::contents(&contents[at..found.end], &mut values)?;
                }
                place += 1;
                at = found.end;
                continue;
            }
        };
        let mut from = 0;
        while let Some((_, next)) = read_varint(packed, from) {
            if row.contains(&place) {
                let mut field = Vec::new();
                put_bytes(found.number, &packed[from..next], &mut field);
                self::contents(&field, &mut values)?;
            }
            place += 1;
            from = next;
        }
        at = found.end;
    }
    Some(values)
}

/// Number of typed values.
fn count(contents: &[u8]) -> Option<usize> {
    let (mut at, mut count) = (0, 0);
    while at < contents.len() {
        let found = field(contents, at)?;
        at = found.end;
        count += match (found.number, found.value) {
            // The last byte of each number has no continuation bit.
            (1..=5, FieldValue::Bytes(packed)) => packed.iter().filter(|byte| **byte & 0x80 == 0).count(),
            (6, FieldValue::Bytes(packed)) => packed.len() / 4,
            (7, FieldValue::Bytes(packed)) => packed.len() / 8,
            _ => 1,
        };
    }
    Some(count)
}

/// Number of bytes of raw values that are read. The first value may be a string with a length prefix.
fn first_values(raw: &[u8]) -> usize {
    let text = raw.first_chunk::<4>().map_or(0, |length| u32::from_le_bytes(*length) as usize);
    if text <= TEXT_BYTES { TENSOR_BYTES.max(text + 4) } else { TENSOR_BYTES }
}

/// A large tensor reduced to the first of its values.
fn lean_tensor(tensor: &[u8]) -> Option<Vec<u8>> {
    let (mut at, mut lean) = (0, Vec::new());
    while at < tensor.len() {
        let found = field(tensor, at)?;
        match (found.number, found.value) {
            (5, FieldValue::Bytes(contents)) => put_bytes(5, &lean_contents(contents)?, &mut lean),
            _ if found.end - at <= TENSOR_BYTES => lean.extend_from_slice(&tensor[at..found.end]),
            _ => {}
        }
        at = found.end;
    }
    Some(lean)
}

fn lean_contents(contents: &[u8]) -> Option<Vec<u8>> {
    let (mut at, mut lean) = (0, Vec::new());
    while at < contents.len() && lean.len() <= TENSOR_BYTES {
        let found = field(contents, at)?;
        match (found.number, found.value) {
            // In a packed list the cut may split a number, which is then omitted. Fixed-size values stay complete at multiples of 8.
            (1..=7, FieldValue::Bytes(packed)) => {
                let mut length = packed.len().min(TENSOR_BYTES / 8 * 8);
                while length < packed.len() && length > 0 && found.number < 6 && packed[length - 1] & 0x80 != 0 {
                    length -= 1;
                }
                put_bytes(found.number, &packed[..length], &mut lean);
            }
            (8, FieldValue::Bytes(text)) => put_bytes(8, &text[..text.len().min(TEXT_BYTES)], &mut lean),
            _ => lean.extend_from_slice(&contents[at..found.end]),
        }
        at = found.end;
    }
    Some(lean)
}

fn put_bytes(number: u64, bytes: &[u8], out: &mut Vec<u8>) {
    put_varint(number << 3 | 2, out);
    put_varint(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}

/// Converts a request or an answer. Both have tensors in field 5; raw values are in field 7 of a request and in field 6 of an answer. Field
/// 6 distinguishes them: the requested outputs of a request are messages with a name. The result therefore has both lists, `inputs` and
/// `outputs`.
pub(crate) fn infer_message(message: &[u8]) -> Option<Value> {
    let (mut tensors, mut raw_of_answer, mut raw_of_request) = (Vec::new(), Vec::new(), Vec::new());
    let mut value = Map::new();
    let mut parameters = Map::new();
    let mut at = 0;
    while at < message.len() {
        let found = field(message, at)?;
        at = found.end;
        let FieldValue::Bytes(bytes) = found.value else { continue };
        match found.number {
            1 => drop(value.insert("model_name".to_owned(), text(bytes))),
            2 => drop(value.insert("model_version".to_owned(), text(bytes))),
            3 => drop(value.insert("id".to_owned(), text(bytes))),
            4 => drop(parameter(bytes).map(|(name, found)| parameters.insert(name, found))),
            5 => tensors.push(tensor(bytes)?),
            6 => raw_of_answer.push(bytes),
            7 => raw_of_request.push(bytes),
            _ => {}
        }
    }
    let raw = if raw_of_request.is_empty() { raw_of_answer } else { raw_of_request };
    if raw.len() == tensors.len() {
        for (tensor, raw) in tensors.iter_mut().zip(raw) {
            put_raw(tensor, raw);
            if tensor.get("data").is_none() && !raw.is_empty() {
                // As in JSON, the size shows that there are values of an unknown datatype.
                tensor["parameters"]["binary_data_size"] = json!(raw.len());
            }
        }
    }
    if !parameters.is_empty() {
        value.insert("parameters".to_owned(), Value::Object(parameters));
    }
    value.insert("inputs".to_owned(), Value::Array(tensors.clone()));
    value.insert("outputs".to_owned(), Value::Array(tensors));
    Some(Value::Object(value))
}

fn text(bytes: &[u8]) -> Value {
    Value::String(String::from_utf8_lossy(bytes).into_owned())
}

/// An entry of a map of parameters.
fn parameter(entry: &[u8]) -> Option<(String, Value)> {
    let (mut name, mut found, mut at) = (None, None, 0);
    while at < entry.len() {
        let part = field(entry, at)?;
        at = part.end;
        match (part.number, part.value) {
            (1, FieldValue::Bytes(bytes)) => name = String::from_utf8(bytes.to_vec()).ok(),
            (2, FieldValue::Bytes(bytes)) => found = field(bytes, 0),
            _ => {}
        }
    }
    let found = found?;
    let value = match (found.number, found.value) {
        (1, FieldValue::Varint(yes)) => Value::Bool(yes != 0),
        (2, FieldValue::Varint(number)) => json!(number as i64),
        (5, FieldValue::Varint(number)) => json!(number),
        (3, FieldValue::Bytes(bytes)) => text(bytes),
        (4, FieldValue::Fixed64(bytes)) => json!(f64::from_le_bytes(bytes)),
        _ => return None,
    };
    Some((name?, value))
}

/// Stores raw values in a tensor. Values of an unknown datatype are omitted.
fn put_raw(tensor: &mut Value, raw: &[u8]) {
    let datatype = tensor.get("datatype").and_then(Value::as_str).unwrap_or_default();
    if let Some(values) = raw_values(datatype, raw) {
        tensor["data"] = values;
    }
}

/// Reads a tensor: name 1, datatype 2, shape 3, parameters 4, contents 5. Without contents it has no data.
fn tensor(bytes: &[u8]) -> Option<Value> {
    let (mut name, mut datatype, mut shape, mut data) = (Value::Null, Value::Null, Vec::new(), None);
    let mut parameters = Map::new();
    let mut at = 0;
    while at < bytes.len() {
        let found = field(bytes, at)?;
        at = found.end;
        match (found.number, found.value) {
            (1, FieldValue::Bytes(bytes)) => name = text(bytes),
            (2, FieldValue::Bytes(bytes)) => datatype = text(bytes),
            (3, FieldValue::Bytes(packed)) => packed_varints(packed, |number| shape.push(json!(number as i64))),
            (3, FieldValue::Varint(number)) => shape.push(json!(number as i64)),
            (4, FieldValue::Bytes(bytes)) => drop(parameter(bytes).map(|(name, found)| parameters.insert(name, found))),
            (5, FieldValue::Bytes(bytes)) => contents(bytes, data.get_or_insert_default())?,
            _ => {}
        }
    }
    let mut tensor = json!({"name": name, "datatype": datatype, "shape": shape});
    if let Some(data) = data {
        tensor["data"] = Value::Array(data);
    }
    if !parameters.is_empty() {
        tensor["parameters"] = Value::Object(parameters);
    }
    Some(tensor)
}

/// Reads typed values: bool 1, int 2 and 3, uint 4 and 5, fp32 6, fp64 7, bytes 8.
fn contents(bytes: &[u8], data: &mut Vec<Value>) -> Option<()> {
    let mut at = 0;
    while at < bytes.len() {
        let found = field(bytes, at)?;
        at = found.end;
        let varint = |number: u64| match found.number {
            1 => Value::Bool(number != 0),
            2 | 3 => json!(number as i64),
            _ => json!(number),
        };
        match (found.number, found.value) {
            (1..=5, FieldValue::Varint(number)) => data.push(varint(number)),
            (1..=5, FieldValue::Bytes(packed)) => packed_varints(packed, |number| data.push(varint(number))),
            (6, FieldValue::Fixed32(bytes)) => data.push(float(f64::from(f32::from_le_bytes(bytes)))),
            (7, FieldValue::Fixed64(bytes)) => data.push(float(f64::from_le_bytes(bytes))),
            (6, FieldValue::Bytes(packed)) => {
                data.extend(numbers(packed, |bytes| float(f64::from(f32::from_le_bytes(bytes)))));
            }
            (7, FieldValue::Bytes(packed)) => data.extend(numbers(packed, |bytes| float(f64::from_le_bytes(bytes)))),
            (8, FieldValue::Bytes(bytes)) => data.push(text(bytes)),
            _ => {}
        }
    }
    Some(())
}

fn packed_varints(packed: &[u8], mut each: impl FnMut(u64)) {
    let mut at = 0;
    while let Some((number, next)) = read_varint(packed, at) {
        each(number);
        at = next;
    }
}

/// Reads raw values in the protocol's layout: little-endian without gaps; strings with a length prefix. `None` for an unknown datatype.
pub(super) fn raw_values(datatype: &str, raw: &[u8]) -> Option<Value> {
    let values: Vec<Value> = match datatype {
        "BOOL" => raw.iter().map(|&byte| Value::Bool(byte != 0)).collect(),
        "UINT8" => raw.iter().map(|&byte| json!(byte)).collect(),
        "INT8" => raw.iter().map(|&byte| json!(byte as i8)).collect(),
        "UINT16" => numbers(raw, |bytes| json!(u16::from_le_bytes(bytes))).collect(),
        "INT16" => numbers(raw, |bytes| json!(i16::from_le_bytes(bytes))).collect(),
        "UINT32" => numbers(raw, |bytes| json!(u32::from_le_bytes(bytes))).collect(),
        "INT32" => numbers(raw, |bytes| json!(i32::from_le_bytes(bytes))).collect(),
        "UINT64" => numbers(raw, |bytes| json!(u64::from_le_bytes(bytes))).collect(),
        "INT64" => numbers(raw, |bytes| json!(i64::from_le_bytes(bytes))).collect(),
        "FP16" => numbers(raw, |bytes| float(half(u16::from_le_bytes(bytes)))).collect(),
        "BF16" => {
            numbers(raw, |bytes: [u8; 2]| float(f64::from(f32::from_le_bytes([0, 0, bytes[0], bytes[1]])))).collect()
        }
        "FP32" => numbers(raw, |bytes| float(f64::from(f32::from_le_bytes(bytes)))).collect(),
        "FP64" => numbers(raw, |bytes| float(f64::from_le_bytes(bytes))).collect(),
        "BYTES" => texts(raw),
        _ => return None,
    };
    Some(Value::Array(values))
}

fn numbers<const N: usize>(raw: &[u8], read: impl Fn([u8; N]) -> Value) -> impl Iterator<Item = Value> {
    raw.as_chunks::<N>().0.iter().map(move |bytes| read(*bytes))
}

/// A number; a non-finite number becomes a string, as `decode` converts such words in JSON.
fn float(number: f64) -> Value {
    let word = || match number {
        f64::INFINITY => "Infinity",
        f64::NEG_INFINITY => "-Infinity",
        _ => "NaN",
    };
    serde_json::Number::from_f64(number).map_or_else(|| word().into(), Value::Number)
}

/// Converts an IEEE 754 half-precision number.
fn half(bits: u16) -> f64 {
    let sign = if bits & 0x8000 == 0 { 1.0 } else { -1.0 };
    let fraction = f64::from(bits & 0x3ff) / 1024.0;
    match (bits >> 10) & 0x1f {
        0 => sign * fraction * 2_f64.powi(-14),
        31 if fraction == 0.0 => sign * f64::INFINITY,
        31 => f64::NAN,
        exponent => sign * (1.0 + fraction) * 2_f64.powi(i32::from(exponent) - 15),
    }
}

fn texts(raw: &[u8]) -> Vec<Value> {
    each_text(raw).map(text).collect()
}

/// Strings with length prefixes, up to one that is incomplete.
fn each_text(mut raw: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let (length, rest) = raw.split_first_chunk::<4>()?;
        let (bytes, rest) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
        raw = rest;
        Some(bytes)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::grpc::{framed, tests::text as put};
    use proptest::prelude::*;

    #[test]
    fn raw_values_of_every_datatype() {
        for (datatype, raw, expected) in [
            ("BOOL", vec![1, 0], json!([true, false])),
            ("UINT8", vec![255], json!([255])),
            ("INT8", vec![255], json!([-1])),
            ("INT16", vec![0xfe, 0xff], json!([-2])),
            ("UINT16", vec![1, 1], json!([257])),
            ("INT32", (-3_i32).to_le_bytes().to_vec(), json!([-3])),
            ("UINT32", 7_u32.to_le_bytes().to_vec(), json!([7])),
            ("INT64", (-4_i64).to_le_bytes().to_vec(), json!([-4])),
            ("UINT64", 8_u64.to_le_bytes().to_vec(), json!([8])),
            ("FP16", vec![0x00, 0x3c, 0x00, 0xc0, 0x01, 0x00], json!([1.0, -2.0, 2_f64.powi(-24)])),
            ("BF16", vec![0x80, 0x3f], json!([1.0])),
            ("FP32", [0.5_f32, f32::NAN].iter().flat_map(|number| number.to_le_bytes()).collect(), json!([0.5, "NaN"])),
            ("FP64", 0.25_f64.to_le_bytes().to_vec(), json!([0.25])),
            ("BYTES", b"\x03\0\0\0LGA\x01\0\0\0x\xff".to_vec(), json!(["LGA", "x"])),
            ("FP32", f32::NEG_INFINITY.to_le_bytes().to_vec(), json!(["-Infinity"])),
        ] {
            assert_eq!(raw_values(datatype, &raw), Some(expected), "{datatype}");
        }
        assert_eq!(raw_values("ODD", &[1]), None);
        assert_eq!((half(0x7c00), half(0xfc00)), (f64::INFINITY, f64::NEG_INFINITY));
        assert!(half(0x7e00).is_nan());
    }

    #[test]
    fn the_binary_extension() {
        let head = br#"{"outputs":[{"name":"a","datatype":"FP32","shape":[1],"data":[1]},
            {"name":"p","datatype":"FP64","shape":[2],"parameters":{"binary_data_size":16}}]}"#;
        let mut body = head.to_vec();
        body.extend_from_slice(&0.5_f64.to_le_bytes());
        body.extend_from_slice(&0.75_f64.to_le_bytes());
        let read = |body: &[u8], json| of_binary(body, json, |bytes| serde_json::from_slice(bytes).ok());
        let value = read(&body, head.len()).unwrap();
        assert_eq!(value.pointer("/outputs/1/data"), Some(&json!([0.5, 0.75])));
        assert_eq!(value.pointer("/outputs/0/data"), Some(&json!([1])));
        assert_eq!(read(&body, 9999), None);
        assert_eq!(read(&body[..body.len() - 1], head.len()), None);
    }

    fn tensor_message(name: &str, contents: Option<&[u8]>) -> Vec<u8> {
        let mut message = Vec::new();
        put(1, name.as_bytes(), &mut message);
        put(2, b"FP64", &mut message);
        put(3, &[2], &mut message);
        if let Some(contents) = contents {
            put(5, contents, &mut message);
        }
        message
    }

    #[test]
    fn grpc_messages_with_typed_and_raw_values() {
        let mut contents = Vec::new();
        put(7, &[0.5_f64, 0.75].map(f64::to_le_bytes).concat(), &mut contents);
        let mut answer = Vec::new();
        put(1, b"flights", &mut answer);
        put(4, &[&[0x0a, 4], b"tier".as_slice(), &[0x12, 6, 0x1a, 4], b"gold"].concat(), &mut answer);
        put(5, &tensor_message("p", Some(&contents)), &mut answer);
        let value = first_values_of_grpc(&framed(&answer)).unwrap().unwrap();
        assert_eq!(value.pointer("/outputs/0/data"), Some(&json!([0.5, 0.75])));
        assert_eq!((&value["model_name"], &value["parameters"]["tier"]), (&json!("flights"), &json!("gold")));

        for raw_field in [6, 7] {
            let mut message = Vec::new();
            put(5, &tensor_message("x", None), &mut message);
            put(raw_field, &0.125_f64.to_le_bytes(), &mut message);
            let value = first_values_of_grpc(&framed(&message)).unwrap().unwrap();
            assert_eq!(value["inputs"], json!([{"name": "x", "datatype": "FP64", "shape": [2], "data": [0.125]}]));
        }
    }

    #[test]
    fn the_first_values_of_a_large_message_are_read() {
        let numbers = vec![0.5_f64; 100_000];
        let raw = numbers.iter().flat_map(|number| number.to_le_bytes()).collect::<Vec<_>>();
        let mut contents = Vec::new();
        put_bytes(7, &raw, &mut contents);
        for typed in [false, true] {
            let mut tensor = Vec::new();
            put_bytes(1, b"x", &mut tensor);
            put_bytes(2, b"FP64", &mut tensor);
            if typed {
                put_bytes(5, &contents, &mut tensor);
            }
            let mut message = Vec::new();
            put_bytes(1, b"flights", &mut message);
            put_bytes(5, &tensor, &mut message);
            if !typed {
                put_bytes(7, &raw, &mut message);
            }
            let value = first_values_of_grpc(&framed(&message)).unwrap().unwrap();
            let data = value.pointer("/inputs/0/data").unwrap().as_array().unwrap();
            assert!(data[0] == json!(0.5) && data.len() < 1000, "{typed} {}", data.len());
        }
        let many: Vec<u8> = (0..5000).flat_map(|_| [5 << 3 | 2, 0]).collect();
        assert_eq!(first_values_of_grpc(&framed(&many)), Err(Unread::TooLong));
        assert_eq!(first_values_of_grpc(&framed(&[0xff; 20])), Err(Unread::NotJson));
    }

    proptest! {
        #[test]
        fn reading_any_message_does_not_panic(bytes in proptest::collection::vec(any::<u8>(), 0..120), json in 0_usize..130) {
            let _ = first_values_of_grpc(&framed(&bytes));
            let _ = first_values_of_grpc(&bytes);
            let _ = of_binary(&bytes, json, |bytes| serde_json::from_slice(bytes).ok());
            for datatype in ["BYTES", "FP16", "INT64"] {
                let _ = raw_values(datatype, &bytes);
            }
        }
    }
}
