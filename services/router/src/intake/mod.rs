//! Feedback and other people's events over HTTP: accepted only when they are on the log.
//!
//! Entries are checked all at once and taken all or none; a caller that gets no 202 sends the same again, which is safe: the
//! same revision of feedback replaces itself, and intake drops a model server's event that it already has.

mod seldon;

use std::{collections::BTreeMap, sync::Arc};

use http::{HeaderValue, Response, StatusCode, header};
use hyper::body::Incoming;
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};
use serin_schemas::{
    ids::{EventTime, Generation, ModelName, RequestId, RolloutId, Span, Version},
    records::{Arm, Assignment, Feedback, Origin, Prediction, Writer},
};

use seldon::SeldonIn;

use crate::{
    answer,
    body::{self, AnswerBody, BodyError},
    call::LONGEST_ID,
    clock::Clock,
    config::span,
    events::{About, SendError},
    state::Shared,
};

/// Most values, classes or segments of one entry.
const MOST: usize = 64;
/// Longest name or class, in bytes.
const LONGEST: usize = 256;
/// How far ahead of the router's clock an event time may be: as far as intake takes it (its default `max_skew`).
const AHEAD: Span = Span(600 * 1_000_000);
/// The same for a replay clock, which stands still between two steps.
const AHEAD_OF_REPLAY: Span = Span(86_400 * 1_000_000);

/// A time: microseconds since 1970, or RFC 3339.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
enum Time {
    Micros(i64),
    Text(String),
}

impl Time {
    fn read(&self, field: &str, problems: &mut Vec<String>) -> Option<EventTime> {
        match self {
            Self::Micros(micros) => Some(EventTime(*micros)),
            Self::Text(text) => {
                let time = EventTime::from_rfc3339(text);
                if time.is_none() {
                    problems.push(format!("{field}: {text:?} is neither an RFC 3339 time nor microseconds since 1970"));
                }
                time
            }
        }
    }
}

/// A yes/no, numeric or categorical truth.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
enum Label {
    Yes(bool),
    Number(f64),
    Class(String),
}

/// Feedback as callers send it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct FeedbackIn {
    #[serde(alias = "request_id")]
    prediction_id: String,
    #[serde(default)]
    values: BTreeMap<String, f64>,
    #[serde(default)]
    classes: BTreeMap<String, String>,
    label: Option<Label>,
    observed_at: Option<Time>,
    #[serde(default)]
    revision: i64,
}

/// A prediction as a model server or a foreign log sends it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct PredictionIn {
    #[serde(alias = "request_id")]
    prediction_id: String,
    model: String,
    version: String,
    #[serde(default = "stable")]
    arm: Arm,
    rollout: Option<String>,
    #[serde(default)]
    generation: i64,
    completed_at: Option<Time>,
    latency_ms: Option<f64>,
    status: Option<i32>,
    error: Option<String>,
    invalid_output: Option<String>,
    #[serde(default)]
    outputs: BTreeMap<String, f64>,
    #[serde(default)]
    classes: BTreeMap<String, String>,
    #[serde(default)]
    segments: BTreeMap<String, String>,
}

fn stable() -> Arm {
    Arm::Stable
}

/// The router's time when a request came, and how far ahead of it a time may be.
#[derive(Clone, Copy, Debug)]
struct Now {
    /// `None` for a replay clock that was never set: everything may come then.
    at: Option<EventTime>,
    ahead: Span,
}

impl Now {
    fn of(clock: &Clock) -> Self {
        Self { at: clock.now(), ahead: if clock.is_replay() { AHEAD_OF_REPLAY } else { AHEAD } }
    }

    fn is_far_before(self, time: EventTime) -> bool {
        self.at.is_some_and(|now| time > now.plus(self.ahead))
    }

    /// The time that was sent, or now.
    fn or(self, time: Option<EventTime>) -> EventTime {
        time.or(self.at).unwrap_or_default()
    }
}

