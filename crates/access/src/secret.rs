//! Secrets from the configuration: compared in constant time, never printed.

use std::{borrow::Cow, fmt};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize, Serializer};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

/// Minimum length of a token, in characters. Shorter tokens can be guessed.
pub const TOKEN_MIN: usize = 16;

/// The problem with a token that is too short. `setting` names the token's setting.
pub fn short_token(setting: &str, token: &str) -> Option<String> {
    // A header's value is sent without the spaces around it.
    (token.trim().len() < TOKEN_MIN).then(|| {
        format!("{setting}: shorter than {TOKEN_MIN} characters; `openssl rand -hex 24` generates a suitable one")
    })
}

/// Whether a name is long and looks random, as tokens do. A configuration that swaps names and values has a token as a name, and a
/// problem must not repeat it.
pub fn looks_like_secret(name: &str) -> bool {
    let is_random = name.bytes().any(|byte| byte.is_ascii_digit()) && !name.contains(['-', '_', '.']);
    is_random && name.len() >= TOKEN_MIN
}

/// What logs and dumps show instead of a secret.
const HIDDEN: &str = "(hidden)";

/// A secret from the configuration. Neither its debug form nor its JSON shows it, and its memory is overwritten when
/// it is dropped. Every secret of every service has this type.
#[derive(Clone, Default, Deserialize)]
#[serde(transparent)]
pub struct Secret(SecretString);

impl Secret {
    /// Wraps a secret.
    pub fn new(text: impl Into<String>) -> Self {
        Self(SecretString::from(text.into()))
    }

    /// The secret itself.
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }

    /// Whether the secret is empty.
    pub fn is_empty(&self) -> bool {
        self.expose().is_empty()
    }

    /// Whether the secret equals `other`. Takes the same time wherever they differ and whatever their lengths.
    pub fn is(&self, other: &str) -> bool {
        self.digest().is(other)
    }

    /// The digest of the secret.
    pub(crate) fn digest(&self) -> Digest {
        Digest::of(self.expose())
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.is(other.expose())
    }
}

impl Eq for Secret {}

impl JsonSchema for Secret {
    fn schema_name() -> Cow<'static, str> {
        "Secret".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "description": "A secret. It is never shown.", "writeOnly": true})
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_empty() { "(none)" } else { HIDDEN })
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(if self.is_empty() { "" } else { HIDDEN })
    }
}

/// The SHA-256 of a secret, which is enough to recognize the secret.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Digest([u8; 32]);

impl Digest {
    fn of(text: &str) -> Self {
        Self(Sha256::digest(text.as_bytes()).into())
    }

    /// Reads 64 hexadecimal digits.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        let mut digest = [0; 32];
        for (byte, at) in digest.iter_mut().zip((0..64).step_by(2)) {
            *byte = u8::from_str_radix(&text[at..at + 2], 16).ok()?;
        }
        Some(Self(digest))
    }

    /// Whether this is the digest of `text`. Takes the same time wherever they differ.
    pub(crate) fn is(&self, text: &str) -> bool {
        self.0.ct_eq(&Self::of(text).0).into()
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(HIDDEN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_has_at_least_16_characters_without_the_spaces_around_it() {
        for short in ["", "0123456789abcde", "                    ", "  0123456789abcde  ", "\t\n0123456789\n"] {
            assert!(short_token("admin_token", short).is_some(), "{short:?}");
        }
        assert_eq!(short_token("admin_token", "0123456789abcdef"), None);
    }

    #[test]
    fn a_secret_is_compared_and_never_shown() {
        let secret = Secret::new("s3cret");
        assert!(secret.is("s3cret") && !secret.is("s3cre") && !secret.is(""));
        assert_eq!(format!("{secret:?}"), HIDDEN);
        assert_eq!(serde_json::to_string(&secret).unwrap(), "\"(hidden)\"");
    }
}
