//! The encoding of the intake's rows, its state and the calls that wait for a part: a format byte and a `postcard` body.

use bytes::Bytes;
use serde::{Serialize, de::DeserializeOwned};
use serin_stream::fold::FoldError;

/// First byte of every row that this build writes.
const FORMAT: u8 = 4;
/// Oldest format that this build reads. The row of the state has not changed since then. Rows of calls exist since format 4.
const OLDEST: u8 = 2;

/// Recovery that always works, because the row is a cache of the log.
const REBUILD: &str = "delete the topic `intake-changelog`, the consumer group `intake` and the state directory; intake \
                       then reads its topics again from the earliest retained record";

/// Encodes a row.
pub(crate) fn encode<T: Serialize>(value: &T) -> Result<Bytes, FoldError> {
    postcard::to_extend(value, vec![FORMAT])
        .map(Bytes::from)
        .map_err(|error| FoldError::State(format!("a row of the intake cannot be written: {error}")))
}

/// Decodes a row.
pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, FoldError> {
    let body = match bytes.split_first() {
        Some((OLDEST..=FORMAT, body)) => body,
        Some((format, _)) => {
            return Err(FoldError::State(format!(
                "a row of the intake has format {format}, this build reads {OLDEST} to {FORMAT}; run the version that \
                 wrote it, or a newer one, or {REBUILD}"
            )));
        }
        None => return Err(FoldError::State(format!("a row of the intake is empty; {REBUILD}"))),
    };
    postcard::from_bytes(body)
        .map_err(|error| FoldError::State(format!("a row of the intake is unreadable: {error}; {REBUILD}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_bytes_and_other_formats() {
        let row: (i64, Vec<i64>) = (7, vec![1, -1]);
        assert_eq!(encode(&row).unwrap()[..], [4, 14, 2, 2, 1]);
        for format in [2, 3, 4] {
            assert_eq!(decode::<(i64, Vec<i64>)>(&[format, 14, 2, 2, 1]).unwrap(), row);
        }
        for other in [1, 5] {
            let text = decode::<(i64, Vec<i64>)>(&[other, 14, 2, 2, 1]).unwrap_err().to_string();
            assert!(text.contains(&format!("has format {other}, this build reads 2 to 4")), "{text}");
        }
    }
}
