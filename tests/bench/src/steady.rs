//! Steady traffic in real time: commit latency, memory over a long run, takeover after a crash.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::Context as _;
use serin_stream::{
    kafka::{KafkaLog, KafkaOptions},
    log::Log,
};
use serin_tests::figures::percentile;

use crate::{
    Bench,
    backlog::PARTITIONS,
    child::Running,
    load::{Load, Mix},
    logs, machine,
    metered::Commit,
    report::Target,
    worker::{Job, Place, Work},
};

/// Time between two batches of the traffic.
const TURN: Duration = Duration::from_millis(20);
/// The session timeout of the group in seconds, the stage's default.
const SESSION_S: f64 = 10.0;

/// Traffic that continues until it is stopped.
struct Traffic {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<anyhow::Result<()>>>,
}

impl Traffic {
    /// Creates the topics and starts the traffic; returns when the first records are written.
    fn start(brokers: &str, prefix: &str, mix: &Mix) -> anyhow::Result<Self> {
        let mix = mix.clone();
        let log: Arc<dyn Log> = Arc::new(KafkaLog::connect(&KafkaOptions::new(brokers, prefix))?);
        logs::create(log.as_ref(), PARTITIONS)?;
        let writer = log.writer(200_000)?;
        let mut load = Load::new(mix.clone(), PARTITIONS, logs::start());
        load.make(1, &mut |record| logs::send(writer.as_ref(), &record))?;
        writer.flush(Duration::from_secs(10))?;
        let stop = Arc::new(AtomicBool::new(false));
        let asked = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            let (started, mut sent) = (Instant::now(), 0);
            while !asked.load(Ordering::Acquire) {
                let due = (started.elapsed().as_secs_f64() * mix.rate as f64) as usize;
                load.make(due - sent, &mut |record| logs::send(writer.as_ref(), &record))?;
                sent = due;
                thread::sleep(TURN);
            }
            Ok(())
        });
        Ok(Self { stop, thread: Some(thread) })
    }

    fn end(mut self) -> anyhow::Result<()> {
        self.stop.store(true, Ordering::Release);
        let thread = self.thread.take().context("the traffic is already stopped")?;
        thread.join().map_err(|_| anyhow::anyhow!("the traffic panicked"))?
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
    }
}

fn worker(bench: &mut Bench, prefix: &str, warm: u64) -> anyhow::Result<Running> {
    let job = Job {
        log: Place::Kafka(bench.broker()?.bootstrap().to_owned()),
        prefix: prefix.to_owned(),
        partitions: PARTITIONS,
        state: bench.folder()?,
        records: None,
        warm,
        work: Work::Aggregate,
    };
    Running::worker(&job)
}

/// Commit latency and memory.
pub(crate) fn steady(bench: &mut Bench) -> anyhow::Result<()> {
    let mix = Mix { rate: bench.size(20_000, 10_000), ..Mix::standard() };
    // Windows, grace and maturity take 32 s. After that, windows close at the rate at which they open.
    let (warm, long) = bench.size((60, 120), (5, 10));
    bench.report.section(&format!("{} events/s in real time for {} s, 4 partitions", mix.rate, warm + long))?;
    let brokers = bench.broker()?.bootstrap().to_owned();
    let traffic = Traffic::start(&brokers, "steady.", &mix)?;
    let worker = worker(bench, "steady.", mix.rate as u64 * warm)?;
    let (started, mut samples) = (Instant::now(), Vec::new());
    while started.elapsed().as_secs() < warm + long {
        thread::sleep(Duration::from_millis(500));
        if started.elapsed().as_secs() >= warm {
            samples.push(machine::rss_mb(worker.pid())?);
        }
    }
    let outcome = worker.stop()?;
    traffic.end()?;
    let report = &mut bench.report;
    let (p50, p99) = (percentile(&outcome.commits_ms(), 0.5), percentile(&outcome.commits_ms(), 0.99));
    report.add("commit_p50_ms", "commit, p50: how long it blocks a task", p50, "ms", Target::None)?;
    report.add("commit_p99_ms", "commit, p99", p99, "ms", Target::AtMost(20.0))?;
    report.add("commits", "  commits measured", outcome.commits.len() as f64, "", Target::None)?;
    let mut slow = outcome.commits.clone();
    slow.sort_by(|a, b| b.whole().total_cmp(&a.whole()));
    slow.truncate(slow.len().div_ceil(100));
    let mean = |part: fn(&Commit) -> f64| slow.iter().map(part).sum::<f64>() / slow.len() as f64;
    let (rows, transaction, store) = (mean(|c| c.rows), mean(|c| c.transaction), mean(|c| c.store));
    report.note(&format!(
        "  the slowest hundredth: rows {rows:.1} ms, transaction {transaction:.1} ms, store {store:.1} ms"
    ))?;
    let cores = outcome.cpu_s / outcome.wall_s;
    report.add("steady_cores", "CPU at that rate", cores, "cores", Target::None)?;
    let quarter = samples.len() / 4;
    let (first, last) = (percentile(&samples[..quarter], 0.5), percentile(&samples[samples.len() - quarter..], 0.5));
    report.add("rss_mb", "resident memory, median of the last quarter", last, "MB", Target::None)?;
    let growth = (last / first - 1.0) * 100.0;
    report.add("rss_growth_pct", "  against the first quarter after warm-up", growth, "%", Target::AtMost(5.0))
}

