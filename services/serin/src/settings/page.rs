//! Generates docs/settings.md, a table of all settings with default and meaning, from the types.

use std::fmt::Write as _;

use serde_json::{Map, Value as Json};

const HEAD: &str = "# Settings\n\n\
    One document contains the settings of every service. Every setting has a default, so a process starts without a file. Settings \
    are\nread from the file of `--config`, then from environment variables, then from `--set`; later sources take precedence:\n\n\
    | in the file | in the environment | on the command line |\n|---|---|---|\n\
    | `router: {listen: \"0.0.0.0:8000\"}` | `SERIN__ROUTER__LISTEN=0.0.0.0:8000` | `--set router.listen=0.0.0.0:8000` |\n\n\
    The file is YAML or JSON. Spans of time are written `500ms`, `10s`, `5m` or `6h`; sizes are bytes. `<name>` is a name that you \
    choose. All problems of a configuration\nare listed before anything starts, with exit status 64. `serin up --dump-config` prints the effective settings, \
    `serin schema --config` the\nJSON Schema of the file, for editors.\n";

/// Returns the page `docs/settings.md`.
fn page(schema: &Json) -> String {
    let mut page = HEAD.to_owned();
    for (section, property) in properties(schema) {
        let _ = write!(page, "\n## {section}\n\n{}\n\n", described(schema, property));
        let mut rows = Vec::new();
        rows_of(schema, property, section, &property["default"], &mut rows);
        page.push_str("| setting | default | meaning |\n|---|---|---|\n");
        for [setting, default, meaning] in rows {
            let _ = writeln!(page, "| `{setting}` | {default} | {meaning} |");
        }
    }
    page
}

fn properties(schema: &Json) -> impl Iterator<Item = (&String, &Json)> {
    schema["properties"].as_object().into_iter().flat_map(Map::iter)
}

/// Adds the rows of all settings within `schema`. `default`: the default of `schema` as a whole, if it has one.
fn rows_of(root: &Json, schema: &Json, path: &str, default: &Json, rows: &mut Vec<[String; 3]>) {
    let forms: Vec<&Json> = forms(root, schema);
    let mut has_parts = false;
    for form in &forms {
        if form["items"].is_object() && is_map(root, &form["items"]) {
            rows_of(root, &form["items"], &format!("{path}[]"), &Json::Null, rows);
            has_parts = true;
        }
        for (name, property) in properties(form) {
            let default = default.get(name).unwrap_or(&property["default"]);
            rows_of(root, property, &format!("{path}.{name}"), default, rows);
            has_parts = true;
        }
        let named = &form["additionalProperties"];
        if forms.len() == 1 && named.is_object() && !named.as_object().is_some_and(Map::is_empty) {
            let first = rows.len();
            rows_of(root, named, &format!("{path}.<name>"), &Json::Null, rows);
            // A row without its own description gets that of the section.
            for [_, _, meaning] in rows[first..].iter_mut().filter(|[_, _, meaning]| meaning.is_empty()) {
                *meaning = described(root, schema);
            }
            has_parts = true;
        }
    }
    if has_parts && !forms.iter().any(|form| form["type"] == "string") {
        return;
    }
    let default = match default {
        Json::Null => String::new(),
        Json::String(text) if text.is_empty() => String::new(),
        Json::Array(list) if list.is_empty() => String::new(),
        Json::Object(map) if map.is_empty() => String::new(),
        Json::String(text) => format!("`{text}`"),
        other => format!("`{other}`"),
    };
    let mut meaning = described(root, schema);
    let words: Vec<String> = forms.iter().flat_map(|form| words(form)).map(|word| format!("`{word}`")).collect();
    if !words.is_empty() && !words.iter().all(|word| meaning.contains(word)) {
        let _ = write!(meaning, " One of {}.", words.join(", "));
    }
    rows.push([path.to_owned(), default, meaning]);
}

