//! Outputs that are rankings: lists of ids, best first. Pure.
//!
//! An event has the ids of one row as the class of the output, one id a line.

use serde_json::Value;

use crate::content::values::{LONGEST, scalar_text};

/// The ids of a ranking, one a line, or why they are unusable.
pub(crate) fn lines(ids: &[&Value]) -> Result<String, &'static str> {
    if ids.is_empty() {
        return Err("empty");
    }
    let mut lines = String::new();
    for id in ids {
        let text = match id {
            Value::Null => return Err("null"),
            Value::String(text) if text.is_empty() => return Err("empty"),
            // A label names the whole id, so an id that is cut would never match.
            Value::String(text) if text.len() > LONGEST => return Err("too_long"),
            _ => scalar_text(id).ok_or("unparsable")?,
        };
        if !lines.is_empty() {
            lines.push('\n');
        }
        lines.extend(text.chars().map(|c| if c.is_control() { ' ' } else { c }));
    }
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;
    use serin_spec::{MAX_RANKED, OutputKind, OutputRule, OutputSource};

    use crate::{
        content::{
            outcome::Content,
            outputs::tests::{read, rule},
        },
        protocol::Promise,
    };

    #[test]
    fn a_ranking_is_the_list_of_ids_of_a_row() {
        let of = |source| vec![OutputRule { kind: OutputKind::Ranking, min: None, max: None, source, ..rule() }];
        let tensor = || of(OutputSource::Tensor("p".into()));
        let json = |pointer: &str| of(OutputSource::Json(pointer.into()));
        let v2 = |shape: &str, data: &str| format!(r#"{{"outputs":[{{"name":"p","shape":{shape},"data":{data}}}]}}"#);
        for (rules, body, promise, expected) in [
            (tensor(), v2("[1,3]", r#"["a","b","c"]"#), Promise::Tensors, Ok("a\nb\nc")),
            (tensor(), v2("[1,3]", r#"[["a","b","c"]]"#), Promise::Tensors, Ok("a\nb\nc")),
            (tensor(), v2("[2,2]", "[1,2,1,2]"), Promise::Tensors, Ok("1\n2")),
            (tensor(), v2("[2,2]", r#"[["x","y"],["x","y"]]"#), Promise::Tensors, Ok("x\ny")),
            (json("/outputs/0/data"), v2("[2,2]", "[7,8,7,8]"), Promise::Tensors, Ok("7\n8")),
            (
                json("/predictions/0/ids"),
                r#"{"predictions":[{"ids":["a","b"]}]}"#.into(),
                Promise::Predictions,
                Ok("a\nb"),
            ),
            (
                json("/predictions/0/ids"),
                r#"{"predictions":[{"ids":["a","b"]},{"ids":["a","b"]}]}"#.into(),
                Promise::Predictions,
                Ok("a\nb"),
            ),
            (json("/predictions/0"), r#"{"predictions":[["a"],["a"]]}"#.into(), Promise::Predictions, Ok("a")),
            (json("/items"), r#"{"items":["a\nb"]}"#.into(), Promise::Nothing, Ok("a b")),
            (json("/items"), r#"{"items":[]}"#.into(), Promise::Nothing, Err("empty")),
            (json("/items"), r#"{"items":["a",null]}"#.into(), Promise::Nothing, Err("null")),
            (json("/items"), r#"{"items":["a",""]}"#.into(), Promise::Nothing, Err("empty")),
            (json("/items"), r#"{"items":[{"id":1}]}"#.into(), Promise::Nothing, Err("unparsable")),
            (json("/items"), "{}".into(), Promise::Nothing, Err("missing")),
            (json("/predictions/0"), r#"{"predictions":[["a"],[]]}"#.into(), Promise::Predictions, Err("empty")),
        ] {
            let found = read(&rules, &HeaderMap::new(), body.as_bytes(), promise);
            let class = found.classes.get("score").map(String::as_str);
            let (content, class_wanted) = match expected {
                Ok(ids) => (Content::Good, Some(ids)),
                Err(cause) => (Content::Unusable(cause), None),
            };
            assert_eq!((found.content, class), (content, class_wanted), "{body}");
        }
        for (length, content) in [(128, Content::Good), (129, Content::Unusable("too_long"))] {
            let body = format!(r#"{{"items":["a","{}"]}}"#, "x".repeat(length));
            let found = read(&json("/items"), &HeaderMap::new(), body.as_bytes(), Promise::Nothing);
            assert_eq!((found.content, found.classes.len()), (content, usize::from(length == 128)), "{length}");
        }
        let many = format!(r#"{{"items":[{}]}}"#, (0..200).map(|n| n.to_string()).collect::<Vec<_>>().join(","));
        let found = read(&json("/items"), &HeaderMap::new(), many.as_bytes(), Promise::Nothing);
        assert_eq!(found.classes["score"].lines().count(), MAX_RANKED);
    }
}
