//! Events, written off the hot path with ordering guarantees.
//!
//! Each partition of `events` has a **lane**: the number of the last record sent and a floor, the event time below which no event may
//! follow. A prediction gets its completion time and number and is queued under the lane's lock; a heartbeat raises the floor under the
//! same lock. In every partition the order of `seq` is therefore the order of sending, and no event after a heartbeat has an earlier event
//! time than its low watermark, even if the wall clock steps back.
//!
//! The queue belongs to the log's writer and is bounded. If it is full, the event is dropped, counted per arm, and reported in every later
//! heartbeat. Numbers are used only for queued records, so a gap means that a record was lost after it was queued.

pub(crate) mod incarnation;
pub(crate) mod name;

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    time::Duration,
};

use bytes::Bytes;
use serin_doors::half::{self, Half};
use serin_schemas::{
    codec::{self, Record},
    envelope::{self, Envelope},
    ids::{EventTime, ModelName, RequestId, new_uuid_v7},
    records::{Arm, ArmDrops, Capture, Feedback, Heartbeat, Prediction, RouterStatus, Writer as WriterId},
};
use serin_stream::{
    log::{self, WriteError},
    partition_of,
    record::{Outgoing, Target},
    trace::{self, SpanContext},
};
use serin_topology::{CAPTURES, EVENTS, PREDICTIONS, ROUTER_STATUS};
use tokio::sync::oneshot;

use crate::{clock::Clock, metrics::Metrics};

/// One partition of `events`.
#[derive(Debug, Default)]
struct Lane {
    /// Number of the last record sent.
    seq: i64,
    /// No event with an earlier event time may follow.
    floor: EventTime,
}

/// The connection to the log, once it is established.
struct Attached {
    writer: Arc<dyn log::Writer>,
    lanes: Box<[Mutex<Lane>]>,
    flusher: mpsc::SyncSender<oneshot::Sender<Result<(), String>>>,
}

/// Writes events, heartbeats and status.
pub(crate) struct Events {
    name: String,
    incarnation: i64,
    /// The value of `ce_source` for everything this router writes.
    source: String,
    clock: Arc<Clock>,
    attached: OnceLock<Attached>,
    drops: Mutex<BTreeMap<(ModelName, Arm), i64>>,
    /// Whether a newer process writes under this name. Records of this process would be refused.
    name_lost: AtomicBool,
    metrics: Arc<Metrics>,
}

/// Data of an event for its headers.
pub(crate) struct About<'a> {
    /// Unique id of the event within this router.
    pub(crate) id: &'a str,
    /// The model; empty if it is unknown.
    pub(crate) subject: &'a str,
    /// When the request arrived.
    pub(crate) arrived: EventTime,
}

/// Why an event could not be written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SendError {
    #[error("the log is not connected yet")]
    NotConnected,
    #[error("another process writes under this router's name")]
    NameLost,
    #[error("{0}")]
    Encode(String),
    #[error(transparent)]
    Write(#[from] WriteError),
}