/// One or many.
enum Batch<T> {
    Entries(Vec<T>),
    Problems(Vec<String>),
}

/// `POST /v1/feedback`.
pub(crate) async fn feedback(shared: &Arc<Shared>, body: Incoming) -> Response<AnswerBody> {
    let now = Now::of(&shared.clock);
    door(shared, body, "feedback", move |entry: FeedbackIn| entry.check(now), send_feedback).await
}

/// `POST /api/v1.0/feedback`: Seldon's format.
pub(crate) async fn seldon_feedback(shared: &Arc<Shared>, body: Incoming) -> Response<AnswerBody> {
    let now = Now::of(&shared.clock);
    door(
        shared,
        body,
        "feedback",
        move |entry: SeldonIn| entry.into_ours().and_then(|entry| entry.check(now)),
        send_feedback,
    )
    .await
}

fn send_feedback(events: &crate::events::Events, feedback: &Feedback) -> Result<(), SendError> {
    let id = events.new_id();
    events.feedback(feedback.clone(), &About { id: &id, subject: "", arrived: feedback.observed_at })
}

/// `POST /v1/events`.
pub(crate) async fn events(shared: &Arc<Shared>, body: Incoming) -> Response<AnswerBody> {
    let now = Now::of(&shared.clock);
    door(
        shared,
        body,
        "events",
        move |entry: PredictionIn| entry.check(now),
        |events, prediction: &Prediction| {
            let about = About {
                id: prediction.request_id.as_str(),
                subject: prediction.model.as_str(),
                arrived: prediction.completed_at,
            };
            events.foreign(prediction, &about)
        },
    )
    .await
}

/// Reads, checks, sends and flushes what comes through one door.
async fn door<T: DeserializeOwned, R>(
    shared: &Arc<Shared>,
    body: Incoming,
    name: &'static str,
    check: impl Fn(T) -> Result<R, Vec<String>>,
    send: impl Fn(&crate::events::Events, &R) -> Result<(), SendError>,
) -> Response<AnswerBody> {
    let refused = |status, value: Value| {
        shared.metrics.intake(name, "refused", 1);
        answer::json(status, &value)
    };
    let config = shared.config();
    let limits = &config.limits;
    let pause = span(shared.config().timeouts.request);
    let bytes = match body::collect(body, shared.held.clone(), limits.intake_body, pause).await {
        Ok(bytes) => bytes,
        Err(BodyError::Slow) => {
            return refused(StatusCode::REQUEST_TIMEOUT, json!({"error": "the body did not come in time"}));
        }
        Err(BodyError::NoRoom) => {
            let text = "too many bodies wait in memory (limits.held); send the same again in a second";
            let mut answer = refused(StatusCode::SERVICE_UNAVAILABLE, json!({ "error": text }));
            answer.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
            return answer;
        }
        Err(BodyError::Broken) => return refused(StatusCode::BAD_REQUEST, json!({"error": "the body broke off"})),
        Err(BodyError::TooLarge) => {
            let text = format!("the body is larger than {} bytes; send smaller batches", limits.intake_body);
            return refused(StatusCode::PAYLOAD_TOO_LARGE, json!({ "error": text }));
        }
    };
    let records = match entries(&bytes, limits.intake_batch).and_checked(check) {
        Batch::Entries(records) => records,
        Batch::Problems(problems) => {
            return refused(StatusCode::BAD_REQUEST, json!({"error": "nothing was taken", "problems": problems}));
        }
    };
    let lost_before = shared.events.lost();
    let sent = records.iter().try_for_each(|record| send(&shared.events, record));
    let done = match sent {
        Ok(()) => shared.events.flush(lost_before).await,
        Err(error) => Err(error.to_string()),
    };
    match done {
        Ok(()) => {
            shared.metrics.intake(name, "accepted", records.len());
            answer::json(StatusCode::ACCEPTED, &json!({"accepted": records.len()}))
        }
        Err(cause) => {
            shared.metrics.intake(name, "failed", records.len());
            let text = format!("not known to be on the log ({cause}); send the same again");
            let mut response = answer::error(StatusCode::SERVICE_UNAVAILABLE, &text);
            response.headers_mut().insert(http::header::RETRY_AFTER, http::HeaderValue::from_static("1"));
            response
        }
    }
}

