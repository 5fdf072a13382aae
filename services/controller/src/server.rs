//! Starts and stops the API.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
};

use serin_listener::{Certificate, CertificateError, Listener, PROTOCOLS, Sockets};
use serin_stream::{
    clock::{Clock, SystemClock},
    fold::FoldFactory,
    log::{Log, LogError},
};
use tokio::sync::{oneshot, watch};

use crate::{
    api::{ApiState, api},
    config::{Config, ConfigError},
    fold::{ControllerFactory, RoutingTopic},
    metrics,
    policies::Policies,
    verbs::Verbs,
    view::{View, follow},
};

/// Maximum number of commands that are queued for writing.
const QUEUE: usize = 1024;

/// The API could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration is invalid.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The log is unavailable.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The address is in use, or does not belong to this host.
    #[error("the controller's API cannot listen on {address}: {cause}; set controller.listen to another address")]
    Listen {
        /// The address that cannot be used.
        address: SocketAddr,
        /// The error of the operating system.
        cause: io::Error,
    },
    /// The certificate of the address cannot be used.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// No thread could be started.
    #[error("cannot start a thread for the controller's API: {0}")]
    Thread(io::Error),
}

/// Keeps the view of an API up to date until it is dropped.
pub struct Follower {
    thread: Option<JoinHandle<()>>,
    stopping: Arc<AtomicBool>,
}

impl Follower {
    fn start(log: Arc<dyn Log>, history: usize) -> io::Result<(Self, watch::Receiver<Arc<View>>)> {
        let (publish, view) = watch::channel(Arc::new(View::new(history)));
        metrics::observe_view(view.clone());
        let stopping = Arc::new(AtomicBool::new(false));
        let asked = Arc::clone(&stopping);
        let thread = std::thread::Builder::new()
            .name("controller-view".to_owned())
            .spawn(move || follow(&log, &publish, history, &asked))?;
        Ok((Self { thread: Some(thread), stopping }, view))
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::Relaxed);
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::warn!("the API's reader thread panicked");
        }
    }
}

/// All problems of a configuration that can be found without a log and a port, in the settings and in the files that they
/// name. Each problem starts with its setting, without `controller.`.
pub fn problems(config: &Config) -> Vec<String> {
    check(config).err().unwrap_or_default()
}

fn check(config: &Config) -> Result<Policies, Vec<String>> {
    let mut problems = config.problems();
    let policies = Policies::load(&config.policies).map_err(|more| problems.extend(more));
    let tls = config.tls.as_ref().map(|files| Certificate::load("tls", files.clone(), PROTOCOLS));
    problems.extend(tls.and_then(Result::err).map(|error| error.to_string()));
    match policies {
        Ok(policies) if problems.is_empty() => Ok(policies),
        _ => Err(problems),
    }
}

/// Checks the configuration and creates everything of the API except its socket.
pub fn open(config: Config, log: Arc<dyn Log>, clock: Arc<dyn Clock>) -> Result<(ApiState, Follower), StartError> {
    let policies = check(&config).map_err(ConfigError)?;
    let writer = log.writer(QUEUE)?;
    let (follower, view) = Follower::start(Arc::clone(&log), config.history).map_err(StartError::Thread)?;
    Ok((ApiState::new(config, policies, writer, view, clock).reading(log), follower))
}

/// The running API, and the factory of the controller's folds.
pub struct ApiHandle {
    address: SocketAddr,
    factory: Arc<ControllerFactory>,
    state: ApiState,
    follower: Follower,
    stop: oneshot::Sender<()>,
    server: tokio::task::JoinHandle<()>,
    /// The task that watches the certificate's files.
    certificate: Option<tokio::task::JoinHandle<()>>,
}

/// Starts the API on a log whose topics exist, on a socket of `sockets` if one has the API's address. The caller runs the folds; see
/// [`ApiHandle::factory`].
pub async fn start(
    config: Config,
    verbs: Verbs,
    log: Arc<dyn Log>,
    sockets: &mut Sockets,
) -> Result<ApiHandle, StartError> {
    let address = config.listen;
    let (settings, tls) = (config.settings(), config.tls.clone());
    let (state, follower) = open(config, Arc::clone(&log), Arc::new(SystemClock::default()))?;
    let state = state.with_verbs(verbs);
    let listen = |cause| StartError::Listen { address, cause };
    let certificate = tls.map(|files| Certificate::load("controller.tls", files, PROTOCOLS)).transpose()?;
    let socket = sockets.bind(address).await.map_err(listen)?;
    let listener = Listener::new(socket, certificate.as_ref()).map_err(listen)?;
    let address = listener.address();
    let factory = ControllerFactory::new(settings, Arc::new(RoutingTopic(log))).posting_to(state.progress());
    let factory = Arc::new(factory);
    let (stop, stopped) = oneshot::channel::<()>();
    let routes = api(state.clone());
    let server = tokio::spawn(listener.serve(routes, async {
        let _ = stopped.await;
    }));
    let certificate = certificate.map(|certificate| tokio::spawn(certificate.watch(|_| ())));
    Ok(ApiHandle { address, factory, state, follower, stop, server, certificate })
}

impl ApiHandle {
    /// The address on which the API listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The controller's folds.
    pub fn factory(&self) -> Arc<dyn FoldFactory> {
        Arc::<ControllerFactory>::clone(&self.factory)
    }

    /// Returns a check that fails, with the reason, until the API has read the log.
    pub fn readiness(&self) -> impl Fn() -> Result<(), String> + Send + Sync + 'static {
        let state = self.state.clone();
        move || if state.view().caught_up() { Ok(()) } else { Err("the API has not read its topics yet".to_owned()) }
    }

    /// Answers the in-flight requests and ends.
    pub async fn stop(self) {
        let _ = self.stop.send(());
        if let Some(certificate) = &self.certificate {
            certificate.abort();
        }
        // Dropping the follower drops the view's sender, so waiting requests are answered and the server ends.
        if tokio::task::spawn_blocking(move || drop(self.follower)).await.is_err() {
            tracing::warn!("the API's reader could not be stopped");
        }
        let _ = self.server.await;
    }
}
