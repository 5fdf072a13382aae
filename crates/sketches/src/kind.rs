//! The kinds of summaries, and the first two bytes of their encoding.

use std::fmt;

/// First byte of every encoded summary. A reader refuses any other version; a new layout needs a new version.
pub const FORMAT_VERSION: u8 = 1;

/// The kind of a summary. The number is the type byte of the encoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum SummaryKind {
    /// [`crate::Rate`].
    Rate = 1,
    /// [`crate::LogHist`].
    Log = 2,
    /// [`crate::LinHist`].
    Lin = 3,
    /// [`crate::CappedHist`].
    Capped = 4,
    /// [`crate::ClassCounts`].
    Classes = 5,
    /// [`crate::Moments`].
    Moments = 6,
    /// [`crate::Buckets`].
    Buckets = 7,
    /// [`crate::Events`].
    Events = 8,
    /// [`crate::Pairs`].
    Pairs = 9,
    /// [`crate::ByUnit`].
    ByUnit = 10,
}

impl fmt::Display for SummaryKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Rate => "rate",
            Self::Log => "log histogram",
            Self::Lin => "linear histogram",
            Self::Capped => "capped histogram",
            Self::Classes => "class counts",
            Self::Moments => "moments",
            Self::Buckets => "bucket sums",
            Self::Events => "events",
            Self::Pairs => "pairs",
            Self::ByUnit => "per-unit",
        })
    }
}
