//! Data of a language model's answer: the timing of its chunks, the amount of output, and whether it is complete. Pure: times are
//! arguments.
//!
//! It is read from the events of a stream as they pass through, or from a complete JSON answer. Only OpenAI-compatible answers report how
//! they ended; for other streams only the chunks are timed.

mod sse;
mod tools;

use std::{
    collections::{BTreeMap, btree_map::Entry},
    time::Duration,
};

use memchr::memmem;
use serde_json::Value;

use crate::{
    content::{
        census::is_error,
        llm::{sse::Data, tools::Call},
        outcome::{Content, Unread},
    },
    protocol::{Promise, json},
};

/// Maximum number of tool calls that are read in one answer.
const MOST_CALLS: usize = 32;
/// Maximum length of the text that is kept to check requested JSON, and of the arguments of a tool call.
const LONGEST_TEXT: usize = 64 << 10;
/// Maximum number of choices whose ends are awaited.
const MOST_CHOICES: usize = 128;
/// Names of events that only keep a connection open.
const KEEP_ALIVE: [&str; 4] = ["ping", "heartbeat", "keepalive", "keep-alive"];
/// Maximum length of the finish reason.
const LONGEST_REASON: usize = 32;

/// Reads a stream as it passes through.
#[derive(Debug, Default)]
pub(crate) struct Tap {
    events: sse::Events,
    reply: Reply,
    /// When the last chunk arrived.
    last: Duration,
}

/// The form of an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Kind {
    /// A stream that does not report how it ended.
    #[default]
    Chunks,
    /// The same, of events that are JSON.
    JsonChunks,
    /// A stream in place of an answer that its protocol defines as one JSON object.
    Foreign,
    /// A stream of the OpenAI-compatible protocol.
    Stream,
    /// A complete answer of the OpenAI-compatible protocol.
    Whole,
}

/// The data of an answer received so far.
#[expect(clippy::struct_excessive_bools, reason = "they are independent facts of an answer, not states of one machine")]
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Reply {
    kind: Kind,
    /// Time of the first chunk with output, counted from the end of the request.
    first: Option<Duration>,
    last: Duration,
    chunks: u64,
    characters: u64,
    /// Number of bytes of output of any kind.
    volume: usize,
    input_tokens: Option<u64>,
    output_tokens: Option<u64>,
    finish: Option<String>,
    refusal: bool,
    calls: BTreeMap<(u64, u64), Call>,
    /// The text of the first choice, if it will be checked.
    text: Option<String>,
    done: bool,
    error: bool,
    /// Whether the answer contains anything for a caller: text, reasoning, tool calls, audio.
    has_output: bool,
    /// Whether an event was too long to read.
    skipped: bool,
    /// Whether the data of an event should be JSON and is not.
    unparsable: bool,
    /// Whether the answer is not ready yet, and will be fetched later.
    pending: bool,
    /// The choices of a stream, and whether each of them has ended.
    choices: BTreeMap<u64, bool>,
}

impl Tap {
    /// A tap for the stream of a call with this promise. `request` is the body of the request, if it was kept.
    pub(crate) fn new(promise: Promise, request: Option<&[u8]>) -> Self {
        let kind = match promise {
            Promise::Choices | Promise::Response => Kind::Stream,
            Promise::Tensors | Promise::Predictions | Promise::Embeddings => Kind::Foreign,
            Promise::Json => Kind::JsonChunks,
            Promise::Nothing | Promise::Service => Kind::Chunks,
        };
        let text = tools::may_ask_for_json(request).then(String::new);
        Self { reply: Reply { kind, text, ..Reply::default() }, ..Self::default() }
    }

    /// Takes a chunk of the stream that arrived at this time.
    pub(crate) fn feed(&mut self, piece: &[u8], at: Duration) {
        let reply = &mut self.reply;
        self.last = at;
        self.events.feed(piece, |name, data| reply.event(name, data, at));
    }

    /// The data that was read.
    pub(crate) fn into_reply(mut self) -> Reply {
        let (reply, at) = (&mut self.reply, self.last);
        // Clients also read an event that no blank line follows. An incomplete one is not an event.
        self.events.finish(|name, data| match data {
            Data::Whole(data) if is_done(data) || json::read(data).is_some() => {
                reply.event(name, Data::Whole(data), at);
            }
            Data::Whole(_) | Data::Beginning(_) => {}
        });
        self.reply
    }
}

impl Reply {
    /// Reads a complete answer that is not a stream.
    pub(super) fn of_json(answer: &Value) -> Self {
        let mut reply = Self { kind: Kind::Whole, text: Some(String::new()), ..Self::default() };
        reply.usage(answer);
        let is_response = answer.get("object").and_then(Value::as_str) == Some("response");
        if is_response || answer.get("choices").is_none() && answer.get("output").is_some_and(Value::is_array) {
            reply.response(answer);
        } else {
            for (index, choice) in list(answer, "choices").enumerate() {
                reply.choice(index as u64, choice, "message");
            }
        }
        reply
    }

