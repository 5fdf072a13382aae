//! Extracts the values that rules need from a JSON body, chunk by chunk as it arrives. Pure.
//!
//! The result is the body without the values that were not requested, so the rules read it like the whole body. If a key occurs twice the
//! last one counts, as in the JSON parsers of servers. A byte order mark is skipped; `NaN` and `Infinity`, which Python writes, become
//! null.
//!
//! Invariants: no body causes a panic; the memory is bounded ([`MOST_KEPT`], [`LONGEST_TEXT`], [`DEEPEST`]) for any size of the body; long
//! values that were not requested are skipped without a copy; a body that is not valid JSON is not read in part.

use serde_json::{Map, Value};

use crate::protocol::{
    Unread,
    asks::{Asks, SCALAR, TENSOR},
    rows::{RowList, RowLists, Start},
};

/// Maximum nesting.
const DEEPEST: usize = 1024;
/// Longest string that is kept, in its escaped form. Longer strings are truncated.
pub(crate) const LONGEST_TEXT: usize = 64 << 10;
/// Approximate maximum number of bytes kept of a body.
const MOST_KEPT: usize = 1 << 20;
/// Longest number that is kept.
const LONGEST_WORD: usize = 1024;
/// Bytes of memory of a value in addition to its text.
const VALUE: usize = size_of::<Value>();

/// Reads one body.
pub(crate) struct Scanner<'a> {
    asks: &'a Asks,
    state: State,
    /// The open values that are requested or contain requested values, outermost first.
    frames: Vec<Frame>,
    /// The kinds of the open values that are skipped, outermost first: whether each is an object.
    skipped: Vec<bool>,
    /// The node of the next value; `None` if it is skipped.
    next: Option<usize>,
    /// The bytes of the current string, key or word.
    text: Vec<u8>,
    kept: usize,
    /// Number of bytes read of a byte order mark.
    mark: usize,
    done: Option<Value>,
    wrong: Option<Unread>,
    rows: RowLists<'a>,
    /// The lists of rows so far, in the order in which they begin.
    pub(super) lists: Vec<RowList>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Expects a value.
    Value,
    /// Expects a value, or the end of an empty list.
    ValueOrEnd,
    /// Expects a key, or the end of an empty object.
    KeyOrEnd,
    /// Expects a key.
    Key,
    /// Expects the colon after a key.
    Colon,
    /// Expects a comma or an end.
    After,
    /// In a string: whether it is a key, whether it is kept, and whether the previous byte was a backslash.
    Text { key: bool, kept: bool, escaped: bool },
    /// In a number or a word.
    Word,
    /// After the body.
    End,
}

/// A value that is being built.
struct Frame {
    node: usize,
    kept: usize,
    what: Building,
}

enum Building {
    Object {
        map: Map<String, Value>,
        key: Option<usize>,
    },
    /// `from` is the part of it that is read. `rows` is its place among the lists of rows, if it is one.
    List {
        items: Vec<Value>,
        at: usize,
        from: Start,
        rows: Option<usize>,
    },
}

const MARK: [u8; 3] = [0xef, 0xbb, 0xbf];

impl<'a> Scanner<'a> {
    pub(crate) fn new(asks: &'a Asks) -> Self {
        Self {
            asks,
            state: State::Value,
            frames: Vec::new(),
            skipped: Vec::new(),
            next: Some(0),
            text: Vec::new(),
            kept: 0,
            mark: 0,
            done: None,
            wrong: None,
            rows: RowLists::default(),
            lists: Vec::new(),
        }
    }

    /// Reads lists of rows in this way.
    pub(crate) fn with_rows(self, rows: RowLists<'a>) -> Self {
        Self { rows, ..self }
    }

