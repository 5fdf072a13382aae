//! Configuration of the controller.

use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serin_access::{Secret, short_token};
use serin_listener::TlsFiles;
use serin_rollout::planner::Settings;
use serin_spec::units::Duration;

/// Settings of the controller. Durations are written like `30s`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Address of the API and the webhooks. An address other than loopback needs `tokens`.
    #[schemars(extend("format" = "ip:port"))]
    pub listen: SocketAddr,
    /// TLS certificate of the API. Without it, the API uses plain HTTP.
    pub tls: Option<TlsFiles>,
    /// Tokens of the API, by the name of the user. Without any, each client that reaches the loopback address is an operator.
    pub tokens: BTreeMap<String, Token>,
    /// How long a routing table with a canary is valid without renewal.
    pub lease: Duration,
    /// How often the lease of a routing table is renewed while verdicts arrive.
    pub lease_renewal: Duration,
    /// A rollout is held after this long (or three windows, if that is longer) without a verdict.
    pub stale_after: Duration,
    /// A router that has not reported for this long no longer holds up a step.
    pub router_ttl: Duration,
    /// Largest request body that the API reads, in bytes.
    pub max_body_bytes: usize,
    /// Number of rollouts that the API remembers. The topics keep all of them.
    pub history: usize,
    /// Rollouts that registry webhooks start, by model. A model without a policy is ignored.
    pub policies: BTreeMap<String, Policy>,
    /// The MLflow webhook.
    pub mlflow: MlflowConfig,
}

/// A token of the API.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Token {
    /// What the bearer of the token may do.
    pub role: Role,
    /// The token, with at least 16 characters. It is safer in the environment than in a file:
    /// `SERIN__CONTROLLER__TOKENS__<NAME>__TOKEN`.
    pub token: Secret,
}

/// What the bearer of a token may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Read only.
    Viewer,
    /// Read and act.
    Operator,
}

/// The rollout that a registry event of a model starts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Policy {
    /// File with the rollout spec. `${version}` in it is replaced by the new version, `${stable}` by the version that serves. Alternative
    /// to `spec`.
    pub spec_file: PathBuf,
    /// The rollout spec itself. Alternative to `spec_file`.
    pub spec: String,
    /// The registry event that starts the rollout.
    pub trigger: Trigger,
    /// The stable version before Serin's first rollout of the model. Used only while the model has no routing table.
    pub stable: Option<String>,
}

/// The registry event that starts a rollout.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Trigger {
    /// This alias was set on a version.
    Alias(String),
    /// This tag was set to this value on a version.
    Tag {
        /// The tag's key.
        key: String,
        /// The tag's value.
        value: String,
    },
    /// A version was created.
    VersionCreated,
}

impl Default for Trigger {
    fn default() -> Self {
        Self::Alias("challenger".to_owned())
    }
}

/// The MLflow webhook, `POST /hooks/mlflow`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct MlflowConfig {
    /// The secret that MLflow signs with. If it is empty, the webhook is off.
    pub secret: Secret,
    /// Largest difference between a delivery's timestamp and the controller's clock.
    pub tolerance: Duration,
}

impl Default for MlflowConfig {
    fn default() -> Self {
        Self { secret: Secret::default(), tolerance: Duration::from_secs(300) }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: ([127, 0, 0, 1], 8100).into(),
            tls: None,
            tokens: BTreeMap::new(),
            lease: Duration::from_secs(60),
            lease_renewal: Duration::from_secs(10),
            stale_after: Duration::from_secs(30),
            router_ttl: Duration::from_secs(30),
            max_body_bytes: 256 * 1024,
            history: 200,
            policies: BTreeMap::new(),
            mlflow: MlflowConfig::default(),
        }
    }
}

/// All problems of a configuration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the configuration of the controller cannot be used:\n  - {}", .0.join("\n  - "))]
pub struct ConfigError(pub Vec<String>);

impl Config {
    /// The settings of the planner.
    pub fn settings(&self) -> Settings {
        let ms = |span: Duration| span.0.0 / 1000;
        Settings {
            lease_ms: ms(self.lease),
            renew_ms: ms(self.lease_renewal),
            stale_ms: ms(self.stale_after),
            router_ms: ms(self.router_ttl),
        }
    }

    /// All problems except those of the policies, whose files [`crate::policies::Policies::load`] reads.
    pub(crate) fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if self.tokens.is_empty() && !self.listen.ip().is_loopback() {
            problems.push(format!(
                "listen: {} can be reached from other hosts, but there are no tokens; set controller.tokens, or listen on 127.0.0.1",
                self.listen
            ));
        }
        for (name, token) in &self.tokens {
            problems.extend(short_token(&format!("tokens.{name}.token"), token.token.expose()));
        }
        if self.lease_renewal.0.0.saturating_mul(2) > self.lease.0.0 || self.lease_renewal.is_zero() {
            problems.push(format!(
                "lease_renewal: {} does not fit a lease of {}; renew at least twice per lease",
                self.lease_renewal, self.lease
            ));
        }
        if self.tls.as_ref().is_some_and(|tls| tls.reload_every.is_zero()) {
            problems.push("tls.reload_every: must be longer than 0".to_owned());
        }
        for (name, span) in [("stale_after", self.stale_after), ("router_ttl", self.router_ttl)] {
            if span < Duration::from_secs(1) {
                problems.push(format!("{name}: {span} is too short; use at least 1s"));
            }
        }
        if self.max_body_bytes < 1024 {
            problems.push("max_body_bytes: too small for any rollout spec; use at least 1024".to_owned());
        }
        if self.history == 0 {
            problems.push("history: the API would keep no rollouts; use at least 1".to_owned());
        }
        problems
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_tokens_the_address_must_be_loopback() {
        assert_eq!(Config::default().problems(), Vec::<String>::new());
        let open = Config { listen: ([0, 0, 0, 0], 8100).into(), ..Config::default() };
        assert!(open.problems()[0].starts_with("listen: 0.0.0.0:8100 can be reached from other hosts"));
        let token = |text| Token { role: Role::Viewer, token: Secret::new(text) };
        let tokens = [("ci".to_owned(), token("0123456789abcdef"))].into();
        assert_eq!(Config { tokens, ..open.clone() }.problems(), Vec::<String>::new());
        let tokens = [("ci".to_owned(), token("short"))].into();
        assert!(Config { tokens, ..open }.problems()[0].starts_with("tokens.ci.token: shorter"));
    }

    #[test]
    fn all_problems_are_reported_at_once() {
        let config = Config {
            lease_renewal: Duration::from_secs(59),
            stale_after: Duration::default(),
            history: 0,
            max_body_bytes: 1,
            ..Config::default()
        };
        assert_eq!(config.problems().len(), 4);
    }
}
