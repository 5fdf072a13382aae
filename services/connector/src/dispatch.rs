//! Carries out deliveries: one worker per destination, so that one that hangs delays no other.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{Request, Response};
use serin_spec::units::Duration as Span;
use serin_stream::{
    clock::{Clock as _, SystemClock},
    fold::FoldFactory,
};
use tokio::{sync::Notify, task::JoinHandle};

use crate::{
    config::Loaded,
    courier::{Answer, Courier, Due, Finished, Next},
    metrics::Shown,
    request::{answer, request},
};

/// How often the end of the folds' work is checked.
const LOOK: Duration = Duration::from_millis(20);

/// The desks of all destinations, in the order of their names. Folds put deliveries there and take results from there.
#[derive(Debug)]
pub(crate) struct Desks {
    by_name: BTreeMap<String, Arc<Desk>>,
    owners: AtomicU64,
    /// Whether the workers end: no further call is made.
    ending: Arc<AtomicBool>,
}

/// The deliveries of one destination, shared by its worker and the folds.
#[derive(Debug)]
pub(crate) struct Desk {
    pub(crate) destination: Loaded,
    courier: Mutex<Courier>,
    wake: Notify,
    shown: Shown,
}

impl Desks {
    pub(crate) fn new(destinations: Vec<Loaded>, give_up_after: Span) -> Arc<Self> {
        let desk = |destination: Loaded| {
            let courier = Mutex::new(Courier::new(give_up_after.0.0 / 1_000));
            let shown = Shown::new(&destination.name);
            (destination.name.clone(), Arc::new(Desk { destination, courier, wake: Notify::new(), shown }))
        };
        Arc::new(Self {
            by_name: destinations.into_iter().map(desk).collect(),
            owners: AtomicU64::new(0),
            ending: Arc::default(),
        })
    }

    /// All destinations.
    pub(crate) fn destinations(&self) -> impl Iterator<Item = &Loaded> {
        self.by_name.values().map(|desk| &desk.destination)
    }

    /// Whether a destination is configured.
    pub(crate) fn has(&self, destination: &str) -> bool {
        self.by_name.contains_key(destination)
    }

    /// A new owner of deliveries, for a fold.
    pub(crate) fn owner(&self) -> u64 {
        self.owners.fetch_add(1, Ordering::Relaxed)
    }

    /// Hands committed deliveries over, in order. Those of a destination that is not configured are ignored.
    pub(crate) fn hand(&self, owner: u64, due: Vec<Due>) {
        let mut by_destination: BTreeMap<String, Vec<Due>> = BTreeMap::new();
        for due in due {
            by_destination.entry(due.delivery.destination.clone()).or_default().push(due);
        }
        for (name, due) in by_destination {
            if let Some(desk) = self.by_name.get(&name) {
                desk.with(|courier| courier.add(owner, due));
                desk.wake.notify_one();
            }
        }
    }

    /// Forgets the deliveries of a fold.
    pub(crate) fn forget(&self, owner: u64) {
        for desk in self.by_name.values() {
            desk.with(|courier| courier.forget(owner));
        }
    }

    /// Takes the results of a fold's deliveries.
    pub(crate) fn finished(&self, owner: u64) -> Vec<Finished> {
        self.by_name.values().flat_map(|desk| desk.with(|courier| courier.take_finished(owner))).collect()
    }

    /// Asks the workers to end after the call that is under way.
    fn end(&self) {
        self.ending.store(true, Ordering::Relaxed);
        self.by_name.values().for_each(|desk| desk.wake.notify_one());
    }

    /// Whether the folds have taken all results.
    fn is_settled(&self) -> bool {
        self.by_name.values().all(|desk| desk.with(|courier| courier.is_settled()))
    }

    /// The next step of a destination's worker.
    #[cfg(test)]
    pub(crate) fn next(&self, destination: &str, now_ms: i64) -> Next {
        self.by_name[destination].with(|courier| courier.next(now_ms))
    }

    /// Records an answer of a destination.
    #[cfg(test)]
    pub(crate) fn answered(&self, destination: &str, now_ms: i64, answer: Answer) {
        self.by_name[destination].with(|courier| courier.answered(now_ms, answer));
    }
}

