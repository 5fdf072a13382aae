//! A request's body: looked into, kept if it is small, else streamed within a limit.

use std::{
    io,
    pin::Pin,
    sync::{Arc, OnceLock},
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;

use super::{Pause, Pieces, within};
use crate::protocol::Scan;

/// How far the upload of a streamed request is.
#[derive(Debug, Default)]
pub(crate) struct Upload {
    ended: OnceLock<Instant>,
    fault: OnceLock<BodyError>,
}

impl Upload {
    /// When its last byte went through, if it has.
    pub(crate) fn ended(&self) -> Option<Instant> {
        self.ended.get().copied()
    }

    /// Why it was cut, if it was: then the upstream is not to blame for what it answers.
    pub(crate) fn fault(&self) -> Option<BodyError> {
        self.fault.get().copied()
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
    /// Longest wait for a body that is kept.
    pub(crate) whole: Duration,
    /// Longest wait for a piece of another one,
    pub(crate) pause: Duration,
    /// and for all of it.
    pub(crate) upload: Option<Duration>,
    /// Whether the caller waits for `100 Continue` before it sends.
    pub(crate) asks_first: bool,
}

/// A request's body, as far as it has come.
pub(crate) struct Arriving {
    head: Pieces,
    rest: Incoming,
    ended: bool,
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

impl Arriving {
    /// A body of which nothing was read yet.
    pub(crate) fn new(rest: Incoming) -> Self {
        Self { head: Pieces::default(), ended: rest.is_end_stream(), rest }
    }

    /// Length of the whole body, if the caller told it.
    fn exact(&self) -> Option<u64> {
        Some(self.rest.size_hint().exact()? + self.head.bytes().len() as u64)
    }

    /// One piece more.
    async fn read(&mut self) -> Result<(), BodyError> {
        match self.rest.frame().await {
            // Trailers of a request are not passed on.
            Some(Ok(frame)) => drop(frame.into_data().map(|data| self.head.push(data))),
            Some(Err(_)) => return Err(BodyError::Broken),
            None => self.ended = true,
        }
        self.ended |= self.rest.is_end_stream();
        Ok(())
    }

    /// Looks for something in the beginning of the body, within `most` bytes and as long as `patience` lets it.
    pub(crate) async fn look<T>(
        &mut self,
        most: usize,
        patience: Duration,
        mut find: impl FnMut(&[u8]) -> Scan<T>,
    ) -> Result<Option<T>, BodyError> {
        let search = async {
            loop {
                match find(self.head.bytes()) {
                    Scan::Found(found) => return Ok(Some(found)),
                    Scan::More if !self.ended && self.head.bytes().len() < most => self.read().await?,
                    _ => return Ok(None),
                }
            }
        };
        within(patience, search).await.ok_or(BodyError::Slow)?
    }

    /// What has come so far.
    pub(crate) fn head(&self) -> &[u8] {
        self.head.bytes()
    }

    /// Takes the body: whole if it is small, else as a stream.
    pub(crate) async fn take(mut self, taking: Taking) -> Result<Taken, BodyError> {
        let exact = self.exact();
        if exact.is_some_and(|size| size > taking.limit) {
            if !taking.asks_first {
                Box::pin(discard(self.rest, taking.limit)).await;
            }
            return Err(BodyError::TooLarge);
        }
        if self.ended || exact.map_or(taking.wanted, |size| size <= taking.keep as u64) {
            let whole = async {
                while !self.ended && self.head.bytes().len() <= taking.keep {
                    self.read().await?;
                }
                Ok(())
            };
            within(taking.whole, whole).await.ok_or(BodyError::Slow)??;
        }
        if self.ended && self.head.bytes().len() <= taking.keep {
            let kept = self.head.join();
            return Ok(Taken { body: RequestBody::Kept(Some(kept.clone())), kept: Some(kept), upload: None });
        }
        let head = Some(self.head.join()).filter(|head| !head.is_empty());
        let taken = head.as_ref().map_or(0, |head| head.len() as u64);
        let Some(left) = taking.limit.checked_sub(taken) else {
            Box::pin(discard(self.rest, taking.limit)).await;
            return Err(BodyError::TooLarge);
        };
        let upload = Arc::new(Upload::default());
        let pause = Pause::new(taking.pause).within(taking.upload);
        let streamed =
            Streamed { head, rest: self.rest, left, limit: taking.limit, upload: Arc::clone(&upload), pause };
        Ok(Taken { body: RequestBody::Streamed(Box::new(streamed)), kept: None, upload: Some(upload) })
    }
}

/// Reads a whole body of at most `limit` bytes.
pub(crate) async fn collect(body: Incoming, limit: usize, patience: Duration) -> Result<Bytes, BodyError> {
    let taking = Taking {
        limit: limit as u64,
        keep: limit,
        wanted: true,
        whole: patience,
        pause: patience,
        upload: None,
        asks_first: false,
    };
    Arriving::new(body).take(taking).await?.kept.ok_or(BodyError::TooLarge)
}

impl RequestBody {
    /// Changes the part of it that is in memory; the rest goes on behind it.
    pub(crate) fn change(self, change: impl FnOnce(Bytes) -> Bytes) -> Self {
        match self {
            Self::Kept(kept) => Self::Kept(kept.map(change)),
            Self::Streamed(mut streamed) => {
                streamed.head = streamed.head.take().map(change);
                Self::Streamed(streamed)
            }
        }
    }
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
                    let fault = if self.is_too_large() { BodyError::TooLarge } else { BodyError::Slow };
                    return self.broken(fault, "the caller stopped sending its request");
                }
            };
            self.pause.reset();
            let data = match frame {
                Some(Ok(frame)) => frame.into_data().unwrap_or_default(),
                None if !self.is_too_large() => {
                    self.end();
                    return Poll::Ready(None);
                }
                _ => return self.broken(BodyError::Broken, "the request's body broke off or is too large"),
            };
            match (self.left.checked_sub(data.len() as u64), self.is_too_large()) {
                (Some(left), false) => {
                    self.left = left;
                    if self.rest.is_end_stream() {
                        self.end();
                    }
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                (None, false) => {
                    // The rest is thrown away first, as in `discard`.
                    let _ = self.upload.fault.set(BodyError::TooLarge);
                    self.left = self.limit.max(DISCARD_AT_LEAST);
                    self.pause = Pause::new(DISCARD_PAUSE);
                }
                (Some(left), true) => self.left = left,
                (None, true) => return self.broken(BodyError::TooLarge, "the request's body is too large"),
            }
        }
    }

    fn is_too_large(&self) -> bool {
        self.upload.fault() == Some(BodyError::TooLarge)
    }

    /// The upload failed. The first fault is the one that counts.
    fn broken(&self, fault: BodyError, text: &'static str) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let _ = self.upload.fault.set(fault);
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
