//! The process that is measured: it runs only the aggregator stage on a log, so that its CPU time is the aggregator's.
//!
//! It ends when it has committed the given number of records, or when its standard input is closed. Then it prints its measurements
//! as one line of JSON. Before that it prints `restored` when a task is open, and `first-commit PARTITION`.

use std::{
    collections::BTreeMap,
    io::{Read as _, Write as _},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use serde::{Deserialize, Serialize};
use serin_aggregator::{AggregatorFactory, Config};
use serin_stream::{
    embedded::{EmbeddedLog, EmbeddedOptions},
    fold::{Context, Fold, FoldError, FoldFactory, Poison, Rows},
    kafka::{KafkaLog, KafkaOptions},
    log::{Log, Start},
    record::{Record, TopicPartition},
    stage::{Stage, StageOptions},
    store::{RocksLimits, RocksStores},
};

use crate::{
    machine,
    metered::{Commit, Meter, MeteredFactory, MeteredLog},
};

/// Time between two checks of the progress.
const LOOK: Duration = Duration::from_millis(2);

/// The location of the log.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Place {
    /// Address of a Kafka broker.
    Kafka(String),
    /// Directory of an embedded log.
    Embedded(PathBuf),
}

impl Place {
    /// Opens the log.
    pub(crate) fn open(&self, prefix: &str) -> anyhow::Result<Arc<dyn Log>> {
        Ok(match self {
            Self::Kafka(brokers) => Arc::new(KafkaLog::connect(&KafkaOptions::new(brokers, prefix))?),
            Self::Embedded(folder) => {
                let options = EmbeddedOptions { prefix: prefix.to_owned(), ..EmbeddedOptions::default() };
                // The threads of the previous owner need a moment to release it.
                let deadline = Instant::now() + Duration::from_secs(20);
                loop {
                    match EmbeddedLog::open(folder, options.clone()) {
                        Ok(log) => break Arc::new(log),
                        Err(_) if Instant::now() < deadline => thread::sleep(Duration::from_millis(20)),
                        Err(error) => return Err(error.into()),
                    }
                }
            }
        })
    }
}

/// The task of a worker.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Job {
    pub(crate) log: Place,
    pub(crate) prefix: String,
    pub(crate) partitions: i32,
    /// Directory of the rows.
    pub(crate) state: PathBuf,
    /// The worker exits when this many records are committed; `None`: when standard input is closed.
    pub(crate) records: Option<u64>,
    /// The number of records after which measuring starts.
    pub(crate) warm: u64,
    pub(crate) work: Work,
}

/// How the records are processed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Work {
    /// By the aggregator.
    Aggregate,
    /// Each record becomes a row of 100 bytes, which gives data to restore.
    Rows,
    /// The records are read and discarded, to measure the log without any work.
    Nothing,
}

/// The measurements of a worker.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Outcome {
    /// Records committed after the warm-up.
    pub(crate) records: u64,
    pub(crate) wall_s: f64,
    pub(crate) cpu_s: f64,
    /// CPU seconds after the warm-up by thread.
    pub(crate) threads: BTreeMap<String, f64>,
    /// Commits after the warm-up.
    pub(crate) commits: Vec<Commit>,
    /// Records of all transactions after the warm-up.
    pub(crate) written: u64,
    pub(crate) written_bytes: u64,
    pub(crate) poison: u64,
    /// By task: records and bytes read to restore, seconds until the fold was open.
    pub(crate) restored: Vec<(u64, u64, f64)>,
    rss_mb: f64,
}

impl Outcome {
    /// Milliseconds for which commits blocked their tasks.
    pub(crate) fn commits_ms(&self) -> Vec<f64> {
        self.commits.iter().map(Commit::whole).collect()
    }

    pub(crate) fn per_second_core(&self) -> f64 {
        self.records as f64 / self.cpu_s.max(1e-9)
    }
}

struct Moment {
    at: Instant,
    cpu: f64,
    threads: BTreeMap<String, f64>,
    records: u64,
    written: u64,
    written_bytes: u64,
    commits: usize,
}

fn moment(meter: &Meter, records: u64) -> anyhow::Result<Moment> {
    Ok(Moment {
        at: Instant::now(),
        cpu: machine::cpu_seconds(std::process::id())?,
        threads: machine::cpu_by_thread(),
        records,
        written: meter.written.load(Ordering::Relaxed),
        written_bytes: meter.written_bytes.load(Ordering::Relaxed),
        commits: meter.notes().commits.len(),
    })
}

/// Runs a worker.
pub(crate) fn run(job: &str) -> anyhow::Result<()> {
    let job: Job = serde_json::from_str(job).context("the job")?;
    let asked = Arc::new(AtomicBool::new(false));
    let closed = Arc::clone(&asked);
    thread::spawn(move || {
        // Ignore all input and wait for its end.
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        closed.store(true, Ordering::Release);
    });
    let outcome = match job.work {
        Work::Aggregate => fold(AggregatorFactory::new(Config::default(), job.partitions), &job, &asked)?,
        Work::Rows => fold(RowsFactory, &job, &asked)?,
        Work::Nothing => read(&job, &asked)?,
    };
    say(&serde_json::to_string(&outcome)?)
}

