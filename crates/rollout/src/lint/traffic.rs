//! Rules on targets, mirrors, features and examples.

use super::Found;
use serin_spec::{
    BUILT_IN_OUTPUTS, OutputKind, RequestSource, RolloutSpec, Severity, Share, TargetArm, TrafficSource,
    units::Duration,
};

/// Maximum `maxBytes`. Both bodies of an example are in one record.
const CAPTURE_MAX: u32 = 256 * 1024;
/// Maximum drain time. It is longer than any call.
const DRAIN_MAX: Duration = Duration(serin_schemas::ids::Span(86_400_000_000));

pub(super) fn lint(spec: &RolloutSpec, found: &mut Found) {
    targets(spec, found);
    shadows(spec, found);
    features(spec, found);
    capture(spec, found);
    if spec.drain > DRAIN_MAX {
        let message = format!("a drain of {} is too long: calls may go on for that long after a rollback", spec.drain);
        found.error("drain", message, "use seconds or minutes; 30s is the default");
    }
}

fn source(path: &str, source: &RequestSource, found: &mut Found) {
    match source {
        RequestSource::Json(pointer) => found.pointer(path, pointer),
        RequestSource::Header(name) => found.header(path, name),
        other => found.not_empty(path, other.name()),
    }
}

fn targets(spec: &RolloutSpec, found: &mut Found) {
    let targets = &spec.assignment.targets;
    found.names("assignment.targets", targets.iter().map(|target| target.name.as_str()));
    for (index, target) in targets.iter().enumerate() {
        source(&format!("assignment.targets[{index}].when"), &target.when, found);
    }
    if !targets.is_empty() && spec.traffic == TrafficSource::External {
        let (message, fix) = ("another system splits the traffic", "define the targets in that system");
        found.add(Severity::Error, "assignment.targets", message, fix, &["traffic"]);
    }
    if targets.iter().any(|target| target.arm == TargetArm::Canary && target.is.is_empty()) {
        let message = "a target without `is` matches every request that has the value";
        found.warn("assignment.targets", message, "list the values, unless only the intended callers send the value");
    }
}

fn mirror(path: &str, max_in_flight: u32, timeout: Duration, found: &mut Found) {
    if max_in_flight == 0 {
        found.error(format!("{path}.maxInFlight"), "with 0 nothing is mirrored", "use at least 1; 64 is the default");
    }
    if timeout.is_zero() {
        found.error(
            format!("{path}.timeout"),
            "every mirrored call would time out",
            "use more than 0s; 10s is the default",
        );
    }
}

fn shadows(spec: &RolloutSpec, found: &mut Found) {
    mirror("mirror", spec.mirror.max_in_flight, spec.mirror.timeout, found);
    found.names("shadows", spec.shadows.iter().map(|shadow| shadow.version.as_str()));
    for (index, shadow) in spec.shadows.iter().enumerate() {
        let path = format!("shadows[{index}]");
        mirror(&path, shadow.max_in_flight, shadow.timeout, found);
        if shadow.share == Share(0) {
            found.error(format!("{path}.share"), "with 0% nothing is mirrored", "mirror 0.01% or more");
        }
        if shadow.version == spec.canary.version || shadow.version == spec.stable.version {
            let message = format!("{} is an arm of this rollout", shadow.version.in_words());
            let fix = "to mirror to the canary, start the ramp with `- mirror: 10%`";
            found.add(Severity::Error, format!("{path}.version"), message, fix, &["stable", "canary"]);
        }
    }
}

fn features(spec: &RolloutSpec, found: &mut Found) {
    found.names("features", spec.features.iter().map(|feature| feature.name.as_str()));
    for (index, feature) in spec.features.iter().enumerate() {
        let path = format!("features[{index}]");
        source(&format!("{path}.source"), &feature.source, found);
        if let Some(at) = &feature.computed_at {
            source(&format!("{path}.computedAt"), at, found);
        }
        if feature.kind == OutputKind::Ranking {
            found.error(format!("{path}.kind"), "a feature is one value", "set `kind: class` or `kind: number`");
        }
        if spec.outputs.iter().any(|output| output.name == feature.name) {
            let message = format!("an output is also named {:?}", feature.name);
            found.add(Severity::Error, format!("{path}.name"), message, "rename one of them", &["outputs[].name"]);
        }
    }
    let names = spec.outputs.iter().map(|output| &output.name).chain(spec.features.iter().map(|feature| &feature.name));
    for name in names.filter(|name| BUILT_IN_OUTPUTS.iter().any(|(known, _)| known == name)) {
        found.error("outputs", format!("{name:?} is the name of a built-in output"), "rename it");
    }
}

fn capture(spec: &RolloutSpec, found: &mut Found) {
    let Some(capture) = &spec.capture else { return };
    if capture.max_bytes == 0 || capture.max_bytes > CAPTURE_MAX {
        let message = format!("a body cannot be truncated to {} bytes", capture.max_bytes);
        found.error("capture.maxBytes", message, format!("use 1 to {CAPTURE_MAX}; 4096 is the default"));
    }
    if !(capture.tolerance >= 0.0 && capture.tolerance.is_finite()) {
        let message = format!("{} is not a valid tolerance", capture.tolerance);
        found.error("capture.tolerance", message, "write the largest difference at which two numbers agree");
    }
    if capture.redact.iter().any(String::is_empty) {
        found.error("capture.redact", "the name is empty", "name a key or a tensor, or write a JSON pointer");
    }
    let mirrors = !spec.shadows.is_empty() || spec.steps.iter().any(|step| step.mirror.is_some());
    if !mirrors {
        let message = "nothing is mirrored, so there are no pairs to keep";
        found.add(Severity::Warning, "capture", message, "start the ramp with `- mirror: 10%`", &["steps", "shadows"]);
    }
    if capture.disagreements && spec.outputs.is_empty() {
        let message = "without outputs, answers can only differ in their status or in being unusable";
        found.add(
            Severity::Warning,
            "capture.disagreements",
            message,
            "define under `outputs` what to read from answers",
            &["outputs"],
        );
    }
}
