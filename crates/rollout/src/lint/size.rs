//! How large a spec may be. Every change of a rollout is a record that carries the spec, and what warm-up froze: a spec is
//! refused when any record of its rollout could be larger than a topic takes.

use serin_spec::{MAX_SEGMENT_VALUE_BYTES, RolloutSpec};

use super::Found;

/// Largest spec, as normalised JSON. A model's row holds up to nine of them.
pub const MAX_SPEC_BYTES: usize = 256 << 10;

/// Most bytes of a spec and of what warm-up can freeze, together. A broker takes records of 1,048,588 bytes by default; the rest
/// is for what else a control record holds.
pub const MAX_CONTROL_BYTES: usize = 1_000_000;

/// The largest frozen segment value as JSON: each byte may need a backslash, and quotes and a comma come with it.
const FROZEN_VALUE_BYTES: usize = 2 * MAX_SEGMENT_VALUE_BYTES + 3;

/// Most metrics of one rollout.
const MAX_METRICS: usize = 200;

/// Most segments of one rollout. Warm-up keeps 200 values of each.
const MAX_SEGMENTS: usize = 50;

/// Most summaries of one arm and window: of each metric one for all traffic, and while warming up 201 for each of its segments.
const MAX_SUMMARIES: usize = 100_000;

/// Longest name of anything. Longer ones come on no event.
const MAX_NAME_BYTES: usize = 256;

pub(super) fn lint(spec: &RolloutSpec, found: &mut Found) {
    names(spec, found);
    let metrics = spec.metrics.len();
    if metrics > MAX_METRICS {
        let message = format!("there are {metrics} metrics; a rollout may have {MAX_METRICS}");
        found.error("metrics", message, "keep those that decide, or split the rollout");
        return;
    }
    let segments = spec.segments.len();
    if segments > MAX_SEGMENTS {
        let message = format!("there are {segments} segments; a rollout may have {MAX_SEGMENTS}");
        found.error("segments", message, "keep those in which the canary may differ");
        return;
    }
    let summaries: usize = spec.metrics.iter().map(|metric| 1 + 201 * metric.segments.len()).sum();
    if summaries > MAX_SUMMARIES {
        let message =
            format!("its metrics in their segments need {summaries} summaries per window; at most {MAX_SUMMARIES}");
        found.error("metrics", message, "judge fewer metrics per segment");
        return;
    }
    let normalised = spec.normalised();
    let bytes = json_bytes(&normalised);
    if bytes > MAX_SPEC_BYTES {
        let (list, part) = largest_part(&normalised);
        found.error(
            list,
            format!("as JSON the spec has {bytes} bytes; at most {MAX_SPEC_BYTES} are taken"),
            format!("shorten it: `{list}` takes {part} bytes of it"),
        );
        return;
    }
    let values: usize = normalised.segments.iter().map(|segment| segment.top).sum();
    let largest = bytes + values * FROZEN_VALUE_BYTES;
    if largest > MAX_CONTROL_BYTES {
        found.error(
            "segments",
            format!(
                "with the {values} values that warm-up may freeze, the rollout's records have up to {largest} bytes; at most \
                 {MAX_CONTROL_BYTES} are taken"
            ),
            "use fewer segments, or a smaller `top`",
        );
    }
}

fn json_bytes<T: serde::Serialize>(part: &T) -> usize {
    // All keys of its maps are text.
    serde_json::to_vec(part).map_or(usize::MAX, |json| json.len())
}

/// The list that takes most of a spec.
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
            let message = format!("the name has {} bytes; at most {MAX_NAME_BYTES} are taken", name.len());
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
        if let Some(label) = metric.source.label() {
            check(format!("metrics[{index}].source"), label);
        }
    }
}
