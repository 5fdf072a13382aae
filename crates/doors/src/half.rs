//! The request and the response of one call, which payload loggers send as two events.
//!
//! A half is what a door keeps of an event: the raw payload is dropped once its outputs are read. Halves travel on the topic `predictions`
//! under the call's id, so that both arrive at the intake of the same partition, wherever they were received. That intake pairs them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use serin_schemas::{
    Code,
    foreign::{Bounds, LONGEST_TEXT, Refusal},
    ids::EventTime,
    records::{Batch, Outcome, Prediction},
};

use crate::{
    cloud::{Event, Logger, Part},
    payload,
    rules::{Defaults, DoorRules, Mapped, failure},
};

/// The type of a half on a topic. The bytes of [`Half::encode`] are its version 1.
pub const TYPE: &str = "dev.serin.half.v1";

/// Where a logger writes what the rules do not name.
fn defaults(logger: Logger) -> &'static Defaults {
    match logger {
        Logger::Kserve => &Defaults {
            model: &[("attribute", "inferenceservicename")],
            version: &[("response", "/model_version"), ("attribute", "endpoint")],
            request_id: &[("attribute", "id")],
        },
        Logger::Seldon => &Defaults {
            model: &[("attribute", "inferenceservicename")],
            // The predictor of the deployment.
            version: &[("attribute", "endpoint")],
            // `id` differs between the request and the response.
            request_id: &[("attribute", "requestid")],
        },
    }
}

/// What is kept of one event.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Half {
    /// Which logger wrote it.
    pub logger: Logger,
    /// Which part of the call it is.
    pub part: Part,
    /// The id that both parts have.
    pub id: String,
    /// The source of the event. Both parts of a call have the same.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub source: String,
    /// The model that was called.
    pub model: String,
    /// The version that answered, if this part names it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// When the request arrived or the answer was complete, in microseconds, if the event states it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time: Option<EventTime>,
    /// The HTTP status, if the event states it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<i32>,
    /// The hash of the unit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<i64>,
    /// Segments by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub segments: BTreeMap<String, String>,
    /// Numeric outputs by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub outputs: BTreeMap<String, f64>,
    /// Categorical outputs by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub classes: BTreeMap<String, String>,
    /// The rows of the answer, if there are several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batch: Option<Batch>,
    /// Why the answer cannot be used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub invalid: Option<String>,
    /// Why the answer was not read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unread: Option<String>,
}

impl Half {
    /// Reads an event of a payload logger.
    ///
    /// # Errors
    /// Returns all problems, at least one.
    pub fn of(event: &Event, rules: &DoorRules, bounds: &Bounds) -> Result<Self, Vec<Refusal>> {
        let Some((logger, part)) = event.part() else {
            let found: String = event.attribute("type").unwrap_or_default().chars().take(100).collect();
            let message = format!("type: {found:?} is not an event of KServe's or Seldon's payload logger");
            return Err(vec![Refusal::new(Code::UnknownType, message)]);
        };
        let rules = match logger {
            Logger::Kserve => &rules.kserve,
            Logger::Seldon => &rules.seldon,
        };
        let body = payload::parse(&event.body, &event.content_type);
        let json = body.as_ref().and_then(|body| body.as_ref().ok());
        let found = rules.find(defaults(logger), &|kind, name| match kind {
            "attribute" => event.attribute(name).map(Value::from),
            "metadata" => metadata(event, name),
            "request" => json.filter(|_| part == Part::Request)?.pointer(name).cloned(),
            "response" => json.filter(|_| part == Part::Response)?.pointer(name).cloned(),
            _ => None,
        });
        let mut problems = Vec::new();
        let time = event.attribute("time").and_then(|text| {
            let time = EventTime::from_rfc3339(text);
            if time.is_none() {
                problems.push(Refusal::new(Code::BadTime, "time: expected an RFC 3339 time"));
            }
            time
        });
        let status = event.attribute("statuscode").and_then(|text| {
            let status = text.parse().ok();
            if status.is_none() {
                problems.push(Refusal::new(Code::BadValue, "statuscode: expected a number"));
            }
            status
        });
        let Mapped { model, version, request_id, unit, segments, mut outputs, mut classes } = found;
        let (id, model) = (request_id.unwrap_or_default(), model.unwrap_or_default());
        let mut half = Self {
            logger,
            part,
            source: event
                .attribute("source")
                .filter(|source| source.len() <= LONGEST_TEXT)
                .unwrap_or_default()
                .to_owned(),
            unit: unit.map(|unit| serin_sketches::hash::unit(&model, &unit)),
            id,
            model,
            version,
            time,
            status,
            segments,
            outputs: BTreeMap::new(),
            classes: BTreeMap::new(),
            batch: None,
            invalid: None,
            unread: None,
        };
        let is_answer = part == Part::Response && status.is_none_or(|status| (200..300).contains(&status));
        if is_answer {
            let payload = payload::read(body.as_ref(), &half.id);
            half.outputs = payload.outputs;
            half.classes = payload.classes;
            half.batch = payload.batch;
            half.invalid = payload.invalid.map(str::to_owned);
            half.unread = payload.unread.map(str::to_owned);
        }
        half.outputs.append(&mut outputs);
        half.classes.append(&mut classes);
        problems.extend(half.problems(bounds));
        if problems.is_empty() { Ok(half) } else { Err(problems) }
    }