    /// Reads a stream that arrived as a whole body, without the times of its chunks; `None` if the body does not start like a stream.
    pub(super) fn of_stream(body: &[u8], promise: Promise) -> Option<Self> {
        if !sse::is_stream(body) {
            return None;
        }
        let mut tap = Tap::new(promise, None);
        tap.feed(body.trim_ascii_start(), Duration::ZERO);
        Some(Self { first: None, ..tap.into_reply() })
    }

    fn event(&mut self, name: Option<&str>, data: Data<'_>, at: Duration) {
        let (data, whole) = match data {
            Data::Whole(data) => (data, true),
            Data::Beginning(data) => (data, false),
        };
        if is_done(data) {
            self.done = true;
            return;
        }
        if name == Some("error") {
            self.error = true;
            return;
        }
        if !whole {
            self.skip(name, data, at);
            return;
        }
        let value = json::read(data);
        if self.kind != Kind::Stream {
            self.error |= value.as_ref().is_some_and(is_error);
            self.note_unparsable(name, data, value.is_none() && self.kind == Kind::JsonChunks);
            self.has_output = true;
            self.chunk(at);
            return;
        }
        let Some(value) = value else {
            self.note_unparsable(name, data, true);
            return;
        };
        if is_error(&value) {
            self.error = true;
            return;
        }
        if let Some(kind) = value.get("type").and_then(Value::as_str) {
            self.response_event(kind, &value, at);
            return;
        }
        self.usage(&value);
        let before = self.volume;
        for (index, choice) in list(&value, "choices").enumerate() {
            self.choice(index as u64, choice, "delta");
        }
        if self.volume > before {
            self.chunk(at);
        }
    }

    /// Notes that the data of an event should be JSON and is not. Events that only keep the connection open have none.
    fn note_unparsable(&mut self, name: Option<&str>, data: &[u8], unparsable: bool) {
        let keeps_alive = data.trim_ascii().is_empty() || name.is_some_and(|name| KEEP_ALIVE.contains(&name));
        self.unparsable |= unparsable && !keeps_alive;
    }

    /// Handles an event that is too long to read. Its name, or the start of its data, identifies it.
    fn skip(&mut self, name: Option<&str>, beginning: &[u8], at: Duration) {
        const LAST: [&str; 2] = ["response.completed", "response.incomplete"];
        let start = &beginning[..beginning.len().min(200)];
        let is_kind =
            |kind: &str| name == Some(kind) || memmem::find(start, format!("\"{kind}\"").as_bytes()).is_some();
        let is_error = starts_as_error(start) || is_kind("response.failed");
        self.skipped = true;
        self.has_output = true;
        self.error |= is_error;
        self.done |= LAST.into_iter().any(is_kind);
        self.chunk(at);
    }

    fn chunk(&mut self, at: Duration) {
        self.first.get_or_insert(at);
        self.last = at;
        self.chunks += 1;
    }

    fn usage(&mut self, value: &Value) {
        let Some(usage) = value.get("usage").filter(|usage| usage.is_object()) else { return };
        let number = |names: [&str; 2]| names.iter().find_map(|name| usage.get(name)?.as_u64());
        self.input_tokens = number(["prompt_tokens", "input_tokens"]).or(self.input_tokens);
        self.output_tokens = number(["completion_tokens", "output_tokens"]).or(self.output_tokens);
    }

    /// Reads a choice of a chunk (`delta`) or of a complete answer (`message`). A completion has its text in the choice itself.
    fn choice(&mut self, place: u64, choice: &Value, part: &str) {
        let index = choice.get("index").and_then(Value::as_u64).unwrap_or(place);
        self.add_text(index, choice.get("text"));
        self.error |= is_error(choice);
        if let Some(part) = choice.get(part) {
            self.has_output |= has_content(part);
            self.error |= is_error(part);
            self.add_text(index, part.get("content"));
            for item in list(part, "content") {
                self.add_text(index, item.get("text"));
            }
            // Reasoning is output that the caller waits for, but not part of the text.
            let text = |name: &str| part.get(name).and_then(Value::as_str).unwrap_or_default();
            for name in ["reasoning_content", "reasoning", "refusal"] {
                self.volume += text(name).len();
            }
            self.refusal |= !text("refusal").is_empty();
            for (place, call) in list(part, "tool_calls").enumerate() {
                let place = call.get("index").and_then(Value::as_u64).unwrap_or(place as u64);
                self.call((index, place), call.get("function").unwrap_or(&Value::Null));
            }
            if let Some(call) = part.get("function_call").filter(|call| call.is_object()) {
                self.call((index, 0), call);
            }
        }
        let reason = choice.get("finish_reason").and_then(Value::as_str).filter(|reason| !reason.is_empty());
        if let Some(reason) = reason {
            self.error |= reason == "error";
            self.finished(reason);
        }
        if self.choices.len() < MOST_CHOICES || self.choices.contains_key(&index) {
            *self.choices.entry(index).or_default() |= reason.is_some();
        }
    }

