//! The doors through which the calls of `traffic: external` arrive, and what each door cannot carry.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::MetricSource;

/// How the calls of a model with `traffic: external` are reported. Metrics that the door cannot feed are refused, so that they never pass
/// without data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TrafficDoor {
    /// `POST /v1/events` and the topics of predictions. They carry everything.
    Events,
    /// `KServe`'s payload logger as released: it logs only responses with status 200.
    Kserve,
    /// `KServe`'s payload logger with `logAllResponses`, which logs the status of every response. No release has it yet.
    KserveAllResponses,
    /// Seldon's request logger.
    Seldon,
    /// Envoy's gRPC access-log service: statuses and latencies without bodies.
    Envoy,
    /// OpenTelemetry spans over OTLP.
    Otlp,
}

/// The outputs of language models that spans of the `GenAI` conventions carry.
const OF_SPANS: [&str; 4] = ["llm.input_tokens", "llm.output_tokens", "llm.time_to_first_chunk", "llm.finish_reason"];

impl TrafficDoor {
    /// The name in a rollout file.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Events => "events",
            Self::Kserve => "kserve",
            Self::KserveAllResponses => "kserve_all_responses",
            Self::Seldon => "seldon",
            Self::Envoy => "envoy",
            Self::Otlp => "otlp",
        }
    }

    /// Why calls that arrive through this door have no data for a source; `None` if they may have. Outputs are checked by
    /// [`lacks_output`](Self::lacks_output).
    pub fn lacks(self, source: &MetricSource) -> Option<&'static str> {
        let is_outcome = matches!(
            source,
            MetricSource::Failed | MetricSource::Refused | MetricSource::Outcome | MetricSource::Status
        );
        match (self, source) {
            (Self::Kserve, _) if is_outcome => Some("KServe's logger sends only responses with status 200"),
            (Self::Seldon, _) if is_outcome => Some("Seldon's logger sends no statuses"),
            (Self::Seldon, MetricSource::Latency) => Some("Seldon's logger sends no time at which a call was answered"),
            (Self::Kserve | Self::KserveAllResponses | Self::Seldon | Self::Otlp, MetricSource::Cancelled) => {
                Some("this door does not show which calls were cancelled")
            }
            (Self::Envoy, MetricSource::Unusable) => Some("an access log has no bodies"),
            (Self::Otlp, MetricSource::Unusable) => Some("spans have no bodies"),
            _ => None,
        }
    }

    /// Why calls that arrive through this door do not have a built-in output; `None` if they may have it.
    pub fn lacks_output(self, name: &str) -> Option<&'static str> {
        match self {
            Self::Otlp if OF_SPANS.contains(&name) => None,
            Self::Events => None,
            _ => Some("only Serin's routers report this output"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_file() {
        use TrafficDoor as D;
        for door in [D::Events, D::Kserve, D::KserveAllResponses, D::Seldon, D::Envoy, D::Otlp] {
            assert_eq!(serde_json::to_value(door).unwrap(), door.as_str());
        }
    }

    #[test]
    fn a_door_lacks_what_its_format_does_not_have() {
        let lacks = |door: TrafficDoor, source: MetricSource| door.lacks(&source).is_some();
        for (door, failed, latency, unusable, cancelled) in [
            (TrafficDoor::Events, false, false, false, false),
            (TrafficDoor::Kserve, true, false, false, true),
            (TrafficDoor::KserveAllResponses, false, false, false, true),
            (TrafficDoor::Seldon, true, true, false, true),
            (TrafficDoor::Envoy, false, false, true, false),
            (TrafficDoor::Otlp, false, false, true, true),
        ] {
            assert_eq!(lacks(door, MetricSource::Failed), failed, "{door:?}");
            assert_eq!(lacks(door, MetricSource::Refused), failed, "{door:?}");
            assert_eq!(lacks(door, MetricSource::Latency), latency, "{door:?}");
            assert_eq!(lacks(door, MetricSource::Unusable), unusable, "{door:?}");
            assert_eq!(lacks(door, MetricSource::Cancelled), cancelled, "{door:?}");
        }
    }
}
