//! Tasks and stages: exactly once, whatever fails.

use std::{collections::BTreeSet, error::Error, sync::Arc, time::Duration};

use serin_schemas::{codec, records::DeadLetter};
use serin_topology::Cleanup;

use super::{
    Bench, CASE_TIMEOUT, DELETE, Outcome, at,
    counting::{Counting, expected},
    outgoing, read_all, topic, until, values, write,
};
use crate::{
    clock::SystemClock,
    fold::FoldFactory,
    log::Log,
    metrics::TaskMetrics,
    record::Target,
    stage::{Stage, StageOptions, StartError},
    store::{MemoryStores, Stores},
    task::{
        OpenTask, Pace, RecordFailures, State, TaskError, TaskHandle, TaskOptions, TaskParts, TaskState, Watch,
        changelog_of,
    },
    testing::{Fault, Faults, FaultyLog, FaultyStores, Group},
};

/// A watch that never stops the task and ignores its states.
struct Unwatched;

impl Watch for Unwatched {
    fn entered(&self, _state: TaskState) {}

    fn stopping(&self) -> bool {
        false
    }
}

/// A task that is driven step by step, with injected faults.
struct Driver {
    parts: TaskParts,
    faults: Faults,
    metrics: TaskMetrics,
    task: Option<OpenTask>,
}

impl Driver {
    pub(crate) fn new(log: Arc<dyn Log>, stores: Arc<dyn Stores>, factory: Arc<dyn FoldFactory>) -> Self {
        let faults = Faults::default();
        let parts = TaskParts {
            partition: 0,
            log: Arc::new(FaultyLog::new(log, faults.clone())),
            stores: Arc::new(FaultyStores::new(stores, faults.clone())),
            factory,
            membership: None,
            clock: Arc::new(SystemClock::default()),
            // Only the driver commits, and the fold when it asks for a commit.
            options: TaskOptions { batch: 3, commit_every: CASE_TIMEOUT * 60, ..TaskOptions::default() },
            turns: Arc::default(),
        };
        Self { metrics: TaskMetrics::new(parts.factory.stage(), 0), parts, faults, task: None }
    }

    fn task(&mut self) -> Result<&mut OpenTask, TaskError> {
        if self.task.is_none() {
            let failures = RecordFailures::default();
            self.task = Some(OpenTask::open(&self.parts, &self.metrics, &Unwatched, State::Kept, &failures)?);
        }
        Ok(self.task.as_mut().expect("it was opened above"))
    }

    /// Drops the task, as in a crash.
    fn crash(&mut self) {
        self.task = None;
    }

    /// Runs one action of the task. An error crashes the task. Returns the result of a successful action.
    fn attempt<T>(&mut self, act: impl FnOnce(&mut OpenTask, &TaskMetrics) -> Result<T, TaskError>) -> Option<T> {
        let metrics = TaskMetrics::new(self.parts.factory.stage(), 0);
        let result = self.task().and_then(|task| act(task, &metrics));
        if result.is_err() {
            self.crash();
        }
        result.ok()
    }

    /// Applies up to one batch of records. Returns their number, or `None` after a crash.
    pub(crate) fn step(&mut self, wait: Duration) -> Option<usize> {
        self.attempt(|task, metrics| task.step(Pace::AtMost(wait), metrics))
    }

    fn commit(&mut self) -> bool {
        self.attempt(OpenTask::commit).is_some()
    }

    /// Runs until the output has at least `outputs` records.
    pub(crate) fn finish(&mut self, log: &dyn Log, outputs: usize) -> Result<Vec<String>, Box<dyn Error>> {
        let mut found = Vec::new();
        until("all outputs", || {
            self.step(Duration::from_millis(20));
            self.commit();
            found = read_all(log, "out", 0).map(|records| values(&records)).unwrap_or_default();
            found.len() >= outputs
        })?;
        Ok(found)
    }
}

pub(crate) fn create_topics(log: &dyn Log, partitions: i32) -> Outcome {
    let mut topics = ["in", "more", "out"].map(|name| topic(name, partitions, DELETE)).to_vec();
    topics.push(topic(changelog_of("counter"), partitions, Cleanup::Compact));
    topics.push(topic("dead-letters", 1, DELETE));
    Ok(log.create(&topics)?)
}

const ONE_INPUT: Counting = Counting { inputs: &["in"] };

