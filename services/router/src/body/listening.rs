//! What is heard of an answer as it passes, for the guard to judge.

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, StatusCode};

use crate::{
    guard::{Called, Said},
    llm::Tap,
    outcome::Unread,
    protocol::{
        Promise, Wire,
        messages::Messages,
        written::{Coding, Written},
    },
};

/// Listens to an answer.
#[derive(Debug, Default)]
pub(crate) struct Listening {
    how: How,
}

/// How an answer is listened to.
#[derive(Debug)]
enum How {
    /// Not at all, for this reason.
    Not(Unread),
    /// It is kept, up to so many bytes.
    Whole { kept: BytesMut, keep: usize },
    /// It is a stream of events.
    Events(Box<Tap>),
    /// It is messages of gRPC.
    Messages(Box<Messages>),
}

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
                How::Messages(Box::new(Messages::new(true, Coding::of_messages(headers), keep)))
            }
            Written::Other => How::Not(Unread::ContentType),
            Written::Grpc => How::whole(keep),
            _ if called.wire == Wire::Grpc => How::Not(Unread::ContentType),
            _ if Coding::of(headers) == Coding::Unknown => How::Not(Unread::Encoding),
            Written::Events => How::Events(Box::new(Tap::new(called.promise, called.request.as_deref()))),
            _ => How::whole(keep),
        };
        Self { how }
    }

    /// Whether the answer is to pass as it comes, however short it is.
    pub(crate) fn is_stream(&self) -> bool {
        matches!(self.how, How::Events(_) | How::Messages(_))
    }

    /// A piece passes; `at` tells the time since the end of the request.
    pub(crate) fn hear(&mut self, piece: &Bytes, at: impl FnOnce() -> std::time::Duration) {
        match &mut self.how {
            How::Not(_) => {}
            How::Whole { kept, keep } if kept.len() + piece.len() <= *keep => kept.extend_from_slice(piece),
            How::Whole { .. } => self.how = How::Not(Unread::TooLarge),
            How::Events(tap) => tap.feed(piece, at()),
            How::Messages(messages) => messages.feed(piece),
        }
    }

    /// What was heard of an answer that has ended, or of one that is `whole` in memory already.
    pub(crate) fn end(self, whole: Option<&Bytes>) -> Said {
        match self.how {
            How::Not(why) => Said::Unread(why),
            How::Whole { kept, .. } => Said::Whole(whole.cloned().unwrap_or_else(|| kept.freeze())),
            How::Events(tap) => Said::Events(Box::new(tap.into_reply())),
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

impl How {
    fn whole(keep: usize) -> Self {
        Self::Whole { kept: BytesMut::new(), keep }
    }
}
