//! Two routers, and one of them is behind in every way there is as the canary turns bad.
//!
//! All times are the log's: a rollback must be on it within [`PATIENCE_MS`] after the end of the deciding window and the grace,
//! whoever is behind, and no step is promoted while somebody is not heard. Each window is written once, and an aggregator to which
//! nothing happens writes the same bytes from the same log.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use bytes::Bytes;
use serin_aggregator::AggregatorFactory;
use serin_schemas::{
    codec,
    event::WindowRecord,
    ids::EventTime,
    records::{
        Arm, Assignment, Control, Decision, Heartbeat, NoDataReason, Origin, Phase, Prediction, RoutingTable, Verdict,
        Writer,
    },
};
use serin_stream::{
    fold::FoldFactory as _,
    log::{Log as _, Reader, Start},
    partition_of,
    record::{Outgoing, Record, Target, TopicPartition},
    sim::{Flaw, SimLog},
    simulation::{Rates, Setup, Simulation, each_seed},
    task::TaskOptions,
    testing::FoldHarness,
};
use serin_topology::{EVENTS, ROUTING, Topology, VERDICTS, WINDOWS};

use super::{
    MODEL, PARTITIONS, apply, control, program, records,
    router::{micros, outgoing, split},
    verdicts_follow,
};

/// Longest time of the log from the end of a window and its grace to the rollback that it decides.
const PATIENCE_MS: i64 = 5_000;
const WINDOW_MS: i64 = 10_000;
const GRACE_MS: i64 = 5_000;
/// Calls per second of one router.
const RATE: i64 = 25;
/// One step of the simulation.
const TICK_MS: i64 = 50;

const ROLLOUT: &str = "
apiVersion: serin.dev/v1
kind: Rollout
model: shop
stable: {version: v1}
canary: {version: v2}
window: 10s
grace: 5s
warmup: {minEvents: 500}
steps:
  - {weight: 30%, bake: {min: 1m, max: 1h}}
  - {weight: 50%, bake: {min: 1m, max: 1h}, require: no_fail}
metrics:
  - {name: error_rate, kind: rate, source: error, margin: {absolute: 0.05}}
  - {name: invalid_output, kind: rate, source: invalid_output, margin: {absolute: 0.05}}
";

/// How one of two routers, or a writer of others' events, is behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Behind {
    Nobody,
    /// `kill -9`.
    Dead,
    /// SIGSTOP, and after 40 s SIGCONT.
    Stopped,
    /// Cut off from the log; after 40 s what waited is written at once.
    CutOff,
    /// Each record is on the log 12 s after it was sent.
    Slow,
    /// It has no calls.
    Idle,
    /// Its clock was always off by so many seconds.
    Clock(i64),
    /// Its clock jumps by so many seconds.
    Jump(i64),
    /// Killed, and started again after 1 s.
    Restarted,
    /// Killed, and started again after 1 s under another name.
    Renamed,
    /// There was no other router; it joins, with a clock that is off by so many seconds.
    Joined(i64),
    /// A relay: a record of now, and then old ones only.
    StalledRelay,
    /// Nobody can write for 25 s; the canary turns bad after that.
    LogPause,
}

const ALL: [Behind; 17] = [
    Behind::Nobody,
    Behind::Dead,
    Behind::Stopped,
    Behind::CutOff,
    Behind::Slow,
    Behind::Idle,
    Behind::Clock(-300),
    Behind::Clock(300),
    Behind::Clock(-4),
    Behind::Jump(-300),
    Behind::Jump(300),
    Behind::Restarted,
    Behind::Renamed,
    Behind::Joined(0),
    Behind::Joined(-300),
    Behind::StalledRelay,
    Behind::LogPause,
];

/// A router by its rule, with a clock and a way to the log of its own.
struct Router {
    name: &'static str,
    incarnation: i64,
    seq: BTreeMap<i32, i64>,
    /// Nothing earlier may follow.
    floor: EventTime,
    /// What its clock shows less the log's, in milliseconds.
    off_ms: i64,
    /// How long its records take.
    delay_ms: i64,
    runs: bool,
    has_calls: bool,
    /// Its records wait for the log.
    cut_off: bool,
    /// Records on their way, with the time at which they arrive.
    on_the_way: Vec<(i64, Outgoing)>,
    next_call_ms: i64,
    next_beat_ms: i64,
}

