//! The rest of a request's body that was not read.
//!
//! HTTP/1 has one request behind the other on a connection. An answer that comes before the body was read leaves bytes in between: a
//! connection that goes on would read them as the next request, and one that is closed with bytes in it is reset, so its caller may
//! never see the answer. So the rest is read and thrown away first, within bounds; where that is too much, the answer says
//! `connection: close`. Where somebody still reads it (a server that says no in the middle of an upload), the answer does not wait:
//! the connection stays open while the body is read, and what is left of it is thrown away behind the answer.

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

/// Longest wait for a piece that is thrown away,
const PAUSE: Duration = Duration::from_secs(2);
/// and for all of them.
const ALL: Duration = Duration::from_secs(30);

/// Lends a body to whoever answers the request. The [`Loan`] knows what was left of it.
pub fn lend<B: Body>(body: B, headers: &HeaderMap) -> (Lent<B>, Loan<B>) {
    if body.is_end_stream() {
        return (Lent { body: Some(body), ended: true, slot: None }, Loan { slot: None, asks_first: false });
    }
    let expects =
        headers.get(header::EXPECT).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"));
    let slot = Arc::new(Slot {
        state: Mutex::new(State::Out),
        back: Notify::new(),
        begun: AtomicBool::new(false),
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
    /// Whether anybody has begun to read.
    begun: AtomicBool,
    /// Its length, if that is known, and how much of it was read.
    length: Option<u64>,
    read: AtomicU64,
}

impl<B> Slot<B> {
    fn take(&self) -> State<B> {
        std::mem::replace(&mut *self.state.lock().unwrap_or_else(PoisonError::into_inner), State::Out)
    }
}

impl<B: Body + Unpin> Slot<B> {
    /// Throws away what is left once whoever reads it has stopped.
    async fn throw_away(self: Arc<Self>, most: u64) {
        if timeout(ALL, self.back.notified()).await.is_ok()
            && let State::Rest(body) = self.take()
        {
            // A connection whose body was not read to its end is closed.
            let _ = timeout(ALL, discard(body, most)).await;
        }
    }
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
        if let (Poll::Ready(Some(Ok(frame))), Some(slot)) = (&polled, &self.slot) {
            let length = frame.data_ref().map_or(0, |data| data.remaining() as u64);
            slot.read.fetch_add(length, Ordering::Relaxed);
        }
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

impl<B: Body + Unpin + Send + 'static> Loan<B> {
    /// Reads what is left, up to `most` bytes; what somebody still reads is not waited for. True if another request may follow.
    pub async fn finish(self, most: u64) -> bool {
        let Some(slot) = self.slot else { return true };
        match slot.take() {
            State::Ended => true,
            State::Broken => false,
            State::Rest(body) if body.is_end_stream() => true,
            // A caller that waits for 100 Continue has sent nothing yet, and may never.
            State::Out | State::Rest(_) if self.asks_first && !slot.begun.load(Ordering::Relaxed) => false,
            State::Out => {
                let left = slot.length.map(|length| length.saturating_sub(slot.read.load(Ordering::Relaxed)));
                let fits = left.is_none_or(|left| left <= most);
                if fits {
                    tokio::spawn(slot.throw_away(most));
                }
                fits
            }
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

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    /// A body of which a piece comes now, and nothing more.
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

    /// An answer while somebody reads 10 bytes of an upload of this length, of which at most 100 are thrown away.
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
    async fn an_answer_does_not_wait_for_somebody_who_still_reads() {
        let none = HeaderMap::new();
        for (length, goes_on) in [(None, true), (Some(110), true), (Some(111), false)] {
            assert_eq!(early(length, &none, true), Poll::Ready(goes_on), "{length:?}");
        }
    }

    #[tokio::test]
    async fn who_was_not_asked_to_send_may_never() {
        let headers =
            HeaderMap::from_iter([(header::EXPECT, "100-continue".parse().unwrap_or_else(|_| unreachable!()))]);
        assert_eq!(early(Some(50), &headers, false), Poll::Ready(false));
        assert_eq!(early(Some(50), &headers, true), Poll::Ready(true));
    }
}
