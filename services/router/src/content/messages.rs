//! The messages of a gRPC answer of the Open Inference Protocol, read as they pass through. Pure, and bounded in memory.
//!
//! `ModelInfer` answers with one `ModelInferResponse`. `ModelStreamInfer` answers with any number of `ModelStreamInferResponse`: each
//! contains an error (field 1) or a `ModelInferResponse` (field 2), while the status of the call stays OK.

use serde_json::Value;

use crate::{
    content::{
        census::Census,
        outcome::{Content, Unread},
    },
    protocol::{
        Promise,
        decoder::{DecodeError, Decoder},
        grpc::{FieldValue, PREFIX, field, first_message},
        tensors,
    },
};

/// Reads the messages of one answer.
#[derive(Debug)]
pub(crate) struct Messages {
    /// Whether each message wraps an answer or an error.
    wrapped: bool,
    /// The compression of compressed messages, from `grpc-encoding`.
    encoding: Box<str>,
    /// Maximum size of a message that is read.
    keep: usize,
    /// Size of the messages whose answers are kept: at most `keep`.
    kept: usize,
    /// The incomplete message, with its prefix.
    partial: Vec<u8>,
    /// Remaining bytes of a message that is too large to read.
    skip: usize,
    result: ReadMessages,
}

/// The content of the messages.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct ReadMessages {
    /// The answers as JSON. Output rules read them.
    pub(super) answers: Vec<Value>,
    /// Whether further answers were not kept, because all of them together are too large.
    pub(super) has_more: bool,
    /// The counts of all answers.
    pub(super) census: Census,
    /// The worst finding.
    pub(crate) content: Content,
    /// Whether there was any output, or any message that could not be read.
    any: bool,
}

impl ReadMessages {
    /// The content of the whole answer.
    pub(crate) fn content(&self) -> Content {
        let any = if self.any { Content::Good } else { Content::Unusable("empty") };
        self.content.or_worse(self.census.content()).or_worse(any)
    }
}

/// Most decompressed bytes of a message that is too large to read: enough for the first piece of every decoder.
const FIRST_PIECE: u64 = 1 << 20;

/// Number of bytes that show whether a message that is too large is an error.
const BEGINNING: usize = PREFIX + 1;

impl Messages {
    /// A reader for the answer to a call; `wrapped` for `ModelStreamInfer`. `encoding` is the compression of compressed messages.
    pub(crate) fn new(wrapped: bool, encoding: &str, keep: usize) -> Self {
        let (partial, result) = (Vec::new(), ReadMessages::default());
        Self { wrapped, encoding: encoding.into(), keep, kept: 0, partial, skip: 0, result }
    }

    /// Takes a chunk of the answer.
    pub(crate) fn feed(&mut self, mut piece: &[u8]) {
        while !piece.is_empty() {
            let skipped = self.skip.min(piece.len());
            self.skip -= skipped;
            piece = &piece[skipped..];
            let wanted = match first_message(&self.partial) {
                None => PREFIX,
                Some(length) if length - PREFIX <= self.keep => length,
                Some(_) => BEGINNING,
            };
            let missing = wanted.saturating_sub(self.partial.len()).min(piece.len());
            self.partial.extend_from_slice(&piece[..missing]);
            piece = &piece[missing..];
            let Some(length) = first_message(&self.partial) else { continue };
            if length - PREFIX > self.keep && self.partial.len() == BEGINNING {
                let content = match self.partial[PREFIX] {
                    ERROR if self.wrapped && self.partial[0] == 0 => Content::Failed("error_message"),
                    _ => Content::Unread(Unread::TooLarge),
                };
                self.note(content);
                self.skip = length - BEGINNING;
                self.partial.clear();
            } else if self.partial.len() == length {
                let message = std::mem::take(&mut self.partial);
                let content = self.read(message[0], &message[PREFIX..]);
                self.note(content);
                self.partial = message;
                self.partial.clear();
            }
        }
    }

    /// The result for a complete answer.
    pub(crate) fn finish(mut self) -> ReadMessages {
        if !self.partial.is_empty() || self.skip > 0 {
            // The last message is incomplete, so the caller cannot read it.
            self.result.content = self.result.content.or_worse(Content::Failed("truncated"));
        }
        self.result
    }

