//! Options for connecting to a Kafka cluster.
//!
//! Secrets are passed only to librdkafka. They are never printed, serialized or included in an error.

use std::{collections::BTreeMap, fmt, fs::File, path::PathBuf};

use rdkafka::{ClientConfig, config::RDKafkaLogLevel};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize, Serializer};
use serin_access::Secret;

use crate::{local::failed, log::LogError};

/// Properties that Serin's guarantees depend on. Only Serin sets them.
const RESERVED_PROPERTIES: [&str; 21] = [
    "acks",
    "allow.auto.create.topics",
    "auto.commit.enable",
    "auto.offset.reset",
    "bootstrap.servers",
    "delivery.timeout.ms",
    "enable.auto.commit",
    "enable.auto.offset.store",
    "enable.idempotence",
    "enable.partition.eof",
    "group.id",
    "group.instance.id",
    "isolation.level",
    "message.max.bytes",
    "message.timeout.ms",
    "metadata.broker.list",
    "partition.assignment.strategy",
    "queue.buffering.max.messages",
    "request.required.acks",
    "transaction.timeout.ms",
    "transactional.id",
];

/// Aliases of properties that Serin sets or reads, with the name to use instead. If both names are set, librdkafka
/// uses the last one, and the order is not defined.
const ALIASES: [(&str, &str); 3] = [
    ("compression.codec", "compression.type"),
    ("queue.buffering.max.ms", "linger.ms"),
    ("sasl.mechanisms", "sasl.mechanism"),
];

/// Properties whose names contain one of these parts are secret: their values are never printed.
const SECRET_PARTS: [&str; 6] = ["password", "passphrase", "secret", "token", ".pem", "jaas"];

/// A Kafka cluster and how to connect to it.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct KafkaOptions {
    /// Brokers for the initial connection: `host:port`, separated by commas.
    pub brokers: String,
    /// Prefix of every topic, group and transactional id. The topology sets it.
    #[serde(skip)]
    pub prefix: String,
    /// A name for this process that stays the same across restarts, such as the name of a pod. With it, a restart
    /// within the session timeout does not move partitions (static membership). Each process needs its own name.
    pub instance: Option<String>,
    /// Encryption and authentication.
    pub security: Security,
    /// Additional librdkafka properties, by name. Properties that Serin's guarantees depend on are refused.
    #[serde(serialize_with = "without_secrets")]
    #[schemars(schema_with = "any_properties")]
    pub properties: BTreeMap<String, String>,
}

/// Encryption and authentication.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Security {
    /// `plaintext`, `ssl`, `sasl_plaintext` or `sasl_ssl`.
    pub protocol: Protocol,
    /// PEM file with the certificate authorities that sign the brokers' certificates. Default: the system's
    /// authorities.
    pub ca_file: Option<PathBuf>,
    /// PEM file with the client's certificate.
    pub certificate_file: Option<PathBuf>,
    /// PEM file with the client's private key.
    pub key_file: Option<PathBuf>,
    /// Password of the client's private key.
    pub key_password: Option<Secret>,
    /// SASL mechanism: `PLAIN`, `SCRAM-SHA-256` or `SCRAM-SHA-512`.
    pub sasl_mechanism: Option<String>,
    /// SASL username.
    pub username: Option<String>,
    /// SASL password.
    pub password: Option<Secret>,
}

/// How a connection is encrypted and authenticated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    /// No encryption and no authentication.
    #[default]
    Plaintext,
    /// TLS. The client may present a certificate.
    Ssl,
    /// SASL without encryption.
    SaslPlaintext,
    /// SASL within TLS.
    SaslSsl,
}

/// Property names contain dots, which may also be written as nested objects.
fn any_properties(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "object", "additionalProperties": {}})
}

fn shown(properties: &BTreeMap<String, String>) -> BTreeMap<&str, &str> {
    let is_secret = |name: &str| SECRET_PARTS.iter().any(|part| name.contains(part));
    properties.iter().map(|(name, value)| (name.as_str(), if is_secret(name) { "(hidden)" } else { value })).collect()
}

fn without_secrets<S: Serializer>(properties: &BTreeMap<String, String>, serializer: S) -> Result<S::Ok, S::Error> {
    shown(properties).serialize(serializer)
}

