//! A connection's stream as the listener uses it.
//!
//! - It limits how long a write waits for a client that does not read its responses. hyper limits the time of a head, and the listener
//!   that of a handler. Neither covers the write of a response: without this limit, a client that sends requests and reads nothing would
//!   occupy its connection forever.
//! - It records what is received, to detect bare line feeds, which hyper accepts.
//! - hyper does not give a reason when it refuses a request that it cannot parse. The stream replaces its response by one with a reason.

use std::{
    io,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::Sleep,
};

use crate::{lock, receipt::Receipt};

/// A stream whose writes fail when the client has taken nothing for a while.
pub(crate) struct Sending<S> {
    stream: S,
    within: Duration,
    /// Runs while a write waits for the client.
    waits: Option<Pin<Box<Sleep>>>,
    received: Arc<Mutex<Receipt>>,
    /// The response that is written instead of hyper's, and how much of it has been written.
    refusal: Option<(Vec<u8>, usize)>,
}

/// The response that replaces hyper's response to a request that it cannot parse; `None` for any other response of hyper.
fn with_reason(response: &[u8]) -> Option<Vec<u8>> {
    let head = std::str::from_utf8(response).ok()?.strip_prefix("HTTP/1.1 ")?;
    let (line, fields) = head.strip_suffix("\r\n\r\n")?.split_once("\r\n")?;
    let is_empty = fields.split("\r\n").any(|field| field.eq_ignore_ascii_case("content-length: 0"));
    let reason = match line.split(' ').next().filter(|_| is_empty)? {
        "400" => "the request is not valid HTTP/1.1; check its first line, its header fields and its length",
        "414" => "the request has a target that is too long",
        "431" => "the request has too many header fields, or they are too long",
        _ => return None,
    };
    let body = format!("{{\"error\":\"{reason}\"}}");
    Some(
        format!(
            "HTTP/1.1 {line}\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
            body.len()
        )
        .into_bytes(),
    )
}

impl<S> Sending<S> {
    /// Limits the writes of a stream. Each may wait for `within`.
    pub(crate) fn new(stream: S, within: Duration, received: Arc<Mutex<Receipt>>) -> Self {
        Self { stream, within, waits: None, received, refusal: None }
    }

    /// The result of a write, or an error if writes have been pending for too long.
    fn limit<T>(&mut self, cx: &mut Context<'_>, polled: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if polled.is_ready() {
            self.waits = None;
            return polled;
        }
        let within = self.within;
        let waits = self.waits.get_or_insert_with(|| Box::pin(tokio::time::sleep(within)));
        ready!(waits.as_mut().poll(cx));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client does not read its responses")))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Sending<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if polled.is_ready() {
            lock(&self.received).take(&buffer.filled()[before..]);
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Sending<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.refusal.is_none() {
            self.refusal = with_reason(bytes).map(|refusal| (refusal, 0));
        }
        let Some((refusal, mut written)) = self.refusal.take() else {
            let polled = Pin::new(&mut self.stream).poll_write(cx, bytes);
            return self.limit(cx, polled);
        };
        while written < refusal.len() {
            let polled = Pin::new(&mut self.stream).poll_write(cx, &refusal[written..]);
            let Poll::Ready(more) = self.limit(cx, polled) else {
                self.refusal = Some((refusal, written));
                return Poll::Pending;
            };
            match more? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                more => written += more,
            }
        }
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        // hyper writes what it refuses in one piece.
        if self.refusal.is_some() || bytes.iter().filter(|piece| !piece.is_empty()).count() == 1 {
            let piece = bytes.iter().find(|piece| !piece.is_empty());
            return self.poll_write(cx, piece.map_or(&[], |piece| piece));
        }
        let polled = Pin::new(&mut self.stream).poll_write_vectored(cx, bytes);
        self.limit(cx, polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_flush(cx);
        self.limit(cx, polled)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_shutdown(cx);
        self.limit(cx, polled)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[tokio::test]
    async fn a_write_that_no_one_reads_fails() {
        let (_unread, stream) = tokio::io::duplex(8);
        let mut stream = Sending::new(stream, Duration::from_millis(1), Arc::default());
        stream.write_all(&[0; 8]).await.unwrap();
        assert_eq!(stream.write_all(&[0; 8]).await.unwrap_err().kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn a_write_that_is_read_succeeds() {
        let (mut reader, stream) = tokio::io::duplex(8);
        let mut stream = Sending::new(stream, Duration::from_mins(1), Arc::default());
        let mut read = Vec::new();
        let write = async {
            stream.write_all(&[7; 1000]).await.unwrap();
            drop(stream);
        };
        let (_, ()) = tokio::join!(reader.read_to_end(&mut read), write);
        assert_eq!(read, [7; 1000]);
    }
}
