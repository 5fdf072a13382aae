//! Bodies as JSON values, independent of their encoding, for all rules that read them.

use http::HeaderName;
use serde_json::Value;

use crate::protocol::{json, tensors};

/// Length of the JSON part of a body with binary tensors.
pub(super) const JSON_LENGTH: HeaderName = HeaderName::from_static("inference-header-content-length");

/// How a body can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Encoding {
    /// JSON.
    Json,
    /// The binary tensor extension, with this many bytes of JSON at the start.
    Binary(usize),
}

impl Encoding {
    /// Reads a whole body.
    pub(crate) fn read(self, body: &[u8]) -> Option<Value> {
        match self {
            Self::Json => json::read(body),
            Self::Binary(length) => tensors::of_binary(body, length, json::read),
        }
    }
}
