//! State shared by the parts of a router. The data plane only reads it; the consumer of the routing log owns the tables.

pub(crate) mod gauges;
pub(crate) mod in_flight;
pub(crate) mod responses;
mod switch;

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicI32, AtomicI64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use serin_access::Writers;
use serin_schemas::ids::{EventTime, Generation};
use tokio::sync::Semaphore;

use crate::{
    body::request::Budget as Room,
    clock::Clock,
    config::{Config, ConfigError, ModelConfig},
    content::{examples::Budget, seen::Names},
    events::Events,
    metrics::Metrics,
    protocol::Paths,
    state::{
        in_flight::{Arrival, Flying},
        responses::Responses,
        switch::Switch,
    },
    tables::table::{Table, Tables},
    upstream::servers::Rules,
};

/// Source of 64 random bits for each request.
pub type Chance = Arc<dyn Fn() -> u64 + Send + Sync>;

/// Shared by all parts of a router.
pub(crate) struct Shared {
    config: ArcSwap<Config>,
    /// The writers that may send feedback and events.
    pub(crate) writers: ArcSwap<Writers>,
    pub(crate) clock: Arc<Clock>,
    pub(crate) tables: ArcSwap<Tables>,
    /// Held while the tables change.
    publishing: Mutex<()>,
    pub(crate) events: Events,
    pub(crate) switch: Switch,
    pub(crate) metrics: Arc<Metrics>,
    /// Which models own which plain paths.
    pub(crate) paths: ArcSwap<Paths>,
    pub(crate) chance: Chance,
    pub(crate) calls: Arc<Semaphore>,
    /// Memory budget for request bodies that are held.
    pub(crate) held: Room,
    /// Which version keeps which response.
    pub(crate) responses: Arc<Responses>,
    /// Number of open connections from callers.
    pub(crate) connected: AtomicUsize,
    pub(crate) flying: Arc<Flying>,
    /// Whether the router is shutting down: it reports itself as not ready and closes connections after their answer.
    pub(crate) leaving: AtomicBool,
    /// Whether the routing log has been read to its end once.
    pub(crate) caught_up: AtomicBool,
    /// The newest tables that cannot be used, by model.
    refused: Mutex<BTreeMap<String, Refused>>,
    /// Why the routing log cannot be read now, and since when (steady time).
    log_away: Mutex<Option<(Duration, String)>>,
    /// Names of the labels seen in feedback.
    pub(crate) labels: Names,
    /// Examples kept in the current minute, per model.
    pub(crate) examples: Mutex<HashMap<String, Budget>>,
    /// Partitions of `router-status`; 0 before the log is connected.
    pub(crate) status_partitions: AtomicI32,
    /// How far this machine's clock is ahead of the log's, in milliseconds; 0 if within the tolerance.
    pub(crate) clock_off_ms: AtomicI64,
    /// Runtime on which other threads spawn tasks.
    pub(crate) runtime: tokio::runtime::Handle,
    /// Steady time at startup.
    started: Duration,
}

/// A table that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refused {
    /// The generation of the table; 0 if the record could not be read.
    pub(crate) generation: Generation,
    /// Why the table cannot be used.
    pub(crate) reason: String,
}

/// The parts from which a router is built at startup.
pub(crate) struct Parts {
    pub(crate) config: Config,
    pub(crate) writers: Writers,
    pub(crate) clock: Arc<Clock>,
    pub(crate) tables: Tables,
    pub(crate) events: Events,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) chance: Chance,
}

