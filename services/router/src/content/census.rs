//! Built-in analysis of an answer without any rule: whether it conforms to its protocol, and how many of its values are missing. Pure.

use std::{borrow::Cow, fmt, marker::PhantomData};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::{
    Deserialize,
    de::{Deserializer, Error, MapAccess, SeqAccess, Visitor, value::MapAccessDeserializer},
};
use serde_json::Value;

use crate::{
    content::outcome::Content,
    protocol::{Promise, json, rows::side},
};

/// The counts of an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Census {
    /// Number of scalars.
    pub(super) values: u64,
    /// Number of scalars that are null or not a number (NaN or infinite).
    missing: u64,
    /// Number of scalars that are null.
    nulls: u64,
    /// Whether the answer reports an error.
    error: bool,
    /// How the answer violates its protocol: `missing` (a required field), `empty` (an empty list or object), `schema` (a value of the
    /// wrong type, a shape that is missing or that the data do not have, or two tensors with the same name).
    invalid: Option<&'static str>,
    /// Whether the answer may be judged by its values alone.
    of_values: bool,
}

impl Census {
    /// Counts the values of an answer and checks it against its protocol.
    pub(crate) fn of(answer: &Value, promise: Promise) -> Self {
        if is_error(answer) {
            return Self::error();
        }
        match promise {
            Promise::Tensors => match answer.get("outputs") {
                None | Some(Value::Null) => Self::broken("missing"),
                Some(Value::Array(tensors)) => Self::of_tensors(tensors.iter().map(Tensor::of)),
                Some(_) => Self::broken("schema"),
            },
            Promise::Predictions => {
                let found =
                    ["predictions", "outputs"].iter().find_map(|name| answer.get(*name).filter(|it| !it.is_null()));
                match found {
                    None => Self::broken("missing"),
                    Some(list) if list.is_array() && is_error(list) => Self::error(),
                    Some(list) => {
                        let all_hollow = list.as_array().is_some_and(|items| items.iter().all(is_hollow));
                        Self::of_list(Tally::of(list), is_empty(list) || all_hollow)
                    }
                }
            }
            Promise::Choices => Self::of_whole(answer, "choices"),
            Promise::Response => {
                let found = Self::of_whole(answer, "output");
                // A response in the background has no output yet.
                let status = answer.get("status").and_then(Value::as_str);
                let is_pending = matches!(status, Some("queued" | "in_progress"));
                Self { invalid: found.invalid.filter(|_| !is_pending), ..found }
            }
            Promise::Embeddings => Self::of_embeddings(answer),
            Promise::Json | Promise::Nothing | Promise::Service => Self::of_list(Tally::of(answer), is_empty(answer)),
        }
    }

    /// The same without keeping the parsed answer. `None` if it is not JSON or unusual in any way: then [`of`](Self::of) must be used.
    pub(super) fn of_json(body: &[u8], promise: Promise) -> Option<Self> {
        // serde does not validate the parts that it skips.
        let body = std::str::from_utf8(json::without_mark(body)).ok()?;
        match promise {
            Promise::Tensors => {
                let Object(Outputs { outputs, error: () }) = serde_json::from_str(body).ok()?;
                Some(Self::of_tensors(outputs.iter().map(|Object(tensor)| tensor.tensor())))
            }
            Promise::Predictions => {
                let Object(Predictions { predictions, error: () }) = serde_json::from_str(body).ok()?;
                // A single text may be empty, and objects may be errors.
                let tally = predictions.filter(|tally| tally.values > tally.texts.min(1) && tally.objects == 0)?;
                Some(Self::of_list(tally, false))
            }
            Promise::Json | Promise::Nothing | Promise::Service => {
                let Top(tally) = serde_json::from_str(body).ok()?;
                (tally.values > 0).then(|| Self::of_list(tally, false))
            }
            Promise::Choices | Promise::Response | Promise::Embeddings => None,
        }
    }

    /// Share of missing values; `None` if there are no values.
    pub(crate) fn missing_share(self) -> Option<f64> {
        (self.values > 0).then(|| self.missing as f64 / self.values as f64)
    }

    /// The content of the answer.
    pub(crate) fn content(self) -> Content {
        if self.error {
            return Content::Failed("error_object");
        }
        let all_missing = self.of_values && self.values > 0 && self.missing == self.values;
        let nothing = all_missing.then_some(if self.nulls == self.values { "null" } else { "nan" });
        self.invalid.or(nothing).map_or(Content::Good, Content::Unusable)
    }

