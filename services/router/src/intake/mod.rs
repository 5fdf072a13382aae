//! Feedback and external events over HTTP. They are accepted only once they are on the log.
//!
//! Access is checked first (`access`): the sender is a writer with a token, or, on loopback and without configured writers, a process on
//! this machine. Bodies are read and checked as the intake reads its topics ([`serin_schemas::foreign`]). The good entries of a list are
//! accepted and the bad ones reported (207), so a bad entry does not affect others. A client that gets a 503 sends the same again, which is
//! safe: the same revision of feedback replaces itself, and the intake drops an event that it already has.

mod access;
pub(crate) mod doors;
mod seldon;

use serin_schemas::Code;
use std::{net::SocketAddr, sync::Arc};

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header, request};
use serde_json::{Value, json};
use serin_access::Door;
use serin_doors::half::Half;
use serin_schemas::{
    foreign::{Attributes, Bounds, Kind, Refusal, cloud, json as body_json},
    ids::Span,
    records::{Credential, Feedback, Prediction},
};

use crate::{
    body::request::{BodyError, CallerBody, collect},
    call::answer,
    clock::Clock,
    config::span,
    events::{About, Events, SendError},
    intake::access::Granted,
    protocol::decoder::{DecodeError, Decoder},
    report::passing::AnswerBody,
    state::Shared,
};

/// How far event times may be ahead of the router's clock: the default of the intake's `max_skew`.
const AHEAD: Span = Span(600 * 1_000_000);
/// The same limit for a replay clock, which does not move between two steps.
const AHEAD_OF_REPLAY: Span = Span(86_400 * 1_000_000);
/// Maximum number of problems in one answer.
const MOST_PROBLEMS: usize = 100;

/// Bounds of event times and revisions at this moment.
fn bounds(clock: &Clock) -> Bounds {
    let ahead = if clock.is_replay() { AHEAD_OF_REPLAY } else { AHEAD };
    Bounds::new(clock.now(), clock.source().wall(), ahead)
}

/// A record that was read from a body.
enum Taken {
    Feedback(Feedback),
    Prediction(Box<Prediction>),
    /// The request or the response of a call.
    Half(Box<Half>),
}

impl Taken {
    fn feedback(&self) -> Option<&Feedback> {
        if let Self::Feedback(feedback) = self { Some(feedback) } else { None }
    }

    fn send(&self, events: &Events) -> Result<(), SendError> {
        match self {
            // Labels of a row that is not used.
            Self::Feedback(feedback) if feedback.is_empty() => Ok(()),
            Self::Feedback(feedback) => {
                let id = events.new_id();
                events.feedback(feedback.clone(), &About { id: &id, subject: "", arrived: feedback.observed_at })
            }
            Self::Prediction(prediction) => {
                let about = About {
                    id: prediction.request_id.as_str(),
                    subject: prediction.model.as_str(),
                    arrived: prediction.completed_at,
                };
                events.foreign(prediction, &about)
            }
            Self::Half(half) => events.half(half),
        }
    }
}

/// Reads one entry of a body.
type Reader = fn(Value, &Bounds, &Granted) -> Result<Taken, Vec<Refusal>>;

/// `POST /v1/feedback`.
pub(crate) async fn feedback(
    shared: &Arc<Shared>,
    head: &request::Parts,
    at: SocketAddr,
    body: CallerBody,
) -> Response<AnswerBody> {
    door(shared, head, at, body, Door::Feedback, read_feedback).await
}

/// `POST /api/v1.0/feedback`: Seldon's format.
pub(crate) async fn seldon_feedback(
    shared: &Arc<Shared>,
    head: &request::Parts,
    at: SocketAddr,
    body: CallerBody,
) -> Response<AnswerBody> {
    door(shared, head, at, body, Door::Feedback, |entry, bounds, granted| {
        read_feedback(seldon::into_ours(entry)?, bounds, granted)
    })
    .await
}

/// `POST /v1/events`.
pub(crate) async fn events(
    shared: &Arc<Shared>,
    head: &request::Parts,
    at: SocketAddr,
    body: CallerBody,
) -> Response<AnswerBody> {
    door(shared, head, at, body, Door::Events, read_event).await
}

