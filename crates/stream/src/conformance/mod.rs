//! Conformance tests for every [`Log`]: the same cases for the simulated log, the embedded log and Kafka.
//!
//! A test crate calls [`conformance!`](macro@crate::conformance) with an expression that creates a [`Bench`]. Each
//! case becomes one test. No case measures time: each waits for a condition, for at most [`CASE_TIMEOUT`].

#![expect(clippy::missing_panics_doc, reason = "a case is a test: it asserts")]

pub mod counting;
pub mod groups;
pub mod reading;
pub mod tasks;
pub mod transactions;
pub mod writing;

use std::{
    any::Any,
    error::Error,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use serin_topology::{Cleanup, TopicSpec};

use crate::{
    log::{Log, Polled, Reader, Start},
    record::{Headers, Outgoing, Record, Target, TopicPartition},
};

/// The timeout of a case. It is long for slow machines; a passing test does not wait for it.
pub const CASE_TIMEOUT: Duration = Duration::from_mins(1);

/// The result of a case.
pub type Outcome = Result<(), Box<dyn Error>>;

/// A log under test, with its own topics.
pub trait Bench {
    /// Returns the log under test.
    fn log(&self) -> Arc<dyn Log>;

    /// Closes the log and reopens it with its persisted data. Returns false if the log persists nothing or runs
    /// elsewhere.
    fn restart(&mut self) -> bool {
        false
    }

    /// Compacts the log now. Returns false if the log decides itself when to compact.
    fn compact(&self) -> bool {
        false
    }

    /// Starts a transaction under `id`, writes `value` to `topic` and leaves it open for as long as the returned
    /// value lives. `None`: the log has no open transactions, because a commit is a single write.
    fn open_transaction(&self, id: &str, topic: &str, value: &str) -> Option<Box<dyn Any>> {
        let _ = (id, topic, value);
        None
    }
}

/// Creates one test for each case. The expression creates a new [`Bench`].
#[macro_export]
macro_rules! conformance {
    ($bench:expr) => {
        $crate::conformance!(@cases $bench;
            reading: order_per_partition, records_come_back_as_written, starting_places, a_position_outside_is_an_error,
                a_waiting_reader_wakes, a_waker_ends_the_wait, the_end_is_reported_at_once, unknown_topics_are_named;
            writing: keys_go_where_kafka_sends_them, a_full_queue_never_blocks, unwritable_records_are_refused,
                topics_are_created_once, compaction_keeps_the_newest, written_data_survives_a_restart;
            transactions: a_commit_is_atomic, positions_move_with_it, a_newer_owner_fences, aborted_transactions_are_invisible,
                open_transactions_are_invisible;
            groups: one_member_gets_all, revoked_before_assigned, partitions_of_a_leaver_are_reassigned;
            tasks: exactly_once_through_any_fault, restores_without_a_store, poison_becomes_a_dead_letter,
                unwritable_records_are_dead_lettered,
                several_inputs_one_checkpoint, stages_hand_over, a_lost_membership_is_not_ready,
                a_stage_names_wrong_topics;
        );
    };
    (@cases $bench:expr; $($module:ident: $($case:ident),+;)+) => {
        $(mod $module {
            #[allow(unused_imports, reason = "the expression may name what its module imports")]
            use super::*;
            $(#[test]
            fn $case() -> $crate::conformance::Outcome {
                $crate::conformance::$module::$case(&mut $bench)
            })+
        })+
    };
}

/// Creates a topic for the cases.
pub fn topic(name: &str, partitions: i32, cleanup: Cleanup) -> TopicSpec {
    TopicSpec { name: name.to_owned(), partitions, replication: 1, cleanup, settings: Vec::new() }
}

/// A retention of one day, longer than any test.
pub const DELETE: Cleanup = Cleanup::Delete { retention_ms: 86_400_000 };

/// Creates a record for the cases.
pub fn outgoing(topic: &'static str, target: Target, key: &str, value: &str) -> Outgoing {
    Outgoing {
        topic,
        target,
        key: Bytes::copy_from_slice(key.as_bytes()),
        value: Some(Bytes::copy_from_slice(value.as_bytes())),
        headers: Headers::default(),
        timestamp_ms: None,
    }
}

/// Writes records without a transaction and waits until they are on the log.
pub fn write(log: &dyn Log, records: impl IntoIterator<Item = Outgoing>) -> Outcome {
    let writer = log.writer(100_000)?;
    for record in records {
        writer.send(record)?;
    }
    Ok(writer.flush(CASE_TIMEOUT)?)
}

/// One partition of a topic, by the topic's name without prefix.
pub fn at(log: &dyn Log, topic: &str, partition: i32) -> TopicPartition {
    TopicPartition { topic: log.full_name(topic), partition }
}

/// All committed records of a partition, from its start to its end.
pub fn read_all(log: &dyn Log, topic: &str, partition: i32) -> Result<Vec<Record>, Box<dyn Error>> {
    let mut reader = log.reader(&[(at(log, topic, partition), Start::Beginning)])?;
    read_to_end(reader.as_mut())
}

/// Reads everything up to the end of all partitions of a reader.
pub fn read_to_end(reader: &mut dyn Reader) -> Result<Vec<Record>, Box<dyn Error>> {
    let mut records = Vec::new();
    let deadline = Instant::now() + CASE_TIMEOUT;
    while reader.poll(1000, Duration::from_millis(100), &mut records)? != Polled::AtEnd {
        if Instant::now() > deadline {
            return Err("the end was not reached in time".into());
        }
    }
    Ok(records)
}

/// Reads until there are `count` records.
pub fn read_count(reader: &mut dyn Reader, count: usize) -> Result<Vec<Record>, Box<dyn Error>> {
    let mut records = Vec::new();
    let deadline = Instant::now() + CASE_TIMEOUT;
    while records.len() < count {
        reader.poll(1000, Duration::from_millis(100), &mut records)?;
        if Instant::now() > deadline {
            return Err(format!("{} records instead of {count} in time", records.len()).into());
        }
    }
    Ok(records)
}

/// Waits for a condition.
pub fn until(what: &str, mut holds: impl FnMut() -> bool) -> Outcome {
    let deadline = Instant::now() + CASE_TIMEOUT;
    while !holds() {
        if Instant::now() > deadline {
            return Err(format!("not in time: {what}").into());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// The values of records, as text.
pub fn values(records: &[Record]) -> Vec<String> {
    let text = |bytes: &Bytes| String::from_utf8_lossy(bytes).into_owned();
    records.iter().map(|record| record.value.as_ref().map_or_else(|| "-".to_owned(), text)).collect()
}
