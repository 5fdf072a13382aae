//! Output rules on answers of every form.

use super::*;
use crate::content::values::LONGEST;
use proptest::prelude::*;
use serin_spec::BatchRows;

pub(crate) fn read(rules: &[OutputRule], headers: &HeaderMap, body: &[u8], promise: Promise) -> Outputs {
    super::read(rules, headers, body, Written::of(headers), promise, true, Sample::of("r", 1024))
}

/// A rule for a share from 0 to 1.
pub(crate) fn rule() -> OutputRule {
    OutputRule {
        name: "score".into(),
        source: OutputSource::Tensor("p".into()),
        kind: OutputKind::Number,
        min: Some(0.0),
        max: Some(1.0),
        required: true,
        rows: BatchRows::All,
    }
}

fn of_source(kind: OutputKind, source: OutputSource) -> OutputRule {
    OutputRule { kind, source, ..rule() }
}

fn tensor() -> Vec<OutputRule> {
    vec![of_source(OutputKind::Number, OutputSource::Tensor("p".into()))]
}

fn content(body: &str) -> Content {
    read(&tensor(), &HeaderMap::new(), body.as_bytes(), Promise::Nothing).content
}

fn of_type(kind: &str) -> HeaderMap {
    HeaderMap::from_iter([(http::header::CONTENT_TYPE, kind.parse().unwrap())])
}

#[test]
fn outputs_of_a_tensor() {
    let answer = r#"{"outputs":[{"name":"x","data":[3]},{"name":"p","data":[[0.25,0.75]]}]}"#;
    let outputs = read(&tensor(), &HeaderMap::new(), answer.as_bytes(), Promise::Nothing);
    assert_eq!(outputs.numbers, BTreeMap::from([("score".to_owned(), 0.25)]));
    assert_eq!(outputs.content, Content::Good);
}

