//! Who holds a connection for nothing: a head that does not end, a caller with nothing to say, an answer that nobody reads.
//!
//! The connection's parts note times as they work, without any timer; the connection looks at them now and then.
//!
//! A caller that ends its side of the connection after its request either waits for the answer, or has left. TCP tells the two apart
//! only once something is sent: one that has left resets the connection. So the router sends an interim answer (102), which every
//! caller of HTTP/1.1 must be ready for, and looks whether the connection is reset.
//!
//! A caller of HTTP/1 may send its next head before it has its answer. Whether that head is whole is hyper's to know, so a
//! connection with bytes **ahead** of its answers may be idle only for as long as a head may take.

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

use crate::report::passing::AnswerBody;

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
    /// Whether the caller of the request that is being answered must be ready for interim answers.
    interim: AtomicBool,
    /// Whether its answer has begun.
    answering: AtomicBool,
    /// Where the blank line behind a head is looked for.
    head: Mutex<HeadEnd>,
    /// Whether the caller has sent, or may have sent, bytes that belong to no request that has begun.
    ahead: AtomicBool,
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
            interim: AtomicBool::new(false),
            answering: AtomicBool::new(false),
            head: Mutex::default(),
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

    /// A request begins, with a body of this length if it is known.
    pub(super) fn begin(self: &Arc<Self>, version: Version, body: Option<u64>) -> Busy {
        let mut bare = false;
        if version < Version::HTTP_2 {
            let mut head = self.head.lock().unwrap_or_else(PoisonError::into_inner);
            head.body = body;
            bare = head.bare;
            // The head of a request that came with the one before was not seen by itself.
            if !head.ended {
                self.ahead.store(true, Ordering::Relaxed);
            }
        }
        self.http2.store(version >= Version::HTTP_2, Ordering::Relaxed);
        self.began.store(true, Ordering::Relaxed);
        self.interim.store(version == Version::HTTP_11, Ordering::Relaxed);
        self.answering.store(false, Ordering::Relaxed);
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        self.head_since.store(0, Ordering::Relaxed);
        Busy { activity: Arc::clone(self), unread: None, bare }
    }

    /// Whether a caller that has ended its side may still wait for an answer: it has sent a whole request, and has none yet.
    fn may_wait(&self) -> bool {
        self.is_waiting() && {
            let head = self.head.lock().unwrap_or_else(PoisonError::into_inner);
            // An `ahead` connection may have half of another request behind it.
            head.ended && head.body == Some(head.after) && !self.ahead.load(Ordering::Relaxed)
        }
    }

    /// Whether a request has no part of its answer yet.
    fn is_waiting(&self) -> bool {
        self.interim.load(Ordering::Relaxed)
            && self.in_flight.load(Ordering::Relaxed) == 1
            && !self.answering.load(Ordering::Relaxed)
    }

    /// Whether a request of HTTP/1 is likely on its way: the connection is new, or a head has begun.
    pub(super) fn expects_request(&self) -> bool {
        !self.http2.load(Ordering::Relaxed)
            && self.in_flight.load(Ordering::Relaxed) == 0
            && (!self.began.load(Ordering::Relaxed) || self.head_since.load(Ordering::Relaxed) > 0)
    }

    /// Whether its caller has sent nothing since it connected.
    pub(super) fn is_silent(&self) -> bool {
        !self.began.load(Ordering::Relaxed) && self.head_since.load(Ordering::Relaxed) == 0
    }

    /// Bytes came.
    fn received(&self, bytes: &[u8]) {
        if self.http2.load(Ordering::Relaxed) {
            return;
        }
        self.head.lock().unwrap_or_else(PoisonError::into_inner).take(bytes);
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
        let ahead = self.ahead.load(Ordering::Relaxed) && !http2;
        let most = if ahead { patience.keep_alive.min(patience.header) } else { patience.keep_alive };
        left(since, most).map_or(Seen::Idle, Seen::Fine)
    }
}

