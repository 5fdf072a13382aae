//! JSON as servers and callers write it in practice.
//!
//! Python writes `NaN` and `Infinity`, C++ writes `nan` and `inf`, .NET writes a byte order mark before the text, some writers produce
//! numbers that exceed a double, and some cut a string within a character (`"\ud83d"`). Their meaning is clear, and other parsers accept most
//! of them. Pure.

use serde::de::DeserializeOwned;
use serde_json::Value;

/// Deepest nesting that is read. Deeper values are read as an empty list, because the parser itself stops at 128.
const DEEPEST: usize = 100;

/// Words for non-finite numbers, and how they are read. Longer words come before their prefixes.
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

/// Parses a JSON text; `None` if it is not valid. Numbers that are not finite become strings, such as `"NaN"`.
pub fn read(body: &[u8]) -> Option<Value> {
    let body = without_mark(body);
    match serde_json::from_slice(body) {
        Ok(value) => Some(value),
        Err(_) => serde_json::from_slice(&repaired(body, |word, out| {
            out.push(b'"');
            out.extend_from_slice(word);
            out.push(b'"');
        })?)
        .ok(),
    }
}

/// Parses a JSON text in which numbers that are not finite are null. As values of the keys in `kept` they become strings, such as `"NaN"`.
///
/// # Errors
/// Returns what is wrong with the text.
pub fn read_with_nulls<T: DeserializeOwned>(body: &[u8], kept: &[&str]) -> Result<T, serde_json::Error> {
    let body = without_mark(body);
    let put = |word: &[u8], out: &mut Vec<u8>| {
        if kept.iter().any(|key| ends_with_key(out, key)) {
            out.extend_from_slice(&[b"\"", word, b"\""].concat());
        } else {
            out.extend_from_slice(b"null");
        }
    };
    serde_json::from_slice(body).or_else(|error| match repaired(body, put) {
        Some(repaired) => serde_json::from_slice(&repaired),
        None => Err(error),
    })
}

/// Whether a part of a JSON text ends with this key and its colon.
fn ends_with_key(text: &[u8], key: &str) -> bool {
    let named = text.trim_ascii_end().strip_suffix(b":").and_then(|text| text.trim_ascii_end().strip_suffix(b"\""));
    named.and_then(|text| text.strip_suffix(key.as_bytes())).is_some_and(|text| text.ends_with(b"\""))
}

/// The text without a leading byte order mark.
pub fn without_mark(body: &[u8]) -> &[u8] {
    body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body)
}

/// Rewrites what a strict parser rejects: `put` writes each word or number that is not finite, lists that are nested too deeply become
/// empty ones, and halves of characters become U+FFFD. `None` if there is nothing to rewrite.
fn repaired(body: &[u8], put: impl Fn(&[u8], &mut Vec<u8>)) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(body.len() + 16);
    let (mut at, mut depth, mut changed) = (0, 0_usize, false);
    while at < body.len() {
        let (rest, deep) = (&body[at..], depth > DEEPEST);
        let taken = match rest[0] {
            b'"' => {
                let length = text(rest);
                if let Some(whole) = with_whole_characters(&rest[..length]).filter(|_| !deep) {
                    out.extend_from_slice(&whole);
                    changed = true;
                    at += length;
                    continue;
                }
                length
            }
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
                    put(word.1, &mut out);
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

/// Length of the string at the start, including its quotes.
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

/// A string in which U+FFFD replaces each half of a surrogate pair without its other half; `None` if there is no such half.
fn with_whole_characters(text: &[u8]) -> Option<Vec<u8>> {
    let unit = |at: usize| {
        let digits = text.get(at..at + 6)?.strip_prefix(b"\\u")?;
        u32::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
    };
    let (mut out, mut at, mut changed) = (Vec::new(), 0, false);
    while at < text.len() {
        let length = match (unit(at), unit(at + 6)) {
            (Some(0xd800..=0xdbff), Some(0xdc00..=0xdfff)) => 12,
            (Some(0xd800..=0xdfff), _) => {
                out.extend_from_slice(b"\\ufffd");
                changed = true;
                at += 6;
                continue;
            }
            // The escaped character may be a backslash.
            _ if text[at] == b'\\' => 2.min(text.len() - at),
            _ => 1,
        };
        out.extend_from_slice(&text[at..at + length]);
        at += length;
    }
    changed.then_some(out)
}

/// Length of the number at the start.
fn number(rest: &[u8]) -> usize {
    rest.iter().take_while(|byte| matches!(byte, b'-' | b'+' | b'.' | b'e' | b'E' | b'0'..=b'9')).count()
}

/// A scalar at the start that is not a finite number: its length, and the word that replaces it.
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
    fn words_inside_strings_are_unchanged() {
        let value = read(br#"{"a":"NaN \" Infinity nan","b":NaN}"#).unwrap();
        assert_eq!(value, json!({"a": "NaN \" Infinity nan", "b": "NaN"}));
    }

    #[test]
    fn every_notation_of_a_non_finite_number() {
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
    fn halves_of_characters_are_replaced() {
        for (written, read_as) in [
            (r#""\ud83d""#, "\u{fffd}"),
            (r#""a\udc24b""#, "a\u{fffd}b"),
            (r#""\uD83D\uDC24""#, "\u{1f424}"),
            (r#""\ud83d\ud83d\udc24""#, "\u{fffd}\u{1f424}"),
            (r#""\\ud83d""#, "\\ud83d"),
            (r#""\\\ud83d""#, "\\\u{fffd}"),
        ] {
            let body = format!(r#"{{"x":[{written},NaN]}}"#);
            assert_eq!(read(body.as_bytes()), Some(json!({"x": [read_as, "NaN"]})), "{written}");
            assert_eq!(
                read_with_nulls::<Value>(body.as_bytes(), &[]).unwrap(),
                json!({"x": [read_as, null]}),
                "{written}"
            );
        }
        assert_eq!(read(br#"["\ud8"]"#), None);
    }

    #[test]
    fn marks_depth_and_white_space() {
        assert_eq!(read(b"\xef\xbb\xbf{\"a\":1}"), Some(json!({"a": 1})));
        assert_eq!(read(b"\n\n  [1]"), Some(json!([1])));
        let deep = format!(r#"{{"p":0.5,"x":{}{}, "q": 2}}"#, "[".repeat(300), "]".repeat(300));
        let value = read(deep.as_bytes()).unwrap();
        assert_eq!((&value["p"], &value["q"]), (&json!(0.5), &json!(2)));
        assert_eq!(read("[".repeat(70_000).as_bytes()), None, "incomplete");
        let objects = format!("{}1{}", r#"{"a":"#.repeat(200), "}".repeat(200));
        assert!(read(objects.as_bytes()).is_some());
    }

    proptest! {
        #[test]
        fn reading_any_text_does_not_panic(text in r#"[\[\]{}",:a-zNI\\ 0-9.e-]{0,80}"#, bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            let _ = (read(text.as_bytes()), read_with_nulls::<Value>(text.as_bytes(), &["a"]));
            let _ = (read(&bytes), read_with_nulls::<Value>(&bytes, &["a"]));
        }
    }
}
