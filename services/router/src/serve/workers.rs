//! The threads that serve calls. Each thread has its own runtime and its own connections to upstreams, so a call stays on one thread from
//! its first byte to its last, without handover and without waiting for another processor.

use std::{io, sync::Arc, thread};

use rustls::{ClientConfig, ServerConfig};
use tokio::{
    net::TcpStream,
    runtime::{Builder, Runtime},
    sync::{OwnedSemaphorePermit, mpsc, oneshot, watch},
    task::JoinSet,
    time::{Duration, MissedTickBehavior, interval},
};

use crate::{
    call::worker::{Peer, Worker},
    config::{Config, span},
    serve::connection,
    state::{Connected, Shared},
    upstream::clients::Upstreams,
};

/// An accepted connection.
pub(super) struct Caller {
    pub(super) stream: std::net::TcpStream,
    pub(super) tls: Option<Arc<ServerConfig>>,
    pub(super) peer: Peer,
    pub(super) stop: watch::Receiver<Option<Duration>>,
    pub(super) place: Option<OwnedSemaphorePermit>,
    pub(super) connected: Connected,
}

/// The running threads.
pub(crate) struct Workers {
    senders: Vec<mpsc::UnboundedSender<Caller>>,
    ended: Vec<oneshot::Receiver<()>>,
    cut: watch::Sender<bool>,
}

impl Workers {
    /// Starts the configured number of threads.
    pub(crate) fn start(shared: &Arc<Shared>, tls: &ClientConfig) -> io::Result<Self> {
        let config = shared.config();
        let processors = || thread::available_parallelism().map_or(1, usize::from);
        let count = if config.workers == 0 { processors() } else { config.workers };
        let mut workers = Self { senders: Vec::new(), ended: Vec::new(), cut: watch::Sender::new(false) };
        for index in 0..count {
            let (sender, callers) = mpsc::unbounded_channel();
            let (end, ended) = oneshot::channel::<()>();
            let worker = Arc::new(Worker::new(Arc::clone(shared), Upstreams::new(&config, tls)));
            let runtime = Builder::new_current_thread().enable_all().build()?;
            let cut = workers.cut.subscribe();
            let run = move || {
                run(&runtime, &worker, callers, cut);
                drop((runtime, worker, end));
            };
            thread::Builder::new().name(format!("router-worker-{index}")).spawn(run)?;
            workers.senders.push(sender);
            workers.ended.push(ended);
        }
        Ok(workers)
    }

    /// The channels of the workers, which get connections in turn.
    pub(super) fn senders(&self) -> Vec<mpsc::UnboundedSender<Caller>> {
        self.senders.clone()
    }

    /// Waits until the last connection has ended. New connections are no longer accepted.
    pub(super) async fn finished(&mut self) {
        self.senders.clear();
        for ended in &mut self.ended {
            // The sender is dropped when its thread ends.
            let _ = ended.await;
        }
    }

    /// Closes the remaining connections.
    pub(super) fn cut(&self) {
        self.cut.send_replace(true);
    }
}

/// Runs one worker.
fn run(
    runtime: &Runtime,
    worker: &Arc<Worker>,
    mut callers: mpsc::UnboundedReceiver<Caller>,
    mut cut: watch::Receiver<bool>,
) {
    runtime.block_on(async {
        let config = worker.shared.config();
        let builder = connection::builder(&config);
        let mut connections = JoinSet::new();
        let mut sweep = interval(sweep_every(&config));
        sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let serve = async {
            loop {
                tokio::select! {
                    caller = callers.recv() => match caller {
                        Some(caller) => drop(connections.spawn(welcome(Arc::clone(worker), builder.clone(), caller))),
                        None => break,
                    },
                    Some(_) = connections.join_next() => {}
                    _ = sweep.tick() => worker.upstreams.sweep(),
                }
            }
            while connections.join_next().await.is_some() {}
            let mut copies = worker.copies();
            while copies.join_next().await.is_some() {}
        };
        tokio::select! {
            () = serve => {}
            // Also completes when the router was dropped.
            _ = cut.wait_for(|cut| *cut) => {}
        }
        // The guards report before the thread ends, so no event follows the leaving heartbeat.
        connections.shutdown().await;
        worker.copies().shutdown().await;
    });
}

/// Interval for closing idle connections, short enough that they are not kept much longer than configured.
fn sweep_every(config: &Config) -> Duration {
    (span(config.timeouts.pool_idle) / 2).clamp(Duration::from_millis(10), Duration::from_secs(1))
}

async fn welcome(worker: Arc<Worker>, builder: connection::Builder, caller: Caller) {
    let Caller { stream, tls, peer, stop, place, connected } = caller;
    match TcpStream::from_std(stream) {
        Ok(stream) => connection::serve(worker, builder, stream, tls, peer, stop).await,
        Err(error) => tracing::warn!(%error, "a connection could not be served"),
    }
    drop((place, connected));
}
