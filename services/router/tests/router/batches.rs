//! Requests with several rows: each row has its own segments and features, in every protocol and encoding.

use http_body_util::{BodyExt as _, Full};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde_json::{Value, json};
use serin_schemas::records::Prediction;

use crate::{
    harness::{Bench, config, table},
    outcomes::{INFER, STREAM, V1, V2, message},
    rows::{ROWS, compressed_message, encoded, field, infer_response, scores, v2},
    upstreams::{Reply, Server},
};

/// A request of one kind.
struct Asked {
    path: &'static str,
    /// Where the rules find the country and the amount.
    country: Value,
    amount: Value,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
}

fn countries() -> Vec<String> {
    (0..ROWS).map(|row| format!("c{row}")).collect()
}

fn amounts() -> Vec<usize> {
    (0..ROWS).collect()
}

/// An Open Inference Protocol request of tensors with two columns, whose second column is the same in all rows.
fn tensors() -> Value {
    let (countries, amounts) = (countries(), amounts());
    let countries: Vec<&str> = countries.iter().flat_map(|country| [country.as_str(), "x"]).collect();
    let nested: Vec<[usize; 2]> = amounts.iter().map(|amount| [*amount, 99]).collect();
    json!({"inputs": [
        {"data": [7], "shape": [1], "name": "all", "datatype": "INT64"},
        {"data": countries, "name": "country", "shape": [ROWS, 2], "datatype": "BYTES"},
        {"name": "amount", "shape": [ROWS, 2], "datatype": "INT64", "data": nested},
    ]})
}

/// The same with raw tensors, whose amounts are between the countries and another tensor.
fn binary() -> (Vec<u8>, usize) {
    let texts: Vec<u8> = countries().iter().flat_map(|text| text_with_length(text)).collect();
    let numbers: Vec<u8> = amounts().iter().flat_map(|amount| (*amount as f32).to_le_bytes()).collect();
    let size = |bytes: &[u8]| json!({"binary_data_size": bytes.len()});
    let head = json!({"inputs": [
        {"name": "country", "shape": [ROWS], "datatype": "BYTES", "parameters": size(&texts)},
        {"name": "amount", "shape": [ROWS, 1], "datatype": "FP32", "parameters": size(&numbers)},
        {"name": "other", "shape": [1], "datatype": "FP32", "parameters": size(&[0; 4])},
    ]})
    .to_string();
    let length = head.len();
    ([head.into_bytes(), texts, numbers, vec![0; 4]].concat(), length)
}

fn text_with_length(text: &str) -> Vec<u8> {
    [&u32::try_from(text.len()).unwrap().to_le_bytes()[..], text.as_bytes()].concat()
}

/// A `ModelInferRequest`, with typed or raw values.
fn infer_request(typed: bool) -> Vec<u8> {
    let tensor = |name: &[u8], datatype: &[u8], contents: Vec<u8>| {
        let head = [field(1, name), field(2, datatype), field(3, &[ROWS as u8, 1])].concat();
        field(5, &[head, if typed { field(5, &contents) } else { Vec::new() }].concat())
    };
    let texts: Vec<u8> = countries().iter().flat_map(|text| field(8, text.as_bytes())).collect();
    // Numbers from 0 to 63 have one byte each.
    let numbers: Vec<u8> = amounts().iter().map(|amount| *amount as u8).collect();
    let raw_texts: Vec<u8> = countries().iter().flat_map(|text| text_with_length(text)).collect();
    let raw_numbers: Vec<u8> = amounts().iter().flat_map(|amount| (*amount as i64).to_le_bytes()).collect();
    let raw = if typed { Vec::new() } else { [field(7, &raw_texts), field(7, &raw_numbers)].concat() };
    let tensors = [tensor(b"country", b"BYTES", texts), tensor(b"amount", b"INT64", field(3, &numbers))];
    [field(1, b"flights"), tensors.concat(), raw].concat()
}

/// The same rows in every protocol and encoding.
fn requests() -> Vec<Asked> {
    let input = |path, headers, body| Asked {
        path,
        country: json!({"input": "country"}),
        amount: json!({"input": "amount"}),
        headers,
        body,
    };
    let pointers = |path, country: &str, amount: &str, headers, body: Vec<u8>| Asked {
        path,
        country: json!({"json": country}),
        amount: json!({"json": amount}),
        headers,
        body,
    };
    let v2 = tensors().to_string().into_bytes();
    let instances: Vec<Value> = countries()
        .into_iter()
        .zip(amounts())
        .map(|(country, amount)| json!({"country": country, "amount": [amount, 99]}))
        .collect();
    let v1 = json!({ "instances": instances }).to_string().into_bytes();
    let columns = json!({"inputs": {"country": countries(), "amount": amounts()}}).to_string().into_bytes();
    let (raw, length) = binary();
    let mut all = vec![
        input(V2, vec![], v2.clone()),
        pointers(V2, "/inputs/1/data/0", "/inputs/2/data", vec![], v2.clone()),
        input(V2, vec![("inference-header-content-length", length.to_string())], raw),
        pointers(V1, "/instances/0/country", "/instances/0/amount", vec![], v1.clone()),
        pointers(V1, "/inputs/country/0", "/inputs/amount", vec![], columns),
    ];
    let encoding = |name: &str| vec![("content-encoding", name.to_owned())];
    all.extend(encoded(&v2).map(|(name, body)| input(V2, encoding(name), body)));
    all.extend(
        encoded(&v1)
            .map(|(name, body)| pointers(V1, "/instances/0/country", "/instances/0/amount/0", encoding(name), body)),
    );
    for typed in [true, false] {
        let request = infer_request(typed);
        for path in [INFER, STREAM] {
            all.push(input(path, vec![], message(&request)));
            let packed = encoded(&request);
            all.extend(
                packed.map(|(name, body)| {
                    input(path, vec![("grpc-encoding", name.to_owned())], compressed_message(&body))
                }),
            );
        }
    }
    all
}

