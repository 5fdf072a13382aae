//! Configuration of the router.

pub(crate) mod base;
mod limits;

use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf, time::Duration as StdDuration};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serin_access::{Secret, WriterList, short_token};
use serin_listener::TlsFiles;
use serin_schemas::ids::Version;
use serin_spec::{Address, OutputRule, SegmentSpec, address::without_credentials, units::Duration};

pub use limits::{Ejection, Limits, Timeouts};

use crate::config::base::Base;

/// What can be set. Spans are written `30s`, sizes are bytes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Where callers connect.
    #[schemars(extend("format" = "ip:port"))]
    pub listen: SocketAddr,
    /// The same over TLS. Left out: not at all.
    pub tls: Option<TlsConfig>,
    /// PEM file with the certificates that upstreams' (`https://`) are checked against. Left out: those the system trusts.
    pub upstream_ca: Option<PathBuf>,
    /// PEM file with the certificate that the router shows to upstreams that ask for one. Left out: none.
    pub upstream_certificate: Option<PathBuf>,
    /// PEM file with its key.
    pub upstream_key: Option<PathBuf>,
    /// Where operators connect. Beyond loopback it needs `admin_token`.
    #[schemars(extend("format" = "ip:port"))]
    pub admin_listen: SocketAddr,
    /// The certificate of that address. Left out: it speaks plain HTTP.
    pub admin_tls: Option<TlsFiles>,
    /// Bearer token that changes on the admin port must carry. Empty: none is asked for.
    pub admin_token: Secret,
    /// Name of this router, the same after a restart, unlike that of any other router. Empty: made from the name of the pod or
    /// container, or else chosen once and kept in `data_dir`.
    pub name: String,
    /// Folder for the last routing tables and the local switch.
    pub data_dir: PathBuf,
    /// Where event time comes from.
    pub clock: ClockKind,
    /// Seed of the random split: with it, the arm of a request is decided by its prediction id, so that a replay is
    /// repeatable. Left out: by chance.
    pub random_seed: Option<u64>,
    /// Threads that serve calls, each with its connections to the model servers. 0: one for each processor.
    pub workers: usize,
    /// Which calls are reported as events.
    pub report: Report,
    /// Who may ask for a version.
    pub pin: Pinning,
    /// Which web pages may call where the router answers browsers itself.
    pub cors: CorsConfig,
    /// What answers say about themselves.
    pub answers: Answers,
    /// Who may send feedback and events. Set under `writers` of the whole configuration. None: whoever runs on this machine,
    /// where the router listens on loopback; else nobody.
    #[serde(skip)]
    pub writers: WriterList,
    /// What is known of models before, and besides, any routing table.
    pub models: BTreeMap<String, ModelConfig>,
    /// Limits of what is taken and kept.
    pub limits: Limits,
    /// How long things may take.
    pub timeouts: Timeouts,
    /// When a server gets nothing for a while, because it failed.
    pub ejection: Ejection,
    /// Events that may wait for the log. When there are more, events are dropped and counted, never requests.
    pub event_queue: usize,
    /// How often a heartbeat goes to every partition of `events` (wall clock only).
    pub heartbeat_every: Duration,
    /// How often the applied tables are reported.
    pub status_every: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: ([127, 0, 0, 1], 8000).into(),
            tls: None,
            upstream_ca: None,
            upstream_certificate: None,
            upstream_key: None,
            admin_listen: ([127, 0, 0, 1], 8001).into(),
            admin_tls: None,
            admin_token: Secret::default(),
            name: String::new(),
            data_dir: PathBuf::from("serin-data/router"),
            clock: ClockKind::Wall,
            random_seed: None,
            workers: 0,
            report: Report::All,
            pin: Pinning::default(),
            cors: CorsConfig::default(),
            answers: Answers::default(),
            writers: WriterList::default(),
            models: BTreeMap::new(),
            limits: Limits::default(),
            timeouts: Timeouts::default(),
            ejection: Ejection::default(),
            event_queue: 100_000,
            heartbeat_every: Duration::from_secs(1),
            status_every: Duration::from_secs(3),
        }
    }
}

/// Where event time comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ClockKind {
    /// The machine's clock.
    #[default]
    Wall,
    /// Whoever replays recorded traffic: `PUT /replay/clock` on the admin port, `x-serin-event-time` on a request.
    Replay,
}

