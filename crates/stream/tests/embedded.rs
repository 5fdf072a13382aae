//! Behavior that only the embedded log has: one owner per directory, and removal of old records.
#![cfg(all(feature = "conformance", feature = "embedded"))]

use std::{sync::Arc, time::Duration};

use serin_schemas::ids::NextOffset;
use serin_stream::{
    clock::ManualClock,
    conformance::{DELETE, Outcome, at, outgoing, read_all, read_count, read_to_end, topic, until, values, write},
    embedded::{EmbeddedLog, EmbeddedOptions},
    log::{Log, LogError, Start},
    record::{Outgoing, Target},
};
use serin_topology::Cleanup;

const DAY: Duration = Duration::from_hours(24);

fn options(clock: &Arc<ManualClock>) -> EmbeddedOptions {
    EmbeddedOptions { clock: Arc::clone(clock) as _, tidy_every: DAY, ..EmbeddedOptions::default() }
}

#[test]
fn a_directory_in_use_is_reported() -> Outcome {
    let folder = tempfile::tempdir()?;
    let _first = EmbeddedLog::open(folder.path(), EmbeddedOptions::default())?;
    let error = EmbeddedLog::open(folder.path(), EmbeddedOptions::default()).err().ok_or("it opened twice")?;
    let text = error.to_string();
    assert!(text.contains("in use by another process") && text.contains("a different directory"), "{text}");
    Ok(())
}

#[test]
fn records_expire_and_readers_behind_them_get_an_error() -> Outcome {
    let folder = tempfile::tempdir()?;
    let clock = Arc::new(ManualClock::at(1_700_000_000_000));
    let log = EmbeddedLog::open(folder.path(), options(&clock))?;
    log.create(&[topic("t", 1, DELETE)])?;
    let put = |value: &str| write(&log, [outgoing("t", Target::ByKey, "k", value)]);
    put("old")?;
    let place = at(&log, "t", 0);
    let mut slow = log.reader(&[(place.clone(), Start::Beginning)])?;
    clock.advance(DAY / 2);
    put("young")?;
    clock.advance(DAY / 2 + Duration::from_secs(1));
    log.tidy(&options(&clock))?;
    assert_eq!(values(&read_all(&log, "t", 0)?), ["young"]);
    assert_eq!(log.bounds(&place)?, (NextOffset(1), NextOffset(2)));
    let error = slow.poll(10, Duration::ZERO, &mut Vec::new()).err();
    assert!(matches!(error, Some(LogError::OutOfRange { wanted: 0, start: 1, end: 2, .. })), "{error:?}");
    drop((slow, log));
    let mut log = None;
    until("the writers' threads to release the log", || {
        log = EmbeddedLog::open(folder.path(), options(&clock)).ok();
        log.is_some()
    })?;
    let log = log.ok_or("no log")?;
    assert_eq!(log.bounds(&place)?, (NextOffset(1), NextOffset(2)), "a restart does not bring them back");
    Ok(())
}

#[test]
fn compaction_keeps_the_newest_and_young_tombstones() -> Outcome {
    let folder = tempfile::tempdir()?;
    let clock = Arc::new(ManualClock::at(1_700_000_000_000));
    let log = EmbeddedLog::open(folder.path(), options(&clock))?;
    log.create(&[topic("t", 1, Cleanup::Compact)])?;
    let tombstone = |key: &str| Outgoing { value: None, ..outgoing("t", Target::ByKey, key, "") };
    write(&log, (0..12_000).map(|n| outgoing("t", Target::ByKey, &format!("k{}", n % 10), &n.to_string())))?;
    write(&log, [tombstone("k1")])?;
    clock.advance(DAY + Duration::from_secs(1));
    write(&log, [tombstone("k2")])?;
    log.tidy(&options(&clock))?;
    let records = read_all(&log, "t", 0)?;
    assert_eq!(records.len(), 9, "eight live keys and the young tombstone");
    assert_eq!(values(&records[..2]), ["11990", "11993"]);
    assert_eq!(values(&records[8..]), ["-"]);
    let mut reader = log.reader(&[(at(&log, "t", 0), Start::At(NextOffset(5)))])?;
    assert_eq!(read_to_end(reader.as_mut())?.len(), 9, "reading from a removed offset");
    Ok(())
}

#[test]
fn a_log_over_its_size_limit_drops_the_oldest_records() -> Outcome {
    let folder = tempfile::tempdir()?;
    let clock = Arc::new(ManualClock::at(1_700_000_000_000));
    let small = EmbeddedOptions { max_bytes: 1 << 20, ..options(&clock) };
    let log = EmbeddedLog::open(folder.path(), small.clone())?;
    log.create(&[topic("t", 1, DELETE), topic("c", 1, Cleanup::Compact)])?;
    // More than a write buffer of incompressible data: a well-mixed counter.
    let noise = |n: u64| (0..512_u64).map(move |k| (n * 512 + k).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
    let record = |n: u64| {
        let value: Vec<u8> = noise(n).flatten().collect();
        Outgoing { value: Some(value.into()), ..outgoing("t", Target::ByKey, "k", "") }
    };
    let mut owner = log.transactional("w")?;
    for batch in 0..20 {
        let records: Vec<Outgoing> = (batch * 500..(batch + 1) * 500).map(record).collect();
        owner.commit(&records, &[], None)?;
    }
    log.tidy(&small)?;
    let (start, end) = log.bounds(&at(&log, "t", 0))?;
    assert_eq!(end, NextOffset(10_000));
    assert_eq!(start, NextOffset(1000), "a tenth was removed");
    assert_eq!(read_all(&log, "t", 0)?.len(), 9000);
    Ok(())
}

#[test]
fn another_process_may_follow_and_not_write() -> Outcome {
    let folder = tempfile::tempdir()?;
    let scratch = tempfile::tempdir()?;
    let log = EmbeddedLog::open(folder.path(), EmbeddedOptions::default())?;
    log.create(&[topic("t", 1, DELETE)])?;
    write(&log, [outgoing("t", Target::ByKey, "k", "1")])?;
    let follower = EmbeddedLog::follow(folder.path(), scratch.path(), &EmbeddedOptions::default())?;
    let mut reader = follower.reader(&[(at(&follower, "t", 0), Start::Beginning)])?;
    assert_eq!(values(&read_count(reader.as_mut(), 1)?), ["1"]);
    log.create(&[topic("new", 1, DELETE)])?;
    write(&log, [outgoing("t", Target::ByKey, "k", "2"), outgoing("new", Target::ByKey, "k", "3")])?;
    assert_eq!(values(&read_count(reader.as_mut(), 1)?), ["2"]);
    until("the new topic", || read_all(&follower, "new", 0).is_ok_and(|records| records.len() == 1))?;
    assert!(follower.transactional("w").is_err());
    assert_eq!(values(&read_all(&log, "t", 0)?), ["1", "2"]);
    Ok(())
}
