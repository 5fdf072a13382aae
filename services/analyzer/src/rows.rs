//! Keys and bytes of the analyzer's rows.
//!
//! The key of a rollout's row is `r`, the rollout's id, a zero byte, and then one of: `a` the head, `c` one metric's clusters,
//! `g` what warm-up saw and how many calls fail now, `h` one hypothesis, `n` one of its latest windows (`g` and `n` since rules version 2),
//! `l` the planned looks of one hypothesis and `s` control's past in its strata (only where the spec asks for them), `k` what units
//! have added to the checks of calls and `u` to one hypothesis (where a key assigns the arm), `w` one warm-up summary, `z` one pending partial window. So all rows of a rollout
//! share a prefix and are deleted together. Values are a format byte and a `postcard` body, so that floats keep their bits.

use bytes::Bytes;
use serde::{Serialize, de::DeserializeOwned};
use serin_schemas::{
    codec, envelope,
    ids::RolloutId,
    records::{Segment, WindowClosed},
};
use serin_stream::{fold::FoldError, record::Record};

use crate::{
    head::{Head, OldCounts, OutcomeCounts},
    window::WindowKey,
};

/// First byte of every row that is written. Format 1 had hypotheses without limits, memories and new classes.
const FORMAT: u8 = 6;
/// Oldest format that is read. Heads of format 2 end before [`crate::head::Head::began`]. Heads up to format 3 count four
/// outcomes fewer, see [`OldCounts`], and do not contain their rules. Heads of format 4 do not count labels that contradict each other,
/// see [`OutcomeCounts`]. Up to format 5 there is no [`Kind::CallUnits`]. Everything else is the same.
const OLDEST: u8 = 2;
/// The first format whose heads count every outcome.
const COUNTS_OUTCOMES: u8 = 4;
/// The first format whose heads count labels that contradict each other.
const COUNTS_CONTRADICTIONS: u8 = 5;

/// Prefix of all rows that hold the progress of the partitions of `events`.
pub(crate) const PROGRESS: &[u8] = b"p";
/// Prefix of all rows with the unheard writers of a partition of `events`; there is no row if all were heard.
pub(crate) const UNHEARD: &[u8] = b"q";
/// Prefix of all rows of all rollouts.
pub(crate) const ROLLOUTS: &[u8] = b"r";

/// The kind of a rollout's row: the byte after the id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Head,
    Cluster,
    Guards,
    Hypothesis,
    CallUnits,
    Latest,
    Looks,
    Strata,
    Units,
    WarmUp,
    Partial,
}

impl Kind {
    fn byte(self) -> u8 {
        match self {
            Self::Head => b'a',
            Self::Cluster => b'c',
            Self::Guards => b'g',
            Self::Hypothesis => b'h',
            Self::CallUnits => b'k',
            Self::Latest => b'n',
            Self::Looks => b'l',
            Self::Strata => b's',
            Self::Units => b'u',
            Self::WarmUp => b'w',
            Self::Partial => b'z',
        }
    }

    fn of(byte: u8) -> Option<Self> {
        use Kind::{CallUnits, Cluster, Guards, Head, Hypothesis, Latest, Looks, Partial, Strata, Units, WarmUp};
        let all = [Head, Cluster, Guards, Hypothesis, CallUnits, Latest, Looks, Strata, Units, WarmUp, Partial];
        all.into_iter().find(|kind| kind.byte() == byte)
    }
}

/// Key of a partition's progress.
pub(crate) fn progress(partition: i32) -> Vec<u8> {
    [PROGRESS, &partition.to_be_bytes()].concat()
}

/// Key of the unheard writers of a partition.
pub(crate) fn unheard(partition: i32) -> Vec<u8> {
    [UNHEARD, &partition.to_be_bytes()].concat()
}

/// Prefix of all rows of a rollout.
pub(crate) fn rollout(id: &RolloutId) -> Vec<u8> {
    [ROLLOUTS, id.as_str().as_bytes(), &[0]].concat()
}

