//! Walks a tree along the JSON Schema of the rollout file or of the configuration, and collects everything that does not fit.
//!
//! Broken parts are replaced by placeholders, so that the rest can still be linted. The walk only supports the forms of schema that
//! `schemars` generates from our types. A test checks that each schema has no other form.

use std::{collections::BTreeMap, net::SocketAddr};

use serde_json::{Map, Value as Json, json};

use super::{
    problem,
    tree::{At, Key, Node, Value},
};
use serin_spec::{Problem, Share, suggest, units::Duration};

/// Result of a walk.
pub(super) struct Walked {
    /// The tree as JSON, with placeholders for broken parts.
    pub(super) value: Json,
    pub(super) problems: Vec<Problem>,
    /// Paths with placeholders, or with defaults that the author did not intend.
    pub(super) broken: Vec<String>,
    places: BTreeMap<String, At>,
}

impl Walked {
    /// Position of a path or, if there is none, of the nearest part around it.
    pub(super) fn place(&self, path: &str) -> At {
        let mut path = path;
        loop {
            if let Some(at) = self.places.get(path) {
                return *at;
            }
            match path.rfind(['.', '[']) {
                Some(end) => path = &path[..end],
                None if path.is_empty() => return (1, 1),
                None => path = "",
            }
        }
    }
}

/// Rules for the kind of document that is walked.
#[derive(Clone, Copy)]
pub(super) struct Form {
    /// Page of the documentation that describes the document.
    pub(super) page: &'static str,
    /// Whether numbers may be in quotes, and `yes`, `on` and `1` are `true`. The configuration is also read from environment
    /// variables, which are always text.
    pub(super) texts_are_values: bool,
    /// Whether the document is only a part: other sources may have the missing keys.
    pub(super) is_part: bool,
    /// Whether the value at a path may be a secret. Problems do not quote secrets.
    pub(super) is_secret: fn(&str) -> bool,
    /// Whether a name at such a path looks like a secret itself.
    pub(super) is_secret_name: fn(&str) -> bool,
}

impl Form {
    /// The rollout file.
    pub(super) const ROLLOUT: Self = Self {
        page: "docs/rollout-spec.md",
        texts_are_values: false,
        is_part: false,
        is_secret: |_| false,
        is_secret_name: |_| false,
    };
}

pub(super) fn walk(root: &Node, schema: &Json, form: Form) -> Walked {
    let mut walker = Walker { root: schema, form, problems: Vec::new(), broken: Vec::new(), places: BTreeMap::new() };
    let value = walker.node(root, schema, "");
    Walked { value, problems: walker.problems, broken: walker.broken, places: walker.places }
}

/// Shown in place of a name that may be a secret, also in the path of a problem.
pub const HIDDEN: &str = "(hidden)";
/// No token is shorter.
const SHORTEST_SECRET: usize = 16;

struct Walker<'a> {
    root: &'a Json,
    form: Form,
    problems: Vec<Problem>,
    broken: Vec<String>,
    places: BTreeMap<String, At>,
}

impl<'a> Walker<'a> {
    /// Follows references. The name of the last one identifies the type. `value` selects the form of a type that has several.
    fn resolve(&self, mut schema: &'a Json, value: Option<&Value>) -> (&'a Json, &'a str) {
        let mut name = "";
        loop {
            if let Some(target) = schema["$ref"].as_str() {
                name = target.trim_start_matches("#/$defs/");
                schema = &self.root["$defs"][name];
            } else if let Some(any) = schema["anyOf"].as_array() {
                // `Option<T>` is `anyOf: [T, null]`. Of several scalar types, such as boolean, number and text, the first that can
                // read the value is meant.
                let reads = |choice: &&'a Json| value.is_some_and(|value| self.reads(choice, value));
                let takes = |choice: &&'a Json| value.is_some_and(|value| self.takes(choice, value));
                match any.iter().find(reads).or(any.iter().find(takes)).or(any.first()) {
                    Some(choice) => schema = choice,
                    None => return (schema, name),
                }
            } else {
                return (schema, name);
            }
        }
    }

    /// Whether a value has the shape of a type.
    fn takes(&self, schema: &'a Json, value: &Value) -> bool {
        let (resolved, _) = self.resolve(schema, Some(value));
        match value {
            Value::Map(_) => kind(resolved) == "object" || resolved["oneOf"].is_array(),
            Value::List(_) => kind(resolved) == "array",
            Value::Scalar { .. } => !matches!(kind(resolved), "object" | "array" | "null" | ""),
        }
    }

    /// Whether a scalar can be read as a type.
    fn reads(&self, schema: &'a Json, value: &Value) -> bool {
        let (resolved, name) = self.resolve(schema, Some(value));
        match value {
            Value::Scalar { text, plain } => {
                self.takes(schema, value) && self.scalar(text, *plain, resolved, name, "").is_ok()
            }
            Value::Map(_) | Value::List(_) => false,
        }
    }

