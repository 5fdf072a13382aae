//! The rest of a request's body that was not read.
//!
//! HTTP/1 has one request behind the other on a connection. An answer that comes before the body was read leaves bytes in between: a
//! connection that goes on would read them as the next request, and one that is closed with bytes in it is reset, so its caller may
//! never see the answer. So the rest is read and thrown away first, within bounds; where that is too much, the answer says
//! `connection: close`.

use std::{
    future::poll_fn,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
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

/// Longest wait for a piece that is thrown away,
const PAUSE: Duration = Duration::from_secs(2);
/// and for all of them.
const ALL: Duration = Duration::from_secs(30);
/// Longest wait for somebody who still reads a body that was answered already.
const BACK: Duration = Duration::from_secs(1);

/// Lends a body to whoever answers the request. The [`Loan`] knows what was left of it.
pub fn lend<B: Body>(body: B, headers: &HeaderMap) -> (Lent<B>, Loan<B>) {
    if body.is_end_stream() {
        return (Lent { body: Some(body), ended: true, slot: None }, Loan { slot: None, asks_first: false });
    }
    let expects =
        headers.get(header::EXPECT).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"));
    let slot = Arc::new(Slot { state: Mutex::new(State::Out), back: Notify::new(), begun: AtomicBool::new(false) });
    (
        Lent { body: Some(body), ended: false, slot: Some(Arc::clone(&slot)) },
        Loan { slot: Some(slot), asks_first: expects },
    )
}

#[derive(Debug)]
struct Slot<B> {
    state: Mutex<State<B>>,
    back: Notify,
    /// Whether anybody has begun to read.
    begun: AtomicBool,
}

#[derive(Debug)]
enum State<B> {
    /// Somebody has it.
    Out,
    /// It was read to its end.
    Ended,
    /// It broke off.
    Broken,
    /// This much is left.
    Rest(B),
}

/// A body that was lent. Dropped before its end, it goes back.
#[derive(Debug)]
pub struct Lent<B> {
    body: Option<B>,
    ended: bool,
    slot: Option<Arc<Slot<B>>>,
}

impl<B> Lent<B> {
    /// Its end has been read; whoever holds it may keep it for a while.
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
            slot.begun.store(true, Ordering::Relaxed);
        }
        let Some(body) = self.body.as_mut() else { return Poll::Ready(None) };
        let polled = Pin::new(body).poll_frame(cx);
        match &polled {
            // What is left of it is nothing that can be read.
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

/// What is known of a body that was lent.
#[derive(Debug)]
pub struct Loan<B> {
    slot: Option<Arc<Slot<B>>>,
    /// Whether the caller waits for `100 Continue` before it sends.
    asks_first: bool,
}

impl<B: Body + Unpin> Loan<B> {
    /// Reads what is left, up to `most` bytes. True if the body is at its end, and another request may follow it. `failed` says
    /// that the answer is an error: then whoever still reads the body is about to stop, and is waited for a moment.
    pub async fn settle(self, most: u64, failed: bool) -> bool {
        let Some(slot) = self.slot else { return true };
        let take = || std::mem::replace(&mut *slot.state.lock().unwrap_or_else(PoisonError::into_inner), State::Out);
        let mut state = take();
        if failed && matches!(state, State::Out) && timeout(BACK, slot.back.notified()).await.is_ok() {
            state = take();
        }
        match state {
            State::Ended => true,
            State::Out | State::Broken => false,
            State::Rest(body) if body.is_end_stream() => true,
            // A caller that waits for 100 Continue has sent nothing yet.
            State::Rest(_) if self.asks_first && !slot.begun.load(Ordering::Relaxed) => false,
            State::Rest(body) => timeout(ALL, discard(body, most)).await.unwrap_or(false),
        }
    }
}

/// Reads a body to its end, or until `most` bytes have come of it. True at its end.
async fn discard<B: Body + Unpin>(mut body: B, most: u64) -> bool {
    let mut left = most;
    loop {
        match timeout(PAUSE, poll_fn(|cx| Pin::new(&mut body).poll_frame(cx))).await {
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
