//! Routing tables of the data plane: checked, compiled, immutable. Pure.
//!
//! A request takes one snapshot ([`Tables`]) and uses it until its end, so its event names the generation that chose its arm.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use serde::de::DeserializeOwned;
use serin_schemas::{
    ids::Generation,
    records::{Arm, RoutingTable},
};
use serin_sketches::hash::{BUCKETS, Salt, bucket};
use serin_spec::{OutputRule, SegmentSpec, StickyKey, TrafficPolicy};

use crate::{
    config::{Config, ModelConfig, VersionServers, span},
    content::{request, seen::Names},
    protocol::asks::Asks,
    tables::{
        fleet::Fleet,
        route::{Route, TableError, version_label},
        undecided::Tally,
    },
};

/// How long a table is valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lease {
    /// Valid forever, because it has no canary.
    Forever,
    /// Valid until this time of the steady clock, unless it is renewed.
    Until(Duration),
    /// Not valid: it was read from disk and not confirmed by the log, or its successor could not be used.
    Unconfirmed,
}

impl Lease {
    /// Whether the lease has expired at `now` (steady clock).
    pub(crate) fn expired(self, now: Duration) -> bool {
        match self {
            Self::Forever => false,
            Self::Until(end) => now >= end,
            Self::Unconfirmed => true,
        }
    }
}

/// A version that gets copies of calls.
#[derive(Debug)]
pub(crate) struct Shadow {
    pub(crate) route: Arc<Route>,
    share: u16,
    salt: Salt,
    /// Maximum number of copies in flight.
    pub(crate) most: usize,
    pub(crate) timeout: Duration,
    /// Whether the shadow is the version on trial, whose answers are judged. Other shadows are only reported.
    pub(crate) on_trial: bool,
}

impl Shadow {
    /// Whether the shadow gets a copy of this call.
    pub(crate) fn takes(&self, request_id: &str) -> bool {
        bucket(self.salt.hash(request_id.as_bytes())) < self.share
    }
}

/// The split of one model's traffic.
#[derive(Debug)]
pub(crate) struct Table {
    /// The record it was compiled from. For a model that exists only in the configuration, it is a record of generation 0.
    pub(crate) record: RoutingTable,
    pub(crate) lease: Lease,
    pub(crate) stable: Arc<Route>,
    pub(crate) canary: Option<Arc<Route>>,
    pub(super) control: Option<Arc<Route>>,
    pub(crate) shadows: Vec<Shadow>,
    /// Buckets below this one go to the canary.
    pub(crate) canary_end: u16,
    /// Buckets from `canary_end` to below this one go to control, the rest to stable.
    pub(super) control_end: u16,
    pub(super) salt: Salt,
    pub(crate) sticky: Option<StickyKey>,
    pub(crate) segments: Vec<SegmentSpec>,
    pub(crate) outputs: Vec<OutputRule>,
    /// Versions that callers can ask for in addition to those of the routes.
    others: Vec<Arc<Route>>,
    /// Targets, limits of mirrors, features and examples.
    pub(crate) policy: TrafficPolicy,
    /// The zone of each server, by its `host:port`.
    pub(crate) zones: BTreeMap<String, String>,
    /// The values that rules need from request bodies.
    pub(crate) asks: Asks,
    /// Whether a segment or feature may have a value in each row of a request.
    pub(crate) reads_rows: bool,
    /// The same for a call of `/v1/responses`, which may continue a response.
    pub(crate) response_asks: Asks,
    /// Number of calls that could not be split as required, since its rollout started on this router.
    pub(crate) undecided: Arc<Tally>,
    /// Names in answers in which an output rule found nothing, since its rollout started on this router.
    pub(crate) names: Arc<Names>,
    /// Microseconds from the log until it was applied.
    pub(crate) apply_us: i64,
}

/// A snapshot of all tables.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tables(pub(crate) foldhash::HashMap<String, Arc<Table>>);

