//! Reads a request's body for the rules that decide, chunk by chunk, independent of its compression and content type. Pure.
//!
//! Clients do not always declare JSON when they send it (`curl -d` declares a form), so a body that starts like JSON is read as JSON. A
//! body that is declared as JSON but invalid is [`Unread`], because it may contain the key. A body that is neither declared as JSON nor
//! starts like it has no such keys.

use std::borrow::Cow;

use http::{HeaderMap, HeaderName, HeaderValue, header};
use serde_json::Value;

use crate::protocol::{
    Unread,
    asks::Asks,
    decoder::{DecodeError, Decoder},
    form::Form,
    grpc,
    rows::{self, RowList, RowLists, Start},
    scan::{LONGEST_TEXT, Scanner},
    tensors,
};

/// Length of the JSON part of a body with binary tensors.
const JSON_LENGTH: HeaderName = HeaderName::from_static("inference-header-content-length");

/// Maximum number of bytes of one raw tensor that are read: enough for any single value.
const TENSOR_BYTES: usize = LONGEST_TEXT + 4;

/// The same for a tensor of strings if one of its rows is read: the place of a string depends on the lengths of all strings before it.
const TEXTS_BYTES: usize = 1 << 20;

/// Largest decompressed gRPC message: the limit that servers have by default.
const GRPC_MESSAGE: u64 = 4 << 20;

/// Reads one HTTP body.
pub(crate) struct Reader<'a> {
    decoder: Option<Decoder>,
    text: Text<'a>,
    wrong: Option<Unread>,
}

/// A decoded body.
struct Text<'a> {
    asks: &'a Asks,
    scanner: Option<Scanner<'a>>,
    /// Whether the headers declare JSON.
    says_json: bool,
    /// The reader for a form, if the body is one.
    form: Option<Form<'a>>,
    /// The first two bytes that follow white space.
    begin: Vec<u8>,
    /// Remaining bytes of the JSON part, if raw tensors follow it.
    json: Option<usize>,
    raw: Option<Raw>,
    rows: RowLists<'a>,
    lists: Vec<RowList>,
}

/// The raw tensors after the JSON part.
struct Raw {
    value: Value,
    /// The requested tensors.
    wanted: Vec<RawTensor>,
    at: u64,
    found: Vec<Vec<u8>>,
}

/// A raw tensor.
struct RawTensor {
    /// Place in the list of tensors.
    index: usize,
    /// Start and end of the bytes that are read, which are those of the drawn row where it is known.
    start: u64,
    end: u64,
    /// End of the tensor.
    last: u64,
    /// Number of rows and request id, for strings if one of their rows is read.
    texts: Option<(usize, String)>,
}

impl RawTensor {
    /// A tensor between two places in the raw part.
    fn new(index: usize, tensor: &Value, (start, last): (u64, u64), drawn: Option<&str>) -> Self {
        let whole = Self { index, start, end: last, last, texts: None };
        let (Some(id), Some(rows)) = (drawn, rows::of_tensor(tensor)) else { return whole };
        if tensor.get("datatype").and_then(Value::as_str) == Some("BYTES") {
            return Self { texts: (rows > 1).then(|| (rows, id.to_owned())), ..whole };
        }
        // All values have the same size.
        match usize::try_from(last - start).ok().and_then(|bytes| Start::drawn(id, rows, bytes)) {
            Some(row) => {
                let range = row.range();
                Self { start: start + range.start as u64, end: start + range.end as u64, ..whole }
            }
            None => whole,
        }
    }

    fn most(&self) -> usize {
        if self.texts.is_some() { TEXTS_BYTES } else { TENSOR_BYTES }
    }

    /// The values in the bytes that were read.
    fn values(&self, datatype: &str, raw: &[u8]) -> Value {
        let none = || Value::Array(Vec::new());
        let Some((rows, id)) = &self.texts else {
            return tensors::raw_values(datatype, raw).unwrap_or_else(none);
        };
        // If the strings are longer than what is read, the row is unknown.
        let is_whole = raw.len() as u64 == self.end - self.start;
        let row = is_whole.then(|| tensors::texts_of_row(raw, *rows, id)).flatten();
        row.map_or_else(none, Value::Array)
    }
}

