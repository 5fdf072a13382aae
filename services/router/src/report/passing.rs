//! An answer's body, with the guard that reports how it ended.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};

use crate::{
    body::Pause,
    protocol::grpc,
    report::{guard::Guard, listening::Recorder},
    upstream::{cause::Cause, flights::Cut, pool::Delivery},
};

/// The body of an answer to a caller.
pub(crate) enum AnswerBody {
    /// The whole body in memory.
    Whole(Option<Bytes>),
    /// A message followed by trailers.
    WithTrailers(Option<Bytes>, Option<Box<HeaderMap>>),
    /// The upstream's body as it arrives.
    Passing(Box<Passing>),
}

/// An answer that is passed through. Its guard reports how it ended.
pub(crate) struct Passing {
    inner: Delivery,
    guard: Option<Guard>,
    recorder: Recorder,
    /// The answer's headers, if the answer is recorded.
    headers: HeaderMap,
    pause: Pause,
    cut: Option<Cut>,
    /// When the last chunk was handed to the caller.
    handed: Option<Instant>,
}

/// A caller that does not take the next chunk for this long delays the answer, and its server may abort for that reason.
const HOLDS_UP: Duration = Duration::from_secs(1);

impl AnswerBody {
    /// A complete body.
    pub(crate) fn whole(bytes: impl Into<Bytes>) -> Self {
        Self::Whole(Some(bytes.into()))
    }

    /// Whether the end of the body may take long to arrive.
    pub(crate) fn may_last(&self) -> bool {
        matches!(self, Self::Passing(_))
    }

    /// An upstream's body that is passed through. `pause` is the longest wait for a chunk; the body ends when `cut` resolves.
    pub(crate) fn passing(
        inner: Delivery,
        guard: Option<Guard>,
        (recorder, headers): (Recorder, HeaderMap),
        pause: Duration,
        cut: Option<Cut>,
    ) -> Self {
        let mut passing = Passing { inner, guard, recorder, headers, pause: Pause::new(pause), cut, handed: None };
        if passing.inner.is_end_stream() {
            // A body that has ended is not polled.
            passing.complete();
        }
        Self::Passing(Box::new(passing))
    }
}

impl Passing {
    /// Reports the call when the last byte has arrived, before the caller can see it, so that a replay never runs ahead of the events.
    fn complete(&mut self) {
        if let Some(mut guard) = self.guard.take() {
            let received = std::mem::take(&mut self.recorder).end(None);
            guard.complete(&self.headers, received);
        }
    }

    fn fail(&mut self, cause: Cause, text: &'static str) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        self.break_off(cause);
        Poll::Ready(Some(Err(io::Error::other(text))))
    }

    /// Reports a call whose answer ended early, with the content up to that point.
    fn break_off(&mut self, cause: Cause) {
        if let Some(mut guard) = self.guard.take() {
            let received = std::mem::take(&mut self.recorder).break_off();
            guard.break_off(cause, &self.headers, received);
        }
    }

    /// Records a chunk that passes through.
    fn see(&mut self, frame: &Frame<Bytes>) {
        let Some(guard) = &mut self.guard else { return };
        if let Some(data) = frame.data_ref() {
            guard.passed(data);
            self.recorder.record(data, || guard.elapsed());
        } else if let Some(code) = frame.trailers_ref().and_then(grpc::status) {
            guard.grpc_status(code);
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        if self.cut.as_mut().is_some_and(|cut| cut.as_mut().poll(cx).is_ready()) {
            self.cut = None;
            return self.fail(Cause::Cut, "the version was rolled back");
        }
        if let Some(guard) = &mut self.guard
            && self.handed.take().is_some_and(|since| since.elapsed() >= HOLDS_UP)
        {
            guard.held_up();
        }
        let frame = match Pin::new(&mut self.inner).poll_frame(cx) {
            Poll::Ready(frame) => frame,
            Poll::Pending => {
                ready!(self.pause.poll(cx));
                return self.fail(Cause::Timeout, "the upstream stopped sending its answer");
            }
        };
        self.pause.reset();
        match frame {
            None => {
                self.complete();
                Poll::Ready(None)
            }
            Some(Err(_)) => self.fail(Cause::Truncated, "the upstream's answer ended early"),
            Some(Ok(frame)) => {
                self.see(&frame);
                self.handed = Some(Instant::now());
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
        self.break_off(Cause::ClientClosed);
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
