//! Predictions and feedback from external systems, and the checks of every door.
//!
//! A door is an entry point: `POST /v1/feedback` and `POST /v1/events` of the router, and the topics `feedback` and `predictions` of
//! the intake. All doors parse with [`json`] and check with [`Bounds`], so they accept and refuse the same input for the same reasons.
//! Each message starts with the name of the member that it is about.

pub mod cloud;
pub mod grpc;
pub mod json;
pub mod lenient;
mod strict;

use crate::Code;
use std::{collections::BTreeMap, fmt};

use crate::{
    ids::{EventTime, Span},
    records::{Feedback, Prediction},
};

/// Maximum number of entries in a map of a prediction, and of values and classes together in one feedback.
pub const MOST_VALUES: usize = 64;
/// Maximum length of an id, name, class or segment, in bytes.
pub const LONGEST_TEXT: usize = 256;
/// Maximum latency, in milliseconds: 11 days.
const LONGEST_LATENCY_MS: f64 = 1e9;
/// Maximum number of reported names per map.
const MOST_NAMED: usize = 5;
/// Maximum number of characters of an invalid value in a message.
const MOST_SHOWN: usize = 40;
/// First accepted time, in microseconds: March 1973. Earlier values are current times in seconds or milliseconds.
const FIRST_TIME: i64 = 100_000_000_000_000;
/// End of the accepted times, in microseconds: the year 5138. Later values are current times in nanoseconds.
const END_OF_TIME: i64 = 100_000_000_000_000_000;
/// Times from this number on are nanoseconds, of 2001 or later.
const FIRST_NANOSECONDS: i64 = 1_000_000_000_000_000_000;
/// Maximum revision if the door has no clock.
const LARGEST_REVISION: i64 = 1 << 53;

/// Why a record or an entry is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Stable code, such as `bad_value`.
    pub code: Code,
    /// What is wrong. The message starts with the name of the member.
    pub message: String,
}

impl Refusal {
    /// Creates a refusal with its code.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// Kind of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// One answer of a model.
    Prediction,
    /// The outcome of a prediction, such as a label.
    Feedback,
}

/// Attributes of the envelope of a JSON body.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attributes {
    /// Id of the event.
    pub id: Option<String>,
    /// Subject of the event: the model.
    pub subject: Option<String>,
    /// Time of the event.
    pub time: Option<EventTime>,
    /// Id of the prediction that the feedback is about.
    pub correlation: Option<String>,
}

/// Limits of a door for times and revisions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// The door's clock in event time; `None` if it has no clock yet.
    pub now: Option<EventTime>,
    /// How far a time may be ahead of the door's clock.
    pub ahead: Span,
    /// Maximum revision.
    pub largest_revision: i64,
}

impl Bounds {
    /// Creates the limits for a clock. `wall` is the time of the machine or of the log.
    ///
    /// A revision is a count from 0, or a time in microseconds or a coarser unit. Later times always exceed the maximum revision of
    /// today, so a label can always be corrected.
    pub fn new(now: Option<EventTime>, wall: EventTime, ahead: Span) -> Self {
        let largest_revision = if wall.0 > 0 { wall.plus(ahead).0 } else { LARGEST_REVISION };
        Self { now, ahead, largest_revision: largest_revision.max(1 << 32) }
    }

    /// The time in the body, or the current time if there is none.
    pub fn or_now(&self, time: Option<EventTime>) -> EventTime {
        time.or(self.now).unwrap_or_default()
    }

    /// Returns all problems of a prediction.
    pub fn check_prediction(&self, prediction: &Prediction) -> Vec<Refusal> {
        let mut problems = Vec::new();
        check_id(prediction.request_id.as_str(), &mut problems);
        for (member, code, text) in [
            ("model", Code::MissingModel, prediction.model.as_str()),
            ("version", Code::MissingVersion, prediction.version.as_str()),
        ] {
            if text.is_empty() {
                problems.push(Refusal::new(code, format!("{member}: is missing")));
            } else {
                check_text(member, text, &mut problems);
            }
        }
        for (member, text) in [("error", &prediction.error), ("invalid_output", &prediction.invalid_output)] {
            check_text(member, text.as_deref().unwrap_or_default(), &mut problems);
        }
        check_latency(prediction.latency_us.map(|latency| latency as f64 / 1e3), &mut problems);
        if prediction.status.is_some_and(|status| !(0..=999).contains(&status)) {
            problems.push(Refusal::new(Code::BadValue, "status: expected 0 to 999"));
        }
        check_names("outputs", prediction.outputs.keys(), &mut problems);
        check_texts("classes", &prediction.classes, &mut problems);
        check_texts("segments", &prediction.segments, &mut problems);
        self.check_time("completed_at", prediction.completed_at, &mut problems);
        problems
    }

    /// Returns all problems of feedback.
    pub fn check_feedback(&self, feedback: &Feedback) -> Vec<Refusal> {
        let mut problems = Vec::new();
        check_id(feedback.request_id.as_str(), &mut problems);
        let count = feedback.values.len() + feedback.classes.len();
        if count == 0 {
            let message =
                "values: the feedback has no value; send values, classes, truth, reward, label or score, and not null";
            problems.push(Refusal::new(Code::NoTruth, message));
        }
        if count > MOST_VALUES {
            let message = format!("values: {count} values and classes; one feedback may have at most {MOST_VALUES}");
            problems.push(Refusal::new(Code::TooManyValues, message));
        } else {
            check_names("values", feedback.values.keys(), &mut problems);
            check_texts("classes", &feedback.classes, &mut problems);
        }
        self.check_time("observed_at", feedback.observed_at, &mut problems);
        if !(0..=self.largest_revision).contains(&feedback.revision) {
            let message = format!(
                "revision: {} is not between 0 and the current time in microseconds; count revisions from 0, or send their \
                 time in microseconds or a coarser unit",
                feedback.revision
            );
            problems.push(Refusal::new(Code::BadRevision, message));
        }
        problems
    }

