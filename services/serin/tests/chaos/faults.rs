//! The faults that are injected into the pipeline one after the other, and the checks for its recovery.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use rand::{RngExt as _, SeedableRng as _, seq::IndexedRandom as _};
use rand_chacha::ChaCha8Rng;
use rdkafka::{
    consumer::{BaseConsumer, Consumer as _},
    producer::{BaseProducer, BaseRecord, Producer as _},
};
use reqwest::Method;
use serde_json::Value;
use serin_tests::{
    kafka::{Cluster, NODES, client_config},
    link::State,
};

use crate::{
    fleet::{Fleet, MEMBERS, PATIENCE, ROUTERS, SHARED_ZONES, ZONES, has_small_disks, role_and_peer},
    load::{BAD, Models},
    support::{SERIN, http, wait_until},
};

/// Partitions of every topic.
pub(crate) const PARTITIONS: usize = 2;

/// Longer than a transaction may stay open.
const BEYOND_TRANSACTIONS: Duration = Duration::from_secs(35);

/// Number of unusable records per partition and fault, below the limit of the circuit breaker.
const POISON: usize = 5;

/// The processes that share their work with a peer.
const PAIRED: [&str; 6] = ["aggregator-a", "aggregator-b", "analyzer-a", "analyzer-b", "controller-a", "controller-b"];

/// Roles in the order in which they get a new binary: readers of a record before its writers.
const READERS_FIRST: [&str; 4] = ["analyzer", "controller", "aggregator", "router"];

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fault {
    Killed,
    TakenOver,
    RouterKilled,
    Zombie,
    RouterFrozen,
    StateWiped,
    DiskFull,
    BrokerKilled,
    BrokerStopped,
    BrokerFrozen,
    LinkRefusing,
    LinkSilent,
    ZoneCutOff,
    CutBeyondTransactions,
    RollingRestart,
    NewBinary,
    Poison,
    ClockOff,
    TurnsBad,
}

impl Fault {
    /// Every kind of fault once, for the short run.
    pub(crate) const ALL: [Self; 19] = [
        Self::Killed,
        Self::BrokerKilled,
        Self::TakenOver,
        Self::RouterKilled,
        Self::LinkRefusing,
        Self::Zombie,
        Self::BrokerFrozen,
        Self::StateWiped,
        Self::NewBinary,
        Self::LinkSilent,
        Self::DiskFull,
        Self::RouterFrozen,
        Self::Poison,
        Self::ZoneCutOff,
        Self::BrokerStopped,
        Self::ClockOff,
        Self::TurnsBad,
        Self::CutBeyondTransactions,
        Self::RollingRestart,
    ];

    /// Description of the fault.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Killed => "kill -9, started again at once",
            Self::TakenOver => "kill -9, started again after the other took over",
            Self::RouterKilled => "kill -9 of one of two routers",
            Self::Zombie => "SIGSTOP until the other took over, then SIGCONT",
            Self::RouterFrozen => "SIGSTOP of one of two routers, then SIGCONT",
            Self::StateWiped => "kill -9 and the state directory wiped",
            Self::DiskFull => "disk full while taking over",
            Self::BrokerKilled => "broker kill -9, started again",
            Self::BrokerStopped => "broker stopped, started again",
            Self::BrokerFrozen => "broker SIGSTOP, then SIGCONT",
            Self::LinkRefusing => "connections to all brokers refused",
            Self::LinkSilent => "one broker unreachable",
            Self::ZoneCutOff => "zone cut off until the other took over",
            Self::CutBeyondTransactions => "zone cut off beyond the transaction timeout",
            Self::RollingRestart => "rolling restart",
            Self::NewBinary => "rolling restart to a binary with an added field",
            Self::Poison => "garbage on events",
            Self::ClockOff => "the clock of one of two routers is off",
            Self::TurnsBad => "a canary turns bad as one of two routers goes",
        }
    }
}

/// Results of a kind of fault.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Count {
    pub(crate) injected: u32,
    /// Longest time from the end of the fault until everything was ready and new verdicts came.
    pub(crate) slowest: Duration,
}

