//! The thread that follows the `routing` topic and reports the tables it applied. It is the only writer of the tables.
//!
//! Whatever happens on the log, requests continue with the current tables until their leases end. A record that cannot be read is logged,
//! counted and skipped. A newer record that cannot be used ends its model's canary, because it was meant to replace the current table.

use std::{
    collections::HashMap,
    ops::Range,
    sync::{Arc, atomic::Ordering, mpsc},
    time::{Duration, Instant},
};

use serin_schemas::{
    codec,
    ids::{EventTime, Generation, ModelName},
    records::RoutingTable,
};
use serin_stream::{
    log::{Log, LogError, Polled, Reader, Start},
    partition_of,
    record::{Record, TopicPartition},
};
use serin_topology::{EVENTS, ROUTER_STATUS, ROUTING};

use crate::{
    config::{Config, span},
    log::{keeper::Keeper, namesakes::Namesakes, status},
    state::{Refused, Shared},
    tables::{
        route::Route,
        table::{Lease, Table},
    },
};

/// Maximum duration of one poll, and so the maximum delay of a stop or a status report. A new record ends the poll immediately.
const POLL: Duration = Duration::from_millis(200);
/// Delay before the log is opened again after an error.
const RETRY: Duration = Duration::from_secs(1);
/// Maximum number of records per poll.
const BATCH: usize = 256;

/// Follows the routing log until it is stopped.
pub(crate) struct Consumer {
    shared: Arc<Shared>,
    log: Arc<dyn Log>,
    /// When this process started.
    started: EventTime,
    stop: mpsc::Receiver<()>,
    /// Notified once the log is connected for the first time.
    connected: Option<tokio::sync::oneshot::Sender<()>>,
    status_due: Duration,
    /// The router's clock at the last report to all partitions.
    reported_at: Option<EventTime>,
    /// Per model, the newest record on the log that is older than an unconfirmed table from disk.
    behind: HashMap<ModelName, (RoutingTable, i64)>,
    /// Tables that could not be used, with the timestamps of their records. Another configuration may contain what they lack.
    refused: HashMap<ModelName, (RoutingTable, i64)>,
    /// The configuration with which they were last compiled.
    tried_with: Arc<Config>,
    keeper: Keeper,
    namesakes: Namesakes,
}

/// Result of processing a routing record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Applied,
    Renewed,
    Removed,
    Older,
    Garbage,
    Unusable,
}

impl Outcome {
    fn as_str(self) -> &'static str {
        match self {
            Self::Applied => "applied",
            Self::Renewed => "renewed",
            Self::Removed => "removed",
            Self::Older => "older",
            Self::Garbage => "garbage",
            Self::Unusable => "unusable",
        }
    }
}

impl Consumer {
    pub(crate) fn new(
        shared: Arc<Shared>,
        log: Arc<dyn Log>,
        started: EventTime,
        stop: mpsc::Receiver<()>,
        connected: tokio::sync::oneshot::Sender<()>,
    ) -> Self {
        Self {
            keeper: Keeper::start(Arc::clone(&shared)),
            refused: HashMap::new(),
            tried_with: shared.config(),
            shared,
            log,
            started,
            stop,
            connected: Some(connected),
            status_due: Duration::ZERO,
            reported_at: None,
            behind: HashMap::new(),
            namesakes: Namesakes::default(),
        }
    }

    /// Runs until it is stopped.
    pub(crate) fn run(mut self) {
        loop {
            match self.open().and_then(|mut reader| self.follow(reader.as_mut())) {
                Ok(()) => break,
                Err(error) => {
                    tracing::warn!(%error, "the routing log is unavailable; the tables stay in use until their leases end");
                    self.shared.log_is_away(Some(error.to_string()));
                }
            }
            if !matches!(self.stop.recv_timeout(RETRY), Err(mpsc::RecvTimeoutError::Timeout)) {
                break;
            }
        }
        self.report(0..self.shared.status_partitions(), true);
        self.keeper.stop();
    }

    /// Connects a writer the first time and a reader every time.
    fn open(&mut self) -> Result<Box<dyn Reader>, LogError> {
        if !self.shared.events.is_attached() {
            let partitions = self.log.partitions(ROUTER_STATUS)?;
            self.shared.status_partitions.store(partitions, Ordering::Relaxed);
            let partitions = self.log.partitions(EVENTS)?;
            let writer = self.log.writer(self.shared.config().event_queue)?;
            self.shared.events.attach(writer, partitions, span(self.shared.config().timeouts.flush));
        }
        let topic = self.log.full_name(ROUTING);
        let places: Vec<_> = (0..self.log.partitions(ROUTING)?)
            .map(|partition| (TopicPartition { topic: Arc::clone(&topic), partition }, Start::Beginning))
            .collect();
        let reader = self.log.reader(&places)?;
        if let Some(connected) = self.connected.take() {
            // The receiver may have stopped waiting.
            let _ = connected.send(());
        }
        Ok(reader)
    }

