//! Writers: clients that may send evidence over HTTP, the models that each may report on, and their credentials.

use std::{borrow::Cow, fmt, path::PathBuf, sync::Arc};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{MapAccess, SeqAccess, Visitor, value::MapAccessDeserializer},
};
use serin_schemas::pattern;

use crate::secret::{Digest, Secret, looks_like_secret, short_token};

/// Longest name of a writer and longest pattern, in bytes. Every record of the writer carries both.
const MAX_BYTES: usize = 200;
/// Maximum number of patterns of one writer.
const MAX_PATTERNS: usize = 32;

/// The kinds of evidence that a writer may send.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Door {
    /// Labels, sent to `POST /v1/feedback` or to Seldon's `POST /api/v1.0/feedback`.
    Feedback,
    /// Predictions of calls that did not pass through a Serin router, and outputs of calls that did, sent to
    /// `POST /v1/events`.
    Events,
}

impl Door {
    /// The name used in the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Feedback => "feedback",
            Self::Events => "events",
        }
    }
}

/// A writer in the configuration. Exactly one of `token`, `token_file` and `token_sha256` is set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WriterConfig {
    /// The writer's name. Every record that the writer sends carries it.
    #[serde(default)]
    pub name: String,
    /// The models that the writer may report on: names, or patterns with `*`.
    #[serde(deserialize_with = "one_or_many")]
    #[schemars(schema_with = "one_or_many_of::<String>")]
    pub models: Vec<String>,
    /// What the writer may send. Default: feedback only.
    #[serde(default = "feedback_only", deserialize_with = "one_or_many")]
    #[schemars(schema_with = "one_or_many_of::<Door>")]
    pub may: Vec<Door>,
    /// The writer's token, at least 16 characters. As an environment variable: `SERIN__WRITERS__<NAME>__TOKEN`.
    #[serde(default)]
    pub token: Secret,
    /// A file that contains the writer's token. It is read again on SIGHUP.
    #[serde(default)]
    pub token_file: Option<PathBuf>,
    /// The SHA-256 of the writer's token as 64 hexadecimal digits: `printf %s "$TOKEN" | sha256sum`.
    #[serde(default)]
    pub token_sha256: Option<String>,
}

fn feedback_only() -> Vec<Door> {
    vec![Door::Feedback]
}

/// The JSON schema of a value that [`one_or_many`] reads.
fn one_or_many_of<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    let one = generator.subschema_for::<T>();
    json_schema!({"anyOf": [{"type": "array", "items": one}, {"type": "string"}]})
}

/// Reads one value, a list of values, or a string of comma-separated values.
fn one_or_many<'de, D: Deserializer<'de>, T: Deserialize<'de>>(from: D) -> Result<Vec<T>, D::Error> {
    struct OneOrMany<T>(std::marker::PhantomData<T>);
    impl<'de, T: Deserialize<'de>> Visitor<'de> for OneOrMany<T> {
        type Value = Vec<T>;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a string or a list of strings")
        }
        fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Self::Value, E> {
            let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
            parts.map(|part| T::deserialize(serde::de::value::StrDeserializer::<E>::new(part))).collect()
        }
        fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
            let mut found = Vec::new();
            while let Some(one) = list.next_element()? {
                found.push(one);
            }
            Ok(found)
        }
    }
    from.deserialize_any(OneOrMany(std::marker::PhantomData))
}

/// The writers of a configuration: a list, or a map by name. Environment variables can only write the map.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct WriterList(pub Vec<WriterConfig>);

impl JsonSchema for WriterList {
    fn schema_name() -> Cow<'static, str> {
        "WriterList".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let writer = generator.subschema_for::<WriterConfig>();
        json_schema!({
            "anyOf": [{"type": "array", "items": writer}, {"type": "object", "additionalProperties": writer}]
        })
    }
}

impl<'de> Deserialize<'de> for WriterList {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct ListOrMap;
        impl<'de> Visitor<'de> for ListOrMap {
            type Value = WriterList;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of writers, or writers by name")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
                let mut found = Vec::new();
                while let Some(writer) = list.next_element()? {
                    found.push(writer);
                }
                Ok(WriterList(found))
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                let by_name =
                    std::collections::BTreeMap::<String, WriterConfig>::deserialize(MapAccessDeserializer::new(map))?;
                let named = by_name.into_iter().map(|(name, writer)| WriterConfig { name, ..writer });
                Ok(WriterList(named.collect()))
            }
        }
        from.deserialize_any(ListOrMap)
    }
}

