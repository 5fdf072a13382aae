//! Errors of summaries: a value that the summary cannot hold, a merge with another kind, malformed bytes.

use crate::SummaryKind;

/// Why a value was not added. The caller decides how to count it (for example as `invalid_output`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InsertError {
    /// NaN or an infinity.
    #[error("the value is not a finite number")]
    NotFinite,
    /// A negative value for a summary of non-negative values.
    #[error("the value is negative")]
    Negative,
    /// Outside the range of the summary.
    #[error("the value is outside the summary's range")]
    OutOfRange,
    /// The summary holds [`crate::MAX_COUNT`] observations.
    #[error("the summary is full (2^53 observations)")]
    Full,
}

/// Why two summaries were not merged. The target is unchanged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MergeError {
    /// Different kinds of summary.
    #[error("cannot merge a {found} summary into a {expected} summary")]
    Kind {
        /// Kind of the target.
        expected: SummaryKind,
        /// Kind of the other side.
        found: SummaryKind,
    },
    /// Capped histograms with different caps have different grids.
    #[error("cannot merge histograms capped at different values (grid keys {expected} and {found})")]
    Cap {
        /// Grid key of the target's cap.
        expected: i32,
        /// Grid key of the other cap.
        found: i32,
    },
    /// The merged counts or sums would overflow.
    #[error("the merged counts exceed 2^53 observations or the range of their sums")]
    Overflow,
}

/// Why bytes do not decode to a summary.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The bytes have a format version that this build does not know.
    #[error("unknown summary version {0}; this build reads version 1")]
    Version(u8),
    /// No summary has this type byte.
    #[error("unknown summary type {0}")]
    Type(u8),
    /// The bytes end too early.
    #[error("the summary is cut off")]
    Truncated,
    /// Bytes follow the summary.
    #[error("{0} bytes follow the summary")]
    TrailingBytes(usize),
    /// A number, order or bound that no encoder produces.
    #[error("the summary is malformed: {0}")]
    Malformed(&'static str),
}
