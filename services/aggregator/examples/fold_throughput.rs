//! Measures how many events the fold processes per second on one core:
//! `cargo run --release -p serin-aggregator --example fold_throughput`.
//!
//! 20 % of the predictions belong to canary or control. The rollout has four metrics and 20 segment values plus
//! `other`, with a heartbeat and a commit every 10 000 records. Prints the rate of complete processing (with
//! decoding) and of decoding alone; then the same with a label metric and feedback for every tracked prediction.

#![expect(clippy::disallowed_methods, reason = "this example measures time")]

use std::{hint::black_box, time::Instant};

use bytes::Bytes;
use serde_json::json;
use serin_aggregator::{AggregatorFold, Config};
use serin_schemas::{
    codec,
    envelope::{self, Envelope},
    event::EventRecord,
    ids::{EventTime, Generation},
    records::{Arm, Assignment, Control, Feedback, Heartbeat, Origin, Phase, Prediction, Writer},
};
use serin_spec::Frozen;
use serin_stream::{
    driver::FoldDriver,
    record::{Headers, Record},
};

const EVENTS: i64 = 1_000_000;
const BATCH: i64 = 10_000;

fn main() -> any_error::Result {
    run(false)?;
    run(true)
}

fn run(labels: bool) -> any_error::Result {
    let make = || Box::new(AggregatorFold::new(Config::default(), 0, 1)) as Box<_>;
    let mut harness = FoldDriver::new(make)?;
    let control = control(labels);
    let body = codec::encode(&control)?;
    feed(&mut harness, &wire(&mut FoldDriver::new(make)?, envelope::headers::<Control>(&about()), body))?;

    let (mut spent, mut decoding, mut count) = (0.0, 0.0, 0);
    for batch in 0..EVENTS / BATCH {
        let mut records = Vec::with_capacity(BATCH as usize + 1);
        for n in 0..BATCH {
            let body = codec::encode(&prediction(batch * BATCH + n + 1))?;
            records.push(wire(&mut harness, envelope::headers::<Prediction>(&about()), body));
        }
        for n in (0..BATCH).filter(|n| labels && (n + 1) % 10 < 2) {
            let body = codec::encode(&feedback(batch * BATCH + n + 1))?;
            records.push(wire(&mut harness, envelope::headers::<Feedback>(&about()), body));
        }
        let beat = Heartbeat {
            writer: Writer { name: "router-0".into(), incarnation: 1, seq: (batch + 1) * BATCH },
            low_watermark: at((batch + 1) * BATCH),
            drops: Vec::new(),
            leaving: false,
            sent_at: None,
            relay: false,
        };
        let body = codec::encode(&beat)?;
        records.push(wire(&mut harness, envelope::headers::<Heartbeat>(&about()), body));

        count += records.len();
        let start = Instant::now();
        for record in &records {
            if let Some(value) = &record.value {
                black_box(EventRecord::decode(&record.headers, value)?);
            }
        }
        decoding += start.elapsed().as_secs_f64();
        let start = Instant::now();
        for record in &records {
            feed(&mut harness, record)?;
        }
        harness.commit()?;
        spent += start.elapsed().as_secs_f64();
    }
    let rate = |seconds: f64| count as f64 / seconds / 1e6;
    let fold = spent - decoding;
    let line = format!(
        "{count} records, {}: {:.3} M/s with decoding, {:.3} M/s decoding alone, {:.3} M/s the fold without decoding\n",
        if labels { "with labels" } else { "predictions only" },
        rate(spent),
        rate(decoding),
        rate(fold)
    );
    std::io::Write::write_all(&mut std::io::stdout(), line.as_bytes())?;
    Ok(())
}

/// Any error of the example.
mod any_error {
    pub(crate) type Result = std::result::Result<(), Box<dyn std::error::Error>>;
}

fn feed(harness: &mut FoldDriver, record: &Record) -> any_error::Result {
    match harness.apply(record)?.poison {
        Some(poison) => Err(poison.message.into()),
        None => Ok(()),
    }
}

