//! What a metric measures: a property of an answer, or of the feedback on it.

use schemars::{JsonSchema, Schema};
use serde::{Deserialize, Serialize};
use serde_json::json;

/// Names of sources in older files, with their current names.
const OLD_SOURCES: [(&str, &str); 2] = [("error", "failed"), ("invalid_output", "unusable")];

/// What a metric measures: a yes/no value, a number, or a class.
///
/// A call that its caller cancelled counts only for `outcome` and `cancelled`. Kind `classes` uses the class of the source: why a
/// call failed, why an answer is unusable, the status, or the class itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
#[schemars(transform = add_old_sources)]
pub enum MetricSource {
    /// 1 for outcome `failed`: status 500 or above, no answer, an incomplete answer, or an error in the answer. As a class:
    /// `timeout`, `connect`, `status_503` ..., or `ok`. Older files call it `error`.
    #[serde(alias = "error")]
    Failed,
    /// 1 for outcome `refused` or `redirected`: status 300 to 499. As a class: `status_422` ..., or `ok`.
    Refused,
    /// 1 for outcome `unusable`. An answer whose body was not read does not count. As a class: `nan`, `out_of_range` ..., or `ok`.
    /// Older files call it `invalid_output`.
    #[serde(alias = "invalid_output")]
    Unusable,
    /// 1 for outcome `cancelled`: the caller cancelled the call.
    Cancelled,
    /// The outcome as a class: `ok`, `refused`, `redirected`, `failed`, `unusable`, `unread` or `cancelled`.
    Outcome,
    /// The HTTP status as a class: `200`, `503`, or `none` when no answer came.
    Status,
    /// Latency of the call in milliseconds.
    Latency,
    /// The numeric output with this name.
    Output(String),
    /// A categorical output. Without `is` it is the class itself; with `is` it is 1 if the class has that value.
    Class {
        /// Name of the categorical output.
        output: String,
        /// The class that counts as 1.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        is: Option<String>,
    },
    /// The numeric label with this name, from feedback.
    Feedback(String),
    /// Seconds from the answer to the label with this name, whatever the label's value is. Only answers whose label came within
    /// the maturity count. If a label has several revisions, the one that counts is used. The delay is 0 if the label's clock is
    /// behind the answer's.
    LabelDelay(String),
    /// 1 if the output, cut at `threshold`, differs from the yes/no label.
    Wrong {
        /// Name of the numeric output.
        output: String,
        /// Name of the label, which is 0 or 1.
        label: String,
        /// The output means yes if it is at or above this number. Default 0.5.
        #[serde(default = "half")]
        threshold: f64,
    },
    /// 1 if a categorical output differs from the class in feedback.
    WrongClass {
        /// Name of the categorical output.
        output: String,
        /// Name of the class in feedback.
        label: String,
    },
    /// Logarithmic loss of a probability and a yes/no label: `-ln p` for a yes and `-ln (1 - p)` for a no. `p` is kept at least 1e-15
    /// away from 0 and 1, so the largest loss is 34.5. An output outside of 0 to 1 is not a probability and does not count.
    LogLoss {
        /// Name of the numeric output: the probability of a yes.
        output: String,
        /// Name of the label, 0 or 1.
        label: String,
    },
    /// Squared difference between an output and a label. For a probability and a yes/no label this is the Brier score.
    SquaredError {
        /// Name of the numeric output.
        output: String,
        /// Name of the numeric label.
        label: String,
    },
    /// Absolute difference between an output and a label.
    AbsoluteError {
        /// Name of the numeric output.
        output: String,
        /// Name of the numeric label.
        label: String,
    },
    /// How well a ranking puts the relevant items first, from 0 to 1. Feedback has the relevance of each item as a number:
    /// `relevance/item-7: 1` for label `relevance`. An item without a number is not relevant.
    Ranking {
        /// Name of the output of kind `ranking`.
        output: String,
        /// Name of the label. The labels of the items are `<label>/<id>`.
        label: String,
        /// What is measured.
        measure: RankingMeasure,
        /// How many of the first items count. Default 10.
        #[serde(default = "ten")]
        at: usize,
    },
}

/// What is measured of a ranking.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RankingMeasure {
    /// Normalized discounted cumulative gain: the sum of each item's relevance, divided by the logarithm to base 2 of its rank plus 1, as
    /// a part of the sum of the best order. An answer without a relevant item does not count.
    Ndcg,
    /// 1 divided by the rank of the first relevant item, or 0. Its mean is the mean reciprocal rank.
    ReciprocalRank,
    /// 1 if one of the items is relevant. Its rate is the hit rate.
    Hit,
}

impl RankingMeasure {
    /// The name of the measure in sentences.
    pub fn noun(self) -> &'static str {
        match self {
            Self::Ndcg => "NDCG",
            Self::ReciprocalRank => "reciprocal rank",
            Self::Hit => "hits",
        }
    }
}

/// Maximum number of items of a ranking that are reported.
pub const MAX_RANKED: usize = 100;

impl MetricSource {
    /// Whether the source needs feedback, and so matures later than the prediction.
    pub fn needs_label(&self) -> bool {
        self.label().is_some()
    }

    /// Name of the label that the source needs from feedback.
    pub fn label(&self) -> Option<&str> {
        match self {
            Self::Feedback(label)
            | Self::LabelDelay(label)
            | Self::Wrong { label, .. }
            | Self::WrongClass { label, .. }
            | Self::LogLoss { label, .. }
            | Self::SquaredError { label, .. }
            | Self::AbsoluteError { label, .. }
            | Self::Ranking { label, .. } => Some(label),
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

    /// Whether the source measures the order of a list of items.
    pub fn is_ranking(&self) -> bool {
        matches!(self, Self::Ranking { .. })
    }

    /// Whether the source measures when a label arrives, not its value.
    pub fn is_delay(&self) -> bool {
        matches!(self, Self::LabelDelay(_))
    }
}

fn ten() -> usize {
    10
}

fn half() -> f64 {
    0.5
}

/// Adds the old names to the schema, so that older files are accepted.
fn add_old_sources(schema: &mut Schema) {
    if let Some(choices) = schema.get_mut("oneOf").and_then(serde_json::Value::as_array_mut) {
        choices.extend(OLD_SOURCES.map(|(old, new)| {
            json!({"const": old, "type": "string", "description": format!("The old name of `{new}`."), "deprecated": true})
        }));
    }
}
