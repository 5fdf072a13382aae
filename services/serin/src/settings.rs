//! The configuration of every service, in one document: file, then environment, then `--set`, later wins.
//!
//! It is read whole, and all its problems are told at once, before anything starts. Unknown keys are errors.

mod environment;

use std::{collections::BTreeMap, fmt, path::PathBuf};

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serin_access::{Secret, WriterList, short_token};
use serin_intake::{IntakeTopic, check_topics};
use serin_topology::{FEEDBACK, PREDICTIONS, TopicSpec, Topology};

pub(crate) use environment::names;

use crate::cli::Serve;

/// Everything that can be set.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Settings {
    /// Where the log is.
    pub(crate) log: LogSettings,
    /// Folder of local state: the embedded log, cached rows, the routers' last tables.
    pub(crate) data_dir: DataDir,
    /// Topics.
    pub(crate) topology: Topology,
    /// Who may send feedback and events over HTTP.
    pub(crate) writers: WriterList,
    /// The router.
    pub(crate) router: serin_router::Config,
    /// The aggregator and the intake.
    pub(crate) aggregator: AggregatorSettings,
    /// The analyzer.
    pub(crate) analyzer: serin_analyzer::Config,
    /// The controller.
    pub(crate) controller: serin_controller::Config,
    /// Metrics and logs.
    pub(crate) telemetry: TelemetrySettings,
}

impl Settings {
    /// Every topic as it should be, also those of others that the intake reads.
    pub(crate) fn topics(&self) -> Vec<TopicSpec> {
        let mut topics = self.topology.topics();
        let like = |model: &str, name: &str| {
            let found = topics.iter().find(|topic| topic.name == model);
            found.map(|topic| TopicSpec { name: name.to_owned(), ..topic.clone() })
        };
        let named = |IntakeTopic { feedback, predictions, .. }: &IntakeTopic| {
            let feedback = feedback.as_deref().and_then(|name| like(FEEDBACK, name));
            feedback.into_iter().chain(predictions.as_deref().and_then(|name| like(PREDICTIONS, name)))
        };
        let more: Vec<TopicSpec> = self.aggregator.intake.topics.iter().flat_map(named).collect();
        topics.extend(more);
        topics
    }
}

/// What stands under `aggregator`: its own settings, and those of the intake.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct AggregatorSettings {
    /// Its own.
    #[serde(flatten)]
    pub(crate) fold: serin_aggregator::Config,
    /// The intake's.
    pub(crate) intake: serin_intake::IntakeConfig,
}

/// The part of the section `aggregator` that is the intake's.
#[derive(Default, Deserialize)]
#[serde(default, expecting = "struct Config")]
struct IntakeSection {
    intake: serin_intake::IntakeConfig,
}

/// Folder of local state.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct DataDir(pub(crate) PathBuf);

impl Default for DataDir {
    fn default() -> Self {
        Self(PathBuf::from("serin-data"))
    }
}

/// Where the log is.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct LogSettings {
    /// `embedded` (one process, no broker) or `kafka`.
    pub(crate) kind: LogKind,
    /// The Kafka cluster, for `kind: kafka`.
    pub(crate) kafka: serin_stream::kafka::KafkaOptions,
    /// The embedded log, for `kind: embedded`.
    pub(crate) embedded: EmbeddedSettings,
}

/// The embedded log.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct EmbeddedSettings {
    /// Size on disk, in bytes, from which the oldest records of topics with a retention are dropped early.
    pub(crate) max_bytes: u64,
}

impl Default for EmbeddedSettings {
    fn default() -> Self {
        Self { max_bytes: serin_stream::embedded::EmbeddedOptions::default().max_bytes }
    }
}

/// Which log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum LogKind {
    /// One process, no broker.
    #[default]
    Embedded,
    /// Apache Kafka.
    Kafka,
}

