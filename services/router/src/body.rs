//! Bodies on their way through: a request's, kept or streamed within a limit; an answer's, with the guard that reports it.

use std::{
    future::Future as _,
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tokio::time::Sleep;

use crate::{guard::Guard, upstream::Cause};

/// How far the upload of a streamed request is.
#[derive(Debug, Default)]
pub(crate) struct Upload {
    ended: std::sync::OnceLock<Instant>,
    too_large: AtomicBool,
    failed: AtomicBool,
}

impl Upload {
    /// When its last byte went through, if it has.
    pub(crate) fn ended(&self) -> Option<Instant> {
        self.ended.get().copied()
    }

    /// Whether it was cut at the limit.
    pub(crate) fn too_large(&self) -> bool {
        self.too_large.load(Ordering::Relaxed)
    }

    /// Whether the caller broke it off.
    pub(crate) fn failed(&self) -> bool {
        self.failed.load(Ordering::Relaxed)
    }
}

/// The body of a request to an upstream.
pub(crate) enum RequestBody {
    /// All of it, in memory.
    Kept(Option<Bytes>),
    /// What was read already, then the rest as it comes.
    Streamed(Box<Streamed>),
}

/// A request body that passes through.
pub(crate) struct Streamed {
    head: Option<Bytes>,
    rest: Incoming,
    /// Bytes that may still come; beyond the limit, that are still thrown away.
    left: u64,
    limit: u64,
    upload: Arc<Upload>,
    pause: Pause,
}

/// Why a request's body was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BodyError {
    TooLarge,
    Slow,
    Broken,
}

/// A request body, taken.
pub(crate) struct Taken {
    pub(crate) body: RequestBody,
    /// The whole body, if it was small enough to keep.
    pub(crate) kept: Option<Bytes>,
    /// The progress of a body that was not kept.
    pub(crate) upload: Option<Arc<Upload>>,
}

/// How a request's body is taken.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Taking {
    /// Largest body.
    pub(crate) limit: u64,
    /// Largest body that is kept.
    pub(crate) keep: usize,
    /// Whether a body of unknown length is worth reading ahead for.
    pub(crate) wanted: bool,
    /// Longest wait for a piece.
    pub(crate) pause: Duration,
    /// Whether the caller waits for `100 Continue` before it sends.
    pub(crate) asks_first: bool,
}

/// Longest wait for a piece that is thrown away.
const DISCARD_PAUSE: Duration = Duration::from_secs(2);

/// At least this much is thrown away, so that whoever sends a body that is a bit too large sees why.
const DISCARD_AT_LEAST: u64 = 16 << 20;

/// Throws away about `most` bytes of what a caller still sends. Closing a connection with unread bytes resets it, and the caller
/// would never see why.
async fn discard(mut rest: Incoming, most: u64) {
    let mut left = most.max(DISCARD_AT_LEAST);
    while let Ok(Some(Ok(frame))) = tokio::time::timeout(DISCARD_PAUSE, rest.frame()).await {
        match left.checked_sub(frame.data_ref().map_or(0, |data| data.len() as u64)) {
            Some(less) => left = less,
            None => return,
        }
    }
}

/// Takes a request's body: whole if it is small, else as a stream.
pub(crate) async fn take(mut rest: Incoming, taking: Taking) -> Result<Taken, BodyError> {
    let exact = rest.size_hint().exact();
    if exact.is_some_and(|size| size > taking.limit) {
        if !taking.asks_first {
            discard(rest, taking.limit).await;
        }
        return Err(BodyError::TooLarge);
    }
    let worth = exact.map_or(taking.wanted, |size| size <= taking.keep as u64);
    let mut head = BytesMut::new();
    let mut first: Option<Bytes> = None;
    while worth && head.len() + first.as_ref().map_or(0, Bytes::len) <= taking.keep {
        let next = tokio::time::timeout(taking.pause, rest.frame()).await.map_err(|_| BodyError::Slow)?;
        match next {
            None => {
                let kept = join(first, head);
                return Ok(Taken { body: RequestBody::Kept(Some(kept.clone())), kept: Some(kept), upload: None });
            }
            Some(Err(_)) => return Err(BodyError::Broken),
            // Trailers of a request are not passed on.
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) if first.is_none() && head.is_empty() => first = Some(data),
                Ok(data) => {
                    if let Some(first) = first.take() {
                        head.extend_from_slice(&first);
                    }
                    head.extend_from_slice(&data);
                }
                Err(_) => {}
            },
        }
    }
    let head = Some(join(first, head)).filter(|head| !head.is_empty());
    let taken = head.as_ref().map_or(0, |head| head.len() as u64);
    let Some(left) = taking.limit.checked_sub(taken) else {
        discard(rest, taking.limit).await;
        return Err(BodyError::TooLarge);
    };
    let upload = Arc::new(Upload::default());
    let pause = Pause::new(taking.pause);
    let streamed = Streamed { head, rest, left, limit: taking.limit, upload: Arc::clone(&upload), pause };
    Ok(Taken { body: RequestBody::Streamed(Box::new(streamed)), kept: None, upload: Some(upload) })
}

fn join(first: Option<Bytes>, rest: BytesMut) -> Bytes {
    match first {
        Some(first) if rest.is_empty() => first,
        _ => rest.freeze(),
    }
}

