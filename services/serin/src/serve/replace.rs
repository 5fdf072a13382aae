//! `serin router --replace`: a new process of a router takes over from the running one without failed calls.
//!
//! The new process asks the running one, over a socket in the router's directory, for its listening sockets. Both then accept connections.
//! When the new process is ready, it notifies the other one, which accepts no more connections, finishes its calls, writes its last
//! events and exits. The two write under different names: for the folds they are two routers, so no event of the old one is late.

use std::{
    io::ErrorKind,
    os::fd::OwnedFd,
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use serin_listener::{Offer, Sockets, TakenOver};
use serin_router::StartError;

use super::{
    role::Role,
    running::{Running, router_config},
};
use crate::{settings::Settings, telemetry::Readiness};

/// Longest time until the new process is ready.
const READY_WITHIN: Duration = Duration::from_mins(2);
/// Pause between two checks.
const LOOK: Duration = Duration::from_millis(20);
/// Separator between a router's name and its turn. Default names do not contain it.
const TURN: char = '~';
/// Number of names that a router's processes use in turn. Two processes have the same name only if more than this many run simultaneously.
const TURNS: u32 = 8;

/// Sockets and name that a process inherits from another one, or from systemd.
pub(super) struct Inherited {
    pub(super) sockets: Sockets,
    /// The name that the router writes under, if it differs from the configured one.
    pub(super) writer: Option<String>,
    from: Option<TakenOver>,
}

impl Inherited {
    /// Asks systemd, and with `replace` the running process.
    pub(super) fn find(replace: bool, settings: &Settings) -> anyhow::Result<Self> {
        let sockets = Sockets::from_systemd().context("the sockets that systemd hands over (LISTEN_FDS)")?;
        let alone = Self { sockets, writer: None, from: None };
        if !replace {
            return Ok(alone);
        }
        let path = path(settings);
        let asked = TakenOver::ask(&path);
        let asked = asked.with_context(|| format!("asking the running router for its ports ({})", path.display()))?;
        let Some(mut from) = asked else {
            tracing::info!("no router runs with this data_dir: there is nothing to replace");
            return Ok(alone);
        };
        let writer = next_turn(&settings.router.name, &from.writer);
        tracing::info!(instead_of = %from.writer, name = %writer, "taking over from the running router");
        Ok(Self { sockets: std::mem::take(&mut from.sockets), writer: Some(writer), from: Some(from) })
    }

    /// Waits until this process is ready, then notifies the other one.
    pub(super) async fn replace(self, readiness: Vec<(&'static str, Readiness)>) -> anyhow::Result<()> {
        let Some(from) = self.from else { return Ok(()) };
        let started = Instant::now();
        while let Some(why) = readiness.iter().find_map(|(_, ready)| ready().err()) {
            if started.elapsed() > READY_WITHIN {
                bail!("not ready after {} s, so the other process keeps running: {why}", READY_WITHIN.as_secs());
            }
            tokio::time::sleep(LOOK).await;
        }
        from.ready().context("notifying the other process that this one is ready")
    }
}

/// Suggests --replace if another process uses a router's port.
pub(super) fn advise(roles: &[Role], error: anyhow::Error) -> anyhow::Error {
    let taken =
        matches!(error.downcast_ref(), Some(StartError::Bind { cause, .. }) if cause.kind() == ErrorKind::AddrInUse);
    if taken && roles == [Role::Router] {
        error.context("to take over from the router that runs there: serin router --replace")
    } else {
        error
    }
}

/// Offers the sockets of this process to the one that will replace it.
pub(super) fn offer(running: &mut Running, telemetry: OwnedFd, settings: &Settings) -> Option<Offer> {
    let (mut sockets, writer) = running.take_sockets()?;
    sockets.push(telemetry);
    let path = path(settings);
    Offer::at(&path, sockets, &writer)
        .inspect_err(|error| {
            tracing::warn!(path = %path.display(), %error, "this router cannot be replaced without downtime");
        })
        .ok()
}

fn path(settings: &Settings) -> PathBuf {
    router_config(settings).data_dir.join("replace.sock")
}

/// The name for the process after the one that writes under `before`. `name`: the configured name; empty: the router chooses one.
fn next_turn(name: &str, before: &str) -> String {
    // A router without a configured name keeps the name of its predecessor.
    let name = if name.is_empty() { before.split(TURN).next().unwrap_or(before) } else { name };
    let turn = before.strip_prefix(name).and_then(|turn| turn.strip_prefix(TURN)).and_then(|turn| turn.parse().ok());
    match (turn.unwrap_or(0u32) + 1) % TURNS {
        0 => name.to_owned(),
        turn => format!("{name}{TURN}{turn}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processes_of_a_router_take_names_in_turn() {
        let mut names = vec!["eu-1".to_owned()];
        for _ in 0..TURNS {
            names.push(next_turn("eu-1", &names[names.len() - 1]));
        }
        assert_eq!(names[1..3], ["eu-1~1", "eu-1~2"]);
        assert_eq!(names[TURNS as usize], "eu-1");
        let different: std::collections::BTreeSet<_> = names.iter().collect();
        assert_eq!(different.len(), TURNS as usize);
        // A router without a configured name keeps the name of its predecessor.
        assert_eq!(next_turn("", "pod-7-beef"), "pod-7-beef~1");
        assert_eq!(next_turn("", "pod-7-beef~7"), "pod-7-beef");
        // A router that was renamed starts with the new name's first turn.
        assert_eq!(next_turn("eu-2", "eu-1~3"), "eu-2~1");
    }
}
