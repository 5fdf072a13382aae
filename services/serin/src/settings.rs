//! The configuration of every service, in one document. Sources are the file, the environment and `--set`; later ones win.
//!
//! It is read completely, and all its problems are reported at once, before anything starts. Unknown keys are errors. Each source
//! is checked against the JSON Schema of [`Settings`], so that a problem is reported with its line, variable or option. Then all
//! sources are merged.

mod environment;
#[cfg(test)]
mod page;
mod telemetry;

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    fmt,
    path::PathBuf,
};

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serin_access::{WriterList, looks_like_secret, short_token};
use serin_doors::DoorRules;
use serin_intake::{IntakeTopic, check_topics};
use serin_rollout::{
    Configuration,
    yaml::{HIDDEN, with_whole_escapes},
};
use serin_spec::{Problem, address::without_credentials};
use serin_topology::{FEEDBACK, PREDICTIONS, TopicSpec, Topology};

pub(crate) use environment::names;
pub(crate) use telemetry::{LogFormat, TelemetrySettings};

use crate::cli::Serve;

/// All settings.
#[derive(Clone, Debug, Default, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Settings {
    /// The log: the embedded one, or a Kafka cluster.
    pub(crate) log: LogSettings,
    /// Directory of local state: the embedded log, cached rows and the routers' last tables.
    pub(crate) data_dir: DataDir,
    /// The topics of the log.
    pub(crate) topology: Topology,
    /// The writers that may send feedback and events over HTTP.
    pub(crate) writers: WriterList,
    /// Where the doors for traffic of other systems find model, version, unit and outputs (docs/doors.md).
    pub(crate) doors: DoorRules,
    /// The router, which splits the traffic.
    pub(crate) router: serin_router::Config,
    /// The aggregator, which folds events into windows, and the intake, which relays events of other producers.
    pub(crate) aggregator: AggregatorSettings,
    /// The analyzer, which turns windows into verdicts.
    pub(crate) analyzer: serin_analyzer::Config,
    /// The controller, which turns verdicts into weights and serves the API.
    pub(crate) controller: serin_controller::Config,
    /// The connector, which tells chat, on-call and other systems about events of rollouts (docs/connector.md).
    pub(crate) connector: serin_connector::Config,
    /// Metrics, health and logs of the process.
    pub(crate) telemetry: TelemetrySettings,
}

impl Settings {
    /// The expected form of every topic, including topics of other producers that the intake reads.
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

/// The section `aggregator`: the settings of the aggregator, and of the intake, which runs in the same process.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct AggregatorSettings {
    /// The settings of the aggregator.
    #[serde(flatten)]
    pub(crate) fold: serin_aggregator::Config,
    /// The settings of the intake.
    pub(crate) intake: serin_intake::IntakeConfig,
}

impl JsonSchema for AggregatorSettings {
    fn schema_name() -> Cow<'static, str> {
        "AggregatorSettings".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let mut schema = serin_aggregator::Config::json_schema(generator);
        let intake = generator.subschema_for::<serin_intake::IntakeConfig>();
        if let Some(properties) = schema.get_mut("properties").and_then(serde_json::Value::as_object_mut) {
            properties.insert("intake".to_owned(), intake.to_value());
        }
        schema
    }
}

/// Directory of local state.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub(crate) struct DataDir(pub(crate) PathBuf);

impl Default for DataDir {
    fn default() -> Self {
        Self(PathBuf::from("serin-data"))
    }
}

/// The log: the embedded one, or a Kafka cluster.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct LogSettings {
    /// The kind of log: `embedded` (one process, no broker) or `kafka`.
    pub(crate) kind: LogKind,
    /// The Kafka cluster, used with `kind: kafka`.
    pub(crate) kafka: serin_stream::kafka::KafkaOptions,
    /// The embedded log, used with `kind: embedded`.
    pub(crate) embedded: EmbeddedSettings,
}

/// The embedded log.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct EmbeddedSettings {
    /// Size on disk, in bytes, above which the oldest records of topics with a retention are dropped early.
    pub(crate) max_bytes: u64,
}

impl Default for EmbeddedSettings {
    fn default() -> Self {
        Self { max_bytes: serin_stream::embedded::EmbeddedOptions::default().max_bytes }
    }
}

/// The kind of log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum LogKind {
    /// The embedded log: one process, no broker.
    #[default]
    Embedded,
    /// Apache Kafka.
    Kafka,
}

