//! Drains the part of a request's body that was not read.
//!
//! HTTP/1 sends one request after the other on a connection. A response that is sent before the body was read leaves
//! bytes in between. If the connection stays open, the server would parse these bytes as the next request. If it is
//! closed with unread bytes, it is reset, and the client may never see the response. So the rest of the body is
//! drained first, within bounds; if it is too large, the response contains `connection: close`. If the body is still
//! being read (an upstream that refuses an upload midway), the response does not wait: the connection stays open
//! while the body is read, and the rest is drained after the response.

use std::{
    future::poll_fn,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use hyper::{
    HeaderMap,
    body::{Body, Buf as _, Frame, SizeHint},
    header,
};
use tokio::{sync::Notify, time::timeout};

/// Timeout for one frame of a body that is drained.
const FRAME_TIMEOUT: Duration = Duration::from_secs(2);
/// Timeout for draining the whole rest of a body.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(30);

/// Lends a body to the handler that answers the request. The [`Loan`] tracks what was left of it.
pub fn lend<B: Body>(body: B, headers: &HeaderMap) -> (Lent<B>, Loan<B>) {
    if body.is_end_stream() {
        return (Lent { body: Some(body), ended: true, slot: None }, Loan { slot: None, asks_first: false });
    }
    let expects =
        headers.get(header::EXPECT).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"));
    let slot = Arc::new(Slot {
        state: Mutex::new(State::Out),
        back: Notify::new(),
        started: AtomicBool::new(false),
        length: body.size_hint().exact(),
        read: AtomicU64::new(0),
    });
    (
        Lent { body: Some(body), ended: false, slot: Some(Arc::clone(&slot)) },
        Loan { slot: Some(slot), asks_first: expects },
    )
}

#[derive(Debug)]
struct Slot<B> {
    state: Mutex<State<B>>,
    back: Notify,
    /// Whether a read has started.
    started: AtomicBool,
    /// The length of the body, if it is known. `read` counts the bytes that were read.
    length: Option<u64>,
    read: AtomicU64,
}

impl<B> Slot<B> {
    fn take(&self) -> State<B> {
        std::mem::replace(&mut *self.state.lock().unwrap_or_else(PoisonError::into_inner), State::Out)
    }
}

impl<B: Body + Unpin> Slot<B> {
    /// Drains what is left once the current reader has stopped.
    async fn drain_rest(self: Arc<Self>, most: u64) {
        if timeout(DRAIN_TIMEOUT, self.back.notified()).await.is_ok()
            && let State::Rest(body) = self.take()
        {
            // A connection whose body was not read to its end is closed.
            let _ = timeout(DRAIN_TIMEOUT, discard(body, most)).await;
        }
    }
}

#[derive(Debug)]
enum State<B> {
    /// The body is still lent.
    Out,
    /// The body was read to its end.
    Ended,
    /// Reading the body failed before its end.
    Broken,
    /// The body was returned with this rest unread.
    Rest(B),
}

/// A body that was lent. When it is dropped before its end, the rest is returned to the [`Loan`].
#[derive(Debug)]
pub struct Lent<B> {
    body: Option<B>,
    ended: bool,
    slot: Option<Arc<Slot<B>>>,
}

impl<B> Lent<B> {
    /// Marks the body as read to its end; the holder may keep it for a while.
    fn end(&mut self) {
        self.ended = true;
        if let Some(slot) = self.slot.take() {
            *slot.state.lock().unwrap_or_else(PoisonError::into_inner) = State::Ended;
            slot.back.notify_one();
        }
    }
}

impl<B: Body + Unpin> Body for Lent<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        if let Some(slot) = &self.slot {
            slot.started.store(true, Ordering::Relaxed);
        }
        let Some(body) = self.body.as_mut() else { return Poll::Ready(None) };
        let polled = Pin::new(body).poll_frame(cx);
        if let (Poll::Ready(Some(Ok(frame))), Some(slot)) = (&polled, &self.slot) {
            let length = frame.data_ref().map_or(0, |data| data.remaining() as u64);
            slot.read.fetch_add(length, Ordering::Relaxed);
        }
        match &polled {
            // Nothing more can be read after an error.
            Poll::Ready(Some(Err(_))) => self.body = None,
            Poll::Ready(None) => self.end(),
            Poll::Ready(Some(Ok(_))) if self.body.as_ref().is_some_and(Body::is_end_stream) => self.end(),
            Poll::Pending | Poll::Ready(Some(Ok(_))) => {}
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.ended || self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(SizeHint::new, Body::size_hint)
    }
}

