//! Configuration of the connector, and the destinations that are loaded from it.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::Uri;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serin_access::Secret;
use serin_spec::units::Duration;

/// Most destinations. Each has a worker and series of its own.
const DESTINATIONS_MAX: usize = 100;
/// Longest name of a destination, in bytes.
const NAME_MAX: usize = 64;
/// Longest pattern of a model, in bytes.
const PATTERN_MAX: usize = 200;
/// Prefix of the secrets of Standard Webhooks.
const SECRET_PREFIX: &str = "whsec_";
/// Where events for `PagerDuty` go.
const PAGERDUTY: &str = "https://events.pagerduty.com/v2/enqueue";

/// Settings of the connector. Durations are written like `30s`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The destinations. Without any, `serin up` runs without a connector.
    pub destinations: Vec<Destination>,
    /// Address at which people reach the controller's web page, such as `https://serin.example.com`. Messages link to the rollout there.
    /// Without it, messages have no link.
    pub public_url: String,
    /// Timeout of one call.
    pub timeout: Duration,
    /// A delivery that a destination has not accepted after this time is given up.
    pub give_up_after: Duration,
    /// PEM file with the CAs that the certificates of destinations are checked against. Without it, the CAs that the system trusts.
    pub ca_file: Option<PathBuf>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            destinations: Vec::new(),
            public_url: String::new(),
            timeout: Duration::from_secs(10),
            give_up_after: Duration::from_secs(24 * 60 * 60),
            ca_file: None,
        }
    }
}

/// A destination: what is called, and about which events.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Destination {
    /// Name in metrics, logs and records: lower-case letters, digits and `-`.
    pub name: String,
    /// The service that is called.
    pub kind: Kind,
    /// Address that is called. For Slack and Teams it is a secret: prefer `url_file`. `PagerDuty` has a default.
    #[serde(default)]
    pub url: Secret,
    /// File with the address.
    #[serde(default)]
    pub url_file: Option<PathBuf>,
    /// File with the secret: the signing secret of a webhook (`whsec_...`), or the integration key of `PagerDuty`.
    #[serde(default)]
    pub secret_file: Option<PathBuf>,
    /// The events that are sent. Default: `needs_decision`, `rolled_back`, `held`, `promoted`, `completed`, `undone` and `warned`; for
    /// `PagerDuty`: `needs_decision`, `rolled_back` and `held`.
    #[serde(default)]
    pub on: Vec<On>,
    /// The models whose events are sent: names, or patterns with `*`. Default: every model.
    #[serde(default)]
    pub models: Vec<String>,
}

/// The service of a destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Any HTTP endpoint, with signatures as Standard Webhooks specifies them.
    Webhook,
    /// An incoming webhook of Slack.
    Slack,
    /// A workflow of Microsoft Teams that starts with a webhook request.
    Teams,
    /// The Events API v2 of `PagerDuty`.
    Pagerduty,
}

/// What a message is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum On {
    /// Only a person can end a hold, or a step waits for an approval.
    NeedsDecision,
    /// The rollout was rolled back to stable.
    RolledBack,
    /// The rollout was held.
    Held,
    /// The canary serves everything except the holdback of the monitor.
    Promoted,
    /// The rollout succeeded.
    Completed,
    /// A person went back to the version that served before.
    Undone,
    /// A warning that did not change the rollout.
    Warned,
    /// A rollout was accepted.
    Started,
    /// The phase or the step changed.
    Advanced,
    /// The rollout continues.
    Resumed,
    /// An operator paused the rollout.
    Paused,
    /// A command was refused.
    Refused,
    /// An operator ended the rollout.
    Aborted,
    /// A newer rollout ended this one.
    Superseded,
    /// Every router has applied a rollback.
    Confirmed,
    /// No steps are taken of the models that match a pattern.
    Frozen,
    /// Steps are taken again.
    Unfrozen,
    /// A person judged an ended rollout.
    Marked,
}

