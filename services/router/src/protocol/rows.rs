//! The rows of a request: a request with a batch of N rows has N values of each segment and feature. Pure.
//!
//! The row of a call is [`Batch::drawn`]. Where its place is depends on the number of rows, which is known only at the end of a body. So a
//! body with several rows is read twice: the second time as if it had this row alone, and rules read that like any other body.
//!
//! Invariant: the row depends only on the request id and the number of rows, so answers with the same number of rows are read in the same
//! row.

use serde_json::Value;
use serin_schemas::records::Batch;

use crate::protocol::asks::Asks;

/// How a body's lists of rows are read.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct RowLists<'a> {
    /// Whether the rows are the items of `instances`, or of a list in `inputs`, as in `KServe`'s V1. Otherwise they are those of tensors.
    pub(crate) instances: bool,
    /// The part of each list that is read, in the order of the lists. All other lists are read whole.
    pub(crate) starts: &'a [Start],
    /// The request id of which the drawn row of raw tensors is read.
    pub(crate) drawn: Option<&'a str>,
}

/// A list of rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RowList {
    /// Place of its tensor in the list of tensors.
    pub(super) tensor: usize,
    /// Number of its items.
    pub(super) items: usize,
}

/// The part of a list that is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Start {
    first: usize,
    length: usize,
}

/// The whole list.
impl Default for Start {
    fn default() -> Self {
        Self { first: 0, length: usize::MAX }
    }
}

impl Start {
    /// The items of the drawn row in a list of `items` values that has several rows. `None`: it has not.
    pub(crate) fn drawn(request_id: &str, rows: usize, items: usize) -> Option<Self> {
        if rows < 2 || items == 0 || !items.is_multiple_of(rows) {
            return None;
        }
        let length = items / rows;
        Some(Self { first: Batch::drawn(request_id, rows) * length, length })
    }

    /// The place in the part of an item of the whole list.
    pub(super) fn place(self, item: usize) -> Option<usize> {
        item.checked_sub(self.first).filter(|place| *place < self.length)
    }

    /// The same part of a list whose items have this size.
    pub(crate) fn range(self) -> std::ops::Range<usize> {
        self.first..self.first.saturating_add(self.length)
    }
}

/// Number of rows of a tensor: its first dimension. `None`: its shape is unknown.
pub(crate) fn of_tensor(tensor: &Value) -> Option<usize> {
    usize::try_from(side(tensor.get("shape")?.as_array()?.first()?)?).ok()
}

/// A side of a shape. Protocol Buffers write 64-bit integers as strings in JSON, and some encoders write all numbers with a fraction.
pub(crate) fn side(side: &Value) -> Option<u64> {
    const EXACT: f64 = (1_u64 << 53) as f64;
    let of_float = || side.as_f64().filter(|side| side.fract() == 0.0 && (0.0..EXACT).contains(side));
    side.as_u64().or_else(|| of_float().map(|side| side as u64)).or_else(|| side.as_str()?.parse().ok())
}

/// Where the drawn row starts in each list of rows of a body that was read; `None`: no list has several rows.
pub(crate) fn starts(body: &Value, lists: &[RowList], instances: bool, request_id: &str) -> Option<Vec<Start>> {
    let tensors = body.get("inputs").and_then(Value::as_array);
    let rows = |list: &RowList| if instances { Some(list.items) } else { of_tensor(tensors?.get(list.tensor)?) };
    let found: Vec<Option<Start>> =
        lists.iter().map(|list| Start::drawn(request_id, rows(list)?, list.items)).collect();
    let is_raw = |tensor: &Value| {
        tensor.pointer("/parameters/binary_data_size").is_some() && of_tensor(tensor).is_some_and(|rows| rows > 1)
    };
    let any = found.iter().any(Option::is_some) || tensors.into_iter().flatten().any(is_raw);
    any.then(|| found.into_iter().map(Option::unwrap_or_default).collect())
}

/// Requests the value at a pointer, and the shape of its tensor, which contains the number of rows.
pub(crate) fn ask(asks: &mut Asks, pointer: &str) {
    asks.pointer(pointer);
    if names_value_of_tensor(pointer) {
        let tensor: Vec<&str> = pointer.split('/').take(3).collect();
        asks.pointer(&format!("{}/shape", tensor.join("/")));
    }
}

/// Whether a JSON pointer into a request can name a value of its first row, and so of each row.
pub(crate) fn may_name_a_row(pointer: &str) -> bool {
    names_value_of_tensor(pointer) || names_first_item(pointer)
}

/// Whether a pointer names a value in an input tensor: `/inputs/0/data` or a value below it.
pub(crate) fn names_value_of_tensor(pointer: &str) -> bool {
    let mut tokens = pointer.split('/').skip(1);
    tokens.next() == Some("inputs") && tokens.next().is_some_and(is_index) && tokens.next() == Some("data")
}

/// Whether a pointer names the items of the first list below `instances` or `inputs`: as a whole, or by the first item.
pub(crate) fn names_first_item(pointer: &str) -> bool {
    let mut tokens = pointer.split('/').skip(1);
    matches!(tokens.next(), Some("instances" | "inputs"))
        && tokens.find(|token| is_index(token)).is_none_or(|it| it == "0")
}

fn is_index(token: &str) -> bool {
    !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_digit())
}