impl Desk {
    fn with<T>(&self, act: impl FnOnce(&mut Courier) -> T) -> T {
        let mut courier: MutexGuard<'_, Courier> = self.courier.lock().unwrap_or_else(PoisonError::into_inner);
        let was_open = courier.is_open();
        let result = act(&mut courier);
        let (depth, is_open) = (courier.depth(), courier.is_open());
        drop(courier);
        self.shown.set(depth, is_open);
        let destination = &self.destination.name;
        if !was_open && is_open {
            tracing::warn!(
                destination,
                waiting = depth,
                "a destination fails; it is tried at long intervals until it works"
            );
        }
        if was_open && !is_open {
            tracing::info!(destination, waiting = depth, "a destination works again");
        }
        result
    }
}

/// Starts the worker of each destination.
pub(crate) fn start<S, F>(desks: &Desks, send: &S) -> Vec<JoinHandle<()>>
where
    S: Fn(Request<Bytes>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Result<Response<()>, String>> + Send + 'static,
{
    let work = |desk: &Arc<Desk>| work(Arc::clone(desk), Arc::clone(&desks.ending), send.clone());
    desks.by_name.values().map(|desk| tokio::spawn(work(desk))).collect()
}

async fn work<S, F>(desk: Arc<Desk>, ending: Arc<AtomicBool>, send: S)
where
    S: Fn(Request<Bytes>) -> F + Send + Sync,
    F: Future<Output = Result<Response<()>, String>> + Send,
{
    let clock = SystemClock::default();
    while !ending.load(Ordering::Relaxed) {
        match desk.with(|courier| courier.next(clock.now_ms())) {
            Next::Send(delivery) => {
                let came = match request(&desk.destination, &delivery, clock.now_ms()) {
                    Ok(request) => answer(send(request).await),
                    Err(why) => Answer::NoAnswer(why),
                };
                match &came {
                    Answer::Status { status: 200..=299, .. } => {
                        tracing::debug!(destination = desk.destination.name, delivery = delivery.id, "delivered");
                    }
                    Answer::Status { status, .. } => {
                        tracing::warn!(
                            destination = desk.destination.name,
                            delivery = delivery.id,
                            status,
                            "not accepted"
                        );
                    }
                    Answer::NoAnswer(why) => {
                        tracing::warn!(destination = desk.destination.name, delivery = delivery.id, why, "no answer");
                    }
                }
                desk.with(|courier| courier.answered(clock.now_ms(), came));
            }
            Next::At(at_ms) => {
                let wait = Duration::from_millis(at_ms.saturating_sub(clock.now_ms()).max(1) as u64);
                tokio::select! {
                    () = tokio::time::sleep(wait) => (),
                    () = desk.wake.notified() => (),
                }
            }
            Next::Idle => desk.wake.notified().await,
        }
    }
}

/// The running workers, and the factory of the connector's folds.
pub struct Handle {
    factory: Arc<dyn FoldFactory>,
    desks: Arc<Desks>,
    workers: Vec<JoinHandle<()>>,
}

impl Handle {
    pub(crate) fn new(factory: Arc<dyn FoldFactory>, desks: Arc<Desks>, workers: Vec<JoinHandle<()>>) -> Self {
        Self { factory, desks, workers }
    }

    /// The connector's folds.
    pub fn factory(&self) -> Arc<dyn FoldFactory> {
        Arc::clone(&self.factory)
    }

    /// Ends the workers after the calls that are under way, and waits until the folds have their results. What is not done within
    /// `limit` is done again after the next start, with the same id. Stop the folds afterwards.
    pub async fn stop(self, limit: Duration) {
        let deadline = Instant::now() + limit;
        self.desks.end();
        for mut worker in self.workers {
            let left = deadline.saturating_duration_since(Instant::now());
            if tokio::time::timeout(left, &mut worker).await.is_err() {
                worker.abort();
            }
        }
        while !self.desks.is_settled() && Instant::now() < deadline {
            tokio::time::sleep(LOOK).await;
        }
    }
}