    /// Takes a chunk. Returns false once further chunks are not needed.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> bool {
        let mut at = 0;
        while at < bytes.len() && self.wrong.is_none() {
            at = self.step(bytes, at);
        }
        self.wrong.is_none()
    }

    /// Ends the body and returns the requested values; `None` if the body is empty.
    pub(crate) fn end(mut self) -> Result<Option<Value>, Unread> {
        if self.state == State::Word {
            self.word();
        }
        match (self.wrong, self.state) {
            (Some(wrong), _) => Err(wrong),
            (None, State::End) => Ok(Some(self.done.unwrap_or_default())),
            (None, State::Value) if self.frames.is_empty() && self.skipped.is_empty() => Ok(None),
            _ => Err(Unread::NotJson),
        }
    }

    fn fail(&mut self, wrong: Unread) {
        self.wrong.get_or_insert(wrong);
    }

    /// Takes one byte, or all bytes of a run. Returns the position after them.
    fn step(&mut self, bytes: &[u8], at: usize) -> usize {
        if let State::Text { key, kept, escaped } = self.state {
            return self.text(bytes, at, key, kept, escaped);
        }
        let byte = bytes[at];
        if self.state == State::Word {
            let rest = &bytes[at..];
            let length = rest
                .iter()
                .take_while(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' | b'+' | b'-' | b'.'))
                .count();
            let room = (LONGEST_WORD + 1).saturating_sub(self.text.len());
            self.text.extend_from_slice(&rest[..length.min(room)]);
            if length < rest.len() {
                self.word();
            }
            return at + length;
        }
        if matches!(byte, b' ' | b'\t' | b'\r' | b'\n') {
            return at + 1;
        }
        match (self.state, byte) {
            (State::Value | State::ValueOrEnd, b'{') => self.open(true),
            (State::Value | State::ValueOrEnd, b'[') => self.open(false),
            (State::ValueOrEnd | State::After, b']') => self.close(false),
            (State::Value | State::ValueOrEnd, b'"') => {
                let kept = self.wants_scalar();
                self.text.clear();
                self.state = State::Text { key: false, kept, escaped: false };
            }
            (State::Value | State::ValueOrEnd, b'-' | b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z') => {
                self.text.clear();
                self.text.push(byte);
                self.state = State::Word;
            }
            (State::Value, byte) if self.at_start() && self.mark < 3 && byte == MARK[self.mark] => self.mark += 1,
            (State::KeyOrEnd | State::After, b'}') => self.close(true),
            (State::KeyOrEnd | State::Key, b'"') => {
                let kept = self.skipped.is_empty();
                self.text.clear();
                self.state = State::Text { key: true, kept, escaped: false };
            }
            (State::Colon, b':') => self.state = State::Value,
            (State::After, b',') => self.comma(),
            _ => self.fail(Unread::NotJson),
        }
        at + 1
    }

    fn at_start(&self) -> bool {
        self.frames.is_empty() && self.skipped.is_empty()
    }

    fn wants_scalar(&self) -> bool {
        self.next.is_some_and(|node| self.asks.nodes[node].scalar)
    }

    /// Reads a part of a string up to its closing quote.
    fn text(&mut self, bytes: &[u8], mut at: usize, key: bool, kept: bool, mut escaped: bool) -> usize {
        let keep = |text: &mut Vec<u8>, part: &[u8]| {
            if kept && text.len() < LONGEST_TEXT {
                text.extend_from_slice(&part[..part.len().min(LONGEST_TEXT - text.len())]);
            }
        };
        while at < bytes.len() {
            if escaped {
                keep(&mut self.text, &bytes[at..=at]);
                escaped = false;
                at += 1;
                continue;
            }
            let end = memchr::memchr2(b'"', b'\\', &bytes[at..]).map(|found| at + found);
            keep(&mut self.text, &bytes[at..end.unwrap_or(bytes.len())]);
            match end {
                Some(end) if bytes[end] == b'"' => {
                    if key {
                        self.key(kept);
                    } else {
                        self.scalar(kept);
                    }
                    return end + 1;
                }
                Some(end) => {
                    keep(&mut self.text, b"\\");
                    escaped = true;
                    at = end + 1;
                }
                None => at = bytes.len(),
            }
        }
        self.state = State::Text { key, kept, escaped };
        at
    }

    /// Ends a key.
    fn key(&mut self, kept: bool) {
        self.state = State::Colon;
        self.next = None;
        if !kept {
            return;
        }
        let Some(Frame { node, what: Building::Object { map, key }, .. }) = self.frames.last_mut() else { return };
        let below = &self.asks.nodes[*node].below;
        let child = if self.text.contains(&b'\\') {
            let Some(text) = unescape(&self.text) else { return self.fail(Unread::NotJson) };
            below.iter().position(|child| child.token == text)
        } else {
            below.iter().position(|child| child.token.as_bytes() == self.text)
        };
        *key = child;
        if let Some(child) = child.map(|child| &below[child]) {
            // The last one counts.
            map.remove(&child.token);
            self.next = Some(child.node);
        }
    }

    /// Ends a string value.
    fn scalar(&mut self, kept: bool) {
        if !kept {
            return self.ended(None);
        }
        let mut text = unescape(&self.text);
        if text.is_none() && self.text.len() == LONGEST_TEXT {
            // It was truncated, possibly within a character.
            text = (1..12).find_map(|less| unescape(&self.text[..LONGEST_TEXT - less]));
        }
        match text {
            Some(text) => self.ended(Some(Value::String(text))),
            None => self.fail(Unread::NotJson),
        }
    }

    /// Ends a number or a word.
    fn word(&mut self) {
        let word = std::mem::take(&mut self.text);
        let value = match word.as_slice() {
            b"true" => Value::Bool(true),
            b"false" => Value::Bool(false),
            b"null" | b"NaN" | b"Infinity" | b"-Infinity" => Value::Null,
            number if word.len() > LONGEST_WORD || is_number(number) => {
                // A number that exceeds all numeric types is kept as a string.
                let text = || Value::String(String::from_utf8_lossy(number).into_owned());
                if self.wants_scalar() {
                    serde_json::from_slice(number).unwrap_or_else(|_| text())
                } else {
                    Value::Null
                }
            }
            _ => return self.fail(Unread::NotJson),
        };
        self.text = word;
        let wanted = self.wants_scalar();
        self.ended(wanted.then_some(value));
    }

    /// Opens an object or a list.
    fn open(&mut self, object: bool) {
        if self.frames.len() + self.skipped.len() >= DEEPEST {
            return self.fail(Unread::TooDeep);
        }
        match self.next.take() {
            Some(node) if self.skipped.is_empty() => {
                let what = if object { Building::Object { map: Map::new(), key: None } } else { self.list() };
                self.frames.push(Frame { node, kept: self.kept, what });
            }
            _ => self.skipped.push(object),
        }
        if object {
            self.state = State::KeyOrEnd;
        } else {
            self.item(0);
            self.state = State::ValueOrEnd;
        }
    }

    /// A new list, below the open values.
    fn list(&mut self) -> Building {
        let key = |frame: &Frame| match &frame.what {
            Building::Object { key: Some(child), .. } => Some(self.asks.nodes[frame.node].below[*child].token.as_str()),
            _ => None,
        };
        let tensor = match &self.frames[..] {
            [root, Frame { what: Building::List { at, .. }, .. }, tensor]
                if key(root) == Some("inputs") && key(tensor) == Some("data") =>
            {
                Some(*at)
            }
            _ => None,
        };
        let is_first = || {
            let root = self.frames.first().and_then(key);
            matches!(root, Some("instances" | "inputs")) && self.frames.iter().all(|frame| key(frame).is_some())
        };
        let is_rows = if self.rows.instances { is_first() } else { tensor.is_some() };
        let rows = is_rows.then_some(self.lists.len());
        self.lists.extend(rows.map(|_| RowList { tensor: tensor.unwrap_or_default(), items: 0 }));
        let from = rows.and_then(|rows| self.rows.starts.get(rows)).copied().unwrap_or_default();
        Building::List { items: Vec::new(), at: 0, from, rows }
    }

    /// Determines what is requested of the next item of a list.
    fn item(&mut self, index: usize) {
        self.next = None;
        if !self.skipped.is_empty() {
            return;
        }
        let Some(frame) = self.frames.last() else { return };
        let Building::List { from, .. } = &frame.what else { return };
        let Some(index) = from.place(index) else { return };
        let node = &self.asks.nodes[frame.node];
        let child = node.below.iter().find(|child| child.index == Some(index)).map(|child| child.node);
        let first = (index == 0 && node.scalar).then_some(SCALAR);
        self.next = child.or(if node.tensors.is_empty() { first } else { Some(TENSOR) });
    }

    fn comma(&mut self) {
        let object = match (self.skipped.last(), self.frames.last_mut()) {
            (Some(object), _) => *object,
            (None, Some(Frame { what: Building::Object { .. }, .. })) => true,
            (None, Some(Frame { what: Building::List { at, .. }, .. })) => {
                *at += 1;
                let at = *at;
                self.item(at);
                false
            }
            (None, None) => return self.fail(Unread::NotJson),
        };
        if !self.skipped.is_empty() {
            self.next = None;
        }
        self.state = if object { State::Key } else { State::Value };
    }

    fn close(&mut self, object: bool) {
        if let Some(kind) = self.skipped.pop() {
            if kind != object {
                return self.fail(Unread::NotJson);
            }
            return if self.skipped.is_empty() { self.ended(None) } else { self.state = State::After };
        }
        let Some(frame) = self.frames.pop() else { return self.fail(Unread::NotJson) };
        let value = match (frame.what, object) {
            (Building::Object { map, .. }, true) => Value::Object(map),
            (Building::List { items, at, rows, .. }, false) => {
                if let Some(list) = rows.and_then(|rows| self.lists.get_mut(rows)) {
                    list.items = if self.state == State::ValueOrEnd { 0 } else { at + 1 };
                }
                Value::Array(items)
            }
            _ => return self.fail(Unread::NotJson),
        };
        self.built(Some(value), frame.kept);
    }

    /// Ends a scalar or a skipped value.
    fn ended(&mut self, value: Option<Value>) {
        self.built(value, self.kept);
    }

    /// Ends a value and stores it where it belongs. `before` is the number of bytes kept before it.
    fn built(&mut self, value: Option<Value>, before: usize) {
        self.state = State::After;
        if !self.skipped.is_empty() {
            return;
        }
        let Some(frame) = self.frames.last_mut() else {
            self.state = State::End;
            self.done = value;
            return;
        };
        let node = &self.asks.nodes[frame.node];
        match &mut frame.what {
            Building::Object { map, key } => {
                if let (Some(child), Some(value)) = (key.take(), value) {
                    self.kept += size(&value);
                    map.insert(node.below[child].token.clone(), value);
                }
            }
            Building::List { items, at, from, .. } => {
                let Some(index) = from.place(*at) else {
                    self.kept = before;
                    return;
                };
                let asked = node.below.iter().filter_map(|child| child.index).max();
                let named = |value: &Value| {
                    let name = value.get("name").and_then(Value::as_str);
                    value.pointer("/parameters/binary_data_size").is_some()
                        || name.is_some_and(|name| node.tensors.iter().any(|tensor| tensor == name))
                };
                let stays = asked.is_some_and(|most| index <= most) || index == 0 && node.scalar;
                let value = match value {
                    Some(value) if stays || named(&value) => Some(value),
                    // It keeps the index of the following items.
                    _ if stays || !node.tensors.is_empty() => {
                        self.kept = before;
                        Some(Value::Null)
                    }
                    _ => None,
                };
                if let Some(value) = value {
                    self.kept += size(&value);
                    items.push(value);
                }
            }
        }
        if self.kept > MOST_KEPT {
            self.fail(Unread::TooLong);
        }
    }
}

