//! The visible bounds of a partition, and the readers that wait for them to move.

use std::sync::{
    Arc, Mutex, Weak,
    atomic::{AtomicBool, AtomicI64, Ordering},
};

use crossbeam_channel::{Receiver, Sender, bounded};

use super::lock;

/// The first and the next offset of a partition that are visible to readers. They move only after the records are
/// stored.
#[derive(Debug, Default)]
pub(crate) struct Tail {
    start: AtomicI64,
    end: AtomicI64,
    waiters: Mutex<Vec<Weak<Wake>>>,
}

impl Tail {
    pub(crate) fn new(start: i64, end: i64) -> Self {
        Self { start: AtomicI64::new(start), end: AtomicI64::new(end), waiters: Mutex::default() }
    }

    pub(crate) fn start(&self) -> i64 {
        self.start.load(Ordering::Acquire)
    }

    pub(crate) fn end(&self) -> i64 {
        self.end.load(Ordering::Acquire)
    }

    pub(crate) fn trim(&self, start: i64) {
        self.start.store(start, Ordering::Release);
    }

    /// Makes records up to `end` visible and wakes the waiting readers.
    pub(super) fn publish(&self, end: i64) {
        self.end.store(end, Ordering::Release);
        lock(&self.waiters).retain(|waiter| waiter.upgrade().inspect(|wake| wake.notify()).is_some());
    }

    pub(super) fn watch(&self, wake: &Arc<Wake>) {
        lock(&self.waiters).push(Arc::downgrade(wake));
    }
}

/// Wakes one reader. A token stays in the channel until it is taken, so no wake-up is lost.
#[derive(Debug)]
pub(crate) struct Wake {
    sender: Sender<()>,
    asked: AtomicBool,
}

impl Wake {
    pub(crate) fn new() -> (Arc<Self>, Receiver<()>) {
        let (sender, receiver) = bounded(1);
        (Arc::new(Self { sender, asked: AtomicBool::new(false) }), receiver)
    }

    pub(crate) fn notify(&self) {
        // A full channel already contains a token.
        let _ = self.sender.try_send(());
    }

    /// Makes the current or next wait return, with or without records.
    pub(crate) fn interrupt(&self) {
        self.asked.store(true, Ordering::Release);
        self.notify();
    }

    /// Whether the wait was interrupted since the last call.
    pub(crate) fn interrupted(&self) -> bool {
        self.asked.swap(false, Ordering::AcqRel)
    }
}