    /// Adds another answer of the same call.
    pub(super) fn add(&mut self, other: &Self) {
        self.values += other.values;
        self.missing += other.missing;
        self.nulls += other.nulls;
        self.error |= other.error;
        self.invalid = self.invalid.or(other.invalid);
        self.of_values |= other.of_values;
    }

    fn error() -> Self {
        Self { error: true, ..Self::default() }
    }

    fn broken(promise: &'static str) -> Self {
        Self { invalid: Some(promise), ..Self::default() }
    }

    fn of_list(tally: Tally, is_empty: bool) -> Self {
        Self { of_values: true, invalid: is_empty.then_some("empty"), ..tally.into() }
    }

    /// Counts a whole answer that must contain this list.
    fn of_whole(answer: &Value, list: &str) -> Self {
        let invalid = match answer.get(list) {
            None | Some(Value::Null) => Some("missing"),
            Some(list) => is_empty(list).then_some("empty"),
        };
        Self { invalid, ..Tally::of(answer).into() }
    }

    /// Counts embeddings. Only their numbers show whether they are usable.
    fn of_embeddings(answer: &Value) -> Self {
        let mut whole = Self::of_whole(answer, "data");
        let data = answer.get("data").filter(|data| data.is_array());
        if data.is_some_and(is_error) {
            return Self::error();
        }
        let mut numbers = Self::default();
        for item in data.and_then(Value::as_array).into_iter().flatten() {
            let found = match item.get("embedding") {
                None => Self::broken("missing"),
                Some(Value::String(text)) => {
                    let found = Self::of_base64(text);
                    whole.values += found.values;
                    whole.missing += found.missing;
                    found
                }
                Some(list) if !is_numeric(list) => Self::broken("schema"),
                Some(list) => Self::of_list(Tally::of(list), is_empty(list)),
            };
            numbers.add(&found);
        }
        let invalid = match numbers.content() {
            Content::Unusable(cause) => Some(cause),
            _ => None,
        };
        Self { invalid: whole.invalid.or(invalid), ..whole }
    }

    /// Counts the numbers of an embedding in base64: floats of 32 bits in little-endian order. Packed embeddings of other types have no
    /// missing values.
    fn of_base64(text: &str) -> Self {
        let Ok(bytes) = STANDARD.decode(text.trim_ascii()) else { return Self::broken("schema") };
        let (floats, rest) = bytes.as_chunks::<4>();
        let finite = floats.iter().filter(|bytes| f32::from_le_bytes(**bytes).is_finite()).count();
        let missing = if rest.is_empty() { floats.len() - finite } else { 0 };
        let tally = Tally { values: floats.len() as u64, missing: missing as u64, ..Tally::default() };
        Self::of_list(tally, bytes.is_empty())
    }

    /// Counts the output tensors of the Open Inference Protocol.
    fn of_tensors<'a>(tensors: impl Iterator<Item = Tensor<'a>>) -> Self {
        let mut census = Self { of_values: true, ..Self::default() };
        let mut names = Vec::new();
        for tensor in tensors {
            names.push(tensor.name);
            let data = tensor.data.unwrap_or_default();
            census.values += data.values;
            census.missing += if tensor.datatype == Some("BYTES") { data.missing - data.words } else { data.missing };
            census.nulls += data.nulls;
            census.invalid = census.invalid.or(tensor.broken_promise());
        }
        names.sort_unstable();
        // A rule would read only the first of two tensors with the same name.
        if names.windows(2).any(|pair| pair[0].is_some() && pair[0] == pair[1]) {
            census.invalid = census.invalid.or(Some("schema"));
        }
        if names.is_empty() { Self::broken("empty") } else { census }
    }
}

impl From<Tally> for Census {
    fn from(tally: Tally) -> Self {
        Self { values: tally.values, missing: tally.missing, nulls: tally.nulls, ..Self::default() }
    }
}

