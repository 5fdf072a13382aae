//! Batches: every row of an answer is read, in every protocol and encoding.

use serde_json::json;
use serin_schemas::records::{Arm, Outcome, Prediction};

use crate::{
    harness::{Bench, Events, config, table, with_shadow},
    outcomes::{INFER, STREAM, V1, V2, call_with, message},
    requests::{deflate, gzip, zstd},
    upstreams::{Reply, Server},
};

pub(crate) const ROWS: usize = 64;

/// Scores from 0 to below 1, of which one row may be replaced.
pub(crate) fn scores(bad: Option<(usize, f64)>) -> Vec<f64> {
    let score = |row: usize| row as f64 / ROWS as f64;
    (0..ROWS).map(|row| bad.filter(|(place, _)| *place == row).map_or(score(row), |(_, value)| value)).collect()
}

/// As Python's encoder writes numbers.
pub(crate) fn list(scores: &[f64]) -> String {
    let text = |score: &f64| if score.is_nan() { "NaN".to_owned() } else { score.to_string() };
    scores.iter().map(text).collect::<Vec<_>>().join(", ")
}

pub(crate) fn v2(scores: &[f64]) -> String {
    let data = list(scores);
    format!(r#"{{"outputs":[{{"name":"p","shape":[{ROWS},1],"datatype":"FP64","data":[{data}]}}]}}"#)
}

pub(crate) fn raw(scores: &[f64]) -> Vec<u8> {
    scores.iter().flat_map(|score| score.to_le_bytes()).collect()
}

fn binary(scores: &[f64]) -> Reply {
    let raw = raw(scores);
    let head = format!(
        r#"{{"outputs":[{{"name":"p","shape":[{ROWS},1],"datatype":"FP64","parameters":{{"binary_data_size":{}}}}}]}}"#,
        raw.len()
    );
    let length = head.len().to_string();
    Reply::ok([head.into_bytes(), raw].concat())
        .with("content-type", "application/octet-stream")
        .with("inference-header-content-length", &length)
}

/// A field of a Protocol Buffers message of at most 16,383 bytes.
pub(crate) fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    let (low, high) = ((bytes.len() & 0x7f) as u8, (bytes.len() >> 7) as u8);
    let length = if high == 0 { vec![low] } else { vec![low | 0x80, high] };
    [&[number << 3 | 2][..], &length, bytes].concat()
}

/// A `ModelInferResponse`, with typed or raw values.
pub(crate) fn infer_response(scores: &[f64], typed: bool) -> Vec<u8> {
    let mut tensor = [field(1, b"p"), field(2, b"FP64"), field(3, &[ROWS as u8, 1])].concat();
    if typed {
        tensor.extend(field(5, &field(7, &raw(scores))));
    }
    let raw = if typed { Vec::new() } else { field(6, &raw(scores)) };
    [field(1, b"flights"), field(5, &tensor), raw].concat()
}

/// A message whose content is compressed.
pub(crate) fn compressed_message(packed: &[u8]) -> Vec<u8> {
    let mut message = message(packed);
    message[0] = 1;
    message
}

/// A body in every encoding, with the name of the encoding.
pub(crate) fn encoded(body: &[u8]) -> [(&'static str, Vec<u8>); 4] {
    [("gzip", gzip(body)), ("deflate", deflate(body)), ("br", brotli(body)), ("zstd", zstd(body))]
}

/// A Brotli stream with one uncompressed block.
fn brotli(body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() - 1).unwrap();
    let head = [0x0b | (length << 7) as u8, (length >> 1) as u8, (length >> 9) as u8 | 0x80];
    [&head[..], body, &[3]].concat()
}