/// Memory of a value without its children, which were counted before.
fn size(value: &Value) -> usize {
    VALUE + value.as_str().map_or(0, str::len)
}

/// The characters of an escaped JSON string.
fn unescape(text: &[u8]) -> Option<String> {
    if !text.contains(&b'\\') && !text.iter().any(u8::is_ascii_control) {
        return String::from_utf8(text.to_vec()).ok();
    }
    let quoted = [b"\"", text, b"\""].concat();
    serde_json::from_slice(&quoted).ok()
}

/// Whether a word is a valid JSON number.
fn is_number(word: &[u8]) -> bool {
    let digits = |word: &[u8]| word.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let rest = word.strip_prefix(b"-").unwrap_or(word);
    let whole = digits(rest);
    if whole == 0 || whole > 1 && rest[0] == b'0' {
        return false;
    }
    let mut rest = &rest[whole..];
    if let Some(fraction) = rest.strip_prefix(b".") {
        let length = digits(fraction);
        if length == 0 {
            return false;
        }
        rest = &fraction[length..];
    }
    if let [b'e' | b'E', exponent @ ..] = rest {
        let exponent = exponent.strip_prefix(b"+").or(exponent.strip_prefix(b"-")).unwrap_or(exponent);
        return !exponent.is_empty() && digits(exponent) == exponent.len();
    }
    rest.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::content::values::{first, first_of_tensor};
    use proptest::prelude::*;
    use serde_json::json;

    fn asks(pointers: &[&str]) -> Asks {
        let mut asks = Asks::default();
        for pointer in pointers {
            asks.pointer(pointer);
        }
        asks
    }

    fn scan(asks: &Asks, body: &[u8], step: usize) -> Result<Option<Value>, Unread> {
        let mut scanner = Scanner::new(asks);
        for piece in body.chunks(step.max(1)) {
            if !scanner.push(piece) {
                break;
            }
        }
        scanner.end()
    }

    /// Returns what is found at `/k`, for chunks of several sizes.
    fn at_k(body: &str) -> Result<Option<Value>, Unread> {
        let asks = asks(&["/k"]);
        let whole = scan(&asks, body.as_bytes(), usize::MAX);
        for step in [1, 2, 3, 7] {
            assert_eq!(scan(&asks, body.as_bytes(), step), whole, "{body} by {step}");
        }
        whole.map(|value| value.and_then(|value| value.get("k").cloned()))
    }

    #[test]
    fn the_last_of_duplicate_keys_counts() {
        assert_eq!(at_k(r#"{"k":"a","x":1,"k":"b"}"#), Ok(Some(json!("b"))));
        assert_eq!(at_k(r#"{"k":"a","k":{"z":1}}"#), Ok(Some(json!({}))));
        assert_eq!(at_k(r#"{"k":"a","\u006b":"b"}"#), Ok(Some(json!("b"))), "an escaped key");
        assert_eq!(at_k(r#"{"x":{"k":"a"},"y":[{"k":"a"}]}"#), Ok(None), "elsewhere");
    }

    #[test]
    fn values_are_found_in_every_notation() {
        assert_eq!(at_k("\u{feff} { \n\"k\" :\t\"a\\\"\\u00e9\u{1f426}\" } \r\n"), Ok(Some(json!("a\"é🐦"))));
        assert_eq!(at_k(r#"{"k":[[["a","b"],"c"],"d"]}"#), Ok(Some(json!([[["a"]]]))), "the first of lists");
        assert_eq!(at_k(r#"{"k":[]}"#), Ok(Some(json!([]))));
        for (text, value) in [
            ("17", json!(17)),
            ("-0.5e-3", json!(-0.0005)),
            ("true", json!(true)),
            ("null", json!(null)),
            ("NaN", json!(null)),
            ("-Infinity", json!(null)),
            ("1e999", json!("1e999")),
        ] {
            assert_eq!(at_k(&format!(r#"{{"k":{text}}}"#)), Ok(Some(value)), "{text}");
        }
        assert_eq!((at_k(""), at_k(" \n")), (Ok(None), Ok(None)));
        assert_eq!((at_k("7"), at_k("\"k\"")), (Ok(None), Ok(None)));
    }

    #[test]
    fn invalid_json_is_not_read_in_part() {
        for body in [
            "{",
            r#"{"k""#,
            r#"{"k":"a"#,
            r#"{"k":"a""#,
            r#"{"k":"a"]"#,
            r#"{"k":"a"}}"#,
            r#"{"k":"a"} x"#,
            r#"{"k":"a",}"#,
            r#"{"k" "a"}"#,
            r#"{"k":"a""b":1}"#,
            r#"{"k":"a","b":01}"#,
            r#"{"k":"a","b":tru}"#,
            r#"{"k":"a","b":1.}"#,
            r#"{"k":"a","b":[1,]}"#,
            "user=1",
            "{k:1}",
            "[}",
            "[1 2]",
            r#"{"k":"a","b":}"#,
            r#"{,"k":"a"}"#,
            r#"{"k":"\x"}"#,
            "{\"k\":\"\n\"}",
            r#"{"a":[{]}]}"#,
            ",",
            "]",
            "}",
        ] {
            assert_eq!(at_k(body), Err(Unread::NotJson), "{body}");
        }
    }

    #[test]
    fn memory_is_bounded() {
        let deep = |levels: usize| format!(r#"{{"x":{}1{},"k":"a"}}"#, "[".repeat(levels), "]".repeat(levels));
        assert_eq!(at_k(&deep(DEEPEST - 1)), Ok(Some(json!("a"))));
        assert_eq!(at_k(&deep(DEEPEST)), Err(Unread::TooDeep));
        assert_eq!(at_k(&"[".repeat(1 << 20)), Err(Unread::TooDeep));
        let long = at_k(&format!(r#"{{"k":"{}"}}"#, "\\u00e9".repeat(30_000))).unwrap().unwrap();
        assert!((10_000..=LONGEST_TEXT).contains(&long.as_str().unwrap().len()));
        let mut asks = asks(&["/inputs/7/data/3"]);
        asks.tensor("inputs", "a");
        let many = format!(r#"{{"inputs":[{}{{}}]}}"#, "{},".repeat(100_000));
        assert_eq!(scan(&asks, many.as_bytes(), 999), Err(Unread::TooLong));
    }

    #[test]
    fn tensors_by_name_and_by_index() {
        let mut asks = asks(&["/inputs/1/data/1", "/inputs/0/shape"]);
        asks.tensor("inputs", "b");
        let body = json!({"inputs": [
            {"name": "a", "shape": [3, 1], "data": [1, 2, 3]},
            {"data": [[4], [5, 6]], "name": "c"},
            {"name": "x", "data": ["no"]},
            {"data": [["yes", "no"]], "name": "b"},
        ]});
        let found = scan(&asks, body.to_string().as_bytes(), 5).unwrap().unwrap();
        assert_eq!(first_of_tensor(&found, "inputs", "b"), Some(json!("yes")));
        assert_eq!(first_of_tensor(&found, "inputs", "x"), None);
        assert_eq!(found.pointer("/inputs/1/data/1").map(first), Some(&json!(5)), "{found}");
        assert_eq!(found.pointer("/inputs/0/shape").map(first), Some(&json!(3)));
    }

    /// JSON with few distinct keys, so that pointers find values.
    fn values() -> impl Strategy<Value = Value> {
        let scalar = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::Bool),
            any::<i64>().prop_map(|number| json!(number)),
            any::<f64>().prop_map(|number| json!(number)),
            ".{0,6}".prop_map(Value::String),
        ];
        scalar.prop_recursive(5, 60, 5, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::Array),
                prop::collection::vec(("[a-c0-1~/]", inner), 0..5)
                    .prop_map(|pairs| Value::Object(pairs.into_iter().collect())),
            ]
        })
    }

    proptest! {
        /// Rules find the same values in the scanned body as in the whole body.
        #[test]
        fn agrees_with_a_parser(body in values(), pointers in prop::collection::vec("(/([a-c0-2]|~0|~1)){1,4}", 1..5), step in 1_usize..30, cut in any::<prop::sample::Index>()) {
            let mut asks = Asks::default();
            for pointer in &pointers {
                asks.pointer(pointer);
            }
            let text = body.to_string();
            let found = scan(&asks, text.as_bytes(), step).unwrap().unwrap();
            for pointer in &pointers {
                let scalar = |value: &Value| value.pointer(pointer).map(first).filter(|value| !value.is_array() && !value.is_object()).cloned();
                prop_assert_eq!(scalar(&found), scalar(&body), "{} of {} in {}", pointer, text, found);
            }
            let cut = cut.index(text.len());
            if body.is_object() {
                prop_assert!(scan(&asks, &text.as_bytes()[..cut], step).map_or(true, |value| value.is_none()));
            }
        }

        /// Everything that a parser accepts as JSON is accepted.
        #[test]
        fn valid_json_is_accepted(body in r#"[\{\}\[\]",:\\ktrue1 -.e]{0,40}"#, bytes in prop::collection::vec(any::<u8>(), 0..60), step in 1_usize..9) {
            let asks = asks(&["/k", "/k/k", "/k/1"]);
            let _ = scan(&asks, &bytes, step);
            let scanned = scan(&asks, body.as_bytes(), step);
            if let Ok(value) = serde_json::from_str::<Value>(&body) {
                prop_assert!(scanned.is_ok(), "{} {:?}", body, value);
            }
        }
    }
}
