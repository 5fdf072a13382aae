//! The servers of one table, from which its routes are built.

use std::{sync::Arc, time::Duration};

use http::HeaderValue;
use opentelemetry::KeyValue;
use serin_schemas::{ids::Version, records::Arm};
use serin_spec::ServerPolicy;

use crate::{
    config::{ModelConfig, VersionServers, base::Base},
    tables::route::{Route, TableError, version_label},
    upstream::servers::Servers,
};

/// The servers of a table. Routes to the same version with the same URLs share them.
pub(super) struct Fleet {
    pub(super) model: Arc<str>,
    pub(super) known: Vec<Arc<Servers>>,
    /// Server settings of the table. They take precedence over the configuration.
    pub(super) policies: Vec<ServerPolicy>,
    pub(super) drain: Duration,
}

impl Fleet {
    /// Builds a route to a version.
    pub(crate) fn route(
        &mut self,
        version: Version,
        arm: Arm,
        urls: &str,
        known: Option<&ModelConfig>,
    ) -> Result<Arc<Route>, TableError> {
        let new = Servers::parse(version.clone(), urls).map_err(TableError)?;
        let servers = if let Some(known) = self.known.iter().find(|known| known.same(&new)) {
            Arc::clone(known)
        } else {
            let new = Arc::new(new);
            self.known.push(Arc::clone(&new));
            new
        };
        let configured = known.and_then(|known| known.versions.get(version.as_str()));
        let named = known.filter(|known| known.versioned_paths).map(|_| version.0.clone());
        let policy = self.policies.iter().find(|policy| policy.version == version);
        let grpc =
            policy.and_then(|policy| policy.grpc_url.as_deref()).or(configured.and_then(VersionServers::grpc_url));
        let grpc = grpc.map(Base::parse).transpose().map_err(TableError)?;
        let path_version = policy
            .and_then(|policy| policy.path_version.as_deref())
            .or(configured.and_then(VersionServers::path_version))
            .map(str::to_owned)
            .or(named);
        let header = HeaderValue::from_str(version.as_str()).ok();
        let mut labels = vec![KeyValue::new("model", Arc::clone(&self.model)), KeyValue::new("arm", arm.as_str())];
        if arm == Arm::Shadow {
            labels.push(version_label(&version));
        }
        let (flights, measured, drain) = (Arc::default(), Arc::default(), self.drain);
        let part = arm.as_str();
        Ok(Arc::new(Route {
            version,
            arm,
            servers,
            grpc,
            path_version,
            flights,
            drain,
            part,
            header,
            labels,
            measured,
        }))
    }
}