fn pairs(count: usize) -> Vec<(String, String)> {
    let value = |n: usize| {
        if n.is_multiple_of(11) {
            "now"
        } else if n.is_multiple_of(13) {
            "forget"
        } else {
            "v"
        }
    };
    (0..count).map(|n| (format!("k{}", n % 5), value(n).to_owned())).collect()
}

fn feed(log: &dyn Log, pairs: &[(String, String)]) -> Outcome {
    write(log, pairs.iter().map(|(key, value)| outgoing("in", Target::Partition(0), key, value)))
}

/// Whatever fails at any step of a commit, the outputs equal those of an undisturbed run, each exactly once.
pub fn exactly_once_through_any_fault(bench: &mut impl Bench) -> Outcome {
    let log = bench.log();
    create_topics(log.as_ref(), 1)?;
    let inputs = pairs(60);
    feed(log.as_ref(), &inputs)?;
    let mut driver = Driver::new(Arc::clone(&log), Arc::new(MemoryStores::default()), Arc::new(ONE_INPUT));
    let faults = [
        Fault::BeforeBegin,
        Fault::AfterProduce,
        Fault::ReplyLost,
        Fault::BeforeStore,
        Fault::StoreLost,
        Fault::ReplyLost,
    ];
    for fault in faults {
        // A successful commit, followed by one that hits the fault.
        until("a step", || driver.step(Duration::from_millis(100)).is_some_and(|records| records > 0))?;
        driver.commit();
        driver.faults.add(fault);
        until("the fault", || {
            driver.step(Duration::from_millis(100));
            driver.commit();
            driver.faults.are_over()
        })?;
    }
    assert_eq!(driver.finish(log.as_ref(), inputs.len())?, expected(&inputs));
    Ok(())
}

/// A task on another machine without a store restores the same rows.
pub fn restores_without_a_store(bench: &mut impl Bench) -> Outcome {
    let log = bench.log();
    create_topics(log.as_ref(), 1)?;
    let inputs = pairs(40);
    feed(log.as_ref(), &inputs[..25])?;
    let stores = Arc::new(MemoryStores::default());
    let mut driver = Driver::new(Arc::clone(&log), Arc::clone(&stores) as _, Arc::new(ONE_INPUT));
    driver.finish(log.as_ref(), 25)?;
    driver.crash();
    let elsewhere = Arc::new(MemoryStores::default());
    let mut driver = Driver::new(Arc::clone(&log), Arc::clone(&elsewhere) as _, Arc::new(ONE_INPUT));
    driver.step(Duration::ZERO);
    let rows = elsewhere.store("counter", 0).rows();
    assert_eq!(rows, stores.store("counter", 0).rows());
    assert!(rows.len() > 4);
    feed(log.as_ref(), &inputs[25..])?;
    assert_eq!(driver.finish(log.as_ref(), inputs.len())?, expected(&inputs));
    Ok(())
}

/// Unusable records are dead-lettered with their bytes, exactly once, and the task continues. Too many of them stop
/// the task until it is restarted.
pub fn poison_becomes_a_dead_letter(bench: &mut impl Bench) -> Outcome {
    let log = bench.log();
    create_topics(log.as_ref(), 1)?;
    let mut inputs = pairs(10);
    inputs[4] = ("bad".into(), "!".into());
    feed(log.as_ref(), &inputs)?;
    let stores: Arc<dyn Stores> = Arc::new(MemoryStores::default());
    let mut driver = Driver::new(Arc::clone(&log), Arc::clone(&stores), Arc::new(ONE_INPUT));
    driver.faults.add(Fault::AfterProduce);
    assert_eq!(driver.finish(log.as_ref(), 9)?, expected(&inputs));
    driver.crash();
    let letters = read_all(log.as_ref(), "dead-letters", 0)?;
    assert_eq!(letters.len(), 1);
    let letter: DeadLetter = codec::read(&letters[0].headers, letters[0].value.as_deref().unwrap_or_default())?;
    assert_eq!((letter.stage.as_str(), letter.code.as_str(), letter.offset), ("counter", "garbage", 4));
    assert_eq!((letter.key.as_slice(), letter.value.as_slice()), (b"bad".as_slice(), b"!".as_slice()));
    feed(log.as_ref(), &vec![("bad".to_owned(), "!".to_owned()); 600])?;
    let options = TaskOptions { batch: 100, ..TaskOptions::default() };
    let mut task = TaskHandle::start(TaskParts { options, ..driver.parts.clone() })?;
    until("the circuit breaker", || task.status().state == TaskState::Failed)?;
    assert!(task.wait(CASE_TIMEOUT));
    let error = task.status().error.unwrap_or_default();
    assert!(error.contains("501 of the last 1000 records") && error.contains("garbage: a bang"), "{error}");
    drop(task);
    // Dead-lettered records stay dead-lettered: a restart continues after them, and every bad record has exactly one
    // dead letter.
    assert_eq!(read_all(log.as_ref(), "dead-letters", 0)?.len(), 502);
    inputs.extend(pairs(3));
    feed(log.as_ref(), &inputs[10..])?;
    assert_eq!(driver.finish(log.as_ref(), 12)?, expected(&inputs));
    assert_eq!(read_all(log.as_ref(), "dead-letters", 0)?.len(), 601);
    Ok(())
}

