//! The position of a task, written with each commit to the changelog and to the store.
//!
//! | writer | reader | outcome |
//! |---|---|---|
//! | version 2 | version 2 | read |
//! | version 1, without the number of partitions | version 2 | [`FormatError`]: the task refuses to open and leaves the state unchanged |
//! | newer | version 2 | the same |

use bytes::{Buf, BufMut, Bytes, BytesMut};
use serin_schemas::ids::NextOffset;

/// Key of the checkpoint, in the changelog and in the store. Sorts before all rows.
pub const KEY: &[u8] = b"\0ckpt";

/// Version of the layout that this build writes, and the only one it reads.
const FORMAT: u8 = 2;

/// A checkpoint that is damaged or has another format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// Another version of Serin wrote the checkpoint.
    #[error(
        "the checkpoint has format {0}, this build reads {FORMAT}; run the version that wrote it, or one that reads both"
    )]
    Unknown(u8),
    /// The checkpoint is truncated or malformed.
    #[error("the checkpoint is damaged")]
    Damaged,
}

/// A consistent point: the rows are the result of the inputs before these positions.
///
/// Layout, big-endian: format `u8`, `commit_seq` `u64`, `written_at_ms` `i64`, `partitions` `i32`, number of inputs `u16`, then
/// for each input the length of its name `u16`, the name, `next` `i64`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checkpoint {
    /// Number of this commit. It grows by one with each commit.
    pub commit_seq: u64,
    /// Wall-clock time of the commit, in milliseconds since the Unix epoch.
    pub written_at_ms: i64,
    /// Number of partitions of each input. With another number, keys map to other partitions than their rows.
    pub partitions: i32,
    /// The next offset of each input topic, by its name without prefix.
    pub inputs: Vec<(String, NextOffset)>,
}

impl Checkpoint {
    /// The position in `input`, if there is one.
    pub fn next(&self, input: &str) -> Option<NextOffset> {
        self.inputs.iter().find(|(name, _)| name == input).map(|(_, next)| *next)
    }

    /// Encodes the checkpoint.
    pub fn encode(&self) -> Bytes {
        let mut bytes = BytesMut::new();
        bytes.put_u8(FORMAT);
        bytes.put_u64(self.commit_seq);
        bytes.put_i64(self.written_at_ms);
        bytes.put_i32(self.partitions);
        bytes.put_u16(self.inputs.len() as u16);
        for (name, next) in &self.inputs {
            bytes.put_u16(name.len() as u16);
            bytes.put_slice(name.as_bytes());
            bytes.put_i64(next.0);
        }
        bytes.freeze()
    }

    /// Decodes a checkpoint.
    pub fn decode(mut bytes: &[u8]) -> Result<Self, FormatError> {
        let damaged = |_| FormatError::Damaged;
        let format = bytes.try_get_u8().map_err(damaged)?;
        if format != FORMAT {
            return Err(FormatError::Unknown(format));
        }
        let commit_seq = bytes.try_get_u64().map_err(damaged)?;
        let written_at_ms = bytes.try_get_i64().map_err(damaged)?;
        let partitions = bytes.try_get_i32().map_err(damaged)?;
        let count = bytes.try_get_u16().map_err(damaged)?;
        let mut inputs = Vec::with_capacity(usize::from(count));
        for _ in 0..count {
            let length = usize::from(bytes.try_get_u16().map_err(damaged)?);
            let name = bytes.get(..length).and_then(|name| std::str::from_utf8(name).ok());
            let name = name.ok_or(FormatError::Damaged)?.to_owned();
            bytes.advance(length);
            inputs.push((name, NextOffset(bytes.try_get_i64().map_err(damaged)?)));
        }
        if bytes.is_empty() {
            Ok(Self { commit_seq, written_at_ms, partitions, inputs })
        } else {
            Err(FormatError::Damaged)
        }
    }
}

/// The checkpoint in the store, together with the changelog position up to which the store is complete.
///
/// Layout: format `u8`, `changelog_next` `i64`, then the [`Checkpoint`], which is absent before the first commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredCheckpoint {
    /// The store contains the changelog up to this position.
    pub changelog_next: NextOffset,
    /// The newest checkpoint before that position.
    pub checkpoint: Option<Checkpoint>,
}

impl StoredCheckpoint {
    /// Encodes the checkpoint.
    pub fn encode(&self) -> Bytes {
        let mut bytes = BytesMut::new();
        bytes.put_u8(FORMAT);
        bytes.put_i64(self.changelog_next.0);
        if let Some(checkpoint) = &self.checkpoint {
            bytes.put_slice(&checkpoint.encode());
        }
        bytes.freeze()
    }

    /// Decodes a checkpoint.
    pub fn decode(mut bytes: &[u8]) -> Result<Self, FormatError> {
        match bytes.try_get_u8() {
            Ok(FORMAT) => {}
            Ok(other) => return Err(FormatError::Unknown(other)),
            Err(_) => return Err(FormatError::Damaged),
        }
        let changelog_next = NextOffset(bytes.try_get_i64().map_err(|_| FormatError::Damaged)?);
        let checkpoint = if bytes.is_empty() { None } else { Some(Checkpoint::decode(bytes)?) };
        Ok(Self { changelog_next, checkpoint })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checkpoint() -> Checkpoint {
        let inputs = vec![("events".to_owned(), NextOffset(77)), ("c".to_owned(), NextOffset(0))];
        Checkpoint { commit_seq: 3, written_at_ms: 1_700_000_000_000, partitions: 4, inputs }
    }

    #[test]
    fn golden_bytes() {
        let golden = b"\x02\0\0\0\0\0\0\0\x03\0\0\x01\x8b\xcf\xe5\x68\0\0\0\0\x04\0\x02\0\x06events\0\0\0\0\0\0\0\x4d\0\x01c\0\0\0\0\0\0\0\0";
        assert_eq!(checkpoint().encode(), golden.as_slice());
        assert_eq!(Checkpoint::decode(golden), Ok(checkpoint()));
        let stored = StoredCheckpoint { changelog_next: NextOffset(9), checkpoint: Some(checkpoint()) };
        let mut golden_stored = b"\x02\0\0\0\0\0\0\0\x09".to_vec();
        golden_stored.extend(golden);
        assert_eq!(stored.encode(), golden_stored);
        assert_eq!(StoredCheckpoint::decode(&golden_stored), Ok(stored));
        let empty = StoredCheckpoint { changelog_next: NextOffset(0), checkpoint: None };
        assert_eq!(StoredCheckpoint::decode(&empty.encode()), Ok(empty));
    }

    #[test]
    fn other_versions_and_damage_are_refused() {
        let mut bytes = checkpoint().encode().to_vec();
        for cut in 0..bytes.len() {
            assert_eq!(Checkpoint::decode(&bytes[..cut]), Err(FormatError::Damaged), "cut at {cut}");
        }
        for other in [1, 3] {
            bytes[0] = other;
            assert_eq!(Checkpoint::decode(&bytes), Err(FormatError::Unknown(other)));
            assert_eq!(StoredCheckpoint::decode(&bytes), Err(FormatError::Unknown(other)));
        }
    }

    #[test]
    fn positions_are_found_by_name() {
        assert_eq!(checkpoint().next("events"), Some(NextOffset(77)));
        assert_eq!(checkpoint().next("other"), None);
    }
}
