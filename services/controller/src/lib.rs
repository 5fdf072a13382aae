//! The controller: turns verdicts and commands into routing tables, and serves the API for people and registries.
//!
//! [`fold`] is the stage: the planner of `serin-rollout` over the same-numbered partitions of `verdicts`, `commands` and
//! `router-status`. [`start`] serves the API, which only reads topics and writes `commands`, so it has no state that could be
//! lost.

pub mod api;
pub mod config;
mod console;
mod examples;
pub mod fleet;
pub mod fold;
mod gates;
mod insight;
pub mod metrics;
mod mlflow;
pub mod policies;
pub mod progress;
mod recorded;
pub mod report;
mod series;
mod server;
mod trace;
pub mod verbs;
pub mod view;

/// Longest reason of a command, in bytes. Every event contains it.
const REASON_MAX: usize = 1000;

pub use config::{Config, ConfigError};
pub use fold::{ControllerFactory, NewestTables, NoTables, RoutingTopic};
pub use serin_access::Secret;
pub use server::{ApiHandle, Follower, StartError, open, problems, start};
