//! Rules on the door through which the calls of `traffic: external` arrive: a metric that the door cannot feed is refused.

use super::Found;
use serin_kinds::Kind as _;
use serin_spec::{
    BUILT_IN_OUTPUTS, FilterSubject, MetricSource, MetricSpec, OutputSource, RolloutSpec, Severity, TrafficDoor,
    TrafficSource,
};

pub(super) fn lint(spec: &RolloutSpec, found: &mut Found) {
    if spec.traffic == TrafficSource::External {
        refuse_rankings(spec, found);
    }
    let Some(door) = spec.door else { return };
    if spec.traffic != TrafficSource::External {
        let message = "Serin's routers carry the calls, so no door reports them";
        found.add(Severity::Error, "door", message, "leave it out, or set `traffic: external`", &["traffic"]);
        return;
    }
    for (index, metric) in spec.metrics.iter().enumerate() {
        let refuse = |found: &mut Found, part: &str, why: &str| {
            let message = format!("the door {} cannot feed this metric: {why}", door.as_str());
            let fix = "remove the metric, or report the calls through a door that carries it (docs/doors.md)";
            found.add(Severity::Error, format!("metrics[{index}].{part}"), message, fix, &["door", "traffic"]);
        };
        if let Some(why) = door.lacks(&metric.source) {
            refuse(found, "source", why);
        }
        if metric.kind.is_paired() && door != TrafficDoor::Events {
            refuse(found, "kind", "it carries no mirrored answers");
        }
        if let Some(why) = output_of(&metric.source).and_then(|name| lacks(spec, door, name)) {
            refuse(found, "source", why);
        }
        if let Some(why) = outputs_of_filters(metric).find_map(|name| lacks(spec, door, name)) {
            refuse(found, "where", why);
        }
    }
    if !matches!(door, TrafficDoor::Kserve | TrafficDoor::KserveAllResponses | TrafficDoor::Seldon) {
        return;
    }
    for (index, rule) in spec.outputs.iter().enumerate() {
        if let OutputSource::Tensor(tensor) = &rule.source
            && *tensor != rule.name
        {
            let message = format!("the door {} reports the tensor {tensor:?} under its own name", door.as_str());
            let fix = format!("name the output {tensor:?}, or map it under `doors` in Serin's configuration");
            found.add(Severity::Warning, format!("outputs[{index}].name"), message, fix, &["door"]);
        }
    }
}

/// Events of other systems have room for one class per output, not for a list.
fn refuse_rankings(spec: &RolloutSpec, found: &mut Found) {
    let rankings = spec.metrics.iter().enumerate().filter(|(_, metric)| metric.source.is_ranking());
    for (index, _) in rankings {
        let message = "only Serin's routers read rankings, and other systems carry the calls";
        let fix = "remove the metric, or report the measure of each answer as a label (`source: {feedback: ndcg}`)";
        found.add(Severity::Error, format!("metrics[{index}].source"), message, fix, &["traffic"]);
    }
}

fn outputs_of_filters(metric: &MetricSpec) -> impl Iterator<Item = &str> {
    metric.filters.iter().filter_map(|filter| match filter.subject() {
        Some(FilterSubject::Output(name)) => Some(name),
        Some(FilterSubject::Label(_) | FilterSubject::Segment(_)) | None => None,
    })
}

fn output_of(source: &MetricSource) -> Option<&str> {
    match source {
        MetricSource::Output(output)
        | MetricSource::Class { output, .. }
        | MetricSource::Wrong { output, .. }
        | MetricSource::WrongClass { output, .. }
        | MetricSource::LogLoss { output, .. }
        | MetricSource::Ranking { output, .. }
        | MetricSource::SquaredError { output, .. }
        | MetricSource::AbsoluteError { output, .. } => Some(output),
        MetricSource::Failed
        | MetricSource::Refused
        | MetricSource::Unusable
        | MetricSource::Cancelled
        | MetricSource::Outcome
        | MetricSource::Status
        | MetricSource::Latency
        | MetricSource::Feedback(_)
        | MetricSource::LabelDelay(_) => None,
    }
}

/// Why the door cannot report an output.
fn lacks(spec: &RolloutSpec, door: TrafficDoor, name: &str) -> Option<&'static str> {
    if door == TrafficDoor::Events {
        return None;
    }
    if spec.features.iter().any(|feature| feature.name == name || feature.age_name() == name) {
        return Some("only Serin's routers read features");
    }
    if BUILT_IN_OUTPUTS.iter().any(|(known, _)| *known == name) {
        return door.lacks_output(name);
    }
    let rule = spec.outputs.iter().find(|rule| rule.name == name)?;
    let in_header = matches!(rule.source, OutputSource::Header(_));
    (door == TrafficDoor::Envoy && !in_header).then_some("an access log has no bodies, only headers")
}
