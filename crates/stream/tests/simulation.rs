//! Thousands of seeds with machines that crash, pause, and lose their disks and network. The outputs must equal those
//! of an undisturbed run on the same inputs, each record exactly once.
#![cfg(feature = "conformance")]
#![expect(clippy::unwrap_used, reason = "a panic fails the test")]

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    time::Duration,
};

use serin_schemas::ids::NextOffset;
use serin_stream::{
    checkpoint::{self, Checkpoint},
    conformance::{
        DELETE, at,
        counting::{Counting, expected},
        outgoing, read_all, topic, values, write,
    },
    fold::FoldFactory,
    log::Log,
    record::Target,
    sim::{Flaw, SimLog},
    simulation::{Dice, Program, Rates, Setup, Simulation, each_seed},
    task::TaskOptions,
};
use serin_topology::Cleanup;

const PARTITIONS: i32 = 2;
const MACHINES: usize = 3;
/// Turns with faults in one run.
const TURNS: usize = 1000;

fn simulation(seed: u64, rates: Rates, flaw: Flaw) -> Simulation {
    let mut topics = ["in", "out"].map(|name| topic(name, PARTITIONS, DELETE)).to_vec();
    topics.push(topic("counter-changelog", PARTITIONS, Cleanup::Compact));
    topics.push(topic("dead-letters", 1, DELETE));
    let program: Program = Arc::new(|_: &SimLog| vec![Arc::new(Counting { inputs: &["in"] }) as Arc<dyn FoldFactory>]);
    let task = TaskOptions {
        batch: 4,
        commit_every: Duration::from_millis(150),
        fenced_backoff: Duration::from_millis(300),
        ..TaskOptions::default()
    };
    Simulation::new(Setup { seed, topics, machines: vec![program; MACHINES], task, rates, flaw })
}

/// The records written to `in`, by partition.
type Fed = BTreeMap<i32, Vec<(String, String)>>;

/// Writes some more records.
fn feed(simulation: &Simulation, fed: &mut Fed) {
    let (partition, pairs, trim) = simulation.dice(|dice| {
        let value = |dice: &mut Dice| dice.one_of(&["v", "v", "v", "v", "v", "now", "forget", "!"]);
        let pair = |dice: &mut Dice| (dice.one_of(&["a", "b", "c", "d"]).to_owned(), value(dice).to_owned());
        let count = dice.range(1..7);
        let pairs: Vec<_> = (0..count).map(|_| pair(dice)).collect();
        (dice.range(0..PARTITIONS as usize) as i32, pairs, dice.per_mille(100))
    });
    let log = simulation.log();
    write(log, pairs.iter().map(|(key, value)| outgoing("in", Target::Partition(partition), key, value))).unwrap();
    fed.entry(partition).or_default().extend(pairs);
    let place = at(log, "in", partition);
    if let Some(next) = log.committed("counter", &place).unwrap().filter(|_| trim) {
        // Records that every reader has committed may expire.
        log.trim(&place, next).unwrap();
    }
}

/// Compares the contents of the log with the expected ones.
fn check(simulation: &Simulation, fed: &Fed) -> Result<(), String> {
    let log = simulation.log();
    let text = |error: Box<dyn std::error::Error>| error.to_string();
    let bad = fed.values().flatten().filter(|(_, value)| value == "!").count();
    simulation.settle("everything is consumed", |simulation| {
        (0..PARTITIONS).all(|partition| {
            let place = at(simulation.log(), "in", partition);
            let (_, end) = log.bounds(&place).unwrap();
            end == NextOffset(0) || log.committed("counter", &place).unwrap() == Some(end)
        })
    })?;
    for partition in 0..PARTITIONS {
        let outputs = values(&read_all(log, "out", partition).map_err(text)?);
        let wanted = expected(fed.get(&partition).map_or(&[], Vec::as_slice));
        if let Some(place) =
            (0..outputs.len().max(wanted.len())).find(|place| outputs.get(*place) != wanted.get(*place))
        {
            let (found, wanted) = (outputs.get(place), wanted.get(place));
            return Err(format!("out[{partition}], record {place}: {found:?} instead of {wanted:?}"));
        }
        checkpoints_grow(log, partition)?;
    }
    let letters = read_all(log, "dead-letters", 0).map_err(text)?;
    if letters.len() != bad {
        return Err(format!("{} dead letters instead of {bad}", letters.len()));
    }
    let different: BTreeSet<_> = letters.iter().map(|letter| letter.value.clone()).collect();
    if different.len() == bad { Ok(()) } else { Err("a dead letter twice".to_owned()) }
}

