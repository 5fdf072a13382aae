//! Parses JSON bodies into predictions and feedback. Unknown members are ignored. A known member with a wrong type is refused.

use crate::Code;
use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::{Attributes, Bounds, LONGEST_TEXT, Refusal, check_latency, lenient, strict::Strict};
use crate::{
    ids::{EventTime, Generation, Span},
    records::{Arm, Assignment, Batch, Feedback, Origin, Prediction, Writer},
};

/// Members of which a number that is not finite is not the same as a missing one: a time that is missing is that of the arrival.
const NOT_NULL: [&str; 4] = ["completed_at", "observed_at", "time", "revision"];
/// Maximum number of reported problems per body.
const MOST_PROBLEMS: usize = 20;

/// Parses a body. What is not JSON but has a clear meaning is accepted ([`lenient`]). Numbers that are not finite are read as null, except
/// times and revisions, which are then refused.
///
/// # Errors
/// Returns what is wrong with the JSON, and where. An object with the same key twice is refused.
pub fn parse(body: &[u8]) -> Result<Value, Refusal> {
    lenient::read_with_nulls(body, &NOT_NULL).map(|Strict(value)| value).map_err(|error| {
        let mut message = if error.is_data() { error.to_string() } else { format!("the body is not JSON: {error}") };
        if let Some(confluent) = confluent(body) {
            message = confluent;
        }
        Refusal::new(Code::Garbage, message)
    })
}

/// Returns a message if the body starts as Confluent's serializers write it: with a zero byte and the id of a schema.
pub fn confluent(body: &[u8]) -> Option<String> {
    let [0, id @ ..] = body.get(..5)? else { return None };
    let id = u32::from_be_bytes(id.try_into().ok()?);
    Some(format!(
        "the body starts with the five bytes of Confluent's serializers (a zero byte and schema id {id}); send only the \
         body, with a serializer that does not use a schema registry"
    ))
}

/// Reads a prediction. A body without a time gets the time of the envelope, or the time of the door.
///
/// # Errors
/// Returns all problems, at least one.
pub fn prediction(value: &Value, about: &Attributes, bounds: &Bounds) -> Result<Prediction, Vec<Refusal>> {
    let mut body = Body::of(value)?;
    let mirror_of = body.text(&["mirror_of"]);
    let request_id = mirror_of.clone().unwrap_or_else(|| body.id(about.id.as_deref()));
    let named = body.text(&["arm"]);
    let arm = match named.as_deref() {
        _ if mirror_of.is_some() => Arm::Shadow,
        None | Some("stable" | "pinned") => Arm::Stable,
        Some("control") => Arm::Control,
        Some("canary") => Arm::Canary,
        Some("shadow") => Arm::Shadow,
        Some(_) => {
            body.bad("arm", "stable, control, canary, shadow or pinned");
            Arm::Stable
        }
    };
    let pinned = named.as_deref() == Some("pinned") || body.text(&["assignment"]).as_deref() == Some("pinned");
    let latency = body.number("latency_ms");
    check_latency(latency, &mut body.problems);
    let latency_us = latency.map(|latency| (latency * 1e3) as i64);
    let completed = |arrived: EventTime| arrived.plus(Span(latency_us.unwrap_or(0)));
    let completed_at = bounds.or_now(body.time("completed_at").or_else(|| about.time.map(completed)));
    let mut outputs = Values::default();
    body.add_all("outputs", &mut outputs);
    body.add_all("classes", &mut outputs);
    let unusable = outputs.null.then(|| "null".to_owned());
    let segments = body.map("segments").into_iter().flatten().filter_map(|(name, value)| match value {
        Value::String(text) => Some((name.clone(), text.clone())),
        Value::Number(_) | Value::Bool(_) => Some((name.clone(), value.to_string())),
        _ => None,
    });
    let segments = segments.collect();
    let model = body.text(&["model"]).or_else(|| about.subject.clone()).unwrap_or_default();
    let unit = body.unit(&model);
    let status = body.integer(&["status"]).map(|status| i32::try_from(status).unwrap_or(i32::MAX));
    let prediction = Prediction {
        request_id: request_id.into(),
        model: model.into(),
        version: body.text(&["version"]).unwrap_or_default().into(),
        arm,
        assignment: if pinned { Assignment::Pinned } else { Assignment::External },
        origin: Origin::Intake,
        rollout: body.text(&["rollout"]).map(Into::into),
        generation: Generation(body.integer(&["generation", "routing_epoch"]).unwrap_or(0)),
        completed_at,
        latency_us,
        status,
        error: body.text(&["error", "error_type"]),
        invalid_output: body.text(&["invalid_output"]).or(unusable),
        unit,
        outputs: outputs.numbers,
        classes: outputs.texts,
        segments,
        writer: Writer::default(),
        outcome: None,
        unread: None,
        batch: None,
    };
    body.finish(bounds.check_prediction(&prediction)).map(|()| prediction)
}