fn wire(harness: &mut FoldDriver, headers: Headers, body: Vec<u8>) -> Record {
    harness.record("events", 0, 0, Bytes::new(), headers, Some(body.into()))
}

fn about() -> Envelope<'static> {
    Envelope { id: "1", source: "/routers/router-0", subject: "flights", time: EventTime(0) }
}

/// 10 000 events per 10 seconds.
fn at(seq: i64) -> EventTime {
    EventTime(seq * 1000)
}

fn control(labels: bool) -> Control {
    let metric = |name: &str, kind: serde_json::Value, source: serde_json::Value| json!({"name": name, "kind": kind, "source": source, "margin": {"absolute": 0.01}, "segments": ["origin"]});
    let spec = json!({
        "apiVersion": "serin.dev/v1", "kind": "Rollout", "model": "flights",
        "stable": {"version": "v1"}, "canary": {"version": "v2"}, "steps": [{"weight": "10%"}],
        "segments": [{"name": "origin", "source": {"header": "x-origin"}}],
        "metrics": [
            metric("error_rate", json!("rate"), json!("error")),
            metric("invalid_output", json!("rate"), json!("invalid_output")),
            metric("latency_p99", json!({"quantile": {"level": 0.99}}), json!("latency")),
            metric("score", json!({"mean": {"min": 0.0, "max": 1.0}}), json!({"output": "score"})),
        ],
    });
    let mut spec = spec;
    if labels {
        let label = json!({"wrong": {"output": "score", "label": "late"}});
        let mut label = metric("wrong", json!("rate"), label);
        label["maturity"] = "60s".into();
        if let Some(metrics) = spec["metrics"].as_array_mut() {
            metrics.push(label);
        }
    }
    let values = (0..20).map(|n| format!("airport-{n}")).collect();
    let frozen = Frozen { segments: [("origin".to_owned(), values)].into(), warmup_events: 1000 };
    Control {
        model: "flights".into(),
        rollout: "rollout-1".into(),
        generation: Generation(1),
        phase: Phase::Baking,
        step: 0,
        stable: "v1".into(),
        canary: "v2".into(),
        canary_share: 1000,
        control_share: 1000,
        decided_at: EventTime(0),
        spec: spec.to_string(),
        frozen: serde_json::to_string(&frozen).ok(),
        rules: serin_schemas::records::RULES,
        acknowledged: None,
    }
}

fn spread(seq: i64) -> u64 {
    seq.wrapping_mul(0x9E37_79B9_7F4A_7C15_u64 as i64).unsigned_abs()
}

fn request(seq: i64) -> String {
    format!("0198f3c4-7b2a-7c6e-9d5f-{:012x}", spread(seq))
}

fn feedback(seq: i64) -> Feedback {
    Feedback {
        request_id: request(seq).into(),
        observed_at: at(seq),
        revision: 0,
        values: [("late".to_owned(), (seq % 3 / 2) as f64)].into(),
        classes: [].into(),
        writer: Writer { name: "router-1".into(), incarnation: 1, seq },
        credential: None,
    }
}

fn prediction(seq: i64) -> Prediction {
    let arm = match seq % 10 {
        0 => Arm::Canary,
        1 => Arm::Control,
        _ => Arm::Stable,
    };
    let spread = spread(seq);
    Prediction {
        request_id: request(seq).into(),
        model: "flights".into(),
        version: "v2".into(),
        arm,
        assignment: Assignment::Random,
        origin: Origin::Router,
        rollout: Some("rollout-1".into()),
        generation: Generation(1),
        completed_at: at(seq),
        latency_us: Some(2_000 + (spread % 30_000) as i64),
        status: Some(200),
        error: None,
        invalid_output: None,
        outcome: None,
        unread: None,
        batch: None,
        unit: None,
        outputs: [("score".to_owned(), (spread % 1000) as f64 / 1000.0)].into(),
        classes: [].into(),
        segments: [("origin".to_owned(), format!("airport-{}", spread % 25))].into(),
        writer: Writer { name: "router-0".into(), incarnation: 1, seq },
    }
}
