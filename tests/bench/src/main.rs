//! Measures the pipeline and prints a table: `make bench`. What each figure means: `docs/performance.md`.
//!
//! The aggregator runs in a separate process (`worker`), so that its CPU time is counted separately from that of the broker and of
//! the process that writes the load.

mod backlog;
mod child;
mod fold;
mod load;
mod logs;
mod machine;
mod metered;
mod report;
mod steady;
mod worker;

use std::path::PathBuf;

use clap::{Parser, Subcommand};
use serin_tests::kafka::{Broker, BrokerOptions};

use crate::{
    load::{Labels, Mix},
    report::{Report, Target},
};

/// The same allocator as in `serin`.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Measures the pipeline.
#[derive(Debug, Parser)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    /// A small load, to check that everything works; its figures are not meaningful
    #[arg(long, env = "BENCH_SHORT", value_parser = clap::builder::BoolishValueParser::new(), default_value = "false", num_args = 0..=1, default_missing_value = "true")]
    short: bool,
    /// Only these parts, separated by commas: fold, kafka, streams, embedded, restore, steady, takeover, scaling.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Directory of the compiled Kafka Streams program (see run.sh)
    #[arg(long)]
    streams: Option<PathBuf>,
    /// File for the figures
    #[arg(long, default_value = "bench-results/pipeline.json")]
    out: PathBuf,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// The process that is measured; started by this program
    #[command(hide = true)]
    Worker { job: String },
}

/// Shared state of all parts.
struct Bench {
    short: bool,
    scratch: tempfile::TempDir,
    report: Report,
    broker: Option<Broker>,
    streams: Option<PathBuf>,
}

impl Bench {
    /// Selects one of two sizes: full or short.
    fn size<T>(&self, full: T, short: T) -> T {
        if self.short { short } else { full }
    }

    /// The broker, started on first use.
    fn broker(&mut self) -> anyhow::Result<&Broker> {
        if self.broker.is_none() {
            self.broker = Some(Broker::start(BrokerOptions::default())?);
        }
        Ok(self.broker.as_ref().expect("it was just started"))
    }

    /// A new directory.
    fn folder(&self) -> anyhow::Result<PathBuf> {
        Ok(tempfile::tempdir_in(self.scratch.path())?.keep())
    }
}

/// Measures one part and reports it.
type Part = fn(&mut Bench) -> anyhow::Result<()>;

fn main() -> anyhow::Result<()> {
    let cli = Cli::parse();
    if let Some(Command::Worker { job }) = &cli.command {
        return worker::run(job);
    }
    let mut bench = Bench {
        short: cli.short,
        scratch: tempfile::Builder::new().prefix("serin-bench.").tempdir()?,
        report: Report::default(),
        broker: None,
        streams: cli.streams,
    };
    bench.report.section(&format!(
        "serin, the pipeline; {}{}",
        machine::describe(),
        bench.size("", "; a short run")
    ))?;
    let parts: [(&str, Part); 8] = [
        ("fold", fold_alone),
        ("kafka", backlog::kafka),
        ("streams", backlog::streams),
        ("embedded", backlog::embedded),
        ("restore", backlog::restore),
        ("steady", steady::steady),
        ("takeover", steady::takeover),
        ("scaling", scaling),
    ];
    for (name, part) in parts {
        if cli.only.is_empty() || cli.only.iter().any(|only| only == name) {
            part(&mut bench)?;
        }
    }
    bench.report.write(&cli.out)
}

/// Measures the fold without a log: decoding, windows, sketches, joins, rows.
fn fold_alone(bench: &mut Bench) -> anyhow::Result<()> {
    bench.report.section("fold alone, one thread, records in memory")?;
    let predictions = bench.size(2_000_000, 400_000);
    let cost = fold::measure(&Mix::standard(), predictions)?;
    let target = Target::AtLeast(1e6);
    bench.report.add(
        "fold_events_per_s_core",
        "20 % tracked, labels on half of them",
        cost.per_second(),
        "events/s",
        target,
    )?;
    let share = cost.commit_seconds / cost.seconds * 100.0;
    bench.report.add("fold_commit_share_pct", "  of that, rows for the commits", share, "%", Target::None)?;
    let library = cost.records as f64 / cost.library_seconds;
    bench.report.add(
        "avro_library_events_per_s_core",
        "  decoding alone, by the Avro library",
        library,
        "events/s",
        Target::None,
    )?;
    let mixes = [
        ("fold_untracked_events_per_s_core", "nothing tracked", Mix { tracked: 0, ..Mix::standard() }),
        ("fold_all_tracked_events_per_s_core", "100 % tracked", Mix { tracked: 100, ..Mix::standard() }),
        (
            "fold_all_labels_events_per_s_core",
            "labels on half of all",
            Mix { labels: Labels::HalfOfAll, ..Mix::standard() },
        ),
    ];
    for (key, what, mix) in mixes {
        let rate = fold::measure(&mix, predictions / 2)?.per_second();
        bench.report.add(key, what, rate, "events/s", Target::None)?;
    }
    Ok(())
}

/// Measures the cost of an event in the fold as things grow.
fn scaling(bench: &mut Bench) -> anyhow::Result<()> {
    bench.report.section("cost of an event as things grow (fold alone, CPU with the rows of commits)")?;
    let predictions = bench.size(800_000, 200_000);
    let mut cases = Vec::new();
    for models in bench.size(vec![1, 10, 100, 1000, 10_000], vec![1, 1000]) {
        cases.push((format!("rollouts_{models}"), format!("{models} rollouts"), Mix { models, ..Mix::standard() }));
    }
    let hot = Mix { models: 100, hot: 90, ..Mix::standard() };
    cases.push(("hot_model".into(), "100 rollouts, one with 90 % of the traffic".into(), hot));
    for segments in bench.size(vec![0, 20, 200, 1000], vec![0, 200]) {
        cases.push((
            format!("segments_{segments}"),
            format!("{segments} segment values"),
            Mix { segments, ..Mix::standard() },
        ));
    }
    for (key, what, mix) in cases {
        let cost = fold::measure(&mix, predictions)?;
        let nanos = cost.seconds * 1e9 / cost.records as f64;
        bench.report.add(&format!("fold_ns_per_event_{key}"), &what, nanos, "ns/event", Target::None)?;
    }
    backlog::partitions(bench)
}
