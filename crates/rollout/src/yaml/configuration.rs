//! Checks the configuration of a process against a JSON Schema, as for the rollout file. Each problem has line, path, cause and fix.

use serde_json::Value as Json;

use super::{
    tree::{self, Key, Node, Value},
    walk::{Form, walk},
};
use serin_spec::Problem;

/// How to check a configuration.
#[derive(Clone, Copy, Debug)]
pub struct Configuration<'a> {
    /// JSON Schema of the configuration.
    pub schema: &'a Json,
    /// Page of the documentation that describes the configuration.
    pub page: &'static str,
    /// Whether the value at a path may be a secret. Problems do not quote secrets.
    pub is_secret: fn(&str) -> bool,
    /// Whether a name at such a path looks like a secret itself, as in `tokens: {<token>: ann}`.
    pub is_secret_name: fn(&str) -> bool,
}

impl Configuration<'_> {
    /// Returns everything in a file that does not fit the schema. Missing keys are not reported, because other sources may have them.
    ///
    /// A string that is not one YAML document without aliases has no problems here. The loader of the configuration reports them.
    pub fn problems_of_file(&self, text: &str) -> Vec<Problem> {
        tree::parse(text).map_or_else(|_| Vec::new(), |root| walk(&root, self.schema, self.form()).problems)
    }

    /// Returns everything in one setting, given as text, that does not fit the schema. `path` is `["router", "listen"]` for
    /// `router.listen`.
    pub fn problems_of_setting(&self, path: &[&str], text: &str) -> Vec<Problem> {
        let at = (1, 1);
        let scalar = Node { at, value: Value::Scalar { text: text.to_owned(), plain: true } };
        let root = path.iter().rev().fold(scalar, |node, name| {
            let key = Key { at, text: (*name).to_owned() };
            Node { at, value: Value::Map(vec![(key, node)]) }
        });
        let problems = walk(&root, self.schema, self.form()).problems;
        problems.into_iter().map(|problem| Problem { line: None, column: None, ..problem }).collect()
    }

    fn form(&self) -> Form {
        let Self { page, is_secret, is_secret_name, .. } = *self;
        Form { page, texts_are_values: true, is_part: true, is_secret, is_secret_name }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn schema() -> Json {
        json!({
            "type": "object", "additionalProperties": false,
            "properties": {
                "listen": {"type": "string", "format": "ip:port"},
                "partitions": {"type": "integer"},
                "token": {"type": "string"},
                "open": {"type": "boolean"},
                "kind": {"type": "string", "enum": ["embedded", "kafka"]},
                "models": {"type": "object", "additionalProperties": {"$ref": "#/$defs/Model"}},
                "free": {"type": "object", "additionalProperties": {}},
            },
            "$defs": {"Model": {
                "type": "object", "additionalProperties": false, "required": ["stable"],
                "properties": {
                    "stable": {"type": "string"},
                    "servers": {"anyOf": [{"type": "string"}, {"$ref": "#/$defs/Servers"}]},
                    "writers": {"anyOf": [{"type": "array", "items": {"type": "string"}}, {"type": "string"}]},
                }
            }, "Servers": {
                "type": "object", "additionalProperties": false, "properties": {"url": {"type": "string"}}
            }}
        })
    }

    fn with<T>(check: impl FnOnce(&Configuration<'_>) -> T) -> T {
        check(&Configuration {
            schema: &schema(),
            page: "docs/settings.md",
            is_secret: |path| path.contains("token"),
            is_secret_name: |_| false,
        })
    }

    #[test]
    fn valid_settings_have_no_problems() {
        let text = "listen: 127.0.0.1:80\npartitions: \"7\"\nopen: yes\nkind: kafka\nmodels:\n  m: {servers: http://a}\n  n: \
                    {servers: {url: b}, writers: [a]}\nfree: {a.b: 1, c: {d: 2}}\n";
        assert_eq!(with(|form| form.problems_of_file(text)), []);
        for (path, text) in [
            (&["partitions"][..], "7"),
            (&["open"], "on"),
            (&["open"], "True"),
            (&["open"], "FALSE"),
            (&["models", "m", "servers", "url"], "x"),
            (&["models", "m", "servers"], "x"),
            (&["models", "m", "writers"], "a,b"),
            (&["free", "x"], "1"),
            (&["token"], ""),
        ] {
            assert_eq!(with(|form| form.problems_of_setting(path, text)), [], "{path:?}");
        }
        assert_eq!(with(|form| form.problems_of_file("a: &x 1\nb: *x")), [], "the loader reports aliases");
    }

    #[test]
    fn problems_have_their_line_and_how_to_fix_them() {
        let text = "listen: here\nlisten2: x\npartitions: many\nkind: kafkaa\nmodels:\n  m: {stabel: v1}\n  n: [x]\n";
        let problems: Vec<String> = with(|form| form.problems_of_file(text)).iter().map(ToString::to_string).collect();
        let expected = [
            "1:9: error: listen: an address is expected here, this is \"here\"; write an IP address and a port, such as \
             127.0.0.1:8000 or [::1]:8000",
            "2:1: error: listen2: the key \"listen2\" is unknown; did you mean \"listen\"?",
            "3:13: error: partitions: a whole number of at least 0 is expected here, this is \"many\"; write for example 1000",
            "4:7: error: kind: \"kafkaa\" is not valid here; did you mean \"kafka\"?",
            "6:7: error: models.m.stabel: the key \"stabel\" is unknown; did you mean \"stable\"?",
            "7:6: error: models.n: a map of keys is expected here, this is a list; valid keys: servers, stable, writers",
        ];
        assert_eq!(problems, expected);
        let problems = with(|form| form.problems_of_setting(&["models", "m", "stabel"], "v1"));
        assert_eq!(
            problems.first().map(ToString::to_string).as_deref(),
            Some("error: models.m.stabel: the key \"stabel\" is unknown; did you mean \"stable\"?")
        );
    }

    #[test]
    fn problems_never_quote_a_secret() {
        for path in [&["models"][..], &["models", "m"], &["free"]] {
            let problems = with(|form| form.problems_of_setting(path, "token=hunter2"));
            let shown = format!("{problems:?}");
            assert!(shown.contains("this is a string") && !shown.contains("hunter2"), "{path:?}: {shown}");
        }
        for text in [
            "token hunter2\n",
            "models:\n  token hunter2\n",
            "models: {m: token hunter2}\n",
            "models: {m: {writers: {token: hunter2}}}",
        ] {
            let problems = with(|form| form.problems_of_file(text));
            assert!(!problems.is_empty() && !format!("{problems:?}").contains("hunter2"), "{text}: {problems:?}");
        }
        // A secret in the place of a name.
        let secret = "hunter2hunter2hunter2";
        for text in ["writers: {hunter2hunter2hunter2: ann}\n", "writers: {hunter2hunter2hunter2: {may: x}}\n"] {
            let form = Configuration {
                schema: &json!({"type": "object", "properties": {"writers": {"type": "object", "additionalProperties": {
                    "type": "object", "additionalProperties": false, "properties": {"may": {"type": "integer"}}
                }}}}),
                page: "docs/settings.md",
                is_secret: |path| path.contains("writers"),
                is_secret_name: |name| name.starts_with("hunter2"),
            };
            for problems in [form.problems_of_file(text), form.problems_of_setting(&["writers", secret], "ann")] {
                let shown = format!("{problems:?}");
                assert!(shown.contains("writers.(hidden)") && !shown.contains("hunter2"), "{text}: {shown}");
            }
        }
        for path in [&["token", "x"][..], &["tokens"], &["models", "token"], &["models", "m", "token"]] {
            let problems = with(|form| form.problems_of_setting(path, "hunter2"));
            assert!(!problems.is_empty() && !format!("{problems:?}").contains("hunter2"), "{path:?}: {problems:?}");
        }
    }
}
