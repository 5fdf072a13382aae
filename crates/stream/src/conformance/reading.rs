//! Reading: order, positions, waiting.

use std::{sync::mpsc, thread, time::Duration};

use serin_schemas::ids::NextOffset;

use super::{
    Bench, CASE_TIMEOUT, DELETE, Outcome, at, outgoing, read_all, read_count, read_to_end, topic, values, write,
};
use crate::{
    log::{LogError, Polled, Start},
    record::{Outgoing, Target},
};

/// Records of a partition are read in the order in which they were written; partitions do not mix.
pub fn order_per_partition(bench: &mut impl Bench) -> Outcome {
    let log = bench.log();
    log.create(&[topic("t", 3, DELETE)])?;
    write(log.as_ref(), (0..300).map(|n| outgoing("t", Target::Partition(n % 3), "k", &n.to_string())))?;
    for partition in 0..3 {
        let expected: Vec<String> = (0..300).filter(|n| n % 3 == partition).map(|n| n.to_string()).collect();
        assert_eq!(values(&read_all(log.as_ref(), "t", partition)?), expected);
    }
    let places: Vec<_> = (0..3).map(|partition| (at(log.as_ref(), "t", partition), Start::Beginning)).collect();
    let mut reader = log.reader(&places)?;
    assert_eq!(read_to_end(reader.as_mut())?.len(), 300);
    Ok(())
}

/// Key, value, headers, timestamp and partition of a record are returned as written, and a tombstone stays a
/// tombstone.
pub fn records_come_back_as_written(bench: &mut impl Bench) -> Outcome {
    let log = bench.log();
    log.create(&[topic("t", 1, DELETE)])?;
    let full = Outgoing {
        headers: [("ce_type", "x"), ("empty", "")].into_iter().collect(),
        timestamp_ms: Some(1_700_000_000_123),
        ..outgoing("t", Target::ByKey, "key", "value")
    };
    let tombstone = Outgoing { value: None, timestamp_ms: Some(5), ..outgoing("t", Target::ByKey, "gone", "") };
    let empty = outgoing("t", Target::ByKey, "", "");
    write(log.as_ref(), [full.clone(), tombstone, empty])?;
    let records = read_all(log.as_ref(), "t", 0)?;
    assert_eq!(records.len(), 3);
    assert_eq!(records[0].at, at(log.as_ref(), "t", 0));
    assert_eq!((&records[0].key, &records[0].value, &records[0].headers), (&full.key, &full.value, &full.headers));
    assert_eq!(records[0].timestamp_ms, 1_700_000_000_123);
    assert_eq!((records[1].key.as_ref(), &records[1].value, records[1].timestamp_ms), (b"gone".as_slice(), &None, 5));
    assert_eq!((records[2].key.as_ref(), records[2].value.as_deref()), (b"".as_slice(), Some(b"".as_slice())));
    assert!(records[2].timestamp_ms > 1_700_000_000_000, "the log stamps records without a timestamp");
    Ok(())
}

/// A reader starts at the beginning, at the end or at a given position. `bounds` returns the first and the next
/// offset.
pub fn starting_places(bench: &mut impl Bench) -> Outcome {
    let log = bench.log();
    log.create(&[topic("t", 1, DELETE)])?;
    let place = at(log.as_ref(), "t", 0);
    assert_eq!(log.bounds(&place)?, (NextOffset(0), NextOffset(0)));
    write(log.as_ref(), (0..10).map(|n| outgoing("t", Target::ByKey, "k", &n.to_string())))?;
    assert_eq!(log.bounds(&place)?, (NextOffset(0), NextOffset(10)));
    let third = read_all(log.as_ref(), "t", 0)?.swap_remove(2);
    let mut after_third = log.reader(&[(place.clone(), Start::At(third.next()))])?;
    assert_eq!(values(&read_to_end(after_third.as_mut())?), ["3", "4", "5", "6", "7", "8", "9"]);
    let mut end = log.reader(&[(place, Start::End)])?;
    assert!(read_to_end(end.as_mut())?.is_empty());
    write(log.as_ref(), [outgoing("t", Target::ByKey, "k", "new")])?;
    assert_eq!(values(&read_count(end.as_mut(), 1)?), ["new"]);
    Ok(())
}

