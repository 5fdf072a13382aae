//! The shells of the doors for traffic that other systems carry: payload loggers and spans over HTTP, access logs over gRPC.
//!
//! The formats are read in `serin-doors`. What is accepted goes to the topic `predictions`, and the intake checks it again.

use std::{
    net::SocketAddr,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};
use http::{HeaderValue, Response, StatusCode, header, request};
use http_body_util::BodyExt as _;
use serin_access::Door;
use serin_doors::{
    cloud::{Event, Logger},
    envoy,
    half::Half,
    otlp,
};
use serin_schemas::{Code, foreign::Refusal, records::Prediction};

use super::{Granted, MOST_PROBLEMS, Sorted, Taken, accepted, access, bounds, entries, received, send, sort_with};
use crate::{
    body::{
        request::{BodyError, CallerBody, collect},
        within,
    },
    call::answer,
    config::span,
    protocol::{
        decoder::Decoder,
        grpc::{self, PREFIX, first_message},
    },
    report::passing::AnswerBody,
    state::Shared,
};

/// How often an idle stream of access logs checks whether the router stops.
const IDLE: Duration = Duration::from_secs(1);

/// `POST /v1/doors/kserve` and `POST /v1/doors/seldon`: one event in binary mode, or one or several in structured mode.
pub(crate) async fn payloads(
    shared: &Arc<Shared>,
    head: &request::Parts,
    at: SocketAddr,
    body: CallerBody,
    logger: Logger,
) -> Response<AnswerBody> {
    let name = logger.as_str();
    let (granted, bytes) = match received(shared, head, at, body, Door::Events, name).await {
        Ok(received) => received,
        Err(refused) => return refused,
    };
    let config = shared.config();
    let (rules, bounds) = (&config.doors, bounds(&shared.clock));
    let take = |event: &Event| {
        if event.part().is_none_or(|(found, _)| found != logger) {
            let found = event.attribute("type").unwrap_or_default();
            let message = format!("type: {found:?} is not an event that this path accepts (docs/doors.md)");
            return Err(vec![Refusal::new(Code::UnknownType, message)]);
        }
        let half = Half::of(event, rules, &bounds)?;
        granted.covers(&half.model)?;
        Ok(Taken::Half(Box::new(half)))
    };
    let content = head.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let is_binary = head.headers.contains_key("ce-type");
    let sorted = if is_binary && !content.to_ascii_lowercase().starts_with("application/cloudevents") {
        let headers = head.headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes()));
        sort_with([Event::binary(headers, &bytes, true)].into_iter(), |event| take(&event))
    } else {
        match entries(&bytes, config.limits.intake_batch) {
            Ok(entries) => sort_with(entries.into_iter(), |entry| {
                take(&Event::structured(entry).map_err(|problem| vec![problem])?)
            }),
            Err(problem) => Sorted { taken: Vec::new(), bad: 1, problems: vec![problem] },
        }
    };
    // Payload loggers log an error for every other status.
    accepted(shared, name, sorted, StatusCode::OK).await
}

/// `POST /v1/doors/otlp/v1/traces`: spans, as OTLP exporters send them.
pub(crate) async fn spans(
    shared: &Arc<Shared>,
    head: &request::Parts,
    at: SocketAddr,
    body: CallerBody,
) -> Response<AnswerBody> {
    const NAME: &str = "otlp";
    let (granted, bytes) = match received(shared, head, at, body, Door::Events, NAME).await {
        Ok(received) => received,
        Err(refused) => return refused,
    };
    let content = head.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let content = content.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let is_json = match content.as_str() {
        "application/json" => true,
        "application/x-protobuf" => false,
        _ => {
            shared.metrics.intake(NAME, "refused", 1);
            let text = "content-type: OTLP is application/x-protobuf or application/json";
            return answer::error(StatusCode::UNSUPPORTED_MEDIA_TYPE, text);
        }
    };
    let body = match export(shared, &granted, &bytes, is_json).await {
        Ok(body) => body,
        Err(Failure::Refused(text)) => return answer::error(StatusCode::BAD_REQUEST, &text),
        Err(Failure::Unavailable(cause)) => return unavailable(&cause),
    };
    let mut response = Response::new(AnswerBody::whole(body));
    let content = if is_json { "application/json" } else { "application/x-protobuf" };
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content));
    response
}

