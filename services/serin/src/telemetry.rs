//! Logs, metrics, traces and health of a process.
//!
//! Metrics are recorded with OpenTelemetry. They are served for Prometheus at `/metrics` and, when configured, sent
//! over OTLP. `/healthz` succeeds while the process runs, `/readyz` only while every role in it can do its work.

mod otlp;
#[cfg(test)]
mod page;
mod traces;

use std::{io, net::SocketAddr, os::fd::OwnedFd, sync::Arc};

use anyhow::Context as _;
use axum::{
    Router,
    extract::{Request, State},
    http::StatusCode,
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::get,
};
use opentelemetry::KeyValue;
use opentelemetry_sdk::{
    Resource,
    metrics::{Instrument, PeriodicReader, SdkMeterProvider, Stream},
    resource::{EnvResourceDetector, TelemetryResourceDetector},
};
use prometheus::{Encoder as _, IntGauge, Registry, TextEncoder, core::Collector as _, proto::MetricFamily};
use serin_access::{Refused, Secret, bearer, check_local, check_origin};
use serin_listener::{Certificate, Listener, PROTOCOLS, Sockets};
use tokio::task::JoinHandle;
use tracing_subscriber::EnvFilter;

use crate::{
    process::OVERFLOWING,
    settings::{LogFormat, TelemetrySettings},
    terminal::Terminal,
};

pub(crate) use traces::Traces;

/// Returns an error with the cause if a role cannot do its work.
pub(crate) type Readiness = Arc<dyn Fn() -> Result<(), String> + Send + Sync>;

/// Checks all of the settings that can be checked without a port.
pub(crate) fn problems(settings: &TelemetrySettings) -> Vec<String> {
    let level = filter(settings).err().map(|error| format!("{error:#}"));
    let tls = settings.tls.as_ref().map(|files| Certificate::load("telemetry.tls", files.clone(), PROTOCOLS));
    level.into_iter().chain(tls.and_then(Result::err).map(|error| error.to_string())).collect()
}

fn filter(settings: &TelemetrySettings) -> anyhow::Result<EnvFilter> {
    match std::env::var("RUST_LOG") {
        Ok(level) => EnvFilter::try_new(level),
        // The library's own messages do not help operators.
        Err(_) => EnvFilter::try_new(format!("opentelemetry=warn,{}", settings.log_level)),
    }
    .context("telemetry.log_level")
}

/// Starts logging to standard error.
pub(crate) fn start_logs(settings: &TelemetrySettings) -> anyhow::Result<()> {
    let filter = filter(settings)?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(Terminal::stderr().has_colors());
    // An error of writing a log would be reported on the same standard error, and panic. The process must go on.
    let builder = builder.log_internal_errors(false);
    match settings.log_format {
        LogFormat::Text => builder.with_target(false).try_init(),
        LogFormat::Json => builder.json().try_init(),
    }
    .map_err(|error| anyhow::anyhow!("logging: {error}"))
}

/// Largest number of label sets of one instrument. Further ones are summed up in one series; [`OVERFLOWING`] counts such metrics.
const LABEL_SETS: usize = 50_000;
/// The label of the series that sums up further label sets.
const OVERFLOW: &str = "otel_metric_overflow";

/// Metrics of this process. They stop when this value is dropped.
pub(crate) struct Metrics {
    provider: SdkMeterProvider,
    registry: Registry,
    overflowing: IntGauge,
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
    let label_sets = |_: &Instrument| Stream::builder().with_cardinality_limit(LABEL_SETS).build().ok();
    let mut provider =
        SdkMeterProvider::builder().with_resource(resource(role)).with_view(label_sets).with_reader(prometheus);
    if let Some(endpoint) = &settings.otlp {
        use opentelemetry_otlp::{WithExportConfig as _, WithHttpConfig as _};
        let collector = otlp::Collector::new(&otlp::METRICS, endpoint, settings.otlp_ca_file.as_deref())?;
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
    crate::process::observe(role);
    let overflowing = IntGauge::new(OVERFLOWING.name, OVERFLOWING.help())?;
    Ok(Metrics { provider, registry, overflowing })
}

/// The OpenTelemetry resource of this process. `OTEL_RESOURCE_ATTRIBUTES` overrides Serin's attributes, `OTEL_SERVICE_NAME` overrides both.
fn resource(role: &str) -> Resource {
    let ours = [
        KeyValue::new("service.name", format!("serin-{role}")),
        KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
        KeyValue::new("service.instance.id", uuid::Uuid::now_v7().to_string()),
    ];
    let resource = Resource::builder_empty()
        .with_detector(Box::new(TelemetryResourceDetector))
        .with_attributes(ours)
        .with_detector(Box::new(EnvResourceDetector::new()));
    match std::env::var("OTEL_SERVICE_NAME") {
        Ok(name) if !name.is_empty() => resource.with_service_name(name).build(),
        _ => resource.build(),
    }
}

impl Metrics {
    /// The text that Prometheus scrapes.
    fn text(&self) -> anyhow::Result<String> {
        let mut families = self.registry.gather();
        let overflows = |family: &&MetricFamily| {
            let mut labels = family.get_metric().iter().flat_map(prometheus::proto::Metric::get_label);
            labels.any(|label| label.name() == OVERFLOW)
        };
        self.overflowing.set(families.iter().filter(overflows).count() as i64);
        families.extend(self.overflowing.collect());
        let mut text = Vec::new();
        TextEncoder::new().encode(&families, &mut text)?;
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
    /// A copy of the port's socket, for the process that replaces this one.
    pub(crate) socket: OwnedFd,
    pub(crate) task: JoinHandle<()>,
}

struct Health {
    metrics: Metrics,
    token: Secret,
    /// Whether the port listens on loopback. Only requests from this machine are then answered.
    local: bool,
    ready: Vec<(&'static str, Readiness)>,
}

/// Serves `/metrics`, `/healthz` and `/readyz` until the process exits, or the task is aborted.
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
    let app = app.layer(middleware::map_response(serin_listener::in_json));
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

/// Refuses requests from pages of other sites, and requests to `/metrics` without the token if one is set.
async fn guard(State(health): State<Arc<Health>>, request: Request, next: Next) -> Response {
    let (method, uri, headers) = (request.method(), request.uri(), request.headers());
    let needs_token = !health.token.is_empty() && uri.path() == "/metrics";
    let checked = if needs_token && bearer(headers).is_none_or(|given| !health.token.is(given)) {
        let error = "send telemetry.token as `Authorization: Bearer ...`".to_owned();
        Err(Refused { status: StatusCode::UNAUTHORIZED, code: "unauthenticated", error })
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

#[cfg(test)]
mod tests {
    use opentelemetry::global;

    use super::*;

    #[test]
    fn thousands_of_models_have_their_own_series_and_an_overflow_is_counted() {
        let metrics = start_metrics(&TelemetrySettings::default(), "test").unwrap();
        let counter = global::meter("serin").u64_counter("serin_test_total").build();
        let count = |models: std::ops::Range<usize>| {
            models.for_each(|model| counter.add(1, &[KeyValue::new("model", model.to_string())]));
        };
        let overflowing =
            |expected: u32| metrics.text().unwrap().contains(&format!("\n{} {expected}\n", OVERFLOWING.name));
        count(0..LABEL_SETS);
        assert!(overflowing(0));
        count(LABEL_SETS..LABEL_SETS + 1);
        assert!(overflowing(1));
        let text = metrics.text().unwrap();
        assert!(text.contains("\nserin_test_total{model=\"2500\",") && text.contains("otel_metric_overflow=\"true\""));
    }
}
