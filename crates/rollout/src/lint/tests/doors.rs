//! Metrics that the door of the calls cannot feed.

use serin_spec::{MetricSource, OutputSource, TrafficDoor, TrafficSource};

use super::*;

/// The problems at a metric or an output of a file whose calls arrive through a door.
fn through(door: TrafficDoor, change: impl FnOnce(&mut RolloutSpec)) -> Vec<String> {
    let found = problems(|spec| {
        spec.traffic = TrafficSource::External;
        spec.mode = Mode::Observe;
        spec.door = Some(door);
        change(spec);
    });
    found.into_iter().filter(|line| line.contains("the door")).collect()
}

#[test]
fn a_door_needs_external_traffic() {
    refused("door", "Serin's routers carry the calls", |spec| spec.door = Some(TrafficDoor::Otlp));
}

#[test]
fn every_metric_that_the_door_cannot_feed_is_refused() {
    for (door, source, words) in [
        (TrafficDoor::Kserve, MetricSource::Failed, "only responses with status 200"),
        (TrafficDoor::Kserve, MetricSource::Refused, "only responses with status 200"),
        (TrafficDoor::KserveAllResponses, MetricSource::Cancelled, "which calls were cancelled"),
        (TrafficDoor::Seldon, MetricSource::Failed, "sends no statuses"),
        (TrafficDoor::Envoy, MetricSource::Unusable, "has no bodies"),
        (TrafficDoor::Otlp, MetricSource::Unusable, "spans have no bodies"),
        (TrafficDoor::Kserve, MetricSource::Output("llm.output_tokens".into()), "only Serin's routers report"),
        (TrafficDoor::Otlp, MetricSource::Output("response.bytes".into()), "only Serin's routers report"),
    ] {
        let mut found = through(door, |spec| spec.metrics = vec![rate("m", source.clone())]);
        found.retain(|line| line.starts_with("error: "));
        assert!(found.len() == 1 && found[0].contains(words), "{door:?} {source:?}: {found:#?}");
        assert!(found[0].starts_with("error: metrics[0].source: "), "{found:#?}");
        let fed = through(TrafficDoor::Events, |spec| spec.metrics = vec![rate("m", source)]);
        assert_eq!(fed, Vec::<String>::new());
    }
    let latency = through(TrafficDoor::Seldon, |_| {});
    assert!(latency.iter().any(|line| line.contains("no time at which a call was answered")), "{latency:#?}");
    let mut errors = through(TrafficDoor::KserveAllResponses, |spec| spec.metrics = vec![failed()]);
    errors.retain(|line| line.starts_with("error: "));
    assert_eq!(errors, Vec::<String>::new());
    let tokens = || rate("m", MetricSource::Output("llm.output_tokens".into()));
    assert_eq!(through(TrafficDoor::Otlp, |spec| spec.metrics = vec![tokens()]), Vec::<String>::new());
}

#[test]
fn envoy_carries_outputs_of_headers_only() {
    let wrong = |line: &String| line.contains("only headers");
    assert!(through(TrafficDoor::Envoy, |_| {}).iter().any(wrong));
    let in_header = |spec: &mut RolloutSpec| spec.outputs[0].source = OutputSource::Header("x-score".into());
    assert!(!through(TrafficDoor::Envoy, in_header).iter().any(wrong));
}

#[test]
fn a_tensor_is_reported_under_its_own_name() {
    let renamed = |spec: &mut RolloutSpec| spec.outputs[0].source = OutputSource::Tensor("other".into());
    for (door, warns) in [(TrafficDoor::Kserve, true), (TrafficDoor::Seldon, true), (TrafficDoor::Otlp, false)] {
        let found = through(door, renamed);
        assert_eq!(found.iter().any(|line| line.contains("under its own name")), warns, "{door:?} {found:#?}");
    }
}
