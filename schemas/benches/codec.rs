//! Benchmarks encoding and decoding of predictions: `cargo bench -p serin-schemas --bench codec`.

use std::hint::black_box;

use apache_avro::{reader::datum::GenericDatumReader, writer::datum::GenericDatumWriter};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use serin_schemas::{
    codec::{self, Record},
    envelope::{self, Envelope},
    event::EventRecord,
    ids::EventTime,
    records::Prediction,
};

const PREDICTION: &str = include_str!("../tests/golden/prediction.v1.json");

fn prediction(c: &mut Criterion) {
    let record: Prediction = serde_json::from_str(PREDICTION).expect("golden value");
    let body = codec::encode(&record).expect("it fits");
    let mut group = c.benchmark_group(format!("prediction of {} bytes", body.len()));
    group.throughput(Throughput::Elements(1));
    group.bench_function("encode", |b| b.iter(|| codec::encode(black_box(&record))));
    let writer = GenericDatumWriter::builder(Prediction::schema()).human_readable(false).build().expect("valid schema");
    group.bench_function("encode by the names of the fields", |b| {
        b.iter(|| {
            let mut body = Vec::with_capacity(256);
            writer.write_ser(&mut body, black_box(&record)).map(|_| body)
        });
    });
    group.bench_function("decode", |b| b.iter(|| codec::decode::<Prediction>(1, black_box(&body))));
    group.bench_function("decode by resolution", |b| {
        b.iter(|| codec::decode_written_by::<Prediction>(1, Prediction::schema(), black_box(&body)));
    });
    let writer = GenericDatumWriter::builder(Prediction::schema()).build().expect("valid schema");
    group.bench_function("encode by the generic path", |b| {
        b.iter(|| writer.write_value_to_vec(apache_avro::to_value(black_box(&record)).expect("a value")));
    });
    let reader = GenericDatumReader::builder(Prediction::schema()).build().expect("valid schema");
    group.bench_function("decode to a generic value", |b| b.iter(|| reader.read_value(&mut black_box(&body[..]))));
    let envelope = Envelope { id: "0192", source: "/routers/r0", subject: "flights", time: EventTime::from_secs(1) };
    group.bench_function("headers", |b| b.iter(|| envelope::headers::<Prediction>(black_box(&envelope))));
    let headers = envelope::headers::<Prediction>(&envelope);
    group.bench_function("headers and body to a record", |b| {
        b.iter(|| EventRecord::decode(black_box(&headers), black_box(&body)));
    });
    group.finish();
}

criterion_group!(benches, prediction);
criterion_main!(benches);