/// The answer to a request with as many rows.
fn answer(path: &str) -> Reply {
    let scores = scores(None);
    let list: Vec<String> = scores.iter().map(f64::to_string).collect();
    match path {
        V2 => Reply::ok(v2(&scores)),
        V1 => Reply::ok(format!(r#"{{"predictions":[{}]}}"#, list.join(","))),
        INFER => Reply::grpc(message(&infer_response(&scores, true)), "0"),
        _ => Reply::grpc(message(&field(2, &infer_response(&scores, true))), "0"),
    }
}

/// One call to a canary, whose rules read all rows or the first one.
async fn report(asked: &Asked, rows: &str, reply: Reply) -> Prediction {
    let server = Server::start(reply).await;
    let bench = Bench::start(config()).await;
    let mut split = table(1, &server.url(), &server.url(), (10_000, 0));
    let country = json!([{"name": "country", "source": asked.country, "rows": rows}]);
    split.segments = country.to_string();
    let age = json!({"name": "age", "source": {"header": "x-n"}, "computedAt": asked.amount, "rows": rows});
    let amount = json!({"name": "amount", "source": asked.amount, "rows": rows});
    let kind = json!({"name": "class", "kind": "class", "source": asked.country, "rows": rows});
    split.policy = json!({"features": [amount, age, kind]}).to_string();
    let output = if asked.path == V1 { r#"{"json":"/predictions/0"}"# } else { r#"{"tensor":"p"}"# };
    split.outputs = format!(r#"[{{"name":"p","source":{output},"min":0,"max":1}}]"#);
    bench.route(&split).await;
    let grpc = asked.path.starts_with("/inference.");
    let client: Client<HttpConnector, Full<bytes::Bytes>> =
        Client::builder(TokioExecutor::new()).http2_only(grpc).build_http();
    let mut request = http::Request::post(format!("http://{}{}", bench.router.data_addr(), asked.path))
        .header("content-type", if grpc { "application/grpc" } else { "application/json" });
    for (name, value) in &asked.headers {
        request = request.header(*name, value);
    }
    let got = client.request(request.body(Full::from(asked.body.clone())).unwrap()).await.unwrap();
    got.into_body().collect().await.unwrap();
    bench.predictions(1).await.remove(0)
}

#[tokio::test(flavor = "multi_thread")]
#[expect(clippy::float_cmp, reason = "small whole numbers are exact")]
async fn a_row_has_the_segments_and_features_of_its_own_input() {
    for asked in requests() {
        let shown = format!("{} {} {:?}", asked.path, asked.country, asked.headers);
        let found = report(&asked, "all", answer(asked.path)).await;
        let row = found.batch.as_ref().unwrap_or_else(|| panic!("{shown}: {found:#?}")).row;
        assert_eq!(found.segments["country"], format!("c{row}"), "{shown}");
        assert_eq!(found.classes["class"], format!("c{row}"), "{shown}");
        assert_eq!(found.outputs["amount"], f64::from(row), "{shown}");
        assert_eq!(found.outputs["p"], f64::from(row) / ROWS as f64, "{shown}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rule_may_ask_for_the_first_row_of_a_request() {
    for asked in requests().into_iter().step_by(3) {
        let found = report(&asked, "first", answer(asked.path)).await;
        assert_eq!((found.segments["country"].as_str(), found.outputs["amount"]), ("c0", 0.0), "{}", asked.path);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_fails_counts_in_the_segment_of_a_drawn_row() {
    // The same row as that of a good answer, so that a failure does not move calls between segments.
    let asked = &requests()[0];
    let found = report(asked, "all", Reply { status: 500, ..Reply::ok("") }).await;
    let row = serin_schemas::records::Batch::drawn(found.request_id.as_str(), ROWS);
    assert_eq!(found.segments["country"], format!("c{row}"));
}

#[tokio::test(flavor = "multi_thread")]
#[expect(clippy::float_cmp, reason = "small whole numbers are exact")]
async fn values_that_belong_to_all_rows_are_those_of_the_call() {
    let body = json!({"parameters": {"tier": "gold"}, "inputs": [
        {"name": "all", "shape": [1], "datatype": "INT64", "data": [7]},
        {"name": "ragged", "shape": [64], "datatype": "INT64", "data": [1, 2, 3]},
        {"name": "country", "shape": [64], "datatype": "BYTES", "data": countries()},
    ]});
    for (path, source, expected) in [
        (V2, json!({"input": "all"}), 7.0),
        (V2, json!({"input": "ragged"}), 1.0),
        (V2, json!({"json": "/inputs/0/data/0"}), 7.0),
        (V2, json!({"json": "/inputs/1/data/2"}), 3.0),
        (V1, json!({"json": "/instances/2/amount"}), 2.0),
        (V1, json!({"json": "/total"}), 5.0),
    ] {
        let instances: Vec<Value> = amounts().iter().map(|amount| json!({"amount": amount})).collect();
        let v1 = json!({"instances": instances, "total": 5});
        let body = if path == V1 { &v1 } else { &body };
        let body = body.to_string().into_bytes();
        let asked = Asked { path, country: json!({"header": "x-n"}), amount: source, headers: vec![], body };
        let found = report(&asked, "all", answer(path)).await;
        assert_eq!(found.outputs["amount"], expected, "{path} {}", asked.amount);
    }
}