impl Tables {
    /// Compiles every table again with a new configuration. Models that exist only in a configuration are added and removed with it. A
    /// table that can no longer be compiled is kept.
    pub(crate) fn reconfigure(&mut self, config: &Config) {
        self.0.retain(|model, table| table.record.generation > Generation(0) || config.models.contains_key(model));
        for (model, table) in &mut self.0 {
            let known = config.models.get(model);
            let compiled = match known.filter(|_| table.record.generation == Generation(0)) {
                Some(known) => Table::configured(model, known),
                None => Table::compile(table.record.clone(), table.lease, known, table.apply_us),
            };
            match compiled {
                Ok(compiled) => *table = Arc::new(compiled.after(table)),
                Err(error) => {
                    tracing::warn!(%model, %error, "a table cannot be compiled with the new configuration; the old one stays in use");
                }
            }
        }
        for (model, known) in &config.models {
            if !self.0.contains_key(model)
                && let Ok(table) = Table::configured(model, known)
            {
                self.0.insert(model.clone(), Arc::new(table));
            }
        }
    }
}

impl Table {
    /// Compiles a record. `known` is the configuration of the model.
    pub(crate) fn compile(
        record: RoutingTable,
        lease: Lease,
        known: Option<&ModelConfig>,
        apply_us: i64,
    ) -> Result<Self, TableError> {
        let policy: TrafficPolicy =
            if record.policy.is_empty() { TrafficPolicy::default() } else { json("policy", &record.policy)? };
        let mut fleet = Fleet {
            model: record.model.as_str().into(),
            known: Vec::new(),
            policies: policy.servers.clone(),
            drain: span(policy.drain),
        };
        let routes = Routes::of(&record, known, &policy, &mut fleet)?;
        let sticky = record.sticky.as_deref().map(|text| json("sticky", text)).transpose()?;
        let segments: Vec<SegmentSpec> = json("segments", or_empty_list(&record.segments))?;
        let outputs: Vec<OutputRule> = json("outputs", or_empty_list(&record.outputs))?;
        let asks = request::asks(sticky.as_ref(), &policy.targets, &segments, &policy.features);
        Ok(Self {
            salt: Salt::new(record.salt.as_bytes()),
            reads_rows: request::reads_rows(&segments, &policy.features),
            response_asks: request::with_previous(&asks),
            asks,
            undecided: Arc::default(),
            names: Arc::default(),
            others: others(known, &mut fleet),
            canary_end: routes.canary_share,
            control_end: routes.canary_share + routes.control_share,
            stable: routes.stable,
            canary: routes.canary,
            control: routes.control,
            shadows: routes.shadows,
            policy,
            zones: known.map(|known| known.zones.clone()).unwrap_or_default(),
            record,
            lease,
            sticky,
            segments,
            outputs,
            apply_us,
        })
    }

    /// The table of a model that exists only in the configuration: all calls go to its stable version.
    pub(crate) fn configured(model: &str, known: &ModelConfig) -> Result<Self, TableError> {
        let record = RoutingTable {
            model: model.into(),
            generation: Generation(0),
            lease_seq: 0,
            lease_ms: 0,
            rollout: None,
            salt: String::new(),
            sticky: None,
            routes: vec![serin_schemas::records::Route {
                version: known.stable.clone(),
                arm: Arm::Stable,
                share: i32::from(BUCKETS),
                url: None,
            }],
            segments: serde_json::to_string(&known.segments).map_err(|error| TableError(error.to_string()))?,
            outputs: serde_json::to_string(&known.outputs).map_err(|error| TableError(error.to_string()))?,
            fallback: false,
            policy: String::new(),
            reason: "from the router's configuration".to_owned(),
            decided_at: serin_schemas::ids::EventTime(0),
        };
        Self::compile(record, Lease::Forever, Some(known), 0)
    }

    /// The same table without a valid lease: all calls go to stable.
    pub(crate) fn demoted(&self, known: Option<&ModelConfig>) -> Result<Self, TableError> {
        Self::compile(self.record.clone(), Lease::Unconfirmed, known, self.apply_us)
    }

    /// Takes over the state of servers and the calls in flight from the previous table.
    #[must_use]
    pub(crate) fn after(mut self, before: &Self) -> Self {
        if self.record.salt == before.record.salt && self.sticky == before.sticky {
            self.undecided = Arc::clone(&before.undecided);
        }
        if self.record.salt == before.record.salt && self.outputs == before.outputs {
            self.names = Arc::clone(&before.names);
        }
        let olds: Vec<&Arc<Route>> = before.all().collect();
        let take_over = |route: &mut Arc<Route>| {
            let mut new = Route::clone(route);
            if let Some(old) = olds.iter().find(|old| old.servers.same(&new.servers)) {
                new.servers = Arc::clone(&old.servers);
            }
            if let Some(old) = olds.iter().find(|old| old.arm == new.arm && old.version == new.version) {
                new.flights = Arc::clone(&old.flights);
            }
            *route = Arc::new(new);
        };
        let split = [&mut self.stable].into_iter().chain(&mut self.canary).chain(&mut self.control);
        split
            .chain(self.shadows.iter_mut().map(|shadow| &mut shadow.route))
            .chain(&mut self.others)
            .for_each(take_over);
        self
    }

