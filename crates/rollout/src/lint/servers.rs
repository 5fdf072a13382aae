//! Rules on where versions are served: two arms at one place are one arm.

use super::Found;
use serin_spec::{Address, Mode, RolloutSpec, Severity, TrafficSource};

pub(super) fn lint(spec: &RolloutSpec, found: &mut Found) {
    if let Some(Same { key, message, way_out }) = one_place(spec) {
        found.add(Severity::Error, format!("canary.{key}"), message, way_out, &["stable"]);
    }
}

/// Both versions are served at one place.
pub(crate) struct Same {
    /// The key of the canary's address.
    pub(crate) key: &'static str,
    /// What follows from it.
    pub(crate) message: String,
    /// What to do.
    pub(crate) way_out: &'static str,
}

/// Whether both versions of a rollout are served at one place, as far as the spec says.
pub(crate) fn one_place(spec: &RolloutSpec) -> Option<Same> {
    let (stable, canary) = (&spec.stable, &spec.canary);
    // Others send the calls; an A/A test means it; servers that know both versions are told which one.
    let others = spec.traffic == TrafficSource::External || spec.mode == Mode::Observe;
    if others || stable.version == canary.version || stable.path_version != canary.path_version {
        return None;
    }
    let keys = [("url", &stable.url, &canary.url), ("grpcUrl", &stable.grpc_url, &canary.grpc_url)];
    keys.into_iter().find_map(|(key, stable, canary)| {
        let (stable, canary) = stable.as_deref().zip(canary.as_deref())?;
        is_same(stable, canary).then(|| Same {
            key,
            message: format!(
                "no check can fail: {canary} serves both versions, and nothing tells its servers which one is meant"
            ),
            way_out: "name the canary's own servers, or give both versions a `pathVersion`",
        })
    })
}

/// Whether every server of the canary is one of stable's. An address that cannot be read has an error of its own.
fn is_same(stable: &str, canary: &str) -> bool {
    let (Ok(stable), Ok(canary)) = (Address::parse_list(stable), Address::parse_list(canary)) else { return false };
    canary.iter().all(|canary| stable.iter().any(|stable| stable.is_at_place_of(canary)))
}

#[cfg(test)]
mod tests {
    use super::is_same;

    #[test]
    fn an_address_is_the_same_however_it_is_written() {
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
