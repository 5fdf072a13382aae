//! Newtypes for ids and quantities that must not be mixed up.
//!
//! All are transparent on the wire: a [`Generation`] is an Avro `long`, and a [`Version`] is an Avro `string`.

use std::fmt;

use serde::{Deserialize, Serialize};

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub String);

        impl $name {
            /// The text of the id.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                Self(text.to_owned())
            }
        }

        impl From<String> for $name {
            fn from(text: String) -> Self {
                Self(text)
            }
        }
    };
}

macro_rules! number_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub i64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}", self.0)
            }
        }
    };
}

text_id!(
    /// Name of a model in callers' requests, such as `flights`.
    ModelName
);
text_id!(
    /// Immutable identity of a version of a model: `v2`, a digest, or a number from a registry.
    Version
);
text_id!(
    /// The prediction id of the live call. Mirrors of the call have the same id, and feedback is joined by it.
    RequestId
);
text_id!(
    /// One attempt to move a model to a canary version. A `UUIDv7` in text form.
    RolloutId
);

number_id!(
    /// Number of a model's routing table. It only grows, and routers ignore older tables.
    Generation
);
number_id!(
    /// Position in a log at which reading continues: the offset *after* the last processed record.
    NextOffset
);
number_id!(
    /// Event time in microseconds since the Unix epoch, UTC.
    EventTime
);
number_id!(
    /// A time span in microseconds.
    Span
);

impl Version {
    /// The version as it is named in a sentence: `version 2` if the name starts with a digit, as a registry's numbers do. Any other
    /// name is used alone (`v2`, `challenger`).
    pub fn in_words(&self) -> String {
        let bare = self.0.starts_with(|first: char| first.is_ascii_digit());
        if bare { format!("version {self}") } else { self.0.clone() }
    }
}

impl Generation {
    /// The generation after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl EventTime {
    /// Creates an event time from whole Unix seconds.
    pub fn from_secs(secs: i64) -> Self {
        Self(secs.saturating_mul(1_000_000))
    }

    /// Adds `span`, saturating at the ends of the range.
    #[must_use]
    pub fn plus(self, span: Span) -> Self {
        Self(self.0.saturating_add(span.0))
    }

    /// Subtracts `span`, saturating at the ends of the range.
    #[must_use]
    pub fn minus(self, span: Span) -> Self {
        Self(self.0.saturating_sub(span.0))
    }

    /// The time span from `earlier` to this time.
    pub fn since(self, earlier: Self) -> Span {
        Span(self.0.saturating_sub(earlier.0))
    }

    /// End of the aligned window of length `window` that contains this time: windows are `[end - window, end)`.
    #[must_use]
    pub fn window_end(self, window: Span) -> Self {
        let length = window.0.max(1);
        Self(self.0.div_euclid(length).saturating_add(1).saturating_mul(length))
    }
}

impl Span {
    /// Creates a time span of whole seconds.
    pub fn from_secs(secs: i64) -> Self {
        Self(secs.saturating_mul(1_000_000))
    }

    /// The time span in seconds.
    pub fn as_secs_f64(self) -> f64 {
        self.0 as f64 / 1e6
    }
}

/// Creates a `UUIDv7` in text form, such as `0198f3c4-7b2a-7c6e-9d5f-3a1b2c4d5e6f`. Ids sort by time and are unique by `random`.
///
/// The caller provides time and randomness. `now_ms` is in milliseconds since the Unix epoch; negative values count as 0.
pub fn new_uuid_v7(now_ms: i64, random: [u8; 10]) -> String {
    let millis = u64::try_from(now_ms).unwrap_or(0);
    uuid::Builder::from_unix_timestamp_millis(millis, &random).into_uuid().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uuid_v7_contains_time_and_randomness() {
        assert_eq!(new_uuid_v7(1_763_719_276_000, [0xff; 10]), "019aa5dc-65e0-7fff-bfff-ffffffffffff");
        assert_eq!(new_uuid_v7(-5, [0; 10]), "00000000-0000-7000-8000-000000000000");
        assert!(new_uuid_v7(1, [0xff; 10]) < new_uuid_v7(2, [0; 10]), "later sorts later");
    }

    #[test]
    fn numbers_are_prefixed_with_version_and_names_are_not() {
        for (name, words) in [
            ("2", "version 2"),
            ("2.1.0", "version 2.1.0"),
            ("2024-05-01", "version 2024-05-01"),
            ("3f2a9c", "version 3f2a9c"),
            ("v2", "v2"),
            ("version 2", "version 2"),
            ("challenger", "challenger"),
            ("-1", "-1"),
            ("٢", "٢"),
            ("", ""),
        ] {
            assert_eq!(Version::from(name).in_words(), words);
        }
    }

    #[test]
    fn windows_are_aligned_and_half_open() {
        let window = Span::from_secs(10);
        let end = |secs| EventTime::from_secs(secs).window_end(window);
        assert_eq!(end(0), EventTime::from_secs(10));
        assert_eq!(end(10), EventTime::from_secs(20));
        assert_eq!(EventTime(-1).window_end(window), EventTime(0));
        assert_eq!(EventTime(i64::MAX).window_end(window), EventTime(i64::MAX));
    }
}
