//! The router: an HTTP and gRPC data plane in front of model servers.
//!
//! It splits the calls of a model between versions as the newest routing table says, passes requests and answers through,
//! and writes one event per call and version to the log, off the hot path. When the log, the controller or an upstream
//! fails, requests go on: to stable once a lease has run out, and with what is on disk after a restart.
//!
//! The parts: [`Config`]; tables and the split, pure (`table`, `split`, `undecided`); what requests and answers say, pure (`protocol`, `llm`,
//! `request`, `outcome`, `outputs`, `census`, `examples`, `values`); the call (`serve`, `call`, `exchange`, `mirror`, `body`, `guard`,
//! `upstream`); how servers stand, what is in flight and which version keeps a response (`servers`, `flights`, `responses`); what goes to
//! the log (`events`, `incarnation`, `intake`, `status`); what comes from it (`consumer`, `disk`, `namesakes`); operators (`admin`, `switch`).
//!
//! Invariants:
//! - a request takes one snapshot of its table and uses it to its end;
//! - one event per call and version, whatever happens (`guard`);
//! - no event follows a heartbeat with a later low watermark in its partition (`events`);
//! - nothing that waits is unbounded.

mod admin;
mod answer;
mod body;
mod call;
mod census;
mod clock;
mod config;
mod consumer;
mod disk;
mod events;
mod examples;
mod exchange;
mod fleet;
mod flights;
mod guard;
mod incarnation;
mod intake;
mod llm;
pub mod metrics;
mod mirror;
mod name;
mod namesakes;
mod outcome;
mod outputs;
mod protocol;
mod request;
mod responses;
mod router;
mod seen;
mod serve;
mod servers;
mod split;
mod state;
mod status;
mod switch;
mod table;
mod undecided;
pub mod untrusted;
mod upstream;
mod values;

pub use clock::TimeSource;
pub use config::{
    Answers, ClockKind, Config, ConfigError, CorsConfig, Ejection, Limits, MayPin, ModelConfig, Pinning, Report,
    ServersConfig, Timeouts, TlsConfig, VersionServers,
};
pub use router::{Router, RouterHandle, Seams, StartError, problems};
pub use serin_listener::{CertificateError, TlsFiles};
pub use state::Chance;
pub use upstream::RootsError;
