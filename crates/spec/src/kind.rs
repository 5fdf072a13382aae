//! The kinds of metric, as a rollout file names them. What each of them is: `serin-kinds`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What kind of quantity a metric is, and so which test judges it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
pub enum MetricKind {
    /// Share of answers for which something is true (test `b2`).
    Rate,
    /// Mean of a quantity with a known range (test `m2`); values outside are clamped to it.
    Mean {
        /// Smallest value.
        min: f64,
        /// Largest value.
        max: f64,
    },
    /// Mean of a quantity from 0 without a known upper end (test `m2w`): what lies above the cap counts as the cap.
    CappedMean {
        /// The cap, such as the largest of a thousand of yesterday's values.
        cap: f64,
    },
    /// Quantile of a positive quantity (test `q2`).
    Quantile {
        /// Level, such as 0.99.
        level: f64,
    },
    /// The whole distribution of a positive quantity (test `d2`): `margin.absolute` is the largest difference of the
    /// distribution functions that is acceptable. Default 0.1.
    Distribution,
    /// The mix of classes (test `c2`): `margin.absolute` is by how much the share of any class may change. Default 0.02.
    /// A class that control never showed is judged alone.
    Classes,
    /// Events per answer, where an answer can bring several (test `m2c`): numbers above what all but a thousandth of control's answers
    /// stay below count as that. Under rules 1 it is test `p2`, for events that come one by one.
    Count,
    /// Share of mirrored calls whose two answers differ (test `pair`), against a limit.
    Disagreement,
}