impl fmt::Debug for KafkaOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KafkaOptions")
            .field("brokers", &self.brokers)
            .field("prefix", &self.prefix)
            .field("instance", &self.instance)
            .field("security", &self.security)
            .field("properties", &shown(&self.properties))
            .finish()
    }
}

impl KafkaOptions {
    /// Options for a cluster without encryption and authentication.
    pub fn new(brokers: &str, prefix: &str) -> Self {
        Self { brokers: brokers.to_owned(), prefix: prefix.to_owned(), ..Self::default() }
    }

    /// Checks the options before connecting.
    pub fn check(&self) -> Result<(), LogError> {
        let problems = self.problems();
        if problems.is_empty() { Ok(()) } else { Err(failed("checking the Kafka options", &problems.join("; "))) }
    }

    /// Every problem, each as a sentence.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if self.brokers.trim().is_empty() {
            problems.push("`brokers` is empty; set host:port, separated by commas".to_owned());
        }
        for name in self.properties.keys().filter(|name| RESERVED_PROPERTIES.contains(&name.as_str())) {
            problems.push(format!("the property `{name}` is managed by Serin and cannot be set"));
        }
        for (name, written) in ALIASES.iter().filter(|(name, _)| self.properties.contains_key(*name)) {
            problems.push(format!("the property `{name}` is an alias; use `{written}`"));
        }
        self.check_security(&mut problems);
        problems
    }

    /// Finds problems that librdkafka would report late, with unclear errors, or never: it accepts a password that it
    /// never sends.
    fn check_security(&self, problems: &mut Vec<String>) {
        let security = &self.security;
        let has = |name| self.properties.contains_key(name);
        let is_sasl = matches!(security.protocol, Protocol::SaslPlaintext | Protocol::SaslSsl);
        if is_sasl && security.sasl_mechanism.is_none() && !has("sasl.mechanism") {
            problems.push("SASL needs a `security.sasl_mechanism`: PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512".to_owned());
        }
        let by_password =
            security.sasl_mechanism.as_deref().is_some_and(|name| name == "PLAIN" || name.starts_with("SCRAM-"));
        let sign_in = [
            ("security.username", security.username.is_some(), "sasl.username"),
            ("security.password", security.password.is_some(), "sasl.password"),
        ];
        for (setting, is_set, property) in sign_in {
            if is_sasl && by_password && !is_set && !has(property) {
                problems.push(format!("`{setting}` is missing; the `security.sasl_mechanism` needs it"));
            }
            if is_set && !is_sasl && !has("security.protocol") {
                problems.push(format!(
                    "`{setting}` is set but the connection does not use SASL; set `security.protocol` to sasl_ssl"
                ));
            }
        }
        let is_tls = matches!(security.protocol, Protocol::Ssl | Protocol::SaslSsl) || has("security.protocol");
        let files = [
            ("security.ca_file", &security.ca_file),
            ("security.certificate_file", &security.certificate_file),
            ("security.key_file", &security.key_file),
        ];
        for (setting, path) in files {
            if let Some(path) = path
                && let Err(error) = File::open(path)
            {
                problems.push(format!("`{setting}`: {} cannot be read: {error}", path.display()));
            }
        }
        if security.ca_file.is_some() && !is_tls {
            problems.push(
                "`security.ca_file` is set but the connection is not encrypted; set `security.protocol` to ssl or sasl_ssl"
                    .to_owned(),
            );
        }
    }

    /// The configuration of every client. User-defined properties come first, so that the client's own settings
    /// override them.
    pub(super) fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        for (name, value) in &self.properties {
            config.set(name, value);
        }
        config.set("bootstrap.servers", &self.brokers);
        config.set("allow.auto.create.topics", "false");
        let preferred = [("client.id", self.instance.as_deref().unwrap_or("serin")), ("socket.nagle.disable", "true")];
        for (name, value) in preferred {
            if !self.properties.contains_key(name) {
                config.set(name, value);
            }
        }
        if self.properties.contains_key("debug") {
            // Otherwise the binding drops librdkafka's debug messages before the client context sees them.
            config.set_log_level(RDKafkaLogLevel::Debug);
        }
        self.security.apply(&mut config);
        config
    }
}

