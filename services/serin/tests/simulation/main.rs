//! The whole pipeline in one thread, on a simulated cluster with a simulated clock: a simulated router, and the real aggregator,
//! analyzer and controller on the real task runtime, on machines that crash, pause, and lose disks and networks.
//!
//! Afterwards everything is recomputed from the log without faults: each window from the events, by code that shares nothing with the
//! aggregator, each verdict from the windows, and each weight from the verdicts. All must exist once, and be equal.

#![expect(clippy::unwrap_used, reason = "a panic fails the test")]

mod behind;
#[path = "../support/oracle.rs"]
mod oracle;
mod router;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use serde_json::{Value, json};
use serin_analyzer::AnalyzerFactory;
use serin_controller::{ControllerFactory, NoTables, RoutingTopic};
use serin_rollout::planner::Settings;
use serin_schemas::{
    codec::{self, Record as _},
    envelope,
    event::{EventRecord, WindowRecord},
    ids::{NextOffset, RolloutId},
    records::{Action, Arm, Command, Control, Decision, Phase, Verdict},
};
use serin_spec::Share;
use serin_stream::{
    conformance::read_all,
    driver::FoldDriver,
    fold::{FoldFactory, Poison},
    log::{Log as _, Polled, Start},
    partition_of,
    record::{Record, Target, TopicPartition},
    sim::{Flaw, SimLog},
    simulation::{Program, Rates, Setup, Simulation, each_seed},
    task::TaskOptions,
};
use serin_topology::{AUDIT, COMMANDS, DEAD_LETTERS, EVENTS, Topology, VERDICTS, WINDOWS};

use router::{ROGUE, Router, encoded, micros, outgoing};

const MODEL: &str = "shop";
const PARTITIONS: i32 = 2;
const MACHINES: usize = 3;
/// Simulated time with faults.
const RUN: Duration = Duration::from_hours(1);
/// Seconds of traffic without faults after that.
const PEACE_S: usize = 900;

/// A rollout with windows of seconds, and steps that end within minutes.
const ROLLOUT: &str = "
apiVersion: serin.dev/v1
kind: Rollout
model: shop
stable: {version: v1}
canary: {version: v2}
window: 10s
settle: 1
warmup: {minEvents: 500}
steps:
  - {weight: 20%, bake: {min: 2m, max: 20m}}
  - {weight: 50%, bake: {min: 2m, max: 20m}, require: pass, groupSequential: {answers: 900, looks: 3}}
segments:
  - {name: origin, source: {header: x-origin}, top: 2}
outputs:
  - {name: probability, source: {tensor: probability}, min: 0, max: 1}
metrics:
  - name: error_rate
    kind: rate
    source: error
    margin: {absolute: 0.05}
    segments: [origin]
    stratifyBy: origin
  - name: invalid_output
    kind: rate
    source: invalid_output
    margin: {absolute: 0.05}
  - name: latency_p90
    kind: {quantile: {level: 0.9}}
    source: latency
    margin: {relative: 1.0}
  - name: wrong_rate
    kind: rate
    source: {wrong: {output: probability, label: late}}
    margin: {absolute: 0.1}
    segments: [origin]
    maturity: 1m
  - name: brier
    kind: {mean: {min: 0, max: 1}}
    source: {squared_error: {output: probability, label: late}}
    margin: {absolute: 0.1}
    role: score
    maturity: 1m
  - name: label_delay
    kind: distribution
    source: {label_delay: late}
    role: watch
    maturity: 1m
";

/// Settings of the controller. It renews leases by the clock; everything else depends only on verdicts.
fn settings() -> Settings {
    Settings { stale_ms: i64::MAX / 2, ..Settings::default() }
}

/// The stages of each process: all three.
fn program() -> Program {
    Arc::new(|log: &SimLog| {
        let tables = RoutingTopic(Arc::new(log.clone()));
        vec![
            Arc::new(serin_aggregator::AggregatorFactory::new(serin_aggregator::Config::default(), PARTITIONS))
                as Arc<dyn FoldFactory>,
            Arc::new(AnalyzerFactory::new(serin_analyzer::Config::default(), PARTITIONS)),
            Arc::new(ControllerFactory::new(settings(), Arc::new(tables))),
        ]
    })
}