/// A worker and its partitions.
struct Member {
    worker: Running,
    owns: Vec<i32>,
}

/// Kills one of two workers and measures the time until the other has committed on all of its partitions.
pub(crate) fn takeover(bench: &mut Bench) -> anyhow::Result<()> {
    bench.report.section("takeover: kill -9 of one of two workers, until the other commits on all its partitions")?;
    let brokers = bench.broker()?.bootstrap().to_owned();
    let mix = Mix { rate: 5_000, ..Mix::standard() };
    let traffic = Traffic::start(&brokers, "takeover.", &mix)?;
    let mut members = vec![Member { worker: worker(bench, "takeover.", 0)?, owns: Vec::new() }];
    let mut times = Vec::new();
    for _ in 0..bench.size(3, 1) {
        members.push(Member { worker: worker(bench, "takeover.", 0)?, owns: Vec::new() });
        settle(&mut members)?;
        let victim = members.remove(0);
        let killed = victim.worker.kill()?;
        let survivor = &mut members[0];
        let mut left = victim.owns;
        let mut last = killed;
        while !left.is_empty() {
            let (at, line) =
                survivor.worker.line(Duration::from_mins(1))?.context("the other worker does not take over")?;
            if let Some(partition) = first_commit(&line) {
                left.retain(|open| *open != partition);
                survivor.owns.push(partition);
                last = at;
            }
        }
        times.push((last - killed).as_secs_f64());
    }
    traffic.end()?;
    let worst = percentile(&times, 1.0);
    let what = format!("worst of {}; session timeout {SESSION_S} s", times.len());
    bench.report.add("takeover_s", &what, worst, "s", Target::AtMost(SESSION_S + 2.0))?;
    bench.report.add("session_timeout_s", "  session timeout", SESSION_S, "s", Target::None)
}

fn first_commit(line: &str) -> Option<i32> {
    line.strip_prefix("first-commit ")?.parse().ok()
}

/// Waits until both members work and all partitions have an owner.
fn settle(members: &mut [Member]) -> anyhow::Result<()> {
    let deadline = Instant::now() + Duration::from_mins(1);
    loop {
        let owned: usize = members.iter().map(|member| member.owns.len()).sum();
        if owned == PARTITIONS as usize && members.iter().all(|member| !member.owns.is_empty()) {
            return Ok(());
        }
        anyhow::ensure!(Instant::now() < deadline, "the workers do not settle");
        for at in 0..members.len() {
            let Some((_, line)) = members[at].worker.line(Duration::from_millis(50))? else { continue };
            if let Some(partition) = first_commit(&line) {
                for member in &mut *members {
                    member.owns.retain(|owned| *owned != partition);
                }
                members[at].owns.push(partition);
            }
        }
    }
}
