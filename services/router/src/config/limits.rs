//! Limits and times of the router's configuration.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serin_spec::units::Duration;

/// Limits of what is taken and kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Largest request body; a larger one is answered 413.
    pub body: u64,
    /// Bodies up to this size are kept in memory for segments, sticky keys, output rules and fallback; larger ones only
    /// pass through.
    pub keep_body: usize,
    /// Bytes of request bodies that wait in memory, together. When they are used up bodies are read no further; one that waits for
    /// longer than `timeouts.request` is answered 503.
    pub held: u64,
    /// Bytes for the ids of responses (`/v1/responses`) and the versions that keep them; the oldest are forgotten first.
    pub responses: usize,
    /// Largest head of a request; a larger one is answered 431.
    pub head: usize,
    /// Most headers of a request.
    pub headers: usize,
    /// Connections of callers at a time; more wait.
    pub connections: usize,
    /// Requests at a time of one HTTP/2 connection.
    pub streams: u32,
    /// Inference calls at a time; more are answered 503.
    pub in_flight: usize,
    /// Calls at a time per server of a version, mirrored ones among them; more are failures of the version (`full`).
    pub per_server: u32,
    /// Idle connections kept per upstream.
    pub idle_per_upstream: usize,
    /// Largest body of `POST /v1/feedback` and `POST /v1/events`.
    pub intake_body: usize,
    /// Most entries in one such body.
    pub intake_batch: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body: 64 << 20,
            keep_body: 64 << 10,
            held: 256 << 20,
            responses: 32 << 20,
            head: 64 << 10,
            headers: 100,
            connections: 10_000,
            streams: 200,
            in_flight: 4096,
            per_server: 1024,
            idle_per_upstream: 256,
            intake_body: 1 << 20,
            intake_batch: 1000,
        }
    }
}

/// When a server gets nothing for a while, because it failed: no connection, no answer in time, a broken connection, or 502,
/// 503, 504.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Ejection {
    /// After so many failures in a row; 0: never.
    pub failures: u32,
    /// For so long the first time, and twice as long after each failed try.
    pub base: Duration,
    /// But never longer than this.
    pub max: Duration,
}

impl Default for Ejection {
    fn default() -> Self {
        Self { failures: 5, base: Duration::from_secs(1), max: Duration::from_secs(30) }
    }
}

/// How long things may take.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Timeouts {
    /// Until a connection to an upstream stands.
    pub connect: Duration,
    /// From the end of the request to the head of the answer.
    pub first_byte: Duration,
    /// Between two pieces of an answer.
    pub idle: Duration,
    /// Until the head of a request has arrived; until a TLS connection stands.
    pub header: Duration,
    /// Until a request's body that is kept has arrived, and between two pieces of a larger one.
    pub request: Duration,
    /// Until all of a larger body has arrived. Not for gRPC streams.
    pub upload: Duration,
    /// Between two messages of a gRPC stream, in either direction.
    pub stream: Duration,
    /// How long a caller may leave an answer unread; then its connection is cut.
    pub send: Duration,
    /// How long a caller's connection is kept with nothing to do.
    pub keep_alive: Duration,
    /// How long an idle connection to an upstream is kept. Less than the upstream keeps it (uvicorn: 5 s), so that it is never
    /// used while it is being closed.
    pub pool_idle: Duration,
    /// Until feedback is on the log.
    pub flush: Duration,
    /// How long a replay clock waits for calls in flight that belong before the new time.
    pub settle: Duration,
    /// How long a router that shuts down still takes requests while its readiness is already gone; less when nobody is
    /// connected any more.
    pub lame_duck: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(1),
            first_byte: Duration::from_secs(30),
            idle: Duration::from_secs(30),
            header: Duration::from_secs(10),
            request: Duration::from_secs(30),
            upload: Duration::from_secs(600),
            stream: Duration::from_secs(600),
            send: Duration::from_secs(60),
            keep_alive: Duration::from_secs(75),
            pool_idle: Duration::from_secs(4),
            flush: Duration::from_secs(5),
            settle: Duration::from_secs(60),
            lame_duck: Duration::from_secs(2),
        }
    }
}

impl Limits {
    pub(super) fn check(&self, problems: &mut Vec<String>) {
        let counts = [
            ("headers", self.headers),
            ("connections", self.connections),
            ("streams", self.streams as usize),
            ("in_flight", self.in_flight),
            ("intake_body", self.intake_body),
            ("intake_batch", self.intake_batch),
            ("per_server", self.per_server as usize),
        ];
        for (name, value) in counts {
            if value == 0 {
                problems.push(format!("limits.{name}: must be at least 1"));
            }
        }
        if self.held < 1 << 20 {
            problems.push("limits.held: must be at least 1048576 (1 MiB)".to_owned());
        }
        if self.head < 8192 {
            problems.push("limits.head: must be at least 8192".to_owned());
        }
    }
}

impl Timeouts {
    pub(super) fn check(&self, problems: &mut Vec<String>) {
        let spans = [
            ("connect", self.connect),
            ("first_byte", self.first_byte),
            ("idle", self.idle),
            ("header", self.header),
            ("request", self.request),
            ("upload", self.upload),
            ("stream", self.stream),
            ("send", self.send),
            ("keep_alive", self.keep_alive),
            ("pool_idle", self.pool_idle),
            ("flush", self.flush),
        ];
        for (name, value) in spans {
            if value.is_zero() {
                problems.push(format!("timeouts.{name}: must be longer than 0"));
            }
        }
    }
}
