//! A request's body: searched, held while a decision is made from it, kept if it is small, otherwise streamed within a limit.
//!
//! All bodies that are held in memory share one budget in bytes ([`Budget`]). When it is used up, no further bytes are read until another
//! body has been sent on.

use std::{
    collections::VecDeque,
    io,
    pin::Pin,
    sync::{Arc, OnceLock},
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use serin_listener::unread::Lent;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::{
    body::{Pause, within},
    protocol::{Scan, refusal::Refusal},
};

/// A request's body as received from the caller.
pub(crate) type CallerBody = Lent<Incoming>;

/// Memory budget in bytes shared by all held bodies.
#[derive(Clone, Debug)]
pub(crate) struct Budget {
    left: Arc<Semaphore>,
    all: usize,
}

impl Budget {
    pub(crate) fn new(bytes: usize) -> Self {
        let all = bytes.min(Semaphore::MAX_PERMITS);
        Self { left: Arc::new(Semaphore::new(all)), all }
    }

    /// Extends what is booked for a buffer to its length, as soon as there is room. A buffer that exceeds the whole budget is not booked.
    pub(crate) async fn book(&self, booked: &mut Option<OwnedSemaphorePermit>, length: usize) {
        if length > self.all {
            return;
        }
        let due = length.saturating_sub(booked.as_ref().map_or(0, OwnedSemaphorePermit::num_permits));
        let due = u32::try_from(due).unwrap_or(u32::MAX);
        // The semaphore is never closed.
        if due > 0
            && let Ok(permit) = Arc::clone(&self.left).acquire_many_owned(due).await
        {
            match booked {
                Some(booked) => booked.merge(permit),
                None => *booked = Some(permit),
            }
        }
    }

    /// Bytes in use.
    pub(crate) fn used(&self) -> usize {
        self.all.saturating_sub(self.left.available_permits())
    }
}

/// Smaller chunks are combined, because the overhead of a small chunk exceeds its size.
const SMALL: usize = 4 << 10;
/// Buffer size for small chunks.
const ROOM: usize = 16 << 10;

/// The part of a body that is in memory.
#[derive(Default)]
struct Held {
    pieces: VecDeque<Bytes>,
    small: BytesMut,
    length: usize,
    paid: Option<OwnedSemaphorePermit>,
}

impl Held {
    fn push(&mut self, piece: Bytes) {
        self.length += piece.len();
        if self.pieces.is_empty() && self.small.is_empty() || piece.len() >= SMALL {
            self.close();
            self.pieces.push_back(piece);
            return;
        }
        if self.small.capacity() - self.small.len() < piece.len() {
            self.close();
            self.small.reserve(ROOM);
        }
        self.small.extend_from_slice(&piece);
    }

    fn close(&mut self) {
        if !self.small.is_empty() {
            self.pieces.push_back(self.small.split().freeze());
        }
    }

    /// Joins all of it into one chunk.
    fn joined(&mut self) -> &Bytes {
        self.close();
        if self.pieces.len() != 1 {
            let mut one = BytesMut::with_capacity(self.length);
            self.pieces.drain(..).for_each(|piece| one.extend_from_slice(&piece));
            self.pieces.push_back(one.freeze());
        }
        &self.pieces[0]
    }

    /// Acquires budget for bytes that are not paid for yet.
    async fn pay(&mut self, budget: &Budget) {
        budget.book(&mut self.paid, self.length).await;
    }
}

/// Progress of the upload of a streamed request.
#[derive(Debug, Default)]
pub(crate) struct Upload {
    ended: OnceLock<Instant>,
    fault: OnceLock<BodyError>,
}

impl Upload {
    /// When the last byte was sent on, if it was.
    pub(crate) fn ended(&self) -> Option<Instant> {
        self.ended.get().copied()
    }

    /// Why the upload was cut, if it was. In this case the upstream is not to blame for its answer.
    pub(crate) fn fault(&self) -> Option<BodyError> {
        self.fault.get().copied()
    }
}

/// The body of a request to an upstream.
pub(crate) enum RequestBody {
    /// The whole body in memory.
    Kept(Option<Bytes>),
    /// The whole body in chunks, with their part of the budget.
    Held(Box<(VecDeque<Bytes>, Option<OwnedSemaphorePermit>)>),
    /// The bytes already read, followed by the rest as it arrives.
    Streamed(Box<Streamed>),
}

/// A request body that is passed through.
pub(crate) struct Streamed {
    head: VecDeque<Bytes>,
    /// The part of the budget used by the head.
    paid: Option<OwnedSemaphorePermit>,
    rest: CallerBody,
    /// Bytes that may still arrive; beyond the limit, bytes that are still discarded.
    left: u64,
    limit: u64,
    upload: Arc<Upload>,
    pause: Pause,
}

/// Why a request's body was not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BodyError {
    TooLarge,
    Slow,
    Broken,
    /// The request waited too long for memory.
    NoRoom,
}

