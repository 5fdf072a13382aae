//! The rows of an answer: a call with a batch of N rows has N values of each output. Pure, and bounded in work.
//!
//! Invariants:
//! - Which rows are read depends only on the request id and the number of rows. So both arms are read alike, and so are both answers to a
//!   mirrored call.
//! - Every row is read with the same probability.

use std::borrow::Cow;

use http::HeaderMap;
use serde_json::Value;
use serin_schemas::records::Batch;
use serin_sketches::hash::Salt;
use serin_spec::{BatchRows, OutputRule, OutputSource};

use crate::{
    content::values::{first, header_text, tensor},
    protocol::{Promise, rows::of_tensor},
};

/// Chooses the rows of one call that are read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample<'a> {
    request_id: &'a str,
    most: usize,
}

impl<'a> Sample<'a> {
    /// The choice for a call, with at most this many rows.
    pub(crate) fn of(request_id: &'a str, most: usize) -> Self {
        Self { request_id, most: most.max(1) }
    }

    /// The row that is used where a call has one value, such as in a quantile.
    pub(crate) fn drawn(self, rows: usize) -> usize {
        Batch::drawn(self.request_id, rows)
    }

    /// The rows that are read, in order: all of them, or a random one of each of `most` parts of the same length. A row on the border of
    /// two parts may be read for both.
    pub(crate) fn rows(self, rows: usize) -> impl Iterator<Item = usize> + use<> {
        let parts = rows.min(self.most);
        let salt = (parts < rows).then(|| Salt::new(&[b"serin.rows/", self.request_id.as_bytes()].concat()));
        (0..parts).map(move |part| {
            let Some(salt) = salt else { return part };
            // The fraction of the part is the hash.
            let place = (part as u128) << 64 | u128::from(salt.hash(&part.to_le_bytes()));
            ((place * rows as u128 / parts as u128) >> 64) as usize
        })
    }
}

/// The values of one output.
#[derive(Clone, Debug)]
enum Rows<'a> {
    /// One value for the whole call.
    One(Cow<'a, Value>),
    /// A value per row: item `offset` of each `stride` items, and in it the value at a JSON pointer. There are at least two rows.
    Many { items: &'a [Value], stride: usize, offset: usize, pointer: &'a str },
}

impl<'a> Rows<'a> {
    /// The values that a rule finds in an answer.
    pub(crate) fn find(rule: &'a OutputRule, headers: &HeaderMap, answer: &'a Value, promise: Promise) -> Option<Self> {
        let all = rule.rows == BatchRows::All;
        match &rule.source {
            OutputSource::Tensor(name) => {
                let tensor = tensor(answer, "outputs", name)?;
                let rows = all.then(|| Self::of_tensor(tensor)).flatten();
                rows.or_else(|| Some(Self::One(Cow::Borrowed(tensor.get("data")?))))
            }
            OutputSource::Json(pointer) => {
                let rows = match promise {
                    Promise::Predictions if all => Self::of_list(answer, pointer),
                    Promise::Tensors if all => Self::in_tensor(answer, pointer),
                    _ => None,
                };
                rows.or_else(|| answer.pointer(pointer).map(|value| Self::One(Cow::Borrowed(value))))
            }
            OutputSource::Header(name) => {
                header_text(headers, name).map(|text| Self::One(Cow::Owned(Value::String(text.into_owned()))))
            }
        }
    }

    /// The rows of a tensor: its first dimension. `None` if it has fewer than two, or if its data do not match its shape.
    fn of_tensor(tensor: &'a Value) -> Option<Self> {
        let rows = of_tensor(tensor)?;
        let items = tensor.get("data")?.as_array()?;
        let fits = rows > 1 && !items.is_empty() && items.len().is_multiple_of(rows);
        fits.then(|| Self::Many { items, stride: items.len() / rows, offset: 0, pointer: "" })
    }