/// A record whose output the log rejects, or on which the fold panics, is dead-lettered alone. The records around it
/// are processed, the task continues, and no transaction stays open.
pub fn unwritable_records_are_dead_lettered(bench: &mut impl Bench) -> Outcome {
    let log = bench.log();
    create_topics(log.as_ref(), 1)?;
    let mut inputs = pairs(12);
    for (place, value) in [(3, "huge"), (4, "panic"), (8, "huge row")] {
        value.clone_into(&mut inputs[place].1);
    }
    feed(log.as_ref(), &inputs)?;
    let driver = Driver::new(Arc::clone(&log), Arc::new(MemoryStores::default()), Arc::new(ONE_INPUT));
    let options = TaskOptions { commit_every: Duration::from_millis(20), ..TaskOptions::default() };
    let task = TaskHandle::start(TaskParts { options, ..driver.parts })?;
    let wanted = expected(&inputs);
    until("all outputs", || read_all(log.as_ref(), "out", 0).is_ok_and(|records| records.len() >= wanted.len()))?;
    assert_eq!(values(&read_all(log.as_ref(), "out", 0)?), wanted);
    let mut letters = Vec::new();
    for record in read_all(log.as_ref(), "dead-letters", 0)? {
        let letter: DeadLetter = codec::read(&record.headers, record.value.as_deref().unwrap_or_default())?;
        letters.push((letter.offset, letter.code, letter.value));
    }
    let letter = |offset, code: &str, value: &str| (offset, code.to_owned(), value.as_bytes().to_vec());
    let aside = [letter(3, "unwritable", "huge"), letter(4, "panicked", "panic"), letter(8, "unwritable", "huge row")];
    assert_eq!(letters, aside);
    until("the task to be running without a stuck record", || {
        task.status().state == TaskState::Running && task.status().stuck_at.is_none()
    })?;
    Ok(())
}

/// A task reads the same-numbered partitions of several topics, each from its last position.
pub fn several_inputs_one_checkpoint(bench: &mut impl Bench) -> Outcome {
    let log = bench.log();
    create_topics(log.as_ref(), 1)?;
    let factory: Arc<dyn FoldFactory> = Arc::new(Counting { inputs: &["in", "more"] });
    let stores: Arc<dyn Stores> = Arc::new(MemoryStores::default());
    let mut driver = Driver::new(Arc::clone(&log), stores, factory);
    for round in 1..=3 {
        write(log.as_ref(), (0..7).map(|_| outgoing("in", Target::ByKey, "a", "v")))?;
        write(log.as_ref(), (0..5).map(|_| outgoing("more", Target::ByKey, "b", "v")))?;
        driver.faults.add(Fault::ReplyLost);
        let found = driver.finish(log.as_ref(), 12 * round)?;
        assert_eq!(found.len(), 12 * round);
        let unique: BTreeSet<_> = found.iter().collect();
        assert_eq!(unique.len(), found.len(), "nothing twice");
        assert!(found.iter().any(|text| text.starts_with(&format!("a={} of", 7 * round))));
        assert!(found.iter().any(|text| text.starts_with(&format!("b={} of", 5 * round))));
        driver.crash();
    }
    Ok(())
}