/// Metrics and logs.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct TelemetrySettings {
    /// Where `/metrics`, `/healthz` and `/readyz` are served.
    pub(crate) listen: std::net::SocketAddr,
    /// The certificate of that port. Left out: it speaks plain HTTP.
    pub(crate) tls: Option<serin_listener::TlsFiles>,
    /// Bearer token that `/metrics` asks for. Empty: none; then on loopback only this machine is answered.
    pub(crate) token: Secret,
    /// Endpoint of an OTLP collector over HTTP, such as `http://localhost:4318/v1/metrics`; left out: none.
    pub(crate) otlp: Option<String>,
    /// PEM file with the authority that signed the collector's certificate (`https://`). Left out: what the system trusts.
    pub(crate) otlp_ca_file: Option<PathBuf>,
    /// `text` or `json`.
    pub(crate) log_format: LogFormat,
    /// What is logged, as for `RUST_LOG`: `info`, `serin_router=debug,info`.
    pub(crate) log_level: String,
}

/// How logs are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

impl Default for TelemetrySettings {
    fn default() -> Self {
        Self {
            listen: ([127, 0, 0, 1], 9464).into(),
            tls: None,
            token: Secret::default(),
            otlp: None,
            otlp_ca_file: None,
            log_format: LogFormat::Text,
            log_level: "info".to_owned(),
        }
    }
}

/// Every problem of a configuration.
#[derive(Debug)]
pub(crate) struct SettingsError(Vec<String>);

impl fmt::Display for SettingsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the configuration cannot be used:")?;
        for problem in &self.0 {
            write!(f, "\n  - {problem}")?;
        }
        write!(f, "\nsee `serin up --dump-config` for every setting and its default")
    }
}

impl std::error::Error for SettingsError {}

/// Reads the configuration that `serve` names.
pub(crate) fn load(serve: &Serve) -> Result<Settings, SettingsError> {
    let mut problems = Vec::new();
    let mut others = config::Config::builder();
    if let Some(file) = &serve.config {
        others = others.add_source(config::File::from(file.as_path()).format(config::FileFormat::Yaml));
    }
    let mut builder =
        others.clone().add_source(config::Environment::with_prefix("SERIN").prefix_separator("__").separator("__"));
    for setting in &serve.settings {
        let Some((key, value)) = setting.split_once('=') else {
            // What follows the key may be a secret.
            let key: String = setting.chars().take_while(|c| c.is_ascii_alphanumeric() || "._-".contains(*c)).collect();
            problems.push(format!("--set {key}: write KEY=VALUE, such as router.listen=0.0.0.0:8000"));
            continue;
        };
        match builder.clone().set_override(key.trim(), value) {
            Ok(changed) => {
                builder = changed;
                others = others.clone().set_override(key.trim(), value).unwrap_or(others);
            }
            Err(error) => problems.push(format!("--set {}: {}", key.trim(), without(&error.to_string(), value))),
        }
    }
    // What is wrong with them is told below.
    let others = others.build().and_then(config::Config::try_deserialize).unwrap_or_default();
    problems.extend(environment::problems(variables(), &others));
    let place = serve.config.as_ref().map_or_else(|| "environment".to_owned(), |file| file.display().to_string());
    let sections: BTreeMap<String, config::Value> = match builder.build().and_then(config::Config::try_deserialize) {
        Ok(sections) => sections,
        Err(error) => {
            problems.push(format!("{place}: {error}"));
            return Err(SettingsError(problems));
        }
    };
    let sections = with_flat_properties(sections);
    let mut reader = Sections { left: sections, problems, place };
    let settings = Settings {
        log: reader.take("log"),
        data_dir: reader.take("data_dir"),
        topology: reader.take("topology"),
        writers: reader.take("writers"),
        router: reader.take("router"),
        aggregator: AggregatorSettings {
            intake: reader.read::<IntakeSection>("aggregator").intake,
            fold: reader.take("aggregator"),
        },
        analyzer: reader.take("analyzer"),
        controller: reader.take("controller"),
        telemetry: reader.take("telemetry"),
    };
    reader.finish(settings)
}

/// The names of this process' environment variables.
pub(crate) fn variables() -> impl Iterator<Item = String> {
    std::env::vars_os().filter_map(|(name, _)| name.into_string().ok())
}

/// Takes the sections one by one, so that each one's problem is told.
struct Sections {
    left: BTreeMap<String, config::Value>,
    problems: Vec<String>,
    place: String,
}

impl Sections {
    fn take<T: DeserializeOwned + Default>(&mut self, name: &str) -> T {
        let read = self.read(name);
        self.left.remove(name);
        read
    }