    /// Routes on trial that get no traffic from the table `after` this one, because their version is not in it.
    pub(crate) fn ended(&self, after: Option<&Self>) -> Vec<Arc<Route>> {
        let stays = |route: &Route| {
            let live = |table: &Self| table.split().any(|other| other.version == route.version);
            after.is_some_and(live)
        };
        self.split().filter(|route| route.drains() && !stays(route)).cloned().collect()
    }

    /// Routes that get traffic of their own.
    pub(crate) fn split(&self) -> impl Iterator<Item = &Arc<Route>> {
        let shadows = self.shadows.iter().map(|shadow| &shadow.route);
        self.canary.iter().chain([&self.stable]).chain(&self.control).chain(shadows)
    }

    /// All routes.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Arc<Route>> {
        self.split().chain(&self.others)
    }

    /// The route of a version that a caller asks for. Shadows cannot be asked for.
    pub(crate) fn find(&self, version: &str) -> Option<&Arc<Route>> {
        self.all().find(|route| route.arm != Arm::Shadow && route.version.as_str() == version)
    }

    /// Names of all versions that callers may ask for.
    pub(crate) fn versions(&self) -> Vec<&str> {
        let routes = self.all().filter(|route| route.arm != Arm::Shadow);
        let mut names: Vec<&str> = routes.map(|route| route.version.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        names
    }
}

fn or_empty_list(text: &str) -> &str {
    if text.is_empty() { "[]" } else { text }
}

fn json<T: DeserializeOwned>(field: &str, text: &str) -> Result<T, TableError> {
    serde_json::from_str(text).map_err(|error| TableError(format!("{field}: {error}")))
}

fn others(known: Option<&ModelConfig>, fleet: &mut Fleet) -> Vec<Arc<Route>> {
    let versions = known.into_iter().flat_map(|known| &known.versions);
    versions
        .filter_map(|(version, servers)| fleet.route(version.as_str().into(), Arm::Stable, servers.url(), known).ok())
        .map(|route| {
            let labels = [route.labels.as_slice(), &[version_label(&route.version)]].concat();
            Arc::new(Route { part: "pinned", labels, ..Route::clone(&route) })
        })
        .collect()
}

/// The validated routes of a record.
struct Routes {
    stable: Arc<Route>,
    canary: Option<Arc<Route>>,
    control: Option<Arc<Route>>,
    shadows: Vec<Shadow>,
    canary_share: u16,
    control_share: u16,
}

impl Routes {
    fn of(
        record: &RoutingTable,
        known: Option<&ModelConfig>,
        policy: &TrafficPolicy,
        fleet: &mut Fleet,
    ) -> Result<Self, TableError> {
        let mut arms: HashMap<Arm, (Arc<Route>, u16)> = HashMap::new();
        let mut shadows = Vec::new();
        let mut total: i64 = 0;
        for route in &record.routes {
            let share = u16::try_from(route.share).ok().filter(|&share| share <= BUCKETS);
            let share =
                share.ok_or_else(|| TableError(format!("a share of {} is outside of 0..=10000", route.share)))?;
            let compiled = fleet.route(route.version.clone(), route.arm, urls(route, known)?, known)?;
            if route.arm == Arm::Shadow {
                shadows.push(shadow(compiled, share, &record.salt, policy));
                continue;
            }
            total += i64::from(share);
            if arms.insert(route.arm, (compiled, share)).is_some() {
                return Err(TableError(format!("the table has two routes for the {} arm", route.arm.as_str())));
            }
        }
        let (stable, _) =
            arms.remove(&Arm::Stable).ok_or_else(|| TableError("the table has no stable route".to_owned()))?;
        if total != i64::from(BUCKETS) {
            return Err(TableError(format!("the shares of the table add up to {total} instead of 10000")));
        }
        let mut take = |arm| arms.remove(&arm).map_or((None, 0), |(route, share)| (Some(route), share));
        let (canary, canary_share) = take(Arm::Canary);
        let (control, control_share) = take(Arm::Control);
        Ok(Self { stable, canary, control, shadows, canary_share, control_share })
    }
}