fn read_feedback(entry: Value, bounds: &Bounds, granted: &Granted) -> Result<Taken, Vec<Refusal>> {
    let (entry, about) = opened(entry, Kind::Feedback)?;
    let mut feedback = body_json::feedback(&entry, &about, bounds)?;
    feedback.credential = granted
        .writer
        .as_ref()
        .map(|writer| Credential { writer: writer.name().to_owned(), models: writer.models().to_vec() });
    Ok(Taken::Feedback(feedback))
}

fn read_event(entry: Value, bounds: &Bounds, granted: &Granted) -> Result<Taken, Vec<Refusal>> {
    let (entry, about) = opened(entry, Kind::Prediction)?;
    let prediction = body_json::prediction(&entry, &about, bounds)?;
    granted.covers(prediction.model.as_str())?;
    Ok(Taken::Prediction(Box::new(prediction)))
}

/// The body of an entry, and the attributes of the `CloudEvents` envelope around it.
fn opened(entry: Value, expected: Kind) -> Result<(Value, Attributes), Vec<Refusal>> {
    if !cloud::is_structured(&entry) {
        return Ok((entry, Attributes::default()));
    }
    let opened = cloud::open(entry, expected).map_err(|refusal| vec![refusal])?;
    match opened.data {
        cloud::Data::Json(value) if opened.kind == expected && opened.version == cloud::JSON_VERSION => {
            Ok((value, opened.about))
        }
        cloud::Data::Json(_) => {
            let message = "type: this path accepts another kind of event, in version 1";
            Err(vec![Refusal::new(Code::UnknownType, message)])
        }
        cloud::Data::Bytes(_) => Err(vec![Refusal::new(Code::Garbage, "datacontenttype: this path accepts JSON")]),
    }
}

/// Checks access, then reads, checks, sends and flushes the entries of one request. `at` is the address that the caller connected to.
async fn door(
    shared: &Arc<Shared>,
    head: &request::Parts,
    at: SocketAddr,
    body: CallerBody,
    door: Door,
    read: Reader,
) -> Response<AnswerBody> {
    let (granted, bytes) = match received(shared, head, at, body, door, door.as_str()).await {
        Ok(received) => received,
        Err(refused) => return refused,
    };
    let sorted = match entries(&bytes, shared.config().limits.intake_batch) {
        Ok(entries) => sort(entries, &bounds(&shared.clock), &granted, read),
        Err(problem) => Sorted { taken: Vec::new(), bad: 1, problems: vec![problem] },
    };
    accepted(shared, door.as_str(), sorted, StatusCode::ACCEPTED).await
}

/// Checks access, and reads the body of one request to the door `name`. Otherwise it returns the answer.
async fn received(
    shared: &Arc<Shared>,
    head: &request::Parts,
    at: SocketAddr,
    body: CallerBody,
    door: Door,
    name: &'static str,
) -> Result<(Granted, Bytes), Response<AnswerBody>> {
    let refused = |status, value: Value| {
        shared.metrics.intake(name, "refused", 1);
        answer::json(status, &value)
    };
    let granted = access::ask(&shared.writers.load(), head, at, door).map_err(|refusal| {
        shared.metrics.intake(name, "unauthorized", 1);
        access::answer(&refusal)
    })?;
    let config = shared.config();
    let limits = &config.limits;
    let pause = span(config.timeouts.request);
    let bytes = match collect(body, shared.held.clone(), limits.intake_body, pause).await {
        Ok(bytes) => bytes,
        Err(BodyError::Slow) => {
            return Err(refused(StatusCode::REQUEST_TIMEOUT, json!({"error": "the body did not arrive in time"})));
        }
        Err(BodyError::NoRoom) => {
            let text = "too many bodies are held in memory (limits.held); retry in a second";
            let mut answer = refused(StatusCode::SERVICE_UNAVAILABLE, json!({ "error": text }));
            answer.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
            return Err(answer);
        }
        Err(BodyError::Broken) => {
            return Err(refused(StatusCode::BAD_REQUEST, json!({"error": "the body ended early"})));
        }
        Err(BodyError::TooLarge) => {
            let text = format!("the body is larger than {} bytes; send smaller batches", limits.intake_body);
            return Err(refused(StatusCode::PAYLOAD_TOO_LARGE, json!({ "error": text })));
        }
    };
    let decoded = Decoder::of(&head.headers, limits.intake_body as u64).and_then(|decoder| match decoder {
        Some(decoder) => decoder.whole(&bytes).map(Bytes::from),
        None => Ok(bytes),
    });
    match decoded {
        Ok(bytes) => Ok((granted, bytes)),
        Err(error) => {
            let status = match error {
                DecodeError::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
                DecodeError::Unknown => StatusCode::UNSUPPORTED_MEDIA_TYPE,
                DecodeError::Broken => StatusCode::BAD_REQUEST,
            };
            let text =
                format!("the body cannot be read: {error}; send it uncompressed, or as gzip, deflate, br or zstd");
            Err(refused(status, json!({ "error": text })))
        }
    }
}

