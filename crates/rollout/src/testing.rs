//! Shared fixtures of this crate's tests.

use serin_spec::RolloutSpec;

/// A valid spec.
pub(crate) const SPEC: &str = r"apiVersion: serin.dev/v1
kind: Rollout
model: flights
stable:
  version: v1
  url: http://localhost:9001
canary:
  version: v2
  url: http://localhost:9002
steps:
  - weight: 5%
    bake: {min: 10m, max: 4h}
  - weight: 25%
    bake: {min: 1h, max: 1d, minEvents: 100}
    require: pass
segments:
  - name: origin
    source: {input: origin}
outputs:
  - name: late
    source: {tensor: probability}
    min: 0
    max: 1
metrics:
  - name: wrong
    kind: rate
    source: {wrong: {output: late, label: late}}
    margin: {absolute: 0.02}
    segments: [origin]
    maturity: 20m
  - name: latency_p99
    kind: {quantile: {level: 0.99}}
    source: latency
    margin: {relative: 0.3, absolute: 5}
";

pub(crate) fn spec() -> RolloutSpec {
    crate::parse_yaml(SPEC).unwrap()
}