/// Reads a whole body of at most `limit` bytes.
pub(crate) async fn collect(body: Incoming, limit: usize, pause: Duration) -> Result<Bytes, BodyError> {
    let taking = Taking { limit: limit as u64, keep: limit, wanted: true, pause, asks_first: false };
    take(body, taking).await?.kept.ok_or(BodyError::TooLarge)
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        match self.get_mut() {
            Self::Kept(bytes) => {
                Poll::Ready(bytes.take().filter(|bytes| !bytes.is_empty()).map(|bytes| Ok(Frame::data(bytes))))
            }
            Self::Streamed(streamed) => streamed.poll(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Kept(bytes) => bytes.as_ref().is_none_or(Bytes::is_empty),
            Self::Streamed(streamed) => streamed.head.is_none() && streamed.rest.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Kept(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Self::Streamed(streamed) => {
                let read = streamed.head.as_ref().map_or(0, |head| head.len() as u64);
                streamed.rest.size_hint().exact().map_or_else(SizeHint::new, |rest| SizeHint::with_exact(rest + read))
            }
        }
    }
}

impl Streamed {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        if let Some(head) = self.head.take() {
            if self.rest.is_end_stream() {
                self.end();
            }
            return Poll::Ready(Some(Ok(Frame::data(head))));
        }
        loop {
            let frame = match Pin::new(&mut self.rest).poll_frame(cx) {
                Poll::Ready(frame) => frame,
                Poll::Pending => {
                    ready!(self.pause.poll(cx));
                    return self.broken("the caller stopped sending its request");
                }
            };
            self.pause.reset();
            let data = match frame {
                Some(Ok(frame)) => frame.into_data().unwrap_or_default(),
                None if !self.upload.too_large() => {
                    self.end();
                    return Poll::Ready(None);
                }
                _ => return self.broken("the request's body broke off or is too large"),
            };
            match (self.left.checked_sub(data.len() as u64), self.upload.too_large()) {
                (Some(left), false) => {
                    self.left = left;
                    if self.rest.is_end_stream() {
                        self.end();
                    }
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                (None, false) => {
                    // The rest is thrown away first, as in `discard`.
                    self.upload.too_large.store(true, Ordering::Relaxed);
                    self.left = self.limit.max(DISCARD_AT_LEAST);
                    self.pause = Pause::new(DISCARD_PAUSE);
                }
                (Some(left), true) => self.left = left,
                (None, true) => return self.broken("the request's body is too large"),
            }
        }
    }

    /// The upload failed; whether it was too large has been noted before.
    fn broken(&self, text: &'static str) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        self.upload.failed.store(true, Ordering::Relaxed);
        Poll::Ready(Some(Err(io::Error::other(text))))
    }

    fn end(&self) {
        let _ = self.upload.ended.set(Instant::now());
    }
}

impl Drop for Streamed {
    fn drop(&mut self) {
        // A body that nobody reads to its end has no later end than this.
        self.end();
    }
}

/// A deadline that each piece of a body pushes on. The timer is made only when a piece lets one wait.
struct Pause {
    span: Duration,
    timer: Option<Pin<Box<Sleep>>>,
    running: bool,
}

impl Pause {
    fn new(span: Duration) -> Self {
        Self { span, timer: None, running: false }
    }

    fn reset(&mut self) {
        self.running = false;
    }

    /// Ready once the wait has lasted too long.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(self.span)));
        if !self.running {
            timer.as_mut().reset(tokio::time::Instant::now() + self.span);
            self.running = true;
        }
        timer.as_mut().poll(cx)
    }
}

/// The body of an answer to a caller.
pub(crate) enum AnswerBody {
    /// All of it, in memory.
    Whole(Option<Bytes>),
    /// As it comes from the upstream.
    Passing(Box<Passing>),
}

/// An answer that passes through; its guard reports how it ended.
pub(crate) struct Passing {
    inner: Incoming,
    guard: Option<Guard>,
    /// What has passed, while it is wanted and small enough.
    kept: Option<BytesMut>,
    keep: usize,
    pause: Pause,
}

impl AnswerBody {
    /// A whole body.
    pub(crate) fn whole(bytes: impl Into<Bytes>) -> Self {
        Self::Whole(Some(bytes.into()))
    }

    /// An upstream's body that passes through. With a `guard`, its first `keep` bytes are kept for output rules if `wanted`.
    pub(crate) fn passing(inner: Incoming, guard: Option<Guard>, wanted: bool, keep: usize, pause: Duration) -> Self {
        let kept = (wanted && guard.is_some()).then(BytesMut::new);
        let mut passing = Passing { inner, guard, kept, keep, pause: Pause::new(pause) };
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
            guard.complete(self.kept.as_deref());
        }
    }

    fn fail(&mut self, cause: Cause, text: &'static str) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        if let Some(mut guard) = self.guard.take() {
            guard.fail(cause);
        }
        Poll::Ready(Some(Err(io::Error::other(text))))
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
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
                if let (Some(kept), Some(data)) = (&mut self.kept, frame.data_ref()) {
                    if kept.len() + data.len() <= self.keep {
                        kept.extend_from_slice(data);
                    } else {
                        self.kept = None;
                    }
                }
                if self.inner.is_end_stream() {
                    self.complete();
                }
                Poll::Ready(Some(Ok(frame)))
            }
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
            Self::Passing(passing) => passing.poll(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(bytes) => bytes.as_ref().is_none_or(Bytes::is_empty),
            Self::Passing(passing) => passing.inner.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Self::Passing(passing) => passing.inner.size_hint(),
        }
    }
}