    /// The value at a path as quoted text, unless it may be a secret.
    fn found(&self, value: &Value, path: &str) -> String {
        match value {
            Value::Scalar { text, .. } if !(self.form.is_secret)(path) => format!("{text:?}"),
            Value::Scalar { .. } => "a string".to_owned(),
            Value::List(_) => "a list".to_owned(),
            Value::Map(_) => "a map of keys".to_owned(),
        }
    }

    /// Reports a broken part and returns a placeholder for it.
    fn broken(
        &mut self,
        path: &str,
        at: At,
        schema: &'a Json,
        message: impl Into<String>,
        fix: impl Into<String>,
    ) -> Json {
        self.problems.push(problem(path, at, message, fix));
        self.broken.push(path.to_owned());
        self.placeholder(schema)
    }

    fn node(&mut self, node: &Node, schema: &'a Json, path: &str) -> Json {
        self.places.entry(path.to_owned()).or_insert(node.at);
        let nullable = schema["anyOf"].is_array() || schema["type"].is_array();
        if nullable && matches!(&node.value, Value::Scalar { text, plain: true } if is_null(text)) {
            return Json::Null;
        }
        let (resolved, name) = self.resolve(schema, Some(&node.value));
        if resolved["oneOf"].is_array() || resolved["enum"].is_array() {
            return self.choice(node, resolved, path);
        }
        match (kind(resolved), &node.value) {
            // Any value is allowed, for example in the properties of a library.
            ("", _) => Json::Null,
            ("object", Value::Map(entries)) => self.object(node, entries, resolved, path),
            ("array", Value::List(items)) => Json::Array(
                items
                    .iter()
                    .enumerate()
                    .map(|(index, item)| self.node(item, &resolved["items"], &format!("{path}[{index}]")))
                    .collect(),
            ),
            ("object" | "array", value) => {
                let found = match value {
                    // Any key below may be a secret, for example after a forgotten colon.
                    Value::Scalar { .. } if self.form.is_part => "a string".to_owned(),
                    value => self.found(value, path),
                };
                let message = format!("{} is expected here, this is {found}", expected(kind(resolved)));
                self.broken(path, node.at, schema, message, fix_of(resolved))
            }
            (_, Value::Scalar { text, plain }) => match self.scalar(text, *plain, resolved, name, path) {
                Ok(value) => value,
                Err((message, fix)) => self.broken(path, node.at, schema, message, fix),
            },
            (kind, value) => {
                let message = format!("{} is expected here, this is {}", expected(kind), self.found(value, path));
                self.broken(path, node.at, schema, message, fix_of(resolved))
            }
        }
    }

    /// Whether a name in a map of secrets may be a secret itself, as in `tokens: {<token>: ann}`.
    fn may_be_secret(&self, key: &Key, value: &Node, path: &str) -> bool {
        let is_swapped = matches!(value.value, Value::Scalar { .. });
        self.form.is_part
            && (self.form.is_secret)(path)
            && ((self.form.is_secret_name)(&key.text) || is_swapped && key.text.len() >= SHORTEST_SECRET)
    }

    fn object(&mut self, node: &Node, entries: &[(Key, Node)], schema: &'a Json, path: &str) -> Json {
        let known = || schema["properties"].as_object().into_iter().flat_map(Map::keys).map(String::as_str);
        let mut object = Map::new();
        let mut meant = Vec::new();
        for (key, value) in entries {
            let here = join(path, &key.text);
            let by_any_name = Some(&schema["additionalProperties"]).filter(|schema| schema.is_object());
            let Some(property) = schema["properties"].get(&key.text).or(by_any_name) else {
                let nearest = suggest::nearest(&key.text, known()).map(str::to_owned);
                let otherwise = format!("valid keys: {}", known().collect::<Vec<_>>().join(", "));
                let fix = nearest.as_ref().map_or(otherwise, |name| format!("did you mean {name:?}?"));
                self.problems.push(problem(&here, key.at, format!("the key {:?} is unknown", key.text), fix));
                meant.extend(nearest);
                continue;
            };
            if object.contains_key(&key.text) {
                let message = format!("the key {:?} is given twice", key.text);
                self.problems.push(problem(&here, key.at, message, "keep one of them"));
                continue;
            }
            let here = if self.may_be_secret(key, value, path) { join(path, HIDDEN) } else { here };
            let value = self.node(value, property, &here);
            // Report problems at the key, because the value may start on a later line.
            self.places.insert(here, key.at);
            object.insert(key.text.clone(), value);
        }
        for name in meant.iter().filter(|name| !object.contains_key(*name)) {
            self.broken.push(join(path, name));
        }
        for name in schema["required"].as_array().into_iter().flatten().filter_map(Json::as_str) {
            if object.contains_key(name) || self.form.is_part {
                continue;
            }
            let property = &schema["properties"][name];
            let value = if meant.iter().any(|meant| meant == name) {
                self.placeholder(property)
            } else {
                let fix = format!("add it: {}", property["description"].as_str().unwrap_or("this key is required"));
                self.broken(&join(path, name), node.at, property, format!("{name:?} is missing"), fix)
            };
            object.insert(name.to_owned(), value);
        }
        Json::Object(object)
    }

