//! Configuration of the router.

pub(crate) mod base;
mod limits;

use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf, time::Duration as StdDuration};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serin_access::{Secret, WriterList, short_token};
use serin_doors::DoorRules;
use serin_listener::TlsFiles;
use serin_schemas::ids::Version;
use serin_spec::{Address, OutputRule, SegmentSpec, address::without_credentials, units::Duration};

pub use limits::{Ejection, Limits, Timeouts};

use crate::config::base::Base;

/// Settings of the router. Durations are written like `30s`, sizes are in bytes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Address and port that callers connect to.
    #[schemars(extend("format" = "ip:port"))]
    pub listen: SocketAddr,
    /// TLS listener for callers. Left out: callers cannot connect over TLS.
    pub tls: Option<TlsConfig>,
    /// PEM file with the CA certificates that `https://` upstreams are verified against. Left out: the system's trust store.
    pub upstream_ca: Option<PathBuf>,
    /// PEM file with the client certificate that the router presents to upstreams that request one. Left out: none.
    pub upstream_certificate: Option<PathBuf>,
    /// PEM file with the key of `upstream_certificate`.
    pub upstream_key: Option<PathBuf>,
    /// Address and port of the admin API. An address other than loopback requires `admin_token`.
    #[schemars(extend("format" = "ip:port"))]
    pub admin_listen: SocketAddr,
    /// Certificate of the admin API. Left out: the admin API uses plain HTTP.
    pub admin_tls: Option<TlsFiles>,
    /// Bearer token that requests to the admin API must carry if they change something. Empty: no token is required.
    pub admin_token: Secret,
    /// Name of this router. It must be unique and must not change across restarts. Empty: derived from the name of the pod or container, or
    /// otherwise generated once and stored in `data_dir`.
    pub name: String,
    /// Directory in which the router stores its latest routing tables and the local switch.
    pub data_dir: PathBuf,
    /// Source of event time.
    pub clock: ClockKind,
    /// Seed of the random split. With a seed, the prediction id of a request decides its arm, so that a replay is repeatable. Left out: the
    /// arm is random.
    pub random_seed: Option<u64>,
    /// Number of threads that serve calls. Each thread has its own connections to the model servers. 0: one thread per processor.
    pub workers: usize,
    /// Which calls are reported as events.
    pub report: Report,
    /// Which callers may ask for a version.
    pub pin: Pinning,
    /// Which web pages may call the paths that the router itself answers to browsers.
    pub cors: CorsConfig,
    /// Headers that the router adds to answers.
    pub answers: Answers,
    /// Which writers may send feedback and events. Set under `writers` of the whole configuration. If there are none, processes on this
    /// machine may send where the router listens on loopback; everywhere else feedback and events are refused.
    #[serde(skip)]
    pub writers: WriterList,
    /// Where the doors for foreign traffic find model, version, unit and outputs. Set under `doors` of the whole configuration.
    #[serde(skip)]
    pub doors: DoorRules,
    /// What is known about each model independently of its routing table.
    pub models: BTreeMap<String, ModelConfig>,
    /// Limits on what the router accepts and keeps.
    pub limits: Limits,
    /// Timeouts of the router.
    pub timeouts: Timeouts,
    /// When a failing server stops receiving calls for a while.
    pub ejection: Ejection,
    /// Maximum number of events queued for the log. When the queue is full, events are dropped and counted; requests are never dropped.
    pub event_queue: usize,
    /// How often the router writes a heartbeat to every partition of `events` (wall clock only).
    pub heartbeat_every: Duration,
    /// How often the router reports which tables it has applied.
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
            doors: DoorRules::default(),
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

/// Source of event time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ClockKind {
    /// The machine's clock.
    #[default]
    Wall,
    /// The client that replays recorded traffic: with `PUT /replay/clock` on the admin port, or `x-serin-event-time` on a request.
    Replay,
}

/// Which calls are reported as events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Report {
    /// Every call of a model.
    #[default]
    All,
    /// Only calls of models that are in a rollout. Other models are not judged.
    Rollouts,
}

/// Headers that the router adds to answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Answers {
    /// Whether answers name the arm and the version (`x-model-arm`, `x-model-version`; also in gRPC metadata and in the router's own
    /// errors). A caller that does not know the arm cannot act against one arm only.
    pub arm_header: bool,
}

impl Default for Answers {
    fn default() -> Self {
        Self { arm_header: true }
    }
}

/// Which callers may ask for a version, with `x-model-version`, in the path or in a gRPC message.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Pinning {
    /// Which callers may ask for a version.
    pub allow: MayPin,
    /// Token that `x-serin-pin-token` must contain with `allow: token`.
    pub token: Secret,
}

