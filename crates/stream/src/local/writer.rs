//! The plain writer of a log in this process: a bounded queue and a thread that writes what has gathered in one piece.

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
    record::{Outgoing, Target},
    seldom::Seldom,
};

/// Most bytes of records that wait, as the Kafka writer has it: the number of records is the caller's.
const MAX_QUEUE_BYTES: usize = 64 << 20;

/// Most records in one write: keeps the latency of a full queue in the milliseconds.
const MAX_BATCH: usize = 4096;

/// What the thread is told.
enum Message {
    Write(Vec<(Place, Stored)>),
    /// Everything before this was handled; the sender hears how many had failed by then.
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
    /// Of the records that wait.
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
            lost: Seldom::default(),
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
        let late = || failed("flushing a writer", &"not done in the time given");
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

/// The thread's side. Ends when the writer is dropped and the queue is empty.
struct Worker<L> {
    log: Arc<L>,
    queue: Receiver<Message>,
    bytes: Arc<AtomicUsize>,
    failed: Arc<AtomicU64>,
    lost: Seldom,
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
                // Whoever asked may have given up.
                let _ = flush.send(self.failed.load(Ordering::Acquire));
            }
        }
    }

    /// Waits a moment for more, unless somebody waits for a flush.
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
                tracing::error!(%error, count, "records of a plain writer were lost");
            }
        }
        self.bytes.fetch_sub(size, Ordering::AcqRel);
    }
}