/// Sends the good entries of one request, and answers it: with `whole` if all entries are good.
async fn accepted(
    shared: &Arc<Shared>,
    name: &'static str,
    Sorted { taken, bad, problems }: Sorted,
    whole: StatusCode,
) -> Response<AnswerBody> {
    if taken.is_empty() {
        shared.metrics.intake(name, "refused", 1);
        let answer = json!({"error": "no entry was accepted", "problems": problems});
        return answer::json(StatusCode::BAD_REQUEST, &answer);
    }
    if let Err(cause) = send(shared, &taken).await {
        shared.metrics.intake(name, "failed", taken.len());
        return doors::unavailable(&cause);
    }
    shared.metrics.intake(name, "accepted", taken.len());
    if bad == 0 {
        return answer::json(whole, &json!({"accepted": taken.len()}));
    }
    shared.metrics.intake(name, "refused", bad);
    let answer = json!({"accepted": taken.len(), "refused": bad, "problems": problems});
    answer::json(StatusCode::MULTI_STATUS, &answer)
}

/// Puts records on the log, and waits until they are on it.
async fn send(shared: &Shared, taken: &[Taken]) -> Result<(), String> {
    if taken.is_empty() {
        return Ok(());
    }
    for feedback in taken.iter().filter_map(Taken::feedback) {
        shared.labels.note(feedback.values.keys().chain(feedback.classes.keys()).map(String::as_str));
    }
    let lost_before = shared.events.lost();
    taken.iter().try_for_each(|record| record.send(&shared.events)).map_err(|error| error.to_string())?;
    shared.events.flush(lost_before).await
}

/// The entries of a body: one object or the items of a list.
fn entries(body: &[u8], most: usize) -> Result<Vec<Value>, String> {
    let items = match body_json::parse(body) {
        Ok(Value::Array(items)) => items,
        Ok(item @ Value::Object(_)) => vec![item],
        Ok(_) => return Err("the body must be an object or a list of objects".to_owned()),
        Err(refusal) => return Err(refusal.message),
    };
    if items.is_empty() || items.len() > most {
        return Err(format!("the body has {} entries; send 1 to {most} at a time", items.len()));
    }
    Ok(items)
}

/// The good entries, the number of bad ones, and their problems.
struct Sorted {
    taken: Vec<Taken>,
    bad: usize,
    problems: Vec<String>,
}

fn sort(entries: Vec<Value>, bounds: &Bounds, granted: &Granted, read: Reader) -> Sorted {
    sort_with(entries.into_iter(), |entry| read(entry, bounds, granted))
}

fn sort_with<E>(
    entries: impl ExactSizeIterator<Item = E>,
    mut read: impl FnMut(E) -> Result<Taken, Vec<Refusal>>,
) -> Sorted {
    let mut sorted = Sorted { taken: Vec::with_capacity(entries.len()), bad: 0, problems: Vec::new() };
    for (index, entry) in entries.enumerate() {
        match read(entry) {
            Ok(record) => sorted.taken.push(record),
            Err(found) => {
                sorted.bad += 1;
                let room = MOST_PROBLEMS.saturating_sub(sorted.problems.len());
                sorted.problems.extend(found.into_iter().take(room).map(|problem| format!("[{index}].{problem}")));
            }
        }
    }
    sorted
}

#[cfg(test)]
mod tests {
    use serin_schemas::ids::EventTime;

    use super::*;

    /// 2025-11-30T05:20:00Z.
    const NOW: EventTime = EventTime(1_764_480_000_000_000);

