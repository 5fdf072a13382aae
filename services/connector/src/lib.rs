//! The connector: tells people and other systems about events of rollouts.
//!
//! `fold` is the stage, an outbox: it turns records of `audit` into deliveries, which are rows until they have a result. One worker per
//! destination carries them out (`dispatch`). `courier` decides, without a clock or a network, what is sent next.
//!
//! Invariants:
//! - A delivery and the position behind its event commit together, so no event is missed and none is delivered under two ids.
//! - A delivery is sent at least once. Every attempt has the same id and the same body, also after a crash.
//! - Deliveries of one model to one destination arrive in order.
//! - A destination that fails or hangs delays no other, and nothing waits for the connector.
//! - Destinations come from the operator's configuration only. Redirects are not followed. Secrets are on no topic and in no row.

mod card;
pub mod config;
mod courier;
mod dispatch;
mod fold;
mod message;
pub mod metrics;
mod request;

use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response};
use serin_stream::log::{Log, LogError};

pub use config::{Config, Destination, Kind, On};
pub use dispatch::Handle;

use config::load;
use dispatch::Desks;
use fold::{ConnectorFactory, ends_of_audit};

/// The connector could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration is invalid. Contains all problems.
    #[error("the configuration of the connector cannot be used:\n  - {}", .0.join("\n  - "))]
    Config(Vec<String>),
    /// The log is unavailable.
    #[error(transparent)]
    Log(#[from] LogError),
}

/// All problems of a configuration, in the settings and in the files that they name. Each problem starts with its setting, without
/// `connector.`.
pub fn problems(config: &Config) -> Vec<String> {
    load(config).err().unwrap_or_default()
}

/// Starts one worker per destination on the running tokio runtime. The caller runs the folds; see [`Handle::factory`]. At a first start,
/// events that are on the log now are not delivered. `send` makes an HTTP call, with a timeout, and follows no redirects.
pub fn start<S, F>(config: &Config, log: &dyn Log, send: S) -> Result<Handle, StartError>
where
    S: Fn(Request<Bytes>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Result<Response<()>, String>> + Send + 'static,
{
    let destinations = load(config).map_err(StartError::Config)?;
    let ends = ends_of_audit(log)?;
    let desks = Desks::new(destinations, config.give_up_after);
    let workers = dispatch::start(&desks, &send);
    let factory = ConnectorFactory::new(Arc::clone(&desks), &config.public_url, ends);
    Ok(Handle::new(Arc::new(factory), desks, workers))
}
