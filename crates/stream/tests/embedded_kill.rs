//! `kill -9` during commits: no acknowledged record is lost, none is duplicated, and no transaction is partial.
#![cfg(all(feature = "conformance", feature = "embedded"))]

use std::{
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Command, Stdio},
};

use serin_stream::{
    conformance::{DELETE, Outcome, outgoing, read_all, topic, until, values},
    embedded::{EmbeddedLog, EmbeddedOptions},
    log::Log,
    record::Target,
};

/// Set for the process that is killed: the directory of its log.
const CHILD: &str = "SERIN_STREAM_KILLED_LOG";

/// Commits numbers to two topics forever, and prints each number after its commit.
fn commit_forever(folder: &Path) -> Outcome {
    let log = EmbeddedLog::open(folder, EmbeddedOptions::default())?;
    log.create(&[topic("a", 1, DELETE), topic("b", 1, DELETE)])?;
    let next = read_all(&log, "a", 0)?.len();
    let mut owner = log.transactional("owner")?;
    let writer = log.writer(1000)?;
    for n in next.. {
        // Plain writes in between share the disk's writes.
        let _ = writer.send(outgoing("b", Target::ByKey, "plain", "plain"));
        let text = n.to_string();
        let records = [outgoing("a", Target::ByKey, "k", &text), outgoing("b", Target::ByKey, "k", &text)];
        owner.commit(&records, &[], None)?;
        let mut out = std::io::stdout();
        writeln!(out, "committed {n}")?;
        out.flush()?;
    }
    Ok(())
}

/// The same binary is both the test and the process that it kills.
#[test]
fn kill_9_loses_and_duplicates_nothing() -> Outcome {
    if let Some(folder) = std::env::var_os(CHILD) {
        return commit_forever(Path::new(&folder));
    }
    let folder = tempfile::tempdir()?;
    let mut acknowledged = 0;
    for round in 1..=4 {
        let mut child = Command::new(std::env::current_exe()?)
            .args(["kill_9_loses_and_duplicates_nothing", "--exact", "--nocapture"])
            .env(CHILD, folder.path())
            .stdout(Stdio::piped())
            .spawn()?;
        let lines = BufReader::new(child.stdout.take().ok_or("no output")?).lines();
        let mut committed = lines.map_while(Result::ok).filter_map(|line| {
            line.split_once("committed ").and_then(|(_, number)| number.trim().parse::<usize>().ok())
        });
        // Kill the process during its work, at a different point each time.
        acknowledged = committed.nth(20 + 37 * round).ok_or("the child exited by itself")?;
        child.kill()?;
        acknowledged = committed.last().unwrap_or(acknowledged);
        child.wait()?;
        let mut log = None;
        until("the directory is free", || {
            log = EmbeddedLog::open(folder.path(), EmbeddedOptions::default()).ok();
            log.is_some()
        })?;
        let log = log.ok_or("no log")?;
        let numbers = |topic| -> Result<Vec<usize>, Box<dyn std::error::Error>> {
            let values = values(&read_all(&log, topic, 0)?);
            Ok(values.into_iter().filter_map(|value| value.parse().ok()).collect())
        };
        let (a, b) = (numbers("a")?, numbers("b")?);
        assert_eq!(a, (0..a.len()).collect::<Vec<_>>(), "in order, without gaps, each once");
        assert_eq!(a, b, "a transaction is atomic");
        assert!(a.len() > acknowledged, "{acknowledged} was acknowledged, {} are there", a.len());
        // At most the commit that was being written is not acknowledged.
        assert!(a.len() <= acknowledged + 2, "{acknowledged} was acknowledged, {} are there", a.len());
    }
    assert!(acknowledged > 100);
    Ok(())
}