    /// Reads a section, or the part of one that a type knows.
    fn read<T: DeserializeOwned + Default>(&mut self, name: &str) -> T {
        let Some(value) = self.left.get(name) else { return T::default() };
        value.clone().try_deserialize().unwrap_or_else(|error| {
            let problem = hide_secrets(&in_plain_words::<T>(value, &error), name, value);
            let problem = format!("{}: {name}: {problem}", self.place);
            if !self.problems.contains(&problem) {
                self.problems.push(problem);
            }
            T::default()
        })
    }

    fn finish(mut self, settings: Settings) -> Result<Settings, SettingsError> {
        let known = "log, data_dir, topology, writers, router, aggregator, analyzer, controller, telemetry";
        for name in self.left.keys() {
            self.problems.push(format!("{}: unknown section {name:?}; there are {known}", self.place));
        }
        if settings.log.kind == LogKind::Kafka && settings.log.kafka.brokers.is_empty() {
            self.problems.push(format!(
                "{}: log.kafka.brokers is needed for `kind: kafka`; write host:port, several with commas",
                self.place
            ));
        }
        let mut found = settings.topology.validate().err().map_or_else(Vec::new, |error| error.0);
        let known: Vec<String> = settings.topology.topics().into_iter().map(|topic| topic.name).collect();
        found.extend(check_topics(&settings.aggregator.intake.topics, &known));
        if !settings.router.writers.0.is_empty() {
            found.push("router.writers: write them under `writers`, beside `router`".to_owned());
        }
        let (beat, silent) = (settings.router.heartbeat_every, settings.aggregator.fold.silent_after);
        if silent.0.0 < 2 * beat.0.0 {
            found.push(format!(
                "aggregator.silent_after is {silent}; write at least twice router.heartbeat_every ({beat}), or routers that are \
                 well count as silent"
            ));
        }
        let token = settings.telemetry.token.expose();
        found.extend(short_token("telemetry.token", token).filter(|_| !token.is_empty()));
        found.extend(settings.writers.problems());
        self.problems.extend(found.into_iter().map(|problem| format!("{}: {problem}", self.place)));
        if self.problems.is_empty() { Ok(settings) } else { Err(SettingsError(self.problems)) }
    }
}

/// What is wrong with a section; `config` words a wrong choice for programmers only.
fn in_plain_words<T: DeserializeOwned>(value: &config::Value, error: &config::ConfigError) -> String {
    let text = error.to_string();
    if !text.contains("variant constructor") {
        return text;
    }
    let json: Option<serde_json::Value> = value.clone().try_deserialize().ok();
    json.and_then(|json| serde_json::from_value::<T>(json).err()).map_or(text, |error| error.to_string())
}

/// A text that does not quote a value.
fn without(text: &str, value: &str) -> String {
    if value.is_empty() { text.to_owned() } else { text.replace(value, "(hidden)") }
}

/// An error may quote what it could not read: takes out what stands where secrets belong.
fn hide_secrets(text: &str, name: &str, value: &config::Value) -> String {
    const PARTS: [&str; 4] = ["secret", "token", "password", "mlflow"];
    const SECTIONS: [&str; 4] = ["security", "pin", "pinning", "writers"];
    let is_secret = |name: &str| PARTS.iter().any(|part| name.contains(part)) || SECTIONS.contains(&name);
    match &value.kind {
        config::ValueKind::Table(table) => table.iter().fold(text.to_owned(), |text, (inner, value)| {
            hide_secrets(&text, if is_secret(name) { name } else { inner }, value)
        }),
        config::ValueKind::Array(list) => {
            list.iter().fold(text.to_owned(), |text, value| hide_secrets(&text, name, value))
        }
        config::ValueKind::Nil | config::ValueKind::Boolean(_) => text.to_owned(),
        _ if is_secret(name) => {
            let secret = value.to_string();
            if secret.is_empty() { text.to_owned() } else { text.replace(&secret, "(hidden)") }
        }
        _ => text.to_owned(),
    }
}

