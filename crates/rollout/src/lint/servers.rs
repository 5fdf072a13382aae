//! Rules on the versions' servers: two arms with the same servers are one arm.

use super::Found;
use serin_spec::{Address, Mode, RolloutSpec, Severity, TrafficSource, VersionSpec, address::without_credentials};

pub(super) fn lint(spec: &RolloutSpec, found: &mut Found) {
    if let Some(SharedServers { key, message, fix }) = shared_servers(spec) {
        found.add(Severity::Error, format!("canary.{key}"), message, fix, &["stable"]);
    } else if needs_own_servers(spec)
        && let Some((canary, stable)) = pairs(spec).find(|(canary, stable)| canary.address.is_probably(&stable.address))
    {
        let message = format!(
            "{} and stable's {} are names of the machine itself, so both may be the same server",
            canary.address, stable.address
        );
        found.add(Severity::Warning, format!("canary.{}", canary.key), message, FIX, &["stable"]);
    }
    shadows(spec, found);
}

/// Reports a shadow on the servers of an arm: another version would answer the shadow's calls.
fn shadows(spec: &RolloutSpec, found: &mut Found) {
    let arms = || [&spec.stable, &spec.canary].into_iter().filter(|arm| arm.path_version.is_none());
    for (index, shadow) in spec.shadows.iter().enumerate() {
        let own: Vec<Server> = shadow.url.iter().flat_map(|urls| addresses("url", urls)).collect();
        let is_own = |server: &Server| own.iter().any(|own| own.address.has_same_endpoint(&server.address));
        if let Some((arm, server)) = arms().find_map(|arm| Some((arm, servers(arm).find(is_own)?))) {
            let message =
                format!("{} would answer the shadow's calls: {} is its server", arm.version.in_words(), server.address);
            let (path, fix) = (format!("shadows[{index}].url"), "name the shadow's own servers");
            found.add(Severity::Error, path, message, fix, &["stable", "canary"]);
        }
    }
}

/// The same servers serve both versions.
pub(crate) struct SharedServers {
    /// Key of the canary's address in the spec.
    key: &'static str,
    /// What is wrong.
    pub(crate) message: String,
    /// How to fix it.
    pub(crate) fix: &'static str,
}

const FIX: &str = "name the canary's own servers, or give both versions a `pathVersion`";

/// Returns a problem if a server serves both versions, according to the spec.
pub(crate) fn shared_servers(spec: &RolloutSpec) -> Option<SharedServers> {
    if !needs_own_servers(spec) {
        return None;
    }
    let (canary, _) = pairs(spec).find(|(canary, stable)| canary.address.has_same_endpoint(&stable.address))?;
    let shares = |of: &Server| servers(&spec.stable).any(|stable| stable.address.has_same_endpoint(&of.address));
    let message = if servers(&spec.canary).filter(|of| of.key == canary.key).all(|of| shares(&of)) {
        let urls = if canary.key == "url" { &spec.canary.url } else { &spec.canary.grpc_url };
        let urls = urls.as_deref().map(without_credentials).unwrap_or_default();
        format!("no check can fail: {urls} serves both versions, and calls to it do not name the version")
    } else {
        format!("{} also serves stable, so stable would answer a part of the canary's calls", canary.address)
    };
    Some(SharedServers { key: canary.key, message, fix: FIX })
}

/// Whether Serin sends calls to two versions, and only the server decides which version answers. With external traffic it sends
/// none, in an A/A test the versions are the same, and with `pathVersion` calls name the version.
fn needs_own_servers(spec: &RolloutSpec) -> bool {
    let (stable, canary) = (&spec.stable, &spec.canary);
    let is_external = spec.traffic == TrafficSource::External || spec.mode == Mode::Observe;
    !is_external && stable.version != canary.version && stable.path_version == canary.path_version
}

/// One server of a version.
struct Server {
    /// Key of its address in the spec.
    key: &'static str,
    address: Address,
}