/// Which calls are reported as events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Report {
    /// Every call of a model.
    #[default]
    All,
    /// Those of models that are in a rollout: of the others nothing is judged.
    Rollouts,
}

/// What answers say about themselves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Answers {
    /// Whether they name the arm and the version (`x-model-arm`, `x-model-version`; gRPC metadata and the router's own errors
    /// too). Who does not know the arm cannot act against one of them alone.
    pub arm_header: bool,
}

impl Default for Answers {
    fn default() -> Self {
        Self { arm_header: true }
    }
}

/// Who may ask for a version, by `x-model-version`, in the path or in a gRPC message.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Pinning {
    /// Who may.
    pub allow: MayPin,
    /// What `x-serin-pin-token` must say, for `allow: token`.
    pub token: Secret,
}

/// What the router says to browsers that ask before a page calls: at its own paths, and at those where the body names the model. At
/// the paths of a model its servers say.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CorsConfig {
    /// Origins of pages that may call, such as `https://app.example`; `*` for all. The servers' own headers on their answers stay.
    pub origins: Vec<String>,
}

impl Default for CorsConfig {
    fn default() -> Self {
        Self { origins: vec!["*".to_owned()] }
    }
}

/// Who may ask for a version.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum MayPin {
    /// Everybody.
    #[default]
    Always,
    /// Nobody.
    Never,
    /// Who sends the token.
    Token,
}

/// What is known of one model before, and besides, any routing table.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ModelConfig {
    /// The version that serves while there is no routing table.
    #[schemars(with = "String")]
    pub stable: Version,
    /// Where the servers of each version are: a base URL, or several with commas between them, or more about them. URLs in a
    /// routing table go first.
    pub versions: BTreeMap<String, VersionServers>,
    /// The zone of each server, by its `host:port`; predictions name it.
    #[serde(default)]
    pub zones: BTreeMap<String, String>,
    /// Whether the servers want `/versions/<v>` in the path, with the name that the version has here. `KServe`'s do not; Triton's
    /// may. `path_version` of a version goes first.
    #[serde(default)]
    pub versioned_paths: bool,
    /// Plain HTTP paths that this model answers, with all below them. The longest path of all models that fits wins.
    #[serde(default)]
    pub paths: Vec<String>,
    /// Where segments are found while there is no routing table.
    #[serde(default)]
    pub segments: Vec<SegmentSpec>,
    /// How outputs are found while there is no routing table.
    #[serde(default)]
    pub outputs: Vec<OutputRule>,
}

/// Where the servers of a version are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum VersionServers {
    /// A base URL.
    Url(String),
    /// More about them.
    Full(ServersConfig),
}

/// What can be said of the servers of a version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ServersConfig {
    /// Base URL: `http://`, `https://`, or `h2c://` for HTTP/2 without TLS.
    pub url: String,
    /// Base URL for gRPC, if it has a port of its own.
    #[serde(default)]
    pub grpc_url: Option<String>,
    /// The name that the servers have for the version. Left out: they want none in the path.
    #[serde(default)]
    pub path_version: Option<String>,
}

impl VersionServers {
    /// The base URL.
    pub fn url(&self) -> &str {
        match self {
            Self::Url(url) => url,
            Self::Full(servers) => &servers.url,
        }
    }

    /// Whether all servers of one are servers of the other. What cannot be read is at no place.
    fn is_at_place_of(&self, other: &Self) -> bool {
        let read = |servers: &Self| Address::parse_list(servers.url()).unwrap_or_default();
        let (one, other) = (read(self), read(other));
        let within = |few: &[Address], many: &[Address]| {
            !few.is_empty() && few.iter().all(|server| many.iter().any(|known| known.is_at_place_of(server)))
        };
        within(&one, &other) || within(&other, &one)
    }

    /// The base URL for gRPC, if it is another one.
    pub fn grpc_url(&self) -> Option<&str> {
        match self {
            Self::Url(_) => None,
            Self::Full(servers) => servers.grpc_url.as_deref(),
        }
    }

    /// The name that the servers have for the version, if they want it.
    pub fn path_version(&self) -> Option<&str> {
        match self {
            Self::Url(_) => None,
            Self::Full(servers) => servers.path_version.as_deref(),
        }
    }
}

