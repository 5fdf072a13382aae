//! What is read from a request: segments, the sticky key, targets, features. Pure.
//!
//! Requests come from others: whatever they hold, this must not panic, and what it keeps is bounded.

use std::{borrow::Cow, collections::BTreeMap};

use http::{HeaderMap, header};
use serde_json::Value;
use serin_rollout::{FeatureSpec, OutputKind, RequestSource, SegmentSource, SegmentSpec, StickyKey, TargetSpec};
use serin_schemas::ids::EventTime;

use crate::values::{cut, first, first_of_tensor, header_text, number, scalar_text};

/// A request, as rules see it: its headers and, if it was kept and can be read, its body.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen<'a> {
    pub(crate) headers: &'a HeaderMap,
    pub(crate) body: Option<&'a Value>,
}

/// Features of a request.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Features {
    pub(crate) numbers: BTreeMap<String, f64>,
    pub(crate) classes: BTreeMap<String, String>,
}

/// Headers that name a session, the first of them that is there.
const SESSION_HEADERS: [&str; 3] = ["x-session-id", "mcp-session-id", "x-conversation-id"];

/// Places in a body that name a session or conversation, the first of them that is there.
const SESSION_POINTERS: [&str; 8] = [
    "/conversation/id",
    "/conversation",
    "/conversation_id",
    "/session_id",
    "/metadata/conversation_id",
    "/metadata/session_id",
    "/parameters/session_id",
    "/previous_response_id",
];

impl Seen<'_> {
    /// The value of each segment dimension that the request has.
    pub(crate) fn segments(self, specs: &[SegmentSpec]) -> BTreeMap<String, String> {
        let value = |spec: &SegmentSpec| match &spec.source {
            SegmentSource::Header(name) => self.header(name),
            SegmentSource::Json(pointer) => self.at(pointer),
            SegmentSource::Input(name) => scalar_text(&self.input(name)?),
            SegmentSource::Parameter(name) => self.parameter(name),
            SegmentSource::Event(_) => None,
        };
        specs
            .iter()
            .filter_map(|spec| Some((spec.name.clone(), value(spec).filter(|text| !text.is_empty())?)))
            .collect()
    }

    /// The sticky key.
    pub(crate) fn sticky_key(self, key: &StickyKey) -> Option<String> {
        let found = match key {
            // Not cut: two keys that differ at their ends are two keys.
            StickyKey::Header(name) => header_text(self.headers, name).map(Cow::into_owned),
            StickyKey::Cookie(name) => self.cookie(name),
            StickyKey::Json(pointer) => self.whole(self.body?.pointer(pointer)?),
            StickyKey::Parameter(name) => self.whole(self.body?.get("parameters")?.get(name)?),
            StickyKey::Session => self.session(),
            // A sequence number of 0 says that there is no sequence.
            StickyKey::Sequence => {
                self.whole(self.body?.get("parameters")?.get("sequence_id")?).filter(|sequence| sequence != "0")
            }
        };
        found.filter(|text| !text.is_empty())
    }

    fn session(self) -> Option<String> {
        let header = SESSION_HEADERS.iter().find_map(|name| header_text(self.headers, name));
        header.filter(|text| !text.is_empty()).map(Cow::into_owned).or_else(|| {
            let body = self.body?;
            SESSION_POINTERS.iter().find_map(|pointer| self.whole(body.pointer(pointer)?))
        })
    }

    /// The first target that matches.
    pub(crate) fn target(self, targets: &[TargetSpec]) -> Option<&TargetSpec> {
        targets.iter().find(|target| {
            let Some(value) = self.text(&target.when).filter(|value| !value.is_empty()) else { return false };
            target.is.is_empty() || target.is.contains(&value)
        })
    }

    /// Features and their ages when the request came.
    pub(crate) fn features(self, specs: &[FeatureSpec], arrived: EventTime) -> Features {
        let mut features = Features::default();
        for spec in specs {
            match spec.kind {
                OutputKind::Number => {
                    let found = self.value(&spec.source).and_then(|value| number(first(&value)).ok());
                    features.numbers.extend(found.map(|number| (spec.name.clone(), number)));
                }
                OutputKind::Class => {
                    let found = self.text(&spec.source).filter(|text| !text.is_empty());
                    features.classes.extend(found.map(|text| (spec.name.clone(), text)));
                }
            }
            let computed_at = spec.computed_at.as_ref().and_then(|source| self.value(source));
            let age = computed_at.and_then(|value| time(first(&value))).map(|time| arrived.since(time).as_secs_f64());
            features.numbers.extend(age.map(|age| (spec.age_name(), age)));
        }
        features
    }

    fn text(self, source: &RequestSource) -> Option<String> {
        match source {
            RequestSource::Header(name) => self.header(name),
            RequestSource::Cookie(name) => self.cookie(name).map(|text| cut(&text).to_owned()),
            RequestSource::Json(pointer) => self.at(pointer),
            RequestSource::Input(name) => scalar_text(&self.input(name)?),
            RequestSource::Parameter(name) => self.parameter(name),
        }
    }

    fn value(self, source: &RequestSource) -> Option<Value> {
        match source {
            RequestSource::Header(_) | RequestSource::Cookie(_) => self.text(source).map(Value::String),
            RequestSource::Json(pointer) => self.body?.pointer(pointer).map(first).cloned(),
            RequestSource::Input(name) => self.input(name),
            RequestSource::Parameter(name) => self.body?.get("parameters")?.get(name).map(first).cloned(),
        }
    }

    fn header(self, name: &str) -> Option<String> {
        header_text(self.headers, name).map(|text| cut(&text).to_owned())
    }

    fn at(self, pointer: &str) -> Option<String> {
        scalar_text(first(self.body?.pointer(pointer)?))
    }

    fn input(self, name: &str) -> Option<Value> {
        first_of_tensor(self.body?, "inputs", name)
    }

    fn parameter(self, name: &str) -> Option<String> {
        scalar_text(self.body?.get("parameters")?.get(name)?)
    }

    /// A scalar as it is, however long.
    #[expect(clippy::unused_self, reason = "it reads like the other ways to a value")]
    fn whole(self, value: &Value) -> Option<String> {
        match first(value) {
            Value::String(text) => Some(text.clone()),
            other => scalar_text(other),
        }
    }

    fn cookie(self, name: &str) -> Option<String> {
        self.headers
            .get_all(header::COOKIE)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(';'))
            .filter_map(|pair| pair.trim().split_once('='))
            .find(|(key, _)| *key == name)
            .map(|(_, value)| value.to_owned())
    }
}