/// The entries of a body: one object or a list.
fn entries<T: DeserializeOwned>(body: &[u8], most: usize) -> Batch<(usize, T)> {
    let items = match serde_json::from_slice::<Value>(body) {
        Ok(Value::Array(items)) => items,
        Ok(item @ Value::Object(_)) => vec![item],
        Ok(_) => return Batch::Problems(vec!["the body must be an object or a list of objects".to_owned()]),
        Err(error) => return Batch::Problems(vec![format!("the body is no JSON: {error}")]),
    };
    if items.is_empty() || items.len() > most {
        return Batch::Problems(vec![format!("there are {} entries; send 1 to {most} at a time", items.len())]);
    }
    let (mut good, mut problems) = (Vec::with_capacity(items.len()), Vec::new());
    for (index, item) in items.into_iter().enumerate() {
        match serde_json::from_value(item) {
            Ok(entry) => good.push((index, entry)),
            Err(error) => problems.push(format!("[{index}]: {error}")),
        }
    }
    if problems.is_empty() { Batch::Entries(good) } else { Batch::Problems(problems) }
}

impl<T> Batch<(usize, T)> {
    /// Checks every entry and keeps every problem.
    fn and_checked<R>(self, check: impl Fn(T) -> Result<R, Vec<String>>) -> Batch<R> {
        let entries = match self {
            Self::Entries(entries) => entries,
            Self::Problems(problems) => return Batch::Problems(problems),
        };
        let (mut good, mut problems) = (Vec::with_capacity(entries.len()), Vec::new());
        for (index, entry) in entries {
            match check(entry) {
                Ok(record) => good.push(record),
                Err(found) => problems.extend(found.into_iter().map(|problem| format!("[{index}].{problem}"))),
            }
        }
        if problems.is_empty() { Batch::Entries(good) } else { Batch::Problems(problems) }
    }
}

impl FeedbackIn {
    fn check(self, now: Now) -> Result<Feedback, Vec<String>> {
        let mut problems = Vec::new();
        check_text("prediction_id", &self.prediction_id, LONGEST_ID, &mut problems);
        let (mut values, mut classes) = (self.values, self.classes);
        match self.label {
            None => {}
            Some(Label::Yes(yes)) => drop(values.insert("label".to_owned(), f64::from(u8::from(yes)))),
            Some(Label::Number(number)) => drop(values.insert("label".to_owned(), number)),
            Some(Label::Class(class)) => drop(classes.insert("label".to_owned(), class)),
        }
        if values.is_empty() && classes.is_empty() {
            problems.push("values: there is no truth in it; send values, classes or label".to_owned());
        }
        check_numbers("values", &values, &mut problems);
        check_texts("classes", &classes, &mut problems);
        // Only delays of labels are measured by it: a caller whose clock is ahead loses nothing.
        let observed_at = self.observed_at.and_then(|time| time.read("observed_at", &mut problems));
        let observed_at = now.or(observed_at.filter(|&time| !now.is_far_before(time)));
        if problems.is_empty() {
            let (request_id, revision) = (RequestId(self.prediction_id), self.revision);
            Ok(Feedback {
                request_id,
                observed_at,
                revision,
                values,
                classes,
                writer: Writer::default(),
                credential: None,
            })
        } else {
            Err(problems)
        }
    }
}

