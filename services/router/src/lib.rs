//! The router: an HTTP and gRPC data plane in front of model servers.
//!
//! It splits the calls of a model between versions as the newest routing table says, passes requests and answers through,
//! and writes one event per call and version to the log, off the hot path. When the log, the controller or an upstream
//! fails, requests go on: to stable once a lease has run out, and with what is on disk after a restart.
//!
//! The parts, from the way in to the ground: the callers' ports (`serve`), feedback over HTTP (`intake`) and one call of a model (`call`), with the
//! event that reports it (`report`); what follows the routing log (`log`) and what operators ask for (`admin`); what all of them share
//! (`state`), what goes to the log (`events`) and what is measured (`metrics`); routing tables and the split (`tables`), model servers
//! (`upstream`), what requests and answers say (`content`), bodies on their way (`body`), the protocols (`protocol`), [`Config`] and the clock.
//! A part uses only those below it.
//!
//! Invariants:
//! - a request takes one snapshot of its table and uses it to its end;
//! - one event per call and version, whatever happens (`guard`);
//! - no event follows a heartbeat with a later low watermark in its partition (`events`);
//! - nothing that waits is unbounded.

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