impl<'a> Reader<'a> {
    /// A reader for a body with these headers. Its decoder returns at most `most` bytes.
    pub(crate) fn new(headers: &HeaderMap, asks: &'a Asks, most: u64) -> Self {
        let (decoder, mut wrong) = match Decoder::of(headers, most) {
            Ok(decoder) => (decoder, None),
            Err(error) => (None, Some(Unread::from(error))),
        };
        let text = |name: &HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
        let json = match headers.contains_key(&JSON_LENGTH).then(|| text(&JSON_LENGTH)?.trim().parse().ok()) {
            None => None,
            Some(Some(length)) => Some(length),
            Some(None) => {
                wrong.get_or_insert(Unread::Encoding);
                None
            }
        };
        let form = text(&header::CONTENT_TYPE).and_then(|kind| Form::of(kind, asks));
        let kind = text(&header::CONTENT_TYPE).and_then(|kind| kind.split(';').next()).map(str::trim);
        let says_json = json.is_some()
            || kind.is_some_and(|kind| {
                let kind = kind.to_ascii_lowercase();
                kind.ends_with("/json") || kind.ends_with("+json")
            });
        let text = Text {
            asks,
            scanner: Some(Scanner::new(asks)),
            says_json,
            form,
            begin: Vec::new(),
            json,
            raw: None,
            rows: RowLists::default(),
            lists: Vec::new(),
        };
        Self { decoder, text, wrong }
    }

    /// Reads lists of rows in this way.
    pub(crate) fn with_rows(mut self, rows: RowLists<'a>) -> Self {
        self.text.scanner = self.text.scanner.map(|scanner| scanner.with_rows(rows));
        self.text.rows = rows;
        self
    }

    /// Whether reading the body costs additional time and memory for decoding.
    pub(crate) fn is_costly(&self) -> bool {
        self.decoder.is_some()
    }

    /// Takes a chunk. Returns false once further chunks are not needed.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> bool {
        if self.wrong.is_some() {
            return false;
        }
        let pushed = match &mut self.decoder {
            None => {
                self.text.push(bytes);
                Ok(())
            }
            Some(decoder) => decoder.push(bytes, |part| self.text.push(part)),
        };
        self.wrong = pushed.err().map(Unread::from);
        self.wrong.is_none()
    }

    /// Ends the body and returns the requested values, and the lists of rows. `None` if it contains no values of that kind.
    pub(crate) fn end(mut self) -> Result<(Option<Value>, Vec<RowList>), Unread> {
        if self.wrong.is_none()
            && let Some(decoder) = self.decoder.take()
        {
            self.wrong = decoder.finish(|part| self.text.push(part)).err().map(Unread::from);
        }
        match self.wrong {
            Some(wrong) => Err(wrong),
            None => self.text.end(),
        }
    }
}

impl From<DecodeError> for Unread {
    fn from(error: DecodeError) -> Self {
        match error {
            DecodeError::Unknown | DecodeError::Broken => Self::Encoding,
            DecodeError::TooLarge => Self::TooLarge,
        }
    }
}

impl Text<'_> {
    fn push(&mut self, mut bytes: &[u8]) {
        if let Some(form) = &mut self.form {
            form.push(bytes);
            return;
        }
        if self.begin.len() < 2 {
            let text = if self.begin.is_empty() { bytes.trim_ascii_start() } else { bytes };
            self.begin.extend(text.iter().take(2 - self.begin.len()));
        }
        if let Some(left) = &mut self.json {
            let (json, rest) = bytes.split_at((*left).min(bytes.len()));
            *left -= json.len();
            let ended = *left == 0;
            self.scan(json);
            if ended && !rest.is_empty() && self.raw.is_none() {
                self.raw = self.begin_raw();
            }
            bytes = rest;
            if let Some(raw) = &mut self.raw {
                raw.push(bytes);
            }
            return;
        }
        self.scan(bytes);
    }

    fn scan(&mut self, bytes: &[u8]) {
        if let Some(scanner) = &mut self.scanner {
            scanner.push(bytes);
        }
    }

    /// Locates the requested tensors after the JSON part has ended.
    fn begin_raw(&mut self) -> Option<Raw> {
        let mut scanner = self.scanner.take()?;
        self.lists = std::mem::take(&mut scanner.lists);
        let Ok(value) = scanner.end() else {
            // Makes `end` return the error again.
            let mut scanner = Scanner::new(self.asks);
            scanner.push(b",");
            self.scanner = Some(scanner);
            return None;
        };
        let value = value.unwrap_or_default();
        let (mut wanted, mut at) = (Vec::new(), 0_u64);
        let tensors = value.get("inputs").and_then(Value::as_array);
        for (index, tensor) in tensors.into_iter().flatten().enumerate() {
            let Some(size) = tensor.pointer("/parameters/binary_data_size").and_then(Value::as_u64) else { continue };
            let end = at.saturating_add(size);
            if self.asks.wants_tensor("inputs", index, tensor.get("name").and_then(Value::as_str)) {
                wanted.push(RawTensor::new(index, tensor, (at, end), self.rows.drawn));
            }
            at = end;
        }
        let found = vec![Vec::new(); wanted.len()];
        Some(Raw { value, wanted, at: 0, found })
    }

    fn end(mut self) -> Result<(Option<Value>, Vec<RowList>), Unread> {
        if let Some(form) = self.form {
            return form.end().map(|value| (value, Vec::new()));
        }
        if let Some(scanner) = &mut self.scanner {
            self.lists = std::mem::take(&mut scanner.lists);
        }
        let found = match (self.raw, self.scanner) {
            (Some(raw), _) => raw.end(),
            (None, Some(scanner)) => {
                // The byte order mark of UTF-8, or JSON in UTF-16, which is not read.
                let begins_json = matches!(
                    self.begin.as_slice(),
                    [b'{' | b'[' | 0xef, ..] | [0xfe, 0xff] | [0xff, 0xfe] | [0, b'{' | b'[']
                );
                scanner.end().or_else(|wrong| if self.says_json || begins_json { Err(wrong) } else { Ok(None) })
            }
            (None, None) => Ok(None),
        };
        found.map(|value| (value, self.lists))
    }
}

