//! Writing without transactions, topics, and compaction.

use std::collections::BTreeMap;

use serin_topology::Cleanup;

use super::{Bench, CASE_TIMEOUT, DELETE, Outcome, at, outgoing, read_all, topic, values, write};
use crate::{
    log::{Start, WriteError},
    partition_of,
    record::{Outgoing, Target},
};

/// `ByKey` uses Kafka's own partitioner, and `EveryPartition` writes a copy to each partition.
pub fn keys_go_where_kafka_sends_them(bench: &mut impl Bench) -> Outcome {
    let log = bench.log();
    log.create(&[topic("t", 5, DELETE)])?;
    assert_eq!(log.partitions("t")?, 5);
    let keys = ["", "a", "flights", "fraud", "0192f0c1-7a9e", "k5", "k6", "k7"];
    write(log.as_ref(), keys.map(|key| outgoing("t", Target::ByKey, key, key)))?;
    write(log.as_ref(), [outgoing("t", Target::EveryPartition, "all", "copy")])?;
    for partition in 0..5 {
        let mut expected: Vec<_> =
            keys.into_iter().filter(|key| partition_of(key.as_bytes(), 5) == partition).collect();
        expected.push("copy");
        assert_eq!(values(&read_all(log.as_ref(), "t", partition)?), expected, "partition {partition}");
    }
    Ok(())
}

/// A full queue is reported at once. Accepted records reach the log, and rejected ones do not.
pub fn a_full_queue_never_blocks(bench: &mut impl Bench) -> Outcome {
    let log = bench.log();
    log.create(&[topic("t", 1, DELETE)])?;
    let writer = log.writer(4)?;
    let (mut taken, mut refused) = (Vec::new(), 0);
    for n in 0..200_000 {
        let value = n.to_string();
        match writer.send(outgoing("t", Target::ByKey, "k", &value)) {
            Ok(()) => taken.push(value),
            Err(error) => {
                assert_eq!(error, WriteError::QueueFull);
                refused += 1;
            }
        }
        if refused > 10 {
            break;
        }
    }
    assert!(refused > 10, "a queue of four took everything");
    writer.flush(CASE_TIMEOUT)?;
    assert_eq!(writer.failed(), 0);
    assert_eq!(values(&read_all(log.as_ref(), "t", 0)?), taken);
    Ok(())
}

/// Records that the log cannot accept are rejected when they are sent.
pub fn unwritable_records_are_refused(bench: &mut impl Bench) -> Outcome {
    let log = bench.log();
    log.create(&[topic("t", 2, DELETE)])?;
    let writer = log.writer(10)?;
    assert_eq!(writer.send(outgoing("nowhere", Target::ByKey, "k", "v")), Err(WriteError::Closed));
    assert_eq!(writer.send(outgoing("t", Target::Partition(2), "k", "v")), Err(WriteError::Closed));
    let large = Outgoing { value: Some(vec![b'x'; 10 << 20].into()), ..outgoing("t", Target::Partition(0), "k", "") };
    assert_eq!(writer.send(large), Err(WriteError::TooLarge));
    writer.send(outgoing("t", Target::Partition(0), "k", "fits"))?;
    writer.flush(CASE_TIMEOUT)?;
    assert_eq!(values(&read_all(log.as_ref(), "t", 0)?), ["fits"]);
    Ok(())
}

/// Creating an existing topic has no effect. Missing topics are left out of the description.
pub fn topics_are_created_once(bench: &mut impl Bench) -> Outcome {
    let log = bench.log();
    let mut first = topic("a", 2, DELETE);
    first.settings.push(("max.message.bytes".into(), "2000000".into()));
    log.create(std::slice::from_ref(&first))?;
    log.create(&[topic("a", 7, DELETE), topic("b", 1, Cleanup::Compact)])?;
    let found = log.describe(&["a", "b", "c"])?;
    assert_eq!(
        found.iter().map(|spec| (spec.name.as_str(), spec.partitions)).collect::<Vec<_>>(),
        [("a", 2), ("b", 1)]
    );
    assert_eq!((found[0].cleanup, found[1].cleanup), (DELETE, Cleanup::Compact));
    let limit = ("max.message.bytes".to_owned(), "2000000".to_owned());
    assert!(found[0].settings.contains(&limit), "{:?}", found[0].settings);
    Ok(())
}

/// After compaction the newest value of each key is present, at its offset and in order. Keys with a tombstone are
/// not.
pub fn compaction_keeps_the_newest(bench: &mut impl Bench) -> Outcome {
    let log = bench.log();
    log.create(&[topic("t", 1, Cleanup::Compact)])?;
    let upserts = (0..500).map(|n| outgoing("t", Target::ByKey, &format!("k{}", n % 7), &n.to_string()));
    let tombstone = Outgoing { value: None, ..outgoing("t", Target::ByKey, "k3", "") };
    write(log.as_ref(), upserts.chain([tombstone, outgoing("t", Target::ByKey, "last", "x")]))?;
    let compacted = bench.compact();
    let records = read_all(log.as_ref(), "t", 0)?;
    assert!(records.is_sorted_by(|a, b| a.offset < b.offset));
    assert!(!compacted || records.len() <= 8, "{} records are left", records.len());
    let mut newest = BTreeMap::new();
    for record in records {
        newest.insert(record.key, record.value);
    }
    newest.retain(|_, value| value.is_some());
    let expected =
        [("k0", "497"), ("k1", "498"), ("k2", "499"), ("k4", "494"), ("k5", "495"), ("k6", "496"), ("last", "x")];
    let expected = expected.map(|(key, value)| (key.into(), Some(value.into())));
    assert_eq!(newest.into_iter().collect::<Vec<_>>(), expected);
    let (_, end) = log.bounds(&at(log.as_ref(), "t", 0))?;
    let mut reader = log.reader(&[(at(log.as_ref(), "t", 0), Start::At(end))])?;
    assert!(super::read_to_end(reader.as_mut())?.is_empty());
    Ok(())
}

/// Topics, records, positions and epochs survive a restart, and offsets continue.
pub fn written_data_survives_a_restart(bench: &mut impl Bench) -> Outcome {
    let log = bench.log();
    log.create(&[topic("t", 2, DELETE)])?;
    write(log.as_ref(), (0..100).map(|n| outgoing("t", Target::Partition(1), "k", &n.to_string())))?;
    log.transactional("owner")?.commit(&[outgoing("t", Target::Partition(1), "k", "100")], &[], None)?;
    let before = read_all(log.as_ref(), "t", 1)?;
    let (_, end) = log.bounds(&at(log.as_ref(), "t", 1))?;
    drop(log);
    if !bench.restart() {
        return Ok(());
    }
    let log = bench.log();
    let mut described = log.describe(&["t"])?;
    // A log may return settings that were not requested.
    for topic in &mut described {
        topic.settings.clear();
    }
    assert_eq!(described, [topic("t", 2, DELETE)]);
    assert_eq!(read_all(log.as_ref(), "t", 1)?, before);
    log.transactional("owner")?.commit(&[outgoing("t", Target::Partition(1), "k", "101")], &[], None)?;
    let after = read_all(log.as_ref(), "t", 1)?;
    assert_eq!((after.len(), after[101].offset), (102, end.0));
    Ok(())
}
