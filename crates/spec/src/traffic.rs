//! What routers do with requests besides the split: targets, mirrors, features, examples.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serin_schemas::ids::Version;

use super::{OutputKind, defaults};
use crate::units::{Duration, Share};

/// Where a value of a request is found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RequestSource {
    /// A request header.
    Header(String),
    /// A cookie.
    Cookie(String),
    /// A JSON pointer (RFC 6901) into the request body.
    Json(String),
    /// The first value of the named input tensor of an Open Inference Protocol request.
    Input(String),
    /// A parameter of an Open Inference Protocol request.
    Parameter(String),
}

impl RequestSource {
    /// Whether it looks into the body.
    pub fn in_body(&self) -> bool {
        matches!(self, Self::Json(_) | Self::Input(_) | Self::Parameter(_))
    }

    /// The name or pointer.
    pub fn name(&self) -> &str {
        match self {
            Self::Header(name) | Self::Cookie(name) | Self::Json(name) | Self::Input(name) | Self::Parameter(name) => {
                name
            }
        }
    }
}

/// Who is sent to an arm before the split. Their answers enter no comparison: nobody drew them by lot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct TargetSpec {
    /// Its name, for people.
    pub name: String,
    /// Where the value that decides is found.
    pub when: RequestSource,
    /// The values that match. Left out: any value does.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub is: Vec<String>,
    /// The arm they get. Default: the canary.
    #[serde(default)]
    pub arm: TargetArm,
}

/// The arm that a target gets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TargetArm {
    /// The canary, as soon as the ramp has begun.
    #[default]
    Canary,
    /// Stable, for as long as the rollout runs.
    Stable,
}

/// Limits of the calls that are mirrored to a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct MirrorSpec {
    /// Mirrored calls in flight at a time, per router; beyond it calls are not mirrored, and counted. Default 64.
    #[serde(default = "defaults::mirror_in_flight")]
    pub max_in_flight: u32,
    /// How long a mirrored call may take. Default 10 s.
    #[serde(default = "defaults::mirror_timeout")]
    pub timeout: Duration,
}

impl Default for MirrorSpec {
    fn default() -> Self {
        Self { max_in_flight: defaults::mirror_in_flight(), timeout: defaults::mirror_timeout() }
    }
}

/// A further version that gets copies of calls while the rollout runs. Its answers are on the log, and nobody else sees them;
/// they decide nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct ShadowSpec {
    /// Its name.
    #[schemars(with = "String")]
    pub version: Version,
    /// Base URL of its servers. Left out: the router's configuration knows it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// Share of all calls that it gets a copy of.
    pub share: Share,
    /// Mirrored calls in flight at a time, per router. Default 64.
    #[serde(default = "defaults::mirror_in_flight")]
    pub max_in_flight: u32,
    /// How long a mirrored call may take. Default 10 s.
    #[serde(default = "defaults::mirror_timeout")]
    pub timeout: Duration,
}

/// How a feature is found in requests. It is reported like an output: metrics name it as one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct FeatureSpec {
    /// Name that metrics use.
    pub name: String,
    /// Where it is found.
    pub source: RequestSource,
    /// Whether its value is a number or a class.
    #[serde(default)]
    pub kind: OutputKind,
    /// Where the time at which it was computed is found: RFC 3339, or seconds, milliseconds or microseconds since 1970. Its age
    /// when the request came is the number `<name>.age`, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub computed_at: Option<RequestSource>,
}

impl FeatureSpec {
    /// Name of the number that holds its age.
    pub fn age_name(&self) -> String {
        format!("{}.age", self.name)
    }
}

/// Which pairs of a live and a mirrored answer are kept as examples, on the topic `captures`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct CaptureSpec {
    /// Share of all pairs. Default 0.
    #[serde(default)]
    pub share: Share,
    /// Whether pairs whose outputs differ are kept. Default true.
    #[serde(default = "defaults::yes")]
    pub disagreements: bool,
    /// Numbers that differ by at most this agree. Default 0.
    #[serde(default)]
    pub tolerance: f64,
    /// Most pairs a minute, per router. Default 60.
    #[serde(default = "defaults::captures_per_minute")]
    pub per_minute: u32,
    /// Each body is cut to this many bytes. Default 4096.
    #[serde(default = "defaults::capture_bytes")]
    pub max_bytes: u32,
    /// What must not be kept: JSON pointers (with a leading slash), or names of keys and tensors at any depth. A body that is no
    /// JSON is then not kept at all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub redact: Vec<String>,
}

/// What a spec says of the servers of a version besides their URL.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct ServerPolicy {
    /// The version.
    pub version: Version,
    /// Where they speak gRPC, if not at their URL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grpc_url: Option<String>,
    /// Their name for the version, if they want one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path_version: Option<String>,
}

/// What routers need of a spec besides routes, segments and outputs. Routing tables carry it as JSON.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
pub struct TrafficPolicy {
    /// Who goes where before the split.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub targets: Vec<TargetSpec>,
    /// Limits of the canary's mirror.
    pub mirror: MirrorSpec,
    /// Further versions that are mirrored to; those of them that are on have a route.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub shadows: Vec<ShadowSpec>,
    /// What is said of servers.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub servers: Vec<ServerPolicy>,
    /// What is read from requests.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub features: Vec<FeatureSpec>,
    /// Which pairs are kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub capture: Option<CaptureSpec>,
    /// How long calls in flight on a version that gets no more traffic may go on.
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
    /// What routers need besides routes, segments and outputs.
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

    /// The kind of a value that routers report under this name: an output, a feature or its age, or what is always reported.
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

/// Outputs and classes that routers report without any rule; those of language models for OpenAI-compatible calls only.
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

/// What a step gives the canary, for people: `5%`, or `mirror 5%`.
impl fmt::Display for super::Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.mirror {
            Some(share) => f.pad(&format!("mirror {share}")),
            None => f.pad(&self.weight.to_string()),
        }
    }
}

impl super::Step {
    /// Share of the calls that the canary answers, seen by callers or not.
    pub fn share(&self) -> Share {
        self.mirror.unwrap_or(self.weight)
    }
}