/// How the router answers CORS preflight requests: at its own paths, and at paths where the body names the model. At the paths of a
/// model, the model's servers answer them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CorsConfig {
    /// Origins of pages that may call, such as `https://app.example`; `*` allows all. CORS headers that the servers set on their answers
    /// are kept.
    pub origins: Vec<String>,
}

impl Default for CorsConfig {
    fn default() -> Self {
        Self { origins: vec!["*".to_owned()] }
    }
}

/// Which callers may ask for a version.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum MayPin {
    /// Every caller.
    #[default]
    Always,
    /// No caller.
    Never,
    /// Callers that send the token.
    Token,
}

/// What is known about one model independently of its routing table.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ModelConfig {
    /// Version that serves the model while there is no routing table.
    #[schemars(with = "String")]
    pub stable: Version,
    /// Servers of each version: a base URL, several base URLs separated by commas, or an object with more settings. URLs in a routing table
    /// take precedence.
    pub versions: BTreeMap<String, VersionServers>,
    /// Zone of each server, by its `host:port`. Predictions report it.
    #[serde(default)]
    pub zones: BTreeMap<String, String>,
    /// Whether the servers expect `/versions/<v>` in the path, with the version's name as it is used here. `KServe`'s servers do not;
    /// Triton's may. The `path_version` of a version takes precedence.
    #[serde(default)]
    pub versioned_paths: bool,
    /// Plain HTTP paths of this model, each with all paths below it. If several paths of all models match, the longest one wins.
    #[serde(default)]
    pub paths: Vec<String>,
    /// Where segments are read from while there is no routing table.
    #[serde(default)]
    pub segments: Vec<SegmentSpec>,
    /// How outputs are read while there is no routing table.
    #[serde(default)]
    pub outputs: Vec<OutputRule>,
}

/// Servers of a version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum VersionServers {
    /// Base URL of the servers, or several separated by commas.
    Url(String),
    /// Base URL of the servers with more settings.
    Full(ServersConfig),
}

/// Settings of the servers of a version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ServersConfig {
    /// Base URL of the servers: `http://`, `https://`, or `h2c://` for HTTP/2 without TLS.
    pub url: String,
    /// Base URL for gRPC, if the servers use another port for it.
    #[serde(default)]
    pub grpc_url: Option<String>,
    /// Name that the servers have for the version. Left out: the servers expect no version in the path.
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

    /// Whether all servers of one version are also servers of the other. URLs that cannot be parsed match no server.
    fn shares_servers_with(&self, other: &Self) -> bool {
        let read = |servers: &Self| Address::parse_list(servers.url()).unwrap_or_default();
        let (one, other) = (read(self), read(other));
        let within = |few: &[Address], many: &[Address]| {
            !few.is_empty() && few.iter().all(|server| many.iter().any(|known| known.has_same_endpoint(server)))
        };
        within(&one, &other) || within(&other, &one)
    }

    /// The base URL for gRPC, if it differs from the base URL.
    pub fn grpc_url(&self) -> Option<&str> {
        match self {
            Self::Url(_) => None,
            Self::Full(servers) => servers.grpc_url.as_deref(),
        }
    }

    /// The name that the servers have for the version, if they expect one in the path.
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

/// TLS listener for callers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TlsConfig {
    /// Address and port that callers connect to over TLS.
    #[schemars(extend("format" = "ip:port"))]
    pub listen: SocketAddr,
    /// PEM file with the certificate and the intermediate certificates.
    pub certificate: PathBuf,
    /// PEM file with the key of the certificate.
    pub key: PathBuf,
    /// PEM file with CA certificates. If set, callers must present a client certificate of one of these authorities.
    #[serde(default)]
    pub client_ca: Option<PathBuf>,
    /// How often the files are checked for changes. After a change, new connections get the new certificate.
    #[serde(default = "TlsFiles::reload_every")]
    pub reload_every: Duration,
}

impl TlsConfig {
    /// The certificate files of this listener.
    pub(crate) fn files(&self) -> TlsFiles {
        TlsFiles {
            certificate: self.certificate.clone(),
            key: self.key.clone(),
            client_ca: self.client_ca.clone(),
            reload_every: self.reload_every,
        }
    }
}

/// A configured duration as a standard duration.
pub(crate) fn span(duration: Duration) -> StdDuration {
    StdDuration::from_micros(duration.0.0.max(0).unsigned_abs())
}

/// The values of a configuration by key, down to the second level.
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