/// The pipeline, and the state of the fault injection.
pub(crate) struct World {
    pub(crate) cluster: Cluster,
    pub(crate) fleet: Fleet,
    rng: ChaCha8Rng,
    prefix: String,
    pub(crate) counts: BTreeMap<Fault, Count>,
    /// Kinds of faults that cannot be injected on this machine, with the reason.
    pub(crate) not_shown: BTreeMap<Fault, &'static str>,
    models: Models,
    /// Rollouts whose canary turned bad: what happened to a router at the same time, and the seconds until the rollback.
    pub(crate) turned_bad: BTreeMap<String, (String, f64)>,
}

impl World {
    pub(crate) fn new(cluster: Cluster, fleet: Fleet, models: Models, prefix: &str, seed: u64) -> Self {
        let rng = ChaCha8Rng::seed_from_u64(seed);
        let (counts, mut not_shown) = (BTreeMap::new(), BTreeMap::new());
        if !has_small_disks() {
            not_shown.insert(Fault::DiskFull, "this user may not make mount namespaces");
        }
        let (prefix, turned_bad) = (prefix.to_owned(), BTreeMap::new());
        Self { cluster, fleet, rng, prefix, counts, not_shown, models, turned_bad }
    }

    /// Draws a kind of fault for a long run. Slow faults are drawn less often, and the new binary never.
    pub(crate) fn draw(&mut self) -> Fault {
        loop {
            let fault = *Fault::ALL.choose(&mut self.rng).expect("there are faults");
            let rare = matches!(fault, Fault::CutBeyondTransactions | Fault::RollingRestart);
            let shown = !self.not_shown.contains_key(&fault) && fault != Fault::NewBinary;
            if shown && (!rare || self.rng.random_bool(0.3)) {
                return fault;
            }
        }
    }

    /// Injects a fault, ends it, and waits until the pipeline has recovered. Returns a description.
    pub(crate) fn inject(&mut self, fault: Fault) -> Result<String> {
        let what = self.execute(fault).with_context(|| fault.name())?;
        let ended = Instant::now();
        self.recover().with_context(|| format!("after: {}, {what}", fault.name()))?;
        let count = self.counts.entry(fault).or_default();
        count.injected += 1;
        count.slowest = count.slowest.max(ended.elapsed());
        Ok(format!("{what}; recovered after {:.1} s", ended.elapsed().as_secs_f64()))
    }

    fn execute(&mut self, fault: Fault) -> Result<String> {
        match fault {
            Fault::Killed => self.killed(false),
            Fault::StateWiped => self.killed(true),
            Fault::TakenOver => self.taken_over(),
            Fault::RouterKilled => self.router_killed(),
            Fault::Zombie => self.zombie(),
            Fault::RouterFrozen => self.router_frozen(),
            Fault::DiskFull => self.disk_full(),
            Fault::BrokerKilled | Fault::BrokerStopped => self.broker_away(fault == Fault::BrokerKilled),
            Fault::BrokerFrozen => self.broker_frozen(),
            Fault::LinkRefusing => self.refused(),
            Fault::LinkSilent => self.one_unreachable(),
            Fault::ZoneCutOff => self.cut_off(Duration::ZERO),
            Fault::CutBeyondTransactions => self.cut_off(BEYOND_TRANSACTIONS),
            Fault::RollingRestart => self.roll(),
            Fault::NewBinary => self.new_binary(),
            Fault::Poison => self.poison(),
            Fault::ClockOff => self.clock_off(),
            Fault::TurnsBad => self.turns_bad(),
        }
    }

    /// Waits until the cluster has all replicas, all processes are ready and there are new verdicts, which need every partition of
    /// every stage.
    pub(crate) fn recover(&mut self) -> Result<()> {
        self.cluster.wait_until_whole(PATIENCE)?;
        self.fleet.ready()?;
        let before = self.written("verdicts")?;
        wait_until(PATIENCE, || {
            self.fleet.tend()?;
            Ok(self.written("verdicts")? > before)
        })
        .with_context(|| format!("no new verdicts:\n{}", self.fleet.tasks()))
    }

