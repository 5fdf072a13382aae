//! `OpenAI`-compatible paths, and the model in their bodies.

use super::{Promise, Scan};

/// Whether a path asks a language model for something: `/v1/...` as `OpenAI` and vLLM have it, `/openai/v1/...` as `KServe` has it.
pub(super) fn infers(path: &str) -> bool {
    let rest = path.strip_prefix("/openai").unwrap_or(path);
    matches!(rest, "/v1/chat/completions" | "/v1/completions" | "/v1/embeddings" | "/v1/responses")
}

/// What such a path promises of an answer.
pub(super) fn promise(path: &str) -> Promise {
    match path.rsplit_once("/v1/").map(|(_, rest)| rest) {
        Some("chat/completions" | "completions") => Promise::Choices,
        Some("responses") => Promise::Response,
        Some("embeddings") => Promise::Embeddings,
        _ => Promise::Nothing,
    }
}

/// Finds the text of `model` in the beginning of a JSON object.
pub(crate) fn model(body: &[u8]) -> Scan<String> {
    let mut at = Cursor { body, at: 0 };
    let found = at.model();
    found.unwrap_or(Scan::More)
}

/// A place in a JSON text. Its methods give `None` when the text ends too early.
struct Cursor<'a> {
    body: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    fn model(&mut self) -> Option<Scan<String>> {
        if self.next()? != b'{' {
            return Some(Scan::Missing);
        }
        loop {
            match self.next()? {
                b'"' => {}
                b',' => continue,
                _ => return Some(Scan::Missing),
            }
            let key = self.text()?;
            if self.next()? != b':' {
                return Some(Scan::Missing);
            }
            if key == b"\"model\"" {
                let found = (self.next()? == b'"').then(|| self.text());
                let Some(text) = found else { return Some(Scan::Missing) };
                return Some(serde_json::from_slice(text?).map_or(Scan::Missing, Scan::Found));
            }
            self.value()?;
        }
    }

    /// The next byte that is no white space.
    fn next(&mut self) -> Option<u8> {
        loop {
            let byte = *self.body.get(self.at)?;
            self.at += 1;
            if !byte.is_ascii_whitespace() {
                return Some(byte);
            }
        }
    }

    /// The rest of a text whose opening quote was read; it is given with its quotes.
    fn text(&mut self) -> Option<&'a [u8]> {
        let start = self.at - 1;
        loop {
            match *self.body.get(self.at)? {
                b'"' => {
                    self.at += 1;
                    return Some(&self.body[start..self.at]);
                }
                b'\\' => self.at += 2,
                _ => self.at += 1,
            }
        }
    }

    /// Goes past a value, up to the comma or brace after it.
    fn value(&mut self) -> Option<()> {
        let mut depth = 0_u32;
        loop {
            match self.next()? {
                b'"' => drop(self.text()?),
                b'{' | b'[' => depth += 1,
                b'}' | b']' if depth > 0 => depth -= 1,
                b',' | b'}' | b']' if depth == 0 => {
                    self.at -= 1;
                    return Some(());
                }
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    #[test]
    fn the_model_is_found_wherever_it_stands() {
        for body in [
            r#"{"model":"m"}"#,
            r#" { "messages" : [{"role":"user","content":"\"model\":\"x\" }"}], "n":1, "model" : "m", "x": "#,
            r#"{"tools":{"model":"no"},"a":-1.5e3,"b":null,"model":"m"#,
        ] {
            let expected = if body.ends_with("\"m") { Scan::More } else { Scan::Found("m".to_owned()) };
            assert_eq!(model(body.as_bytes()), expected, "{body}");
        }
        assert_eq!(model(br#"{"model":"a\"\u00e9"}"#), Scan::Found("a\"é".to_owned()));
        for body in ["[]", r#"{"a":1}"#, r#"{"model":7}"#, "x", r#"{"model" "m"}"#] {
            assert_eq!(model(body.as_bytes()), Scan::Missing, "{body}");
        }
        for body in ["", "{", r#"{"mod"#, r#"{"a":[1,"#, r#"{"a":"\"#] {
            assert_eq!(model(body.as_bytes()), Scan::More, "{body}");
        }
    }

    proptest! {
        /// Whatever stands around it, the model is found once the body is whole, and never another one before that.
        #[test]
        fn agrees_with_a_parser(before in ".{0,40}", name in ".{0,20}", number in any::<i64>(), cut in any::<prop::sample::Index>()) {
            let body = json!({"a": before, "b": [{"model": before}, number], "model": name, "z": 1}).to_string();
            prop_assert_eq!(model(body.as_bytes()), Scan::Found(name.clone()));
            let part = model(&body.as_bytes()[..cut.index(body.len())]);
            prop_assert!(part == Scan::More || part == Scan::Found(name));
        }

        /// No body makes it panic.
        #[test]
        fn any_body_can_be_scanned(body in proptest::collection::vec(any::<u8>(), 0..100), text in r#"[\{\}\[\]",:\\model 1]{0,60}"#) {
            for body in [body.as_slice(), text.as_bytes()] {
                if let (Scan::Found(found), Ok(value)) = (model(body), serde_json::from_slice::<Value>(body)) {
                    prop_assert!(value["model"].is_string() || value["model"] == found);
                }
            }
        }
    }
}
