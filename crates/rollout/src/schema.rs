//! The JSON Schema of the spec, generated from its types. Editors use it; [`crate::yaml`] checks specs against it.

use serde_json::Value;

use serin_spec::RolloutSpec;

/// The JSON Schema (draft 2020-12) of a rollout spec. A copy is in `docs/rollout.schema.json`.
pub fn json_schema() -> Value {
    schemars::schema_for!(RolloutSpec).to_value()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// With `SERIN_WRITE_SCHEMA=1`, the test writes the file first.
    #[test]
    fn the_schema_in_the_docs_is_current() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/rollout.schema.json");
        let now = format!("{:#}\n", json_schema());
        if std::env::var_os("SERIN_WRITE_SCHEMA").is_some() {
            std::fs::write(path, &now).unwrap();
        }
        let kept = std::fs::read_to_string(path).unwrap_or_default();
        assert!(kept == now, "docs/rollout.schema.json is out of date: run this test with SERIN_WRITE_SCHEMA=1");
    }

    /// The walk over a spec's text only supports these forms of schema.
    #[test]
    fn the_schema_has_only_forms_that_the_walk_supports() {
        fn check(schema: &Value, path: &str) {
            let known = ["object", "array", "string", "boolean", "integer", "number"];
            let kinds: Vec<&str> = match &schema["type"] {
                Value::String(kind) => vec![kind],
                Value::Array(kinds) => kinds.iter().filter_map(Value::as_str).filter(|kind| *kind != "null").collect(),
                _ => Vec::new(),
            };
            let forms =
                ["$ref", "oneOf", "anyOf"].iter().filter(|form| !schema[**form].is_null()).count() + kinds.len();
            assert!(forms == 1 && kinds.iter().all(|kind| known.contains(kind)), "{path}: {schema}");
            assert!(schema["allOf"].is_null() && schema["patternProperties"].is_null(), "{path}: {schema}");
            if kinds == ["object"] {
                assert_eq!(schema["additionalProperties"], false, "{path} takes unknown keys");
                for (name, property) in schema["properties"].as_object().unwrap() {
                    check(property, &format!("{path}.{name}"));
                }
            }
            for form in ["oneOf", "anyOf"] {
                for choice in schema[form].as_array().into_iter().flatten().filter(|choice| choice["type"] != "null") {
                    check(choice, &format!("{path}.{form}"));
                }
            }
            if schema["items"].is_object() {
                check(&schema["items"], &format!("{path}[]"));
            }
        }
        let schema = json_schema();
        check(&schema, "");
        for (name, definition) in schema["$defs"].as_object().unwrap() {
            check(definition, name);
        }
    }

    #[test]
    fn every_key_is_in_the_reference() {
        let reference = include_str!("../../../docs/rollout-spec.md");
        let schema = json_schema();
        let definitions = schema["$defs"].as_object().unwrap().values();
        for object in definitions.chain([&schema]) {
            for key in object["properties"].as_object().into_iter().flat_map(serde_json::Map::keys) {
                assert!(reference.contains(key), "docs/rollout-spec.md does not mention {key}");
            }
        }
    }
}