    /// The rows of a tensor of the Open Inference Protocol that a pointer names by its position: `/outputs/0/data`, or a value of its
    /// first row.
    fn in_tensor(answer: &'a Value, pointer: &'a str) -> Option<Self> {
        let (list, pointer) = token(pointer)?;
        let (position, pointer) = token(pointer)?;
        let (data, pointer) = token(pointer)?;
        if (list, data) != ("outputs", "data") {
            return None;
        }
        let rows = Self::of_tensor(answer.get(list)?.get(position.parse::<usize>().ok()?)?)?;
        let Self::Many { items, stride, .. } = rows else { return None };
        let Some((column, pointer)) = token(pointer) else { return Some(rows) };
        let offset = column.parse().ok().filter(|column| *column < stride)?;
        Some(Self::Many { items, stride, offset, pointer })
    }

    /// The rows of `KServe`'s V1: the items of the first list on the way, which a pointer names as a whole or by its first item.
    fn of_list(answer: &'a Value, pointer: &'a str) -> Option<Self> {
        let (list, mut pointer) = token(pointer).filter(|(list, _)| matches!(*list, "predictions" | "outputs"))?;
        let mut value = answer.get(list)?;
        loop {
            if let Value::Array(items) = value {
                let pointer = match token(pointer) {
                    None => pointer,
                    Some(("0", rest)) => rest,
                    Some(_) => return None,
                };
                return (items.len() > 1).then_some(Self::Many { items, stride: 1, offset: 0, pointer });
            }
            let (name, rest) = token(pointer)?;
            value = value.get(name.replace("~1", "/").replace("~0", "~"))?;
            pointer = rest;
        }
    }

    /// Number of rows.
    pub(super) fn len(&self) -> usize {
        match self {
            Self::One(_) => 1,
            Self::Many { items, stride, .. } => items.len() / stride,
        }
    }

    /// The scalars of a row, in order: at most `most`.
    pub(crate) fn list(&self, row: usize, most: usize) -> Option<Vec<&Value>> {
        let mut found = Vec::new();
        match self {
            Self::One(value) => scalars(value, most, &mut found),
            // A pointer leads to the list of the row; without one the row is a list or several values.
            Self::Many { items, stride, offset: 0, pointer: "" } => {
                let row = items.get(row * stride..(row + 1) * stride)?;
                for value in row {
                    scalars(value, most, &mut found);
                }
            }
            Self::Many { items, stride, offset, pointer } => {
                scalars(items.get(row * stride + offset)?.pointer(pointer)?, most, &mut found);
            }
        }
        Some(found)
    }

    /// The value of a row: the first scalar of what the row has. An empty list is returned as it is.
    pub(crate) fn get(&self, row: usize) -> Option<&Value> {
        match self {
            Self::One(value) => Some(first(value)),
            Self::Many { items, stride, offset, pointer } => {
                items.get(row * stride + offset)?.pointer(pointer).map(first)
            }
        }
    }
}

/// The rows of all answers to a call, one after the other.
#[derive(Clone, Debug)]
pub(super) struct AllRows<'a> {
    /// The place of the first row of each answer. An answer without the output is one row without it.
    answers: Vec<(usize, Option<Rows<'a>>)>,
    len: usize,
}

impl<'a> AllRows<'a> {
    /// The values that a rule finds in the answers.
    pub(crate) fn find(rule: &'a OutputRule, headers: &HeaderMap, answers: &'a [Value], promise: Promise) -> Self {
        // All answers have the same headers.
        let is_one = matches!(rule.source, OutputSource::Header(_));
        let answers = if is_one { &answers[..answers.len().min(1)] } else { answers };
        let mut len = 0;
        let answers = answers.iter().map(|answer| {
            let rows = Rows::find(rule, headers, answer, promise);
            let first = len;
            len += rows.as_ref().map_or(1, Rows::len);
            (first, rows)
        });
        Self { answers: answers.collect(), len }
    }

