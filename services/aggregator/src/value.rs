//! The value of one answer for a metric: a number or a class.

use std::borrow::Cow;

use serin_schemas::{records::Origin, view::PredictionView};
use serin_sketches::hash::Salt;

/// The value of one answer for a metric.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value<'a> {
    Number(f64),
    Class(Cow<'a, str>),
}

/// Hashes a class. Equal hashes mean the same class.
pub(crate) fn class_hash(class: &str) -> u64 {
    Salt::new(b"serin.class.equal").hash(class.as_bytes())
}

/// Whether the answer counts as an error under rules version 1: status 500 or above, no status, or an answer that broke off.
/// A model server's own event need not contain a status.
pub(crate) fn is_error(prediction: &PredictionView<'_>) -> bool {
    match prediction.status {
        Some(status) => status >= 500 || (status < 400 && prediction.error.is_some()),
        None => prediction.error.is_some() || prediction.origin == Origin::Router,
    }
}
