//! Rules on the versions' servers: two arms with the same servers are one arm.

use super::Found;
use serin_spec::{Address, Mode, RolloutSpec, Severity, TrafficSource};

pub(super) fn lint(spec: &RolloutSpec, found: &mut Found) {
    if let Some(SharedServers { key, message, fix }) = shared_servers(spec) {
        found.add(Severity::Error, format!("canary.{key}"), message, fix, &["stable"]);
    }
}

/// The same servers serve both versions.
pub(crate) struct SharedServers {
    /// Key of the canary's address in the spec.
    pub(crate) key: &'static str,
    /// What is wrong.
    pub(crate) message: String,
    /// How to fix it.
    pub(crate) fix: &'static str,
}

/// Returns a problem if the same servers serve both versions, according to the spec.
pub(crate) fn shared_servers(spec: &RolloutSpec) -> Option<SharedServers> {
    let (stable, canary) = (&spec.stable, &spec.canary);
    // With external traffic Serin sends no calls, in an A/A test it is intended, and with `pathVersion` calls name the version.
    let is_external = spec.traffic == TrafficSource::External || spec.mode == Mode::Observe;
    if is_external || stable.version == canary.version || stable.path_version != canary.path_version {
        return None;
    }
    let keys = [("url", &stable.url, &canary.url), ("grpcUrl", &stable.grpc_url, &canary.grpc_url)];
    keys.into_iter().find_map(|(key, stable, canary)| {
        let (stable, canary) = stable.as_deref().zip(canary.as_deref())?;
        is_same(stable, canary).then(|| SharedServers {
            key,
            message: format!(
                "no check can fail: {canary} serves both versions, and calls to it do not name the version"
            ),
            fix: "name the canary's own servers, or give both versions a `pathVersion`",
        })
    })
}

/// Whether every server of the canary is also one of stable's. An invalid address has its own error.
fn is_same(stable: &str, canary: &str) -> bool {
    let (Ok(stable), Ok(canary)) = (Address::parse_list(stable), Address::parse_list(canary)) else { return false };
    canary.iter().all(|canary| stable.iter().any(|stable| stable.has_same_endpoint(canary)))
}

#[cfg(test)]
mod tests {
    use super::is_same;

    #[test]
    fn the_same_servers_are_found_in_every_spelling() {
        for (stable, canary) in [
            ("http://a:1", "http://a:1/"),
            ("http://A", "http://a:80"),
            ("https://a/v2/", "https://a:443/v2"),
            ("http://a:1,http://b:1", "http://b:1, http://a:1"),
            ("http://a:1,http://b:1", "http://b:1"),
            ("h2c://[::1]:8", "http://[::1]:8"),
        ] {
            assert!(is_same(stable, canary), "{stable} {canary}");
        }
        for (stable, canary) in [
            ("http://a:1", "http://a:2"),
            ("http://a:1/one", "http://a:1/two"),
            ("http://a:1", "http://a:1,http://b:1"),
            ("http://[::1]", "http://[::1]:8"),
            ("http://a", "https://a"),
        ] {
            assert!(!is_same(stable, canary), "{stable} {canary}");
        }
    }
}