fn of_kind(id: &RolloutId, kind: Kind) -> Vec<u8> {
    let mut key = rollout(id);
    key.push(kind.byte());
    key
}

/// Key of a rollout's head.
pub(crate) fn head(id: &RolloutId) -> Vec<u8> {
    of_kind(id, Kind::Head)
}

/// Key of one metric's clusters.
pub(crate) fn cluster(id: &RolloutId, metric: usize) -> Vec<u8> {
    let mut key = of_kind(id, Kind::Cluster);
    key.extend((metric as u32).to_be_bytes());
    key
}

/// Key of one hypothesis of a rollout.
pub(crate) fn hypothesis(id: &RolloutId, index: usize) -> Vec<u8> {
    let mut key = of_kind(id, Kind::Hypothesis);
    key.extend((index as u32).to_be_bytes());
    key
}

/// Key of what keeps a rollout from taking a step.
pub(crate) fn guards(id: &RolloutId) -> Vec<u8> {
    of_kind(id, Kind::Guards)
}

/// Key of what units have added to the checks of calls.
pub(crate) fn call_units(id: &RolloutId) -> Vec<u8> {
    of_kind(id, Kind::CallUnits)
}

/// Key of one of the latest windows of one hypothesis, or of the windows of its failure.
pub(crate) fn latest(id: &RolloutId, index: usize, place: u8) -> Vec<u8> {
    let mut key = of_kind(id, Kind::Latest);
    key.extend((index as u32).to_be_bytes());
    key.push(place);
    key
}

/// Key of the planned looks of one hypothesis.
pub(crate) fn looks(id: &RolloutId, index: usize) -> Vec<u8> {
    let mut key = of_kind(id, Kind::Looks);
    key.extend((index as u32).to_be_bytes());
    key
}

/// Key of control's past in the strata of one hypothesis.
pub(crate) fn strata(id: &RolloutId, index: usize) -> Vec<u8> {
    let mut key = of_kind(id, Kind::Strata);
    key.extend((index as u32).to_be_bytes());
    key
}

/// Key of what units have added to one hypothesis.
pub(crate) fn units(id: &RolloutId, index: usize) -> Vec<u8> {
    let mut key = of_kind(id, Kind::Units);
    key.extend((index as u32).to_be_bytes());
    key
}

/// Key of a warm-up summary. The value repeats metric and segment, so the key is never parsed.
pub(crate) fn warm_up(id: &RolloutId, metric: usize, segment: &Segment) -> Vec<u8> {
    let mut key = of_kind(id, Kind::WarmUp);
    key.extend((metric as u32).to_be_bytes());
    key.extend((segment.dimension.len() as u32).to_be_bytes());
    key.extend(segment.dimension.as_bytes());
    key.extend(segment.value.as_bytes());
    key
}

/// Key of a partial window that waits for other partitions.
pub(crate) fn partial(id: &RolloutId, window: &WindowKey, partition: i32) -> Vec<u8> {
    let mut key = of_kind(id, Kind::Partial);
    key.extend(window.closes.0.to_be_bytes());
    key.extend(window.maturity.0.to_be_bytes());
    key.extend(window.generation.0.to_be_bytes());
    key.extend(partition.to_be_bytes());
    key
}

/// Splits a rollout's key into its id and the kind of row.
pub(crate) fn parse(key: &[u8]) -> Result<(RolloutId, Kind), FoldError> {
    let wrong = || FoldError::State(format!("a row of the analyzer has a key of an unknown form: {key:02x?}"));
    let rest = key.strip_prefix(ROLLOUTS).ok_or_else(wrong)?;
    let end = rest.iter().position(|&byte| byte == 0).ok_or_else(wrong)?;
    let id = std::str::from_utf8(&rest[..end]).map_err(|_| wrong())?;
    let kind = rest.get(end + 1).copied().and_then(Kind::of).ok_or_else(wrong)?;
    Ok((RolloutId::from(id), kind))
}