/// Locks a mutex. A panic while it is held cannot leave the data inconsistent.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Events {
    pub(crate) fn new(name: &str, incarnation: i64, clock: Arc<Clock>, metrics: Arc<Metrics>) -> Self {
        Self {
            name: name.to_owned(),
            incarnation,
            source: format!("/routers/{name}"),
            clock,
            attached: OnceLock::new(),
            drops: Mutex::default(),
            name_lost: AtomicBool::new(false),
            metrics,
        }
    }

    /// Connects to the log. Only the first call has an effect. `flush` bounds each wait for the log.
    pub(crate) fn attach(&self, writer: Arc<dyn log::Writer>, partitions: i32, flush: Duration) {
        let lanes = (0..partitions.max(1)).map(|_| Mutex::default()).collect();
        let flusher = flusher(Arc::clone(&writer), flush);
        // A second call would be a bug of the caller and has no effect.
        let _ = self.attached.set(Attached { writer, lanes, flusher });
    }

    /// Number of bytes that wait to be written.
    pub(crate) fn waiting(&self) -> usize {
        self.attached.get().map_or(0, |attached| attached.writer.waiting())
    }

    pub(crate) fn is_attached(&self) -> bool {
        self.attached.get().is_some()
    }

    /// The name under which it writes.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    fn writer_id(&self, seq: i64) -> WriterId {
        WriterId { name: self.name.clone(), incarnation: self.incarnation, seq }
    }

    /// Writes a prediction. `stated` is the event time stated by a replay; otherwise the current time is used.
    /// `trace` is the context of the event's span, if the call is traced.
    pub(crate) fn prediction(
        &self,
        mut prediction: Prediction,
        stated: Option<EventTime>,
        about: &About<'_>,
        trace: Option<&SpanContext>,
    ) {
        let key = key(&prediction.request_id);
        let traceparent = trace.map(trace::format);
        let sent = self.send(&mut prediction, key, about, traceparent.as_deref(), |prediction, writer, floor| {
            let now = stated.filter(|_| self.clock.is_replay()).or_else(|| self.clock.now());
            prediction.completed_at = now.unwrap_or(floor).max(floor);
            prediction.writer = writer;
        });
        if let Err(error) = sent {
            let Prediction { model, arm, .. } = prediction;
            let trace_id = trace.map(|trace| tracing::field::display(trace.trace_id()));
            tracing::debug!(%error, %model, arm = arm.as_str(), trace_id, "an event was dropped");
            self.metrics.dropped(model.as_str(), arm);
            *lock(&self.drops).entry((model, arm)).or_default() += 1;
        }
    }

    /// Queues feedback; [`flush`](Self::flush) waits until it is on the log.
    pub(crate) fn feedback(&self, mut feedback: Feedback, about: &About<'_>) -> Result<(), SendError> {
        let key = key(&feedback.request_id);
        self.send(&mut feedback, key, about, None, |feedback, writer, _| feedback.writer = writer)
    }

    /// Queues an external prediction for intake, on `predictions`.
    pub(crate) fn foreign(&self, prediction: &Prediction, about: &About<'_>) -> Result<(), SendError> {
        let attached = self.attached.get().ok_or(SendError::NotConnected)?;
        let key = key(&prediction.request_id);
        attached.writer.send(self.outgoing(PREDICTIONS, Target::ByKey, key, prediction, about)?)?;
        Ok(())
    }

    /// Queues the request or the response of a call for intake, on `predictions`. Both have the key of their call, so they meet there.
    pub(crate) fn half(&self, half: &Half) -> Result<(), SendError> {
        let attached = self.attached.get().ok_or(SendError::NotConnected)?;
        let id = self.new_id();
        let headers = [
            ("ce_specversion", "1.0"),
            ("ce_id", &id),
            ("ce_source", &self.source),
            ("ce_type", half::TYPE),
            ("ce_subject", &half.model),
            ("content-type", "application/json"),
        ];
        attached.writer.send(Outgoing {
            topic: PREDICTIONS,
            target: Target::ByKey,
            key: Bytes::copy_from_slice(half.id.as_bytes()),
            value: Some(half.encode().into()),
            headers: headers.into_iter().collect(),
            timestamp_ms: None,
        })?;
        Ok(())
    }

    /// Queues an example on `captures`.
    pub(crate) fn capture(&self, capture: &Capture) -> Result<(), SendError> {
        let attached = self.attached.get().ok_or(SendError::NotConnected)?;
        let id = format!("{}.{}", capture.request_id, capture.shadow.version);
        let about = About { id: &id, subject: capture.model.as_str(), arrived: capture.at };
        let key = Bytes::copy_from_slice(capture.model.as_str().as_bytes());
        attached.writer.send(self.outgoing(CAPTURES, Target::ByKey, key, capture, &about)?)?;
        Ok(())
    }

    /// A new id. Ids sort by the machine's time.
    pub(crate) fn new_id(&self) -> String {
        new_uuid_v7(self.clock.source().wall().0 / 1000, rand::random())
    }

    /// Records that a newer process writes under this name. Returns true the first time.
    pub(crate) fn lose_name(&self) -> bool {
        !self.name_lost.swap(true, Ordering::Relaxed)
    }

    /// Whether a newer process writes under this name.
    pub(crate) fn has_lost_name(&self) -> bool {
        self.name_lost.load(Ordering::Relaxed)
    }

    /// The incarnation of this writer.
    pub(crate) fn incarnation(&self) -> i64 {
        self.incarnation
    }

    /// Queues a status for one partition of `router-status`.
    pub(crate) fn status(&self, partition: i32, status: &RouterStatus) -> Result<(), SendError> {
        let attached = self.attached.get().ok_or(SendError::NotConnected)?;
        if self.has_lost_name() {
            return Ok(());
        }
        let id = format!("{}-{}-{partition}-{}", self.name, self.incarnation, status.at.0);
        let about = About { id: &id, subject: "", arrived: status.at };
        let key = Bytes::copy_from_slice(self.name.as_bytes());
        attached.writer.send(self.outgoing(ROUTER_STATUS, Target::Partition(partition), key, status, &about)?)?;
        Ok(())
    }

    /// Queues a record in the lane of its key after `sign` has set its writer and number. `sign` also gets the lane's floor.
    fn send<R: Record>(
        &self,
        record: &mut R,
        key: Bytes,
        about: &About<'_>,
        traceparent: Option<&str>,
        sign: impl FnOnce(&mut R, WriterId, EventTime),
    ) -> Result<(), SendError> {
        let attached = self.attached.get().ok_or(SendError::NotConnected)?;
        if self.has_lost_name() {
            return Err(SendError::NameLost);
        }
        let partition = partition_of(&key, attached.lanes.len() as i32);
        let headers = envelope::traced_headers::<R>(&self.envelope(about), traceparent);
        let mut lane = lock(&attached.lanes[partition as usize]);
        sign(record, self.writer_id(lane.seq + 1), lane.floor);
        let value = encode(record)?;
        let target = Target::Partition(partition);
        attached.writer.send(Outgoing { topic: EVENTS, target, key, value, headers, timestamp_ms: None })?;
        lane.seq += 1;
        Ok(())
    }

    /// Writes a heartbeat to every partition: no event before `low`, or before now, will follow.
    pub(crate) fn heartbeat(&self, low: Option<EventTime>, leaving: bool) -> Result<(), SendError> {
        let attached = self.attached.get().ok_or(SendError::NotConnected)?;
        if self.has_lost_name() {
            return Ok(());
        }
        let drops = self.drops();
        let mut first_error = None;
        for (partition, lane) in attached.lanes.iter().enumerate() {
            let mut lane = lock(lane);
            let now = low.or_else(|| self.clock.now()).unwrap_or(lane.floor);
            let low_watermark = now.max(lane.floor);
            let writer = self.writer_id(lane.seq);
            let id = format!("{}-{}-{partition}-{}", self.name, self.incarnation, low_watermark.0);
            let about = About { id: &id, subject: "", arrived: low_watermark };
            let sent_at = (!self.clock.is_replay()).then(|| self.clock.source().wall());
            let drops = drops.clone();
            let record = Heartbeat { writer, low_watermark, drops, leaving, sent_at, relay: false };
            let target = Target::Partition(partition as i32);
            let key = Bytes::copy_from_slice(self.name.as_bytes());
            // The floor is raised first, because a failed write may still have reached the log.
            lane.floor = low_watermark;
            let sent = self
                .outgoing(EVENTS, target, key, &record, &about)
                .and_then(|outgoing| Ok(attached.writer.send(outgoing)?));
            first_error = first_error.or(sent.err());
        }
        first_error.map_or(Ok(()), Err)
    }

    /// Number of dropped events per model and arm.
    pub(crate) fn drops(&self) -> Vec<ArmDrops> {
        let drops = lock(&self.drops);
        drops.iter().map(|((model, arm), &dropped)| ArmDrops { model: model.clone(), arm: *arm, dropped }).collect()
    }

    fn envelope<'a>(&'a self, about: &About<'a>) -> Envelope<'a> {
        Envelope { id: about.id, source: &self.source, subject: about.subject, time: about.arrived }
    }

    fn outgoing<R: Record>(
        &self,
        topic: &'static str,
        target: Target,
        key: Bytes,
        record: &R,
        about: &About<'_>,
    ) -> Result<Outgoing, SendError> {
        Outgoing::record(topic, target, key, record, &self.envelope(about))
            .map_err(|error| SendError::Encode(error.to_string()))
    }

    /// Number of records that were lost after they were queued. Read it before queueing, for [`flush`](Self::flush).
    pub(crate) fn lost(&self) -> u64 {
        self.attached.get().map_or(0, |attached| attached.writer.failed())
    }

    /// Waits until everything that was queued before is on the log. Fails if any record was lost since `lost_before`, because it may have
    /// been one of the caller's.
    pub(crate) async fn flush(&self, lost_before: u64) -> Result<(), String> {
        let attached = self.attached.get().ok_or_else(|| SendError::NotConnected.to_string())?;
        let (done, wait) = oneshot::channel();
        attached.flusher.try_send(done).map_err(|_| "too many callers wait for the log".to_owned())?;
        wait.await.unwrap_or_else(|_| Err("the writer is closed".to_owned()))?;
        match self.lost().saturating_sub(lost_before) {
            0 => Ok(()),
            lost => Err(format!("{lost} records could not be written")),
        }
    }
}

