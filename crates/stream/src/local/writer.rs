//! The non-transactional writer of a local log: a bounded queue, and a thread that writes queued records in batches.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};

use super::{
    Local, failed,
    storage::{Place, Stored},
    topics::PlaceError,
};
use crate::{
    log::{LogError, WriteError, Writer},
    log_limit::LogLimit,
    record::{Outgoing, Target},
};

/// Maximum bytes of queued records, the same as for the Kafka writer. The caller bounds the number of records.
const MAX_QUEUE_BYTES: usize = 64 << 20;

/// Maximum number of records in one write. It keeps the latency of a full queue within milliseconds.
const MAX_BATCH: usize = 4096;

/// A message to the writer's thread.
enum Message {
    Write(Vec<(Place, Stored)>),
    /// Confirms that all earlier messages were handled, and returns the number of records that have failed so far.
    Flush(Sender<u64>),
}

impl Message {
    fn put(self, records: &mut Vec<(Place, Stored)>, flushes: &mut Vec<Sender<u64>>) {
        match self {
            Self::Write(resolved) => records.extend(resolved),
            Self::Flush(reply) => flushes.push(reply),
        }
    }
}

pub(crate) struct LocalWriter<L> {
    log: Arc<L>,
    queue: Sender<Message>,
    /// Bytes of the queued records.
    bytes: Arc<AtomicUsize>,
    failed: Arc<AtomicU64>,
    /// Failures that a flush has reported.
    reported: AtomicU64,
}

impl<L: Local> LocalWriter<L> {
    pub(crate) fn start(log: Arc<L>, queue: usize) -> Result<Self, LogError> {
        let (sender, receiver) = bounded(queue.max(1));
        let lost = Arc::new(AtomicU64::new(0));
        let bytes = Arc::new(AtomicUsize::new(0));
        let worker = Worker {
            log: Arc::clone(&log),
            queue: receiver,
            bytes: Arc::clone(&bytes),
            failed: Arc::clone(&lost),
            lost: LogLimit::default(),
        };
        thread::Builder::new()
            .name("serin-writer".into())
            .spawn(move || worker.run())
            .map_err(|error| failed("starting a writer", &error))?;
        Ok(Self { log, queue: sender, bytes, failed: lost, reported: AtomicU64::new(0) })
    }
}

impl<L: Local> Writer for LocalWriter<L> {
    fn send(&self, record: Outgoing) -> Result<(), WriteError> {
        let copies = if record.target == Target::EveryPartition { 4 } else { 1 };
        let mut resolved = Vec::with_capacity(copies);
        let now_ms = self.log.now_ms();
        self.log.topics().resolve(&record, now_ms, &mut resolved).map_err(|error| match error {
            PlaceError::Unknown(_) => WriteError::Closed,
            PlaceError::TooLarge { .. } => WriteError::TooLarge,
        })?;
        let size = resolved.iter().map(|(_, record)| record.size()).sum();
        if self.bytes.fetch_add(size, Ordering::AcqRel) + size > MAX_QUEUE_BYTES {
            self.bytes.fetch_sub(size, Ordering::AcqRel);
            return Err(WriteError::QueueFull);
        }
        self.queue.try_send(Message::Write(resolved)).map_err(|error| {
            self.bytes.fetch_sub(size, Ordering::AcqRel);
            match error {
                TrySendError::Full(_) => WriteError::QueueFull,
                TrySendError::Disconnected(_) => WriteError::Closed,
            }
        })
    }

    fn flush(&self, deadline: Duration) -> Result<(), LogError> {
        let until = Instant::now() + deadline;
        let (reply, answer) = bounded(1);
        let late = || failed("flushing a writer", &"not done before the deadline");
        self.queue.send_deadline(Message::Flush(reply), until).map_err(|_| late())?;
        let lost = answer.recv_deadline(until).map_err(|_| late())?;
        match lost - self.reported.swap(lost, Ordering::AcqRel).min(lost) {
            0 => Ok(()),
            new => Err(failed("flushing a writer", &format!("{new} records could not be written"))),
        }
    }

    fn failed(&self) -> u64 {
        self.failed.load(Ordering::Acquire)
    }

    fn waiting(&self) -> usize {
        self.bytes.load(Ordering::Acquire)
    }
}

/// The thread of the writer. It ends when the writer is dropped and the queue is empty.
struct Worker<L> {
    log: Arc<L>,
    queue: Receiver<Message>,
    bytes: Arc<AtomicUsize>,
    failed: Arc<AtomicU64>,
    lost: LogLimit,
}

impl<L: Local> Worker<L> {
    fn run(self) {
        while let Ok(first) = self.queue.recv() {
            let mut records = Vec::new();
            let mut flushes = Vec::new();
            first.put(&mut records, &mut flushes);
            self.gather(&mut records, &mut flushes);
            self.write(records);
            for flush in flushes {
                // The caller may have given up waiting.
                let _ = flush.send(self.failed.load(Ordering::Acquire));
            }
        }
    }

    /// Lingers for more records, unless a flush is pending.
    fn gather(&self, records: &mut Vec<(Place, Stored)>, flushes: &mut Vec<Sender<u64>>) {
        let until = Instant::now() + self.log.linger();
        while flushes.is_empty() && records.len() < MAX_BATCH {
            match self.queue.recv_deadline(until) {
                Ok(message) => message.put(records, flushes),
                Err(_) => break,
            }
        }
    }

    fn write(&self, records: Vec<(Place, Stored)>) {
        if records.is_empty() {
            return;
        }
        let count = records.len() as u64;
        let size = records.iter().map(|(_, record)| record.size()).sum();
        if let Err(error) = self.log.append(records) {
            self.failed.fetch_add(count, Ordering::AcqRel);
            if let Some(count) = self.lost.happened(count) {
                tracing::error!(%error, count, "a non-transactional writer could not write records; they are lost");
            }
        }
        self.bytes.fetch_sub(size, Ordering::AcqRel);
    }
}