impl From<&str> for VersionServers {
    fn from(url: &str) -> Self {
        Self::Url(url.to_owned())
    }
}

/// The callers' port over TLS.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TlsConfig {
    /// Where callers connect over TLS.
    #[schemars(extend("format" = "ip:port"))]
    pub listen: SocketAddr,
    /// PEM file with the certificate, and those between it and the root.
    pub certificate: PathBuf,
    /// PEM file with its key.
    pub key: PathBuf,
    /// PEM file with authorities. With it, only callers who show a certificate of one of them are let in.
    #[serde(default)]
    pub client_ca: Option<PathBuf>,
    /// How often these files are looked at. When they changed, new connections get the new certificate.
    #[serde(default = "TlsFiles::reload_every")]
    pub reload_every: Duration,
}

impl TlsConfig {
    /// Its files.
    pub(crate) fn files(&self) -> TlsFiles {
        TlsFiles {
            certificate: self.certificate.clone(),
            key: self.key.clone(),
            client_ca: self.client_ca.clone(),
            reload_every: self.reload_every,
        }
    }
}

/// A span of the configuration for the clock of the machine.
pub(crate) fn span(duration: Duration) -> StdDuration {
    StdDuration::from_micros(duration.0.0.max(0).unsigned_abs())
}

/// The values of a configuration by their keys, down to the second level.
fn keys(config: &Config) -> BTreeMap<String, serde_json::Value> {
    let mut keys = BTreeMap::new();
    let Ok(serde_json::Value::Object(sections)) = serde_json::to_value(config) else { return keys };
    for (name, value) in sections {
        match value {
            serde_json::Value::Object(inner) => {
                keys.extend(inner.into_iter().map(|(key, value)| (format!("{name}.{key}"), value)));
            }
            value => drop(keys.insert(name, value)),
        }
    }
    keys
}

/// Every problem of a configuration.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the router's configuration cannot be used:\n  - {}", .0.join("\n  - "))]
pub struct ConfigError(pub Vec<String>);

impl Config {
    /// Finds every changed key that a running router cannot take over.
    pub(crate) fn check_reload(&self, new: &Self) -> Result<(), ConfigError> {
        let taken_over = Self {
            admin_token: new.admin_token.clone(),
            models: new.models.clone(),
            limits: Limits {
                body: new.limits.body,
                keep_body: new.limits.keep_body,
                per_server: new.limits.per_server,
                intake_body: new.limits.intake_body,
                intake_batch: new.limits.intake_batch,
                ..self.limits.clone()
            },
            timeouts: Timeouts {
                first_byte: new.timeouts.first_byte,
                idle: new.timeouts.idle,
                request: new.timeouts.request,
                upload: new.timeouts.upload,
                stream: new.timeouts.stream,
                settle: new.timeouts.settle,
                lame_duck: new.timeouts.lame_duck,
                ..self.timeouts.clone()
            },
            ejection: new.ejection,
            report: new.report,
            pin: new.pin.clone(),
            cors: new.cors.clone(),
            answers: new.answers.clone(),
            writers: new.writers.clone(),
            status_every: new.status_every,
            ..self.clone()
        };
        let (old, new) = (keys(&taken_over), keys(new));
        let names = old.keys().chain(new.keys()).collect::<std::collections::BTreeSet<_>>();
        let changed = names.into_iter().filter(|name| old.get(*name) != new.get(*name));
        let problems: Vec<String> = changed.map(|name| format!("{name}: needs a restart")).collect();
        if problems.is_empty() { Ok(()) } else { Err(ConfigError(problems)) }
    }

