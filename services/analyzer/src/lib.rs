//! The analyzer: a fold over one partition of `windows` that turns complete windows into verdicts.
//!
//! Aggregators write partial windows and promise how far each partition of `events` is closed; the controller writes Control
//! records. The analyzer merges the parts, multiplies each window into the evidence exactly once, in event-time order, and
//! emits one Verdict per rollout whenever a window's time has passed on all partitions. `docs/verdicts.md` explains the numbers;
//! the statistics are in `serin_statistics`.
//!
//! Invariants:
//! - Deterministic: the bytes of verdicts depend only on the records of the partition, not on batches, commits or restarts.
//! - A window enters when every partition has passed its end plus maturity. A partition that has not reported yet holds it back. Late
//!   and repeated parts are refused and counted.
//! - Hypotheses, weights, margins and thresholds are fixed by the spec and by warm-up, before the first canary window.
//! - Which windows are left out after a change of traffic depends on Control records and on the time of the first answers,
//!   never on the content of the answers.
//! - Failures and the crossing of the rollback threshold are final. A pass must be shown again in each step.
//! - What is not judged has neither passed nor failed.
//! - Bounded: windows are removed when they are judged, and a rollout's rows with its last Control record.

mod arms;
mod baseline;
mod clusters;
mod config;
mod coverage;
mod delays;
mod evidence;
mod fold;
mod foreign;
mod head;
mod health;
mod latest;
pub mod metrics;
mod outage;
mod plan;
mod population;
mod progress;
mod ranges;
mod refused;
mod rollout;
mod rows;
mod sentence;
mod share;
mod standing;
mod trace;
mod units;
mod verdict;
mod warmup;
mod window;

/// The version of the build, as recorded in verdicts.
pub const BUILD: &str = env!("CARGO_PKG_VERSION");

pub use config::Config;
pub use fold::AnalyzerFactory;
