//! Keys and encoding of the aggregator's rows.
//!
//! A key starts with the number of its table; numbers are only ever added. A value is a format byte and a `postcard`
//! body, so floats keep their bits. Numbers in keys are big-endian with the sign bit flipped, so byte order equals
//! numeric order.

use bytes::Bytes;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serin_schemas::{ids::Generation, records::Control};
use serin_spec::Rules;
use serin_stream::fold::{FoldError, Rows};

use crate::{
    counts::Counts,
    keys::{ARMS, Group, WindowKey},
};

/// First byte of every value that this build writes.
pub(crate) const FORMAT: u8 = 6;
/// Oldest format that this build reads. Format 2 has [`Table::Join`] instead of [`Table::Waiting`]. Up to format 3,
/// Control records end before [`Control::rules`], [`Counts`] ends before [`Counts::refused`], and writers and the
/// state row have no log time. Up to format 4, [`Counts`] ends before [`Counts::contradicting`]. Up to format 5 there is no
/// [`Table::Units`]. Everything else is the same.
const OLDEST: u8 = 2;
/// The first format whose Control records contain their rules version and whose counts contain every outcome.
const KNOWS_OUTCOMES: u8 = 4;
/// The first format whose counts contain labels that contradict each other.
const KNOWS_CONTRADICTIONS: u8 = 5;

/// The tables. A number is never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Table {
    /// One row: watermark, progress, sampling.
    State = 1,
    /// Model → newest generation and active rollout.
    Model = 2,
    /// Rollout, generation → Control record.
    Control = 3,
    /// Writer → sequence and clock.
    Writer = 4,
    /// Rollout → segment values learned while warming.
    Values = 5,
    /// Rollout, window, arm → counts.
    Counts = 6,
    /// Rollout, window, arm, metric → cells. Cells that do not fit into one row are in further rows whose keys end
    /// with a part number from 1.
    Cells = 7,
    /// Request → state that label metrics wait for. Read-only: format 2 wrote it.
    Join = 8,
    /// Request → values that arrived before the prediction.
    Pending = 9,
    /// Rollout, end of window, generation, chunk → requests and the state that their label metrics wait for.
    Waiting = 10,
    /// Rollout, window, arm → counts by bucket of units, where a key assigns the arm.
    Units = 11,
}

/// A key under construction.
#[derive(Clone, Debug)]
pub(crate) struct Key(Vec<u8>);

impl Key {
    pub(crate) fn new(table: Table) -> Self {
        Self(vec![table as u8])
    }

    /// The prefix of every row.
    pub(crate) fn all() -> Self {
        Self(Vec::new())
    }

    pub(crate) fn u32(mut self, number: u32) -> Self {
        self.0.extend_from_slice(&number.to_be_bytes());
        self
    }

    fn i64(mut self, number: i64) -> Self {
        self.0.extend_from_slice(&(number as u64 ^ (1 << 63)).to_be_bytes());
        self
    }

    fn byte(mut self, byte: u8) -> Self {
        self.0.push(byte);
        self
    }

    /// Appends the rest of the key as text.
    pub(crate) fn text(mut self, text: &str) -> Vec<u8> {
        self.0.extend_from_slice(text.as_bytes());
        self.0
    }

    pub(crate) fn done(self) -> Vec<u8> {
        self.0
    }
}

/// The prefix of all rows of a rollout in one table.
pub(crate) fn of_rollout(table: Table, rollout: u32) -> Key {
    Key::new(table).u32(rollout)
}

pub(crate) fn control(rollout: u32, generation: Generation) -> Vec<u8> {
    of_rollout(Table::Control, rollout).i64(generation.0).done()
}

fn window(table: Table, rollout: u32, window: &WindowKey, arm: usize) -> Key {
    let key = of_rollout(table, rollout).byte(window.stream as u8).i64(window.end.0);
    key.i64(window.generation.0).byte(arm as u8)
}

pub(crate) fn counts(rollout: u32, key: &WindowKey, arm: usize) -> Vec<u8> {
    window(Table::Counts, rollout, key, arm).done()
}

pub(crate) fn units(rollout: u32, key: &WindowKey, arm: usize) -> Vec<u8> {
    window(Table::Units, rollout, key, arm).done()
}

pub(crate) fn cells(rollout: u32, key: &WindowKey, arm: usize, metric: usize) -> Vec<u8> {
    window(Table::Cells, rollout, key, arm).u32(metric as u32).done()
}

/// The key of a further row of a metric whose cells do not fit into one row.
pub(crate) fn more_cells(rollout: u32, key: &WindowKey, arm: usize, metric: usize, part: u8) -> Vec<u8> {
    window(Table::Cells, rollout, key, arm).u32(metric as u32).byte(part).done()
}