/// Whether a JSON answer reports an error: in the field `error`, or, like older versions of vLLM, by an `object` of that name. A number in
/// `error` does not count, because models estimate errors too. A list is an error if all of its items are.
pub(super) fn is_error(answer: &Value) -> bool {
    match answer {
        Value::Object(fields) => {
            let says = match fields.get("error") {
                Some(Value::String(text)) => !text.is_empty(),
                Some(Value::Object(error)) => !error.is_empty(),
                Some(Value::Array(errors)) => errors.iter().any(|error| !error.is_null()),
                Some(Value::Bool(yes)) => *yes,
                _ => false,
            };
            says || fields.get("object").and_then(Value::as_str) == Some("error")
        }
        Value::Array(items) => !items.is_empty() && items.iter().all(|item| item.is_object() && is_error(item)),
        _ => false,
    }
}

/// Whether all scalars of an embedding are numbers, or missing.
fn is_numeric(value: &Value) -> bool {
    match value {
        Value::Array(items) => items.iter().all(is_numeric),
        Value::Object(fields) => fields.values().all(is_numeric),
        Value::String(text) => is_missing(text),
        Value::Bool(_) => false,
        Value::Null | Value::Number(_) => true,
    }
}

/// Whether a value is empty.
fn is_empty(value: &Value) -> bool {
    match value {
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        Value::String(text) => text.is_empty(),
        _ => false,
    }
}

/// Whether an item of a list contains nothing. An item with empty lists in it is an answer: a detector may find nothing.
fn is_hollow(item: &Value) -> bool {
    !item.is_string() && is_empty(item)
}

/// The shape of a tensor.
#[derive(Clone, Copy, Debug)]
struct Shape {
    /// Number of values.
    size: u64,
    /// The first dimension: the number of rows.
    rows: Option<u64>,
}

impl Shape {
    /// `None` if a side is not a length, or if the number of values overflows.
    fn of(sides: impl Iterator<Item = Option<u64>>) -> Option<Self> {
        let (mut size, mut rows, mut overflows) = (1_u64, None, false);
        for side in sides {
            let side = side?;
            rows = rows.or(Some(side));
            // A later side of 0 makes any number of values 0.
            let product = size.checked_mul(side);
            overflows = side != 0 && (overflows || product.is_none());
            size = product.unwrap_or(1);
        }
        (!overflows).then_some(Self { size, rows })
    }

    /// Whether the data have the number of values. A list is either flat, or nested with one list per row.
    fn fits(self, data: &Tally) -> bool {
        let is_flat = data.items.is_none_or(|items| items == self.size);
        self.size == data.values && !data.ragged && (is_flat || data.items == self.rows)
    }
}

/// Scalars by type, in arbitrarily nested lists.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Tally {
    /// All scalars, including those within objects.
    values: u64,
    /// Scalars that are null or not a number, including those within objects.
    missing: u64,
    nulls: u64,
    /// The missing values that are written as strings. Where an answer is text, they are not missing.
    words: u64,
    texts: u64,
    /// Strings that are whole numbers: Protocol Buffers write 64-bit integers this way in JSON.
    digits: u64,
    /// Strings that are whole numbers below 0.
    negative_digits: u64,
    booleans: u64,
    /// The numbers 0 and 1.
    bits: u64,
    /// Whole numbers from 2 on.
    naturals: u64,
    negatives: u64,
    /// Numbers with a fraction, or beyond all integers of 64 bits.
    reals: u64,
    objects: u64,
    /// Number of direct items, if it is a list.
    items: Option<u64>,
    /// Number of levels of lists.
    depth: u64,
    /// Whether the items of a list within it differ in length or depth.
    ragged: bool,
}

impl Tally {
    fn of(value: &Value) -> Self {
        // A value in memory can always be read.
        Self::deserialize(value).unwrap_or_default()
    }

    /// A tally of one value of the type that `count` selects.
    fn one(count: impl FnOnce(&mut Self) -> &mut u64) -> Self {
        let mut tally = Self { values: 1, ..Self::default() };
        *count(&mut tally) += 1;
        tally
    }

    /// Whether all values that are not missing match a datatype.
    fn fits(&self, datatype: &str) -> bool {
        let others = match datatype {
            "BYTES" => self.booleans + self.whole() + self.reals,
            "BOOL" => self.any_texts() + self.naturals + self.negatives + self.reals,
            "INT64" => self.texts + self.booleans + self.reals,
            "UINT64" => self.texts + self.negative_digits + self.booleans + self.negatives + self.reals,
            _ if datatype.starts_with("INT") => self.any_texts() + self.booleans + self.reals,
            _ if datatype.starts_with("UINT") => self.any_texts() + self.booleans + self.negatives + self.reals,
            _ if datatype.starts_with("FP") || datatype == "BF16" => self.any_texts() + self.booleans,
            // Servers may have their own types.
            _ => return true,
        };
        others + self.objects == 0
    }