    /// Number of rows.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// The value of a row.
    pub(crate) fn get(&self, row: usize) -> Option<&Value> {
        let (rows, row) = self.at(row)?;
        rows.get(row)
    }

    /// The scalars of a row: at most `most`.
    pub(crate) fn list(&self, row: usize, most: usize) -> Option<Vec<&Value>> {
        let (rows, row) = self.at(row)?;
        rows.list(row, most)
    }

    /// The rows of the answer with this row, and the row's place among them.
    fn at(&self, row: usize) -> Option<(&Rows<'a>, usize)> {
        let after = self.answers.partition_point(|(first, _)| *first <= row);
        let (first, rows) = self.answers.get(after.checked_sub(1)?)?;
        Some((rows.as_ref()?, row - first))
    }
}

/// Adds the scalars of nested lists, up to `most`.
fn scalars<'a>(value: &'a Value, most: usize, into: &mut Vec<&'a Value>) {
    match value {
        Value::Array(items) => items.iter().for_each(|item| scalars(item, most, into)),
        _ if into.len() < most => into.push(value),
        _ => {}
    }
}

/// The first token of a JSON pointer, still escaped, and the rest; `None` at its end.
fn token(pointer: &str) -> Option<(&str, &str)> {
    let pointer = pointer.strip_prefix('/')?;
    Some(pointer.split_at(pointer.find('/').unwrap_or(pointer.len())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn values(answer: &Value, source: OutputSource, promise: Promise) -> Option<Vec<Value>> {
        let rule = OutputRule { source, ..crate::content::outputs::tests::rule() };
        let rows = Rows::find(&rule, &HeaderMap::new(), answer, promise)?;
        Some((0..rows.len()).map(|row| rows.get(row).cloned().unwrap_or_default()).collect())
    }

    fn of_tensor(shape: &Value, data: &Value) -> Value {
        let answer = json!({"outputs": [{"name": "p", "shape": shape, "datatype": "FP64", "data": data}]});
        values(&answer, OutputSource::Tensor("p".into()), Promise::Tensors).map_or(Value::Null, Value::Array)
    }

    #[test]
    fn the_first_dimension_of_a_tensor_is_its_rows() {
        for (shape, data, expected) in [
            (json!([3]), json!([1, 2, 3]), json!([1, 2, 3])),
            (json!([3, 1]), json!([1, 2, 3]), json!([1, 2, 3])),
            (json!([3, 1]), json!([[1], [2], [3]]), json!([1, 2, 3])),
            (json!([2, 2]), json!([1, 2, 3, 4]), json!([1, 3])),
            (json!([2, 2]), json!([[1, 2], [3, 4]]), json!([1, 3])),
            (json!([2, 1, 2]), json!([[[1, 2]], [[3, 4]]]), json!([1, 3])),
            (json!(["2"]), json!(["a", "b"]), json!(["a", "b"])),
            // One row.
            (json!([1, 3]), json!([1, 2, 3]), json!([1])),
            (json!([1]), json!([1]), json!([1])),
            (json!([]), json!([1]), json!([1])),
            // No values, or a shape that does not match: as one row.
            (json!([0, 4]), json!([]), json!([[]])),
            (json!([2]), json!([1, 2, 3]), json!([1])),
            (json!([-1]), json!([1, 2]), json!([1])),
            (json!("x"), json!([1, 2]), json!([1])),
        ] {
            assert_eq!(of_tensor(&shape, &data), expected, "{shape} {data}");
        }
    }

    #[test]
    fn pointers_to_the_first_row_read_every_row() {
        let v1 = json!({"predictions": [{"p": 1, "q": [5, 6]}, {"p": 2, "q": [7, 8]}], "model": ["a", "b"]});
        let columns = json!({"outputs": {"a/b": [[1, 2], [3, 4]]}});
        let plain = json!({"predictions": [1, 2]});
        let v2 = json!({"outputs": [{"name": "x", "data": [9]}, {"name": "p", "shape": [2, 2], "data": [1, 2, 3, 4]}]});
        let nested = json!({"outputs": [{"name": "p", "shape": [2, 2], "data": [[1, 2], [3, 4]]}]});
        for (answer, pointer, promise, expected) in [
            (&v1, "/predictions/0/p", Promise::Predictions, json!([1, 2])),
            (&v1, "/predictions/0/q", Promise::Predictions, json!([5, 7])),
            (&v1, "/predictions/0/q/1", Promise::Predictions, json!([6, 8])),
            (&v1, "/predictions/1/p", Promise::Predictions, json!([2])),
            (&v1, "/model/0", Promise::Predictions, json!(["a"])),
            (&v1, "/predictions/0/p", Promise::Nothing, json!([1])),
            (&columns, "/outputs/a~1b", Promise::Predictions, json!([1, 3])),
            (&columns, "/outputs/a~1b/0", Promise::Predictions, json!([1, 3])),
            (&columns, "/outputs/a~1b/0/1", Promise::Predictions, json!([2, 4])),
            (&plain, "/predictions", Promise::Predictions, json!([1, 2])),
            (&plain, "/predictions/0", Promise::Predictions, json!([1, 2])),
            (&v2, "/outputs/1/data", Promise::Tensors, json!([1, 3])),
            (&v2, "/outputs/1/data/0", Promise::Tensors, json!([1, 3])),
            (&v2, "/outputs/1/data/1", Promise::Tensors, json!([2, 4])),
            (&v2, "/outputs/1/data/2", Promise::Tensors, json!([3])),
            (&v2, "/outputs/0/data/0", Promise::Tensors, json!([9])),
            (&v2, "/outputs/1/name", Promise::Tensors, json!(["p"])),
            (&nested, "/outputs/0/data/0/1", Promise::Tensors, json!([2, 4])),
        ] {
            let found = values(answer, OutputSource::Json(pointer.into()), promise).map(Value::Array);
            assert_eq!(found, Some(expected), "{pointer} of {answer}");
        }
        assert_eq!(
            values(&json!({"predictions": []}), OutputSource::Json("/predictions/0".into()), Promise::Predictions),
            None
        );
    }

    #[test]
    fn a_rule_may_ask_for_the_first_row_alone() {
        let answer = json!({"outputs": [{"name": "p", "shape": [2], "data": [1, 2]}]});
        let rule = OutputRule {
            source: OutputSource::Tensor("p".into()),
            rows: BatchRows::First,
            ..crate::content::outputs::tests::rule()
        };
        let rows = Rows::find(&rule, &HeaderMap::new(), &answer, Promise::Tensors).unwrap();
        assert_eq!((rows.len(), rows.get(0)), (1, Some(&json!(1))));
    }

    #[test]
    fn rows_are_drawn_evenly_and_alike_for_the_same_call() {
        let mut drawn = [0_u32; 8];
        let mut sampled = [0_u32; 8];
        for id in 0..8000 {
            let id = format!("request-{id}");
            let sample = Sample::of(&id, 3);
            drawn[sample.drawn(8)] += 1;
            sample.rows(8).for_each(|row| sampled[row] += 1);
            assert!(sample.rows(8).eq(Sample::of(&id, 3).rows(8)));
        }
        // Standard deviations: 30 and 43.
        assert!(drawn.iter().all(|count| count.abs_diff(1000) < 150), "{drawn:?}");
        assert!(sampled.iter().all(|count| count.abs_diff(3000) < 220), "{sampled:?}");
    }

    proptest! {
        #[test]
        fn samples_are_in_order_and_within_the_rows(id in ".{0,10}", rows in 1_usize..3000, most in 0_usize..200) {
            let sample = Sample::of(&id, most);
            let found: Vec<usize> = sample.rows(rows).collect();
            prop_assert_eq!(found.len(), rows.min(most.max(1)));
            prop_assert!(found.is_sorted() && found.iter().all(|row| *row < rows));
            prop_assert!(sample.drawn(rows) < rows);
        }
    }
}
