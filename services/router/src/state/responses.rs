//! Which version keeps which response of `/v1/responses`. Each turn of a chain names the previous response (`previous_response_id`), and
//! only the version that created that response can continue from it. A chain is therefore split once, at its first turn, by its own key.
//! This router remembers the responses that it passed on, with their version and the key of their chain.
//!
//! Invariants: the memory is bounded in bytes, and the oldest responses are forgotten first; a response is remembered before its caller has
//! received the last byte.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, LazyLock, Mutex, PoisonError},
};

use http::HeaderMap;
use serde_json::Value;
use serin_schemas::ids::Version;
use serin_sketches::hash::hash64;

use crate::protocol::{asks::Asks, decoder::Decoder, scan::Scanner, written::Written};

/// Bytes of overhead of an entry: its id in the map and in the queue, and the allocator's overhead.
const ENTRY: usize = 256;
/// Maximum number of decoded bytes of an answer that are searched.
const MOST: u64 = 64 << 20;

/// A response that a version keeps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Kept {
    pub(crate) model: Arc<str>,
    pub(crate) version: Version,
    /// The key by which its chain is split, if it is split by such a key.
    pub(crate) chain: Option<Arc<str>>,
}

/// The responses that are remembered.
#[derive(Debug)]
pub(crate) struct Responses {
    kept: Mutex<Memory>,
    most: usize,
}

/// The hash of a response's id. Ids may have any length.
type Id = u128;

fn id_of(text: &str) -> Id {
    let half = |seed: &[u8]| Id::from(hash64(seed, text.as_bytes()));
    half(b"response") << 64 | half(b"id")
}

#[derive(Debug, Default)]
struct Memory {
    by_id: HashMap<Id, Kept>,
    /// Ids from the oldest to the newest.
    order: VecDeque<Id>,
    bytes: usize,
}

fn cost(kept: &Kept) -> usize {
    let chain = kept.chain.as_deref().map_or(0, str::len);
    ENTRY + kept.model.len() + kept.version.as_str().len() + chain
}

impl Responses {
    /// A memory of at most this many bytes.
    pub(crate) fn new(most: usize) -> Self {
        Self { kept: Mutex::default(), most }
    }

    /// The version that keeps a response, if it is known.
    pub(crate) fn find(&self, id: &str) -> Option<Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).by_id.get(&id_of(id)).cloned()
    }

    /// Bytes that the remembered responses take.
    pub(crate) fn bytes(&self) -> usize {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).bytes
    }

    /// Remembers a response.
    fn keep(&self, id: &str, kept: Kept) {
        let (id, cost_of_it) = (id_of(id), cost(&kept));
        if cost_of_it > self.most {
            return;
        }
        let mut memory = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let memory = &mut *memory;
        if memory.by_id.contains_key(&id) {
            // The first version that used the id keeps it.
            return;
        }
        while memory.bytes + cost_of_it > self.most {
            let Some(oldest) = memory.order.pop_front() else { break };
            if let Some(kept) = memory.by_id.remove(&oldest) {
                memory.bytes -= cost(&kept);
            }
        }
        memory.bytes += cost_of_it;
        memory.order.push_back(id);
        memory.by_id.insert(id, kept);
    }
}

static IDS: LazyLock<Asks> = LazyLock::new(|| {
    let mut asks = Asks::default();
    asks.pointer("/id");
    asks.pointer("/response/id");
    asks
});

/// Searches an answer of `/v1/responses` for its id.
pub(crate) struct Listener {
    responses: Arc<Responses>,
    kept: Kept,
    decoder: Option<Decoder>,
    reading: Reading,
    done: bool,
}

/// How an answer is written.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Form {
    /// One JSON document.
    Document,
    /// Server-sent events.
    Events,
}

/// Progress of reading an answer.
#[derive(Default)]
struct Reading {
    /// Whether the headers declare a stream of server-sent events. Some servers do not declare it.
    declares_events: bool,
    /// How the answer is written, once its first character was seen.
    form: Option<Form>,
    /// The start of a line until its field name is known.
    line: Vec<u8>,
    /// Whether the line has data of the event.
    has_data: bool,
    /// Whether the last line ended with a carriage return, so a line feed directly after it belongs to it.
    after_return: bool,
    /// The JSON of the answer, or of the event. The data of an event may have several lines.
    json: Option<Scanner<'static>>,
    id: Option<String>,
}