/// The key of a chunk of the predictions that wait in a window.
pub(crate) fn chunk(group: &Group, number: u32) -> Vec<u8> {
    of_rollout(Table::Waiting, group.rollout).i64(group.end.0).i64(group.generation.0).u32(number).done()
}

pub(crate) fn pending(id: &str) -> Vec<u8> {
    Key::new(Table::Pending).text(id)
}

/// Reads a key from its start; the counterpart of [`Key`].
pub(crate) struct Parts<'a>(&'a [u8]);

impl<'a> Parts<'a> {
    /// Starts after the table's number.
    pub(crate) fn of(key: &'a [u8]) -> Self {
        Self(key.get(1..).unwrap_or_default())
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], FoldError> {
        let (head, rest) =
            self.0.split_first_chunk::<N>().ok_or_else(|| FoldError::State("the key of a row is truncated".into()))?;
        self.0 = rest;
        Ok(*head)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, FoldError> {
        self.take().map(u32::from_be_bytes)
    }

    pub(crate) fn i64(&mut self) -> Result<i64, FoldError> {
        self.take().map(|bytes| (u64::from_be_bytes(bytes) ^ (1 << 63)) as i64)
    }

    pub(crate) fn byte(&mut self) -> Result<u8, FoldError> {
        self.take().map(|[byte]| byte)
    }

    /// The next byte, if one is left.
    pub(crate) fn last(&self) -> Option<u8> {
        self.0.first().copied()
    }

    pub(crate) fn text(self) -> Result<&'a str, FoldError> {
        std::str::from_utf8(self.0).map_err(|_| FoldError::State("the key of a row is not UTF-8".into()))
    }

    /// A window and the index of an arm.
    pub(crate) fn window(&mut self) -> Result<(WindowKey, usize), FoldError> {
        use serin_schemas::ids::EventTime;
        let stream = usize::from(self.byte()?);
        let (end, generation) = (EventTime(self.i64()?), Generation(self.i64()?));
        let arm = usize::from(self.byte()?);
        if arm >= ARMS.len() {
            return Err(FoldError::State(format!("the key of a row contains the unknown arm {arm}")));
        }
        Ok((WindowKey { stream, end, generation }, arm))
    }
}

/// Encodes a value.
pub(crate) fn encode<T: Serialize>(value: &T) -> Result<Bytes, FoldError> {
    postcard::to_extend(value, vec![FORMAT])
        .map(Bytes::from)
        .map_err(|error| FoldError::State(format!("a row cannot be written: {error}")))
}

/// Appends one of several values to a row that starts with [`FORMAT`].
pub(crate) fn append<T: Serialize>(value: &T, to: Vec<u8>) -> Result<Vec<u8>, FoldError> {
    postcard::to_extend(value, to).map_err(|error| FoldError::State(format!("a row cannot be written: {error}")))
}

/// Decodes one of several values. Returns it and the remaining bytes.
pub(crate) fn take<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<(T, &'a [u8]), FoldError> {
    postcard::take_from_bytes(bytes).map_err(|error| unreadable(&error))
}

/// Decodes a value.
pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, FoldError> {
    postcard::from_bytes(body(bytes)?).map_err(|error| unreadable(&error))
}

/// Decodes a row of [`Table::Control`]: the record, and the rules under which its rollout is folded.
pub(crate) fn decode_control(bytes: &[u8]) -> Result<(Control, Rules), FoldError> {
    // Rules had no numbers yet, so both are the first; `postcard` encodes 1 as 2. The 0 in between means that nothing
    // was acknowledged.
    decode_grown(bytes, &[2, 0, 2])
}

/// Decodes a row that has grown at its end since format 3. `added` contains the bytes that older rows lack.
pub(crate) fn decode_grown<T: DeserializeOwned>(bytes: &[u8], added: &[u8]) -> Result<T, FoldError> {
    if !is_before_outcomes(bytes) {
        return decode(bytes);
    }
    postcard::from_bytes(&[body(bytes)?, added].concat()).map_err(|error| unreadable(&error))
}

/// Decodes a row of [`Table::Counts`]: the counts, and the compared answers per segment value.
pub(crate) fn decode_counts(bytes: &[u8]) -> Result<(Counts, Vec<u64>), FoldError> {
    match bytes.first() {
        Some(..KNOWS_OUTCOMES) => decode_fewer_counts::<7>(bytes),
        Some(..KNOWS_CONTRADICTIONS) => decode_fewer_counts::<12>(bytes),
        _ => decode(bytes),
    }
}

/// Decodes counts of an older format, which has only the first `N`. The others are 0.
fn decode_fewer_counts<const N: usize>(bytes: &[u8]) -> Result<(Counts, Vec<u64>), FoldError>
where
    [i64; N]: DeserializeOwned,
{
    let (known, population): ([i64; N], _) = decode(bytes)?;
    let mut all = [0; 13];
    all[..N].copy_from_slice(&known);
    let [predictions, excluded, errors, invalid, late, lost, labelled, rest @ ..] = all;
    let [refused, redirected, unread, cancelled, left, contradicting] = rest;
    let counts = Counts {
        predictions,
        excluded,
        errors,
        invalid,
        late,
        lost,
        labelled,
        refused,
        redirected,
        unread,
        cancelled,
        left,
        contradicting,
    };
    Ok((counts, population))
}

