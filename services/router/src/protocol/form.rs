//! Reads the fields of a form (`multipart/form-data`, RFC 7578) as it arrives: audio and images are sent in a form together with the
//! model's name. Pure.
//!
//! Files are skipped: at most [`LONGEST_FIELD`] bytes are kept for each requested field.

use memchr::memmem;
use serde_json::{Map, Value};

use crate::protocol::{Unread, asks::Asks};

/// Longest value of a field that is kept.
const LONGEST_FIELD: usize = 64 << 10;
/// Longest head of a part.
const LONGEST_HEAD: usize = 16 << 10;

/// Reads one form.
pub(super) struct Form<'a> {
    asks: &'a Asks,
    delimiter: Vec<u8>,
    /// Bytes that were not examined yet, or that may be the start of a delimiter.
    waiting: Vec<u8>,
    state: State,
    fields: Map<String, Value>,
    wrong: Option<Unread>,
}

enum State {
    /// In a part that was not requested, or before the first part.
    Skip,
    /// After a delimiter.
    Delimited,
    /// In a part's head.
    Head,
    /// In the value of this field.
    Field(String),
    /// After the last delimiter.
    End,
}

impl<'a> Form<'a> {
    /// A reader for a body of this content type; `None` if it is not a form.
    pub(crate) fn of(content_type: &str, asks: &'a Asks) -> Option<Self> {
        let (kind, parameters) = content_type.split_once(';')?;
        if !kind.trim().eq_ignore_ascii_case("multipart/form-data") {
            return None;
        }
        let boundary = parameter(parameters.as_bytes(), b"boundary")?;
        let delimiter = [b"\r\n--", boundary.as_slice()].concat();
        // The first delimiter has no line break before it.
        let waiting = b"\r\n".to_vec();
        Some(Self { asks, delimiter, waiting, state: State::Skip, fields: Map::new(), wrong: None })
    }

    /// Takes a chunk.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        if self.wrong.is_some() {
            return;
        }
        self.waiting.extend_from_slice(bytes);
        while self.step() {}
    }

    /// Ends the body and returns the requested fields.
    pub(crate) fn end(self) -> Result<Option<Value>, Unread> {
        match (self.wrong, self.state) {
            (Some(wrong), _) => Err(wrong),
            (None, State::End) => Ok(Some(Value::Object(self.fields))),
            (None, _) => Err(Unread::NotJson),
        }
    }

    /// Processes one part of the form; false if more bytes are needed.
    fn step(&mut self) -> bool {
        match &self.state {
            State::Skip => {
                if let Some(at) = memmem::find(&self.waiting, &self.delimiter) {
                    return self.go(at + self.delimiter.len(), State::Delimited);
                }
                let keep = self.waiting.len().min(self.delimiter.len() - 1);
                self.waiting.drain(..self.waiting.len() - keep);
                false
            }
            State::Delimited => match self.waiting.as_slice() {
                [b'-', b'-', ..] => self.go(2, State::End),
                [b'\r', b'\n', ..] => self.go(2, State::Head),
                // Spaces may follow the delimiter.
                [b' ' | b'\t', ..] => self.go(1, State::Delimited),
                [] | [b'-' | b'\r'] => false,
                _ => self.fail(Unread::NotJson),
            },
            State::Head => match memmem::find(&self.waiting, b"\r\n\r\n") {
                Some(at) => {
                    let name = field_name(&self.waiting[..at]).filter(|name| self.asks.wants(name));
                    // A part may be empty: its delimiter starts with the end of this line.
                    self.go(at + 4, name.map_or(State::Skip, State::Field))
                }
                None if self.waiting.len() > LONGEST_HEAD => self.fail(Unread::TooLong),
                None => false,
            },
            State::Field(name) => match memmem::find(&self.waiting, &self.delimiter) {
                Some(at) if at <= LONGEST_FIELD => {
                    let value = String::from_utf8_lossy(&self.waiting[..at]).into_owned();
                    self.fields.insert(name.clone(), Value::String(value));
                    self.go(at + self.delimiter.len(), State::Delimited)
                }
                None if self.waiting.len() < LONGEST_FIELD + self.delimiter.len() => false,
                _ => self.fail(Unread::TooLong),
            },
            State::End => {
                self.waiting.clear();
                false
            }
        }
    }

    fn go(&mut self, length: usize, state: State) -> bool {
        self.waiting.drain(..length);
        self.state = state;
        true
    }

    fn fail(&mut self, wrong: Unread) -> bool {
        self.wrong = Some(wrong);
        self.waiting = Vec::new();
        false
    }
}

