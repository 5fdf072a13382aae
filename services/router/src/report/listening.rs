//! Records the content of an answer as it passes through, for the guard.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, StatusCode};

use crate::{
    content::{
        llm::{Reply, Tap},
        messages::{Messages, ReadMessages},
        outcome::Unread,
    },
    protocol::{
        Promise, Wire,
        decoder::{DecodeError, Decoder},
        grpc,
        written::Written,
    },
    report::called::Called,
};

/// Records an answer.
#[derive(Default)]
pub(crate) struct Recorder {
    how: How,
}

/// How an answer is recorded.
enum How {
    /// Not recorded, for this reason.
    Not(Unread),
    /// Kept as a whole, up to this many bytes.
    Whole { kept: BytesMut, keep: usize },
    /// Parsed as a stream of events.
    Events(Box<Events>),
    /// Parsed as gRPC messages.
    Messages(Box<Messages>),
}

/// A stream of events with its decoder.
struct Events {
    tap: Tap,
    decoder: Option<Decoder>,
    /// Why the rest of it cannot be decompressed.
    fault: Option<DecodeError>,
    /// When the last chunk arrived.
    last: Duration,
}

/// The recorded content of an answer.
#[derive(Debug)]
pub(crate) enum Received {
    /// The whole body.
    Whole(Bytes),
    /// A stream of events, and why not all of it could be decompressed.
    Events(Box<Reply>, Option<DecodeError>),
    /// gRPC messages.
    Messages(Box<ReadMessages>),
    /// Not recorded.
    Unread(Unread),
}

/// Maximum number of bytes to which a compressed stream is decompressed.
const LONGEST: u64 = 64 << 20;

impl Default for How {
    fn default() -> Self {
        Self::Not(Unread::NotAsked)
    }
}

impl Recorder {
    /// A recorder for an answer with this status and these headers. At most `keep` bytes are kept.
    pub(crate) fn new(status: StatusCode, headers: &HeaderMap, called: &Called, keep: usize) -> Self {
        let how = match Written::of(headers) {
            // The body of an error is kept only for examples.
            written if !status.is_success() && written != Written::Grpc => How::whole(keep),
            Written::Grpc if called.promise == Promise::Service => How::Not(Unread::Service),
            Written::Grpc if called.streams => {
                How::Messages(Box::new(Messages::new(true, grpc::encoding(headers), keep)))
            }
            Written::Other => How::Not(Unread::ContentType),
            Written::Grpc => How::whole(keep),
            _ if called.wire == Wire::Grpc => How::Not(Unread::ContentType),
            written => match Decoder::of(headers, LONGEST) {
                Err(_) => How::Not(Unread::Encoding),
                Ok(decoder) if written == Written::Events => {
                    let tap = Tap::new(called.promise, called.request.as_deref());
                    How::Events(Box::new(Events { tap, decoder, fault: None, last: Duration::ZERO }))
                }
                Ok(_) => How::whole(keep),
            },
        };
        Self { how }
    }

    /// Whether the answer must be passed on as it arrives, however short it is.
    pub(crate) fn is_stream(&self) -> bool {
        matches!(self.how, How::Events(_) | How::Messages(_))
    }

    /// Takes a chunk; `at` returns the time since the end of the request.
    pub(crate) fn record(&mut self, piece: &Bytes, at: impl FnOnce() -> Duration) {
        match &mut self.how {
            How::Not(_) => {}
            How::Whole { kept, keep } if kept.len() + piece.len() <= *keep => kept.extend_from_slice(piece),
            How::Whole { .. } => self.how = How::Not(Unread::TooLarge),
            How::Events(events) => events.record(piece, at()),
            How::Messages(messages) => messages.feed(piece),
        }
    }

    /// The content of a complete answer, or of one that is already in memory (`whole`).
    pub(crate) fn end(self, whole: Option<&Bytes>) -> Received {
        match self.how {
            How::Not(why) => Received::Unread(why),
            How::Whole { kept, .. } => Received::Whole(whole.cloned().unwrap_or_else(|| kept.freeze())),
            How::Events(events) => events.end(),
            How::Messages(messages) => Received::Messages(Box::new(messages.finish())),
        }
    }

    /// The content of an answer that ended early.
    pub(super) fn break_off(self) -> Received {
        match self.how {
            How::Messages(messages) => Received::Messages(Box::new(messages.finish_early())),
            _ => self.end(None),
        }
    }
}

impl Events {
    fn record(&mut self, piece: &[u8], at: Duration) {
        let Self { tap, decoder, fault, last } = self;
        *last = at;
        match decoder {
            None => tap.feed(piece, at),
            Some(_) if fault.is_some() => {}
            Some(decoder) => *fault = decoder.push(piece, |part| tap.feed(part, at)).err(),
        }
    }

    fn end(mut self) -> Received {
        if let (Some(decoder), None) = (self.decoder, self.fault) {
            self.fault = decoder.finish(|part| self.tap.feed(part, self.last)).err();
        }
        Received::Events(Box::new(self.tap.into_reply()), self.fault)
    }
}

impl How {
    fn whole(keep: usize) -> Self {
        Self::Whole { kept: BytesMut::new(), keep }
    }
}