/// Reads feedback. Values without their own name are named `truth`, `reward` or `label`.
///
/// # Errors
/// Returns all problems, at least one.
pub fn feedback(value: &Value, about: &Attributes, bounds: &Bounds) -> Result<Feedback, Vec<Refusal>> {
    let mut body = Body::of(value)?;
    let request_id = body.id(about.correlation.as_deref());
    let mut values = Values { lists_of: Some(&request_id), ..Values::default() };
    body.add_all("values", &mut values);
    body.add_all("classes", &mut values);
    match body.get(&["truth"]) {
        Some(Value::Object(_)) => body.add_all("truth", &mut values),
        Some(truth) => body.add("truth", "truth", truth, &mut values),
        None => {}
    }
    for name in ["reward", "label"] {
        if let Some(value) = body.get(&[name]) {
            body.add(name, name, value, &mut values);
        }
    }
    if let Some(score) = body.map("score") {
        let name = score.get("name").and_then(Value::as_str).unwrap_or("score");
        body.add("score.value", name, score.get("value").unwrap_or(&Value::Null), &mut values);
    }
    let is_of_drawn_row = body.is_of_drawn_row(&request_id, values.rows);
    // One row's labels of a batch are used. Those of other rows are valid, but there is nothing to write.
    let may_be_empty = !is_of_drawn_row || values.rows.is_some() && values.null;
    let Values { numbers, texts, .. } = if is_of_drawn_row { values } else { Values::default() };
    let feedback = Feedback {
        request_id: request_id.into(),
        observed_at: bounds.or_now(body.time("observed_at").or(about.time)),
        revision: body.integer(&["revision"]).unwrap_or(0),
        values: numbers,
        classes: texts,
        writer: Writer::default(),
        credential: None,
    };
    let mut problems = bounds.check_feedback(&feedback);
    problems.retain(|problem| !may_be_empty || problem.code != Code::NoTruth);
    body.finish(problems).map(|()| feedback)
}

/// Parses a finite number, written as in JSON or nearly so.
fn number_in(text: &str) -> Option<f64> {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    // `inf`, `nan` and the like are strings.
    let is_number = digits.starts_with(|c: char| c.is_ascii_digit() || c == '.');
    text.parse().ok().filter(|number: &f64| is_number && number.is_finite())
}

/// Whether a string is the word for a number that is not finite, as Python and C++ write it.
fn is_not_finite(text: &str) -> bool {
    !text.contains(|c: char| c.is_ascii_digit()) && text.parse().is_ok_and(|number: f64| !number.is_finite())
}

/// A whole number. Clients may write it with a fraction of zero.
fn whole(value: &Value) -> Option<i64> {
    const EXACT: f64 = (1_u64 << 53) as f64;
    let of_float = || value.as_f64().filter(|number| number.fract() == 0.0 && number.abs() < EXACT);
    value.as_i64().or_else(|| of_float().map(|number| number as i64))
}

/// The members of a body, and the problems found so far.
struct Body<'a> {
    members: &'a Map<String, Value>,
    problems: Vec<Refusal>,
}

/// Numbers and strings by name.
#[derive(Default)]
struct Values<'a> {
    /// The call whose rows a list has the values of; `None` where lists are not accepted.
    lists_of: Option<&'a str>,
    /// The length of the lists.
    rows: Option<usize>,
    numbers: BTreeMap<String, f64>,
    texts: BTreeMap<String, String>,
    /// Whether one of the values is null, and so cannot be used.
    null: bool,
}

impl<'a> Body<'a> {
    fn of(value: &'a Value) -> Result<Self, Vec<Refusal>> {
        let members = value.as_object();
        members
            .map(|members| Self { members, problems: Vec::new() })
            .ok_or_else(|| vec![Refusal::new(Code::Garbage, "body: expected a JSON object")])
    }

    fn bad(&mut self, member: &str, expected: &str) {
        if self.problems.len() >= MOST_PROBLEMS {
            return;
        }
        self.problems.push(Refusal::new(Code::BadValue, format!("{member}: expected {expected}")));
    }

    /// Returns all problems, one per member: first those of members that could not be read, then `found` in the record.
    fn finish(self, found: Vec<Refusal>) -> Result<(), Vec<Refusal>> {
        let mut problems = self.problems;
        let member = |problem: &Refusal| problem.message.split([':', '.']).next().unwrap_or_default().to_owned();
        let known: Vec<String> = problems.iter().map(member).collect();
        problems.extend(found.into_iter().filter(|problem| !known.contains(&member(problem))));
        if problems.is_empty() { Ok(()) } else { Err(problems) }
    }

