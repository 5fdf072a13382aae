//! Measures a log: the duration of a commit, and how soon a waiting reader receives a record.
//!
//! `cargo run --release -p serin-stream --features embedded,kafka --example latency -- embedded FOLDER`
//! `cargo run --release -p serin-stream --features embedded,kafka --example latency -- kafka HOST:PORT`
#![expect(clippy::print_stdout, reason = "it prints its result")]

use std::{
    error::Error,
    path::Path,
    sync::{Arc, mpsc},
    thread,
    time::{Duration, Instant},
};

use serin_stream::{
    embedded::{EmbeddedLog, EmbeddedOptions},
    kafka::{KafkaLog, KafkaOptions},
    log::{Log, Polled, Start},
    record::{Headers, Outgoing, Target, TopicPartition},
};
use serin_topology::{Cleanup, TopicSpec};

const ROUNDS: usize = 500;
/// Pause between two rounds, because a quiet log is the case of interest.
const PAUSE: Duration = Duration::from_millis(5);

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let log: Arc<dyn Log> = match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["embedded", folder] => Arc::new(EmbeddedLog::open(Path::new(folder), EmbeddedOptions::default())?),
        ["kafka", brokers] => {
            let prefix = format!("latency-{}.", std::process::id());
            Arc::new(KafkaLog::connect(&KafkaOptions::new(brokers, &prefix))?)
        }
        _ => return Err("usage: latency embedded FOLDER | kafka HOST:PORT".into()),
    };
    let cleanup = Cleanup::Delete { retention_ms: 86_400_000 };
    let topic = TopicSpec { name: "t".into(), partitions: 4, replication: 1, cleanup, settings: Vec::new() };
    log.create(&[topic])?;
    commits(log.as_ref())?;
    openings(log.as_ref())?;
    wake_ups(&log)?;
    throughput(log.as_ref())
}

fn record(bytes: usize, partition: i32) -> Outgoing {
    Outgoing {
        topic: "t",
        target: Target::Partition(partition),
        key: "key".into(),
        value: Some(vec![b'x'; bytes].into()),
        headers: Headers::default(),
        timestamp_ms: None,
    }
}

fn report(what: &str, mut times: Vec<Duration>) {
    times.sort();
    let at = |share: usize| times[(times.len() * share / 1000).min(times.len() - 1)];
    println!("{what}: p50 {:.2?}, p99 {:.2?}, max {:.2?} ({} times)", at(500), at(990), at(1000), times.len());
}

fn commits(log: &dyn Log) -> Result<(), Box<dyn Error>> {
    let mut owner = log.transactional("latency")?;
    let records: Vec<Outgoing> = (0..10).map(|n| record(200, n % 4)).collect();
    owner.commit(&records, &[], None)?;
    let mut times = Vec::new();
    for _ in 0..ROUNDS {
        let started = Instant::now();
        owner.commit(&records, &[], None)?;
        times.push(started.elapsed());
        thread::sleep(PAUSE);
    }
    report("commit of 10 records of 200 bytes in 4 partitions", times);
    Ok(())
}

/// The log operations of an opening task: take over its id, and read a topic to its end.
fn openings(log: &dyn Log) -> Result<(), Box<dyn Error>> {
    let (mut takes, mut reads) = (Vec::new(), Vec::new());
    for _ in 0..10 {
        let started = Instant::now();
        let _owner = log.transactional("latency")?;
        takes.push(started.elapsed());
        let started = Instant::now();
        let place = TopicPartition { topic: log.full_name("t"), partition: 0 };
        let mut reader = log.reader(&[(place, Start::Beginning)])?;
        while reader.poll(10_000, Duration::from_secs(1), &mut Vec::new())? != Polled::AtEnd {}
        reads.push(started.elapsed());
    }
    report("taking over a transactional id", takes);
    report("opening a reader and reading to the end", reads);
    Ok(())
}

fn wake_ups(log: &Arc<dyn Log>) -> Result<(), Box<dyn Error>> {
    let mut reader = log.reader(&[(TopicPartition { topic: log.full_name("t"), partition: 0 }, Start::End)])?;
    let (send, received) = mpsc::channel();
    thread::spawn(move || {
        let mut records = Vec::new();
        while let Ok(polled) = reader.poll(100, Duration::from_secs(10), &mut records) {
            if polled == Polled::Records && send.send(Instant::now()).is_err() {
                return;
            }
            records.clear();
        }
    });
    let writer = log.writer(1000)?;
    writer.send(record(200, 0))?;
    received.recv()?;
    let mut plain = Vec::new();
    for _ in 0..ROUNDS {
        thread::sleep(PAUSE);
        let started = Instant::now();
        writer.send(record(200, 0))?;
        plain.push(received.recv()?.duration_since(started));
    }
    report("plain send to a waiting reader", plain);
    let mut owner = log.transactional("latency")?;
    let mut times = Vec::new();
    let mut after = Vec::new();
    for _ in 0..ROUNDS {
        thread::sleep(PAUSE);
        let started = Instant::now();
        owner.commit(&[record(200, 0)], &[], None)?;
        let committed = Instant::now();
        let seen = received.recv()?;
        times.push(seen.duration_since(started));
        after.push(seen.saturating_duration_since(committed));
    }
    report("transaction to a waiting reader", times);
    report("of that, after the commit returned", after);
    Ok(())
}

fn throughput(log: &dyn Log) -> Result<(), Box<dyn Error>> {
    const RECORDS: usize = 200_000;
    let writer = log.writer(RECORDS)?;
    let started = Instant::now();
    for n in 0..RECORDS {
        writer.send(record(200, (n % 4) as i32))?;
    }
    writer.flush(Duration::from_mins(1))?;
    let written = started.elapsed();
    let places: Vec<_> =
        (0..4).map(|partition| (TopicPartition { topic: log.full_name("t"), partition }, Start::Beginning)).collect();
    let mut reader = log.reader(&places)?;
    let started = Instant::now();
    let (mut count, mut records) = (0, Vec::new());
    while reader.poll(1000, Duration::from_secs(1), &mut records)? != Polled::AtEnd {
        count += records.len();
        records.clear();
    }
    let rate = |count: usize, time: Duration| count as f64 / time.as_secs_f64();
    println!(
        "plain writes: {:.0} records/s; reads: {:.0} records/s",
        rate(RECORDS, written),
        rate(count, started.elapsed())
    );
    Ok(())
}
