//! What an answer says of itself without any rule: whether it is what its protocol promises, and how much of it is missing. Pure.

use std::{borrow::Cow, fmt, marker::PhantomData};

use serde::{
    Deserialize,
    de::{Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor, value::MapAccessDeserializer},
};
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
        let Some(required) = required else { return Tally::of(answer).into() };
        match answer.get(required) {
            None | Some(Value::Null) => Self::broken("missing"),
            Some(Value::Array(tensors)) if required == "outputs" => Self::of_tensors(tensors.iter().map(Tensor::of)),
            Some(_) if required == "outputs" => Self::broken("schema"),
            Some(list) => Tally::of(list).into(),
        }
    }

    /// The same while the answer is read, of which nothing is kept. `None` if it is no JSON or anything is unusual about it: then
    /// [`of`](Self::of) knows better.
    pub(crate) fn of_json(body: &[u8], required: Option<&str>) -> Option<Self> {
        // What is skipped is not looked into.
        let body = std::str::from_utf8(body).ok()?;
        match required {
            None => serde_json::from_str(body).ok().map(Tally::into),
            Some("outputs") => {
                let Object(Outputs { outputs }) = serde_json::from_str(body).ok()?;
                Some(Self::of_tensors(outputs.iter().map(|Object(tensor)| tensor.tensor())))
            }
            Some("predictions") => {
                let Object(Predictions { predictions }) = serde_json::from_str(body).ok()?;
                predictions.map(Tally::into)
            }
            Some(_) => None,
        }
    }

    /// Share of values that are missing; `None` when there are no values at all.
    pub(crate) fn missing_share(self) -> Option<f64> {
        (self.values > 0).then(|| self.missing as f64 / self.values as f64)
    }

    fn broken(promise: &'static str) -> Self {
        Self { invalid: Some(promise), ..Self::default() }
    }

    /// The output tensors of the Open Inference Protocol.
    fn of_tensors<'a>(tensors: impl Iterator<Item = Tensor<'a>>) -> Self {
        let mut census = Self::default();
        for tensor in tensors {
            census.values += tensor.data.map_or(0, |data| data.values);
            census.missing += tensor.data.map_or(0, |data| data.missing);
            census.invalid = census.invalid.or(tensor.broken_promise());
        }
        census
    }
}

impl From<Tally> for Census {
    fn from(tally: Tally) -> Self {
        Self { values: tally.values, missing: tally.missing, invalid: None }
    }
}

/// Number of values that a shape promises; `None` if they are too many.
fn size(mut shape: impl Iterator<Item = Option<u64>>) -> Option<u64> {
    shape.try_fold(1_u64, |size, side| size.checked_mul(side?))
}

/// Scalars by what they are, wherever they stand in lists within lists.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Tally {
    /// All of them, and those within objects.
    values: u64,
    /// Those that are null or no number, and those within objects.
    missing: u64,
    texts: u64,
    booleans: u64,
    /// 0 and 1.
    bits: u64,
    /// From 2.
    naturals: u64,
    negatives: u64,
    /// Other numbers.
    reals: u64,
    objects: u64,
}

impl Tally {
    fn of(value: &Value) -> Self {
        // What is in memory can be read.
        Self::deserialize(value).unwrap_or_default()
    }

    /// One value of the kind that `count` chooses.
    fn one(count: impl FnOnce(&mut Self) -> &mut u64) -> Self {
        let mut tally = Self { values: 1, ..Self::default() };
        *count(&mut tally) += 1;
        tally
    }

    /// Whether all that is not missing is of a datatype.
    fn fits(&self, datatype: &str) -> bool {
        let others = match datatype {
            "BYTES" => self.booleans + self.whole() + self.reals,
            "BOOL" => self.texts + self.naturals + self.negatives + self.reals,
            _ if datatype.starts_with("INT") => self.texts + self.booleans + self.reals,
            _ if datatype.starts_with("UINT") => self.texts + self.booleans + self.negatives + self.reals,
            _ if datatype.starts_with("FP") || datatype == "BF16" => self.texts + self.booleans,
            // A server may have types of its own.
            _ => return true,
        };
        others + self.objects == 0
    }

