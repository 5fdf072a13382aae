//! Sends metrics and traces to an OTLP collector over HTTP or HTTPS, and logs failures.
//!
//! The exporter calls from its own thread, and once more at exit, so requests have their own runtime. A failing collector is
//! logged when it starts to fail, when the cause changes and when it recovers, not at every attempt.

use std::{
    path::Path,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context as _, bail};
use bytes::Bytes;
use http::{Request, Response};
use opentelemetry_http::{HttpClient, HttpError};
use reqwest::Url;
use tokio::runtime::{Builder, Runtime};

use crate::http::Http;

/// Timeout of a request to the collector.
const TIMEOUT: Duration = Duration::from_secs(10);

/// What is sent to a collector.
#[derive(Debug)]
pub(super) struct Signal {
    /// As in the path of the collector: `metrics` or `traces`.
    pub(super) name: &'static str,
    /// The setting with the collector's address.
    pub(super) setting: &'static str,
}

/// Metrics.
pub(super) const METRICS: Signal = Signal { name: "metrics", setting: "telemetry.otlp" };
/// Traces.
pub(super) const TRACES: Signal = Signal { name: "traces", setting: "telemetry.traces.otlp" };

/// A collector, and the result of the last attempt.
#[derive(Debug)]
pub(super) struct Collector {
    http: Http,
    /// What is sent.
    what: &'static Signal,
    /// The collector's address for the log: without user and password.
    name: String,
    /// Taken in `drop`.
    runtime: Option<Runtime>,
    /// The cause, while it fails.
    failing: Mutex<Option<String>>,
}

impl Collector {
    /// The collector at `endpoint`.
    pub(super) fn new(what: &'static Signal, endpoint: &str, authorities: Option<&Path>) -> anyhow::Result<Self> {
        let Signal { name: signal, setting } = what;
        let mut url = Url::parse(endpoint)
            .with_context(|| format!("{setting}: write a URL, such as https://collector:4318/v1/{signal}"))?;
        if !matches!(url.scheme(), "http" | "https") {
            bail!("{setting}: {}: write a URL that begins with http:// or https://", url.scheme());
        }
        let (_, _) = (url.set_username(""), url.set_password(None));
        url.set_query(None);
        let http = Http::new(authorities, TIMEOUT).context("telemetry.otlp_ca_file")?;
        let runtime = Builder::new_current_thread().enable_all().build().context("telemetry: a runtime for OTLP")?;
        Ok(Self { http, what, name: url.into(), runtime: Some(runtime), failing: Mutex::default() })
    }

    /// Logs a failure that is new, or the recovery.
    fn note(&self, failure: Option<String>) {
        let mut failing = self.failing.lock().unwrap_or_else(PoisonError::into_inner);
        if *failing == failure {
            return;
        }
        let Signal { name, setting } = self.what;
        if let Some(cause) = &failure {
            tracing::warn!(collector = %self.name, "{name} do not reach the OTLP collector ({setting}): {cause}");
        } else {
            tracing::info!(collector = %self.name, "{name} reach the OTLP collector again");
        }
        *failing = failure;
    }
}

#[async_trait::async_trait]
impl HttpClient for Collector {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let Some(runtime) = &self.runtime else { return Err("the collector is closed".into()) };
        match runtime.block_on(self.http.send(request)) {
            Ok(answer) => {
                self.note((!answer.status().is_success()).then(|| format!("it answers {}", answer.status())));
                Ok(answer)
            }
            Err(error) => {
                self.note(Some(error.to_string()));
                Err(error.into())
            }
        }
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        // A runtime that waits for its tasks must not be dropped on a thread of another runtime.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
