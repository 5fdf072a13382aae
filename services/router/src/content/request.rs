//! Values that are read from a request: segments, the sticky key, targets, features. Pure.
//!
//! Requests are untrusted: no request may cause a panic, and the memory is bounded.

use std::{borrow::Cow, collections::BTreeMap};

use http::{HeaderMap, header};
use serde_json::Value;
use serin_schemas::ids::EventTime;
use serin_spec::{
    BatchRows, FeatureSpec, OutputKind, RequestSource, SegmentSource, SegmentSpec, StickyKey, TargetSpec,
};

use crate::{
    content::values::{cut, first, first_of_tensor, header_text, number, scalar_text},
    protocol::{
        Promise, Unread,
        asks::Asks,
        rows::{ask, may_name_a_row, names_first_item, names_value_of_tensor},
        scan::LONGEST_TEXT,
    },
};

/// The parts of a request that rules can read: its headers, and the requested values of its body.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen<'a> {
    pub(crate) headers: &'a HeaderMap,
    /// `None`: the body contains no values that rules could read. An error: it may contain them but could not be read.
    pub(crate) body: Result<Option<&'a Value>, Unread>,
    /// The values of the drawn row alone, if the request has several rows. Null: they could not be read.
    pub(crate) row: Option<&'a Value>,
    /// The protocol, which determines what the rows are.
    pub(crate) promise: Promise,
}

/// Result of a rule: nothing, a string, or an unreadable value.
type Found = Result<Option<String>, Unread>;

/// Features of a request.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Features {
    pub(crate) numbers: BTreeMap<String, f64>,
    pub(crate) classes: BTreeMap<String, String>,
}

/// Headers that name a session, in order of precedence.
const SESSION_HEADERS: [&str; 3] = ["x-session-id", "mcp-session-id", "x-conversation-id"];

/// Positions in a body that name a session or conversation, in order of precedence.
const SESSION_POINTERS: [&str; 7] = [
    "/conversation/id",
    "/conversation",
    "/conversation_id",
    "/session_id",
    "/metadata/conversation_id",
    "/metadata/session_id",
    "/parameters/session_id",
];

/// The previous response of a chain.
const PREVIOUS: &str = "/previous_response_id";

/// The values that are requested from bodies of requests, for decisions and for events.
pub(crate) fn asks(
    sticky: Option<&StickyKey>,
    targets: &[TargetSpec],
    segments: &[SegmentSpec],
    features: &[FeatureSpec],
) -> Asks {
    let mut asks = Asks::default();
    match sticky {
        Some(StickyKey::Json(pointer)) => asks.pointer(pointer),
        Some(StickyKey::Parameter(name)) => asks.pointer(&parameter_at(name)),
        Some(StickyKey::Session) => {
            SESSION_POINTERS.iter().chain([&PREVIOUS]).for_each(|pointer| asks.pointer(pointer));
        }
        Some(StickyKey::Sequence) => asks.pointer("/parameters/sequence_id"),
        Some(StickyKey::Header(_) | StickyKey::Cookie(_)) | None => {}
    }
    let mut source = |source: &RequestSource| match source {
        RequestSource::Json(pointer) => ask(&mut asks, pointer),
        RequestSource::Input(name) => asks.tensor("inputs", name),
        RequestSource::Parameter(name) => asks.pointer(&parameter_at(name)),
        RequestSource::Header(_) | RequestSource::Cookie(_) => {}
    };
    for target in targets {
        source(&target.when);
    }
    for feature in features {
        source(&feature.source);
        feature.computed_at.iter().for_each(&mut source);
    }
    for segment in segments {
        match &segment.source {
            SegmentSource::Json(pointer) => ask(&mut asks, pointer),
            SegmentSource::Input(name) => asks.tensor("inputs", name),
            SegmentSource::Parameter(name) => asks.pointer(&parameter_at(name)),
            SegmentSource::Header(_) | SegmentSource::Event(_) => {}
        }
    }
    asks
}

