//! The running roles of this process.

use std::{net::SocketAddr, os::fd::OwnedFd, sync::Arc, time::Duration};

use anyhow::Context as _;
use serin_listener::Sockets;
use serin_router::{Router, RouterHandle, Seams};
use serin_stream::{
    fold::FoldFactory,
    log::Log,
    stage::{Stage, StageHandle, StageHealth, StageOptions},
    store::{MemoryStores, RocksLimits, RocksStores, Stores},
};

use super::{files, log, role::Role};
use crate::{
    http::Http,
    settings::{LogKind, Settings},
    telemetry::Readiness,
    verbs,
};

/// Timeout for a role to stop cleanly: to finish calls in flight and commit folded records.
const STOP_WITHIN: Duration = Duration::from_secs(10);
/// Timeout for calls of the connector that are under way when it stops, and for their results.
const CALL_WITHIN: Duration = Duration::from_secs(3);
/// How often the stages are checked for a failure that needs an operator.
const LOOK: Duration = Duration::from_millis(200);

/// A function that returns the health of a stage.
type Watch = Box<dyn Fn() -> StageHealth + Send + Sync>;

/// The running roles of this process.
pub(crate) struct Running {
    router: Option<RouterHandle>,
    controller: Option<serin_controller::ApiHandle>,
    connector: Option<serin_connector::Handle>,
    stages: Vec<StageHandle>,
    /// Of the stages, in the same order, without a connector that is not alone.
    watches: Vec<Watch>,
    readiness: Vec<(&'static str, Readiness)>,
}

/// Starts `roles` on the log that the settings name, and on the inherited `sockets` with their addresses.
/// `writer`: the name that the router writes under, if it differs from the configured one.
pub(crate) async fn start(
    roles: &[Role],
    settings: &Settings,
    sockets: &mut Sockets,
    writer: Option<&str>,
) -> anyhow::Result<Running> {
    let log = log::open_log(settings)?;
    if settings.log.kind == LogKind::Embedded {
        log.create(&settings.topics())?;
    }
    log::check_topics(log.as_ref(), settings, roles)?;
    let stores: Arc<dyn Stores> = if roles == [Role::Router] {
        // A router has no state of stages, and the process that replaces it must not find the directory locked.
        Arc::new(MemoryStores::default())
    } else {
        let limits = RocksLimits { max_open_files: files::share()?.database, ..RocksLimits::default() };
        let stores = RocksStores::open(&settings.data_dir.0.join("state"), limits);
        Arc::new(stores.context("the directory of local state (data_dir)")?)
    };
    let mut running = Running {
        router: None,
        controller: None,
        connector: None,
        stages: Vec::new(),
        watches: Vec::new(),
        readiness: Vec::new(),
    };
    for role in roles.iter().chain(super::joining(roles, settings)) {
        let started = running.role(*role, settings, (&log, &stores), sockets, writer).await;
        started.with_context(|| format!("starting the {}", role.name()))?;
    }
    Ok(running)
}

impl Running {
    async fn role(
        &mut self,
        role: Role,
        settings: &Settings,
        (log, stores): (&Arc<dyn Log>, &Arc<dyn Stores>),
        sockets: &mut Sockets,
        writer: Option<&str>,
    ) -> anyhow::Result<()> {
        let partitions = settings.topology.partitions;
        match role {
            Role::Router => {
                let router =
                    Router::start_on(router_config(settings), Arc::clone(log), Seams::default(), sockets, writer)
                        .await?;
                self.readiness.push(("router", Arc::new(router.readiness())));
                self.router = Some(router);
            }
            Role::Aggregator => {
                let aggregator = serin_aggregator::AggregatorFactory::new(settings.aggregator.fold.clone(), partitions);
                self.stage(log, stores, Arc::new(aggregator))?;
                let config =
                    serin_intake::IntakeConfig { doors: settings.doors.clone(), ..settings.aggregator.intake.clone() };
                let intake = serin_intake::IntakeFactory::new(config, partitions).prefixed(&settings.topology.prefix);
                self.stage(log, stores, Arc::new(intake))?;
            }
            Role::Analyzer => {
                let analyzer = serin_analyzer::AnalyzerFactory::new(settings.analyzer.clone(), partitions);
                self.stage(log, stores, Arc::new(analyzer))?;
            }
            Role::Controller => {
                let controller =
                    serin_controller::start(settings.controller.clone(), verbs::SERVED, Arc::clone(log), sockets)
                        .await?;
                self.stage(log, stores, controller.factory())?;
                self.readiness.push(("controller api", Arc::new(controller.readiness())));
                self.controller = Some(controller);
            }
            Role::Connector => {
                let config = &settings.connector;
                let timeout = Duration::from_micros(config.timeout.0.0.unsigned_abs());
                let http = Http::new(config.ca_file.as_deref(), timeout).context("connector.ca_file")?;
                let send = move |request| {
                    let http = http.clone();
                    async move { http.head_of_answer(request).await.map_err(|error| error.to_string()) }
                };
                let connector = serin_connector::start(config, log.as_ref(), send)?;
                if self.stages.is_empty() {
                    self.stage(log, stores, connector.factory())?;
                } else {
                    // Within the whole pipeline, the connector's trouble must not keep the router from getting calls.
                    let options = StageOptions::default();
                    let stage = Stage::start(Arc::clone(log), Arc::clone(stores), connector.factory(), options)?;
                    self.stages.push(stage);
                }
                self.connector = Some(connector);
            }
        }
        Ok(())
    }

