use super::*;
use proptest::prelude::*;
use serde_json::json;

#[expect(clippy::needless_pass_by_value, reason = "`json!` is written in place")]
fn tensor(shape: Value, datatype: &str, data: Value) -> Census {
    Census::of(
        &json!({"outputs": [{"name": "p", "shape": shape, "datatype": datatype, "data": data}]}),
        Promise::Tensors,
    )
}

#[test]
fn missing_values_are_counted_as_a_share() {
    let census = tensor(json!([2, 2]), "FP32", json!([[0.5, null], ["NaN", 1]]));
    assert_eq!((census.values, census.missing, census.nulls, census.invalid), (4, 2, 1, None));
    assert_eq!(census.missing_share(), Some(0.5));
    assert_eq!(Census::of(&json!({"predictions": []}), Promise::Predictions).missing_share(), None);
    assert_eq!(Census::of(&json!({"label": null, "score": 1}), Promise::Nothing).missing_share(), Some(0.5));
}

#[test]
fn protocol_violations_are_named() {
    let invalid = |answer: Value, promise| Census::of(&answer, promise).invalid;
    assert_eq!(invalid(json!({"predictions": [1]}), Promise::Tensors), Some("missing"));
    assert_eq!(invalid(json!([1]), Promise::Predictions), Some("missing"));
    assert_eq!(invalid(json!({"outputs": 7}), Promise::Tensors), Some("schema"));
    assert_eq!(invalid(json!({"outputs": [{"data": [1]}]}), Promise::Tensors), Some("missing"));
    assert_eq!(tensor(json!([3]), "FP64", json!([1, 2])).invalid, Some("schema"));
    assert_eq!(tensor(json!([1]), "FP64", json!(["high"])).invalid, Some("schema"));
    assert_eq!(tensor(json!([1]), "INT64", json!([1.5])).invalid, Some("schema"));
    assert_eq!(tensor(json!([1]), "UINT8", json!([-1])).invalid, Some("schema"));
    assert_eq!(tensor(json!([1]), "BYTES", json!([1])).invalid, Some("schema"));
    for (datatype, data) in [
        ("BOOL", json!([true])),
        ("BYTES", json!(["x"])),
        ("BYTES", json!(["7"])),
        ("INT8", json!([-1])),
        ("OWN", json!([{}])),
    ] {
        assert_eq!(tensor(json!([1]), datatype, data).invalid.filter(|_| datatype != "OWN"), None, "{datatype}");
    }
    for (shape, data) in [
        (json!([4_294_967_296_u64, 4_294_967_296_u64]), json!([0.5])),
        (json!([1e30]), json!([0.5])),
        (json!([-1]), json!([0.5])),
        (json!([1.5]), json!([0.5])),
        (json!([-1.0]), json!([0.5])),
        (json!(["one"]), json!([0.5])),
        (json!("1"), json!([0.5])),
        (Value::Null, json!([0.5])),
        (json!([2, 2]), json!([[0.5], [0.5, 0.5, 0.5]])),
        (json!([2, 2]), json!([[0.5, 0.5], 0.5, 0.5])),
        (json!([2, 2]), json!([[0.5, 0.5, 0.5, 0.5]])),
        (json!([2, 1]), json!([[[0.5]], [0.5]])),
    ] {
        assert_eq!(tensor(shape.clone(), "FP64", data.clone()).invalid, Some("schema"), "{shape} {data}");
        let tensor = json!({"name": "p", "shape": shape, "datatype": "FP64", "data": data});
        let quick = Census::of_json(json!({"outputs": [tensor]}).to_string().as_bytes(), Promise::Tensors);
        assert!(quick.is_none_or(|census| census.invalid == Some("schema")), "{tensor}");
    }
    for (shape, data) in [
        (json!([2, 2]), json!([[0.5, 0.5], [0.5, 0.5]])),
        (json!([2, 2]), json!([0.5, 0.5, 0.5, 0.5])),
        (json!([2, 1, 2]), json!([[[0.5, 0.5]], [[0.5, 0.5]]])),
        (json!(["2"]), json!([0.5, 0.5])),
        (json!([2.0]), json!([0.5, 0.5])),
        (json!([2.0, 1.0]), json!([[0.5], [0.5]])),
        (json!([]), json!([0.5])),
        (json!([1]), json!(0.5)),
        (json!([0]), json!([])),
        (json!([2, 0]), json!([[], []])),
        (json!([4_294_967_296_u64, 4_294_967_296_u64, 0]), json!([])),
    ] {
        assert_eq!(tensor(shape.clone(), "FP64", data.clone()).invalid, None, "{shape} {data}");
    }
    let named = |name: &str, value: f64| json!({"name": name, "shape": [1], "datatype": "FP64", "data": [value]});
    let twice = json!({"outputs": [named("score", 0.5), named("x", 0.5), named("score", 9.0)]});
    assert_eq!(invalid(twice.clone(), Promise::Tensors), Some("schema"), "two tensors have the same name");
    let quick = Census::of_json(twice.to_string().as_bytes(), Promise::Tensors);
    assert_eq!(quick.and_then(|census| census.invalid), Some("schema"));
    let no_shape = json!({"outputs": [{"name": "p", "datatype": "FP64", "data": [0.5]}]});
    assert_eq!(invalid(no_shape, Promise::Tensors), Some("schema"));
    for elsewhere in ["binary_data_size", "shared_memory_region"] {
        let tensor = json!({"name": "p", "shape": [9], "datatype": "FP32", "parameters": {elsewhere: 36}});
        assert_eq!(Census::of(&json!({"outputs": [tensor]}), Promise::Tensors).content(), Content::Good);
    }
}