    /// The first of these members that is present and not null.
    fn get(&self, names: &[&str]) -> Option<&'a Value> {
        names.iter().filter_map(|name| self.members.get(*name)).find(|value| !value.is_null())
    }

    /// A string. A whole number is read as its digits.
    fn text(&mut self, names: &[&str]) -> Option<String> {
        let text = match self.get(names)? {
            Value::String(text) => text.clone(),
            Value::Number(number) if !number.is_f64() => number.to_string(),
            _ => {
                self.bad(names[0], "a string");
                return None;
            }
        };
        Some(text).filter(|text| !text.is_empty())
    }

    /// The unit (user, session, account): the hash of a string or a number. A whole number is the same unit in every spelling: `7`,
    /// `7.0`, `"7"`.
    fn unit(&mut self, model: &str) -> Option<i64> {
        let unit = match self.get(&["unit"])? {
            // An empty text counts as missing, as for all members.
            Value::String(text) if text.is_empty() => return None,
            Value::String(text) if text.len() > LONGEST_TEXT => None,
            Value::String(text) => Some(text.clone()),
            Value::Number(number) => match number.as_f64() {
                Some(value) if number.is_f64() && value.fract() == 0.0 && value.abs() < 1e15 => {
                    Some((value as i64).to_string())
                }
                _ => Some(number.to_string()),
            },
            _ => None,
        };
        if unit.is_none() {
            self.bad("unit", &format!("a string of 1 to {LONGEST_TEXT} bytes, or a number"));
        }
        unit.map(|unit| serin_sketches::hash::unit(model, &unit))
    }

    /// The id of the prediction or, if there is none, the id in the envelope.
    fn id(&mut self, from_envelope: Option<&str>) -> String {
        let known = self.problems.len();
        let own = self.text(&["prediction_id", "request_id"]);
        let refused = self.problems.len() > known;
        own.or_else(|| from_envelope.filter(|_| !refused).map(str::to_owned)).unwrap_or_default()
    }

    fn number(&mut self, name: &str) -> Option<f64> {
        let number = self.get(&[name])?.as_f64();
        if number.is_none() {
            self.bad(name, "a number");
        }
        number
    }

    fn integer(&mut self, names: &[&str]) -> Option<i64> {
        let number = whole(self.get(names)?);
        if number.is_none() {
            self.bad(names[0], "a whole number");
        }
        number
    }

    /// Whether the labels are those of the drawn row. `row` and `rows` name a row of a batch; lists, if there are any, have a value for
    /// each. Labels without both hold for every row.
    fn is_of_drawn_row(&mut self, request_id: &str, lists: Option<usize>) -> bool {
        let (row, rows) = (self.integer(&["row"]), self.integer(&["rows"]));
        let whole = |number: i64| usize::try_from(number).ok();
        match (row, rows.or_else(|| lists.and_then(|rows| i64::try_from(rows).ok()))) {
            (None, rows) => {
                let rows = rows.and_then(whole);
                if lists.is_some() && rows != lists {
                    self.bad("rows", "the number of values in each list");
                }
                true
            }
            (Some(_), _) if lists.is_some() => {
                self.bad("row", "no row next to a list, which has the values of all rows");
                true
            }
            (Some(_), None) => {
                self.bad("rows", "the number of rows of the answer, next to `row`");
                true
            }
            (Some(row), Some(rows)) => {
                let (row, rows) = (whole(row), whole(rows).unwrap_or(0));
                if row.is_none_or(|row| row >= rows) {
                    self.bad("row", "a row from 0 to below `rows`");
                    return true;
                }
                row == Some(Batch::drawn(request_id, rows))
            }
        }
    }

    /// Microseconds since 1970, or RFC 3339.
    fn time(&mut self, name: &str) -> Option<EventTime> {
        let time = match self.get(&[name])? {
            Value::String(text) => EventTime::from_rfc3339(text),
            value => whole(value).map(EventTime),
        };
        if time.is_none() {
            self.bad(name, "microseconds since 1970 as a whole number, or an RFC 3339 time");
        }
        time
    }

    fn map(&mut self, name: &str) -> Option<&'a Map<String, Value>> {
        let map = self.get(&[name])?.as_object();
        if map.is_none() {
            self.bad(name, "an object");
        }
        map
    }

    fn add_all(&mut self, member: &str, to: &mut Values<'_>) {
        for (name, value) in self.map(member).into_iter().flatten() {
            self.add(&format!("{member}.{name}"), name, value, to);
        }
    }

    /// Adds one value. `place` is its name in a problem.
    fn add(&mut self, place: &str, name: &str, value: &Value, to: &mut Values<'_>) {
        match value {
            Value::Null => to.null = true,
            // The router also reads such an output of an answer as missing. A label may be any word.
            Value::String(text) if place.starts_with("outputs.") && is_not_finite(text) => to.null = true,
            Value::Bool(yes) => drop(to.numbers.insert(name.to_owned(), f64::from(u8::from(*yes)))),
            // Every JSON number can be converted.
            Value::Number(number) => drop(to.numbers.insert(name.to_owned(), number.as_f64().unwrap_or(f64::NAN))),
            Value::String(text) => {
                // As in answers that a router reads, a number may be written as a string. The metric determines which one is used.
                if let Some(number) = number_in(text) {
                    to.numbers.insert(name.to_owned(), number);
                }
                to.texts.insert(name.to_owned(), text.clone());
            }
            Value::Array(items) if !items.is_empty() && to.lists_of.is_some() => {
                let rows = *to.rows.get_or_insert(items.len());
                let item = &items[Batch::drawn(to.lists_of.unwrap_or_default(), items.len())];
                let shown: String = place.chars().take(100).collect();
                if rows != items.len() {
                    self.bad(
                        &shown,
                        &format!("a list of {rows} values like the other lists, one per row of the answer"),
                    );
                } else if item.is_array() {
                    self.bad(&shown, "one value per row of the answer, not a list in a list");
                } else {
                    self.add(place, name, item, to);
                }
            }
            Value::Array(_) | Value::Object(_) => {
                let place: String = place.chars().take(100).collect();
                let found = if value.is_array() { "a list" } else { "an object" };
                let expected =
                    format!("a number, a string or a truth value, not {found}; send each value under its own name");
                self.bad(&place, &expected);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// 2025-11-30T05:20:00Z.
    const NOW: EventTime = EventTime(1_764_480_000_000_000);
    const MINUTES: Span = Span(600_000_000);

    fn bounds() -> Bounds {
        Bounds::new(Some(NOW), NOW, MINUTES)
    }

    fn reasons<T>(read: Result<T, Vec<Refusal>>) -> Vec<String> {
        read.err().unwrap_or_default().into_iter().map(|problem| format!("{} {problem}", problem.code)).collect()
    }

    fn predict(value: &Value) -> Result<Prediction, Vec<Refusal>> {
        prediction(value, &Attributes::default(), &bounds())
    }

    fn label(value: &Value) -> Result<Feedback, Vec<Refusal>> {
        feedback(value, &Attributes::default(), &bounds())
    }

    #[test]
    fn bare_nan_is_null_and_strings_are_unchanged() {
        let value = parse(br#"{"a": NaN, "b": [-Infinity, 1], "NaN\" ": "Infinity NaN \\"}"#).unwrap();
        assert_eq!(value, json!({"a": null, "b": [null, 1], "NaN\" ": "Infinity NaN \\"}));
        assert_eq!(parse(b"[NaN]").unwrap(), json!([null]));
        assert_eq!(parse(b"{\"a\": NaN").unwrap_err().code.as_str(), "garbage");
        assert_eq!(parse(b"{\"a\\").unwrap_err().code.as_str(), "garbage");
        assert_eq!(parse(b"\xef\xbb\xbf{}").unwrap(), json!({}));
    }

    #[test]
    fn the_bytes_of_confluents_serializers_are_reported() {
        let found = parse(b"\0\0\0\0\x2a{\"prediction_id\":\"a\"}").unwrap_err();
        assert!(found.message.contains("Confluent") && found.message.contains("schema id 42"), "{found}");
        assert_eq!((confluent(b"\0\0\0"), confluent(b"{\"a\":1}")), (None, None));
    }

    #[test]
    fn a_unit_is_a_text_or_a_number_and_its_hash_is_kept() {
        let unit = |unit: Value| {
            let body = json!({"prediction_id": "a", "model": "m", "version": "v1", "unit": unit});
            predict(&body).map(|prediction| prediction.unit).map_err(|problems| problems[0].message.clone())
        };
        let hash = |id: &str| Ok(Some(serin_sketches::hash::unit("m", id)));
        for same in [json!("42"), json!(42), json!(42.0)] {
            assert_eq!(unit(same.clone()), hash("42"), "{same}");
        }
        assert_eq!(unit(json!(u64::MAX)), hash("18446744073709551615"));
        assert_eq!(unit(json!(-7)), hash("-7"));
        assert_eq!(unit(json!("Zoë")), hash("Zoë"));
        assert_eq!((unit(json!(null)), unit(json!(""))), (Ok(None), Ok(None)));
        assert_eq!(unit(json!("u".repeat(256))), hash(&"u".repeat(256)));
        for bad in [json!("u".repeat(257)), json!(true), json!([1]), json!({})] {
            assert_eq!(
                unit(bad.clone()).unwrap_err(),
                "unit: expected a string of 1 to 256 bytes, or a number",
                "{bad}"
            );
        }
    }

    #[test]
    fn every_form_of_a_prediction_is_accepted() {
        let read = predict(&json!({
            "prediction_id": 17, "model": "m", "version": 2, "arm": "pinned", "latency_ms": 1.5, "status": 200,
            "outputs": {"p": true, "q": null, "r": 0.5, "c": "x"}, "segments": {"n": 3, "o": null},
            "completed_at": "2025-11-30T05:19:00Z", "something": {"else": [1]}
        }))
        .unwrap();
        assert_eq!((read.request_id.as_str(), read.version.as_str()), ("17", "2"));
        assert_eq!((read.arm, read.assignment), (Arm::Stable, Assignment::Pinned));
        assert_eq!((read.latency_us, read.outputs["p"], read.classes["c"].as_str()), (Some(1500), 1.0, "x"));
        assert_eq!((read.invalid_output.as_deref(), read.segments["n"].as_str()), (Some("null"), "3"));
        assert_eq!(predict(&json!({"prediction_id": "a", "model": "m", "version": "1"})).unwrap().completed_at, NOW);
    }

    #[test]
    fn every_form_of_feedback_is_accepted() {
        for (body, name, value) in [
            (json!({"label": true}), "label", 1.0),
            (json!({"reward": 0.5}), "reward", 0.5),
            (json!({"truth": 3}), "truth", 3.0),
            (json!({"truth": {"late": false}}), "late", 0.0),
            (json!({"score": {"name": "rating", "value": 4}}), "rating", 4.0),
            (json!({"score": {"value": 4}}), "score", 4.0),
            (json!({"values": {"late": 1, "none": null}}), "late", 1.0),
        ] {
            let mut body = body;
            body["request_id"] = json!(7);
            let read = label(&body).unwrap();
            assert_eq!((read.request_id.as_str(), read.values[name], read.revision), ("7", value, 0), "{body}");
        }
        assert_eq!(label(&json!({"prediction_id": "a", "label": "fraud"})).unwrap().classes["label"], "fraud");
    }

    #[test]
    fn a_number_written_as_a_text_is_a_number_and_a_class() {
        for (text, number) in [("1", 1.0), ("0.5", 0.5), ("-3", -3.0), ("1e3", 1000.0), ("+7", 7.0), (".5", 0.5)] {
            for body in [json!({"values": {"x": text}}), json!({"truth": {"x": text}}), json!({"classes": {"x": text}})]
            {
                let mut body = body;
                body["prediction_id"] = json!("a");
                let read = label(&body).unwrap();
                assert_eq!((read.values["x"], read.classes["x"].as_str()), (number, text), "{body}");
            }
        }
        for word in ["fraud", "NaN", "inf", "-infinity", "1e999", "1 EUR", "0x10", "", "-", "1,5"] {
            let read = label(&json!({"prediction_id": "a", "values": {"x": word}})).unwrap();
            assert_eq!((read.values.get("x"), read.classes["x"].as_str()), (None, word));
        }
    }

    #[test]
    fn an_invalid_value_is_reported_with_its_name_and_how_to_fix_it() {
        let of = |value: Value| reasons(label(&json!({"prediction_id": "a", "values": {"fraud": value}}))).concat();
        for (value, found) in [(json!([]), "a list"), (json!({"is": 1}), "an object"), (json!([{}]), "an object")] {
            let expected = format!(
                "bad_value values.fraud: expected a number, a string or a truth value, not {found}; send each value under its \
                 own name"
            );
            assert!(of(value).starts_with(&expected));
        }
        assert!(of(json!(null)).ends_with("send values, classes, truth, reward, label or score, and not null"));
        for valid in [json!(true), json!(false), json!(1e300), json!(u64::MAX), json!(-0.0), json!("1")] {
            assert_eq!(of(valid), "");
        }
        let huge = parse(br#"{"prediction_id": "a", "values": {"fraud": 1e999}}"#).unwrap();
        assert_eq!(huge["values"]["fraud"], Value::Null, "as NaN");
    }

    #[test]
    fn a_doubled_key_is_refused_at_any_depth() {
        for body in [
            r#"{"prediction_id":"p","values":{"fraud":1,"fraud":0}}"#,
            r#"[{"id":1},{"id":1,"x":[{"a":null,"a":null}]}]"#,
            r#"{"a":1,"\u0061":1}"#,
            r#"{"a":NaN,"a":1}"#,
        ] {
            let refusal = parse(body.as_bytes()).unwrap_err();
            assert!(refusal.message.contains("occurs twice in one object at line 1"), "{body}: {}", refusal.message);
        }
        let body = r#"[{"a":-1,"b":[1.5,true,null,"x"],"c":{"a":18446744073709551615}},{"a":0}]"#;
        assert_eq!(parse(body.as_bytes()).unwrap(), serde_json::from_str::<Value>(body).unwrap());
    }

    #[test]
    fn of_the_labels_of_a_batch_those_of_the_drawn_row_are_used() {
        let id = "call-7";
        let drawn = Batch::drawn(id, 64);
        let list: Vec<usize> = (0..64).collect();
        let texts: Vec<String> = list.iter().map(|row| format!("c{row}")).collect();
        for body in [
            json!({"values": {"fraud": list}, "classes": {"kind": texts}}),
            json!({"values": {"fraud": list, "kind": texts}, "rows": 64}),
            json!({"values": {"fraud": drawn, "kind": format!("c{drawn}")}, "row": drawn, "rows": 64}),
        ] {
            let mut body = body;
            body["prediction_id"] = json!(id);
            let read = label(&body).unwrap();
            assert_eq!((read.values["fraud"], &read.classes["kind"]), (drawn as f64, &format!("c{drawn}")), "{body}");
        }
        for name in ["label", "truth", "reward"] {
            let read = label(&json!({"prediction_id": id, name: list})).unwrap();
            assert_eq!(read.values, [(name.to_owned(), drawn as f64)].into());
        }
        // A label of another row is accepted, and has no values.
        let other = (drawn + 1) % 64;
        let read = label(&json!({"prediction_id": id, "label": 1, "row": other, "rows": 64})).unwrap();
        assert!(read.values.is_empty() && read.classes.is_empty());
        let unknown: Vec<Value> = (0..64).map(|row| if row == drawn { Value::Null } else { json!(1) }).collect();
        assert!(label(&json!({"prediction_id": id, "label": unknown})).unwrap().values.is_empty());
        let one = label(&json!({"prediction_id": id, "label": [1], "row": null})).unwrap();
        assert_eq!(one.values, [("label".to_owned(), 1.0)].into());
    }

    #[test]
    fn rows_that_do_not_fit_are_refused() {
        for (body, expected) in [
            (json!({"label": 1, "row": 3}), "rows: expected the number of rows of the answer, next to `row`"),
            (json!({"label": 1, "row": 3, "rows": 3}), "row: expected a row from 0 to below `rows`"),
            (json!({"label": 1, "row": -1, "rows": 3}), "row: expected a row from 0 to below `rows`"),
            (json!({"label": 1, "row": 0.5, "rows": 3}), "row: expected a whole number"),
            (json!({"label": 1, "row": 0, "rows": 0}), "row: expected a row from 0 to below `rows`"),
            (json!({"label": [1, 0], "row": 0}), "row: expected no row next to a list"),
            (json!({"label": [1, 0], "rows": 3}), "rows: expected the number of values in each list"),
            (json!({"label": [1, 0], "reward": [1]}), "expected a list of 1 values like the other lists"),
            (json!({"label": [[1], [0]]}), "label: expected one value per row of the answer"),
            (json!({"label": []}), "label: expected a number, a string or a truth value, not a list"),
        ] {
            let mut body = body;
            body["prediction_id"] = json!("a");
            let found = reasons(label(&body)).concat();
            assert!(found.contains(expected), "{body}: {found}");
        }
        // Answers of other systems have one value per output.
        let found =
            reasons(predict(&json!({"prediction_id": "a", "model": "m", "version": "1", "outputs": {"p": [1]}})));
        assert!(found.concat().contains("not a list"), "{found:?}");
    }

    #[test]
    fn an_impossible_id_is_refused_with_an_example() {
        let of = |id: &str| reasons(label(&json!({"prediction_id": id, "label": 1}))).concat();
        for (id, why) in [
            (
                "...",
                "prediction_id: \"...\" has no letter or digit; send the `x-prediction-id` of the answer, such as 01a1",
            ),
            ("<>", "\"<>\" has no letter"),
            ("\u{2026}", "has no letter"),
            (" ", "has no letter"),
            ("p-1\r", "\"p-1\\r\" has a control character, such as a line break"),
            ("p\u{0}1", "has a control character"),
            (" p-1", "starts or ends with a space"),
            ("p-1 ", "starts or ends with a space"),
        ] {
            let problem = of(id);
            assert!(problem.starts_with("bad_id prediction_id: ") && problem.contains(why), "{id:?}: {problem}");
        }
        for id in ["p-1", "7", "a b", "Zoë", "01a1fdf2-e203-7756-a29c-be600cee7e09", "$ID", "{id}"] {
            assert_eq!(of(id), "", "{id}");
        }
    }

    #[test]
    fn every_problem_is_reported_and_starts_with_its_member() {
        let read = predict(&json!({
            "prediction_id": [1], "model": "m".repeat(300), "arm": "blue", "latency_ms": -1.0, "status": 1000,
            "outputs": {"p": [1]}, "classes": 3, "completed_at": "soon", "generation": 0.5
        }));
        assert_eq!(
            reasons(read),
            [
                "bad_value prediction_id: expected a string",
                "bad_value arm: expected stable, control, canary, shadow or pinned",
                "negative_latency latency_ms: -1; a latency cannot be negative",
                "bad_value completed_at: expected microseconds since 1970 as a whole number, or an RFC 3339 time",
                "bad_value outputs.p: expected a number, a string or a truth value, not a list; send each value under its \
                 own name",
                "bad_value classes: expected an object",
                "bad_value generation: expected a whole number",
                "bad_value model: has 300 bytes; the maximum is 256",
                "missing_version version: is missing",
                "bad_value status: expected 0 to 999",
            ]
        );
        assert_eq!(
            reasons(label(&json!({"values": {"a": null}}))),
            [
                "missing_id prediction_id: is missing; the record cannot be joined without it",
                "no_truth values: the feedback has no value; send values, classes, truth, reward, label or score, and not null",
            ]
        );
        for latency in [1e300, 1e9 + 1.0] {
            let read = predict(&json!({"prediction_id": "a", "model": "m", "version": "1", "latency_ms": latency}));
            assert!(reasons(read)[0].starts_with("bad_value latency_ms: "));
        }
    }

    #[test]
    fn a_time_in_another_unit_is_refused_with_the_likely_unit() {
        let seconds = NOW.0 / 1_000_000;
        let of = |time: Value| {
            let event =
                reasons(predict(&json!({"prediction_id": "a", "model": "m", "version": "1", "completed_at": time})));
            let truth = reasons(label(&json!({"prediction_id": "a", "label": 1, "observed_at": time})));
            assert_eq!(event.len(), truth.len(), "{time}");
            assert!(event.iter().all(|reason| reason.contains(" completed_at: ")), "{event:?}");
            assert!(truth.iter().all(|reason| reason.contains(" observed_at: ")), "{truth:?}");
            event.concat()
        };
        assert_eq!(of(json!(NOW.0)), "");
        assert_eq!(
            of(json!(seconds * 1000)),
            "bad_time completed_at: 1764480000000 is 1970-01-21T10:08:00Z in microseconds, so it looks like \
             milliseconds; send microseconds since 1970, or an RFC 3339 time"
        );
        assert!(of(json!(seconds)).contains("looks like seconds"));
        assert!(of(json!(NOW.0 * 1000)).contains("looks like nanoseconds"));
        for time in [json!(0), json!(-5), json!(i64::MAX), json!(i64::MIN), json!("1970-01-21T10:08:00Z"), json!(7)] {
            assert!(of(time.clone()).starts_with("bad_time "), "{time}");
        }
        assert_eq!(of(json!(NOW.0 as f64)), "", "a whole number");
        for word in ["NaN", "-nan", "Infinity", "1e400"] {
            for (member, written) in [("completed_at", " :  "), ("observed_at", ":")] {
                let body =
                    format!(r#"{{"prediction_id":"a","model":"m","version":"1","label":1,"{member}"{written}{word}}}"#);
                let body = parse(body.as_bytes()).unwrap();
                let found = if member == "observed_at" { reasons(label(&body)) } else { reasons(predict(&body)) };
                assert_eq!(
                    found,
                    [format!(
                        "bad_value {member}: expected microseconds since 1970 as a whole number, or an RFC 3339 time"
                    )],
                    "{word}"
                );
            }
            let body = format!(r#"{{"prediction_id":"a","label":1,"revision":{word}}}"#);
            assert_eq!(
                reasons(label(&parse(body.as_bytes()).unwrap())),
                ["bad_value revision: expected a whole number"]
            );
        }
        assert_eq!(
            of(json!("0001-01-01T00:00:00Z")),
            "bad_time completed_at: 0001-01-01T00:00:00Z is before 1973-03-03T09:46:40Z, so it is not the time of a call or a label; send \
             microseconds since 1970, or an RFC 3339 time"
        );
        for time in [json!(1_764_480_000.5), json!("1764480000"), json!(true), json!(u64::MAX)] {
            assert!(of(time.clone()).starts_with("bad_value completed_at: expected"), "{time}");
        }
        assert_eq!(of(json!(NOW.0 + MINUTES.0)), "");
        assert!(
            of(json!(NOW.0 + MINUTES.0 + 1))
                .starts_with("far_future completed_at: 2025-11-30T05:30:00.000001Z is more")
        );
        for far in ["9999-12-31T23:59:59Z", "6000-01-01T00:00:00Z", "3000-01-01T00:00:00Z"] {
            assert_eq!(
                of(json!(far)),
                format!("far_future completed_at: {far} is more than 10 minutes ahead of the clock here")
            );
        }
        // A backfill from years ago is accepted.
        assert_eq!(of(json!("2013-01-01T00:00:00Z")), "");
    }

    #[test]
    fn words_for_missing_numbers_make_an_answer_unusable() {
        let of = |outputs: &str, classes: &str| {
            let body = format!(
                r#"{{"prediction_id":"a","model":"m","version":"1","outputs":{{"p":{outputs}}},"classes":{{"c":{classes}}}}}"#
            );
            predict(&parse(body.as_bytes()).unwrap()).unwrap()
        };
        for word in ["NaN", "nan", "-nan", "inf", "-Infinity", "1e400", "null", "\"NaN\"", "\"inf\"", "\"-nan\""] {
            let read = of(word, "\"x\"");
            assert_eq!((read.invalid_output.as_deref(), read.outputs.len()), (Some("null"), 0), "{word}");
            assert_eq!(read.classes, [("c".to_owned(), "x".to_owned())].into(), "{word}");
        }
        for word in ["\"Buzz: to Infinity\"", "\"nano\"", "\"7\"", "\"\""] {
            assert_eq!(of(word, "\"nan\"").invalid_output, None, "{word}");
        }
        let deep = format!("{}{}", "[".repeat(200), "]".repeat(200));
        let list = format!(r#"[{{"label":1,"x":{deep}}},{{"label":1,"x":"\ud83d"}},{{"label":1e400}},{{"label":2}}]"#);
        assert_eq!(parse(list.as_bytes()).unwrap().as_array().map(Vec::len), Some(4));
    }

    #[test]
    fn a_simulated_clock_may_be_in_1970() {
        let bounds = Bounds::new(Some(EventTime(5_000_000)), EventTime(5_000_000), MINUTES);
        let body = json!({"prediction_id": "a", "label": 1, "observed_at": 7, "revision": 3});
        assert!(feedback(&body, &Attributes::default(), &bounds).is_ok());
    }

    #[test]
    fn every_revision_can_be_exceeded_later() {
        let of =
            |revision: Value| reasons(label(&json!({"prediction_id": "a", "label": 1, "revision": revision}))).concat();
        for revision in [0, 1, 1_764_480_000, 1_764_480_000_000, NOW.0] {
            assert_eq!(of(json!(revision)), "", "{revision}");
        }
        for revision in [-1, i64::MIN, i64::MAX, NOW.0 * 1000, 1 << 53] {
            assert!(of(json!(revision)).starts_with("bad_revision revision: "), "{revision}");
        }
        for revision in [json!(0.5), json!("1"), json!(u64::MAX), json!(1e30)] {
            assert_eq!(of(revision), "bad_value revision: expected a whole number");
        }
    }

    #[test]
    fn one_feedback_has_at_most_the_values_that_the_aggregator_accepts() {
        let of = |values: usize, classes: usize| {
            let values: Map<String, Value> = (0..values).map(|n| (format!("v{n}"), json!(n))).collect();
            let classes: Map<String, Value> = (0..classes).map(|n| (format!("c{n}"), json!("x"))).collect();
            reasons(label(&json!({"prediction_id": "a", "values": values, "classes": classes}))).concat()
        };
        assert_eq!((of(64, 0), of(32, 32)), (String::new(), String::new()));
        for (values, classes) in [(65, 0), (64, 1), (64, 64), (1, 64)] {
            let problems = of(values, classes);
            assert!(problems.starts_with("too_many_values values: "), "{values} {classes}");
            assert_eq!(problems.matches("too_many_values").count(), 1, "{problems}");
        }
    }

    #[test]
    fn the_envelope_provides_what_the_body_leaves_out() {
        let about = Attributes {
            id: Some("e".to_owned()),
            subject: Some("m".to_owned()),
            time: Some(EventTime(NOW.0 - 1_000_000)),
            correlation: Some("p".to_owned()),
        };
        let read = prediction(&json!({"version": "1", "latency_ms": 2}), &about, &bounds()).unwrap();
        assert_eq!((read.request_id.as_str(), read.model.as_str()), ("e", "m"));
        assert_eq!(read.completed_at, EventTime(NOW.0 - 998_000));
        let read = feedback(&json!({"label": 1}), &about, &bounds()).unwrap();
        assert_eq!((read.request_id.as_str(), read.observed_at.0), ("p", NOW.0 - 1_000_000));
    }
}
