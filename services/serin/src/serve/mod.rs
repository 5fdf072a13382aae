//! Runs the services: all in one process (`serin up`) or one role per process on Kafka.
//!
//! All problems of the configuration are reported at once, before the log is opened. Then all problems of the log and the topics are
//! reported, before any role starts.

mod files;
mod log;
mod replace;
mod role;
mod running;

use std::{collections::BTreeSet, process::ExitCode};

use anyhow::bail;
use serin_listener::Offer;

pub(crate) use files::open_files;
pub(crate) use log::{differences, open_log, open_log_read_only};
use replace::Inherited;
pub(crate) use role::Role;
use running::router_config;
pub(crate) use running::{Running, start};

use crate::{
    cli::Serve,
    output,
    settings::{self, LogFormat, LogKind, Settings, SettingsError},
    telemetry,
};

/// Reads the configuration and makes all checks of these roles that need neither a log nor a port.
fn load(roles: &[Role], args: &Serve) -> Result<Settings, SettingsError> {
    let read = settings::read(args);
    let more = problems(roles, &read.settings);
    read.with(more)
}

/// The problems that prevent these roles from starting.
fn problems(roles: &[Role], settings: &Settings) -> Vec<String> {
    let mut problems = Vec::new();
    let embedded = settings.log.kind == LogKind::Embedded;
    if let Some(role) = roles.first().filter(|_| embedded && roles != Role::ALL) {
        problems.push(format!(
            "log.kind: the embedded log works within one process only: run `serin up`, or set log.kind to kafka to run {} alone",
            role.name()
        ));
    }
    problems.extend(telemetry::problems(&settings.telemetry));
    if !embedded && !settings.log.kafka.brokers.is_empty() {
        problems.extend(settings.log.kafka.problems().into_iter().map(|problem| format!("log.kafka: {problem}")));
    }
    for role in roles.iter().chain(joining(roles, settings)) {
        let found = match role {
            Role::Router => serin_router::problems(&router_config(settings)),
            Role::Controller => serin_controller::problems(&settings.controller),
            Role::Aggregator => {
                let intake =
                    settings.aggregator.intake.problems().into_iter().map(|problem| format!("intake.{problem}"));
                settings.aggregator.fold.problems().into_iter().chain(intake).collect()
            }
            Role::Analyzer => settings.analyzer.problems(),
            Role::Connector => serin_connector::problems(&settings.connector),
        };
        let place = |problem: String| {
            if problem.starts_with("writers") { problem } else { format!("{}.{problem}", role.name()) }
        };
        problems.extend(found.into_iter().map(place));
    }
    problems
}

/// The roles that join `roles` because they are configured: the connector joins the whole pipeline.
fn joining(roles: &[Role], settings: &Settings) -> Option<&'static Role> {
    (roles == Role::ALL && !settings.connector.destinations.is_empty()).then_some(&Role::Connector)
}

/// Logs user-chosen names that come from environment variables, which are read in lower case and may differ from the intended names.
fn log_names() {
    let mut logged = BTreeSet::new();
    for name in settings::names(settings::variables()).iter().filter(|name| name.is_changed()) {
        if logged.insert(name.read()) {
            tracing::info!(
                variable = name.variable,
                name = name.read(),
                "names in environment variables are read in lower case"
            );
        }
    }
}