/// The field's name in the head of a part.
fn field_name(head: &[u8]) -> Option<String> {
    let lines = head.split(|&byte| byte == b'\n').map(<[u8]>::trim_ascii);
    let disposition = lines
        .filter_map(|line| line.split_at_checked(line.iter().position(|&byte| byte == b':')?))
        .find(|(name, _)| name.eq_ignore_ascii_case(b"content-disposition"))?;
    let name = parameter(disposition.1, b"name")?;
    // A part with a file name is a file, not a field.
    parameter(disposition.1, b"filename").is_none().then(|| String::from_utf8(name).ok())?
}

/// A parameter of a header, with or without quotes.
fn parameter(parameters: &[u8], name: &[u8]) -> Option<Vec<u8>> {
    parameters.split(|&byte| byte == b';').find_map(|part| {
        let (key, value) = part.split_at_checked(part.iter().position(|&byte| byte == b'=')?)?;
        let value = value[1..].trim_ascii();
        let value = value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\"")).unwrap_or(value);
        (key.trim_ascii().eq_ignore_ascii_case(name) && !value.is_empty()).then(|| value.to_vec())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    const KIND: &str = "multipart/form-data; boundary=\"x-1\"";

    fn read(body: &[u8], step: usize) -> Result<Option<Value>, Unread> {
        let mut asks = Asks::default();
        asks.pointer("/model");
        let mut form = Form::of(KIND, &asks).unwrap();
        body.chunks(step).for_each(|piece| form.push(piece));
        form.end()
    }

    #[test]
    fn a_field_next_to_a_file() {
        let body = b"--x-1\r\nContent-Disposition: form-data; name=\"file\"; filename=\"model\"\r\ncontent-type: audio/wav\r\n\r\n\r\n--x-\r\n\0\xff\r\n\
            --x-1\r\ncontent-disposition: form-data; name=\"model\"\r\n\r\nwhisper\r\n--x-1 \r\nContent-Disposition: form-data; name=\"language\"\r\n\r\nde\r\n--x-1--\r\nbye";
        for step in [1, 2, 5, 1000] {
            assert_eq!(read(body, step), Ok(Some(json!({"model": "whisper"}))), "{step}");
        }
        assert_eq!(read(&body[..body.len() - 8], 9), Err(Unread::NotJson), "cut");
        let long = [
            b"--x-1\r\ncontent-disposition: form-data; name=model\r\n\r\n".as_slice(),
            &vec![b'a'; LONGEST_FIELD + 1],
            b"\r\n--x-1--",
        ]
        .concat();
        assert_eq!((read(&long, 7), read(&long, usize::MAX)), (Err(Unread::TooLong), Err(Unread::TooLong)));
        let asks = Asks::default();
        assert!(Form::of("multipart/form-data", &asks).is_none() && Form::of("application/json", &asks).is_none());
    }

    proptest! {
        #[test]
        fn reading_any_body_does_not_panic(body in proptest::collection::vec(prop_oneof![Just(b'\r'), Just(b'\n'), Just(b'-'), any::<u8>()], 0..90), step in 1_usize..9) {
            let _ = read(&body, step);
            let _ = read(&[b"--x-1\r\n", body.as_slice()].concat(), step);
        }
    }
}
