//! Two routers, one of which is behind in some way when the canary turns bad.
//!
//! All times are append timestamps. A rollback must be on the log within [`PATIENCE_MS`] after the end of the deciding window and the grace,
//! whichever router is behind, and no step is promoted while a router sends no heartbeats. Each window is written once, and an
//! undisturbed aggregator writes the same bytes from the same log.

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
use fleet::{ALL, Beats, Behind, Router, World};

/// Maximum time, by append timestamps, from the end of a window and its grace to the rollback that it decides.
const PATIENCE_MS: i64 = 5_000;
const WINDOW_MS: i64 = 10_000;
const GRACE_MS: i64 = 5_000;
/// Length of a simulation step.
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

/// Result of one run.
struct Played {
    /// Append timestamp from which the canary may turn bad.
    bad_ms: i64,
    /// Append timestamp of the rollback, and the end of the window that decided it.
    rolled_back: Option<(i64, i64)>,
    failed: u64,
    verdicts: Vec<(i64, Verdict)>,
}

fn simulation(seed: u64) -> Simulation {
    let topics = Topology { partitions: PARTITIONS, ..Topology::default() }.topics();
    let (task, rates) = (TaskOptions::default(), Rates::wild());
    Simulation::new(Setup { seed, topics, machines: vec![program()], task, rates, flaw: Flaw::None })
}

/// Starts a rollout, lets a router be behind once the canary bakes, and continues for `more_s` seconds.
fn play(seed: u64, (behind, beats): (Behind, Beats), turns_bad: bool, more_s: i64) -> Played {
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
        other.beats = beats;
        other.off_ms = if let Behind::Clock(off_s) = behind { off_s * 1000 } else { 0 };
    }
    let tick = |world: &mut World<'_>, routers: &mut [Router]| {
        world.follow();
        let now_ms = simulation.now_ms();
        for router in routers.iter_mut() {
            router.live(now_ms, world);
        }
        // Turns also take time.
        simulation.turns(0, 4);
        simulation.pass(Duration::from_millis((now_ms + TICK_MS - simulation.now_ms()).max(0).unsigned_abs()));
    };
    // Warm-up, and about half a minute of baking.
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
    assert!(baking > 0, "the canary never started: {:?}", world.phase());
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
            routers[last].in_flight.clear();
        }
        Behind::Stopped(_) => routers[last].runs = false,
        Behind::CutOff(_) => routers[last].cut_off = true,
        Behind::Slow(by_s) => routers[last].delay_ms = by_s * 1000,
        Behind::Idle => routers[last].has_calls = false,
        Behind::Jump(off_s) => routers[last].off_ms = off_s * 1000,
        Behind::Joined(off_s) => {
            routers.push(Router { off_ms: off_s * 1000, beats, ..Router::new("router-1", bad_ms) });
        }
        Behind::None | Behind::Clock(_) | Behind::StalledRelay | Behind::LogPause => {}
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
    Played { bad_ms, rolled_back: rolled_back(log), failed: world.failed, verdicts: verdicts(log) }
}

fn verdicts(log: &SimLog) -> Vec<(i64, Verdict)> {
    let verdicts = records(log, VERDICTS, partition_of(MODEL.as_bytes(), PARTITIONS));
    let read = |record: &Record| codec::read(&record.headers, record.value.as_deref().unwrap()).unwrap();
    verdicts.iter().map(|record| (record.timestamp_ms, read(record))).collect()
}

/// The append timestamp of the rollback, and the end of the window that decided it.
fn rolled_back(log: &SimLog) -> Option<(i64, i64)> {
    let (_, verdict) = verdicts(log).into_iter().find(|(_, verdict)| verdict.decision == Decision::Rollback)?;
    let is_rollback =
        |record: &Record| control(record).is_some_and(|control: Control| control.phase == Phase::RolledBack);
    let events = records(log, EVENTS, 0);
    let rollback = events.iter().find(|record| is_rollback(record))?;
    Some((rollback.timestamp_ms, verdict.as_of.0 / 1000))
}

/// Checks that each window is on the log once, and that an undisturbed aggregator writes the same bytes from the recorded timestamps.
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

/// A rollback is in time whichever router is behind.
#[test]
fn a_rollback_waits_for_no_router() {
    each_seed("-p serin --test simulation a_rollback_waits_for_no_router", 1, |seed| {
        for behind in ALL {
            println!("{}", is_in_time(seed, (behind, Beats::WithTime))?);
        }
        Ok(())
    });
}

/// The general property: one writer may be behind in any way, with any heartbeats.
#[test]
fn a_rollback_waits_for_no_router_in_random_cases() {
    each_seed("-p serin --test simulation a_rollback_waits_for_no_router_in_random_cases", 16, |seed| {
        println!("{}", is_in_time(seed, Behind::any(seed))?);
        Ok(())
    });
}

/// Plays a canary that turns bad, and checks the append timestamp of the rollback. Returns a description of the run.
fn is_in_time(seed: u64, case: (Behind, Beats)) -> Result<String, String> {
    let played = play(seed, case, true, 45);
    let (at, decided) = played.rolled_back.ok_or_else(|| format!("{case:?}: no rollback"))?;
    let (after, since) = (at - decided - GRACE_MS, at - played.bad_ms);
    if after > PATIENCE_MS {
        return Err(format!("{case:?}: {after} ms after the end of the window and the grace"));
    }
    // The deciding window is the first one with at least a second of the bad version, or the next one.
    if since > 2 * WINDOW_MS + GRACE_MS + PATIENCE_MS {
        return Err(format!("{case:?}: the window that decided it came late: {since} ms"));
    }
    Ok(format!("seed {seed}, {case:?}: {since} ms, {} failed calls; {after} ms after its window", played.failed))
}

/// A promotion waits for routers that send no heartbeats, and names them. It does not wait forever for the others.
#[test]
fn a_promotion_waits_for_all_routers() {
    each_seed("-p serin --test simulation a_promotion_waits_for_all_routers", 1, |seed| {
        for behind in [Behind::None, Behind::Dead, Behind::CutOff(40), Behind::Clock(-300), Behind::Clock(300)] {
            let played = play(seed, (behind, Beats::WithTime), false, 100);
            if let Some(rolled_back) = played.rolled_back {
                return Err(format!("{behind:?}: an equal version was rolled back: {rolled_back:?}"));
            }
            let after = |ms: i64| played.verdicts.iter().filter(move |(at, _)| *at > ms);
            let promoted = |verdict: &Verdict| verdict.decision == Decision::Promote;
            let first =
                after(played.bad_ms + 4_000).find(|(_, verdict)| promoted(verdict)).map(|(at, _)| at - played.bad_ms);
            println!("seed {seed}, {behind:?}: promotion possible after {first:?} ms");
            let unheard = after(played.bad_ms + 4_000).filter(|(_, verdict)| {
                verdict
                    .health
                    .iter()
                    .any(|issue| issue.reason == NoDataReason::NotHeard && issue.sentence.contains("router-1"))
            });
            let unheard = unheard.count();
            let as_it_should = match behind {
                Behind::None => first.is_some_and(|first| first < 20_000) && unheard == 0,
                // The router is given up after `writer_ttl`.
                Behind::Dead => first.is_some_and(|first| (25_000..60_000).contains(&first)) && unheard > 1,
                // Too many of the router's events are late.
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