/// A second instance of a stage takes over some partitions, then all of them. No record is lost or duplicated.
pub fn stages_hand_over(bench: &mut impl Bench) -> Outcome {
    const PARTITIONS: i32 = 2;
    let log = bench.log();
    create_topics(log.as_ref(), PARTITIONS)?;
    let task = TaskOptions { commit_every: Duration::from_millis(20), ..TaskOptions::default() };
    let start = || {
        let options = StageOptions { task: task.clone(), ..StageOptions::default() };
        Stage::start(Arc::clone(&log), Arc::new(MemoryStores::default()), Arc::new(ONE_INPUT), options)
    };
    let feed_all = |from: usize| {
        let numbered = (from..from + 50).flat_map(|n| (0..PARTITIONS).map(move |partition| (n, partition)));
        write(
            log.as_ref(),
            numbered.map(|(n, partition)| outgoing("in", Target::Partition(partition), "k", &n.to_string())),
        )
    };
    let counted = |wanted: usize| {
        until("all outputs", || {
            let count = |partition| read_all(log.as_ref(), "out", partition).map_or(0, |records| records.len());
            (0..PARTITIONS).all(|partition| count(partition) >= wanted)
        })
    };
    let first = start()?;
    feed_all(0)?;
    counted(50)?;
    until("the first to be ready", || first.health().is_ready() && first.health().tasks.len() == 2)?;
    let second = start()?;
    feed_all(50)?;
    until("a share for each", || first.health().tasks.len() == 1 && second.health().tasks.len() == 1)?;
    counted(100)?;
    feed_all(100)?;
    first.stop(CASE_TIMEOUT)?;
    until("all for the second", || second.health().tasks.len() == 2)?;
    counted(150)?;
    for partition in 0..PARTITIONS {
        let inputs: Vec<_> = (0..150).map(|n| ("k".to_owned(), n.to_string())).collect();
        assert_eq!(values(&read_all(log.as_ref(), "out", partition)?), expected(&inputs), "partition {partition}");
        let (_, end) = log.bounds(&at(log.as_ref(), "in", partition))?;
        until("the group's position", || {
            log.committed("counter", &at(log.as_ref(), "in", partition)).is_ok_and(|next| next == Some(end))
        })?;
    }
    Ok(second.stop(CASE_TIMEOUT)?)
}

/// A stage that has lost its membership is not ready until the group has assigned partitions to it again.
pub fn a_lost_membership_is_not_ready(bench: &mut impl Bench) -> Outcome {
    let faults = Faults::default();
    let log: Arc<dyn Log> = Arc::new(FaultyLog::new(bench.log(), faults.clone()));
    create_topics(log.as_ref(), 1)?;
    let stores = Arc::new(MemoryStores::default());
    let stage = Stage::start(log, stores, Arc::new(ONE_INPUT), StageOptions::default())?;
    until("the stage to be ready", || stage.health().is_ready() && stage.health().tasks.len() == 1)?;
    faults.set_group(Group::Expelled);
    until("the loss", || stage.health().error.is_some())?;
    assert!(!stage.health().is_ready() && stage.health().tasks.is_empty());
    until("the next membership", || stage.health().error.is_none())?;
    assert!(!stage.health().is_ready(), "it has no partitions yet: {:?}", stage.health());
    faults.set_group(Group::Heard);
    until("the stage to be ready again", || stage.health().is_ready() && stage.health().tasks.len() == 1)?;
    Ok(stage.stop(CASE_TIMEOUT)?)
}

