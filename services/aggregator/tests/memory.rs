//! Tests the memory bound of the join state with a counting allocator. Filled with the worst shapes, the bound holds.
//! The accounted memory equals the allocated memory within a quarter, also after a restart.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

#[path = "it/common.rs"]
#[expect(dead_code, reason = "shared with the other tests")]
mod common;

use std::{
    alloc::System,
    sync::{Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use cap::Cap;
use serde_json::{Value, json};
use serin_aggregator::{AggregatorFold, Config};
use serin_schemas::{
    event::EventRecord::{self, Feedback as F, Prediction as P},
    ids::Span,
    records::{Arm, Feedback, Prediction},
};
use serin_spec::RolloutSpec;
use serin_stream::{
    fold::{Context, Fold as _},
    record::{Record, TopicPartition},
    rows::Overlay,
    store::MemoryStore,
};

use crate::common::*;

#[global_allocator]
static MEMORY: Cap<System> = Cap::new(System, usize::MAX);

/// The bound under test.
const BOUND: usize = 1 << 20;

/// All tests share one allocator.
fn exclusive() -> MutexGuard<'static, ()> {
    static LOCK: Mutex<()> = Mutex::new(());
    LOCK.lock().unwrap_or_else(PoisonError::into_inner)
}

fn config() -> Config {
    Config { join_memory: BOUND, ..Config::default() }
}

/// A fold with its rows.
struct Partition {
    fold: AggregatorFold,
    rows: Overlay,
    offset: i64,
}

/// The memory of a fold for joins and windows.
#[derive(Clone, Copy, Debug)]
struct Held {
    /// Bytes accounted by the fold.
    accounted: usize,
    /// The part of it that is bounded.
    bounded: usize,
    /// Bytes counted by the allocator.
    allocated: usize,
}

impl Partition {
    fn open(store: &MemoryStore) -> Self {
        let mut rows = Overlay::new(Box::new(store.clone()));
        let mut fold = AggregatorFold::new(config(), 0, 1);
        fold.open(&mut rows).unwrap();
        Self { fold, rows, offset: 0 }
    }

    fn feed(&mut self, event: &EventRecord) {
        let (headers, value) = wire(event);
        let at = TopicPartition::new("events", 0);
        let record =
            Record { at, offset: self.offset, timestamp_ms: 0, key: Bytes::new(), value: Some(value), headers };
        self.offset += 1;
        let mut context = Context { rows: &mut self.rows, out: &mut Vec::new(), commit_now: false };
        assert_eq!(self.fold.apply(&record, &mut context).unwrap(), Ok(()), "{event:?}");
        if self.fold.unsaved_bytes() > BOUND / 16 {
            self.commit();
        }
    }

    fn commit(&mut self) {
        let mut context = Context { rows: &mut self.rows, out: &mut Vec::new(), commit_now: false };
        self.fold.before_commit(&mut context).unwrap();
        let changes = self.rows.changes().unwrap();
        self.rows.store().write(changes).unwrap();
        self.rows.committed();
        self.fold.committed();
    }

    /// Drops the fold and returns its memory.
    fn measure(mut self) -> Held {
        self.commit();
        let memory = self.fold.memory();
        let of = |maps: &[&str]| memory.iter().filter(|(map, _)| maps.contains(map)).map(|(_, bytes)| bytes).sum();
        let Self { fold, rows, .. } = self;
        let before = MEMORY.allocated();
        drop(fold);
        let allocated = before - MEMORY.allocated();
        drop(rows);
        Held { accounted: of(&["predictions", "early", "windows"]), bounded: of(&["predictions", "early"]), allocated }
    }
}

/// Fills a partition beyond its bound with the events that `event` creates for 1, 2, ... Measures it, and again after
/// a restart.
fn holds(shape: &str, spec: &RolloutSpec, least: f64, event: impl Fn(i64) -> EventRecord) {
    let _exclusive = exclusive();
    // Metrics that are published for the first time stay allocated.
    let mut empty = Partition::open(&MemoryStore::default());
    empty.feed(&baking(spec));
    empty.measure();
    let mut empty = Partition::open(&MemoryStore::default());
    empty.feed(&baking(spec));
    let empty = empty.measure();

    let store = MemoryStore::default();
    let mut partition = Partition::open(&store);
    partition.feed(&baking(spec));
    let (mut most, mut n) = (0, 0);
    // Continue until it has been full for a while.
    while n < 20_000 {
        n += 1;
        partition.feed(&event(n));
        let bounded: usize = partition.fold.memory().iter().filter(|(map, _)| *map != "windows").map(|(_, b)| b).sum();
        most = most.max(bounded);
    }
    assert!(most <= BOUND, "{shape}: {most} bytes are accounted, the bound is {BOUND}");
    assert!(most as f64 >= least * BOUND as f64, "{shape}: {most} bytes do not fill the bound");
    for (when, held) in [("filled", partition.measure()), ("restored", Partition::open(&store).measure())] {
        let (accounted, allocated) = (held.accounted - empty.accounted, held.allocated - empty.allocated);
        let ratio = accounted as f64 / allocated as f64;
        eprintln!("{shape}, {when}: {accounted} accounted, {allocated} allocated, {ratio:.2}; most {most}");
        assert!((0.8..=1.25).contains(&ratio), "{shape}, {when}: {accounted} accounted, {allocated} allocated");
        assert!(held.bounded <= BOUND, "{shape}, {when}: {held:?}");
    }
}

/// A rollout with one metric for each of these labels.
fn reading(names: &[String]) -> RolloutSpec {
    let metric = |(n, name): (usize, &String)| {
        json!({"name": format!("m{n}"), "kind": "rate", "source": {"feedback": name}, "margin": {"absolute": 0.1},
            "maturity": "1h"})
    };
    let metrics: Vec<Value> = names.iter().enumerate().map(metric).collect();
    spec_with(&metrics, |_| {})
}

/// Names of `length` bytes.
fn names(count: usize, length: usize) -> Vec<String> {
    (0..count).map(|n| format!("{n:02}{}", "x".repeat(length - 2))).collect()
}

fn labels(id: String, seq: i64, names: &[String]) -> EventRecord {
    let values = names.iter().map(|name| (name.clone(), 1.0)).collect();
    F(Feedback { request_id: id.into(), values, ..feedback(1, seq, 0, "", 1.0) })
}

#[test]
fn many_tiny_predictions() {
    let spec = reading(&names(1, 4));
    holds("tiny predictions", &spec, 0.7, |n| {
        P(Prediction { request_id: format!("{n}").into(), ..prediction(n, Arm::Canary, 1.0) })
    });
}

#[test]
fn predictions_with_long_ids_that_wait_for_many_labels() {
    let spec = reading(&names(40, 100));
    holds("large predictions", &spec, 0.7, |n| {
        let id = format!("{n}{}", "i".repeat(240));
        P(Prediction { request_id: id.into(), ..prediction(n, Arm::Control, 1.0) })
    });
}

#[test]
fn predictions_in_separate_windows() {
    let spec = reading(&names(1, 4));
    holds("windows", &spec, 0.3, |n| P(prediction(n, Arm::Canary, (n % 60) as f64 * 10.0)));
}

#[test]
fn calls_and_their_mirrors() {
    let metric =
        json!({"name": "differs", "kind": "disagreement", "source": {"output": "score"}, "limit": {"fail": 0.1}});
    let spec = spec_with(&[metric], |_| {});
    holds("mirrors", &spec, 0.7, |n| {
        let arm = if n % 2 == 0 { Arm::Shadow } else { Arm::Control };
        let version = if arm == Arm::Shadow { "v2" } else { "v1" };
        let id = format!("request-{}", n / 2);
        P(Prediction { request_id: id.into(), version: version.into(), ..prediction(n, arm, 1.0) })
    });
}

#[test]
fn many_tiny_labels_without_their_predictions() {
    let names = names(1, 4);
    holds("tiny labels", &reading(&names), 0.24, |n| labels(format!("{n}"), n, &names));
}

#[test]
fn labels_with_sixty_long_names() {
    let names = names(60, 250);
    holds("many names", &reading(&names), 0.22, |n| labels(format!("{n}"), n, &names));
}

#[test]
fn labels_that_arrive_one_by_one() {
    let names = names(60, 20);
    holds("one name at a time", &reading(&names), 0.22, |n| {
        labels(format!("{}", n / 60), n, &names[(n % 60) as usize..][..1])
    });
}

#[test]
fn outputs_without_their_predictions() {
    let spec = reading(&names(1, 4));
    holds("outputs", &spec, 0.22, |n| {
        let origin = serin_schemas::records::Origin::Intake;
        P(Prediction { origin, writer: writer("intake-0", n), ..prediction(n, Arm::Canary, 1.0) })
    });
}

/// Labels that no rollout reads take no memory at all.
#[test]
fn labels_that_no_rollout_reads_take_nothing() {
    let _exclusive = exclusive();
    let spec = reading(&names(1, 4));
    for rollout in [Some(&spec), None] {
        let store = MemoryStore::default();
        let mut partition = Partition::open(&store);
        partition.feed(&beat(0, 1.0));
        if let Some(spec) = rollout {
            partition.feed(&baking(spec));
        }
        for n in 1..=5000 {
            let sixty: Vec<String> = (0..60).map(|k| format!("{n}-{k}{}", "x".repeat(240))).collect();
            partition.feed(&labels(format!("{n}"), n, &sixty));
        }
        let held = partition.measure();
        assert_eq!(held.bounded, 0);
        assert!(store.rows().keys().all(|key| key[0] != 9), "no row");
    }
}

/// The labels that wait when a rollout ends are removed with it, unless another rollout reads them.
#[test]
fn labels_are_removed_with_the_rollout_that_reads_them() {
    let _exclusive = exclusive();
    let names = names(1, 4);
    let store = MemoryStore::default();
    let mut partition = Partition::open(&store);
    partition.feed(&baking(&reading(&names)));
    for n in 1..=500 {
        partition.feed(&labels(format!("{n}"), n, &names));
    }
    partition.commit();
    assert_eq!(store.rows().keys().filter(|key| key[0] == 9).count(), 500);
    partition.feed(&ended(3));
    assert_eq!(partition.measure().bounded, 0);
    assert!(store.rows().keys().all(|key| key[0] != 9), "no row");
}

/// Rows that were written under a larger bound or without one.
#[test]
fn a_smaller_bound_holds_after_the_restart() {
    let _exclusive = exclusive();
    let names = names(1, 4);
    let store = MemoryStore::default();
    let open = |join_memory| {
        let mut rows = Overlay::new(Box::new(store.clone()));
        let mut fold = AggregatorFold::new(Config { join_memory, ..Config::default() }, 0, 1);
        fold.open(&mut rows).unwrap();
        Partition { fold, rows, offset: 0 }
    };
    let mut large = open(64 << 20);
    large.feed(&baking(&reading(&names)));
    for n in 1..=10_000 {
        large.feed(&P(prediction(n, if n % 2 == 0 { Arm::Canary } else { Arm::Control }, 1.0)));
        large.feed(&labels(format!("unknown-{n}"), n, &names));
    }
    large.commit();
    let bounded = |partition: &Partition| -> usize {
        partition.fold.memory().iter().filter(|(map, _)| *map != "windows").map(|(_, bytes)| bytes).sum()
    };
    assert!(bounded(&large) > 4 * BOUND);
    drop(large);
    let mut small = open(BOUND);
    assert!((BOUND / 4..=BOUND).contains(&bounded(&small)));
    // The rollout continues: labels join the remaining predictions, both arms alike, and the window closes.
    for n in 1..=10_000 {
        small.feed(&F(Feedback { writer: writer("router-2", n), ..feedback(n, n, 0, &names[0], 1.0) }));
    }
    let mut out = Vec::new();
    let (headers, value) = wire(&beat(10_000, 4000.0));
    let at = TopicPartition::new("events", 0);
    let record = Record { at, offset: 99_999, timestamp_ms: 0, key: Bytes::new(), value: Some(value), headers };
    let mut context = Context { rows: &mut small.rows, out: &mut out, commit_now: false };
    small.fold.apply(&record, &mut context).unwrap().unwrap();
    let (windows, _) = read(&out);
    let label = windows.iter().find(|window| window.maturity == Span::from_secs(3600)).unwrap();
    let (canary, control) = (arm(label, Arm::Canary), arm(label, Arm::Control));
    assert!(canary.labelled > 300 && canary.labelled == canary.predictions, "{canary:?}");
    assert!((canary.predictions - control.predictions).abs() < 5 * 50, "{canary:?} {control:?}");
}