    /// The result for an answer that ended early.
    pub(crate) fn finish_early(self) -> ReadMessages {
        self.result
    }

    fn note(&mut self, content: Content) {
        self.result.any |= content != Content::Good;
        self.result.content = self.result.content.or_worse(content);
    }

    fn read(&mut self, compressed: u8, message: &[u8]) -> Content {
        match compressed {
            0 => self.answer(message),
            1 => match self.decompressed(message) {
                Ok(message) => self.answer(&message),
                Err(DecodeError::TooLarge) if self.wrapped && self.first_byte(message) == Some(ERROR) => {
                    Content::Failed("error_message")
                }
                Err(error) => error.into(),
            },
            _ => Content::Unusable("unparsable"),
        }
    }

    fn decompressed(&self, message: &[u8]) -> Result<Vec<u8>, DecodeError> {
        Decoder::named(&self.encoding, self.keep as u64)?.whole(message)
    }

    /// The first byte of a compressed message that is too large to read.
    fn first_byte(&self, message: &[u8]) -> Option<u8> {
        let mut first = None;
        let mut decoder = Decoder::named(&self.encoding, FIRST_PIECE).ok()?;
        // Even a few bytes may decompress to gigabytes, so the first byte counts also where the rest exceeds the bound.
        let start = &message[..message.len().min(512)];
        match decoder.push(start, |part| first = first.or(part.first().copied())) {
            Ok(()) | Err(DecodeError::TooLarge) => first,
            Err(DecodeError::Broken | DecodeError::Unknown) => None,
        }
    }

    /// Reads one decompressed message.
    fn answer(&mut self, message: &[u8]) -> Content {
        if !self.wrapped {
            return self.count(message);
        }
        let (mut at, mut content) = (0, Content::Good);
        while at < message.len() {
            let Some(found) = field(message, at) else { return content.or_worse(Content::Unusable("unparsable")) };
            at = found.end;
            match (found.number, found.value) {
                (1, FieldValue::Bytes(text)) if !text.is_empty() => {
                    content = content.or_worse(Content::Failed("error_message"));
                }
                (2, FieldValue::Bytes(answer)) => content = content.or_worse(self.count(answer)),
                _ => {}
            }
        }
        content
    }

    /// Counts one `ModelInferResponse`.
    fn count(&mut self, answer: &[u8]) -> Content {
        let Some(mut value) = tensors::infer_message(answer) else { return Content::Unusable("unparsable") };
        // The last message of a decoupled model has no outputs.
        let is_last = self.wrapped && value["outputs"].as_array().is_some_and(Vec::is_empty);
        if is_last {
            return Content::Good;
        }
        self.result.any = true;
        self.result.census.add(&Census::of(&value, Promise::Tensors));
        self.kept = self.kept.saturating_add(answer.len());
        if self.kept > self.keep {
            self.result.has_more = true;
        } else {
            // The same tensors: the message may be a request.
            value.as_object_mut().and_then(|value| value.remove("inputs"));
            self.result.answers.push(value);
        }
        Content::Good
    }
}

