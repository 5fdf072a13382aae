//! How much harm is acceptable: a direction with a margin or a limit.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Which way is worse.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// A higher value is worse.
    #[default]
    LowerIsBetter,
    /// A lower value is worse.
    HigherIsBetter,
}

/// How much worse than control is still acceptable. With both, harm must exceed both.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Margin {
    /// In the metric's unit (a share for a rate).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub absolute: Option<f64>,
    /// As a share of control's value, such as 0.2 for 20 %.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub relative: Option<f64>,
}

/// Numbers that the canary is held against, in the metric's unit (a share for a rate). One given counts for both.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Limit {
    /// To pass, the canary must be shown to be on the good side of this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pass: Option<f64>,
    /// It fails when it is shown to be on the bad side of this; laxer than `pass`, or equal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fail: Option<f64>,
}

impl Limit {
    /// Both numbers, `(pass, fail)`; `None` when nothing is given.
    pub fn both(self) -> Option<(f64, f64)> {
        Some((self.pass.or(self.fail)?, self.fail.or(self.pass)?))
    }
}
