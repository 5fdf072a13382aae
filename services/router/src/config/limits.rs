//! Limits and timeouts of the router's configuration.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serin_spec::units::Duration;

/// Limits on what the router accepts and keeps.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Maximum size of a request body. A larger body is answered with 413.
    pub body: u64,
    /// Bodies up to this size are kept in memory for segments, sticky keys, output rules and fallback. Larger bodies are only passed
    /// through.
    pub keep_body: usize,
    /// Maximum number of rows of an answer that each output rule reads. It reads a random sample of this size of a larger batch, chosen by
    /// the hash of the request id, so both arms are read alike.
    pub rows: usize,
    /// Total bytes of request bodies held in memory. When they are used up, the router reads no further; a body that waits longer than
    /// `timeouts.request` is answered with 503.
    pub held: u64,
    /// Bytes for the ids of responses (`/v1/responses`) and the versions that keep them. The oldest are evicted first.
    pub responses: usize,
    /// Maximum size of a request's head. A larger head is answered with 431.
    pub head: usize,
    /// Maximum number of headers in a request.
    pub headers: usize,
    /// Maximum number of concurrent connections from callers. Further connections wait.
    pub connections: usize,
    /// Maximum number of concurrent requests on one HTTP/2 connection.
    pub streams: u32,
    /// Maximum number of concurrent inference calls. Further calls are answered with 503.
    pub in_flight: usize,
    /// Maximum number of concurrent calls per server of a version, including mirrored calls. Further calls fail with the cause `full`.
    pub per_server: u32,
    /// Maximum number of idle connections kept per upstream.
    pub idle_per_upstream: usize,
    /// Maximum body size of `POST /v1/feedback` and `POST /v1/events`.
    pub intake_body: usize,
    /// Maximum number of entries in one body of `POST /v1/feedback` or `POST /v1/events`.
    pub intake_batch: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body: 64 << 20,
            keep_body: 64 << 10,
            rows: 1024,
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

/// When a failing server stops receiving calls for a while. Failures are: no connection, no answer in time, a broken connection, and the
/// statuses 502, 503 and 504.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Ejection {
    /// Number of consecutive failures after which a server is ejected. 0: servers are never ejected.
    pub failures: u32,
    /// How long a server is ejected the first time. The time doubles after each failed attempt.
    pub base: Duration,
    /// Maximum time for which a server is ejected.
    pub max: Duration,
}

impl Default for Ejection {
    fn default() -> Self {
        Self { failures: 5, base: Duration::from_secs(1), max: Duration::from_secs(30) }
    }
}

/// Timeouts of the router.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Timeouts {
    /// Timeout for establishing a connection to an upstream.
    pub connect: Duration,
    /// Timeout from the end of a request to the head of its answer.
    pub first_byte: Duration,
    /// Timeout between two chunks of an answer.
    pub idle: Duration,
    /// Timeout for receiving the head of a request, and for the TLS handshake.
    pub header: Duration,
    /// Timeout for receiving a request body that is kept in memory, and between two chunks of a larger body.
    pub request: Duration,
    /// Timeout for receiving all of a larger body. It does not apply to gRPC streams.
    pub upload: Duration,
    /// Timeout between two messages of a gRPC stream, in either direction.
    pub stream: Duration,
    /// How long a caller may leave an answer unread before its connection is closed.
    pub send: Duration,
    /// How long an idle connection of a caller is kept open.
    pub keep_alive: Duration,
    /// How long an idle connection to an upstream is kept open. It must be shorter than the upstream's own keep-alive (uvicorn: 5 s), so
    /// that a connection is never used while the upstream closes it.
    pub pool_idle: Duration,
    /// Timeout for writing feedback to the log.
    pub flush: Duration,
    /// How long a replay clock waits for calls in flight that belong before the new time.
    pub settle: Duration,
    /// How long a router that shuts down still accepts requests after it has reported itself as not ready. It waits less when no callers
    /// are connected any more.
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
            ("rows", self.rows),
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
