//! Configuration of the controller.

use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serin_access::{Secret, short_token};
use serin_listener::TlsFiles;
use serin_rollout::planner::Settings;
use serin_spec::units::Duration;

/// What can be set. Spans are written `30s`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Where the API and the webhooks listen. Beyond loopback it needs `tokens`.
    #[schemars(extend("format" = "ip:port"))]
    pub listen: SocketAddr,
    /// The certificate of that address. Left out: it speaks plain HTTP.
    pub tls: Option<TlsFiles>,
    /// Who may use the API, by name. None: whoever reaches the loopback address, as operator.
    pub tokens: BTreeMap<String, Token>,
    /// How long a routing table with a canary in it holds without renewal.
    pub lease: Duration,
    /// How often it is renewed, while verdicts come.
    pub lease_renewal: Duration,
    /// Without a verdict for this long (or three windows, if that is longer) a rollout is held.
    pub stale_after: Duration,
    /// A router that has not reported for this long no longer holds up a step.
    pub router_ttl: Duration,
    /// Longest body that the API reads.
    pub max_body_bytes: usize,
    /// Rollouts that the API remembers. Topics keep all.
    pub history: usize,
    /// What registry webhooks start, by model. A model without a policy is ignored.
    pub policies: BTreeMap<String, Policy>,
    /// The webhook of MLflow.
    pub mlflow: MlflowConfig,
}

/// A token of the API.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Token {
    /// What its bearer may do.
    pub role: Role,
    /// The token, of 16 characters at least. Better in the environment than in a file:
    /// `SERIN__CONTROLLER__TOKENS__<NAME>__TOKEN`.
    pub token: Secret,
}

/// What the bearer of a token may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Look.
    Viewer,
    /// Look and act.
    Operator,
}

/// What a registry event of a model starts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Policy {
    /// File with the rollout spec. `${version}` in it becomes the new version, `${stable}` the one that serves. Or `spec`.
    pub spec_file: PathBuf,
    /// The rollout spec itself. Or `spec_file`.
    pub spec: String,
    /// What starts it.
    pub trigger: Trigger,
    /// The stable version before Serin's first rollout of the model, as long as no routing table tells it.
    pub stable: Option<String>,
}

/// What a registry event must say to start a rollout.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Trigger {
    /// This alias was set on a version.
    Alias(String),
    /// This tag was set to this value on a version.
    Tag {
        /// Its key.
        key: String,
        /// Its value.
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

/// The webhook of MLflow, `POST /hooks/mlflow`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct MlflowConfig {
    /// The secret that MLflow signs with. Empty: the webhook is off.
    pub secret: Secret,
    /// How old or early a delivery may be.
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

/// Everything that is wrong with a configuration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the configuration of the controller cannot be used:\n  - {}", .0.join("\n  - "))]
pub struct ConfigError(pub Vec<String>);

impl Config {
    /// What the planner needs of it.
    pub fn settings(&self) -> Settings {
        let ms = |span: Duration| span.0.0 / 1000;
        Settings {
            lease_ms: ms(self.lease),
            renew_ms: ms(self.lease_renewal),
            stale_ms: ms(self.stale_after),
            router_ms: ms(self.router_ttl),
        }
    }

    /// All problems, but for those of the policies, whose files [`crate::policies::Policies::load`] reads.
    pub(crate) fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if self.tokens.is_empty() && !self.listen.ip().is_loopback() {
            problems.push(format!(
                "listen: {} can be reached from elsewhere, and there are no tokens; set controller.tokens, or listen on 127.0.0.1",
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
            problems.push("max_body_bytes: no rollout spec is that short; use at least 1024".to_owned());
        }
        if self.history == 0 {
            problems.push("history: the API would know no rollout; use at least 1".to_owned());
        }
        problems
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_tokens_only_loopback_is_listened_on() {
        assert_eq!(Config::default().problems(), Vec::<String>::new());
        let open = Config { listen: ([0, 0, 0, 0], 8100).into(), ..Config::default() };
        assert!(open.problems()[0].starts_with("listen: 0.0.0.0:8100 can be reached from elsewhere"));
        let token = |text| Token { role: Role::Viewer, token: Secret::new(text) };
        let tokens = [("ci".to_owned(), token("0123456789abcdef"))].into();
        assert_eq!(Config { tokens, ..open.clone() }.problems(), Vec::<String>::new());
        let tokens = [("ci".to_owned(), token("short"))].into();
        assert!(Config { tokens, ..open }.problems()[0].starts_with("tokens.ci.token: shorter"));
    }

    #[test]
    fn all_problems_are_told_at_once() {
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
