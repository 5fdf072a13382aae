//! Working off a backlog as fast as possible: Serin on Kafka and on the embedded log, Kafka Streams, restores.
//!
//! This process first writes the backlog; then the engine reads it to its end. The first quarter is warm-up: CPU and
//! time are counted after it (Java's compiler is done by then).

use std::{path::Path, process::Command, sync::Arc, time::Instant};

use anyhow::Context as _;
use serde::Deserialize;
use serin_stream::{
    kafka::{KafkaLog, KafkaOptions},
    log::Log,
};
use serin_tests::figures::percentile;

use crate::{
    Bench,
    child::Running,
    load::{self, Labels, Mix},
    logs::{self, Results},
    machine,
    report::Target,
    worker::{Job, Outcome, Place, Work},
};

/// Default number of partitions of `events`.
pub(crate) const PARTITIONS: i32 = 4;

/// Prefix of the topics that Serin and Kafka Streams both process.
const STANDARD: &str = "standard.";

/// A Kafka prefix with a backlog.
struct Backlog {
    brokers: String,
    prefix: String,
    partitions: i32,
    records: u64,
}

impl Backlog {
    fn write(bench: &mut Bench, prefix: &str, mix: &Mix, partitions: i32, predictions: usize) -> anyhow::Result<Self> {
        let brokers = bench.broker()?.bootstrap().to_owned();
        let log: Arc<dyn Log> = Arc::new(KafkaLog::connect(&KafkaOptions::new(&brokers, prefix))?);
        let records = logs::fill(&log, mix, partitions, predictions)?;
        Ok(Self { brokers, prefix: prefix.to_owned(), partitions, records })
    }

    fn log(&self) -> anyhow::Result<Arc<dyn Log>> {
        Place::Kafka(self.brokers.clone()).open(&self.prefix)
    }

    fn work(&self, bench: &Bench, work: Work) -> anyhow::Result<Outcome> {
        self.work_in(&bench.folder()?, work)
    }

    fn work_in(&self, state: &Path, work: Work) -> anyhow::Result<Outcome> {
        let job = Job {
            log: Place::Kafka(self.brokers.clone()),
            prefix: self.prefix.clone(),
            partitions: self.partitions,
            state: state.to_owned(),
            records: Some(self.records),
            warm: self.records / 4,
            work,
        };
        let outcome = Running::worker(&job)?.outcome()?;
        anyhow::ensure!(outcome.poison == 0, "{} records were unusable", outcome.poison);
        Ok(outcome)
    }
}

/// Writes the backlog that both engines process.
fn standard(bench: &mut Bench) -> anyhow::Result<Backlog> {
    let predictions = bench.size(2_000_000, 200_000);
    let backlog = Backlog::write(bench, STANDARD, &Mix::standard(), PARTITIONS, predictions)?;
    let (value, all) = logs::size(backlog.log()?.as_ref())?;
    let report = &mut bench.report;
    report.add("event_value_bytes", "an Avro value", value, "bytes", Target::None)?;
    report.add("event_bytes", "an event with key and headers", all, "bytes", Target::None)?;
    Ok(backlog)
}

/// Measures the aggregator end to end on Kafka, and the part of it that is reading alone.
pub(crate) fn kafka(bench: &mut Bench) -> anyhow::Result<()> {
    bench.report.section("end to end on Kafka: a backlog in 4 partitions, exactly once, commits at most 1 s apart")?;
    let backlog = standard(bench)?;
    let read = backlog.work(bench, Work::Nothing)?;
    let what = "reading alone";
    bench.report.add("kafka_read_events_per_s_core", what, read.per_second_core(), "events/s/core", Target::None)?;
    let broker = bench.broker()?.pid().context("the broker was not started here")?;
    let before = machine::cpu_seconds(broker)?;
    let outcome = backlog.work(bench, Work::Aggregate)?;
    let broker_cpu = machine::cpu_seconds(broker)? - before;
    let report = &mut bench.report;
    let target = Target::AtLeast(200_000.0);
    let rate = outcome.per_second_core();
    report.add("kafka_events_per_s_core", "20 % tracked, labels on half of them", rate, "events/s/core", target)?;
    let wall = outcome.records as f64 / outcome.wall_s;
    report.add("kafka_events_per_s", "  by the clock, broker on the same cores", wall, "events/s", Target::None)?;
    let cost = outcome.cpu_s * 1e6 / outcome.records as f64;
    report.add("kafka_cpu_s_per_million", "  CPU per million events", cost, "s", Target::None)?;
    let cost = broker_cpu * 1e6 / backlog.records as f64;
    report.add("broker_cpu_s_per_million", "  CPU of the broker, per million events", cost, "s", Target::None)?;
    let bytes = outcome.written_bytes as f64 / outcome.records as f64;
    report.add(
        "changelog_bytes_per_event",
        "  written per event, changelog and windows",
        bytes,
        "bytes",
        Target::None,
    )?;
    let written = outcome.written as f64 / outcome.records as f64;
    report.add("changelog_records_per_event", "  records written per event", written, "records", Target::None)?;
    report.add("backlog_commit_p50_ms", "  commit, p50", percentile(&outcome.commits_ms(), 0.5), "ms", Target::None)?;
    report.add(
        "backlog_commit_p99_ms",
        "  commit, p99",
        percentile(&outcome.commits_ms(), 0.99),
        "ms",
        Target::None,
    )?;
    for (thread, cpu) in outcome.threads.iter().filter(|(_, cpu)| **cpu > 0.01 * outcome.cpu_s) {
        report.note(&format!("  CPU of threads {thread:<24} {:5.1} %", cpu / outcome.cpu_s * 100.0))?;
    }
    let mixes = [
        ("kafka_all_tracked_events_per_s_core", "100 % tracked", Mix { tracked: 100, ..Mix::standard() }),
        (
            "kafka_all_labels_events_per_s_core",
            "labels on half of all",
            Mix { labels: Labels::HalfOfAll, ..Mix::standard() },
        ),
    ];
    for (number, (key, what, mix)) in mixes.into_iter().enumerate() {
        let predictions = bench.size(800_000, 100_000);
        let backlog = Backlog::write(bench, &format!("mix{number}."), &mix, PARTITIONS, predictions)?;
        let rate = backlog.work(bench, Work::Aggregate)?.per_second_core();
        bench.report.add(key, what, rate, "events/s/core", Target::None)?;
    }
    Ok(())
}

