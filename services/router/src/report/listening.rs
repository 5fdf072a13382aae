//! What is heard of an answer as it passes, for the guard to judge.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, StatusCode};

use crate::{
    content::{
        llm::{Reply, Tap},
        messages::{Heard, Messages},
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

/// Listens to an answer.
#[derive(Default)]
pub(crate) struct Listening {
    how: How,
}

/// How an answer is listened to.
enum How {
    /// Not at all, for this reason.
    Not(Unread),
    /// It is kept, up to so many bytes.
    Whole { kept: BytesMut, keep: usize },
    /// It is a stream of events.
    Events(Box<Events>),
    /// It is messages of gRPC.
    Messages(Box<Messages>),
}

/// A stream of events, and what undoes its compression.
struct Events {
    tap: Tap,
    decoder: Option<Decoder>,
    /// Why nothing more of it can be decompressed.
    fault: Option<DecodeError>,
    /// When the last piece came.
    last: Duration,
}

/// What an answer said.
#[derive(Debug)]
pub(crate) enum Said {
    /// This is its whole body.
    Whole(Bytes),
    /// It is a stream of events, of which not all could be decompressed for this reason.
    Events(Box<Reply>, Option<DecodeError>),
    /// It is messages of gRPC.
    Messages(Box<Heard>),
    /// It was not listened to.
    Unread(Unread),
}

/// All that a compressed stream may decompress to while it is listened to.
const LONGEST: u64 = 64 << 20;

impl Default for How {
    fn default() -> Self {
        Self::Not(Unread::NotAsked)
    }
}

impl Listening {
    /// For an answer with this status and these headers. At most `keep` bytes of it are kept.
    pub(crate) fn new(status: StatusCode, headers: &HeaderMap, called: &Called, keep: usize) -> Self {
        let how = match Written::of(headers) {
            // What the other side sends under an error is kept for examples only.
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

    /// Whether the answer is to pass as it comes, however short it is.
    pub(crate) fn is_stream(&self) -> bool {
        matches!(self.how, How::Events(_) | How::Messages(_))
    }

    /// A piece passes; `at` tells the time since the end of the request.
    pub(crate) fn hear(&mut self, piece: &Bytes, at: impl FnOnce() -> Duration) {
        match &mut self.how {
            How::Not(_) => {}
            How::Whole { kept, keep } if kept.len() + piece.len() <= *keep => kept.extend_from_slice(piece),
            How::Whole { .. } => self.how = How::Not(Unread::TooLarge),
            How::Events(events) => events.hear(piece, at()),
            How::Messages(messages) => messages.feed(piece),
        }
    }

    /// What was heard of an answer that has ended, or of one that is `whole` in memory already.
    pub(crate) fn end(self, whole: Option<&Bytes>) -> Said {
        match self.how {
            How::Not(why) => Said::Unread(why),
            How::Whole { kept, .. } => Said::Whole(whole.cloned().unwrap_or_else(|| kept.freeze())),
            How::Events(events) => events.end(),
            How::Messages(messages) => Said::Messages(Box::new(messages.into_heard())),
        }
    }

    /// What was heard of an answer that broke off.
    pub(crate) fn break_off(self) -> Said {
        match self.how {
            How::Messages(messages) => Said::Messages(Box::new(messages.into_part())),
            _ => self.end(None),
        }
    }
}

impl Events {
    fn hear(&mut self, piece: &[u8], at: Duration) {
        let Self { tap, decoder, fault, last } = self;
        *last = at;
        match decoder {
            None => tap.feed(piece, at),
            Some(_) if fault.is_some() => {}
            Some(decoder) => *fault = decoder.push(piece, |part| tap.feed(part, at)).err(),
        }
    }

    fn end(mut self) -> Said {
        if let (Some(decoder), None) = (self.decoder, self.fault) {
            self.fault = decoder.finish(|part| self.tap.feed(part, self.last)).err();
        }
        Said::Events(Box::new(self.tap.into_reply()), self.fault)
    }
}

impl How {
    fn whole(keep: usize) -> Self {
        Self::Whole { kept: BytesMut::new(), keep }
    }
}
