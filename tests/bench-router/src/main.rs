//! `make bench-router`: measures the router together with `HAProxy`, nginx and Envoy, which do the same 90/10 split to the
//! same model servers, each in turn on the same processor.

mod http;
mod load;
mod peers;
mod report;
mod serin;
mod upstream;

use std::{
    path::PathBuf,
    process::{Command, Stdio},
    sync::Arc,
    time::Duration,
};

use anyhow::ensure;
use clap::Parser;
use serin_bench_router::publish::{self, Series};
use serin_stream::{
    kafka::{KafkaLog, KafkaOptions},
    log::Log,
};
use serin_tests::{
    figures::percentile,
    kafka::{Broker, BrokerOptions, unique_prefix},
};

use peers::{Peer, Programs, Running, World};
use report::{Report, Sample};
use serin::{Cluster, MIRROR, MODELS, OFF, ON, OUTPUTS};

/// Calls a second at which added latency is measured: less than a fifth of the slowest proxy's maximum.
const RATE: u32 = 2000;

#[derive(Debug, Parser)]
#[command(about = "Compares the router with HAProxy, nginx and Envoy; use tests/bench-router/run.sh")]
struct Cli {
    /// The binary of Serin
    #[arg(long)]
    serin: PathBuf,
    /// The binary of Envoy
    #[arg(long)]
    envoy: PathBuf,
    /// Directory of the proxies' configurations
    #[arg(long)]
    configs: PathBuf,
    /// Run one short round
    #[arg(long, env = "BENCH_SHORT", num_args = 0..=1, default_missing_value = "true",
          value_parser = clap::builder::FalseyValueParser::new(), default_value = "false")]
    short: bool,
    /// Measure only these proxies, by their names in the table
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Do not measure the time until a table is in use
    #[arg(long)]
    no_publish: bool,
    /// File for the figures
    #[arg(long, default_value = "bench-results/router.json")]
    out: PathBuf,
}

fn main() -> anyhow::Result<()> {
    let cli = Cli::parse();
    let programs = Programs { serin: cli.serin, envoy: cli.envoy, configs: cli.configs };
    let (rounds, span) = if cli.short { (1, Duration::from_secs(2)) } else { (5, Duration::from_secs(4)) };
    // A new broker is slower at first, until the just-in-time compiler of its Java virtual machine has run.
    let series =
        if cli.short { Series { warm_up: 100, measured: 200 } } else { Series { warm_up: 1000, measured: 1000 } };
    let scratch = tempfile::Builder::new().prefix("serin-bench-router.").tempdir()?;
    let upstreams = upstream::start()?;
    let broker = Broker::start(BrokerOptions::default())?;
    let cluster = |models| Cluster::create(broker.bootstrap(), &unique_prefix("bench"), models, &upstreams);
    let (few, many) = (cluster(OFF.models)?, cluster(MODELS.models)?);

    let peers = [
        Peer::Direct,
        Peer::HaProxy,
        Peer::Nginx,
        Peer::Envoy,
        Peer::Serin(OFF),
        Peer::Serin(ON),
        Peer::Serin(MIRROR),
        Peer::Serin(MODELS),
        Peer::Serin(OUTPUTS),
    ];
    let peers: Vec<Peer> = peers
        .into_iter()
        .filter(|peer| cli.only.is_empty() || cli.only.iter().any(|only| only == peer.name()))
        .collect();
    let mut report = Report::new(rounds, span, RATE);
    for round in 1..=rounds {
        for &peer in &peers {
            let cluster = if peer == Peer::Serin(MODELS) { &many } else { &few };
            let world = World { upstreams: &upstreams, brokers: broker.bootstrap(), cluster, scratch: scratch.path() };
            let sample = measure(peer, &programs, &world, span)?;
            report.progress(round, peer.name(), &sample)?;
            report.add(peer.name(), sample);
        }
    }
    if !cli.no_publish {
        // No proxy is measured from here on, so router, Kafka and caller have all processors.
        drop((few, many, broker));
        take_all_processors()?;
        let broker = Broker::start(BrokerOptions::default())?;
        let options = KafkaOptions::new(broker.bootstrap(), &unique_prefix("publish"));
        let log: Arc<dyn Log> = Arc::new(KafkaLog::connect(&options)?);
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        report.published(&runtime.block_on(publish::measure(log, series))?);
    }
    report.finish(&cli.out)
}

/// `run.sh` reserves the first processor for the proxies. Processes that this program starts from here on may use it too.
fn take_all_processors() -> anyhow::Result<()> {
    // The processors of this program follow the first one, which is number 0.
    let left = std::thread::available_parallelism().map_or(1, usize::from);
    let id = std::process::id().to_string();
    let done =
        Command::new("taskset").args(["-a", "-p", "-c", &format!("0-{left}"), &id]).stdout(Stdio::null()).status()?;
    ensure!(done.success(), "taskset failed: {done}");
    Ok(())
}

/// One round of one proxy.
fn measure(peer: Peer, programs: &Programs, world: &World<'_>, span: Duration) -> anyhow::Result<Sample> {
    let running = Running::start(peer, programs, world)?;
    let request = peer.request();
    let events_before = world.cluster.events()?;
    // Warm up: connections are opened, pools filled, code paged in.
    let warm = load::closed(running.address, &request, span / 4)?.took.len();
    let counts = |world: &World<'_>| world.upstreams.each_ref().map(upstream::Upstream::answered);
    let (before, cpu) = (counts(world), running.cpu()?);
    let closed = load::closed(running.address, &request, span)?;
    let (after, used) = (counts(world), running.cpu()?);
    let paced = load::paced(running.address, &request, RATE, span)?;
    let address = running.address;
    drop(running);

    let answered = closed.took.len();
    let [stable, canary, shadow] = [0, 1, 2].map(|at| (after[at] - before[at]) as f64);
    if peer != Peer::Direct {
        let share = canary / (stable + canary);
        ensure!((0.09..0.11).contains(&share), "{} at {address} gave canary {share:.3} of the calls", peer.name());
    }
    let events = world.cluster.events()? - events_before;
    let reported = match peer {
        Peer::Serin(variant) if variant.events => {
            let calls = warm + answered + paced.took.len();
            ensure!(events as usize >= calls, "{calls} calls, but {events} records on the topic of events");
            events as f64 / calls as f64
        }
        _ => 0.0,
    };
    Ok(Sample {
        rps: answered as f64 / closed.seconds,
        own_us: (used.own - cpu.own) * 1e6 / answered as f64,
        kernel_us: (used.kernel - cpu.kernel) * 1e6 / answered as f64,
        p50_us: percentile(&closed.took, 0.5),
        p99_us: percentile(&closed.took, 0.99),
        paced_p50_us: percentile(&paced.took, 0.5),
        paced_p99_us: percentile(&paced.took, 0.99),
        mirrored: shadow / answered as f64,
        reported,
    })
}
