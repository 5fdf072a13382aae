//! Detects connections that are held open without use: a head that does not end, a caller that sends nothing, an answer that is not read.
//!
//! The parts of the connection record times without timers; the connection checks these times periodically.
//!
//! A caller that closes its sending side after the request either waits for the answer or has left. TCP distinguishes the two only once
//! something is sent: if the caller has left, the connection is reset. The router therefore sends an interim answer (102), which every
//! HTTP/1.1 caller must accept, and checks whether the connection is reset. An HTTP/1.0 caller does not know interim answers, so it counts
//! as one that has left.
//!
//! An HTTP/1 caller may send its next head before it has received its answer. A connection with bytes **ahead** of its answers may be
//! idle only for the timeout of a head. [`Receipt`] tracks which message the bytes belong to.

use std::{
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::Version;
use http_body::{Body, Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use serin_listener::receipt::Receipt;

use crate::report::passing::AnswerBody;

/// Timeouts of a connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    pub(super) header: Duration,
    pub(super) keep_alive: Duration,
    pub(super) send: Duration,
}

impl Patience {
    /// Time until the next check. A head may start in the meantime.
    pub(super) fn look_again(&self, within: Duration) -> Duration {
        within.min(self.header).min(self.send).max(Duration::from_millis(10))
    }
}

/// The activity of a connection. Times are in microseconds since its start; 0 means none.
#[derive(Debug)]
pub(super) struct Activity {
    start: Instant,
    http2: AtomicBool,
    in_flight: AtomicUsize,
    idle_since: AtomicU64,
    /// When the first byte of an incomplete head arrived.
    head_since: AtomicU64,
    /// Whether any request has started.
    has_request: AtomicBool,
    /// Whether the caller of the current request must accept interim answers.
    interim: AtomicBool,
    /// Whether the current answer has started.
    answering: AtomicBool,
    /// The requests that the bytes received so far belong to.
    receipt: Mutex<Receipt>,
    /// Whether the caller has sent, or may have sent, bytes of a request that has not started.
    ahead: AtomicBool,
    /// For each answer in flight, when its caller was expected to read the next chunk.
    unread: Mutex<Vec<Arc<AtomicU64>>>,
}

/// Result of checking a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    /// The connection may stay open; check it again after this time at the latest.
    Fine(Duration),
    /// The connection has been idle for too long.
    Idle,
    /// The caller holds the connection open without use.
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
            has_request: AtomicBool::new(false),
            interim: AtomicBool::new(false),
            answering: AtomicBool::new(false),
            receipt: Mutex::default(),
            ahead: AtomicBool::new(false),
            unread: Mutex::default(),
        }
    }

    fn micros(&self, now: Instant) -> u64 {
        (now.saturating_duration_since(self.start).as_micros() as u64).max(1)
    }

    fn now(&self) -> u64 {
        self.micros(Instant::now())
    }

    /// Starts a request, with the length of its body if it is known.
    pub(super) fn begin(self: &Arc<Self>, version: Version, body: Option<u64>) -> Busy {
        let mut bare = false;
        if version < Version::HTTP_2 {
            bare = self.receipt().begin(body);
        }
        self.http2.store(version >= Version::HTTP_2, Ordering::Relaxed);
        self.has_request.store(true, Ordering::Relaxed);
        self.interim.store(version == Version::HTTP_11, Ordering::Relaxed);
        self.answering.store(false, Ordering::Relaxed);
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        self.head_since.store(0, Ordering::Relaxed);
        Busy { activity: Arc::clone(self), unread: None, bare }
    }

    /// Whether a caller that has closed its sending side may still wait for an answer: it has sent a complete request and has received no
    /// answer yet.
    fn may_wait(&self) -> bool {
        self.is_waiting() && self.receipt().is_complete()
    }

    fn receipt(&self) -> MutexGuard<'_, Receipt> {
        self.receipt.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a request has not received any part of its answer.
    fn is_waiting(&self) -> bool {
        self.interim.load(Ordering::Relaxed)
            && self.in_flight.load(Ordering::Relaxed) == 1
            && !self.answering.load(Ordering::Relaxed)
    }

    /// Whether a request is being answered, or the protocol (HTTP/2) can be shut down gracefully at any time.
    pub(super) fn is_answering(&self) -> bool {
        self.http2.load(Ordering::Relaxed) || self.in_flight.load(Ordering::Relaxed) > 0
    }

    /// Whether an HTTP/1 request is probably about to arrive: the connection is new, or a head has started.
    pub(super) fn expects_request(&self) -> bool {
        !self.http2.load(Ordering::Relaxed)
            && self.in_flight.load(Ordering::Relaxed) == 0
            && (!self.has_request.load(Ordering::Relaxed) || self.head_since.load(Ordering::Relaxed) > 0)
    }

    /// Whether the caller has sent nothing since it connected.
    pub(super) fn is_silent(&self) -> bool {
        !self.has_request.load(Ordering::Relaxed) && self.head_since.load(Ordering::Relaxed) == 0
    }

    /// Records received bytes.
    fn received(&self, bytes: &[u8]) {
        if self.http2.load(Ordering::Relaxed) {
            return;
        }
        self.receipt().take(bytes);
        if self.in_flight.load(Ordering::Relaxed) > 0 || self.head_since.load(Ordering::Relaxed) > 0 {
            return;
        }
        if !self.has_request.load(Ordering::Relaxed) && bytes.starts_with(b"PRI") {
            self.http2.store(true, Ordering::Relaxed);
        }
        self.head_since.store(self.now(), Ordering::Relaxed);
    }

    pub(super) fn look(&self, now: Instant, patience: &Patience) -> Seen {
        let now = self.micros(now);
        // The time left of a timeout that started at `since`; `None` if it has expired.
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
        let head = match (self.has_request.load(Ordering::Relaxed), self.head_since.load(Ordering::Relaxed)) {
            // HTTP/2 has frames between requests; an incomplete head is bounded by the keep-alive timeout.
            _ if http2 => None,
            // The timeout of the first head starts with the connection.
            (false, _) => Some(1),
            (true, 0) => None,
            (true, since) => Some(since),
        };
        if let Some(since) = head {
            return left(since, patience.header).map_or(Seen::Held("a head is incomplete"), Seen::Fine);
        }
        let since = self.idle_since.load(Ordering::Relaxed);
        let ahead = self.ahead.load(Ordering::Relaxed) && !http2;
        let most = if ahead { patience.keep_alive.min(patience.header) } else { patience.keep_alive };
        left(since, most).map_or(Seen::Idle, Seen::Fine)
    }
}

