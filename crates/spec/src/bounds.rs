//! How much harm is acceptable: a direction, and a margin or a limit.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Which values of a metric are better.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// A lower value is better.
    #[default]
    LowerIsBetter,
    /// A higher value is better.
    HigherIsBetter,
}

/// How much worse than control the canary may be. If both parts are given, harm must exceed both.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Margin {
    /// Largest acceptable difference from control, in the metric's unit (a share for a rate).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub absolute: Option<f64>,
    /// Largest acceptable difference as a share of control's value, such as 0.2 for 20 %.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub relative: Option<f64>,
}

/// Fixed numbers that the canary is compared with, in the metric's unit (a share for a rate). If only one number is given, it
/// is used for both.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Limit {
    /// The canary passes when it is shown to be on the good side of this number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pass: Option<f64>,
    /// The canary fails when it is shown to be on the bad side of this number. It must be laxer than `pass`, or equal to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fail: Option<f64>,
}

impl Limit {
    /// Both numbers, `(pass, fail)`; `None` if neither is given.
    pub fn both(self) -> Option<(f64, f64)> {
        Some((self.pass.or(self.fail)?, self.fail.or(self.pass)?))
    }
}