/// Measures the same backlog with other numbers of partitions.
pub(crate) fn partitions(bench: &mut Bench) -> anyhow::Result<()> {
    bench.report.section("end to end on Kafka by partitions")?;
    for partitions in bench.size(vec![1, 4, 16, 64], vec![1, 16]) {
        let predictions = bench.size(600_000, 100_000);
        let backlog = Backlog::write(bench, &format!("parts{partitions}."), &Mix::standard(), partitions, predictions)?;
        let rate = backlog.work(bench, Work::Aggregate)?.per_second_core();
        let key = format!("kafka_events_per_s_core_partitions_{partitions}");
        bench.report.add(&key, &format!("{partitions} partitions"), rate, "events/s/core", Target::None)?;
    }
    Ok(())
}

/// The measurements that Kafka Streams reports.
#[derive(Debug, Deserialize)]
struct StreamsOutcome {
    measured_records: u64,
    wall_s: f64,
    cpu_s: f64,
    late: u64,
    unjoined: u64,
}

/// Measures Kafka Streams on the backlog of [`kafka`], after it.
pub(crate) fn streams(bench: &mut Bench) -> anyhow::Result<()> {
    bench.report.section("the same backlog on Kafka Streams (RocksDB, exactly_once_v2, same broker)")?;
    let Some(folder) = bench.streams.clone() else {
        return bench.report.note("skipped: run.sh compiles it and passes its directory with --streams");
    };
    let brokers = bench.broker()?.bootstrap().to_owned();
    let log = Place::Kafka(brokers.clone()).open(STANDARD)?;
    if log.describe(&[serin_topology::EVENTS])?.is_empty() {
        let backlog = standard(bench)?;
        backlog.work(bench, Work::Aggregate)?;
    }
    let places = (0..PARTITIONS).map(|partition| serin_stream::record::TopicPartition {
        topic: log.full_name(serin_topology::EVENTS),
        partition,
    });
    let mut records = 0;
    for place in places {
        // Plain writes leave no gaps.
        let (start, end) = log.bounds(&place)?;
        records += end.0 - start.0;
    }
    let classpath = std::fs::read_to_string(folder.join("classpath"))?;
    let mut command = Command::new("java");
    command.args(["-Xms1g", "-Xmx2g", "-Dorg.slf4j.simpleLogger.defaultLogLevel=error", "-cp"]);
    command.arg(format!("{}:{}", folder.join("classes").display(), classpath.trim()));
    command.arg("dev.serin.bench.Main");
    let segments: Vec<String> = (0..Mix::standard().segments).map(load::segment_name).collect();
    let arguments = [
        ("--brokers", brokers),
        ("--prefix", STANDARD.to_owned()),
        ("--state", bench.folder()?.display().to_string()),
        ("--records", records.to_string()),
        ("--warm", (records / 4).to_string()),
        ("--seconds", "280".to_owned()),
        ("--threads", "2".to_owned()),
        ("--rollout", load::rollout_name(0)),
        ("--generation", "1".to_owned()),
        ("--window-us", load::WINDOW_US.to_string()),
        ("--grace-us", load::GRACE_US.to_string()),
        ("--maturity-us", load::MATURITY_US.to_string()),
        ("--segments", segments.join(",")),
    ];
    command.args(arguments.iter().flat_map(|(name, value)| [*name, value.as_str()]));
    let outcome: StreamsOutcome = serde_json::from_str(&Running::start(&mut command)?.result()?)?;
    let report = &mut bench.report;
    let measured = outcome.measured_records as f64;
    let rate = measured / outcome.cpu_s;
    report.add(
        "kafka_streams_events_per_s_core",
        "20 % tracked, labels on half of them",
        rate,
        "events/s/core",
        Target::None,
    )?;
    report.add("kafka_streams_events_per_s", "  by the clock", measured / outcome.wall_s, "events/s", Target::None)?;
    let cost = outcome.cpu_s * 1e6 / measured;
    report.add("kafka_streams_cpu_s_per_million", "  CPU per million events", cost, "s", Target::None)?;
    if let Some(ours) = report.get("kafka_cpu_s_per_million") {
        let what = "CPU per event, Kafka Streams over Serin";
        report.add("cpu_ratio_kafka_streams_over_serin", what, cost / ours, "times", Target::AtLeast(5.0))?;
    }
    let (late, unjoined) = (outcome.late, outcome.unjoined);
    anyhow::ensure!(late == 0 && unjoined == 0, "Kafka Streams left out {late} late events and {unjoined} labels");
    let (counts, cells) = Results::of_serin(log.as_ref())?.expect_equal(&Results::of_streams(log.as_ref())?)?;
    report.note(&format!("both have the same output: {counts} counts and {cells} sketches are equal"))
}

