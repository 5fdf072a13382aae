//! Codes for refused records and entries: one code for each cause, stable for dead letters, metrics and the HTTP doors.
//!
//! docs/dead-letters.md is generated from this table. A test compares them.

use std::fmt;

/// Declares the codes with their messages.
macro_rules! codes {
    ($($code:ident $text:literal: $meaning:literal, $fix:literal;)*) => {
        /// Why a record or an entry is refused.
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

            /// What the code means, in a sentence or two.
            pub const fn meaning(self) -> &'static str {
                match self { $(Self::$code => $meaning,)* }
            }

            /// How to fix it.
            pub const fn fix(self) -> &'static str {
                match self { $(Self::$code => $fix,)* }
            }
        }
    };
}

codes! {
    Garbage "garbage":
        "The bytes do not match the headers or the topic: they are truncated, have another schema, or are not JSON.",
        "Check the writers of this topic. `serin tail dead-letters` shows the source, the offset and the bytes.";
    Empty "empty":
        "The record has no value. Tombstones do not delete anything on this topic.",
        "Stop writing tombstones to this topic.";
    UnknownType "unknown_type":
        "The record has no `ce_type`, an unknown one, or one that does not belong on this topic.",
        "Set the headers that docs/records.md lists, or send the record to its own topic.";
    UnknownSchemaVersion "unknown_schema_version":
        "This build has no schema of that version.",
        "Upgrade readers before writers (docs/upgrade.md), then send the record again.";
    TooLarge "too_large":
        "The body is too large.",
        "Send a smaller body. docs/limits.md lists the limits.";
    NotAllowed "not_allowed":
        "The writer is not allowed to report on this model, or to send this kind of record.",
        "Allow the model for the writer or the topic (docs/trust.md), or send the record through one that has it.";
    MissingId "missing_id":
        "The record has no request id, so it cannot be joined.",
        "Send the `x-prediction-id` of the answer as `prediction_id`.";
    BadId "bad_id":
        "The request id has invalid characters or an invalid length.",
        "Send the id exactly as it is in the answer's `x-prediction-id`.";
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
        "The feedback has no value.",
        "Send at least one entry in `values`.";
    TooManyValues "too_many_values":
        "There are too many values.",
        "Send fewer values. docs/limits.md lists the limit.";
    ClassTooLong "class_too_long":
        "A class or a string value is longer than 256 bytes.",
        "Report a short class, not the whole text.";
    BadRevision "bad_revision":
        "The revision is negative or greater than the current time in microseconds.",
        "Use a counter, or the time of the correction in microseconds.";
    BadTime "bad_time":
        "The time is in seconds, milliseconds or nanoseconds. As microseconds it would be in the 1970s or thousands of years ahead.",
        "Send microseconds since 1970, or an RFC 3339 time (docs/protocols/feedback.md).";
    FarFuture "far_future":
        "The time is further ahead than a clock may be.",
        "Correct the writer's clock (docs/reliability.md).";
    NegativeLatency "negative_latency":
        "The latency is negative.",
        "Measure it with a monotonic clock.";
    BadSequence "bad_sequence":
        "The writer's sequence number or incarnation is invalid.",
        "Write to `events` only through a router, the intake or `POST /v1/events`.";
    OldIncarnation "old_incarnation":
        "The record was written by a process that a newer process with the same name has replaced.",
        "If a router was restarted, nothing. Otherwise give each router its own `router.name`.";
    BadControl "bad_control":
        "The analyzer cannot judge the rollout of a Control record. The rollout reports this and ends.",
        "The message names the setting. Correct the rollout file and apply it again.";
    BadClosedThrough "bad_closed_through":
        "A record of the progress of closed windows is invalid.",
        "Only the aggregator may write to `windows` (docs/topics.md).";
    BadWindow "bad_window":
        "A window does not fit its rollout.",
        "Only the aggregator may write to `windows` (docs/topics.md).";
    BadSummary "bad_summary":
        "A summary in a window cannot be read, or a cell is repeated.",
        "Only the aggregator may write to `windows` (docs/topics.md).";
    BadCount "bad_count":
        "A count in a window is out of range.",
        "Only the aggregator may write to `windows` (docs/topics.md).";
    UnknownMetric "unknown_metric":
        "A window has a metric that its rollout does not have.",
        "Only the aggregator may write to `windows` (docs/topics.md).";
    Unpaired "unpaired":
        "The request or the response of a call arrived from a payload logger, but not the other part within `doors.pair_within`.",
        "KServe's logger sends no response whose status is not 200 (docs/doors.md). If many responses are missing, check the logger's \
         queue. If `doors.max_pairs` is reached, raise it.";
    TooLong "too_long":
        "A command has an id, a name or a reason that is too long.",
        "Shorten it. docs/limits.md lists the limits.";
    Unwritable "unwritable":
        "The record that results from this one is larger than its topic allows.",
        "Raise `max.message.bytes` of the topic to the value that `serin topology check` expects, or split the input.";
    Panicked "panicked":
        "Serin panicked on this record. This is a bug in Serin.",
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
            let _ = writeln!(page, "| `{code}` | {} | {} |", code.meaning(), code.fix());
        }
        page
    }

    const HEAD: &str = "# Dead letters\n\n\
        A record that cannot be used does not stop a partition. It is written to the topic `dead-letters` in the same transaction, with its bytes, its source \
        topic,\npartition and offset, the stage that refused it, a code and a message. The HTTP doors (`POST /v1/feedback`, `POST /v1/events`) refuse an \
        entry with the same\ncodes. Nothing is lost: the bytes are kept for 14 days.\n\n\
        ```console\n\
        $ serin tail dead-letters --from-beginning --until-end\n\
        ```\n\n\
        `serin_stream_dead_letters_total{stage}` counts them, `serin_stream_dead_letter_codes_total{stage,code}` by cause. To process a record after its cause is \
        fixed, write its value and\nits headers to the source topic again.\n\n\
        | code | what it means | what to do |\n|---|---|---|\n";

    /// With `SERIN_WRITE_DOCS=1`, the test writes the page first.
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
    fn codes_are_unique_and_valid_as_metric_labels() {
        let texts: std::collections::BTreeSet<_> = Code::ALL.iter().map(|code| code.as_str()).collect();
        assert_eq!(texts.len(), Code::ALL.len());
        assert!(texts.iter().all(|text| text.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')));
    }
}
