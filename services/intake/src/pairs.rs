//! Pairs the request and the response of a call that a payload logger sent as two events.
//!
//! Invariants:
//! - What waits is in rows, so a pair is also found when a restart falls between its parts.
//! - A pair is relayed once. A part that arrives again is dropped, also after its pair was relayed.
//! - A part waits for at most the configured time of the log, and at most the configured number of calls wait. What ends without its other
//!   part is returned, so that it can be dead-lettered. It never becomes an answer.

use std::collections::VecDeque;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serin_doors::half::{Half, pair};
use serin_schemas::{foreign::Bounds, records::Prediction};
use serin_stream::{
    fold::{FoldError, Poison, Rows},
    record::Record,
};

use crate::{incoming::all, rows};

/// Prefix of the rows of calls.
const PREFIX: &[u8] = b"half/";

/// The row of a call. Its stored form is version 4 of the rows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Row {
    /// Log time at which the first part arrived, in microseconds.
    since: i64,
    /// Where the first part was read.
    at: At,
    /// The first part as on a topic; `None` once the pair was relayed.
    half: Option<Vec<u8>>,
}

/// The position of a record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct At {
    pub(crate) topic: String,
    pub(crate) partition: i32,
    pub(crate) offset: i64,
}

/// A part of a call whose other part did not arrive.
#[derive(Debug)]
pub(crate) struct Lone {
    pub(crate) half: Bytes,
    pub(crate) at: At,
}

/// What became of a part.
#[derive(Debug)]
pub(crate) enum Taken {
    /// It waits for its other part.
    Waits,
    /// It is known already.
    Repeated,
    /// Its other part had arrived.
    Paired(Box<Prediction>),
}

/// The calls of one partition that wait for a part, or were paired recently.
#[derive(Debug)]
pub(crate) struct Pairs {
    within: i64,
    most: usize,
    /// Newest log time, in microseconds.
    now: i64,
    /// The keys of all rows with the time of their first part, oldest first.
    order: VecDeque<(i64, Vec<u8>)>,
}

impl Pairs {
    pub(crate) fn new(within: i64, most: usize) -> Self {
        Self { within, most, now: 0, order: VecDeque::new() }
    }

    pub(crate) fn open(&mut self, rows: &dyn Rows) -> Result<(), FoldError> {
        let mut order = Vec::new();
        for (key, value) in rows.scan(PREFIX)? {
            order.push((rows::decode::<Row>(&value)?.since, key.to_vec()));
        }
        order.sort_unstable();
        self.now = order.last().map_or(0, |(since, _)| *since);
        self.order = order.into();
        Ok(())
    }

    /// Advances the log's time, and returns what has waited for too long.
    pub(crate) fn advance(&mut self, logged: i64, rows: &mut dyn Rows) -> Result<Vec<Lone>, FoldError> {
        self.now = self.now.max(logged);
        let mut lone = Vec::new();
        while let Some((since, key)) = self.order.front() {
            if self.order.len() <= self.most && since.saturating_add(self.within) > self.now {
                break;
            }
            if let Some(row) = rows.get(key)? {
                let Row { at, half, .. } = rows::decode(&row)?;
                lone.extend(half.map(|half| Lone { half: half.into(), at }));
                rows.delete(key);
            }
            self.order.pop_front();
        }
        Ok(lone)
    }

    /// Takes a part that was read from `record`.
    pub(crate) fn take(
        &mut self,
        half: &Half,
        record: &Record,
        bounds: &Bounds,
        rows: &mut dyn Rows,
    ) -> Result<Result<Taken, Poison>, FoldError> {
        let key = [PREFIX, half.key().as_bytes()].concat();
        let Some(row) = rows.get(&key)? else {
            let at = At { topic: record.at.topic.to_string(), partition: record.at.partition, offset: record.offset };
            let row = Row { since: self.now, at, half: Some(half.encode()) };
            rows.put(&key, rows::encode(&row)?);
            self.order.push_back((self.now, key));
            return Ok(Ok(Taken::Waits));
        };
        let mut row: Row = rows::decode(&row)?;
        let Some(first) = &row.half else { return Ok(Ok(Taken::Repeated)) };
        let first = match Half::decode(first, bounds) {
            Ok(first) if first.part == half.part => return Ok(Ok(Taken::Repeated)),
            Ok(first) => first,
            Err(problems) => return Ok(Err(all(problems))),
        };
        let (request, response) = match half.part {
            serin_doors::half::Part::Request => (half, &first),
            serin_doors::half::Part::Response => (&first, half),
        };
        Ok(match pair(request, response, bounds) {
            Ok(prediction) => {
                row.half = None;
                rows.put(&key, rows::encode(&row)?);
                Ok(Taken::Paired(Box::new(prediction)))
            }
            Err(problems) => Err(all(problems)),
        })
    }

    /// Approximate bytes of memory.
    pub(crate) fn bytes(&self) -> usize {
        self.order.iter().map(|(_, key)| key.len() + 48).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_bytes_of_a_row() {
        let at = At { topic: "predictions".to_owned(), partition: 2, offset: 7 };
        let row = Row { since: 1, at, half: Some(b"{}".to_vec()) };
        let golden = b"\x04\x02\x0bpredictions\x04\x0e\x01\x02{}";
        assert_eq!(rows::encode(&row).unwrap()[..], golden[..]);
        assert_eq!(rows::decode::<Row>(golden).unwrap(), row);
    }
}