impl On {
    /// The word in the configuration, on topics and in webhooks.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NeedsDecision => "needs_decision",
            Self::RolledBack => "rolled_back",
            Self::Held => "held",
            Self::Promoted => "promoted",
            Self::Completed => "completed",
            Self::Undone => "undone",
            Self::Warned => "warned",
            Self::Started => "started",
            Self::Advanced => "advanced",
            Self::Resumed => "resumed",
            Self::Paused => "paused",
            Self::Refused => "refused",
            Self::Aborted => "aborted",
            Self::Superseded => "superseded",
            Self::Confirmed => "confirmed",
            Self::Frozen => "frozen",
            Self::Unfrozen => "unfrozen",
            Self::Marked => "marked",
        }
    }
}

/// What is sent without a setting.
const USUAL: [On; 7] =
    [On::NeedsDecision, On::RolledBack, On::Held, On::Promoted, On::Completed, On::Undone, On::Warned];
/// What opens an incident without a setting.
const INCIDENTS: [On; 3] = [On::NeedsDecision, On::RolledBack, On::Held];
/// What may open an incident.
const MAY_BE_INCIDENTS: [On; 5] = [On::NeedsDecision, On::RolledBack, On::Held, On::Paused, On::Warned];

/// A destination with its secrets.
#[derive(Clone, Debug)]
pub(crate) struct Loaded {
    pub(crate) name: String,
    pub(crate) kind: Kind,
    pub(crate) url: Secret,
    /// The key of the signature or the integration key. Empty if the kind has none.
    pub(crate) secret: Secret,
    pub(crate) on: BTreeSet<On>,
    pub(crate) models: Vec<String>,
}

/// Reads the files of all destinations and checks everything.
pub(crate) fn load(config: &Config) -> Result<Vec<Loaded>, Vec<String>> {
    let mut problems = Vec::new();
    if config.destinations.is_empty() {
        problems.push("destinations: there is none; name at least one (docs/connector.md)".to_owned());
    }
    if config.destinations.len() > DESTINATIONS_MAX {
        problems.push(format!("destinations: at most {DESTINATIONS_MAX} are supported"));
    }
    if !config.public_url.is_empty() {
        problems.extend(wrong_address(&config.public_url).map(|why| format!("public_url: {why}")));
    }
    if config.timeout < Duration::from_secs(1) || config.timeout > Duration::from_secs(300) {
        problems.push(format!("timeout: {} is not between 1s and 5m", config.timeout));
    }
    if config.give_up_after < Duration::from_secs(60) || config.give_up_after > Duration::from_secs(7 * 86_400) {
        problems.push(format!("give_up_after: {} is not between 1m and 7d", config.give_up_after));
    }
    let mut loaded: Vec<Loaded> = Vec::new();
    for (index, destination) in config.destinations.iter().enumerate() {
        let place = format!("destinations[{index}]");
        match destination.load() {
            Ok(destination) if loaded.iter().any(|other| other.name == destination.name) => {
                problems.push(format!("{place}.name: another destination has the same name"));
            }
            Ok(destination) => loaded.push(destination),
            Err(found) => problems.extend(found.into_iter().map(|problem| format!("{place}.{problem}"))),
        }
    }
    if problems.is_empty() { Ok(loaded) } else { Err(problems) }
}

