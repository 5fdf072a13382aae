//! The router: an HTTP and gRPC data plane in front of model servers.
//!
//! It splits the calls of a model between versions according to the newest routing table, passes requests and answers through, and writes
//! one event per call and version to the log, off the hot path. When the log, the controller or an upstream fails, requests continue: they
//! go to stable once a lease has expired, and after a restart the router uses the tables on disk.
//!
//! The parts, from the entry point downwards: the listeners for callers (`serve`), feedback over HTTP (`intake`) and one call of a model
//! (`call`), with the event that reports it (`report`); the reader of the routing log (`log`) and the admin API (`admin`); shared state
//! (`state`), events for the log (`events`) and metrics (`metrics`); routing tables and the split (`tables`), model servers (`upstream`),
//! the contents of requests and answers (`content`), streaming of bodies (`body`), the protocols (`protocol`), [`Config`] and the clock. A
//! part uses only those below it.
//!
//! Invariants:
//! - a request takes one snapshot of its table and uses it until its end;
//! - one event per call and version, whatever happens (`guard`);
//! - no event follows a heartbeat with a later low watermark in its partition (`events`);
//! - every queue is bounded.

mod admin;
mod body;
mod call;
mod clock;
mod config;
mod content;
mod events;
mod intake;
mod log;
pub mod metrics;
mod protocol;
mod report;
mod router;
mod serve;
mod state;
mod tables;
pub mod untrusted;
mod upstream;

pub use clock::TimeSource;
pub use config::{
    Answers, ClockKind, Config, ConfigError, CorsConfig, Ejection, Limits, MayPin, ModelConfig, Pinning, Report,
    ServersConfig, Timeouts, TlsConfig, VersionServers,
};
pub use router::{Router, RouterHandle, Seams, StartError, problems};
pub use serin_listener::{CertificateError, TlsFiles};
pub use state::Chance;
pub use upstream::tls::RootsError;