/// The bytes of a row.
pub(crate) fn encode<T: Serialize>(value: &T) -> Result<Bytes, FoldError> {
    let bytes = postcard::to_extend(value, vec![FORMAT]);
    bytes
        .map(Bytes::from)
        .map_err(|error| FoldError::State(format!("a row of the analyzer cannot be written: {error}")))
}

/// A head of format 3. It is completed with its rules version, which is 1 and is written by `postcard` as 2, an empty coverage
/// (three options and a map), and the first rules to judge it under.
fn old_head(bytes: &[u8]) -> Result<Head, FoldError> {
    decode::<Head<OldCounts>>("a rollout", &[bytes, &[2, 0, 0, 0, 0, 2]].concat()).map(Head::with_all_counts)
}

/// The head of a rollout.
pub(crate) fn decode_head(bytes: &[u8]) -> Result<Head, FoldError> {
    match bytes.first() {
        // Format 2 has no map of starts: add an empty one, and what format 3 lacks.
        Some(&OLDEST) => old_head(&[bytes, &[0]].concat()),
        Some(..COUNTS_OUTCOMES) => old_head(bytes),
        Some(..COUNTS_CONTRADICTIONS) => decode::<Head<OutcomeCounts>>("a rollout", bytes).map(Head::with_all_counts),
        _ => decode("a rollout", bytes),
    }
}

/// The value of a row.
pub(crate) fn decode<T: DeserializeOwned>(what: &str, bytes: &[u8]) -> Result<T, FoldError> {
    let body = body(what, bytes)?;
    postcard::from_bytes(body)
        .map_err(|error| FoldError::State(format!("the analyzer's row of {what} cannot be read: {error}; {REBUILD}")))
}

/// A partial window is stored as it arrived: the version of its schema, then its body.
pub(crate) fn partial_row(record: &Record) -> Result<Bytes, FoldError> {
    let (_, version) = envelope::record_type(&record.headers).map_err(|error| FoldError::State(error.to_string()))?;
    let body = record.value.as_deref().unwrap_or_default();
    Ok([&[FORMAT][..], &version.to_le_bytes(), body].concat().into())
}

/// The partial window of a row.
pub(crate) fn partial_of(row: &[u8]) -> Result<WindowClosed, FoldError> {
    let what = "a partial window";
    let unreadable = |cause: &str| FoldError::State(format!("the analyzer's row of {what} cannot be read: {cause}"));
    let (version, body) = body(what, row)?.split_first_chunk().ok_or_else(|| unreadable("the row is truncated"))?;
    codec::decode::<WindowClosed>(u32::from_le_bytes(*version), body).map_err(|error| unreadable(&error.to_string()))
}

/// Whether rows of this format can be read. Their first byte is the format.
pub(crate) fn is_known(row: &[u8]) -> bool {
    row.first().is_none_or(|format| (OLDEST..=FORMAT).contains(format))
}

/// Whether a row of guards is older than format 5. It counts the zeros that stand for missing labels as values.
pub(crate) fn counts_zeros_as_values(row: &[u8]) -> bool {
    row.first().is_some_and(|&format| format < 5)
}

/// The bytes of a row after its format byte.
pub(crate) fn body<'a>(what: &str, bytes: &'a [u8]) -> Result<&'a [u8], FoldError> {
    let (&format, body) = bytes
        .split_first()
        .ok_or_else(|| FoldError::State(format!("the analyzer's row of {what} is empty; {REBUILD}")))?;
    let fix = match format {
        OLDEST..=FORMAT => return Ok(body),
        ..OLDEST => "let the rollouts end under the version that wrote it, or",
        _ => "run the version that wrote it, or a newer one; or",
    };
    Err(FoldError::State(format!(
        "the analyzer's row of {what} has format {format}, but this build reads {OLDEST} to {FORMAT}: {fix} {REBUILD}"
    )))
}

/// Rows are a cache of `windows`, so this always works.
const REBUILD: &str = "delete the topic `analyzer-changelog`, the consumer group `analyzer` and the state directory, and \
                       the analyzer reads `windows` again from the start (it rewrites verdicts on what is retained, with the same ids)";
