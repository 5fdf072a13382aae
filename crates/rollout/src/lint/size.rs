//! Size limits of a spec. Every change of a rollout is a record with the spec and what warm-up froze. A spec is refused if a record of
//! its rollout could exceed the size that a topic accepts.

use serin_spec::{MAX_SEGMENT_VALUE_BYTES, RolloutSpec};

use super::Found;

/// Maximum size of a spec as normalized JSON. A model's row contains up to nine specs.
pub const MAX_SPEC_BYTES: usize = 256 << 10;

/// Maximum size of a spec together with what warm-up can freeze. By default a broker accepts records of 1,048,588 bytes. The rest
/// is for the other fields of a control record.
pub const MAX_CONTROL_BYTES: usize = 1_000_000;

/// Maximum size of a frozen segment value as JSON: each byte may need a backslash, plus two quotes and a comma.
const FROZEN_VALUE_BYTES: usize = 2 * MAX_SEGMENT_VALUE_BYTES + 3;

/// Maximum number of metrics of a rollout.
const MAX_METRICS: usize = 200;

/// Maximum number of segments of a rollout. Warm-up keeps 200 values of each.
const MAX_SEGMENTS: usize = 50;

/// Maximum number of summaries per arm and window. Each metric has one summary for all traffic, and during warm-up 201 for each of
/// its segments.
const MAX_SUMMARIES: usize = 100_000;

/// Maximum length of a name. Events do not accept longer ones.
const MAX_NAME_BYTES: usize = 256;

pub(super) fn lint(spec: &RolloutSpec, found: &mut Found) {
    names(spec, found);
    let metrics = spec.metrics.len();
    if metrics > MAX_METRICS {
        let message = format!("there are {metrics} metrics; a rollout may have at most {MAX_METRICS}");
        found.error("metrics", message, "keep those that affect the decision, or split the rollout");
        return;
    }
    let segments = spec.segments.len();
    if segments > MAX_SEGMENTS {
        let message = format!("there are {segments} segments; a rollout may have at most {MAX_SEGMENTS}");
        found.error("segments", message, "keep those in which the canary may differ");
        return;
    }
    let summaries: usize = spec.metrics.iter().map(|metric| 1 + 201 * metric.segments.len()).sum();
    if summaries > MAX_SUMMARIES {
        let message = format!(
            "the metrics in their segments need {summaries} summaries per window; the maximum is {MAX_SUMMARIES}"
        );
        found.error("metrics", message, "judge fewer metrics per segment");
        return;
    }
    let normalized = spec.normalized();
    let bytes = json_bytes(&normalized);
    if bytes > MAX_SPEC_BYTES {
        let (list, part) = largest_part(&normalized);
        found.error(
            list,
            format!("as JSON the spec has {bytes} bytes; the maximum is {MAX_SPEC_BYTES}"),
            format!("shorten it: `{list}` has {part} of these bytes"),
        );
        return;
    }
    let values: usize = normalized.segments.iter().map(|segment| segment.top).sum();
    let largest = bytes + values * FROZEN_VALUE_BYTES;
    if largest > MAX_CONTROL_BYTES {
        found.error(
            "segments",
            format!(
                "with the {values} values that warm-up may freeze, the rollout's records have up to {largest} bytes; the maximum is \
                 {MAX_CONTROL_BYTES}"
            ),
            "use fewer segments, or a smaller `top`",
        );
    }
}

fn json_bytes<T: serde::Serialize>(part: &T) -> usize {
    // This cannot fail, because all keys of its maps are text.
    serde_json::to_vec(part).map_or(usize::MAX, |json| json.len())
}

/// The list that has most of the bytes of a spec.
fn largest_part(spec: &RolloutSpec) -> (&'static str, usize) {
    let parts = [
        ("metrics", json_bytes(&spec.metrics)),
        ("segments", json_bytes(&spec.segments)),
        ("outputs", json_bytes(&spec.outputs)),
        ("steps", json_bytes(&spec.steps)),
    ];
    let rest = json_bytes(spec).saturating_sub(parts.iter().map(|(_, bytes)| bytes).sum());
    parts.into_iter().chain([("model", rest)]).max_by_key(|(_, bytes)| *bytes).unwrap_or(("metrics", 0))
}

fn names(spec: &RolloutSpec, found: &mut Found) {
    let mut check = |path: String, name: &str| {
        if name.len() > MAX_NAME_BYTES {
            let message = format!("the name has {} bytes; the maximum is {MAX_NAME_BYTES}", name.len());
            found.error(path, message, "use a shorter one");
        }
    };
    check("model".to_owned(), spec.model.as_str());
    check("stable.version".to_owned(), spec.stable.version.as_str());
    check("canary.version".to_owned(), spec.canary.version.as_str());
    for (index, segment) in spec.segments.iter().enumerate() {
        check(format!("segments[{index}].name"), &segment.name);
    }
    for (index, output) in spec.outputs.iter().enumerate() {
        check(format!("outputs[{index}].name"), &output.name);
    }
    for (index, metric) in spec.metrics.iter().enumerate() {
        check(format!("metrics[{index}].name"), &metric.name);
        for label in metric.labels() {
            check(format!("metrics[{index}].source"), label);
        }
    }
}
