//! Feedback in Seldon's format: `{"response": {"meta": {"puid"}}, "reward", "truth"}`, with a truth in any of the ways in which a
//! `SeldonMessage` carries data. Parts of it that say nothing about the truth are taken and left.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use super::{FeedbackIn, Label};

/// A `Feedback` of Seldon Core.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct SeldonIn {
    response: Option<Message>,
    request: Option<Message>,
    reward: Option<f64>,
    truth: Option<Message>,
}

/// A `SeldonMessage`.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Message {
    meta: Option<Meta>,
    data: Option<Data>,
    str_data: Option<String>,
    json_data: Option<Value>,
}

#[derive(Clone, Debug, Deserialize)]
struct Meta {
    puid: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
struct Data {
    #[serde(default)]
    names: Vec<String>,
    ndarray: Option<Value>,
    tensor: Option<Tensor>,
}

#[derive(Clone, Debug, Deserialize)]
struct Tensor {
    #[serde(default)]
    values: Vec<f64>,
}

impl SeldonIn {
    /// The same in our format: the reward is the value `reward`; the truth is the label, or with names the values and classes of these
    /// names.
    pub(super) fn into_ours(self) -> Result<FeedbackIn, Vec<String>> {
        let puid = |message: Option<Message>| message?.meta?.puid;
        let Some(prediction_id) = puid(self.response).or_else(|| puid(self.request)) else {
            return Err(vec!["response.meta.puid: is missing; it is the x-prediction-id of the answer".to_owned()]);
        };
        let mut ours = FeedbackIn {
            prediction_id,
            values: BTreeMap::new(),
            classes: BTreeMap::new(),
            label: None,
            observed_at: None,
            revision: 0,
        };
        if let Some(reward) = self.reward {
            ours.values.insert("reward".to_owned(), reward);
        }
        if let Some(truth) = self.truth {
            let (names, found) = truth.values();
            match (names.is_empty(), found.first()) {
                (true, Some(first)) => ours.label = label(first),
                _ => {
                    for (name, value) in names.into_iter().zip(&found) {
                        match label(value) {
                            Some(Label::Yes(yes)) => drop(ours.values.insert(name, f64::from(u8::from(yes)))),
                            Some(Label::Number(number)) => drop(ours.values.insert(name, number)),
                            Some(Label::Class(class)) => drop(ours.classes.insert(name, class)),
                            None => {}
                        }
                    }
                }
            }
        }
        Ok(ours)
    }
}

impl Message {
    /// Its scalars, row by row, and their names.
    fn values(self) -> (Vec<String>, Vec<Value>) {
        let mut found = Vec::new();
        let mut names = Vec::new();
        if let Some(data) = self.data {
            names = data.names;
            flatten(data.ndarray, &mut found);
            found.extend(data.tensor.into_iter().flat_map(|tensor| tensor.values).map(Value::from));
        }
        flatten(self.str_data.map(Value::String), &mut found);
        match self.json_data {
            Some(Value::Object(fields)) => {
                for (name, value) in fields {
                    names.push(name);
                    found.push(value);
                }
            }
            other => flatten(other, &mut found),
        }
        (names, found)
    }
}

fn flatten(value: Option<Value>, found: &mut Vec<Value>) {
    match value {
        None => {}
        Some(Value::Array(items)) => items.into_iter().for_each(|item| flatten(Some(item), found)),
        Some(scalar) => found.push(scalar),
    }
}

fn label(value: &Value) -> Option<Label> {
    match value {
        Value::Bool(yes) => Some(Label::Yes(*yes)),
        Value::Number(number) => number.as_f64().map(Label::Number),
        Value::String(text) => Some(Label::Class(text.clone())),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(value: Value) -> Result<FeedbackIn, Vec<String>> {
        serde_json::from_value::<SeldonIn>(value).unwrap().into_ours()
    }

    #[test]
    fn rewards_and_truths_of_all_kinds() {
        let meta = json!({"meta": {"puid": "p1", "tags": {}, "routing": {"eg": 1}}, "data": {"ndarray": [[0.9]]}});
        let of = |truth: Value| {
            read(json!({"request": {"data": {}}, "response": meta, "reward": 1.0, "truth": truth})).unwrap()
        };
        let one = of(json!({"data": {"ndarray": [[1]]}}));
        assert_eq!((one.prediction_id.as_str(), one.values["reward"]), ("p1", 1.0));
        assert!(matches!(one.label, Some(Label::Number(1.0))));
        assert!(matches!(
            of(json!({"data": {"tensor": {"shape": [1], "values": [0.5]}}})).label,
            Some(Label::Number(0.5))
        ));
        assert!(matches!(of(json!({"strData": "fraud"})).label, Some(Label::Class(class)) if class == "fraud"));
        assert!(matches!(of(json!({"jsonData": true})).label, Some(Label::Yes(true))));
        let named = of(json!({"data": {"names": ["delay", "kind"], "ndarray": [[12, "late"]]}}));
        assert_eq!(
            (named.values["delay"], named.classes["kind"].as_str(), named.label.is_none()),
            (12.0, "late", true)
        );
        let fields = of(json!({"jsonData": {"delay": 3, "kind": "x", "more": {}}}));
        assert_eq!((fields.values["delay"], fields.classes["kind"].as_str()), (3.0, "x"));
        let only_reward = read(json!({"response": {"meta": {"puid": "p"}}, "reward": 0})).unwrap();
        assert_eq!(only_reward.values, [("reward".to_owned(), 0.0)].into());
    }

    #[test]
    fn without_an_id_it_joins_nothing() {
        let problems = read(json!({"response": {"meta": {}}, "reward": 1})).unwrap_err();
        assert_eq!(problems, ["response.meta.puid: is missing; it is the x-prediction-id of the answer"]);
    }
}
