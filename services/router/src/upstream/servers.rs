//! The servers of one version: which server gets a call, how many calls each may have, and which are not called for a while because they
//! failed.
//!
//! A server that failed `ejection.failures` times in a row is not called for `ejection.base`. The time doubles after each failed attempt,
//! up to `ejection.max`. Then a single call probes it: if it succeeds, the server is called again. Only failures of the connection count
//! (no connection, no answer in time, a broken connection, 502, 503, 504), because a model that answers 500 may do so because of the input.
//!
//! A version without any available server is **shed**. A call that the split assigned to it still counts as its failure. Stable is never
//! shed, because there is no alternative.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicI64, AtomicU32, AtomicUsize, Ordering},
    },
    time::Duration,
};

use http::StatusCode;
use serin_schemas::ids::{EventTime, Version};

use crate::{
    clock::{TimeSource, micros},
    config::{Ejection, base::Base, span},
    upstream::cause::Cause,
};

/// The servers of one version.
#[derive(Debug)]
pub(crate) struct Servers {
    version: Version,
    list: Box<[Server]>,
    next: AtomicUsize,
    /// Set while the version is shed.
    shed: Mutex<Option<Shed>>,
}

/// Since when a version is shed, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Shed {
    pub(crate) since: EventTime,
    pub(crate) cause: String,
}

/// One server.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) base: Base,
    in_flight: AtomicU32,
    /// Consecutive failures.
    failures: AtomicU32,
    /// Steady time in microseconds until which it is ejected; 0 if it is not.
    out_until: AtomicI64,
    /// Number of consecutive ejections.
    ejections: AtomicU32,
}

/// A slot at one server. It is released when the call ends.
#[derive(Debug)]
pub(crate) struct Place {
    servers: Arc<Servers>,
    index: usize,
    /// Whether this call probes an ejected server.
    probes: bool,
}

/// Effect of a call on the availability of its version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Availability {
    Unchanged,
    /// The last available server of the version was ejected.
    Shed,
    /// The version is called again.
    Restored,
}

/// Limits for servers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules {
    pub(crate) in_flight: u32,
    pub(crate) ejection: Ejection,
    /// Whether ejected servers are called if no other is left: stable has no alternative.
    pub(crate) last_resort: bool,
}

impl Servers {
    /// The servers of a version: one or more base URLs, separated by commas.
    pub(crate) fn parse(version: Version, urls: &str) -> Result<Self, String> {
        let list = Base::parse_list(urls)?;
        Ok(Self {
            version,
            list: list.into_iter().map(Server::new).collect(),
            next: AtomicUsize::new(0),
            shed: Mutex::default(),
        })
    }

    /// Whether both are the same version with the same base URLs.
    pub(crate) fn same(&self, other: &Self) -> bool {
        self.version == other.version
            && self.list.len() == other.list.len()
            && self.list.iter().zip(&other.list).all(|(a, b)| a.base == b.base)
    }

    /// A slot at the server with the fewest calls in flight.
    pub(crate) fn pick(self: &Arc<Self>, rules: &Rules, time: &TimeSource) -> Result<Place, Cause> {
        let first = if self.list.len() > 1 { self.next.fetch_add(1, Ordering::Relaxed) } else { 0 };
        let turns = || (0..self.list.len()).map(move |turn| (first + turn) % self.list.len());
        let least = |allowed: &dyn Fn(&Server) -> bool| {
            turns()
                .filter(|&index| allowed(&self.list[index]))
                .min_by_key(|&index| self.list[index].in_flight.load(Ordering::Relaxed))
        };
        let probe = turns().find(|&index| self.list[index].may_probe(time));
        let probes = probe.is_some();
        let mut chosen = probe.or_else(|| least(&|server| server.is_in()));
        if chosen.is_none() && rules.last_resort {
            chosen = least(&|_| true);
        }
        let index = chosen.ok_or(Cause::Shed)?;
        let server = &self.list[index];
        if server.in_flight.fetch_add(1, Ordering::Relaxed) >= rules.in_flight {
            server.in_flight.fetch_sub(1, Ordering::Relaxed);
            return Err(Cause::Full);
        }
        Ok(Place { servers: Arc::clone(self), index, probes })
    }

    /// Since when the version is shed, and why.
    pub(crate) fn shed(&self) -> Option<Shed> {
        self.shed.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_shed(&self, shed: Option<Shed>) -> bool {
        let mut there = self.shed.lock().unwrap_or_else(PoisonError::into_inner);
        let changed = there.is_some() != shed.is_some();
        if changed {
            *there = shed;
        }
        changed
    }
}

impl Server {
    fn new(base: Base) -> Self {
        Self {
            base,
            in_flight: AtomicU32::new(0),
            failures: AtomicU32::new(0),
            out_until: AtomicI64::new(0),
            ejections: AtomicU32::new(0),
        }
    }

    /// Its `host:port`.
    pub(crate) fn name(&self) -> &str {
        self.base.authority().as_str()
    }

    fn is_in(&self) -> bool {
        self.out_until.load(Ordering::Relaxed) == 0
    }

    /// Whether this call may probe an ejected server; only one call at a time may.
    fn may_probe(&self, time: &TimeSource) -> bool {
        let until = self.out_until.load(Ordering::Relaxed);
        if until == 0 {
            return false;
        }
        let now = micros(time.steady());
        now >= until
            && self
                .out_until
                .compare_exchange(until, now + PROBE.as_micros() as i64, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
    }
}

/// Time reserved for one probe before the next one may start.
const PROBE: Duration = Duration::from_secs(1);

impl Place {
    pub(crate) fn server(&self) -> &Server {
        &self.servers.list[self.index]
    }

