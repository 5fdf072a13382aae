//! Why a record or an entry is not taken: one code for each cause, stable for dead letters, metrics and the HTTP doors.
//!
//! docs/dead-letters.md is made of this table; a test compares them.

use std::fmt;

/// Declares the codes with their texts.
macro_rules! codes {
    ($($code:ident $text:literal: $meaning:literal, $way_out:literal;)*) => {
        /// Why a record or an entry is not taken.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Code {
            $(#[doc = $meaning] $code,)*
        }

        impl Code {
            /// Every code.
            pub const ALL: &[Self] = &[$(Self::$code),*];

            /// The code as it is written: `garbage`.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$code => $text,)* }
            }

            /// What it means, in a sentence or two.
            pub const fn meaning(self) -> &'static str {
                match self { $(Self::$code => $meaning,)* }
            }

            /// What to do about it.
            pub const fn way_out(self) -> &'static str {
                match self { $(Self::$code => $way_out,)* }
            }
        }
    };
}

codes! {
    Garbage "garbage":
        "The bytes are not what the headers or the topic say: cut off, not the schema that is named, not JSON.",
        "Look at who writes this topic. `serin tail dead-letters` shows the source, the offset and the bytes.";
    Empty "empty":
        "The record has no value. Nothing is deleted by a tombstone here.",
        "Stop writing tombstones to this topic.";
    UnknownType "unknown_type":
        "The record has no `ce_type`, a foreign one, or one that does not belong on this topic.",
        "Set the headers that docs/records.md lists, or send the record to its own topic.";
    UnknownSchemaVersion "unknown_schema_version":
        "This build has no schema of that version.",
        "Upgrade readers before writers (docs/upgrade.md), then send the record again.";
    TooLarge "too_large":
        "The body is larger than is taken.",
        "Send less: docs/limits.md lists the bounds.";
    NotAllowed "not_allowed":
        "The writer may not speak for this model, or may not send this.",
        "Give the writer or the topic the model (docs/trust.md), or send through one that has it.";
    MissingId "missing_id":
        "The record has no request id, so nothing could be joined to it.",
        "Send the `x-prediction-id` of the answer as `prediction_id`.";
    BadId "bad_id":
        "The request id has characters or a length that are not taken.",
        "Send the id exactly as the answer's `x-prediction-id` had it.";
    IdTooLong "id_too_long":
        "The request id is longer than 256 bytes.",
        "Use shorter ids.";
    MissingModel "missing_model":
        "The prediction does not name its model.",
        "Set `model`.";
    MissingVersion "missing_version":
        "The prediction does not name the version that answered.",
        "Set `version`.";
    BadValue "bad_value":
        "A member has a value of the wrong type or out of range. The message names it.",
        "Correct the member that the message names.";
    NoTruth "no_truth":
        "The feedback has no value, so it says nothing.",
        "Send at least one entry in `values`.";
    TooManyValues "too_many_values":
        "There are more values than are taken.",
        "Send fewer: docs/limits.md lists the bound.";
    ClassTooLong "class_too_long":
        "A class or a text value is longer than 256 bytes.",
        "Report a short class, not the whole text.";
    BadRevision "bad_revision":
        "The revision is negative or lies beyond the present time.",
        "Use a counter, or the time of the correction in microseconds.";
    BadTime "bad_time":
        "The time is in seconds, milliseconds or nanoseconds: read as microseconds it lies in the 1970s or thousands of years ahead.",
        "Send microseconds since 1970, or an RFC 3339 time (docs/protocols/feedback.md).";
    FarFuture "far_future":
        "The time is further ahead than any clock may be.",
        "Set the writer's clock (docs/reliability.md).";
    NegativeLatency "negative_latency":
        "The latency is below zero.",
        "Measure it with a clock that does not go back.";
    BadSequence "bad_sequence":
        "The writer's sequence number or incarnation cannot be.",
        "Do not write to `events` but through a router, the intake or `POST /v1/events`.";
    OldIncarnation "old_incarnation":
        "The record is of a process that a newer one with the same name has replaced.",
        "Nothing, if a router was restarted. Otherwise give each router its own `router.name`.";
    BadControl "bad_control":
        "The Control record of a rollout cannot be judged. The rollout says so and ends.",
        "Read the message; it names the setting. Correct the rollout file and apply it again.";
    BadClosedThrough "bad_closed_through":
        "A record that says how far windows are closed cannot be.",
        "Only the aggregator may write to `windows` (docs/topics.md).";
    BadWindow "bad_window":
        "A window does not fit its rollout.",
        "Only the aggregator may write to `windows` (docs/topics.md).";
    BadSummary "bad_summary":
        "A summary in a window cannot be read, or a cell is there twice.",
        "Only the aggregator may write to `windows` (docs/topics.md).";
    BadCount "bad_count":
        "A count in a window is out of range.",
        "Only the aggregator may write to `windows` (docs/topics.md).";
    UnknownMetric "unknown_metric":
        "A window has a metric that its rollout does not have.",
        "Only the aggregator may write to `windows` (docs/topics.md).";
    TooLong "too_long":
        "A command has an id, a name or a reason that is too long.",
        "Shorten it: docs/limits.md lists the bounds.";
    Unwritable "unwritable":
        "What comes of the record is larger than its topic takes.",
        "Raise `max.message.bytes` of the topic to what `serin topology check` expects; else split what was sent.";
    Panicked "panicked":
        "Serin failed at this record. This is a bug of Serin.",
        "Report it with the bytes of the dead letter.";
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::*;

    fn page() -> String {
        let mut page = String::from(HEAD);
        for code in Code::ALL {
            let _ = writeln!(page, "| `{code}` | {} | {} |", code.meaning(), code.way_out());
        }
        page
    }

    const HEAD: &str = "# Dead letters\n\n\
        A record that cannot be used does not stop a partition. It goes to the topic `dead-letters` in the same transaction, with its bytes, its source \
        topic,\npartition and offset, the stage that refused it, a code and a message. The HTTP doors (`POST /v1/feedback`, `POST /v1/events`) refuse an \
        entry with the same\ncodes. Nothing is lost: the bytes are kept for 14 days.\n\n\
        ```console\n\
        $ serin tail dead-letters --from-beginning --until-end\n\
        ```\n\n\
        `serin_stream_dead_letters_total{stage}` counts them, `serin_stream_dead_letter_codes_total{stage,code}` by cause. To use a record after its cause is \
        gone, write its value and\nits headers to the source topic again.\n\n\
        | code | what it means | what to do |\n|---|---|---|\n";

    /// With `SERIN_WRITE_DOCS=1` the test writes the page instead.
    #[test]
    fn the_page_of_dead_letters_is_current() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/dead-letters.md");
        if std::env::var_os("SERIN_WRITE_DOCS").is_some() {
            std::fs::write(path, page()).unwrap();
        }
        let kept = std::fs::read_to_string(path).unwrap_or_default();
        assert!(kept == page(), "docs/dead-letters.md is out of date: run this test with SERIN_WRITE_DOCS=1");
    }

    #[test]
    fn codes_are_words_of_metrics_and_each_is_there_once() {
        let texts: std::collections::BTreeSet<_> = Code::ALL.iter().map(|code| code.as_str()).collect();
        assert_eq!(texts.len(), Code::ALL.len());
        assert!(texts.iter().all(|text| text.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')));
    }
}