/// The same values, and the previous response of a call of `/v1/responses`.
pub(crate) fn with_previous(asks: &Asks) -> Asks {
    let mut asks = asks.clone();
    asks.pointer(PREVIOUS);
    asks
}

/// Whether a rule may have a value in each row of a request.
pub(crate) fn reads_rows(segments: &[SegmentSpec], features: &[FeatureSpec]) -> bool {
    let of_request = |source: &RequestSource| match source {
        RequestSource::Input(_) => true,
        RequestSource::Json(pointer) => may_name_a_row(pointer),
        RequestSource::Header(_) | RequestSource::Cookie(_) | RequestSource::Parameter(_) => false,
    };
    let of_segment = |source: &SegmentSource| match source {
        SegmentSource::Input(_) => true,
        SegmentSource::Json(pointer) => may_name_a_row(pointer),
        SegmentSource::Header(_) | SegmentSource::Parameter(_) | SegmentSource::Event(_) => false,
    };
    segments.iter().any(|spec| spec.rows.is_all() && of_segment(&spec.source))
        || features
            .iter()
            .filter(|spec| spec.rows.is_all())
            .any(|spec| of_request(&spec.source) || spec.computed_at.as_ref().is_some_and(of_request))
}

/// The JSON pointer to a parameter of an Open Inference Protocol request.
fn parameter_at(name: &str) -> String {
    format!("/parameters/{}", name.replace('~', "~0").replace('/', "~1"))
}

/// A scalar as text. A whole number is the same text in every spelling: `7`, `7.0`, `7e0`.
fn key_text(value: &Value) -> Option<String> {
    match value.as_f64().filter(|number| number.fract() == 0.0 && number.abs() < 1e15) {
        Some(whole) => Some((whole as i64).to_string()),
        None => scalar_text(value),
    }
}

/// A scalar without truncation.
fn whole(value: &Value) -> Found {
    match first(value) {
        Value::String(text) if text.len() >= LONGEST_TEXT - 16 => Err(Unread::TooLong),
        Value::String(text) => Ok(Some(text.clone()).filter(|text| !text.is_empty())),
        Value::Object(_) => Err(Unread::NotScalar),
        other => Ok(key_text(other)),
    }
}

/// Returns a scalar as text, truncated.
fn short(value: &Value) -> Found {
    match first(value) {
        Value::Object(_) => Err(Unread::NotScalar),
        other => Ok(key_text(other).filter(|text| !text.is_empty())),
    }
}