/// A request that is being answered.
#[derive(Debug)]
pub(super) struct Busy {
    activity: Arc<Activity>,
    /// For a streamed answer, when its caller was expected to read the next chunk.
    unread: Option<Arc<AtomicU64>>,
    bare: bool,
}

impl Busy {
    /// Whether a line of the request's head ends with a bare line feed: other parsers may interpret such a request differently.
    pub(super) fn has_bare_line(&self) -> bool {
        self.bare
    }

    /// Tracks the answer. The request ends with the last byte of the answer, or when the answer is dropped.
    pub(super) fn with(self, body: AnswerBody) -> Tracked {
        let in_pieces = body.may_last();
        self.track(body, in_pieces)
    }

    fn track(mut self, body: AnswerBody, in_pieces: bool) -> Tracked {
        if in_pieces {
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
        if !activity.http2.load(Ordering::Relaxed) {
            let is_ahead = activity.receipt().finish();
            activity.ahead.store(is_ahead, Ordering::Relaxed);
        }
        activity.idle_since.store(activity.now(), Ordering::Relaxed);
        activity.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

/// An answer whose progress is recorded.
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
        // After a chunk was returned, the caller must read it; otherwise the upstream must send one.
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

/// The interim answer: the request is being processed.
const INTERIM: &[u8] = b"HTTP/1.1 102 Processing\r\n\r\n";
/// The interim answer that hyper sends: the caller may send the body.
const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// Delay of the first check after an interim answer, and the interval of further checks.
const FIRST_CHECK: Duration = Duration::from_millis(1);
const CHECK_INTERVAL: Duration = Duration::from_millis(10);

/// A connection whose caller may close only its sending side.
pub(super) trait HalfOpen {
    /// Whether the connection has been reset; `None` if this cannot be determined.
    fn is_reset(&self) -> Option<bool>;
}

impl HalfOpen for tokio::net::TcpStream {
    fn is_reset(&self) -> Option<bool> {
        Some(!matches!(self.take_error(), Ok(None)))
    }
}

impl<S> HalfOpen for tokio_rustls::server::TlsStream<S> {
    /// TLS closes both sides together.
    fn is_reset(&self) -> Option<bool> {
        None
    }
}

/// A connection's stream whose reads are recorded.
pub(super) struct Watched<S> {
    stream: S,
    activity: Arc<Activity>,
    /// Set once the caller has closed its sending side and may wait for its answer: the time of the next check.
    half: Option<Pin<Box<tokio::time::Sleep>>>,
}

impl<S> Watched<S> {
    pub(super) fn new(stream: S, activity: Arc<Activity>) -> Self {
        Self { stream, activity, half: None }
    }
}

impl<S: AsyncWrite + HalfOpen + Unpin> Watched<S> {
    /// Checks whether a caller that has closed its sending side is still connected. Ready when it is not, or when it has its answer.
    fn poll_half(&mut self, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        let half = if let Some(half) = &mut self.half {
            half
        } else {
            if self.stream.is_reset().is_none() || !self.activity.may_wait() {
                return Poll::Ready(Ok(()));
            }
            match Pin::new(&mut self.stream).poll_write(cx, INTERIM) {
                Poll::Ready(Ok(written)) if written == INTERIM.len() => {}
                // The connection has sent nothing before. If these few bytes do not fit, the caller does not read.
                _ => return Poll::Ready(Ok(())),
            }
            self.half.insert(Box::pin(tokio::time::sleep(FIRST_CHECK)))
        };
        loop {
            if !self.activity.is_waiting() {
                return Poll::Ready(Ok(()));
            }
            if half.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            if self.stream.is_reset() == Some(true) {
                return Poll::Ready(Err(std::io::ErrorKind::ConnectionReset.into()));
            }
            half.as_mut().reset((Instant::now() + CHECK_INTERVAL).into());
        }
    }
}

impl<S: AsyncRead + AsyncWrite + HalfOpen + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        if self.half.is_some() {
            return self.poll_half(cx);
        }
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buffer);
        let read = &buffer.filled()[before..];
        if !read.is_empty() {
            self.activity.received(read);
        } else if matches!(polled, Poll::Ready(Ok(()))) && buffer.remaining() > 0 {
            return self.poll_half(cx);
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        if bytes != CONTINUE {
            self.activity.answering.store(true, Ordering::Relaxed);
        }
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
        let mut parts = bytes.iter().filter(|part| !part.is_empty());
        if parts.next().is_none_or(|part| **part != *CONTINUE) || parts.next().is_some() {
            self.activity.answering.store(true, Ordering::Relaxed);
        }
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
    fn a_head_must_arrive_in_time() {
        let activity = Arc::new(Activity::new(Instant::now()));
        assert!(
            matches!(look(&activity, SECOND / 2), Seen::Fine(left) if left <= SECOND / 2 + Duration::from_micros(1))
        );
        assert_eq!(look(&activity, SECOND * 2), Seen::Held("a head is incomplete"));
        activity.received(b"\r\nGET / HTTP/1.1\r\nhost: a\r\n");
        activity.received(b"\r\n");
        drop(activity.begin(Version::HTTP_11, Some(0)));
        assert!(matches!(look(&activity, SECOND * 2), Seen::Fine(_)), "an idle connection is not a slow head");
        activity.received(b"GET / HT");
        assert_eq!(look(&activity, SECOND * 2), Seen::Held("a head is incomplete"));
        activity.received(b"TP/1.1\r\n\r\n");
        let _busy = activity.begin(Version::HTTP_11, Some(0));
        assert!(matches!(look(&activity, SECOND * 100), Seen::Fine(_)));
    }

    #[test]
    fn an_incoming_request_is_expected() {
        let activity = Arc::new(Activity::new(Instant::now()));
        assert!(activity.expects_request() && activity.is_silent(), "a new connection");
        activity.received(b"GET / HTTP/1.1\r\n");
        assert!(activity.expects_request() && !activity.is_silent(), "an incomplete head");
        activity.received(b"host: a\r\n\r\n");
        let busy = activity.begin(Version::HTTP_11, Some(0));
        assert!(!activity.expects_request(), "the request has arrived");
        drop(busy);
        assert!(!activity.expects_request() && !activity.is_silent(), "an idle kept connection");
        activity.received(b"GET / HT");
        assert!(activity.expects_request(), "the next head is incomplete");
        let http2 = Arc::new(Activity::new(Instant::now()));
        http2.received(b"PRI * HTTP/2.0\r\n");
        assert!(!http2.expects_request(), "HTTP/2 can be shut down gracefully at any time");
    }

    #[test]
    fn lines_end_with_a_carriage_return_and_a_line_feed() {
        let bare = |pieces: &[&[u8]]| {
            let activity = Arc::new(Activity::new(Instant::now()));
            for piece in pieces {
                activity.received(piece);
            }
            activity.begin(Version::HTTP_11, Some(0)).has_bare_line()
        };
        assert!(
            !bare(&[b"\r\nGET / HTTP/1.1\r\nhost: a\r", b"\n\r", b"\na\nb"]),
            "bytes after the head belong to the body"
        );
        assert!(bare(&[b"GET / HTTP/1.1\nhost: a\r\n\r\n"]));
        assert!(bare(&[b"GET / HTTP/1.1\r\nhost: a", b"\n\r\n"]));
        assert!(bare(&[b"GET / HTTP/1.1\r\nhost: a\r\n", b"\n"]));
    }

    #[test]
    fn a_connection_with_bytes_ahead_of_its_answer_has_a_shorter_idle_timeout() {
        let idle = |bytes: [&[u8]; 2], body| {
            let activity = Arc::new(Activity::new(Instant::now()));
            activity.received(bytes[0]);
            let busy = activity.begin(Version::HTTP_11, body);
            activity.received(bytes[1]);
            drop(busy);
            look(&activity, SECOND * 2) == Seen::Idle
        };
        let head = b"POST / HTTP/1.1\r\ncontent-length: 2\r\n\r\n";
        let with = |rest: &[u8]| [head.as_slice(), rest].concat();
        assert!(!idle([&with(b"{}"), b""], Some(2)), "only a request");
        assert!(!idle([head, b"{}"], Some(2)), "its body in a separate chunk");
        assert!(idle([&with(b"{}POST / HT"), b""], Some(2)), "an incomplete head in the same chunk");
        assert!(idle([&with(b"{}"), b"POST / HT"], Some(2)), "an incomplete head in the next chunk");
        assert!(idle([head, b"2\r\n{}\r\n0\r\n\r\nPO"], None), "an incomplete head after a chunked body");
        assert!(idle([head, b"2\r\n{}\r\n0\r\n"], None), "an incomplete chunked body");
        assert!(!idle([head, b"2\r\n{}\r\n0\r\n\r\n"], None), "a chunked body");
    }

    #[test]
    fn a_caller_that_has_sent_complete_requests_may_wait_for_its_answer() {
        let waits = |version, requests: &[(&[u8], Option<u64>)]| {
            let activity = Arc::new(Activity::new(Instant::now()));
            let all: Vec<u8> = requests.iter().flat_map(|(bytes, _)| bytes.iter().copied()).collect();
            activity.received(&all);
            let mut waits = false;
            for (_, body) in requests {
                let _busy = activity.begin(version, *body);
                waits = activity.may_wait();
            }
            waits
        };
        let waits =
            |requests: &[(&[u8], Option<u64>)]| waits(Version::HTTP_11, requests) && !waits(Version::HTTP_10, requests);
        let get: (&[u8], _) = (b"GET / HTTP/1.1\r\nhost: a\r\n\r\n", Some(0));
        let post: (&[u8], _) = (b"POST / HTTP/1.1\r\ncontent-length: 2\r\n\r\n{}", Some(2));
        let chunked: (&[u8], _) = (b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n", None);
        for last in [get, post, chunked] {
            assert!(waits(&[last]));
            for first in [get, post, chunked] {
                assert!(waits(&[first, last]) && waits(&[get, first, last]));
            }
            let half: (&[u8], _) = (&last.0[..last.0.len() - 1], last.1);
            assert!(last.1 == Some(0) || !waits(&[half]) && !waits(&[get, half]), "the body is incomplete");
        }
        assert!(!waits(&[get, (b"GET / HT", Some(0))]), "a head is incomplete");
    }

    #[tokio::test]
    async fn an_interim_answer_is_not_an_answer() {
        use tokio::io::AsyncWriteExt as _;
        let activity = Arc::new(Activity::new(Instant::now()));
        activity.received(b"GET / HTTP/1.1\r\n\r\n");
        let _busy = activity.begin(Version::HTTP_11, Some(0));
        let mut stream = Watched::new(tokio::io::sink(), Arc::clone(&activity));
        stream.write_all(CONTINUE).await.unwrap();
        assert!(activity.may_wait());
        stream.write_all(b"HTTP/1.1 200 OK\r\n").await.unwrap();
        assert!(!activity.may_wait());
    }

    #[test]
    fn an_idle_connection_is_closed() {
        let activity = Arc::new(Activity::new(Instant::now()));
        activity.received(b"PRI * HTTP/2.0\r\n");
        assert!(matches!(look(&activity, SECOND * 4), Seen::Fine(_)), "HTTP/2 may wait for its first request");
        assert_eq!(look(&activity, SECOND * 6), Seen::Idle);
        drop(activity.begin(Version::HTTP_2, None));
        activity.received(b"ping");
        assert!(matches!(look(&activity, SECOND * 4), Seen::Fine(_)));
        assert_eq!(look(&activity, SECOND * 6), Seen::Idle);
    }

    #[tokio::test]
    async fn an_answer_must_be_read() {
        use http_body_util::BodyExt as _;
        let activity = Arc::new(Activity::new(Instant::now()));
        let mut body = activity.begin(Version::HTTP_2, None).track(AnswerBody::whole("x"), true);
        assert!(matches!(look(&activity, SECOND * 100), Seen::Fine(_)), "the upstream must send first");
        assert!(body.frame().await.unwrap().is_ok());
        assert!(matches!(look(&activity, SECOND), Seen::Fine(_)));
        assert_eq!(look(&activity, SECOND * 3), Seen::Held("an answer is not read"));
        drop(body);
        assert!(matches!(look(&activity, SECOND * 3), Seen::Fine(_)));
    }
}