/// OTLP's `Export` over gRPC.
pub(crate) async fn grpc_spans(
    shared: &Arc<Shared>,
    head: &request::Parts,
    at: SocketAddr,
    body: CallerBody,
) -> Response<AnswerBody> {
    const NAME: &str = "otlp";
    let refused = |code, text: &str| {
        shared.metrics.intake(NAME, "refused", 1);
        answer::grpc_status(code, text)
    };
    let granted = match granted(shared, head, at, NAME) {
        Ok(granted) => granted,
        Err((code, text)) => return answer::grpc_status(code, &text),
    };
    let config = shared.config();
    let limit = config.limits.intake_body;
    let bytes = match collect(body, shared.held.clone(), limit + PREFIX, span(config.timeouts.request)).await {
        Ok(bytes) => bytes,
        Err(BodyError::TooLarge) => return refused(8, &format!("the message is larger than {limit} bytes")),
        Err(BodyError::NoRoom) => return refused(14, "too many bodies are held in memory (limits.held)"),
        Err(BodyError::Slow) => return refused(4, "the body did not arrive in time"),
        Err(BodyError::Broken) => return refused(1, "the body ended early"),
    };
    if first_message(&bytes) != Some(bytes.len()) {
        return refused(3, "the body is not one gRPC message");
    }
    let message = match plain(&bytes, grpc::encoding(&head.headers), limit) {
        Ok(message) => message,
        Err(text) => return refused(3, &text),
    };
    match export(shared, &granted, &message, false).await {
        Ok(body) => answer::grpc_message(&body),
        Err(Failure::Refused(text)) => answer::grpc_status(3, &text),
        Err(Failure::Unavailable(cause)) => answer::grpc_status(14, &not_confirmed(&cause)),
    }
}

/// Why an export failed as a whole.
enum Failure {
    /// It cannot be read.
    Refused(String),
    /// The log did not confirm it.
    Unavailable(String),
}

/// Takes the spans of an export request, and returns the answer in the same format.
async fn export(shared: &Arc<Shared>, granted: &Granted, body: &[u8], is_json: bool) -> Result<Vec<u8>, Failure> {
    const NAME: &str = "otlp";
    let found = otlp::read(body, is_json, &shared.config().doors.otlp, &bounds(&shared.clock)).map_err(|problem| {
        shared.metrics.intake(NAME, "refused", 1);
        Failure::Refused(problem.message)
    })?;
    let otlp::Calls { calls, mut refused, problems, .. } = found;
    let mut problems: Vec<String> = problems.into_iter().map(|problem| problem.message).collect();
    let taken = allowed(calls, granted, &mut refused, &mut problems);
    send(shared, &taken).await.map_err(|cause| {
        shared.metrics.intake(NAME, "failed", taken.len());
        Failure::Unavailable(cause)
    })?;
    shared.metrics.intake(NAME, "accepted", taken.len());
    shared.metrics.intake(NAME, "refused", refused);
    Ok(otlp::answer(refused, &problems.join("; "), is_json))
}

/// Checks whether a gRPC call may send to the door `name`, or returns its status.
fn granted(
    shared: &Shared,
    head: &request::Parts,
    at: SocketAddr,
    name: &'static str,
) -> Result<Granted, (u16, String)> {
    access::ask(&shared.writers.load(), head, at, Door::Events).map_err(|refusal| {
        shared.metrics.intake(name, "unauthorized", 1);
        (grpc::code(refusal.status), refusal.error)
    })
}

