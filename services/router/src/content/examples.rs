//! Pairs of live and mirrored answers that are kept as examples: their differences, and which parts may be kept. Pure.

use serde_json::Value;
use serin_schemas::records::{CapturedAnswer, Prediction};

/// Replaces values that must not be kept.
const REDACTED: &str = "[redacted]";

/// One answer with its body.
#[derive(Clone, Debug)]
pub(crate) struct Answered {
    pub(crate) prediction: Prediction,
    /// The whole body; `None` if it was too large to keep.
    pub(crate) body: Option<Vec<u8>>,
    /// Length of the body.
    pub(crate) bytes: u64,
}

impl Answered {
    /// The answer as it is stored.
    pub(crate) fn captured(&self, redact: &[String], most: usize) -> CapturedAnswer {
        let Prediction { version, arm, status, error, latency_us, .. } = &self.prediction;
        CapturedAnswer {
            version: version.clone(),
            arm: *arm,
            status: *status,
            error: error.clone(),
            latency_us: *latency_us,
            body: self.body.as_deref().and_then(|body| keep(body, redact, most)),
            bytes: i64::try_from(self.bytes).unwrap_or(i64::MAX),
        }
    }
}

/// The differences between two answers to one call, one line each. Numbers that differ by at most `tolerance` are equal.
pub(crate) fn differences(live: &Prediction, shadow: &Prediction, tolerance: f64) -> Vec<String> {
    let mut found = Vec::new();
    let or_ok = |text: &Option<String>| text.clone().unwrap_or_else(|| "ok".to_owned());
    if live.error != shadow.error {
        found.push(format!("error: {} against {}", or_ok(&live.error), or_ok(&shadow.error)));
        return found;
    }
    if live.status != shadow.status {
        let status = |status: Option<i32>| status.map_or_else(|| "none".to_owned(), |status| status.to_string());
        found.push(format!("status: {} against {}", status(live.status), status(shadow.status)));
    }
    if live.invalid_output != shadow.invalid_output {
        found.push(format!("usable: {} against {}", or_ok(&live.invalid_output), or_ok(&shadow.invalid_output)));
    }
    if live.unread != shadow.unread {
        found.push(format!("read: {} against {}", or_ok(&live.unread), or_ok(&shadow.unread)));
    }
    let of_rules = |name: &&String| !name.starts_with("response.");
    for name in live
        .outputs
        .keys()
        .chain(shadow.outputs.keys().filter(|name| !live.outputs.contains_key(*name)))
        .filter(of_rules)
    {
        match (live.outputs.get(name), shadow.outputs.get(name)) {
            (Some(a), Some(b)) if (a - b).abs() <= tolerance => {}
            (a, b) => found.push(format!("{name}: {} against {}", shown(a), shown(b))),
        }
    }
    for name in live
        .classes
        .keys()
        .chain(shadow.classes.keys().filter(|name| !live.classes.contains_key(*name)))
        .filter(of_rules)
    {
        if live.classes.get(name) != shadow.classes.get(name) {
            found.push(format!(
                "{name}: {} against {}",
                shown(live.classes.get(name)),
                shown(shadow.classes.get(name))
            ));
        }
    }
    found
}

fn shown<T: ToString>(value: Option<&T>) -> String {
    value.map_or_else(|| "nothing".to_owned(), ToString::to_string)
}

/// The part of a body that is kept: redacted and truncated. `None` if something must be redacted but the body is not JSON.
pub(crate) fn keep(body: &[u8], redact: &[String], most: usize) -> Option<String> {
    let text = if redact.is_empty() {
        String::from_utf8_lossy(body).into_owned()
    } else {
        let mut value: Value = serde_json::from_slice(body).ok()?;
        for rule in redact {
            if rule.starts_with('/') {
                if let Some(found) = value.pointer_mut(rule) {
                    *found = REDACTED.into();
                }
            } else {
                hide(&mut value, rule);
            }
        }
        value.to_string()
    };
    Some(cut(text, most))
}

/// Redacts the values of a key, and the data of a tensor of that name, at any depth.
fn hide(value: &mut Value, name: &str) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(|item| hide(item, name)),
        Value::Object(fields) => {
            let named = fields.get("name").and_then(Value::as_str) == Some(name);
            for (key, field) in fields.iter_mut() {
                if key == name || (named && key == "data") {
                    *field = REDACTED.into();
                } else {
                    hide(field, name);
                }
            }
        }
        _ => {}
    }
}

fn cut(mut text: String, most: usize) -> String {
    if text.len() > most {
        let end = (0..=most).rev().find(|&end| text.is_char_boundary(end)).unwrap_or(0);
        text.truncate(end);
        text.push('…');
    }
    text
}

/// Number of examples kept in the current minute, per model.
#[derive(Debug, Default)]
pub(crate) struct Budget {
    minute: u64,
    kept: u32,
}

impl Budget {
    /// Takes one example if the limit of this minute is not reached. Returns whether it was taken.
    pub(crate) fn take(&mut self, minute: u64, most: u32) -> bool {
        if self.minute != minute {
            *self = Self { minute, kept: 0 };
        }
        let room = self.kept < most;
        self.kept += u32::from(room);
        room
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn answer(outputs: &[(&str, f64)], classes: &[(&str, &str)]) -> Prediction {
        let mut prediction = crate::report::guard::tests::prediction();
        prediction.outputs = outputs.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect();
        prediction.classes = classes.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        prediction
    }

    #[test]
    fn differences_between_answers() {
        let live = answer(&[("late", 0.18), ("response.bytes", 99.0)], &[("label", "no")]);
        assert_eq!(differences(&live, &live, 0.0), Vec::<String>::new());
        let other = answer(&[("late", 0.93), ("response.bytes", 12.0)], &[("label", "yes")]);
        assert_eq!(differences(&live, &other, 0.0), ["late: 0.18 against 0.93", "label: no against yes"]);
        assert_eq!(differences(&live, &answer(&[("late", 0.19)], &[("label", "no")]), 0.02), Vec::<String>::new());
        assert_eq!(differences(&live, &answer(&[], &[("label", "no")]), 1.0), ["late: 0.18 against nothing"]);
        let failed = Prediction { error: Some("timeout".into()), status: None, ..answer(&[], &[]) };
        assert_eq!(differences(&live, &failed, 0.0), ["error: ok against timeout"]);
    }

    #[test]
    fn redacted_values_are_not_kept() {
        let body = json!({"user": {"email": "a@b.c", "id": 7}, "inputs": [{"name": "iban", "data": ["DE1"]}, {"name": "x", "data": [1]}]});
        let rules = ["email".to_owned(), "iban".to_owned(), "/user/id".to_owned()];
        let kept = keep(body.to_string().as_bytes(), &rules, 1000).unwrap();
        let kept: Value = serde_json::from_str(&kept).unwrap();
        assert_eq!(kept["user"], json!({"email": REDACTED, "id": REDACTED}));
        assert_eq!((&kept["inputs"][0]["data"], &kept["inputs"][1]["data"]), (&json!(REDACTED), &json!([1])));
        assert_eq!(keep(b"plain text", &rules, 1000), None, "an email cannot be located");
        assert_eq!(keep("äöü".as_bytes(), &[], 3).unwrap(), "ä…");
    }

    #[test]
    fn the_number_of_examples_per_minute_is_limited() {
        let mut budget = Budget::default();
        let kept: Vec<bool> = [5, 5, 5, 6].map(|minute| budget.take(minute, 2)).into();
        assert_eq!(kept, [true, true, false, true]);
    }
}
