//! The reader of a log in this process.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use crossbeam_channel::Receiver;

use super::{
    Local, MAX_POLL_BYTES, failed,
    storage::{Place, Stored},
    tail::{Tail, Wake},
};
use crate::{
    log::{LogError, Polled, Reader, Start},
    record::{Record, TopicPartition},
};

pub(crate) struct LocalReader<L> {
    log: Arc<L>,
    sources: Vec<Source>,
    wake: Arc<Wake>,
    woken: Receiver<()>,
    /// The partition to start with at the next poll, so that none starves.
    first: usize,
    /// Whether [`Polled::AtEnd`] was returned since the last record.
    reported: bool,
}

struct Source {
    at: TopicPartition,
    place: Place,
    tail: Arc<Tail>,
    next: i64,
}

impl<L: Local> LocalReader<L> {
    pub(crate) fn new(log: Arc<L>, from: &[(TopicPartition, Start)]) -> Result<Self, LogError> {
        let (wake, woken) = Wake::new();
        let mut sources = Vec::with_capacity(from.len());
        for (at, start) in from {
            let (place, tail) = log.topics().tail(at)?;
            tail.watch(&wake);
            let next = match start {
                Start::Beginning => tail.start(),
                Start::End => tail.end(),
                Start::At(next) => next.0,
            };
            let source = Source { at: at.clone(), place, tail, next };
            source.check()?;
            sources.push(source);
        }
        Ok(Self { log, sources, wake, woken, first: 0, reported: false })
    }

    /// Reads available records from each partition in turn.
    fn read(&mut self, max: usize, into: &mut Vec<Record>) -> Result<(), LogError> {
        let until = into.len() + max;
        let mut bytes = 0;
        let count = self.sources.len();
        for turn in 0..count {
            let source = &mut self.sources[(self.first + turn) % count];
            if into.len() < until && bytes < MAX_POLL_BYTES {
                source.read(self.log.as_ref(), until, &mut bytes, into)?;
            }
        }
        self.first = (self.first + 1) % count.max(1);
        Ok(())
    }
}

impl Source {
    fn check(&self) -> Result<(), LogError> {
        let (start, end) = (self.tail.start(), self.tail.end());
        if (start..=end).contains(&self.next) {
            return Ok(());
        }
        let (topic, partition) = (self.at.topic.to_string(), self.at.partition);
        Err(LogError::OutOfRange { topic, partition, wanted: self.next, start, end })
    }

    fn read(
        &mut self,
        log: &impl Local,
        until: usize,
        bytes: &mut usize,
        into: &mut Vec<Record>,
    ) -> Result<(), LogError> {
        let end = self.tail.end();
        if self.next == end {
            return Ok(());
        }
        self.check()?;
        let mut full = false;
        let before = into.len();
        let (at, from, next) = (&self.at, self.next, &mut self.next);
        let mut sink = |offset: i64, stored: Stored| {
            *bytes += stored.size();
            *next = offset + 1;
            let Stored { timestamp_ms, key, value, headers } = stored;
            into.push(Record { at: at.clone(), offset, timestamp_ms, key, value, headers });
            full = into.len() >= until || *bytes >= MAX_POLL_BYTES;
            !full
        };
        let read = log.read(self.place, from, end, &mut sink);
        read.map_err(|error| failed("reading the log", &error))?;
        if self.tail.start() > from {
            // The records read may have gaps, because some were removed meanwhile.
            into.truncate(before);
            self.next = from;
            return self.check();
        }
        if !full {
            // The rest up to the end was compacted away or is the gap after a transaction.
            self.next = end;
        }
        Ok(())
    }
}

impl<L: Local> Reader for LocalReader<L> {
    fn poll(&mut self, max: usize, wait: Duration, into: &mut Vec<Record>) -> Result<Polled, LogError> {
        let deadline = Instant::now() + wait;
        let before = into.len();
        loop {
            self.read(max, into)?;
            if into.len() > before {
                self.reported = false;
                return Ok(Polled::Records);
            }
            if !std::mem::replace(&mut self.reported, true) || self.wake.interrupted() {
                return Ok(Polled::AtEnd);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if self.woken.recv_timeout(left).is_err() {
                return Ok(Polled::AtEnd);
            }
        }
    }

    fn at_end(&self, at: &TopicPartition) -> bool {
        self.sources.iter().any(|source| source.at == *at && source.next >= source.tail.end())
    }

    fn waker(&self) -> Arc<dyn Fn() + Send + Sync> {
        let wake = Arc::clone(&self.wake);
        Arc::new(move || wake.interrupt())
    }
}
