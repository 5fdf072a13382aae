//! What the parts of a router share. The data plane only reads it; the table consumer owns the tables.

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
    /// Who may put evidence on the log.
    pub(crate) writers: ArcSwap<Writers>,
    pub(crate) clock: Arc<Clock>,
    pub(crate) tables: ArcSwap<Tables>,
    /// Held while the tables change.
    publishing: Mutex<()>,
    pub(crate) events: Events,
    pub(crate) switch: Switch,
    pub(crate) metrics: Arc<Metrics>,
    /// The models of plain paths.
    pub(crate) paths: ArcSwap<Paths>,
    pub(crate) chance: Chance,
    pub(crate) calls: Arc<Semaphore>,
    /// Memory for request bodies that wait.
    pub(crate) held: Room,
    /// Which version keeps which response.
    pub(crate) responses: Arc<Responses>,
    /// Connections of callers.
    pub(crate) connected: AtomicUsize,
    pub(crate) flying: Arc<Flying>,
    /// It is shutting down: readiness is gone, connections are closed after their answer.
    pub(crate) leaving: AtomicBool,
    /// The routing log was read to its end once.
    pub(crate) caught_up: AtomicBool,
    /// The newest tables that cannot be used, by model.
    pub(crate) refused: Mutex<BTreeMap<String, Refused>>,
    /// Why the routing log cannot be read now, since when (steady time).
    pub(crate) log_away: Mutex<Option<(Duration, String)>>,
    /// Names of the labels in feedback that came.
    pub(crate) labels: Names,
    /// Examples kept in this minute, per model.
    pub(crate) examples: Mutex<HashMap<String, Budget>>,
    /// Partitions of `router-status`; 0 before the log is connected.
    pub(crate) status_partitions: AtomicI32,
    /// How far this machine's clock is ahead of the log's, in milliseconds; 0: no further than is tolerated.
    pub(crate) clock_off_ms: AtomicI64,
    /// Where tasks of other threads run.
    pub(crate) runtime: tokio::runtime::Handle,
    /// Steady time of the start.
    pub(crate) started: Duration,
}

/// A table that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refused {
    /// Its generation; 0: the record could not be read.
    pub(crate) generation: Generation,
    /// Why.
    pub(crate) reason: String,
}

/// What a router is made of when it starts.
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
    /// Puts them together, on the runtime of the caller.
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

/// What it means to have lost the name, and the way out.
pub(crate) const NAME_LOST: &str = "only the newer process counts, so this one no longer reports its calls: give each router a \
                                    `router.name` of its own, or none, and start this one again";

/// How long a router waits for the routing log before it counts as ready with what it has on disk.
const PATIENCE: Duration = Duration::from_secs(5);

impl Shared {
    /// The table of a model.
    pub(crate) fn table(&self, model: &str) -> Option<Arc<Table>> {
        self.tables.load().0.get(model).cloned()
    }

    /// The configuration as it is now.
    pub(crate) fn config(&self) -> Arc<Config> {
        self.config.load_full()
    }

    /// What the configuration knows of a model.
    pub(crate) fn known(&self, model: &str) -> Option<ModelConfig> {
        self.config().models.get(model).cloned()
    }

    /// Changes the tables as a whole: every request sees all of a change or nothing of it.
    pub(crate) fn publish(&self, change: impl FnOnce(&mut Tables)) {
        let _one = self.publishing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut tables = Tables::clone(&self.tables.load());
        change(&mut tables);
        self.tables.store(Arc::new(tables));
    }

    /// Takes over what of a configuration can change while the router runs, and compiles the tables anew.
    pub(crate) fn reload(&self, mut new: Config) -> Result<(), ConfigError> {
        if new.name.is_empty() {
            // It was chosen at the start.
            new.name.clone_from(&self.config().name);
        }
        new.check()?;
        self.config().check_reload(&new)?;
        new.say_doubts();
        // Also when nothing changed here: a token file may have.
        let writers = Writers::load(&new.writers).map_err(ConfigError)?;
        self.paths.store(Arc::new(Paths::of(&new)));
        let new = Arc::new(new);
        self.config.store(Arc::clone(&new));
        self.writers.store(Arc::new(writers));
        self.publish(|tables| tables.reconfigure(&new));
        Ok(())
    }

    /// Whether it can serve, and if not, why.
    pub(crate) fn ready(&self) -> Result<(), String> {
        if self.leaving.load(Ordering::Relaxed) {
            return Err("it is shutting down".to_owned());
        }
        if self.events.has_lost_name() {
            return Err(format!("another process writes under its name, {:?}; {NAME_LOST}", self.events.name()));
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

    /// Notes that the newest table of a model cannot be used, or that it can.
    pub(crate) fn refuse(&self, model: &str, refused: Option<Refused>) {
        let mut all = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        match refused {
            Some(refused) => drop(all.insert(model.to_owned(), refused)),
            None => drop(all.remove(model)),
        }
    }

    /// Notes that the newest record of a model can be read again, whatever becomes of it.
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

    /// Notes that the routing log is away, or there again.
    pub(crate) fn log_is_away(&self, why: Option<String>) {
        let mut away = self.log_away.lock().unwrap_or_else(PoisonError::into_inner);
        let since = away.as_ref().map_or_else(|| self.clock.source().steady(), |(since, _)| *since);
        *away = why.map(|why| (since, why));
    }

    /// What there is to say beside whether it is ready: good news and bad, a sentence each.
    pub(crate) fn details(&self) -> Vec<(bool, String)> {
        let now = self.clock.source().steady();
        let mut details = Vec::new();
        let away = self.log_away.lock().unwrap_or_else(PoisonError::into_inner).clone();
        details.push(match away {
            Some((since, why)) => {
                (false, format!("routing log: away for {} s ({why})", now.saturating_sub(since).as_secs()))
            }
            None if self.caught_up.load(Ordering::Relaxed) => (true, "routing log: read to its end".to_owned()),
            None => (false, "routing log: not read to its end yet".to_owned()),
        });
        let off_ms = self.clock_off_ms.load(Ordering::Relaxed);
        if off_ms != 0 {
            let (seconds, way) = (off_ms.abs() / 1000, if off_ms < 0 { "behind" } else { "ahead of" });
            details.push((
                false,
                format!("clock: {seconds} s {way} the log's; its events may be late, and promotion waits: set this clock right"),
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
                None => "it has no other one, and answers 404".to_owned(),
                Some(Generation(0)) => "all goes where the configuration says".to_owned(),
                // What cannot be read says nothing of the one before.
                Some(older) if refused.generation == Generation(0) => format!("it goes on with generation {older}"),
                Some(older) => format!("all is on stable of generation {older}"),
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
                details.push((false, format!("{model}: its table has no lease, all is on stable")));
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

    /// What the servers of a version are held to.
    pub(crate) fn server_rules(&self, last_resort: bool) -> Rules {
        let config = self.config.load();
        Rules { in_flight: config.limits.per_server, ejection: config.ejection, last_resort }
    }

    /// A call has arrived: in replay mode the clock waits for it from now on.
    pub(crate) fn arrive(self: &Arc<Self>, at: EventTime) -> Arrival {
        let flying = self.clock.is_replay().then_some(&self.flying);
        Arrival::new(at, flying, &self.metrics, &self.calls)
    }
}

/// Counts one connection of a caller.
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