/// The tag of field 1 with a length-delimited value.
const ERROR: u8 = 1 << 3 | 2;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::grpc::{framed, tests::text as put};
    use proptest::prelude::*;
    use serde_json::json;

    const KEEP: usize = 4096;

    fn answer(values: &[f64]) -> Vec<u8> {
        let (mut contents, mut tensor, mut answer) = (Vec::new(), Vec::new(), Vec::new());
        put(7, &values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<_>>(), &mut contents);
        put(1, b"p", &mut tensor);
        put(2, b"FP64", &mut tensor);
        put(3, &[values.len() as u8], &mut tensor);
        put(5, &contents, &mut tensor);
        put(5, &tensor, &mut answer);
        answer
    }

    fn wrapped(field: u8, bytes: &[u8]) -> Vec<u8> {
        let mut message = Vec::new();
        put(field, bytes, &mut message);
        framed(&message).to_vec()
    }

    fn read_all(wrapped: bool, body: &[u8], size: usize) -> ReadMessages {
        let mut messages = Messages::new(wrapped, "", KEEP);
        body.chunks(size).for_each(|piece| messages.feed(piece));
        messages.finish()
    }

    #[test]
    fn an_error_in_any_message_fails_the_stream() {
        let (good, error) = (wrapped(2, &answer(&[0.5])), wrapped(1, b"x"));
        let large = wrapped(1, &[b'x'; 3 * KEEP]);
        for body in [error.clone(), [good.clone(), error].concat(), [large, good.clone()].concat()] {
            for size in [1, 7, body.len()] {
                assert_eq!(read_all(true, &body, size).content(), Content::Failed("error_message"));
            }
        }
        let no_error = [wrapped(1, b""), good].concat();
        assert_eq!(read_all(true, &no_error, 3).content(), Content::Good);
    }

    #[test]
    fn unusable_answers() {
        let nan = answer(&[f64::NAN]);
        assert_eq!(read_all(false, &framed(&nan), 4).content(), Content::Unusable("nan"));
        assert_eq!(read_all(true, &wrapped(2, &nan), 4).content(), Content::Unusable("nan"));
        assert_eq!(read_all(false, b"", 4).content(), Content::Unusable("empty"));
        assert_eq!(read_all(false, b"\0\0\0\0\0", 4).content(), Content::Unusable("empty"));
        assert_eq!(read_all(true, &wrapped(2, b""), 4).content(), Content::Unusable("empty"));
        assert_eq!(read_all(false, b"\0\0\0\0\x02\xff\xff", 4).content(), Content::Unusable("unparsable"));
        let half = [wrapped(2, &nan), wrapped(2, &answer(&[1.0])), wrapped(2, b"")].concat();
        let result = read_all(true, &half, 9);
        assert_eq!((result.content(), result.census.missing_share()), (Content::Good, Some(0.5)));
        let data: Vec<_> = result.answers.iter().map(|answer| &answer["outputs"][0]["data"]).collect();
        assert_eq!((data, result.has_more), (vec![&json!(["NaN"]), &json!([1.0])], false));
    }

    #[test]
    fn answers_are_kept_up_to_a_size() {
        let one = answer(&[0.5]);
        let count = KEEP / one.len();
        for (answers, kept) in [(1, 1), (count, count), (count + 1, count), (3 * count, count)] {
            let found = read_all(true, &wrapped(2, &one).repeat(answers), 100);
            assert_eq!((found.answers.len(), found.has_more), (kept, answers > kept), "{answers}");
            assert_eq!((found.census.values, found.content()), (answers as u64, Content::Good), "all are counted");
        }
    }

    #[test]
    fn answers_that_cannot_be_read() {
        let large = framed(&[answer(&[0.5]), vec![0x1a; 2 * KEEP]].concat());
        assert_eq!(read_all(false, &large, 100).content(), Content::Unread(Unread::TooLarge));
        let mut packed = Messages::new(false, "snappy", KEEP);
        packed.feed(b"\x01\0\0\0\x01x");
        assert_eq!(packed.finish().content(), Content::Unread(Unread::Encoding));
        assert_eq!(read_all(false, b"\0\0\0\0\x09x", 100).content(), Content::Failed("truncated"));
    }

    /// 64 MiB in 2 KiB: blocks of one repeated byte, each of 128 KiB.
    #[test]
    fn the_start_of_a_message_is_decompressed_up_to_a_bound() {
        let header = [0x28, 0xb5, 0x2f, 0xfd, 0, 0x58];
        let block = [0x02, 0x00, 0x10, ERROR];
        let bomb = [&header[..], &block.repeat(512)].concat();
        let messages = Messages::new(true, "zstd", KEEP);
        assert_eq!(messages.decompressed(&bomb), Err(DecodeError::TooLarge));
        assert_eq!(messages.first_byte(&bomb), Some(ERROR));
        assert_eq!(messages.first_byte(b"none"), None);
        let mut messages = Messages::new(true, "zstd", KEEP);
        messages.feed(&[&[1_u8][..], &(bomb.len() as u32).to_be_bytes(), &bomb].concat());
        assert_eq!(messages.finish().content(), Content::Failed("error_message"));
    }

    proptest! {
        /// Any bytes can be read, in chunks of any size, with the same result.
        #[test]
        fn the_result_does_not_depend_on_the_chunks(bytes in prop::collection::vec(any::<u8>(), 0..120), wrap: bool, size in 1_usize..20) {
            let body = [framed(&bytes).to_vec(), bytes].concat();
            prop_assert_eq!(read_all(wrap, &body, size), read_all(wrap, &body, body.len()));
        }
    }
}
