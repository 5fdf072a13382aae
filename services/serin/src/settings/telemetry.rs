//! The section `telemetry`: metrics, traces, health and logs of a process.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serin_access::Secret;

/// Metrics, health and logs of the process.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct TelemetrySettings {
    /// Address on which `/metrics`, `/healthz` and `/readyz` are served.
    #[schemars(extend("format" = "ip:port"))]
    pub(crate) listen: std::net::SocketAddr,
    /// The TLS certificate for `telemetry.listen`. Without it, the port speaks plain HTTP.
    pub(crate) tls: Option<serin_listener::TlsFiles>,
    /// Bearer token that `/metrics` requires. Empty: none is required; a port on loopback then answers only this machine.
    pub(crate) token: Secret,
    /// Endpoint of an OTLP collector over HTTP, such as `http://localhost:4318/v1/metrics`. Without it, no metrics are sent.
    pub(crate) otlp: Option<String>,
    /// PEM file with the CA that signed the collector's certificate (`https://`). Default: the CAs that the system trusts.
    pub(crate) otlp_ca_file: Option<PathBuf>,
    /// Traces of single calls, and of the verdicts that follow from them.
    pub(crate) traces: TraceSettings,
    /// Format of log lines: `text` or `json`.
    pub(crate) log_format: LogFormat,
    /// Log level, in the format of `RUST_LOG`, such as `info` or `serin_router=debug,info`.
    pub(crate) log_level: String,
}

/// The section `telemetry.traces`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct TraceSettings {
    /// Endpoint of an OTLP collector over HTTP, such as `http://localhost:4318/v1/traces`. Without it, nothing is traced.
    /// `telemetry.otlp_ca_file` applies to it too.
    pub(crate) otlp: Option<String>,
    /// Share of the calls without a `traceparent` that are traced, from 0 to 1. A call with one is traced if its flag says so.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub(crate) sample: f64,
}

impl Default for TraceSettings {
    fn default() -> Self {
        Self { otlp: None, sample: 0.001 }
    }
}

/// Format of log lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum LogFormat {
    /// Text, for people.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

impl Default for TelemetrySettings {
    fn default() -> Self {
        Self {
            listen: ([127, 0, 0, 1], 9464).into(),
            tls: None,
            token: Secret::default(),
            otlp: None,
            otlp_ca_file: None,
            traces: TraceSettings::default(),
            log_format: LogFormat::Text,
            log_level: "info".to_owned(),
        }
    }
}