#[test]
fn unusable_outputs_have_a_cause() {
    let with = |data: &str| format!(r#"{{"outputs":[{{"name":"p","data":{data}}}]}}"#);
    for (body, cause) in [
        (with("[NaN]"), "nan"),
        (with("[-Infinity]"), "nan"),
        (with("[1e999]"), "nan"),
        (with("[\"NaN\"]"), "nan"),
        (with("[null]"), "null"),
        (with("[]"), "empty"),
        (with("[\"\"]"), "empty"),
        (with("[1.5]"), "out_of_range"),
        (with("[-0.1]"), "out_of_range"),
        (with("[\"high\"]"), "unparsable"),
        (with("[{}]"), "unparsable"),
        (r#"{"outputs":[]}"#.to_owned(), "missing"),
        ("[1,2".to_owned(), "unparsable"),
        ("<html>".to_owned(), "html"),
        (String::new(), "empty"),
        (" \n".to_owned(), "empty"),
    ] {
        assert_eq!(content(&body), Content::Unusable(cause), "{body}");
    }
    assert_eq!(content(&with("[true]")), Content::Good);
}

/// A batch of 64 rows, of which one has this value.
fn batch(row: usize, value: &str, good: &str) -> String {
    (0..64).map(|n| if n == row { value } else { good }).collect::<Vec<_>>().join(",")
}

#[test]
fn one_unusable_row_makes_a_batch_unusable() {
    let label = || of_source(OutputKind::Class, OutputSource::Json("/predictions/0/label".into()));
    let tensor_label = || of_source(OutputKind::Class, OutputSource::Tensor("p".into()));
    let by_position = || of_source(OutputKind::Number, OutputSource::Json("/outputs/0/data/0".into()));
    let v1 = || of_source(OutputKind::Number, OutputSource::Json("/predictions/0".into()));
    let whole = || of_source(OutputKind::Number, OutputSource::Json("/predictions".into()));
    let tensors = |data: String, kind: &str| {
        format!(r#"{{"outputs":[{{"name":"p","shape":[64,1],"datatype":"{kind}","data":[{data}]}}]}}"#)
    };
    let predictions = |list: String| format!(r#"{{"predictions":[{list}]}}"#);
    for row in [0, 1, 40, 63] {
        for (value, cause) in [
            ("NaN", "nan"),
            ("\"NaN\"", "nan"),
            ("1e999", "nan"),
            ("null", "null"),
            ("1.5", "out_of_range"),
            ("-0.1", "out_of_range"),
            ("\"high\"", "unparsable"),
        ] {
            let found = |rule: OutputRule, body: String, promise| {
                read(&[rule], &HeaderMap::new(), body.as_bytes(), promise).content
            };
            let wanted = Content::Unusable(cause);
            let data = || batch(row, value, "0.5");
            assert_eq!(found(rule(), tensors(data(), "FP64"), Promise::Tensors), wanted, "{row} {value}");
            assert_eq!(found(by_position(), tensors(data(), "FP64"), Promise::Tensors), wanted, "{row} {value}");
            assert_eq!(found(v1(), predictions(data()), Promise::Predictions), wanted, "{row} {value}");
            assert_eq!(found(whole(), predictions(data()), Promise::Predictions), wanted, "{row} {value}");
            let nested = batch(row, &format!("[{value}]"), "[0.5]");
            assert_eq!(found(rule(), tensors(nested, "FP64"), Promise::Tensors), wanted, "{row} {value}");
            let first = OutputRule { rows: BatchRows::First, ..rule() };
            let of_first = if row == 0 { wanted } else { Content::Good };
            assert_eq!(found(first, tensors(data(), "X"), Promise::Tensors), of_first, "{row} {value}");
        }
        for (value, cause) in [("null", "null"), ("\"\"", "empty"), ("[]", "empty")] {
            let body = tensors(batch(row, value, "\"a\""), "BYTES");
            let found = read(&[tensor_label()], &HeaderMap::new(), body.as_bytes(), Promise::Nothing).content;
            assert_eq!(found, Content::Unusable(cause), "{row} {value}");
        }
        for (value, cause) in [
            ("{}", "missing"),
            ("1", "missing"),
            (r#"{"label":null}"#, "null"),
            (r#"{"label":""}"#, "empty"),
            (r#"{"label":{}}"#, "unparsable"),
        ] {
            let body = predictions(batch(row, value, r#"{"label":"a"}"#));
            let found = read(&[label()], &HeaderMap::new(), body.as_bytes(), Promise::Predictions);
            assert_eq!(found.content, Content::Unusable(cause), "{row} {value}");
            let optional = OutputRule { required: false, ..label() };
            let found = read(&[optional], &HeaderMap::new(), body.as_bytes(), Promise::Predictions).content;
            assert_eq!(found == Content::Good, cause == "missing", "{row} {value}");
        }
    }
}

#[test]
#[expect(clippy::float_cmp, reason = "binary fractions are exact")]
fn the_output_of_a_batch_is_that_of_the_drawn_row() {
    let data = (0..64).map(|row| format!("{}", f64::from(row) / 64.0)).collect::<Vec<_>>().join(",");
    let labels = (0..64).map(|row| format!("\"c{row}\"")).collect::<Vec<_>>().join(",");
    let body = format!(
        r#"{{"outputs":[{{"name":"p","shape":[64],"datatype":"FP64","data":[{data}]}},
            {{"name":"l","shape":[64,1],"datatype":"BYTES","data":[{labels}]}}]}}"#
    );
    let label = OutputRule { name: "label".into(), ..of_source(OutputKind::Class, OutputSource::Tensor("l".into())) };
    let mut rows = std::collections::BTreeSet::new();
    for id in 0..200 {
        let id = format!("request-{id}");
        let sample = Sample::of(&id, 1024);
        let rules = [rule(), label.clone()];
        let headers = HeaderMap::new();
        let found = super::read(&rules, &headers, body.as_bytes(), Written::Json, Promise::Tensors, true, sample);
        let row = sample.drawn(64);
        assert_eq!(found.numbers["score"], row as f64 / 64.0);
        assert_eq!(found.classes["label"], format!("c{row}"), "numbers and classes are of the same row");
        let means = BTreeMap::from([("score".to_owned(), 31.5 / 64.0)]);
        assert_eq!(found.batch, Some(Batch { rows: 64, row: i32::try_from(row).unwrap(), means }));
        rows.insert(row);
    }
    assert!(rows.len() > 55, "{}", rows.len());
}

#[test]
fn a_call_of_one_row_has_no_batch() {
    for body in [
        r#"{"outputs":[{"name":"p","shape":[1],"datatype":"FP64","data":[0.5]}]}"#,
        r#"{"outputs":[{"name":"p","shape":[1,2],"datatype":"FP64","data":[0.5,0.25]}]}"#,
        r#"{"outputs":[{"name":"p","datatype":"FP64","data":[0.5,0.25]}]}"#,
    ] {
        let found = read(&tensor(), &HeaderMap::new(), body.as_bytes(), Promise::Nothing);
        assert_eq!((found.numbers["score"], found.batch), (0.5, None), "{body}");
    }
}

#[test]
#[expect(clippy::float_cmp, reason = "binary fractions are exact")]
fn an_optional_output_has_the_mean_of_the_rows_that_have_it() {
    let score = of_source(OutputKind::Number, OutputSource::Json("/predictions/0/p".into()));
    let rules = [OutputRule { required: false, ..score }];
    let body = br#"{"predictions":[{"p":0.25},{},{"p":0.75},{}]}"#;
    let found = |id: &str| {
        let (headers, sample) = (HeaderMap::new(), Sample::of(id, 8));
        let found = super::read(&rules, &headers, body, Written::Json, Promise::Predictions, true, sample);
        assert_eq!((found.content, found.names.len()), (Content::Good, 0));
        let batch = found.batch.unwrap();
        assert_eq!(batch.means["score"], 0.5);
        let row = usize::try_from(batch.row).unwrap();
        assert_eq!(found.numbers.get("score").copied(), [Some(0.25), None, Some(0.75), None][row]);
        row
    };
    let rows: std::collections::BTreeSet<usize> = (0..40).map(|id| found(&format!("r{id}"))).collect();
    assert_eq!(rows.len(), 4);
    let none = br#"{"predictions":[{"q":1},{"q":2}]}"#;
    let found = read(&rules, &HeaderMap::new(), none, Promise::Predictions);
    assert_eq!(found.names, ["/predictions/0/q"]);
}

#[test]
fn of_a_batch_beyond_the_limit_a_sample_is_read() {
    let found = |id: &str, bad: std::ops::Range<usize>| {
        let data: Vec<&str> = (0..1000).map(|row| if bad.contains(&row) { "2" } else { "0.5" }).collect();
        let body = format!(r#"{{"outputs":[{{"name":"p","shape":[1000],"data":[{}]}}]}}"#, data.join(","));
        let (headers, sample) = (HeaderMap::new(), Sample::of(id, 10));
        super::read(&[rule()], &headers, body.as_bytes(), Written::Json, Promise::Nothing, true, sample).content
    };
    let bad = |range: std::ops::Range<usize>| {
        let of_call = |id: u32| found(&format!("request-{id}"), range.clone()) != Content::Good;
        (0..400).filter(|id| of_call(*id)).count()
    };
    // One row in 1000 is read by 11 in 1000 calls: 4 of 400 are expected.
    assert!(bad(700..701) < 16);
    assert_eq!(bad(700..900), 400, "the rows of a whole part");
}

#[test]
fn the_names_of_an_answer_are_returned_if_a_rule_found_nothing() {
    let names = |source: OutputSource, body: &str| {
        let rule = OutputRule { required: false, ..of_source(OutputKind::Number, source) };
        read(&[rule], &HeaderMap::new(), body.as_bytes(), Promise::Nothing).names
    };
    let tensor = || OutputSource::Tensor("p".into());
    assert_eq!(names(tensor(), r#"{"outputs":[{"name":"x","data":[3]},{"name":"prob","data":[0.5]}]}"#), ["x", "prob"]);
    assert!(names(tensor(), r#"{"outputs":[{"name":"p","data":[0.5]}]}"#).is_empty());
    let pointer = || OutputSource::Json("/score".into());
    let body = r#"{"id":"a","predictions":[{"score":0.5,"a/b":1}],"deep":{"a":{"b":{"c":{"d":1}}}}}"#;
    assert_eq!(names(pointer(), body), ["/id", "/predictions/0/a~1b", "/predictions/0/score"]);
    let many: Vec<String> = (0..100).map(|n| format!("\"n{n}\":{n}")).collect();
    assert_eq!(names(pointer(), &format!("{{{}}}", many.join(","))).len(), NAMES);
    assert!(names(OutputSource::Header("x".into()), body).is_empty());
}

#[test]
fn unusable_answers_of_every_protocol() {
    use Content::{Failed, Good, Unread as Not, Unusable};
    use Promise as P;
    let empty = Unusable("empty");
    for (promise, body, content) in [
        (P::Tensors, r#"{"outputs":[{"name":"p","shape":[1],"datatype":"FP64","data":[NaN]}]}"#, Unusable("nan")),
        (
            P::Tensors,
            r#"{"outputs":[{"name":"p","shape":[2],"datatype":"FP64","data":[null,null]}]}"#,
            Unusable("null"),
        ),
        (P::Tensors, r#"{"outputs":[{"name":"p","shape":[2],"datatype":"FP64","data":[null,1]}]}"#, Good),
        (P::Tensors, r#"{"outputs":[{"name":"boxes","shape":[0,4],"datatype":"FP32","data":[]}]}"#, Good),
        (P::Tensors, r#"{"outputs":[{"name":"p","shape":[1],"datatype":"FP64"}]}"#, Unusable("missing")),
        (P::Tensors, r#"{"outputs":[]}"#, empty),
        (P::Tensors, "{}", Unusable("missing")),
        (P::Tensors, r#"{"error":"CUDA out of memory"}"#, Failed("error_object")),
        (P::Tensors, r#"{"outputs":[{"name":"p","shape":["1"],"datatype":"INT64","data":["7"]}]}"#, Good),
        (P::Tensors, r#"{"outputs":[{"name":"p","shape":["1"],"datatype":"INT64","data":["-7"]}]}"#, Good),
        (P::Tensors, r#"{"outputs":[{"name":"p","shape":[1],"datatype":"UINT64","data":["-7"]}]}"#, Unusable("schema")),
        (P::Tensors, r#"{"outputs":[{"name":"p","shape":[1],"datatype":"INT32","data":["7"]}]}"#, Unusable("schema")),
        (P::Tensors, "<html>", Unusable("html")),
        (P::Tensors, "ok", Unusable("unparsable")),
        (P::Predictions, r#"{"predictions":[NaN]}"#, Unusable("nan")),
        (P::Predictions, r#"{"predictions":[[null]]}"#, Unusable("null")),
        (P::Predictions, r#"{"predictions":[null,2]}"#, Good),
        (P::Predictions, r#"{"predictions":[]}"#, empty),
        (P::Predictions, r#"{"predictions":null}"#, Unusable("missing")),
        (P::Predictions, r#"{"outputs":{"p":[0.5]}}"#, Good),
        (P::Predictions, r#"{"error":{"code":500}}"#, Failed("error_object")),
        (P::Predictions, r#"{"predictions":[1],"error":null}"#, Good),
        (P::Choices, r#"{"error":{"message":"boom"}}"#, Failed("error_object")),
        (P::Choices, r#"{"object":"error","message":"boom","code":500}"#, Failed("error_object")),
        (P::Choices, r#"{"choices":[]}"#, empty),
        (P::Choices, r#"{"id":"c"}"#, Unusable("missing")),
        (P::Choices, r#"{"choices":[{"message":{"role":"assistant","content":null},"finish_reason":"stop"}]}"#, empty),
        (P::Choices, r#"{"choices":[{"message":{"content":"hi"},"finish_reason":"stop"}]}"#, Good),
        (P::Choices, r#"{"choices":[{"message":{"content":null,"audio":{"data":"AA"}}}]}"#, Good),
        (P::Choices, r#"{"choices":[{"text":"hi"}]}"#, Good),
        (
            P::Response,
            r#"{"object":"response","status":"failed","error":{"code":"server_error"},"output":[]}"#,
            Failed("error_object"),
        ),
        (P::Response, r#"{"object":"response","status":"failed","error":null,"output":[]}"#, Failed("error_object")),
        (P::Response, r#"{"object":"response","status":"completed","output":[]}"#, empty),
        (P::Embeddings, r#"{"data":[{"index":0,"embedding":[NaN,NaN]}]}"#, Unusable("nan")),
        (P::Embeddings, r#"{"data":[{"index":0,"embedding":[]}]}"#, empty),
        (P::Embeddings, r#"{"data":[{"index":0,"embedding":"AAAA"}]}"#, Good),
        (P::Json, r#"{"text_output":"hi"}"#, Good),
        (P::Json, r#"{"error":"boom"}"#, Failed("error_object")),
        (P::Nothing, r#"{"score":null}"#, Unusable("null")),
        (P::Nothing, r#"{"score":0.5,"error":0.01}"#, Good),
        (P::Nothing, r#"{"score":0.5,"error":""}"#, Good),
        (P::Nothing, r#"[{"error":"boom"}]"#, Failed("error_object")),
        (P::Nothing, "{}", empty),
        (P::Nothing, "0.73", Good),
        (P::Nothing, "plain text", Not(Unread::ContentType)),
        (P::Nothing, "<!DOCTYPE html><p>", Unusable("html")),
    ] {
        assert_eq!(read(&[], &HeaderMap::new(), body.as_bytes(), promise).content, content, "{promise:?} {body}");
        let marked = [b"\xef\xbb\xbf", body.as_bytes()].concat();
        if !matches!(content, Not(_) | Unusable("html" | "unparsable")) {
            assert_eq!(read(&[], &of_type("text/json"), &marked, promise).content, content, "with a mark: {body}");
        }
    }
}

#[test]
fn json_is_read_under_many_content_types() {
    let answer = br#"{"outputs":[{"name":"p","shape":[1],"datatype":"FP64","data":[0.25]}]}"#;
    for kind in [
        "text/html; charset=utf-8",
        "text/plain",
        "text/json",
        "application/json",
        "application/x+json",
        "application/octet-stream",
    ] {
        let outputs = read(&tensor(), &of_type(kind), answer, Promise::Tensors);
        assert_eq!((outputs.numbers["score"], outputs.content), (0.25, Content::Good), "{kind}");
    }
    let picture = read(&tensor(), &of_type("image/png"), b"\x89PNG", Promise::Tensors);
    assert_eq!(picture.content, Content::Unread(Unread::ContentType));
    assert_eq!(read(&[], &of_type("text/html"), b"oops", Promise::Nothing).content, Content::Unusable("html"));
    let bytes = read(&[], &of_type("application/octet-stream"), b"\0\x01", Promise::Tensors);
    assert_eq!(bytes.content, Content::Unread(Unread::ContentType));
}

#[test]
fn an_empty_answer_is_unusable_unless_its_status_allows_it() {
    let sample = Sample::of("r", 1024);
    let empty = |promise, ok| super::read(&[], &HeaderMap::new(), b"", Written::Text, promise, ok, sample).content;
    assert_eq!(empty(Promise::Nothing, true), Content::Unusable("empty"));
    assert_eq!(empty(Promise::Nothing, false), Content::Unread(Unread::NoContent));
    assert_eq!(empty(Promise::Tensors, false), Content::Unusable("empty"));
    let looked_into = super::read(&tensor(), &HeaderMap::new(), b"", Written::Text, Promise::Nothing, false, sample);
    assert_eq!(looked_into.content, Content::Unusable("empty"));
}

#[test]
fn classes_and_headers() {
    let rules = [
        of_source(OutputKind::Class, OutputSource::Json("/predictions/0/label".into())),
        OutputRule {
            name: "tokens".into(),
            max: None,
            ..of_source(OutputKind::Number, OutputSource::Header("x-n".into()))
        },
    ];
    let mut headers = HeaderMap::new();
    headers.insert("x-n", "12".parse().unwrap());
    let outputs = read(&rules, &headers, br#"{"predictions":[{"label":"fraud"}]}"#, Promise::Nothing);
    assert_eq!(outputs.classes["score"], "fraud");
    assert_eq!(outputs.numbers, BTreeMap::from([("tokens".to_owned(), 12.0)]));
    let long = format!(r#"{{"predictions":[{{"label":"{}"}}]}}"#, "é".repeat(500));
    let outputs = read(&rules, &headers, long.as_bytes(), Promise::Nothing);
    assert_eq!(outputs.classes["score"].len(), LONGEST);
}

#[test]
fn rules_that_read_only_headers_leave_the_body_to_the_census() {
    let tokens = OutputRule { max: None, ..of_source(OutputKind::Number, OutputSource::Header("x-n".into())) };
    let mut headers = of_type("application/json");
    headers.insert("x-n", "12".parse().unwrap());
    let outputs = |body: &[u8]| read(std::slice::from_ref(&tokens), &headers, body, Promise::Predictions);
    let numbers = BTreeMap::from([("score".to_owned(), 12.0)]);
    for (body, missing_share, content) in [
        (&br#"{"predictions":[1,null]}"#[..], Some(0.5), Content::Good),
        // Not strictly valid JSON, but read anyway.
        (br#"{"predictions":[NaN,1]}"#, Some(0.5), Content::Good),
        (b"{}", None, Content::Unusable("missing")),
        (br#"{"predictions":[1"#, None, Content::Unusable("unparsable")),
        (b"", None, Content::Unusable("empty")),
    ] {
        let numbers = numbers.clone();
        let expected = Outputs { numbers, content, missing_share, ..Outputs::default() };
        assert_eq!(outputs(body), expected, "{}", body.escape_ascii());
    }
}

proptest! {
    /// The mean is exact to rounding, and within the range of the numbers.
    #[test]
    fn means_are_bounded(numbers in proptest::collection::vec(-1e3..1e3_f64, 1..200), huge: bool) {
        let scale = if huge { f64::MAX / 1e3 } else { 1.0 };
        let mut mean = Mean::default();
        for number in &numbers {
            mean.add(number * scale);
        }
        let found = mean.value().unwrap() / scale;
        let exact = numbers.iter().sum::<f64>() / numbers.len() as f64;
        prop_assert!((found - exact).abs() < 1e-9, "{} {}", found, exact);
        let bounds = numbers.iter().fold((f64::MAX, f64::MIN), |(low, high), n| (low.min(*n), high.max(*n)));
        prop_assert!(mean.value().unwrap() >= bounds.0 * scale && mean.value().unwrap() <= bounds.1 * scale);
    }

    /// Reading any answer neither panics nor exceeds the memory bound, and all numbers are finite.
    #[test]
    fn any_answer_can_be_read(body in proptest::collection::vec(any::<u8>(), 0..200), text in ".{0,200}") {
        for body in [body.as_slice(), text.as_bytes(), format!("{{\"outputs\":[{{\"name\":\"p\",\"data\":[{text}]}}]}}").as_bytes()] {
            for promise in [Promise::Nothing, Promise::Tensors, Promise::Choices, Promise::Embeddings] {
                let outputs = read(&tensor(), &HeaderMap::new(), body, promise);
                prop_assert!(outputs.numbers.values().all(|number| number.is_finite()));
                prop_assert!(outputs.content != Content::Good || !outputs.numbers.is_empty());
            }
        }
    }

    /// A body gets the same result whether or not its values are kept.
    #[test]
    fn the_fast_path_gives_the_same_result(text in r#"[\[\]{}",:0-9anul.-]{0,60}"#, value in ".{0,10}") {
        for body in [text.clone(), format!(r#"{{"predictions":[{text}]}}"#), format!(r#"{{"error":"{value}","predictions":[1]}}"#)] {
            for promise in [Promise::Nothing, Promise::Json, Promise::Tensors, Promise::Predictions] {
                let Some(quick) = Census::of_json(body.as_bytes(), promise) else { continue };
                let slow = Encoding::Json.read(body.as_bytes()).map(|value| Census::of(&value, promise));
                prop_assert_eq!(Some(quick), slow, "{}", body);
            }
        }
    }
}