    fn add_text(&mut self, choice: u64, text: Option<&Value>) {
        let Some(text) = text.and_then(Value::as_str) else { return };
        self.has_output |= !text.is_empty();
        self.volume += text.len();
        self.characters += text.chars().count() as u64;
        if let Some(kept) = self.text.as_mut().filter(|kept| choice == 0 && kept.len() + text.len() <= LONGEST_TEXT) {
            kept.push_str(text);
        }
    }

    fn call(&mut self, place: (u64, u64), function: &Value) {
        let full = self.calls.len() >= MOST_CALLS;
        let call = match self.calls.entry(place) {
            Entry::Occupied(call) => call.into_mut(),
            Entry::Vacant(_) if full => return,
            Entry::Vacant(empty) => empty.insert(Call::default()),
        };
        let text = |name: &str| function.get(name).and_then(Value::as_str).unwrap_or_default();
        self.volume += text("name").len() + text("arguments").len();
        call.add(text("name"), text("arguments"), LONGEST_TEXT);
    }

    fn finished(&mut self, reason: &str) {
        self.refusal |= reason == "content_filter";
        let end = (0..=LONGEST_REASON.min(reason.len())).rev().find(|&end| reason.is_char_boundary(end)).unwrap_or(0);
        self.finish.get_or_insert_with(|| reason[..end].to_owned());
    }

    /// Reads an event of `/v1/responses`.
    fn response_event(&mut self, kind: &str, value: &Value, at: Duration) {
        let delta = value.get("delta");
        self.has_output |= kind.rsplit('.').next() == Some("delta");
        match kind {
            "error" | "response.failed" => self.error = true,
            "response.output_text.delta" => {
                self.add_text(0, delta);
                self.chunk(at);
            }
            "response.refusal.delta" => {
                self.refusal = true;
                self.chunk(at);
            }
            "response.function_call_arguments.delta" | "response.reasoning_text.delta" => self.chunk(at),
            "response.completed" | "response.incomplete" => {
                self.done = true;
                if let Some(response) = value.get("response") {
                    self.usage(response);
                    self.response(response);
                }
            }
            _ => {}
        }
    }

    /// Reads a complete answer of `/v1/responses`. After a stream, data from its events is kept.
    fn response(&mut self, response: &Value) {
        let has_text = self.characters > 0;
        for (place, item) in list(response, "output").enumerate() {
            let kind = item.get("type").and_then(Value::as_str);
            // A message may be empty. Any other item, such as an image or a search, is output.
            self.has_output |= !matches!(kind, Some("message" | "reasoning"));
            match kind {
                Some("function_call") => self.call((0, place as u64), item),
                Some("message") => {
                    for part in list(item, "content") {
                        self.has_output |= has_content(part);
                        self.refusal |= part.get("type").and_then(Value::as_str) == Some("refusal");
                        if !has_text {
                            self.add_text(0, part.get("text"));
                        }
                    }
                }
                _ => {}
            }
        }
        let status = response.get("status").and_then(Value::as_str);
        self.error |= status == Some("failed");
        self.pending = matches!(status, Some("queued" | "in_progress"));
        let reason = response.pointer("/incomplete_details/reason").and_then(Value::as_str).or(status);
        match reason {
            Some("completed") => self.finished("stop"),
            Some("max_output_tokens") => self.finished("length"),
            Some(reason) => self.finished(reason),
            None => {}
        }
    }

    /// The content of an answer that ended normally.
    pub(crate) fn content(&self) -> Content {
        if let Some(error) = self.error() {
            return error;
        }
        if self.kind == Kind::Stream && !self.is_whole() {
            // The event that was too long may have been the last one.
            return if self.skipped { Content::Unread(Unread::TooLarge) } else { Content::Failed("truncated") };
        }
        if self.kind == Kind::Foreign {
            return Content::Unusable("schema");
        }
        if self.unparsable {
            return Content::Unusable("unparsable");
        }
        if self.pending && self.kind == Kind::Whole && !self.has_output && self.calls.is_empty() {
            return Content::Unread(Unread::NoContent);
        }
        if self.has_output || self.refusal || !self.calls.is_empty() {
            Content::Good
        } else {
            Content::Unusable("empty")
        }
    }

