//! What routers do with requests in addition to the split: targets, mirrors, features and examples.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serin_schemas::ids::Version;

use super::{BatchRows, OutputKind, defaults};
use crate::units::{Duration, Share};

/// Where a value is found in a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RequestSource {
    /// A request header.
    Header(String),
    /// A cookie of the request.
    Cookie(String),
    /// A JSON pointer (RFC 6901) into the request body.
    Json(String),
    /// The first value of the named input tensor of an Open Inference Protocol request.
    Input(String),
    /// A parameter of an Open Inference Protocol request.
    Parameter(String),
}

impl RequestSource {
    /// Whether the value is in the body.
    pub fn in_body(&self) -> bool {
        matches!(self, Self::Json(_) | Self::Input(_) | Self::Parameter(_))
    }

    /// The name of the header, cookie, tensor or parameter, or the JSON pointer.
    pub fn name(&self) -> &str {
        match self {
            Self::Header(name) | Self::Cookie(name) | Self::Json(name) | Self::Input(name) | Self::Parameter(name) => {
                name
            }
        }
    }
}

/// Requests that are sent to a given arm before the split. Their answers are left out of the comparison, because their arm was not
/// chosen at random.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct TargetSpec {
    /// Name of the target, for display.
    pub name: String,
    /// Where the value that is compared with `is` is found in the request.
    pub when: RequestSource,
    /// The values that match. Default: any value matches.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub is: Vec<String>,
    /// The arm for matching requests. Default: `canary`.
    #[serde(default)]
    pub arm: TargetArm,
}

/// The arm for the requests of a target.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TargetArm {
    /// The canary, once the ramp has started.
    #[default]
    Canary,
    /// Stable, until the rollout ends.
    Stable,
}

/// Limits for the calls that are mirrored to a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct MirrorSpec {
    /// Maximum number of mirrored calls in flight per router. Calls above it are not mirrored, and are counted. Default 64.
    #[serde(default = "defaults::mirror_in_flight")]
    pub max_in_flight: u32,
    /// Timeout of a mirrored call. Default 10 s.
    #[serde(default = "defaults::mirror_timeout")]
    pub timeout: Duration,
}

impl Default for MirrorSpec {
    fn default() -> Self {
        Self { max_in_flight: defaults::mirror_in_flight(), timeout: defaults::mirror_timeout() }
    }
}

/// An additional version that gets copies of calls while the rollout runs. Its answers are written to the log, never returned to
/// callers, and do not affect the decision.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct ShadowSpec {
    /// Name of the version.
    #[schemars(with = "String")]
    pub version: Version,
    /// Base URL of the version's servers. Default: the URL in the router's configuration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// Share of all calls that are mirrored to the version.
    pub share: Share,
    /// Maximum number of mirrored calls in flight per router. Default 64.
    #[serde(default = "defaults::mirror_in_flight")]
    pub max_in_flight: u32,
    /// Timeout of a mirrored call. Default 10 s.
    #[serde(default = "defaults::mirror_timeout")]
    pub timeout: Duration,
}

/// How a feature is found in requests. Features are reported like outputs, and metrics refer to them as outputs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct FeatureSpec {
    /// Name of the feature, as metrics refer to it.
    pub name: String,
    /// Where the feature is found in a request.
    pub source: RequestSource,
    /// Whether the feature is a number or a class.
    #[serde(default)]
    pub kind: OutputKind,
    /// Where the time at which the feature was computed is found: RFC 3339, or seconds, milliseconds or microseconds since 1970. The
    /// feature's age at the time of the request is reported as the number `<name>.age`, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub computed_at: Option<RequestSource>,
    /// Which rows of a batch have their own value. Default `all`.
    #[serde(default, skip_serializing_if = "BatchRows::is_all")]
    pub rows: BatchRows,
}

impl FeatureSpec {
    /// Name of the number that contains the feature's age.
    pub fn age_name(&self) -> String {
        format!("{}.age", self.name)
    }
}

/// Which pairs of a live and a mirrored answer are kept as examples, on the topic `captures`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct CaptureSpec {
    /// Share of all pairs that are kept. Default 0.
    #[serde(default)]
    pub share: Share,
    /// Whether all pairs whose outputs differ are kept. Default true.
    #[serde(default = "defaults::yes")]
    pub disagreements: bool,
    /// Two numbers agree if they differ by at most this. Default 0.
    #[serde(default)]
    pub tolerance: f64,
    /// Maximum number of pairs kept per minute and router. Default 60.
    #[serde(default = "defaults::captures_per_minute")]
    pub per_minute: u32,
    /// Bodies are truncated to this number of bytes. Default 4096.
    #[serde(default = "defaults::capture_bytes")]
    pub max_bytes: u32,
    /// What must not be kept: JSON pointers (with a leading slash), or names of keys and tensors at any depth. If this list is not
    /// empty, bodies that are not JSON are not kept at all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub redact: Vec<String>,
}