impl Security {
    fn apply(&self, config: &mut ClientConfig) {
        let protocol = match self.protocol {
            // The properties may set another protocol.
            Protocol::Plaintext => None,
            Protocol::Ssl => Some("ssl"),
            Protocol::SaslPlaintext => Some("sasl_plaintext"),
            Protocol::SaslSsl => Some("sasl_ssl"),
        };
        let path = |path: &Option<PathBuf>| path.as_ref().map(|path| path.display().to_string());
        let secret = |secret: &Option<Secret>| secret.as_ref().map(|secret| secret.expose().to_owned());
        let settings = [
            ("security.protocol", protocol.map(str::to_owned)),
            ("ssl.ca.location", path(&self.ca_file)),
            ("ssl.certificate.location", path(&self.certificate_file)),
            ("ssl.key.location", path(&self.key_file)),
            ("ssl.key.password", secret(&self.key_password)),
            ("sasl.mechanism", self.sasl_mechanism.clone()),
            ("sasl.username", self.username.clone()),
            ("sasl.password", secret(&self.password)),
        ];
        for (name, value) in settings {
            if let Some(value) = value {
                config.set(name, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_not_shown() {
        let mut options = KafkaOptions::new("b:9092", "p.");
        options.security.password = Some(Secret::new("hunter2"));
        options.security.key_password = Some(Secret::new("hunter2"));
        options.properties.insert("sasl.oauthbearer.client.secret".into(), "hunter2".into());
        options.properties.insert("ssl.key.pem".into(), "hunter2".into());
        options.properties.insert("linger.ms".into(), "7".into());
        let shown = [format!("{options:?}"), serde_json::to_string(&options).unwrap()];
        for text in shown {
            assert!(!text.contains("hunter2") && text.contains("(hidden)") && text.contains('7'), "{text}");
        }
        assert_eq!(options.client().get("sasl.password"), Some("hunter2"));
    }

    #[test]
    fn all_problems_are_listed_at_once() {
        let mut options = KafkaOptions::default();
        options.properties.insert("isolation.level".into(), "read_uncommitted".into());
        options.security.protocol = Protocol::SaslSsl;
        let text = options.check().unwrap_err().to_string();
        for part in ["`brokers` is empty", "`isolation.level`", "`security.sasl_mechanism`"] {
            assert!(text.contains(part), "{part:?} is missing in: {text}");
        }
    }

    #[test]
    fn unused_credentials_are_problems() {
        let mut options = KafkaOptions::new("b:9092", "");
        options.security.password = Some(Secret::new("hunter2"));
        options.security.ca_file = Some("ca.pem".into());
        let text = options.check().unwrap_err().to_string();
        assert!(text.contains("`security.password` is set but") && text.contains("`security.ca_file` is set but"));
        options.security.protocol = Protocol::SaslSsl;
        options.security.sasl_mechanism = Some("PLAIN".to_owned());
        let text = options.check().unwrap_err().to_string();
        assert!(text.contains("`security.username` is missing") && !text.contains("hunter2"), "{text}");
        assert!(text.contains("`security.ca_file`: ca.pem cannot be read"), "{text}");
        options.properties.insert("sasl.username".into(), "ann".into());
        options.security.ca_file = None;
        options.check().unwrap();
    }

    #[test]
    fn a_user_property_overrides_a_default_and_aliases_are_refused() {
        let mut options = KafkaOptions::new("b:9092", "");
        options.instance = Some("pod-0".to_owned());
        assert_eq!(options.client().get("client.id"), Some("pod-0"));
        options.properties.insert("client.id".into(), "billing".into());
        assert_eq!(options.client().get("client.id"), Some("billing"));
        options.properties.insert("compression.codec".into(), "zstd".into());
        let text = options.check().unwrap_err().to_string();
        assert!(text.contains("`compression.codec`") && text.contains("use `compression.type`"), "{text}");
    }

    #[test]
    fn debug_properties_enable_debug_messages() {
        let mut options = KafkaOptions::new("b:9092", "");
        options.properties.insert("debug".into(), "cgrp".into());
        assert!(matches!(options.client().log_level, RDKafkaLogLevel::Debug));
    }

    #[test]
    fn unknown_keys_are_errors() {
        let json = r#"{"brokers":"b:1","security":{"protocol":"sasl_ssl","password":"x"},"instance":"pod-0"}"#;
        let options: KafkaOptions = serde_json::from_str(json).unwrap();
        assert_eq!((options.security.protocol, options.instance.as_deref()), (Protocol::SaslSsl, Some("pod-0")));
        assert!(serde_json::from_str::<KafkaOptions>(r#"{"broker":"b:1"}"#).is_err());
    }
}
