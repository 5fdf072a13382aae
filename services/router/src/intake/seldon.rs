//! Feedback in Seldon's format: `{"response": {"meta": {"puid"}}, "reward", "truth"}`, with a truth in any form in which a `SeldonMessage`
//! carries data. Other parts are accepted and ignored.

use serde::Deserialize;
use serde_json::{Map, Value, json};
use serin_schemas::Code;
use serin_schemas::foreign::Refusal;

/// A `Feedback` of Seldon Core.
#[derive(Clone, Debug, Deserialize)]
struct SeldonIn {
    response: Option<Message>,
    request: Option<Message>,
    reward: Option<Value>,
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
    puid: Option<Value>,
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

/// Converts it to our format: the reward becomes the value `reward`; the truth becomes the label, or, if it has names, the values with
/// these names.
pub(super) fn into_ours(entry: Value) -> Result<Value, Vec<Refusal>> {
    let refused = |code, message: String| Err(vec![Refusal::new(code, message)]);
    let seldon: SeldonIn = match serde_json::from_value(entry) {
        Ok(seldon) => seldon,
        Err(error) => return refused(Code::Garbage, format!("body: expected feedback in Seldon's format: {error}")),
    };
    // A whole number is read as its digits, as everywhere else.
    let puid = |message: Option<Message>| message?.meta?.puid.filter(|puid| !puid.is_null());
    let Some(id) = puid(seldon.response).or_else(|| puid(seldon.request)) else {
        let message = "response.meta.puid: is missing; send the x-prediction-id of the answer".to_owned();
        return refused(Code::MissingId, message);
    };
    let mut values = Map::new();
    if let Some(reward) = seldon.reward {
        values.insert("reward".to_owned(), reward);
    }
    let (names, found) = seldon.truth.map(Message::values).unwrap_or_default();
    let is_scalar = |value: &Value| !value.is_object() && !value.is_null();
    if names.is_empty() {
        values.extend(found.into_iter().find(is_scalar).map(|first| ("label".to_owned(), first)));
    } else {
        values.extend(names.into_iter().zip(found).filter(|(_, value)| is_scalar(value)));
    }
    Ok(json!({"prediction_id": id, "values": values}))
}

impl Message {
    /// Its scalars in row order, and their names.
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

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(value: Value) -> Result<Value, String> {
        into_ours(value).map_err(|problems| problems[0].message.clone())
    }

    #[test]
    fn rewards_and_truths_of_all_kinds() {
        let meta = json!({"meta": {"puid": "p1", "tags": {}, "routing": {"eg": 1}}, "data": {"ndarray": [[0.9]]}});
        let of = |truth: Value| {
            let ours = read(json!({"request": {"data": {}}, "response": meta, "reward": 1.0, "truth": truth})).unwrap();
            assert_eq!((&ours["prediction_id"], &ours["values"]["reward"]), (&json!("p1"), &json!(1.0)));
            ours["values"].clone()
        };
        assert_eq!(of(json!({"data": {"ndarray": [[1]]}}))["label"], 1);
        assert_eq!(of(json!({"data": {"tensor": {"shape": [1], "values": [0.5]}}}))["label"], 0.5);
        assert_eq!(of(json!({"strData": "fraud"}))["label"], "fraud");
        assert_eq!(of(json!({"jsonData": true}))["label"], true);
        let named = of(json!({"data": {"names": ["delay", "kind"], "ndarray": [[12, "late"]]}}));
        assert_eq!(named, json!({"reward": 1.0, "delay": 12, "kind": "late"}));
        let fields = of(json!({"jsonData": {"delay": 3, "kind": "x", "more": {}}}));
        assert_eq!(fields, json!({"reward": 1.0, "delay": 3, "kind": "x"}));
        let only_reward = read(json!({"response": {"meta": {"puid": "p"}}, "reward": 0})).unwrap();
        assert_eq!(only_reward, json!({"prediction_id": "p", "values": {"reward": 0}}));
    }

    #[test]
    fn feedback_without_an_id_is_refused() {
        let problem = read(json!({"response": {"meta": {}}, "reward": 1})).unwrap_err();
        assert_eq!(problem, "response.meta.puid: is missing; send the x-prediction-id of the answer");
        let problem = read(json!({"response": 3})).unwrap_err();
        assert!(problem.starts_with("body: expected feedback in Seldon's format: "), "{problem}");
        let numbered = read(json!({"response": {"meta": {"puid": 7}}, "reward": 1})).unwrap();
        assert_eq!(numbered["prediction_id"], 7);
    }
}
