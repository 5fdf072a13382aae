//! Which captured calls show a finding.

use serin_schemas::records::{Capture, Segment};
use serin_spec::{MetricKind, MetricSource, RolloutSpec, SegmentSource};

use crate::fields::{Place, read};

/// Whether a captured pair of answers shows a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shows {
    /// The call is in the segment, and its answers show what the metric measures.
    Yes,
    /// The call is not in the segment, or its answers do not show it.
    No,
    /// What was kept does not contain it: the value is in a header, was redacted or cut off, or needs the label.
    Unknown,
}

/// Whether the pair `capture` shows the finding on `metric` in `segment`.
pub fn shows(capture: &Capture, spec: &RolloutSpec, metric: &str, segment: &Segment) -> Shows {
    match (of_metric(capture, spec, metric), in_segment(capture, spec, segment)) {
        (Shows::No, _) | (_, Shows::No) => Shows::No,
        (Shows::Yes, Shows::Yes) => Shows::Yes,
        _ => Shows::Unknown,
    }
}

fn known(yes: bool) -> Shows {
    if yes { Shows::Yes } else { Shows::No }
}

fn of_metric(capture: &Capture, spec: &RolloutSpec, name: &str) -> Shows {
    let Some(metric) = spec.metrics.iter().find(|metric| metric.name == name) else { return Shows::Unknown };
    let (live, shadow) = (&capture.live, &capture.shadow);
    let differs = |name: &str| {
        capture.differences.iter().any(|text| text.strip_prefix(name).is_some_and(|rest| rest.starts_with(": ")))
    };
    if metric.kind == MetricKind::Disagreement {
        return known(!capture.differences.is_empty());
    }
    if !metric.filters.is_empty() {
        // What was kept does not show whether the call passes the filters.
        return Shows::Unknown;
    }
    match &metric.source {
        MetricSource::Failed => known(shadow.error.is_some() || shadow.status.is_none_or(|status| status >= 500)),
        MetricSource::Refused => known(shadow.status.is_some_and(|status| (300..500).contains(&status))),
        MetricSource::Unusable => known(differs("usable")),
        MetricSource::Outcome | MetricSource::Status => {
            known(["error", "status", "usable", "read"].into_iter().any(differs))
        }
        MetricSource::Latency => known(shadow.latency_us > live.latency_us),
        MetricSource::Output(output) | MetricSource::Class { output, .. } => known(differs(output)),
        // Without its label it is not known which of the two answers is wrong. Equal answers are equally wrong.
        MetricSource::Wrong { output, .. }
        | MetricSource::WrongClass { output, .. }
        | MetricSource::LogLoss { output, .. }
        | MetricSource::SquaredError { output, .. }
        | MetricSource::AbsoluteError { output, .. }
        | MetricSource::Ranking { output, .. } => {
            if differs(output) {
                Shows::Unknown
            } else {
                Shows::No
            }
        }
        _ => Shows::Unknown,
    }
}

fn in_segment(capture: &Capture, spec: &RolloutSpec, segment: &Segment) -> Shows {
    if segment.is_all() {
        return Shows::Yes;
    }
    let Some(dimension) = spec.segments.iter().find(|dimension| dimension.name == segment.dimension) else {
        return Shows::Unknown;
    };
    let place = match &dimension.source {
        SegmentSource::Json(pointer) => Place::Pointer(pointer),
        SegmentSource::Input(name) => Place::Input(name),
        SegmentSource::Parameter(name) => Place::Parameter(name),
        SegmentSource::Header(_) | SegmentSource::Event(_) => return Shows::Unknown,
    };
    match capture.request.as_deref().map(|body| read(body, &place)) {
        // Which values are `other` was decided at the end of warm-up.
        Some(Ok(_)) if segment.value == "other" => Shows::Unknown,
        Some(Ok(value)) => known(value.as_deref() == Some(segment.value.as_str())),
        Some(Err(_)) | None => Shows::Unknown,
    }
}