impl Router {
    fn new(name: &'static str, now_ms: i64) -> Self {
        Self {
            name,
            incarnation: now_ms,
            seq: BTreeMap::new(),
            floor: EventTime(0),
            off_ms: 0,
            delay_ms: 0,
            runs: true,
            has_calls: true,
            cut_off: false,
            on_the_way: Vec::new(),
            next_call_ms: now_ms,
            next_beat_ms: now_ms + 300,
        }
    }

    /// Killed and started again; what was on its way is lost.
    fn start_again(&mut self, name: &'static str, now_ms: i64) {
        *self = Self { off_ms: self.off_ms, ..Self::new(name, now_ms) };
    }

    fn writer(&self, partition: i32) -> Writer {
        let seq = self.seq.get(&partition).copied().unwrap_or(0);
        Writer { name: self.name.to_owned(), incarnation: self.incarnation, seq }
    }

    fn live(&mut self, now_ms: i64, world: &mut World<'_>) {
        while self.runs && self.next_call_ms <= now_ms {
            self.next_call_ms += 1000 / RATE;
            if self.has_calls {
                let call = self.call(now_ms, world);
                self.on_the_way.push((now_ms + self.delay_ms, call));
            }
        }
        while self.runs && self.next_beat_ms <= now_ms {
            self.next_beat_ms += 1000;
            let sent_at = micros(now_ms + self.off_ms);
            self.floor = self.floor.max(sent_at);
            for partition in 0..PARTITIONS {
                let heartbeat = Heartbeat {
                    writer: self.writer(partition),
                    low_watermark: self.floor,
                    drops: vec![],
                    leaving: false,
                    sent_at: Some(sent_at),
                    relay: false,
                };
                let record = outgoing(EVENTS, Target::Partition(partition), "", &heartbeat);
                self.on_the_way.push((now_ms + self.delay_ms, record));
            }
        }
        if !self.cut_off && !world.log_is_away {
            let arrived = self.on_the_way.iter().position(|(at, _)| *at > now_ms).unwrap_or(self.on_the_way.len());
            world.write(self.on_the_way.drain(..arrived).map(|(_, record)| record));
        }
    }

    fn call(&mut self, now_ms: i64, world: &mut World<'_>) -> Outgoing {
        world.calls += 1;
        let request = format!("{}-{}", self.name, world.calls);
        let (bucket, chance) = world.simulation.dice(|dice| (dice.range(0..10_000), dice.range(0..1000)));
        let (arm, version) =
            world.table.as_ref().map_or((Arm::Stable, "v1".to_owned()), |table| split(table, bucket as i32));
        let fails = chance < if arm == Arm::Canary && world.is_bad { 700 } else { 5 };
        world.failed += u64::from(fails && world.is_bad);
        let partition = partition_of(request.as_bytes(), PARTITIONS);
        *self.seq.entry(partition).or_default() += 1;
        let prediction = Prediction {
            request_id: request.as_str().into(),
            model: MODEL.into(),
            version: version.into(),
            arm,
            assignment: Assignment::Random,
            origin: Origin::Router,
            rollout: world.table.as_ref().and_then(|table| table.rollout.clone()),
            generation: world.table.as_ref().map(|table| table.generation).unwrap_or_default(),
            completed_at: micros(now_ms + self.off_ms).max(self.floor),
            latency_us: Some(1000),
            status: Some(if fails { 500 } else { 200 }),
            error: None,
            invalid_output: None,
            unit: None,
            outputs: [].into(),
            classes: [].into(),
            segments: [].into(),
            writer: self.writer(partition),
            outcome: None,
            unread: None,
        };
        outgoing(EVENTS, Target::Partition(partition), &request, &prediction)
    }
}

