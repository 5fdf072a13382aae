//! Streaming of bodies.

pub(crate) mod request;

use std::{
    future::{Future, poll_fn},
    pin::{Pin, pin},
    task::{Context, Poll},
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};
use tokio::time::Sleep;

/// Chunks in memory. A single chunk is not copied.
#[derive(Default)]
pub(crate) struct Pieces {
    one: Option<Bytes>,
    more: BytesMut,
}

impl Pieces {
    pub(crate) fn push(&mut self, piece: Bytes) {
        if self.one.is_none() && self.more.is_empty() {
            self.one = Some(piece);
            return;
        }
        if let Some(one) = self.one.take() {
            self.more.extend_from_slice(&one);
        }
        self.more.extend_from_slice(&piece);
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        self.one.as_deref().unwrap_or(&self.more)
    }

    pub(crate) fn join(self) -> Bytes {
        self.one.unwrap_or_else(|| self.more.freeze())
    }
}

/// Waits for a future for at most `span`, then returns `None`. The timer is created only if the future is not ready immediately: most
/// bodies arrive together with their heads.
pub(crate) async fn within<F: Future>(span: Duration, what: F) -> Option<F::Output> {
    let (mut what, mut timer) = (pin!(what), pin!(None));
    poll_fn(|cx| {
        if let Poll::Ready(done) = what.as_mut().poll(cx) {
            return Poll::Ready(Some(done));
        }
        if timer.is_none() {
            timer.set(Some(tokio::time::sleep(span)));
        }
        timer.as_mut().as_pin_mut().map_or(Poll::Pending, |timer| timer.poll(cx).map(|()| None))
    })
    .await
}

/// A deadline that each chunk of a body extends, up to a final one. The timer is created only when a chunk is not ready immediately.
pub(crate) struct Pause {
    span: Duration,
    last: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
    running: bool,
}

impl Pause {
    pub(crate) fn new(span: Duration) -> Self {
        Self { span, last: None, timer: None, running: false }
    }

    /// Additionally limits all chunks together to `most` from now.
    pub(crate) fn within(self, most: Option<Duration>) -> Self {
        Self { last: most.map(|most| Instant::now() + most), ..self }
    }

    pub(crate) fn reset(&mut self) {
        self.running = false;
    }

    /// Ready once the wait exceeds the timeout.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(self.span)));
        if !self.running {
            let next = Instant::now() + self.span;
            timer.as_mut().reset(self.last.map_or(next, |last| next.min(last)).into());
            self.running = true;
        }
        timer.as_mut().poll(cx)
    }
}
