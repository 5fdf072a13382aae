//! Rules of the configuration: where a door finds the model, the version, the unit and the outputs of a call.

use std::{collections::BTreeMap, fmt};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serin_schemas::{
    foreign::LONGEST_TEXT,
    ids::{EventTime, Generation},
    records::{Arm, Assignment, Origin, Prediction, Writer},
};
use serin_spec::units::Duration;

/// Where doors find what they need. The doors are described in docs/doors.md.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct DoorRules {
    /// `KServe`'s payload logger: `POST /v1/doors/kserve`, or its events on an intake topic.
    pub kserve: Mapping,
    /// Seldon's request logger: `POST /v1/doors/seldon`, or its events on an intake topic.
    pub seldon: Mapping,
    /// OpenTelemetry spans: `POST /v1/doors/otlp/v1/traces`.
    pub otlp: Mapping,
    /// Envoy's gRPC access-log service.
    pub envoy: Mapping,
    /// How long the request or the response of a call waits for the other one, by the log's timestamps. Then it is dead-lettered with the
    /// code `unpaired`. Default 5 min.
    pub pair_within: Duration,
    /// Maximum number of calls per partition that are known at the same time: those that wait for a part, and those that were paired within
    /// `pair_within`. Above it, paired calls are forgotten first. Then the oldest that waits is dead-lettered early. Default 100,000.
    pub max_pairs: usize,
}

impl Default for DoorRules {
    fn default() -> Self {
        Self {
            kserve: Mapping::default(),
            seldon: Mapping::default(),
            otlp: Mapping::default(),
            envoy: Mapping::default(),
            pair_within: Duration::from_secs(300),
            max_pairs: 100_000,
        }
    }
}

impl DoorRules {
    /// Every problem of these settings. Each starts with its setting.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        for (name, mapping, kinds) in [
            ("kserve", &self.kserve, PAYLOAD),
            ("seldon", &self.seldon, PAYLOAD),
            ("otlp", &self.otlp, SPAN),
            ("envoy", &self.envoy, ENTRY),
        ] {
            for (member, place) in mapping.places() {
                if !kinds.contains(&place.kind.as_str()) {
                    let known = kinds.join(", ");
                    problems.push(format!(
                        "doors.{name}.{member}: {place} is not a place of this door; use one of {known}"
                    ));
                }
            }
            if name != "otlp" && (mapping.spans.is_some() || !mapping.paths.is_empty()) {
                problems.push(format!("doors.{name}: `spans` and `paths` belong to the door otlp"));
            }
        }
        if self.pair_within.is_zero() {
            problems.push("doors.pair_within: must be longer than 0".to_owned());
        }
        if self.max_pairs == 0 {
            problems.push("doors.max_pairs: must be at least 1".to_owned());
        }
        problems
    }
}

const PAYLOAD: &[&str] = &["attribute", "metadata", "request", "response", "value"];
const SPAN: &[&str] = &["span", "resource", "value"];
const ENTRY: &[&str] = &["request", "response", "trailer", "tag", "field", "value"];

/// Where one door finds the parts of a call. Each part that is left out has the default of the door.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Mapping {
    /// The model that was called.
    pub model: Option<Place>,
    /// The version that answered. The arm follows from it.
    pub version: Option<Place>,
    /// The id that labels are joined by.
    pub request_id: Option<Place>,
    /// The unit of the split, such as a user. Default: none.
    pub unit: Option<Place>,
    /// Segments by name.
    pub segments: BTreeMap<String, Place>,
    /// Numeric outputs by name.
    pub outputs: BTreeMap<String, Place>,
    /// Categorical outputs by name.
    pub classes: BTreeMap<String, Place>,
    /// Door `otlp`: which spans are calls. Default: `server`.
    pub spans: Option<Spans>,
    /// Door `otlp`: prefixes of the paths that are calls of a model. Default: every path.
    pub paths: Vec<String>,
}

