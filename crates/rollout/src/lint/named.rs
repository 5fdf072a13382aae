//! Rules on names: a metric and its conditions name outputs and segments that exist.

use serin_spec::{OutputKind, RolloutSpec, Severity};

use super::Found;

/// Reports a segment dimension that a metric names and the file does not define.
pub(super) fn segment(spec: &RolloutSpec, name: &str, path: String, found: &mut Found) {
    if spec.segments.iter().any(|segment| segment.name == name) {
        return;
    }
    let known = spec.segments.iter().map(|segment| segment.name.as_str());
    let fix = serin_spec::suggest::fix(name, known, "define it under `segments` with a source");
    found.add(Severity::Error, path, format!("no segment is named {name:?}"), fix, &["segments[].name"]);
}

/// Reports an output that is not defined or not of this kind.
pub(super) fn output(spec: &RolloutSpec, name: &str, kind: OutputKind, path: String, found: &mut Found) {
    match spec.reported(name) {
        None => {
            let features = spec.features.iter().map(|feature| feature.name.as_str());
            let built_in = serin_spec::BUILT_IN_OUTPUTS.iter().map(|(name, _)| *name);
            let known = spec.outputs.iter().map(|output| output.name.as_str()).chain(features).chain(built_in);
            let fix =
                serin_spec::suggest::fix(name, known, "define it under `outputs`, so that routers find it in answers");
            let message = format!("no output is named {name:?}, so the metric never has data");
            found.add(Severity::Error, path, message, fix, &["outputs[].name"]);
        }
        Some(reported) if reported != kind => {
            let is = match reported {
                OutputKind::Number => "a number",
                OutputKind::Class => "a class",
                OutputKind::Ranking => "a ranking",
            };
            let needed = match kind {
                OutputKind::Number => "number",
                OutputKind::Class => "class",
                OutputKind::Ranking => "ranking",
            };
            let message = format!("output {name:?} is {is}");
            found.add(Severity::Error, path, message, format!("set `kind: {needed}` on the output"), &["outputs"]);
        }
        Some(_) => {}
    }
}
