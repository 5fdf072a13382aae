//! Logs, metrics and health of a process.
//!
//! Metrics are recorded through OpenTelemetry; they are served for Prometheus at `/metrics` and, when configured, sent
//! over OTLP. `/healthz` answers while the process lives, `/readyz` only while every role in it can do its work.

mod otlp;

use std::{
    io::{self, IsTerminal as _},
    net::SocketAddr,
    os::fd::OwnedFd,
    sync::Arc,
};

use anyhow::Context as _;
use axum::{
    Router,
    extract::{Request, State},
    http::StatusCode,
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::get,
};
use opentelemetry_sdk::{
    Resource,
    metrics::{PeriodicReader, SdkMeterProvider},
};
use prometheus::{Encoder as _, Registry, TextEncoder};
use serin_access::{Refused, Secret, bearer, check_local, check_origin};
use serin_listener::{Certificate, Listener, PROTOCOLS, Sockets};
use tokio::task::JoinHandle;
use tracing_subscriber::EnvFilter;

use crate::settings::{LogFormat, TelemetrySettings};

/// Tells whether a role can do its work, and if not, why.
pub(crate) type Readiness = Arc<dyn Fn() -> Result<(), String> + Send + Sync>;

/// Starts logging to standard error.
pub(crate) fn start_logs(settings: &TelemetrySettings) -> anyhow::Result<()> {
    let filter = match std::env::var("RUST_LOG") {
        Ok(level) => EnvFilter::try_new(level),
        // The library's own notes are of no use to operators.
        Err(_) => EnvFilter::try_new(format!("opentelemetry=warn,{}", settings.log_level)),
    }
    .context("telemetry.log_level")?;
    let builder =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).with_ansi(io::stderr().is_terminal());
    match settings.log_format {
        LogFormat::Text => builder.with_target(false).try_init(),
        LogFormat::Json => builder.json().try_init(),
    }
    .map_err(|error| anyhow::anyhow!("logging: {error}"))
}

/// Metrics of this process; they stop when it is dropped.
pub(crate) struct Metrics {
    provider: SdkMeterProvider,
    registry: Registry,
}

/// Starts recording metrics for `role`.
pub(crate) fn start_metrics(settings: &TelemetrySettings, role: &str) -> anyhow::Result<Metrics> {
    let registry = Registry::new();
    let prometheus = opentelemetry_prometheus::exporter()
        .with_registry(registry.clone())
        // The names in the code are the names on the wire.
        .without_counter_suffixes()
        .without_units()
        .build()?;
    let resource = Resource::builder().with_service_name(format!("serin-{role}")).build();
    let mut provider = SdkMeterProvider::builder().with_resource(resource).with_reader(prometheus);
    if let Some(endpoint) = &settings.otlp {
        use opentelemetry_otlp::{WithExportConfig as _, WithHttpConfig as _};
        let collector = otlp::Collector::new(endpoint, settings.otlp_ca_file.as_deref())?;
        let exporter = opentelemetry_otlp::MetricExporter::builder()
            .with_http()
            .with_http_client(collector)
            .with_endpoint(endpoint)
            .build()
            .with_context(|| format!("telemetry.otlp: {endpoint}"))?;
        provider = provider.with_reader(PeriodicReader::builder(exporter).build());
    }
    let provider = provider.build();
    opentelemetry::global::set_meter_provider(provider.clone());
    crate::process::observe();
    Ok(Metrics { provider, registry })
}

impl Metrics {
    /// The text that Prometheus scrapes.
    fn text(&self) -> anyhow::Result<String> {
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        Ok(String::from_utf8(text)?)
    }
}

impl Drop for Metrics {
    fn drop(&mut self) {
        if let Err(error) = self.provider.shutdown() {
            tracing::debug!(%error, "metrics did not shut down cleanly");
        }
    }
}

/// The port of metrics and health.
pub(crate) struct Served {
    pub(crate) address: SocketAddr,
    /// A copy of its socket, for the process that replaces this one.
    pub(crate) socket: OwnedFd,
    pub(crate) task: JoinHandle<()>,
}

struct Health {
    metrics: Metrics,
    token: Secret,
    /// Whether it listens on loopback: then only this machine is answered.
    local: bool,
    ready: Vec<(&'static str, Readiness)>,
}

/// Serves `/metrics`, `/healthz` and `/readyz` until the process ends, or the task is aborted.
pub(crate) async fn serve(
    settings: &TelemetrySettings,
    sockets: &mut Sockets,
    metrics: Metrics,
    ready: Vec<(&'static str, Readiness)>,
) -> anyhow::Result<Served> {
    let TelemetrySettings { listen, token, .. } = settings.clone();
    let local = listen.ip().to_canonical().is_loopback();
    let health = Arc::new(Health { metrics, token, local, ready });
    let guarded = Router::new()
        .route("/metrics", get(scrape))
        .route("/readyz", get(readyz))
        .layer(middleware::from_fn_with_state(Arc::clone(&health), guard));
    let app = Router::new().route("/healthz", get(|| async { "ok\n" })).merge(guarded).with_state(health);
    let certificate =
        settings.tls.clone().map(|files| Certificate::load("telemetry.tls", files, PROTOCOLS)).transpose()?;
    let socket = sockets
        .bind(listen)
        .await
        .with_context(|| format!("telemetry.listen: {listen} cannot be bound; set another port"))?;
    let listener = Listener::new(socket, certificate.as_ref())?;
    let (address, socket) = (listener.address(), listener.as_fd().try_clone_to_owned()?);
    let task = tokio::spawn(listener.serve(app, std::future::pending()));
    if let Some(certificate) = certificate {
        tokio::spawn(certificate.watch(|_| ()));
    }
    Ok(Served { address, socket, task })
}

/// Keeps other sites' pages out, and from the metrics whoever has no token, if one is set.
async fn guard(State(health): State<Arc<Health>>, request: Request, next: Next) -> Response {
    let (method, uri, headers) = (request.method(), request.uri(), request.headers());
    let needs_token = !health.token.is_empty() && uri.path() == "/metrics";
    let checked = if needs_token && bearer(headers).is_none_or(|given| !health.token.is(given)) {
        let error = "send telemetry.token as `Authorization: Bearer ...`".to_owned();
        Err(Refused { status: StatusCode::UNAUTHORIZED, error })
    } else if health.local && !needs_token {
        check_local(method, uri, headers, "telemetry.listen")
    } else {
        check_origin(uri, headers)
    };
    match checked {
        Ok(()) => next.run(request).await,
        Err(refused) => (refused.status, refused.error + "\n").into_response(),
    }
}

async fn scrape(State(health): State<Arc<Health>>) -> impl IntoResponse {
    match health.metrics.text() {
        Ok(text) => (StatusCode::OK, text),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    }
}

async fn readyz(State(health): State<Arc<Health>>) -> impl IntoResponse {
    let problems: Vec<String> =
        health.ready.iter().filter_map(|(role, ready)| ready().err().map(|why| format!("{role}: {why}"))).collect();
    if problems.is_empty() {
        (StatusCode::OK, "ready\n".to_owned())
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, problems.join("\n") + "\n")
    }
}
