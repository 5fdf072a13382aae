//! Process chaos on a real Kafka: three brokers, eight Serin processes, and one fault after the other. At the end, everything on the
//! log is recomputed and compared.
//!
//! As a test, it injects every kind of fault once. With `CHAOS_MINUTES` it draws faults for that long, and `CHAOS_SEED` repeats the
//! same draws (`make chaos`). A seed repeats the faults, but not the timing, which depends on the machine.

#![expect(clippy::print_stdout, reason = "prints progress and figures")]

mod faults;
mod fleet;
mod judge;
mod load;
#[path = "../support/mod.rs"]
mod support;

use std::{
    env,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use rdkafka::{
    admin::{AdminClient, AdminOptions, AlterConfig, ConfigSource, ResourceSpecifier},
    client::DefaultClientContext,
};
use serde_json::{Value, json};
use serin_tests::kafka::{Cluster, client_config, unique_prefix};
use tokio::runtime::Runtime;

use faults::{Fault, PARTITIONS, World};
use fleet::{Fleet, PATIENCE, ZONES};
use judge::{Log, Report};
use load::{Load, Tally};
use support::{oracle, wait_until};

/// The seed of the short run.
const SEED: u64 = 1;

#[test]
fn after_all_faults_windows_verdicts_and_tables_match_the_events() -> Result<()> {
    let minutes = number("CHAOS_MINUTES")?;
    let seed = number("CHAOS_SEED")?.unwrap_or(SEED);
    // Fail before the first fault if the last one cannot be injected.
    faults::next_binary()?;
    let prefix = unique_prefix("chaos");
    let started = Instant::now();
    let mut world = start(&prefix, seed)?;
    let mut load = Load::start(world.fleet.routers(), world.fleet.apis());
    let result = run(&mut world, &mut load, minutes, started);
    let outcome = result.and_then(|()| finish(&mut world, &mut load));
    let again = match minutes {
        Some(minutes) => format!("CHAOS_MINUTES={minutes} CHAOS_SEED={seed} make chaos"),
        None => "cargo test --release --workspace --test chaos -- --nocapture".to_owned(),
    };
    match outcome {
        Ok((log, report, tally)) => {
            table(&world, &report, &tally, started.elapsed());
            println!("to run it again: {again}");
            the_judge_finds_errors(&log)
        }
        Err(error) => {
            let logs = world.fleet.keep()?;
            println!("to run it again: {again}; logs of the processes: {}", logs.display());
            Err(error)
        }
    }
}

fn number(variable: &str) -> Result<Option<u64>> {
    let Ok(text) = env::var(variable) else { return Ok(None) };
    text.parse().map(Some).with_context(|| format!("{variable} is {text:?}; write a number"))
}

/// Starts brokers and processes, and waits until all are ready.
fn start(prefix: &str, seed: u64) -> Result<World> {
    let cluster = Cluster::start(ZONES)?;
    let mut settings = vec![
        format!("topology.prefix={prefix}"),
        format!("topology.partitions={PARTITIONS}"),
        "topology.replication=3".to_owned(),
        "router.heartbeat_every=500ms".to_owned(),
    ];
    let models = load::Models::start()?;
    settings.extend(models.settings());
    let zones = std::array::from_fn(|zone| cluster.bootstrap_of(zone));
    let mut fleet = Fleet::new(&zones, &cluster.bootstrap(), &settings)?;
    fleet.start_all()?;
    fleet.ready()?;
    keep_all_tables(&cluster.bootstrap(), prefix)?;
    Ok(World::new(cluster, fleet, models, prefix, seed))
}

/// Delays compaction of `routing` beyond the longest run: the judge reads every table at the end.
///
/// Tables sampled during the run are not enough. A rollout can end, and the next one can start, within one fault.
fn keep_all_tables(brokers: &str, prefix: &str) -> Result<()> {
    let admin: AdminClient<DefaultClientContext> = client_config(brokers).create()?;
    let runtime = Runtime::new()?;
    let (topic, options) = (format!("{prefix}routing"), AdminOptions::new());
    let place = ResourceSpecifier::Topic(&topic);
    let failed = |code| anyhow!("the settings of {topic}: {code}");
    let found = runtime.block_on(admin.describe_configs([&place], &options))?.remove(0).map_err(failed)?;
    // The request replaces all settings of the topic.
    let own = found.entries.iter().filter(|entry| entry.source == ConfigSource::DynamicTopic);
    let own = own.filter_map(|entry| Some((entry.name.as_str(), entry.value.as_deref()?)));
    let kept = AlterConfig { specifier: place, entries: own.collect() }.set("min.compaction.lag.ms", "86400000");
    let changed = runtime.block_on(admin.alter_configs([&kept], &options))?.remove(0);
    changed.map(drop).map_err(|(_, code)| failed(code))
}

/// Injects one fault after the other: every kind once, or random faults for the given minutes.
fn run(world: &mut World, load: &mut Load, minutes: Option<u64>, started: Instant) -> Result<()> {
    world.recover().context("before the first fault")?;
    println!("{:>6} s  everything runs, verdicts come", started.elapsed().as_secs());
    let print = |fault: Fault, what: &str, tally: &Tally| {
        let (seconds, calls) = (started.elapsed().as_secs(), tally.answered);
        println!(
            "{seconds:>6} s  {}: {what}; {calls} calls, {} rollouts",
            fault.name(),
            tally.ended.values().sum::<u64>()
        );
    };
    let Some(minutes) = minutes else {
        for fault in Fault::ALL {
            if world.not_shown.contains_key(&fault) {
                continue;
            }
            let what = world.inject(fault)?;
            print(fault, &what, &load.tally());
        }
        return Ok(());
    };
    let until = Duration::from_secs(60 * minutes);
    let mut upgraded = false;
    while started.elapsed() < until {
        // Each binary runs for half of the time.
        let fault = if !upgraded && started.elapsed() > until / 2 { Fault::NewBinary } else { world.draw() };
        upgraded |= fault == Fault::NewBinary;
        let what = world.inject(fault)?;
        print(fault, &what, &load.tally());
    }
    Ok(())
}

/// Waits for the end of the last rollout, then compares everything on the log.
fn finish(world: &mut World, load: &mut Load) -> Result<(Log, Report, Tally)> {
    let tally = load.finish()?;
    world.fleet.ready()?;
    let mut log = Log::default();
    let mut found = (Report::default(), Vec::new());
    // The last windows of the last rollout are written shortly after its end.
    let equal = wait_until(PATIENCE, || {
        log = read(world)?;
        found = log.judge();
        Ok(found.1.is_empty())
    });
    let (report, differences) = found;
    ensure!(equal.is_ok(), "{} differences:\n{}", differences.len(), differences.join("\n"));
    let replay = world.fleet.cli(&world.cluster.bootstrap(), &["replay", "--output", "json"])?;
    let replayed: Value = serde_json::from_slice(&replay.stdout).context("the output of `serin replay`")?;
    let verified = &replayed["verified"];
    let all_equal =
        replayed["holds"] == true && verified["not_recomputed"] == 0 && verified["equal"] == log.verdicts.len();
    ensure!(all_equal, "{} verdicts on the log, but `serin replay` printed {replayed}", log.verdicts.len());
    ensure!(report.rollbacks > 0, "no rollout of the bad version ended, so no rollback was checked");
    Ok((log, report, tally))
}

fn read(world: &World) -> Result<Log> {
    let brokers = world.cluster.bootstrap();
    let tail = |topic| world.fleet.tail(&brokers, topic);
    let unreadable = |record: &Value| record["type"].as_str().is_some_and(|kind| kind.starts_with("unknown"));
    let (garbage, events) = tail("events")?.into_iter().partition(unreadable);
    Ok(Log {
        events,
        garbage,
        windows: tail("windows")?,
        verdicts: tail("verdicts")?,
        audit: tail("audit")?,
        dead_letters: tail("dead-letters")?,
        routing: tail("routing")?,
        turned_bad: world.turned_bad.keys().cloned().collect(),
    })
}

fn table(world: &World, report: &Report, tally: &Tally, took: Duration) {
    println!("\n{:<52} {:>8} {:>20}", "fault", "injected", "slowest recovery");
    for (fault, count) in &world.counts {
        println!("{:<52} {:>8} {:>18.1} s", fault.name(), count.injected, count.slowest.as_secs_f64());
    }
    let injected: u32 = world.counts.values().map(|count| count.injected).sum();
    println!("{:<52} {injected:>8}", "all");
    for (what, seconds) in world.turned_bad.values() {
        println!("rolled back {seconds:.1} s after its canary turned bad: {what}");
    }
    for (fault, why) in &world.not_shown {
        println!("not shown here: {}: {why}", fault.name());
    }
    for ended in &world.fleet.ended {
        let last = ended.log.lines().last().unwrap_or_default();
        println!("{} ended by itself with {} and was started again: {last}", ended.name, ended.status);
    }
    let oracle::Report { predictions, windows, cells, observations, incarnations, .. } = report.windows;
    println!(
        "\n{} s; {} calls answered, {} not; {predictions} predictions on the log of {incarnations} routers",
        took.as_secs(),
        tally.answered,
        tally.unanswered
    );
    println!(
        "{windows} windows compared, {cells} cells (rollout, window, arm, metric, segment), {observations} observations"
    );
    println!(
        "{} rollouts, {} rolled back, {} given up; {} controls, {} routing tables",
        report.rollouts, report.rollbacks, tally.given_up, report.controls, report.tables
    );
    println!("ends: {:?}", tally.ended);
    println!("differences: 0");
}

/// Checks the judge itself: it finds every kind of error in a changed log.
fn the_judge_finds_errors(log: &Log) -> Result<()> {
    let refuses = |what: &str, change: &dyn Fn(&mut Log)| {
        let mut changed = log.clone();
        change(&mut changed);
        let (_, differences) = changed.judge();
        ensure!(!differences.is_empty(), "the judge does not find {what}");
        Ok(())
    };
    let busy = |record: &Value| {
        let cells = record["value"]["cells"].as_array().map_or(0, Vec::len);
        record["type"] == "window_closed" && cells > 5
    };
    let window = log.windows.iter().position(busy).context("a window with cells")?;
    let place = |records: &[Value], is: &dyn Fn(&Value) -> bool| records.iter().position(is).context("such a record");
    let control = place(&log.windows, &|record| record["type"] == "control")?;
    let prediction = place(&log.events, &|record| {
        record["type"] == "prediction" && record["value"]["rollout"].is_string() && record["value"]["arm"] == "canary"
    })?;
    let rolled_back = place(&log.events, &|record| record["value"]["phase"] == "rolled_back")?;
    let generation = log.events[rolled_back]["value"]["generation"].clone();
    let table = place(&log.routing, &|record| record["value"]["generation"] == generation)?;
    refuses("a doubled window", &|log| log.windows.push(log.windows[window].clone()))?;
    refuses("a missing window", &|log| drop(log.windows.remove(window)))?;
    refuses("a changed count", &|log| log.windows[window]["value"]["arms"][0]["predictions"] = json!(1_000_000))?;
    refuses("a missing prediction", &|log| drop(log.events.remove(prediction)))?;
    refuses("a doubled control", &|log| log.windows.insert(control, log.windows[control].clone()))?;
    refuses("a doubled verdict", &|log| log.verdicts.push(log.verdicts[0].clone()))?;
    refuses("an older generation", &|log| log.routing.push(log.routing[0].clone()))?;
    refuses("a rollback without its table", &|log| drop(log.routing.remove(table)))?;
    refuses("a rollback that did not happen", &|log| {
        for record in log.events.iter_mut().chain(&mut log.windows) {
            if record["value"]["phase"] == "rolled_back" {
                record["value"]["phase"] = json!("completed");
            }
        }
    })?;
    refuses("a rollout that goes on after its end", &|log| {
        let going_on = log.routing[table].clone();
        let place = log.routing.len();
        log.routing.push(going_on);
        log.routing[place]["value"]["generation"] = json!(1_000_000);
        log.routing[place]["value"]["rollout"] = log.events[rolled_back]["value"]["rollout"].clone();
    })?;
    if let Some(rollout) = log.turned_bad.first().cloned() {
        refuses("a rollback without a reason", &|log| log.turned_bad.retain(|turned| *turned != rollout))?;
    }
    if let Some(letter) = log.dead_letters.first() {
        refuses("a record that was dead-lettered twice", &|log| log.dead_letters.push(letter.clone()))?;
    }
    refuses("a repeated end in the audit", &|log| {
        let Some(end) = log.audit.iter().find(|record| record["value"]["kind"] == "rolled_back").cloned() else {
            return;
        };
        log.audit.push(end);
    })?;
    if log.audit.is_empty() {
        bail!("no audit");
    }
    Ok(())
}