impl Destination {
    fn load(&self) -> Result<Loaded, Vec<String>> {
        let mut problems = Vec::new();
        let legal = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        if self.name.is_empty() || self.name.len() > NAME_MAX || !self.name.bytes().all(legal) {
            problems.push(format!("name: use 1 to {NAME_MAX} lower-case letters, digits and `-`"));
        }
        let url = self.url().unwrap_or_else(|problem| {
            problems.push(problem);
            Secret::default()
        });
        let secret = self.secret().unwrap_or_else(|problem| {
            problems.push(problem);
            Secret::default()
        });
        let on: BTreeSet<On> = match (self.on.is_empty(), self.kind) {
            (false, _) => self.on.iter().copied().collect(),
            (true, Kind::Pagerduty) => INCIDENTS.into(),
            (true, _) => USUAL.into(),
        };
        if let Some(other) = on.iter().find(|on| self.kind == Kind::Pagerduty && !MAY_BE_INCIDENTS.contains(on)) {
            let may: Vec<&str> = MAY_BE_INCIDENTS.iter().map(|on| on.as_str()).collect();
            problems.push(format!("on: {} opens no incident in PagerDuty; use {}", other.as_str(), may.join(", ")));
        }
        if self.models.iter().any(|model| model.is_empty() || model.len() > PATTERN_MAX) {
            problems.push(format!("models: use names or patterns of 1 to {PATTERN_MAX} bytes; `*` is every model"));
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        let models = if self.models.is_empty() { vec!["*".to_owned()] } else { self.models.clone() };
        Ok(Loaded { name: self.name.clone(), kind: self.kind, url, secret, on, models })
    }

    fn url(&self) -> Result<Secret, String> {
        let text = match (self.url.is_empty(), &self.url_file) {
            (false, None) => self.url.expose().to_owned(),
            (true, Some(file)) => read("url_file", file)?,
            (true, None) if self.kind == Kind::Pagerduty => PAGERDUTY.to_owned(),
            _ => return Err("url: set either url or url_file".to_owned()),
        };
        match wrong_address(&text) {
            Some(why) => Err(format!("{}: {why}", if self.url_file.is_some() { "url_file" } else { "url" })),
            None => Ok(Secret::new(text)),
        }
    }

    fn secret(&self) -> Result<Secret, String> {
        let needed = matches!(self.kind, Kind::Webhook | Kind::Pagerduty);
        match (&self.secret_file, needed) {
            (None, false) => Ok(Secret::default()),
            (Some(_), false) => Err("secret_file: this kind needs none; its address is the secret".to_owned()),
            (None, true) => Err("secret_file: this kind needs one".to_owned()),
            (Some(file), true) => {
                let text = read("secret_file", file)?;
                if self.kind == Kind::Webhook && signing_key(&text).is_none() {
                    return Err(format!(
                        "secret_file: {} must contain {SECRET_PREFIX} and 24 to 64 bytes in base64; \
                         `echo {SECRET_PREFIX}$(openssl rand -base64 32)` generates one",
                        file.display()
                    ));
                }
                if text.is_empty() || text.len() > 100 || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
                    return Err(format!("secret_file: {} must contain one key of 1 to 100 characters", file.display()));
                }
                Ok(Secret::new(text))
            }
        }
    }
}

/// The key in a secret of Standard Webhooks.
pub(crate) fn signing_key(secret: &str) -> Option<Vec<u8>> {
    let key = STANDARD.decode(secret.strip_prefix(SECRET_PREFIX)?).ok()?;
    (24..=64).contains(&key.len()).then_some(key)
}

/// Reads the one line of a file. The message does not quote it.
fn read(setting: &str, file: &Path) -> Result<String, String> {
    let text = std::fs::read_to_string(file)
        .map_err(|error| format!("{setting}: {} cannot be read: {error}", file.display()))?;
    Ok(text.trim().to_owned())
}

