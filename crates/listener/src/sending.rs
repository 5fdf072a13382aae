//! Limits how long a write waits for a client that does not read its responses.
//!
//! hyper limits the time of a head, and the listener that of a handler. Neither covers the write of a response: without this
//! limit, a client that sends requests and reads nothing would occupy its connection forever.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::Sleep,
};

/// A stream whose writes fail when the client has taken nothing for a while.
pub(crate) struct Sending<S> {
    stream: S,
    within: Duration,
    /// Runs while a write waits for the client.
    waits: Option<Pin<Box<Sleep>>>,
}

impl<S> Sending<S> {
    /// Limits the writes of a stream. Each may wait for `within`.
    pub(crate) fn new(stream: S, within: Duration) -> Self {
        Self { stream, within, waits: None }
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
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Sending<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.limit(cx, polled)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
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
        let mut stream = Sending::new(stream, Duration::from_millis(1));
        stream.write_all(&[0; 8]).await.unwrap();
        assert_eq!(stream.write_all(&[0; 8]).await.unwrap_err().kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn a_write_that_is_read_succeeds() {
        let (mut reader, stream) = tokio::io::duplex(8);
        let mut stream = Sending::new(stream, Duration::from_mins(1));
        let mut read = Vec::new();
        let write = async {
            stream.write_all(&[7; 1000]).await.unwrap();
            drop(stream);
        };
        let (_, ()) = tokio::join!(reader.read_to_end(&mut read), write);
        assert_eq!(read, [7; 1000]);
    }
}
