//! An answer's body, with the guard that reports how it ended.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};

use super::Pause;
use crate::{
    guard::Guard,
    llm::Tap,
    protocol::{Scan, grpc},
    upstream::{Cause, Delivery},
};

/// Resolves when a call is to be cut.
pub(crate) type Cut = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The body of an answer to a caller.
pub(crate) enum AnswerBody {
    /// All of it, in memory.
    Whole(Option<Bytes>),
    /// A message and what follows it.
    WithTrailers(Option<Bytes>, Option<Box<HeaderMap>>),
    /// As it comes from the upstream.
    Passing(Box<Passing>),
}

/// What is wanted of an answer that passes.
#[derive(Debug, Default)]
pub(crate) struct Listening {
    /// Its first bytes, up to this many, for output rules.
    pub(crate) keep: Option<usize>,
    /// Whether of a gRPC stream of answers only the first one is kept.
    pub(crate) first: bool,
    /// The chunks of a language model.
    pub(crate) tap: Option<Tap>,
    /// Its headers, if anybody wants to know what it says.
    pub(crate) headers: HeaderMap,
}

/// An answer that passes through; its guard reports how it ended.
pub(crate) struct Passing {
    inner: Delivery,
    guard: Option<Guard>,
    headers: HeaderMap,
    /// What has passed, while it is wanted and small enough.
    kept: Option<BytesMut>,
    keep: usize,
    first: bool,
    tap: Option<Tap>,
    pause: Pause,
    cut: Option<Cut>,
}

impl AnswerBody {
    /// A whole body.
    pub(crate) fn whole(bytes: impl Into<Bytes>) -> Self {
        Self::Whole(Some(bytes.into()))
    }

    /// Whether the last of it may be long in coming.
    pub(crate) fn may_last(&self) -> bool {
        matches!(self, Self::Passing(_))
    }

    /// An upstream's body that passes through; `pause` is the longest wait for a piece, and it ends when `cut` resolves.
    pub(crate) fn passing(
        inner: Delivery,
        guard: Option<Guard>,
        listening: Listening,
        pause: Duration,
        cut: Option<Cut>,
    ) -> Self {
        let mut passing = Passing {
            inner,
            guard,
            headers: listening.headers,
            kept: listening.keep.map(|_| BytesMut::new()),
            keep: listening.keep.unwrap_or_default(),
            first: listening.first,
            tap: listening.tap,
            pause: Pause::new(pause),
            cut,
        };
        if passing.inner.is_end_stream() {
            // Nobody polls a body that has ended.
            passing.complete();
        }
        Self::Passing(Box::new(passing))
    }
}

impl Passing {
    /// The last byte has come: reported before the caller can see it, so that a replay never runs ahead of the events.
    fn complete(&mut self) {
        if let Some(mut guard) = self.guard.take() {
            if let Some(tap) = self.tap.take() {
                guard.heard(tap.into_reply());
            }
            let kept = self.kept.take().map(BytesMut::freeze);
            let kept = if self.first { kept.and_then(|kept| grpc::first_of_stream(&kept)) } else { kept };
            guard.complete(&self.headers, kept.as_deref());
        }
    }

    fn fail(&mut self, cause: Cause, text: &'static str) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        if let Some(mut guard) = self.guard.take() {
            if let Some(tap) = self.tap.take() {
                guard.heard(tap.into_reply());
            }
            guard.fail(cause);
        }
        Poll::Ready(Some(Err(io::Error::other(text))))
    }

    /// Looks at a piece that passes.
    fn see(&mut self, frame: &Frame<Bytes>) {
        if let Some(data) = frame.data_ref() {
            if let Some(guard) = &mut self.guard {
                guard.passed(data);
            }
            match &mut self.kept {
                Some(kept) if self.first => {
                    if !matches!(grpc::whole_message(kept), Scan::Found(())) {
                        let room = self.keep.saturating_sub(kept.len());
                        kept.extend_from_slice(&data[..data.len().min(room)]);
                    }
                }
                Some(kept) if kept.len() + data.len() <= self.keep => kept.extend_from_slice(data),
                _ => self.kept = None,
            }
            if let (Some(tap), Some(guard)) = (&mut self.tap, &self.guard) {
                tap.feed(data, guard.elapsed());
            }
        } else if let (Some(guard), Some(trailers)) = (&mut self.guard, frame.trailers_ref())
            && let Some(code) = grpc::status(trailers)
        {
            guard.grpc_status(code);
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        if self.cut.as_mut().is_some_and(|cut| cut.as_mut().poll(cx).is_ready()) {
            self.cut = None;
            return self.fail(Cause::Cut, "the version was rolled back");
        }
        let frame = match Pin::new(&mut self.inner).poll_frame(cx) {
            Poll::Ready(frame) => frame,
            Poll::Pending => {
                ready!(self.pause.poll(cx));
                return self.fail(Cause::Timeout, "the upstream's answer stopped");
            }
        };
        self.pause.reset();
        match frame {
            None => {
                self.complete();
                Poll::Ready(None)
            }
            Some(Err(_)) => self.fail(Cause::Truncated, "the upstream's answer broke off"),
            Some(Ok(frame)) => {
                self.see(&frame);
                if self.inner.is_end_stream() {
                    self.complete();
                }
                Poll::Ready(Some(Ok(frame)))
            }
        }
    }
}

impl Drop for Passing {
    fn drop(&mut self) {
        // The caller left: what was heard until then still counts.
        if let (Some(guard), Some(tap)) = (&mut self.guard, self.tap.take()) {
            guard.heard(tap.into_reply());
        }
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        match self.get_mut() {
            Self::Whole(bytes) => {
                Poll::Ready(bytes.take().filter(|bytes| !bytes.is_empty()).map(|bytes| Ok(Frame::data(bytes))))
            }
            Self::WithTrailers(bytes, trailers) => {
                let frame = bytes
                    .take()
                    .map(Frame::data)
                    .or_else(|| trailers.take().map(|trailers| Frame::trailers(*trailers)));
                Poll::Ready(frame.map(Ok))
            }
            Self::Passing(passing) => passing.poll(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(bytes) => bytes.as_ref().is_none_or(Bytes::is_empty),
            Self::WithTrailers(bytes, trailers) => bytes.is_none() && trailers.is_none(),
            Self::Passing(passing) => passing.inner.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Self::WithTrailers(..) => SizeHint::new(),
            Self::Passing(passing) => passing.inner.size_hint(),
        }
    }
}
