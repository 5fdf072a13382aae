//! Rules on segments and outputs.

use super::Found;
use serin_spec::{OutputKind, OutputSource, RolloutSpec, SegmentSource, Severity, TrafficSource};

/// More segment values than this leave little evidence for each value and cost memory in every window.
const TOP_MAX: usize = 100;

pub(super) fn lint(spec: &RolloutSpec, found: &mut Found) {
    found.names("segments", spec.segments.iter().map(|segment| segment.name.as_str()));
    for (index, segment) in spec.segments.iter().enumerate() {
        let path = format!("segments[{index}].source");
        match &segment.source {
            SegmentSource::Json(pointer) => found.pointer(&path, pointer),
            SegmentSource::Header(name) => found.header(&path, name),
            SegmentSource::Input(name) | SegmentSource::Parameter(name) | SegmentSource::Event(name) => {
                found.not_empty(&path, name);
            }
        }
        if matches!(segment.source, SegmentSource::Event(_)) && spec.traffic == TrafficSource::Router {
            found.add(
                Severity::Error,
                &path,
                "the segment has no source: Serin's routers read requests, not events of external systems",
                "use header, json, input or parameter, or set `traffic: external`",
                &["traffic"],
            );
        }
        let path = format!("segments[{index}].top");
        if segment.top == 0 {
            found.error(&path, "with top 0 every value is in `other`", "use at least 1");
        } else if segment.top > TOP_MAX {
            let message = format!("{} values share the evidence and the false-rollback budget", segment.top);
            found.error(&path, message, format!("use at most {TOP_MAX}; 10 is the default"));
        }
    }
    outputs(spec, found);
}

fn outputs(spec: &RolloutSpec, found: &mut Found) {
    found.names("outputs", spec.outputs.iter().map(|output| output.name.as_str()));
    for (index, output) in spec.outputs.iter().enumerate() {
        let path = format!("outputs[{index}]");
        match &output.source {
            OutputSource::Json(pointer) => found.pointer(&format!("{path}.source"), pointer),
            OutputSource::Header(name) => found.header(&format!("{path}.source"), name),
            OutputSource::Tensor(name) => found.not_empty(&format!("{path}.source"), name),
        }
        match (output.kind, output.min, output.max) {
            (_, None, None) | (OutputKind::Number, None, _) | (OutputKind::Number, _, None) => {}
            (OutputKind::Class | OutputKind::Ranking, ..) => {
                let message = "only a number can have a range";
                found.error(&path, message, "leave min and max out, or set `kind: number`");
            }
            (OutputKind::Number, Some(min), Some(max)) if min < max => {}
            (OutputKind::Number, Some(min), Some(max)) => {
                let message = format!("no number is in the range {min} to {max}, so every answer is an invalid output");
                found.error(&path, message, "set min below max");
            }
        }
    }
}
