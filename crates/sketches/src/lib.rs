//! Mergeable summaries of what an arm did in a window, and the hash that routers and folds share.
//!
//! Purpose: an aggregator fills one [`Summary`] per (arm, segment, metric, window). An analyzer merges the parts of a window
//! and tests the counts. Everything here is pure: no clock, no I/O, no random source.
//!
//! [`Digest`] is for display. It is not a [`Summary`], so no test can use it.
//!
//! Invariants of a [`Summary`]:
//! - Merging is exact, commutative and associative: any order and any partition of the same events gives equal bytes.
//! - Every count is an integer of at most 2^53 ([`MAX_COUNT`]), so it converts to `f64` without rounding.
//! - The edges of histograms depend only on constants, so any two histograms of one kind align.
//! - Bytes start with a version and a type. Decoding unknown, truncated or hostile bytes is an error, never a panic, and
//!   allocates at most a constant times the number of bytes.

mod bins;
mod buckets;
mod by_unit;
mod capped_hist;
mod class_counts;
mod digest;
mod error;
mod events;
pub mod hash;
mod kind;
mod lin_hist;
mod log_hist;
mod log_key;
mod moments;
mod pairs;
mod rate;
mod scatter;
mod summary;
mod varint;

pub use buckets::{Buckets, UNIT_BUCKETS, bucket_of};
pub use by_unit::{ByUnit, UNIT_GROUPS, group_hash, unit_group};
pub use capped_hist::CappedHist;
pub use class_counts::{ClassCounts, MAX_CLASS_BYTES, MAX_CLASSES};
pub use digest::Digest;
pub use error::{DecodeError, InsertError, MergeError};
pub use events::Events;
pub use kind::{FORMAT_VERSION, SummaryKind};
pub use lin_hist::{LIN_CELLS, LinHist};
pub use log_hist::{LogHist, ZERO_KEY, key_nearest_edge, key_of, lower_edge, upper_edge};
pub use log_key::{GAMMA, LN_GAMMA};
pub use moments::{Moments, UNITS_PER_ONE};
pub use pairs::{Pair, Pairs};
pub use rate::Rate;
pub use scatter::{Scatter, class_position, log_position};
pub use summary::Summary;

/// Largest number of observations in one summary: 2^53. Every integer up to it is exact in `f64`.
pub const MAX_COUNT: u64 = 1 << 53;