/// Settings of a version's servers in the spec, other than their URL.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct ServerPolicy {
    /// Name of the version.
    pub version: Version,
    /// Base URL for gRPC, if it is not the servers' URL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grpc_url: Option<String>,
    /// The servers' own name for the version, if they expect one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path_version: Option<String>,
}

/// The parts of a spec that routers need in addition to routes, segments and outputs. Routing tables contain it as JSON.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
pub struct TrafficPolicy {
    /// Requests that are sent to a given arm before the split.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub targets: Vec<TargetSpec>,
    /// Limits for mirroring calls to the canary.
    pub mirror: MirrorSpec,
    /// Additional versions that calls are mirrored to. Those that are active have a route.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub shadows: Vec<ShadowSpec>,
    /// Settings of the versions' servers.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub servers: Vec<ServerPolicy>,
    /// Features that are read from requests.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub features: Vec<FeatureSpec>,
    /// Which pairs of answers are kept as examples.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub capture: Option<CaptureSpec>,
    /// How long calls that are in flight on a version may continue after it stops getting traffic.
    pub drain: Duration,
}

impl Default for TrafficPolicy {
    fn default() -> Self {
        Self {
            targets: Vec::new(),
            mirror: MirrorSpec::default(),
            shadows: Vec::new(),
            servers: Vec::new(),
            features: Vec::new(),
            capture: None,
            drain: defaults::drain(),
        }
    }
}

impl super::RolloutSpec {
    /// The parts of the spec that routers need in addition to routes, segments and outputs.
    pub fn traffic_policy(&self) -> TrafficPolicy {
        TrafficPolicy {
            targets: self.assignment.targets.clone(),
            mirror: self.mirror,
            shadows: self.shadows.clone(),
            servers: [&self.stable, &self.canary]
                .into_iter()
                .filter(|version| version.grpc_url.is_some() || version.path_version.is_some())
                .map(|version| ServerPolicy {
                    version: version.version.clone(),
                    grpc_url: version.grpc_url.clone(),
                    path_version: version.path_version.clone(),
                })
                .collect(),
            features: self.features.clone(),
            capture: self.capture.clone(),
            drain: self.drain,
        }
    }

    /// The kind of the value that routers report under this name: an output, a feature or its age, or a built-in output.
    pub fn reported(&self, name: &str) -> Option<OutputKind> {
        let output = self.outputs.iter().find(|rule| rule.name == name).map(|rule| rule.kind);
        let feature = || {
            self.features.iter().find_map(|feature| match name {
                _ if feature.name == name => Some(feature.kind),
                _ if feature.computed_at.is_some() && feature.age_name() == name => Some(OutputKind::Number),
                _ => None,
            })
        };
        let built_in = || BUILT_IN_OUTPUTS.iter().find(|(known, _)| *known == name).map(|(_, kind)| *kind);
        output.or_else(feature).or_else(built_in)
    }
}

/// Outputs and classes that routers report without any rule. Those of language models are only reported for OpenAI-compatible calls.
pub const BUILT_IN_OUTPUTS: [(&str, OutputKind); 15] = [
    ("response.bytes", OutputKind::Number),
    ("response.missing", OutputKind::Number),
    ("response.instance", OutputKind::Class),
    ("response.zone", OutputKind::Class),
    ("llm.time_to_first_chunk", OutputKind::Number),
    ("llm.time_per_chunk", OutputKind::Number),
    ("llm.chunks", OutputKind::Number),
    ("llm.input_tokens", OutputKind::Number),
    ("llm.output_tokens", OutputKind::Number),
    ("llm.characters", OutputKind::Number),
    ("llm.refusal", OutputKind::Number),
    ("llm.tool_calls", OutputKind::Number),
    ("llm.tool_calls_valid", OutputKind::Number),
    ("llm.json_valid", OutputKind::Number),
    ("llm.finish_reason", OutputKind::Class),
];

/// The canary's share in the step, for display: `5%`, or `mirror 5%`.
impl fmt::Display for super::Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.mirror {
            Some(share) => f.pad(&format!("mirror {share}")),
            None => f.pad(&self.weight.to_string()),
        }
    }
}

impl super::Step {
    /// Share of the calls that the canary answers, including mirrored ones.
    pub fn share(&self) -> Share {
        self.mirror.unwrap_or(self.weight)
    }
}