/// All problems of a configuration.
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
            doors: new.doors.clone(),
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
            problems.push("upstream_certificate, upstream_key: set both or neither".to_owned());
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
                problems.push(format!("models.{model}.paths: {path:?} already belongs to {other}"));
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
    /// Settings that are valid but often a mistake. The router starts with them and logs them as warnings.
    pub fn doubts(&self) -> Vec<String> {
        self.models.iter().flat_map(|(model, known)| known.doubts(model)).collect()
    }

    /// Logs the doubts as warnings.
    pub(crate) fn log_doubts(&self) {
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
    /// Versions that share servers although no request shows these servers which version is meant. A rollout file that names no servers
    /// would compare such a version with itself.
    fn doubts(&self, model: &str) -> Vec<String> {
        if self.versioned_paths {
            return Vec::new();
        }
        let mut found = Vec::new();
        for (place, (one, of_one)) in self.versions.iter().enumerate() {
            for (other, of_other) in self.versions.iter().skip(place + 1) {
                let differ_in_path = of_one.path_version() != of_other.path_version();
                let url = of_one.shares_servers_with(of_other).then(|| of_other.url());
                if let Some(url) = url.filter(|_| !differ_in_path) {
                    let url = without_credentials(url);
                    found.push(format!(
                        "models.{model}.versions: {url} serves both {one} and {other}, and requests do not show its servers which version \
                         is meant, so in a rollout from one to the other no check can fail; set separate servers or a path_version for each version"
                    ));
                }
            }
        }
        found
    }

    fn check(&self, model: &str, problems: &mut Vec<String>) {
        // A rollout file can name no other model or version.
        let is_name = |name: &str| !name.is_empty() && !name.chars().any(|c| c.is_whitespace() || c.is_control());
        if !is_name(model) {
            problems.push(format!("models: {model:?} is not a valid name of a model; use one word without spaces"));
        }
        for version in self.versions.keys().filter(|version| !is_name(version)) {
            problems
                .push(format!("models.{model}.versions: {version:?} is not a valid name; use one word without spaces"));
        }
        if !self.versions.contains_key(self.stable.as_str()) {
            let stable = self.stable.as_str();
            let other = self.versions.keys().find(|known| known.to_lowercase() == stable.to_lowercase());
            let other = other.map_or_else(String::new, |known| {
                format!("; {known:?} exists (environment variables are read in lower case: set the name in the file or with --set)")
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
    fn all_problems_are_reported_at_once() {
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

    /// A rollout file cannot name them, and callers cannot either.
    #[test]
    fn names_with_spaces_are_refused() {
        for (model, version, problem) in [
            ("a b", "v1", r#"models: "a b" is not a valid name of a model; use one word without spaces"#),
            ("", "v1", r#"models: "" is not a valid name of a model; use one word without spaces"#),
            ("a\n", "v1", r#"models: "a\n" is not a valid name of a model; use one word without spaces"#),
            ("a", "v 1", r#"models.a.versions: "v 1" is not a valid name; use one word without spaces"#),
            ("a", "", r#"models.a.versions: "" is not a valid name; use one word without spaces"#),
        ] {
            let config: Config = serde_json::from_value(serde_json::json!({
                "models": {model: {"stable": version, "versions": {version: "http://a:1"}}}
            }))
            .unwrap();
            let error = config.check().unwrap_err().to_string();
            assert!(error.contains(problem), "{error}");
        }
    }

    #[test]
    fn a_version_that_differs_by_its_case_is_named() {
        let config: Config = serde_json::from_value(serde_json::json!({
            "models": {"flights": {"stable": "V1", "versions": {"v1": "http://a:1"}}}
        }))
        .unwrap();
        let error = config.check().unwrap_err().to_string();
        assert!(
            error.contains("\"V1\" has no URL under versions; \"v1\" exists (environment variables are read"),
            "{error}"
        );
    }

    #[test]
    fn versions_that_share_servers_are_reported_unless_requests_show_which_one_is_meant() {
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
                format!("models.flights.versions: {other} serves both v1 and v2, and requests do not show its servers");
            assert!(found[0].starts_with(&begin), "{found:?}");
        }
        let named = |name: &str| serde_json::json!({"url": "http://a:1", "path_version": name});
        for versions in [
            serde_json::json!({"v1": "http://a:1", "v2": "http://a:2"}),
            serde_json::json!({"v1": "http://a/one", "v2": "http://a/two"}),
            serde_json::json!({"v1": "http://a:1,http://b:1", "v2": "http://b:1,http://c:1"}),
            serde_json::json!({"v1": named("1"), "v2": named("2")}),
            serde_json::json!({"v1": "http://a:1"}),
        ] {
            assert_eq!(doubts(serde_json::json!({"versions": versions})), [""; 0]);
        }
        let both = serde_json::json!({"v1": named("1"), "v2": named("1")});
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