impl Seen<'_> {
    /// The request as a rule reads it: the drawn row alone if the rule has a value in each row.
    fn in_row(self, rows: BatchRows, has_value: impl FnOnce(&Value, Promise) -> bool) -> Self {
        match self.row.filter(|row| rows.is_all() && has_value(row, self.promise)) {
            Some(row) => Self { body: Ok(Some(row)), ..self },
            None => self,
        }
    }

    /// The same for a value of a tensor.
    fn in_row_of(self, rows: BatchRows, tensor: &str) -> Self {
        // A tensor with one row belongs to all rows.
        self.in_row(rows, |row, _| row.is_null() || first_of_tensor(row, "inputs", tensor).is_some())
    }

    /// The same for a value at a pointer.
    fn in_row_at(self, rows: BatchRows, pointer: &str) -> Self {
        self.in_row(rows, |row, promise| match promise {
            // A column that the rows do not have is a place in the whole tensor.
            Promise::Tensors => names_value_of_tensor(pointer) && (row.is_null() || row.pointer(pointer).is_some()),
            Promise::Predictions => names_first_item(pointer),
            _ => false,
        })
    }

    fn in_row_from(self, rows: BatchRows, source: &RequestSource) -> Self {
        match source {
            RequestSource::Input(name) => self.in_row_of(rows, name),
            RequestSource::Json(pointer) => self.in_row_at(rows, pointer),
            RequestSource::Header(_) | RequestSource::Cookie(_) | RequestSource::Parameter(_) => self,
        }
    }

    /// The value of each segment dimension in the request, and why a value could not be read.
    pub(crate) fn segments(self, specs: &[SegmentSpec]) -> (BTreeMap<String, String>, Option<Unread>) {
        let (mut found, mut unread) = (BTreeMap::new(), None);
        for spec in specs {
            let value = match &spec.source {
                SegmentSource::Header(name) => Ok(self.header(name)),
                SegmentSource::Json(pointer) => self.in_row_at(spec.rows, pointer).at(pointer, short),
                SegmentSource::Input(name) => self.in_row_of(spec.rows, name).input(name, short),
                SegmentSource::Parameter(name) => self.at(&parameter_at(name), short),
                SegmentSource::Event(_) => Ok(None),
            };
            match value {
                Ok(value) => found.extend(value.map(|value| (spec.name.clone(), value))),
                Err(why) => unread = unread.or(Some(why)),
            }
        }
        (found, unread)
    }

    /// The sticky key.
    pub(crate) fn sticky_key(self, key: &StickyKey) -> Found {
        match key {
            // Not truncated: keys that differ only at their ends are different keys.
            StickyKey::Header(name) => {
                Ok(header_text(self.headers, name).map(Cow::into_owned).filter(|text| !text.is_empty()))
            }
            StickyKey::Cookie(name) => Ok(self.cookie(name).filter(|text| !text.is_empty())),
            StickyKey::Json(pointer) => self.at(pointer, whole),
            StickyKey::Parameter(name) => self.at(&parameter_at(name), whole),
            StickyKey::Session => self.session(),
            // A sequence number of 0 means that there is no sequence.
            StickyKey::Sequence => Ok(self.at("/parameters/sequence_id", whole)?.filter(|sequence| sequence != "0")),
        }
    }

    fn session(self) -> Found {
        let mut headers = SESSION_HEADERS.iter().filter_map(|name| header_text(self.headers, name));
        if let Some(header) = headers.find(|text| !text.is_empty()) {
            return Ok(Some(header.into_owned()));
        }
        for pointer in SESSION_POINTERS {
            match self.at(pointer, whole) {
                // A conversation may be an object with an id.
                Ok(None) | Err(Unread::NotScalar) => {}
                found => return found,
            }
        }
        Ok(None)
    }

    /// The response that the requested one continues.
    pub(crate) fn previous(self) -> Found {
        self.at(PREVIOUS, whole)
    }

    /// The first target that matches.
    pub(crate) fn target(self, targets: &[TargetSpec]) -> Result<Option<&TargetSpec>, Unread> {
        for target in targets {
            if let Some(value) = self.text(&target.when)?
                && (target.is.is_empty() || target.is.contains(&value))
            {
                return Ok(Some(target));
            }
        }
        Ok(None)
    }

    /// The features of the request, and their ages at its arrival.
    pub(crate) fn features(self, specs: &[FeatureSpec], arrived: EventTime) -> Features {
        let mut features = Features::default();
        for spec in specs {
            let seen = self.in_row_from(spec.rows, &spec.source);
            match spec.kind {
                OutputKind::Number => {
                    let found = seen.value(&spec.source).and_then(|value| number(first(&value)).ok());
                    features.numbers.extend(found.map(|number| (spec.name.clone(), number)));
                }
                OutputKind::Class | OutputKind::Ranking => {
                    let found = seen.text(&spec.source).unwrap_or_default();
                    features.classes.extend(found.map(|text| (spec.name.clone(), text)));
                }
            }
            let computed_at = spec.computed_at.as_ref();
            let computed_at = computed_at.and_then(|source| self.in_row_from(spec.rows, source).value(source));
            let age = computed_at.and_then(|value| time(first(&value))).map(|time| arrived.since(time).as_secs_f64());
            features.numbers.extend(age.map(|age| (spec.age_name(), age)));
        }
        features
    }

    fn text(self, source: &RequestSource) -> Found {
        match source {
            RequestSource::Header(name) => Ok(self.header(name)),
            RequestSource::Cookie(name) => {
                Ok(self.cookie(name).map(|text| cut(&text).to_owned()).filter(|text| !text.is_empty()))
            }
            RequestSource::Json(pointer) => self.at(pointer, short),
            RequestSource::Input(name) => self.input(name, short),
            RequestSource::Parameter(name) => self.at(&parameter_at(name), short),
        }
    }

    fn value(self, source: &RequestSource) -> Option<Value> {
        let body = self.body.unwrap_or_default();
        match source {
            RequestSource::Header(_) | RequestSource::Cookie(_) => self.text(source).ok()?.map(Value::String),
            RequestSource::Json(pointer) => body?.pointer(pointer).map(first).cloned(),
            RequestSource::Input(name) => first_of_tensor(body?, "inputs", name),
            RequestSource::Parameter(name) => body?.get("parameters")?.get(name).map(first).cloned(),
        }
    }

    fn header(self, name: &str) -> Option<String> {
        header_text(self.headers, name).map(|text| cut(&text).to_owned()).filter(|text| !text.is_empty())
    }

    fn at(self, pointer: &str, read: fn(&Value) -> Found) -> Found {
        self.body?.and_then(|body| body.pointer(pointer)).map_or(Ok(None), read)
    }

    fn input(self, name: &str, read: fn(&Value) -> Found) -> Found {
        self.body?.and_then(|body| first_of_tensor(body, "inputs", name)).map_or(Ok(None), |value| read(&value))
    }

    fn cookie(self, name: &str) -> Option<String> {
        self.headers
            .get_all(header::COOKIE)
            .iter()
            .flat_map(|value| value.as_bytes().split(|&byte| byte == b';'))
            .map(|pair| String::from_utf8_lossy(pair))
            .find_map(|pair| {
                pair.trim().split_once('=').filter(|(key, _)| *key == name).map(|(_, value)| value.to_owned())
            })
    }
}

