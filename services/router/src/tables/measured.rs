//! Metrics of every call on a route, with labels that are resolved once.

use std::sync::OnceLock;

use opentelemetry::metrics::{BoundCounter, BoundHistogram};
use serin_schemas::records::Outcome;

/// Metrics of every call on a route, with labels that are resolved once.
#[derive(Debug)]
pub(crate) struct Measured {
    pub(crate) duration: BoundHistogram<f64>,
    /// By [`code_class`] and outcome.
    pub(crate) answers: [[OnceLock<BoundCounter<u64>>; Outcome::ALL.len()]; CODE_CLASSES.len()],
}

/// Values of the label `code_class`.
pub(crate) const CODE_CLASSES: [&str; 7] = ["none", "1xx", "2xx", "3xx", "4xx", "5xx", "other"];

/// The index of a status in [`CODE_CLASSES`].
pub(crate) fn code_class(status: Option<i32>) -> usize {
    match status.map(|status| status / 100) {
        None => 0,
        Some(class @ 1..=5) => class as usize,
        Some(_) => 6,
    }
}