/// All problems of a configuration.
#[derive(Debug)]
pub(crate) struct SettingsError(Vec<String>);

impl fmt::Display for SettingsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the configuration cannot be used:")?;
        for problem in &self.0 {
            write!(f, "\n  - {problem}")?;
        }
        write!(f, "\ndocs/settings.md and `serin up --dump-config` list every setting and its default")
    }
}

impl std::error::Error for SettingsError {}

/// The configuration of a process as far as it could be read, and all its problems.
pub(crate) struct Read {
    /// The settings; a section that could not be read has its defaults.
    pub(crate) settings: Settings,
    problems: Vec<String>,
}

impl Read {
    /// Adds problems that were found elsewhere, and returns the settings if there are no problems.
    pub(crate) fn with(mut self, more: Vec<String>) -> Result<Settings, SettingsError> {
        for problem in more {
            if !self.problems.contains(&problem) {
                self.problems.push(problem);
            }
        }
        if self.problems.is_empty() { Ok(self.settings) } else { Err(SettingsError(self.problems)) }
    }
}

/// Reads the configuration that `serve` names.
pub(crate) fn load(serve: &Serve) -> Result<Settings, SettingsError> {
    read(serve).with(Vec::new())
}

/// Reads the configuration that `serve` names, with all its problems.
pub(crate) fn read(serve: &Serve) -> Read {
    let schema = json_schema();
    let form =
        Configuration { schema: &schema, page: "docs/settings.md", is_secret, is_secret_name: looks_like_secret };
    let mut found = Found::default();
    let mut others = config::Config::builder();
    if let Some(file) = &serve.config {
        // A file that cannot be read is reported when all sources are merged.
        let text = std::fs::read_to_string(file).unwrap_or_default();
        match with_whole_escapes(&text) {
            Ok(Cow::Owned(whole)) => {
                others = others.add_source(config::File::from_str(&whole, config::FileFormat::Yaml));
            }
            Ok(Cow::Borrowed(_)) => {
                others = others.add_source(config::File::from(file.as_path()).format(config::FileFormat::Yaml));
            }
            Err(Problem { line, message, fix, .. }) => {
                let line = line.map_or_else(String::new, |line| format!(" line {line}:"));
                found.add("", format!("{}:{line} {message}; {fix}", file.display()));
            }
        }
        for Problem { path, line, message, fix, .. } in form.problems_of_file(&text) {
            let line = line.map_or_else(String::new, |line| format!(" line {line}:"));
            found.add(&path, format!("{}:{line} {path}: {message}; {fix}", file.display()));
        }
    }
    for variable in variables() {
        let lower = variable.to_lowercase();
        let Some(key) = lower.strip_prefix(environment::PREFIX) else { continue };
        let path: Vec<&str> = key.split("__").collect();
        let text = std::env::var(&variable).unwrap_or_default();
        for Problem { path, message, fix, .. } in form.problems_of_setting(&path, &text) {
            let place = if path.contains(HIDDEN) { &path } else { &variable };
            found.add(&path, format!("{place}: {message}; {fix}"));
        }
    }
    let mut builder =
        others.clone().add_source(config::Environment::with_prefix("SERIN").prefix_separator("__").separator("__"));
    for (position, setting) in serve.settings.iter().enumerate() {
        let Some((key, value)) = setting.split_once('=') else {
            // Without the equals sign, any part of the text may be a secret.
            let position = position + 1;
            found.problems.push(format!(
                "--set, option {position} of this name, has no `=`: write KEY=VALUE, such as router.listen=0.0.0.0:8000"
            ));
            continue;
        };
        let key = key.trim();
        match builder.clone().set_override(key, value) {
            Ok(changed) => {
                builder = changed;
                others = others.clone().set_override(key, value).unwrap_or(others);
            }
            Err(error) => {
                found.problems.push(format!("--set {key}: {}", without(&error.to_string(), value)));
                continue;
            }
        }
        let path: Vec<&str> = key.split('.').collect();
        // Only the merged configuration can resolve an index, such as `segments[0]`.
        for Problem { path, message, fix, .. } in
            form.problems_of_setting(&path, value).into_iter().filter(|_| !key.contains('['))
        {
            let place = if path.contains(HIDDEN) { &path } else { key };
            found.add(&path, format!("--set {place}: {message}; {fix}"));
        }
    }
    // Their problems are reported when all sources are merged.
    let others = others.build().and_then(config::Config::try_deserialize).unwrap_or_default();
    found.problems.extend(environment::problems(variables(), &others));
    let by_variable = variables().any(|variable| variable.to_lowercase().starts_with(environment::PREFIX));
    let place = match &serve.config {
        Some(file) => file.display().to_string(),
        None if serve.settings.is_empty() => "environment".to_owned(),
        None if by_variable => "environment and --set".to_owned(),
        None => "--set".to_owned(),
    };
    let sections: BTreeMap<String, config::Value> = match builder.build().and_then(config::Config::try_deserialize) {
        Ok(sections) => sections,
        Err(error) => {
            // The check against the schema has reported it already. The error may quote a secret.
            if !found.broken.contains("") {
                found.problems.push(format!("{place}: {error}"));
            }
            return Read { settings: Settings::default(), problems: found.problems };
        }
    };
    let sections = with_flat_properties(sections);
    let mut reader = Sections { left: sections, found, place };
    let settings = Settings {
        log: reader.take("log"),
        data_dir: reader.take("data_dir"),
        topology: reader.take("topology"),
        writers: reader.take("writers"),
        doors: reader.take("doors"),
        router: reader.take("router"),
        aggregator: reader.take_aggregator(),
        analyzer: reader.take("analyzer"),
        controller: reader.take("controller"),
        connector: reader.take("connector"),
        telemetry: reader.take("telemetry"),
    };
    reader.finish(settings)
}