/// Which spans are calls of a model. One call should have one such span, so that it counts once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Spans {
    /// Spans of servers: HTTP requests with the method POST, gRPC calls, and calls with `gen_ai` attributes.
    #[default]
    Server,
    /// Spans of clients, of the same kinds.
    Client,
    /// Spans with `gen_ai.operation.name` or `gen_ai.request.model`, of any kind.
    GenAi,
}

/// Where a door finds a value, as `<kind>:<name>`: `attribute:endpoint`, `response:/model_version`, `span:session.id`, `value:fraud`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String")]
pub struct Place {
    /// What is searched: `attribute`, `metadata`, `request`, `response`, `span`, `resource`, `trailer`, `tag`, `field` or `value`.
    pub kind: String,
    /// The name within it; the text itself for the kind `value`.
    pub name: String,
}

impl TryFrom<String> for Place {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match text.split_once(':') {
            Some((kind, name)) if !kind.is_empty() && !name.is_empty() => {
                Ok(Self { kind: kind.to_owned(), name: name.to_owned() })
            }
            _ => Err(format!("{text:?} is not a place; write <kind>:<name>, such as attribute:endpoint")),
        }
    }
}

impl From<Place> for String {
    fn from(place: Place) -> Self {
        place.to_string()
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.kind, self.name)
    }
}

/// The places that a door searches if the configuration names none, in this order.
pub(crate) struct Defaults {
    pub(crate) model: &'static [(&'static str, &'static str)],
    pub(crate) version: &'static [(&'static str, &'static str)],
    pub(crate) request_id: &'static [(&'static str, &'static str)],
}

/// The value of a kind and a name in the input of a door.
type Look<'a> = &'a dyn Fn(&str, &str) -> Option<Value>;

/// The parts of a call that a mapping has found.
#[derive(Debug, Default)]
pub(crate) struct Mapped {
    pub(crate) model: Option<String>,
    pub(crate) version: Option<String>,
    pub(crate) request_id: Option<String>,
    pub(crate) unit: Option<String>,
    pub(crate) segments: BTreeMap<String, String>,
    pub(crate) outputs: BTreeMap<String, f64>,
    pub(crate) classes: BTreeMap<String, String>,
}

impl Mapping {
    fn places(&self) -> impl Iterator<Item = (String, &Place)> {
        let single = [
            ("model", &self.model),
            ("version", &self.version),
            ("request_id", &self.request_id),
            ("unit", &self.unit),
        ];
        let single = single.into_iter().filter_map(|(name, place)| Some((name.to_owned(), place.as_ref()?)));
        let maps = [("segments", &self.segments), ("outputs", &self.outputs), ("classes", &self.classes)];
        let maps = maps
            .into_iter()
            .flat_map(|(list, map)| map.iter().map(move |(name, place)| (format!("{list}.{name}"), place)));
        single.chain(maps)
    }

    /// Finds the parts of a call.
    pub(crate) fn find(&self, defaults: &Defaults, look: Look<'_>) -> Mapped {
        let at = |place: &Place| match place.kind.as_str() {
            "value" => Some(Value::from(place.name.as_str())),
            kind => look(kind, &place.name),
        };
        let one = |place: &Option<Place>, defaults: &[(&str, &str)]| match place {
            Some(place) => at(place).as_ref().and_then(text),
            None => defaults.iter().find_map(|(kind, name)| look(kind, name).as_ref().and_then(text)),
        };
        let texts = |places: &BTreeMap<String, Place>| {
            let found = |(name, place): (&String, &Place)| Some((name.clone(), text(&at(place)?)?));
            places.iter().filter_map(found).collect::<BTreeMap<_, _>>()
        };
        Mapped {
            model: one(&self.model, defaults.model),
            version: one(&self.version, defaults.version),
            request_id: one(&self.request_id, defaults.request_id),
            unit: self.unit.as_ref().and_then(|place| text(&at(place)?)),
            segments: texts(&self.segments),
            outputs: self
                .outputs
                .iter()
                .filter_map(|(name, place)| Some((name.clone(), number(&at(place)?)?)))
                .collect(),
            classes: texts(&self.classes),
        }
    }
}