impl Listener {
    /// A listener for an answer with these headers; `None` if its encoding is unknown.
    pub(crate) fn new(responses: &Arc<Responses>, kept: Kept, headers: &HeaderMap) -> Option<Self> {
        let decoder = Decoder::of(headers, MOST).ok()?;
        let declares_events = Written::of(headers) == Written::Events;
        let reading = Reading { declares_events, ..Reading::default() };
        Some(Self { responses: Arc::clone(responses), kept, decoder, reading, done: false })
    }

    /// Takes a chunk of the answer.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        if self.done {
            return;
        }
        match &mut self.decoder {
            Some(decoder) => self.done = decoder.push(bytes, |part| self.reading.push(part)).is_err(),
            None => self.reading.push(bytes),
        }
        self.remember();
    }

    /// Handles the end of the answer.
    pub(crate) fn end(&mut self) {
        if let Some(decoder) = self.decoder.take() {
            let _ = decoder.finish(|part| self.reading.push(part));
        }
        self.reading.end_of_json();
        self.remember();
    }

    fn remember(&mut self) {
        if let Some(id) = self.reading.id.take() {
            self.responses.keep(&id, self.kept.clone());
            self.done = true;
        }
    }
}

impl Reading {
    fn push(&mut self, mut bytes: &[u8]) {
        let form = if let Some(form) = self.form {
            form
        } else {
            // White space and the bytes of a byte order mark may precede the first character.
            let is_before = |byte: &u8| byte.is_ascii_whitespace() || matches!(byte, 0xef | 0xbb | 0xbf);
            let Some(first) = bytes.iter().position(|byte| !is_before(byte)) else { return };
            bytes = &bytes[first..];
            // The first letters of the fields of an event, and of a comment.
            let is_field = matches!(bytes[0], b'd' | b'e' | b'i' | b'r' | b':');
            *self.form.insert(if self.declares_events || is_field { Form::Events } else { Form::Document })
        };
        if form == Form::Document {
            self.json.get_or_insert_with(|| Scanner::new(&IDS)).push(bytes);
            return;
        }
        for part in bytes.split_inclusive(|&byte| matches!(byte, b'\n' | b'\r')) {
            if std::mem::take(&mut self.after_return) && part == b"\n" {
                continue;
            }
            self.part_of_line(part);
            if self.id.is_some() {
                return;
            }
        }
    }

    /// Takes a part of one line of a stream, with the end of the line if it is the last part.
    fn part_of_line(&mut self, part: &[u8]) {
        const DATA: &[u8] = b"data:";
        let text = part.strip_suffix(b"\n").or_else(|| part.strip_suffix(b"\r")).unwrap_or(part);
        if self.has_data {
            self.json.get_or_insert_with(|| Scanner::new(&IDS)).push(text);
        } else if self.line.len() < DATA.len() {
            let (begin, rest) = text.split_at(text.len().min(DATA.len() - self.line.len()));
            self.line.extend_from_slice(begin);
            if self.line == DATA {
                self.has_data = true;
                let json = self.json.get_or_insert_with(|| Scanner::new(&IDS));
                json.push(b"\n");
                json.push(rest);
            }
        }
        if text.len() == part.len() {
            return;
        }
        self.after_return = part.ends_with(b"\r");
        if self.line.is_empty() {
            self.end_of_json();
        }
        self.line.clear();
        self.has_data = false;
    }

