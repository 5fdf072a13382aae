//! JSON as servers and callers really write it.
//!
//! Python writes `NaN` and `Infinity`, C++ writes `nan` and `inf`, .NET puts a byte order mark before the text, and some
//! write numbers that no double holds. Each of these still says what its writer meant, and other parsers take most of them.

use serde_json::Value;

/// Deepest nesting that is read. What is deeper is read as an empty list: the parser itself stops at 128.
const DEEPEST: usize = 100;

/// The words for what is not a finite number, and how they are read. Longer words stand before their beginnings.
const WORDS: [(&[u8], &[u8]); 10] = [
    (b"-nan(ind)", b"NaN"),
    (b"-Infinity", b"-Infinity"),
    (b"Infinity", b"Infinity"),
    (b"-nan", b"NaN"),
    (b"-NaN", b"NaN"),
    (b"-inf", b"-Infinity"),
    (b"-Inf", b"-Infinity"),
    (b"NaN", b"NaN"),
    (b"nan", b"NaN"),
    (b"inf", b"Infinity"),
];

/// Reads a JSON text. `None` if it is not one.
pub(crate) fn read(body: &[u8]) -> Option<Value> {
    let body = without_mark(body);
    match serde_json::from_slice(body) {
        Ok(value) => Some(value),
        Err(_) => serde_json::from_slice(&mended(body)?).ok(),
    }
}

/// The text behind a byte order mark.
pub(crate) fn without_mark(body: &[u8]) -> &[u8] {
    body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body)
}

/// Writes what no strict parser takes in another way: words and numbers that are not finite as texts, and lists that are too
/// deep as empty ones. `None` if there is nothing of the kind.
fn mended(body: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(body.len() + 16);
    let (mut at, mut depth, mut changed) = (0, 0_usize, false);
    while at < body.len() {
        let (rest, deep) = (&body[at..], depth > DEEPEST);
        let taken = match rest[0] {
            b'"' => text(rest),
            b'[' | b'{' => {
                depth += 1;
                if depth == DEEPEST + 1 {
                    out.extend_from_slice(b"[]");
                    changed = true;
                }
                1
            }
            b']' | b'}' => {
                depth = depth.saturating_sub(1);
                1
            }
            b'-' | b'0'..=b'9' | b'N' | b'n' | b'I' | b'i' => {
                let word = scalar(rest);
                if let Some(word) = word.filter(|_| !deep) {
                    out.push(b'"');
                    out.extend_from_slice(word.1);
                    out.push(b'"');
                    changed = true;
                    at += word.0;
                    continue;
                }
                word.map_or_else(|| number(rest).max(1), |word| word.0)
            }
            _ => 1,
        };
        if depth <= DEEPEST && !deep {
            out.extend_from_slice(&rest[..taken]);
        }
        at += taken;
    }
    changed.then_some(out)
}

/// Length of the text at the beginning, with its quotes.
fn text(rest: &[u8]) -> usize {
    let mut at = 1;
    while at < rest.len() {
        match rest[at] {
            b'"' => return at + 1,
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    rest.len()
}

/// Length of the number at the beginning.
fn number(rest: &[u8]) -> usize {
    rest.iter().take_while(|byte| matches!(byte, b'-' | b'+' | b'.' | b'e' | b'E' | b'0'..=b'9')).count()
}

/// A scalar at the beginning that is not a finite number: its length, and the word that stands for it.
fn scalar(rest: &[u8]) -> Option<(usize, &'static [u8])> {
    if let Some((word, read_as)) = WORDS.into_iter().find(|(word, _)| rest.starts_with(word)) {
        return Some((word.len(), read_as));
    }
    let length = number(rest);
    let value: f64 = std::str::from_utf8(&rest[..length]).ok()?.parse().ok()?;
    (!value.is_finite()).then_some((length, if value > 0.0 { b"Infinity" } else { b"-Infinity" }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn words_inside_of_texts_stay() {
        let value = read(br#"{"a":"NaN \" Infinity nan","b":NaN}"#).unwrap();
        assert_eq!(value, json!({"a": "NaN \" Infinity nan", "b": "NaN"}));
    }

    #[test]
    fn every_way_to_write_what_is_not_finite() {
        for (written, read_as) in [
            ("NaN", "NaN"),
            ("nan", "NaN"),
            ("-nan", "NaN"),
            ("-nan(ind)", "NaN"),
            ("Infinity", "Infinity"),
            ("-Infinity", "-Infinity"),
            ("inf", "Infinity"),
            ("-inf", "-Infinity"),
            ("1e999", "Infinity"),
            ("-1e999", "-Infinity"),
        ] {
            let body = format!(r#"{{"x":[{written}, 1]}}"#);
            assert_eq!(read(body.as_bytes()), Some(json!({"x": [read_as, 1]})), "{written}");
        }
        assert_eq!(read(b"[null, nil]"), None);
        assert_eq!(read(b"[nanny]"), None);
    }

    #[test]
    fn marks_depth_and_white_space() {
        assert_eq!(read(b"\xef\xbb\xbf{\"a\":1}"), Some(json!({"a": 1})));
        assert_eq!(read(b"\n\n  [1]"), Some(json!([1])));
        let deep = format!(r#"{{"p":0.5,"x":{}{}, "q": 2}}"#, "[".repeat(300), "]".repeat(300));
        let value = read(deep.as_bytes()).unwrap();
        assert_eq!((&value["p"], &value["q"]), (&json!(0.5), &json!(2)));
        assert_eq!(read("[".repeat(70_000).as_bytes()), None, "half a text");
        let objects = format!("{}1{}", r#"{"a":"#.repeat(200), "}".repeat(200));
        assert!(read(objects.as_bytes()).is_some());
    }

    proptest! {
        #[test]
        fn any_text_can_be_read(text in r#"[\[\]{}",:a-zNI\\ 0-9.e-]{0,80}"#, bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            let _ = read(text.as_bytes());
            let _ = read(&bytes);
        }
    }
}