    /// Finds every problem at once.
    pub fn check(&self) -> Result<(), ConfigError> {
        let mut problems = Vec::new();
        if !self.admin_listen.ip().is_loopback() && self.admin_token.is_empty() {
            problems.push(format!(
                "admin_listen: {} is not loopback; set admin_token, or listen on 127.0.0.1",
                self.admin_listen
            ));
        }
        if !self.admin_listen.ip().is_loopback() && !self.admin_token.is_empty() {
            problems.extend(short_token("admin_token", self.admin_token.expose()));
        }
        if self.upstream_certificate.is_some() != self.upstream_key.is_some() {
            problems.push("upstream_certificate, upstream_key: one needs the other".to_owned());
        }
        if self.pin.allow == MayPin::Token && self.pin.token.is_empty() {
            problems.push("pin.token: must be set for `allow: token`".to_owned());
        }
        if self.name.len() > 200 {
            problems.push("name: must have at most 200 characters, and differ between routers".to_owned());
        }
        for (model, known) in &self.models {
            known.check(model, &mut problems);
        }
        for (name, value) in [("heartbeat_every", self.heartbeat_every), ("status_every", self.status_every)] {
            if value.is_zero() {
                problems.push(format!("{name}: must be longer than 0"));
            }
        }
        if self.tls.as_ref().is_some_and(|tls| tls.reload_every.is_zero()) {
            problems.push("tls.reload_every: must be longer than 0".to_owned());
        }
        if self.admin_tls.as_ref().is_some_and(|tls| tls.reload_every.is_zero()) {
            problems.push("admin_tls.reload_every: must be longer than 0".to_owned());
        }
        let mut paths = BTreeMap::new();
        for (model, path) in self.paths() {
            if let Some(other) = paths.insert(path.trim_end_matches('/'), model) {
                problems.push(format!("models.{model}.paths: {path:?} belongs to {other} already"));
            }
        }
        self.limits.check(&mut problems);
        self.timeouts.check(&mut problems);
        if self.ejection.failures > 0 && (self.ejection.base.is_zero() || self.ejection.max < self.ejection.base) {
            problems.push("ejection: base must be longer than 0, and max at least base".to_owned());
        }
        if self.event_queue == 0 {
            problems.push("event_queue: must be at least 1".to_owned());
        }
        if problems.is_empty() { Ok(()) } else { Err(ConfigError(problems)) }
    }
}

impl Config {
    /// What may be meant, and is often a mistake: a router starts with it, and says so.
    pub fn doubts(&self) -> Vec<String> {
        self.models.iter().flat_map(|(model, known)| known.doubts(model)).collect()
    }

    /// Writes them where a router writes.
    pub(crate) fn say_doubts(&self) {
        for doubt in self.doubts() {
            tracing::warn!("{doubt}");
        }
    }
}

impl Config {
    /// The models with their plain paths.
    pub(crate) fn paths(&self) -> impl Iterator<Item = (&str, &str)> {
        self.models.iter().flat_map(|(model, known)| known.paths.iter().map(|path| (model.as_str(), path.as_str())))
    }
}

impl ModelConfig {
    /// Versions that the same servers answer for, though nothing tells these which one is meant. A rollout file that names no servers
    /// would compare such a version with itself.
    fn doubts(&self, model: &str) -> Vec<String> {
        if self.versioned_paths {
            return Vec::new();
        }
        let mut found = Vec::new();
        for (place, (one, of_one)) in self.versions.iter().enumerate() {
            for (other, of_other) in self.versions.iter().skip(place + 1) {
                let told_apart = of_one.path_version() != of_other.path_version();
                let url = of_one.is_at_place_of(of_other).then(|| of_other.url());
                if let Some(url) = url.filter(|_| !told_apart) {
                    let url = without_credentials(url);
                    found.push(format!(
                        "models.{model}.versions: {url} serves both {one} and {other}, and nothing tells its servers which one is meant, so \
                         in a rollout from one to the other no check can fail; name each version's own servers, or give each a path_version"
                    ));
                }
            }
        }
        found
    }