impl PredictionIn {
    fn check(self, now: Now) -> Result<Prediction, Vec<String>> {
        let mut problems = Vec::new();
        check_text("prediction_id", &self.prediction_id, LONGEST_ID, &mut problems);
        check_text("model", &self.model, LONGEST, &mut problems);
        check_text("version", &self.version, LONGEST, &mut problems);
        for (field, text) in [("error", &self.error), ("invalid_output", &self.invalid_output)] {
            if let Some(text) = text {
                check_text(field, text, LONGEST, &mut problems);
            }
        }
        check_numbers("outputs", &self.outputs, &mut problems);
        check_texts("classes", &self.classes, &mut problems);
        check_texts("segments", &self.segments, &mut problems);
        if self.latency_ms.is_some_and(|latency| !(0.0..=1e9).contains(&latency)) {
            problems.push("latency_ms: must be from 0 to 1e9".to_owned());
        }
        let completed_at = self.completed_at.and_then(|time| time.read("completed_at", &mut problems));
        if completed_at.is_some_and(|time| now.is_far_before(time)) {
            let minutes = now.ahead.0 / 60_000_000;
            problems.push(format!("completed_at: is more than {minutes} minutes ahead of the router's clock"));
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        Ok(Prediction {
            request_id: RequestId(self.prediction_id),
            model: ModelName(self.model),
            version: Version(self.version),
            arm: self.arm,
            assignment: Assignment::External,
            origin: Origin::Intake,
            rollout: self.rollout.map(RolloutId),
            generation: Generation(self.generation),
            completed_at: now.or(completed_at),
            latency_us: self.latency_ms.map(|latency| (latency * 1e3) as i64),
            status: self.status,
            error: self.error,
            invalid_output: self.invalid_output,
            outcome: None,
            unread: None,
            unit: None,
            outputs: self.outputs,
            classes: self.classes,
            segments: self.segments,
            writer: Writer::default(),
        })
    }
}

fn check_text(field: &str, text: &str, longest: usize, problems: &mut Vec<String>) {
    if text.is_empty() || text.len() > longest {
        problems.push(format!("{field}: must have 1 to {longest} bytes"));
    }
}

fn check_numbers(field: &str, numbers: &BTreeMap<String, f64>, problems: &mut Vec<String>) {
    check_names(field, numbers.keys(), numbers.len(), problems);
    for (name, number) in numbers {
        if !number.is_finite() {
            problems.push(format!("{field}.{name}: must be a finite number"));
        }
    }
}

fn check_texts(field: &str, texts: &BTreeMap<String, String>, problems: &mut Vec<String>) {
    check_names(field, texts.keys(), texts.len(), problems);
    for (name, text) in texts {
        if text.len() > LONGEST {
            problems.push(format!("{field}.{name}: must have at most {LONGEST} bytes"));
        }
    }
}

fn check_names<'a>(field: &str, names: impl Iterator<Item = &'a String>, count: usize, problems: &mut Vec<String>) {
    if count > MOST {
        problems.push(format!("{field}: has {count} entries; at most {MOST} are taken"));
    }
    for name in names.filter(|name| name.is_empty() || name.len() > LONGEST) {
        problems.push(format!("{field}: a name has {} bytes; it must have 1 to {LONGEST}", name.len()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check<T: DeserializeOwned, R>(
        body: &str,
        check: impl Fn(T) -> Result<R, Vec<String>>,
    ) -> Result<Vec<R>, String> {
        match entries::<T>(body.as_bytes(), 3).and_checked(check) {
            Batch::Entries(records) => Ok(records),
            Batch::Problems(problems) => Err(problems.join("\n")),
        }
    }

    const NOW: Now = Now { at: Some(EventTime(5_000_000)), ahead: AHEAD };

    fn feedback(body: &str) -> Result<Vec<Feedback>, String> {
        check(body, |entry: FeedbackIn| entry.check(NOW))
    }

    fn predictions(body: &str, now: Now) -> Result<Vec<Prediction>, String> {
        check(body, |entry: PredictionIn| entry.check(now))
    }

    #[test]
    fn a_time_far_ahead_is_refused_for_an_event_and_replaced_for_feedback() {
        let event = |at: i64| format!(r#"[{{"prediction_id":"a","model":"m","version":"v","completed_at":{at}}}]"#);
        let last = NOW.at.unwrap().plus(AHEAD);
        assert_eq!(predictions(&event(last.0), NOW).unwrap()[0].completed_at, last);
        insta::assert_snapshot!(predictions(&event(last.0 + 1), NOW).unwrap_err(),
            @"[0].completed_at: is more than 10 minutes ahead of the router's clock");
        let replay = Now { ahead: AHEAD_OF_REPLAY, ..NOW };
        assert_eq!(predictions(&event(last.0 + 1), replay).map(|found| found.len()), Ok(1));
        assert_eq!(predictions(&event(i64::MAX), Now { at: None, ..replay }).map(|found| found.len()), Ok(1));
        let truth = |at: i64| format!(r#"{{"prediction_id":"a","label":1,"observed_at":{at}}}"#);
        assert_eq!(feedback(&truth(last.0)).unwrap()[0].observed_at, last);
        assert_eq!(feedback(&truth(last.0 + 1)).unwrap()[0].observed_at, EventTime(5_000_000));
    }

    #[test]
    fn feedback_in_every_form() {
        let found = feedback(
            r#"[{"prediction_id":"a","label":true},
                {"request_id":"b","values":{"delay":-3.5},"observed_at":"1970-01-01T00:00:02Z","revision":2},
                {"prediction_id":"c","label":"fraud","observed_at":7}]"#,
        )
        .unwrap();
        assert_eq!((found[0].values["label"], found[0].observed_at), (1.0, EventTime(5_000_000)));
        assert_eq!(
            (found[1].values["delay"], found[1].observed_at, found[1].revision),
            (-3.5, EventTime(2_000_000), 2)
        );
        assert_eq!((found[2].classes["label"].as_str(), found[2].observed_at), ("fraud", EventTime(7)));
    }

    #[test]
    fn every_problem_is_named_with_its_place() {
        let late = r#"[{"prediction_id":"","observed_at":"soon"},
            {"prediction_id":"b","label":1,"observed_at":"1970"}]"#;
        insta::assert_snapshot!(feedback(late).unwrap_err(), @r#"
        [0].prediction_id: must have 1 to 128 bytes
        [0].values: there is no truth in it; send values, classes or label
        [0].observed_at: "soon" is neither an RFC 3339 time nor microseconds since 1970
        [1].observed_at: "1970" is neither an RFC 3339 time nor microseconds since 1970
        "#);
        insta::assert_snapshot!(feedback(r#"[{"prediction_id":"a","label":1,"lable":2},{}]"#).unwrap_err(), @r"
        [0]: unknown field `lable`, expected one of `prediction_id`, `request_id`, `values`, `classes`, `label`, `observed_at`, `revision`
        [1]: missing field `prediction_id`
        ");
        assert_eq!(feedback("[]").unwrap_err(), "there are 0 entries; send 1 to 3 at a time");
        assert_eq!(feedback("7").unwrap_err(), "the body must be an object or a list of objects");
        assert!(feedback("{").unwrap_err().starts_with("the body is no JSON: "));
        let event = |body: &str| predictions(body, Now { at: None, ahead: AHEAD }).map(|found| found.len());
        insta::assert_snapshot!(
            event(r#"{"prediction_id":"a","model":"m","version":"","latency_ms":-1}"#).unwrap_err(), @r"
        [0].version: must have 1 to 256 bytes
        [0].latency_ms: must be from 0 to 1e9
        ");
        assert_eq!(event(r#"{"prediction_id":"a","model":"m","version":"v1","outputs":{"p":0.5}}"#), Ok(1));
    }
}
