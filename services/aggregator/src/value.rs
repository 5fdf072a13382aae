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

/// The [scaled](crate::compiled::Metric::scaled) value of a metric.
#[derive(Clone, Debug)]
pub(crate) struct Observed<'a> {
    /// The value over all traffic.
    pub(crate) whole: Value<'a>,
    /// The value in segments.
    pub(crate) in_segments: InSegments<'a>,
}

/// The value of an answer in its segments.
#[derive(Clone, Debug)]
pub(crate) enum InSegments<'a> {
    /// That over all traffic.
    Same,
    /// The value of the row whose segments are known, if the call has several rows.
    Other(Value<'a>),
    /// That row has no value.
    Nothing,
}

/// No summary of the metric can hold the value.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NoSummary;

impl<'a> Observed<'a> {
    /// The same value everywhere.
    pub(crate) fn one(value: Value<'a>) -> Self {
        Self { whole: value, in_segments: InSegments::Same }
    }

    /// The value in segments, if there is one.
    pub(crate) fn in_segments(&self) -> Option<&Value<'a>> {
        match &self.in_segments {
            InSegments::Same => Some(&self.whole),
            InSegments::Other(value) => Some(value),
            InSegments::Nothing => None,
        }
    }
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