/// The JSON Schema (draft 2020-12) of the configuration.
pub(crate) fn json_schema() -> serde_json::Value {
    schemars::schema_for!(Settings).to_value()
}

/// Problems, and the settings that they are about.
#[derive(Default)]
struct Found {
    problems: Vec<String>,
    broken: BTreeSet<String>,
}

impl Found {
    /// Adds a problem of the setting at `path`.
    fn add(&mut self, path: &str, problem: String) {
        self.broken.insert(path.to_owned());
        self.problems.push(problem);
    }

    /// Whether a problem of a section is known.
    fn has(&self, section: &str) -> bool {
        let within = |path: &String| {
            path.strip_prefix(section).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
        };
        self.broken.iter().any(within)
    }

    /// A section without the settings that have problems, so that the other settings can be checked too.
    fn rest(&self, section: &str, mut value: config::Value) -> config::Value {
        for path in self.broken.iter().filter_map(|path| path.strip_prefix(section)?.strip_prefix('.')) {
            let mut names: Vec<&str> = path.split('.').collect();
            let last = names.pop().unwrap_or_default();
            let inner = names.into_iter().try_fold(&mut value, |value, name| inner_table(value)?.get_mut(name));
            if let Some(table) = inner.and_then(inner_table) {
                table.remove(last);
            }
        }
        value
    }
}

fn inner_table(value: &mut config::Value) -> Option<&mut config::Map<String, config::Value>> {
    if let config::ValueKind::Table(table) = &mut value.kind { Some(table) } else { None }
}

/// The names of this process's environment variables.
pub(crate) fn variables() -> impl Iterator<Item = String> {
    std::env::vars_os().filter_map(|(name, _)| name.into_string().ok())
}

/// Takes the sections one by one, so that the problems of each are reported.
struct Sections {
    left: BTreeMap<String, config::Value>,
    found: Found,
    place: String,
}

impl Sections {
    fn take<T: DeserializeOwned + Default>(&mut self, name: &str) -> T {
        let Some(value) = self.left.remove(name) else { return T::default() };
        value.clone().try_deserialize().unwrap_or_else(|error| {
            // The check against the schema has reported it already, in a better message.
            if self.found.has(name) {
                return self.found.rest(name, value).try_deserialize().unwrap_or_default();
            }
            let problem = hide_secrets(&in_plain_words::<T>(&value, &error), name, &value);
            self.found.problems.push(format!("{}: {name}: {problem}", self.place));
            T::default()
        })
    }