/// A position outside of the log is an error when the reader is opened or at the first poll. The reader never jumps
/// silently.
pub fn a_position_outside_is_an_error(bench: &mut impl Bench) -> Outcome {
    let log = bench.log();
    log.create(&[topic("t", 1, DELETE)])?;
    write(log.as_ref(), [outgoing("t", Target::ByKey, "k", "v")])?;
    let place = at(log.as_ref(), "t", 0);
    let opened = log.reader(&[(place.clone(), Start::At(NextOffset(1000)))]);
    let error = match opened {
        Err(error) => error,
        Ok(mut reader) => loop {
            match reader.poll(10, CASE_TIMEOUT, &mut Vec::new()) {
                Err(error) => break error,
                Ok(polled) => assert_eq!(polled, Polled::Nothing, "a silent jump"),
            }
        },
    };
    let LogError::OutOfRange { topic, partition: 0, wanted: 1000, start: 0, end: 1 } = error else {
        return Err(format!("{error}").into());
    };
    assert_eq!(topic, *place.topic);
    Ok(())
}

/// A record that is appended while a reader waits is returned at once, not at the end of the wait.
pub fn a_waiting_reader_wakes(bench: &mut impl Bench) -> Outcome {
    let log = bench.log();
    log.create(&[topic("t", 2, DELETE)])?;
    let places: Vec<_> = (0..2).map(|partition| (at(log.as_ref(), "t", partition), Start::Beginning)).collect();
    let mut reader = log.reader(&places)?;
    let (send, received) = mpsc::channel();
    let waiter = thread::spawn(move || {
        let mut records = Vec::new();
        // The wait is ten times the timeout of the case, so only a wake-up ends it in time.
        while let Ok(Polled::AtEnd | Polled::Nothing) = reader.poll(10, CASE_TIMEOUT * 10, &mut records) {}
        let _ = send.send(values(&records));
    });
    assert!(received.recv_timeout(Duration::from_millis(20)).is_err(), "there is nothing to read yet");
    write(log.as_ref(), [outgoing("t", Target::Partition(1), "k", "hello")])?;
    assert_eq!(received.recv_timeout(CASE_TIMEOUT)?, ["hello"]);
    waiter.join().map_err(|_| "the reader panicked")?;
    Ok(())
}

/// A waker ends a wait without a record.
pub fn a_waker_ends_the_wait(bench: &mut impl Bench) -> Outcome {
    let log = bench.log();
    log.create(&[topic("t", 1, DELETE)])?;
    let mut reader = log.reader(&[(at(log.as_ref(), "t", 0), Start::Beginning)])?;
    read_to_end(reader.as_mut())?;
    let wake = reader.waker();
    let (send, received) = mpsc::channel();
    let waiter = thread::spawn(move || {
        let _ = send.send(reader.poll(10, CASE_TIMEOUT * 10, &mut Vec::new()).is_ok());
    });
    wake();
    assert!(received.recv_timeout(CASE_TIMEOUT)?);
    waiter.join().map_err(|_| "the reader panicked")?;
    Ok(())
}

/// The first time that all records were read, the reader reports the end without waiting, and `at_end` agrees.
pub fn the_end_is_reported_at_once(bench: &mut impl Bench) -> Outcome {
    let log = bench.log();
    log.create(&[topic("t", 1, DELETE)])?;
    let place = at(log.as_ref(), "t", 0);
    for count in [0, 5] {
        write(log.as_ref(), (0..count).map(|n| outgoing("t", Target::ByKey, "k", &n.to_string())))?;
        let mut reader = log.reader(&[(place.clone(), Start::Beginning)])?;
        let mut records = Vec::new();
        // A wait of this length would fail the whole test run, not only this case.
        while reader.poll(1000, CASE_TIMEOUT * 10, &mut records)? != Polled::AtEnd {}
        assert_eq!(records.len(), count);
        assert!(reader.at_end(&place));
    }
    Ok(())
}

/// An error about a missing topic names the topic and the fix.
pub fn unknown_topics_are_named(bench: &mut impl Bench) -> Outcome {
    let log = bench.log();
    let name = log.full_name("nowhere");
    for error in [
        log.partitions("nowhere").err(),
        log.bounds(&at(log.as_ref(), "nowhere", 0)).err(),
        log.reader(&[(at(log.as_ref(), "nowhere", 0), Start::Beginning)]).err(),
        log.join("g", &["nowhere"]).err(),
    ] {
        let text = error.ok_or("it was taken for a topic")?.to_string();
        assert!(text.contains(&*name) && text.contains("serin topology ensure"), "{text}");
    }
    Ok(())
}
