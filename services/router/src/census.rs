//! What an answer says of itself without any rule: whether it is what its protocol promises, and how much of it is missing. Pure.

use serde_json::Value;

/// What was counted in an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Census {
    /// Scalars in it.
    pub(crate) values: u64,
    /// Those of them that are null or no number.
    pub(crate) missing: u64,
    /// How it breaks the promises of its protocol: `missing` (a required field), `schema` (a value that is not of its type, or
    /// more or fewer values than its shape says).
    pub(crate) invalid: Option<&'static str>,
}

impl Census {
    /// Counts an answer. `required` is the list that its protocol promises: `outputs` or `predictions`.
    pub(crate) fn of(answer: &Value, required: Option<&str>) -> Self {
        let mut census = Self::default();
        let Some(required) = required else {
            census.count(answer);
            return census;
        };
        match answer.get(required) {
            None | Some(Value::Null) => census.invalid = Some("missing"),
            Some(list) if required == "outputs" => census.tensors(list),
            Some(list) => census.count(list),
        }
        census
    }

    /// Share of values that are missing; `None` when there are no values at all.
    pub(crate) fn missing_share(self) -> Option<f64> {
        (self.values > 0).then(|| self.missing as f64 / self.values as f64)
    }

    fn count(&mut self, value: &Value) {
        match value {
            Value::Array(items) => items.iter().for_each(|item| self.count(item)),
            Value::Object(fields) => fields.values().for_each(|field| self.count(field)),
            scalar => {
                self.values += 1;
                self.missing += u64::from(is_missing(scalar));
            }
        }
    }

    /// The output tensors of the Open Inference Protocol.
    fn tensors(&mut self, list: &Value) {
        let Value::Array(tensors) = list else {
            self.invalid = Some("schema");
            return;
        };
        for tensor in tensors {
            let named = tensor.get("name").is_some_and(Value::is_string);
            if !named {
                self.invalid = self.invalid.or(Some("missing"));
            }
            // A binary tensor has its data behind the JSON.
            let Some(data) = tensor.get("data") else { continue };
            let before = self.values;
            self.count(data);
            let counted = self.values - before;
            let shape = tensor.get("shape").and_then(size);
            let datatype = tensor.get("datatype").and_then(Value::as_str);
            let fits = shape.is_none_or(|size| size == counted) && datatype.is_none_or(|datatype| all(data, datatype));
            if !fits {
                self.invalid = self.invalid.or(Some("schema"));
            }
        }
    }
}

/// Number of values that a shape promises; `None` if it is no shape of numbers.
fn size(shape: &Value) -> Option<u64> {
    shape.as_array()?.iter().try_fold(1_u64, |size, side| size.checked_mul(side.as_u64()?))
}

/// Whether all values are of a datatype, or missing.
fn all(data: &Value, datatype: &str) -> bool {
    match data {
        Value::Array(items) => items.iter().all(|item| all(item, datatype)),
        scalar => is_missing(scalar) || is_of(scalar, datatype),
    }
}

fn is_of(value: &Value, datatype: &str) -> bool {
    match datatype {
        "BYTES" => value.is_string(),
        "BOOL" => value.is_boolean() || value.as_u64().is_some_and(|number| number < 2),
        _ if datatype.starts_with("INT") => value.is_i64() || value.is_u64(),
        _ if datatype.starts_with("UINT") => value.is_u64(),
        _ if datatype.starts_with("FP") || datatype == "BF16" => value.is_number(),
        // A server may have types of its own.
        _ => true,
    }
}

fn is_missing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.eq_ignore_ascii_case("nan") || text.ends_with("Infinity"),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[expect(clippy::needless_pass_by_value, reason = "`json!` is written in place")]
    fn tensor(shape: Value, datatype: &str, data: Value) -> Census {
        Census::of(
            &json!({"outputs": [{"name": "p", "shape": shape, "datatype": datatype, "data": data}]}),
            Some("outputs"),
        )
    }

    #[test]
    fn missing_values_are_a_share() {
        let census = tensor(json!([2, 2]), "FP32", json!([[0.5, null], ["NaN", 1]]));
        assert_eq!((census.values, census.missing, census.invalid), (4, 2, None));
        assert_eq!(census.missing_share(), Some(0.5));
        assert_eq!(Census::of(&json!({"predictions": []}), Some("predictions")).missing_share(), None);
        assert_eq!(Census::of(&json!({"label": null, "score": 1}), None).missing_share(), Some(0.5));
    }

    #[test]
    fn broken_promises_have_a_name() {
        assert_eq!(Census::of(&json!({"predictions": [1]}), Some("outputs")).invalid, Some("missing"));
        assert_eq!(Census::of(&json!([1]), Some("predictions")).invalid, Some("missing"));
        assert_eq!(Census::of(&json!({"outputs": 7}), Some("outputs")).invalid, Some("schema"));
        assert_eq!(Census::of(&json!({"outputs": [{"data": [1]}]}), Some("outputs")).invalid, Some("missing"));
        assert_eq!(tensor(json!([3]), "FP64", json!([1, 2])).invalid, Some("schema"));
        assert_eq!(tensor(json!([1]), "FP64", json!(["high"])).invalid, Some("schema"));
        assert_eq!(tensor(json!([1]), "INT64", json!([1.5])).invalid, Some("schema"));
        assert_eq!(tensor(json!([1]), "UINT8", json!([-1])).invalid, Some("schema"));
        assert_eq!(tensor(json!([1]), "BYTES", json!([1])).invalid, Some("schema"));
        for (datatype, data) in
            [("BOOL", json!([true])), ("BYTES", json!(["x"])), ("INT8", json!([-1])), ("OWN", json!([{}]))]
        {
            assert_eq!(tensor(json!([1]), datatype, data).invalid.filter(|_| datatype != "OWN"), None, "{datatype}");
        }
        let binary = json!({"outputs": [{"name": "p", "shape": [9], "datatype": "FP32", "parameters": {"binary_data_size": 36}}]});
        assert_eq!(Census::of(&binary, Some("outputs")), Census::default());
    }

    proptest! {
        /// Whatever an answer holds, no more is missing than there is.
        #[test]
        fn any_answer_can_be_counted(text in r#"[\[\]{}",:0-9a-z]{0,60}"#) {
            let value: Value = serde_json::from_str(&text).unwrap_or(Value::String(text));
            for required in [None, Some("outputs"), Some("predictions")] {
                let census = Census::of(&value, required);
                prop_assert!(census.missing <= census.values);
            }
        }
    }
}