/// A writer whose token can be checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Writer {
    name: String,
    models: Vec<String>,
    may: Vec<Door>,
    token: Digest,
}

impl Writer {
    /// The writer's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The models that the writer may report on, as patterns.
    pub fn models(&self) -> &[String] {
        &self.models
    }

    /// Whether the writer may send this kind of evidence.
    pub fn may(&self, door: Door) -> bool {
        self.may.contains(&door)
    }

    /// Whether the writer may report on a model.
    pub fn covers(&self, model: &str) -> bool {
        self.models.iter().any(|pattern| pattern::matches(pattern, model))
    }
}

/// All configured writers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Writers(Vec<Arc<Writer>>);

impl Writers {
    /// Checks the writers of a configuration and reads their token files.
    ///
    /// # Errors
    /// Every problem, each with the location of its setting.
    pub fn load(list: &WriterList) -> Result<Self, Vec<String>> {
        let mut problems = list.problems();
        let mut found: Vec<Arc<Writer>> = Vec::new();
        for (index, config) in list.0.iter().enumerate() {
            let place = config.place(index);
            match config.digest(&place) {
                Err(problem) if !problems.contains(&problem) => problems.push(problem),
                Err(_) => {}
                Ok(token) if found.iter().any(|other| other.token == token) => {
                    problems.push(format!("{place}: has the same token as another writer; give each one its own"));
                }
                Ok(token) => {
                    let WriterConfig { name, models, may, .. } = config.clone();
                    found.push(Arc::new(Writer { name, models, may, token }));
                }
            }
        }
        if problems.is_empty() { Ok(Self(found)) } else { Err(problems) }
    }

    /// Whether no writers are configured.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The writer with this token. All tokens are compared, so that the time reveals nothing.
    pub fn find(&self, token: &str) -> Option<&Arc<Writer>> {
        let mut found = None;
        for writer in &self.0 {
            if writer.token.is(token) {
                found = Some(writer);
            }
        }
        found
    }
}

impl WriterList {
    /// Every problem that can be found without reading token files. Only the router can read those.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        for (index, config) in self.0.iter().enumerate() {
            let place = config.place(index);
            config.check(&place, &mut problems);
            if self.0[..index].iter().any(|other| other.name == config.name) {
                problems.push(format!("{place}: another writer has the same name"));
            }
            if config.token_file.is_none() || config.token_sha256.is_some() || !config.token.is_empty() {
                problems.extend(config.digest(&place).err());
            }
        }
        problems
    }
}

impl WriterConfig {
    /// Where the writer is configured. A name that may be a token, because names and values were swapped, is not repeated.
    fn place(&self, index: usize) -> String {
        if self.name.is_empty() || looks_like_secret(&self.name) {
            format!("writers[{index}]")
        } else {
            format!("writers.{}", self.name)
        }
    }

    fn check(&self, place: &str, problems: &mut Vec<String>) {
        if self.name.is_empty() || self.name.len() > MAX_BYTES {
            problems.push(format!("{place}: name must have 1 to {MAX_BYTES} bytes"));
        }
        if self.models.is_empty() || self.models.len() > MAX_PATTERNS {
            problems
                .push(format!("{place}: models must name 1 to {MAX_PATTERNS} models or patterns; `*` is every model"));
        }
        for model in self.models.iter().filter(|model| model.is_empty() || model.len() > MAX_BYTES) {
            problems
                .push(format!("{place}: models: a pattern has {} bytes; it must have 1 to {MAX_BYTES}", model.len()));
        }
        if self.may.is_empty() {
            problems.push(format!("{place}: may must name feedback, events or both"));
        }
    }