/// What the routers share.
struct World<'a> {
    simulation: &'a Simulation,
    tables: Box<dyn Reader>,
    table: Option<RoutingTable>,
    is_bad: bool,
    log_is_away: bool,
    calls: u64,
    failed: u64,
}

impl World<'_> {
    fn write(&self, records: impl Iterator<Item = Outgoing>) {
        let writer = self.simulation.log().writer(1).unwrap();
        records.for_each(|record| writer.send(record).unwrap());
    }

    fn follow(&mut self) {
        let mut records = Vec::new();
        self.tables.poll(1000, Duration::ZERO, &mut records).unwrap();
        for record in records {
            self.table = Some(codec::read(&record.headers, record.value.as_deref().unwrap()).unwrap());
        }
    }

    fn phase(&self) -> Option<(Phase, i32)> {
        let log = self.simulation.log();
        let newest = records(log, EVENTS, 0).iter().filter_map(control).last()?;
        Some((newest.phase, newest.step))
    }

    /// A relay's heartbeat: its watermark stands still.
    fn relay(&self, low_watermark: EventTime) {
        let sent_at = Some(micros(self.simulation.now_ms()));
        let writer = Writer { name: "intake-0".to_owned(), incarnation: 1, seq: 0 };
        let heartbeat = Heartbeat { writer, low_watermark, drops: vec![], leaving: false, sent_at, relay: true };
        let beat = |partition| outgoing(EVENTS, Target::Partition(partition), "", &heartbeat);
        self.write((0..PARTITIONS).map(beat));
    }
}

/// What came of one run.
struct Told {
    /// Log time of the canary turning bad, if it did.
    bad_ms: i64,
    /// Log time of the rollback, and the end of the window that decided it.
    rolled_back: Option<(i64, i64)>,
    failed: u64,
    verdicts: Vec<(i64, Verdict)>,
}

fn simulation(seed: u64) -> Simulation {
    let topics = Topology { partitions: PARTITIONS, ..Topology::default() }.topics();
    let (task, rates) = (TaskOptions::default(), Rates::wild());
    Simulation::new(Setup { seed, topics, machines: vec![program()], task, rates, flaw: Flaw::None })
}

