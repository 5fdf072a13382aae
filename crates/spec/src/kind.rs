//! The kinds of metric, as named in a rollout file. The crate `serin-kinds` implements them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Kind of quantity that a metric is. It determines which statistical test judges the metric.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
pub enum MetricKind {
    /// Share of the answers for which something is true (test `b2`).
    Rate,
    /// Mean of a quantity with a known range (test `m2`). Values outside the range are clamped to it.
    Mean {
        /// Smallest value of the range.
        min: f64,
        /// Largest value of the range.
        max: f64,
    },
    /// Mean of a quantity that is never negative and has no known upper end (test `m2w`). Values above the cap count as the cap.
    CappedMean {
        /// The cap, for example the largest of a thousand values from yesterday.
        cap: f64,
    },
    /// Quantile of a positive quantity (test `q2`).
    Quantile {
        /// Level of the quantile, such as 0.99.
        level: f64,
    },
    /// The whole distribution of a positive quantity (test `d2`). `margin.absolute` is the largest acceptable difference between the
    /// distribution functions. Default 0.1.
    Distribution,
    /// The mix of classes (test `c2`). `margin.absolute` is the largest acceptable change of any class's share. Default 0.02.
    /// A class that control never showed is judged separately.
    Classes,
    /// Events per answer, where one answer can have several events (test `m2c`). Numbers above the 99.9 % quantile of control's answers
    /// count as that quantile. Under rules version 1, this is test `p2`, which assumes single events.
    Count,
    /// Share of mirrored calls whose two answers differ (test `pair`). It is compared with a limit.
    Disagreement,
}