    /// Checks the unit of a time, and that it is not in the future. If the clock itself is before 1973 (in a simulation), every
    /// unit is accepted.
    fn check_time(&self, member: &str, time: EventTime, problems: &mut Vec<Refusal>) {
        let clock_is_real = self.now.is_some_and(|now| (FIRST_TIME..END_OF_TIME).contains(&now.0));
        // A year ahead of the clocks of today is a time in microseconds, unless it looks like another unit.
        let is_far = time.0 >= END_OF_TIME && looks_like(time.0).is_none() && time.to_rfc3339().is_some();
        let is_other_unit = !is_far && !(FIRST_TIME..END_OF_TIME).contains(&time.0);
        if clock_is_real && is_other_unit {
            let read = time.to_rfc3339().unwrap_or_else(|| "outside of the years 0 to 9999".to_owned());
            let looks = looks_like(time.0).map_or_else(String::new, |unit| format!(", so it looks like {unit}"));
            let message = format!(
                "{member}: {} is {read} in microseconds{looks}; send microseconds since 1970, or an RFC 3339 time",
                time.0
            );
            problems.push(Refusal::new(Code::BadTime, message));
        } else if self.now.is_some_and(|now| time > now.plus(self.ahead)) {
            let read = time.to_rfc3339().unwrap_or_else(|| time.to_string());
            let minutes = self.ahead.0 / 60_000_000;
            let message = format!("{member}: {read} is more than {minutes} minutes ahead of the clock here");
            problems.push(Refusal::new(Code::FarFuture, message));
        }
    }
}

/// The unit in which this number is a current time.
fn looks_like(time: i64) -> Option<&'static str> {
    match time {
        100_000_000..100_000_000_000 => Some("seconds"),
        100_000_000_000..FIRST_TIME => Some("milliseconds"),
        FIRST_NANOSECONDS.. => Some("nanoseconds"),
        _ => None,
    }
}

/// Checks for ids that no router creates or accepts, such as the `...` of an example, or an id with a line break.
fn check_id(id: &str, problems: &mut Vec<Refusal>) {
    if id.is_empty() {
        problems
            .push(Refusal::new(Code::MissingId, "prediction_id: is missing; the record cannot be joined without it"));
        return;
    }
    check_text("prediction_id", id, problems);
    let wrong = if !id.chars().any(char::is_alphanumeric) {
        "has no letter or digit"
    } else if id.chars().any(char::is_control) {
        "has a control character, such as a line break"
    } else if id.trim() != id {
        "starts or ends with a space"
    } else {
        return;
    };
    let shown: String = id.escape_debug().take(MOST_SHOWN).collect();
    let message = format!(
        "prediction_id: \"{shown}\" {wrong}; send the `x-prediction-id` of the answer, such as \
         01a1fdf2-e203-7756-a29c-be600cee7e09"
    );
    problems.push(Refusal::new(Code::BadId, message));
}

fn check_latency(latency_ms: Option<f64>, problems: &mut Vec<Refusal>) {
    let Some(latency) = latency_ms else { return };
    let shown = if latency.abs() < 1e15 { latency.to_string() } else { format!("{latency:e}") };
    if latency < 0.0 {
        problems
            .push(Refusal::new(Code::NegativeLatency, format!("latency_ms: {shown}; a latency cannot be negative")));
    } else if latency > LONGEST_LATENCY_MS {
        let message = format!("latency_ms: {shown} is more than {LONGEST_LATENCY_MS} (11 days)");
        problems.push(Refusal::new(Code::BadValue, message));
    }
}

fn check_text(member: &str, text: &str, problems: &mut Vec<Refusal>) {
    if text.len() > LONGEST_TEXT {
        let message = format!("{member}: has {} bytes; the maximum is {LONGEST_TEXT}", text.len());
        problems.push(Refusal::new(Code::BadValue, message));
    }
}

fn check_texts(member: &str, texts: &BTreeMap<String, String>, problems: &mut Vec<Refusal>) {
    check_names(member, texts.keys(), problems);
    let long = texts.iter().filter(|(name, text)| name.len() <= LONGEST_TEXT && text.len() > LONGEST_TEXT);
    for (name, text) in long.take(MOST_NAMED) {
        check_text(&format!("{member}.{name}"), text, problems);
    }
}

fn check_names<'a>(member: &str, names: impl ExactSizeIterator<Item = &'a String>, problems: &mut Vec<Refusal>) {
    if names.len() > MOST_VALUES {
        let message = format!("{member}: has {} entries; the maximum is {MOST_VALUES}", names.len());
        problems.push(Refusal::new(Code::TooManyValues, message));
    }
    for name in names.filter(|name| name.is_empty() || name.len() > LONGEST_TEXT).take(MOST_NAMED) {
        let message = format!("{member}: a name has {} bytes; it must have 1 to {LONGEST_TEXT}", name.len());
        problems.push(Refusal::new(Code::BadValue, message));
    }
}