impl Parts {
    /// Builds the shared state on the caller's runtime.
    pub(crate) fn build(self) -> Shared {
        let Self { config, writers, clock, tables, events, metrics, chance } = self;
        Shared {
            tables: ArcSwap::from_pointee(tables),
            publishing: Mutex::default(),
            events,
            switch: Switch::open(&config.data_dir),
            paths: ArcSwap::from_pointee(Paths::of(&config)),
            chance,
            calls: Arc::new(Semaphore::new(config.limits.in_flight)),
            responses: Arc::new(Responses::new(config.limits.responses)),
            held: Room::new(usize::try_from(config.limits.held).unwrap_or(usize::MAX)),
            connected: AtomicUsize::new(0),
            flying: Arc::new(Flying::default()),
            leaving: AtomicBool::new(false),
            caught_up: AtomicBool::new(false),
            refused: Mutex::default(),
            log_away: Mutex::default(),
            labels: Names::default(),
            examples: Mutex::default(),
            status_partitions: AtomicI32::new(0),
            clock_off_ms: AtomicI64::new(0),
            runtime: tokio::runtime::Handle::current(),
            started: clock.source().steady(),
            clock,
            metrics,
            writers: ArcSwap::from_pointee(writers),
            config: ArcSwap::from_pointee(config),
        }
    }
}

/// The consequence of losing the name, and the fix.
pub(crate) const NAME_LOST: &str = "only the newer process is counted, so this one no longer reports its calls: give each router its \
                                    own `router.name`, or none, and restart this one";

/// How long a router without the routing log waits before it reports itself as ready with the tables on disk.
const LOG_WAIT: Duration = Duration::from_secs(5);

impl Shared {
    /// The table of a model.
    pub(crate) fn table(&self, model: &str) -> Option<Arc<Table>> {
        self.tables.load().0.get(model).cloned()
    }

    /// The current configuration.
    pub(crate) fn config(&self) -> Arc<Config> {
        self.config.load_full()
    }

    /// The configuration of a model.
    pub(crate) fn known(&self, model: &str) -> Option<ModelConfig> {
        self.config().models.get(model).cloned()
    }

    /// Changes the tables atomically: every request sees all of a change or none of it.
    pub(crate) fn publish(&self, change: impl FnOnce(&mut Tables)) {
        let _one = self.publishing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut tables = Tables::clone(&self.tables.load());
        change(&mut tables);
        self.tables.store(Arc::new(tables));
    }

    /// Applies those changes of the configuration that a running router can take over, and compiles the tables again.
    pub(crate) fn reload(&self, mut new: Config) -> Result<(), ConfigError> {
        if new.name.is_empty() {
            // The name was chosen at startup.
            new.name.clone_from(&self.config().name);
        }
        new.check()?;
        self.config().check_reload(&new)?;
        new.log_doubts();
        // Even if the configuration did not change, a token file may have.
        let writers = Writers::load(&new.writers).map_err(ConfigError)?;
        self.paths.store(Arc::new(Paths::of(&new)));
        let new = Arc::new(new);
        self.config.store(Arc::clone(&new));
        self.writers.store(Arc::new(writers));
        self.publish(|tables| tables.reconfigure(&new));
        Ok(())
    }

    /// Fails with the reason if the router cannot serve.
    pub(crate) fn ready(&self) -> Result<(), String> {
        if self.leaving.load(Ordering::Relaxed) {
            return Err("the router is shutting down".to_owned());
        }
        if self.events.has_lost_name() {
            return Err(format!(
                "another process writes under the router's name, {:?}; {NAME_LOST}",
                self.events.name()
            ));
        }
        if self.caught_up.load(Ordering::Relaxed) {
            return Ok(());
        }
        let waited = self.clock.source().steady().saturating_sub(self.started);
        if waited >= LOG_WAIT && !self.tables.load().0.is_empty() {
            return Ok(());
        }
        Err("the routing log has not been read to its end yet".to_owned())
    }

    /// Records that the newest table of a model cannot be used, or that it can.
    pub(crate) fn refuse(&self, model: &str, refused: Option<Refused>) {
        let mut all = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        match refused {
            Some(refused) => drop(all.insert(model.to_owned(), refused)),
            None => drop(all.remove(model)),
        }
    }

    /// Records that the newest record of a model can be read again.
    pub(crate) fn read_again(&self, model: &str) {
        let mut all = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        if all.get(model).is_some_and(|refused| refused.generation == Generation(0)) {
            all.remove(model);
        }
    }

    /// The tables that cannot be used, by model.
    pub(crate) fn refusals(&self) -> BTreeMap<String, Refused> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Records that the routing log is unavailable, or available again.
    pub(crate) fn log_is_away(&self, why: Option<String>) {
        let mut away = self.log_away.lock().unwrap_or_else(PoisonError::into_inner);
        let since = away.as_ref().map_or_else(|| self.clock.source().steady(), |(since, _)| *since);
        *away = why.map(|why| (since, why));
    }