    /// Whether the version has several servers.
    pub(crate) fn is_one_of_several(&self) -> bool {
        self.servers.list.len() > 1
    }

    /// The connection to the server succeeded.
    pub(crate) fn succeeded(&self) -> Availability {
        let server = self.server();
        if server.failures.load(Ordering::Relaxed) != 0 {
            server.failures.store(0, Ordering::Relaxed);
        }
        if server.is_in() {
            return Availability::Unchanged;
        }
        server.out_until.store(0, Ordering::Relaxed);
        server.ejections.store(0, Ordering::Relaxed);
        if self.servers.set_shed(None) { Availability::Restored } else { Availability::Unchanged }
    }

    /// The connection to the server failed.
    pub(crate) fn failed(&self, why: &str, rules: &Rules, time: &TimeSource) -> Availability {
        let server = self.server();
        let failures = server.failures.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        let Ejection { failures: most, base, max } = rules.ejection;
        // Failures of calls that were in flight at the ejection are ignored.
        let goes_out = self.probes || (server.is_in() && failures >= most);
        if most == 0 || !goes_out {
            return Availability::Unchanged;
        }
        let now = micros(time.steady());
        let times = server.ejections.fetch_add(1, Ordering::Relaxed).min(20);
        let wait = span(base).saturating_mul(1 << times).min(span(max));
        server.out_until.store(now + micros(wait).max(1), Ordering::Relaxed);
        let all_out = self.servers.list.iter().all(|server| !server.is_in());
        if !all_out || rules.last_resort {
            return Availability::Unchanged;
        }
        let cause = format!("{failures} calls in a row failed, the last one: {why}");
        if self.servers.set_shed(Some(Shed { since: time.wall(), cause })) {
            Availability::Shed
        } else {
            Availability::Unchanged
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.server().in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Whether a status indicates a failure of the connection to the model, not of the model.
pub(crate) fn is_gateway_error(status: StatusCode) -> bool {
    matches!(status, StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(last_resort: bool) -> Rules {
        Rules { in_flight: 2, ejection: Ejection::default(), last_resort }
    }

    fn servers(urls: &str) -> Arc<Servers> {
        Arc::new(Servers::parse("v2".into(), urls).unwrap())
    }

    fn fail(servers: &Arc<Servers>, rules: &Rules, time: &TimeSource) -> Availability {
        servers.pick(rules, time).unwrap().failed("connect", rules, time)
    }

    #[test]
    fn calls_go_to_the_server_with_the_fewest() {
        let (time, servers) = (TimeSource::manual(EventTime(0)), servers("http://a, http://b"));
        let places: Vec<_> = (0..4).map(|_| servers.pick(&rules(false), &time).unwrap()).collect();
        let at = |name: &str| places.iter().filter(|place| place.server().base.to_string().contains(name)).count();
        assert_eq!((at("//a"), at("//b")), (2, 2));
        assert_eq!(servers.pick(&rules(false), &time).unwrap_err(), Cause::Full);
        drop(places);
        assert!(servers.pick(&rules(false), &time).is_ok());
    }

    #[test]
    fn a_failing_server_is_ejected_and_probed_by_one_call() {
        let (time, servers) = (TimeSource::manual(EventTime(1_000_000)), servers("http://a"));
        let rules = rules(false);
        for _ in 0..4 {
            assert_eq!(fail(&servers, &rules, &time), Availability::Unchanged);
        }
        assert_eq!(fail(&servers, &rules, &time), Availability::Shed);
        assert_eq!(servers.pick(&rules, &time).unwrap_err(), Cause::Shed);
        assert!(servers.shed().unwrap().cause.contains("5 calls in a row failed, the last one: connect"));
        time.advance(Duration::from_secs(1));
        let probe = servers.pick(&rules, &time).unwrap();
        assert_eq!(servers.pick(&rules, &time).unwrap_err(), Cause::Shed, "only one call probes it");
        assert_eq!(probe.failed("connect", &rules, &time), Availability::Unchanged);
        time.advance(Duration::from_secs(1));
        assert_eq!(servers.pick(&rules, &time).unwrap_err(), Cause::Shed, "twice as long");
        time.advance(Duration::from_secs(1));
        assert_eq!(servers.pick(&rules, &time).unwrap().succeeded(), Availability::Restored);
        assert!(servers.shed().is_none() && servers.pick(&rules, &time).is_ok());
    }

    #[test]
    fn one_success_resets_the_failures_and_stable_is_never_shed() {
        let (time, servers) = (TimeSource::manual(EventTime(0)), servers("http://a"));
        for _ in 0..20 {
            assert_eq!(fail(&servers, &rules(false), &time), Availability::Unchanged);
            assert_eq!(servers.pick(&rules(false), &time).unwrap().succeeded(), Availability::Unchanged);
        }
        for _ in 0..20 {
            assert_eq!(fail(&servers, &rules(true), &time), Availability::Unchanged);
        }
        assert!(servers.pick(&rules(true), &time).is_ok() && servers.shed().is_none());
    }

    #[test]
    fn calls_go_to_the_other_servers() {
        let (time, servers) = (TimeSource::manual(EventTime(1)), servers("http://a,http://b"));
        let rules = rules(false);
        for _ in 0..10 {
            let place = servers.pick(&rules, &time).unwrap();
            let bad = place.server().base.to_string().contains("//a");
            let _ = if bad { place.failed("reset", &rules, &time) } else { place.succeeded() };
        }
        for _ in 0..20 {
            let place = servers.pick(&rules, &time).unwrap();
            assert!(place.server().base.to_string().contains("//b"));
            assert_eq!(place.succeeded(), Availability::Unchanged);
        }
    }
}
