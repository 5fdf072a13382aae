//! The configuration of a process, checked the way the rollout file is: along a JSON Schema, with line, path, cause and way out.

use serde_json::Value as Json;

use super::{
    tree::{self, Key, Node, Value},
    walk::{Form, walk},
};
use serin_spec::Problem;

/// What a configuration may hold.
#[derive(Clone, Copy, Debug)]
pub struct Configuration<'a> {
    /// Its JSON Schema.
    pub schema: &'a Json,
    /// The page that describes it.
    pub page: &'static str,
    /// Whether the value at a path may be a secret. No problem quotes it then.
    pub is_secret: fn(&str) -> bool,
}

impl Configuration<'_> {
    /// Everything in a file that does not fit the schema. What is missing is no problem: other sources may have it.
    ///
    /// A text that is not one YAML document without aliases has no problems here: whoever reads it reports them.
    pub fn problems_of_file(&self, text: &str) -> Vec<Problem> {
        tree::parse(text).map_or_else(|_| Vec::new(), |root| walk(&root, self.schema, self.form()).problems)
    }

    /// What does not fit in one setting that is given as text: `path` is `["router", "listen"]` for `router.listen`.
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
        Form { page: self.page, texts_are_values: true, is_part: true, is_secret: self.is_secret }
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

    fn with<T>(look: impl FnOnce(&Configuration<'_>) -> T) -> T {
        look(&Configuration { schema: &schema(), page: "docs/settings.md", is_secret: |path| path.contains("token") })
    }

    #[test]
    fn what_fits_has_no_problem() {
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
        assert_eq!(with(|form| form.problems_of_file("a: &x 1\nb: *x")), [], "its reader knows aliases, or says so");
    }

    #[test]
    fn what_does_not_fit_is_named_with_its_line_and_the_way_out() {
        let text = "listen: here\nlisten2: x\npartitions: many\nkind: kafkaa\nmodels:\n  m: {stabel: v1}\n  n: [x]\n";
        let told: Vec<String> = with(|form| form.problems_of_file(text)).iter().map(ToString::to_string).collect();
        let expected = [
            "1:9: error: listen: an address is expected here, this is \"here\"; write an IP address and a port, such as \
             127.0.0.1:8000 or [::1]:8000",
            "2:1: error: listen2: the key \"listen2\" is unknown; did you mean \"listen\"?",
            "3:13: error: partitions: a whole number from 0 is expected here, this is \"many\"; write for example 1000",
            "4:7: error: kind: \"kafkaa\" is not known here; did you mean \"kafka\"?",
            "6:7: error: models.m.stabel: the key \"stabel\" is unknown; did you mean \"stable\"?",
            "7:6: error: models.n: a map of keys is expected here, this is a list; known here: servers, stable, writers",
        ];
        assert_eq!(told, expected);
        let told = with(|form| form.problems_of_setting(&["models", "m", "stabel"], "v1"));
        assert_eq!(
            told.first().map(ToString::to_string).as_deref(),
            Some("error: models.m.stabel: the key \"stabel\" is unknown; did you mean \"stable\"?")
        );
    }

    #[test]
    fn no_problem_quotes_a_secret() {
        for path in [&["token", "x"][..], &["tokens"], &["models", "token"], &["models", "m", "token"]] {
            let told = with(|form| form.problems_of_setting(path, "hunter2"));
            assert!(!told.is_empty() && !format!("{told:?}").contains("hunter2"), "{path:?}: {told:?}");
        }
    }
}
