//! Two routers, and one of them is behind in every way there is as the canary turns bad.
//!
//! All times are the log's: a rollback must be on it within [`PATIENCE_MS`] after the end of the deciding window and the grace,
//! whoever is behind, and no step is promoted while somebody is not heard. Each window is written once, and an aggregator to which
//! nothing happens writes the same bytes from the same log.

mod fleet;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use bytes::Bytes;
use serin_aggregator::AggregatorFactory;
use serin_schemas::{
    codec,
    event::WindowRecord,
    records::{Arm, Control, Decision, NoDataReason, Phase, Verdict},
};
use serin_stream::{
    driver::FoldDriver,
    fold::FoldFactory as _,
    log::{Log as _, Start},
    partition_of,
    record::{Record, TopicPartition},
    sim::{Flaw, SimLog},
    simulation::{Rates, Setup, Simulation, each_seed},
    task::TaskOptions,
};
use serin_topology::{EVENTS, ROUTING, Topology, VERDICTS, WINDOWS};

use super::{MODEL, PARTITIONS, apply, control, program, records, router::micros, verdicts_follow};
use fleet::{ALL, Behind, Router, Says, World};

/// Longest time of the log from the end of a window and its grace to the rollback that it decides.
const PATIENCE_MS: i64 = 5_000;
const WINDOW_MS: i64 = 10_000;
const GRACE_MS: i64 = 5_000;
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
fn play(seed: u64, (behind, says): (Behind, Says), turns_bad: bool, more_s: i64) -> Told {
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
    if let Some(other) = routers.get_mut(1) {
        other.says = says;
        other.off_ms = if let Behind::Clock(off_s) = behind { off_s * 1000 } else { 0 };
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
        Behind::Dead | Behind::Restarted(_) | Behind::Renamed => {
            routers[last].runs = false;
            routers[last].on_the_way.clear();
        }
        Behind::Stopped(_) => routers[last].runs = false,
        Behind::CutOff(_) => routers[last].cut_off = true,
        Behind::Slow(by_s) => routers[last].delay_ms = by_s * 1000,
        Behind::Idle => routers[last].has_calls = false,
        Behind::Jump(off_s) => routers[last].off_ms = off_s * 1000,
        Behind::Joined(off_s) => {
            routers.push(Router { off_ms: off_s * 1000, says, ..Router::new("router-1", bad_ms) });
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
            Behind::Restarted(after_s) if since > after_s * 1000 && !router.runs => {
                router.start_again("router-1", bad_ms + since);
            }
            Behind::Renamed if since > 1000 && !router.runs => router.start_again("router-2", bad_ms + since),
            Behind::Stopped(for_s) if since > for_s * 1000 && !router.runs => {
                router.runs = true;
                (router.next_call_ms, router.next_beat_ms) = (bad_ms + since, bad_ms + since);
            }
            Behind::CutOff(for_s) if since > for_s * 1000 => router.cut_off = false,
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
        let mut aggregator = FoldDriver::new(move || factory.fold(partition)).unwrap();
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
            println!("{}", is_in_time(seed, (behind, Says::Sent))?);
        }
        Ok(())
    });
}

/// The law behind the list: one writer may be behind in any way, whatever it says of its clock.
#[test]
fn a_rollback_waits_for_nobody_in_any_way_behind() {
    each_seed("-p serin --test simulation a_rollback_waits_for_nobody_in_any_way", 16, |seed| {
        println!("{}", is_in_time(seed, Behind::any(seed))?);
        Ok(())
    });
}

/// Plays a canary that turns bad, and holds the rollback against the clock of the log. In words how it went.
fn is_in_time(seed: u64, case: (Behind, Says)) -> Result<String, String> {
    let told = play(seed, case, true, 45);
    let (at, decided) = told.rolled_back.ok_or_else(|| format!("{case:?}: no rollback"))?;
    let (after, since) = (at - decided - GRACE_MS, at - told.bad_ms);
    if after > PATIENCE_MS {
        return Err(format!("{case:?}: {after} ms after the end of the window and the grace"));
    }
    // It was the first window with as much as a second of the bad version in it, or the next.
    if since > 2 * WINDOW_MS + GRACE_MS + PATIENCE_MS {
        return Err(format!("{case:?}: the window that decided it came late: {since} ms"));
    }
    Ok(format!("seed {seed}, {case:?}: {since} ms, {} failed calls; {after} ms after its window", told.failed))
}

/// Promotion waits for who is not heard, and names them; the others do not stop it for ever.
#[test]
fn a_promotion_waits_for_everybody() {
    each_seed("-p serin --test simulation a_promotion_waits_for_everybody", 1, |seed| {
        for behind in [Behind::Nobody, Behind::Dead, Behind::CutOff(40), Behind::Clock(-300), Behind::Clock(300)] {
            let told = play(seed, (behind, Says::Sent), false, 100);
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
                Behind::CutOff(_) => first.is_none_or(|first| first > 25_000) && unheard > 1,
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
