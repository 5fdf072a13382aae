//! Predictions and feedback that others write, and what every door asks of them.
//!
//! A door is a way in: `POST /v1/feedback` and `POST /v1/events` of the router, the topics `feedback` and `predictions` of the
//! intake. All of them read with [`json`] and check with [`Bounds`], so they take and refuse the same things with the same
//! reasons. Each reason begins with the member that it is about.

pub mod cloud;
pub mod json;

use crate::Code;
use std::{collections::BTreeMap, fmt};

use crate::{
    ids::{EventTime, Span},
    records::{Feedback, Prediction},
};

/// Most entries of one map of a prediction, and most values and classes of one feedback together.
pub const MOST_VALUES: usize = 64;
/// Longest id, name, class or segment, in bytes.
pub const LONGEST_TEXT: usize = 256;
/// Longest latency, in milliseconds: 11 days.
const LONGEST_LATENCY_MS: f64 = 1e9;
/// Most names of one map that are named as wrong.
const MOST_NAMED: usize = 5;
/// Most characters of a wrong value that are shown.
const MOST_SHOWN: usize = 40;
/// The first time that is believed, in microseconds: March 1973. Earlier ones are milliseconds or seconds of today.
const FIRST_TIME: i64 = 100_000_000_000_000;
/// The first time that is not believed, in microseconds: the year 5138. Later ones are nanoseconds of today.
const END_OF_TIME: i64 = 100_000_000_000_000_000;
/// The largest revision where the door has no clock.
const LARGEST_REVISION: i64 = 1 << 53;

/// Why something is not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Stable code, such as `bad_value`.
    pub code: Code,
    /// What is wrong, for people; it begins with the member.
    pub message: String,
}

impl Refusal {
    /// A reason with its code.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// What a body is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// One answer of a model.
    Prediction,
    /// What a prediction led to.
    Feedback,
}

/// What an envelope says about a JSON body.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attributes {
    /// Id of the event.
    pub id: Option<String>,
    /// What it is about: the model.
    pub subject: Option<String>,
    /// When it happened.
    pub time: Option<EventTime>,
    /// The prediction that feedback is about.
    pub correlation: Option<String>,
}

/// What a door compares times and revisions with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// The door's clock in event time; `None` when it has none yet.
    pub now: Option<EventTime>,
    /// How far ahead of it a time may be.
    pub ahead: Span,
    /// The largest revision that is taken.
    pub largest_revision: i64,
}

impl Bounds {
    /// Bounds by a clock. A revision is a count from 0, or a time in microseconds or a coarser unit: nobody can send one that
    /// the time of tomorrow does not exceed, so no label is locked for ever. `wall` is the time of the machine or the log.
    pub fn new(now: Option<EventTime>, wall: EventTime, ahead: Span) -> Self {
        let largest_revision = if wall.0 > 0 { wall.plus(ahead).0 } else { LARGEST_REVISION };
        Self { now, ahead, largest_revision: largest_revision.max(1 << 32) }
    }

    /// The time that was sent, or now.
    pub fn or_now(&self, time: Option<EventTime>) -> EventTime {
        time.or(self.now).unwrap_or_default()
    }

    /// Finds all that is wrong with a prediction.
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

    /// Finds all that is wrong with feedback.
    pub fn check_feedback(&self, feedback: &Feedback) -> Vec<Refusal> {
        let mut problems = Vec::new();
        check_id(feedback.request_id.as_str(), &mut problems);
        let count = feedback.values.len() + feedback.classes.len();
        if count == 0 {
            let message =
                "values: there is no truth in it; send values, classes, truth, reward, label or score, and not null";
            problems.push(Refusal::new(Code::NoTruth, message));
        }
        if count > MOST_VALUES {
            let message = format!("values: {count} values and classes; one feedback may carry {MOST_VALUES}");
            problems.push(Refusal::new(Code::TooManyValues, message));
        }
        check_names("values", feedback.values.keys(), &mut problems);
        check_texts("classes", &feedback.classes, &mut problems);
        self.check_time("observed_at", feedback.observed_at, &mut problems);
        if !(0..=self.largest_revision).contains(&feedback.revision) {
            let message = format!(
                "revision: {} is not from 0 to the present time in microseconds; count revisions from 0, or send their \
                 time in microseconds or a coarser unit",
                feedback.revision
            );
            problems.push(Refusal::new(Code::BadRevision, message));
        }
        problems
    }

    /// Checks the unit of a time, and that it is not in the future. Where the clock itself stands before 1973 (a simulated
    /// one) every unit is possible.
    fn check_time(&self, member: &str, time: EventTime, problems: &mut Vec<Refusal>) {
        let clock_is_real = self.now.is_some_and(|now| (FIRST_TIME..END_OF_TIME).contains(&now.0));
        if clock_is_real && !(FIRST_TIME..END_OF_TIME).contains(&time.0) {
            let read = time.to_rfc3339().unwrap_or_else(|| "outside of the years 0 to 9999".to_owned());
            let looks = looks_like(time.0).map_or_else(String::new, |unit| format!(", so it looks like {unit}"));
            let message = format!(
                "{member}: {} is {read} when read as microseconds{looks}; send microseconds since 1970, or an RFC 3339 time",
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

/// The unit that a time of the present has, if it has this number.
fn looks_like(time: i64) -> Option<&'static str> {
    match time {
        100_000_000..100_000_000_000 => Some("seconds"),
        100_000_000_000..FIRST_TIME => Some("milliseconds"),
        END_OF_TIME.. => Some("nanoseconds"),
        _ => None,
    }
}

/// Finds what no router could have given out or taken from a caller, such as the `...` of an example or the end of a line.
fn check_id(id: &str, problems: &mut Vec<Refusal>) {
    if id.is_empty() {
        problems.push(Refusal::new(Code::MissingId, "prediction_id: is missing; nothing could be joined to it"));
        return;
    }
    check_text("prediction_id", id, problems);
    let wrong = if !id.chars().any(char::is_alphanumeric) {
        "has no letter and no digit"
    } else if id.chars().any(char::is_control) {
        "has a control character, such as the end of a line"
    } else if id.trim() != id {
        "begins or ends with a space"
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
    if latency < 0.0 {
        problems
            .push(Refusal::new(Code::NegativeLatency, format!("latency_ms: {latency}; a latency cannot be negative")));
    } else if latency > LONGEST_LATENCY_MS {
        let message = format!("latency_ms: {latency} is more than {LONGEST_LATENCY_MS} (11 days)");
        problems.push(Refusal::new(Code::BadValue, message));
    }
}

fn check_text(member: &str, text: &str, problems: &mut Vec<Refusal>) {
    if text.len() > LONGEST_TEXT {
        let message = format!("{member}: has {} bytes; at most {LONGEST_TEXT} are taken", text.len());
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
        let message = format!("{member}: has {} entries; at most {MOST_VALUES} are taken", names.len());
        problems.push(Refusal::new(Code::TooManyValues, message));
    }
    for name in names.filter(|name| name.is_empty() || name.len() > LONGEST_TEXT).take(MOST_NAMED) {
        let message = format!("{member}: a name has {} bytes; it must have 1 to {LONGEST_TEXT}", name.len());
        problems.push(Refusal::new(Code::BadValue, message));
    }
}