    fn sorted(body: &str, read: Reader) -> (usize, usize, String) {
        let bounds = Bounds::new(Some(NOW), NOW, AHEAD);
        match entries(body.as_bytes(), 3) {
            Ok(entries) => {
                let found = sort(entries, &bounds, &Granted { writer: None }, read);
                (found.taken.len(), found.bad, found.problems.join("\n"))
            }
            Err(problem) => (0, 0, problem),
        }
    }

    #[test]
    fn good_entries_are_accepted_and_bad_ones_reported() {
        let late = r#"[{"prediction_id":"","observed_at":"soon"}, {"prediction_id":"b","label":1}, 7]"#;
        let (taken, bad, problems) = sorted(late, read_feedback);
        assert_eq!((taken, bad), (1, 2));
        insta::assert_snapshot!(problems, @r"
        [0].observed_at: expected microseconds since 1970 as a whole number, or an RFC 3339 time
        [0].prediction_id: is missing; the record cannot be joined without it
        [0].values: the feedback has no value; send values, classes, truth, reward, label or score, and not null
        [2].body: expected a JSON object
        ");
        let (taken, bad, problems) = sorted(
            r#"[{"prediction_id":"a","model":"m","version":"v","outputs":{"p":NaN}},
                {"prediction_id":"b","model":"m","latency_ms":-1}]"#,
            read_event,
        );
        assert_eq!((taken, bad), (1, 1));
        insta::assert_snapshot!(problems, @r"
        [1].latency_ms: -1; a latency cannot be negative
        [1].version: is missing
        ");
    }

    #[test]
    fn an_odd_entry_does_not_affect_others() {
        let good = r#"{"prediction_id":"b","model":"m","version":"v","outputs":{"p":0.5}}"#;
        let deep = format!("{}{}", "[".repeat(200), "]".repeat(200));
        for value in ["1e400", "nan", "-nan", "inf", "-Infinity", "\"NaN\""] {
            let odd = format!(r#"{{"prediction_id":"a","model":"m","version":"v","outputs":{{"p":{value}}}}}"#);
            assert_eq!(sorted(&format!("[{good},{odd}]"), read_event), (2, 0, String::new()), "{value}");
            let nameless = odd.replace("\"a\"", value);
            let (taken, bad, problems) = sorted(&format!("[{good},{nameless}]"), read_event);
            assert!(taken + bad == 2 && (bad == 0 || problems.starts_with("[1].prediction_id: ")), "{problems}");
        }
        for member in [r#""x":"\ud83d""#.to_owned(), format!(r#""x":{deep}"#)] {
            let odd = format!(r#"{{"prediction_id":"a","label":1,{member}}}"#);
            let other = r#"{"prediction_id":"b","label":1}"#;
            assert_eq!(sorted(&format!("[{other},{odd}]"), read_feedback), (2, 0, String::new()), "{member}");
        }
    }

    #[test]
    fn a_body_of_another_form_is_refused_as_a_whole() {
        assert_eq!(sorted("[]", read_feedback).2, "the body has 0 entries; send 1 to 3 at a time");
        assert_eq!(sorted("[1,2,3,4]", read_feedback).2, "the body has 4 entries; send 1 to 3 at a time");
        assert_eq!(sorted("7", read_feedback).2, "the body must be an object or a list of objects");
        assert!(sorted("{", read_feedback).2.starts_with("the body is not JSON: "));
        let confluent = sorted("\0\0\0\0\u{1}{\"prediction_id\":\"a\",\"label\":1}", read_feedback).2;
        assert!(confluent.contains("schema id 1"), "{confluent}");
    }

    #[test]
    fn the_number_of_reported_problems_is_bounded() {
        let entries: Vec<Value> = (0..500).map(|_| json!({})).collect();
        let bounds = Bounds::new(Some(NOW), NOW, AHEAD);
        let found = sort(entries, &bounds, &Granted { writer: None }, read_feedback);
        assert_eq!((found.bad, found.problems.len()), (500, MOST_PROBLEMS));
    }

    #[test]
    fn cloud_events_are_opened() {
        let event =
            r#"{"specversion":"1.0","type":"dev.serin.feedback.v1","id":"e","correlationid":"p","data":{"label":1}}"#;
        assert_eq!(sorted(event, read_feedback).0, 1);
        assert_eq!(sorted(event, read_event).2, "[0].type: this path accepts another kind of event, in version 1");
    }
}