impl<B> Drop for Lent<B> {
    fn drop(&mut self) {
        let Some(slot) = self.slot.take() else { return };
        let state = self.body.take().map_or(State::Broken, State::Rest);
        *slot.state.lock().unwrap_or_else(PoisonError::into_inner) = state;
        slot.back.notify_one();
    }
}

/// Tracks a body that was lent.
#[derive(Debug)]
pub struct Loan<B> {
    slot: Option<Arc<Slot<B>>>,
    /// Whether the client waits for `100 Continue` before it sends the body.
    asks_first: bool,
}

impl<B: Body + Unpin + Send + 'static> Loan<B> {
    /// Drains what is left, up to `most` bytes. Does not wait for a body that is still being read. Returns whether
    /// another request may follow on the connection.
    pub async fn finish(self, most: u64) -> bool {
        let Some(slot) = self.slot else { return true };
        match slot.take() {
            State::Ended => true,
            State::Broken => false,
            State::Rest(body) if body.is_end_stream() => true,
            // A client that waits for 100 Continue has not sent the body and may never send it.
            State::Out | State::Rest(_) if self.asks_first && !slot.started.load(Ordering::Relaxed) => false,
            State::Out => {
                let left = slot.length.map(|length| length.saturating_sub(slot.read.load(Ordering::Relaxed)));
                let fits = left.is_none_or(|left| left <= most);
                if fits {
                    tokio::spawn(slot.drain_rest(most));
                }
                fits
            }
            State::Rest(body) => timeout(DRAIN_TIMEOUT, discard(body, most)).await.unwrap_or(false),
        }
    }
}

/// Reads a body to its end or until `most` bytes were read. Returns whether it reached the end.
async fn discard<B: Body + Unpin>(mut body: B, most: u64) -> bool {
    let mut left = most;
    loop {
        match timeout(FRAME_TIMEOUT, poll_fn(|cx| Pin::new(&mut body).poll_frame(cx))).await {
            Ok(None) => return true,
            Ok(Some(Ok(frame))) => {
                let length = frame.data_ref().map_or(0, |data| data.remaining() as u64);
                let Some(less) = left.checked_sub(length) else { return false };
                left = less;
                if body.is_end_stream() {
                    return true;
                }
            }
            Ok(Some(Err(_))) | Err(_) => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    /// A body that has one frame ready and then stays pending.
    struct Upload(Option<Vec<u8>>, Option<u64>);

    impl Body for Upload {
        type Data = std::io::Cursor<Vec<u8>>;
        type Error = Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Self::Data>, Infallible>>> {
            let piece = self.0.take().map(|piece| Ok(Frame::data(std::io::Cursor::new(piece))));
            if piece.is_some() { Poll::Ready(piece) } else { Poll::Pending }
        }

        fn size_hint(&self) -> SizeHint {
            self.1.map_or_else(SizeHint::new, SizeHint::with_exact)
        }
    }

    fn once<F: Future>(future: F) -> Poll<F::Output> {
        let mut future = std::pin::pin!(future);
        future.as_mut().poll(&mut Context::from_waker(std::task::Waker::noop()))
    }

    /// Responds while 10 bytes of an upload of this length are read and at most 100 bytes may be drained.
    fn early(length: Option<u64>, headers: &HeaderMap, reads: bool) -> Poll<bool> {
        let (mut lent, loan) = lend(Upload(Some(vec![0; 10]), length), headers);
        if reads {
            assert!(once(poll_fn(|cx| Pin::new(&mut lent).poll_frame(cx))).is_ready());
        }
        let finished = once(loan.finish(100));
        drop(lent);
        finished
    }

    #[tokio::test]
    async fn a_response_does_not_wait_for_a_pending_reader() {
        let none = HeaderMap::new();
        for (length, goes_on) in [(None, true), (Some(110), true), (Some(111), false)] {
            assert_eq!(early(length, &none, true), Poll::Ready(goes_on), "{length:?}");
        }
    }

    #[tokio::test]
    async fn a_client_that_waits_for_continue_is_not_drained() {
        let headers =
            HeaderMap::from_iter([(header::EXPECT, "100-continue".parse().unwrap_or_else(|_| unreachable!()))]);
        assert_eq!(early(Some(50), &headers, false), Poll::Ready(false));
        assert_eq!(early(Some(50), &headers, true), Poll::Ready(true));
    }
}