    fn follow(&mut self, reader: &mut dyn Reader) -> Result<(), LogError> {
        let mut records = Vec::new();
        let mut at_end = false;
        loop {
            if !matches!(self.stop.try_recv(), Err(mpsc::TryRecvError::Empty)) {
                return Ok(());
            }
            let polled = reader.poll(BATCH, POLL, &mut records)?;
            self.namesakes.look(&self.shared, self.log.as_ref());
            self.shared.log_is_away(None);
            self.apply(&records);
            records.clear();
            self.try_again();
            if polled == Polled::AtEnd && !at_end {
                at_end = true;
                self.reached_end();
            }
            // A replay clock runs faster than wall time, and readers of the status need its current time.
            let replayed = self.shared.clock.is_replay() && self.shared.clock.now() != self.reported_at;
            if replayed || self.shared.clock.source().steady() >= self.status_due {
                self.report_all();
            }
        }
    }

    /// Compiles unusable tables again after the configuration has changed.
    fn try_again(&mut self) {
        let config = self.shared.config();
        if Arc::ptr_eq(&config, &self.tried_with) {
            return;
        }
        self.tried_with = config;
        for (record, timestamp_ms) in std::mem::take(&mut self.refused).into_values() {
            self.swap(record, timestamp_ms);
        }
        self.report_all();
        self.keeper.keep();
    }

    /// Called once the log has been read to its end.
    fn reached_end(&mut self) {
        for (model, (record, timestamp_ms)) in std::mem::take(&mut self.behind) {
            let unconfirmed = self.shared.table(model.as_str()).is_some_and(|table| table.lease == Lease::Unconfirmed);
            if unconfirmed {
                tracing::warn!(%model, generation = %record.generation, "the log has no table as new as the one on disk; using \
                    the table from the log");
                self.swap(record, timestamp_ms);
            }
        }
        self.shared.caught_up.store(true, Ordering::Relaxed);
        self.report_all();
    }

    /// Applies the records, reports the result and stores the tables.
    fn apply(&mut self, records: &[Record]) {
        let mut changed = Vec::new();
        let mut keep = false;
        for record in records {
            let (model, outcome) = self.apply_one(record);
            self.shared.metrics.table(outcome.as_str());
            keep |= matches!(outcome, Outcome::Applied | Outcome::Removed | Outcome::Unusable);
            if outcome != Outcome::Older {
                changed.push(partition_of(model.as_str().as_bytes(), self.shared.status_partitions().max(1)));
            }
        }
        changed.sort_unstable();
        changed.dedup();
        for partition in changed {
            self.report(partition..partition + 1, false);
        }
        if keep {
            self.keeper.keep();
        }
    }

    fn apply_one(&mut self, record: &Record) -> (ModelName, Outcome) {
        let key = ModelName(String::from_utf8_lossy(&record.key).into_owned());
        let Some(value) = &record.value else {
            return (key.clone(), self.remove(&key));
        };
        let table = match codec::read::<RoutingTable>(&record.headers, value) {
            Ok(table) => table,
            Err(error) => {
                tracing::warn!(place = %place(record), key = %key, %error, "a routing record cannot be read and is skipped");
                let reason = format!("the record cannot be read: {error}");
                self.shared.refuse(key.as_str(), Some(Refused { generation: Generation(0), reason }));
                return (key, Outcome::Garbage);
            }
        };
        let model = table.model.clone();
        // The newest record can be read, even if its table cannot be used.
        self.shared.read_again(key.as_str());
        self.shared.read_again(model.as_str());
        let outcome = self.offer(table, record.timestamp_ms);
        if outcome == Outcome::Unusable {
            tracing::warn!(place = %place(record), %model, "all calls of the model go to stable until a usable table arrives");
        }
        (model, outcome)
    }

    /// Applies a table if it is newer than the current one.
    fn offer(&mut self, record: RoutingTable, timestamp_ms: i64) -> Outcome {
        let Some(current) = self.shared.table(record.model.as_str()) else {
            return self.swap(record, timestamp_ms);
        };
        let unconfirmed = current.lease == Lease::Unconfirmed;
        let (ours, theirs) =
            ((current.record.generation, current.record.lease_seq), (record.generation, record.lease_seq));
        if theirs.0 < ours.0 {
            if unconfirmed {
                self.behind.insert(record.model.clone(), (record, timestamp_ms));
            }
            return Outcome::Older;
        }
        let renewal = theirs.0 == ours.0;
        if renewal && !unconfirmed && theirs.1 <= ours.1 {
            return Outcome::Older;
        }
        // The log has something newer than the record remembered for the end of the log, usable or not.
        self.behind.remove(&record.model);
        match self.swap(record, timestamp_ms) {
            Outcome::Applied if renewal => Outcome::Renewed,
            outcome => outcome,
        }
    }

