//! The servers of one table, from which its routes are made.

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

/// The servers of a table: the same version at the same places has the same.
pub(crate) struct Fleet {
    pub(crate) model: Arc<str>,
    pub(crate) known: Vec<Arc<Servers>>,
    /// What the table says of servers; it goes before the configuration.
    pub(crate) told: Vec<ServerPolicy>,
    pub(crate) drain: Duration,
}

impl Fleet {
    /// A route to a version.
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
        let told = self.told.iter().find(|told| told.version == version);
        let grpc = told.and_then(|told| told.grpc_url.as_deref()).or(configured.and_then(VersionServers::grpc_url));
        let grpc = grpc.map(Base::parse).transpose().map_err(TableError)?;
        let path_version = told
            .and_then(|told| told.path_version.as_deref())
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