/// How far a message of HTTP/1 has come.
#[derive(Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "what has come of a head, each on its own")]
struct HeadEnd {
    /// Whether a line of the head has come; empty ones before it mean nothing.
    began: bool,
    /// Whether the line so far has any text.
    text: bool,
    /// Whether the blank line has come,
    ended: bool,
    /// and bytes since then.
    after: u64,
    /// The last byte that came of it,
    last: u8,
    /// and whether one of its lines ends with a line feed alone.
    bare: bool,
    /// Length of the body, once the request has begun; `None` if nobody told it.
    body: Option<u64>,
}

impl HeadEnd {
    fn take(&mut self, bytes: &[u8]) {
        if self.ended {
            self.after += bytes.len() as u64;
            return;
        }
        let has_text = |line: &[u8]| line.iter().any(|&byte| byte != b'\r');
        let mut from = 0;
        for end in memchr::memchr_iter(b'\n', bytes) {
            let text = std::mem::take(&mut self.text) || has_text(&bytes[from..end]);
            let before = end.checked_sub(1).map_or(self.last, |before| bytes[before]);
            self.bare |= before != b'\r';
            from = end + 1;
            if !text && self.began {
                self.ended = true;
                self.after = (bytes.len() - from) as u64;
                return;
            }
            self.began |= text;
        }
        self.text |= has_text(&bytes[from..]);
        self.last = bytes.last().copied().unwrap_or(self.last);
    }

    /// The request has ended: whether bytes have come that may belong to the next one.
    fn finish(&mut self) -> bool {
        let ended = std::mem::take(self);
        ended.body.is_none_or(|body| ended.after > body)
    }
}

/// A request that is being answered.
#[derive(Debug)]
pub(super) struct Busy {
    activity: Arc<Activity>,
    /// For an answer that comes in pieces, since when its caller was to take it further.
    unread: Option<Arc<AtomicU64>>,
    bare: bool,
}

impl Busy {
    /// Whether a line of the request's head ends with a line feed alone: others may read another request from it.
    pub(super) fn has_bare_line(&self) -> bool {
        self.bare
    }