/// An accepted request body.
pub(crate) struct Taken {
    pub(crate) body: RequestBody,
    /// The whole body, if it was small enough to be kept.
    pub(crate) kept: Option<Bytes>,
    /// The progress of a body that was not kept.
    pub(crate) upload: Option<Arc<Upload>>,
}

/// How a request's body is accepted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Taking {
    /// Maximum size of a body.
    pub(crate) limit: u64,
    /// Maximum size of a body that is kept.
    pub(crate) keep: usize,
    /// Whether to read ahead a body of unknown length.
    pub(crate) wanted: bool,
    /// Longest wait for a body that is kept.
    pub(crate) whole: Duration,
    /// Longest wait for a chunk of a body that is not kept.
    pub(crate) pause: Duration,
    /// Longest wait for all of a body that is not kept.
    pub(crate) upload: Option<Duration>,
    /// Whether the caller waits for `100 Continue` before it sends the body.
    pub(crate) asks_first: bool,
}

/// A request's body while it arrives.
pub(crate) struct Arriving {
    head: Held,
    rest: CallerBody,
    ended: bool,
    budget: Budget,
    /// Whether the body waits for memory.
    starved: bool,
}

/// Longest wait for a chunk that is discarded.
const DISCARD_PAUSE: Duration = Duration::from_secs(2);

/// Minimum number of bytes to discard, so that a caller whose body is slightly too large receives the answer.
const DISCARD_AT_LEAST: u64 = 16 << 20;

/// Discards about `most` bytes that a caller still sends. Closing a connection with unread bytes resets it, and the caller would not
/// receive the answer.
async fn discard(rest: &mut CallerBody, most: u64) {
    let mut left = most.max(DISCARD_AT_LEAST);
    while let Ok(Some(Ok(frame))) = tokio::time::timeout(DISCARD_PAUSE, rest.frame()).await {
        match left.checked_sub(frame.data_ref().map_or(0, |data| data.len() as u64)) {
            Some(less) => left = less,
            None => return,
        }
    }
}

impl Arriving {
    /// A body of which nothing has been read.
    pub(crate) fn new(rest: CallerBody, budget: Budget) -> Self {
        Self { head: Held::default(), ended: rest.is_end_stream(), rest, budget, starved: false }
    }

    /// Length of the whole body, if the caller declared it.
    fn exact(&self) -> Option<u64> {
        Some(self.rest.size_hint().exact()? + self.head.length as u64)
    }

    /// Reads one more chunk within `patience`. Budget is acquired for bytes that must wait for more.
    async fn read(&mut self, patience: Duration) -> Result<(), BodyError> {
        match within(patience, self.rest.frame()).await.ok_or(BodyError::Slow)? {
            // Trailers of a request are not passed on.
            Some(Ok(frame)) => drop(frame.into_data().map(|data| self.head.push(data))),
            Some(Err(_)) => return Err(BodyError::Broken),
            None => self.ended = true,
        }
        self.ended |= self.rest.is_end_stream();
        if self.ended && self.head.paid.is_none() {
            // The whole body arrived in one piece and is sent on immediately.
            return Ok(());
        }
        self.starved = true;
        within(patience, self.head.pay(&self.budget)).await.ok_or(BodyError::NoRoom)?;
        self.starved = false;
        Ok(())
    }

    /// Why the body did not arrive in time.
    fn late(&self) -> BodyError {
        if self.starved { BodyError::NoRoom } else { BodyError::Slow }
    }