impl Raw {
    fn push(&mut self, bytes: &[u8]) {
        let (from, to) = (self.at, self.at + bytes.len() as u64);
        self.at = to;
        for (tensor, found) in self.wanted.iter().zip(&mut self.found) {
            let (first, last) = (tensor.start.max(from), tensor.end.min(to));
            if first < last {
                let part = &bytes[(first - from) as usize..(last - from) as usize];
                let room = tensor.most().saturating_sub(found.len());
                found.extend_from_slice(&part[..part.len().min(room)]);
            }
        }
    }

    fn end(self) -> Result<Option<Value>, Unread> {
        let mut value = self.value;
        for (wanted, raw) in self.wanted.into_iter().zip(self.found) {
            let Some(tensor) = value.pointer_mut(&format!("/inputs/{}", wanted.index)) else { continue };
            if wanted.last > self.at {
                // The body ends before its last tensor does.
                return Err(Unread::NotJson);
            }
            let datatype = tensor.get("datatype").and_then(Value::as_str).unwrap_or_default().to_owned();
            let data = wanted.values(&datatype, &raw);
            if data.as_array().is_some_and(Vec::is_empty) && wanted.end > wanted.start {
                return Err(Unread::TooLong);
            }
            tensor["data"] = data;
        }
        Ok(Some(value))
    }
}

/// Converts the first message of a gRPC request to JSON.
pub(crate) fn message(headers: &HeaderMap, body: &[u8]) -> Result<Option<Value>, Unread> {
    if body.is_empty() {
        return Ok(None);
    }
    tensors::first_values_of_grpc(&plain(headers, body)?)
}

/// The drawn row of the first message of a gRPC request; `None` if the message does not have several rows, or if it cannot be read.
pub(crate) fn row_of_message(headers: &HeaderMap, body: &[u8], asks: &Asks, request_id: &str) -> Option<Value> {
    tensors::row_of_grpc(&plain(headers, body).ok()?, asks, request_id)
}

/// A body whose first message is decompressed.
fn plain<'a>(headers: &HeaderMap, body: &'a [u8]) -> Result<Cow<'a, [u8]>, Unread> {
    if body.first() == Some(&0) { Ok(body.into()) } else { decompress(headers, body).map(Cow::Owned) }
}