/// Envoy's `StreamAccessLogs`: a stream of messages without an answer until its end.
///
/// A stream may last for days. So each message is accepted only if the writer may still send, an incomplete message is held within
/// `limits.held` and for at most `timeouts.request`, and the stream ends between two messages when the router stops.
pub(crate) async fn access_logs(
    shared: &Arc<Shared>,
    head: &request::Parts,
    at: SocketAddr,
    mut body: CallerBody,
) -> Response<AnswerBody> {
    const NAME: &str = "envoy";
    if let Err((code, text)) = granted(shared, head, at, NAME) {
        return answer::grpc_status(code, &text);
    }
    let refused = |code, text: &str| {
        shared.metrics.intake(NAME, "refused", 1);
        answer::grpc_status(code, text)
    };
    let encoding = grpc::encoding(&head.headers).to_owned();
    // The start of the next message, the memory for it, and when it began to arrive.
    let (mut buffer, mut held, mut began) = (BytesMut::new(), None, Instant::now());
    loop {
        let is_leaving = || shared.leaving.load(Ordering::Relaxed);
        match within(IDLE, body.frame()).await {
            None if is_leaving() => break,
            None => {}
            Some(None) => break,
            Some(Some(Err(_))) => return answer::grpc_status(1, "the stream ended early"),
            Some(Some(Ok(frame))) => {
                if buffer.is_empty() {
                    began = Instant::now();
                }
                buffer.extend_from_slice(&frame.into_data().unwrap_or_default());
            }
        }
        while let Some(length) = first_message(&buffer) {
            let limit = shared.config().limits.intake_body;
            if length - PREFIX > limit {
                let text = format!("a message is larger than {limit} bytes; set buffer_size_bytes in Envoy to less");
                return refused(8, &text);
            }
            if buffer.len() < length {
                break;
            }
            let message = buffer.split_to(length).freeze();
            let taken = match granted(shared, head, at, NAME) {
                Ok(granted) => log_message(shared, &granted, &message, &encoding, limit).await,
                Err(refusal) => Err(refusal),
            };
            if let Err((code, text)) = taken {
                return answer::grpc_status(code, &text);
            }
            (held, began) = (None, Instant::now());
        }
        if buffer.is_empty() {
            held = None;
            if is_leaving() {
                break;
            }
            continue;
        }
        let patience = span(shared.config().timeouts.request);
        if began.elapsed() > patience {
            return refused(4, "a message did not arrive in time (timeouts.request)");
        }
        if within(patience, shared.held.book(&mut held, buffer.len())).await.is_none() {
            return refused(14, "too many bodies are held in memory (limits.held)");
        }
    }
    // `StreamAccessLogsResponse` has no fields.
    answer::grpc_message(&[])
}

/// Takes one message of the stream. Returns the status that ends the stream, if it must end.
async fn log_message(
    shared: &Arc<Shared>,
    granted: &Granted,
    message: &Bytes,
    encoding: &str,
    limit: usize,
) -> Result<(), (u16, String)> {
    const NAME: &str = "envoy";
    let refused = |text: String| {
        shared.metrics.intake(NAME, "refused", 1);
        (3, text)
    };
    let plain = plain(message, encoding, limit).map_err(refused)?;
    let found = envoy::read(&plain, &shared.config().doors.envoy, &bounds(&shared.clock))
        .map_err(|problem| refused(problem.message))?;
    if let Some(problem) = found.problems.first() {
        // The intake dead-letters these calls: Envoy does not read answers.
        tracing::debug!(%problem, "an entry of Envoy's access log cannot be used");
    }
    let (mut bad, mut problems) = (0, Vec::new());
    let taken = allowed(found.calls, granted, &mut bad, &mut problems);
    if let Some(problem) = problems.first() {
        tracing::warn!(bad, problem, "entries of Envoy's access log were refused");
    }
    shared.metrics.intake(NAME, "refused", bad);
    match send(shared, &taken).await {
        Ok(()) => {
            shared.metrics.intake(NAME, "accepted", taken.len());
            Ok(())
        }
        Err(cause) => {
            shared.metrics.intake(NAME, "failed", taken.len());
            Err((14, not_confirmed(&cause)))
        }
    }
}

/// The content of a gRPC message with its prefix.
fn plain(message: &Bytes, encoding: &str, limit: usize) -> Result<Bytes, String> {
    match message[0] {
        0 => Ok(message.slice(PREFIX..)),
        _ => Decoder::named(encoding, limit as u64)
            .and_then(|decoder| decoder.whole(&message[PREFIX..]))
            .map(Bytes::from)
            .map_err(|error| format!("a message cannot be decompressed: {error}")),
    }
}

/// The calls of models that the writer may report on. The others are counted, with their problem.
fn allowed(calls: Vec<Prediction>, granted: &Granted, refused: &mut usize, problems: &mut Vec<String>) -> Vec<Taken> {
    let check = |call: Prediction| match granted.covers(call.model.as_str()) {
        Ok(()) => Some(Taken::Prediction(Box::new(call))),
        Err(found) => {
            *refused += 1;
            let room = MOST_PROBLEMS.saturating_sub(problems.len());
            problems.extend(found.into_iter().take(room).map(|problem| problem.message));
            None
        }
    };
    calls.into_iter().filter_map(check).collect()
}

fn not_confirmed(cause: &str) -> String {
    format!("the log did not confirm the entries ({cause}); send the same again")
}

pub(super) fn unavailable(cause: &str) -> Response<AnswerBody> {
    let mut response = answer::error(StatusCode::SERVICE_UNAVAILABLE, &not_confirmed(cause));
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    response
}
