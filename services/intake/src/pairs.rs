//! Pairs the request and the response of a call that a payload logger sent as two events.
//!
//! Invariants:
//! - What waits is in rows, so a pair is also found when a restart falls between its parts.
//! - A pair is relayed once. A part that arrives again is dropped, also after its pair was relayed.
//! - A part waits for the configured time of the log. That time does not begin before the task has started and read the part: after an
//!   outage, its other part may still be in the backlog of another partition, whose task sends it on with the time of now.
//! - At most the configured number of calls are in memory. Above it, calls that are paired end before calls that wait. What ends without
//!   its other part is returned, so that it can be dead-lettered. It never becomes an answer.

use std::collections::BTreeSet;

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
    /// When the first part arrived, in microseconds: its log time, or the time of the task if that is later.
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
    /// How long it waited, in microseconds.
    pub(crate) waited: i64,
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

/// The row of a call in the order of its first part: when it arrived, its offset, and the key of the row.
type Place = (i64, i64, Vec<u8>);

/// The calls of one partition that wait for a part, or were paired recently.
#[derive(Debug)]
pub(crate) struct Pairs {
    within: i64,
    most: usize,
    /// Newest log time, in microseconds.
    now: i64,
    /// Time of the first tick, in microseconds. `None`: no tick yet, so no part waits for too long.
    opened: Option<i64>,
    /// Time of the last tick, in microseconds.
    ticked: i64,
    /// The calls that wait.
    waiting: BTreeSet<Place>,
    /// The calls that were paired. Their rows show that a part arrives again.
    paired: BTreeSet<Place>,
}

impl Pairs {
    /// `is_live`: whether ticks tell the time. Otherwise only the log does.
    pub(crate) fn new(within: i64, most: usize, is_live: bool) -> Self {
        let (waiting, paired) = (BTreeSet::new(), BTreeSet::new());
        Self { within, most, now: 0, opened: (!is_live).then_some(0), ticked: 0, waiting, paired }
    }

    pub(crate) fn open(&mut self, rows: &dyn Rows) -> Result<(), FoldError> {
        for (key, value) in rows.scan(PREFIX)? {
            let Row { since, at, half } = rows::decode(&value)?;
            let list = if half.is_some() { &mut self.waiting } else { &mut self.paired };
            list.insert((since, at.offset, key.to_vec()));
        }
        Ok(())
    }

    /// Notes the time of a tick, in microseconds.
    pub(crate) fn tick(&mut self, now: i64) {
        self.opened.get_or_insert(now);
        self.ticked = self.ticked.max(now);
    }

    /// Advances the log's time, and returns what has waited for too long.
    pub(crate) fn advance(&mut self, logged: i64, rows: &mut dyn Rows) -> Result<Vec<Lone>, FoldError> {
        self.now = self.now.max(logged);
        let mut lone = Vec::new();
        while let Some(key) = self.ended() {
            if let Some(row) = rows.get(&key)? {
                let Row { at, half, since } = rows::decode(&row)?;
                let waited = self.now.saturating_sub(since).max(0);
                lone.extend(half.map(|half| Lone { half: half.into(), at, waited }));
                rows.delete(&key);
            }
        }
        Ok(lone)
    }

    /// Removes the next call that ends, and returns the key of its row.
    fn ended(&mut self) -> Option<Vec<u8>> {
        let is_full = self.waiting.len() + self.paired.len() > self.most;
        let opened = self.opened.unwrap_or(i64::MAX);
        let end = self.now.saturating_sub(self.within);
        for list in [&mut self.paired, &mut self.waiting] {
            if list.first().is_some_and(|(since, ..)| is_full || opened.max(*since) <= end) {
                return list.pop_first().map(|(_, _, key)| key);
            }
        }
        None
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
            let row = Row { since: self.now.max(self.ticked), at, half: Some(half.encode()) };
            rows.put(&key, rows::encode(&row)?);
            self.waiting.insert((row.since, row.at.offset, key));
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
            serin_doors::cloud::Part::Request => (half, &first),
            serin_doors::cloud::Part::Response => (&first, half),
        };
        Ok(match pair(request, response, bounds) {
            Ok(prediction) => {
                row.half = None;
                rows.put(&key, rows::encode(&row)?);
                let place = (row.since, row.at.offset, key);
                self.waiting.remove(&place);
                self.paired.insert(place);
                Ok(Taken::Paired(Box::new(prediction)))
            }
            Err(problems) => Err(all(problems)),
        })
    }

    /// Approximate bytes of memory.
    pub(crate) fn bytes(&self) -> usize {
        self.waiting.iter().chain(&self.paired).map(|(_, _, key)| key.len() + 64).sum()
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