    /// Every problem of a half, except that it may not know its version yet.
    fn problems(&self, bounds: &Bounds) -> Vec<Refusal> {
        let mut problems = bounds.check_prediction(&self.prediction(bounds));
        problems.retain(|problem| problem.code != Code::MissingVersion);
        problems
    }

    fn prediction(&self, bounds: &Bounds) -> Prediction {
        let found = Mapped {
            model: Some(self.model.clone()),
            version: self.version.clone(),
            segments: self.segments.clone(),
            outputs: self.outputs.clone(),
            classes: self.classes.clone(),
            ..Mapped::default()
        };
        Prediction {
            status: self.status,
            unit: self.unit,
            ..found.prediction(self.id.clone(), bounds.or_now(self.time))
        }
    }

    /// The bytes on a topic: JSON, version 1.
    pub fn encode(&self) -> Vec<u8> {
        // A map with text keys and finite numbers can always be written.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// Reads the bytes of [`encode`](Self::encode), and checks them as any other input.
    ///
    /// # Errors
    /// Returns all problems, at least one.
    pub fn decode(body: &[u8], bounds: &Bounds) -> Result<Self, Vec<Refusal>> {
        let half: Self = serde_json::from_slice(body).map_err(|error| {
            vec![Refusal::new(Code::Garbage, format!("the half of a call cannot be read: {error}"))]
        })?;
        let problems = half.problems(bounds);
        if problems.is_empty() { Ok(half) } else { Err(problems) }
    }

    /// What both parts of a call have in common, and no other call.
    pub fn key(&self) -> String {
        format!("{}\0{}\0{}\0{}", self.logger.as_str(), self.model, self.source, self.id)
    }
}

/// The prediction of a call whose request and response are known.
///
/// `KServe` sends a response without a status only if the status was 200. Seldon states no time at which it answered, so its calls have no
/// latency. Nor has a call whose answer has an earlier time than its request: older agents of `KServe` state when they sent an event, and
/// they send with several workers.
///
/// # Errors
/// Returns all problems of the call, such as a version that neither part names.
pub fn pair(request: &Half, response: &Half, bounds: &Bounds) -> Result<Prediction, Vec<Refusal>> {
    let mut segments = request.segments.clone();
    segments.extend(response.segments.clone());
    let mut prediction = response.prediction(bounds);
    prediction.version = response.version.clone().or_else(|| request.version.clone()).unwrap_or_default().into();
    prediction.segments = segments;
    prediction.unit = response.unit.or(request.unit);
    prediction.status = response.status.or(Some(200));
    prediction.error = failure(prediction.status);
    prediction.batch.clone_from(&response.batch);
    prediction.invalid_output.clone_from(&response.invalid);
    prediction.unread.clone_from(&response.unread);
    prediction.outcome = response.unread.as_ref().map(|_| Outcome::Unread);
    for (name, value) in &request.outputs {
        prediction.outputs.entry(name.clone()).or_insert(*value);
    }
    for (name, value) in &request.classes {
        prediction.classes.entry(name.clone()).or_insert_with(|| value.clone());
    }
    if response.logger == Logger::Kserve {
        let times = request.time.zip(response.time);
        let latency = times.map(|(arrived, answered)| answered.0.saturating_sub(arrived.0));
        prediction.latency_us = latency.filter(|latency| *latency >= 0);
    }
    let problems = bounds.check_prediction(&prediction);
    if problems.is_empty() { Ok(prediction) } else { Err(problems) }
}

/// The first value of a request header in `KServe`'s attribute `metadata`: `{"X-User-Id":["u1"]}`.
fn metadata(event: &Event, name: &str) -> Option<Value> {
    let headers: Value = serde_json::from_str(event.attribute("metadata")?).ok()?;
    let (_, value) = headers.as_object()?.iter().find(|(header, _)| header.eq_ignore_ascii_case(name))?;
    Some(value.clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serin_schemas::ids::Span;

    /// 2025-11-30T05:20:00Z.
    const NOW: EventTime = EventTime(1_764_480_000_000_000);

    fn bounds() -> Bounds {
        Bounds::new(Some(NOW), NOW, Span(600_000_000))
    }

    /// A request and its response as `KServe`'s agent sends them: binary mode, the same id, the request's content type on both.
    const REQUEST: [(&str, &str); 11] = [
        ("Ce-Specversion", "1.0"),
        ("Ce-Type", "org.kubeflow.serving.inference.request"),
        ("Ce-Id", "0192-a"),
        ("Ce-Source", "http://localhost:9081/"),
        ("Ce-Time", "2025-11-30T05:19:59.100000000Z"),
        ("Ce-Inferenceservicename", "fraud"),
        ("Ce-Namespace", "default"),
        ("Ce-Component", "predictor"),
        ("Ce-Endpoint", ""),
        ("Ce-Metadata", r#"{"X-User-Id":["u1"]}"#),
        ("Content-Type", "application/json"),
    ];
    const ANSWER: &str = r#"{"model_name":"fraud","model_version":"v2","outputs":[{"name":"score","shape":[1],"datatype":"FP64","data":[0.83]}]}"#;

    fn event(changes: &[(&str, &str)], body: &str) -> Event {
        let kept = REQUEST.iter().filter(|(name, _)| changes.iter().all(|(changed, _)| changed != name));
        Event::binary(kept.chain(changes).map(|(name, value)| (*name, value.as_bytes())), body.as_bytes(), true)
    }

    const RESPONSE: [(&str, &str); 2] =
        [("Ce-Type", "org.kubeflow.serving.inference.response"), ("Ce-Time", "2025-11-30T05:19:59.112400000Z")];

    fn of(changes: &[(&str, &str)], body: &str, rules: &DoorRules) -> Result<Half, Vec<Refusal>> {
        Half::of(&event(changes, body), rules, &bounds())
    }

    fn rules(json: serde_json::Value) -> DoorRules {
        serde_json::from_value(json).unwrap_or_else(|error| panic!("{error}"))
    }

    #[test]
    fn a_call_of_kserve_becomes_a_prediction() {
        let rules = rules(serde_json::json!({"kserve": {
            "unit": "metadata:x-user-id", "segments": {"country": "request:/parameters/country"}
        }}));
        let request =
            of(&[], r#"{"parameters":{"country":"CA"},"inputs":[]}"#, &rules).unwrap_or_else(|p| panic!("{p:?}"));
        let response = of(&RESPONSE, ANSWER, &rules).unwrap_or_else(|p| panic!("{p:?}"));
        assert_eq!(request.key(), response.key());
        let call = pair(&request, &response, &bounds()).unwrap_or_else(|p| panic!("{p:?}"));
        assert_eq!((call.request_id.as_str(), call.model.as_str(), call.version.as_str()), ("0192-a", "fraud", "v2"));
        assert_eq!((call.latency_us, call.status, call.outputs["score"]), (Some(12_400), Some(200), 0.83));
        assert_eq!((call.completed_at.0, call.segments["country"].as_str()), (NOW.0 - 887_600, "CA"));
        assert_eq!(call.unit, Some(serin_sketches::hash::unit("fraud", "u1")));
        assert_eq!(call.outcome(), Outcome::Ok);
    }

    /// A contract: the intake of another release reads these bytes.
    #[test]
    fn golden_bytes_of_a_half() {
        let response = of(&RESPONSE, ANSWER, &DoorRules::default()).unwrap_or_else(|p| panic!("{p:?}"));
        let golden = r#"{"logger":"kserve","part":"response","id":"0192-a","source":"http://localhost:9081/","model":"fraud","version":"v2","time":1764479999112400,"outputs":{"score":0.83}}"#;
        assert_eq!(String::from_utf8_lossy(&response.encode()), golden);
        assert_eq!(Half::decode(golden.as_bytes(), &bounds()), Ok(response.clone()));
        let whole = Half {
            status: Some(200),
            unit: Some(-7),
            segments: [("country".to_owned(), "CA".to_owned())].into(),
            classes: [("label".to_owned(), "a".to_owned())].into(),
            batch: Some(Batch { rows: 2, row: 1, means: [("score".to_owned(), 0.5)].into() }),
            invalid: Some("null".to_owned()),
            unread: Some("content_type".to_owned()),
            ..response
        };
        let more = r#"{"logger":"kserve","part":"response","id":"0192-a","source":"http://localhost:9081/","model":"fraud","version":"v2","time":1764479999112400,"status":200,"unit":-7,"segments":{"country":"CA"},"outputs":{"score":0.83},"classes":{"label":"a"},"batch":{"rows":2,"row":1,"means":{"score":0.5}},"invalid":"null","unread":"content_type"}"#;
        assert_eq!(String::from_utf8_lossy(&whole.encode()), more);
        assert_eq!(Half::decode(more.as_bytes(), &bounds()), Ok(whole));
        let request = of(&[], "{}", &DoorRules::default()).unwrap_or_else(|p| panic!("{p:?}"));
        let least = r#"{"logger":"kserve","part":"request","id":"0192-a","source":"http://localhost:9081/","model":"fraud","time":1764479999100000}"#;
        assert_eq!(String::from_utf8_lossy(&request.encode()), least);
        assert_eq!(Half::decode(least.as_bytes(), &bounds()), Ok(request));
        let unknown = golden.replace("\"part\"", "\"later\":1,\"part\"");
        assert!(Half::decode(unknown.as_bytes(), &bounds()).is_ok());
        for wrong in ["", "{}", "[]", "\0\0\0\0\u{1}{}"] {
            assert_eq!(Half::decode(wrong.as_bytes(), &bounds()).map_err(|p| p[0].code), Err(Code::Garbage), "{wrong}");
        }
    }

    #[test]
    fn statuses_and_answers_that_cannot_be_used() {
        let rules = DoorRules::default();
        let request = of(&[], "{}", &rules).unwrap_or_else(|p| panic!("{p:?}"));
        let outcome = |more: (&str, &str), body: &str| {
            let named = [RESPONSE[0], RESPONSE[1], ("Ce-Endpoint", "v2"), more];
            let response = of(&named, body, &rules).unwrap_or_else(|p| panic!("{p:?}"));
            let call = pair(&request, &response, &bounds()).unwrap_or_else(|p| panic!("{p:?}"));
            (call.outcome(), call.error, call.invalid_output)
        };
        let status = |status| outcome(("Ce-Statuscode", status), "x");
        assert_eq!(status("503"), (Outcome::Failed, Some("status_503".into()), None));
        assert_eq!(status("422"), (Outcome::Refused, None, None));
        assert_eq!(status("200"), (Outcome::Unusable, None, Some("unparsable".into())));
        let json = ("Content-Type", "application/json");
        assert_eq!(outcome(json, r#"{"predictions":[NaN]}"#), (Outcome::Unusable, None, Some("null".into())));
        assert_eq!(outcome(("Content-Type", "application/octet-stream"), "\x01\x02").0, Outcome::Unread);
    }

    #[test]
    fn problems_have_the_code_of_every_door() {
        let code = |changes: &[(&str, &str)]| of(changes, "{}", &DoorRules::default()).map_err(|p| p[0].code).err();
        assert_eq!(code(&[("Ce-Id", "")]), Some(Code::MissingId));
        assert_eq!(code(&[("Ce-Inferenceservicename", "")]), Some(Code::MissingModel));
        assert_eq!(code(&[("Ce-Time", "soon")]), Some(Code::BadTime));
        assert_eq!(code(&[("Ce-Time", "2035-01-01T00:00:00Z")]), Some(Code::FarFuture));
        assert_eq!(code(&[("Ce-Statuscode", "ok")]), Some(Code::BadValue));
        assert_eq!(code(&[("Ce-Type", "io.seldon.serving.feedback")]), Some(Code::UnknownType));
        assert_eq!(code(&[("Ce-Type", "")]), Some(Code::UnknownType));
        let half =
            |changes: &[(&str, &str)]| of(changes, "{}", &DoorRules::default()).unwrap_or_else(|p| panic!("{p:?}"));
        let error = |request: &Half, response: &Half| pair(request, response, &bounds()).map_err(|p| p[0].code).err();
        assert_eq!(error(&half(&[]), &half(&RESPONSE)), Some(Code::MissingVersion));
        let early = [RESPONSE[0], ("Ce-Time", "2025-11-30T05:19:58Z"), ("Ce-Endpoint", "v2")];
        assert_eq!(error(&half(&[]), &half(&early)), None);
    }

    #[test]
    fn an_answer_with_an_earlier_time_than_its_request_has_no_latency() {
        let half =
            |changes: &[(&str, &str)]| of(changes, ANSWER, &DoorRules::default()).unwrap_or_else(|p| panic!("{p:?}"));
        for (time, latency) in [
            ("2025-11-30T05:19:58Z", None),
            ("2025-11-30T05:19:59.0999Z", None),
            ("2025-11-30T05:19:59.1Z", Some(0)),
            ("2025-11-30T05:19:59.1001Z", Some(100)),
        ] {
            let response = half(&[RESPONSE[0], ("Ce-Time", time)]);
            let call = pair(&half(&[]), &response, &bounds()).unwrap_or_else(|p| panic!("{p:?}"));
            assert_eq!((call.latency_us, call.outputs.get("score")), (latency, Some(&0.83)), "{time}");
        }
    }

    #[test]
    fn seldon_pairs_by_the_request_id_and_has_no_latency() {
        let of = |kind: &str, id: &str, body: &str| {
            let kind = format!("io.seldon.serving.inference.{kind}");
            let headers = [
                ("ce-type", kind.as_str()),
                ("ce-id", id),
                ("ce-source", "http://:8000/"),
                ("ce-time", "2025-11-30T05:19:59Z"),
                ("ce-requestid", "puid-1"),
                ("ce-modelid", "classifier"),
                ("ce-inferenceservicename", "fraud"),
                ("ce-endpoint", "canary"),
                ("content-type", "application/json"),
            ];
            let headers = headers.iter().map(|(name, value)| (*name, value.as_bytes()));
            let event = Event::binary(headers, body.as_bytes(), true);
            Half::of(&event, &DoorRules::default(), &bounds()).unwrap_or_else(|p| panic!("{p:?}"))
        };
        let request = of("request", "1", r#"{"data":{"ndarray":[[1]]}}"#);
        let response = of("response", "2", r#"{"data":{"names":["p"],"ndarray":[[0.25]]},"meta":{}}"#);
        assert_eq!(request.key(), response.key());
        let call = pair(&request, &response, &bounds()).unwrap_or_else(|p| panic!("{p:?}"));
        assert_eq!((call.request_id.as_str(), call.version.as_str(), call.outputs["p"]), ("puid-1", "canary", 0.25));
        assert_eq!(call.latency_us, None);
    }

    /// No bytes cause a panic.
    #[test]
    fn any_body_is_read() {
        let bodies: [&[u8]; 6] =
            [b"", b"\xff\xfe", b"{\"outputs\":[[[[]]]]}", b"{\"predictions\":7}", b"null", &[b'['; 5000]];
        for body in bodies {
            let headers = REQUEST.iter().chain(&RESPONSE).map(|(name, value)| (*name, value.as_bytes()));
            drop(Half::of(&Event::binary(headers, body, true), &DoorRules::default(), &bounds()));
        }
    }
}