    /// An enum: a word, or a map with one key.
    fn choice(&mut self, node: &Node, schema: &'a Json, path: &str) -> Json {
        let choices = choices(schema);
        let all = || choices.iter().map(|(name, inner)| (*name, inner.is_some()));
        let listed = || {
            let write = |(name, has_value)| if has_value { format!("{{{name}: ...}}") } else { str::to_owned(name) };
            all().map(write).collect::<Vec<String>>().join(", ")
        };
        let unknown = |text: &str| {
            let fix = match (in_place_of(text, path), suggest::nearest(text, all().map(|(name, _)| name))) {
                (Some(fix), _) => fix.to_owned(),
                (None, Some(name)) => format!("did you mean {name:?}?"),
                (None, None) => format!("use one of: {}", listed()),
            };
            let found = if (self.form.is_secret)(path) { "this text".to_owned() } else { format!("{text:?}") };
            (format!("{found} is not valid here"), fix)
        };
        let (message, fix) = match &node.value {
            Value::Scalar { text, .. } => match choices.iter().find(|(name, _)| name == text) {
                Some((name, None)) => return json!(name),
                Some((name, Some(_))) => (format!("{name:?} needs a value"), format!("write {{{name}: ...}}")),
                None => unknown(text),
            },
            Value::Map(entries) => match entries.as_slice() {
                [(key, value)] => match choices.iter().find(|(name, _)| *name == key.text) {
                    Some((name, Some(inner))) => {
                        let inner = self.node(value, inner, &join(path, name));
                        return json!({ *name: inner });
                    }
                    Some((name, None)) => (format!("{name:?} takes no value"), format!("write {name} alone")),
                    None => unknown(&key.text),
                },
                _ => (
                    format!("exactly one key is expected here, this has {}", entries.len()),
                    format!("use one of: {}", listed()),
                ),
            },
            Value::List(_) => ("a list is not expected here".to_owned(), format!("use one of: {}", listed())),
        };
        self.broken(path, node.at, schema, message, fix)
    }

    /// A scalar as a value of its type or, if it does not fit, what is wrong and how to fix it.
    fn scalar(&self, text: &str, plain: bool, schema: &Json, name: &str, path: &str) -> Result<Json, (String, String)> {
        let loose = self.form.texts_are_values;
        let wrong = |what: &str, fix: &str| {
            let found = self.found(&Value::Scalar { text: text.to_owned(), plain }, path);
            Err((format!("{what} is expected here, this is {found}"), fix.to_owned()))
        };
        match (name, kind(schema)) {
            ("Duration", _) => match Duration::parse(text) {
                Ok(_) => Ok(json!(text)),
                Err(_) => wrong("a time span", "write for example 500ms, 10s, 5m, 6h, 2d or 1h30m"),
            },
            ("Share", _) => match Share::parse(text) {
                Ok(_) => Ok(json!(text)),
                Err(_) => {
                    wrong("a share of the traffic", "write for example 5% or 0.25%, in steps of 0.01%, up to 100%")
                }
            },
            (_, "string") if plain && is_null(text) && !loose => wrong("text", "write a value"),
            (_, "string") if schema["format"] == "ip:port" && text.parse::<SocketAddr>().is_err() => {
                wrong("an address", "write an IP address and a port, such as 127.0.0.1:8000 or [::1]:8000")
            }
            // A version such as 1.10 stays as it is written.
            (_, "string") => Ok(json!(text)),
            (_, "boolean") if plain && matches!(text, "true" | "false") => Ok(json!(text == "true")),
            (_, "boolean") if loose && is_one_of(text, ["true", "1", "yes", "on"]) => Ok(json!(true)),
            (_, "boolean") if loose && is_one_of(text, ["false", "0", "no", "off"]) => Ok(json!(false)),
            (_, "boolean") => wrong("true or false", "write true or false, without quotes"),
            (_, "integer") if plain || loose => match text.replace('_', "").parse::<u64>() {
                Ok(number) => Ok(json!(number)),
                Err(_) => wrong("a whole number of at least 0", "write for example 1000"),
            },
            (_, "number") if plain || loose => match text.replace('_', "").parse::<f64>() {
                Ok(number) if number.is_finite() => Ok(json!(number)),
                _ if text.ends_with('%') => wrong("a number", "write 5% as 0.05"),
                _ => wrong("a number", "write for example 0.01"),
            },
            (_, "integer" | "number") => wrong("a number", "write it without quotes"),
            (_, kind) => wrong(expected(kind), &format!("see {}", self.form.page)),
        }
    }

