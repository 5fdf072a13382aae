//! The serving version of a model, and whether a rollout starts from it.
//!
//! Invariant: a rollout's first table sends every call where it went before. Only a promotion changes the serving version, never the
//! text of a file, so every way back leads to the table from before.

use serin_schemas::{
    ids::{ModelName, Version},
    records::{Arm, Configured, RoutingTable},
};

use super::Turn;
use crate::lint::servers::shared_servers;
use serin_spec::{Mode, RolloutSpec, TrafficPolicy, TrafficSource, VersionSpec, address::same_servers};

/// The stable version of a rollout, as its tables need it. What the file leaves out about its servers stays as it serves.
///
/// # Errors
/// The rollout must not start, because its first table would send calls to other servers than those that serve, or to none. The
/// sentence says why and what to do.
pub(super) fn stable_of(
    spec: &RolloutSpec,
    serving: Option<&VersionSpec>,
    turn: &Turn<'_>,
) -> Result<VersionSpec, String> {
    let (model, stable) = (&spec.model, &spec.stable);
    let Some(serving) = serving.cloned().or_else(|| configured_stable(spec, turn)) else { return Ok(stable.clone()) };
    if stable.version != serving.version {
        let (serves, asked) = (serving.version.in_words(), stable.version.in_words());
        return Err(format!(
            "{serves} serves {model}, not {asked}; set `stable.version` to {}; to go back to {asked}, make it the canary",
            serving.version
        ));
    }
    let filled = VersionSpec {
        url: stable.url.clone().or_else(|| serving.url.clone()),
        grpc_url: stable.grpc_url.clone().or_else(|| serving.grpc_url.clone()),
        path_version: stable.path_version.clone().or_else(|| serving.path_version.clone()),
        ..stable.clone()
    };
    // What the table leaves out comes from each router's own configuration.
    let of_version = |known: &&Configured| known.version == stable.version;
    let mut views: Vec<Option<&Configured>> =
        turn.configured(model).map(|(_, known)| known).filter(of_version).map(Some).collect();
    if views.is_empty() {
        views.push(None);
    }
    for known in views {
        for part in [Part::Url, Part::Grpc, Part::Path] {
            let (there, asked) = (part.of(&serving, known), part.of(&filled, known));
            if !part.same(there.as_deref(), asked.as_deref()) {
                return Err(moved(model, stable, part, there.as_deref(), asked.as_deref()));
            }
        }
    }
    Ok(filled)
}

/// The stable version in the routers' configurations, if nothing else is known. One that differs from the file's is preferred.
fn configured_stable(spec: &RolloutSpec, turn: &Turn<'_>) -> Option<VersionSpec> {
    let stable = || turn.configured(&spec.model).map(|(_, known)| known).filter(|known| known.stable);
    let other = stable().find(|known| known.version != spec.stable.version);
    let known = other.or_else(|| stable().next())?;
    Some(VersionSpec { version: known.version.clone(), url: None, grpc_url: None, path_version: None, replica: None })
}

/// A spec with its stable completed, or why its rollout must not start. Lint could not check what the file leaves out.
pub(super) fn startable(spec: RolloutSpec, turn: &Turn<'_>) -> Result<RolloutSpec, String> {
    let why = without_address(&spec, turn).or_else(|| at_one_place(&spec));
    why.map_or(Ok(spec), Err)
}

/// Returns the problem if both versions would be served by the same servers.
fn at_one_place(spec: &RolloutSpec) -> Option<String> {
    shared_servers(spec).map(|same| format!("{}; {}", same.message, same.fix))
}

/// Returns the problem if no router would find servers for a version. `None` if all are found, or if no router has reported.
fn without_address(spec: &RolloutSpec, turn: &Turn<'_>) -> Option<String> {
    if spec.mode == Mode::Observe || spec.traffic == TrafficSource::External {
        return None;
    }
    let arms = [&spec.stable, &spec.canary].map(|version| (&version.version, &version.url));
    let shadows = spec.shadows.iter().map(|shadow| (&shadow.version, &shadow.url));
    let mut open = arms.into_iter().chain(shadows).filter(|(_, url)| url.is_none()).map(|(version, _)| version);
    let version = open.find(|version| !turn.configured(&spec.model).any(|(_, known)| known.version == **version))?;
    unknown_to_routers(&spec.model, version, turn)
}

/// Returns the problem if no router would find servers for this version. `None` if they are found, or if no router has reported.
pub(super) fn unreachable(spec: &RolloutSpec, version: &VersionSpec, turn: &Turn<'_>) -> Option<String> {
    let is_known =
        version.url.is_some() || turn.configured(&spec.model).any(|(_, known)| known.version == version.version);
    if is_known || spec.traffic == TrafficSource::External {
        return None;
    }
    unknown_to_routers(&spec.model, &version.version, turn)
}

fn unknown_to_routers(model: &ModelName, version: &Version, turn: &Turn<'_>) -> Option<String> {
    let reported = turn.live().any(|(_, router)| router.configured.is_some());
    reported.then(|| {
        format!(
            "no router knows where {} is served: it has no `url`, and no router's configuration lists it in \
             `models.{}.versions`; give it a `url`",
            version.in_words(),
            model
        )
    })
}

/// The serving version according to a table on the log.
pub(super) fn base_of(table: &RoutingTable) -> Option<VersionSpec> {
    let route = table.routes.iter().find(|route| route.arm == Arm::Stable)?;
    let policy: TrafficPolicy = serde_json::from_str(&table.policy).unwrap_or_default();
    let servers = policy.servers.into_iter().find(|servers| servers.version == route.version);
    let (grpc_url, path_version) = servers.map_or((None, None), |servers| (servers.grpc_url, servers.path_version));
    Some(VersionSpec { version: route.version.clone(), url: route.url.clone(), grpc_url, path_version, replica: None })
}

/// The settings of a version that decide where its calls go.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Url,
    Grpc,
    Path,
}

impl Part {
    /// The value that a router uses: the table takes precedence over its configuration.
    fn of(self, version: &VersionSpec, known: Option<&Configured>) -> Option<String> {
        match self {
            Self::Url => version.url.clone().or_else(|| known.map(|known| known.url.clone())),
            Self::Grpc => version
                .grpc_url
                .clone()
                .or_else(|| known.and_then(|known| known.grpc_url.clone()))
                .or_else(|| Self::Url.of(version, known)),
            Self::Path => version.path_version.clone().or_else(|| known.and_then(|known| known.path_version.clone())),
        }
    }

    fn same(self, a: Option<&str>, b: Option<&str>) -> bool {
        match (self, a, b) {
            (Self::Url | Self::Grpc, Some(a), Some(b)) => same_servers(a, b),
            _ => a == b,
        }
    }

    fn key(self) -> &'static str {
        match self {
            Self::Url => "url",
            Self::Grpc => "grpcUrl",
            Self::Path => "pathVersion",
        }
    }
}

fn moved(model: &ModelName, stable: &VersionSpec, part: Part, there: Option<&str>, asked: Option<&str>) -> String {
    let (version, key) = (stable.version.in_words(), part.key());
    let none = match part {
        Part::Path => "none",
        _ => "the address in the routers' own configuration",
    };
    let (there, asked) = (there.unwrap_or(none), asked.unwrap_or(none));
    format!(
        "{version} serves {model} with `{key}` {there}, not {asked}: the rollout would move every call immediately, without a ramp and \
         without evidence; leave out `stable.{key}` to keep the serving version; to move to {asked}, make it the canary under its own \
         version name"
    )
}