/// Begins a rollout, lets somebody be behind once the canary bakes, and goes on for `more_s` seconds.
fn play(seed: u64, behind: Behind, turns_bad: bool, more_s: i64) -> Told {
    let simulation = simulation(seed);
    let log = simulation.log();
    apply(&simulation, ROLLOUT);
    let places: Vec<_> = (0..PARTITIONS).map(|n| (TopicPartition::new(ROUTING, n), Start::Beginning)).collect();
    let mut world = World {
        simulation: &simulation,
        tables: log.reader(&places).unwrap(),
        table: None,
        is_bad: false,
        log_is_away: false,
        calls: 0,
        failed: 0,
    };
    let mut routers = vec![Router::new("router-0", simulation.now_ms())];
    if !matches!(behind, Behind::Joined(_)) {
        routers.push(Router::new("router-1", simulation.now_ms() + 170));
    }
    if let Behind::Clock(off_s) = behind {
        routers[1].off_ms = off_s * 1000;
    }
    let tick = |world: &mut World<'_>, routers: &mut [Router]| {
        world.follow();
        let now_ms = simulation.now_ms();
        for router in routers.iter_mut() {
            router.live(now_ms, world);
        }
        // Turns take time themselves.
        simulation.turns(0, 4);
        simulation.pass(Duration::from_millis((now_ms + TICK_MS - simulation.now_ms()).max(0).unsigned_abs()));
    };
    // Warm-up, and half a minute of baking.
    let mut baking = 0;
    for _ in 0..600_000 / TICK_MS {
        tick(&mut world, &mut routers);
        let canary =
            world.table.as_ref().is_some_and(|table| table.routes.iter().any(|route| route.arm == Arm::Canary));
        baking += i64::from(canary);
        if baking * TICK_MS > 25_000 && simulation.now_ms() % WINDOW_MS < TICK_MS {
            break;
        }
    }
    assert!(baking > 0, "the canary never began: {:?}", world.phase());
    if behind == Behind::LogPause {
        world.log_is_away = true;
        let until = simulation.now_ms() + 25_000;
        while simulation.now_ms() < until {
            tick(&mut world, &mut routers);
        }
        world.log_is_away = false;
    }
    let bad_ms = simulation.now_ms();
    world.is_bad = turns_bad;
    let stalled = micros(bad_ms);
    let last = routers.len() - 1;
    match behind {
        Behind::Dead | Behind::Restarted | Behind::Renamed => {
            routers[last].runs = false;
            routers[last].on_the_way.clear();
        }
        Behind::Stopped => routers[last].runs = false,
        Behind::CutOff => routers[last].cut_off = true,
        Behind::Slow => routers[last].delay_ms = 12_000,
        Behind::Idle => routers[last].has_calls = false,
        Behind::Jump(off_s) => routers[last].off_ms = off_s * 1000,
        Behind::Joined(off_s) => {
            routers.push(Router { off_ms: off_s * 1000, ..Router::new("router-1", bad_ms) });
        }
        Behind::Nobody | Behind::Clock(_) | Behind::StalledRelay | Behind::LogPause => {}
    }
    let mut second = 0;
    while simulation.now_ms() < bad_ms + more_s * 1000 {
        let since = simulation.now_ms() - bad_ms;
        if behind == Behind::StalledRelay && since / 1000 > second {
            world.relay(stalled);
        }
        second = since / 1000;
        let router = &mut routers[1];
        match behind {
            Behind::Restarted if since > 1000 && !router.runs => router.start_again("router-1", bad_ms + since),
            Behind::Renamed if since > 1000 && !router.runs => router.start_again("router-2", bad_ms + since),
            Behind::Stopped if since > 40_000 && !router.runs => {
                router.runs = true;
                (router.next_call_ms, router.next_beat_ms) = (bad_ms + since, bad_ms + since);
            }
            Behind::CutOff if since > 40_000 => router.cut_off = false,
            _ => {}
        }
        tick(&mut world, &mut routers);
    }
    assert_eq!(simulation.failures(), Vec::<String>::new());
    windows_follow(log);
    verdicts_follow(log).unwrap();
    Told { bad_ms, rolled_back: rolled_back(log), failed: world.failed, verdicts: verdicts(log) }
}

fn verdicts(log: &SimLog) -> Vec<(i64, Verdict)> {
    let verdicts = records(log, VERDICTS, partition_of(MODEL.as_bytes(), PARTITIONS));
    let read = |record: &Record| codec::read(&record.headers, record.value.as_deref().unwrap()).unwrap();
    verdicts.iter().map(|record| (record.timestamp_ms, read(record))).collect()
}

/// When the rollback was on the log, and the end of the window that decided it.
fn rolled_back(log: &SimLog) -> Option<(i64, i64)> {
    let (_, verdict) = verdicts(log).into_iter().find(|(_, verdict)| verdict.decision == Decision::Rollback)?;
    let is_rollback =
        |record: &Record| control(record).is_some_and(|control: Control| control.phase == Phase::RolledBack);
    let told = records(log, EVENTS, 0);
    let told = told.iter().find(|record| is_rollback(record))?;
    Some((told.timestamp_ms, verdict.as_of.0 / 1000))
}