    /// Searches the start of the body within `most` bytes and for at most `patience`.
    pub(crate) async fn look<T>(
        &mut self,
        most: usize,
        patience: Duration,
        mut find: impl FnMut(&[u8]) -> Scan<T>,
    ) -> Result<Option<T>, BodyError> {
        let search = async {
            loop {
                match find(self.head.joined()) {
                    Scan::Found(found) => return Ok(Some(found)),
                    Scan::More if !self.ended && self.head.length < most => self.read(patience).await?,
                    _ => return Ok(None),
                }
            }
        };
        let found = within(patience, search).await;
        found.unwrap_or_else(|| Err(self.late()))
    }

    /// Holds the whole body, or its first `want` bytes. Returns false if that exceeds the whole budget.
    pub(crate) async fn hold(&mut self, hold: Hold, want: u64) -> Result<bool, BodyError> {
        let started = Instant::now();
        while !self.ended && (self.head.length as u64) < want {
            let size = self.exact().unwrap_or(0).max(self.head.length as u64);
            if size > hold.limit {
                self.throw_away(hold).await;
                return Err(BodyError::TooLarge);
            }
            if size.min(want) > self.budget.all as u64 {
                return Ok(false);
            }
            if started.elapsed() > hold.all {
                return Err(BodyError::Slow);
            }
            match self.read(hold.pause).await {
                Ok(()) => {}
                Err(BodyError::NoRoom) => {
                    self.throw_away(hold).await;
                    return Err(BodyError::NoRoom);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    /// Discards the received bytes and those that still arrive, so that the caller receives the answer.
    pub(crate) async fn throw_away(&mut self, hold: Hold) {
        let unsent = hold.asks_first && self.head.length == 0;
        self.head = Held::default();
        // A caller that waits for 100 Continue has not sent anything yet.
        if !unsent {
            Box::pin(discard(&mut self.rest, hold.limit)).await;
        }
    }

    /// Number of bytes received so far.
    pub(crate) fn len(&self) -> usize {
        self.head.length
    }

    /// The bytes received so far, in one chunk.
    pub(crate) fn head(&mut self) -> &Bytes {
        self.head.joined()
    }

    /// The chunks received so far.
    pub(crate) fn pieces(&mut self) -> impl Iterator<Item = &Bytes> {
        self.head.close();
        self.head.pieces.iter()
    }

    /// Accepts the body: as a whole if it is small, otherwise as a stream.
    pub(crate) async fn take(mut self, taking: Taking) -> Result<Taken, BodyError> {
        let exact = self.exact();
        if exact.is_some_and(|size| size > taking.limit) {
            if !taking.asks_first {
                Box::pin(discard(&mut self.rest, taking.limit)).await;
            }
            return Err(BodyError::TooLarge);
        }
        if self.ended || exact.map_or(taking.wanted, |size| size <= taking.keep as u64) {
            let whole = async {
                while !self.ended && self.head.length <= taking.keep {
                    self.read(taking.whole).await?;
                }
                Ok(())
            };
            let held = within(taking.whole, whole).await;
            held.unwrap_or_else(|| Err(self.late()))?;
        }
        if self.ended && self.head.length <= taking.keep {
            let kept = self.head.joined().clone();
            return Ok(Taken { body: RequestBody::Kept(Some(kept.clone())), kept: Some(kept), upload: None });
        }
        self.head.close();
        let Held { pieces, paid, length, .. } = self.head;
        let taken = length as u64;
        if self.ended && taken <= taking.limit {
            return Ok(Taken { body: RequestBody::Held(Box::new((pieces, paid))), kept: None, upload: None });
        }
        let head: VecDeque<Bytes> = pieces.into_iter().filter(|piece| !piece.is_empty()).collect();
        let Some(left) = taking.limit.checked_sub(taken) else {
            Box::pin(discard(&mut self.rest, taking.limit)).await;
            return Err(BodyError::TooLarge);
        };
        let upload = Arc::new(Upload::default());
        let pause = Pause::new(taking.pause).within(taking.upload);
        let streamed =
            Streamed { head, paid, rest: self.rest, left, limit: taking.limit, upload: Arc::clone(&upload), pause };
        Ok(Taken { body: RequestBody::Streamed(Box::new(streamed)), kept: None, upload: Some(upload) })
    }
}

/// How a body is held.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Hold {
    /// Maximum size of a body.
    pub(crate) limit: u64,
    /// Longest wait for a chunk, and for memory for it.
    pub(crate) pause: Duration,
    /// Longest wait for all of it.
    pub(crate) all: Duration,
    /// Whether the caller waits for `100 Continue` before it sends the body.
    pub(crate) asks_first: bool,
}

/// Reads a whole body of at most `limit` bytes.
pub(crate) async fn collect(
    body: CallerBody,
    budget: Budget,
    limit: usize,
    patience: Duration,
) -> Result<Bytes, BodyError> {
    let taking = Taking {
        limit: limit as u64,
        keep: limit,
        wanted: true,
        whole: patience,
        pause: patience,
        upload: None,
        asks_first: false,
    };
    Arriving::new(body, budget).take(taking).await?.kept.ok_or(BodyError::TooLarge)
}

impl RequestBody {
    /// Changes the part of the body that is in memory; the rest follows unchanged.
    pub(crate) fn change(self, change: impl FnOnce(Bytes) -> Bytes) -> Self {
        match self {
            Self::Kept(kept) => Self::Kept(kept.map(change)),
            Self::Held(mut held) => {
                change_first(&mut held.0, change);
                Self::Held(held)
            }
            Self::Streamed(mut streamed) => {
                change_first(&mut streamed.head, change);
                Self::Streamed(streamed)
            }
        }
    }
}

fn change_first(pieces: &mut VecDeque<Bytes>, change: impl FnOnce(Bytes) -> Bytes) {
    if let Some(first) = pieces.pop_front() {
        pieces.push_front(change(first));
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
            Self::Held(held) => Poll::Ready(held.0.pop_front().map(|piece| Ok(Frame::data(piece)))),
            Self::Streamed(streamed) => streamed.poll(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Kept(bytes) => bytes.as_ref().is_none_or(Bytes::is_empty),
            Self::Held(held) => held.0.is_empty(),
            Self::Streamed(streamed) => streamed.head.is_empty() && streamed.rest.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Kept(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Self::Held(held) => SizeHint::with_exact(length(&held.0)),
            Self::Streamed(streamed) => {
                let read = length(&streamed.head);
                streamed.rest.size_hint().exact().map_or_else(SizeHint::new, |rest| SizeHint::with_exact(rest + read))
            }
        }
    }
}

fn length(pieces: &VecDeque<Bytes>) -> u64 {
    pieces.iter().map(|piece| piece.len() as u64).sum()
}

impl Streamed {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        if let Some(head) = self.head.pop_front() {
            if self.head.is_empty() {
                self.paid = None;
                if self.rest.is_end_stream() {
                    self.end();
                }
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
                _ => return self.broken(BodyError::Broken, "the request body ended early or is too large"),
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
                    // The rest is discarded first, as in `discard`.
                    let _ = self.upload.fault.set(BodyError::TooLarge);
                    self.left = self.limit.max(DISCARD_AT_LEAST);
                    self.pause = Pause::new(DISCARD_PAUSE);
                }
                (Some(left), true) => self.left = left,
                (None, true) => return self.broken(BodyError::TooLarge, "the request body is too large"),
            }
        }
    }

    fn is_too_large(&self) -> bool {
        self.upload.fault() == Some(BodyError::TooLarge)
    }

    /// The upload failed. Only the first fault counts.
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
        // A body that is not read to its end ends here.
        self.end();
    }
}

impl From<BodyError> for Refusal {
    fn from(error: BodyError) -> Self {
        match error {
            BodyError::TooLarge => Self::TooLarge,
            BodyError::Slow => Self::Slow,
            BodyError::Broken => Self::Broken,
            BodyError::NoRoom => Self::NoRoom,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_buffer_is_booked_as_it_grows() {
        let budget = Budget::new(100);
        let mut booked = None;
        for (length, used) in [(10, 10), (60, 60), (30, 60), (101, 60)] {
            budget.book(&mut booked, length).await;
            assert_eq!(budget.used(), used, "{length}");
        }
        let mut other = None;
        assert!(within(Duration::ZERO, budget.book(&mut other, 50)).await.is_none(), "there is no room");
        drop(booked.take());
        budget.book(&mut other, 50).await;
        assert_eq!(budget.used(), 50);
    }
}
