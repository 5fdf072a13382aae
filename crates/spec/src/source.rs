//! What a metric measures of an answer, or of what came of it.

use schemars::{JsonSchema, Schema};
use serde::{Deserialize, Serialize};
use serde_json::json;

/// Words for sources that older files use, with the source's name of today.
const OLD_SOURCES: [(&str, &str); 2] = [("error", "failed"), ("invalid_output", "unusable")];

/// What is measured: a yes or no, a number, or a class.
///
/// A call that its caller left counts for `outcome` and `cancelled` only. Kind `classes` takes the classes: why a call failed, why
/// an answer is unusable, the status, the class itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
#[schemars(transform = add_old_sources)]
pub enum MetricSource {
    /// 1 for outcome `failed`: status 500 or above, no answer, one that broke off, or an error inside. As a class: `timeout`,
    /// `connect`, `status_503` ..., or `ok`. Older files call it `error`.
    #[serde(alias = "error")]
    Failed,
    /// 1 for outcome `refused` or `redirected`: status 300 to 499. As a class: `status_422` ..., or `ok`.
    Refused,
    /// 1 for outcome `unusable`; an answer that was not looked into counts neither way. As a class: `nan`, `out_of_range` ..., or
    /// `ok`. Older files call it `invalid_output`.
    #[serde(alias = "invalid_output")]
    Unusable,
    /// 1 for outcome `cancelled`: the caller left.
    Cancelled,
    /// The outcome as a class: `ok`, `refused`, `redirected`, `failed`, `unusable`, `unread` or `cancelled`.
    Outcome,
    /// The HTTP status as a class: `200`, `503`, or `none` when no answer came.
    Status,
    /// Latency in milliseconds.
    Latency,
    /// A numeric output.
    Output(String),
    /// A categorical output: the class itself, or with `is` 1 when it has this value.
    Class {
        /// The output.
        output: String,
        /// The value.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        is: Option<String>,
    },
    /// A numeric truth from feedback.
    Feedback(String),
    /// Seconds from the answer to the label of this name, whatever the label says. Only of answers whose label came within the
    /// maturity; of several revisions the one that counts; 0 where the label's clock is behind the answer's.
    LabelDelay(String),
    /// 1 when the output, cut at `threshold`, differs from the yes/no label.
    Wrong {
        /// Numeric output.
        output: String,
        /// Label, 0 or 1.
        label: String,
        /// From here on the output means yes. Default 0.5.
        #[serde(default = "half")]
        threshold: f64,
    },
    /// 1 when a categorical output differs from the class that feedback names.
    WrongClass {
        /// Categorical output.
        output: String,
        /// Name of the class in feedback.
        label: String,
    },
    /// Squared difference of an output and a label.
    SquaredError {
        /// Numeric output.
        output: String,
        /// Numeric label.
        label: String,
    },
    /// Absolute difference of an output and a label.
    AbsoluteError {
        /// Numeric output.
        output: String,
        /// Numeric label.
        label: String,
    },
}

impl MetricSource {
    /// Whether it needs feedback, and so matures later than the prediction.
    pub fn needs_label(&self) -> bool {
        self.label().is_some()
    }

    /// The label in feedback that it needs.
    pub fn label(&self) -> Option<&str> {
        match self {
            Self::Feedback(label)
            | Self::LabelDelay(label)
            | Self::Wrong { label, .. }
            | Self::WrongClass { label, .. }
            | Self::SquaredError { label, .. }
            | Self::AbsoluteError { label, .. } => Some(label),
            Self::Failed
            | Self::Refused
            | Self::Unusable
            | Self::Cancelled
            | Self::Outcome
            | Self::Status
            | Self::Latency
            | Self::Output(_)
            | Self::Class { .. } => None,
        }
    }

    /// Whether it is about when a label comes, not about what it says.
    pub fn is_delay(&self) -> bool {
        matches!(self, Self::LabelDelay(_))
    }
}

fn half() -> f64 {
    0.5
}

/// The schema knows the old words too, so that files which use them are accepted.
fn add_old_sources(schema: &mut Schema) {
    if let Some(choices) = schema.get_mut("oneOf").and_then(serde_json::Value::as_array_mut) {
        choices.extend(OLD_SOURCES.map(|(old, new)| {
            json!({"const": old, "type": "string", "description": format!("The old word for `{new}`."), "deprecated": true})
        }));
    }
}