/// Commit numbers on a changelog only grow, and positions never go back.
fn checkpoints_grow(log: &SimLog, partition: i32) -> Result<(), String> {
    let (mut seq, mut next) = (0, NextOffset(0));
    for record in read_all(log, "counter-changelog", partition).map_err(|error| error.to_string())? {
        if record.key == checkpoint::KEY {
            let found =
                Checkpoint::decode(record.value.as_deref().unwrap_or_default()).map_err(|error| error.to_string())?;
            let position = found.next("in").ok_or("a checkpoint without a position")?;
            if found.commit_seq <= seq || position < next {
                return Err(format!("{found:?} after commit {seq} at {next:?}"));
            }
            (seq, next) = (found.commit_seq, position);
        }
    }
    Ok(())
}

fn play(seed: u64, turns: usize, flaw: Flaw) -> Result<Simulation, String> {
    let simulation = simulation(seed, Rates::wild(), flaw);
    let mut fed = Fed::new();
    simulation.run_wild(turns, |simulation| feed(simulation, &mut fed));
    simulation.calm();
    feed(&simulation, &mut fed);
    check(&simulation, &fed)?;
    Ok(simulation)
}

/// Injects every possible fault, in thousands of runs.
#[test]
fn exactly_once_whatever_happens() {
    let happened = Mutex::new(BTreeMap::new());
    each_seed("-p serin-stream --features conformance --test simulation exactly_once_whatever_happens", 3000, |seed| {
        for (what, count) in play(seed, TURNS, Flaw::None)?.happened() {
            *happened.lock().unwrap().entry(what).or_insert(0) += count;
        }
        Ok(())
    });
    let happened = happened.into_inner().unwrap();
    println!("{} faults: {happened:?}", happened.values().sum::<u64>());
    if ["SERIN_SIM_SEED", "SERIN_SIM_SEEDS"].iter().all(|name| std::env::var_os(name).is_none()) {
        let missed: Vec<_> = Simulation::possible().into_iter().filter(|what| !happened.contains_key(what)).collect();
        assert!(missed.is_empty(), "never happened: {missed:?}");
    }
}

/// The seed determines everything.
#[test]
fn a_seed_gives_the_same_run_again() {
    let log = |seed| {
        let simulation = play(seed, TURNS, Flaw::None).unwrap();
        let all = |topic: &str, partition: i32| read_all(simulation.log(), topic, partition).unwrap();
        let topics = ["in", "out", "counter-changelog"];
        let records: Vec<_> =
            topics.iter().flat_map(|topic| (0..PARTITIONS).flat_map(move |n| all(topic, n))).collect();
        (records, simulation.now_ms(), simulation.happened())
    };
    assert_eq!(log(7), log(7));
    assert_ne!(log(7).1, log(8).1);
}

/// A simulation that detects nothing would prove nothing: with a defective cluster, some seed must fail soon.
#[test]
fn flaws_of_the_cluster_are_detected() {
    for flaw in [Flaw::ServesZombies, Flaw::ShowsUncommitted, Flaw::AddsRepeated, Flaw::NoTakeOver] {
        let caught = (0..200).find_map(|seed| {
            let played = std::panic::catch_unwind(|| play(seed, TURNS, flaw).map(drop));
            played.unwrap_or_else(|_| Err("a panic".into())).err().map(|error| (seed, error))
        });
        let (seed, error) = caught.unwrap_or_else(|| panic!("{flaw:?} was not detected"));
        println!("{flaw:?}: seed {seed}: {error}");
    }
}