fn is_before_outcomes(bytes: &[u8]) -> bool {
    bytes.first().is_some_and(|&format| format < KNOWS_OUTCOMES)
}

fn unreadable(error: &postcard::Error) -> FoldError {
    FoldError::State(format!("a row of the aggregator is unreadable: {error}; {REBUILD}"))
}

/// The bytes after the format byte.
pub(crate) fn body(bytes: &[u8]) -> Result<&[u8], FoldError> {
    let fix = match bytes.split_first() {
        Some((OLDEST..=FORMAT, body)) => return Ok(body),
        Some((..OLDEST, _)) => "let the rollouts end under the version that wrote it, or",
        Some(_) => "run the version that wrote it, or a newer one, or",
        None => return Err(FoldError::State(format!("a row of the aggregator is empty; {REBUILD}"))),
    };
    Err(FoldError::State(format!(
        "a row of the aggregator has format {}, this build reads {OLDEST} to {FORMAT}; {fix} {REBUILD}",
        bytes[0]
    )))
}

/// Recovery that always works, because rows are a cache of `events`.
const REBUILD: &str = "delete the topic `aggregator-changelog`, the consumer group `aggregator` and the state directory; \
                       the aggregator then reads `events` again from the earliest retained record";

/// Whether rows of this format can be read. The first byte of a row is its format.
pub(crate) fn is_known(row: &[u8]) -> bool {
    row.first().is_none_or(|format| (OLDEST..=FORMAT).contains(format))
}

/// Every row of a table, or of one rollout in it.
pub(crate) fn scan(rows: &dyn Rows, prefix: Key) -> Result<Vec<(Bytes, Bytes)>, FoldError> {
    rows.scan(&prefix.done())
}

/// Visits every row of a table, one at a time.
pub(crate) fn each(
    rows: &dyn Rows,
    prefix: Key,
    mut visit: impl FnMut(Bytes, Bytes) -> Result<(), FoldError>,
) -> Result<(), FoldError> {
    let mut outcome = Ok(());
    rows.visit(&prefix.done(), &mut |key, value| {
        outcome = visit(key, value);
        outcome.is_ok()
    })?;
    outcome
}

/// Removes every row whose key starts with this prefix.
pub(crate) fn delete_all(rows: &mut dyn Rows, prefix: Key) -> Result<(), FoldError> {
    for (key, _) in scan(rows, prefix)? {
        rows.delete(&key);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serin_schemas::ids::EventTime;

    #[test]
    fn keys_sort_like_their_numbers_and_read_back() {
        let key = |end: i64| WindowKey { stream: 1, end: EventTime(end), generation: Generation(-3) };
        let keys: Vec<Vec<u8>> = [-5_000_000_000, -1, 0, 7, 9_000_000_000].map(|end| counts(9, &key(end), 2)).into();
        assert!(keys.is_sorted());
        let mut parts = Parts::of(&keys[1]);
        assert_eq!(parts.u32().unwrap(), 9);
        assert_eq!(parts.window().unwrap(), (key(-1), 2));
        assert!(parts.byte().is_err());
    }

    #[test]
    fn golden_key_and_value() {
        let window = WindowKey { stream: 1, end: EventTime(10_000_000), generation: Generation(2) };
        assert_eq!(
            cells(3, &window, 2, 4),
            [7, 0, 0, 0, 3, 1, 128, 0, 0, 0, 0, 152, 150, 128, 128, 0, 0, 0, 0, 0, 0, 2, 2, 0, 0, 0, 4]
        );
        let counts = (Counts { predictions: 5, errors: 1, ..Counts::default() }, vec![3]);
        let bytes = [6, 10, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 3];
        assert_eq!(encode(&counts).unwrap()[..], bytes);
        assert_eq!(decode_counts(&bytes).unwrap(), counts);
        assert_eq!(decode_counts(&[&[5], &bytes[1..]].concat()).unwrap(), counts);
        assert_eq!(decode_counts(&[4, 10, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 3]).unwrap(), counts);
        let text = decode_counts(&[1, 0]).unwrap_err().to_string();
        assert!(text.contains("has format 1, this build reads 2 to 6"), "{text}");
        for format in [2, 3] {
            assert_eq!(decode_counts(&[format, 10, 0, 2, 0, 0, 0, 0, 1, 3]).unwrap(), counts);
        }
        for format in 2..=6 {
            assert!(decode_counts(&[format, 0]).is_err());
        }
    }
}