    /// Compiles and publishes a table.
    fn swap(&mut self, record: RoutingTable, timestamp_ms: i64) -> Outcome {
        let source = self.shared.clock.source();
        let wall = source.wall();
        let age_us = wall.0.saturating_sub(timestamp_ms.saturating_mul(1000)).max(0);
        // A record from before this router's start could not be applied earlier.
        let apply_us = age_us.min(wall.since(self.started).0.max(0));
        let lease = lease(&record, source.steady(), age_us);
        let (model, generation) = (record.model.clone(), record.generation);
        if lease.expired(source.steady()) && self.shared.caught_up.load(Ordering::Relaxed) {
            tracing::warn!(%model, age_ms = age_us / 1000, lease_ms = record.lease_ms, "a table arrived after its lease had \
                expired: the log is late, or the clocks of the controller and this machine differ; all calls go to stable");
        }
        let known = self.shared.known(model.as_str());
        self.refused.remove(&model);
        match Table::compile(record.clone(), lease, known.as_ref(), apply_us) {
            Ok(table) => {
                let before = self.shared.table(model.as_str());
                let table = match &before {
                    Some(before) => table.after(before),
                    None => table,
                };
                let ended = before.map(|before| before.ended(Some(&table))).unwrap_or_default();
                let table = Arc::new(table);
                self.shared.metrics.begin(&table);
                self.shared.publish(|tables| drop(tables.0.insert(model.0.clone(), table)));
                self.shared.refuse(model.as_str(), None);
                self.drain(&model, ended, Some(apply_us));
                if self.shared.caught_up.load(Ordering::Relaxed) {
                    self.shared.metrics.applied(apply_us);
                }
                Outcome::Applied
            }
            Err(error) => {
                tracing::warn!(%model, %error, "a routing table cannot be used");
                self.shared.refuse(model.as_str(), Some(Refused { generation, reason: error.to_string() }));
                self.refused.insert(model.clone(), (record, timestamp_ms));
                self.demote(&model);
                Outcome::Unusable
            }
        }
    }

    /// Removes the lease from a model's table: its successor is unusable, so its canary must not continue.
    fn demote(&self, model: &ModelName) {
        let Some(current) = self.shared.table(model.as_str()) else { return };
        match current.demoted(self.shared.known(model.as_str()).as_ref()) {
            Ok(table) => self.shared.publish(|tables| {
                tables.0.insert(model.0.clone(), Arc::new(table.after(&current)));
            }),
            Err(error) => tracing::error!(%model, %error, "a table in use cannot be compiled again"),
        }
    }

    /// Handles a tombstone: the model falls back to the configuration, or is removed.
    fn remove(&mut self, model: &ModelName) -> Outcome {
        let configured = self.shared.known(model.as_str()).map(|known| Table::configured(model.as_str(), &known));
        self.behind.remove(model);
        self.refused.remove(model);
        self.shared.refuse(model.as_str(), None);
        let ended = self.shared.table(model.as_str()).map(|before| before.ended(None)).unwrap_or_default();
        self.shared.publish(|tables| {
            match configured {
                Some(Ok(table)) => tables.0.insert(model.0.clone(), Arc::new(table)),
                _ => tables.0.remove(model.as_str()),
            };
        });
        self.drain(model, ended, None);
        Outcome::Removed
    }

    /// Lets calls in flight on removed versions finish, and cuts the rest after the drain timeout.
    fn drain(&self, model: &ModelName, ended: Vec<Arc<Route>>, apply_us: Option<i64>) {
        for route in ended {
            if let Some(apply_us) = apply_us {
                self.shared.metrics.rolled_back("applied", Duration::from_micros(apply_us.unsigned_abs()));
            }
            let (shared, model) = (Arc::clone(&self.shared), model.clone());
            let patience = route.drain;
            self.shared.runtime.spawn(async move {
                let started = Instant::now();
                let cut = route.flights.drain(patience).await;
                shared.metrics.rolled_back("drained", started.elapsed());
                shared.metrics.cut(&route, cut);
                if cut > 0 {
                    tracing::warn!(%model, version = %route.version, cut, "calls in flight were cut: their version was rolled back");
                }
            });
        }
    }

    /// Reports to every partition of `router-status` that this router is alive.
    fn report_all(&mut self) {
        self.status_due = self.shared.clock.source().steady() + span(self.shared.config().status_every);
        self.reported_at = self.shared.clock.now();
        self.report(0..self.shared.status_partitions(), false);
    }

    fn report(&self, partitions: Range<i32>, leaving: bool) {
        status::report(&self.shared, partitions, self.shared.status_partitions(), leaving);
    }
}

/// The lease of a table of this age.
fn lease(record: &RoutingTable, steady: Duration, age_us: i64) -> Lease {
    if record.lease_ms == 0 {
        return Lease::Forever;
    }
    let left = record.lease_ms.saturating_mul(1000).saturating_sub(age_us).max(0);
    Lease::Until(steady + Duration::from_micros(left.unsigned_abs()))
}

fn place(record: &Record) -> String {
    format!("{}[{}]@{}", record.at.topic, record.at.partition, record.offset)
}
