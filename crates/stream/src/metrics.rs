//! Metrics of a stage. All have the label `stage`, and `partition` where noted.

use serin_schemas::Code;
use std::{
    collections::BTreeMap,
    sync::{LazyLock, Mutex},
};

use opentelemetry::{
    KeyValue,
    metrics::{Counter, Histogram},
};

use crate::{
    declare_metrics,
    gauge::{PresentGauge, Series},
    local::lock,
    metric::{PARTITION, STAGE, bounded, words},
};

declare_metrics! {
    pub METRICS {
        /// Records that a task has consumed from its inputs.
        RECORDS_CONSUMED = Counter "serin_stream_records_consumed_total" in "{record}" [STAGE];
        /// Transactions that a task has committed.
        COMMITS = Counter "serin_stream_commits_total" in "{commit}" [STAGE];
        /// Duration of a commit, until its rows are in the store.
        COMMIT_DURATION = Histogram "serin_stream_commit_duration_seconds" in "s" [STAGE];
        /// Records that could not be used and were dead-lettered.
        DEAD_LETTERS = Counter "serin_stream_dead_letters_total" in "{record}" [STAGE];
        /// Dead-lettered records by code. The series of a code starts at 1 with its first dead letter, so alerts should use
        /// `serin_stream_dead_letters_total`.
        DEAD_LETTER_CODES = Counter "serin_stream_dead_letter_codes_total" in "{record}"
            [STAGE, bounded("code", "codes of docs/dead-letters.md")];
        /// How often a task was reopened after an error.
        REOPENS = Counter "serin_stream_reopens_total" in "{reopen}" [STAGE];
        /// Changelog records that were read to restore rows.
        RESTORED = Counter "serin_stream_restored_records_total" in "{record}" [STAGE];
        /// Records between the position of a task and the end of an input.
        LAG = Gauge "serin_stream_lag_records" in "{record}" [STAGE, PARTITION, bounded("topic", "inputs of the stage, at most 6")];
        /// State of a task: 1 opening, 2 restoring, 3 running, 4 draining, 5 closed, 6 waiting to reopen, 7 failed.
        TASK_STATE = Gauge "serin_stream_task_state" in "1" [STAGE, PARTITION];
        /// Estimated memory of a task, by what uses it. docs/limits.md has the bounds.
        MEMORY = Gauge "serin_stream_memory_bytes" in "By" [
            STAGE, PARTITION,
            words("map", &["uncommitted_rows", "uncommitted_outputs", "predictions", "early", "windows", "pairs"]),
        ];
        /// Memory of all stores of the process. `cache` includes the write buffers.
        STORE_MEMORY = Gauge "serin_store_memory_bytes" in "By" [words("part", &["cache", "write_buffers"])];
    }
}

/// Exports the memory of the stores' cache and write buffers.
#[cfg(feature = "store")]
pub(crate) fn observe_store(cache: rocksdb::Cache, buffers: rocksdb::WriteBufferManager) {
    STORE_MEMORY.observe(move |observer| {
        observer.observe(cache.get_usage() as u64, &[KeyValue::new("part", "cache")]);
        observer.observe(buffers.get_usage() as u64, &[KeyValue::new("part", "write_buffers")]);
    });
}

/// Bounds of the commit histogram in seconds. A commit takes 1 ms on a fast disk and seconds on a failing one.
const COMMIT_BOUNDS: [f64; 12] = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0];

static LAGS: LazyLock<PresentGauge> = LazyLock::new(|| PresentGauge::new(&LAG));
static STATES: LazyLock<PresentGauge> = LazyLock::new(|| PresentGauge::new(&TASK_STATE));
static MEMORIES: LazyLock<PresentGauge> = LazyLock::new(|| PresentGauge::new(&MEMORY));

/// The instruments of one task. Its gauges disappear with it.
#[derive(Debug)]
pub(crate) struct TaskMetrics {
    stage: [KeyValue; 1],
    task: [KeyValue; 2],
    consumed: Counter<u64>,
    commits: Counter<u64>,
    commit_duration: Histogram<f64>,
    dead_letters: Counter<u64>,
    dead_letter_codes: Counter<u64>,
    reopens: Counter<u64>,
    restored: Counter<u64>,
    state: Series,
    /// Lag series by topic.
    lag: Mutex<BTreeMap<&'static str, Series>>,
    /// Memory series by map.
    memory: Mutex<BTreeMap<&'static str, Series>>,
}

impl TaskMetrics {
    pub(crate) fn new(stage: &'static str, partition: i32) -> Self {
        let task = [KeyValue::new("stage", stage), KeyValue::new("partition", i64::from(partition))];
        let metrics = Self {
            stage: [KeyValue::new("stage", stage)],
            state: STATES.hold(task.to_vec(), 0.0),
            task,
            consumed: RECORDS_CONSUMED.counter(),
            commits: COMMITS.counter(),
            commit_duration: COMMIT_DURATION.histogram(&COMMIT_BOUNDS),
            dead_letters: DEAD_LETTERS.counter(),
            dead_letter_codes: DEAD_LETTER_CODES.counter(),
            reopens: REOPENS.counter(),
            restored: RESTORED.counter(),
            lag: Mutex::default(),
            memory: Mutex::default(),
        };
        // Start all counters at 0: a missing counter cannot be distinguished from a missing scrape, and its first
        // step would not count as an increase.
        let Self { consumed, commits, dead_letters, reopens, restored, .. } = &metrics;
        for counter in [consumed, commits, dead_letters, reopens, restored] {
            counter.add(0, &metrics.stage);
        }
        metrics
    }

    pub(crate) fn consumed(&self, records: usize) {
        self.consumed.add(records as u64, &self.stage);
    }

    pub(crate) fn committed(&self, took: std::time::Duration) {
        self.commits.add(1, &self.stage);
        self.commit_duration.record(took.as_secs_f64(), &self.stage);
    }

    pub(crate) fn dead_letter(&self, code: Code) {
        self.dead_letters.add(1, &self.stage);
        let [stage] = self.stage.clone();
        self.dead_letter_codes.add(1, &[stage, KeyValue::new("code", code.as_str())]);
    }

    pub(crate) fn reopened(&self) {
        self.reopens.add(1, &self.stage);
    }

    pub(crate) fn restored(&self, records: usize) {
        self.restored.add(records as u64, &self.stage);
    }

    pub(crate) fn lag(&self, topic: &'static str, records: i64) {
        self.show(&LAGS, &self.lag, "topic", topic, records.max(0) as f64);
    }

    pub(crate) fn memory(&self, maps: &[(&'static str, usize)]) {
        for (map, bytes) in maps {
            self.show(&MEMORIES, &self.memory, "map", map, *bytes as f64);
        }
    }

    pub(crate) fn state(&self, code: u64) {
        self.state.set(code as f64);
    }

    fn show(
        &self,
        gauge: &PresentGauge,
        held: &Mutex<BTreeMap<&'static str, Series>>,
        label: &'static str,
        of: &'static str,
        value: f64,
    ) {
        let new = || gauge.hold([self.task.as_slice(), &[KeyValue::new(label, of)]].concat(), value);
        lock(held).entry(of).or_insert_with(new).set(value);
    }
}