/// Starts a rollout of this file, and returns the command.
fn apply(simulation: &Simulation, file: &str) -> Command {
    let spec = serin_rollout::parse_yaml(file).unwrap().normalized();
    let (id, actor, at) = ("apply".to_owned(), "simulation".to_owned(), micros(simulation.now_ms()));
    let apply = Command {
        rollout: Some(RolloutId::from("simulated")),
        spec: Some(serde_json::to_string(&spec).unwrap()),
        ..Command::new(id, Action::Apply, MODEL.into(), actor, at)
    };
    simulation.log().writer(1).unwrap().send(outgoing(COMMANDS, Target::ByKey, MODEL, &apply)).unwrap();
    apply
}

/// How a rollout ended, and what was compared.
#[derive(Debug, Default)]
struct Outcome {
    rolled_back: bool,
    /// Numbers of compared items, by name.
    counts: BTreeMap<&'static str, u64>,
}

/// Plays one rollout. `canary_fails` of a thousand calls to the canary fail.
fn play(seed: u64, canary_fails: u32, flaw: Flaw) -> Result<Outcome, String> {
    let rates = Rates { most_idle: Duration::from_secs(3), ..Rates::wild() };
    let topics = Topology { partitions: PARTITIONS, ..Topology::default() }.topics();
    let machines = vec![program(); MACHINES];
    let simulation = Simulation::new(Setup { seed, topics, machines, task: TaskOptions::default(), rates, flaw });
    let started_ms = simulation.now_ms();
    let apply = apply(&simulation, ROLLOUT);
    let mut router = Router::new(&simulation, canary_fails);
    while simulation.now_ms() - started_ms < RUN.as_millis() as i64 {
        simulation.run_wild(50, |simulation| router.live(simulation));
        router.live(&simulation);
    }
    simulation.calm();
    // Without faults, the decision is made now.
    for _ in 0..PEACE_S {
        simulation.pass(Duration::from_secs(1));
        router.live(&simulation);
        (0..MACHINES).for_each(|machine| simulation.turns(machine, 2));
    }
    simulation.settle("everything is consumed", |simulation| {
        let inputs =
            [("aggregator", EVENTS), ("analyzer", WINDOWS), ("controller", VERDICTS), ("controller", COMMANDS)];
        inputs.into_iter().all(|(group, topic)| (0..PARTITIONS).all(|n| is_consumed(simulation.log(), group, topic, n)))
    })?;
    router.follow();
    let mut outcome = compare(&simulation, &router, &apply)?;
    outcome.counts.insert("simulated seconds", ((simulation.now_ms() - started_ms) / 1000) as u64);
    outcome.counts.insert("faults", simulation.happened().values().sum());
    Ok(outcome)
}

/// Whether a group has committed all records of a partition.
fn is_consumed(log: &SimLog, group: &str, topic: &str, partition: i32) -> bool {
    let at = TopicPartition::new(topic, partition);
    let next = log.committed(group, &at).unwrap().unwrap_or(NextOffset(0));
    let mut rest = Vec::new();
    let polled = log.reader(&[(at, Start::At(next))]).unwrap().poll(1, Duration::ZERO, &mut rest).unwrap();
    polled == Polled::AtEnd
}

fn records(log: &SimLog, topic: &str, partition: i32) -> Vec<Record> {
    read_all(log, topic, partition).unwrap()
}

