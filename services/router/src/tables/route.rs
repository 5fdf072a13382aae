//! A version to which a table sends traffic.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use http::HeaderValue;
use opentelemetry::KeyValue;
use serin_schemas::{ids::Version, records::Arm};

use crate::{
    config::base::Base,
    tables::measured::Measured,
    upstream::{flights::Flights, servers::Servers},
};

/// Why a routing table cannot be used.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct TableError(pub(crate) String);

/// A version to which a table sends traffic.
#[derive(Clone, Debug)]
pub(crate) struct Route {
    pub(crate) version: Version,
    pub(crate) arm: Arm,
    /// The servers of the version and their availability. All routes to a version share them across tables.
    pub(crate) servers: Arc<Servers>,
    /// The base URL for gRPC, if it differs.
    pub(crate) grpc: Option<Base>,
    /// The servers' name of the version, if they expect it in paths and gRPC messages.
    pub(crate) path_version: Option<String>,
    /// Calls in flight, kept across tables while the route exists.
    pub(crate) flights: Arc<Flights>,
    /// How long calls in flight may continue after the route is removed.
    pub(crate) drain: Duration,
    /// The arm in the headers of answers. It is empty for a version without traffic of its own, which is called only when callers ask for
    /// it.
    pub(crate) part: &'static str,
    /// The version as a header value.
    pub(crate) header: Option<HeaderValue>,
    /// Model and arm as metric labels, and the version where those do not determine it: a counter keeps every label value it ever had.
    pub(crate) labels: Vec<KeyValue>,
    /// The metrics of the route, created by the first call.
    pub(crate) measured: Arc<OnceLock<Measured>>,
}

impl Route {
    /// Whether calls on it are cut some time after it is removed: this holds for versions on trial, not for stable.
    pub(crate) fn drains(&self) -> bool {
        matches!(self.arm, Arm::Canary | Arm::Shadow)
    }
}

/// The version as a metric label, where several versions have the same arm.
pub(crate) fn version_label(version: &Version) -> KeyValue {
    KeyValue::new("version", Arc::<str>::from(version.as_str()))
}