    /// Number of records and markers of a topic, over all partitions.
    fn written(&self, topic: &str) -> Result<i64> {
        let client: BaseConsumer = client_config(&self.cluster.bootstrap()).create()?;
        let topic = format!("{}{topic}", self.prefix);
        // A partition that has just lost its leader cannot report its end, so it is asked again.
        let end = |partition| {
            let (mut end, mut last) = (None, None);
            let asked = wait_until(PATIENCE, || {
                match client.fetch_watermarks(&topic, partition, Duration::from_secs(30)) {
                    Ok((_, high)) => end = Some(high),
                    Err(error) => last = Some(error),
                }
                Ok(end.is_some())
            });
            end.with_context(|| format!("the end of {topic}[{partition}]: {asked:?}, {last:?}"))
        };
        (0..PARTITIONS as i32).map(end).sum()
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        *from.choose(&mut self.rng).expect("something to pick from")
    }

    /// Sleeps for a random time: the length of the fault.
    fn pause(&mut self, from: Duration, to: Duration) {
        let millis = self.rng.random_range(from.as_millis() as u64..=to.as_millis() as u64);
        thread::sleep(Duration::from_millis(millis));
    }

    fn killed(&mut self, wipe: bool) -> Result<String> {
        let name = self.pick(&PAIRED);
        self.fleet.kill(name)?;
        if wipe {
            self.fleet.wipe(name)?;
        }
        self.fleet.start(name)?;
        Ok(name.to_owned())
    }

    fn taken_over(&mut self) -> Result<String> {
        let name = self.pick(&PAIRED);
        self.fleet.kill(name)?;
        self.peer_owns_all(name)?;
        self.fleet.start(name)?;
        Ok(name.to_owned())
    }

    fn peer_owns_all(&mut self, name: &str) -> Result<()> {
        let (_, peer) = role_and_peer(name);
        self.fleet.owns_all(peer.context("it shares its work")?, PARTITIONS)
    }

    fn router_killed(&mut self) -> Result<String> {
        let name = self.pick(&ROUTERS);
        self.fleet.kill(name)?;
        self.pause(Duration::ZERO, Duration::from_secs(8));
        self.fleet.start(name)?;
        Ok(name.to_owned())
    }

    fn zombie(&mut self) -> Result<String> {
        let name = self.pick(&PAIRED);
        self.fleet.freeze(name)?;
        self.peer_owns_all(name)?;
        self.fleet.thaw(name)?;
        Ok(name.to_owned())
    }

    fn router_frozen(&mut self) -> Result<String> {
        let name = self.pick(&ROUTERS);
        self.fleet.freeze(name)?;
        self.pause(Duration::from_secs(2), Duration::from_secs(8));
        self.fleet.thaw(name)?;
        Ok(name.to_owned())
    }

    /// A process with a full disk has to take over the state of another partition.
    fn disk_full(&mut self) -> Result<String> {
        let name = self.pick(&PAIRED);
        let (role, peer) = role_and_peer(name);
        let peer = peer.context("it shares its work")?;
        self.fleet.stop(name)?;
        self.fleet.set_small_disk(name, true);
        self.fleet.start(name)?;
        self.fleet.ready()?;
        self.fleet.fill_disk(name)?;
        let errors = |fleet: &Fleet| fleet.log(name).matches("the state store failed").count();
        let before = errors(&self.fleet);
        self.fleet.kill(peer)?;
        wait_until(PATIENCE, || Ok(errors(&self.fleet) > before))
            .with_context(|| format!("{name} does not notice that its disk is full:\n{}", self.fleet.log(name)))?;
        self.fleet.free_disk(name)?;
        self.fleet.owns_all(name, PARTITIONS).context("the disk has room again")?;
        self.fleet.start(peer)?;
        self.fleet.ready()?;
        self.fleet.stop(name)?;
        self.fleet.set_small_disk(name, false);
        self.fleet.start(name)?;
        Ok(format!("{name} while {role} partitions of {peer} came"))
    }

