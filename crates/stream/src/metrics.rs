//! What a stage measures about itself. Labels: `stage`, and `partition` where it says so.

use serin_schemas::Code;
use std::{
    collections::BTreeMap,
    sync::{LazyLock, Mutex},
};

use opentelemetry::{
    KeyValue, global,
    metrics::{Counter, Histogram},
};

use crate::{
    gauge::{PresentGauge, Series},
    local::lock,
};

/// Records that a task has taken from its inputs.
pub const RECORDS_CONSUMED: &str = "serin_stream_records_consumed_total";
/// Transactions that a task has committed.
pub const COMMITS: &str = "serin_stream_commits_total";
/// How long a commit took, from the fold's last word to the rows in the store.
pub const COMMIT_DURATION: &str = "serin_stream_commit_duration_seconds";
/// Records that could not be used and went to `dead-letters`.
pub const DEAD_LETTERS: &str = "serin_stream_dead_letters_total";
/// The same by `code`. A code is there from its first dead letter on, at 1: an alert takes [`DEAD_LETTERS`].
pub const DEAD_LETTER_CODES: &str = "serin_stream_dead_letter_codes_total";
/// How often a task was opened again after an error.
pub const REOPENS: &str = "serin_stream_reopens_total";
/// Changelog records that were read to restore rows.
pub const RESTORED: &str = "serin_stream_restored_records_total";
/// Records between a task's position and the end of an input, by `partition` and `topic`.
pub const LAG: &str = "serin_stream_lag_records";
/// State of a task by `partition`: 1 opening, 2 restoring, 3 running, 4 draining, 5 closed, 6 waiting to re-open, 7 failed.
pub const TASK_STATE: &str = "serin_stream_task_state";
/// Memory of a task by `partition` and `map`, in bytes, by estimate: what the fold holds, and `uncommitted_rows` and
/// `uncommitted_outputs`. The bounds are in `docs/limits.md`.
pub const MEMORY: &str = "serin_stream_memory_bytes";
/// Memory of all stores of a process by `part`, in bytes: `cache` (write buffers are charged to it) and `write_buffers` of it.
pub const STORE_MEMORY: &str = "serin_store_memory_bytes";

/// Shows how full the cache and the write buffers of the stores are.
#[cfg(feature = "store")]
pub(crate) fn observe_store(cache: rocksdb::Cache, buffers: rocksdb::WriteBufferManager) {
    let meter = global::meter("serin");
    let gauge = meter.u64_observable_gauge(STORE_MEMORY).with_description("Memory of the stores");
    gauge
        .with_callback(move |observer| {
            observer.observe(cache.get_usage() as u64, &[KeyValue::new("part", "cache")]);
            observer.observe(buffers.get_usage() as u64, &[KeyValue::new("part", "write_buffers")]);
        })
        .build();
}

/// Bounds of the commit histogram in seconds: a commit takes 1 ms on a fast disk and seconds on a sick one.
const COMMIT_BOUNDS: [f64; 12] = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0];

static LAGS: LazyLock<PresentGauge> =
    LazyLock::new(|| PresentGauge::new(LAG, "Records between a task and the end of its input"));
static STATES: LazyLock<PresentGauge> =
    LazyLock::new(|| PresentGauge::new(TASK_STATE, "State of a task, 3 is running"));
static MEMORIES: LazyLock<PresentGauge> =
    LazyLock::new(|| PresentGauge::new(MEMORY, "Memory of a task by what it is for"));

/// The instruments of one task. Its gauges leave with it.
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
    /// By topic.
    lag: Mutex<BTreeMap<&'static str, Series>>,
    /// By map.
    memory: Mutex<BTreeMap<&'static str, Series>>,
}

impl TaskMetrics {
    pub(crate) fn new(stage: &'static str, partition: i32) -> Self {
        let meter = global::meter("serin");
        let counter = |name, text| meter.u64_counter(name).with_description(text).build();
        let duration = meter.f64_histogram(COMMIT_DURATION).with_unit("s").with_boundaries(COMMIT_BOUNDS.to_vec());
        let task = [KeyValue::new("stage", stage), KeyValue::new("partition", i64::from(partition))];
        let metrics = Self {
            stage: [KeyValue::new("stage", stage)],
            state: STATES.hold(task.to_vec(), 0.0),
            task,
            consumed: counter(RECORDS_CONSUMED, "Records taken from the inputs"),
            commits: counter(COMMITS, "Transactions committed"),
            commit_duration: duration.with_description("Duration of a commit").build(),
            dead_letters: counter(DEAD_LETTERS, "Records that could not be used"),
            dead_letter_codes: counter(DEAD_LETTER_CODES, "Records that could not be used, by code"),
            reopens: counter(REOPENS, "Tasks opened again after an error"),
            restored: counter(RESTORED, "Changelog records read to restore rows"),
            lag: Mutex::default(),
            memory: Mutex::default(),
        };
        // A counter that is not there yet cannot be told from one that nobody scrapes, and its first step is no increase.
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