/// A point in time: RFC 3339, or a number of seconds, milliseconds or microseconds since 1970, told apart by its size.
fn time(value: &Value) -> Option<EventTime> {
    if let Value::String(text) = value
        && let Some(time) = EventTime::from_rfc3339(text)
    {
        return Some(time);
    }
    let number = number(value).ok().filter(|number| *number > 0.0)?;
    // The year 5138 in seconds, 1973 in milliseconds; likewise for milliseconds and microseconds.
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
    use serin_rollout::TargetArm;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let pairs = pairs.iter().map(|(name, value)| (http::HeaderName::from_static(name), value.parse().unwrap()));
        pairs.collect()
    }

    #[test]
    fn segments_and_sticky_keys() {
        let spec = |name: &str, source| SegmentSpec { name: name.into(), source, top: 10 };
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
        let seen = Seen { headers: &headers, body: Some(&body) };
        let want = [("country", "CA"), ("n", "1"), ("origin", "LGA"), ("tier", "gold")];
        assert_eq!(seen.segments(&specs), want.map(|(key, value)| (key.to_owned(), value.to_owned())).into());
        let key = |key: StickyKey| seen.sticky_key(&key);
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
            Seen { headers: &headers(pairs), body: Some(&body) }.sticky_key(&key)
        };
        let session = |pairs, body| key(pairs, body, StickyKey::Session);
        assert_eq!(session(&[("mcp-session-id", "s1")], json!({"session_id": "s2"})).as_deref(), Some("s1"));
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
    fn long_keys_that_differ_at_their_ends_are_two_keys() {
        let long = |end: &str| format!("{}{end}", "x".repeat(300));
        let key = |text: String| {
            Seen { headers: &HeaderMap::new(), body: Some(&json!({ "user": text })) }
                .sticky_key(&StickyKey::Json("/user".into()))
        };
        assert_ne!(key(long("a")), key(long("b")));
    }

    #[test]
    fn targets_match_by_value_or_by_presence() {
        let target = |name: &str, is: &[&str]| TargetSpec {
            name: name.into(),
            when: RequestSource::Header("x-team".into()),
            is: is.iter().map(|&value| value.to_owned()).collect(),
            arm: TargetArm::Canary,
        };
        let targets = [target("ml", &["ml", "fraud"]), target("anybody", &[])];
        let found = |pairs: &[(&'static str, &str)]| {
            let headers = headers(pairs);
            Seen { headers: &headers, body: None }.target(&targets).map(|target| target.name.clone())
        };
        assert_eq!(found(&[("x-team", "fraud")]).as_deref(), Some("ml"));
        assert_eq!(found(&[("x-team", "ads")]).as_deref(), Some("anybody"));
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
            Seen { headers: &headers(&[("x-tier", "gold")]), body: Some(&body) }.features(&specs, arrived)
        };
        let seconds = arrived.0 / 1_000_000 - 90;
        for at in [json!("2026-11-27T11:58:30Z"), json!(seconds), json!(seconds * 1000), json!(seconds * 1_000_000)] {
            let found = features(at);
            assert_eq!(found.numbers, [("amount".to_owned(), 12.5), ("amount.age".to_owned(), 90.0)].into());
            assert_eq!(found.classes, [("tier".to_owned(), "gold".to_owned())].into());
        }
        assert_eq!(features(json!("yesterday")).numbers.len(), 1);
    }
}