    fn broker_away(&mut self, kill: bool) -> Result<String> {
        let node = self.rng.random_range(0..NODES);
        if kill {
            self.cluster.node(node).stop()?;
        } else {
            self.cluster.node(node).shut_down(PATIENCE)?;
        }
        self.pause(Duration::from_secs(2), Duration::from_secs(10));
        // Sometimes a process is killed while only two brokers run.
        if self.rng.random_bool(0.3) {
            let name = self.pick(&PAIRED);
            self.fleet.kill(name)?;
            self.fleet.start(name)?;
        }
        self.cluster.node(node).start_again()?;
        Ok(format!("broker {}", node + 1))
    }

    fn broker_frozen(&mut self) -> Result<String> {
        let node = self.rng.random_range(0..NODES);
        self.cluster.node(node).signal("-STOP")?;
        self.pause(Duration::from_secs(3), Duration::from_secs(12));
        self.cluster.node(node).signal("-CONT")?;
        Ok(format!("broker {}", node + 1))
    }

    fn set_zone(&self, zone: usize, state: State) {
        for node in 0..NODES {
            self.cluster.link(zone, node).set(state);
        }
    }

    #[expect(clippy::unnecessary_wraps, reason = "all faults have the same signature")]
    fn refused(&mut self) -> Result<String> {
        let zone = self.rng.random_range(0..ZONES);
        self.set_zone(zone, State::Refusing);
        self.pause(Duration::from_secs(1), Duration::from_secs(5));
        self.set_zone(zone, State::Up);
        Ok(format!("zone {zone}"))
    }

    #[expect(clippy::unnecessary_wraps, reason = "all faults have the same signature")]
    fn one_unreachable(&mut self) -> Result<String> {
        let (zone, node) = (self.rng.random_range(0..ZONES), self.rng.random_range(0..NODES));
        self.cluster.link(zone, node).set(State::Silent);
        self.pause(Duration::from_secs(3), Duration::from_secs(12));
        self.cluster.link(zone, node).set(State::Up);
        Ok(format!("zone {zone} from broker {}", node + 1))
    }

    /// The processes in the other zone take over. Then the zone is reconnected, and its delayed requests arrive.
    fn cut_off(&mut self, at_least: Duration) -> Result<String> {
        let zone = self.rng.random_range(0..SHARED_ZONES);
        let started = Instant::now();
        self.set_zone(zone, State::Silent);
        for (name, _, _) in MEMBERS.iter().filter(|(name, _, of)| *of != zone && PAIRED.contains(name)) {
            self.fleet.owns_all(name, PARTITIONS)?;
        }
        thread::sleep(at_least.saturating_sub(started.elapsed()));
        self.set_zone(zone, State::Up);
        Ok(format!("zone {zone} for {:.0} s", started.elapsed().as_secs_f64()))
    }

    /// Writes unreadable records, and kills a process that has to dead-letter them.
    fn poison(&mut self) -> Result<String> {
        let producer: BaseProducer = client_config(&self.cluster.bootstrap()).create()?;
        let topic = format!("{}events", self.prefix);
        for partition in 0..PARTITIONS as i32 {
            for _ in 0..POISON {
                let record = BaseRecord::<(), str>::to(&topic).partition(partition).payload("garbage");
                producer.send(record).map_err(|(error, _)| error)?;
            }
        }
        let name = self.pick(&["aggregator-a", "aggregator-b"]);
        self.fleet.kill(name)?;
        producer.flush(PATIENCE)?;
        self.fleet.start(name)?;
        Ok(format!("{POISON} records on each partition, {name} killed"))
    }

    /// A router runs with a wrong clock for a while.
    fn clock_off(&mut self) -> Result<String> {
        let name = self.pick(&ROUTERS);
        let off = self.pick(&[-300_000, -20_000, -4000, 4000, 20_000, 300_000]);
        self.restart_with_clock(name, Some(off))?;
        self.pause(Duration::from_secs(5), Duration::from_secs(15));
        self.restart_with_clock(name, None)?;
        Ok(format!("{name} by {off} ms"))
    }