    fn digest(&self, place: &str) -> Result<Digest, String> {
        match (self.token.is_empty(), &self.token_file, &self.token_sha256) {
            (false, None, None) => short_token(&format!("{place}: token"), self.token.expose())
                .map_or_else(|| Ok(self.token.digest()), Err),
            (true, Some(file), None) => {
                let text = std::fs::read_to_string(file)
                    .map_err(|error| format!("{place}: token_file {} cannot be read: {error}", file.display()))?;
                let token = text.trim();
                short_token(&format!("{place}: token_file {}", file.display()), token)
                    .map_or_else(|| Ok(Secret::new(token).digest()), Err)
            }
            (true, None, Some(digest)) => Digest::parse(digest).ok_or_else(|| {
                format!("{place}: token_sha256 must have 64 hexadecimal digits, as sha256sum prints them")
            }),
            _ => Err(format!("{place}: set one of token_file, token_sha256 and token")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn load(value: Value) -> Result<Writers, Vec<String>> {
        Writers::load(&serde_json::from_value(value).unwrap())
    }

    #[test]
    fn a_writer_is_found_by_its_token_in_every_form_of_configuration() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("token");
        std::fs::write(&file, "token-of-the-second\n").unwrap();
        // printf %s token-of-the-third | sha256sum
        let digest = "ed9328f7210f7dd8f78601ec5d227df6a4a8cc65c89d69e334cf9d8272b5804b";
        let writers = load(json!([
            {"name": "one", "models": "fraud", "token": "token-of-the-first"},
            {"name": "two", "models": ["team-a-*", "*/llama"], "may": ["feedback", "events"], "token_file": file},
            {"name": "three", "models": ["*"], "may": "events", "token_sha256": digest},
        ]))
        .unwrap();
        let found = |token| writers.find(token).map(|writer| writer.name());
        assert_eq!(found("token-of-the-first"), Some("one"));
        assert_eq!(found("token-of-the-second"), Some("two"));
        assert_eq!(found("token-of-the-third"), Some("three"));
        assert_eq!((found(""), found("token-of-the-first\n"), found("token-of-the-firs")), (None, None, None));
        let two = writers.find("token-of-the-second").unwrap();
        assert!(two.covers("team-a-fraud") && two.covers("meta/llama") && !two.covers("team-b-fraud"));
        assert!(two.may(Door::Events) && !writers.find("token-of-the-first").unwrap().may(Door::Events));
        assert!(!writers.find("token-of-the-third").unwrap().may(Door::Feedback));
    }

    #[test]
    fn writers_can_be_a_map_for_environment_variables() {
        let writers = load(json!({"apps": {"models": "a, b*", "may": "feedback,events", "token": "0123456789abcdef"}}));
        let writers = writers.unwrap();
        let apps = writers.find("0123456789abcdef").unwrap();
        assert_eq!((apps.name(), apps.models()), ("apps", &["a".to_owned(), "b*".to_owned()][..]));
        assert!(apps.may(Door::Events));
    }

    #[test]
    fn every_problem_names_its_setting_and_shows_no_token() {
        let problems = load(json!([
            {"name": "", "models": [], "may": [], "token": "s3cret"},
            {"name": "two", "models": ["x".repeat(300)], "token_file": "/nowhere"},
            {"name": "three", "models": ["*"], "token_sha256": "abc"},
            {"name": "four", "models": ["*"]},
            {"name": "five", "models": ["*"], "token": "0123456789abcdef"},
            {"name": "five", "models": ["*"], "token": "0123456789abcdef"},
            {"name": "0123456789abcdef", "models": ["*"], "token": "short"},
        ]))
        .unwrap_err();
        assert_eq!(
            problems,
            [
                "writers[0]: name must have 1 to 200 bytes",
                "writers[0]: models must name 1 to 32 models or patterns; `*` is every model",
                "writers[0]: may must name feedback, events or both",
                "writers[0]: token: shorter than 16 characters; `openssl rand -hex 24` generates a suitable one",
                "writers.two: models: a pattern has 300 bytes; it must have 1 to 200",
                "writers.three: token_sha256 must have 64 hexadecimal digits, as sha256sum prints them",
                "writers.four: set one of token_file, token_sha256 and token",
                "writers.five: another writer has the same name",
                "writers[6]: token: shorter than 16 characters; `openssl rand -hex 24` generates a suitable one",
                "writers.two: token_file /nowhere cannot be read: No such file or directory (os error 2)",
                "writers.five: has the same token as another writer; give each one its own",
            ]
        );
    }

    #[test]
    fn a_dump_shows_no_token() {
        let list: WriterList =
            serde_json::from_value(json!([{"name": "a", "models": ["*"], "token": "0123456789abcdef"}])).unwrap();
        let dump = serde_json::to_string(&list).unwrap();
        assert!(!dump.contains("0123456789abcdef") && dump.contains("(hidden)"), "{dump}");
        assert!(!format!("{list:?}{:?}", Writers::load(&list)).contains("0123456789abcdef"));
    }
}