    fn check(&self, model: &str, problems: &mut Vec<String>) {
        if !self.versions.contains_key(self.stable.as_str()) {
            let stable = self.stable.as_str();
            let other = self.versions.keys().find(|known| known.to_lowercase() == stable.to_lowercase());
            let other = other.map_or_else(String::new, |known| {
                format!("; there is {known:?} (environment variables are read in lower case: name it in the file, or with --set)")
            });
            problems.push(format!("models.{model}.stable: version {stable:?} has no URL under versions{other}"));
        }
        for (version, servers) in &self.versions {
            let urls = Base::parse_list(servers.url()).map(drop);
            let grpc = servers.grpc_url().map_or(Ok(()), |url| Base::parse(url).map(drop));
            for cause in [urls, grpc].into_iter().filter_map(Result::err) {
                problems.push(format!("models.{model}.versions.{version}: {cause}"));
            }
        }
        for path in self.paths.iter().filter(|path| !path.starts_with('/')) {
            problems.push(format!("models.{model}.paths: {path:?} must start with a slash"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_can_be_used() {
        assert_eq!(Config::default().check(), Ok(()));
    }

    #[test]
    fn all_problems_are_told_at_once() {
        let config: Config = serde_json::from_value(serde_json::json!({
            "admin_listen": "0.0.0.0:8001", "name": "x".repeat(201), "event_queue": 0, "heartbeat_every": "0",
            "models": {"flights": {"stable": "v9", "versions": {"v1": "ftp://nowhere"}}},
            "limits": {"head": 1}, "timeouts": {"connect": "0s"}
        }))
        .unwrap();
        insta::assert_snapshot!(config.check().unwrap_err(), @r#"
        the router's configuration cannot be used:
          - admin_listen: 0.0.0.0:8001 is not loopback; set admin_token, or listen on 127.0.0.1
          - name: must have at most 200 characters, and differ between routers
          - models.flights.stable: version "v9" has no URL under versions
          - models.flights.versions.v1: "ftp://nowhere" is not the base URL of an upstream (the scheme must be http, https or h2c); write http://host:port
          - heartbeat_every: must be longer than 0
          - limits.head: must be at least 8192
          - timeouts.connect: must be longer than 0
          - event_queue: must be at least 1
        "#);
    }

    #[test]
    fn a_version_that_differs_by_its_case_is_named() {
        let config: Config = serde_json::from_value(serde_json::json!({
            "models": {"flights": {"stable": "V1", "versions": {"v1": "http://a:1"}}}
        }))
        .unwrap();
        let told = config.check().unwrap_err().to_string();
        assert!(
            told.contains("\"V1\" has no URL under versions; there is \"v1\" (environment variables are read"),
            "{told}"
        );
    }

    #[test]
    fn two_versions_at_one_place_are_named_unless_their_servers_are_told_which_one_is_meant() {
        let doubts = |more: serde_json::Value| {
            let mut model = serde_json::json!({"stable": "v1"});
            let (known, more) = (model.as_object_mut().unwrap(), more.as_object().unwrap());
            known.extend(more.clone());
            let config: Config = serde_json::from_value(serde_json::json!({"models": {"flights": model}})).unwrap();
            assert_eq!(config.check(), Ok(()));
            config.doubts()
        };
        for (one, other) in [
            ("http://a:1", "http://a:1"),
            ("http://A", "http://a:80/"),
            ("http://a:1", "h2c://a:1"),
            ("http://a:1,http://b:1", "http://b:1"),
            ("http://b:1", "http://a:1,http://b:1"),
        ] {
            let found = doubts(serde_json::json!({"versions": {"v1": one, "v2": other, "v3": "http://c:1"}}));
            assert_eq!(found.len(), 1, "{one} {other}: {found:?}");
            let begin =
                format!("models.flights.versions: {other} serves both v1 and v2, and nothing tells its servers");
            assert!(found[0].starts_with(&begin), "{found:?}");
        }
        let told = |name: &str| serde_json::json!({"url": "http://a:1", "path_version": name});
        for versions in [
            serde_json::json!({"v1": "http://a:1", "v2": "http://a:2"}),
            serde_json::json!({"v1": "http://a/one", "v2": "http://a/two"}),
            serde_json::json!({"v1": "http://a:1,http://b:1", "v2": "http://b:1,http://c:1"}),
            serde_json::json!({"v1": told("1"), "v2": told("2")}),
            serde_json::json!({"v1": "http://a:1"}),
        ] {
            assert_eq!(doubts(serde_json::json!({"versions": versions})), [""; 0]);
        }
        let both = serde_json::json!({"v1": told("1"), "v2": told("1")});
        assert_eq!(doubts(serde_json::json!({"versions": both})).len(), 1);
        let both = serde_json::json!({"v1": "http://a:1", "v2": "http://a:1"});
        assert_eq!(doubts(serde_json::json!({"versions": both, "versioned_paths": true})), [""; 0]);
    }

    #[test]
    fn an_unknown_key_is_an_error() {
        let error = serde_json::from_str::<Config>(r#"{"lissten": "127.0.0.1:1"}"#).unwrap_err();
        assert!(error.to_string().contains("lissten"), "{error}");
    }
}