    fn restart_with_clock(&mut self, name: &'static str, off: Option<i64>) -> Result<()> {
        self.fleet.stop(name)?;
        self.fleet.set_clock(name, off);
        self.fleet.start(name)
    }

    /// The canary of a good rollout starts to fail every call, and at the same time one of the routers becomes unavailable. The rollout
    /// is rolled back while the router is away.
    fn turns_bad(&mut self) -> Result<String> {
        let (name, how) = (self.pick(&ROUTERS), self.pick(&["killed", "stopped", "cut off", "asked to end"]));
        let (rollout, canary) = self.good_rollout()?;
        let started = Instant::now();
        self.models.turn(&canary, true);
        match how {
            "killed" => self.fleet.kill(name)?,
            "stopped" => self.fleet.freeze(name)?,
            "cut off" => self.set_zone(zone_of(name), State::Silent),
            _ => self.fleet.stop(name)?,
        }
        let over = wait_until(PATIENCE, || Ok(self.phase(&rollout).is_some_and(|phase| phase == "rolled_back")));
        let took = started.elapsed().as_secs_f64();
        self.models.turn(&canary, false);
        match how {
            "stopped" => self.fleet.thaw(name)?,
            "cut off" => self.set_zone(zone_of(name), State::Up),
            _ => self.fleet.start(name)?,
        }
        over.with_context(|| format!("{rollout} is {:?}; {name} was {how}", self.phase(&rollout)))?;
        let what = format!("{name} was {how}");
        self.turned_bad.insert(rollout, (what.clone(), took));
        Ok(format!("{what}; rolled back after {took:.1} s"))
    }

    /// Waits for a baking rollout of equal versions, and returns its id and its canary.
    fn good_rollout(&mut self) -> Result<(String, String)> {
        let mut found = None;
        wait_until(PATIENCE, || {
            self.fleet.tend()?;
            let newest = self.rollouts().first().cloned().unwrap_or_default();
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let (phase, canary) = (text(&newest["phase"]), text(&newest["spec"]["canary"]["version"]));
            // In its first step, the rollout will not end soon.
            found = (phase == "baking" && canary != BAD && newest["step"] == 0).then(|| (text(&newest["id"]), canary));
            Ok(found.is_some())
        })
        .with_context(|| format!("no rollout of equal versions bakes: {:?}", self.rollouts().first()))?;
        found.context("a rollout")
    }

    /// The rollouts according to the first controller that answers, newest first.
    fn rollouts(&self) -> Vec<Value> {
        let ask = |api: String| http(Method::GET, &format!("{api}/v1/rollouts"), None).ok()?.json().ok();
        self.fleet.apis().into_iter().find_map(ask).and_then(|all| all.as_array().cloned()).unwrap_or_default()
    }

    fn phase(&self, rollout: &str) -> Option<String> {
        let all = self.rollouts();
        let one = all.iter().find(|one| one["id"] == rollout)?;
        Some(one["phase"].as_str().unwrap_or_default().to_owned())
    }

    fn roll(&mut self) -> Result<String> {
        let of_role = |role| MEMBERS.iter().filter(move |member| member.1 == role);
        for (name, _, _) in READERS_FIRST.into_iter().flat_map(of_role) {
            self.fleet.stop(name)?;
            self.fleet.start(name)?;
            self.fleet.ready()?;
        }
        Ok("all, readers first".to_owned())
    }

    fn new_binary(&mut self) -> Result<String> {
        let binary = next_binary()?;
        self.fleet.use_binary(&binary);
        self.roll()
    }
}

fn zone_of(name: &str) -> usize {
    MEMBERS.iter().find(|member| member.0 == name).map_or(0, |member| member.2)
}

/// The binary whose windows have one more field, in the directory of the binary under test.
pub(crate) fn next_binary() -> Result<PathBuf> {
    let binary = Path::new(SERIN).with_file_name("serin-next");
    ensure!(binary.exists(), "{} is missing; build it with scripts/build-next.sh", binary.display());
    Ok(binary)
}
