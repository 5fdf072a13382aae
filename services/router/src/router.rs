//! Starting and stopping a router.

use std::{
    fs, io,
    net::SocketAddr,
    os::fd::{AsFd, OwnedFd},
    path::PathBuf,
    sync::{Arc, atomic::Ordering, mpsc},
    thread,
    time::{Duration, Instant},
};

use foldhash::HashMap;
use serin_access::Writers;
use serin_listener::{Certificate, CertificateError, Listener, PROTOCOLS, Reload, Sockets};
use serin_stream::{log::Log, log_limit::LogLimit};
use tokio::{
    net::TcpListener,
    sync::{oneshot, watch},
    task::JoinHandle,
};

use crate::{
    admin,
    clock::{Clock, TimeSource},
    config::{ClockKind, Config, ConfigError, span},
    events::{Events, incarnation, name},
    log::consumer::Consumer,
    metrics::Metrics,
    serve::{self, Port, workers::Workers},
    state::{Chance, Parts, Shared, gauges},
    tables::{
        disk,
        table::{Lease, Table, Tables},
    },
    upstream::tls::{self, RootsError},
};

/// Why a router could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A port cannot be bound.
    #[error("{setting}: {address} cannot be bound ({cause}); free it or set another address")]
    Bind {
        /// The setting with the address.
        setting: &'static str,
        /// The address that cannot be used.
        address: SocketAddr,
        /// The system's error.
        cause: io::Error,
    },
    /// The certificate of the TLS port cannot be used.
    #[error("{0}")]
    Certificate(#[from] CertificateError),
    /// The trust store or the client certificate for upstreams cannot be used.
    #[error("upstreams over TLS: {0}")]
    Roots(#[from] RootsError),
    /// The directory for tables and the switch cannot be used.
    #[error("data_dir: {folder} cannot be created ({cause}); set a directory that this process may write")]
    Folder {
        /// The path of the directory.
        folder: PathBuf,
        /// The system's error.
        cause: io::Error,
    },
    /// A socket could not be duplicated.
    #[error("a socket of the router could not be duplicated: {0}; raise the limit of open files")]
    Descriptor(io::Error),
    /// A thread could not be started.
    #[error("a thread of the router could not be started: {0}; raise the limit of threads, or lower `workers`")]
    Thread(io::Error),
}

/// Dependencies that are not part of the configuration: time and randomness.
#[derive(Clone)]
pub struct Seams {
    /// Where time comes from.
    pub time: TimeSource,
    /// Source of 64 random bits per call.
    pub chance: Chance,
}

impl Default for Seams {
    fn default() -> Self {
        Self { time: TimeSource::system(), chance: Arc::new(rand::random::<u64>) }
    }
}

/// Longest wait for the log at startup. After it, the router serves with the tables on disk and its configuration.
const LOG_WAIT: Duration = Duration::from_secs(5);

/// Protocols offered to callers over TLS (ALPN), in order of preference.
const CALLERS: &[&str] = &["h2", "http/1.1"];

/// How often a router that shuts down checks whether callers are still connected.
const CHECK_INTERVAL: Duration = Duration::from_millis(10);

/// The data plane.
#[derive(Debug)]
pub struct Router;

/// A running router. Dropping it stops it at once; [`shutdown`](Self::shutdown) lets requests finish.
pub struct RouterHandle {
    shared: Arc<Shared>,
    data_addr: SocketAddr,
    tls_addr: Option<SocketAddr>,
    admin_addr: SocketAddr,
    /// Duplicates of its sockets for a process that replaces it.
    sockets: Vec<OwnedFd>,
    stop_accepting: watch::Sender<bool>,
    stop_serving: watch::Sender<Option<Duration>>,
    serving: JoinHandle<()>,
    admin: JoinHandle<()>,
    background: Vec<JoinHandle<()>>,
    stop_consumer: mpsc::Sender<()>,
    consumer: Option<thread::JoinHandle<()>>,
}

/// All problems of a configuration that can be found without opening a port, in the settings and in the files that they name. Each problem
/// begins with its setting, without `router.`; problems of writers begin with `writers`.
pub fn problems(config: &Config) -> Vec<String> {
    let mut problems = config.check().err().map_or_else(Vec::new, |error| error.0);
    problems.extend(Writers::load(&config.writers).err().unwrap_or_default());
    let tls = config.tls.as_ref().map(|tls| Certificate::load("tls", tls.files(), CALLERS));
    let admin = config.admin_tls.as_ref().map(|files| Certificate::load("admin_tls", files.clone(), PROTOCOLS));
    problems.extend([tls, admin].into_iter().flatten().filter_map(Result::err).map(|error| error.to_string()));
    problems.extend(tls::tls(config).err().map(|error| format!("upstreams over TLS: {error}")));
    problems
}

/// Checks the configuration at startup. It stops at the first problem.
fn check(config: &Config) -> Result<Writers, StartError> {
    config.check()?;
    let writers = Writers::load(&config.writers).map_err(ConfigError)?;
    if let Some(tls) = &config.tls {
        Certificate::load("tls", tls.files(), CALLERS)?;
    }
    if let Some(files) = &config.admin_tls {
        Certificate::load("admin_tls", files.clone(), PROTOCOLS)?;
    }
    tls::tls(config)?;
    Ok(writers)
}

impl Router {
    /// Starts a router on the caller's tokio runtime with the machine's clock.
    pub async fn start(config: Config, log: Arc<dyn Log>) -> Result<RouterHandle, StartError> {
        Self::start_with(config, log, Seams::default()).await
    }

    /// Starts a router with the given sources of time and randomness.
    pub async fn start_with(config: Config, log: Arc<dyn Log>, seams: Seams) -> Result<RouterHandle, StartError> {
        Self::start_on(config, log, seams, &mut Sockets::default(), None).await
    }

    /// Starts a router on those of the `sockets` that have its addresses. It writes under `writer` instead of its name.
    pub async fn start_on(
        mut config: Config,
        log: Arc<dyn Log>,
        seams: Seams,
        sockets: &mut Sockets,
        writer: Option<&str>,
    ) -> Result<RouterHandle, StartError> {
        let writers = check(&config)?;
        fs::create_dir_all(&config.data_dir)
            .map_err(|cause| StartError::Folder { folder: config.data_dir.clone(), cause })?;
        if config.name.is_empty() {
            let chosen = name::choose(&config.data_dir, || (seams.chance)());
            config.name = chosen.map_err(|cause| StartError::Folder { folder: config.data_dir.clone(), cause })?;
        }
        let mut bind = async |setting, address| {
            sockets.bind(address).await.map_err(|cause| StartError::Bind { setting, address, cause })
        };
        let data = bind("listen", config.listen).await?;
        let certificate =
            config.tls.as_ref().map(|tls| Certificate::load("router.tls", tls.files(), CALLERS)).transpose()?;
        let tls = match &config.tls {
            Some(tls) => Some(bind("tls.listen", tls.listen).await?),
            None => None,
        };
        let tls_addr = tls.as_ref().and_then(|listener| listener.local_addr().ok());
        let admin = bind("admin_listen", config.admin_listen).await?;
        let admin_certificate = config
            .admin_tls
            .clone()
            .map(|files| Certificate::load("router.admin_tls", files, PROTOCOLS))
            .transpose()?;
        let admin = Listener::new(admin, admin_certificate.as_ref()).map_err(|cause| StartError::Bind {
            setting: "admin_listen",
            address: config.admin_listen,
            cause,
        })?;
        let started = seams.time.wall();
        let incarnation = incarnation::next(&config.data_dir, started);
        let upstream_tls = tls::tls(&config)?;
        let writer = writer.unwrap_or(&config.name).to_owned();
        let shared = Arc::new(shared(config, writers, seams, &writer, incarnation));
        let (data_addr, admin_addr) = (address(&data, shared.config().listen), admin.address());
        let sockets = [Some(data.as_fd()), tls.as_ref().map(AsFd::as_fd), Some(admin.as_fd())];
        let sockets: io::Result<Vec<OwnedFd>> =
            sockets.into_iter().flatten().map(|socket| socket.try_clone_to_owned()).collect();
        let sockets = sockets.map_err(StartError::Descriptor)?;

        let mut open = [Some(data_addr), tls_addr].into_iter().flatten();
        if let Some(address) = open.find(|address| !address.ip().to_canonical().is_loopback())
            && shared.writers.load().is_empty()
        {
            tracing::warn!(
                %address,
                "feedback and events are refused: the address is reachable from other machines and no `writers` are configured"
            );
        }

        shared.config().log_doubts();
        gauges::observe_shed(&shared);
        gauges::observe_memory(&shared);
        let (stop_consumer, stop) = mpsc::channel();
        let (connected, wait) = oneshot::channel();
        let consumer = Consumer::new(Arc::clone(&shared), log, started, stop, connected);
        let consumer = thread::Builder::new()
            .name("router-tables".to_owned())
            .spawn(move || consumer.run())
            .map_err(StartError::Thread)?;
        if tokio::time::timeout(LOG_WAIT, wait).await.is_err() {
            tracing::warn!("the log is not connected yet; serving with the tables on disk and the configuration");
        }

        let (stop_serving, stop) = watch::channel(None);
        let (stop_accepting, no_more) = watch::channel(false);
        let mut ports = vec![Port { listener: data, at: data_addr, tls: None }];
        if let (Some(listener), Some(at), Some(certificate)) = (tls, tls_addr, &certificate) {
            ports.push(Port { listener, at, tls: Some(certificate.current()) });
        }
        let workers = Workers::start(&shared, &upstream_tls).map_err(StartError::Thread)?;
        let serving = tokio::spawn(serve::listen(Arc::clone(&shared), ports, workers, stop, no_more));
        let routes = admin::routes(Arc::clone(&shared));
        let admin = tokio::spawn(admin.serve(routes, std::future::pending()));
        let mut background = Vec::new();
        for certificate in certificate.into_iter().chain(admin_certificate) {
            let metrics = Arc::clone(&shared.metrics);
            background.push(tokio::spawn(certificate.watch(move |seen| match seen {
                Reload::Loaded => metrics.certificate("loaded"),
                Reload::Unusable => metrics.certificate("unusable"),
            })));
        }
        if !shared.clock.is_replay() {
            background.push(tokio::spawn(heartbeats(Arc::clone(&shared))));
        }
        tracing::info!(%data_addr, %admin_addr, name = %shared.config().name, "router started");
        let consumer = Some(consumer);
        Ok(RouterHandle {
            shared,
            data_addr,
            tls_addr,
            admin_addr,
            sockets,
            stop_accepting,
            stop_serving,
            serving,
            admin,
            background,
            stop_consumer,
            consumer,
        })
    }
}

/// The bound address. It differs from the configured one if the system chose the port.
fn address(listener: &TcpListener, asked: SocketAddr) -> SocketAddr {
    listener.local_addr().unwrap_or(asked)
}

fn shared(config: Config, writers: Writers, seams: Seams, writer: &str, incarnation: i64) -> Shared {
    let clock = Arc::new(Clock::new(seams.time, config.clock == ClockKind::Replay));
    let metrics = Arc::new(Metrics::new());
    let parts = Parts {
        tables: first_tables(&config),
        events: Events::new(writer, incarnation, Arc::clone(&clock), Arc::clone(&metrics)),
        chance: seams.chance,
        writers,
        config,
        clock,
        metrics,
    };
    parts.build()
}

/// The tables before the log has been read: those of the configuration, overridden by unconfirmed tables from disk.
fn first_tables(config: &Config) -> Tables {
    let mut tables = HashMap::default();
    for (model, known) in &config.models {
        match Table::configured(model, known) {
            Ok(table) => drop(tables.insert(model.clone(), Arc::new(table))),
            Err(error) => tracing::warn!(%model, %error, "a model of the configuration cannot be used"),
        }
    }
    for record in disk::load(&config.data_dir) {
        let model = record.model.0.clone();
        match Table::compile(record, Lease::Unconfirmed, config.models.get(&model), 0) {
            Ok(table) => drop(tables.insert(model, Arc::new(table))),
            Err(error) => tracing::warn!(%model, %error, "a table on disk cannot be used; waiting for the log"),
        }
    }
    Tables(tables)
}

/// Writes a heartbeat to every partition at the configured interval.
async fn heartbeats(shared: Arc<Shared>) {
    let mut beat = tokio::time::interval(span(shared.config().heartbeat_every));
    beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let lost = LogLimit::default();
    loop {
        beat.tick().await;
        if let Err(error) = shared.events.heartbeat(None, false)
            && let Some(count) = lost.happened(1)
        {
            tracing::warn!(%error, count, "heartbeats could not be queued");
        }
    }
}

impl RouterHandle {
    /// Where callers connect.
    pub fn data_addr(&self) -> SocketAddr {
        self.data_addr
    }

    /// Where callers connect over TLS.
    pub fn tls_addr(&self) -> Option<SocketAddr> {
        self.tls_addr
    }

    /// Address of the admin API.
    pub fn admin_addr(&self) -> SocketAddr {
        self.admin_addr
    }

    /// The name under which it writes to the log.
    pub fn writer(&self) -> &str {
        self.shared.events.name()
    }

    /// Duplicates of its sockets for a process that replaces it; empty on the second call. Callers can connect as long as they are open.
    pub fn take_sockets(&mut self) -> Vec<OwnedFd> {
        std::mem::take(&mut self.sockets)
    }

    /// Leaves its callers to a process that has taken over its sockets. It accepts no further connections and finishes its calls, each
    /// within its own timeouts.
    pub async fn leave(self) {
        self.stop_accepting.send_replace(true);
        // From here on, the other process answers health checks.
        self.admin.abort();
        let longest = {
            let config = self.shared.config();
            span(config.timeouts.request).max(span(config.timeouts.stream))
        };
        self.shutdown(longest).await;
    }

    /// Fails with the reason if the router cannot serve.
    pub fn ready(&self) -> Result<(), String> {
        self.shared.ready()
    }

    /// Applies those changes of the configuration that a running router can take over. Calls in flight keep the configuration they started
    /// with.
    ///
    /// # Errors
    /// Every problem of the configuration, or every changed key that needs a restart. In these cases nothing has changed.
    pub fn reload(&self, config: Config) -> Result<(), ConfigError> {
        self.shared.reload(config)
    }

    /// A function that returns the same as [`ready`](Self::ready), for the handler of `/readyz`.
    pub fn readiness(&self) -> impl Fn() -> Result<(), String> + Send + Sync + use<> {
        let shared = Arc::clone(&self.shared);
        move || shared.ready()
    }

    /// Stops in order. The router reports itself as not ready. For `lame_duck`, or until no callers are connected, it still accepts
    /// requests and closes each connection after the answer. Requests in flight may then finish until `deadline`. Finally a leaving
    /// heartbeat and all queued events are written to the log.
    pub async fn shutdown(mut self, deadline: Duration) {
        self.shared.leaving.store(true, Ordering::Relaxed);
        self.sockets.clear();
        let lame_duck = span(self.shared.config().timeouts.lame_duck).min(deadline / 2);
        let started = Instant::now();
        while started.elapsed() < lame_duck && self.shared.connected.load(Ordering::Relaxed) > 0 {
            tokio::time::sleep(CHECK_INTERVAL).await;
        }
        self.stop_serving.send_replace(Some(deadline.saturating_sub(started.elapsed())));
        if let Err(error) = (&mut self.serving).await {
            tracing::error!(%error, "the listener for callers ended with an error");
        }
        for task in self.background.iter().chain([&self.admin]) {
            task.abort();
        }
        // The consumer writes its last status when it ends.
        let _ = self.stop_consumer.send(());
        if let Some(consumer) = self.consumer.take() {
            let _ = tokio::task::spawn_blocking(move || consumer.join()).await;
        }
        let low = if self.shared.clock.is_replay() { self.shared.clock.now() } else { None };
        let lost_before = self.shared.events.lost();
        let last = match self.shared.events.heartbeat(low, true) {
            Ok(()) => self.shared.events.flush(lost_before).await,
            Err(error) => Err(error.to_string()),
        };
        if let Err(error) = last {
            tracing::warn!(%error, "the last events may not be on the log");
        }
    }
}

impl Drop for RouterHandle {
    fn drop(&mut self) {
        self.serving.abort();
        for task in self.background.iter().chain([&self.admin]) {
            task.abort();
        }
        let _ = self.stop_consumer.send(());
    }
}