    fn whole(&self) -> u64 {
        self.bits + self.naturals + self.negatives
    }

    fn add(&mut self, other: &Self) {
        let Self { values, missing, texts, booleans, bits, naturals, negatives, reals, objects } = other;
        self.values += values;
        self.missing += missing;
        self.texts += texts;
        self.booleans += booleans;
        self.bits += bits;
        self.naturals += naturals;
        self.negatives += negatives;
        self.reals += reals;
        self.objects += objects;
    }
}

fn is_missing(text: &str) -> bool {
    text.eq_ignore_ascii_case("nan") || text.ends_with("Infinity")
}

impl<'de> Deserialize<'de> for Tally {
    fn deserialize<D: Deserializer<'de>>(any: D) -> Result<Self, D::Error> {
        any.deserialize_any(Counting)
    }
}

/// Counts any value.
struct Counting;

impl<'de> Visitor<'de> for Counting {
    type Value = Tally;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E: Error>(self) -> Result<Tally, E> {
        Ok(Tally::one(|tally| &mut tally.missing))
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<Tally, E> {
        Ok(Tally::one(|tally| &mut tally.booleans))
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Tally, E> {
        Ok(Tally::one(|tally| if number < 2 { &mut tally.bits } else { &mut tally.naturals }))
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<Tally, E> {
        Ok(Tally::one(|tally| &mut tally.negatives))
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<Tally, E> {
        Ok(Tally::one(|tally| &mut tally.reals))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Tally, E> {
        Ok(Tally::one(|tally| if is_missing(text) { &mut tally.missing } else { &mut tally.texts }))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Tally, A::Error> {
        let mut sum = Tally::default();
        while let Some(item) = items.next_element::<Tally>()? {
            sum.add(&item);
        }
        Ok(sum)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Tally, A::Error> {
        let mut sum = Tally { objects: 1, ..Tally::default() };
        while let Some((_, field)) = fields.next_entry::<IgnoredAny, Tally>()? {
            sum.values += field.values;
            sum.missing += field.missing;
        }
        Ok(sum)
    }
}

/// What is looked at in an output tensor of the Open Inference Protocol.
struct Tensor<'a> {
    has_name: bool,
    /// Number of values that its shape promises, if it is a shape of numbers.
    size: Option<u64>,
    datatype: Option<&'a str>,
    /// A binary tensor has its data behind the JSON.
    data: Option<Tally>,
}

impl<'a> Tensor<'a> {
    fn of(tensor: &'a Value) -> Self {
        let shape = tensor.get("shape").and_then(Value::as_array);
        Self {
            has_name: tensor.get("name").is_some_and(Value::is_string),
            size: shape.and_then(|shape| size(shape.iter().map(Value::as_u64))),
            datatype: tensor.get("datatype").and_then(Value::as_str),
            data: tensor.get("data").map(Tally::of),
        }
    }

    fn broken_promise(&self) -> Option<&'static str> {
        if !self.has_name {
            return Some("missing");
        }
        let data = self.data?;
        let fits = self.size.is_none_or(|size| size == data.values) && self.datatype.is_none_or(|it| data.fits(it));
        (!fits).then_some("schema")
    }
}

/// An object with these fields. serde alone would take a list of their values too.
struct Object<T>(T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(any: D) -> Result<Self, D::Error> {
        struct Fields<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Fields<T> {
            type Value = Object<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, fields: A) -> Result<Object<T>, A::Error> {
                T::deserialize(MapAccessDeserializer::new(fields)).map(Object)
            }
        }
        any.deserialize_map(Fields(PhantomData))
    }
}

/// An answer of V2 as it usually is.
#[derive(Deserialize)]
struct Outputs<'a> {
    #[serde(borrow)]
    outputs: Vec<Object<Named<'a>>>,
}

/// A tensor with all that one usually has.
#[derive(Deserialize)]
struct Named<'a> {
    #[serde(borrow, rename = "name")]
    _name: Cow<'a, str>,
    shape: Vec<u64>,
    #[serde(borrow)]
    datatype: Cow<'a, str>,
    #[serde(default, deserialize_with = "some")]
    data: Option<Tally>,
}

impl Named<'_> {
    fn tensor(&self) -> Tensor<'_> {
        let size = size(self.shape.iter().copied().map(Some));
        Tensor { has_name: true, size, datatype: Some(&self.datatype), data: self.data }
    }
}

