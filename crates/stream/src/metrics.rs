//! Metrics of a stage. All have the label `stage`, and `partition` where noted.

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

/// Records that a task has consumed from its inputs.
pub const RECORDS_CONSUMED: &str = "serin_stream_records_consumed_total";
/// Transactions that a task has committed.
pub const COMMITS: &str = "serin_stream_commits_total";
/// Duration of a commit, from the end of the fold's work to the rows in the store.
pub const COMMIT_DURATION: &str = "serin_stream_commit_duration_seconds";
/// Records that could not be used and were dead-lettered.
pub const DEAD_LETTERS: &str = "serin_stream_dead_letters_total";
/// Dead-lettered records by `code`. The series of a code starts at 1 with its first dead letter, so alerts should use
/// [`DEAD_LETTERS`].
pub const DEAD_LETTER_CODES: &str = "serin_stream_dead_letter_codes_total";
/// How often a task was reopened after an error.
pub const REOPENS: &str = "serin_stream_reopens_total";
/// Changelog records that were read to restore rows.
pub const RESTORED: &str = "serin_stream_restored_records_total";
/// Records between a task's position and the end of an input, by `partition` and `topic`.
pub const LAG: &str = "serin_stream_lag_records";
/// State of a task by `partition`: 1 opening, 2 restoring, 3 running, 4 draining, 5 closed, 6 waiting to reopen, 7
/// failed.
pub const TASK_STATE: &str = "serin_stream_task_state";
/// Estimated memory of a task by `partition` and `map`, in bytes: the maps of the fold, `uncommitted_rows` and
/// `uncommitted_outputs`. The bounds are in `docs/limits.md`.
pub const MEMORY: &str = "serin_stream_memory_bytes";
/// Memory of all stores of a process by `part`, in bytes: `cache`, which includes the write buffers, and
/// `write_buffers`.
pub const STORE_MEMORY: &str = "serin_store_memory_bytes";

/// Exports the memory of the stores' cache and write buffers.
#[cfg(feature = "store")]
pub(crate) fn observe_store(cache: rocksdb::Cache, buffers: rocksdb::WriteBufferManager) {
    let meter = global::meter("serin");
    let gauge =
        meter.u64_observable_gauge(STORE_MEMORY).with_description("Memory of the stores of this process, by part");
    gauge
        .with_callback(move |observer| {
            observer.observe(cache.get_usage() as u64, &[KeyValue::new("part", "cache")]);
            observer.observe(buffers.get_usage() as u64, &[KeyValue::new("part", "write_buffers")]);
        })
        .build();
}

/// Bounds of the commit histogram in seconds. A commit takes 1 ms on a fast disk and seconds on a failing one.
const COMMIT_BOUNDS: [f64; 12] = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0];

static LAGS: LazyLock<PresentGauge> =
    LazyLock::new(|| PresentGauge::new(LAG, "Records between a task's position and the end of its input"));
static STATES: LazyLock<PresentGauge> =
    LazyLock::new(|| PresentGauge::new(TASK_STATE, "State of a task; 3 is running"));
static MEMORIES: LazyLock<PresentGauge> =
    LazyLock::new(|| PresentGauge::new(MEMORY, "Estimated memory of a task, by map"));

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
        let meter = global::meter("serin");
        let counter = |name, text| meter.u64_counter(name).with_description(text).build();
        let duration = meter.f64_histogram(COMMIT_DURATION).with_unit("s").with_boundaries(COMMIT_BOUNDS.to_vec());
        let task = [KeyValue::new("stage", stage), KeyValue::new("partition", i64::from(partition))];
        let metrics = Self {
            stage: [KeyValue::new("stage", stage)],
            state: STATES.hold(task.to_vec(), 0.0),
            task,
            consumed: counter(RECORDS_CONSUMED, "Records consumed from the inputs"),
            commits: counter(COMMITS, "Transactions committed"),
            commit_duration: duration.with_description("Duration of a commit").build(),
            dead_letters: counter(DEAD_LETTERS, "Records that could not be used and were dead-lettered"),
            dead_letter_codes: counter(
                DEAD_LETTER_CODES,
                "Records that could not be used and were dead-lettered, by code",
            ),
            reopens: counter(REOPENS, "Tasks reopened after an error"),
            restored: counter(RESTORED, "Changelog records read to restore rows"),
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