    /// Adds the field of an object.
    fn add_field(&mut self, name: &str, field: &Self) {
        // Generated text may be any word.
        let is_text = matches!(name, "text_output" | "generated_text" | "text");
        self.values += field.values;
        self.missing += if is_text { field.missing - field.words } else { field.missing };
        self.words += if is_text { 0 } else { field.words };
        self.nulls += field.nulls;
    }

    fn any_texts(&self) -> u64 {
        self.texts + self.digits + self.negative_digits
    }

    fn whole(&self) -> u64 {
        self.bits + self.naturals + self.negatives
    }

    fn add(&mut self, other: &Self) {
        let Self { values, missing, nulls, words, texts, digits, negative_digits, booleans, .. } = other;
        let Self { bits, naturals, negatives, reals, objects, .. } = other;
        self.values += values;
        self.missing += missing;
        self.nulls += nulls;
        self.words += words;
        self.texts += texts;
        self.digits += digits;
        self.negative_digits += negative_digits;
        self.booleans += booleans;
        self.bits += bits;
        self.naturals += naturals;
        self.negatives += negatives;
        self.reals += reals;
        self.objects += objects;
    }
}

/// Whether a string is the word for a number that is not finite. A string with digits is none: `12e45678` is an id.
fn is_missing(text: &str) -> bool {
    let is_word = !text.contains(|c: char| c.is_ascii_digit());
    is_word && text.parse::<f64>().is_ok_and(|number| !number.is_finite()) || text == "-nan(ind)"
}

fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

impl<'de> Deserialize<'de> for Tally {
    fn deserialize<D: Deserializer<'de>>(any: D) -> Result<Self, D::Error> {
        any.deserialize_any(Counting)
    }
}

/// Counts any value.
struct Counting;