/// An answer of V1 as it usually is.
#[derive(Deserialize)]
struct Predictions {
    predictions: Option<Tally>,
}

/// A null that is there is a value too.
fn some<'de, D: Deserializer<'de>>(any: D) -> Result<Option<Tally>, D::Error> {
    Tally::deserialize(any).map(Some)
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

    #[test]
    fn usual_answers_need_not_be_kept() {
        let usual = r#"{"model_name":"m","outputs":[{"name":"p","shape":[2],"datatype":"FP64","data":[0.5,null]}]}"#;
        let census = Census { values: 2, missing: 1, invalid: None };
        assert_eq!(Census::of_json(usual.as_bytes(), Some("outputs")), Some(census));
        assert_eq!(Census::of_json(br#"{"predictions":[[1,"NaN"]]}"#, Some("predictions")), Some(census));
        assert_eq!(Census::of_json(br#"{"label":null,"score":1}"#, None), Some(census));
        for (unusual, required) in [
            (&br#"{"outputs":[{"data":[1]}]}"#[..], Some("outputs")),
            (br#"{"outputs":[],"outputs":[]}"#, Some("outputs")),
            (br#"{"outputs":[["p",[1],"FP64",[1]]]}"#, Some("outputs")),
            (b"[1]", Some("predictions")),
            (br#"{"predictions":null}"#, Some("predictions")),
            (br#"{"predictions":[1]} 2"#, Some("predictions")),
            (b"{\"predictions\":[],\"x\":\"\xff\"}", Some("predictions")),
            (br#"{"predictions":[NaN]}"#, None),
        ] {
            assert_eq!(Census::of_json(unusual, required), None, "{}", unusual.escape_ascii());
        }
    }

    /// Some JSON: lists in lists, objects, texts, numbers.
    fn any_json() -> impl Strategy<Value = Value> {
        let scalar = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            (-3_i64..4).prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            (-1.0..1.0).prop_map(Value::from),
            prop::sample::select(vec!["NaN", "-Infinity", "x", ""]).prop_map(Value::from),
        ];
        scalar.prop_recursive(3, 12, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map("[a-c]", inner, 0..3)
                    .prop_map(|fields| Value::Object(fields.into_iter().collect())),
            ]
        })
    }

    const DATATYPES: [&str; 7] = ["FP64", "INT8", "UINT8", "BOOL", "BYTES", "BF16", "OWN"];

    proptest! {
        /// Whatever an answer holds, no more is missing than there is; and reading it without keeping it says the same, or nothing.
        #[test]
        fn any_answer_can_be_counted(value in any_json(), text in r#"[\[\]{}",:0-9a-z]{0,60}"#) {
            let other: Value = serde_json::from_str(&text).unwrap_or(Value::String(text));
            for value in [json!({"outputs": &value}), json!({"predictions": &value}), value, other] {
                for required in [None, Some("outputs"), Some("predictions")] {
                    let census = Census::of(&value, required);
                    prop_assert!(census.missing <= census.values);
                    let read = Census::of_json(value.to_string().as_bytes(), required);
                    prop_assert!(read.is_none_or(|read| read == census), "{value} {required:?}: {read:?}, {census:?}");
                }
            }
        }

        /// The same for tensors that are nearly right.
        #[test]
        fn tensors_are_judged_alike(data in any_json(), shape in prop::collection::vec(0_u64..4, 0..3), datatype in prop::sample::select(DATATYPES.to_vec())) {
            let answer = json!({"outputs": [{"name": "p", "shape": shape, "datatype": datatype, "data": data}]});
            let census = Census::of(&answer, Some("outputs"));
            prop_assert_eq!(Census::of_json(answer.to_string().as_bytes(), Some("outputs")), Some(census));
        }
    }
}
