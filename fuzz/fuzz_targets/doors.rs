//! Reads arbitrary bytes as the input of every door for foreign traffic.
#![no_main]

use serin_doors::{DoorRules, Mapping, cloud::Event, envoy, half::Half, otlp};
use serin_schemas::{
    foreign::{Bounds, json},
    ids::{EventTime, Span},
};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let now = EventTime(1_764_480_000_000_000);
    let (bounds, rules) = (Bounds::new(Some(now), now, Span(600_000_000)), DoorRules::default());
    for is_json in [false, true] {
        let _ = otlp::read(bytes, is_json, &Mapping::default(), &bounds);
    }
    let _ = envoy::read(bytes, &Mapping::default(), &bounds);
    let _ = Half::decode(bytes, &bounds);
    for kind in ["org.kubeflow.serving.inference.response", "io.seldon.serving.inference.response"] {
        let headers = [("ce-type", kind), ("ce-id", "1"), ("ce-requestid", "1"), ("ce-inferenceservicename", "m")];
        let headers = headers.iter().map(|(name, value)| (*name, value.as_bytes()));
        let _ = Half::of(&Event::binary(headers, bytes, true), &rules, &bounds);
    }
    if let Ok(event) = json::parse(bytes).and_then(Event::structured) {
        let _ = Half::of(&event, &rules, &bounds);
    }
});