impl<'de> Visitor<'de> for Counting {
    type Value = Tally;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E: Error>(self) -> Result<Tally, E> {
        Ok(Tally { nulls: 1, ..Tally::one(|tally| &mut tally.missing) })
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<Tally, E> {
        Ok(Tally::one(|tally| &mut tally.booleans))
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Tally, E> {
        Ok(Tally::one(|tally| if number < 2 { &mut tally.bits } else { &mut tally.naturals }))
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<Tally, E> {
        Ok(Tally::one(|tally| &mut tally.negatives))
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<Tally, E> {
        // `-0` and `1.0` are whole numbers.
        let is_whole = number.fract() == 0.0 && number.abs() < u64::MAX as f64;
        Ok(Tally::one(|tally| match number {
            _ if !is_whole => &mut tally.reals,
            _ if number < 0.0 => &mut tally.negatives,
            _ if number < 2.0 => &mut tally.bits,
            _ => &mut tally.naturals,
        }))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Tally, E> {
        if is_missing(text) {
            return Ok(Tally { words: 1, ..Tally::one(|tally| &mut tally.missing) });
        }
        Ok(Tally::one(|tally| match text.strip_prefix('-') {
            None if is_digits(text) => &mut tally.digits,
            Some(rest) if is_digits(rest) => &mut tally.negative_digits,
            _ => &mut tally.texts,
        }))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Tally, A::Error> {
        let mut sum = Tally::default();
        let (mut count, mut first) = (0, None);
        while let Some(item) = items.next_element::<Tally>()? {
            count += 1;
            let form = (item.depth, item.items, item.items.map(|_| item.values));
            sum.depth = sum.depth.max(item.depth + 1);
            sum.ragged |= item.ragged || *first.get_or_insert(form) != form;
            sum.add(&item);
        }
        sum.items = Some(count);
        Ok(sum)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Tally, A::Error> {
        let mut sum = Tally { objects: 1, ..Tally::default() };
        while let Some((Key(name), field)) = fields.next_entry::<Key<'de>, Tally>()? {
            sum.add_field(&name, &field);
        }
        Ok(sum)
    }
}

/// A tally of a whole answer. Parsing fails if the answer may be an error.
struct Top(Tally);

impl<'de> Deserialize<'de> for Top {
    fn deserialize<D: Deserializer<'de>>(any: D) -> Result<Self, D::Error> {
        struct Whole;
        impl<'de> Visitor<'de> for Whole {
            type Value = Tally;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an answer")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Tally, A::Error> {
                let mut sum = Tally { objects: 1, ..Tally::default() };
                while let Some((Key(name), field)) = fields.next_entry::<Key<'de>, Tally>()? {
                    if name == "error" || name == "object" {
                        return Err(A::Error::custom("it may be an error"));
                    }
                    sum.add_field(&name, &field);
                }
                Ok(sum)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Tally, A::Error> {
                let mut sum = Tally::default();
                while let Some(item) = items.next_element::<Tally>()? {
                    if item.objects > 0 {
                        return Err(A::Error::custom("its items may be errors"));
                    }
                    sum.add(&item);
                }
                Ok(sum)
            }
        }
        // Scalar answers are rare, so they are not handled here.
        any.deserialize_any(Whole).map(Self)
    }
}

/// The name of a field.
#[derive(Deserialize)]
struct Key<'a>(#[serde(borrow)] Cow<'a, str>);

/// The fields of an output tensor of the Open Inference Protocol that are checked.
struct Tensor<'a> {
    name: Option<&'a str>,
    /// Its shape; `None` if it is missing, not a list of lengths, or has more values than can be counted.
    shape: Option<Shape>,
    datatype: Option<&'a str>,
    data: Option<Tally>,
    /// Whether the data is stored elsewhere: after the JSON, or in shared memory.
    elsewhere: bool,
}

impl<'a> Tensor<'a> {
    fn of(tensor: &'a Value) -> Self {
        let has = |name| tensor.get("parameters").is_some_and(|parameters| parameters.get(name).is_some());
        let data = tensor.get("data").map(Tally::of);
        // Data after the JSON has been read, unless its datatype is unknown.
        let is_after = has("binary_data_size") && data.is_none();
        let is_shared = has("shared_memory_region") && data.is_none_or(|data| data.values == 0);
        Self {
            name: tensor.get("name").and_then(Value::as_str),
            shape: tensor.get("shape").and_then(Value::as_array).and_then(|shape| Shape::of(shape.iter().map(side))),
            datatype: tensor.get("datatype").and_then(Value::as_str),
            data,
            elsewhere: is_after || is_shared,
        }
    }

    fn broken_promise(&self) -> Option<&'static str> {
        if self.name.is_none() {
            return Some("missing");
        }
        let Some(shape) = self.shape else { return Some("schema") };
        if self.elsewhere {
            return None;
        }
        let Some(data) = self.data else { return (shape.size != 0).then_some("missing") };
        let fits = shape.fits(&data) && self.datatype.is_none_or(|it| data.fits(it));
        (!fits).then_some("schema")
    }
}

/// An object with these fields. serde alone would also accept a list of the values.
struct Object<T>(T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(any: D) -> Result<Self, D::Error> {
        struct Fields<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Fields<T> {
            type Value = Object<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, fields: A) -> Result<Object<T>, A::Error> {
                T::deserialize(MapAccessDeserializer::new(fields)).map(Object)
            }
        }
        any.deserialize_map(Fields(PhantomData))
    }
}

/// A typical answer of V2.
#[derive(Deserialize)]
struct Outputs<'a> {
    #[serde(borrow)]
    outputs: Vec<Object<Named<'a>>>,
    #[serde(default, deserialize_with = "unusual")]
    error: (),
}

/// A typical tensor.
#[derive(Deserialize)]
struct Named<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
    shape: Vec<u64>,
    #[serde(borrow)]
    datatype: Cow<'a, str>,
    data: Tally,
}

impl Named<'_> {
    fn tensor(&self) -> Tensor<'_> {
        let shape = Shape::of(self.shape.iter().copied().map(Some));
        let (name, datatype) = (Some(&*self.name), Some(&*self.datatype));
        Tensor { name, shape, datatype, data: Some(self.data), elsewhere: false }
    }
}

/// A typical answer of V1.
#[derive(Deserialize)]
struct Predictions {
    predictions: Option<Tally>,
    #[serde(default, deserialize_with = "unusual")]
    error: (),
}

/// A field that a typical answer does not have.
fn unusual<'de, D: Deserializer<'de>>(_: D) -> Result<(), D::Error> {
    Err(D::Error::custom("it may be an error"))
}

#[cfg(test)]
mod tests;
