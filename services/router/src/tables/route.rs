//! A version that a table sends traffic to.

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

/// A routing table cannot be used.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct TableError(pub(crate) String);

/// A version that a table sends traffic to.
#[derive(Clone, Debug)]
pub(crate) struct Route {
    pub(crate) version: Version,
    pub(crate) arm: Arm,
    /// Its servers, and how they stand. All routes of a version share them, from table to table.
    pub(crate) servers: Arc<Servers>,
    /// Where its servers speak gRPC, if not there.
    pub(crate) grpc: Option<Base>,
    /// The name that its servers have for the version, if they want it in paths and gRPC messages.
    pub(crate) path_version: Option<String>,
    /// Calls in flight, from table to table while the route stays.
    pub(crate) flights: Arc<Flights>,
    /// How long they may go on when the route is gone.
    pub(crate) drain: Duration,
    /// What answers say of its part. A version that gets nothing by itself has none: whoever has its answer asked for it.
    pub(crate) part: &'static str,
    /// The version as answers and requests carry it.
    pub(crate) header: Option<HeaderValue>,
    /// Model and arm as metrics have them, and the version where those do not say it: versions never leave a counter.
    pub(crate) labels: Vec<KeyValue>,
    /// Its metrics, from the first call on.
    pub(crate) measured: Arc<OnceLock<Measured>>,
}

impl Route {
    /// Whether calls on it are cut some time after it is gone: those on trial are, stable's are not.
    pub(crate) fn drains(&self) -> bool {
        matches!(self.arm, Arm::Canary | Arm::Shadow)
    }
}

/// The version as metrics have it, where more than one version has the arm.
pub(crate) fn version_label(version: &Version) -> KeyValue {
    KeyValue::new("version", Arc::<str>::from(version.as_str()))
}