/// A stage does not start if its topics do not match their specification. The error names each problem.
pub fn a_stage_names_wrong_topics(bench: &mut impl Bench) -> Outcome {
    let log = bench.log();
    log.create(&[topic("in", 2, DELETE), topic(changelog_of("counter"), 3, DELETE)])?;
    let stores = Arc::new(MemoryStores::default());
    let started = Stage::start(Arc::clone(&log), stores, Arc::new(ONE_INPUT), StageOptions::default());
    let Err(StartError::Topology(error)) = started else { return Err("it started".into()) };
    let text = error.to_string();
    for part in ["counter-changelog\" has 3 partitions", "cleanup.policy=compact", "dead-letters\" does not exist"] {
        assert!(text.contains(part), "{part:?} is missing in: {text}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{clock::ManualClock, sim::SimLog};

    #[derive(Clone, Debug)]
    enum Step {
        Feed(Vec<(String, String)>),
        Work,
        /// Work while another task of the stage commits.
        WorkDuringCommit,
        Commit,
        Crash,
        Fault(Fault),
        Compact,
    }

    fn step() -> impl Strategy<Value = Step> {
        let value = prop_oneof![6 => Just("v"), 1 => Just("now"), 1 => Just("forget"), 1 => Just("!")];
        let pair = ("[abc]", value).prop_map(|(key, value)| (key, value.to_owned()));
        let fault = prop_oneof![
            Just(Fault::BeforeBegin),
            Just(Fault::AfterProduce),
            Just(Fault::ReplyLost),
            Just(Fault::BeforeStore),
            Just(Fault::StoreLost)
        ];
        prop_oneof![
            3 => prop::collection::vec(pair, 1..8).prop_map(Step::Feed),
            5 => Just(Step::Work),
            1 => Just(Step::WorkDuringCommit),
            3 => Just(Step::Commit),
            1 => Just(Step::Crash),
            2 => fault.prop_map(Step::Fault),
            1 => Just(Step::Compact),
        ]
    }

    #[test]
    fn commits_take_turns_and_wait_only_briefly() {
        let log = SimLog::new();
        create_topics(&log, 1).unwrap();
        let clock = Arc::new(ManualClock::at(0));
        let mut driver = Driver::new(Arc::new(log.clone()), Arc::new(MemoryStores::default()), Arc::new(ONE_INPUT));
        driver.parts.clock = Arc::clone(&clock) as _;
        let turns = Arc::clone(&driver.parts.turns);
        let ask = |driver: &mut Driver| {
            feed(&log, &[("k".to_owned(), "now".to_owned())]).unwrap();
            while driver.step(Duration::ZERO) == Some(0) {}
        };
        let found = || read_all(&log, "out", 0).unwrap().len();
        let turn = turns.lock().unwrap();
        ask(&mut driver);
        assert_eq!(found(), 0, "another task is committing");
        ask(&mut driver);
        clock.advance(Duration::from_millis(99));
        driver.step(Duration::ZERO);
        assert_eq!(found(), 0, "records that arrive meanwhile are processed");
        clock.advance(Duration::from_millis(1));
        driver.step(Duration::ZERO);
        assert_eq!(found(), 2, "it has waited long enough");
        ask(&mut driver);
        assert_eq!(found(), 2, "the wait starts again");
        drop(turn);
        driver.step(Duration::ZERO);
        assert_eq!(found(), 3, "the other task has finished");
        ask(&mut driver);
        assert_eq!(found(), 4, "no other task is committing");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        /// Wherever commits, crashes, faults and compactions happen, the outputs equal those of an undisturbed run.
        #[test]
        fn outputs_do_not_depend_on_what_breaks(steps in prop::collection::vec(step(), 1..60)) {
            let log = SimLog::new();
            create_topics(&log, 1).unwrap();
            let stores = Arc::new(MemoryStores::default());
            let mut driver = Driver::new(Arc::new(log.clone()), Arc::clone(&stores) as _, Arc::new(ONE_INPUT));
            let mut fed = Vec::new();
            for step in steps {
                match step {
                    Step::Feed(pairs) => {
                        feed(&log, &pairs).unwrap();
                        fed.extend(pairs);
                    }
                    Step::Work => drop(driver.step(Duration::ZERO)),
                    Step::WorkDuringCommit => {
                        let turns = Arc::clone(&driver.parts.turns);
                        let _turn = turns.lock().unwrap();
                        driver.step(Duration::ZERO);
                    }
                    Step::Commit => drop(driver.commit()),
                    Step::Crash => driver.crash(),
                    Step::Fault(fault) => driver.faults.add(fault),
                    Step::Compact => log.compact(),
                }
            }
            let found = driver.finish(&log, expected(&fed).len()).unwrap();
            prop_assert_eq!(found, expected(&fed));
            let bad = fed.iter().filter(|(_, value)| value == "!").count();
            driver.finish(&log, expected(&fed).len()).unwrap();
            until("all dead letters", || {
                driver.step(Duration::ZERO);
                driver.commit();
                read_all(&log, "dead-letters", 0).unwrap().len() >= bad
            }).unwrap();
            prop_assert_eq!(read_all(&log, "dead-letters", 0).unwrap().len(), bad);
            // A store that was built up and a store that was restored from the changelog contain the same rows.
            driver.crash();
            let fresh = Arc::new(MemoryStores::default());
            let mut restored = Driver::new(Arc::new(log), Arc::clone(&fresh) as _, Arc::new(ONE_INPUT));
            restored.step(Duration::ZERO);
            until("the last faults to pass", || driver.step(Duration::ZERO).is_some()).unwrap();
            let rows = |stores: &MemoryStores| {
                let mut rows = stores.store("counter", 0).rows();
                rows.remove(crate::checkpoint::KEY);
                rows
            };
            prop_assert_eq!(rows(&fresh), rows(&stores));
        }
    }
}