fn shadow(route: Arc<Route>, share: u16, salt: &str, policy: &TrafficPolicy) -> Shadow {
    let further = policy.shadows.iter().find(|shadow| shadow.version == route.version);
    let (most, timeout) = further
        .map_or((policy.mirror.max_in_flight, policy.mirror.timeout), |shadow| (shadow.max_in_flight, shadow.timeout));
    // The mirror uses a different salt than the split, so that being mirrored is independent of the arm.
    let salt = Salt::new(format!("mirror\0{salt}\0{}", route.version).as_bytes());
    Shadow { route, share, salt, most: most as usize, timeout: span(timeout), on_trial: further.is_none() }
}

/// The URLs of a route's version: those of the table, otherwise those of the configuration.
fn urls<'a>(route: &'a serin_schemas::records::Route, known: Option<&'a ModelConfig>) -> Result<&'a str, TableError> {
    let configured = known.and_then(|known| known.versions.get(route.version.as_str())).map(VersionServers::url);
    let url = route.url.as_deref().or(configured).ok_or_else(|| {
        TableError(format!(
            "version {:?} has no URL, neither in the table nor under `models` in the router's configuration",
            route.version.as_str()
        ))
    })?;
    Ok(url)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use serin_schemas::{ids::EventTime, records};

    /// A table with these shares of canary and control.
    pub(crate) fn record(generation: i64, canary: i32, control: i32) -> RoutingTable {
        let route = |version: &str, arm, share| records::Route {
            version: version.into(),
            arm,
            share,
            url: Some(format!("http://127.0.0.1:1/{version}")),
        };
        RoutingTable {
            model: "flights".into(),
            generation: Generation(generation),
            lease_seq: 0,
            lease_ms: 60_000,
            rollout: Some("r1".into()),
            salt: "salt".into(),
            sticky: None,
            routes: vec![
                route("v1", Arm::Stable, 10_000 - canary - control),
                route("v1", Arm::Control, control),
                route("v2", Arm::Canary, canary),
            ],
            segments: String::new(),
            outputs: String::new(),
            fallback: false,
            policy: String::new(),
            reason: "test".into(),
            decided_at: EventTime(0),
        }
    }

    fn problem(change: impl FnOnce(&mut RoutingTable)) -> String {
        let mut record = record(1, 100, 1000);
        change(&mut record);
        Table::compile(record, Lease::Forever, None, 0).unwrap_err().to_string()
    }

    #[test]
    fn a_table_is_compiled() {
        let table = Table::compile(record(3, 100, 1000), Lease::Forever, None, 0).unwrap();
        assert_eq!((table.canary_end, table.control_end), (100, 1100));
        assert_eq!(table.find("v2").unwrap().arm, Arm::Canary);
        assert_eq!(table.find("v1").unwrap().arm, Arm::Stable);
        assert_eq!(table.versions(), ["v1", "v2"]);
    }

    #[test]
    fn unusable_tables_are_refused_with_a_reason() {
        assert_eq!(
            problem(|table| table.routes[0].share = 1),
            "the shares of the table add up to 1101 instead of 10000"
        );
        assert_eq!(problem(|table| table.routes[0].share = -1), "a share of -1 is outside of 0..=10000");
        assert_eq!(problem(|table| table.routes[1].arm = Arm::Canary), "the table has two routes for the canary arm");
        assert_eq!(problem(|table| table.routes.clear()), "the table has no stable route");
        assert!(problem(|table| table.routes[2].url = None).starts_with("version \"v2\" has no URL"));
        assert!(problem(|table| table.routes[2].url = Some("x".into())).contains("not the base URL"));
        assert!(problem(|table| table.outputs = "{".into()).starts_with("outputs: "));
        assert!(problem(|table| table.sticky = Some("7".into())).starts_with("sticky: "));
    }

    #[test]
    fn leases_expire() {
        let end = Lease::Until(Duration::from_mins(1));
        assert!(!end.expired(Duration::from_secs(59)) && end.expired(Duration::from_mins(1)));
        assert!(Lease::Unconfirmed.expired(Duration::ZERO) && !Lease::Forever.expired(Duration::MAX));
    }
}