/// Parses a point in time: RFC 3339, or a number of seconds, milliseconds or microseconds since 1970, distinguished by its size.
fn time(value: &Value) -> Option<EventTime> {
    if let Value::String(text) = value
        && let Some(time) = EventTime::from_rfc3339(text)
    {
        return Some(time);
    }
    let number = number(value).ok().filter(|number| *number > 0.0)?;
    // 1e11 is the year 5138 in seconds and 1973 in milliseconds; the same holds for milliseconds and microseconds.
    let micros = if number < 1e11 {
        number * 1e6
    } else if number < 1e14 {
        number * 1e3
    } else {
        number
    };
    (micros < 1e18).then_some(EventTime(micros as i64))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use serin_spec::TargetArm;

    /// A request of one row.
    fn one<'a>(headers: &'a HeaderMap, body: Result<Option<&'a Value>, Unread>) -> Seen<'a> {
        Seen { headers, body, row: None, promise: Promise::Nothing }
    }

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let pairs = pairs.iter().map(|(name, value)| (http::HeaderName::from_static(name), value.parse().unwrap()));
        pairs.collect()
    }

    #[test]
    fn segments_and_sticky_keys() {
        let spec = |name: &str, source| SegmentSpec { name: name.into(), source, top: 10, rows: BatchRows::All };
        let specs = [
            spec("country", SegmentSource::Header("x-country".into())),
            spec("origin", SegmentSource::Input("origin".into())),
            spec("tier", SegmentSource::Parameter("tier".into())),
            spec("n", SegmentSource::Json("/inputs/0/shape".into())),
            spec("gone", SegmentSource::Json("/none".into())),
        ];
        let headers = headers(&[("x-country", "CA"), ("cookie", "a=1; user=u7")]);
        let body = json!({"parameters": {"tier": "gold"},
            "inputs": [{"name": "origin", "shape": [1], "datatype": "BYTES", "data": ["LGA"]}]});
        let seen = one(&headers, Ok(Some(&body)));
        let want = [("country", "CA"), ("n", "1"), ("origin", "LGA"), ("tier", "gold")];
        let want = want.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
        assert_eq!(seen.segments(&specs), (want, None));
        let key = |key: StickyKey| seen.sticky_key(&key).unwrap();
        assert_eq!(key(StickyKey::Cookie("user".into())).as_deref(), Some("u7"));
        assert_eq!(key(StickyKey::Header("X-Country".into())).as_deref(), Some("CA"));
        assert_eq!(key(StickyKey::Parameter("tier".into())).as_deref(), Some("gold"));
        assert_eq!(key(StickyKey::Json("/inputs/0/data/0".into())).as_deref(), Some("LGA"));
        assert_eq!(key(StickyKey::Json("/nope".into())), None);
        assert_eq!((key(StickyKey::Session), key(StickyKey::Sequence)), (None, None));
    }

    #[test]
    fn sessions_conversations_and_sequences() {
        let key = |pairs: &[(&'static str, &str)], body: Value, key: StickyKey| {
            one(&headers(pairs), Ok(Some(&body))).sticky_key(&key).unwrap()
        };
        let session = |pairs, body| key(pairs, body, StickyKey::Session);
        assert_eq!(session(&[("mcp-session-id", "s1")], json!({"session_id": "s2"})).as_deref(), Some("s1"));
        let empty = [("x-session-id", ""), ("mcp-session-id", "s1")];
        assert_eq!(session(&empty, json!({})).as_deref(), Some("s1"), "an empty header counts as absent");
        assert_eq!(session(&[("x-session-id", "")], json!({"session_id": "s2"})).as_deref(), Some("s2"));
        assert_eq!(session(&[], json!({"conversation": {"id": "c1"}})).as_deref(), Some("c1"));
        assert_eq!(session(&[], json!({"conversation": "c2"})).as_deref(), Some("c2"));
        assert_eq!(session(&[], json!({"metadata": {"session_id": 7}})).as_deref(), Some("7"));
        assert_eq!(session(&[], json!({"messages": []})), None);
        let sequence = |body| key(&[], body, StickyKey::Sequence);
        assert_eq!(sequence(json!({"parameters": {"sequence_id": 42}})).as_deref(), Some("42"));
        assert_eq!(sequence(json!({"parameters": {"sequence_id": "job-9"}})).as_deref(), Some("job-9"));
        assert_eq!(sequence(json!({"parameters": {"sequence_id": 0}})), None);
    }

    #[test]
    fn a_whole_number_is_the_same_key_in_every_spelling() {
        let key = |body: &str| {
            let body: Value = serde_json::from_str(body).unwrap();
            let headers = HeaderMap::new();
            let seen = one(&headers, Ok(Some(&body)));
            let when = RequestSource::Json("/user".into());
            let targets =
                [TargetSpec { name: "t".into(), when, is: vec!["7".into(), "-7".into()], arm: TargetArm::Stable }];
            let is_target = seen.target(&targets).unwrap().is_some();
            (seen.sticky_key(&StickyKey::Json("/user".into())).unwrap(), is_target)
        };
        for spelling in ["7", "7.0", "7e0", "70e-1", "\"7\"", "[7.0]"] {
            assert_eq!(key(&format!(r#"{{"user":{spelling}}}"#)), (Some("7".into()), true), "{spelling}");
        }
        assert_eq!(key(r#"{"user":-7.0}"#), (Some("-7".into()), true));
        assert_eq!(key(r#"{"user":-0.0}"#), (Some("0".into()), false));
        assert_eq!(key(r#"{"user":7.5}"#), (Some("7.5".into()), false));
        let large = u64::MAX.to_string();
        assert_eq!(key(&format!(r#"{{"user":{large}}}"#)), (Some(large), false));
        assert_eq!(key(r#"{"user":null}"#), (None, false));
    }

    #[test]
    fn long_keys_that_differ_at_their_ends_are_different_keys() {
        let long = |end: &str| format!("{}{end}", "x".repeat(300));
        let key = |text: String| {
            one(&HeaderMap::new(), Ok(Some(&json!({ "user": text })))).sticky_key(&StickyKey::Json("/user".into()))
        };
        assert_ne!(key(long("a")), key(long("b")));
    }

    #[test]
    fn present_but_unreadable_values_are_reported() {
        let json = |pointer: &str| StickyKey::Json(pointer.to_owned());
        let headers = headers(&[("x-session-id", "s1"), ("cookie", "a=\u{e9}; user=u7")]);
        let body = json!({"user": {"id": 7}, "long": "x".repeat(LONGEST_TEXT), "none": null, "empty": ""});
        let seen = one(&headers, Ok(Some(&body)));
        assert_eq!(seen.sticky_key(&json("/user")), Err(Unread::NotScalar));
        assert_eq!(seen.sticky_key(&json("/long")), Err(Unread::TooLong));
        assert_eq!((seen.sticky_key(&json("/none")), seen.sticky_key(&json("/empty"))), (Ok(None), Ok(None)));
        assert_eq!(
            seen.sticky_key(&StickyKey::Cookie("user".into())),
            Ok(Some("u7".into())),
            "next to a cookie that is not ASCII"
        );
        let seen = one(&headers, Err(Unread::TooLarge));
        assert_eq!(seen.sticky_key(&json("/user")), Err(Unread::TooLarge));
        assert_eq!(seen.sticky_key(&StickyKey::Session), Ok(Some("s1".into())), "a header does not need the body");
        let segment = |source| [SegmentSpec { name: "s".into(), source, top: 10, rows: BatchRows::All }];
        assert_eq!(
            seen.segments(&segment(SegmentSource::Json("/a".into()))),
            (BTreeMap::new(), Some(Unread::TooLarge))
        );
        assert_eq!(seen.segments(&segment(SegmentSource::Header("x-none".into()))), (BTreeMap::new(), None));
        let target = |when| [TargetSpec { name: "t".into(), when, is: Vec::new(), arm: TargetArm::Stable }];
        assert_eq!(seen.target(&target(RequestSource::Input("tenant".into()))), Err(Unread::TooLarge));
        assert_eq!(seen.target(&target(RequestSource::Header("x-none".into()))), Ok(None));
    }

    #[test]
    fn targets_match_by_value_or_by_presence() {
        let target = |name: &str, is: &[&str]| TargetSpec {
            name: name.into(),
            when: RequestSource::Header("x-team".into()),
            is: is.iter().map(|&value| value.to_owned()).collect(),
            arm: TargetArm::Canary,
        };
        let targets = [target("ml", &["ml", "fraud"]), target("everyone", &[])];
        let found = |pairs: &[(&'static str, &str)]| {
            let headers = headers(pairs);
            one(&headers, Ok(None)).target(&targets).unwrap().map(|target| target.name.clone())
        };
        assert_eq!(found(&[("x-team", "fraud")]).as_deref(), Some("ml"));
        assert_eq!(found(&[("x-team", "ads")]).as_deref(), Some("everyone"));
        assert_eq!(found(&[]), None);
    }

    #[test]
    fn features_have_an_age() {
        let specs: Vec<FeatureSpec> = serde_json::from_value(json!([
            {"name": "amount", "source": {"input": "amount"}, "computedAt": {"parameter": "amount_at"}},
            {"name": "tier", "kind": "class", "source": {"header": "x-tier"}},
            {"name": "broken", "source": {"json": "/inputs/1"}}
        ]))
        .unwrap();
        let arrived = EventTime::from_rfc3339("2026-11-27T12:00:00Z").unwrap();
        let features = |at: Value| {
            let body = json!({"parameters": {"amount_at": at}, "inputs": [{"name": "amount", "data": [12.5]}]});
            one(&headers(&[("x-tier", "gold")]), Ok(Some(&body))).features(&specs, arrived)
        };
        let seconds = arrived.0 / 1_000_000 - 90;
        for at in [json!("2026-11-27T11:58:30Z"), json!(seconds), json!(seconds * 1000), json!(seconds * 1_000_000)] {
            let found = features(at);
            assert_eq!(found.numbers, [("amount".to_owned(), 12.5), ("amount.age".to_owned(), 90.0)].into());
            assert_eq!(found.classes, [("tier".to_owned(), "gold".to_owned())].into());
        }
        assert_eq!(features(json!("yesterday")).numbers.len(), 1);
    }

    #[test]
    fn a_value_is_that_of_the_drawn_row_where_the_rule_has_one_in_each_row() {
        let body =
            json!({"inputs": [{"name": "a", "data": [0, 7]}, {"name": "b", "data": ["all"]}], "instances": [{"x": 0}]});
        let row = json!({"inputs": [{"name": "a", "data": [40]}, {"name": "b"}], "instances": [{"x": 40}]});
        let null = Value::Null;
        let input = |name: &str| SegmentSource::Input(name.to_owned());
        let json = |pointer: &str| SegmentSource::Json(pointer.to_owned());
        for (promise, row, source, rows, expected) in [
            (Promise::Tensors, Some(&row), input("a"), BatchRows::All, Some("40")),
            (Promise::Tensors, Some(&row), input("a"), BatchRows::First, Some("0")),
            (Promise::Tensors, None, input("a"), BatchRows::All, Some("0")),
            (Promise::Tensors, Some(&row), input("b"), BatchRows::All, Some("all")),
            (Promise::Tensors, Some(&row), json("/inputs/0/data/0"), BatchRows::All, Some("40")),
            (Promise::Tensors, Some(&row), json("/inputs/0/data/1"), BatchRows::All, Some("7")),
            (Promise::Tensors, Some(&row), json("/instances/0/x"), BatchRows::All, Some("0")),
            (Promise::Tensors, Some(&null), input("a"), BatchRows::All, None),
            (Promise::Tensors, Some(&null), input("a"), BatchRows::First, Some("0")),
            (Promise::Predictions, Some(&row), json("/instances/0/x"), BatchRows::All, Some("40")),
            (Promise::Predictions, Some(&row), json("/instances/0/x"), BatchRows::First, Some("0")),
            (Promise::Predictions, Some(&null), json("/instances/0/x"), BatchRows::All, None),
            (Promise::Nothing, Some(&row), json("/instances/0/x"), BatchRows::All, Some("0")),
        ] {
            let seen = Seen { headers: &HeaderMap::new(), body: Ok(Some(&body)), row, promise };
            let shown = format!("{promise:?} {row:?} {source:?} {rows:?}");
            let spec = [SegmentSpec { name: "s".into(), source, top: 10, rows }];
            let (found, unread) = seen.segments(&spec);
            assert_eq!((found.get("s").map(String::as_str), unread), (expected, None), "{shown}");
        }
        let features: Vec<FeatureSpec> = serde_json::from_value(json!([
            {"name": "a", "source": {"input": "a"}, "computedAt": {"json": "/inputs/0/data/0"}},
            {"name": "first", "source": {"input": "a"}, "rows": "first"},
            {"name": "class", "kind": "class", "source": {"input": "a"}},
        ]))
        .unwrap();
        let seen =
            Seen { headers: &HeaderMap::new(), body: Ok(Some(&body)), row: Some(&row), promise: Promise::Tensors };
        let found = seen.features(&features, EventTime(50_000_000));
        let numbers = [("a", 40.0), ("a.age", 10.0), ("first", 0.0)].map(|(name, number)| (name.to_owned(), number));
        assert_eq!((found.numbers, found.classes["class"].as_str()), (numbers.into(), "40"));
    }
}
