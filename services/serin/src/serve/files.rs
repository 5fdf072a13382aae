//! The limit of open files, and how it is divided among ports and databases. A socket is a file too: without this division, callers
//! of one port could use up the files of all others, and calls of models would fail for lack of a socket.

use std::sync::OnceLock;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::role::Role;
use crate::settings::Settings;

/// The limit is raised to this at most. Some systems have no limit, but allocate a table for all files that are allowed.
const ENOUGH: u64 = 1 << 20;
/// Smallest number of files for any role.
const LEAST: u64 = 256;
/// Number of files of the process itself: threads, pipes and sockets of the log's clients.
const OWN: u64 = 128;
/// Number of ports other than the router's data port: API, admin, metrics.
const PORTS: u64 = 3;

/// This process may open too few files.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "this process may open {allowed} files and needs at least {LEAST}: raise the limit of open files \
     (`ulimit -n`, `LimitNOFILE=` of systemd, `--ulimit nofile=` of Docker)"
)]
pub(crate) struct TooFewFiles {
    allowed: u64,
}

/// The division of the open files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Share {
    /// Open files of each database.
    pub(crate) database: i32,
    /// Connections of each port other than the router's data port.
    pub(crate) port: usize,
    /// Connections from the router's callers.
    callers: u64,
    /// Concurrent calls of models.
    calls: u64,
}

/// The division of this process's open files. The first call raises the soft limit as far as allowed.
pub(crate) fn share() -> Result<Share, TooFewFiles> {
    static SHARE: OnceLock<Result<Share, TooFewFiles>> = OnceLock::new();
    SHARE.get_or_init(|| Share::of(raise())).clone()
}

fn raise() -> u64 {
    let before = getrlimit(Resource::Nofile);
    let most = before.maximum.unwrap_or(ENOUGH).min(ENOUGH);
    if before.current.is_some_and(|current| current < most) {
        let raised = setrlimit(Resource::Nofile, Rlimit { current: Some(most), maximum: before.maximum });
        if let Err(error) = raised {
            tracing::warn!(%error, "the limit of open files could not be raised");
        }
    }
    getrlimit(Resource::Nofile).current.unwrap_or(ENOUGH)
}

/// Number of files that a service may open here, or the reason why it would not start.
pub(crate) fn open_files() -> Result<u64, TooFewFiles> {
    let allowed = raise();
    Share::of(allowed).map(|_| allowed)
}

impl Share {
    /// Divides `allowed` files.
    pub(crate) fn of(allowed: u64) -> Result<Self, TooFewFiles> {
        if allowed < LEAST {
            return Err(TooFewFiles { allowed });
        }
        let database = (allowed / 8).clamp(16, 512);
        let port = (allowed / 16).clamp(16, 512);
        // Two databases: the log and the state.
        let left = allowed.saturating_sub(OWN + 2 * database + PORTS * port).max(12);
        Ok(Self { database: database as i32, port: port as usize, callers: left / 3 * 2, calls: left / 3 })
    }

    /// Lowers the router's limits so that they fit. Returns a sentence if they were lowered.
    pub(super) fn fit(&self, settings: &mut Settings, roles: &[Role]) -> Option<String> {
        let limits = &mut settings.router.limits;
        let (callers, calls) = (limits.connections, limits.in_flight);
        limits.connections = callers.min(usize::try_from(self.callers).unwrap_or(usize::MAX));
        limits.in_flight = calls.min(usize::try_from(self.calls).unwrap_or(usize::MAX));
        let lowered = limits.connections < callers || limits.in_flight < calls;
        (lowered && roles.contains(&Role::Router)).then(|| {
            format!(
                "this process may open too few files for its limits: router.limits.connections is {} instead of {callers}, \
                 router.limits.in_flight is {} instead of {calls}; raise the limit of open files (`ulimit -n`, \
                 `LimitNOFILE=` of systemd, `--ulimit nofile=` of Docker), or lower the settings",
                limits.connections, limits.in_flight
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_never_exceed_the_limit() {
        for allowed in [256, 300, 512, 1024, 4096, 20_000, 65_536, ENOUGH] {
            let share = Share::of(allowed).unwrap();
            let sum = OWN + 2 * share.database as u64 + PORTS * share.port as u64 + share.callers + share.calls;
            assert!(sum <= allowed, "{share:?} of {allowed}");
            assert!(share.callers >= 8 && share.calls >= 4, "{share:?} of {allowed}");
        }
        let text = Share::of(64).unwrap_err().to_string();
        assert!(text.starts_with("this process may open 64 files and needs at least 256"), "{text}");
    }

    #[test]
    fn limits_are_lowered_to_fit_with_a_warning() {
        let mut settings = Settings::default();
        let warning = Share::of(1024).unwrap().fit(&mut settings, Role::ALL).unwrap();
        assert!(warning.contains("router.limits.connections is 298 instead of 10000"), "{warning}");
        assert_eq!((settings.router.limits.connections, settings.router.limits.in_flight), (298, 149));
        let mut settings = Settings::default();
        assert_eq!(Share::of(ENOUGH).unwrap().fit(&mut settings, Role::ALL), None);
        assert_eq!(settings.router.limits.connections, 10_000);
        let mut settings = Settings::default();
        assert_eq!(Share::of(1024).unwrap().fit(&mut settings, &[Role::Analyzer]), None);
    }
}