/// Why there are no examples and what to set; `None` if the rollout captures examples.
pub fn why_none(spec: &RolloutSpec) -> Option<&'static str> {
    let mirrored = spec.steps.iter().any(|step| step.mirror.is_some()) || !spec.shadows.is_empty();
    match &spec.capture {
        None if mirrored => Some(
            "the rollout file has no `capture`; set `capture: {share: 1%, redact: [...]}` in the file of the next rollout",
        ),
        None => Some(
            "the rollout file has no `capture`, and no calls are mirrored; set `capture: {share: 1%, redact: [...]}`, and either a \
             first step with `mirror` or a version under `shadows`, in the file of the next rollout",
        ),
        Some(_) if !mirrored => Some(
            "only mirrored calls are captured, and the rollout mirrors none; set a first step with `mirror` or a version under \
             `shadows`",
        ),
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn spec() -> RolloutSpec {
        serde_json::from_value(json!({
            "apiVersion": "serin.dev/v1", "kind": "Rollout", "model": "m",
            "stable": {"version": "v1"}, "canary": {"version": "v2"},
            "steps": [{"weight": "10%", "bake": {"min": "1m", "max": "1h"}}],
            "segments": [
                {"name": "origin", "source": {"input": "origin"}}, {"name": "tenant", "source": {"header": "x-tenant"}},
            ],
            "metrics": [
                {"name": "failed", "kind": "rate", "source": "failed"},
                {"name": "slow", "kind": {"quantile": {"level": 0.99}}, "source": "latency"},
                {"name": "score", "kind": "distribution", "source": {"output": "score"}},
                {"name": "wrong", "kind": "rate", "source": {"wrong": {"output": "score", "label": "late"}}, "maturity": "1h"},
            ],
        }))
        .unwrap()
    }

    fn capture(origin: &str, status: i32, differences: &[&str]) -> Capture {
        let answer = |arm, status| json!({"version": "v1", "arm": arm, "status": status, "error": null, "latency_us": status, "body": "{}", "bytes": 2});
        let request = json!({"inputs": [{"name": "origin", "data": [origin]}]}).to_string();
        serde_json::from_value(json!({
            "request_id": "a", "model": "m", "rollout": "r", "generation": 2, "at": 5, "reason": "sample",
            "differences": differences, "request": request, "request_bytes": 9,
            "live": answer("control", 200), "shadow": answer("shadow", status),
        }))
        .unwrap()
    }

    #[test]
    fn a_finding_is_shown_by_calls_in_its_segment_whose_answers_show_it() {
        let spec = spec();
        let lga = Segment::of("origin", "LGA");
        let of = |capture: &Capture, metric: &str, segment: &Segment| shows(capture, &spec, metric, segment);
        let failed = capture("LGA", 503, &["status: 200 against 503"]);
        assert_eq!(of(&failed, "failed", &lga), Shows::Yes);
        assert_eq!(of(&failed, "failed", &Segment::of("origin", "JFK")), Shows::No);
        assert_eq!(of(&failed, "failed", &Segment::of("tenant", "a")), Shows::Unknown);
        assert_eq!(of(&failed, "failed", &Segment::of("origin", "other")), Shows::Unknown);
        assert_eq!(of(&failed, "slow", &Segment::all()), Shows::Yes);
        let other = capture("LGA", 200, &["score: 0.1 against 0.9"]);
        assert_eq!((of(&other, "failed", &lga), of(&other, "score", &lga)), (Shows::No, Shows::Yes));
        assert_eq!((of(&other, "wrong", &lga), of(&other, "mood", &lga)), (Shows::Unknown, Shows::Unknown));
        assert_eq!(of(&capture("[redacted]", 503, &[]), "failed", &lga), Shows::Unknown);
        let kept = Capture { request: None, ..failed };
        assert_eq!(of(&kept, "failed", &lga), Shows::Unknown);
        assert_eq!(of(&kept, "failed", &Segment::all()), Shows::Yes);
    }

    #[test]
    fn a_rollout_without_captures_says_what_to_set() {
        let mut spec = spec();
        assert!(why_none(&spec).unwrap().contains("`capture`, and no calls are mirrored"));
        spec.capture = Some(serde_json::from_value(json!({})).unwrap());
        assert!(why_none(&spec).unwrap().contains("a first step with `mirror`"));
        spec.steps[0].mirror = Some(serin_spec::units::Share(100));
        assert_eq!(why_none(&spec), None);
        spec.capture = None;
        assert!(why_none(&spec).unwrap().contains("has no `capture`; set"));
    }
}