/// Each window is on the log once, and an aggregator to which nothing happens writes the same bytes from the recorded stamps.
fn windows_follow(log: &SimLog) {
    let mut recorded: BTreeMap<i32, Vec<(Option<Bytes>, WindowRecord)>> = BTreeMap::new();
    let mut closed = BTreeSet::new();
    let own = partition_of(MODEL.as_bytes(), PARTITIONS);
    for record in records(log, WINDOWS, own) {
        let decoded = WindowRecord::decode(&record.headers, record.value.as_deref().unwrap()).unwrap();
        let partition = match &decoded {
            WindowRecord::WindowClosed(window) => {
                let key = (window.partition, window.generation, window.end, window.maturity);
                assert!(closed.insert(key), "window {key:?} is on the log twice");
                window.partition
            }
            WindowRecord::ClosedThrough(promise) => promise.partition,
            WindowRecord::Control(_) => continue,
        };
        recorded.entry(partition).or_default().push((record.value, decoded));
    }
    for (partition, recorded) in recorded {
        let factory = AggregatorFactory::new(serin_aggregator::Config::default(), PARTITIONS);
        let mut aggregator = FoldHarness::new(move || factory.fold(partition)).unwrap();
        for record in records(log, EVENTS, partition) {
            assert_eq!(aggregator.apply(&record).unwrap().poison, None);
        }
        let computed = aggregator.commit().unwrap().into_iter().filter(|out| out.topic == WINDOWS);
        let computed: Vec<Option<Bytes>> = computed.map(|out| out.value).collect();
        assert!(computed.len() >= recorded.len());
        for (place, ((value, decoded), computed)) in recorded.iter().zip(&computed).enumerate() {
            assert_eq!(value, computed, "record {place} of partition {partition}: {decoded:?}");
        }
    }
}

/// Harm is seen in time whoever is behind.
#[test]
fn a_rollback_waits_for_nobody() {
    each_seed("-p serin --test simulation a_rollback_waits_for_nobody", 1, |seed| {
        for behind in ALL {
            let told = play(seed, behind, true, 45);
            let (at, decided) = told.rolled_back.ok_or_else(|| format!("{behind:?}: no rollback"))?;
            let (after, since) = (at - decided - GRACE_MS, at - told.bad_ms);
            println!("seed {seed}, {behind:?}: {since} ms, {} failed calls; {after} ms after its window", told.failed);
            if after > PATIENCE_MS {
                return Err(format!("{behind:?}: {after} ms after the end of the window and the grace"));
            }
            // It was the first window with as much as a second of the bad version in it, or the next.
            if since > 2 * WINDOW_MS + GRACE_MS + PATIENCE_MS {
                return Err(format!("{behind:?}: the window that decided it came late: {since} ms"));
            }
        }
        Ok(())
    });
}

/// Promotion waits for who is not heard, and names them; the others do not stop it for ever.
#[test]
fn a_promotion_waits_for_everybody() {
    each_seed("-p serin --test simulation a_promotion_waits_for_everybody", 1, |seed| {
        for behind in [Behind::Nobody, Behind::Dead, Behind::CutOff, Behind::Clock(-300), Behind::Clock(300)] {
            let told = play(seed, behind, false, 100);
            if let Some(rolled_back) = told.rolled_back {
                return Err(format!("{behind:?}: an equal version was rolled back: {rolled_back:?}"));
            }
            let after = |ms: i64| told.verdicts.iter().filter(move |(at, _)| *at > ms);
            let promoted = |verdict: &Verdict| verdict.decision == Decision::Promote;
            let first =
                after(told.bad_ms + 4_000).find(|(_, verdict)| promoted(verdict)).map(|(at, _)| at - told.bad_ms);
            println!("seed {seed}, {behind:?}: promotion possible after {first:?} ms");
            let unheard = after(told.bad_ms + 4_000).filter(|(_, verdict)| {
                verdict
                    .health
                    .iter()
                    .any(|issue| issue.reason == NoDataReason::NotHeard && issue.sentence.contains("router-1"))
            });
            let unheard = unheard.count();
            let as_it_should = match behind {
                Behind::Nobody => first.is_some_and(|first| first < 20_000) && unheard == 0,
                // Given up after `writer_ttl`.
                Behind::Dead => first.is_some_and(|first| (25_000..60_000).contains(&first)) && unheard > 1,
                // What it had to tell came late: more than may be.
                Behind::CutOff => first.is_none_or(|first| first > 25_000) && unheard > 1,
                Behind::Clock(off) => (first.is_some() == (off > 0)) && unheard > 5,
                _ => unreachable!("not played here"),
            };
            if !as_it_should {
                return Err(format!("{behind:?}: promotion possible after {first:?} ms, {unheard} verdicts name it"));
            }
        }
        Ok(())
    });
}