/// Decompresses the first message of a gRPC body.
pub(crate) fn decompress(headers: &HeaderMap, body: &[u8]) -> Result<Vec<u8>, Unread> {
    let encoding = headers.get("grpc-encoding").map(HeaderValue::to_str);
    let Some(Ok(encoding)) = encoding else { return Err(Unread::Encoding) };
    let length = grpc::first_message(body).ok_or(Unread::Encoding)?;
    let message = body.get(grpc::PREFIX..length).ok_or(Unread::Encoding)?;
    let mut decoder = Decoder::named(encoding, GRPC_MESSAGE)?;
    let mut decoded = Vec::new();
    decoder.push(message, |part| decoded.extend_from_slice(part))?;
    decoder.finish(|part| decoded.extend_from_slice(part))?;
    Ok(grpc::framed(&decoded).to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(headers: &[(&'static str, &str)], asks: &Asks, body: &[u8]) -> Result<Option<Value>, Unread> {
        let headers: HeaderMap =
            headers.iter().map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap())).collect();
        let at = |step: usize| {
            let mut reader = Reader::new(&headers, asks, 1 << 20);
            for piece in body.chunks(step) {
                if !reader.push(piece) {
                    break;
                }
            }
            reader.end().map(|(value, _)| value)
        };
        let whole = at(1 << 20);
        assert_eq!(at(1), whole);
        whole
    }

    fn user() -> Asks {
        let mut asks = Asks::default();
        asks.pointer("/user");
        asks
    }

    #[test]
    fn json_is_read_whatever_its_content_type() {
        let body = br#"{"user":"u1","pad":[1,2,3]}"#;
        let found = Ok(Some(json!({"user": "u1"})));
        for kind in [
            "application/json",
            "application/x-www-form-urlencoded",
            "text/plain",
            "Application/JSON",
            "text/json",
            "x",
        ] {
            assert_eq!(read(&[("content-type", kind)], &user(), body), found, "{kind}");
        }
        assert_eq!(read(&[], &user(), body), found);
        assert_eq!(read(&[], &user(), &[b"\xef\xbb\xbf", body.as_slice()].concat()), found);
        let kind = |kind, body: &[u8]| read(&[("content-type", kind)], &user(), body);
        assert_eq!(kind("application/x-www-form-urlencoded", b"user=u1&x=2"), Ok(None), "a form has no such key");
        assert_eq!(kind("image/png", b"\x89PNG\r\n"), Ok(None));
        assert_eq!(kind("application/octet-stream", b""), Ok(None));
        for encoded in [&b"\xff\xfe{\0\"\0"[..], b"\xfe\xff\0{\0\"", b"{\0\"\0", b"\0{\0\""] {
            assert_eq!(kind("application/octet-stream", encoded), Err(Unread::NotJson), "UTF-16");
            assert_eq!(read(&[], &user(), encoded), Err(Unread::NotJson), "UTF-16");
        }
        for picture in [&b"\xff\xd8\xff\xe0"[..], b"\0\0\0\x18ftyp", b"\xff"] {
            assert_eq!(kind("image/jpeg", picture), Ok(None));
        }
        let nan = br#"{"user":NaN}"#;
        assert_eq!(kind("application/json", nan), Ok(Some(json!({"user": null}))), "as null");
        assert_eq!(kind("application/json", b"user=u1"), Err(Unread::NotJson));
        assert_eq!(kind("application/problem+json; charset=utf-8", b"x"), Err(Unread::NotJson));
        assert_eq!(kind("text/plain", br#"{"user":"u1""#), Err(Unread::NotJson), "it starts like JSON");
    }

    #[test]
    fn compressed_bodies_are_read() {
        use std::io::Write as _;
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(br#"{"user":"u1"}"#).unwrap();
        let packed = encoder.finish().unwrap();
        let kind = |encoding, body: &[u8]| read(&[("content-encoding", encoding)], &user(), body);
        assert_eq!(kind("gzip", &packed), Ok(Some(json!({"user": "u1"}))));
        assert_eq!(kind("identity", br#"{"user":"u1"}"#), Ok(Some(json!({"user": "u1"}))));
        assert_eq!((kind("lzma", &packed), kind("gzip", b"{}")), (Err(Unread::Encoding), Err(Unread::Encoding)));
        assert_eq!(kind("gzip", &packed[..packed.len() - 1]), Err(Unread::Encoding));
    }

    #[test]
    fn raw_tensors_after_the_json_part() {
        let mut asks = user();
        asks.tensor("inputs", "country");
        let head = json!({"user": "u1", "inputs": [
            {"name": "x", "datatype": "FP32", "shape": [2], "parameters": {"binary_data_size": 8}},
            {"name": "country", "datatype": "BYTES", "shape": [2], "parameters": {"binary_data_size": 12}},
            {"name": "y", "datatype": "FP32", "shape": [1], "data": [1.0]},
        ]})
        .to_string();
        let raw = [&[0; 8], [2, 0, 0, 0, b'C', b'A', 2, 0].as_slice(), &[0, 0, b'U', b'S']].concat();
        let length = head.len().to_string();
        let headers = [("inference-header-content-length", length.as_str())];
        let found = read(&headers, &asks, &[head.as_bytes(), &raw].concat()).unwrap().unwrap();
        assert_eq!(found["user"], "u1");
        assert_eq!(crate::content::values::first_of_tensor(&found, "inputs", "country"), Some(json!("CA")), "{found}");
        assert_eq!(read(&headers, &asks, &[head.as_bytes(), &raw[..11]].concat()), Err(Unread::NotJson), "cut");
        assert_eq!(read(&headers, &asks, &head.as_bytes()[..9]), Err(Unread::NotJson));
        assert_eq!(read(&[("inference-header-content-length", "x")], &asks, b"{}"), Err(Unread::Encoding));
    }
}