/// Measures the aggregator on the embedded log.
pub(crate) fn embedded(bench: &mut Bench) -> anyhow::Result<()> {
    bench.report.section("end to end on the embedded log (its CPU is in the figure)")?;
    let folder = bench.folder()?;
    let place = Place::Embedded(folder.clone());
    let records = logs::fill(&place.open("")?, &Mix::standard(), PARTITIONS, bench.size(1_000_000, 100_000))?;
    let job = Job {
        log: place,
        prefix: String::new(),
        partitions: PARTITIONS,
        state: bench.folder()?,
        records: Some(records),
        warm: records / 4,
        work: Work::Aggregate,
    };
    let outcome = Running::worker(&job)?.outcome()?;
    let report = &mut bench.report;
    let (rate, wall) = (outcome.per_second_core(), outcome.records as f64 / outcome.wall_s);
    report.add(
        "embedded_events_per_s_core",
        "20 % tracked, labels on half of them",
        rate,
        "events/s/core",
        Target::None,
    )?;
    report.add("embedded_events_per_s", "  by the clock", wall, "events/s", Target::None)?;
    report.add(
        "embedded_commit_p99_ms",
        "  commit, p99",
        percentile(&outcome.commits_ms(), 0.99),
        "ms",
        Target::None,
    )?;
    Ok(std::fs::remove_dir_all(folder)?)
}

/// Measures how fast lost rows are restored.
pub(crate) fn restore(bench: &mut Bench) -> anyhow::Result<()> {
    bench.report.section("restore on an empty disk, until the fold is open")?;
    let backlog = Backlog::write(bench, "restore.", &Mix::standard(), PARTITIONS, bench.size(800_000, 100_000))?;
    backlog.work(bench, Work::Rows)?;
    let (rows, bytes, seconds) = lost_and_found(bench, &backlog, Work::Rows)?;
    let report = &mut bench.report;
    let target = Target::AtLeast(100_000.0);
    report.add("restore_rows_per_s", "rows of 100 bytes, 4 tasks at once", rows / seconds, "rows/s", target)?;
    report.add("restore_mb_per_s", "  in bytes", bytes / seconds / 1e6, "MB/s", Target::None)?;
    backlog.work(bench, Work::Aggregate)?;
    let (_, bytes, seconds) = lost_and_found(bench, &backlog, Work::Aggregate)?;
    let report = &mut bench.report;
    report.add("restore_aggregator_s", "the aggregator's state after that load", seconds, "s", Target::None)?;
    report.add("restore_aggregator_mb", "  read for it", bytes / 1e6, "MB", Target::None)
}

/// Starts a stage without its rows. Returns how much of its changelog it read and the time until the last task was open.
fn lost_and_found(bench: &Bench, backlog: &Backlog, work: Work) -> anyhow::Result<(f64, f64, f64)> {
    let job = Job {
        log: Place::Kafka(backlog.brokers.clone()),
        prefix: backlog.prefix.clone(),
        partitions: backlog.partitions,
        state: bench.folder()?,
        records: None,
        warm: 0,
        work,
    };
    let started = Instant::now();
    let worker = Running::worker(&job)?;
    let mut open = 0;
    while open < backlog.partitions {
        let line = worker.line(std::time::Duration::from_mins(2))?;
        open += i32::from(line.context("no restore")?.1 == "restored");
        anyhow::ensure!(started.elapsed().as_secs() < 120, "a restore takes too long");
    }
    let restored = worker.stop()?.restored;
    let rows: u64 = restored.iter().map(|(rows, _, _)| rows).sum();
    let bytes: u64 = restored.iter().map(|(_, bytes, _)| bytes).sum();
    Ok((rows as f64, bytes as f64, restored.iter().map(|(_, _, took)| *took).fold(0.0, f64::max)))
}