/// Why an address cannot be called. The message does not quote the address, which may be a secret.
fn wrong_address(text: &str) -> Option<&'static str> {
    let Ok(uri) = text.parse::<Uri>() else { return Some("this is not an address; write https://HOST/PATH") };
    if !matches!(uri.scheme_str(), Some("https" | "http")) {
        return Some("the address must start with https:// or http://");
    }
    match uri.authority() {
        Some(authority) if authority.as_str().contains('@') => {
            Some("an address with a user or a password cannot be used here; remove the part before the `@`")
        }
        Some(authority) if !authority.host().is_empty() => None,
        _ => Some("the address names no host"),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn loaded(name: &str, kind: Kind, on: &[On]) -> Loaded {
        let secret = if kind == Kind::Webhook { "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw" } else { "key" };
        Loaded {
            name: name.to_owned(),
            kind,
            url: Secret::new("http://127.0.0.1:9/hook"),
            secret: Secret::new(secret),
            on: on.iter().copied().collect(),
            models: vec!["*".to_owned()],
        }
    }

    fn config(destinations: &serde_json::Value) -> Config {
        serde_json::from_value(serde_json::json!({ "destinations": destinations })).unwrap()
    }

    #[test]
    fn secrets_are_read_from_files_and_defaults_depend_on_the_kind() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let signing = file("signing", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n");
        let url = file("url", "https://hooks.slack.com/services/T/B/X\n");
        let key = file("key", "0123456789abcdef0123456789abcdef\n");
        let config = config(&serde_json::json!([
            {"name": "own", "kind": "webhook", "url": "http://receiver:8080/serin", "secret_file": signing},
            {"name": "chat", "kind": "slack", "url_file": url, "on": ["held"], "models": ["fraud-*"]},
            {"name": "on-call", "kind": "pagerduty", "secret_file": key},
        ]));
        let loaded = load(&config).unwrap();
        assert_eq!(loaded[0].on.len(), 7);
        assert_eq!(loaded[1].url.expose(), "https://hooks.slack.com/services/T/B/X");
        assert_eq!((loaded[1].on.len(), &*loaded[1].models[0]), (1, "fraud-*"));
        assert_eq!((loaded[2].url.expose(), loaded[2].on.len()), (PAGERDUTY, 3));
        let shown = serde_json::to_string(&config).unwrap() + &format!("{config:?}{loaded:?}");
        assert!(!shown.contains("hooks.slack") && !shown.contains("whsec_") && !shown.contains("01234567"), "{shown}");
    }

    #[test]
    fn all_problems_are_reported_at_once_without_secrets() {
        assert_eq!(
            problems(&Config::default()),
            ["destinations: there is none; name at least one (docs/connector.md)"]
        );
        let folder = tempfile::tempdir().unwrap();
        let short = folder.path().join("short");
        std::fs::write(&short, "whsec_aHVudGVyMg==").unwrap();
        let mut config = config(&serde_json::json!([
            {"name": "A b", "kind": "webhook", "url": "ftp://hunter2", "secret_file": short},
            {"name": "a", "kind": "slack", "url": "https://u:hunter2@h/", "secret_file": "x"},
            {"name": "b", "kind": "teams", "models": [""]},
            {"name": "c", "kind": "pagerduty", "on": ["promoted"]},
            {"name": "d", "kind": "slack", "url_file": "/nowhere"},
            {"name": "e", "kind": "teams", "url": "https://h/x"},
            {"name": "e", "kind": "teams", "url": "https://h/x"},
        ]));
        config.timeout = Duration::default();
        config.give_up_after = Duration::default();
        config.public_url = "serin".to_owned();
        let found = problems(&config);
        assert!(!found.join("\n").contains("hunter2") && !found.join("\n").contains("aHVu"), "{found:?}");
        let starts = [
            "public_url: the address must start",
            "timeout: 0s",
            "give_up_after: 0s",
            "destinations[0].name: use",
            "destinations[0].url: the address must start",
            "destinations[0].secret_file: ",
            "destinations[1].url: an address with a user",
            "destinations[1].secret_file: this kind needs none",
            "destinations[2].url: set either",
            "destinations[2].models: ",
            "destinations[3].secret_file: this kind needs one",
            "destinations[3].on: promoted opens no incident",
            "destinations[4].url_file: /nowhere cannot be read",
            "destinations[6].name: another destination",
        ];
        assert_eq!(found.len(), starts.len(), "{found:#?}");
        for (problem, start) in found.iter().zip(starts) {
            assert!(problem.starts_with(start), "{problem} does not start with {start}");
        }
    }

    fn problems(config: &Config) -> Vec<String> {
        load(config).err().unwrap_or_default()
    }
}