/// The key of records about one call.
fn key(id: &RequestId) -> Bytes {
    Bytes::copy_from_slice(id.as_str().as_bytes())
}

fn encode<R: Record>(record: &R) -> Result<Option<Bytes>, SendError> {
    let bytes = codec::encode(record).map_err(|error| SendError::Encode(error.to_string()))?;
    Ok(Some(bytes.into()))
}

/// Maximum number of callers that wait for the log at the same time.
const WAITING: usize = 4096;

/// Starts a thread that flushes once for all current waiters, so that many callers cost one flush.
fn flusher(writer: Arc<dyn log::Writer>, deadline: Duration) -> mpsc::SyncSender<oneshot::Sender<Result<(), String>>> {
    let (ask, asked) = mpsc::sync_channel::<oneshot::Sender<Result<(), String>>>(WAITING);
    let work = move || {
        while let Ok(first) = asked.recv() {
            let waiting: Vec<_> = std::iter::once(first).chain(asked.try_iter()).collect();
            let done = writer.flush(deadline).map_err(|error| error.to_string());
            for waiter in waiting {
                // The caller may have stopped waiting.
                let _ = waiter.send(done.clone());
            }
        }
    };
    if let Err(error) = std::thread::Builder::new().name("router-flush".to_owned()).spawn(work) {
        tracing::error!(%error, "the thread that flushes the log could not be started: feedback will be refused");
    }
    ask
}