/// Names of librdkafka properties have dots, which `config` takes for nesting outside of files: puts them together again.
fn with_flat_properties(mut sections: BTreeMap<String, config::Value>) -> BTreeMap<String, config::Value> {
    fn table<'a>(value: &'a mut config::Value, name: &str) -> Option<&'a mut config::Value> {
        let config::ValueKind::Table(table) = &mut value.kind else { return None };
        table.get_mut(name)
    }
    fn flatten(prefix: &str, value: config::Value, into: &mut config::Map<String, config::Value>) {
        match value.kind {
            config::ValueKind::Table(table) => {
                for (name, value) in table {
                    let name = if prefix.is_empty() { name } else { format!("{prefix}.{name}") };
                    flatten(&name, value, into);
                }
            }
            _ => drop(into.insert(prefix.to_owned(), value)),
        }
    }
    let properties =
        sections.get_mut("log").and_then(|log| table(log, "kafka")).and_then(|kafka| table(kafka, "properties"));
    if let Some(properties) = properties {
        let mut flat = config::Map::new();
        flatten("", std::mem::take(properties), &mut flat);
        *properties = flat.into();
    }
    sections
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(settings: &[&str]) -> Result<Settings, SettingsError> {
        load(&Serve { settings: settings.iter().map(ToString::to_string).collect(), ..Serve::default() })
    }

    #[test]
    fn defaults_need_no_file() {
        let settings = with(&[]).unwrap();
        assert_eq!(settings.log.kind, LogKind::Embedded);
    }

    #[test]
    fn what_the_pages_show_is_taken() {
        let pages = [
            (include_str!("../../../docs/api.md"), 1),
            (include_str!("../../../docs/cli.md"), 1),
            (include_str!("../../../docs/in-front-of.md"), 3),
            (include_str!("../../../docs/kafka.md"), 1),
            (include_str!("../../../docs/protocols/plain-http.md"), 1),
            (include_str!("../../../docs/topics.md"), 1),
            (include_str!("../../../docs/trust.md"), 1),
        ];
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("serin.yaml");
        for (page, count) in pages {
            let blocks = page.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next());
            let settings: Vec<_> = blocks.filter(|text| !text.contains("kind: Rollout")).collect();
            assert_eq!(settings.len(), count);
            for text in settings {
                std::fs::write(&file, text).unwrap();
                let taken = load(&Serve { config: Some(file.clone()), ..Serve::default() });
                taken.unwrap_or_else(|error| panic!("{error}\n{text}"));
            }
        }
    }

    #[test]
    fn every_problem_is_told_at_once() {
        let error = with(&["log.kind=pulsar", "telemetry.lisen=1", "nonsense.x=1", "what"]).unwrap_err();
        let text = error.to_string();
        for expected in ["--set what", "log:", "telemetry:", "lisen", "unknown section \"nonsense\""] {
            assert!(text.contains(expected), "{expected} is missing in:\n{text}");
        }
    }

    #[test]
    fn no_problem_quotes_a_secret() {
        for setting in [
            "router.pin=hunter2",
            "router.pin.allow=hunter2",
            "router.pinning=hunter2",
            "router.pinning.token.x=hunter2",
            "router.admin_token.x=hunter2",
            "controller.tokens=hunter2",
            "controller.tokens.ann=hunter2",
            "controller.mlflow=hunter2",
            "log.kafka.security=hunter2",
            "router.pin..x=hunter2",
            "router.admin_token hunter2",
            "router.admin_token:hunter2",
            "telemetry.otlp.token=hunter2",
        ] {
            let Err(error) = with(&[setting]) else { continue };
            let text = error.to_string();
            assert!(!text.contains("hunter2"), "{setting}: {text}");
        }
    }

    #[test]
    fn writers_are_a_list_in_a_file_and_a_map_in_the_environment() {
        let settings = with(&[
            "writers.apps.models=fraud,team-a-*",
            "writers.apps.may=feedback,events",
            "writers.apps.token=0123456789abcdef",
        ])
        .unwrap();
        let apps = &settings.writers.0[0];
        assert_eq!((apps.name.as_str(), apps.models.len(), apps.may.len()), ("apps", 2, 2));
        let error = with(&["writers.apps.models=*", "writers.apps.token=s3cret-s3cret", "writers.apps.tokenn=x"]);
        let text = error.unwrap_err().to_string();
        assert!(text.contains("tokenn") && !text.contains("s3cret"), "{text}");
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("serin.yaml");
        let of = |text: &str| {
            std::fs::write(&file, text).unwrap();
            load(&Serve { config: Some(file.clone()), ..Serve::default() })
        };
        let settings = of(
            "writers: [{name: a, models: ['*'], token_file: /nowhere}, {name: b, models: [m], token: 0123456789abcdef}]",
        );
        assert_eq!(settings.unwrap().writers.0.len(), 2, "only the router reads token files");
        let text =
            of("writers: [{name: a, models: ['*']}, {name: a, models: ['*'], token: short}]").unwrap_err().to_string();
        for part in ["writers.a: set one of", "the name is taken", "shorter than 16 characters"] {
            assert!(text.contains(part), "{part} is missing in:\n{text}");
        }
        let text = of("writers: [{name: a, models: 7, token: 0123456789abcdef}]").unwrap_err().to_string();
        assert!(!text.contains("0123456789abcdef"), "{text}");
    }

    #[test]
    fn topics_of_others_are_topics_like_all() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("serin.yaml");
        let of = |text: &str| {
            std::fs::write(&file, text).unwrap();
            load(&Serve { config: Some(file.clone()), ..Serve::default() })
        };
        let settings = of("topology: {partitions: 3}
aggregator: {intake: {topics: [{feedback: team-a.feedback, predictions: team-a.calls, models: ['team-a-*']}]}}")
        .unwrap();
        let topics = settings.topics();
        let named = |name: &str| topics.iter().find(|topic| topic.name == name).map(|topic| topic.partitions);
        assert_eq!((named("team-a.feedback"), named("team-a.calls")), (Some(3), Some(3)));
        let error = of("aggregator: {intake: {topics: [{feedback: events, models: []}]}}").unwrap_err().to_string();
        assert!(
            error.contains("\"events\" has another meaning already") && error.contains("models must name"),
            "{error}"
        );
    }

    #[test]
    fn the_intake_is_set_under_the_aggregator_and_a_problem_there_is_named_once() {
        let settings = with(&["aggregator.intake.lateness=7s", "aggregator.intake.max_body=9"]).unwrap();
        assert_eq!(settings.aggregator.intake.max_body, 9);
        assert_eq!(settings.aggregator.intake.lateness, settings.aggregator.fold.intake.lateness);
        for (wrong, part) in [
            ("aggregator.intake.lateness=soon", "soon"),
            ("aggregator.intake.latenes=1s", "unknown field `latenes`"),
            ("aggregator.intak.lateness=1s", "unknown field `intak`"),
            ("aggregator=5", "struct Config"),
        ] {
            let text = with(&[wrong]).unwrap_err().to_string();
            assert_eq!(text.matches("\n  - ").count(), 1, "{wrong}:\n{text}");
            assert!(text.contains(part), "{wrong}:\n{text}");
        }
        let dumped = serde_json::to_value(Settings::default()).unwrap();
        assert_eq!(dumped["aggregator"]["intake"]["lateness"], "3s");
        assert_eq!(dumped["aggregator"]["writer_ttl"], "30s");
    }

    #[test]
    fn properties_of_the_kafka_client_keep_their_dots() {
        let settings =
            with(&["log.kafka.properties.sasl.kerberos.keytab=/k", "log.kafka.properties.debug=topic"]).unwrap();
        let properties = settings.log.kafka.properties;
        assert_eq!(properties["sasl.kerberos.keytab"], "/k");
        assert_eq!(properties["debug"], "topic");
    }

    #[test]
    fn text_that_looks_like_a_number_stays_text_and_numbers_are_read() {
        let settings =
            with(&["log.kafka.properties.client.id=0123", "topology.partitions=7", "telemetry.log_level=TRUE"])
                .unwrap();
        assert_eq!(settings.log.kafka.properties["client.id"], "0123");
        assert_eq!(settings.topology.partitions, 7);
        assert_eq!(settings.telemetry.log_level, "TRUE");
    }

    #[test]
    fn names_keep_their_case_in_a_file_and_on_the_command_line() {
        let settings =
            with(&["router.models.MyModel.stable=V1", "router.models.MyModel.versions.V1=http://a:1"]).unwrap();
        let model = &settings.router.models["MyModel"];
        assert!(model.stable.as_str() == "V1" && model.versions.contains_key("V1"), "{model:?}");
    }

    #[test]
    fn kafka_needs_brokers() {
        let error = with(&["log.kind=kafka"]).unwrap_err();
        assert!(error.to_string().contains("log.kafka.brokers"));
    }
}
