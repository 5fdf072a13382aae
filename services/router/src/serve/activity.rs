//! Who holds a connection for nothing: a head that does not end, a caller with nothing to say, an answer that nobody reads.
//!
//! The connection's parts note times as they work, without any timer; the connection looks at them now and then.

use std::{
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::Version;
use http_body::{Body, Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::body::AnswerBody;

/// How long things may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    pub(super) header: Duration,
    pub(super) keep_alive: Duration,
    pub(super) send: Duration,
}

impl Patience {
    /// When to look again: a head may begin meanwhile.
    pub(super) fn look_again(&self, within: Duration) -> Duration {
        within.min(self.header).min(self.send).max(Duration::from_millis(10))
    }
}

/// What is going on at a connection. Times are in microseconds since its start, 0 for none.
#[derive(Debug)]
pub(super) struct Activity {
    start: Instant,
    http2: AtomicBool,
    in_flight: AtomicUsize,
    idle_since: AtomicU64,
    /// When the first byte of a head came that is not complete.
    head_since: AtomicU64,
    /// Whether any request has begun.
    began: AtomicBool,
    /// For each answer on its way, since when its caller was to take it further.
    unread: Mutex<Vec<Arc<AtomicU64>>>,
}

/// What a look at a connection shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    /// It may go on; at the latest after this it is worth another look.
    Fine(Duration),
    /// It has had nothing to do for too long.
    Idle,
    /// Its caller holds it for nothing.
    Held(&'static str),
}

impl Activity {
    pub(super) fn new(start: Instant) -> Self {
        Self {
            start,
            http2: AtomicBool::new(false),
            in_flight: AtomicUsize::new(0),
            idle_since: AtomicU64::new(1),
            head_since: AtomicU64::new(0),
            began: AtomicBool::new(false),
            unread: Mutex::default(),
        }
    }

    fn micros(&self, now: Instant) -> u64 {
        (now.saturating_duration_since(self.start).as_micros() as u64).max(1)
    }

    fn now(&self) -> u64 {
        self.micros(Instant::now())
    }

    /// A request begins.
    pub(super) fn begin(self: &Arc<Self>, version: Version) -> Busy {
        self.http2.store(version >= Version::HTTP_2, Ordering::Relaxed);
        self.began.store(true, Ordering::Relaxed);
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        self.head_since.store(0, Ordering::Relaxed);
        Busy { activity: Arc::clone(self), unread: None }
    }

    /// Bytes came.
    fn received(&self, bytes: &[u8]) {
        if self.in_flight.load(Ordering::Relaxed) > 0 || self.head_since.load(Ordering::Relaxed) > 0 {
            return;
        }
        if !self.began.load(Ordering::Relaxed) && bytes.starts_with(b"PRI") {
            self.http2.store(true, Ordering::Relaxed);
        }
        self.head_since.store(self.now(), Ordering::Relaxed);
    }

    pub(super) fn look(&self, now: Instant, patience: &Patience) -> Seen {
        let now = self.micros(now);
        // How long is left since a time, or none.
        let left = |since: u64, patience: Duration| {
            patience.checked_sub(Duration::from_micros(now.saturating_sub(since))).filter(|left| !left.is_zero())
        };
        if self.in_flight.load(Ordering::Relaxed) > 0 {
            let unread = self.unread.lock().unwrap_or_else(PoisonError::into_inner);
            let since = unread.iter().map(|since| since.load(Ordering::Relaxed)).filter(|&since| since > 0).min();
            return match since.map(|since| left(since, patience.send)) {
                Some(None) => Seen::Held("an answer is not read"),
                Some(Some(left)) => Seen::Fine(left),
                None => Seen::Fine(patience.send),
            };
        }
        let http2 = self.http2.load(Ordering::Relaxed);
        let head = match (self.began.load(Ordering::Relaxed), self.head_since.load(Ordering::Relaxed)) {
            // HTTP/2 has frames between requests; a head that does not end is bounded by the keep-alive.
            _ if http2 => None,
            // The first head counts from the start.
            (false, _) => Some(1),
            (true, 0) => None,
            (true, since) => Some(since),
        };
        if let Some(since) = head {
            return left(since, patience.header).map_or(Seen::Held("a head does not end"), Seen::Fine);
        }
        let since = self.idle_since.load(Ordering::Relaxed);
        left(since, patience.keep_alive).map_or(Seen::Idle, Seen::Fine)
    }
}

/// A request that is being answered.
#[derive(Debug)]
pub(super) struct Busy {
    activity: Arc<Activity>,
    /// For an answer that comes in pieces, since when its caller was to take it further.
    unread: Option<Arc<AtomicU64>>,
}

impl Busy {
    /// The answer; with its last byte, or when it is dropped, the request has ended.
    pub(super) fn with(mut self, body: AnswerBody) -> Tracked {
        if body.may_last() {
            let unread = Arc::default();
            self.activity.unread.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(&unread));
            self.unread = Some(unread);
        }
        Tracked { body, busy: self }
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        let activity = &self.activity;
        if let Some(unread) = &self.unread {
            let mut all = activity.unread.lock().unwrap_or_else(PoisonError::into_inner);
            all.retain(|other| !Arc::ptr_eq(other, unread));
        }
        activity.idle_since.store(activity.now(), Ordering::Relaxed);
        activity.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

/// An answer whose progress is noted.
pub(super) struct Tracked {
    body: AnswerBody,
    busy: Busy,
}

impl Body for Tracked {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.body).poll_frame(cx);
        // With a piece in its hands it is the caller's turn; without one, the upstream's.
        if let Some(unread) = &this.busy.unread {
            unread.store(if polled.is_ready() { this.busy.activity.now() } else { 0 }, Ordering::Relaxed);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A connection's stream whose reads are noted.
pub(super) struct Watched<S> {
    stream: S,
    activity: Arc<Activity>,
}

impl<S> Watched<S> {
    pub(super) fn new(stream: S, activity: Arc<Activity>) -> Self {
        Self { stream, activity }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buffer);
        let read = &buffer.filled()[before..];
        if !read.is_empty() {
            self.activity.received(read);
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[std::io::IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const PATIENCE: Patience =
        Patience { header: SECOND, keep_alive: Duration::from_secs(5), send: Duration::from_secs(2) };

    fn look(activity: &Activity, after: Duration) -> Seen {
        activity.look(activity.start + after, &PATIENCE)
    }

    #[test]
    fn a_head_must_come_in_time() {
        let activity = Arc::new(Activity::new(Instant::now()));
        assert!(
            matches!(look(&activity, SECOND / 2), Seen::Fine(left) if left <= SECOND / 2 + Duration::from_micros(1))
        );
        assert_eq!(look(&activity, SECOND * 2), Seen::Held("a head does not end"));
        drop(activity.begin(Version::HTTP_11));
        assert!(matches!(look(&activity, SECOND * 2), Seen::Fine(_)), "idle is no slow head");
        activity.received(b"GET / HT");
        assert_eq!(look(&activity, SECOND * 2), Seen::Held("a head does not end"));
        let _busy = activity.begin(Version::HTTP_11);
        assert!(matches!(look(&activity, SECOND * 100), Seen::Fine(_)));
    }

    #[test]
    fn an_idle_connection_ends() {
        let activity = Arc::new(Activity::new(Instant::now()));
        activity.received(b"PRI * HTTP/2.0\r\n");
        assert!(matches!(look(&activity, SECOND * 4), Seen::Fine(_)), "HTTP/2 may wait for its first request");
        assert_eq!(look(&activity, SECOND * 6), Seen::Idle);
        drop(activity.begin(Version::HTTP_2));
        activity.received(b"ping");
        assert!(matches!(look(&activity, SECOND * 4), Seen::Fine(_)));
        assert_eq!(look(&activity, SECOND * 6), Seen::Idle);
    }

    #[tokio::test]
    async fn an_answer_must_be_read() {
        use http_body_util::BodyExt as _;
        let activity = Arc::new(Activity::new(Instant::now()));
        let mut body = activity.begin(Version::HTTP_2).with(AnswerBody::whole("x"));
        assert!(matches!(look(&activity, SECOND * 100), Seen::Fine(_)), "the upstream's turn");
        assert!(body.frame().await.unwrap().is_ok());
        assert!(matches!(look(&activity, SECOND), Seen::Fine(_)));
        assert_eq!(look(&activity, SECOND * 3), Seen::Held("an answer is not read"));
        drop(body);
        assert!(matches!(look(&activity, SECOND * 3), Seen::Fine(_)));
    }
}
