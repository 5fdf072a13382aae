//! Shared fixtures of this crate's tests.

use crate::RolloutSpec;

/// A valid spec.
pub(crate) const SPEC: &str = r#"{
    "apiVersion": "serin.dev/v1", "kind": "Rollout", "model": "flights",
    "stable": {"version": "v1"}, "canary": {"version": "v2"},
    "steps": [{"weight": "5%"}],
    "outputs": [{"name": "late", "source": {"tensor": "probability"}}],
    "metrics": [
        {"name": "wrong", "kind": "rate", "source": {"wrong": {"output": "late", "label": "late"}},
            "margin": {"absolute": 0.02}, "maturity": "20m"},
        {"name": "latency_p99", "kind": {"quantile": {"level": 0.99}}, "source": "latency",
            "margin": {"relative": 0.3, "absolute": 5}}]}"#;

pub(crate) fn spec() -> RolloutSpec {
    serde_json::from_str(SPEC).unwrap()
}
