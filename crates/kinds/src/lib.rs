//! What a kind of metric is: one home for what lint, plan, simulate, aggregator and analyzer must agree on.
//!
//! So far: how kinds and their bounds are written ([`MetricKind`], [`MetricSource`], [`Margin`], [`Limit`]), what a window keeps of the
//! answers ([`MetricKind::empty`]), which values its number can have and whether harm can exceed a margin within them ([`Range`]),
//! how they are written for people ([`Unit`]), and what it is expected to show where nothing is known ([`MetricKind::usual_value`]).
//!
//! Law: what lint accepts, the analyzer can begin (a property test of `services/analyzer`).
//!
//! Pure: no clock, I/O or random source.

mod bounds;
mod kind;
mod range;
mod source;
mod summary;
mod unit;
mod usual;

pub use bounds::{Direction, Limit, Margin};
pub use kind::MetricKind;
pub use range::Range;
pub use source::MetricSource;
pub use summary::MOST_EVENTS;
pub use unit::{Unit, significant};
pub use usual::{CLASS_COUNT, CONCENTRATION, SIGMA};