    /// Takes the section `aggregator`, which contains the settings of the intake.
    fn take_aggregator(&mut self) -> AggregatorSettings {
        const INTAKE: &str = "aggregator.intake";
        let part = self.left.get_mut("aggregator").and_then(inner_table).and_then(|table| table.remove("intake"));
        self.left.extend(part.map(|part| (INTAKE.to_owned(), part)));
        let intake: serin_intake::IntakeConfig = self.take(INTAKE);
        let mut fold: serin_aggregator::Config = self.take("aggregator");
        fold.relay_lateness = intake.lateness;
        AggregatorSettings { fold, intake }
    }

    fn finish(self, settings: Settings) -> Read {
        let Self { left, found, place } = self;
        let has_log = !found.has("log");
        let known =
            "log, data_dir, topology, writers, doors, router, aggregator, analyzer, controller, connector, telemetry";
        let unknown: Vec<String> = left.into_keys().filter(|name| !found.has(name)).collect();
        let mut problems = found.problems;
        for name in unknown {
            problems.push(format!("{place}: unknown section {name:?}; known are {known}"));
        }
        if settings.log.kind == LogKind::Kafka && settings.log.kafka.brokers.is_empty() && has_log {
            problems.push(format!(
                "{place}: log.kafka.brokers is needed for `kind: kafka`; write host:port, comma-separated if there are several"
            ));
        }
        let mut found = settings.topology.validate().err().map_or_else(Vec::new, |error| error.0);
        let known: Vec<String> = settings.topology.topics().into_iter().map(|topic| topic.name).collect();
        found.extend(check_topics(&settings.aggregator.intake.topics, &known));
        let (beat, silent) = (settings.router.heartbeat_every, settings.aggregator.fold.silent_after);
        if silent.0.0 < 2 * beat.0.0 {
            found.push(format!(
                "aggregator.silent_after is {silent}; set at least twice router.heartbeat_every ({beat}), or healthy routers \
                 count as silent"
            ));
        }
        let token = settings.telemetry.token.expose();
        found.extend(short_token("telemetry.token", token).filter(|_| !token.is_empty()));
        let sample = settings.telemetry.traces.sample;
        if !(0.0..=1.0).contains(&sample) {
            found.push(format!("telemetry.traces.sample is {sample}; it is a share of the calls, from 0 to 1"));
        }
        found.extend(settings.writers.problems());
        found.extend(settings.doors.problems());
        // The dump of the settings replaces secrets.
        let shown = serde_json::to_value(&settings).unwrap_or_default();
        credentials("", &shown, &mut found);
        problems.extend(found.into_iter().map(|problem| format!("{place}: {problem}")));
        Read { settings, problems }
    }
}

/// The error of a section. `config` reports an unknown enum value in terms of Rust; serde's message is clearer.
fn in_plain_words<T: DeserializeOwned>(value: &config::Value, error: &config::ConfigError) -> String {
    let text = error.to_string();
    if !text.contains("variant constructor") {
        return text;
    }
    let json: Option<serde_json::Value> = value.clone().try_deserialize().ok();
    json.and_then(|json| serde_json::from_value::<T>(json).err()).map_or(text, |error| error.to_string())
}