    /// Any valid value of the type, so that the rest can be read.
    fn placeholder(&self, schema: &'a Json) -> Json {
        if schema["anyOf"].is_array() || schema["type"].is_array() {
            return Json::Null;
        }
        let (resolved, name) = self.resolve(schema, None);
        if resolved["oneOf"].is_array() || resolved["enum"].is_array() {
            return match choices(resolved).first() {
                Some((name, Some(inner))) => json!({ *name: self.placeholder(inner) }),
                Some((name, None)) => json!(name),
                None => Json::Null,
            };
        }
        match (name, kind(resolved)) {
            ("Duration", _) => json!("10m"),
            ("Share", _) => json!("1%"),
            (_, "object") => {
                let required = resolved["required"].as_array().into_iter().flatten().filter_map(Json::as_str);
                required.map(|name| (name.to_owned(), self.placeholder(&resolved["properties"][name]))).collect()
            }
            (_, "array") => json!([]),
            (_, "boolean") => json!(false),
            (_, "integer") => json!(0),
            (_, "number") => json!(0.0),
            _ => json!(""),
        }
    }
}

/// Names of an enum's variants, with the schema of their value if they have one.
fn choices(schema: &Json) -> Vec<(&str, Option<&Json>)> {
    let mut choices = Vec::new();
    let single = schema["enum"].is_array().then_some(schema);
    for choice in schema["oneOf"].as_array().into_iter().flatten().chain(single) {
        if let Some(name) = choice["const"].as_str() {
            choices.push((name, None));
        } else if let Some(names) = choice["enum"].as_array() {
            choices.extend(names.iter().filter_map(Json::as_str).map(|name| (name, None)));
        } else if let Some((name, inner)) =
            choice["properties"].as_object().and_then(|properties| properties.iter().next())
        {
            choices.push((name.as_str(), Some(inner)));
        }
    }
    choices
}

/// The JSON type of a schema, without the `null` of an option.
fn kind(schema: &Json) -> &str {
    match &schema["type"] {
        Json::String(kind) => kind,
        Json::Array(kinds) => kinds.iter().filter_map(Json::as_str).find(|kind| *kind != "null").unwrap_or_default(),
        _ => "",
    }
}

/// Whether the text is one of these words. Case does not matter.
fn is_one_of(text: &str, words: [&str; 4]) -> bool {
    words.iter().any(|word| text.eq_ignore_ascii_case(word))
}

fn is_null(text: &str) -> bool {
    matches!(text, "" | "~" | "null" | "Null" | "NULL")
}

fn expected(kind: &str) -> &'static str {
    match kind {
        "object" => "a map of keys",
        "array" => "a list",
        "boolean" => "true or false",
        "integer" => "a whole number",
        "number" => "a number",
        _ => "text",
    }
}

fn fix_of(schema: &Json) -> String {
    match kind(schema) {
        "array" => "write each item on a line that starts with a dash".to_owned(),
        "object" => {
            let keys: Vec<&str> =
                schema["properties"].as_object().into_iter().flat_map(Map::keys).map(String::as_str).collect();
            format!("valid keys: {}", keys.join(", "))
        }
        _ => "write a single value".to_owned(),
    }
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

/// What to write in place of a well-known quantity that is not a source or kind under its name.
fn in_place_of(text: &str, path: &str) -> Option<&'static str> {
    if !matches!(path.rsplit('.').next(), Some("source" | "kind")) {
        return None;
    }
    Some(match text.to_ascii_lowercase().as_str() {
        "f1" | "f1_score" | "fbeta" => {
            "F1 is not a mean over answers, so it has no test that may be read at every window; gate its parts, recall and \
             precision, as rates with `where` (docs/cookbook.md)"
        }
        "auc" | "roc_auc" | "auroc" => {
            "AUC compares pairs of answers, so it has no test that may be read at every window; gate recall and the \
             false-positive rate as rates with `where`, or log_loss (docs/cookbook.md)"
        }
        "ndcg" | "mrr" | "reciprocal_rank" | "hit_rate" | "hit" => {
            "write {ranking: {output: ..., label: ..., measure: ...}} with the measure ndcg, reciprocal_rank or hit"
        }
        "recall" | "precision" | "false_positive_rate" => {
            "write it as a rate with `where`: it is a share of the answers that meet a condition (docs/cookbook.md)"
        }
        _ => return None,
    })
}