    /// Details for `/readyz`: one sentence each, and whether it is good news.
    pub(crate) fn details(&self) -> Vec<(bool, String)> {
        let now = self.clock.source().steady();
        let mut details = Vec::new();
        let away = self.log_away.lock().unwrap_or_else(PoisonError::into_inner).clone();
        details.push(match away {
            Some((since, why)) => {
                (false, format!("routing log: unavailable for {} s ({why})", now.saturating_sub(since).as_secs()))
            }
            None if self.caught_up.load(Ordering::Relaxed) => (true, "routing log: read to its end".to_owned()),
            None => (false, "routing log: not read to its end yet".to_owned()),
        });
        let off_ms = self.clock_off_ms.load(Ordering::Relaxed);
        if off_ms != 0 {
            let (seconds, way) = (off_ms.abs() / 1000, if off_ms < 0 { "behind" } else { "ahead of" });
            details.push((
                false,
                format!("clock: {seconds} s {way} the log's; its events may be late, and promotion waits: correct this machine's clock"),
            ));
        }
        if self.switch.is_on() {
            details.push((false, "the switch `all stable` is on".to_owned()));
        }
        let dropped: i64 = self.events.drops().iter().map(|drop| drop.dropped).sum();
        if dropped > 0 {
            details.push((false, format!("{dropped} events were dropped: the log could not take them")));
        }
        let tables = self.tables.load();
        for (model, refused) in self.refusals() {
            let goes_on = match tables.0.get(&model).map(|table| table.record.generation) {
                None => "the model has no other table, and its calls are answered with 404".to_owned(),
                Some(Generation(0)) => "all calls follow the configuration".to_owned(),
                // A record that cannot be read does not invalidate the table before it.
                Some(older) if refused.generation == Generation(0) => format!("generation {older} stays in use"),
                Some(older) => format!("all calls go to stable of generation {older}"),
            };
            let Refused { generation, reason } = refused;
            let which = match generation {
                Generation(0) => "the newest table".to_owned(),
                generation => format!("the table of generation {generation}"),
            };
            details.push((false, format!("{model}: {which} cannot be used ({reason}); {goes_on}")));
        }
        let mut models: Vec<_> = tables.0.iter().collect();
        models.sort_by_key(|(model, _)| *model);
        for (model, table) in models {
            if table.canary_end > 0 && table.lease.expired(now) {
                details.push((false, format!("{model}: its table has no valid lease, all calls go to stable")));
            }
            for route in table.canary.iter().chain(table.shadows.iter().map(|shadow| &shadow.route)) {
                if let Some(shed) = route.servers.shed() {
                    let version = route.version.in_words();
                    details.push((false, format!("{model}: {version} is not called for a while: {}", shed.cause)));
                }
            }
        }
        details
    }

    /// Partitions of `router-status`; 0 before the log is connected.
    pub(crate) fn status_partitions(&self) -> i32 {
        self.status_partitions.load(Ordering::Relaxed)
    }

    /// The limits and ejection rules of a version's servers.
    pub(crate) fn server_rules(&self, last_resort: bool) -> Rules {
        let config = self.config.load();
        Rules { in_flight: config.limits.per_server, ejection: config.ejection, last_resort }
    }

    /// A call has arrived. In replay mode the clock waits for it from now on.
    pub(crate) fn arrive(self: &Arc<Self>, at: EventTime) -> Arrival {
        let flying = self.clock.is_replay().then_some(&self.flying);
        Arrival::new(at, flying, &self.metrics, &self.calls)
    }
}

/// Counts one connection of a caller while it is open.
pub(crate) struct Connected(Arc<Shared>);

impl Connected {
    pub(crate) fn new(shared: &Arc<Shared>) -> Self {
        shared.connected.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(shared))
    }
}

impl Drop for Connected {
    fn drop(&mut self) {
        self.0.connected.fetch_sub(1, Ordering::Relaxed);
    }
}
