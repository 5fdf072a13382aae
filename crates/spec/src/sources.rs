//! Where segments are found in requests and outputs in answers.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::defaults;

/// Longest segment value that is judged separately. Longer values and values with control characters count as `other`.
pub const MAX_SEGMENT_VALUE_BYTES: usize = 128;

/// A segment dimension in which metrics can be judged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct SegmentSpec {
    /// Name of the dimension, such as `origin`.
    pub name: String,
    /// Where the dimension's value is found in a request.
    pub source: SegmentSource,
    /// How many of the most frequent values are judged separately. All other values are `other`. Default 10.
    #[serde(default = "defaults::top")]
    pub top: usize,
    /// Which rows of a batch have their own value. Default `all`.
    #[serde(default, skip_serializing_if = "BatchRows::is_all")]
    pub rows: BatchRows,
}

/// Where the value of a segment dimension is found in a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SegmentSource {
    /// A request header.
    Header(String),
    /// A JSON pointer (RFC 6901) into the request body.
    Json(String),
    /// The first value of each row of the named input tensor of an Open Inference Protocol request.
    Input(String),
    /// A parameter of an Open Inference Protocol request.
    Parameter(String),
    /// A field of the prediction event (external traffic).
    Event(String),
}

/// How an output is found in an answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct OutputRule {
    /// Name of the output, as metrics refer to it.
    pub name: String,
    /// Where the output is found in an answer.
    pub source: OutputSource,
    /// Whether the output is a number, a class or a ranking.
    #[serde(default)]
    pub kind: OutputKind,
    /// Smallest valid number. A smaller one is an invalid output.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min: Option<f64>,
    /// Largest valid number. A larger one is an invalid output.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<f64>,
    /// Whether an answer without the output is invalid. Default true.
    #[serde(default = "defaults::yes")]
    pub required: bool,
    /// Which rows of a batch the output is read from. Default `all`.
    #[serde(default, skip_serializing_if = "BatchRows::is_all")]
    pub rows: BatchRows,
}

/// Which rows of a batch a value is read from. The rows are the first dimension of a tensor, or the list of `KServe` V1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum BatchRows {
    /// All rows.
    #[default]
    All,
    /// The first row alone, for a value whose first dimension is not a batch.
    First,
}

impl BatchRows {
    /// Whether all rows are read.
    pub fn is_all(&self) -> bool {
        *self == Self::All
    }
}

/// Whether an output is a number, a class or a ranking.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OutputKind {
    /// A number.
    #[default]
    Number,
    /// A class, as text.
    Class,
    /// A list of ids, best first. Of each row, the first 100 are read.
    Ranking,
}

/// Where an output is found in an answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OutputSource {
    /// The named output tensor of an Open Inference Protocol answer: the first value of each row.
    Tensor(String),
    /// A JSON pointer (RFC 6901) into the answer. In a batch, a pointer to a value of the first row reads the value of each row.
    Json(String),
    /// A header of the answer.
    Header(String),
}