/// Runs `roles` until the process is asked to stop. With `replace`, a router takes over from the running one.
pub(crate) async fn run(roles: &[Role], args: &Serve, replace: bool) -> anyhow::Result<ExitCode> {
    let mut settings = load(roles, args)?;
    if args.dump_config {
        output::json(&settings)?;
        return Ok(ExitCode::SUCCESS);
    }
    telemetry::start_logs(&settings.telemetry)?;
    let name = if roles == Role::ALL { "up" } else { roles.first().map_or("none", |role| role.name()) };
    tracing::info!(version = env!("CARGO_PKG_VERSION"), role = name, log = ?settings.log.kind, "starting serin");

    log_names();
    let share = files::share()?;
    serin_listener::set_places(share.port);
    if let Some(lowered) = share.fit(&mut settings, roles) {
        tracing::warn!("{lowered}");
    }
    let metrics = telemetry::start_metrics(&settings.telemetry, name)?;
    let _traces = telemetry::Traces::start(&settings.telemetry, name)?;
    let mut inherited = Inherited::find(replace, &settings)?;
    let started = start(roles, &settings, &mut inherited.sockets, inherited.writer.as_deref()).await;
    let mut running = started.map_err(|error| replace::advise(roles, error))?;
    let telemetry::Served { address: telemetry, socket, task: metrics_port } =
        telemetry::serve(&settings.telemetry, &mut inherited.sockets, metrics, running.readiness()).await?;
    if let Some(left) = inherited.sockets.left().first() {
        bail!("the inherited socket {left} matches no configured address; set for example router.listen={left}");
    }
    for (what, address) in running.addresses() {
        tracing::info!(%address, "{what}");
    }
    tracing::info!(address = %telemetry, "metrics and health");
    if roles == Role::ALL && settings.telemetry.log_format == LogFormat::Text && tracing::enabled!(tracing::Level::INFO)
    {
        output::aside(next_steps(&running));
    }

    inherited.replace(running.readiness()).await?;
    let offer = if roles == [Role::Router] { replace::offer(&mut running, socket, &settings) } else { None };
    let failed = tokio::select! {
        () = asked_to_stop() => None,
        () = replaced(offer) => {
            tracing::info!("another process has taken over; this one exits after its last call");
            metrics_port.abort();
            running.leave().await;
            return Ok(ExitCode::SUCCESS);
        }
        () = reloading(&running, roles, args) => None,
        failure = running.failed() => Some(failure),
    };
    if let Some(failure) = failed.as_ref().filter(|_| running.serves_traffic()) {
        // Model traffic matters more than an exit status: `/readyz` fails, leases expire, and the router sends every call to stable.
        tracing::error!(
            "{failure}; the router keeps serving, but no rollout is judged until this process is restarted"
        );
        asked_to_stop().await;
    }
    tracing::info!("stopping serin");
    running.stop().await;
    match failed {
        None => Ok(ExitCode::SUCCESS),
        Some(failure) => bail!("{failure}"),
    }
}

/// The next steps for the operator after the pipeline has started.
fn next_steps(running: &Running) -> String {
    let at = |wanted: &str| {
        let mut found = running.addresses().into_iter().filter(|(what, _)| *what == wanted);
        found.next().map_or_else(String::new, |(_, address)| address.to_string())
    };
    format!(
        "\nNext, in another terminal:\n\
         \x20 serin apply -f rollout.yaml            starts a rollout (docs/rollout-spec.md); serin get MODEL --watch shows it\n\
         \x20 serin model-server, serin load MODEL   a sample model server and calls (README.md)\n\
         Send calls to http://{} instead of the model server. The CLI uses the API at http://{api}.\n\
         To watch rollouts in a browser, open http://{api}/ (docs/console.md).\n",
        at("router: model traffic"),
        api = at("controller: API")
    )
}

/// Waits until another process has taken over the router's sockets. Never returns without an offer.
async fn replaced(offer: Option<Offer>) {
    match offer {
        Some(offer) => offer.taken().await,
        None => std::future::pending().await,
    }
}

/// Reloads the configuration on every SIGHUP. If that fails, the error is logged and nothing changes.
async fn reloading(running: &Running, roles: &[Role], args: &Serve) {
    let mut asked = match tokio::signal::unix::signal(tokio::signal::unix::SignalKind::hangup()) {
        Ok(signal) => signal,
        Err(error) => {
            tracing::warn!(%error, "cannot listen for SIGHUP: the configuration is only read at start");
            return std::future::pending().await;
        }
    };
    while asked.recv().await.is_some() {
        let read = load(roles, args).map_err(anyhow::Error::from).and_then(|mut settings| {
            files::share()?.fit(&mut settings, &[]);
            running.reload(&settings)
        });
        match read {
            Ok(()) => tracing::info!("the configuration was reloaded"),
            Err(error) => tracing::error!("the configuration was not reloaded: {error:#}"),
        }
    }
    std::future::pending::<()>().await;
}

/// Waits for Ctrl-C or SIGTERM.
pub(crate) async fn asked_to_stop() {
    let mut terminate = match tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) {
        Ok(signal) => signal,
        Err(error) => {
            tracing::warn!(%error, "cannot listen for SIGTERM");
            let _ = tokio::signal::ctrl_c().await;
            return;
        }
    };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => (),
        _ = terminate.recv() => (),
    }
}
