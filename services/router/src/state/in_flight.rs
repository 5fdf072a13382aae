//! Calls in flight. Their number is bounded, and a replay clock waits for them.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use serin_schemas::ids::EventTime;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use crate::metrics::Metrics;

/// A call that has arrived but does not count as in flight yet.
pub(crate) struct Arrival {
    flying: Option<InFlight>,
    metrics: Arc<Metrics>,
    calls: Arc<Semaphore>,
}

impl Arrival {
    /// A call at this time. With `flying`, a replay clock waits for it from now on.
    pub(super) fn new(
        at: EventTime,
        flying: Option<&Arc<Flying>>,
        metrics: &Arc<Metrics>,
        calls: &Arc<Semaphore>,
    ) -> Self {
        let flying = flying.map(|flying| {
            flying.start(at);
            InFlight(Arc::clone(flying), at)
        });
        Self { flying, metrics: Arc::clone(metrics), calls: Arc::clone(calls) }
    }

    /// Counts the call as in flight; `None` if too many are.
    pub(crate) fn enter(self) -> Option<Slot> {
        let permit = self.calls.try_acquire_owned().ok()?;
        self.metrics.in_flight.add(1, &[]);
        Some(Slot { _flying: self.flying, metrics: Some(self.metrics), _permit: Some(permit) })
    }

    /// Tracks a copy of a call: a replay clock waits for it, but it does not count against the limit of callers.
    pub(crate) fn copy(self) -> Slot {
        Slot { _flying: self.flying, metrics: None, _permit: None }
    }
}

/// A call that the replay clock waits for.
struct InFlight(Arc<Flying>, EventTime);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.end(self.1);
    }
}

/// The slot of one call among those in flight.
pub(crate) struct Slot {
    _flying: Option<InFlight>,
    metrics: Option<Arc<Metrics>>,
    _permit: Option<OwnedSemaphorePermit>,
}

impl Drop for Slot {
    fn drop(&mut self) {
        if let Some(metrics) = &self.metrics {
            metrics.in_flight.add(-1, &[]);
        }
    }
}

/// Calls in flight by event time, in replay mode. The clock waits for those before its new time.
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
    pub(crate) async fn none_before(&self, time: EventTime) {
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