/// Compares windows, verdicts and weights with those that are recomputed from the log.
fn compare(simulation: &Simulation, router: &Router, apply: &Command) -> Result<Outcome, String> {
    let log = simulation.log();
    let all = |topic: &str| (0..PARTITIONS).flat_map(|partition| records(log, topic, partition)).collect::<Vec<_>>();
    let events: Vec<Value> = all(EVENTS).iter().filter_map(event).collect();
    let windows: Vec<Value> = all(WINDOWS).iter().filter_map(window).collect();
    let report = oracle::compare(&events, &windows).map_err(|error| format!("windows: {error:#}"))?;
    let letters = all(DEAD_LETTERS).len();
    if letters != router.poison {
        return Err(format!("{letters} dead letters instead of {}", router.poison));
    }
    let verdicts = verdicts_follow(log)?;
    let controls = weights_follow(log, apply)?;
    a_rollback_is_not_lost(log, router, &controls)?;
    let counts = [
        ("predictions", report.predictions),
        ("windows", report.windows),
        ("cells", report.cells),
        ("verdicts", verdicts),
        ("weights", controls.len()),
        ("dead letters", letters),
    ];
    Ok(Outcome {
        rolled_back: controls.iter().any(|control| control.phase == Phase::RolledBack),
        counts: counts.into_iter().map(|(name, count)| (name, count as u64)).collect(),
    })
}

fn event(record: &Record) -> Option<Value> {
    let of = |kind: &str, value: Value| {
        let (partition, stamp) = (record.at.partition, record.timestamp_ms);
        Some(json!({"type": kind, "partition": partition, "timestamp_ms": stamp, "value": value}))
    };
    match EventRecord::decode(&record.headers, record.value.as_deref()?).ok()? {
        EventRecord::Prediction(prediction) => of("prediction", serde_json::to_value(prediction).unwrap()),
        EventRecord::Feedback(feedback) if feedback.writer.name == ROGUE => None,
        EventRecord::Feedback(feedback) => of("feedback", serde_json::to_value(feedback).unwrap()),
        EventRecord::Heartbeat(heartbeat) => of("heartbeat", serde_json::to_value(heartbeat).unwrap()),
        EventRecord::Control(control) => of("control", serde_json::to_value(control).unwrap()),
    }
}

fn window(record: &Record) -> Option<Value> {
    match WindowRecord::decode(&record.headers, record.value.as_deref()?).ok()? {
        WindowRecord::WindowClosed(window) => {
            Some(json!({"type": "window_closed", "value": serde_json::to_value(window).unwrap()}))
        }
        _ => None,
    }
}

/// Checks that every verdict equals, byte by byte, that of an undisturbed analyzer.
fn verdicts_follow(log: &SimLog) -> Result<usize, String> {
    let mut count = 0;
    for partition in 0..PARTITIONS {
        let factory = AnalyzerFactory::new(serin_analyzer::Config::default(), PARTITIONS);
        let mut analyzer = FoldDriver::new(move || factory.fold(partition)).unwrap();
        for record in records(log, WINDOWS, partition) {
            let poison: Option<Poison> = analyzer.apply(&record).unwrap().poison;
            assert_eq!(poison, None);
        }
        let computed: Vec<_> = analyzer.pending().iter().map(|out| (&out.value, &out.headers)).collect();
        let recorded = records(log, VERDICTS, partition);
        let recorded: Vec<_> = recorded.iter().map(|record| (&record.value, &record.headers)).collect();
        if computed != recorded {
            let place = computed.iter().zip(&recorded).position(|(one, other)| one != other);
            let (computed, recorded) = (computed.len(), recorded.len());
            return Err(format!(
                "verdicts[{partition}]: {recorded}, computed {computed}, first difference at {place:?}"
            ));
        }
        count += computed.len();
    }
    Ok(count)
}