    /// The error that the answer reports, even if it did not end.
    pub(crate) fn error(&self) -> Option<Content> {
        let cause = if self.kind == Kind::Whole { "error_object" } else { "error_frame" };
        self.error.then_some(Content::Failed(cause))
    }

    /// Whether a stream reported its end.
    pub(crate) fn is_whole(&self) -> bool {
        let ended = !self.choices.is_empty() && self.choices.values().all(|ended| *ended);
        self.kind == Kind::Stream && (self.done || ended)
    }

    /// Time of the first chunk, counted from the end of the request.
    pub(crate) fn time_to_first_chunk(&self) -> Option<Duration> {
        self.first
    }

    /// Mean time between two chunks with output.
    pub(crate) fn time_per_chunk(&self) -> Option<Duration> {
        let gaps = u32::try_from(self.chunks.checked_sub(1)?).ok().filter(|&gaps| gaps > 0)?;
        Some(self.last.saturating_sub(self.first?) / gaps)
    }

    /// Number of output tokens: as counted by the server, otherwise the number of chunks.
    pub(crate) fn output_tokens(&self) -> Option<u64> {
        self.output_tokens.or(Some(self.chunks).filter(|&chunks| chunks > 0))
    }

    /// Passes the numbers and the class to `number` and `class`, under the names that metrics use ([`serin_spec::BUILT_IN_OUTPUTS`]).
    /// `request` is the body of the request, if it was kept; without it tool calls are only parsed.
    pub(crate) fn outputs(
        &self,
        request: Option<&[u8]>,
        mut number: impl FnMut(&'static str, f64),
        mut class: impl FnMut(&'static str, &str),
    ) {
        let millis = |time: Duration| time.as_secs_f64() * 1e3;
        let mut some = |name, value: Option<f64>| {
            if let Some(value) = value {
                number(name, value);
            }
        };
        some("llm.time_to_first_chunk", self.time_to_first_chunk().map(millis));
        some("llm.time_per_chunk", self.time_per_chunk().map(millis));
        some("llm.chunks", (self.kind != Kind::Whole).then_some(self.chunks as f64));
        some("llm.output_tokens", self.output_tokens().map(|tokens| tokens as f64));
        if !matches!(self.kind, Kind::Stream | Kind::Whole) {
            return;
        }
        some("llm.input_tokens", self.input_tokens.map(|tokens| tokens as f64));
        let talks = self.finish.is_some() || self.volume > 0;
        if talks {
            some("llm.characters", Some(self.characters as f64));
            some("llm.refusal", Some(f64::from(u8::from(self.refusal))));
            some("llm.tool_calls", Some(self.calls.len() as f64));
        }
        let text = self.text.as_deref().filter(|text| !text.is_empty());
        let expected = tools::Expected::of(request.filter(|_| !self.calls.is_empty() || text.is_some()));
        if !self.calls.is_empty() {
            let valid = self.calls.values().all(|call| expected.is_valid(call));
            some("llm.tool_calls_valid", Some(f64::from(u8::from(valid))));
        }
        if let Some(text) = text.filter(|_| expected.json && self.calls.is_empty()) {
            let valid = serde_json::from_str::<Value>(text).is_ok();
            some("llm.json_valid", Some(f64::from(u8::from(valid))));
        }
        if let Some(reason) = &self.finish {
            class("llm.finish_reason", reason);
        }
    }
}

/// Whether data is the mark at the end of a stream.
fn is_done(data: &[u8]) -> bool {
    data.trim_ascii() == b"[DONE]"
}

/// Whether the start of an event's data shows that the event is an error, as [`is_error`] defines it.
fn starts_as_error(start: &[u8]) -> bool {
    let start: Vec<u8> = json::without_mark(start).iter().copied().filter(|byte| !byte.is_ascii_whitespace()).collect();
    let error = [&b"{\"error\":{\""[..], b"{\"error\":[", b"{\"error\":true", b"{\"object\":\"error\""];
    let text = start.strip_prefix(b"{\"error\":\"");
    error.iter().any(|error| start.starts_with(error)) || text.is_some_and(|text| !text.starts_with(b"\""))
}

/// Whether a part of an answer contains more than its role, type and index.
fn has_content(part: &Value) -> bool {
    match part {
        Value::Null | Value::Bool(false) => false,
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => items.iter().any(has_content),
        Value::Object(fields) => {
            let mut content = fields.iter().filter(|(name, _)| !matches!(name.as_str(), "role" | "type" | "index"));
            content.any(|(_, field)| has_content(field))
        }
        Value::Bool(true) | Value::Number(_) => true,
    }
}

fn list<'a>(value: &'a Value, name: &str) -> impl Iterator<Item = &'a Value> {
    value.get(name).and_then(Value::as_array).into_iter().flatten()
}

#[cfg(test)]
mod tests;