/// The servers of a version. An invalid address has its own error.
fn servers(version: &VersionSpec) -> impl Iterator<Item = Server> {
    let keys = [("url", &version.url), ("grpcUrl", &version.grpc_url)];
    keys.into_iter().flat_map(|(key, urls)| urls.iter().flat_map(move |urls| addresses(key, urls)))
}

fn addresses(key: &'static str, urls: &str) -> impl Iterator<Item = Server> {
    Address::parse_list(urls).unwrap_or_default().into_iter().map(move |address| Server { key, address })
}

/// Each server of the canary with each of stable's.
fn pairs(spec: &RolloutSpec) -> impl Iterator<Item = (Server, Server)> {
    servers(&spec.canary).flat_map(|canary| {
        servers(&spec.stable).map(move |stable| (Server { key: canary.key, address: canary.address.clone() }, stable))
    })
}

#[cfg(test)]
mod tests {
    use super::shared_servers;
    use crate::{lint, testing::spec};

    /// What is reported when the versions have these addresses.
    fn reported(stable: &str, canary: &str) -> Option<String> {
        let mut spec = spec();
        (spec.stable.url, spec.canary.url) = (Some(stable.to_owned()), Some(canary.to_owned()));
        shared_servers(&spec).map(|shared| shared.message)
    }

    #[test]
    fn the_same_servers_are_found_in_every_spelling() {
        for (stable, canary) in [
            ("http://a:1", "http://a:1/"),
            ("http://A", "http://a:80"),
            ("https://a/v2/", "https://a.:443/v2"),
            ("http://a:1,http://b:1", "http://b:1, http://a:1"),
            ("http://a:1,http://b:1", "http://b:1"),
            ("h2c://[::1]:8", "http://[0::1]:8"),
        ] {
            let message = reported(stable, canary).unwrap_or_default();
            assert!(message.contains("serves both versions"), "{stable} {canary}: {message}");
        }
        for (stable, canary) in [
            ("http://a:1", "http://a:2"),
            ("http://a:1/one", "http://a:1/two"),
            ("http://[::1]", "http://[::1]:8"),
            ("http://a", "https://a"),
        ] {
            assert_eq!(reported(stable, canary), None, "{stable} {canary}");
        }
    }

    #[test]
    fn one_server_in_both_lists_answers_a_part_of_the_calls() {
        for (stable, canary) in
            [("http://a:1", "http://b:1,http://a:1"), ("http://a:1,http://b:1", "http://c:1,http://B:1/")]
        {
            let message = reported(stable, canary).unwrap_or_default();
            assert!(message.contains("also serves stable"), "{stable} {canary}: {message}");
        }
        // The address for gRPC of one version is the other's address for HTTP.
        let mut spec = spec();
        spec.canary.grpc_url = Some("h2c://localhost:9001".into());
        let shared = shared_servers(&spec).unwrap();
        assert!(shared.key == "grpcUrl" && shared.message.contains("serves both versions"), "{}", shared.message);
    }

    #[test]
    fn names_of_the_machine_itself_are_warned_about() {
        let mut spec = spec();
        spec.canary.url = Some("http://127.0.0.1:9001".into());
        let problems: Vec<String> = lint(&spec, None).iter().map(ToString::to_string).collect();
        assert!(
            problems.len() == 1 && problems[0].starts_with("warning: canary.url: http://127.0.0.1:9001 and"),
            "{problems:#?}"
        );
    }

    #[test]
    fn a_shadow_has_its_own_servers() {
        for url in ["http://localhost:9002", "http://x:1,http://localhost:9001/"] {
            let mut spec = spec();
            let shadow = serde_json::json!({"version": "v3", "url": url, "share": "1%"});
            spec.shadows.push(serde_json::from_value(shadow).unwrap());
            let problems: Vec<String> = lint(&spec, None).iter().map(ToString::to_string).collect();
            let found = problems
                .iter()
                .any(|line| line.starts_with("error: shadows[0].url: ") && line.contains("the shadow's calls"));
            assert!(found, "{url}: {problems:#?}");
        }
    }
}