fn say(line: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")?;
    Ok(out.flush()?)
}

fn fold<F: FoldFactory>(inner: F, job: &Job, asked: &AtomicBool) -> anyhow::Result<Outcome> {
    let meter = Arc::new(Meter::default());
    let log = Arc::new(MeteredLog { inner: job.log.open(&job.prefix)?, meter: Arc::clone(&meter) });
    let stores = Arc::new(RocksStores::open(&job.state, RocksLimits::default())?);
    let factory = Arc::new(MeteredFactory { inner, meter: Arc::clone(&meter) });
    let stage = Stage::start(log, stores, factory, StageOptions::default())?;
    let (mut printed, mut restored) = (0, 0);
    let mut warm = None;
    loop {
        let done = meter.committed.load(Ordering::Relaxed);
        // Records that are applied but not committed at this moment are paid for afterwards, so the figure errs on the slow side.
        let applied = meter.applied.load(Ordering::Relaxed);
        if warm.is_none() && applied >= job.warm {
            warm = Some(moment(&meter, applied)?);
        }
        let first = meter.notes().first_commits.get(printed..).unwrap_or_default().to_vec();
        for partition in first {
            printed += 1;
            say(&format!("first-commit {partition}"))?;
        }
        while restored < meter.notes().restored.len() {
            restored += 1;
            say("restored")?;
        }
        if let Some(failure) = stage.health().failure() {
            bail!("the stage failed: {failure}");
        }
        if job.records.is_some_and(|records| done >= records) || asked.load(Ordering::Acquire) {
            break;
        }
        thread::sleep(LOOK);
    }
    let end = moment(&meter, meter.committed.load(Ordering::Relaxed))?;
    let warm = warm.context("ended before the warm-up was over")?;
    let rss_mb = machine::rss_mb(std::process::id())?;
    stage.stop(Duration::from_secs(20))?;
    let notes = meter.notes();
    Ok(Outcome {
        records: end.records - warm.records,
        wall_s: (end.at - warm.at).as_secs_f64(),
        cpu_s: end.cpu - warm.cpu,
        threads: difference(&end.threads, &warm.threads),
        commits: notes.commits[warm.commits..end.commits].to_vec(),
        written: end.written - warm.written,
        written_bytes: end.written_bytes - warm.written_bytes,
        poison: meter.poison.load(Ordering::Relaxed),
        restored: notes.restored.iter().map(|&(records, bytes, took)| (records, bytes, took.as_secs_f64())).collect(),
        rss_mb,
    })
}

fn difference(end: &BTreeMap<String, f64>, start: &BTreeMap<String, f64>) -> BTreeMap<String, f64> {
    end.iter().map(|(name, cpu)| (name.clone(), cpu - start.get(name).copied().unwrap_or(0.0))).collect()
}

struct RowsFactory;

impl FoldFactory for RowsFactory {
    /// A stage whose topics exist and which no other process of the benchmark runs.
    fn stage(&self) -> &'static str {
        "analyzer"
    }

    fn inputs(&self) -> &'static [&'static str] {
        &["events"]
    }

    fn fold(&self, _: i32) -> Box<dyn Fold> {
        Box::new(RowsFold)
    }
}

struct RowsFold;

impl Fold for RowsFold {
    fn open(&mut self, _: &mut dyn Rows) -> Result<(), FoldError> {
        Ok(())
    }

    fn apply(&mut self, record: &Record, context: &mut Context<'_>) -> Result<Result<(), Poison>, FoldError> {
        let value = record.value.clone().unwrap_or_default();
        context.rows.put(&[b"k", record.key.as_ref()].concat(), value.slice(..value.len().min(100)));
        Ok(Ok(()))
    }
}

fn read(job: &Job, asked: &AtomicBool) -> anyhow::Result<Outcome> {
    let log = job.log.open(&job.prefix)?;
    let topic = log.full_name(serin_topology::EVENTS);
    let from: Vec<_> = (0..job.partitions)
        .map(|partition| (TopicPartition { topic: Arc::clone(&topic), partition }, Start::Beginning))
        .collect();
    let mut reader = log.reader(&from)?;
    let meter = Meter::default();
    let (mut done, mut warm, mut batch) = (0, None, Vec::new());
    while job.records.is_some_and(|records| done < records) && !asked.load(Ordering::Acquire) {
        reader.poll(1000, Duration::from_millis(100), &mut batch)?;
        done += batch.len() as u64;
        batch.clear();
        if warm.is_none() && done >= job.warm {
            warm = Some(moment(&meter, done)?);
        }
    }
    let (end, warm) = (moment(&meter, done)?, warm.context("ended before the warm-up was over")?);
    Ok(Outcome {
        records: end.records - warm.records,
        wall_s: (end.at - warm.at).as_secs_f64(),
        cpu_s: end.cpu - warm.cpu,
        threads: difference(&end.threads, &warm.threads),
        ..Outcome::default()
    })
}