    /// The answer; with its last byte, or when it is dropped, the request has ended.
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
        if !activity.http2.load(Ordering::Relaxed)
            && activity.head.lock().unwrap_or_else(PoisonError::into_inner).finish()
        {
            activity.ahead.store(true, Ordering::Relaxed);
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

/// What an interim answer says: the router is at it.
const INTERIM: &[u8] = b"HTTP/1.1 102 Processing\r\n\r\n";

/// How soon after an interim answer a connection is looked at, and how often then.
const SOON: Duration = Duration::from_millis(1);
const OFTEN: Duration = Duration::from_millis(10);

/// A connection whose caller can end its side alone.
pub(super) trait HalfOpen {
    /// Whether it has been reset; `None` if nobody can tell.
    fn is_reset(&self) -> Option<bool>;
}

impl HalfOpen for tokio::net::TcpStream {
    fn is_reset(&self) -> Option<bool> {
        Some(!matches!(self.take_error(), Ok(None)))
    }
}

impl<S> HalfOpen for tokio_rustls::server::TlsStream<S> {
    /// TLS ends both sides at once.
    fn is_reset(&self) -> Option<bool> {
        None
    }
}

/// A connection's stream whose reads are noted.
pub(super) struct Watched<S> {
    stream: S,
    activity: Arc<Activity>,
    /// The caller has ended its side and may wait for its answer: when to look whether it has left.
    half: Option<Pin<Box<tokio::time::Sleep>>>,
}

impl<S> Watched<S> {
    pub(super) fn new(stream: S, activity: Arc<Activity>) -> Self {
        Self { stream, activity, half: None }
    }
}

impl<S: AsyncWrite + HalfOpen + Unpin> Watched<S> {
    /// The caller has ended its side: whether it is still there. Ready when it is not, or has its answer.
    fn poll_half(&mut self, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        let half = if let Some(half) = &mut self.half {
            half
        } else {
            if self.stream.is_reset().is_none() || !self.activity.may_wait() {
                return Poll::Ready(Ok(()));
            }
            match Pin::new(&mut self.stream).poll_write(cx, INTERIM) {
                Poll::Ready(Ok(written)) if written == INTERIM.len() => {}
                // A few bytes on a connection that has sent nothing: if they do not fit, nobody reads.
                _ => return Poll::Ready(Ok(())),
            }
            self.half.insert(Box::pin(tokio::time::sleep(SOON)))
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
            half.as_mut().reset((Instant::now() + OFTEN).into());
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
        self.activity.answering.store(true, Ordering::Relaxed);
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
        self.activity.answering.store(true, Ordering::Relaxed);
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
        activity.received(b"\r\nGET / HTTP/1.1\r\nhost: a\r\n");
        activity.received(b"\r\n");
        drop(activity.begin(Version::HTTP_11, Some(0)));
        assert!(matches!(look(&activity, SECOND * 2), Seen::Fine(_)), "idle is no slow head");
        activity.received(b"GET / HT");
        assert_eq!(look(&activity, SECOND * 2), Seen::Held("a head does not end"));
        activity.received(b"TP/1.1\r\n\r\n");
        let _busy = activity.begin(Version::HTTP_11, Some(0));
        assert!(matches!(look(&activity, SECOND * 100), Seen::Fine(_)));
    }

    #[test]
    fn a_request_on_its_way_is_expected() {
        let activity = Arc::new(Activity::new(Instant::now()));
        assert!(activity.expects_request() && activity.is_silent(), "a new connection");
        activity.received(b"GET / HTTP/1.1\r\n");
        assert!(activity.expects_request() && !activity.is_silent(), "half a head");
        activity.received(b"host: a\r\n\r\n");
        let busy = activity.begin(Version::HTTP_11, Some(0));
        assert!(!activity.expects_request(), "it is here");
        drop(busy);
        assert!(!activity.expects_request() && !activity.is_silent(), "a kept connection with nothing to do");
        activity.received(b"GET / HT");
        assert!(activity.expects_request(), "half of the next head");
        let http2 = Arc::new(Activity::new(Instant::now()));
        http2.received(b"PRI * HTTP/2.0\r\n");
        assert!(!http2.expects_request(), "HTTP/2 can be asked to leave at any time");
    }

    #[test]
    fn lines_end_with_both() {
        let bare = |pieces: &[&[u8]]| {
            let activity = Arc::new(Activity::new(Instant::now()));
            for piece in pieces {
                activity.received(piece);
            }
            activity.begin(Version::HTTP_11, Some(0)).has_bare_line()
        };
        assert!(!bare(&[b"\r\nGET / HTTP/1.1\r\nhost: a\r", b"\n\r", b"\na\nb"]), "what is behind the head is a body");
        assert!(bare(&[b"GET / HTTP/1.1\nhost: a\r\n\r\n"]));
        assert!(bare(&[b"GET / HTTP/1.1\r\nhost: a", b"\n\r\n"]));
        assert!(bare(&[b"GET / HTTP/1.1\r\nhost: a\r\n", b"\n"]));
    }

    #[test]
    fn what_comes_ahead_of_its_answer_may_not_stay_for_long() {
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
        assert!(!idle([&with(b"{}"), b""], Some(2)), "a request and nothing else");
        assert!(!idle([head, b"{}"], Some(2)), "its body in a piece of its own");
        assert!(idle([&with(b"{}POST / HT"), b""], Some(2)), "half a head with it");
        assert!(idle([&with(b"{}"), b"POST / HT"], Some(2)), "half a head behind it");
        assert!(idle([head, b"2\r\n{}\r\n0\r\n\r\nPO"], None), "nobody knows");
    }

    #[test]
    fn an_idle_connection_ends() {
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
        assert!(matches!(look(&activity, SECOND * 100), Seen::Fine(_)), "the upstream's turn");
        assert!(body.frame().await.unwrap().is_ok());
        assert!(matches!(look(&activity, SECOND), Seen::Fine(_)));
        assert_eq!(look(&activity, SECOND * 3), Seen::Held("an answer is not read"));
        drop(body);
        assert!(matches!(look(&activity, SECOND * 3), Seen::Fine(_)));
    }
}
