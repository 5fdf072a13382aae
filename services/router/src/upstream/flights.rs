//! Calls in flight on one route. When a version gets no more traffic, its calls in flight may continue for the drain timeout and are then
//! cut.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::sync::{Notify, watch};

use crate::upstream::cause::Cause;

/// Calls in flight on one route of a table, and of later tables with the same route.
#[derive(Debug)]
pub(crate) struct Flights {
    open: AtomicUsize,
    ended: Notify,
    cut: watch::Sender<bool>,
}

impl Default for Flights {
    fn default() -> Self {
        Self { open: AtomicUsize::new(0), ended: Notify::new(), cut: watch::Sender::new(false) }
    }
}

/// One call in flight.
#[derive(Debug)]
pub(crate) struct Flight(Arc<Flights>);

impl Flights {
    /// Starts a call; `None` if `most` are already in flight.
    pub(crate) fn enter(self: &Arc<Self>, most: usize) -> Option<Flight> {
        let flight = Flight(Arc::clone(self));
        // If this is one too many, dropping `flight` releases the slot.
        (self.open.fetch_add(1, Ordering::Relaxed) < most).then_some(flight)
    }

    /// Number of calls in flight.
    fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// Waits for at most `patience` until no call is in flight, then cuts the rest and returns their number.
    pub(crate) async fn drain(&self, patience: Duration) -> usize {
        let empty = async {
            loop {
                let ended = self.ended.notified();
                tokio::pin!(ended);
                ended.as_mut().enable();
                if self.open() == 0 {
                    return;
                }
                ended.await;
            }
        };
        if tokio::time::timeout(patience, empty).await.is_ok() {
            return 0;
        }
        let left = self.open();
        self.cut.send_replace(true);
        left
    }
}

impl Flight {
    /// Resolves when the call must be cut.
    pub(crate) fn cut(&self) -> impl Future<Output = ()> + Send + 'static {
        let mut cut = self.0.cut.subscribe();
        async move {
            if cut.wait_for(|cut| *cut).await.is_err() {
                // The sender exists as long as a call is in flight.
                std::future::pending::<()>().await;
            }
        }
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        if self.0.open.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.0.ended.notify_waiters();
        }
    }
}

/// Resolves when a call must be cut.
pub(crate) type Cut = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Cuts a call on a version that was rolled back; has no effect on other calls.
pub(crate) struct Cutter(pub(crate) Option<Cut>);

impl Cutter {
    /// A cutter for one call; `drains` is whether calls on its route are cut.
    pub(crate) fn of(flight: &Flight, drains: bool) -> Self {
        Self(drains.then(|| Box::pin(flight.cut()) as Cut))
    }

    /// Waits for `what`, unless the call is cut first.
    pub(crate) async fn unless<T>(&mut self, what: impl Future<Output = Result<T, Cause>>) -> Result<T, Cause> {
        let Some(cut) = &mut self.0 else { return what.await };
        tokio::select! {
            done = what => done,
            () = cut => Err(Cause::Cut),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn calls_that_end_in_time_are_not_cut() {
        let flights = Arc::new(Flights::default());
        let flight = flights.enter(1).unwrap();
        assert!(flights.enter(1).is_none() && flights.open() == 1);
        let draining = tokio::spawn({
            let flights = Arc::clone(&flights);
            async move { flights.drain(Duration::from_secs(30)).await }
        });
        tokio::task::yield_now().await;
        drop(flight);
        assert_eq!(draining.await.unwrap(), 0);
    }

    #[tokio::test]
    async fn remaining_calls_are_cut() {
        let flights = Arc::new(Flights::default());
        let flight = flights.enter(usize::MAX).unwrap();
        let cut = tokio::spawn(flight.cut());
        assert_eq!(flights.drain(Duration::from_millis(1)).await, 1);
        cut.await.unwrap();
        flight.cut().await;
    }
}