impl Mapped {
    /// A prediction with what was found. A part that is missing stays empty, and the checks of the door refuse it.
    pub(crate) fn prediction(self, request_id: String, completed_at: EventTime) -> Prediction {
        let model = self.model.unwrap_or_default();
        Prediction {
            unit: self.unit.map(|unit| serin_sketches::hash::unit(&model, &unit)),
            request_id: request_id.into(),
            model: model.into(),
            version: self.version.unwrap_or_default().into(),
            // The aggregator derives the arm from the version.
            arm: Arm::Stable,
            assignment: Assignment::External,
            origin: Origin::Intake,
            rollout: None,
            generation: Generation(0),
            completed_at,
            latency_us: None,
            status: None,
            error: None,
            invalid_output: None,
            outputs: self.outputs,
            classes: self.classes,
            segments: self.segments,
            writer: Writer::default(),
            outcome: None,
            unread: None,
            batch: None,
        }
    }
}

/// The class of a failure with this status, as routers write it.
pub(crate) fn failure(status: Option<i32>) -> Option<String> {
    status.filter(|status| *status >= 500).map(|status| format!("status_{status}"))
}

/// A scalar as text; `None` if it is empty or not a scalar.
pub(crate) fn text(value: &Value) -> Option<String> {
    let text = match value {
        Value::String(text) => cut(text).to_owned(),
        Value::Number(number) => number.to_string(),
        Value::Bool(yes) => yes.to_string(),
        // Instrumentations write lists of one item.
        Value::Array(items) => return items.first().and_then(text),
        _ => return None,
    };
    Some(text).filter(|text| !text.is_empty())
}

/// A string, cut at the maximum length of a string in an event. Such a segment value counts as `other`.
fn cut(text: &str) -> &str {
    let end = (0..=LONGEST_TEXT.min(text.len())).rev().find(|&end| text.is_char_boundary(end));
    &text[..end.unwrap_or(0)]
}

/// A finite number; yes is 1 and no is 0.
pub(crate) fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Number(number) => number.as_f64(),
        Value::Bool(yes) => Some(f64::from(u8::from(*yes))),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    }
    .filter(|number| number.is_finite())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn places_have_a_kind_and_a_name() {
        let place = |text: &str| Place::try_from(text.to_owned());
        assert_eq!(place("span:a:b").map(|place| (place.kind, place.name)), Ok(("span".into(), "a:b".into())));
        for wrong in ["", "x", ":x", "x:"] {
            assert!(place(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn every_problem_of_the_rules_is_named() {
        assert_eq!(DoorRules::default().problems(), Vec::<String>::new());
        let rules: DoorRules = serde_json::from_value(json!({
            "kserve": {"model": "span:x", "spans": "client"}, "otlp": {"segments": {"a": "tag:b"}},
            "envoy": {"unit": "request:x-user"}, "pair_within": "0s", "max_pairs": 0
        }))
        .unwrap_or_default();
        assert_eq!(
            rules.problems(),
            [
                "doors.kserve.model: span:x is not a place of this door; use one of attribute, metadata, request, response, value",
                "doors.kserve: `spans` and `paths` belong to the door otlp",
                "doors.otlp.segments.a: tag:b is not a place of this door; use one of span, resource, value",
                "doors.pair_within: must be longer than 0",
                "doors.max_pairs: must be at least 1",
            ]
        );
    }

    #[test]
    fn long_texts_are_cut_at_a_character() {
        assert_eq!(text(&json!("ä".repeat(200))).map(|text| text.len()), Some(256));
        assert_eq!(text(&json!([["a"]])), Some("a".to_owned()));
        assert_eq!((text(&json!({})), text(&json!("")), text(&Value::Null)), (None, None, None));
    }
}