/// The forms that a value may have, without null and without references.
fn forms<'a>(root: &'a Json, schema: &'a Json) -> Vec<&'a Json> {
    if let Some(target) = schema["$ref"].as_str() {
        return forms(root, &root["$defs"][target.trim_start_matches("#/$defs/")]);
    }
    match schema["anyOf"].as_array() {
        Some(any) => any.iter().filter(|form| form["type"] != "null").flat_map(|form| forms(root, form)).collect(),
        None => vec![schema],
    }
}

fn is_map(root: &Json, schema: &Json) -> bool {
    forms(root, schema).iter().any(|form| form["properties"].is_object())
}

/// The values of an enum.
fn words(schema: &Json) -> Vec<String> {
    let of = |choice: &Json| -> Vec<String> {
        let inner = choice["properties"].as_object().and_then(|properties| properties.keys().next());
        let one = choice["const"].as_str().map(str::to_owned).or_else(|| inner.map(|name| format!("{{{name}: ...}}")));
        let many = choice["enum"].as_array().into_iter().flatten().filter_map(Json::as_str).map(str::to_owned);
        one.into_iter().chain(many).collect()
    };
    let choices = schema["oneOf"].as_array().map_or_else(|| vec![schema], |choices| choices.iter().collect());
    if schema["properties"].is_object() { Vec::new() } else { choices.into_iter().flat_map(of).collect() }
}

/// The description of a setting or, if there is none, of its type, on one line.
fn described(root: &Json, schema: &Json) -> String {
    let own = schema["description"].as_str();
    let of_type = || forms(root, schema).first().and_then(|form| form["description"].as_str());
    own.or_else(of_type).unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::json_schema;

    /// With `SERIN_WRITE_DOCS=1` the test writes the page instead.
    #[test]
    fn the_page_of_settings_is_current() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/settings.md");
        let now = page(&json_schema());
        if std::env::var_os("SERIN_WRITE_DOCS").is_some() {
            std::fs::write(path, &now).unwrap();
        }
        let kept = std::fs::read_to_string(path).unwrap_or_default();
        assert!(kept == now, "docs/settings.md is out of date: run this test with SERIN_WRITE_DOCS=1");
    }

    #[test]
    fn every_setting_has_a_meaning() {
        let page = page(&json_schema());
        let rows: Vec<&str> =
            page.lines().filter(|line| line.starts_with("| `") && !line.contains("SERIN__")).collect();
        assert!(rows.len() > 100, "{}", rows.len());
        for row in rows {
            assert!(!row.ends_with("|  |"), "{row}: has no meaning");
        }
    }

    /// Checks that the walk over the configuration supports every form of schema that occurs.
    #[test]
    fn the_schema_has_only_forms_that_the_walk_knows() {
        fn look(schema: &Json, path: &str) {
            if schema.as_object().is_some_and(Map::is_empty) {
                return;
            }
            let of_type = match &schema["type"] {
                Json::String(_) => 1,
                Json::Array(kinds) => kinds.iter().filter(|kind| **kind != "null").count(),
                _ => 0,
            };
            let forms = ["$ref", "oneOf", "anyOf"].iter().filter(|form| !schema[**form].is_null()).count();
            assert_eq!(forms + of_type, 1, "{path}: {schema}");
            assert!(schema["allOf"].is_null() && schema["patternProperties"].is_null(), "{path}: {schema}");
            for (name, property) in properties(schema) {
                look(property, &format!("{path}.{name}"));
            }
            if schema["type"] == "object" {
                let other = &schema["additionalProperties"];
                assert!(*other == false || other.is_object(), "{path} takes unknown keys: {schema}");
            }
            for inner in
                ["items", "additionalProperties"].map(|name| &schema[name]).into_iter().filter(|s| s.is_object())
            {
                look(inner, path);
            }
            for form in ["oneOf", "anyOf"] {
                for choice in schema[form].as_array().into_iter().flatten().filter(|choice| choice["type"] != "null") {
                    look(choice, &format!("{path}.{form}"));
                }
            }
        }
        let schema = json_schema();
        look(&schema, "");
        for (name, definition) in schema["$defs"].as_object().unwrap() {
            look(definition, name);
        }
    }
}