/// Checks that every weight equals that of an undisturbed controller, and that each partition has it once.
fn weights_follow(log: &SimLog, apply: &Command) -> Result<Vec<Control>, String> {
    let partition = partition_of(MODEL.as_bytes(), PARTITIONS);
    let factory = ControllerFactory::new(settings(), Arc::new(NoTables));
    let mut controller = FoldDriver::new(move || factory.fold(partition)).unwrap();
    let (headers, body) = encoded(apply);
    let command = controller.record(COMMANDS, partition, 0, MODEL, headers, Some(body));
    for record in std::iter::once(command).chain(records(log, VERDICTS, partition)) {
        assert_eq!(controller.apply(&record).unwrap().poison, None);
    }
    let written = controller.pending().iter().filter(|out| out.topic == EVENTS);
    let computed: Vec<Control> =
        written.map(|out| codec::read(&out.headers, out.value.as_deref().unwrap()).unwrap()).collect();
    for (topic, partition) in [EVENTS, WINDOWS].into_iter().flat_map(|topic| (0..PARTITIONS).map(move |n| (topic, n))) {
        let recorded: Vec<Control> = records(log, topic, partition).iter().filter_map(control).collect();
        if recorded != computed {
            let brief = |controls: &[Control]| {
                let one = |c: &Control| (c.generation, c.phase, c.canary_share, c.decided_at);
                controls.iter().map(one).collect::<Vec<_>>()
            };
            return Err(format!(
                "weights in {topic}[{partition}]: {:?}, computed {:?}",
                brief(&recorded),
                brief(&computed)
            ));
        }
    }
    if !computed.is_sorted_by(|one, other| one.generation < other.generation) {
        return Err("generations do not grow".into());
    }
    Ok(computed)
}

fn control(record: &Record) -> Option<Control> {
    let (name, _) = envelope::record_type(&record.headers).ok()?;
    (name == Control::NAME).then(|| codec::read(&record.headers, record.value.as_deref().unwrap()).unwrap())
}

/// Checks that a verdict to roll back ends the rollout, and that the newest table sends all calls to stable.
fn a_rollback_is_not_lost(log: &SimLog, router: &Router, controls: &[Control]) -> Result<(), String> {
    let verdicts = records(log, VERDICTS, partition_of(MODEL.as_bytes(), PARTITIONS));
    let decided = verdicts.iter().any(|record| {
        let verdict: Verdict = codec::read(&record.headers, record.value.as_deref().unwrap()).unwrap();
        verdict.decision == Decision::Rollback
    });
    if !decided {
        return Ok(());
    }
    let ended = controls.last().is_some_and(|control| control.phase == Phase::RolledBack);
    let table = router.table.as_ref().ok_or("no table")?;
    let all_stable = table.routes.iter().all(|route| route.arm == Arm::Stable && route.share == Share::ALL.0);
    let is_audited = (0..PARTITIONS).map(|n| records(log, AUDIT, n).len()).sum::<usize>() > 0;
    if ended && all_stable && is_audited { Ok(()) } else { Err(format!("a rollback is lost: {table:?}")) }
}

/// A bad canary and a good one, under all faults.
#[test]
fn windows_verdicts_and_weights_equal_those_of_an_undisturbed_run() {
    let total = Mutex::new(BTreeMap::new());
    each_seed("-p serin --test simulation windows_verdicts_and_weights", 8, |seed| {
        let is_bad = seed % 2 == 0;
        let outcome = play(seed, if is_bad { 300 } else { 10 }, Flaw::None)?;
        println!("seed {seed}: {outcome:?}");
        if outcome.rolled_back != is_bad {
            return Err(format!(
                "the rollout of a {} canary ended with {outcome:?}",
                if is_bad { "bad" } else { "good" }
            ));
        }
        let mut total = total.lock().unwrap();
        for (name, count) in outcome.counts {
            *total.entry(name).or_insert(0) += count;
        }
        Ok(())
    });
    println!("{:?}", total.into_inner().unwrap());
}

/// The comparison finds a cluster with a flaw.
#[test]
fn flaws_of_the_cluster_are_found() {
    for flaw in [Flaw::ServesZombies, Flaw::ShowsUncommitted, Flaw::AddsRepeated, Flaw::NoTakeOver] {
        let caught = (0..10).find_map(|seed| {
            let played = std::panic::catch_unwind(|| play(seed, 300, flaw).map(drop));
            played.unwrap_or_else(|_| Err("a panic".into())).err().map(|error| (seed, error))
        });
        let (seed, error) = caught.unwrap_or_else(|| panic!("{flaw:?} was not found"));
        println!("{flaw:?}: seed {seed}: {}", error.chars().take(200).collect::<String>());
    }
}