/// The same answer in every protocol and encoding, each with the pointer or tensor that a rule names.
fn answers(scores: &[f64]) -> Vec<(&'static str, &'static str, Reply)> {
    const TENSOR: &str = r#"{"tensor":"p"}"#;
    let v1 = || format!(r#"{{"predictions": [{}]}}"#, list(scores));
    let objects: Vec<String> = scores.iter().map(|score| format!(r#"{{"p": {}}}"#, list(&[*score]))).collect();
    let objects = format!(r#"{{"predictions": [{}]}}"#, objects.join(", "));
    let columns = format!(r#"{{"outputs": {{"p": [[{}]]}}}}"#, list(scores).replace(", ", "], ["));
    let grpc = |body: Vec<u8>| Reply::grpc(body, "0");
    let packed = |encoding, body: Vec<u8>| Reply::ok(body).with("content-encoding", encoding);
    let text = v2(scores);
    let mut answers = vec![
        (V2, TENSOR, Reply::ok(text.clone())),
        (V2, r#"{"json":"/outputs/0/data/0"}"#, Reply::ok(text.clone())),
        (V2, TENSOR, binary(scores)),
        (V1, r#"{"json":"/predictions/0"}"#, Reply::ok(v1())),
        (V1, r#"{"json":"/predictions"}"#, Reply::ok(v1())),
        (V1, r#"{"json":"/predictions/0/p"}"#, Reply::ok(objects)),
        (V1, r#"{"json":"/outputs/p/0"}"#, Reply::ok(columns)),
        (INFER, TENSOR, grpc(message(&infer_response(scores, true)))),
        (INFER, TENSOR, grpc(message(&infer_response(scores, false)))),
        (STREAM, TENSOR, grpc(message(&field(2, &infer_response(scores, false))))),
    ];
    answers.extend(encoded(text.as_bytes()).map(|(encoding, body)| (V2, TENSOR, packed(encoding, body))));
    let first = r#"{"json":"/predictions/0"}"#;
    answers.extend(encoded(v1().as_bytes()).map(|(encoding, body)| (V1, first, packed(encoding, body))));
    let unary = encoded(&infer_response(scores, false));
    let stream = encoded(&field(2, &infer_response(scores, true)));
    for (path, bodies) in [(INFER, unary), (STREAM, stream)] {
        answers.extend(
            bodies.map(|(encoding, body)| {
                (path, TENSOR, grpc(compressed_message(&body)).with("grpc-encoding", encoding))
            }),
        );
    }
    answers
}

async fn read(path: &str, source: &str, reply: Reply) -> Prediction {
    call_with(&format!(r#"[{{"name":"p","source":{source},"min":0,"max":1}}]"#), path, reply).await
}

#[tokio::test(flavor = "multi_thread")]
async fn one_bad_row_of_a_batch_makes_the_answer_unusable() {
    for (value, cause) in [(f64::NAN, "nan"), (1.5, "out_of_range")] {
        for (path, source, reply) in answers(&scores(Some((40, value)))) {
            let shown = format!("{path} {source} {:?}", reply.headers);
            let found = read(path, source, reply).await;
            let (outcome, invalid) = (found.outcome, found.invalid_output.as_deref());
            assert_eq!((outcome, invalid), (Some(Outcome::Unusable), Some(cause)), "{shown}");
            assert!(!found.outputs.contains_key("p") && found.batch.is_none(), "{shown}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
#[expect(clippy::float_cmp, reason = "binary fractions are exact")]
async fn a_batch_is_reported_with_the_mean_of_its_rows_and_one_drawn_row() {
    for (path, source, reply) in answers(&scores(None)) {
        let shown = format!("{path} {source} {:?}", reply.headers);
        let found = read(path, source, reply).await;
        assert_eq!(found.outcome, Some(Outcome::Ok), "{shown}");
        let batch = found.batch.unwrap_or_else(|| panic!("{shown}"));
        assert_eq!((batch.rows, batch.means["p"]), (64, 31.5 / 64.0), "{shown}");
        assert_eq!(found.outputs["p"], f64::from(batch.row) / 64.0, "{shown}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn both_answers_to_a_mirrored_call_are_read_in_the_same_row() {
    let stable = Server::start(Reply::ok(v2(&scores(None)))).await;
    let shadow = Server::start(Reply::ok(v2(&scores(Some((64, 0.0)))))).await;
    let bench = Bench::start(config()).await;
    bench.route(&with_shadow(table(1, &stable.url(), &stable.url(), (0, 10_000)), &shadow.url(), 10_000)).await;
    for _ in 0..10 {
        bench.infer(&[]).await;
    }
    let all = bench.predictions(20).await;
    let rows = |arm| {
        let mut rows: Vec<_> = all.iter().filter(|found| found.arm == arm).collect();
        rows.sort_by_key(|found| found.request_id.clone());
        rows.iter().map(|found| (found.request_id.clone(), found.batch.clone().unwrap().row)).collect::<Vec<_>>()
    };
    assert_eq!((rows(Arm::Shadow).len(), rows(Arm::Shadow)), (10, rows(Arm::Control)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_bounds_the_rows_that_are_read() {
    let server = Server::start(Reply::ok(v2(&scores(Some((40, 1.5)))))).await;
    let mut config = config();
    config.limits.rows = 4;
    let bench = Bench::start(config).await;
    bench.route(&table(1, &server.url(), &server.url(), (10_000, 0))).await;
    for _ in 0..40 {
        bench.infer(&[]).await;
    }
    let all = bench.predictions(40).await;
    let unusable = all.iter().filter(|found| found.outcome == Some(Outcome::Unusable)).count();
    // Five of 64 rows are read at most, so three calls of 40 are expected.
    assert!(unusable < 15, "{unusable}");
    let means = all.iter().filter_map(|found| found.batch.as_ref()).map(|batch| batch.means["p"]);
    assert!(means.clone().count() >= 25 && means.clone().all(|mean| (mean - 0.5).abs() < 0.13));
}

#[tokio::test(flavor = "multi_thread")]
async fn batches_whose_rows_do_not_match_their_shape_are_read_as_one_row() {
    let body = |shape: &str, data: &str| {
        Reply::ok(format!(r#"{{"outputs":[{{"name":"p","shape":{shape},"datatype":"FP64","data":{data}}}]}}"#))
    };
    // The values do not fit the shape, which the protocol does not allow.
    let ragged = read(V2, r#"{"tensor":"p"}"#, body("[2]", "[0.25,0.5,0.75]")).await;
    assert_eq!((ragged.outcome, ragged.invalid_output.as_deref()), (Some(Outcome::Unusable), Some("schema")));
    // Rows of different lengths have a first value each.
    let lists = Reply::ok(r#"{"predictions":[[0.25],[0.5,7],[0.75,8,9]]}"#);
    let found = read(V1, r#"{"json":"/predictions/0"}"#, lists).await;
    assert_eq!((found.outcome, found.batch.unwrap().means["p"]), (Some(Outcome::Ok), 0.5));
    let column = Reply::ok(r#"{"predictions":[[0.25,0.25],[0.5],[0.75,0.5]]}"#);
    let found = read(V1, r#"{"json":"/predictions/0/1"}"#, column).await;
    assert_eq!(found.invalid_output.as_deref(), Some("missing"), "the second row has no second value");
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_above_the_limit_are_sampled() {
    for (most, all) in [(64, true), (1, false)] {
        let server = Server::start(Reply::ok(v2(&scores(Some((40, 1.5)))))).await;
        let mut config = config();
        config.limits.rows = most;
        let bench = Bench::start(config).await;
        bench.route(&table(1, &server.url(), &server.url(), (10_000, 0))).await;
        for _ in 0..20 {
            bench.infer(&[]).await;
        }
        let found = bench.predictions(20).await;
        let unusable = found.iter().filter(|found| found.outcome == Some(Outcome::Unusable)).count();
        // Where one of 64 rows is read, few calls find the bad one.
        assert!(if all { unusable == 20 } else { unusable <= 10 }, "{most}: {unusable}");
    }
}

/// A gRPC stream of answers.
fn stream(answers: &[&[f64]]) -> Reply {
    let one = |scores: &&[f64]| {
        let mut tensor = [field(1, b"p"), field(2, b"FP64"), field(3, &[scores.len() as u8])].concat();
        tensor.extend(field(5, &field(7, &raw(scores))));
        message(&field(2, &field(5, &tensor)))
    };
    Reply::grpc(answers.iter().flat_map(one).collect::<Vec<u8>>(), "0")
}

#[tokio::test(flavor = "multi_thread")]
#[expect(clippy::float_cmp, reason = "binary fractions are exact")]
async fn every_answer_of_a_stream_is_read() {
    const TENSOR: &str = r#"{"tensor":"p"}"#;
    for (answers, cause) in [
        (vec![&[0.5][..], &[0.5], &[1.5]], "out_of_range"),
        (vec![&[0.5][..], &[f64::NAN], &[0.5]], "nan"),
        (vec![&[0.5, 0.5][..], &[0.5, 0.5, -0.5]], "out_of_range"),
    ] {
        let found = read(STREAM, TENSOR, stream(&answers)).await;
        assert_eq!((found.outcome, found.invalid_output.as_deref()), (Some(Outcome::Unusable), Some(cause)));
    }
    let found = read(STREAM, TENSOR, stream(&[&[0.0], &[0.25, 0.5], &[0.75]])).await;
    let batch = found.batch.unwrap();
    assert_eq!((found.outcome, batch.rows, batch.means["p"]), (Some(Outcome::Ok), 4, 0.375));
    assert_eq!(found.outputs["p"], f64::from(batch.row) / 4.0);
    let found = read(STREAM, TENSOR, stream(&[&[0.5]])).await;
    assert_eq!((found.outcome, found.batch, found.outputs["p"]), (Some(Outcome::Ok), None, 0.5));
    // More than is kept: what was not read is not taken for good.
    let long: Vec<f64> = vec![0.5; 100];
    let many: Vec<&[f64]> = vec![&long; 1 + config().limits.keep_body / 800];
    let found = read(STREAM, TENSOR, stream(&many)).await;
    assert_eq!((found.outcome, found.unread.as_deref()), (Some(Outcome::Unread), Some("too_large")));
}

#[tokio::test(flavor = "multi_thread")]
async fn of_the_labels_of_a_batch_that_of_the_reported_row_is_written() {
    let server = Server::start(Reply::ok(v2(&scores(None)))).await;
    let bench = Bench::start(config()).await;
    bench.route(&table(1, &server.url(), &server.url(), (10_000, 0))).await;
    let id = bench.infer(&[]).await.header("x-prediction-id").to_owned();
    let row = f64::from(bench.predictions(1).await.remove(0).batch.unwrap().row);
    let labels: Vec<usize> = (0..ROWS).collect();
    let list = json!({"prediction_id": id, "values": {"late": labels}});
    let one_by_one: Vec<_> = labels
        .iter()
        .map(|label| json!({"prediction_id": id, "values": {"late": label}, "row": label, "rows": ROWS, "revision": 1}))
        .collect();
    for (body, accepted) in [(list, 1), (json!(one_by_one), ROWS)] {
        let got = bench.post("/v1/feedback", &[], body.to_string()).await;
        assert_eq!(got.json(), json!({"accepted": accepted}));
    }
    let found: Vec<_> = Events::read(&bench.log).feedback().iter().map(|it| (it.revision, it.values["late"])).collect();
    assert_eq!(found, [(0, row), (1, row)]);
}