/// The content of a JSON answer, which does not depend on how it is counted.
fn content(body: &str, promise: Promise) -> Content {
    let census = Census::of(&json::read(body.as_bytes()).unwrap(), promise);
    assert!(Census::of_json(body.as_bytes(), promise).is_none_or(|read| read == census), "{body}");
    census.content()
}

#[test]
fn only_whole_words_are_missing_numbers_and_texts_may_be_any_word() {
    let bytes = |text: &str| {
        let body = format!(r#"{{"outputs":[{{"name":"p","shape":[1],"datatype":"BYTES","data":["{text}"]}}]}}"#);
        content(&body, Promise::Tensors)
    };
    for text in ["to Infinity", "nan", "NaN", "Infinity", "-inf"] {
        assert_eq!(bytes(text), Content::Good, "{text}");
        let generated = format!(r#"{{"text_output":"{text}","model_name":null}}"#);
        assert_ne!(content(&generated, Promise::Json), Content::Unusable("nan"), "{text}");
    }
    assert_eq!(content(r#"{"text_output":"nan"}"#, Promise::Json), Content::Good);
    for (text, cause) in [
        ("Buzz: To Infinity", None),
        ("nano", None),
        ("12e45678", None),
        ("-9e99999", None),
        ("1e400", None),
        ("Infinity", Some("nan")),
        ("-Infinity", Some("nan")),
        ("NaN", Some("nan")),
        ("inf", Some("nan")),
        ("-inf", Some("nan")),
        ("-nan", Some("nan")),
        ("-nan(ind)", Some("nan")),
    ] {
        let expected = cause.map_or(Content::Good, Content::Unusable);
        assert_eq!(content(&format!(r#"{{"predictions":["{text}"]}}"#), Promise::Predictions), expected, "{text}");
    }
    assert_eq!(
        content(r#"{"outputs":[{"name":"p","shape":[1],"datatype":"BYTES","data":[null]}]}"#, Promise::Tensors),
        Content::Unusable("null")
    );
}

#[test]
fn errors_in_place_of_all_predictions_fail_the_answer() {
    for (body, failed) in [
        (r#"{"predictions":[{"error":"boom"}]}"#, true),
        (r#"{"predictions":[{"error":"boom"},{"error":{"code":1}}]}"#, true),
        (r#"{"outputs":[{"error":"boom"}]}"#, true),
        (r#"{"predictions":[{"error":"boom"},{"score":1}]}"#, false),
        (r#"{"predictions":[{"error":0.1}]}"#, false),
        (r#"{"outputs":{"error":["low"]}}"#, false),
    ] {
        let found = content(body, Promise::Predictions);
        assert_eq!(found == Content::Failed("error_object"), failed, "{body}");
    }
    assert_eq!(content(r#"{"data":[{"error":"boom"}]}"#, Promise::Embeddings), Content::Failed("error_object"));
    for empty in ["[[]]", "[{}]", "[[],[]]", "[]", "{}"] {
        let body = format!(r#"{{"predictions":{empty}}}"#);
        assert_eq!(content(&body, Promise::Predictions), Content::Unusable("empty"), "{body}");
    }
}

#[test]
fn a_detector_may_find_nothing() {
    for body in [
        r#"{"predictions":[{"boxes":[],"scores":[]}]}"#,
        r#"{"predictions":[{"boxes":[],"scores":[]},{}]}"#,
        r#"{"predictions":[[[],[]]]}"#,
        r#"{"predictions":[""]}"#,
        r#"{"outputs":{"boxes":[],"scores":[]}}"#,
    ] {
        assert_eq!(content(body, Promise::Predictions), Content::Good, "{body}");
    }
    let tensors = r#"{"outputs":[{"name":"boxes","shape":[0,4],"datatype":"FP32","data":[]}]}"#;
    assert_eq!(content(tensors, Promise::Tensors), Content::Good);
}

#[test]
fn embeddings_are_numbers_or_base64_of_numbers() {
    let base64 = |numbers: &[f32]| {
        let bytes: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
        format!("\"{}\"", STANDARD.encode(bytes))
    };
    for (embedding, cause) in [
        ("[0.5,-1]".to_owned(), None),
        ("[0.5,NaN]".to_owned(), None),
        (base64(&[0.5, 2.0]), None),
        (base64(&[0.5, f32::NAN]), None),
        ("\"AQID\"".to_owned(), None),
        (r#"{"float":[0.5]}"#.to_owned(), None),
        (base64(&[f32::NAN, f32::INFINITY]), Some("nan")),
        ("[NaN,Infinity]".to_owned(), Some("nan")),
        ("[null]".to_owned(), Some("null")),
        ("\"\"".to_owned(), Some("empty")),
        ("[]".to_owned(), Some("empty")),
        (r#"["a","b"]"#.to_owned(), Some("schema")),
        ("[true]".to_owned(), Some("schema")),
        (r#"{"a":"x"}"#.to_owned(), Some("schema")),
        ("\"?\"".to_owned(), Some("schema")),
    ] {
        let body = format!(r#"{{"data":[{{"index":0,"embedding":{embedding}}}],"usage":{{"total_tokens":3}}}}"#);
        let expected = cause.map_or(Content::Good, Content::Unusable);
        assert_eq!(content(&body, Promise::Embeddings), expected, "{body}");
    }
}

#[test]
fn whole_numbers_may_be_written_with_a_fraction_of_zero() {
    for (datatype, number, fits) in [
        ("UINT8", "-0", true),
        ("INT64", "-0", true),
        ("INT64", "1.0", true),
        ("UINT32", "1e2", true),
        ("INT8", "-2.0", true),
        ("UINT8", "-1.0", false),
        ("INT64", "1.5", false),
        ("INT64", "1e300", false),
        ("BOOL", "2.0", false),
    ] {
        let body = format!(r#"{{"outputs":[{{"name":"p","shape":[1],"datatype":"{datatype}","data":[{number}]}}]}}"#);
        let expected = if fits { Content::Good } else { Content::Unusable("schema") };
        assert_eq!(content(&body, Promise::Tensors), expected, "{body}");
    }
}

#[test]
fn binary_data_must_match_the_shape() {
    let answer = |datatype: &str, size: usize, raw: &[u8]| {
        let head = format!(
            r#"{{"outputs":[{{"name":"p","shape":[1],"datatype":"{datatype}","parameters":{{"binary_data_size":{size}}}}}]}}"#
        );
        let body = [head.as_bytes(), raw].concat();
        let value = crate::protocol::decode::Encoding::Binary(head.len()).read(&body).unwrap();
        Census::of(&value, Promise::Tensors).content()
    };
    assert_eq!(answer("BYTES", 5, b"\x01\0\0\0x"), Content::Good);
    assert_eq!(answer("BYTES", 5, b"\x09\0\0\0x"), Content::Unusable("schema"));
    assert_eq!(answer("FP32", 4, &0.5_f32.to_le_bytes()), Content::Good);
    assert_eq!(answer("FP32", 0, b""), Content::Unusable("schema"));
    assert_eq!(answer("OWN", 3, b"abc"), Content::Good);
}

#[test]
fn typical_answers_are_counted_without_being_kept() {
    let usual = r#"{"model_name":"m","outputs":[{"name":"p","shape":[2],"datatype":"FP64","data":[0.5,null]}]}"#;
    let census = Census { values: 2, missing: 1, nulls: 1, of_values: true, ..Census::default() };
    assert_eq!(Census::of_json(usual.as_bytes(), Promise::Tensors), Some(census));
    assert_eq!(
        Census::of_json(br#"{"predictions":[[1,"NaN"]]}"#, Promise::Predictions),
        Some(Census { nulls: 0, ..census })
    );
    assert_eq!(Census::of_json(br#"{"label":null,"score":1}"#, Promise::Nothing), Some(census));
    for (unusual, promise) in [
        (&br#"{"outputs":[{"data":[1]}]}"#[..], Promise::Tensors),
        (br#"{"outputs":[],"outputs":[]}"#, Promise::Tensors),
        (br#"{"outputs":[["p",[1],"FP64",[1]]]}"#, Promise::Tensors),
        (br#"{"outputs":[],"error":"x"}"#, Promise::Tensors),
        (b"[1]", Promise::Predictions),
        (br#"{"predictions":null}"#, Promise::Predictions),
        (br#"{"predictions":[1],"error":"x"}"#, Promise::Predictions),
        (br#"{"predictions":[1]} 2"#, Promise::Predictions),
        (b"{\"predictions\":[],\"x\":\"\xff\"}", Promise::Predictions),
        (br#"{"predictions":[NaN]}"#, Promise::Nothing),
        (br#"{"score":1,"error":"x"}"#, Promise::Nothing),
        (br#"[{"error":"x"}]"#, Promise::Nothing),
    ] {
        assert_eq!(Census::of_json(unusual, promise), None, "{}", unusual.escape_ascii());
    }
}

/// Random JSON: nested lists, objects, strings, numbers.
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
    /// The number of missing values never exceeds the number of values. Counting without keeping the answer gives the same result or
    /// none.
    #[test]
    fn any_answer_can_be_counted(value in any_json(), text in r#"[\[\]{}",:0-9a-z]{0,60}"#) {
        let other: Value = serde_json::from_str(&text).unwrap_or(Value::String(text));
        for value in [json!({"outputs": &value}), json!({"predictions": &value}), value, other] {
            for promise in [Promise::Nothing, Promise::Tensors, Promise::Predictions, Promise::Embeddings] {
                let census = Census::of(&value, promise);
                prop_assert!(census.nulls <= census.missing && census.missing <= census.values);
                let read = Census::of_json(value.to_string().as_bytes(), promise);
                prop_assert!(read.is_none_or(|read| read == census), "{value} {promise:?}: {read:?}, {census:?}");
            }
        }
    }

    /// The same for tensors that are almost valid.
    #[test]
    fn both_ways_of_counting_agree_on_tensors(data in any_json(), shape in prop::collection::vec(0_u64..4, 0..3), datatype in prop::sample::select(DATATYPES.to_vec())) {
        let answer = json!({"outputs": [{"name": "p", "shape": shape, "datatype": datatype, "data": data}]});
        let census = Census::of(&answer, Promise::Tensors);
        prop_assert_eq!(Census::of_json(answer.to_string().as_bytes(), Promise::Tensors), Some(census));
    }
}