    fn stage(
        &mut self,
        log: &Arc<dyn Log>,
        stores: &Arc<dyn Stores>,
        factory: Arc<dyn FoldFactory>,
    ) -> anyhow::Result<()> {
        let stage = Stage::start(Arc::clone(log), Arc::clone(stores), factory, StageOptions::default())?;
        let watch = stage.watch();
        self.readiness.push((stage.stage(), Arc::new(move || ready(&watch()))));
        self.watches.push(Box::new(stage.watch()));
        self.stages.push(stage);
        Ok(())
    }

    /// The checks of `/readyz`.
    pub(crate) fn readiness(&self) -> Vec<(&'static str, Readiness)> {
        self.readiness.clone()
    }

    /// The router's sockets and the name that it writes under, for the process that replaces it.
    pub(super) fn take_sockets(&mut self) -> Option<(Vec<OwnedFd>, String)> {
        self.router.as_mut().map(|router| (router.take_sockets(), router.writer().to_owned()))
    }

    /// Stops accepting calls after another process has taken over the router's sockets, waits for the last call, and stops all roles.
    pub(crate) async fn leave(mut self) {
        if let Some(router) = self.router.take() {
            router.leave().await;
        }
        self.stop().await;
    }

    /// The addresses of the roles, for the log.
    pub(crate) fn addresses(&self) -> Vec<(&'static str, SocketAddr)> {
        let router = self
            .router
            .iter()
            .flat_map(|router| [("router: model traffic", router.data_addr()), ("router: admin", router.admin_addr())]);
        let api = self.controller.iter().map(|controller| ("controller: API", controller.address()));
        router.chain(api).collect()
    }

    /// Applies the settings that can change at run time: the writers, and the router's models, limits, timeouts and ejection.
    pub(super) fn reload(&self, settings: &Settings) -> anyhow::Result<()> {
        if let Some(router) = &self.router {
            router.reload(router_config(settings))?;
        }
        Ok(())
    }

    /// Whether a router is among the roles.
    pub(super) fn serves_traffic(&self) -> bool {
        self.router.is_some()
    }

    /// Returns when a task has failed permanently and needs an operator.
    pub(super) async fn failed(&self) -> String {
        loop {
            for (watch, stage) in self.watches.iter().zip(&self.stages) {
                if let Some(failure) = watch().failure() {
                    return format!("{}: {failure}", stage.stage());
                }
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Stops all roles: the router first, so that its last events are folded, and the controller last. The connector's calls end before
    /// its stage, so that their results are recorded.
    pub(crate) async fn stop(self) {
        if let Some(router) = self.router {
            router.shutdown(STOP_WITHIN).await;
        }
        if let Some(connector) = self.connector {
            connector.stop(CALL_WITHIN).await;
        }
        let mut stages = self.stages;
        let stopped = tokio::task::spawn_blocking(move || {
            for stage in &stages {
                stage.ask_to_stop();
            }
            for stage in stages.drain(..).rev() {
                if let Err(error) = stage.stop(STOP_WITHIN) {
                    tracing::warn!(%error, "a stage did not stop in time; it repeats its uncommitted work after the next start");
                }
            }
        });
        if let Err(error) = stopped.await {
            tracing::warn!(%error, "stopping the stages failed");
        }
        if let Some(controller) = self.controller {
            controller.stop().await;
        }
    }
}

/// The router's configuration. Its directory is in `data_dir`, unless it sets another one.
pub(super) fn router_config(settings: &Settings) -> serin_router::Config {
    let mut config = settings.router.clone();
    config.writers.clone_from(&settings.writers);
    config.doors.clone_from(&settings.doors);
    if config.data_dir == serin_router::Config::default().data_dir {
        config.data_dir = settings.data_dir.0.join("router");
    }
    config
}

fn ready(health: &StageHealth) -> Result<(), String> {
    if health.is_ready() {
        return Ok(());
    }
    Err(health
        .failure()
        .or_else(|| health.error.clone())
        .or_else(|| health.trouble())
        .unwrap_or_else(|| "not all of its partitions are running yet".to_owned()))
}
