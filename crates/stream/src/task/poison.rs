//! Dead letters for records that a fold cannot use, and a circuit breaker against a bad deploy.

use std::collections::VecDeque;

use serin_schemas::{codec::EncodeError, envelope::Envelope, ids::EventTime, records::DeadLetter};
use serin_topology::DEAD_LETTERS;

use crate::{
    fold::Poison,
    record::{Outgoing, Record, Target},
};

/// Longest original value that is kept, as documented for `DeadLetter::value`: 1 MiB.
const MAX_VALUE: usize = 1 << 20;
/// Longest original key that is kept. Keys of Serin have a few dozen bytes.
const MAX_KEY: usize = 4 << 10;
/// Longest message that is kept.
const MAX_MESSAGE: usize = 4 << 10;

/// The limit of unusable records: at most `most` among the `last` ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoisonLimit {
    /// Number of records examined.
    pub last: usize,
    /// Maximum number of unusable records among them.
    pub most: usize,
}

impl Default for PoisonLimit {
    /// Half of a thousand: a broken writer among many healthy ones does not stop a stage, but an incompatible deploy
    /// does. Only codes for which [`is_bad_deploy`](crate::fold::FoldFactory::is_bad_deploy) returns true are
    /// counted.
    fn default() -> Self {
        Self { last: 1000, most: 500 }
    }
}

/// Counts the unusable records among the last ones.
#[derive(Debug)]
pub(super) struct Breaker {
    limit: PoisonLimit,
    seen: VecDeque<bool>,
    bad: usize,
}

impl Breaker {
    pub(super) fn new(limit: PoisonLimit) -> Self {
        Self { limit, seen: VecDeque::with_capacity(limit.last), bad: 0 }
    }

    /// Adds a record. Returns the number of unusable records if there are too many.
    pub(super) fn note(&mut self, bad: bool) -> Option<usize> {
        if self.seen.len() >= self.limit.last && self.seen.pop_front() == Some(true) {
            self.bad -= 1;
        }
        self.seen.push_back(bad);
        self.bad += usize::from(bad);
        (self.bad > self.limit.most).then_some(self.bad)
    }
}

/// Creates the dead letter of `record`, without its bytes if `bare` is set.
pub(super) fn dead_letter(stage: &str, record: &Record, poison: &Poison, bare: bool) -> Result<Outgoing, EncodeError> {
    let cut = |bytes: &[u8], limit: usize| bytes[..bytes.len().min(if bare { 0 } else { limit })].to_vec();
    let mut message = poison.message.clone();
    message.truncate((0..=MAX_MESSAGE).rev().find(|&end| message.is_char_boundary(end)).unwrap_or(0));
    let letter = DeadLetter {
        stage: stage.to_owned(),
        topic: record.at.topic.to_string(),
        partition: record.at.partition,
        offset: record.offset,
        code: poison.code.to_string(),
        message,
        key: cut(&record.key, MAX_KEY),
        value: cut(record.value.as_deref().unwrap_or_default(), MAX_VALUE),
    };
    let source = format!("{}[{}]", record.at.topic, record.at.partition);
    let envelope = Envelope {
        id: &format!("{source}@{}", record.offset),
        source: &format!("/stages/{stage}"),
        subject: &source,
        time: EventTime(record.timestamp_ms.saturating_mul(1000)),
    };
    Outgoing::record(DEAD_LETTERS, Target::ByKey, source.clone(), &letter, &envelope)
}

#[cfg(test)]
mod tests {
    use serin_schemas::codec;

    use super::*;
    use crate::record::{Headers, TopicPartition};

    #[test]
    fn the_breaker_examines_only_the_last_records() {
        let mut breaker = Breaker::new(PoisonLimit { last: 10, most: 2 });
        assert_eq!(breaker.note(true), None);
        for _ in 0..9 {
            assert_eq!(breaker.note(false), None);
        }
        assert_eq!(breaker.note(true), None, "the first one is no longer among the last records");
        assert_eq!(breaker.note(true), None);
        assert_eq!(breaker.note(true), Some(3));
    }

    #[test]
    fn a_dead_letter_keeps_place_reason_and_bytes() {
        let record = Record {
            at: TopicPartition::new("x.events", 3),
            offset: 41,
            timestamp_ms: 5,
            key: "k".into(),
            value: Some(vec![7; MAX_VALUE + 1].into()),
            headers: Headers::default(),
        };
        let poison = Poison { code: serin_schemas::Code::Garbage, message: "not Avro".into() };
        let outgoing = dead_letter("aggregator", &record, &poison, false).unwrap();
        let letter: DeadLetter = codec::read(&outgoing.headers, outgoing.value.as_deref().unwrap()).unwrap();
        assert_eq!((letter.topic.as_str(), letter.partition, letter.offset), ("x.events", 3, 41));
        assert_eq!((letter.code.as_str(), letter.message.as_str()), ("garbage", "not Avro"));
        assert_eq!((letter.key.as_slice(), letter.value.len()), (b"k".as_slice(), MAX_VALUE));
        assert_eq!(outgoing.key, "x.events[3]");
    }
}
