//! Helpers of the controller's tests.
#![allow(dead_code, reason = "each test binary uses its part of this")]

use bytes::Bytes;
use serin_schemas::{
    codec,
    envelope::{self, Envelope},
    ids::{EventTime, Generation, RolloutId},
    records::{Action, Command, Decision, Verdict},
};
use serin_stream::record::{Headers, Outgoing, Target};

pub(crate) const SPEC: &str = r"apiVersion: serin.dev/v1
kind: Rollout
model: flights
stable: {version: v1, url: 'http://localhost:9001'}
canary: {version: v2, url: 'http://localhost:9002'}
steps:
  - weight: 5%
    bake: {min: 10m, max: 4h}
  - weight: 25%
    bake: {min: 10m, max: 4h}
    require: pass
outputs:
  - name: late
    source: {tensor: probability}
metrics:
  - name: wrong
    kind: rate
    source: {wrong: {output: late, label: late}}
    margin: {absolute: 0.02}
    maturity: 1h
";

pub(crate) fn headers<R: codec::Record>(id: &str) -> Headers {
    envelope::headers::<R>(&Envelope { id, source: "/test", subject: "flights", time: EventTime(0) })
}

pub(crate) fn body<R: codec::Record>(record: &R) -> Bytes {
    codec::encode(record).unwrap().into()
}

pub(crate) fn outgoing<R: codec::Record>(topic: &'static str, record: &R) -> Outgoing {
    Outgoing {
        topic,
        target: Target::ByKey,
        key: "flights".into(),
        value: Some(body(record)),
        headers: headers::<R>("id"),
        timestamp_ms: None,
    }
}

pub(crate) fn apply(rollout: &str) -> Command {
    let spec = serin_rollout::parse_yaml(SPEC).unwrap();
    let id = format!("apply-{rollout}");
    Command {
        rollout: Some(RolloutId::from(rollout)),
        spec: Some(serde_json::to_string(&spec).unwrap()),
        ..Command::new(id, Action::Apply, "flights".into(), "ada".into(), EventTime::from_secs(0))
    }
}

pub(crate) fn verdict(rollout: &str, generation: i64, secs: i64, decision: Decision) -> Verdict {
    Verdict {
        id: format!("verdict-{secs}"),
        model: "flights".into(),
        rollout: rollout.into(),
        generation: Generation(generation),
        step: 0,
        as_of: EventTime::from_secs(secs),
        decision,
        reasons: Vec::new(),
        score_low: 0.0,
        score_high: 100.0,
        ln_e_rollback: 0.0,
        metrics: Vec::new(),
        groups: Vec::new(),
        stable_is_out_of_date: false,
        arms: Vec::new(),
        health: Vec::new(),
        warmup_events: None,
        frozen: None,
        sentence: "a sentence".into(),
        build: String::new(),
        seen: Vec::new(),
        rules: serin_schemas::records::RULES,
    }
}