    fn end_of_json(&mut self) {
        let Some(Ok(Some(value))) = self.json.take().map(Scanner::end) else { return };
        let id = if self.form == Some(Form::Events) { value.pointer("/response/id") } else { value.get("id") };
        self.id = id.and_then(Value::as_str).map(str::to_owned);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    fn kept(version: &str) -> Kept {
        Kept { model: "chat".into(), version: version.into(), chain: Some("c-1".into()) }
    }

    fn listen(headers: &[(&'static str, &str)], body: &[u8], step: usize) -> Arc<Responses> {
        let headers: HeaderMap =
            headers.iter().map(|(name, value)| (http::HeaderName::from_static(name), value.parse().unwrap())).collect();
        let responses = Arc::new(Responses::new(1 << 20));
        let mut listener = Listener::new(&responses, kept("v2"), &headers).unwrap();
        body.chunks(step).for_each(|piece| listener.push(piece));
        listener.end();
        responses
    }

    #[test]
    fn the_id_of_an_answer_is_found() {
        let whole = br#"{"object":"response","id":"resp_1","output":[{"id":"msg_1"}]}"#;
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        packed.write_all(whole).unwrap();
        let packed = packed.finish().unwrap();
        let stream = b"event: response.created\r\ndata: {\"type\":\"response.created\",\"response\":{\"id\":\"resp_1\",\"tools\":[]}}\r\n\r\ndata: {\"response\":{\"id\":\"resp_2\"}}\n\n";
        let sse = [("content-type", "text/event-stream; charset=utf-8")];
        for step in [1, 3, 1000] {
            for responses in [
                listen(&[], whole, step),
                listen(&[("content-encoding", "gzip")], &packed, step),
                listen(&sse, stream, step),
                listen(&sse, &stream[..stream.len() - 38], step),
            ] {
                assert_eq!(responses.find("resp_1"), Some(kept("v2")), "{step}");
                assert_eq!((responses.find("msg_1"), responses.find("resp_2")), (None, None));
            }
        }
    }

    #[test]
    fn the_id_of_a_stream_is_found_however_it_is_written() {
        let types: [&[(&str, &str)]; 4] = [
            &[("content-type", "Text/Event-Stream")],
            &[("content-type", "application/octet-stream")],
            &[("content-type", "application/json")],
            &[],
        ];
        for (text, headers) in [
            ("data: {\"response\":\ndata: {\"id\":\"resp_1\"}}\n\n", types[0]),
            ("data:{\"response\":\r\ndata:{\"id\":\r\ndata: \"resp_1\"}}\r\n\r\n", types[0]),
            ("data: {\"response\":\rdata: {\"id\":\"resp_1\"}}\r\r", types[0]),
            ("data: {\"response\":{\"id\":\"resp_1\"}}", types[0]),
            ("\u{feff}data: {\"response\":{\"id\":\"resp_1\"}}\n\n", types[0]),
            (": hello\n\nevent: x\ndata: {\"response\":{\"id\":\"resp_1\"}}\n\n", types[1]),
            ("event: x\ndata: {\"response\":{\"id\":\"resp_1\",\"temperature\":NaN}}\n\n", types[2]),
            ("data: {\"response\":{\"id\":\"resp_1\"}}\n\n", types[3]),
            ("\u{feff}data: {\"response\":{\"id\":\"resp_1\"}}\n\n", types[3]),
        ] {
            for step in [1, 2, 5, 1000] {
                let responses = listen(headers, text.as_bytes(), step);
                assert_eq!(responses.find("resp_1"), Some(kept("v2")), "{text:?} {step}");
            }
        }
    }

    #[test]
    fn the_oldest_is_forgotten_first_and_the_memory_is_bounded() {
        let responses = Responses::new(3000);
        for number in 0..1000 {
            responses.keep(&format!("resp_{number}"), kept("v1"));
        }
        let memory = responses.kept.lock().unwrap();
        assert!(memory.bytes <= 3000 && memory.by_id.len() == memory.order.len() && memory.by_id.len() > 5);
        drop(memory);
        assert!(responses.find("resp_999").is_some() && responses.find("resp_0").is_none());
        responses.keep("resp_999", kept("v2"));
        assert_eq!(responses.find("resp_999"), Some(kept("v1")), "another version cannot take over a response");
        let long = "x".repeat(5000);
        responses.keep(&long, kept("v1"));
        assert_eq!((responses.find(&long), responses.find(&long[1..])), (Some(kept("v1")), None));
    }
}
