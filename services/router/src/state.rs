//! What the parts of a router share. The data plane only reads it; the table consumer owns the tables.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use serin_schemas::ids::EventTime;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use crate::{
    clock::Clock,
    config::{Config, ModelConfig},
    events::Events,
    metrics::Metrics,
    protocol::Paths,
    switch::Switch,
    table::{Table, Tables},
    upstream::Upstreams,
};

/// Source of 64 random bits for each request.
pub type Chance = Arc<dyn Fn() -> u64 + Send + Sync>;

/// Shared by all parts of a router.
pub(crate) struct Shared {
    pub(crate) config: Config,
    pub(crate) clock: Arc<Clock>,
    pub(crate) tables: ArcSwap<Tables>,
    pub(crate) events: Events,
    pub(crate) switch: Switch,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) upstreams: Upstreams,
    /// The models of plain paths.
    pub(crate) paths: Paths,
    pub(crate) chance: Chance,
    pub(crate) calls: Arc<Semaphore>,
    pub(crate) flying: Arc<Flying>,
    /// It is shutting down: readiness is gone, connections are closed after their answer.
    pub(crate) leaving: AtomicBool,
    /// The routing log was read to its end once.
    pub(crate) caught_up: AtomicBool,
    /// Steady time of the start.
    pub(crate) started: Duration,
}

/// How long a router waits for the routing log before it counts as ready with what it has on disk.
const PATIENCE: Duration = Duration::from_secs(5);

impl Shared {
    /// The table of a model.
    pub(crate) fn table(&self, model: &str) -> Option<Arc<Table>> {
        self.tables.load().0.get(model).cloned()
    }

    /// What the configuration knows of a model.
    pub(crate) fn known(&self, model: &str) -> Option<&ModelConfig> {
        self.config.models.get(model)
    }

    /// Whether it can serve, and if not, why.
    pub(crate) fn ready(&self) -> Result<(), String> {
        if self.leaving.load(Ordering::Relaxed) {
            return Err("it is shutting down".to_owned());
        }
        if self.caught_up.load(Ordering::Relaxed) {
            return Ok(());
        }
        let waited = self.clock.source().steady().saturating_sub(self.started);
        if waited >= PATIENCE && !self.tables.load().0.is_empty() {
            return Ok(());
        }
        Err("the routing log has not been read to its end yet".to_owned())
    }

    /// A call has arrived: in replay mode the clock waits for it from now on.
    pub(crate) fn arrive(self: &Arc<Self>, at: EventTime) -> Arrival {
        let flying = self.clock.is_replay().then(|| {
            self.flying.start(at);
            InFlight(Arc::clone(&self.flying), at)
        });
        Arrival { flying, metrics: Arc::clone(&self.metrics), calls: Arc::clone(&self.calls) }
    }
}

/// A call that has arrived, and has no place among those in flight yet.
pub(crate) struct Arrival {
    flying: Option<InFlight>,
    metrics: Arc<Metrics>,
    calls: Arc<Semaphore>,
}

impl Arrival {
    /// A place among the calls in flight; `None` when there are too many.
    pub(crate) fn enter(self) -> Option<Slot> {
        let permit = self.calls.try_acquire_owned().ok()?;
        self.metrics.in_flight.add(1, &[]);
        Some(Slot { _flying: self.flying, metrics: self.metrics, _permit: permit })
    }
}

/// A call that the replay clock waits for.
struct InFlight(Arc<Flying>, EventTime);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.end(self.1);
    }
}

/// The place of one call among those in flight.
pub(crate) struct Slot {
    _flying: Option<InFlight>,
    metrics: Arc<Metrics>,
    _permit: OwnedSemaphorePermit,
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.metrics.in_flight.add(-1, &[]);
    }
}

/// Calls in flight by event time, in replay mode: the clock waits for those before its new time.
#[derive(Debug, Default)]
pub(crate) struct Flying {
    open: Mutex<BTreeMap<EventTime, usize>>,
    changed: Notify,
}

impl Flying {
    fn start(&self, at: EventTime) {
        *self.open.lock().unwrap_or_else(PoisonError::into_inner).entry(at).or_default() += 1;
    }

    fn end(&self, at: EventTime) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = open.get_mut(&at) {
            *count -= 1;
            if *count == 0 {
                open.remove(&at);
            }
        }
        drop(open);
        self.changed.notify_waiters();
    }

    fn oldest(&self) -> Option<EventTime> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).keys().next().copied()
    }

    /// Waits until no call before `time` is in flight.
    pub(crate) async fn settled(&self, time: EventTime) {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if self.oldest().is_none_or(|oldest| oldest >= time) {
                return;
            }
            changed.await;
        }
    }
}
