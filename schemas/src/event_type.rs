//! The type of a record on the wire, `dev.serin.<record>.v<version>`, and `CloudEvents` attributes in headers.

use crate::headers::Headers;

/// Prefix of the types of all our records.
const TYPE_PREFIX: &str = "dev.serin.";

/// The headers do not name a record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EnvelopeError {
    /// There is no `ce_type`.
    #[error("the record has no `ce_type` header")]
    NoType,
    /// `ce_type` is not the type of one of our records.
    #[error("`ce_type` {found:?} is not of the form `{TYPE_PREFIX}<record>.v<version>`")]
    ForeignType {
        /// The value of `ce_type`, cut at 100 characters.
        found: String,
    },
}

/// Returns the name and version of the record with these headers, such as `("prediction", 1)`.
pub fn record_type(headers: &Headers) -> Result<(&str, u32), EnvelopeError> {
    let found = text(headers, "type").ok_or(EnvelopeError::NoType)?;
    found
        .strip_prefix(TYPE_PREFIX)
        // Searching for a letter first is cheaper than searching for `.v`.
        .and_then(|rest| rest.rsplit_once('v'))
        .and_then(|(name, version)| Some((name.strip_suffix('.')?, version.parse().ok()?)))
        .ok_or_else(|| EnvelopeError::ForeignType { found: found.chars().take(100).collect() })
}

/// The type of a record on the wire.
pub(crate) fn type_of(name: &str, version: u32) -> String {
    format!("{TYPE_PREFIX}{name}.v{version}")
}

/// The first usable value of a `CloudEvents` attribute.
pub(crate) fn text<'a>(headers: &'a Headers, attribute: &str) -> Option<&'a str> {
    headers.raw().filter(|(name, _)| is_attribute(name, attribute)).find_map(|(_, value)| utf8(value))
}

fn is_attribute(bytes: &[u8], attribute: &str) -> bool {
    bytes.len() == attribute.len() + 3
        && bytes[..2].eq_ignore_ascii_case(b"ce")
        && matches!(bytes[2], b'_' | b'-')
        && bytes[3..].eq_ignore_ascii_case(attribute.as_bytes())
}

pub(crate) fn utf8(value: &[u8]) -> Option<&str> {
    std::str::from_utf8(value).ok().filter(|text| !text.is_empty())
}