/// Adds a problem for each address with a user or a password. These have no effect anywhere, and would be shown and logged. A string with
/// spaces or line ends, such as the rollout file of a policy, is not an address. Lint checks the addresses in rollout files.
fn credentials(path: &str, value: &serde_json::Value, problems: &mut Vec<String>) {
    use serde_json::Value;
    let below = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
    match value {
        Value::Object(fields) => fields.iter().for_each(|(name, value)| credentials(&below(name), value, problems)),
        Value::Array(items) => {
            let items = items.iter().enumerate();
            items.for_each(|(index, item)| credentials(&format!("{path}[{index}]"), item, problems));
        }
        Value::String(text) => {
            let is_brokers = path == "log.kafka.brokers" || path == "log.kafka.properties.bootstrap.servers";
            let is_address = |part: &&str| !part.contains(char::is_whitespace);
            let mut addresses = text.split(',').map(str::trim).filter(is_address);
            if addresses.any(|part| without_credentials(part) != part) || is_brokers && text.contains('@') {
                let fix = if is_brokers { "set log.kafka.security" } else { "remove the part before the `@`" };
                problems.push(format!("{path}: an address with a user or a password cannot be used here; {fix}"));
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// A string that does not quote a value.
fn without(text: &str, value: &str) -> String {
    if value.is_empty() { text.to_owned() } else { text.replace(value, "(hidden)") }
}

/// Whether the value at a path, or under a name, may be a secret.
fn is_secret(path: &str) -> bool {
    const PARTS: [&str; 4] = ["secret", "token", "password", "mlflow"];
    const SECTIONS: [&str; 5] = ["security", "pin", "pinning", "writers", "destinations"];
    PARTS.iter().any(|part| path.contains(part)) || path.split(['.', '[']).any(|name| SECTIONS.contains(&name))
}

/// Removes secrets from an error, which may quote a value that could not be read.
fn hide_secrets(text: &str, name: &str, value: &config::Value) -> String {
    match &value.kind {
        config::ValueKind::Table(table) => table.iter().fold(text.to_owned(), |text, (inner, value)| {
            let is_name = is_secret(name) && looks_like_secret(inner);
            let text = if is_name { text.replace(inner.as_str(), HIDDEN) } else { text };
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

/// Joins the names of librdkafka properties again: they contain dots, which `config` reads as nesting outside of files.
fn with_flat_properties(mut sections: BTreeMap<String, config::Value>) -> BTreeMap<String, config::Value> {
    fn table<'a>(value: &'a mut config::Value, name: &str) -> Option<&'a mut config::Value> {
        inner_table(value)?.get_mut(name)
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
    fn examples_in_the_docs_are_valid() {
        let pages = [
            (include_str!("../../../docs/api.md"), 1),
            (include_str!("../../../docs/cli.md"), 1),
            (include_str!("../../../docs/connector.md"), 5),
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
    fn all_problems_are_reported_at_once() {
        let error = with(&["log.kind=pulsar", "telemetry.lisen=1", "nonsense.x=1", "what"]).unwrap_err();
        let text = error.to_string();
        for expected in [
            "--set, option 4 of this name, has no `=`: write KEY=VALUE",
            "--set log.kind: \"pulsar\" is not valid here; use one of: embedded, kafka",
            "--set telemetry.lisen: the key \"lisen\" is unknown; did you mean \"listen\"?",
            "--set nonsense.x: the key \"nonsense\" is unknown",
        ] {
            assert!(text.contains(expected), "{expected} is missing in:\n{text}");
        }
    }

    #[test]
    fn the_sample_of_traces_is_a_share() {
        for (sample, is_valid) in [("0", true), ("1", true), ("0.25", true), ("1.01", false), ("-0.1", false)] {
            let settings = with(&[&format!("telemetry.traces.sample={sample}")]);
            assert_eq!(settings.is_ok(), is_valid, "{sample}: {settings:?}");
        }
        for not_a_share in ["NaN", "many", ".inf"] {
            let text = with(&[&format!("telemetry.traces.sample={not_a_share}")]).unwrap_err().to_string();
            assert!(text.contains("telemetry.traces.sample"), "{text}");
        }
    }

    #[test]
    fn a_broken_setting_does_not_hide_problems_of_its_section() {
        let settings = ["router.lisen=1", "router.limits.head=many", "router.event_queue=7", "aggregator.max_skew=x"];
        let read = read(&Serve { settings: settings.map(str::to_owned).to_vec(), ..Serve::default() });
        assert_eq!((read.settings.router.event_queue, read.problems.len()), (7, 3), "{:?}", read.problems);
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
            "log.kafka.properties=sasl.password=hunter2",
            "log.kafka=hunter2",
            "log=hunter2",
            "telemetry=hunter2",
            "router=hunter2",
            "router.models=hunter2",
            "connector.destinations=hunter2",
            "controller.policies=hunter2",
            "hunter2",
            "=hunter2",
            "controller.tokens.hunter2hunter2hunter2=ann",
            "writers.hunter2hunter2hunter2=ann",
            "writers.hunter2hunter2hunter2.models=*",
            "writers.hunter2hunter2hunter2.models=7",
        ] {
            let Err(error) = with(&[setting]) else { continue };
            let text = error.to_string();
            assert!(!text.contains("hunter2"), "{setting}: {text}");
        }
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("serin.yaml");
        for text in [
            "router:\n  admin_token hunter2\n",
            "telemetry:\n  token hunter2\n",
            "log:\n  kafka:\n    properties:\n      sasl.password hunter2\n",
            "log: {kafka: {properties: [sasl.password=hunter2]}}\n",
            "admin_token hunter2\n",
            "- hunter2\n",
            "controller: {tokens: {hunter2hunter2hunter2: ann}}\n",
            "controller: {tokens: {hunter2hunter2hunter2: {role: operator}}}\n",
            "connector: {destinations: [{name: a, kind: slack, url: [hunter2]}]}\n",
            "connector: {destinations: [{name: a, kind: slack, ur: 'http://hunter2'}]}\n",
            "connector: {destinations: [https://hunter2]}\n",
            "writers: {hunter2hunter2hunter2: apps}\n",
            "writers: {hunter2hunter2hunter2: {models: ['*']}}\n",
            "writers: [{name: hunter2hunter2hunter2, models: ['*']}]\n",
            "writers: {hunter2hunter2hunter2: {models: ['*'], token: apps}}\n",
        ] {
            std::fs::write(&file, text).unwrap();
            let error = load(&Serve { config: Some(file.clone()), ..Serve::default() }).unwrap_err().to_string();
            assert!(!error.contains("hunter2"), "{text}: {error}");
        }
    }

    #[test]
    fn an_address_with_a_password_is_refused_and_not_shown() {
        for (setting, path) in [
            ("telemetry.otlp=http://u:hunter2@h:4318", "telemetry.otlp"),
            ("telemetry.otlp=http://hunter2@h:4318/v1", "telemetry.otlp"),
            ("telemetry.traces.otlp=http://u:hunter2@h:4318/v1/traces", "telemetry.traces.otlp"),
            ("log.kafka.brokers=user:hunter2@h:9092", "log.kafka.brokers"),
            ("log.kafka.brokers=a:9092,SASL_SSL://user:hunter2@h:9092", "log.kafka.brokers"),
        ] {
            let text = with(&[setting]).unwrap_err().to_string();
            assert!(text.contains(&format!("{path}: an address with a user or a password")), "{text}");
            assert!(!text.contains("hunter2"), "{text}");
        }
        assert!(with(&["telemetry.otlp=http://h:4318/v1/a@b", "log.kafka.brokers=a:9092,b:9092"]).is_ok());
    }

    #[test]
    fn a_text_that_contains_an_address_and_an_at_sign_is_not_an_address() {
        let found = |text: &str| {
            let mut problems = Vec::new();
            credentials("", &serde_json::json!({"a": [text]}), &mut problems);
            problems
        };
        let policy = "canary: {version: v2, url: \"http://canary:8080\"}\n# owner: ml-team@example.com\n";
        assert_eq!(found(policy), [""; 0]);
        for addresses in ["http://u:p@a:1", "http://a:1, http://u@b:1", " http://u@a:1\n"] {
            assert_eq!(found(addresses).len(), 1, "{addresses:?}");
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
        for part in ["writers.a: set one of", "another writer has the same name", "shorter than 16 characters"] {
            assert!(text.contains(part), "{part} is missing in:\n{text}");
        }
        let text = of("writers: [{name: a, models: 7, token: 0123456789abcdef}]").unwrap_err().to_string();
        assert!(!text.contains("0123456789abcdef"), "{text}");
    }

    #[test]
    fn topics_of_other_producers_are_among_the_topics() {
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
        assert!(error.contains("\"events\" is already in use") && error.contains("models must name"), "{error}");
    }

    #[test]
    fn the_intake_is_set_under_the_aggregator_and_its_problems_are_reported_once() {
        let settings = with(&["aggregator.intake.lateness=7s", "aggregator.intake.max_body=9"]).unwrap();
        assert_eq!(settings.aggregator.intake.max_body, 9);
        assert_eq!(settings.aggregator.intake.lateness, settings.aggregator.fold.relay_lateness);
        for (wrong, part) in [
            ("aggregator.intake.lateness=soon", "soon"),
            ("aggregator.intake.latenes=1s", "did you mean \"lateness\"?"),
            ("aggregator.intak.lateness=1s", "did you mean \"intake\"?"),
            ("aggregator=5", "a map of keys is expected here"),
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

    /// Without a file, the place of a problem in a whole section is the command line.
    #[test]
    fn a_problem_of_set_is_not_one_of_the_environment() {
        let error = with(&["router.models.m.stable=v1"]).unwrap_err().to_string();
        assert!(error.contains("--set: router: ") && !error.contains("environment"), "{error}");
    }

    #[test]
    fn kafka_needs_brokers() {
        let error = with(&["log.kind=kafka"]).unwrap_err();
        assert!(error.to_string().contains("log.kafka.brokers"));
    }
}
