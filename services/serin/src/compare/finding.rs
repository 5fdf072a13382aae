//! The findings of a comparison, as printed in JSON.

use serde::Serialize;
use serin_statistics::Scope;

/// Name of the t test.
pub(super) const T_TEST: &str = "paired t test";

/// The finding about one metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Finding {
    /// B is within the margin, or better.
    Pass,
    /// B is beyond the margin.
    Fail,
    /// Neither pass nor fail could be shown.
    Undecided,
    /// There is no limit, so the metric is only shown.
    Shown,
}

/// One line of the report.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Line {
    pub(super) metric: &'static str,
    pub(super) segment: String,
    pub(super) pairs: u64,
    pub(super) a: Option<f64>,
    pub(super) b: Option<f64>,
    pub(super) difference: Option<f64>,
    pub(super) low: Option<f64>,
    pub(super) high: Option<f64>,
    /// One-sided bounds of the difference at level `1 - alpha`. A line passes if the upper one is below the margin; for the mean
    /// prediction, if both are within it.
    pub(super) low_one_sided: Option<f64>,
    pub(super) high_one_sided: Option<f64>,
    pub(super) margin: Option<f64>,
    /// One-sided p-value of "beyond the margin".
    pub(super) p_beyond: Option<f64>,
    /// One-sided p-value of "beyond the margin", after Holm's correction over all lines with a limit.
    pub(super) p_beyond_holm: Option<f64>,
    /// One-sided p-value of "within the margin".
    pub(super) p_within: Option<f64>,
    pub(super) finding: Finding,
    pub(super) sentence: String,
    /// Name of the test.
    pub(super) test: &'static str,
    /// Number of pairs that the test needs, if there are fewer.
    pub(super) pairs_needed: Option<u64>,
    #[serde(skip)]
    pub(super) scope: Option<Scope>,
}

/// The whole comparison.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Report {
    pub(super) a: String,
    pub(super) b: String,
    pub(super) pairs: u64,
    pub(super) only_in_a: u64,
    pub(super) only_in_b: u64,
    pub(super) duplicates_in_a: u64,
    pub(super) duplicates_in_b: u64,
    pub(super) unlabelled: u64,
    pub(super) alpha: f64,
    /// Assumptions, one sentence each.
    pub(super) notes: Vec<String>,
    pub(super) lines: Vec<Line>,
    pub(crate) finding: Finding,
    pub(super) sentence: String,
}

/// The figures of a line.
#[derive(Clone, Copy)]
pub(super) struct Figures {
    pub(super) metric: &'static str,
    pub(super) pairs: u64,
    pub(super) a: Option<f64>,
    pub(super) b: Option<f64>,
    pub(super) difference: Option<f64>,
    /// Two-sided interval of the difference.
    pub(super) interval: Option<(f64, f64)>,
    /// The lower and the upper bound of the difference, each at the level of the interval.
    pub(super) one_sided: Option<(f64, f64)>,
    pub(super) margin: Option<f64>,
}
